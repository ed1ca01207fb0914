//! `rules.json`: every probe whose records are not those of an item in the other files, case by case, with the ranges of each
//! answer.

use super::{Material, Range};
use crate::facts::guards::leaves_out;
use crate::facts::item::crashed_in;
use crate::facts::{Item, Kind, Known, Version, spans};
use crate::normalize::NormalCase;
use crate::report::list::SourceInfo;
use crate::snapshot::{Snapshot, result_line};
use probes::record::End;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A probe. `compat.schema.json` documents the fields of everything here.
#[derive(Debug, Serialize)]
pub(super) struct Rule {
    question: String,
    source: Vec<SourceInfo>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    measured_before_change: Vec<String>,
    cases: BTreeMap<String, Vec<Answer>>,
}

#[derive(Debug, Serialize)]
struct Answer {
    support: Vec<Range>,
    kernels: Vec<String>,
    result: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    seen: Map<String, Value>,
}

/// Every rule, by its probe's id.
pub(super) fn all(material: &Material<'_>) -> BTreeMap<String, Rule> {
    let of_items: BTreeSet<String> = material.items.values().flat_map(probes_of).collect();
    let is_rule = |id: &str| !of_items.contains(id);
    let rules = material.snapshots.values().filter(|snapshot| is_rule(&snapshot.probe));
    rules.map(|snapshot| (snapshot.probe.clone(), rule(material, snapshot))).collect()
}

/// The probes whose records stand in an item: a kfunc has its own beside the inventory.
pub(super) fn probes_of(item: &Item) -> BTreeSet<String> {
    let own = (item.kind == Kind::Kfunc).then(|| format!("kfuncs/{}", item.name));
    own.into_iter().chain([item.probe.clone()]).collect()
}

fn rule(material: &Material<'_>, snapshot: &Snapshot) -> Rule {
    let info = material.probes.iter().find(|probe| probe.id == snapshot.probe);
    let cases = snapshot.order.iter().map(|case| (case.clone(), answers(material, snapshot, case)));
    Rule {
        question: snapshot.question.clone(),
        source: info.map(|info| info.sources.clone()).unwrap_or_default(),
        measured_before_change: snapshot.kernels_behind().map(str::to_owned).collect(),
        cases: cases.collect(),
    }
}

/// What one kernel answered to a case.
struct Told<'a> {
    kernel: &'a String,
    /// Whether what it says is a word about its version: not if it was asked before the probe changed, could not tell, or
    /// lacks what its configuration may have left out.
    tells: bool,
    said: Said<'a>,
}

#[derive(Clone, Copy, PartialEq)]
enum Said<'a> {
    Case(&'a NormalCase),
    /// The probe ended in it: by a crash with these words, in this phase.
    Crash(&'a str, &'a str),
}

impl Said<'_> {
    /// Whether the case came to an answer, on a kernel whose items are these.
    fn tells(self, items: &BTreeMap<(Kind, String), Item>, kernel: &str) -> bool {
        match self {
            Self::Case(NormalCase { end: End::CouldNotTell { .. }, .. }) => false,
            Self::Case(NormalCase { end: End::Absent { what }, .. }) => {
                named(what).is_none_or(|(kind, name)| {
                    let item = items.get(&(kind, name.to_owned()));
                    let answer = item.and_then(|item| item.answers.of(kernel));
                    answer.map_or(leaves_out(kind, name).is_none(), |answer| answer.known() != Known::Unknown)
                })
            }
            Self::Case(_) | Self::Crash(..) => true,
        }
    }
}

/// The item that a record says is absent, if it is one.
fn named(what: &str) -> Option<(Kind, &str)> {
    let kinds = [("kfunc ", Kind::Kfunc), ("hook ", Kind::Hook)];
    kinds.into_iter().find_map(|(word, kind)| Some((kind, what.strip_prefix(word)?)))
}

/// The answers to one case, in the order of their first kernel.
fn answers(material: &Material<'_>, snapshot: &Snapshot, name: &str) -> Vec<Answer> {
    let told: Vec<Told<'_>> =
        material.kernels.iter().filter_map(|kernel| of_kernel(material, snapshot, name, kernel)).collect();
    let mut distinct: Vec<Said<'_>> = Vec::new();
    for it in &told {
        if !distinct.contains(&it.said) {
            distinct.push(it.said);
        }
    }
    distinct.into_iter().map(|said| answer(said, &told)).collect()
}

fn of_kernel<'a>(
    material: &Material<'_>,
    snapshot: &'a Snapshot,
    name: &str,
    kernel: &'a String,
) -> Option<Told<'a>> {
    let normal = snapshot.of(kernel)?;
    let case = normal.cases.iter().find(|case| case.name == name).map(Said::Case);
    let said = case.or_else(|| crashed_in(normal, name).map(|(what, phase)| Said::Crash(what, phase)))?;
    let tells = !snapshot.behind.contains(kernel) && said.tells(material.items, kernel);
    Some(Told { kernel, tells, said })
}

fn answer(said: Said<'_>, told: &[Told<'_>]) -> Answer {
    let state = |other: &Told<'_>| {
        if !other.tells {
            Known::Unknown
        } else if other.said == said {
            Known::Yes
        } else {
            Known::No
        }
    };
    let states: Vec<_> = told.iter().filter_map(|it| Some((Version::parse(it.kernel)?, state(it)))).collect();
    let same = told.iter().filter(|it| it.said == said);
    let kernels: Vec<String> = same.map(|it| it.kernel.clone()).collect();
    // Where a kernel could not tell, the others' answer may hold as well: such an answer has kernels and no range.
    let so: Vec<&str> = kernels.iter().map(String::as_str).collect();
    let support = spans(&states).iter().map(|span| Range::of(span, &so)).collect();
    let (result, note, seen) = match said {
        Said::Crash(what, phase) => (format!("crashed at {phase}"), Some(what.to_owned()), Map::new()),
        Said::Case(case) => {
            let note = match &case.end {
                End::Done => None,
                End::Refused { .. } => case.reason.clone(),
                End::Absent { what: text } | End::CouldNotTell { why: text } => Some(text.clone()),
            };
            (result_line(case), note, case.seen.clone())
        }
    };
    Answer { support, kernels, result, note, seen }
}
