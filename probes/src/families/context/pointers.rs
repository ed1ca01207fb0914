//! Pointers that can be null: does the verifier know, and what happens when a program follows one?

use super::slots::{Page, send_harmless_signal};
use super::{keep, look, offset, slot, value};
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, PAGE};
use crate::session::{Attempt, Ended, Session, Stop};

/// A mapping's `vm_mm` can be null for all the verifier knows; it never is for a process's own mapping.
pub(super) fn nullable_member(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("followed-without-check", |attempt| follow_vm_mm(attempt, false))?;
    session.case("followed-after-check", |attempt| follow_vm_mm(attempt, true))
}

/// Two arguments that are null: the last one of `task_kill` for kill(2), and the file of `mmap_file` for memory
/// without one.
pub(super) fn null_argument_checked(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("task_kill-cred", |attempt| null_cred(attempt, true))?;
    session.case("mmap_file-file", |attempt| null_file(attempt, true))
}

/// The one of them, followed.
pub(super) fn null_cred_followed(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("task_kill-cred", |attempt| null_cred(attempt, false))
}

/// The other, followed.
pub(super) fn null_file_followed(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("mmap_file-file", |attempt| null_file(attempt, false))
}

/// Reads `vma->vm_mm->arg_start`.
fn follow_vm_mm(attempt: &mut Attempt<'_>, check: bool) -> Result<(), Ended> {
    let vm_mm = offset(attempt, "vm_area_struct", "vm_mm")?;
    let arg_start = offset(attempt, "mm_struct", "arg_start")?;
    let page = Page::new()?;
    let results = look(
        attempt,
        "file_mprotect",
        |asm| {
            asm.ldx(Size::DW, Reg::R1, CTX, slot(0)).ldx(Size::DW, Reg::R1, Reg::R1, vm_mm);
            if check {
                asm.jeq_imm(Reg::R1, 0, "pass");
            }
            asm.ldx(Size::DW, Reg::R1, Reg::R1, arg_start).stx(Size::DW, PAGE, value(0), Reg::R1);
        },
        |arm| arm.during(|| page.seal()),
    )?;
    attempt.same("vma->vm_mm->arg_start", Some(results.get(value(0))), own_arg_start());
    Ok(())
}

/// Where this process's arguments begin: field 48 of proc_pid_stat(5), the 46th after the name.
fn own_arg_start() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(45)?.parse().ok()
}

/// What the program's own comparison says of a pointer that is null, or what following it gives.
fn null_cred(attempt: &mut Attempt<'_>, check: bool) -> Result<(), Ended> {
    let uid = offset(attempt, "cred", "uid")?;
    let results = look(
        attempt,
        "task_kill",
        |asm| {
            keep(asm, Size::DW, 3);
            asm.ldx(Size::DW, Reg::R1, CTX, slot(3)).st_imm(Size::DW, PAGE, value(4), 1);
            if check {
                asm.jne_imm(Reg::R1, 0, "pass").st_imm(Size::DW, PAGE, value(4), 2);
            } else {
                asm.ldx(Size::W, Reg::R1, Reg::R1, uid).stx(Size::DW, PAGE, value(4), Reg::R1);
            }
        },
        send_harmless_signal,
    )?;
    attempt.holds("the slot is null", results.get(value(3)) == 0);
    let found = results.get(value(4));
    if check {
        attempt.see("the program's comparison", if found == 2 { "null" } else { "NOT null" });
    } else {
        // A load from a bad address gives 0 (6.12 arch/x86/mm/extable.c, ex_handler_bpf).
        attempt.see("following it gives", if found == 0 { "0" } else { "SOMETHING" });
    }
    Ok(())
}

/// The same for the file of a mapping that has none.
fn null_file(attempt: &mut Attempt<'_>, check: bool) -> Result<(), Ended> {
    let f_inode = offset(attempt, "file", "f_inode")?;
    let results = look(
        attempt,
        "mmap_file",
        |asm| {
            keep(asm, Size::DW, 0);
            asm.ldx(Size::DW, Reg::R1, CTX, slot(0)).st_imm(Size::DW, PAGE, value(1), 1);
            if check {
                asm.jne_imm(Reg::R1, 0, "pass").st_imm(Size::DW, PAGE, value(1), 2);
            } else {
                asm.ldx(Size::DW, Reg::R1, Reg::R1, f_inode).stx(Size::DW, PAGE, value(1), Reg::R1);
            }
        },
        |arm| arm.during(Page::new).map(drop).map_err(|_| Errno::ENOMEM),
    )?;
    attempt.holds("the slot is null", results.get(value(0)) == 0);
    let found = results.get(value(1));
    if check {
        attempt.see("the program's comparison", if found == 2 { "null" } else { "NOT null" });
    } else {
        attempt.see("following it gives", if found == 0 { "0" } else { "SOMETHING" });
    }
    Ok(())
}
