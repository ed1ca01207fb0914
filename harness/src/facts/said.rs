//! What a kernel said to a case: how the case ended, or that the probe ended in it by a crash. Whoever tells what kernels
//! answered, case by case, asks here, so that a crash is an answer everywhere.

use crate::normalize::{Normal, NormalCase};
use crate::snapshot::result_line;
use probes::record::{End, Outcome};
use serde_json::{Map, Value};

/// One kernel's answer to a case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Said<'a> {
    /// The case ended.
    Case(&'a NormalCase),
    /// The probe ended in it, by a crash.
    Crash {
        /// The kernel's words.
        what: &'a str,
        /// The phase that was under way.
        phase: &'a str,
    },
}

impl<'a> Said<'a> {
    /// What a record says to the case; none where it was not asked.
    #[must_use]
    pub fn of(normal: &'a Normal, case: &str) -> Option<Self> {
        let crash = || crashed_in(normal, case).map(|(what, phase)| Self::Crash { what, phase });
        normal.case(case).map(Self::Case).or_else(crash)
    }

    /// Every answer of a record with its case, in the record's order; a crash comes last.
    pub fn all(normal: &'a Normal) -> impl Iterator<Item = (&'a str, Self)> {
        let cases = normal.cases.iter().map(|case| (case.name.as_str(), Self::Case(case)));
        let crashed = crash(normal).filter(|(case, ..)| normal.case(case).is_none());
        cases.chain(crashed.map(|(case, what, phase)| (case, Self::Crash { what, phase })))
    }

    /// How it ended, on a line: `refused at load with EACCES`, `crashed at trigger`.
    #[must_use]
    pub fn result(self) -> String {
        match self {
            Self::Case(case) => result_line(case),
            Self::Crash { phase, .. } => format!("crashed at {phase}"),
        }
    }

    /// What was said about it: the verifier's reason, what is absent, why nobody could tell, a crashing kernel's words.
    #[must_use]
    pub fn note(self) -> Option<&'a str> {
        match self {
            Self::Crash { what, .. } => Some(what),
            Self::Case(case) => match &case.end {
                End::Absent { what: text } | End::CouldNotTell { why: text } => Some(text),
                End::Done | End::Refused { .. } => case.reason.as_deref(),
            },
        }
    }

    /// Both in words.
    #[must_use]
    pub fn words(self) -> String {
        match self.note() {
            Some(note) => format!("{}: {note}", self.result()),
            None => self.result(),
        }
    }

    /// What was observed; none of a crash.
    #[must_use]
    pub const fn seen(self) -> Option<&'a Map<String, Value>> {
        match self {
            Self::Case(case) => Some(&case.seen),
            Self::Crash { .. } => None,
        }
    }
}

/// The kernel's words and the phase, where the probe ended by a crash in this case.
pub(super) fn crashed_in<'a>(normal: &'a Normal, case: &str) -> Option<(&'a str, &'a str)> {
    crash(normal).filter(|(of, ..)| *of == case).map(|(_, what, phase)| (what, phase))
}

/// The case in which the probe crashed, the kernel's words and the phase.
fn crash(normal: &Normal) -> Option<(&str, &str, &str)> {
    let Outcome::Crashed { what, during } = &normal.outcome else { return None };
    let (case, phase) = during.rsplit_once(": ")?;
    Some((case, what, phase))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::alike;
    use crate::snapshot::made_up::{done, observed, refused};

    #[test]
    fn a_crash_is_what_was_said_to_the_case_under_way_alone() {
        let during = "two: trigger".to_owned();
        let crashed = Normal {
            outcome: Outcome::Crashed { what: "BUG".into(), during },
            ..observed(vec![refused("one", "no")])
        };
        let words = |case: &str| Said::of(&crashed, case).map(Said::words);
        assert_eq!(words("one").as_deref(), Some("refused at load with EINVAL: no"));
        assert_eq!(words("two").as_deref(), Some("crashed at trigger: BUG"));
        assert_eq!((words("tw"), words("three")), (None, None));
        assert_eq!(Said::all(&crashed).map(|(case, _)| case).collect::<Vec<_>>(), ["one", "two"]);
    }

    #[test]
    fn equal_answers_stand_together() {
        let normals = [observed(vec![done("x")]), observed(vec![]), observed(vec![done("x")])];
        let groups = alike(normals.iter().map(|normal| Said::of(normal, "x")));
        assert_eq!(groups.iter().map(|(_, places)| places.clone()).collect::<Vec<_>>(), [[0, 2]]);
    }
}
