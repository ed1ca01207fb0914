//! `hooks.json`, `helpers.json`, `kfuncs.json`: an item each, with its support, features, notes and evidence.

use super::{Material, Range};
use crate::facts::{self, Answer, Answers, Feature, Item, Kind, Known, guards};
use crate::snapshot::Snapshot;
use serde::Serialize;
use std::collections::BTreeMap;

/// An item. `compat.schema.json` documents the fields of everything here.
#[derive(Debug, Serialize)]
pub struct Compat {
    #[serde(skip_serializing_if = "Option::is_none")]
    prototype: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<&'static str>,
    support: Vec<Support>,
    unknown: Vec<String>,
    features: BTreeMap<&'static str, FeatureCompat>,
    notes: Vec<Note>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    measured_before_change: Vec<String>,
    evidence: String,
}

#[derive(Debug, Serialize)]
struct Support {
    #[serde(flatten)]
    range: Range,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<String>,
}

#[derive(Debug, Serialize)]
struct FeatureCompat {
    support: Vec<Support>,
    unknown: Vec<String>,
    notes: Vec<Note>,
    evidence: String,
}

#[derive(Debug, Serialize)]
struct Note {
    kernels: Vec<String>,
    note: String,
}

/// The items of a kind, by name.
pub(super) fn of_kind(material: &Material<'_>, kind: Kind) -> BTreeMap<String, Compat> {
    let of_kind = material.items.values().filter(|item| item.kind == kind);
    of_kind.map(|item| (item.name.clone(), compat(material.snapshots, material.kernels, item))).collect()
}

/// An item as its file has it, of what is measured on `kernels`.
#[must_use]
pub fn compat(snapshots: &BTreeMap<String, Snapshot>, kernels: &[String], item: &Item) -> Compat {
    let feature = |feature: &Feature| {
        let evidence = match (item.kind, feature.name) {
            // A kfunc's normal use is a case of its own probe.
            (Kind::Kfunc, "normal use") => format!("kfuncs/{}", feature.case),
            _ => format!("{}/{}", item.probe, feature.case),
        };
        FeatureCompat {
            support: support(&feature.answers),
            unknown: unknown(&feature.answers),
            notes: notes(&feature.answers),
            evidence,
        }
    };
    Compat {
        class: item.class(),
        prototype: item.prototype.clone(),
        config: guards::guard(item.kind, &item.name),
        support: support(&item.answers),
        unknown: unknown(&item.answers),
        features: item.features.iter().map(|it| (it.name, feature(it))).collect(),
        notes: notes(&item.answers),
        measured_before_change: behind(snapshots, kernels, item),
        evidence: format!("{}/{}", item.probe, item.case),
    }
}

/// A statement for each condition under which it is so, in the order of its first kernel.
fn support(answers: &Answers) -> Vec<Support> {
    let statement = |it: facts::Support<'_>| Support {
        range: Range::of(&it.span, it.rows),
        condition: Some(it.condition.to_owned()).filter(|condition| !condition.is_empty()),
    };
    answers.support().into_iter().map(statement).collect()
}

/// The kernels that were last asked before a probe of the item changed; a kfunc has its own besides the inventory.
fn behind(snapshots: &BTreeMap<String, Snapshot>, kernels: &[String], item: &Item) -> Vec<String> {
    let asked: Vec<&Snapshot> = item.probes().iter().filter_map(|probe| snapshots.get(probe)).collect();
    let is_behind = |kernel: &&String| asked.iter().any(|snapshot| snapshot.behind.contains(*kernel));
    kernels.iter().filter(is_behind).cloned().collect()
}

fn unknown(answers: &Answers) -> Vec<String> {
    answers.kernels(Known::Unknown).map(str::to_owned).collect()
}

/// What kernels said that was no plain yes, each once.
fn notes(answers: &Answers) -> Vec<Note> {
    let mut notes: Vec<Note> = Vec::new();
    for (kernel, answer) in &answers.0 {
        let note = match answer {
            Answer::Yes { .. } => continue,
            Answer::No { why } => why.clone(),
            Answer::Absent { .. } | Answer::BuildLacks { .. } | Answer::Unknown { .. } => {
                answers.words_of(kernel).unwrap_or_else(|| answer.words())
            }
        };
        match notes.iter_mut().find(|known| known.note == note) {
            Some(known) => known.kernels.push(kernel.clone()),
            None => notes.push(Note { kernels: vec![kernel.clone()], note }),
        }
    }
    notes
}
