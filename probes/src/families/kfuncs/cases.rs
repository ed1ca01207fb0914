//! The cases that follow from a row.

use super::body::{self, Body, Built, RESULT, RETURNED, WAS_NULL, returned_type};
use super::own::{Holds, Own};
use super::row::{Also, Code, GOT, Machine, Returns, Row, Sleep, Wrong, WrongKind};
use crate::asm::Asm;
use crate::bpf::{
    self, BPF_F_SLEEPABLE, BPF_PROG_TYPE_TRACING, BPF_TRACE_FENTRY, LoadError, Loaded, ProgSpec,
};
use crate::btf::Btf;
use crate::errno::Errno;
use crate::helper;
use crate::insn::Reg;
use crate::results::{Results, TARGET};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::spec::Probe;
use crate::triggers::creds::without_capability;
use std::cell::OnceCell;

/// The probe that a row is.
pub(super) fn probe(row: Row) -> Probe {
    let id = format!("kfuncs/{}{}", row.name, row.variant);
    let question = format!(
        "Is {} in the kernel, may an LSM program call it, does it do what it says, and is each misuse refused?",
        row.name
    );
    let sources = row.sources.clone();
    // A file that is there to be opened can be anybody's; an empty folder of a probe's own costs it a mount.
    let opens = |row: &Row| row.given.len() == 1;
    let (machine, opens_only) =
        (row.machine, opens(&row) && row.others.iter().all(|(_, other)| opens(other)));
    let probe = Probe::new(id, question, &sources, move |session| cases(session, &row));
    let probe = if opens_only { probe.without_files() } else { probe };
    match machine {
        Machine::Shared => probe,
        Machine::Own => probe.own_machine(),
        Machine::Doomed => probe.crashing(),
    }
}

fn cases(session: &mut Session<'_>, row: &Row) -> Result<(), Stop> {
    let shared = Shared::default();
    session.case("exists", |attempt| exists(attempt, row))?;
    if row.only_misuses {
        for wrong in &row.wrong {
            session.case(&wrong.name, |attempt| misuse(attempt, &shared, row, wrong))?;
        }
        return Ok(());
    }
    if !matches!(row.sleep, Sleep::Must | Sleep::ForArguments) {
        session.case("canonical", |attempt| run(attempt, &shared, row, (0, None)))?;
    }
    match row.sleep {
        Sleep::Must | Sleep::ForArguments | Sleep::Both => {
            session
                .case("canonical-sleepable", |attempt| run(attempt, &shared, row, (BPF_F_SLEEPABLE, None)))?;
        }
        Sleep::Either => {
            session.case("canonical-sleepable", |it| load(it, &shared, row, BPF_F_SLEEPABLE))?;
        }
        Sleep::Never => {}
    }
    let flags = row.sleep.flags();
    for also in &row.also {
        session.case(&format!("canonical-{}", also.name), |attempt| {
            run(attempt, &shared, row, (flags, Some(also)))
        })?;
    }
    for (name, other) in &row.others {
        session.case(name, |attempt| run(attempt, &shared, other, (other.sleep.flags(), None)))?;
    }
    for wrong in implied(row, flags).iter().chain(&row.wrong) {
        session.case(&wrong.name, |attempt| misuse(attempt, &shared, row, wrong))?;
    }
    Ok(())
}

/// Ends the case where the kernel does not have the kfunc, or has a function of that name and knows no calls of kfuncs
/// (5.10), for which a program would be refused whatever is in it.
fn known(attempt: &mut Attempt<'_>, row: &Row) -> Result<(), Ended> {
    let id = attempt.kfunc(row.name)?;
    // Where functions are tagged as kfuncs, kfuncs are called.
    if attempt.btf()?.decl_tags(id).is_empty() && bare_call(attempt, row.hook, id, 0)? == NO_CALLS {
        return Err(Ended::Absent("calls of kfuncs".to_owned()));
    }
    Ok(())
}

