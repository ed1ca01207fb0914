//! Unions: an argument that is one, `union bpf_attr` of the hook bpf, read and compared with what user space passed; and
//! pointers that stand in one, passed on.
//!
//! Until 6.5 the verifier looks at the first member of a union that reaches so far and at no other: 8 bytes that are one
//! number of a command are refused where the struct of `BPF_MAP_CREATE`, which comes first, has two numbers of 4 (6.5
//! kernel/bpf/btf.c, `btf_struct_walk`). From 6.6 on the end of the member no longer counts, and what is walked to through a
//! union is untrusted; on 6.4 and 6.5 it is so only where it does not stand at the union's start, where the walk begins anew
//! and forgets it (the same: `WALK_STRUCT`, `*flag`).

use super::{HELPER, WALK};
use crate::asm::Asm;
use crate::bpf::{BPF_MAP_TYPE_PERF_EVENT_ARRAY, MapSpec};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, LsmProgram, PAGE};
use crate::results::FREE;
use crate::session::{Attempt, Ended, Session, Stop};
use crate::spec::{Probe, Source, source};
use crate::triggers::Arm;

const WALK_EARLIER: Source = source("6.5", "kernel/bpf/btf.c", "btf_struct_walk");

/// The probe of the argument.
pub(super) fn probe() -> Probe {
    Probe::new(
        "pointer/union-argument",
        "What may a program read of union bpf_attr, the argument of hook bpf, directly, where the union's first structure has other members at that place than that of BPF_PROG_LOAD, and is it what user space passed?",
        &[WALK, WALK_EARLIER, source("6.6", "kernel/bpf/btf.c", "btf_struct_walk")],
        |session: &mut Session<'_>| -> Result<(), Stop> {
            session.case("a-number-of-4-bytes", |attempt| direct(attempt, 4, Size::W))?;
            session.case("a-number-of-8-bytes", |attempt| direct(attempt, INSNS, Size::DW))?;
            session.case("another-number-of-8-bytes", |attempt| direct(attempt, LICENSE, Size::DW))?;
            session.case("two-numbers-at-once", |attempt| direct(attempt, 0, Size::DW))?;
            session.case("a-number-where-the-first-structure-has-an-array", |attempt| {
                direct(attempt, LOG_BUF, Size::DW)
            })?;
            session.case("a-number-of-8-bytes-in-two-halves", |attempt| {
                read(attempt, INSNS, Size::DW, |asm| {
                    for half in [0, 4] {
                        asm.ldx(Size::W, Reg::R2, Reg::R1, INSNS + half);
                        asm.stx(Size::W, PAGE, FREE + half, Reg::R2);
                    }
                })
            })?;
            session.case("behind-the-end", behind_the_end)?;
            session.case("by-bpf_probe_read_kernel", |attempt| {
                read(attempt, INSNS, Size::DW, |asm| {
                    asm.mov_reg(Reg::R3, Reg::R1).add_imm(Reg::R3, INSNS);
                    asm.mov_reg(Reg::R1, PAGE).add_imm(Reg::R1, FREE);
                    asm.mov_imm(Reg::R2, 8).call(helper::PROBE_READ_KERNEL);
                })
            })
        },
    )
}

/// Where members of the structure of `BPF_PROG_LOAD` are (include/uapi/linux/bpf.h, `union bpf_attr`), with what that of
/// `BPF_MAP_CREATE` has there: `value_size` and `max_entries`,
const INSNS: i32 = 8;
/// `map_flags` and `inner_map_fd`,
const LICENSE: i32 = 16;
/// and a part of `map_name`.
const LOG_BUF: i32 = 32;

/// Reads a member with one instruction.
fn direct(attempt: &mut Attempt<'_>, offset: i32, size: Size) -> Result<(), Ended> {
    read(attempt, offset, size, |asm| {
        asm.ldx(size, Reg::R2, Reg::R1, offset).stx(Size::DW, PAGE, FREE, Reg::R2);
    })
}

/// Reads so much behind the end of the union that nothing of it is left.
fn behind_the_end(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    let btf = attempt.btf()?;
    let size = btf.record("bpf_attr").and_then(|id| btf.size_of(id));
    let size = size.ok_or_else(|| Ended::Absent("union bpf_attr".to_owned()))?;
    let results = attempt.results()?;
    let program = LsmProgram::framed("bpf", &results, |asm| {
        asm.ldx(Size::DW, Reg::R1, CTX, 8).ldx(Size::DW, Reg::R2, Reg::R1, size);
    });
    attempt.load_lsm_in_doubt(&program).map(drop)
}

/// A command's attribute, of which no two words of 4 bytes are alike. The type of program is none that there is, so that
/// the command is refused, after the hook.
fn attribute() -> [u32; 16] {
    std::array::from_fn(|index| (u32::try_from(index).unwrap_or(0) + 1).wrapping_mul(0x1111_1111) - 1)
}

