//! Comparing runs with snapshots: one [`Verdict`] per probe and kernel.

use super::merge::was_seen;
use super::{Known, Snapshot, SnapshotError, Store, diff};
use crate::model::KernelRun;
use crate::normalize::{Normal, NormalCase, normalize};
use probes::families::HIDDEN;
use probes::record::{End, Outcome, Record};
use probes::spec::family_of;
use std::collections::BTreeMap;

/// What comparing gave for one probe on one kernel. A closed set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The run gave what the snapshot says.
    Matched,
    /// The run gave something else.
    Different {
        /// What differs, per case; see [`paint`].
        diff: String,
    },
    /// The snapshot says nothing of this kernel, or there is none.
    Missing,
    /// The snapshot says something of a probe or a kernel that no longer exists.
    Stale {
        /// Which of them.
        what: Stale,
    },
    /// The probe was not run, so there is nothing to compare.
    NotCompared {
        /// Why it was not run.
        why: String,
    },
}

impl Verdict {
    /// The verdict's name in reports.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Different { .. } => "different",
            Self::Missing => "missing",
            Self::Stale { .. } => "stale",
            Self::NotCompared { .. } => "not-compared",
        }
    }
}

/// What of a snapshot no longer exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// No probe has this id.
    Probe,
    /// No row of the matrix and no kernel of the run has this name.
    Kernel,
}

/// The verdict on one probe on one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The probe's id.
    pub probe: String,
    /// The kernel; empty where a whole file is stale that names none.
    pub kernel: String,
    /// The verdict.
    pub verdict: Verdict,
}

impl Cell {
    /// What to tell a person about this cell; `None` where there is nothing to do. `rows` are the matrix's.
    #[must_use]
    pub fn message(&self, rows: &[String], colour: bool) -> Option<String> {
        message(&self.probe, &[&self.kernel], &self.verdict, rows, colour)
    }
}

/// What to tell a person about a probe on kernels that share a verdict; `None` where there is nothing to do. `rows` are the
/// matrix's: other kernels have no snapshots.
#[must_use]
pub fn message(
    probe: &str,
    kernels: &[&str],
    verdict: &Verdict,
    rows: &[String],
    colour: bool,
) -> Option<String> {
    let on = kernels.join(" ");
    let accept = how_to_accept(probe, kernels, rows);
    match verdict {
        Verdict::Matched => None,
        Verdict::Different { diff } => {
            let diff = if colour { paint(diff) } else { diff.clone() };
            Some(format!(
                "{probe} on {on}: differs from the snapshot (- snapshot, + this run)\n{diff}{accept}"
            ))
        }
        Verdict::Missing => Some(format!("{probe} on {on}: not in the snapshot yet\n{accept}")),
        Verdict::Stale { what: Stale::Probe } => Some(format!(
            "{probe}: no such probe any more; cargo conform accept --probe {probe} --prune removes its file"
        )),
        Verdict::Stale { what: Stale::Kernel } => Some(format!(
            "{probe}: the snapshot holds {on}, not in the matrix; cargo conform accept --probe {probe} --prune removes it"
        )),
        Verdict::NotCompared { why } => Some(format!("{probe} on {on}: not compared: {why}")),
    }
}

fn how_to_accept(probe: &str, kernels: &[&str], rows: &[String]) -> String {
    let hidden = HIDDEN.name;
    if family_of(probe) == hidden {
        return format!("nothing to accept: the family {hidden} has no snapshots");
    }
    let is_row = |kernel: &&&str| rows.iter().any(|row| row == **kernel);
    let options: String = kernels.iter().filter(is_row).map(|kernel| format!(" --kernel {kernel}")).collect();
    if options.is_empty() {
        return "nothing to accept: only rows of the matrix have snapshots".to_owned();
    }
    format!("to accept: cargo conform accept --probe {probe}{options}\n       or: cargo insta review")
}

