//! A kernel in the cache: the image, the package it came from, its configuration, and `entry.json` about them.
//!
//! An entry's folder is named after what the matrix asks for, not after what was found, so that a substitute is
//! found again without asking the network.

use super::image::{self, ImageError};
use super::sha256_file;
use crate::cache::{Cache, CacheError, TempDir};
use crate::text;
use crate::whole::{self, Readers};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Version of `entry.json`; entries of another version are fetched again.
const FORMAT: u32 = 1;
const META: &str = "entry.json";
const IMAGE: &str = "vmlinuz";
const CONFIG: &str = "config";

/// A file as it was when it was last known to be whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last change, in nanoseconds since 1970.
    pub changed_ns: u64,
}

/// What `entry.json` holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Version of this description.
    pub format: u32,
    /// The image.
    pub image: Seal,
    /// Package name, or empty.
    pub package: String,
    /// Package version, or empty.
    pub package_version: String,
    /// The suite that had it, or empty.
    pub suite: String,
    /// The package's file name in the entry, or empty.
    pub deb: String,
    /// SHA-256 of the package's file, or empty.
    pub deb_sha256: String,
    /// Where the configuration comes from, or why there is none.
    pub config_origin: String,
    /// The sentence that says what was taken instead of the pin.
    pub substituted: Option<String>,
    /// How it was built, if it was built here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<BuildFacts>,
}

/// How an image was built.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildFacts {
    /// The sources' release, from their Makefile.
    pub release: String,
    /// The archive with its SHA-256, or a digest of the tree.
    pub origin: String,
    /// SHA-256 of what the fragments ask for.
    pub fragments: String,
    /// The compiler and pahole, as they call themselves.
    pub tools: Vec<String>,
    /// Variables that `make` was given because of the release, without those that name this machine's files.
    pub variables: Vec<String>,
    /// The options that the release did not take as asked: `NAME=VALUE`.
    pub not_taken: Vec<String>,
    /// How long it took, in seconds.
    pub seconds: u64,
}

/// A whole entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its folder.
    pub dir: PathBuf,
    /// What is known about it.
    pub meta: Meta,
}

