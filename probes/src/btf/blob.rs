//! The bytes of BTF: this process's own, or in memory that it shares with the processes it forks.

use std::ffi::CStr;
use std::fs::File;
use std::io::Write;
use std::ops::Deref;
use std::os::fd::FromRawFd;

use memmap2::{Mmap, MmapOptions};

/// Bytes that do not change any more.
#[derive(Debug)]
pub(super) enum Blob {
    /// On the heap.
    Own(Vec<u8>),
    /// In a mapping of a file in memory that nobody else knows.
    Shared(Mmap),
}

impl Blob {
    /// A copy of `bytes` that forked processes share, or else an own one.
    pub(super) fn shared(bytes: &[u8]) -> Self {
        map(bytes).map_or_else(|_| Self::Own(bytes.to_vec()), Self::Shared)
    }
}

fn map(bytes: &[u8]) -> std::io::Result<Mmap> {
    const NAME: &CStr = c"btf";
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(NAME.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(bytes)?;
    // SAFETY: nobody else has the file, and nothing writes to it from here on.
    unsafe { MmapOptions::new().map(&file) }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(map) => map,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Blob;

    #[test]
    fn shared_bytes_are_the_same() {
        let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        assert_eq!(&*Blob::shared(&bytes), bytes.as_slice());
    }
}
