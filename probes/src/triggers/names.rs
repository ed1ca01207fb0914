//! Names in directories: making, removing, renaming, linking.

use super::{Act, Arm, act, vacate};
use crate::errno::Errno;
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::mkfifo;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::symlink;

/// An act that makes `path` by `make` and removes it again with `remove`, outside the window.
fn making<T>(
    path: &'static str,
    make: impl Fn(&'static str) -> io::Result<T> + 'static,
    remove: impl Fn(&'static str) -> io::Result<()> + 'static,
) -> Result<Act, Errno> {
    act(move |arm: Arm| {
        let result = arm.during(|| make(path).map_err(Errno::from));
        if result.is_ok() {
            remove(path)?;
        }
        result.map(drop)
    })
}

/// An act that removes what `make` has made; what it did not remove is removed afterwards.
fn removing(
    path: &'static str,
    make: impl Fn(&'static str) -> io::Result<()> + 'static,
    remove: impl Fn(&'static str) -> io::Result<()> + 'static,
) -> Result<Act, Errno> {
    act(move |arm: Arm| {
        make(path)?;
        let result = arm.during(|| remove(path).map_err(Errno::from));
        if result.is_err() {
            remove(path)?;
        }
        result
    })
}

/// `open(2)` with `O_CREAT` of a name that is free.
///
/// # Errors
/// None.
pub fn create() -> Result<Act, Errno> {
    making("/tmp/created", |path| OpenOptions::new().write(true).create_new(true).open(path), fs::remove_file)
}

/// `mkdir(2)`.
///
/// # Errors
/// None.
pub fn mkdir() -> Result<Act, Errno> {
    making("/tmp/folder", fs::create_dir, fs::remove_dir)
}

/// `mkdir(2)` in the cgroup hierarchy.
///
/// # Errors
/// None.
pub fn mkdir_cgroup() -> Result<Act, Errno> {
    making("/sys/fs/cgroup/conform", fs::create_dir, fs::remove_dir)
}

/// `rmdir(2)`.
///
/// # Errors
/// None.
pub fn rmdir() -> Result<Act, Errno> {
    removing("/tmp/folder", fs::create_dir, fs::remove_dir)
}

/// `unlink(2)` of the only name of a file that nobody has open, which ends the file too.
///
/// # Errors
/// None.
pub fn unlink() -> Result<Act, Errno> {
    removing("/tmp/unlinked", |path| File::create(path).map(drop), fs::remove_file)
}

/// `symlink(2)`.
///
/// # Errors
/// None.
pub fn make_symlink() -> Result<Act, Errno> {
    making("/tmp/symbolic", |path| symlink("elsewhere", path), fs::remove_file)
}

/// `link(2)`.
///
/// # Errors
/// The errno of making the file.
pub fn link() -> Result<Act, Errno> {
    File::create("/tmp/first")?;
    making("/tmp/second", |path| fs::hard_link("/tmp/first", path), fs::remove_file)
}

/// `mknod(2)` of a fifo.
///
/// # Errors
/// None.
pub fn make_fifo() -> Result<Act, Errno> {
    making("/tmp/fifo", |path| mkfifo(path, Mode::S_IRUSR).map_err(io::Error::from), fs::remove_file)
}

/// `mknod(2)` of an ordinary file, which is a creation to the kernel.
///
/// # Errors
/// None.
pub fn mknod_file() -> Result<Act, Errno> {
    making(
        "/tmp/ordinary",
        |path| mknod(path, SFlag::S_IFREG, Mode::S_IRUSR, 0).map_err(io::Error::from),
        fs::remove_file,
    )
}

/// `rename(2)`.
///
/// # Errors
/// The errno of making the file.
pub fn rename() -> Result<Act, Errno> {
    File::create("/tmp/old")?;
    act(|arm| {
        let result = arm.during(|| fs::rename("/tmp/old", "/tmp/new").map_err(Errno::from));
        if result.is_ok() {
            fs::rename("/tmp/new", "/tmp/old")?;
        }
        result
    })
}

/// `readlink(2)`.
///
/// # Errors
/// The errno of making the link.
pub fn readlink() -> Result<Act, Errno> {
    vacate("/tmp/read-link")?;
    symlink("elsewhere", "/tmp/read-link")?;
    act(|arm| arm.during(|| fs::read_link("/tmp/read-link").map_err(Errno::from)))
}

/// `open(2)` through a symbolic link.
///
/// # Errors
/// The errno of making the link or the file.
pub fn follow() -> Result<Act, Errno> {
    File::create("/tmp/behind")?;
    vacate("/tmp/followed")?;
    symlink("/tmp/behind", "/tmp/followed")?;
    act(|arm| arm.during(|| File::open("/tmp/followed").map_err(Errno::from)))
}

/// `open(2)` with `O_TMPFILE`: a file without a name.
///
/// # Errors
/// None.
pub fn tmpfile() -> Result<Act, Errno> {
    act(|arm| {
        arm.during(|| {
            nix::fcntl::open("/tmp", nix::fcntl::OFlag::O_TMPFILE | nix::fcntl::OFlag::O_RDWR, Mode::S_IRUSR)
                .map_err(Errno::from)
        })
    })
}
