//! What changed from one kernel to another: every case that both were asked about, held side by side and sorted by
//! what a reader wants to know first.

use crate::normalize::{Normal, NormalCase};
use crate::snapshot::result_line;
use probes::record::{End, Outcome};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What kind of change it is; the order is that of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A probe ends otherwise as a whole: one of the kernels crashed, hung, or warned.
    Outcome,
    /// What was asked about is there now.
    Appeared,
    /// It is there no more.
    Disappeared,
    /// What was refused is done now.
    NowAllowed,
    /// What was done is refused now.
    NowRefused,
    /// A program runs, or its verdict counts, on one of the two only.
    Enforcement,
    /// Both refuse, with another errno, in another phase, or for another reason.
    Refusal,
    /// Both do it, and something else was seen.
    Seen,
    /// One of the two could not tell, was not asked, or was asked before the probe changed: no change is known.
    Unknown,
}

impl Kind {
    /// The heading of its changes.
    #[must_use]
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Outcome => "ended otherwise (a crash, a hang, a kernel's warning)",
            Self::Appeared => "appeared",
            Self::Disappeared => "disappeared",
            Self::NowAllowed => "allowed now, refused before",
            Self::NowRefused => "refused now, allowed before",
            Self::Enforcement => "enforced otherwise",
            Self::Refusal => "refused otherwise",
            Self::Seen => "seen otherwise",
            Self::Unknown => {
                "not to be compared: one side could not tell, was not asked, or before the probe changed"
            }
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What kind it is.
    pub kind: Kind,
    /// The probe's id.
    pub probe: String,
    /// The case; empty for the probe as a whole.
    pub case: String,
    /// What the first kernel gave, in the words of the snapshots.
    pub before: String,
    /// What the second gave.
    pub after: String,
    /// The facts that differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<Fact>,
}

/// A fact that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Its name in the record.
    pub name: String,
    /// Its value on the first kernel; null where it has none.
    pub before: Option<String>,
    /// Its value on the second.
    pub after: Option<String>,
}

/// The changes from one kernel's records to another's, in the order of kind, probe and case.
#[must_use]
pub fn changes(before: &BTreeMap<String, Normal>, after: &BTreeMap<String, Normal>) -> Vec<Change> {
    let probes: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut found: Vec<Change> =
        probes.into_iter().flat_map(|probe| of_probe(probe, before.get(probe), after.get(probe))).collect();
    // Cases of one kind stay in the probe's own order.
    found.sort_by(|one, other| (one.kind, &one.probe).cmp(&(other.kind, &other.probe)));
    found
}

fn of_probe(probe: &str, before: Option<&Normal>, after: Option<&Normal>) -> Vec<Change> {
    let change = |kind, before: String, after: String| Change {
        kind,
        probe: probe.to_owned(),
        case: String::new(),
        before,
        after,
        facts: Vec::new(),
    };
    let (before, after) = match (before, after) {
        (Some(before), Some(after)) => (before, after),
        // A probe that a kernel's BTF brings is no probe of a kernel that does not have the function.
        (None, Some(_)) => return vec![change(Kind::Appeared, "no probe".into(), "a probe".into())],
        (Some(_), None) => return vec![change(Kind::Disappeared, "a probe".into(), "no probe".into())],
        (None, None) => return Vec::new(),
    };
    let mut found = Vec::new();
    if before.outcome != after.outcome || before.warnings != after.warnings {
        found.push(change(Kind::Outcome, ending(before), ending(after)));
    }
    for (name, one, other) in pairs(before, after) {
        found.extend(of_case(probe, name, one, other));
    }
    found
}

