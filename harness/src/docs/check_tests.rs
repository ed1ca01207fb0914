//! A page in the documentation's shape against the project's own claims and snapshots: each change of the page changes
//! the verdict that it should.

use super::*;
use crate::docs::judge::{is_of_a_test, of_condition, of_version};
use crate::docs::testing::{PAGE, PROJECT, evidence};
use crate::facts::{Answers, Version};
use rstest::rstest;
use std::path::Path;

fn checked(text: &str) -> Report {
    check(&Page::parse(Path::new("page.md"), text), &evidence())
}

fn of<'a>(report: &'a Report, id: &str) -> Option<&'a Finding> {
    report.findings.iter().find(|finding| finding.id == id)
}

fn verdict(text: &str, id: &str) -> Option<Verdict> {
    of(&checked(text), id).map(|finding| finding.verdict)
}

#[rstest]
#[case("attaches-to-hooks", Verdict::Confirmed)]
#[case("error-denies", Verdict::Conditional)]
#[case("ret-of-the-previous", Verdict::Contradicted)]
#[case("target-btf-id", Verdict::Contradicted)]
#[case("attach-links-only", Verdict::Conditional)]
#[case("helper-list-complete", Verdict::Contradicted)]
#[case("attach-mac-only", Verdict::Gone)]
#[case("helpers/bpf_loop", Verdict::Confirmed)]
#[case("helpers/bpf_get_func_ip", Verdict::Contradicted)]
#[case("helpers/bpf_getsockopt", Verdict::Conditional)]
#[case("kfuncs/bpf_strcasestr", Verdict::Confirmed)]
#[case("kfuncs/bpf_wq_set_callback_impl", Verdict::Conditional)]
#[case("helpers/bpf_send_signal", Verdict::Gone)]
fn verdicts(#[case] id: &str, #[case] expected: Verdict) {
    assert_eq!(verdict(PAGE, id), Some(expected));
}

#[rstest]
#[case::tag_of_the_type("v5.7]", "v6.12]", "type-since", Verdict::Contradicted)]
#[case::tag_too_late("v6.0]", "v6.12]", "helpers/bpf_getsockopt", Verdict::Contradicted)]
#[case::tag_too_early("v6.0]", "v5.7]", "helpers/bpf_getsockopt", Verdict::Contradicted)]
#[case::tag_of_a_kfunc("v6.19]", "v6.18]", "kfuncs/bpf_strcasestr", Verdict::Contradicted)]
#[case::false_helper("[`bpf_loop`]", "[`bpf_redirect`]", "helpers/bpf_redirect", Verdict::Contradicted)]
#[case::invented_helper("[`bpf_loop`]", "[`bpf_no_such`]", "helpers/bpf_no_such", Verdict::Contradicted)]
#[case::invented_kfunc("[`bpf_dynptr_size`]", "[`bpf_no_such`]", "kfuncs/bpf_no_such", Verdict::Contradicted)]
#[case::dropped_helper("    * [`bpf_loop`]", "[`x`]", "helpers/bpf_loop", Verdict::Gone)]
#[case::sentence("exclusively", "mostly", "attach-links-only", Verdict::Gone)]
fn what_changes_on_the_page_changes_the_verdict(
    #[case] old: &str,
    #[case] new: &str,
    #[case] id: &str,
    #[case] expected: Verdict,
) {
    assert!(PAGE.contains(old));
    assert_ne!(verdict(PAGE, id), Some(expected));
    assert_eq!(verdict(&PAGE.replace(old, new), id), Some(expected));
}

/// Of what the claims know, at most a twentieth may be left open.
#[test]
fn few_claims_are_undecided() {
    let report = of_claims(&evidence());
    assert!(
        report.count(Verdict::Undecided) * 20 <= report.findings.len(),
        "{}",
        report.count(Verdict::Undecided)
    );
    assert_eq!(report.count(Verdict::Gone), 0);
}

#[test]
fn a_dropped_helper_is_missed() {
    let line = "    * [`bpf_loop`](../helper-function/bpf_loop.md)\n";
    let unlisted = |text: &str| checked(text).unlisted.iter().any(|it| it.name == "bpf_loop");
    assert!(!unlisted(PAGE));
    assert!(unlisted(&PAGE.replace(line, "")));
    assert_eq!(of(&checked(&PAGE.replace(line, "")), "helpers/bpf_loop").unwrap().line, None);
}

