//! Members that point to numbers and strings, followed and compared with what is there. The verifier takes such a program
//! since 6.17; what lies in user space is not read all the same, and the program finds 0.

use super::WALK;
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, LsmProgram, PAGE};
use crate::results::{FREE, Results};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::spec::{Probe, source};
use crate::triggers::Arm;
use nix::unistd::{Pid, getsid};
use std::fs::File;

/// As many letters as a program reads.
const NAME: &str = "followed";

/// The probe.
pub(super) fn probe() -> Probe {
    Probe::new(
        "pointer/to-number-followed",
        "May a program follow a member that points to a string of the kernel's or to a number in user space, and what does it read there?",
        &[
            WALK,
            source("6.17", "kernel/bpf/btf.c", "btf_struct_walk"),
            source("6.17", "arch/x86/net/bpf_jit_comp.c", "do_jit"),
        ],
        |session: &mut Session<'_>| -> Result<(), Stop> {
            session.case("string-of-the-kernel", string)?;
            session.case("number-in-user-space", user_number)
        },
    )
}

fn off(attempt: &Attempt<'_>, record: &str, path: &str) -> Result<i64, Ended> {
    let member = attempt.btf()?.member(record, path);
    member.map(|member| i64::from(member.byte_offset)).map_err(|error| Ended::Absent(error.to_string()))
}

/// The name of the file that is opened: `file->f_path.dentry->d_name.name`.
fn string(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    let (dentry, name) = (off(attempt, "file", "f_path.dentry")?, off(attempt, "dentry", "d_name.name")?);
    let path = format!("/tmp/{NAME}");
    File::create(&path).map_err(|error| Ended::could_not("make a file", error))?;
    let mut results = attempt.results()?;
    results.name_nobody();
    let program = LsmProgram::framed("file_open", &results, |asm| {
        asm.ldx(Size::DW, Reg::R1, CTX, 0).ldx(Size::DW, Reg::R1, Reg::R1, dentry).ldx(
            Size::DW,
            Reg::R1,
            Reg::R1,
            name,
        );
        for at in 0..8 {
            asm.ldx(Size::B, Reg::R2, Reg::R1, at).stx(Size::B, PAGE, FREE + at, Reg::R2);
        }
    });
    run(attempt, &program, &results, |arm| arm.during(|| File::open(&path)).map(drop).map_err(Errno::from))?;
    let read = String::from_utf8_lossy(&results.bytes(FREE, NAME.len())).into_owned();
    attempt.same("the file's name", read.as_str(), NAME);
    Ok(())
}

/// What `task->clear_child_tid` points to, which a process sets itself.
fn user_number(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    const THERE: u32 = 0x0123_4567;
    let member = off(attempt, "task_struct", "clear_child_tid")?;
    let mut results = attempt.results()?;
    results.name_nobody();
    let program = LsmProgram::framed("task_getsid", &results, |asm| {
        asm.ldx(Size::DW, Reg::R1, CTX, 0)
            .ldx(Size::DW, Reg::R1, Reg::R1, member)
            .stx(Size::DW, PAGE, FREE + 8, Reg::R1)
            .ldx(Size::W, Reg::R2, Reg::R1, 0)
            .stx(Size::DW, PAGE, FREE, Reg::R2);
    });
    let number = Box::new(THERE);
    // SAFETY: stores an address, to which the kernel writes when this thread ends while other threads have its memory:
    // it is set to none before the number goes.
    unsafe { libc::syscall(libc::SYS_set_tid_address, &raw const *number) };
    let ran = run(attempt, &program, &results, |arm| {
        arm.during(|| getsid(Some(Pid::this()))).map(drop).map_err(Errno::from)
    });
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_set_tid_address, std::ptr::null::<u32>()) };
    ran?;
    let address = (&raw const *number).addr() as u64;
    attempt.same("the pointer", results.get(FREE + 8), address);
    let word = match results.get(FREE) {
        0 => "0, which is not there",
        found if found == u64::from(THERE) => "what is there",
        _ => "SOMETHING ELSE",
    };
    attempt.see("following it gives", word);
    Ok(())
}

fn run(
    attempt: &mut Attempt<'_>,
    program: &LsmProgram,
    results: &Results,
    act: impl FnOnce(Arm) -> Result<(), Errno>,
) -> Result<(), Ended> {
    let attached = attempt.attach_lsm(program)?;
    let outcome = attempt.trigger(|| act(Arm::new(results)));
    drop(attached);
    attempt.runs(results.runs());
    outcome.map_err(|errno| Ended::could_not("do the trigger", errno))
}
