//! What can go wrong with a child process, and how it is told.

use crate::exit::{self, ExitCode};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// How many of the latest lines of output an error shows.
const SHOWN_LINES: usize = 12;

/// What can go wrong with a child process.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The program could not be started at all.
    #[error("cannot start {program} for {what}")]
    Start {
        /// What the child was for.
        what: String,
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The program is not installed.
    #[error("cannot start {program} for {what}: not found in PATH")]
    NotFound {
        /// What the child was for.
        what: String,
        /// The program.
        program: String,
    },
    /// The log file could not be written.
    #[error("cannot write the log file {}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The child ended, and not well.
    #[error("{what} failed ({status}){}{}", indent(tail), log_hint(log.as_deref()))]
    Failed {
        /// What the child was for.
        what: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its output.
        tail: String,
        /// Where all of its output is.
        log: Option<PathBuf>,
    },
    /// The child was killed at its deadline.
    #[error("{what} did not end within {} s and was killed{}{}", deadline.as_secs(), indent(tail), log_hint(log.as_deref()))]
    Deadline {
        /// What the child was for.
        what: String,
        /// The deadline.
        deadline: Duration,
        /// The end of its output.
        tail: String,
        /// Where all of its output is.
        log: Option<PathBuf>,
    },
    /// The child could not be waited for.
    #[error("cannot wait for {what}")]
    Wait {
        /// What the child was for.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl ExitCode for ChildError {
    fn exit_code(&self) -> u8 {
        exit::INFRASTRUCTURE
    }
}

impl ChildError {
    /// The end of the child's output, as far as there is any.
    #[must_use]
    pub fn tail(&self) -> &str {
        match self {
            Self::Failed { tail, .. } | Self::Deadline { tail, .. } => tail,
            Self::Start { .. } | Self::NotFound { .. } | Self::Log { .. } | Self::Wait { .. } => "",
        }
    }
}

/// The last lines of the tail, indented, below the message.
fn indent(tail: &str) -> String {
    let lines: Vec<&str> = tail.trim_end().lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].iter().map(|line| format!("\n  | {line}")).collect()
}

/// Where to read on.
fn log_hint(log: Option<&Path>) -> String {
    log.map(|path| format!("\n  all of it: {}", path.display())).unwrap_or_default()
}
