//! Where the context ends, and what may be done with what is in it.

use super::{keep, look, slot, value};
use crate::asm::Asm;
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, LsmProgram, PAGE};
use crate::results::Results;
use crate::session::{Attempt, Ended, Session, Stop};
use crate::triggers::Arm;
use std::fs::File;
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
        asm.ldx(Size::W, Reg::R2, CTX, slot(1));
    }),
    // Before 6.4 an immediate could not be stored into any context, whatever was said of the slot.
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
    // Loaded as 64 bits and returned as it is; `load/ret-as-int` asks what else may be done with it.
    ("return-ret", "file_open", |asm| {
        asm.ldx(Size::DW, Reg::R2, CTX, slot(1)).mov_reg(Reg::R0, Reg::R2).exit();
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

/// `ret` is 0 here. The program loads it over -1 and compares it with -1.
pub(super) fn ret_over_constant(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("over-minus-one", |attempt| {
        let file = File::create("/tmp/opened").map_err(|error| Ended::could_not("make a file", error))?;
        drop(file);
        let results = look(
            attempt,
            "file_open",
            |asm| {
                asm.mov_imm(Reg::R2, -1).ldx(Size::DW, Reg::R2, CTX, slot(1));
                asm.stx(Size::DW, PAGE, value(0), Reg::R2);
                asm.st_imm(Size::DW, PAGE, value(1), 1);
                asm.jeq_imm(Reg::R2, -1, "pass");
                asm.st_imm(Size::DW, PAGE, value(1), 2);
            },
            |arm| arm.during(|| File::open("/tmp/opened")).map(drop).map_err(Errno::from),
        )?;
        attempt.see("ret", results.get(value(0)).cast_signed());
        let different = results.get(value(1)) == 2;
        attempt.see("the program's comparison", if different { "not -1" } else { "-1, WRONGLY" });
        Ok(())
    })
}

/// `BPF_LOG_LEVEL2`.
const EVERY_STEP: u32 = 2;

/// What the verifier makes of the same over a number that `ret` can never be: whether it says so, and what it then
/// believes. Silence alone is two things: it has forgotten the number, as it should, or it has kept it (7.0
/// kernel/bpf/verifier.c, __reg64_deduce_bounds, which mends the contradiction, in favour of the number, before it is
/// looked for).
pub(super) fn ret_over_impossible(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("over-one", |attempt| {
        let results = attempt.results()?;
        let program = attempt.spec(&LsmProgram::framed("file_open", &results, |asm| {
            asm.mov_imm(Reg::R2, 1).ldx(Size::DW, Reg::R2, CTX, slot(1));
        }))?;
        // At the other levels the log of a path that is accepted is thrown away.
        let answer = attempt.ask(&program, EVERY_STEP);
        let loaded = attempt.answered(answer)?;
        attempt.see("the log has REG INVARIANTS VIOLATION", loaded.log.contains("REG INVARIANTS VIOLATION"));
        let one: Body = |asm| {
            asm.jne_imm(Reg::R2, 1, "pass");
        };
        let none_or_less: Body = |asm| {
            asm.jsgt_imm(Reg::R2, 0, "pass");
        };
        for (key, unless) in
            [("it takes 1 for possible", one), ("it takes 0 or less for possible", none_or_less)]
        {
            let word = if takes_for_possible(attempt, &results, unless)? { "yes" } else { "no" };
            attempt.see(key, word);
        }
        Ok(())
    })
}

/// Whether the verifier goes on behind `unless`, which leaves where R2, `ret` loaded over 1, is not what is asked about:
/// there it would find a read of a register that nobody has set.
fn takes_for_possible(attempt: &mut Attempt<'_>, results: &Results, unless: Body) -> Result<bool, Ended> {
    let program = attempt.spec(&LsmProgram::framed("file_open", results, |asm| {
        asm.mov_imm(Reg::R2, 1).ldx(Size::DW, Reg::R2, CTX, slot(1));
        unless(asm);
        asm.mov_reg(Reg::R3, Reg::R9);
    }))?;
    match attempt.ask(&program, 1) {
        Ok(_) => Ok(false),
        Err(refused) if refused.log.contains("R9 !read_ok") => Ok(true),
        Err(refused) => Err(Ended::could_not("ask what is believed of ret", refused)),
    }
}

/// What one program writes to an argument: does the next one see it, and does the system call?
pub(super) fn written_argument(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("seen-by-the-next", |attempt| {
        let mut results = attempt.results()?;
        results.name_nobody();
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
