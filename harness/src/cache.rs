//! The cache folder: where kernels, apt's lists and tools are kept between runs, safely for several runs at once.
//!
//! Layout: `kernels/<key>/` (published entries), `apt/<suite>/` (private apt roots), `tools/` (virtme-ng, and what
//! programs said that were run), `states/` (saved machines, [`crate::vmm::state`]), `locks/`, `tmp/`.
//! Nothing half-made is ever visible under its final name: an entry is made in `tmp/`, in a folder that only this user can
//! enter, flushed, and renamed. Locks are advisory locks on files in `locks/`; the kernel releases them however a run ends,
//! and whoever finds the lock of a left-over temporary folder free removes the folder.

use crate::exit::{self, ExitCode};
use crate::progress::Progress;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The environment variable that names the cache folder.
pub const CACHE_VARIABLE: &str = "CONFORM_CACHE";
/// The folder's name inside the user's cache folder.
const FOLDER: &str = "bpf-lsm-conformance";
/// How long the short-lived lock on `tmp/` is waited for.
const TMP_PATIENCE: Duration = Duration::from_secs(60);

/// What can go wrong with the cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// There is no place for a cache.
    #[error(
        "no place for the cache: neither {CACHE_VARIABLE}, XDG_CACHE_HOME nor HOME is set; set {CACHE_VARIABLE}"
    )]
    NoPlace,
    /// The cache cannot be written to.
    #[error("cannot write to {}: make it writable, or set {CACHE_VARIABLE} to a folder that is", path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The disk is full.
    #[error("the disk that holds {} is full: make room, or set {CACHE_VARIABLE} to a folder elsewhere", path.display())]
    Full {
        /// The file or folder.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Another run did not give up a lock in time.
    #[error("gave up after {} s: {holder} holds {}; wait for it or end it", waited.as_secs(), path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who has it, as far as known.
        holder: String,
        /// How long was waited.
        waited: Duration,
    },
    /// Anything else.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl ExitCode for CacheError {
    fn exit_code(&self) -> u8 {
        exit::INFRASTRUCTURE
    }
}

impl CacheError {
    /// Sorts an I/O error into the kinds that have a remedy of their own.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "ErrorKind is non-exhaustive and has some forty kinds"
        )]
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path, source },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Unwritable { path, source }
            }
            _ => Self::Io { action, path, source },
        }
    }
}

