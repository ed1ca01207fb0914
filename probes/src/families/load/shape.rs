//! The shape of a program: what it returns, its functions, its size.

use super::names::allowing;
use crate::asm::Asm;
use crate::bpf::{self, BPF_LSM_MAC, FuncInfo, MapSpec, ProgSpec, TestRun, btf_load};
use crate::btf_build::{BtfBuilder, Linkage, SIGNED, UNSIGNED};
use crate::families::kfuncs::message;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::LsmProgram;
use crate::record::Phase;
use crate::session::{Attempt, Ended, Session, Stop};
use std::os::fd::AsRawFd;

pub(super) const INT: &str = "file_open";
const VOID: &str = "file_set_fowner";

/// Loads a program that is `body` and nothing else.
pub(super) fn load(attempt: &mut Attempt<'_>, hook: &str, body: impl FnOnce(&mut Asm)) -> Result<(), Ended> {
    let mut asm = Asm::new();
    body(&mut asm);
    attempt.load_lsm(&LsmProgram::raw(hook, asm)).map(drop)
}

pub(super) fn test_run(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, ctx) in [("without-context", 0), ("with-context", 16)] {
        session.case(name, |attempt| {
            let mut asm = Asm::new();
            asm.mov_imm(Reg::R0, 0).exit();
            let program = attempt.load_lsm(&LsmProgram::raw(INT, asm))?;
            let mut context = vec![0_u8; ctx];
            let run = TestRun { ctx: &mut context, ..TestRun::default() };
            attempt.calls(Phase::Trigger, bpf::prog_test_run(&program, run)).map(drop)
        })?;
    }
    Ok(())
}

/// Loads `return number` for each number.
fn constants(session: &mut Session<'_>, hook: &str, numbers: &[i64]) -> Result<(), Stop> {
    for &number in numbers {
        session.case(&format!("{number}"), |attempt| {
            load(attempt, hook, |asm| {
                asm.ld_imm64(Reg::R0, number.cast_unsigned()).exit();
            })
        })?;
    }
    Ok(())
}

pub(super) fn range_int(session: &mut Session<'_>) -> Result<(), Stop> {
    constants(session, INT, &[0, -1, -4095, -4096, 1, 2, i64::from(i32::MIN), 1 << 32, i64::MIN])?;
    session.case("0-or-minus-1", |attempt| {
        load(attempt, INT, |asm| {
            asm.call(helper::GET_PRANDOM_U32).and_imm(Reg::R0, 1).neg(Reg::R0).exit();
        })
    })?;
    session.case("0-or-1", |attempt| {
        load(attempt, INT, |asm| {
            asm.call(helper::GET_PRANDOM_U32).and_imm(Reg::R0, 1).exit();
        })
    })?;
    session.case("any-number", |attempt| {
        load(attempt, INT, |asm| {
            asm.call(helper::GET_PRANDOM_U32).exit();
        })
    })
}

pub(super) fn range_void(session: &mut Session<'_>) -> Result<(), Stop> {
    constants(session, VOID, &[0, 1, -1, -4096, i64::MIN])?;
    session.case("R0-unset", |attempt| {
        load(attempt, VOID, |asm| {
            asm.exit();
        })
    })?;
    session.case("a-pointer", |attempt| {
        load(attempt, VOID, |asm| {
            asm.mov_reg(Reg::R0, Reg::R1).exit();
        })
    })
}

/// Hooks that answer yes or no, as far as this kernel has them.
pub(super) fn range_bool(session: &mut Session<'_>) -> Result<(), Stop> {
    for hook in ["xfrm_state_pol_flow_match", "audit_rule_known", "inode_xattr_skipcap"] {
        for number in [0, 1, 2, -1] {
            session.case(&format!("{hook}-{number}"), |attempt| {
                load(attempt, hook, |asm| {
                    asm.mov_imm(Reg::R0, number).exit();
                })
            })?;
        }
    }
    Ok(())
}

