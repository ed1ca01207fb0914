//! A file with fs-verity.

use super::files::index;
use super::{ext4, syscall};
use crate::errno::Errno;
use std::fs::File;

/// The file.
pub const FILE: &str = "/tmp/verity/file";
/// What is in it.
const CONTENT: &[u8] = b"content\n";
/// Its digest: the SHA-256 of a `struct fsverity_descriptor` of SHA-256, blocks of 4 KiB, no salt, 8 bytes, and as root the
/// SHA-256 of the content's one block.
pub const DIGEST: &str = "8de6a0ac1443e672d6d6a479c9b7b314d6a61d6a9dd55e4b4a1e5506a2b7e6f7";
/// include/uapi/linux/fsverity.h: FS_IOC_ENABLE_VERITY.
const ENABLE: usize = 0x4080_6685;
/// The same: FS_VERITY_HASH_ALG_SHA256.
pub const SHA256: u8 = 1;

/// Makes the file, on a file system of its own, once for each process.
///
/// # Errors
/// The errno of making the file system or the file, or of having it sealed.
pub fn make_file() -> Result<(), Errno> {
    if std::fs::exists(FILE)? {
        return Ok(());
    }
    ext4::mounted("/tmp/verity.ext4", "/tmp/verity", None, ext4::VERITY)?;
    std::fs::write(FILE, CONTENT)?;
    let file = File::open(FILE)?;
    // struct fsverity_enable_arg: version, algorithm, size of a block; neither salt nor signature.
    let mut wanted = [0_u32; 32];
    (wanted[0], wanted[1], wanted[2]) = (1, SHA256.into(), 4096);
    // SAFETY: the request reads a structure of 128 bytes.
    unsafe { syscall(libc::SYS_ioctl, [index(&file), ENABLE, wanted.as_ptr().addr(), 0, 0, 0]) }.map(drop)
}
