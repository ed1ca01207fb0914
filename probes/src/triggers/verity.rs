//! Files with fs-verity.

use super::files::index;
use super::{Act, Arm, OK, Seen, act_seen, ext4, keys, syscall};
use crate::errno::Errno;
use std::fs::File;
use std::os::fd::AsRawFd;

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

/// Where files can have fs-verity.
const FOLDER: &str = "/tmp/verity";
/// A certificate of nobody's, and its signature of what the kernel has signed for [`CONTENT`]: the bytes `FSVerity`, in
/// 16 bits each the algorithm and the length, and [`DIGEST`] (include/uapi/linux/fsverity.h, struct
/// fsverity_formatted_digest). Made once, with a key that has been thrown away: `openssl req -x509 -newkey rsa:2048 -nodes
/// -sha256 -days 36500 -subj /CN=conform`, and `openssl smime -sign -binary -noattr -nocerts -md sha256 -outform der`.
const CERTIFICATE: &[u8] = include_bytes!("verity/certificate.der");
const SIGNATURE: &[u8] = include_bytes!("verity/signature.der");
/// Bytes of the signature.
pub const SIGNATURE_SIZE: i32 = 401;
const _: () =
    assert!(SIGNATURE.len() == SIGNATURE_SIZE.cast_unsigned() as usize, "what the hook is to be told");

/// Mounts the file system, once for each process.
fn mounted() -> Result<(), Errno> {
    if std::fs::exists(FOLDER)? {
        return Ok(());
    }
    let result = ext4::mounted("/tmp/verity.ext4", FOLDER, None, ext4::VERITY);
    if result.is_err() {
        let _ = std::fs::remove_dir(FOLDER); // so that the next recipe tries again, if it was made
    }
    result.map(drop)
}

/// Seals a file, with a signature if it has any bytes.
fn enable(file: &File, signature: &[u8]) -> Result<(), Errno> {
    // struct fsverity_enable_arg: version and algorithm; size of a block; no salt; the signature's size and place.
    let mut wanted = [0_u64; 16];
    wanted[0] = 1 | u64::from(SHA256) << 32;
    wanted[1] = 4096;
    wanted[3] = signature.len() as u64;
    wanted[4] = signature.as_ptr().addr() as u64;
    // SAFETY: the request reads a structure of 128 bytes, and the signature with its length.
    unsafe { syscall(libc::SYS_ioctl, [index(file), ENABLE, wanted.as_ptr().addr(), 0, 0, 0]) }.map(drop)
}

/// Makes the file, on a file system of its own, once for each process.
///
/// # Errors
/// The errno of making the file system or the file, or of having it sealed.
pub fn make_file() -> Result<(), Errno> {
    mounted()?;
    if std::fs::exists(FILE)? {
        return Ok(());
    }
    std::fs::write(FILE, CONTENT)?;
    enable(&File::open(FILE)?, &[])
}

/// Whether a file is sealed: FS_VERITY_FL of include/uapi/linux/fs.h.
fn is_sealed(file: &File) -> Result<bool, Errno> {
    let mut flags: libc::c_int = 0;
    // SAFETY: the request writes a number of the size of `flags` (in spite of the `long` in its name).
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) })?;
    Ok(flags & 0x10_0000 != 0)
}

/// `ioctl(2)` that seals a file, each time another, with a signature by a key that the kernel has been told to trust.
/// Whether the file is sealed then is looked at too.
///
/// # Errors
/// The errno of making the file system or of adding the certificate.
pub fn seal_signed() -> Result<Act, Errno> {
    mounted()?;
    keys::add_certificate(".fs-verity", CERTIFICATE)?;
    act_seen(|arm: Arm| {
        let path = "/tmp/verity/signed";
        std::fs::write(path, CONTENT)?;
        let file = File::open(path)?;
        let result = arm.during(|| enable(&file, SIGNATURE));
        let sealed = is_sealed(&file);
        drop(file);
        std::fs::remove_file(path)?;
        result?;
        Ok(if sealed? { OK } else { Seen("ok, and the file is not sealed") })
    })
}
