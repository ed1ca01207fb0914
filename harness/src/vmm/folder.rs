//! The private folder of a machine, with room for its channel, and the removal of those whose harness was killed together
//! with its guard.

use nix::errno::Errno;
use nix::fcntl::posix_fallocate;
use std::fmt;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;
use tempfile::TempDir;

/// What the names of such folders begin with.
const PREFIX: &str = "conform-";
/// In each such folder: locked for as long as its harness lives, and there only once it is locked. A folder without one
/// is somebody else's, just being made, or half removed.
const HELD: &str = "held";
/// The same while the folder is being made.
const MAKING: &str = "making";
/// How long a folder without [`HELD`] may be in the making, or be removed by somebody else.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A folder that only this user can enter; removed when dropped, with all that it holds.
#[derive(Debug)]
pub(super) struct Folder {
    folder: TempDir,
    /// The kernel releases the lock however this process ends.
    _held: File,
}

/// There is no place for a machine's folder.
#[derive(Debug, thiserror::Error)]
pub struct NoPlace {
    /// What was tried, and why it will not do.
    tried: Vec<(PathBuf, io::Error)>,
    /// What the channel takes.
    bytes: u64,
}

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no place for a virtual machine's folder, which takes {} MiB:", self.bytes >> 20)?;
        for (at, (place, why)) in self.tried.iter().enumerate() {
            write!(f, "{} {}: {why}", if at == 0 { "" } else { ";" }, place.display())?;
        }
        write!(
            f,
            "; make room in one of these, let TMPDIR name a folder that has it, or, in a container, give it a larger /dev/shm (--shm-size)"
        )
    }
}

