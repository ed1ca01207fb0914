//! The helper about a path: as the task's own root, mounts and names make it.

use super::bench::{Bench, argument, keep, page, slot, stack, text};
use super::{Row, canonical, case, misuse, sleepable};
use crate::asm::Asm;
use crate::errno::Errno;
use crate::helper;
use crate::insn::Reg;
use crate::results::Results;
use crate::session::Ended;
use crate::spec::source;
use crate::triggers::Arm;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chroot, fchdir, pipe};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::symlink;

pub(super) const ROWS: &[Row] = &[Row {
    helper: helper::D_PATH,
    asks: "write the path of the file that is opened",
    sources: &[
        source("6.0", "kernel/trace/bpf_trace.c", "tracing_prog_func_proto"),
        source("6.0", "kernel/trace/bpf_trace.c", "bpf_d_path_allowed"),
        source("7.1", "fs/d_path.c", "d_path"),
    ],
    cases: &[
        canonical(|bench| d_path(bench, 64)),
        sleepable(|bench| d_path(bench, 64)),
        case("more-than-fits", |bench| d_path(bench, 4)),
        case("of-an-unlinked-file", |bench| path_again(bench, unlinked)),
        case("of-a-memfd", |bench| path_again(bench, memory_file)),
        case("of-a-pipe", |bench| path_again(bench, || Ok(pipe()?.0))),
        case("through-a-symbolic-link", |bench| path_of(bench, through_a_symbolic_link)),
        case("by-another-name", |bench| path_of(bench, by_another_name)),
        case("through-a-bind-mount", |bench| path_of(bench, through_a_bind_mount)),
        case("of-a-detached-mount", |bench| path_of(bench, of_a_detached_mount)),
        case("from-a-chroot", |bench| path_of(bench, from_a_chroot)),
        case("from-a-chroot-of-what-is-outside", |bench| path_of(bench, from_a_chroot_of_what_is_outside)),
        misuse("misuse-file-for-path", |bench| {
            let helper = bench.helper();
            bench.load(|asm| {
                argument(asm, Reg::R1, 0);
                page(asm, Reg::R2, 1);
                asm.mov_imm(Reg::R3, 64).call(helper);
            })
        }),
        misuse("misuse-size-beyond-the-stack", |bench| {
            let (helper, path) = (bench.helper(), bench.offset("file", "f_path")?);
            bench.load(|asm| {
                argument(asm, Reg::R1, 0);
                asm.add_imm(Reg::R1, path);
                stack(asm, Reg::R2, -16);
                asm.mov_imm(Reg::R3, 64).call(helper);
            })
        }),
    ],
}];

/// Bytes that the program has room for.
const LENGTH: i32 = 64;

/// The call for the file of the hook: what it returns is in the first slot, the path behind it.
fn ask(bench: &Bench<'_, '_>, size: i32) -> Result<impl FnOnce(&mut Asm) + use<>, Ended> {
    let (helper, path) = (bench.helper(), bench.offset("file", "f_path")?);
    Ok(move |asm: &mut Asm| {
        argument(asm, Reg::R1, 0);
        asm.add_imm(Reg::R1, path);
        page(asm, Reg::R2, 1);
        asm.mov_imm(Reg::R3, size).call(helper);
        keep(asm, 0, Reg::R0);
    })
}

/// The path that a program left.
fn text_in(results: &Results) -> String {
    text(&results.bytes(slot(1), LENGTH.unsigned_abs() as usize))
}

/// For the usual file, with `size` bytes of room.
fn d_path(bench: &mut Bench<'_, '_>, size: i32) -> Result<(), Ended> {
    let ask = ask(bench, size)?;
    let results = bench.open(ask)?;
    bench.returned("returned", results.get(slot(0)));
    bench.attempt.see("the path", text_in(&results));
    Ok(())
}

/// A file that has lost its only name.
fn unlinked() -> Result<OwnedFd, Errno> {
    const PATH: &str = "/tmp/unlinked";
    let file = File::create(PATH)?;
    fs::remove_file(PATH)?;
    Ok(file.into())
}

