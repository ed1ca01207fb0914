//! Reading a file of text that somebody else wrote, up to a size that no real one comes near.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What people write: the matrix, fragments, claims, a page and its data; and a snapshot. The largest has 100 KB.
pub const WRITTEN: u64 = 8 << 20;
/// What a run writes: all records of a kernel have 5 MB, with every program and log some hundred.
pub const RECORDED: u64 = 1 << 30;

/// The text of the file at `path`.
///
/// # Errors
/// The system's, or one of its own for a file that has more than `limit` bytes, is not UTF-8, or is a pipe, a device or a
/// folder, of which the first two may never end, nor even begin.
pub fn read(path: &Path, limit: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    // To open a pipe would wait for who writes to it.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.is_file() {
        let what = "it is no regular file; give a copy of what it holds";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let what = format!("it has more than {limit} bytes, which no such file has");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    String::from_utf8(bytes).map_err(|error| {
        let what = format!("it is not UTF-8 at byte {}", error.utf8_error().valid_up_to());
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

/// What to say of a file with the marks of a merge.
pub const UNMERGED: &str = "a merge was not finished here: keep one side of it and remove the marks";

/// The first line, counted from 1, that is a mark of a merge which nobody has finished.
#[must_use]
pub fn unmerged(text: &str) -> Option<usize> {
    let is_mark = |line: &str| ["<<<<<<< ", ">>>>>>> "].iter().any(|mark| line.starts_with(mark));
    text.lines().position(is_mark).map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_or_no_text_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "12\u{e9}").unwrap();
        assert_eq!(read(file.path(), 4).unwrap(), "12\u{e9}");
        assert!(read(file.path(), 3).unwrap_err().to_string().contains("more than 3 bytes"));
        std::fs::write(file.path(), b"12\xff").unwrap();
        assert!(read(file.path(), 4).unwrap_err().to_string().contains("not UTF-8 at byte 2"));
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [&pipe, folder.path(), Path::new("/dev/zero")] {
            let error = read(path, 4).unwrap_err();
            assert!(error.to_string().contains("no regular file"), "{}: {error}", path.display());
        }
    }
}
