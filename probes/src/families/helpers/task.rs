//! The running task as a whole: its registers, memory areas and cgroup, and structures printed by their types.

use super::bench::{Bench, argument, keep, page, preset, slot, stack, text};
use super::call::Arg::{Argument, Number, Page, Stack, Task};
use super::placement::settle;
use super::{Row, canonical, case, misuse, sleepable, slow_misuse};
use crate::asm::Asm;
use crate::bpf::{self, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_CGROUP_ARRAY, MapSpec};
use crate::btf::Kind;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::session::Ended;
use crate::spec::{Source, source};
use std::fs::{self, File};
use std::os::fd::AsRawFd;

pub(super) const TRACING: Source = source("6.0", "kernel/trace/bpf_trace.c", "bpf_tracing_func_proto");
const BASE: Source = source("6.12", "kernel/bpf/helpers.c", "bpf_base_func_proto");

pub(super) const ROWS: &[Row] = &[
    Row {
        helper: helper::TASK_PT_REGS,
        asks: "give the registers with which user space made its system call",
        sources: &[TRACING, source("6.0", "kernel/trace/bpf_trace.c", "bpf_task_pt_regs")],
        cases: &[
            canonical(registers),
            sleepable(registers),
            misuse("misuse-number-for-task", |bench| number_for(bench, Reg::R1)),
            misuse("misuse-file-for-task", |bench| bench.call(&[Argument(0)])),
        ],
    },
    Row {
        helper: helper::FIND_VMA,
        asks: "call back with the memory area of an address, and answer ENOENT for an address outside of any",
        sources: &[TRACING, source("6.0", "kernel/bpf/task_iter.c", "bpf_find_vma")],
        cases: &[
            canonical(|bench| find_vma(bench, 0, 0)),
            case("flags-that-there-are-not", |bench| find_vma(bench, 0, 1)),
            misuse("misuse-callback-returns-2", |bench| find_vma(bench, 2, 0)),
            misuse("misuse-number-for-task", |bench| bench.call(&[Number(4096), Number(0)])),
            misuse("misuse-number-for-callback", |bench| {
                bench.call(&[Task, Number(0), Number(0), Page, Number(0)])
            }),
        ],
    },
    Row {
        helper: helper::CURRENT_TASK_UNDER_CGROUP,
        asks: "tell whether the task is below a cgroup of a map",
        sources: &[TRACING, source("6.0", "kernel/trace/bpf_trace.c", "bpf_current_task_under_cgroup")],
        cases: &[
            canonical(under_cgroup),
            sleepable(under_cgroup),
            misuse("misuse-number-for-map", |bench| bench.call(&[Number(0), Number(0)])),
            misuse("misuse-map-of-another-type", |bench| {
                let helper = bench.helper();
                let map = bench.attempt.map(&MapSpec::new(BPF_MAP_TYPE_ARRAY, 4, 4, 1))?;
                bench.load(|asm| {
                    asm.ld_map_fd(Reg::R1, &map).mov_imm(Reg::R2, 0).call(helper);
                })
            }),
        ],
    },
    Row {
        helper: helper::SNPRINTF_BTF,
        asks: "print a value by its type in the kernel's BTF",
        sources: &[TRACING, source("6.0", "kernel/trace/bpf_trace.c", "bpf_snprintf_btf")],
        cases: &[
            canonical(|bench| print(bench, 16, 0)),
            case("size-of-the-description-wrong", |bench| print(bench, 8, 0)),
            case("flags-that-there-are-not", |bench| print(bench, 16, 1 << 20)),
            misuse("misuse-size-beyond-the-stack", |bench| {
                bench.call(&[Stack(16), Number(64), Stack(16), Number(16), Number(0)])
            }),
            misuse("misuse-number-for-destination", |bench| number_for(bench, Reg::R1)),
        ],
    },
    Row {
        helper: helper::COPY_FROM_USER_TASK,
        asks: "copy memory of a task's user space, in programs that may sleep",
        sources: &[TRACING, source("6.0", "kernel/bpf/helpers.c", "bpf_copy_from_user_task")],
        cases: &[
            canonical(copy),
            sleepable(copy),
            super::Case {
                name: "flags-that-there-are-not",
                ..sleepable(|bench| bench.answer(&[Page, Number(8), Number(8), Task, Number(1)]))
            },
            slow_misuse("misuse-number-for-task", |bench| number_for(bench, Reg::R4)),
            slow_misuse("misuse-size-beyond-the-stack", |bench| {
                bench.call(&[Stack(8), Number(16), Number(8), Task, Number(0)])
            }),
        ],
    },
    Row {
        helper: helper::PER_CPU_PTR,
        asks: "give a processor's own copy of a variable of the kernel, and null for a processor that there is not",
        sources: &[BASE, source("6.0", "kernel/bpf/helpers.c", "bpf_per_cpu_ptr")],
        cases: &[
            canonical(of_processor),
            sleepable(of_processor),
            misuse("misuse-without-null-check", |bench| {
                let (helper, (queue, cpu)) = (bench.helper(), run_queues(bench)?);
                bench.load(|asm| {
                    asm.ld_btf_id(Reg::R1, queue, 0).mov_imm(Reg::R2, 0).call(helper);
                    asm.ldx(Size::W, Reg::R1, Reg::R0, cpu);
                })
            }),
            misuse("misuse-number-for-variable", |bench| number_for(bench, Reg::R1)),
        ],
    },
    Row {
        helper: helper::THIS_CPU_PTR,
        asks: "give the running processor's own copy of a variable of the kernel, never null",
        sources: &[BASE, source("6.0", "kernel/bpf/helpers.c", "bpf_this_cpu_ptr")],
        cases: &[
            canonical(of_this_processor),
            sleepable(of_this_processor),
            misuse("misuse-number-for-variable", |bench| number_for(bench, Reg::R1)),
            misuse("misuse-memory-for-variable", |bench| bench.call(&[Page])),
        ],
    },
    Row {
        helper: helper::GET_BRANCH_SNAPSHOT,
        asks: "give what the processor noted of its last branches, or an errno where it notes none",
        sources: &[TRACING, source("6.0", "kernel/trace/bpf_trace.c", "bpf_get_branch_snapshot")],
        cases: &[
            canonical(|bench| branches(bench, 0)),
            case("flags-that-there-are-not", |bench| branches(bench, 1)),
            misuse("misuse-size-beyond-the-stack", |bench| bench.call(&[Stack(24), Number(48), Number(0)])),
            misuse("misuse-number-for-destination", |bench| number_for(bench, Reg::R1)),
        ],
    },
];

