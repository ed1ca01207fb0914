//! Doing something in another process, to see whether programs leave those alone that they are not for.

use crate::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// What leaves a child whose act went well; no errno.
const WELL: i32 = 0;
/// What leaves a child whose errno does not fit an exit status.
const ODD: i32 = 255;

/// Does `act` in a child process and returns what came of it there.
///
/// # Errors
/// In the outer result, why the child could not be asked.
pub(super) fn in_child(act: impl FnOnce() -> Result<(), Errno>) -> Result<Result<(), Errno>, Errno> {
    // SAFETY: a probe's process has one thread, and the child leaves without running destructors or handlers.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let status = match act() {
                Ok(()) => WELL,
                Err(errno) if (1..ODD).contains(&errno.raw()) => errno.raw(),
                Err(_) => ODD,
            };
            // SAFETY: takes a plain number and does not return.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => {
            let WaitStatus::Exited(_, status) = waitpid(child, None)? else { return Err(Errno::EINTR) };
            match status {
                WELL => Ok(Ok(())),
                ODD => Err(Errno::EOVERFLOW),
                status => Ok(Err(Errno::from_raw(status))),
            }
        }
    }
}
