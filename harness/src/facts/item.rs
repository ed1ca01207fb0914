//! Items and what each kernel answered about them: hooks, helpers and kfuncs, read from the families' records.
//!
//! "Yes" is the kernel's answer to the plainest question: a hook can be attached to (`hooks/NAME`, case `attach`), a
//! helper may be called by some LSM program (`helpers/NAME`, case `callable`), a kfunc too (`kfuncs/inventory`). What is
//! known beyond that (asleep, from a cgroup, a normal use that works) are the item's features.

use super::hook::{DISABLED, hook};
use super::kfunc::{INVENTORY, kfuncs};
use super::usage::{normal_use, refuse_unusable};
use super::{Known, Span, Version, guards, spans};
use crate::normalize::{Normal, NormalCase};
use crate::snapshot::Snapshot;
use probes::record::{End, Outcome};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What sort of thing an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A function of the LSM framework.
    Hook,
    /// A numbered helper.
    Helper,
    /// A kernel function that programs may call by its BTF id.
    Kfunc,
}

impl Kind {
    /// The kind as one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Helper => "helper",
            Self::Kfunc => "kfunc",
        }
    }
}

/// What one kernel answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It may be used; by whom, where not by everyone.
    Yes {
        /// Such as `programs that may sleep`; empty for every program.
        condition: String,
    },
    /// It is in the kernel and may not be used.
    No {
        /// What the kernel said.
        why: String,
    },
    /// It is not in this kernel's build.
    Absent {
        /// The option that may have left it out; none where its absence is the version's.
        perhaps: Option<&'static str>,
    },
    /// It is in the kernel, and something in how this kernel was built keeps programs from it: no word about the version.
    BuildLacks {
        /// What the kernel said.
        why: String,
    },
    /// Could not be told.
    Unknown {
        /// Why.
        why: String,
    },
}

impl Answer {
    /// What ranges make of it.
    #[must_use]
    pub const fn known(&self) -> Known {
        match self {
            Self::Yes { .. } => Known::Yes,
            Self::No { .. } | Self::Absent { perhaps: None } => Known::No,
            Self::Absent { perhaps: Some(_) } | Self::BuildLacks { .. } | Self::Unknown { .. } => {
                Known::Unknown
            }
        }
    }

    /// What ranges of one condition make of it: under another it is a no.
    #[must_use]
    pub fn known_under(&self, wanted: &str) -> Known {
        let otherwise = matches!(self, Self::Yes { condition } if condition != wanted);
        if otherwise { Known::No } else { self.known() }
    }

    /// The answer in words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Yes { condition } if condition.is_empty() => "yes".to_owned(),
            Self::Yes { condition } => format!("yes, {condition}"),
            Self::No { why } => format!("no: {why}"),
            Self::Absent { perhaps: None } => "not in the kernel".to_owned(),
            Self::Absent { perhaps: Some(option) } => {
                format!("not in this build, perhaps for want of {option}")
            }
            Self::BuildLacks { why } => format!("not in this build: {why}"),
            Self::Unknown { why } => format!("could not tell: {why}"),
        }
    }
}

/// Answers of kernels, in the matrix's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers(pub Vec<(String, Answer)>);

