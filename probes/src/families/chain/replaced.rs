//! Programs that are themselves the target of others: extensions, fentry and fexit on an LSM program.

use crate::asm::Asm;
use crate::bpf::{
    BPF_LSM_MAC, BPF_PROG_TYPE_EXT, BPF_PROG_TYPE_LSM, BPF_PROG_TYPE_TRACING, BPF_TRACE_FENTRY,
    BPF_TRACE_FEXIT, FuncInfo, ProgSpec, btf_load,
};
use crate::btf_build::{BtfBuilder, Linkage, SIGNED, UNSIGNED};
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{LsmProgram, PAGE, deny};
use crate::results::Results;
use crate::rules::{Chain, Place, SESSION, insns, note};
use crate::session::{Attempt, Ended, Session, Stop};
use std::os::fd::{AsRawFd, OwnedFd};

/// Types of a program that has a global function.
struct Types {
    btf: OwnedFd,
    /// The main function, global; see [`Main`].
    main: u32,
    /// `int verdict(int x)`, global.
    verdict: u32,
}

/// What the BTF says of a program's main function. The kernel takes a main function that it cannot check against that for
/// one that cannot be replaced.
#[derive(Clone, Copy, PartialEq)]
enum Main {
    /// `int main(u64 *ctx)`, as of any LSM program in C: no pointer to the context, of which this type has no name (6.7
    /// kernel/bpf/btf.c, btf_check_func_arg_match).
    Usual,
    /// The same, of whose argument a tag says that it is the context (6.12 kernel/bpf/verifier.c, do_check_common;
    /// kernel/bpf/btf.c, btf_prepare_func_args).
    Tagged,
    /// `int main(void)`: nothing that could differ, until one argument is asked for (6.8 kernel/bpf/verifier.c,
    /// do_check_common).
    WithoutArguments,
}

fn types(main: Main) -> Result<Types, Ended> {
    let mut types = BtfBuilder::new();
    let int = types.int("int", 4, SIGNED);
    let word = types.int("unsigned long long", 8, UNSIGNED);
    let context = types.ptr(word);
    let arguments = [("ctx", context)];
    let proto = types.func_proto(int, if main == Main::WithoutArguments { &[] } else { &arguments });
    let function = types.func("main", proto, Linkage::Global);
    let proto = types.func_proto(int, &[("x", int)]);
    let verdict = types.func("verdict", proto, Linkage::Global);
    let tagged = main == Main::Tagged;
    if tagged {
        types.decl_tag("arg:ctx", function, 0);
    }
    let btf = btf_load(&types.finish()).map_err(|error| match error.errno {
        // Before 5.16 the kernel knows no such tags (kernel/bpf/btf.c, btf_check_meta).
        Errno::EINVAL if tagged => Ended::Absent("tags of declarations in BTF".to_owned()),
        _ => Ended::could_not("load the program's BTF", error),
    })?;
    Ok(Types { btf, main: function, verdict })
}

/// An LSM program that denies with what its global function returns, -EPERM.
fn target(chain: &Chain, types: &Types) -> LsmProgram {
    let mut program = LsmProgram::framed(SESSION.hook, &chain.results, |asm| {
        note(asm, Place::nth(0), SESSION.ret);
        asm.mov_imm(Reg::R1, 5)
            .call_sub("verdict")
            .lsh_imm(Reg::R0, 32)
            .arsh_imm(Reg::R0, 32)
            .jsgt_imm(Reg::R0, 0, "pass")
            .jslt_imm(Reg::R0, -4095, "pass")
            .exit();
    });
    program.asm.label("verdict").mov_imm(Reg::R0, deny(Errno::EPERM)).exit();
    let position = program.asm.position("verdict").unwrap_or_default();
    program.extra = Some(ProgSpec {
        prog_btf_fd: Some(types.btf.as_raw_fd()),
        func_info: vec![
            FuncInfo { insn_off: 0, type_id: types.main },
            FuncInfo { insn_off: position, type_id: types.verdict },
        ],
        ..ProgSpec::default()
    });
    program
}

/// Where the extension notes that it ran, for whomever: it has no context to keep others out by, and nobody else comes.
const EXTENSION: Place = Place::nth(1);

/// Loads an extension that notes its run and returns 0 in the place of the target's function `id`.
fn extension(
    attempt: &mut Attempt<'_>,
    results: &Results,
    target: &OwnedFd,
    types: &Types,
    id: u32,
) -> Result<OwnedFd, Ended> {
    let mut asm = Asm::new();
    asm.ld_map_value(PAGE, results, 0)
        .st_imm(Size::DW, PAGE, EXTENSION.extra(), 1)
        .mov_imm(Reg::R0, 0)
        .exit();
    attempt.load(&ProgSpec {
        attach_fd: Some(target.as_raw_fd()),
        attach_btf_id: id,
        prog_btf_fd: Some(types.btf.as_raw_fd()),
        func_info: vec![FuncInfo { insn_off: 0, type_id: id }],
        ..ProgSpec::new(BPF_PROG_TYPE_EXT, "extension", insns(&asm)?)
    })
}

/// Whether the extension has run, of [`replaced_pair`] for one.
pub(in crate::families) fn extension_ran(chain: &Chain) -> bool {
    chain.results.get(EXTENSION.extra()) == 1
}

