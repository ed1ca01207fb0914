//! One block of a snapshot: how a case or a probe ended, as YAML.
//!
//! The common part is one line, `done at trigger, accepted, fired, not denied`; what needs more (a reason, facts)
//! becomes a mapping with that line as `result`. Writing and reading are inverse.

use crate::normalize::NormalCase;
use probes::record::{End, Outcome, Phase};
use serde::Deserialize;
use serde_json::Map;
use serde_yaml::{Mapping, Value};

/// A case without its name.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFields {
    result: String,
    what: Option<String>,
    why: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    seen: Map<String, serde_json::Value>,
}

/// A probe's outcome and the kernel's warnings.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutcomeFields {
    outcome: String,
    why: Option<String>,
    what: Option<String>,
    during: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
}

/// How one case ended on some kernels, as it stands in the file.
pub(super) fn case_value(case: &NormalCase) -> Result<Value, serde_yaml::Error> {
    let mut fields = Mapping::new();
    put(&mut fields, "result", result_line(case));
    match &case.end {
        End::Done | End::Refused { .. } => {}
        End::Absent { what } => put(&mut fields, "what", what.clone()),
        End::CouldNotTell { why } => put(&mut fields, "why", why.clone()),
    }
    if let Some(reason) = &case.reason {
        put(&mut fields, "reason", reason.clone());
    }
    if !case.seen.is_empty() {
        fields.insert("seen".into(), serde_yaml::to_value(&case.seen)?);
    }
    Ok(shortest(fields, "result"))
}

/// The case of this name that a block describes.
pub(super) fn case_from(name: &str, value: &Value) -> Result<NormalCase, String> {
    let fields = match value.as_str() {
        Some(line) => CaseFields { result: line.to_owned(), ..CaseFields::default() },
        None => serde_yaml::from_value(value.clone()).map_err(|problem| problem.to_string())?,
    };
    let mut words = fields.result.split(", ");
    let (end, phase) = end_from(words.next().unwrap_or_default(), fields.what, fields.why)?;
    let mut case = NormalCase {
        name: name.to_owned(),
        accepted: implied_acceptance(&end, phase),
        phase,
        end,
        fired: None,
        denied: None,
        reason: fields.reason,
        seen: fields.seen,
    };
    for word in words {
        set_flag(&mut case, word)?;
    }
    Ok(case)
}

/// A load that was refused was not accepted; saying so on every such line would only be noise.
fn implied_acceptance(end: &End, phase: Phase) -> Option<bool> {
    match end {
        End::Refused { .. } if phase == Phase::Load => Some(false),
        End::Refused { .. } | End::Done | End::Absent { .. } | End::CouldNotTell { .. } => None,
    }
}

pub(crate) fn result_line(case: &NormalCase) -> String {
    let phase = case.phase.name();
    let mut line = match &case.end {
        End::Done => format!("done at {phase}"),
        End::Refused { errno } => format!("refused at {phase} with {errno}"),
        End::Absent { .. } => format!("absent at {phase}"),
        End::CouldNotTell { .. } => format!("could not tell at {phase}"),
    };
    if case.accepted != implied_acceptance(&case.end, case.phase) {
        line += match case.accepted {
            Some(true) => ", accepted",
            Some(false) => ", not accepted",
            None => ", nothing loaded",
        };
    }
    line += flag(case.fired, ", fired", ", not fired");
    line += flag(case.denied, ", denied", ", not denied");
    line
}

fn flag(flag: Option<bool>, yes: &'static str, no: &'static str) -> &'static str {
    match flag {
        Some(true) => yes,
        Some(false) => no,
        None => "",
    }
}

fn set_flag(case: &mut NormalCase, word: &str) -> Result<(), String> {
    match word {
        "accepted" => case.accepted = Some(true),
        "not accepted" => case.accepted = Some(false),
        "nothing loaded" => case.accepted = None,
        "fired" => case.fired = Some(true),
        "not fired" => case.fired = Some(false),
        "denied" => case.denied = Some(true),
        "not denied" => case.denied = Some(false),
        other => return Err(format!("{other:?} says nothing of a case (accepted, fired, denied, not ...)")),
    }
    Ok(())
}

fn end_from(text: &str, what: Option<String>, why: Option<String>) -> Result<(End, Phase), String> {
    let unknown =
        || format!("{text:?} is no ending of a case (done, refused, absent, could not tell at a phase)");
    let (kind, rest) = text.split_once(" at ").ok_or_else(unknown)?;
    let (phase, errno) = match rest.split_once(" with ") {
        Some((phase, errno)) => (phase, Some(errno)),
        None => (rest, None),
    };
    let end = match (kind, errno) {
        ("done", None) => End::Done,
        // Whether there is such an errno is not asked: what was recorded must be read back, and a guest sends it as text.
        ("refused", Some(errno)) => End::Refused { errno: errno.to_owned() },
        ("absent", None) => End::Absent { what: what.unwrap_or_default() },
        ("could not tell", None) => End::CouldNotTell { why: why.unwrap_or_default() },
        _ => return Err(unknown()),
    };
    Ok((end, phase_from(phase)?))
}

fn phase_from(name: &str) -> Result<Phase, String> {
    [Phase::Open, Phase::Load, Phase::Attach, Phase::Trigger, Phase::Read]
        .into_iter()
        .find(|phase| phase.name() == name)
        .ok_or_else(|| format!("{name:?} is no phase (open, load, attach, trigger, read)"))
}

