//! Helpers: which programs may call one, by the words of the case `callable`, and whether a normal use of it came true.

use super::item::{Feature, Item, Kind, answers, refusal, yes};
use super::usage::{normal_use, refuse_unusable};
use super::{Answer, Known};
use crate::normalize::{Normal, NormalCase};
use crate::snapshot::Snapshot;
use probes::record::End;
use serde_json::{Map, Value};

/// The answers of the case `callable` that are a no whichever errno or not they end with
/// (`probes::families::helpers::callable`). What is in neither list could not be told.
const NO: &[&str] =
    &["no", "no, the helper has a condition of its own", "no, it can sleep and the program may not"];
/// Those that go on with an errno: where no such program exists, or no process may load it, none may call.
const NO_PROGRAM: &[&str] = &["there is no such program, ", "there is none that the process may load, "];

/// What one kind of program's answer says: whether it may call.
fn may_call(said: &str) -> Option<bool> {
    let is_errno = |rest: &str| rest.starts_with('E') && rest.bytes().all(|it| it.is_ascii_alphanumeric());
    let no_program = || NO_PROGRAM.iter().filter_map(|begins| said.strip_prefix(begins)).any(is_errno);
    match said {
        "yes" => Some(true),
        _ if NO.contains(&said) || no_program() => Some(false),
        _ => None,
    }
}

/// What several kinds of program's answers say together: yes where one may call, no where all have told that they may not.
fn of_all<'a>(said: impl Iterator<Item = &'a Value> + Clone) -> Answer {
    let words = || said.clone().map(|it| (it.as_str(), it.as_str().and_then(may_call)));
    let untold = || words().find(|(_, may)| may.is_none());
    match words().next() {
        None => Answer::Unknown { why: "the case does not say".to_owned() },
        Some(_) if words().any(|(_, may)| may == Some(true)) => yes(),
        Some((first, _)) => match untold() {
            Some((said, _)) => Answer::Unknown { why: said.unwrap_or("it says no word").to_owned() },
            None => Answer::No { why: first.unwrap_or_default().to_owned() },
        },
    }
}

/// The answer of some kinds of program in a helper's case `callable`.
fn of_programs(keys: &'static [&'static str]) -> impl Fn(&Normal, &NormalCase) -> Answer {
    move |_, case| of_all(keys.iter().filter_map(|key| case.seen.get(*key)))
}

/// Whether a process without the capability may load a program that calls the helper. That is asked with one kind of program
/// alone: where only others may call the helper, its no says nothing of the capability.
fn without_capability(seen: &Map<String, Value>) -> Answer {
    let of = |key: &str| of_all(seen.get(key).into_iter());
    let answer = of(UNPRIVILEGED);
    let others = of_all(seen.iter().filter(|(key, _)| *key != BY).map(|(_, said)| said));
    let with = of(PRIVILEGED);
    match (answer.known(), with.known(), others.known()) {
        (Known::No, Known::No, Known::Yes) => {
            Answer::Unknown { why: "asked of a kind of program that may not call it in any case".to_owned() }
        }
        (Known::No, Known::Unknown, _) => with,
        _ => answer,
    }
}

/// Hooks whose programs are asked, by feature (`probes::families::helpers::callable`).
const PLAIN: &[&str] = &["file_open", "bprm_check_security", "socket_post_create", "inet_csk_clone"];
const SLEEPABLE: &[&str] = &["file_open, sleepable", "bprm_committed_creds, sleepable"];
const OF_A_CGROUP: &[&str] = &[
    "file_open, of a cgroup",
    "socket_post_create, of a cgroup",
    "inet_csk_clone, of a cgroup",
    "file_open, of a cgroup, sleepable",
];
const UNPRIVILEGED: &str = "file_open, without CAP_SYS_ADMIN";
/// The same kind of program, with the capability.
const PRIVILEGED: &str = "file_open";

/// In which fact the record says who may call.
const BY: &str = "may be called by";
/// Its words for a helper that needs no condition.
const EVERYONE: &str = "every program";

