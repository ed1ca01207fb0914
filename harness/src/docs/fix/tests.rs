//! The fixture and small data of its kind: after the fix nothing that it covers is reported, and git takes the patch.

use super::*;
use crate::docs::check;
use crate::docs::testing::{PAGE, PROJECT, evidence};
use std::process::Command;

const HELPERS: &str = "# Data\ngroups:\n  base:\n  - name: bpf_loop\n  - name: bpf_ktime_get_ns\n\n  # where it is from\n  tracing:\n  - name: bpf_get_current_comm\n  - name: bpf_get_func_ip\n    cap: [X]\n  - group: base\n\n  raw_tp:\n  - group: tracing\n\nprograms:\n  # `bpf_lsm_func_proto`\n  BPF_PROG_TYPE_LSM:\n  - name: bpf_getsockopt\n    attach_type: [BPF_LSM_CGROUP]\n    since:\n      version: 6.0\n      commit: c\n  - name: bpf_setsockopt\n    since:\n      version: 5.10\n      commit: c\n  - group: tracing\n\n  BPF_PROG_TYPE_SYSCALL:\n  - name: bpf_sys_bpf\n  - group: tracing\n\nmaps:\n  X:\n  - name: bpf_loop\n";
const KFUNCS: &str = "sets:\n  of_iterators:\n    funcs:\n      - name: bpf_sock_destroy\n        flags: [KF_TRUSTED_ARGS]\n    program_types:\n      - name: BPF_PROG_TYPE_LSM\n\n  of_hid:\n    funcs:\n      - name: hid_bpf_get_data\n      - name: hid_bpf_try_input_report\n    program_types:\n      - name: BPF_PROG_TYPE_LSM\n        until:\n          version: 6.11\n          commit: e\n\n  of_strings:\n    funcs:\n      - name: bpf_strcasestr\n    program_types:\n      - name: BPF_PROG_TYPE_LSM\n        since:\n          version: 6.19\n          commit: d\n\n  of_scx:\n    funcs:\n      - name: scx_bpf_select_cpu_and\n      - name: scx_bpf_now\n    program_types:\n      - name: BPF_PROG_TYPE_LSM\n\n  common:\n    funcs:\n      - name: bpf_dynptr_size\n      - name: bpf_list_back\n    program_types:\n      - name: BPF_PROG_TYPE_UNSPEC\n";
const FEATURES: &str = "- name: program_types\n  features:\n    - name: BPF_PROG_TYPE_LSM\n      version: v5.7\n      commit: 1\n";

fn data(helpers: &str, kfuncs: &str) -> [Data; 3] {
    [("helpers-functions.yaml", helpers), ("kfuncs.yaml", kfuncs), ("feature-versions.yaml", FEATURES)]
        .map(|(name, text)| Data { path: Path::new("data").join(name), text: text.to_owned() })
}

fn fixed_with(page: &str, data: &[Data]) -> Fix {
    let page = Page::parse(Path::new("docs/page.md"), page);
    fix(&page, &check(&page, &evidence()), data, &evidence())
}

fn fixed(page: &str) -> Fix {
    fixed_with(page, &data(HELPERS, KFUNCS))
}

fn after<'a>(fix: &'a Fix, name: &str) -> &'a str {
    let file = fix.files.iter().find(|file| file.path.ends_with(name));
    &file.unwrap_or_else(|| panic!("{name} is not changed")).after
}

/// What `docs check` says of the lists: the contradicted entries, and what is missing.
fn reported(text: &str) -> (Vec<String>, Vec<String>) {
    let report = check(&Page::parse(Path::new("docs/page.md"), text), &evidence());
    let wrong = report.findings.iter().filter(|finding| finding.verdict == Verdict::Contradicted);
    let of_lists = wrong.filter(|finding| finding.id.contains('/'));
    let missing = report.unlisted.iter().map(|it| it.name.clone());
    (of_lists.map(|finding| finding.id.clone()).collect(), missing.collect())
}

/// The readme says so of the fix: contradicted entries go, what is left out are helpers whose version is open or past, and
/// kfuncs that the data has in no set of LSM programs or that have ended.
#[test]
fn after_the_fix_what_the_data_can_say_is_reported_no_longer() {
    let broken = PAGE
        .replace("v6.19]", "v6.12]")
        .replace("    - [`bpf_task_acq", "    - [`bpf_no_such`](x)\n    - [`bpf_task_acq");
    let (wrong, missing) = reported(&broken);
    for name in ["helpers/bpf_get_func_ip", "kfuncs/bpf_strcasestr", "kfuncs/bpf_no_such"] {
        assert!(wrong.contains(&name.to_owned()), "{name}");
    }
    assert!(missing.contains(&"bpf_d_path".to_owned()));
    let fix = fixed(&broken);
    let text = after(&fix, "page.md");
    let (wrong, missing) = reported(text);
    assert_eq!(wrong, Vec::<String>::new());
    let helpers: Vec<&str> = missing
        .iter()
        .map(String::as_str)
        .filter(|name| PROJECT.items_of(List::Helpers).any(|it| it == *name))
        .collect();
    assert_eq!(
        helpers,
        ["bpf_get_cgroup_classid", "bpf_get_current_ancestor_cgroup_id", "bpf_ktime_get_coarse_ns"]
    );
    for name in ["scx_bpf_now", "bpf_list_back", "hid_bpf_get_data"] {
        assert!(!missing.contains(&name.to_owned()), "{name}");
    }
    for name in ["scx_bpf_select_cpu_and", "bpf_task_release"] {
        assert!(missing.contains(&name.to_owned()), "{name}");
    }
    let again = fixed_with(text, &data(after(&fix, "helpers-functions.yaml"), after(&fix, "kfuncs.yaml")));
    assert_eq!(again.edits, [], "the second fix changes something");
    let page = Page::parse(Path::new("p.md"), text);
    let names: Vec<&str> = page.entries(List::Kfuncs).map(|entry| entry.name.as_str()).collect();
    assert!(names.is_sorted(), "{names:?}");
}

