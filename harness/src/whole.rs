//! Writing files so that who reads them finds the old one or the new one, whole: also when this program is killed meanwhile,
//! or the disk is full.
//!
//! What is under way is a file beside the one that it is to be. A program that is killed leaves it there; who writes into the
//! same folder an hour later or more removes it.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

const PREFIX: &str = ".half-";
const SUFFIX: &str = ".tmp";
/// Nothing here takes as long to write.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Who made it: the cache's files, and a run's.
    Owner,
    /// Everybody, as is usual for sources and for what is published.
    All,
}

/// Puts what `content` writes at `path`, whose folder is there.
///
/// # Errors
/// The system's, and those of `content`; what was at `path` is then as it was, and nothing is left beside it.
pub fn write(
    path: &Path,
    readers: Readers,
    content: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tidy(folder);
    let mut file = tempfile::Builder::new().prefix(PREFIX).suffix(SUFFIX).tempfile_in(folder)?;
    content(file.as_file_mut())?;
    if readers == Readers::All {
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    }
    file.persist(path).map(drop).map_err(|problem| problem.error)
}

/// Removes what programs have left that were killed. What cannot be removed is left to the next one.
fn tidy(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let half = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if half && age().is_some_and(|age| age > ABANDONED) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::time::SystemTime;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_cannot_be_written_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for (readers, mode) in [(Readers::Owner, 0o600), (Readers::All, 0o644)] {
            write(&path, readers, |file| file.write_all(b"old")).unwrap();
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode);
            let failed = write(&path, readers, |file| {
                file.write_all(b"ne")?;
                Err(io::ErrorKind::StorageFull.into())
            });
            assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
            assert_eq!(fs::read_to_string(&path).unwrap(), "old");
            assert_eq!(names(folder.path()), ["a"]);
        }
    }

    #[test]
    fn what_killed_programs_have_left_goes_when_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let old = SystemTime::now() - ABANDONED - Duration::from_secs(60);
        for (name, time) in [(".half-1.tmp", old), (".half-2.tmp", SystemTime::now()), (".other.tmp", old)] {
            File::create(folder.path().join(name)).unwrap().set_modified(time).unwrap();
        }
        write(&folder.path().join("a"), Readers::Owner, |_| Ok(())).unwrap();
        assert_eq!(names(folder.path()), [".half-2.tmp", ".other.tmp", "a"]);
    }
}
