//! Kfuncs about objects of the program's own types. Since 7.1 each exists twice: `.._impl`, whose second argument
//! the program passes and the verifier replaces, and one whose second argument the program does not see.

use super::body::{Body, OUT};
use super::own::{ELEMENTS, Holds, Value, opaque};
use super::row::{GOT, KEPT, Row, kfunc};
use crate::btf_build::UNSIGNED;
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::spec::source;

const HELPERS: &str = "kernel/bpf/helpers.c";

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    vec![
        new("bpf_obj_new_impl", "bpf_obj_drop_impl", "6.12"),
        new("bpf_obj_new", "bpf_obj_drop", "7.2"),
        drop("bpf_obj_new_impl", "bpf_obj_drop_impl", "6.12"),
        drop("bpf_obj_new", "bpf_obj_drop", "7.2"),
        percpu_new("bpf_percpu_obj_new_impl", "bpf_percpu_obj_drop_impl", "6.12"),
        percpu_new("bpf_percpu_obj_new", "bpf_percpu_obj_drop", "7.2"),
        percpu_drop("bpf_percpu_obj_new_impl", "bpf_percpu_obj_drop_impl", "6.14"),
        percpu_drop("bpf_percpu_obj_new", "bpf_percpu_obj_drop", "7.3"),
        refcount_acquire("bpf_refcount_acquire_impl", "bpf_obj_new_impl", "bpf_obj_drop_impl", "6.12"),
        refcount_of_a_plain_object(),
        refcount_acquire("bpf_refcount_acquire", "bpf_obj_new", "bpf_obj_drop", "7.2"),
        throw(),
        sum_elem_count(),
    ]
}

/// `struct item { u64 value; u64 more; }`.
fn item(b: &mut Body<'_>) -> u32 {
    let types = b.types();
    let word = types.int("word", 8, UNSIGNED);
    types.structure("item", 16, &[("value", word, 0), ("more", word, 8)])
}

/// An object that counts its references and can be an element of a list, without which the former is refused
/// (6.12 kernel/bpf/btf.c, btf_parse_fields).
fn counted(b: &mut Body<'_>) -> u32 {
    let (word, node, behind) = value_and_node(b);
    let types = b.types();
    let half = types.int("half", 4, UNSIGNED);
    let one = types.array(half, half, 1);
    let refcount = types.structure("bpf_refcount", 4, &[("__opaque", one, 0)]);
    types.structure(
        "counted",
        behind + 8,
        &[("value", word, 0), ("node", node, 8), ("ref", refcount, behind)],
    )
}

/// An object that can be an element of a list and does not count its references.
fn uncounted(b: &mut Body<'_>) -> u32 {
    let (word, node, behind) = value_and_node(b);
    b.types().structure("uncounted", behind, &[("value", word, 0), ("node", node, 8)])
}

/// The types of a word and of a list's node, which kernels know by name and size, and where an object goes on that has one
/// of each.
fn value_and_node(b: &mut Body<'_>) -> (u32, u32, u32) {
    let words = b.list_node_words();
    let types = b.types();
    let (word, half) = (types.int("word", 8, UNSIGNED), types.int("half", 4, UNSIGNED));
    let node = opaque(types, (word, half), "bpf_list_node", words);
    (word, node, 8 + 8 * words)
}

/// An object without any field that the kernel knows has no record of such fields at all, which the verifier did not
/// expect: it calls itself faulty, and warns.
fn refcount_of_a_plain_object() -> Row {
    refcount_acquire("bpf_refcount_acquire_impl", "bpf_obj_new_impl", "bpf_obj_drop_impl", "6.12")
        .variant("-of-a-plain-object")
        .own_machine()
        .only_misuses()
        .wrong("misuse-object-without-special-fields", |b| {
            let item = item(b);
            acquire_another(b, item, "bpf_refcount_acquire_impl", "bpf_obj_new_impl", "bpf_obj_drop_impl");
        })
        .cites(source("7.3", "kernel/bpf/verifier.c", "check_kfunc_args"))
}

