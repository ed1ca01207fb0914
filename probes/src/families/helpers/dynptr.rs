//! Dynptrs: over memory of a map, and over an event of a ring buffer.

use super::bench::{Bench, keep, page, slot, stack};
use super::ringbuf::{event, received, ring};
use super::{Row, WORDS, canonical, case, misuse, sleepable};
use crate::asm::Asm;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::PAGE;
use crate::session::Ended;
use crate::spec::{Source, source};
use std::os::fd::OwnedFd;

const BASE: Source = source("6.0", "kernel/bpf/helpers.c", "bpf_base_func_proto");
const ARGUMENT: Source = source("6.12", "kernel/bpf/verifier.c", "process_dynptr_func");

pub(super) const ROWS: &[Row] = &[
    Row {
        helper: helper::DYNPTR_FROM_MEM,
        asks: "make a dynptr over memory of a map, and only that",
        sources: &[BASE, source("6.0", "kernel/bpf/helpers.c", "bpf_dynptr_from_mem"), ARGUMENT],
        cases: &[
            canonical(write),
            sleepable(write),
            misuse("misuse-memory-of-the-stack", |bench| {
                bench.load(|asm| {
                    asm.st_imm(Size::DW, Reg::R10, -40, 0);
                    stack(asm, Reg::R1, -40);
                    make(asm, 8);
                })
            }),
            misuse("misuse-size-beyond-the-value", |bench| {
                bench.load(|asm| {
                    asm.mov_reg(Reg::R1, PAGE);
                    make(asm, 8192);
                })
            }),
            case("made-twice-in-one-place", |bench| {
                bench.load(|asm| {
                    for _ in 0..2 {
                        over_the_page(asm);
                    }
                })
            }),
        ],
    },
    Row {
        helper: helper::DYNPTR_WRITE,
        asks: "write within the dynptr's memory, and answer E2BIG beyond",
        sources: &[BASE, source("6.0", "kernel/bpf/helpers.c", "bpf_dynptr_write"), ARGUMENT],
        cases: &[
            canonical(write),
            sleepable(write),
            misuse("misuse-not-a-dynptr", |bench| {
                bench.load(|asm| {
                    asm.st_imm(Size::DW, Reg::R10, -16, 0).st_imm(Size::DW, Reg::R10, -8, 0);
                    call_write(asm, 0, 8);
                })
            }),
            misuse("misuse-size-beyond-the-source", |bench| {
                bench.load(|asm| {
                    over_the_page(asm);
                    call_write(asm, 0, 64);
                })
            }),
        ],
    },
    Row {
        helper: helper::DYNPTR_READ,
        asks: "read within the dynptr's memory, and answer E2BIG beyond",
        sources: &[BASE, source("6.0", "kernel/bpf/helpers.c", "bpf_dynptr_read"), ARGUMENT],
        cases: &[
            canonical(read),
            sleepable(read),
            misuse("misuse-not-a-dynptr", |bench| {
                bench.load(|asm| {
                    asm.st_imm(Size::DW, Reg::R10, -16, 0).st_imm(Size::DW, Reg::R10, -8, 0);
                    call_read(asm, 0, 8);
                })
            }),
            misuse("misuse-size-beyond-the-destination", |bench| {
                bench.load(|asm| {
                    over_the_page(asm);
                    call_read(asm, 0, 64);
                })
            }),
        ],
    },
    Row {
        helper: helper::DYNPTR_DATA,
        asks: "give a pointer to a part of the dynptr's memory, and null beyond it",
        sources: &[BASE, source("6.0", "kernel/bpf/helpers.c", "bpf_dynptr_data"), ARGUMENT],
        cases: &[
            canonical(data),
            sleepable(data),
            misuse("misuse-without-null-check", |bench| {
                bench.load(|asm| {
                    over_the_page(asm);
                    call_data(asm, 0, 8);
                    asm.ldx(Size::DW, Reg::R1, Reg::R0, 0);
                })
            }),
            misuse("misuse-beyond-the-part", |bench| {
                bench.load(|asm| {
                    over_the_page(asm);
                    call_data(asm, 0, 8);
                    asm.jeq_imm(Reg::R0, 0, "pass").ldx(Size::DW, Reg::R1, Reg::R0, 8);
                })
            }),
            misuse("misuse-size-not-known", |bench| {
                bench.load(|asm| {
                    over_the_page(asm);
                    stack(asm, Reg::R1, -16);
                    asm.mov_imm(Reg::R2, 0).ldx(Size::DW, Reg::R3, PAGE, slot(0)).call(helper::DYNPTR_DATA);
                })
            }),
        ],
    },
    Row {
        helper: helper::RINGBUF_RESERVE_DYNPTR,
        asks: "give a dynptr over an event that user space receives once it is submitted",
        sources: &[BASE, source("6.0", "kernel/bpf/ringbuf.c", "bpf_ringbuf_reserve_dynptr"), ARGUMENT],
        cases: &[
            canonical(|bench| reserve(bench, helper::RINGBUF_SUBMIT_DYNPTR, 1)),
            misuse("misuse-never-submitted", |bench| reserve_then(bench, |_| {})),
            misuse("misuse-submitted-only-if-reserved", |bench| {
                reserve_then(bench, |asm| {
                    asm.jne_imm(Reg::R0, 0, "pass");
                    end(asm, helper::RINGBUF_SUBMIT_DYNPTR);
                })
            }),
        ],
    },
    Row {
        helper: helper::RINGBUF_SUBMIT_DYNPTR,
        asks: "send the event, and end the dynptr",
        sources: &[BASE, source("6.0", "kernel/bpf/ringbuf.c", "bpf_ringbuf_submit_dynptr"), ARGUMENT],
        cases: &[
            canonical(|bench| reserve(bench, helper::RINGBUF_SUBMIT_DYNPTR, 1)),
            misuse("misuse-twice", |bench| twice(bench, helper::RINGBUF_SUBMIT_DYNPTR)),
            misuse("misuse-dynptr-of-a-map", |bench| of_a_map(bench, helper::RINGBUF_SUBMIT_DYNPTR)),
            misuse("misuse-written-afterwards", |bench| {
                reserve_then(bench, |asm| {
                    end(asm, helper::RINGBUF_SUBMIT_DYNPTR);
                    call_write(asm, 0, 8);
                })
            }),
        ],
    },
    Row {
        helper: helper::RINGBUF_DISCARD_DYNPTR,
        asks: "take the event back, and end the dynptr",
        sources: &[BASE, source("6.0", "kernel/bpf/ringbuf.c", "bpf_ringbuf_discard_dynptr"), ARGUMENT],
        cases: &[
            canonical(|bench| reserve(bench, helper::RINGBUF_DISCARD_DYNPTR, 0)),
            misuse("misuse-twice", |bench| twice(bench, helper::RINGBUF_DISCARD_DYNPTR)),
            misuse("misuse-dynptr-of-a-map", |bench| of_a_map(bench, helper::RINGBUF_DISCARD_DYNPTR)),
        ],
    },
];

