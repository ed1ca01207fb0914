//! Queues and stacks, and the values that a processor has of its own.

use super::bench::{Bench, keep, slot, stack};
use super::{Row, canonical, case, misuse, sleepable};
use crate::asm::Asm;
use crate::bpf::{
    self, BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_QUEUE, BPF_MAP_TYPE_STACK, MapSpec,
};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::session::Ended;
use crate::spec::{Source, source};
use std::os::fd::OwnedFd;

const BASE: Source = source("6.0", "kernel/bpf/helpers.c", "bpf_base_func_proto");
const COMPATIBLE: Source = source("6.12", "kernel/bpf/verifier.c", "check_map_func_compatibility");

pub(super) const ROWS: &[Row] = &[
    Row {
        helper: helper::MAP_PUSH_ELEM,
        asks: "add a value that user space takes out, and answer E2BIG when the map is full",
        sources: &[
            BASE,
            source("6.0", "kernel/bpf/queue_stack_maps.c", "queue_stack_map_push_elem"),
            COMPATIBLE,
        ],
        cases: &[
            canonical(|bench| push(bench, BPF_MAP_TYPE_QUEUE)),
            sleepable(|bench| push(bench, BPF_MAP_TYPE_QUEUE)),
            case("on-a-stack", |bench| push(bench, BPF_MAP_TYPE_STACK)),
            misuse("misuse-value-too-short", |bench| {
                let (helper, map) = (bench.helper(), map(bench, BPF_MAP_TYPE_QUEUE)?);
                bench.load(|asm| {
                    asm.st_imm(Size::W, Reg::R10, -4, 1);
                    call(asm, &map, -4, helper);
                })
            }),
            misuse("misuse-map-of-another-type", another_type),
        ],
    },
    Row {
        helper: helper::MAP_POP_ELEM,
        asks: "take out a value that user space has added, and answer ENOENT when there is none",
        sources: &[BASE, source("6.0", "kernel/bpf/queue_stack_maps.c", "__queue_map_get"), COMPATIBLE],
        cases: &[
            canonical(|bench| get(bench, BPF_MAP_TYPE_QUEUE)),
            sleepable(|bench| get(bench, BPF_MAP_TYPE_QUEUE)),
            case("from-a-stack", |bench| get(bench, BPF_MAP_TYPE_STACK)),
            misuse("misuse-value-too-short", too_short),
            misuse("misuse-map-of-another-type", another_type),
        ],
    },
    Row {
        helper: helper::MAP_PEEK_ELEM,
        asks: "give the value that would be taken out next, again and again",
        sources: &[BASE, source("6.0", "kernel/bpf/queue_stack_maps.c", "__queue_map_get"), COMPATIBLE],
        cases: &[
            canonical(|bench| get(bench, BPF_MAP_TYPE_QUEUE)),
            sleepable(|bench| get(bench, BPF_MAP_TYPE_QUEUE)),
            case("at-a-stack", |bench| get(bench, BPF_MAP_TYPE_STACK)),
            misuse("misuse-value-too-short", too_short),
            misuse("misuse-map-of-another-type", another_type),
        ],
    },
    Row {
        helper: helper::MAP_LOOKUP_PERCPU_ELEM,
        asks: "give a processor's own value, and null for a processor that there is not",
        sources: &[
            BASE,
            source("6.0", "kernel/bpf/arraymap.c", "percpu_array_map_lookup_percpu_elem"),
            COMPATIBLE,
        ],
        cases: &[
            canonical(of_processor),
            sleepable(of_processor),
            misuse("misuse-without-null-check", |bench| {
                let map = per_processor(bench)?;
                bench.load(|asm| {
                    look_up(asm, &map, 0);
                    asm.ldx(Size::DW, Reg::R1, Reg::R0, 0);
                })
            }),
            misuse("misuse-map-of-another-type", |bench| {
                let map = bench.attempt.map(&MapSpec::new(BPF_MAP_TYPE_HASH, 4, 8, 2))?;
                bench.load(|asm| look_up(asm, &map, 0))
            }),
        ],
    },
];

/// What goes in and out, in this order.
const VALUES: [i32; 2] = [11, 22];

fn map(bench: &mut Bench<'_, '_>, map_type: u32) -> Result<OwnedFd, Ended> {
    bench.attempt.map(&MapSpec::new(map_type, 0, 8, 2).named("values"))
}

/// Calls a helper for the value at `at` below the frame pointer; the third argument is for a push.
fn call(asm: &mut Asm, map: &OwnedFd, at: i32, helper: u32) {
    stack(asm, Reg::R2, at);
    asm.ld_map_fd(Reg::R1, map).mov_imm(Reg::R3, 0).call(helper);
}

