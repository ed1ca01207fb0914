//! A look at what a run needs: what is there, what is missing, and what to do about it. Changes nothing.

use super::kernels::{self, Status};
use super::sources::{self, MIRROR_VARIABLE};
use super::tools::{self, Privilege};
use crate::cache::Cache;
use crate::matrix::{Matrix, Row, Source};
use serde::Serialize;
use std::path::Path;

/// A run of all kernels with their packages needs about this much.
const WANTED_FREE: u64 = 2 << 30;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// A run works, but not as well as it could.
    Warn,
    /// A run fails, or has to fetch or install this first.
    Missing,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do; empty when there is nothing to do.
    pub remedy: String,
}

impl Check {
    /// A check of the given outcome.
    pub fn new(
        name: impl Into<String>,
        state: State,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name: name.into(), state, found: found.into(), remedy: remedy.into() }
    }
}

/// All checks. `accelerator` makes the real trial of a virtual machine and is called last but for the kernels'.
pub fn examine(cache: &Cache, matrix: &Matrix, accelerator: impl FnOnce() -> Check) -> Vec<Check> {
    let mut checks = vec![
        qemu(),
        virtme_ng(cache),
        python(),
        apt(),
        mirror(matrix),
        cache_folder(cache),
        kvm(),
        accelerator(),
    ];
    checks.extend(matrix.rows.iter().map(|row| kernel(row, cache)));
    checks
}

fn qemu() -> Check {
    let remedy = || match tools::privilege() {
        Privilege::Root | Privilege::Sudo => "none needed: the first run installs it".to_owned(),
        Privilege::None => format!("run: {}", tools::install_command(&["qemu-system-x86"])),
    };
    match tools::find_qemu() {
        Ok(Some(tool)) => {
            Check::new("qemu", State::Ok, format!("{} ({})", tool.version, tool.path.display()), "")
        }
        Ok(None) => Check::new("qemu", State::Missing, format!("{} is not in PATH", tools::QEMU), remedy()),
        Err(error) => {
            Check::new("qemu", State::Missing, error.to_string(), "reinstall QEMU or correct the setting")
        }
    }
}

fn virtme_ng(cache: &Cache) -> Check {
    match tools::find_vng(cache) {
        Some(tool) => {
            Check::new("virtme-ng", State::Ok, format!("{} ({})", tool.version, tool.path.display()), "")
        }
        None => Check::new(
            "virtme-ng",
            State::Warn,
            "not in the cache",
            "none needed: it is installed when first used",
        ),
    }
}

fn python() -> Check {
    match tools::find_python() {
        Some(path) => Check::new("python venv", State::Ok, path.display().to_string(), ""),
        None => Check::new(
            "python venv",
            State::Warn,
            "python3 with venv is missing; only virtme-ng needs it",
            format!("run: {}", tools::install_command(&["python3", "python3-venv"])),
        ),
    }
}

fn apt() -> Check {
    match tools::find_in_path("apt-get") {
        Some(path) => Check::new("apt", State::Ok, path.display().to_string(), ""),
        None => {
            Check::new("apt", State::Warn, "not installed", "give kernels by path, or use a Debian machine")
        }
    }
}

/// Whether every suite of the matrix has a mirror.
fn mirror(matrix: &Matrix) -> Check {
    let entries = sources::read_system(Path::new("/etc/apt"));
    let mut suites: Vec<&str> = Vec::new();
    for row in &matrix.rows {
        if let Source::Debian(debian) = &row.source {
            suites.extend(debian.suites.iter().map(String::as_str));
        }
    }
    suites.sort_unstable();
    suites.dedup();
    if suites.is_empty() {
        return Check::new("debian mirror", State::Ok, "no kernel of the matrix needs one", "");
    }
    let find = |suite: &str| sources::mirror_for(suite, &entries, |name| std::env::var(name).ok());
    let without: Vec<&str> = suites.iter().copied().filter(|suite| find(suite).is_none()).collect();
    if !without.is_empty() {
        let remedy = format!("set {MIRROR_VARIABLE} or {}", sources::SECURITY_VARIABLE);
        return Check::new(
            "debian mirror",
            State::Missing,
            format!("none for {}", without.join(", ")),
            remedy,
        );
    }
    let mut uris: Vec<String> =
        suites.iter().filter_map(|suite| find(suite)).map(|mirror| mirror.uri).collect();
    uris.sort_unstable();
    uris.dedup();
    Check::new("debian mirror", State::Ok, uris.join(", "), "")
}