/// A slot far enough from the others for a buffer.
pub(super) const BUFFER: i32 = 32;
/// Its size in bytes.
pub(super) const BUFFER_BYTES: i32 = 1024;

/// Loads a call with everything in order but a number in place of one pointer. Every helper here that takes a buffer
/// takes it first or, after the task, second; what else they take are numbers.
pub(super) fn number_for(bench: &mut Bench<'_, '_>, reg: Reg) -> Result<(), Ended> {
    let helper = bench.helper();
    bench.load(|asm| {
        page(asm, Reg::R1, BUFFER);
        page(asm, Reg::R2, BUFFER);
        if helper != helper::GET_TASK_STACK {
            asm.mov_imm(Reg::R2, 16);
        }
        page(asm, Reg::R3, 1);
        asm.mov_imm(Reg::R4, 16).mov_imm(Reg::R5, 0).mov_imm(reg, 4096).call(helper);
    })
}

fn current(asm: &mut Asm) {
    asm.call(helper::GET_CURRENT_TASK_BTF).mov_reg(Reg::R8, Reg::R0);
}

/// The number of the system call is among them; that of the trigger is openat(2).
fn registers(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, number) = (bench.helper(), bench.offset("pt_regs", "orig_ax")?);
    let results = bench.open(|asm| {
        current(asm);
        asm.mov_reg(Reg::R1, Reg::R8).call(helper).ldx(Size::DW, Reg::R1, Reg::R0, number);
        keep(asm, 0, Reg::R1);
    })?;
    bench.attempt.same("the system call", results.get(slot(0)), libc::SYS_openat.cast_unsigned());
    Ok(())
}

