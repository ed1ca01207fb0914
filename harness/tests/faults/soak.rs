//! What must come of a soak: a record that differed is told; and of one that is interrupted, what it saw until then, and it
//! can go on.

use super::interruption::listen;
use super::{NEW, OLD, conform, image_of};
use harness::model::KernelRun;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use probes::protocol::place;
use rstest::rstest;
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// All soaks of a project have one folder.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[rstest]
#[case(Signal::SIGTERM)]
#[case(Signal::SIGKILL)]
fn an_interrupted_soak_tells_what_it_saw_and_goes_on(#[case] signal: Signal) {
    let _alone = alone();
    for kernel in [NEW, OLD] {
        image_of(kernel);
    }
    let kernels = format!("{OLD},{NEW}");
    let mut harness = conform()
        .args(["soak", "--runs", "3", "--seed", "7", "--kernel", &kernels, "--probe", "selftest/before"])
        .args(["--vmm", "qemu", "--jobs", "1", "--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The newest comes first, and the second run boots: the older one has seconds to go.
    let mut ended = 0;
    let said = listen(&mut harness, &format!("[{NEW}] 1 records in"), |id| {
        ended += 1;
        if ended == 2 {
            kill(Pid::from_raw(id.cast_signed()), signal).unwrap();
        }
    });
    let output = harness.wait_with_output().unwrap();
    if signal == Signal::SIGKILL {
        assert_eq!(output.status.signal(), Some(libc::SIGKILL), "{said}");
    } else {
        tells_what_it_saw(&output, &said);
    }

    let output = conform().args(["soak", "--resume", "--runs", "2", "--format", "json"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&document["seed"], &document["records"]), (&7.into(), &4.into()), "{document:#}");
    assert_eq!(of_runs(&document, "order"), [7, 8]);
    assert_eq!(of_runs(&document, "cold"), [false, true]);
    assert_eq!(of_runs(&document, "complete"), [2, 2]);
    assert_eq!(document["ended"], Value::Null);
}

/// Of a soak that was interrupted in its second run, when the newer kernel was through.
fn tells_what_it_saw(output: &Output, said: &str) {
    assert_eq!(output.status.code(), Some(6), "{said}");
    let document: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!(of_runs(&document, "broken_off"), [false, true], "{document:#}");
    assert_eq!(of_runs(&document, "complete"), [2, 1], "{document:#}");
    assert_eq!(document["records"], 3, "{document:#}");
    assert_eq!(document["differences"], Value::Array(Vec::new()), "{document:#}");
    let ended = document["ended"].as_str().unwrap();
    assert!(ended.contains(&format!("interrupted by SIGTERM; complete: {NEW}")), "{ended}");
}

/// One and two processors take turns, two runs each: a record that says which is told, with what differs and how often. Each
/// run has its own order.
#[test]
fn a_record_that_hangs_on_the_machine_is_told() {
    let _alone = alone();
    let kernels = format!("{OLD},{NEW}");
    let output = conform()
        .args(["soak", "--runs", "5", "--seed", "7", "--kernel", &kernels, "--vmm", "qemu"])
        .args(["--probe", "selftest/before,selftest/varying,chain/tail-call*", "--format", "json"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let document: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!(of_runs(&document, "cpus"), [1, 1, 2, 2, 1], "{document:#}");
    assert_eq!(document["records"], 5 * 2 * (2 + 5), "{document:#}");
    let orders: BTreeSet<Vec<String>> = (7..12).map(|seed| order_of(seed - 6, seed)).collect();
    assert!(orders.len() > 1, "{orders:?}");
    let differences = document["differences"].as_array().unwrap();
    assert_eq!(differences.len(), 2, "{document:#}");
    for (difference, kernel) in differences.iter().zip([OLD, NEW]) {
        assert_eq!(
            (&difference["kernel"], &difference["probe"]),
            (&kernel.into(), &"selftest/varying".into())
        );
        let [most, other] = &difference["forms"].as_array().unwrap()[..] else { panic!("{difference:#}") };
        assert_eq!(most["runs"], serde_json::json!([1, 2, 5]));
        assert_eq!(other["runs"], serde_json::json!([3, 4]));
        assert!(other["diff"].as_str().unwrap().contains("-  number: 1\n+  number: 2\n"), "{difference:#}");
    }
}

/// The order in which run `number` of the soak had the probes of `chain`, which is that of its seed.
fn order_of(number: u64, seed: u64) -> Vec<String> {
    let runs =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../target/conform/soak-unlinked/{number}"));
    let [old, new] = [OLD, NEW].map(|kernel| {
        let text = std::fs::read(runs.join(kernel).join("kernel.json")).unwrap();
        let run: KernelRun = serde_json::from_slice(&text).unwrap();
        let ids = run.records.into_iter().map(|record| record.probe);
        ids.filter(|id| id.starts_with("chain/")).collect::<Vec<_>>()
    });
    let mut wanted = new.clone();
    wanted.sort_by_key(|id| place(seed, id));
    assert_eq!([&old, &new], [&wanted, &wanted], "run {number}");
    wanted
}

fn of_runs(document: &Value, name: &str) -> Vec<Value> {
    document["runs"].as_array().unwrap().iter().map(|run| run[name].clone()).collect()
}
