//! Child processes: for triggers that change the process that does them, or that need a second one.

use crate::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// Stands for the death of a child by a signal, which no system call under test reports, and for a status that could not say
/// what it left with ([`super::stands_for`]).
pub(super) const DIED: Errno = Errno::from_raw(libc::EOWNERDEAD);

/// Does `body` in a child of its own and returns what it returned.
pub(crate) fn in_child(body: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    let child = spawn(body)?;
    reap(child)
}

/// Starts a child that does `body` and leaves with its errno as status.
pub(crate) fn spawn(body: impl FnOnce() -> Result<(), Errno>) -> Result<Pid, Errno> {
    // SAFETY: a probe's process has one thread, so its child may do anything a fresh process may.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let status = body().err().map_or(0, |errno| match errno.raw() {
                number @ 1..=255 => number,
                _ => DIED.raw(),
            });
            // SAFETY: _exit takes a plain number and does not return.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => Ok(child),
    }
}

/// Waits for a child of [`spawn`].
pub(crate) fn reap(child: Pid) -> Result<(), Errno> {
    said(waitpid(child, None)?)
}

/// Waits for a child of [`spawn`] that has set an alarm for itself; `None` if that has ended it.
pub(crate) fn reap_before_alarm(child: Pid) -> Result<Option<()>, Errno> {
    let status = waitpid(child, None)?;
    let by_alarm = matches!(status, WaitStatus::Signaled(_, Signal::SIGALRM, _));
    if by_alarm { Ok(None) } else { said(status).map(Some) }
}

/// What a child has left with.
fn said(status: WaitStatus) -> Result<(), Errno> {
    match status {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, status) => Err(Errno::from_raw(status)),
        WaitStatus::Signaled(..)
        | WaitStatus::Stopped(..)
        | WaitStatus::PtraceEvent(..)
        | WaitStatus::PtraceSyscall(_)
        | WaitStatus::Continued(_)
        | WaitStatus::StillAlive => Err(DIED),
    }
}

/// A child that does nothing until it is dropped.
pub(crate) struct Idle(pub(super) Pid);

impl Idle {
    /// Starts one.
    pub(super) fn new() -> Result<Self, Errno> {
        spawn(|| {
            loop {
                // SAFETY: pause takes nothing and touches no memory.
                unsafe { libc::pause() };
            }
        })
        .map(Self)
    }

    /// A child that does something else until then.
    pub(crate) const fn of(child: Pid) -> Self {
        Self(child)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        // A tracer may be told of a stop first; what is wanted is the end.
        while let Ok(status) = waitpid(self.0, Some(WaitPidFlag::__WALL)) {
            if matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..)) {
                break;
            }
        }
    }
}
