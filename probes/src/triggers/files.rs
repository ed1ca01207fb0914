//! Open files: opening, reading, locking, changing their flags, closing.

use super::{Act, Arm, Seen, act, act_seen, syscall};
use crate::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, OFlag, fcntl};
use nix::sys::signal::{SigSet, Signal};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// include/uapi/asm-generic/fcntl.h: F_SETSIG.
const F_SETSIG: i32 = 10;

/// A file in the probe's own `/tmp`, with a few bytes, open for reading and writing.
fn opened(path: &str) -> Result<File, Errno> {
    std::fs::write(path, b"content")?;
    Ok(OpenOptions::new().read(true).write(true).open(path)?)
}

/// `open(2)` of an existing file.
///
/// # Errors
/// The errno of making the file.
pub fn open() -> Result<Act, Errno> {
    opened("/tmp/opened")?;
    act(|arm| arm.during(|| File::open("/tmp/opened").map_err(Errno::from)))
}

/// `read(2)`.
///
/// # Errors
/// The errno of making the file.
pub fn read() -> Result<Act, Errno> {
    let file = opened("/tmp/read")?;
    act(move |arm| arm.during(|| (&file).read(&mut [0_u8; 1]).map_err(Errno::from)))
}

/// `ioctl(2)`, one that every file has.
///
/// # Errors
/// The errno of making the file.
pub fn ioctl() -> Result<Act, Errno> {
    let file = opened("/tmp/ioctl")?;
    act(move |arm| {
        arm.during(|| {
            // SAFETY: FIOCLEX takes no argument.
            Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::FIOCLEX) })
        })
    })
}

/// `flock(2)`.
///
/// # Errors
/// The errno of making the file.
pub fn flock() -> Result<Act, Errno> {
    opened("/tmp/locked")?;
    act(|arm| {
        let file = File::open("/tmp/locked")?;
        arm.during(|| Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Errno::from(errno)))
    })
}

/// `fcntl(2)`, reading the flags.
///
/// # Errors
/// The errno of making the file.
pub fn getfl() -> Result<Act, Errno> {
    let file = opened("/tmp/flags")?;
    act(move |arm| arm.during(|| fcntl(&file, FcntlArg::F_GETFL).map_err(Errno::from)))
}

/// `fcntl(2)`, naming who gets the file's signals.
///
/// # Errors
/// The errno of making the file.
pub fn setown() -> Result<Act, Errno> {
    let file = opened("/tmp/owned")?;
    act(move |arm| {
        arm.during(|| {
            // SAFETY: F_SETOWN takes a number.
            Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETOWN, libc::getpid()) })
        })
    })
}

/// `ftruncate(2)`.
///
/// # Errors
/// The errno of making the file.
pub fn ftruncate() -> Result<Act, Errno> {
    let file = opened("/tmp/cut")?;
    act(move |arm| arm.during(|| nix::unistd::ftruncate(&file, 3).map_err(Errno::from)))
}

/// `close(2)` of the last descriptor of a file.
///
/// # Errors
/// The errno of making the file.
pub fn close() -> Result<Act, Errno> {
    opened("/tmp/closed")?;
    act(|arm| {
        let file = File::open("/tmp/closed")?;
        arm.during(|| drop(file));
        Ok(())
    })
}

/// `pidfd_getfd(2)` of one of the process's own descriptors.
///
/// # Errors
/// The errno of making the file or the pidfd.
pub fn pidfd_getfd() -> Result<Act, Errno> {
    let file = opened("/tmp/received")?;
    // SAFETY: takes two numbers.
    let pidfd =
        owned(unsafe { syscall(libc::SYS_pidfd_open, [std::process::id() as usize, 0, 0, 0, 0, 0]) }?);
    act(move |arm: Arm| {
        let args = [index(&pidfd), index(&file), 0, 0, 0, 0];
        // SAFETY: takes three numbers.
        arm.during(|| unsafe { syscall(libc::SYS_pidfd_getfd, args) }).map(owned)
    })
}

/// `ioctl(2)` for a file's attributes, which newer kernels check by a hook of its own.
///
/// # Errors
/// The errno of making the file.
pub fn getflags() -> Result<Act, Errno> {
    let file = opened("/tmp/attributes")?;
    act(move |arm| {
        let mut flags: libc::c_int = 0;
        arm.during(|| {
            // SAFETY: the request writes a number of the size of `flags` (in spite of the `long` in its name).
            Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) })
        })
    })
}

/// `open(2)` of the kernel's memory image, which lockdown may forbid.
///
/// # Errors
/// None.
pub fn kcore() -> Result<Act, Errno> {
    act(|arm| arm.during(|| File::open("/proc/kcore").map_err(Errno::from)))
}

/// A descriptor as a system call's argument.
pub(crate) fn index(fd: &impl AsRawFd) -> usize {
    usize::try_from(fd.as_raw_fd()).unwrap_or(usize::MAX)
}

/// A descriptor that a system call returned.
pub(crate) fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) }
}

/// `write(2)` into a pipe whose other end is to be told of it by a signal, which then waits.
///
/// # Errors
/// The errno of making the pipe.
pub fn signal_io() -> Result<Act, Errno> {
    let signal = Signal::SIGUSR2;
    let only = SigSet::from(signal);
    only.thread_block()?;
    let (reader, writer) = nix::unistd::pipe()?;
    let flags = OFlag::from_bits_truncate(fcntl(&reader, FcntlArg::F_GETFL)?);
    fcntl(&reader, FcntlArg::F_SETFL(flags | OFlag::O_ASYNC | OFlag::O_NONBLOCK))?;
    for (command, value) in [(F_SETSIG, signal as i32), (libc::F_SETOWN, nix::unistd::getpid().as_raw())] {
        // SAFETY: both take a number.
        Errno::result(unsafe { libc::fcntl(reader.as_raw_fd(), command, value) })?;
    }
    act_seen(move |arm| {
        arm.during(|| nix::unistd::write(&writer, b"x"))?;
        nix::unistd::read(&reader, &mut [0])?;
        let no_time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a set and a time that live across the call; what was sent is not asked for.
        let taken = unsafe { libc::sigtimedwait(only.as_ref(), std::ptr::null_mut(), &raw const no_time) };
        Ok(Seen(if taken < 0 { "no signal" } else { "a signal" }))
    })
}

/// `ioctl(2)` that sets a file's attributes to what they are.
///
/// # Errors
/// The errno of making the file.
pub fn setflags() -> Result<Act, Errno> {
    let file = opened("/tmp/attributes")?;
    let mut flags: libc::c_int = 0;
    // SAFETY: the request writes a number of the size of `flags` (in spite of the `long` in its name).
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) })?;
    act(move |arm| {
        arm.during(|| {
            // SAFETY: the request reads a number of that size.
            Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) })
        })
    })
}