pub(super) fn pointers(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("context", |attempt| {
        load(attempt, INT, |asm| {
            asm.mov_reg(Reg::R0, Reg::R1).exit();
        })
    })?;
    session.case("stack", |attempt| {
        load(attempt, INT, |asm| {
            asm.mov_reg(Reg::R0, Reg::R10).exit();
        })
    })?;
    session.case("argument", |attempt| {
        load(attempt, INT, |asm| {
            asm.ldx(Size::DW, Reg::R0, Reg::R1, 0).exit();
        })
    })?;
    session.case("value-of-a-map", |attempt| {
        let map = attempt.map(&MapSpec::array(8, 1))?;
        load(attempt, INT, |asm| {
            asm.ld_map_value(Reg::R0, &map, 0).ldx(Size::DW, Reg::R0, Reg::R0, 0).exit();
        })
    })?;
    session.case("value-of-a-map-checked", |attempt| {
        let map = attempt.map(&MapSpec::array(8, 1))?;
        load(attempt, INT, |asm| {
            asm.ld_map_value(Reg::R0, &map, 0)
                .ldx(Size::DW, Reg::R0, Reg::R0, 0)
                .jsgt_imm(Reg::R0, 0, "pass")
                .jslt_imm(Reg::R0, -4095, "pass")
                .exit()
                .label("pass")
                .mov_imm(Reg::R0, 0)
                .exit();
        })
    })
}

/// An argument or result of a function in a program's BTF.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Int,
    Void,
    PointerToInt,
    PointerToVoid,
    PointerToWord,
    PointerToFile,
}

/// Loads a program whose function `sub` is made by `callee`, with BTF.
pub(super) fn with_function(
    attempt: &mut Attempt<'_>,
    linkage: Linkage,
    kinds: (Kind, Kind),
    caller: impl FnOnce(&mut Asm),
    callee: impl FnOnce(&mut Asm),
) -> Result<(), Ended> {
    with_tagged_argument(attempt, linkage, (kinds, &[]), caller, callee)
}

/// The same, with declaration tags on the argument.
fn with_tagged_argument(
    attempt: &mut Attempt<'_>,
    linkage: Linkage,
    ((result, argument), tags): ((Kind, Kind), &[&str]),
    caller: impl FnOnce(&mut Asm),
    callee: impl FnOnce(&mut Asm),
) -> Result<(), Ended> {
    let mut types = BtfBuilder::new();
    let int = types.int("int", 4, SIGNED);
    let word = types.int("unsigned long long", 8, UNSIGNED);
    let context = types.ptr(word);
    let (to_int, to_void) = (types.ptr(int), types.ptr(0));
    // Kernels that do not know the tag take a pointer to a structure for one to so many bytes (6.7 kernel/bpf/btf.c,
    // `btf_prepare_func_args`), which are to be as many as the kernel's own has.
    let kernels = attempt.btf()?;
    let size = kernels.record("file").and_then(|id| kernels.size_of(id));
    let file = types.structure("file", size.ok_or_else(|| Ended::Absent("struct file".into()))?, &[]);
    let to_file = types.ptr(file);
    let id = |kind| match kind {
        Kind::Int => int,
        Kind::Void => 0,
        Kind::PointerToInt => to_int,
        Kind::PointerToVoid => to_void,
        Kind::PointerToWord => context,
        Kind::PointerToFile => to_file,
    };
    let proto = types.func_proto(int, &[("ctx", context)]);
    let main = types.func("main", proto, Linkage::Global);
    let proto = types.func_proto(id(result), &[("x", id(argument))]);
    let sub = types.func("sub", proto, linkage);
    let could_not = |error| Ended::could_not("load the program's BTF", error);
    let mut btf = btf_load(&types.finish()).map_err(could_not)?;
    if !tags.is_empty() {
        for tag in tags {
            types.decl_tag(tag, sub, 0);
        }
        // The same but for the tags was taken.
        btf = btf_load(&types.finish()).map_err(|_| Ended::Absent("declaration tags in BTF".into()))?;
    }
    let mut asm = Asm::new();
    caller(&mut asm);
    asm.label("sub");
    callee(&mut asm);
    let position = asm.position("sub").unwrap_or_default();
    let mut program = LsmProgram::raw(INT, asm);
    program.extra = Some(ProgSpec {
        prog_btf_fd: Some(btf.as_raw_fd()),
        func_info: vec![
            FuncInfo { insn_off: 0, type_id: main },
            FuncInfo { insn_off: position, type_id: sub },
        ],
        ..ProgSpec::default()
    });
    attempt.load_lsm(&program).map(drop)
}

