//! Changing what is said of a file: its extended attributes, and its mode.

use super::Subject;
use super::way::{Doing, Failed, Way, doing};
use crate::errno::Errno;
use crate::spec::source;
use crate::triggers::files::index;
use crate::triggers::uring::{Request, Ring};
use crate::triggers::xattrs::access_list;
use crate::triggers::{Arm, syscall};
use std::ffi::CStr;
use std::fs::{self, File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

pub(super) const EXTENDED: Subject = Subject {
    name: "inode_setxattr",
    what: "set an extended attribute",
    hooks: &["inode_setxattr", "inode_set_acl", "inode_setattr"],
    ways: &[
        Way::new("setxattr", || attribute(|_| set(NAME, VALUE))),
        Way::new("fsetxattr", || attribute(fset)),
        Way::new("setxattrat", || attribute(|_| set_at(NAME, VALUE))).lacking(&[libc::ENOSYS]),
        Way::new("io_uring-fsetxattr", || attribute(set_by_ring)).lacking(&[libc::EINVAL]).by_worker(),
        Way::new("setxattr-of-an-access-list", || mode(|_| set(ACL, &access_list()))),
    ],
    sources: &[
        source("7.3", "fs/xattr.c", "vfs_setxattr"),
        source("7.3", "fs/posix_acl.c", "vfs_set_acl"),
        source("7.3", "io_uring/xattr.c", "io_fsetxattr"),
        source("6.1", "fs/xattr.c", "vfs_setxattr"),
    ],
};

pub(super) const MODE: Subject = Subject {
    name: "path_chmod",
    what: "change the mode of a file",
    hooks: &["path_chmod", "inode_setattr", "inode_setxattr", "inode_set_acl"],
    ways: &[
        Way::new("chmod", || mode(|_| Ok(fs::set_permissions(PATH, Permissions::from_mode(READABLE))?))),
        Way::new("fchmod", || mode(|file| Ok(file.set_permissions(Permissions::from_mode(READABLE))?))),
        Way::new("fchmodat2", || mode(|_| fchmodat2())).lacking(&[libc::ENOSYS]),
        Way::new("setxattr-of-an-access-list", || mode(|_| set(ACL, &access_list()))),
    ],
    sources: &[
        source("7.3", "fs/open.c", "chmod_common"),
        source("7.3", "fs/posix_acl.c", "vfs_set_acl"),
        source("6.1", "fs/xattr.c", "vfs_setxattr"),
    ],
};

const PATH: &str = "/tmp/described";
const FILE: &CStr = c"/tmp/described";
/// An attribute that tmpfs stores for root, and its value.
const NAME: &CStr = c"trusted.conform";
const VALUE: &[u8] = b"value";
/// The name of the access control list, and the mode that the one of [`access_list`] makes.
const ACL: &CStr = c"system.posix_acl_access";
const READABLE: u32 = 0o444;
/// include/uapi/linux/io_uring.h: IORING_OP_FSETXATTR.
const FSETXATTR: u8 = 41;
/// arch/x86/entry/syscalls/syscall_64.tbl: fchmodat2 (6.6), setxattrat (6.13).
const FCHMODAT2: libc::c_long = 452;
const SETXATTRAT: libc::c_long = 463;
/// include/uapi/linux/fcntl.h: AT_FDCWD, as an argument.
const HERE: usize = usize::MAX - 99;

/// A new file.
fn file() -> Result<File, Errno> {
    let _old = fs::remove_file(PATH);
    Ok(File::create(PATH)?)
}

/// Does `call` to a new file, and looks whether `there` says that it has done it, also where it fails.
fn changed(call: fn(&File) -> Result<(), Errno>, there: fn() -> Result<bool, Errno>) -> Result<Doing, Errno> {
    doing(move |arm: Arm| {
        let file = file()?;
        let result = arm.during(|| call(&file));
        match (result, there()?) {
            (Err(errno), true) => Ok(format!("{errno}, and it is done")),
            (Err(errno), false) => Err(Failed::from(errno)),
            (Ok(()), true) => Ok("it is done".to_owned()),
            (Ok(()), false) => Ok("nothing is done".to_owned()),
        }
    })
}

fn attribute(call: fn(&File) -> Result<(), Errno>) -> Result<Doing, Errno> {
    changed(call, || {
        let mut value = [0_u8; 16];
        let room = value.as_mut_ptr().cast();
        // SAFETY: terminated strings, and a buffer with its length.
        let size = unsafe { libc::getxattr(FILE.as_ptr(), NAME.as_ptr(), room, value.len()) };
        match Errno::result(size) {
            Ok(size) => Ok(value.get(..usize::try_from(size).unwrap_or(0)) == Some(VALUE)),
            Err(errno) if errno.raw() == libc::ENODATA => Ok(false),
            Err(errno) => Err(errno),
        }
    })
}

fn mode(call: fn(&File) -> Result<(), Errno>) -> Result<Doing, Errno> {
    changed(call, || Ok(fs::metadata(PATH)?.mode() & 0o777 == READABLE))
}

fn set(name: &CStr, value: &[u8]) -> Result<(), Errno> {
    let (data, size) = (value.as_ptr().cast(), value.len());
    // SAFETY: terminated strings, and a value with its size.
    Errno::result(unsafe { libc::setxattr(FILE.as_ptr(), name.as_ptr(), data, size, 0) }).map(drop)
}

fn fset(file: &File) -> Result<(), Errno> {
    let (data, size) = (VALUE.as_ptr().cast(), VALUE.len());
    // SAFETY: a descriptor, a terminated string, and a value with its size.
    Errno::result(unsafe { libc::fsetxattr(file.as_raw_fd(), NAME.as_ptr(), data, size, 0) }).map(drop)
}

fn set_at(name: &CStr, value: &[u8]) -> Result<(), Errno> {
    // struct xattr_args: the value's address; its size, and behind it flags.
    let value = [value.as_ptr().addr(), value.len()];
    let args = [HERE, FILE.as_ptr().addr(), 0, name.as_ptr().addr(), value.as_ptr().addr(), 16];
    // SAFETY: terminated strings, and a structure with its size that names a value with its own.
    unsafe { syscall(SETXATTRAT, args) }.map(drop)
}

fn set_by_ring(file: &File) -> Result<(), Errno> {
    let request = Request {
        operation: FSETXATTR,
        fd: file.as_raw_fd(),
        address: NAME.as_ptr().addr(),
        offset: VALUE.as_ptr().addr(),
        length: u32::try_from(VALUE.len()).unwrap_or(0),
        ..Request::default()
    };
    Ring::new()?.request(request).map(drop)
}

fn fchmodat2() -> Result<(), Errno> {
    let folder = File::open("/tmp")?;
    let mode = usize::try_from(READABLE).unwrap_or(0);
    // SAFETY: a descriptor, a terminated path, and numbers.
    unsafe { syscall(FCHMODAT2, [index(&folder), c"described".as_ptr().addr(), mode, 0, 0, 0]) }.map(drop)
}
