//! Sending a signal, or having the kernel send one.

use super::Subject;
use super::way::{Doing, Failed, Step, Way, doing};
use crate::errno::Errno;
use crate::rules::{Cgroup, ROOT_CGROUP, until};
use crate::spec::source;
use crate::triggers::children::spawn;
use crate::triggers::files::{index, owned};
use crate::triggers::{Arm, syscall};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgrp};
use std::fs::{self, OpenOptions};

pub(super) const SUBJECT: Subject = Subject {
    name: "task_kill",
    what: "send a signal",
    hooks: &["task_kill"],
    ways: &[
        Way::new("kill", || sent(|pid| kill(pid, SIGNAL).map_err(Errno::from))),
        Way::new("kill-of-a-group", || {
            sent(|_| kill(Pid::from_raw(-getpgrp().as_raw()), SIGNAL).map_err(Errno::from))
        }),
        Way::new("tkill", || sent(|pid| two(libc::SYS_tkill, [number(pid), SIGUSR2, 0, 0]))),
        Way::new("tgkill", || sent(|pid| two(libc::SYS_tgkill, [number(pid), number(pid), SIGUSR2, 0]))),
        Way::new("rt_sigqueueinfo", || sent(queued)),
        Way::new("pidfd_send_signal", pidfd),
        Way::new("SIGPIPE-of-a-write", pipe),
        Way::new("end-of-a-child", child),
        Way::new("cgroup-kill", cgroup).lacking(&[libc::ENOENT]),
    ],
    sources: &[
        source("7.3", "kernel/signal.c", "check_kill_permission"),
        source("7.3", "kernel/signal.c", "send_sig"),
        source("7.3", "kernel/signal.c", "do_notify_parent"),
        source("7.3", "kernel/cgroup/cgroup.c", "__cgroup_kill"),
    ],
};

const SIGNAL: Signal = Signal::SIGUSR2;
const SIGUSR2: usize = 12;

fn number(pid: Pid) -> usize {
    usize::try_from(pid.as_raw()).unwrap_or(0)
}

fn two(call: libc::c_long, [a, b, c, d]: [usize; 4]) -> Result<(), Errno> {
    // SAFETY: numbers, and at most one structure, which the caller keeps.
    unsafe { syscall(call, [a, b, c, d, 0, 0]) }.map(drop)
}

/// Takes a signal that waits, which is blocked. A signal that a call sends waits when the call returns.
fn taken(signal: Signal) -> bool {
    let set = SigSet::from(signal);
    let no_time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a set and a time that live across the call; what was sent is not asked for.
    unsafe { libc::sigtimedwait(set.as_ref(), std::ptr::null_mut(), &raw const no_time) > 0 }
}

fn told(result: Result<(), Errno>, signal: Signal) -> Result<String, Failed> {
    let there = taken(signal);
    match result {
        Err(errno) if there => Ok(format!("{errno}, and the signal")),
        Err(errno) => Err(errno.into()),
        Ok(()) => Ok(if there { "the signal" } else { "no signal" }.to_owned()),
    }
}

/// A signal of this process to itself.
fn sent(call: fn(Pid) -> Result<(), Errno>) -> Result<Doing, Errno> {
    SigSet::from(SIGNAL).thread_block()?;
    doing(move |arm: Arm| told(arm.during(|| call(Pid::this())), SIGNAL))
}

/// With a code that only the sender itself may give: SI_QUEUE.
fn queued(pid: Pid) -> Result<(), Errno> {
    let mut info = [0_i32; 32]; // siginfo_t: signal, error, code
    (info[0], info[2]) = (libc::SIGUSR2, -1);
    two(libc::SYS_rt_sigqueueinfo, [number(pid), SIGUSR2, info.as_ptr().addr(), 0])
}

fn pidfd() -> Result<Doing, Errno> {
    SigSet::from(SIGNAL).thread_block()?;
    // SAFETY: takes two numbers.
    let pidfd = owned(unsafe { syscall(libc::SYS_pidfd_open, [number(Pid::this()), 0, 0, 0, 0, 0]) }?);
    doing(move |arm: Arm| {
        told(arm.during(|| two(libc::SYS_pidfd_send_signal, [index(&pidfd), SIGUSR2, 0, 0])), SIGNAL)
    })
}

fn pipe() -> Result<Doing, Errno> {
    SigSet::from(Signal::SIGPIPE).thread_block()?;
    doing(|arm: Arm| {
        let (out, into) = nix::unistd::pipe()?;
        drop(out);
        match arm.during(|| nix::unistd::write(&into, b"x")) {
            Err(nix::Error::EPIPE) => told(Ok(()), Signal::SIGPIPE),
            other => Ok(format!("the write gives {other:?}")),
        }
    })
}

/// A child's end, which the child itself tells its parent of: it is named.
fn child() -> Result<Doing, Errno> {
    SigSet::from(Signal::SIGCHLD).thread_block()?;
    doing(|arm: Arm| {
        taken(Signal::SIGCHLD);
        let child = spawn(|| {
            arm.name(std::process::id());
            Ok(())
        })
        .step("fork")?;
        waitpid(child, None).step("waitpid")?;
        arm.name_nobody();
        told(Ok(()), Signal::SIGCHLD)
    })
}

/// All of a cgroup, of which a child is.
fn cgroup() -> Result<Doing, Errno> {
    let cgroup = Cgroup::new("reach").map_err(|_| Errno::from_raw(0))?;
    doing(move |arm: Arm| {
        let _there = &cgroup;
        let child = spawn(|| {
            loop {
                // SAFETY: pause takes nothing and touches no memory.
                unsafe { libc::pause() };
            }
        })
        .step("fork")?;
        let entered = fs::write(format!("{ROOT_CGROUP}/reach/cgroup.procs"), child.to_string());
        let written = entered.step("enter").and_then(|()| {
            let file = OpenOptions::new().write(true).open(format!("{ROOT_CGROUP}/reach/cgroup.kill"))?;
            Ok(arm.during(|| nix::unistd::write(&file, b"1")).map(drop)?)
        });
        let mut status = WaitStatus::StillAlive;
        if written.is_ok() {
            until(|| {
                status = waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap_or(WaitStatus::StillAlive);
                status != WaitStatus::StillAlive
            });
        }
        if status == WaitStatus::StillAlive {
            kill(child, Signal::SIGKILL).step("kill, to put back")?;
            waitpid(child, None).step("waitpid")?;
        }
        written?;
        Ok(if status == WaitStatus::StillAlive { "no signal" } else { "the signal" }.to_owned())
    })
}
