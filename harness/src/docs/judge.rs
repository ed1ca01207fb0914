//! How a verdict is reached: of a condition's truths, of a version.

use super::check::Verdict;
use crate::claims::{Claim, Evaluated};
use crate::facts::{Added, Known, Removed, Version, spans};
use crate::snapshot::kernel_phrase;

/// The phrase for some of the measured rows, such as `from 6.12`.
pub(super) fn phrase(all: &[String], some: &[String]) -> String {
    let places: Vec<usize> = (0..all.len()).filter(|&place| some.contains(&all[place])).collect();
    kernel_phrase(all, &places)
}

/// The verdict on a statement, with the kernels that have no part in it because they could not tell.
pub(super) fn of_condition(claim: &Claim, found: &Evaluated, kernels: &[String]) -> (Verdict, String) {
    let why = claim.because.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let on = |some: &[String]| phrase(kernels, some);
    let (verdict, mut said) = match (found.true_on.as_slice(), found.false_on.as_slice()) {
        ([], []) => {
            let why =
                found.unknown_on.first().map_or("no measured kernel is of its kind", |(_, why)| why.as_str());
            return (Verdict::Undecided, why.to_owned());
        }
        ([], no) => (Verdict::Contradicted, format!("false: {}{why}", on(no))),
        (yes, []) => of_true(claim, found, kernels, yes),
        (yes, no) => {
            let restricted = claim.unless.as_ref().filter(|_| !found.restricted_on.is_empty());
            let then = restricted.map(|unless| format!(", {}", unless.then)).unwrap_or_default();
            (Verdict::Conditional, format!("true: {}{then}; false: {}{why}", on(yes), on(no)))
        }
    };
    if !found.unknown_on.is_empty() {
        said += &format!("; could not tell: {}", on(&rows(&found.unknown_on)));
    }
    (verdict, said)
}

/// The verdict on a statement that is false nowhere: by whether it is the whole truth.
fn of_true(claim: &Claim, found: &Evaluated, kernels: &[String], yes: &[String]) -> (Verdict, String) {
    let Some(unless) = &claim.unless else {
        return (Verdict::Confirmed, format!("true: {}", phrase(kernels, yes)));
    };
    let perhaps = match found.perhaps_restricted_on.as_slice() {
        [] => String::new(),
        perhaps => {
            format!("; whether {} could not be told: {}", unless.then, phrase(kernels, &rows(perhaps)))
        }
    };
    if !found.restricted_on.is_empty() {
        return (Verdict::Conditional, format!("true {}{perhaps}", unless.then));
    }
    // As for the statement itself: kernels that tell decide, and where none does nothing is decided.
    let told = yes.iter().any(|row| !found.perhaps_restricted_on.iter().any(|(perhaps, _)| perhaps == row));
    let verdict = if told { Verdict::Confirmed } else { Verdict::Undecided };
    (verdict, format!("true: {}{perhaps}", phrase(kernels, yes)))
}

fn rows(unknown: &[(String, String)]) -> Vec<String> {
    unknown.iter().map(|(row, _)| row.clone()).collect()
}

/// The measured versions of a statement.
pub(super) fn measured(found: &Evaluated) -> Vec<(Version, Known)> {
    let with = |kernels: &[String], known| {
        kernels.iter().filter_map(move |kernel| Some((Version::parse(kernel)?, known))).collect::<Vec<_>>()
    };
    [with(&found.true_on, Known::Yes), with(&found.false_on, Known::No)].concat()
}

/// The verdict on "since this version".
pub(super) fn of_version(tag: &str, states: &[(Version, Known)]) -> (Verdict, String) {
    let Some(version) = Version::parse(tag) else {
        return (Verdict::Undecided, format!("{tag:?} is no version"));
    };
    let ranges = spans(states);
    let Some(first) = ranges.first() else {
        return (Verdict::Undecided, "no measured kernel has it".to_owned());
    };
    // More than one range: a stable branch got it early. The tag may mean any of them.
    let kept = ranges.iter().map(|span| of_start(version, span.added));
    let settled = kept
        .into_iter()
        .filter(|(verdict, _)| *verdict != Verdict::Contradicted)
        .min_by_key(|(verdict, _)| *verdict);
    settled.unwrap_or_else(|| of_start(version, first.added))
}

/// The verdict on a version against the start of one range.
fn of_start(version: Version, added: Added) -> (Verdict, String) {
    let first = added.first();
    match added {
        _ if version > first => (Verdict::Contradicted, format!("{first} has it already")),
        Added::Exact(_) if version == first => {
            (Verdict::Confirmed, format!("{first} has it, the version before has not"))
        }
        Added::Exact(_) => (Verdict::Contradicted, format!("it came with {first}")),
        Added::Between(without, _) if version <= without => {
            (Verdict::Contradicted, format!("{without} has it not"))
        }
        Added::Between(..) | Added::AtMost(_) => {
            (Verdict::WithinBounds, format!("the measured kernels say {added}"))
        }
    }
}

/// The verdict on "until this version", the first without it.
pub(super) fn of_end(tag: &str, states: &[(Version, Known)]) -> (Verdict, String) {
    let Some(version) = Version::parse(tag) else {
        return (Verdict::Undecided, format!("{tag:?} is no version"));
    };
    let ends = spans(states).into_iter().filter_map(|span| Some((*span.kernels.last()?, span.removed)));
    // As with its start, the tag may mean any range's; the last speaks where it is none's.
    let kept: Vec<_> = ends.map(|(last, removed)| of_removal(version, last, removed)).collect();
    let settled = kept.iter().filter(|(verdict, _)| *verdict != Verdict::Contradicted);
    let found = settled.min_by_key(|(verdict, _)| *verdict).or(kept.last()).cloned();
    found.unwrap_or_else(|| (Verdict::Undecided, "no measured kernel has it".to_owned()))
}

/// The verdict on a version against the end of one range, whose last measured version is given.
fn of_removal(version: Version, last: Version, removed: Option<Removed>) -> (Verdict, String) {
    match removed {
        _ if version <= last => (Verdict::Contradicted, format!("{last} has it still")),
        None => (Verdict::WithinBounds, format!("{last}, the newest that tells, has it still")),
        Some(Removed::Exact(without) | Removed::Between(_, without)) if version > without => {
            (Verdict::Contradicted, format!("{without} has it no longer"))
        }
        Some(Removed::Exact(without)) => (Verdict::Confirmed, format!("{last} has it, {without} no longer")),
        Some(removed @ Removed::Between(..)) => {
            (Verdict::WithinBounds, format!("the measured kernels say gone in {removed}"))
        }
    }
}
