//! The data behind the lists of helpers: `groups` of helpers, and `programs` that name helpers and groups.
//!
//! A helper that a group brings and LSM programs may not call is taken out of the group and given to every other user of
//! it, so that what other program types have stays what it is: of them the records say nothing.

use super::lines::{Block, Lines, blocks};
use super::page::put_checked;
use super::{Data, Evidence, Fix, callable, case_of, refused};
use crate::claims::List;
use crate::facts::{Answer, Item, Kind};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The program type.
const LSM: &str = "BPF_PROG_TYPE_LSM";
/// There are some twenty groups. They are followed by recursion, and each is looked for in all.
const GROUPS_MAX: usize = 1000;

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
}

impl File {
    /// The helpers that a list of members has, with those of its groups.
    fn all(&self, members: &[Member], seen: &mut BTreeSet<String>) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = members.iter().filter_map(|member| member.name.clone()).collect();
        for group in members.iter().filter_map(|member| member.group.as_ref()) {
            if seen.insert(group.clone()) {
                names.extend(
                    self.groups.get(group).map(|members| self.all(members, seen)).unwrap_or_default(),
                );
            }
        }
        names
    }

    fn of(&self, program: &str) -> BTreeSet<String> {
        self.programs.get(program).map(|members| self.all(members, &mut BTreeSet::new())).unwrap_or_default()
    }

    /// The groups through which a program type comes to a helper.
    fn ways(&self, program: &str, helper: &str) -> BTreeSet<String> {
        let mut open: Vec<&str> =
            self.programs.get(program).into_iter().flatten().filter_map(|it| it.group.as_deref()).collect();
        let mut ways = BTreeSet::new();
        while let Some(group) = open.pop() {
            let Some(members) = self.groups.get(group) else { continue };
            if self.all(members, &mut BTreeSet::new()).contains(helper) && ways.insert(group.to_owned()) {
                open.extend(members.iter().filter_map(|it| it.group.as_deref()));
            }
        }
        ways
    }
}

/// Corrects the list of LSM programs.
pub(super) fn correct(fix: &mut Fix, file: &Data, evidence: &Evidence<'_>) {
    let Some(data) = fix.read::<File>(file) else { return };
    if data.groups.len() > GROUPS_MAX {
        let what = format!("the file is left alone: it has more than {GROUPS_MAX} groups");
        return fix.propose(&file.path, what, Vec::new());
    }
    let mut lines = Lines::of(&file.text);
    let lists = lists(&lines);
    let Some(own) = lists.iter().find(|block| block.key == LSM && data.programs.contains_key(LSM)).cloned()
    else {
        return;
    };
    let has = data.of(LSM);
    let place = (own.start..own.end)
        .find(|&line| lines.get(line).trim_start().starts_with("- group:"))
        .unwrap_or(own.end);
    for item in callable(evidence, List::Helpers).filter(|item| !has.contains(&item.name)) {
        for line in member(item) {
            lines.insert(place, line);
        }
        fix.edit(
            &file.path,
            format!("`{}` is added to {LSM}: LSM programs may call it", item.name),
            vec![case_of(item)],
        );
    }
    for (helper, case) in
        refused(evidence, Kind::Helper).into_iter().filter(|(helper, _)| has.contains(helper))
    {
        take_out(&mut lines, &lists, &data, &own, &helper);
        let what = format!(
            "`{helper}` is taken from {LSM}, and kept for the other users of its group: no kernel lets LSM programs call it"
        );
        fix.edit(&file.path, what, vec![case]);
    }
    put_checked(fix, &file.path, &file.text, &lines);
}

/// The lists of both sections.
fn lists(lines: &Lines) -> Vec<Block> {
    let sections = blocks(lines, 0, lines.len(), 0);
    let wanted = sections.into_iter().filter(|section| section.key == "groups" || section.key == "programs");
    wanted.flat_map(|section| blocks(lines, section.start, section.end, 2)).collect()
}

/// A helper as the data writes it.
fn member(item: &Item) -> Vec<String> {
    let mut lines = vec![format!("  - name: {}", item.name)];
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
    lines.extend(condition.map(|condition| format!("    {condition}")));
    lines
}

/// Takes a helper out of the list and of the groups that bring it, and gives it to those groups' other users.
fn take_out(lines: &mut Lines, lists: &[Block], data: &File, own: &Block, helper: &str) {
    let ways = data.ways(LSM, helper);
    let is_way = |block: &Block| ways.contains(&block.key) && data.groups.contains_key(&block.key);
    for block in lists.iter().filter(|block| *block == own || is_way(block)) {
        drop_member(lines, block, helper);
    }
    let members = |key: &str| data.groups.get(key).or_else(|| data.programs.get(key));
    for block in lists.iter().filter(|block| *block != own && !is_way(block)) {
        let Some(members) = members(&block.key) else { continue };
        let uses = |member: &Member| member.group.as_ref().is_some_and(|group| ways.contains(group));
        if members.iter().any(uses) && !members.iter().any(|member| member.name.as_deref() == Some(helper)) {
            let first =
                (block.start..block.end).find(|&line| lines.get(line).trim_start().starts_with("- group:"));
            lines.insert(first.unwrap_or(block.end), format!("  - name: {helper}"));
        }
    }
}

/// Drops `- name: helper` and what is below it.
fn drop_member(lines: &mut Lines, block: &Block, helper: &str) {
    let is_it =
        |line: &str| line.trim_start().strip_prefix("- name:").is_some_and(|name| name.trim() == helper);
    let Some(first) = (block.start..block.end).find(|&line| is_it(lines.get(line))) else { return };
    let next = (first + 1..block.end).find(|&line| {
        let text = lines.get(line).trim_start();
        text.starts_with('-') || text.starts_with('#') || text.is_empty()
    });
    for line in first..next.unwrap_or(block.end) {
        lines.drop(line);
    }
}
