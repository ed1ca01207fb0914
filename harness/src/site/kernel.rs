//! A page per kernel: what it is, and what it answers.

use super::differences::neighbours_of;
use super::{Material, SIGNS, Subject, layout, sign};
use crate::export;
use crate::report::coverage;
use maud::{Markup, html};
use std::collections::BTreeMap;

pub(super) fn pages(material: &Material<'_>, subjects: &[Subject<'_>]) -> BTreeMap<String, String> {
    let one = |(place, kernel): (usize, &String)| {
        let path = format!("kernels/{kernel}.html");
        let text = layout::page(&path, kernel, &page(material, subjects, place, kernel));
        (path, text)
    };
    material.evidence.kernels.iter().enumerate().map(one).collect()
}

fn page(material: &Material<'_>, subjects: &[Subject<'_>], place: usize, kernel: &str) -> Markup {
    let kernels = material.evidence.kernels;
    let neighbours =
        neighbours_of(kernels).into_iter().filter(|(before, after)| [*before, *after].contains(&place));
    let figures = coverage::coverage(material.evidence.snapshots, &[kernel.to_owned()]);
    html! {
        p.kind { "kernel" }
        h1 { (kernel) }
        p { (build(material, kernel)) }
        ul {
            @for (before, after) in neighbours.map(|(before, after)| (&kernels[before], &kernels[after])) {
                li { a href=(format!("../differences/{before}-to-{after}.html")) { "what changed from " (before) " to " (after) } }
            }
        }
        @for figures in figures {
            p {
                "Of " (figures.hooks) " hooks " (figures.attachable) " can be attached to, " (figures.fired)
                " were seen to run a program, and " (figures.denied) " of " (figures.int_attachable)
                " that return a verdict were seen to deny."
            }
        }
        @for (kind, heading) in [("hook", "Hooks"), ("helper", "Helpers"), ("kfunc", "Kfuncs")] {
            (section(subjects, kind, heading, kernel))
        }
        section {
            h2 { "Rules" }
            ul.names {
                @for subject in subjects.iter().filter(|subject| subject.kind() == "rule") {
                    @if let Subject::Rule(snapshot) = subject {
                        @if snapshot.of(kernel).is_some() { li { (link(*subject, kernel)) } }
                    }
                }
            }
        }
    }
}

fn build(material: &Material<'_>, kernel: &str) -> String {
    let row = material.matrix.rows.iter().find(|row| row.name == kernel);
    let lsm = row.map(|row| format!("; lsm={}", row.lsm)).unwrap_or_default();
    format!("Booted: {}{lsm}.", export::build(row.map(|row| &row.source)))
}

fn section(subjects: &[Subject<'_>], kind: &str, heading: &str, kernel: &str) -> Markup {
    let of_kind = || subjects.iter().filter(|subject| subject.kind() == kind);
    let with = |class: &str| -> Vec<Subject<'_>> {
        let fits = |subject: &&Subject<'_>| match subject {
            Subject::Item(item) => sign(item.answers.of(kernel)).class == class,
            Subject::Rule(_) => false,
        };
        of_kind().filter(fits).copied().collect()
    };
    html! {
        section {
            h2 { (heading) }
            @for sign in SIGNS {
                @let found = with(sign.class);
                @if !found.is_empty() {
                    details open[sign.class != "a"] {
                        summary { (sign.means) ": " (found.len()) }
                        ul.names { @for subject in found { li { (link(subject, kernel)) } } }
                    }
                }
            }
        }
    }
}

fn link(subject: Subject<'_>, kernel: &str) -> Markup {
    html! { a href=(format!("../{}#{}", subject.path(), layout::kernel_id(kernel))) { (subject.name()) } }
}
