//! A small assembler: one method per instruction, labels for jumps, calls and callbacks.
//!
//! It checks only what it needs to encode (labels, widths of offsets and immediates) and deliberately nothing
//! that a verifier checks: probes must be able to submit programs that are wrong. What has no method goes in
//! through [`Asm::raw`].

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};

use thiserror::Error;

use crate::insn::{Insn, Reg, Size, op};

mod atomic;
pub use atomic::Atomic;

/// Why a program cannot be encoded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AsmError {
    /// A jump, call or callback names a label that was never placed.
    #[error("label `{label}` is used at instruction {at} and never placed")]
    UndefinedLabel {
        /// The label.
        label: String,
        /// The instruction that names it.
        at: usize,
    },
    /// A label was placed twice.
    #[error("label `{label}` is placed twice")]
    DuplicateLabel {
        /// The label.
        label: String,
    },
    /// The target lies further away than the field holds.
    #[error("label `{label}` is {distance} instructions away from instruction {at}: out of range")]
    JumpTooFar {
        /// The label.
        label: String,
        /// The instruction that names it.
        at: usize,
        /// The distance that did not fit.
        distance: i64,
    },
    /// A memory offset does not fit 16 bits.
    #[error("offset {value} at instruction {at} is out of range")]
    Offset {
        /// The instruction.
        at: usize,
        /// The offset.
        value: i64,
    },
    /// An immediate does not fit 32 bits, or would change its value by sign extension in a 64-bit operation.
    #[error("immediate {value} at instruction {at} is out of range")]
    Immediate {
        /// The instruction.
        at: usize,
        /// The immediate.
        value: i64,
    },
}

/// The field of an instruction that receives a distance.
#[derive(Clone, Copy, Debug)]
enum Field {
    Off,
    Imm,
}

#[derive(Clone, Debug)]
struct Fixup {
    at: usize,
    label: String,
    field: Field,
}

/// A program in the making. Mistakes are kept and reported by [`Asm::finish`], so that calls can be chained.
#[derive(Clone, Debug, Default)]
pub struct Asm {
    insns: Vec<Insn>,
    labels: HashMap<String, usize>,
    fixups: Vec<Fixup>,
    mistake: Option<AsmError>,
}

/// One method for each form of an arithmetic operation.
macro_rules! alu {
    ($($text:literal $code:ident $off:literal: $imm:ident $reg:ident $imm32:ident $reg32:ident;)*) => {$(
        #[doc = concat!("`dst ", $text, " imm`, the immediate being sign-extended to 64 bits.")]
        pub fn $imm(&mut self, dst: Reg, imm: impl Into<i64>) -> &mut Self {
            let imm = self.imm64(imm.into());
            self.push(op::ALU64 | op::$code | op::K, dst.number(), 0, $off, imm)
        }

        #[doc = concat!("`dst ", $text, " src` on 64 bits.")]
        pub fn $reg(&mut self, dst: Reg, src: Reg) -> &mut Self {
            self.push(op::ALU64 | op::$code | op::X, dst.number(), src.number(), $off, 0)
        }

        #[doc = concat!("`dst ", $text, " imm` on 32 bits, clearing the upper half.")]
        pub fn $imm32(&mut self, dst: Reg, imm: impl Into<i64>) -> &mut Self {
            let imm = self.imm32(imm.into());
            self.push(op::ALU | op::$code | op::K, dst.number(), 0, $off, imm)
        }

        #[doc = concat!("`dst ", $text, " src` on 32 bits, clearing the upper half.")]
        pub fn $reg32(&mut self, dst: Reg, src: Reg) -> &mut Self {
            self.push(op::ALU | op::$code | op::X, dst.number(), src.number(), $off, 0)
        }
    )*};
}

