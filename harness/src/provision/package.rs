//! The files in a package of Debian's, one after the other, whatever the package says of itself: `ar`, `tar`, xz and zstd
//! within limits of memory and size.
//!
//! The outer archive is read here: its format is three fields, and the library for it takes as much memory as a header
//! claims. Of `tar` the library reads headers and content, but long names, which it would read whole, are read here.
//! Nothing is written, and links are only reported as such.

use std::io::{self, BufReader, Read};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Where a package that unpacks without end is given up.
const MAX_UNPACKED: u64 = 4 << 30;
/// The most that decompressing xz may take: the densest preset takes 65 MiB, a header may ask for 4 GiB.
const XZ_MEMORY: u64 = 256 << 20;
/// The largest window of zstd, as a power of two: what its own program accepts without being asked.
const ZSTD_WINDOW: u32 = 27;
/// No path is longer on Linux (PATH_MAX).
const MAX_NAME: u64 = 4096;
/// A package has three members.
const MAX_MEMBERS: usize = 16;

/// What the packages are compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::provision) enum Compression {
    None,
    Xz,
    Zstd,
}

impl Compression {
    /// By the end of a name, such as `.xz`.
    pub(in crate::provision) fn of(suffix: &str) -> Option<Self> {
        match suffix {
            "" => Some(Self::None),
            ".xz" => Some(Self::Xz),
            ".zst" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Reads what is compressed, within the limits of memory.
    pub(in crate::provision) fn reader<'a>(self, from: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::None => Box::new(from),
            Self::Xz => Box::new(liblzma::read::XzDecoder::new_stream(from, xz_stream()?)),
            Self::Zstd => {
                let mut decoder = zstd::Decoder::new(from)?;
                decoder.window_log_max(ZSTD_WINDOW)?;
                Box::new(decoder)
            }
        })
    }
}

/// A decoder of xz that takes no more memory than it may.
pub(in crate::provision) fn xz_stream() -> io::Result<liblzma::stream::Stream> {
    Ok(liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0)?)
}

/// A reader that fails where more comes than may: what is cut off there would look like the end.
pub(in crate::provision) struct Limited<R> {
    from: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Limited<R> {
    pub(in crate::provision) const fn new(from: R, limit: u64) -> Self {
        Self { from, left: limit, limit }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        let Some(left) = self.left.checked_sub(count as u64) else {
            return Err(bad(format!("it unpacks to more than {} bytes", self.limit)));
        };
        self.left = left;
        Ok(count)
    }
}

/// One file, link or folder of a package.
pub(in crate::provision) struct Member<'a> {
    /// Its path as the package has it; it may be absolute, or climb.
    pub(in crate::provision) path: PathBuf,
    /// Whether it is a regular file; links and devices are not.
    pub(in crate::provision) is_file: bool,
    /// Its size in bytes, as the package claims.
    pub(in crate::provision) size: u64,
    /// What is in it.
    pub(in crate::provision) content: &'a mut dyn Read,
}

/// Gives each member of a package to `take`, until that has enough.
pub(in crate::provision) fn members(
    deb: impl Read,
    mut take: impl FnMut(Member<'_>) -> io::Result<ControlFlow<()>>,
) -> io::Result<()> {
    let data = data_of(BufReader::new(deb))?;
    let mut tar = tar::Archive::new(Limited::new(data, MAX_UNPACKED));
    let mut long_name: Option<Vec<u8>> = None;
    let mut before = PathBuf::new();
    for entry in tar.entries()?.raw(true) {
        let mut entry = entry.map_err(|error| behind(&before, &error))?;
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() {
            long_name = Some(name_in(&mut entry)?);
            continue;
        }
        // A link's long target, and what pax has to say: no wanted file has any.
        if kind.is_gnu_longlink() || kind.is_pax_local_extensions() || kind.is_pax_global_extensions() {
            continue;
        }
        let name = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        let path = PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(name));
        let (is_file, size) = (kind.is_file(), entry.size());
        let member = Member { path: path.clone(), is_file, size, content: &mut entry };
        if take(member)?.is_break() {
            break;
        }
        before = path;
    }
    Ok(())
}

/// A name that is too long for a header.
fn name_in(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut name = Vec::new();
    Limited::new(entry, MAX_NAME)
        .read_to_end(&mut name)
        .map_err(|error| bad(format!("a member's name cannot be read: {error}")))?;
    while name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

/// The package's `data.tar`, decompressed.
fn data_of<'a>(mut deb: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut magic = [0; 8];
    if deb.read_exact(&mut magic).is_err() || magic != *b"!<arch>\n" {
        return Err(bad("it is no ar archive".to_owned()));
    }
    let mut at = magic.len() as u64;
    for _ in 0..MAX_MEMBERS {
        let mut head = [0; 60];
        match deb.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            read => read?,
        }
        let wrong = || bad(format!("there is no head of a member at byte {at}"));
        let text = std::str::from_utf8(&head).map_err(|_| wrong())?;
        let (name, size) = text.strip_suffix("`\n").and_then(name_and_size).ok_or_else(wrong)?;
        if let Some(suffix) = name.strip_prefix("data.tar") {
            let compression = Compression::of(suffix).ok_or_else(|| {
                bad(format!("its data is compressed as {suffix:?}; xz, zst and none are known"))
            })?;
            return compression.reader(deb.take(size));
        }
        let padded = size + size % 2;
        if io::copy(&mut deb.by_ref().take(padded), &mut io::sink())? < size {
            return Err(bad(format!("it is cut off in {name}, at byte {at}")));
        }
        at += head.len() as u64 + padded;
    }
    Err(bad("it has no data.tar member".to_owned()))
}

/// Name and size in a member's head; a name may end in a slash.
fn name_and_size(head: &str) -> Option<(&str, u64)> {
    let name = head.get(..16)?.trim_end().trim_end_matches('/');
    let size = head.get(48..58)?.trim_end().parse().ok()?;
    Some((name, size))
}

fn behind(before: &std::path::Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("behind its member {:?}: {error}", before.display().to_string()))
}

fn bad(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests;
