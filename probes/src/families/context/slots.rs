//! What is in the slots: compared with what user space knows.

use super::{keep, look, offset, slot, value};
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, PAGE};
use crate::rules::start_child;
use crate::session::{Ended, Session, Stop};
use crate::triggers::Arm;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::personality::{self, Persona};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::ptr::NonNull;

const PAGE_SIZE: usize = 4096;

/// `struct file *`.
pub(super) fn file_open(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("slots", |attempt| {
        let f_inode = offset(attempt, "file", "f_inode")?;
        let i_ino = offset(attempt, "inode", "i_ino")?;
        let file = File::create("/tmp/opened").map_err(|error| Ended::could_not("make a file", error))?;
        let inode = file.metadata().map_err(|error| Ended::could_not("stat a file", error))?.ino();
        let results = look(
            attempt,
            "file_open",
            |asm| {
                asm.ldx(Size::DW, Reg::R1, CTX, slot(0))
                    .ldx(Size::DW, Reg::R1, Reg::R1, f_inode)
                    .ldx(Size::DW, Reg::R1, Reg::R1, i_ino)
                    .stx(Size::DW, PAGE, value(0), Reg::R1);
                keep(asm, Size::DW, 1);
            },
            |arm| arm.during(|| File::open("/tmp/opened")).map(drop).map_err(Errno::from),
        )?;
        attempt.same("slot 0: file->f_inode->i_ino", results.get(value(0)), inode);
        attempt.see("slot 1: ret", results.get(value(1)).cast_signed());
        Ok(())
    })
}

/// A page of memory, given back when it is dropped.
pub(super) struct Page {
    page: NonNull<libc::c_void>,
    /// On each side, pages that nobody may touch.
    walls: usize,
}

