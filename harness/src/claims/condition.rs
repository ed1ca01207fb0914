//! The language of conditions: what a case must be like, and three answers.

use crate::normalize::NormalCase;
use crate::snapshot::Snapshot;
use globset::Glob;
use probes::record::End;
use serde_json::Value;
use std::collections::BTreeMap;

/// Whether a kernel meets a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// Its records do not say, and why.
    Unknown(String),
}

impl std::ops::Not for Truth {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Unknown(why) => Self::Unknown(why),
        }
    }
}

/// How a case must have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It came through.
    Done,
    /// The kernel said no.
    Refused,
    /// What it asks about is not in the kernel.
    Absent,
}

/// What one case must be like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CaseIs {
    /// The probe.
    pub probe: String,
    /// The case.
    pub case: String,
    /// How it ended.
    pub is: Option<Ending>,
    /// With which errno it was refused.
    pub with: Option<String>,
    /// In which phase it ended.
    pub at: Option<String>,
    /// Whether its programs were accepted.
    pub accepted: Option<bool>,
    /// Whether a program ran.
    pub fired: Option<bool>,
    /// Whether a denial took effect.
    pub denied: Option<bool>,
    /// A part of the verifier's reason.
    pub reason: Option<String>,
    /// Facts; a value may hold `*`.
    pub seen: Vec<(String, String)>,
}

/// A condition on the records of one kernel.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// On one case.
    Case(Box<CaseIs>),
    /// All of them.
    All(Vec<Condition>),
    /// At least one of them.
    Any(Vec<Condition>),
    /// The opposite.
    Not(Box<Condition>),
}

impl Condition {
    /// Whether `kernel` meets it.
    #[must_use]
    pub fn of(&self, snapshots: &BTreeMap<String, Snapshot>, kernel: &str) -> Truth {
        match self {
            Self::Case(case) => case.of(snapshots, kernel),
            Self::Not(condition) => !condition.of(snapshots, kernel),
            Self::All(conditions) => {
                every(conditions.iter().map(|condition| condition.of(snapshots, kernel)))
            }
            Self::Any(conditions) => {
                !every(conditions.iter().map(|condition| !condition.of(snapshots, kernel)))
            }
        }
    }

    /// The cases it names, in its order.
    #[must_use]
    pub fn cases(&self) -> Vec<&CaseIs> {
        match self {
            Self::Case(case) => vec![case],
            Self::Not(condition) => condition.cases(),
            Self::All(conditions) | Self::Any(conditions) => {
                conditions.iter().flat_map(Self::cases).collect()
            }
        }
    }
}

/// Yes if all are; no if one is no, whatever is unknown.
fn every(truths: impl Iterator<Item = Truth>) -> Truth {
    let mut all = Truth::Yes;
    for truth in truths {
        match truth {
            Truth::No => return Truth::No,
            Truth::Unknown(_) if all == Truth::Yes => all = truth,
            Truth::Yes | Truth::Unknown(_) => {}
        }
    }
    all
}

impl CaseIs {
    fn of(&self, snapshots: &BTreeMap<String, Snapshot>, kernel: &str) -> Truth {
        let unknown = |why: &str| Truth::Unknown(format!("{}/{}: {why}", self.probe, self.case));
        let Some(normal) = snapshots.get(&self.probe).and_then(|snapshot| snapshot.of(kernel)) else {
            return unknown("not measured");
        };
        let Some(case) = normal.case(&self.case) else {
            return unknown(&format!("no such case; the probe's outcome is {}", normal.outcome.name()));
        };
        match &case.end {
            End::CouldNotTell { why } => unknown(&format!("could not tell: {why}")),
            End::Done | End::Refused { .. } | End::Absent { .. } => self.matches(case),
        }
    }

    fn matches(&self, case: &NormalCase) -> Truth {
        let ending = match &case.end {
            End::Done => Some(Ending::Done),
            End::Refused { .. } => Some(Ending::Refused),
            End::Absent { .. } => Some(Ending::Absent),
            End::CouldNotTell { .. } => None,
        };
        let errno = match &case.end {
            End::Refused { errno } => Some(errno.as_str()),
            End::Done | End::Absent { .. } | End::CouldNotTell { .. } => None,
        };
        let fits = self.is.is_none_or(|wanted| ending == Some(wanted))
            && self.with.as_deref().is_none_or(|wanted| errno == Some(wanted))
            && self.at.as_deref().is_none_or(|wanted| case.phase.name() == wanted)
            && self
                .reason
                .as_deref()
                .is_none_or(|part| case.reason.as_deref().is_some_and(|is| is.contains(part)));
        if !fits {
            return Truth::No;
        }
        let flags = [
            self.flag(case, "accepted", self.accepted, case.accepted),
            self.flag(case, "fired", self.fired, case.fired),
            self.flag(case, "denied", self.denied, case.denied),
        ];
        every(flags.into_iter().chain(self.seen.iter().map(|(key, wanted)| self.fact(case, key, wanted))))
    }

    /// A case that came through without saying so has not asked; of one that ended early it is not so.
    fn flag(&self, case: &NormalCase, name: &str, wanted: Option<bool>, is: Option<bool>) -> Truth {
        match (wanted, is, &case.end) {
            (None, ..) => Truth::Yes,
            (Some(_), None, End::Done) => Truth::Unknown(format!(
                "{}/{}: the record does not say whether {name}",
                self.probe, self.case
            )),
            (Some(wanted), is, _) if is == Some(wanted) => Truth::Yes,
            (Some(_), ..) => Truth::No,
        }
    }

    /// A fact of a case that came through is there; one that is missing has been renamed or not been seen.
    fn fact(&self, case: &NormalCase, key: &str, wanted: &str) -> Truth {
        match (case.seen.get(key), &case.end) {
            (Some(value), _) if fact_matches(wanted, &fact_text(value)) => Truth::Yes,
            (None, End::Done) => {
                Truth::Unknown(format!("{}/{}: the record says nothing of {key:?}", self.probe, self.case))
            }
            (Some(_) | None, _) => Truth::No,
        }
    }
}

/// A fact as claims write it: a string without quotes, anything else as JSON.
#[must_use]
pub fn fact_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Only `*` is special: facts hold brackets and braces.
fn fact_matches(wanted: &str, is: &str) -> bool {
    if !wanted.contains('*') {
        return wanted == is;
    }
    let literal: Vec<String> = wanted.split('*').map(globset::escape).collect();
    Glob::new(&literal.join("*")).is_ok_and(|glob| glob.compile_matcher().is_match(is))
}
