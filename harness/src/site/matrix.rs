//! The first page: every subject and every kernel.

use super::{Material, SIGNS, Sign, Subject, layout, sign};
use crate::normalize::Normal;
use crate::report::counted;
use maud::{Markup, html};

/// The sections: kind, heading, what a cell says.
const SECTIONS: [(&str, &str, &str); 4] = [
    ("hook", "Hooks", "whether a program can be attached"),
    ("helper", "Helpers", "whether some LSM program may call it"),
    ("kfunc", "Kfuncs", "whether some LSM program may call it"),
    ("rule", "Rules", "kernels with the same letter gave the same answers"),
];

pub(super) fn page(material: &Material<'_>, subjects: &[Subject<'_>]) -> String {
    let kernels = material.evidence.kernels;
    let content = html! {
        h1 { "What a BPF LSM program can do, on which kernel" }
        p {
            (counted(subjects.len(), "subject")) " on " (counted(kernels.len(), "kernel")) ", each answer seen on a booted kernel. "
            a href="claims.html" { "What the documentation says about it" } ", and "
            a href="differences.html" { "what changed between two kernels" } "."
        }
        (legend())
        form.filters.needs-script role="search" hidden {
            label { "Search " input type="search" id="search" placeholder="name (press /)" autocomplete="off"; }
            label {
                "Kind "
                select id="kind" {
                    option value="" { "all" }
                    @for (kind, heading, _) in SECTIONS { option value=(kind) { (heading) } }
                }
            }
            label {
                "Show "
                select id="show" {
                    option value="" { "everything" }
                    option value="changed" { "what differs between kernels" }
                    option value="y" { "usable on" }
                    option value="x" { "not usable on" }
                    option value="u" { "not known on" }
                }
            }
            label {
                "Kernel "
                select id="kernel" {
                    option value="" { "any" }
                    @for (place, kernel) in kernels.iter().enumerate() { option value=(place) { (kernel) } }
                }
            }
            output id="count" for="search kind show kernel" {}
        }
        @for (kind, heading, says) in SECTIONS {
            section id=(kind) class="matrix" {
                h2 { (heading) }
                p { "A cell says " (says) "." }
                div class="wide" tabindex="0" role="region" aria-label=(heading) {
                    table {
                        thead { tr { th scope="col" { (heading) } @for kernel in kernels {
                            th scope="col" { a href=(format!("kernels/{kernel}.html")) { (kernel) } }
                        } } }
                        tbody {
                            @for subject in subjects.iter().filter(|subject| subject.kind() == kind) {
                                (row(material, *subject))
                            }
                        }
                    }
                }
            }
        }
    };
    layout::page("index.html", "Matrix", &content)
}

fn legend() -> Markup {
    html! {
        ul.legend { @for sign in SIGNS { li { span class=(sign.class) { (sign.text) } " " (sign.means) } } }
    }
}

fn in_cell(sign: Sign) -> (String, String) {
    (sign.class.to_owned(), sign.text.to_owned())
}

fn row(material: &Material<'_>, subject: Subject<'_>) -> Markup {
    let path = subject.path();
    let cells: Vec<(String, String)> = match subject {
        Subject::Item(item) => {
            material.evidence.kernels.iter().map(|kernel| in_cell(sign(item.answers.of(kernel)))).collect()
        }
        Subject::Rule(snapshot) => {
            let mut distinct: Vec<&Normal> = Vec::new();
            let mut letter = |kernel: &String| {
                let Some(normal) = snapshot.of(kernel) else { return in_cell(sign(None)) };
                let place = distinct.iter().position(|known| *known == normal).unwrap_or_else(|| {
                    distinct.push(normal);
                    distinct.len() - 1
                });
                (format!("r r{}", place % 6), letters(place))
            };
            material.evidence.kernels.iter().map(&mut letter).collect()
        }
    };
    html! {
        tr {
            th scope="row" { a href=(path) { (subject.name()) } }
            @for ((class, text), kernel) in cells.iter().zip(material.evidence.kernels) {
                td class=(class) { a href=(format!("{path}#{}", layout::kernel_id(kernel))) { (text) } }
            }
        }
    }
}

/// a, b, .. z, aa, ab, ..
fn letters(place: usize) -> String {
    let letter = char::from(b'a' + u8::try_from(place % 26).unwrap_or_default());
    match place / 26 {
        0 => letter.to_string(),
        more => format!("{}{letter}", letters(more - 1)),
    }
}