/// Calls `sub(5)` and returns what it returned.
fn verdict_of_sub(asm: &mut Asm) {
    asm.mov_imm(Reg::R1, 5).call_sub("sub").exit();
}

/// As above, after cutting the result down to what a verdict may be.
fn checked_verdict_of_sub(asm: &mut Asm) {
    asm.mov_imm(Reg::R1, 5)
        .call_sub("sub")
        .lsh_imm(Reg::R0, 32)
        .arsh_imm(Reg::R0, 32)
        .jsgt_imm(Reg::R0, 0, "pass")
        .jslt_imm(Reg::R0, -4095, "pass")
        .exit()
        .label("pass")
        .mov_imm(Reg::R0, 0)
        .exit();
}

pub(super) fn returns(number: i32) -> impl FnOnce(&mut Asm) {
    move |asm| {
        asm.mov_imm(Reg::R0, number).exit();
    }
}

pub(super) fn static_subprogram(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, number) in [("returns-minus-1", -1), ("returns-1", 1)] {
        session.case(name, |attempt| {
            let kinds = (Kind::Int, Kind::Int);
            with_function(attempt, Linkage::Static, kinds, verdict_of_sub, returns(number))
        })?;
    }
    session.case("without-btf", |attempt| {
        load(attempt, INT, |asm| {
            verdict_of_sub(asm);
            asm.label("sub").mov_imm(Reg::R0, -1).exit();
        })
    })
}

pub(super) fn global_subprogram(session: &mut Session<'_>) -> Result<(), Stop> {
    let kinds = (Kind::Int, Kind::Int);
    session.case("as-verdict", |attempt| {
        with_function(attempt, Linkage::Global, kinds, verdict_of_sub, returns(-1))
    })?;
    session.case("as-verdict-checked", |attempt| {
        with_function(attempt, Linkage::Global, kinds, checked_verdict_of_sub, returns(-1))
    })?;
    let kinds = (Kind::Void, Kind::Int);
    let caller = |asm: &mut Asm| {
        asm.mov_imm(Reg::R1, 5).call_sub("sub").mov_imm(Reg::R0, 0).exit();
    };
    // What is said of one that sets R0; where one that does not is told the same, its R0 did not come to matter.
    let mut said = None;
    session.case("void", |attempt| {
        let ended = with_function(attempt, Linkage::Global, kinds, caller, returns(0));
        if let Err(Ended::Refused(_)) = ended {
            said = Some(message(attempt.load_log()));
        }
        ended
    })?;
    session.case("void-with-R0-unset", |attempt| {
        let ended = with_function(attempt, Linkage::Global, kinds, caller, |asm| {
            asm.exit();
        });
        match ended {
            Err(Ended::Refused(_)) if said == Some(message(attempt.load_log())) => {
                Err(attempt.undecided("one that sets R0 is refused as well"))
            }
            ended => ended,
        }
    })
}

