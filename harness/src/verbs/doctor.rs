//! `conform doctor`: what is found, what is missing, what to do about it.

use super::environment::{Environment, images, jobs};
use super::folder::RunFolder;
use super::project::Project;
use super::subject::Subject;
use crate::cache::Cache;
use crate::cli::{AnswerFormat, DoctorOptions, HostOptions, MachineOptions};
use crate::exit::{self, Failure};
use crate::matrix::Matrix;
use crate::progress::Progress;
use crate::provision::doctor::{Check, State, examine};
use crate::run::setup::Deadlines;
use crate::run::trial::trial;
use crate::vmm::accel::{Accel, KvmHint, kvm_hint};
use crate::vmm::{AccelChoice, LauncherKind};
use comfy_table::{Table, presets};
use probes::protocol::Part;
use std::time::Duration;

/// Examines everything; the exit code is that of infrastructure when something a run needs is missing.
pub(super) fn doctor(project: &Project, options: &DoctorOptions, progress: &Progress) -> Result<u8, Failure> {
    let matrix = project.matrix()?;
    let cache = Cache::from_env()?;
    let checks = examine(&cache, &matrix, || accelerator(project, &matrix, &cache, progress));
    match options.format {
        AnswerFormat::Table => {
            let mut table = Table::new();
            table.load_preset(presets::NOTHING).set_header(["check", "state", "found", "remedy"]);
            for check in &checks {
                let state = match check.state {
                    State::Ok => "ok",
                    State::Warn => "warning",
                    State::Missing => "MISSING",
                };
                table.add_row([&check.name, state, &check.found, &check.remedy]);
            }
            super::print(&table.trim_fmt());
        }
        AnswerFormat::Json => {
            let document = serde_json::json!({ "schema": 1, "checks": checks });
            super::print(&format!("{document:#}"));
        }
    }
    let broken =
        checks.iter().any(|check| check.state == State::Missing && !check.name.starts_with("kernel "));
    Ok(if broken { exit::INFRASTRUCTURE } else { exit::OK })
}

/// Boots the first kernel that is in the cache, under KVM if that may work, else under TCG.
fn accelerator(project: &Project, matrix: &Matrix, cache: &Cache, progress: &Progress) -> Check {
    let cannot =
        |why: String| Check::new("accelerator", State::Warn, why, "conform kernels fetch, then again");
    let subjects: Vec<Subject> = matrix.rows.iter().map(|row| Subject::Row(Box::new(row.clone()))).collect();
    let silent = Progress::silent();
    let found = subjects
        .iter()
        .zip(images(&subjects, cache, &silent, true))
        .find_map(|(subject, image)| Some((subject, image.ok()?, Part::default())));
    let Some(first) = found else { return cannot("no kernel in the cache to try a machine with".into()) };
    let options = MachineOptions {
        host: HostOptions { jobs: None, vmm: LauncherKind::Qemu, accel: AccelChoice::Auto, offline: true },
        deadline: None,
        patience: 100,
        lsm: None,
        cold: false,
        cpus: 1,
        shuffle: None,
        apart: false,
        bring: None,
    };
    let prepared = Environment::prepare(project, &options, progress).and_then(|environment| {
        let folder = RunFolder::make(project, Some(&project.work_folder().join("doctor")))?;
        let jobs = jobs(&[first], &folder, None, "bpf")?;
        Ok((environment, jobs))
    });
    let (environment, jobs) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => return cannot(failure.to_string()),
    };
    let Some(job) = jobs.first() else { return cannot("no kernel to try".into()) };
    let attempt = |accel: Accel| {
        let mut setup = environment.setup.clone();
        setup.accel = accel;
        setup.deadlines = Deadlines::usual();
        if accel == Accel::Kvm {
            setup.deadlines.hello = Duration::from_secs(10);
        }
        progress.say("doctor", &format!("trying a machine under {}", accel.name()));
        trial(&setup, job)
    };
    let kvm = match kvm_hint() {
        KvmHint::No(why) => Err(why),
        KvmHint::Maybe => attempt(Accel::Kvm),
    };
    match kvm {
        Ok(()) => Check::new("accelerator", State::Ok, "kvm: a trial machine said hello", ""),
        Err(no_kvm) => match attempt(Accel::Tcg) {
            Ok(()) => Check::new(
                "accelerator",
                State::Ok,
                format!("tcg: a trial machine said hello; no kvm: {no_kvm}"),
                "",
            ),
            Err(why) => Check::new(
                "accelerator",
                State::Missing,
                format!("no machine comes up: {why}; no kvm: {no_kvm}"),
                "look at the console log in target/conform/doctor",
            ),
        },
    }
}
