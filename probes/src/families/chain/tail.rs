//! Tail calls from one LSM program to another.

use crate::bpf::{self, BPF_MAP_TYPE_PROG_ARRAY, MapSpec};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, LsmProgram, PAGE, deny};
use crate::record::Phase;
use crate::rules::{Chain, EXEC, Place, SESSION, Site, note, saying};
use crate::session::{Attempt, Ended, Session, Stop};
use std::os::fd::{AsRawFd, OwnedFd};

const NAMES: [&str; 2] = ["the caller", "the one called"];

fn array(attempt: &mut Attempt<'_>) -> Result<OwnedFd, Ended> {
    attempt.map(&MapSpec::new(BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 2).named("calls"))
}

/// A program that tail-calls place 0 of the array, and otherwise notes that it came back and denies with EACCES.
fn caller(site: &Site, chain: &Chain, array: &OwnedFd) -> LsmProgram {
    LsmProgram::framed(site.hook, &chain.results, |asm| {
        let place = Place::nth(0);
        note(asm, place, site.ret);
        asm.mov_reg(Reg::R1, CTX)
            .ld_map_fd(Reg::R2, array)
            .mov_imm(Reg::R3, 0)
            .call(helper::TAIL_CALL)
            .st_imm(Size::DW, PAGE, place.extra(), 1)
            .mov_imm(Reg::R0, deny(Errno::EACCES))
            .exit();
    })
}

fn called(site: &Site, chain: &Chain) -> LsmProgram {
    saying(site, &chain.results, 1, i64::from(deny(Errno::EPERM)).cast_unsigned())
}

/// Puts a program into place 0.
fn put(attempt: &mut Attempt<'_>, array: &OwnedFd, program: &OwnedFd) -> Result<(), Ended> {
    let value = program.as_raw_fd().to_ne_bytes();
    let put = bpf::map_update(array, &0_u32.to_ne_bytes(), &value, bpf::BPF_ANY);
    put.or_else(|errno| {
        attempt.see("putting it into the array", errno.name());
        attempt.calls(Phase::Trigger, Err(errno))
    })
}

/// Loads both, puts the one called into the array, attaches the caller, and does a round.
fn call(
    attempt: &mut Attempt<'_>,
    site: Site,
    one_called: impl FnOnce(&Chain) -> LsmProgram,
    change: impl FnOnce(LsmProgram) -> LsmProgram,
) -> Result<(), Ended> {
    let mut chain = Chain::new(attempt, site)?;
    let array = array(attempt)?;
    let program = change(caller(&site, &chain, &array));
    let program = attempt.load_lsm(&program)?;
    let one_called = one_called(&chain);
    let one_called = attempt.load_lsm(&one_called)?;
    put(attempt, &array, &one_called)?;
    let _link = attempt.attach(&program)?;
    see_round(attempt, &mut chain, &site, Some(Errno::EPERM));
    Ok(())
}

/// Does a round; `denies` is the errno of the one called.
fn see_round(attempt: &mut Attempt<'_>, chain: &mut Chain, site: &Site, denies: Option<Errno>) {
    let round = chain.round(attempt, &[]);
    attempt.runs(chain.results.runs());
    attempt.see("round", round.words(&NAMES, site.ret.is_some()));
    let went_on = chain.results.get(Place::nth(0).extra()) == 1;
    attempt.see("the caller went on", went_on);
    if site.ret.is_some() {
        // The one called returns in the caller's place, which is asked no more.
        round.note_denials(attempt, |number| match number {
            0 => went_on.then_some(Errno::EACCES),
            _ => denies,
        });
    }
}

pub(super) fn same_hook(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("plain", |attempt| call(attempt, SESSION, |chain| called(&SESSION, chain), |it| it))
}

pub(super) fn other_hook(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, hook) in [("same-prototype", "task_getpgid"), ("other-prototype", "file_open")] {
        session.case(name, |attempt| {
            let site = Site { hook, ..SESSION };
            call(attempt, SESSION, |chain| called(&site, chain), |it| it)
        })?;
    }
    Ok(())
}

/// On a void hook, where nobody sees a verdict: no other takes sleepable programs on every kernel that has them.
pub(super) fn sleepable(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, caller_sleeps, called_sleeps) in [
        ("plain-calls-plain", false, false),
        ("sleepable-calls-sleepable", true, true),
        ("plain-calls-sleepable", false, true),
        ("sleepable-calls-plain", true, false),
    ] {
        let change = |sleeps: bool, it: LsmProgram| if sleeps { it.sleepable() } else { it };
        session.case(name, |attempt| {
            let one_called = |chain: &Chain| change(called_sleeps, called(&EXEC, chain));
            call(attempt, EXEC, one_called, |it| change(caller_sleeps, it))
        })?;
    }
    Ok(())
}

pub(super) fn missing(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("empty-place", |attempt| {
        let mut chain = Chain::new(attempt, SESSION)?;
        let array = array(attempt)?;
        let program = attempt.load_lsm(&caller(&SESSION, &chain, &array))?;
        let _link = attempt.attach(&program)?;
        see_round(attempt, &mut chain, &SESSION, None);
        Ok(())
    })
}

pub(super) fn attached_too(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("called-and-attached", |attempt| {
        let mut chain = Chain::new(attempt, SESSION)?;
        let array = array(attempt)?;
        let program = attempt.load_lsm(&caller(&SESSION, &chain, &array))?;
        let one_called = attempt.load_lsm(&saying(&SESSION, &chain.results, 1, 0))?;
        put(attempt, &array, &one_called)?;
        let _called = attempt.attach(&one_called)?;
        let _caller = attempt.attach(&program)?;
        see_round(attempt, &mut chain, &SESSION, None);
        attempt.see("the one called ran this often", chain.results.runs().saturating_sub(1));
        Ok(())
    })
}
