//! The exit codes of `conform`, and [`Failure`], which carries one from where something went wrong to `main`.
//!
//! Scripts depend on these numbers: they are part of the command's interface and are listed in its help.

use std::fmt;

/// Everything asked for was done, and no record differs from its snapshot.
pub const OK: u8 = 0;
/// A record differs from its snapshot, or a snapshot is missing or stale; a page of documentation is contradicted; a soak
/// found a record that was not the same in all runs or not the snapshot's, or lost a machine between two probes.
pub const MISMATCH: u8 = 1;
/// The request is at fault: usage, `matrix.yaml`, an unknown kernel or probe. `clap` uses the same number.
pub const BAD_INPUT: u8 = 2;
/// The surroundings are at fault: QEMU, a download, a full disk, no virtual machine boots.
pub const INFRASTRUCTURE: u8 = 3;
/// The request is well-formed but selects nothing; a page of documentation has nothing that the claims know.
pub const NOTHING_SELECTED: u8 = 4;
/// A tool is missing and installing it needs a privilege; the exact command was printed.
pub const NEEDS_PRIVILEGE: u8 = 5;
/// Somebody asked a run to stop whose machines ran; the records so far are in its folder, and `--resume` goes on. Before the
/// first machine, and in verbs that run none, the signal itself ends the program.
pub const INTERRUPTED: u8 = 6;

/// An error that knows which exit code it deserves.
pub trait ExitCode: std::error::Error + Send + Sync + 'static {
    /// One of this module's constants.
    fn exit_code(&self) -> u8;
}

/// An error on its way to `main`, with the exit code decided where the error was understood.
#[derive(Debug)]
pub struct Failure {
    /// One of this module's constants.
    pub code: u8,
    /// What went wrong, with its causes.
    pub source: anyhow::Error,
}

impl Failure {
    /// Gives `source` the exit code `code`.
    pub fn new(code: u8, source: impl Into<anyhow::Error>) -> Self {
        Self { code, source: source.into() }
    }
}

impl fmt::Display for Failure {
    /// See [`with_causes`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_causes(self.source.as_ref()))
    }
}

/// An error and its causes on one line, each introduced by a colon, but for those that an error before has in its own words.
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| cause.source()).map(ToString::to_string) {
        if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

impl<E: ExitCode> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { code: error.exit_code(), source: error.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the outer thing failed")]
    struct Outer(#[source] std::io::Error);

    impl ExitCode for Outer {
        fn exit_code(&self) -> u8 {
            INFRASTRUCTURE
        }
    }

    #[test]
    fn a_failure_keeps_the_code_and_the_cause() {
        let failure = Failure::from(Outer(std::io::Error::other("the inner cause")));
        assert_eq!(failure.code, INFRASTRUCTURE);
        assert_eq!(failure.to_string(), "the outer thing failed: the inner cause");
        let failure = Failure::new(
            BAD_INPUT,
            failure.source.context("all: the outer thing failed, by the inner cause"),
        );
        assert_eq!(failure.to_string(), "all: the outer thing failed, by the inner cause");
    }
}
