//! What a run leaves for the snapshots: proposals, or with `--accept` the snapshots themselves.
//!
//! A pending file does not say by which guest its records were made, and `cargo insta accept` asks nobody. So that is noted
//! beside the run folders, and the proposals of another guest go before one of this guest comes.

use super::cannot;
use super::folder::holder;
use super::manifest::Manifest;
use super::options::not_for_snapshots;
use super::project::{Project, known};
use crate::cli::MachineOptions;
use crate::exit::{self, Failure};
use crate::interrupt;
use crate::matrix::Matrix;
use crate::model::KernelRun;
use crate::progress::Progress;
use crate::report::counted;
use crate::snapshot::{Comparison, Known, SnapshotError, Store, Verdict};
use crate::text;
use crate::whole::{self, Readers};
use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The file that has the digest of the guest whose records are proposed.
const PROPOSED_BY: &str = "proposed-by";
/// The file that who proposes has locked.
const PROPOSING: &str = "proposing";
/// How long who proposes is waited for, which takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at whether it is over.
const PAUSE: Duration = Duration::from_millis(20);

/// What a signal that ends the accepting of snapshots has this program say.
pub(super) const PARTING: &str = "what is said to be accepted is written, and all else is what it was";

/// Those of the records that may become snapshots, and what is left out of each kernel, a sentence each: only rows have
/// snapshots, and not of the hidden family.
pub(super) fn for_snapshots(runs: &[KernelRun], known: &Known) -> (Vec<KernelRun>, Vec<(String, String)>) {
    let (mut rows, mut left_out) = (Vec::new(), Vec::new());
    for run in runs {
        if !known.matrix.contains(&run.kernel) {
            let why = "left out: it is no row of the matrix, and only rows have snapshots";
            left_out.push((run.kernel.clone(), why.to_owned()));
            continue;
        }
        let mut row = run.clone();
        row.records.retain(|record| known.questions.contains_key(&record.probe));
        if let Some(first) = run.records.iter().find(|it| !known.questions.contains_key(&it.probe)) {
            let count = run.records.len() - row.records.len();
            let why = format!(
                "left out: {} of probes that have no snapshots, such as {}",
                counted(count, "record"),
                first.probe
            );
            left_out.push((run.kernel.clone(), why));
        }
        rows.push(row);
    }
    (rows, left_out)
}

/// Has `change` tell of each snapshot that it has accepted, and says how many there were, also when it was broken off.
pub(super) fn tell_each(
    say: impl Fn(&str),
    change: impl FnOnce(&mut dyn FnMut(&str)) -> Result<(), SnapshotError>,
) -> Result<(), Failure> {
    let mut changed = 0;
    let ended = change(&mut |probe| {
        say(&format!("accepted {probe}"));
        changed += 1;
    });
    say(&format!("{} changed", counted(changed, "snapshot file")));
    Ok(ended?)
}

/// Accepts what was recorded, after the run's report, which may be for programs: it is told beside that.
pub(super) fn accept(
    project: &Project,
    matrix: &Matrix,
    runs: &[KernelRun],
    folder: &Path,
    progress: &Progress,
) -> Result<(), Failure> {
    interrupt::say_in_parting(PARTING);
    let _held = of_this_guest(project, Manifest::read(folder)?.guest(), progress)?;
    let known = known(matrix, &project.dynamic_ids()?, runs);
    let (rows, _) = for_snapshots(runs, &known);
    let store = project.store();
    tell_each(
        |text| progress.say("accept", text),
        |tell| store.accept_each(&rows, &known, false, |_, _| true, tell),
    )
}

/// Writes what differs where `cargo insta review` finds it, and takes back what was proposed before and differs no more; but
/// nothing of what was recorded on another than the usual machine.
pub(super) fn propose(
    project: &Project,
    matrix: &Matrix,
    runs: &[KernelRun],
    (comparison, folder): (&Comparison, &Path),
    options: &MachineOptions,
    progress: &Progress,
) -> Result<(), Failure> {
    if let Some(why) = not_for_snapshots(options) {
        if !comparison.all_matched() {
            progress.say("snapshots", &format!("nothing is proposed, because of {why}"));
        }
        return Ok(());
    }
    let known = known(matrix, &project.dynamic_ids()?, runs);
    let (rows, _) = for_snapshots(runs, &known);
    propose_rows(project, rows, &known, (comparison, folder), progress)
}

/// Proposes what records of rows of the matrix, which are in `folder`, differ in, and takes back what they did before.
///
/// # Errors
/// When a file cannot be read or written, or `CI` is set and something would have to be written.
pub fn propose_rows(
    project: &Project,
    mut rows: Vec<KernelRun>,
    known: &Known,
    (comparison, folder): (&Comparison, &Path),
    progress: &Progress,
) -> Result<(), Failure> {
    let store = project.store();
    let _held = of_this_guest(project, Manifest::read(folder)?.guest(), progress)?;
    let concerned = concerned(&store, comparison)?;
    for run in &mut rows {
        run.records.retain(|record| concerned.contains(&record.probe));
    }
    store.propose(&rows, known)?;
    Ok(())
}

