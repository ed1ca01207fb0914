//! From a [`Record`] to its [`Normal`] form: the only place where volatile text is removed.
//!
//! A snapshot holds [`Normal`]s. What differs between two runs of the same kernel (addresses, ids handed out at
//! run time, process numbers, times) is replaced by named rules ([`rules`]); of a verifier log only the reason
//! stays ([`log`]). What a reader wants to know stays as the kernel said it: register numbers, type names,
//! function names, helper numbers, the errno. The record itself is kept unshortened in the run folder.

pub mod log;
pub mod rules;

use probes::record::{Case, End, Outcome, Phase, Record};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

use rules::{Scope, apply};

/// A record without its volatile parts: what a snapshot holds for one kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normal {
    /// How the probe ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The cases that ended, in the probe's order; names are unique.
    #[serde(default)]
    pub cases: Vec<NormalCase>,
    /// Kernel warnings while the probe ran, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Normal {
    /// The case of this name.
    #[must_use]
    pub fn case(&self, name: &str) -> Option<&NormalCase> {
        self.cases.iter().find(|case| case.name == name)
    }
}

/// A case without its volatile parts. Two are equal that a snapshot writes alike: the order of the facts is the probe's, and
/// facts in another order are another answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NormalCase {
    /// The case's name.
    pub name: String,
    /// The phase in which it ended.
    pub phase: Phase,
    /// How it ended.
    #[serde(flatten)]
    pub end: End,
    /// Whether the kernel accepted every program that the case loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<bool>,
    /// Whether a program ran on behalf of the trigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired: Option<bool>,
    /// Whether user space saw the denial that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<bool>,
    /// The verifier's last meaningful message, one to [`log::MAX_REASON_LINES`] lines; only of a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was observed.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub seen: Map<String, Value>,
}

impl PartialEq for NormalCase {
    fn eq(&self, other: &Self) -> bool {
        let Self { name, phase, end, accepted, fired, denied, reason, seen } = self;
        *name == other.name
            && *phase == other.phase
            && *end == other.end
            && *accepted == other.accepted
            && *fired == other.fired
            && *denied == other.denied
            && *reason == other.reason
            && facts_alike(seen, &other.seen)
    }
}

/// The maps' own equality knows no order.
fn facts_alike(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    let alike = |((name, one), (other_name, other))| name == other_name && fact_alike(one, other);
    one.len() == other.len() && one.iter().zip(other).all(alike)
}

fn fact_alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => facts_alike(one, other),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| fact_alike(one, other))
        }
        // 0 and -0 are one number and two texts.
        (Value::Number(one), Value::Number(other)) => one.to_string() == other.to_string(),
        (one, other) => one == other,
    }
}

/// The normal form of a record.
#[must_use]
pub fn normalize(record: &Record) -> Normal {
    let mut names = BTreeSet::new();
    let mut numbers = BTreeMap::new();
    let cases = record
        .cases
        .iter()
        .map(|case| {
            let mut normal = normalize_case(case);
            normal.name = unique_name(&names, &mut numbers, normal.name);
            names.insert(normal.name.clone());
            normal
        })
        .collect();
    Normal {
        outcome: normalize_outcome(&record.outcome),
        cases,
        warnings: normalize_warnings(&record.warnings),
    }
}

/// The normal form of a case.
#[must_use]
pub fn normalize_case(case: &Case) -> NormalCase {
    NormalCase {
        name: case.name.clone(),
        phase: case.phase,
        end: normalize_end(&case.end),
        accepted: case.accepted,
        fired: case.fired,
        denied: case.denied,
        reason: reason_of(case),
        seen: case.seen.iter().map(|(name, value)| (name.clone(), normalize_fact(value))).collect(),
    }
}

