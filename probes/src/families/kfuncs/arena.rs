//! Kfuncs about arenas (6.9): memory that programs and user space share at the same addresses.

use super::body::{Body, OUT, RESULT};
use super::own::{ARENA_PAGES, Holds, TOUCHED, WRITTEN};
use super::row::{KEPT, Row, kfunc};
use crate::insn::{Insn, Reg, Size, op};
use crate::lsm::PAGE;
use crate::results::Results;
use crate::rules::until;
use crate::session::Attempt;
use crate::spec::source;

const ARENA: &str = "kernel/bpf/arena.c";
/// `BPF_ADDR_SPACE_CAST` (include/uapi/linux/bpf.h), an offset of a move between registers.
const CAST: i16 = 1;
/// From the address that user space has to the kernel's.
const TO_KERNEL: i32 = 1;

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    vec![alloc(), free(), reserve()]
}

/// A kfunc about an arena. Up to 6.19 only a program that may sleep could call it.
fn row(name: &'static str) -> Row {
    kfunc(name, "7.3", ARENA).both().holds(Holds::Arena).cites(source(
        "7.1",
        "kernel/bpf/arena.c",
        "arena_alloc_pages",
    ))
}

/// Arena, no address in particular, one page, any node, no flags.
fn alloc_arguments(b: &mut Body<'_>) {
    b.held_map(Reg::R1);
    b.mov_imm(Reg::R2, 0).mov_imm(Reg::R3, 1).mov_imm(Reg::R4, -1).mov_imm(Reg::R5, 0);
}

/// Leaves the address in user space of a page, which is in `reg`. `R1 = the address that programs have`.
fn reach(b: &mut Body<'_>, reg: Reg) {
    b.leave(0, reg);
    b.raw(Insn::new(op::ALU64 | op::MOV | op::X, Reg::R1.number(), reg.number(), CAST, TO_KERNEL));
}

/// Writes to the page whose address in user space is in `reg`, and leaves that address.
fn write(b: &mut Body<'_>, reg: Reg) {
    reach(b, reg);
    b.st_imm(Size::DW, Reg::R1, 0, 4711);
}

/// What user space finds where the program left the address of a page.
fn found(results: &Results) -> Option<u64> {
    let address = usize::try_from(results.get(OUT)).ok().filter(|&address| address != 0)?;
    // SAFETY: the kernel gave this address of the arena, which is mapped for as long as the program is loaded; a page
    // that is not there is made.
    Some(unsafe { std::ptr::with_exposed_provenance::<u64>(address).read_volatile() })
}

/// Any map is a map to the verifier, and the kfunc itself looks of which kind it is. A number is none.
fn of_maps(row: Row) -> Row {
    row.spoilt("misuse-number-for-map", |b| {
        b.ldx(Size::DW, Reg::R1, PAGE, OUT);
    })
}

fn alloc() -> Row {
    let row = row("bpf_arena_alloc_pages")
        .takes(alloc_arguments)
        .then(|b| {
            // Of a pointer without a type the frame of every row keeps nothing.
            b.stx(Size::DW, PAGE, RESULT, Reg::R0);
            b.mov_reg(KEPT, Reg::R0).jeq_imm(KEPT, 0, "pass");
            write(b, KEPT);
        })
        .checks(|attempt, results| {
            attempt.same("what user space finds at the address", found(results), Some(WRITTEN));
        })
        .also("more-than-there-is", 0, |b| {
            b.mov_imm(Reg::R3, i64::from(ARENA_PAGES) + 1);
        })
        .spoilt("another-map", |b| b.results_map(Reg::R1));
    of_maps(row)
}

/// Waits until user space gets a new page, which is empty.
fn is_gone(attempt: &mut Attempt<'_>, results: &Results) {
    until(|| found(results) != Some(WRITTEN));
    attempt.same("what user space finds at the address", found(results), Some(0));
}

/// A page that user space has made is there no more. A program that may not sleep leaves the work to another task.
fn free() -> Row {
    let of_its_own = row("bpf_arena_free_pages")
        .takes(|b| {
            alloc_arguments(b);
            b.kfunc("bpf_arena_alloc_pages");
            b.mov_reg(KEPT, Reg::R0).jeq_imm(KEPT, 0, "pass");
            write(b, KEPT);
            b.held_map(Reg::R1);
            b.mov_reg(Reg::R2, KEPT).mov_imm(Reg::R3, 1);
        })
        .checks(is_gone);
    let row = row("bpf_arena_free_pages")
        .takes(|b| {
            b.held_page(KEPT, TOUCHED);
            reach(b, KEPT);
            b.ldx(Size::DW, Reg::R1, Reg::R1, 0);
            b.leave(1, Reg::R1);
            b.held_map(Reg::R1);
            b.mov_reg(Reg::R2, KEPT).mov_imm(Reg::R3, 1);
        })
        .leaves("what the program finds there", 1, || Some(WRITTEN))
        .checks(is_gone)
        .other("canonical-of-a-page-of-its-own", of_its_own);
    of_maps(row)
}

/// A page that is reserved is given to nobody: a second time it cannot be had.
fn reserve() -> Row {
    fn arguments(b: &mut Body<'_>) {
        b.held_map(Reg::R1);
        b.held_page(Reg::R2, 1);
        b.mov_imm(Reg::R3, 1);
    }
    let row = row("bpf_arena_reserve_pages").takes(arguments).gives(0).also(
        "twice",
        -i64::from(libc::EBUSY),
        |b| {
            b.kfunc("bpf_arena_reserve_pages");
            arguments(b);
        },
    );
    of_maps(row)
}
