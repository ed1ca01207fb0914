//! Kfuncs about CPU masks. Only CPU 0 and "all" are used, which every machine has.

use super::body::{BUFFER, Body, RESULT};
use super::row::{GOT, KEPT, Row, kfunc};
use crate::insn::{Reg, Size};
use crate::results::Results;
use crate::session::Attempt;
use std::fs;

const CPUMASK: &str = "kernel/bpf/cpumask.c";
/// How many CPUs a program counts by itself.
const COUNTED: u32 = 8;
/// Where programs with two masks keep the second.
const OTHER: i32 = -32;

/// A kfunc, and what user space knows it to give or to leave.
type Known<T> = (&'static str, fn() -> Option<T>);

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![create(), acquire(), release()];
    rows.extend(of_one_cpu());
    rows.extend(of_one_mask());
    rows.extend(of_two_masks());
    rows.extend(changing());
    rows
}

/// `nr_cpu_ids`: one more than the last possible CPU.
fn cpu_ids() -> Option<i64> {
    let possible = fs::read_to_string("/sys/devices/system/cpu/possible").ok()?;
    let last: i64 = possible.trim().rsplit([',', '-']).next()?.parse().ok()?;
    Some(last + 1)
}

/// `KEPT = a new mask`, empty.
fn mask(b: &mut Body<'_>) {
    b.kfunc("bpf_cpumask_create");
    b.jeq_imm(Reg::R0, 0, "pass").mov_reg(KEPT, Reg::R0);
}

/// `cpu`, then the kept mask, for a kfunc that takes both.
fn call_with_cpu(b: &mut Body<'_>, kfunc: &str, cpu: i32) {
    b.mov_imm(Reg::R1, cpu).mov_reg(Reg::R2, KEPT);
    b.kfunc(kfunc);
}

/// `KEPT = a new mask` with CPU 0.
fn mask_of_cpu_0(b: &mut Body<'_>) {
    mask(b);
    call_with_cpu(b, "bpf_cpumask_set_cpu", 0);
}

fn release_kept(b: &mut Body<'_>) {
    b.release("bpf_cpumask_release", KEPT);
}

/// Leaves how many CPUs the mask in a register has. Before the kfunc for that (6.8) they are counted, up to
/// [`COUNTED`]: no machine of the suite has more.
fn leave_weight(b: &mut Body<'_>, mask: Reg) {
    b.mov_reg(Reg::R1, mask);
    if b.knows("bpf_cpumask_weight") {
        b.kfunc("bpf_cpumask_weight");
        b.mov32_reg(Reg::R0, Reg::R0);
    } else {
        b.follow(Reg::R1, "bpf_cpumask", "cpumask.bits");
        b.mov_imm(Reg::R0, 0);
        for _ in 0..COUNTED {
            b.mov_reg(Reg::R2, Reg::R1).and_imm(Reg::R2, 1).add_reg(Reg::R0, Reg::R2).rsh_imm(Reg::R1, 1);
        }
    }
    b.leave(0, Reg::R0);
}

fn create() -> Row {
    kfunc("bpf_cpumask_create", "6.12", CPUMASK)
        .owned("bpf_cpumask_release")
        .then(|b| {
            b.mov_reg(Reg::R1, GOT);
            b.kfunc("bpf_cpumask_empty");
            b.and_imm(Reg::R0, 0xff);
            b.leave(0, Reg::R0);
        })
        .leaves("empty", 0, || Some(1))
}

fn acquire() -> Row {
    kfunc("bpf_cpumask_acquire", "6.12", CPUMASK)
        .takes(|b| {
            mask(b);
            b.mov_reg(Reg::R1, KEPT);
        })
        .owned_never_null("bpf_cpumask_release")
        .then(|b| leave_holders(b, GOT))
        .finally(release_kept)
        .leaves("holders", 0, || Some(2))
        .not_null(Reg::R1)
        .not_untrusted(Reg::R1, "bpf_cpumask")
}

/// Leaves how often a mask is held.
fn leave_holders(b: &mut Body<'_>, mask: Reg) {
    b.mov_reg(Reg::R1, mask);
    b.follow(Reg::R1, "bpf_cpumask", "usage.refs.counter");
    b.leave(0, Reg::R1);
}

/// The second of two references is given back.
fn release() -> Row {
    kfunc("bpf_cpumask_release", "6.12", CPUMASK)
        .releases()
        .takes(|b| {
            mask(b);
            b.mov_reg(Reg::R1, KEPT);
            b.kfunc("bpf_cpumask_acquire");
            b.mov_reg(Reg::R1, Reg::R0);
        })
        .then(|b| leave_holders(b, KEPT))
        .finally(release_kept)
        .leaves("holders", 0, || Some(1))
        .wrong("misuse-not-acquired", |b| {
            b.current(Reg::R1);
            b.follow(Reg::R1, "task_struct", "cpus_ptr");
            b.kfunc("bpf_cpumask_release");
        })
}