/// Loads the program of [`bare_call`].
fn bare_load(
    attempt: &Attempt<'_>,
    hook: &str,
    (kfunc, flags): (u32, u32),
    own: Option<&Own>,
) -> Result<Result<Loaded, LoadError>, Ended> {
    let mut asm = Asm::new();
    if let Some(map) = own.and_then(|own| own.map.as_ref()) {
        asm.ld_map_fd(Reg::R2, map);
    }
    asm.call_kfunc(kfunc, 0).mov_imm(Reg::R0, 0).exit();
    let insns = asm.finish().map_err(|error| Ended::could_not("assemble the program", error))?;
    let spec = ProgSpec { flags, ..ProgSpec::lsm("bare_call", attempt.hook(hook)?, insns) };
    Ok(bpf::prog_load_logged(&spec, 1))
}

/// What [`bare_call`] says of a kfunc that is not for such programs.
pub(in crate::families) const NOT_ALLOWED: &str = "may NOT call it";
/// The same of a kernel without calls of kfuncs.
const NO_CALLS: &str = "the kernel knows no calls of kfuncs";

/// What the programs of a probe have that are only loaded, which is one for all of them.
#[derive(Default)]
pub(super) struct Shared {
    results: OnceCell<Results>,
    own: OnceCell<Option<Own>>,
}

impl Shared {
    /// The results page, and what the row holds. User space need not be ready for a program that does not run.
    fn of(&self, attempt: &mut Attempt<'_>, row: &Row) -> Result<(&Results, Option<&Own>), Ended> {
        known(attempt, row)?;
        if self.results.get().is_none() {
            let _first = self.results.set(attempt.results()?);
        }
        if self.own.get().is_none() {
            let _first = self.own.set(Own::make(attempt, row.holds)?);
        }
        let results = self.results.get().ok_or_else(|| Ended::CouldNotTell("no results page".to_owned()))?;
        Ok((results, self.own.get().and_then(Option::as_ref)))
    }
}

fn exists(attempt: &mut Attempt<'_>, row: &Row) -> Result<(), Ended> {
    let id = attempt.kfunc(row.name)?;
    let btf = attempt.btf()?;
    attempt.see("prototype", prototype(btf, id, row.name));
    let tags = btf.decl_tags(id);
    attempt.see("tags", if tags.is_empty() { "none".to_owned() } else { tags.join(", ") });
    Ok(())
}

/// A function's prototype in the manner of C.
pub(super) fn prototype(btf: &Btf, id: u32, name: &str) -> String {
    let Some(prototype) = btf.prototype(id) else { return "unreadable".to_owned() };
    let join = |(parameter, type_id): &(String, u32)| {
        let type_name = btf.type_name(*type_id);
        let gap = if type_name.ends_with('*') { "" } else { " " };
        format!("{type_name}{gap}{parameter}")
    };
    let parameters: Vec<String> = prototype.params.iter().map(join).collect();
    let ret = btf.type_name(prototype.ret);
    let gap = if ret.ends_with('*') { "" } else { " " };
    format!("{ret}{gap}{name}({})", parameters.join(", "))
}

