//! Extended attributes and access control lists, of files on tmpfs.

use super::children::in_child;
use super::{Act, OK, Seen, act, act_seen};
use crate::errno::Errno;
use nix::mount::{MsFlags, mount};
use std::ffi::CStr;
use std::fs::File;

const PATH: &CStr = c"/tmp/extended";
/// Of the names that tmpfs stores, those that every version of the suite stores.
const NAME: &CStr = c"trusted.conform";
/// The name under which access control lists are set and read.
const ACL: &CStr = c"system.posix_acl_access";

fn made() -> Result<(), Errno> {
    File::create("/tmp/extended")?;
    Ok(())
}

fn set(name: &CStr, value: &[u8]) -> Result<(), Errno> {
    set_at(PATH, name, value)
}

pub(super) fn set_at(path: &CStr, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    // SAFETY: two terminated strings and a slice with its length.
    let result =
        unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result).map(drop)
}

/// `setxattr(2)`.
///
/// # Errors
/// The errno of making the file.
pub fn setxattr() -> Result<Act, Errno> {
    made()?;
    act(|arm| arm.during(|| set(NAME, b"value")))
}

/// `getxattr(2)`.
///
/// # Errors
/// The errno of making the file or its attribute.
pub fn getxattr() -> Result<Act, Errno> {
    made()?;
    set(NAME, b"value")?;
    act(|arm| {
        let mut value = [0_u8; 16];
        arm.during(|| {
            // SAFETY: two terminated strings and a buffer with its length.
            Errno::result(unsafe {
                libc::getxattr(PATH.as_ptr(), NAME.as_ptr(), value.as_mut_ptr().cast(), value.len())
            })
        })
    })
}

/// `listxattr(2)`.
///
/// # Errors
/// The errno of making the file.
pub fn listxattr() -> Result<Act, Errno> {
    made()?;
    act(|arm| {
        // SAFETY: a terminated string; a length of 0 asks for the size needed.
        arm.during(|| Errno::result(unsafe { libc::listxattr(PATH.as_ptr(), std::ptr::null_mut(), 0) }))
    })
}

/// `removexattr(2)`.
///
/// # Errors
/// The errno of making the file.
pub fn removexattr() -> Result<Act, Errno> {
    made()?;
    act(|arm| {
        set(NAME, b"value")?;
        // SAFETY: two terminated strings.
        arm.during(|| Errno::result(unsafe { libc::removexattr(PATH.as_ptr(), NAME.as_ptr()) }))
    })
}

/// `setxattr(2)` of an access control list: version 2, then the three entries that a mode amounts to
/// (include/uapi/linux/posix_acl_xattr.h).
///
/// # Errors
/// The errno of making the file.
pub fn set_acl() -> Result<Act, Errno> {
    made()?;
    let acl = access_list();
    act(move |arm| arm.during(|| set(ACL, &acl)))
}

/// An access control list that says no more than the mode 0444.
pub(crate) fn access_list() -> Vec<u8> {
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for tag in [1_u16, 4, 0x20] {
        acl.extend(tag.to_le_bytes());
        acl.extend(4_u16.to_le_bytes());
        acl.extend(u32::MAX.to_le_bytes());
    }
    acl
}

/// `getxattr(2)` of an access control list. One that says no more than the mode is not stored, and so is not there.
///
/// # Errors
/// The errno of making the file.
pub fn get_acl() -> Result<Act, Errno> {
    made()?;
    act_seen(|arm| {
        let result = arm.during(|| {
            // SAFETY: two terminated strings; a length of 0 asks for the size needed.
            Errno::result(unsafe { libc::getxattr(PATH.as_ptr(), ACL.as_ptr(), std::ptr::null_mut(), 0) })
        });
        match result {
            Err(errno) if errno.raw() == libc::ENODATA => Ok(Seen("ENODATA: there is none")),
            other => other.map(|_| OK),
        }
    })
}

/// `removexattr(2)` of an access control list.
///
/// # Errors
/// The errno of making the file.
pub fn remove_acl() -> Result<Act, Errno> {
    made()?;
    act(|arm| {
        // SAFETY: two terminated strings.
        arm.during(|| Errno::result(unsafe { libc::removexattr(PATH.as_ptr(), ACL.as_ptr()) }))
    })
}

