//! What is kept of a soak beside its runs' records, so that it can go on: a soak of many runs takes longer than a machine is
//! there, or a job may.

use super::super::manifest::Manifest;
use super::super::options::Options;
use super::base::Base;
use super::round::Round;
use super::tally::Tally;
use crate::cli::{HostOptions, MachineOptions, SoakOptions};
use crate::exit::{self, Failure};
use crate::report::runs;
use crate::text;
use crate::whole::{self, Readers};
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::path::Path;

/// The file in the soak's folder.
const FILE: &str = "soak.json";
/// Version of the file.
const FORMAT: u32 = 1;

/// What is in the file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    format: u32,
    /// What the runs' orders come from.
    pub(super) seed: u64,
    options: Options,
    /// What the last run stood on.
    pub(super) base: Option<Manifest>,
    /// The runs that came to their end.
    pub(super) rounds: Vec<Round>,
}

/// The options of a run of a soak, but for those that differ from run to run.
pub(super) fn machine(host: &HostOptions) -> MachineOptions {
    MachineOptions {
        host: host.clone(),
        cold: false,
        deadline: None,
        patience: 100,
        lsm: None,
        cpus: 1,
        shuffle: None,
        apart: false,
        bring: None,
    }
}

impl Kept {
    /// Of a soak that begins.
    pub(super) fn new(seed: u64, options: &SoakOptions) -> Self {
        let options = Options::of(&options.selection, &machine(&options.host));
        Self { format: FORMAT, seed, options, base: None, rounds: Vec::new() }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// Bad input, when there is none or it is another version's.
    pub(super) fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(FILE);
        let bad = |why: String| {
            let path = path.display();
            let why = anyhow::anyhow!("no soak to go on with: {path}: {why}; begin anew without --resume");
            Failure::new(exit::BAD_INPUT, why)
        };
        let text = text::read(&path, text::WRITTEN).map_err(|error| bad(error.to_string()))?;
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(found) if found != u64::from(FORMAT) => {
                Err(bad(format!("it has format {found}, not {FORMAT}")))
            }
            Some(_) | None => serde_json::from_value(value).map_err(|error| bad(error.to_string())),
        }
    }

    /// Writes the file with the runs that have come to their end.
    ///
    /// # Errors
    /// Infrastructure.
    pub(super) fn write(&mut self, folder: &Path, base: &Base, rounds: &[Round]) -> Result<(), Failure> {
        self.base = base.last();
        rounds.clone_into(&mut self.rounds);
        let text = serde_json::to_string(self).map_err(|error| Failure::new(exit::INFRASTRUCTURE, error))?;
        let written =
            whole::write(&folder.join(FILE), Readers::Owner, |file| file.write_all(text.as_bytes()));
        written.map_err(|error| {
            let why = anyhow::anyhow!("cannot note in {} which runs are over: {error}", folder.display());
            Failure::new(exit::INFRASTRUCTURE, why)
        })
    }

    /// What the soak was begun with; how many runs there are to be, and how they are told, is said anew.
    pub(super) fn options(&self, given: &SoakOptions) -> SoakOptions {
        let (selection, host) = (self.options.selection(), self.options.host(&given.host));
        SoakOptions { selection, host, ..given.clone() }
    }

    /// Counts the records of the runs again.
    ///
    /// # Errors
    /// As of [`runs::read_all`]; bad input, when a run lacks some of its records.
    pub(super) fn tally(&self, folder: &Path) -> Result<Tally, Failure> {
        let mut tally = Tally::default();
        for round in &self.rounds {
            let folder = folder.join(round.number.to_string());
            let runs = runs::read_all(&folder)?;
            let mut again = Round::planned(round.number, self.seed);
            for run in &runs {
                again.add(run);
                tally.add(round.number, run, false);
            }
            if (again.complete, again.records) != (round.complete, round.records) {
                let why = anyhow::anyhow!(
                    "{} has {} records of {} whole kernels, and had {} of {}; begin anew without --resume",
                    folder.display(),
                    again.records,
                    again.complete,
                    round.records,
                    round.complete
                );
                return Err(Failure::new(exit::BAD_INPUT, why));
            }
        }
        Ok(tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Verb};
    use crate::model::{self, KernelRun};
    use clap::Parser as _;
    use probes::record::{Outcome, Record};

    fn given(arguments: &[&str]) -> SoakOptions {
        let given = Cli::try_parse_from([&["conform", "soak"], arguments].concat()).unwrap();
        let Verb::Soak(options) = given.verb else { panic!("another verb") };
        options
    }

    /// A soak of one run, which has one record.
    fn begun(folder: &Path) -> Kept {
        let outcome = Outcome::CouldNotTell { why: "x".to_owned() };
        let record = Record { outcome, ..Record::not_run("a/b", "") };
        let records = vec![record];
        let run = KernelRun { format: model::FORMAT, kernel: "6.1".into(), records, ..KernelRun::default() };
        runs::write(&folder.join("1"), &run).unwrap();
        let mut round = Round::planned(1, 7);
        round.add(&run);
        let begun = ["--kernel", "6.1", "--probe", "a/*", "--vmm", "qemu", "--runs", "1"];
        let mut kept = Kept::new(7, &given(&begun));
        kept.write(folder, &Base::of(Some(Manifest::made_up(&["6.1"]))), &[round]).unwrap();
        kept
    }

    #[test]
    fn a_soak_goes_on_as_it_was_begun() {
        let folder = tempfile::tempdir().unwrap();
        begun(folder.path());
        let kept = Kept::read(folder.path()).unwrap();
        let options = kept.options(&given(&["--resume", "--runs", "50", "--jobs", "2"]));
        assert_eq!(
            (options.selection.kernels, options.selection.probes),
            (vec!["6.1".into()], vec!["a/*".into()])
        );
        assert_eq!(options.host.vmm, crate::vmm::LauncherKind::Qemu);
        assert_eq!((options.runs, options.host.jobs, kept.seed, kept.rounds.len()), (50, Some(2), 7, 1));
        let tally = kept.tally(folder.path()).unwrap();
        assert_eq!((tally.records, tally.kernels), (1, vec!["6.1".to_owned()]));
        let other = Base::of(kept.base).hold(Manifest::made_up(&["7.3"])).unwrap_err();
        assert_eq!(other.code, exit::INFRASTRUCTURE);
    }

    #[test]
    fn records_that_are_gone_are_not_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let kept = begun(folder.path());
        std::fs::remove_dir_all(folder.path().join("1/6.1")).unwrap();
        let failure = kept.tally(folder.path()).unwrap_err();
        assert_eq!(failure.code, exit::BAD_INPUT);
        assert!(failure.to_string().contains("0 records of 0 whole kernels, and had 1 of 1"), "{failure}");
    }

    #[test]
    fn where_there_is_no_soak_none_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let failure = |text: Option<&str>| {
            if let Some(text) = text {
                std::fs::write(folder.path().join(FILE), text).unwrap();
            }
            let failure = Kept::read(folder.path()).unwrap_err();
            assert_eq!(failure.code, exit::BAD_INPUT);
            failure.to_string()
        };
        assert!(failure(None).contains("begin anew without --resume"));
        assert!(failure(Some(r#"{"format": 9}"#)).contains("it has format 9, not 1"));
        assert!(failure(Some("[")).contains("soak.json: EOF"));
    }

    #[test]
    fn what_it_was_begun_with_is_not_said_twice() {
        for also in [["--seed", "3"], ["--kernel", "6.1"], ["--probe", "a/*"]] {
            assert!(Cli::try_parse_from([&["conform", "soak", "--resume"], &also[..]].concat()).is_err());
        }
    }
}