impl Page {
    /// A new one that can be read and written.
    pub(super) fn new() -> Result<Self, Ended> {
        let page = map(PAGE_SIZE, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        Ok(Self { page, walls: 0 })
    }

    /// A new one that is a mapping of its own: the pages before and behind it may not be touched, so that the kernel
    /// does not join it with a neighbour.
    fn walled() -> Result<Self, Ended> {
        let first = map(3 * PAGE_SIZE, ProtFlags::PROT_NONE)?;
        // SAFETY: the second of three pages.
        let page = Self { page: unsafe { first.byte_add(PAGE_SIZE) }, walls: 1 };
        let opened = page.protect(libc::PROT_READ | libc::PROT_WRITE);
        opened.map(|()| page).map_err(|errno| Ended::could_not("open a page", errno))
    }

    /// Makes it such that it can only be read.
    pub(super) fn seal(&self) -> Result<(), Errno> {
        self.protect(libc::PROT_READ)
    }

    fn protect(&self, prot: i32) -> Result<(), Errno> {
        // SAFETY: the page is this value's own, and nobody holds a reference into it.
        Errno::result(unsafe { libc::mprotect(self.page.as_ptr(), PAGE_SIZE, prot) }).map(drop)
    }

    fn address(&self) -> u64 {
        self.page.as_ptr().addr() as u64
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let walls = self.walls * PAGE_SIZE;
        // SAFETY: as in `protect`, with what is around it.
        unsafe { libc::munmap(self.page.as_ptr().wrapping_byte_sub(walls), PAGE_SIZE + 2 * walls) };
    }
}

fn map(size: usize, prot: ProtFlags) -> Result<NonNull<libc::c_void>, Ended> {
    let size = NonZeroUsize::new(size).unwrap_or(NonZeroUsize::MIN);
    // SAFETY: a new mapping wherever the kernel likes.
    let pages = unsafe { mmap_anonymous(None, size, prot, MapFlags::MAP_PRIVATE) };
    pages.map_err(|errno| Ended::could_not("map a page", errno))
}

/// `struct vm_area_struct *, unsigned long, unsigned long`.
pub(super) fn file_mprotect(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("slots", |attempt| {
        let vm_start = offset(attempt, "vm_area_struct", "vm_start")?;
        let vm_end = offset(attempt, "vm_area_struct", "vm_end")?;
        let page = Page::walled()?;
        let results = look(
            attempt,
            "file_mprotect",
            |asm| {
                for (n, member) in [(0, vm_start), (4, vm_end)] {
                    asm.ldx(Size::DW, Reg::R1, CTX, slot(0)).ldx(Size::DW, Reg::R1, Reg::R1, member).stx(
                        Size::DW,
                        PAGE,
                        value(n),
                        Reg::R1,
                    );
                }
                for n in 1..=3 {
                    keep(asm, Size::DW, n);
                }
            },
            |arm| reading_is_executing(|| arm.during(|| page.seal())),
        )?;
        // What the process asks for, and what the kernel makes of it.
        let asked = u64::from(libc::PROT_READ.cast_unsigned());
        let prot = asked | u64::from(libc::PROT_EXEC.cast_unsigned());
        let end = page.address() + PAGE_SIZE as u64;
        attempt.same("slot 0: vma->vm_start", results.get(value(0)), page.address());
        attempt.same("slot 0: vma->vm_end", results.get(value(4)), end);
        attempt.same("slot 1: reqprot", results.get(value(1)), asked);
        attempt.same("slot 2: prot", results.get(value(2)), prot);
        attempt.see("slot 3: ret", results.get(value(3)).cast_signed());
        Ok(())
    })
}

/// Does something while whatever this process may read it may also execute, so that mprotect(2) grants more than it is
/// asked for (5.7 and 7.3 mm/mprotect.c, do_mprotect_pkey).
fn reading_is_executing(act: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    let usual = personality::get()?;
    personality::set(usual | Persona::READ_IMPLIES_EXEC)?;
    let outcome = act();
    personality::set(usual)?;
    outcome
}

/// `int, int, int, int`.
pub(super) fn socket_create(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("slots", |attempt| {
        let results = look(
            attempt,
            "socket_create",
            |asm| {
                for n in 0..4 {
                    keep(asm, Size::W, n);
                }
                keep(asm, Size::DW, 4);
            },
            |arm| {
                let (family, kind) = (AddressFamily::Inet, SockType::Datagram);
                let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
                arm.during(|| nix::sys::socket::socket(family, kind, flags, SockProtocol::Udp))?;
                Ok(())
            },
        )?;
        for (n, (key, user)) in (0..).zip([
            ("slot 0: family", libc::AF_INET),
            ("slot 1: type, without flags", libc::SOCK_DGRAM),
            ("slot 2: protocol", libc::IPPROTO_UDP),
            ("slot 3: kern", 0),
        ]) {
            attempt.same(key, results.get(value(n)), u64::from(user.cast_unsigned()));
        }
        attempt.see("slot 4: ret", results.get(value(4)).cast_signed());
        Ok(())
    })
}

/// `struct task_struct *, struct kernel_siginfo *, int, const struct cred *`.
pub(super) fn task_kill(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("slots", |attempt| {
        let tgid = offset(attempt, "task_struct", "tgid")?;
        // Another than the task that sends.
        let child = start_child(|| {
            loop {
                // SAFETY: pause takes nothing and touches no memory.
                unsafe { libc::pause() };
            }
        })?;
        let results = look(
            attempt,
            "task_kill",
            |asm| {
                asm.ldx(Size::DW, Reg::R1, CTX, slot(0)).ldx(Size::W, Reg::R1, Reg::R1, tgid);
                asm.stx(Size::DW, PAGE, value(0), Reg::R1);
                for (n, size) in [(1, Size::DW), (2, Size::W), (3, Size::DW), (4, Size::DW)] {
                    keep(asm, size, n);
                }
            },
            |arm: Arm| arm.during(|| kill(child, Signal::SIGURG)).map_err(Errno::from),
        );
        let ended = kill(child, Signal::SIGKILL).and_then(|()| waitpid(child, None));
        ended.map_err(|errno| Ended::could_not("end the child", errno))?;
        let results = results?;
        let signal = u64::from((Signal::SIGURG as i32).cast_unsigned());
        attempt.same("slot 0: p->tgid", results.get(value(0)), u64::from(child.as_raw().cast_unsigned()));
        attempt.see("slot 1: info", null_or_not(results.get(value(1))));
        attempt.same("slot 2: sig", results.get(value(2)), signal);
        attempt.see("slot 3: cred", null_or_not(results.get(value(3))));
        attempt.see("slot 4: ret", results.get(value(4)).cast_signed());
        Ok(())
    })
}

/// The signal's information, followed: `info` can be a number that stands for none (SEND_SIG_NOINFO is 0).
pub(super) fn task_kill_info(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("si_signo", |attempt| {
        let si_signo = offset(attempt, "kernel_siginfo", "si_signo")?;
        let results = look(
            attempt,
            "task_kill",
            |asm| {
                asm.ldx(Size::DW, Reg::R1, CTX, slot(1)).ldx(Size::W, Reg::R1, Reg::R1, si_signo).stx(
                    Size::DW,
                    PAGE,
                    value(0),
                    Reg::R1,
                );
            },
            send_harmless_signal,
        )?;
        let signal = u64::from((Signal::SIGURG as i32).cast_unsigned());
        attempt.same("info->si_signo", results.get(value(0)), signal);
        Ok(())
    })
}

fn null_or_not(pointer: u64) -> &'static str {
    if pointer == 0 { "null" } else { "not null" }
}

/// Sends this process a signal that it ignores.
pub(super) fn send_harmless_signal(arm: Arm) -> Result<(), Errno> {
    arm.during(|| kill(Pid::this(), Signal::SIGURG)).map_err(Errno::from)
}
