//! What must come of a saved machine whose file was damaged: it is dropped, and the machine booted and saved again.

use super::interruption::{processes_with, wait_for};
use super::{NEW, OLD, conform, image_of, told};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rstest::rstest;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A cache with what the usual one has, but for the saved machines.
fn cache_without_states() -> tempfile::TempDir {
    let image = image_of(NEW);
    let kernels = image.ancestors().find(|path| path.ends_with("kernels")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(kernels.parent().unwrap()).unwrap().flatten() {
        if entry.file_name() != "states" {
            std::os::unix::fs::symlink(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
    }
    folder
}

/// A run of one probe: how many machines were restored for it, and what it said.
fn run(kernel: &str, cache: &Path) -> (u64, String) {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        ["run", "--format", "json", "--vmm", "qemu", "--kernel", kernel, "--probe", "program/type"];
    let mut command = conform();
    command.args(arguments).arg("--run-dir").arg(folder.path()).env("CONFORM_CACHE", cache);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    (document["kernels"][0]["restored"].as_u64().unwrap(), told(&output))
}

/// The saved machines of a cache.
fn states_of(cache: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(cache.join("states")).unwrap().flatten().map(|entry| entry.path()).collect()
}

/// Where `text` stands in the head, which is the first line.
fn in_head(state: &[u8], text: &str) -> usize {
    let head = state.split(|&byte| byte == b'\n').next().unwrap();
    head.windows(text.len()).position(|part| part == text.as_bytes()).unwrap()
}

/// Where a byte of a state is.
type Place = fn(&[u8]) -> usize;

/// The places that are damaged.
const PLACES: [(&str, Place); 3] = [
    ("the stream", |state| state.len() / 2),
    ("the head", |state| in_head(state, "\"image\":") + 1),
    ("the program that is run", |state| in_head(state, "\"qemu\":[\"") + 10),
];

#[rstest]
fn a_damaged_state_is_dropped_and_the_machine_booted(#[values(OLD, NEW)] kernel: &str) {
    let cache = cache_without_states();
    let states = || states_of(cache.path());
    assert_eq!(run(kernel, cache.path()).0, 0, "nothing is saved yet");
    for (what, place) in PLACES {
        let [state] = &states()[..] else { panic!("one state, not {:?}", states()) };
        let mut bytes = std::fs::read(state).unwrap();
        let at = place(&bytes);
        bytes[at] ^= 0x15;
        std::fs::write(state, &bytes).unwrap();
        let (restored, text) = run(kernel, cache.path());
        assert_eq!(restored, 0, "{what}: {text}");
        assert!(text.contains("booting instead of restoring"), "{what}: {text}");
        assert!(std::fs::read(state).unwrap() != bytes, "{what}: the damaged state was replaced");
    }
    assert_eq!(run(kernel, cache.path()).0, 1, "what was saved last is whole");
    assert_eq!(states().len(), 1, "nothing half-written stays");
}

/// The head with another program, and the checksum of that.
fn with_program(state: &[u8], program: &Path) -> Vec<u8> {
    let length = state.iter().position(|&byte| byte == b'\n').unwrap();
    let (_, text) = std::str::from_utf8(&state[..length]).unwrap().split_once(' ').unwrap();
    let (before, after) = text.split_once("\"qemu\":[\"").unwrap();
    let (_, after) = after.split_once('"').unwrap();
    let text = format!("{before}\"qemu\":[\"{}\"{after}", program.display());
    let head = format!("{:x} {text}", Sha256::digest(&text));
    [head.as_bytes(), &state[length..]].concat()
}

/// A signal is no reason to wait out the minute that a restore may take, nor to drop what is saved.
#[test]
fn a_restore_that_does_not_end_is_left_by_a_signal_and_the_state_kept() {
    let cache = cache_without_states();
    assert_eq!(run(NEW, cache.path()).0, 0, "nothing is saved yet");
    let [state] = &states_of(cache.path())[..] else { panic!("one state") };
    let program = cache.path().join("waits");
    std::fs::write(&program, "#!/bin/sh\nexec sleep 300\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    let changed = with_program(&std::fs::read(state).unwrap(), &program);
    std::fs::write(state, &changed).unwrap();

    let mut harness = conform()
        .args(["run", "--vmm", "qemu", "--kernel", NEW, "--probe", "program/type", "--run-dir"])
        .arg(cache.path().join("run"))
        .env("CONFORM_CACHE", cache.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let named = program.to_str().unwrap();
    wait_for("the program", Duration::from_secs(60), || !processes_with(named).is_empty());
    let asked = Instant::now();
    kill(Pid::from_raw(harness.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(harness.wait().unwrap().code(), Some(6));
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    assert!(std::fs::read(state).unwrap() == changed, "the state is kept");
}
