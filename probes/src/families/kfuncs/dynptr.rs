//! Kfuncs about dynptrs, and casts.

use super::body::{BUFFER, Body, OUT, SECOND};
use super::net::of_a_packet;
use super::own::Holds;
use super::row::{GOT, OPENED, Row, inode, kfunc};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::PAGE;
use crate::spec::source;

const HELPERS: &str = "kernel/bpf/helpers.c";
/// Where the dynptr is on the stack.
const FIRST: i32 = -16;
/// Where a second one is.
const OTHER: i32 = -32;
/// Where what is written, or a piece that is not in one, is on the stack.
const SCRATCH: i32 = -40;

/// Of the kfuncs about a dynptr alone, the one that needs another kind of dynptr to say yes.
const READ_ONLY: &str = "bpf_dynptr_is_rdonly";

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    let table =
        [("bpf_dynptr_size", 64, -i64::from(libc::EINVAL)), ("bpf_dynptr_is_null", 0, 1), (READ_ONLY, 0, 0)];
    let row = |(name, result, of_nothing)| {
        let row =
            of_one(kfunc(name, "6.12", HELPERS)).gives(result).also("of-nothing", of_nothing, null_dynptr);
        if name != READ_ONLY {
            return row;
        }
        row.other("canonical-of-a-packet", of_a_packet(kfunc(name, "6.12", HELPERS)).gives(1))
    };
    let mut rows: Vec<Row> = table.into_iter().map(row).collect();
    rows.extend([adjust(), clone(), slice(), slice_rdwr(), copy(), memset(), rdonly_cast(), kern_ctx()]);
    rows
}

/// The first argument is a dynptr over 64 bytes.
fn of_one(row: Row) -> Row {
    row.takes(first)
        .spoilt("misuse-uninitialised-dynptr", |b| b.stack_address(Reg::R1, -64))
        .spoilt("misuse-part-of-a-dynptr", |b| b.stack_address(Reg::R1, FIRST + 8))
        .not_null(Reg::R1)
}

/// A dynptr that could not be made, because of a flag that does not exist, and is null for it.
fn null_dynptr(b: &mut Body<'_>) {
    b.page_address(Reg::R1, BUFFER);
    b.mov_imm(Reg::R2, 64).mov_imm(Reg::R3, 1);
    b.stack_address(Reg::R4, OTHER);
    b.call(helper::DYNPTR_FROM_MEM);
    b.stack_address(Reg::R1, OTHER);
}

fn first(b: &mut Body<'_>) {
    b.dynptr(FIRST, BUFFER, 64);
    b.stack_address(Reg::R1, FIRST);
}

/// Leaves the size of the dynptr at `stack[offset]`.
fn leave_size(b: &mut Body<'_>, offset: i32) {
    b.stack_address(Reg::R1, offset);
    b.kfunc("bpf_dynptr_size");
    b.mov32_reg(Reg::R0, Reg::R0);
    b.leave(0, Reg::R0);
}

fn adjust() -> Row {
    of_one(kfunc("bpf_dynptr_adjust", "6.12", HELPERS))
        .takes(|b| {
            first(b);
            b.mov_imm(Reg::R2, 8).mov_imm(Reg::R3, 24);
        })
        .gives(0)
        .then(|b| leave_size(b, FIRST))
        .leaves("size", 0, || Some(16))
        .also("beyond-the-end", -i64::from(libc::ERANGE), |b| {
            b.mov_imm(Reg::R3, 65);
        })
}

/// What is not held may be overwritten, also by itself.
fn onto_itself() -> Row {
    kfunc("bpf_dynptr_clone", "6.12", HELPERS)
        .takes(|b| {
            first(b);
            b.stack_address(Reg::R2, FIRST);
        })
        .gives(0)
        .then(|b| leave_size(b, FIRST))
        .leaves("size", 0, || Some(64))
        .cites(source("7.3", "kernel/bpf/verifier.c", "is_dynptr_reg_valid_uninit"))
}

