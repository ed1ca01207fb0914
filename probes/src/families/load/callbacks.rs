//! Callbacks that sleep: of what runs later, and of what runs at once.

use super::sleepable::{BOTH, HOOK, copy_from_user, framed, look_up, special_map};
use crate::asm::Asm;
use crate::bpf::{FuncInfo, ProgSpec, btf_load};
use crate::btf_build::{BtfBuilder, Linkage, SIGNED, UNSIGNED};
use crate::helper;
use crate::insn::Reg;
use crate::rules::insns;
use crate::session::{Attempt, Ended, Session, Stop};
use std::os::fd::{AsRawFd, OwnedFd};

/// What calls the callback.
#[derive(Clone, Copy)]
enum Caller {
    Timer,
    Work,
    /// A task's own work, by one of these kfuncs, of which the second is the older one.
    TaskWork([&'static str; 2]),
    Loop,
    EachElement,
}

const CALLERS: [(&str, Caller); 6] = [
    ("timer", Caller::Timer),
    ("work-queue", Caller::Work),
    (
        "task-work-signal",
        Caller::TaskWork(["bpf_task_work_schedule_signal", "bpf_task_work_schedule_signal_impl"]),
    ),
    (
        "task-work-resume",
        Caller::TaskWork(["bpf_task_work_schedule_resume", "bpf_task_work_schedule_resume_impl"]),
    ),
    ("loop", Caller::Loop),
    ("each-element-of-an-array", Caller::EachElement),
];

/// Each caller, in a plain and in a sleepable program.
pub(super) fn sleeping(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, caller) in CALLERS {
        for (kind, sleepable) in BOTH {
            session.case(&format!("{name}-of-a-{kind}-program"), |attempt| {
                both_callbacks(attempt, caller, sleepable)
            })?;
        }
    }
    Ok(())
}

/// A program with a callback that does not sleep is the control: where that is refused, so is the case. What is said of the other
/// callback is a fact, and the case's programs are accepted where both are.
fn both_callbacks(attempt: &mut Attempt<'_>, caller: Caller, sleepable: bool) -> Result<(), Ended> {
    let (map, _map_types) = special_map(attempt, record(caller).0, record(caller).1)?;
    let types = types()?;
    let call = call(attempt, caller)?;
    let control = attempt.ask(&program(attempt, &types, sleepable, &map, call, |_| {})?, 1);
    if control.is_err() {
        return attempt.answered(control).map(drop);
    }
    let answer = attempt.ask(&program(attempt, &types, sleepable, &map, call, copy_from_user)?, 1);
    attempt.answer("with a callback that sleeps", &answer);
    if answer.is_ok() {
        attempt.loaded(true, "");
    }
    Ok(())
}

/// What the map's value holds, and its size.
const fn record(caller: Caller) -> (&'static str, u32) {
    match caller {
        Caller::Timer => ("bpf_timer", 16),
        Caller::Work => ("bpf_wq", 16),
        Caller::TaskWork(_) => ("bpf_task_work", 8),
        Caller::Loop | Caller::EachElement => ("nothing", 8),
    }
}

/// The helper that takes the callback, if it is one.
const fn helper(caller: Caller) -> Option<u32> {
    match caller {
        Caller::Timer => Some(helper::TIMER_SET_CALLBACK),
        Caller::Loop => Some(helper::LOOP),
        Caller::EachElement => Some(helper::FOR_EACH_MAP_ELEM),
        Caller::Work | Caller::TaskWork(_) => None,
    }
}

/// The program's own types, which a callback must have.
struct Types {
    btf: OwnedFd,
    main: u32,
    callback: u32,
}

fn types() -> Result<Types, Ended> {
    let mut types = BtfBuilder::new();
    let int = types.int("int", 4, SIGNED);
    let word = types.int("unsigned long long", 8, UNSIGNED);
    let context = types.ptr(word);
    let proto = types.func_proto(int, &[("ctx", context)]);
    let main = types.func("main", proto, Linkage::Global);
    let callback = types.func("callback", proto, Linkage::Static);
    let btf = btf_load(&types.finish()).map_err(|error| Ended::could_not("load the program's BTF", error))?;
    Ok(Types { btf, main, callback })
}

/// How the callback is handed over: what to call, with the ids of kfuncs.
#[derive(Clone, Copy)]
enum Call {
    Timer,
    Work { init: u32, set: u32 },
    TaskWork(u32),
    Loop,
    EachElement,
}

fn call(attempt: &Attempt<'_>, caller: Caller) -> Result<Call, Ended> {
    let newer_or = |newer: &str, older: &str| attempt.kfunc(newer).or_else(|_| attempt.kfunc(older));
    // What a kernel without it says is about callbacks, which it may not know either.
    helper(caller).map_or(Ok(()), |number| attempt.needs_helper(number))?;
    Ok(match caller {
        Caller::Timer => Call::Timer,
        Caller::Work => Call::Work {
            init: attempt.kfunc("bpf_wq_init")?,
            set: newer_or("bpf_wq_set_callback", "bpf_wq_set_callback_impl")?,
        },
        Caller::TaskWork([newer, older]) => Call::TaskWork(newer_or(newer, older)?),
        Caller::Loop => Call::Loop,
        Caller::EachElement => Call::EachElement,
    })
}

fn program(
    attempt: &Attempt<'_>,
    types: &Types,
    sleepable: bool,
    map: &OwnedFd,
    call: Call,
    callback: impl FnOnce(&mut Asm),
) -> Result<ProgSpec, Ended> {
    let mut asm = framed(|asm| hand_over(asm, map, call));
    asm.label("callback");
    callback(&mut asm);
    asm.mov_imm(Reg::R0, 0).exit();
    let position = asm.position("callback").unwrap_or_default();
    let spec = ProgSpec {
        prog_btf_fd: Some(types.btf.as_raw_fd()),
        func_info: vec![
            FuncInfo { insn_off: 0, type_id: types.main },
            FuncInfo { insn_off: position, type_id: types.callback },
        ],
        ..ProgSpec::lsm("main", attempt.hook(HOOK)?, insns(&asm)?)
    };
    Ok(if sleepable { spec.sleepable() } else { spec })
}

/// Hands the callback over.
fn hand_over(asm: &mut Asm, map: &OwnedFd, call: Call) {
    let special = |asm: &mut Asm, reg: Reg| {
        asm.mov_reg(reg, Reg::R8).add_imm(reg, 8);
    };
    match call {
        Call::Timer => {
            look_up(asm, map);
            special(asm, Reg::R1);
            asm.ld_map_fd(Reg::R2, map).mov_imm(Reg::R3, libc::CLOCK_MONOTONIC).call(helper::TIMER_INIT);
            special(asm, Reg::R1);
            asm.ld_func(Reg::R2, "callback").call(helper::TIMER_SET_CALLBACK);
        }
        Call::Work { init, set } => {
            look_up(asm, map);
            special(asm, Reg::R1);
            asm.ld_map_fd(Reg::R2, map).mov_imm(Reg::R3, 0).call_kfunc(init, 0);
            special(asm, Reg::R1);
            asm.ld_func(Reg::R2, "callback").mov_imm(Reg::R3, 0).mov_imm(Reg::R4, 0).call_kfunc(set, 0);
        }
        Call::TaskWork(kfunc) => {
            look_up(asm, map);
            asm.call(helper::GET_CURRENT_TASK_BTF).mov_reg(Reg::R1, Reg::R0);
            special(asm, Reg::R2);
            asm.ld_map_fd(Reg::R3, map).ld_func(Reg::R4, "callback").mov_imm(Reg::R5, 0).call_kfunc(kfunc, 0);
        }
        Call::Loop => {
            asm.mov_imm(Reg::R1, 2).ld_func(Reg::R2, "callback").mov_imm(Reg::R3, 0);
            asm.mov_imm(Reg::R4, 0).call(helper::LOOP);
        }
        Call::EachElement => {
            asm.ld_map_fd(Reg::R1, map).ld_func(Reg::R2, "callback").mov_imm(Reg::R3, 0);
            asm.mov_imm(Reg::R4, 0).call(helper::FOR_EACH_MAP_ELEM);
        }
    }
}
