//! Mapping memory. Only raw calls inside the window: the allocator maps memory too.

use super::{Act, OK, Seen, act, act_seen, syscall};
use crate::errno::Errno;
use crate::triggers::files::owned;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

const PAGE: usize = 4096;

/// A mapping that is undone when it is dropped.
struct Mapping(*mut libc::c_void);

impl Mapping {
    fn new(prot: i32, file: Option<&File>) -> Result<Self, Errno> {
        let (flags, fd) = file.map_or((libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1), |file| {
            (libc::MAP_PRIVATE, file.as_raw_fd())
        });
        // SAFETY: a new mapping wherever the kernel likes, which nobody else knows.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, prot, flags, fd, 0) };
        if address == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(Self(address)) }
    }
}

impl Mapping {
    fn protect(&self, prot: i32) -> Result<(), Errno> {
        // SAFETY: the mapping is this value's own, and nobody reads it.
        Errno::result(unsafe { libc::mprotect(self.0, PAGE, prot) }).map(drop)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        unsafe { libc::munmap(self.0, PAGE) };
    }
}

/// `mmap(2)` of a file.
///
/// # Errors
/// The errno of making the file.
pub fn mmap_file() -> Result<Act, Errno> {
    std::fs::write("/tmp/mapped", [0; PAGE])?;
    let file = File::open("/tmp/mapped")?;
    act(move |arm| arm.during(|| Mapping::new(libc::PROT_READ, Some(&file))))
}

/// `mmap(2)` of memory that is private and writable, and therefore accounted.
///
/// # Errors
/// None.
pub fn mmap_anonymous() -> Result<Act, Errno> {
    act(|arm| arm.during(|| Mapping::new(libc::PROT_READ | libc::PROT_WRITE, None)))
}

/// The same where all memory that may be promised is kept for the privileged. Whether it fails is for the hook to decide
/// (6.11 mm/util.c, `__vm_enough_memory`), so that is no failure of the trigger.
///
/// # Errors
/// The errno of reading the settings.
pub fn mmap_of_the_reserve() -> Result<Act, Errno> {
    let reserve = Setting::open("/proc/sys/vm/admin_reserve_kbytes")?;
    let policy = Setting::open("/proc/sys/vm/overcommit_memory")?;
    act_seen(move |arm| {
        let _reserved = reserve.set(b"4294967296")?; // 4 TiB
        let strict = policy.set(b"2")?; // OVERCOMMIT_NEVER
        let result = arm.during(|| Mapping::new(libc::PROT_READ | libc::PROT_WRITE, None));
        drop(strict);
        match result {
            Ok(_) => Ok(OK),
            Err(errno) if errno.raw() == libc::ENOMEM => Ok(Seen("ENOMEM")),
            Err(errno) => Err(errno),
        }
    })
}

/// A setting of the kernel's. Nothing here allocates while one is set: the whole machine has it.
struct Setting {
    file: File,
    usual: Vec<u8>,
}

impl Setting {
    fn open(path: &str) -> Result<Self, Errno> {
        let usual = std::fs::read(path)?;
        Ok(Self { file: OpenOptions::new().write(true).open(path)?, usual })
    }

    /// Sets it until what is returned is dropped.
    fn set(&self, value: &[u8]) -> Result<Set<'_>, Errno> {
        self.file.write_all_at(value, 0)?;
        Ok(Set(self))
    }
}

/// A setting that is taken back when it is dropped.
struct Set<'a>(&'a Setting);

impl Drop for Set<'_> {
    fn drop(&mut self) {
        let _ = self.0.file.write_all_at(&self.0.usual, 0);
    }
}

/// `mprotect(2)`.
///
/// # Errors
/// The errno of the mapping.
pub fn mprotect() -> Result<Act, Errno> {
    let mapping = Mapping::new(libc::PROT_READ | libc::PROT_WRITE, None)?;
    act(move |arm| arm.during(|| mapping.protect(libc::PROT_READ)))
}

/// `userfaultfd(2)`: a file on an inode of its own that has no name.
///
/// # Errors
/// None.
pub fn userfaultfd() -> Result<Act, Errno> {
    act(|arm| {
        let args = [usize::try_from(libc::O_CLOEXEC).unwrap_or(0), 0, 0, 0, 0, 0];
        // SAFETY: takes one number.
        arm.during(|| unsafe { syscall(libc::SYS_userfaultfd, args) }).map(owned)
    })
}
