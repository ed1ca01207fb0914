//! Text: formatting, comparing and parsing it, and sending it to the trace.

use super::bench::{Bench, keep, open_file, page, put_text, slot, stack};
use super::call::Arg::{Number, Page, Stack};
use super::{Row, canonical, case, misuse};
use crate::asm::Asm;
use crate::bpf::{self, BPF_F_RDONLY_PROG, MapSpec};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::patience::Patience;
use crate::results::Results;
use crate::session::Ended;
use crate::spec::{Source, source};
use crate::triggers::Arm;
use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

const BASE: Source = source("6.14", "kernel/bpf/helpers.c", "bpf_base_func_proto");
const CONSTANT: Source = source("6.14", "kernel/bpf/verifier.c", "check_reg_const_str");

pub(super) const ROWS: &[Row] = &[
    Row {
        helper: helper::SNPRINTF,
        asks: "format numbers with a format that the verifier knows",
        sources: &[
            source("6.0", "kernel/bpf/helpers.c", "bpf_snprintf"),
            source("6.14", "kernel/bpf/verifier.c", "check_bpf_snprintf_call"),
            CONSTANT,
        ],
        cases: &[
            canonical(|bench| snprintf(bench, 32)),
            case("more-than-fits", |bench| snprintf(bench, 8)),
            case("pointer-under-kptr_restrict", restricted),
            misuse("misuse-format-not-frozen", |bench| {
                let (helper, format) = (bench.helper(), constant(bench, b"%d %d\0", false)?);
                bench.load(|asm| {
                    asm.ld_map_value(Reg::R3, &format, 0);
                    format_two(asm, helper, 32);
                })
            }),
            misuse("misuse-format-on-the-stack", |bench| {
                let helper = bench.helper();
                bench.load(|asm| {
                    put_text(asm, -32, b"%d %d\0");
                    stack(asm, Reg::R3, -32);
                    format_two(asm, helper, 32);
                })
            }),
            misuse("misuse-format-without-its-data", |bench| {
                let (helper, format) = (bench.helper(), constant(bench, b"%d %d %d\0", true)?);
                bench.load(|asm| {
                    asm.ld_map_value(Reg::R3, &format, 0);
                    format_two(asm, helper, 32);
                })
            }),
        ],
    },
    Row {
        helper: helper::STRNCMP,
        asks: "compare memory with a string that the verifier knows",
        sources: &[source("6.0", "kernel/bpf/helpers.c", "bpf_strncmp"), CONSTANT],
        cases: &[
            canonical(strncmp),
            misuse("misuse-string-on-the-stack", |bench| {
                let helper = bench.helper();
                bench.load(|asm| {
                    put_text(asm, -8, b"abc\0");
                    stack(asm, Reg::R1, -8);
                    asm.mov_imm(Reg::R2, 4).mov_reg(Reg::R3, Reg::R1).call(helper);
                })
            }),
            misuse("misuse-size-beyond-the-stack", |bench| {
                let (helper, string) = (bench.helper(), constant(bench, b"abc\0", true)?);
                bench.load(|asm| {
                    put_text(asm, -8, b"abc\0abc\0");
                    stack(asm, Reg::R1, -8);
                    asm.mov_imm(Reg::R2, 16).ld_map_value(Reg::R3, &string, 0).call(helper);
                })
            }),
        ],
    },
    Row {
        helper: helper::STRTOL,
        asks: "parse a signed number, and return how many characters it had",
        sources: &[source("6.0", "kernel/bpf/cgroup.c", "sysctl_func_proto"), BASE],
        cases: &[
            canonical(|bench| parse(bench, b"-1234 x\0", -1234)),
            case("no-number", |bench| parse(bench, b"x\0\0\0", 0)),
            case("base-that-there-is-not", unknown_base),
            misuse("misuse-size-beyond-the-stack", |bench| {
                bench.call(&[Stack(8), Number(16), Number(0), Page])
            }),
            misuse("misuse-number-for-text", |bench| bench.call(&[Number(4096), Number(4), Number(0), Page])),
            misuse("misuse-number-for-destination", |bench| {
                bench.call(&[Stack(8), Number(4), Number(0), Number(4096)])
            }),
        ],
    },
    Row {
        helper: helper::STRTOUL,
        asks: "parse an unsigned number, and return how many characters it had",
        sources: &[source("6.0", "kernel/bpf/cgroup.c", "sysctl_func_proto"), BASE],
        cases: &[
            canonical(|bench| parse(bench, b"0x2a\0\0\0\0", 42)),
            case("negative", |bench| parse(bench, b"-1\0\0", 0)),
            case("base-that-there-is-not", unknown_base),
            misuse("misuse-size-beyond-the-stack", |bench| {
                bench.call(&[Stack(8), Number(16), Number(0), Page])
            }),
            misuse("misuse-number-for-text", |bench| bench.call(&[Number(4096), Number(4), Number(0), Page])),
            misuse("misuse-number-for-destination", |bench| {
                bench.call(&[Stack(8), Number(4), Number(0), Number(4096)])
            }),
        ],
    },
    Row {
        helper: helper::TRACE_PRINTK,
        asks: "write a line that user space finds in the trace",
        sources: &[
            source("5.9", "kernel/trace/bpf_trace.c", "bpf_trace_printk"),
            source("5.9", "kernel/bpf/verifier.c", "check_helper_mem_access"),
        ],
        cases: &[
            canonical(trace_printk),
            misuse("misuse-size-zero", |bench| printk_with(bench, 0)),
            misuse("misuse-size-beyond-the-stack", |bench| printk_with(bench, 64)),
        ],
    },
    Row {
        helper: helper::TRACE_VPRINTK,
        asks: "write a line with arguments from memory that user space finds in the trace",
        sources: &[source("6.0", "kernel/trace/bpf_trace.c", "bpf_trace_vprintk"), BASE],
        cases: &[
            canonical(trace_printk),
            case("size-of-the-data-wrong", |bench| bench.answer(&[Stack(8), Number(8), Page, Number(4)])),
            misuse("misuse-size-beyond-the-stack", |bench| printk_with(bench, 64)),
            misuse("misuse-number-for-data", |bench| {
                bench.call(&[Stack(8), Number(8), Number(4096), Number(8)])
            }),
        ],
    },
];

