//! The verdict on a list's entry, by what kernels answered about the item.
//!
//! An entry says that LSM programs may call it, from the version at its tag or, without one, as long as there is such a
//! thing, and up to the version behind its dash or for good.

use super::check::{Evidence, Verdict};
use super::judge::{of_end, of_version, phrase};
use super::limits::{Limit, limits};
use super::page::PageEntry;
use crate::claims::List;
use crate::facts::item::is_without_kfuncs;
use crate::facts::{Answer, Answers, Item, Kind, Known, OF_NO_LSM_PROGRAM, Span, Version, guards};
use probes::helper;

/// A verdict with why, and the cases that show it beside the item's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    pub(super) detail: String,
    pub(super) shown: Vec<String>,
}

impl From<(Verdict, String)> for Judged {
    fn from((verdict, detail): (Verdict, String)) -> Self {
        Self { verdict, detail, shown: Vec::new() }
    }
}

/// Functions that the kernel had for itself before they became kfuncs, and the version in which they did: that a program may
/// not call them before is said of every function (6.1 kernel/bpf/helpers.c `tracing_btf_ids`, 6.1 kernel/cgroup/rstat.c
/// `bpf_rstat_kfunc_ids`).
const KFUNCS_FROM: &[(&str, &str)] =
    &[("cgroup_rstat_flush", "6.1"), ("cgroup_rstat_updated", "6.1"), ("crash_kexec", "6.1")];

/// The record of all kfuncs.
const INVENTORY: &str = "kfuncs/inventory";

/// What the record of all kfuncs says where one is not registered for these programs (`probes::families::kfuncs`,
/// `NOT_ALLOWED`).
const NOT_ALLOWED: &str = "may NOT call it";

/// The verdict on an entry.
pub(super) fn judge(list: List, entry: &PageEntry, evidence: &Evidence<'_>) -> Judged {
    match evidence.items.get(&(list.kind(), entry.name.clone())) {
        Some(item) if item.answers.kernels(Known::Yes).next().is_some() => of_callable(item, entry, evidence),
        Some(item) => of_uncallable(&item.answers, entry, evidence.kernels).into(),
        None => of_unknown(list, entry, evidence).into(),
    }
}

/// A name that no record has. What nobody has asked about, because the record is missing or no row is of the versions of which
/// the entry speaks, is not denied.
pub(super) fn of_unknown(list: List, entry: &PageEntry, evidence: &Evidence<'_>) -> (Verdict, String) {
    let name = &entry.name;
    if let Some(option) = guards::leaves_out(list.kind(), name) {
        return (Verdict::Undecided, format!("no measured kernel has it; it may need {option}"));
    }
    if !evidence.kernels.iter().any(|row| Stated::of(entry).has(row)) {
        return (Verdict::Undecided, "no measured kernel is of the versions that the page names".to_owned());
    }
    let (probe, why) = match list {
        List::Helpers => (
            helper::number(name).map(|_| format!("helpers/{name}")),
            "no measured kernel has a helper of this name: every number is asked for",
        ),
        List::Kfuncs => {
            (Some(INVENTORY.to_owned()), "no measured kernel whose BTF tells its kfuncs has one of this name")
        }
    };
    match probe.filter(|probe| !evidence.snapshots.contains_key(probe)) {
        Some(missing) => (Verdict::Undecided, format!("there is no record of {missing} that could tell")),
        None => (Verdict::Contradicted, why.to_owned()),
    }
}

/// The versions of which an entry speaks: from the first, up to the second, as far as it says.
#[derive(Clone, Copy)]
struct Stated {
    since: Option<Version>,
    until: Option<Version>,
}

impl Stated {
    fn of(entry: &PageEntry) -> Self {
        let version = |tag: &Option<String>| tag.as_deref().and_then(Version::parse);
        Self { since: version(&entry.since), until: version(&entry.until) }
    }

    /// Whether a row is of one of them, as far as both are known.
    fn has(self, row: &str) -> bool {
        Version::of_row(row).is_none_or(|version| {
            self.since.is_none_or(|since| version >= since) && self.until.is_none_or(|until| version < until)
        })
    }
}

/// Why a kernel lets no LSM program call something: of other programs nothing is known.
fn why_not(answer: &Answer) -> String {
    match answer {
        Answer::No { why } if why == OF_NO_LSM_PROGRAM => why.clone(),
        Answer::No { why } if why == NOT_ALLOWED => "LSM programs may NOT call it".to_owned(),
        Answer::Yes { .. }
        | Answer::No { .. }
        | Answer::Absent { .. }
        | Answer::BuildLacks { .. }
        | Answer::Unknown { .. } => answer.words(),
    }
}

/// An entry that no measured kernel lets programs call. Kernels of versions that it does not speak of say nothing, and one
/// that could not tell leaves it open if it is newer than all that could: the item may have come since.
pub(super) fn of_uncallable(answers: &Answers, entry: &PageEntry, kernels: &[String]) -> (Verdict, String) {
    let stated = Stated::of(entry);
    let counts = |kernel: &str| stated.has(kernel);
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
        counted.map(|(_, answer)| answer).find(|answer| wanted(answer)).map(why_not)
    };
    let refused = said(|answer| matches!(answer, Answer::No { .. }));
    let absent = said(|answer| matches!(answer, Answer::Absent { perhaps: None }));
    let open: Vec<String> = untold(answers, stated);
    let all_tell = !answers.0.iter().any(|(kernel, it)| counts(kernel) && it.known() == Known::Unknown);
    let none = if all_tell { "callable on no measured kernel" } else { "callable on no kernel that tells" };
    match refused.or(absent) {
        Some(why) if open.is_empty() => {
            let later = refused_later(answers, stated, kernels);
            (Verdict::Contradicted, format!("{none}; {}: {why}{later}", phrase(kernels, &no)))
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
            let from = stated.since.map(|since| format!(" from {since} on")).unwrap_or_default();
            (Verdict::Undecided, format!("on every measured kernel{from} {why}"))
        }
    }
}

