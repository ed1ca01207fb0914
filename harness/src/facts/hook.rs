//! A hook: whether a program attaches to it, which kinds of program load, whether it fires, and what a program's value does.

use super::item::{Answer, Feature, Item, Kind, answers, case_of, no_case, prototype, refusal, yes};
use crate::normalize::{Normal, NormalCase};
use crate::snapshot::Snapshot;
use probes::families::hooks::unfired;
use probes::record::End;
use serde_json::Value;

/// Why a hook that programs may not attach to is one all the same (6.12 kernel/bpf/bpf_lsm.c, `bpf_lsm_disabled_hooks`).
pub(super) const DISABLED: &str = "the kernel keeps this hook from BPF programs";

/// A hook by the records of its probe.
pub(super) fn hook(name: &str, snapshot: &Snapshot, kernels: &[String]) -> Item {
    let attach = |normal: &Normal, inventory: &NormalCase| {
        let is = inventory.seen.get("hook").and_then(Value::as_str).unwrap_or_default();
        let case = case_of(normal, "attach");
        match (is, case.map(|case| &case.end)) {
            ("disabled", _) => Answer::No { why: DISABLED.to_owned() },
            // Up to 5.9 the verifier looks at the name alone: such a function is none all the same.
            (is, _) if is == "no" || is.starts_with("no, ") => Answer::No { why: "not a hook".to_owned() },
            (_, Some(End::Done)) => yes(),
            (_, Some(End::Refused { errno })) => {
                Answer::No { why: case.map(|case| refusal(errno, case)).unwrap_or_default() }
            }
            (_, Some(End::Absent { what })) => Answer::Unknown { why: format!("{what} is absent") },
            (_, Some(End::CouldNotTell { why })) => Answer::Unknown { why: why.clone() },
            (_, None) => no_case(normal),
        }
    };
    let plain = |_: &Normal, _: &NormalCase| yes();
    let fired = |_: &Normal, case: &NormalCase| match case.fired {
        Some(true) => yes(),
        // Where it is known why no trigger can reach the hook, that none did is no word of the kernel's.
        Some(false) => match unfired::reason(name) {
            Some(why) => Answer::Unknown { why: why.to_owned() },
            None => Answer::No { why: "its trigger made no program run".to_owned() },
        },
        None => Answer::Unknown { why: "the case does not say".to_owned() },
    };
    let feature = |name, case: &str, answers| Feature { name, case: case.to_owned(), answers };
    let mut features = vec![
        feature("sleepable", "load-sleepable", answers(snapshot, kernels, "load-sleepable", plain)),
        feature("cgroup", "load-cgroup", answers(snapshot, kernels, "load-cgroup", plain)),
        feature("fires", "fire", answers(snapshot, kernels, "fire", fired)),
    ];
    if let Some(case) = snapshot.order.iter().find(|case| case.starts_with("deny-")) {
        let denied = |_: &Normal, case: &NormalCase| match case.denied {
            Some(true) => yes(),
            Some(false) => Answer::No { why: "user space saw no denial".to_owned() },
            None => Answer::Unknown { why: "the case does not say".to_owned() },
        };
        features.push(feature("denies", case, answers(snapshot, kernels, case, denied)));
    }
    Item {
        kind: Kind::Hook,
        name: name.to_owned(),
        probe: snapshot.probe.clone(),
        case: "attach".to_owned(),
        prototype: prototype(snapshot, "inventory"),
        answers: answers(snapshot, kernels, "inventory", attach),
        features,
    }
}
