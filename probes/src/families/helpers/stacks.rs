//! Stacks: the functions that led to the hook, given as addresses or kept in a map.

use super::bench::{Bench, argument, keep, open_file, page, slot};
use super::call::Arg::{Context, Hash, Number, Page};
use super::task::{BUFFER, BUFFER_BYTES, TRACING, number_for};
use super::{Case, Row, canonical, case, misuse, sleepable};
use crate::asm::Asm;
use crate::bpf::{self, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_STACK_TRACE, MapSpec};
use crate::errno::Errno;
use crate::helper;
use crate::insn::Reg;
use crate::lsm::CTX;
use crate::results::Results;
use crate::session::Ended;
use crate::spec::source;
use crate::triggers::Arm;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};

pub(super) const ROWS: &[Row] = &[
    Row {
        helper: helper::GET_TASK_STACK,
        asks: "give the kernel's stack with the functions that led to the hook",
        sources: &[TRACING, source("6.0", "kernel/bpf/stackmap.c", "__bpf_get_stack")],
        cases: &[
            canonical(|bench| kernel_stack(bench, Whose::Task)),
            case("of-user-space", |bench| user_stack(bench, Whose::Task)),
            Case { name: "of-user-space-sleepable", ..sleepable(|bench| user_stack(bench, Whose::Current)) },
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
            case("of-user-space", |bench| user_stack(bench, Whose::Context)),
            Case { name: "of-user-space-sleepable", ..sleepable(|bench| user_stack(bench, Whose::Context)) },
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
            sleepable(stack_id),
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
];

/// Whose stack is asked for, and how.
#[derive(Clone, Copy)]
enum Whose {
    /// That of the task which is the hook's first argument, here the calling one.
    Task,
    /// That of the task which runs the program (5.11), where no hook with a task has programs that may sleep.
    Current,
    /// That which the program runs on, by its context.
    Context,
}

impl Whose {
    /// The hook, and functions that are on the way to it in every kernel of the suite and that go on after what they call:
    /// others a compiler may leave out of the stack, as it does the system call's own (seen on 5.8, built for size).
    const fn hook(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Task => ("task_getscheduler", &["security_task_getscheduler"]),
            Self::Current | Self::Context => ("file_open", &["path_openat"]),
        }
    }

    fn act(self, arm: Arm) -> Result<(), Errno> {
        match self {
            // SAFETY: takes a number; 0 is the caller.
            Self::Task => arm.during(|| Errno::result(unsafe { libc::sched_getscheduler(0) })).map(drop),
            Self::Current | Self::Context => open_file(arm).map(drop),
        }
    }
}

/// Calls for a stack into the buffer.
fn call_for_stack(asm: &mut Asm, helper: u32, whose: Whose, size: i32, flags: i32) {
    match whose {
        Whose::Task => argument(asm, Reg::R1, 0),
        Whose::Current => {
            asm.call(helper::GET_CURRENT_TASK_BTF).mov_reg(Reg::R1, Reg::R0);
        }
        Whose::Context => drop(asm.mov_reg(Reg::R1, CTX)),
    }
    page(asm, Reg::R2, BUFFER);
    asm.mov_imm(Reg::R3, size).mov_imm(Reg::R4, flags).call(helper);
    keep(asm, 0, Reg::R0);
}

/// Runs a program that calls for a stack.
fn ask_for_stack(bench: &mut Bench<'_, '_>, whose: Whose, flags: i32) -> Result<Results, Ended> {
    let helper = bench.helper();
    if bench.only_execution_sleeps()? {
        let Whose::Context = whose else {
            return Err(Ended::Absent("a task that a program that may sleep is given".into()));
        };
        return bench.open_or_execute(|asm| call_for_stack(asm, helper, whose, BUFFER_BYTES, flags));
    }
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

/// The stack of user space, which begins with where the task has left it; what follows depends on how user space was
/// compiled.
fn user_stack(bench: &mut Bench<'_, '_>, whose: Whose) -> Result<(), Ended> {
    const USER_STACK: i32 = 1 << 8; // BPF_F_USER_STACK
    let results = ask_for_stack(bench, whose, USER_STACK)?;
    let length = results.get(slot(0)).cast_signed();
    if length <= 0 {
        bench.returned("returned", results.get(slot(0)));
        return Ok(());
    }
    bench.attempt.holds("returned a whole number of addresses", length % 8 == 0);
    let first = results.get(slot(BUFFER));
    bench.attempt.holds("the first is in this process's code", is_code(first)?);
    Ok(())
}

/// Whether an address is one of this process's code.
fn is_code(address: u64) -> Result<bool, Ended> {
    let maps = fs::read_to_string("/proc/self/maps")
        .map_err(|error| Ended::could_not("read the process's memory areas", error))?;
    Ok(maps.lines().any(|line| {
        let mut words = line.split(' ');
        let range = words.next().and_then(|range| range.split_once('-'));
        let range = range.and_then(|(start, end)| {
            Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
        });
        range.is_some_and(|range| range.contains(&address)) && words.next() == Some("r-xp")
    }))
}

/// The functions that stacks are searched for, all in the first part of the kernel's text, and where their ranges are
/// kept once one probe has found them: to read all symbols takes a third of a second under TCG.
const FUNCTIONS: [&str; 2] = ["path_openat", "security_task_getscheduler"];
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
fn see_functions(bench: &mut Bench<'_, '_>, stack: &[u8], wanted: &[&str]) -> Result<(), Ended> {
    let ranges = ranges()?;
    let addresses = || stack.as_chunks::<8>().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
    for &wanted in wanted {
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
    let results = bench.open_or_execute(|asm| {
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
