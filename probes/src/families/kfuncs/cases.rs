//! The cases that follow from a row.

use super::bare::{self, Caller, NO_CALLS, bare_call};
use super::body::{self, Body, Built, RESULT, RETURNED, WAS_NULL, returned_type};
use super::declared::{prototype, tags};
use super::implied::{NULL_NOT_CHECKED, implied};
use super::own::Own;
use super::refusal;
use super::row::{Also, Machine, Returns, Row, Sleep, Wrong, WrongKind};
use super::section;
use crate::bpf::{
    self, BPF_F_SLEEPABLE, BPF_PROG_TYPE_TRACING, BPF_TRACE_FENTRY, LoadError, Loaded, ProgSpec,
};
use crate::errno::Errno;
use crate::helper;
use crate::record::Phase;
use crate::results::{Results, TARGET};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::spec::Probe;
use crate::triggers::creds::without_capability;
use crate::triggers::stands_for;
use std::cell::{OnceCell, RefCell};

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
        session.case("canonical", |attempt| run(attempt, Some(&shared), row, (0, None)))?;
    }
    match row.sleep {
        Sleep::Must | Sleep::ForArguments | Sleep::Both => {
            session.case("canonical-sleepable", |attempt| {
                run(attempt, Some(&shared), row, (BPF_F_SLEEPABLE, None))
            })?;
        }
        Sleep::Either => {
            session.case("canonical-sleepable", |it| load(it, &shared, row, BPF_F_SLEEPABLE))?;
        }
        Sleep::Never => {}
    }
    if row.section {
        let inside = section::inside(row);
        session.case("canonical-sleepable-in-an-rcu-section", |attempt| {
            run(attempt, Some(&shared), &inside, (BPF_F_SLEEPABLE, None))
        })?;
    }
    let flags = row.sleep.flags();
    for also in &row.also {
        session.case(&format!("canonical-{}", also.name), |attempt| {
            run(attempt, None, row, (flags, Some(also)))
        })?;
    }
    for (name, other) in &row.others {
        session.case(name, |attempt| run(attempt, None, other, (other.sleep.flags(), None)))?;
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
    attempt.at(Phase::Open); // what the case itself does begins here
    Ok(())
}

/// What the programs of a probe have that are only loaded, which is one for all of them, and what has been said so far.
#[derive(Default)]
pub(super) struct Shared {
    results: OnceCell<Results>,
    own: OnceCell<Option<Own>>,
    intended: RefCell<Vec<Intended>>,
}

/// What the verifier said of a row's intended use.
struct Intended {
    kfunc: &'static str,
    flags: u32,
    /// `None` where it was content.
    refusal: Option<String>,
}

impl Shared {
    /// Whether an intended use was refused in these words: that of the same kind of program, or any where there is none.
    fn refuses(&self, row: &Row, flags: u32, message: &str) -> bool {
        let intended = self.intended.borrow();
        let of_row: Vec<&Intended> = intended.iter().filter(|it| it.kfunc == row.name).collect();
        let alike = of_row.iter().any(|it| it.flags == flags);
        of_row.iter().any(|it| (!alike || it.flags == flags) && it.refusal.as_deref() == Some(message))
    }

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
    attempt.see("tags", tags(btf, id));
    if row.name.ends_with("_impl") {
        see_address(attempt, id);
    }
    Ok(())
}

