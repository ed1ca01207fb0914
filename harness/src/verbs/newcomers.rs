//! Probes that one kernel of a run has brought (`probes::families::Family::dynamic`) and the others were not asked
//! about, because nobody knew of them when they started: they are asked within the same run, so that each of its kernels
//! gives a record of each.

use crate::model::KernelRun;
use crate::run::schedule;
use crate::run::setup::{Job, Observer, Setup};
use std::collections::BTreeSet;

/// Asks each kernel that lacks newcomers about them, and adds what it says to its run. `runs` are those of `jobs`, in
/// the same order. Gives the places of the runs that have grown.
pub(super) fn ask_the_others(
    setup: &Setup,
    jobs: &[Job],
    runs: &mut [KernelRun],
    width: usize,
    observer: &dyn Observer,
) -> Vec<usize> {
    let newcomers = newcomers(runs, &setup.known);
    let lacking: Vec<usize> = (0..runs.len().min(jobs.len()))
        .filter(|&at| runs[at].failure.is_none() && !missing(&runs[at], &newcomers).is_empty())
        .collect();
    if lacking.is_empty() {
        return lacking;
    }
    let mut setup = setup.clone();
    setup.select = newcomers.iter().cloned().collect();
    setup.known.extend(newcomers);
    let again: Vec<Job> = lacking
        .iter()
        .map(|&at| {
            observer.note(&jobs[at].kernel, "asked about what other kernels of this run have brought");
            // Consoles are counted from one in each folder.
            let folder = jobs[at].folder.join("newcomers");
            let made = std::fs::create_dir_all(&folder).is_ok();
            let folder = if made { folder } else { jobs[at].folder.clone() };
            Job { folder, before: None, ..jobs[at].clone() }
        })
        .collect();
    let answers = schedule::run_all(&setup, &again, width, observer, &|_| ());
    for (&at, answer) in lacking.iter().zip(answers) {
        join(&mut runs[at], answer);
    }
    lacking
}

/// The ids that some run has records of, that no table names and that was not known when it began.
fn newcomers(runs: &[KernelRun], known: &[String]) -> BTreeSet<String> {
    let declared: BTreeSet<String> =
        probes::families::all_with_hidden(std::iter::empty()).into_iter().map(|probe| probe.id).collect();
    let all = runs.iter().flat_map(|run| &run.records).map(|record| &record.probe);
    all.filter(|id| !declared.contains(*id) && !known.contains(id)).cloned().collect()
}

/// Those of `ids` of which a run has no record.
fn missing<'a>(run: &KernelRun, ids: &'a BTreeSet<String>) -> Vec<&'a str> {
    let there: BTreeSet<&str> = run.records.iter().map(|record| record.probe.as_str()).collect();
    ids.iter().map(String::as_str).filter(|id| !there.contains(id)).collect()
}

/// Adds the records that a run does not have yet, and what they cost.
fn join(run: &mut KernelRun, more: KernelRun) {
    let there: BTreeSet<String> = run.records.iter().map(|record| record.probe.clone()).collect();
    run.records.extend(more.records.into_iter().filter(|record| !there.contains(&record.probe)));
    run.boots += more.boots;
    run.boot_retries += more.boot_retries;
    run.lost_between.extend(more.lost_between);
    run.warned_between.extend(more.warned_between);
    run.restored += more.restored;
    run.timing.boot_ms += more.timing.boot_ms;
    run.timing.probes_ms += more.timing.probes_ms;
    run.timing.rest_ms += more.timing.rest_ms;
    run.failure = run.failure.take().or(more.failure);
}

#[cfg(test)]
mod tests {
    use super::*;
    use probes::record::Record;

    fn run(kernel: &str, probes: &[&str]) -> KernelRun {
        let records = probes.iter().map(|id| Record::not_run(id, "")).collect();
        KernelRun { kernel: kernel.into(), records, boots: 1, ..KernelRun::default() }
    }

    #[test]
    fn what_one_kernel_brought_the_others_lack() {
        let runs = [run("a", &["hooks/file_open", "hooks/old"]), run("b", &["hooks/old", "hooks/new"])];
        let found = newcomers(&runs, &["hooks/old".to_owned()]);
        assert_eq!(found.iter().collect::<Vec<_>>(), ["hooks/new"]);
        assert_eq!(missing(&runs[0], &found), ["hooks/new"]);
        assert!(missing(&runs[1], &found).is_empty());
    }

    #[test]
    fn a_record_is_added_once() {
        let mut first = run("a", &["hooks/old"]);
        join(&mut first, run("a", &["hooks/old", "hooks/new"]));
        let ids: Vec<&str> = first.records.iter().map(|record| record.probe.as_str()).collect();
        assert_eq!((ids.as_slice(), first.boots), (["hooks/old", "hooks/new"].as_slice(), 2));
    }
}
