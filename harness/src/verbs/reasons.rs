//! `conform list --reasons`: from what a kernel said to the rule behind it. An index, made of the snapshots alone.
//!
//! The JSON is an object with the fields of [`Index`]; nothing boots.

use super::project::{Project, glob_set, probe_globs};
use crate::cli::{AnswerFormat, ListOptions};
use crate::exit::{self, Failure};
use crate::report::counted;
use crate::snapshot::{Snapshot, kernel_phrase};
use probes::record::{End, Phase};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Version of the JSON.
const SCHEMA: u32 = 1;

/// The index.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Index {
    /// [`SCHEMA`].
    schema: u32,
    /// Every refusal that a snapshot holds, in the order of message, errno and phase.
    reasons: Vec<Reason>,
}

/// One thing that kernels say.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Reason {
    /// The verifier's message as the snapshots have it, without addresses, ids and other text that changes; null for
    /// a refusal without one.
    message: Option<String>,
    /// The errno, such as `EINVAL`.
    errno: String,
    /// The phase of the refusal: `open`, `load`, `attach`, `trigger` or `read`.
    phase: Phase,
    /// Where it was said, by probe and case.
    rules: Vec<Rule>,
}

/// A case that met it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Rule {
    /// The probe's id.
    probe: String,
    /// The probe's question.
    question: String,
    /// The case.
    case: String,
    /// The kernels that said it, in the snapshot's order.
    kernels: Vec<String>,
    /// The same as a phrase over the snapshot's kernels, or those that are asked for, such as `from 6.12`.
    #[serde(rename = "range")]
    phrase: String,
}

/// Prints the index of the probes that are selected.
pub(super) fn reasons(project: &Project, options: &ListOptions) -> Result<u8, Failure> {
    let mut globs = options.probes.clone();
    globs.extend(options.family.iter().cloned());
    let set = glob_set(&probe_globs(&globs, &project.dynamic_ids()?)?)?;
    let (kernels, snapshots) = project.measured_of(&options.kernels)?;
    let selected = snapshots.values().filter(|snapshot| globs.is_empty() || set.is_match(&snapshot.probe));
    let index = match options.kernels.is_empty() {
        true => index(selected),
        false => index(selected.map(|snapshot| snapshot.of_kernels(&kernels)).collect::<Vec<_>>().iter()),
    };
    match options.format {
        AnswerFormat::Table => super::print(&in_words(&index)),
        AnswerFormat::Json => {
            let text = serde_json::to_string_pretty(&index);
            super::print(&text.map_err(|error| Failure::new(exit::INFRASTRUCTURE, error))?);
        }
    }
    Ok(if index.reasons.is_empty() { exit::NOTHING_SELECTED } else { exit::OK })
}

/// What orders the index: refusals with a message first.
type Key = (bool, Option<String>, String, Phase);

fn index<'a>(snapshots: impl Iterator<Item = &'a Snapshot>) -> Index {
    let mut found: BTreeMap<Key, Vec<Rule>> = BTreeMap::new();
    for snapshot in snapshots {
        for (key, case, places) in refusals(snapshot) {
            found.entry(key).or_default().push(rule(snapshot, &case, &places));
        }
    }
    let reasons = found
        .into_iter()
        .map(|((_, message, errno, phase), rules)| Reason { message, errno, phase, rules })
        .collect();
    Index { schema: SCHEMA, reasons }
}

/// The refusals of a snapshot: what was said, in which case, by the kernels in which places.
fn refusals(snapshot: &Snapshot) -> Vec<(Key, String, Vec<usize>)> {
    let mut found: Vec<(Key, String, Vec<usize>)> = Vec::new();
    for (place, (_, normal)) in snapshot.observed.iter().enumerate() {
        for case in &normal.cases {
            let errno = match &case.end {
                End::Refused { errno } => errno.clone(),
                End::Done | End::Absent { .. } | End::CouldNotTell { .. } => continue,
            };
            let key = (case.reason.is_none(), case.reason.clone(), errno, case.phase);
            match found.iter_mut().find(|(known, name, _)| *known == key && *name == case.name) {
                Some((_, _, places)) => places.push(place),
                None => found.push((key, case.name.clone(), vec![place])),
            }
        }
    }
    found
}

fn rule(snapshot: &Snapshot, case: &str, places: &[usize]) -> Rule {
    let all: Vec<String> = snapshot.kernels().map(str::to_owned).collect();
    Rule {
        probe: snapshot.probe.clone(),
        question: snapshot.question.clone(),
        case: case.to_owned(),
        kernels: places.iter().filter_map(|&place| all.get(place).cloned()).collect(),
        phrase: kernel_phrase(&all, places),
    }
}

fn in_words(index: &Index) -> String {
    let mut text = String::new();
    for reason in &index.reasons {
        let message = reason.message.as_deref().unwrap_or("no message");
        let _ = writeln!(text, "{message}\n  {} at {}", reason.errno, reason.phase.name());
        for rule in &reason.rules {
            let _ = writeln!(text, "    {} / {}: {}", rule.probe, rule.case, rule.phrase);
        }
        text.push('\n');
    }
    let _ = writeln!(text, "{}", counted(index.reasons.len(), "reason"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::made_up::{done, refused, snapshot};

    fn sample() -> Snapshot {
        let cases = |reason: &str| vec![refused("wrong", reason), done("right")];
        let kernels = [("5.10", "old words"), ("6.1", "new words"), ("6.12", "new words")];
        snapshot("a/b", kernels.map(|(kernel, reason)| (kernel, cases(reason))).into())
    }

    #[test]
    fn a_message_leads_to_probe_case_and_kernels() {
        let index = index([sample()].iter());
        let messages: Vec<_> = index.reasons.iter().map(|reason| reason.message.as_deref()).collect();
        assert_eq!(messages, [Some("new words"), Some("old words")]);
        let rule = &index.reasons[0].rules[0];
        assert_eq!(
            (rule.probe.as_str(), rule.case.as_str(), rule.phrase.as_str()),
            ("a/b", "wrong", "from 6.1")
        );
        assert_eq!(rule.kernels, ["6.1", "6.12"]);
        assert_eq!(index.reasons[1].rules[0].phrase, "only 5.10");
    }

    #[test]
    fn of_some_kernels_alone() {
        let index = index([sample().of_kernels(&["6.1".to_owned()])].iter());
        assert_eq!(index.reasons.len(), 1);
        assert_eq!(index.reasons[0].rules[0].kernels, ["6.1"]);
        assert!(in_words(&index).ends_with("\n1 reason\n"));
    }

    #[test]
    fn a_refusal_without_a_message_stands_under_its_errno_after_the_others() {
        let mut snapshot = sample();
        snapshot.observed[2].1.cases[0].reason = None;
        let index = index([snapshot].iter());
        let last = index.reasons.last().unwrap();
        assert_eq!((last.message.as_deref(), last.errno.as_str(), last.phase), (None, "EINVAL", Phase::Load));
        assert!(in_words(&index).contains("no message\n  EINVAL at load\n    a/b / wrong: from 6.12"));
    }

    #[test]
    fn the_json_is_read_back_under_its_documented_names() {
        let index = index([sample()].iter());
        let text = serde_json::to_string(&index).unwrap();
        for name in [
            "schema", "reasons", "message", "errno", "phase", "rules", "probe", "question", "case",
            "kernels", "range",
        ] {
            assert!(text.contains(&format!("\"{name}\":")), "{name}: {text}");
        }
        assert_eq!(serde_json::from_str::<Index>(&text).unwrap(), index);
    }
}
