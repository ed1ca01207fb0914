//! What is known of files: attributes, permissions, watches.

use super::{Act, act};
use crate::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::unistd::{AccessFlags, Gid, Uid, access, chown, truncate};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;

const PATH: &str = "/tmp/attributes";

fn made() -> Result<(), Errno> {
    File::create(PATH)?;
    Ok(())
}

/// `stat(2)`.
///
/// # Errors
/// The errno of making the file.
pub fn stat() -> Result<Act, Errno> {
    made()?;
    act(|arm| arm.during(|| nix::sys::stat::stat(PATH).map_err(Errno::from)))
}

/// `access(2)`.
///
/// # Errors
/// The errno of making the file.
pub fn check_access() -> Result<Act, Errno> {
    made()?;
    act(|arm| arm.during(|| access(PATH, AccessFlags::R_OK).map_err(Errno::from)))
}

/// `chmod(2)`.
///
/// # Errors
/// The errno of making the file.
pub fn chmod() -> Result<Act, Errno> {
    made()?;
    act(|arm| arm.during(|| fs::set_permissions(PATH, Permissions::from_mode(0o640)).map_err(Errno::from)))
}

/// `chown(2)`.
///
/// # Errors
/// The errno of making the file.
pub fn change_owner() -> Result<Act, Errno> {
    made()?;
    act(|arm| arm.during(|| chown(PATH, Some(Uid::from_raw(0)), Some(Gid::from_raw(0))).map_err(Errno::from)))
}

/// `truncate(2)`.
///
/// # Errors
/// The errno of making the file.
pub fn cut() -> Result<Act, Errno> {
    made()?;
    act(|arm| arm.during(|| truncate(PATH, 3).map_err(Errno::from)))
}

/// `inotify_add_watch(2)`.
///
/// # Errors
/// The errno of making the file or the inotify instance.
pub fn watch() -> Result<Act, Errno> {
    made()?;
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    act(move |arm| {
        let watch = arm.during(|| inotify.add_watch(PATH, AddWatchFlags::IN_OPEN))?;
        inotify.rm_watch(watch).map_err(Errno::from)
    })
}

/// `chroot(2)` to where the root already is.
///
/// # Errors
/// None.
pub fn chroot() -> Result<Act, Errno> {
    act(|arm| arm.during(|| nix::unistd::chroot("/").map_err(Errno::from)))
}
