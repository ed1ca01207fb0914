//! Kfuncs that are documented for LSM programs and had another life: renamed, destructive, or not for calling. A name that ended shows the kernel where it did.

use super::body::{BUFFER, Body};
use super::row::{KEPT, Row, kfunc};
use crate::helper;
use crate::insn::{Reg, Size};
use crate::spec::source;

const RSTAT: &str = "kernel/cgroup/rstat.c";

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    vec![
        updated("cgroup_rstat_updated", "6.12", false),
        updated("css_rstat_updated", "7.3", true),
        flush("cgroup_rstat_flush", "6.12", false),
        flush("css_rstat_flush", "7.3", true),
        crash(),
        trap(),
        slab(),
    ]
}

/// `R1 = the cgroup of every process`, or its state. Where a cgroup cannot be acquired yet (6.1), every pointer to one
/// is good enough.
fn state(b: &mut Body<'_>, css: bool) {
    if !b.knows("bpf_cgroup_from_id") {
        b.current_cgroup(Reg::R1);
        return;
    }
    b.input(Reg::R1, 0);
    b.kfunc("bpf_cgroup_from_id");
    b.jeq_imm(Reg::R0, 0, "pass").mov_reg(KEPT, Reg::R0).mov_reg(Reg::R1, KEPT);
    if css {
        b.member_address(Reg::R1, "cgroup", "self");
    }
}

/// Gives back what [`state`] has acquired.
fn let_go(b: &mut Body<'_>) {
    if b.knows("bpf_cgroup_from_id") {
        b.release("bpf_cgroup_release", KEPT);
    }
}

/// Renamed in 6.16, when it began to take the state of any controller.
fn updated(name: &'static str, version: &'static str, css: bool) -> Row {
    kfunc(name, version, RSTAT)
        .takes(move |b| {
            state(b, css);
            b.mov_imm(Reg::R2, 0);
        })
        .given(super::cgroup::give_root_id)
        .finally(let_go)
        .effect_not_looked_at()
        .not_null(Reg::R1)
        .spoilt("misuse-another-type", |b| b.context_argument(Reg::R1, 0))
}

fn flush(name: &'static str, version: &'static str, css: bool) -> Row {
    kfunc(name, version, RSTAT)
        .sleepable()
        .takes(move |b| state(b, css))
        .given(super::cgroup::give_root_id)
        .finally(let_go)
        .effect_not_looked_at()
        .not_null(Reg::R1)
        .spoilt("misuse-another-type", |b| b.context_argument(Reg::R1, 0))
}

/// include/uapi/linux/capability.h: CAP_SYS_BOOT.
const CAP_SYS_BOOT: u32 = 22;

/// `KF_DESTRUCTIVE`: only `CAP_SYS_BOOT` may load a program with it. Registers are numbers and nothing else, so that any
/// memory of their size will do. Those of a task, which a helper shows, are nothing that a program holds.
fn crash() -> Row {
    kfunc("crash_kexec", "7.3", "kernel/crash_core.c")
        .takes(|b| b.page_address(Reg::R1, BUFFER))
        .not_null(Reg::R1)
        .spoilt("of-the-registers-of-a-task", |b| {
            b.current(Reg::R1);
            b.call(helper::TASK_PT_REGS).mov_reg(Reg::R1, Reg::R0);
        })
        .needs_capability(CAP_SYS_BOOT)
        .not_run("it starts another kernel, or does nothing where none is loaded")
        .cites(source("7.3", "kernel/bpf/verifier.c", "check_kfunc_call"))
        .cites(source("7.3", "kernel/bpf/verifier.c", "check_kfunc_args"))
}

/// What compilers put where code must not come to.
fn trap() -> Row {
    kfunc("__bpf_trap", "7.3", "kernel/bpf/helpers.c").not_run("it marks code that is never reached")
}

/// The cache that the current task's memory is of. It may be NULL, and is nobody's to keep.
fn slab() -> Row {
    kfunc("bpf_get_kmem_cache", "7.3", "mm/slab_common.c")
        .takes(|b| {
            b.call(helper::GET_CURRENT_TASK).mov_reg(Reg::R1, Reg::R0);
        })
        .then(|b| {
            b.jeq_imm(Reg::R0, 0, "pass").mov_reg(Reg::R3, Reg::R0);
            b.follow(Reg::R3, "kmem_cache", "name");
            b.page_address(Reg::R1, BUFFER);
            b.mov_imm(Reg::R2, 64).call(helper::PROBE_READ_KERNEL_STR);
        })
        .checks(|attempt, results| {
            let name = b"task_struct\0".to_vec();
            attempt.same("its name", results.bytes(BUFFER, name.len()), name);
        })
        .spoilt("misuse-pointer-for-number", |b| b.current(Reg::R1))
        .wrong("misuse-written-to", |b| {
            b.call(helper::GET_CURRENT_TASK).mov_reg(Reg::R1, Reg::R0);
            b.kfunc("bpf_get_kmem_cache");
            b.jeq_imm(Reg::R0, 0, "pass").st_imm(Size::DW, Reg::R0, 0, 0);
        })
}