/// What is written through a dynptr.
const VALUE: i32 = 0x0a0b_0c0d;
/// The slots under the dynptr: two of 8 bytes.
const FIRST: i32 = 8;
const SIZE: i32 = 16;

/// Makes a dynptr of `size` bytes at R1 in the two words below the frame pointer.
fn make(asm: &mut Asm, size: i32) {
    asm.mov_imm(Reg::R2, size).mov_imm(Reg::R3, 0);
    stack(asm, Reg::R4, -16);
    asm.call(helper::DYNPTR_FROM_MEM);
}

fn over_the_page(asm: &mut Asm) {
    page(asm, Reg::R1, FIRST);
    make(asm, SIZE);
}

/// Writes `size` bytes, of which there are 8, from the third word below the frame pointer to `offset`.
fn call_write(asm: &mut Asm, offset: i32, size: i32) {
    asm.st_imm(Size::DW, Reg::R10, -24, VALUE);
    stack(asm, Reg::R1, -16);
    stack(asm, Reg::R3, -24);
    asm.mov_imm(Reg::R2, offset).mov_imm(Reg::R4, size).mov_imm(Reg::R5, 0).call(helper::DYNPTR_WRITE);
}

/// Reads `size` bytes from `offset` into the third word below the frame pointer, where 8 have room.
fn call_read(asm: &mut Asm, offset: i32, size: i32) {
    stack(asm, Reg::R1, -24);
    stack(asm, Reg::R3, -16);
    asm.mov_imm(Reg::R2, size).mov_imm(Reg::R4, offset).mov_imm(Reg::R5, 0).call(helper::DYNPTR_READ);
}

fn call_data(asm: &mut Asm, offset: i32, size: i32) {
    stack(asm, Reg::R1, -16);
    asm.mov_imm(Reg::R2, offset).mov_imm(Reg::R3, size).call(helper::DYNPTR_DATA);
}

