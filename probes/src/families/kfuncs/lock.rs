//! Kfuncs about resilient spin locks (6.15), which may give up: a program must look whether it has the lock.

use super::body::{Body, OUT};
use super::cases::errno_text;
use super::own::{Holds, NUMBER, Value};
use super::row::{Row, kfunc};
use crate::helper;
use crate::insn::{Reg, Size};
use crate::spec::source;

const RQ: &str = "kernel/bpf/rqspinlock.c";
/// Where the flags of the interrupts are kept.
const FLAGS: i32 = -8;

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    let plain = ["bpf_res_spin_lock", "bpf_res_spin_unlock"];
    let flags = ["bpf_res_spin_lock_irqsave", "bpf_res_spin_unlock_irqrestore"];
    [plain, flags].into_iter().flat_map(|names| [lock(names), unlock(names)]).collect()
}

fn row(name: &'static str) -> Row {
    kfunc(name, "7.3", RQ).holds(Holds::Value(Value::Lock)).cites(source(
        "7.3",
        "kernel/bpf/verifier.c",
        "process_spin_lock",
    ))
}

/// The lock, and where the flags are, which the kfuncs without flags ignore.
fn arguments(b: &mut Body<'_>) {
    b.held(Reg::R1, 0);
    b.stack_address(Reg::R2, FLAGS);
}

fn call(b: &mut Body<'_>, name: &str) {
    arguments(b);
    b.kfunc(name);
}

/// Locks, or leaves the program.
fn locked(b: &mut Body<'_>, name: &str) {
    call(b, name);
    b.jne_imm(Reg::R0, 0, "pass");
}

/// Adds 42 to the number and leaves it.
fn add(b: &mut Body<'_>) {
    b.held(Reg::R1, NUMBER);
    b.ldx(Size::DW, Reg::R2, Reg::R1, 0).add_imm(Reg::R2, 42).stx(Size::DW, Reg::R1, 0, Reg::R2);
    b.leave(0, Reg::R2);
}

/// Where the lock is on the stack, as it was found by one look into the map, and by another; and the flags of the second.
const FOUND: [i32; 2] = [-32, -40];
/// As [`FOUND`].
const INNER_FLAGS: i32 = -48;

/// Looks the lock up twice.
fn find(b: &mut Body<'_>) {
    for place in FOUND {
        b.st_imm(Size::W, Reg::R10, -24, 0);
        b.held_map(Reg::R1);
        b.stack_address(Reg::R2, -24);
        b.call(helper::MAP_LOOKUP_ELEM).jeq_imm(Reg::R0, 0, "pass");
        b.stx(Size::DW, Reg::R10, place, Reg::R0);
    }
}

/// The arguments of the lock as it was found.
fn found(b: &mut Body<'_>, which: usize, flags: i32) {
    b.ldx(Size::DW, Reg::R1, Reg::R10, FOUND[which]);
    b.stack_address(Reg::R2, flags);
}

/// The lock, looked up anew, which the verifier takes for another one: whether it is locked is seen when it runs.
fn of_what_is_locked([name, unlock]: [&'static str; 2]) -> Row {
    row(name)
        .takes(move |b| {
            find(b);
            found(b, 0, FLAGS);
            b.kfunc(name);
            b.jne_imm(Reg::R0, 0, "pass");
            found(b, 1, INNER_FLAGS);
        })
        .gives(-i64::from(libc::EDEADLK))
        .then(move |b| {
            b.jne_imm(Reg::R0, 0, "not-locked");
            found(b, 1, INNER_FLAGS);
            b.kfunc(unlock);
            b.label("not-locked");
        })
        .finally(move |b| {
            found(b, 0, FLAGS);
            b.kfunc(unlock);
        })
}

fn lock([name, unlock]: [&'static str; 2]) -> Row {
    row(name)
        .takes(arguments)
        .gives(0)
        .then(move |b| {
            b.jne_imm(Reg::R0, 0, "pass");
            add(b);
            call(b, unlock);
        })
        .leaves("the number", 0, || Some(42))
        .other("canonical-of-what-is-locked", of_what_is_locked([name, unlock]))
        .wrong("misuse-not-unlocked", move |b| locked(b, name))
        .wrong("misuse-not-looked-at", move |b| {
            call(b, name);
            call(b, unlock);
        })
        .wrong("misuse-locked-twice", move |b| {
            locked(b, name);
            call(b, name);
            let second = b.fresh("second");
            b.jne_imm(Reg::R0, 0, &second);
            call(b, unlock);
            b.label(&second);
            call(b, unlock);
        })
        .wrong("misuse-of-what-is-no-lock", move |b| {
            b.held(Reg::R1, NUMBER);
            b.stack_address(Reg::R2, FLAGS);
            b.kfunc(name);
            b.jne_imm(Reg::R0, 0, "pass");
            b.held(Reg::R1, NUMBER);
            b.stack_address(Reg::R2, FLAGS);
            b.kfunc(unlock);
        })
}

fn unlock([lock, name]: [&'static str; 2]) -> Row {
    row(name)
        .takes(move |b| {
            find(b);
            found(b, 0, FLAGS);
            b.kfunc(lock);
            b.jne_imm(Reg::R0, 0, "pass");
            found(b, 0, FLAGS);
        })
        // What is locked gives EDEADLK to who looks it up anew, as `canonical-of-what-is-locked` of the lock shows.
        .then(move |b| {
            found(b, 1, INNER_FLAGS);
            b.kfunc(lock);
            b.leave(0, Reg::R0);
            b.jne_imm(Reg::R0, 0, "not-locked");
            found(b, 1, INNER_FLAGS);
            b.kfunc(name);
            b.label("not-locked");
        })
        .checks(|attempt, results| attempt.see("then locking it again gives", errno_text(results.get(OUT))))
        .wrong("misuse-not-locked", move |b| {
            b.st_imm(Size::DW, Reg::R10, FLAGS, 0);
            call(b, name);
        })
        .wrong("misuse-unlocked-twice", move |b| {
            locked(b, lock);
            call(b, name);
            call(b, name);
        })
}
