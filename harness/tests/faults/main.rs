//! What must come of faults: wrong input, broken surroundings, misbehaving probes, a killed harness. The real program
//! is run, with real machines where the fault is in one.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod devices;
mod disk;
mod interruption;
mod load;
mod mutation;
mod preparation;
mod saved;
mod soak;

use probes::protocol::Machine;
use probes::spec::Probe;
use rstest::rstest;
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The kernels for faults: an old one and a new one.
const OLD: &str = "5.10";
const NEW: &str = "7.3";

fn conform() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conform"));
    // With CI set nothing is proposed as a snapshot: what these tests run is not meant to be accepted.
    command.stdin(Stdio::null()).env("CI", "true");
    // Nor to be gone on with by who has a run of their own to go on with.
    command.arg("--unlinked");
    // Whoever runs the tests may ignore signals, as `nohup` and what a script puts into the background do.
    // SAFETY: between fork and exec only `signal` is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                libc::signal(signal, libc::SIG_DFL);
            }
            Ok(())
        });
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    conform().args(arguments).output().unwrap()
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn must_end(output: &Output, code: i32, words: &[&str]) {
    let text = told(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

/// The ids of all probes of some families, as the tables have them.
fn ids_of(families: &[&str]) -> BTreeSet<String> {
    let of_family = |id: &String| families.contains(&probes::spec::family_of(id));
    let ids: BTreeSet<String> =
        probes::families::all().into_iter().map(|probe| probe.id).filter(of_family).collect();
    assert!(!ids.is_empty());
    ids
}

/// The image of a row, fetched if need be.
fn image_of(kernel: &str) -> PathBuf {
    let output = run(&["kernels", "fetch", "--kernel", kernel, "--format", "json"]);
    assert!(output.status.success(), "{}", told(&output));
    let listing: Value = serde_json::from_slice(&output.stdout).unwrap();
    PathBuf::from(listing["kernels"][0]["status"]["facts"]["path"].as_str().unwrap())
}

#[rstest]
#[case::unknown_probe(&["run", "--probe", "program/typ"], 2, &["did you mean program/type?"])]
#[case::glob_without_match(&["run", "--probe", "program/x*"], 4, &["no probe matches program/x*"])]
#[case::unknown_kernel(&["run", "--kernel", "6.13x"], 2, &["no kernel", "it has 5."])]
#[case::no_such_image(&["run", "--kernel", "/no/such/vmlinuz"], 2, &["no kernel image at /no/such/vmlinuz"])]
#[case::unknown_option(&["run", "--fast"], 2, &["--fast"])]
fn wrong_input_is_named(#[case] arguments: &[&str], #[case] code: i32, #[case] words: &[&str]) {
    must_end(&run(arguments), code, words);
}

#[test]
fn a_wrong_key_in_the_matrix_is_named_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let matrix = folder.path().join("matrix.yaml");
    std::fs::write(&matrix, "kernels:\n  - name: a\n    path: vmlinuz\n    lsmm: bpf\n").unwrap();
    let output = run(&["--matrix", matrix.to_str().unwrap(), "run"]);
    must_end(&output, 2, &["matrix.yaml:4:5", "lsmm", "did you mean \"lsm\"?"]);
}

#[test]
fn an_unwritable_cache_is_named() {
    let output =
        conform().args(["run", "--kernel", NEW]).env("CONFORM_CACHE", "/proc/no-cache").output().unwrap();
    must_end(&output, 3, &["/proc/no-cache"]);
}

#[test]
fn a_truncated_image_is_refused_before_any_machine_starts() {
    let whole = std::fs::read(image_of(NEW)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("vmlinuz-cut");
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let output =
        run(&["run", "--kernel", cut.to_str().unwrap(), "--run-dir", folder.path().to_str().unwrap()]);
    must_end(&output, 3, &["vmlinuz-cut", "truncated"]);
}

/// A hundredth of the usual is less than any machine takes to boot.
#[test]
fn a_machine_that_does_not_come_up_in_time_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        ["run", "--kernel", NEW, "--probe", "program/type", "--cold", "--patience", "1", "--run-dir"];
    let output = conform().args(arguments).arg(folder.path()).output().unwrap();
    must_end(&output, 3, &["a boot brought nothing; trying again", "no boot said hello, 3 tried"]);
}

/// A run of some probes on some kernels, as JSON.
fn records(arguments: &[&str]) -> (Output, Value) {
    let folder = tempfile::tempdir().unwrap();
    let mut all = vec!["run", "--format", "json", "--run-dir", folder.path().to_str().unwrap()];
    all.extend(arguments);
    let output = conform().args(&all).output().unwrap();
    let document =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", told(&output)));
    (output, document)
}

/// A probe of `selftest`, its outcome, and words of its record.
type Expected = (&'static str, &'static str, &'static str);

/// Those that lose their machine, by themselves or because PID 1 or the harness ends it for what they did.
const LOSING: [Expected; 7] = [
    ("panic", "crashed", "Kernel panic"),
    ("silent", "hung", ""),
    ("unkillable", "observed", ""),
    ("reboot", "crashed", "the machine ended without a word"),
    ("power-off", "crashed", "the machine ended without a word"),
    ("cut", "could-not-tell", "the guest's stream is corrupt"),
    ("lie", "could-not-tell", "the end of selftest/after where selftest/lie is under way"),
];

/// Those that leave it to others. `memory` does too, and has a test of its own: how long it takes to fill a machine
/// depends on the host.
const LEAVING: [Expected; 13] = [
    ("hang", "hung", ""),
    ("spin", "hung", ""),
    ("forks", "hung", ""),
    ("killed", "crashed", "SIGKILL"),
    ("worker", "crashed", "vanished"),
    ("flood", "observed", ""),
    ("forge", "could-not-tell", "said nonsense"),
    ("endless", "could-not-tell", "said nonsense: a line of more than"),
    ("rust-panic", "crashed", "on purpose"),
    ("bpftool", "observed", ""),
    ("reach", "observed", ""),
    ("rewritten-code", "observed", ""),
    ("varying", "observed", ""),
];

/// Those that behave, one before all of these and one after.
const BEHAVING: [Expected; 2] = [("before", "observed", ""), ("after", "observed", "")];

#[test]
fn every_probe_that_misbehaves_is_tried() {
    let tried = LOSING.iter().chain(&LEAVING).chain(&BEHAVING).map(|(name, ..)| format!("selftest/{name}"));
    let tried: BTreeSet<String> = tried.chain(["selftest/memory".to_owned()]).collect();
    let all: BTreeSet<String> =
        (probes::families::HIDDEN.probes)().into_iter().map(|probe| probe.id).collect();
    assert_eq!(tried, all);
}

/// A run of `expected`, those that behave and `others`, each of which must have the record that it should have.
fn beside(kernel: &str, expected: &[Expected], others: &BTreeSet<String>) -> Value {
    let expected: Vec<&Expected> = expected.iter().chain(&BEHAVING).collect();
    let mut probes: Vec<String> = expected.iter().map(|(name, ..)| format!("selftest/{name}")).collect();
    probes.extend(others.iter().cloned());
    let probes = probes.join(",");
    let arguments = ["--kernel", kernel, "--probe", &probes, "--deadline", "6", "--patience", "50"];
    let (_, mut document) = records(&arguments);
    let run = document["kernels"][0].take();
    let all = run["records"].as_array().unwrap();
    // What goes on around them is what it is without them, and none of it is lost.
    let real: Vec<&Value> = all.iter().filter(|record| record["family"] != "selftest").collect();
    let there: Vec<&str> = real.iter().map(|record| record["probe"].as_str().unwrap()).collect();
    assert_eq!(there.len(), others.len(), "{there:?}");
    assert_eq!(there.iter().map(|&id| id.to_owned()).collect::<BTreeSet<_>>(), *others);
    for record in real {
        assert_eq!(record["verdict"], "matched", "{record:#}");
    }
    assert_eq!(all.len(), expected.len() + others.len());
    for (name, outcome, what) in expected {
        let record = of(&run, name);
        assert_eq!(record["outcome"], *outcome, "{record:#}");
        let said = [&record["what"], &record["why"]].map(|it| it.as_str().unwrap_or_default()).concat();
        assert!(said.contains(what), "{record:#}");
    }
    run
}

/// The record of a probe of `selftest`.
fn of<'a>(run: &'a Value, name: &str) -> &'a Value {
    let id = format!("selftest/{name}");
    run["records"].as_array().unwrap().iter().find(|record| record["probe"] == id).unwrap()
}

