//! The data behind the lists of kfuncs: `sets` of functions with the program types for which they are registered.
//!
//! Which set of the kernel's source a function is in no record tells, so a function of no set is proposed, not added.

use super::lines::{Block, Lines, blocks};
use super::page::put_checked;
use super::{Data, Evidence, Fix, callable, case_of, list_of, refused};
use crate::claims::List;
use crate::docs::unlisted::is_of_a_test;
use crate::facts::{Item, Kind};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The program types with which LSM programs have a set: their own, and that of sets for everybody.
const OURS: [&str; 2] = ["BPF_PROG_TYPE_LSM", "BPF_PROG_TYPE_UNSPEC"];

#[derive(Deserialize)]
struct File {
    sets: BTreeMap<String, Set>,
}

#[derive(Deserialize)]
struct Set {
    #[serde(default)]
    funcs: Vec<Func>,
    #[serde(default)]
    program_types: Vec<ProgramType>,
}

#[derive(Deserialize)]
struct Func {
    name: String,
    except: Option<Except>,
}

#[derive(Deserialize)]
struct Except {
    #[serde(default)]
    program_types: Vec<ProgramType>,
}

#[derive(Deserialize)]
struct ProgramType {
    name: String,
}

impl Set {
    fn is_ours(&self) -> bool {
        self.program_types.iter().any(|it| OURS.contains(&it.name.as_str()))
    }
}

impl Func {
    fn is_excepted(&self) -> bool {
        let types = self.except.iter().flat_map(|except| &except.program_types);
        types.into_iter().any(|it| it.name == OURS[0])
    }
}

/// Corrects for which functions the data names LSM programs.
pub(super) fn correct(fix: &mut Fix, file: &Data, evidence: &Evidence<'_>) {
    let Some(data) = fix.read::<File>(file) else { return };
    let mut lines = Lines::of(&file.text);
    let sets: Vec<Block> = blocks(&lines, 0, lines.len(), 0)
        .iter()
        .filter(|section| section.key == "sets")
        .flat_map(|section| blocks(&lines, section.start, section.end, 2))
        .collect();
    let block = |name: &str| sets.iter().find(|block| block.key == name);
    let refused = refused(evidence, Kind::Kfunc);
    for (name, set) in data.sets.iter().filter(|(_, set)| set.is_ours()) {
        for func in set.funcs.iter().filter(|func| !func.is_excepted()) {
            let Some((case, block)) = refused.get(&func.name).zip(block(name)) else { continue };
            if except(&mut lines, block, func) {
                let what = format!(
                    "set {name}: `{}` is excepted for {}: no kernel lets LSM programs call it",
                    func.name, OURS[0]
                );
                fix.edit(&file.path, what, vec![case.clone()]);
            }
        }
    }
    propose_missing(fix, file, &data, evidence);
    put_checked(fix, &file.path, &file.text, &lines);
}

/// Notes below a function that LSM programs are excepted. An exception for others is there already: then nothing is done.
fn except(lines: &mut Lines, block: &Block, func: &Func) -> bool {
    if func.except.is_some() {
        return false;
    }
    let is_it =
        |line: &str| line.trim_start().strip_prefix("- name:").is_some_and(|name| name.trim() == func.name);
    let Some(first) = (block.start..block.end).find(|&line| is_it(lines.get(line))) else { return false };
    let depth = lines.get(first).len() - lines.get(first).trim_start().len();
    let deeper = |line: &str| line.len() - line.trim_start().len() > depth && !line.trim().is_empty();
    let end = (first + 1..block.end).find(|&line| !deeper(lines.get(line))).unwrap_or(block.end);
    let pad = " ".repeat(depth + 2);
    for line in ["except:", "  program_types:", &format!("    - name: {}", OURS[0])] {
        lines.insert(end, format!("{pad}{line}"));
    }
    true
}

/// Functions that LSM programs may call and that the data has in no set of theirs.
fn propose_missing(fix: &mut Fix, file: &Data, data: &File, evidence: &Evidence<'_>) {
    let ours: BTreeSet<&str> = data
        .sets
        .values()
        .filter(|set| set.is_ours())
        .flat_map(|set| set.funcs.iter().filter(|func| !func.is_excepted()))
        .map(|func| func.name.as_str())
        .collect();
    let missing: Vec<&Item> = callable(evidence, List::Kfuncs)
        .filter(|item| !ours.contains(item.name.as_str()) && !is_of_a_test(&item.name))
        .collect();
    let others: BTreeSet<&str> =
        data.sets.values().flat_map(|set| &set.funcs).map(|func| func.name.as_str()).collect();
    let (known, unknown): (Vec<&Item>, Vec<&Item>) =
        missing.iter().partition(|item| others.contains(item.name.as_str()));
    for (items, what) in [
        (known, "are in sets without LSM programs, which may call them"),
        (
            unknown,
            "may be called by LSM programs and are in no set; the records do not tell which set of the kernel's source is theirs",
        ),
    ] {
        let names: BTreeSet<&str> = items.iter().map(|item| item.name.as_str()).collect();
        if !names.is_empty() {
            fix.propose(
                &file.path,
                format!("{} {what}", list_of(&names)),
                items.into_iter().map(case_of).collect(),
            );
        }
    }
}
