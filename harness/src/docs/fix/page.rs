//! The page itself: entries of its lists and versions at its tags, as the corrected data give them. And the data of feature
//! versions.

use super::generated::{Generated, Tags};
use super::lines::Lines;
use super::{Data, Evidence, Fix, Given, callable, case_of, has_ended, with_history};
use crate::claims::{Claim, Condition, Decision, List, evaluate};
use crate::docs::check::{Finding, Report, Verdict};
use crate::docs::entries::{history, judge, missing};
use crate::docs::judge::measured;
use crate::docs::page::{Page, PageEntry, PageList};
use crate::docs::unlisted::is_of_a_test;
use crate::facts::{Added, Item, Known, Span, Version, spans};
use std::collections::{BTreeMap, BTreeSet};

/// Corrects lists and tags.
pub(super) fn correct(fix: &mut Fix, page: &Page, report: &Report, given: &Given, evidence: &Evidence<'_>) {
    let mut lines = Lines::of(&page.text);
    for list in &page.lists {
        let mut of_list =
            OfList { page, list, generated: given.lists.get(&list.list), lines: &mut lines, evidence };
        for entry in &list.entries {
            let id = format!("{}/{}", list.list.name(), entry.name);
            let finding =
                report.findings.iter().find(|finding| finding.id == id && finding.line == Some(entry.line));
            if let Some(finding) = finding {
                of_list.correct_entry(fix, entry, finding);
            }
        }
        of_list.add_missing(fix);
        of_list.propose_versions(fix);
    }
    for tag in &page.tags {
        let Some((version, cases)) = feature_version(&tag.feature, &tag.version, evidence) else { continue };
        let what = format!("line {}: {} came with {version}, not {}", tag.line, tag.feature, tag.version);
        if given.features.get(&tag.feature).is_some_and(|it| Version::parse(it) == Some(version)) {
            retag(&mut lines, tag.line, &tag.version, version);
            fix.edit(&page.path, what, cases);
        } else {
            fix.propose(&page.path, what, cases);
        }
    }
    fix.put(&page.path, &page.text, lines.text());
}

/// One list of the page under correction.
struct OfList<'a> {
    page: &'a Page,
    list: &'a PageList,
    /// What its data give; none without data.
    generated: Option<&'a Generated>,
    lines: &'a mut Lines,
    evidence: &'a Evidence<'a>,
}

impl OfList<'_> {
    fn kind(&self) -> List {
        self.list.list
    }

    /// An entry of which no kernel is true goes; one whose versions are wrong, or that lacks them, gets those of the data,
    /// where these are right.
    fn correct_entry(&mut self, fix: &mut Fix, entry: &PageEntry, finding: &Finding) {
        let (what, line) = (&entry.name, entry.line);
        let is_wrong = finding.verdict == Verdict::Contradicted;
        let is_callable = self.callable(what).is_some();
        let given = self.generated.map(|generated| generated.get(what));
        let said = match given {
            Some(None) if is_wrong && !is_callable => {
                self.lines.drop(line - 1);
                format!("line {line}: `{what}` goes: {}", finding.detail)
            }
            Some(Some(tags)) if (is_wrong || self.lacks(entry)) && self.is_whole(what, tags) => {
                let Some(text) = tags.text(self.kind()) else { return };
                self.lines.set(line - 1, &format!("{}{text}", head_of(&self.page.text, entry)));
                format!("line {line}: `{what}` gets the versions of its data: {}", finding.detail)
            }
            _ if is_wrong => {
                let what = format!("line {line}: `{what}` is wrong: {}", finding.detail);
                return fix.propose(&self.page.path, what, finding.evidence.clone());
            }
            _ => return,
        };
        fix.edit(&self.page.path, said, finding.evidence.clone());
    }

    /// An item that some kernel lets LSM programs call.
    fn callable(&self, name: &str) -> Option<&Item> {
        let item = self.evidence.items.get(&(self.kind().kind(), name.to_owned()))?;
        item.answers.kernels(Known::Yes).next().map(|_| item)
    }

    /// Whether an entry speaks of versions on which the item may not be called.
    fn lacks(&self, entry: &PageEntry) -> bool {
        self.callable(&entry.name).is_some_and(|item| !missing(item, entry).is_empty())
    }

    /// Whether an entry with these versions is right, and speaks of no others.
    fn is_whole(&self, name: &str, tags: &Tags) -> bool {
        self.callable(name).is_some() && self.is_right(name, tags) && !self.lacks(&tags.entry(name))
    }

    /// Whether no record speaks against an entry with these versions.
    fn is_right(&self, name: &str, tags: &Tags) -> bool {
        judge(self.kind(), &tags.entry(name), self.evidence).verdict != Verdict::Contradicted
    }

    /// Adds what the list lacks and its data have, each at its place in the alphabet, written as the list's first entry is,
    /// with the versions of the data. What has ended is left out, and said.
    fn add_missing(&mut self, fix: &mut Fix) {
        let listed: BTreeSet<&str> =
            self.page.entries(self.kind()).map(|entry| entry.name.as_str()).collect();
        let missing = callable(self.evidence, self.kind())
            .filter(|item| !listed.contains(item.name.as_str()) && !is_of_a_test(&item.name));
        let (mut left, mut ended) = (Vec::new(), Vec::new());
        for item in missing {
            let tags = self.generated.and_then(|generated| generated.get(&item.name));
            match tags.and_then(|tags| Some((tags, tags.text(self.kind())?))) {
                Some((tags, text))
                    if (tags.until.is_some() || !has_ended(item)) && self.is_right(&item.name, tags) =>
                {
                    if self.add(item, &text) {
                        let what = format!(
                            "`{}` is added: LSM programs may call it, {}",
                            item.name,
                            history(&item.answers)
                        );
                        fix.edit(&self.page.path, what, vec![case_of(item)]);
                    } else {
                        left.push(item);
                    }
                }
                _ if has_ended(item) => ended.push(item),
                // What the data lack is proposed for them.
                _ if self.generated.is_none() => left.push(item),
                _ => {}
            }
        }
        let (of, line) = (self.kind().name(), self.list.line);
        for (items, why) in [
            (left, "are missing; without data that give them they are not added"),
            (ended, "are left out, for the newest kernels let no LSM program call them"),
        ] {
            if !items.is_empty() {
                let what = format!("line {line}: of the {of} these {why}: {}", with_history(&items));
                fix.propose(&self.page.path, what, items.into_iter().map(case_of).collect());
            }
        }
    }

    /// Adds an entry; not to a list without any, which shows no way to write one.
    fn add(&mut self, item: &Item, tags: &str) -> bool {
        let Some(model) = self.list.entries.first() else { return false };
        let text = head_of(&self.page.text, model).replace(&model.name, &item.name);
        let before =
            self.list.entries.iter().find(|entry| entry.name > item.name).map(|entry| entry.line - 1);
        let last = self.list.entries.last().map_or(self.list.line, |entry| entry.line);
        self.lines.insert(before.unwrap_or(last), text + tags);
        true
    }

    /// Says which entries are true of some versions only, where they do not say which.
    fn propose_versions(&self, fix: &mut Fix) {
        let is_left = |entry: &&PageEntry| {
            let tags = self.generated.and_then(|generated| generated.get(&entry.name));
            let is_wrong = judge(self.kind(), entry, self.evidence).verdict == Verdict::Contradicted;
            !is_wrong && self.lacks(entry) && !tags.is_some_and(|tags| self.is_whole(&entry.name, tags))
        };
        let entries = self.list.entries.iter().filter(is_left);
        let items: Vec<&Item> = entries.filter_map(|entry| self.callable(&entry.name)).collect();
        let how = match self.kind() {
            List::Helpers => {
                "a `since` stands at a member of BPF_PROG_TYPE_LSM, and the data have no `until` for helpers"
            }
            List::Kfuncs => {
                "`since` and `until` stand at a program type of a whole set, so that what has other versions than the rest \
                 needs a set of its own, as hid_bpf_pseudo_kfunc_ids is"
            }
        };
        if !items.is_empty() {
            let (of, line) = (self.kind().name(), self.list.line);
            let what = format!(
                "line {line}: of the {of} these may be called on some versions alone, and their entries do not say so: {}; \
                 in the data {how}",
                with_history(&items)
            );
            fix.propose(&self.page.path, what, items.into_iter().map(case_of).collect());
        }
    }
}

