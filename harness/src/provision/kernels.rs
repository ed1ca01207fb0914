//! From a row of the matrix to a kernel image that is whole: out of the cache, or fetched into it.

mod fetch;

use super::apt::AptError;
use super::deb::DebError;
use super::entry::{Entry, EntryError};
use super::image::{self, ImageError};
use super::tools::ToolError;
use crate::cache::{Cache, CacheError};
use crate::child::ChildError;
use crate::exit::{self, ExitCode, with_causes};
use crate::matrix::{Archive, Row, Source};
use crate::model::ImageFacts;
use crate::progress::Progress;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long another run's fetching of the same kernel is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(1800);
/// The configuration options that are worth a place in a run's facts, besides those that the row promises.
const TELLING: &[&str] = &[
    "CONFIG_AUDIT",
    "CONFIG_BPF",
    "CONFIG_CGROUP_BPF",
    "CONFIG_DEBUG_INFO_BTF",
    "CONFIG_DEFAULT_SECURITY",
    "CONFIG_DYNAMIC_FTRACE",
    "CONFIG_EVM",
    "CONFIG_FTRACE",
    "CONFIG_FUNCTION_",
    "CONFIG_HAVE_EBPF",
    "CONFIG_HID_BPF",
    "CONFIG_IMA",
    "CONFIG_INTEGRITY",
    "CONFIG_KEYS",
    "CONFIG_KPROBE",
    "CONFIG_LSM",
    "CONFIG_MODULE_SIG",
    "CONFIG_PREEMPT",
    "CONFIG_SECURITY",
    "CONFIG_UPROBE",
];

/// What can go wrong with a kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It is not in the cache and may not be fetched.
    #[error("kernel {name} is not in the cache and fetching is switched off; run once without --offline")]
    Offline {
        /// The row.
        name: String,
    },
    /// What is in the cache is damaged and may not be fetched again.
    #[error("kernel {name} is damaged in the cache and fetching is switched off; run once without --offline")]
    Damaged {
        /// The row.
        name: String,
        /// How.
        #[source]
        source: EntryError,
    },
    /// What was built is damaged in the cache, and nothing but another build mends that.
    #[error(
        "what was built of kernel {name} is damaged in the cache; run: cargo conform kernels build {name} [--source DIR]"
    )]
    DamagedBuild {
        /// The row.
        name: String,
        /// How.
        #[source]
        source: EntryError,
    },
    /// No suite has anything of the series.
    #[error("kernel {name}: no package of series {series} like {package} downloads from {}; pin another in matrix.yaml", suites.join(", "))]
    NothingLeft {
        /// The row.
        name: String,
        /// The pinned package.
        package: String,
        /// Its series.
        series: String,
        /// The suites.
        suites: Vec<String>,
        /// The last failure, if a package was tried at all.
        #[source]
        source: Option<Box<AptError>>,
    },
    /// The package holds no kernel.
    #[error(
        "kernel {name}: package {package} {version} holds no kernel image; pin the package that does (since 6.19 linux-binary-*)"
    )]
    NoImage {
        /// The row.
        name: String,
        /// The package.
        package: String,
        /// Its version.
        version: String,
    },
    /// The configuration is not what the row promises.
    #[error("kernel {name} breaks its promises in matrix.yaml: {}", broken.join(", "))]
    PromiseBroken {
        /// The row.
        name: String,
        /// Each option with what was promised and what is.
        broken: Vec<String>,
    },
    /// The image is not the one that the row names.
    #[error(
        "kernel {name}: the SHA-256 of {image} is {found}, and its row in matrix.yaml has {expected}; get the image again, or correct the row"
    )]
    AnotherImage {
        /// The row.
        name: String,
        /// The image: its path, or what was fetched and not kept.
        image: String,
        /// What the row has.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Nobody vouches for a mainline build but its row.
    #[error(
        "kernel {name}: mainline {version} is signed by nobody, and its row does not say which image it is; look whether \
         the SHA-256 of what was fetched is the right one, and add it to the row in matrix.yaml: sha256: {found}"
    )]
    Unvouched {
        /// The row.
        name: String,
        /// The version.
        version: String,
        /// SHA-256 of the image that is in the cache.
        found: String,
    },
    /// It is to be built from sources and has not been.
    #[error("kernel {name} is not built here; run: cargo conform kernels build {name} [--source DIR]")]
    NotBuilt {
        /// The row.
        name: String,
    },
    /// It was built with another configuration than the fragments now ask for, or from another archive.
    #[error(
        "kernel {name} was built from other fragments or another archive than its row has now; run: cargo conform kernels build {name} [--source DIR]"
    )]
    Outdated {
        /// The row.
        name: String,
    },
    /// The fragments cannot be read.
    #[error(transparent)]
    Fragment(#[from] super::build::fragments::FragmentError),
    /// virtme-ng could not fetch the mainline build.
    #[error(
        "kernel {name}: cannot fetch mainline {version} through virtme-ng; check the network and that the build exists"
    )]
    Upstream {
        /// The row.
        name: String,
        /// The version.
        version: String,
        /// What virtme-ng said, if it failed; it can also succeed and leave nothing.
        #[source]
        source: Option<Box<ChildError>>,
    },
    /// The image that was named is none.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// apt failed.
    #[error("cannot fetch kernel {name}")]
    Apt {
        /// The row.
        name: String,
        /// How.
        source: AptError,
    },
    /// The package cannot be unpacked.
    #[error("cannot unpack the package of kernel {name}")]
    Deb {
        /// The row.
        name: String,
        /// How.
        source: DebError,
    },
    /// The fetched image cannot be kept.
    #[error("kernel {name} cannot be put into the cache")]
    Publish {
        /// The row.
        name: String,
        /// Why.
        #[source]
        source: EntryError,
    },
    /// A tool is missing.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl ExitCode for KernelError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::PromiseBroken { .. }
            | Self::Fragment(_)
            | Self::Image(_)
            | Self::NoImage { .. }
            | Self::Unvouched { .. } => exit::BAD_INPUT,
            Self::Tool(tool) => tool.exit_code(),
            Self::Offline { .. }
            | Self::Damaged { .. }
            | Self::DamagedBuild { .. }
            | Self::AnotherImage { .. }
            | Self::NotBuilt { .. }
            | Self::Outdated { .. }
            | Self::NothingLeft { .. }
            | Self::Upstream { .. }
            | Self::Apt { .. }
            | Self::Deb { .. }
            | Self::Publish { .. }
            | Self::Cache(_) => exit::INFRASTRUCTURE,
        }
    }
}

