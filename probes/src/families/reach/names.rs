//! Names of files: giving another one, and making one.

use super::Subject;
use super::way::{Doing, Failed, Step, Way, doing};
use crate::bpf::{self, MapSpec};
use crate::errno::Errno;
use crate::spec::source;
use crate::triggers::files::owned;
use crate::triggers::uring::{Request, Ring};
use crate::triggers::{Arm, syscall, vacate};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixDatagram;

pub(super) const RENAMING: Subject = Subject {
    name: "path_rename",
    what: "give a file another name",
    hooks: &["path_rename", "inode_rename"],
    ways: &[
        Way::new("rename", || renamed(false, || rename(0))),
        Way::new("rename-over-another", || renamed(true, || rename(0))),
        Way::new("renameat2-RENAME_NOREPLACE", || renamed(false, || rename(NOREPLACE))),
        Way::new("renameat2-RENAME_EXCHANGE", || renamed(true, || rename(EXCHANGE))).call_by_call(),
        Way::new("renameat2-RENAME_WHITEOUT", || renamed(false, || rename(WHITEOUT))),
        Way::new("link-and-unlink", || renamed(false, link_and_unlink)),
    ],
    sources: &[
        source("7.3", "fs/namei.c", "vfs_rename"),
        source("7.3", "security/security.c", "security_inode_rename"),
        source("7.3", "security/security.c", "security_path_rename"),
        source("5.18", "security/security.c", "security_path_rename"),
        source("5.19", "security/security.c", "security_path_rename"),
    ],
};

pub(super) const MAKING: Subject = Subject {
    name: "path_mknod",
    what: "make a file that is no folder",
    hooks: &["path_mknod", "inode_create", "inode_mknod"],
    ways: &[
        Way::new("open-O_CREAT", || made(|| open(libc::O_CREAT | libc::O_EXCL))),
        Way::new("mknod-of-a-file", || made(|| mknod(libc::S_IFREG))),
        Way::new("mknod-of-a-fifo", || made(|| mknod(libc::S_IFIFO))),
        Way::new("bind-of-a-local-socket", || made(|| Ok(UnixDatagram::bind(NEW).map(drop)?))),
        Way::new("BPF_OBJ_PIN", pinned),
        Way::new("mq_open", queue).lacking(&[libc::ENOSYS]),
        Way::new("open-O_TMPFILE-and-linkat", || made(tmpfile)),
    ],
    sources: &[
        source("7.3", "fs/namei.c", "may_o_create"),
        source("7.3", "fs/namei.c", "filename_mknodat"),
        source("7.3", "fs/namei.c", "vfs_mkobj"),
        source("7.3", "fs/namei.c", "vfs_tmpfile"),
        source("7.3", "net/unix/af_unix.c", "unix_bind_bsd"),
        source("7.3", "kernel/bpf/inode.c", "bpf_obj_do_pin"),
    ],
};

pub(super) const UNLINKING: Subject = Subject {
    name: "path_unlink",
    what: "take the name of a file away",
    hooks: &["path_unlink", "inode_unlink", "path_rename", "inode_rename"],
    ways: &[
        Way::new("unlink", || gone(|| Ok(fs::remove_file(OLD)?))),
        Way::new("rename-of-another-over-it", || gone(|| Ok(fs::rename(NEW, OLD)?))),
        Way::new("rename-to-another-name", || gone(|| Ok(fs::rename(OLD, NEW)?))),
        Way::new("io_uring-unlinkat", || gone(unlink_by_ring)).lacking(&[libc::EINVAL]).by_worker(),
    ],
    sources: &[
        source("7.3", "fs/namei.c", "vfs_unlink"),
        source("7.3", "fs/namei.c", "vfs_rename"),
        source("7.3", "io_uring/fs.c", "io_unlinkat"),
    ],
};

/// include/uapi/linux/io_uring.h: IORING_OP_UNLINKAT.
const UNLINKAT: u8 = 36;
/// include/uapi/linux/fs.h: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT.
const NOREPLACE: usize = 1;
const EXCHANGE: usize = 2;
const WHITEOUT: usize = 4;
/// include/uapi/linux/fcntl.h: AT_FDCWD, as an argument.
const HERE: usize = usize::MAX - 99;

const OLD: &str = "/tmp/old";
const NEW: &str = "/tmp/new";

/// What has a name.
fn at(path: &str) -> Result<&'static str, Errno> {
    Ok(match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "nothing",
        Err(error) => return Err(error.into()),
        Ok(facts) if facts.file_type().is_char_device() => "a whiteout",
        Ok(facts) if facts.len() == 1 => "the file",
        Ok(_) => "the other",
    })
}

fn state() -> Result<String, Errno> {
    Ok(format!("{} at the old name, {} at the new", at(OLD)?, at(NEW)?))
}

