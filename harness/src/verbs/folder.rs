//! The folder of one run: who uses it, and the links to the last one.
//!
//! A folder is one run's at a time. The lock is the kernel's, on the folder itself, so that nothing of it lies about and a
//! run that is killed leaves none.

use super::cannot;
use super::project::Project;
use crate::exit::{self, Failure};
use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The folder of one run, which is nobody else's until this is dropped.
#[derive(Debug)]
pub(super) struct RunFolder {
    /// Where.
    pub(super) path: PathBuf,
    /// Holds the lock.
    _held: File,
}

impl RunFolder {
    /// The folder asked for, or one named after the time, made if it is not there.
    ///
    /// # Errors
    /// Infrastructure, when it cannot be made or another run has it.
    pub(super) fn make(project: &Project, asked: Option<&Path>) -> Result<Self, Failure> {
        let path = asked.map_or_else(
            || {
                let now =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                project.work_folder().join("runs").join(format!("{}-{}", now.as_secs(), std::process::id()))
            },
            Path::to_owned,
        );
        std::fs::create_dir_all(&path).map_err(|error| cannot("make the run folder", &path, &error))?;
        Self::take(&path)
    }

    /// The same, with nothing in it: a folder of this program's own, which it uses again and again.
    ///
    /// # Errors
    /// As [`RunFolder::make`]; when something in it cannot be removed.
    pub(super) fn emptied(project: &Project, path: &Path) -> Result<Self, Failure> {
        let folder = Self::make(project, Some(path))?;
        let remove = || -> std::io::Result<()> {
            for entry in std::fs::read_dir(&folder.path)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    std::fs::remove_dir_all(entry.path())?;
                } else {
                    std::fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        remove().map_err(|error| cannot("empty", &folder.path, &error))?;
        Ok(folder)
    }

    /// A folder that is there.
    ///
    /// # Errors
    /// Infrastructure, when it is not, or another run has it.
    pub(super) fn take(path: &Path) -> Result<Self, Failure> {
        let path = path.canonicalize().map_err(|error| cannot("find the run folder", path, &error))?;
        let file = File::open(&path).map_err(|error| cannot("open", &path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, _held: file }),
            Err(TryLockError::Error(error)) => Err(cannot("lock", &path, &error)),
            Err(TryLockError::WouldBlock) => {
                let why = anyhow::anyhow!(
                    "{} is in use by {}; wait for its end, or name another folder",
                    path.display(),
                    holder(&file).unwrap_or_else(|| "another run".to_owned())
                );
                Err(Failure::new(exit::INFRASTRUCTURE, why))
            }
        }
    }

    /// Makes this the last run, which `accept` looks at.
    pub(super) fn becomes_last(&self, project: &Project) {
        if project.is_linked {
            self.point_here(&project.last_run());
        }
    }

    /// Makes this the run that `--resume` goes on with.
    pub(super) fn is_unfinished(&self, project: &Project) {
        if project.is_linked {
            self.point_here(&project.unfinished_run());
        }
    }

    /// Undoes [`RunFolder::is_unfinished`], unless another run has begun meanwhile.
    pub(super) fn is_finished(&self, project: &Project) {
        let link = project.unfinished_run();
        if std::fs::read_link(&link).is_ok_and(|path| path == self.path) {
            let _ = std::fs::remove_file(&link);
        }
    }

    /// Sets a link to this folder. It is a convenience: a run whose link cannot be set is still whole.
    fn point_here(&self, link: &Path) {
        let new = link.with_extension(format!("new-{}", std::process::id()));
        if std::os::unix::fs::symlink(&self.path, &new).is_ok() && std::fs::rename(&new, link).is_err() {
            let _ = std::fs::remove_file(&new);
        }
    }
}

/// The process that has the lock on a file, by the kernel's list (proc(5), `/proc/locks`: `1: FLOCK ADVISORY WRITE PID
/// MAJOR:MINOR:INODE START END`).
pub(super) fn holder(file: &File) -> Option<String> {
    let inode = format!(":{}", file.metadata().ok()?.ino());
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [_, "FLOCK", _, _, pid, place, ..] if place.ends_with(&inode) => Some((*pid).to_owned()),
            _ => None,
        }
    })?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("process {pid} ({})", name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> Project {
        Project { root: PathBuf::new(), matrix: PathBuf::new(), program: PathBuf::new(), is_linked: true }
    }

    #[test]
    fn a_folder_in_use_is_refused_with_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let held = RunFolder::make(&project(), Some(folder.path())).unwrap();
        let failure = RunFolder::take(folder.path()).unwrap_err();
        let words = format!("is in use by process {} (", std::process::id());
        assert!(failure.to_string().contains(&words), "{failure}");
        assert_eq!(failure.code, exit::INFRASTRUCTURE);
        drop(held);
        RunFolder::take(folder.path()).unwrap();
    }

    /// A run of `bench`, say, whose folder goes with it: what its user has interrupted is still what `--resume` takes.
    #[test]
    fn an_unlinked_run_leaves_the_links_to_others_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let linked = Project { root: folder.path().to_owned(), ..project() };
        let unlinked = Project { is_linked: false, ..linked.clone() };
        let made = |name: &str| RunFolder::make(&linked, Some(&linked.work_folder().join(name))).unwrap();
        let (users, benchs) = (made("users"), made("benchs"));
        users.becomes_last(&linked);
        users.is_unfinished(&linked);
        benchs.is_unfinished(&unlinked);
        benchs.becomes_last(&unlinked);
        benchs.is_finished(&unlinked);
        for link in [linked.last_run(), linked.unfinished_run()] {
            assert_eq!(std::fs::read_link(link).unwrap(), users.path);
        }
    }

    #[test]
    fn a_folder_that_is_used_again_has_nothing_of_the_last_time() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("7.3")).unwrap();
        std::fs::write(folder.path().join("7.3/kernel.json"), "{}").unwrap();
        std::fs::write(folder.path().join("run.json"), "{}").unwrap();
        let _held = RunFolder::emptied(&project(), folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