/// Looks for the area of a variable of ours, and for that of an address that nobody has.
fn find_vma(bench: &mut Bench<'_, '_>, callback_returns: i32, flags: i32) -> Result<(), Ended> {
    let helper = bench.helper();
    let (start, end) =
        (bench.offset("vm_area_struct", "vm_start")?, bench.offset("vm_area_struct", "vm_end")?);
    // The page of results is mapped for itself, at an address that the program does not know.
    let given = Box::new([0_u8; 64]);
    let address = given.as_ptr().expose_provenance() as u64;
    let results = bench.open_with_callback(
        3,
        |asm| {
            for (index, address) in [(0, address), (3, 8)] {
                current(asm);
                asm.st_imm(Size::DW, Reg::R10, -16, 0).st_imm(Size::DW, Reg::R10, -8, 0);
                asm.mov_reg(Reg::R1, Reg::R8).ld_imm64(Reg::R2, address).ld_func(Reg::R3, "callback");
                stack(asm, Reg::R4, -16);
                asm.mov_imm(Reg::R5, flags).call(helper);
                keep(asm, index, Reg::R0);
                for (more, at) in [(1, -16), (2, -8)] {
                    asm.ldx(Size::DW, Reg::R1, Reg::R10, at);
                    keep(asm, index + more, Reg::R1);
                }
            }
        },
        |asm| {
            for (at, member) in [(0, start), (8, end)] {
                asm.ldx(Size::DW, Reg::R1, Reg::R2, member).stx(Size::DW, Reg::R3, at, Reg::R1);
            }
            asm.mov_imm(Reg::R0, callback_returns).exit();
        },
    )?;
    bench.returned("returned", results.get(slot(0)));
    if flags != 0 {
        return Ok(());
    }
    bench.attempt.same("the area", Some((results.get(slot(1)), results.get(slot(2)))), area_of(address));
    bench.returned("returned for an address outside of any", results.get(slot(3)));
    let called_back = match results.get(slot(5)) {
        0 => "no".to_owned(), // no area ends there
        end => format!("with an area that ends at {end}"),
    };
    bench.attempt.see("and called back", called_back);
    drop(given);
    Ok(())
}

/// The area of an address, as user space sees it.
fn area_of(address: u64) -> Option<(u64, u64)> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let area = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        (area.0..area.1).contains(&address).then_some(area)
    })
}

/// The root, below which every task is, and a new one, which has none.
fn under_cgroup(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    const NEW: &str = "/sys/fs/cgroup/nobody-in-it";
    let helper = bench.helper();
    let map = bench.attempt.map(&MapSpec::new(BPF_MAP_TYPE_CGROUP_ARRAY, 4, 4, 3))?;
    fs::create_dir_all(NEW).map_err(|error| Ended::could_not("make a cgroup", error))?;
    for (index, path) in [(0_u32, "/sys/fs/cgroup"), (1, NEW)] {
        let cgroup = File::open(path).map_err(|error| Ended::could_not("open a cgroup", error))?;
        bpf::map_update(&map, &index.to_ne_bytes(), &cgroup.as_raw_fd().to_ne_bytes(), bpf::BPF_ANY)
            .map_err(|errno| Ended::could_not("store a cgroup", errno))?;
    }
    let results = bench.open_or_execute(|asm| {
        for index in 0..4 {
            asm.ld_map_fd(Reg::R1, &map).mov_imm(Reg::R2, index).call(helper);
            keep(asm, index, Reg::R0);
        }
    })?;
    for (index, which) in (0..).zip(["the root", "an empty cgroup", "an empty place", "no place of the map"])
    {
        bench.returned(&format!("returned for {which}"), results.get(slot(index)));
    }
    drop(map);
    let _ = fs::remove_dir(NEW);
    Ok(())
}

