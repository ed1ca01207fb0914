//! Coming to have an open file.

use super::Subject;
use super::receive;
use super::way::{Doing, Failed, Step, Way, doing};
use crate::errno::Errno;
use crate::spec::source;
use crate::triggers::files::{index, owned};
use crate::triggers::uring::{FIXED_FILE, OPENAT, READ, Request, Ring};
use crate::triggers::{Arm, syscall};
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};

pub(super) const SUBJECT: Subject = Subject {
    name: "file_open",
    what: "come to have an open file",
    hooks: &["file_alloc_security", "file_open", "file_receive"],
    ways: &[
        Way::new("open", || opened(|| open(PATH, libc::O_RDONLY))),
        Way::new("open-O_CREAT", || opened(|| open(c"/tmp/created", libc::O_CREAT | libc::O_RDWR))),
        Way::new("open-O_TMPFILE", || opened(|| open(c"/tmp", libc::O_TMPFILE | libc::O_RDWR))),
        Way::new("open-O_PATH", || opened(|| open(PATH, libc::O_PATH))),
        Way::new("open-of-a-folder", || opened(|| open(c"/tmp", libc::O_DIRECTORY))),
        Way::new("openat2", || opened(openat2)),
        Way::new("open-of-a-descriptor-in-proc", in_proc),
        Way::new("open_by_handle_at", by_handle),
        Way::new("memfd_create", || opened(memfd)),
        Way::new("dup", dup),
        Way::new("pidfd_getfd", pidfd_getfd),
        Way::new("recvmsg-of-a-descriptor", receive_it),
        Way::new("io_uring-openat", by_ring).by_worker(),
        Way::new("io_uring-openat-into-the-ring", into_ring).by_worker(),
        Way::new("io_uring-msg_ring", between_rings).lacking(&[libc::EINVAL]),
        Way::new("io_uring-fixed_fd_install", out_of_ring).lacking(&[libc::EINVAL]),
    ],
    sources: &[
        source("7.3", "fs/open.c", "do_dentry_open"),
        source("7.3", "fs/file_table.c", "init_file"),
        source("7.3", "fs/file_table.c", "alloc_file_pseudo"),
        source("7.3", "fs/fhandle.c", "do_handle_open"),
        source("7.3", "fs/file.c", "receive_fd"),
        source("7.3", "fs/file.c", "SYSCALL_DEFINE1(dup)"),
        source("7.3", "io_uring/msg_ring.c", "io_msg_install_complete"),
        source("7.3", "io_uring/openclose.c", "io_install_fixed_fd"),
        source("7.3", "kernel/bpf/bpf_lsm.c", "bpf_lsm_disabled_hooks"),
    ],
};

const PATH: &CStr = c"/tmp/there";

fn file() -> Result<File, Errno> {
    fs::write("/tmp/there", b"x")?;
    Ok(File::open("/tmp/there")?)
}

fn opened(call: fn() -> Result<OwnedFd, Failed>) -> Result<Doing, Errno> {
    file()?;
    doing(move |arm: Arm| arm.during(call).map(said))
}

/// What is said of a descriptor; it is closed.
fn said(_: OwnedFd) -> String {
    "a descriptor".to_owned()
}

fn open(path: &CStr, flags: i32) -> Result<OwnedFd, Failed> {
    // SAFETY: a terminated path and numbers.
    let fd = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o600) };
    Ok(owned(Errno::result(fd)?.into()))
}

fn openat2() -> Result<OwnedFd, Failed> {
    let how = [0_u64; 3]; // struct open_how: flags, mode, resolve
    let args = [usize::MAX - 99, PATH.as_ptr().addr(), how.as_ptr().addr(), 24, 0, 0];
    // SAFETY: a terminated path, and a structure with its size.
    Ok(owned(unsafe { syscall(libc::SYS_openat2, args) }?))
}

/// A descriptor with which nothing can be read, opened again for reading.
fn in_proc() -> Result<Doing, Errno> {
    file()?;
    // SAFETY: a terminated path and numbers.
    let fd = Errno::result(unsafe { libc::open(PATH.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) })?;
    let fd = owned(fd.into());
    let path = CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).map_err(|_| Errno::EINVAL)?;
    doing(move |arm: Arm| {
        let _open = &fd;
        arm.during(|| open(&path, libc::O_RDONLY)).map(said)
    })
}

fn by_handle() -> Result<Doing, Errno> {
    file()?;
    let mut handle = [0_u32; 34]; // struct file_handle: size, type, and at most 128 bytes
    handle[0] = 128;
    let mut mount = 0_i32;
    let args =
        [usize::MAX - 99, PATH.as_ptr().addr(), handle.as_mut_ptr().addr(), (&raw mut mount).addr(), 0, 0];
    // SAFETY: a terminated path, a handle that says how much room it has, and a number to fill in.
    unsafe { syscall(libc::SYS_name_to_handle_at, args) }?;
    let folder = File::open("/tmp")?;
    doing(move |arm: Arm| {
        let args = [index(&folder), handle.as_mut_ptr().addr(), 0, 0, 0, 0];
        // SAFETY: a descriptor and a handle that the kernel has filled in.
        arm.during(|| unsafe { syscall(libc::SYS_open_by_handle_at, args) })
            .map(|fd| said(owned(fd)))
            .map_err(Failed::from)
    })
}

