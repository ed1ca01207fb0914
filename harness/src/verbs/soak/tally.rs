//! What a soak counts: every form that the record of a probe on a kernel has taken, and in which runs.

use crate::model::KernelRun;
use crate::normalize::{Normal, normalize};
use crate::snapshot::{SnapshotError, difference};
use probes::record::{Outcome, Record};
use serde::Serialize;
use std::collections::BTreeMap;

/// The forms of one record, each with the runs that had it. `None` is the form of a record that is not there.
type Forms = Vec<(Option<Normal>, Vec<u32>)>;

/// The forms of the records, by kernel and probe.
#[derive(Debug, Default)]
pub(super) struct Tally {
    forms: BTreeMap<(String, String), Forms>,
    /// The runs that came to their end on a kernel.
    whole: BTreeMap<String, Vec<u32>>,
    /// What the kernels say that they are, where a machine came up.
    releases: BTreeMap<String, String>,
    /// The kernels, in the order in which they came.
    pub(super) kernels: Vec<String>,
    /// Records that were compared.
    pub(super) records: usize,
    /// Kernels that could not be run to their end.
    pub(super) failures: Vec<Broken>,
}

/// A kernel that could not be run to its end. Its records until then count.
#[derive(Debug, Serialize)]
pub(super) struct Broken {
    /// Which run, counted from 1.
    run: u32,
    kernel: String,
    why: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "run {}: {} could not be run to its end: {}", self.run, self.kernel, self.why)
    }
}

/// A record that was not the same in all runs.
#[derive(Debug, Serialize)]
pub(super) struct Difference {
    kernel: String,
    probe: String,
    /// Its forms, the most frequent first.
    forms: Vec<Form>,
}

/// One form of a record.
#[derive(Debug, Serialize)]
struct Form {
    /// In which runs, counted from 1.
    runs: Vec<u32>,
    /// How it differs from the most frequent one; empty for that.
    diff: String,
}

/// The records of probes that ran.
pub(super) fn ran(run: &KernelRun) -> impl Iterator<Item = &Record> {
    run.records.iter().filter(|record| !matches!(record.outcome, Outcome::NotRun { .. }))
}

impl Tally {
    /// Takes in what run `number` has recorded on one kernel. Of a run that is `broken_off` nobody knows what it would have
    /// recorded besides: probes that another kernel made known are asked last.
    pub(super) fn add(&mut self, number: u32, run: &KernelRun, broken_off: bool) {
        if !self.kernels.contains(&run.kernel) {
            self.kernels.push(run.kernel.clone());
        }
        if let Some(facts) = &run.facts {
            self.releases.insert(run.kernel.clone(), facts.release.clone());
        }
        if let Some(why) = &run.failure {
            let (kernel, why) = (run.kernel.clone(), why.clone());
            self.failures.push(Broken { run: number, kernel, why });
        } else if !broken_off {
            self.whole.entry(run.kernel.clone()).or_default().push(number);
        }
        for record in ran(run) {
            self.records += 1;
            let forms = self.forms.entry((run.kernel.clone(), record.probe.clone())).or_default();
            let form = Some(normalize(record));
            match forms.iter_mut().find(|(other, _)| *other == form) {
                Some((_, runs)) => runs.push(number),
                None => forms.push((form, vec![number])),
            }
        }
    }

    /// What a kernel says that it is; `None` where no machine came up.
    pub(super) fn release(&self, kernel: &str) -> Option<&str> {
        self.releases.get(kernel).map(String::as_str)
    }

    /// Every form of every record that is there: kernel, probe, form, runs.
    pub(super) fn forms(&self) -> impl Iterator<Item = (&str, &str, &Normal, &[u32])> {
        self.forms.iter().flat_map(|((kernel, probe), forms)| {
            let there = forms.iter().filter_map(|(form, runs)| Some((form.as_ref()?, runs.as_slice())));
            there.map(move |(form, runs)| (kernel.as_str(), probe.as_str(), form, runs))
        })
    }

    /// The records that were not the same in all runs.
    ///
    /// # Errors
    /// When a part of a record cannot be written as YAML.
    pub(super) fn differences(&self) -> Result<Vec<Difference>, SnapshotError> {
        let mut found = Vec::new();
        for ((kernel, probe), forms) in &self.forms {
            let mut forms = forms.clone();
            let there = |run: &u32| forms.iter().any(|(_, runs)| runs.contains(run));
            let lacking: Vec<u32> =
                self.whole.get(kernel).into_iter().flatten().filter(|run| !there(run)).copied().collect();
            if !lacking.is_empty() {
                forms.push((None, lacking));
            }
            if forms.len() < 2 {
                continue;
            }
            // Stable, so of two that are equally frequent the one that came first.
            forms.sort_by_key(|(_, runs)| std::cmp::Reverse(runs.len()));
            let usual = forms.first().and_then(|(form, _)| form.clone());
            let forms = forms
                .into_iter()
                .map(|(form, runs)| Ok(Form { runs, diff: diff(probe, usual.as_ref(), form.as_ref())? }))
                .collect::<Result<_, SnapshotError>>()?;
            found.push(Difference { kernel: kernel.clone(), probe: probe.clone(), forms });
        }
        Ok(found)
    }
}