/// The probes of which something is to be proposed or taken back: to read the snapshots of all takes longer than to run one.
fn concerned(store: &Store, comparison: &Comparison) -> Result<BTreeSet<String>, SnapshotError> {
    let mut concerned: BTreeSet<String> = store.pending()?.into_iter().collect();
    let open = comparison.cells.iter().filter(|cell| cell.verdict != Verdict::Matched);
    concerned.extend(open.map(|cell| cell.probe.clone()));
    Ok(concerned)
}

/// Keeps others from proposing until the result is dropped, and leaves no proposal but those of this guest.
pub(super) fn of_this_guest(project: &Project, guest: &str, progress: &Progress) -> Result<Held, Failure> {
    let held = hold(&project.work_folder(), PATIENCE, progress)?;
    let withdrawn = withdraw_of_others(&project.store(), &project.work_folder(), guest)?;
    if withdrawn > 0 {
        let what = counted(withdrawn, "proposal");
        progress.say("snapshots", &format!("withdrawn, since another guest has made them: {what}"));
    }
    Ok(held)
}

/// Gives how many proposals of other guests than this there were.
fn withdraw_of_others(store: &Store, work: &Path, guest: &str) -> Result<usize, Failure> {
    let note = work.join(PROPOSED_BY);
    if text::read(&note, text::WRITTEN).is_ok_and(|was| was == guest) {
        return Ok(0);
    }
    let withdrawn = store.withdraw_all()?;
    whole::write(&note, Readers::Owner, |file| file.write_all(guest.as_bytes()))
        .map_err(|error| cannot("write", &note, &error))?;
    Ok(withdrawn)
}

/// Does something while no other program, and no other thread of this one, proposes anything.
///
/// # Errors
/// Infrastructure, when the lock cannot be had.
pub fn while_nobody_proposes<T>(project: &Project, act: impl FnOnce() -> T) -> Result<T, Failure> {
    let _held = hold(&project.work_folder(), PATIENCE, &Progress::silent())?;
    Ok(act())
}

/// Keeps others from proposing until it is dropped.
pub(super) struct Held {
    _file: File,
    _thread: MutexGuard<'static, ()>,
}

/// Waits until nobody else proposes. Another program is waited for as long as `patience`; another thread of this one has no
/// deadline of its own here, since it waits for other programs alone, and so no longer than that.
fn hold(work: &Path, patience: Duration, progress: &Progress) -> Result<Held, Failure> {
    static ONE_THREAD: Mutex<()> = Mutex::new(());
    let thread = ONE_THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    std::fs::create_dir_all(work).map_err(|error| cannot("make", work, &error))?;
    let path = work.join(PROPOSING);
    let file = File::options().create(true).append(true).open(&path);
    let file = file.map_err(|error| cannot("open", &path, &error))?;
    let who = || holder(&file).unwrap_or_else(|| "another program".to_owned());
    let begun = Instant::now();
    let mut said = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Held { _file: file, _thread: thread }),
            Err(TryLockError::Error(error)) => return Err(cannot("lock", &path, &error)),
            Err(TryLockError::WouldBlock) if begun.elapsed() < patience => {
                if !std::mem::replace(&mut said, true) {
                    progress.say("snapshots", &format!("waiting for {}, which proposes some", who()));
                }
                std::thread::sleep(PAUSE);
            }
            Err(TryLockError::WouldBlock) => {
                let why = anyhow::anyhow!(
                    "{} has been proposing snapshots for {} s and has {} locked; end it and run again",
                    who(),
                    patience.as_secs(),
                    path.display()
                );
                return Err(Failure::new(exit::INFRASTRUCTURE, why));
            }
        }
    }
}

