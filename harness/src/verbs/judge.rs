//! What a run is worth: each record held against its snapshot, the probes without any, and the exit code.

use super::project::{Project, dynamic_of, glob_set, ids_in, known};
use super::subject::check_releases;
use crate::exit::{self, Failure};
use crate::matrix::Matrix;
use crate::model::KernelRun;
use crate::run::setup::Job;
use crate::snapshot::{Comparison, Known, Snapshot, compare_as};
use crate::version::Version;
use std::collections::{BTreeMap, BTreeSet};

/// Compares runs with the snapshots, each by itself. An image without a row is compared with the row of its series, or
/// with the newest row that is older.
///
/// # Errors
/// When the snapshots cannot be read, or a run is not the kernel's whose name it has.
pub fn compare_with_rows(
    project: &Project,
    matrix: &Matrix,
    runs: &[KernelRun],
) -> Result<Comparison, Failure> {
    Ok(compare_with(&project.store().load_all()?, matrix, runs)?.0)
}

/// The same with snapshots that have been read, for who compares again and again; and what was known then, by which
/// records are merged into snapshots.
///
/// # Errors
/// When a run is not the kernel's whose name it has.
pub fn compare_with(
    snapshots: &BTreeMap<String, Snapshot>,
    matrix: &Matrix,
    runs: &[KernelRun],
) -> Result<(Comparison, Known), Failure> {
    check_releases(matrix, runs)?;
    let known = known(matrix, &dynamic_of(snapshots.keys().map(String::as_str)), runs);
    let release = |run: &KernelRun| run.facts.as_ref().map(|facts| facts.release.clone());
    let rows: Vec<String> =
        runs.iter().map(|run| row_for(matrix, &run.kernel, release(run).as_deref())).collect();
    Ok((compare_as(snapshots, runs, &rows, &known)?, known))
}

/// The row that a kernel is compared with: its own, or for an image without one that of its release. A kernel of which neither
/// is known is compared with none, and goes by its own name.
pub(super) fn row_for(matrix: &Matrix, kernel: &str, release: Option<&str>) -> String {
    let version = |text: &str| {
        let mut numbers =
            text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    };
    let of_release = |wanted: (u32, u32)| {
        // Of one version's rows the one that is called by it: a flavour is a particular build.
        let plain = || matrix.rows.iter().filter(|row| Version::of_flavour(&row.name).is_none());
        let older = plain().filter(|row| version(&row.name) <= wanted);
        older.max_by_key(|row| version(&row.name)).or(plain().next())
    };
    let row = match matrix.rows.iter().find(|row| row.name == kernel) {
        Some(row) => Some(row),
        None => release.and_then(|release| of_release(version(release))),
    };
    row.map_or(kernel, |row| &row.name).to_owned()
}

/// The probes of `ids` of which the run has no record, not even one that says why they were not run.
pub(super) fn without_record<'a>(run: &KernelRun, ids: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    let there: BTreeSet<&str> = run.records.iter().map(|record| record.probe.as_str()).collect();
    ids.map(String::as_str).filter(|id| !there.contains(id)).collect()
}

/// A run that lacks a record of a probe that was selected has not come to its end, whatever its guest says. Gives the
/// places of those.
///
/// # Errors
/// Bad input for a malformed glob.
pub(super) fn note_what_is_lacking(
    known: &[String],
    select: &[String],
    jobs: &[Job],
    runs: &mut [KernelRun],
) -> Result<Vec<usize>, Failure> {
    let known: Vec<String> = known.iter().cloned().chain(ids_in(runs)).collect();
    let wanted = selected(&known, select)?;
    let mut lacking = Vec::new();
    for (at, run) in runs.iter_mut().enumerate() {
        let Some(job) = jobs.iter().find(|job| job.kernel == run.kernel) else { continue };
        if note_lack(run, wanted.iter().filter(|id| job.part.has(id)), "run again") {
            lacking.push(at);
        }
    }
    Ok(lacking)
}

