//! What changed between kernels: a page for each pair of neighbours, and one on which the script compares any two.

use super::{Material, Subject, layout, page_of_case, sign};
use crate::claims::condition::fact_text;
use crate::facts::{Answer, Said, Version};
use crate::report::counted;
use crate::report::news::{Change, NOT_ASKED, Side, changes};
use maud::{Markup, PreEscaped, html};
use serde::Serialize;
use std::collections::BTreeMap;

pub(super) fn pages(material: &Material<'_>, subjects: &[Subject<'_>]) -> BTreeMap<String, String> {
    let kernels = material.evidence.kernels;
    let mut pages = BTreeMap::new();
    let mut pairs = Vec::new();
    let sides: Vec<Side> =
        kernels.iter().map(|kernel| Side::of_row(kernel, material.evidence.snapshots)).collect();
    for (a, b) in neighbours_of(kernels) {
        let (before, after, found) = (&kernels[a], &kernels[b], changes(&sides[a], &sides[b]));
        let path = format!("differences/{before}-to-{after}.html");
        let text = layout::page(
            &path,
            &format!("{before} to {after}"),
            &neighbours(material, before, after, &found),
        );
        pages.insert(path.clone(), text);
        pairs.push((path, format!("{before} to {after}"), found.len()));
    }
    let content = overview(kernels, &pairs, &table(material, subjects));
    pages.insert("differences.html".to_owned(), layout::page("differences.html", "Differences", &content));
    pages
}

/// The pairs of places whose difference has a page: each kernel with each build of the version before it, and the builds
/// of one version, whose difference is their configuration, among themselves.
pub(super) fn neighbours_of(kernels: &[String]) -> Vec<(usize, usize)> {
    let version = |place: usize| Version::of_row(&kernels[place]);
    let same = |a: usize, b: usize| version(a).is_some() && version(a) == version(b);
    let mut pairs = Vec::new();
    for after in 0..kernels.len() {
        let first = (0..after).rev().take_while(|&place| same(place, after)).last().unwrap_or(after);
        let before = first
            .checked_sub(1)
            .map(|last| (0..last).rev().take_while(|&place| same(place, last)).last().unwrap_or(last)..first);
        pairs.extend(before.into_iter().flatten().chain(first..after).map(|before| (before, after)));
    }
    pairs
}

fn neighbours(material: &Material<'_>, before: &str, after: &str, found: &[Change]) -> Markup {
    let mut kinds: Vec<_> = found.iter().map(|change| change.kind).collect();
    kinds.dedup();
    html! {
        h1 { "From " a href=(format!("../kernels/{before}.html")) { (before) } " to " a href=(format!("../kernels/{after}.html")) { (after) } }
        p { (counted(found.len(), "change")) "." }
        @for kind in kinds {
            @let of_kind: Vec<&Change> = found.iter().filter(|change| change.kind == kind).collect();
            section {
                h2 { (kind.heading()) " (" (of_kind.len()) ")" }
                div class="wide" tabindex="0" role="region" aria-label=(kind.heading()) {
                    table {
                        thead { tr { th scope="col" { "case" } th scope="col" { (before) } th scope="col" { (after) } } }
                        tbody { @for change in of_kind { (row(material, change)) } }
                    }
                }
            }
        }
    }
}

fn row(material: &Material<'_>, change: &Change) -> Markup {
    let name = if change.case.is_empty() {
        change.probe.clone()
    } else {
        format!("{}/{}", change.probe, change.case)
    };
    let fact = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
    html! {
        tr {
            th scope="row" {
                @match page_of_case(material, &name) {
                    Some(page) => a href=(format!("../{page}")) { (name) },
                    None => (name),
                }
            }
            td { (change.before) @for it in &change.facts { br; (it.name) ": " (fact(&it.before)) } }
            td { (change.after) @for it in &change.facts { br; (it.name) ": " (fact(&it.after)) } }
        }
    }
}

