//! Loading, attaching, firing and denying, hook by hook.
//!
//! A hook is one row of a table: its name, the recipe that makes the kernel call it, and what a denial is to be.

mod table;

use crate::asm::Asm;
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, LsmProgram, PAGE, deny};
use crate::results::{RUNS, Results, TARGET};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::spec::{Probe, Source};
use crate::triggers::{Act, Arm, Recipe, Seen};

/// A hook's row.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Its name, without `bpf_lsm_`.
    pub name: &'static str,
    /// What makes the kernel call it.
    pub recipe: Recipe,
    /// How calls are counted.
    pub calls: Calls,
    /// Whom a program recognizes as the trigger's doing.
    pub whom: Whom,
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

/// How a program knows that a call belongs to the trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The calling task is the target.
    Current,
    /// The target is the task that the hook's first argument points to, whoever calls.
    FirstArgument,
}

/// What a hook's return value can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An int hook: each errno is tried, and user space should see it or what the kernel makes of it.
    Errnos(&'static [Errno]),
    /// An int hook whose value is no errno: each value is tried.
    Values(&'static [i32]),
    /// A void hook: nothing is denied, whatever a program returns.
    Nothing,
}

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
    session.case("fire", |attempt| fire(attempt, hook))?;
    match hook.verdict {
        Verdict::Errnos(errnos) => {
            for &errno in errnos {
                session.case(&format!("deny-{errno}"), |attempt| denied(attempt, hook, errno))?;
            }
            Ok(())
        }
        Verdict::Values(values) => {
            for &value in values {
                session.case(&format!("return-{value}"), |attempt| returned(attempt, hook, value))?;
            }
            Ok(())
        }
        Verdict::Nothing => {
            session.case("load-without-return-value", |attempt| load_without_value(attempt, hook))?;
            session.case("return-EPERM", |attempt| returned(attempt, hook, deny(Errno::EPERM)))
        }
    }
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

fn fire(attempt: &mut Attempt<'_>, hook: Hook) -> Result<(), Ended> {
    let (results, mut act) = ready(attempt, hook)?;
    let program = returning(attempt, hook, &results, 0)?;
    let attached = attempt.attach_lsm(&program)?;
    let outcome = attempt.trigger(|| act(Arm::new(&results)));
    match hook.calls {
        Calls::Counted => attempt.runs(results.runs()),
        Calls::Some => attempt.ran(results.runs() > 0),
    }
    see(attempt, "user space sees", &outcome);
    drop(attached);
    Ok(())
}

fn denied(attempt: &mut Attempt<'_>, hook: Hook, errno: Errno) -> Result<(), Ended> {
    let (results, mut act) = ready(attempt, hook)?;
    let program = returning(attempt, hook, &results, deny(errno))?;
    let attached = attempt.attach_lsm(&program)?;
    let outcome = attempt.trigger(|| act(Arm::new(&results)));
    attempt.ran(results.runs() > 0);
    attempt.denial("user space sees", &outcome, errno);
    see(attempt, "user space sees", &outcome);
    // The same act for nobody: the program is still attached, so what changes is its verdict for the target alone.
    let other = act(Arm::idle());
    see(attempt, "not the target", &other);
    drop(attached);
    Ok(())
}

/// A value that is not meant as a denial.
fn returned(attempt: &mut Attempt<'_>, hook: Hook, value: i32) -> Result<(), Ended> {
    let (results, mut act) = ready(attempt, hook)?;
    let program = returning(attempt, hook, &results, value)?;
    let attached = attempt.attach_lsm(&program)?;
    let outcome = attempt.trigger(|| act(Arm::new(&results)));
    attempt.ran(results.runs() > 0);
    see(attempt, "user space sees", &outcome);
    let other = act(Arm::idle());
    see(attempt, "not the target", &other);
    drop(attached);
    Ok(())
}

/// A results page that names nobody yet, and the trigger, which has been tried once without a program.
fn ready(attempt: &mut Attempt<'_>, hook: Hook) -> Result<(Results, Act), Ended> {
    attempt.hook(hook.name)?;
    let mut results = attempt.results()?;
    results.set(TARGET, 0);
    let mut act = (hook.recipe)().map_err(|errno| Ended::could_not("make the trigger ready", errno))?;
    act(Arm::idle()).map_err(|errno| Ended::could_not("do the trigger without a program", errno))?;
    Ok((results, act))
}

/// A program that counts the calls that belong to the trigger and returns `value` to them, 0 to all others.
fn returning(attempt: &Attempt<'_>, hook: Hook, results: &Results, value: i32) -> Result<LsmProgram, Ended> {
    match hook.whom {
        Whom::Current => Ok(LsmProgram::returning(hook.name, results, value)),
        Whom::FirstArgument => {
            let tgid = attempt.btf()?.member("task_struct", "tgid");
            let tgid = tgid.map_err(|error| Ended::could_not("find task_struct.tgid", error))?;
            let mut asm = Asm::new();
            asm.mov_reg(CTX, Reg::R1)
                .ld_map_value(PAGE, results, 0)
                .ldx(Size::DW, Reg::R1, CTX, 0)
                .ldx(Size::W, Reg::R1, Reg::R1, tgid.byte_offset)
                .ldx(Size::DW, Reg::R2, PAGE, TARGET)
                .jne_reg(Reg::R1, Reg::R2, "pass")
                .mov_imm(Reg::R1, 1)
                .atomic_add(Size::DW, PAGE, RUNS, Reg::R1)
                .mov_imm(Reg::R0, value)
                .exit()
                .label("pass")
                .mov_imm(Reg::R0, 0)
                .exit();
            Ok(LsmProgram::raw(hook.name, asm))
        }
    }
}

/// Notes what user space saw: the errno, or in which way there was none.
fn see(attempt: &mut Attempt<'_>, key: &str, outcome: &Result<Seen, Errno>) {
    attempt.see(key, outcome.map_or_else(Errno::name, |seen| seen.0.to_owned()));
}
