//! Overlays: a directory that is read, and one above it into which what changes is copied.

use super::{Act, Arm, act, modules};
use crate::errno::Errno;
use nix::mount::{MsFlags, mount};
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;

const LOWER: &str = "/tmp/lower";
const MERGED: &str = "/tmp/merged";

/// Mounts one over a fresh directory of `/tmp`, once for a probe's process.
fn mounted() -> Result<(), Errno> {
    modules::load(&["overlay"])?;
    if fs::exists(MERGED)? {
        return Ok(());
    }
    for folder in [LOWER, "/tmp/upper", "/tmp/work", MERGED] {
        fs::create_dir_all(folder)?;
    }
    let options = "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work";
    let result = mount(Some("overlay"), MERGED, Some("overlay"), MsFlags::empty(), Some(options));
    if result.is_err() {
        fs::remove_dir(MERGED)?; // so that the next recipe tries again
    }
    result.map_err(Errno::from)
}

/// `open(2)` for writing of a file of the lower directory, each time another: it is copied up.
///
/// # Errors
/// The errno of mounting.
pub fn copy_up() -> Result<Act, Errno> {
    mounted()?;
    let mut number = 0;
    act(move |arm: Arm| {
        number += 1;
        fs::write(format!("{LOWER}/{number}"), b"content")?;
        let path = format!("{MERGED}/{number}");
        arm.during(|| OpenOptions::new().write(true).open(&path).map_err(Errno::from))
    })
}

/// The same, of a file with an extended attribute.
///
/// # Errors
/// The errno of mounting.
pub fn copy_up_attribute() -> Result<Act, Errno> {
    mounted()?;
    let mut number = 0;
    act(move |arm: Arm| {
        number += 1;
        let lower = CString::new(format!("{LOWER}/with-{number}")).map_err(|_| Errno::EINVAL)?;
        File::create(lower.to_string_lossy().as_ref())?;
        let (name, value) = (c"trusted.conform".as_ptr(), c"value".as_ptr().cast());
        // SAFETY: three terminated strings, of the last of which 5 bytes are read.
        Errno::result(unsafe { libc::setxattr(lower.as_ptr(), name, value, 5, 0) })?;
        let path = format!("{MERGED}/with-{number}");
        arm.during(|| OpenOptions::new().write(true).open(&path).map_err(Errno::from))
    })
}

/// `open(2)` that makes a file in the upper directory.
///
/// # Errors
/// The errno of mounting.
pub fn create() -> Result<Act, Errno> {
    mounted()?;
    act(|arm: Arm| {
        let path = "/tmp/merged/created";
        arm.during(|| File::create_new(path).map_err(Errno::from))?;
        fs::remove_file(path).map_err(Errno::from)
    })
}

fn opened() -> Result<File, Errno> {
    Ok(File::open("/tmp/merged/read")?)
}

/// `open(2)` and `read(2)` of a file of the lower directory, for which there is a file of the kernel's own.
///
/// # Errors
/// The errno of mounting.
pub fn open_and_read() -> Result<Act, Errno> {
    mounted()?;
    fs::write("/tmp/lower/read", [0; 4096])?;
    act(|arm: Arm| {
        arm.during(|| {
            let file = opened()?;
            nix::unistd::read(&file, &mut [0])?;
            Ok(file)
        })
    })
}

/// `close(2)` of such a file.
///
/// # Errors
/// The errno of mounting.
pub fn close() -> Result<Act, Errno> {
    mounted()?;
    fs::write("/tmp/lower/read", [0; 4096])?;
    act(|arm: Arm| {
        let file = opened()?;
        arm.during(|| drop(file));
        Ok(())
    })
}

/// `mmap(2)` of such a file.
///
/// # Errors
/// The errno of mounting.
pub fn map() -> Result<Act, Errno> {
    mounted()?;
    fs::write("/tmp/lower/read", [0; 4096])?;
    act(|arm: Arm| {
        let file = opened()?;
        arm.during(|| {
            let (prot, flags) = (libc::PROT_READ, libc::MAP_PRIVATE);
            // SAFETY: a new mapping wherever the kernel likes, which nobody else knows.
            let address = unsafe { libc::mmap(std::ptr::null_mut(), 4096, prot, flags, file.as_raw_fd(), 0) };
            if address == libc::MAP_FAILED {
                return Err(Errno::last());
            }
            // SAFETY: the mapping made just now.
            Errno::result(unsafe { libc::munmap(address, 4096) })
        })
    })
}