fn diff(probe: &str, usual: Option<&Normal>, form: Option<&Normal>) -> Result<String, SnapshotError> {
    match (usual, form) {
        (Some(usual), Some(form)) if usual == form => Ok(String::new()),
        // Differences are looked for case by case, so this one leaves none.
        (Some(usual), Some(form)) => {
            Ok(difference(probe, usual, form)?.unwrap_or_else(|| another_order(usual, form)))
        }
        (Some(_), None) => Ok("there is no record\n".to_owned()),
        (None, Some(_)) => Ok("there is a record\n".to_owned()),
        (None, None) => Ok(String::new()),
    }
}

/// The same cases, or warnings, in another order.
fn another_order(usual: &Normal, form: &Normal) -> String {
    let names =
        |normal: &Normal| -> Vec<String> { normal.cases.iter().map(|case| case.name.clone()).collect() };
    let (was, is) = (names(usual), names(form));
    let list = |names: &[String]| names.join(", ");
    let first = was.iter().zip(&is).position(|(one, other)| one != other).unwrap_or(0);
    format!(
        "the same cases in another order, from the {} on: {}; in most runs: {}\n",
        first + 1,
        list(is.get(first..).unwrap_or_default()),
        list(was.get(first..).unwrap_or_default())
    )
}

impl Difference {
    /// A few lines for a person.
    pub(super) fn in_words(&self) -> String {
        let runs = |form: &Form| form.runs.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        let all: usize = self.forms.iter().map(|form| form.runs.len()).sum();
        let mut text = String::new();
        for form in self.forms.iter().skip(1) {
            text += &format!(
                "{} on {}: otherwise in {} of {all} runs ({}) (- most runs, + these)\n{}",
                self.probe,
                self.kernel,
                form.runs.len(),
                runs(form),
                form.diff
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(probes: &[(&str, &str)], failure: Option<&str>) -> KernelRun {
        let record = |(probe, why): &(&str, &str)| Record {
            outcome: Outcome::CouldNotTell { why: (*why).to_owned() },
            ..Record::not_run(probe, "")
        };
        let records = probes.iter().map(record).collect();
        KernelRun { kernel: "k".into(), records, failure: failure.map(str::to_owned), ..KernelRun::default() }
    }

    #[test]
    fn a_record_that_once_differed_is_reported_with_its_run() {
        let mut tally = Tally::default();
        tally.add(1, &run(&[("a/b", "x"), ("a/c", "x")], None), false);
        tally.add(2, &run(&[("a/b", "y"), ("a/c", "x")], None), false);
        tally.add(3, &run(&[("a/b", "x"), ("a/c", "x")], None), false);
        let found = tally.differences().unwrap();
        assert_eq!((found.len(), tally.records), (1, 6));
        let words = found[0].in_words();
        assert!(words.starts_with("a/b on k: otherwise in 1 of 3 runs (2)"), "{words}");
        assert!(words.contains('y'), "{words}");
    }

    #[test]
    fn another_order_of_the_same_cases_is_told_as_that() {
        use probes::record::{End, Phase};
        let run = |names: [&str; 3]| {
            let mut run = run(&[("a/b", "x")], None);
            let case = |name| crate::report::made_up::case(name, Phase::Read, End::Done, [None; 3]);
            run.records[0].cases = names.map(case).into();
            run
        };
        let mut tally = Tally::default();
        tally.add(1, &run(["a", "b", "c"]), false);
        tally.add(2, &run(["a", "c", "b"]), false);
        tally.add(3, &run(["a", "b", "c"]), false);
        let words = tally.differences().unwrap()[0].in_words();
        let order = "the same cases in another order, from the 2 on: c, b; in most runs: b, c\n";
        assert!(words.ends_with(order), "{words}");
    }

    #[test]
    fn a_record_that_is_missing_differs_unless_the_kernel_failed_or_the_run_was_broken_off() {
        let mut tally = Tally::default();
        tally.add(1, &run(&[("a/b", "x")], None), false);
        tally.add(2, &run(&[], Some("no boot")), false);
        assert!(tally.differences().unwrap().is_empty());
        assert_eq!(tally.failures.len(), 1);
        tally.add(4, &run(&[], None), true);
        assert!(tally.differences().unwrap().is_empty());
        tally.add(3, &run(&[], None), false);
        assert!(tally.differences().unwrap()[0].in_words().contains("there is no record"));
    }
}
