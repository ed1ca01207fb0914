//! Snapshots: one file per probe, `snapshots/<family>/<name>.snap`, holding what every kernel gave.
//!
//! A [`Snapshot`] knows one [`Normal`] per kernel. [`mod@format`] writes it for a reviewer's eyes, grouped per case by
//! the kernels that agree, and reads it back; [`mod@merge`] replaces the part of the kernels that ran; [`mod@compare`]
//! gives a verdict per probe and kernel; [`store`] holds the files, the pending ones of `cargo insta` among them.
//!
//! The files are insta's: a front matter, then the body. `cargo insta review` and `cargo insta accept` work on
//! `<name>.snap.new`, because the folder holds a test target of the harness (`snapshots/snapshots.rs`).

pub mod assert;
mod block;
mod ci;
pub mod compare;
mod diff;
pub mod format;
pub(crate) mod kernels;
pub mod merge;
pub mod store;

use crate::normalize::Normal;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

pub(crate) use block::result_line;
pub use ci::Ci;
pub use compare::{Cell, Comparison, Stale, Verdict, compare, compare_as, judge_normal};
pub(crate) use diff::diff as difference;
pub use format::{parse, render, render_body};
pub(crate) use merge::was_seen;
pub use merge::{leave_behind, merge};
pub use store::Store;

/// Equal answers together, in the order of their first, with their places among all; who did not answer is in none.
#[must_use]
pub fn alike<T: PartialEq>(answers: impl IntoIterator<Item = Option<T>>) -> Vec<(T, Vec<usize>)> {
    let mut groups: Vec<(T, Vec<usize>)> = Vec::new();
    for (place, answer) in answers.into_iter().enumerate() {
        let Some(answer) = answer else { continue };
        match groups.iter_mut().find(|(known, _)| *known == answer) {
            Some((_, places)) => places.push(place),
            None => groups.push((answer, vec![place])),
        }
    }
    groups
}

/// The phrase for the kernels of `all` whose place is in `members` (ascending), such as `from 6.12`.
#[must_use]
pub(crate) fn kernel_phrase(all: &[String], members: &[usize]) -> String {
    kernels::phrase(all, members)
}

/// What the suite knows when it judges snapshots: the rows of the matrix and the probes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The names of the matrix's rows, in its order.
    pub matrix: Vec<String>,
    /// The question of every probe, by id.
    pub questions: BTreeMap<String, String>,
    /// Those of them that no table names: kernels have brought them, and may take them away again.
    pub dynamic: BTreeSet<String>,
}

impl Known {
    /// From the matrix and the probes' ids and questions.
    pub fn new<I, Q>(matrix: &[String], probes: impl IntoIterator<Item = (I, Q)>) -> Self
    where
        I: Into<String>,
        Q: Into<String>,
    {
        let questions = probes.into_iter().map(|(id, question)| (id.into(), question.into())).collect();
        Self { matrix: matrix.to_vec(), questions, dynamic: BTreeSet::new() }
    }

    /// A sort key: rows in the matrix's order, then other kernels by name.
    #[must_use]
    pub fn rank(&self, kernel: &str) -> (usize, String) {
        let place = self.matrix.iter().position(|row| row == kernel).unwrap_or(usize::MAX);
        (place, kernel.to_owned())
    }
}

/// What one probe gave on every kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The probe's id.
    pub probe: String,
    /// The probe's question.
    pub question: String,
    /// Per kernel what it gave, in the file's order. Never [`probes::record::Outcome::NotRun`].
    pub observed: Vec<(String, Normal)>,
    /// The names of all cases, in the file's order; each kernel's cases follow it.
    pub order: Vec<String>,
    /// The kernels whose records were made before the probe was changed, as [`merge::leave_behind`] has it.
    pub behind: BTreeSet<String>,
}

impl Snapshot {
    /// What the snapshot says of a kernel.
    #[must_use]
    pub fn of(&self, kernel: &str) -> Option<&Normal> {
        self.observed.iter().find(|(name, _)| name == kernel).map(|(_, normal)| normal)
    }

