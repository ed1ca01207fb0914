//! What a run says while its machines work, and the records that it keeps meanwhile.

use crate::model::KernelRun;
use crate::progress::{Progress, Task, Unit};
use crate::report::runs;
use crate::run::setup::Observer;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Tells what the machines do, a bar per kernel on a terminal, now and then a line elsewhere; and keeps their records.
pub(super) struct Teller<'a> {
    progress: &'a Progress,
    folder: &'a Path,
    tasks: Mutex<BTreeMap<String, Task>>,
    not_kept: Mutex<Vec<String>>,
}

impl<'a> Teller<'a> {
    /// Of a run whose records go to `folder`.
    pub(super) const fn new(progress: &'a Progress, folder: &'a Path) -> Self {
        Self { progress, folder, tasks: Mutex::new(BTreeMap::new()), not_kept: Mutex::new(Vec::new()) }
    }

    /// The kernel's bar goes.
    pub(super) fn over(&self, kernel: &str) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).remove(kernel);
    }

    /// Writes a kernel's run to the folder; whether that was possible.
    pub(super) fn keep(&self, run: &KernelRun) -> bool {
        let Err(error) = runs::write(self.folder, run) else { return true };
        let sentence = format!("the records of {} could not be kept: {error}", run.kernel);
        self.not_kept.lock().unwrap_or_else(PoisonError::into_inner).push(sentence);
        false
    }

    /// What could not be kept, a sentence each.
    pub(super) fn not_kept(self) -> Vec<String> {
        self.not_kept.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Teller<'_> {
    fn note(&self, kernel: &str, text: &str) {
        self.progress.say(kernel, text);
    }

    fn progress(&self, kernel: &str, done: usize, total: usize) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let task =
            tasks.entry(kernel.to_owned()).or_insert_with(|| self.progress.task(kernel, "running probes"));
        task.reached(done as u64, total as u64, Unit::Things);
    }

    fn so_far(&self, run: &KernelRun) {
        // What cannot be written now is written at the kernel's end, or said then.
        let _ = runs::write(self.folder, run);
    }
}
