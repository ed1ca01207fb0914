//! What changed from one kernel to another: every case that both were asked about, held side by side and sorted by
//! what a reader wants to know first.

use crate::claims::condition::fact_text;
use crate::facts::Said;
use crate::normalize::{Normal, NormalCase};
use crate::snapshot::{Snapshot, was_seen};
use probes::families::FAMILIES;
use probes::record::{End, Outcome};
use probes::spec::family_of;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

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
    /// Both end alike, and something else was seen, or something else is absent.
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

/// One kernel's records.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// The kernel.
    pub name: String,
    /// What each probe gave; one that was not run says so, or is not there.
    pub records: BTreeMap<String, Normal>,
    /// Probes that changed since they were asked.
    pub behind: BTreeSet<String>,
}

impl Side {
    /// What the snapshots hold of a row.
    #[must_use]
    pub fn of_row(name: &str, snapshots: &BTreeMap<String, Snapshot>) -> Self {
        let records = snapshots.iter().filter_map(|(id, it)| Some((id.clone(), it.of(name)?.clone())));
        let behind = snapshots.iter().filter(|(_, it)| it.behind.contains(name)).map(|(id, _)| id.clone());
        Self { name: name.to_owned(), records: records.collect(), behind: behind.collect() }
    }

    /// What a probe gave that was run.
    fn seen(&self, probe: &str) -> Option<&Normal> {
        self.records.get(probe).filter(|normal| was_seen(normal))
    }

    /// Whether the kernel has nothing that this probe could be about: kernels bring the probe, and this one was asked for
    /// all of its family and did not.
    fn brings_no(&self, probe: &str) -> bool {
        let family = FAMILIES.iter().find(|family| family.name == family_of(probe));
        let Some(family) = family.filter(|family| family.dynamic.is_some()) else { return false };
        let declared = &DECLARED[family.name];
        !self.records.contains_key(probe)
            && !declared.contains(probe)
            && declared.iter().all(|id| self.seen(id).is_some())
    }
}

/// The probes that tables name, of each family to which kernels add others.
static DECLARED: LazyLock<BTreeMap<&str, BTreeSet<String>>> = LazyLock::new(|| {
    let dynamic = FAMILIES.iter().filter(|family| family.dynamic.is_some());
    dynamic.map(|family| (family.name, (family.probes)().into_iter().map(|it| it.id).collect())).collect()
});

/// The changes from one kernel to another, in the order of kind, probe and case. Those of probes that only one side was
/// asked as they are now come last: what differs may be the probe. A probe without a record of one side is not compared.
#[must_use]
pub fn changes(before: &Side, after: &Side) -> Vec<Change> {
    let probes: BTreeSet<&String> = before.records.keys().chain(after.records.keys()).collect();
    let mut found: Vec<Change> =
        probes.into_iter().flat_map(|probe| of_probe(probe, before, after).unwrap_or_default()).collect();
    for change in &mut found {
        if before.behind.contains(&change.probe) != after.behind.contains(&change.probe) {
            change.kind = Kind::Unknown;
        }
    }
    // Cases of one kind stay in the probe's own order.
    found.sort_by(|one, other| (one.kind, &one.probe).cmp(&(other.kind, &other.probe)));
    found
}

/// The probes of which both sides have a record.
pub fn both<'a>(before: &'a Side, after: &'a Side) -> impl Iterator<Item = &'a str> {
    let probes = before.records.keys().map(String::as_str);
    probes.filter(|probe| before.seen(probe).is_some() && after.seen(probe).is_some())
}

/// The probes of which one side alone has a record, and nothing says what the other would give.
#[must_use]
pub fn one_sided(before: &Side, after: &Side) -> Vec<String> {
    let probes: BTreeSet<&String> = before.records.keys().chain(after.records.keys()).collect();
    let is_seen = |probe: &str| before.seen(probe).is_some() || after.seen(probe).is_some();
    let is_left = |probe: &&String| is_seen(probe) && of_probe(probe, before, after).is_none();
    probes.into_iter().filter(is_left).cloned().collect()
}

