//! From a row of the matrix to a kernel image that is whole: out of the cache, or fetched into it.

use super::apt::{AptError, Candidate, Suite};
use super::deb::{self, DebError};
use super::entry::{Entry, EntryError, Meta};
use super::image::{self, ImageError};
use super::tools::{self, ToolError};
use crate::cache::{Cache, CacheError, TempDir};
use crate::child::{ChildError, Command};
use crate::exit::{self, ExitCode};
use crate::matrix::{Debian, PackageName, Row, Source, series_of_package};
use crate::model::ImageFacts;
use crate::progress::Progress;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long another run's fetching of the same kernel is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(1800);
/// Wall-clock limit of fetching a mainline build.
const UPSTREAM_DEADLINE: Duration = Duration::from_secs(1800);
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
        source: Option<AptError>,
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
    /// Sources cannot be built yet.
    #[error(
        "kernel {name}: building kernels from an archive is not supported yet; use debian, upstream or path"
    )]
    NoBuilder {
        /// The row.
        name: String,
    },
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
        source: Option<ChildError>,
    },
    /// The image that was named is none.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// apt failed.
    #[error("kernel {name}: {source}")]
    Apt {
        /// The row.
        name: String,
        /// How.
        source: AptError,
    },
    /// The package cannot be unpacked.
    #[error("kernel {name}: {source}")]
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
            Self::PromiseBroken { .. } | Self::NoBuilder { .. } | Self::Image(_) | Self::NoImage { .. } => {
                exit::BAD_INPUT
            }
            Self::Tool(tool) => tool.exit_code(),
            Self::Offline { .. }
            | Self::Damaged { .. }
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
            Ok(facts) => Status::Local { facts },
            Err(error) => Status::Damaged { why: chain(&error) },
        };
    }
    let Some(key) = cache_key(&row.source) else {
        return Status::Unavailable { why: KernelError::NoBuilder { name: row.name.clone() }.to_string() };
    };
    match Entry::load(cache, &key) {
        Ok(Some(entry)) => Status::Cached {
            facts: facts_of(&entry, &row.config),
            package_file: entry.deb(),
            config_origin: entry.meta.config_origin,
        },
        Ok(None) => Status::Absent { from: describe(&row.source) },
        Err(error) => Status::Damaged { why: chain(&error) },
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
        return inspect(path);
    }
    let name = || row.name.clone();
    let key = cache_key(&row.source).ok_or_else(|| KernelError::NoBuilder { name: name() })?;
    let label = format!("fetch {}", row.name);
    if let Some(entry) = load(row, cache, &key, progress, offline)? {
        return kept_promises(row, facts_of(&entry, &row.config));
    }
    if offline {
        return Err(KernelError::Offline { name: name() });
    }
    let _lock = cache.lock(&format!("kernel-{key}"), progress, LOCK_PATIENCE)?;
    // Whoever held the lock may have fetched it.
    let entry = match load(row, cache, &key, &Progress::silent(), offline)? {
        Some(entry) => entry,
        None => match &row.source {
            Source::Debian(debian) => fetch_debian(row, debian, cache, progress, &label, &key)?,
            Source::Upstream(version) => fetch_upstream(row, version, cache, progress, &label, &key)?,
            Source::Archive(_) | Source::Path(_) => return Err(KernelError::NoBuilder { name: name() }),
        },
    };
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

/// Under which key the cache keeps the source's image; `None` when it keeps none.
fn cache_key(source: &Source) -> Option<String> {
    match source {
        Source::Debian(debian) => Some(format!("{}_{}", debian.package.full, debian.version)),
        Source::Upstream(version) => Some(format!("mainline-{version}")),
        Source::Archive(_) | Source::Path(_) => None,
    }
}