/// Loads a program that only calls a kfunc, and says whether its kind of program may.
///
/// The kernel looks at the program type before the arguments (6.12 kernel/bpf/verifier.c, check_kfunc_call), so of
/// the refusals that such a call meets once the verifier has come to it, one alone means that it may not.
pub(in crate::families) fn bare_call(
    attempt: &mut Attempt<'_>,
    hook: &str,
    kfunc: u32,
    flags: u32,
) -> Result<&'static str, Ended> {
    let Err(mut error) = bare_load(attempt, hook, (kfunc, flags), None)? else { return Ok("may call it") };
    // Of what takes addresses of an arena the program must have one, before it is asked who it is (7.3
    // kernel/bpf/verifier.c, gen_kfunc_arg_proto).
    if error.log.contains("requires a program with an associated arena") {
        let own = Own::make(attempt, Holds::Arena)?;
        match bare_load(attempt, hook, (kfunc, flags), own.as_ref())? {
            Ok(_) => return Ok("may call it"),
            Err(again) => error = again,
        }
    }
    let said = |text: &str| error.log.lines().any(|line| line.contains(text));
    if said("calling kernel function ") && said(" is not allowed") {
        Ok(NOT_ALLOWED)
    } else if said("cannot find address for kernel function ") {
        // Since 7.0 `.._impl` may be no more than the full prototype of a kfunc with implicit arguments
        // (7.3 kernel/bpf/verifier.c, find_kfunc_impl_proto).
        Ok("it has a prototype and no address")
    } else if said(" is not sleepable") {
        // Of the hook, which is asked about before anything of the program (5.10 kernel/bpf/verifier.c,
        // check_attach_btf_id).
        Ok("no such program is for the hook that this asks with")
    } else if said("require device-bound program") {
        Ok("only a program bound to a device may call it")
    } else if said("BPF_CALL uses reserved fields") {
        // Before 5.13 (5.10 kernel/bpf/verifier.c, do_check): the function is there, but no program can call it.
        Ok(NO_CALLS)
    } else if said(CALL) {
        Ok("may call it")
    } else if said("does not have a valid func_proto") {
        // The other side of it: implicit arguments, and no `.._impl` (7.1 kernel/bpf/verifier.c, find_kfunc_impl_proto).
        Ok("no program can: the kernel's BTF lacks its full prototype")
    } else if said(" must point to scalar, or struct with scalar") {
        // From 7.3 on a prototype is looked at when the program's calls are collected, who makes them after that (7.3
        // kernel/bpf/verifier.c, gen_kfunc_arg_proto).
        Ok("no program can: one of its arguments is nothing that a program could give")
    } else if error.log.is_empty() && flags & BPF_F_SLEEPABLE != 0 && knows_no_sleepable(attempt)? {
        Ok("there are no sleepable programs")
    } else if error.log.trim().is_empty() {
        Err(Ended::could_not("learn whether the call is allowed", error.errno))
    } else {
        Err(Ended::could_not("tell what the refusal is about", error.log.trim()))
    }
}

/// The log shows the call once the verifier has come to it, where it first asks who makes it.
const CALL: &str = "(85) call ";

/// Whether the kernel refuses every program that wants to sleep before the verifier sees it, as kernels before 5.10 do
/// (5.9 kernel/bpf/syscall.c, `bpf_prog_load`: a flag that it does not know).
fn knows_no_sleepable(attempt: &Attempt<'_>) -> Result<bool, Ended> {
    let mut asm = Asm::new();
    asm.mov_imm(Reg::R0, 0).exit();
    let insns = asm.finish().map_err(|error| Ended::could_not("assemble the program", error))?;
    // A hook that is sleepable wherever any is (5.10 kernel/bpf/bpf_lsm.c, sleepable_lsm_hooks).
    let spec = ProgSpec::lsm("sleeps", attempt.hook("bprm_committed_creds")?, insns).sleepable();
    Ok(
        matches!(bpf::prog_load_logged(&spec, 1), Err(error) if error.errno == Errno::EINVAL && error.log.is_empty()),
    )
}

