//! What a helper or kfunc is good for: whether a normal use of it came true, and whether a program that may sleep can use
//! what it may call.

use super::item::{Feature, answers, refusal, yes};
use super::{Answer, Answers, Known};
use crate::normalize::NormalCase;
use crate::snapshot::Snapshot;
use probes::record::End;
use serde_json::Value;

/// The case of a normal use in a program that may sleep.
const ASLEEP: &str = "canonical-sleepable";

/// A call that a program which may sleep gets past the verifier is of no use to it where the map that it needs is not
/// one for such programs (6.12 kernel/bpf/verifier.c, `check_map_prog_compatibility`).
pub(super) fn refuse_unusable(asleep: &mut Feature, snapshot: &Snapshot) {
    for (kernel, answer) in &mut asleep.answers.0 {
        let Some(case) = snapshot.of(kernel).and_then(|normal| normal.case(ASLEEP)) else { continue };
        let End::Refused { errno } = &case.end else { continue };
        let is_hooks = case.reason.as_ref().is_some_and(|reason| reason.ends_with("is not sleepable"));
        if answer.known() == Known::Yes && !is_hooks {
            *answer = Answer::No { why: refusal(errno, case) };
            // It is what shows the feature's history then: the bare call is taken all the same.
            ASLEEP.clone_into(&mut asleep.case);
        }
    }
}

/// Whether a normal use is accepted and does what it says, in either kind of program.
pub(super) fn normal_use(snapshot: &Snapshot, kernels: &[String]) -> Option<Feature> {
    let of = |case: &str| answers(snapshot, kernels, case, |_, case| came_true(case));
    let first = snapshot.order.iter().find(|case| case.starts_with("canonical"))?;
    let mut used = Feature { name: "normal use", case: first.clone(), answers: of(first) };
    let came = |kernel: &str| {
        let case = snapshot.of(kernel).and_then(|normal| normal.case(first));
        case.is_some_and(|case| case.end == End::Done)
    };
    // Another right use of the same kind of program may show what the first does not.
    let others = snapshot.order.iter().filter(|case| case.starts_with("canonical-"));
    for other in others.filter(|case| *case != first && !case.starts_with(ASLEEP)) {
        complete(&mut used, other, &of(other), |kernel, answer, told| {
            (came(kernel) && answer.known() == Known::Unknown).then(|| told.clone())
        });
    }
    if first != ASLEEP && snapshot.order.iter().any(|case| case == ASLEEP) {
        complete(&mut used, ASLEEP, &of(ASLEEP), |_, answer, _| {
            let condition = "by programs that may sleep".to_owned();
            (answer.known() != Known::Yes).then_some(Answer::Yes { condition })
        });
    }
    Some(used)
}

/// Takes from another case each yes that `better` makes something of, which is given the kernel, what is known of it so far,
/// and that yes. A feature without any names that case from then on.
pub(super) fn complete(
    used: &mut Feature,
    case: &str,
    shown: &Answers,
    better: impl Fn(&str, &Answer, &Answer) -> Option<Answer>,
) {
    let has_yes = |answers: &Answers| answers.kernels(Known::Yes).next().is_some();
    if !has_yes(&used.answers) && has_yes(shown) {
        case.clone_into(&mut used.case);
    }
    for (kernel, answer) in &mut used.answers.0 {
        let told = shown.of(kernel).filter(|told| told.known() == Known::Yes);
        if let Some(better) = told.and_then(|told| better(kernel, answer, told)) {
            *answer = better;
        }
    }
}

/// Yes, unless no program ran, or the case saw something else than it expects, or nothing in which a use is seen: an errno,
/// a null pointer, or that the call came back.
fn came_true(case: &NormalCase) -> Answer {
    if case.fired != Some(true) {
        let why = case.seen.get("not run").and_then(Value::as_str).map(|why| format!(": {why}"));
        return Answer::Unknown { why: format!("accepted, and not run{}", why.unwrap_or_default()) };
    }
    let is_wrong = |said: &str| said == "NO" || said.starts_with("NO,") || said.starts_with("DIFFERS");
    let mut said = case.seen.iter().filter_map(|(what, said)| Some((what, said.as_str()?)));
    if let Some((what, said)) = said.clone().find(|(_, said)| is_wrong(said)) {
        return Answer::Unknown { why: format!("accepted, but {what}: {said}") };
    }
    let seen = said.find_map(|(what, said)| match what.as_str() {
        "returned" | "result" if said.starts_with("-E") || said == "null" => Some(said),
        "the result is NULL" if said == "yes" => Some("NULL"),
        "its effect" => Some("that the call comes back"),
        _ => None,
    });
    match seen {
        Some(seen) => Answer::Unknown { why: format!("accepted, and all that was seen is {seen}") },
        None => yes(),
    }
}
