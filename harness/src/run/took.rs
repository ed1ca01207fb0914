//! How long kernels took in earlier runs, so that the longest starts first: a run is over soonest when what is begun last
//! is short. Only the order hangs on this, so a file that is missing or damaged is one that says nothing.

use crate::model::KernelRun;
use crate::whole::{self, Readers};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// What was noted, by kernel.
#[derive(Debug)]
pub struct Took {
    path: PathBuf,
    millis: BTreeMap<String, u64>,
}

impl Took {
    /// What the file says.
    #[must_use]
    pub fn read(path: PathBuf) -> Self {
        let text = std::fs::read(&path).unwrap_or_default();
        Self { path, millis: serde_json::from_slice(&text).unwrap_or_default() }
    }

    /// What all probes took on a kernel the last time.
    #[must_use]
    pub fn of(&self, kernel: &str) -> Option<Duration> {
        self.millis.get(kernel).copied().map(Duration::from_millis)
    }

    /// Notes runs of all probes. One that failed says nothing of how long a whole one takes.
    ///
    /// # Errors
    /// When the file cannot be written; it is then what it was.
    pub fn note(&mut self, runs: &[KernelRun]) -> io::Result<()> {
        for run in runs.iter().filter(|run| run.failure.is_none()) {
            self.millis.insert(run.kernel.clone(), run.timing.all_ms());
        }
        whole::write(&self.path, Readers::Owner, |file| Ok(serde_json::to_writer(file, &self.millis)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timing;

    fn run(kernel: &str, probes_ms: u64, failure: Option<&str>) -> KernelRun {
        let timing = Timing { boot_ms: 1, probes_ms, rest_ms: 2 };
        KernelRun { kernel: kernel.into(), timing, failure: failure.map(Into::into), ..KernelRun::default() }
    }

    #[test]
    fn what_was_noted_is_read_and_what_failed_was_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("took.json");
        let mut took = Took::read(path.clone());
        assert_eq!(took.of("6.1"), None);
        took.note(&[run("6.1", 40, None), run("7.3", 90, None)]).unwrap();
        took.note(&[run("6.1", 50, None), run("7.3", 3, Some("lost"))]).unwrap();
        let took = Took::read(path.clone());
        assert_eq!(took.of("6.1"), Some(Duration::from_millis(53)));
        assert_eq!(took.of("7.3"), Some(Duration::from_millis(93)));
        std::fs::write(&path, "{\"6.1\": ").unwrap();
        assert_eq!(Took::read(path).of("6.1"), None);
    }
}
