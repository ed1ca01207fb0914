//! How a verdict is reached: of a condition's truths, of a version, of an entry by what kernels answered.

use super::check::{Unlisted, Verdict};
use super::page::PageEntry;
use crate::claims::{Claim, Evaluated, List};
use crate::facts::item::is_without_kfuncs;
use crate::facts::{Added, Answer, Answers, Item, Known, Span, Version, guards, spans};
use crate::snapshot::kernel_phrase;
use std::collections::BTreeMap;

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
        (yes, no) => (Verdict::Conditional, format!("true: {}; false: {}{why}", on(yes), on(no))),
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

pub(super) fn complete(list: List, unlisted: &[Unlisted]) -> (Verdict, String) {
    let names: Vec<&str> =
        unlisted.iter().filter(|it| it.kind == list.kind().name()).map(|it| it.name.as_str()).collect();
    match names.as_slice() {
        [] => (
            Verdict::Confirmed,
            format!("every one of the {} that some LSM program may call is listed", list.name()),
        ),
        names => {
            let tests = names.iter().filter(|name| is_of_a_test(name)).count();
            let among =
                if tests == 0 { String::new() } else { format!(" ({tests} of them the kernel's own tests)") };
            let said = format!(
                "{} {} may be called and are not listed{among}: {}",
                names.len(),
                list.name(),
                names.join(", ")
            );
            (Verdict::Contradicted, said)
        }
    }
}

