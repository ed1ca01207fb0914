//! Kfuncs about trees of a program's own objects, each called with the tree's lock held.

use super::body::Body;
use super::list::{lock, object, unlock};
use super::own::{Holds, LINK, ROOT, Value};
use super::row::{GOT, KEPT, Row, kfunc};
use crate::asm::Asm;
use crate::btf::Btf;
use crate::insn::{Reg, Size};
use crate::results::Results;
use crate::spec::source;

const HELPERS: &str = "kernel/bpf/helpers.c";
/// Where a first result is on the stack.
const FIRST: i32 = -128;

/// The rows of this subject. Adding exists under two names, see `list`.
pub(super) fn rows() -> Vec<Row> {
    vec![
        add("bpf_rbtree_add_impl", "bpf_obj_new_impl", "6.14"),
        add("bpf_rbtree_add", "bpf_obj_new", "7.3"),
        remove(),
        look("bpf_rbtree_first", 3),
        look("bpf_rbtree_root", 5),
        side("bpf_rbtree_left", 3),
        side("bpf_rbtree_right", 8),
    ]
}

fn row(name: &'static str, version: &'static str) -> Row {
    kfunc(name, version, HELPERS).holds(Holds::Value(Value::Tree)).cites(source(
        "7.3",
        "kernel/bpf/verifier.c",
        "set_rbtree_add_callback_state",
    ))
}

/// `a->value < b->value`.
fn less(asm: &mut Asm, _: &Results, _: &Btf) {
    asm.ldx(Size::DW, Reg::R1, Reg::R1, -LINK)
        .ldx(Size::DW, Reg::R2, Reg::R2, -LINK)
        .mov_imm(Reg::R0, 0)
        .jge_reg(Reg::R1, Reg::R2, "not-less")
        .mov_imm(Reg::R0, 1)
        .label("not-less")
        .exit();
}

/// Says that everything is less than everything, by a number that is no truth value.
fn not_a_verdict(asm: &mut Asm, _: &Results, _: &Btf) {
    asm.mov_imm(Reg::R0, 7).exit();
}

/// Tree, node in [`KEPT`], comparison, and the two arguments that only `.._impl` has.
fn arguments(b: &mut Body<'_>) {
    b.held(Reg::R1, ROOT);
    b.mov_reg(Reg::R2, KEPT).add_imm(Reg::R2, LINK);
    b.function(Reg::R3, "less", less);
    b.mov_imm(Reg::R4, 0).mov_imm(Reg::R5, 0);
}

/// A tree with 5 as root, 3 to the left and 8 to the right.
fn three(b: &mut Body<'_>) {
    for value in [5, 3, 8] {
        object(b, "bpf_obj_new_impl", "knot", value);
        lock(b);
        arguments(b);
        b.first_kfunc(&["bpf_rbtree_add_impl", "bpf_rbtree_add"]);
        unlock(b);
    }
}

/// Leaves the value of the knot in `reg`.
fn leave_value(b: &mut Body<'_>, reg: Reg) {
    b.ldx(Size::DW, Reg::R1, reg, -LINK);
    b.leave(0, Reg::R1);
}

/// `KEPT = what a kfunc shows of the tree`, not owned, with the lock held.
fn node_of(b: &mut Body<'_>, kfunc: &str) {
    lock(b);
    b.held(Reg::R1, ROOT);
    b.kfunc(kfunc);
    let there = b.fresh("there");
    b.jne_imm(Reg::R0, 0, &there);
    unlock(b);
    b.ja("pass").label(&there).mov_reg(KEPT, Reg::R0);
}

/// 5 and then 3: the first is 3 afterwards, as the comparison says and the order of adding does not.
fn add(name: &'static str, new: &'static str, version: &'static str) -> Row {
    row(name, version)
        .takes(move |b| {
            object(b, new, "knot", 5);
            lock(b);
            arguments(b);
            b.kfunc(name);
            unlock(b);
            object(b, new, "knot", 3);
            lock(b);
            arguments(b);
        })
        .gives(0)
        .after(unlock)
        .then(|b| {
            node_of(b, "bpf_rbtree_first");
            leave_value(b, KEPT);
            unlock(b);
        })
        .leaves("the first of the tree", 0, || Some(3))
        .wrong("misuse-without-the-lock", move |b| {
            object(b, new, "knot", 5);
            arguments(b);
            b.kfunc(name);
        })
        .wrong("misuse-object-of-another-type", move |b| {
            object(b, new, "node", 5);
            lock(b);
            arguments(b);
            b.kfunc(name);
            unlock(b);
        })
        .wrong("misuse-number-for-callback", move |b| {
            object(b, new, "knot", 5);
            lock(b);
            arguments(b);
            b.mov_imm(Reg::R3, 8);
            b.kfunc(name);
            unlock(b);
        })
        .wrong("callback-returns-7", move |b| {
            object(b, new, "knot", 5);
            lock(b);
            arguments(b);
            b.function(Reg::R3, "verdict", not_a_verdict);
            b.kfunc(name);
            unlock(b);
        })
}

