//! A page in the documentation's shape against the project's own claims and snapshots: each change of the page changes
//! the verdict that it should.

use super::*;
use crate::docs::entries::of_uncallable;
use crate::docs::judge::{of_condition, of_end, of_version};
use crate::docs::testing::{PAGE, PROJECT, evidence};
use crate::docs::unlisted::is_of_a_test;
use crate::facts::{Answer, Answers, Version};
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
#[case::kfunc_to_come(
    "[`bpf_strcasestr`](../kfuncs/bpf_strcasestr.md) [:octicons-tag-24: v6.19]",
    "[`bpf_no_such`](../kfuncs/bpf_no_such.md) [:octicons-tag-24: v99.1]",
    "kfuncs/bpf_no_such",
    Verdict::Undecided
)]
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

/// What was not asked about is not denied.
#[test]
fn without_a_record_nothing_is_said_against_an_entry() {
    let mut some = PROJECT.snapshots.clone();
    some.retain(|probe, _| probe != "helpers/bpf_loop" && probe != "kfuncs/inventory");
    let items = crate::facts::collect(&some, evidence().kernels);
    let evidence = Evidence { snapshots: &some, items: &items, ..evidence() };
    let page = Page::parse(Path::new("page.md"), PAGE);
    let report = check(&page, &evidence);
    let about = |id: &str| report.findings.iter().find(|finding| finding.id == id).unwrap();
    assert_eq!(about("helpers/bpf_loop").verdict, Verdict::Undecided);
    assert_eq!(about("helpers/bpf_loop").detail, "there is no record of helpers/bpf_loop that could tell");
    assert_eq!(about("kfuncs/bpf_dynptr_size").verdict, Verdict::Undecided);
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

/// An entry as a page may have it; an empty version is none.
fn entry(name: &str, since: &str, until: &str) -> PageEntry {
    let version = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    PageEntry { since: version(since), until: version(until), ..PageEntry::bare(name) }
}

/// What the verdict on an entry says beside its word.
#[rstest]
#[case::it_ended(List::Kfuncs, "hid_bpf_get_data", "", "v6.11", Verdict::Confirmed, "6.11 no longer")]
#[case::it_ended_later(
    List::Kfuncs,
    "hid_bpf_get_data",
    "",
    "v6.10",
    Verdict::Contradicted,
    "6.10 has it still"
)]
#[case::it_ended_before(List::Kfuncs, "hid_bpf_get_data", "", "v6.13", Verdict::Contradicted, "no longer")]
#[case::no_since(List::Kfuncs, "hid_bpf_hw_request", "", "v6.11", Verdict::Conditional, "only by sleepable")]
#[case::no_since_with_its_kernels(
    List::Kfuncs,
    "hid_bpf_hw_request",
    "",
    "v6.11",
    Verdict::Conditional,
    "only 6.10"
)]
#[case::wrong_and_sleepable(
    List::Kfuncs,
    "hid_bpf_hw_request",
    "v6.11",
    "",
    Verdict::Contradicted,
    "only by sleepable"
)]
#[case::never(
    List::Kfuncs,
    "hid_bpf_try_input_report",
    "",
    "v6.11",
    Verdict::Contradicted,
    "may NOT call it"
)]
#[case::it_goes_on(List::Helpers, "bpf_loop", "", "v6.12", Verdict::Contradicted, "has it still")]
#[case::was_a_function(List::Kfuncs, "crash_kexec", "", "", Verdict::Conditional, "CAP_SYS_BOOT")]
#[case::of_other_programs_nothing_is_known(
    List::Kfuncs,
    "bpf_cast_to_kern_ctx",
    "",
    "",
    Verdict::Contradicted,
    ": no LSM program may call it"
)]
#[case::asleep(
    List::Helpers,
    "bpf_perf_event_read",
    "",
    "",
    Verdict::Conditional,
    "not by programs that may sleep"
)]
#[case::asleep_once(
    List::Helpers,
    "bpf_tail_call",
    "",
    "",
    Verdict::Conditional,
    "to 6.19 not by programs that may sleep"
)]
#[case::asleep_and_late(
    List::Helpers,
    "bpf_spin_lock",
    "",
    "",
    Verdict::Conditional,
    "to 6.5 not by programs that may sleep"
)]
#[case::lockdown(
    List::Helpers,
    "bpf_probe_read_kernel",
    "",
    "",
    Verdict::Conditional,
    "not where lockdown is at confidentiality"
)]
#[case::lower_lockdown(
    List::Helpers,
    "bpf_probe_write_user",
    "",
    "",
    Verdict::Conditional,
    "lockdown is at integrity or"
)]
#[case::nothing_of_all_that(List::Helpers, "bpf_probe_read_user", "", "", Verdict::Confirmed, "wherever")]
fn entries_are_judged_by_their_versions_and_by_what_restricts_them(
    #[case] list: List,
    #[case] name: &str,
    #[case] since: &str,
    #[case] until: &str,
    #[case] expected: Verdict,
    #[case] says: &str,
) {
    let found = judge(list, &entry(name, since, until), &evidence());
    assert_eq!(found.verdict, expected, "{}", found.detail);
    assert!(found.detail.contains(says), "{}", found.detail);
    for case in &found.shown {
        let (probe, name) = case.rsplit_once('/').unwrap();
        assert!(PROJECT.snapshots[probe].order.iter().any(|known| known == name), "{case}");
    }
}

