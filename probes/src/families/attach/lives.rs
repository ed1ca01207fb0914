//! How long an attachment lasts.

use crate::bpf;
use crate::errno::Errno;
use crate::lsm::{Attached, deny};
use crate::record::Phase;
use crate::rules::{Chain, SESSION, in_child, member, outcome_word, start_child, until};
use crate::session::{Attempt, Ended, Session, Stop};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

const EPERM: i32 = deny(Errno::EPERM);
/// Names in the guest's BPF file system.
const PIN: &std::ffi::CStr = c"/sys/fs/bpf/attach";
const PIN_PATH: &str = "/sys/fs/bpf/attach";

/// A program that denies, and its trigger; attached or not.
pub(super) fn start(attempt: &mut Attempt<'_>) -> Result<(Chain, OwnedFd), Ended> {
    let _ = std::fs::remove_file(PIN_PATH);
    let chain = Chain::new(attempt, SESSION)?;
    let program = attempt.load_lsm(&member(&SESSION, &chain.results, 0))?;
    Ok((chain, program))
}

/// Does the trigger, and notes whether the program ran and denied it.
pub(super) fn ask(attempt: &mut Attempt<'_>, chain: &mut Chain, key: &str) -> bool {
    let round = chain.round(attempt, &[EPERM]);
    round.note_verdicts(attempt, &[EPERM]);
    let what = match (round.ran.is_empty(), &round.outcome) {
        (false, Err(Errno::EPERM)) => "it runs, and denies".to_owned(),
        (true, Ok(_)) => "it does not run".to_owned(),
        (false, outcome) => format!("it runs, and user space sees {}", outcome_word(outcome)),
        (true, outcome) => format!("it does not run, and user space sees {}", outcome_word(outcome)),
    };
    attempt.see(key, what);
    round.outcome == Err(Errno::EPERM)
}

/// Waits, a little, until the program no longer runs: a link whose name is gone is released by a worker (7.3
/// kernel/bpf/syscall.c, bpf_link_put), which at first was told by a callback of RCU (6.9 kernel/bpf/inode.c,
/// bpf_free_inode). Whether it did until the end.
///
/// Also where that is not the question: the link is released by a worker, and on 6.4.0 and 6.6.17 a program that was
/// attached to the hook before that was not called by some calls during it (seen, and not explained).
pub(super) fn wait_for_its_end(attempt: &mut Attempt<'_>, chain: &mut Chain) -> bool {
    let mut runs = true;
    until(|| {
        runs = !chain.round(attempt, &[EPERM]).ran.is_empty();
        !runs
    });
    runs
}

pub(super) fn ask_in_the_end(attempt: &mut Attempt<'_>, chain: &mut Chain, key: &str) {
    let runs = wait_for_its_end(attempt, chain);
    attempt.see(key, if runs { "it still runs" } else { "it does not run, in the end" });
}

/// The program's descriptor goes, the link stays.
pub(super) fn program_closed(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("link-kept", |attempt| {
        let (mut chain, program) = start(attempt)?;
        let _link = attempt.attach(&program)?;
        drop(program);
        ask(attempt, &mut chain, "with the link alone");
        attempt.runs(chain.results.runs());
        Ok(())
    })
}

/// The link's descriptor goes, the program stays.
pub(super) fn link_closed(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("program-kept", |attempt| {
        let (mut chain, program) = start(attempt)?;
        let link = attempt.attach(&program)?;
        ask(attempt, &mut chain, "with the link");
        drop(link);
        ask(attempt, &mut chain, "at once after it is closed");
        attempt.runs(chain.results.runs());
        Ok(())
    })
}

/// A child attaches and ends.
pub(super) fn dead_process(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("after-its-end", |attempt| {
        let (mut chain, program) = start(attempt)?;
        let (said, say) = std::io::pipe().map_err(|error| Ended::could_not("make a pipe", error))?;
        let child = start_child(|| {
            let link = bpf::raw_tracepoint_open(&program, None, 0);
            let _ = (&say).write_all(&link.as_ref().err().map_or(0, |errno| errno.raw()).to_ne_bytes());
            loop {
                // SAFETY: pause takes nothing and touches no memory.
                unsafe { libc::pause() };
            }
        })?;
        drop(say);
        let mut number = [0_u8; 4];
        let heard = (&said).read_exact(&mut number);
        let attached = match (heard, i32::from_ne_bytes(number)) {
            (Ok(()), 0) => Ok(()),
            (Ok(()), errno) => Err(Ended::Refused(Errno::from_raw(errno))),
            (Err(error), _) => Err(Ended::could_not("hear from the child", error)),
        };
        attempt.at(Phase::Attach);
        if attached.is_ok() {
            ask(attempt, &mut chain, "while the process that attached it lives");
            attempt.runs(chain.results.runs());
        }
        let ended = kill(child, Signal::SIGKILL).and_then(|()| waitpid(child, None));
        ended.map_err(|errno| Ended::could_not("end the child", errno))?;
        attached?;
        ask(attempt, &mut chain, "after the end of the process that attached it");
        Ok(())
    })
}

