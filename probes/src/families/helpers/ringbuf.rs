//! Sending events to user space through a ring buffer.

use super::bench::{Bench, FILE, keep, slot, stack, write_file};
use super::call::Arg::{Hash, Number, Page};
use super::{Row, WORDS, canonical, case, misuse, rust, sleepable};
use crate::asm::Asm;
use crate::aya_load::Global;
use crate::bpf::{BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_RINGBUF, MapSpec};
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::PAGE;
use crate::objects::RINGBUF_EVENTS;
use crate::objects::layout::{RingbufEvent, RingbufEvents};
use crate::session::Ended;
use crate::spec::{Source, source};
use aya::maps::{Map, MapData, RingBuf};
use std::fs::File;
use std::os::fd::OwnedFd;

const TRACING: Source = source("5.9", "kernel/trace/bpf_trace.c", "bpf_tracing_func_proto");
const REFERENCES: Source = source("5.9", "kernel/bpf/verifier.c", "check_reference_leak");

pub(super) const ROWS: &[Row] = &[
    Row {
        helper: helper::RINGBUF_OUTPUT,
        asks: "send a copy of memory that user space receives whole",
        sources: &[
            TRACING,
            source("5.9", "kernel/bpf/ringbuf.c", "bpf_ringbuf_output"),
            source("5.9", "kernel/bpf/verifier.c", "check_map_func_compatibility"),
        ],
        cases: &[
            canonical(|bench| output(bench, 16)),
            sleepable(|bench| output(bench, 16)),
            case("more-than-fits", |bench| output(bench, 2048)),
            misuse("misuse-size-beyond-the-stack", |bench| {
                let (helper, ring) = (bench.helper(), ring(bench)?);
                bench.load(|asm| {
                    stack(asm, Reg::R2, -16);
                    asm.ld_map_fd(Reg::R1, &ring).mov_imm(Reg::R3, 24).mov_imm(Reg::R4, 0).call(helper);
                })
            }),
            misuse("misuse-size-not-bounded", |bench| {
                let (helper, ring) = (bench.helper(), ring(bench)?);
                bench.load(|asm| {
                    asm.ldx(Size::DW, Reg::R3, PAGE, slot(0)).mov_reg(Reg::R2, PAGE);
                    asm.ld_map_fd(Reg::R1, &ring).mov_imm(Reg::R4, 0).call(helper);
                })
            }),
            misuse("misuse-map-of-another-type", |bench| {
                let helper = bench.helper();
                let map = bench.attempt.map(&MapSpec::new(BPF_MAP_TYPE_HASH, 4, 8, 4))?;
                bench.load(|asm| {
                    asm.ld_map_fd(Reg::R1, &map).mov_reg(Reg::R2, PAGE);
                    asm.mov_imm(Reg::R3, 16).mov_imm(Reg::R4, 0).call(helper);
                })
            }),
        ],
    },
    Row {
        helper: helper::RINGBUF_RESERVE,
        asks: "give memory that user space receives once it is submitted",
        sources: &[TRACING, source("5.9", "kernel/bpf/ringbuf.c", "__bpf_ringbuf_reserve"), REFERENCES],
        cases: &[
            canonical(reserve),
            sleepable(reserve),
            rust(events_from_rust),
            misuse("misuse-never-submitted", |bench| {
                reserve_then(bench, |asm| {
                    asm.jeq_imm(Reg::R0, 0, "pass");
                })
            }),
            misuse("misuse-without-null-check", |bench| {
                reserve_then(bench, |asm| {
                    asm.st_imm(Size::DW, Reg::R0, 0, 1);
                    submit(asm, helper::RINGBUF_SUBMIT);
                })
            }),
            misuse("misuse-written-beyond-the-size", |bench| {
                reserve_then(bench, |asm| {
                    asm.jeq_imm(Reg::R0, 0, "pass").st_imm(Size::DW, Reg::R0, 16, 1);
                    submit(asm, helper::RINGBUF_SUBMIT);
                })
            }),
        ],
    },
    Row {
        helper: helper::RINGBUF_SUBMIT,
        asks: "end the program's right to the memory that it submits",
        sources: &[TRACING, source("5.9", "kernel/bpf/ringbuf.c", "bpf_ringbuf_commit")],
        cases: &[
            canonical(reserve),
            sleepable(reserve),
            misuse("misuse-written-afterwards", |bench| {
                reserve_then(bench, |asm| {
                    asm.jeq_imm(Reg::R0, 0, "pass").mov_reg(Reg::R8, Reg::R0);
                    submit(asm, helper::RINGBUF_SUBMIT);
                    asm.st_imm(Size::DW, Reg::R8, 0, 1);
                })
            }),
            misuse("misuse-twice", |bench| {
                reserve_then(bench, |asm| {
                    asm.jeq_imm(Reg::R0, 0, "pass").mov_reg(Reg::R8, Reg::R0);
                    submit(asm, helper::RINGBUF_SUBMIT);
                    asm.mov_reg(Reg::R0, Reg::R8);
                    submit(asm, helper::RINGBUF_SUBMIT);
                })
            }),
        ],
    },
    Row {
        helper: helper::RINGBUF_DISCARD,
        asks: "give reserved memory back so that user space receives nothing",
        sources: &[TRACING, source("5.9", "kernel/bpf/ringbuf.c", "bpf_ringbuf_commit")],
        cases: &[
            canonical(discard),
            sleepable(discard),
            misuse("misuse-twice", |bench| {
                reserve_then(bench, |asm| {
                    asm.jeq_imm(Reg::R0, 0, "pass").mov_reg(Reg::R8, Reg::R0);
                    submit(asm, helper::RINGBUF_DISCARD);
                    asm.mov_reg(Reg::R0, Reg::R8);
                    submit(asm, helper::RINGBUF_DISCARD);
                })
            }),
            misuse("misuse-memory-of-a-map", |bench| bench.call(&[Page, Number(0)])),
        ],
    },
    Row {
        helper: helper::RINGBUF_QUERY,
        asks: "tell the size of the buffer and how much of it waits for user space",
        sources: &[TRACING, source("5.9", "kernel/bpf/ringbuf.c", "bpf_ringbuf_query")],
        cases: &[
            canonical(query),
            sleepable(query),
            misuse("misuse-map-of-another-type", |bench| bench.call(&[Hash, Number(0)])),
            misuse("misuse-number-for-map", |bench| bench.call(&[Number(0), Number(0)])),
        ],
    },
];

