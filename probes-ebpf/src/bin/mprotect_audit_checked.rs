//! `mprotect_audit` with one difference: `vma->vm_mm` is followed only when it is not null.
//!
//! A kernel whose verifier takes `vm_mm` for a pointer that may be null refuses the one and takes the other.
#![no_std]
#![no_main]

use aya_ebpf::{
    macros::{lsm, map},
    maps::Array,
    programs::LsmContext,
};
use probes_ebpf::{MINUS_EPERM, layout::MprotectAudit, object, results, runs_in, walk};

object!();

/// The process to act for; nobody else is looked at.
#[unsafe(no_mangle)]
static TARGET_TGID: u32 = 0;
/// Where `struct vm_area_struct` has `vm_start`.
#[unsafe(no_mangle)]
static VMA_VM_START: u32 = 0;
/// Where `struct vm_area_struct` has `vm_end`.
#[unsafe(no_mangle)]
static VMA_VM_END: u32 = 0;
/// Where `struct vm_area_struct` has `vm_mm`.
#[unsafe(no_mangle)]
static VMA_VM_MM: u32 = 0;
/// Where `struct mm_struct` has `start_brk`.
#[unsafe(no_mangle)]
static MM_START_BRK: u32 = 0;
/// Where `struct mm_struct` has `brk`.
#[unsafe(no_mangle)]
static MM_BRK: u32 = 0;

/// What the runs for the target left.
#[map]
static RESULTS: Array<MprotectAudit> = Array::with_max_entries(1, 0);

/// `int file_mprotect(struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot)`.
#[lsm(hook = "file_mprotect")]
fn mprotect_audit_checked(ctx: LsmContext) -> i32 {
    let ret: i32 = ctx.arg(3);
    if !runs_in(&TARGET_TGID) {
        return ret;
    }
    let Some(results) = results(&RESULTS) else { return ret };
    results.runs += 1;
    if ret != 0 {
        results.already_refused += 1;
        return ret;
    }
    let vma: u64 = ctx.arg(0);
    // SAFETY: the hook's first argument is a `struct vm_area_struct *`, and the offsets are those of its fields.
    let (vm_start, vm_end, mm) =
        unsafe { (walk(vma, &VMA_VM_START), walk(vma, &VMA_VM_END), walk(vma, &VMA_VM_MM)) };
    if mm == 0 {
        return 0;
    }
    // SAFETY: `vm_mm` is a `struct mm_struct *`, and the offsets are those of its fields.
    let (start_brk, brk) = unsafe { (walk(mm, &MM_START_BRK), walk(mm, &MM_BRK)) };
    results.vm_start = vm_start;
    results.vm_end = vm_end;
    results.start_brk = start_brk;
    results.brk = brk;
    results.reqprot = ctx.arg(1);
    results.prot = ctx.arg(2);
    let is_heap = vm_start >= start_brk && vm_end <= brk;
    if !is_heap {
        return 0;
    }
    results.denials += 1;
    MINUS_EPERM
}
