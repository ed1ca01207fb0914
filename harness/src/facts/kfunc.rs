//! Kfuncs: what the probe that asks about all of them says of each, and whether a normal use of it came true.

use super::Known;
use super::item::{Answer, Feature, Item, Kind, answers, prototype, yes};
use super::usage::{complete, normal_use};
use crate::normalize::NormalCase;
use crate::snapshot::Snapshot;
use serde_json::Value;
use std::collections::BTreeMap;

/// The probe that asks about every kfunc.
pub(super) const INVENTORY: &str = "kfuncs/inventory";

/// In an answer that is about the BTF that came with the image (`probes::families::kfuncs::cases`, `bare_call`).
const BUILD: &str = "the kernel's BTF lacks";

/// The kinds of program that are asked with, as features and as records call them.
const KINDS: [(&str, &str); 2] = [("plain", "LSM programs"), ("sleepable", "sleepable LSM programs")];

/// What the inventory says of one kind of program.
fn of_kind(said: Option<&Value>) -> Answer {
    match said.and_then(Value::as_str) {
        Some("may call it") => yes(),
        Some(said) if said.contains(BUILD) => Answer::BuildLacks { why: said.to_owned() },
        Some(said) if said.starts_with("could not tell") => Answer::Unknown { why: said.to_owned() },
        Some(said) => Answer::No { why: said.to_owned() },
        None => Answer::Unknown { why: "the case does not say".to_owned() },
    }
}

/// Whether any program may call it: no only where both kinds have told so.
fn of_any(case: &NormalCase) -> Answer {
    let [plain, asleep] = KINDS.map(|(_, key)| of_kind(case.seen.get(key)));
    let alone = |who: &str, other: &Answer| {
        let condition = match other.known() {
            Known::Unknown => format!("by {who}, of others it could not be told"),
            Known::Yes | Known::No => format!("by {who} only"),
        };
        Answer::Yes { condition }
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
                answers: answers(inventory, kernels, name, |_, case| of_kind(case.seen.get(key))),
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