/// The smallest ring buffer there is.
const RING: u32 = 4096;
/// A ring buffer of the smallest size.
pub(super) fn ring(bench: &mut Bench<'_, '_>) -> Result<OwnedFd, Ended> {
    bench.attempt.map(&MapSpec::new(BPF_MAP_TYPE_RINGBUF, 0, 0, RING).named("events"))
}

/// Everything that waits in a ring buffer.
pub(super) fn received(ring: OwnedFd) -> Result<Vec<Vec<u8>>, Ended> {
    let why = |error: aya::maps::MapError| Ended::could_not("read the ring buffer", error);
    let map = Map::RingBuf(MapData::from_fd(ring).map_err(why)?);
    let mut ring = RingBuf::try_from(map).map_err(why)?;
    Ok(std::iter::from_fn(|| ring.next().map(|event| event.to_vec())).collect())
}

/// The bytes of an event of 16 bytes.
pub(super) fn event() -> Vec<u8> {
    WORDS.iter().flat_map(|&word| i64::from(word).to_ne_bytes()).collect()
}

/// Sends three copies of the first bytes of the page's own slots.
fn output(bench: &mut Bench<'_, '_>, size: i32) -> Result<(), Ended> {
    let (helper, ring) = (bench.helper(), ring(bench)?);
    let results = bench.open_or_execute(|asm| {
        for (index, word) in (3..).zip(WORDS) {
            asm.st_imm(Size::DW, PAGE, slot(index), word);
        }
        for index in 0..3 {
            super::bench::page(asm, Reg::R2, 3);
            asm.ld_map_fd(Reg::R1, &ring).mov_imm(Reg::R3, size).mov_imm(Reg::R4, 0).call(helper);
            keep(asm, index, Reg::R0);
        }
    })?;
    for index in 0..3 {
        bench.returned(&format!("returned by call {}", index + 1), results.get(slot(index)));
    }
    let received = received(ring)?;
    let sent = results.bytes(slot(3), usize::try_from(size).unwrap_or(0));
    bench.attempt.see("events received", received.len());
    bench.attempt.holds("each is what was sent", received.iter().all(|event| *event == sent));
    Ok(())
}

