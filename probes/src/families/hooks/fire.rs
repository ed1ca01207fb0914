//! Firing and denying: a program on the hook, the trigger without and with a verdict, and what user space sees.

mod argument;

use super::row::{Argument, Calls, Hook, Verdict, Whom};
use crate::asm::Asm;
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::{Attached, CTX, LsmProgram, PAGE, deny};
use crate::record::Phase;
use crate::results::{FREE, RUNS, Results, TARGET};
use crate::session::{Attempt, Ended};
use crate::triggers::{Act, Arm, Seen, not_ready, stands_for};

/// Where the page holds the verdict of the program of [`Ready`].
const VERDICT: i32 = FREE;

/// A trigger with a program on the hook, which the cases of a probe share: on some kernels it is the waiting for
/// grace periods while attaching and detaching that takes the time.
pub(super) struct Ready {
    results: Results,
    act: Act,
    /// What user space sees when nobody interferes.
    control: Seen,
    attached: Attached,
    /// The trigger is only a part of the usual one here, so that no call says nothing.
    partial: bool,
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
        let (act, control) = match tried(hook) {
            Ok(ready) => ready,
            Err(why) => return Err(refused_or(attempt, program(attempt, hook, &results, decide), why)),
        };
        let program = program(attempt, hook, &results, decide)?;
        let attached = attempt.attach_lsm(&program)?;
        Ok(Self { results, act, control, attached, partial: hook.partial == Some(control) })
    }

    /// Undoes what the trigger has made ready. The program names nobody any more and stays: PID 1 takes its link over, and
    /// nobody waits for a grace period.
    pub(super) fn leave(self) {
        let Self { results, act, attached, .. } = self;
        drop(act);
        std::mem::forget((results, attached));
    }

    /// What an earlier case has left, else a new one. What that case did last was let pass, by a verdict or for nobody
    /// ([`Ready::see`]), so that the trigger is known to work with the program attached.
    fn again(attempt: &mut Attempt<'_>, hook: Hook, ready: &mut Option<Self>) -> Result<Self, Ended> {
        let Some(ready) = ready.take() else { return Self::new(attempt, hook) };
        attempt.loaded(true, "");
        Ok(ready)
    }

    /// Does the trigger while the program returns `verdict`.
    fn trigger(&mut self, attempt: &mut Attempt<'_>, verdict: i32) -> Result<Outcome, Ended> {
        self.results.set(RUNS, 0);
        self.results.set(VERDICT, i64::from(verdict).cast_unsigned());
        let outcome = attempt.trigger(|| (self.act)(Arm::new(&self.results)));
        self.results.name_nobody();
        if self.partial && self.results.runs() == 0 {
            let why = format!("the trigger is not whole here: {}", self.control.0);
            return Err(Ended::CouldNotTell(why));
        }
        answered(outcome)
    }

    /// Why no verdict can be seen here, if none can.
    fn mute(&self, hook: Hook) -> Option<Ended> {
        let mute = hook.mute == Some(self.control);
        mute.then(|| Ended::CouldNotTell(format!("nothing for a verdict to change: {}", self.control.0)))
    }

    /// Notes the outcome, and that of the same act for nobody: the program is still attached, so what changes is its
    /// verdict for the target alone.
    fn see(&mut self, attempt: &mut Attempt<'_>, outcome: Outcome) -> Result<Outcome, Ended> {
        see(attempt, "user space sees", outcome);
        let other = answered((self.act)(Arm::idle()))?;
        see(attempt, "not the target", other);
        Ok(other)
    }

    /// As [`Ready::see`]; whatever only the target sees is a denial.
    fn see_denial(
        &mut self,
        attempt: &mut Attempt<'_>,
        hook: Hook,
        outcome: Outcome,
        asked: Errno,
    ) -> Result<(), Ended> {
        let other = self.see(attempt, outcome)?;
        if other == Ok(self.control) {
            attempt.denied_as(&outcome, &self.control, asked);
            if hook.own == Some(asked) && outcome == Err(asked) {
                attempt.see("denied as", "the kernel's own errno, which is the same");
            }
        } else {
            attempt.denied_as(&Ok(self.control), &self.control, asked); // others saw it too: no verdict for the target
        }
        Ok(())
    }
}