impl Answers {
    /// The ranges in which the answer is yes. Kernels whose name is no version, nor a flavour of one, take no part.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        let states: Vec<_> =
            self.by_version().into_iter().map(|(version, answer)| (version, answer.known())).collect();
        spans(&states)
    }

    /// The ranges for each condition under which the answer is yes, in the order of its first kernel. One ends, too, where
    /// another condition, or none, takes its place.
    #[must_use]
    pub fn by_condition(&self) -> Vec<(&str, Vec<Span>)> {
        let mut conditions: Vec<&str> = Vec::new();
        for (_, answer) in &self.0 {
            if let Answer::Yes { condition } = answer
                && !conditions.contains(&condition.as_str())
            {
                conditions.push(condition);
            }
        }
        let of = |wanted| {
            let states: Vec<_> = self
                .by_version()
                .into_iter()
                .map(|(version, answer)| (version, answer.known_under(wanted)))
                .collect();
            (wanted, spans(&states))
        };
        conditions.into_iter().map(of).collect()
    }

    /// What each version answers. A flavour (`6.1-fragments`) is of the same sources as the row of its version: what it
    /// has the version has, and what it tells counts where that row's build cannot. In everything else the row called by
    /// the version speaks, so that a configuration is never taken for a version.
    #[must_use]
    pub fn by_version(&self) -> Vec<(Version, &Answer)> {
        let plain = |(kernel, answer)| Some((Version::parse(kernel)?, answer));
        let all = || self.0.iter().map(|(kernel, answer)| (kernel.as_str(), answer));
        let mut found: Vec<(Version, &Answer)> = all().filter_map(plain).collect();
        for (kernel, answer) in all() {
            let Some(version) = Version::of_flavour(kernel) else { continue };
            if let Some((_, said)) = found.iter_mut().find(|(of, _)| *of == version) {
                let tells_more = matches!(
                    (said.known(), answer.known()),
                    (Known::No | Known::Unknown, Known::Yes) | (Known::Unknown, Known::No)
                );
                if tells_more {
                    *said = answer;
                }
            } else {
                found.push((version, answer));
            }
        }
        found
    }

    /// The answer of `kernel` in words, with the other builds of the same version that answer yes where it does not.
    #[must_use]
    pub fn words_of(&self, kernel: &str) -> Option<String> {
        let answer = self.of(kernel)?;
        let version = Version::of_row(kernel);
        let others: Vec<&str> = self
            .kernels(Known::Yes)
            .filter(|other| version.is_some() && *other != kernel && Version::of_row(other) == version)
            .collect();
        if answer.known() == Known::Yes || others.is_empty() {
            return Some(answer.words());
        }
        Some(format!("{}; {}, of the same version, has it", answer.words(), others.join(", ")))
    }

    /// What to say where no measured kernel answers yes.
    #[must_use]
    pub fn never(&self) -> &'static str {
        match self.kernels(Known::Unknown).next() {
            None => "on no measured kernel",
            Some(_) => "on no measured kernel that tells",
        }
    }

    /// Kernels whose answer is so, in the matrix's order.
    pub fn kernels(&self, known: Known) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(_, answer)| answer.known() == known).map(|(kernel, _)| kernel.as_str())
    }

    /// The answer of one kernel.
    #[must_use]
    pub fn of(&self, kernel: &str) -> Option<&Answer> {
        self.0.iter().find(|(name, _)| name == kernel).map(|(_, answer)| answer)
    }
}

/// One more thing that is known of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// What, such as `sleepable`.
    pub name: &'static str,
    /// The case that tells.
    pub case: String,
    /// What kernels answered.
    pub answers: Answers,
}

/// A hook, helper or kfunc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Which sort.
    pub kind: Kind,
    /// Its name, a hook's without `bpf_lsm_`.
    pub name: String,
    /// The probe whose records these are.
    pub probe: String,
    /// The case that decides [`Self::answers`].
    pub case: String,
    /// Its C declaration, as the newest kernel that has it says.
    pub prototype: Option<String>,
    /// Whether it may be used.
    pub answers: Answers,
    /// What else is known.
    pub features: Vec<Feature>,
}

/// Every item that the snapshots know of, by kind and name.
#[must_use]
pub fn collect(snapshots: &BTreeMap<String, Snapshot>, kernels: &[String]) -> BTreeMap<(Kind, String), Item> {
    let mut items = BTreeMap::new();
    for (id, snapshot) in snapshots {
        let found = match id.split_once('/') {
            Some(("hooks", name)) => vec![hook(name, snapshot, kernels)],
            Some(("helpers", name)) if snapshot.order.iter().any(|case| case == "callable") => {
                vec![helper(name, snapshot, kernels)]
            }
            _ if id == INVENTORY => kfuncs(snapshot, snapshots, kernels),
            _ => Vec::new(),
        };
        items.extend(found.into_iter().filter(is_item).map(|item| ((item.kind, item.name.clone()), item)));
    }
    excuse_absences(&mut items);
    items
}

/// Functions of the LSM framework that no kernel calls a hook are none (`bpf_lsm_init`).
fn is_item(item: &Item) -> bool {
    item.kind != Kind::Hook
        || item.answers.0.iter().any(|(_, answer)| match answer {
            Answer::Yes { .. } => true,
            Answer::No { why } => why == DISABLED,
            Answer::Absent { .. } | Answer::BuildLacks { .. } | Answer::Unknown { .. } => false,
        })
}