/// Writes to the second half, and beyond it.
fn write(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let results = bench.open(|asm| {
        over_the_page(asm);
        keep(asm, 0, Reg::R0);
        for (index, offset) in [(1, 8), (2, 12)] {
            call_write(asm, offset, 8);
            keep(asm, index, Reg::R0);
        }
    })?;
    bench.returned("making it returned", results.get(slot(0)));
    bench.returned("writing to the second half returned", results.get(slot(1)));
    bench.returned("writing beyond the end returned", results.get(slot(2)));
    bench.attempt.see("the first half", results.get(slot(FIRST)));
    bench.attempt.same("the second half", results.get(slot(FIRST + 1)), u64::from(VALUE.unsigned_abs()));
    Ok(())
}

/// Reads what the program has put into the second half, and beyond it.
fn read(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let results = bench.open(|asm| {
        asm.st_imm(Size::DW, PAGE, slot(FIRST + 1), VALUE);
        over_the_page(asm);
        for (index, offset) in [(0, 8), (2, 12)] {
            asm.st_imm(Size::DW, Reg::R10, -24, 1);
            call_read(asm, offset, 8);
            keep(asm, index, Reg::R0);
            asm.ldx(Size::DW, Reg::R1, Reg::R10, -24);
            keep(asm, index + 1, Reg::R1);
        }
    })?;
    bench.returned("reading the second half returned", results.get(slot(0)));
    bench.attempt.same("the second half", results.get(slot(1)), u64::from(VALUE.unsigned_abs()));
    bench.returned("reading beyond the end returned", results.get(slot(2)));
    bench.attempt.see("and left", results.get(slot(3)));
    Ok(())
}

fn data(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let results = bench.open(|asm| {
        asm.st_imm(Size::DW, PAGE, slot(FIRST + 1), VALUE);
        over_the_page(asm);
        call_data(asm, 8, 8);
        asm.jeq_imm(Reg::R0, 0, "pass").ldx(Size::DW, Reg::R1, Reg::R0, 0);
        keep(asm, 0, Reg::R1);
        call_data(asm, 12, 8);
        asm.jne_imm(Reg::R0, 0, "pass").mov_imm(Reg::R1, 1);
        keep(asm, 1, Reg::R1);
    })?;
    bench.attempt.same("the second half", results.get(slot(0)), u64::from(VALUE.unsigned_abs()));
    bench.attempt.holds("null beyond the end", results.get(slot(1)) == 1);
    Ok(())
}

/// Asks for an event of 16 bytes.
fn ask(asm: &mut Asm, ring: &OwnedFd) {
    stack(asm, Reg::R4, -16);
    asm.ld_map_fd(Reg::R1, ring).mov_imm(Reg::R2, SIZE).mov_imm(Reg::R3, 0);
    asm.call(helper::RINGBUF_RESERVE_DYNPTR);
}

/// Hands the event back.
fn end(asm: &mut Asm, helper: u32) {
    stack(asm, Reg::R1, -16);
    asm.mov_imm(Reg::R2, 0).call(helper);
}

/// Fills an event and ends it with `helper`; user space then finds as many events.
fn reserve(bench: &mut Bench<'_, '_>, helper: u32, events: usize) -> Result<(), Ended> {
    let ring = ring(bench)?;
    let results = bench.open(|asm| {
        ask(asm, &ring);
        keep(asm, 0, Reg::R0);
        for (offset, word) in (0..).step_by(8).zip(WORDS) {
            asm.st_imm(Size::DW, Reg::R10, -24, word);
            stack(asm, Reg::R1, -16);
            stack(asm, Reg::R3, -24);
            asm.mov_imm(Reg::R2, offset).mov_imm(Reg::R4, 8).mov_imm(Reg::R5, 0);
            asm.call(helper::DYNPTR_WRITE);
            keep(asm, 1, Reg::R0);
        }
        end(asm, helper);
    })?;
    bench.returned("reserving returned", results.get(slot(0)));
    bench.returned("writing returned", results.get(slot(1)));
    bench.attempt.same("the events", received(ring)?, vec![event(); events]);
    Ok(())
}

/// Loads a program that reserves and goes on with `then`.
fn reserve_then(bench: &mut Bench<'_, '_>, then: impl FnOnce(&mut Asm)) -> Result<(), Ended> {
    let ring = ring(bench)?;
    bench.load(|asm| {
        ask(asm, &ring);
        then(asm);
    })
}

fn twice(bench: &mut Bench<'_, '_>, helper: u32) -> Result<(), Ended> {
    reserve_then(bench, |asm| {
        end(asm, helper);
        end(asm, helper);
    })
}

fn of_a_map(bench: &mut Bench<'_, '_>, helper: u32) -> Result<(), Ended> {
    bench.load(|asm| {
        over_the_page(asm);
        end(asm, helper);
    })
}