/// A file that never had one.
fn memory_file() -> Result<OwnedFd, Errno> {
    // SAFETY: a terminated name, which the call copies.
    let fd = Errno::result(unsafe { libc::memfd_create(c"conform".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens an open file again, through its link in /proc, which says what user space is told of its path.
fn path_again(bench: &mut Bench<'_, '_>, open: fn() -> Result<OwnedFd, Errno>) -> Result<(), Ended> {
    let file = open().map_err(|errno| Ended::could_not("make the file", errno))?;
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let known = fs::read_link(&link).map_err(|error| Ended::could_not("read the link of a file", error))?;
    let known = known.to_string_lossy().into_owned();
    let act = |arm: Arm| arm.during(|| File::open(&link)).map_err(Errno::from);
    let ask = ask(bench, LENGTH)?;
    let (results, opened) = bench.run("file_open", act, ask)?;
    opened.map_err(|errno| Ended::could_not("open the file again", errno))?;
    // The number in the name of a pipe is another each time.
    let shown: String = known.chars().filter(|character| !character.is_ascii_digit()).collect();
    bench.attempt.see("the path, without digits", shown);
    bench.attempt.same("the path", text_in(&results), known.clone());
    bench.attempt.same("returned the length", results.get(slot(0)), known.len() as u64 + 1);
    Ok(())
}

/// Opens a file in one of the ways in which its path is not the whole truth; `act` makes all ready.
fn path_of(bench: &mut Bench<'_, '_>, act: fn(Arm) -> Result<(), Errno>) -> Result<(), Ended> {
    let ask = ask(bench, LENGTH)?;
    let (results, opened) = bench.run("file_open", act, ask)?;
    opened.map_err(|errno| Ended::could_not("open the file so", errno))?;
    bench.returned("returned", results.get(slot(0)));
    bench.attempt.see("the path", text_in(&results));
    Ok(())
}

/// A folder of the probe's own, with one file.
const FOLDER: &str = "/tmp/folder";
const INSIDE: &str = "/tmp/folder/inside";
/// What else the file is called.
const OTHER: &str = "/tmp/other-name";

/// Makes both.
fn make_folder() -> Result<(), Errno> {
    fs::create_dir_all(FOLDER)?;
    let _old = fs::remove_file(OTHER);
    Ok(File::create(INSIDE).map(drop)?)
}

fn through_a_symbolic_link(arm: Arm) -> Result<(), Errno> {
    make_folder()?;
    symlink(INSIDE, OTHER)?;
    Ok(arm.during(|| File::open(OTHER)).map(drop)?)
}

fn by_another_name(arm: Arm) -> Result<(), Errno> {
    make_folder()?;
    fs::hard_link(INSIDE, OTHER)?;
    Ok(arm.during(|| File::open(OTHER)).map(drop)?)
}

fn through_a_bind_mount(arm: Arm) -> Result<(), Errno> {
    const MOUNT: &str = "/tmp/bound";
    make_folder()?;
    fs::create_dir_all(MOUNT)?;
    mount(Some(FOLDER), MOUNT, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    let opened = arm.during(|| File::open("/tmp/bound/inside"));
    umount2(MOUNT, MntFlags::MNT_DETACH)?;
    Ok(opened.map(drop)?)
}

/// A file of a mount that is no longer anywhere.
fn of_a_detached_mount(arm: Arm) -> Result<(), Errno> {
    const MOUNT: &str = "/tmp/detached";
    fs::create_dir_all(MOUNT)?;
    mount(None::<&str>, MOUNT, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    let folder = File::open(MOUNT);
    let made = File::create("/tmp/detached/inside");
    umount2(MOUNT, MntFlags::MNT_DETACH)?;
    drop(made?);
    open_below(arm, &folder?, c"inside")
}

fn from_a_chroot(arm: Arm) -> Result<(), Errno> {
    make_folder()?;
    let _jail = Jail::enter()?;
    Ok(arm.during(|| File::open("/inside")).map(drop)?)
}

/// A descriptor that the task had before leads out.
fn from_a_chroot_of_what_is_outside(arm: Arm) -> Result<(), Errno> {
    make_folder()?;
    let outside = File::open("/tmp")?;
    File::create("/tmp/outside").map(drop)?;
    let _jail = Jail::enter()?;
    open_below(arm, &outside, c"outside")
}

/// `openat(2)` with a folder's descriptor.
fn open_below(arm: Arm, folder: &File, name: &std::ffi::CStr) -> Result<(), Errno> {
    // SAFETY: a descriptor and a terminated name.
    let fd = Errno::result(
        arm.during(|| unsafe { libc::openat(folder.as_raw_fd(), name.as_ptr(), libc::O_RDONLY) }),
    )?;
    // SAFETY: the kernel has just made this descriptor for us.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// While it lasts, [`FOLDER`] is this process's root.
struct Jail {
    root: File,
}

impl Jail {
    fn enter() -> Result<Self, Errno> {
        let root = File::open("/")?;
        chroot(FOLDER)?;
        Ok(Self { root })
    }
}

impl Drop for Jail {
    fn drop(&mut self) {
        // Back to the root that it had, which is what chroot(2) lets root do.
        let _out = fchdir(&self.root).and_then(|()| chroot("."));
    }
}
