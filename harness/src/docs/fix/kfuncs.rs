//! The data behind the lists of kfuncs: `sets` of functions with the program types for which they are registered.
//!
//! Which set of the kernel's source a function is in no record tells, so a function of no set is proposed, not added; so is
//! what has other versions than the rest of its set, for the data has one `since` and `until` for all of it.

use super::generated::{Generated, Release, Tags};
use super::lines::{Block, Lines, blocks};
use super::{Data, Evidence, Fix, callable, case_of, has_ended, refused, with_history};
use crate::claims::List;
use crate::docs::unlisted::is_of_a_test;
use crate::facts::Item;
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
    since: Option<Release>,
    until: Option<Release>,
}

impl File {
    /// The entries of LSM programs, as the generator makes them.
    fn generated(&self) -> Generated {
        let mut found = Generated::new();
        for (set, of_lsm) in self.sets.values().filter_map(|set| Some((set, set.ours()?))) {
            for func in set.funcs.iter().filter(|func| !func.is_excepted()) {
                let tags = Tags { since: of_lsm.since.clone(), until: of_lsm.until.clone() };
                found.entry(func.name.clone()).or_insert(tags);
            }
        }
        found
    }
}

impl Set {
    fn ours(&self) -> Option<&ProgramType> {
        self.program_types.iter().find(|it| OURS.contains(&it.name.as_str()))
    }
}

impl Func {
    fn is_excepted(&self) -> bool {
        let types = self.except.iter().flat_map(|except| &except.program_types);
        types.into_iter().any(|it| it.name == OURS[0])
    }
}

/// Corrects for which functions the data names LSM programs, and says what the generator makes of it then.
pub(super) fn correct(fix: &mut Fix, file: &Data, evidence: &Evidence<'_>) -> Option<Generated> {
    let data = fix.read::<File>(file)?;
    let mut lines = Lines::of(&file.text);
    let sets: Vec<Block> = blocks(&lines, 0, lines.len(), 0)
        .iter()
        .filter(|section| section.key == "sets")
        .flat_map(|section| blocks(&lines, section.start, section.end, 2))
        .collect();
    let block = |name: &str| sets.iter().find(|block| block.key == name);
    let refused = refused(evidence, List::Kfuncs);
    let mut edits = Vec::new();
    for (name, set) in data.sets.iter().filter(|(_, set)| set.ours().is_some()) {
        for func in set.funcs.iter().filter(|func| !func.is_excepted()) {
            let Some((case, block)) = refused.get(&func.name).zip(block(name)) else { continue };
            let what = format!(
                "set {name}: `{}` is excepted for {}: no kernel lets LSM programs call it",
                func.name, OURS[0]
            );
            if except(&mut lines, block, func) {
                edits.push((what, vec![case.clone()]));
            } else {
                fix.propose(&file.path, format!("to be done by hand: {what}"), vec![case.clone()]);
            }
        }
    }
    propose_missing(fix, file, &data, evidence);
    let after: File = fix.put_data(file, &lines, edits)?;
    Some(after.generated())
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

/// Functions that the newest kernels let LSM programs call and that the data has in no set of theirs.
fn propose_missing(fix: &mut Fix, file: &Data, data: &File, evidence: &Evidence<'_>) {
    let ours = data.generated();
    let missing = callable(evidence, List::Kfuncs).filter(|item| !has_ended(item));
    let missing = missing.filter(|item| !ours.contains_key(&item.name) && !is_of_a_test(&item.name));
    let others: BTreeSet<&str> =
        data.sets.values().flat_map(|set| &set.funcs).map(|func| func.name.as_str()).collect();
    let (known, unknown): (Vec<&Item>, Vec<&Item>) =
        missing.partition(|item| others.contains(item.name.as_str()));
    for (items, what) in [
        (known, "in sets without LSM programs, which may call them"),
        (
            unknown,
            "in no set, and LSM programs may call them; the records do not tell which set of the kernel's source is theirs",
        ),
    ] {
        if !items.is_empty() {
            let what = format!("{what}: {}", with_history(&items));
            fix.propose(&file.path, what, items.into_iter().map(case_of).collect());
        }
    }
}
