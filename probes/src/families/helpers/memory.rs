//! Reading memory of the kernel and of user space.

use super::bench::{Bench, SLEEPS_EVERYWHERE, argument, keep, page, preset, slot, stack};
use super::{Row, canonical, case, misuse, rust, sleepable, slow_misuse};
use crate::asm::Asm;
use crate::aya_load::Global;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::objects::USER_STRING;
use crate::objects::layout::{STRING, UserString};
use crate::results::Results;
use crate::session::Ended;
use crate::spec::{Source, source};
use std::ffi::CStr;
use std::fs::File;

const TRACING: Source = source("5.9", "kernel/trace/bpf_trace.c", "bpf_tracing_func_proto");
const MEMORY: Source = source("5.9", "kernel/bpf/verifier.c", "check_helper_mem_access");

pub(super) const ROWS: &[Row] = &[
    Row {
        helper: helper::PROBE_READ_KERNEL,
        asks: "read kernel memory, and answer a bad address with an errno",
        sources: &[
            TRACING,
            source("5.9", "kernel/trace/bpf_trace.c", "bpf_probe_read_kernel_common"),
            MEMORY,
        ],
        cases: &[
            canonical(|bench| read_task(bench, "tgid", 4)),
            case("bad-address", |bench| read_bad(bench, BAD_KERNEL)),
            misuse("misuse-size-beyond-the-stack", |bench| read_into(bench, -8, 16)),
            misuse("misuse-size-not-bounded", unbounded),
        ],
    },
    Row {
        helper: helper::PROBE_READ_KERNEL_STR,
        asks: "read a string of the kernel with its final zero, and return the length with it",
        sources: &[TRACING, source("5.9", "kernel/trace/bpf_trace.c", "bpf_probe_read_kernel_str_common")],
        cases: &[
            canonical(|bench| read_task(bench, "comm", 16)),
            case("bad-address", |bench| read_bad(bench, BAD_KERNEL)),
            misuse("misuse-size-beyond-the-stack", |bench| read_into(bench, -8, 16)),
            misuse("misuse-size-not-bounded", unbounded),
        ],
    },
    Row {
        helper: helper::PROBE_READ_USER,
        asks: "read memory of user space, and answer a bad address with an errno",
        sources: &[TRACING, source("5.9", "kernel/trace/bpf_trace.c", "bpf_probe_read_user_common")],
        cases: &[
            canonical(|bench| read_user(bench, 0)),
            case("page-not-present", read_untouched),
            case("bad-address", |bench| read_bad(bench, BAD_USER)),
            misuse("misuse-size-beyond-the-stack", |bench| read_into(bench, -8, 16)),
            misuse("misuse-size-not-bounded", unbounded),
        ],
    },
    Row {
        helper: helper::PROBE_READ_USER_STR,
        asks: "read a string of user space with its final zero, and return the length with it",
        sources: &[TRACING, source("5.9", "kernel/trace/bpf_trace.c", "bpf_probe_read_user_str_common")],
        cases: &[
            canonical(|bench| read_user(bench, length_with_zero())),
            rust(user_string),
            case("bad-address", |bench| read_bad(bench, BAD_USER)),
            misuse("misuse-size-beyond-the-stack", |bench| read_into(bench, -8, 16)),
            misuse("misuse-size-not-bounded", unbounded),
        ],
    },
    Row {
        helper: helper::COPY_FROM_USER,
        asks: "copy memory of user space, in programs that may sleep",
        sources: &[
            source("6.0", "kernel/bpf/helpers.c", "bpf_copy_from_user"),
            source("6.14", "kernel/bpf/verifier.c", "check_helper_call"),
            source("6.0", "kernel/trace/bpf_trace.c", "bpf_tracing_func_proto"),
        ],
        cases: &[
            canonical(|bench| read_user(bench, 0)),
            sleepable(copy_from_executed),
            super::Case { name: "on-file_open", ..sleepable(|bench| read_user(bench, 0)) },
            super::Case { name: "page-not-present", ..sleepable(read_untouched) },
            super::Case { name: "bad-address", ..sleepable(|bench| read_bad(bench, BAD_USER)) },
            slow_misuse("misuse-size-beyond-the-stack", |bench| read_into(bench, -8, 16)),
            slow_misuse("misuse-size-not-bounded", unbounded),
        ],
    },
    Row {
        helper: helper::PROBE_READ,
        asks: "read kernel memory, as it did before there was a helper for each half of the addresses",
        sources: &[TRACING, source("5.9", "kernel/trace/bpf_trace.c", "bpf_probe_read_compat"), MEMORY],
        cases: &[
            canonical(|bench| read_task(bench, "tgid", 4)),
            case("of-user-space", |bench| read_user(bench, 0)),
            case("bad-address", |bench| read_bad(bench, BAD_KERNEL)),
            misuse("misuse-size-beyond-the-stack", |bench| read_into(bench, -8, 16)),
            misuse("misuse-size-not-bounded", unbounded),
        ],
    },
    Row {
        helper: helper::PROBE_READ_STR,
        asks: "read a string of the kernel, as it did before there was a helper for each half of the addresses",
        sources: &[TRACING, source("5.9", "kernel/trace/bpf_trace.c", "bpf_probe_read_compat_str"), MEMORY],
        cases: &[
            canonical(|bench| read_task(bench, "comm", 16)),
            case("of-user-space", |bench| read_user(bench, length_with_zero())),
            case("bad-address", |bench| read_bad(bench, BAD_KERNEL)),
            misuse("misuse-size-beyond-the-stack", |bench| read_into(bench, -8, 16)),
            misuse("misuse-size-not-bounded", unbounded),
        ],
    },
    Row {
        helper: helper::PROBE_WRITE_USER,
        asks: "write to memory of user space, and answer a bad address with an errno",
        sources: &[TRACING, source("5.9", "kernel/trace/bpf_trace.c", "bpf_probe_write_user"), MEMORY],
        cases: &[
            canonical(write_user),
            misuse("misuse-size-beyond-the-stack", |bench| {
                let helper = bench.helper();
                bench.load(|asm| {
                    asm.st_imm(Size::DW, Reg::R10, -8, 1).ld_imm64(Reg::R1, BAD_USER);
                    stack(asm, Reg::R2, -8);
                    asm.mov_imm(Reg::R3, 16).call(helper);
                })
            }),
            misuse("misuse-number-for-source", |bench| {
                let helper = bench.helper();
                bench.load(|asm| {
                    asm.ld_imm64(Reg::R1, BAD_USER).mov_imm(Reg::R2, 4096).mov_imm(Reg::R3, 8).call(helper);
                })
            }),
        ],
    },
];

