//! Shards of a run, joined, are the run.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// More shards than kernels, so that a kernel's probes are split too.
const SHARDS: usize = 3;
const SELECTION: [&str; 6] = ["--kernel", "5.10,7.3", "--probe", "context/*,load/*", "--vmm", "qemu"];

/// What a verb prints as JSON.
fn document(verb: &str, arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_conform"))
        .args(["--unlinked", verb, "--format", "json"])
        .args(arguments)
        .env("CI", "true")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}"))
}

/// The records by kernel and probe, without the time that they took.
fn records(document: &Value) -> BTreeMap<(String, String), Value> {
    let mut all = BTreeMap::new();
    for kernel in document["kernels"].as_array().unwrap() {
        for record in kernel["records"].as_array().unwrap() {
            let mut record = record.clone();
            record.as_object_mut().unwrap().remove("micros");
            let key = |value: &Value| value.as_str().unwrap().to_owned();
            let twice = all.insert((key(&kernel["kernel"]), key(&record["probe"])), record);
            assert!(twice.is_none(), "{twice:?}");
        }
    }
    all
}

#[test]
fn joined_shards_equal_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let run = |name: &str, more: &[&str]| {
        let mut arguments = SELECTION.to_vec();
        let dir = path(name);
        arguments.extend(["--run-dir", &dir]);
        arguments.extend(more);
        document("run", &arguments)
    };
    let whole = run("whole", &[]);
    let mut folders = Vec::new();
    for index in 1..=SHARDS {
        let shard = format!("{index}/{SHARDS}");
        let part = run(&index.to_string(), &["--shard", &shard]);
        assert!(records(&part).len() < records(&whole).len(), "shard {shard} has all the work");
        folders.push(path(&index.to_string()));
    }
    assert!(Path::new(&folders[0]).exists());
    let joined = document("merge", &folders.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(records(&joined), records(&whole));
}
