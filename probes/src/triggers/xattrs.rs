//! Extended attributes and access control lists, of files on tmpfs.

use super::children::in_child;
use super::{Act, Seen, act, act_seen};
use crate::errno::Errno;
use std::ffi::CStr;
use std::fs::File;

const PATH: &CStr = c"/tmp/extended";
/// Of the names that tmpfs stores, those that every version of the suite stores.
const NAME: &CStr = c"trusted.conform";

fn made() -> Result<(), Errno> {
    File::create("/tmp/extended")?;
    Ok(())
}

fn set(name: &CStr, value: &[u8]) -> Result<(), Errno> {
    // SAFETY: two terminated strings and a slice with its length.
    let result =
        unsafe { libc::setxattr(PATH.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
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
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for tag in [1_u16, 4, 0x20] {
        acl.extend(tag.to_le_bytes());
        acl.extend(4_u16.to_le_bytes());
        acl.extend(u32::MAX.to_le_bytes());
    }
    act(move |arm| arm.during(|| set(c"system.posix_acl_access", &acl)))
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
