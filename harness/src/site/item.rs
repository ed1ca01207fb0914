//! A page per subject: what it is, since when, what each kernel answered, the record.

use super::{Material, Program, Subject, layout, sign};
use crate::facts::{Answers, Item, Span, Version, guards};
use crate::normalize::{Normal, NormalCase};
use crate::snapshot::{Snapshot, SnapshotError, kernel_phrase, render_body, result_line};
use maud::{Markup, html};
use probes::record::{End, Outcome};

pub(super) fn page(material: &Material<'_>, subject: Subject<'_>) -> Result<String, SnapshotError> {
    let snapshots = subject.snapshots(material);
    let mut records = Vec::new();
    for snapshot in &snapshots {
        records.push((snapshot.probe.as_str(), render_body(snapshot)?));
    }
    let content = html! {
        p.kind { (subject.kind()) }
        h1 { (subject.name()) }
        @if let Subject::Item(item) = subject { (summary(material, item)) }
        (per_kernel(material, subject))
        @for snapshot in &snapshots {
            (answers(snapshot))
            (sources(material, &snapshot.probe))
            (programs(&snapshot.probe, material.programs.get(&snapshot.probe)))
        }
        @for (probe, text) in &records {
            details {
                summary { "The record of " code { (probe) } }
                pre { (text) }
            }
        }
    };
    Ok(layout::page(&subject.path(), subject.name(), &content))
}

/// Prototype, ranges, features.
fn summary(material: &Material<'_>, item: &Item) -> Markup {
    html! {
        @if let Some(prototype) = &item.prototype { pre { (prototype) } }
        @if let Some(option) = guards::guard(item.kind, &item.name) {
            p { "A kernel of any version lacks it without " code { (option) } "." }
        }
        table {
            thead { tr { th scope="col" { "what" } th scope="col" { "since" } th scope="col" { "until" } th scope="col" { "measured on" } } }
            tbody {
                (ranges(material, what(item), &item.answers))
                @for feature in &item.features { (ranges(material, feature.name, &feature.answers)) }
            }
        }
    }
}

const fn what(item: &Item) -> &'static str {
    match item.kind {
        crate::facts::Kind::Hook => "can be attached to",
        crate::facts::Kind::Helper | crate::facts::Kind::Kfunc => "may be called",
    }
}

fn ranges(material: &Material<'_>, what: &str, answers: &Answers) -> Markup {
    let spans: Vec<(&str, Span)> = answers
        .by_condition()
        .into_iter()
        .flat_map(|(condition, spans)| spans.into_iter().map(move |span| (condition, span)))
        .collect();
    // A range is one of versions: further builds of one neither belong to it nor interrupt it.
    let is_flavour = |kernel: &&String| Version::of_flavour(kernel).is_some();
    let all: Vec<String> =
        material.evidence.kernels.iter().filter(|kernel| !is_flavour(kernel)).cloned().collect();
    html! {
        @for (condition, span) in &spans {
            @let names: Vec<String> = span.kernels.iter().map(ToString::to_string).collect();
            @let places: Vec<usize> = (0..all.len()).filter(|&place| names.contains(&all[place])).collect();
            tr {
                th scope="row" { (what) @if !condition.is_empty() { ", " (condition) } }
                td { (span.added) }
                td { @if let Some(removed) = span.removed { (removed) } }
                td { (kernel_phrase(&all, &places)) }
            }
        }
        @if spans.is_empty() { tr { th scope="row" { (what) } td colspan="3" { (answers.never()) } } }
    }
}

/// An anchor for each kernel, with its answer in a line.
fn per_kernel(material: &Material<'_>, subject: Subject<'_>) -> Markup {
    let line = |kernel: &String| match subject {
        Subject::Item(item) => match item.answers.of(kernel) {
            Some(answer) => (sign(answer).0, item.answers.words_of(kernel).unwrap_or_else(|| answer.words())),
            None => ("m", "not measured".to_owned()),
        },
        Subject::Rule(snapshot) => match snapshot.of(kernel) {
            Some(normal) => ("r", in_a_line(normal)),
            None => ("m", "not measured".to_owned()),
        },
    };
    let up = layout::up(&subject.path());
    html! {
        h2 { "Per kernel" }
        dl.kernels {
            @for kernel in material.evidence.kernels {
                @let (class, words) = line(kernel);
                div id=(layout::kernel_id(kernel)) {
                    dt { a href=(format!("{up}kernels/{kernel}.html")) { (kernel) } }
                    dd class=(class) { (words) }
                }
            }
        }
    }
}

