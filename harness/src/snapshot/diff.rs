//! What differs between the snapshot and a run on one kernel, shown per case.

use super::SnapshotError;
use super::block::{case_value, outcome_value};
use crate::normalize::{Normal, NormalCase};
use similar::{ChangeTag, TextDiff};
use std::fmt::Write as _;
use std::time::Duration;

/// How long the shortest difference of two texts is looked for, before any will do. Those of a probe take microseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Unchanged lines shown around a changed one.
const CONTEXT: usize = 2;

/// The differences, `None` when there are none. Lines begin with `-` (snapshot), `+` (run) or a space; each part
/// begins with a line `@@ case <name>` or `@@ outcome`.
pub(crate) fn diff(probe: &str, expected: &Normal, given: &Normal) -> Result<Option<String>, SnapshotError> {
    let mut text = String::new();
    let outcome = |normal: &Normal| yaml(probe, Ok(outcome_value(&normal.outcome, &normal.warnings)));
    add_part(&mut text, "outcome", &outcome(expected)?, &outcome(given)?);
    let names = given.cases.iter().map(|case| &case.name);
    let gone = expected.cases.iter().map(|case| &case.name).filter(|name| given.case(name).is_none());
    for name in names.chain(gone) {
        let side = |normal: &Normal| {
            let written = |case: &NormalCase| yaml(probe, case_value(case));
            normal.case(name).map_or_else(|| Ok(String::new()), written)
        };
        add_part(&mut text, &format!("case {name}"), &side(expected)?, &side(given)?);
    }
    Ok((!text.is_empty()).then_some(text))
}

fn yaml(probe: &str, value: Result<serde_yaml::Value, serde_yaml::Error>) -> Result<String, SnapshotError> {
    let write = |value| serde_yaml::to_string(&value);
    value.and_then(write).map_err(|source| SnapshotError::Yaml { probe: probe.to_owned(), source })
}

fn add_part(text: &mut String, title: &str, expected: &str, given: &str) {
    if expected == given {
        return;
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "@@ {title}");
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(expected, given);
    for hunk in diff.unified_diff().context_radius(CONTEXT).iter_hunks() {
        for change in hunk.iter_changes() {
            let sign = match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            let _ = writeln!(text, "{sign}{}", change.value().trim_end_matches('\n'));
        }
    }
}

/// The same text with the colours of a diff, for a terminal.
#[must_use]
pub(super) fn paint(text: &str) -> String {
    let mut painted = String::new();
    for line in text.lines() {
        let colour = match line.as_bytes().first() {
            Some(b'-') => "\x1b[31m",
            Some(b'+') => "\x1b[32m",
            Some(b'@') => "\x1b[36m",
            Some(_) | None => "",
        };
        let end = if colour.is_empty() { "" } else { "\x1b[0m" };
        let _ = writeln!(painted, "{colour}{line}{end}");
    }
    painted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::made_up::{done, observed, refused};

    #[test]
    fn equal_observations_do_not_differ() {
        let normal = observed(vec![done("a"), refused("b", "no")]);
        assert_eq!(diff("x/y", &normal, &normal.clone()).unwrap(), None);
    }

    #[test]
    fn the_order_of_cases_does_not_matter() {
        let one = observed(vec![done("a"), done("b")]);
        let other = observed(vec![done("b"), done("a")]);
        assert_eq!(diff("x/y", &one, &other).unwrap(), None);
    }

    #[test]
    fn only_the_case_that_differs_is_shown() {
        let expected = observed(vec![done("a"), refused("b", "R0 !read_ok"), done("gone")]);
        let mut given = observed(vec![done("a"), refused("b", "R1 !read_ok"), done("new")]);
        given.warnings = vec!["WARNING: x".to_owned()];
        let text = diff("x/y", &expected, &given).unwrap().unwrap();
        assert_eq!(
            text,
            "@@ outcome\n-observed\n+outcome: observed\n+warnings:\n+- 'WARNING: x'\n\
             @@ case b\n result: refused at load with EINVAL\n-reason: R0 !read_ok\n+reason: R1 !read_ok\n\
             @@ case new\n+done at trigger, accepted, fired\n\
             @@ case gone\n-done at trigger, accepted, fired\n"
        );
    }

    #[test]
    fn colours_only_where_asked_for() {
        assert_eq!(paint("-a\n+b\n c\n"), "\x1b[31m-a\x1b[0m\n\x1b[32m+b\x1b[0m\n c\n");
    }
}
