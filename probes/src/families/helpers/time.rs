//! Clocks, and the one helper that is random.

use super::bench::{Bench, keep, slot};
use super::{Row, canonical};
use crate::helper;
use crate::insn::Reg;
use crate::session::Ended;
use crate::spec::source;
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

pub(super) const ROWS: &[Row] = &[
    Row {
        helper: helper::KTIME_GET_NS,
        asks: "give a time between two readings of CLOCK_MONOTONIC",
        sources: &[
            source("5.9", "kernel/trace/bpf_trace.c", "bpf_tracing_func_proto"),
            source("7.1", "kernel/bpf/helpers.c", "bpf_ktime_get_ns"),
        ],
        cases: &[canonical(|bench| between(bench, ClockId::CLOCK_MONOTONIC))],
    },
    Row {
        helper: helper::KTIME_GET_BOOT_NS,
        asks: "give a time between two readings of CLOCK_BOOTTIME",
        sources: &[
            source("5.9", "kernel/trace/bpf_trace.c", "bpf_tracing_func_proto"),
            source("7.1", "kernel/bpf/helpers.c", "bpf_ktime_get_boot_ns"),
        ],
        cases: &[canonical(|bench| between(bench, ClockId::CLOCK_BOOTTIME))],
    },
    Row {
        helper: helper::KTIME_GET_COARSE_NS,
        asks: "give a time between two readings of CLOCK_MONOTONIC_COARSE",
        sources: &[
            source("5.11", "kernel/trace/bpf_trace.c", "bpf_tracing_func_proto"),
            source("5.11", "kernel/bpf/helpers.c", "bpf_ktime_get_coarse_ns"),
        ],
        cases: &[canonical(|bench| between(bench, ClockId::CLOCK_MONOTONIC_COARSE))],
    },
    Row {
        helper: helper::KTIME_GET_TAI_NS,
        asks: "give a time between two readings of CLOCK_TAI",
        sources: &[source("6.14", "kernel/bpf/helpers.c", "bpf_ktime_get_tai_ns")],
        cases: &[canonical(|bench| between(bench, ClockId::CLOCK_TAI))],
    },
    Row {
        helper: helper::JIFFIES64,
        asks: "count on while time passes",
        sources: &[source("5.9", "kernel/bpf/helpers.c", "bpf_jiffies64")],
        cases: &[canonical(jiffies)],
    },
    Row {
        helper: helper::GET_PRANDOM_U32,
        asks: "give 32 bits that differ from call to call",
        sources: &[source("5.9", "kernel/bpf/core.c", "bpf_user_rnd_u32")],
        cases: &[canonical(random)],
    },
];

fn between(bench: &mut Bench<'_, '_>, clock: ClockId) -> Result<(), Ended> {
    let now = || {
        clock_gettime(clock)
            .map(|now| u64::try_from(Duration::from(now).as_nanos()).unwrap_or(0))
            .map_err(|errno| Ended::could_not("read the clock", errno))
    };
    let before = now()?;
    let results = bench.call_on_open()?;
    let after = now()?;
    let time = results.get(slot(0));
    bench.attempt.holds("between two readings of the clock", (before..=after).contains(&time));
    Ok(())
}

/// Two calls in one program see nearly the same; one before a pause and one after it do not.
fn jiffies(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let first = bench.call_on_open()?.get(slot(0));
    // A tick takes at most 10 ms (CONFIG_HZ is 100 or more).
    std::thread::sleep(Duration::from_millis(25));
    let results = bench.call_on_open()?;
    let grown = results.get(slot(0)).wrapping_sub(first);
    // The upper bound is generous: 1000 ticks a second for a minute.
    bench.attempt.holds("grew while time passed", (2..60_000).contains(&grown));
    Ok(())
}

fn random(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let helper = bench.helper();
    let results = bench.open(|asm| {
        for index in 0..4 {
            asm.call(helper);
            keep(asm, index, Reg::R0);
        }
    })?;
    let values: Vec<u64> = (0..4).map(|index| results.get(slot(index))).collect();
    bench.attempt.holds("fits 32 bits", values.iter().all(|&value| u32::try_from(value).is_ok()));
    bench.attempt.holds("four calls differ", values.iter().any(|value| Some(value) != values.first()));
    Ok(())
}