/// Says of a name of the kind that the build makes up for a full prototype when there is no function behind it
/// ([`bare::NO_ADDRESS`]).
fn see_address(attempt: &mut Attempt<'_>, kfunc: u32) {
    let word = bare_call(attempt, "file_open", kfunc, 0);
    attempt.at(Phase::Open); // nothing is loaded but to ask
    match word {
        Ok(bare::NO_ADDRESS) => attempt.see("address", "none: the kernel's BTF has no more than a prototype"),
        Ok(_) => {}
        Err(Ended::CouldNotTell(why)) => attempt.see("address", why),
        Err(_) => attempt.see("address", "could not tell"),
    }
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

/// What the end of a case says of its row's kfunc.
///
/// A refusal for another kfunc decides nothing about this one: then the kernel is asked about a program that calls
/// this one alone. Nor is a misuse refused that meets what the intended use met.
fn judged(
    attempt: &mut Attempt<'_>,
    (shared, row): (&Shared, &Row),
    (hook, caller): (&str, Caller),
    intended: bool,
    ended: Result<(), Ended>,
) -> Result<(), Ended> {
    let ended = match ended {
        Err(Ended::Refused(_)) if !attempt.load_log().is_empty() => {
            about_the_row(attempt, row, (hook, caller), ended)
        }
        ended => ended,
    };
    let message = match &ended {
        Ok(()) => None,
        Err(Ended::Refused(_)) if !attempt.load_log().is_empty() => {
            Some(refusal::message(attempt.load_log()))
        }
        Err(_) => return ended,
    };
    let flags = if let Caller::Lsm(flags) = caller { flags } else { 0 };
    if intended {
        shared.intended.borrow_mut().push(Intended { kfunc: row.name, flags, refusal: message });
    } else if message.is_some_and(|message| shared.refuses(row, flags, &message)) {
        return Err(attempt.undecided("the intended use is refused as well"));
    }
    ended
}

/// A refusal, or another one that names the row's kfunc where it named another.
fn about_the_row(
    attempt: &mut Attempt<'_>,
    row: &Row,
    (hook, caller): (&str, Caller),
    ended: Result<(), Ended>,
) -> Result<(), Ended> {
    let log = attempt.load_log().to_owned();
    if let Some(why) = refusal::of_the_build(&log) {
        return Err(attempt.undecided(why));
    }
    if let Some(said) = refusal::lacks_prototype(&log) {
        return Err(attempt.undecided(format!("the BTF of this build lacks the full prototype: {said}")));
    }
    match refusal::forbidden(&log) {
        Some((named, said)) if named != row.name && !refusal::is_of_its_making(row.name, named, said) => {
            match forbidden_alone(attempt, row, caller, hook, None)? {
                Some(ended) => ended,
                None => Err(attempt.undecided(format!("the program was refused for {named}: {said}"))),
            }
        }
        Some(_) => ended,
        None => match refusal::refused_anyway(&log) {
            Some((named, said)) if named != row.name => {
                Err(attempt.undecided(format!("the program was refused for {named}: {said}")))
            }
            Some(_) | None => ended,
        },
    }
}

/// Ends the case with the refusal of a program that calls the row's kfunc and does nothing else, where that refusal is
/// of the kfunc, whatever is passed.
fn forbidden_alone(
    attempt: &mut Attempt<'_>,
    row: &Row,
    caller: Caller,
    hook: &str,
    own: Option<&Own>,
) -> Result<Option<Result<(), Ended>>, Ended> {
    let kfunc = attempt.kfunc(row.name)?;
    let answer = bare::load(attempt, caller, hook, kfunc, own)?;
    let named = answer.as_ref().err().and_then(|refused| refusal::forbidden(&refused.log));
    let of_row = named.is_some_and(|(name, _)| name == row.name);
    Ok(of_row.then(|| attempt.answered(answer).map(drop)))
}

/// The intended use, loaded only: for a program that may sleep, which has to a kfunc what the verifier says of it, and for
/// kfuncs that are not run.
fn load(attempt: &mut Attempt<'_>, shared: &Shared, row: &Row, flags: u32) -> Result<(), Ended> {
    let built = intended(attempt, shared, row, flags)?;
    let ended = attempt.load_lsm(&built.program).map(drop);
    judged(attempt, (shared, row), (row.hook, Caller::Lsm(flags)), true, ended)
}

/// The program of the intended use.
fn intended(attempt: &mut Attempt<'_>, shared: &Shared, row: &Row, flags: u32) -> Result<Built, Ended> {
    let has = shared.of(attempt, row)?;
    let code = |body: &mut Body<'_>| body.canonical(row, |_| {}, |_| {});
    let mut built = build(attempt, row.hook, has, code)?;
    built.program.flags |= flags;
    Ok(built)
}

/// What the kernel says of the intended use, for a case that is about more than that.
pub(super) fn ask_in_full(
    attempt: &mut Attempt<'_>,
    row: &Row,
    flags: u32,
) -> Result<Result<Loaded, LoadError>, Ended> {
    let shared = Shared::default();
    let built = intended(attempt, &shared, row, flags)?;
    let spec = attempt.spec(&built.program)?;
    attempt.at(Phase::Load);
    Ok(bpf::prog_load_logged(&spec, 1))
}

/// The intended use, for real; what is said of it is kept in `said`, if it is the canonical one, with which misuses are
/// compared.
pub(super) fn run(
    attempt: &mut Attempt<'_>,
    said: Option<&Shared>,
    row: &Row,
    (flags, also): (u32, Option<&Also>),
) -> Result<(), Ended> {
    let apart = Shared::default();
    let shared = said.unwrap_or(&apart);
    if let Some(why) = row.not_run {
        load(attempt, shared, row, flags)?;
        attempt.see("not run", why);
        return Ok(());
    }
    let ended = run_only(attempt, row, (flags, also));
    judged(attempt, (shared, row), (row.hook, Caller::Lsm(flags)), true, ended)
}

/// As [`run`], and what that says is for the caller to judge.
fn run_only(attempt: &mut Attempt<'_>, row: &Row, (flags, also): (u32, Option<&Also>)) -> Result<(), Ended> {
    let mut results = ready(attempt, row)?;
    let own = Own::make(attempt, row.holds)?;
    let look = row.fill.as_ref().zip(own.as_ref()).map(|(fill, own)| fill(attempt, own)).transpose()?;
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
    if let Some(why) = outcome.err().and_then(stands_for) {
        return Err(Ended::CouldNotTell(format!("the trigger gave no answer: {why}")));
    }
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
    // Without the call the place of the result holds 0, which is no answer.
    if let Some(expected) = expected.filter(|_| returned) {
        compare(attempt, row, &results, expected)?;
    }
    if row.shown && returned {
        attempt.see("result", errno_text(results.get(RESULT)));
    }
    if also.is_none() && (returned || (null && row.null.is_some())) {
        row.checks.iter().for_each(|check| check(attempt, &results));
        if let Some(look) = look {
            look(attempt);
        }
        row.inspections.iter().for_each(|inspection| inspection(attempt, running.program()));
    }
    Ok(())
}

/// A result of 32 bits that may be an errno.
pub(super) fn errno_text(result: u64) -> String {
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
    row: &Row,
    results: &Results,
    expected: Option<i64>,
) -> Result<(), Ended> {
    let btf = attempt.btf()?;
    let ret = returned_type(btf, row.name);
    if ret == 0 {
        attempt.see("result", "it returns nothing");
        return Ok(());
    }
    let shift = 64 - 8 * btf.size_of(ret).unwrap_or(8).clamp(1, 8);
    let cut = |number: i64| (number << shift) >> shift;
    match expected {
        Some(-1) if row.minus_one => attempt.see("result", cut(results.get(RESULT).cast_signed())),
        // Which one it is says more than that it is the one.
        Some(errno @ -4095..0) if cut(results.get(RESULT).cast_signed()) == errno => {
            attempt.see("result", errno_text(results.get(RESULT)));
        }
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
    let hook = if let WrongKind::On(hook) = wrong.kind { hook } else { row.hook };
    let ended = misuse_only(attempt, shared, row, (wrong, hook));
    let caller =
        if let WrongKind::Fentry(_) = wrong.kind { Caller::Fentry } else { Caller::Lsm(wrong.flags) };
    judged(attempt, (shared, row), (hook, caller), false, ended)
}

/// As [`misuse`], and what that says is for the caller to judge.
fn misuse_only(
    attempt: &mut Attempt<'_>,
    shared: &Shared,
    row: &Row,
    (wrong, hook): (&Wrong, &'static str),
) -> Result<(), Ended> {
    let has = shared.of(attempt, row)?;
    if wrong.name == NULL_NOT_CHECKED && body::always_gives(attempt.btf()?, row.name) {
        return Err(Ended::Absent(format!("a {} that may give NULL", row.name)));
    }
    let alone = match wrong.kind {
        WrongKind::NotSleepable(_) => Some(Caller::Lsm(wrong.flags)),
        WrongKind::Fentry(_) => Some(Caller::Fentry),
        WrongKind::Body(_) | WrongKind::Spoilt(..) | WrongKind::On(_) | WrongKind::Without(_) => None,
    };
    if let Some(caller) = alone
        && let Some(ended) = forbidden_alone(attempt, row, caller, hook, has.1)?
    {
        return ended;
    }
    let code = |body: &mut Body<'_>| match &wrong.kind {
        WrongKind::Body(code) | WrongKind::NotSleepable(code) | WrongKind::Fentry(Some(code)) => code(body),
        WrongKind::Spoilt(first, last) => body.canonical(row, |body| first(body), |body| last(body)),
        WrongKind::Fentry(None) | WrongKind::On(_) | WrongKind::Without(_) => {
            body.canonical(row, |_| {}, |_| {});
        }
    };
    let mut built = build(attempt, hook, has, code)?;
    built.program.flags |= wrong.flags;
    match wrong.kind {
        WrongKind::Fentry(_) => fentry(attempt, row.hook, &built),
        WrongKind::Without(capability) => {
            without_capability(capability, || attempt.load_lsm_in_doubt(&built.program).map(drop))
                .map_err(|errno| Ended::could_not("give up the capability", errno))?
        }
        WrongKind::Body(_) | WrongKind::NotSleepable(_) | WrongKind::Spoilt(..) | WrongKind::On(_) => {
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
