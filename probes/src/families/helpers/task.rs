//! The running task as a whole: its registers, stacks, memory areas and cgroup, and structures printed by their types.

use super::bench::{Bench, argument, keep, open_file, page, slot, stack, text};
use super::call::Arg::{Argument, Context, Hash, Number, Page, Stack, Task};
use super::{Row, canonical, case, misuse, sleepable, slow_misuse};
use crate::asm::Asm;
use crate::bpf::{self, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_CGROUP_ARRAY, BPF_MAP_TYPE_STACK_TRACE, MapSpec};
use crate::btf::Kind;
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::CTX;
use crate::results::Results;
use crate::session::Ended;
use crate::spec::{Source, source};
use crate::triggers::Arm;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;

const TRACING: Source = source("6.0", "kernel/trace/bpf_trace.c", "bpf_tracing_func_proto");
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
        helper: helper::GET_TASK_STACK,
        asks: "give the kernel's stack with the functions that led to the hook",
        sources: &[TRACING, source("6.0", "kernel/bpf/stackmap.c", "__bpf_get_stack")],
        cases: &[
            canonical(|bench| kernel_stack(bench, Whose::Task)),
            case("flags-that-there-are-not", |bench| stack_flags(bench, Whose::Task)),
            misuse("misuse-number-for-task", |bench| number_for(bench, Reg::R1)),
            misuse("misuse-size-beyond-the-value", |bench| beyond_the_value(bench, Whose::Task)),
        ],
    },
    Row {
        helper: helper::GET_STACK,
        asks: "give the kernel's stack with the functions that led to the hook",
        sources: &[
            source("6.0", "kernel/trace/bpf_trace.c", "tracing_prog_func_proto"),
            source("6.0", "kernel/bpf/stackmap.c", "__bpf_get_stack"),
        ],
        cases: &[
            canonical(|bench| kernel_stack(bench, Whose::Context)),
            case("flags-that-there-are-not", |bench| stack_flags(bench, Whose::Context)),
            misuse("misuse-number-for-context", |bench| {
                bench.call(&[Number(4096), Page, Number(16), Number(0)])
            }),
            misuse("misuse-size-beyond-the-value", |bench| beyond_the_value(bench, Whose::Context)),
        ],
    },
    Row {
        helper: helper::GET_STACKID,
        asks: "give the number under which user space finds the stack in a map",
        sources: &[
            source("6.0", "kernel/trace/bpf_trace.c", "tracing_prog_func_proto"),
            source("6.0", "kernel/bpf/stackmap.c", "bpf_get_stackid"),
        ],
        cases: &[
            canonical(stack_id),
            misuse("misuse-number-for-context", |bench| bench.call(&[Number(4096), Hash, Number(0)])),
            misuse("misuse-number-for-map", |bench| bench.call(&[Context, Number(0), Number(0)])),
            misuse("misuse-map-of-another-type", |bench| {
                let helper = bench.helper();
                let map = bench.attempt.map(&MapSpec::new(BPF_MAP_TYPE_ARRAY, 4, 8, 2))?;
                bench.load(|asm| {
                    asm.mov_reg(Reg::R1, CTX).ld_map_fd(Reg::R2, &map).mov_imm(Reg::R3, 0).call(helper);
                })
            }),
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
            canonical(|bench| print(bench, 16)),
            case("size-of-the-description-wrong", |bench| print(bench, 8)),
            case("flags-that-there-are-not", |bench| {
                bench.answer(&[Page, Number(64), Stack(16), Number(16), Number(1 << 20)])
            }),
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
const BUFFER: i32 = 32;
/// Its size in bytes.
const BUFFER_BYTES: i32 = 1024;

/// Loads a call with everything in order but a number in place of one pointer. Every helper here that takes a buffer
/// takes it first or, after the task, second; what else they take are numbers.
fn number_for(bench: &mut Bench<'_, '_>, reg: Reg) -> Result<(), Ended> {
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

/// Whose stack is asked for, and how.
#[derive(Clone, Copy)]
enum Whose {
    /// That of the task which is the hook's first argument, here the calling one.
    Task,
    /// That which the program runs on, by its context.
    Context,
}

impl Whose {
    /// The hook, and functions that are on the way to it in every kernel of the suite.
    const fn hook(self) -> (&'static str, [&'static str; 2]) {
        match self {
            Self::Task => ("task_getscheduler", [SYSTEM_CALL, "security_task_getscheduler"]),
            Self::Context => ("file_open", ["path_openat", "__x64_sys_openat"]),
        }
    }

    fn act(self, arm: Arm) -> Result<(), Errno> {
        match self {
            // SAFETY: takes a number; 0 is the caller.
            Self::Task => arm.during(|| Errno::result(unsafe { libc::sched_getscheduler(0) })).map(drop),
            Self::Context => open_file(arm).map(drop),
        }
    }
}

/// Calls for a stack into the buffer.
fn call_for_stack(asm: &mut Asm, helper: u32, whose: Whose, size: i32, flags: i32) {
    match whose {
        Whose::Task => argument(asm, Reg::R1, 0),
        Whose::Context => drop(asm.mov_reg(Reg::R1, CTX)),
    }
    page(asm, Reg::R2, BUFFER);
    asm.mov_imm(Reg::R3, size).mov_imm(Reg::R4, flags).call(helper);
    keep(asm, 0, Reg::R0);
}

/// Runs a program that calls for a stack.
fn ask_for_stack(bench: &mut Bench<'_, '_>, whose: Whose, flags: i32) -> Result<Results, Ended> {
    let helper = bench.helper();
    let (results, done) = bench.run(
        whose.hook().0,
        |arm| whose.act(arm),
        |asm| call_for_stack(asm, helper, whose, BUFFER_BYTES, flags),
    )?;
    done.map_err(|errno| Ended::could_not("do the trigger", errno))?;
    Ok(results)
}

fn kernel_stack(bench: &mut Bench<'_, '_>, whose: Whose) -> Result<(), Ended> {
    let results = ask_for_stack(bench, whose, 0)?;
    let length = results.get(slot(0)).cast_signed();
    bench.attempt.holds("returned a whole number of addresses", length > 0 && length % 8 == 0);
    let length = usize::try_from(length).unwrap_or(0).min(usize::try_from(BUFFER_BYTES).unwrap_or(0));
    let bytes = results.bytes(slot(BUFFER), length);
    see_functions(bench, &bytes, whose.hook().1)
}

/// The functions that stacks are searched for, all in the first part of the kernel's text, and where their ranges are
/// kept once one probe has found them: to read all symbols takes a third of a second under TCG.
const FUNCTIONS: [&str; 4] = [SYSTEM_CALL, "path_openat", "__x64_sys_openat", "security_task_getscheduler"];
const SYSTEM_CALL: &str = "__x64_sys_sched_getscheduler";
const RANGES: &str = "/ranges-of-functions";

/// Reads /proc/kallsyms, where the kernel proper comes first and in the order of its addresses (6.12 kernel/kallsyms.c,
/// `get_ksymbol_core`), up to the last of the functions: a function ends where another address follows.
fn read_ranges() -> std::io::Result<String> {
    let mut symbols = BufReader::with_capacity(1 << 16, File::open("/proc/kallsyms")?);
    let (mut line, mut ranges, mut begun) = (String::new(), String::new(), None);
    let mut missing = FUNCTIONS.len();
    while missing > 0 && symbols.read_line(&mut line)? > 0 {
        let mut words = line.split_whitespace();
        let address = words.next().and_then(|word| u64::from_str_radix(word, 16).ok());
        if let (Some((name, start)), Some(end)) = (begun, address)
            && end != start
        {
            ranges += &format!("{name} {start} {end}\n");
            (begun, missing) = (None, missing - 1);
        }
        let name = words.nth(1).and_then(|found| FUNCTIONS.into_iter().find(|name| *name == found));
        begun = name.zip(address).or(begun);
        line.clear();
    }
    Ok(ranges)
}

/// The line for each of the functions: its name, where it begins, and where it ends.
fn ranges() -> Result<String, Ended> {
    if let Ok(known) = fs::read_to_string(RANGES) {
        return Ok(known);
    }
    let why = |error: std::io::Error| Ended::could_not("find functions among the kernel's symbols", error);
    let ranges = read_ranges().map_err(why)?;
    // Whole or not at all, should this process end here.
    fs::write(format!("{RANGES}.new"), &ranges).map_err(why)?;
    fs::rename(format!("{RANGES}.new"), RANGES).map_err(why)?;
    Ok(ranges)
}

/// Whether functions are on a stack, told by the kernel's symbols.
fn see_functions(bench: &mut Bench<'_, '_>, stack: &[u8], wanted: [&str; 2]) -> Result<(), Ended> {
    let ranges = ranges()?;
    let addresses = || stack.as_chunks::<8>().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
    for wanted in wanted {
        let line = ranges.lines().find_map(|line| line.strip_prefix(wanted)?.strip_prefix(' '));
        let range = line.and_then(|line| {
            let (start, end) = line.split_once(' ')?;
            Some(start.parse::<u64>().ok()?..end.parse::<u64>().ok()?)
        });
        let range = range.ok_or_else(|| Ended::CouldNotTell(format!("the kernel has no symbol {wanted}")))?;
        let among = addresses().any(|address| range.contains(&address));
        bench.attempt.holds(&format!("{wanted} is among the functions"), among);
    }
    Ok(())
}

fn stack_flags(bench: &mut Bench<'_, '_>, whose: Whose) -> Result<(), Ended> {
    let results = ask_for_stack(bench, whose, 1 << 20)?;
    bench.returned("returned", results.get(slot(0)));
    Ok(())
}

fn beyond_the_value(bench: &mut Bench<'_, '_>, whose: Whose) -> Result<(), Ended> {
    let helper = bench.helper();
    bench.load_on(whose.hook().0, |asm| call_for_stack(asm, helper, whose, 8192, 0))
}

fn stack_id(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    const DEPTH: u32 = 64;
    let helper = bench.helper();
    let map = bench.attempt.map(&MapSpec::new(BPF_MAP_TYPE_STACK_TRACE, 4, 8 * DEPTH, 16))?;
    let results = bench.open(|asm| {
        asm.mov_reg(Reg::R1, CTX).ld_map_fd(Reg::R2, &map).mov_imm(Reg::R3, 0).call(helper);
        keep(asm, 0, Reg::R0);
    })?;
    let id = results.get(slot(0)).cast_signed();
    bench.attempt.holds("returned a number of the map", (0..16).contains(&id));
    let mut found = vec![0; 8 * DEPTH as usize];
    let key = u32::try_from(id).unwrap_or(u32::MAX);
    bpf::map_lookup(&map, &key.to_ne_bytes(), &mut found)
        .map_err(|errno| Ended::could_not("look the stack up", errno))?;
    see_functions(bench, &found, Whose::Context.hook().1)
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
    bench.attempt.see("and called back with an area that ends at", results.get(slot(5)));
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
    let results = bench.open(|asm| {
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
/// are right.
fn print(bench: &mut Bench<'_, '_>, size: i32) -> Result<(), Ended> {
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
        asm.mov_imm(Reg::R2, 64).mov_imm(Reg::R4, size).mov_imm(Reg::R5, 0).call(helper);
        keep(asm, 0, Reg::R0);
    })?;
    bench.returned("returned", results.get(slot(0)));
    if size == 16 {
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
    let results = bench.open(|asm| {
        asm.ld_btf_id(Reg::R1, queue, 0).call(helper).ldx(Size::W, Reg::R1, Reg::R0, cpu);
        keep(asm, 0, Reg::R1);
        asm.call(helper::GET_SMP_PROCESSOR_ID);
        keep(asm, 1, Reg::R0);
    })?;
    bench.attempt.same("the processor", results.get(slot(0)), results.get(slot(1)));
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
