//! Kfuncs about lists of a program's own objects, each called with the list's lock held.

use super::body::Body;
use super::own::{Holds, LINK, ROOT, Value};
use super::row::{GOT, KEPT, Row, kfunc};
use crate::helper;
use crate::insn::{Reg, Size};
use crate::spec::source;

const HELPERS: &str = "kernel/bpf/helpers.c";

/// The rows of this subject. Since 7.1 pushing exists twice: `.._impl`, whose last two arguments the program passes and
/// the verifier replaces, and one that has none of them. Up to 6.3 there is only the one without, beside objects that are
/// made and dropped by `.._impl` (6.3 kernel/bpf/helpers.c).
pub(super) fn rows() -> Vec<Row> {
    vec![
        push("bpf_list_push_front_impl", "bpf_obj_new_impl", "bpf_obj_drop_impl", "6.14", 2),
        push("bpf_list_push_back_impl", "bpf_obj_new_impl", "bpf_obj_drop_impl", "6.14", 1),
        push("bpf_list_push_front", "bpf_obj_new", "bpf_obj_drop", "7.3", 2),
        push("bpf_list_push_back", "bpf_obj_new", "bpf_obj_drop", "7.3", 1),
        pop("bpf_list_pop_front", 1),
        pop("bpf_list_pop_back", 2),
        end("bpf_list_front", 1),
        end("bpf_list_back", 2),
        empty(),
        place("bpf_list_is_first", ["bpf_list_front", "bpf_list_back"]),
        place("bpf_list_is_last", ["bpf_list_back", "bpf_list_front"]),
        add(),
        delete(),
    ]
}

/// A kfunc with a list.
fn row(name: &'static str, version: &'static str) -> Row {
    kfunc(name, version, HELPERS).holds(Holds::Value(Value::List)).cites(source(
        "7.3",
        "kernel/bpf/verifier.c",
        "__process_kf_arg_ptr_to_graph_node",
    ))
}

/// Locks or unlocks the list.
pub(super) fn lock(b: &mut Body<'_>) {
    b.held(Reg::R1, 0);
    b.call(helper::SPIN_LOCK);
}

/// As [`lock`].
pub(super) fn unlock(b: &mut Body<'_>) {
    b.held(Reg::R1, 0);
    b.call(helper::SPIN_UNLOCK);
}

/// `KEPT = a new object` with `value`, of a type of the program's own.
pub(super) fn object(b: &mut Body<'_>, new: &str, name: &'static str, value: i32) {
    let id = b.own_type(name);
    b.mov_imm(Reg::R1, id).mov_imm(Reg::R2, 0);
    b.first_kfunc(&[new, "bpf_obj_new_impl"]);
    b.jeq_imm(Reg::R0, 0, "pass").mov_reg(KEPT, Reg::R0).st_imm(Size::DW, KEPT, 0, value);
}

/// List, node in [`KEPT`], and the two arguments that only `.._impl` has.
fn arguments(b: &mut Body<'_>) {
    b.held(Reg::R1, ROOT);
    b.mov_reg(Reg::R2, KEPT).add_imm(Reg::R2, LINK).mov_imm(Reg::R3, 0).mov_imm(Reg::R4, 0);
}

/// A list with 1 at the front and 2 at the back.
fn two(b: &mut Body<'_>) {
    for value in [1, 2] {
        object(b, "bpf_obj_new_impl", "node", value);
        lock(b);
        arguments(b);
        b.first_kfunc(&["bpf_list_push_back_impl", "bpf_list_push_back"]);
        unlock(b);
    }
}

/// Leaves the value of the node in `reg`.
fn leave_value(b: &mut Body<'_>, slot: i32, reg: Reg) {
    b.ldx(Size::DW, Reg::R1, reg, -LINK);
    b.leave(slot, Reg::R1);
}

/// The first of the list is taken off, and its value left in `slot`.
fn leave_first(b: &mut Body<'_>, drop: &str, slot: i32) {
    lock(b);
    b.held(Reg::R1, ROOT);
    b.kfunc("bpf_list_pop_front");
    b.mov_reg(GOT, Reg::R0);
    unlock(b);
    b.jeq_imm(GOT, 0, "pass");
    leave_value(b, slot, GOT);
    b.mov_reg(Reg::R1, GOT).add_imm(Reg::R1, -LINK).mov_imm(Reg::R2, 0);
    b.first_kfunc(&[drop, "bpf_obj_drop_impl"]);
}