/// One method for each form of a conditional jump.
macro_rules! jumps {
    ($($text:literal $code:ident: $imm:ident $reg:ident $imm32:ident $reg32:ident;)*) => {$(
        #[doc = concat!("`if dst ", $text, " imm goto label`, the immediate being sign-extended to 64 bits.")]
        pub fn $imm(&mut self, dst: Reg, imm: impl Into<i64>, label: &str) -> &mut Self {
            let imm = self.imm64(imm.into());
            self.jump(op::JMP | op::$code | op::K, dst.number(), 0, imm, label)
        }

        #[doc = concat!("`if dst ", $text, " src goto label`.")]
        pub fn $reg(&mut self, dst: Reg, src: Reg, label: &str) -> &mut Self {
            self.jump(op::JMP | op::$code | op::X, dst.number(), src.number(), 0, label)
        }

        #[doc = concat!("`if dst ", $text, " imm goto label` on the low 32 bits.")]
        pub fn $imm32(&mut self, dst: Reg, imm: impl Into<i64>, label: &str) -> &mut Self {
            let imm = self.imm32(imm.into());
            self.jump(op::JMP32 | op::$code | op::K, dst.number(), 0, imm, label)
        }

        #[doc = concat!("`if dst ", $text, " src goto label` on the low 32 bits.")]
        pub fn $reg32(&mut self, dst: Reg, src: Reg, label: &str) -> &mut Self {
            self.jump(op::JMP32 | op::$code | op::X, dst.number(), src.number(), 0, label)
        }
    )*};
}

impl Asm {
    /// An empty program.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an instruction as it is.
    pub fn raw(&mut self, insn: Insn) -> &mut Self {
        self.insns.push(insn);
        self
    }

    /// Places a label before the next instruction.
    pub fn label(&mut self, name: &str) -> &mut Self {
        if self.labels.insert(name.to_owned(), self.insns.len()).is_some() {
            self.mistaken(AsmError::DuplicateLabel { label: name.to_owned() });
        }
        self
    }

    /// Places a label where those jumps land from now on that were to go to `label` and stand after `begin`, which has been
    /// placed: for code that must not be left in another way than by its end.
    pub fn land(&mut self, begin: &str, label: &str, here: &str) -> &mut Self {
        let begin = self.labels.get(begin).copied().unwrap_or(self.insns.len());
        let inside = |fixup: &&mut Fixup| fixup.at >= begin && fixup.label == label;
        self.fixups.iter_mut().filter(inside).for_each(|fixup| here.clone_into(&mut fixup.label));
        self.label(here)
    }

    /// The index of the instruction after a label that has been placed, for `bpf_func_info.insn_off`.
    #[must_use]
    pub fn position(&self, label: &str) -> Option<u32> {
        self.labels.get(label).and_then(|&at| u32::try_from(at).ok())
    }

    /// The instructions, with every label resolved.
    ///
    /// # Errors
    /// The first [`AsmError`] that was made on the way, or a label that is missing or too far away.
    pub fn finish(&self) -> Result<Vec<Insn>, AsmError> {
        if let Some(mistake) = &self.mistake {
            return Err(mistake.clone());
        }
        let mut insns = self.insns.clone();
        for Fixup { at, label, field } in &self.fixups {
            let Some(&target) = self.labels.get(label) else {
                return Err(AsmError::UndefinedLabel { label: label.clone(), at: *at });
            };
            // Distances count from the next slot, also for a wide load of a callback's address:
            // 6.12 kernel/bpf/verifier.c add_subprog_and_kfunc takes `i + insn->imm + 1`.
            let distance = signed(target) - signed(*at) - 1;
            let too_far = || AsmError::JumpTooFar { label: label.clone(), at: *at, distance };
            let Some(insn) = insns.get_mut(*at) else { continue };
            match field {
                Field::Off => insn.off = i16::try_from(distance).map_err(|_| too_far())?,
                Field::Imm => insn.imm = i32::try_from(distance).map_err(|_| too_far())?,
            }
        }
        Ok(insns)
    }

    alu! {
        "+=" ADD 0: add_imm add_reg add32_imm add32_reg;
        "-=" SUB 0: sub_imm sub_reg sub32_imm sub32_reg;
        "*=" MUL 0: mul_imm mul_reg mul32_imm mul32_reg;
        "/=" DIV 0: div_imm div_reg div32_imm div32_reg;
        "s/=" DIV 1: sdiv_imm sdiv_reg sdiv32_imm sdiv32_reg;
        "|=" OR 0: or_imm or_reg or32_imm or32_reg;
        "&=" AND 0: and_imm and_reg and32_imm and32_reg;
        "<<=" LSH 0: lsh_imm lsh_reg lsh32_imm lsh32_reg;
        ">>=" RSH 0: rsh_imm rsh_reg rsh32_imm rsh32_reg;
        "%=" MOD 0: mod_imm mod_reg mod32_imm mod32_reg;
        "s%=" MOD 1: smod_imm smod_reg smod32_imm smod32_reg;
        "^=" XOR 0: xor_imm xor_reg xor32_imm xor32_reg;
        "=" MOV 0: mov_imm mov_reg mov32_imm mov32_reg;
        "s>>=" ARSH 0: arsh_imm arsh_reg arsh32_imm arsh32_reg;
    }