/// Why an entry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Its description is unreadable.
    #[error("{} cannot be understood", path.display())]
    Meta {
        /// The description.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It was written by another version of this program.
    #[error("{} has format {found}, not {FORMAT}", path.display())]
    Format {
        /// The description.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It names a package outside of the entry.
    #[error("{} names the package {name:?}, which is not in its folder", path.display())]
    Package {
        /// The description.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// The image is no longer what was put there.
    #[error("{} was changed: its SHA-256 is {actual}, it was {expected}", path.display())]
    Changed {
        /// The image.
        path: PathBuf,
        /// What it was.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// The image is not whole.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl Entry {
    /// The entry `key`, checked; `None` when there is none.
    ///
    /// The image's hash is computed only when its size or time differ from what they were.
    ///
    /// # Errors
    /// [`EntryError`] when there is one that cannot be used.
    pub fn load(cache: &Cache, key: &str) -> Result<Option<Self>, EntryError> {
        let dir = cache.kernel_dir(key);
        let path = dir.join(META);
        let text = match text::read(&path, text::WRITTEN) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(CacheError::io("read", &path, e).into()),
        };
        let meta: Meta =
            serde_json::from_str(&text).map_err(|source| EntryError::Meta { path: path.clone(), source })?;
        if meta.format != FORMAT {
            return Err(EntryError::Format { path, found: meta.format });
        }
        if meta.deb.contains(['/', '\0']) || meta.deb == ".." {
            return Err(EntryError::Package { path, name: meta.deb });
        }
        let mut entry = Self { dir, meta };
        entry.verify()?;
        Ok(Some(entry))
    }

    /// Makes an entry of `temp`, which holds `vmlinuz` and whatever else belongs to it.
    ///
    /// # Errors
    /// When the image is not whole or the cache fails.
    pub fn publish(cache: &Cache, key: &str, temp: TempDir, mut meta: Meta) -> Result<Self, EntryError> {
        let image_path = temp.path().join(IMAGE);
        image::validate(&image_path)?;
        meta.format = FORMAT;
        meta.image = seal(&image_path)?;
        write_meta(temp.path(), &meta)?;
        let dir = cache.kernel_dir(key);
        cache.publish(temp, &dir)?;
        Ok(Self { dir, meta })
    }

    /// The kernel image.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.dir.join(IMAGE)
    }

    /// The package's file, which also holds the modules; `None` when the image is no package's.
    #[must_use]
    pub fn deb(&self) -> Option<PathBuf> {
        (!self.meta.deb.is_empty()).then(|| self.dir.join(&self.meta.deb))
    }

    /// The kernel's whole configuration, `CONFIG_*` name to value; empty when unknown.
    #[must_use]
    pub fn config(&self) -> BTreeMap<String, String> {
        text::read(&self.dir.join(CONFIG), text::WRITTEN).map(|text| parse_config(&text)).unwrap_or_default()
    }

    fn verify(&mut self) -> Result<(), EntryError> {
        let path = self.image();
        image::validate(&path)?;
        let (size, changed_ns) = size_and_time(&path)?;
        if (size, changed_ns) == (self.meta.image.size, self.meta.image.changed_ns) {
            return Ok(());
        }
        let now = seal(&path)?;
        if now.sha256 != self.meta.image.sha256 {
            let expected = self.meta.image.sha256.clone();
            return Err(EntryError::Changed { path, expected, actual: now.sha256 });
        }
        self.meta.image = now;
        // Only spares the next run the hash; a cache that is being read from two sides need not be written.
        let _ = write_meta(&self.dir, &self.meta);
        Ok(())
    }
}

/// Writes the description under its name all at once.
fn write_meta(dir: &Path, meta: &Meta) -> Result<(), CacheError> {
    let path = dir.join(META);
    let text = serde_json::to_vec_pretty(meta)
        .map_err(|e| CacheError::io("describe", &path, std::io::Error::other(e)))?;
    whole::write(&path, Readers::Owner, |file| file.write_all(&text))
        .map_err(|e| CacheError::io("write", &path, e))
}

fn size_and_time(path: &Path) -> Result<(u64, u64), CacheError> {
    let meta = fs::metadata(path).map_err(|e| CacheError::io("inspect", path, e))?;
    let time = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Ok((meta.len(), time.and_then(|time| u64::try_from(time.as_nanos()).ok()).unwrap_or(0)))
}

fn seal(path: &Path) -> Result<Seal, CacheError> {
    let (size, changed_ns) = size_and_time(path)?;
    let sha256 = sha256_file(path).map_err(|e| CacheError::io("read", path, e))?;
    Ok(Seal { sha256, size, changed_ns })
}

/// Reads a kernel configuration; `# CONFIG_X is not set` counts as `n`, quotes around strings are dropped.
#[must_use]
pub fn parse_config(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| {
            if let Some(name) = line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set")) {
                return Some((name.to_owned(), "n".to_owned()));
            }
            let (name, value) = line.split_once('=')?;
            name.starts_with("CONFIG_").then(|| (name.to_owned(), value.trim_matches('"').to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(cache: &Cache) -> Entry {
        let temp = cache.temp_dir().unwrap();
        fs::write(temp.path().join(IMAGE), image::fake_image(4096)).unwrap();
        fs::write(temp.path().join(CONFIG), "CONFIG_LSM=\"a,bpf\"\n# CONFIG_X is not set\nCONFIG_Y=m\n")
            .unwrap();
        Entry::publish(cache, "k", temp, Meta { package: "p".into(), ..Meta::default() }).unwrap()
    }

    #[test]
    fn an_entry_comes_back_as_it_was_published() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        assert_eq!(Entry::load(&cache, "k").unwrap(), None);
        let entry = published(&cache);
        assert_eq!(Entry::load(&cache, "k").unwrap(), Some(entry.clone()));
        let config = entry.config();
        assert_eq!((config["CONFIG_LSM"].as_str(), config["CONFIG_X"].as_str()), ("a,bpf", "n"));
    }

    #[test]
    fn a_touched_image_is_hashed_and_a_changed_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let entry = published(&cache);
        let mut bytes = fs::read(entry.image()).unwrap();
        fs::write(entry.image(), &bytes).unwrap();
        assert!(Entry::load(&cache, "k").unwrap().is_some());
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(entry.image(), &bytes).unwrap();
        assert!(matches!(Entry::load(&cache, "k"), Err(EntryError::Changed { .. })));
        fs::write(entry.image(), &bytes[..2000]).unwrap();
        assert!(matches!(Entry::load(&cache, "k"), Err(EntryError::Image(ImageError::Truncated { .. }))));
        let away = Meta { deb: "../x.deb".into(), ..entry.meta.clone() };
        write_meta(&entry.dir, &away).unwrap();
        assert!(matches!(Entry::load(&cache, "k"), Err(EntryError::Package { .. })));
        fs::write(entry.dir.join(META), "{").unwrap();
        assert!(matches!(Entry::load(&cache, "k"), Err(EntryError::Meta { .. })));
    }
}
