//! Receiving descriptors: two in one message of a local socket, and one out of another process.

use super::Subject;
use super::way::{Doing, Failed, Step, Way, doing, plain};
use crate::errno::Errno;
use crate::spec::source;
use crate::triggers::files::{index, owned};
use crate::triggers::{Arm, syscall};
use libc::c_int;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use std::fs::{self, File};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub(super) const SUBJECT: Subject = Subject {
    name: "file_receive",
    what: "receive two open files",
    hooks: &["socket_recvmsg", "file_receive"],
    ways: &[
        Way::new("recvmsg-of-a-stream", || received(Socket::new(SockType::Stream))).call_by_call(),
        Way::new("recvmsg-of-datagrams", || received(Socket::new(SockType::Datagram))).call_by_call(),
        Way::new("recvmsg-that-peeks", || {
            received(Socket { flags: libc::MSG_PEEK, ..Socket::new(SockType::Datagram) })
        })
        .call_by_call(),
        Way::new("recvmsg-with-room-for-one", || {
            received(Socket { room: 1, ..Socket::new(SockType::Datagram) })
        }),
        Way::new("recvmsg-with-SO_RIGHTS_NOTRUNC", || {
            received(Socket { option: true, ..Socket::new(SockType::Datagram) })
        })
        .lacking(&[libc::ENOPROTOOPT])
        .in_step("setsockopt")
        .call_by_call(),
        Way::new("read", read),
        Way::new("pidfd_getfd", pidfd_getfd),
    ],
    sources: &[
        source("7.3", "net/core/scm.c", "scm_detach_fds"),
        source("7.3", "net/core/scm.c", "scm_recv_one_fd"),
        source("7.3", "fs/file.c", "receive_fd"),
        source("7.3", "kernel/pid.c", "SYSCALL_DEFINE3(pidfd_getfd)"),
        source("5.7", "net/core/scm.c", "scm_detach_fds"),
    ],
};

/// include/uapi/asm-generic/socket.h: SO_RIGHTS_NOTRUNC.
const RIGHTS_NOTRUNC: c_int = 85;

/// How a message is received.
#[derive(Clone, Copy)]
struct Socket {
    kind: SockType,
    flags: c_int,
    /// For how many descriptors there is room.
    room: u32,
    /// Whether a refused descriptor is not to end the list.
    option: bool,
}

impl Socket {
    const fn new(kind: SockType) -> Self {
        Self { kind, flags: 0, room: 2, option: false }
    }
}

/// Two files that can be told from each other by their size.
fn two_files() -> Result<(File, File), Errno> {
    fs::write("/tmp/first", b"1")?;
    fs::write("/tmp/second", b"22")?;
    Ok((File::open("/tmp/first")?, File::open("/tmp/second")?))
}

/// Sends descriptors with one byte to a new socket; both ends.
pub(super) fn sent(kind: SockType, descriptors: &[c_int]) -> Result<(OwnedFd, OwnedFd), Failed> {
    let pair = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).step("socketpair")?;
    let rights = [ControlMessage::ScmRights(descriptors)];
    let byte = [IoSlice::new(b"x")];
    sendmsg::<()>(pair.0.as_raw_fd(), &byte, &rights, MsgFlags::MSG_DONTWAIT, None).step("sendmsg")?;
    Ok(pair)
}

fn numbers(files: &(File, File)) -> [c_int; 2] {
    [files.0.as_raw_fd(), files.1.as_raw_fd()]
}

/// What recvmsg(2) gave.
pub(super) struct Message {
    bytes: usize,
    /// Descriptors, or what stands in their places.
    entries: Vec<c_int>,
    cut: bool,
}

