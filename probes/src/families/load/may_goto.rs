//! Loops that the kernel ends: `may_goto`.

use crate::asm::Asm;
use crate::bpf::{STDERR, stream_read};
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{LsmProgram, PAGE, deny};
use crate::results::FREE;
use crate::rules::SESSION;
use crate::session::{Attempt, Ended, Session, Stop};
use crate::triggers::Arm;

/// Where a program leaves its number of rounds.
const ROUNDS: i32 = FREE;
/// The most that there are where rounds are counted (6.9 include/linux/bpf.h, `BPF_MAX_LOOPS`).
const MOST: u64 = 8 * 1024 * 1024;
/// So many there are at least where time is what counts: the clock is looked at after each 65,535, for the first time only
/// to begin (7.3 kernel/bpf/core.c, `bpf_check_timed_may_goto`).
const LEAST: u64 = 2 * 65_535;

pub(super) fn loops(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("a-loop-of-1000-rounds", |attempt| {
        let rounds = run(attempt, |asm| {
            asm.jge_imm(Reg::R8, 1000, "out");
        })?;
        attempt.see("rounds", rounds);
        Ok(())
    })?;
    session.case("a-loop-without-end", |attempt| {
        let rounds = run(attempt, |_| {})?;
        let said = match rounds {
            MOST => "8388608".to_owned(),
            LEAST.. => "not 8388608, and 131070 or more".to_owned(),
            few => few.to_string(),
        };
        attempt.see("rounds", said);
        Ok(())
    })
}

/// A program that counts rounds until `leave` or the kernel ends its loop, then denies. The number of rounds.
fn run(attempt: &mut Attempt<'_>, leave: impl FnOnce(&mut Asm)) -> Result<u64, Ended> {
    let mut results = attempt.results()?;
    results.name_nobody();
    let mut act = SESSION.ready()?;
    let program = LsmProgram::framed(SESSION.hook, &results, |asm| {
        asm.mov_imm(Reg::R8, 0).label("again").may_goto("out");
        leave(asm);
        asm.add_imm(Reg::R8, 1).ja("again");
        asm.label("out").stx(Size::DW, PAGE, ROUNDS, Reg::R8).mov_imm(Reg::R0, deny(Errno::EPERM)).exit();
    });
    let attached = attempt.attach_lsm(&program)?;
    let outcome = attempt.trigger(|| act(Arm::new(&results)));
    attempt.runs(results.runs());
    attempt.denial("user space sees", &outcome, Errno::EPERM);
    let said = match stream_read(&attached.program, STDERR) {
        Ok(text) if text.is_empty() => "nothing",
        Ok(text) if text.contains("Timeout detected for may_goto") => "that its time was over",
        Ok(_) => "something else",
        // BPF_PROG_STREAM_READ_BY_FD is a command of 6.17.
        Err(Errno::EINVAL) => "there is no such stream",
        Err(_) => "it cannot be read",
    };
    attempt.see("its stream of errors says", said);
    Ok(results.get(ROUNDS))
}
