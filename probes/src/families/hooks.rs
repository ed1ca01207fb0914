//! Loading, attaching, firing and denying, hook by hook.
//!
//! A hook is one row of a table: its name, the recipe that makes the kernel call it, and what a denial is to be.

mod table;

use crate::errno::Errno;
use crate::lsm::{LsmProgram, deny};
use crate::results::{Results, TARGET};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::spec::{Probe, Source};
use crate::triggers::{Arm, Recipe};

/// A hook's row.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Its name, without `bpf_lsm_`.
    pub name: &'static str,
    /// What makes the kernel call it.
    pub recipe: Recipe,
    /// How calls are counted.
    pub calls: Calls,
    /// What denying it means.
    pub verdict: Verdict,
    /// Where the kernel calls it.
    pub source: Source,
}

/// How the calls that one trigger causes are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Their number is the kernel's and always the same.
    Counted,
    /// Their number depends on timing or memory; only whether there were any is recorded.
    Some,
}

/// What a hook's return value can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An int hook: each errno is tried, and user space should see it.
    Errnos(&'static [Errno]),
    /// A void hook, or one whose value is no verdict: nothing is denied.
    Nothing,
}

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    table::HOOKS
        .iter()
        .map(|&hook| {
            Probe::new(
                format!("hooks/{}", hook.name),
                format!(
                    "Does a program on {} load, also sleepable, attach, run for its trigger{}?",
                    hook.name,
                    match hook.verdict {
                        Verdict::Errnos(_) => ", and deny it",
                        Verdict::Nothing => "",
                    }
                ),
                &[hook.source],
                move |session| hook_probe(session, hook),
            )
        })
        .collect()
}

fn hook_probe(session: &mut Session<'_>, hook: Hook) -> Result<(), Stop> {
    session.case("load", |attempt| load(attempt, hook, false))?;
    session.case("load-sleepable", |attempt| load(attempt, hook, true))?;
    session.case("fire", |attempt| fire(attempt, hook))?;
    if let Verdict::Errnos(errnos) = hook.verdict {
        for &errno in errnos {
            session.case(&format!("deny-{errno}"), |attempt| denied(attempt, hook, errno))?;
        }
    }
    Ok(())
}

fn load(attempt: &mut Attempt<'_>, hook: Hook, sleepable: bool) -> Result<(), Ended> {
    let results = attempt.results()?;
    let program = LsmProgram::counting(hook.name, &results);
    attempt.load_lsm(&if sleepable { program.sleepable() } else { program })?;
    Ok(())
}

fn fire(attempt: &mut Attempt<'_>, hook: Hook) -> Result<(), Ended> {
    attempt.hook(hook.name)?;
    let results = idle_results(attempt)?;
    let mut act = (hook.recipe)().map_err(|errno| Ended::could_not("make the trigger ready", errno))?;
    act(Arm::idle()).map_err(|errno| Ended::could_not("do the trigger without a program", errno))?;
    let _attached = attempt.attach_lsm(&LsmProgram::counting(hook.name, &results))?;
    let outcome = attempt.trigger(|| act(Arm::new(&results)));
    match hook.calls {
        Calls::Counted => attempt.runs(results.runs()),
        Calls::Some => attempt.ran(results.runs() > 0),
    }
    attempt.outcome("user space sees", &outcome);
    Ok(())
}

fn denied(attempt: &mut Attempt<'_>, hook: Hook, errno: Errno) -> Result<(), Ended> {
    attempt.hook(hook.name)?;
    let results = idle_results(attempt)?;
    let mut act = (hook.recipe)().map_err(|errno| Ended::could_not("make the trigger ready", errno))?;
    act(Arm::idle()).map_err(|errno| Ended::could_not("do the trigger without a program", errno))?;
    let attached = attempt.attach_lsm(&LsmProgram::returning(hook.name, &results, deny(errno)))?;
    let outcome = attempt.trigger(|| act(Arm::new(&results)));
    attempt.ran(results.runs() > 0);
    attempt.denial("user space sees", &outcome, errno);
    // The same act for nobody: the program is still attached, so what changes is its verdict for the target alone.
    let other = act(Arm::idle());
    attempt.outcome("not the target", &other);
    drop(attached);
    Ok(())
}

/// A results page that names nobody yet.
fn idle_results(attempt: &mut Attempt<'_>) -> Result<Results, Ended> {
    let mut results = attempt.results()?;
    results.set(TARGET, 0);
    Ok(results)
}
