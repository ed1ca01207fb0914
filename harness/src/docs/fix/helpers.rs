//! The data behind the lists of helpers: `groups` of helpers, and `programs` that name helpers and groups, and helpers of
//! these that they exclude.

use super::generated::{Generated, Release, Tags};
use super::lines::{Block, Lines, blocks};
use super::{Data, Evidence, Fix, callable, case_of, has_ended, refused};
use crate::claims::List;
use crate::docs::check::Verdict;
use crate::docs::entries::{history, judge, missing};
use crate::docs::page::PageEntry;
use crate::facts::{Added, Answer, Item, Kind, Version};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The program type.
const LSM: &str = "BPF_PROG_TYPE_LSM";
/// There are some ten groups, with some hundreds of members. Groups are followed by recursion, and each keeps what it has.
const GROUPS_MAX: usize = 100;
const MEMBERS_MAX: usize = 10_000;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    groups: BTreeMap<String, Vec<Member>>,
    #[serde(default)]
    programs: BTreeMap<String, Vec<Member>>,
}

#[derive(Deserialize)]
struct Member {
    name: Option<String>,
    group: Option<String>,
    exclude: Option<String>,
    since: Option<Release>,
}

type Members<'a> = BTreeMap<&'a str, Option<&'a Release>>;

impl File {
    fn is_too_large(&self) -> bool {
        let members: usize = self.groups.values().chain(self.programs.values()).map(Vec::len).sum();
        self.groups.len() > GROUPS_MAX || members > MEMBERS_MAX
    }

    /// The helpers of a list as the generator resolves them: its own, then those of its groups, without the excluded.
    fn resolve<'a>(
        &'a self,
        members: &[&'a Member],
        known: &mut BTreeMap<&'a str, Members<'a>>,
    ) -> Members<'a> {
        let mut found = Members::new();
        for member in members {
            if let Some(name) = &member.name {
                found.entry(name).or_insert(member.since.as_ref());
            }
        }
        for group in members.iter().filter_map(|member| member.group.as_deref()) {
            if !known.contains_key(group) {
                // A group that leads back to itself finds nothing there.
                known.insert(group, Members::new());
                let members: Vec<&Member> = self.groups.get(group).into_iter().flatten().collect();
                let resolved = self.resolve(&members, known);
                known.insert(group, resolved);
            }
            for (name, since) in known.get(group).into_iter().flatten() {
                found.entry(name).or_insert(*since);
            }
        }
        for excluded in members.iter().filter_map(|member| member.exclude.as_deref()) {
            found.remove(excluded);
        }
        found
    }

    fn own(&self) -> Vec<&Member> {
        self.programs.get(LSM).into_iter().flatten().collect()
    }

    fn generated(&self) -> Generated {
        let resolved = self.resolve(&self.own(), &mut BTreeMap::new());
        let tags = |since: Option<&Release>| Tags { since: since.cloned(), until: None };
        resolved.into_iter().map(|(name, since)| (name.to_owned(), tags(since))).collect()
    }

    /// What groups bring to LSM programs.
    fn brought(&self) -> Members<'_> {
        let rest: Vec<&Member> = self.own().into_iter().filter(|member| member.name.is_none()).collect();
        self.resolve(&rest, &mut BTreeMap::new())
    }
}

/// Corrects the list of LSM programs, and says what the generator makes of it then.
pub(super) fn correct(fix: &mut Fix, file: &Data, evidence: &Evidence<'_>) -> Option<Generated> {
    let data = fix.read::<File>(file)?;
    if data.is_too_large() {
        let what =
            format!("the file is left alone: it has more than {GROUPS_MAX} groups or {MEMBERS_MAX} members");
        fix.propose(&file.path, what, Vec::new());
        return None;
    }
    let mut lines = Lines::of(&file.text);
    let own = lists(&lines).into_iter().find(|block| block.key == LSM && data.programs.contains_key(LSM))?;
    let has = data.generated();
    let mut edits = Vec::new();
    retag(&mut lines, &own, &data, evidence, &mut edits);
    add(fix, file, &mut lines, &own, &has, evidence, &mut edits);
    let brought = data.brought();
    for (helper, case) in refused(evidence, List::Helpers) {
        if has.contains_key(&helper) {
            take_out(&mut lines, &own, &helper, brought.contains_key(helper.as_str()));
            let what = format!("`{helper}` is taken from {LSM}: no kernel lets LSM programs call it");
            edits.push((what, vec![case]));
        }
    }
    let after: File = fix.put_data(file, &lines, edits)?;
    Some(after.generated())
}

/// The lists of the programs.
fn lists(lines: &Lines) -> Vec<Block> {
    let sections = blocks(lines, 0, lines.len(), 0);
    let wanted = sections.into_iter().filter(|section| section.key == "programs");
    wanted.flat_map(|section| blocks(lines, section.start, section.end, 2)).collect()
}

/// What is to be said at a helper that is added.
enum Start {
    /// As long as there is the helper.
    Always,
    /// From this version on.
    At(Version),
    /// Not known exactly.
    Open,
}

fn start(item: &Item) -> Start {
    let spans = item.answers.spans();
    match spans.as_slice() {
        [_] if missing(item, &PageEntry::bare(&item.name)).is_empty() => Start::Always,
        [span] => match span.added {
            Added::Exact(version) => Start::At(version),
            Added::AtMost(_) | Added::Between(..) => Start::Open,
        },
        _ => Start::Open,
    }
}