/// A child inherits the link, and the parent closes it.
pub(super) fn inherited(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("child-keeps-it", |attempt| {
        let (mut chain, program) = start(attempt)?;
        let link = attempt.attach(&program)?;
        let child = start_child(|| {
            loop {
                // SAFETY: pause takes nothing and touches no memory.
                unsafe { libc::pause() };
            }
        })?;
        drop(link);
        ask(attempt, &mut chain, "the child alone has it");
        let ended = kill(child, Signal::SIGKILL).and_then(|()| waitpid(child, None));
        ended.map_err(|errno| Ended::could_not("end the child", errno))?;
        ask(attempt, &mut chain, "after the child's end");
        attempt.runs(chain.results.runs());
        Ok(())
    })
}

/// A link with a name.
pub(super) fn pinned(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("name-alone", |attempt| {
        let (mut chain, program) = start(attempt)?;
        let link = attempt.attach(&program)?;
        attempt.calls(Phase::Attach, bpf::obj_pin(&link, PIN))?;
        drop((link, program));
        ask(attempt, &mut chain, "with the name alone");
        unpin()?;
        attempt.runs(chain.results.runs());
        ask_in_the_end(attempt, &mut chain, "after the name is removed");
        Ok(())
    })
}

fn unpin() -> Result<(), Ended> {
    std::fs::remove_file(PIN_PATH).map_err(|error| Ended::could_not("remove the name", error))
}

/// A child attaches, pins and ends.
pub(super) fn pinned_by_the_dead(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("after-its-end", |attempt| {
        let (mut chain, program) = start(attempt)?;
        in_child(|| {
            if let Ok(link) = bpf::raw_tracepoint_open(&program, None, 0) {
                let _ = bpf::obj_pin(&link, PIN);
            }
        })?;
        drop(program);
        ask(attempt, &mut chain, "after the end of the process that pinned it");
        attempt.runs(chain.results.runs());
        unpin()?;
        wait_for_its_end(attempt, &mut chain);
        Ok(())
    })
}

/// A pinned link, opened by its name, whose name is then removed.
pub(super) fn opened_again(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("by-its-name", |attempt| {
        let (mut chain, program) = start(attempt)?;
        let link = attempt.attach(&program)?;
        let before = bpf::link_info(&link).map(|info| info.id);
        attempt.calls(Phase::Attach, bpf::obj_pin(&link, PIN))?;
        drop(link);
        let again = attempt.calls(Phase::Attach, bpf::obj_get(PIN, 0))?;
        let after = bpf::link_info(&again).map(|info| info.id);
        match (before, after) {
            // Links have ids since 5.8 (5.7 kernel/bpf/syscall.c, bpf_obj_get_info_by_fd).
            (Err(Errno::EINVAL), Err(Errno::EINVAL)) => {
                attempt.see("it has the same id", "the kernel tells nothing of links, EINVAL");
            }
            (before, after) => {
                let before = attempt.calls(Phase::Read, before)?;
                let after = attempt.calls(Phase::Read, after)?;
                attempt.holds("it has the same id", before == after);
            }
        }
        unpin()?;
        ask(attempt, &mut chain, "after the name is removed, still open");
        attempt.runs(chain.results.runs());
        drop(again);
        ask_in_the_end(attempt, &mut chain, "after it is closed");
        Ok(())
    })?;
    session.case("for-reading-only", |attempt| {
        let (mut chain, program) = start(attempt)?;
        let link = attempt.attach(&program)?;
        attempt.calls(Phase::Attach, bpf::obj_pin(&link, PIN))?;
        let opened = bpf::obj_get(PIN, bpf::BPF_F_RDONLY);
        unpin()?;
        drop(link);
        wait_for_its_end(attempt, &mut chain);
        attempt.calls(Phase::Attach, opened).map(drop)
    })
}

/// A program with a name.
pub(super) fn pinned_program(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("by-its-name", |attempt| {
        let (mut chain, program) = start(attempt)?;
        attempt.calls(Phase::Attach, bpf::obj_pin(&program, PIN))?;
        drop(program);
        ask(attempt, &mut chain, "pinned");
        let program = attempt.calls(Phase::Attach, bpf::obj_get(PIN, 0))?;
        let link = attempt.attach(&program)?;
        unpin()?;
        let attached = Attached { program, link };
        ask(attempt, &mut chain, "opened by its name and attached");
        drop(attached);
        attempt.runs(chain.results.runs());
        Ok(())
    })
}

/// A name elsewhere.
pub(super) fn pinned_elsewhere(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, path) in [("tmpfs", c"/tmp/pin"), ("missing-folder", c"/sys/fs/bpf/missing/pin")] {
        session.case(name, |attempt| {
            let (_chain, program) = start(attempt)?;
            let link = attempt.attach(&program)?;
            attempt.calls(Phase::Attach, bpf::obj_pin(&link, path))
        })?;
    }
    Ok(())
}