/// What is said of kernels that have the thing and refuse it, from the version on up to which an entry speaks.
fn refused_later(answers: &Answers, stated: Stated, kernels: &[String]) -> String {
    let is_later = |row: &str| stated.until.is_some_and(|until| Version::of_row(row) >= Some(until));
    let refused = |(row, answer): &(String, Answer)| {
        (is_later(row) && matches!(answer, Answer::No { .. })).then(|| (row.clone(), why_not(answer)))
    };
    let (rows, why): (Vec<String>, Vec<String>) = answers.0.iter().filter_map(refused).unzip();
    why.last().map_or_else(String::new, |why| format!("; {}: {why}", phrase(kernels, &rows)))
}

/// The rows of versions that could not tell and are newer than every one that said no, of those of which an entry speaks.
fn untold(answers: &Answers, stated: Stated) -> Vec<String> {
    let mut versions = answers.by_version();
    versions.retain(|(version, _)| stated.has(&version.to_string()));
    let of = |known| versions.iter().filter(move |(_, answer)| answer.known() == known);
    let told = of(Known::No).map(|(version, _)| *version).max();
    let is_open = |row: &str| {
        let version = Version::of_row(row);
        version > told && of(Known::Unknown).any(|(unknown, _)| Some(*unknown) == version)
    };
    answers.0.iter().map(|(row, _)| row.clone()).filter(|row| is_open(row)).collect()
}

/// An entry that some kernel lets programs call: its versions, then what restricts it.
fn of_callable(item: &Item, entry: &PageEntry, evidence: &Evidence<'_>) -> Judged {
    let states: Vec<(Version, Known)> =
        item.answers.by_version().into_iter().map(|(version, answer)| (version, answer.known())).collect();
    let since = entry.since.as_deref().map(|tag| of_version(tag, &states));
    let until = entry.until.as_deref().map(|tag| of_end(tag, &states));
    let limits = limits(item, evidence);
    let shown: Vec<String> = limits.iter().filter_map(|limit| limit.case.clone()).collect();
    let mut limits: Vec<String> = limits.into_iter().map(|Limit { words, .. }| words).collect();
    let tags: Vec<(Verdict, String)> = since.into_iter().chain(until).collect();
    let wrong = |(verdict, _): &&(Verdict, String)| *verdict == Verdict::Contradicted;
    let wrong: Vec<&str> = tags.iter().filter(wrong).map(|(_, why)| why.as_str()).collect();
    if !wrong.is_empty() {
        limits.insert(0, history(&item.answers));
        let detail = format!("the tag is wrong: {}; callable {}", wrong.join(", "), limits.join("; "));
        return Judged { verdict: Verdict::Contradicted, detail, shown };
    }
    if !missing(item, entry).is_empty() {
        let yes: Vec<String> = item.answers.kernels(Known::Yes).map(str::to_owned).collect();
        limits.push(format!("{} ({})", phrase(evidence.kernels, &yes), history(&item.answers)));
    }
    if !limits.is_empty() {
        return Judged { verdict: Verdict::Conditional, detail: limits.join("; "), shown };
    }
    let worst = tags.iter().map(|(verdict, _)| *verdict).max();
    let detail = match tags.as_slice() {
        [] => format!("wherever it is in the kernel ({})", history(&item.answers)),
        tags => tags.iter().map(|(_, why)| why.as_str()).collect::<Vec<_>>().join("; "),
    };
    Judged { verdict: worst.unwrap_or(Verdict::Confirmed), detail, shown }
}

/// The rows of which an entry speaks and on which the item may not be called.
pub(super) fn missing(item: &Item, entry: &PageEntry) -> Vec<String> {
    let mut stated = Stated::of(entry);
    stated.since = stated.since.or_else(|| first_seen(item));
    item.answers.kernels(Known::No).filter(|row| stated.has(row)).map(str::to_owned).collect()
}

/// The first measured version that has the function, and calls of kfuncs, at all: an entry without a tag says that programs
/// may call it as long as there is one.
fn first_seen(item: &Item) -> Option<Version> {
    let from = KFUNCS_FROM.iter().find(|(name, _)| item.kind == Kind::Kfunc && *name == item.name);
    let from = from.and_then(|(_, version)| Version::parse(version));
    let has = item.answers.0.iter().filter(|(_, answer)| match answer {
        Answer::Yes { .. } => true,
        Answer::No { why } => !is_without_kfuncs(why),
        Answer::Absent { .. } | Answer::BuildLacks { .. } | Answer::Unknown { .. } => false,
    });
    has.filter_map(|(kernel, _)| Version::of_row(kernel)).filter(|version| Some(*version) >= from).min()
}

/// The ranges of an item as versions, such as `since >6.1 <=6.12, gone in 7.0`.
pub(crate) fn history(answers: &Answers) -> String {
    let range = |span: &Span| match span.removed {
        Some(removed) => format!("since {}, gone in {removed}", span.added),
        None => format!("since {}", span.added),
    };
    answers.spans().iter().map(range).collect::<Vec<_>>().join("; ")
}
