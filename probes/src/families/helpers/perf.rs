//! Perf events: events sent through a map of them, and counters read from it.

use super::bench::{Bench, keep, page, slot, stack};
use super::call::Arg::{Context, Hash, MovedContext, Number, Page, Stack, Unknown};
use super::{Row, WORDS, canonical, case, misuse, sleepable};
use crate::bpf::{self, BPF_MAP_TYPE_PERF_EVENT_ARRAY, MapSpec};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, PAGE};
use crate::rules::stay_on;
use crate::session::Ended;
use crate::spec::{Source, source};
use memmap2::{MmapMut, MmapOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

const TRACING: Source = source("7.1", "kernel/trace/bpf_trace.c", "raw_tp_prog_func_proto");
const COUNTER: Source = source("7.1", "kernel/trace/bpf_trace.c", "get_map_perf_counter");
const COMPATIBLE: Source = source("7.1", "kernel/bpf/verifier.c", "check_map_func_compatibility");

pub(super) const ROWS: &[Row] = &[
    Row {
        helper: helper::PERF_EVENT_OUTPUT,
        asks: "send a copy of memory that user space finds in the buffer of a perf event",
        sources: &[TRACING, source("7.1", "kernel/trace/bpf_trace.c", "__bpf_perf_event_output"), COMPATIBLE],
        cases: &[
            canonical(output),
            sleepable(output),
            case("places-and-flags-that-there-are-not", refused_output),
            misuse("misuse-number-for-context", |bench| {
                bench.call(&[Number(4096), Hash, Number(0), Page, Number(16)])
            }),
            misuse("misuse-map-of-another-type", |bench| {
                bench.call(&[Context, Hash, Number(0), Page, Number(16)])
            }),
            misuse("misuse-size-beyond-the-stack", |bench| {
                bench.call(&[Context, Hash, Number(0), Stack(16), Number(24)])
            }),
            misuse("misuse-size-not-bounded", |bench| bench.call(&[Context, Hash, Number(0), Page, Unknown])),
        ],
    },
    Row {
        helper: helper::PERF_EVENT_READ,
        asks: "give the count of a perf event of a map",
        sources: &[TRACING, COUNTER, source("7.1", "kernel/events/core.c", "perf_event_read_local")],
        cases: &[
            canonical(read),
            sleepable(read),
            case("places-and-flags-that-there-are-not", |bench| {
                let (helper, map) = (bench.helper(), events()?);
                let results = bench.open(|asm| {
                    for (index, flags) in REFUSED {
                        asm.ld_map_fd(Reg::R1, &map).ld_imm64(Reg::R2, flags).call(helper);
                        keep(asm, index, Reg::R0);
                    }
                })?;
                see_refusals(bench, &results);
                Ok(())
            }),
            misuse("misuse-map-of-another-type", |bench| bench.call(&[Hash, Number(0)])),
            misuse("misuse-number-for-map", |bench| bench.call(&[Number(0), Number(0)])),
        ],
    },
    Row {
        helper: helper::PERF_EVENT_READ_VALUE,
        asks: "give the count of a perf event of a map, and how long it was counted",
        sources: &[TRACING, COUNTER, source("7.1", "kernel/trace/bpf_trace.c", "bpf_perf_event_read_value")],
        cases: &[
            canonical(read_value),
            sleepable(read_value),
            case("size-wrong", |bench| {
                let (helper, map) = (bench.helper(), counting()?);
                let results = bench.open(|asm| {
                    asm.ld_map_fd(Reg::R1, &map.0).mov_imm(Reg::R2, 0);
                    page(asm, Reg::R3, 1);
                    asm.mov_imm(Reg::R4, 16).call(helper);
                    keep(asm, 0, Reg::R0);
                })?;
                bench.returned("returned", results.get(slot(0)));
                Ok(())
            }),
            misuse("misuse-map-of-another-type", |bench| bench.call(&[Hash, Number(0), Page, Number(24)])),
            misuse("misuse-size-beyond-the-stack", |bench| {
                bench.call(&[Hash, Number(0), Stack(16), Number(24)])
            }),
            misuse("misuse-context-for-destination", |bench| {
                bench.call(&[Hash, Number(0), Context, Number(24)])
            }),
            misuse("misuse-moved-context-for-destination", |bench| {
                bench.call(&[Hash, Number(0), MovedContext, Number(24)])
            }),
        ],
    },
];

/// `BPF_F_CURRENT_CPU`: the place of the running processor.
pub(super) const HERE: u64 = 0xffff_ffff;
/// Places without an event, beyond the map, and a flag that there is not; with the slot of the answer.
const REFUSED: [(i32, u64); 3] = [(0, 1), (1, 1 << 20), (2, 1 << 40)];

const PAGE_BYTES: usize = 4096;
/// include/uapi/linux/perf_event.h: PERF_TYPE_SOFTWARE.
const SOFTWARE: u32 = 1;
/// The same: PERF_COUNT_SW_TASK_CLOCK.
const TASK_CLOCK: u64 = 1;
/// The same: PERF_COUNT_SW_BPF_OUTPUT.
const BPF_OUTPUT: u64 = 10;
/// The same: PERF_SAMPLE_RAW.
const RAW: u64 = 1 << 10;
/// The same: PERF_RECORD_SAMPLE.
const SAMPLE: u32 = 9;
/// The same: PERF_FORMAT_TOTAL_TIME_ENABLED and _RUNNING.
const TIMES: u64 = 3;
/// Offsets in `struct perf_event_mmap_page`: where the kernel writes next, and where user space reads next.
const HEAD: usize = 1024;
const TAIL: usize = 1032;

/// The first version of `struct perf_event_attr`, 64 bytes.
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    breakpoint: u32,
    more: u64,
}

