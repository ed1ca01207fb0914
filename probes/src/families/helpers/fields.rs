//! What map values can hold beside bytes: spin locks and timers. Also tail calls.

use super::bench::{Bench, SLEEPS_EVERYWHERE, keep, open_file, slot, value_in_r8};
use super::call::Arg::{Context, Hash, Number};
use super::{Row, canonical, case, exec, misuse, sleepable};
use crate::asm::Asm;
use crate::bpf::{self, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PROG_ARRAY, MapSpec, btf_load};
use crate::btf_build::{BtfBuilder, SIGNED, UNSIGNED};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::CTX;
use crate::rules::until;
use crate::session::Ended;
use crate::spec::{Source, source};
use crate::triggers::Arm;
use std::os::fd::{AsRawFd, OwnedFd};

const LSM: Source = source("6.0", "kernel/bpf/bpf_lsm.c", "bpf_lsm_func_proto");
const LOCK: Source = source("6.12", "kernel/bpf/verifier.c", "process_spin_lock");
const TIMER: Source = source("6.12", "kernel/bpf/verifier.c", "process_timer_func");
const BASE: Source = source("6.0", "kernel/bpf/helpers.c", "bpf_base_func_proto");

pub(super) const ROWS: &[Row] = &[
    Row {
        helper: helper::SPIN_LOCK,
        asks: "lock the value of a map, once and until it is unlocked",
        sources: &[LSM, LOCK],
        cases: &[
            canonical(lock),
            sleepable(lock),
            misuse("misuse-not-unlocked", |bench| {
                with_value(bench, LOCKED, |asm, _| {
                    call(asm, helper::SPIN_LOCK);
                })
            }),
            misuse("misuse-locked-twice", |bench| {
                with_value(bench, LOCKED, |asm, _| {
                    call(asm, helper::SPIN_LOCK);
                    call(asm, helper::SPIN_LOCK);
                })
            }),
            misuse("misuse-call-inside", |bench| {
                with_value(bench, LOCKED, |asm, _| {
                    call(asm, helper::SPIN_LOCK);
                    asm.call(helper::KTIME_GET_NS);
                    call(asm, helper::SPIN_UNLOCK);
                })
            }),
            misuse("misuse-value-without-lock", |bench| {
                with_value(bench, PLAIN, |asm, _| {
                    call(asm, helper::SPIN_LOCK);
                    call(asm, helper::SPIN_UNLOCK);
                })
            }),
            misuse("misuse-lock-read-as-data", |bench| {
                with_value(bench, LOCKED, |asm, _| {
                    asm.ldx(Size::W, Reg::R1, Reg::R8, 0);
                })
            }),
        ],
    },
    Row {
        helper: helper::SPIN_UNLOCK,
        asks: "unlock the value that was locked, and no other",
        sources: &[LSM, LOCK],
        cases: &[
            canonical(lock),
            sleepable(lock),
            misuse("misuse-not-locked", |bench| {
                with_value(bench, LOCKED, |asm, _| {
                    call(asm, helper::SPIN_UNLOCK);
                })
            }),
            misuse("misuse-unlocked-twice", |bench| {
                with_value(bench, LOCKED, |asm, _| {
                    call(asm, helper::SPIN_LOCK);
                    call(asm, helper::SPIN_UNLOCK);
                    call(asm, helper::SPIN_UNLOCK);
                })
            }),
        ],
    },
    Row {
        helper: helper::TIMER_INIT,
        asks: "make a timer of a map's value ready, once",
        sources: &[BASE, source("6.0", "kernel/bpf/helpers.c", "bpf_timer_init"), TIMER],
        cases: &[
            canonical(timer),
            sleepable(timer),
            misuse("misuse-value-without-timer", |bench| with_value(bench, PLAIN, init)),
            misuse("misuse-map-of-another-value", |bench| {
                let other = value_map(bench, TIMED)?;
                with_value(bench, TIMED, |asm, _| init(asm, &other))
            }),
        ],
    },
    Row {
        helper: helper::TIMER_SET_CALLBACK,
        asks: "say which function the timer calls",
        sources: &[BASE, source("6.0", "kernel/bpf/helpers.c", "bpf_timer_set_callback"), TIMER],
        cases: &[
            canonical(timer),
            sleepable(timer),
            misuse("misuse-callback-returns-1", |bench| start(bench, 1, 0).map(drop)),
            misuse("misuse-number-for-callback", |bench| {
                with_value(bench, TIMED, |asm, map| {
                    init(asm, map);
                    asm.mov_imm(Reg::R2, 8);
                    call(asm, helper::TIMER_SET_CALLBACK);
                })
            }),
        ],
    },
    Row {
        helper: helper::TIMER_START,
        asks: "have the callback called when the time is over",
        sources: &[BASE, source("6.0", "kernel/bpf/helpers.c", "bpf_timer_start"), TIMER],
        cases: &[
            canonical(timer),
            sleepable(timer),
            case("without-callback", |bench| {
                let map = value_map(bench, TIMED)?;
                let results = bench.open(|asm| {
                    value_in_r8(asm, &map);
                    init(asm, &map);
                    asm.mov_imm(Reg::R2, 0).mov_imm(Reg::R3, 0);
                    call(asm, helper::TIMER_START);
                    keep(asm, 0, Reg::R0);
                })?;
                bench.returned("returned", results.get(slot(0)));
                Ok(())
            }),
            misuse("misuse-value-without-timer", |bench| {
                with_value(bench, PLAIN, |asm, _| {
                    asm.mov_imm(Reg::R2, 0).mov_imm(Reg::R3, 0);
                    call(asm, helper::TIMER_START);
                })
            }),
            misuse("misuse-number-for-timer", |bench| bench.call(&[Number(4096), Number(0), Number(0)])),
        ],
    },
    Row {
        helper: helper::TIMER_CANCEL,
        asks: "keep the callback from being called, and tell whether the timer ran",
        sources: &[BASE, source("6.0", "kernel/bpf/helpers.c", "bpf_timer_cancel"), TIMER],
        cases: &[
            canonical(cancel),
            sleepable(cancel),
            misuse("misuse-value-without-timer", |bench| {
                with_value(bench, PLAIN, |asm, _| {
                    call(asm, helper::TIMER_CANCEL);
                })
            }),
            misuse("misuse-number-for-timer", |bench| bench.call(&[Number(4096)])),
        ],
    },
    Row {
        helper: helper::TAIL_CALL,
        asks: "go on in another program, and in its own where there is none",
        sources: &[
            source("6.0", "kernel/bpf/bpf_lsm.c", "bpf_lsm_func_proto"),
            source("6.12", "kernel/bpf/core.c", "bpf_prog_map_compatible"),
            source("6.12", "kernel/bpf/verifier.c", "check_map_prog_compatibility"),
        ],
        cases: &[
            canonical(tail_call),
            sleepable(tail_call),
            misuse("misuse-result-read", |bench| {
                let helper = bench.helper();
                let programs = bench.attempt.map(&MapSpec::new(BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 2))?;
                bench.load(|asm| {
                    asm.mov_reg(Reg::R1, CTX).ld_map_fd(Reg::R2, &programs).mov_imm(Reg::R3, 0).call(helper);
                    keep(asm, 0, Reg::R0);
                })
            }),
            misuse("misuse-number-for-context", |bench| bench.call(&[Number(4096), Hash, Number(0)])),
            misuse("misuse-number-for-map", |bench| bench.call(&[Context, Number(0), Number(0)])),
            misuse("misuse-map-of-another-type", |bench| {
                let helper = bench.helper();
                let map = bench.attempt.map(&MapSpec::new(BPF_MAP_TYPE_ARRAY, 4, 4, 1))?;
                bench.load(|asm| {
                    asm.mov_reg(Reg::R1, CTX).ld_map_fd(Reg::R2, &map).mov_imm(Reg::R3, 0).call(helper);
                })
            }),
        ],
    },
];