/// Runs `body`, which has the address of the attribute in R1 and puts what it reads into the first free slot, for a
/// command of `BPF_PROG_LOAD`, and compares it with what is in the attribute.
fn read(
    attempt: &mut Attempt<'_>,
    offset: i32,
    size: Size,
    body: impl FnOnce(&mut Asm),
) -> Result<(), Ended> {
    let mut results = attempt.results()?;
    results.name_nobody();
    let program = LsmProgram::framed("bpf", &results, |asm| {
        asm.ldx(Size::DW, Reg::R1, CTX, 8);
        body(asm);
    });
    // Stays until the probe's process ends, and names nobody then: to detach the last program of a hook takes a grace period.
    std::mem::forget(attempt.attach_lsm(&program)?);
    results.set(FREE, u64::MAX);
    let attribute = attribute();
    let asked = attempt.trigger(|| Arm::new(&results).during(|| load(&attribute)));
    attempt.runs(results.runs());
    if asked.is_ok() {
        return Err(Ended::CouldNotTell("the kernel takes a type of program that does not exist".to_owned()));
    }
    let bytes: Vec<u8> = attribute.iter().flat_map(|word| word.to_le_bytes()).collect();
    let passed = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)?.first_chunk::<8>());
    let Some(passed) = passed else {
        return Err(Ended::CouldNotTell(format!("the attribute has no 8 bytes at {offset}")));
    };
    let passed = u64::from_le_bytes(*passed);
    let passed = if matches!(size, Size::W) { passed & u64::from(u32::MAX) } else { passed };
    attempt.same("what is read", results.get(FREE), passed);
    Ok(())
}

/// bpf(2) with `BPF_PROG_LOAD` and this attribute.
fn load(attribute: &[u32; 16]) -> Result<(), Errno> {
    const BPF_PROG_LOAD: u32 = 5;
    let size = size_of_val(attribute);
    // SAFETY: the attribute is valid for reads of its length, which is all the kernel does before it refuses the type of
    // program; an address in it that is followed leads to nothing, which is an errno.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, attribute.as_ptr(), size) };
    Errno::result(result).map(drop)
}

/// The probe of pointers in a union.
pub(super) fn probe_of_pointers() -> Probe {
    Probe::new(
        "pointer/union-pointer-to-helper",
        "May a program pass to a helper that wants a buffer of packets, bpf_skb_output, one that a member of a union points to, at its start or behind it, and one that a member of structures alone does, and follow the first?",
        &[HELPER, WALK, WALK_EARLIER],
        |session: &mut Session<'_>| -> Result<(), Stop> {
            session.case("of-a-structure", |attempt| pass_on(attempt, "sk_backlog.head"))?;
            session.case("of-a-union-at-its-start", |attempt| pass_on(attempt, "sk_send_head"))?;
            // `skb->prev`, of the hook's other argument: the second member of a structure that is the first of a union.
            session
                .case("of-a-union-behind-its-start", |attempt| pass_on_from(attempt, 8, "sk_buff", "prev"))?;
            session.case("of-a-union-at-its-start-followed", |attempt| {
                let length = attempt.btf()?.member("sk_buff", "len");
                let length = length.map_err(|error| Ended::Absent(error.to_string()))?.byte_offset;
                judge(attempt, 0, ("sock", "sk_send_head"), |asm| {
                    asm.ldx(Size::W, Reg::R1, Reg::R1, length);
                })
            })
        },
    )
}

/// Loads a program that passes on the buffer that a member of a socket points to.
fn pass_on(attempt: &mut Attempt<'_>, member: &str) -> Result<(), Ended> {
    pass_on_from(attempt, 0, "sock", member)
}

/// The same, of the argument at `slot` bytes of the context.
fn pass_on_from(attempt: &mut Attempt<'_>, slot: i32, record: &str, member: &str) -> Result<(), Ended> {
    attempt.needs_helper(helper::SKB_OUTPUT)?;
    let events = attempt.map(&MapSpec::new(BPF_MAP_TYPE_PERF_EVENT_ARRAY, 4, 4, 1))?;
    judge(attempt, slot, (record, member), |asm| {
        asm.ld_map_fd(Reg::R2, &events).mov_imm(Reg::R3, 0).st_imm(Size::DW, Reg::R10, -8, 0);
        asm.mov_reg(Reg::R4, Reg::R10).add_imm(Reg::R4, -8).mov_imm(Reg::R5, 8).call(helper::SKB_OUTPUT);
    })
}

/// Loads a program with a member of an argument of the hook in R1, which points to a buffer.
fn judge(
    attempt: &mut Attempt<'_>,
    slot: i32,
    (record, member): (&str, &str),
    body: impl FnOnce(&mut Asm),
) -> Result<(), Ended> {
    let offset = attempt.btf()?.member(record, member);
    let offset = offset.map_err(|error| Ended::Absent(error.to_string()))?.byte_offset;
    let mut asm = Asm::new();
    asm.ldx(Size::DW, Reg::R1, Reg::R1, slot).ldx(Size::DW, Reg::R1, Reg::R1, offset);
    body(&mut asm);
    asm.mov_imm(Reg::R0, 0).exit();
    attempt.load_lsm(&LsmProgram::raw("socket_sock_rcv_skb", asm)).map(drop)
}