/// Opens an event of software: of this process, or of everything on a processor.
fn open_event(config: u64, pid: i32, cpu: i32) -> Result<OwnedFd, Ended> {
    let attributes = Attributes {
        kind: SOFTWARE,
        size: 64,
        config,
        period: 1,
        sample_type: if config == BPF_OUTPUT { RAW } else { 0 },
        read_format: TIMES,
        flags: 0,
        wakeup: 1,
        breakpoint: 0,
        more: 0,
    };
    // SAFETY: the attributes say their size and live across the call; the rest are numbers.
    let fd = Errno::result(unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attributes, pid, cpu, -1, 0)
    })
    .map_err(|errno| Ended::could_not("open a perf event", errno))?;
    let fd = i32::try_from(fd).map_err(|error| Ended::could_not("open a perf event", error))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A map with room for the events of two processors, empty.
fn events() -> Result<OwnedFd, Ended> {
    bpf::map_create(&MapSpec::new(BPF_MAP_TYPE_PERF_EVENT_ARRAY, 4, 4, 2).named("events"))
        .map_err(Ended::Refused)
}

/// Puts an event into the first place.
fn put(map: &OwnedFd, event: &OwnedFd) -> Result<(), Ended> {
    bpf::map_update(map, &0_u32.to_ne_bytes(), &event.as_raw_fd().to_ne_bytes(), bpf::BPF_ANY)
        .map_err(|errno| Ended::could_not("store a perf event", errno))
}

/// A map, and the buffer of the event that stands in its first place.
pub(super) struct Buffer {
    /// The map.
    pub(super) map: OwnedFd,
    mapped: MmapMut,
    _event: OwnedFd,
}

impl Buffer {
    pub(super) fn new() -> Result<Self, Ended> {
        // The first processor's event is what programs send through.
        stay_on(0).map_err(|errno| Ended::could_not("stay on a processor", errno))?;
        let (map, event) = (events()?, open_event(BPF_OUTPUT, -1, 0)?);
        put(&map, &event)?;
        // SAFETY: the mapping is of a perf event, which nobody truncates; the kernel writes records beyond the
        // position that it has published, and no more of them are read.
        let mapped = unsafe { MmapOptions::new().len(2 * PAGE_BYTES).map_mut(event.as_raw_fd()) }
            .map_err(|error| Ended::could_not("map the buffer of a perf event", error))?;
        Ok(Self { map, mapped, _event: event })
    }

    fn position(&self, at: usize) -> &AtomicU64 {
        // SAFETY: `at` is in the first page and 8-byte aligned; the kernel shares it as an atomic.
        unsafe { AtomicU64::from_ptr(self.mapped[at..].as_ptr().cast_mut().cast()) }
    }

    /// What has been sent since the last call: the raw part of each sample, with what pads it.
    pub(super) fn received(&self) -> Vec<Vec<u8>> {
        let (head, mut tail) =
            (self.position(HEAD).load(Ordering::Acquire), self.position(TAIL).load(Ordering::Relaxed));
        let mut samples = Vec::new();
        while tail < head {
            let record = |from: u32, length: u32| -> Vec<u8> {
                let places = (0..length).map(|at| (tail + u64::from(from + at)) % PAGE_BYTES as u64);
                let places = places.map(|place| usize::try_from(place).unwrap_or(0));
                places.map(|place| self.mapped[PAGE_BYTES + place]).collect()
            };
            let word = |from| u32::from_ne_bytes(record(from, 4).try_into().unwrap_or_default());
            let (kind, size) = (word(0), word(4) >> 16);
            if kind == SAMPLE {
                samples.push(record(12, word(8)));
            }
            tail += u64::from(size.max(8));
        }
        self.position(TAIL).store(tail, Ordering::Release);
        samples
    }
}

