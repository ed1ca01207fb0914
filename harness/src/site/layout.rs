//! What every page has around its content.

use maud::{DOCTYPE, Markup, html};

/// A page at `path` (from the site's top) with this title and content.
pub(super) fn page(path: &str, title: &str, content: &Markup) -> String {
    let up = up(path);
    let link = |to: &str| format!("{up}{to}");
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // An empty icon, so that no browser asks for one.
                link rel="icon" href="data:,";
                title { (title) " · BPF LSM on real kernels" }
                link rel="stylesheet" href=(link("style.css"));
            }
            body {
                a.skip href="#content" { "to the content" }
                header {
                    nav aria-label="pages" {
                        a href=(link("index.html")) { "matrix" }
                        a href=(link("differences.html")) { "differences" }
                        a href=(link("claims.html")) { "claims" }
                    }
                }
                main id="content" { (content) }
                footer {
                    p {
                        "Measured on booted kernels by bpf-lsm-conformance. A record is what one build of a version did; \
                         “could not tell” is no “no”."
                    }
                }
                script src=(link("site.js")) defer {}
            }
        }
    };
    markup.into_string()
}

/// What leads from a page to the site's top.
pub(super) fn up(path: &str) -> String {
    "../".repeat(path.matches('/').count())
}

/// The id of a kernel's part of a page.
pub(super) fn kernel_id(kernel: &str) -> String {
    format!("k-{kernel}")
}
