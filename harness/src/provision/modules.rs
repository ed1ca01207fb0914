//! The few kernel modules that triggers need, taken out of the kernel's package or build and packed as an initramfs of
//! their own, [`ARCHIVE`] beside the image.
//!
//! Up to 6.18 Debian ships them with the image, later in `linux-modules-<release>`, which leaves the archive sooner than
//! the image does. A kernel whose modules cannot be had runs without them: the probes that need one say so.

use super::package::{self, Compression, Limited};
use crate::whole::{self, Readers};
use cpio::newc;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Under this name the archive lies beside the image. The number goes up with each change of what is wanted, so that a
/// cache is packed anew.
pub const ARCHIVE: &str = "modules-6.cpio";
/// In its place where no suite had the kernel's modules, by lists that were fetched for the question: so that it is not
/// asked each time. Named after the archive, as a new wish is a new question.
pub const NONE: &str = "modules-6.none";
/// The names that it had before. What lies under one serves a kernel whose modules cannot be had any more.
const OLDER: &[&str] =
    &["modules-5.cpio", "modules-4.cpio", "modules-3.cpio", "modules-2.cpio", "modules.cpio"];
/// Where the guest finds them (`probes/src/triggers/modules.rs`).
const FOLDER: &str = "modules";
/// What is taken. A name that a kernel does not have is built in there, or gone.
const WANTED: &[&str] = &[
    "ah4",
    "auth_rpcgss",
    "cachefiles",
    "dm-bufio",
    "dm-mod",
    "dm-verity",
    "dns_resolver",
    "fscache",
    "fuse",
    "grace",
    "ip6_udp_tunnel",
    "libcrc32c",
    "lockd",
    "loop",
    "netfs",
    "nf_tables",
    "nfnetlink",
    "nfs",
    "nfs_acl",
    "nfsd",
    "nfsv4",
    "overlay",
    "reed_solomon",
    "sctp",
    "sunrpc",
    "tcp_dctcp",
    "tun",
    "udp_tunnel",
    "xfrm_algo",
    "xfrm_user",
];
/// No module comes near this.
const MAX_MODULE: u64 = 32 << 20;
/// Nor do all of them together come near this.
const MAX_TOGETHER: u64 = 96 << 20;

/// The archive for the image at `image`, if it has been made; an older one where there is no other.
#[must_use]
pub fn beside(image: &Path) -> Option<PathBuf> {
    let folder = image.parent()?;
    let names = std::iter::once(&ARCHIVE).chain(OLDER);
    names.map(|name| folder.join(name)).find(|path| path.exists())
}

/// Whether the archive for the image at `image` has been made of what is wanted now.
#[must_use]
pub fn packed(image: &Path) -> bool {
    image.parent().is_some_and(|folder| folder.join(ARCHIVE).exists())
}

/// Takes the modules out of the package `deb` and packs them into `folder`. Returns how many there were; with none,
/// nothing is written.
///
/// # Errors
/// The system's error while reading or writing; a package that is none.
pub fn pack(deb: &Path, folder: &Path) -> io::Result<usize> {
    pack_all(&read(deb)?, folder)
}

/// Takes the modules that a build has installed under `installed` and packs them into `folder`. Returns how many there
/// were; with none, nothing is written.
///
/// # Errors
/// The system's error while reading or writing.
pub fn pack_built(installed: &Path, folder: &Path) -> io::Result<usize> {
    let mut modules = BTreeMap::new();
    let mut folders = vec![installed.to_owned()];
    while let Some(current) = folders.pop() {
        for entry in std::fs::read_dir(&current)? {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, entry.path());
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file()
                && path.extension().is_some_and(|extension| extension == "ko")
                && let Some(name) = path.file_stem().and_then(|name| name.to_str())
                && WANTED.contains(&name)
            {
                modules.insert(name.to_owned(), std::fs::read(&path)?);
            }
        }
    }
    pack_all(&modules, folder)
}