/// The program of a row whose kfunc is there. What else it needs and the kernel does not have says nothing about the kfunc.
fn build(
    attempt: &mut Attempt<'_>,
    hook: &str,
    has: (&Results, Option<&Own>),
    code: impl FnOnce(&mut Body<'_>),
) -> Result<Built, Ended> {
    let takes =
        |what: &str| Ended::CouldNotTell(format!("asking takes {what}, which this kernel does not have"));
    let built = match body::build(attempt, hook, has, code) {
        Err(Ended::Absent(what)) => return Err(takes(&what)),
        built => built?,
    };
    let btf = attempt.btf()?;
    let unknown = |helper: &u32| btf.lists_helper(*helper) == Some(false);
    if let Some(name) = built.program.asm.helpers().filter(unknown).find_map(helper::name) {
        return Err(takes(&format!("helper bpf_{name}")));
    }
    Ok(built)
}

/// A results page and user space, both ready; the target is named only for the trigger.
fn ready(attempt: &mut Attempt<'_>, row: &Row) -> Result<Results, Ended> {
    known(attempt, row)?;
    let mut results = attempt.results()?;
    results.set(TARGET, 0);
    for given in &row.given {
        given(&mut results)?;
    }
    Ok(results)
}

/// The intended use, loaded only: for a program that may sleep, which has to a kfunc what the verifier says of it, and for
/// kfuncs that are not run.
fn load(attempt: &mut Attempt<'_>, shared: &Shared, row: &Row, flags: u32) -> Result<(), Ended> {
    let has = shared.of(attempt, row)?;
    let code = |body: &mut Body<'_>| body.canonical(row, |_| {}, |_| {});
    let mut built = build(attempt, row.hook, has, code)?;
    built.program.flags |= flags;
    attempt.load_lsm(&built.program).map(drop)
}

/// The intended use, for real.
pub(super) fn run(
    attempt: &mut Attempt<'_>,
    shared: &Shared,
    row: &Row,
    (flags, also): (u32, Option<&Also>),
) -> Result<(), Ended> {
    if let Some(why) = row.not_run {
        load(attempt, shared, row, flags)?;
        attempt.see("not run", why);
        return Ok(());
    }
    let mut results = ready(attempt, row)?;
    let own = Own::make(attempt, row.holds)?;
    let spoil = |body: &mut Body<'_>| {
        if let Some(also) = also {
            (also.spoil)(body);
        }
    };
    let code = |body: &mut Body<'_>| body.canonical(row, |_| {}, spoil);
    let mut built = build(attempt, row.hook, (&results, own.as_ref()), code)?;
    built.program.flags |= flags;
    let running = attempt.run_lsm(&built.program)?;
    results.set(TARGET, u64::from(std::process::id()));
    let outcome = attempt.trigger(row.act);
    results.set(TARGET, 0);
    attempt.runs(results.runs());
    attempt.outcome("trigger", &outcome);
    let (returned, null) = (results.get(RETURNED) == 1, results.get(WAS_NULL) == 1);
    match row.returns {
        Returns::Never(errno) => {
            attempt.denial("trigger", &outcome, errno);
            attempt.holds("the call does not come back", results.runs() > 0 && !returned);
        }
        Returns::Nullable | Returns::Owned(_, true) if row.null.is_some() => {
            attempt.holds("the result is NULL", null);
            attempt.see("why", row.null.unwrap_or_default());
        }
        Returns::Nullable | Returns::Owned(_, true) => {
            // Both marks are the program's own, so that one that never came to the call is neither.
            attempt.holds("the result is not NULL", returned && !null);
        }
        Returns::Plain | Returns::Owned(_, false) => {
            attempt.holds("the call comes back", returned);
        }
    }
    let expected = match also {
        Some(also) => Some(Some(also.expected)),
        None => row.expected.as_ref().map(|known| known()),
    };
    if let Some(expected) = expected {
        compare(attempt, row.name, &results, expected)?;
    }
    if row.shown && returned {
        attempt.see("result", errno_text(results.get(RESULT)));
    }
    if also.is_none() && (returned || (null && row.null.is_some())) {
        row.checks.iter().for_each(|check| check(attempt, &results));
        row.inspections.iter().for_each(|inspection| inspection(attempt, running.program()));
    }
    Ok(())
}

/// A result of 32 bits that may be an errno.
fn errno_text(result: u64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the kfunc returns an int, what is above is not its own"
    )]
    let number = result as u32;
    match number.cast_signed() {
        errno @ -4095..0 => format!("-{}", Errno::from_raw(errno).name()),
        other => other.to_string(),
    }
}

/// Compares a number that a kfunc returned, of which only as many bits count as its type has.
fn compare(
    attempt: &mut Attempt<'_>,
    kfunc: &str,
    results: &Results,
    expected: Option<i64>,
) -> Result<(), Ended> {
    let btf = attempt.btf()?;
    let ret = returned_type(btf, kfunc);
    if ret == 0 {
        attempt.see("result", "it returns nothing");
        return Ok(());
    }
    let shift = 64 - 8 * btf.size_of(ret).unwrap_or(8).clamp(1, 8);
    let cut = |number: i64| (number << shift) >> shift;
    match expected {
        Some(expected) => {
            attempt.same("result", cut(results.get(RESULT).cast_signed()), cut(expected));
        }
        None => attempt.see("result", "user space could not find out"),
    }
    Ok(())
}

