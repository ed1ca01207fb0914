//! Executing: a program by its path, a script, a program without a path, in a child that shares its parent's memory; and
//! having code run without executing anything.

use super::Subject;
use super::way::{Doing, Failed, Step, Way, doing};
use crate::errno::Errno;
use crate::spec::source;
use crate::triggers::children::spawn;
use crate::triggers::exec::{interpreted, interpreter, leaver, write_executable};
use crate::triggers::files::{index, owned};
use crate::triggers::{Arm, syscall};
use nix::sched::{CloneFlags, clone};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub(super) const SUBJECT: Subject = Subject {
    name: "exec",
    what: "execute a program",
    hooks: &[
        "file_open",
        "bprm_set_creds",
        "bprm_creds_for_exec",
        "bprm_check_security",
        "bprm_creds_from_file",
        "bprm_committing_creds",
        "mmap_file",
    ],
    ways: &[
        Way::new("program", || by_path(PROGRAM)),
        Way::new("program-with-an-interpreter", || by_path(c"/tmp/interpreted")),
        Way::new("script", || by_path(c"/tmp/script")),
        Way::new("script-of-a-script", || by_path(c"/tmp/script-of-a-script")),
        Way::new("vfork-and-program", vfork_and_exec),
        Way::new("execveat-of-a-descriptor", descriptor),
        Way::new("execveat-of-a-memfd", memfd),
        Way::new("execve-of-a-memfd-in-proc", memfd_in_proc),
        Way::new("execveat-that-only-checks", only_checks).lacking(&[libc::EINVAL]),
        Way::new("code-mapped-and-called", mapped),
    ],
    sources: &[
        source("7.3", "fs/exec.c", "bprm_execve"),
        source("7.3", "fs/exec.c", "exec_binprm"),
        source("7.3", "fs/exec.c", "begin_new_exec"),
        source("7.3", "fs/binfmt_elf.c", "load_elf_binary"),
        source("7.3", "fs/binfmt_script.c", "load_script"),
        source("5.7", "fs/exec.c", "prepare_binprm"),
        source("6.14", "fs/exec.c", "do_open_execat"),
    ],
};

const PROGRAM: &CStr = c"/tmp/leaves";
/// include/uapi/linux/fcntl.h: AT_EMPTY_PATH, AT_EXECVE_CHECK.
const EMPTY_PATH: usize = 0x1000;
const CHECK: usize = 0x1_0000;

fn programs() -> Result<(), Errno> {
    write_executable("/tmp/leaves", &leaver())?;
    write_executable("/tmp/interpreter", &interpreter())?;
    write_executable("/tmp/interpreted", &interpreted("/tmp/interpreter"))?;
    write_executable("/tmp/script", b"#!/tmp/leaves\n")?;
    write_executable("/tmp/script-of-a-script", b"#!/tmp/script\n")
}

/// What became of a child that was to execute something and leave.
fn ended(child: Pid) -> Result<String, Failed> {
    match waitpid(child, None).step("waitpid")? {
        WaitStatus::Exited(_, 0) => Ok("it runs".to_owned()),
        WaitStatus::Exited(_, errno) => Err(Errno::from_raw(errno).into()),
        WaitStatus::Signaled(_, signal, _) => Err(Failed::Ended(signal.as_str())),
        WaitStatus::Stopped(..)
        | WaitStatus::PtraceEvent(..)
        | WaitStatus::PtraceSyscall(_)
        | WaitStatus::Continued(_)
        | WaitStatus::StillAlive => Err(Failed::Ended("nothing")),
    }
}

/// Has a child execute something. The child stays named until it has left.
fn in_child(arm: Arm, body: impl FnOnce() -> Result<(), Errno>) -> Result<String, Failed> {
    let child = spawn(|| arm.during(body)).step("fork")?;
    let seen = ended(child);
    arm.name_nobody(); // a child that came through could not do it
    seen
}

fn execve(path: &CStr) -> Result<(), Errno> {
    let (argv, envp) = ([path.as_ptr(), std::ptr::null()], [std::ptr::null()]);
    // SAFETY: a terminated path and two terminated lists, all alive across the call.
    Errno::result(unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) }).map(drop)
}

