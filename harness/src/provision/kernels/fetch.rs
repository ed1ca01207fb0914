//! Fetching a kernel into the cache: Debian packages with their substitutes, and mainline builds through virtme-ng.

use super::KernelError;
use crate::cache::{Cache, CacheError, TempDir};
use crate::child::Command;
use crate::exit::with_causes;
use crate::matrix::{Debian, Row, Source, series_of_package};
use crate::progress::Progress;
use crate::provision::apt::{AptError, Candidate, Suite};
use crate::provision::deb;
use crate::provision::debian_version;
use crate::provision::entry::{Entry, Meta};
use crate::provision::modules;
use crate::provision::sha256_file;
use crate::provision::tools;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Wall-clock limit of fetching a mainline build.
const UPSTREAM_DEADLINE: Duration = Duration::from_secs(1800);
/// No package of a mainline build, and no file in one, comes near this.
const UPSTREAM_BYTES: u64 = 1 << 30;

/// What fetching a row's kernel needs to know.
pub(super) struct Fetch<'a> {
    pub(super) row: &'a Row,
    pub(super) cache: &'a Cache,
    pub(super) progress: &'a Progress,
    /// The entry's key in the cache.
    pub(super) key: &'a str,
    /// What progress is shown under.
    pub(super) label: &'a str,
}

/// A package that was fetched.
struct Fetched {
    candidate: Candidate,
    suite: Suite,
    file: PathBuf,
    substituted: Option<String>,
}

/// What a suite has.
enum Look {
    /// The pin itself, downloaded.
    Pin(Box<Fetched>),
    /// Its kin; `listed` tells whether the pin is in the lists although the mirror no longer has it.
    Others { candidates: Vec<Candidate>, listed: bool },
}

