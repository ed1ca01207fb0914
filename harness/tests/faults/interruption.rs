//! What must come of interruptions: a harness, a guard or a machine that is asked to end or killed, and a run that goes on
//! afterwards.

use super::{NEW, OLD, conform, image_of, must_end, told};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rstest::rstest;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

/// A guard that `harness` has started, and the folder of its machine.
fn guard_of(harness: u32) -> Option<(i32, String)> {
    guards_of(harness).into_iter().next()
}

/// The guards of machines that `harness` has started and the folders of these, from their command lines. What else runs behind
/// a guard, as the compiler of the guest does, has no channel.
pub(super) fn guards_of(harness: u32) -> Vec<(i32, String)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let guard = |entry: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent: u32 = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        let words = (parent == harness).then(|| std::fs::read(entry.path().join("cmdline")))?.ok()?;
        let mut words = words.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        let is_guard = words.nth(1).is_some_and(|word| word == "guard");
        let folder = is_guard.then(|| words.nth(1))??;
        Path::new(&folder).join("channel").exists().then_some(())?;
        Some((entry.file_name().to_str()?.parse().ok()?, folder))
    };
    entries.filter_map(guard).collect()
}

/// Processes that name `text` on their command line.
pub(super) fn processes_with(text: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let named = entries.filter(|entry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|words| String::from_utf8_lossy(&words).contains(text))
    });
    named.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The QEMUs among them.
pub(super) fn qemus_with(text: &str) -> Vec<i32> {
    let is_qemu = |pid: &i32| {
        std::fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|path| path.to_string_lossy().contains("qemu-system"))
    };
    processes_with(text).into_iter().filter(is_qemu).collect()
}