/// The diff of [`Verdict::Different`] with colours, for a terminal.
#[must_use]
pub fn paint(text: &str) -> String {
    diff::paint(text)
}

/// All verdicts of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The cells: kernels in the run's order, probes in the kernel's order, then what is stale.
    pub cells: Vec<Cell>,
}

impl Comparison {
    /// The verdict on a probe on a kernel.
    #[must_use]
    pub fn get(&self, probe: &str, kernel: &str) -> Option<&Verdict> {
        self.cells.iter().find(|cell| cell.probe == probe && cell.kernel == kernel).map(|cell| &cell.verdict)
    }

    /// The verdicts of one kernel, by probe.
    #[must_use]
    pub fn of_kernel<'a>(&'a self, kernel: &str) -> BTreeMap<&'a str, &'a Verdict> {
        self.cells
            .iter()
            .filter(|cell| cell.kernel == kernel)
            .map(|cell| (cell.probe.as_str(), &cell.verdict))
            .collect()
    }

    /// Whether everything that was run matched and nothing is stale.
    #[must_use]
    pub fn all_matched(&self) -> bool {
        self.cells.iter().all(|cell| cell.verdict == Verdict::Matched)
    }
}

/// Compares runs with the snapshots of a store.
///
/// # Errors
/// When a snapshot cannot be read.
pub fn compare(store: &Store, runs: &[KernelRun], known: &Known) -> Result<Comparison, SnapshotError> {
    let own: Vec<String> = runs.iter().map(|run| run.kernel.clone()).collect();
    compare_as(&store.load_all()?, runs, &own, known)
}

/// Compares each run with what the snapshots say of the kernel at the same place of `rows`. The cells have the runs' own
/// names; several runs may be held against one row, and each has verdicts of its own.
///
/// # Errors
/// When a part of a record cannot be written as YAML for the diff.
pub fn compare_as(
    snapshots: &BTreeMap<String, Snapshot>,
    runs: &[KernelRun],
    rows: &[String],
    known: &Known,
) -> Result<Comparison, SnapshotError> {
    let mut cells = Vec::new();
    for (run, row) in runs.iter().zip(rows) {
        for record in &run.records {
            let verdict = judge(snapshots.get(&record.probe), row, record)?;
            cells.push(Cell { probe: record.probe.clone(), kernel: run.kernel.clone(), verdict });
        }
    }
    let in_run: Vec<&str> = rows.iter().map(String::as_str).collect();
    cells.extend(snapshots.values().flat_map(|snapshot| {
        if is_gone(snapshot, runs, known) {
            return vec![stale_probe(&snapshot.probe)];
        }
        stale(snapshot, &in_run, known)
    }));
    Ok(Comparison { cells })
}

/// The verdict on one record.
///
/// # Errors
/// When a part cannot be written as YAML for the diff.
pub fn judge(snapshot: Option<&Snapshot>, kernel: &str, record: &Record) -> Result<Verdict, SnapshotError> {
    judge_normal(snapshot, kernel, &record.probe, &normalize(record))
}

/// The verdict on a record that has been normalised.
///
/// # Errors
/// As [`judge`].
pub fn judge_normal(
    snapshot: Option<&Snapshot>,
    kernel: &str,
    probe: &str,
    given: &Normal,
) -> Result<Verdict, SnapshotError> {
    if let Outcome::NotRun { why } = &given.outcome {
        return Ok(Verdict::NotCompared { why: why.clone() });
    }
    let Some(expected) = snapshot.and_then(|snapshot| snapshot.of(kernel)) else {
        return Ok(Verdict::Missing);
    };
    let found = diff::diff(probe, expected, given)?;
    Ok(found.map_or(Verdict::Matched, |diff| Verdict::Different { diff }))
}

