//! `file_open` writes down who the helpers say is running, when and where. It never denies.
#![no_std]
#![no_main]

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_get_smp_processor_id,
        generated::{bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_ktime_get_ns},
    },
    macros::{lsm, map},
    maps::Array,
    programs::LsmContext,
};
use probes_ebpf::{
    layout::{COMM, TaskIdentity},
    object, results, runs_in,
};

object!();

/// The process to act for; nobody else is looked at.
#[unsafe(no_mangle)]
static TARGET_TGID: u32 = 0;

/// What the runs for the target left.
#[map]
static RESULTS: Array<TaskIdentity> = Array::with_max_entries(1, 0);

/// `int file_open(struct file *file)`.
#[lsm(hook = "file_open")]
fn task_identity(ctx: LsmContext) -> i32 {
    let ret: i32 = ctx.arg(1);
    if !runs_in(&TARGET_TGID) {
        return ret;
    }
    let Some(results) = results(&RESULTS) else { return ret };
    results.runs += 1;
    results.pid_tgid = bpf_get_current_pid_tgid();
    results.uid_gid = bpf_get_current_uid_gid();
    // SAFETY: the helper writes at most `COMM` bytes, which is how many there are.
    results.comm_result = unsafe { bpf_get_current_comm(results.comm.as_mut_ptr().cast(), COMM as u32) };
    // SAFETY: these helpers take nothing and touch no memory of ours.
    unsafe {
        results.ktime = bpf_ktime_get_ns();
        results.cpu = u64::from(bpf_get_smp_processor_id());
        results.cgroup = bpf_get_current_cgroup_id();
    }
    ret
}
