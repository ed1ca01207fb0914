//! Hostile input: the kept corpus of every kind of input, and what a seeded mutation makes of it, given to the readers.
//!
//! Each kind runs in a process of its own, so that an overflow of the stack, an abort or an endless loop also names the
//! input that did it. `CONFORM_FUZZ_SECONDS` makes a run longer and `CONFORM_FUZZ_SEED` another one; campaigns with
//! coverage are run by `cargo fuzz` (`harness/fuzz`, docs/trust.md).

#![expect(clippy::expect_used, reason = "in a test a panic is the report")]

mod memory;
mod mutate;
mod targets;

use mutate::Mutator;
use rstest::rstest;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

#[global_allocator]
static COUNTED: memory::Counting = memory::Counting;

/// Names the target to the process that runs it, and the folder in which it keeps its input.
const TARGET: &str = "CONFORM_FUZZ_TARGET";
const FOLDER: &str = "CONFORM_FUZZ_FOLDER";
const SECONDS: &str = "CONFORM_FUZZ_SECONDS";
const SEED: &str = "CONFORM_FUZZ_SEED";
/// How long the mutations of one target go on where nobody says otherwise.
const USUAL: Duration = Duration::from_secs(2);
/// An input that is not through by then has hung. The slowest takes some milliseconds on an idle machine.
const HUNG: Duration = Duration::from_secs(60);
/// Address space of the process: what asks for more is stopped by the system, whoever asks.
const SPACE: u64 = 4 << 30;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// The kept inputs of a target, by name.
fn kept(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = corpus().join(target);
    let entries = fs::read_dir(&folder).expect("every target has a corpus").flatten();
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("a file of the corpus"))
        })
        .collect();
    inputs.sort();
    inputs
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[rstest]
fn hostile_input_is_survived(
    #[values(
        "archive", "btf", "claims", "config", "data", "entry", "image", "index", "matrix", "package", "page",
        "run", "snapshot", "state", "stream"
    )]
    target: &str,
) {
    let folder = targets::folder();
    let output = fs::File::create(folder.path().join("output")).expect("a file");
    let mut child = Command::new(std::env::current_exe().expect("this test's program"))
        .args(["--exact", "one_target", "--ignored", "--nocapture"])
        .env(TARGET, target)
        .env(FOLDER, folder.path())
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("the file"))
        .stderr(output)
        .spawn()
        .expect("this test's program");
    let verdict = wait(&mut child, &folder.path().join("input"));
    let said = fs::read_to_string(folder.path().join("output")).unwrap_or_default();
    match verdict {
        Ok(()) => println!("{}", said.lines().find(|line| line.contains("inputs")).unwrap_or_default()),
        Err(how) => {
            let to = keep(target, &folder.path().join("input"));
            panic!("{target}: {how}; the input is kept in {to}\n{said}");
        }
    }
}

/// Waits for the process that runs a target; one whose input does not change any more is ended.
fn wait(child: &mut Child, input: &Path) -> Result<(), String> {
    let started = SystemTime::now();
    loop {
        if let Some(status) = child.try_wait().expect("the process") {
            return if status.success() { Ok(()) } else { Err(format!("an input ended it with {status}")) };
        }
        let since = fs::metadata(input).and_then(|facts| facts.modified()).unwrap_or(started);
        if since.elapsed().is_ok_and(|age| age > HUNG) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("an input took longer than {HUNG:?}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Keeps the input that failed, and says where.
fn keep(target: &str, input: &Path) -> String {
    let bytes = fs::read(input).unwrap_or_default();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile");
    let path = folder.join(format!("{target}-{:08x}", crc32fast::hash(&bytes)));
    match fs::create_dir_all(&folder).and_then(|()| fs::write(&path, bytes)) {
        Ok(()) => path.display().to_string(),
        Err(error) => format!("no file: {error}"),
    }
}

#[test]
#[ignore = "the other tests start it"]
fn one_target() {
    let (Ok(name), Some(folder)) = (std::env::var(TARGET), std::env::var_os(FOLDER)) else { return };
    let (_, target) = targets::TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    let space = nix::sys::resource::Resource::RLIMIT_AS;
    nix::sys::resource::setrlimit(space, SPACE, SPACE).expect("a limit on memory");
    let file = Path::new(&folder).join("input");
    let give = |input: &[u8]| {
        fs::write(&file, input).expect("the input's file");
        targets::give(*target, input);
    };
    let inputs = kept(&name);
    for (_, input) in &inputs {
        give(input);
    }
    let seed = number(SEED).unwrap_or(1);
    let limit = number(SECONDS).map_or(USUAL, Duration::from_secs);
    let mut mutator = Mutator::new(seed, inputs.iter().map(|(_, input)| input.clone()).collect());
    let (started, mut made) = (Instant::now(), 0_u64);
    while started.elapsed() < limit {
        give(&mutator.next());
        made += 1;
    }
    println!("{name}: {} kept inputs, {made} mutations with seed {seed}", inputs.len());
}

#[test]
fn every_target_has_a_corpus_a_campaign_and_a_test() {
    let names: BTreeSet<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    let folders: BTreeSet<String> = fs::read_dir(corpus())
        .expect("the corpus")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert!(folders.iter().map(String::as_str).eq(names.iter().copied()), "{folders:?}");
    let test = include_str!("main.rs");
    for name in names {
        assert!(!kept(name).is_empty(), "{name} has no corpus");
        let campaign = corpus().join(format!("../fuzz_targets/{name}.rs"));
        let text = fs::read_to_string(&campaign).expect("a campaign");
        assert!(text.contains(&format!("give(\"{name}\", input)")), "{}", campaign.display());
        assert!(test.contains(&format!("\"{name}\"")), "{name} has no test");
    }
}

/// The guard itself must see what it is there for.
#[rstest]
#[case::panic(|_: &[u8]| panic!("as a reader would"))]
#[case::memory(|_: &[u8]| drop(vec![0_u8; memory::LIMIT + 1]))]
fn a_reader_that_fails_is_noticed(#[case] target: targets::Target) {
    assert!(std::panic::catch_unwind(|| targets::give(target, b"x")).is_err());
}