/// The ids that globs select, or none: of the probes of the tables, and of those of `known` that kernels have brought.
///
/// # Errors
/// Bad input for a malformed glob.
pub(super) fn selected(known: &[String], select: &[String]) -> Result<Vec<String>, Failure> {
    let all = probes::families::all_with(known.iter().map(String::as_str));
    let set = glob_set(select)?;
    let wanted = |id: &String| select.is_empty() || set.is_match(id);
    Ok(all.into_iter().map(|probe| probe.id).filter(wanted).collect())
}

/// Makes a run that has come to its end one that has not, if it lacks a record of one of `ids`; whether it does. `remedy` is
/// what helps.
pub(super) fn note_lack<'a>(
    run: &mut KernelRun,
    ids: impl Iterator<Item = &'a String>,
    remedy: &str,
) -> bool {
    if run.failure.is_some() {
        return false;
    }
    let missing = without_record(run, ids);
    let [first, ..] = missing.as_slice() else { return false };
    let (lacking, have) = match missing.len() {
        1 => ("a probe".to_owned(), "has"),
        count => (format!("{count} probes"), "have"),
    };
    run.failure = Some(format!("{lacking} {have} no record, such as {first}; {remedy}"));
    true
}

/// A kernel that could not be run comes first: what it would have said is not known.
pub(super) fn exit_code(runs: &[KernelRun], comparison: &Comparison) -> u8 {
    if runs.iter().any(|run| run.failure.is_some()) {
        exit::INFRASTRUCTURE
    } else if comparison.all_matched() {
        exit::OK
    } else {
        exit::MISMATCH
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::ImageFacts;
    use probes::protocol::Part;
    use probes::record::Record;

    fn run(kernel: &str, ids: &[String]) -> KernelRun {
        let records = ids.iter().map(|id| Record::not_run(id, "")).collect();
        KernelRun { kernel: kernel.into(), records, ..KernelRun::default() }
    }

    /// A job that is only looked at.
    pub(in crate::verbs) fn job(kernel: &str, part: Part) -> Job {
        Job {
            kernel: kernel.into(),
            image: ImageFacts::default(),
            lsm: String::new(),
            release_prefix: String::new(),
            folder: std::path::PathBuf::new(),
            part,
            expected: None,
            before: None,
        }
    }

    #[test]
    fn a_probe_that_did_not_run_has_a_record_and_a_forgotten_one_has_none() {
        let run = run("k", &["a/b".to_owned()]);
        let ids = ["a/b".to_owned(), "a/c".to_owned()];
        assert_eq!(without_record(&run, ids.iter()), ["a/c"]);
    }

    #[test]
    fn a_run_without_a_record_of_a_selected_probe_has_failed() {
        let select = ["program/*".to_owned()];
        let all: Vec<String> = probes::families::all()
            .into_iter()
            .map(|probe| probe.id)
            .filter(|id| id.starts_with("program/"))
            .collect();
        let part = Part { index: 0, of: 2 };
        let of_part: Vec<String> = all.iter().filter(|id| part.has(id)).cloned().collect();
        assert!(of_part.len() < all.len() && !of_part.is_empty());
        let jobs = [job("a", Part::default()), job("b", Part::default()), job("c", part)];
        let mut runs = [run("a", &all), run("b", &all[1..]), run("c", &of_part)];
        let lacking = note_what_is_lacking(&[], &select, &jobs, &mut runs).unwrap();
        assert_eq!(lacking, [1]);
        let failures = runs.each_ref().map(|run| run.failure.is_some());
        assert_eq!(failures, [false, true, false]);
        assert!(runs[1].failure.as_ref().unwrap().contains(&all[0]), "{:?}", runs[1].failure);
        assert_eq!(exit_code(&runs, &Comparison::default()), exit::INFRASTRUCTURE);
    }

    /// What another kernel of the run has brought is asked of all.
    #[test]
    fn a_probe_that_another_kernel_brought_is_missed_too() {
        let select = ["hooks/brand_new*".to_owned()];
        let brought = ["hooks/brand_new".to_owned()];
        let jobs = [job("a", Part::default()), job("b", Part::default())];
        let mut runs = [run("a", &brought), run("b", &[])];
        assert_eq!(note_what_is_lacking(&[], &select, &jobs, &mut runs).unwrap(), [1]);
    }
}
