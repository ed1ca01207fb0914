//! The way from a probe's process to PID 1, as the process has it.

use crate::channel::Notes;
use std::fs::File;

/// Where a probe's process writes what it has found: cases among the notes, which are safe from a crash in the next one,
/// the rest into a pipe, and through another it hears that PID 1 has taken it. Two pipes and no socket, because programs
/// on socket hooks are what is probed.
pub struct Sink {
    pipe: File,
    taken: File,
    notes: Notes,
}

impl Sink {
    pub(crate) const fn new(pipe: File, taken: File, notes: Notes) -> Self {
        Self { pipe, taken, notes }
    }

    pub(crate) const fn pipe(&mut self) -> &mut File {
        &mut self.pipe
    }

    pub(crate) const fn notes(&self) -> Notes {
        self.notes
    }

    /// Waits until PID 1 has taken what was written. It closes the pipe when it dies, so this ends.
    pub(crate) fn wait_until_taken(&mut self) -> std::io::Result<()> {
        std::io::Read::read_exact(&mut self.taken, &mut [0])
    }
}
