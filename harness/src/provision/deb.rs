//! Unpacking the few wanted files of a `.deb`: the kernel image and its configuration, or the archive of its sources.
//!
//! Nothing in a package decides where a file is written: members are matched against the wanted places and written
//! under names of ours, so that `..`, absolute paths and links have nothing to work on.

use super::package::{self, Member};
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::{Component, Path, PathBuf};

/// No kernel image comes near this.
const MAX_IMAGE: u64 = 256 << 20;
/// No configuration comes near this.
const MAX_CONFIG: u64 = 4 << 20;
/// No archive of sources comes near this.
const MAX_SOURCES: u64 = 1 << 30;

/// What can go wrong with a package.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// It cannot be read or is damaged.
    #[error("cannot unpack {}", path.display())]
    Read {
        /// The package.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A wanted member is suspicious.
    #[error("{} holds {member}, which is refused: {why}", path.display())]
    Refused {
        /// The package.
        path: PathBuf,
        /// The member.
        member: String,
        /// Why.
        why: String,
    },
    /// What was unpacked cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A wanted member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Image,
    Config,
}

/// What was found in a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// The kernel image, as `vmlinuz` in the target folder.
    pub image: Option<PathBuf>,
    /// The configuration, as `config` in the target folder.
    pub config: Option<PathBuf>,
}

/// Writes the kernel image and the configuration of the package `deb` into the folder `target`.
///
/// # Errors
/// [`DebError`]. A package with neither is no error.
pub fn unpack(deb: &Path, target: &Path) -> Result<Unpacked, DebError> {
    let mut unpacked = Unpacked::default();
    each(deb, |member| {
        take(member, &mut unpacked, deb, target)?;
        Ok(unpacked.image.is_some() && unpacked.config.is_some())
    })?;
    Ok(unpacked)
}

/// Writes the archive that a package of kernel sources holds, `usr/src/linux-source-<series>.tar.xz`, into the folder
/// `target`, and gives its file; `None` when there is no such archive.
///
/// # Errors
/// [`DebError`].
pub fn unpack_sources(deb: &Path, target: &Path) -> Result<Option<PathBuf>, DebError> {
    let mut sources = None;
    each(deb, |member| {
        let is_sources = |name: &str| name.starts_with("linux-source-") && name.ends_with(".tar.xz");
        if matches!(parts(&member.path).as_deref(), Some(["usr", "src", name]) if is_sources(name)) {
            sources = Some(write_file(member, MAX_SOURCES, deb, &target.join("sources.tar.xz"))?);
        }
        Ok(sources.is_some())
    })?;
    Ok(sources)
}

/// Shows each of the package's files until `enough` says so.
fn each(deb: &Path, mut enough: impl FnMut(Member<'_>) -> Result<bool, DebError>) -> Result<(), DebError> {
    let read = |source| DebError::Read { path: deb.to_owned(), source };
    let mut failure = None;
    let took = package::members(File::open(deb).map_err(read)?, |member| match enough(member) {
        Ok(false) => Ok(ControlFlow::Continue(())),
        Ok(true) => Ok(ControlFlow::Break(())),
        Err(error) => {
            failure = Some(error);
            Ok(ControlFlow::Break(()))
        }
    });
    match failure {
        Some(error) => Err(error),
        None => took.map_err(read),
    }
}

/// Writes a member if it is a wanted one.
fn take(member: Member<'_>, unpacked: &mut Unpacked, deb: &Path, target: &Path) -> Result<(), DebError> {
    let Some(wanted) = wanted(&member.path) else { return Ok(()) };
    let (slot, name, limit) = match wanted {
        Wanted::Image => (&mut unpacked.image, "vmlinuz", MAX_IMAGE),
        Wanted::Config => (&mut unpacked.config, "config", MAX_CONFIG),
    };
    if slot.is_some() {
        return Err(refused(&member, deb, "the package holds more than one such file"));
    }
    *slot = Some(write_file(member, limit, deb, &target.join(name))?);
    Ok(())
}

fn refused(member: &Member<'_>, deb: &Path, why: &str) -> DebError {
    let (path, member) = (deb.to_owned(), member.path.display().to_string());
    DebError::Refused { path, member, why: why.to_owned() }
}

/// Writes a member that is a regular file of no more than `limit` bytes.
fn write_file(member: Member<'_>, limit: u64, deb: &Path, path: &Path) -> Result<PathBuf, DebError> {
    if !member.is_file {
        return Err(refused(&member, deb, "it is not a regular file"));
    }
    if member.size > limit {
        return Err(refused(&member, deb, "it is too large"));
    }
    write(member.content, path, deb)
}

/// Writes one member, whole or not at all as far as the caller sees: it works in a temporary folder.
fn write(from: &mut dyn Read, path: &Path, deb: &Path) -> Result<PathBuf, DebError> {
    let write = |source| DebError::Write { path: path.to_owned(), source };
    // `create_new` neither follows nor overwrites anything that is already there.
    let mut file = File::options().write(true).create_new(true).open(path).map_err(write)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        // Read and written apart, so that a damaged package is not taken for a disk that fails.
        let read =
            from.read(&mut buffer).map_err(|source| DebError::Read { path: deb.to_owned(), source })?;
        if read == 0 {
            return Ok(path.to_owned());
        }
        file.write_all(&buffer[..read]).map_err(write)?;
    }
}