/// None where the probe cannot be compared.
fn of_probe(probe: &str, before: &Side, after: &Side) -> Option<Vec<Change>> {
    let change = |kind, before: String, after: String| Change {
        kind,
        probe: probe.to_owned(),
        case: String::new(),
        before,
        after,
        facts: Vec::new(),
    };
    // What is looked for in vain is on neither.
    let is_there = |normal: &Normal| !normal.cases.iter().all(|case| matches!(case.end, End::Absent { .. }));
    let (one, other) = match (before.seen(probe), after.seen(probe)) {
        (Some(one), Some(other)) => (one, other),
        (None, Some(other)) if before.brings_no(probe) => {
            let appeared = change(Kind::Appeared, "no probe".into(), "a probe".into());
            return Some(is_there(other).then_some(appeared).into_iter().collect());
        }
        (Some(one), None) if after.brings_no(probe) => {
            let gone = change(Kind::Disappeared, "a probe".into(), "no probe".into());
            return Some(is_there(one).then_some(gone).into_iter().collect());
        }
        _ => return None,
    };
    let mut found = Vec::new();
    if one.outcome != other.outcome || one.warnings != other.warnings {
        found.push(change(Kind::Outcome, ending(one), ending(other)));
    }
    found.extend(
        pairs(one, other).into_iter().filter_map(|(name, one, other)| of_case(probe, name, one, other)),
    );
    Some(found)
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

/// The answers to every case of either, in the first's order and then the second's.
fn pairs<'a>(before: &'a Normal, after: &'a Normal) -> Vec<(&'a str, Option<Said<'a>>, Option<Said<'a>>)> {
    let mut all: Vec<_> =
        Said::all(before).map(|(case, said)| (case, Some(said), Said::of(after, case))).collect();
    let further = Said::all(after).filter(|(case, _)| Said::of(before, case).is_none());
    all.extend(further.map(|(case, said)| (case, None, Some(said))));
    all
}

fn of_case(probe: &str, name: &str, before: Option<Said<'_>>, after: Option<Said<'_>>) -> Option<Change> {
    if before == after {
        return None;
    }
    let facts = match (before, after) {
        (Some(Said::Case(one)), Some(Said::Case(other))) => facts(one, other),
        _ => Vec::new(),
    };
    let words = |said: Option<Said<'_>>| said.map_or_else(|| NOT_ASKED.to_owned(), Said::words);
    Some(Change {
        kind: kind(before, after),
        probe: probe.to_owned(),
        case: name.to_owned(),
        before: words(before),
        after: words(after),
        facts,
    })
}

/// What is said of a kernel that was not asked a case.
pub const NOT_ASKED: &str = "not asked";