/// A new object of this type, and a second reference to it, of which one is given back.
fn acquire_another(b: &mut Body<'_>, local: u32, acquire: &str, new: &str, drop: &str) {
    type_argument(b, local);
    b.kfunc(new);
    b.jeq_imm(Reg::R0, 0, "pass").mov_reg(GOT, Reg::R0).mov_reg(Reg::R1, GOT).mov_imm(Reg::R2, 0);
    b.kfunc(acquire);
    b.release(drop, GOT);
}

fn type_argument(b: &mut Body<'_>, local: u32) {
    b.mov_imm(Reg::R1, local).mov_imm(Reg::R2, 0);
}

fn new(name: &'static str, drop: &'static str, version: &'static str) -> Row {
    kfunc(name, version, HELPERS)
        .takes(|b| {
            let item = item(b);
            type_argument(b, item);
        })
        .owned(drop)
        .then(|b| {
            b.mov_imm(Reg::R1, 4711).stx(Size::DW, GOT, 8, Reg::R1).ldx(Size::DW, Reg::R2, GOT, 8);
            b.leave(0, Reg::R2);
        })
        .leaves("value", 0, || Some(4711))
        .spoilt("misuse-type-not-constant", |b| b.input(Reg::R1, 0))
        .spoilt("misuse-no-such-type", |b| {
            b.mov_imm(Reg::R1, 999);
        })
        .spoilt("misuse-type-not-a-struct", |b| {
            b.mov_imm(Reg::R1, 1);
        })
        .wrong("misuse-without-types-of-its-own", move |b| {
            type_argument(b, 1);
            b.kfunc(name);
        })
        .wrong("misuse-beyond-its-size", move |b| {
            let item = item(b);
            type_argument(b, item);
            b.kfunc(name);
            b.jeq_imm(Reg::R0, 0, "pass").mov_reg(GOT, Reg::R0).st_imm(Size::DW, GOT, 16, 1);
            b.release(drop, GOT);
        })
        .cites(source("6.12", "kernel/bpf/verifier.c", "check_kfunc_call"))
        .cites(source("7.3", "kernel/bpf/verifier.c", "check_special_kfunc"))
}

/// Calls what gives back an object with a task that the program has acquired, so that nothing but its type is wrong.
fn of_a_kernel_object(b: &mut Body<'_>, drop: &str) {
    b.current(Reg::R1);
    b.acquire_task();
    b.mov_reg(Reg::R1, Reg::R0).mov_imm(Reg::R2, 0);
    b.kfunc(drop);
}

/// Leaves how often the object in [`KEPT`] is held, of the type [`counted`]. Programs may not load the field (6.6
/// kernel/bpf/btf.c, `btf_struct_access`); what they may read of the kernel is more.
fn leave_holders(b: &mut Body<'_>, slot: i32) {
    let behind = 8 + 8 * b.list_node_words();
    b.page_address(Reg::R1, OUT + 8 * slot);
    b.mov_imm(Reg::R2, 4).mov_reg(Reg::R3, KEPT).add_imm(Reg::R3, behind).call(helper::PROBE_READ_KERNEL);
}

/// Of an object that is held twice one reference is given back.
fn drop_one_of_two(new: &'static str, name: &'static str, version: &'static str) -> Row {
    let acquire = if new.ends_with("_impl") { "bpf_refcount_acquire_impl" } else { "bpf_refcount_acquire" };
    kfunc(name, version, HELPERS)
        .takes(move |b| {
            let counted = counted(b);
            type_argument(b, counted);
            b.kfunc(new);
            b.jeq_imm(Reg::R0, 0, "pass").mov_reg(KEPT, Reg::R0);
            b.mov_reg(Reg::R1, KEPT).mov_imm(Reg::R2, 0);
            b.kfunc(acquire);
            b.mov_reg(GOT, Reg::R0);
            leave_holders(b, 0);
            b.mov_reg(Reg::R1, GOT).mov_imm(Reg::R2, 0);
        })
        .then(|b| leave_holders(b, 1))
        .finally(move |b| b.release(name, KEPT))
        .leaves("holders before", 0, || Some(2))
        .leaves("holders afterwards", 1, || Some(1))
}

