//! A tree of kernel sources: which release it is, whether it can be built out of tree, and what tells it from others.

use sha2::{Digest, Sha256};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Why a tree cannot be built from.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// It is no kernel tree.
    #[error("{} is no tree of kernel sources: {why}; give the folder that holds the kernel's own Makefile", path.display())]
    NoTree {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
    /// It has been built in.
    #[error("{} was built in ({found} is there), so that no build outside of it works; run: make -C {} mrproper", path.display(), path.display())]
    BuiltIn {
        /// The folder.
        path: PathBuf,
        /// What says so.
        found: &'static str,
    },
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A kernel's version as its Makefile has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Major and minor version, and the patch level.
    pub numbers: (u32, u32, u32),
    /// What follows, such as `-rc1`.
    pub extra: String,
}

impl Release {
    /// Major and minor version.
    #[must_use]
    pub const fn series(&self) -> (u32, u32) {
        (self.numbers.0, self.numbers.1)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor, patch) = self.numbers;
        write!(f, "{major}.{minor}.{patch}{}", self.extra)
    }
}

/// A tree that can be built from.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Its folder, absolute.
    pub path: PathBuf,
    /// Its release.
    pub release: Release,
}

impl Tree {
    /// Looks at the tree in `path`.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn open(path: &Path) -> Result<Self, TreeError> {
        let absolute = fs::canonicalize(path)
            .map_err(|error| TreeError::NoTree { path: path.to_owned(), why: error.to_string() })?;
        let no_tree = |why: &str| TreeError::NoTree { path: path.to_owned(), why: why.to_owned() };
        let makefile = crate::text::read(&absolute.join("Makefile"), crate::text::WRITTEN)
            .map_err(|_| no_tree("it has no Makefile"))?;
        let release = release(&makefile).ok_or_else(|| no_tree("its Makefile names no version"))?;
        if !absolute.join("security/security.c").is_file() {
            return Err(no_tree("it has no security/security.c"));
        }
        // The kernel's own Makefile looks for these (6.14 Makefile, outputmakefile).
        for found in [".config", "include/config", "arch/x86/include/generated"] {
            if absolute.join(found).exists() {
                return Err(TreeError::BuiltIn { path: path.to_owned(), found });
            }
        }
        Ok(Self { path: absolute, release })
    }

    /// A digest of every file's name, size and time, which changes when somebody works in the tree: reading 80,000
    /// files would take longer than it is worth.
    ///
    /// # Errors
    /// [`TreeError::Read`].
    pub fn digest(&self) -> Result<String, TreeError> {
        let mut hasher = Sha256::new();
        walk(&self.path, &mut hasher)?;
        Ok(format!("{:x}", hasher.finalize()))
    }
}

/// Adds a folder's files, in order of their names, and those below it. Links are not followed.
fn walk(folder: &Path, hasher: &mut Sha256) -> Result<(), TreeError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| TreeError::Read { path, source }
    };
    let entries = fs::read_dir(folder).map_err(read(folder))?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()
        .map_err(read(folder))?;
    paths.sort_unstable();
    for path in paths {
        if path.file_name().is_some_and(|name| name == ".git") {
            continue;
        }
        let facts = fs::symlink_metadata(&path).map_err(read(&path))?;
        if facts.is_dir() {
            walk(&path, hasher)?;
            continue;
        }
        let changed = facts.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        hasher.update(path.as_os_str().as_bytes());
        hasher.update(facts.len().to_le_bytes());
        hasher.update(changed.unwrap_or_default().as_nanos().to_le_bytes());
    }
    Ok(())
}

/// The version that a kernel's Makefile begins with.
fn release(makefile: &str) -> Option<Release> {
    let value = |name: &str| {
        makefile.lines().take(20).find_map(|line| {
            let (left, right) = line.split_once('=')?;
            (left.trim() == name).then(|| right.trim().to_owned())
        })
    };
    let number = |name: &str| value(name)?.parse().ok();
    Some(Release {
        numbers: (number("VERSION")?, number("PATCHLEVEL")?, number("SUBLEVEL")?),
        extra: value("EXTRAVERSION")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAKEFILE: &str = "# SPDX\nVERSION = 5\nPATCHLEVEL = 7\nSUBLEVEL = 14\nEXTRAVERSION =\nNAME = x\n";

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("security")).unwrap();
        fs::write(folder.path().join("security/security.c"), "").unwrap();
        fs::write(folder.path().join("Makefile"), MAKEFILE).unwrap();
        folder
    }

    #[test]
    fn the_makefile_says_which_release_it_is() {
        let read = release(MAKEFILE).unwrap();
        assert_eq!((read.to_string().as_str(), read.series()), ("5.7.14", (5, 7)));
        let candidate = MAKEFILE.replace("EXTRAVERSION =", "EXTRAVERSION = -rc3");
        assert_eq!(release(&candidate).unwrap().to_string(), "5.7.14-rc3");
        assert_eq!(release("all:\n\techo VERSION = 5\n"), None);
    }

    #[test]
    fn a_tree_that_was_built_in_and_a_folder_that_is_none_are_refused() {
        let folder = tree();
        assert_eq!(Tree::open(folder.path()).unwrap().release.series(), (5, 7));
        fs::write(folder.path().join(".config"), "").unwrap();
        let error = Tree::open(folder.path()).unwrap_err();
        assert!(error.to_string().ends_with("mrproper"), "{error}");
        fs::remove_file(folder.path().join("Makefile")).unwrap();
        assert!(matches!(Tree::open(folder.path()), Err(TreeError::NoTree { .. })));
        assert!(matches!(Tree::open(Path::new("/nowhere/at/all")), Err(TreeError::NoTree { .. })));
    }

    #[test]
    fn an_edit_changes_the_digest() {
        let folder = tree();
        let tree = Tree::open(folder.path()).unwrap();
        let before = tree.digest().unwrap();
        assert_eq!(before, tree.digest().unwrap());
        fs::write(folder.path().join("security/security.c"), "int x;").unwrap();
        assert_ne!(before, tree.digest().unwrap());
    }
}
