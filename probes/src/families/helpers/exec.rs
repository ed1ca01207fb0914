//! Executing a program only to see how it begins.

use crate::errno::Errno;
use crate::triggers::Arm;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::ffi::CStr;
use std::fs;

/// What is executed: this very program.
pub(super) const PROGRAM: &CStr = c"/proc/self/exe";

/// Executes this very program in a child that is traced, so that it stops before its first instruction, and returns
/// its `AT_SECURE`.
pub(super) fn at_secure(arm: Arm) -> Result<u64, Errno> {
    at_secure_of(PROGRAM, arm)
}

/// The same with another program.
pub(super) fn at_secure_of(program: &CStr, arm: Arm) -> Result<u64, Errno> {
    // SAFETY: a probe's process has one thread, and the child either executes or leaves.
    match unsafe { fork() }? {
        ForkResult::Child => {
            if ptrace::traceme().is_ok() {
                arm.name(std::process::id());
                let _never = nix::unistd::execv(program, &[c"stopped"]);
            }
            // SAFETY: takes a plain number and does not return.
            unsafe { libc::_exit(1) }
        }
        ForkResult::Parent { child } => {
            let stopped = waitpid(child, None);
            arm.name_nobody();
            let found = match stopped {
                Ok(WaitStatus::Stopped(_, Signal::SIGTRAP)) => auxiliary(child, libc::AT_SECURE),
                Ok(_) => return Err(Errno::EINTR),
                Err(errno) => Err(errno.into()),
            };
            let _killed = kill(child, Signal::SIGKILL);
            let _reaped = waitpid(child, None);
            found
        }
    }
}

/// A value in the auxiliary vector of a process.
fn auxiliary(process: Pid, kind: u64) -> Result<u64, Errno> {
    let bytes = fs::read(format!("/proc/{process}/auxv"))?;
    let words = bytes.as_chunks::<8>().0;
    let pairs = words.as_chunks::<2>().0;
    let found = pairs.iter().find(|[key, _]| u64::from_ne_bytes(*key) == kind);
    found.map(|[_, value]| u64::from_ne_bytes(*value)).ok_or(Errno::ENOENT)
}
