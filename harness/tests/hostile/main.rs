//! Hostile input: the kept corpus of every kind of input, and what a seeded mutation makes of it, given to the readers.
//!
//! Each kind runs in a process of its own, so that an overflow of the stack, an abort or an endless loop also names the
//! input that did it. `CONFORM_FUZZ_SECONDS` makes a run longer and `CONFORM_FUZZ_SEED` another one; campaigns with
//! coverage are run by `cargo fuzz` (`harness/fuzz`, docs/trust.md).

#![expect(clippy::expect_used, reason = "in a test a panic is the report")]

mod memory;
mod mutate;
mod region;
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
    if FAULTY.iter().any(|(faulty, _)| *faulty == target) {
        return vec![("any".into(), b"x".to_vec())];
    }
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
    match tried(target, HUNG) {
        Ok(Tried { kept, mutations }) => println!("{target}: {kept} kept inputs, {mutations} mutations"),
        Err(why) => panic!("{why}"),
    }
}

/// How many inputs a target was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tried {
    kept: usize,
    mutations: u64,
}

impl Tried {
    /// From what the process that runs a target has printed, see `one_target`. The test's framework may have begun the line.
    fn read(target: &str, said: &str) -> Option<Self> {
        let head = format!("{target}: ");
        said.lines().find_map(|line| {
            let (kept, rest) = line.split_once(&head)?.1.split_once(" kept inputs, ")?;
            let (mutations, _seed) = rest.split_once(" mutations ")?;
            Some(Self { kept: kept.parse().ok()?, mutations: mutations.parse().ok()? })
        })
    }

    /// Whether that is what a target must be given. One that ended early, with whatever status, was not.
    fn suffices(self, target: &str) -> Result<(), String> {
        let (kept, least) = (kept(target).len(), least(target));
        if self.kept == kept && self.mutations >= least {
            return Ok(());
        }
        Err(format!(
            "{target}: {self:?}, where there are {kept} kept inputs and {least} mutations are the least"
        ))
    }
}

/// The fewest mutations that a target must be given, however busy the machine is. An idle one makes eight times as many, and more.
fn least(target: &str) -> u64 {
    match target {
        // Each is a page, held against all claims.
        "page" => 8,
        _ => 200,
    }
}

/// Runs a target in a process of its own, in which no input may take longer than `hung`.
fn tried(target: &str, hung: Duration) -> Result<Tried, String> {
    let folder = targets::folder();
    let (input, output) = (folder.path().join("input"), folder.path().join("output"));
    let file = fs::File::create(&output).expect("a file");
    let mut child = Command::new(std::env::current_exe().expect("this test's program"))
        .args(["--exact", "one_target", "--ignored", "--nocapture"])
        .env(TARGET, target)
        .env(FOLDER, folder.path())
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("the file"))
        .stderr(file)
        .spawn()
        .expect("this test's program");
    let verdict = wait(&mut child, &input, hung);
    let said = fs::read_to_string(output).unwrap_or_default();
    verdict.map_err(|how| {
        let to = keep(target, &input);
        format!("{target}: {how}; the input is kept in {to}\n{said}")
    })?;
    let found = Tried::read(target, &said);
    let tried = found.ok_or_else(|| format!("{target}: it ended without a count of its inputs\n{said}"))?;
    tried.suffices(target)?;
    Ok(tried)
}

/// Waits for the process that runs a target; one whose input does not change any more is ended.
fn wait(child: &mut Child, input: &Path, hung: Duration) -> Result<(), String> {
    let started = SystemTime::now();
    loop {
        if let Some(status) = child.try_wait().expect("the process") {
            return if status.success() { Ok(()) } else { Err(format!("an input ended it with {status}")) };
        }
        let since = fs::metadata(input).and_then(|facts| facts.modified()).unwrap_or(started);
        if since.elapsed().is_ok_and(|age| age > hung) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("an input took longer than {hung:?}"));
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
    let mut all = targets::TARGETS.iter().chain(FAULTY);
    let (_, target) = all.find(|(known, _)| *known == name).expect("a target");
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
    while started.elapsed() < limit || made < least(&name) {
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

/// Targets that fail, each in its own way, which the guard must see.
const FAULTY: &[(&str, targets::Target)] = &[
    ("loops", |_| {
        loop {
            std::hint::spin_loop();
        }
    }),
    ("leaves", |_| std::process::exit(0)),
    ("overflows", |input| assert!(deep(input.len() as u64) > 0)),
];

/// An overflow of the stack, which is no panic.
fn deep(by: u64) -> u64 {
    if by == u64::MAX { 0 } else { std::hint::black_box(deep(std::hint::black_box(by + 1))) + 1 }
}

#[rstest]
#[case::endless("loops", Duration::from_secs(1), "loops: an input took longer than 1s; the input is kept in")]
#[case::none_tried("leaves", HUNG, "leaves: it ended without a count of its inputs")]
#[case::ended("overflows", HUNG, "overflows: an input ended it with signal: 6")]
fn a_target_that_fails_is_caught(#[case] target: &str, #[case] hung: Duration, #[case] words: &str) {
    let (started, why) = (Instant::now(), tried(target, hung).expect_err("a fault"));
    assert!(why.starts_with(words), "{why}");
    assert!(started.elapsed() < HUNG, "it was waited for");
    if let Some(kept) = why.split_once("kept in ").and_then(|(_, rest)| rest.lines().next()) {
        assert_eq!(fs::read(kept).expect("the input"), b"x");
        fs::remove_file(kept).expect("the input");
    }
}

#[rstest]
#[case::enough("page: ALL kept inputs, 8 mutations with seed 1", Some(true))]
#[case::behind_other_words("test one_target ... page: ALL kept inputs, 90 mutations with seed 1", Some(true))]
#[case::no_mutation("page: ALL kept inputs, 7 mutations with seed 1", Some(false))]
#[case::corpus_passed_over("page: 0 kept inputs, 90 mutations with seed 1", Some(false))]
#[case::another_targets("run: ALL kept inputs, 90 mutations with seed 1", None)]
#[case::nothing("test result: ok. 0 passed", None)]
fn too_few_inputs_are_a_failure(#[case] said: &str, #[case] good: Option<bool>) {
    let said = said.replace("ALL", &kept("page").len().to_string());
    assert_eq!(Tried::read("page", &said).map(|tried| tried.suffices("page").is_ok()), good);
}

/// The guard itself must see what it is there for.
#[rstest]
#[case::panic(|_: &[u8]| panic!("as a reader would"))]
#[case::memory(|_: &[u8]| drop(vec![0_u8; memory::LIMIT + 1]))]
fn a_reader_that_fails_is_noticed(#[case] target: targets::Target) {
    assert!(std::panic::catch_unwind(|| targets::give(target, b"x")).is_err());
}
