//! The verdicts: prose by claim, list entries by what the records say of the item.

use super::entries::{Judged, judge};
use super::judge::{measured, of_condition, of_version, phrase};
use super::page::{Page, PageEntry};
use super::unlisted::{Unlisted, complete, kernels_of_complete, left_out, unlisted};
use crate::claims::{Claim, Claims, Condition, Decision, Entry, Evaluated, File, List, evaluate};
use crate::facts::{Item, Kind, Known};
use crate::snapshot::Snapshot;
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

/// Version of the JSON.
const SCHEMA: u32 = 1;

/// What a statement of the page is worth. A closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// True of every measured kernel of which it speaks.
    Confirmed,
    /// False.
    Contradicted,
    /// True only between versions or under a condition.
    Conditional,
    /// A version that no record speaks against, and that the measured kernels do not settle either.
    WithinBounds,
    /// No probe decides it.
    Undecided,
    /// The claims know it, and the page says it no longer; of a list's entry only where the newest kernels let LSM programs
    /// call it.
    Gone,
}

impl Verdict {
    /// Every verdict, in the order of the summary.
    pub const ALL: [Self; 6] = [
        Self::Confirmed,
        Self::Contradicted,
        Self::Conditional,
        Self::WithinBounds,
        Self::Undecided,
        Self::Gone,
    ];

    /// The verdict as one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Contradicted => "contradicted",
            Self::Conditional => "conditional",
            Self::WithinBounds => "within-bounds",
            Self::Undecided => "undecided",
            Self::Gone => "gone",
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The kernels of a finding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kernels {
    /// Where it is true.
    #[serde(rename = "true")]
    pub yes: Vec<String>,
    /// Where it is false.
    #[serde(rename = "false")]
    pub no: Vec<String>,
    /// Where the records do not say.
    pub unknown: Vec<String>,
    /// Of which it does not speak.
    pub not_of: Vec<String>,
}

/// The verdict on one statement or entry. The module [`crate::docs`] says what the fields are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields are documented with the JSON, in the module above")]
pub struct Finding {
    pub id: String,
    pub says: String,
    pub inferred: bool,
    pub line: Option<usize>,
    pub verdict: Verdict,
    pub detail: String,
    pub kernels: Kernels,
    pub evidence: Vec<String>,
    pub source: Vec<String>,
    pub instead: Option<String>,
}

/// A line between markers that is no entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotRead {
    /// The line, from 1.
    pub line: usize,
    /// What it says.
    pub text: String,
}

/// All verdicts on one page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Version of the JSON: 1.
    pub schema: u32,
    /// The page's path as given.
    pub page: String,
    /// The verdicts, in the page's order.
    pub findings: Vec<Finding>,
    /// What the lists leave out.
    pub unlisted: Vec<Unlisted>,
    /// Files of claims that are about another state of the page.
    pub passed_over: Vec<String>,
    /// Lines that were not understood.
    pub not_read: Vec<NotRead>,
}

impl Report {
    /// How many findings have this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }
}

/// Everything that verdicts are made from.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The records.
    pub snapshots: &'a BTreeMap<String, Snapshot>,
    /// The measured rows, in the matrix's order.
    pub kernels: &'a [String],
    /// What the records say of items.
    pub items: &'a BTreeMap<(Kind, String), Item>,
    /// What the documentation says.
    pub claims: &'a Claims,
}

