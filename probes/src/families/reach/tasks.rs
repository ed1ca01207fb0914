//! Making a task, and acting as another user.

use super::Subject;
use super::way::{Doing, Failed, Way, doing};
use crate::errno::Errno;
use crate::spec::source;
use crate::triggers::children::{reap, reap_before_alarm, spawn};
use crate::triggers::files::owned;
use crate::triggers::uring::{ASYNC, OPENAT, Request, Ring};
use crate::triggers::{Arm, syscall, vacate};
use nix::sched::CloneFlags;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::ffi::CStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

pub(super) const MAKING: Subject = Subject {
    name: "task_alloc",
    what: "make a task",
    hooks: &["task_alloc", "cred_prepare"],
    ways: &[
        Way::new("fork", || child_of(clone)),
        Way::new("vfork", vfork),
        Way::new("clone3", || child_of(clone3)),
        Way::new("thread", thread),
        Way::new("worker-of-io_uring", || {
            asked(|arm, ring| arm.during(|| ring.request(nothing())).map(drop))
        })
        .by_worker(),
        Way::new("polling-thread-of-io_uring", || asked(|arm, _| arm.during(Ring::polled).map(drop)))
            .by_worker(),
    ],
    sources: &[
        source("7.3", "kernel/fork.c", "copy_process"),
        source("7.3", "kernel/cred.c", "copy_creds"),
        source("7.3", "io_uring/io-wq.c", "create_io_worker"),
        // What waits for a worker waits for ever if the first cannot be made.
        source("5.14", "fs/io-wq.c", "io_wqe_enqueue"),
        source("7.3", "io_uring/sqpoll.c", "io_sq_offload_create"),
    ],
};

pub(super) const BECOMING: Subject = Subject {
    name: "task_fix_setuid",
    what: "act as another user",
    hooks: &["task_fix_setuid", "cred_prepare", "userns_create", "uring_override_creds"],
    ways: &[
        Way::new("setresuid", || {
            becoming(|arm| {
                // SAFETY: takes three numbers.
                Errno::result(
                    arm.during(|| unsafe { libc::syscall(libc::SYS_setresuid, OTHER, OTHER, OTHER) }),
                )
                .map(drop)
            })
        }),
        Way::new("setfsuid", || {
            becoming(|arm| {
                // SAFETY: takes a number; what it gives is the id before.
                arm.during(|| unsafe { libc::syscall(libc::SYS_setfsuid, OTHER) });
                Ok(())
            })
        }),
        Way::new("unshare-CLONE_NEWUSER", || {
            becoming(|arm| {
                // SAFETY: takes a number.
                Errno::result(arm.during(|| unsafe { libc::unshare(libc::CLONE_NEWUSER) })).map(drop)
            })
        }),
        Way::new("io_uring-with-registered-credentials", registered).by_worker(),
    ],
    sources: &[
        source("7.3", "kernel/sys.c", "__sys_setresuid"),
        source("7.3", "kernel/sys.c", "__sys_setfsuid"),
        source("7.3", "kernel/user_namespace.c", "create_user_ns"),
        source("7.3", "io_uring/io_uring.c", "io_issue_sqe"),
    ],
};

/// A request that a worker does, and that does nothing.
fn nothing() -> Request {
    Request { fd: -1, how: ASYNC, ..Request::default() }
}

/// A user that is not root, and has nothing.
const OTHER: libc::uid_t = 4321;

/// Makes a child that leaves at once, and waits for it.
fn child_of(call: fn() -> Result<libc::c_long, Errno>) -> Result<Doing, Errno> {
    doing(move |arm: Arm| {
        let child = arm.during(|| {
            let child = call()?;
            if child == 0 {
                // SAFETY: takes a plain number and does not return.
                unsafe { libc::_exit(0) }
            }
            Ok::<_, Errno>(child)
        })?;
        waitpid(Pid::from_raw(i32::try_from(child).unwrap_or(0)), None)?;
        Ok("a child".to_owned())
    })
}

fn clone() -> Result<libc::c_long, Errno> {
    let signal = usize::try_from(libc::SIGCHLD).unwrap_or(0);
    // SAFETY: what fork(2) asks for, in a process that has one thread; the child leaves at once.
    unsafe { syscall(libc::SYS_clone, [signal, 0, 0, 0, 0, 0]) }
}