/// Marks absences that the kernel's configuration may have caused: an option is known to be on where anything else that
/// needs it is there.
fn excuse_absences(items: &mut BTreeMap<(Kind, String), Item>) {
    let mut on: BTreeSet<(&'static str, String)> = BTreeSet::new();
    for item in items.values() {
        let Some(option) = guards::guard(item.kind, &item.name) else { continue };
        for (kernel, answer) in &item.answers.0 {
            // A helper that is refused may be so for want of the option.
            let shows = match answer {
                Answer::Yes { .. } => true,
                Answer::No { .. } => item.kind != Kind::Helper,
                Answer::Absent { .. } => guards::tells_of_its_version(item.kind, option),
                Answer::BuildLacks { .. } | Answer::Unknown { .. } => false,
            };
            if shows {
                let options =
                    guards::each(option).flat_map(|it| std::iter::once(it).chain(guards::brought(it)));
                on.extend(options.map(|option| (option, kernel.clone())));
            }
        }
    }
    for item in items.values_mut() {
        let Some(option) = guards::leaves_out(item.kind, &item.name) else { continue };
        let features = item.features.iter_mut().map(|feature| &mut feature.answers);
        for (kernel, answer) in
            std::iter::once(&mut item.answers).chain(features).flat_map(|answers| &mut answers.0)
        {
            if let Answer::Absent { perhaps } = answer
                && !guards::each(option).all(|option| on.contains(&(option, kernel.clone())))
            {
                *perhaps = Some(option);
            }
        }
    }
}

pub(super) fn case_of<'a>(normal: &'a Normal, name: &str) -> Option<&'a NormalCase> {
    normal.cases.iter().find(|case| case.name == name)
}

/// What a case says on each kernel; `done` reads the case that came through.
pub(super) fn answers(
    snapshot: &Snapshot,
    kernels: &[String],
    case: &str,
    done: impl Fn(&Normal, &NormalCase) -> Answer,
) -> Answers {
    let answer = |normal: &Normal| {
        let Some(found) = case_of(normal, case) else { return no_case(normal, case) };
        match &found.end {
            End::Done => done(normal, found),
            End::Refused { errno } => Answer::No { why: refusal(errno, found) },
            End::Absent { what } => absence(snapshot, what),
            End::CouldNotTell { why } => Answer::Unknown { why: why.clone() },
        }
    };
    let of = |kernel: &String| Some((kernel.clone(), answer(snapshot.of(kernel)?)));
    Answers(kernels.iter().filter_map(of).collect())
}

/// What is said where an attempt ended for want of something: an answer about the item only if that is the item.
fn absence(snapshot: &Snapshot, what: &str) -> Answer {
    let name = snapshot.probe.rsplit('/').next().unwrap_or_default();
    let is_item = snapshot.probe == INVENTORY
        || what.split(' ').any(|word| word.trim_start_matches("bpf_lsm_") == name);
    match what {
        NO_KFUNCS => Answer::No { why: format!("{WITHOUT}{NO_KFUNCS}") },
        _ if is_item => Answer::Absent { perhaps: None },
        _ => Answer::Unknown { why: format!("{what} is absent") },
    }
}

/// What is absent where programs call no kernel functions yet, while a function of a later kfunc's name is there.
const NO_KFUNCS: &str = "calls of kfuncs";
const WITHOUT: &str = "this kernel has no ";

/// Whether a no is that of a kernel in which programs call no kernel functions yet.
#[must_use]
pub fn is_without_kfuncs(why: &str) -> bool {
    why.strip_prefix(WITHOUT) == Some(NO_KFUNCS)
}

/// How an answer begins that the kernel gave by crashing.
pub(super) const CRASHES: &str = "it crashes: ";

/// A record without the case: the item is not in the kernel, or the probe ended before. Where it ended in this case by a
/// crash, that is an answer, which ends a range; a hang may be anybody's.
pub(super) fn no_case(normal: &Normal, case: &str) -> Answer {
    let is_gone = |case: &NormalCase| {
        matches!(case.end, End::Absent { .. }) && ["inventory", "exists"].contains(&case.name.as_str())
    };
    if normal.cases.iter().any(is_gone) {
        return Answer::Absent { perhaps: None };
    }
    if let Some((what, _)) = crashed_in(normal, case) {
        return Answer::No { why: format!("{CRASHES}{what}") };
    }
    let why = match &normal.outcome {
        Outcome::Observed => "the probe has no such case there".to_owned(),
        Outcome::CouldNotTell { why } | Outcome::NotRun { why } => why.clone(),
        Outcome::Crashed { what, .. } => format!("the probe crashed: {what}"),
        Outcome::Hung { during } => format!("the probe hung during {during}"),
    };
    Answer::Unknown { why }
}

