//! Probes that one kernel of a run has brought (`probes::families::Family::dynamic`) and the others were not asked
//! about, because nobody knew of them when they started: they are asked within the same run, so that each of its kernels
//! gives a record of each.

use super::judge::without_record;
use crate::model::KernelRun;
use crate::run::schedule;
use crate::run::setup::{Job, Observer, Setup};
use std::collections::{BTreeMap, BTreeSet};

/// Why a kernel that was not asked any more has not come to its end.
const NOT_ASKED: &str = "interrupted before it was asked about what other kernels of this run have brought";

/// Asks each kernel that lacks newcomers about them, and adds what it says to its run, each of which is that of the job
/// with its kernel. Gives the places of the runs that have changed.
pub(super) fn ask_the_others(
    setup: &Setup,
    jobs: &[Job],
    runs: &mut [KernelRun],
    width: usize,
    observer: &dyn Observer,
) -> Vec<usize> {
    let newcomers = newcomers(runs, &setup.known);
    let lacking = lacking(jobs, runs, &newcomers);
    if lacking.is_empty() {
        return lacking;
    }
    let mut setup = setup.clone();
    setup.select = newcomers.iter().cloned().collect();
    setup.known.extend(newcomers);
    let again: Vec<Job> = lacking
        .iter()
        .filter_map(|&at| jobs.iter().find(|job| job.kernel == runs[at].kernel))
        .map(|job| {
            observer.note(&job.kernel, "asked about what other kernels of this run have brought");
            // Consoles are counted from one in each folder.
            let folder = job.folder.join("newcomers");
            let made = std::fs::create_dir_all(&folder).is_ok();
            let folder = if made { folder } else { job.folder.clone() };
            Job { folder, before: None, ..job.clone() }
        })
        .collect();
    let answers = schedule::run_all(&setup, &again, width, &Apart(observer), &|_| ());
    take_in(runs, &lacking, answers);
    lacking
}

/// Hears what the whole run's observer does, but for what there is so far of a kernel: that is less than what is kept of it.
struct Apart<'a>(&'a dyn Observer);

impl Observer for Apart<'_> {
    fn note(&self, kernel: &str, text: &str) {
        self.0.note(kernel, text);
    }

    fn progress(&self, kernel: &str, done: usize, total: usize) {
        self.0.progress(kernel, done, total);
    }
}

/// The places of the runs that came to their end and lack some of `newcomers` that are of their job's part.
fn lacking(jobs: &[Job], runs: &[KernelRun], newcomers: &BTreeSet<String>) -> Vec<usize> {
    let lacks = |run: &KernelRun| {
        let part = jobs.iter().find(|job| job.kernel == run.kernel).map(|job| job.part);
        let own = newcomers.iter().filter(|id| part.is_some_and(|part| part.has(id)));
        run.failure.is_none() && !without_record(run, own).is_empty()
    };
    (0..runs.len()).filter(|&at| lacks(&runs[at])).collect()
}

/// Adds each answer to the run of its kernel. After an interruption some were not asked: these are not whole, and
/// `--resume` asks them.
fn take_in(runs: &mut [KernelRun], lacking: &[usize], answers: Vec<KernelRun>) {
    let mut answers: BTreeMap<String, KernelRun> =
        answers.into_iter().map(|answer| (answer.kernel.clone(), answer)).collect();
    for &at in lacking {
        match answers.remove(&runs[at].kernel) {
            Some(answer) => join(&mut runs[at], answer),
            None => runs[at].failure = Some(NOT_ASKED.to_owned()),
        }
    }
}

/// The ids that some run has records of, that no table names and that was not known when it began.
fn newcomers(runs: &[KernelRun], known: &[String]) -> BTreeSet<String> {
    let declared: BTreeSet<String> =
        probes::families::all_with_hidden(std::iter::empty()).into_iter().map(|probe| probe.id).collect();
    let all = runs.iter().flat_map(|run| &run.records).map(|record| &record.probe);
    all.filter(|id| !declared.contains(*id) && !known.contains(id)).cloned().collect()
}

/// Adds the records that a run does not have yet, and what they cost.
fn join(run: &mut KernelRun, more: KernelRun) {
    let there: BTreeSet<String> = run.records.iter().map(|record| record.probe.clone()).collect();
    run.add_cost(&more);
    run.records.extend(more.records.into_iter().filter(|record| !there.contains(&record.probe)));
    run.failure = run.failure.take().or(more.failure);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::judge::tests::job;
    use probes::protocol::Part;
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
        assert_eq!(without_record(&runs[0], found.iter()), ["hooks/new"]);
        assert!(without_record(&runs[1], found.iter()).is_empty());
    }

    /// As after an interruption: of three kernels that are asked, the first never started.
    #[test]
    fn an_answer_goes_to_its_own_kernel_and_one_that_is_not_there_is_missed() {
        let mut runs = [run("a", &["hooks/old"]), run("b", &["hooks/old"]), run("c", &["hooks/old"])];
        let new = BTreeSet::from(["hooks/new".to_owned()]);
        let jobs = ["a", "b", "c"].map(|kernel| job(kernel, Part::default()));
        let asked = lacking(&jobs, &runs, &new);
        assert_eq!(asked, [0, 1, 2]);
        take_in(&mut runs, &asked, vec![run("b", &["hooks/new"]), run("c", &["hooks/new"])]);
        let counts = runs.each_ref().map(|run| run.records.len());
        assert_eq!(counts, [1, 2, 2]);
        assert_eq!(runs[0].failure.as_deref(), Some(NOT_ASKED));
        assert_eq!((&runs[1].failure, &runs[2].failure), (&None, &None));
    }

    /// No kernel is booted for a probe of which another machine has the part.
    #[test]
    fn a_newcomer_of_another_part_is_not_missed() {
        let parts = [0, 1].map(|index| Part { index, of: 2 });
        let jobs = [job("a", parts[0]), job("b", parts[1])];
        let runs = [run("a", &[]), run("b", &[])];
        let new = "hooks/new".to_owned();
        let own = parts.iter().position(|part| part.has(&new)).unwrap();
        assert_eq!(lacking(&jobs, &runs, &BTreeSet::from([new])), [own]);
    }

    #[test]
    fn a_record_is_added_once() {
        let mut first = run("a", &["hooks/old"]);
        join(&mut first, run("a", &["hooks/old", "hooks/new"]));
        let ids: Vec<&str> = first.records.iter().map(|record| record.probe.as_str()).collect();
        assert_eq!((ids.as_slice(), first.boots), (["hooks/old", "hooks/new"].as_slice(), 2));
    }
}
