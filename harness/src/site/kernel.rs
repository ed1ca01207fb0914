//! A page per kernel: what it is, and what it answers.

use super::differences::neighbours_of;
use super::{Material, Subject, layout, sign};
use crate::matrix::{Archive, Origin, Source};
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
    match row.map(|row| (&row.source, &row.lsm)) {
        Some((Source::Debian(debian), lsm)) => {
            format!("Debian's {} {}, booted with lsm={lsm}.", debian.package.full, debian.version)
        }
        Some((Source::Upstream(version), lsm)) => {
            format!("A mainline build of {version}, booted with lsm={lsm}.")
        }
        Some((Source::Archive(Archive { origin: package @ Origin::Debian(_), .. }), lsm)) => {
            format!("Debian's {package} built with the project's fragments, booted with lsm={lsm}.")
        }
        Some((Source::Archive(archive), lsm)) => {
            format!("Linux {} built with the project's fragments, booted with lsm={lsm}.", archive.measured())
        }
        Some((Source::Path(_), _)) | None => "An image without a package.".to_owned(),
    }
}

fn section(subjects: &[Subject<'_>], kind: &str, heading: &str, kernel: &str) -> Markup {
    let of_kind = || subjects.iter().filter(|subject| subject.kind() == kind);
    let groups = [
        ("y", "yes"),
        ("c", "for some programs"),
        ("n", "refused"),
        ("a", "not in the kernel"),
        ("u", "could not tell"),
    ];
    let with = |class: &str| -> Vec<Subject<'_>> {
        let fits = |subject: &&Subject<'_>| match subject {
            Subject::Item(item) => item.answers.of(kernel).is_some_and(|answer| sign(answer).0 == class),
            Subject::Rule(_) => false,
        };
        of_kind().filter(fits).copied().collect()
    };
    html! {
        section {
            h2 { (heading) }
            @for (class, words) in groups {
                @let found = with(class);
                @if !found.is_empty() {
                    details open[class != "a"] {
                        summary { (words) ": " (found.len()) }
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
