//! What BPF_F_SLEEPABLE allows and forbids. Map kinds have a family of their own.

use crate::asm::Asm;
use crate::bpf::{BPF_MAP_TYPE_PROG_ARRAY, MapSpec, ProgSpec, btf_load};
use crate::btf_build::{BtfBuilder, SIGNED, UNSIGNED};
use crate::families::kfuncs::message;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, LsmProgram};
use crate::rules::insns;
use crate::session::{Attempt, Ended, Session, Stop};
use std::os::fd::{AsRawFd, OwnedFd};

/// `file_open` takes sleepable programs since 5.11; `bprm_committed_creds` is another that does since 5.10.
pub(super) const HOOK: &str = "bprm_committed_creds";

/// Loads a program of `body` on a hook that may sleep, plain or sleepable.
fn load(attempt: &mut Attempt<'_>, sleepable: bool, body: impl FnOnce(&mut Asm)) -> Result<(), Ended> {
    let program = LsmProgram::raw(HOOK, framed(body));
    attempt.load_lsm(&if sleepable { program.sleepable() } else { program }).map(drop)
}

pub(super) fn framed(body: impl FnOnce(&mut Asm)) -> Asm {
    let mut asm = Asm::new();
    asm.mov_reg(CTX, Reg::R1);
    body(&mut asm);
    asm.label("pass").mov_imm(Reg::R0, 0).exit();
    asm
}

pub(super) const BOTH: [(&str, bool); 2] = [("plain", false), ("sleepable", true)];

pub(super) fn hook(session: &mut Session<'_>) -> Result<(), Stop> {
    for hook in [HOOK, "file_open", "file_set_fowner", "task_getsid", "socket_bind", "cred_free", "task_free"]
    {
        session.case(hook, |attempt| {
            let mut asm = Asm::new();
            asm.mov_imm(Reg::R0, 0).exit();
            attempt.load_lsm(&LsmProgram::raw(hook, asm).sleepable()).map(drop)
        })?;
    }
    Ok(())
}

/// `bpf_copy_from_user` from address 0, which fails when it runs.
pub(super) fn copy_from_user(asm: &mut Asm) {
    asm.mov_reg(Reg::R1, Reg::R10)
        .add_imm(Reg::R1, -8)
        .mov_imm(Reg::R2, 8)
        .mov_imm(Reg::R3, 0)
        .call(helper::COPY_FROM_USER);
}

pub(super) fn helper_in_plain(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, sleepable) in BOTH {
        session.case(name, |attempt| {
            attempt.needs_helper(helper::COPY_FROM_USER)?;
            load(attempt, sleepable, copy_from_user)
        })?;
    }
    Ok(())
}

/// An array whose value holds `record` of this size, whose BTF kernels know by its name, and a number before it.
pub(super) fn special_map(
    attempt: &mut Attempt<'_>,
    record: &str,
    size: u32,
) -> Result<(OwnedFd, OwnedFd), Ended> {
    let mut types = BtfBuilder::new();
    let int = types.int("int", 4, SIGNED);
    let word = types.int("unsigned long long", 8, UNSIGNED);
    let special = if size == 4 {
        types.structure(record, 4, &[("val", int, 0)])
    } else {
        let index = types.int("index", 4, UNSIGNED);
        let words = types.array(word, index, size / 8);
        types.structure(record, size, &[("opaque", words, 0)])
    };
    let value = types.structure("value", 8 + size.max(8), &[("number", word, 0), ("special", special, 8)]);
    let btf = btf_load(&types.finish()).map_err(|error| Ended::could_not("load the map's BTF", error))?;
    let map = attempt.map(&MapSpec {
        btf_fd: Some(btf.as_raw_fd()),
        btf_key_type_id: int,
        btf_value_type_id: value,
        ..MapSpec::array(8 + size.max(8), 1)
    })?;
    Ok((map, btf))
}

/// `R8 = address of the map's only value`, or leaves.
pub(super) fn look_up(asm: &mut Asm, map: &OwnedFd) {
    asm.st_imm(Size::W, Reg::R10, -12, 0)
        .ld_map_fd(Reg::R1, map)
        .mov_reg(Reg::R2, Reg::R10)
        .add_imm(Reg::R2, -12)
        .call(helper::MAP_LOOKUP_ELEM)
        .jeq_imm(Reg::R0, 0, "pass")
        .mov_reg(Reg::R8, Reg::R0);
}

/// `R1 = address of the lock in the value at R8`, and a call.
fn with_lock(asm: &mut Asm, helper: u32) {
    asm.mov_reg(Reg::R1, Reg::R8).add_imm(Reg::R1, 8).call(helper);
}

