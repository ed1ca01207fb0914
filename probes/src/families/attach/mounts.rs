//! How long a pinned link lasts when its file system goes, and who else may open it.

use super::lives::{ask, ask_in_the_end, start, wait_for_its_end};
use crate::bpf;
use crate::errno::Errno;
use crate::lsm::deny;
use crate::record::Phase;
use crate::rules::{Chain, Site, UNPRIVILEGED_DISABLED, member, start_child, until};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::triggers::tasks;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{Read, Write, pipe};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};

/// Where the file system is that holds the link's only name, in a `/tmp` of this probe's own.
const FOLDER: &str = "/tmp/pins";
const NAME: &CStr = c"/tmp/pins/link";
/// Where it is bound as well.
const SECOND: &str = "/tmp/second";
/// Somebody else, without capabilities.
const OTHER: u32 = 1000;
/// A hook of its own for the program that tells when a file system's end has come through.
const GROUP: Site = Site { hook: "task_getpgid", ret: Some(1), recipe: tasks::get_group };

fn could_not(what: &str) -> impl Fn(nix::Error) -> Ended {
    move |errno| Ended::could_not(what, errno)
}

fn unmount(path: &str) -> Result<(), Errno> {
    umount2(path, MntFlags::empty()).map_err(Errno::from)
}

/// Mounts a file system of type bpf on a folder that is made where it is not there.
fn mount_bpf(path: &str) -> Result<(), Errno> {
    fs::create_dir_all(path)?;
    mount(Some("bpf"), path, Some("bpf"), MsFlags::empty(), None::<&str>).map_err(Errno::from)
}

/// A program whose link has a name on a new file system, and nothing else.
fn pinned(attempt: &mut Attempt<'_>) -> Result<Chain, Ended> {
    mount_bpf(FOLDER).map_err(|errno| Ended::could_not("mount a BPF file system", errno))?;
    let (mut chain, program) = start(attempt)?;
    let link = attempt.attach(&program)?;
    attempt.calls(Phase::Attach, bpf::obj_pin(&link, NAME))?;
    drop((link, program));
    ask(attempt, &mut chain, "with its name alone");
    Ok(chain)
}

/// Waits until what ends a link is through, which takes a worker and on earlier kernels a grace period: a link that only another file system
/// has, which is unmounted now, has ended. What has been given up before would have ended too.
fn settle(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    const EPERM: i32 = deny(Errno::EPERM);
    let could_not = |errno| Ended::could_not("end another link by unmounting", errno);
    mount_bpf("/tmp/settle").map_err(could_not)?;
    let mut chain = Chain::new(attempt, GROUP)?;
    let program = attempt.load_lsm(&member(&GROUP, &chain.results, 0))?;
    let link = attempt.attach(&program)?;
    bpf::obj_pin(&link, c"/tmp/settle/link").map_err(could_not)?;
    drop((link, program));
    let mut denies = |attempt: &mut Attempt<'_>| chain.round(attempt, &[EPERM]).outcome == Err(Errno::EPERM);
    if !denies(attempt) {
        return Err(Ended::could_not("have another link run", "it did not"));
    }
    unmount("/tmp/settle").map_err(could_not)?;
    let mut runs = true;
    until(|| {
        runs = denies(attempt);
        !runs
    });
    if runs { Err(Ended::could_not("end another link by unmounting", "it still runs")) } else { Ok(()) }
}

/// Notes whether the program runs when another's end would have come through.
fn ask_settled(attempt: &mut Attempt<'_>, chain: &mut Chain, key: &str) -> Result<(), Ended> {
    settle(attempt)?;
    ask(attempt, chain, key);
    Ok(())
}

pub(super) fn unmounted(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("unmounted", |attempt| {
        let mut chain = pinned(attempt)?;
        attempt.ran(chain.has_run());
        attempt.outcome("umount", &unmount(FOLDER));
        ask_in_the_end(attempt, &mut chain, "after it");
        Ok(())
    })?;
    session.case("the-link-opened-and-unmounted", |attempt| {
        let mut chain = pinned(attempt)?;
        attempt.ran(chain.has_run());
        let link = attempt.calls(Phase::Attach, bpf::obj_get(NAME, 0))?;
        attempt.outcome("umount", &unmount(FOLDER));
        ask_settled(attempt, &mut chain, "after it, while a descriptor of the link is open")?;
        drop(link);
        ask_in_the_end(attempt, &mut chain, "after it is closed");
        Ok(())
    })?;
    session.case("a-folder-of-it-open", folder_open)?;
    session.case("bound-elsewhere", bound)?;
    session.case("its-mount-namespace-ends", namespace)
}

/// A process has the file system's folder open.
fn folder_open(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    let mut chain = pinned(attempt)?;
    attempt.ran(chain.has_run());
    let folder = File::open(FOLDER).map_err(|error| Ended::could_not("open the folder", error))?;
    attempt.outcome("umount", &unmount(FOLDER));
    attempt.outcome("umount with MNT_DETACH", &umount2(FOLDER, MntFlags::MNT_DETACH).map_err(Errno::from));
    ask_settled(attempt, &mut chain, "after it, while the folder is open")?;
    attempt.outcome("opening the link by its name", &bpf::obj_get(NAME, 0));
    let path = CString::new(format!("/proc/self/fd/{}/link", folder.as_raw_fd()));
    let path = path.map_err(|error| Ended::could_not("write a path", error))?;
    attempt.outcome("opening the link below the open folder", &bpf::obj_get(&path, 0));
    drop(folder);
    ask_in_the_end(attempt, &mut chain, "after the folder is closed");
    Ok(())
}