/// How the probe ended on some kernels, with the warnings, as it stands in the file.
pub(super) fn outcome_value(outcome: &Outcome, warnings: &[String]) -> Value {
    let mut fields = Mapping::new();
    put(&mut fields, "outcome", outcome.name().to_owned());
    match outcome {
        Outcome::Observed => {}
        Outcome::CouldNotTell { why } | Outcome::NotRun { why } => put(&mut fields, "why", why.clone()),
        Outcome::Crashed { what, during } => {
            put(&mut fields, "what", what.clone());
            put(&mut fields, "during", during.clone());
        }
        Outcome::Hung { during } => put(&mut fields, "during", during.clone()),
    }
    if !warnings.is_empty() {
        fields.insert("warnings".into(), warnings.iter().map(String::as_str).collect::<Value>());
    }
    shortest(fields, "outcome")
}

/// The outcome and the warnings that a block describes.
pub(super) fn outcome_from(value: &Value) -> Result<(Outcome, Vec<String>), String> {
    let fields = match value.as_str() {
        Some(name) => OutcomeFields { outcome: name.to_owned(), ..OutcomeFields::default() },
        None => serde_yaml::from_value(value.clone()).map_err(|problem| problem.to_string())?,
    };
    let (why, what) = (fields.why.unwrap_or_default(), fields.what.unwrap_or_default());
    let during = fields.during.unwrap_or_default();
    let outcome = match fields.outcome.as_str() {
        "observed" => Outcome::Observed,
        "could-not-tell" => Outcome::CouldNotTell { why },
        "crashed" => Outcome::Crashed { what, during },
        "hung" => Outcome::Hung { during },
        "not-run" => return Err("a snapshot holds what was seen, so no kernel in it is not-run".to_owned()),
        other => return Err(format!("{other:?} is no outcome (observed, could-not-tell, crashed, hung)")),
    };
    Ok((outcome, fields.warnings))
}

fn put(fields: &mut Mapping, name: &str, text: String) {
    fields.insert(name.into(), text.into());
}

/// A mapping that has nothing but its main field is written as that field's text.
fn shortest(mut fields: Mapping, main: &str) -> Value {
    if fields.len() > 1 {
        return Value::Mapping(fields);
    }
    fields.remove(main).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::made_up::{done, refused};
    use rstest::rstest;
    use serde_json::json;

    fn with_seen() -> NormalCase {
        let mut case = done("x");
        case.seen =
            json!({"errno": "EPERM", "number": "6.1", "big": u64::MAX, "list": [1, -1, 0.5, null, true]})
                .as_object()
                .unwrap()
                .clone();
        case
    }

    #[rstest]
    #[case(done("x"), "done at trigger, accepted, fired")]
    #[case(NormalCase { denied: Some(false), fired: Some(false), ..done("x") }, "done at trigger, accepted, not fired, not denied")]
    #[case(NormalCase { reason: None, ..refused("x", "") }, "refused at load with EINVAL")]
    #[case(NormalCase { reason: None, accepted: None, ..refused("x", "") }, "refused at load with EINVAL, nothing loaded")]
    #[case(NormalCase { phase: Phase::Open, reason: None, accepted: None, ..refused("x", "") }, "refused at open with EINVAL")]
    fn one_line(#[case] case: NormalCase, #[case] line: &str) {
        assert_eq!(case_value(&case).unwrap(), Value::from(line));
        assert_eq!(case_from("x", &Value::from(line)).unwrap(), case);
    }

    #[rstest]
    #[case(refused("x", "R0 !read_ok\nmore: of it"))]
    #[case(refused("x", ""))]
    #[case(NormalCase { end: End::Absent { what: "kfunc bpf_foo".into() }, ..done("x") })]
    #[case(NormalCase { end: End::CouldNotTell { why: "a, b: \"c\"".into() }, ..done("x") })]
    #[case(NormalCase { end: End::CouldNotTell { why: String::new() }, accepted: Some(false), ..done("x") })]
    #[case(with_seen())]
    fn cases_are_read_back(#[case] case: NormalCase) {
        let text = serde_yaml::to_string(&case_value(&case).unwrap()).unwrap();
        assert_eq!(case_from("x", &serde_yaml::from_str(&text).unwrap()).unwrap(), case, "{text}");
    }

    #[rstest]
    #[case(Outcome::Observed, vec![])]
    #[case(Outcome::Observed, vec!["WARNING: x".to_owned(), "- y: z".to_owned()])]
    #[case(Outcome::CouldNotTell { why: "no".into() }, vec![])]
    #[case(Outcome::Crashed { what: "BUG".into(), during: "a: load".into() }, vec![])]
    #[case(Outcome::Hung { during: String::new() }, vec![])]
    fn outcomes_are_read_back(#[case] outcome: Outcome, #[case] warnings: Vec<String>) {
        let text = serde_yaml::to_string(&outcome_value(&outcome, &warnings)).unwrap();
        assert_eq!(
            outcome_from(&serde_yaml::from_str(&text).unwrap()).unwrap(),
            (outcome, warnings),
            "{text}"
        );
    }

    #[rstest]
    #[case("finished at load", "no ending")]
    #[case("done at night", "no phase")]
    #[case("refused at load", "no ending")]
    #[case("done at read, tired", "says nothing")]
    #[case("{result: done at read, colour: red}", "colour")]
    fn nonsense_is_refused(#[case] yaml: &str, #[case] says: &str) {
        let problem = case_from("x", &serde_yaml::from_str(yaml).unwrap()).unwrap_err();
        assert!(problem.contains(says), "{problem}");
    }

    #[test]
    fn no_kernel_of_a_snapshot_is_not_run() {
        assert!(outcome_from(&Value::from("not-run")).unwrap_err().contains("what was seen"));
    }
}
