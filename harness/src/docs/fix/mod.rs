//! Corrections of a page and of the data that its lists are generated from, as a patch, each with its evidence.
//!
//! Only what the records show is touched: entries that no kernel lets LSM programs call, entries that are missing, and
//! versions that are known exactly (`page`, `helpers`, `kfuncs`). What a record cannot give (a commit's id, the name
//! of a set in the kernel's source) is not invented: such corrections, and all of prose, are proposals in words.

mod helpers;
mod kfuncs;
mod lines;
mod page;

use super::check::{Evidence, Report, Verdict};
use super::page::Page;
use crate::claims::List;
use crate::facts::{Answer, Item, Kind, Known};
use serde::de::DeserializeOwned;
use similar::TextDiff;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};

/// A file of the documentation's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// Where it is.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// One correction, made or proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Of which file.
    pub path: PathBuf,
    /// What.
    pub what: String,
    /// The cases that show it.
    pub evidence: Vec<String>,
}

/// A file before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Where it is.
    pub path: PathBuf,
    /// As it was.
    pub before: String,
    /// As it is corrected.
    pub after: String,
}

/// All corrections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fix {
    /// The files that change.
    pub files: Vec<Changed>,
    /// What was changed.
    pub edits: Vec<Edit>,
    /// What is only proposed.
    pub proposals: Vec<Edit>,
}

impl Fix {
    fn put(&mut self, path: &Path, before: &str, after: String) {
        if before != after {
            self.files.push(Changed { path: path.to_owned(), before: before.to_owned(), after });
        }
    }

    fn edit(&mut self, path: &Path, what: String, evidence: Vec<String>) {
        self.edits.push(Edit { path: path.to_owned(), what, evidence });
    }

    fn propose(&mut self, path: &Path, what: String, evidence: Vec<String>) {
        self.proposals.push(Edit { path: path.to_owned(), what, evidence });
    }

    /// A file of data as what it is to be; one that is not is left to people.
    fn read<T: DeserializeOwned>(&mut self, file: &Data) -> Option<T> {
        let data = serde_yaml::from_str(&file.text).ok();
        if data.is_none() {
            let what = "the file is not read: it has not the layout that is known".to_owned();
            self.propose(&file.path, what, Vec::new());
        }
        data
    }
}

/// Corrects a page and its data by the verdicts on the page.
#[must_use]
pub fn fix(page: &Page, report: &Report, data: &[Data], evidence: &Evidence<'_>) -> Fix {
    let mut fix = Fix::default();
    page::correct(&mut fix, page, report, evidence);
    for file in data {
        let name = file.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with("helpers-functions.yaml") {
            helpers::correct(&mut fix, file, evidence);
        } else if name.ends_with("kfuncs.yaml") {
            kfuncs::correct(&mut fix, file, evidence);
        } else if name.ends_with("feature-versions.yaml") {
            page::correct_features(&mut fix, file, evidence);
        }
    }
    for finding in &report.findings {
        let Some(instead) = &finding.instead else { continue };
        match finding.verdict {
            Verdict::Contradicted | Verdict::Conditional => {
                let line = finding.line.unwrap_or_default();
                let what = format!("line {line} ({}: {}): {instead}", finding.id, finding.detail);
                fix.propose(&page.path, what, finding.evidence.clone());
            }
            Verdict::Confirmed | Verdict::WithinBounds | Verdict::Undecided | Verdict::Gone => {}
        }
    }
    fix
}

/// The corrections as a patch that `git apply` takes.
#[must_use]
pub fn patch(fix: &Fix) -> String {
    let one = |changed: &Changed| {
        let name = in_patch(&changed.path);
        let diff = TextDiff::from_lines(&changed.before, &changed.after);
        diff.unified_diff().context_radius(3).header(&format!("a/{name}"), &format!("b/{name}")).to_string()
    };
    fix.files.iter().map(one).collect()
}

/// A path as a patch has it: without what leads to the root.
fn in_patch(path: &Path) -> String {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part.to_string_lossy().into_owned()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => None,
    });
    parts.collect::<Vec<_>>().join("/")
}

/// The corrections and proposals with their evidence, as Markdown.
#[must_use]
pub fn evidence_text(fix: &Fix) -> String {
    let mut text = String::from("# Corrections and what shows them\n");
    for (title, edits) in [("In the patch", &fix.edits), ("Proposed, not in the patch", &fix.proposals)] {
        let _ = write!(text, "\n## {title}\n\n");
        for edit in edits {
            let cases: Vec<String> = edit.evidence.iter().map(|case| format!("`{case}`")).collect();
            let shown = if cases.is_empty() { String::new() } else { format!(" [{}]", cases.join(", ")) };
            let _ = writeln!(text, "- `{}`: {}{shown}", edit.path.display(), edit.what);
        }
        if edits.is_empty() {
            text += "Nothing.\n";
        }
    }
    text
}

/// The items of a kind that some measured kernel lets LSM programs call.
fn callable<'a>(evidence: &Evidence<'a>, list: List) -> impl Iterator<Item = &'a Item> {
    let of_kind = evidence.items.values().filter(move |item| item.kind == list.kind());
    of_kind.filter(|item| item.answers.kernels(Known::Yes).next().is_some())
}

/// What a kernel refuses and none allows, by name, with its case.
fn refused(evidence: &Evidence<'_>, kind: Kind) -> BTreeMap<String, String> {
    let is_refused = |item: &&Item| {
        item.kind == kind
            && item.answers.kernels(Known::Yes).next().is_none()
            && item.answers.0.iter().any(|(_, answer)| matches!(answer, Answer::No { .. }))
    };
    let case = |item: &Item| (item.name.clone(), case_of(item));
    evidence.items.values().filter(is_refused).map(case).collect()
}

fn case_of(item: &Item) -> String {
    format!("{}/{}", item.probe, item.case)
}

/// The words for a set of names.
fn list_of(names: &BTreeSet<&str>) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