#[test]
fn findings_stand_on_their_lines_also_on_a_reordered_page() {
    let line = |text: &str, id: &str| of(&checked(text), id).and_then(|finding| finding.line);
    let of_text =
        |text: &str, word: &str| text.lines().position(|line| line.contains(word)).map(|place| place + 1);
    let (before, rest) = PAGE.split_once("## Usage").unwrap();
    let (usage, rest) = rest.split_once("## Attachment").unwrap();
    let moved = format!("{before}## Attachment{rest}\n## How to use\n{usage}");
    for text in [PAGE, &moved] {
        assert_eq!(line(text, "error-denies"), of_text(text, "return an error"));
        assert_eq!(line(text, "helpers/bpf_strtol"), of_text(text, "bpf_strtol"));
    }
}

#[test]
fn a_page_about_something_else_has_no_findings() {
    let report = checked("# Another page\n\nNothing of it.\n");
    assert!(report.findings.is_empty() && report.unlisted.is_empty());
    assert_eq!(report.passed_over.len(), PROJECT.claims.files.len());
}

#[test]
fn a_line_that_is_no_entry_is_told() {
    let text = PAGE.replace("    * [`bpf_loop`](../helper-function/bpf_loop.md)", "    * bpf_loop");
    assert_eq!(checked(&text).not_read[0].text, "* bpf_loop");
}

#[test]
fn what_is_decided_names_its_cases() {
    let open = [Verdict::Undecided, Verdict::Gone];
    let findings = checked(PAGE).findings;
    let invented = |finding: &Finding| finding.detail.contains("of this name");
    for finding in findings.iter().filter(|finding| !open.contains(&finding.verdict) && !invented(finding)) {
        assert!(!finding.evidence.is_empty(), "{}", finding.id);
        for case in &finding.evidence {
            let (probe, name) = case.rsplit_once('/').unwrap();
            assert!(
                PROJECT.snapshots[probe].order.iter().any(|known| known == name),
                "{}: {case}",
                finding.id
            );
        }
    }
}

/// The version at a tag against measured kernels: `5.10=n 6.1=y`.
#[rstest]
#[case("v6.1", "6.0=n 6.1=y", Verdict::Confirmed)]
#[case("v6.0", "6.0=n 6.1=y", Verdict::Contradicted)]
#[case("v6.0", "5.10=n 6.1=y", Verdict::WithinBounds)]
#[case("v5.10", "5.10=n 6.1=y", Verdict::Contradicted)]
#[case("v6.2", "5.10=n 6.1=y", Verdict::Contradicted)]
#[case("v5.7", "5.10=y 6.1=y", Verdict::WithinBounds)]
#[case("v5.7", "5.10=n 6.1=n", Verdict::Undecided)]
#[case::backported("v7.0", "6.11=n 6.12=y 6.16=n 6.19=n 7.0=y", Verdict::Confirmed)]
#[case::backported_and_wrong("v6.18", "6.11=n 6.12=y 6.16=n 6.19=n 7.0=y", Verdict::Contradicted)]
#[case("soon", "5.10=n 6.1=y", Verdict::Undecided)]
fn versions_are_judged_by_what_was_measured(
    #[case] tag: &str,
    #[case] states: &str,
    #[case] expected: Verdict,
) {
    let one = |word: &str| {
        let (version, state) = word.split_once('=').unwrap();
        (Version::parse(version).unwrap(), if state == "y" { Known::Yes } else { Known::No })
    };
    let states: Vec<_> = states.split(' ').map(one).collect();
    assert_eq!(of_version(tag, &states).0, expected);
}

/// An entry since 6.11 that no measured kernel lets programs call.
#[rstest]
#[case::all_older(&[("6.3", Answer::Absent { perhaps: None })], Verdict::Undecided)]
#[case::refused_before(&[("6.3", Answer::No { why: "no".to_owned() })], Verdict::Undecided)]
#[case::left_out_since(
    &[("6.3", Answer::Absent { perhaps: None }), ("6.12", Answer::Absent { perhaps: Some("CONFIG_X") })],
    Verdict::Undecided
)]
#[case::refused_since(&[("6.12", Answer::No { why: "no".to_owned() })], Verdict::Contradicted)]
#[case::refused_by_a_second_build(
    &[("6.12", Answer::Absent { perhaps: Some("CONFIG_X") }), ("7.3-fragments", Answer::No { why: "no".to_owned() })],
    Verdict::Contradicted
)]
#[case::absent_since(&[("6.11", Answer::Absent { perhaps: None })], Verdict::Contradicted)]
#[case::a_newer_one_could_not_tell(
    &[("6.11", Answer::No { why: "no".to_owned() }), ("6.12", Answer::Unknown { why: "no tool".to_owned() })],
    Verdict::Undecided
)]
#[case::an_older_one_could_not_tell(
    &[("6.11", Answer::Unknown { why: "no tool".to_owned() }), ("6.12", Answer::No { why: "no".to_owned() })],
    Verdict::Contradicted
)]
fn kernels_from_before_an_entrys_version_say_nothing(
    #[case] answers: &[(&str, Answer)],
    #[case] expected: Verdict,
) {
    let entry =
        PageEntry { name: "bpf_x".to_owned(), link: String::new(), since: Some("v6.11".to_owned()), line: 1 };
    let kernels: Vec<String> = answers.iter().map(|(kernel, _)| (*kernel).to_owned()).collect();
    let answers =
        Answers(answers.iter().map(|(kernel, answer)| ((*kernel).to_owned(), answer.clone())).collect());
    assert_eq!(of_uncallable(&answers, &entry, &kernels).0, expected);
}