/// Every entry that was touched is, to the letter, what the documentation's generator writes.
#[rstest::rstest]
#[case(
    "    * [`bpf_d_path`](../helper-function/bpf_d_path.md) [:octicons-tag-24: v5.11](https://github.com/torvalds/linux/commit/v5.11)\n"
)]
#[case("    * [`bpf_sock_from_file`](../helper-function/bpf_sock_from_file.md)\n")]
#[case(
    "    * [`bpf_strtol`](../helper-function/bpf_strtol.md) [:octicons-tag-24: v6.1](https://github.com/torvalds/linux/commit/v6.1)\n"
)]
#[case(
    "    * [`bpf_setsockopt`](../helper-function/bpf_setsockopt.md) [:octicons-tag-24: v6.0](https://github.com/torvalds/linux/commit/c)\n"
)]
#[case(
    "    - [`bpf_strcasestr`](../kfuncs/bpf_strcasestr.md) [:octicons-tag-24: v6.19](https://github.com/torvalds/linux/commit/d) - \n"
)]
#[case(
    "    - [`hid_bpf_get_data`](../kfuncs/hid_bpf_get_data.md) -  [:octicons-tag-24: v6.11](https://github.com/torvalds/linux/commit/e)\n"
)]
#[case("    - [`scx_bpf_now`](../kfuncs/scx_bpf_now.md)\n")]
fn entries_are_written_as_the_data_give_them(#[case] line: &str) {
    let fix = fixed(&PAGE.replace("v6.19]", "v6.12]"));
    assert!(after(&fix, "page.md").contains(line), "{}", after(&fix, "page.md"));
}

#[test]
fn without_its_data_the_page_is_left_alone() {
    let fix = fixed_with(PAGE, &[]);
    assert_eq!((fix.files.len(), fix.edits.len()), (0, 0));
    for part in ["`bpf_get_func_ip` is wrong", "`bpf_d_path` (since 5.11)"] {
        assert!(fix.proposals.iter().any(|edit| edit.what.contains(part)), "{part}");
    }
}

/// What ended before the newest kernels is proposed with its range, the kernel's own tests not even that.
#[test]
fn what_has_ended_is_left_out_and_said() {
    let fix = fixed(PAGE);
    let said = |part: &str| fix.proposals.iter().any(|edit| edit.what.contains(part));
    for part in [
        "`bpf_ktime_get_coarse_ns` (since 5.11, gone in 5.15)",
        "`scx_bpf_select_cpu_and` (since >6.14 <=6.16, gone in 7.1)",
        "`bpf_get_cgroup_classid` is missing",
        "`bpf_wq_set_callback_impl` (since 6.10, gone in 7.0)",
    ] {
        assert!(said(part), "{part}");
    }
    assert!(!said("bpf_kfunc_call_") && !fix.edits.iter().any(|edit| edit.what.contains("bpf_kfunc_call_")));
}

#[test]
fn what_is_right_is_not_touched() {
    let fix = fixed(PAGE);
    let touched = |line: &&str| line.contains("bpf_get_func_ip") || line.contains("bpf_strtol");
    let kept: Vec<&str> = PAGE.lines().filter(|line| !touched(line)).collect();
    let mut left = after(&fix, "page.md").lines();
    for line in kept {
        assert!(left.any(|other| other == line), "{line}");
    }
}

