//! The static site: what the records say, for a browser. No server, nothing loaded from elsewhere, readable without
//! scripts; the script adds searching, filtering and the differences of any two kernels.
//!
//! ```text
//! index.html                    the matrix: kernels across; hooks, helpers, kfuncs, rules down; each cell a link
//! hooks/ helpers/ kfuncs/       a page per item: prototype, ranges, answers per range of kernels, the raw record
//! rules/FAMILY/                 a page per probe that is about no single item
//! kernels/                      a page per kernel
//! differences.html              any two kernels; differences/A-to-B.html for neighbours, case by case
//! claims.html                   what the documentation says, with verdicts
//! ```
//!
//! The same snapshots, and the same programs that runs have kept, give the same bytes.

mod claims;
mod differences;
mod item;
mod kernel;
mod layout;
mod matrix;

use crate::docs::check::Evidence;
use crate::facts::{Answer, Item, Kind};
use crate::matrix::Matrix;
use crate::report::list::ProbeInfo;
use crate::snapshot::{Snapshot, SnapshotError};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What the site is made from.
#[derive(Clone, Copy, Debug)]
pub struct Material<'a> {
    /// The matrix, for what each kernel is.
    pub matrix: &'a Matrix,
    /// Records, items, claims.
    pub evidence: Evidence<'a>,
    /// The probes, for their sources.
    pub probes: &'a [ProbeInfo],
    /// Programs that a run has kept, as text, by probe.
    pub programs: &'a BTreeMap<String, Vec<Program>>,
}

/// A program as a run has kept it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The kernel it was made for.
    pub kernel: String,
    /// The case.
    pub case: String,
    /// Its text.
    pub text: String,
}

/// What a page is about: an item, or a probe that is about no single one.
#[derive(Clone, Copy, Debug)]
enum Subject<'a> {
    Item(&'a Item),
    Rule(&'a Snapshot),
}

impl<'a> Subject<'a> {
    /// The name that a reader looks for.
    fn name(self) -> &'a str {
        match self {
            Self::Item(item) => &item.name,
            Self::Rule(snapshot) => &snapshot.probe,
        }
    }

    /// The kind as one word.
    const fn kind(self) -> &'static str {
        match self {
            Self::Item(item) => item.kind.name(),
            Self::Rule(_) => "rule",
        }
    }

    /// Its page, from the site's top.
    fn path(self) -> String {
        match self {
            Self::Item(item) => format!("{}s/{}.html", item.kind.name(), item.name),
            Self::Rule(snapshot) => format!("rules/{}.html", snapshot.probe),
        }
    }

    /// The records that its page shows: of the inventory of kfuncs a kfunc's entry alone.
    fn snapshots(self, material: &Material<'a>) -> Vec<Cow<'a, Snapshot>> {
        match self {
            Self::Rule(snapshot) => vec![Cow::Borrowed(snapshot)],
            Self::Item(item) => item.snapshots(material.evidence.snapshots),
        }
    }
}

/// Every subject: items by kind and name, then rules by probe.
fn subjects<'a>(material: &Material<'a>) -> Vec<Subject<'a>> {
    let items: Vec<Subject<'a>> = material.evidence.items.values().map(Subject::Item).collect();
    // A probe that is about many items has a page of its own besides.
    let mut used: BTreeMap<String, usize> = BTreeMap::new();
    for probe in material.evidence.items.values().flat_map(Item::probes) {
        *used.entry(probe).or_default() += 1;
    }
    let rules = material.evidence.snapshots.values().filter(|it| used.get(&it.probe) != Some(&1));
    items.iter().copied().chain(rules.map(Subject::Rule)).collect()
}

/// How an answer looks in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sign {
    /// The class of the cell.
    class: &'static str,
    /// What stands in it.
    text: &'static str,
    /// What it means.
    means: &'static str,
}

/// Every sign, in the order of the legend; the last is that of a kernel without an answer.
const SIGNS: [Sign; 7] = [
    Sign { class: "y", text: "✓", means: "yes" },
    Sign { class: "c", text: "◐", means: "for some programs only" },
    Sign { class: "n", text: "✗", means: "refused" },
    Sign { class: "a", text: "–", means: "not in the kernel" },
    Sign { class: "b", text: "◌", means: "not in this build, which says nothing of the version" },
    Sign { class: "u", text: "?", means: "could not tell" },
    Sign { class: "m", text: "·", means: "not measured" },
];

/// The sign of an answer.
fn sign(answer: Option<&Answer>) -> Sign {
    let [yes, some, no, absent, build, unknown, unmeasured] = SIGNS;
    match answer {
        Some(answer @ Answer::Yes { .. }) if answer.limit().is_none() => yes,
        Some(Answer::Yes { .. }) => some,
        Some(Answer::No { .. }) => no,
        Some(Answer::Absent { perhaps: None }) => absent,
        Some(Answer::Absent { perhaps: Some(_) } | Answer::BuildLacks { .. }) => build,
        Some(Answer::Unknown { .. }) => unknown,
        None => unmeasured,
    }
}

/// Every file of the site, by path.
///
/// # Errors
/// When a snapshot cannot be written as YAML.
pub fn files(material: &Material<'_>) -> Result<BTreeMap<String, String>, SnapshotError> {
    let mut files = BTreeMap::from([
        ("style.css".to_owned(), include_str!("style.css").to_owned()),
        ("site.js".to_owned(), include_str!("site.js").to_owned()),
    ]);
    let subjects = subjects(material);
    files.insert("index.html".to_owned(), matrix::page(material, &subjects));
    for subject in &subjects {
        files.insert(subject.path(), item::page(material, *subject)?);
    }
    files.extend(kernel::pages(material, &subjects));
    files.extend(differences::pages(material, &subjects));
    files.insert("claims.html".to_owned(), claims::page(material));
    Ok(files)
}

/// The page of a probe or of an item's case, from the site's top, if there is one.
fn page_of_case(material: &Material<'_>, case: &str) -> Option<String> {
    let mut parts = case.splitn(3, '/');
    let (family, name, variant) = (parts.next()?, parts.next()?, parts.next());
    let probe = format!("{family}/{name}");
    if probe == "kfuncs/inventory"
        && let Some(kfunc) = variant
    {
        let item = material.evidence.items.get(&(Kind::Kfunc, kfunc.to_owned()))?;
        return Some(Subject::Item(item).path());
    }
    let kind = [Kind::Hook, Kind::Helper, Kind::Kfunc]
        .into_iter()
        .find(|kind| format!("{}s", kind.name()) == family);
    let item = kind.and_then(|kind| material.evidence.items.get(&(kind, name.to_owned())));
    if let Some(item) = item {
        return Some(Subject::Item(item).path());
    }
    material.evidence.snapshots.get(&probe).map(|snapshot| Subject::Rule(snapshot).path())
}

#[cfg(test)]
mod tests;