/// The parts of a member's path; `None` for one that no kernel's package has.
fn parts(member: &Path) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    for component in member.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str()?),
            // An absolute path or one that climbs is never a kernel's.
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts)
}

/// Whether a member is one of the wanted ones, by its path.
fn wanted(member: &Path) -> Option<Wanted> {
    let parts = parts(member)?;
    match parts.as_slice() {
        ["boot", name] if name.starts_with("vmlinuz-") => Some(Wanted::Image),
        ["boot", name] if name.starts_with("config-") => Some(Wanted::Config),
        ["usr", "lib", "modules", _, name] | ["lib", "modules", _, name] => match *name {
            "vmlinuz" => Some(Wanted::Image),
            "config" => Some(Wanted::Config),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rstest::rstest;

    /// A tar member: type, path, and content or link target.
    pub(crate) type Member<'a> = (tar::EntryType, &'a str, &'a [u8]);

    /// Builds an uncompressed tar; paths are written as they are, `..` included.
    pub(crate) fn tar_of(members: &[Member<'_>]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, path, content) in members {
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            let body: &[u8] = if kind.is_file() { content } else { b"" };
            if !kind.is_file() {
                header.as_mut_bytes()[157..157 + content.len()].copy_from_slice(content);
            }
            header.set_size(body.len() as u64);
            header.set_cksum();
            builder.append(&header, body).unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// A package with the given data member.
    pub(crate) fn ar_of(name: &str, data: &[u8]) -> Vec<u8> {
        let mut builder = ar::Builder::new(Vec::new());
        for (name, content) in [("debian-binary", b"2.0\n".as_slice()), (name, data)] {
            builder.append(&ar::Header::new(name.into(), content.len() as u64), content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// Writes a package with the given data member.
    pub(crate) fn deb_of(path: &Path, name: &str, data: &[u8]) {
        std::fs::write(path, ar_of(name, data)).unwrap();
    }

    fn unpack_members(members: &[Member<'_>]) -> (tempfile::TempDir, Result<Unpacked, DebError>) {
        let dir = tempfile::tempdir().unwrap();
        let deb = dir.path().join("x.deb");
        deb_of(&deb, "data.tar.xz", &xz(&tar_of(members)));
        std::fs::create_dir(dir.path().join("out")).unwrap();
        let result = unpack(&deb, &dir.path().join("out"));
        (dir, result)
    }

    pub(crate) fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        liblzma::read::XzEncoder::new(bytes, 1).read_to_end(&mut packed).unwrap();
        packed
    }

    pub(crate) const FILE: tar::EntryType = tar::EntryType::Regular;

    #[rstest]
    #[case::boot("./boot/vmlinuz-6.1", "./boot/config-6.1")]
    #[case::usr("./usr/lib/modules/7.3/vmlinuz", "usr/lib/modules/7.3/config")]
    #[case::lib("./lib/modules/7.3/vmlinuz", "boot/config-7.3")]
    fn image_and_config_are_found(#[case] image: &str, #[case] config: &str) {
        let (dir, result) = unpack_members(&[
            (FILE, "./boot/System.map-6.1", b"m"),
            (FILE, image, b"k"),
            (FILE, config, b"c"),
        ]);
        let out = dir.path().join("out");
        let want = Unpacked { image: Some(out.join("vmlinuz")), config: Some(out.join("config")) };
        assert_eq!(result.unwrap(), want);
        assert_eq!(std::fs::read(out.join("vmlinuz")).unwrap(), b"k");
    }

    #[rstest]
    #[case::climbing(FILE, "boot/../../vmlinuz-1", false)]
    #[case::climbing_into_place(FILE, "../boot/vmlinuz-1", false)]
    #[case::absolute(FILE, "/boot/vmlinuz-1", false)]
    #[case::symlink(tar::EntryType::Symlink, "boot/vmlinuz-1", true)]
    #[case::hardlink(tar::EntryType::Link, "boot/vmlinuz-1", true)]
    #[case::device(tar::EntryType::Char, "boot/vmlinuz-1", true)]
    fn hostile_members_write_nothing(
        #[case] kind: tar::EntryType,
        #[case] path: &str,
        #[case] refused: bool,
    ) {
        let (dir, result) = unpack_members(&[(kind, path, b"/etc/passwd")]);
        match result {
            Ok(unpacked) => assert!(!refused && unpacked == Unpacked::default()),
            Err(error) => assert!(refused && matches!(error, DebError::Refused { .. }), "{error}"),
        }
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(std::fs::read_dir(dir.path().join("out")).unwrap().count(), 0);
    }

    #[test]
    fn a_link_to_a_folder_is_not_gone_through() {
        let (dir, result) =
            unpack_members(&[(tar::EntryType::Symlink, "boot", b"/tmp"), (FILE, "boot/vmlinuz-1", b"k")]);
        assert_eq!(result.unwrap().image, Some(dir.path().join("out/vmlinuz")));
    }

    #[test]
    fn two_images_are_refused() {
        let (_dir, result) =
            unpack_members(&[(FILE, "boot/vmlinuz-1", b"k"), (FILE, "boot/vmlinuz-2", b"k")]);
        assert!(matches!(result, Err(DebError::Refused { .. })));
    }

    #[rstest]
    #[case::there(FILE, "./usr/src/linux-source-7.3.tar.xz", Some(true))]
    #[case::elsewhere(FILE, "usr/share/linux-source-7.3.tar.xz", Some(false))]
    #[case::climbing(FILE, "usr/src/../src/linux-source-7.3.tar.xz", Some(false))]
    #[case::patch(FILE, "usr/src/linux-patch-7.3-rt.patch.xz", Some(false))]
    #[case::link(tar::EntryType::Symlink, "usr/src/linux-source-7.3.tar.xz", None)]
    fn sources_are_a_regular_file_in_their_place(
        #[case] kind: tar::EntryType,
        #[case] path: &str,
        #[case] found: Option<bool>,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (deb, out) = (dir.path().join("x.deb"), dir.path().join("out"));
        std::fs::create_dir(&out).unwrap();
        deb_of(&deb, "data.tar.xz", &xz(&tar_of(&[(FILE, "./usr/share/doc/x", b"d"), (kind, path, b"src")])));
        match (unpack_sources(&deb, &out), found) {
            (Ok(Some(file)), Some(true)) => assert_eq!(std::fs::read(file).unwrap(), b"src"),
            (Ok(None), Some(false)) | (Err(DebError::Refused { .. }), None) => {
                assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0);
            }
            (other, _) => panic!("{other:?}"),
        }
    }

    #[rstest]
    #[case::not_ar(b"hello, world, this is no archive".as_slice())]
    #[case::empty(b"".as_slice())]
    fn other_files_are_refused(#[case] bytes: &[u8]) {
        let dir = tempfile::tempdir().unwrap();
        let deb = dir.path().join("x.deb");
        std::fs::write(&deb, bytes).unwrap();
        unpack(&deb, dir.path()).unwrap_err();
    }

    #[test]
    fn a_truncated_package_and_an_unknown_compression_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let deb = dir.path().join("x.deb");
        let noise: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let packed = xz(&tar_of(&[(FILE, "boot/vmlinuz-1", &noise)]));
        deb_of(&deb, "data.tar.xz", &packed);
        let whole = std::fs::read(&deb).unwrap();
        std::fs::write(&deb, &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(unpack(&deb, dir.path()), Err(DebError::Read { path, .. }) if path == deb));
        deb_of(&deb, "data.tar.br", b"");
        let DebError::Read { source, .. } = unpack(&deb, dir.path()).unwrap_err() else { panic!("unpacked") };
        assert!(source.to_string().contains(".br"), "{source}");
    }
}