/// What pushes: two nodes, 1 and then 2, of which `first` is at the front afterwards.
fn push(name: &'static str, new: &'static str, drop: &'static str, version: &'static str, first: u64) -> Row {
    row(name, version)
        .takes(move |b| {
            object(b, new, "node", 1);
            lock(b);
            arguments(b);
            b.kfunc(name);
            unlock(b);
            object(b, new, "node", 2);
            lock(b);
            arguments(b);
        })
        .gives(0)
        .after(unlock)
        .then(move |b| {
            leave_first(b, drop, 0);
            leave_first(b, drop, 1);
        })
        .leaves("the first of the list", 0, move || Some(first))
        .leaves("the second of the list", 1, move || Some(3 - first))
        .wrong("misuse-without-the-lock", move |b| {
            object(b, new, "node", 1);
            arguments(b);
            b.kfunc(name);
        })
        .wrong("misuse-object-of-another-type", move |b| {
            object(b, new, "knot", 1);
            lock(b);
            arguments(b);
            b.kfunc(name);
            unlock(b);
        })
        .wrong("misuse-pushed-twice", move |b| {
            object(b, new, "node", 1);
            lock(b);
            arguments(b);
            b.kfunc(name);
            arguments(b);
            b.kfunc(name);
            unlock(b);
        })
        .wrong("misuse-object-without-its-node", move |b| {
            object(b, new, "node", 1);
            lock(b);
            arguments(b);
            b.mov_reg(Reg::R2, KEPT);
            b.kfunc(name);
            unlock(b);
        })
}

/// What takes off the list, and the value that it finds there.
fn pop(name: &'static str, value: u64) -> Row {
    row(name, "6.14")
        .takes(|b| {
            two(b);
            lock(b);
            b.held(Reg::R1, ROOT);
        })
        .after(unlock)
        .owned("bpf_obj_drop_impl")
        .node_at(LINK)
        .then(|b| leave_value(b, 0, GOT))
        .leaves("its value", 0, move || Some(value))
        .wrong("misuse-without-the-lock", move |b| {
            b.held(Reg::R1, ROOT);
            b.kfunc(name);
            b.jeq_imm(Reg::R0, 0, "pass")
                .mov_reg(Reg::R1, Reg::R0)
                .add_imm(Reg::R1, -LINK)
                .mov_imm(Reg::R2, 0);
            b.kfunc("bpf_obj_drop_impl");
        })
        .wrong("misuse-of-what-is-no-list", move |b| {
            lock(b);
            b.held(Reg::R1, 0);
            b.kfunc(name);
            unlock(b);
        })
        // Where the list is empty: nothing is owned then, so that the lock is all that is kept.
        .wrong("misuse-kept-locked", move |b| {
            lock(b);
            b.held(Reg::R1, ROOT);
            b.kfunc(name);
            b.mov_reg(GOT, Reg::R0).jeq_imm(GOT, 0, "pass");
            unlock(b);
            b.mov_reg(Reg::R1, GOT).add_imm(Reg::R1, -LINK).mov_imm(Reg::R2, 0);
            b.kfunc("bpf_obj_drop_impl");
        })
}

/// What shows an end of the list without taking it off, so that nothing is owned.
fn end(name: &'static str, value: u64) -> Row {
    row(name, "7.3")
        .takes(|b| {
            two(b);
            lock(b);
            b.held(Reg::R1, ROOT);
        })
        .nullable()
        .then(|b| leave_value(b, 0, GOT))
        .finally(unlock)
        .leaves("its value", 0, move || Some(value))
        .wrong("misuse-without-the-lock", move |b| {
            b.held(Reg::R1, ROOT);
            b.kfunc(name);
        })
        .wrong("misuse-after-the-lock", move |b| {
            two(b);
            lock(b);
            b.held(Reg::R1, ROOT);
            b.kfunc(name);
            b.mov_reg(GOT, Reg::R0);
            unlock(b);
            b.jeq_imm(GOT, 0, "pass");
            leave_value(b, 0, GOT);
        })
}

