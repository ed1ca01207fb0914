//! Elements of maps: looking them up, writing and deleting them, and calling back for each.

use super::bench::{Bench, keep, slot, stack};
use super::call::Arg::{Hash, Number, Page, Stack, Untouched, Unwritten};
use super::{Row, canonical, case, misuse, sleepable};
use crate::asm::Asm;
use crate::bpf::{self, BPF_MAP_TYPE_HASH, MapSpec};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::session::Ended;
use crate::spec::{Source, source};
use std::os::fd::OwnedFd;

const TRACING: Source = source("5.9", "kernel/trace/bpf_trace.c", "bpf_tracing_func_proto");
const ARGUMENTS: Source = source("5.9", "kernel/bpf/verifier.c", "check_func_arg");
/// What of the stack a helper may read: since 6.3 what a privileged program has not written as well
/// (`allow_uninit_stack`), which stable releases have got later (5.10.223 and 6.1.106 among Debian's), but until 6.5 only
/// as far down as the program has written (`allocated_stack`).
const STACK: Source = source("6.5", "kernel/bpf/verifier.c", "check_stack_range_initialized");
const SLEEPABLE: Source = source("6.0", "kernel/bpf/verifier.c", "check_map_prog_compatibility");

pub(super) const ROWS: &[Row] = &[
    Row {
        helper: helper::MAP_LOOKUP_ELEM,
        asks: "give a pointer to the value that user space stored, and null for a key that is not there",
        sources: &[TRACING, ARGUMENTS, STACK, SLEEPABLE],
        cases: &[
            canonical(lookup),
            sleepable(lookup),
            misuse("misuse-without-null-check", |bench| {
                lookup_then(bench, |asm| {
                    asm.ldx(Size::DW, Reg::R1, Reg::R0, 0);
                })
            }),
            misuse("misuse-beyond-the-value", |bench| {
                lookup_then(bench, |asm| {
                    asm.jeq_imm(Reg::R0, 0, "pass").ldx(Size::DW, Reg::R1, Reg::R0, 8);
                })
            }),
            case("key-not-written", |bench| bench.call(&[Hash, Unwritten(4)])),
            case("key-on-untouched-stack", |bench| bench.call(&[Hash, Untouched(4)])),
            misuse("misuse-number-for-map", |bench| {
                let helper = bench.helper();
                bench.load(|asm| {
                    key(asm, KEY);
                    asm.mov_imm(Reg::R1, 0).call(helper);
                })
            }),
        ],
    },
    Row {
        helper: helper::MAP_UPDATE_ELEM,
        asks: "store a value that user space finds, and obey BPF_NOEXIST",
        sources: &[TRACING, ARGUMENTS, STACK, SLEEPABLE],
        cases: &[
            canonical(update),
            sleepable(update),
            case("key-not-written", |bench| bench.call(&[Hash, Unwritten(4), Page, Number(0)])),
            case("key-on-untouched-stack", |bench| bench.call(&[Hash, Untouched(4), Page, Number(0)])),
            misuse("misuse-number-for-map", |bench| bench.call(&[Number(0), Stack(4), Page, Number(0)])),
            case("flags-that-there-are-not", |bench| bench.answer(&[Hash, Stack(4), Page, Number(64)])),
            misuse("misuse-value-too-short", |bench| {
                let (helper, map) = (bench.helper(), map(bench)?);
                bench.load(|asm| {
                    key(asm, KEY);
                    stack(asm, Reg::R3, -4);
                    asm.ld_map_fd(Reg::R1, &map).mov_imm(Reg::R4, 0).call(helper);
                })
            }),
        ],
    },
    Row {
        helper: helper::MAP_DELETE_ELEM,
        asks: "delete a value that user space stored, and answer ENOENT when there is none",
        sources: &[TRACING, ARGUMENTS, STACK, SLEEPABLE],
        cases: &[
            canonical(delete),
            sleepable(delete),
            case("key-not-written", |bench| bench.call(&[Hash, Unwritten(4)])),
            case("key-on-untouched-stack", |bench| bench.call(&[Hash, Untouched(4)])),
            misuse("misuse-number-for-map", |bench| bench.call(&[Number(0), Stack(4)])),
            misuse("misuse-number-for-key", |bench| {
                let (helper, map) = (bench.helper(), map(bench)?);
                bench.load(|asm| {
                    asm.mov_imm(Reg::R2, 4096).ld_map_fd(Reg::R1, &map).call(helper);
                })
            }),
        ],
    },
    Row {
        helper: helper::FOR_EACH_MAP_ELEM,
        asks: "call back for each element and return their number",
        sources: &[
            source("6.0", "kernel/bpf/bpf_iter.c", "bpf_for_each_map_elem"),
            source("6.0", "kernel/bpf/verifier.c", "prepare_func_exit"),
        ],
        cases: &[
            canonical(|bench| for_each(bench, 0, 0)),
            sleepable(|bench| for_each(bench, 0, 0)),
            case("flags-that-there-are-not", |bench| for_each(bench, 0, 1)),
            misuse("misuse-callback-returns-2", |bench| for_each(bench, 2, 0)),
            misuse("misuse-number-for-callback", |bench| bench.call(&[Hash, Number(0), Page, Number(0)])),
        ],
    },
    Row {
        helper: helper::LOOP,
        asks: "call back as often as asked, or until the callback returns 1",
        sources: &[
            source("6.0", "kernel/bpf/bpf_iter.c", "bpf_loop"),
            source("6.0", "kernel/bpf/verifier.c", "prepare_func_exit"),
        ],
        cases: &[
            canonical(|bench| repeat(bench, 10, 0, 0)),
            case("left-early", |bench| repeat(bench, 10, 1, 0)),
            case("flags-that-there-are-not", |bench| repeat(bench, 10, 0, 1)),
            case("more-than-may-be", |bench| repeat(bench, (1 << 23) + 1, 0, 0)),
            misuse("misuse-callback-returns-2", |bench| repeat(bench, 10, 2, 0)),
            misuse("misuse-number-for-callback", |bench| {
                bench.call(&[Number(10), Number(0), Page, Number(0)])
            }),
        ],
    },
];

