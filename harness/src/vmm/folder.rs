//! The private folder of a machine, and the removal of those whose harness was killed together with its guard.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// What the names of such folders begin with.
const PREFIX: &str = "conform-";
/// In each such folder: locked for as long as its harness lives, and there only once it is locked.
const HELD: &str = "held";
/// Folders without such a file are under way, or of a harness that was killed there; these are old enough.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A folder that only this user can enter; removed when dropped, with all that it holds.
#[derive(Debug)]
pub(super) struct Folder {
    folder: TempDir,
    /// The kernel releases the lock however this process ends.
    _held: File,
}

impl Folder {
    /// A new one: in memory where there is such a place, because the channel is. The first of a process also removes what
    /// others have left behind.
    pub(super) fn new() -> io::Result<Self> {
        static SWEPT: Once = Once::new();
        let places = [PathBuf::from("/dev/shm"), std::env::temp_dir()];
        SWEPT.call_once(|| places.iter().for_each(|place| sweep(place)));
        Self::within(&places[0]).or_else(|_| Self::within(&places[1]))
    }

    fn within(place: &Path) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(place)?;
        let making = folder.path().join("making");
        let held = File::create_new(&making)?;
        held.lock()?;
        fs::rename(&making, folder.path().join(HELD))?;
        Ok(Self { folder, _held: held })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes the folders in `place` that no harness has any more. What cannot be removed is left to the next run: it may
/// be another user's.
fn sweep(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && entry.file_name().to_string_lossy().starts_with(PREFIX) && is_left(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether nobody has `folder` any more.
fn is_left(folder: &Path) -> bool {
    match File::open(folder.join(HELD)) {
        Ok(held) => held.try_lock().is_ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let changed = fs::metadata(folder).and_then(|facts| facts.modified());
            changed.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > ABANDONED))
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_is_removed_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let lives = Folder::within(place.path()).unwrap();
        let killed = place.path().join("conform-killed");
        let old = place.path().join("conform-old");
        let young = place.path().join("conform-young");
        let others = place.path().join("others");
        for folder in [&killed, &old, &young, &others] {
            fs::create_dir(folder).unwrap();
        }
        File::create(killed.join(HELD)).unwrap();
        File::open(&old).unwrap().set_modified(SystemTime::now() - 2 * ABANDONED).unwrap();
        sweep(place.path());
        let there = [lives.path(), &killed, &old, &young, &others].map(Path::exists);
        assert_eq!(there, [true, false, false, true, true]);
    }
}
