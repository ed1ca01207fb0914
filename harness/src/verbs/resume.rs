//! A run that was interrupted and goes on (`conform run --resume`), if nothing that decides its records has changed.

use super::manifest::{Manifest, Options};
use super::project::Project;
use crate::cli::RunOptions;
use crate::exit::{self, Failure};
use crate::model::KernelRun;
use crate::report::runs;
use crate::run::Job;
use probes::record::Outcome;
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
            let fields = |options: &Options| match serde_json::to_value(options) {
                Ok(serde_json::Value::Object(fields)) => fields,
                Ok(_) | Err(_) => serde_json::Map::new(),
            };
            let (was, is) = (fields(&self.was.options), fields(&options));
            let differ = was.iter().filter(|(name, value)| is.get(*name) != Some(value));
            let differ: Vec<String> = differ
                .map(|(name, value)| {
                    format!("--{name} was {value} and is {}", is.get(name).unwrap_or_default())
                })
                .collect();
            return Err(self.refusal(&differ));
        }
        Ok(self.was.options.clone().in_place_of(given))
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
                job.before = Some(kept(runs::read(&file)?));
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

/// What counts of a kernel's run: all of a complete one, of another what was recorded.
fn kept(mut run: KernelRun) -> KernelRun {
    if run.failure.is_some() {
        run.records.retain(|record| !matches!(record.outcome, Outcome::NotRun { .. }));
    }
    run
}