/// A value of 24 bytes: a field of its own kind first, or only bytes, and a number at [`NUMBER`].
#[derive(Clone, Copy)]
struct Field {
    name: &'static str,
    size: u32,
}

const LOCKED: Field = Field { name: "bpf_spin_lock", size: 4 };
const TIMED: Field = Field { name: "bpf_timer", size: 16 };
const PLAIN: Field = Field { name: "bytes", size: 16 };
const NUMBER: i32 = 16;

/// A map of one such value.
fn value_map(bench: &mut Bench<'_, '_>, field: Field) -> Result<OwnedFd, Ended> {
    let mut types = BtfBuilder::new();
    let (int, word) = (types.int("int", 4, SIGNED), types.int("u64", 8, UNSIGNED));
    let half = types.int("u32", 4, UNSIGNED);
    let inside = if field.size == 4 {
        types.structure(field.name, 4, &[("val", half, 0)])
    } else {
        types.structure(field.name, 16, &[("a", word, 0), ("b", word, 8)])
    };
    let value = types.structure("value", 24, &[("field", inside, 0), ("number", word, 16)]);
    let btf = btf_load(&types.finish()).map_err(|error| Ended::could_not("load the map's BTF", error))?;
    bench.attempt.map(&MapSpec {
        btf_fd: Some(btf.as_raw_fd()),
        btf_key_type_id: int,
        btf_value_type_id: value,
        ..MapSpec::array(24, 1)
    })
}

