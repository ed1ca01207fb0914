//! The files are valid, say how exactly they know, and the committed ones are those of the snapshots.

use super::*;
use crate::facts;
use crate::report::coverage::coverage;
use crate::snapshot::{Ci, Store};
use crate::verbs::project::probe_infos;
use jsonschema::Validator;
use rstest::rstest;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What the files are made from: the project's own.
struct Project {
    matrix: Matrix,
    snapshots: BTreeMap<String, Snapshot>,
    kernels: Vec<String>,
}

static PROJECT: LazyLock<Project> = LazyLock::new(|| {
    let matrix = Matrix::load(&root().join("matrix.yaml")).unwrap();
    let snapshots = Store::new(root().join("snapshots"), Ci::Yes).load_all().unwrap();
    let mut kernels: Vec<String> = matrix.rows.iter().map(|row| row.name.clone()).collect();
    kernels.retain(|kernel| snapshots.values().any(|snapshot| snapshot.of(kernel).is_some()));
    Project { matrix, snapshots, kernels }
});

static FILES: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let Project { matrix, snapshots, kernels } = &*PROJECT;
    let items = facts::collect(snapshots, kernels);
    let probes = probe_infos(&snapshots.keys().cloned().collect::<Vec<_>>());
    let material = Material { matrix, kernels, snapshots, items: &items, probes: &probes };
    files(&material).unwrap()
});

fn file(name: &str) -> Value {
    serde_json::from_str(&FILES[name]).unwrap()
}

fn validator() -> Validator {
    jsonschema::validator_for(&serde_json::from_str(JSON_SCHEMA).unwrap()).unwrap()
}

#[test]
fn every_file_is_valid() {
    let validator = validator();
    for name in FILES.keys().filter(|name| *name != SCHEMA_FILE) {
        let problems: Vec<String> = validator
            .iter_errors(&file(name))
            .take(5)
            .map(|problem| format!("{}: {problem}", problem.instance_path))
            .collect();
        assert!(problems.is_empty(), "{name}: {problems:#?}");
    }
}

#[test]
fn the_schema_refuses_what_the_files_must_not_say() {
    let validator = validator();
    let broken = |pointer: &str, value: Value| {
        let mut file = file("helpers.json");
        *file.pointer_mut(pointer).unwrap() = value;
        !validator.is_valid(&file)
    };
    assert!(!broken("/schema", json!(1)));
    assert!(broken("/schema", json!(2)));
    assert!(broken("/items/bpf_loop/support/0/version_added", json!("since 6.1")));
    assert!(broken("/items/bpf_loop/evidence", json!("bpf_loop")));
    assert!(broken("/items/bpf_loop/unknown", json!("6.1")));
    assert!(broken("/items/bpf_loop", json!({})));
    assert!(broken("/kind", json!("rule")));
}

#[test]
fn a_restricted_helper_says_by_whom_and_a_refused_one_why() {
    let helpers = file("helpers.json");
    let restricted = &helpers["items"]["bpf_getsockopt"];
    assert_eq!(restricted["support"][0]["condition"], "by programs of a cgroup, on some hooks");
    assert_eq!(restricted["features"]["plain"]["support"], json!([]));
    let refused = &helpers["items"]["bpf_get_func_ip"];
    assert_eq!(refused["support"], json!([]));
    let notes = refused["notes"].as_array().unwrap();
    assert!(
        notes.iter().any(|note| note["note"].as_str().unwrap().starts_with("ENOTSUPP: func bpf_get_func_ip"))
    );
}

/// A row is one build: what it says is so of that release.
#[rstest]
#[case("6.6", "6.6.17")]
#[case::not_the_archives("5.15", "5.15.100")]
#[case::the_first_of_a_series("6.9", "6.9.0")]
#[case::of_a_package("5.10", "5.10.223")]
#[case::a_flavour("7.3-fragments", "7.3.4")]
fn a_kernel_says_of_which_release_it_is(#[case] name: &str, #[case] release: &str) {
    for file in ["hooks.json", "rules.json"].map(file) {
        let kernels = file["kernels"].as_array().unwrap();
        assert!(kernels.iter().all(|kernel| kernel["release"].is_string()));
        assert_eq!(kernels.iter().find(|kernel| kernel["name"] == name).unwrap()["release"], release);
    }
}

#[rstest]
#[case("upstream: v6.14", Some("6.14.0"))]
#[case("path: bzImage", None)]
#[case(
    "debian: {suite: experimental, package: linux-image-6.14-cloud-amd64-unsigned, version: 6.14~rc3-1~exp1}",
    None
)]
fn a_release_is_said_where_the_source_tells(#[case] source: &str, #[case] expected: Option<&str>) {
    let text = format!("kernels:\n  - {{name: \"6.14\", lsm: bpf, {source}}}\n");
    let matrix = Matrix::parse(&text, Path::new("matrix.yaml")).unwrap();
    assert_eq!(release(&matrix.rows[0].source).as_deref(), expected);
}