pub(super) fn global_arguments(session: &mut Session<'_>) -> Result<(), Stop> {
    let number = |asm: &mut Asm| {
        asm.mov_imm(Reg::R1, 5).call_sub("sub").mov_imm(Reg::R0, 0).exit();
    };
    let of_stack = |asm: &mut Asm| {
        asm.st_imm(Size::DW, Reg::R10, -8, 0).mov_reg(Reg::R1, Reg::R10).add_imm(Reg::R1, -8);
        asm.call_sub("sub").mov_imm(Reg::R0, 0).exit();
    };
    let context = |asm: &mut Asm| {
        asm.call_sub("sub").mov_imm(Reg::R0, 0).exit();
    };
    session.case("a-number", |attempt| {
        with_function(attempt, Linkage::Global, (Kind::Int, Kind::Int), number, returns(0))
    })?;
    session.case("a-pointer-to-int", |attempt| {
        with_function(attempt, Linkage::Global, (Kind::Int, Kind::PointerToInt), of_stack, returns(0))
    })?;
    session.case("a-pointer-to-void", |attempt| {
        with_function(attempt, Linkage::Global, (Kind::Int, Kind::PointerToVoid), of_stack, returns(0))
    })?;
    session.case("the-context-as-pointer-to-void", |attempt| {
        with_function(attempt, Linkage::Global, (Kind::Int, Kind::PointerToVoid), context, returns(0))
    })?;
    for (name, tags) in [("the-context", &[][..]), ("the-context-tagged-ctx", &["arg:ctx"])] {
        session.case(name, |attempt| {
            let kinds = (Kind::Int, Kind::PointerToWord);
            with_tagged_argument(attempt, Linkage::Global, (kinds, tags), context, returns(0))
        })?;
    }
    for (name, tags) in [("an-int-read-unchecked", &[][..]), ("an-int-tagged-nonnull", &["arg:nonnull"])] {
        session.case(name, |attempt| {
            let kinds = (Kind::Int, Kind::PointerToInt);
            with_tagged_argument(attempt, Linkage::Global, (kinds, tags), of_stack, |asm| {
                asm.ldx(Size::W, Reg::R0, Reg::R1, 0).exit();
            })
        })?;
    }
    file_arguments(session)
}

/// A function that takes a file, given the hook's or none.
fn file_arguments(session: &mut Session<'_>) -> Result<(), Stop> {
    let the_hooks: Body = |asm| {
        asm.ldx(Size::DW, Reg::R1, Reg::R1, 0).call_sub("sub").mov_imm(Reg::R0, 0).exit();
    };
    let none: Body = |asm| {
        asm.mov_imm(Reg::R1, 0).call_sub("sub").mov_imm(Reg::R0, 0).exit();
    };
    for (name, tags, caller) in [
        ("a-file-tagged-trusted", &["arg:trusted"][..], the_hooks),
        ("no-file-where-tagged-trusted", &["arg:trusted"], none),
        ("no-file-where-tagged-trusted-and-nullable", &["arg:trusted", "arg:nullable"], none),
        ("a-file-tagged-untrusted", &["arg:untrusted"], the_hooks),
    ] {
        session.case(name, |attempt| {
            let kinds = (Kind::Int, Kind::PointerToFile);
            with_tagged_argument(attempt, Linkage::Global, (kinds, tags), caller, returns(0))
        })?;
    }
    Ok(())
}

pub(super) fn without_btf(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("one-function", |attempt| load(attempt, INT, returns(0)))?;
    session.case("two-functions", |attempt| {
        load(attempt, INT, |asm| {
            asm.call_sub("sub").mov_imm(Reg::R0, 0).exit();
            asm.label("sub").mov_imm(Reg::R0, 0).exit();
        })
    })?;
    session.case("a-callback", |attempt| {
        // The first helper with a callback: an older kernel knows none, with BTF or without.
        attempt.needs_helper(helper::FOR_EACH_MAP_ELEM)?;
        let map = attempt.map(&MapSpec::array(8, 1))?;
        load(attempt, INT, |asm| {
            asm.ld_map_fd(Reg::R1, &map)
                .ld_func(Reg::R2, "callback")
                .mov_imm(Reg::R3, 0)
                .mov_imm(Reg::R4, 0)
                .call(helper::FOR_EACH_MAP_ELEM)
                .mov_imm(Reg::R0, 0)
                .exit();
            asm.label("callback").mov_imm(Reg::R0, 0).exit();
        })
    })
}