    /// The kernels, in the file's order.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.observed.iter().map(|(name, _)| name.as_str())
    }

    /// What it says of one case alone: its kernels without the other cases.
    #[must_use]
    pub fn of_case(&self, name: &str) -> Self {
        let alone = |(kernel, normal): &(String, Normal)| {
            let cases = normal.case(name).cloned().into_iter().collect();
            let (outcome, warnings) = (normal.outcome.clone(), normal.warnings.clone());
            (kernel.clone(), Normal { outcome, cases, warnings })
        };
        Self {
            probe: self.probe.clone(),
            question: self.question.clone(),
            observed: self.observed.iter().map(alone).collect(),
            order: self.order.iter().filter(|case| *case == name).cloned().collect(),
            behind: self.behind.clone(),
        }
    }

    /// What it says of these kernels alone.
    #[must_use]
    pub fn of_kernels(&self, kernels: &[String]) -> Self {
        let mut snapshot = self.clone();
        snapshot.observed.retain(|(kernel, _)| kernels.contains(kernel));
        snapshot.behind.retain(|kernel| kernels.contains(kernel));
        snapshot
    }

    /// Those of them that are [`Snapshot::behind`], in the same order.
    pub fn kernels_behind(&self) -> impl Iterator<Item = &str> {
        self.kernels().filter(|name| self.behind.contains(*name))
    }

    /// What the others have said: those that were asked since the probe changed.
    pub fn current(&self) -> impl Iterator<Item = (&str, &Normal)> {
        let others = self.observed.iter().filter(|(name, _)| !self.behind.contains(name));
        others.map(|(name, normal)| (name.as_str(), normal))
    }
}

/// What can go wrong with snapshots.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file is not a snapshot.
    #[error("{}:{line}: {problem}; correct the file or accept the probe again", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A file or folder cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Something would be written where `CI` is set.
    #[error("refusing to write {}: the environment variable CI is set, and snapshots are accepted by people; unset CI or run this on your machine", path.display())]
    Ci {
        /// The file that would have been written.
        path: PathBuf,
    },
    /// A probe id does not name a file below the snapshot folder.
    #[error("probe id {id:?} cannot name a snapshot; use <family>/<name> of a-z, 0-9, '-', '_' and '.'")]
    BadId {
        /// The id.
        id: String,
    },
    /// A kernel's name cannot stand in a snapshot.
    #[error(
        "kernel name {name:?} cannot stand in a snapshot; give the kernel a row with a name without spaces and commas"
    )]
    BadKernel {
        /// The name.
        name: String,
    },
    /// The body could not be written as YAML.
    #[error("cannot write the snapshot of {probe} as yaml: {source}")]
    Yaml {
        /// The probe.
        probe: String,
        /// Why.
        source: serde_yaml::Error,
    },
}

impl crate::exit::ExitCode for SnapshotError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Parse { .. } | Self::Ci { .. } | Self::BadId { .. } | Self::BadKernel { .. } => {
                crate::exit::BAD_INPUT
            }
            Self::Io { .. } | Self::Yaml { .. } => crate::exit::INFRASTRUCTURE,
        }
    }
}

/// Made-up observations for the tests of this and the reports' modules.
#[cfg(test)]
pub(crate) mod made_up {
    use super::Snapshot;
    use crate::normalize::{Normal, NormalCase};
    use probes::record::{End, Outcome, Phase};
    use serde_json::Map;
    use std::collections::BTreeSet;

    /// A case that came through.
    pub(crate) fn done(name: &str) -> NormalCase {
        NormalCase {
            name: name.to_owned(),
            phase: Phase::Trigger,
            end: End::Done,
            accepted: Some(true),
            fired: Some(true),
            denied: None,
            reason: None,
            seen: Map::new(),
        }
    }

    /// A case that the verifier refused.
    pub(crate) fn refused(name: &str, reason: &str) -> NormalCase {
        NormalCase {
            phase: Phase::Load,
            end: End::Refused { errno: "EINVAL".to_owned() },
            accepted: Some(false),
            fired: None,
            reason: Some(reason.to_owned()),
            ..done(name)
        }
    }

    /// An observation of these cases.
    pub(crate) fn observed(cases: Vec<NormalCase>) -> Normal {
        Normal { outcome: Outcome::Observed, cases, warnings: Vec::new() }
    }

    /// A snapshot of these kernels' cases, in the order in which they first come.
    pub(crate) fn snapshot(probe: &str, kernels: Vec<(&str, Vec<NormalCase>)>) -> Snapshot {
        let mut order: Vec<String> = Vec::new();
        for case in kernels.iter().flat_map(|(_, cases)| cases) {
            if !order.contains(&case.name) {
                order.push(case.name.clone());
            }
        }
        let observed = kernels.into_iter().map(|(kernel, cases)| (kernel.to_owned(), observed(cases)));
        Snapshot {
            probe: probe.to_owned(),
            question: "Why?".to_owned(),
            observed: observed.collect(),
            order,
            behind: BTreeSet::new(),
        }
    }

    /// Owned strings.
    pub(crate) fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }
}
