//! Kfuncs that begin and end a section of code: RCU, preemption, interrupts.

use super::body::{Body, OUT};
use super::cgroup::root_id;
use super::counted::Depth;
use super::dynptr::as_outcome;
use super::row::{GOT, Row, kfunc};
use crate::helper;
use crate::insn::{Reg, Size};
use crate::spec::source;

const HELPERS: &str = "kernel/bpf/helpers.c";

/// The same row with an RCU section around all that its program does.
pub(super) fn inside(row: &Row) -> Row {
    let (before, finally) = (row.before.clone(), row.finally.clone());
    row.clone()
        .takes(move |b| {
            b.kfunc("bpf_rcu_read_lock");
            b.label("section");
            before(b);
        })
        .finally(move |b| {
            finally(b);
            // What passes because something is not there ends the section as well.
            b.land("section", "pass", "end of the section");
            b.kfunc("bpf_rcu_read_unlock");
        })
}

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    vec![
        rcu_lock(),
        rcu_unlock(),
        begin("bpf_preempt_disable", "bpf_preempt_enable", Depth::Preemption),
        end("bpf_preempt_disable", "bpf_preempt_enable", Depth::Preemption),
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

/// Looks up a key, which sleeps, between what begins and what ends a section, and gives it back.
fn sleeping_kfunc(b: &mut Body<'_>, begin: impl Fn(&mut Body<'_>), end: impl Fn(&mut Body<'_>)) {
    begin(b);
    super::key::look_up(b);
    b.mov_reg(GOT, Reg::R0);
    end(b);
    b.jeq_imm(GOT, 0, "pass");
    b.release("bpf_key_put", GOT);
}

/// A program that may sleep may pass on the pointer to its cgroup inside of the section alone, from 6.4 on: before, the
/// kfunc that it is passed to took no pointer that is protected by RCU (6.3 and 6.4 kernel/bpf/helpers.c,
/// `bpf_cgroup_ancestor`: KF_TRUSTED_ARGS, KF_RCU). The other kfunc ended with 6.3.
const TAKES_NO_RCU_POINTER: &str = "bpf_cgroup_kptr_get";

fn rcu_lock() -> Row {
    begin("bpf_rcu_read_lock", "bpf_rcu_read_unlock", Depth::Rcu)
        .both()
        .then(|b| {
            Depth::Rcu.leave(b, 1);
            b.current(GOT);
            b.follow(GOT, "task_struct", "real_parent");
            b.follow(GOT, "task_struct", "tgid");
            b.leave(0, GOT);
            if !b.knows(TAKES_NO_RCU_POINTER) {
                b.current_cgroup(GOT);
                pass_on(b, "none");
                b.mov_reg(GOT, Reg::R0);
                b.follow(GOT, "cgroup", "kn");
                b.follow(GOT, "kernfs_node", "id");
                b.leave(1, GOT);
                b.release("bpf_cgroup_release", Reg::R0);
                b.label("none");
            }
        })
        .leaves("tgid of the parent", 0, || u64::try_from(nix::unistd::getppid().as_raw()).ok())
        .checks(|attempt, results| {
            if attempt.kfunc(TAKES_NO_RCU_POINTER).is_err() {
                let given = Some(results.get(OUT + 8));
                attempt.same("id of the cgroup that is passed on", given, root_id());
            }
        })
        .wrong_sleepable("misuse-pointer-used-afterwards", |b| {
            b.kfunc("bpf_rcu_read_lock");
            b.current_cgroup(GOT);
            b.kfunc("bpf_rcu_read_unlock");
            pass_on(b, "pass");
            b.release("bpf_cgroup_release", Reg::R0);
        })
        .cites(source("6.4", HELPERS, "bpf_cgroup_ancestor"))
}

/// `R0 = what bpf_cgroup_ancestor gives` for the cgroup in [`GOT`] and level 0; where that is nothing, on to `none`.
fn pass_on(b: &mut Body<'_>, none: &str) {
    b.mov_reg(Reg::R1, GOT).mov_imm(Reg::R2, 0);
    b.kfunc("bpf_cgroup_ancestor");
    b.jeq_imm(Reg::R0, 0, none);
}

fn rcu_unlock() -> Row {
    end("bpf_rcu_read_lock", "bpf_rcu_read_unlock", Depth::Rcu)
}

/// The kfunc that begins a section; the canonical program ends it. Whether a section may begin in another of its kind
/// is for the kernel to say: preemption is counted, RCU was not at first.
fn begin(begin: &'static str, end: &'static str, depth: Depth) -> Row {
    let row = kfunc(begin, "6.12", HELPERS)
        .takes(move |b| depth.leave(b, 0))
        .then(move |b| depth.leave(b, 1))
        .finally(move |b| {
            b.kfunc(end);
            depth.leave(b, 2);
        });
    depth
        .is_seen(row)
        .wrong("misuse-not-ended", move |b| b.kfunc(begin))
        .wrong_sleepable("misuse-sleeping-inside", move |b| {
            b.kfunc(begin);
            sleep(b);
            b.kfunc(end);
        })
        .wrong_sleepable("misuse-sleeping-kfunc-inside", move |b| {
            sleeping_kfunc(b, |b| b.kfunc(begin), |b| b.kfunc(end));
        })
        .wrong("nested", move |b| {
            b.kfunc(begin);
            b.kfunc(begin);
            b.kfunc(end);
            b.kfunc(end);
        })
}

/// The kfunc that ends a section.
fn end(begin: &'static str, end: &'static str, depth: Depth) -> Row {
    let row = kfunc(end, "6.12", HELPERS)
        .takes(move |b| {
            depth.leave(b, 0);
            b.kfunc(begin);
            depth.leave(b, 1);
        })
        .then(move |b| depth.leave(b, 2));
    depth.is_seen(row).wrong("misuse-not-begun", move |b| b.kfunc(end)).wrong(
        "misuse-ended-twice",
        move |b| {
            b.kfunc(begin);
            b.kfunc(end);
            b.kfunc(end);
        },
    )
}

/// Where the flags of the interrupts are kept.
fn flags(b: &mut Body<'_>) {
    b.stack_address(Reg::R1, -8);
}

/// Sends the task a signal that it ignores, and leaves what the helper gives.
///
/// Where interrupts are off the signal is put off to an interrupt, for which there is one place: until that has come
/// another one is EBUSY (7.2 kernel/trace/bpf_trace.c, `bpf_send_signal_common`).
fn signal(b: &mut Body<'_>, slot: i32) {
    b.mov_imm(Reg::R1, libc::SIGURG).call(helper::SEND_SIGNAL);
    b.leave(slot, Reg::R0);
}

/// Two signals inside of the section, and one after it.
fn signals_inside(b: &mut Body<'_>) {
    signal(b, 0);
    signal(b, 1);
}

/// What came of [`signals_inside`], and of the signal afterwards.
fn interrupts_were_off(row: Row) -> Row {
    row.checks(|attempt, results| {
        for (slot, key) in (0..).zip(["a signal inside", "another one inside", "one afterwards"]) {
            attempt.outcome(key, &as_outcome(results.get(OUT + 8 * slot)));
        }
    })
    .cites(source("7.2", "kernel/trace/bpf_trace.c", "bpf_send_signal_common"))
}

fn irq_save() -> Row {
    interrupts_were_off(kfunc("bpf_local_irq_save", "7.2", HELPERS))
        .takes(flags)
        .then(signals_inside)
        .finally(|b| {
            flags(b);
            b.kfunc("bpf_local_irq_restore");
            signal(b, 2);
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
        .wrong_sleepable("misuse-sleeping-kfunc-inside", |b| {
            let begin = |b: &mut Body<'_>| {
                flags(b);
                b.kfunc("bpf_local_irq_save");
            };
            sleeping_kfunc(b, begin, |b| {
                flags(b);
                b.kfunc("bpf_local_irq_restore");
            });
        })
}

fn irq_restore() -> Row {
    interrupts_were_off(kfunc("bpf_local_irq_restore", "7.2", HELPERS))
        .takes(|b| {
            flags(b);
            b.kfunc("bpf_local_irq_save");
            signals_inside(b);
            flags(b);
        })
        .then(|b| signal(b, 2))
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
