//! A child process that stops in a page fault until it is let go on: what reads its page inside the kernel sleeps meanwhile.

use super::children::Idle;
use super::files::{index, owned};
use super::syscall;
use crate::errno::Errno;
use crate::patience::Patience;
use memmap2::MmapMut;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, fork};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

const PAGE: usize = 4096;
/// How long a look for something to read waits: not longer than what counts of it ([`Patience`]).
const LOOK_MS: i32 = 20;
/// include/uapi/linux/userfaultfd.h: UFFD_API, UFFDIO_API, UFFDIO_REGISTER, UFFDIO_COPY.
const API: u64 = 0xaa;
const ASK_API: libc::Ioctl = 0xc018_aa3f;
const REGISTER: libc::Ioctl = 0xc020_aa00;
const COPY: libc::Ioctl = 0xc028_aa03;
/// The same: UFFDIO_REGISTER_MODE_MISSING, UFFD_EVENT_PAGEFAULT, and the size of `struct uffd_msg`.
const MISSING: u64 = 1;
const PAGE_FAULT: u8 = 0x12;
const MESSAGE: usize = 32;

/// The child. It is killed when this is dropped, wherever it is: a fault on a userfaultfd lets a killed task go (7.3
/// mm/userfaultfd.c, userfaultfd_get_blocking_state).
pub(crate) struct Held {
    _child: Idle,
    /// A page that the child has not touched.
    page: MmapMut,
    /// The child's userfaultfd, of which this process has a descriptor too.
    faults: OwnedFd,
    go: PipeWriter,
    said: PipeReader,
}

impl Held {
    /// Starts a child that makes its page ready and then waits for [`Held::go`] to do `act` once. What this process opens
    /// later the child does not have.
    ///
    /// # Errors
    /// What the kernel answers to one of the preparations.
    pub(crate) fn new(act: impl FnOnce() -> Result<(), Errno>) -> Result<Self, Errno> {
        let page = MmapMut::map_anon(PAGE)?;
        let (ready, go) = std::io::pipe()?;
        let (mut said, say) = std::io::pipe()?;
        // SAFETY: a probe's process has one thread, so its child may do anything a fresh process may.
        let child = match unsafe { fork() }? {
            ForkResult::Child => {
                drop((go, said));
                be_held(&page, ready, say, act);
                // SAFETY: _exit takes a plain number and does not return.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => child,
        };
        let held = Idle::of(child);
        drop((ready, say));
        let number = hear(&mut said, Duration::from_secs(10)).ok_or(super::LATE)?;
        let faults = taken(child, number)?;
        Ok(Self { _child: held, page, faults, go, said })
    }

    /// The address of the page in the child's memory. This process must not touch its own there before it has forked.
    pub(crate) fn address(&self) -> u64 {
        self.page.as_ptr().expose_provenance() as u64
    }

    /// Has the child begin, and waits until it stands still in a fault on its page. Whether it does.
    pub(crate) fn go(&mut self, patience: Duration) -> bool {
        let mut message = [0_u8; MESSAGE];
        let begun = self.go.write_all(&[0]).is_ok() && readable(&self.faults, patience);
        // SAFETY: a buffer of the size of a message, which is what the kernel writes.
        let read = begun
            .then(|| unsafe { libc::read(self.faults.as_raw_fd(), message.as_mut_ptr().cast(), MESSAGE) });
        read.and_then(|read| usize::try_from(read).ok()) == Some(MESSAGE) && message[0] == PAGE_FAULT
    }

    /// Gives the page this content at its beginning, and lets the child go on.
    ///
    /// # Errors
    /// What the kernel answers.
    pub(crate) fn release(&self, content: u64) -> Result<(), Errno> {
        let mut source = [0_u64; PAGE / 8];
        source[0] = content;
        // `struct uffdio_copy`.
        let mut copy = [self.address(), source.as_ptr().expose_provenance() as u64, PAGE as u64, 0, 0];
        // SAFETY: the structure has the size that the request says, and its source is a page that outlives the call.
        Errno::result(unsafe { libc::ioctl(self.faults.as_raw_fd(), COPY, copy.as_mut_ptr()) }).map(drop)
    }

    /// What came of what the child did, if it is over in time.
    pub(crate) fn outcome(&mut self, patience: Duration) -> Option<Result<(), Errno>> {
        let number = hear(&mut self.said, patience)?;
        Some(if number == 0 { Ok(()) } else { Err(Errno::from_raw(number)) })
    }
}

/// The child's part. It says the number of its descriptor or a negative errno, and in the end the errno of `act` or 0.
fn be_held(
    page: &MmapMut,
    mut ready: PipeReader,
    mut say: PipeWriter,
    act: impl FnOnce() -> Result<(), Errno>,
) {
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    let faults = registered(page);
    let number = faults.as_ref().map_or_else(|errno| -errno.raw(), AsRawFd::as_raw_fd);
    let said = say.write_all(&number.to_ne_bytes());
    if said.is_err() || faults.is_err() || ready.read_exact(&mut [0]).is_err() {
        return;
    }
    let outcome = act().err().map_or(0, Errno::raw);
    let _ = say.write_all(&outcome.to_ne_bytes());
}

/// A userfaultfd for the page.
fn registered(page: &MmapMut) -> Result<OwnedFd, Errno> {
    let flags = (libc::O_CLOEXEC | libc::O_NONBLOCK).unsigned_abs() as usize;
    // SAFETY: takes a number.
    let faults = owned(unsafe { syscall(libc::SYS_userfaultfd, [flags, 0, 0, 0, 0, 0]) }?);
    // `struct uffdio_api` and `struct uffdio_register`.
    let mut api = [API, 0, 0];
    let mut register = [page.as_ptr().expose_provenance() as u64, PAGE as u64, MISSING, 0];
    // SAFETY: both structures have the sizes that the requests say, and outlive the calls.
    unsafe {
        Errno::result(libc::ioctl(faults.as_raw_fd(), ASK_API, api.as_mut_ptr()))?;
        Errno::result(libc::ioctl(faults.as_raw_fd(), REGISTER, register.as_mut_ptr()))?;
    }
    Ok(faults)
}

/// The child's descriptor of this number, or the errno that stands in its place.
fn taken(child: Pid, number: i32) -> Result<OwnedFd, Errno> {
    let number = usize::try_from(number).map_err(|_| Errno::from_raw(-number))?;
    let pid = usize::try_from(child.as_raw()).unwrap_or(0);
    // SAFETY: both calls take numbers.
    unsafe {
        let pidfd = owned(syscall(libc::SYS_pidfd_open, [pid, 0, 0, 0, 0, 0])?);
        syscall(libc::SYS_pidfd_getfd, [index(&pidfd), number, 0, 0, 0, 0]).map(owned)
    }
}

/// The next number that the child says, if it does in time.
fn hear(said: &mut PipeReader, patience: Duration) -> Option<i32> {
    let mut number = [0; 4];
    (readable(said, patience) && said.read_exact(&mut number).is_ok()).then(|| i32::from_ne_bytes(number))
}

/// Whether there is something to read in time.
pub(crate) fn readable(fd: &impl AsRawFd, patience: Duration) -> bool {
    let mut patience = Patience::new(patience);
    while patience.lasts() {
        let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure that outlives the call.
        if unsafe { libc::poll(&raw mut poll, 1, LOOK_MS) } != 0 {
            return poll.revents & libc::POLLIN != 0;
        }
    }
    false
}