/// The key and value that user space stores.
const KEY: u32 = 7;
const VALUE: u64 = 0x1122_3344_5566_7788;
/// A key that nobody stores.
const OTHER_KEY: u32 = 8;

/// A hash map with one element.
fn map(bench: &mut Bench<'_, '_>) -> Result<OwnedFd, Ended> {
    let map = bench.attempt.map(&MapSpec::new(BPF_MAP_TYPE_HASH, 4, 8, 4).named("elements"))?;
    bpf::map_update(&map, &KEY.to_ne_bytes(), &VALUE.to_ne_bytes(), bpf::BPF_ANY)
        .map_err(|errno| Ended::could_not("store an element", errno))?;
    Ok(map)
}

/// What user space finds under a key.
fn stored(map: &OwnedFd, key: u32) -> Result<u64, Errno> {
    let mut value = [0; 8];
    bpf::map_lookup(map, &key.to_ne_bytes(), &mut value).map(|()| u64::from_ne_bytes(value))
}

/// Writes a key to the stack and points R2 at it.
fn key(asm: &mut Asm, key: u32) {
    asm.st_imm(Size::W, Reg::R10, -4, key);
    stack(asm, Reg::R2, -4);
}

fn lookup(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, map) = (bench.helper(), map(bench)?);
    let results = bench.open_or_execute(|asm| {
        key(asm, KEY);
        asm.ld_map_fd(Reg::R1, &map).call(helper);
        asm.jeq_imm(Reg::R0, 0, "pass").ldx(Size::DW, Reg::R1, Reg::R0, 0);
        keep(asm, 0, Reg::R1);
        key(asm, OTHER_KEY);
        asm.ld_map_fd(Reg::R1, &map).call(helper);
        asm.jne_imm(Reg::R0, 0, "pass").mov_imm(Reg::R1, 1);
        keep(asm, 1, Reg::R1);
    })?;
    bench.attempt.same("the value", results.get(slot(0)), VALUE);
    bench.attempt.holds("null for another key", results.get(slot(1)) == 1);
    Ok(())
}

/// Loads a program that looks the key up and goes on with `then`.
fn lookup_then(bench: &mut Bench<'_, '_>, then: impl FnOnce(&mut Asm)) -> Result<(), Ended> {
    let (helper, map) = (bench.helper(), map(bench)?);
    bench.load(|asm| {
        key(asm, KEY);
        asm.ld_map_fd(Reg::R1, &map).call(helper);
        then(asm);
    })
}

