//! Signals to the task that runs the program.

use super::bench::{Bench, keep, open_file, slot};
use super::{Row, canonical, case};
use crate::helper;
use crate::insn::Reg;
use crate::session::Ended;
use crate::spec::source;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use std::fs;

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
    bench.attempt.see("pending before for", pending()?);
    answer(bench, Signal::SIGUSR1 as i32)?;
    let after = pending()?;
    bench.attempt.see("pending after for", after);
    if after != NOBODY {
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

/// What stands in records when the signal waits for none.
const NOBODY: &str = "nobody";

/// For whom the signal waits: the thread has a set of its own beside the one of its process (6.12 fs/proc/array.c,
/// `task_sig`).
fn pending() -> Result<&'static str, Ended> {
    let status = fs::read_to_string("/proc/thread-self/status")
        .map_err(|error| Ended::could_not("read the pending signals", error))?;
    let waits = |field: &str| {
        let set = status.lines().find_map(|line| line.strip_prefix(field));
        let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        set.map(|set| set >> (Signal::SIGUSR1 as u32 - 1) & 1 == 1)
    };
    match (waits("SigPnd:"), waits("ShdPnd:")) {
        (Some(false), Some(false)) => Ok(NOBODY),
        (Some(true), Some(false)) => Ok("the thread"),
        (Some(false), Some(true)) => Ok("the process"),
        (Some(true), Some(true)) => Ok("both"),
        (None, _) | (_, None) => Err(Ended::CouldNotTell("the status names no pending signals".into())),
    }
}