/// Renames a file, to the name of another one if there is to be one.
fn renamed(other: bool, call: fn() -> Result<(), Failed>) -> Result<Doing, Errno> {
    doing(move |arm: Arm| {
        vacate(OLD)?;
        vacate(NEW)?;
        fs::write(OLD, b"1")?;
        if other {
            fs::write(NEW, b"22")?;
        }
        let before = state()?;
        let result = arm.during(call);
        let after = state()?;
        match result {
            Err(_) if after != before => Ok(format!("an error, and {after}")),
            Err(failed) => Err(failed),
            Ok(()) => Ok(after),
        }
    })
}

fn rename(flags: usize) -> Result<(), Failed> {
    let args = [HERE, c"/tmp/old".as_ptr().addr(), HERE, c"/tmp/new".as_ptr().addr(), flags, 0];
    // SAFETY: terminated paths and numbers.
    Ok(unsafe { syscall(libc::SYS_renameat2, args) }.map(drop)?)
}

/// Does `call`, after which the file is to have lost its name; another one has the other.
fn gone(call: fn() -> Result<(), Failed>) -> Result<Doing, Errno> {
    doing(move |arm: Arm| {
        fs::write(OLD, b"1")?;
        fs::write(NEW, b"22")?;
        let result = arm.during(call);
        let there = at(OLD)? == "the file";
        match result {
            Err(_) if !there => Ok("an error, and it is gone".to_owned()),
            Err(failed) => Err(failed),
            Ok(()) => Ok(if there { "it is there" } else { "it is gone" }.to_owned()),
        }
    })
}

fn unlink_by_ring() -> Result<(), Failed> {
    let address = c"/tmp/old".as_ptr().addr();
    let request = Request { operation: UNLINKAT, fd: libc::AT_FDCWD, address, ..Request::default() };
    Ok(Ring::new()?.request(request).map(drop)?)
}

fn link_and_unlink() -> Result<(), Failed> {
    fs::hard_link(OLD, NEW).step("link")?;
    fs::remove_file(OLD).step("unlink")
}

/// Makes something at [`NEW`].
fn made(call: fn() -> Result<(), Failed>) -> Result<Doing, Errno> {
    doing(move |arm: Arm| {
        vacate(NEW)?;
        let result = arm.during(call);
        let there = at(NEW)? != "nothing";
        match result {
            Err(_) if there => Ok("an error, and it is there".to_owned()),
            Err(failed) => Err(failed),
            Ok(()) => Ok(if there { "it is there" } else { "nothing is there" }.to_owned()),
        }
    })
}

fn open(flags: i32) -> Result<(), Failed> {
    // SAFETY: a terminated path and numbers.
    let fd = unsafe { libc::open(c"/tmp/new".as_ptr(), flags | libc::O_WRONLY | libc::O_CLOEXEC, 0o600) };
    Ok(Errno::result(fd).map(|fd| drop(owned(fd.into())))?)
}

fn mknod(kind: libc::mode_t) -> Result<(), Failed> {
    // SAFETY: a terminated path and numbers.
    Ok(Errno::result(unsafe { libc::mknod(c"/tmp/new".as_ptr(), kind | 0o600, 0) }).map(drop)?)
}

/// A file without a name, which is then given one.
fn tmpfile() -> Result<(), Failed> {
    let flags = libc::O_TMPFILE | libc::O_WRONLY | libc::O_CLOEXEC;
    // SAFETY: a terminated path and numbers.
    let file =
        owned(Errno::result(unsafe { libc::open(c"/tmp".as_ptr(), flags, 0o600) }).step("open")?.into());
    let (empty, new) = (c"".as_ptr(), c"/tmp/new".as_ptr());
    // SAFETY: a descriptor, terminated paths, and numbers.
    let linked = unsafe { libc::linkat(file.as_raw_fd(), empty, libc::AT_FDCWD, new, libc::AT_EMPTY_PATH) };
    Errno::result(linked).step("linkat").map(drop)
}

/// A map in the file system for BPF objects.
fn pinned() -> Result<Doing, Errno> {
    let map = bpf::map_create(&MapSpec::array(8, 1))?;
    doing(move |arm: Arm| {
        let path = format!("/sys/fs/bpf/reach-{}", std::process::id());
        let name = std::ffi::CString::new(path.clone()).map_err(|_| Errno::EINVAL)?;
        arm.during(|| bpf::obj_pin(&map, &name))?;
        fs::remove_file(path).step("unlink")?;
        Ok("it is there".to_owned())
    })
}

/// A message queue, which is a file in a file system of its own.
fn queue() -> Result<Doing, Errno> {
    doing(|arm: Arm| {
        let name = c"conform-reach";
        let flags = usize::try_from(libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC).unwrap_or(0);
        let args = [name.as_ptr().addr(), flags, 0o600, 0, 0, 0];
        // SAFETY: a terminated name, numbers, and no attributes.
        drop(owned(arm.during(|| unsafe { syscall(libc::SYS_mq_open, args) })?));
        // SAFETY: a terminated name.
        unsafe { syscall(libc::SYS_mq_unlink, [name.as_ptr().addr(), 0, 0, 0, 0, 0]) }.step("mq_unlink")?;
        Ok("it is there".to_owned())
    })
}
