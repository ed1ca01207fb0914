//! A cache of files from elsewhere, as the daemon of cachefiles makes one: a directory that it binds to a device.

use super::{Act, Arm, act, ext4, modules};
use crate::errno::Errno;
use std::fs::{self, OpenOptions};
use std::io::Write;

/// The directory, the root of a file system that can do what a cache needs (6.14 fs/cachefiles/cache.c,
/// `cachefiles_add_cache`).
pub const FOLDER: &str = "/tmp/cache";

/// Mounts the file system, once for a probe's process.
fn mounted() -> Result<(), Errno> {
    modules::load(&["netfs", "fscache", "cachefiles"])?;
    if fs::exists(FOLDER)? {
        return Ok(());
    }
    let result = ext4::mounted("/tmp/cache.ext4", FOLDER, None, ext4::PLAIN);
    if result.is_err() {
        let _ = fs::remove_dir(FOLDER); // so that the next recipe tries again, if it was made
    }
    result.map(drop)
}

/// Opens the device, gives it `commands`, and then the directory becomes a cache. It is one until the device is closed.
fn binding(commands: &'static [&'static str]) -> Result<Act, Errno> {
    mounted()?;
    act(move |arm: Arm| {
        let mut device = OpenOptions::new().read(true).write(true).open("/dev/cachefiles")?;
        for command in commands {
            device.write_all(command.as_bytes())?;
        }
        arm.during(|| device.write_all(b"bind").map_err(Errno::from))
    })
}

/// `write(2)` of the command `bind`.
///
/// # Errors
/// The errno of making the file system.
pub fn bind() -> Result<Act, Errno> {
    binding(&["dir /tmp/cache", "tag conform"])
}

/// The same of a cache that is to be used under a label: one that AppArmor knows, and without it any would do.
///
/// # Errors
/// The errno of making the file system.
pub fn bind_labelled() -> Result<Act, Errno> {
    binding(&["dir /tmp/cache", "tag conform", "secctx unconfined"])
}
