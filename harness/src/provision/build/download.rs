//! Archives of kernel sources: downloaded, checked against the row's SHA-256 before anything looks inside, unpacked.

use crate::cache::{Cache, CacheError, TempDir};
use crate::child::{ChildError, Command};
use crate::matrix::Archive;
use crate::progress::Progress;
use crate::provision::package::{Compression, Limited};
use crate::provision::sha256_file;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Wall-clock limit of one download; an archive has 110 to 160 MB.
const DEADLINE: Duration = Duration::from_secs(3600);
/// No archive comes near this.
const MAX_BYTES: u64 = 1 << 30;
/// No tree comes near this.
const MAX_UNPACKED: u64 = 8 << 30;

/// Why sources cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The download failed.
    #[error("cannot download {url}; check the network, or build from a tree with --source")]
    Fetch {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: Box<ChildError>,
    },
    /// Something else came.
    #[error("{url} has the SHA-256 {found}, not {wanted} as in matrix.yaml; nothing was unpacked")]
    Hash {
        /// The address.
        url: String,
        /// What the row says.
        wanted: String,
        /// What came.
        found: String,
    },
    /// It cannot be unpacked.
    #[error("cannot unpack {url}")]
    Unpack {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read or written.
    #[error("cannot read or write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// The archive's tree, unpacked into a private folder that goes with the value.
pub(super) fn sources(
    archive: &Archive,
    cache: &Cache,
    progress: &Progress,
    label: &str,
) -> Result<Unpacked, DownloadError> {
    let temp = cache.temp_dir()?;
    let file = temp.path().join("archive");
    let task = progress.task(label, &format!("downloading {}", archive.url));
    fetch(&archive.url, &file)?;
    check(archive, &file)?;
    task.message("unpacking");
    let root = unpack(&file, &temp.path().join("tree"))
        .map_err(|source| DownloadError::Unpack { url: archive.url.clone(), source })?;
    Ok(Unpacked { _temp: temp, root })
}

/// An unpacked archive.
pub(super) struct Unpacked {
    _temp: TempDir,
    root: PathBuf,
}

impl Unpacked {
    pub(super) fn path(&self) -> &Path {
        &self.root
    }
}

/// curl knows the machine's proxies and certificates, and is where apt is.
fn fetch(url: &str, to: &Path) -> Result<(), DownloadError> {
    let size = MAX_BYTES.to_string();
    Command::new("curl", format!("downloading {url}"), DEADLINE)
        .args(["--fail", "--location", "--silent", "--show-error", "--proto", "=https", "--retry", "3"])
        .args(["--max-filesize", &size, "--output"])
        .arg(to)
        .arg(url)
        .run()
        .map(drop)
        .map_err(|error| DownloadError::Fetch { url: url.to_owned(), source: Box::new(error) })
}

fn check(archive: &Archive, file: &Path) -> Result<(), DownloadError> {
    let found = sha256_file(file).map_err(|source| DownloadError::File { path: file.to_owned(), source })?;
    if found == archive.sha256 {
        return Ok(());
    }
    Err(DownloadError::Hash { url: archive.url.clone(), wanted: archive.sha256.clone(), found })
}

/// Unpacks a `.tar.xz` or `.tar` into `into`, and gives its single folder. The tar crate leaves its folder neither by
/// `..` nor through links that the archive brings.
///
/// # Errors
/// The system's error while reading or writing; an archive that is none, is too large, or holds more than one folder.
pub fn unpack(file: &Path, into: &Path) -> io::Result<PathBuf> {
    let mut reader = BufReader::new(File::open(file)?);
    let xz = io::BufRead::fill_buf(&mut reader)?.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]);
    let plain: Box<dyn io::Read> = if xz { Compression::Xz.reader(reader)? } else { Box::new(reader) };
    std::fs::create_dir(into)?;
    let mut tar = tar::Archive::new(Limited::new(plain, MAX_UNPACKED));
    tar.set_preserve_permissions(false);
    tar.unpack(into)?;
    let mut folders = std::fs::read_dir(into)?;
    match (folders.next().transpose()?, folders.next()) {
        (Some(only), None) => Ok(only.path()),
        _ => Err(io::Error::other("it does not hold exactly one folder")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(folder: &Path, names: &[&str]) -> PathBuf {
        let mut tar = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            header.set_mode(0o644);
            header.set_entry_type(tar::EntryType::Regular);
            // `append_data` refuses the names that a hostile archive has.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, &b"x"[..]).unwrap();
        }
        let file = folder.join("a.tar");
        std::fs::write(&file, tar.into_inner().unwrap()).unwrap();
        file
    }

    #[test]
    fn an_archive_is_unpacked_into_its_folder_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = packed(folder.path(), &["linux-5.7/Makefile", "../outside"]);
        let root = unpack(&file, &folder.path().join("tree")).unwrap();
        assert!(root.join("Makefile").is_file());
        assert!(!folder.path().join("outside").exists());
    }

    /// A member that is a link to `target`, and one that is written through it or reads what it names.
    fn linked(folder: &Path, kind: tar::EntryType, target: &Path) -> PathBuf {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o777);
        header.set_entry_type(kind);
        tar.append_link(&mut header, "l/up", target).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o644);
        tar.append_data(&mut header, "l/up/gone", &b"away"[..]).unwrap();
        let file = folder.join("a.tar");
        std::fs::write(&file, tar.into_inner().unwrap()).unwrap();
        file
    }

    #[test]
    fn links_are_not_gone_through() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        let file = linked(folder.path(), tar::EntryType::Symlink, &outside);
        assert!(unpack(&file, &folder.path().join("tree")).is_err());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "secret").unwrap();
        let file = linked(folder.path(), tar::EntryType::Link, &secret);
        assert!(unpack(&file, &folder.path().join("tree-2")).is_err());
        assert!(!folder.path().join("tree-2/l/up").exists());
    }

    #[test]
    fn what_is_set_for_all_users_is_not_kept() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o6777);
        tar.append_data(&mut header, "l/x", &b"x"[..]).unwrap();
        let file = folder.path().join("a.tar");
        std::fs::write(&file, tar.into_inner().unwrap()).unwrap();
        let root = unpack(&file, &folder.path().join("tree")).unwrap();
        let mode = std::fs::metadata(root.join("x")).unwrap().permissions().mode();
        assert_eq!(mode & 0o6000, 0, "{mode:o}");
    }

    #[test]
    fn two_folders_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = packed(folder.path(), &["a/x", "b/x"]);
        assert!(unpack(&file, &folder.path().join("tree")).is_err());
    }

    #[test]
    fn another_file_than_the_rows_is_refused_before_it_is_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let file = packed(folder.path(), &["a/x"]);
        let archive =
            Archive { url: "https://h/x.tar".into(), sha256: "0".repeat(64), fragments: Vec::new() };
        let error = check(&archive, &file).unwrap_err();
        assert!(error.to_string().contains("nothing was unpacked"), "{error}");
    }
}