fn in_a_line(normal: &Normal) -> String {
    let count = |wanted: fn(&End) -> bool| normal.cases.iter().filter(|case| wanted(&case.end)).count();
    let done = count(|end| matches!(end, End::Done));
    let refused = count(|end| matches!(end, End::Refused { .. }));
    let absent = count(|end| matches!(end, End::Absent { .. }));
    let unknown = count(|end| matches!(end, End::CouldNotTell { .. }));
    let parts = [(done, "done"), (refused, "refused"), (absent, "absent"), (unknown, "could not tell")];
    let counted: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    match &normal.outcome {
        Outcome::Observed => counted.join(", "),
        Outcome::Crashed { what, .. } => format!("crashed: {what}"),
        Outcome::Hung { during } => format!("hung during {during}"),
        Outcome::CouldNotTell { why } | Outcome::NotRun { why } => format!("could not tell: {why}"),
    }
}

/// Every case, with an answer per range of kernels.
fn answers(snapshot: &Snapshot) -> Markup {
    let all: Vec<String> = snapshot.kernels().map(str::to_owned).collect();
    let behind: Vec<&str> = snapshot.kernels_behind().collect();
    html! {
        h2 { "Answers of " code { (snapshot.probe) } }
        p { (snapshot.question) }
        @if !behind.is_empty() {
            p { "Measured before the probe changed, so that what sets them apart may be the probe: " (behind.join(", ")) }
        }
        div class="wide" tabindex="0" role="region" aria-label="answers" {
            table.answers {
                thead { tr { th scope="col" { "case" } th scope="col" { "kernels" } th scope="col" { "answer" } th scope="col" { "seen" } } }
                @for name in &snapshot.order {
                    @let groups = groups(snapshot, name);
                    tbody {
                        @for (place, (case, places)) in groups.iter().enumerate() {
                            tr {
                                @if place == 0 { th scope="rowgroup" rowspan=(groups.len()) id=(format!("c-{name}")) { (name) } }
                                td { (kernel_phrase(&all, places)) }
                                td { (result_line(case)) @if let Some(reason) = reason(case) { pre.reason { (reason) } } }
                                td { (seen(case)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn groups<'a>(snapshot: &'a Snapshot, name: &str) -> Vec<(&'a NormalCase, Vec<usize>)> {
    let mut groups: Vec<(&NormalCase, Vec<usize>)> = Vec::new();
    for (place, (_, normal)) in snapshot.observed.iter().enumerate() {
        let Some(case) = normal.cases.iter().find(|case| case.name == name) else { continue };
        match groups.iter_mut().find(|(known, _)| *known == case) {
            Some((_, places)) => places.push(place),
            None => groups.push((case, vec![place])),
        }
    }
    groups
}

fn reason(case: &NormalCase) -> Option<&str> {
    match &case.end {
        End::Absent { what } => Some(what),
        End::CouldNotTell { why } => Some(why),
        End::Done | End::Refused { .. } => case.reason.as_deref(),
    }
}

fn seen(case: &NormalCase) -> Markup {
    html! {
        @if !case.seen.is_empty() {
            dl.seen {
                @for (key, value) in &case.seen {
                    dt { (key) } dd { (crate::claims::condition::fact_text(value)) }
                }
            }
        }
    }
}

fn sources(material: &Material<'_>, probe: &str) -> Markup {
    let info = material.probes.iter().find(|info| info.id == probe);
    html! {
        @if let Some(info) = info {
            @if !info.sources.is_empty() {
                p { "Kernel source: "
                    @for (place, source) in info.sources.iter().enumerate() {
                        @if place > 0 { ", " }
                        code { (source.version) " " (source.file) " " (source.symbol) }
                    }
                    "."
                }
            }
        }
    }
}

fn programs(probe: &str, kept: Option<&Vec<Program>>) -> Markup {
    html! {
        @match kept {
            Some(programs) => @for program in programs {
                details {
                    summary { "The program of " (program.case) ", made for " (program.kernel) }
                    pre { (program.text) }
                }
            },
            None => p { "The program: " code { "cargo conform show " (probe) } " boots kernels and prints it." },
        }
    }
}
