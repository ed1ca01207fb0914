//! Several programs on one hook: who runs, what each sees, whose verdict counts.

use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{Attached, CTX, LsmProgram, PAGE, deny};
use crate::results::{FREE, Results};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::spec::{Probe, source};
use crate::triggers::{Arm, Recipe, files};

/// Number of calls so far. Counted without an atomic operation, which before 5.12 would not give the number back:
/// programs act for one task, which is in one of them at a time.
const SEQUENCE: i32 = FREE;
/// An int hook with one argument, so that `ret` is in the second slot of the context.
const INT_HOOK: &str = "file_open";
/// A void hook.
const VOID_HOOK: &str = "file_set_fowner";
/// More programs than any kernel takes on one hook.
const MANY: i32 = 48;

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    let progs = source("7.1", "kernel/bpf/trampoline.c", "bpf_trampoline_get_progs");
    let mod_ret = source("7.1", "arch/x86/net/bpf_jit_comp.c", "invoke_bpf_mod_ret");
    vec![
        Probe::new(
            "chain/two-programs",
            "With two programs on one hook, which run, in which order, with which ret, and whose verdict counts?",
            &[progs, mod_ret, source("5.9", "arch/x86/net/bpf_jit_comp.c", "invoke_bpf_mod_ret")],
            two_programs,
        ),
        Probe::new(
            "chain/void-two-programs",
            "With two programs on one void hook, do both run whatever they return, and in which order?",
            &[progs, source("7.1", "arch/x86/net/bpf_jit_comp.c", "invoke_bpf")],
            two_programs_on_void,
        ),
        Probe::new(
            "chain/same-program-twice",
            "Can one program be attached to its hook twice, or again after it was detached?",
            &[
                source("7.1", "kernel/bpf/trampoline.c", "__bpf_trampoline_link_prog"),
                source("7.1", "kernel/bpf/syscall.c", "bpf_tracing_prog_attach"),
                source("5.9", "kernel/bpf/trampoline.c", "bpf_trampoline_link_prog"),
            ],
            same_program_twice,
        ),
        Probe::new(
            "chain/many-programs",
            "How many programs can be attached to one hook, and what does the one too many get?",
            &[source("7.1", "kernel/bpf/trampoline.c", "__bpf_trampoline_link_prog")],
            many_programs,
        ),
    ]
}

/// One of the programs of a chain: where it leaves what it saw.
#[derive(Clone, Copy)]
struct Place(i32);

impl Place {
    /// The program attached first, second, ..
    const fn nth(number: i32) -> Self {
        Self(FREE + 16 + number * 24)
    }

    const fn order(self) -> i32 {
        self.0
    }

    const fn ret(self) -> i32 {
        self.0 + 8
    }
}

/// A program that notes at `place` when it ran and what `ret` was, if there is one, and returns `verdict`.
fn link(hook: &str, results: &Results, place: Place, ret_slot: Option<i32>, verdict: i32) -> LsmProgram {
    LsmProgram::framed(hook, results, |asm| {
        asm.ldx(Size::DW, Reg::R1, PAGE, SEQUENCE)
            .add_imm(Reg::R1, 1)
            .stx(Size::DW, PAGE, SEQUENCE, Reg::R1)
            .stx(Size::DW, PAGE, place.order(), Reg::R1);
        if let Some(slot) = ret_slot {
            asm.ldx(Size::DW, Reg::R1, CTX, slot).stx(Size::DW, PAGE, place.ret(), Reg::R1);
        }
        asm.mov_imm(Reg::R0, verdict).exit();
    })
}

fn two_programs(session: &mut Session<'_>) -> Result<(), Stop> {
    let (pass, eperm, eacces) = (0, deny(Errno::EPERM), deny(Errno::EACCES));
    for (name, verdicts) in [
        ("first-0-second-0", [pass, pass]),
        ("first-0-second-EPERM", [pass, eperm]),
        ("first-EPERM-second-0", [eperm, pass]),
        ("first-EPERM-second-EACCES", [eperm, eacces]),
        ("first-EACCES-second-EPERM", [eacces, eperm]),
    ] {
        session.case(name, |attempt| chain(attempt, INT_HOOK, Some(8), files::open, verdicts))?;
    }
    Ok(())
}

fn two_programs_on_void(session: &mut Session<'_>) -> Result<(), Stop> {
    let eperm = deny(Errno::EPERM);
    session.case("both-0", |attempt| chain(attempt, VOID_HOOK, None, files::setown, [0, 0]))?;
    session.case("both-EPERM", |attempt| chain(attempt, VOID_HOOK, None, files::setown, [eperm, eperm]))
}

