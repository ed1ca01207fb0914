//! `socket(2)` answered with an errno of the program's choice.

use super::child::in_child;
use crate::aya_load::Global;
use crate::errno::Errno;
use crate::lsm::deny;
use crate::objects::SOCKET_CREATE;
use crate::objects::layout::SocketCreate;
use crate::session::{Attempt, Ended, Session, Stop};
use std::os::fd::{FromRawFd, OwnedFd};

/// What the program denies with, from the usual to the odd: no hook returns the last by itself.
const DENIALS: [Errno; 5] =
    [Errno::EPERM, Errno::EACCES, Errno::ENOMEM, Errno::EINTR, Errno::from_raw(libc::EXFULL)];

pub(super) fn probe(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("allow", |attempt| answered(attempt, None))?;
    for errno in DENIALS {
        session.case(&format!("deny-{errno}"), |attempt| answered(attempt, Some(errno)))?;
    }
    Ok(())
}

fn answered(attempt: &mut Attempt<'_>, errno: Option<Errno>) -> Result<(), Ended> {
    let verdict = errno.map_or(0, deny);
    let globals = [Global::target(), Global::i32("FAMILY", libc::AF_UNIX), Global::i32("VERDICT", verdict)];
    let object = attempt.attach_object(&SOCKET_CREATE, &globals)?;
    let other = in_child(|| socket(libc::AF_UNIX, libc::SOCK_DGRAM).map(drop));
    let other_family = socket(libc::AF_INET, libc::SOCK_DGRAM);
    let answer = attempt.trigger(|| socket(libc::AF_UNIX, libc::SOCK_STREAM));
    let results: SocketCreate = object.results()?;
    attempt.runs(results.runs);
    match errno {
        None => attempt.outcome("socket", &answer),
        Some(errno) => attempt.denial("socket", &answer, errno),
    }
    attempt.outcome("socket of another family", &other_family);
    attempt.outcome("socket of another process", &other.map_err(|why| Ended::could_not("ask a child", why))?);
    attempt.see("verdicts", results.verdicts);
    let arguments = (results.family, results.kind, results.protocol, results.kern);
    attempt.same("arguments", arguments, (i64::from(libc::AF_UNIX), i64::from(libc::SOCK_STREAM), 0, 0));
    Ok(())
}

/// `socket(2)` with protocol 0 and no flags in the type, which the kernel would take out before it calls the hook.
fn socket(family: i32, kind: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: plain numbers.
    let fd = Errno::result(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
