//! The private folder of a machine, and the removal of those whose harness was killed together with its guard.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Once;
use tempfile::TempDir;

/// What the names of such folders begin with.
const PREFIX: &str = "conform-";
/// In each such folder: locked for as long as its harness lives, and there only once it is locked. A folder without one
/// is somebody else's, or just being made.
const HELD: &str = "held";

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
        // QEMU's monitor is in it, and who may connect to that commands QEMU.
        let private = Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix(PREFIX).permissions(private).tempdir_in(place)?;
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

/// Removes this user's folders in `place` that no harness has any more. What cannot be removed is left to the next run.
fn sweep(place: &Path) {
    let user = nix::unistd::geteuid().as_raw();
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let is_named = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // Of the entry itself: a link to a folder is none.
        let is_own = entry.metadata().is_ok_and(|facts| facts.is_dir() && facts.uid() == user);
        if is_named && is_own && is_left(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether a harness had `folder`, and has it no more.
fn is_left(folder: &Path) -> bool {
    // Anybody may call a folder so, and a pipe in it so: to open one would wait for its other end.
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let held = File::options().read(true).custom_flags(flags).open(folder.join(HELD));
    held.is_ok_and(|held| held.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_can_enter() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::within(place.path()).unwrap();
        assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_nobody_holds_is_removed_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let lives = Folder::within(place.path()).unwrap();
        let [killed, under_way, others] =
            ["conform-killed", "conform-under-way", "others"].map(|name| place.path().join(name));
        for folder in [&killed, &under_way, &others] {
            fs::create_dir(folder).unwrap();
        }
        for folder in [&killed, &others] {
            File::create(folder.join(HELD)).unwrap();
        }
        sweep(place.path());
        let there = [lives.path(), &killed, &under_way, &others].map(Path::exists);
        assert_eq!(there, [true, false, true, true]);
    }
}
