//! `conform accept`: the one explicit step by which records become snapshots. Never in CI.

use super::folder::RunFolder;
use super::manifest::Manifest;
use super::project::{Project, glob_set, known, probe_globs};
use super::proposals::{PARTING, for_snapshots, of_this_guest, tell_each};
use super::subject::{check_releases, subjects};
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
use crate::snapshot::Known;
use probes::record::Outcome;
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

    interrupt::say_in_parting(PARTING);
    if options.prune {
        let known = known(&matrix, &dynamic, &[]);
        tell_each(super::print, |tell| store.prune_each(&known, wanted, tell))?;
        return Ok(exit::OK);
    }
    let kernels = match options.selection.kernels.as_slice() {
        [] => Vec::new(),
        named => subjects(&matrix, named)?.iter().map(|it| it.name().to_owned()).collect(),
    };
    let folder = options.run_dir.clone().unwrap_or_else(|| project.last_run());
    let folder = RunFolder::take(&folder)?;
    let manifest = Manifest::read(&folder.path)?;
    let mut runs = runs_of(&manifest, &folder.path, &kernels, progress)?;
    runs.iter_mut().for_each(|run| run.records.retain(|record| wanted(&record.probe)));
    let known = known(&matrix, &dynamic, &runs);
    let rows = acceptable(&runs, &known, &folder.path, progress)?;
    check_releases(&matrix, &rows)?;
    check_images(&matrix, &Cache::from_env()?, &rows)?;
    check_guest(project, &manifest, &folder.path, progress)?;
    let _held = of_this_guest(project, manifest.guest(), progress)?;
    tell_each(super::print, |tell| store.accept_each(&rows, &known, options.revised, |_, _| true, tell))?;
    Ok(exit::OK)
}

/// Those of the selected records that may become snapshots; says what else there is.
fn acceptable(
    runs: &[KernelRun],
    known: &Known,
    folder: &Path,
    progress: &Progress,
) -> Result<Vec<KernelRun>, Failure> {
    let (rows, left_out) = for_snapshots(runs, known);
    for (kernel, why) in left_out {
        progress.say(&kernel, &why);
    }
    let mut records = rows.iter().flat_map(|run| &run.records);
    if records.all(|record| matches!(record.outcome, Outcome::NotRun { .. })) {
        let why = anyhow::anyhow!(
            "{} has no record of this selection that can become a snapshot; run it, or name the folder of another run \
             with --run-dir",
            folder.display()
        );
        return Err(Failure::new(exit::NOTHING_SELECTED, why));
    }
    Ok(rows)
}

/// What a folder's run has recorded of these kernels, or of all. What another run has left in it is passed over.
fn runs_of(
    manifest: &Manifest,
    folder: &Path,
    kernels: &[String],
    progress: &Progress,
) -> Result<Vec<KernelRun>, Failure> {
    let is_wanted = |run: &KernelRun| kernels.is_empty() || kernels.contains(&run.kernel);
    let wanted = runs::read_all(folder)?.into_iter().filter(is_wanted);
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
    let built = guest::build(&project.root, &project.program)?.guest;
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
        let facts = match status(row, cache) {
            Status::Cached { facts, .. } | Status::Local { facts } => facts,
            Status::Refused { why } => return Err(Failure::new(exit::BAD_INPUT, anyhow::anyhow!("{why}"))),
            Status::Absent { .. } | Status::Damaged { .. } | Status::Unavailable { .. } => continue,
        };
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
    use probes::record::Record;

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
        let names = |found: &[KernelRun]| found.iter().map(|run| run.kernel.clone()).collect::<Vec<_>>();
        assert_eq!(names(&found), ["6.1"]);
        let all = runs_of(&manifest, folder.path(), &[], &Progress::silent()).unwrap();
        assert_eq!(names(&all), ["6.1", "7.3"]);
    }

    #[test]
    fn without_a_record_that_can_become_a_snapshot_nothing_was_selected() {
        let known = Known::new(&["6.1".to_owned()], [("a/b", "Why?")]);
        let run = |kernel: &str, probe: &str, outcome| KernelRun {
            kernel: kernel.into(),
            records: vec![Record { outcome, ..Record::not_run(probe, "no boot") }],
            ..KernelRun::default()
        };
        let not_run = || Outcome::NotRun { why: "no boot".into() };
        let of = |runs: &[KernelRun]| acceptable(runs, &known, Path::new("run"), &Progress::silent());
        for runs in [
            vec![],
            vec![KernelRun { kernel: "6.1".into(), ..KernelRun::default() }],
            vec![run("6.1", "a/b", not_run())],
            vec![run("mine", "a/b", Outcome::Observed), run("6.1", "selftest/hang", Outcome::Observed)],
        ] {
            let failure = of(&runs).unwrap_err();
            assert_eq!(failure.code, exit::NOTHING_SELECTED);
            assert!(failure.to_string().starts_with("run has no record of this selection"), "{failure}");
        }
        let runs = [run("mine", "a/b", Outcome::Observed), run("6.1", "a/b", Outcome::Observed)];
        assert_eq!(of(&runs).unwrap(), runs[1..]);
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