    /// `dst = -dst` on 64 bits.
    pub fn neg(&mut self, dst: Reg) -> &mut Self {
        self.push(op::ALU64 | op::NEG, dst.number(), 0, 0, 0)
    }

    /// `dst = -dst` on 32 bits.
    pub fn neg32(&mut self, dst: Reg) -> &mut Self {
        self.push(op::ALU | op::NEG, dst.number(), 0, 0, 0)
    }

    /// `dst = (s<bits>)src` for 8, 16 or 32 bits (6.6).
    pub fn movsx(&mut self, dst: Reg, src: Reg, bits: i16) -> &mut Self {
        self.push(op::ALU64 | op::MOV | op::X, dst.number(), src.number(), bits, 0)
    }

    /// `w(dst) = (s<bits>)w(src)` for 8 or 16 bits (6.6).
    pub fn movsx32(&mut self, dst: Reg, src: Reg, bits: i16) -> &mut Self {
        self.push(op::ALU | op::MOV | op::X, dst.number(), src.number(), bits, 0)
    }

    /// Little-endian to host order (and back) on the low `bits` bits; clears the bits above.
    pub fn to_le(&mut self, dst: Reg, bits: i32) -> &mut Self {
        self.push(op::ALU | op::END | op::K, dst.number(), 0, 0, bits)
    }

    /// Big-endian to host order (and back) on the low `bits` bits; clears the bits above.
    pub fn to_be(&mut self, dst: Reg, bits: i32) -> &mut Self {
        self.push(op::ALU | op::END | op::X, dst.number(), 0, 0, bits)
    }

    /// Swaps the bytes of the low `bits` bits unconditionally (6.6).
    pub fn bswap(&mut self, dst: Reg, bits: i32) -> &mut Self {
        self.push(op::ALU64 | op::END, dst.number(), 0, 0, bits)
    }

    jumps! {
        "==" JEQ: jeq_imm jeq_reg jeq32_imm jeq32_reg;
        "!=" JNE: jne_imm jne_reg jne32_imm jne32_reg;
        ">" JGT: jgt_imm jgt_reg jgt32_imm jgt32_reg;
        ">=" JGE: jge_imm jge_reg jge32_imm jge32_reg;
        "<" JLT: jlt_imm jlt_reg jlt32_imm jlt32_reg;
        "<=" JLE: jle_imm jle_reg jle32_imm jle32_reg;
        "&" JSET: jset_imm jset_reg jset32_imm jset32_reg;
        "s>" JSGT: jsgt_imm jsgt_reg jsgt32_imm jsgt32_reg;
        "s>=" JSGE: jsge_imm jsge_reg jsge32_imm jsge32_reg;
        "s<" JSLT: jslt_imm jslt_reg jslt32_imm jslt32_reg;
        "s<=" JSLE: jsle_imm jsle_reg jsle32_imm jsle32_reg;
    }

    /// `goto label`.
    pub fn ja(&mut self, label: &str) -> &mut Self {
        self.jump(op::JMP | op::JA, 0, 0, 0, label)
    }

    /// `gotol label`, a jump with a 32-bit distance (6.6).
    pub fn gotol(&mut self, label: &str) -> &mut Self {
        self.target(Field::Imm, label);
        self.push(op::JMP32 | op::JA, 0, 0, 0, 0)
    }

    /// `may_goto label`: jumps once the kernel's iteration budget is used up (6.9).
    pub fn may_goto(&mut self, label: &str) -> &mut Self {
        self.jump(op::JMP | op::JCOND, 0, 0, 0, label)
    }

    /// Returns from the program or subprogram.
    pub fn exit(&mut self) -> &mut Self {
        self.push(op::JMP | op::EXIT, 0, 0, 0, 0)
    }

    /// Calls the helper with this number ([`crate::helper`]).
    pub fn call(&mut self, helper: u32) -> &mut Self {
        self.push(op::JMP | op::CALL, 0, 0, 0, helper.cast_signed())
    }

