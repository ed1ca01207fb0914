//! The files are strict, conditions have three answers, and the project's own claims fit its snapshots.

use super::condition::{CaseIs, fact_text};
use super::*;
use crate::snapshot::made_up::{self, done, names, refused};
use crate::snapshot::{Ci, Snapshot, Store};
use probes::record::End;
use rstest::rstest;
use serde_json::json;
use std::collections::BTreeMap;

fn read(text: &str) -> Result<Claims, ClaimsError> {
    parse::files(&[(PathBuf::from("claims/x.yaml"), text.to_owned())])
}

fn statement(rest: &str) -> String {
    format!("statements:\n  - id: one\n    says: It is.\n    at: {{heading: H, words: [w]}}\n{rest}")
}

fn condition(text: &str) -> Condition {
    let claims = read(&statement(&format!("    source: [6.1 f s]\n    holds: {text}\n"))).unwrap();
    claims.statements().next().unwrap().conditions().next().unwrap().clone()
}

#[rstest]
#[case::no_decision("    source: [x]\n", 2, "exactly one of holds")]
#[case::two_decisions(
    "    undecided: a\n    complete: helpers\n    source: [x]\n",
    2,
    "exactly one of holds"
)]
#[case::unknown_key("    undecidable: a\n", 5, "unknown field `undecidable`")]
#[case::no_source("    complete: helpers\n", 2, "names the kernel source")]
#[case::list("    complete: hooks\n", 5, "unknown variant `hooks`")]
#[case::ending("    holds: {probe: a/b, case: c, is: fine}\n", 5, "unknown variant `fine`")]
#[case::empty_case("    holds: {probe: a/b, case: c}\n", 5, "what the case must be like")]
#[case::mixed(
    "    holds: {probe: a/b, case: c, is: done, not: {probe: a/b, case: c, is: done}}\n",
    5,
    "one of probe"
)]
#[case::bad_version(
    "    source: [x]\n    tag: {feature: F, version: five, exists: {probe: a/b, case: c, is: done}}\n",
    2,
    "no version"
)]
fn mistakes_are_refused_with_their_line(#[case] rest: &str, #[case] line: usize, #[case] says: &str) {
    let problem = read(&statement(rest)).unwrap_err().to_string();
    assert!(problem.starts_with(&format!("claims/x.yaml:{line}:")) && problem.contains(says), "{problem}");
}

#[rstest]
#[case("lists: [{list: helpers, entries: [a, a]}]", 1, "listed twice")]
#[case("lists:\n  - list: helpers\n    entries: [a]\n  - list: helpers\n    entries: [a]", 5, "also in")]
#[case("lists:\n  - list: helpers\n    entries: [{name: a, since: x}]", 2, "no version")]
#[case("lists:\n  - list: helpers\n    entries: [{name: a, until: x}]", 2, "no version")]
fn lists_are_strict(#[case] text: &str, #[case] line: usize, #[case] says: &str) {
    let problem = read(text).unwrap_err().to_string();
    assert!(problem.starts_with(&format!("claims/x.yaml:{line}:")) && problem.contains(says), "{problem}");
}

fn snapshots() -> BTreeMap<String, Snapshot> {
    let mut seen = done("c");
    seen.seen = json!({"runs": 2, "list": [], "who": "a [b] c"}).as_object().unwrap().clone();
    let unknown =
        crate::normalize::NormalCase { end: End::CouldNotTell { why: "no tool".to_owned() }, ..done("c") };
    let kernels =
        vec![("1", vec![seen]), ("2", vec![refused("c", "R1 is bad")]), ("3", vec![unknown]), ("4", vec![])];
    BTreeMap::from([("a/b".to_owned(), made_up::snapshot("a/b", kernels))])
}

/// `y`, `n` or `?` for the kernels 1 to 5, the last of which is not measured.
fn answers(condition: &Condition) -> String {
    let letter = |kernel: &str| match condition.of(&snapshots(), kernel) {
        Truth::Yes => 'y',
        Truth::No => 'n',
        Truth::Unknown(_) => '?',
    };
    ["1", "2", "3", "4", "5"].map(letter).iter().collect()
}