/// The log explains a refusal of the call that wrote it. A refusal in a later phase may stand beside the log of
/// an accepted program (in a detailed run), which is no reason for anything.
fn reason_of(case: &Case) -> Option<String> {
    match (&case.end, case.phase) {
        (End::Refused { .. }, Phase::Open | Phase::Load) => log::reason(&case.log),
        (End::Refused { .. }, Phase::Attach | Phase::Trigger | Phase::Read)
        | (End::Done | End::Absent { .. } | End::CouldNotTell { .. }, _) => None,
    }
}

fn normalize_end(end: &End) -> End {
    match end {
        End::Done => End::Done,
        End::Refused { errno } => End::Refused { errno: normalize_errno(errno) },
        End::Absent { what } => End::Absent { what: apply(Scope::Message, what) },
        End::CouldNotTell { why } => End::CouldNotTell { why: apply(Scope::Message, why) },
    }
}

/// An errno is one word in a snapshot; a guest that sends something else must not break the file.
fn normalize_errno(errno: &str) -> String {
    if errno.is_empty() {
        return "?".to_owned();
    }
    errno.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '?' }).collect()
}

fn normalize_outcome(outcome: &Outcome) -> Outcome {
    match outcome {
        Outcome::Observed => Outcome::Observed,
        Outcome::CouldNotTell { why } => Outcome::CouldNotTell { why: apply(Scope::Message, why) },
        Outcome::Crashed { what, during } => {
            Outcome::Crashed { what: apply(Scope::Message, what), during: during.clone() }
        }
        Outcome::Hung { during } => Outcome::Hung { during: during.clone() },
        Outcome::NotRun { why } => Outcome::NotRun { why: apply(Scope::Message, why) },
    }
}

/// How often a warning repeats depends on how fast the machine is, so each stands once.
fn normalize_warnings(warnings: &[String]) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for warning in warnings.iter().map(|warning| apply(Scope::Message, warning)) {
        if !warning.is_empty() && !kept.contains(&warning) {
            kept.push(warning);
        }
    }
    kept
}

fn normalize_fact(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(apply(Scope::Fact, text)),
        Value::Array(items) => Value::Array(items.iter().map(normalize_fact).collect()),
        Value::Object(fields) if refusal(fields).is_some() => refusal(fields).unwrap_or_default().into(),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), normalize_fact(value))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// A refusal that is one of several facts of a case (`Attempt::answer`): errno and log become one text, `EINVAL: reason`.
fn refusal(fields: &Map<String, Value>) -> Option<String> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let (errno, log) = (text("errno")?, text("log")?);
    let errno = normalize_errno(errno);
    (fields.len() == 2)
        .then(|| log::reason(log).map_or_else(|| errno.clone(), |why| format!("{errno}: {why}")))
}

