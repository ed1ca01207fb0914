//! `mprotect(2)` denied on the heap.
//!
//! The example calls memory heap if its area lies between `start_brk` and `brk`. `brk` need not be the end of a page
//! and the area's end always is, so the probe first moves `brk` to where the example recognizes the heap.

use super::child::in_child;
use crate::asm::Asm;
use crate::aya_load::Global;
use crate::btf::Btf;
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, LsmProgram, PAGE, deny};
use crate::objects::layout::MprotectAudit;
use crate::objects::{MPROTECT_AUDIT, MPROTECT_AUDIT_CHECKED, Object};
use crate::results::FREE;
use crate::session::{Attempt, Ended, Session, Stop};
use std::fs;

const PAGE_SIZE: usize = 4096;
/// What the probe asks for.
const PROT: i32 = libc::PROT_READ;

pub(super) fn probe(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("as-written", |attempt| object(attempt, &MPROTECT_AUDIT))?;
    session.case("with-null-check", |attempt| object(attempt, &MPROTECT_AUDIT_CHECKED))?;
    session.case("as-compiled-from-c", |attempt| assembled(attempt, false))?;
    session.case("as-compiled-from-c-with-null-check", |attempt| assembled(attempt, true))
}

/// Where the fields of the example are in this kernel.
struct Offsets {
    vm_start: u32,
    vm_end: u32,
    vm_mm: u32,
    start_brk: u32,
    brk: u32,
}

impl Offsets {
    fn of(btf: &Btf) -> Result<Self, Ended> {
        let at = |record: &str, member: &str| {
            let found = btf.member(record, member).map_err(|error| Ended::Absent(error.to_string()))?;
            Ok(found.byte_offset)
        };
        Ok(Self {
            vm_start: at("vm_area_struct", "vm_start")?,
            vm_end: at("vm_area_struct", "vm_end")?,
            vm_mm: at("vm_area_struct", "vm_mm")?,
            start_brk: at("mm_struct", "start_brk")?,
            brk: at("mm_struct", "brk")?,
        })
    }
}

/// The example in Rust, loaded with aya.
fn object(attempt: &mut Attempt<'_>, object: &Object) -> Result<(), Ended> {
    let offsets = Offsets::of(attempt.btf()?)?;
    let memory = Memory::new()?;
    let object = attempt.attach_object(
        object,
        &[
            Global::target(),
            Global::u32("VMA_VM_START", offsets.vm_start),
            Global::u32("VMA_VM_END", offsets.vm_end),
            Global::u32("VMA_VM_MM", offsets.vm_mm),
            Global::u32("MM_START_BRK", offsets.start_brk),
            Global::u32("MM_BRK", offsets.brk),
        ],
    )?;
    ask(attempt, &memory)?;
    judge(attempt, &memory, &object.results()?)
}

/// The example as a C compiler would emit it.
fn assembled(attempt: &mut Attempt<'_>, checked: bool) -> Result<(), Ended> {
    let offsets = Offsets::of(attempt.btf()?)?;
    let memory = Memory::new()?;
    let mut results = attempt.results()?;
    let program = LsmProgram::framed("file_mprotect", &results, |asm| example(asm, &offsets, checked));
    let _attached = attempt.attach_lsm(&program)?;
    ask(attempt, &memory)?;
    let slot = |index: i32| results.get(FREE + 8 * index);
    let seen = MprotectAudit {
        runs: results.runs(),
        denials: slot(0),
        already_refused: slot(1),
        vm_start: slot(2),
        vm_end: slot(3),
        start_brk: slot(4),
        brk: slot(5),
        reqprot: slot(6),
        prot: slot(7),
    };
    results.name_nobody();
    judge(attempt, &memory, &seen)
}

/// The body of the example; the frame has asked whether the caller is the target.
fn example(asm: &mut Asm, at: &Offsets, checked: bool) {
    const VMA: Reg = Reg::R8;
    const MM: Reg = Reg::R9;
    asm.ldx(Size::DW, Reg::R0, CTX, 24).jne32_imm(Reg::R0, 0, "refused-before");
    asm.ldx(Size::DW, VMA, CTX, 0).ldx(Size::DW, Reg::R1, VMA, at.vm_start).ldx(Size::DW, MM, VMA, at.vm_mm);
    if checked {
        asm.jeq_imm(MM, 0, "pass");
    }
    asm.ldx(Size::DW, Reg::R2, MM, at.start_brk);
    asm.ldx(Size::DW, Reg::R3, VMA, at.vm_end).ldx(Size::DW, Reg::R4, MM, at.brk);
    for (index, value) in (2..).zip([Reg::R1, Reg::R3, Reg::R2, Reg::R4]) {
        asm.stx(Size::DW, PAGE, FREE + 8 * index, value);
    }
    for (index, argument) in [(6, 8), (7, 16)] {
        asm.ldx(Size::DW, Reg::R5, CTX, argument).stx(Size::DW, PAGE, FREE + 8 * index, Reg::R5);
    }
    asm.jgt_reg(Reg::R2, Reg::R1, "pass").jgt_reg(Reg::R3, Reg::R4, "pass");
    asm.mov_imm(Reg::R1, 1).atomic_add(Size::DW, PAGE, FREE, Reg::R1);
    asm.mov_imm(Reg::R0, deny(Errno::EPERM)).exit();
    asm.label("refused-before").mov_imm(Reg::R1, 1).atomic_add(Size::DW, PAGE, FREE + 8, Reg::R1).exit();
}