/// How a row stands; see [`status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Status {
    /// The image is in the cache.
    Cached {
        /// What is known of it.
        facts: ImageFacts,
        /// The package's file, if it came as one.
        package_file: Option<PathBuf>,
        /// Where the configuration comes from, or why there is none.
        config_origin: String,
        /// What it was built from, if it was built here: the release, and where its sources are from.
        #[serde(skip_serializing_if = "Option::is_none")]
        built_from: Option<String>,
    },
    /// The image is a file of the user's.
    Local {
        /// What is known of it.
        facts: ImageFacts,
    },
    /// The image is not in the cache; it is fetched when needed.
    Absent {
        /// What would be fetched.
        from: String,
    },
    /// The image is in the cache, or is the user's, and cannot be used.
    Damaged {
        /// Why.
        why: String,
    },
    /// The image is there, and is not what the row promises.
    Refused {
        /// Why.
        why: String,
    },
    /// The image cannot be had.
    Unavailable {
        /// Why.
        why: String,
    },
}

/// How the row's image stands. Asks no network, changes nothing.
#[must_use]
pub fn status(row: &Row, cache: &Cache) -> Status {
    if let Source::Path(path) = &row.source {
        return match inspect(path) {
            Ok(facts) => promised(row, facts, |facts| Status::Local { facts }),
            Err(error) => Status::Damaged { why: with_causes(&error) },
        };
    }
    if let Source::Archive(archive) = &row.source {
        return built_status(row, archive, cache);
    }
    match Entry::load(cache, &cache_key(row)) {
        Ok(Some(entry)) => promised(row, facts_of(&entry, &row.config), |facts| Status::Cached {
            facts,
            package_file: entry.deb(),
            config_origin: entry.meta.config_origin,
            built_from: None,
        }),
        Ok(None) => Status::Absent { from: describe(&row.source) },
        Err(error) => Status::Damaged { why: with_causes(&error) },
    }
}