/// A function that became a kfunc is not refused as one before (`kfuncs/crash_kexec`, 5.14 to 6.0).
#[test]
fn what_was_a_function_is_no_kfunc_before() {
    let found = judge(List::Kfuncs, &entry("crash_kexec", "", ""), &evidence());
    assert_eq!(found.detail, "only by programs that were loaded with CAP_SYS_BOOT");
}

/// What the newest kernels let nobody call is rightly absent from a page, and what they do is missed.
#[test]
fn what_ended_is_not_gone_from_the_page() {
    let report = checked(PAGE);
    for name in ["hid_bpf_try_input_report", "bpf_cast_to_kern_ctx", "hid_bpf_get_data", "cgroup_rstat_flush"]
    {
        assert_eq!(of(&report, &format!("kfuncs/{name}")), None, "{name}");
    }
    assert!(of(&report, "kfuncs/bpf_task_release").is_some());
}

/// That a list leaves out what older kernels alone have makes it no less complete for the newest.
#[test]
fn what_ended_is_told_apart_from_what_is_left_out() {
    let of_list = |names: &[&str]| {
        let listed = PROJECT.items_of(List::Helpers).filter(|name| !names.contains(name)).collect();
        let found = left_out(&listed, List::Helpers, &evidence());
        let kernels = kernels_of_complete(List::Helpers, &found, &evidence());
        (complete(List::Helpers, &found), kernels)
    };
    let ((verdict, said), kernels) = of_list(&["bpf_ktime_get_coarse_ns", "bpf_strtol"]);
    assert_eq!(verdict, Verdict::Contradicted);
    assert!(
        said.starts_with("may be called and not listed: 1 helper: ") && said.contains("1 more on older"),
        "{said}"
    );
    assert!(kernels.no.contains(&"7.3".to_owned()) && kernels.yes.contains(&"5.10".to_owned()));
    let ((verdict, said), kernels) = of_list(&["bpf_ktime_get_coarse_ns"]);
    assert_eq!(verdict, Verdict::Conditional);
    assert!(said.contains("bpf_ktime_get_coarse_ns (since 5.11, gone in 5.15)"), "{said}");
    assert_eq!(kernels.no, ["5.11", "5.12", "5.14"]);
    assert_eq!(of_list(&[]).0.0, Verdict::Confirmed);
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
    assert_eq!(of_version(tag, &measured_as(states)).0, expected);
}

fn measured_as(states: &str) -> Vec<(Version, Known)> {
    let one = |word: &str| {
        let (version, state) = word.split_once('=').unwrap();
        (Version::parse(version).unwrap(), if state == "y" { Known::Yes } else { Known::No })
    };
    states.split(' ').map(one).collect()
}

/// The version behind the dash, the first without it.
#[rstest]
#[case("v6.1", "6.0=y 6.1=n", Verdict::Confirmed)]
#[case("v6.0", "6.0=y 6.1=n", Verdict::Contradicted)]
#[case("v6.2", "6.0=y 6.1=n", Verdict::Contradicted)]
#[case("v6.0", "5.10=y 6.1=n", Verdict::WithinBounds)]
#[case("v5.10", "5.10=y 6.1=n", Verdict::Contradicted)]
#[case("v6.1", "5.10=y 6.1=y", Verdict::Contradicted)]
#[case::after_all_that_was_measured("v6.2", "5.10=y 6.1=y", Verdict::WithinBounds)]
#[case::of_the_first_range("v6.17", "6.16=y 6.17=n 6.18=y 6.19=n", Verdict::Confirmed)]
#[case("v6.1", "5.10=n 6.1=n", Verdict::Undecided)]
#[case("soon", "6.0=y 6.1=n", Verdict::Undecided)]
fn ends_are_judged_by_what_was_measured(#[case] tag: &str, #[case] states: &str, #[case] expected: Verdict) {
    assert_eq!(of_end(tag, &measured_as(states)).0, expected);
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
    let entry = entry("bpf_x", "v6.11", "");
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

/// The readme says how many the page's lists leave out, as `docs check` counts them and as the compatibility data does.
#[test]
fn the_readme_counts_what_the_lists_leave_out() {
    let file = PROJECT.claims.files.iter().find(|file| file.name == "lists.yaml").unwrap();
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    for list in [List::Helpers, List::Kfuncs] {
        let lists = file.lists.iter().filter(|(of, _)| *of == list);
        let listed: BTreeSet<&str> =
            lists.flat_map(|(_, entries)| entries).map(|entry| entry.name.as_str()).collect();
        let found = left_out(&listed, list, &evidence());
        let now = found.iter().filter(|it| it.removed.is_none()).count();
        let counts = format!("{now} more can, {} could on older kernels", found.len() - now);
        assert!(readme.contains(&counts), "{counts}");
        let tests = PROJECT.items_of(list).filter(|name| !listed.contains(name) && is_of_a_test(name));
        let tests = tests.count();
        let apart = format!("{tests} of the kernel's own tests");
        assert!(tests == 0 || readme.contains(&apart), "{apart}");
    }
}
