//! The text of a snapshot: writing it deterministically, and reading it back.
//!
//! ```yaml
//! probe: rules/return-value
//! question: Which return values may a program on file_open have?
//! kernels: 5.10 6.1 6.6 6.12 7.3
//! measured before the probe changed: 6.6
//!
//! outcome:
//!   all: observed
//!
//! cases:
//!   zero:
//!     all: done at trigger, accepted, fired
//!   one:
//!     until 6.6: done at trigger, accepted, fired, denied
//!     from 6.12:
//!       result: refused at load with EINVAL
//!       reason: At program exit the register R0 has smin=1 smax=1 should have been in [-4095, 0]
//! ```
//!
//! `kernels` lists the kernels that were run, in matrix order; a phrase such as `until 6.6` means kernels of that
//! list. Blocks are grouped per case, so that a kernel that differs in one case of thirty shows in one place. The next line
//! is there where some kernels have not been asked since the probe was changed: what sets them apart may be the probe.

use super::{Snapshot, SnapshotError, alike, block, kernels};
use crate::normalize::Normal;
use crate::text;
use probes::record::CASES_MAX;
use serde::Deserialize;
use serde_yaml::{Mapping, Value};
use std::collections::BTreeSet;
use std::path::Path;

/// The front matter's `source`, as insta names the file of the assertion.
pub const SOURCE: &str = "harness/src/snapshot/assert.rs";

/// The key of [`Snapshot::behind`].
const BEHIND: &str = "measured before the probe changed";

/// The most kernels that a file may name; they are looked up one by one.
const KERNELS_MAX: usize = 1000;

/// A body as YAML holds it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    probe: String,
    question: String,
    kernels: String,
    #[serde(rename = "measured before the probe changed", default)]
    behind: String,
    outcome: Mapping,
    #[serde(default)]
    cases: Mapping,
}

/// The whole file: front matter and body.
///
/// # Errors
/// [`SnapshotError::BadKernel`] for a name that cannot stand in a phrase, [`SnapshotError::Yaml`] when the body
/// cannot be written.
pub fn render(snapshot: &Snapshot) -> Result<String, SnapshotError> {
    Ok(format!("{}{}", front_matter(&snapshot.probe), render_body(snapshot)?))
}

/// The front matter as insta writes it.
fn front_matter(probe: &str) -> String {
    format!("---\nsource: {SOURCE}\ndescription: {probe}\n---\n")
}

/// The body alone: what insta compares.
///
/// # Errors
/// As [`render`].
pub fn render_body(snapshot: &Snapshot) -> Result<String, SnapshotError> {
    let names: Vec<String> = snapshot.kernels().map(str::to_owned).collect();
    if let Some(name) = names.iter().find(|name| !kernels::is_name(name)) {
        return Err(SnapshotError::BadKernel { name: name.clone() });
    }
    let yaml = |source| SnapshotError::Yaml { probe: snapshot.probe.clone(), source };
    let mut body = Mapping::new();
    body.insert("probe".into(), snapshot.probe.as_str().into());
    body.insert("question".into(), snapshot.question.as_str().into());
    body.insert("kernels".into(), names.join(" ").into());
    let behind: Vec<&str> = snapshot.kernels_behind().collect();
    if !behind.is_empty() {
        body.insert(BEHIND.into(), behind.join(" ").into());
    }
    body.insert("outcome".into(), Value::Mapping(outcome_blocks(snapshot, &names)));
    let mut cases = Mapping::new();
    for case in &snapshot.order {
        cases
            .insert(case.as_str().into(), Value::Mapping(case_blocks(snapshot, &names, case).map_err(yaml)?));
    }
    if !cases.is_empty() {
        body.insert("cases".into(), Value::Mapping(cases));
    }
    let text = serde_yaml::to_string(&body).map_err(yaml)?;
    Ok(with_paragraphs(&text))
}

/// Only a key of the body stands at the margin, so these lines are no part of a text inside it.
fn with_paragraphs(text: &str) -> String {
    text.replacen("\noutcome:\n", "\n\noutcome:\n", 1).replacen("\ncases:\n", "\n\ncases:\n", 1)
}

fn outcome_blocks(snapshot: &Snapshot, names: &[String]) -> Mapping {
    let outcomes =
        snapshot.observed.iter().map(|(_, normal)| Some((&normal.outcome, normal.warnings.as_slice())));
    let block = |((outcome, warnings), places): (_, Vec<usize>)| {
        (kernels::phrase(names, &places).into(), block::outcome_value(outcome, warnings))
    };
    alike(outcomes).into_iter().map(block).collect()
}

