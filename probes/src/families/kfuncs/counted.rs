//! What the kernel counts, before a call and after it: references that each processor counts for itself, and how deep a
//! task or a processor is in sections of a kind.
//!
//! A program stays on its processor, so that what it reads twice is the same count. User space is told the difference.

use super::body::{Body, OUT};
use super::row::{GOT, KEPT, Row};
use crate::btf::{Btf, Kind};
use crate::helper;
use crate::insn::{Reg, Size};
use crate::results::Results;
use crate::session::Attempt;

/// The slot of what was counted first; the others follow.
pub(super) const COUNTS: i32 = 5;
/// Where each processor's variables are.
const OFFSET: &str = "this_cpu_off";
/// The bits of a pointer to counts that say how it is counted (include/linux/percpu-refcount.h, __PERCPU_REF_FLAG_BITS).
const FLAGS: i32 = 3;

/// Leaves how often the object in [`KEPT`] is held, by this processor's count, in a slot; `refcnt` is its member of type
/// `struct percpu_ref`. Nothing is left where the kernel's BTF does not say where a processor's variables are, or where
/// the object has begun to end and is counted otherwise.
fn leave_holders(b: &mut Body<'_>, slot: i32, (record, refcnt): (&str, &str)) {
    if !b.this_cpus(OFFSET) {
        return;
    }
    let otherwise = b.fresh("otherwise");
    b.ldx(Size::DW, Reg::R3, Reg::R0, 0).mov_reg(Reg::R2, KEPT);
    b.follow(Reg::R2, record, &format!("{refcnt}.percpu_count_ptr"));
    b.add_reg(Reg::R3, Reg::R2).and_imm(Reg::R2, FLAGS).jne_imm(Reg::R2, 0, &otherwise);
    b.page_address(Reg::R1, OUT + 8 * slot);
    b.mov_imm(Reg::R2, 8).call(helper::PROBE_READ_KERNEL);
    b.label(&otherwise);
}

/// What a slot has more than the first, which holds more than nothing.
fn more(results: &Results, slot: i32) -> i64 {
    let count = |slot| results.get(OUT + 8 * (COUNTS + slot));
    count(slot).wrapping_sub(count(0)).cast_signed()
}

/// A row whose kfunc `release` gives back the second of two references to an object: `first` puts the object into [`KEPT`],
/// `again` into `R0`, where it may be NULL, and `refcnt` is as for [`leave_holders`]. It notes that the object was held once
/// more before the call and not afterwards.
pub(super) fn second_of_two(
    row: Row,
    release: &'static str,
    refcnt: (&'static str, &'static str),
    first: fn(&mut Body<'_>),
    again: fn(&mut Body<'_>),
) -> Row {
    let row = row
        .releases()
        .takes(move |b| {
            first(b);
            leave_holders(b, COUNTS, refcnt);
            again(b);
            b.jeq_imm(Reg::R0, 0, "none").mov_reg(GOT, Reg::R0);
            leave_holders(b, COUNTS + 1, refcnt);
            b.mov_reg(Reg::R1, GOT);
        })
        .then(move |b| leave_holders(b, COUNTS + 2, refcnt))
        .finally(move |b| {
            b.label("none");
            b.release(release, KEPT);
        });
    row.checks(|attempt, results| match attempt.btf().map(|btf| btf.find(Kind::Var, OFFSET)) {
        Ok(Some(_)) => {
            attempt.same("more holders before", more(results, 1), 1);
            attempt.same("more holders afterwards", more(results, 2), 0);
        }
        Ok(None) | Err(_) => attempt.see("its effect", "not looked at: the kernel's BTF has no variables"),
    })
}

/// What counts how deep something is in sections of a kind.
#[derive(Clone, Copy)]
pub(super) enum Depth {
    /// The task's RCU sections, where these can be preempted (`CONFIG_PREEMPT_RCU`).
    Rcu,
    /// The processor's sections without preemption.
    Preemption,
}

/// Where x86 counts preemption: for itself, and from 6.2 to 6.14 with other things (6.2
/// arch/x86/include/asm/current.h, `struct pcpu_hot`; 6.16 arch/x86/include/asm/preempt.h).
const PREEMPTION: &str = "__preempt_count";
/// As [`PREEMPTION`].
const HOT: &str = "pcpu_hot";
/// The bit of it that says whether the task should be preempted (arch/x86/include/asm/preempt.h, PREEMPT_NEED_RESCHED).
const WANTED: i32 = i32::MAX;
/// Where a task counts its sections.
const NESTING: &str = "rcu_read_lock_nesting";

impl Depth {
    /// Leaves the count in the slot for what is counted as `which`.
    pub(super) fn leave(self, b: &mut Body<'_>, which: i32) {
        match self {
            Self::Rcu if b.has_member("task_struct", NESTING) => {
                b.current(Reg::R1);
                b.follow(Reg::R1, "task_struct", NESTING);
            }
            Self::Preemption if b.this_cpus(PREEMPTION) => {
                b.ldx(Size::W, Reg::R1, Reg::R0, 0).and_imm(Reg::R1, WANTED);
            }
            Self::Preemption if b.this_cpus(HOT) => {
                b.mov_reg(Reg::R1, Reg::R0);
                b.follow(Reg::R1, HOT, "preempt_count");
                b.and_imm(Reg::R1, WANTED);
            }
            Self::Rcu | Self::Preemption => return,
        }
        b.leave(COUNTS + which, Reg::R1);
    }

    fn is_counted(self, btf: &Btf) -> bool {
        match self {
            Self::Rcu => btf.member("task_struct", NESTING).is_ok(),
            Self::Preemption => [PREEMPTION, HOT].iter().any(|name| btf.find(Kind::Var, name).is_some()),
        }
    }

    /// Notes how much deeper it was inside, and afterwards, than before; all three of which the program has left.
    pub(super) fn is_seen(self, row: Row) -> Row {
        row.checks(move |attempt, results| self.see(attempt, results))
    }

    fn see(self, attempt: &mut Attempt<'_>, results: &Results) {
        if attempt.btf().is_ok_and(|btf| self.is_counted(btf)) {
            attempt.see("deeper inside", more(results, 1));
            attempt.see("deeper afterwards", more(results, 2));
        } else {
            attempt.see("its effect", "not looked at: this kernel does not count such sections");
        }
    }
}