/// How a probe ended as a whole.
fn ending(normal: &Normal) -> String {
    let outcome = match &normal.outcome {
        Outcome::Observed => "observed".to_owned(),
        Outcome::CouldNotTell { why } => format!("could not tell: {why}"),
        Outcome::Crashed { what, during } => format!("crashed during {during}: {what}"),
        Outcome::Hung { during } => format!("hung during {during}"),
        Outcome::NotRun { why } => format!("not run: {why}"),
    };
    let warnings = normal.warnings.iter().map(|warning| format!("; the kernel warned: {warning}"));
    std::iter::once(outcome).chain(warnings).collect()
}

/// The cases of both, in the first's order and then the second's.
fn pairs<'a>(
    before: &'a Normal,
    after: &'a Normal,
) -> Vec<(&'a str, Option<&'a NormalCase>, Option<&'a NormalCase>)> {
    let named = |normal: &'a Normal, name: &str| normal.cases.iter().find(|case| case.name == name);
    let mut all: Vec<_> =
        before.cases.iter().map(|case| (case.name.as_str(), Some(case), named(after, &case.name))).collect();
    let further = after.cases.iter().filter(|case| named(before, &case.name).is_none());
    all.extend(further.map(|case| (case.name.as_str(), None, Some(case))));
    all
}

fn of_case(
    probe: &str,
    name: &str,
    before: Option<&NormalCase>,
    after: Option<&NormalCase>,
) -> Option<Change> {
    if before == after {
        return None;
    }
    let facts = match (before, after) {
        (Some(one), Some(other)) => facts(one, other),
        _ => Vec::new(),
    };
    Some(Change {
        kind: kind(before, after),
        probe: probe.to_owned(),
        case: name.to_owned(),
        before: before.map_or_else(|| "not asked".to_owned(), in_words),
        after: after.map_or_else(|| "not asked".to_owned(), in_words),
        facts,
    })
}

fn kind(before: Option<&NormalCase>, after: Option<&NormalCase>) -> Kind {
    let (Some(one), Some(other)) = (before, after) else {
        // A probe stops asking where something is absent, which another case of the same probe says.
        return Kind::Unknown;
    };
    match (&one.end, &other.end) {
        (End::CouldNotTell { .. }, _) | (_, End::CouldNotTell { .. }) => Kind::Unknown,
        (End::Absent { .. }, End::Absent { .. }) => Kind::Seen,
        (End::Absent { .. }, _) => Kind::Appeared,
        (_, End::Absent { .. }) => Kind::Disappeared,
        (End::Refused { .. }, End::Done) => Kind::NowAllowed,
        (End::Done, End::Refused { .. }) => Kind::NowRefused,
        (End::Refused { .. }, End::Refused { .. }) => Kind::Refusal,
        (End::Done, End::Done) if (one.fired, one.denied) != (other.fired, other.denied) => Kind::Enforcement,
        (End::Done, End::Done) => Kind::Seen,
    }
}

/// A case in the words of the snapshots.
fn in_words(case: &NormalCase) -> String {
    let more = match &case.end {
        End::Absent { what } => Some(what),
        End::CouldNotTell { why } => Some(why),
        End::Done | End::Refused { .. } => case.reason.as_ref(),
    };
    match more {
        Some(more) => format!("{}: {more}", result_line(case)),
        None => result_line(case),
    }
}