/// That the memory is free again is nothing that a program sees. Of an object that counts who holds it the count is.
fn drop(new: &'static str, name: &'static str, version: &'static str) -> Row {
    kfunc(name, version, HELPERS)
        .releases()
        .other("canonical-of-an-object-held-twice", drop_one_of_two(new, name, version))
        .takes(move |b| {
            let item = item(b);
            type_argument(b, item);
            b.kfunc(new);
            b.jeq_imm(Reg::R0, 0, "pass").mov_reg(Reg::R1, Reg::R0).mov_imm(Reg::R2, 0);
        })
        .effect_not_looked_at()
        .wrong("misuse-of-a-kernel-object", move |b| of_a_kernel_object(b, name))
        .wrong("misuse-of-map-memory", move |b| {
            b.page_address(Reg::R1, OUT);
            b.mov_imm(Reg::R2, 0);
            b.kfunc(name);
        })
}

/// `R1 = item`, of a program that holds a map.
fn held_item(b: &mut Body<'_>) {
    let item = b.own_type("item");
    type_argument(b, item);
}

/// Puts the object in [`GOT`] into the map, takes it out again and gives it back, and leaves what the copy of this CPU
/// held meanwhile.
fn through_the_map(b: &mut Body<'_>, drop: &str) {
    let (empty, full, out) = (b.fresh("empty"), b.fresh("full"), b.fresh("out"));
    b.held(Reg::R1, 0);
    b.mov_reg(Reg::R2, GOT).call(helper::KPTR_XCHG).jeq_imm(Reg::R0, 0, &empty);
    b.release(drop, Reg::R0);
    b.label(&empty);
    b.held(Reg::R1, 0);
    b.ldx(Size::DW, Reg::R1, Reg::R1, 0).jne_imm(Reg::R1, 0, &full).ja("pass").label(&full);
    b.call(helper::THIS_CPU_PTR).mov_imm(Reg::R1, 4711).stx(Size::DW, Reg::R0, 8, Reg::R1);
    b.held(Reg::R1, 0);
    b.ldx(Size::DW, Reg::R1, Reg::R1, 0).jne_imm(Reg::R1, 0, &out).ja("pass").label(&out);
    b.call(helper::THIS_CPU_PTR).ldx(Size::DW, Reg::R1, Reg::R0, 8);
    b.leave(0, Reg::R1);
    b.held(Reg::R1, 0);
    b.mov_imm(Reg::R2, 0).call(helper::KPTR_XCHG).jeq_imm(Reg::R0, 0, "pass").mov_reg(GOT, Reg::R0);
}

/// In a program that may sleep: the object is given back without having been in a map.
fn percpu_new_sleepable(name: &'static str, drop: &'static str, version: &'static str) -> Row {
    kfunc(name, version, HELPERS)
        .both()
        .takes(|b| {
            let item = item(b);
            type_argument(b, item);
        })
        .owned(drop)
}

/// The copy of each CPU can be reached once the object is in a map (percpu_btf_ptr_types), and then only in an RCU section,
/// which is a rule of `bpf_this_cpu_ptr`. The kfunc has none, which a program shows that may sleep and reaches nothing.
fn percpu_new(name: &'static str, drop: &'static str, version: &'static str) -> Row {
    kfunc(name, version, HELPERS)
        .holds(Holds::Value(Value::PerCpu))
        .takes(held_item)
        .owned(drop)
        .then(move |b| through_the_map(b, drop))
        .never_sleeps()
        .leaves("value, through the map", 0, || Some(4711))
        .other("canonical-sleepable", percpu_new_sleepable(name, drop, version))
        .wrong("misuse-reached-before-it-is-in-a-map", move |b| {
            held_item(b);
            b.kfunc(name);
            b.jeq_imm(Reg::R0, 0, "pass").mov_reg(GOT, Reg::R0).mov_reg(Reg::R1, GOT);
            b.call(helper::THIS_CPU_PTR);
            b.release(drop, GOT);
        })
        .spoilt("misuse-type-with-special-fields", |b| {
            let node = b.own_type("node");
            b.mov_imm(Reg::R1, node);
        })
}