/// What is still to be seen to after everything has been accepted.
pub(super) fn left_over(comparison: &Comparison) -> String {
    let names = ["different", "missing", "not-compared", "stale"];
    let count = |name: &str| comparison.cells.iter().filter(|cell| cell.verdict.name() == name).count();
    let parts: Vec<String> = names
        .iter()
        .filter(|name| count(name) > 0)
        .map(|name| format!("{} {}", count(name), name.replace('-', " ")))
        .collect();
    format!("not everything could be accepted, and is left: {}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Cell, Ci};
    use probes::record::{Outcome, Record};
    use std::cell::RefCell;

    fn run(kernel: &str, probe: &str, why: &str) -> KernelRun {
        let outcome = Outcome::CouldNotTell { why: why.to_owned() };
        KernelRun {
            kernel: kernel.into(),
            records: vec![Record { outcome, ..Record::not_run(probe, "") }],
            ..KernelRun::default()
        }
    }

    fn known() -> Known {
        Known::new(&["6.1".to_owned(), "7.3".to_owned()], [("a/b", "Why?"), ("a/c", "Why?")])
    }

    #[test]
    fn what_could_not_be_accepted_is_counted_by_its_verdict() {
        let cell = |verdict| Cell { probe: "a/b".into(), kernel: "bzImage".into(), verdict };
        let cells = vec![
            cell(Verdict::Matched),
            cell(Verdict::Different { diff: String::new() }),
            cell(Verdict::NotCompared { why: String::new() }),
        ];
        let text = left_over(&Comparison { cells });
        assert!(text.ends_with("is left: 1 different, 1 not compared"), "{text}");
    }

    #[test]
    fn images_and_the_hidden_family_are_left_out_with_a_word() {
        let mut row = run("6.1", "a/b", "one");
        row.records.push(Record::not_run("selftest/hang", ""));
        let (rows, left_out) = for_snapshots(&[row, run("mine", "a/b", "one")], &known());
        let ids: Vec<_> =
            rows.iter().map(|run| (run.kernel.as_str(), run.records[0].probe.as_str())).collect();
        assert_eq!((ids.as_slice(), rows[0].records.len()), ([("6.1", "a/b")].as_slice(), 1));
        let [(one, hidden), (other, image)] = left_out.as_slice() else { panic!("{left_out:?}") };
        assert_eq!((one.as_str(), other.as_str()), ("6.1", "mine"));
        assert!(
            hidden.contains("1 record of probes that have no snapshots, such as selftest/hang"),
            "{hidden}"
        );
        assert!(image.contains("no row of the matrix"), "{image}");
    }

    /// A run in which all matches has no difference to show, and a proposal to take back.
    #[test]
    fn a_probe_that_matches_is_looked_at_where_it_has_a_proposal() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), Ci::No);
        store.accept_runs(&[run("6.1", "a/b", "one")], &known(), false, |_, _| true).unwrap();
        let cell = |probe: &str, verdict| Cell { probe: probe.into(), kernel: "6.1".into(), verdict };
        let matched =
            Comparison { cells: vec![cell("a/b", Verdict::Matched), cell("a/c", Verdict::Matched)] };
        assert_eq!(concerned(&store, &matched).unwrap(), BTreeSet::new());
        store.propose(&[run("6.1", "a/b", "other")], &known()).unwrap();
        assert_eq!(concerned(&store, &matched).unwrap(), ["a/b".to_owned()].into());
        let missing = Comparison { cells: vec![cell("a/c", Verdict::Missing)] };
        assert_eq!(concerned(&store, &missing).unwrap().len(), 2);
    }

    #[test]
    fn proposals_of_another_guest_are_withdrawn() {
        let folder = tempfile::tempdir().unwrap();
        let (store, work) = (Store::new(folder.path().join("s"), Ci::No), folder.path());
        let propose = |kernel: &str, guest: &str| {
            let withdrawn = withdraw_of_others(&store, work, guest).unwrap();
            store.propose(&[run(kernel, "a/b", "one")], &known()).unwrap();
            withdrawn
        };
        let kernels = || {
            let pending = store.load_pending("a/b").unwrap().unwrap();
            pending.kernels().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!((propose("6.1", "g"), propose("7.3", "g")), (0, 0));
        assert_eq!(kernels(), ["6.1", "7.3"]);
        assert_eq!(propose("7.3", "h"), 1);
        assert_eq!(kernels(), ["7.3"]);
        // Nobody knows whose they are.
        std::fs::remove_file(work.join(PROPOSED_BY)).unwrap();
        assert_eq!(propose("6.1", "h"), 1);
        assert_eq!(kernels(), ["6.1"]);
    }

    #[test]
    fn another_run_that_proposes_is_waited_for_and_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let other = File::create(folder.path().join(PROPOSING)).unwrap();
        other.lock().unwrap();
        let silent = Progress::silent();
        let failure = hold(folder.path(), PAUSE, &silent).err().unwrap();
        assert_eq!(failure.code, exit::INFRASTRUCTURE);
        let me = format!("process {} (", std::process::id());
        assert!(failure.to_string().starts_with(&me), "{failure}");
        assert!(failure.to_string().contains("has been proposing"), "{failure}");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(PAUSE);
                drop(other);
            });
            hold(folder.path(), PATIENCE, &silent).unwrap();
        });
    }

    #[test]
    fn what_was_accepted_is_told_and_counted_also_when_something_fails() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), Ci::No);
        std::fs::create_dir_all(folder.path().join("a/c.snap")).unwrap();
        let runs = [run("6.1", "a/b", "one"), run("6.1", "a/c", "one")];
        let said = RefCell::new(Vec::new());
        let ended = tell_each(
            |text| said.borrow_mut().push(text.to_owned()),
            |tell| store.accept_each(&runs, &known(), false, |_, _| true, tell),
        );
        assert!(ended.unwrap_err().to_string().contains("c.snap"));
        assert_eq!(said.into_inner(), ["accepted a/b", "1 snapshot file changed"]);
    }
}
