//! Having memory, and changing what may be done with it.

use super::Subject;
use super::way::{Doing, Step, Way, doing, plain};
use crate::errno::Errno;
use crate::spec::source;
use crate::triggers::{Arm, syscall};
use libc::{MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE, c_void};
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;

pub(super) const SUBJECT: Subject = Subject {
    name: "mmap_file",
    what: "map memory or change what may be done with it",
    hooks: &["mmap_file", "file_mprotect"],
    ways: &[
        Way::new("mmap-of-a-file", mmap_file),
        Way::new("mmap-of-no-file", mmap_anonymous),
        Way::new("shmat", shmat),
        Way::new("remap_file_pages", remap_file_pages),
        Way::new("mremap", mremap),
        Way::new("brk", brk),
        Way::new("mprotect", || protecting(libc::SYS_mprotect)),
        Way::new("pkey_mprotect", || protecting(libc::SYS_pkey_mprotect))
            .of_option(libc::ENOSYS, "ARCH_HAS_PKEYS"),
    ],
    sources: &[
        source("7.3", "mm/util.c", "vm_mmap_pgoff"),
        source("7.3", "mm/mmap.c", "SYSCALL_DEFINE5(remap_file_pages)"),
        source("6.10", "mm/mmap.c", "SYSCALL_DEFINE5(remap_file_pages)"),
        source("7.3", "ipc/shm.c", "do_shmat"),
        source("7.3", "mm/mprotect.c", "do_mprotect_pkey"),
        source("7.3", "mm/mremap.c", "do_mremap"),
        source("7.3", "mm/mmap.c", "SYSCALL_DEFINE1(brk)"),
    ],
};

const PAGE: usize = 4096;
const USUAL: i32 = PROT_READ | PROT_WRITE;

/// Pages that are unmapped when this is dropped.
struct Pages(*mut c_void, usize);

impl Pages {
    fn new(count: usize, access: i32, flags: i32, fd: i32) -> Result<Self, Errno> {
        // SAFETY: a new mapping wherever the kernel likes, which nobody else knows.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), count * PAGE, access, flags, fd, 0) };
        if address == MAP_FAILED { Err(Errno::last()) } else { Ok(Self(address, count * PAGE)) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        unsafe { libc::munmap(self.0, self.1) };
    }
}

/// A file of two pages, the first byte of which say which they are.
fn file() -> Result<std::fs::File, Errno> {
    let mut content = vec![1_u8; PAGE];
    content.extend([2; PAGE]);
    std::fs::write("/tmp/pages", content)?;
    Ok(OpenOptions::new().read(true).write(true).open("/tmp/pages")?)
}

fn mmap_file() -> Result<Doing, Errno> {
    let file = file()?;
    plain(move |arm: Arm| {
        Ok(arm.during(|| Pages::new(1, PROT_READ | PROT_EXEC, MAP_PRIVATE, file.as_raw_fd()))?)
    })
}

fn mmap_anonymous() -> Result<Doing, Errno> {
    plain(|arm: Arm| Ok(arm.during(|| Pages::new(1, USUAL | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1))?))
}

/// A segment of System V, which ends with its last mapping.
fn shmat() -> Result<Doing, Errno> {
    plain(|arm: Arm| {
        // SAFETY: takes numbers.
        let id = Errno::result(unsafe { libc::shmget(libc::IPC_PRIVATE, PAGE, 0o600) }).step("shmget")?;
        // SAFETY: a mapping wherever the kernel likes.
        let (address, errno) =
            arm.during(|| (unsafe { libc::shmat(id, std::ptr::null(), 0) }, Errno::last()));
        // SAFETY: a number, and no structure.
        unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
        if address == MAP_FAILED {
            return Err(errno).step("");
        }
        // SAFETY: the mapping was made above.
        Errno::result(unsafe { libc::shmdt(address) }).step("shmdt")
    })
}

/// The first page comes to show the second of the file.
fn remap_file_pages() -> Result<Doing, Errno> {
    let file = file()?;
    doing(move |arm: Arm| {
        let pages = Pages::new(2, USUAL, MAP_SHARED, file.as_raw_fd())?;
        // SAFETY: an address of this mapping, and numbers.
        arm.during(|| unsafe { syscall(libc::SYS_remap_file_pages, [pages.0.addr(), PAGE, 0, 1, 0, 0]) })?;
        // SAFETY: the first byte of this mapping.
        let seen = unsafe { pages.0.cast::<u8>().read_volatile() };
        Ok(format!("page {seen} of the file"))
    })
}

fn mremap() -> Result<Doing, Errno> {
    let file = file()?;
    plain(move |arm: Arm| {
        let mut pages = Pages::new(1, PROT_READ, MAP_SHARED, file.as_raw_fd())?;
        // SAFETY: this mapping, which may be moved.
        let grown = arm.during(|| unsafe { libc::mremap(pages.0, PAGE, 2 * PAGE, libc::MREMAP_MAYMOVE) });
        if grown == MAP_FAILED {
            return Err(Errno::last().into());
        }
        (pages.0, pages.1) = (grown, 2 * PAGE);
        Ok(())
    })
}

/// The heap's end, moved up and back.
fn brk() -> Result<Doing, Errno> {
    doing(|arm: Arm| {
        let brk = |to: usize| {
            // SAFETY: the break only grows, and goes back to where it was; the allocator does not run meanwhile.
            usize::try_from(unsafe { libc::syscall(libc::SYS_brk, to) }).unwrap_or(0)
        };
        let (end, grown, back) = arm.during(|| {
            let end = brk(0);
            (end, brk(end + PAGE), brk(end))
        });
        Ok(if grown == end + PAGE && back == end { "ok" } else { "the break stays" }.to_owned())
    })
}

/// Memory that is made executable.
fn protecting(call: libc::c_long) -> Result<Doing, Errno> {
    plain(move |arm: Arm| {
        let pages = Pages::new(1, USUAL, MAP_PRIVATE | MAP_ANONYMOUS, -1)?;
        let access = usize::try_from(PROT_READ | PROT_EXEC).unwrap_or(0);
        let no_key = usize::MAX; // of mprotect(2) no argument
        // SAFETY: this mapping, and numbers.
        Ok(arm.during(|| unsafe { syscall(call, [pages.0.addr(), PAGE, access, no_key, 0, 0]) }).map(drop)?)
    })
}
