//! `rules.json`: every probe whose records are not those of an item in the other files, case by case, with the ranges of each
//! answer.

use super::{Material, Range};
use crate::facts::guards::leaves_out;
use crate::facts::{Item, Kind, Known, Said, spans};
use crate::normalize::NormalCase;
use crate::report::list::SourceInfo;
use crate::snapshot::{Snapshot, alike};
use crate::version::by_version;
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
    let of_items: BTreeSet<String> = material.items.values().flat_map(Item::probes).collect();
    let is_rule = |id: &str| !of_items.contains(id);
    let rules = material.snapshots.values().filter(|snapshot| is_rule(&snapshot.probe));
    rules.map(|snapshot| (snapshot.probe.clone(), rule(material, snapshot))).collect()
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
#[derive(Clone, Copy)]
struct Told<'a> {
    kernel: &'a str,
    /// Whether what it says is a word about its version: not if it was asked before the probe changed, could not tell, or
    /// lacks what its configuration may have left out.
    tells: bool,
    said: Said<'a>,
}

/// Whether the case came to an answer, on a kernel whose items are these.
fn tells(said: Said<'_>, items: &BTreeMap<(Kind, String), Item>, kernel: &str) -> bool {
    match said {
        Said::Case(NormalCase { end: End::CouldNotTell { .. }, .. }) => false,
        Said::Case(NormalCase { end: End::Absent { what }, .. }) => named(what).is_none_or(|(kind, name)| {
            let item = items.get(&(kind, name.to_owned()));
            let answer = item.and_then(|item| item.answers.of(kernel));
            answer.map_or(leaves_out(kind, name).is_none(), |answer| answer.known() != Known::Unknown)
        }),
        Said::Case(_) | Said::Crash { .. } => true,
    }
}

/// The item that a record says is absent, if it is one.
fn named(what: &str) -> Option<(Kind, &str)> {
    let kinds = [("kfunc ", Kind::Kfunc), ("hook ", Kind::Hook)];
    kinds.into_iter().find_map(|(word, kind)| Some((kind, what.strip_prefix(word)?)))
}

/// The answers to one case, in the order of their first kernel.
fn answers(material: &Material<'_>, snapshot: &Snapshot, name: &str) -> Vec<Answer> {
    let of = |kernel: &String| Said::of(snapshot.of(kernel)?, name);
    let told: Vec<Told<'_>> = material
        .kernels
        .iter()
        .filter_map(|kernel| {
            let said = of(kernel)?;
            let tells = !snapshot.behind.contains(kernel) && tells(said, material.items, kernel);
            Some(Told { kernel, tells, said })
        })
        .collect();
    let distinct = alike(told.iter().map(|it| Some(it.said)));
    distinct.into_iter().map(|(said, places)| answer(said, &places, &told)).collect()
}

/// One answer, of the kernels in these places.
fn answer(said: Said<'_>, places: &[usize], told: &[Told<'_>]) -> Answer {
    // A case has one answer on a version: a further build is asked only where the version's own row does not tell, for what
    // it says else may be its configuration's doing.
    let versions =
        by_version(told.iter().map(|it| (it.kernel, *it)), |row, flavour| !row.tells && flavour.tells);
    let known = |it: Told<'_>| match it.tells {
        false => Known::Unknown,
        true if it.said == said => Known::Yes,
        true => Known::No,
    };
    let states: Vec<_> = versions.into_iter().map(|(version, it)| (version, known(it))).collect();
    let kernels: Vec<String> =
        places.iter().filter_map(|&place| told.get(place)).map(|it| it.kernel.to_owned()).collect();
    // Where a kernel could not tell, the others' answer may hold as well: such an answer has kernels and no range.
    let so: Vec<&str> = kernels.iter().map(String::as_str).collect();
    Answer {
        support: spans(&states).iter().map(|span| Range::of(span, span.rows(&so))).collect(),
        kernels,
        result: said.result(),
        note: said.note().map(str::to_owned),
        seen: said.seen().cloned().unwrap_or_default(),
    }
}
