//! Loading, attaching, firing and denying, hook by hook.
//!
//! A hook is one row of a table: its name, the recipe that makes the kernel call it, and what a denial is to be.

mod table;

use crate::asm::Asm;
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{Attached, CTX, LsmProgram, PAGE, deny};
use crate::results::{FREE, RUNS, Results, TARGET};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::spec::{Probe, Source};
use crate::triggers::{Act, Arm, Recipe, Seen};

/// Where the page holds the verdict of the program of [`Ready`].
const VERDICT: i32 = FREE;

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
    let mut ready = None;
    session.case("fire", |attempt| fire(attempt, hook, &mut ready))?;
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

/// A trigger with a program on the hook, which the cases of a probe share: on some kernels it is the waiting for
/// grace periods while attaching and detaching that takes the time.
struct Ready {
    results: Results,
    act: Act,
    _attached: Attached,
}

impl Ready {
    /// Tries the trigger without a program, then attaches one that returns the verdict in the page.
    fn new(attempt: &mut Attempt<'_>, hook: Hook) -> Result<Self, Ended> {
        Self::with(attempt, hook, |asm| {
            if matches!(hook.verdict, Verdict::Values(_)) {
                return; // no errno passes there; its own program returns 0
            }
            // The verifier wants to see an errno (6.12 kernel/bpf/bpf_lsm.c, bpf_lsm_get_retval_range).
            asm.ldx(Size::DW, Reg::R0, PAGE, VERDICT)
                .jsgt_imm(Reg::R0, 0, "pass")
                .jslt_imm(Reg::R0, -4095, "pass")
                .exit();
        })
    }

    /// The same, the program ending with `decide`.
    fn with(attempt: &mut Attempt<'_>, hook: Hook, decide: impl FnOnce(&mut Asm)) -> Result<Self, Ended> {
        attempt.hook(hook.name)?;
        let mut results = attempt.results()?;
        results.name_nobody();
        let mut act = (hook.recipe)().map_err(|errno| Ended::could_not("make the trigger ready", errno))?;
        act(Arm::idle()).map_err(|errno| Ended::could_not("do the trigger without a program", errno))?;
        let program = program(attempt, hook, &results, decide)?;
        let attached = attempt.attach_lsm(&program)?;
        Ok(Self { results, act, _attached: attached })
    }

    /// What an earlier case has left, after trying that its program lets pass whom it is not for; else a new one.
    fn again(attempt: &mut Attempt<'_>, hook: Hook, ready: &mut Option<Self>) -> Result<Self, Ended> {
        let Some(mut ready) = ready.take() else { return Self::new(attempt, hook) };
        attempt.loaded(true, "");
        (ready.act)(Arm::idle()).map_err(|errno| Ended::could_not("do the trigger for nobody", errno))?;
        Ok(ready)
    }

    /// Does the trigger while the program returns `verdict`.
    fn trigger(&mut self, attempt: &mut Attempt<'_>, verdict: i32) -> Result<Seen, Errno> {
        self.results.set(RUNS, 0);
        self.results.set(VERDICT, i64::from(verdict).cast_unsigned());
        let outcome = attempt.trigger(|| (self.act)(Arm::new(&self.results)));
        self.results.name_nobody();
        outcome
    }

    /// Notes the outcome, and that of the same act for nobody: the program is still attached, so what changes is its
    /// verdict for the target alone.
    fn see(&mut self, attempt: &mut Attempt<'_>, outcome: Result<Seen, Errno>) {
        see(attempt, "user space sees", outcome);
        let other = (self.act)(Arm::idle());
        see(attempt, "not the target", other);
    }
}

fn fire(attempt: &mut Attempt<'_>, hook: Hook, kept: &mut Option<Ready>) -> Result<(), Ended> {
    let mut ready = Ready::new(attempt, hook)?;
    let outcome = ready.trigger(attempt, 0);
    match hook.calls {
        Calls::Counted => attempt.runs(ready.results.runs()),
        Calls::Some => attempt.ran(ready.results.runs() > 0),
    }
    see(attempt, "user space sees", outcome);
    *kept = Some(ready);
    Ok(())
}

fn denied(
    attempt: &mut Attempt<'_>,
    hook: Hook,
    kept: &mut Option<Ready>,
    errno: Errno,
) -> Result<(), Ended> {
    let mut ready = Ready::again(attempt, hook, kept)?;
    let outcome = ready.trigger(attempt, deny(errno));
    attempt.ran(ready.results.runs() > 0);
    attempt.denial("user space sees", &outcome, errno);
    ready.see(attempt, outcome);
    *kept = Some(ready);
    Ok(())
}

/// A verdict that nobody listens to.
fn ignored(
    attempt: &mut Attempt<'_>,
    hook: Hook,
    kept: &mut Option<Ready>,
    errno: Errno,
) -> Result<(), Ended> {
    let mut ready = Ready::again(attempt, hook, kept)?;
    let outcome = ready.trigger(attempt, deny(errno));
    attempt.ran(ready.results.runs() > 0);
    ready.see(attempt, outcome);
    *kept = Some(ready);
    Ok(())
}

/// A value of which the verifier is to judge, and if it lets it pass the kernel.
fn returned(attempt: &mut Attempt<'_>, hook: Hook, value: i32) -> Result<(), Ended> {
    let mut ready = Ready::with(attempt, hook, |asm| {
        asm.mov_imm(Reg::R0, value).exit();
    })?;
    let outcome = ready.trigger(attempt, value);
    attempt.ran(ready.results.runs() > 0);
    ready.see(attempt, outcome);
    Ok(())
}

/// A program that counts the calls that belong to the trigger and does `decide` for them; it returns 0 to all others.
fn program(
    attempt: &Attempt<'_>,
    hook: Hook,
    results: &Results,
    decide: impl FnOnce(&mut Asm),
) -> Result<LsmProgram, Ended> {
    match hook.whom {
        Whom::Current => Ok(LsmProgram::framed(hook.name, results, decide)),
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
                .atomic_add(Size::DW, PAGE, RUNS, Reg::R1);
            decide(&mut asm);
            asm.label("pass").mov_imm(Reg::R0, 0).exit();
            Ok(LsmProgram::raw(hook.name, asm))
        }
    }
}

/// Notes what user space saw: the errno, or in which way there was none.
fn see(attempt: &mut Attempt<'_>, key: &str, outcome: Result<Seen, Errno>) {
    attempt.see(key, outcome.map_or_else(Errno::name, |seen| seen.0.to_owned()));
}