/// Gives every statement of the page its verdict.
#[must_use]
pub fn check(page: &Page, evidence: &Evidence<'_>) -> Report {
    let unlisted: Vec<Unlisted> =
        [List::Helpers, List::Kfuncs].iter().flat_map(|list| unlisted(page, *list, evidence)).collect();
    let (here, elsewhere): (Vec<&File>, Vec<&File>) =
        evidence.claims.files.iter().partition(|file| is_about(page, file));
    let mut findings = Vec::new();
    for file in &here {
        findings.extend(file.claims.iter().map(|claim| statement(page, claim, evidence, &unlisted)));
        for (list, entries) in &file.lists {
            findings.extend(entries.iter().filter_map(|entry| gone(page, *list, entry, evidence)));
        }
    }
    for list in [List::Helpers, List::Kfuncs] {
        findings.extend(page.entries(list).map(|entry| entry_finding(list, entry, evidence)));
    }
    findings.sort_by_key(|finding| finding.line.unwrap_or(usize::MAX));
    let not_read = page.lists.iter().flat_map(|list| &list.not_read);
    Report {
        schema: SCHEMA,
        page: page.path.display().to_string(),
        findings,
        unlisted,
        passed_over: elsewhere.iter().map(|file| file.name.clone()).collect(),
        not_read: not_read.map(|(line, text)| NotRead { line: *line, text: text.clone() }).collect(),
    }
}

/// Whether anything of a file is on the page.
fn is_about(page: &Page, file: &File) -> bool {
    let listed = |(list, entries): &(List, Vec<Entry>)| {
        let names: BTreeSet<&str> = page.entries(*list).map(|entry| entry.name.as_str()).collect();
        entries.iter().any(|entry| names.contains(entry.name.as_str()))
    };
    file.claims.iter().any(|claim| line_of(page, claim).is_some()) || file.lists.iter().any(listed)
}

/// Where a statement stands: a version at the tag of its name, anything else by its words.
fn line_of(page: &Page, claim: &Claim) -> Option<usize> {
    match &claim.decision {
        Decision::Tag { feature, .. } => {
            page.tags.iter().find(|tag| tag.feature == *feature).map(|tag| tag.line)
        }
        Decision::Holds(_) | Decision::Complete(_) | Decision::Undecided(_) => page.find(&claim.at),
    }
}

fn statement(page: &Page, claim: &Claim, evidence: &Evidence<'_>, unlisted: &[Unlisted]) -> Finding {
    let tag = match &claim.decision {
        Decision::Tag { feature, .. } => page.tags.iter().find(|tag| tag.feature == *feature),
        Decision::Holds(_) | Decision::Complete(_) | Decision::Undecided(_) => None,
    };
    let mut finding = judged(claim, tag.map_or("", |tag| &tag.version), evidence, unlisted);
    finding.line = line_of(page, claim);
    if finding.line.is_none() {
        finding.verdict = Verdict::Gone;
        finding.detail = "the page does not say this, or not in words that the claim knows".to_owned();
    }
    finding
}

/// The verdict on a statement, wherever it stands; `tag` is the version at its feature tag.
fn judged(claim: &Claim, tag: &str, evidence: &Evidence<'_>, unlisted: &[Unlisted]) -> Finding {
    let found = evaluate(claim, evidence.snapshots, evidence.kernels);
    let (verdict, detail) = match &claim.decision {
        Decision::Undecided(why) => (Verdict::Undecided, why.clone()),
        Decision::Complete(list) => complete(*list, unlisted),
        Decision::Tag { .. } => of_version(tag, &measured(&found)),
        Decision::Holds(_) => of_condition(claim, &found, evidence.kernels),
    };
    let cases = claim.conditions().flat_map(Condition::cases);
    let mut named: Vec<String> = cases.map(|case| format!("{}/{}", case.probe, case.case)).collect();
    if let Decision::Complete(list) = &claim.decision {
        let missing = unlisted.iter().filter(|it| it.kind == list.kind().name());
        named.extend(missing.map(|it| it.evidence.clone()));
    }
    let mut seen = BTreeSet::new();
    named.retain(|case| seen.insert(case.clone()));
    let kernels = match &claim.decision {
        Decision::Complete(list) => kernels_of_complete(*list, unlisted, evidence),
        Decision::Holds(_) | Decision::Tag { .. } | Decision::Undecided(_) => kernels_of(found),
    };
    Finding {
        id: claim.id.clone(),
        says: claim.says.clone(),
        inferred: claim.inferred,
        line: None,
        verdict,
        detail,
        kernels,
        evidence: named,
        source: claim.source.clone(),
        instead: claim.instead.clone(),
    }
}

