//! Corrections of a page and of the data that its lists are generated from, as a patch, each with its evidence.
//!
//! Only what the records show is touched: entries that no kernel lets LSM programs call, entries that are missing, and
//! versions that are known exactly (`page`, `helpers`, `kfuncs`). A list is edited only as its data gives it once that is
//! corrected (`generated`). What a record cannot give (the name of a set in the kernel's source), what has ended before the
//! newest kernels, and all of prose, is a proposal in words.

mod generated;
mod helpers;
mod kfuncs;
mod lines;
mod page;
mod root;

pub use root::root;

use super::check::{Evidence, Report, Verdict};
use super::entries::{history, judge};
use super::page::{Page, PageEntry};
use crate::claims::List;
use crate::facts::{Answer, Item, Known};
use generated::Generated;
use lines::Lines;
use serde::de::DeserializeOwned;
use similar::TextDiff;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

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

    /// Takes the corrected text of a file of data, with what was corrected, if it is still what such a file is: then it is
    /// given as that.
    fn put_data<T: DeserializeOwned>(
        &mut self,
        file: &Data,
        lines: &Lines,
        edits: Vec<(String, Vec<String>)>,
    ) -> Option<T> {
        let text = lines.text();
        let after = serde_yaml::from_str(&text).ok();
        if after.is_none() {
            let what =
                "the file is left alone: what was to be corrected cannot be written into it".to_owned();
            self.propose(&file.path, what, Vec::new());
            return None;
        }
        self.put(&file.path, &file.text, text);
        for (what, evidence) in edits {
            self.edit(&file.path, what, evidence);
        }
        after
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

/// What the page is generated from, as far as there are data, once they are corrected.
#[derive(Default)]
struct Given {
    lists: BTreeMap<List, Generated>,
    /// Versions by feature, as written.
    features: BTreeMap<String, String>,
}

/// Corrects a page and its data by the verdicts on the page.
#[must_use]
pub fn fix(page: &Page, report: &Report, data: &[Data], evidence: &Evidence<'_>) -> Fix {
    let mut fix = Fix::default();
    let mut given = Given::default();
    for file in data {
        let name = file.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with("helpers-functions.yaml") {
            let generated = helpers::correct(&mut fix, file, evidence);
            given.lists.extend(generated.map(|generated| (List::Helpers, generated)));
        } else if name.ends_with("kfuncs.yaml") {
            let generated = kfuncs::correct(&mut fix, file, evidence);
            given.lists.extend(generated.map(|generated| (List::Kfuncs, generated)));
        } else if name.ends_with("feature-versions.yaml") {
            given.features.extend(page::correct_features(&mut fix, file, evidence));
        }
    }
    page::correct(&mut fix, page, report, &given, evidence);
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

/// The corrections as a patch that `git apply` takes in the folder `root` ([`root()`]).
#[must_use]
pub fn patch(fix: &Fix, root: &Path) -> String {
    let one = |changed: &Changed| {
        let name = root::in_patch(&changed.path, root);
        let diff = TextDiff::from_lines(&changed.before, &changed.after);
        diff.unified_diff().context_radius(3).header(&format!("a/{name}"), &format!("b/{name}")).to_string()
    };
    fix.files.iter().map(one).collect()
}

/// What a version in the corrections means.
const CAVEAT: &str = "A version stands for its row, which is one build of a stable branch (`kernels` in the compatibility
data say of which release): another release of the same version may have got, or lost, a thing that its neighbours in the
mainline have, or have not.";

/// The corrections and proposals with their evidence, as Markdown.
#[must_use]
pub fn evidence_text(fix: &Fix) -> String {
    let mut text = format!("# Corrections and what shows them\n\n{CAVEAT}\n");
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

/// What a kernel refuses and none allows, as an entry of the page is judged, by name, with its case.
fn refused(evidence: &Evidence<'_>, list: List) -> BTreeMap<String, String> {
    let is_refused = |item: &&Item| {
        item.kind == list.kind()
            && item.answers.0.iter().any(|(_, answer)| matches!(answer, Answer::No { .. }))
            && judge(list, &PageEntry::bare(&item.name), evidence).verdict == Verdict::Contradicted
    };
    let case = |item: &Item| (item.name.clone(), case_of(item));
    evidence.items.values().filter(is_refused).map(case).collect()
}

fn case_of(item: &Item) -> String {
    format!("{}/{}", item.probe, item.case)
}

/// Whether the newest kernels that tell let LSM programs call an item no longer.
fn has_ended(item: &Item) -> bool {
    item.answers.spans().last().is_some_and(|span| span.removed.is_some())
}

/// Names with their versions, in words.
fn with_history(items: &[&Item]) -> String {
    let one = |item: &&Item| format!("`{}` ({})", item.name, history(&item.answers));
    items.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