/// Writes a version into a tag, as the tag writes versions.
fn retag(lines: &mut Lines, line: usize, old: &str, version: Version) {
    let v = if old.starts_with('v') { "v" } else { "" };
    lines.replace(line - 1, old, &format!("{v}{version}"));
}

/// An entry's line up to the end of its link.
fn head_of<'a>(text: &'a str, entry: &PageEntry) -> &'a str {
    let line = text.lines().nth(entry.line - 1).unwrap_or_default();
    let end = line.find(&entry.link).map_or(line.len(), |at| at + entry.link.len());
    let closing = line[end..].find(')').map_or(line.len(), |at| end + at + 1);
    &line[..closing]
}

/// The version at a feature's tag, if it is contradicted and the right one is known exactly, with the cases that show it.
fn feature_version(feature: &str, tag: &str, evidence: &Evidence<'_>) -> Option<(Version, Vec<String>)> {
    let is_of =
        |claim: &&Claim| matches!(&claim.decision, Decision::Tag { feature: of, .. } if of == feature);
    let claim = evidence.claims.statements().find(is_of)?;
    let states = measured(&evaluate(claim, evidence.snapshots, evidence.kernels));
    let Some(Span { added: Added::Exact(version), .. }) = spans(&states).into_iter().next() else {
        return None;
    };
    let cases =
        claim.conditions().flat_map(Condition::cases).map(|case| format!("{}/{}", case.probe, case.case));
    (Version::parse(tag) != Some(version)).then(|| (version, cases.collect()))
}

/// Corrects `version:` below `- name:` of the features that claims know, and gives the versions as they are then.
pub(super) fn correct_features(
    fix: &mut Fix,
    file: &Data,
    evidence: &Evidence<'_>,
) -> BTreeMap<String, String> {
    let mut lines = Lines::of(&file.text);
    let (mut name, mut edits, mut versions) = (String::new(), Vec::new(), BTreeMap::new());
    for place in 0..lines.len() {
        let line = lines.get(place).trim().to_owned();
        if let Some(of) = line.strip_prefix("- name:") {
            name = of.trim().to_owned();
        } else if let Some(tag) = line.strip_prefix("version:").map(str::trim) {
            versions.insert(name.clone(), tag.to_owned());
            if let Some((version, cases)) = feature_version(&name, tag, evidence) {
                retag(&mut lines, place + 1, tag, version);
                versions.insert(name.clone(), version.to_string());
                edits.push((format!("{name} came with {version}, not {tag}"), cases));
            }
        }
    }
    match fix.put_data::<serde_yaml::Value>(file, &lines, edits) {
        Some(_) => versions,
        None => BTreeMap::new(),
    }
}
