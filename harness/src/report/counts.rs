//! Counting what a record says.

use crate::snapshot::Verdict;
use probes::record::{Case, End, Outcome, Record};
use serde::{Deserialize, Serialize};
use std::ops::AddAssign;

/// How often something was seen. Cases and probes are counted as each field says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Probes with a record.
    pub probes: u32,
    /// Cases that ended.
    pub cases: u32,
    /// Cases of which the kernel accepted every program.
    pub accepted: u32,
    /// Cases that the kernel refused, in whatever phase.
    pub refused: u32,
    /// Cases whose subject this kernel does not have.
    pub absent: u32,
    /// Cases whose program ran.
    pub fired: u32,
    /// Cases in which user space saw the denial.
    pub denied: u32,
    /// Cases and whole probes that could not tell.
    pub could_not_tell: u32,
    /// Probes that crashed their process or kernel.
    pub crashed: u32,
    /// Probes that did not end in time.
    pub hung: u32,
    /// Probes that were not run.
    pub not_run: u32,
    /// Probes that gave what the snapshot says.
    pub matched: u32,
    /// Probes that gave something else.
    pub different: u32,
    /// Probes of which the snapshot says nothing on this kernel.
    pub missing: u32,
}

impl Counts {
    /// The counts of one record and its verdict.
    #[must_use]
    pub fn of(record: &Record, verdict: Option<&Verdict>) -> Self {
        let mut counts = Self { probes: 1, ..Self::default() };
        for case in &record.cases {
            counts.add_case(case);
        }
        match record.outcome {
            Outcome::Observed => {}
            Outcome::CouldNotTell { .. } => counts.could_not_tell += 1,
            Outcome::Crashed { .. } => counts.crashed += 1,
            Outcome::Hung { .. } => counts.hung += 1,
            Outcome::NotRun { .. } => counts.not_run += 1,
        }
        match verdict {
            Some(Verdict::Matched) => counts.matched += 1,
            Some(Verdict::Different { .. }) => counts.different += 1,
            Some(Verdict::Missing) => counts.missing += 1,
            Some(Verdict::Stale { .. } | Verdict::NotCompared { .. }) | None => {}
        }
        counts
    }

    fn add_case(&mut self, case: &Case) {
        self.cases += 1;
        self.accepted += u32::from(case.accepted == Some(true));
        self.fired += u32::from(case.fired == Some(true));
        self.denied += u32::from(case.denied == Some(true));
        match case.end {
            End::Done => {}
            End::Refused { .. } => self.refused += 1,
            End::Absent { .. } => self.absent += 1,
            End::CouldNotTell { .. } => self.could_not_tell += 1,
        }
    }

    /// The measures that a table shows, by name.
    #[must_use]
    pub fn measures(&self) -> [(&'static str, u32); 11] {
        [
            ("accepted", self.accepted),
            ("refused", self.refused),
            ("absent", self.absent),
            ("fired", self.fired),
            ("denied", self.denied),
            ("could not tell", self.could_not_tell),
            ("crashed", self.crashed),
            ("hung", self.hung),
            ("not run", self.not_run),
            ("different", self.different),
            ("missing", self.missing),
        ]
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.probes += other.probes;
        self.cases += other.cases;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.absent += other.absent;
        self.fired += other.fired;
        self.denied += other.denied;
        self.could_not_tell += other.could_not_tell;
        self.crashed += other.crashed;
        self.hung += other.hung;
        self.not_run += other.not_run;
        self.matched += other.matched;
        self.different += other.different;
        self.missing += other.missing;
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |mut total, one| {
            total += one;
            total
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::made_up::runs;
    use rstest::rstest;

    #[test]
    fn a_run_is_counted() {
        let total: Counts =
            runs()[0].records.iter().map(|record| Counts::of(record, Some(&Verdict::Matched))).sum();
        let expected = Counts {
            probes: 2,
            cases: 4,
            accepted: 1,
            refused: 1,
            absent: 1,
            fired: 1,
            denied: 1,
            could_not_tell: 1,
            crashed: 1,
            matched: 2,
            ..Counts::default()
        };
        assert_eq!(total, expected);
    }

    #[rstest]
    #[case(Outcome::CouldNotTell { why: String::new() }, "could not tell")]
    #[case(Outcome::Hung { during: String::new() }, "hung")]
    #[case(Outcome::NotRun { why: String::new() }, "not run")]
    fn outcomes_are_counted(#[case] outcome: Outcome, #[case] measure: &str) {
        let record = Record { outcome, ..Record::not_run("a/b", "") };
        let seen: Vec<_> =
            Counts::of(&record, None).measures().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(seen, [(measure, 1)]);
    }

    #[rstest]
    #[case(Some(Verdict::Different { diff: String::new() }), (0, 1, 0))]
    #[case(Some(Verdict::Missing), (0, 0, 1))]
    #[case(Some(Verdict::NotCompared { why: String::new() }), (0, 0, 0))]
    #[case(None, (0, 0, 0))]
    fn verdicts_are_counted(#[case] verdict: Option<Verdict>, #[case] expected: (u32, u32, u32)) {
        let counts = Counts::of(&Record::not_run("a/b", ""), verdict.as_ref());
        assert_eq!((counts.matched, counts.different, counts.missing), expected);
    }
}