fn memfd() -> Result<OwnedFd, Failed> {
    // SAFETY: a terminated name and a number.
    let fd = unsafe { libc::memfd_create(c"conform".as_ptr(), libc::MFD_CLOEXEC) };
    Ok(owned(Errno::result(fd)?.into()))
}

fn dup() -> Result<Doing, Errno> {
    let file = file()?;
    doing(move |arm: Arm| {
        // SAFETY: takes a number.
        let fd = arm.during(|| Errno::result(unsafe { libc::dup(file.as_raw_fd()) }))?;
        Ok(said(owned(fd.into())))
    })
}

fn pidfd_getfd() -> Result<Doing, Errno> {
    let file = file()?;
    // SAFETY: takes two numbers.
    let pidfd =
        owned(unsafe { syscall(libc::SYS_pidfd_open, [std::process::id() as usize, 0, 0, 0, 0, 0]) }?);
    doing(move |arm: Arm| {
        let args = [index(&pidfd), index(&file), 0, 0, 0, 0];
        // SAFETY: takes three numbers.
        let fd = arm.during(|| unsafe { syscall(libc::SYS_pidfd_getfd, args) })?;
        Ok(said(owned(fd)))
    })
}

fn receive_it() -> Result<Doing, Errno> {
    let file = file()?;
    doing(move |arm: Arm| {
        let (_sender, receiver) = receive::sent(nix::sys::socket::SockType::Datagram, &[file.as_raw_fd()])?;
        let message = arm.during(|| receive::recvmsg(&receiver, 0, 1)).step("recvmsg")?;
        Ok(if message.takes_one() { "a descriptor" } else { "no descriptor" }.to_owned())
    })
}

/// include/uapi/linux/io_uring.h: IORING_OP_MSG_RING, IORING_OP_FIXED_FD_INSTALL.
const MSG_RING: u8 = 40;
const FIXED_FD_INSTALL: u8 = 54;
/// The same: IORING_MSG_SEND_FD.
const SEND_FD: usize = 1;

fn openat(file_index: u32) -> Request {
    let address = PATH.as_ptr().addr();
    Request { operation: OPENAT, fd: libc::AT_FDCWD, address, file_index, ..Request::default() }
}

fn by_ring() -> Result<Doing, Errno> {
    file()?;
    doing(|arm: Arm| {
        let mut ring = Ring::new()?;
        let fd = arm.during(|| ring.request(openat(0)))?;
        Ok(said(owned(fd.into())))
    })
}

/// Reads a byte of a ring's file number 0.
fn read_in(ring: &mut Ring) -> Result<String, Failed> {
    let mut byte = [0_u8];
    let address = byte.as_mut_ptr().addr();
    let request = Request { operation: READ, how: FIXED_FILE, address, length: 1, ..Request::default() };
    let read = ring.request(request).step("read")?;
    Ok(format!("a file in the ring, {read} read"))
}

/// Into a place among the ring's files, without a descriptor (5.15).
fn into_ring() -> Result<Doing, Errno> {
    file()?;
    doing(|arm: Arm| {
        let mut ring = Ring::new()?;
        ring.register_place().step("register")?;
        let fd = arm.during(|| ring.request(openat(1)))?;
        if fd > 0 {
            // What a kernel does that knows nothing of such places (5.14 fs/io_uring.c, `io_openat2`).
            drop(owned(fd.into()));
            return Ok("a descriptor, and no file in the ring".to_owned());
        }
        read_in(&mut ring)
    })
}

/// From one ring to another, both of this process (6.0).
fn between_rings() -> Result<Doing, Errno> {
    let file = file()?;
    doing(move |arm: Arm| {
        let (mut from, mut to) = (Ring::new()?, Ring::new()?);
        from.register_file(&file).step("register")?;
        to.register_place().step("register")?;
        let request = Request {
            operation: MSG_RING,
            fd: to.as_raw_fd(),
            address: SEND_FD,
            file_index: 1,
            ..Request::default()
        };
        arm.during(|| from.request(request))?;
        to.forget_completions();
        read_in(&mut to)
    })
}

/// A descriptor for a file that a ring has (6.8).
fn out_of_ring() -> Result<Doing, Errno> {
    let file = file()?;
    doing(move |arm: Arm| {
        let mut ring = Ring::new()?;
        ring.register_file(&file).step("register")?;
        let request = Request { operation: FIXED_FD_INSTALL, how: FIXED_FILE, ..Request::default() };
        let fd = arm.during(|| ring.request(request))?;
        Ok(said(owned(fd.into())))
    })
}