fn stale(snapshot: &Snapshot, in_run: &[&str], known: &Known) -> Vec<Cell> {
    let cell = |kernel: &str, what| Cell {
        probe: snapshot.probe.clone(),
        kernel: kernel.to_owned(),
        verdict: Verdict::Stale { what },
    };
    if !known.questions.contains_key(&snapshot.probe) {
        return vec![stale_probe(&snapshot.probe)];
    }
    let lives = |kernel: &&str| known.matrix.iter().any(|row| row == kernel) || in_run.contains(kernel);
    snapshot.kernels().filter(|kernel| !lives(kernel)).map(|kernel| cell(kernel, Stale::Kernel)).collect()
}

fn stale_probe(probe: &str) -> Cell {
    Cell { probe: probe.to_owned(), kernel: String::new(), verdict: Verdict::Stale { what: Stale::Probe } }
}

/// Whether what a dynamic probe asks about is on no kernel of the matrix any more: a run of the whole matrix (where
/// there are no runs, the snapshot) has a record of it for each row that says nothing but that it is absent.
pub(super) fn is_gone(snapshot: &Snapshot, runs: &[KernelRun], known: &Known) -> bool {
    if !known.dynamic.contains(&snapshot.probe) || known.matrix.is_empty() {
        return false;
    }
    let in_run = |kernel: &str| {
        let run = runs.iter().find(|run| run.kernel == kernel)?;
        run.records.iter().find(|record| record.probe == snapshot.probe).map(normalize)
    };
    known.matrix.iter().all(|kernel| {
        let normal = if runs.is_empty() { snapshot.of(kernel).cloned() } else { in_run(kernel) };
        normal.is_some_and(|normal| is_absent(&normal))
    })
}

/// Whether a record says only that the kernel does not have what the probe asks about.
fn is_absent(normal: &Normal) -> bool {
    let absent = |case: &NormalCase| matches!(case.end, End::Absent { .. });
    normal.outcome == Outcome::Observed && !normal.cases.is_empty() && normal.cases.iter().all(absent)
}

