//! A hook: whether a program attaches to it, which kinds of program load, whether it fires, and what a program's value does.
//!
//! A hook `denies` where a program's errno reaches user space, as itself or by its effect. A few hooks return something else
//! (`inode_xattr_skipcap`: whether a capability is not asked for), so that a program grants as well as denies: they `decide`.
//! What counts as either is [`took_effect`], also for `list --coverage`.

use super::item::{Feature, Item, Kind, answers, no_case, prototype, refusal, yes};
use super::said::crashed_in;
use super::{Answer, Answers, Known};
use crate::normalize::{Normal, NormalCase};
use crate::snapshot::Snapshot;
use probes::families::hooks::unfired;
use probes::record::{End, Outcome};
use serde_json::Value;
use std::collections::BTreeMap;

/// Why a hook that programs may not attach to is one all the same (6.12 kernel/bpf/bpf_lsm.c, `bpf_lsm_disabled_hooks`).
pub(super) const DISABLED: &str = "the kernel keeps this hook from BPF programs";

/// A hook by the records of its probe.
pub(super) fn hook(name: &str, snapshot: &Snapshot, kernels: &[String]) -> Item {
    let attach = |normal: &Normal, inventory: &NormalCase| {
        let is = inventory.seen.get("hook").and_then(Value::as_str).unwrap_or_default();
        let case = normal.case("attach");
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
            (_, None) => no_case(normal, "attach"),
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
    let mut fires = answers(snapshot, kernels, "fire", fired);
    explain_unasked(&mut fires, name, snapshot);
    let feature = |name, case: &str, answers| Feature { name, case: case.to_owned(), answers };
    let mut features = vec![
        feature("sleepable", "load-sleepable", answers(snapshot, kernels, "load-sleepable", plain)),
        feature("cgroup", "load-cgroup", answers(snapshot, kernels, "load-cgroup", plain)),
        feature("fires", "fire", fires),
    ];
    features.extend(verdict("denies", "deny-", snapshot, kernels, |case| denied(name, case)));
    if returns_something(snapshot) {
        features.extend(verdict("decides", "return-", snapshot, kernels, |case| decided(name, case)));
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

/// The probe that asks, with bpf alone, the hooks that the kernel calls only where another module keeps or labels something.
pub(super) const ALONE: &str = "lsms/asked-alone";
const IN_COMPANY: &str = "beside a module that keeps or labels something, not with bpf alone";

/// Says of hooks that fire beside other modules, as they do in `hooks/..`, where they do not with bpf alone.
pub(super) fn need_company(items: &mut BTreeMap<(Kind, String), Item>, alone: &Snapshot) {
    let silent = alone.current().flat_map(|(kernel, normal)| {
        normal.cases.iter().filter(|case| case.fired == Some(false)).map(move |case| (kernel, &case.name))
    });
    for (kernel, hook) in silent {
        let Some(item) = items.get_mut(&(Kind::Hook, hook.clone())) else { continue };
        let fires = item.features.iter_mut().filter(|feature| feature.name == "fires");
        let answers = fires.flat_map(|feature| &mut feature.answers.0).filter(|(of, _)| of == kernel);
        for (_, answer) in answers.filter(|(_, answer)| answer.known() == Known::Yes) {
            *answer = Answer::Yes { condition: IN_COMPANY.to_owned() };
        }
    }
}

/// Says why no trigger was tried on a hook that programs attach to, where that is known.
fn explain_unasked(fires: &mut Answers, name: &str, snapshot: &Snapshot) {
    let Some(reason) = unfired::reason(name) else { return };
    let is_unasked = |normal: &Normal| {
        let attaches = normal.case("attach").is_some_and(|case| case.end == End::Done);
        normal.outcome == Outcome::Observed && attaches && normal.case("fire").is_none()
    };
    for (kernel, answer) in &mut fires.0 {
        if !snapshot.behind.contains(kernel) && snapshot.of(kernel).is_some_and(is_unasked) {
            *answer = Answer::Unknown { why: reason.to_owned() };
        }
    }
}

/// Whether user space saw that a program's value counts. A case ends early, and is none, where the control run has failed.
#[must_use]
pub fn took_effect(case: &NormalCase) -> bool {
    let asks = case.name.starts_with("deny-") || case.name.starts_with("return-");
    let differs = match (case.seen.get("user space sees"), case.seen.get("not the target")) {
        (Some(seen), Some(control)) => seen != control,
        _ => false,
    };
    asks && case.end == End::Done && case.fired == Some(true) && (case.denied == Some(true) || differs)
}

/// What a denial was worth. One by a program that never ran says nothing of the hook.
fn denied(hook: &str, case: &NormalCase) -> Answer {
    match (case.fired, case.denied) {
        _ if took_effect(case) => yes(),
        (Some(false), _) => never_ran(hook),
        (Some(true), Some(false)) => Answer::No { why: "user space saw no denial".to_owned() },
        _ => Answer::Unknown { why: "the case does not say".to_owned() },
    }
}

/// What a value that is no errno was worth: it may be what the kernel takes anyway, so that no effect is no "no".
fn decided(hook: &str, case: &NormalCase) -> Answer {
    match case.fired {
        _ if took_effect(case) => yes(),
        Some(false) => never_ran(hook),
        Some(true) => Answer::Unknown {
            why: "user space sees the same without the values that were asked about".to_owned(),
        },
        None => Answer::Unknown { why: "the case does not say".to_owned() },
    }
}

fn never_ran(hook: &str) -> Answer {
    Answer::Unknown { why: unfired::reason(hook).unwrap_or("its trigger made no program run").to_owned() }
}

/// Whether the hook has a return value, by the prototype of any kernel.
fn returns_something(snapshot: &Snapshot) -> bool {
    let inventories = snapshot.observed.iter().filter_map(|(_, normal)| normal.case("inventory"));
    inventories.filter_map(|case| case.seen.get("slot of ret")).any(Value::is_number)
}

/// What programs' values do, by all cases that begin with `prefix`: yes where one of them took effect, no only where one
/// crashed the kernel or none is left that could not tell.
fn verdict(
    name: &'static str,
    prefix: &str,
    snapshot: &Snapshot,
    kernels: &[String],
    of_case: impl Fn(&NormalCase) -> Answer,
) -> Option<Feature> {
    let cases = snapshot.order.iter().filter(|case| case.starts_with(prefix));
    let asked: Vec<(&String, Answers)> =
        cases.map(|case| (case, answers(snapshot, kernels, case, |_, case| of_case(case)))).collect();
    let works = asked.iter().find(|(_, answers)| answers.kernels(Known::Yes).next().is_some());
    let (case, _) = works.or_else(|| asked.first())?;
    let of_kernel = |kernel: &String| {
        let said = || asked.iter().filter_map(|(_, answers)| answers.of(kernel));
        let of = |known| said().find(|answer| answer.known() == known);
        let crashed = |case: &str| snapshot.of(kernel).is_some_and(|it| crashed_in(it, case).is_some());
        let crash = || asked.iter().find(|(case, _)| crashed(case)).and_then(|(_, it)| it.of(kernel));
        let answer =
            of(Known::Yes).or_else(crash).or_else(|| of(Known::Unknown)).or_else(|| said().next())?;
        Some((kernel.clone(), answer.clone()))
    };
    let answers = Answers(kernels.iter().filter_map(of_kernel).collect());
    Some(Feature { name, case: (*case).clone(), answers })
}
