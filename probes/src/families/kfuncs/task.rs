//! Kfuncs about tasks.

use super::body::{Body, IN, OUT};
use super::cgroup::{acquired, give_root_id, of_an_acquired};
use super::own::{Holds, NUMBER, Value};
use super::row::{GOT, KEPT, OPENED, Row, kfunc};
use crate::errno::Errno;
use crate::helper;
use crate::insn::Reg;
use crate::results::{Results, TARGET};
use crate::session::Ended;
use crate::triggers::children::{in_child, reap, spawn};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{pipe, read, write};
use std::fs::File;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

const HELPERS: &str = "kernel/bpf/helpers.c";
/// Of include/linux/threads.h on 64 bits: all numbers of processes are smaller.
const PID_MAX_LIMIT: i32 = 4 << 20;

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    vec![
        acquire(),
        acquire_not_zero(),
        kptr_get(),
        release(),
        from_pid(),
        from_vpid(),
        under_cgroup(),
        send_signal(),
    ]
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

/// Why what was there for a while gives nothing.
const NEVER: &str = "it never gives anything";

fn acquire_not_zero() -> Row {
    kfunc("bpf_task_acquire_not_zero", "6.2", HELPERS)
        .takes(|b| b.current(Reg::R1))
        .owned("bpf_task_release")
        .gives_null(NEVER)
        .not_null(Reg::R1)
        .not_number(Reg::R1)
        .spoilt("misuse-another-type", |b| b.context_argument(Reg::R1, 0))
}

/// A task that a map holds.
fn kptr_get() -> Row {
    kfunc("bpf_task_kptr_get", "6.2", HELPERS)
        .holds(Holds::Value(Value::Task))
        .takes(|b| {
            b.current(Reg::R1);
            b.acquire_task();
            b.mov_reg(Reg::R2, Reg::R0);
            b.held(Reg::R1, 0);
            let empty = b.fresh("empty");
            b.call(helper::KPTR_XCHG).jeq_imm(Reg::R0, 0, &empty);
            b.release("bpf_task_release", Reg::R0);
            b.label(&empty);
            b.held(Reg::R1, 0);
        })
        .owned("bpf_task_release")
        .gives_null(NEVER)
        .spoilt("misuse-of-what-is-no-pointer", |b| b.held(Reg::R1, NUMBER))
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
        .other("canonical-of-nobody", of_nobody(kfunc("bpf_task_from_pid", "6.12", HELPERS)))
        .spoilt("misuse-pointer-for-number", |b| b.current(Reg::R1))
}

/// Of a number that no process has.
fn of_nobody(row: Row) -> Row {
    row.takes(|b| {
        b.mov_imm(Reg::R1, PID_MAX_LIMIT);
    })
    .owned("bpf_task_release")
    .gives_null("no process has this number")
}

/// The cells of the page that [`in_a_namespace`] writes to: the target, and where it leaves its number.
static TARGET_CELL: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());
/// As [`TARGET_CELL`].
static NUMBER_CELL: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());
/// Byte offset in the page of the number that the process of the namespace has outside of it.
const OUTSIDE: i32 = IN + 8;

/// The trigger, done by the first process of a namespace of its own.
fn open_in_a_namespace() -> Result<(), Errno> {
    let cell = |pointer: &AtomicPtr<AtomicU64>| {
        // SAFETY: a cell of the results page of the case under way, which lives until the trigger is over.
        unsafe { pointer.load(Ordering::Relaxed).as_ref() }.ok_or(Errno::EINVAL)
    };
    let (target, number) = (cell(&TARGET_CELL)?, cell(&NUMBER_CELL)?);
    in_child(|| {
        unshare(CloneFlags::CLONE_NEWPID)?;
        let (heard, say) = pipe()?;
        let first = spawn(|| {
            read(&heard, &mut [0])?;
            Ok(File::open(OPENED).map(drop)?)
        })?;
        number.store(u64::from(first.as_raw().unsigned_abs()), Ordering::SeqCst);
        target.store(u64::from(first.as_raw().unsigned_abs()), Ordering::SeqCst);
        write(&say, &[0])?;
        reap(first)
    })
}

/// What has number 1 in a namespace has another outside of it.
fn in_a_namespace() -> Row {
    kfunc("bpf_task_from_vpid", "7.2", HELPERS)
        .given(|results| {
            results.set(IN, 1);
            TARGET_CELL.store(results.cell(TARGET).cast_mut(), Ordering::Relaxed);
            NUMBER_CELL.store(results.cell(OUTSIDE).cast_mut(), Ordering::Relaxed);
            Ok(())
        })
        .on("file_open", open_in_a_namespace)
        .takes(|b| b.input(Reg::R1, 0))
        .owned("bpf_task_release")
        .then(leave_tgid_of)
        .checks(|attempt, results| {
            attempt.same("tgid outside of the namespace", results.get(OUT), results.get(OUTSIDE));
            attempt.holds("it is another", results.get(OUT) != results.get(IN));
        })
}

fn from_vpid() -> Row {
    kfunc("bpf_task_from_vpid", "7.2", HELPERS)
        .given(give_our_pid)
        .takes(|b| b.input(Reg::R1, 0))
        .owned("bpf_task_release")
        .then(leave_tgid_of)
        .leaves("tgid", 0, our_pid)
        .other("canonical-in-a-namespace", in_a_namespace())
        .other("canonical-of-nobody", of_nobody(kfunc("bpf_task_from_vpid", "7.2", HELPERS)))
}

/// A cgroup that the task is not in.
fn under_another() -> Row {
    kfunc("bpf_task_under_cgroup", "6.12", HELPERS)
        .given(super::cgroup::give_empty_id)
        .takes(|b| {
            b.input(Reg::R1, 0);
            b.kfunc("bpf_cgroup_from_id");
            b.jeq_imm(Reg::R0, 0, "pass").mov_reg(KEPT, Reg::R0);
            b.current(Reg::R1);
            b.mov_reg(Reg::R2, KEPT);
        })
        .gives(0)
        .finally(|b| b.release("bpf_cgroup_release", KEPT))
}

/// The root, which every task is under, acquired.
fn under_an_acquired() -> Row {
    of_an_acquired(kfunc("bpf_task_under_cgroup", "6.12", HELPERS), give_root_id)
        .takes(|b| {
            acquired(b);
            b.current(Reg::R1);
            b.mov_reg(Reg::R2, KEPT);
        })
        .gives(1)
}

fn under_cgroup() -> Row {
    kfunc("bpf_task_under_cgroup", "6.12", HELPERS)
        .takes(|b| {
            b.current_cgroup(KEPT);
            b.current(Reg::R1);
            b.mov_reg(Reg::R2, KEPT);
        })
        .gives(1)
        .other("canonical-of-another", under_another())
        .other("canonical-sleepable-of-an-acquired-cgroup", under_an_acquired())
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
        // The type exists, and the kfunc takes no process group (7.2 kernel/trace/bpf_trace.c, bpf_send_signal_task).
        .also("a-type-that-it-does-not-take", -i64::from(libc::EINVAL), |b| {
            b.enumerator(Reg::R3, "PIDTYPE_PGID");
        })
        .not_null(Reg::R1)
}