/// What user space offers to be read.
static STRING_OF_OURS: &CStr = c"a string in user space";
/// An address that no user space has: below `vm.mmap_min_addr`.
const BAD_USER: u64 = 8;
/// An address of the kernel's half at which nothing is: the hole below the kernel's own text, with page tables of
/// four levels as with five (Documentation/arch/x86/x86_64/mm.rst).
const BAD_KERNEL: u64 = 0xffff_ffff_0000_0000;

/// The string in memory that has just been written to, so that a reader that may not fault finds it.
fn offered() -> Vec<u8> {
    STRING_OF_OURS.to_bytes_with_nul().to_vec()
}

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr().expose_provenance() as u64
}

fn length_with_zero() -> u64 {
    STRING_OF_OURS.to_bytes_with_nul().len() as u64
}

/// Calls the helper with `size` bytes of the page's second slot as destination and R3 as it is.
fn read_to_page(asm: &mut Asm, helper: u32, size: i32) {
    page(asm, Reg::R1, 1);
    asm.mov_imm(Reg::R2, size).call(helper);
    keep(asm, 0, Reg::R0);
}

/// Reads a member of the current task.
fn read_task(bench: &mut Bench<'_, '_>, member: &str, size: i32) -> Result<(), Ended> {
    let (helper, offset) = (bench.helper(), bench.offset("task_struct", member)?);
    let results = bench.open(|asm| {
        asm.call(helper::GET_CURRENT_TASK).mov_reg(Reg::R3, Reg::R0).add_imm(Reg::R3, offset);
        read_to_page(asm, helper, size);
    })?;
    bench.attempt.at(crate::record::Phase::Read);
    if member == "tgid" {
        bench.returned("returned", results.get(slot(0)));
        bench.attempt.same("the process", results.get(slot(1)), u64::from(std::process::id()));
    } else {
        let name = std::fs::read_to_string("/proc/self/comm")
            .map_err(|error| Ended::could_not("read the thread's name", error))?;
        let name = name.trim_end();
        bench.attempt.same("returned the length", results.get(slot(0)), name.len() as u64 + 1);
        bench.attempt.same("the name", super::bench::text(&results.bytes(slot(1), 16)), name.to_owned());
    }
    Ok(())
}

/// Reads the string; what is to be returned is `expected`.
fn read_user(bench: &mut Bench<'_, '_>, expected: u64) -> Result<(), Ended> {
    let helper = bench.helper();
    let bytes = offered();
    // A reader of strings stops at the zero, so it gets more room than the string needs.
    let size = if expected == 0 { bytes.len() } else { 64 };
    let size_operand = i32::try_from(size).unwrap_or(0);
    let results = bench.open(|asm| {
        asm.ld_imm64(Reg::R3, address(&bytes));
        read_to_page(asm, helper, size_operand);
    })?;
    bench.returned("returned", results.get(slot(0)));
    bench.attempt.same("what was read", results.bytes(slot(1), bytes.len()), bytes);
    Ok(())
}