/// A map of one element that programs cannot write, with text in it; frozen, user space cannot write it either, and
/// the verifier reads it.
fn constant(bench: &mut Bench<'_, '_>, text: &[u8], frozen: bool) -> Result<OwnedFd, Ended> {
    const SIZE: u32 = 32;
    let spec = MapSpec { flags: BPF_F_RDONLY_PROG, ..MapSpec::array(SIZE, 1).named("text") };
    let map = bench.attempt.map(&spec)?;
    let mut value = [0; SIZE as usize];
    value.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
    bpf::map_update(&map, &0_u32.to_ne_bytes(), &value, bpf::BPF_ANY)
        .map_err(|errno| Ended::could_not("store the text", errno))?;
    if frozen {
        bpf::map_freeze(&map).map_err(|errno| Ended::could_not("freeze the text", errno))?;
    }
    Ok(map)
}

/// Formats two numbers with the format in R3, into `size` bytes of the page's second slot.
fn format_two(asm: &mut Asm, helper: u32, size: i32) {
    asm.st_imm(Size::DW, Reg::R10, -16, 42).st_imm(Size::DW, Reg::R10, -8, 255);
    page(asm, Reg::R1, 1);
    stack(asm, Reg::R4, -16);
    asm.mov_imm(Reg::R2, size).mov_imm(Reg::R5, 16).call(helper);
    keep(asm, 0, Reg::R0);
}

fn snprintf(bench: &mut Bench<'_, '_>, size: i32) -> Result<(), Ended> {
    let (helper, format) = (bench.helper(), constant(bench, b"n=%d hex=%x\0", true)?);
    let results = bench.open(|asm| {
        asm.ld_map_value(Reg::R3, &format, 0);
        format_two(asm, helper, size);
    })?;
    bench.returned("returned", results.get(slot(0)));
    bench.attempt.see("the text", super::bench::text(&results.bytes(slot(1), 32)));
    Ok(())
}

/// Formats an address with `%pK`, which shows it, a number in its place or zeros, as `kernel.kptr_restrict` says.
fn restricted(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    const SETTING: &str = "/proc/sys/kernel/kptr_restrict";
    let why = |error: std::io::Error| Ended::could_not("set kernel.kptr_restrict", error);
    let (helper, format) = (bench.helper(), constant(bench, b"%pK\0", true)?);
    let old = fs::read_to_string(SETTING).map_err(why)?;
    for setting in ["0", "1", "2"] {
        fs::write(SETTING, setting).map_err(why)?;
        let formatted = bench.open(|asm| {
            asm.call(helper::GET_CURRENT_TASK).stx(Size::DW, Reg::R10, -8, Reg::R0);
            keep(asm, 0, Reg::R0);
            page(asm, Reg::R1, 1);
            stack(asm, Reg::R4, -8);
            asm.mov_imm(Reg::R2, 32).ld_map_value(Reg::R3, &format, 0).mov_imm(Reg::R5, 8).call(helper);
        });
        fs::write(SETTING, old.trim()).map_err(why)?;
        let results = formatted?;
        let text = super::bench::text(&results.bytes(slot(1), 32));
        let what = match u64::from_str_radix(&text, 16) {
            Ok(0) => "zeros",
            Ok(number) if number == results.get(slot(0)) => "the address",
            Ok(_) => "another number",
            Err(_) => "no number",
        };
        bench.attempt.see(&format!("with {setting}"), what);
    }
    Ok(())
}

