//! Kfuncs that have something done later: work queues (6.10), a task's own work (6.18), timers called off (7.0).

use super::body::{Body, OUT};
use super::own::{Holds, Value};
use super::row::{Row, kfunc};
use crate::asm::Asm;
use crate::btf::Btf;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::results::Results;
use crate::rules::until;
use crate::session::Attempt;
use crate::spec::source;

const HELPERS: &str = "kernel/bpf/helpers.c";
/// What a callback leaves.
const LEFT: i32 = 4711;

/// The rows of this subject. The second of a pair of names is the one with an argument that the program passes and the
/// verifier replaces, which was all that there was before 7.0.
pub(super) fn rows() -> Vec<Row> {
    vec![
        work_init(),
        work_init_of_a_plain_map(),
        work_callback("bpf_wq_set_callback"),
        work_callback("bpf_wq_set_callback_impl"),
        work_start(),
        task_work("bpf_task_work_schedule_signal"),
        task_work("bpf_task_work_schedule_signal_impl"),
        task_work("bpf_task_work_schedule_resume"),
        task_work("bpf_task_work_schedule_resume_impl"),
        cancel_async(),
    ]
}

/// Says in the page that it has run.
fn callback(asm: &mut Asm, results: &Results, _: &Btf) {
    asm.ld_map_value(Reg::R1, results, 0).st_imm(Size::DW, Reg::R1, OUT, LEFT).mov_imm(Reg::R0, 0).exit();
}

/// Returns what no callback may.
fn wrong_callback(asm: &mut Asm, _: &Results, _: &Btf) {
    asm.mov_imm(Reg::R0, 1).exit();
}

/// Waits for the callback.
fn called(attempt: &mut Attempt<'_>, results: &Results) {
    until(|| results.get(OUT) != 0);
    attempt.same("what the callback left", results.get(OUT), u64::from(LEFT.unsigned_abs()));
}

/// A kfunc about a work queue.
fn work(name: &'static str) -> Row {
    kfunc(name, "7.3", HELPERS).holds(Holds::Value(Value::Work)).cites(source(
        "7.3",
        "kernel/bpf/verifier.c",
        "check_map_field_pointer",
    ))
}

fn init_arguments(b: &mut Body<'_>) {
    b.held(Reg::R1, 0);
    b.held_map(Reg::R2);
    b.mov_imm(Reg::R3, 0);
}

fn callback_arguments(b: &mut Body<'_>) {
    b.held(Reg::R1, 0);
    b.function(Reg::R2, "callback", callback);
    b.mov_imm(Reg::R3, 0).mov_imm(Reg::R4, 0);
}

fn start_arguments(b: &mut Body<'_>) {
    b.held(Reg::R1, 0);
    b.mov_imm(Reg::R2, 0);
}

/// Sets the callback by whichever kfunc the kernel has.
fn set_callback(b: &mut Body<'_>) {
    callback_arguments(b);
    b.first_kfunc(&["bpf_wq_set_callback", "bpf_wq_set_callback_impl"]);
}

fn work_init() -> Row {
    work("bpf_wq_init")
        .takes(init_arguments)
        .gives(0)
        .also("unknown-flag", -i64::from(libc::EINVAL), |b| {
            b.mov_imm(Reg::R3, 1);
        })
        .also("twice", -i64::from(libc::EBUSY), |b| {
            b.kfunc("bpf_wq_init");
            init_arguments(b);
        })
        .spoilt("misuse-of-what-is-no-work", |b| b.held(Reg::R1, 16))
        .not_null(Reg::R1)
}

/// A map without any field that the kernel knows has no record of such fields, which the verifier of some kernels
/// follows all the same.
fn work_init_of_a_plain_map() -> Row {
    work("bpf_wq_init")
        .variant("-of-a-map-of-plain-values")
        .crashing()
        .only_misuses()
        .takes(init_arguments)
        .spoilt("misuse-another-map", |b| b.results_map(Reg::R2))
        .cites(source("6.14", "kernel/bpf/verifier.c", "check_kfunc_args"))
}

fn work_callback(name: &'static str) -> Row {
    work(name)
        .takes(|b| {
            init_arguments(b);
            b.kfunc("bpf_wq_init");
            callback_arguments(b);
        })
        .gives(0)
        .then(|b| {
            start_arguments(b);
            b.kfunc("bpf_wq_start");
        })
        .checks(called)
        .spoilt("misuse-number-for-callback", |b| {
            b.mov_imm(Reg::R2, 8);
        })
        .spoilt("callback-returns-1", |b| b.function(Reg::R2, "wrong", wrong_callback))
        .not_null(Reg::R1)
}

fn work_start() -> Row {
    work("bpf_wq_start")
        .takes(|b| {
            init_arguments(b);
            b.kfunc("bpf_wq_init");
            set_callback(b);
            start_arguments(b);
        })
        .gives(0)
        .checks(called)
        .also("unknown-flag", -i64::from(libc::EINVAL), |b| {
            b.mov_imm(Reg::R2, 1);
        })
        .spoilt("misuse-of-what-is-no-work", |b| b.held(Reg::R1, 16))
        .not_null(Reg::R1)
}

/// Work of the task that opens the file, done before it is back in user space.
fn task_work(name: &'static str) -> Row {
    kfunc(name, "7.3", HELPERS)
        .holds(Holds::Value(Value::TaskWork))
        .takes(|b| {
            b.current(Reg::R1);
            b.held(Reg::R2, 0);
            b.held_map(Reg::R3);
            b.function(Reg::R4, "callback", callback);
            b.mov_imm(Reg::R5, 0);
        })
        .gives(0)
        .checks(called)
        .not_null(Reg::R1)
        // Another map is not tried: what brings the kernel down in `work_init_of_a_plain_map` does here too.
        .spoilt("misuse-of-what-is-no-work", |b| b.held(Reg::R2, 16))
        .spoilt("misuse-number-for-callback", |b| {
            b.mov_imm(Reg::R4, 8);
        })
        .spoilt("callback-returns-1", |b| b.function(Reg::R4, "wrong", wrong_callback))
}

/// A timer that would be over in an hour.
fn cancel_async() -> Row {
    kfunc("bpf_timer_cancel_async", "7.3", HELPERS)
        .holds(Holds::Value(Value::Timer))
        .takes(|b| {
            b.held(Reg::R1, 0);
            b.held_map(Reg::R2);
            b.mov_imm(Reg::R3, libc::CLOCK_MONOTONIC).call(helper::TIMER_INIT);
            b.held(Reg::R1, 0);
            b.function(Reg::R2, "callback", callback);
            b.call(helper::TIMER_SET_CALLBACK);
            b.held(Reg::R1, 0);
            b.ld_imm64(Reg::R2, 3_600_000_000_000).mov_imm(Reg::R3, 0).call(helper::TIMER_START);
            b.held(Reg::R1, 0);
        })
        .gives(1)
        .also("twice", 0, |b| {
            b.kfunc("bpf_timer_cancel_async");
            b.held(Reg::R1, 0);
        })
        .spoilt("misuse-of-what-is-no-timer", |b| b.held(Reg::R1, 16))
        .not_null(Reg::R1)
}
