//! Kfuncs about the file that a task's program is in, which are there for LSM programs only.

use super::body::{Body, OUT};
use super::row::{GOT, KEPT, Row, inode, kfunc};
use crate::insn::Reg;
use crate::results::Results;
use crate::spec::source;

const FS: &str = "fs/bpf_fs_kfuncs.c";

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    vec![exe_file(), put_file()]
}

/// Leaves the inode number of the file in [`GOT`], keeping it.
fn leave_inode(b: &mut Body<'_>) {
    b.mov_reg(Reg::R1, GOT);
    b.follow(Reg::R1, "file", "f_inode");
    b.follow(Reg::R1, "inode", "i_ino");
    b.leave(0, Reg::R1);
}

fn exe_file() -> Row {
    kfunc("bpf_get_task_exe_file", "6.12", FS)
        .takes(|b| b.current(Reg::R1))
        .owned("bpf_put_file")
        .then(leave_inode)
        .leaves("inode of the executable", 0, || inode("/proc/self/exe"))
        .not_null(Reg::R1)
        .not_untrusted(Reg::R1, "task_struct")
        .lsm_only()
        .cites(source("6.12", FS, "bpf_fs_kfuncs_filter"))
}

/// `R0 = the file` that the current task's program is in.
fn get_exe_file(b: &mut Body<'_>) {
    b.current(Reg::R1);
    b.kfunc("bpf_get_task_exe_file");
}

/// Leaves how often the file in [`KEPT`] is held, by a count that was renamed in 6.13.
fn leave_holders(b: &mut Body<'_>, slot: i32) {
    let count = if b.has_member("file", "f_ref") { "f_ref.refcnt.counter" } else { "f_count.counter" };
    b.mov_reg(Reg::R2, KEPT);
    b.follow(Reg::R2, "file", count);
    b.leave(slot, Reg::R2);
}

/// Of a file that is had a second time the count goes up by one, and down again.
fn put_file() -> Row {
    let more = |results: &Results, slot| results.get(OUT + 8 * slot).wrapping_sub(results.get(OUT));
    kfunc("bpf_put_file", "6.12", FS)
        .releases()
        .takes(|b| {
            get_exe_file(b);
            b.jeq_imm(Reg::R0, 0, "pass").mov_reg(KEPT, Reg::R0);
            leave_holders(b, 0);
            get_exe_file(b);
            b.jeq_imm(Reg::R0, 0, "none");
            leave_holders(b, 1);
            b.mov_reg(Reg::R1, Reg::R0);
        })
        .then(|b| leave_holders(b, 2))
        .finally(|b| {
            b.label("none");
            b.release("bpf_put_file", KEPT);
        })
        .checks(move |attempt, results| {
            attempt.same("more holders before", more(results, 1), 1);
            attempt.same("more holders afterwards", more(results, 2), 0);
        })
        .wrong("misuse-not-acquired", |b| {
            b.context_argument(Reg::R1, 0);
            b.kfunc("bpf_put_file");
        })
        .lsm_only_alone(|b| {
            b.context_argument(Reg::R1, 0);
            b.kfunc("bpf_put_file");
        })
}