/// A program, what is to replace its global function, and the BTF of both; neither is attached yet.
pub(in crate::families) fn replaced_pair(
    attempt: &mut Attempt<'_>,
    chain: &Chain,
) -> Result<(OwnedFd, OwnedFd, OwnedFd), Ended> {
    let types = types(Main::Usual)?;
    let program = attempt.load_lsm(&target(chain, &types))?;
    let extension = extension(attempt, &chain.results, &program, &types, types.verdict)?;
    Ok((program, extension, types.btf))
}

/// Replaced before the target is attached.
pub(super) fn freplace(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, main, kind) in [
        ("global-function", false, Main::Usual),
        ("the-program-itself", true, Main::Usual),
        ("the-program-itself-its-context-tagged", true, Main::Tagged),
        ("the-program-itself-without-arguments", true, Main::WithoutArguments),
    ] {
        session.case(name, |attempt| {
            let types = types(kind)?;
            let mut chain = Chain::new(attempt, SESSION)?;
            let program = attempt.load_lsm(&target(&chain, &types))?;
            let id = if main { types.main } else { types.verdict };
            let extension = extension(attempt, &chain.results, &program, &types, id)?;
            let _replaced = attempt.attach(&extension)?;
            let _link = attempt.attach(&program)?;
            see_round(attempt, &mut chain);
            Ok(())
        })?;
    }
    Ok(())
}

/// Replaced while the target is attached, and given back.
pub(super) fn freplace_attached(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("global-function", |attempt| {
        let types = types(Main::Usual)?;
        let mut chain = Chain::new(attempt, SESSION)?;
        let program = attempt.load_lsm(&target(&chain, &types))?;
        let _link = attempt.attach(&program)?;
        let before = chain.round(attempt, &[]);
        attempt.denial("user space sees, before", &before.outcome, Errno::EPERM);
        let extension = extension(attempt, &chain.results, &program, &types, types.verdict)?;
        let replaced = attempt.attach(&extension)?;
        let during = chain.round(attempt, &[]);
        attempt.outcome("replaced by a function that returns 0", &during.outcome);
        attempt.see("the extension ran", extension_ran(&chain));
        drop(replaced);
        let after = chain.round(attempt, &[]);
        attempt.outcome("after the extension is detached", &after.outcome);
        attempt.ran(chain.has_run());
        Ok(())
    })
}

fn see_round(attempt: &mut Attempt<'_>, chain: &mut Chain) {
    let round = chain.round(attempt, &[]);
    let extension_ran = extension_ran(chain);
    attempt.ran(chain.has_run() || extension_ran);
    attempt.see("the extension ran", extension_ran);
    attempt.see(
        "user space sees the verdict of",
        match round.outcome {
            Ok(_) if extension_ran => "the extension, 0",
            Err(Errno::EPERM) => "the program replaced, -EPERM",
            Ok(_) | Err(_) => "NEITHER",
        },
    );
}

/// fentry and fexit on the program. The kernel takes a program's main function, whose argument it cannot check against
/// its BTF, for one with five numbers (7.3 kernel/bpf/btf.c, btf_distill_func_proto), so the verdict is in slot 5.
pub(super) fn fentry_on_program(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, attach_type, ret) in [("fentry", BPF_TRACE_FENTRY, None), ("fexit", BPF_TRACE_FEXIT, Some(5))]
    {
        session.case(name, |attempt| {
            let types = types(Main::Usual)?;
            let mut chain = Chain::new(attempt, SESSION)?;
            let program = attempt.load_lsm(&target(&chain, &types))?;
            let asm = LsmProgram::framed("main", &chain.results, |asm| note(asm, Place::nth(1), ret)).asm;
            let tracer = attempt.load(&ProgSpec {
                expected_attach_type: attach_type,
                attach_fd: Some(program.as_raw_fd()),
                attach_btf_id: types.main,
                ..ProgSpec::new(BPF_PROG_TYPE_TRACING, "tracer", insns(&asm)?)
            })?;
            let _traced = attempt.attach(&tracer)?;
            let _link = attempt.attach(&program)?;
            let round = chain.round(attempt, &[]);
            attempt.ran(chain.has_run());
            attempt.see("round", round.words(&["the LSM program", "the tracer"], ret.is_some()));
            round.note_verdicts(attempt, &[deny(Errno::EPERM)]);
            Ok(())
        })?;
    }
    Ok(())
}

/// An LSM program with another in `attach_prog_fd`.
pub(super) fn lsm_on_program(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("attach_prog_fd", |attempt| {
        let types = types(Main::Usual)?;
        let chain = Chain::new(attempt, SESSION)?;
        let program = attempt.load_lsm(&target(&chain, &types))?;
        let mut asm = Asm::new();
        asm.mov_imm(Reg::R0, 0).exit();
        attempt.load(&ProgSpec {
            expected_attach_type: BPF_LSM_MAC,
            attach_fd: Some(program.as_raw_fd()),
            attach_btf_id: types.main,
            ..ProgSpec::new(BPF_PROG_TYPE_LSM, "on_program", insns(&asm)?)
        })?;
        Ok(())
    })
}
