//! Is this file a whole x86 kernel image? Answered from the boot header, before a virtual machine is started.
//!
//! The header (Documentation/arch/x86/boot.rst) tells the size of setup code and compressed kernel, and the PE
//! header of a signed image where its signature ends. A file shorter than either was cut off.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What is wrong with an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It cannot be read.
    #[error("cannot read the kernel image {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is something else.
    #[error("{} is not an x86 kernel image: {found}; give a bzImage (arch/x86/boot/bzImage or a vmlinuz)", path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        found: String,
    },
    /// It was cut off.
    #[error("the kernel image {} is truncated: its header promises {expected} bytes, the file has {actual}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The size that the header promises.
        expected: u64,
        /// The file's size.
        actual: u64,
    },
}

/// The boot sector, the setup header and, in every kernel with an EFI stub, the PE header are within this.
const HEAD_BYTES: u64 = 4096;
const SETUP_SECTS: usize = 0x1f1;
const SYSSIZE: usize = 0x1f4;
const BOOT_FLAG: usize = 0x1fe;
const MAGIC: usize = 0x202;
const PROTOCOL: usize = 0x206;
const PE_OFFSET: usize = 0x3c;

/// Checks that `path` is a whole kernel image and returns its size in bytes.
///
/// # Errors
/// [`ImageError`]; reads at most a few KiB.
pub fn validate(path: &Path) -> Result<u64, ImageError> {
    let read = |source| ImageError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read)?;
    let meta = file.metadata().map_err(read)?;
    let not_an_image =
        |found: &str| ImageError::NotAnImage { path: path.to_owned(), found: found.to_owned() };
    if !meta.is_file() {
        return Err(not_an_image("it is no regular file"));
    }
    let mut head = Vec::new();
    (&file).take(HEAD_BYTES).read_to_end(&mut head).map_err(read)?;
    let promised = promised_size(&head).map_err(|found| not_an_image(&found))?;
    let signature_end = signature_end(&head, &file).unwrap_or(0);
    let expected = promised.max(signature_end);
    if meta.len() < expected {
        return Err(ImageError::Truncated { path: path.to_owned(), expected, actual: meta.len() });
    }
    Ok(meta.len())
}

/// The size of setup code and kernel as the boot header tells it, or what the file looks like instead.
fn promised_size(head: &[u8]) -> Result<u64, String> {
    if head.is_empty() {
        return Err("it is empty".to_owned());
    }
    if head.get(MAGIC..MAGIC + 4) != Some(b"HdrS") || word16(head, BOOT_FLAG) != Some(0xaa55) {
        return Err(looks_like(head).to_owned());
    }
    // Before protocol 2.04 (Linux 2.6.14) `syssize` had 16 bits.
    if word16(head, PROTOCOL).is_none_or(|protocol| protocol < 0x0204) {
        return Err("its boot protocol is older than 2.04".to_owned());
    }
    let setup = match head[SETUP_SECTS] {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let paragraphs = word32(head, SYSSIZE).ok_or_else(|| "its header is cut off".to_owned())?;
    Ok((setup + 1) * 512 + u64::from(paragraphs) * 16)
}

/// A guess that helps the reader.
fn looks_like(head: &[u8]) -> &'static str {
    match head {
        [0x7f, b'E', b'L', b'F', ..] => "it is an ELF file such as vmlinux",
        [0x1f, 0x8b, ..] => "it is gzip data",
        [b'!', b'<', b'a', b'r', b'c', b'h', b'>', ..] => "it is a Debian package or an ar archive",
        _ if head.get(0x38..0x3c) == Some(b"ARM\x64") => "it is an arm64 image",
        _ => "it has no boot header (no \"HdrS\" at offset 0x202)",
    }
}

/// Where the signature of a signed image ends in the file; `None` for images without PE header.
fn signature_end(head: &[u8], file: &File) -> Option<u64> {
    if !head.starts_with(b"MZ") {
        return None;
    }
    let pe = u64::from(word32(head, PE_OFFSET)?);
    // PE signature, COFF header, then a PE32+ optional header of 112 bytes; data directory 4 is the signature's.
    let mut optional = [0; 24 + 112 + 5 * 8];
    file.read_exact_at(&mut optional, pe).ok()?;
    if !optional.starts_with(b"PE\0\0") || word16(&optional, 24) != Some(0x20b) {
        return None;
    }
    let start = word32(&optional, 24 + 112 + 32)?;
    let size = word32(&optional, 24 + 112 + 36)?;
    Some(u64::from(start) + u64::from(size))
}

fn word16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A well-formed image of `kernel_bytes` (a multiple of 16) behind one setup sector, for tests.
#[cfg(test)]
pub(crate) fn fake_image(kernel_bytes: u32) -> Vec<u8> {
    let mut image = vec![0; 1024 + kernel_bytes as usize];
    image[SETUP_SECTS] = 1;
    image[SYSSIZE..SYSSIZE + 4].copy_from_slice(&(kernel_bytes / 16).to_le_bytes());
    image[BOOT_FLAG..BOOT_FLAG + 2].copy_from_slice(&[0x55, 0xaa]);
    image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
    image[PROTOCOL..PROTOCOL + 2].copy_from_slice(&[0x0f, 0x02]);
    image
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn validate_bytes(bytes: &[u8]) -> Result<u64, ImageError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmlinuz");
        std::fs::write(&path, bytes).unwrap();
        validate(&path)
    }

    #[test]
    fn a_whole_image_is_accepted_and_one_byte_less_is_not() {
        let image = fake_image(64 << 10);
        assert_eq!(validate_bytes(&image).unwrap(), image.len() as u64);
        let error = validate_bytes(&image[..image.len() - 1]).unwrap_err();
        assert!(
            matches!(error, ImageError::Truncated { expected, actual, .. } if expected == actual + 1),
            "{error}"
        );
    }

    #[test]
    fn a_cut_off_signature_is_noticed() {
        let mut image = fake_image(64 << 10);
        image[..2].copy_from_slice(b"MZ");
        image[PE_OFFSET..PE_OFFSET + 4].copy_from_slice(&0x300_u32.to_le_bytes());
        image[0x300..0x304].copy_from_slice(b"PE\0\0");
        image[0x300 + 24..0x300 + 26].copy_from_slice(&[0x0b, 0x02]);
        let (start, size) = (u32::try_from(image.len()).unwrap(), 1472_u32);
        image[0x300 + 168..0x300 + 172].copy_from_slice(&start.to_le_bytes());
        image[0x300 + 172..0x300 + 176].copy_from_slice(&size.to_le_bytes());
        assert!(matches!(validate_bytes(&image), Err(ImageError::Truncated { .. })));
        image.resize(image.len() + 1472, 0);
        validate_bytes(&image).unwrap();
    }

    #[rstest]
    #[case::empty(b"", "it is empty")]
    #[case::elf(b"\x7fELF and more", "vmlinux")]
    #[case::text(b"hello", "no boot header")]
    #[case::package(b"!<arch>\n", "Debian package")]
    fn other_files_are_named(#[case] bytes: &[u8], #[case] wanted: &str) {
        let error = validate_bytes(bytes).unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }

    #[test]
    fn a_folder_is_no_image() {
        let dir = tempfile::tempdir().unwrap();
        assert!(validate(dir.path()).is_err());
    }
}
