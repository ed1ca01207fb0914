//! Kfuncs about a program's output and error streams (6.17), which user space reads by the program's descriptor.

use super::body::Body;
use super::row::{Row, kfunc};
use crate::bpf::{ProgInfo, STDERR, STDOUT, prog_info, stream_read};
use crate::insn::{Reg, Size};
use crate::session::Attempt;
use crate::spec::source;

const STREAM: &str = "kernel/bpf/stream.c";

/// The rows of this subject; for the two names see `later`.
pub(super) fn rows() -> Vec<Row> {
    vec![print("bpf_stream_vprintk"), print("bpf_stream_vprintk_impl"), print_stack()]
}

/// Stream, format, arguments, their size, and the argument that only some kernels have.
fn arguments(b: &mut Body<'_>) {
    b.mov_imm(Reg::R1, 4711).stx(Size::DW, Reg::R10, -8, Reg::R1);
    b.mov_imm(Reg::R1, i64::from(STDOUT));
    b.text(Reg::R2, "the number %d\n");
    b.stack_address(Reg::R3, -8);
    b.mov_imm(Reg::R4, 8).mov_imm(Reg::R5, 0);
}

fn print(name: &'static str) -> Row {
    kfunc(name, "7.3", STREAM)
        .takes(arguments)
        .gives(0)
        .inspects(|attempt: &mut Attempt<'_>, program| {
            attempt.same("output", stream_read(program, STDOUT), Ok("the number 4711\n".to_owned()));
            attempt.same("errors", stream_read(program, STDERR), Ok(String::new()));
        })
        .also("no-such-stream", -i64::from(libc::ENOENT), |b| {
            b.mov_imm(Reg::R1, 3);
        })
        .also("too-few-arguments", -i64::from(libc::EINVAL), |b| {
            b.mov_imm(Reg::R4, 0);
        })
        .spoilt("misuse-format-not-constant", |b| b.page_address(Reg::R2, super::body::OUT))
        .spoilt("misuse-arguments-beyond-the-stack", |b| {
            b.mov_imm(Reg::R4, 16);
        })
        .cites(source("7.3", "kernel/bpf/stream.c", "bpf_prog_stream_read"))
}

fn print_stack() -> Row {
    kfunc("bpf_stream_print_stack", "7.3", STREAM)
        .takes(|b| {
            b.mov_imm(Reg::R1, i64::from(STDERR));
        })
        .gives(0)
        .inspects(|attempt, program| {
            let text = stream_read(program, STDERR).unwrap_or_default();
            // kernel/bpf/core.c, bpf_get_prog_name.
            let own =
                |info: ProgInfo| format!("bpf_prog_{:016x}_{}", u64::from_be_bytes(info.tag), info.name);
            let named = prog_info(program).is_ok_and(|info| text.contains(&own(info)));
            attempt.holds("the program's own function is in it", named);
        })
        .also("no-such-stream", -i64::from(libc::ENOENT), |b| {
            b.mov_imm(Reg::R1, 3);
        })
        .spoilt("misuse-pointer-for-number", |b| b.current(Reg::R1))
}
