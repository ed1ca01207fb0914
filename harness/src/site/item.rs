//! A page per subject: what it is, since when, what each kernel answered, the record.

use super::{Material, Program, Subject, layout, sign};
use crate::claims::condition::fact_text;
use crate::facts::{Answers, Item, Said, Version, guards};
use crate::normalize::Normal;
use crate::snapshot::{Snapshot, SnapshotError, alike, kernel_phrase, render_body};
use maud::{Markup, html};
use probes::record::{End, Outcome};
use serde_json::{Map, Value};

pub(super) fn page(material: &Material<'_>, subject: Subject<'_>) -> Result<String, SnapshotError> {
    let snapshots = subject.snapshots(material);
    let mut records = Vec::new();
    for snapshot in &snapshots {
        let entry = match subject {
            Subject::Item(item) if item.probe != item.own_probe() && item.probe == snapshot.probe => {
                format!("{}/{}", snapshot.probe, item.case)
            }
            Subject::Item(_) | Subject::Rule(_) => snapshot.probe.clone(),
        };
        records.push((entry, render_body(snapshot)?));
    }
    let content = html! {
        p.kind { (subject.kind()) }
        h1 { (subject.name()) }
        @if let Subject::Item(item) = subject { (summary(material, item)) }
        (per_kernel(material, subject))
        @for snapshot in &snapshots {
            (answers(snapshot))
            (sources(material, &snapshot.probe))
            (programs(snapshot, material.programs.get(&snapshot.probe)))
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
    let support = answers.support();
    html! {
        @for it in &support {
            tr {
                th scope="row" { (what) @if !it.condition.is_empty() { ", " (it.condition) } }
                td { (it.span.added) }
                td { @if let Some(removed) = it.span.removed { (removed) } }
                td { (rows(material.evidence.kernels, &it.rows)) }
            }
        }
        @if support.is_empty() { tr { th scope="row" { (what) } td colspan="3" { (answers.never()) } } }
    }
}

/// The rows of a range in words. A range is one of versions: further builds of one that do not stand for it do not
/// interrupt it.
fn rows(kernels: &[String], rows: &[String]) -> String {
    let counts = |kernel: &&String| Version::of_flavour(kernel).is_none() || rows.contains(kernel);
    let all: Vec<String> = kernels.iter().filter(counts).cloned().collect();
    let places: Vec<usize> = (0..all.len()).filter(|&place| rows.contains(&all[place])).collect();
    kernel_phrase(&all, &places)
}

/// An anchor for each kernel, with its answer in a line.
fn per_kernel(material: &Material<'_>, subject: Subject<'_>) -> Markup {
    let line = |kernel: &String| match subject {
        Subject::Item(item) => {
            let sign = sign(item.answers.of(kernel));
            (sign.class, item.answers.words_of(kernel).unwrap_or_else(|| sign.means.to_owned()))
        }
        Subject::Rule(snapshot) => match snapshot.of(kernel) {
            Some(normal) => ("r", in_a_line(normal)),
            None => (sign(None).class, sign(None).means.to_owned()),
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
                    @let groups = alike(snapshot.observed.iter().map(|(_, normal)| Said::of(normal, name)));
                    tbody {
                        @for (place, (said, places)) in groups.iter().enumerate() {
                            tr {
                                @if place == 0 { th scope="rowgroup" rowspan=(groups.len()) id=(format!("c-{name}")) { (name) } }
                                td { (kernel_phrase(&all, places)) }
                                td { (said.result()) @if let Some(note) = said.note() { pre.reason { (note) } } }
                                td { @if let Some(facts) = said.seen() { (seen(facts)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn seen(facts: &Map<String, Value>) -> Markup {
    html! {
        @if !facts.is_empty() {
            dl.seen { @for (key, value) in facts { dt { (key) } dd { (fact_text(value)) } } }
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

/// The programs of the cases that the page shows.
fn programs(snapshot: &Snapshot, kept: Option<&Vec<Program>>) -> Markup {
    let probe = &snapshot.probe;
    html! {
        @match kept {
            Some(programs) => @for program in programs.iter().filter(|it| snapshot.order.contains(&it.case)) {
                details {
                    summary { "The program of " (program.case) ", made for " (program.kernel) }
                    pre { (program.text) }
                }
            },
            None => p { "The program: " code { "cargo conform show " (probe) } " boots kernels and prints it." },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::made_up::names;
    use rstest::rstest;

    /// A version's own row is named only where it says so itself.
    #[rstest]
    #[case(&["6.1", "6.2"], "from 6.1")]
    #[case(&["6.1-fragments", "6.2"], "from 6.1-fragments")]
    #[case(&["6.1-fragments"], "only 6.1-fragments")]
    #[case(&["6.0", "6.1", "6.2"], "all")]
    fn a_range_names_the_rows_that_show_it(#[case] so: &[&str], #[case] says: &str) {
        assert_eq!(rows(&names(&["6.0", "6.1", "6.1-fragments", "6.2"]), &names(so)), says);
    }
}
