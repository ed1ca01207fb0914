//! Maps that only one program may use (6.18): whom the kernel keeps away from them.

use crate::asm::Asm;
use crate::bpf::{self, BPF_MAP_TYPE_ARRAY_OF_MAPS, MapSpec};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::{LsmProgram, PAGE};
use crate::record::Phase;
use crate::results::{FREE, Results};
use crate::rules::{OPEN, SESSION, Site, insns};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::triggers::Arm;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// What the map's own program stores, and what is in the map before.
const STORED: u64 = 7;
const BEFORE: u64 = 5;
/// What the program leaves that does not come to its call.
const NOT_CALLED: i64 = 1;
/// The key of the one element.
const KEY: [u8; 4] = [0; 4];

pub(super) fn probe(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("by-its-program", |attempt| {
        let results = idle(attempt)?;
        let map = exclusive(attempt, &results)?;
        run(attempt, &results, &owner(OPEN, &results, &map))?;
        read(attempt, &map);
        Ok(())
    })?;
    session.case("by-another-program", |attempt| {
        known(attempt)?;
        let results = idle(attempt)?;
        let map = exclusive(attempt, &results)?;
        attempt.load_lsm(&LsmProgram::framed(OPEN.hook, &results, |asm| store(asm, &map, 8))).map(drop)
    })?;
    // The hash is of the instructions and of nothing else.
    session.case("by-its-instructions-on-another-hook", |attempt| {
        known(attempt)?;
        let results = idle(attempt)?;
        let map = exclusive(attempt, &results)?;
        run_on(attempt, &results, &owner(SESSION, &results, &map), SESSION)?;
        read(attempt, &map);
        Ok(())
    })?;
    session.case("by-user-space", |attempt| {
        known(attempt)?;
        let results = idle(attempt)?;
        let map = exclusive(attempt, &results)?;
        let stored = attempt.trigger(|| bpf::map_update(&map, &KEY, &STORED.to_ne_bytes(), 0));
        attempt.outcome("it stores", &stored);
        read(attempt, &map);
        Ok(())
    })?;
    session.case("in-a-map-of-maps-by-another-program", through_another)?;
    session.case("as-the-model-of-a-map-of-maps", |attempt| {
        known(attempt)?;
        let results = idle(attempt)?;
        let map = exclusive(attempt, &results)?;
        attempt.map(&outer(&map)).map(drop)
    })?;
    session.case("hash-too-short", |attempt| {
        known(attempt)?;
        let made = bpf::map_create_exclusive(&MapSpec::array(8, 1), &[0; 31]);
        attempt.calls(Phase::Open, made).map(drop)
    })
}

/// Ends the case where maps have no hash: there is no place for one, and anything there is EINVAL, whatever it says (6.17
/// kernel/bpf/syscall.c, `map_create`: `CHECK_ATTR`). The first case shows that.
fn known(attempt: &Attempt<'_>) -> Result<(), Ended> {
    let found = attempt.btf()?.member("bpf_attr", "excl_prog_hash");
    found.map(drop).map_err(|error| Ended::Absent(error.to_string()))
}

fn idle(attempt: &mut Attempt<'_>) -> Result<Results, Ended> {
    let mut results = attempt.results()?;
    results.name_nobody();
    Ok(results)
}

/// Stores a number in the one element.
fn store(asm: &mut Asm, map: &impl AsFd, number: u64) {
    asm.st_imm(Size::W, Reg::R10, -4, 0).st_imm(Size::DW, Reg::R10, -16, number.cast_signed());
    asm.ld_map_fd(Reg::R1, map).mov_reg(Reg::R2, Reg::R10).add_imm(Reg::R2, -4);
    asm.mov_reg(Reg::R3, Reg::R10).add_imm(Reg::R3, -16).mov_imm(Reg::R4, 0);
    asm.call(helper::MAP_UPDATE_ELEM).stx(Size::DW, PAGE, FREE, Reg::R0);
}

/// The program that such a map is for. Which map it names is no part of its hash.
fn owner(site: Site, results: &Results, map: &impl AsFd) -> LsmProgram {
    LsmProgram::framed(site.hook, results, |asm| store(asm, map, STORED))
}