/// What user space saw of an act.
type Outcome = Result<Seen, Errno>;

/// What came of an act, if that is an answer: an errno that the act has made itself must not count as a denial.
fn answered(outcome: Outcome) -> Result<Outcome, Ended> {
    match outcome.err().and_then(stands_for) {
        Some(why) => Err(Ended::CouldNotTell(format!("the trigger gave no answer: {why}"))),
        None => Ok(outcome),
    }
}

/// A trigger that is ready and works without a program, and what user space sees then.
fn tried(hook: Hook) -> Result<(Act, Seen), Ended> {
    let mut act = (hook.recipe)().map_err(|errno| not_ready("make the trigger ready", errno))?;
    let control = answered(act(Arm::idle()))?;
    let control = control.map_err(|errno| Ended::could_not("do the trigger without a program", errno))?;
    Ok((act, control))
}

/// How a case ends that has no trigger: with the kernel's refusal of the program, if it refuses that, else it could not tell,
/// and whether it takes the program counts for nothing.
fn refused_or(attempt: &mut Attempt<'_>, program: Result<LsmProgram, Ended>, why: Ended) -> Ended {
    let Ended::CouldNotTell(why) = why else { return why };
    if let Ok(program) = program
        && let Err(refused @ Ended::Refused(_)) = attempt.load_lsm(&program)
    {
        return refused;
    }
    attempt.at(Phase::Open);
    attempt.undecided(why)
}

pub(super) fn fire(attempt: &mut Attempt<'_>, hook: Hook, kept: &mut Option<Ready>) -> Result<(), Ended> {
    let mut ready = Ready::new(attempt, hook)?;
    let outcome = ready.trigger(attempt, hook.pass)?;
    match hook.calls {
        Calls::Counted => attempt.runs(ready.results.runs()),
        Calls::Some => attempt.ran(ready.results.runs() > 0),
    }
    see(attempt, "user space sees", outcome);
    *kept = Some(ready);
    Ok(())
}

pub(super) fn denied(
    attempt: &mut Attempt<'_>,
    hook: Hook,
    kept: &mut Option<Ready>,
    errno: Errno,
) -> Result<(), Ended> {
    let mut ready = Ready::again(attempt, hook, kept)?;
    if let Some(why) = ready.mute(hook) {
        *kept = Some(ready);
        return Err(why);
    }
    let outcome = ready.trigger(attempt, deny(errno))?;
    let ran = ready.results.runs() > 0;
    attempt.ran(ran);
    if ran {
        ready.see_denial(attempt, hook, outcome, errno)?;
    } else {
        let _ = ready.see(attempt, outcome)?; // nobody has asked for a denial
    }
    *kept = Some(ready);
    Ok(())
}

/// A verdict that nobody listens to.
pub(super) fn ignored(
    attempt: &mut Attempt<'_>,
    hook: Hook,
    kept: &mut Option<Ready>,
    errno: Errno,
) -> Result<(), Ended> {
    let mut ready = Ready::again(attempt, hook, kept)?;
    let outcome = ready.trigger(attempt, deny(errno))?;
    attempt.ran(ready.results.runs() > 0);
    let _ = ready.see(attempt, outcome)?;
    *kept = Some(ready);
    Ok(())
}

