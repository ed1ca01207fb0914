//! The bytes of BTF and of its indexes: this process's own, or in memory that it shares with the processes it forks.

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

/// Numbers that do not change any more.
#[derive(Debug)]
pub(super) enum Words {
    /// On the heap.
    Own(Vec<u32>),
    /// In such a mapping as [`Blob::Shared`].
    Shared(Mmap),
}

impl Words {
    /// The same numbers, moved to memory that forked processes share where `data` is in such memory too.
    pub(super) fn beside(data: &Blob, words: Vec<u32>) -> Self {
        match data {
            Blob::Own(_) => Self::Own(words),
            Blob::Shared(_) => match map(bytemuck::cast_slice(&words)) {
                Ok(map) => Self::Shared(map),
                Err(_) => Self::Own(words),
            },
        }
    }
}

impl Deref for Words {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match self {
            Self::Own(words) => words,
            // A mapping begins at a page and holds whole numbers, as many as were written.
            Self::Shared(map) => bytemuck::try_cast_slice(map).unwrap_or_default(),
        }
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
    use super::{Blob, Words};

    #[test]
    fn shared_bytes_are_the_same() {
        let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        assert_eq!(&*Blob::shared(&bytes), bytes.as_slice());
    }

    #[test]
    fn words_follow_their_data() {
        let words: Vec<u32> = (0..5_000_u32).map(|n| n.wrapping_mul(0x0101_0101)).collect();
        for (data, shared) in [(Blob::shared(&[1]), true), (Blob::Own(vec![1]), false)] {
            let kept = Words::beside(&data, words.clone());
            assert_eq!(matches!(kept, Words::Shared(_)), shared);
            assert_eq!(&*kept, words.as_slice());
        }
    }
}
