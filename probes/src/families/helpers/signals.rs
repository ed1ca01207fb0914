//! Signals to the task that runs the program.

use super::bench::{Bench, keep, open_file, slot};
use super::{Row, canonical, case};
use crate::helper;
use crate::insn::Reg;
use crate::session::Ended;
use crate::spec::source;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

pub(super) const ROWS: &[Row] = &[
    Row {
        helper: helper::SEND_SIGNAL,
        asks: "send a signal to the process",
        sources: &[source("5.9", "kernel/trace/bpf_trace.c", "bpf_send_signal_common")],
        cases: &[canonical(send), case("no-such-signal", |bench| answer(bench, 65))],
    },
    Row {
        helper: helper::SEND_SIGNAL_THREAD,
        asks: "send a signal to the thread",
        sources: &[source("5.9", "kernel/trace/bpf_trace.c", "bpf_send_signal_common")],
        cases: &[canonical(send), case("no-such-signal", |bench| answer(bench, 65))],
    },
];

/// The signal is blocked, so that it stays to be found.
fn send(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let why = |errno: nix::errno::Errno| Ended::could_not("look after signals", errno);
    let mut set = SigSet::empty();
    set.add(Signal::SIGUSR1);
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), None).map_err(why)?;
    bench.attempt.see("pending before", pending());
    answer(bench, Signal::SIGUSR1 as i32)?;
    bench.attempt.see("pending after", pending());
    if pending() {
        set.wait().map_err(why)?; // takes it away
    }
    pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&set), None).map_err(why)
}

/// Notes what the helper returns for a signal.
fn answer(bench: &mut Bench<'_, '_>, signal: i32) -> Result<(), Ended> {
    let helper = bench.helper();
    let (results, _opened) = bench.run("file_open", open_file, |asm| {
        asm.mov_imm(Reg::R1, signal).call(helper);
        keep(asm, 0, Reg::R0);
    })?;
    bench.returned("returned", results.get(slot(0)));
    Ok(())
}

/// Whether the signal waits for this process or thread.
fn pending() -> bool {
    // SAFETY: all-zero is a set of signals, plain data, and the calls read and write only that.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&raw mut set) == 0 && libc::sigismember(&raw const set, libc::SIGUSR1) == 1
    }
}
