//! The page itself: entries of its lists and versions at its tags. And the data of feature versions.

use super::lines::Lines;
use super::{Data, Evidence, Fix, callable, case_of, list_of};
use crate::claims::{Claim, Condition, Decision, evaluate};
use crate::docs::check::{Finding, Report, Verdict};
use crate::docs::entries::history;
use crate::docs::page::{Page, PageEntry, PageList};
use crate::docs::unlisted::is_of_a_test;
use crate::facts::{Added, Item, Known, Span, Version, spans};
use std::collections::BTreeSet;
use std::path::Path;

/// Corrects lists and tags.
pub(super) fn correct(fix: &mut Fix, page: &Page, report: &Report, evidence: &Evidence<'_>) {
    let mut lines = Lines::of(&page.text);
    for list in &page.lists {
        for entry in &list.entries {
            let id = format!("{}/{}", list.list.name(), entry.name);
            let finding =
                report.findings.iter().find(|finding| finding.id == id && finding.line == Some(entry.line));
            if let Some(finding) = finding.filter(|finding| finding.verdict == Verdict::Contradicted) {
                wrong_entry(fix, page, &mut lines, list, entry, finding, evidence);
            }
        }
        add_missing(fix, page, &mut lines, list, evidence);
    }
    for tag in &page.tags {
        if let Some((version, cases)) = feature_version(&tag.feature, &tag.version, evidence) {
            retag(&mut lines, tag.line, &tag.version, version);
            fix.edit(
                &page.path,
                format!("line {}: {} came with {version}, not {}", tag.line, tag.feature, tag.version),
                cases,
            );
        }
    }
    fix.put(&page.path, &page.text, lines.text());
}

/// An entry that is contradicted: its tag is corrected where it may be called, else it goes.
fn wrong_entry(
    fix: &mut Fix,
    page: &Page,
    lines: &mut Lines,
    list: &PageList,
    entry: &PageEntry,
    finding: &Finding,
    evidence: &Evidence<'_>,
) {
    let item = evidence.items.get(&(list.list.kind(), entry.name.clone()));
    let spans = item.map(|item| item.answers.spans()).unwrap_or_default();
    // With more than one range a stable branch got it early, and where it is gone again a tag alone would mislead: what
    // the tag should say then is not ours to decide.
    let alone = spans.len() == 1 && spans.iter().all(|span| span.removed.is_none());
    let (what, line) = (&entry.name, entry.line);
    match (spans.first().map(|span| span.added), &entry.since) {
        (Some(Added::Exact(version)), Some(tag)) if alone => {
            retag(lines, line, tag, version);
            let what = format!(
                "line {line}: LSM programs may call `{what}` since {version}, not {tag}; the commit of its link is left as it is"
            );
            fix.edit(&page.path, what, finding.evidence.clone());
        }
        (Some(added), Some(tag)) => {
            let what =
                format!("line {line}: `{what}` is not of {tag} ({}); measured: {added}", finding.detail);
            fix.propose(&page.path, what, finding.evidence.clone());
        }
        (Some(_), None) => {}
        (None, _) => {
            lines.drop(line - 1);
            fix.edit(
                &page.path,
                format!("line {line}: `{what}` goes: {}", finding.detail),
                finding.evidence.clone(),
            );
        }
    }
}

/// Writes a version into a tag, as the tag writes versions.
fn retag(lines: &mut Lines, line: usize, old: &str, version: Version) {
    let v = if old.starts_with('v') { "v" } else { "" };
    lines.replace(line - 1, old, &format!("{v}{version}"));
}