/// Equal cases stand together, not equal blocks: YAML's own equality knows no order of facts.
fn case_blocks(snapshot: &Snapshot, names: &[String], case: &str) -> Result<Mapping, serde_yaml::Error> {
    let cases = snapshot.observed.iter().map(|(_, normal)| normal.case(case));
    let block = |(found, places): (_, Vec<usize>)| {
        Ok((kernels::phrase(names, &places).into(), block::case_value(found)?))
    };
    alike(cases).into_iter().map(block).collect()
}

/// Reads a snapshot file's text; `path` is named in errors.
///
/// # Errors
/// [`SnapshotError::Parse`] with the line that is wrong.
pub fn parse(path: &Path, text: &str) -> Result<Snapshot, SnapshotError> {
    Reader::new(path, text).read()
}

struct Reader<'a> {
    path: &'a Path,
    /// What follows the front matter.
    body: &'a str,
    /// Its lines.
    lines: Vec<&'a str>,
    /// Lines of the front matter.
    offset: usize,
}

impl<'a> Reader<'a> {
    fn new(path: &'a Path, text: &'a str) -> Self {
        let front = text
            .strip_prefix("---\n")
            .and_then(|rest| rest.find("\n---\n").map(|at| at + "---\n\n---\n".len()));
        let (head, body) = text.split_at(front.unwrap_or(0));
        Self { path, body, lines: body.lines().collect(), offset: head.lines().count() }
    }

    fn read(&self) -> Result<Snapshot, SnapshotError> {
        if self.offset == 0 {
            let problem = if self.body.starts_with("---\r\n") {
                "its lines end with CR LF; write them with LF alone (git config core.autocrlf input)"
            } else {
                "no front matter: a snapshot begins with `---`, `source: ...`, `---`"
            };
            return Err(self.error(0, problem));
        }
        if let Some(line) = text::unmerged(self.body) {
            return Err(self.error(line, text::UNMERGED));
        }
        // With as many empty lines before it, the reader counts the file's lines, not the body's.
        let padded = "\n".repeat(self.offset) + self.body;
        let body: Body = serde_yaml::from_str(&padded).map_err(|problem| {
            let line = problem.location().map_or(0, |location| location.line().saturating_sub(self.offset));
            self.error(line, &problem.to_string())
        })?;
        let names: Vec<String> = body.kernels.split_whitespace().map(str::to_owned).collect();
        if names.len() > KERNELS_MAX || body.cases.len() > CASES_MAX {
            let limits = format!("at most {KERNELS_MAX} kernels and {CASES_MAX} cases");
            return Err(self.error(self.line_of("kernels", 0) + 1, &format!("a snapshot holds {limits}")));
        }
        if let Some(name) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            let problem = format!("{:?} is there twice", name.1);
            return Err(self.error(self.line_of("kernels", 0) + 1, &problem));
        }
        let behind = self.behind(&body.behind, &names)?;
        let mut outcomes: Vec<Option<Normal>> = vec![None; names.len()];
        let outcome = |value: &Value| {
            let (outcome, warnings) = block::outcome_from(value)?;
            Ok(Normal { outcome, warnings, cases: Vec::new() })
        };
        self.each(&names, &body.outcome, self.line_of("outcome", 0), outcome, |place, normal| {
            outcomes[place].replace(normal).map_or(Ok(()), |_| Err(twice(&names[place])))
        })?;
        let mut observed: Vec<(String, Normal)> = Vec::new();
        for (name, normal) in names.iter().zip(outcomes) {
            let missing = || self.error(self.line_of("kernels", 0) + 1, &format!("{name:?} has no outcome"));
            observed.push((name.clone(), normal.ok_or_else(missing)?));
        }
        let order = self.read_cases(&names, &body.cases, &mut observed)?;
        Ok(Snapshot { probe: body.probe, question: body.question, observed, order, behind })
    }

    fn behind(&self, text: &str, names: &[String]) -> Result<BTreeSet<String>, SnapshotError> {
        let behind: BTreeSet<String> = text.split_whitespace().map(str::to_owned).collect();
        match behind.iter().find(|name| !names.contains(name)) {
            Some(name) => {
                let problem = format!("{name:?} is not one of the kernels");
                Err(self.error(self.line_of(BEHIND, 0) + 1, &problem))
            }
            None => Ok(behind),
        }
    }

    fn read_cases(
        &self,
        names: &[String],
        cases: &Mapping,
        observed: &mut [(String, Normal)],
    ) -> Result<Vec<String>, SnapshotError> {
        let mut order = Vec::new();
        let mut line = self.line_of("cases", 0);
        for (case, blocks) in cases {
            let case =
                case.as_str().ok_or_else(|| self.error(line + 1, "the name of a case is not a string"))?;
            line = self.line_of(case, line + 1);
            let Value::Mapping(blocks) = blocks else {
                return Err(self.error(line + 1, &format!("case {case:?} has no blocks per kernels")));
            };
            let read = |value: &Value| block::case_from(case, value);
            self.each(names, blocks, line, read, |place, found| {
                let (kernel, normal) = &mut observed[place];
                if normal.cases.iter().any(|known| known.name == case) {
                    return Err(twice(kernel));
                }
                normal.cases.push(found);
                Ok(())
            })?;
            order.push(case.to_owned());
        }
        Ok(order)
    }

    /// Reads each block once, and calls `take` with it for each of its kernels; `line` is the index of the line that the
    /// blocks stand below.
    fn each<T: Clone>(
        &self,
        names: &[String],
        blocks: &Mapping,
        line: usize,
        read: impl Fn(&Value) -> Result<T, String>,
        mut take: impl FnMut(usize, T) -> Result<(), String>,
    ) -> Result<(), SnapshotError> {
        for (key, value) in blocks {
            let phrase =
                key.as_str().ok_or_else(|| self.error(line + 1, "kernels are written as a string"))?;
            let at = |problem: String| self.error(self.line_of(phrase, line + 1) + 1, &problem);
            let found = read(value).map_err(at)?;
            for place in kernels::members(names, phrase).map_err(at)? {
                take(place, found.clone()).map_err(at)?;
            }
        }
        Ok(())
    }

    /// The index of the body's first line from `from` on that begins with this key; `from` when there is none.
    fn line_of(&self, key: &str, from: usize) -> usize {
        let begins = |line: &&str| {
            let line = line.trim_start().trim_start_matches(['\'', '"', '?', ' ']);
            line.strip_prefix(key).is_some_and(|rest| rest.trim_start_matches(['\'', '"']).starts_with(':'))
        };
        let found = self.lines.get(from..).and_then(|lines| lines.iter().position(begins));
        found.map_or(from, |place| from + place)
    }

    /// An error on this line of the body, counted from 1; 0 is the file's first line.
    fn error(&self, line: usize, problem: &str) -> SnapshotError {
        let line = if line == 0 { 1 } else { self.offset + line };
        SnapshotError::Parse { path: self.path.to_owned(), line, problem: problem.to_owned() }
    }
}

