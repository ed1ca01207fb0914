//! What the documentation says, with the verdicts, without a page at hand.

use super::{Material, layout, page_of_case};
use crate::docs::check::{Finding, Verdict, of_claims};
use maud::{Markup, html};

pub(super) fn page(material: &Material<'_>) -> String {
    let report = of_claims(&material.evidence);
    let (statements, entries): (Vec<&Finding>, Vec<&Finding>) =
        report.findings.iter().partition(|finding| !finding.id.contains('/'));
    let content = html! {
        h1 { "What the documentation says" }
        p {
            "Each statement of the documentation's page on " code { "BPF_PROG_TYPE_LSM" }
            ", in this project's words, and what the kernels say of it: "
            @for (place, verdict) in Verdict::ALL.iter().filter(|verdict| report.count(**verdict) > 0).enumerate() {
                @if place > 0 { ", " }
                (report.count(*verdict)) " " (verdict.name())
            }
            "."
        }
        h2 { "Statements" }
        (table(material, &statements))
        h2 { "Entries of its lists" }
        (table(material, &entries))
        h2 { "What its lists leave out" }
        div class="wide" tabindex="0" role="region" aria-label="not listed" {
            table {
                thead { tr { th scope="col" { "name" } th scope="col" { "since" } th scope="col" { "gone in" } th scope="col" { "who may call it" } } }
                tbody {
                    @for it in &report.unlisted {
                        tr {
                            th scope="row" { (link(material, &it.evidence, &it.name)) }
                            td { (it.added) }
                            td { @if let Some(removed) = &it.removed { (removed) } }
                            td { (it.condition.as_deref().unwrap_or("every LSM program")) }
                        }
                    }
                }
            }
        }
    };
    layout::page("claims.html", "Claims", &content)
}

fn table(material: &Material<'_>, findings: &[&Finding]) -> Markup {
    html! {
        div class="wide" tabindex="0" role="region" aria-label="statements" {
            table {
                thead { tr { th scope="col" { "statement" } th scope="col" { "verdict" } th scope="col" { "why" } th scope="col" { "shown by" } } }
                tbody {
                    @for finding in findings {
                        tr id=(finding.id) {
                            th scope="row" { (finding.says) @if finding.inferred { " (readers infer it)" } }
                            td class=(format!("v-{}", finding.verdict.name())) { (finding.verdict.name()) }
                            td { (finding.detail) @if let Some(instead) = &finding.instead { p.instead { (instead) } } }
                            td {
                                @for case in finding.evidence.iter().take(4) { (link(material, case, case)) br; }
                                @if finding.evidence.len() > 4 { "and " (finding.evidence.len() - 4) " more" }
                                @for source in &finding.source { br; code { (source) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn link(material: &Material<'_>, case: &str, text: &str) -> Markup {
    html! {
        @match page_of_case(material, case) {
            Some(page) => a href=(page) { (text) },
            None => (text),
        }
    }
}