/// As vfork(2) has it: the child has its parent's memory, and the parent waits.
fn vfork() -> Result<Doing, Errno> {
    let mut stack = vec![0_u8; 64 * 1024];
    doing(move |arm: Arm| {
        let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
        let child = arm.during(|| {
            // SAFETY: this process waits while the child has its memory; the child has a stack of its own, and leaves.
            unsafe { nix::sched::clone(Box::new(|| 0), &mut stack, flags, Some(libc::SIGCHLD)) }
        })?;
        waitpid(child, None)?;
        Ok("a child".to_owned())
    })
}

fn clone3() -> Result<libc::c_long, Errno> {
    let mut args = [0_u64; 8]; // struct clone_args: flags, .., the signal at its end as the fifth
    args[4] = u64::from(libc::SIGCHLD.unsigned_abs());
    // SAFETY: a structure with its size, which asks for what fork(2) does; the child leaves at once.
    unsafe { syscall(libc::SYS_clone3, [args.as_ptr().addr(), size_of_val(&args), 0, 0, 0, 0]) }
}

fn thread() -> Result<Doing, Errno> {
    doing(|arm: Arm| {
        let thread = arm.during(|| std::thread::Builder::new().spawn(|| ()))?;
        Ok(if thread.join().is_ok() { "a thread" } else { "a thread that panicked" }.to_owned())
    })
}

/// In a child, whose workers are new, and which asks for no longer than five seconds.
fn asked(call: fn(Arm, &mut Ring) -> Result<(), Errno>) -> Result<Doing, Errno> {
    doing(move |arm: Arm| {
        let child = spawn(|| {
            // SAFETY: takes a number; what it does to this child at the end is what is wanted.
            unsafe { libc::alarm(5) };
            call(arm, &mut Ring::new()?)
        })?;
        let result = reap_before_alarm(child);
        arm.name_nobody();
        match result? {
            Some(()) => Ok("done".to_owned()),
            None => Err(Failed::Ended("its alarm, since no answer came for five seconds")),
        }
    })
}

/// Becomes another user in a child, and makes a file there.
fn becoming(call: fn(Arm) -> Result<(), Errno>) -> Result<Doing, Errno> {
    doing(move |arm: Arm| {
        vacate_made()?;
        let result = reap(spawn(|| {
            call(arm)?;
            make(MADE)
        })?);
        arm.name_nobody();
        owner(result)
    })
}

const FOLDER: &str = "/tmp/anybodys-folder";
const MADE: &CStr = c"/tmp/anybodys-folder/made";
const MADE_PATH: &str = "/tmp/anybodys-folder/made";

fn vacate_made() -> Result<(), Errno> {
    fs::create_dir_all(FOLDER)?;
    fs::set_permissions(FOLDER, Permissions::from_mode(0o777))?;
    vacate(MADE_PATH)
}

fn make(path: &CStr) -> Result<(), Errno> {
    // SAFETY: a terminated path and numbers.
    let fd = Errno::result(unsafe { libc::open(path.as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o600) })?;
    drop(owned(fd.into()));
    Ok(())
}

/// Whose the file is that was made.
fn owner(result: Result<(), Errno>) -> Result<String, Failed> {
    match (result, fs::metadata(MADE_PATH).map(|facts| facts.uid())) {
        (Err(errno), Err(_)) => Err(errno.into()),
        (Err(errno), Ok(_)) => Ok(format!("{errno}, and there is a file")),
        (Ok(()), Err(_)) => Ok("there is no file".to_owned()),
        (Ok(()), Ok(0)) => Ok("root's file".to_owned()),
        (Ok(()), Ok(OTHER)) => Ok("the other user's file".to_owned()),
        (Ok(()), Ok(_)) => Ok("somebody's file".to_owned()),
    }
}

/// Registers the other user's credentials before, and is root again when it asks.
fn registered() -> Result<Doing, Errno> {
    doing(|arm: Arm| {
        vacate_made()?;
        let result = reap(spawn(|| {
            let mut ring = Ring::new()?;
            // SAFETY: takes three numbers.
            Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, OTHER, OTHER, 0) })?;
            let personality = ring.register_credentials()?;
            // SAFETY: takes three numbers.
            Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, 0, 0, 0) })?;
            let request = Request {
                operation: OPENAT,
                fd: libc::AT_FDCWD,
                address: MADE.as_ptr().addr(),
                length: 0o600,
                flags: (libc::O_CREAT | libc::O_WRONLY).unsigned_abs(),
                personality,
                ..Request::default()
            };
            arm.during(|| ring.request(request)).map(drop)
        })?);
        arm.name_nobody();
        owner(result)
    })
}