/// A program that breaks a rule, which is loaded and never run.
pub(super) fn misuse(
    attempt: &mut Attempt<'_>,
    shared: &Shared,
    row: &Row,
    wrong: &Wrong,
) -> Result<(), Ended> {
    let has = shared.of(attempt, row)?;
    let code = |body: &mut Body<'_>| match &wrong.kind {
        WrongKind::Body(code) | WrongKind::Fentry(Some(code)) => code(body),
        WrongKind::Spoilt(first, last) => body.canonical(row, |body| first(body), |body| last(body)),
        WrongKind::Fentry(None) | WrongKind::On(_) | WrongKind::Without(_) => {
            body.canonical(row, |_| {}, |_| {});
        }
    };
    let hook = if let WrongKind::On(hook) = wrong.kind { hook } else { row.hook };
    let mut built = build(attempt, hook, has, code)?;
    built.program.flags |= wrong.flags;
    match wrong.kind {
        WrongKind::Fentry(_) => fentry(attempt, row.hook, &built),
        WrongKind::Without(capability) => {
            without_capability(capability, || attempt.load_lsm_in_doubt(&built.program).map(drop))
                .map_err(|errno| Ended::could_not("give up the capability", errno))?
        }
        WrongKind::Body(_) | WrongKind::Spoilt(..) | WrongKind::On(_) => {
            attempt.load_lsm_in_doubt(&built.program).map(drop)
        }
    }
}

/// The same instructions as a tracing program on the function that the hook is.
fn fentry(attempt: &mut Attempt<'_>, hook: &str, built: &Built) -> Result<(), Ended> {
    let insns =
        built.program.asm.finish().map_err(|error| Ended::could_not("assemble the program", error))?;
    let spec = ProgSpec {
        prog_type: BPF_PROG_TYPE_TRACING,
        expected_attach_type: BPF_TRACE_FENTRY,
        attach_btf_id: attempt.hook(hook)?,
        flags: built.program.flags,
        insns,
        name: "fentry".to_owned(),
        ..built.program.extra.clone().unwrap_or_default()
    };
    attempt.load_in_doubt(&spec).map(drop)
}

/// The rules that what a kfunc returns implies.
fn implied(row: &Row, flags: u32) -> Vec<Wrong> {
    let wrong = |name: &str, flags, code: fn(&mut Body<'_>, &Row)| {
        let row = row.clone();
        let code: Code = std::sync::Arc::new(move |body: &mut Body<'_>| {
            (row.before)(body);
            if row.releases {
                body.mov_reg(GOT, Reg::R1);
            }
            body.call_of(&row);
            code(body, &row);
            (row.finally)(body);
        });
        Wrong { name: name.to_owned(), flags, kind: WrongKind::Body(code) }
    };
    let mut rules = Vec::new();
    if row.releases {
        rules.push(wrong("misuse-twice", flags, |body, row| {
            body.mov_reg(Reg::R1, GOT).mov_imm(Reg::R2, 0);
            body.kfunc(row.name);
        }));
    }
    if row.sleep == Sleep::Must {
        rules.push(wrong("misuse-not-sleepable", 0, |_, _| {}));
    }
    if let Returns::Owned(..) = row.returns {
        rules.push(wrong("misuse-not-released", flags, |_, _| {}));
        rules.push(wrong("misuse-released-twice", flags, released_twice));
    }
    match row.returns {
        Returns::Owned(_, true) => {
            rules.push(wrong("misuse-null-not-checked", flags, |body, row| {
                if let Returns::Owned(release, _) = row.returns {
                    body.give_back(row, release, Reg::R0);
                }
            }));
        }
        Returns::Nullable => {
            rules.push(wrong("misuse-null-not-checked", flags, |body, row| {
                body.mov_reg(GOT, Reg::R0);
                (row.then)(body);
            }));
        }
        Returns::Plain | Returns::Never(_) | Returns::Owned(_, false) => {}
    }
    rules
}

fn released_twice(body: &mut Body<'_>, row: &Row) {
    if let Returns::Owned(release, _) = row.returns {
        body.jeq_imm(Reg::R0, 0, "null").mov_reg(GOT, Reg::R0);
        body.give_back(row, release, GOT);
        body.give_back(row, release, GOT);
        body.label("null");
    }
}
