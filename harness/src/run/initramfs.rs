//! The initramfs: a handful of empty folders and the guest binary as `/init`, in the `newc` form that every kernel
//! unpacks. Uncompressed, because unpacking costs more under TCG than reading.
//!
//! Every one of them is a file that is named by what is in it, so that runs of other guests, kernels and archives in the
//! same tree leave each other's alone. What nobody has used for a day goes.

use super::setup::{Job, Setup};
use crate::provision::modules;
use crate::whole::{self, Readers};
use cpio::newc;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const FOLDERS: &[&str] = &["dev", "proc", "sys", "tmp", "run", "etc", "root"];
/// What the files' names begin with; they went by other names once.
const PREFIX: &str = "initramfs";
const SUFFIX: &str = ".cpio";
/// A machine reads its file when it is started, and each start is a use.
const UNUSED: Duration = Duration::from_secs(24 * 3600);

/// An initramfs with `guest` as its `/init`, in `folder`, and removes old ones there.
///
/// # Errors
/// The system's error while reading `guest` or writing.
pub fn packed(guest: &Path, folder: &Path) -> io::Result<PathBuf> {
    let guest = fs::read(guest)?;
    let mut bytes = Vec::new();
    pack(&guest, &mut bytes)?;
    tidy(folder);
    kept(&bytes, folder)
}

/// The file of `folder` that has `bytes`, written whole if it is not there, and used now.
fn kept(bytes: &[u8], folder: &Path) -> io::Result<PathBuf> {
    let digest = format!("{:x}", Sha256::digest(bytes));
    let path = folder.join(format!("{PREFIX}-{}{SUFFIX}", digest.get(..16).unwrap_or(&digest)));
    if fs::read(&path).ok().as_deref() != Some(bytes) {
        // A crash of the host may leave less under the name, which is seen when it is used.
        whole::write(&path, Readers::Owner, |file| file.write_all(bytes))?;
    }
    use_now(&path)?;
    Ok(path)
}

fn use_now(path: &Path) -> io::Result<()> {
    File::open(path)?.set_modified(SystemTime::now())
}