/// A statement of which one kernel tells something, with a restriction.
fn judged_by(found: &Evaluated) -> (Verdict, String) {
    let claim = PROJECT.claims.statements().find(|claim| claim.unless.is_some()).unwrap();
    of_condition(claim, found, &["5.7", "5.8"].map(str::to_owned))
}

#[rstest]
#[case::true_elsewhere(&["5.8"], &[], Verdict::Confirmed)]
#[case::false_elsewhere(&[], &["5.8"], Verdict::Contradicted)]
fn kernels_that_could_not_tell_are_named_beside_the_verdict(
    #[case] yes: &[&str],
    #[case] no: &[&str],
    #[case] expected: Verdict,
) {
    let rows = |rows: &[&str]| rows.iter().map(|row| (*row).to_owned()).collect();
    let unknown_on = vec![("5.7".to_owned(), "a/b/c: could not tell".to_owned())];
    let found = Evaluated { true_on: rows(yes), false_on: rows(no), unknown_on, ..Evaluated::default() };
    let (verdict, detail) = judged_by(&found);
    assert_eq!(verdict, expected);
    assert!(detail.contains("could not tell: only 5.7"), "{detail}");
}

/// What restricts a true statement is neither denied nor asserted where nobody could tell of it.
#[rstest]
#[case::nowhere_told(&[], &["5.7", "5.8"], Verdict::Undecided)]
#[case::told_once(&[], &["5.7"], Verdict::Confirmed)]
#[case::met_once(&["5.8"], &["5.7"], Verdict::Conditional)]
fn a_restriction_that_could_not_be_told(
    #[case] restricted: &[&str],
    #[case] perhaps: &[&str],
    #[case] expected: Verdict,
) {
    let found = Evaluated {
        true_on: vec!["5.7".to_owned(), "5.8".to_owned()],
        restricted_on: restricted.iter().map(|row| (*row).to_owned()).collect(),
        perhaps_restricted_on: perhaps.iter().map(|row| ((*row).to_owned(), "no tool".to_owned())).collect(),
        ..Evaluated::default()
    };
    let (verdict, detail) = judged_by(&found);
    assert_eq!(verdict, expected, "{detail}");
    assert!(detail.contains("could not be told"), "{detail}");
}

/// The readme says how many kfuncs the page's list leaves out, as the compatibility data counts them and as this does.
#[test]
fn the_readme_counts_what_the_list_of_kfuncs_leaves_out() {
    let file = PROJECT.claims.files.iter().find(|file| file.name == "lists.yaml").unwrap();
    let lists = file.lists.iter().filter(|(list, _)| *list == List::Kfuncs);
    let listed: BTreeSet<&str> =
        lists.flat_map(|(_, entries)| entries).map(|entry| entry.name.as_str()).collect();
    let evidence = evidence();
    let callable: Vec<&str> = evidence
        .items
        .values()
        .filter(|item| item.kind == Kind::Kfunc && !item.answers.spans().is_empty())
        .map(|item| item.name.as_str())
        .filter(|name| !listed.contains(name))
        .collect();
    let told = left_out(&listed, List::Kfuncs, &evidence);
    let tests = |names: &[&str]| names.iter().filter(|name| is_of_a_test(name)).count();
    let told: Vec<&str> = told.iter().map(|it| it.name.as_str()).collect();
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let counts = format!("{} more can, {} of them the kernel's own tests", callable.len(), tests(&callable));
    assert!(readme.contains(&counts), "{counts}");
    let passed = format!("(`docs check` says {} and {}", told.len(), tests(&told));
    assert!(readme.contains(&passed), "{passed}");
    for name in callable.iter().filter(|name| !told.contains(name)) {
        assert!(readme.contains(&format!("`{name}`")), "{name}");
    }
}