fn twice(kernel: &str) -> String {
    format!("{kernel:?} stands in two blocks")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalize::NormalCase;
    use crate::snapshot::made_up::{done, observed, refused};
    use probes::record::Outcome;
    use rstest::rstest;

    fn sample() -> Snapshot {
        let late = "At program exit the register R0 has smin=1 smax=1 should have been in [-4095, 0]";
        let denied = NormalCase { denied: Some(true), ..done("one") };
        let mut crashed = observed(vec![done("zero")]);
        crashed.outcome = Outcome::Crashed { what: "BUG: x".into(), during: "one: load".into() };
        crashed.warnings = vec!["WARNING: y".into()];
        Snapshot {
            probe: "rules/return-value".into(),
            question: "Which return values may a program on file_open have?".into(),
            observed: vec![
                ("5.10".into(), crashed),
                ("6.1".into(), observed(vec![done("zero"), denied.clone()])),
                ("6.6".into(), observed(vec![done("zero"), denied])),
                ("6.12".into(), observed(vec![done("zero"), refused("one", late)])),
                ("7.3".into(), observed(vec![done("zero"), refused("one", "line one\nline two")])),
            ],
            order: vec!["zero".into(), "one".into()],
            behind: ["6.6".to_owned()].into(),
        }
    }

    #[test]
    fn a_file_reads_well() {
        insta::assert_snapshot!(render(&sample()).unwrap(), @r"
        ---
        source: harness/src/snapshot/assert.rs
        description: rules/return-value
        ---
        probe: rules/return-value
        question: Which return values may a program on file_open have?
        kernels: 5.10 6.1 6.6 6.12 7.3
        measured before the probe changed: '6.6'

        outcome:
          only 5.10:
            outcome: crashed
            what: 'BUG: x'
            during: 'one: load'
            warnings:
            - 'WARNING: y'
          from 6.1: observed

        cases:
          zero:
            all: done at trigger, accepted, fired
          one:
            6.1, 6.6: done at trigger, accepted, fired, denied
            only 6.12:
              result: refused at load with EINVAL
              reason: At program exit the register R0 has smin=1 smax=1 should have been in [-4095, 0]
            from 7.3:
              result: refused at load with EINVAL
              reason: |-
                line one
                line two
        ");
    }

    #[test]
    fn a_file_is_read_back() {
        let text = render(&sample()).unwrap();
        let back = parse(Path::new("x.snap"), &text).unwrap();
        assert_eq!(back, sample());
        assert_eq!(render(&back).unwrap(), text);
    }

    #[test]
    fn odd_texts_are_read_back() {
        let mut snapshot = sample();
        let odd = "yes: 'no' \"x\" # {a} \u{7f}\t\n\noutcome:\ncases:\n\n  - b ";
        snapshot.question = odd.into();
        snapshot.probe = "null".into();
        snapshot.order = vec!["zero".into(), odd.into()];
        for (_, normal) in &mut snapshot.observed {
            if let Some(case) = normal.cases.get_mut(1) {
                case.name = odd.into();
                case.reason = Some(odd.into());
            }
        }
        let text = render(&snapshot).unwrap();
        assert_eq!(parse(Path::new("x.snap"), &text).unwrap(), snapshot, "{text}");
    }

    #[test]
    fn a_probe_without_cases_is_read_back() {
        let mut snapshot = sample();
        snapshot.order.clear();
        snapshot.observed.truncate(1);
        snapshot.behind.clear();
        snapshot.observed[0].1.cases.clear();
        let text = render(&snapshot).unwrap();
        assert_eq!(parse(Path::new("x.snap"), &text).unwrap(), snapshot);
    }

    #[test]
    fn a_kernel_with_a_space_is_refused() {
        let mut snapshot = sample();
        snapshot.observed[0].0 = "my kernel".into();
        assert!(matches!(render(&snapshot), Err(SnapshotError::BadKernel { name }) if name == "my kernel"));
    }

    #[rstest]
    #[case::unknown_kernel("only 6.12:", "only 6.13:", "only 6.13", "6.13")]
    #[case::overlap("only 6.12:", "until 6.12:", "until 6.12", "two blocks")]
    #[case::bad_ending("accepted, fired, denied", "accepted, tired", "accepted, tired", "tired")]
    #[case::twice("kernels: 5.10 6.1", "kernels: 5.10 5.10 6.1", "kernels:", "twice")]
    #[case::behind("changed: '6.6'", "changed: 6.6 6.7", "measured before", "6.7")]
    #[case::no_outcome("kernels: 5.10 6.1", "kernels: 5.10 5.99 6.1", "kernels:", "5.99")]
    #[case::not_yaml("  from 6.1: observed", "  from 6.1: [", "from 6.1: [", "")]
    #[case::unknown_field("question:", "quetsion:", "quetsion:", "quetsion")]
    fn errors_name_the_line(#[case] from: &str, #[case] to: &str, #[case] at: &str, #[case] says: &str) {
        let text = render(&sample()).unwrap();
        assert!(text.contains(from), "{text}");
        let wrong = text.replacen(from, to, 1);
        let Err(SnapshotError::Parse { line, problem, .. }) = parse(Path::new("x.snap"), &wrong) else {
            panic!("accepted: {wrong}");
        };
        assert!(problem.contains(says), "{problem}");
        let expected = wrong.lines().position(|line| line.contains(at)).unwrap() + 1;
        // The YAML reader notices an unclosed bracket only some lines later.
        assert!(line.abs_diff(expected) <= 3, "line {line}, expected {expected}: {problem}\n{wrong}");
    }

    #[test]
    fn a_file_without_front_matter_is_refused() {
        let problem = parse(Path::new("a/x.snap"), "probe: x\n").unwrap_err().to_string();
        assert!(problem.starts_with("a/x.snap:1: no front matter"), "{problem}");
    }

    #[test]
    fn other_line_ends_and_an_unfinished_merge_are_named() {
        let text = render(&sample()).unwrap();
        let problem = parse(Path::new("a/x.snap"), &text.replace('\n', "\r\n")).unwrap_err().to_string();
        assert!(problem.starts_with("a/x.snap:1: its lines end with CR LF"), "{problem}");
        let at = text.lines().position(|line| line.starts_with("cases:")).unwrap() + 1;
        let merged = text.replacen("cases:\n", "<<<<<<< HEAD\ncases:\n=======\ncases:\n>>>>>>> other\n", 1);
        let problem = parse(Path::new("a/x.snap"), &merged).unwrap_err().to_string();
        assert!(problem.starts_with(&format!("a/x.snap:{at}: a merge was not finished")), "{problem}");
    }
}
