//! `socket_create` answers with a verdict of the loader's choice when the target asks for one family of sockets.
#![no_std]
#![no_main]

use aya_ebpf::{
    macros::{lsm, map},
    maps::Array,
    programs::LsmContext,
};
use probes_ebpf::{global, layout::SocketCreate, object, results, runs_in};

object!();

/// The process to act for; nobody else is looked at.
#[unsafe(no_mangle)]
static TARGET_TGID: u32 = 0;
/// The family to answer for; a family that no kernel has, until the loader sets one.
#[unsafe(no_mangle)]
static FAMILY: i32 = -1;
/// The answer: 0 or a negative errno.
#[unsafe(no_mangle)]
static VERDICT: i32 = 0;

/// What the runs for the target left.
#[map]
static RESULTS: Array<SocketCreate> = Array::with_max_entries(1, 0);

/// `int socket_create(int family, int type, int protocol, int kern)`.
#[lsm(hook = "socket_create")]
fn socket_create(ctx: LsmContext) -> i32 {
    let ret: i32 = ctx.arg(4);
    if !runs_in(&TARGET_TGID) {
        return ret;
    }
    let Some(results) = results(&RESULTS) else { return ret };
    let (family, kind, protocol, kern): (i32, i32, i32, i32) =
        (ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(3));
    results.runs += 1;
    results.family = family.into();
    results.kind = kind.into();
    results.protocol = protocol.into();
    results.kern = kern.into();
    if ret != 0 {
        results.already_refused += 1;
        return ret;
    }
    if family != global(&FAMILY) {
        return 0;
    }
    results.verdicts += 1;
    global(&VERDICT)
}