/// How an image stands that is there, if it is what the row promises, as is demanded before it is run.
fn promised(row: &Row, facts: ImageFacts, there: impl FnOnce(ImageFacts) -> Status) -> Status {
    match kept_promises(row, facts) {
        Ok(facts) => there(facts),
        Err(error) => Status::Refused { why: with_causes(&error) },
    }
}

/// How the image of a row that is built from sources stands.
fn built_status(row: &Row, archive: &Archive, cache: &Cache) -> Status {
    match built(row, archive, cache) {
        Ok(entry) => Status::Cached {
            facts: facts_of_built(row, archive, &entry),
            package_file: None,
            config_origin: entry.meta.config_origin,
            built_from: entry.meta.built.map(|facts| format!("{} out of {}", facts.release, facts.origin)),
        },
        Err(error @ (KernelError::NotBuilt { .. } | KernelError::Outdated { .. })) => {
            Status::Unavailable { why: error.to_string() }
        }
        Err(error) => Status::Damaged { why: with_causes(&error) },
    }
}

/// Why a row that is built from sources has no image here; `None` for every other row, and for one that has been built.
#[must_use]
pub fn unbuilt(row: &Row, cache: &Cache) -> Option<String> {
    let Source::Archive(archive) = &row.source else { return None };
    match built(row, archive, cache) {
        Err(error @ (KernelError::NotBuilt { .. } | KernelError::Outdated { .. })) => Some(error.to_string()),
        Ok(_) | Err(_) => None,
    }
}

/// The image that was built for a row.
fn built(row: &Row, archive: &Archive, cache: &Cache) -> Result<Entry, KernelError> {
    let name = || row.name.clone();
    let loaded = Entry::load(cache, &cache_key(row));
    let entry = loaded.map_err(|source| KernelError::DamagedBuild { name: name(), source })?;
    let entry = entry.ok_or_else(|| KernelError::NotBuilt { name: name() })?;
    if super::build::is_current(&entry, archive)? {
        Ok(entry)
    } else {
        Err(KernelError::Outdated { name: name() })
    }
}

/// The row's image, fetched into the cache if it is not there.
///
/// An image that is in the cache costs a few small reads: no network, no apt. With `offline`, nothing is fetched.
///
/// # Errors
/// [`KernelError`].
pub fn ensure(
    row: &Row,
    cache: &Cache,
    progress: &Progress,
    offline: bool,
) -> Result<ImageFacts, KernelError> {
    if let Source::Path(path) = &row.source {
        return kept_promises(row, inspect(path)?);
    }
    let name = || row.name.clone();
    if let Source::Archive(archive) = &row.source {
        return kept_promises(row, facts_of_built(row, archive, &built(row, archive, cache)?));
    }
    let key = cache_key(row);
    let label = format!("fetch {}", row.name);
    if let Some(entry) = load(row, cache, &key, progress, offline)? {
        if !offline {
            fetch::Fetch { row, cache, progress, key: &key, label: &label }.modules(&entry);
        }
        return kept_promises(row, facts_of(&entry, &row.config));
    }
    if offline {
        return Err(KernelError::Offline { name: name() });
    }
    let _lock = cache.lock(&format!("kernel-{key}"), progress, LOCK_PATIENCE)?;
    let fetch = fetch::Fetch { row, cache, progress, key: &key, label: &label };
    // Whoever held the lock may have fetched it.
    let entry = match load(row, cache, &key, &Progress::silent(), offline)? {
        Some(entry) => entry,
        None => match &row.source {
            Source::Debian(pin) => fetch.debian(pin)?,
            Source::Upstream(version) => fetch.upstream(version)?,
            Source::Archive(_) | Source::Path(_) => return Err(KernelError::NotBuilt { name: name() }),
        },
    };
    fetch.modules(&entry);
    kept_promises(row, facts_of(&entry, &row.config))
}