impl Folder {
    /// A new one with a file `name` of `bytes`: in memory where there is room, because the channel is. The first of a process
    /// also removes what others have left behind.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub(super) fn with(name: &str, bytes: u64) -> Result<(Self, File), NoPlace> {
        static SWEPT: Once = Once::new();
        let mut places = vec![PathBuf::from("/dev/shm"), std::env::temp_dir()];
        places.dedup();
        SWEPT.call_once(|| places.iter().for_each(|place| sweep(place)));
        Self::in_one_of(&places, name, bytes)
    }

    /// In the first of `places` that has room.
    fn in_one_of(places: &[PathBuf], name: &str, bytes: u64) -> Result<(Self, File), NoPlace> {
        let mut tried = Vec::new();
        for place in places {
            let made = Self::within(place).and_then(|folder| {
                let file = reserved(&folder.path().join(name), bytes)?;
                Ok((folder, file))
            });
            match made {
                Ok(made) => return Ok(made),
                Err(why) => tried.push((place.clone(), why)),
            }
        }
        Err(NoPlace { tried, bytes })
    }

    fn within(place: &Path) -> io::Result<Self> {
        // QEMU's monitor is in it, and who may connect to that commands QEMU.
        let private = Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix(PREFIX).permissions(private).tempdir_in(place)?;
        let making = folder.path().join(MAKING);
        let held = File::create_new(&making)?;
        held.lock()?;
        fs::rename(&making, folder.path().join(HELD))?;
        Ok(Self { folder, _held: held })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// A new file of `bytes` zeros that has them. Both sides map the channel: a page of it that its file system, once full, no
/// longer has is no error but a `SIGBUS` to whoever touches it first, harness or QEMU.
fn reserved(path: &Path, bytes: u64) -> io::Result<File> {
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    let length = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
    loop {
        match posix_fallocate(&file, 0, length) {
            // A signal that came meanwhile; nothing starts it again.
            Err(Errno::EINTR) => {}
            done => return done.map(|()| file).map_err(io::Error::from),
        }
    }
}

/// Removes this user's folders in `place` that no harness has any more. What cannot be removed is left to the next run.
fn sweep(place: &Path) {
    let user = nix::unistd::geteuid().as_raw();
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        // Of the entry itself: a link to a folder is none.
        let Ok(facts) = entry.metadata() else { continue };
        let is_own = facts.is_dir() && facts.uid() == user;
        if is_own && (is_left(&entry.path()) || is_a_remnant(&entry.path(), rest, &facts)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether a harness had `folder`, and has it no more.
fn is_left(folder: &Path) -> bool {
    opened(&folder.join(HELD)).is_ok_and(|held| held.try_lock().is_ok())
}

/// Whether `folder`, with `rest` after the prefix, is one whose maker did not come as far as to hold it, or whose removal
/// did not come to its end: as such folders are named and closed, and untouched for long.
fn is_a_remnant(folder: &Path, rest: &str, facts: &Metadata) -> bool {
    let is_as_made = rest.len() == 6
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && facts.mode() & 0o777 == 0o700;
    let is_old = facts.modified().is_ok_and(|then| then.elapsed().is_ok_and(|age| age > ABANDONED));
    let is_gone =
        |name: &str| opened(&folder.join(name)).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let nobody_makes_it = || opened(&folder.join(MAKING)).is_ok_and(|making| making.try_lock().is_ok());
    is_as_made && is_old && is_gone(HELD) && (is_gone(MAKING) || nobody_makes_it())
}

/// A file to be locked. Anybody may call a folder so, and a pipe in it so: to open one would wait for its other end.
fn opened(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path)
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
    fn the_channel_has_all_its_pages() {
        let place = tempfile::tempdir().unwrap();
        let (_folder, file) = Folder::in_one_of(&[place.path().to_owned()], "channel", 1 << 20).unwrap();
        let facts = file.metadata().unwrap();
        assert_eq!(facts.len(), 1 << 20);
        assert!(facts.blocks() * 512 >= 1 << 20, "{} blocks", facts.blocks());
    }

    #[test]
    fn the_next_place_is_taken_and_without_one_all_are_named() {
        let (there, gone) = (tempfile::tempdir().unwrap(), PathBuf::from("/no/such/place"));
        let made = Folder::in_one_of(&[gone.clone(), there.path().to_owned()], "channel", 1);
        assert!(made.unwrap().0.path().starts_with(there.path()));
        // More than any file may have.
        let error =
            Folder::in_one_of(&[gone, there.path().to_owned()], "channel", i64::MAX as u64).unwrap_err();
        let text = error.to_string();
        let (first, second) = ("/no/such/place: No such file", &format!("; {}: ", there.path().display()));
        assert!(text.contains(first) && text.contains(second) && text.contains("--shm-size"), "{text}");
        assert_eq!(fs::read_dir(there.path()).unwrap().count(), 0, "nothing stays where there was no room");
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

    #[test]
    fn what_was_half_made_or_half_removed_goes_when_it_is_old() {
        let place = tempfile::tempdir().unwrap();
        let [old, removed, made, new, open, named] =
            ["old111", "old222", "old333", "new111", "old444", "my-records"]
                .map(|name| place.path().join(format!("{PREFIX}{name}")));
        for folder in [&old, &removed, &made, &new, &open, &named] {
            fs::create_dir(folder).unwrap();
            fs::set_permissions(folder, Permissions::from_mode(0o700)).unwrap();
        }
        fs::write(removed.join("over"), "1").unwrap();
        let making = File::create(made.join(MAKING)).unwrap();
        making.lock().unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        // What a link names is not gone into.
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("kept"), "").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), old.join("link")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), place.path().join("conform-link11")).unwrap();
        let before = std::time::SystemTime::now() - ABANDONED - Duration::from_secs(60);
        for folder in [&old, &removed, &made, &open, &named] {
            File::open(folder).unwrap().set_modified(before).unwrap();
        }
        let there = || [&old, &removed, &made, &new, &open, &named].map(|folder| folder.exists());
        sweep(place.path());
        assert_eq!(there(), [false, false, true, true, true, true]);
        drop(making);
        sweep(place.path());
        assert_eq!(there(), [false, false, false, true, true, true]);
        assert!(elsewhere.path().join("kept").exists());
    }
}
