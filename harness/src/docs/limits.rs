//! What restricts a call that some LSM program may make: by whom, and where the kernel's state takes it away.
//!
//! Each is what a record says of the item (the answers behind [`Item`], and of lockdown and capabilities the cases that ask
//! about them); none is concluded from another item.

use super::check::Evidence;
use super::judge::phrase;
use crate::facts::{Answer, Answers, Item, Kind, Known};
use crate::normalize::NormalCase;
use probes::record::End;
use serde_json::Value;
use std::collections::BTreeMap;

/// The probe that asks which helpers lockdown takes away, its levels, each of which includes those before, and the fact
/// that names the helpers.
const LOCKDOWN: &str = "helpers/under-lockdown";
const LEVELS: [(&str, &str); 2] =
    [("integrity", "integrity or confidentiality"), ("confidentiality", "confidentiality")];
const TAKEN: &str = "can no longer be called";
/// The case of a helper's probe that uses it in a program that may sleep.
const ASLEEP: &str = "canonical-sleepable";
/// The case of a kfunc's probe that loads the intended use without the capability it takes.
const WITHOUT_CAPABILITY: &str = "misuse-without-the-capability";

/// One restriction.
pub(super) struct Limit {
    /// In words, with its kernels where there are others.
    pub(super) words: String,
    /// The case that shows it; none where it is the item's own.
    pub(super) case: Option<String>,
}

/// The restrictions of an item, where it may be called.
pub(super) fn limits(item: &Item, evidence: &Evidence<'_>) -> Vec<Limit> {
    let mut found = only_by(&item.answers, evidence.kernels);
    found.extend(not_asleep(item, evidence));
    found.extend(under_lockdown(item, evidence));
    found.extend(with_capability(item, evidence));
    found
}

/// Words with the kernels of which they are true, unless that is all of those `of`.
fn on(kernels: &[String], some: &[String], of: usize, words: &str) -> String {
    if some.len() == of { words.to_owned() } else { format!("{} {words}", phrase(kernels, some)) }
}

fn callable(answers: &Answers) -> Vec<String> {
    answers.kernels(Known::Yes).map(str::to_owned).collect()
}

/// The conditions under which an item may be used.
fn only_by(answers: &Answers, kernels: &[String]) -> Vec<Limit> {
    let mut by: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (kernel, answer) in &answers.0 {
        if let Answer::Yes { condition } = answer
            && !condition.is_empty()
        {
            by.entry(condition).or_default().push(kernel.clone());
        }
    }
    let of = answers.kernels(Known::Yes).count();
    let words = |(by, some): (&str, Vec<String>)| {
        let by =
            by.strip_suffix(" only").unwrap_or(by).replace("every program that was", "programs that were");
        Limit { words: on(kernels, &some, of, &format!("only {by}")), case: None }
    };
    by.into_iter().map(words).collect()
}

/// Where a program that may sleep cannot use a helper that it may call, mostly because the helper's map is not one for it.
fn not_asleep(item: &Item, evidence: &Evidence<'_>) -> Option<Limit> {
    let asleep = item.features.iter().find(|it| item.kind == Kind::Helper && it.name == "sleepable")?;
    // Where the call itself is refused, or there are no such programs, the record's condition says what is to be said.
    let of_the_use = |why: &str| !why.starts_with("no") && !why.starts_with("there is no");
    let refused = |case: &NormalCase| matches!(case.end, End::Refused { .. });
    let mut refused = where_case(item, evidence, &item.probe, ASLEEP, refused);
    refused.retain(|row| matches!(asleep.answers.of(row), Some(Answer::No { why }) if of_the_use(why)));
    let may = |row: &&String| asleep.answers.of(row).is_some_and(|answer| answer.known() == Known::Yes);
    let of = refused.len() + callable(&item.answers).iter().filter(may).count();
    let words = on(evidence.kernels, &refused, of, "not by programs that may sleep");
    (!refused.is_empty()).then(|| Limit { words, case: Some(format!("{}/{ASLEEP}", item.probe)) })
}

/// The kernels, of those on which an item may be called, whose record of a probe's case says something.
fn where_case(
    item: &Item,
    evidence: &Evidence<'_>,
    probe: &str,
    case: &str,
    says: impl Fn(&NormalCase) -> bool,
) -> Vec<String> {
    let Some(snapshot) = evidence.snapshots.get(probe) else { return Vec::new() };
    let said = |kernel: &String| {
        let found = snapshot.of(kernel).and_then(|normal| normal.case(case));
        found.is_some_and(&says)
    };
    callable(&item.answers).into_iter().filter(said).collect()
}

/// Where lockdown takes a helper away, at the lowest level that does.
fn under_lockdown(item: &Item, evidence: &Evidence<'_>) -> Option<Limit> {
    let takes = |case: &NormalCase| {
        let taken = case.seen.get(TAKEN).and_then(Value::as_str).unwrap_or_default();
        item.kind == Kind::Helper && taken.split(", ").any(|name| name == item.name)
    };
    let of = item.answers.kernels(Known::Yes).count();
    LEVELS.iter().find_map(|(level, at)| {
        let rows = where_case(item, evidence, LOCKDOWN, level, takes);
        let words = on(evidence.kernels, &rows, of, &format!("not where lockdown is at {at}"));
        (!rows.is_empty()).then(|| Limit { words, case: Some(format!("{LOCKDOWN}/{level}")) })
    })
}

/// The capability without which a kfunc is refused.
fn with_capability(item: &Item, evidence: &Evidence<'_>) -> Option<Limit> {
    let own = format!("kfuncs/{}", item.name);
    let capability = |case: &NormalCase| {
        let mut words = case.reason.as_deref().unwrap_or_default().split(' ');
        words.find(|word| word.starts_with("CAP_")).map(str::to_owned)
    };
    let refused = |case: &NormalCase| matches!(case.end, End::Refused { .. });
    let rows = where_case(item, evidence, &own, WITHOUT_CAPABILITY, |case| {
        item.kind == Kind::Kfunc && refused(case) && capability(case).is_some()
    });
    let newest = evidence.snapshots.get(&own)?.of(rows.last()?)?;
    let name = newest.cases.iter().filter(|case| case.name == WITHOUT_CAPABILITY).find_map(capability)?;
    let of = item.answers.kernels(Known::Yes).count();
    let words = on(evidence.kernels, &rows, of, &format!("only by programs that were loaded with {name}"));
    Some(Limit { words, case: Some(format!("{own}/{WITHOUT_CAPABILITY}")) })
}
