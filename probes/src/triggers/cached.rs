//! A file on a file system with a disk behind it, whose content the kernel has in memory or has to read first.

use super::files::index;
use super::{LATE, ext4, syscall};
use crate::errno::Errno;
use crate::patience::Patience;
use memmap2::MmapOptions;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// The file.
pub const FILE: &str = "/tmp/disk/file";
/// Where the file system is.
const FOLDER: &str = "/tmp/disk";
/// Bytes of a page, which has all of the file.
const PAGE: usize = 4096;

/// Mounts the file system, once for a probe's process.
fn mounted() -> Result<(), Errno> {
    if fs::exists(FOLDER)? {
        return Ok(());
    }
    let result = ext4::mounted("/tmp/disk.ext4", FOLDER, None, ext4::PLAIN);
    if result.is_err() {
        let _ = fs::remove_dir(FOLDER); // so that the next one tries again, if it was made
    }
    result.map(drop)
}

/// Makes the file, and has it written to the disk: only what is there too can leave the memory.
///
/// # Errors
/// The errno of making the file system or of writing the file.
pub fn make_file(content: &[u8]) -> Result<(), Errno> {
    mounted()?;
    let mut file = File::create(FILE)?;
    file.write_all(content)?;
    Ok(file.sync_all()?)
}

/// Whether the file's content is in memory, by `mincore(2)`, which brings nothing there; `preadv2(2)` with `RWF_NOWAIT` has
/// the kernel begin to read it (6.12 mm/filemap.c, `filemap_get_pages`).
///
/// # Errors
/// The errno of opening or mapping the file, or of asking.
pub fn is_in_memory() -> Result<bool, Errno> {
    let file = File::open(FILE)?;
    // SAFETY: the mapping is neither read nor written.
    let mapping = unsafe { MmapOptions::new().len(PAGE).map(&file) }?;
    let mut resident = [0_u8];
    let (at, pages) = (mapping.as_ptr().addr(), resident.as_mut_ptr().expose_provenance());
    // SAFETY: a mapping of one page, and a byte for it.
    unsafe { syscall(libc::SYS_mincore, [at, PAGE, pages, 0, 0, 0]) }?;
    Ok(resident[0] & 1 == 1)
}

/// `FIONREAD` on the file.
fn ask(file: &File) -> Result<(), Errno> {
    let mut size: libc::c_int = 0;
    let at = (&raw mut size).expose_provenance();
    // SAFETY: the request writes the number that it is given.
    unsafe {
        syscall(libc::SYS_ioctl, [index(file), usize::try_from(libc::FIONREAD).unwrap_or(0), at, 0, 0, 0])
    }
    .map(drop)
}

/// `ioctl(2)` on the file when its content is in memory.
///
/// # Errors
/// The errno of reading it, of the call, or the one for what was waited for in vain.
pub fn ask_when_in_memory() -> Result<(), Errno> {
    fs::read(FILE)?;
    let file = File::open(FILE)?;
    if is_in_memory()? { ask(&file) } else { Err(LATE) }
}

/// `ioctl(2)` on the file when its content is not in memory.
///
/// # Errors
/// As [`ask_when_in_memory`].
pub fn ask_when_not_in_memory() -> Result<(), Errno> {
    let file = File::open(FILE)?;
    let mut gone = false;
    // What somebody else looks at just then stays.
    Patience::new(Duration::from_secs(5)).until(|| {
        // SAFETY: numbers alone.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        gone = is_in_memory() == Ok(false);
        gone
    });
    if gone { ask(&file) } else { Err(LATE) }
}
