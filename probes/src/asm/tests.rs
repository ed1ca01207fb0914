//! What the assembler encodes and what it refuses.

use super::*;
use crate::helper;
use crate::insn::Reg::{R0, R1, R2, R6, R10};

/// The four fields that matter, for short tables.
fn parts(insn: Insn) -> (u8, u8, u8, i16, i32) {
    (insn.code, insn.dst(), insn.src(), insn.off, insn.imm)
}

#[test]
fn a_filter_by_process_resolves_forward_labels() {
    let mut a = Asm::new();
    a.mov_reg(R6, R1)
        .call(helper::GET_CURRENT_PID_TGID)
        .rsh_imm(R0, 32)
        .jne_imm(R0, 1234u32, "out")
        .ldx(Size::DW, R1, R6, 8)
        .label("out")
        .mov_imm(R0, 0)
        .exit();
    let seen: Vec<_> = a.finish().unwrap().into_iter().map(parts).collect();
    assert_eq!(
        seen,
        [
            (0xbf, 6, 1, 0, 0),
            (0x85, 0, 0, 0, 14),
            (0x77, 0, 0, 0, 32),
            (0x55, 0, 0, 1, 1234),
            (0x79, 1, 6, 8, 0),
            (0xb7, 0, 0, 0, 0),
            (0x95, 0, 0, 0, 0),
        ]
    );
}

#[test]
fn calls_and_callbacks_count_slots_of_wide_loads() {
    let mut a = Asm::new();
    a.ld_func(R2, "callback").call_sub("callback").exit().label("callback").mov_imm(R0, 0).ja("end");
    a.label("end").exit();
    let insns = a.finish().unwrap();
    assert_eq!(parts(insns[0]), (0x18, 2, op::PSEUDO_FUNC, 0, 3));
    assert_eq!(parts(insns[2]), (0x85, 0, op::PSEUDO_CALL, 0, 1));
    assert_eq!(parts(insns[5]), (0x05, 0, 0, 0, 0));
    assert_eq!(a.position("callback"), Some(4));
}

#[test]
fn jumps_out_of_a_stretch_of_code_land_at_its_end() {
    let mut a = Asm::new();
    a.jeq_imm(R0, 0, "out").label("begin").jeq_imm(R0, 1, "out").jeq_imm(R0, 2, "other");
    a.land("begin", "out", "end").mov_imm(R0, 0).label("out").label("other").exit();
    let insns = a.finish().unwrap();
    assert_eq!(insns[..3].iter().map(|insn| insn.off).collect::<Vec<_>>(), [3, 1, 1]);
}

#[test]
fn backward_and_long_jumps() {
    let mut a = Asm::new();
    a.label("top").mov_imm(R0, 0).may_goto("top").gotol("top").jslt32_reg(R0, R1, "top");
    let insns = a.finish().unwrap();
    assert_eq!(parts(insns[1]), (0xe5, 0, 0, -2, 0));
    assert_eq!(parts(insns[2]), (0x06, 0, 0, 0, -3));
    assert_eq!(parts(insns[3]), (0xce, 0, 1, -4, 0));
}

#[test]
fn memory_atomics_and_wide_loads() {
    let mut a = Asm::new();
    a.st_imm(Size::W, R10, -4, 0xffff_ffffu32)
        .stx(Size::DW, R10, -16, R1)
        .ldsx(Size::H, R0, R10, -4)
        .atomic_add(Size::DW, R2, 8, R1)
        .cmpxchg(Size::W, R2, 0, R1)
        .load_acquire(Size::W, R0, R2, 4)
        .ld_imm64(R1, 0x1122_3344_8566_7788)
        .ld_btf_id(R1, 7, 9)
        .call_kfunc(99, 1)
        .to_be(R0, 16)
        .bswap(R0, 64)
        .sdiv_imm(R0, 3)
        .movsx(R0, R1, 8);
    let seen: Vec<_> = a.finish().unwrap().into_iter().map(parts).collect();
    assert_eq!(
        seen,
        [
            (0x62, 10, 0, -4, -1),
            (0x7b, 10, 1, -16, 0),
            (0x89, 0, 10, -4, 0),
            (0xdb, 2, 1, 8, 0),
            (0xc3, 2, 1, 0, 0xf1),
            (0xc3, 0, 2, 4, 0x100),
            (0x18, 1, 0, 0, 0x8566_7788u32.cast_signed()),
            (0, 0, 0, 0, 0x1122_3344),
            (0x18, 1, 3, 0, 7),
            (0, 0, 0, 0, 9),
            (0x85, 0, 2, 1, 99),
            (0xdc, 0, 0, 0, 16),
            (0xd7, 0, 0, 0, 64),
            (0x37, 0, 0, 1, 3),
            (0xbf, 0, 1, 8, 0),
        ]
    );
}

#[test]
fn mistakes_are_named() {
    let missing = Asm::new().ja("nowhere").finish();
    assert_eq!(missing, Err(AsmError::UndefinedLabel { label: "nowhere".into(), at: 0 }));
    let twice = Asm::new().label("a").label("a").exit().finish();
    assert_eq!(twice, Err(AsmError::DuplicateLabel { label: "a".into() }));
    let offset = Asm::new().ldx(Size::B, R0, R1, 40_000).exit().finish();
    assert_eq!(offset, Err(AsmError::Offset { at: 0, value: 40_000 }));
    let wide = Asm::new().exit().mov_imm(R0, 0xffff_ffffu32).finish();
    assert_eq!(wide, Err(AsmError::Immediate { at: 1, value: 0xffff_ffff }));
    let mut far = Asm::new();
    far.ja("end");
    for _ in 0..40_000 {
        far.exit();
    }
    let far = far.label("end").finish();
    assert_eq!(far, Err(AsmError::JumpTooFar { label: "end".into(), at: 0, distance: 40_000 }));
}