/// What a run gave, by probe: the part of each snapshot that it may replace.
#[must_use]
pub fn by_probe(runs: &[KernelRun]) -> BTreeMap<String, Vec<(String, Normal)>> {
    let mut probes: BTreeMap<String, Vec<(String, Normal)>> = BTreeMap::new();
    for run in runs {
        for record in &run.records {
            let normal = normalize(record);
            if was_seen(&normal) {
                probes.entry(record.probe.clone()).or_default().push((run.kernel.clone(), normal));
            }
        }
    }
    probes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::made_up::{self, done, names};
    use probes::record::{Case, Phase};
    use rstest::rstest;

    fn record(probe: &str, fired: bool) -> Record {
        let case = Case {
            name: "x".into(),
            phase: Phase::Trigger,
            end: End::Done,
            accepted: Some(true),
            fired: Some(fired),
            denied: None,
            seen: serde_json::Map::new(),
            log: String::new(),
            programs: Vec::new(),
            micros: 0,
        };
        Record { outcome: Outcome::Observed, cases: vec![case], ..Record::not_run(probe, "") }
    }

    fn snapshot() -> Snapshot {
        made_up::snapshot("a/b", vec![("6.1", vec![done("x")]), ("old", vec![done("x")])])
    }

    #[rstest]
    #[case::same("6.1", record("a/b", true), "matched")]
    #[case::other("6.1", record("a/b", false), "different")]
    #[case::new_kernel("6.2", record("a/b", true), "missing")]
    #[case::not_run("6.1", Record::not_run("a/b", "no boot"), "not-compared")]
    fn verdicts(#[case] kernel: &str, #[case] record: Record, #[case] verdict: &str) {
        assert_eq!(judge(Some(&snapshot()), kernel, &record).unwrap().name(), verdict);
    }

    #[test]
    fn without_a_file_everything_is_missing() {
        assert_eq!(judge(None, "6.1", &record("a/b", true)).unwrap(), Verdict::Missing);
    }

    #[rstest]
    #[case::gone_probe(Known::new(&names(&["6.1"]), [("c/d", "")]), &[], vec![("", Stale::Probe)])]
    #[case::gone_kernel(Known::new(&names(&["6.1"]), [("a/b", "")]), &[], vec![("old", Stale::Kernel)])]
    #[case::kernel_of_the_run(Known::new(&names(&["6.1"]), [("a/b", "")]), &["old"], vec![])]
    fn stale_parts(#[case] known: Known, #[case] in_run: &[&str], #[case] expected: Vec<(&str, Stale)>) {
        let cells = stale(&snapshot(), in_run, &known);
        let found: Vec<_> = cells
            .iter()
            .map(|cell| match cell.verdict {
                Verdict::Stale { what } => (cell.kernel.as_str(), what),
                Verdict::Matched
                | Verdict::Different { .. }
                | Verdict::Missing
                | Verdict::NotCompared { .. } => panic!(),
            })
            .collect();
        assert_eq!(found, expected);
    }

    fn absent(kernel: &str) -> KernelRun {
        let mut record = record("a/b", false);
        record.cases[0].end = End::Absent { what: "function x".into() };
        KernelRun { kernel: kernel.into(), records: vec![record], ..KernelRun::default() }
    }

    fn present(kernel: &str) -> KernelRun {
        KernelRun { records: vec![record("a/b", true)], ..absent(kernel) }
    }

    #[rstest]
    #[case::on_no_kernel(true, vec![absent("6.1"), absent("6.12")], true)]
    #[case::on_one(true, vec![absent("6.1"), present("6.12")], false)]
    #[case::not_all_kernels_ran(true, vec![absent("6.1")], false)]
    #[case::named_by_a_table(false, vec![absent("6.1"), absent("6.12")], false)]
    #[case::snapshot_has_it(true, vec![], false)]
    fn what_kernels_brought_goes_with_them(
        #[case] dynamic: bool,
        #[case] runs: Vec<KernelRun>,
        #[case] expected: bool,
    ) {
        let mut known = Known::new(&names(&["6.1", "6.12"]), [("a/b", "")]);
        known.dynamic.extend(dynamic.then(|| "a/b".to_owned()));
        assert_eq!(is_gone(&snapshot(), &runs, &known), expected);
    }

    #[test]
    fn a_snapshot_of_absence_is_pruned() {
        let mut known = Known::new(&names(&["6.1"]), [("a/b", "")]);
        known.dynamic.insert("a/b".into());
        let mut snapshot = snapshot();
        assert!(!is_gone(&snapshot, &[], &known));
        snapshot.observed[0].1.cases[0].end = End::Absent { what: "function x".into() };
        assert!(is_gone(&snapshot, &[], &known));
    }

    #[test]
    fn a_message_names_the_command_that_accepts() {
        let verdict = judge(Some(&snapshot()), "6.1", &record("a/b", false)).unwrap();
        let cell = Cell { probe: "a/b".into(), kernel: "6.1".into(), verdict };
        let rows = names(&["6.1"]);
        let message = cell.message(&rows, false).unwrap();
        assert!(message.contains("cargo conform accept --probe a/b --kernel 6.1"), "{message}");
        assert!(message.contains("cargo insta review"), "{message}");
        assert!(
            message.contains("-done at trigger, accepted, fired\n+done at trigger, accepted, not fired"),
            "{message}"
        );
        assert!(!message.contains('\x1b'));
        assert!(cell.message(&rows, true).unwrap().contains("\x1b[31m-"));
    }

    /// An image may share its verdict with the row that it is compared with.
    #[rstest]
    #[case::image("a/b", &["mine"], "nothing to accept: only rows of the matrix have snapshots")]
    #[case::hidden("selftest/hang", &["6.1"], "nothing to accept: the family selftest has no snapshots")]
    #[case::both("a/b", &["mine", "6.1"], "to accept: cargo conform accept --probe a/b --kernel 6.1\n")]
    fn what_has_no_snapshot_is_not_to_be_accepted(
        #[case] probe: &str,
        #[case] kernels: &[&str],
        #[case] words: &str,
    ) {
        let message = message(probe, kernels, &Verdict::Missing, &names(&["6.1"]), false).unwrap();
        assert!(message.contains(words), "{message}");
        assert!(!message.contains("--kernel mine"), "{message}");
    }

    /// An image of 6.1 and the row itself.
    #[test]
    fn two_runs_on_one_row_are_judged_apart() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), crate::snapshot::Ci::No);
        let known = Known::new(&names(&["6.1"]), [("a/b", "Why?")]);
        let run = |kernel: &str, fired| KernelRun {
            kernel: kernel.into(),
            records: vec![record("a/b", fired)],
            ..KernelRun::default()
        };
        store.accept_runs(&[run("6.1", true)], &known, false, |_, _| true).unwrap();
        let snapshots = store.load_all().unwrap();
        for runs in [[run("bzImage", false), run("6.1", true)], [run("6.1", true), run("bzImage", false)]] {
            let comparison = compare_as(&snapshots, &runs, &names(&["6.1", "6.1"]), &known).unwrap();
            assert_eq!(comparison.get("a/b", "bzImage").unwrap().name(), "different");
            assert_eq!(comparison.get("a/b", "6.1"), Some(&Verdict::Matched));
            assert_eq!(comparison.cells.len(), 2);
        }
    }

    /// On two kernels, so that they share a block first.
    #[test]
    fn facts_in_another_order_differ_until_they_are_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), crate::snapshot::Ci::No);
        let known = Known::new(&names(&["6.1", "6.12"]), [("a/b", "Why?")]);
        let run = |kernel: &str, facts: [&str; 2]| {
            let mut record = record("a/b", true);
            record.cases[0].seen = facts.map(|name| (name.to_owned(), 1.into())).into_iter().collect();
            KernelRun { kernel: kernel.into(), records: vec![record], ..KernelRun::default() }
        };
        let verdict =
            |run: &KernelRun| judge(store.load("a/b").unwrap().as_ref(), &run.kernel, &run.records[0]);
        let accept = |runs: &[KernelRun]| store.accept_runs(runs, &known, false, |_, _| true).unwrap();
        accept(&["6.1", "6.12"].map(|kernel| run(kernel, ["p", "q"])));
        let other = run("6.12", ["q", "p"]);
        assert_eq!(verdict(&other).unwrap().name(), "different");
        assert_eq!(store.propose(std::slice::from_ref(&other), &known).unwrap(), ["a/b"]);
        assert_eq!(accept(std::slice::from_ref(&other)), ["a/b"]);
        assert_eq!(verdict(&other).unwrap(), Verdict::Matched);
        assert_eq!(verdict(&run("6.1", ["p", "q"])).unwrap(), Verdict::Matched);
    }

    /// What the difference passes over is nothing to propose either.
    #[test]
    fn cases_in_another_order_are_no_proposal() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), crate::snapshot::Ci::No);
        let known = Known::new(&names(&["6.1"]), [("a/b", "Why?")]);
        let run = |cases: [&str; 2]| {
            let mut record = record("a/b", true);
            record.cases = cases.map(|name| Case { name: name.into(), ..record.cases[0].clone() }).into();
            [KernelRun { kernel: "6.1".into(), records: vec![record], ..KernelRun::default() }]
        };
        store.accept_runs(&run(["p", "q"]), &known, false, |_, _| true).unwrap();
        let other = run(["q", "p"]);
        assert!(compare(&store, &other, &known).unwrap().all_matched());
        assert!(store.propose(&other, &known).unwrap().is_empty());
    }

    #[test]
    fn what_did_not_run_is_no_part_of_a_run() {
        let run = KernelRun {
            kernel: "6.1".into(),
            records: vec![record("a/b", true), Record::not_run("c/d", "no boot")],
            ..KernelRun::default()
        };
        assert_eq!(by_probe(&[run]).keys().collect::<Vec<_>>(), ["a/b"]);
    }
}
