//! A machine that is booted for nothing but to see whether it comes up.

use super::collect::run_kernel;
use super::setup::{Job, Observer, Setup};

/// Boots one machine with an empty selection, to see whether it comes up.
///
/// # Errors
/// The reason, in a sentence.
pub fn trial(setup: &Setup, job: &Job) -> Result<(), String> {
    struct Quiet;
    impl Observer for Quiet {
        fn note(&self, _: &str, _: &str) {}
        fn progress(&self, _: &str, _: usize, _: usize) {}
    }
    let mut setup = setup.clone();
    setup.select = vec!["no-such/probe".into()];
    let run = run_kernel(&setup, job, &Quiet);
    match (run.failure, run.facts) {
        (None, Some(_)) => Ok(()),
        (failure, _) => Err(failure.unwrap_or_else(|| "no hello".into())),
    }
}