fn update(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    const NEW: i32 = 0x5a5a;
    let (helper, map) = (bench.helper(), map(bench)?);
    let results = bench.open_or_execute(|asm| {
        for (index, flags) in [(0, bpf::BPF_ANY), (1, bpf::BPF_NOEXIST)] {
            key(asm, OTHER_KEY);
            asm.st_imm(Size::DW, Reg::R10, -16, NEW);
            stack(asm, Reg::R3, -16);
            asm.ld_map_fd(Reg::R1, &map).ld_imm64(Reg::R4, flags).call(helper);
            keep(asm, index, Reg::R0);
        }
    })?;
    bench.returned("returned for a new key", results.get(slot(0)));
    bench.returned("returned for the same key with BPF_NOEXIST", results.get(slot(1)));
    bench.found("user space finds", stored(&map, OTHER_KEY));
    Ok(())
}

fn delete(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, map) = (bench.helper(), map(bench)?);
    let results = bench.open_or_execute(|asm| {
        for index in 0..2 {
            key(asm, KEY);
            asm.ld_map_fd(Reg::R1, &map).call(helper);
            keep(asm, index, Reg::R0);
        }
    })?;
    bench.returned("returned", results.get(slot(0)));
    bench.returned("returned the second time", results.get(slot(1)));
    bench.found("user space finds", stored(&map, KEY));
    Ok(())
}

/// Adds the values up in a number on the stack that the callback is given.
fn for_each(bench: &mut Bench<'_, '_>, callback_returns: i32, flags: i32) -> Result<(), Ended> {
    let (helper, map) = (bench.helper(), map(bench)?);
    bpf::map_update(&map, &OTHER_KEY.to_ne_bytes(), &1_u64.to_ne_bytes(), bpf::BPF_ANY)
        .map_err(|errno| Ended::could_not("store an element", errno))?;
    let results = bench.open_with_callback(
        4,
        |asm| {
            asm.st_imm(Size::DW, Reg::R10, -8, 0).ld_map_fd(Reg::R1, &map).ld_func(Reg::R2, "callback");
            stack(asm, Reg::R3, -8);
            asm.mov_imm(Reg::R4, flags).call(helper);
            keep(asm, 0, Reg::R0);
            asm.ldx(Size::DW, Reg::R1, Reg::R10, -8);
            keep(asm, 1, Reg::R1);
        },
        |asm| {
            asm.ldx(Size::DW, Reg::R1, Reg::R3, 0).ldx(Size::DW, Reg::R2, Reg::R4, 0);
            asm.add_reg(Reg::R2, Reg::R1).stx(Size::DW, Reg::R4, 0, Reg::R2);
            asm.mov_imm(Reg::R0, callback_returns).exit();
        },
    )?;
    bench.returned("returned", results.get(slot(0)));
    let sum = if flags == 0 { VALUE + 1 } else { 0 };
    bench.attempt.same("the sum of the values", results.get(slot(1)), sum);
    Ok(())
}

/// Asks for some calls, which a number on the stack counts.
fn repeat(bench: &mut Bench<'_, '_>, times: i32, callback_returns: i32, flags: i32) -> Result<(), Ended> {
    let helper = bench.helper();
    let results = bench.open_with_callback(
        2,
        |asm| {
            asm.st_imm(Size::DW, Reg::R10, -8, 0).mov_imm(Reg::R1, times).ld_func(Reg::R2, "callback");
            stack(asm, Reg::R3, -8);
            asm.mov_imm(Reg::R4, flags).call(helper);
            keep(asm, 0, Reg::R0);
            asm.ldx(Size::DW, Reg::R1, Reg::R10, -8);
            keep(asm, 1, Reg::R1);
        },
        |asm| {
            asm.ldx(Size::DW, Reg::R3, Reg::R2, 0).add_imm(Reg::R3, 1).stx(Size::DW, Reg::R2, 0, Reg::R3);
            asm.mov_imm(Reg::R0, callback_returns).exit();
        },
    )?;
    bench.returned("returned", results.get(slot(0)));
    bench.attempt.see("calls counted", results.get(slot(1)));
    Ok(())
}
