//! The process from which the probes' processes are made.
//!
//! A probe's process shares the worker's memory and nothing else: it has descriptors, credentials, namespaces, signal
//! handlers and a process id of its own. A copy of PID 1, which a plain fork would be, took a machine without KVM 3 ms to
//! make, 120 page faults to use and 2 ms to throw away, for each of a thousand probes. What shared memory can pass on is
//! dealt with here:
//! - a probe that ends in any other way than by returning may leave half-changed memory behind, so the worker goes with it;
//! - what a probe forgets (maps that stay mapped) goes with the worker, which serves a limited number of probes;
//! - whether memory may be looked at from outside (`PR_SET_DUMPABLE`) is put back after each;
//! - a probe that needs memory of its own, because the kernel asks whether it shares it, says so
//!   ([`Probe::own_memory`](crate::spec::Probe::own_memory)) and gets a copy.
//!
//! The worker is the reaper of everything that a probe leaves running, so it knows whether there is any.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{ForkResult, Pid, fork};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

/// Probes that one worker serves.
const LIFE: u32 = 512;
/// A probe's stack, in bytes; only what is used takes memory.
const STACK: usize = 8 << 20;
/// No process, so that the word cannot be mistaken for one.
const NOBODY: u32 = 0;

/// PID 1's view of a worker.
pub(super) struct Worker {
    orders: File,
    reports: File,
    left: u32,
}

/// What a worker reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// The probe's process runs.
    Started(Pid),
    /// It has ended.
    Ended {
        /// How, as `waitpid` has it.
        status: i32,
        /// Whether nothing that it started is left.
        clean: bool,
    },
    /// There is no process for the probe.
    Failed(Errno),
}

/// What a worker is told: which probe to run, by its place in the list, and of which the links have been kept since.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// The probe.
    pub(super) probe: usize,
    /// The probes.
    pub(super) kept: Vec<usize>,
}

/// What runs a probe in its process: the order's probe, and the places of all whose links PID 1 keeps. Gives the status
/// to leave with.
pub(super) type Body<'a> = &'a mut dyn FnMut(usize, &[usize]) -> i32;

impl Worker {
    /// Starts a worker. `own_memory` says of a probe whether its process gets a copy of the memory; `prepare` runs in the
    /// worker before it waits for orders.
    ///
    /// # Errors
    /// The errno of a pipe or of the process.
    pub(super) fn start(
        prepare: impl FnOnce(),
        own_memory: impl Fn(usize) -> bool,
        body: Body<'_>,
    ) -> Result<Self, Errno> {
        let (heard, orders) = nix::unistd::pipe()?;
        let (reports, say) = nix::unistd::pipe()?;
        // SAFETY: PID 1 has one thread, so the child may do anything a fresh process may.
        match unsafe { fork() }? {
            ForkResult::Child => {
                drop((orders, reports));
                prepare();
                let status = serve(File::from(heard), File::from(say), own_memory, body).is_err();
                // Leaves without destructors: no exit handler of PID 1 may run.
                // SAFETY: _exit takes a plain number and does not return.
                unsafe { libc::_exit(i32::from(status)) }
            }
            ForkResult::Parent { .. } => {
                Ok(Self { orders: File::from(orders), reports: File::from(reports), left: LIFE })
            }
        }
    }

    /// Has a probe run; what becomes of it is reported.
    ///
    /// # Errors
    /// When the worker has gone.
    pub(super) fn order(&mut self, order: &Order) -> io::Result<()> {
        self.left = self.left.saturating_sub(1);
        self.orders.write_all(&order.bytes())
    }

    /// Whether it has served its time.
    pub(super) const fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// The next report, which is waited for.
    ///
    /// # Errors
    /// When the worker has gone.
    pub(super) fn report(&mut self) -> io::Result<Report> {
        let mut bytes = [0; 12];
        self.reports.read_exact(&mut bytes)?;
        Ok(Report::of(bytes))
    }

    /// Readable when there is a report, or none will come any more.
    pub(super) fn reports(&self) -> BorrowedFd<'_> {
        self.reports.as_fd()
    }
}

impl Order {
    fn bytes(&self) -> Vec<u8> {
        let words = [self.probe, self.kept.len()].into_iter().chain(self.kept.iter().copied());
        words.flat_map(|word| (word as u64).to_le_bytes()).collect()
    }

    fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut word = || {
            let mut bytes = [0; 8];
            from.read_exact(&mut bytes)?;
            usize::try_from(u64::from_le_bytes(bytes)).map_err(io::Error::other)
        };
        let (probe, count) = (word()?, word()?);
        let kept = (0..count).map(|_| word()).collect::<io::Result<_>>()?;
        Ok(Self { probe, kept })
    }
}

