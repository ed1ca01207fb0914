//! Mounting, in the probe's own mount namespace.

use super::{Act, Arm, act};
use crate::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::statfs;
use std::fs;

const PATH: &str = "/tmp/mounted";

fn mount_tmpfs(flags: MsFlags) -> Result<(), Errno> {
    mount(Some("conform"), PATH, Some("tmpfs"), flags, Some("size=64k")).map_err(Errno::from)
}

fn unmount() -> Result<(), Errno> {
    umount2(PATH, MntFlags::empty()).map_err(Errno::from)
}

/// `mount(2)` of a new tmpfs with one option.
///
/// # Errors
/// The errno of making the directory.
pub fn new_mount() -> Result<Act, Errno> {
    fs::create_dir_all(PATH)?;
    act(|arm: Arm| {
        arm.during(|| mount_tmpfs(MsFlags::empty()))?;
        unmount()
    })
}

/// `mount(2)` that changes a tmpfs.
///
/// # Errors
/// The errno of making the directory or mounting.
pub fn remount() -> Result<Act, Errno> {
    fs::create_dir_all(PATH)?;
    mount_tmpfs(MsFlags::empty())?;
    act(|arm: Arm| arm.during(|| mount_tmpfs(MsFlags::MS_REMOUNT)))
}

/// `umount(2)`, after which the file system ends.
///
/// # Errors
/// The errno of making the directory.
pub fn end_mount() -> Result<Act, Errno> {
    fs::create_dir_all(PATH)?;
    act(|arm: Arm| {
        mount_tmpfs(MsFlags::empty())?;
        let result = arm.during(unmount);
        if result.is_err() {
            unmount()?;
        }
        result
    })
}

/// `statfs(2)`.
///
/// # Errors
/// None.
pub fn stat_fs() -> Result<Act, Errno> {
    act(|arm: Arm| arm.during(|| statfs("/tmp").map_err(Errno::from)))
}
