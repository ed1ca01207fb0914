//! Processes: making and ending them, signals, scheduling, limits, tracing.

use super::children::{Idle, in_child, reap, spawn};
use super::{Act, Arm, Seen, act, act_seen, syscall};
use crate::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::ptrace;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::{Pid, getpgid, getsid};
use std::io::IoSliceMut;

/// `fork(2)`.
///
/// # Errors
/// None.
pub fn fork() -> Result<Act, Errno> {
    act(|arm: Arm| {
        let child = arm.during(|| spawn(|| Ok(())))?;
        reap(child)
    })
}

/// The end of a child, and of its `task_struct` some time after. Names the child, not this process.
///
/// # Errors
/// None.
pub fn end() -> Result<Act, Errno> {
    act(|arm: Arm| {
        let child = spawn(|| Ok(()))?;
        arm.freeing(u64::from(child.as_raw().unsigned_abs()), || reap(child))
    })
}

/// `kill(2)` of the process itself with no signal.
///
/// # Errors
/// None.
pub fn kill() -> Result<Act, Errno> {
    act(|arm: Arm| arm.during(|| nix::sys::signal::kill(Pid::this(), None).map_err(Errno::from)))
}

/// `setpriority(2)` of a child.
///
/// # Errors
/// None.
pub fn setpriority() -> Result<Act, Errno> {
    act(|arm: Arm| {
        let child = Idle::new()?;
        let pid = child.0.as_raw().cast_unsigned();
        // SAFETY: takes three numbers.
        arm.during(|| Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, pid, 1) }))
    })
}

/// `ioprio_set(2)` of the process itself: best effort, level 4.
///
/// # Errors
/// None.
pub fn ioprio_set() -> Result<Act, Errno> {
    act(|arm: Arm| {
        // SAFETY: takes three numbers.
        arm.during(|| unsafe { syscall(libc::SYS_ioprio_set, [1, 0, (2 << 13) | 4, 0, 0, 0]) })
    })
}

/// `sched_setaffinity(2)` to what it is already.
///
/// # Errors
/// The errno of reading it.
pub fn setaffinity() -> Result<Act, Errno> {
    let all: CpuSet = sched_getaffinity(Pid::from_raw(0))?;
    act(move |arm: Arm| arm.during(|| sched_setaffinity(Pid::from_raw(0), &all).map_err(Errno::from)))
}

/// `sched_getscheduler(2)`.
///
/// # Errors
/// None.
pub fn getscheduler() -> Result<Act, Errno> {
    act(|arm: Arm| {
        // SAFETY: takes a number.
        arm.during(|| Errno::result(unsafe { libc::sched_getscheduler(0) }))
    })
}

/// `setrlimit(2)` to what it is already.
///
/// # Errors
/// The errno of reading it.
pub fn set_limit() -> Result<Act, Errno> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    act(move |arm: Arm| arm.during(|| setrlimit(Resource::RLIMIT_CORE, soft, hard).map_err(Errno::from)))
}

/// `getpgid(2)` by number.
///
/// # Errors
/// None.
pub fn get_group() -> Result<Act, Errno> {
    act(|arm: Arm| arm.during(|| getpgid(Some(Pid::this())).map_err(Errno::from)))
}

/// `getsid(2)` by number.
///
/// # Errors
/// None.
pub fn get_session() -> Result<Act, Errno> {
    act(|arm: Arm| arm.during(|| getsid(Some(Pid::this())).map_err(Errno::from)))
}

/// `prctl(2)` that changes the task's name, looking afterwards whether it did.
///
/// # Errors
/// None.
pub fn prctl() -> Result<Act, Errno> {
    act_seen(|arm: Arm| {
        nix::sys::prctl::set_name(c"before")?;
        arm.during(|| nix::sys::prctl::set_name(c"after"))?;
        let done = nix::sys::prctl::get_name()?.as_c_str() == c"after";
        Ok(Seen(if done { "ok, and it was done" } else { "ok, and nothing was done" }))
    })
}

/// `ptrace(2)`, attaching to a child.
///
/// # Errors
/// None.
pub fn attach() -> Result<Act, Errno> {
    act(|arm: Arm| {
        let child = Idle::new()?;
        arm.during(|| ptrace::seize(child.0, ptrace::Options::empty()).map_err(Errno::from))
    })
}

/// `process_vm_readv(2)` of a child, which is checked as tracing is.
///
/// # Errors
/// None.
pub fn read_memory() -> Result<Act, Errno> {
    static CELL: u8 = 1;
    act(|arm: Arm| {
        let child = Idle::new()?;
        let mut byte = [0];
        let remote = RemoteIoVec { base: (&raw const CELL).addr(), len: 1 };
        arm.during(|| {
            process_vm_readv(child.0, &mut [IoSliceMut::new(&mut byte)], &[remote]).map_err(Errno::from)
        })
    })
}

/// `ptrace(2)` of a child that asks to be traced.
///
/// # Errors
/// None.
pub fn traceme() -> Result<Act, Errno> {
    act(|arm: Arm| in_child(|| arm.during(|| ptrace::traceme().map_err(Errno::from))))
}

/// `setpgid(2)` of a child, which makes it a group of its own.
///
/// # Errors
/// None.
pub fn new_group() -> Result<Act, Errno> {
    act(|arm: Arm| {
        let child = Idle::new()?;
        arm.during(|| nix::unistd::setpgid(child.0, child.0).map_err(Errno::from))
    })
}

/// `prlimit(2)` of a child.
///
/// # Errors
/// None.
pub fn limit_other() -> Result<Act, Errno> {
    act(|arm: Arm| {
        let child = Idle::new()?;
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        arm.during(|| {
            // SAFETY: nothing is set, and one structure is filled in.
            Errno::result(unsafe {
                libc::prlimit(child.0.as_raw(), libc::RLIMIT_CORE, std::ptr::null(), &raw mut limit)
            })
        })
    })
}

/// `move_pages(2)` of a child, of no pages.
///
/// # Errors
/// None.
pub fn move_memory() -> Result<Act, Errno> {
    act(|arm: Arm| {
        let child = Idle::new()?;
        let pid = usize::try_from(child.0.as_raw()).unwrap_or(0);
        // SAFETY: a count of 0 and no lists.
        arm.during(|| unsafe { syscall(libc::SYS_move_pages, [pid, 0, 0, 0, 0, 0]) })
    })
}

/// `ioprio_get(2)` of the process itself.
///
/// # Errors
/// None.
pub fn ioprio_get() -> Result<Act, Errno> {
    act(|arm: Arm| {
        // SAFETY: takes two numbers.
        arm.during(|| unsafe { syscall(libc::SYS_ioprio_get, [1, 0, 0, 0, 0, 0]) })
    })
}

/// `stat(2)` of the directory of a new process, which procfs makes an inode for.
///
/// # Errors
/// None.
pub fn process_folder() -> Result<Act, Errno> {
    act(|arm: Arm| {
        let child = Idle::new()?;
        let path = format!("/proc/{}", child.0);
        arm.during(|| nix::sys::stat::stat(path.as_str()).map(drop).map_err(Errno::from))
    })
}