fn clone() -> Row {
    of_one(kfunc("bpf_dynptr_clone", "6.12", HELPERS))
        .takes(|b| {
            b.st_imm(Size::DW, PAGE, BUFFER + 8, 4711);
            first(b);
            b.stack_address(Reg::R2, OTHER);
        })
        .gives(0)
        .then(|b| {
            leave_size(b, OTHER);
            b.page_address(Reg::R1, OUT + 8);
            b.mov_imm(Reg::R2, 8);
            b.stack_address(Reg::R3, OTHER);
            b.mov_imm(Reg::R4, 8).mov_imm(Reg::R5, 0).call(helper::DYNPTR_READ);
        })
        .leaves("size", 0, || Some(64))
        .leaves("what the clone shows", 1, || Some(4711))
        .holds(Holds::Ring)
        .other("canonical-onto-itself", onto_itself())
        .wrong("misuse-onto-one-that-is-held", |b| {
            b.held_map(Reg::R1);
            b.mov_imm(Reg::R2, 8).mov_imm(Reg::R3, 0);
            b.stack_address(Reg::R4, OTHER);
            b.call(helper::RINGBUF_RESERVE_DYNPTR);
            first(b);
            b.stack_address(Reg::R2, OTHER);
            b.kfunc("bpf_dynptr_clone");
            b.stack_address(Reg::R1, OTHER);
            b.mov_imm(Reg::R2, 0).call(helper::RINGBUF_DISCARD_DYNPTR);
        })
}

/// A row whose kfunc makes a dynptr at `place` of what an LSM program may only read: what comes of writing to it, for
/// which the program is not refused, and what the kernel says of it.
pub(super) fn written_to(row: Row, place: i32) -> Row {
    row.gives(0)
        .then(move |b| {
            b.st_imm(Size::DW, Reg::R10, SCRATCH, 0);
            b.stack_address(Reg::R1, place);
            b.mov_imm(Reg::R2, 0);
            b.stack_address(Reg::R3, SCRATCH);
            b.mov_imm(Reg::R4, 8).mov_imm(Reg::R5, 0).call(helper::DYNPTR_WRITE);
            b.leave(0, Reg::R0);
            // Where there is no such kfunc (6.4), the one that makes the dynptr is not for LSM programs.
            if b.knows("bpf_dynptr_is_rdonly") {
                b.stack_address(Reg::R1, place);
                b.kfunc("bpf_dynptr_is_rdonly");
                b.and_imm(Reg::R0, 1);
                b.leave(1, Reg::R0);
            }
        })
        .checks(|attempt, results| {
            attempt.outcome("written", &as_outcome(results.get(OUT)));
            attempt.holds("it is read-only", results.get(OUT + 8) == 1);
        })
        .cites(source("7.3", HELPERS, "__bpf_dynptr_write"))
}

