//! The pipes between a probe's process and PID 1, as the process has them.

use std::fs::File;

/// Where a probe's process writes what it has found, and hears that it has arrived: a case that PID 1 has taken is
/// safe from a crash in the next one. Two pipes and no socket, because programs on socket hooks are what is probed.
pub struct Sink {
    pipe: File,
    taken: File,
    kept: Vec<u8>,
    kept_count: usize,
}

impl Sink {
    pub(crate) const fn new(pipe: File, taken: File) -> Self {
        Self { pipe, taken, kept: Vec::new(), kept_count: 0 }
    }

    pub(crate) const fn pipe(&mut self) -> &mut File {
        &mut self.pipe
    }

    /// Waits until PID 1 has passed on the `count` messages that were written. It closes the pipe when it dies, so this
    /// ends.
    pub(crate) fn wait_until_taken(&mut self, count: usize) -> std::io::Result<()> {
        std::io::Read::read_exact(&mut self.taken, &mut vec![0; count])
    }

    /// Adds a line to those that wait to be written.
    pub(crate) fn add_kept(&mut self, line: &[u8]) {
        self.kept.extend_from_slice(line);
        self.kept_count += 1;
    }

    /// The lines that wait to be written, and how many they are.
    pub(crate) fn take_kept(&mut self) -> (Vec<u8>, usize) {
        (std::mem::take(&mut self.kept), std::mem::take(&mut self.kept_count))
    }
}