/// Compares with `abc`: the same, something greater, something less, and something that differs only beyond the size.
fn strncmp(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, string) = (bench.helper(), constant(bench, b"abc\0", true)?);
    let texts: [(&[u8], i32, i64); 4] =
        [(b"abc\0", 4, 0), (b"abd\0", 4, 1), (b"abb\0", 4, -1), (b"abx\0", 2, 0)];
    let results = bench.open(|asm| {
        for (index, (text, size, _)) in (0..).zip(texts) {
            put_text(asm, -8, text);
            stack(asm, Reg::R1, -8);
            asm.mov_imm(Reg::R2, size).ld_map_value(Reg::R3, &string, 0).call(helper);
            keep(asm, index, Reg::R0);
        }
    })?;
    let holds =
        (0..).zip(texts).all(|(index, (_, _, sign))| results.get(slot(index)).cast_signed().signum() == sign);
    bench.attempt.holds("the signs are those of strncmp(3)", holds);
    Ok(())
}

/// Parses a number with a base; 0 is the one that its text shows.
fn parse_with(bench: &mut Bench<'_, '_>, text: &[u8], base: i32) -> Result<Results, Ended> {
    let helper = bench.helper();
    let length = i32::try_from(text.len()).unwrap_or(0);
    let results = bench.open(|asm| {
        put_text(asm, -16, text);
        asm.st_imm(Size::DW, Reg::R10, -8, 0);
        stack(asm, Reg::R1, -16);
        stack(asm, Reg::R4, -8);
        asm.mov_imm(Reg::R2, length).mov_imm(Reg::R3, base).call(helper);
        keep(asm, 0, Reg::R0);
        asm.ldx(Size::DW, Reg::R1, Reg::R10, -8);
        keep(asm, 1, Reg::R1);
    })?;
    bench.returned("returned", results.get(slot(0)));
    Ok(results)
}

/// A number that there is in every base above 2, with one that the helper does not take.
fn unknown_base(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    parse_with(bench, b"12\0\0", 7).map(drop)
}

fn parse(bench: &mut Bench<'_, '_>, text: &[u8], number: i64) -> Result<(), Ended> {
    let results = parse_with(bench, text, 0)?;
    bench.attempt.same("the number", results.get(slot(1)).cast_signed(), number);
    Ok(())
}

const FORMAT: &[u8; 20] = b"conformance of %d\n\0\0";

fn trace_printk(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, pid) = (bench.helper(), std::process::id());
    let act = |arm: Arm| {
        trace_is_on()?;
        open_file(arm)
    };
    let (results, opened) = bench.run("file_open", act, |asm| {
        put_text(asm, -24, FORMAT);
        stack(asm, Reg::R1, -24);
        asm.ldx(Size::DW, Reg::R3, crate::lsm::PAGE, crate::results::TARGET);
        if helper == helper::TRACE_VPRINTK {
            asm.stx(Size::DW, Reg::R10, -32, Reg::R3).mov_imm(Reg::R4, 8);
            stack(asm, Reg::R3, -32);
        }
        asm.mov_imm(Reg::R2, 19).call(helper);
        keep(asm, 0, Reg::R0);
    })?;
    opened.map_err(|errno| Ended::could_not("open the file while bpf_trace_printk is traced", errno))?;
    // Before 5.9 the line names a made-up address instead of the helper's event.
    let line = format!(": conformance of {pid}");
    let trace = fs::read_to_string("/sys/kernel/tracing/trace")
        .map_err(|error| Ended::could_not("read the trace", error))?;
    // What is returned is the length of the text, in which a pid is volatile.
    let length = u64::try_from(format!("conformance of {pid}\n").len()).unwrap_or(0);
    let returned = results.get(slot(0));
    bench.attempt.holds(
        "returned the length, its newline or zero maybe counted",
        (length - 1..=length + 1).contains(&returned),
    );
    bench.attempt.see("lines in the trace", trace.lines().filter(|found| found.ends_with(&line)).count());
    Ok(())
}

/// Waits until what the helper prints reaches the trace. Loading a program that calls it switches that on, which 7.1
/// and later leave to a worker (7.1 kernel/trace/bpf_trace.c, bpf_get_trace_printk_proto): there a program that runs
/// right after its load leaves no line. Before 5.9 there is nothing to switch on (5.8 kernel/trace/bpf_trace.c,
/// bpf_trace_printk).
fn trace_is_on() -> Result<(), Errno> {
    if !fs::exists("/sys/kernel/tracing/events/bpf_trace")? {
        return Ok(());
    }
    let mut patience = Patience::new(Duration::from_secs(5));
    while !fs::read_to_string("/sys/kernel/tracing/events/bpf_trace/bpf_trace_printk/enable")
        .map_err(Errno::from)?
        .starts_with('1')
    {
        if !patience.lasts() {
            return Err(Errno::from_raw(libc::ETIMEDOUT));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Loads a call with a format of this size on the stack, where there are 24 bytes.
fn printk_with(bench: &mut Bench<'_, '_>, size: i32) -> Result<(), Ended> {
    let helper = bench.helper();
    bench.load(|asm| {
        put_text(asm, -24, FORMAT);
        stack(asm, Reg::R1, -24);
        // Data for the helper that takes some: none.
        asm.mov_imm(Reg::R3, 0).mov_imm(Reg::R4, 0).mov_imm(Reg::R2, size).call(helper);
    })
}