pub(super) fn spin_lock(session: &mut Session<'_>) -> Result<(), Stop> {
    // What is said of the intended use, by whether it may sleep; a misuse that is told the same is not refused for itself.
    let mut said: [Option<String>; 2] = [None, None];
    for (name, sleepable) in BOTH {
        session.case(name, |attempt| {
            let (map, _btf) = special_map(attempt, "bpf_spin_lock", 4)?;
            let ended = load(attempt, sleepable, |asm| {
                look_up(asm, &map);
                with_lock(asm, helper::SPIN_LOCK);
                with_lock(asm, helper::SPIN_UNLOCK);
            });
            if let Err(Ended::Refused(_)) = ended {
                said[usize::from(sleepable)] = Some(message(attempt.load_log()));
            }
            ended
        })?;
    }
    let judged = |attempt: &mut Attempt<'_>, sleepable: bool, ended| match ended {
        Err(Ended::Refused(_)) if said[usize::from(sleepable)] == Some(message(attempt.load_log())) => {
            Err(attempt.undecided("the intended use is refused as well"))
        }
        ended => ended,
    };
    session.case("sleepable-and-sleeps-in-it", |attempt| {
        let (map, _btf) = special_map(attempt, "bpf_spin_lock", 4)?;
        let ended = load(attempt, true, |asm| {
            look_up(asm, &map);
            with_lock(asm, helper::SPIN_LOCK);
            copy_from_user(asm);
            with_lock(asm, helper::SPIN_UNLOCK);
        });
        judged(attempt, true, ended)
    })?;
    session.case("plain-and-not-unlocked", |attempt| {
        let (map, _btf) = special_map(attempt, "bpf_spin_lock", 4)?;
        let ended = load(attempt, false, |asm| {
            look_up(asm, &map);
            with_lock(asm, helper::SPIN_LOCK);
        });
        judged(attempt, false, ended)
    })
}

pub(super) fn timer(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, sleepable) in BOTH {
        session.case(name, |attempt| {
            attempt.needs_helper(helper::TIMER_INIT)?;
            let (map, _btf) = special_map(attempt, "bpf_timer", 16)?;
            load(attempt, sleepable, |asm| {
                look_up(asm, &map);
                asm.mov_reg(Reg::R1, Reg::R8)
                    .add_imm(Reg::R1, 8)
                    .ld_map_fd(Reg::R2, &map)
                    .mov_imm(Reg::R3, 1)
                    .call(helper::TIMER_INIT);
            })
        })?;
    }
    Ok(())
}

pub(super) fn tail_call(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, sleepable) in BOTH {
        session.case(name, |attempt| {
            let array = attempt.map(&MapSpec::new(BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 1))?;
            load(attempt, sleepable, |asm| {
                asm.mov_reg(Reg::R1, CTX)
                    .ld_map_fd(Reg::R2, &array)
                    .mov_imm(Reg::R3, 0)
                    .call(helper::TAIL_CALL);
            })
        })?;
    }
    Ok(())
}

/// One step inside a program about RCU sections.
#[derive(Clone, Copy)]
enum Step {
    Lock,
    Unlock,
    Sleep,
}

const RCU: &[(&str, bool, &[Step])] = &[
    ("sleepable-section", true, &[Step::Lock, Step::Unlock]),
    ("plain-section", false, &[Step::Lock, Step::Unlock]),
    ("sleeps-in-it", true, &[Step::Lock, Step::Sleep, Step::Unlock]),
    ("sleeps-after-it", true, &[Step::Lock, Step::Unlock, Step::Sleep]),
    ("left-open", true, &[Step::Lock]),
    ("nested", true, &[Step::Lock, Step::Lock, Step::Unlock, Step::Unlock]),
    ("closed-without-opening", true, &[Step::Unlock]),
];

pub(super) fn rcu(session: &mut Session<'_>) -> Result<(), Stop> {
    for &(name, sleepable, steps) in RCU {
        session.case(name, |attempt| {
            let lock = attempt.kfunc("bpf_rcu_read_lock")?;
            let unlock = attempt.kfunc("bpf_rcu_read_unlock")?;
            let asm = framed(|asm| {
                for step in steps {
                    match step {
                        Step::Lock => {
                            asm.call_kfunc(lock, 0);
                        }
                        Step::Unlock => {
                            asm.call_kfunc(unlock, 0);
                        }
                        Step::Sleep => copy_from_user(asm),
                    }
                }
            });
            let spec = ProgSpec::lsm(HOOK, attempt.hook(HOOK)?, insns(&asm)?);
            load_if_tagged(attempt, &if sleepable { spec.sleepable() } else { spec })
        })?;
    }
    Ok(())
}

/// Loads a program with an RCU section. 6.2 and 6.3 take none where the kernel's BTF has no type tag `rcu`, which is the
/// compiler's doing: only clang makes type tags (6.2 kernel/bpf/verifier.c, check_kfunc_call).
fn load_if_tagged(attempt: &mut Attempt<'_>, spec: &ProgSpec) -> Result<(), Ended> {
    let answer = attempt.ask(spec, 1);
    if answer.as_ref().is_err_and(|refused| refused.log.contains("no vmlinux btf rcu tag support")) {
        let why = "the kernel takes sections only if it was built with clang, for the type tags in its BTF";
        return Err(Ended::CouldNotTell(why.into()));
    }
    attempt.answered(answer).map(drop)
}
