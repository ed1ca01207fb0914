//! What a run was started with, kept beside its records, so that an interrupted one can go on (`conform run --resume`).
//!
//! Records of two runs may only stand side by side when nothing that decides them has changed in between: the probes,
//! the guest, each kernel's image and modules, the machine, the options. All of that is in the run folder's `run.json`,
//! and a difference is an error that names it.

use super::project::Project;
use crate::cli::{Cli, HostOptions, MachineOptions, RunOptions, Selection, Verb};
use crate::exit::{self, Failure};
use crate::model::KernelRun;
use crate::provision::{modules, sha256_file};
use crate::report::runs;
use crate::run::shard::Shard;
use crate::run::{Job, Setup};
use crate::vmm::{AccelChoice, LauncherKind};
use clap::Parser as _;
use probes::record::Outcome;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The file in a run folder.
pub(super) const FILE: &str = "run.json";
/// Version of the file.
const FORMAT: u32 = 1;

/// The options that decide what is run and how, as they were given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Options {
    kernel: Vec<String>,
    probe: Vec<String>,
    shard: Option<Shard>,
    vmm: LauncherKind,
    accel: AccelChoice,
    deadline: Option<u64>,
    patience: u32,
    lsm: Option<String>,
    cold: bool,
    cpus: u32,
    shuffle: Option<u64>,
}

impl Options {
    pub(super) fn of(selection: &Selection, machine: &MachineOptions) -> Self {
        Self {
            kernel: selection.kernels.clone(),
            probe: selection.probes.clone(),
            shard: selection.shard,
            vmm: machine.host.vmm,
            accel: machine.host.accel,
            deadline: machine.deadline,
            patience: machine.patience,
            lsm: machine.lsm.clone(),
            cold: machine.cold,
            cpus: machine.cpus,
            shuffle: machine.shuffle,
        }
    }

    /// What stands here when nothing is given: what `conform run` alone is taken for, which is always something.
    fn none() -> Option<Self> {
        let Verb::Run(given) = Cli::try_parse_from(["conform", "run"]).ok()?.verb else { return None };
        Some(Self::given(&given))
    }

    /// Those of `run`, whose share is no part of its selection.
    fn given(options: &RunOptions) -> Self {
        let selection = Selection { shard: options.shard, ..options.selection.clone() };
        Self::of(&selection, &options.machine)
    }

    /// These options in place of those of `options`.
    fn in_place_of(self, options: &RunOptions) -> RunOptions {
        let selection = Selection { kernels: self.kernel, probes: self.probe, shard: None };
        let machine = MachineOptions {
            host: HostOptions { vmm: self.vmm, accel: self.accel, ..options.machine.host.clone() },
            deadline: self.deadline,
            patience: self.patience,
            lsm: self.lsm,
            cold: self.cold,
            cpus: self.cpus,
            shuffle: self.shuffle,
            bring: options.machine.bring.clone(),
        };
        RunOptions { selection, machine, shard: self.shard, ..options.clone() }
    }
}

/// What a run stands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: u32,
    options: Options,
    /// What all kernels share: a name for people, and a digest or version.
    shared: BTreeMap<String, String>,
    /// Each kernel's name, and the digest of all that is its own; of one without an image there is none yet.
    kernels: BTreeMap<String, Option<String>>,
}

impl Manifest {
    /// Of the run that `setup` and `jobs` make; `without` are the kernels that have no image.
    ///
    /// # Errors
    /// Infrastructure, when a file that is part of a machine cannot be read.
    pub(super) fn of(
        options: Options,
        setup: &Setup,
        jobs: &[Job],
        without: &[KernelRun],
    ) -> Result<Self, Failure> {
        let unreadable = |error| Failure::new(exit::INFRASTRUCTURE, error);
        let known = setup.known.join("\n");
        let shared = [
            ("the guest binary, which holds the probes", digest(&setup.guest)),
            ("the guest's first stage", sha256_file(&setup.initramfs).map_err(unreadable)?),
            ("the probes that only snapshots name", digest(known.as_bytes())),
            ("QEMU", setup.qemu_version.clone()),
            ("the accelerator", setup.accel.name().to_owned()),
            ("the machine", format!("{} MiB, {} processors", setup.memory_mib, setup.cpus)),
        ];
        let mut kernels: BTreeMap<String, Option<String>> =
            without.iter().map(|run| (run.kernel.clone(), None)).collect();
        for job in jobs {
            kernels.insert(job.kernel.clone(), Some(of_kernel(job).map_err(unreadable)?));
        }
        let shared = shared.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(Self { format: FORMAT, options, shared, kernels })
    }