/// Reads from where there may be nothing, over what the buffer held before.
fn read_bad(bench: &mut Bench<'_, '_>, address: u64) -> Result<(), Ended> {
    let helper = bench.helper();
    let results = bench.open_or_execute(|asm| {
        preset(asm, 1);
        asm.ld_imm64(Reg::R3, address);
        read_to_page(asm, helper, 8);
    })?;
    see_read(bench, &results);
    Ok(())
}

/// Notes what came of reading to a buffer that was full of ones.
fn see_read(bench: &mut Bench<'_, '_>, results: &Results) {
    bench.returned("returned", results.get(slot(0)));
    bench.attempt.see("the buffer afterwards", format!("{:016x}", results.get(slot(1))));
}

/// Reads from a page of this process that has never been touched; where programs may sleep only when a program is
/// executed, from the page below those that its stack has so far.
fn read_untouched(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    if bench.only_execution_sleeps()? {
        let (helper, top) = (bench.helper(), bench.offset("linux_binprm", "p")?);
        let (results, executed) = bench.run(SLEEPS_EVERYWHERE, super::exec::at_secure, |asm| {
            preset(asm, 1);
            argument(asm, Reg::R3, 0);
            asm.ldx(Size::DW, Reg::R3, Reg::R3, top).add_imm(Reg::R3, -4096);
            read_to_page(asm, helper, 8);
        })?;
        executed.map_err(|errno| Ended::could_not("execute a program", errno))?;
        see_read(bench, &results);
        return Ok(());
    }
    let page = memmap2::MmapMut::map_anon(4096).map_err(|error| Ended::could_not("map a page", error))?;
    read_bad(bench, page.as_ptr().expose_provenance() as u64)
}

/// Loads a call with a buffer on the stack.
fn read_into(bench: &mut Bench<'_, '_>, at: i32, size: i32) -> Result<(), Ended> {
    let helper = bench.helper();
    bench.load(|asm| {
        stack(asm, Reg::R1, at);
        asm.mov_imm(Reg::R2, size).ld_imm64(Reg::R3, BAD_USER).call(helper);
    })
}

/// Reads the name of a program that is being executed from the stack that it will find.
fn copy_from_executed(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, exec) = (bench.helper(), bench.offset("linux_binprm", "exec")?);
    let name = super::exec::PROGRAM.to_bytes_with_nul();
    let size = i32::try_from(name.len()).unwrap_or(0);
    let (results, executed) = bench.run(SLEEPS_EVERYWHERE, super::exec::at_secure, |asm| {
        argument(asm, Reg::R3, 0);
        asm.ldx(Size::DW, Reg::R3, Reg::R3, exec);
        read_to_page(asm, helper, size);
    })?;
    executed.map_err(|errno| Ended::could_not("execute a program", errno))?;
    bench.returned("returned", results.get(slot(0)));
    bench.attempt.same("what was read", results.bytes(slot(1), name.len()), name.to_vec());
    Ok(())
}

/// Writes to a word of this process, to an address that nobody has, and to one of the kernel's half.
fn write_user(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    const WORD: i32 = 0x0d0e_0f10;
    let helper = bench.helper();
    let word = Box::new(std::sync::atomic::AtomicU64::new(0));
    let ours = word.as_ptr().expose_provenance() as u64;
    let results = bench.open(|asm| {
        asm.st_imm(Size::DW, Reg::R10, -8, WORD);
        for (index, address) in [(0, ours), (1, BAD_USER), (2, BAD_KERNEL)] {
            asm.ld_imm64(Reg::R1, address);
            stack(asm, Reg::R2, -8);
            asm.mov_imm(Reg::R3, 8).call(helper);
            keep(asm, index, Reg::R0);
        }
    })?;
    bench.returned("returned", results.get(slot(0)));
    let found = word.load(std::sync::atomic::Ordering::Relaxed);
    bench.attempt.same("the word", found, u64::from(WORD.unsigned_abs()));
    bench.returned("returned for an address that nobody has", results.get(slot(1)));
    bench.returned("returned for an address of the kernel's half", results.get(slot(2)));
    Ok(())
}

/// Loads a call whose size comes from the results page, any 64 bits.
fn unbounded(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let helper = bench.helper();
    bench.load(|asm| {
        asm.ldx(Size::DW, Reg::R2, crate::lsm::PAGE, slot(0));
        page(asm, Reg::R1, 1);
        asm.ld_imm64(Reg::R3, BAD_USER).call(helper);
    })
}

fn user_string(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    super::bench::write_file()?;
    let bytes = offered();
    let globals = [Global::target(), Global::u64("USER_ADDRESS", address(&bytes))];
    let object = bench.attempt.attach_object(&USER_STRING, &globals)?;
    let _opened = bench.attempt.trigger(|| File::open(super::bench::FILE));
    let seen: UserString = object.results()?;
    bench.attempt.runs(seen.runs);
    bench.attempt.see("returned", seen.length);
    let mut expected = [0; STRING];
    expected.iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
    bench.attempt.same("what was read", seen.bytes, expected);
    Ok(())
}