fn cache_folder(cache: &Cache) -> Check {
    let root = cache.root().display();
    if let Err(error) = tempfile::tempfile_in(cache.root()) {
        return Check::new(
            "cache",
            State::Missing,
            format!("{root}: {error}"),
            "make it writable or set CONFORM_CACHE",
        );
    }
    match cache.free_bytes() {
        Ok(free) if free >= WANTED_FREE => {
            Check::new("cache", State::Ok, format!("{root}, {} MiB free", free >> 20), "")
        }
        Ok(free) => Check::new(
            "cache",
            State::Warn,
            format!("{root}, only {} MiB free", free >> 20),
            format!("make room: {} MiB are enough for all kernels", WANTED_FREE >> 20),
        ),
        Err(error) => Check::new("cache", State::Warn, error.to_string(), ""),
    }
}

/// What the machine says about hardware virtualization. Only a trial can tell whether it works.
fn kvm() -> Check {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flag = |name| {
        flags.lines().any(|line| line.starts_with("flags") && line.split_whitespace().any(|f| f == name))
    };
    let cpu = match (flag("vmx"), flag("svm")) {
        (true, _) => "the processor shows vmx",
        (_, true) => "the processor shows svm",
        _ => "the processor shows neither vmx nor svm",
    };
    let (device, opens) = match std::fs::File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => ("/dev/kvm opens".to_owned(), true),
        Err(error) => (format!("/dev/kvm does not open ({error})"), false),
    };
    let found = format!("{device}, {cpu}");
    if opens && !cpu.contains("neither") {
        return Check::new("kvm", State::Ok, found, "");
    }
    Check::new("kvm", State::Warn, found, "none needed: virtual machines run without it, more slowly")
}

fn kernel(row: &Row, cache: &Cache) -> Check {
    let name = format!("kernel {}", row.name);
    match kernels::status(row, cache) {
        Status::Cached { facts, built_from, .. } => {
            let package = format!("{} {}", facts.package, facts.package_version);
            let what = built_from.map_or(package, |from| format!("built of {from}"));
            match facts.substituted {
                None => Check::new(name, State::Ok, format!("cached: {}", what.trim()), ""),
                Some(sentence) => {
                    Check::new(name, State::Warn, sentence, "pin a version that is there in matrix.yaml")
                }
            }
        }
        Status::Local { facts } => Check::new(name, State::Ok, facts.path.display().to_string(), ""),
        Status::Absent { from } => Check::new(
            name,
            State::Warn,
            format!("not in the cache: {from}"),
            "none needed: fetched when first used",
        ),
        Status::Refused { why } => {
            Check::new(name, State::Missing, why, format!("mend the row {} in matrix.yaml", row.name))
        }
        Status::Damaged { why } | Status::Unavailable { why } => {
            let remedy = match row.source {
                Source::Path(_) => "give a whole kernel image".to_owned(),
                Source::Debian(_) | Source::Upstream(_) => "none needed: fetched again when used".to_owned(),
                Source::Archive(_) => {
                    format!("run: cargo conform kernels build {} [--source DIR]", row.name)
                }
            };
            Check::new(name, State::Missing, why, remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_built_or_was_damaged_then_is_to_be_built() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let text = format!(
            "kernels: [{{name: '5.9', archive: {{url: 'https://h/linux-5.9.1.tar.xz', sha256: {}}}, lsm: bpf}}]",
            "0".repeat(64)
        );
        let row = &Matrix::parse(&text, Path::new("matrix.yaml")).unwrap().rows[0];
        let build = "run: cargo conform kernels build 5.9 [--source DIR]";
        let absent = kernel(row, &cache);
        assert_eq!((absent.remedy.as_str(), absent.state), (build, State::Missing));
        let entry = cache.kernel_dir("built-5.9");
        std::fs::create_dir(&entry).unwrap();
        std::fs::write(entry.join("entry.json"), "{").unwrap();
        let damaged = kernel(row, &cache);
        assert_eq!((damaged.remedy.as_str(), damaged.state), (build, State::Missing));
        assert!(damaged.found.contains("is damaged in the cache"), "{}", damaged.found);
    }

    #[test]
    fn everything_is_looked_at_and_can_be_written_as_json() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let text = "kernels: [{name: mine, path: /absent/bzImage, lsm: bpf}]";
        let matrix = Matrix::parse(text, Path::new("matrix.yaml")).unwrap();
        let checks = examine(&cache, &matrix, || Check::new("accelerator", State::Ok, "tcg", ""));
        let names: Vec<_> = checks.iter().map(|check| check.name.as_str()).collect();
        assert_eq!(names[names.len() - 2..], ["accelerator", "kernel mine"]);
        assert_eq!(checks.last().map(|check| check.state), Some(State::Missing));
        assert!(checks.iter().all(|check| check.state == State::Ok || !check.found.is_empty()));
        assert!(serde_json::to_string(&checks).unwrap().contains("\"state\":\"ok\""));
    }
}
