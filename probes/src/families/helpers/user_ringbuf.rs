//! Messages from user space through a ring buffer.

use super::bench::{Bench, keep, slot, stack};
use super::call::Arg::{Hash, Number, Page};
use super::{Row, canonical, case, misuse, sleepable};
use crate::bpf::{BPF_MAP_TYPE_USER_RINGBUF, MapSpec};
use crate::helper;
use crate::insn::{Reg, Size};
use crate::session::Ended;
use crate::spec::source;
use memmap2::MmapOptions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const ROWS: &[Row] = &[Row {
    helper: helper::USER_RINGBUF_DRAIN,
    asks: "call back with each message of user space and return their number",
    sources: &[
        source("6.12", "kernel/bpf/helpers.c", "bpf_base_func_proto"),
        source("6.12", "kernel/bpf/ringbuf.c", "bpf_user_ringbuf_drain"),
        source("6.12", "kernel/bpf/verifier.c", "set_user_ringbuf_callback_state"),
    ],
    cases: &[
        canonical(|bench| drain(bench, &[40, 2], 0)),
        sleepable(|bench| drain(bench, &[40, 2], 0)),
        case("nothing-there", |bench| drain(bench, &[], 0)),
        case("left-early", |bench| drain(bench, &[40, 2], 1)),
        misuse("misuse-callback-returns-2", |bench| drain(bench, &[], 2)),
        misuse("misuse-number-for-callback", |bench| bench.call(&[Hash, Number(0), Page, Number(0)])),
        misuse("misuse-number-for-map", |bench| bench.call(&[Number(0), Number(0), Page, Number(0)])),
        case("flags-that-there-are-not", |bench| drain_with(bench, &[40, 2], 0, 8)),
    ],
}];

/// The smallest ring buffer there is, which is also a page.
const PAGE_BYTES: u32 = 4096;
/// The header of a message: its length, and a word for the kernel (include/uapi/linux/bpf.h, BPF_RINGBUF_HDR_SZ).
const HEAD: usize = 8;

/// Puts numbers into the buffer, each a message of 8 bytes.
///
/// The producer's position lies at the beginning of the second page of the map, the messages begin with the third
/// (6.12 kernel/bpf/ringbuf.c, `struct bpf_ringbuf`).
fn send(map: &OwnedFd, numbers: &[u64]) -> Result<(), Ended> {
    let page = PAGE_BYTES as usize;
    // SAFETY: the mapping is of a BPF map, which nobody truncates; the kernel reads what is written here and writes
    // only a bit of each header, which is not read.
    let mapped = unsafe { MmapOptions::new().offset(page as u64).len(2 * page).map_mut(map.as_raw_fd()) };
    let mut mapped = mapped.map_err(|error| Ended::could_not("map the ring buffer", error))?;
    let mut at = page;
    for number in numbers {
        mapped[at..at + HEAD].copy_from_slice(&8_u64.to_ne_bytes());
        mapped[at + HEAD..at + 2 * HEAD].copy_from_slice(&number.to_ne_bytes());
        at += 2 * HEAD;
    }
    // SAFETY: the position is the first word of a page-aligned mapping, and shared with the kernel as an atomic.
    let position = unsafe { AtomicU64::from_ptr(mapped.as_mut_ptr().cast()) };
    position.store((at - page) as u64, Ordering::Release);
    Ok(())
}

fn drain(bench: &mut Bench<'_, '_>, numbers: &[u64], callback_returns: i32) -> Result<(), Ended> {
    drain_with(bench, numbers, callback_returns, 0)
}

/// Adds up the messages, in a number on the stack that the callback is given.
fn drain_with(
    bench: &mut Bench<'_, '_>,
    numbers: &[u64],
    callback_returns: i32,
    flags: i32,
) -> Result<(), Ended> {
    let helper = bench.helper();
    let map = bench.attempt.map(&MapSpec::new(BPF_MAP_TYPE_USER_RINGBUF, 0, 0, PAGE_BYTES))?;
    send(&map, numbers)?;
    let results = bench.open_with_callback(
        2,
        |asm| {
            asm.st_imm(Size::DW, Reg::R10, -8, 0).ld_map_fd(Reg::R1, &map).ld_func(Reg::R2, "callback");
            stack(asm, Reg::R3, -8);
            asm.mov_imm(Reg::R4, flags).call(helper);
            keep(asm, 0, Reg::R0);
            asm.ldx(Size::DW, Reg::R1, Reg::R10, -8);
            keep(asm, 1, Reg::R1);
        },
        |asm| {
            asm.mov_reg(Reg::R6, Reg::R2).mov_reg(Reg::R3, Reg::R1);
            stack(asm, Reg::R1, -8);
            asm.mov_imm(Reg::R2, 8).mov_imm(Reg::R4, 0).mov_imm(Reg::R5, 0).call(helper::DYNPTR_READ);
            asm.jne_imm(Reg::R0, 0, "unread").ldx(Size::DW, Reg::R1, Reg::R10, -8);
            asm.ldx(Size::DW, Reg::R2, Reg::R6, 0).add_reg(Reg::R2, Reg::R1);
            asm.stx(Size::DW, Reg::R6, 0, Reg::R2).label("unread");
            asm.mov_imm(Reg::R0, callback_returns).exit();
        },
    )?;
    bench.returned("returned", results.get(slot(0)));
    bench.attempt.see("the sum of the messages", results.get(slot(1)));
    Ok(())
}
