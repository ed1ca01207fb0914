//! Kfuncs that begin and end a section of code: RCU, preemption, interrupts.

use super::body::Body;
use super::row::{GOT, Row, kfunc};
use crate::helper;
use crate::insn::{Reg, Size};

const HELPERS: &str = "kernel/bpf/helpers.c";

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    vec![
        rcu_lock(),
        rcu_unlock(),
        begin("bpf_preempt_disable", "bpf_preempt_enable"),
        end("bpf_preempt_disable", "bpf_preempt_enable"),
        irq_save(),
        irq_restore(),
    ]
}

/// `copy_from_user`, which sleeps.
fn sleep(b: &mut Body<'_>) {
    b.st_imm(Size::DW, Reg::R10, -16, 0);
    b.stack_address(Reg::R1, -16);
    b.mov_imm(Reg::R2, 8).mov_imm(Reg::R3, 0).call(helper::COPY_FROM_USER);
}

fn rcu_lock() -> Row {
    begin("bpf_rcu_read_lock", "bpf_rcu_read_unlock")
        .both()
        .then(|b| {
            b.current(GOT);
            b.follow(GOT, "task_struct", "real_parent");
            b.follow(GOT, "task_struct", "tgid");
            b.leave(0, GOT);
        })
        .leaves("tgid of the parent", 0, || u64::try_from(nix::unistd::getppid().as_raw()).ok())
        .wrong_sleepable("misuse-pointer-used-afterwards", |b| {
            b.kfunc("bpf_rcu_read_lock");
            b.current_cgroup(GOT);
            b.kfunc("bpf_rcu_read_unlock");
            b.mov_reg(Reg::R1, GOT);
            b.mov_imm(Reg::R2, 0);
            b.kfunc("bpf_cgroup_ancestor");
            b.jeq_imm(Reg::R0, 0, "pass").mov_reg(Reg::R1, Reg::R0);
            b.kfunc("bpf_cgroup_release");
        })
}

fn rcu_unlock() -> Row {
    end("bpf_rcu_read_lock", "bpf_rcu_read_unlock")
}

/// The kfunc that begins a section; the canonical program ends it. Whether a section may begin in another of its kind
/// is for the kernel to say: preemption is counted, RCU was not at first.
fn begin(begin: &'static str, end: &'static str) -> Row {
    kfunc(begin, "6.12", HELPERS)
        .finally(move |b| b.kfunc(end))
        .wrong("misuse-not-ended", move |b| b.kfunc(begin))
        .wrong_sleepable("misuse-sleeping-inside", move |b| {
            b.kfunc(begin);
            sleep(b);
            b.kfunc(end);
        })
        .wrong("nested", move |b| {
            b.kfunc(begin);
            b.kfunc(begin);
            b.kfunc(end);
            b.kfunc(end);
        })
}

/// The kfunc that ends a section.
fn end(begin: &'static str, end: &'static str) -> Row {
    kfunc(end, "6.12", HELPERS)
        .takes(move |b| b.kfunc(begin))
        .wrong("misuse-not-begun", move |b| b.kfunc(end))
        .wrong("misuse-ended-twice", move |b| {
            b.kfunc(begin);
            b.kfunc(end);
            b.kfunc(end);
        })
}

/// Where the flags of the interrupts are kept.
fn flags(b: &mut Body<'_>) {
    b.stack_address(Reg::R1, -8);
}

fn irq_save() -> Row {
    kfunc("bpf_local_irq_save", "7.2", HELPERS)
        .takes(flags)
        .finally(|b| {
            flags(b);
            b.kfunc("bpf_local_irq_restore");
        })
        .wrong("misuse-not-restored", |b| {
            flags(b);
            b.kfunc("bpf_local_irq_save");
        })
        .wrong("misuse-saved-twice-in-one-place", |b| {
            for _ in 0..2 {
                flags(b);
                b.kfunc("bpf_local_irq_save");
            }
            flags(b);
            b.kfunc("bpf_local_irq_restore");
        })
        .wrong_sleepable("misuse-sleeping-inside", |b| {
            flags(b);
            b.kfunc("bpf_local_irq_save");
            sleep(b);
            flags(b);
            b.kfunc("bpf_local_irq_restore");
        })
}

fn irq_restore() -> Row {
    kfunc("bpf_local_irq_restore", "7.2", HELPERS)
        .takes(|b| {
            flags(b);
            b.kfunc("bpf_local_irq_save");
            flags(b);
        })
        .wrong("misuse-not-saved", |b| {
            b.st_imm(Size::DW, Reg::R10, -8, 0);
            flags(b);
            b.kfunc("bpf_local_irq_restore");
        })
        .wrong("misuse-out-of-order", |b| {
            flags(b);
            b.kfunc("bpf_local_irq_save");
            b.stack_address(Reg::R1, -16);
            b.kfunc("bpf_local_irq_save");
            flags(b);
            b.kfunc("bpf_local_irq_restore");
            b.stack_address(Reg::R1, -16);
            b.kfunc("bpf_local_irq_restore");
        })
}