    /// The numbers of the helpers that are called so far.
    pub fn helpers(&self) -> impl Iterator<Item = u32> {
        let calls = |insn: &&Insn| insn.code == op::JMP | op::CALL && insn.regs >> 4 == 0;
        self.insns.iter().filter(calls).map(|insn| insn.imm.cast_unsigned())
    }

    /// Calls a kfunc by its BTF id (5.13). `fd_idx` is the index in `fd_array` of the BTF of its module, 0 for vmlinux.
    pub fn call_kfunc(&mut self, btf_id: u32, fd_idx: i16) -> &mut Self {
        self.push(op::JMP | op::CALL, 0, op::PSEUDO_KFUNC_CALL, fd_idx, btf_id.cast_signed())
    }

    /// Calls the subprogram at a label.
    pub fn call_sub(&mut self, label: &str) -> &mut Self {
        self.target(Field::Imm, label);
        self.push(op::JMP | op::CALL, 0, op::PSEUDO_CALL, 0, 0)
    }

    /// `dst = *(size *)(src + off)`.
    pub fn ldx(&mut self, size: Size, dst: Reg, src: Reg, off: impl Into<i64>) -> &mut Self {
        let off = self.off(off.into());
        self.push(op::LDX | op::MEM | size.code(), dst.number(), src.number(), off, 0)
    }

    /// `dst = *(signed size *)(src + off)` (6.6).
    pub fn ldsx(&mut self, size: Size, dst: Reg, src: Reg, off: impl Into<i64>) -> &mut Self {
        let off = self.off(off.into());
        self.push(op::LDX | op::MEMSX | size.code(), dst.number(), src.number(), off, 0)
    }

    /// `*(size *)(base + off) = src`.
    pub fn stx(&mut self, size: Size, base: Reg, off: impl Into<i64>, src: Reg) -> &mut Self {
        let off = self.off(off.into());
        self.push(op::STX | op::MEM | size.code(), base.number(), src.number(), off, 0)
    }

    /// `*(size *)(base + off) = imm`.
    pub fn st_imm(&mut self, size: Size, base: Reg, off: impl Into<i64>, imm: impl Into<i64>) -> &mut Self {
        let off = self.off(off.into());
        let imm = if matches!(size, Size::DW) { self.imm64(imm.into()) } else { self.imm32(imm.into()) };
        self.push(op::ST | op::MEM | size.code(), base.number(), 0, off, imm)
    }

    /// An atomic operation on `*(size *)(base + off)`.
    pub fn atomic(
        &mut self,
        what: Atomic,
        size: Size,
        base: Reg,
        off: impl Into<i64>,
        src: Reg,
    ) -> &mut Self {
        let off = self.off(off.into());
        self.push(op::STX | op::ATOMIC | size.code(), base.number(), src.number(), off, what.imm())
    }

    /// `lock *(size *)(base + off) += src`, the one atomic that every kernel has.
    pub fn atomic_add(&mut self, size: Size, base: Reg, off: impl Into<i64>, src: Reg) -> &mut Self {
        self.atomic(Atomic::Add, size, base, off, src)
    }

    /// `src = fetch_add(base + off, src)` (5.12).
    pub fn fetch_add(&mut self, size: Size, base: Reg, off: impl Into<i64>, src: Reg) -> &mut Self {
        self.atomic(Atomic::FetchAdd, size, base, off, src)
    }

    /// `src = xchg(base + off, src)` (5.12).
    pub fn xchg(&mut self, size: Size, base: Reg, off: impl Into<i64>, src: Reg) -> &mut Self {
        self.atomic(Atomic::Xchg, size, base, off, src)
    }

    /// `r0 = cmpxchg(base + off, r0, src)` (5.12).
    pub fn cmpxchg(&mut self, size: Size, base: Reg, off: impl Into<i64>, src: Reg) -> &mut Self {
        self.atomic(Atomic::Cmpxchg, size, base, off, src)
    }

    /// `dst = load_acquire(src + off)` (6.15).
    pub fn load_acquire(&mut self, size: Size, dst: Reg, src: Reg, off: impl Into<i64>) -> &mut Self {
        let off = self.off(off.into());
        self.push(op::STX | op::ATOMIC | size.code(), dst.number(), src.number(), off, op::LOAD_ACQ)
    }