/// Adds what the list lacks, each at its place in the alphabet, written as the list's first entry is.
fn add_missing(fix: &mut Fix, page: &Page, lines: &mut Lines, list: &PageList, evidence: &Evidence<'_>) {
    let listed: BTreeSet<&str> = page.entries(list.list).map(|entry| entry.name.as_str()).collect();
    let missing: Vec<&Item> = callable(evidence, list.list)
        .filter(|item| !listed.contains(item.name.as_str()) && !is_of_a_test(&item.name))
        .collect();
    let Some(model) = list.entries.first() else {
        let names: BTreeSet<&str> = missing.iter().map(|item| item.name.as_str()).collect();
        if !names.is_empty() {
            let what = format!("line {}: an empty list, to which belong {}", list.line, list_of(&names));
            fix.propose(&page.path, what, missing.into_iter().map(case_of).collect());
        }
        return;
    };
    let text = lines_of_model(&page.text, model);
    for item in missing {
        let before = list.entries.iter().find(|entry| entry.name > item.name).map(|entry| entry.line - 1);
        let last = list.entries.last().map_or(list.line, |entry| entry.line);
        lines.insert(before.unwrap_or(last), text.replace(NAME, &item.name));
        let what = format!("`{}` is added: LSM programs may call it, {}", item.name, history(&item.answers));
        fix.edit(&page.path, what, vec![case_of(item)]);
    }
}

/// Stands for the name in a model entry.
const NAME: &str = "\u{0}";

/// How the list writes an entry: the first one without its tag.
fn lines_of_model(text: &str, model: &PageEntry) -> String {
    let line = text.lines().nth(model.line - 1).unwrap_or_default();
    let end = line.find(&model.link).map_or(line.len(), |at| at + model.link.len());
    let closing = line[end..].find(')').map_or(line.len(), |at| end + at + 1);
    line[..closing].replace(&model.name, NAME)
}

/// The version at a feature's tag, if it is contradicted and the right one is known exactly, with the cases that show it.
fn feature_version(feature: &str, tag: &str, evidence: &Evidence<'_>) -> Option<(Version, Vec<String>)> {
    let is_of =
        |claim: &&Claim| matches!(&claim.decision, Decision::Tag { feature: of, .. } if of == feature);
    let claim = evidence.claims.statements().find(is_of)?;
    let found = evaluate(claim, evidence.snapshots, evidence.kernels);
    let with = |kernels: &[String], known| {
        kernels.iter().filter_map(move |kernel| Some((Version::parse(kernel)?, known))).collect::<Vec<_>>()
    };
    let states = [with(&found.true_on, Known::Yes), with(&found.false_on, Known::No)].concat();
    let Some(Span { added: Added::Exact(version), .. }) = spans(&states).into_iter().next() else {
        return None;
    };
    let cases =
        claim.conditions().flat_map(Condition::cases).map(|case| format!("{}/{}", case.probe, case.case));
    (Version::parse(tag) != Some(version)).then(|| (version, cases.collect()))
}

/// Corrects `version:` below `- name:` of the features that claims know.
pub(super) fn correct_features(fix: &mut Fix, file: &Data, evidence: &Evidence<'_>) {
    let mut lines = Lines::of(&file.text);
    let mut name = String::new();
    for place in 0..lines.len() {
        let line = lines.get(place).trim().to_owned();
        if let Some(of) = line.strip_prefix("- name:") {
            name = of.trim().to_owned();
        } else if let Some(tag) = line.strip_prefix("version:").map(str::trim)
            && let Some((version, cases)) = feature_version(&name, tag, evidence)
        {
            retag(&mut lines, place + 1, tag, version);
            fix.edit(&file.path, format!("{name} came with {version}, not {tag}"), cases);
        }
    }
    put_checked(fix, &file.path, &file.text, &lines);
}

/// Takes the corrected text of a YAML file if it is still YAML.
pub(super) fn put_checked(fix: &mut Fix, path: &Path, before: &str, lines: &Lines) {
    let after = lines.text();
    if serde_yaml::from_str::<serde_yaml::Value>(&after).is_ok()
        || serde_yaml::from_str::<serde_yaml::Value>(before).is_err()
    {
        fix.put(path, before, after);
    }
}