fn percpu_drop(new: &'static str, name: &'static str, version: &'static str) -> Row {
    kfunc(name, version, HELPERS)
        .releases()
        .holds(Holds::Value(Value::PerCpu))
        .takes(move |b| {
            held_item(b);
            b.kfunc(new);
            b.jeq_imm(Reg::R0, 0, "pass").mov_reg(Reg::R1, Reg::R0).mov_imm(Reg::R2, 0);
        })
        .effect_not_looked_at()
        .wrong("misuse-of-an-object-that-is-not-per-cpu", move |b| {
            held_item(b);
            b.kfunc(if new.ends_with("_impl") { "bpf_obj_new_impl" } else { "bpf_obj_new" });
            b.jeq_imm(Reg::R0, 0, "pass").mov_reg(Reg::R1, Reg::R0).mov_imm(Reg::R2, 0);
            b.kfunc(name);
        })
        .wrong("misuse-of-a-kernel-object", move |b| of_a_kernel_object(b, name))
}

fn refcount_acquire(name: &'static str, new: &'static str, drop: &'static str, version: &'static str) -> Row {
    let row = kfunc(name, version, HELPERS)
        .takes(move |b| {
            let counted = counted(b);
            type_argument(b, counted);
            b.kfunc(new);
            b.jeq_imm(Reg::R0, 0, "pass").mov_reg(KEPT, Reg::R0);
            b.st_imm(Size::DW, Reg::R0, 0, 4711).mov_reg(Reg::R1, Reg::R0).mov_imm(Reg::R2, 0);
        })
        .owned_never_null(drop) // KF_RET_NULL does not count for an object that the program owns (is_kfunc_ret_null)
        .then(|b| {
            b.ldx(Size::DW, Reg::R1, GOT, 0);
            b.leave(0, Reg::R1);
        })
        .finally(move |b| b.release(drop, KEPT))
        .leaves("value, through the second reference", 0, || Some(4711));
    row.wrong("misuse-object-without-a-count", move |b| {
        let uncounted = uncounted(b);
        acquire_another(b, uncounted, name, new, drop);
    })
}

/// What is thrown is what the hook returns, so that user space sees it as an errno.
fn throw() -> Row {
    kfunc("bpf_throw", "6.12", HELPERS)
        .takes(|b| {
            b.mov_imm(Reg::R1, -libc::EXDEV);
        })
        .never_returns(Errno::from_raw(libc::EXDEV))
        .spoilt("misuse-verdict-out-of-range", |b| {
            b.mov_imm(Reg::R1, 1);
        })
        .wrong("misuse-with-a-reference", |b| {
            b.current(Reg::R1);
            b.acquire_task();
            b.mov_reg(GOT, Reg::R0).mov_imm(Reg::R1, 0);
            b.kfunc("bpf_throw");
            b.release("bpf_task_release", GOT);
        })
}

/// Hash maps count their elements, of which there are two; arrays do not: 0.
fn sum_elem_count() -> Row {
    let row = || kfunc("bpf_map_sum_elem_count", "6.12", "kernel/bpf/map_iter.c");
    row()
        .holds(Holds::Table)
        .takes(|b| b.held_map(Reg::R1))
        .gives(i64::from(ELEMENTS))
        .other("canonical-of-an-array", row().takes(|b| b.results_map(Reg::R1)).gives(0))
        .not_null(Reg::R1)
        .cites(source("6.12", "kernel/bpf/hashtab.c", "htab_map_alloc"))
}
