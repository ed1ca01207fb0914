//! Programs of type tracing on the same function, or on the function that calls the hooks.

use crate::bpf::{BPF_MODIFY_RETURN, BPF_TRACE_FENTRY, BPF_TRACE_FEXIT};
use crate::errno::Errno;
use crate::lsm::deny;
use crate::rules::{
    BARE, Chain, Place, SESSION, Site, VOID, bare_is_held, judge, note, tracing, verdict_word,
    without_trampoline,
};
use crate::session::{Attempt, Ended, Session, Stop};
use std::os::fd::OwnedFd;

/// The places of the LSM program and of the tracing program.
const NAMES: [&str; 2] = ["the LSM program", "the tracing program"];
const EPERM: i32 = deny(Errno::EPERM);
const EACCES: i32 = deny(Errno::EACCES);

/// An LSM program on `site` and a tracing program on `function`, attached in this order or in the other.
fn pair(
    attempt: &mut Attempt<'_>,
    site: Site,
    function: &str,
    attach_type: u32,
    tracing_first: bool,
) -> Result<(Chain, OwnedFd), Ended> {
    let mut chain = Chain::new(attempt, site)?;
    let place = Place::nth(1);
    // What a tracing program of these types finds behind the arguments is the value returned so far; fentry has none.
    let ret = if attach_type == BPF_TRACE_FENTRY { None } else { site.ret };
    let program = tracing(attempt, function, attach_type, &chain.results, |asm| {
        note(asm, place, ret);
        if attach_type == BPF_MODIFY_RETURN {
            judge(asm, place);
        }
    })?;
    if tracing_first {
        let link = attempt.attach(&program)?;
        chain.add(attempt, |program| program)?;
        return Ok((chain, link));
    }
    chain.add(attempt, |program| program)?;
    let link = attempt.attach(&program)?;
    Ok((chain, link))
}

/// Rounds with these verdicts of the LSM program and the tracing program.
fn rounds(
    session: &mut Session<'_>,
    site: Site,
    function: &str,
    attach_type: u32,
    verdicts: &[[i32; 2]],
) -> Result<(), Stop> {
    for (name, tracing_first) in [("tracing-attached-first", true), ("tracing-attached-last", false)] {
        session.case(name, |attempt| {
            let (mut chain, _link) = pair(attempt, site, function, attach_type, tracing_first)?;
            for &[lsm, other] in verdicts {
                let round = chain.round(attempt, &[lsm, other]);
                let key = match attach_type {
                    BPF_MODIFY_RETURN => {
                        format!("LSM {}, fmod_ret {}", verdict_word(lsm), verdict_word(other))
                    }
                    _ => format!("LSM {}", verdict_word(lsm)),
                };
                let has_ret = |nth| site.ret.is_some() && (nth == 0 || attach_type != BPF_TRACE_FENTRY);
                attempt.see(&key, round.words_with(&NAMES, has_ret));
                round.note_verdicts(attempt, &[lsm]);
            }
            attempt.ran(chain.has_run());
            Ok(())
        })?;
    }
    Ok(())
}

pub(super) fn fmod_ret_on_security(session: &mut Session<'_>) -> Result<(), Stop> {
    let verdicts = [[0, 0], [EPERM, 0], [0, EACCES], [EPERM, EACCES]];
    rounds(session, SESSION, "security_task_getsid", BPF_MODIFY_RETURN, &verdicts)
}

pub(super) fn fentry_on_hook(session: &mut Session<'_>) -> Result<(), Stop> {
    rounds(session, SESSION, "bpf_lsm_task_getsid", BPF_TRACE_FENTRY, &[[0, 0], [EPERM, 0]])
}

pub(super) fn fexit_on_hook(session: &mut Session<'_>) -> Result<(), Stop> {
    rounds(session, SESSION, "bpf_lsm_task_getsid", BPF_TRACE_FEXIT, &[[0, 0], [EPERM, 0]])
}

/// Where an LSM program has made the function a trampoline, and where nobody has: 5.7 asks only in the second case
/// whether the function may be modified (5.7 kernel/bpf/verifier.c, check_attach_btf_id).
pub(super) fn fmod_ret_on_hook(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("with-a-trampoline", |attempt| {
        let function = "bpf_lsm_task_getsid";
        let (mut chain, _link) = pair(attempt, SESSION, function, BPF_MODIFY_RETURN, true)?;
        for [lsm, other] in [[0, 0], [EPERM, 0], [0, EACCES], [EPERM, EACCES]] {
            let round = chain.round(attempt, &[lsm, other]);
            let key = format!("LSM {}, fmod_ret {}", verdict_word(lsm), verdict_word(other));
            attempt.see(&key, round.words(&NAMES, true));
            round.note_verdicts(attempt, &[lsm]);
        }
        attempt.ran(chain.has_run());
        Ok(())
    })?;
    let held = bare_is_held(session);
    session.case("without-a-trampoline", |attempt| {
        let results = attempt.results()?;
        without_trampoline(held, || {
            tracing(attempt, &format!("bpf_lsm_{BARE}"), BPF_MODIFY_RETURN, &results, |_| {})
        })
        .map(drop)
    })
}

pub(super) fn fexit_on_void_hook(session: &mut Session<'_>) -> Result<(), Stop> {
    rounds(session, VOID, "bpf_lsm_file_set_fowner", BPF_TRACE_FEXIT, &[[0, 0]])
}
