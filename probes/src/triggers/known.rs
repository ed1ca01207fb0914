//! What user space knows by itself: numbers that a program's reading of an argument is held against.

use std::os::unix::fs::MetadataExt;

/// The number of a file's inode, following links.
#[must_use]
pub fn inode(path: &str) -> Option<u64> {
    std::fs::metadata(path).ok().map(|it| it.ino())
}

/// The number of the inode of a name, which may be a link.
#[must_use]
pub fn inode_of_name(path: &str) -> Option<u64> {
    std::fs::symlink_metadata(path).ok().map(|it| it.ino())
}

/// The calling process.
#[must_use]
pub fn pid() -> Option<u64> {
    Some(u64::from(std::process::id()))
}
