//! What a lost machine is laid to: the probe under way, or, where none was, nobody; that is noted all the same.

use super::{Collector, Current};
use crate::model::Between;
use crate::vmm::machine::{CONSOLE_MAX, Ending, Machine, first_alarm};
use probes::protocol::GIVES_UP;
use probes::record::{CASES_MAX, Case, Outcome, Record};
use std::collections::BTreeSet;

/// How a machine was lost.
#[derive(Debug)]
pub(super) enum Cause {
    /// It no longer runs.
    Ended(Ending),
    /// It neither ended nor said anything.
    Silent,
    /// The same, and one of its processes is stopped, as by `kill -STOP` or a debugger.
    Stopped,
    /// What it said cannot be.
    Stream(String),
    /// Its PID 1 could not go on, and said why.
    GaveUp(String),
}

impl Cause {
    /// Of a machine that has given up after all, as its console says: there was no room in the channel to say so.
    fn or_gave_up(self, console: &str) -> Self {
        let said = console.lines().find_map(|line| line.split_once(GIVES_UP));
        match (&self, said) {
            (Self::Ended(Ending::Itself), Some((_, why))) => Self::GaveUp(why.trim().to_owned()),
            _ => self,
        }
    }

    /// What somebody on the host did, in words: no fault of the kernel's.
    const fn done_from_outside(&self) -> Option<&'static str> {
        match self {
            Self::Ended(Ending::Taken) => Some("ended"),
            Self::Stopped => Some("stopped"),
            Self::Ended(Ending::Itself | Ending::Flooded)
            | Self::Silent
            | Self::Stream(_)
            | Self::GaveUp(_) => None,
        }
    }

    /// What becomes of the probe that was under way. `alarm` are the kernel's words since it began.
    fn outcome(&self, alarm: Option<String>, during: String) -> Outcome {
        let why = match (self, alarm) {
            (Self::Stream(why) | Self::GaveUp(why), _) => why.clone(),
            (_, Some(what)) => return Outcome::Crashed { what, during },
            (Self::Silent, None) => return Outcome::Hung { during },
            (Self::Ended(Ending::Itself), None) => {
                return Outcome::Crashed { what: self.in_words(), during };
            }
            (Self::Ended(Ending::Taken) | Self::Stopped, None) => {
                format!(
                    "its machine was {} from outside, twice",
                    self.done_from_outside().unwrap_or_default()
                )
            }
            (Self::Ended(Ending::Flooded), None) => self.in_words(),
        };
        Outcome::CouldNotTell { why }
    }

    fn in_words(&self) -> String {
        match self {
            Self::Ended(Ending::Itself) => "the machine ended without a word".to_owned(),
            Self::Ended(Ending::Taken) | Self::Stopped => {
                format!("the machine was {} from outside", self.done_from_outside().unwrap_or_default())
            }
            Self::Ended(Ending::Flooded) => {
                format!("the machine wrote more than {} MiB to its console", CONSOLE_MAX >> 20)
            }
            Self::Silent => "the machine neither ended nor said anything".to_owned(),
            Self::Stream(why) | Self::GaveUp(why) => why.clone(),
        }
    }
}

impl Collector<'_> {
    /// Ends a machine that is lost, and writes the record of the probe that was under way; if none was, a note.
    pub(super) fn blame(&mut self, machine: &mut Machine, cause: Cause) {
        let during = machine.crumb();
        machine.kill();
        // Of the probe under way alone: what an earlier one made the kernel say need not have ended anything.
        let console = machine.console_since(self.boot.console_from);
        let (cause, alarm) = (cause.or_gave_up(&console), first_alarm(&console));
        match self.current.take() {
            Some(current) => {
                let noted = machine.noted();
                self.blame_probe(current, noted, &cause, alarm, during);
            }
            None => self.note_loss(&cause, alarm),
        }
    }

    fn blame_probe(
        &mut self,
        mut current: Current,
        noted: Vec<Case>,
        cause: &Cause,
        alarm: Option<String>,
        during: String,
    ) {
        if let Some(how) = cause.done_from_outside()
            && self.asked_again.insert(current.probe.clone())
        {
            let text =
                format!("the machine was {how} from outside during {}, which is run again", current.probe);
            self.observer.note(&self.job.kernel, &text);
            self.boot.lost = Some(text);
            return;
        }
        // PID 1 may have passed some on and not lived to say that it had taken them.
        let sent: BTreeSet<String> = current.cases.iter().map(|case| case.name.clone()).collect();
        current.cases.extend(noted.into_iter().filter(|case| !sent.contains(&case.name)));
        let mut warnings = Vec::new();
        if let Some(over) = current.cases.len().checked_sub(CASES_MAX).filter(|&over| over > 0) {
            current.cases.truncate(CASES_MAX);
            warnings.push(format!("{over} more cases had ended, more than a probe may have"));
        }
        self.observer.note(&self.job.kernel, &format!("lost the machine during {}", current.probe));
        let micros = u64::try_from(current.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.run.records.push(Record {
            probe: current.probe,
            outcome: cause.outcome(alarm, during),
            cases: current.cases,
            warnings,
            micros,
        });
    }

    /// A machine was lost between probes: nobody's record says so.
    fn note_loss(&mut self, cause: &Cause, alarm: Option<String>) {
        let what = match cause {
            Cause::Stream(why) | Cause::GaveUp(why) => why.clone(),
            Cause::Ended(_) | Cause::Silent | Cause::Stopped => alarm.unwrap_or_else(|| cause.in_words()),
        };
        let lost = Between { after: self.boot.last.clone(), what };
        // One that has not come up is counted as a boot that is tried again.
        let what = if self.boot.greeted { lost.to_string() } else { format!("before hello: {}", lost.what) };
        self.observer.note(&self.job.kernel, &format!("lost a machine {what}"));
        self.boot.lost = Some(what);
        if self.boot.greeted {
            self.run.lost_between.push(lost);
        }
    }

    /// Notes what the kernel has warned of while no probe was under way.
    pub(super) fn note_warnings(&mut self, warnings: Vec<String>) {
        for what in warnings {
            let warning = Between { after: self.boot.last.clone(), what };
            self.observer.note(&self.job.kernel, &format!("the kernel warned {warning}"));
            self.run.warned_between.push(warning);
        }
    }
}