/// Adds two values, and a third for which there is no room.
fn push(bench: &mut Bench<'_, '_>, map_type: u32) -> Result<(), Ended> {
    let (helper, map) = (bench.helper(), map(bench, map_type)?);
    let results = bench.open_or_execute(|asm| {
        for (index, value) in [(0, VALUES[0]), (1, VALUES[1]), (2, 33)] {
            asm.st_imm(Size::DW, Reg::R10, -8, value);
            call(asm, &map, -8, helper);
            keep(asm, index, Reg::R0);
        }
    })?;
    bench.returned("returned", results.get(slot(0)));
    bench.returned("returned the second time", results.get(slot(1)));
    bench.returned("returned for one too many", results.get(slot(2)));
    let take = || {
        let mut value = [0; 8];
        bpf::map_lookup_and_delete(&map, &[], &mut value).map(|()| u64::from_ne_bytes(value))
    };
    let took: Vec<String> =
        (0..3).map(|_| take().map_or_else(Errno::name, |value| value.to_string())).collect();
    bench.attempt.see("user space takes out", took.join(", "));
    Ok(())
}

/// Takes out, or looks at, three times what user space has added twice.
fn get(bench: &mut Bench<'_, '_>, map_type: u32) -> Result<(), Ended> {
    let (helper, map) = (bench.helper(), map(bench, map_type)?);
    for value in VALUES {
        bpf::map_update(&map, &[], &i64::from(value).to_ne_bytes(), bpf::BPF_ANY)
            .map_err(|errno| Ended::could_not("add a value", errno))?;
    }
    let results = bench.open_or_execute(|asm| {
        for index in 0..3 {
            asm.st_imm(Size::DW, Reg::R10, -8, 0);
            call(asm, &map, -8, helper);
            keep(asm, 2 * index, Reg::R0);
            asm.ldx(Size::DW, Reg::R1, Reg::R10, -8);
            keep(asm, 2 * index + 1, Reg::R1);
        }
    })?;
    for (index, time) in (0..).zip(["first", "second", "third"]) {
        bench.returned(&format!("returned the {time} time"), results.get(slot(2 * index)));
        bench.attempt.see(&format!("the {time} value"), results.get(slot(2 * index + 1)));
    }
    Ok(())
}

/// Loads a call with room for half a value, above which the stack ends.
fn too_short(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, map) = (bench.helper(), map(bench, BPF_MAP_TYPE_QUEUE)?);
    bench.load(|asm| call(asm, &map, -4, helper))
}

fn another_type(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let helper = bench.helper();
    let map = bench.attempt.map(&MapSpec::new(BPF_MAP_TYPE_HASH, 4, 8, 2))?;
    bench.load(|asm| {
        asm.st_imm(Size::DW, Reg::R10, -8, 0);
        call(asm, &map, -8, helper);
    })
}

const OF_FIRST: u64 = 0x55aa;

/// A map in which the first processor's value is known.
fn per_processor(bench: &mut Bench<'_, '_>) -> Result<OwnedFd, Ended> {
    let map = bench.attempt.map(&MapSpec::new(BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, 1))?;
    // User space gives a value for every processor that could ever be there.
    let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = possible.trim().rsplit(['-', ',']).next().and_then(|text| text.parse::<usize>().ok());
    let mut values = vec![0; 8 * (last.unwrap_or(0) + 1)];
    if let Some(first) = values.first_chunk_mut::<8>() {
        *first = OF_FIRST.to_ne_bytes();
    }
    bpf::map_update(&map, &0_u32.to_ne_bytes(), &values, bpf::BPF_ANY)
        .map_err(|errno| Ended::could_not("store the values", errno))?;
    Ok(map)
}

fn look_up(asm: &mut Asm, map: &OwnedFd, processor: i32) {
    asm.st_imm(Size::W, Reg::R10, -4, 0);
    stack(asm, Reg::R2, -4);
    asm.ld_map_fd(Reg::R1, map).mov_imm(Reg::R3, processor).call(helper::MAP_LOOKUP_PERCPU_ELEM);
}

fn of_processor(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    const NONE: i32 = 1 << 20;
    let map = per_processor(bench)?;
    let results = bench.open(|asm| {
        look_up(asm, &map, 0);
        asm.jeq_imm(Reg::R0, 0, "pass").ldx(Size::DW, Reg::R1, Reg::R0, 0);
        keep(asm, 0, Reg::R1);
        look_up(asm, &map, NONE);
        asm.jne_imm(Reg::R0, 0, "pass").mov_imm(Reg::R1, 1);
        keep(asm, 1, Reg::R1);
    })?;
    bench.attempt.same("the first processor's value", results.get(slot(0)), OF_FIRST);
    bench.attempt.holds("null for a processor that there is not", results.get(slot(1)) == 1);
    Ok(())
}
