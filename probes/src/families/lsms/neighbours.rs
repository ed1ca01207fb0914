//! A program beside an LSM that denies: whether it is asked, and whose errno is seen.

use super::apparmor;
use crate::errno::Errno;
use crate::lsm::deny;
use crate::record::Phase;
use crate::results::{RUNS, TARGET};
use crate::rules::{Chain, Site, outcome_word, start_child};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::triggers::creds::drop_capabilities;
use crate::triggers::{Arm, files};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::{self, File};

/// Any errno that none of the other LSMs gives.
const OWN: Errno = Errno::EBUSY;
/// What a child leaves that did not get as far as the act, and one whose act left no errno.
const NOT_READY: i32 = 255;
const NO_ERRNO: i32 = 254;

/// Attaches a program to `hook`, and does `act` in a child process which is named as target: first while the program
/// allows, then while it denies with its own errno.
fn beside(
    attempt: &mut Attempt<'_>,
    hook: &'static str,
    act: impl Fn() -> Result<(), Errno>,
) -> Result<(), Ended> {
    beside_after(attempt, hook, || Ok(()), act)
}

/// The same, for a child process that does `prepare` before it is named.
fn beside_after(
    attempt: &mut Attempt<'_>,
    hook: &'static str,
    prepare: impl Fn() -> Result<(), Errno>,
    act: impl Fn() -> Result<(), Errno>,
) -> Result<(), Ended> {
    // The site's own trigger is not used.
    let site = Site { hook, ret: Some(slots(attempt, hook)?), recipe: files::getfl };
    let mut chain = Chain::of(attempt, site, 1)?;
    let mut allowed = None;
    for (key, verdict) in [("the program allows", 0), ("the program denies with EBUSY", deny(OWN))] {
        chain.set_verdicts(&[verdict]);
        chain.results.set(RUNS, 0);
        attempt.at(Phase::Trigger);
        let arm = Arm::new(&chain.results);
        let child = start_child(|| {
            let status = match prepare() {
                Ok(()) => arm.during(&act).err().map_or(0, |errno| match errno.raw() {
                    number @ 1..NO_ERRNO => number,
                    _ => NO_ERRNO,
                }),
                Err(_) => NOT_READY,
            };
            // SAFETY: _exit takes a plain number and does not return.
            unsafe { libc::_exit(status) }
        })?;
        let status = waitpid(child, None).map_err(|errno| Ended::could_not("wait for the child", errno))?;
        let WaitStatus::Exited(_, number) = status else {
            return Err(Ended::CouldNotTell(format!("the child ended oddly: {status:?}")));
        };
        let outcome = match number {
            NOT_READY => return Err(Ended::CouldNotTell("the child could not make itself ready".into())),
            NO_ERRNO => return Err(Ended::CouldNotTell("what the child did left no errno".into())),
            0 => Ok(()),
            number => Err(Errno::from_raw(number)),
        };
        attempt.at(Phase::Read);
        let runs = chain.results.get(RUNS);
        attempt.ran(runs > 0);
        let asked = if runs == 0 { "is not asked" } else { "is asked" };
        attempt.see(key, format!("it {asked}; user space sees {}", outcome_word(&outcome)));
        match allowed {
            None => allowed = Some(outcome),
            Some(_) if runs == 0 => {}
            // Another errno than the program's is a denial only of what passes without it.
            Some(Ok(())) => attempt.denied_as(&outcome, &(), OWN),
            Some(Err(_)) => attempt.returned(&outcome, OWN),
        }
    }
    chain.results.set(TARGET, crate::results::NOBODY);
    Ok(())
}

/// The number of a hook's arguments, behind which is `ret`.
fn slots(attempt: &Attempt<'_>, hook: &str) -> Result<i32, Ended> {
    let id = attempt.hook(hook)?;
    let proto = attempt.btf()?.prototype(id).map_or(0, |proto| proto.params.len());
    Ok(i32::try_from(proto).unwrap_or(0))
}

const SYS_LANDLOCK_CREATE_RULESET: libc::c_long = 444;
const SYS_LANDLOCK_RESTRICT_SELF: libc::c_long = 446;
const LANDLOCK_ACCESS_FS_READ_FILE: u64 = 1 << 2;

/// Restricts this process so that it may read no file.
fn restrict() -> Result<(), Errno> {
    let handled = LANDLOCK_ACCESS_FS_READ_FILE;
    // SAFETY: the attribute is its first member, 8 bytes, which lives across the call.
    let ruleset =
        Errno::result(unsafe { libc::syscall(SYS_LANDLOCK_CREATE_RULESET, &raw const handled, 8, 0) })?;
    // SAFETY: prctl and landlock_restrict_self take numbers.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    // SAFETY: as above.
    Errno::result(unsafe { libc::syscall(SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0) }).map(drop)
}

