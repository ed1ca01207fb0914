//! BPF tokens (6.9): a BPF file system that is mounted to delegate, and a process in its user namespace.

use super::names::allowing;
use crate::bpf::{self, BPF_LSM_MAC};
use crate::errno::Errno;
use crate::record::Phase;
use crate::session::{Ended, Session, Stop};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

const FSCONFIG_SET_STRING: usize = 1;
const FSCONFIG_CMD_CREATE: usize = 6;
/// What the child does that is no part of the question.
const ROOT: &str = "open the root of the mount";

/// The child has every capability in a user namespace of its own, and the file system's context; the parent, who has them
/// all outside, says what is delegated and creates it; then the child makes a token and loads.
pub(super) fn load(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, delegated) in [("delegated", true), ("other-program-type-delegated", false)] {
        session.case(name, |attempt| {
            // Without it the mount says nothing either: kernels take options there that they do not know (6.8
            // kernel/bpf/inode.c, `bpf_parse_param`).
            if attempt.btf()?.enum_value(None, "BPF_TOKEN_CREATE").is_none() {
                return Err(Ended::Absent("BPF_TOKEN_CREATE of bpf(2)".into()));
            }
            let id = attempt.hook("file_open")?;
            let (said, say) = pipe()?;
            let (heard, hear) = pipe()?;
            // SAFETY: a probe's process has one thread, so its child may do anything a fresh process may.
            let child = match unsafe { fork() } {
                Err(errno) => return Err(Ended::could_not("start a child", errno)),
                Ok(ForkResult::Child) => {
                    drop((said, hear));
                    let answer = in_child(id, &say, &heard);
                    let _ = File::from(say).write_all(answer.as_bytes());
                    // SAFETY: _exit takes a plain number and does not return.
                    unsafe { libc::_exit(0) }
                }
                Ok(ForkResult::Parent { child }) => child,
            };
            drop((say, heard));
            let delegate = context_of(child.as_raw(), &said).map(|context| delegate(&context, delegated));
            let _ = File::from(hear).write_all(&[u8::from(matches!(delegate, Ok(Ok(()))))]);
            let mut answer = String::new();
            let read = File::from(said).read_to_string(&mut answer);
            let _ = waitpid(child, None);
            let delegate = delegate?;
            attempt.at(Phase::Load);
            attempt.outcome("the mount that delegates", &delegate);
            read.map_err(|error| Ended::could_not("hear from the child", error))?;
            if matches!(delegate, Ok(())) && answer.is_empty() {
                return Err(Ended::CouldNotTell("the child said nothing".to_owned()));
            }
            for line in answer.lines() {
                match line.split_once('=') {
                    Some((ROOT, errno)) => return Err(Ended::could_not(ROOT, errno)),
                    Some((key, value)) => attempt.see(key, value),
                    None => {}
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Ended> {
    nix::unistd::pipe().map_err(|errno| Ended::could_not("make a pipe", errno))
}

/// A system call of numbers, strings and descriptors that nix does not have.
fn call(number: libc::c_long, args: [usize; 5]) -> Result<RawFd, Errno> {
    let [a, b, c, d, e] = args;
    // SAFETY: the callers pass numbers, and addresses of C strings that live across the call.
    let result = Errno::result(unsafe { libc::syscall(number, a, b, c, d, e) })?;
    Ok(RawFd::try_from(result).unwrap_or(-1))
}

fn text(text: &CStr) -> usize {
    text.as_ptr().expose_provenance()
}

fn index(fd: RawFd) -> usize {
    usize::try_from(fd).unwrap_or(usize::MAX)
}

/// The kernel has just made this descriptor for us.
fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: as said; the callers have it from a system call.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Takes the file system's context out of the child.
fn context_of(child: i32, said: &OwnedFd) -> Result<OwnedFd, Ended> {
    let mut number = [0_u8; 8];
    let heard = said.try_clone().and_then(|said| File::from(said).read_exact(&mut number));
    heard.map_err(|error| Ended::could_not("hear from the child", error))?;
    let [unshared, remote] = [0, 4].map(|at| {
        let word = number.get(at..).and_then(|bytes| bytes.first_chunk());
        word.map_or(0, |word| i32::from_ne_bytes(*word))
    });
    for (what, answer) in [("unshare", unshared), ("fsopen", remote)] {
        if answer < 0 {
            return Err(Ended::could_not(what, Errno::from_raw(answer)));
        }
    }
    let process = call(libc::SYS_pidfd_open, [index(child), 0, 0, 0, 0]).map(owned);
    let process = process.map_err(|errno| Ended::could_not("pidfd_open", errno))?;
    let context =
        call(libc::SYS_pidfd_getfd, [index(process.as_raw_fd()), index(remote), 0, 0, 0]).map(owned);
    context.map_err(|errno| Ended::could_not("pidfd_getfd", errno))
}

/// Says what is delegated, and creates the file system.
fn delegate(context: &OwnedFd, lsm: bool) -> Result<(), Errno> {
    let context = context.as_raw_fd();
    let set = |key: &CStr, value: &CStr| {
        call(libc::SYS_fsconfig, [index(context), FSCONFIG_SET_STRING, text(key), text(value), 0])
    };
    set(c"delegate_cmds", c"any")?;
    set(c"delegate_maps", c"any")?;
    set(c"delegate_progs", if lsm { c"any" } else { c"0x2" })?;
    set(c"delegate_attachs", c"any")?;
    call(libc::SYS_fsconfig, [index(context), FSCONFIG_CMD_CREATE, 0, 0, 0]).map(drop)
}

/// What the child does; gives lines of `what=answer`.
fn in_child(id: u32, say: &OwnedFd, heard: &OwnedFd) -> String {
    let refused = |errno: Errno| -errno.raw();
    let unshared = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(Errno::from);
    let unshared = unshared.map_or_else(refused, |()| 0);
    let context = if unshared == 0 { call(libc::SYS_fsopen, [text(c"bpf"), 0, 0, 0, 0]) } else { Ok(0) };
    let number = context.unwrap_or_else(refused);
    let answers = [unshared.to_ne_bytes(), number.to_ne_bytes()].concat();
    let mut word = [0_u8];
    let told = File::from(match say.try_clone() {
        Ok(fd) => fd,
        Err(error) => return format!("pipe={error}\n"),
    })
    .write_all(&answers)
    .and_then(|()| File::from(heard.try_clone()?).read_exact(&mut word));
    if told.is_err() || word[0] == 0 {
        return String::new();
    }
    let word = |result: &Result<OwnedFd, Errno>| {
        result.as_ref().map_or_else(|errno| errno.name(), |_| "ok".to_owned())
    };
    let mount = call(libc::SYS_fsmount, [index(number), 0, 0, 0, 0]).map(owned);
    let mut answer = format!("fsmount={}\n", word(&mount));
    let Ok(mount) = mount else { return answer };
    let root = call(libc::SYS_openat, [index(mount.as_raw_fd()), text(c"."), 0, 0, 0]).map(owned);
    let root = match root {
        Ok(root) => root,
        Err(errno) => return answer + &format!("{ROOT}={}\n", errno.name()),
    };
    let token = bpf::token_create(root);
    answer += &format!("BPF_TOKEN_CREATE={}\n", word(&token));
    let Ok(token) = token else { return answer };
    let Ok(spec) = allowing(id, BPF_LSM_MAC) else { return answer };
    let without = bpf::prog_load(&spec, 0).map_err(|refused| refused.errno);
    answer += &format!("BPF_PROG_LOAD without the token={}\n", word(&without));
    let program = bpf::prog_load_with_token(&spec, token.as_raw_fd()).map_err(|refused| refused.errno);
    answer += &format!("BPF_PROG_LOAD with the token={}\n", word(&program));
    let Ok(program) = program else { return answer };
    let link = bpf::raw_tracepoint_open(&program, None, 0);
    answer + &format!("BPF_RAW_TRACEPOINT_OPEN={}\n", word(&link))
}
