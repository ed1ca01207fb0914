//! `ret`, what earlier programs returned, on its way from the context to the verdict: as compilers read, convert and test it.
//!
//! From 6.11 on the verifier knows the range of a slot that is `ret` (6.11 kernel/bpf/verifier.c, `check_mem_access`:
//! `is_retval`), and holds the low 32 bits of a verdict against it (`check_return_code`). What is asked is which loads,
//! conversions and detours it follows the range through. Nothing here is attached.

use super::shape::{INT, Kind, load, with_function};
use crate::asm::Asm;
use crate::bpf::MapSpec;
use crate::btf_build::Linkage;
use crate::insn::{Reg, Size};
use crate::session::{Session, Stop};

/// The slot of `ret` of `file_open`, which has one argument.
const RET: i32 = 8;
/// Holds what the program returns.
const HELD: Reg = Reg::R2;

type Step = fn(&mut Asm);

/// The ways to read it into [`HELD`]. The first is all that 64-bit C needs; the others are how an `int` is made of it, with
/// and without instructions on 32 bits, and with those of 6.6, which older kernels do not know.
const READ: &[(&str, Step)] = &[
    ("loaded-as-64-bits", |asm| {
        asm.ldx(Size::DW, HELD, Reg::R1, RET);
    }),
    ("loaded-as-32-bits", |asm| {
        asm.ldx(Size::W, HELD, Reg::R1, RET);
    }),
    ("loaded-as-32-bits-with-sign", |asm| {
        asm.ldsx(Size::W, HELD, Reg::R1, RET);
    }),
    ("moved-as-32-bits", |asm| {
        asm.ldx(Size::DW, Reg::R3, Reg::R1, RET).mov32_reg(HELD, Reg::R3);
    }),
    ("moved-as-32-bits-with-sign", |asm| {
        asm.ldx(Size::DW, Reg::R3, Reg::R1, RET).movsx(HELD, Reg::R3, 32);
    }),
    ("shifted-by-32-and-back", |asm| {
        asm.ldx(Size::DW, HELD, Reg::R1, RET).lsh_imm(HELD, 32).rsh_imm(HELD, 32);
    }),
    ("shifted-by-32-and-back-with-sign", |asm| {
        asm.ldx(Size::DW, HELD, Reg::R1, RET).lsh_imm(HELD, 32).arsh_imm(HELD, 32);
    }),
];

/// What the program returns then: that, or only where it is not 0, and 0 else.
const RETURN: &[(&str, Step)] = &[
    ("", |asm| {
        asm.mov_reg(Reg::R0, HELD).exit();
    }),
    ("-if-not-0-in-64-bits", |asm| {
        asm.jne_imm(HELD, 0, "denied").mov_imm(Reg::R0, 0).exit();
        asm.label("denied").mov_reg(Reg::R0, HELD).exit();
    }),
    ("-if-not-0-in-32-bits", |asm| {
        asm.jne32_imm(HELD, 0, "denied").mov_imm(Reg::R0, 0).exit();
        asm.label("denied").mov_reg(Reg::R0, HELD).exit();
    }),
];

/// Detours by the stack. An `int` that a compiler puts there is in the upper half of a slot as often as in the lower; of what
/// is written to the upper half nothing is known (6.12 kernel/bpf/verifier.c, `check_stack_write_fixed_off`).
const BY_THE_STACK: &[(&str, Step)] = &[
    ("by-the-stack-as-64-bits", |asm| {
        asm.ldx(Size::DW, HELD, Reg::R1, RET).stx(Size::DW, Reg::R10, -8, HELD);
        asm.ldx(Size::DW, Reg::R0, Reg::R10, -8).exit();
    }),
    ("by-the-stack-as-32-bits", |asm| {
        asm.ldx(Size::W, HELD, Reg::R1, RET).stx(Size::W, Reg::R10, -8, HELD);
        asm.ldx(Size::W, Reg::R0, Reg::R10, -8).exit();
    }),
    ("by-the-stack-as-32-bits-in-the-upper-half-of-a-slot", |asm| {
        asm.ldx(Size::W, HELD, Reg::R1, RET).stx(Size::W, Reg::R10, -4, HELD);
        asm.ldx(Size::W, Reg::R0, Reg::R10, -4).exit();
    }),
];

pub(super) fn handed_on(session: &mut Session<'_>) -> Result<(), Stop> {
    for &(read_name, read) in READ {
        for &(return_name, give) in RETURN {
            session.case(&format!("{read_name}{return_name}"), |attempt| {
                load(attempt, INT, |asm| {
                    read(asm);
                    give(asm);
                })
            })?;
        }
    }
    for &(name, body) in BY_THE_STACK {
        session.case(name, |attempt| load(attempt, INT, body))?;
    }
    for (name, linkage) in
        [("by-a-static-function", Linkage::Static), ("by-a-global-function", Linkage::Global)]
    {
        session.case(name, |attempt| {
            let caller = |asm: &mut Asm| {
                asm.ldx(Size::DW, Reg::R1, Reg::R1, RET).call_sub("sub").exit();
            };
            with_function(attempt, linkage, (Kind::Int, Kind::Int), caller, |asm| {
                asm.mov_reg(Reg::R0, Reg::R1).exit();
            })
        })?;
    }
    Ok(())
}

/// Leaves R0, an `int`, only where it is an errno.
type Clamp = Option<Step>;

/// What is done with an `int` of a map's value in R0 before it is returned. Unclamped it is the control: no errno. In the last
/// one what is returned is an errno in its low 32 bits, which are all that counts, and the verifier has forgotten it.
const CLAMPED: &[(&str, Clamp)] = &[
    ("unclamped", None),
    (
        "clamped-in-32-bits",
        Some(|asm| {
            asm.jsgt32_imm(Reg::R0, 0, "pass").jslt32_imm(Reg::R0, -4095, "pass");
        }),
    ),
    ("with-sign-and-clamped-in-64-bits", Some(clamp_with_sign)),
    (
        "with-sign-and-clamped-in-64-bits-then-shifted-by-32-and-back",
        Some(|asm| {
            clamp_with_sign(asm);
            asm.lsh_imm(Reg::R0, 32).rsh_imm(Reg::R0, 32);
        }),
    ),
];

fn clamp_with_sign(asm: &mut Asm) {
    asm.lsh_imm(Reg::R0, 32).arsh_imm(Reg::R0, 32);
    asm.jsgt_imm(Reg::R0, 0, "pass").jslt_imm(Reg::R0, -4095, "pass");
}

pub(super) fn of_a_map(session: &mut Session<'_>) -> Result<(), Stop> {
    for &(name, clamp) in CLAMPED {
        session.case(name, |attempt| {
            let map = attempt.map(&MapSpec::array(8, 1))?;
            load(attempt, INT, |asm| {
                asm.ld_map_value(Reg::R0, &map, 0).ldx(Size::W, Reg::R0, Reg::R0, 0);
                match clamp {
                    Some(clamp) => {
                        clamp(asm);
                        asm.exit().label("pass").mov_imm(Reg::R0, 0).exit();
                    }
                    None => {
                        asm.exit();
                    }
                }
            })
        })?;
    }
    Ok(())
}
