//! `conform accept`: the one explicit step by which records become snapshots. Never in CI.

use super::folder::RunFolder;
use super::manifest::Manifest;
use super::project::{Project, check_releases, glob_set, known, probe_globs, subjects};
use crate::cache::Cache;
use crate::cli::AcceptOptions;
use crate::exit::{self, Failure};
use crate::interrupt;
use crate::matrix::Matrix;
use crate::model::KernelRun;
use crate::progress::Progress;
use crate::provision::kernels::{Status, status};
use crate::report::runs;
use crate::run::guest;
use std::path::Path;

/// Accepts what a run saw.
pub(super) fn accept(project: &Project, options: &AcceptOptions, progress: &Progress) -> Result<u8, Failure> {
    let matrix = project.matrix()?;
    let store = project.store();
    let dynamic = project.dynamic_ids()?;
    // A stale file's probe is unknown by definition, so its name is not looked up.
    let patterns = if options.prune {
        options.selection.probes.clone()
    } else {
        probe_globs(&options.selection.probes, &dynamic)?
    };
    let set = glob_set(&patterns)?;
    let wanted = |probe: &str| patterns.is_empty() || set.is_match(probe);

    interrupt::say_in_parting("what is said to be accepted is written, and all else is what it was");
    let mut changed = 0;
    let mut tell = |probe: &str| {
        super::print(&format!("accepted {probe}"));
        changed += 1;
    };
    let ended = if options.prune {
        store.prune_each(&known(&matrix, &dynamic, &[]), wanted, &mut tell)
    } else {
        let kernels: Vec<String> =
            subjects(&matrix, &options.selection.kernels)?.iter().map(|it| it.name().to_owned()).collect();
        let folder = options.run_dir.clone().unwrap_or_else(|| project.last_run());
        let folder = RunFolder::take(&folder)?;
        let manifest = Manifest::read(&folder.path)?;
        let runs = runs_of(&manifest, &folder.path, &kernels, progress)?;
        check_releases(&matrix, &runs)?;
        check_images(&matrix, &Cache::from_env()?, &runs)?;
        check_guest(project, &manifest, &folder.path, progress)?;
        let known = known(&matrix, &dynamic, &runs);
        store.accept_each(&runs, &known, options.revised, |probe, _| wanted(probe), &mut tell)
    };
    // Also when it was broken off.
    super::print(&format!("{changed} snapshot files changed"));
    ended?;
    Ok(exit::OK)
}

/// Those of the kernels that a folder's run has recorded. What another run has left in it is passed over.
fn runs_of(
    manifest: &Manifest,
    folder: &Path,
    kernels: &[String],
    progress: &Progress,
) -> Result<Vec<KernelRun>, Failure> {
    let wanted = runs::read_all(folder)?.into_iter().filter(|run| kernels.contains(&run.kernel));
    let (of_run, others): (Vec<_>, Vec<_>) = wanted.partition(|run| manifest.has(&run.kernel));
    for run in others {
        progress.say(&run.kernel, "passed over: its records are of an earlier run into the same folder");
    }
    Ok(of_run)
}

/// Refuses records that were not made as what snapshots are made from: on the usual machine, by today's probes.
fn check_guest(
    project: &Project,
    manifest: &Manifest,
    folder: &Path,
    progress: &Progress,
) -> Result<(), Failure> {
    progress.say("guest", "building the guest binary, to see whether it is the one that made these records");
    let built = guest::build(&project.root)?.guest;
    let guest = std::fs::read(&built).map_err(|error| {
        Failure::new(exit::INFRASTRUCTURE, anyhow::anyhow!("cannot read {}: {error}", built.display()))
    })?;
    manifest.not_for_snapshots(&guest).map_or(Ok(()), |why| {
        let why = anyhow::anyhow!("the records in {} are not accepted: {why}; run again", folder.display());
        Err(Failure::new(exit::BAD_INPUT, why))
    })
}

/// Refuses records of another image than the row has now, as far as that image is here.
fn check_images(matrix: &Matrix, cache: &Cache, runs: &[KernelRun]) -> Result<(), Failure> {
    for run in runs {
        let Some(row) = matrix.rows.iter().find(|row| row.name == run.kernel) else { continue };
        let (Status::Cached { facts, .. } | Status::Local { facts }) = status(row, cache) else { continue };
        let recorded = &run.image.sha256;
        if !recorded.is_empty() && *recorded != facts.sha256 {
            let why = anyhow::anyhow!(
                "the records of {} come from another image than its row has now: its SHA-256 was {recorded} and is {}; \
                 run that kernel again",
                run.kernel,
                facts.sha256
            );
            return Err(Failure::new(exit::BAD_INPUT, why));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ImageFacts;

    #[test]
    fn what_another_run_has_left_in_the_folder_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        for kernel in ["5.10", "6.1", "7.3"] {
            let run =
                KernelRun { format: crate::model::FORMAT, kernel: kernel.into(), ..KernelRun::default() };
            runs::write(folder.path(), &run).unwrap();
        }
        let manifest = Manifest::made_up(&["6.1", "7.3"]);
        let kernels = ["5.10", "6.1"].map(str::to_owned);
        let found = runs_of(&manifest, folder.path(), &kernels, &Progress::silent()).unwrap();
        assert_eq!(found.iter().map(|run| run.kernel.as_str()).collect::<Vec<_>>(), ["6.1"]);
    }

    #[test]
    fn records_of_another_image_than_the_rows_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let image = crate::provision::image::fake_image(4096);
        std::fs::write(folder.path().join("vmlinuz"), image).unwrap();
        let text = "kernels:\n  - {name: k, path: vmlinuz, lsm: bpf}\n";
        let matrix = Matrix::parse(text, &folder.path().join("matrix.yaml")).unwrap();
        let cache = Cache::open(&folder.path().join("cache")).unwrap();
        let Status::Local { facts } = status(&matrix.rows[0], &cache) else { panic!("no image") };
        let run = |kernel: &str, sha256: &str| KernelRun {
            kernel: kernel.into(),
            image: ImageFacts { sha256: sha256.into(), ..ImageFacts::default() },
            ..KernelRun::default()
        };
        check_images(&matrix, &cache, &[run("k", &facts.sha256), run("k", ""), run("other", "0")]).unwrap();
        let failure = check_images(&matrix, &cache, &[run("k", "0")]).unwrap_err();
        assert!(failure.to_string().contains("another image than its row has now"), "{failure}");
    }
}