/// Asks for 16 bytes; the result is in R0.
fn ask(asm: &mut Asm, ring: &OwnedFd) {
    asm.ld_map_fd(Reg::R1, ring).mov_imm(Reg::R2, 16).mov_imm(Reg::R3, 0).call(helper::RINGBUF_RESERVE);
}

/// Hands what R0 points to back.
fn submit(asm: &mut Asm, helper: u32) {
    asm.mov_reg(Reg::R1, Reg::R0).mov_imm(Reg::R2, 0).call(helper);
}

/// Loads a program that reserves and goes on with `then`.
fn reserve_then(bench: &mut Bench<'_, '_>, then: impl FnOnce(&mut Asm)) -> Result<(), Ended> {
    let ring = ring(bench)?;
    bench.load(|asm| {
        ask(asm, &ring);
        then(asm);
    })
}

fn reserve(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let ring = ring(bench)?;
    bench.open_or_execute(|asm| {
        ask(asm, &ring);
        asm.jeq_imm(Reg::R0, 0, "pass");
        for (offset, word) in (0..).step_by(8).zip(WORDS) {
            asm.st_imm(Size::DW, Reg::R0, offset, word);
        }
        submit(asm, helper::RINGBUF_SUBMIT);
    })?;
    bench.attempt.same("the events", received(ring)?, vec![event()]);
    Ok(())
}

fn discard(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let ring = ring(bench)?;
    let results = bench.open_or_execute(|asm| {
        ask(asm, &ring);
        asm.jeq_imm(Reg::R0, 0, "pass").st_imm(Size::DW, Reg::R0, 0, 1);
        submit(asm, helper::RINGBUF_DISCARD);
        asm.mov_imm(Reg::R1, 1);
        keep(asm, 0, Reg::R1);
    })?;
    bench.attempt.holds("it was reserved and discarded", results.get(slot(0)) == 1);
    bench.attempt.see("events received", received(ring)?.len());
    Ok(())
}

/// Before and after an event of 16 bytes, which takes 8 more for its header.
fn query(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, ring) = (bench.helper(), ring(bench)?);
    let results = bench.open_or_execute(|asm| {
        // BPF_RB_AVAIL_DATA is 0, BPF_RB_RING_SIZE is 1.
        for (index, what) in [(0, 1), (1, 0), (2, 0)] {
            asm.ld_map_fd(Reg::R1, &ring).mov_imm(Reg::R2, what).call(helper);
            keep(asm, index, Reg::R0);
            if index == 1 {
                asm.ld_map_fd(Reg::R1, &ring).mov_reg(Reg::R2, PAGE).mov_imm(Reg::R3, 16);
                asm.mov_imm(Reg::R4, 0).call(helper::RINGBUF_OUTPUT);
            }
        }
    })?;
    bench.attempt.same("the size", results.get(slot(0)), u64::from(RING));
    bench.attempt.see("waiting before an event", results.get(slot(1)));
    bench.attempt.see("waiting after an event", results.get(slot(2)));
    Ok(())
}

fn events_from_rust(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    const OPENINGS: u64 = 2;
    write_file()?;
    let mut object = bench.attempt.attach_object(&RINGBUF_EVENTS, &[Global::target()])?;
    bench.attempt.trigger(|| (0..OPENINGS).for_each(|_| drop(File::open(FILE))));
    let counted: RingbufEvents = object.results()?;
    bench.attempt.runs(counted.runs);
    bench.attempt.see("sent", counted.sent);
    let mut ring = RingBuf::try_from(object.take_map("EVENTS")?)
        .map_err(|error| Ended::could_not("read the ring buffer", error))?;
    let pid = u64::from(std::process::id());
    let mut whole = true;
    let mut last = 0;
    let mut received = 0;
    while let Some(event) = ring.next() {
        received += 1;
        let words: Vec<u64> =
            event.as_chunks::<8>().0.iter().map(|&bytes| u64::from_ne_bytes(bytes)).collect();
        let &[run, pid_tgid, ktime] = words.as_slice() else {
            whole = false;
            continue;
        };
        let event = RingbufEvent { run, pid_tgid, ktime };
        whole &= event.run == received && event.pid_tgid == pid << 32 | pid && event.ktime > last;
        last = event.ktime;
    }
    bench.attempt.see("received", received);
    bench.attempt.holds("each event is whole and in order", whole);
    Ok(())
}
