//! `file_open` keeps a counter in the storage of the task that opens. It never denies.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE, bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE},
    helpers::generated::{bpf_get_current_task_btf, bpf_task_storage_get},
    macros::{btf_map, lsm, map},
    maps::Array,
    programs::LsmContext,
};
use probes_ebpf::{layout::Storage, object, results, runs_in};

object!();

/// The process to act for; nobody else is looked at.
#[unsafe(no_mangle)]
static TARGET_TGID: u32 = 0;

/// A map of task storage, which `aya-ebpf` has no type for: the loader reads type, key, value and flags from the BTF
/// of this struct, in which numbers are the lengths of arrays.
#[repr(C)]
struct TaskStorage {
    r#type: *const [i32; BPF_MAP_TYPE_TASK_STORAGE as usize],
    key: *const i32,
    value: *const u64,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: the pointers are placeholders that nobody follows.
unsafe impl Sync for TaskStorage {}

/// What the runs for the target left.
#[map]
static RESULTS: Array<Storage> = Array::with_max_entries(1, 0);
/// One counter per task.
#[btf_map]
static COUNTERS: TaskStorage = TaskStorage {
    r#type: core::ptr::null(),
    key: core::ptr::null(),
    value: core::ptr::null(),
    max_entries: core::ptr::null(),
    map_flags: core::ptr::null(),
};

/// `int file_open(struct file *file)`.
#[lsm(hook = "file_open")]
fn task_storage(ctx: LsmContext) -> i32 {
    let ret: i32 = ctx.arg(1);
    if !runs_in(&TARGET_TGID) {
        return ret;
    }
    let Some(results) = results(&RESULTS) else { return ret };
    results.runs += 1;
    // SAFETY: the map is one of task storage with values of type `u64`; the helper returns null or such a value, which
    // stays while the program runs.
    let counter = unsafe {
        bpf_task_storage_get(
            (&raw const COUNTERS).cast_mut().cast(),
            bpf_get_current_task_btf().cast(),
            core::ptr::null_mut(),
            u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE),
        )
        .cast::<u64>()
        .as_mut()
    };
    match counter {
        Some(counter) => {
            *counter += 1;
            results.count = *counter;
        }
        None => results.without += 1,
    }
    ret
}