/// Prints the flags with which the file is opened, an `unsigned int`, by a description of `size` bytes, of which 16
/// are right, with flags.
fn print(bench: &mut Bench<'_, '_>, size: i32, format: i32) -> Result<(), Ended> {
    let (helper, flags) = (bench.helper(), bench.offset("file", "f_flags")?);
    let number = bench.attempt.btf()?.find(Kind::Int, "unsigned int");
    let number = number.ok_or_else(|| Ended::Absent("type unsigned int".into()))?;
    let results = bench.open(|asm| {
        argument(asm, Reg::R1, 0);
        asm.ldx(Size::W, Reg::R2, Reg::R1, flags);
        keep(asm, 1, Reg::R2);
        asm.add_imm(Reg::R1, flags).stx(Size::DW, Reg::R10, -16, Reg::R1);
        asm.st_imm(Size::W, Reg::R10, -8, number).st_imm(Size::W, Reg::R10, -4, 0);
        page(asm, Reg::R1, BUFFER);
        stack(asm, Reg::R3, -16);
        asm.mov_imm(Reg::R2, 64).mov_imm(Reg::R4, size).mov_imm(Reg::R5, format).call(helper);
        keep(asm, 0, Reg::R0);
    })?;
    bench.returned("returned", results.get(slot(0)));
    if size == 16 && format == 0 {
        let printed = text(&results.bytes(slot(BUFFER), 64));
        bench.attempt.same("the text", printed, format!("(unsigned int){}\n", results.get(slot(1))));
    }
    Ok(())
}

/// Copies a word of this process.
fn copy(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    const WORD: u64 = 0x7788_99aa_bbcc_ddee;
    let helper = bench.helper();
    let word = Box::new(WORD);
    let address = std::ptr::from_ref(&*word).expose_provenance() as u64;
    let results = bench.open(|asm| {
        current(asm);
        page(asm, Reg::R1, 1);
        asm.mov_imm(Reg::R2, 8).ld_imm64(Reg::R3, address).mov_reg(Reg::R4, Reg::R8);
        asm.mov_imm(Reg::R5, 0).call(helper);
        keep(asm, 0, Reg::R0);
    })?;
    bench.returned("returned", results.get(slot(0)));
    bench.attempt.same("the word", results.get(slot(1)), *word);
    Ok(())
}

/// The variable `runqueues`, of which each processor has one, and where in it the processor's number stands.
fn run_queues(bench: &Bench<'_, '_>) -> Result<(u32, u32), Ended> {
    let btf = bench.attempt.btf()?;
    let variable = btf.find(Kind::Var, "runqueues").ok_or_else(|| {
        let any = (1..btf.next_id()).any(|id| btf.kind(id) == Some(Kind::Var));
        let what = if any { "variable runqueues" } else { "any variable in the kernel's BTF" };
        Ended::Absent(what.into())
    })?;
    Ok((variable, bench.offset("rq", "cpu")?))
}

fn of_processor(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, (queue, cpu)) = (bench.helper(), run_queues(bench)?);
    let results = bench.open(|asm| {
        preset(asm, 0);
        asm.ld_btf_id(Reg::R1, queue, 0).mov_imm(Reg::R2, 0).call(helper);
        asm.jeq_imm(Reg::R0, 0, "pass").ldx(Size::W, Reg::R1, Reg::R0, cpu);
        keep(asm, 0, Reg::R1);
        asm.ld_btf_id(Reg::R1, queue, 0).mov_imm(Reg::R2, 1 << 20).call(helper);
        asm.jne_imm(Reg::R0, 0, "pass").mov_imm(Reg::R1, 1);
        keep(asm, 1, Reg::R1);
    })?;
    bench.attempt.same("the number of the first processor", results.get(slot(0)), 0);
    bench.attempt.holds("null for a processor that there is not", results.get(slot(1)) == 1);
    Ok(())
}

fn of_this_processor(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, (queue, cpu)) = (bench.helper(), run_queues(bench)?);
    let user = settle(bench)?.0;
    let results = bench.open(|asm| {
        preset(asm, 0);
        asm.ld_btf_id(Reg::R1, queue, 0).call(helper).ldx(Size::W, Reg::R1, Reg::R0, cpu);
        keep(asm, 0, Reg::R1);
    })?;
    bench.attempt.same("the processor", results.get(slot(0)), user);
    Ok(())
}

fn branches(bench: &mut Bench<'_, '_>, flags: i32) -> Result<(), Ended> {
    let helper = bench.helper();
    let results = bench.open(|asm| {
        page(asm, Reg::R1, BUFFER);
        asm.mov_imm(Reg::R2, 240).mov_imm(Reg::R3, flags).call(helper);
        keep(asm, 0, Reg::R0);
    })?;
    bench.returned("returned", results.get(slot(0)));
    Ok(())
}
