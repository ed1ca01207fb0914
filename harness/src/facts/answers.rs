//! What kernels answered about an item, and the ranges of versions that follow from it.

use super::{Known, Span, Version, spans};
use crate::version::by_version;

/// What one kernel answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It may be used; by whom, where not by everyone.
    Yes {
        /// Such as `programs that may sleep`; empty for every program.
        condition: String,
    },
    /// It is in the kernel and may not be used.
    No {
        /// What the kernel said.
        why: String,
    },
    /// It is not in this kernel's build.
    Absent {
        /// The option that may have left it out; none where its absence is the version's.
        perhaps: Option<&'static str>,
    },
    /// It is in the kernel, and something in how this kernel was built keeps programs from it: no word about the version.
    BuildLacks {
        /// What the kernel said.
        why: String,
    },
    /// Could not be told.
    Unknown {
        /// Why.
        why: String,
    },
}

/// How a condition ends that leaves open who else may.
const OPEN: &str = ", of others it could not be told";

fn is_open(condition: &str) -> bool {
    condition.ends_with(OPEN)
}

impl Answer {
    /// What ranges make of it.
    #[must_use]
    pub const fn known(&self) -> Known {
        match self {
            Self::Yes { .. } => Known::Yes,
            Self::No { .. } | Self::Absent { perhaps: None } => Known::No,
            Self::Absent { perhaps: Some(_) } | Self::BuildLacks { .. } | Self::Unknown { .. } => {
                Known::Unknown
            }
        }
    }

    /// What ranges of one condition make of it: under another it is a no, unless either leaves open who else may.
    #[must_use]
    pub fn known_under(&self, wanted: &str) -> Known {
        match self {
            Self::Yes { condition } if condition != wanted => {
                if is_open(condition) || is_open(wanted) {
                    Known::Unknown
                } else {
                    Known::No
                }
            }
            Self::Yes { .. }
            | Self::No { .. }
            | Self::Absent { .. }
            | Self::BuildLacks { .. }
            | Self::Unknown { .. } => self.known(),
        }
    }

    /// A yes that is known to be so with every kind of program that was asked with, and maybe with others, of which it
    /// could not be told.
    pub(super) fn yes_at_least(by: &str) -> Self {
        Self::Yes { condition: format!("by {by}{OPEN}") }
    }

    /// By which programs only it may be used. None where every program may, and where of the others it could not be told.
    #[must_use]
    pub fn limit(&self) -> Option<&str> {
        match self {
            Self::Yes { condition } => {
                Some(condition.as_str()).filter(|condition| !condition.is_empty() && !is_open(condition))
            }
            Self::No { .. } | Self::Absent { .. } | Self::BuildLacks { .. } | Self::Unknown { .. } => None,
        }
    }

    /// The answer in words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Yes { condition } if condition.is_empty() => "yes".to_owned(),
            Self::Yes { condition } => format!("yes, {condition}"),
            Self::No { why } => format!("no: {why}"),
            Self::Absent { perhaps: None } => "not in the kernel".to_owned(),
            Self::Absent { perhaps: Some(option) } => {
                format!("not in this build, perhaps for want of {option}")
            }
            Self::BuildLacks { why } => format!("not in this build: {why}"),
            Self::Unknown { why } => format!("could not tell: {why}"),
        }
    }
}

/// A range in which the answer is yes under one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Support<'a> {
    /// Such as `by programs that may sleep`; empty for every program.
    pub condition: &'a str,
    /// Since when, and until when.
    pub span: Span,
    /// The rows that show it, as [`Span::rows`] has them.
    pub rows: Vec<String>,
}

/// Answers of kernels, in the matrix's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers(pub Vec<(String, Answer)>);

impl Answers {
    /// The ranges in which the answer is yes. Kernels whose name is no version, nor a flavour of one, take no part.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        let states: Vec<_> =
            self.by_version().into_iter().map(|(version, answer)| (version, answer.known())).collect();
        spans(&states)
    }

    /// The ranges for each condition under which the answer is yes, in the order of its first kernel. One ends, too, where
    /// another condition, or none, takes its place.
    #[must_use]
    pub fn support(&self) -> Vec<Support<'_>> {
        let mut conditions: Vec<&str> = Vec::new();
        for (_, answer) in &self.0 {
            if let Answer::Yes { condition } = answer
                && !conditions.contains(&condition.as_str())
            {
                conditions.push(condition);
            }
        }
        let of = |condition| {
            let known = |answer: &Answer| answer.known_under(condition);
            let states: Vec<_> =
                self.by_version().into_iter().map(|(version, answer)| (version, known(answer))).collect();
            let so: Vec<&str> = self
                .0
                .iter()
                .filter(|(_, it)| known(it) == Known::Yes)
                .map(|(row, _)| row.as_str())
                .collect();
            let support = |span: Span| Support { condition, rows: span.rows(&so), span };
            spans(&states).into_iter().map(support).collect::<Vec<_>>()
        };
        conditions.into_iter().flat_map(of).collect()
    }

    /// What each version answers. A flavour (`6.1-fragments`) is of the same sources as the row of its version: what it
    /// has the version has, and what it tells counts where that row's build cannot. In everything else the row called by
    /// the version speaks, so that a configuration is never taken for a version.
    #[must_use]
    pub fn by_version(&self) -> Vec<(Version, &Answer)> {
        by_version(self.0.iter().map(|(kernel, answer)| (kernel.as_str(), answer)), |row, flavour| {
            matches!(
                (row.known(), flavour.known()),
                (Known::No | Known::Unknown, Known::Yes) | (Known::Unknown, Known::No)
            )
        })
    }

    /// The answer of `kernel` in words, with the other builds of the same version that answer yes where it does not.
    #[must_use]
    pub fn words_of(&self, kernel: &str) -> Option<String> {
        let answer = self.of(kernel)?;
        let version = Version::of_row(kernel);
        let others: Vec<&str> = self
            .kernels(Known::Yes)
            .filter(|other| version.is_some() && *other != kernel && Version::of_row(other) == version)
            .collect();
        if answer.known() == Known::Yes || others.is_empty() {
            return Some(answer.words());
        }
        Some(format!("{}; yes on {}, of the same version", answer.words(), others.join(", ")))
    }

    /// What to say where no measured kernel answers yes.
    #[must_use]
    pub fn never(&self) -> &'static str {
        match self.kernels(Known::Unknown).next() {
            None => "on no measured kernel",
            Some(_) => "on no measured kernel that tells",
        }
    }

    /// Kernels whose answer is so, in the matrix's order.
    pub fn kernels(&self, known: Known) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(_, answer)| answer.known() == known).map(|(kernel, _)| kernel.as_str())
    }

    /// The answer of one kernel.
    #[must_use]
    pub fn of(&self, kernel: &str) -> Option<&Answer> {
        self.0.iter().find(|(name, _)| name == kernel).map(|(_, answer)| answer)
    }
}