/// The source in a few words.
fn describe(source: &Source) -> String {
    match source {
        Source::Debian(d) => format!("{} {} from {}", d.package.full, d.version, d.suites.join(", ")),
        Source::Upstream(version) => format!("mainline {version} through virtme-ng"),
        Source::Archive(archive) => archive.url.clone(),
        Source::Path(path) => path.display().to_string(),
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    let mut text = error.to_string();
    for cause in causes.map(ToString::to_string) {
        // A transparent error repeats its cause.
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
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
            progress.say(&format!("fetch {}", row.name), &format!("fetching again: {}", chain(&error)));
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

/// Holds the facts against the row's promises; an unknown configuration breaks none.
fn kept_promises(row: &Row, facts: ImageFacts) -> Result<ImageFacts, KernelError> {
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

/// A package that was fetched.
struct Fetched {
    candidate: Candidate,
    suite: Suite,
    file: PathBuf,
    substituted: Option<String>,
}

/// Fetches the pinned package, or the newest of its kin that downloads.
fn fetch_debian(
    row: &Row,
    pin: &Debian,
    cache: &Cache,
    progress: &Progress,
    label: &str,
    key: &str,
) -> Result<Entry, KernelError> {
    let name = || row.name.clone();
    let fetched = fetch_package(row, pin, cache, progress, label)?;
    let temp = cache.temp_dir()?;
    let task = progress.task(label, "unpacking");
    let unpacked = deb::unpack(&fetched.file, temp.path())
        .map_err(|source| KernelError::Deb { name: name(), source })?;
    let Candidate { package, version, sha256, .. } = &fetched.candidate;
    if unpacked.image.is_none() {
        return Err(KernelError::NoImage {
            name: name(),
            package: package.full.clone(),
            version: version.clone(),
        });
    }
    let config_origin = match unpacked.config {
        Some(_) => format!("package {} {version}", package.full),
        None => fetch_config(&fetched, &temp, label, progress),
    };
    let deb = keep_package(&fetched.file, &temp)?;
    let meta = Meta {
        package: package.full.clone(),
        package_version: version.clone(),
        suite: fetched.suite.name().to_owned(),
        deb,
        deb_sha256: sha256.clone(),
        config_origin: config_origin.clone(),
        substituted: fetched.substituted.clone(),
        ..Meta::default()
    };
    let entry = Entry::publish(cache, key, temp, meta)
        .map_err(|source| KernelError::Publish { name: name(), source })?;
    if let Some(sentence) = &fetched.substituted {
        progress.say(label, sentence);
    }
    if entry.config().is_empty() {
        progress.say(label, &format!("the kernel's configuration is unknown: {config_origin}"));
    }
    task.done(&format!("ready: {} {version}", package.full));
    Ok(entry)
}

/// Moves the package's file into the entry (its modules may be wanted later) and returns its name.
fn keep_package(file: &Path, temp: &TempDir) -> Result<String, CacheError> {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let dest = temp.path().join(&name);
    std::fs::rename(file, &dest).map_err(|e| CacheError::io("move", &dest, e))?;
    if let Some(folder) = file.parent() {
        // An empty folder that stays does no harm.
        let _ = std::fs::remove_dir(folder);
    }
    Ok(name)
}

/// Since 6.19 Debian keeps the configuration in `linux-base-<release>`; returns where it was found or why not.
fn fetch_config(fetched: &Fetched, temp: &TempDir, label: &str, progress: &Progress) -> String {
    let Candidate { package, version, .. } = &fetched.candidate;
    let companion = format!("linux-base-{}", package.release());
    let Some(companion) = series_of_package(&companion) else {
        return format!("package {} holds none", package.full);
    };
    let get = || -> Result<Option<()>, String> {
        let found = fetched.suite.exactly(&companion, version).map_err(|e| chain(&e))?;
        let Some(candidate) = found else { return Ok(None) };
        let file = fetched.suite.download(&candidate, label, progress).map_err(|e| chain(&e))?;
        let unpacked = deb::unpack(&file, temp.path()).map_err(|e| chain(&e))?;
        // The file was wanted for its configuration only; what stays is fetched over by the next run.
        let _ = file.parent().map(std::fs::remove_dir_all);
        Ok(unpacked.config.map(drop))
    };
    match get() {
        Ok(Some(())) => format!("package {} {version}", companion.full),
        Ok(None) => format!(
            "{} holds none, and {} {version} with it is not in {}",
            package.full,
            companion.full,
            fetched.suite.name()
        ),
        Err(why) => {
            format!("{} holds none, and {} could not be fetched: {why}", package.full, companion.full)
        }
    }
}

/// Looks through the suites: first for the pin, then for its kin.
fn fetch_package(
    row: &Row,
    pin: &Debian,
    cache: &Cache,
    progress: &Progress,
    label: &str,
) -> Result<Fetched, KernelError> {
    let name = || row.name.clone();
    let mut known: Vec<(Candidate, String)> = Vec::new();
    let mut trouble = None;
    let mut pin_was_listed = false;
    for suite_name in &pin.suites {
        match look_in(suite_name, pin, cache, progress, label) {
            Ok(Look::Pin(fetched)) => return Ok(*fetched),
            Ok(Look::Others { candidates, listed }) => {
                pin_was_listed |= listed;
                known.extend(candidates.into_iter().map(|candidate| (candidate, suite_name.clone())));
            }
            // Another suite may still have it.
            Err(error) => trouble = trouble.or(Some(error)),
        }
    }
    // A suite that could not be asked may have the pin: a substitute is no answer to a broken network.
    if let Some(source) = trouble {
        return Err(KernelError::Apt { name: name(), source });
    }
    known.sort_by(|(a, _), (b, _)| super::debian_version::compare(&b.version, &a.version));
    let mut last = None;
    for (candidate, suite_name) in known {
        let opened = Suite::open(cache, &suite_name, progress);
        let suite = opened.map_err(|source| KernelError::Apt { name: name(), source })?;
        match suite.download(&candidate, label, progress) {
            Ok(file) => {
                let substituted = Some(substitution(pin, &candidate, &suite_name, pin_was_listed));
                return Ok(Fetched { candidate, suite, file, substituted });
            }
            Err(error @ AptError::Gone { .. }) => {
                progress.say(label, &error.to_string());
                last = Some(error);
            }
            Err(source) => return Err(KernelError::Apt { name: name(), source }),
        }
    }
    let PackageName { full, series, .. } = pin.package.clone();
    Err(KernelError::NothingLeft {
        name: name(),
        package: full,
        series,
        suites: pin.suites.clone(),
        source: last,
    })
}

/// The sentence that goes into every report of a run with a substitute.
fn substitution(pin: &Debian, taken: &Candidate, suite: &str, pin_was_listed: bool) -> String {
    let how = if pin_was_listed { "still listed but gone from the mirror" } else { "no longer listed" };
    format!(
        "the pinned {} {} is {how} ({}); taken instead: {} {} from {suite}, the newest of series {} that downloads",
        pin.package.full,
        pin.version,
        pin.suites.join(", "),
        taken.package.full,
        taken.version,
        pin.package.series
    )
}

/// What a suite has.
enum Look {
    /// The pin itself, downloaded.
    Pin(Box<Fetched>),
    /// Its kin, without the pin.
    Others { candidates: Vec<Candidate>, listed: bool },
}

fn look_in(
    suite_name: &str,
    pin: &Debian,
    cache: &Cache,
    progress: &Progress,
    label: &str,
) -> Result<Look, AptError> {
    let mut suite = Suite::open(cache, suite_name, progress)?;
    let mut candidates = suite.candidates(&pin.package, Some(&pin.version), progress)?;
    let is_pin = |candidate: &Candidate| candidate.package == pin.package && candidate.version == pin.version;
    let Some(at) = candidates.iter().position(is_pin) else {
        return Ok(Look::Others { candidates, listed: false });
    };
    let candidate = candidates.remove(at);
    match suite.download(&candidate, label, progress) {
        Ok(file) => Ok(Look::Pin(Box::new(Fetched { candidate, suite, file, substituted: None }))),
        Err(error @ AptError::Gone { .. }) => {
            progress.say(label, &error.to_string());
            Ok(Look::Others { candidates, listed: true })
        }
        Err(error) => Err(error),
    }
}

/// Fetches a mainline build through virtme-ng, which keeps it in its user's home: it is given one of its own.
fn fetch_upstream(
    row: &Row,
    version: &str,
    cache: &Cache,
    progress: &Progress,
    label: &str,
    key: &str,
) -> Result<Entry, KernelError> {
    let failed =
        |source| KernelError::Upstream { name: row.name.clone(), version: version.to_owned(), source };
    let vng = tools::ensure_vng(cache, progress, false)?;
    let home = cache.temp_dir()?;
    let task = progress.task(label, &format!("downloading mainline {version} through virtme-ng"));
    Command::new(&vng.path, format!("fetching mainline {version}"), UPSTREAM_DEADLINE)
        .args(["--dry-run", "--run", version])
        .env("HOME", home.path())
        .current_dir(home.path())
        .log(cache.root().join("tools").join("virtme-ng-run.log"))
        .run()
        .map_err(|source| failed(Some(source)))?;
    let boot = home.path().join(".cache/virtme-ng").join(version).join("amd64/boot");
    let find = |prefix: &str| {
        let entries = std::fs::read_dir(&boot).ok()?;
        let mut paths = entries.flatten().map(|entry| entry.path());
        paths.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
    };
    let image = find("vmlinuz-").ok_or_else(|| failed(None))?;
    let temp = cache.temp_dir()?;
    let take = |from: &Path, to: &str| {
        std::fs::rename(from, temp.path().join(to)).map_err(|e| CacheError::io("move", from, e))
    };
    take(&image, "vmlinuz")?;
    let config_origin = match find("config-") {
        Some(config) => {
            take(&config, "config")?;
            format!("mainline build {version}")
        }
        None => format!("the mainline build {version} holds none"),
    };
    let meta = Meta { config_origin, ..Meta::default() };
    let entry = Entry::publish(cache, key, temp, meta)
        .map_err(|source| KernelError::Publish { name: row.name.clone(), source })?;
    task.done(&format!("ready: mainline {version}"));
    Ok(entry)
}

#[cfg(test)]
mod tests;
