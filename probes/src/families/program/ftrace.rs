//! What is left of LSM programs when somebody switches ftrace off, through which the kernel calls them.

use crate::errno::Errno;
use crate::lsm::deny;
use crate::rules::{Chain, SESSION, member};
use crate::session::{Attempt, Ended, Session, Stop};
use std::fs;

const SYSCTL: &str = "/proc/sys/kernel/ftrace_enabled";
const EPERM: i32 = deny(Errno::EPERM);

/// Says in the sysctl whether ftrace is to be on.
fn switch(on: bool) -> Result<(), Errno> {
    fs::write(SYSCTL, if on { "1" } else { "0" }).map_err(Errno::from)
}

/// Switches ftrace on again when it goes, whatever became of the case.
struct OnAgain;

impl Drop for OnAgain {
    fn drop(&mut self) {
        let _ = switch(true);
    }
}

fn begin(attempt: &mut Attempt<'_>) -> Result<(Chain, OnAgain), Ended> {
    if !fs::exists(SYSCTL).unwrap_or(false) {
        return Err(Ended::Absent("sysctl kernel.ftrace_enabled".into()));
    }
    Ok((Chain::new(attempt, SESSION)?, OnAgain))
}

/// Does the trigger, and notes whether the program ran and denied it.
fn ask(attempt: &mut Attempt<'_>, chain: &mut Chain, when: &str) {
    let before = chain.results.runs();
    let round = chain.round(attempt, &[EPERM]);
    let word = match (chain.results.runs() - before, round.outcome == Err(Errno::EPERM)) {
        (0, false) => "it does not run",
        (1, true) => "it runs, and denies",
        (0, true) => "it does not run, and is denied",
        (1, false) => "it runs, and does not deny",
        _ => "it runs more than once",
    };
    attempt.see(when, word);
    if word == "it runs, and denies" {
        attempt.denied(true);
    }
}

/// Asks with ftrace on, off, and on again.
fn ask_while_it_is_switched(attempt: &mut Attempt<'_>, chain: &mut Chain) {
    ask(attempt, chain, "attached");
    attempt.outcome("kernel.ftrace_enabled is set to 0", &switch(false));
    ask(attempt, chain, "then");
    attempt.outcome("kernel.ftrace_enabled is set to 1", &switch(true));
    ask(attempt, chain, "after that");
    attempt.runs(chain.results.runs());
}

/// Three cases: a program that is there, one that comes while ftrace is off, and one of a cgroup.
pub(super) fn switched_off(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("off-while-attached", |attempt| {
        let (mut chain, _on_again) = begin(attempt)?;
        let program = attempt.load_lsm(&member(&SESSION, &chain.results, 0))?;
        let _link = attempt.attach(&program)?;
        ask_while_it_is_switched(attempt, &mut chain);
        Ok(())
    })?;
    // While nothing is attached anywhere, which before 6.0 keeps ftrace on; and not first: 5.14 forgets to take a
    // function that it could not attach to out of its list (5.14 kernel/trace/ftrace.c, `register_ftrace_direct`).
    session.case("off-before-attaching", |attempt| {
        let (mut chain, _on_again) = begin(attempt)?;
        let program = attempt.load_lsm(&member(&SESSION, &chain.results, 0))?;
        attempt.outcome("kernel.ftrace_enabled is set to 0", &switch(false));
        let _link = attempt.attach(&program)?;
        ask(attempt, &mut chain, "attached then");
        attempt.outcome("kernel.ftrace_enabled is set to 1", &switch(true));
        ask(attempt, &mut chain, "after that");
        attempt.runs(chain.results.runs());
        Ok(())
    })?;
    session.case("off-while-attached-to-a-cgroup", |attempt| {
        let (mut chain, _on_again) = begin(attempt)?;
        let _attached = chain.deny_in_root(attempt)?;
        ask_while_it_is_switched(attempt, &mut chain);
        Ok(())
    })
}