/// In each of these the first case, which had ended before the fault, must be there.
fn keep_their_first_case(run: &Value, names: &[&str]) {
    for name in names {
        let seen = &of(run, name)["cases"][0]["seen"];
        assert_eq!(seen["answer"], 42, "the case before the fault is kept: {name}");
    }
}

#[rstest]
fn misbehaving_probes_cost_themselves_only(#[values(OLD, NEW)] kernel: &str) {
    let run = beside(kernel, &LOSING, &ids_of(&["load", "chain"]));
    // PID 1 ends the machine after this one, whose record is whole.
    let left = "processes of a probe were killed and are still there";
    assert_eq!(of(&run, "unkillable")["warnings"], serde_json::json!([left]));
    let lost = run["lost_between"].as_array().unwrap();
    let [lost] = &lost[..] else { panic!("{lost:#?}") };
    assert_eq!(lost["after"], "selftest/unkillable");
    assert!(lost["what"].as_str().unwrap().starts_with(left), "{lost}");
    assert_eq!(of(&run, "panic")["during"], "crash: trigger");
    assert_eq!(of(&run, "silent")["during"], "forever: trigger");
    keep_their_first_case(
        &run,
        &["before", "panic", "silent", "unkillable", "reboot", "power-off", "cut", "lie", "after"],
    );
}