    /// `store_release(base + off, src)` (6.15).
    pub fn store_release(&mut self, size: Size, base: Reg, off: impl Into<i64>, src: Reg) -> &mut Self {
        let off = self.off(off.into());
        self.push(op::STX | op::ATOMIC | size.code(), base.number(), src.number(), off, op::STORE_REL)
    }

    /// `dst = value`, all 64 bits.
    pub fn ld_imm64(&mut self, dst: Reg, value: u64) -> &mut Self {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves go into two slots")]
        let (low, high) = (value as u32, (value >> 32) as u32);
        self.wide(dst, 0, low.cast_signed(), high.cast_signed())
    }

    /// `dst = map`, by file descriptor. Only the number is kept: the caller keeps the map open until the load.
    pub fn ld_map_fd(&mut self, dst: Reg, map: impl AsFd) -> &mut Self {
        self.wide(dst, op::PSEUDO_MAP_FD, map.as_fd().as_raw_fd(), 0)
    }

    /// `dst = &value of the map's element 0 + off`, for array maps.
    pub fn ld_map_value(&mut self, dst: Reg, map: impl AsFd, off: u32) -> &mut Self {
        self.wide(dst, op::PSEUDO_MAP_VALUE, map.as_fd().as_raw_fd(), off.cast_signed())
    }

    /// `dst = map`, by index in `fd_array` (5.14).
    pub fn ld_map_idx(&mut self, dst: Reg, idx: i32) -> &mut Self {
        self.wide(dst, op::PSEUDO_MAP_IDX, idx, 0)
    }

    /// `dst = &value of element 0 + off` of the map at this index in `fd_array` (5.14).
    pub fn ld_map_idx_value(&mut self, dst: Reg, idx: i32, off: u32) -> &mut Self {
        self.wide(dst, op::PSEUDO_MAP_IDX_VALUE, idx, off.cast_signed())
    }

    /// `dst = &kernel variable` by the BTF id of its `VAR` (5.10); `btf_fd` is its module's BTF, 0 for vmlinux.
    pub fn ld_btf_id(&mut self, dst: Reg, btf_id: u32, btf_fd: i32) -> &mut Self {
        self.wide(dst, op::PSEUDO_BTF_ID, btf_id.cast_signed(), btf_fd)
    }

    /// `dst = &subprogram at label`, for helpers that take a callback (5.13).
    pub fn ld_func(&mut self, dst: Reg, label: &str) -> &mut Self {
        self.target(Field::Imm, label);
        self.wide(dst, op::PSEUDO_FUNC, 0, 0)
    }

    fn push(&mut self, code: u8, dst: u8, src: u8, off: i16, imm: i32) -> &mut Self {
        self.raw(Insn::new(code, dst, src, off, imm))
    }

    fn wide(&mut self, dst: Reg, src: u8, low: i32, high: i32) -> &mut Self {
        self.push(Insn::WIDE, dst.number(), src, 0, low).push(0, 0, 0, 0, high)
    }

    fn jump(&mut self, code: u8, dst: u8, src: u8, imm: i32, label: &str) -> &mut Self {
        self.target(Field::Off, label);
        self.push(code, dst, src, 0, imm)
    }

    /// Notes that the next instruction refers to `label`.
    fn target(&mut self, field: Field, label: &str) {
        self.fixups.push(Fixup { at: self.insns.len(), label: label.to_owned(), field });
    }

    fn mistaken(&mut self, mistake: AsmError) {
        self.mistake.get_or_insert(mistake);
    }

    fn off(&mut self, value: i64) -> i16 {
        i16::try_from(value).unwrap_or_else(|_| {
            self.mistaken(AsmError::Offset { at: self.insns.len(), value });
            0
        })
    }

    /// An immediate of a 64-bit operation: the machine extends its sign, so 32 unsigned bits are refused.
    fn imm64(&mut self, value: i64) -> i32 {
        i32::try_from(value).unwrap_or_else(|_| {
            self.mistaken(AsmError::Immediate { at: self.insns.len(), value });
            0
        })
    }

    /// An immediate of a 32-bit operation, signed or unsigned.
    fn imm32(&mut self, value: i64) -> i32 {
        match u32::try_from(value) {
            Ok(unsigned) => unsigned.cast_signed(),
            Err(_) => self.imm64(value),
        }
    }
}

/// A position as a signed number; programs are far shorter than `i64::MAX`.
fn signed(position: usize) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX / 2)
}

#[cfg(test)]
mod tests;