/// A helper by the records of its probe.
pub(super) fn helper(name: &str, snapshot: &Snapshot, kernels: &[String]) -> Item {
    let callable = |normal: &Normal, case: &NormalCase| match of_all(
        case.seen.iter().filter(|(key, _)| *key != BY).map(|(_, said)| said),
    ) {
        Answer::Yes { .. } => {
            let by = case.seen.get(BY).and_then(Value::as_str).filter(|by| *by != EVERYONE);
            Answer::Yes { condition: by.map(|by| format!("by {by}")).unwrap_or_default() }
        }
        Answer::No { .. } => {
            let said = normal.case("canonical").and_then(|canonical| match &canonical.end {
                End::Refused { errno } => Some(refusal(errno, canonical)),
                End::Done | End::Absent { .. } | End::CouldNotTell { .. } => None,
            });
            Answer::No { why: said.unwrap_or_else(|| "no LSM program may call it".to_owned()) }
        }
        untold @ (Answer::Absent { .. } | Answer::BuildLacks { .. } | Answer::Unknown { .. }) => untold,
    };
    let feature = |name, answers| Feature { name, case: "callable".to_owned(), answers };
    let by = |name, keys| feature(name, answers(snapshot, kernels, "callable", of_programs(keys)));
    let mut asleep = by("sleepable", SLEEPABLE);
    refuse_unusable(&mut asleep, snapshot);
    let mut features = vec![
        by("plain", PLAIN),
        asleep,
        by("cgroup", OF_A_CGROUP),
        feature(
            "without CAP_SYS_ADMIN",
            answers(snapshot, kernels, "callable", |_, case| without_capability(&case.seen)),
        ),
    ];
    features.extend(normal_use(snapshot, kernels));
    Item {
        kind: Kind::Helper,
        name: name.to_owned(),
        probe: snapshot.probe.clone(),
        case: "callable".to_owned(),
        prototype: None,
        answers: answers(snapshot, kernels, "callable", callable),
        features,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::testing::words_of;
    use rstest::rstest;
    use serde_json::json;

    #[test]
    fn every_word_of_the_snapshots_is_in_a_list() {
        let said = words_of("helpers/", |case, key| case == "callable" && key != BY);
        assert!(said.len() > 3);
        let unknown: Vec<&String> = said.iter().filter(|said| may_call(said).is_none()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[rstest]
    #[case::only_those_that_sleep(
        "no",
        "yes",
        "no",
        "could not tell: asked of a kind of program that may not call it in any case"
    )]
    #[case::nobody("no", "no", "no", "no: no")]
    #[case::who_has_it_could_not_tell("something new", "no", "no", "could not tell: something new")]
    #[case::who_has_the_capability("yes", "yes", "no", "no: no")]
    #[case::everybody("yes", "yes", "yes", "yes")]
    fn a_no_without_the_capability_is_one_where_it_is_for_its_want(
        #[case] plain: &str,
        #[case] sleepable: &str,
        #[case] without: &str,
        #[case] says: &str,
    ) {
        let seen =
            json!({BY: "some", PRIVILEGED: plain, "file_open, sleepable": sleepable, UNPRIVILEGED: without});
        assert_eq!(without_capability(seen.as_object().unwrap()).words(), says);
    }

    #[rstest]
    #[case(json!({"a": "no", "b": "yes", "c": "something new"}), "yes")]
    #[case(json!({"a": "no", "b": "something new"}), "could not tell: something new")]
    #[case(json!({"a": "there is no such program, EINVAL", "b": "no"}), "no: there is no such program, EINVAL")]
    #[case(json!({"a": "no, nobody knows why"}), "could not tell: no, nobody knows why")]
    #[case(json!({}), "could not tell: the case does not say")]
    fn what_is_new_is_no_no(#[case] seen: Value, #[case] says: &str) {
        assert_eq!(of_all(seen.as_object().unwrap().values()).words(), says);
    }
}