fn overview(kernels: &[String], pairs: &[(String, String, usize)], table: &Table) -> Markup {
    // A script element ends at its end tag alone, which `<` cannot begin when it is written as an escape.
    let data = serde_json::to_string(table).unwrap_or_default().replace('<', "\\u003c");
    let newest = kernels.len().saturating_sub(1);
    let select = |id: &str, chosen: usize| {
        html! {
            select id=(id) {
                @for (place, kernel) in kernels.iter().enumerate() {
                    option value=(place) selected[place == chosen] { (kernel) }
                }
            }
        }
    };
    html! {
        h1 { "Differences between kernels" }
        form.filters.needs-script hidden {
            label { "From " (select("from", 0)) }
            label { "to " (select("to", newest)) }
            label { "Search " input type="search" id="search" autocomplete="off"; }
            output id="count" for="from to search" {}
        }
        div class="wide needs-script" tabindex="0" role="region" aria-label="differences" hidden {
            table id="differences" {
                thead { tr { th scope="col" { "subject" } th scope="col" id="before" {} th scope="col" id="after" {} } }
                tbody {}
            }
        }
        h2 { "From one to the next, case by case" }
        ul { @for (path, name, count) in pairs { li { a href=(path) { (name) } ": " (counted(*count, "change")) } } }
        script type="application/json" id="table" { (PreEscaped(data)) }
    }
}

/// What the script compares: answers by number, a row per item or case, a column per kernel.
#[derive(Serialize)]
struct Table {
    kernels: Vec<String>,
    answers: Vec<String>,
    rows: Vec<Row>,
}

/// A row: name, page, the numbers of the answers, and the places of kernels that were asked before the probe changed.
#[derive(Serialize)]
struct Row(String, String, Vec<usize>, Vec<usize>);

/// Answers, each with its number.
#[derive(Default)]
struct Numbers {
    known: BTreeMap<String, usize>,
    answers: Vec<String>,
}

impl Numbers {
    fn of(&mut self, text: String) -> usize {
        *self.known.entry(text.clone()).or_insert_with(|| {
            self.answers.push(text);
            self.answers.len() - 1
        })
    }
}

fn table(material: &Material<'_>, subjects: &[Subject<'_>]) -> Table {
    let kernels = material.evidence.kernels;
    let mut numbers = Numbers::default();
    let mut rows = Vec::new();
    for subject in subjects {
        let mut row = |name: String, said: &dyn Fn(&String) -> String, behind: Vec<usize>| {
            let said = kernels.iter().map(|kernel| numbers.of(said(kernel))).collect();
            rows.push(Row(name, subject.path(), said, behind));
        };
        match subject {
            // An answer from before a probe changed says so itself.
            Subject::Item(item) => {
                let features =
                    item.features.iter().map(|it| (format!("{} ({})", item.name, it.name), &it.answers));
                for (name, answers) in std::iter::once((item.name.clone(), &item.answers)).chain(features) {
                    let words = |kernel: &String| {
                        answers.of(kernel).map_or_else(|| sign(None).means.to_owned(), Answer::words)
                    };
                    row(name, &words, Vec::new());
                }
            }
            Subject::Rule(snapshot) => {
                let is_behind = |place: &usize| snapshot.behind.contains(&kernels[*place]);
                let behind: Vec<usize> = (0..kernels.len()).filter(is_behind).collect();
                for name in &snapshot.order {
                    let words = |kernel: &String| {
                        let said = snapshot.of(kernel).and_then(|normal| Said::of(normal, name));
                        said.map_or_else(|| NOT_ASKED.to_owned(), in_full)
                    };
                    row(format!("{}/{name}", snapshot.probe), &words, behind.clone());
                }
            }
        }
    }
    rows.retain(|Row(_, _, numbers, _)| numbers.iter().any(|number| Some(number) != numbers.first()));
    Table { kernels: kernels.to_vec(), answers: numbers.answers, rows }
}

/// A case's answer as text, with what was seen.
fn in_full(said: Said<'_>) -> String {
    let facts = said.seen().into_iter().flatten();
    let facts = facts.map(|(key, value)| format!("; {key}: {}", fact_text(value)));
    std::iter::once(said.words()).chain(facts).collect()
}