/// Attaches two programs one after the other and does what makes the kernel run them.
fn chain(
    attempt: &mut Attempt<'_>,
    hook: &str,
    ret_slot: Option<i32>,
    recipe: Recipe,
    verdicts: [i32; 2],
) -> Result<(), Ended> {
    attempt.hook(hook)?;
    let mut results = attempt.results()?;
    results.name_nobody();
    let mut act = recipe().map_err(|errno| Ended::could_not("make the trigger ready", errno))?;
    act(Arm::idle()).map_err(|errno| Ended::could_not("do the trigger without a program", errno))?;
    let mut attached = Vec::new();
    for (number, verdict) in (0..).zip(verdicts) {
        attached.push(attempt.attach_lsm(&link(hook, &results, Place::nth(number), ret_slot, verdict))?);
    }
    let outcome = attempt.trigger(|| act(Arm::new(&results)));
    attempt.runs(results.runs());
    see_order(attempt, &results);
    if ret_slot.is_some() {
        for (number, key) in ["the first saw ret", "the second saw ret"].into_iter().enumerate() {
            let place = Place::nth(i32::try_from(number).unwrap_or(0));
            if results.get(place.order()) != 0 {
                attempt.see(key, results.get(place.ret()).cast_signed());
            }
        }
    }
    // Which of two denials is heard is the question, so either counts as one.
    let heard =
        verdicts.into_iter().find(|&verdict| outcome.as_ref().err().is_some_and(|e| deny(*e) == verdict));
    let asked = heard.or(verdicts.into_iter().find(|&verdict| verdict != 0)).filter(|_| ret_slot.is_some());
    match asked {
        Some(verdict) => attempt.denial("user space sees", &outcome, Errno::from_raw(verdict)),
        None => attempt.outcome("user space sees", &outcome),
    }
    drop(attached);
    Ok(())
}

/// Notes which programs ran, the earliest first.
fn see_order(attempt: &mut Attempt<'_>, results: &Results) {
    let mut ran: Vec<(u64, &str)> = [(0, "the first attached"), (1, "the second attached")]
        .into_iter()
        .map(|(number, name)| (results.get(Place::nth(number).order()), name))
        .filter(|&(order, _)| order != 0)
        .collect();
    ran.sort_unstable();
    let names: Vec<&str> = ran.into_iter().map(|(_, name)| name).collect();
    attempt.see("ran", names.join(", then "));
}

fn same_program_twice(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("while-attached", |attempt| twice(attempt, INT_HOOK, true))?;
    session.case("while-attached-void", |attempt| twice(attempt, VOID_HOOK, true))?;
    session.case("after-detach", |attempt| twice(attempt, INT_HOOK, false))
}

/// Attaches a program, and once more while it is attached or after it was detached.
fn twice(attempt: &mut Attempt<'_>, hook: &str, while_attached: bool) -> Result<(), Ended> {
    let results = attempt.results()?;
    let Attached { program, link } = attempt.attach_lsm(&LsmProgram::counting(hook, &results))?;
    let link = while_attached.then_some(link);
    let again = attempt.attach(&program);
    drop(link);
    again.map(drop)
}

fn many_programs(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("until-refused", |attempt| {
        // A macro at first, an enumerator later; then the kernel says what it is built with.
        if let Some(limit) = attempt.btf()?.enum_value(None, "BPF_MAX_TRAMP_LINKS") {
            attempt.see("BPF_MAX_TRAMP_LINKS", limit);
        }
        let results = attempt.results()?;
        let mut attached = Vec::new();
        for count in 0..MANY {
            let program = attempt.load_lsm(&LsmProgram::counting(INT_HOOK, &results))?;
            match attempt.attach(&program) {
                Ok(link) => attached.push((program, link)),
                Err(ended) => {
                    attempt.see("attached", count);
                    return Err(ended);
                }
            }
        }
        attempt.see("attached", MANY);
        Ok(())
    })?;
    session.case("first-of-eight-denies", first_of_eight)
}

/// The one that denies runs last: the seven that were attached after it run and allow.
fn first_of_eight(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    let mut results = attempt.results()?;
    results.name_nobody();
    let mut act = files::open().map_err(|errno| Ended::could_not("make the trigger ready", errno))?;
    let mut attached =
        vec![attempt.attach_lsm(&LsmProgram::returning(INT_HOOK, &results, deny(Errno::EPERM)))?];
    for _ in 0..7 {
        attached.push(attempt.attach_lsm(&LsmProgram::counting(INT_HOOK, &results))?);
    }
    let outcome = attempt.trigger(|| act(Arm::new(&results)));
    attempt.runs(results.runs());
    attempt.denial("user space sees", &outcome, Errno::EPERM);
    attempt.see("programs attached", attached.len());
    Ok(())
}
