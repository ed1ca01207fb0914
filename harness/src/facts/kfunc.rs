//! Kfuncs: what the probe that asks about all of them says of each, and whether a normal use of it came true.

use super::item::{Feature, Item, Kind, answers, prototype, yes};
use super::usage::{complete, normal_use};
use super::{Answer, Known};
use crate::normalize::NormalCase;
use crate::snapshot::Snapshot;
use serde_json::Value;
use std::collections::BTreeMap;

/// The probe that asks about every kfunc.
pub(super) const INVENTORY: &str = "kfuncs/inventory";

/// The kinds of program that are asked with, as features and as records call them.
const KINDS: [(&str, &str); 2] = [("plain", "LSM programs"), ("sleepable", "sleepable LSM programs")];

/// What a word of the inventory says of a kind of program.
#[derive(Clone, Copy, PartialEq)]
enum Word {
    May,
    MayNot,
    /// About the BTF that came with the image.
    BuildLacks,
    /// The question was not answered.
    NotAnswered,
}

/// The word of a kernel that calls no kfuncs, which is so for every kind of program.
pub(super) const NO_CALLS: &str = "the kernel knows no calls of kfuncs";

/// The word where the verifier refuses a kfunc for what its arguments are, never mind which program passes them
/// (`probes::families::kfuncs`, `NEVER`), and what it says of LSM programs, which alone are asked with.
const NEVER: &str = "no program may call it";
/// See [`NEVER`].
pub(crate) const OF_NO_LSM_PROGRAM: &str = "no LSM program may call it";

/// Every word of the inventory (`probes::families::kfuncs`, `bare.rs`). What is not here could not be told.
const WORDS: &[(&str, Word)] = &[
    ("may call it", Word::May),
    ("may NOT call it", Word::MayNot),
    ("only a program that may sleep may call it", Word::MayNot),
    (NEVER, Word::MayNot),
    (NO_CALLS, Word::MayNot),
    ("there are no sleepable programs", Word::MayNot),
    ("it has a prototype and no address", Word::MayNot),
    ("no LSM program: only one that is bound to a device may call it, which none can be", Word::MayNot),
    ("no program can: one of its arguments is nothing that a program could give", Word::MayNot),
    ("no program can: the kernel's BTF lacks its full prototype", Word::BuildLacks),
    ("no such program is for the hook that this asks with", Word::NotAnswered),
];

fn meaning(said: &str) -> Option<Word> {
    WORDS.iter().find(|(word, _)| *word == said).map(|(_, meaning)| *meaning)
}

/// A word of the inventory, told where nothing says any more that LSM programs alone were asked with.
fn of_lsm_programs(said: &str) -> String {
    if said == NEVER { OF_NO_LSM_PROGRAM } else { said }.to_owned()
}

/// What the inventory says of one kind of program.
fn of_kind(case: &NormalCase, kind: &str) -> Answer {
    let said = |key: &str| case.seen.get(key).and_then(Value::as_str);
    let Some(own) = said(kind) else { return Answer::Unknown { why: "the case does not say".to_owned() } };
    let why = of_lsm_programs(own);
    match meaning(own) {
        Some(Word::May) => yes(),
        Some(Word::MayNot) => Answer::No { why },
        Some(Word::BuildLacks) => Answer::BuildLacks { why },
        Some(Word::NotAnswered) if KINDS.iter().any(|(_, key)| said(key) == Some(NO_CALLS)) => {
            Answer::No { why: NO_CALLS.to_owned() }
        }
        Some(Word::NotAnswered) | None => Answer::Unknown { why },
    }
}