fn facts(before: &NormalCase, after: &NormalCase) -> Vec<Fact> {
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let names: BTreeSet<&String> = before.seen.keys().chain(after.seen.keys()).collect();
    let mut found: Vec<Fact> = names
        .into_iter()
        .filter(|name| before.seen.get(*name) != after.seen.get(*name))
        .map(|name| Fact {
            name: name.clone(),
            before: before.seen.get(name).map(text),
            after: after.seen.get(name).map(text),
        })
        .collect();
    let in_order = |case: &NormalCase| serde_json::Value::from(case.seen.clone()).to_string();
    let (was, is) = (in_order(before), in_order(after));
    if found.is_empty() && was != is {
        found.push(Fact { name: "the order of the facts".to_owned(), before: Some(was), after: Some(is) });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use probes::record::Phase;
    use rstest::rstest;

    fn case(end: End) -> NormalCase {
        let phase = if matches!(end, End::Done) { Phase::Read } else { Phase::Load };
        NormalCase {
            name: "x".into(),
            phase,
            end,
            accepted: None,
            fired: Some(true),
            denied: None,
            reason: None,
            seen: serde_json::Map::new(),
        }
    }

    fn refused(errno: &str) -> End {
        End::Refused { errno: errno.into() }
    }

    fn absent() -> End {
        End::Absent { what: "function f".into() }
    }

    fn unknown() -> End {
        End::CouldNotTell { why: "no time".into() }
    }

    fn records(cases: Vec<NormalCase>) -> BTreeMap<String, Normal> {
        let normal = Normal { outcome: Outcome::Observed, cases, warnings: Vec::new() };
        BTreeMap::from([("a/b".to_owned(), normal)])
    }

    #[rstest]
    #[case(absent(), End::Done, Kind::Appeared)]
    #[case(refused("EINVAL"), absent(), Kind::Disappeared)]
    #[case(refused("EINVAL"), End::Done, Kind::NowAllowed)]
    #[case(End::Done, refused("EACCES"), Kind::NowRefused)]
    #[case(refused("EINVAL"), refused("EACCES"), Kind::Refusal)]
    #[case(unknown(), End::Done, Kind::Unknown)]
    #[case(absent(), unknown(), Kind::Unknown)]
    fn a_change_has_a_kind(#[case] before: End, #[case] after: End, #[case] kind: Kind) {
        let found = changes(&records(vec![case(before)]), &records(vec![case(after)]));
        assert_eq!(found.iter().map(|change| change.kind).collect::<Vec<_>>(), [kind]);
    }

    #[test]
    fn the_same_is_no_change_and_facts_are_named() {
        let mut other = case(End::Done);
        assert_eq!(changes(&records(vec![case(End::Done)]), &records(vec![other.clone()])), []);
        other.seen.insert("errno".into(), "EPERM".into());
        let found = changes(&records(vec![case(End::Done)]), &records(vec![other.clone()]));
        let fact = Fact { name: "errno".into(), before: None, after: Some("EPERM".into()) };
        assert_eq!((found[0].kind, &found[0].facts), (Kind::Seen, &vec![fact]));
        other.denied = Some(true);
        let found = changes(&records(vec![case(End::Done)]), &records(vec![other]));
        assert_eq!(found[0].kind, Kind::Enforcement);
    }

    #[test]
    fn a_change_of_the_order_of_facts_is_told() {
        let with = |facts: [&str; 2]| NormalCase {
            seen: facts.map(|name| (name.to_owned(), 1.into())).into_iter().collect(),
            ..case(End::Done)
        };
        let found = changes(&records(vec![with(["p", "q"])]), &records(vec![with(["q", "p"])]));
        let [fact] = found[0].facts.as_slice() else { panic!("{found:?}") };
        assert_eq!(
            (fact.name.as_str(), fact.after.as_deref()),
            ("the order of the facts", Some(r#"{"q":1,"p":1}"#))
        );
    }

    #[test]
    fn crashes_come_first_and_a_probe_can_come_and_go() {
        let mut crashed = records(vec![case(refused("EINVAL"))]);
        if let Some(normal) = crashed.get_mut("a/b") {
            normal.outcome = Outcome::Crashed { what: "BUG".into(), during: "x: load".into() };
        }
        let found = changes(&records(vec![case(End::Done)]), &crashed);
        assert_eq!(
            found.iter().map(|change| change.kind).collect::<Vec<_>>(),
            [Kind::Outcome, Kind::NowRefused]
        );
        assert_eq!(changes(&BTreeMap::new(), &crashed)[0].kind, Kind::Appeared);
        assert_eq!(changes(&crashed, &BTreeMap::new())[0].kind, Kind::Disappeared);
    }
}
