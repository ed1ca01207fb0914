//! Kfuncs that copy from user space.

use super::body::{BUFFER, Body, IN};
use super::row::{Row, kfunc};
use crate::insn::Reg;
use crate::results::Results;
use crate::session::Ended;
use std::ffi::CStr;

const HELPERS: &str = "kernel/bpf/helpers.c";
const TRACE: &str = "kernel/trace/bpf_trace.c";
/// What user space holds.
const TEXT: &CStr = c"from user space";
/// Its length with the NUL, as a kfunc counts it.
const TEXT_BYTES: i64 = 16;
/// Where the dynptr is on the stack.
const DYNPTR: i32 = -16;

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![string(), string_of_task()];
    rows.extend([
        of_dynptr("bpf_copy_from_user_dynptr", 0).sleepable_row(),
        of_dynptr("bpf_copy_from_user_str_dynptr", TEXT_BYTES).sleepable_row(),
        of_dynptr("bpf_probe_read_user_dynptr", 0).row(),
        of_dynptr("bpf_probe_read_user_str_dynptr", TEXT_BYTES).row(),
    ]);
    rows
}

fn give_address(results: &mut Results) -> Result<(), Ended> {
    results.set(IN, TEXT.as_ptr().expose_provenance() as u64);
    Ok(())
}

/// The text must be there afterwards.
fn copies(row: Row) -> Row {
    row.given(give_address).checks(|attempt, results| {
        let copied = results.bytes(BUFFER, TEXT.to_bytes_with_nul().len());
        attempt.same("what was copied", copied, TEXT.to_bytes_with_nul().to_vec());
    })
}

fn buffer_and_text(b: &mut Body<'_>) {
    b.page_address(Reg::R1, BUFFER);
    b.mov_imm(Reg::R2, 64);
    b.input(Reg::R3, 0);
}

fn string() -> Row {
    copies(kfunc("bpf_copy_from_user_str", "6.12", HELPERS).sleepable())
        .takes(|b| {
            buffer_and_text(b);
            b.mov_imm(Reg::R4, 0);
        })
        .gives(TEXT_BYTES)
        .also("null", -i64::from(libc::EFAULT), |b| {
            b.mov_imm(Reg::R3, 0);
        })
        .also("unknown-flag", -i64::from(libc::EINVAL), |b| {
            b.mov_imm(Reg::R4, 2);
        })
        .also("cut-short", 4, |b| {
            b.mov_imm(Reg::R2, 4);
        })
        .spoilt("misuse-buffer-beyond-the-map", |b| {
            b.mov_imm(Reg::R2, 8192);
        })
}

fn string_of_task() -> Row {
    copies(kfunc("bpf_copy_from_user_task_str", "7.2", HELPERS).sleepable())
        .takes(|b| {
            b.current(Reg::R4);
            buffer_and_text(b);
            b.mov_imm(Reg::R5, 0);
        })
        .gives(TEXT_BYTES)
        .not_null(Reg::R4)
        .not_untrusted(Reg::R4, "task_struct")
}

/// A kfunc that copies to a dynptr, and what it gives.
struct OfDynptr(&'static str, i64);

fn of_dynptr(name: &'static str, result: i64) -> OfDynptr {
    OfDynptr(name, result)
}

impl OfDynptr {
    fn finish(&self, row: Row) -> Row {
        copies(row)
            .takes(|b| {
                b.dynptr(DYNPTR, BUFFER, 64);
                b.stack_address(Reg::R1, DYNPTR);
                b.mov_imm(Reg::R2, 0).mov_imm(Reg::R3, TEXT_BYTES);
                b.input(Reg::R4, 0);
            })
            .gives(self.1)
            .spoilt("misuse-uninitialised-dynptr", |b| b.stack_address(Reg::R1, -64))
    }

    fn row(self) -> Row {
        let row = kfunc(self.0, "7.2", TRACE);
        self.finish(row)
    }

    fn sleepable_row(self) -> Row {
        let row = kfunc(self.0, "7.2", TRACE).sleepable();
        self.finish(row)
    }
}
