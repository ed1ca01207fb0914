//! A private apt per suite, inside the cache: no root, and nothing of the system's own apt is written to. Of that the
//! configuration is read: proxies and certificates by apt itself, and its sources, for the mirror and its keyring
//! ([`sources::read_system`]).
//!
//! One apt root per suite keeps every step small: only the suites that are asked about are updated, and apt need not
//! merge lists of releases that have nothing to do with each other. apt itself checks signatures and hashes.

use super::debian_version;
use super::sources::{self, MIRROR_VARIABLE, Mirror, SECURITY_VARIABLE};
use crate::cache::{Cache, CacheError, Lock};
use crate::child::{ChildError, Command};
use crate::exit::{self, ExitCode};
use crate::matrix::{PackageName, series_of_package};
use crate::progress::{Progress, Task};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod stanzas;
pub use stanzas::{Candidate, parse_stanzas};

/// Lists younger than this are not fetched again as long as they know what is looked for.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// Wall-clock limit of fetching a suite's lists.
const UPDATE_DEADLINE: Duration = Duration::from_secs(600);
/// Wall-clock limit of fetching one package.
const DOWNLOAD_DEADLINE: Duration = Duration::from_secs(1200);
/// Wall-clock limit of a look into the lists.
const QUERY_DEADLINE: Duration = Duration::from_secs(120);
/// apt's helper for scripts, part of the package apt.
const HELPER: &str = "/usr/lib/apt/apt-helper";
/// How long another run's work on the same suite is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(1800);