/// Calls a helper for the value in R8; other arguments are in place.
fn call(asm: &mut Asm, helper: u32) {
    asm.mov_reg(Reg::R1, Reg::R8).call(helper);
}

fn init(asm: &mut Asm, map: &OwnedFd) {
    asm.ld_map_fd(Reg::R2, map).mov_imm(Reg::R3, libc::CLOCK_MONOTONIC);
    call(asm, helper::TIMER_INIT);
}

/// Loads a program that looks the value up and goes on with `then`.
fn with_value(
    bench: &mut Bench<'_, '_>,
    field: Field,
    then: impl FnOnce(&mut Asm, &OwnedFd),
) -> Result<(), Ended> {
    let map = value_map(bench, field)?;
    bench.load(|asm| {
        value_in_r8(asm, &map);
        then(asm, &map);
    })
}

/// The number in the value, as user space finds it.
fn number(map: &OwnedFd) -> Result<u64, Errno> {
    let mut value = [0; 24];
    bpf::map_lookup(map, &0_u32.to_ne_bytes(), &mut value)?;
    Ok(value.last_chunk::<8>().map_or(0, |bytes| u64::from_ne_bytes(*bytes)))
}

/// Adds to the number under the lock, twice.
fn lock(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let map = value_map(bench, LOCKED)?;
    bench.open_or_execute(|asm| {
        value_in_r8(asm, &map);
        for _ in 0..2 {
            call(asm, helper::SPIN_LOCK);
            asm.ldx(Size::DW, Reg::R1, Reg::R8, NUMBER).add_imm(Reg::R1, 21);
            asm.stx(Size::DW, Reg::R8, NUMBER, Reg::R1);
            call(asm, helper::SPIN_UNLOCK);
        }
    })?;
    bench.found("the number afterwards", number(&map));
    Ok(())
}

