//! Kfuncs that copy from user space.

use super::body::{BUFFER, Body, IN};
use super::row::{Row, kfunc};
use crate::helper;
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
        of_dynptr("bpf_copy_from_user_task_dynptr", 0).sleepable_row_of_task(),
        of_dynptr("bpf_copy_from_user_task_str_dynptr", TEXT_BYTES).sleepable_row_of_task(),
        own_name("bpf_probe_read_kernel_dynptr", 0),
        own_name("bpf_probe_read_kernel_str_dynptr", 8),
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

/// Into a buffer of 4 bytes go three of the text and its NUL, and nothing behind them.
fn cut_short() -> Row {
    kfunc("bpf_copy_from_user_str", "6.12", HELPERS)
        .sleepable()
        .given(give_address)
        .given(|results| {
            results.set_bytes(BUFFER, b"ZZZZZZZZ");
            Ok(())
        })
        .takes(|b| {
            buffer_and_text(b);
            b.mov_imm(Reg::R2, 4).mov_imm(Reg::R4, 0);
        })
        .gives(4)
        .checks(|attempt, results| {
            let (copied, behind) = (results.bytes(BUFFER, 4), results.bytes(BUFFER, 8)[4..].to_vec());
            attempt.same("what was copied", copied, b"fro\0".to_vec());
            attempt.same("what is behind it", behind, b"ZZZZ".to_vec());
        })
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
        .other("canonical-cut-short", cut_short())
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

    /// From the memory of a task, which is the current one.
    fn sleepable_row_of_task(self) -> Row {
        let row = kfunc(self.0, "7.3", TRACE).sleepable();
        self.finish(row)
            .takes(|b| {
                b.dynptr(DYNPTR, BUFFER, 64);
                b.current(Reg::R5);
                b.stack_address(Reg::R1, DYNPTR);
                b.mov_imm(Reg::R2, 0).mov_imm(Reg::R3, TEXT_BYTES);
                b.input(Reg::R4, 0);
            })
            .not_null(Reg::R5)
            .not_untrusted(Reg::R5, "task_struct")
    }
}

/// Copies the name of the current task, at an address that the kernel itself uses.
fn own_name(name: &'static str, result: i64) -> Row {
    kfunc(name, "7.3", TRACE)
        .given(|_| {
            std::fs::write("/proc/self/comm", "kfuncs8")
                .map_err(|error| Ended::could_not("change the task's name", error))
        })
        .takes(|b| {
            b.dynptr(DYNPTR, BUFFER, 64);
            b.call(helper::GET_CURRENT_TASK).mov_reg(Reg::R4, Reg::R0);
            b.member_address(Reg::R4, "task_struct", "comm");
            b.stack_address(Reg::R1, DYNPTR);
            b.mov_imm(Reg::R2, 0).mov_imm(Reg::R3, 8);
        })
        .gives(result)
        .checks(|attempt, results| {
            attempt.same("what was copied", results.bytes(BUFFER, 8), b"kfuncs8\0".to_vec());
        })
        // An address of user space, which is none of the kernel's (7.1 arch/x86/mm/maccess.c,
        // copy_from_kernel_nofault_allowed).
        .also("null", -i64::from(libc::ERANGE), |b| {
            b.mov_imm(Reg::R4, 0);
        })
        .spoilt("misuse-uninitialised-dynptr", |b| b.stack_address(Reg::R1, -64))
}
