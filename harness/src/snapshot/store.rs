//! The snapshot folder: reading files, proposing changes as insta's pending files, accepting them.
//!
//! A pending file `<name>.snap.new` holds the whole snapshot as it would become, so `cargo insta review` shows the
//! change and accepts it by renaming; [`Store::accept_pending`] does the same without questions. Nothing is ever
//! written where `CI` is set. Every file is written beside its place and renamed.

use super::compare::{by_probe, is_gone};
use super::merge::{all_say_the_same, left_behind};
use super::{Ci, Known, Snapshot, SnapshotError, leave_behind, merge, parse, render};
use crate::model::KernelRun;
use crate::normalize::Normal;
use crate::text;
use crate::whole::{self, Readers};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The snapshot folder.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    ci: Ci,
}

impl Store {
    /// The folder `root`, which need not exist yet.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>, ci: Ci) -> Self {
        Self { root: root.into(), ci }
    }

    /// The file of a probe's snapshot.
    ///
    /// # Errors
    /// [`SnapshotError::BadId`] for an id that could name a file elsewhere.
    pub fn path(&self, probe: &str) -> Result<PathBuf, SnapshotError> {
        let good = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !part.is_empty() && !part.starts_with('.') && part.chars().all(plain)
        };
        if probe.contains('/') && probe.split('/').all(good) {
            Ok(self.root.join(format!("{probe}.snap")))
        } else {
            Err(SnapshotError::BadId { id: probe.to_owned() })
        }
    }

    fn pending_path(&self, probe: &str) -> Result<PathBuf, SnapshotError> {
        Ok(self.path(probe)?.with_added_extension("new"))
    }

    /// A probe's snapshot, if there is one.
    ///
    /// # Errors
    /// When the file cannot be read, is no snapshot, or is another probe's than its path says.
    pub fn load(&self, probe: &str) -> Result<Option<Snapshot>, SnapshotError> {
        of_probe(probe, &self.path(probe)?)
    }

    /// What was proposed for a probe and not yet accepted.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_pending(&self, probe: &str) -> Result<Option<Snapshot>, SnapshotError> {
        of_probe(probe, &self.pending_path(probe)?)
    }

    /// All snapshots, by probe id.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_all(&self) -> Result<BTreeMap<String, Snapshot>, SnapshotError> {
        let mut found = BTreeMap::new();
        for id in self.ids()? {
            if let Some(snapshot) = self.load(&id)? {
                found.insert(id, snapshot);
            }
        }
        Ok(found)
    }

    /// The ids of the probes that have a snapshot.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn ids(&self) -> Result<Vec<String>, SnapshotError> {
        let id = |path: PathBuf| {
            let relative = path.strip_prefix(&self.root).ok()?.to_str()?;
            relative.strip_suffix(".snap").map(str::to_owned)
        };
        Ok(self.files(".snap")?.into_iter().filter_map(id).collect())
    }

    /// The ids of the probes that have a pending file.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn pending(&self) -> Result<Vec<String>, SnapshotError> {
        let id = |path: PathBuf| {
            let relative = path.strip_prefix(&self.root).ok()?.to_str()?;
            relative.strip_suffix(".snap.new").map(str::to_owned)
        };
        Ok(self.files(".snap.new")?.into_iter().filter_map(id).collect())
    }

    /// Files below the folder whose name ends so, sorted.
    fn files(&self, suffix: &str) -> Result<Vec<PathBuf>, SnapshotError> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            let io = |source| SnapshotError::Io { action: "read", path: folder.clone(), source };
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => continue,
                Err(problem) => return Err(io(problem)),
            };
            for entry in entries {
                let entry = entry.map_err(io)?;
                if entry.file_type().map_err(io)?.is_dir() {
                    folders.push(entry.path());
                } else if entry.file_name().to_string_lossy().ends_with(suffix) {
                    found.push(entry.path());
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Writes, for every probe of the runs, what its snapshot would become, as a pending file; removes a pending
    /// file that has nothing left to propose. Gives the ids with a pending file.
    ///
    /// What earlier runs proposed for other kernels stays proposed.
    ///
    /// # Errors
    /// When a file cannot be read or written, or `CI` is set and something would have to be written.
    pub fn propose(&self, runs: &[KernelRun], known: &Known) -> Result<Vec<String>, SnapshotError> {
        let mut proposed = Vec::new();
        for (probe, part) in by_probe(runs) {
            let accepted = self.load(&probe)?;
            let base = self.load_pending(&probe)?.or_else(|| accepted.clone());
            let next = merge(base.as_ref(), &probe, &part, known);
            if accepted.is_some_and(|accepted| all_say_the_same(&accepted, &next)) {
                self.remove(&self.pending_path(&probe)?)?;
            } else {
                self.write(&self.pending_path(&probe)?, &render(&next)?)?;
                proposed.push(probe);
            }
        }
        Ok(proposed)
    }

    /// Accepts what was proposed for the probes that `wanted` takes. Gives their ids.
    ///
    /// # Errors
    /// When a pending file is no snapshot, a file cannot be written, or `CI` is set.
    pub fn accept_pending(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, SnapshotError> {
        let mut accepted = Vec::new();
        for probe in self.pending()?.into_iter().filter(|probe| wanted(probe)) {
            if let Some(snapshot) = self.load_pending(&probe)? {
                self.write(&self.path(&probe)?, &render(&snapshot)?)?;
                self.remove(&self.pending_path(&probe)?)?;
                accepted.push(probe);
            }
        }
        Ok(accepted)
    }

    /// As [`Store::accept_each`]; gives the ids of the probes whose file changed.
    ///
    /// # Errors
    /// As there.
    pub fn accept_runs(
        &self,
        runs: &[KernelRun],
        known: &Known,
        revised: bool,
        wanted: impl Fn(&str, &str) -> bool,
    ) -> Result<Vec<String>, SnapshotError> {
        let mut changed = Vec::new();
        self.accept_each(runs, known, revised, wanted, |probe| changed.push(probe.to_owned()))?;
        Ok(changed)
    }

    /// Puts what runs gave into the snapshots, for the probes and kernels that `wanted` takes; with `revised` what did not
    /// run is marked as [`leave_behind`] has it. `changed` is told of each probe whose file has changed, as soon as it has.
    /// Pending files of these probes go, but for what they propose for other kernels.
    ///
    /// # Errors
    /// When a file cannot be read or written, or `CI` is set and something would have to be written.
    pub fn accept_each(
        &self,
        runs: &[KernelRun],
        known: &Known,
        revised: bool,
        wanted: impl Fn(&str, &str) -> bool,
        mut changed: impl FnMut(&str),
    ) -> Result<(), SnapshotError> {
        for (probe, mut part) in by_probe(runs) {
            part.retain(|(kernel, _)| wanted(&probe, kernel));
            if part.is_empty() {
                continue;
            }
            self.accept_part(&probe, &part, known, revised, &mut changed)?;
        }
        Ok(())
    }

    fn accept_part(
        &self,
        probe: &str,
        part: &[(String, Normal)],
        known: &Known,
        revised: bool,
        changed: &mut impl FnMut(&str),
    ) -> Result<(), SnapshotError> {
        let path = self.path(probe)?;
        let old = read_text(&path)?;
        let before = old.as_deref().map(|text| parse(&path, text)).transpose()?;
        let mut next = merge(before.as_ref(), probe, part, known);
        if let Some(before) = before.as_ref().filter(|_| revised) {
            leave_behind(&mut next, before, part);
        }
        let text = render(&next)?;
        if old.as_deref() != Some(text.as_str()) {
            self.write(&path, &text)?;
            // Before anything else can fail: it is written.
            changed(probe);
        }
        let pending = self.pending_path(probe)?;
        if let Some(proposal) = of_probe(probe, &pending)? {
            let mut left = merge(Some(&proposal), probe, part, known);
            left.behind = left_behind(&proposal, before.as_ref(), &next);
            if all_say_the_same(&left, &next) {
                self.remove(&pending)?;
            } else {
                self.write(&pending, &render(&left)?)?;
            }
        }
        Ok(())
    }

    /// Removes every pending file. Gives how many there were.
    ///
    /// # Errors
    /// When the folder cannot be read, a file cannot be removed, or `CI` is set and one would have to be.
    pub fn withdraw_all(&self) -> Result<usize, SnapshotError> {
        let files = self.files(".snap.new")?;
        files.iter().try_for_each(|file| self.remove(file))?;
        Ok(files.len())
    }

    /// Removes from all snapshots what is stale: files of probes that do not exist, parts of kernels that are not
    /// in the matrix. `pruned` is told of each probe concerned.
    ///
    /// # Errors
    /// When a file cannot be read or written, or `CI` is set and something would have to be written.
    pub fn prune_each(
        &self,
        known: &Known,
        wanted: impl Fn(&str) -> bool,
        mut pruned: impl FnMut(&str),
    ) -> Result<(), SnapshotError> {
        for (probe, mut snapshot) in self.load_all()?.into_iter().filter(|(probe, _)| wanted(probe)) {
            let before = snapshot.observed.len();
            snapshot.observed.retain(|(kernel, _)| known.matrix.contains(kernel));
            if !known.questions.contains_key(&probe)
                || snapshot.observed.is_empty()
                || is_gone(&snapshot, &[], known)
            {
                self.remove(&self.path(&probe)?)?;
            } else if snapshot.observed.len() < before {
                let left = merge(Some(&snapshot), &probe, &[], known);
                self.write(&self.path(&probe)?, &render(&left)?)?;
            } else {
                continue;
            }
            pruned(&probe);
        }
        Ok(())
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), SnapshotError> {
        self.may_write(path)?;
        let io = |source| SnapshotError::Io { action: "write", path: path.to_owned(), source };
        let folder = path.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(folder).map_err(io)?;
        whole::write(path, Readers::All, |file| file.write_all(text.as_bytes())).map_err(io)
    }

    fn remove(&self, path: &Path) -> Result<(), SnapshotError> {
        if !path.exists() {
            return Ok(());
        }
        self.may_write(path)?;
        std::fs::remove_file(path).map_err(|source| SnapshotError::Io {
            action: "remove",
            path: path.to_owned(),
            source,
        })
    }

    fn may_write(&self, path: &Path) -> Result<(), SnapshotError> {
        match self.ci {
            Ci::No => Ok(()),
            Ci::Yes => Err(SnapshotError::Ci { path: path.to_owned() }),
        }
    }
}

fn read_text(path: &Path) -> Result<Option<String>, SnapshotError> {
    match text::read(path, text::WRITTEN) {
        Ok(text) => Ok(Some(text)),
        Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SnapshotError::Io { action: "read", path: path.to_owned(), source }),
    }
}

/// The snapshot in `path`, which is the file of `probe`.
fn of_probe(probe: &str, path: &Path) -> Result<Option<Snapshot>, SnapshotError> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    let snapshot = parse(path, &text)?;
    if snapshot.probe == probe {
        return Ok(Some(snapshot));
    }
    let problem = format!("the snapshot of {:?} belongs into the file of that name", snapshot.probe);
    Err(SnapshotError::Parse { path: path.to_owned(), line: 1, problem })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::made_up::names;
    use probes::record::{Outcome, Record};
    use rstest::rstest;

    fn pruned(store: &Store, known: &Known) -> Vec<String> {
        let mut pruned = Vec::new();
        store.prune_each(known, |_| true, |probe| pruned.push(probe.to_owned())).unwrap();
        pruned
    }

    fn run(kernel: &str, why: &str) -> KernelRun {
        let outcome = Outcome::CouldNotTell { why: why.to_owned() };
        KernelRun {
            kernel: kernel.to_owned(),
            records: vec![Record { outcome, ..Record::not_run("a/b", "") }],
            ..KernelRun::default()
        }
    }

    fn known() -> Known {
        Known::new(&names(&["5.10", "6.1"]), [("a/b", "Why?")])
    }

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), Ci::No);
        (folder, store)
    }

    #[rstest]
    #[case("a/b", true)]
    #[case("a/b.c_d-9", true)]
    #[case("a", false)]
    #[case("../b", false)]
    #[case("/etc/b", false)]
    #[case("a/b c", false)]
    #[case("a//b", false)]
    fn only_plain_ids_name_files(#[case] id: &str, #[case] good: bool) {
        assert_eq!(Store::new("snapshots", Ci::No).path(id).is_ok(), good);
    }

    #[test]
    fn a_proposal_is_accepted() {
        let (folder, store) = store();
        assert_eq!(store.propose(&[run("6.1", "one")], &known()).unwrap(), ["a/b"]);
        assert_eq!(store.load("a/b").unwrap(), None);
        assert_eq!(store.pending().unwrap(), ["a/b"]);
        assert_eq!(store.accept_pending(|_| true).unwrap(), ["a/b"]);
        assert!(store.load("a/b").unwrap().is_some());
        assert!(store.pending().unwrap().is_empty());
        let left: Vec<_> = std::fs::read_dir(folder.path().join("a")).unwrap().collect();
        assert_eq!(left.len(), 1, "temporary files are left behind");
    }

    #[test]
    fn proposals_of_two_runs_add_up() {
        let (_folder, store) = store();
        store.propose(&[run("6.1", "one")], &known()).unwrap();
        store.propose(&[run("5.10", "two")], &known()).unwrap();
        let pending = store.load_pending("a/b").unwrap().unwrap();
        assert_eq!(pending.kernels().collect::<Vec<_>>(), ["5.10", "6.1"]);
    }

    #[test]
    fn a_run_that_matches_again_withdraws_its_proposal() {
        let (_folder, store) = store();
        store.accept_runs(&[run("6.1", "one")], &known(), false, |_, _| true).unwrap();
        store.propose(&[run("6.1", "other")], &known()).unwrap();
        assert_eq!(store.pending().unwrap(), ["a/b"]);
        assert!(store.propose(&[run("6.1", "one")], &known()).unwrap().is_empty());
        assert!(store.pending().unwrap().is_empty());
    }

    #[test]
    fn accepting_one_kernel_leaves_the_other_proposed() {
        let (_folder, store) = store();
        let runs = [run("5.10", "one"), run("6.1", "two")];
        store.propose(&runs, &known()).unwrap();
        store.accept_runs(&runs, &known(), false, |_, kernel| kernel == "6.1").unwrap();
        assert_eq!(store.load("a/b").unwrap().unwrap().kernels().collect::<Vec<_>>(), ["6.1"]);
        assert_eq!(store.pending().unwrap(), ["a/b"]);
        assert!(store.accept_runs(&runs, &known(), false, |_, kernel| kernel == "6.1").unwrap().is_empty());
    }

    /// The pending file goes on saying of a kernel what the snapshot says: that it was measured before.
    #[test]
    fn accepting_a_revised_probe_marks_the_kernels_in_the_proposal_that_is_left_too() {
        let (_folder, store) = store();
        let known = Known::new(&names(&["5.10", "6.1", "7.3"]), [("a/b", "Why?")]);
        let old = ["5.10", "6.1", "7.3"].map(|kernel| run(kernel, "old"));
        store.accept_runs(&old, &known, false, |_, _| true).unwrap();
        let new = [run("6.1", "new"), run("7.3", "new")];
        store.propose(&new, &known).unwrap();
        store.accept_runs(&new, &known, true, |_, kernel| kernel == "7.3").unwrap();
        let behind = |snapshot: Option<Snapshot>| Vec::from_iter(snapshot.unwrap().behind);
        assert_eq!(behind(store.load("a/b").unwrap()), ["5.10", "6.1"]);
        assert_eq!(behind(store.load_pending("a/b").unwrap()), ["5.10"]);
        store.accept_pending(|_| true).unwrap();
        assert_eq!(behind(store.load("a/b").unwrap()), ["5.10"]);
    }

    #[test]
    fn what_is_written_is_told_though_its_proposal_cannot_be_read() {
        let (folder, store) = store();
        std::fs::create_dir_all(folder.path().join("a/b.snap.new")).unwrap();
        let mut told = Vec::new();
        let runs = [run("6.1", "one")];
        let ended =
            store.accept_each(&runs, &known(), false, |_, _| true, |probe| told.push(probe.to_owned()));
        assert!(ended.unwrap_err().to_string().contains("b.snap.new"));
        assert!(store.load("a/b").unwrap().is_some());
        assert_eq!(told, ["a/b"]);
    }

    #[test]
    fn all_proposals_are_withdrawn() {
        let (_folder, store) = store();
        store.accept_runs(&[run("6.1", "one")], &known(), false, |_, _| true).unwrap();
        store.propose(&[run("6.1", "other")], &known()).unwrap();
        assert_eq!(store.withdraw_all().unwrap(), 1);
        assert!(store.pending().unwrap().is_empty() && store.load("a/b").unwrap().is_some());
        assert_eq!(store.withdraw_all().unwrap(), 0);
    }

    #[test]
    fn in_ci_nothing_is_written() {
        let (folder, _) = store();
        let store = Store::new(folder.path(), Ci::Yes);
        let problem = store.accept_runs(&[run("6.1", "one")], &known(), false, |_, _| true).unwrap_err();
        assert!(problem.to_string().contains("CI is set"), "{problem}");
        assert!(store.propose(&[run("6.1", "one")], &known()).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn stale_parts_are_pruned() {
        let (_folder, store) = store();
        store.accept_runs(&[run("6.1", "one"), run("old", "one")], &known(), false, |_, _| true).unwrap();
        assert_eq!(pruned(&store, &known()), ["a/b"]);
        assert_eq!(store.load("a/b").unwrap().unwrap().kernels().collect::<Vec<_>>(), ["6.1"]);
        assert!(pruned(&store, &known()).is_empty());
        let none = Known::new(&names(&["6.1"]), [("c/d", "")]);
        assert_eq!(pruned(&store, &none), ["a/b"]);
        assert_eq!(store.load("a/b").unwrap(), None);
    }

    #[test]
    fn what_was_accepted_before_something_failed_is_told() {
        let (folder, store) = store();
        let mut runs = [run("6.1", "one")];
        runs[0].records.push(Record { probe: "c/d".into(), ..runs[0].records[0].clone() });
        let known = Known::new(&names(&["6.1"]), [("a/b", ""), ("c/d", "")]);
        std::fs::create_dir_all(folder.path().join("c/d.snap")).unwrap();
        let mut told = Vec::new();
        let ended = store.accept_each(&runs, &known, false, |_, _| true, |probe| told.push(probe.to_owned()));
        assert!(ended.unwrap_err().to_string().contains("d.snap"));
        assert_eq!(told, ["a/b"]);
    }

    #[test]
    fn a_misplaced_file_is_an_error() {
        let (folder, store) = store();
        store.accept_runs(&[run("6.1", "one")], &known(), false, |_, _| true).unwrap();
        std::fs::rename(folder.path().join("a/b.snap"), folder.path().join("a/c.snap")).unwrap();
        assert!(store.load_all().unwrap_err().to_string().contains("belongs into"));
    }
}