/// Removes what has not been used for long. What cannot be removed is left to the next run.
fn tidy(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_one = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if is_one && age().is_some_and(|age| age > UNUSED) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Why a kernel has no initramfs of its own.
#[derive(Debug, thiserror::Error)]
#[error("the initramfs cannot be joined with {}: {source}; make room if the disk is full, and run again", archive.display())]
pub(super) struct NotJoined {
    /// What was to be joined with it; where there is nothing, the initramfs itself.
    archive: PathBuf,
    source: io::Error,
}

/// The guest's initramfs, followed by that of the kernel's modules, if it has one. Where they cannot be joined, as on a full
/// disk, there is no machine: its probes would miss modules that the kernel has.
pub(super) fn of_kernel(setup: &Setup, job: &Job) -> Result<PathBuf, NotJoined> {
    let mut whole = setup.initramfs.clone();
    let folder = setup.initramfs.parent().unwrap_or(Path::new("."));
    for archive in [modules::beside(&job.image.path), setup.bring.clone()].into_iter().flatten() {
        let joined = modules::joined(&whole, &archive).and_then(|bytes| kept(&bytes, folder));
        whole = joined.map_err(|source| NotJoined { archive, source })?;
    }
    // Where nothing was joined with it, or two were.
    use_now(&setup.initramfs).map_err(|source| NotJoined { archive: setup.initramfs.clone(), source })?;
    Ok(whole)
}

fn pack(guest: &[u8], mut target: impl Write) -> io::Result<()> {
    let folder = |name: &str| {
        newc::Builder::new(name).set_mode_file_type(newc::ModeFileType::Directory).mode(0o040_755)
    };
    for name in FOLDERS {
        folder(name).write(&mut target, 0).finish()?;
    }
    let size = u32::try_from(guest.len()).map_err(|_| io::Error::other("the guest binary exceeds 4 GiB"))?;
    let mut init = newc::Builder::new("init").mode(0o100_755).write(&mut target, size);
    init.write_all(guest)?;
    init.finish()?;
    newc::trailer(&mut target)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .filter(|it| it != "stage")
            .collect();
        names.sort();
        names
    }

    /// Times decide nothing: a copy of another tree's first stage may be older than what was packed of this one's.
    #[test]
    fn another_first_stage_has_another_file_and_leaves_the_first_one_alone() {
        let folder = tempfile::tempdir().unwrap();
        let stage = folder.path().join("stage");
        let packed = |content: &str| {
            fs::write(&stage, content).unwrap();
            File::open(&stage).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
            packed(&stage, folder.path()).unwrap()
        };
        let (one, other) = (packed("one"), packed("other"));
        assert_ne!(one, other);
        let has = |path: &Path, word: &[u8]| fs::read(path).unwrap().windows(word.len()).any(|it| it == word);
        assert!(has(&one, b"one") && has(&other, b"other"));
        // What somebody damaged is packed anew.
        fs::write(&one, "").unwrap();
        assert_eq!(packed("one"), one);
        assert!(has(&one, b"one"));
    }

    #[test]
    fn what_was_not_used_for_long_goes_and_what_was_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("stage"), "first").unwrap();
        let used = packed(&path("stage"), folder.path()).unwrap();
        let before = SystemTime::now() - UNUSED - Duration::from_secs(60);
        for name in ["initramfs.cpio", "initramfs-0123-modules.cpio", "initramfs-new.cpio", "took.cpio"] {
            let file = File::create(path(name)).unwrap();
            if !name.contains("new") {
                file.set_modified(before).unwrap();
            }
        }
        File::open(&used).unwrap().set_modified(before).unwrap();
        let setup = Setup {
            initramfs: used.clone(),
            ..crate::run::tests::setup(tempfile::tempdir().unwrap().path())
        };
        let job = crate::run::tests::job(folder.path());
        assert_eq!(of_kernel(&setup, &job).unwrap(), used);
        fs::write(path("stage"), "second").unwrap();
        let second = packed(&path("stage"), folder.path()).unwrap();
        let [used, second] = [used, second].map(|it| it.file_name().unwrap().to_str().unwrap().to_owned());
        let mut there = vec![used, second, "initramfs-new.cpio".into(), "took.cpio".into(), "vmlinuz".into()];
        there.sort();
        assert_eq!(names(folder.path()), there);
    }

    /// A second run of the same kernel with another `--bring` does not replace what the first one's machines boot.
    #[test]
    fn each_archive_that_is_brought_has_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (mut setup, job) =
            (crate::run::tests::setup(folder.path()), crate::run::tests::job(folder.path()));
        let mut bring = |content: &[u8]| {
            let archive = folder.path().join("brought");
            let mut bytes = Vec::new();
            pack(content, &mut bytes).unwrap();
            fs::write(&archive, bytes).unwrap();
            setup.bring = Some(archive);
            of_kernel(&setup, &job).unwrap()
        };
        let (one, other) = (bring(b"one"), bring(b"other"));
        assert_ne!(one, other);
        assert_eq!(bring(b"one"), one);
    }

    #[test]
    fn init_is_there_and_executable() {
        let mut archive = Vec::new();
        pack(b"binary", &mut archive).unwrap();
        let mut rest: Box<dyn io::Read> = Box::new(io::Cursor::new(archive));
        let mut found = false;
        loop {
            let mut entry = newc::Reader::new(rest).unwrap();
            if entry.entry().is_trailer() {
                break;
            }
            if entry.entry().name() == "init" {
                let mut text = String::new();
                io::Read::read_to_string(&mut entry, &mut text).unwrap();
                assert_eq!((text.as_str(), entry.entry().mode()), ("binary", 0o100_755));
                found = true;
            }
            rest = Box::new(entry.finish().unwrap());
        }
        assert!(found);
    }
}