pub(super) fn recvmsg(socket: &OwnedFd, flags: c_int, room: u32) -> Result<Message, Errno> {
    let mut byte = [0_u8; 1];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = [0_u64; 8];
    // SAFETY: all-zero is a valid header, plain data.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    // SAFETY: arithmetic alone. Not CMSG_SPACE, which may have room for one more.
    header.msg_controllen = unsafe { libc::CMSG_LEN(room * 4) } as usize;
    let flags = flags | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: a header whose buffers have the lengths that it says and live across the call.
    let bytes = Errno::result(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) })?;
    let mut entries = Vec::new();
    // SAFETY: the kernel has filled the header in; CMSG_FIRSTHDR gives null or what lies inside the control buffer.
    let first = unsafe { libc::CMSG_FIRSTHDR(&raw const header).as_ref() };
    if let Some(message) = first {
        // SAFETY: arithmetic alone.
        let count = (message.cmsg_len.saturating_sub(unsafe { libc::CMSG_LEN(0) } as usize)) / 4;
        // SAFETY: so many numbers lie behind the head of the message, as its length says.
        entries =
            unsafe { std::slice::from_raw_parts(libc::CMSG_DATA(message).cast::<c_int>(), count) }.to_vec();
    }
    let bytes = usize::try_from(bytes).unwrap_or(0);
    Ok(Message { bytes, entries, cut: header.msg_flags & libc::MSG_CTRUNC != 0 })
}

impl Message {
    /// Whether there is one descriptor; it is closed.
    pub(super) fn takes_one(&self) -> bool {
        let &[entry] = self.entries.as_slice() else { return false };
        entry >= 0 && nix::unistd::close(entry).is_ok()
    }

    /// In words; the descriptors are closed.
    fn words(self) -> Result<String, Errno> {
        let mut files = Vec::new();
        for entry in self.entries {
            if entry < 0 {
                files.push(Errno::from_raw(entry).name());
                continue;
            }
            // SAFETY: the kernel has just made this descriptor for us.
            let file = unsafe { File::from_raw_fd(entry) };
            files.push(if file.metadata()?.len() == 1 { "the first" } else { "the second" }.to_owned());
        }
        let files = if files.is_empty() { "no descriptor".to_owned() } else { files.join(", ") };
        let cut = if self.cut { ", MSG_CTRUNC" } else { "" };
        Ok(format!("{} byte, {files}{cut}", self.bytes))
    }
}

fn received(how: Socket) -> Result<Doing, Errno> {
    let files = two_files()?;
    doing(move |arm: Arm| {
        let (_sender, receiver) = sent(how.kind, &numbers(&files))?;
        if how.option {
            let on: c_int = 1;
            let value = (&raw const on).cast();
            // SAFETY: a number with its size.
            Errno::result(unsafe {
                libc::setsockopt(receiver.as_raw_fd(), libc::SOL_SOCKET, RIGHTS_NOTRUNC, value, 4)
            })
            .step("setsockopt")?;
        }
        match arm.during(|| recvmsg(&receiver, how.flags, how.room)) {
            Ok(message) => Ok(message.words()?),
            Err(errno) => {
                let waits = recvmsg(&receiver, 0, 2).is_ok_and(|message| message.words().is_ok());
                let call =
                    if waits { "recvmsg, and the message waits" } else { "recvmsg, and the message is gone" };
                Err(errno).step(call)
            }
        }
    })
}

/// `read(2)`, which takes no descriptors.
fn read() -> Result<Doing, Errno> {
    let files = two_files()?;
    doing(move |arm: Arm| {
        let (_sender, receiver) = sent(SockType::Datagram, &numbers(&files))?;
        let bytes = arm.during(|| nix::unistd::read(&receiver, &mut [0]))?;
        Ok(format!("{bytes} byte"))
    })
}

/// `pidfd_getfd(2)` of this process's own files, both.
fn pidfd_getfd() -> Result<Doing, Errno> {
    let files = two_files()?;
    // SAFETY: takes two numbers.
    let pidfd =
        owned(unsafe { syscall(libc::SYS_pidfd_open, [std::process::id() as usize, 0, 0, 0, 0, 0]) }?);
    plain(move |arm: Arm| {
        arm.during(|| {
            for file in [&files.0, &files.1] {
                // SAFETY: takes three numbers.
                drop(owned(unsafe {
                    syscall(libc::SYS_pidfd_getfd, [index(&pidfd), index(file), 0, 0, 0, 0])
                }?));
            }
            Ok(())
        })
    })
}