/// The cache folder, opened.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the cache where the environment says: `CONFORM_CACHE`, else `XDG_CACHE_HOME`, else `~/.cache`.
    ///
    /// # Errors
    /// [`CacheError::NoPlace`], or as [`Cache::open`].
    pub fn from_env() -> Result<Self, CacheError> {
        Self::open(&default_root(|name| std::env::var_os(name))?)
    }

    /// Opens the cache in `root`, creates what is missing and removes what killed runs have left behind.
    ///
    /// # Errors
    /// When the folder cannot be created or written to.
    pub fn open(root: &Path) -> Result<Self, CacheError> {
        let absolute = std::path::absolute(root).map_err(|e| CacheError::io("find", root, e))?;
        let cache = Self { root: absolute };
        for folder in ["kernels", "apt", "tools", "locks", "tmp"] {
            let path = cache.root.join(folder);
            fs::create_dir_all(&path).map_err(|e| CacheError::io("create", &path, e))?;
        }
        cache.sweep()?;
        Ok(cache)
    }

    /// The cache folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the published entry `key` is or would be.
    #[must_use]
    pub fn kernel_dir(&self, key: &str) -> PathBuf {
        self.root.join("kernels").join(file_name(key))
    }

    /// Where saved machines are.
    #[must_use]
    pub fn states(&self) -> PathBuf {
        self.root.join("states")
    }

    /// Bytes that an unprivileged user can still write to the cache's file system.
    ///
    /// # Errors
    /// When the file system does not say.
    pub fn free_bytes(&self) -> Result<u64, CacheError> {
        let stat = nix::sys::statvfs::statvfs(&self.root)
            .map_err(|e| CacheError::io("ask for the free space of", &self.root, e.into()))?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }

    /// Takes the lock `name`, waiting at most `patience` and saying for whom.
    ///
    /// # Errors
    /// [`CacheError::Locked`] after `patience`; otherwise when the lock file cannot be used.
    pub fn lock(&self, name: &str, progress: &Progress, patience: Duration) -> Result<Lock, CacheError> {
        let path = self.root.join("locks").join(format!("{}.lock", file_name(name)));
        let started = Instant::now();
        let mut told = false;
        loop {
            match Lock::try_take(&path)? {
                Attempt::Taken(lock) => return Ok(lock),
                Attempt::Busy(holder) if started.elapsed() >= patience => {
                    return Err(CacheError::Locked { path, holder, waited: started.elapsed() });
                }
                Attempt::Busy(holder) => {
                    if !told {
                        let limit = patience.as_secs();
                        progress.say(name, &format!("waiting for {holder} to finish, at most {limit} s"));
                        told = true;
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }

    /// A new folder inside the cache, closed to other users, that disappears with the returned value unless it is published.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn temp_dir(&self) -> Result<TempDir, CacheError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // Held while the folder and its lock come into being, so that a sweep never sees one without the other.
        let _guard = self.lock("tmp", &Progress::silent(), TMP_PATIENCE)?;
        loop {
            let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = self.root.join("tmp").join(&id);
            let lock_path = self.root.join("tmp").join(format!("{id}.lock"));
            // Another container may use the same cache and have the same process id.
            if path.exists() || lock_path.exists() {
                continue;
            }
            if let Attempt::Taken(lock) = Lock::try_take(&lock_path)? {
                let made = DirBuilder::new().mode(0o700).create(&path);
                made.map_err(|e| CacheError::io("create", &path, e))?;
                return Ok(TempDir { path, lock_path, _lock: lock });
            }
        }
    }

    /// Makes the content of `temp` visible as `dest`; an older `dest` is replaced, all at once where the file system can
    /// exchange two folders, and else with a moment in which there is neither.
    ///
    /// # Errors
    /// When flushing or renaming fails; `dest` is then as it was.
    pub fn publish(&self, temp: TempDir, dest: &Path) -> Result<(), CacheError> {
        flush_tree(&temp.path)?;
        self.put(&temp.path, dest, exchange).map_err(|e| CacheError::io("publish", dest, e))?;
        if let Some(parent) = dest.parent() {
            flush(parent)?;
        }
        // With the older one, if it is there now.
        drop(temp);
        Ok(())
    }

    /// Gives the folder `from` the name `dest`. What had it before is then `from`, or gone.
    fn put(
        &self,
        from: &Path,
        dest: &Path,
        exchange: impl Fn(&Path, &Path) -> io::Result<()>,
    ) -> io::Result<()> {
        if !dest.exists() {
            return fs::rename(from, dest);
        }
        match exchange(from, dest) {
            // The kernel or the file system (NFS) does not know how; both say so in several ways.
            Err(error) if !is_unknown(&error) => return Err(error),
            Err(_) => {}
            Ok(()) => return Ok(()),
        }
        let aside = self.temp_dir().map_err(io::Error::other)?;
        let old = aside.path().join("old");
        fs::rename(dest, &old)?;
        fs::rename(from, dest).inspect_err(|_| {
            // What was just moved from there can be moved there again, unless the file system itself has gone.
            let _ = fs::rename(&old, dest);
        })
    }

    /// Removes temporary folders whose owners are gone, and locks of folders that are.
    fn sweep(&self) -> Result<(), CacheError> {
        let _guard = self.lock("tmp", &Progress::silent(), TMP_PATIENCE)?;
        let tmp = self.root.join("tmp");
        let entries = fs::read_dir(&tmp).map_err(|e| CacheError::io("list", &tmp, e))?;
        // A folder, or what only its lock is left of.
        let name = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            Some(name.strip_suffix(".lock").map_or(name.clone(), str::to_owned))
        };
        let names: BTreeSet<String> = entries.flatten().filter_map(name).collect();
        for name in names {
            let lock_path = tmp.join(format!("{name}.lock"));
            if let Attempt::Taken(_lock) = Lock::try_take(&lock_path)? {
                // What cannot be removed now is tried again by the next run.
                let _ = fs::remove_dir_all(tmp.join(name));
                let _ = fs::remove_file(&lock_path);
            }
        }
        Ok(())
    }
}

/// The cache folder that the environment asks for.
fn default_root(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, CacheError> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(root) = set(CACHE_VARIABLE) {
        return Ok(root);
    }
    // The XDG specification tells to ignore relative paths.
    if let Some(root) = set("XDG_CACHE_HOME").filter(|root| root.is_absolute()) {
        return Ok(root.join(FOLDER));
    }
    set("HOME").map(|home| home.join(".cache").join(FOLDER)).ok_or(CacheError::NoPlace)
}

/// Exchanges two folders of one file system.
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    Ok(renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)?)
}

/// Whether a system call failed because it is not known.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP))
}

/// `name` as one component of a path: separators and other surprises become `_`.
fn file_name(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "+-.~_".contains(c) { c } else { '_' };
    let mapped: String = name.chars().map(safe).collect();
    if mapped.starts_with('.') { format!("_{mapped}") } else { mapped }
}

/// Writes a file or folder through to the disk.
fn flush(path: &Path) -> Result<(), CacheError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|e| CacheError::io("flush", path, e))
}

/// Writes a folder and the files in it through to the disk.
fn flush_tree(path: &Path) -> Result<(), CacheError> {
    for entry in fs::read_dir(path).map_err(|e| CacheError::io("list", path, e))? {
        let entry = entry.map_err(|e| CacheError::io("list", path, e))?;
        let kind = entry.file_type().map_err(|e| CacheError::io("inspect", &entry.path(), e))?;
        if kind.is_dir() {
            flush_tree(&entry.path())?;
        } else if kind.is_file() {
            flush(&entry.path())?;
        }
    }
    flush(path)
}

/// A folder under way; removed when dropped.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: Lock,
}

impl TempDir {
    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What stays behind is removed by the next run's sweep.
        let _ = fs::remove_dir_all(&self.path);
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// A lock that is held until dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

enum Attempt {
    Taken(Lock),
    Busy(String),
}

impl Lock {
    fn try_take(path: &Path) -> Result<Attempt, CacheError> {
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| CacheError::io("open the lock", path, e))?;
        match file.try_lock() {
            Ok(()) => {
                // Only for the message of whoever waits; a lock that cannot be signed is still a lock.
                let _ = sign(&mut file);
                Ok(Attempt::Taken(Self { _file: file }))
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.take(200).read_to_string(&mut holder);
                let holder = holder.trim();
                Ok(Attempt::Busy(if holder.is_empty() { "another run".into() } else { holder.into() }))
            }
            Err(TryLockError::Error(e)) => Err(CacheError::io("lock", path, e)),
        }
    }
}

/// Notes in the lock file who has it.
fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    let program = std::env::args_os().next().map(PathBuf::from);
    let name = program.as_deref().and_then(Path::file_name).unwrap_or_default();
    write!(file, "process {} ({})", std::process::id(), name.display())
}

#[cfg(test)]
mod tests;