pub(super) fn wait_for(what: &str, patience: Duration, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !done() {
        assert!(Instant::now() < deadline, "waited {patience:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a machine may be started by.
const LAUNCHERS: [&str; 2] = ["virtme-ng", "qemu"];

/// A run of a probe that does not end, up to where its machine runs.
pub(super) struct Hanging {
    harness: Child,
    guard: i32,
    pub(super) machine: String,
    folder: tempfile::TempDir,
}

impl Hanging {
    pub(super) fn start(vmm: &str) -> Self {
        image_of(NEW);
        let folder = tempfile::tempdir().unwrap();
        // Booted, so that both launchers are tried.
        let harness = conform()
            .args(["run", "--kernel", NEW, "--probe", "selftest/hang", "--vmm", vmm, "--cold", "--run-dir"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut found = None;
        wait_for("a machine", Duration::from_secs(120), || {
            found = guard_of(harness.id());
            found.is_some()
        });
        let (guard, machine) = found.unwrap();
        let channel = format!("mem-path={machine}/channel");
        wait_for("QEMU", Duration::from_secs(60), || !qemus_with(&channel).is_empty());
        Self { harness, guard, machine, folder }
    }

    fn send(&self, to_guard: Option<Signal>, to_harness: Option<Signal>) {
        for (pid, signal) in [(self.guard, to_guard), (self.harness.id().cast_signed(), to_harness)] {
            if let Some(signal) = signal {
                kill(Pid::from_raw(pid), signal).unwrap();
            }
        }
    }

    fn nothing_is_left(&self) {
        wait_for("the end of QEMU and its launcher", Duration::from_secs(20), || {
            processes_with(&self.machine).is_empty()
        });
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = self.harness.kill();
        let _ = self.harness.wait();
    }
}

#[rstest]
fn a_killed_harness_leaves_no_machine_behind(#[values("virtme-ng", "qemu")] vmm: &str) {
    let run = Hanging::start(vmm);
    run.send(None, Some(Signal::SIGKILL));
    run.nothing_is_left();
    wait_for("the removal of its files", Duration::from_secs(5), || !Path::new(&run.machine).exists());
}

/// As `pkill conform` does it, which means both.
#[rstest]
fn harness_and_guard_asked_to_end_leave_no_machine_behind(
    #[values(Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP)] signal: Signal,
) {
    let mut run = Hanging::start(LAUNCHERS[0]);
    let name = std::fs::read_to_string(format!("/proc/{}/comm", run.guard)).unwrap();
    assert_eq!(name.trim(), "conform-guard");
    run.send(Some(signal), Some(signal));
    run.nothing_is_left();
    wait_for("the removal of its files", Duration::from_secs(5), || !Path::new(&run.machine).exists());
    assert_eq!(run.harness.wait().unwrap().code(), Some(6));
}

/// Nobody is left then to remove the machine's files: the next run does.
#[rstest]
fn harness_and_guard_killed_at_once_leave_no_process_behind(#[values("virtme-ng", "qemu")] vmm: &str) {
    let run = Hanging::start(vmm);
    run.send(Some(Signal::SIGKILL), Some(Signal::SIGKILL));
    run.nothing_is_left();
    assert!(Path::new(&run.machine).exists());
    let arguments = ["run", "--kernel", NEW, "--probe", "program/type", "--vmm", "qemu", "--run-dir"];
    let next = conform().args(arguments).arg(run.folder.path().join("next")).output().unwrap();
    must_end(&next, 0, &["1 matched"]);
    assert!(!Path::new(&run.machine).exists());
}

/// As `kill -STOP` does it, or a debugger.
#[rstest]
fn a_guard_or_a_machine_that_stands_still_is_ended_with_the_run(#[values(true, false)] is_guard: bool) {
    let mut run = Hanging::start("qemu");
    let channel = format!("mem-path={}/channel", run.machine);
    let stopped = if is_guard { run.guard } else { qemus_with(&channel)[0] };
    kill(Pid::from_raw(stopped), Signal::SIGSTOP).unwrap();
    run.send(None, Some(Signal::SIGTERM));
    run.nothing_is_left();
    assert_eq!(run.harness.wait().unwrap().code(), Some(6));
    assert!(!Path::new(&run.machine).exists());
}

/// The guard that stands still would cost ten seconds.
#[test]
fn a_second_signal_ends_the_run_at_once() {
    let mut hanging = Hanging::start("qemu");
    let guard = Pid::from_raw(hanging.guard);
    kill(guard, Signal::SIGSTOP).unwrap();
    hanging.send(None, Some(Signal::SIGTERM));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(hanging.harness.try_wait().unwrap(), None, "it comes to an end of its own");
    hanging.send(None, Some(Signal::SIGTERM));
    wait_for("the end of the harness", Duration::from_secs(3), || {
        hanging.harness.try_wait().unwrap().is_some()
    });
    assert_eq!(hanging.harness.wait().unwrap().signal(), Some(libc::SIGTERM));
    kill(guard, Signal::SIGCONT).unwrap();
    hanging.nothing_is_left();
}

/// What a run says, to its end; `act` is done with the run's process id when it has said `word`.
pub(super) fn listen(harness: &mut Child, word: &str, mut act: impl FnMut(u32)) -> String {
    let mut said = String::new();
    for line in BufReader::new(harness.stderr.take().unwrap()).lines().map_while(Result::ok) {
        if line.contains(word) {
            act(harness.id());
        }
        said += &line;
        said.push('\n');
    }
    said
}

/// A run of `arguments`, to be interrupted when it has said `word`; what it said.
fn run_until(arguments: &[&str], word: &str, signal: Signal) -> (Option<i32>, String) {
    let mut harness = conform().args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let said = listen(&mut harness, word, |id| {
        // Far enough into the probe that hangs, and far from its end.
        std::thread::sleep(Duration::from_millis(1500));
        kill(Pid::from_raw(id.cast_signed()), signal).unwrap();
    });
    (harness.wait().unwrap().code(), said)
}

/// A probe that takes long keeps nobody from the records of those before it: they are written while it runs.
#[test]
fn what_was_recorded_before_a_long_probe_survives_a_kill() {
    image_of(NEW);
    let folder = tempfile::tempdir().unwrap();
    let mut harness = conform()
        .args(["run", "--kernel", NEW, "--probe", "selftest/before,selftest/hang", "--vmm", "qemu"])
        .args(["--deadline", "600", "--run-dir"])
        .arg(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let file = folder.path().join(NEW).join("kernel.json");
    wait_for("the first record", Duration::from_secs(120), || file.exists());
    harness.kill().unwrap();
    harness.wait().unwrap();
    let run: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let probes: Vec<&str> =
        run["records"].as_array().unwrap().iter().map(|it| it["probe"].as_str().unwrap()).collect();
    assert_eq!(probes, ["selftest/before"], "{run:#}");
}

/// apt has only begun to get the lists: the cache is empty.
#[test]
fn an_interrupted_fetch_says_what_is_kept_and_leaves_no_process() {
    let cache = tempfile::tempdir().unwrap();
    let mut harness = conform()
        .args(["kernels", "fetch", "--kernel", OLD])
        .env("CONFORM_CACHE", cache.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = listen(&mut harness, "updating the package lists", |id| {
        kill(Pid::from_raw(id.cast_signed()), Signal::SIGTERM).unwrap();
    });
    assert_eq!(harness.wait().unwrap().signal(), Some(libc::SIGTERM), "{said}");
    let parting = "ended by SIGTERM; the cache has what is said to be ready; fetching again gets the others";
    assert!(said.contains(parting), "{said}");
    let place = cache.path().to_str().unwrap();
    wait_for("apt's end", Duration::from_secs(10), || processes_with(place).is_empty());
}

/// The records by kernel, without the time that they took.
fn records(output: &Output) -> Vec<(Value, Vec<Value>)> {
    let document: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", told(output)));
    let of_kernel = |run: &Value| {
        let without_time = |record: &Value| {
            let mut record = record.clone();
            record["micros"] = Value::Null;
            for case in record["cases"].as_array_mut().into_iter().flatten() {
                case["micros"] = Value::Null;
            }
            record
        };
        (run["kernel"].clone(), run["records"].as_array().unwrap().iter().map(without_time).collect())
    };
    document["kernels"].as_array().unwrap().iter().map(of_kernel).collect()
}

#[rstest]
fn an_interrupted_run_goes_on_to_what_it_would_have_been(
    #[values(Signal::SIGTERM, Signal::SIGKILL)] signal: Signal,
) {
    let kernels = format!("{OLD},{NEW}");
    let what = ["run", "--kernel", &kernels, "--probe", "selftest/before,selftest/hang,selftest/after"];
    let how = ["--deadline", "4", "--vmm", "qemu", "--jobs", "1", "--format", "json", "--run-dir"];
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (whole, part) = (path("whole"), path("part"));
    let by = |dir: &str| -> Vec<String> {
        what.iter().chain(&how).chain([&dir]).map(|&word| word.to_owned()).collect()
    };
    let undisturbed = conform().args(by(&whole)).output().unwrap();

    // The newest comes first.
    let arguments = by(&part);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (code, said) = run_until(&arguments, &format!("[{OLD}] up:"), signal);
    if signal == Signal::SIGTERM {
        assert_eq!(code, Some(6), "{said}");
        let words = [
            &format!("interrupted by SIGTERM; complete: {NEW}"),
            &format!("in part: {OLD} (1 of 3 records)"),
        ];
        for word in words {
            assert!(said.contains(word), "{said}");
        }
        let partial = std::fs::read_to_string(format!("{part}/{OLD}/kernel.json")).unwrap();
        assert!(serde_json::from_str::<Value>(&partial).is_ok(), "{partial}");
    }
    refuses_what_is_different(&part);

    let resumed = conform().args(["run", "--format", "json", "--resume", &part]).output().unwrap();
    assert!(
        told(&resumed).contains(&format!("[{NEW}] 3 records were there, all of them")),
        "{}",
        told(&resumed)
    );
    assert_eq!(records(&resumed), records(&undisturbed));
    assert_eq!(resumed.status.code(), undisturbed.status.code());
}

/// Another probe, another guest, another kernel: nothing is added to the records of these.
fn refuses_what_is_different(part: &str) {
    let resume = |more: &[&str]| conform().args(["run", "--resume", part]).args(more).output().unwrap();
    must_end(&resume(&["--probe", "selftest/after"]), 2, &["--probe was", "run anew without --resume"]);
    let manifest = format!("{part}/run.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let mut other: Value = serde_json::from_str(&text).unwrap();
    other["shared"]["the guest binary, which holds the probes"] = "0".repeat(64).into();
    other["kernels"][OLD] = "1".repeat(64).into();
    std::fs::write(&manifest, other.to_string()).unwrap();
    must_end(
        &resume(&[]),
        2,
        &[
            "the guest binary, which holds the probes was 000000000000 and is",
            "lsm= of 5.10 were 111111111111",
        ],
    );
    std::fs::write(&manifest, text).unwrap();
}

/// A cache that somebody deletes costs the kernels that have not been booted; the next run has it again.
#[test]
fn a_cache_deleted_underneath_loses_nothing_that_was_gathered() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, records) = (folder.path().join("cache"), folder.path().join("run"));
    for kernel in [OLD, NEW] {
        let from = image_of(kernel);
        let entry = from.parent().unwrap();
        let to = cache.join("kernels").join(entry.file_name().unwrap());
        std::fs::create_dir_all(&to).unwrap();
        for file in entry.read_dir().unwrap().flatten() {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
    let kernels = format!("{OLD},{NEW}");
    let mut harness = conform()
        .env("CONFORM_CACHE", &cache)
        .args(["run", "--kernel", &kernels, "--probe", "selftest/before,selftest/hang,selftest/after"])
        .args(["--deadline", "4", "--vmm", "qemu", "--jobs", "1", "--run-dir"])
        .arg(&records)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = listen(&mut harness, &format!("[{NEW}] up:"), |_| {
        std::fs::remove_dir_all(&cache).unwrap();
    });
    assert_eq!(harness.wait().unwrap().code(), Some(3), "{said}");
    let gone = format!("[{OLD}] failed: the kernel image");
    assert!(said.contains(&gone) && said.contains("run again"), "{said}");
    let kept = std::fs::read_to_string(records.join(NEW).join("kernel.json")).unwrap();
    let kept: Value = serde_json::from_str(&kept).unwrap();
    // The probe that hangs ends its process; the machine goes on.
    let outcomes: Vec<&str> =
        kept["records"].as_array().unwrap().iter().filter_map(|it| it["outcome"].as_str()).collect();
    assert_eq!(outcomes, ["observed", "hung", "observed"], "{kept:#}");
}

/// Whoever ends QEMU, the machine's probe has not crashed: it is asked again. QEMU leaves with status 0 when it is asked to
/// end.
#[rstest]
fn a_machine_that_somebody_kills_is_not_the_probes_fault(
    #[values("virtme-ng", "qemu")] vmm: &str,
    #[values(false, true)] the_guard: bool,
    #[values(Signal::SIGKILL, Signal::SIGTERM)] signal: Signal,
) {
    let how = ["--vmm", vmm, "--cold", "--deadline", "4"];
    let (said, run) = disturbed(&how, |guard, qemu| {
        kill(Pid::from_raw(if the_guard { guard } else { qemu }), signal).unwrap();
    });
    assert!(said.contains("the machine was ended from outside, during selftest/hang"), "{said}");
    assert_eq!(run["records"][0]["outcome"], "hung", "{run:#}");
}

/// A machine that says nothing because it may not is not one that hangs.
#[test]
fn a_machine_that_somebody_stops_is_not_the_probes_fault() {
    let how = ["--vmm", "qemu", "--deadline", "15", "--patience", "25"];
    let (said, run) = disturbed(&how, |_, qemu| kill(Pid::from_raw(qemu), Signal::SIGSTOP).unwrap());
    assert!(said.contains("the machine was stopped from outside, during selftest/hang"), "{said}");
    assert_eq!(run["records"][0]["outcome"], "hung", "{run:#}");
}

/// A run of the probe that hangs; `disturb` is given its first machine's guard and QEMU. What it said, and its records.
fn disturbed(how: &[&str], disturb: impl Fn(i32, i32)) -> (String, Value) {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = conform()
        .args(["run", "--kernel", NEW, "--probe", "selftest/hang"])
        .args(how)
        .args(["--format", "json", "--run-dir"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = listen(&mut harness, &format!("[{NEW}] up:"), |id| {
        std::thread::sleep(Duration::from_millis(1000));
        let (guard, machine) = guard_of(id).unwrap();
        let qemu = qemus_with(&format!("mem-path={machine}/channel"))[0];
        disturb(guard, qemu);
    });
    let output = harness.wait_with_output().unwrap();
    let document: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    let run = document["kernels"][0].clone();
    // More than two, where a boot was lost for want of time.
    assert!(run["boots"].as_u64().unwrap() >= 2 && run["failure"].is_null(), "{run:#}");
    (said, run)
}
