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
//! PID 1 sleeps from its order to the worker's report, but for a probe whose links it takes over: between PID 1 and the
//! others the processor changes its page table, after which an emulated one has to find everything anew.
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
/// Bytes of a report.
const REPORT: usize = 8;
/// The second word of a report of a process that there is not.
const NO_PROCESS: u32 = 2;

/// PID 1's view of a worker.
pub(super) struct Worker {
    orders: File,
    reports: File,
    left: u32,
}

/// What a worker reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// The probe's process has ended.
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
    /// Whether PID 1 takes its links over.
    pub(super) lingers: bool,
    /// The probes.
    pub(super) kept: Vec<usize>,
}

/// What runs a probe in its process: the order, and the places of all probes whose links PID 1 keeps. Gives the status
/// to leave with.
pub(super) type Body<'a> = &'a mut dyn FnMut(&Order, &[usize]) -> i32;

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
        let mut bytes = [0; REPORT];
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
        let words = [self.probe, usize::from(self.lingers), self.kept.len()]
            .into_iter()
            .chain(self.kept.iter().copied());
        words.flat_map(|word| (word as u64).to_le_bytes()).collect()
    }

    fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut word = || {
            let mut bytes = [0; 8];
            from.read_exact(&mut bytes)?;
            usize::try_from(u64::from_le_bytes(bytes)).map_err(io::Error::other)
        };
        let (probe, lingers, count) = (word()?, word()? == 1, word()?);
        let kept = (0..count).map(|_| word()).collect::<io::Result<_>>()?;
        Ok(Self { probe, lingers, kept })
    }
}

impl Report {
    fn bytes(self) -> [u8; REPORT] {
        let (number, kind) = match self {
            Self::Ended { status, clean } => (status, u32::from(clean)),
            Self::Failed(errno) => (errno as i32, NO_PROCESS),
        };
        let mut bytes = [0; REPORT];
        let (first, second) = bytes.split_at_mut(REPORT / 2);
        first.copy_from_slice(&number.to_le_bytes());
        second.copy_from_slice(&kind.to_le_bytes());
        bytes
    }

    fn of([a, b, c, d, kind @ ..]: [u8; REPORT]) -> Self {
        let number = i32::from_le_bytes([a, b, c, d]);
        match u32::from_le_bytes(kind) {
            NO_PROCESS => Self::Failed(Errno::from_raw(number)),
            clean => Self::Ended { status: number, clean: clean == 1 },
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
        kept.extend(&order.kept);
        let mut begin = || {
            let status = body(&order, &kept);
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
        let order = Order { probe: 7, lingers: true, kept: vec![1, 6] };
        assert_eq!(Order::read(&mut order.bytes().as_slice()).unwrap(), order);
        assert!(Order::read(&mut &order.bytes()[..20]).is_err());
        for report in [
            Report::Ended { status: 9, clean: false },
            Report::Ended { status: 0, clean: true },
            Report::Failed(Errno::EAGAIN),
        ] {
            assert_eq!(Report::of(report.bytes()), report);
        }
    }
}