/// Whether any program may call it: no only where both kinds have told so.
fn of_any(case: &NormalCase) -> Answer {
    let [plain, asleep] = KINDS.map(|(_, key)| of_kind(case, key));
    let alone = |who: &str, other: &Answer| match other.known() {
        Known::Unknown => Answer::yes_at_least(who),
        Known::Yes | Known::No => Answer::Yes { condition: format!("by {who} only") },
    };
    match (plain.known(), asleep.known()) {
        (Known::Yes, Known::Yes) => yes(),
        (Known::Yes, _) => alone(KINDS[0].1, &asleep),
        (_, Known::Yes) => alone(KINDS[1].1, &plain),
        (Known::No, Known::Unknown) => asleep,
        (Known::Unknown, _) | (Known::No, Known::No) => plain,
    }
}

/// Whether a normal use came true in the kfunc's own probe, or in another of its (`kfuncs/NAME-of-..`): one of them may have
/// what the other lacks. The case is named with its probe, without the family.
fn normal_use_of(name: &str, snapshots: &BTreeMap<String, Snapshot>, kernels: &[String]) -> Option<Feature> {
    let (own, others) = (format!("kfuncs/{name}"), format!("kfuncs/{name}-"));
    let of = |id: &String, snapshot: &Snapshot| {
        let mut used = normal_use(snapshot, kernels)?;
        used.case = format!("{}/{}", id.strip_prefix("kfuncs/")?, used.case);
        Some(used)
    };
    let mut used = of(&own, snapshots.get(&own)?)?;
    for (id, snapshot) in snapshots.iter().filter(|(id, _)| id.starts_with(&others)) {
        let Some(other) = of(id, snapshot) else { continue };
        complete(&mut used, &other.case, &other.answers, |_, answer, told| {
            (answer.known() == Known::Unknown).then(|| told.clone())
        });
    }
    Some(used)
}

/// The answers of `kfuncs/inventory`, and what the kfunc's own probe adds.
pub(super) fn kfuncs(
    inventory: &Snapshot,
    snapshots: &BTreeMap<String, Snapshot>,
    kernels: &[String],
) -> Vec<Item> {
    let item = |name: &String| {
        let mut features: Vec<Feature> = KINDS
            .iter()
            .map(|&(feature, key)| Feature {
                name: feature,
                case: name.clone(),
                answers: answers(inventory, kernels, name, |_, case| of_kind(case, key)),
            })
            .collect();
        let own = snapshots.get(&format!("kfuncs/{name}"));
        features.extend(normal_use_of(name, snapshots, kernels));
        Item {
            kind: Kind::Kfunc,
            name: name.clone(),
            probe: INVENTORY.to_owned(),
            case: name.clone(),
            prototype: own.and_then(|own| prototype(own, "exists")),
            answers: answers(inventory, kernels, name, |_, case| of_any(case)),
            features,
        }
    };
    inventory.order.iter().map(item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::testing::words_of;
    use crate::snapshot::made_up::done;
    use rstest::rstest;
    use serde_json::json;

    #[test]
    fn every_word_of_the_snapshots_is_in_the_list() {
        let said = words_of(INVENTORY, |_, key| KINDS.iter().any(|(_, kind)| *kind == key));
        assert!(said.len() > 8);
        let unknown: Vec<&String> = said.iter().filter(|said| meaning(said).is_none()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[rstest]
    #[case::new("something new", "may NOT call it", "could not tell: something new")]
    #[case::not_answered(
        "may NOT call it",
        "no such program is for the hook that this asks with",
        "could not tell: no such program is for the hook that this asks with"
    )]
    #[case::of_every_program(
        "the kernel knows no calls of kfuncs",
        "no such program is for the hook that this asks with",
        "no: the kernel knows no calls of kfuncs"
    )]
    #[case::of_lsm_programs_alone(
        "no program may call it",
        "no program may call it",
        "no: no LSM program may call it"
    )]
    fn what_was_not_answered_is_no_no(#[case] plain: &str, #[case] asleep: &str, #[case] says: &str) {
        let seen = json!({KINDS[0].1: plain, KINDS[1].1: asleep}).as_object().unwrap().clone();
        assert_eq!(of_any(&NormalCase { seen, ..done("bpf_x") }).words(), says);
    }
}
