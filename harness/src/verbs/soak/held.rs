//! A soak's records held against the snapshots: what two soaks have in common, on two machines or of two days. Runs that
//! are like each other could still all be wrong in the same way.

use super::tally::Tally;
use crate::snapshot::{Snapshot, SnapshotError, Verdict, judge_normal};
use serde::Serialize;
use std::collections::BTreeMap;

/// What the snapshots say of all records of all runs.
#[derive(Debug, Default, Serialize)]
pub(super) struct Held {
    /// Records that are what the snapshots say.
    matched: usize,
    /// Records of which they say nothing.
    missing: usize,
    /// Those that are otherwise.
    different: Vec<Otherwise>,
}

/// A form of a record that is not the snapshot's.
#[derive(Debug, Serialize)]
struct Otherwise {
    kernel: String,
    probe: String,
    /// In which runs, counted from 1.
    runs: Vec<u32>,
    /// From the snapshot to this form.
    diff: String,
}

impl Held {
    /// Holds every form that a record has taken against the snapshot, with the row of the matrix that `row` gives for a
    /// kernel.
    ///
    /// # Errors
    /// When a part of a record cannot be written as YAML.
    pub(super) fn of(
        tally: &Tally,
        snapshots: &BTreeMap<String, Snapshot>,
        row: impl Fn(&str) -> String,
    ) -> Result<Self, SnapshotError> {
        let rows: BTreeMap<&str, String> =
            tally.kernels.iter().map(|kernel| (kernel.as_str(), row(kernel))).collect();
        let mut held = Self::default();
        for (kernel, probe, form, runs) in tally.forms() {
            let row = rows.get(kernel).map_or(kernel, String::as_str);
            match judge_normal(snapshots.get(probe), row, probe, form)? {
                Verdict::Matched => held.matched += runs.len(),
                Verdict::Different { diff } => {
                    let (kernel, probe, runs) = (kernel.to_owned(), probe.to_owned(), runs.to_owned());
                    held.different.push(Otherwise { kernel, probe, runs, diff });
                }
                Verdict::Missing | Verdict::Stale { .. } | Verdict::NotCompared { .. } => {
                    held.missing += runs.len();
                }
            }
        }
        Ok(held)
    }

    /// Whether no record is another than its snapshot says.
    pub(super) fn none_differs(&self) -> bool {
        self.different.is_empty()
    }

    /// What is otherwise, and a line that counts.
    pub(super) fn in_words(&self) -> String {
        let mut text = String::new();
        for it in &self.different {
            let runs: Vec<String> = it.runs.iter().map(u32::to_string).collect();
            text += &format!(
                "{} on {}: not as the snapshot has it in run {} (- snapshot, + these)\n{}",
                it.probe,
                it.kernel,
                runs.join(" "),
                it.diff
            );
        }
        let different: usize = self.different.iter().map(|it| it.runs.len()).sum();
        text += &format!("held against the snapshots: {} records matched, {different} differ", self.matched);
        match self.missing {
            0 => text + "\n",
            missing => text + &format!(", {missing} are in none\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::KernelRun;
    use crate::normalize::normalize;
    use crate::snapshot::made_up::snapshot;
    use probes::record::{KernelFacts, Outcome, Record};

    fn record(probe: &str, why: &str) -> Record {
        Record { outcome: Outcome::CouldNotTell { why: why.to_owned() }, ..Record::not_run(probe, "") }
    }

    #[test]
    fn what_all_runs_agree_on_is_held_against_the_snapshot_too() {
        let mut tally = Tally::default();
        for (number, of_c) in [(1, "y"), (2, "y"), (3, "x")] {
            let records = vec![record("a/b", "x"), record("a/c", of_c), record("a/d", "x")];
            let facts = Some(KernelFacts { release: "6.1.9".into(), ..KernelFacts::default() });
            let run = KernelRun { kernel: "mine".into(), facts, records, ..KernelRun::default() };
            tally.add(number, &run, false);
        }
        let known = |probe: &str| {
            let mut known = snapshot(probe, Vec::new());
            known.observed.push(("6.1".to_owned(), normalize(&record(probe, "x"))));
            (probe.to_owned(), known)
        };
        let snapshots = BTreeMap::from(["a/b", "a/c"].map(known));
        let held = Held::of(&tally, &snapshots, |kernel| {
            assert_eq!((kernel, tally.release(kernel)), ("mine", Some("6.1.9")));
            "6.1".to_owned()
        })
        .unwrap();
        assert!(!held.none_differs());
        let text = held.in_words();
        assert!(text.starts_with("a/c on mine: not as the snapshot has it in run 1 2 (-"), "{text}");
        assert!(
            text.ends_with("held against the snapshots: 4 records matched, 2 differ, 3 are in none\n"),
            "{text}"
        );
    }
}
