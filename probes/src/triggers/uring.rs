//! A ring of io_uring: one request at a time, which the system call that submits it waits for.

use super::files::{index, owned};
use super::{Act, Arm, act, creds, syscall};
use crate::errno::Errno;
use memmap2::{MmapMut, MmapOptions};
use nix::unistd::{Gid, setegid};
use std::fs::File;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// include/uapi/linux/io_uring.h: IORING_OP_NOP; IORING_OP_OPENAT, IORING_OP_READ and IORING_OP_URING_CMD.
const NOP: u8 = 0;
pub(crate) const OPENAT: u8 = 18;
pub(crate) const READ: u8 = 22;
pub(crate) const COMMAND: u8 = 46;
/// The same: IORING_REGISTER_PERSONALITY.
const REGISTER_PERSONALITY: usize = 9;
/// The same: IORING_OFF_SQES.
const REQUESTS: u64 = 0x1000_0000;
/// The same: IORING_REGISTER_FILES.
const REGISTER_FILES: usize = 2;
/// The same: IORING_ENTER_GETEVENTS, and IORING_ENTER_SQ_WAKEUP, which a ring without a polling thread ignores.
const WAIT: usize = 1 | 2;
/// The same: IORING_SETUP_SQPOLL.
const POLLED: u32 = 2;
/// The same: IORING_FEAT_NATIVE_WORKERS.
const NATIVE_WORKERS: u32 = 1 << 9;
/// `IOSQE_FIXED_FILE` and `IOSQE_ASYNC` of the same: [`Request::fd`] is the number of a registered file; a worker does it.
pub(crate) const FIXED_FILE: u8 = 1;
pub(crate) const ASYNC: u8 = 16;

/// A request, by the names of `struct io_uring_sqe`, where they stand for nothing else. Addresses must be valid for what the
/// operation does with them.
#[derive(Clone, Copy, Default)]
pub(crate) struct Request {
    pub(crate) operation: u8,
    pub(crate) fd: i32,
    pub(crate) offset: usize,
    pub(crate) address: usize,
    pub(crate) length: u32,
    pub(crate) flags: u32,
    pub(crate) personality: u16,
    /// `splice_fd_in`, `file_index` or `optlen`.
    pub(crate) file_index: u32,
    /// `addr3` or `optval`.
    pub(crate) third: usize,
    /// `IOSQE_*`, which the structure calls `flags` and what is `flags` here by the operation's name.
    pub(crate) how: u8,
}

/// A ring of one entry, which stays open until the process ends, whatever becomes of this.
///
/// A ring that is closed still does something to those who have used it, some time later: they get work to do as if a
/// signal had come (7.3 io_uring/io_uring.c, `io_ring_exit_work`), and a system call that is under way then begins again, so
/// that hooks are called twice as often; sendfile(2) on 6.19 was seen to (7.3 fs/splice.c, `splice_from_pipe_next`). And
/// with the last ring go the workers of a process (`IO_WQ_BIT_EXIT_ON_IDLE`, which 6.14 has not), and a request of the next
/// ring can be left to one that is about to go: then nobody does it, and who waits for it waits for ever. Seen on 7.0.13;
/// 7.3.4 has it mended (io_uring/io-wq.c, `io_wq_worker`).
pub(crate) struct Ring {
    fd: RawFd,
    /// Both queues' heads and tails.
    queues: MmapMut,
    requests: MmapMut,
    /// `struct io_uring_params`.
    params: [u32; 30],
}

impl Ring {
    pub(crate) fn new() -> Result<Self, Errno> {
        Self::with(0)
    }

    /// A ring whose requests a thread of the kernel takes.
    pub(crate) fn polled() -> Result<Self, Errno> {
        Self::with(POLLED)
    }

    /// A ring with these `IORING_SETUP_*` flags.
    fn with(flags: u32) -> Result<Self, Errno> {
        let mut params = [0_u32; 30];
        params[2] = flags;
        params[4] = 1; // milliseconds without work until a polling thread sleeps
        // SAFETY: a structure of 120 bytes, which the kernel fills in.
        let fd = unsafe { syscall(libc::SYS_io_uring_setup, [1, params.as_mut_ptr().addr(), 0, 0, 0, 0]) };
        let fd = owned(fd?).into_raw_fd();
        // SAFETY: the ring's own memory, which only this process and the kernel see.
        let queues = unsafe { MmapOptions::new().len(4096).map_mut(fd) }?;
        // SAFETY: as above.
        let requests = unsafe { MmapOptions::new().offset(REQUESTS).len(4096).map_mut(fd) }?;
        Ok(Self { fd, queues, requests, params })
    }