/// `setxattr(2)` of a `security.` name on a file system that stores no attributes at all.
///
/// # Errors
/// The errno of mounting it.
pub fn unstored() -> Result<Act, Errno> {
    std::fs::create_dir_all("/tmp/plain")?;
    mount(None::<&str>, "/tmp/plain", Some("ramfs"), MsFlags::empty(), None::<&str>)?;
    act_seen(|arm| match arm.during(|| set_at(c"/tmp/plain", c"security.conform", b"value")) {
        Err(errno) if errno.raw() == libc::EOPNOTSUPP => Ok(Seen("EOPNOTSUPP: nobody stores it")),
        other => other.map(|()| OK),
    })
}

/// `chown(2)` of a file with capabilities, which go with the change of its owner.
///
/// # Errors
/// None.
pub fn strip_capabilities() -> Result<Act, Errno> {
    File::create("/tmp/capable")?;
    // include/uapi/linux/capability.h: revision 2, effective, CAP_CHOWN permitted.
    let mut value = 0x0200_0001_u32.to_le_bytes().to_vec();
    value.extend([1, 0, 0, 0]);
    value.extend([0; 12]);
    act_seen(move |arm| {
        set_at(c"/tmp/capable", c"security.capability", &value)?;
        let root = nix::unistd::Uid::from_raw(0);
        arm.during(|| nix::unistd::chown("/tmp/capable", Some(root), None))?;
        let name = c"security.capability";
        // SAFETY: two terminated strings; a length of 0 asks for the size needed.
        let left =
            unsafe { libc::getxattr(c"/tmp/capable".as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) };
        Ok(if left < 0 {
            Seen("ok, the capabilities are gone")
        } else {
            Seen("ok, the capabilities are left")
        })
    })
}

/// `setxattr(2)` of a `security.` name by a process without `CAP_SYS_ADMIN`, which capabilities alone refuse.
///
/// # Errors
/// The errno of making the file.
pub fn without_capability() -> Result<Act, Errno> {
    made()?;
    nix::unistd::chown(PATH, Some(nix::unistd::Uid::from_raw(1)), None)?;
    act_seen(|arm| {
        let result = in_child(|| {
            nix::unistd::setuid(nix::unistd::Uid::from_raw(1))?;
            arm.during(|| set(c"security.conform", b"value"))
        });
        match result {
            Ok(()) => Ok(Seen("allowed without the capability")),
            Err(Errno::EPERM) => Ok(Seen("EPERM for want of the capability")),
            Err(errno) => Err(errno),
        }
    })
}

/// `getxattr(2)` of a `security.` name on a file system that stores no attributes at all.
///
/// # Errors
/// The errno of mounting it.
pub fn not_stored() -> Result<Act, Errno> {
    std::fs::create_dir_all("/tmp/plain")?;
    mount(None::<&str>, "/tmp/plain", Some("ramfs"), MsFlags::empty(), None::<&str>)?;
    act_seen(|arm| {
        let (path, name) = (c"/tmp/plain", c"security.conform");
        let result = arm.during(|| {
            // SAFETY: two terminated strings; a length of 0 asks for the size needed.
            Errno::result(unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) })
        });
        match result {
            Err(errno) if errno.raw() == libc::EOPNOTSUPP => Ok(Seen("EOPNOTSUPP: nobody has it")),
            other => other.map(|_| OK),
        }
    })
}

/// `listxattr(2)` on a file system that stores no attributes at all.
///
/// # Errors
/// The errno of mounting it.
pub fn list_unstored() -> Result<Act, Errno> {
    std::fs::create_dir_all("/tmp/plain")?;
    mount(None::<&str>, "/tmp/plain", Some("ramfs"), MsFlags::empty(), None::<&str>)?;
    act(|arm| {
        arm.during(|| {
            // SAFETY: a terminated string; a length of 0 asks for the size needed.
            Errno::result(unsafe { libc::listxattr(c"/tmp/plain".as_ptr(), std::ptr::null_mut(), 0) })
        })
    })
}
