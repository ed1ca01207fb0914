//! The conformance run itself: a test per probe family and kernel of the matrix.
//!
//! `cargo test --workspace` boots each kernel once and every family's test looks at its part of the records. With a
//! name filter (`cargo test 6_12`, `cargo test hooks_on_7_3`) and under nextest, where each test is a process of its
//! own, only the family asked for is run. A machine that cannot boot a virtual machine fails here, with the remedy.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use harness::cli::{HostOptions, MachineOptions, Selection};
use harness::matrix::Matrix;
use harness::model::KernelRun;
use harness::progress::Progress;
use harness::snapshot::{Ci, Comparison, Known, Snapshot, assert::assert_unless_proposed, merge};
use harness::verbs::project::Project;
use harness::vmm::{AccelChoice, LauncherKind};
use probes::record::Record;
use probes::spec::family_of;
use rstest::rstest;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

include!(concat!(env!("OUT_DIR"), "/conformance.rs"));

/// What a kernel gave and what that is worth.
struct Judged {
    run: KernelRun,
    comparison: Comparison,
    known: Known,
}

/// The same, or why the kernel gave nothing; shared by the tests of one process.
type Slot = Arc<OnceLock<Result<Arc<Judged>, String>>>;

#[test]
fn every_row_and_every_family_has_its_tests() {
    let rows: Vec<&str> = matrix().rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(rows, KERNELS);
    let mut families: Vec<&str> = probes::families::FAMILIES.iter().map(|family| family.name).collect();
    families.sort_unstable();
    assert_eq!(families, FAMILIES);
}

fn project() -> &'static Project {
    static PROJECT: OnceLock<Project> = OnceLock::new();
    PROJECT.get_or_init(|| {
        let mut project = Project::find(None).unwrap();
        project.program = env!("CARGO_BIN_EXE_conform").into();
        project
    })
}

fn matrix() -> &'static Matrix {
    static MATRIX: OnceLock<Matrix> = OnceLock::new();
    MATRIX.get_or_init(|| project().matrix().unwrap())
}

/// All snapshots: to read them takes seconds here, and no test of this process changes any.
fn snapshots() -> &'static BTreeMap<String, Snapshot> {
    static SNAPSHOTS: OnceLock<BTreeMap<String, Snapshot>> = OnceLock::new();
    SNAPSHOTS.get_or_init(|| project().store().load_all().unwrap())
}

/// Whether this process was asked for some tests only.
fn filtered() -> bool {
    std::env::args().skip(1).any(|word| !word.starts_with('-')) || std::env::var_os("NEXTEST").is_some()
}

fn check(family: &str, kernel: &str) {
    let judged = if filtered() { judged(kernel, Some(family)) } else { judged_once(kernel) };
    let judged = judged
        .unwrap_or_else(|why| panic!("{kernel} could not be run: {why}\ncargo conform doctor says more"));
    let mine: Vec<&Record> =
        judged.run.records.iter().filter(|record| family_of(&record.probe) == family).collect();
    assert!(!mine.is_empty(), "no probe of the family {family} ran on {kernel}");
    let found = messages(&judged, &mine);
    let folder = folder(kernel, filtered().then_some(family));
    propose(&judged, family, &folder);
    if found.is_empty() {
        agree_with_insta(kernel, &mine, &judged.known);
        return;
    }
    panic!("{}\n\nwith accept, name these records: --run-dir {}", found.join("\n\n"), folder.display());
}

/// The records of a kernel and, where one is asked for alone, a family: nobody else writes there.
fn folder(kernel: &str, family: Option<&str>) -> PathBuf {
    project().work_folder().join("tests").join(family.unwrap_or("all")).join(kernel)
}

/// What is to be said of these records, and of nothing else.
fn messages(judged: &Judged, records: &[&Record]) -> Vec<String> {
    let mine: BTreeSet<&str> = records.iter().map(|record| record.probe.as_str()).collect();
    let cells = judged.comparison.cells.iter().filter(|cell| mine.contains(cell.probe.as_str()));
    cells.filter_map(|cell| cell.message(&judged.known.matrix, false)).collect()
}

/// Leaves what differs from the snapshots where `cargo insta review` finds it, and takes back what this kernel had there and
/// gives no more.
fn propose(judged: &Judged, family: &str, folder: &Path) {
    if Ci::from_env() == Ci::Yes {
        return;
    }
    let mut run = judged.run.clone();
    run.records.retain(|record| family_of(&record.probe) == family);
    let seen = (&judged.comparison, folder);
    harness::verbs::propose_rows(project(), vec![run], &judged.known, seen, &Progress::silent()).unwrap();
}

/// Lets insta agree where nothing differs. A snapshot that it has agreed with once, and that this kernel's record leaves
/// as it is, is not written out for it again: that took longer than to compare.
fn agree_with_insta(kernel: &str, records: &[&Record], known: &Known) {
    static AGREED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    for record in records {
        let old = snapshots().get(&record.probe);
        let part = [(kernel.to_owned(), harness::normalize::normalize(record))];
        let whole = merge(old, &record.probe, &part, known);
        let agreed = || AGREED.lock().unwrap_or_else(PoisonError::into_inner);
        if old == Some(&whole) && agreed().contains(&record.probe) {
            continue;
        }
        let agree = || {
            assert_unless_proposed(&project().root.join("snapshots"), &whole).unwrap();
        };
        harness::verbs::while_nobody_proposes(project(), agree).unwrap();
        agreed().insert(record.probe.clone());
    }
}

fn judged_once(kernel: &str) -> Result<Arc<Judged>, String> {
    static RUNS: Mutex<BTreeMap<String, Slot>> = Mutex::new(BTreeMap::new());
    let slot =
        Arc::clone(RUNS.lock().unwrap_or_else(PoisonError::into_inner).entry(kernel.to_owned()).or_default());
    slot.get_or_init(|| judged(kernel, None)).clone()
}

fn judged(kernel: &str, family: Option<&str>) -> Result<Arc<Judged>, String> {
    let run = boot(kernel, family)?;
    if let Some(why) = run.failure {
        return Err(why);
    }
    let runs = std::slice::from_ref(&run);
    let (comparison, known) =
        harness::verbs::compare_with(snapshots(), matrix(), runs).map_err(|failure| failure.to_string())?;
    Ok(Arc::new(Judged { run, comparison, known }))
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
        apart: false,
        bring: None,
    };
    let folder = folder(kernel, family);
    let progress = Progress::stderr();
    let finished = harness::verbs::prepare_and_run(project(), &selection, &options, &folder, &progress)
        .map_err(|failure| failure.to_string())?;
    finished.runs.into_iter().next().ok_or_else(|| "no run".to_owned())
}