    /// Writes the file, and drops what an earlier run has left in the folder of the same kernels.
    ///
    /// # Errors
    /// Infrastructure.
    pub(super) fn begin(&self, folder: &Path) -> Result<(), Failure> {
        for kernel in self.kernels.keys() {
            let old = runs::path(folder, kernel)?;
            if old.exists() {
                std::fs::remove_file(&old).map_err(|error| cannot("remove", &old, &error))?;
            }
        }
        let text =
            serde_json::to_string_pretty(self).map_err(|error| Failure::new(exit::INFRASTRUCTURE, error))?;
        let path = folder.join(FILE);
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(text.as_bytes())?;
            file.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|error| cannot("write", &path, &error))
    }

    /// Reads the file of a run folder.
    ///
    /// # Errors
    /// Bad input, when there is none or it is another version's.
    fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(FILE);
        let bad = |why: String| Failure::new(exit::BAD_INPUT, anyhow::anyhow!(why));
        let text = std::fs::read(&path).map_err(|error| {
            bad(format!(
                "cannot resume {}: no {FILE} ({error}): no machine had been started in it; run anew",
                folder.display()
            ))
        })?;
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| {
            bad(format!(
                "cannot resume {}: {FILE} is not one of this version: {error}; run anew",
                folder.display()
            ))
        })?;
        Ok(manifest)
    }

    /// What is different now, one sentence each.
    fn changes(&self, now: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, value) in &self.shared {
            let other = now.shared.get(name).map_or("nothing", String::as_str);
            if other != value {
                found.push(format!("{name} was {} and is {}", short(value), short(other)));
            }
        }
        for (kernel, was) in &self.kernels {
            match (was, now.kernels.get(kernel)) {
                (_, None) => found.push(format!("kernel {kernel} is no longer among those to run")),
                (Some(was), Some(Some(is))) if was != is => {
                    found.push(format!(
                        "the image, modules or lsm= of {kernel} were {} and are {}",
                        short(was),
                        short(is)
                    ));
                }
                (Some(_), Some(None)) => found.push(format!("the image of {kernel} is gone")),
                (None, Some(_)) | (Some(_), Some(Some(_))) => {}
            }
        }
        let new = now.kernels.keys().filter(|kernel| !self.kernels.contains_key(*kernel));
        found.extend(new.map(|kernel| format!("kernel {kernel} was not among those to run")));
        found
    }
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(exit::INFRASTRUCTURE, anyhow::anyhow!("cannot {what} {}: {error}", path.display()))
}

fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// As much of a digest as tells it from another; a text that is none, as it is.
fn short(text: &str) -> &str {
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { &text[..12] } else { text }
}

/// All that one kernel's records depend on and others' do not.
fn of_kernel(job: &Job) -> std::io::Result<String> {
    let modules = modules::beside(&job.image.path).map(|path| sha256_file(&path)).transpose()?;
    let words = [
        job.image.sha256.as_str(),
        modules.as_deref().unwrap_or("none"),
        &job.lsm,
        &job.release_prefix,
        &format!("{}/{}", job.part.index, job.part.of),
    ];
    Ok(digest(words.join("\n").as_bytes()))
}

/// A run that goes on.
#[derive(Clone, Debug)]
pub(super) struct Resumed {
    /// Its folder.
    pub(super) folder: PathBuf,
    was: Manifest,
}

impl Resumed {
    /// The run in `folder`, or the last one that did not come to its end.
    ///
    /// # Errors
    /// Bad input, when there is none.
    pub(super) fn open(project: &Project, folder: Option<&Path>) -> Result<Self, Failure> {
        let folder = folder.map_or_else(|| project.unfinished_run(), Path::to_owned);
        let folder = folder.canonicalize().map_err(|error| {
            let why = anyhow::anyhow!(
                "no interrupted run at {} ({error}); name its folder: --resume FOLDER",
                folder.display()
            );
            Failure::new(exit::BAD_INPUT, why)
        })?;
        let was = Manifest::read(&folder)?;
        Ok(Self { folder, was })
    }

    /// The options that the run goes on with: those it was started with, which need not be given again.
    ///
    /// # Errors
    /// Bad input, when others are given.
    pub(super) fn options(&self, given: &RunOptions) -> Result<RunOptions, Failure> {
        let options = Options::given(given);
        if Options::none().as_ref() != Some(&options) && options != self.was.options {
            let fields = |options: &Options| match serde_json::to_value(options) {
                Ok(serde_json::Value::Object(fields)) => fields,
                Ok(_) | Err(_) => serde_json::Map::new(),
            };
            let (was, is) = (fields(&self.was.options), fields(&options));
            let differ = was.iter().filter(|(name, value)| is.get(*name) != Some(value));
            let differ: Vec<String> = differ
                .map(|(name, value)| {
                    format!("--{name} was {value} and is {}", is.get(name).unwrap_or_default())
                })
                .collect();
            return Err(self.refusal(&differ));
        }
        Ok(self.was.options.clone().in_place_of(given))
    }

    /// Checks that nothing has changed, and gives each job what it has already.
    ///
    /// # Errors
    /// Bad input, with everything that is different now.
    pub(super) fn go_on(&self, now: &Manifest, jobs: &mut [Job]) -> Result<(), Failure> {
        let changes = self.was.changes(now);
        if !changes.is_empty() {
            return Err(self.refusal(&changes));
        }
        for job in jobs {
            let file = runs::path(&self.folder, &job.kernel)?;
            if file.exists() {
                job.before = Some(kept(runs::read(&file)?));
            }
        }
        Ok(())
    }

    fn refusal(&self, changes: &[String]) -> Failure {
        let why = anyhow::anyhow!(
            "cannot resume {}: {}; undo that, or run anew without --resume",
            self.folder.display(),
            changes.join("; ")
        );
        Failure::new(exit::BAD_INPUT, why)
    }
}

/// What counts of a kernel's run: all of a complete one, of another what was recorded.
fn kept(mut run: KernelRun) -> KernelRun {
    if run.failure.is_some() {
        run.records.retain(|record| !matches!(record.outcome, Outcome::NotRun { .. }));
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_is_what_clap_says() {
        let none = Options::none().unwrap();
        assert_eq!((none.cpus, none.vmm, none.cold), (1, LauncherKind::VirtmeNg, false));
    }
}
