//! The fixture and small data of its kind: after the fix nothing that it covers is reported, and git takes the patch.

use super::*;
use crate::docs::check;
use crate::docs::testing::{PAGE, evidence};
use std::process::Command;

const HELPERS: &str = "# Data\ngroups:\n  base:\n  - name: bpf_loop\n  - name: bpf_ktime_get_ns\n\n  # where it is from\n  tracing:\n  - name: bpf_get_current_comm\n  - name: bpf_get_func_ip\n    cap: [X]\n  - group: base\n\n  raw_tp:\n  - group: tracing\n\nprograms:\n  # `bpf_lsm_func_proto`\n  BPF_PROG_TYPE_LSM:\n  - name: bpf_getsockopt\n    attach_type: [BPF_LSM_CGROUP]\n  - group: tracing\n\n  BPF_PROG_TYPE_SYSCALL:\n  - name: bpf_sys_bpf\n  - group: tracing\n\nmaps:\n  X:\n  - name: bpf_loop\n";
const KFUNCS: &str = "sets:\n  of_iterators:\n    funcs:\n      - name: bpf_sock_destroy\n        flags: [KF_TRUSTED_ARGS]\n    program_types:\n      - name: BPF_PROG_TYPE_LSM\n\n  common:\n    funcs:\n      - name: bpf_dynptr_size\n    program_types:\n      - name: BPF_PROG_TYPE_UNSPEC\n";
const FEATURES: &str = "- name: program_types\n  features:\n    - name: BPF_PROG_TYPE_LSM\n      version: v5.7\n      commit: 1\n";

fn fixed(page: &str) -> Fix {
    let data =
        [("helpers-functions.yaml", HELPERS), ("kfuncs.yaml", KFUNCS), ("feature-versions.yaml", FEATURES)]
            .map(|(name, text)| Data { path: Path::new("data").join(name), text: text.to_owned() });
    let page = Page::parse(Path::new("docs/page.md"), page);
    fix(&page, &check(&page, &evidence()), &data, &evidence())
}

fn after<'a>(fix: &'a Fix, name: &str) -> &'a str {
    let file = fix.files.iter().find(|file| file.path.ends_with(name));
    &file.unwrap_or_else(|| panic!("{name} is not changed")).after
}

/// What the fix covers: the lists' entries and completeness.
fn covered(text: &str) -> Vec<String> {
    let report = check(&Page::parse(Path::new("docs/page.md"), text), &evidence());
    let wrong = report.findings.iter().filter(|finding| finding.verdict == Verdict::Contradicted);
    let of_lists = wrong.filter(|finding| finding.id.contains('/') || finding.id.ends_with("-list-complete"));
    of_lists
        .map(|finding| finding.id.clone())
        .chain(report.unlisted.iter().map(|it| it.name.clone()))
        .collect()
}

#[test]
fn after_the_fix_nothing_that_it_covers_is_reported() {
    let broken = PAGE.replace("v6.19]", "v6.12]");
    for name in ["helpers/bpf_get_func_ip", "kfuncs/bpf_strcasestr", "bpf_d_path"] {
        assert!(covered(&broken).contains(&name.to_owned()), "{name}");
    }
    let fix = fixed(&broken);
    let text = after(&fix, "page.md");
    assert_eq!(covered(text), Vec::<String>::new());
    assert!(!text.contains("bpf_get_func_ip") && text.contains("v6.19](https://example.org/commit/3)"));
    assert!(text.contains("    * [`bpf_d_path`](../helper-function/bpf_d_path.md)\n"));
    let page = Page::parse(Path::new("p.md"), text);
    assert!(
        fixed(text).files.iter().all(|file| !file.path.ends_with("page.md")),
        "the second fix changes something"
    );
    let names: Vec<&str> = page.entries(List::Kfuncs).map(|entry| entry.name.as_str()).collect();
    assert!(names.is_sorted(), "{names:?}");
}

#[test]
fn what_is_right_is_not_touched() {
    let fix = fixed(PAGE);
    let kept: Vec<&str> = PAGE.lines().filter(|line| !line.contains("bpf_get_func_ip")).collect();
    let mut left = after(&fix, "page.md").lines();
    for line in kept {
        assert!(left.any(|other| other == line), "{line}");
    }
}

#[test]
fn other_program_types_keep_a_groups_helper() {
    let text = after(&fixed(PAGE), "helpers-functions.yaml").to_owned();
    let sections: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    let names = |section: &str, list: &str| -> Vec<String> {
        let members = sections[section][list].as_sequence().unwrap();
        members.iter().filter_map(|member| Some(member["name"].as_str()?.to_owned())).collect()
    };
    let ip = "bpf_get_func_ip".to_owned();
    assert!(
        !names("groups", "tracing").contains(&ip) && !names("programs", "BPF_PROG_TYPE_LSM").contains(&ip)
    );
    assert!(
        names("groups", "raw_tp").contains(&ip) && names("programs", "BPF_PROG_TYPE_SYSCALL").contains(&ip)
    );
    assert!(!names("groups", "base").contains(&ip));
    assert!(names("programs", "BPF_PROG_TYPE_LSM").contains(&"bpf_d_path".to_owned()));
    assert!(!text.contains("cap: [X]") && text.contains("  # `bpf_lsm_func_proto`\n"));
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

#[test]
fn git_applies_the_patch() {
    let folder = tempfile::tempdir().unwrap();
    let fix = fixed(PAGE);
    for file in &fix.files {
        let path = folder.path().join(&file.path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &file.before).unwrap();
    }
    let patched = folder.path().join("fix.patch");
    std::fs::write(&patched, patch(&fix)).unwrap();
    let done = Command::new("git").args(["apply", "fix.patch"]).current_dir(folder.path()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for file in &fix.files {
        assert_eq!(std::fs::read_to_string(folder.path().join(&file.path)).unwrap(), file.after);
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
}

#[test]
fn a_chain_of_groups_without_end_is_not_followed() {
    let mut text = String::from("groups:\n");
    for group in 0..100_000 {
        text += &format!("  g{group}:\n  - group: g{}\n", group + 1);
    }
    text += "programs:\n  BPF_PROG_TYPE_LSM:\n  - group: g0\n";
    let page = Page::parse(Path::new("docs/page.md"), "");
    let data = [Data { path: "helpers-functions.yaml".into(), text }];
    let fix = fix(&page, &check(&page, &evidence()), &data, &evidence());
    assert!(fix.proposals.iter().any(|edit| edit.what.contains("left alone")));
}