/// What can go wrong with apt.
#[derive(Debug, thiserror::Error)]
pub enum AptError {
    /// There is no apt.
    #[error(
        "apt-get is not installed, so that Debian's kernels cannot be fetched; use a machine with apt, or give kernel \
         images by path"
    )]
    NoApt,
    /// There is no mirror.
    #[error("the machine's apt sources name no Debian mirror for suite {suite}; set {variable} to one")]
    NoMirror {
        /// The suite.
        suite: String,
        /// The variable that sets it.
        variable: &'static str,
    },
    /// The cache's path cannot be written into apt's configuration.
    #[error("apt cannot work in {}: its path holds a quote, a backslash, a brace or a line break; set CONFORM_CACHE", path.display())]
    BadPath {
        /// The path.
        path: PathBuf,
    },
    /// The lists could not be fetched.
    #[error(
        "cannot update the package lists of {suite}; check the network and the mirror ({MIRROR_VARIABLE})"
    )]
    Update {
        /// The suite.
        suite: String,
        /// What apt said.
        #[source]
        source: Box<ChildError>,
    },
    /// The lists cannot be read.
    #[error("cannot read the package lists of {suite}")]
    Query {
        /// The suite.
        suite: String,
        /// What apt said.
        #[source]
        source: Box<ChildError>,
    },
    /// The mirror lists the package but does not have it.
    #[error("{package} {version} is listed in {suite} but gone from the mirror")]
    Gone {
        /// The suite.
        suite: String,
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// What apt said.
        #[source]
        source: Box<ChildError>,
    },
    /// The package could not be fetched.
    #[error("cannot download {package} {version} from {suite}; what has come is kept, run again to go on")]
    Download {
        /// The suite.
        suite: String,
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// What apt said.
        #[source]
        source: Box<ChildError>,
    },
    /// The package is not what the signed lists promise.
    #[error("{} has the SHA-256 {actual}, the signed package list says {expected}", path.display())]
    WrongHash {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// The disk is full.
    #[error("the disk that holds {} is full: make room, or set CONFORM_CACHE to a folder elsewhere", path.display())]
    Full {
        /// The folder.
        path: PathBuf,
        /// What apt said.
        #[source]
        source: Box<ChildError>,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl ExitCode for AptError {
    fn exit_code(&self) -> u8 {
        exit::INFRASTRUCTURE
    }
}

/// One suite's private apt root, locked for this run.
#[derive(Debug)]
pub struct Suite {
    name: String,
    root: PathBuf,
    refreshed: bool,
    _lock: Lock,
}

impl Suite {
    /// Opens the root of suite `name` and writes its configuration; nothing is fetched yet.
    ///
    /// # Errors
    /// [`AptError::NoApt`], [`AptError::NoMirror`], [`AptError::BadPath`] or [`AptError::Cache`].
    pub fn open(cache: &Cache, name: &str, progress: &Progress) -> Result<Self, AptError> {
        if super::tools::find_in_path("apt-get").is_none() {
            return Err(AptError::NoApt);
        }
        let entries = sources::read_system(Path::new("/etc/apt"));
        let mirror =
            sources::mirror_for(name, &entries, |name| std::env::var(name).ok()).ok_or_else(|| {
                let variable = if name.ends_with("-security") { SECURITY_VARIABLE } else { MIRROR_VARIABLE };
                AptError::NoMirror { suite: name.to_owned(), variable }
            })?;
        let root = cache.root().join("apt").join(name);
        let lock = cache.lock(&format!("apt-{name}"), progress, LOCK_PATIENCE)?;
        let suite = Self { name: name.to_owned(), root, refreshed: false, _lock: lock };
        suite.configure(&mirror)?;
        Ok(suite)
    }

    /// The suite's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The newest of `wanted`'s kin first. Lists are fetched when they are missing, old, or do not know `version`.
    ///
    /// # Errors
    /// [`AptError::Update`] or [`AptError::Query`].
    pub fn candidates(
        &mut self,
        wanted: &PackageName,
        version: Option<&str>,
        progress: &Progress,
    ) -> Result<Vec<Candidate>, AptError> {
        if !self.is_fresh() {
            self.update(progress)?;
        }
        let knows = |found: &[Candidate]| {
            version.is_none_or(|v| found.iter().any(|c| c.package == *wanted && c.version == v))
        };
        let mut found = self.query(wanted)?;
        if !knows(&found) && !self.refreshed {
            self.update(progress)?;
            found = self.query(wanted)?;
        }
        Ok(found)
    }

    /// The package of exactly this name and version, if the lists know it; nothing is updated.
    ///
    /// # Errors
    /// [`AptError::Query`].
    pub fn exactly(&self, package: &PackageName, version: &str) -> Result<Option<Candidate>, AptError> {
        let stanzas = self.show(std::slice::from_ref(&package.full))?;
        Ok(parse_stanzas(&stanzas).into_iter().find(|c| c.package == *package && c.version == version))
    }

    /// Fetches a package and returns its file, which lies in the suite's root until it is moved away.
    ///
    /// An earlier attempt's partial file is continued.
    ///
    /// # Errors
    /// [`AptError::Gone`], [`AptError::Download`], [`AptError::WrongHash`] or [`AptError::Full`].
    pub fn download(&self, what: &Candidate, label: &str, progress: &Progress) -> Result<PathBuf, AptError> {
        let folder = self.root.join("download").join(format!("{}_{}", what.package.full, what.version));
        let mebibytes = what.size.div_ceil(1 << 20);
        let task = progress.task(
            label,
            &format!(
                "downloading {} {} from {} ({mebibytes} MiB)",
                what.package.full, what.version, self.name
            ),
        );
        let mut last_error = None;
        // A partial file that does not fit makes apt fail on the hash: the second attempt starts afresh.
        for _attempt in 0..2 {
            fs::create_dir_all(&folder).map_err(|e| CacheError::io("create", &folder, e))?;
            match self.download_once(what, &folder, &task) {
                Err(error @ (AptError::Download { .. } | AptError::WrongHash { .. }))
                    if is_damage(&error) =>
                {
                    fs::remove_dir_all(&folder).map_err(|e| CacheError::io("remove", &folder, e))?;
                    last_error = Some(error);
                }
                other => return other,
            }
        }
        Err(last_error.unwrap_or(AptError::NoApt))
    }

    fn download_once(&self, what: &Candidate, folder: &Path, task: &Task) -> Result<PathBuf, AptError> {
        let outcome = self.download_command(what, folder).and_then(|command| {
            let running = command.current_dir(folder).log(self.root.join("download.log")).spawn()?;
            running.wait_with(|| task.position(size_of_files(folder), what.size))
        });
        outcome.map_err(|source| self.download_error(what, source))?;
        let path = only_deb(folder)?;
        let actual = super::sha256_file(&path).map_err(|e| CacheError::io("read", &path, e))?;
        if actual != what.sha256 {
            return Err(AptError::WrongHash { path, expected: what.sha256.clone(), actual });
        }
        Ok(path)
    }

    /// `apt-get download` throws a partial file away; apt's helper, given the address and the hash, continues it.
    fn download_command(&self, what: &Candidate, folder: &Path) -> Result<Command, ChildError> {
        let argument = format!("{}={}", what.package.full, what.version);
        let purpose = format!("downloading {argument}");
        if !Path::new(HELPER).exists() {
            let command = self.apt("apt-get", purpose, DOWNLOAD_DEADLINE);
            return Ok(command.args(["-q", "download", &argument]));
        }
        let query = self.apt("apt-get", format!("asking where {argument} is"), QUERY_DEADLINE);
        let printed = query.args(["-q", "download", "--print-uris", &argument]).run()?.stdout;
        let uri = printed.split('\'').nth(1).unwrap_or_default();
        let file = folder.join(format!("{}_{}.deb", what.package.full, what.version));
        // Given no size, the helper would take whatever comes.
        let command = self.apt(HELPER, purpose, DOWNLOAD_DEADLINE).writes_no_more_than(what.size);
        Ok(command.args(["-q", "download-file", uri]).arg(file).arg(format!("SHA256:{}", what.sha256)))
    }

    fn download_error(&self, what: &Candidate, source: ChildError) -> AptError {
        let source = Box::new(source);
        if source.tail().contains("No space left on device") {
            return AptError::Full { path: self.root.clone(), source };
        }
        let (suite, package, version) = (self.name.clone(), what.package.full.clone(), what.version.clone());
        let gone = ["404  Not Found", "410  Gone", "404 Not Found", "File not found"];
        if gone.iter().any(|sign| source.tail().contains(sign)) {
            return AptError::Gone { suite, package, version, source };
        }
        AptError::Download { suite, package, version, source }
    }

    /// Writes `apt.conf` and `sources.list`, and forgets lists of another mirror.
    fn configure(&self, mirror: &Mirror) -> Result<(), AptError> {
        let root = self.root.to_str().filter(|path| !path.contains(['"', '\\', '{', '}', '\n', ']']));
        let root = root.ok_or_else(|| AptError::BadPath { path: self.root.clone() })?;
        for folder in ["lists/partial", "archives/partial", "download"] {
            let path = self.root.join(folder);
            fs::create_dir_all(&path).map_err(|e| CacheError::io("create", &path, e))?;
        }
        let signed_by = mirror
            .keyring
            .as_ref()
            .map(|keyring| format!("[signed-by={}] ", keyring.display()))
            .unwrap_or_default();
        let list = format!("deb {signed_by}{} {} main\n", mirror.uri, self.name);
        let list_path = self.root.join("sources.list");
        if fs::read_to_string(&list_path).unwrap_or_default() != list {
            // Absent when the root is new.
            let _ = fs::remove_file(self.stamp());
            self.write("sources.list", &list)?;
        }
        self.write("status", "")?;
        self.write("apt.conf", &configuration(root))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), AptError> {
        let path = self.root.join(name);
        fs::write(&path, text).map_err(|e| CacheError::io("write", &path, e).into())
    }

    /// An apt command with this root. Its configuration is read last, so that it wins over the system's.
    fn apt(&self, program: &str, what: String, deadline: Duration) -> Command {
        Command::new(program, what, deadline)
            .arg("-c")
            .arg(self.root.join("apt.conf"))
            .env("LC_ALL", "C.UTF-8")
            .env_remove("APT_CONFIG")
    }

    /// Touched when the lists have been fetched.
    fn stamp(&self) -> PathBuf {
        self.root.join("updated")
    }

    fn is_fresh(&self) -> bool {
        let age = fs::metadata(self.stamp()).and_then(|meta| meta.modified()).map(|time| time.elapsed());
        // A stamp from the future (a clock set back) is not trusted.
        matches!(age, Ok(Ok(age)) if age < FRESH)
    }

    fn update(&mut self, progress: &Progress) -> Result<(), AptError> {
        let label = format!("apt {}", self.name);
        let task = progress.task(&label, "updating the package lists");
        let command = self.apt("apt-get", format!("updating the lists of {}", self.name), UPDATE_DEADLINE);
        let outcome = command.args(["-q", "update"]).log(self.root.join("update.log")).run();
        drop(task);
        // apt takes an unreachable mirror as a warning when it still has old lists.
        match outcome {
            Ok(_) => {
                self.write("updated", "")?;
                self.refreshed = true;
                Ok(())
            }
            Err(source) if source.tail().contains("No space left on device") => {
                Err(AptError::Full { path: self.root.clone(), source: Box::new(source) })
            }
            Err(source) => Err(AptError::Update { suite: self.name.clone(), source: Box::new(source) }),
        }
    }

    fn query(&self, wanted: &PackageName) -> Result<Vec<Candidate>, AptError> {
        let prefix = format!("{}{}", wanted.head, wanted.series);
        let names = self
            .apt("apt-cache", format!("listing {prefix}*"), QUERY_DEADLINE)
            .args(["pkgnames", &prefix])
            .run()
            .map_err(|source| self.query_error(source))?
            .stdout;
        let kin: Vec<String> = names
            .lines()
            .filter(|name| series_of_package(name).is_some_and(|package| package.is_kin(wanted)))
            .map(str::to_owned)
            .collect();
        let mut found = parse_stanzas(&self.show(&kin)?);
        found.sort_by(|a, b| debian_version::compare(&b.version, &a.version));
        Ok(found)
    }

    fn query_error(&self, source: ChildError) -> AptError {
        AptError::Query { suite: self.name.clone(), source: Box::new(source) }
    }

    /// The lists' stanzas about `packages`.
    fn show(&self, packages: &[String]) -> Result<String, AptError> {
        if packages.is_empty() {
            return Ok(String::new());
        }
        let command = self.apt("apt-cache", "reading the package lists".into(), QUERY_DEADLINE);
        match command.arg("show").args(packages).run() {
            Ok(output) => Ok(output.stdout),
            Err(error) if error.tail().contains("No packages found") => Ok(String::new()),
            Err(source) => Err(self.query_error(source)),
        }
    }
}

/// Whether a download failed in a way that a fresh start can cure.
fn is_damage(error: &AptError) -> bool {
    match error {
        AptError::Download { source, .. } => {
            ["Hash Sum mismatch", "416 ", "unexpected size"].iter().any(|sign| source.tail().contains(sign))
        }
        AptError::WrongHash { .. } => true,
        AptError::NoApt
        | AptError::NoMirror { .. }
        | AptError::BadPath { .. }
        | AptError::Update { .. }
        | AptError::Query { .. }
        | AptError::Gone { .. }
        | AptError::Full { .. }
        | AptError::Cache(_) => false,
    }
}

/// The private root's configuration. Everything that would reach outside of `root` or fetch more is switched off:
/// translations, AppStream data, and the hooks with which the system tidies its own cache after an update.
fn configuration(root: &str) -> String {
    format!(
        r#"Dir::State::Lists "{root}/lists";
Dir::State::status "{root}/status";
Dir::State::extended_states "{root}/extended_states";
Dir::Cache "{root}";
Dir::Cache::archives "{root}/archives";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "";
Dir::Etc::SourceList "{root}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "amd64";
#clear APT::Architectures;
APT::Architectures {{ "amd64"; }};
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::DEP-11-icons-small;
#clear Acquire::IndexTargets::deb::DEP-11-icons;
#clear Acquire::IndexTargets::deb::DEP-11-icons-hidpi;
#clear Acquire::IndexTargets::deb::DEP-11-icons-large;
#clear Acquire::IndexTargets::deb::DEP-11-icons-large-hidpi;
#clear Acquire::IndexTargets::deb::Contents-deb;
#clear Acquire::IndexTargets::deb::CNF;
Acquire::Languages "none";
Acquire::PDiffs "false";
Acquire::GzipIndexes "true";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
"#
    )
}

/// The sizes of a folder's files together.
fn size_of_files(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}

/// The package that apt has put into `folder`.
fn only_deb(folder: &Path) -> Result<PathBuf, CacheError> {
    let entries = fs::read_dir(folder).map_err(|e| CacheError::io("list", folder, e))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| CacheError::io("find the package in", folder, std::io::ErrorKind::NotFound.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_stays_in_its_root() {
        let text = configuration("/r o");
        assert!(text.contains("Dir::State::Lists \"/r o/lists\";"));
        assert!(text.contains("#clear APT::Update::Post-Invoke;"));
    }
}