/// What such a probe leaves in its machine, if anything, changes nothing for those that come after it in the same one.
#[rstest]
fn misbehaving_probes_leave_their_machine_to_the_others(#[values(OLD, NEW)] kernel: &str) {
    // Those that need no machine of their own, and that do not come first, as those do that use aya.
    let usual = |probe: &Probe| probe.machine == Machine::Shared && !probe.aya;
    let families = ["load", "chain"];
    let all = probes::families::all().into_iter().filter(|probe| families.contains(&probe.family()));
    let others: BTreeSet<String> = all.filter(usual).map(|probe| probe.id).collect();
    assert!(!others.is_empty());
    let run = beside(kernel, &LEAVING, &others);
    // One machine had them all, and the others came last.
    assert_eq!(run["boots"], 1, "{}", run["lost_between"]);
    let ids: Vec<&str> =
        run["records"].as_array().unwrap().iter().map(|it| it["probe"].as_str().unwrap()).collect();
    let (first, then) = ids.split_at(LEAVING.len() + BEHAVING.len());
    assert!(first.iter().all(|id| id.starts_with("selftest/")), "{ids:?}");
    assert_eq!((then.len(), first.last()), (others.len(), Some(&"selftest/after")), "{ids:?}");
    assert_eq!(run["lost_between"], serde_json::json!([]));
    for name in ["hang", "spin"] {
        assert_eq!(of(&run, name)["during"], "forever: trigger");
    }
    assert_eq!(of(&run, "forks")["during"], "fork: trigger");
    keep_their_first_case(
        &run,
        &[
            "before",
            "hang",
            "spin",
            "forks",
            "killed",
            "worker",
            "flood",
            "forge",
            "endless",
            "rust-panic",
            "after",
        ],
    );
}

