//! `file_open` keeps a counter in the storage of the opened file's inode. It never denies.
#![no_std]
#![no_main]

use aya_ebpf::{
    btf_maps::InodeStorage,
    macros::{btf_map, lsm, map},
    maps::Array,
    programs::LsmContext,
};
use probes_ebpf::{layout::Storage, object, results, runs_in, walk};

object!();

/// The process to act for; nobody else is looked at.
#[unsafe(no_mangle)]
static TARGET_TGID: u32 = 0;
/// Where `struct file` has `f_inode`.
#[unsafe(no_mangle)]
static FILE_F_INODE: u32 = 0;

/// What the runs for the target left.
#[map]
static RESULTS: Array<Storage> = Array::with_max_entries(1, 0);
/// One counter per inode.
#[btf_map]
static COUNTERS: InodeStorage<u64> = InodeStorage::new();

/// `int file_open(struct file *file)`.
#[lsm(hook = "file_open")]
fn inode_storage(ctx: LsmContext) -> i32 {
    let ret: i32 = ctx.arg(1);
    if !runs_in(&TARGET_TGID) {
        return ret;
    }
    let Some(results) = results(&RESULTS) else { return ret };
    results.runs += 1;
    // SAFETY: the hook's argument is a `struct file *`, and the offset is that of its field.
    let inode = unsafe { walk(ctx.arg(0), &FILE_F_INODE) };
    // SAFETY: `f_inode` is a `struct inode *` of a file that is being opened.
    let counter = unsafe { COUNTERS.get_or_insert_ptr_mut(inode as *mut _, None) };
    // SAFETY: the helper returns null or the storage, which stays while the program runs.
    match unsafe { counter.as_mut() } {
        Some(counter) => {
            *counter += 1;
            results.count = *counter;
        }
        None => results.without += 1,
    }
    ret
}