fn kind(before: Option<Said<'_>>, after: Option<Said<'_>>) -> Kind {
    let (one, other) = match (before, after) {
        (Some(Said::Case(one)), Some(Said::Case(other))) => (one, other),
        (Some(Said::Case(case)), Some(Said::Crash { .. }))
        | (Some(Said::Crash { .. }), Some(Said::Case(case))) => {
            let is_unknown = matches!(case.end, End::CouldNotTell { .. });
            return if is_unknown { Kind::Unknown } else { Kind::Outcome };
        }
        (Some(Said::Crash { .. }), Some(Said::Crash { .. })) => return Kind::Outcome,
        // A probe stops asking where something is absent, which another case of the same probe says.
        (None, _) | (_, None) => return Kind::Unknown,
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

fn facts(before: &NormalCase, after: &NormalCase) -> Vec<Fact> {
    let names: BTreeSet<&String> = before.seen.keys().chain(after.seen.keys()).collect();
    let mut found: Vec<Fact> = names
        .into_iter()
        .filter(|name| before.seen.get(*name) != after.seen.get(*name))
        .map(|name| Fact {
            name: name.clone(),
            before: before.seen.get(name).map(fact_text),
            after: after.seen.get(name).map(fact_text),
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

    fn side(probe: &str, cases: Vec<NormalCase>) -> Side {
        let normal = Normal { outcome: Outcome::Observed, cases, warnings: Vec::new() };
        Side { records: BTreeMap::from([(probe.to_owned(), normal)]), ..Side::default() }
    }

    fn records(cases: Vec<NormalCase>) -> Side {
        side("a/b", cases)
    }

    fn kinds(before: &Side, after: &Side) -> Vec<Kind> {
        changes(before, after).iter().map(|change| change.kind).collect()
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
        assert_eq!(kinds(&records(vec![case(before)]), &records(vec![case(after)])), [kind]);
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

    fn crashed(mut side: Side, during: &str) -> Side {
        for normal in side.records.values_mut() {
            normal.outcome = Outcome::Crashed { what: "BUG".into(), during: during.into() };
        }
        side
    }

    #[test]
    fn crashes_come_first() {
        let after = crashed(records(vec![case(refused("EINVAL"))]), "y: load");
        assert_eq!(
            kinds(&records(vec![case(End::Done)]), &after),
            [Kind::Outcome, Kind::NowRefused, Kind::Unknown]
        );
    }

    /// The case in which a kernel crashed was asked.
    #[rstest]
    #[case::done(End::Done, Kind::Outcome)]
    #[case::could_not_tell(unknown(), Kind::Unknown)]
    fn a_crash_is_an_answer_to_its_case(#[case] before: End, #[case] kind: Kind) {
        let after = crashed(records(Vec::new()), "x: trigger");
        let found = changes(&records(vec![case(before)]), &after);
        let of_case = found.iter().find(|change| change.case == "x").unwrap();
        assert_eq!((of_case.kind, of_case.after.as_str()), (kind, "crashed at trigger: BUG"));
        assert_eq!(changes(&after, &after), []);
    }

    #[test]
    fn a_probe_without_a_record_is_not_compared() {
        let one = records(vec![case(End::Done)]);
        let mut not_run = one.clone();
        not_run.records.get_mut("a/b").unwrap().outcome = Outcome::NotRun { why: "no boot".into() };
        for other in [Side::default(), not_run] {
            assert_eq!((changes(&one, &other), changes(&other, &one)), (Vec::new(), Vec::new()));
            assert_eq!(
                (one_sided(&one, &other), one_sided(&other, &one)),
                (vec!["a/b".to_owned()], vec!["a/b".to_owned()])
            );
        }
        assert_eq!(one_sided(&one, &one), Vec::<String>::new());
    }

    /// A probe that a kernel's BTF brings is none of a kernel without the function, if that was asked for all there are.
    #[rstest]
    #[case::there(End::Done, &[Kind::Appeared], &[Kind::Disappeared])]
    #[case::nowhere(absent(), &[], &[])]
    fn a_probe_that_kernels_bring_can_come_and_go(
        #[case] end: End,
        #[case] forth: &[Kind],
        #[case] back: &[Kind],
    ) {
        let with = side("hooks/brand_new", vec![case(end)]);
        let declared = DECLARED["hooks"].iter();
        let all = declared.map(|id| (id.clone(), with.records["hooks/brand_new"].clone())).collect();
        let without = Side { records: all, ..Side::default() };
        assert_eq!((kinds(&without, &with).as_slice(), kinds(&with, &without).as_slice()), (forth, back));
        let mut partly = without;
        partly.records.pop_last();
        assert_eq!(kinds(&partly, &with), []);
        assert!(one_sided(&partly, &with).contains(&"hooks/brand_new".to_owned()));
    }

    #[test]
    fn what_a_changed_probe_says_is_no_change_of_the_kernel() {
        let (plain, after) = (records(Vec::new()), crashed(records(Vec::new()), "c: load"));
        let behind = |side: &Side| Side { behind: BTreeSet::from(["a/b".to_owned()]), ..side.clone() };
        assert_eq!(kinds(&plain, &after), [Kind::Outcome, Kind::Unknown]);
        assert_eq!(kinds(&plain, &behind(&after)), [Kind::Unknown, Kind::Unknown]);
        assert_eq!(kinds(&behind(&plain), &behind(&after)), [Kind::Outcome, Kind::Unknown]);
    }
}