/// One line takes a group's helper from LSM programs, and the group from nobody; a second time there is nothing to do.
#[test]
fn a_groups_helper_is_excluded() {
    let text = after(&fixed(PAGE), "helpers-functions.yaml").to_owned();
    let line = "  - exclude: bpf_get_func_ip\n";
    assert!(text.contains(&format!("  - group: tracing\n{line}\n  BPF_PROG_TYPE_SYSCALL:\n")), "{text}");
    let (before, groups) =
        (HELPERS.split_once("programs:").unwrap().0, text.split_once("programs:").unwrap().0);
    assert_eq!(before, groups);
    let excluded =
        HELPERS.replace("  - group: tracing\n\n  BPF", &format!("  - group: tracing\n{line}\n  BPF"));
    let again = fixed_with(PAGE, &data(&excluded, KFUNCS));
    assert_eq!(after(&again, "helpers-functions.yaml").matches("bpf_get_func_ip").count(), 2);
    assert!(!after(&again, "page.md").contains("bpf_get_func_ip"));
    let direct = HELPERS.replace(
        "  - name: bpf_getsockopt\n",
        "  - name: bpf_get_func_ip\n    cap: [Y]\n  - name: bpf_getsockopt\n",
    );
    let direct = after(&fixed_with(PAGE, &data(&direct, KFUNCS)), "helpers-functions.yaml").to_owned();
    assert!(direct.contains(line) && !direct.contains("[Y]"), "{direct}");
}

/// A version that the records settle is written, and the commit, which they do not know, is not invented.
#[test]
fn a_helper_that_came_later_has_its_version() {
    let text = after(&fixed(PAGE), "helpers-functions.yaml").to_owned();
    for part in [
        "  - name: bpf_strtol\n    since:\n      version: 6.1\n      commit: v6.1\n",
        "  - name: bpf_set_retval\n    attach_type: [BPF_LSM_CGROUP]\n    since:\n      version: 6.0\n",
        "  - name: bpf_setsockopt\n    since:\n      version: 6.0\n      commit: c\n",
        "  - name: bpf_sock_from_file\n  - name",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("coarse"));
}

#[test]
fn a_refused_kfunc_is_excepted_and_a_missing_one_proposed() {
    let fix = fixed(PAGE);
    let text = after(&fix, "data/kfuncs.yaml");
    let data: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
    let func = &data["sets"]["of_iterators"]["funcs"][0];
    assert_eq!(func["except"]["program_types"][0]["name"], "BPF_PROG_TYPE_LSM");
    assert!(
        fix.proposals
            .iter()
            .any(|it| it.path.ends_with("kfuncs.yaml") && it.what.contains("`bpf_task_acquire`"))
    );
    assert!(fix.proposals.iter().any(|it| it.what.contains("target-btf-id")));
}

/// With absolute paths, as with any.
#[test]
fn git_applies_the_patch() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &Path| folder.path().join(path);
    let data = data(HELPERS, KFUNCS).map(|data| Data { path: at(&data.path), ..data });
    let page = Page::parse(&at(Path::new("docs/page.md")), PAGE);
    for (path, text) in data.iter().map(|it| (&it.path, &it.text)).chain([(&page.path, &page.text)]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let fix = fix(&page, &check(&page, &evidence()), &data, &evidence());
    let root = root(&page.path, &data).unwrap();
    let patched = folder.path().join("fix.patch");
    std::fs::write(&patched, patch(&fix, &root)).unwrap();
    let done = Command::new("git").args(["apply", "fix.patch"]).current_dir(&root).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(fix.files.len(), 3);
    for file in &fix.files {
        assert_eq!(std::fs::read_to_string(&file.path).unwrap(), file.after);
    }
}

#[test]
fn every_edit_has_its_evidence() {
    let fix = fixed(PAGE);
    assert!(!fix.edits.is_empty());
    for edit in &fix.edits {
        assert!(!edit.evidence.is_empty() || edit.what.contains("of this name"), "{}", edit.what);
    }
    let text = evidence_text(&fix);
    assert!(text.contains("`helpers/bpf_d_path/callable`") && text.contains("## Proposed"), "{text}");
    assert!(text.contains("one build of a stable branch"), "{text}");
}

/// Neither many groups nor, in few, so many members that each group's would be held again and again.
#[rstest::rstest]
#[case::groups(100_000, 1)]
#[case::members(100, 1000)]
fn a_chain_of_groups_without_end_is_not_followed(#[case] groups: usize, #[case] members: usize) {
    let mut text = String::from("groups:\n");
    for group in 0..groups {
        text += &format!("  g{group}:\n  - group: g{}\n", group + 1);
        (1..members).for_each(|member| text += &format!("  - name: m{group}_{member}\n"));
    }
    text += "programs:\n  BPF_PROG_TYPE_LSM:\n  - group: g0\n";
    let page = Page::parse(Path::new("docs/page.md"), "");
    let data = [Data { path: "helpers-functions.yaml".into(), text }];
    let fix = fix(&page, &check(&page, &evidence()), &data, &evidence());
    assert!(fix.proposals.iter().any(|edit| edit.what.contains("left alone")));
}

/// A group that leads back to itself brings what it has, once.
#[test]
fn a_group_that_leads_to_itself_is_resolved() {
    let round = HELPERS.replace("  - name: bpf_loop\n", "  - group: tracing\n  - name: bpf_loop\n");
    let fix = fixed_with(PAGE, &data(&round, KFUNCS));
    assert!(!fix.edits.iter().any(|edit| edit.what.contains("`bpf_loop`")));
    assert!(after(&fix, "helpers-functions.yaml").contains("  - exclude: bpf_get_func_ip\n"));
}