/// The kernel's words and the phase, where the probe ended by a crash in this case.
pub(crate) fn crashed_in<'a>(normal: &'a Normal, case: &str) -> Option<(&'a str, &'a str)> {
    let Outcome::Crashed { what, during } = &normal.outcome else { return None };
    let phase = during.strip_prefix(case)?.strip_prefix(": ")?;
    Some((what, phase))
}

pub(super) fn refusal(errno: &str, case: &NormalCase) -> String {
    match &case.reason {
        Some(reason) => format!("{errno}: {reason}"),
        None => format!("{errno} at {}", case.phase.name()),
    }
}

pub(super) fn yes() -> Answer {
    Answer::Yes { condition: String::new() }
}

pub(super) fn prototype(snapshot: &Snapshot, case: &str) -> Option<String> {
    let of = |normal: &Normal| Some(case_of(normal, case)?.seen.get("prototype")?.as_str()?.to_owned());
    snapshot.observed.iter().rev().find_map(|(_, normal)| of(normal))
}

/// One kind of program's answer in a helper's case `callable`. Where no such program exists, none may call.
fn of_programs(keys: &'static [&'static str]) -> impl Fn(&Normal, &NormalCase) -> Answer {
    move |_, case| {
        let said: Vec<&str> =
            keys.iter().filter_map(|key| case.seen.get(*key)).filter_map(Value::as_str).collect();
        if said.contains(&"yes") {
            return yes();
        }
        match said.first() {
            Some(said) if said.starts_with("no") || said.starts_with("there is no") => {
                Answer::No { why: (*said).to_owned() }
            }
            Some(said) => Answer::Unknown { why: (*said).to_owned() },
            None => Answer::Unknown { why: "the case does not say".to_owned() },
        }
    }
}

/// Hooks whose programs are asked, by feature (`probes::families::helpers::callable`).
const PLAIN: &[&str] = &["file_open", "bprm_check_security", "socket_post_create", "inet_csk_clone"];
const SLEEPABLE: &[&str] = &["file_open, sleepable", "bprm_committed_creds, sleepable"];
const OF_A_CGROUP: &[&str] = &[
    "file_open, of a cgroup",
    "socket_post_create, of a cgroup",
    "inet_csk_clone, of a cgroup",
    "file_open, of a cgroup, sleepable",
];
const UNPRIVILEGED: &[&str] = &["file_open, without CAP_SYS_ADMIN"];

/// The words of the record for a helper that needs no condition.
const EVERYONE: &str = "every program";

fn helper(name: &str, snapshot: &Snapshot, kernels: &[String]) -> Item {
    let callable = |normal: &Normal, case: &NormalCase| {
        if case.seen.values().any(|answer| answer == "yes") {
            let by = case.seen.get("may be called by").and_then(Value::as_str).unwrap_or_default();
            return Answer::Yes {
                condition: if by == EVERYONE { String::new() } else { format!("by {by}") },
            };
        }
        let said = case_of(normal, "canonical").and_then(|canonical| match &canonical.end {
            End::Refused { errno } => Some(refusal(errno, canonical)),
            End::Done | End::Absent { .. } | End::CouldNotTell { .. } => None,
        });
        Answer::No { why: said.unwrap_or_else(|| "no LSM program may call it".to_owned()) }
    };
    let by = |name, keys| Feature {
        name,
        case: "callable".to_owned(),
        answers: answers(snapshot, kernels, "callable", of_programs(keys)),
    };
    let mut asleep = by("sleepable", SLEEPABLE);
    refuse_unusable(&mut asleep.answers, snapshot);
    let mut features = vec![
        by("plain", PLAIN),
        asleep,
        by("cgroup", OF_A_CGROUP),
        by("without CAP_SYS_ADMIN", UNPRIVILEGED),
    ];
    features.extend(normal_use(snapshot, kernels));
    Item {
        kind: Kind::Helper,
        name: name.to_owned(),
        probe: snapshot.probe.clone(),
        case: "callable".to_owned(),
        prototype: None,
        answers: answers(snapshot, kernels, "callable", callable),
        features,
    }
}

#[cfg(test)]
#[path = "item_tests.rs"]
mod tests;