/// `execveat(2)` of a descriptor's file.
fn execveat(fd: &impl AsRawFd, flags: usize) -> Result<(), Errno> {
    let (argv, envp) = ([PROGRAM.as_ptr(), std::ptr::null()], [std::ptr::null::<libc::c_char>()]);
    let args =
        [index(fd), c"".as_ptr().addr(), argv.as_ptr().addr(), envp.as_ptr().addr(), EMPTY_PATH | flags, 0];
    // SAFETY: a descriptor, an empty path, two terminated lists, and numbers.
    unsafe { syscall(libc::SYS_execveat, args) }.map(drop)
}

fn by_path(path: &'static CStr) -> Result<Doing, Errno> {
    programs()?;
    doing(move |arm: Arm| in_child(arm, || execve(path)))
}

/// A child that has its parent's memory and runs before it, as posix_spawn(3) makes it.
fn vfork_and_exec() -> Result<Doing, Errno> {
    programs()?;
    let mut stack = vec![0_u8; 64 << 10];
    doing(move |arm: Arm| {
        let body = Box::new(move || {
            let Err(errno) = arm.during(|| execve(PROGRAM)) else { return 0 };
            isize::try_from(errno.raw()).unwrap_or(0)
        });
        let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
        // SAFETY: this process waits while the child has its memory; the child has a stack of its own, and allocates nothing.
        let child = unsafe { clone(body, &mut stack, flags, Some(libc::SIGCHLD)) }.step("clone")?;
        let seen = ended(child);
        arm.name_nobody();
        seen
    })
}

fn opened() -> Result<OwnedFd, Errno> {
    // SAFETY: a terminated path and numbers.
    let fd = unsafe { libc::open(PROGRAM.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) };
    Errno::result(fd).map(|fd| owned(fd.into()))
}

fn descriptor() -> Result<Doing, Errno> {
    programs()?;
    let program = opened()?;
    doing(move |arm: Arm| in_child(arm, || execveat(&program, 0)))
}

/// A program that is in no file system.
fn in_memory() -> Result<File, Errno> {
    // SAFETY: a terminated string and a number.
    let fd = Errno::result(unsafe { libc::memfd_create(c"leaves".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(&leaver())?;
    Ok(file)
}

fn memfd() -> Result<Doing, Errno> {
    let program = in_memory()?;
    doing(move |arm: Arm| in_child(arm, || execveat(&program, 0)))
}

fn memfd_in_proc() -> Result<Doing, Errno> {
    let program = in_memory()?;
    let path = CString::new(format!("/proc/self/fd/{}", program.as_raw_fd())).map_err(|_| Errno::EINVAL)?;
    doing(move |arm: Arm| {
        let _open = &program;
        in_child(arm, || execve(&path))
    })
}

fn only_checks() -> Result<Doing, Errno> {
    programs()?;
    let program = opened()?;
    doing(move |arm: Arm| {
        arm.during(|| execveat(&program, CHECK))?;
        Ok("it may be executed".to_owned())
    })
}

/// `mov eax, 7; ret`.
const SEVEN: [u8; 6] = [0xb8, 7, 0, 0, 0, 0xc3];

/// What a loader does with a library: open(2) and mmap(2); then the code is called.
fn mapped() -> Result<Doing, Errno> {
    std::fs::write("/tmp/code", SEVEN)?;
    doing(|arm: Arm| {
        let code = arm.during(|| {
            // SAFETY: a terminated path and numbers.
            let fd = unsafe { libc::open(c"/tmp/code".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
            let file = owned(Errno::result(fd).step("open")?.into());
            let access = libc::PROT_READ | libc::PROT_EXEC;
            // SAFETY: a new mapping wherever the kernel likes, which nobody else knows.
            let code = unsafe {
                libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
            };
            if code == libc::MAP_FAILED { Err(Errno::last()).step("mmap") } else { Ok(code) }
        })?;
        // SAFETY: the code is a function that takes nothing, touches nothing, and returns a number.
        let seven = unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> u32>(code) }();
        // SAFETY: the mapping was made above, and nobody uses it any more.
        unsafe { libc::munmap(code, 4096) };
        Ok(if seven == 7 { "it runs" } else { "something else runs" }.to_owned())
    })
}