/// Whether a sample is what was sent, and padding: its size and it are a multiple of 8 bytes.
pub(super) fn is_sent(sample: &[u8], sent: &[u8]) -> bool {
    sample.starts_with(sent) && sample.len() == (sent.len() + 4).next_multiple_of(8) - 4
}

/// Sends two events of 16 bytes.
fn output(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, buffer) = (bench.helper(), Buffer::new()?);
    let results = bench.open_or_execute(|asm| {
        for (index, word) in (3..).zip(WORDS) {
            asm.st_imm(Size::DW, PAGE, slot(index), word);
        }
        for index in 0..2 {
            asm.mov_reg(Reg::R1, CTX).ld_map_fd(Reg::R2, &buffer.map).ld_imm64(Reg::R3, HERE);
            page(asm, Reg::R4, 3);
            asm.mov_imm(Reg::R5, 16).call(helper);
            keep(asm, index, Reg::R0);
        }
    })?;
    bench.returned("returned", results.get(slot(0)));
    bench.returned("returned the second time", results.get(slot(1)));
    let (received, sent) = (buffer.received(), results.bytes(slot(3), 16));
    bench.attempt.see("events received", received.len());
    bench.attempt.holds("each is what was sent", received.iter().all(|sample| is_sent(sample, &sent)));
    Ok(())
}

fn refused_output(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, map) = (bench.helper(), events()?);
    let results = bench.open(|asm| {
        asm.st_imm(Size::DW, Reg::R10, -8, 0);
        for (index, flags) in REFUSED {
            asm.mov_reg(Reg::R1, CTX).ld_map_fd(Reg::R2, &map).ld_imm64(Reg::R3, flags);
            stack(asm, Reg::R4, -8);
            asm.mov_imm(Reg::R5, 8).call(helper);
            keep(asm, index, Reg::R0);
        }
    })?;
    see_refusals(bench, &results);
    Ok(())
}

fn see_refusals(bench: &mut Bench<'_, '_>, results: &crate::results::Results) {
    for ((index, _), which) in REFUSED.into_iter().zip(["an empty place", "no place of the map", "a flag"]) {
        bench.returned(&format!("returned for {which}"), results.get(slot(index)));
    }
}

/// A map with an event in the first place that counts the time for which this process runs.
fn counting() -> Result<(OwnedFd, OwnedFd), Ended> {
    let (map, event) = (events()?, open_event(TASK_CLOCK, 0, -1)?);
    put(&map, &event)?;
    Ok((map, event))
}

/// What user space reads of an event: its count, and the times for which it was enabled and running.
fn counted(event: &OwnedFd) -> Result<[u64; 3], Ended> {
    let mut bytes = [0; 24];
    nix::unistd::read(event, &mut bytes).map_err(|errno| Ended::could_not("read a perf event", errno))?;
    let words = bytes.as_chunks::<8>().0;
    Ok(std::array::from_fn(|index| words.get(index).map_or(0, |word| u64::from_ne_bytes(*word))))
}

fn read(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, (map, event)) = (bench.helper(), counting()?);
    let before = counted(&event)?;
    let results = bench.open_or_execute(|asm| {
        asm.ld_map_fd(Reg::R1, &map).mov_imm(Reg::R2, 0).call(helper);
        keep(asm, 0, Reg::R0);
    })?;
    let after = counted(&event)?;
    let between = (before[0]..=after[0]).contains(&results.get(slot(0))) && before[0] > 0;
    bench.attempt.holds("the count lies between two readings of user space", between);
    Ok(())
}

fn read_value(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, (map, event)) = (bench.helper(), counting()?);
    let before = counted(&event)?;
    let results = bench.open_or_execute(|asm| {
        asm.ld_map_fd(Reg::R1, &map).mov_imm(Reg::R2, 0);
        page(asm, Reg::R3, 1);
        asm.mov_imm(Reg::R4, 24).call(helper);
        keep(asm, 0, Reg::R0);
    })?;
    let after = counted(&event)?;
    bench.returned("returned", results.get(slot(0)));
    for (index, which) in [(0, "the count"), (1, "the time enabled"), (2, "the time running")] {
        let value = results.get(slot(1 + index));
        let place = usize::try_from(index).unwrap_or(0);
        let between = (before[place]..=after[place]).contains(&value) && before[place] > 0;
        bench.attempt.holds(&format!("{which} lies between two readings of user space"), between);
    }
    Ok(())
}
