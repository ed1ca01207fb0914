//! `file_open` sends one event per call through a ring buffer. It never denies.
#![no_std]
#![no_main]

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_ns},
    macros::{lsm, map},
    maps::{Array, RingBuf},
    programs::LsmContext,
};
use probes_ebpf::{
    layout::{RingbufEvent, RingbufEvents},
    object, results, runs_in,
};

object!();

/// The process to act for; nobody else is looked at.
#[unsafe(no_mangle)]
static TARGET_TGID: u32 = 0;

/// What the runs for the target left.
#[map]
static RESULTS: Array<RingbufEvents> = Array::with_max_entries(1, 0);
/// Where the events go; one page, the smallest there is.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// `int file_open(struct file *file)`.
#[lsm(hook = "file_open")]
fn ringbuf_events(ctx: LsmContext) -> i32 {
    let ret: i32 = ctx.arg(1);
    if !runs_in(&TARGET_TGID) {
        return ret;
    }
    let Some(results) = results(&RESULTS) else { return ret };
    results.runs += 1;
    if let Some(mut event) = EVENTS.reserve::<RingbufEvent>(0) {
        // SAFETY: the helper takes nothing and touches no memory of ours.
        let ktime = unsafe { bpf_ktime_get_ns() };
        event.write(RingbufEvent { run: results.runs, pid_tgid: bpf_get_current_pid_tgid(), ktime });
        event.submit(0);
        results.sent += 1;
    }
    ret
}
