//! What a run stands on: tools, the packed guest, kernel images, the accelerator.

use super::cannot;
use super::folder::RunFolder;
use super::project::Project;
use super::subject::Subject;
use crate::cache::Cache;
use crate::cli::MachineOptions;
use crate::exit::Failure;
use crate::model::ImageFacts;
use crate::progress::Progress;
use crate::provision::{kernels, tools};
use crate::run::setup::{Deadlines, Job, Setup};
use crate::run::trial::trial;
use crate::run::{guest, initramfs};
use crate::vmm::accel::{Accel, choose};
use crate::vmm::state::Store;
use crate::vmm::{Launcher, LauncherKind};
use probes::protocol::Part;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Memory of a machine. The largest Debian kernel with our initramfs needs about 250 MiB.
const MEMORY_MIB: u32 = 384;

/// Tools and settings that all kernels of a run share.
pub struct Environment {
    /// Kernels and tools that were fetched.
    pub cache: Cache,
    /// What the collector needs.
    pub setup: Setup,
}

/// Images of the subjects, in their order: fetched where they are missing. One that cannot be had does not keep the
/// others from running; its reason stands in its place.
pub(super) fn images<'a>(
    subjects: impl IntoIterator<Item = &'a Subject>,
    cache: &Cache,
    progress: &Progress,
    offline: bool,
) -> Vec<Result<ImageFacts, Failure>> {
    subjects
        .into_iter()
        .map(|subject| match subject {
            Subject::Row(row) => kernels::ensure(row, cache, progress, offline).map_err(Failure::from),
            Subject::Image { path, .. } => kernels::inspect(path).map_err(Failure::from),
        })
        .collect()
}

/// Jobs for the subjects that have an image.
///
/// # Errors
/// Infrastructure, when a folder for console logs cannot be made.
pub(super) fn jobs(
    subjects: &[(&Subject, ImageFacts, Part)],
    folder: &RunFolder,
    lsm: Option<&str>,
    default_lsm: &str,
) -> Result<Vec<Job>, Failure> {
    subjects
        .iter()
        .map(|(subject, image, part)| {
            let console = folder.path.join(subject.name());
            std::fs::create_dir_all(&console).map_err(|error| cannot("make", &console, &error))?;
            let own = match subject {
                Subject::Row(row) => row.lsm.as_str(),
                Subject::Image { .. } => default_lsm,
            };
            Ok(Job {
                kernel: subject.name().to_owned(),
                image: image.clone(),
                lsm: lsm.unwrap_or(own).to_owned(),
                release_prefix: subject.release_prefix(),
                folder: console,
                part: *part,
                expected: None,
                before: None,
            })
        })
        .collect()
}

impl Environment {
    /// Finds or installs the tools, builds and packs the guest.
    ///
    /// # Errors
    /// With the exit code of what is missing.
    pub fn prepare(
        project: &Project,
        options: &MachineOptions,
        progress: &Progress,
    ) -> Result<Self, Failure> {
        let cache = Cache::from_env()?;
        let qemu = tools::ensure_qemu(&cache, progress, options.host.offline)?;
        let vng = match options.host.vmm {
            LauncherKind::VirtmeNg => Some(tools::ensure_vng(&cache, progress, options.host.offline)?),
            LauncherKind::Qemu => None,
        };
        let (initramfs, guest) = packed_guest(project, progress)?;
        let states = if options.cold { None } else { Some(Store::open(cache.states())?) };
        let setup = Setup {
            launcher: Launcher {
                kind: options.host.vmm,
                vng: vng.as_ref().map(|tool| tool.path.clone()),
                qemu: qemu.path,
            },
            accel: Accel::Tcg,
            qemu_version: qemu.version,
            vng_version: vng.map(|tool| tool.version),
            initramfs,
            guest,
            states,
            guard: project.program.clone(),
            deadlines: Deadlines::usual(),
            select: Vec::new(),
            known: Vec::new(),
            detail: false,
            memory_mib: MEMORY_MIB,
            // Usually one: two virtual processors under TCG are slower.
            cpus: options.cpus,
            shuffle: options.shuffle,
            apart: options.apart,
            bring: options.bring.clone(),
        };
        Ok(Self { cache, setup })
    }

    /// Chooses the accelerator, if need be by booting `job` under KVM.
    pub fn choose_accel(&mut self, options: &MachineOptions, job: &Job, progress: &Progress) {
        let (accel, reason) = choose(options.host.accel, || {
            progress.say("accel", "trying a machine under kvm");
            let mut setup = self.setup.clone();
            setup.accel = Accel::Kvm;
            setup.deadlines.hello = Duration::from_secs(10);
            setup.states = None;
            trial(&setup, job)
        });
        progress.say("accel", &reason);
        self.setup.accel = accel;
        self.setup.deadlines = Deadlines::usual().percent(options.patience);
        if let Some(seconds) = options.deadline {
            self.setup.deadlines.probe = Duration::from_secs(seconds);
        }
    }
}

/// Builds the guest, packs its first stage and reads its second.
fn packed_guest(project: &Project, progress: &Progress) -> Result<(PathBuf, Arc<[u8]>), Failure> {
    progress.say("guest", "building the guest binary (a few seconds; about a minute the first time)");
    let built = guest::build(&project.root, &project.program)?;
    let folder = project.work_folder();
    std::fs::create_dir_all(&folder).map_err(|error| cannot("make", &folder, &error))?;
    let target = initramfs::packed(&built.boot, &folder)
        .map_err(|error| cannot("pack the guest's first stage into", &folder, &error))?;
    let guest =
        std::fs::read(&built.guest).map_err(|error| cannot("read the guest", &built.guest, &error))?;
    Ok((target, guest.into()))
}