/// The body of a program that only has to be judged.
type Body = fn(&mut Asm);

const MISTAKES: &[(&str, Body)] = &[
    ("no-instructions", |_| {}),
    ("no-exit", |asm| {
        asm.mov_imm(Reg::R0, 0);
    }),
    ("R0-unset", |asm| {
        asm.exit();
    }),
    ("unset-register", |asm| {
        asm.mov_reg(Reg::R0, Reg::R5).exit();
    }),
    ("unset-stack", |asm| {
        asm.ldx(Size::DW, Reg::R0, Reg::R10, -8).mov_imm(Reg::R0, 0).exit();
    }),
    ("dead-code", |asm| {
        asm.mov_imm(Reg::R0, 0).exit().mov_imm(Reg::R0, 0).exit();
    }),
    ("endless-loop", |asm| {
        asm.label("again").ja("again");
    }),
    ("loop-of-a-thousand", |asm| {
        asm.mov_imm(Reg::R0, 1000).label("again").sub_imm(Reg::R0, 1).jne_imm(Reg::R0, 0, "again").exit();
    }),
    ("write-to-the-frame-pointer", |asm| {
        asm.mov_imm(Reg::R10, 0).mov_imm(Reg::R0, 0).exit();
    }),
    ("unknown-helper", |asm| {
        asm.call(9999).mov_imm(Reg::R0, 0).exit();
    }),
    ("division-by-0", |asm| {
        asm.mov_imm(Reg::R0, 1).div_imm(Reg::R0, 0).exit();
    }),
    ("number-as-pointer", |asm| {
        asm.mov_imm(Reg::R1, 16).ldx(Size::DW, Reg::R0, Reg::R1, 0).exit();
    }),
];

pub(super) fn mistakes(session: &mut Session<'_>) -> Result<(), Stop> {
    for &(name, body) in MISTAKES {
        session.case(name, |attempt| load(attempt, INT, body))?;
    }
    Ok(())
}

/// Programs of so many instructions, which are all the same. One of 1,000,000, the most that there may be, is not tried: 5.10
/// takes it, and on 7.3 the process that loads it is gone before the kernel answers. The likely reason is the guest's memory,
/// for what is kept of each instruction (7.3 kernel/bpf/verifier.c, bpf_check: insn_aux_data); it was not looked into.
pub(super) fn size(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, count) in [("4097", 4097_usize), ("1000001", 1_000_001)] {
        session.case(name, |attempt| {
            let id = attempt.hook(INT)?;
            let mut spec = allowing(id, BPF_LSM_MAC)?;
            if let Some(&first) = spec.insns.first() {
                spec.insns.splice(..0, std::iter::repeat_n(first, count - 2));
            }
            attempt.load(&spec).map(drop)
        })?;
    }
    Ok(())
}

pub(super) fn stack(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, depth) in [("512-bytes", -512), ("520-bytes", -520), ("above-the-frame", 0)] {
        session.case(name, |attempt| {
            load(attempt, INT, |asm| {
                asm.st_imm(Size::DW, Reg::R10, depth, 0).mov_imm(Reg::R0, 0).exit();
            })
        })?;
    }
    for (name, depth) in [("two-functions-of-256-and-256", -256), ("two-functions-of-256-and-264", -264)] {
        session.case(name, |attempt| {
            load(attempt, INT, |asm| {
                asm.st_imm(Size::DW, Reg::R10, -256, 0).call_sub("sub").mov_imm(Reg::R0, 0).exit();
                asm.label("sub").st_imm(Size::DW, Reg::R10, depth, 0).mov_imm(Reg::R0, 0).exit();
            })
        })?;
    }
    Ok(())
}