/// Kfuncs that the kernel has for its own tests alone, all the same in every build (6.12 net/bpf/test_run.c).
pub(super) fn is_of_a_test(name: &str) -> bool {
    ["bpf_kfunc_call_", "bpf_modify_return_test", "bpf_fentry_test"]
        .iter()
        .any(|start| name.starts_with(start))
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

/// A name that no record has.
pub(super) fn of_unknown(list: List, name: &str) -> (Verdict, String) {
    if let Some(option) = guards::leaves_out(list.kind(), name) {
        return (Verdict::Undecided, format!("no measured kernel has it; it may need {option}"));
    }
    let why = match list {
        List::Helpers => "no kernel has a helper of this name: every number is asked for",
        List::Kfuncs => "no kernel whose BTF tells its kfuncs has one of this name",
    };
    (Verdict::Contradicted, why.to_owned())
}

/// Whether a row is of a version from `since` on, as far as both are known.
fn is_from(since: Option<Version>, row: &str) -> bool {
    match (since, Version::of_row(row)) {
        (Some(since), Some(version)) => version >= since,
        _ => true,
    }
}

/// An entry that no measured kernel lets programs call. Kernels from before the version that it names say nothing, and one
/// that could not tell leaves it open if it is newer than all that could: the item may have come since.
pub(super) fn of_uncallable(answers: &Answers, entry: &PageEntry, kernels: &[String]) -> (Verdict, String) {
    let since = entry.since.as_deref().and_then(Version::parse);
    let counts = |kernel: &str| is_from(since, kernel);
    let refusing = |answer: &Answer| matches!(answer, Answer::No { .. });
    let absent_only = !answers.0.iter().any(|(kernel, answer)| counts(kernel) && refusing(answer));
    // Where it is not there, nobody is kept from it; kernels that refuse it are the ones to be named.
    let no: Vec<String> = answers
        .0
        .iter()
        .filter(|(kernel, answer)| {
            counts(kernel) && (refusing(answer) || absent_only && answer.known() == Known::No)
        })
        .map(|(kernel, _)| kernel.clone())
        .collect();
    let said = |wanted: fn(&Answer) -> bool| {
        let counted = answers.0.iter().rev().filter(|(kernel, _)| counts(kernel));
        counted.map(|(_, answer)| answer).find(|answer| wanted(answer)).map(Answer::words)
    };
    let refused = said(|answer| matches!(answer, Answer::No { .. }));
    let absent = said(|answer| matches!(answer, Answer::Absent { perhaps: None }));
    let open: Vec<String> = untold(answers).into_iter().filter(|kernel| counts(kernel)).collect();
    match refused.or(absent) {
        Some(why) if open.is_empty() => {
            (Verdict::Contradicted, format!("callable on no kernel; {}: {why}", phrase(kernels, &no)))
        }
        Some(why) => {
            let (no, open) = (phrase(kernels, &no), phrase(kernels, &open));
            (
                Verdict::Undecided,
                format!("callable on no kernel that tells; {no}: {why}; could not tell: {open}"),
            )
        }
        None => {
            let why = said(|_| true).unwrap_or_else(|| "not measured".to_owned());
            let from = since.map(|since| format!(" from {since} on")).unwrap_or_default();
            (Verdict::Undecided, format!("on every measured kernel{from} {why}"))
        }
    }
}

/// The rows of versions that could not tell and are newer than every one that said no.
fn untold(answers: &Answers) -> Vec<String> {
    let versions = answers.by_version();
    let of = |known| versions.iter().filter(move |(_, answer)| answer.known() == known);
    let told = of(Known::No).map(|(version, _)| *version).max();
    let is_open = |row: &str| {
        let version = Version::of_row(row);
        version > told && of(Known::Unknown).any(|(unknown, _)| Some(*unknown) == version)
    };
    answers.0.iter().map(|(row, _)| row.clone()).filter(|row| is_open(row)).collect()
}

/// An entry that some kernel lets programs call: its version, then what restricts it.
pub(super) fn of_callable(item: &Item, entry: &PageEntry, kernels: &[String]) -> (Verdict, String) {
    let states: Vec<(Version, Known)> =
        item.answers.by_version().into_iter().map(|(version, answer)| (version, answer.known())).collect();
    let tagged = entry.since.as_deref().map(|tag| (Version::parse(tag), of_version(tag, &states)));
    if let Some((_, (Verdict::Contradicted, why))) = &tagged {
        let ended = item.answers.spans().iter().any(|span| span.removed.is_some());
        let history = if ended { format!("; callable {}", history(&item.answers)) } else { String::new() };
        return (Verdict::Contradicted, format!("the tag is wrong: {why}{history}"));
    }
    let since = match &tagged {
        Some((since, _)) => *since,
        None => first_seen(&item.answers),
    };
    let missing: Vec<String> =
        item.answers.kernels(Known::No).map(str::to_owned).filter(|kernel| is_from(since, kernel)).collect();
    let yes: Vec<String> = item.answers.kernels(Known::Yes).map(str::to_owned).collect();
    let mut limits = only_by(&item.answers, kernels, yes.len());
    if !missing.is_empty() {
        limits.push(format!("on {} ({})", phrase(kernels, &yes), history(&item.answers)));
    }
    match (limits.as_slice(), tagged) {
        ([], Some((_, (verdict, why)))) => (verdict, why),
        ([], None) => {
            (Verdict::Confirmed, format!("wherever it is in the kernel ({})", history(&item.answers)))
        }
        (limits, _) => (Verdict::Conditional, limits.join("; ")),
    }
}

/// The conditions under which an item may be used, with their kernels where on others of those `of` it is used otherwise.
fn only_by(answers: &Answers, kernels: &[String], of: usize) -> Vec<String> {
    let mut by: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (kernel, answer) in &answers.0 {
        if let Answer::Yes { condition } = answer
            && !condition.is_empty()
        {
            by.entry(condition).or_default().push(kernel.clone());
        }
    }
    let words = |(by, on): (&str, Vec<String>)| {
        let by = by.strip_suffix(" only").unwrap_or(by);
        if on.len() == of { format!("only {by}") } else { format!("{} only {by}", phrase(kernels, &on)) }
    };
    by.into_iter().map(words).collect()
}

/// The first measured version that has the function, and calls of kfuncs, at all: an entry without a tag says that programs
/// may call it as long as there is one.
fn first_seen(answers: &Answers) -> Option<Version> {
    let has = answers.0.iter().filter(|(_, answer)| match answer {
        Answer::Yes { .. } => true,
        Answer::No { why } => !is_without_kfuncs(why),
        Answer::Absent { .. } | Answer::BuildLacks { .. } | Answer::Unknown { .. } => false,
    });
    has.filter_map(|(kernel, _)| Version::of_row(kernel)).min()
}

/// The ranges of an item as versions, such as `>6.1 <=6.12, until 7.0`.
pub(crate) fn history(answers: &Answers) -> String {
    let range = |span: &Span| match span.removed {
        Some(removed) => format!("since {}, gone in {removed}", span.added),
        None => format!("since {}", span.added),
    };
    answers.spans().iter().map(range).collect::<Vec<_>>().join("; ")
}