impl Report {
    fn bytes(self) -> [u8; 12] {
        let words = match self {
            Self::Started(pid) => [pid.as_raw().cast_unsigned(), 0, 0],
            Self::Ended { status, clean } => [NOBODY, status.cast_unsigned(), u32::from(clean)],
            Self::Failed(errno) => [NOBODY, (errno as i32).cast_unsigned(), 2],
        };
        let mut bytes = [0; 12];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn of(bytes: [u8; 12]) -> Self {
        let word = |at: usize| {
            i32::from_le_bytes([bytes[4 * at], bytes[4 * at + 1], bytes[4 * at + 2], bytes[4 * at + 3]])
        };
        match (word(0), word(2)) {
            (0, 2) => Self::Failed(Errno::from_raw(word(1))),
            (0, clean) => Self::Ended { status: word(1), clean: clean == 1 },
            (pid, _) => Self::Started(Pid::from_raw(pid)),
        }
    }
}

/// The worker: waits for orders, until PID 1 closes the pipe.
///
/// # Errors
/// When PID 1 cannot be heard or told.
fn serve(
    mut heard: File,
    mut say: File,
    own_memory: impl Fn(usize) -> bool,
    body: Body<'_>,
) -> io::Result<()> {
    prctl::set_child_subreaper(true)?;
    let mut stack = memmap2::MmapOptions::new().len(STACK).stack().map_anon()?;
    let mut kept = Vec::new();
    while let Ok(order) = Order::read(&mut heard) {
        kept.extend(order.kept);
        let mut begin = || {
            let status = body(order.probe, &kept);
            // Ends all threads, and leaves without destructors: the memory is the worker's.
            // SAFETY: _exit takes a plain number and does not return.
            unsafe { libc::_exit(status) }
        };
        let mut begin: &mut dyn FnMut() = &mut begin;
        let child = if own_memory(order.probe) {
            // SAFETY: the worker has one thread.
            match unsafe { fork() } {
                Ok(ForkResult::Child) => {
                    begin();
                    continue;
                }
                Ok(ForkResult::Parent { child }) => Ok(child),
                Err(errno) => Err(errno),
            }
        } else {
            // SAFETY: `stack` and `begin` are this function's, which does nothing but wait until the process has ended.
            unsafe { share_memory(&mut stack, &mut begin) }
        };
        let child = match child {
            Ok(child) => child,
            Err(errno) => {
                say.write_all(&Report::Failed(errno).bytes())?;
                continue;
            }
        };
        say.write_all(&Report::Started(child).bytes())?;
        let status = wait_for(child);
        // SAFETY: prctl takes numbers.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
        say.write_all(&Report::Ended { status, clean: is_alone() }.bytes())?;
    }
    Ok(())
}

/// Starts a process that shares this one's memory and runs `body` on `stack`, from which it must not return.
///
/// # Safety
/// Until the process has ended, `stack`, `body` and what it refers to must stay where they are, and this process must do
/// nothing but wait.
unsafe fn share_memory(stack: &mut [u8], body: &mut &mut dyn FnMut()) -> Result<Pid, Errno> {
    extern "C" fn begin(body: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the pointer given to clone below.
        let body = unsafe { &mut *body.cast::<&mut dyn FnMut()>() };
        body();
        1
    }
    let top = stack.as_mut_ptr_range().end; // the end of a page, as aligned as a stack has to be
    let flags = libc::CLONE_VM | libc::SIGCHLD;
    // SAFETY: the stack is the process's own, and the caller vouches for `body`.
    let child = unsafe { libc::clone(begin, top.cast(), flags, std::ptr::from_mut(body).cast()) };
    Errno::result(child).map(Pid::from_raw)
}

/// Waits until a process has ended; gives its status.
fn wait_for(child: Pid) -> i32 {
    let mut status = 0;
    loop {
        // SAFETY: the status is written into a variable that lives across the call.
        let ended = unsafe { libc::waitpid(child.as_raw(), &raw mut status, libc::__WALL) };
        if ended == child.as_raw() || Errno::last() != Errno::EINTR {
            return status;
        }
    }
}

/// Whether no process is left below the worker, once those that have ended are reaped.
fn is_alone() -> bool {
    loop {
        match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::__WALL) {
            Err(Errno::ECHILD) => return true,
            Err(_) | Ok(nix::sys::wait::WaitStatus::StillAlive) => return false,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_reports_are_read_as_they_were_written() {
        let order = Order { probe: 7, kept: vec![1, 6] };
        assert_eq!(Order::read(&mut order.bytes().as_slice()).unwrap(), order);
        assert!(Order::read(&mut &order.bytes()[..20]).is_err());
        for report in [
            Report::Started(Pid::from_raw(300)),
            Report::Ended { status: 9, clean: false },
            Report::Ended { status: 0, clean: true },
            Report::Failed(Errno::EAGAIN),
        ] {
            assert_eq!(Report::of(report.bytes()), report);
        }
    }
}