/// The verdicts on everything that the claims know, of whichever state of the page, without a page.
#[must_use]
pub fn of_claims(evidence: &Evidence<'_>) -> Report {
    let listed = |list: List| evidence.claims.entries(list).map(|entry| entry.name.as_str()).collect();
    let unlisted: Vec<Unlisted> = [List::Helpers, List::Kfuncs]
        .iter()
        .flat_map(|list| left_out(&listed(*list), *list, evidence))
        .collect();
    let statements = evidence.claims.statements().map(|claim| {
        let tag = match &claim.decision {
            Decision::Tag { version, .. } => version.as_str(),
            Decision::Holds(_) | Decision::Complete(_) | Decision::Undecided(_) => "",
        };
        judged(claim, tag, evidence, &unlisted)
    });
    let mut findings: Vec<Finding> = statements.collect();
    for list in [List::Helpers, List::Kfuncs] {
        let entry = |entry: &Entry| PageEntry {
            since: entry.since.clone(),
            until: entry.until.clone(),
            ..PageEntry::bare(&entry.name)
        };
        findings
            .extend(evidence.claims.entries(list).map(|known| entry_finding(list, &entry(known), evidence)));
    }
    for finding in &mut findings {
        finding.line = None;
    }
    Report {
        schema: SCHEMA,
        page: String::new(),
        findings,
        unlisted,
        passed_over: Vec::new(),
        not_read: Vec::new(),
    }
}

fn kernels_of(found: Evaluated) -> Kernels {
    let unknown = found.unknown_on.into_iter().map(|(kernel, _)| kernel).collect();
    Kernels { yes: found.true_on, no: found.false_on, unknown, not_of: found.not_of }
}

/// A finding about a list's entry, without its verdict.
fn bare(list: List, name: &str, says: String, evidence: &Evidence<'_>) -> Finding {
    let item = evidence.items.get(&(list.kind(), name.to_owned()));
    let kernels = |known| item.map(|item| item.answers.kernels(known).map(str::to_owned).collect());
    Finding {
        id: format!("{}/{name}", list.name()),
        says,
        inferred: false,
        line: None,
        verdict: Verdict::Undecided,
        detail: String::new(),
        kernels: Kernels {
            yes: kernels(Known::Yes).unwrap_or_default(),
            no: kernels(Known::No).unwrap_or_default(),
            unknown: kernels(Known::Unknown).unwrap_or_default(),
            not_of: Vec::new(),
        },
        evidence: item.map(|item| format!("{}/{}", item.probe, item.case)).into_iter().collect(),
        source: Vec::new(),
        instead: None,
    }
}

/// What the claims list and the page lists no longer, though the newest kernels let LSM programs call it. Where they do not
/// the page is right to leave it out.
fn gone(page: &Page, list: List, entry: &Entry, evidence: &Evidence<'_>) -> Option<Finding> {
    let item = evidence.items.get(&(list.kind(), entry.name.clone()))?;
    let is_callable = item.answers.spans().last().is_some_and(|span| span.removed.is_none());
    if !is_callable || page.entries(list).any(|on_page| on_page.name == entry.name) {
        return None;
    }
    let mut finding = bare(list, &entry.name, format!("LSM programs may call {}.", entry.name), evidence);
    finding.verdict = Verdict::Gone;
    finding.detail = format!(
        "the page does not list it, though LSM programs may call it on {}",
        phrase(evidence.kernels, &finding.kernels.yes)
    );
    Some(finding)
}

fn entry_finding(list: List, entry: &PageEntry, evidence: &Evidence<'_>) -> Finding {
    let since = entry.since.as_ref().map(|version| format!(" since {version}")).unwrap_or_default();
    let until = entry.until.as_ref().map(|version| format!(" until {version}")).unwrap_or_default();
    let says = format!("LSM programs may call {}{since}{until}.", entry.name);
    let mut finding = bare(list, &entry.name, says, evidence);
    finding.line = Some(entry.line);
    let Judged { verdict, detail, shown } = judge(list, entry, evidence);
    (finding.verdict, finding.detail) = (verdict, detail);
    finding.evidence.extend(shown);
    finding
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
