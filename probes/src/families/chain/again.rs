//! A helper that leads to the hook of the program that calls it.

use crate::asm::Asm;
use crate::bpf;
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, LsmProgram, PAGE};
use crate::results::{FREE, Results};
use crate::rules;
use crate::session::{Attempt, Ended, Session, Stop};
use crate::spec::ANYBODYS;
use crate::triggers::{Act, Arm, OK, act_that, files};
use serde_json::Value;
use std::fs::OpenOptions;

/// How many runs of the program are under way, the most that were, and what the helper gave the outermost.
const NOW: i32 = FREE;
const MOST: i32 = FREE + 8;
const RETURNED: i32 = FREE + 16;
/// Where the helper writes.
const BUFFER: i32 = FREE + 64;
/// From so many runs within each other on the program calls no helper: whether more would follow nobody tries out.
const LIMIT: u64 = 4;

pub(super) fn own_hook(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("reading-kernel-memory-when-asked-about-lockdown", |attempt| {
        let act = files::kcore().map_err(|errno| Ended::could_not("make the trigger ready", errno))?;
        let returned = ask(attempt, "locked_down", false, act, |asm| {
            asm.call(helper::GET_CURRENT_TASK).mov_reg(Reg::R3, Reg::R0);
            asm.mov_reg(Reg::R1, PAGE).add_imm(Reg::R1, BUFFER).mov_imm(Reg::R2, 8);
            asm.call(helper::PROBE_READ_KERNEL);
        })?;
        attempt.see("the helper gives the outermost run", word(returned));
        Ok(())
    })?;
    // The second is the control: a file that can be read is not opened again.
    for (name, for_writing) in [("writing", true), ("reading", false)] {
        session.case(&format!("the-hash-of-a-file-being-opened-for-{name}"), |attempt| {
            attempt.needs_helper(helper::IMA_FILE_HASH)?;
            let returned = ask(attempt, "file_open", true, opening(for_writing)?, |asm| {
                asm.ldx(Size::DW, Reg::R1, CTX, 0);
                asm.mov_reg(Reg::R2, PAGE).add_imm(Reg::R2, BUFFER).mov_imm(Reg::R3, 64);
                asm.call(helper::IMA_FILE_HASH);
            })?;
            let said = if returned > 0 { "a hash".to_owned() } else { word(returned) };
            attempt.see("the helper gives the outermost run", said);
            Ok(())
        })?;
    }
    Ok(())
}

/// `open(2)` of a file that has content, for writing only or for reading. IMA opens one that cannot be read once more.
fn opening(for_writing: bool) -> Result<Act, Ended> {
    std::fs::write(ANYBODYS, b"content").map_err(|error| Ended::could_not("write a file", error))?;
    Ok(act_that(move |arm| {
        let mut options = OpenOptions::new();
        options.write(for_writing).read(!for_writing);
        arm.during(|| options.open(ANYBODYS).map(|_| OK).map_err(Errno::from))
    }))
}

/// Runs a program that calls a helper, beside one that only counts how often the hook is called. What the helper gave the
/// outermost run.
fn ask(
    attempt: &mut Attempt<'_>,
    hook: &str,
    sleepable: bool,
    mut act: Act,
    call: impl FnOnce(&mut Asm),
) -> Result<i64, Ended> {
    attempt.hook(hook)?;
    act(Arm::idle()).map_err(|errno| Ended::could_not("do the trigger without a program", errno))?;
    let (mut results, mut counted) = (attempt.results()?, attempt.results()?);
    results.name_nobody();
    counted.name_nobody();
    let program = calling(hook, &results, call);
    let program = if sleepable { program.sleepable() } else { program };
    let attached = attempt.attach_lsm(&program)?;
    let _counter = attempt.attach_lsm(&LsmProgram::counting(hook, &counted))?;
    let outcome = attempt.trigger(|| Arm::new(&counted).during(|| act(Arm::new(&results))));
    attempt.runs(results.runs());
    let most = match results.get(MOST) {
        // Nothing else has ended it.
        LIMIT => Value::from(format!("{LIMIT}, as many as the program lets come about")),
        most => Value::from(most),
    };
    attempt.see("runs within each other, at most", most);
    attempt.see("runs of another program of the hook", counted.runs());
    let info = bpf::prog_info(&attached.program);
    let missed = info.map_err(|errno| Ended::could_not("ask about the program", errno))?.recursion_misses;
    attempt.see("the kernel counts that it was left out", missed > 0);
    attempt.outcome("user space sees", &outcome);
    Ok(results.get(RETURNED).cast_signed())
}

/// A program that calls a helper unless it is too deep, and lets everything pass.
fn calling(hook: &str, results: &Results, call: impl FnOnce(&mut Asm)) -> LsmProgram {
    LsmProgram::framed(hook, results, |asm| {
        asm.ldx(Size::DW, Reg::R8, PAGE, NOW)
            .add_imm(Reg::R8, 1)
            .stx(Size::DW, PAGE, NOW, Reg::R8)
            .ldx(Size::DW, Reg::R1, PAGE, MOST)
            .jge_reg(Reg::R1, Reg::R8, "known")
            .stx(Size::DW, PAGE, MOST, Reg::R8)
            .label("known")
            .jge_imm(Reg::R8, LIMIT.cast_signed(), "leave");
        call(asm);
        // The outermost run comes to this last.
        asm.stx(Size::DW, PAGE, RETURNED, Reg::R0)
            .label("leave")
            .ldx(Size::DW, Reg::R1, PAGE, NOW)
            .sub_imm(Reg::R1, 1)
            .stx(Size::DW, PAGE, NOW, Reg::R1);
    })
}

/// 0 or a negative errno.
fn word(value: i64) -> String {
    i32::try_from(value).map_or_else(|_| "another number".to_owned(), rules::verdict_word)
}
