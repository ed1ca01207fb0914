//! What must come of a saved machine whose file was damaged: it is dropped, and the machine booted and saved again.

use super::{NEW, OLD, conform, image_of, told};
use rstest::rstest;
use serde_json::Value;
use std::path::{Path, PathBuf};

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
    let states = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(cache.path().join("states")).unwrap().flatten();
        entries.map(|entry| entry.path()).collect()
    };
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