    /// The 32-bit number at the offset that the kernel gave in word `word` of the parameters.
    fn at(&self, word: usize, more: usize) -> &AtomicU32 {
        let offset = self.params[word] as usize + more;
        // SAFETY: offsets are the kernel's, 4-byte aligned and inside the mapping, which is indexed to make sure.
        unsafe { &*self.queues[offset..offset + 4].as_ptr().cast() }
    }

    /// Does one request and returns its result.
    pub(crate) fn request(&mut self, request: Request) -> Result<u32, Errno> {
        self.requests[..64].fill(0);
        self.requests[..2].copy_from_slice(&[request.operation, request.how]);
        let words = [
            (4, request.fd.cast_unsigned()),
            (24, request.length),
            (28, request.flags),
            (44, request.file_index),
        ];
        for (at, word) in words {
            self.requests[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        for (at, word) in [(8, request.offset), (16, request.address), (48, request.third)] {
            self.requests[at..at + 8].copy_from_slice(&word.to_ne_bytes());
        }
        self.requests[42..44].copy_from_slice(&request.personality.to_ne_bytes());
        self.at(16, 0).store(0, Ordering::Relaxed); // the array of indices: request 0
        self.at(11, 0).fetch_add(1, Ordering::Release); // the tail of submissions
        // SAFETY: numbers, and no set of signals.
        unsafe { syscall(libc::SYS_io_uring_enter, [index(&self.fd), 1, 1, WAIT, 0, 0]) }?;
        // The result of the completion at the head: an entry is a long, then the result.
        let head = self.at(20, 0);
        let mask = self.at(22, 0).load(Ordering::Relaxed);
        let entry = (head.load(Ordering::Relaxed) & mask) as usize * 16;
        let result = self.at(25, entry + 8).load(Ordering::Acquire).cast_signed();
        head.fetch_add(1, Ordering::Release);
        u32::try_from(result).map_err(|_| Errno::from_raw(result))
    }

    /// Passes over what others have put among the completions.
    pub(crate) fn forget_completions(&mut self) {
        let tail = self.at(21, 0).load(Ordering::Acquire);
        self.at(20, 0).store(tail, Ordering::Release);
    }

    /// Registers the credentials that the process has now; gives their number.
    pub(crate) fn register_credentials(&self) -> Result<u16, Errno> {
        // SAFETY: numbers.
        let id = unsafe { self.register(REGISTER_PERSONALITY, 0, 0) }?;
        u16::try_from(id).map_err(|_| Errno::EOVERFLOW)
    }

    /// Whether a worker is a thread of the process that made the ring: IORING_FEAT_NATIVE_WORKERS (5.12).
    pub(crate) const fn has_native_workers(&self) -> bool {
        self.params[5] & NATIVE_WORKERS != 0
    }

    /// Registers a file as number 0.
    pub(crate) fn register_file(&self, file: &impl AsRawFd) -> Result<(), Errno> {
        self.register_files([file.as_raw_fd()])
    }

    /// Makes room for a file as number 0, and leaves it empty.
    pub(crate) fn register_place(&self) -> Result<(), Errno> {
        self.register_files([-1])
    }

    fn register_files(&self, files: [i32; 1]) -> Result<(), Errno> {
        // SAFETY: the address and the length of an array, which is read.
        unsafe { self.register(REGISTER_FILES, files.as_ptr().addr(), files.len()) }.map(drop)
    }

    /// # Safety
    /// `address` and `count` must be what the operation takes.
    unsafe fn register(&self, operation: usize, address: usize, count: usize) -> Result<libc::c_long, Errno> {
        let args = [index(&self.fd), operation, address, count, 0, 0];
        // SAFETY: the caller's promise.
        unsafe { syscall(libc::SYS_io_uring_register, args) }
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

/// A request of io_uring with the credentials that were registered before, which have another group than the task's.
///
/// # Errors
/// The errno of making the ring or registering them.
pub fn with_credentials() -> Result<Act, Errno> {
    let mut ring = Ring::new()?;
    creds::take_group()?;
    let id = ring.register_credentials()?;
    setegid(Gid::from_raw(0))?;
    act(move |arm: Arm| {
        arm.during(|| ring.request(Request { operation: NOP, fd: -1, personality: id, ..Request::default() }))
    })
}

/// A command of io_uring to `/dev/null`, which does nothing.
///
/// # Errors
/// The errno of making the ring.
pub fn command() -> Result<Act, Errno> {
    let mut ring = Ring::new()?;
    let null = File::open("/dev/null")?;
    act(move |arm: Arm| {
        arm.during(|| {
            ring.request(Request { operation: COMMAND, fd: null.as_raw_fd(), ..Request::default() })
        })
    })
}
