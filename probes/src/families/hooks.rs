//! Loading, attaching, firing and denying, hook by hook.
//!
//! A hook is one row of a table: its name, the recipe that makes the kernel call it, and what a denial is to be.

mod fire;
mod row;
mod table;
pub mod unfired;

use crate::asm::Asm;
use crate::errno::Errno;
use crate::lsm::LsmProgram;
use crate::session::{Attempt, Ended, Session, Stop};
use crate::spec::Probe;
use fire::{argument, denied, fire, ignored, returned};
use row::{Hook, Verdict};

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    table::hooks()
        .map(|hook| {
            let end = match hook.verdict {
                Verdict::Errnos(_) => ", and deny it",
                Verdict::Values(_) => ", and decide it",
                Verdict::Nothing => ", whatever it returns",
            };
            Probe::new(
                format!("hooks/{}", hook.name),
                format!(
                    "Does a program on {} load, also sleepable, attach, run for its trigger{end}?",
                    hook.name
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
    let mut ready = None;
    session.case("fire", |attempt| fire(attempt, hook, &mut ready))?;
    if let Some(it) = hook.argument {
        session.case("argument", |attempt| argument(attempt, hook, &it, &mut ready))?;
    }
    match hook.verdict {
        Verdict::Errnos(errnos) => {
            for &errno in errnos {
                let name = format!("deny-{errno}");
                session.case(&name, |attempt| denied(attempt, hook, &mut ready, errno))?;
            }
        }
        Verdict::Values(values) => {
            drop(ready.take()); // these have programs of their own
            for &value in values {
                session.case(&format!("return-{value}"), |attempt| returned(attempt, hook, value))?;
            }
        }
        Verdict::Nothing => {
            session.case("load-without-return-value", |attempt| load_without_value(attempt, hook))?;
            session.case("return-EPERM", |attempt| ignored(attempt, hook, &mut ready, Errno::EPERM))?;
        }
    }
    // The program names nobody any more and stays: PID 1 takes its link over, and nobody waits for a grace period.
    std::mem::forget(ready);
    Ok(())
}

fn load(attempt: &mut Attempt<'_>, hook: Hook, sleepable: bool) -> Result<(), Ended> {
    let results = attempt.results()?;
    let program = LsmProgram::counting(hook.name, &results);
    attempt.load_lsm(&if sleepable { program.sleepable() } else { program })?;
    Ok(())
}

/// What a C function of type void would be compiled to: nothing in R0.
fn load_without_value(attempt: &mut Attempt<'_>, hook: Hook) -> Result<(), Ended> {
    let mut asm = Asm::new();
    asm.exit();
    attempt.load_lsm(&LsmProgram::raw(hook.name, asm))?;
    Ok(())
}