/// Case names are unique by contract; a guest that breaks it must not make a snapshot ambiguous.
/// `numbers` holds the number that each name had last, so that a thousand of one name are not a million attempts.
fn unique_name(taken: &BTreeSet<String>, numbers: &mut BTreeMap<String, u32>, name: String) -> String {
    if !taken.contains(&name) {
        return name;
    }
    let number = numbers.entry(name.clone()).or_insert(1);
    loop {
        *number += 1;
        let candidate = format!("{name} #{number}");
        if !taken.contains(&candidate) {
            return candidate;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn case(phase: Phase, end: End, log: &str) -> Case {
        Case {
            name: "one".to_owned(),
            phase,
            end,
            accepted: Some(false),
            fired: None,
            denied: None,
            seen: Map::new(),
            log: log.to_owned(),
            programs: Vec::new(),
            micros: 0,
        }
    }

    fn refused() -> End {
        End::Refused { errno: "EACCES".to_owned() }
    }

    /// As a snapshot writes them; 0 and -0 are one number.
    #[rstest]
    #[case::alike(json!({"p": 1, "q": [{"r": 1, "s": 0.0}]}), true)]
    #[case::facts(json!({"q": [{"r": 1, "s": 0.0}], "p": 1}), false)]
    #[case::within_a_fact(json!({"p": 1, "q": [{"s": 0.0, "r": 1}]}), false)]
    #[case::one_more(json!({"p": 1, "q": [{"r": 1, "s": 0.0}], "t": 1}), false)]
    #[case::text(json!({"p": 1, "q": [{"r": 1, "s": -0.0}]}), false)]
    fn the_order_of_facts_is_part_of_a_case(#[case] facts: Value, #[case] equal: bool) {
        let with = |facts: Value| {
            let seen = facts.as_object().unwrap().clone();
            normalize_case(&Case { seen, ..case(Phase::Read, End::Done, "") })
        };
        let one = with(json!({"p": 1, "q": [{"r": 1, "s": 0.0}]}));
        assert_eq!(one == with(facts), equal);
    }

    const LOG: &str = "0: (95) exit\nR0 !read_ok\nprocessed 1 insns (limit 1000000) max_states_per_insn 0\n";

    #[rstest]
    #[case::refused_by_the_verifier(Phase::Load, refused(), Some("R0 !read_ok"))]
    #[case::refused_later(Phase::Attach, refused(), None)]
    #[case::accepted_in_a_detailed_run(Phase::Trigger, End::Done, None)]
    fn only_a_refusal_has_a_reason(#[case] phase: Phase, #[case] end: End, #[case] reason: Option<&str>) {
        assert_eq!(normalize_case(&case(phase, end, LOG)).reason.as_deref(), reason);
    }

    #[test]
    fn an_empty_log_gives_no_reason() {
        assert_eq!(normalize_case(&case(Phase::Load, refused(), "")).reason, None);
    }

    #[test]
    fn facts_lose_pointers_at_any_depth() {
        let mut given = case(Phase::Read, End::Done, "");
        given.seen.insert("file".to_owned(), json!({"at": ["0xffff888003a1b2c0", 7, null]}));
        assert_eq!(normalize_case(&given).seen["file"], json!({"at": ["<ptr>", 7, null]}));
    }

    #[rstest]
    #[case(json!({"errno": "EACCES", "log": LOG}), json!("EACCES: R0 !read_ok"))]
    #[case(json!({"errno": "EACCES", "log": ""}), json!("EACCES"))]
    #[case(json!({"errno": "EACCES", "log": LOG, "more": 1}), json!({"errno": "EACCES", "log": LOG.trim_end(), "more": 1}))]
    fn a_refusal_among_facts_is_shortened(#[case] given: Value, #[case] expected: Value) {
        assert_eq!(normalize_fact(&given), expected);
    }

    #[test]
    fn warnings_stand_once_and_without_volatile_text() {
        let mut record = Record::not_run("a/b", "none");
        record.outcome = Outcome::Observed;
        record.warnings = vec![
            "[    1.234567] WARNING: CPU: 0 PID: 71 at kernel/bpf/verifier.c:123 f+0x1a/0x30".to_owned(),
            "[    2.5] WARNING: CPU: 1 PID: 72 at kernel/bpf/verifier.c:123 f+0x1a/0x30".to_owned(),
        ];
        assert_eq!(
            normalize(&record).warnings,
            ["WARNING: CPU: <cpu> PID: <pid> at kernel/bpf/verifier.c:<line> f+<off>"]
        );
    }

    #[test]
    fn repeated_case_names_are_told_apart() {
        let mut record = Record::not_run("a/b", "none");
        record.cases = vec![case(Phase::Read, End::Done, ""); 3];
        let names: Vec<_> = normalize(&record).cases.into_iter().map(|case| case.name).collect();
        assert_eq!(names, ["one", "one #2", "one #3"]);
    }

    #[rstest]
    #[case("EPERM", "EPERM")]
    #[case("", "?")]
    #[case("E, x", "E??x")]
    fn errnos_are_one_word(#[case] given: &str, #[case] expected: &str) {
        assert_eq!(normalize_errno(given), expected);
    }
}
