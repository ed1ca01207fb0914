//! Kfuncs about tasks.

use super::body::{Body, IN};
use super::row::{GOT, KEPT, Row, kfunc};
use crate::insn::Reg;
use crate::results::Results;
use crate::session::Ended;
use nix::sys::signal::{SigSet, Signal};

const HELPERS: &str = "kernel/bpf/helpers.c";

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    vec![acquire(), release(), from_pid(), from_vpid(), under_cgroup(), send_signal()]
}

/// Leaves the tgid of the task in [`GOT`].
fn leave_tgid(b: &mut Body<'_>) {
    b.follow(GOT, "task_struct", "tgid");
    b.leave(0, GOT);
}

/// As [`leave_tgid`], keeping the task.
fn leave_tgid_of(b: &mut Body<'_>) {
    b.mov_reg(Reg::R1, GOT);
    b.follow(Reg::R1, "task_struct", "tgid");
    b.leave(0, Reg::R1);
}

fn our_pid() -> Option<u64> {
    Some(u64::from(std::process::id()))
}

fn give_our_pid(results: &mut Results) -> Result<(), Ended> {
    results.set(IN, u64::from(std::process::id()));
    Ok(())
}

fn acquire() -> Row {
    kfunc("bpf_task_acquire", "6.12", HELPERS)
        .takes(|b| b.current(Reg::R1))
        .owned("bpf_task_release")
        .then(leave_tgid_of)
        .leaves("tgid", 0, our_pid)
        .not_null(Reg::R1)
        .not_number(Reg::R1)
        .not_untrusted(Reg::R1, "task_struct")
        .spoilt("misuse-another-type", |b| b.context_argument(Reg::R1, 0))
}

/// `reg = how often the task in reg is held`, by those who count as `bpf_task_acquire` does.
fn holders(b: &mut Body<'_>, reg: Reg) {
    let counter = b.task_counter();
    b.follow(reg, "task_struct", counter);
}

/// The count goes up by one, and down again.
fn release() -> Row {
    kfunc("bpf_task_release", "6.12", HELPERS)
        .releases()
        .takes(|b| {
            b.current(KEPT);
            holders(b, KEPT);
            b.leave(0, KEPT);
            b.current(Reg::R1);
            b.acquire_task();
            b.mov_reg(Reg::R2, Reg::R0);
            holders(b, Reg::R2);
            b.sub_reg(Reg::R2, KEPT);
            b.leave(1, Reg::R2);
            b.mov_reg(Reg::R1, Reg::R0);
        })
        .then(|b| {
            b.current(Reg::R2);
            holders(b, Reg::R2);
            b.sub_reg(Reg::R2, KEPT);
            b.leave(2, Reg::R2);
        })
        .leaves("more holders before", 1, || Some(1))
        .leaves("more holders afterwards", 2, || Some(0))
        .wrong("misuse-not-acquired", |b| {
            b.current(Reg::R1);
            b.kfunc("bpf_task_release");
        })
        .wrong("misuse-used-afterwards", |b| {
            b.current(Reg::R1);
            b.acquire_task();
            b.mov_reg(GOT, Reg::R0).mov_reg(Reg::R1, GOT);
            b.kfunc("bpf_task_release");
            leave_tgid(b);
        })
        .wrong("misuse-null", |b| {
            b.mov_imm(Reg::R1, 0);
            b.kfunc("bpf_task_release");
        })
}

fn from_pid() -> Row {
    kfunc("bpf_task_from_pid", "6.12", HELPERS)
        .given(give_our_pid)
        .takes(|b| b.input(Reg::R1, 0))
        .owned("bpf_task_release")
        .then(leave_tgid_of)
        .leaves("tgid", 0, our_pid)
        .spoilt("misuse-pointer-for-number", |b| b.current(Reg::R1))
}

fn from_vpid() -> Row {
    kfunc("bpf_task_from_vpid", "7.2", HELPERS)
        .given(give_our_pid)
        .takes(|b| b.input(Reg::R1, 0))
        .owned("bpf_task_release")
        .then(leave_tgid_of)
        .leaves("tgid", 0, our_pid)
}

fn under_cgroup() -> Row {
    kfunc("bpf_task_under_cgroup", "6.12", HELPERS)
        .takes(|b| {
            b.current_cgroup(KEPT);
            b.current(Reg::R1);
            b.mov_reg(Reg::R2, KEPT);
        })
        .gives(1)
        .rcu()
        .not_null(Reg::R1)
        .not_null(Reg::R2)
        .not_untrusted(Reg::R2, "cgroup")
}

/// The signal that the kfunc sends, held back so that user space can ask for it.
fn held_signal() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGUSR1);
    set
}

/// Takes the signal if it has come, or comes within a second.
fn take_signal() -> bool {
    let set = held_signal();
    let patience = libc::timespec { tv_sec: 1, tv_nsec: 0 };
    // SAFETY: a signal set and a time that live across the call; nothing is asked about the signal.
    let taken = unsafe { libc::sigtimedwait(set.as_ref(), std::ptr::null_mut(), &raw const patience) };
    taken == libc::SIGUSR1
}

fn send_signal() -> Row {
    kfunc("bpf_send_signal_task", "7.2", "kernel/trace/bpf_trace.c")
        .given(|_| {
            held_signal().thread_block().map_err(|errno| Ended::could_not("hold back a signal", errno))
        })
        .takes(|b| {
            b.current(Reg::R1);
            b.mov_imm(Reg::R2, libc::SIGUSR1);
            b.enumerator(Reg::R3, "PIDTYPE_TGID");
            b.mov_imm(Reg::R4, 0);
        })
        .gives(0)
        .checks(|attempt, _| attempt.holds("the signal comes", take_signal()))
        .also("no-such-type", -i64::from(libc::EINVAL), |b| b.enumerator(Reg::R3, "PIDTYPE_PGID"))
        .not_null(Reg::R1)
}