/// A kfunc that takes a CPU and a mask: whether CPU 0 is in the mask before, what the kfunc returns for it, and what
/// the mask weighs afterwards. The three are chosen so that doing nothing would show.
type OneCpu = (&'static str, bool, Option<i64>, u64);

/// Kfuncs that take a CPU and a mask.
fn of_one_cpu() -> Vec<Row> {
    const TABLE: &[OneCpu] = &[
        ("bpf_cpumask_set_cpu", false, None, 1),
        ("bpf_cpumask_clear_cpu", true, None, 0),
        ("bpf_cpumask_test_cpu", true, Some(1), 1),
        ("bpf_cpumask_test_and_set_cpu", false, Some(0), 1),
        ("bpf_cpumask_test_and_clear_cpu", true, Some(1), 0),
    ];
    TABLE.iter().map(one_cpu).collect()
}

/// A kfunc that takes this CPU and a mask, with CPU 0 or empty, which weighs so much afterwards.
fn with_cpu(name: &'static str, cpu: i32, set: bool, weight: u64) -> Row {
    kfunc(name, "6.12", CPUMASK)
        .takes(move |b| {
            if set {
                mask_of_cpu_0(b);
            } else {
                mask(b);
            }
            b.mov_imm(Reg::R1, cpu).mov_reg(Reg::R2, KEPT);
        })
        .then(|b| leave_weight(b, KEPT))
        .finally(release_kept)
        .leaves("weight", 0, move || Some(weight))
}

fn one_cpu(&(name, set, result, weight): &OneCpu) -> Row {
    let row = with_cpu(name, 0, set, weight)
        .not_null(Reg::R2)
        .not_untrusted(Reg::R2, if name == "bpf_cpumask_test_cpu" { "cpumask" } else { "bpf_cpumask" });
    let row = match result {
        // A CPU that does not exist is no CPU of the mask, which stays as it is (cpu_valid).
        Some(result) => row
            .gives(result)
            .other("canonical-no-such-cpu", with_cpu(name, 1 << 20, set, u64::from(set)).gives(0)),
        None => row,
    };
    if name == "bpf_cpumask_test_cpu" {
        return row;
    }
    row.spoilt("misuse-mask-of-the-kernel", |b| {
        b.current(Reg::R2);
        b.follow(Reg::R2, "task_struct", "cpus_ptr");
        b.mov_imm(Reg::R1, 0);
    })
}

/// Kfuncs that only read one mask: what they give for a mask of CPU 0.
fn of_one_mask() -> Vec<Row> {
    const TABLE: &[Known<i64>] = &[
        ("bpf_cpumask_weight", || Some(1)),
        ("bpf_cpumask_first", || Some(0)),
        ("bpf_cpumask_first_zero", || Some(1)), // with one CPU that is nr_cpu_ids, "none"
        ("bpf_cpumask_empty", || Some(0)),
        ("bpf_cpumask_full", || cpu_ids().map(|ids| i64::from(ids == 1))),
        ("bpf_cpumask_any_distribute", || Some(0)),
    ];
    let row = |&(name, known): &Known<i64>| {
        let row = kfunc(name, "6.12", CPUMASK)
            .takes(|b| {
                mask_of_cpu_0(b);
                b.mov_reg(Reg::R1, KEPT);
            })
            .finally(release_kept)
            .gives_as_known(known)
            .not_null(Reg::R1)
            .not_untrusted(Reg::R1, "cpumask");
        // What gives the number of a CPU that is in the mask gives 0 above, as what does nothing would.
        if matches!(name, "bpf_cpumask_first" | "bpf_cpumask_any_distribute") {
            row.other("canonical-of-an-empty-mask", of_an_empty_mask(name))
        } else {
            row
        }
    };
    TABLE.iter().map(row).collect()
}

fn of_an_empty_mask(name: &'static str) -> Row {
    kfunc(name, "6.12", CPUMASK)
        .takes(|b| {
            mask(b);
            b.mov_reg(Reg::R1, KEPT);
        })
        .finally(release_kept)
        .checks(names_no_cpu)
}

/// The two masks: the kept one with CPU 0, the other empty.
fn two_masks(b: &mut Body<'_>) {
    mask_of_cpu_0(b);
    b.kfunc("bpf_cpumask_create");
    b.stx(Size::DW, Reg::R10, OTHER, Reg::R0);
    let second = b.fresh("second");
    b.jne_imm(Reg::R0, 0, &second);
    release_kept(b);
    b.ja("pass").label(&second);
}

fn release_two(b: &mut Body<'_>) {
    b.ldx(Size::DW, Reg::R1, Reg::R10, OTHER);
    b.kfunc("bpf_cpumask_release");
    release_kept(b);
}

/// Where there is no CPU in a mask, or in both, they give the number of CPU ids, or of the bits of a mask where these are few: at least
/// `nr_cpu_ids` (6.6 include/linux/cpumask.h, `cpumask_first_and`; 7.3 lib/cpumask.c, `cpumask_any_and_distribute`).
fn names_no_cpu(attempt: &mut Attempt<'_>, results: &Results) {
    let given = results.get(RESULT) & u64::from(u32::MAX);
    match cpu_ids().and_then(|ids| u64::try_from(ids).ok()) {
        Some(ids) => attempt.holds("the result is the number of no CPU", given >= ids),
        None => attempt.see("result", "user space could not find out"),
    }
}

/// Kfuncs that compare two masks: what they give for `{0}` and the empty one; `None` for those that give a CPU's number.
fn of_two_masks() -> Vec<Row> {
    const TABLE: &[(&str, Option<i64>)] = &[
        ("bpf_cpumask_equal", Some(0)),
        ("bpf_cpumask_intersects", Some(0)),
        ("bpf_cpumask_subset", Some(0)),
        ("bpf_cpumask_first_and", None),
        ("bpf_cpumask_any_and_distribute", None),
    ];
    let row = |&(name, gives): &(&'static str, Option<i64>)| {
        let row = kfunc(name, "6.12", CPUMASK)
            .takes(|b| {
                two_masks(b);
                b.mov_reg(Reg::R1, KEPT).ldx(Size::DW, Reg::R2, Reg::R10, OTHER);
            })
            .finally(release_two)
            .not_null(Reg::R2);
        let row = match gives {
            Some(gives) => row.gives_as_known(move || Some(gives)),
            None => row.checks(names_no_cpu),
        };
        let same: i64 = i64::from(!name.contains("_and"));
        row.also("with-itself", same, |b| {
            b.mov_reg(Reg::R2, KEPT);
        })
    };
    TABLE.iter().map(row).collect()
}

/// A kfunc that fills a mask: whether that is the one with CPU 0 or the empty one, and its weight afterwards, which is
/// never the one before.
type Filling = (&'static str, bool, fn() -> Option<u64>);

/// Kfuncs that fill a mask from `{0}` and the empty one.
fn changing() -> Vec<Row> {
    const TABLE: &[Filling] = &[
        ("bpf_cpumask_and", true, || Some(0)),
        ("bpf_cpumask_or", false, || Some(1)),
        ("bpf_cpumask_xor", false, || Some(1)),
        ("bpf_cpumask_copy", true, || Some(0)),
        ("bpf_cpumask_clear", true, || Some(0)),
        ("bpf_cpumask_setall", false, || cpu_ids().and_then(|ids| u64::try_from(ids).ok())),
    ];
    let mut rows: Vec<Row> = TABLE.iter().map(filling).collect();
    rows.push(populate());
    rows
}

fn filling(&(name, of_cpu_0, weight): &Filling) -> Row {
    kfunc(name, "6.12", CPUMASK)
        .takes(move |b| {
            two_masks(b);
            // Kfuncs of one or two masks ignore the rest.
            b.mov_reg(Reg::R2, KEPT).ldx(Size::DW, Reg::R3, Reg::R10, OTHER);
            b.mov_reg(Reg::R1, if of_cpu_0 { Reg::R2 } else { Reg::R3 });
            if name == "bpf_cpumask_copy" {
                b.mov_reg(Reg::R2, Reg::R3);
            }
        })
        .then(move |b| {
            b.mov_reg(GOT, KEPT);
            if !of_cpu_0 {
                b.ldx(Size::DW, GOT, Reg::R10, OTHER);
            }
            leave_weight(b, GOT);
        })
        .finally(release_two)
        .leaves("weight", 0, weight)
        .not_null(Reg::R1)
        .spoilt("misuse-mask-of-the-kernel", |b| {
            b.stx(Size::DW, Reg::R10, -40, Reg::R2).stx(Size::DW, Reg::R10, -48, Reg::R3);
            b.current(Reg::R1);
            b.follow(Reg::R1, "task_struct", "cpus_ptr");
            b.ldx(Size::DW, Reg::R2, Reg::R10, -40).ldx(Size::DW, Reg::R3, Reg::R10, -48);
        })
}

fn populate() -> Row {
    kfunc("bpf_cpumask_populate", "7.2", CPUMASK)
        .given(|results| {
            results.set(BUFFER, 1);
            Ok(())
        })
        .takes(|b| {
            mask(b);
            b.mov_reg(Reg::R1, KEPT);
            b.page_address(Reg::R2, BUFFER);
            b.mov_imm(Reg::R3, 1024); // as large as the mask of a kernel for 8192 CPUs
        })
        .then(|b| leave_weight(b, KEPT))
        .finally(release_kept)
        .gives(0)
        .leaves("weight", 0, || Some(1))
        .also("source-too-small", -i64::from(libc::EACCES), |b| {
            b.mov_imm(Reg::R3, 0);
        })
        .not_null(Reg::R1)
}