/// Asks for what the example must let pass, and last for what it must deny.
fn ask(attempt: &mut Attempt<'_>, memory: &Memory) -> Result<(), Ended> {
    let other = in_child(|| memory.heap()).map_err(|why| Ended::could_not("ask a child", why))?;
    let elsewhere = memory.mapping();
    let heap = attempt.trigger(|| memory.heap());
    attempt.denial("on the heap", &heap, Errno::EPERM);
    attempt.outcome("elsewhere", &elsewhere);
    attempt.outcome("on the heap of another process", &other);
    Ok(())
}

/// Compares what the program saw in its last run, that for the heap, with what user space knows of its heap.
fn judge(attempt: &mut Attempt<'_>, memory: &Memory, program: &MprotectAudit) -> Result<(), Ended> {
    attempt.runs(program.runs);
    attempt.see("denials", program.denials);
    attempt.see("already refused", program.already_refused);
    let (start, end) = area_of(memory.heap.addr() as u64)?;
    attempt.same("the area's start", program.vm_start, start);
    attempt.same("the area's end", program.vm_end, end);
    attempt.holds("the area starts at or after start_brk", program.start_brk <= program.vm_start);
    attempt.same("brk", program.brk, current_brk());
    let prot = u64::from(PROT.unsigned_abs());
    attempt.same("reqprot and prot", (program.reqprot, program.prot), (prot, prot));
    Ok(())
}

/// A page of the heap and one elsewhere.
struct Memory {
    heap: *mut libc::c_void,
    mapping: *mut libc::c_void,
}

impl Memory {
    /// Takes the pages and makes sure that nothing but the program under test refuses either of them.
    fn new() -> Result<Self, Ended> {
        let misaligned = usize::try_from(current_brk() % 4096).unwrap_or(0);
        // SAFETY: the break only grows; the allocator takes a break that was moved by others as it is.
        let heap = unsafe {
            libc::sbrk(isize::try_from((PAGE_SIZE - misaligned) % PAGE_SIZE).unwrap_or(0));
            libc::sbrk(PAGE_SIZE.cast_signed())
        };
        if heap.addr() == usize::MAX {
            return Err(Ended::could_not("grow the heap", Errno::last()));
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice.
        let mapping = unsafe { libc::mmap(std::ptr::null_mut(), PAGE_SIZE, access, flags, -1, 0) };
        if mapping == libc::MAP_FAILED {
            return Err(Ended::could_not("map a page", Errno::last()));
        }
        let memory = Self { heap, mapping };
        for page in [heap, mapping] {
            protect(page, PROT)
                .and_then(|()| protect(page, access))
                .map_err(|errno| Ended::could_not("protect a page without a program", errno))?;
        }
        Ok(memory)
    }

    fn heap(&self) -> Result<(), Errno> {
        protect(self.heap, PROT)
    }

    fn mapping(&self) -> Result<(), Errno> {
        protect(self.mapping, PROT)
    }
}

/// `mprotect(2)` on one page that nobody but this probe uses.
fn protect(page: *mut libc::c_void, access: i32) -> Result<(), Errno> {
    // SAFETY: the page was taken by `Memory::new`, holds nothing, and is never touched.
    Errno::result(unsafe { libc::mprotect(page, PAGE_SIZE, access) }).map(drop)
}

fn current_brk() -> u64 {
    // SAFETY: an increment of 0 changes nothing.
    unsafe { libc::sbrk(0) }.addr() as u64
}

/// The area that holds `address`, as `/proc/self/maps` shows it.
fn area_of(address: u64) -> Result<(u64, u64), Ended> {
    let path = "/proc/self/maps";
    let maps = fs::read_to_string(path).map_err(|error| Ended::could_not("read the list of areas", error))?;
    let range = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
    };
    maps.lines()
        .filter_map(range)
        .find(|&(start, end)| (start..end).contains(&address))
        .ok_or_else(|| Ended::could_not("find the heap", "no line of /proc/self/maps holds it"))
}
