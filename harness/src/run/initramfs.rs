//! The initramfs: a handful of empty folders and the guest binary as `/init`, in the `newc` form that every kernel
//! unpacks. Uncompressed, because unpacking costs more under TCG than reading.

use super::setup::{Job, Setup};
use crate::provision::modules;
use crate::whole::{self, Readers};
use cpio::newc;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const FOLDERS: &[&str] = &["dev", "proc", "sys", "tmp", "run", "etc", "root"];

/// Writes an initramfs with `guest` as its `/init` to `target`, atomically.
///
/// # Errors
/// The system's error while reading `guest` or writing `target`.
pub fn write(guest: &Path, target: &Path) -> io::Result<()> {
    let guest = std::fs::read(guest)?;
    whole::write(target, Readers::Owner, |file| {
        pack(&guest, &mut *file)?;
        file.sync_all()
    })
}

/// Why a kernel has no initramfs of its own.
#[derive(Debug, thiserror::Error)]
#[error("the initramfs cannot be joined with {}: {source}; make room if the disk is full, and run again", archive.display())]
pub(super) struct NotJoined {
    archive: PathBuf,
    source: io::Error,
}

/// The guest's initramfs, followed by that of the kernel's modules, if it has one. Where they cannot be joined, as on a full
/// disk, there is no machine: its probes would miss modules that the kernel has.
pub(super) fn of_kernel(setup: &Setup, job: &Job) -> Result<PathBuf, NotJoined> {
    let mut whole = setup.initramfs.clone();
    let image = job.image.sha256.get(..16).unwrap_or_default();
    let more = [("modules", modules::beside(&job.image.path)), ("brought", setup.bring.clone())];
    for (word, archive) in more {
        let Some(archive) = archive else { continue };
        let joined = whole.with_file_name(format!("initramfs-{image}-{word}.cpio"));
        modules::join(&whole, &archive, &joined).map_err(|source| NotJoined { archive, source })?;
        whole = joined;
    }
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
    #[test]
    fn init_is_there_and_executable() {
        let mut archive = Vec::new();
        super::pack(b"binary", &mut archive).unwrap();
        let mut rest: Box<dyn std::io::Read> = Box::new(std::io::Cursor::new(archive));
        let mut found = false;
        loop {
            let mut entry = cpio::newc::Reader::new(rest).unwrap();
            if entry.entry().is_trailer() {
                break;
            }
            if entry.entry().name() == "init" {
                let mut text = String::new();
                std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
                assert_eq!((text.as_str(), entry.entry().mode()), ("binary", 0o100_755));
                found = true;
            }
            rest = Box::new(entry.finish().unwrap());
        }
        assert!(found);
    }
}