/// Writes the archive, all at once.
fn pack_all(modules: &BTreeMap<String, Vec<u8>>, folder: &Path) -> io::Result<usize> {
    if modules.is_empty() {
        return Ok(0);
    }
    whole::write(&folder.join(ARCHIVE), Readers::Owner, |file| {
        newc::Builder::new(FOLDER)
            .set_mode_file_type(newc::ModeFileType::Directory)
            .mode(0o040_755)
            .write(&mut *file, 0)
            .finish()?;
        for (name, content) in modules {
            let size =
                u32::try_from(content.len()).map_err(|_| io::Error::other("a module exceeds 4 GiB"))?;
            let name = format!("{FOLDER}/{name}.ko");
            let mut entry = newc::Builder::new(&name).mode(0o100_644).write(&mut *file, size);
            entry.write_all(content)?;
            entry.finish()?;
        }
        newc::trailer(&mut *file)?;
        file.sync_all()
    })?;
    Ok(modules.len())
}

/// The initramfs `first` followed by the modules of `second`, as the kernel unpacks several: one after the other, from a
/// multiple of four bytes on.
///
/// The modules go without their signatures. To check them is to hash 6 MB, which takes an emulated processor half a
/// second for each kernel; a kernel that is not locked down takes a module without one, and notes that it is tainted by it
/// (6.12 kernel/module/signing.c, `module_sig_check`).
///
/// # Errors
/// The system's error while reading; an archive that is none.
pub fn joined(first: &Path, second: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = std::fs::read(first)?;
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let mut left = File::open(second)?;
    loop {
        let mut entry = newc::Reader::new(left)?;
        if entry.entry().is_trailer() {
            break;
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        let unsigned = without_signature(&content);
        let size = u32::try_from(unsigned.len()).map_err(io::Error::other)?;
        let head = newc::Builder::new(entry.entry().name()).mode(entry.entry().mode());
        let mut copy = head.write(&mut bytes, size);
        copy.write_all(unsigned)?;
        copy.finish()?;
        left = entry.finish()?;
    }
    newc::trailer(&mut bytes)?;
    Ok(bytes)
}

/// A module without the signature that may follow it: its bytes, twelve that say at their end how many those are, and a
/// marker (6.12 include/linux/module_signature.h).
fn without_signature(module: &[u8]) -> &[u8] {
    let signed = module.strip_suffix(b"~Module signature appended~\n").and_then(|rest| {
        let (rest, length) = rest.split_last_chunk()?;
        let end = rest.len().checked_sub(8)?;
        let signature = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        rest.get(..end.checked_sub(signature)?)
    });
    signed.unwrap_or(module)
}

/// Name and content of the wanted modules of a package.
fn read(deb: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut modules = BTreeMap::new();
    let mut left = MAX_TOGETHER;
    package::members(File::open(deb)?, |member| {
        let wanted = member.path.file_name().and_then(|it| it.to_str()?.split_once(".ko"));
        let wanted = wanted.filter(|(name, _)| member.is_file && WANTED.contains(name));
        let Some((name, compression)) =
            wanted.and_then(|(name, suffix)| Some((name, Compression::of(suffix)?)))
        else {
            return Ok(ControlFlow::Continue(()));
        };
        let mut bytes = Vec::new();
        let content = compression.reader(member.content)?;
        Limited::new(content, MAX_MODULE.min(left))
            .read_to_end(&mut bytes)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", member.path.display())))?;
        left = left.saturating_sub(bytes.len() as u64);
        modules.insert(name.to_owned(), bytes);
        Ok(ControlFlow::Continue(()))
    })
    .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", deb.display())))?;
    Ok(modules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision::deb::tests::deb_of;
    use rstest::rstest;

    fn deb_of_files(path: &Path, files: &[(&str, &[u8])]) {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, *content).unwrap();
        }
        deb_of(path, "data.tar", &builder.into_inner().unwrap());
    }

    #[test]
    fn wanted_modules_are_packed_and_others_left() {
        let folder = tempfile::tempdir().unwrap();
        let deb = folder.path().join("some.deb");
        deb_of_files(
            &deb,
            &[("./lib/modules/1/kernel/tun.ko", b"a tunnel"), ("./lib/modules/1/other.ko", b"no")],
        );
        assert_eq!(pack(&deb, folder.path()).unwrap(), 1);
        let packed = std::fs::read(beside(&folder.path().join("vmlinuz")).unwrap()).unwrap();
        let text = String::from_utf8_lossy(&packed);
        assert!(text.contains("modules/tun.ko") && text.contains("a tunnel") && !text.contains("other"));
    }

    #[test]
    fn a_module_that_unpacks_to_too_much_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let deb = folder.path().join("some.deb");
        let bomb = crate::provision::deb::tests::xz(&vec![0; 33 << 20]);
        deb_of_files(&deb, &[("./lib/modules/1/kernel/tun.ko.xz", &bomb)]);
        let error = pack(&deb, folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("tun.ko.xz: it unpacks to more than") && error.contains("some.deb"),
            "{error}"
        );
        assert!(!packed(&folder.path().join("vmlinuz")));
    }

    #[test]
    fn a_link_is_no_module() {
        let folder = tempfile::tempdir().unwrap();
        let deb = folder.path().join("some.deb");
        let link = (tar::EntryType::Symlink, "lib/modules/1/tun.ko", b"/etc/passwd".as_slice());
        deb_of(&deb, "data.tar", &crate::provision::deb::tests::tar_of(&[link]));
        assert_eq!(pack(&deb, folder.path()).unwrap(), 0);
    }

    #[test]
    fn what_a_build_installed_is_found_in_its_folders() {
        let folder = tempfile::tempdir().unwrap();
        let installed = folder.path().join("installed");
        assert!(pack_built(&installed, folder.path()).is_err());
        let deep = installed.join("lib/modules/5.7.14/kernel/net");
        std::fs::create_dir_all(&deep).unwrap();
        assert_eq!(pack_built(&installed, folder.path()).unwrap(), 0);
        std::fs::write(deep.join("xfrm_algo.ko"), b"algorithms").unwrap();
        std::fs::write(deep.join("unwanted.ko"), b"no").unwrap();
        std::os::unix::fs::symlink("/", deep.join("build")).unwrap();
        assert_eq!(pack_built(&installed, folder.path()).unwrap(), 1);
        assert!(packed(&folder.path().join("vmlinuz")));
    }

    #[test]
    fn an_older_archive_serves_until_there_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("vmlinuz");
        assert!(beside(&image).is_none() && !packed(&image));
        std::fs::write(folder.path().join(OLDER[0]), b"old").unwrap();
        assert!(beside(&image).unwrap().ends_with(OLDER[0]) && !packed(&image));
        std::fs::write(folder.path().join(ARCHIVE), b"new").unwrap();
        assert!(beside(&image).unwrap().ends_with(ARCHIVE) && packed(&image));
    }

    #[test]
    fn the_second_archive_begins_at_a_multiple_of_four() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("one"), b"12345").unwrap();
        let modules = BTreeMap::from([("tun".to_owned(), b"a tunnel".to_vec())]);
        assert_eq!(pack_all(&modules, folder.path()).unwrap(), 1);
        let both = joined(&path("one"), &path(ARCHIVE)).unwrap();
        assert_eq!(both[512..], std::fs::read(path(ARCHIVE)).unwrap());
        std::fs::write(path("none"), b"second").unwrap();
        assert!(joined(&path("one"), &path("none")).is_err());
    }

    #[rstest]
    #[case(b"code", b"code")]
    #[case(b"codesign\0\0\0\0\0\0\0\0\0\0\0\x04~Module signature appended~\n", b"code")]
    #[case(b"\0\0\0\x04~Module signature appended~\n", b"\0\0\0\x04~Module signature appended~\n")]
    #[case(
        b"\0\0\0\0\0\0\0\0\xff\xff\xff\xff~Module signature appended~\n",
        b"\0\0\0\0\0\0\0\0\xff\xff\xff\xff~Module signature appended~\n"
    )]
    fn signatures(#[case] module: &[u8], #[case] bare: &[u8]) {
        assert_eq!(without_signature(module), bare);
    }
}
