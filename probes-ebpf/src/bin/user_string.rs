//! `file_open` reads a string from an address in the target's own memory. It never denies.
#![no_std]
#![no_main]

use aya_ebpf::{
    helpers::generated::bpf_probe_read_user_str,
    macros::{lsm, map},
    maps::Array,
    programs::LsmContext,
};
use probes_ebpf::{
    global,
    layout::{STRING, UserString},
    object, results, runs_in,
};

object!();

/// The process to act for; nobody else is looked at.
#[unsafe(no_mangle)]
static TARGET_TGID: u32 = 0;
/// Where the string starts in the target's memory.
#[unsafe(no_mangle)]
static USER_ADDRESS: u64 = 0;

/// What the runs for the target left.
#[map]
static RESULTS: Array<UserString> = Array::with_max_entries(1, 0);

/// `int file_open(struct file *file)`.
#[lsm(hook = "file_open")]
fn user_string(ctx: LsmContext) -> i32 {
    let ret: i32 = ctx.arg(1);
    if !runs_in(&TARGET_TGID) {
        return ret;
    }
    let Some(results) = results(&RESULTS) else { return ret };
    results.runs += 1;
    // SAFETY: the helper writes at most `STRING` bytes, which is how many there are, and catches a bad address.
    results.length = unsafe {
        bpf_probe_read_user_str(
            results.bytes.as_mut_ptr().cast(),
            STRING as u32,
            global(&USER_ADDRESS) as *const core::ffi::c_void,
        )
    };
    ret
}
