//! Where the context ends, and what may be done with what is in it.

use super::slots::{Page, send_harmless_signal};
use super::{keep, look, offset, slot, value};
use crate::asm::Asm;
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, LsmProgram, PAGE};
use crate::results::TARGET;
use crate::session::{Attempt, Ended, Session, Stop};
use crate::triggers::Arm;
use std::os::unix::net::UnixDatagram;

/// The body of a program that only has to be judged.
type Body = fn(&mut Asm);

/// `file_open` has one argument and `ret`; `file_set_fowner` one argument; `socket_create` four ints and `ret`.
const ACCESSES: &[(&str, &str, Body)] = &[
    ("read-past-ret", "file_open", |asm| {
        asm.ldx(Size::DW, Reg::R1, CTX, slot(2));
    }),
    ("read-past-ret-of-four", "socket_create", |asm| {
        asm.ldx(Size::DW, Reg::R1, CTX, slot(5));
    }),
    ("read-ret-of-void", "file_set_fowner", |asm| {
        asm.ldx(Size::DW, Reg::R1, CTX, slot(1));
    }),
    ("read-before-the-first", "file_open", |asm| {
        asm.ldx(Size::DW, Reg::R1, CTX, -8);
    }),
    ("read-between-slots", "file_open", |asm| {
        asm.ldx(Size::W, Reg::R1, CTX, 4);
    }),
    ("read-half-a-pointer", "file_open", |asm| {
        asm.ldx(Size::W, Reg::R1, CTX, slot(0));
    }),
    ("read-a-byte-of-an-int", "socket_create", |asm| {
        asm.ldx(Size::B, Reg::R1, CTX, slot(0));
    }),
    ("read-half-of-ret", "file_open", |asm| {
        asm.ldx(Size::W, Reg::R1, CTX, slot(1));
    }),
    // Before 6.3 an immediate could not be stored into any context, whatever was said of the slot.
    ("write-immediate-to-argument", "socket_create", |asm| {
        asm.st_imm(Size::DW, CTX, slot(0), 0);
    }),
    ("write-to-argument", "socket_create", |asm| {
        asm.mov_imm(Reg::R1, 0).stx(Size::DW, CTX, slot(0), Reg::R1);
    }),
    ("write-to-pointer", "file_open", |asm| {
        asm.mov_imm(Reg::R1, 0).stx(Size::DW, CTX, slot(0), Reg::R1);
    }),
    ("write-to-ret", "file_open", |asm| {
        asm.mov_imm(Reg::R1, 0).stx(Size::DW, CTX, slot(1), Reg::R1);
    }),
    ("write-past-ret", "file_open", |asm| {
        asm.mov_imm(Reg::R1, 0).stx(Size::DW, CTX, slot(2), Reg::R1);
    }),
    ("add-to-the-context-then-read", "socket_create", |asm| {
        asm.add_imm(CTX, 8).ldx(Size::W, Reg::R1, CTX, 0);
    }),
    ("return-ret", "file_open", |asm| {
        asm.ldx(Size::DW, Reg::R0, CTX, slot(1)).exit();
    }),
    ("return-an-argument", "socket_create", |asm| {
        asm.ldx(Size::W, Reg::R0, CTX, slot(0)).exit();
    }),
];

/// Loads each program of [`ACCESSES`].
pub(super) fn slot_access(session: &mut Session<'_>) -> Result<(), Stop> {
    for &(name, hook, body) in ACCESSES {
        session.case(name, |attempt| {
            let results = attempt.results()?;
            attempt.load_lsm(&LsmProgram::framed(hook, &results, body))?;
            Ok(())
        })?;
    }
    Ok(())
}

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
            asm.ldx(Size::DW, Reg::R1, CTX, slot(0)).st_imm(Size::DW, PAGE, value(0), 1);
            if check {
                asm.jne_imm(Reg::R1, 0, "pass").st_imm(Size::DW, PAGE, value(0), 2);
            } else {
                asm.ldx(Size::DW, Reg::R1, Reg::R1, f_inode).stx(Size::DW, PAGE, value(0), Reg::R1);
            }
        },
        |arm| arm.during(Page::new).map(drop).map_err(|_| Errno::ENOMEM),
    )?;
    let found = results.get(value(0));
    if check {
        attempt.see("the program's comparison", if found == 2 { "null" } else { "NOT null" });
    } else {
        attempt.see("following it gives", if found == 0 { "0" } else { "SOMETHING" });
    }
    Ok(())
}

/// What one program writes to an argument: does the next one see it, and does the system call?
pub(super) fn written_argument(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("seen-by-the-next", |attempt| {
        let mut results = attempt.results()?;
        results.set(TARGET, 0);
        let reader = LsmProgram::framed("socket_create", &results, |asm| keep(asm, Size::W, 0));
        let writer = LsmProgram::framed("socket_create", &results, |asm| {
            asm.mov_imm(Reg::R1, 99).stx(Size::DW, CTX, slot(0), Reg::R1);
        });
        // The one attached last runs first.
        let attached = [attempt.attach_lsm(&reader)?, attempt.attach_lsm(&writer)?];
        let arm = Arm::new(&results);
        let made = attempt.trigger(|| arm.during(UnixDatagram::unbound)).map_err(Errno::from);
        drop(attached);
        attempt.runs(results.runs());
        attempt.outcome("user space sees", &made);
        let unix = u64::from(libc::AF_UNIX.cast_unsigned());
        attempt.see(
            "the next program sees",
            match results.get(value(0)) {
                99 => "what was written",
                family if family == unix => "what the kernel passed",
                _ => "SOMETHING ELSE",
            },
        );
        Ok(())
    })
}
