//! Clocks, and the one helper that is random.

use super::bench::{Bench, keep, slot};
use super::{Row, canonical};
use crate::errno::Errno;
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
        asks: "give a time between two readings of CLOCK_BOOTTIME, which is CLOCK_MONOTONIC here: no machine was suspended",
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
        sources: &[
            source("6.14", "kernel/bpf/helpers.c", "bpf_ktime_get_tai_ns"),
            source("7.3", "kernel/time/ntp.c", "process_adjtimex_modes"),
        ],
        cases: &[canonical(tai)],
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

/// Seconds that TAI is ahead of UTC since 2017.
const LEAP_SECONDS: libc::c_long = 37;

/// Says how far TAI is ahead, which the kernel does not know by itself (7.3 kernel/time/ntp.c, `process_adjtimex_modes`),
/// and takes it back at the end.
struct TaiAhead {
    before: libc::c_long,
}

/// Sets how far TAI is ahead, and gives what that was before.
fn set_tai(seconds: libc::c_long) -> Result<libc::c_long, Errno> {
    // SAFETY: zeros are a request that changes nothing.
    let mut request: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the structure that the call is for, which outlives it.
    Errno::result(unsafe { libc::adjtimex(&raw mut request) })?;
    let before = libc::c_long::from(request.tai);
    request.modes = libc::ADJ_TAI;
    request.constant = seconds;
    // SAFETY: as above.
    Errno::result(unsafe { libc::adjtimex(&raw mut request) })?;
    Ok(before)
}

impl TaiAhead {
    fn new() -> Result<Self, Errno> {
        Ok(Self { before: set_tai(LEAP_SECONDS)? })
    }
}

impl Drop for TaiAhead {
    fn drop(&mut self) {
        let _ = set_tai(self.before);
    }
}

/// Unless somebody sets it apart, TAI is CLOCK_REALTIME, and either would do.
fn tai(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let ahead = TaiAhead::new();
    let read = |clock| clock_gettime(clock).map(Duration::from);
    let apart = match (read(ClockId::CLOCK_REALTIME), read(ClockId::CLOCK_TAI)) {
        (Ok(utc), Ok(tai)) => tai.saturating_sub(utc) > Duration::from_secs(1),
        (Err(errno), _) | (_, Err(errno)) => return Err(Ended::could_not("read the clock", errno)),
    };
    between(bench, ClockId::CLOCK_TAI)?;
    match ahead {
        Ok(_) => bench.attempt.holds("the clock is ahead of CLOCK_REALTIME", apart),
        Err(errno) => {
            bench.attempt.see("the clock is ahead of CLOCK_REALTIME", format!("cannot be set: {errno}"));
        }
    }
    Ok(())
}

/// Two calls in one program see nearly the same; one before a pause and one after it do not.
fn jiffies(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let first = bench.call_on_open()?.get(slot(0));
    // A tick takes at most 10 ms (CONFIG_HZ is 100 or more); but an emulator that has missed some makes one of them.
    let mut grown = 0;
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(25));
        grown = bench.call_on_open()?.get(slot(0)).wrapping_sub(first);
        if grown >= 2 {
            break;
        }
    }
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
