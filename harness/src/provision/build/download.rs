//! Archives of kernel sources: downloaded, checked before anything looks inside, unpacked. A release archive is checked
//! against the row's SHA-256, a package of Debian's against the signed lists, by apt and again here.

use crate::cache::{Cache, CacheError, TempDir};
use crate::child::{ChildError, Command};
use crate::matrix::{Archive, Debian, Origin};
use crate::progress::Progress;
use crate::provision::apt::{AptError, Suite};
use crate::provision::deb::{self, DebError};
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
    /// The package cannot be fetched.
    #[error("cannot fetch {package} {version}; build from a tree with --source")]
    Apt {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// Why.
        #[source]
        source: Box<AptError>,
    },
    /// No suite has the package in the row's version.
    #[error(
        "{package} {version} is in none of {}, which have {}; pin a version that is there in matrix.yaml, or build from \
         a tree with --source", suites.join(", "), if others.is_empty() { "no other".to_owned() } else { others.join(", ") }
    )]
    NotListed {
        /// The package.
        package: String,
        /// The row's version.
        version: String,
        /// The row's suites.
        suites: Vec<String>,
        /// The versions that they have.
        others: Vec<String>,
    },
    /// The package cannot be unpacked.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// The package is no package of sources.
    #[error("{package} {version} holds no usr/src/linux-source-*.tar.xz")]
    NoSources {
        /// The package.
        package: String,
        /// Its version.
        version: String,
    },
    /// It cannot be unpacked.
    #[error("cannot unpack {origin}")]
    Unpack {
        /// The address, or package and version.
        origin: String,
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
    let file = match &archive.origin {
        Origin::Tarball { url, sha256 } => {
            let file = temp.path().join("archive");
            let _task = progress.task(label, &format!("downloading {url}"));
            fetch(url, &file)?;
            check(url, sha256, &file)?;
            file
        }
        Origin::Debian(pin) => {
            let deb = package(pin, cache, progress, label)?;
            let file = out_of_package(pin, &deb, temp.path())?;
            // It would only take room until the next download.
            let _ = deb.parent().map(std::fs::remove_dir_all);
            file
        }
    };
    let _task = progress.task(label, "unpacking");
    let root = unpack(&file, &temp.path().join("tree"))
        .map_err(|source| DownloadError::Unpack { origin: archive.origin.to_string(), source })?;
    // As above: a build needs the room.
    let _ = std::fs::remove_file(&file);
    Ok(Unpacked { _temp: temp, root })
}

/// Fetches the package of sources and gives its file. Unlike an image it has no substitute: sources of another version
/// would be built under this one's name.
fn package(pin: &Debian, cache: &Cache, progress: &Progress, label: &str) -> Result<PathBuf, DownloadError> {
    let (package, version) = (&pin.package.full, &pin.version);
    let (mut others, mut trouble) = (Vec::new(), None);
    for name in &pin.suites {
        let look = || -> Result<Result<PathBuf, Vec<String>>, AptError> {
            let mut suite = Suite::open(cache, name, progress)?;
            let candidates = suite.candidates(&pin.package, Some(version), progress)?;
            match candidates.iter().find(|it| it.package == pin.package && it.version == *version) {
                Some(found) => suite.download(found, label, progress).map(Ok),
                None => Ok(Err(candidates.into_iter().map(|it| it.version).collect())),
            }
        };
        match look() {
            Ok(Ok(file)) => return Ok(file),
            Ok(Err(versions)) => others.extend(versions),
            // Another suite may still have it.
            Err(error) => trouble = trouble.or(Some(error)),
        }
    }
    match trouble {
        Some(source) => Err(DownloadError::Apt {
            package: package.clone(),
            version: version.clone(),
            source: Box::new(source),
        }),
        None => Err(DownloadError::NotListed {
            package: package.clone(),
            version: version.clone(),
            suites: pin.suites.clone(),
            others,
        }),
    }
}

/// Takes the archive out of the package `deb`.
fn out_of_package(pin: &Debian, deb: &Path, into: &Path) -> Result<PathBuf, DownloadError> {
    deb::unpack_sources(deb, into)?.ok_or_else(|| DownloadError::NoSources {
        package: pin.package.full.clone(),
        version: pin.version.clone(),
    })
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
        // curl looks at the size that is announced; before 8.4 at no other.
        .writes_no_more_than(MAX_BYTES)
        .run()
        .map(drop)
        .map_err(|error| DownloadError::Fetch { url: url.to_owned(), source: Box::new(error) })
}

fn check(url: &str, wanted: &str, file: &Path) -> Result<(), DownloadError> {
    let found = sha256_file(file).map_err(|source| DownloadError::File { path: file.to_owned(), source })?;
    if found == wanted {
        return Ok(());
    }
    Err(DownloadError::Hash { url: url.to_owned(), wanted: wanted.to_owned(), found })
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
    use crate::matrix::series_of_package;
    use crate::provision::deb::tests::{deb_of, tar_of, xz};

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
        let error = check("https://h/x.tar", &"0".repeat(64), &file).unwrap_err();
        assert!(error.to_string().contains("nothing was unpacked"), "{error}");
    }

    fn pin() -> Debian {
        let package = series_of_package("linux-source-7.3").unwrap();
        Debian { suites: vec!["sid".into()], package, version: "7.3.4-1".into() }
    }

    #[test]
    fn a_package_of_sources_becomes_a_tree() {
        let folder = tempfile::tempdir().unwrap();
        let inner = std::fs::read(packed(folder.path(), &["linux-source-7.3/Makefile"])).unwrap();
        let deb = folder.path().join("x.deb");
        let member = (tar::EntryType::Regular, "./usr/src/linux-source-7.3.tar.xz", &*xz(&inner));
        deb_of(&deb, "data.tar", &tar_of(&[member]));
        let file = out_of_package(&pin(), &deb, folder.path()).unwrap();
        let root = unpack(&file, &folder.path().join("tree")).unwrap();
        assert!(root.ends_with("linux-source-7.3") && root.join("Makefile").is_file());
    }

    #[test]
    fn a_package_without_sources_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let deb = folder.path().join("x.deb");
        deb_of(&deb, "data.tar", &tar_of(&[(tar::EntryType::Regular, "./usr/src/README", b"x")]));
        let error = out_of_package(&pin(), &deb, folder.path()).unwrap_err();
        assert!(error.to_string().contains("linux-source-7.3 7.3.4-1 holds no"), "{error}");
    }
}