#[rstest]
fn a_probe_that_takes_all_memory_loses_its_own_process_only(#[values(OLD, NEW)] kernel: &str) {
    let probes = "selftest/before,selftest/memory,selftest/after";
    let arguments = ["--kernel", kernel, "--probe", probes, "--vmm", "qemu", "--deadline", "80"];
    let (_, document) = records(&arguments);
    let run = &document["kernels"][0];
    let [before, memory, after] = &run["records"].as_array().unwrap()[..] else { panic!("{run:#}") };
    assert_eq!(memory["outcome"], "crashed", "{memory:#}");
    // The kernel ends every process of that memory: the worker, which would have said how, too.
    assert!(memory["what"].as_str().unwrap().contains("vanished"), "{memory:#}");
    for record in [before, memory, after] {
        assert_eq!(record["cases"][0]["seen"]["answer"], 42, "{record:#}");
    }
    assert_eq!((&before["outcome"], &after["outcome"]), (&"observed".into(), &"observed".into()));
}

#[rstest]
fn nothing_of_the_host_is_within_reach(
    #[values(OLD, NEW)] kernel: &str,
    #[values("virtme-ng", "qemu")] vmm: &str,
) {
    let (_, document) = records(&["--kernel", kernel, "--probe", "selftest/reach", "--vmm", vmm]);
    let case = &document["kernels"][0]["records"][0]["cases"][0];
    for what in ["network devices", "disks", "folders of the host"] {
        assert_eq!(case["seen"][what], Value::Array(Vec::new()), "{case:#}");
    }
    // What there is would have been found.
    assert!(case["seen"]["made-up network devices"].as_array().unwrap().contains(&"lo".into()), "{case:#}");
}

/// The emulator may not run what the kernel has replaced: with a thread per processor QEMU 7.2 does, in a second.
#[rstest]
fn a_second_processor_runs_what_the_first_has_written(
    #[values(OLD, NEW)] kernel: &str,
    #[values("virtme-ng", "qemu")] vmm: &str,
) {
    let probe = "selftest/rewritten-code";
    let (_, document) = records(&["--kernel", kernel, "--probe", probe, "--cpus", "2", "--vmm", vmm]);
    let record = &document["kernels"][0]["records"][0];
    assert_eq!(record["cases"][0]["seen"]["the machine goes on"], "yes", "{record:#}");
    // With one processor there is none to look on: the question is not asked, and not answered.
    let (_, document) = records(&["--kernel", kernel, "--probe", probe, "--vmm", vmm]);
    let record = &document["kernels"][0]["records"][0];
    assert_eq!(record["cases"][0]["end"], "could-not-tell", "{record:#}");
}

/// One of them boots its machines, the other restores them from what was saved.
#[rstest]
fn both_launchers_cold_and_warm_give_the_same_records(#[values(OLD, NEW)] kernel: &str) {
    let by = |arguments: &[&str]| {
        let mut all = vec!["--kernel", kernel];
        all.extend(arguments);
        let (output, mut document) = records(&all);
        let mut run = document["kernels"][0].take();
        let records = run["records"].as_array_mut().map(std::mem::take).unwrap_or_default();
        assert!(!records.is_empty(), "{}", told(&output));
        let without_time = |mut record: Value| {
            record["micros"] = Value::Null;
            record
        };
        (run, records.into_iter().map(without_time).collect::<Vec<_>>())
    };
    // A machine to be restored is there from now on, whatever ran before.
    by(&["--vmm", "qemu", "--probe", "program/type"]);
    let (cold, by_vng) = by(&["--vmm", "virtme-ng", "--cold"]);
    let (warm, by_qemu) = by(&["--vmm", "qemu"]);
    assert_eq!((&cold["vmm"], &warm["vmm"]), (&"virtme-ng".into(), &"qemu".into()));
    assert_eq!(cold["restored"], 0);
    assert!(warm["restored"].as_u64().unwrap() >= 1, "{warm}");
    assert_eq!(by_vng.len(), by_qemu.len());
    for (one, other) in by_vng.iter().zip(&by_qemu) {
        assert_eq!(one, other);
    }
}