type Edits = Vec<(String, Vec<String>)>;

/// Adds what LSM programs may call on the newest kernels; the data has no way to say that a helper has ended.
fn add(
    fix: &mut Fix,
    file: &Data,
    lines: &mut Lines,
    own: &Block,
    has: &Generated,
    evidence: &Evidence<'_>,
    edits: &mut Edits,
) {
    let place = (own.start..own.end)
        .find(|&line| lines.get(line).trim_start().starts_with("- group:"))
        .unwrap_or(own.end);
    let pad = pad(lines, own);
    let missing = callable(evidence, List::Helpers).filter(|item| !has.contains_key(&item.name));
    for item in missing.filter(|item| !has_ended(item)) {
        let since = match start(item) {
            Start::Always => None,
            Start::At(version) => Some(Release::of(version)),
            Start::Open => {
                let what = format!(
                    "`{}` is missing from {LSM}: LSM programs may call it {}, and its `since` is not known exactly",
                    item.name,
                    history(&item.answers)
                );
                fix.propose(&file.path, what, vec![case_of(item)]);
                continue;
            }
        };
        for line in member(item, since.as_ref()) {
            lines.insert(place, format!("{pad}{line}"));
        }
        let since = since.map_or_else(String::new, |since| {
            format!(
                " since {}; its `commit` is the release's tag, for no record tells the commit",
                since.version
            )
        });
        let what = format!("`{}` is added to {LSM}: LSM programs may call it{since}", item.name);
        edits.push((what, vec![case_of(item)]));
    }
}

/// How far the members of a list are indented.
fn pad(lines: &Lines, own: &Block) -> String {
    let first =
        (own.start..own.end).map(|line| lines.get(line)).find(|line| line.trim_start().starts_with('-'));
    first.map_or_else(|| "  ".to_owned(), |line| line[..line.len() - line.trim_start().len()].to_owned())
}

/// A helper as the data writes it.
fn member(item: &Item, since: Option<&Release>) -> Vec<String> {
    let mut lines = vec![format!("- name: {}", item.name)];
    let newest = item.answers.0.iter().rev().find_map(|(_, answer)| match answer {
        Answer::Yes { condition } => Some(condition.as_str()),
        Answer::No { .. } | Answer::Absent { .. } | Answer::BuildLacks { .. } | Answer::Unknown { .. } => {
            None
        }
    });
    let condition = match newest.unwrap_or_default() {
        "by programs that may sleep" => Some("sleepable: true"),
        "by programs of BPF_LSM_MAC" => Some("attach_type: [BPF_LSM_MAC]"),
        by if by.starts_with("by programs of a cgroup") => Some("attach_type: [BPF_LSM_CGROUP]"),
        _ => None,
    };
    lines.extend(condition.map(|condition| format!("  {condition}")));
    if let Some(Release { version, commit }) = since {
        lines.extend([
            "  since:".to_owned(),
            format!("    version: {version}"),
            format!("    commit: {commit}"),
        ]);
    }
    lines
}

/// Puts right the versions that LSM's own list gives, where the right one is known exactly.
fn retag(lines: &mut Lines, own: &Block, data: &File, evidence: &Evidence<'_>, edits: &mut Edits) {
    for member in data.own() {
        let (Some(name), Some(since)) = (&member.name, &member.since) else { continue };
        let tags = Tags { since: Some(since.clone()), until: None };
        let Some(item) = evidence.items.get(&(Kind::Helper, name.clone())) else { continue };
        let is_wrong = judge(List::Helpers, &tags.entry(name), evidence).verdict == Verdict::Contradicted;
        let (true, Start::At(version)) = (is_wrong, start(item)) else { continue };
        let Some(range) = lines_of(lines, own, name) else { continue };
        let is_version = |line: &usize| lines.get(*line).trim_start().starts_with("version:");
        if let Some(line) = range.clone().find(is_version) {
            lines.replace(line, &since.version, &version.to_string());
            let what = format!(
                "LSM programs may call `{name}` since {version}, not {}; the commit is left as it is",
                since.version
            );
            edits.push((what, vec![case_of(item)]));
        }
    }
}

/// Takes a helper out of the list, and excludes it where a group brings it: the group's other users keep it, for of other
/// program types the records say nothing.
fn take_out(lines: &mut Lines, own: &Block, helper: &str, is_brought: bool) {
    let pad = pad(lines, own);
    if let Some(range) = lines_of(lines, own, helper) {
        range.for_each(|line| lines.drop(line));
    }
    if is_brought {
        lines.insert(own.end, format!("{pad}- exclude: {helper}"));
    }
}

/// The lines of `- name: helper` and of what is below it.
fn lines_of(lines: &Lines, block: &Block, helper: &str) -> Option<std::ops::Range<usize>> {
    let is_it =
        |line: &str| line.trim_start().strip_prefix("- name:").is_some_and(|name| name.trim() == helper);
    let depth = |line: usize| lines.get(line).len() - lines.get(line).trim_start().len();
    let first = (block.start..block.end).find(|&line| is_it(lines.get(line)))?;
    let next =
        (first + 1..block.end).find(|&line| lines.get(line).trim().is_empty() || depth(line) <= depth(first));
    Some(first..next.unwrap_or(block.end))
}