impl Fetch<'_> {
    /// Fetches the pinned package, or the newest of its kin that downloads.
    pub(super) fn debian(&self, pin: &Debian) -> Result<Entry, KernelError> {
        let fetched = self.package(pin)?;
        let temp = self.cache.temp_dir()?;
        let task = self.progress.task(self.label, "unpacking");
        let unpacked = deb::unpack(&fetched.file, temp.path())
            .map_err(|source| KernelError::Deb { name: self.name(), source })?;
        let Candidate { package, version, sha256, .. } = &fetched.candidate;
        if unpacked.image.is_none() {
            let (package, version) = (package.full.clone(), version.clone());
            return Err(KernelError::NoImage { name: self.name(), package, version });
        }
        let config_origin = match unpacked.config {
            Some(_) => format!("package {} {version}", package.full),
            None => self.companion_config(&fetched, &temp),
        };
        let meta = Meta {
            package: package.full.clone(),
            package_version: version.clone(),
            suite: fetched.suite.name().to_owned(),
            deb: keep_package(&fetched.file, &temp)?,
            deb_sha256: sha256.clone(),
            config_origin,
            substituted: fetched.substituted.clone(),
            ..Meta::default()
        };
        let entry = self.publish(temp, meta)?;
        if let Some(sentence) = &fetched.substituted {
            self.progress.say(self.label, sentence);
        }
        task.done(&format!("ready: {} {version}", package.full));
        Ok(entry)
    }

    /// Fetches a mainline build through virtme-ng, which keeps it in its user's home: it is given one of its own. It takes
    /// what comes and unpacks it; what is kept of that is the image that the row names, or of one that names none, what came.
    pub(super) fn upstream(&self, version: &str) -> Result<Entry, KernelError> {
        let vng = tools::ensure_vng(self.cache, self.progress, false)?;
        let home = self.cache.temp_dir()?;
        let task =
            self.progress.task(self.label, &format!("downloading mainline {version} through virtme-ng"));
        let outcome = Command::new(&vng.path, format!("fetching mainline {version}"), UPSTREAM_DEADLINE)
            .args(["--dry-run", "--run", version])
            .env("HOME", home.path())
            .current_dir(home.path())
            .log(self.cache.root().join("tools").join("virtme-ng-run.log"))
            .writes_no_more_than(UPSTREAM_BYTES)
            .run();
        let boot = home.path().join(".cache/virtme-ng").join(version).join("amd64/boot");
        // What counts is the image: the dry run behind the download may fail for reasons of its own.
        let image = find(&boot, "vmlinuz-").ok_or_else(|| KernelError::Upstream {
            name: self.name(),
            version: version.to_owned(),
            source: outcome.err().map(Box::new),
        })?;
        self.is_the_rows(&image, version)?;
        let temp = self.cache.temp_dir()?;
        let take = |from: &Path, to: &str| {
            std::fs::rename(from, temp.path().join(to)).map_err(|e| CacheError::io("move", from, e))
        };
        take(&image, "vmlinuz")?;
        let config_origin = match find(&boot, "config-") {
            Some(config) => {
                take(&config, "config")?;
                format!("mainline build {version}")
            }
            None => format!("the mainline build {version} holds none"),
        };
        let entry = self.publish(temp, Meta { config_origin, ..Meta::default() })?;
        task.done(&format!("ready: mainline {version}"));
        Ok(entry)
    }

    /// Refuses an image that is not the one that the row names, before it gets into the cache, where it would stay.
    fn is_the_rows(&self, image: &Path, version: &str) -> Result<(), KernelError> {
        let Some(expected) = self.row.sha256.clone() else { return Ok(()) };
        let found = sha256_file(image).map_err(|e| CacheError::io("read", image, e))?;
        if found == expected {
            return Ok(());
        }
        let image = format!("mainline {version}, as it was fetched,");
        Err(KernelError::AnotherImage { name: self.name(), image, expected, found })
    }

    fn name(&self) -> String {
        self.row.name.clone()
    }

    fn publish(&self, temp: TempDir, meta: Meta) -> Result<Entry, KernelError> {
        let origin = meta.config_origin.clone();
        let entry = Entry::publish(self.cache, self.key, temp, meta)
            .map_err(|source| KernelError::Publish { name: self.name(), source })?;
        if entry.config().is_empty() {
            self.progress.say(self.label, &format!("the kernel's configuration is unknown: {origin}"));
        }
        Ok(entry)
    }

    /// Looks through the suites: first for the pin, then for its kin.
    fn package(&self, pin: &Debian) -> Result<Fetched, KernelError> {
        let mut known: Vec<(Candidate, String)> = Vec::new();
        let mut trouble = None;
        let mut pin_was_listed = false;
        for suite_name in &pin.suites {
            match self.look_in(suite_name, pin) {
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
            return Err(KernelError::Apt { name: self.name(), source });
        }
        known.sort_by(|(a, _), (b, _)| debian_version::compare(&b.version, &a.version));
        self.substitute(pin, known, pin_was_listed)
    }

    fn look_in(&self, suite_name: &str, pin: &Debian) -> Result<Look, AptError> {
        let mut suite = Suite::open(self.cache, suite_name, self.progress)?;
        let mut candidates = suite.candidates(&pin.package, Some(&pin.version), self.progress)?;
        let is_pin =
            |candidate: &Candidate| candidate.package == pin.package && candidate.version == pin.version;
        let Some(at) = candidates.iter().position(is_pin) else {
            return Ok(Look::Others { candidates, listed: false });
        };
        let candidate = candidates.remove(at);
        match suite.download(&candidate, self.label, self.progress) {
            Ok(file) => Ok(Look::Pin(Box::new(Fetched { candidate, suite, file, substituted: None }))),
            Err(error @ AptError::Gone { .. }) => {
                self.progress.say(self.label, &error.to_string());
                Ok(Look::Others { candidates, listed: true })
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the first of `known`, which are sorted newest first, that downloads.
    fn substitute(
        &self,
        pin: &Debian,
        known: Vec<(Candidate, String)>,
        pin_was_listed: bool,
    ) -> Result<Fetched, KernelError> {
        let apt = |source| KernelError::Apt { name: self.name(), source };
        let mut last = None;
        for (candidate, suite_name) in known {
            let suite = Suite::open(self.cache, &suite_name, self.progress).map_err(apt)?;
            match suite.download(&candidate, self.label, self.progress) {
                Ok(file) => {
                    let substituted = Some(substitution(pin, &candidate, &suite_name, pin_was_listed));
                    return Ok(Fetched { candidate, suite, file, substituted });
                }
                Err(error @ AptError::Gone { .. }) => {
                    self.progress.say(self.label, &error.to_string());
                    last = Some(Box::new(error));
                }
                Err(error) => return Err(apt(error)),
            }
        }
        Err(KernelError::NothingLeft {
            name: self.name(),
            package: pin.package.full.clone(),
            series: pin.package.series.clone(),
            suites: pin.suites.clone(),
            source: last,
        })
    }

    /// Since 6.19 Debian keeps the configuration in `linux-base-<release>`, which leaves the archive sooner than the
    /// image does. Returns where the configuration was found, or why there is none.
    fn companion_config(&self, fetched: &Fetched, temp: &TempDir) -> String {
        let Candidate { package, version, .. } = &fetched.candidate;
        let Some(companion) = series_of_package(&format!("linux-base-{}", package.release())) else {
            return format!("package {} holds none", package.full);
        };
        let get = || -> Result<bool, String> {
            let found = fetched.suite.exactly(&companion, version).map_err(|e| with_causes(&e))?;
            let Some(candidate) = found else { return Ok(false) };
            let file =
                fetched.suite.download(&candidate, self.label, self.progress).map_err(|e| with_causes(&e))?;
            let unpacked = deb::unpack(&file, temp.path()).map_err(|e| with_causes(&e))?;
            // The file was wanted for its configuration only; one that stays does no harm.
            let _ = file.parent().map(std::fs::remove_dir_all);
            Ok(unpacked.config.is_some())
        };
        let (image, companion, suite) = (&package.full, &companion.full, fetched.suite.name());
        match get() {
            Ok(true) => format!("package {companion} {version}"),
            Ok(false) => format!("{image} holds none, and no {companion} {version} with it is in {suite}"),
            Err(why) => format!("{image} holds none, and {companion} could not be fetched: {why}"),
        }
    }

    /// Packs the modules that triggers need beside the image, once. Whether there are any decides nothing here: a
    /// kernel runs without them.
    pub(super) fn modules(&self, entry: &Entry) {
        let Source::Debian(pin) = &self.row.source else { return };
        let Some(folder) = entry.image().parent().map(Path::to_owned) else { return };
        let none = folder.join(modules::NONE);
        if modules::packed(&entry.image()) || none.exists() {
            return;
        }
        let task = self.progress.task(self.label, "packing modules");
        let packed = self.own_modules(entry, &folder).and_then(|count| match count {
            0 => self.companion_modules(pin, entry, &folder),
            count => Ok(count),
        });
        match packed {
            Ok(0) => {
                let why = format!("its modules are in none of {}", pin.suites.join(", "));
                // Where it cannot be written, the question is asked again the next time.
                let _ = std::fs::write(&none, &why);
                task.done(&why);
            }
            Ok(count) => task.done(&format!("{count} modules packed")),
            Err(why) => task.done(&format!("no modules: {why}")),
        }
    }

    /// The modules in the image's own package.
    fn own_modules(&self, entry: &Entry, folder: &Path) -> Result<usize, String> {
        let Some(deb) = entry.deb().filter(|deb| deb.exists()) else { return Ok(0) };
        modules::pack(&deb, folder).map_err(|error| with_causes(&error))
    }

    /// Since 6.19 Debian keeps them in `linux-modules-<release>`. None are found only where every suite's lists, fetched
    /// for the question, know none: old lists, or none, know nothing of what is there.
    fn companion_modules(&self, pin: &Debian, entry: &Entry, folder: &Path) -> Result<usize, String> {
        let (package, version) = (&entry.meta.package, &entry.meta.package_version);
        let release = series_of_package(package).map(|it| it.release().to_owned()).unwrap_or_default();
        let Some(companion) = series_of_package(&format!("linux-modules-{release}")) else { return Ok(0) };
        let look = |name: &str| -> Result<Option<PathBuf>, AptError> {
            let mut suite = Suite::open(self.cache, name, self.progress)?;
            let known = suite.candidates(&companion, Some(version), self.progress)?;
            let found = known.iter().find(|it| it.package == companion && it.version == *version);
            found.map(|found| suite.download(found, self.label, self.progress)).transpose()
        };
        let mut trouble = None;
        for name in &pin.suites {
            match look(name) {
                Ok(None) => {}
                Ok(Some(file)) => {
                    let packed = modules::pack(&file, folder).map_err(|error| with_causes(&error));
                    // The file was wanted for a few of its modules only; one that stays does no harm.
                    let _ = file.parent().map(std::fs::remove_dir_all);
                    return packed;
                }
                // Another suite may still have them.
                Err(error) => trouble = trouble.or(Some(with_causes(&error))),
            }
        }
        trouble.map_or(Ok(0), Err)
    }
}

/// The file of `folder` whose name begins with `prefix`.
fn find(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let mut paths = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    paths.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
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