/// What a helper or kfunc has returned, 0 or an errno.
pub(super) fn as_outcome(result: u64) -> Result<(), Errno> {
    match i32::try_from(-result.cast_signed()) {
        Ok(errno) if errno > 0 => Err(Errno::from_raw(errno)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What both slices have in common: 8 bytes from offset 8, with a buffer in case they are not in one piece.
fn slicing(name: &'static str) -> Row {
    of_one(kfunc(name, "6.12", HELPERS))
        .nullable()
        .given(|results| {
            results.set(BUFFER + 8, 4711);
            Ok(())
        })
        .takes(slice_arguments)
        .then(|b| {
            b.ldx(Size::DW, Reg::R1, GOT, 0);
            b.leave(0, Reg::R1);
        })
        .leaves("what the slice shows", 0, || Some(4711))
        .spoilt("misuse-size-not-constant", |b| {
            b.input(Reg::R4, 0);
            b.and_imm(Reg::R4, 7); // small enough, and no negative number
        })
}

fn slice() -> Row {
    slicing("bpf_dynptr_slice").wrong("misuse-written-to", |b| {
        slice_arguments(b);
        b.kfunc("bpf_dynptr_slice");
        b.jeq_imm(Reg::R0, 0, "pass").st_imm(Size::DW, Reg::R0, 0, 1);
    })
}

fn slice_arguments(b: &mut Body<'_>) {
    first(b);
    b.st_imm(Size::DW, Reg::R10, SCRATCH, 0);
    b.mov_imm(Reg::R2, 8);
    b.stack_address(Reg::R3, SCRATCH); // may be left out since 6.5
    b.mov_imm(Reg::R4, 8);
}

fn slice_rdwr() -> Row {
    slicing("bpf_dynptr_slice_rdwr").wrong("misuse-beyond-its-size", |b| {
        slice_arguments(b);
        b.kfunc("bpf_dynptr_slice_rdwr");
        b.jeq_imm(Reg::R0, 0, "pass").st_imm(Size::DW, Reg::R0, 8, 1);
    })
}

fn copy() -> Row {
    of_one(kfunc("bpf_dynptr_copy", "7.2", HELPERS))
        .given(|results| {
            results.set(SECOND + 8, 4711);
            Ok(())
        })
        .takes(|b| {
            b.dynptr(OTHER, SECOND, 64);
            first(b);
            b.mov_imm(Reg::R2, 16);
            b.stack_address(Reg::R3, OTHER);
            b.mov_imm(Reg::R4, 8).mov_imm(Reg::R5, 8);
        })
        .gives(0)
        .checks(|attempt, results| attempt.same("what was copied", results.get(BUFFER + 16), 4711))
        .also("beyond-the-end", -i64::from(libc::E2BIG), |b| {
            b.mov_imm(Reg::R5, 65);
        })
}

fn memset() -> Row {
    of_one(kfunc("bpf_dynptr_memset", "7.2", HELPERS))
        .takes(|b| {
            first(b);
            b.mov_imm(Reg::R2, 8).mov_imm(Reg::R3, 8).mov_imm(Reg::R4, 0x5a);
        })
        .gives(0)
        .checks(|attempt, results| {
            attempt.same("what was set", results.bytes(BUFFER + 8, 9), [vec![0x5a; 8], vec![0]].concat());
        })
        .also("beyond-the-end", -i64::from(libc::E2BIG), |b| {
            b.mov_imm(Reg::R3, 65);
        })
}

fn rdonly_cast() -> Row {
    kfunc("bpf_rdonly_cast", "6.12", HELPERS)
        .takes(|b| {
            b.context_argument(Reg::R1, 0);
            b.record_id(Reg::R2, "file");
        })
        .then(|b| {
            b.mov_reg(GOT, Reg::R0);
            b.follow(GOT, "file", "f_inode");
            b.follow(GOT, "inode", "i_ino");
            b.leave(0, GOT);
        })
        .leaves("inode", 0, || inode(OPENED))
        .spoilt("misuse-type-not-constant", |b| b.input(Reg::R2, 0))
        .spoilt("misuse-no-such-type", |b| {
            b.mov_imm(Reg::R2, i32::MAX);
        })
        .wrong("misuse-written-to", |b| {
            b.context_argument(Reg::R1, 0);
            b.record_id(Reg::R2, "file");
            b.kfunc("bpf_rdonly_cast");
            b.st_imm(Size::DW, Reg::R0, 0, 0);
        })
}

/// An LSM program's context is an array of arguments, with no kernel type behind it to be cast to.
fn kern_ctx() -> Row {
    kfunc("bpf_cast_to_kern_ctx", "6.12", HELPERS)
        .takes(|b| {
            b.mov_reg(Reg::R1, crate::lsm::CTX);
        })
        .spoilt("misuse-not-the-context", |b| b.context_argument(Reg::R1, 0))
}