/// Starts a timer whose callback adds 42 to the number, `nanos` from now, and notes what the calls returned.
fn start(bench: &mut Bench<'_, '_>, callback_returns: i32, nanos: u64) -> Result<OwnedFd, Ended> {
    let map = value_map(bench, TIMED)?;
    let results = bench.open_with_callback(
        3,
        |asm| {
            value_in_r8(asm, &map);
            for index in [0, 1] {
                init(asm, &map);
                keep(asm, index, Reg::R0);
            }
            asm.ld_func(Reg::R2, "callback");
            call(asm, helper::TIMER_SET_CALLBACK);
            keep(asm, 2, Reg::R0);
            asm.ld_imm64(Reg::R2, nanos).mov_imm(Reg::R3, 0);
            call(asm, helper::TIMER_START);
            keep(asm, 3, Reg::R0);
            if nanos > 0 {
                for index in [4, 5] {
                    call(asm, helper::TIMER_CANCEL);
                    keep(asm, index, Reg::R0);
                }
            }
        },
        |asm| {
            asm.ldx(Size::DW, Reg::R1, Reg::R3, NUMBER).add_imm(Reg::R1, 42);
            asm.stx(Size::DW, Reg::R3, NUMBER, Reg::R1).mov_imm(Reg::R0, callback_returns).exit();
        },
    )?;
    let calls = ["init", "a second init", "set_callback", "start", "cancel", "a second cancel"];
    for (index, name) in (0..if nanos > 0 { 6 } else { 4 }).zip(calls) {
        bench.returned(&format!("{name} returned"), results.get(slot(index)));
    }
    Ok(map)
}

/// A timer that is over at once.
fn timer(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let map = start(bench, 0, 0)?;
    until(|| number(&map) != Ok(0));
    bench.found("the number afterwards", number(&map));
    Ok(())
}

/// A timer that is cancelled an hour before its time.
fn cancel(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let map = start(bench, 0, 3_600_000_000_000)?;
    bench.found("the number afterwards", number(&map));
    Ok(())
}

/// To a program of the same hook and kind, to an empty place, and to a place that the map does not have. What comes back
/// leaves nothing in R0 (6.12 kernel/bpf/core.c, `bpf_tail_call_proto`), so that going on is all that shows.
fn tail_call(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let helper = bench.helper();
    let programs = bench.attempt.map(&MapSpec::new(BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 2))?;
    let mut results = bench.attempt.results()?;
    results.name_nobody();
    let by_executing = bench.only_execution_sleeps()?;
    let hook = if by_executing { SLEEPS_EVERYWHERE } else { "file_open" };
    let callee = bench.program(hook, &results, |asm| {
        asm.mov_imm(Reg::R1, 42);
        keep(asm, 3, Reg::R1);
    });
    let callee = bench.attempt.load_lsm(&callee)?;
    let caller = bench.program(hook, &results, |asm| {
        for place in [1, 2, 0] {
            asm.mov_reg(Reg::R1, CTX).ld_map_fd(Reg::R2, &programs).mov_imm(Reg::R3, place).call(helper);
            asm.mov_imm(Reg::R1, 1);
            keep(asm, place, Reg::R1);
        }
    });
    let caller = bench.attempt.attach_lsm(&caller)?;
    bpf::map_update(&programs, &0_u32.to_ne_bytes(), &callee.as_raw_fd().to_ne_bytes(), bpf::BPF_ANY)
        .map_err(|errno| Ended::could_not("put the program into the map", errno))?;
    super::bench::write_file()?;
    let arm = Arm::new(&results);
    let done = bench
        .attempt
        .trigger(|| if by_executing { exec::at_secure(arm).map(drop) } else { open_file(arm).map(drop) });
    done.map_err(|errno| Ended::could_not("do the trigger", errno))?;
    std::mem::forget(caller); // as every program of a bench
    bench.attempt.runs(results.runs());
    bench.attempt.holds("the other program ran", results.get(slot(3)) == 42);
    bench.attempt.holds("it came back from an empty place", results.get(slot(1)) == 1);
    bench.attempt.holds("it came back from no place", results.get(slot(2)) == 1);
    bench.attempt.holds("it did not come back from the other program", results.get(slot(0)) == 0);
    Ok(())
}