/// `list --coverage` and the features count the same verdicts.
#[test]
fn hooks_that_deny_or_decide_are_those_that_coverage_counts() {
    let hooks = file("hooks.json");
    let yes = |item: &Value, feature: &str, kernel: &str| {
        let ranges = item["features"][feature]["support"].as_array();
        let builds = ranges.into_iter().flatten().filter_map(|range| range["kernels"].as_array());
        builds.flatten().any(|row| row == kernel)
    };
    for figures in coverage(&PROJECT.snapshots, &PROJECT.kernels) {
        // A flavour's rows stand in ranges only where its version's do not, and what was asked before a probe changed in none.
        let is_behind = PROJECT.snapshots.values().any(|snapshot| snapshot.behind.contains(&figures.kernel));
        if figures.kernel.contains('-') || is_behind {
            continue;
        }
        let kernel = figures.kernel.as_str();
        let of = |feature: &str| {
            let items = hooks["items"].as_object().unwrap().values();
            items.filter(|item| item["class"] == "int" && yes(item, feature, kernel)).count()
        };
        assert_eq!(of("denies") + of("decides"), figures.denied, "{kernel}");
    }
}

#[test]
fn a_rule_has_its_answers_with_their_ranges() {
    let rules = file("rules.json");
    let answers = rules["items"]["example/file_mprotect"]["cases"]["as-compiled-from-c"].as_array().unwrap();
    let with = |result: &str| answers.iter().rev().find(|answer| answer["result"] == result).unwrap();
    let refused = with("refused at load with EACCES");
    assert_eq!(refused["support"][0]["version_added"], "6.19");
    assert!(refused["note"].as_str().unwrap().contains("trusted_ptr_or_null_"));
    assert_eq!(with("done at read, accepted, fired, denied")["support"][0]["version_removed"], "6.19");
}

/// The first answer of a rule's case whose result begins so.
#[track_caller]
fn answer_of<'a>(answers: &'a Value, result: &str) -> &'a Value {
    let begins = |answer: &&Value| answer["result"].as_str().unwrap().starts_with(result);
    answers.as_array().unwrap().iter().find(begins).unwrap()
}

/// A kernel that crashes has answered, and ends what was so before.
#[test]
fn a_crash_is_an_answer_of_a_rule() {
    let rules = file("rules.json");
    let answers = &rules["items"]["context/null-cred-followed"]["cases"]["task_kill-cred"];
    let of = |result: &str| answer_of(answers, result);
    assert_eq!(of("crashed at trigger")["support"][0]["version_added"], "6.2");
    assert!(of("crashed")["note"].as_str().unwrap().contains("NULL pointer dereference"));
    assert_eq!(of("done")["support"][0]["version_removed"], "6.2");
}

/// Debian's 6.12 has no sched_ext, which says nothing of 6.12.
#[test]
fn what_a_configuration_may_have_left_out_bounds_no_rule() {
    let rules = file("rules.json");
    let answers = &rules["items"]["kfuncs/scx"]["cases"]["scx_bpf_kick_cpu"];
    let of = |result: &str| answer_of(answers, result);
    assert!(of("absent")["kernels"].as_array().unwrap().contains(&json!("6.12")));
    assert_eq!(of("absent")["support"], json!([]));
    assert_eq!(of("done")["support"][0]["version_added"], "<=6.13");
}

/// A row that cannot tell is spoken for by a further build of its sources; one that tells is not.
#[rstest]
#[case::row_cannot_tell(true, ">5.19 <=6.1")]
#[case::row_tells(false, "6.2")]
fn a_flavour_tells_of_a_rule_what_its_versions_row_cannot(#[case] row_cannot: bool, #[case] since: &str) {
    use crate::snapshot::made_up::{self, done, names, refused};
    let row = if row_cannot {
        let why = "no tool".to_owned();
        crate::normalize::NormalCase { end: probes::record::End::CouldNotTell { why }, ..done("x") }
    } else {
        refused("x", "another reason")
    };
    let rows = vec![
        ("5.19", vec![refused("x", "no")]),
        ("6.1", vec![row]),
        ("6.1-fragments", vec![done("x")]),
        ("6.2", vec![done("x")]),
    ];
    let kernels = names(&["5.19", "6.1", "6.1-fragments", "6.2"]);
    let snapshots = BTreeMap::from([("a/b".to_owned(), made_up::snapshot("a/b", rows))]);
    let (items, matrix) = (BTreeMap::new(), &PROJECT.matrix);
    let material = Material { matrix, kernels: &kernels, snapshots: &snapshots, items: &items, probes: &[] };
    let rules: Value = serde_json::from_str(&files(&material).unwrap()["rules.json"]).unwrap();
    let answer = answer_of(&rules["items"]["a/b"]["cases"]["x"], "done").clone();
    assert_eq!(answer["support"][0]["version_added"], since);
    let kernels = answer["support"][0]["kernels"].as_array().unwrap().len();
    assert_eq!(kernels, if row_cannot { 2 } else { 1 });
}

/// What a feature needs stands beside its range.
#[test]
fn a_feature_says_under_which_condition() {
    let kfuncs = file("kfuncs.json");
    let support = &kfuncs["items"]["bpf_arena_alloc_pages"]["features"]["normal use"]["support"];
    assert_eq!(support[0]["condition"], "by programs that may sleep");
    assert_eq!(support[0]["version_removed"], "7.0");
    assert_eq!(support[1]["condition"], Value::Null);
    assert_eq!(support[1]["version_added"], "7.0");
}

/// Other projects read `compat/` from the repository: it must be what the snapshots say.
#[test]
fn the_committed_files_are_those_of_the_snapshots() {
    let folder = root().join("compat");
    let hint = "compat/ is stale: run `cargo conform export --out compat`";
    for (name, text) in &*FILES {
        let committed = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(committed == *text, "{hint} ({name} differs)");
    }
    let committed = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(committed, FILES.len(), "{hint} (a file too many)");
}