/// Whether a program is run for the trigger, and what user space sees when it lets pass and when it denies.
pub(super) fn once(attempt: &mut Attempt<'_>, hook: Hook) -> Result<(), Ended> {
    let mut ready = Ready::new(attempt, hook)?;
    let outcome = ready.trigger(attempt, hook.pass)?;
    attempt.ran(ready.results.runs() > 0);
    see(attempt, "user space sees", outcome);
    if matches!(hook.verdict, Verdict::Errnos(_)) && ready.mute(hook).is_none() {
        let key = "when it denies with EPERM";
        let outcome = ready.trigger(attempt, deny(Errno::EPERM))?;
        if ready.results.runs() > 0 {
            see(attempt, key, outcome);
            attempt.denied_as(&outcome, &ready.control, Errno::EPERM);
        } else {
            attempt.see(key, format!("it is not asked; user space sees {}", word(outcome)));
        }
    }
    Ok(())
}

/// A value of which the verifier is to judge, and if it lets it pass the kernel.
pub(super) fn returned(attempt: &mut Attempt<'_>, hook: Hook, value: i32) -> Result<(), Ended> {
    let mut ready = Ready::with(attempt, hook, |asm| {
        asm.mov_imm(Reg::R0, value).exit();
    })?;
    if let Some(why) = ready.mute(hook) {
        return Err(why);
    }
    let outcome = ready.trigger(attempt, value)?;
    attempt.ran(ready.results.runs() > 0);
    let _ = ready.see(attempt, outcome)?;
    Ok(())
}

/// What an argument holds, against what user space knows.
pub(super) fn argument(
    attempt: &mut Attempt<'_>,
    hook: Hook,
    argument: &Argument,
    kept: &mut Option<Ready>,
) -> Result<(), Ended> {
    let mut ready = Ready::again(attempt, hook, kept)?;
    let way = argument.way(attempt.btf()?, hook.name)?;
    argument.expect(&mut ready.results)?;
    let _ = ready.trigger(attempt, hook.pass)?;
    attempt.ran(ready.results.runs() > 0);
    argument.report(attempt, &way, &ready.results);
    *kept = Some(ready);
    Ok(())
}

/// A program that counts the calls that belong to the trigger, reads the row's argument and does `decide` for them;
/// to all others it returns what decides nothing.
fn program(
    attempt: &Attempt<'_>,
    hook: Hook,
    results: &Results,
    decide: impl FnOnce(&mut Asm),
) -> Result<LsmProgram, Ended> {
    let mut asm = Asm::new();
    asm.mov_reg(CTX, Reg::R1).ld_map_value(PAGE, results, 0);
    match hook.whom {
        Whom::Current => {
            asm.call(helper::GET_CURRENT_PID_TGID).rsh_imm(Reg::R0, 32).mov_reg(Reg::R1, Reg::R0);
        }
        Whom::Anyone => {
            asm.mov_imm(Reg::R1, 0); // the mark that such a trigger names
        }
        Whom::Object { slot, path } => {
            let mark = argument::steps(attempt.btf()?, path)?;
            argument::follow(&mut asm, slot, &mark, "pass");
        }
    }
    asm.ldx(Size::DW, Reg::R2, PAGE, TARGET).jne_reg(Reg::R1, Reg::R2, "pass");
    // A kernel without the member has a program that does not read it; the case `argument` says so.
    if let Some(argument) = hook.argument
        && let Ok(way) = argument.way(attempt.btf()?, hook.name)
    {
        argument.read(&mut asm, &way);
    }
    // Last: user space may be waiting on another processor for a run, and looks at once at what it brought.
    asm.mov_imm(Reg::R1, 1).atomic_add(Size::DW, PAGE, RUNS, Reg::R1);
    decide(&mut asm);
    asm.label("pass").mov_imm(Reg::R0, hook.pass).exit();
    Ok(LsmProgram::raw(hook.name, asm))
}

/// Notes what user space saw.
fn see(attempt: &mut Attempt<'_>, key: &str, outcome: Outcome) {
    attempt.see(key, word(outcome));
}

/// The errno, or in which way there was none.
fn word(outcome: Outcome) -> String {
    outcome.map_or_else(Errno::name, |seen| seen.0.to_owned())
}
