//! Many machines: a matrix of a hundred rows, eight guests at once, and no record lost.

use super::{NEW, OLD, conform, image_of, told};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;

const ROWS: usize = 100;

/// The same two images under other names.
#[test]
#[ignore = "takes minutes: cargo test --test faults -- --ignored a_hundred_rows"]
fn a_hundred_rows_eight_at_once_lose_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let images = [image_of(OLD), image_of(NEW)];
    let mut text = "kernels:\n".to_owned();
    for row in 0..ROWS {
        let _ = writeln!(text, "  - name: row-{row}\n    path: {}\n    lsm: bpf", images[row % 2].display());
    }
    let matrix = folder.path().join("matrix.yaml");
    std::fs::write(&matrix, text).unwrap();
    let output = conform()
        .arg("--matrix")
        .arg(&matrix)
        .args([
            "run",
            "--probe",
            "program/*",
            "--vmm",
            "qemu",
            "--jobs",
            "8",
            "--format",
            "json",
            "--run-dir",
        ])
        .arg(folder.path().join("run"))
        .output()
        .unwrap();
    let document: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", told(&output)));
    let kernels = document["kernels"].as_array().unwrap();
    assert_eq!(kernels.len(), ROWS);
    let cases = |run: &Value| -> Vec<(String, String)> {
        let records = run["records"].as_array().unwrap().iter();
        records.map(|it| (it["probe"].to_string(), it["outcome"].to_string())).collect()
    };
    let seen: BTreeSet<_> = kernels.iter().map(cases).collect();
    assert!(seen.len() <= 2, "rows with the same image have other records: {seen:#?}");
    for run in kernels {
        assert_eq!(run["failure"], Value::Null, "{run:#}");
        assert!(cases(run).iter().all(|(_, outcome)| outcome == "\"observed\""), "{run:#}");
    }
}
