//! A run that was interrupted and goes on (`conform run --resume`), if nothing that decides its records has changed.

use super::manifest::Manifest;
use super::options::Options;
use super::project::Project;
use crate::cli::RunOptions;
use crate::exit::{self, Failure};
use crate::model::KernelRun;
use crate::report::runs;
use crate::run::Job;
use probes::record::Outcome;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A run that goes on.
#[derive(Clone, Debug)]
pub(super) struct Resumed {
    /// Its folder.
    pub(super) folder: PathBuf,
    was: Manifest,
}

impl Resumed {
    /// The run in `folder`, or the last one that did not come to its end.
    ///
    /// # Errors
    /// Bad input, when there is none.
    pub(super) fn open(project: &Project, folder: Option<&Path>) -> Result<Self, Failure> {
        let folder = folder.map_or_else(|| project.unfinished_run(), Path::to_owned);
        let folder = folder.canonicalize().map_err(|error| {
            let why = anyhow::anyhow!(
                "no interrupted run at {} ({error}); name its folder: --resume FOLDER",
                folder.display()
            );
            Failure::new(exit::BAD_INPUT, why)
        })?;
        let was = Manifest::read(&folder)?;
        Ok(Self { folder, was })
    }

    /// The options that the run goes on with: those it was started with, which need not be given again.
    ///
    /// # Errors
    /// Bad input, when others are given.
    pub(super) fn options(&self, given: &RunOptions) -> Result<RunOptions, Failure> {
        let options = Options::given(given);
        if Options::none().as_ref() != Some(&options) && options != self.was.options {
            let differ = differences(&self.was.options, &options).into_iter();
            let differ: Vec<String> =
                differ.map(|(name, was, is)| format!("--{name} was {was} and is {is}")).collect();
            return Err(self.refusal(&differ));
        }
        Ok(self.was.options.clone().in_place_of(given))
    }

    /// Which of these options are not the usual ones, in words: clap does not tell one that is given its usual value from
    /// one that is not given, so that whoever gave it sees here what counts.
    pub(super) fn in_words(&self) -> String {
        let usual = Options::none();
        let unusual = usual.map(|usual| differences(&self.was.options, &usual)).unwrap_or_default();
        let words: Vec<String> =
            unusual.into_iter().map(|(name, was, _)| format!("--{name} {was}")).collect();
        let options = if words.is_empty() { "the usual options".to_owned() } else { words.join(" ") };
        format!("going on with {} and {options}", self.folder.display())
    }

    /// Checks that nothing has changed, and gives each job what it has already.
    ///
    /// # Errors
    /// Bad input, with everything that is different now.
    pub(super) fn go_on(&self, now: &Manifest, jobs: &mut [Job]) -> Result<(), Failure> {
        let changes = self.was.changes(now);
        if !changes.is_empty() {
            return Err(self.refusal(&changes));
        }
        for job in jobs {
            let file = runs::path(&self.folder, &job.kernel)?;
            if file.exists() {
                job.before = Some(kept(runs::read_of(&self.folder, &job.kernel)?));
            }
        }
        Ok(())
    }

    fn refusal(&self, changes: &[String]) -> Failure {
        let why = anyhow::anyhow!(
            "cannot resume {}: {}; undo that, or run anew without --resume",
            self.folder.display(),
            changes.join("; ")
        );
        Failure::new(exit::BAD_INPUT, why)
    }
}

/// The options that are not the same, each with its name and its value in both.
fn differences(one: &Options, other: &Options) -> Vec<(String, Value, Value)> {
    let fields = |options: &Options| match serde_json::to_value(options) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => serde_json::Map::new(),
    };
    let others = fields(other);
    let both = fields(one).into_iter().map(|(name, value)| {
        let other = others.get(&name).cloned().unwrap_or_default();
        (name, value, other)
    });
    both.filter(|(_, one, other)| one != other).collect()
}

/// What counts of a kernel's run: all of a complete one, of another what was recorded.
fn kept(mut run: KernelRun) -> KernelRun {
    if run.failure.is_some() {
        run.records.retain(|record| !matches!(record.outcome, Outcome::NotRun { .. }));
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser as _;

    #[test]
    fn what_a_run_goes_on_with_is_told() {
        let mut resumed = Resumed { folder: "runs/1".into(), was: Manifest::made_up(&["7.3"]) };
        assert_eq!(resumed.in_words(), "going on with runs/1 and the usual options");
        let given = |line: &str| {
            let words = ["conform", "run"].into_iter().chain(line.split_whitespace());
            let crate::cli::Verb::Run(options) = Cli::try_parse_from(words).unwrap().verb else { panic!() };
            options
        };
        resumed.was.options = Options::given(&given("--cpus 2 --cold"));
        assert_eq!(resumed.in_words(), "going on with runs/1 and --cold true --cpus 2");
        assert_eq!(resumed.options(&given("")).unwrap().machine.cpus, 2);
        assert_eq!(resumed.options(&given("--cpus 2 --cold")).unwrap().machine.cpus, 2);
        let refused = resumed.options(&given("--cpus 3 --cold")).unwrap_err().to_string();
        assert!(refused.contains("--cpus was 2 and is 3;"), "{refused}");
    }
}