/// The facts about an image of the user's, with or without a row: it is checked and hashed.
///
/// # Errors
/// [`KernelError::Image`] when it is not a whole kernel image.
pub fn inspect(path: &Path) -> Result<ImageFacts, KernelError> {
    image::validate(path)?;
    let read = |source| ImageError::Read { path: path.to_owned(), source };
    let absolute = std::path::absolute(path).map_err(read)?;
    let sha256 = super::sha256_file(path).map_err(read)?;
    Ok(ImageFacts { path: absolute, sha256, ..ImageFacts::default() })
}

/// Under which key the cache keeps the row's image, if it keeps one.
fn cache_key(row: &Row) -> String {
    match &row.source {
        Source::Debian(debian) => format!("{}_{}", debian.package.full, debian.version),
        Source::Upstream(version) => format!("mainline-{version}"),
        Source::Archive(_) | Source::Path(_) => super::build::key(row),
    }
}

/// The source in a few words.
fn describe(source: &Source) -> String {
    match source {
        Source::Debian(d) => format!("{} {} from {}", d.package.full, d.version, d.suites.join(", ")),
        Source::Upstream(version) => format!("mainline {version} through virtme-ng"),
        Source::Archive(archive) => archive.origin.to_string(),
        Source::Path(path) => path.display().to_string(),
    }
}

/// The entry, or `None` when it is to be fetched.
fn load(
    row: &Row,
    cache: &Cache,
    key: &str,
    progress: &Progress,
    offline: bool,
) -> Result<Option<Entry>, KernelError> {
    match Entry::load(cache, key) {
        Ok(found) => Ok(found),
        Err(source) if offline => Err(KernelError::Damaged { name: row.name.clone(), source }),
        Err(error) => {
            progress.say(&format!("fetch {}", row.name), &format!("fetching again: {}", with_causes(&error)));
            Ok(None)
        }
    }
}

fn facts_of(entry: &Entry, promised: &BTreeMap<String, String>) -> ImageFacts {
    let mut config = entry.config();
    if !config.is_empty() {
        // An option that a configuration does not mention depends on one that is off.
        for name in promised.keys() {
            config.entry(name.clone()).or_insert_with(|| "n".to_owned());
        }
    }
    config.retain(|name, _| {
        promised.contains_key(name) || TELLING.iter().any(|prefix| name.starts_with(prefix))
    });
    ImageFacts {
        path: entry.image(),
        sha256: entry.meta.image.sha256.clone(),
        package: entry.meta.package.clone(),
        package_version: entry.meta.package_version.clone(),
        substituted: entry.meta.substituted.clone(),
        config,
    }
}

/// The same of an image that was built here, which may be of another release than the row's archive.
fn facts_of_built(row: &Row, archive: &Archive, entry: &Entry) -> ImageFacts {
    ImageFacts { substituted: super::build::substituted(entry, archive), ..facts_of(entry, &row.config) }
}

/// Holds the facts against the row's promises; an unknown configuration breaks none, and an unknown image all.
fn kept_promises(row: &Row, facts: ImageFacts) -> Result<ImageFacts, KernelError> {
    if let Some(expected) = row.sha256.clone().filter(|expected| *expected != facts.sha256) {
        let (image, found) = (facts.path.display().to_string(), facts.sha256);
        return Err(KernelError::AnotherImage { name: row.name.clone(), image, expected, found });
    }
    if let (Source::Upstream(version), None) = (&row.source, &row.sha256) {
        let (name, version, found) = (row.name.clone(), version.clone(), facts.sha256);
        return Err(KernelError::Unvouched { name, version, found });
    }
    let broken: Vec<String> = row
        .config
        .iter()
        .filter_map(|(name, promised)| {
            let actual = facts.config.get(name).filter(|actual| *actual != promised)?;
            Some(format!("{name} is {actual}, promised is {promised}"))
        })
        .collect();
    if broken.is_empty() {
        Ok(facts)
    } else {
        Err(KernelError::PromiseBroken { name: row.name.clone(), broken })
    }
}

#[cfg(test)]
mod tests;
