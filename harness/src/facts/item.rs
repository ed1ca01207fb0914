//! Items and what each kernel answered about them: hooks, helpers and kfuncs, read from the families' records.
//!
//! "Yes" is the kernel's answer to the plainest question: a hook can be attached to (`hooks/NAME`, case `attach`), a
//! helper may be called by some LSM program (`helpers/NAME`, case `callable`), a kfunc too (`kfuncs/inventory`). What is
//! known beyond that (asleep, from a cgroup, a normal use that works) are the item's features.

use super::helper::helper;
use super::hook::{ALONE, DISABLED, hook, need_company};
use super::kfunc::{INVENTORY, NO_CALLS, kfuncs};
use super::said::crashed_in;
use super::{Answer, Answers, guards};
use crate::normalize::{Normal, NormalCase};
use crate::snapshot::Snapshot;
use probes::record::{End, Outcome};
use std::borrow::Cow;
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

impl Item {
    /// The probe that is about this item alone, which not every kfunc has.
    #[must_use]
    pub fn own_probe(&self) -> String {
        format!("{}s/{}", self.kind.name(), self.name)
    }

    /// Of a hook whose prototype is known: `int`, or `void`, which no program can deny.
    #[must_use]
    pub fn class(&self) -> Option<&'static str> {
        let prototype = self.prototype.as_ref().filter(|_| self.kind == Kind::Hook)?;
        Some(if prototype.starts_with("void ") { "void" } else { "int" })
    }

    /// The probes whose records say something of it: a kfunc has an entry in the inventory, and mostly a probe of its own.
    #[must_use]
    pub fn probes(&self) -> Vec<String> {
        let own = self.own_probe();
        let inventory = (self.probe != own).then(|| self.probe.clone());
        std::iter::once(own).chain(inventory).collect()
    }

    /// What these probes have recorded of it: of the inventory its entry alone.
    #[must_use]
    pub fn snapshots<'a>(&self, snapshots: &'a BTreeMap<String, Snapshot>) -> Vec<Cow<'a, Snapshot>> {
        let of = |snapshot: &'a Snapshot| {
            if snapshot.probe == INVENTORY {
                Cow::Owned(snapshot.of_case(&self.name))
            } else {
                Cow::Borrowed(snapshot)
            }
        };
        self.probes().iter().filter_map(|probe| snapshots.get(probe)).map(of).collect()
    }
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
    excuse_absences(&mut items, snapshots);
    if let Some(alone) = snapshots.get(ALONE) {
        need_company(&mut items, alone);
    }
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

/// The options that kernels were asked for by name, where they have them.
fn witnessed(snapshots: &BTreeMap<String, Snapshot>) -> BTreeSet<(Cow<'static, str>, String)> {
    let Some(witness) = snapshots.get(guards::WITNESS) else { return BTreeSet::new() };
    let shown = witness.current().flat_map(|(kernel, normal)| {
        let done = normal.cases.iter().filter(|case| case.end == End::Done);
        let on = done.filter(|case| case.seen.values().any(guards::witnesses));
        on.map(move |case| (Cow::Owned(case.name.clone()), kernel.to_owned()))
    });
    shown.collect()
}

/// Marks absences that the kernel's configuration may have caused: an option is known to be on where anything else that
/// needs it is there.
fn excuse_absences(items: &mut BTreeMap<(Kind, String), Item>, snapshots: &BTreeMap<String, Snapshot>) {
    let mut on = witnessed(snapshots);
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
                on.extend(options.map(|option| (Cow::Borrowed(option), kernel.clone())));
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
                && !guards::each(option).all(|option| on.contains(&(Cow::Borrowed(option), kernel.clone())))
            {
                *perhaps = Some(option);
            }
        }
    }
}

/// What a case says on each kernel; `done` reads the case that came through. What a kernel said before the probe was
/// changed may be the probe's doing, so that nothing follows from it.
pub(super) fn answers(
    snapshot: &Snapshot,
    kernels: &[String],
    case: &str,
    done: impl Fn(&Normal, &NormalCase) -> Answer,
) -> Answers {
    let answer = |normal: &Normal| {
        let Some(found) = normal.case(case) else { return no_case(normal, case) };
        match &found.end {
            End::Done => done(normal, found),
            End::Refused { errno } => Answer::No { why: refusal(errno, found) },
            End::Absent { what } => absence(snapshot, what),
            End::CouldNotTell { why } => Answer::Unknown { why: why.clone() },
        }
    };
    let of = |kernel: &String| {
        let said = answer(snapshot.of(kernel)?);
        let is_behind = snapshot.behind.contains(kernel);
        let before = || Answer::Unknown { why: format!("asked before the probe changed: {}", said.words()) };
        Some((kernel.clone(), if is_behind { before() } else { said }))
    };
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
    why == NO_CALLS || why.strip_prefix(WITHOUT) == Some(NO_KFUNCS)
}

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
        return Answer::No { why: format!("it crashes: {what}") };
    }
    let why = match &normal.outcome {
        Outcome::Observed => "the probe has no such case there".to_owned(),
        Outcome::CouldNotTell { why } | Outcome::NotRun { why } => why.clone(),
        Outcome::Crashed { what, .. } => format!("the probe crashed: {what}"),
        Outcome::Hung { during } => format!("the probe hung during {during}"),
    };
    Answer::Unknown { why }
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
    let of = |normal: &Normal| Some(normal.case(case)?.seen.get("prototype")?.as_str()?.to_owned());
    snapshot.observed.iter().rev().find_map(|(_, normal)| of(normal))
}

#[cfg(test)]
#[path = "item_tests.rs"]
mod tests;