/// Whether there is nothing in the list.
fn empty() -> Row {
    row("bpf_list_empty", "7.3")
        .takes(|b| {
            lock(b);
            b.held(Reg::R1, ROOT);
        })
        .after(unlock)
        .gives(1)
        .also("of-two", 0, |b| {
            unlock(b);
            two(b);
            lock(b);
            b.held(Reg::R1, ROOT);
        })
        .wrong("misuse-without-the-lock", |b| {
            b.held(Reg::R1, ROOT);
            b.kfunc("bpf_list_empty");
        })
}

/// `KEPT = the node at an end of a list of two`, not owned, with the lock held.
fn node_of(b: &mut Body<'_>, end: &str) {
    two(b);
    lock(b);
    node_at(b, end);
}

/// `KEPT = the node at an end of the list`, whose lock is held.
fn node_at(b: &mut Body<'_>, end: &str) {
    b.held(Reg::R1, ROOT);
    b.kfunc(end);
    let there = b.fresh("there");
    b.jne_imm(Reg::R0, 0, &there);
    unlock(b);
    b.ja("pass").label(&there).mov_reg(KEPT, Reg::R0);
}

/// Whether a node is at the first of these ends of the list.
fn place(name: &'static str, [end, other]: [&'static str; 2]) -> Row {
    row(name, "7.3")
        .takes(move |b| {
            node_of(b, end);
            b.held(Reg::R1, ROOT);
            b.mov_reg(Reg::R2, KEPT);
        })
        .after(unlock)
        .gives(1)
        .also("the-node-at-the-other-end", 0, move |b| {
            node_at(b, other);
            b.held(Reg::R1, ROOT);
            b.mov_reg(Reg::R2, KEPT);
        })
        .not_null(Reg::R2)
        .wrong("misuse-without-the-lock", move |b| {
            node_of(b, end);
            unlock(b);
            b.held(Reg::R1, ROOT);
            b.mov_reg(Reg::R2, KEPT);
            b.kfunc(name);
        })
}

/// 3 after the first of a list of 1 and 2: it is not the last, and the second one.
fn add() -> Row {
    row("bpf_list_add", "7.3")
        .takes(|b| {
            two(b);
            object(b, "bpf_obj_new", "node", 3);
            lock(b);
            b.held(Reg::R1, ROOT);
            b.kfunc("bpf_list_front");
            let (there, on) = (b.fresh("there"), b.fresh("on"));
            b.mov_reg(GOT, Reg::R0).jne_imm(GOT, 0, &there);
            unlock(b);
            b.release("bpf_obj_drop", KEPT);
            b.ja("pass").label(&there).ja(&on).label(&on);
            b.held(Reg::R1, ROOT);
            b.mov_reg(Reg::R2, KEPT).add_imm(Reg::R2, LINK).mov_reg(Reg::R3, GOT);
        })
        .after(unlock)
        .gives(0)
        .then(|b| {
            leave_first(b, "bpf_obj_drop", 1);
            leave_first(b, "bpf_obj_drop", 0);
        })
        .leaves("the second of the list", 0, || Some(3))
        .not_null(Reg::R3)
}

/// The last of two is taken off.
fn delete() -> Row {
    row("bpf_list_del", "7.3")
        .takes(|b| {
            node_of(b, "bpf_list_back");
            b.held(Reg::R1, ROOT);
            b.mov_reg(Reg::R2, KEPT);
        })
        .after(unlock)
        .owned("bpf_obj_drop")
        .node_at(LINK)
        .then(|b| leave_value(b, 0, GOT))
        .leaves("its value", 0, || Some(2))
        .wrong("misuse-without-the-lock", |b| {
            node_of(b, "bpf_list_back");
            unlock(b);
            b.held(Reg::R1, ROOT);
            b.mov_reg(Reg::R2, KEPT);
            b.kfunc("bpf_list_del");
            b.jeq_imm(Reg::R0, 0, "pass")
                .mov_reg(Reg::R1, Reg::R0)
                .add_imm(Reg::R1, -LINK)
                .mov_imm(Reg::R2, 0);
            b.kfunc("bpf_obj_drop");
        })
}