pub(super) fn landlock(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("file_open", |attempt| {
        fs::write("/tmp/secret", b"x").map_err(|error| Ended::could_not("make a file", error))?;
        attempt.at(Phase::Open);
        // SAFETY: with the flag LANDLOCK_CREATE_RULESET_VERSION nothing is read.
        let version = Errno::result(unsafe { libc::syscall(SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1) });
        version.map_err(|errno| match errno {
            Errno::ENOSYS => Ended::Absent("landlock's system calls".to_owned()),
            _ => Ended::Refused(errno),
        })?;
        beside_after(attempt, "file_open", restrict, || {
            File::open("/tmp/secret").map(drop).map_err(Errno::from)
        })
    })
}

/// A task without capabilities traces another that is not its descendant, which yama forbids.
pub(super) fn yama(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("ptrace_access_check", |attempt| {
        let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
        let scope = scope.map_err(|error| Ended::could_not("read yama's scope", error))?;
        fs::write("/proc/sys/kernel/yama/ptrace_scope", "1")
            .map_err(|error| Ended::could_not("set yama's scope", error))?;
        let sibling = start_child(|| {
            let _ = drop_capabilities(&[]);
            loop {
                // SAFETY: pause takes nothing and touches no memory.
                unsafe { libc::pause() };
            }
        })?;
        wait_for_drop(sibling)?;
        let seize =
            || nix::sys::ptrace::seize(sibling, nix::sys::ptrace::Options::empty()).map_err(Errno::from);
        let result = beside_after(attempt, "ptrace_access_check", || drop_capabilities(&[]), seize);
        let _ = kill(sibling, Signal::SIGKILL);
        let _ = waitpid(sibling, None);
        let _ = fs::write("/proc/sys/kernel/yama/ptrace_scope", scope.trim());
        result
    })
}

/// Waits until the sibling has given up its capabilities.
fn wait_for_drop(pid: Pid) -> Result<(), Ended> {
    let mut dropped = false;
    crate::rules::until(|| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
        dropped = line.is_some_and(|caps| caps.trim().chars().all(|digit| digit == '0'));
        dropped
    });
    if dropped { Ok(()) } else { Err(Ended::CouldNotTell("the sibling keeps its capabilities".into())) }
}

pub(super) fn capability(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("missing", |attempt| {
        let rename = || nix::unistd::sethostname("other").map_err(Errno::from);
        beside_after(attempt, "capable", || drop_capabilities(&[]), rename)
    })?;
    session.case("present", |attempt| {
        beside(attempt, "capable", || nix::unistd::sethostname("guest").map_err(Errno::from))
    })
}

/// Lockdown for confidentiality keeps the kernel's memory image, whose open(2) gives the hook's own errno (7.3
/// fs/proc/kcore.c, open_kcore); others, as iopl(2), make EPERM of any. It lasts until the machine ends.
pub(super) fn lockdown(session: &mut Session<'_>) -> Result<(), Stop> {
    let open = || File::open("/proc/kcore").map(drop).map_err(Errno::from);
    session.case("locked_down", |attempt| {
        open().map_err(|errno| Ended::could_not("open the memory image before lockdown", errno))?;
        fs::write("/sys/kernel/security/lockdown", "confidentiality")
            .map_err(|error| Ended::could_not("lock down", error))?;
        beside(attempt, "locked_down", open)
    })
}

/// A process that AppArmor confines opens a file. The profile has no rules about files, so all are denied.
pub(super) fn apparmor(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("file_open", |attempt| {
        fs::write("/tmp/secret", b"x").map_err(|error| Ended::could_not("make a file", error))?;
        apparmor::load_profile()?;
        beside_after(attempt, "file_open", apparmor::confine, || {
            File::open("/tmp/secret").map(drop).map_err(Errno::from)
        })
    })
}

/// Who is not the owner of a file and has no capability may not label it, says SELinux, which has no policy yet.
pub(super) fn selinux(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("inode_setxattr", |attempt| {
        let path = c"/tmp/anothers";
        fs::write("/tmp/anothers", b"x")
            .and_then(|()| std::os::unix::fs::chown("/tmp/anothers", Some(1000), Some(1000)))
            .map_err(|error| Ended::could_not("make another's file", error))?;
        beside_after(
            attempt,
            "inode_setxattr",
            || drop_capabilities(&[]),
            || {
                let (name, value) = (c"security.selinux", c"label");
                // SAFETY: three terminated strings, of the last of which 5 bytes are read.
                let result =
                    unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), 5, 0) };
                Errno::result(result).map(drop)
            },
        )
    })
}