/// The file system is mounted in two places.
fn bound(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    let mut chain = pinned(attempt)?;
    attempt.ran(chain.has_run());
    fs::create_dir_all(SECOND).map_err(|error| Ended::could_not("make a folder", error))?;
    mount(Some(FOLDER), SECOND, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(could_not("bind the file system"))?;
    attempt.outcome("umount of the first", &unmount(FOLDER));
    ask_settled(attempt, &mut chain, "after it")?;
    attempt.outcome("opening the link below the second", &bpf::obj_get(c"/tmp/second/link", 0));
    attempt.outcome("umount of the second", &unmount(SECOND));
    ask_in_the_end(attempt, &mut chain, "after that");
    Ok(())
}

/// The file system is mounted in a child's mount namespace alone, and the child is killed.
fn namespace(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    fs::create_dir_all(FOLDER).map_err(|error| Ended::could_not("make a folder", error))?;
    let (mut chain, program) = start(attempt)?;
    let link = attempt.attach(&program)?;
    let (said, say) = pipe().map_err(|error| Ended::could_not("make a pipe", error))?;
    let child = start_child(|| {
        let answer = in_namespace(&link);
        // SAFETY: the descriptor is this process's own copy, which it does not use again.
        unsafe { libc::close(link.as_raw_fd()) };
        let _ = (&say).write_all(&answer.err().map_or(0, Errno::raw).to_ne_bytes());
        loop {
            // SAFETY: pause takes nothing and touches no memory.
            unsafe { libc::pause() };
        }
    })?;
    drop((say, link, program));
    let answer = heard(&said);
    if answer == Ok(Ok(())) {
        ask_settled(attempt, &mut chain, "while a process is in the namespace")?;
        attempt.ran(chain.has_run());
        attempt.outcome("opening the link by its name from outside", &bpf::obj_get(NAME, 0));
    }
    let ended = kill(child, Signal::SIGKILL).and_then(|()| waitpid(child, None));
    ended.map_err(could_not("end the child"))?;
    answer?.map_err(|errno| Ended::could_not("pin in a namespace", errno))?;
    ask_in_the_end(attempt, &mut chain, "after the end of the last process there");
    Ok(())
}

fn in_namespace(link: &std::os::fd::OwnedFd) -> Result<(), Errno> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount_bpf(FOLDER)?;
    bpf::obj_pin(link, NAME)
}

/// What a child says of its call: 0 or an errno.
fn heard(mut said: &std::io::PipeReader) -> Result<Result<(), Errno>, Ended> {
    let mut number = [0; 4];
    said.read_exact(&mut number).map_err(|error| Ended::could_not("hear from the child", error))?;
    Ok(match i32::from_ne_bytes(number) {
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno)),
    })
}

/// Opening the link by its name, by another user and by the superuser.
pub(super) fn others(session: &mut Session<'_>) -> Result<(), Stop> {
    for disabled in UNPRIVILEGED_DISABLED {
        session.case(&format!("unprivileged_bpf_disabled-{}", disabled.0), |attempt| {
            let mut chain = pinned(attempt)?;
            attempt.ran(chain.has_run());
            let set = disabled.set();
            let asked = if set.is_ok() { ask_others(attempt) } else { Ok(()) };
            let refused = set.err();
            let unmounted = unmount(FOLDER);
            wait_for_its_end(attempt, &mut chain);
            refused.map_or(Ok(()), Err)?;
            asked?;
            unmounted.map_err(|errno| Ended::could_not("unmount", errno))
        })?;
    }
    Ok(())
}

fn ask_others(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    const PATH: &str = "/tmp/pins/link";
    let mode = |mode| fs::set_permissions(PATH, fs::Permissions::from_mode(mode));
    let could_not = |error| Ended::could_not("change whom the name belongs to", error);
    let facts = fs::metadata(PATH).map_err(could_not)?;
    attempt.see("its mode", format!("{:o}", facts.permissions().mode() & 0o7777));
    attempt.outcome("the superuser", &bpf::obj_get(NAME, 0));
    attempt.outcome("another user", &as_other(|| bpf::obj_get(NAME, 0).map(drop))?);
    mode(0o666).map_err(could_not)?;
    attempt.outcome("another user, with mode 666", &as_other(|| bpf::obj_get(NAME, 0).map(drop))?);
    attempt.outcome("another user's unlink", &as_other(|| fs::remove_file(PATH).map_err(Errno::from))?);
    mode(0o600).map_err(could_not)?;
    chown(PATH, Some(OTHER), Some(OTHER)).map_err(could_not)?;
    attempt.outcome("another user, whose it is", &as_other(|| bpf::obj_get(NAME, 0).map(drop))?);
    attempt.outcome("its owner's unlink", &as_other(|| fs::remove_file(PATH).map_err(Errno::from))?);
    Ok(())
}

/// What `call` gives in a process of another user, who has no capabilities.
fn as_other(call: impl FnOnce() -> Result<(), Errno>) -> Result<Result<(), Errno>, Ended> {
    /// What the child says when it could not become the other.
    const NOBODY: i32 = i32::MAX;
    let (said, say) = pipe().map_err(|error| Ended::could_not("make a pipe", error))?;
    let child = start_child(|| {
        let (user, group) = (Uid::from_raw(OTHER), Gid::from_raw(OTHER));
        let became = setgroups(&[])
            .and_then(|()| setresgid(group, group, group))
            .and_then(|()| setresuid(user, user, user));
        let number = match became {
            Ok(()) => call().err().map_or(0, Errno::raw),
            Err(_) => NOBODY,
        };
        let _ = (&say).write_all(&number.to_ne_bytes());
    })?;
    drop(say);
    let answer = heard(&said);
    waitpid(child, None).map_err(could_not("wait for the child"))?;
    match answer? {
        Err(errno) if errno.raw() == NOBODY => Err(Ended::could_not("become another user", "refused")),
        answer => Ok(answer),
    }
}
