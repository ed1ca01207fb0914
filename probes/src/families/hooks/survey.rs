//! What is asked about every function that could be a hook, whether the suite has a trigger for it or not.

use super::prototype::{self, PREFIX, Prototype};
use super::{arguments, returns};
use crate::asm::Asm;
use crate::bpf::{LoadError, Loaded, ProgSpec};
use crate::btf::Btf;
use crate::insn::{Insn, Reg};
use crate::record::Phase;
use crate::session::{Attempt, Ended, Session, Stop};
use std::os::fd::OwnedFd;

/// A function that programs are asked for.
pub(super) struct Subject<'a> {
    name: &'a str,
    id: u32,
    /// Its prototype.
    pub(super) prototype: Prototype,
}

impl Subject<'_> {
    /// Loads a program for the function.
    pub(super) fn ask(
        &self,
        attempt: &mut Attempt<'_>,
        insns: Vec<Insn>,
        log_level: u32,
    ) -> Result<Loaded, LoadError> {
        attempt.ask(&ProgSpec::lsm(self.name, self.id, insns), log_level)
    }
}

/// What [`examine`] found: the function, and the plain program for it that the kernel took.
pub(super) struct Found {
    plain: Option<OwnedFd>,
}

/// The cases that every function has, up to `context`. `None` where the kernel has no such function.
pub(super) fn examine(session: &mut Session<'_>, name: &str) -> Result<Option<Found>, Stop> {
    let mut inventory = None;
    session.case("inventory", |attempt| {
        inventory = Some(take_inventory(attempt, name)?);
        Ok(())
    })?;
    let Some((subject, plain)) = inventory else { return Ok(None) };
    let mut kept = None;
    session.case("load", |attempt| {
        kept = Some(attempt.answered(plain)?.fd);
        Ok(())
    })?;
    let zero = program_returning(0);
    session.case("load-sleepable", |attempt| {
        let spec = ProgSpec::lsm(name, subject.id, zero?).sleepable();
        let answer = attempt.ask(&spec, 1);
        attempt.answered(answer).map(drop)
    })?;
    let one = program_returning(1); // the one value that both int and void hooks take there
    session.case("load-cgroup", |attempt| {
        let spec = ProgSpec::lsm_cgroup(name, subject.id, one?);
        let answer = attempt.ask(&spec, 1);
        attempt.answered(answer).map(drop)
    })?;
    session.case("returns", |attempt| match kept {
        Some(_) => returns::ask(attempt, &subject),
        None => refused_again(attempt, &subject),
    })?;
    session.case("context", |attempt| match kept {
        Some(_) => arguments::ask(attempt, &subject),
        None => refused_again(attempt, &subject),
    })?;
    Ok(Some(Found { plain: kept }))
}

/// Attaches the plain program, and leaves it attached: it lets everything pass, and PID 1 takes its link over.
/// `attached` says that another program of the probe is attached already, which answers the question.
pub(super) fn attach(
    session: &mut Session<'_>,
    name: &str,
    found: &Found,
    attached: bool,
) -> Result<(), Stop> {
    session.case("attach", |attempt| {
        if attached {
            attempt.at(Phase::Attach);
            attempt.loaded(true, "");
            return Ok(());
        }
        let Some(plain) = &found.plain else {
            let id = attempt.hook(name)?;
            let answer = attempt.ask(&ProgSpec::lsm(name, id, program_returning(0)?), 1);
            return attempt.answered(answer).map(drop);
        };
        attempt.loaded(true, "");
        std::mem::forget(attempt.attach(plain)?);
        Ok(())
    })
}

/// Notes what the function is, and gives it with what came of loading a plain program for it.
fn take_inventory<'a>(
    attempt: &mut Attempt<'_>,
    name: &'a str,
) -> Result<(Subject<'a>, Result<Loaded, LoadError>), Ended> {
    let btf = attempt.btf()?;
    let function = format!("{PREFIX}{name}");
    let id = btf.function(&function).ok_or_else(|| Ended::Absent(format!("function {function}")))?;
    let prototype = prototype::of(btf, name, id)
        .ok_or_else(|| Ended::CouldNotTell(format!("the BTF of {function} leads nowhere")))?;
    let subject = Subject { name, id, prototype };
    let plain = subject.ask(attempt, program_returning(0)?, 1);
    let what = is_what(&plain, listed(btf, name));
    attempt.see("hook", what);
    let slots = &subject.prototype.slots;
    attempt.see("prototype", subject.prototype.text.as_str());
    // Where the kernel takes no program, it gives none any slots.
    if plain.is_ok() {
        attempt.see("slots", slots.len());
        match slots.iter().position(|slot| slot == "ret") {
            Some(slot) => attempt.see("slot of ret", slot),
            None => attempt.see("slot of ret", "none"),
        }
    }
    attempt.at(Phase::Load);
    Ok((subject, plain))
}

/// What the function is, by the kernel's answer to a plain program and, where that leaves it open, by its list of hooks.
fn is_what(plain: &Result<Loaded, LoadError>, listed: Option<bool>) -> &'static str {
    match (plain, listed) {
        (Ok(_), Some(false)) => TAKEN,
        (Ok(_), _) => YES,
        (Err(refused), _) if refused.log.contains("points to disabled hook") => DISABLED,
        (Err(refused), _) if refused.log.contains("points to wrong type name") => "no",
        // The kernel looks at the prototype before it looks for the function among the hooks.
        (Err(_), Some(true)) => LISTED,
        (Err(_), _) => NOT_TOLD,
    }
}

/// What `inventory` says of hooks.
const YES: &str = "yes";
const DISABLED: &str = "disabled";
const LISTED: &str = "yes, by the kernel's list; the load is refused before it looks";
const NOT_TOLD: &str = "not told, the load is refused before";
/// What it says of a function that is none, and for which a program loads (5.7 kernel/bpf/bpf_lsm.c,
/// `bpf_lsm_verify_prog`).
const TAKEN: &str = "no, but taken for one: the kernel looks at the prefix alone";

/// Whether a function is a hook, by what `inventory` says of it.
#[must_use]
pub fn is_hook(word: &str) -> bool {
    [YES, DISABLED, LISTED].contains(&word)
}

/// Whether the kernel has a hook of this name: the union of what LSMs may register has a member for each
/// (include/linux/lsm_hooks.h). `None` where BTF has no such union.
fn listed(btf: &Btf, name: &str) -> Option<bool> {
    btf.record("security_list_options").map(|union| btf.member_of(union, name).is_ok())
}

/// For what no program is taken for: the same answer, asked for again.
fn refused_again(attempt: &mut Attempt<'_>, subject: &Subject<'_>) -> Result<(), Ended> {
    let answer = subject.ask(attempt, program_returning(0)?, 1);
    attempt.answered(answer).map(drop)
}

/// The shortest program that gives this value.
pub(super) fn program_returning(value: i32) -> Result<Vec<Insn>, Ended> {
    let mut asm = Asm::new();
    asm.mov_imm(Reg::R0, value).exit();
    finish(&asm)
}

/// The instructions of `asm`.
pub(super) fn finish(asm: &Asm) -> Result<Vec<Insn>, Ended> {
    asm.finish().map_err(|error| Ended::could_not("assemble the program", error))
}
