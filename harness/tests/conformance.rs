//! The conformance run itself: a test per probe family and kernel of the matrix.
//!
//! `cargo test --workspace` boots each kernel once and every family's test looks at its part of the records. With a
//! name filter (`cargo test 6_12`, `cargo test hooks_on_7_3`) and under nextest, where each test is a process of its
//! own, only the family asked for is run. A machine that cannot boot a virtual machine fails here, with the remedy.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use harness::cli::{HostOptions, MachineOptions, Selection};
use harness::model::KernelRun;
use harness::progress::Progress;
use harness::snapshot::{Ci, Comparison, Known, Store, assert::assert_snapshot, merge};
use harness::verbs::project::Project;
use harness::vmm::{AccelChoice, LauncherKind};
use probes::spec::family_of;
use rstest::rstest;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

include!(concat!(env!("OUT_DIR"), "/conformance.rs"));

/// What a kernel gave and what that is worth, or why it gave nothing; shared by the tests of one process: to read all
/// snapshots for each of them took a quarter of their time.
type Shared = Arc<OnceLock<Result<(KernelRun, Comparison), String>>>;

#[test]
fn every_row_and_every_family_has_its_tests() {
    let matrix = project().matrix().unwrap();
    let rows: Vec<&str> = matrix.rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(rows, KERNELS);
    let mut families: Vec<&str> = probes::families::FAMILIES.iter().map(|family| family.name).collect();
    families.sort_unstable();
    assert_eq!(families, FAMILIES);
}

fn project() -> Project {
    let mut project = Project::find(None).unwrap();
    project.program = env!("CARGO_BIN_EXE_conform").into();
    project
}

/// Whether this process was asked for some tests only.
fn filtered() -> bool {
    std::env::args().skip(1).any(|word| !word.starts_with('-')) || std::env::var_os("NEXTEST").is_some()
}

fn check(family: &str, kernel: &str) {
    let judged = if filtered() { judged(kernel, Some(family)) } else { judged_once(kernel) };
    let (mut run, comparison) = judged
        .unwrap_or_else(|why| panic!("{kernel} could not be run: {why}\ncargo conform doctor says more"));
    run.records.retain(|record| family_of(&record.probe) == family);
    assert!(!run.records.is_empty(), "no probe of the family {family} ran on {kernel}");
    agree(&run, &comparison, family);
}

/// The records of a kernel and, where one is asked for alone, a family: nobody else writes there.
fn folder(kernel: &str, family: Option<&str>) -> PathBuf {
    project().work_folder().join("tests").join(family.unwrap_or("all")).join(kernel)
}

/// Leaves what differs from the snapshots where `cargo insta review` finds it, and lets insta agree where nothing does.
fn agree(run: &KernelRun, comparison: &Comparison, family: &str) {
    let project = project();
    let matrix = project.matrix().unwrap();
    let known = harness::verbs::project::known(&matrix, dynamic_ids(), std::slice::from_ref(run));
    let mine = messages(comparison, run);
    if !mine.is_empty() {
        if Ci::from_env() == Ci::No {
            static ONE_WRITER: Mutex<()> = Mutex::new(());
            let _guard = ONE_WRITER.lock().unwrap_or_else(PoisonError::into_inner);
            project.store().propose(std::slice::from_ref(run), &known).unwrap();
        }
        let folder = folder(&run.kernel, filtered().then_some(family));
        panic!("{}\n\nwith accept, name these records: --run-dir {}", mine.join("\n\n"), folder.display());
    }
    agree_with_insta(&project.store(), &known, run);
}

/// The probes that only a kernel makes, by the snapshots.
fn dynamic_ids() -> &'static [String] {
    static IDS: OnceLock<Vec<String>> = OnceLock::new();
    IDS.get_or_init(|| project().dynamic_ids().unwrap())
}

fn messages(comparison: &Comparison, run: &KernelRun) -> Vec<String> {
    let of_run = |probe: &str| run.records.iter().any(|record| record.probe == probe);
    comparison
        .cells
        .iter()
        .filter(|cell| of_run(&cell.probe))
        .filter_map(|cell| cell.message(false))
        .collect()
}

fn agree_with_insta(store: &Store, known: &Known, run: &KernelRun) {
    for record in &run.records {
        let old = store.load(&record.probe).unwrap();
        let part = [(run.kernel.clone(), harness::normalize::normalize(record))];
        let whole = merge(old.as_ref(), &record.probe, &part, known);
        assert_snapshot(&project().root.join("snapshots"), &whole).unwrap();
    }
}

fn judged_once(kernel: &str) -> Result<(KernelRun, Comparison), String> {
    static RUNS: Mutex<BTreeMap<String, Shared>> = Mutex::new(BTreeMap::new());
    let slot =
        Arc::clone(RUNS.lock().unwrap_or_else(PoisonError::into_inner).entry(kernel.to_owned()).or_default());
    slot.get_or_init(|| judged(kernel, None)).clone()
}

fn judged(kernel: &str, family: Option<&str>) -> Result<(KernelRun, Comparison), String> {
    let run = boot(kernel, family)?;
    if let Some(why) = run.failure {
        return Err(why);
    }
    let project = project();
    let matrix = project.matrix().unwrap();
    let comparison = harness::verbs::compare_with_rows(&project, &matrix, std::slice::from_ref(&run));
    Ok((run, comparison.map_err(|failure| failure.to_string())?))
}

fn boot(kernel: &str, family: Option<&str>) -> Result<KernelRun, String> {
    let selection = Selection {
        kernels: vec![kernel.to_owned()],
        probes: family.iter().map(|family| format!("{family}/*")).collect(),
        shard: None,
    };
    let options = MachineOptions {
        host: HostOptions {
            jobs: Some(1),
            vmm: LauncherKind::VirtmeNg,
            accel: AccelChoice::Auto,
            offline: false,
        },
        deadline: None,
        patience: 100,
        lsm: None,
        cold: false,
        cpus: 1,
        shuffle: None,
        bring: None,
    };
    let folder = folder(kernel, family);
    let progress = Progress::stderr();
    let finished = harness::verbs::prepare_and_run(&project(), &selection, &options, &folder, &progress)
        .map_err(|failure| failure.to_string())?;
    finished.runs.into_iter().next().ok_or_else(|| "no run".to_owned())
}
