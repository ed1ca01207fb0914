//! Many machines: a matrix of a hundred rows, eight guests at once, and no record lost.

use super::interruption::guards_of;
use super::{NEW, OLD, conform, ids_of, image_of, told};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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
    let harness = conform()
        .arg("--matrix")
        .arg(&matrix)
        .args(["run", "--probe", "program/*", "--vmm", "qemu", "--jobs", "8", "--format", "json"])
        .arg("--run-dir")
        .arg(folder.path().join("run"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (output, most) = counted(harness);
    assert_eq!(most, 8, "machines at once");
    let document: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", told(&output)));
    let kernels = document["kernels"].as_array().unwrap();
    assert_eq!(kernels.len(), ROWS);
    let ids: BTreeSet<String> = ids_of(&["program"]);
    let mut by_image: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for run in kernels {
        assert_eq!(run["failure"], Value::Null, "{run:#}");
        let records = run["records"].as_array().unwrap();
        let there: Vec<&str> = records.iter().map(|record| record["probe"].as_str().unwrap()).collect();
        assert_eq!(there.len(), ids.len(), "{there:?}");
        assert_eq!(there.iter().map(|&id| id.to_owned()).collect::<BTreeSet<_>>(), ids);
        assert!(records.iter().all(|record| record["outcome"] == "observed"), "{run:#}");
        let said: Vec<Value> = records.iter().map(without_what_varies).collect();
        let image = run["image"]["path"].as_str().unwrap().to_owned();
        by_image.entry(image).or_default().insert(serde_json::to_string(&said).unwrap());
    }
    assert_eq!(by_image.len(), images.len());
    for (image, forms) in by_image {
        assert_eq!(forms.len(), 1, "rows with the image {image} have other records: {forms:#?}");
    }
}

/// What the harness says until it ends, and how many machines it had at once, at most.
fn counted(harness: Child) -> (Output, usize) {
    let (id, over) = (harness.id(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let counting = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = most.max(guards_of(id).len());
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let output = harness.wait_with_output();
        over.store(true, Ordering::Relaxed);
        (output.unwrap(), counting.join().unwrap())
    })
}

/// A record without the time that it took, and without the verdict: no row of this matrix has snapshots.
fn without_what_varies(record: &Value) -> Value {
    let mut record = record.clone();
    for name in ["micros", "verdict", "detail", "counts"] {
        record[name] = Value::Null;
    }
    record
}
