//! `conform merge`: run folders of several machines become one, and nothing may be missing.

use super::project::{Project, ids_in, known, probe_infos};
use super::run::{compare_with_rows, exit_code};
use crate::cli::{Format, MergeOptions};
use crate::exit::{self, Failure};
use crate::model::KernelRun;
use crate::report::{Material, json, junit, runs, table};
use std::collections::BTreeSet;

/// Joins, compares, reports.
pub(super) fn merge(project: &Project, options: &MergeOptions) -> Result<u8, Failure> {
    let matrix = project.matrix()?;
    let mut joined: Vec<KernelRun> = Vec::new();
    for folder in &options.folders {
        for run in runs::read_all(folder)? {
            join(&mut joined, run)?;
        }
    }
    for name in &options.require {
        if !joined.iter().any(|run| run.kernel == *name) {
            let why = anyhow::anyhow!("no records of {name} in any of the folders, and it is required");
            return Err(Failure::new(exit::INFRASTRUCTURE, why));
        }
    }
    // What the snapshots know of is asked on every kernel, and what a kernel brought is known from its own records.
    let known = known(&matrix, &project.dynamic_ids()?, &[]);
    for run in joined.iter().filter(|run| options.require.contains(&run.kernel) && run.failure.is_none()) {
        let missing = without_record(run, known.questions.keys());
        if let [first, ..] = missing.as_slice() {
            let why = anyhow::anyhow!(
                "{} probes have no record of {}, such as {first}, and it is required; join the folders of all of them",
                missing.len(),
                run.kernel
            );
            return Err(Failure::new(exit::INFRASTRUCTURE, why));
        }
    }
    if let Some(out) = &options.out {
        for run in &joined {
            runs::write(out, run)?;
        }
    }
    let comparison = compare_with_rows(project, &matrix, &joined)?;
    let names: Vec<String> = matrix.rows.iter().map(|row| row.name.clone()).collect();
    let probes = probe_infos(&ids_in(&joined));
    let material = Material { runs: &joined, comparison: &comparison, matrix: &names, probes: &probes };
    let broken = |error: String| Failure::new(exit::INFRASTRUCTURE, anyhow::anyhow!(error));
    let look = table::Look::default();
    match options.format {
        Format::Table => super::print(&table::render(material, look)),
        Format::Markdown => super::print(&format!("```text\n{}```\n", table::render(material, look))),
        Format::Json => super::print(&json::render(material).map_err(|error| broken(error.to_string()))?),
        Format::Junit => super::print(&junit::render(material).map_err(|error| broken(error.to_string()))?),
    }
    Ok(exit_code(&joined, &comparison, false))
}

/// The probes of `ids` of which the run has no record, not even one that says why they were not run.
fn without_record<'a>(run: &KernelRun, ids: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    let there: BTreeSet<&str> = run.records.iter().map(|record| record.probe.as_str()).collect();
    ids.map(String::as_str).filter(|id| !there.contains(id)).collect()
}

/// Adds a run: a further kernel, or further probes of one that is there. The same probe twice is refused.
fn join(joined: &mut Vec<KernelRun>, run: KernelRun) -> Result<(), Failure> {
    let Some(there) = joined.iter_mut().find(|other| other.kernel == run.kernel) else {
        joined.push(run);
        return Ok(());
    };
    for record in run.records {
        if there.records.iter().any(|other| other.probe == record.probe) {
            let why = anyhow::anyhow!("{} on {} is in two of the folders", record.probe, run.kernel);
            return Err(Failure::new(exit::BAD_INPUT, why));
        }
        there.records.push(record);
    }
    there.boots += run.boots;
    there.restored += run.restored;
    there.boot_retries += run.boot_retries;
    there.lost_between.extend(run.lost_between);
    there.warned_between.extend(run.warned_between);
    there.timing.boot_ms += run.timing.boot_ms;
    there.timing.probes_ms += run.timing.probes_ms;
    there.timing.rest_ms += run.timing.rest_ms;
    there.failure = there.failure.take().or(run.failure);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use probes::record::Record;

    #[test]
    fn a_probe_that_did_not_run_has_a_record_and_a_forgotten_one_has_none() {
        let run = KernelRun { records: vec![Record::not_run("a/b", "no boot")], ..KernelRun::default() };
        let ids = ["a/b".to_owned(), "a/c".to_owned()];
        assert_eq!(without_record(&run, ids.iter()), ["a/c"]);
    }
}
