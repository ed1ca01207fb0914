//! `rules.json`: every probe that is not about a single item, case by case, with the ranges of each answer.

use super::{Material, Range};
use crate::facts::{Known, Version, spans};
use crate::normalize::NormalCase;
use crate::report::list::SourceInfo;
use crate::snapshot::{Snapshot, result_line};
use probes::record::End;
use probes::spec::family_of;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

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
    let of_items: Vec<&str> = material.items.values().map(|item| item.probe.as_str()).collect();
    let is_rule =
        |id: &str| !["hooks", "helpers", "kfuncs"].contains(&family_of(id)) && !of_items.contains(&id);
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

/// The answers to one case, in the order of their first kernel.
fn answers(material: &Material<'_>, snapshot: &Snapshot, name: &str) -> Vec<Answer> {
    let of_kernel = |kernel: &String| {
        let case = snapshot.of(kernel)?.cases.iter().find(|case| case.name == name)?;
        Some((kernel.clone(), case))
    };
    let cases: Vec<(String, &NormalCase)> = material.kernels.iter().filter_map(of_kernel).collect();
    let mut distinct: Vec<&NormalCase> = Vec::new();
    for (_, case) in &cases {
        if !distinct.contains(case) {
            distinct.push(case);
        }
    }
    distinct.into_iter().map(|case| answer(case, &cases)).collect()
}

fn answer(case: &NormalCase, cases: &[(String, &NormalCase)]) -> Answer {
    let state = |other: &NormalCase| match &other.end {
        _ if other == case => Known::Yes,
        End::CouldNotTell { .. } => Known::Unknown,
        End::Done | End::Refused { .. } | End::Absent { .. } => Known::No,
    };
    let states: Vec<_> =
        cases.iter().filter_map(|(kernel, other)| Some((Version::parse(kernel)?, state(other)))).collect();
    let same = cases.iter().filter(|(_, other)| *other == case);
    let kernels: Vec<String> = same.map(|(kernel, _)| kernel.clone()).collect();
    let note = match &case.end {
        End::Done => None,
        End::Refused { .. } => case.reason.clone(),
        End::Absent { what: text } | End::CouldNotTell { why: text } => Some(text.clone()),
    };
    // Where a kernel could not tell, the others' answer may hold as well: such an answer has kernels and no range.
    let support = match &case.end {
        End::CouldNotTell { .. } => Vec::new(),
        End::Done | End::Refused { .. } | End::Absent { .. } => {
            let so: Vec<&str> = kernels.iter().map(String::as_str).collect();
            spans(&states).iter().map(|span| Range::of(span, &so)).collect()
        }
    };
    Answer { support, kernels, result: result_line(case), note, seen: case.seen.clone() }
}