#[rstest]
#[case("{probe: a/b, case: c, is: done}", "yn???")]
#[case("{probe: a/b, case: c, is: refused, with: EINVAL, at: load}", "ny???")]
#[case("{probe: a/b, case: c, reason: is bad}", "ny???")]
#[case("{probe: a/b, case: c, seen: {runs: 2, list: \"[]\"}}", "yn???")]
#[case("{probe: a/b, case: c, seen: {runs: 3}}", "nn???")]
#[case("{probe: a/b, case: c, seen: {who: \"*[b]*\"}}", "yn???")]
#[case("{probe: a/b, case: c, seen: {renamed: 1}}", "?n???")]
#[case::not_recorded("{probe: a/b, case: c, denied: true}", "?n???")]
#[case::not_recorded_and_not_false("{probe: a/b, case: c, denied: false}", "?n???")]
#[case::something_else_is_wrong("{probe: a/b, case: c, denied: true, fired: false}", "nn???")]
#[case("{not: {probe: a/b, case: c, is: done}}", "ny???")]
#[case("{all: [{probe: a/b, case: c, is: done}, {probe: a/x, case: c, is: done}]}", "?n???")]
#[case("{any: [{probe: a/b, case: c, is: done}, {probe: a/x, case: c, is: done}]}", "y????")]
fn conditions_have_three_answers(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(answers(&condition(text)), expected);
}

#[test]
fn a_statement_is_asked_only_of_kernels_it_speaks_of() {
    let rest = "    source: [6.1 f s]\n    applies: {probe: a/b, case: c, is: done}\n    holds: {probe: a/b, case: c, seen: {runs: 2}}\n    unless: {when: {probe: a/b, case: c, fired: true}, then: at night}\n";
    let claims = read(&statement(rest)).unwrap();
    let found = evaluate(claims.statements().next().unwrap(), &snapshots(), &names(&["1", "2", "3"]));
    assert_eq!(
        (found.true_on, found.not_of, found.restricted_on),
        (names(&["1"]), names(&["2"]), names(&["1"]))
    );
    assert_eq!(found.unknown_on.len(), 1);
}

/// A restriction of which a kernel cannot tell is neither there nor not there.
#[rstest]
#[case::met("fired: true", &["1"], 0)]
#[case::not_met("fired: false", &[], 0)]
#[case::not_recorded("denied: true", &[], 1)]
fn a_restriction_has_three_answers(#[case] when: &str, #[case] restricted: &[&str], #[case] unknown: usize) {
    let rest = format!(
        "    source: [6.1 f s]\n    holds: {{probe: a/b, case: c, is: done}}\n    unless: {{when: {{probe: a/b, case: c, {when}}}, then: at night}}\n"
    );
    let claims = read(&statement(&rest)).unwrap();
    let found = evaluate(claims.statements().next().unwrap(), &snapshots(), &names(&["1"]));
    assert_eq!((found.true_on, found.restricted_on), (names(&["1"]), names(restricted)));
    assert_eq!(found.perhaps_restricted_on.len(), unknown);
}

fn project() -> (Claims, BTreeMap<String, Snapshot>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let snapshots = Store::new(root.join("snapshots"), Ci::Yes).load_all().unwrap();
    (Claims::load(&root.join("claims")).unwrap(), snapshots)
}

/// A claim that names a case or a fact that no record has would be undecided for ever, or false for a wrong reason.
#[test]
fn every_condition_names_what_records_have() {
    let (claims, snapshots) = project();
    let known = |case: &CaseIs| -> Result<(), String> {
        let name = format!("{}/{}", case.probe, case.case);
        let snapshot = snapshots.get(&case.probe).ok_or(format!("{name}: no such probe"))?;
        let cases = || {
            snapshot.observed.iter().flat_map(|(_, normal)| &normal.cases).filter(|it| it.name == case.case)
        };
        cases().next().ok_or(format!("{name}: no such case"))?;
        for (key, _) in &case.seen {
            cases()
                .find_map(|it| it.seen.get(key))
                .map(fact_text)
                .ok_or(format!("{name}: no fact {key:?}"))?;
        }
        Ok(())
    };
    for claim in claims.statements() {
        for case in claim.conditions().flat_map(Condition::cases) {
            known(case).unwrap_or_else(|problem| panic!("{}: {problem}", claim.id));
        }
    }
}

#[test]
fn the_projects_lists_are_whole() {
    let (claims, _) = project();
    assert!(claims.entries(List::Helpers).count() >= 85 && claims.entries(List::Kfuncs).count() >= 109);
    assert!(claims.statements().count() >= 40);
}