/// A tree of three nodes, locked, and its first node as the second argument, to be taken out.
fn the_first_of_three(b: &mut Body<'_>) {
    three(b);
    node_of(b, "bpf_rbtree_first");
    b.held(Reg::R1, ROOT);
    b.mov_reg(Reg::R2, KEPT);
}

/// What is in no tree any more cannot be taken out, which is not forbidden: the second time there is nothing. Both results
/// are given back once the tree is unlocked.
fn removed_twice() -> Row {
    row("bpf_rbtree_remove", "6.14")
        .takes(|b| {
            the_first_of_three(b);
            b.kfunc("bpf_rbtree_remove");
            b.stx(Size::DW, Reg::R10, FIRST, Reg::R0);
            b.held(Reg::R1, ROOT);
            b.mov_reg(Reg::R2, KEPT);
        })
        .after(unlock)
        .owned("bpf_obj_drop_impl")
        .node_at(LINK)
        .gives_null("the first call has taken it out of the tree")
        .finally(|b| {
            b.ldx(Size::DW, GOT, Reg::R10, FIRST).jeq_imm(GOT, 0, "pass");
            leave_value(b, GOT);
            b.mov_reg(Reg::R1, GOT).add_imm(Reg::R1, -LINK).mov_imm(Reg::R2, 0);
            b.kfunc("bpf_obj_drop_impl");
        })
        .leaves("its value, the first time", 0, || Some(3))
}

fn remove() -> Row {
    row("bpf_rbtree_remove", "6.14")
        .takes(the_first_of_three)
        .after(unlock)
        .owned("bpf_obj_drop_impl")
        .node_at(LINK)
        .then(|b| leave_value(b, GOT))
        .leaves("its value", 0, || Some(3))
        .other("removed-twice", removed_twice())
        .not_null(Reg::R2)
        .wrong("misuse-without-the-lock", |b| {
            three(b);
            node_of(b, "bpf_rbtree_first");
            unlock(b);
            b.held(Reg::R1, ROOT);
            b.mov_reg(Reg::R2, KEPT);
            b.kfunc("bpf_rbtree_remove");
        })
}

/// What shows a node without taking it out, so that nothing is owned.
fn look(name: &'static str, value: u64) -> Row {
    row(name, if name == "bpf_rbtree_first" { "6.14" } else { "7.3" })
        .takes(|b| {
            three(b);
            lock(b);
            b.held(Reg::R1, ROOT);
        })
        .nullable()
        .then(|b| leave_value(b, GOT))
        .finally(unlock)
        .leaves("its value", 0, move || Some(value))
        .wrong("misuse-without-the-lock", move |b| {
            b.held(Reg::R1, ROOT);
            b.kfunc(name);
        })
        .wrong("misuse-after-the-lock", move |b| {
            three(b);
            lock(b);
            b.held(Reg::R1, ROOT);
            b.kfunc(name);
            b.mov_reg(GOT, Reg::R0);
            unlock(b);
            b.jeq_imm(GOT, 0, "pass");
            leave_value(b, GOT);
        })
}

/// What shows the node to one side of the root.
fn side(name: &'static str, value: u64) -> Row {
    row(name, "7.3")
        .takes(|b| {
            three(b);
            node_of(b, "bpf_rbtree_root");
            b.held(Reg::R1, ROOT);
            b.mov_reg(Reg::R2, KEPT);
        })
        .nullable()
        .then(|b| leave_value(b, GOT))
        .finally(unlock)
        .leaves("its value", 0, move || Some(value))
        .not_null(Reg::R2)
        .wrong("misuse-without-the-lock", move |b| {
            b.held(Reg::R1, ROOT);
            b.mov_imm(Reg::R2, 0);
            b.kfunc(name);
        })
}
