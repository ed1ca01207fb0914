//! What a lost machine is laid to: the probe under way, or, where none was, nobody; that is noted all the same.

use super::{Collector, Current};
use crate::model::{AskedAgain, Between};
use crate::vmm::flags::impossible_flags;
use crate::vmm::machine::{CONSOLE_MAX, Ending, Machine, alarms};
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
    /// It lives, and has not ended the probe that was to end, by its own clock or by any: its host gave it no processor, or its
    /// kernel gave PID 1 none.
    Overdue,
    /// Its kernel failed with flags that no processor has.
    Emulator(u32),
    /// What it said cannot be.
    Stream(String),
    /// Its PID 1 could not go on, and said why.
    GaveUp(String),
}

/// What is said of [`Cause::Overdue`].
const OVERDUE: &str =
    "lived and did not come to the probe's deadline, for want of a processor for it or for its PID 1";

impl Cause {
    /// What the console makes of a machine that ended or fell silent: it may have given up after all, and had no room in
    /// the channel to say so, or its emulator may have failed it.
    fn by_its_console(self, console: &str) -> Self {
        if !matches!(self, Self::Ended(Ending::Itself) | Self::Silent) {
            return self;
        }
        if let Some(flags) = impossible_flags(console) {
            return Self::Emulator(flags);
        }
        let said = console.lines().find_map(|line| line.split_once(GIVES_UP));
        match (&self, said) {
            (Self::Ended(_), Some((_, why))) => Self::GaveUp(why.trim().to_owned()),
            _ => self,
        }
    }

    /// What became of a machine, in words, if it is no fault of the kernel's, or need not be: the probe is asked again.
    fn not_the_kernel(&self) -> Option<String> {
        match self {
            Self::Ended(Ending::Taken) => Some("was ended from outside".to_owned()),
            Self::Stopped => Some("was stopped from outside".to_owned()),
            Self::Overdue => Some(OVERDUE.to_owned()),
            Self::Emulator(flags) => {
                Some(format!("was failed by its emulator: EFLAGS {flags:08x}, which no processor can have"))
            }
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
            (Self::Overdue, None) => format!("lost twice: its machine {OVERDUE}"),
            (Self::Emulator(_), _) | (Self::Ended(Ending::Taken) | Self::Stopped, None) => {
                let what = self.not_the_kernel().unwrap_or_default();
                format!("lost twice, and the kernel is not at fault: its machine {what}")
            }
            (_, Some(what)) => return Outcome::Crashed { what, during },
            (Self::Silent, None) => return Outcome::Hung { during },
            (Self::Ended(Ending::Itself), None) => {
                return Outcome::Crashed { what: self.in_words(), during };
            }
            (Self::Ended(Ending::Flooded), None) => self.in_words(),
        };
        Outcome::CouldNotTell { why }
    }

    fn in_words(&self) -> String {
        match self {
            Self::Ended(Ending::Itself) => "the machine ended without a word".to_owned(),
            Self::Ended(Ending::Taken) | Self::Stopped | Self::Overdue | Self::Emulator(_) => {
                format!("the machine {}", self.not_the_kernel().unwrap_or_default())
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
        let (told_from, told) = &self.boot.told;
        let before = machine.console_between(*told_from, self.boot.console_from);
        let (cause, alarm) = (cause.by_its_console(&console), untold_alarm(&before, &console, told));
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
        if let Some(why) = cause.not_the_kernel()
            && !self.run.asked_again.iter().any(|again| again.probe == current.probe)
        {
            let text = format!("the machine {why}, during {}, which is run again", current.probe);
            self.observer.note(&self.job.kernel, &text);
            self.boot.lost = Some(text);
            self.run.asked_again.push(AskedAgain { probe: current.probe, why });
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
            Cause::Emulator(_) => cause.in_words(),
            Cause::Ended(_) | Cause::Silent | Cause::Stopped | Cause::Overdue => {
                alarm.unwrap_or_else(|| cause.in_words())
            }
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
        self.boot.told.1.extend(warnings.iter().cloned());
        for what in warnings {
            let warning = Between { after: self.boot.last.clone(), what };
            self.observer.note(&self.job.kernel, &format!("the kernel warned {warning}"));
            self.run.warned_between.push(warning);
        }
    }
}

/// The first alarm in `console` that is none of those that the guest has `told` of. Where a probe begins in the console is
/// known only when the harness has listened all the time; when it had not, what an earlier probe made the kernel say may
/// stand in `console`, else it is in `before`.
fn untold_alarm(before: &str, console: &str, told: &[String]) -> Option<String> {
    let mut told = told.to_vec();
    let mut is_told = |alarm: &String| {
        let at = told.iter().position(|it| it.trim() == alarm);
        at.map(|at| told.swap_remove(at)).is_some()
    };
    // What stands before is taken off first, so that the same words behind it are another alarm.
    let _ = alarms(before).filter(&mut is_told).count();
    alarms(console).find(|alarm| !is_told(alarm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_that_was_told_of_is_no_later_probes() {
        let told = ["BUG: x".to_owned(), "WARNING: y".to_owned()];
        let (first, second) = ("[    1.0] BUG: x\n", "[    2.0] Oops: z\n");
        let both = format!("{first}{second}");
        // Where the harness listened, and where it had not.
        for (before, console) in [(first, second), ("", both.as_str())] {
            assert_eq!(untold_alarm(before, console, &told).as_deref(), Some("Oops: z"));
        }
        assert_eq!(untold_alarm("", first, &told), None);
        // The same words again are another alarm.
        assert_eq!(untold_alarm(first, first, &told).as_deref(), Some("BUG: x"));
    }
}