/// A map for the program of [`owner`].
fn exclusive(attempt: &mut Attempt<'_>, results: &Results) -> Result<OwnedFd, Ended> {
    let hash = bpf::program_hash(&insns(&owner(OPEN, results, results).asm)?);
    let map = attempt.calls(Phase::Open, bpf::map_create_exclusive(&MapSpec::array(8, 1), &hash))?;
    let set = bpf::map_update(&map, &KEY, &BEFORE.to_ne_bytes(), 0);
    set.map_err(|errno| Ended::could_not("fill the map", errno))?;
    Ok(map)
}

/// Has a program run once on the usual hook.
fn run(attempt: &mut Attempt<'_>, results: &Results, program: &LsmProgram) -> Result<(), Ended> {
    run_on(attempt, results, program, OPEN)
}

fn run_on(
    attempt: &mut Attempt<'_>,
    results: &Results,
    program: &LsmProgram,
    site: Site,
) -> Result<(), Ended> {
    let _running = attempt.run_lsm(program)?;
    let mut act = site.ready()?;
    let outcome = attempt.trigger(|| act(Arm::new(results)));
    outcome.map(drop).map_err(|errno| Ended::could_not("do the trigger", errno))?;
    attempt.runs(results.runs());
    Ok(())
}

/// What user space finds in the map.
fn read(attempt: &mut Attempt<'_>, map: &OwnedFd) {
    let mut value = [0; 8];
    let read = bpf::map_lookup(map, &KEY, &mut value);
    let words = match read.map(|()| u64::from_ne_bytes(value)) {
        Ok(STORED) => "what was stored".to_owned(),
        Ok(BEFORE) => "what was there before".to_owned(),
        Ok(number) => number.to_string(),
        Err(errno) => errno.name(),
    };
    attempt.see("user space reads", words);
}

/// An array of maps like this one.
fn outer(model: &OwnedFd) -> MapSpec {
    MapSpec { inner_map_fd: Some(model.as_raw_fd()), ..MapSpec::new(BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 1) }
}

/// Puts the map into another and has another program store through that.
fn through_another(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    known(attempt)?;
    let results = idle(attempt)?;
    let map = exclusive(attempt, &results)?;
    let model = attempt.map(&MapSpec::array(8, 1))?;
    let outer = attempt.map(&outer(&model))?;
    attempt.at(Phase::Trigger);
    let put = bpf::map_update(&outer, &KEY, &map.as_raw_fd().to_ne_bytes(), 0);
    attempt.outcome("it is put in", &put);
    if put.is_err() {
        return Ok(());
    }
    let program = LsmProgram::framed(OPEN.hook, &results, |asm| {
        asm.st_imm(Size::DW, PAGE, FREE, NOT_CALLED);
        asm.st_imm(Size::W, Reg::R10, -4, 0).st_imm(Size::DW, Reg::R10, -16, STORED.cast_signed());
        asm.ld_map_fd(Reg::R1, &outer).mov_reg(Reg::R2, Reg::R10).add_imm(Reg::R2, -4);
        asm.call(helper::MAP_LOOKUP_ELEM).jeq_imm(Reg::R0, 0, "pass");
        asm.mov_reg(Reg::R1, Reg::R0).mov_reg(Reg::R2, Reg::R10).add_imm(Reg::R2, -4);
        asm.mov_reg(Reg::R3, Reg::R10).add_imm(Reg::R3, -16).mov_imm(Reg::R4, 0);
        asm.call(helper::MAP_UPDATE_ELEM).stx(Size::DW, PAGE, FREE, Reg::R0);
    });
    run(attempt, &results, &program)?;
    let words = match results.get(FREE).cast_signed() {
        0 => "ok".to_owned(),
        NOT_CALLED => "it finds no map".to_owned(),
        errno => Errno::from_raw(i32::try_from(errno).unwrap_or(i32::MAX)).name(),
    };
    attempt.see("it stores", words);
    read(attempt, &map);
    Ok(())
}
