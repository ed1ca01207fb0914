//! Sending through a local socket, and receiving.

use super::Subject;
use super::way::{Doing, Failed, Step, Way, doing};
use crate::errno::Errno;
use crate::spec::source;
use crate::triggers::uring::{Request, Ring};
use crate::triggers::{Arm, vacate};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

pub(super) const SENDING: Subject = Subject {
    name: "socket_sendmsg",
    what: "send through a local socket, of datagrams where the case says no other,",
    hooks: &["file_permission", "socket_sendmsg"],
    ways: &[
        Way::new("write", || sent(write)),
        Way::new("writev", || sent(writev)),
        Way::new("send", || sent(send)),
        Way::new("sendmsg", || sent(sendmsg)),
        Way::new("sendmmsg-of-three", || sent(sendmmsg)).call_by_call(),
        Way::new("sendto", || addressed(sendto)),
        Way::new("sendmmsg-of-three-to-one-address", || addressed(sendmmsg_to)).call_by_call(),
        Way::new("sendfile", || sendfile(SockType::Datagram)),
        Way::new("sendfile-to-a-stream", || sendfile(SockType::Stream)),
        Way::new("splice-from-a-pipe", || splice(SockType::Datagram)),
        Way::new("splice-from-a-pipe-to-a-stream", || splice(SockType::Stream)),
        Way::new("io_uring-send", by_ring),
    ],
    sources: &[
        source("7.3", "net/socket.c", "__sock_sendmsg"),
        source("7.3", "net/socket.c", "____sys_sendmsg"),
        source("7.3", "fs/splice.c", "splice_to_socket"),
        source("7.3", "io_uring/net.c", "io_send"),
        source("6.4", "net/socket.c", "sock_sendpage"),
        source("6.4", "fs/splice.c", "pipe_to_sendpage"),
    ],
};

pub(super) const RECEIVING: Subject = Subject {
    name: "socket_recvmsg",
    what: "receive from a local socket, of datagrams where the case says no other,",
    hooks: &["file_permission", "socket_recvmsg"],
    ways: &[
        Way::new("read", || received(read)),
        Way::new("recv", || received(|fd| recv(fd, 0))),
        Way::new("recv-that-peeks", || received(|fd| recv(fd, libc::MSG_PEEK))),
        Way::new("recvmsg", || received(recvmsg)),
        Way::new("recvmmsg-of-three", || received(recvmmsg)).call_by_call(),
        Way::new("splice-to-a-pipe", || splice_out(SockType::Datagram)),
        Way::new("splice-to-a-pipe-from-a-stream", || splice_out(SockType::Stream)),
        Way::new("io_uring-recv", receive_by_ring),
    ],
    sources: &[
        source("7.3", "net/socket.c", "sock_recvmsg"),
        source("7.3", "net/socket.c", "____sys_recvmsg"),
        source("7.3", "net/socket.c", "do_recvmmsg"),
        source("7.3", "net/socket.c", "sock_splice_read"),
        source("7.3", "io_uring/net.c", "io_recv"),
        source("5.7", "net/socket.c", "sock_splice_read"),
    ],
};

/// How many messages are at hand.
const THREE: usize = 3;
/// The same, as system calls take it.
const COUNT: u32 = 3;
const _: () = assert!(COUNT as usize == THREE);
/// include/uapi/linux/io_uring.h: IORING_OP_SEND, IORING_OP_RECV.
const SEND: u8 = 26;
const RECV: u8 = 27;

fn number(result: isize) -> Result<usize, Errno> {
    Errno::result(result).map(|number| usize::try_from(number).unwrap_or(0))
}

fn pair(kind: SockType) -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socketpair(AddressFamily::Unix, kind, None, flags)?)
}

/// How many messages (or bytes of a stream) arrive: all that wait are taken.
fn arrived(receiver: &impl AsRawFd) -> usize {
    let mut count = 0;
    while read(receiver.as_raw_fd()).is_ok_and(|bytes| bytes > 0) {
        count += 1;
    }
    count
}

/// What a call that is to send gave, and what arrives. Local sockets deliver before the call returns.
fn told(result: Result<usize, Errno>, receiver: &impl AsRawFd) -> Result<String, Failed> {
    let count = arrived(receiver);
    match result {
        Err(errno) if count == 0 => Err(errno.into()),
        Err(errno) => Ok(format!("{errno}, and {count} arrive")),
        Ok(number) => Ok(format!("gives {number}, {count} arrive")),
    }
}

type Call = fn(i32) -> Result<usize, Errno>;

/// Sends through one of a pair of datagram sockets.
fn sent(call: Call) -> Result<Doing, Errno> {
    let (sender, receiver) = pair(SockType::Datagram)?;
    doing(move |arm: Arm| told(arm.during(|| call(sender.as_raw_fd())), &receiver))
}

fn write(fd: i32) -> Result<usize, Errno> {
    // SAFETY: one byte that lives across the call.
    number(unsafe { libc::write(fd, b"x".as_ptr().cast(), 1) })
}

/// A byte as the one part of a message.
fn part() -> libc::iovec {
    libc::iovec { iov_base: b"x".as_ptr().cast_mut().cast(), iov_len: 1 }
}

fn writev(fd: i32) -> Result<usize, Errno> {
    let part = part();
    // SAFETY: one part, which is only read.
    number(unsafe { libc::writev(fd, &raw const part, 1) })
}

fn send(fd: i32) -> Result<usize, Errno> {
    // SAFETY: one byte that lives across the call.
    number(unsafe { libc::send(fd, b"x".as_ptr().cast(), 1, 0) })
}

fn sendto(fd: i32) -> Result<usize, Errno> {
    let (address, length) = address();
    // SAFETY: one byte, and an address with its length.
    number(unsafe { libc::sendto(fd, b"x".as_ptr().cast(), 1, 0, (&raw const address).cast(), length) })
}

/// So many headers of messages, all of one part, and of one address if there is one.
fn headers(part: &mut libc::iovec, address: Option<&mut libc::sockaddr_un>) -> [libc::mmsghdr; THREE] {
    // SAFETY: all-zero is a valid header, plain data.
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    header.msg_hdr.msg_iov = part;
    header.msg_hdr.msg_iovlen = 1;
    if let Some(address) = address {
        header.msg_hdr.msg_namelen = ADDRESS_BYTES;
        header.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
    }
    [header; THREE]
}

fn sendmsg(fd: i32) -> Result<usize, Errno> {
    let mut part = part();
    let [header, ..] = headers(&mut part, None);
    // SAFETY: a header of one part, which is only read.
    number(unsafe { libc::sendmsg(fd, &raw const header.msg_hdr, 0) })
}

fn send_three(fd: i32, address: Option<&mut libc::sockaddr_un>) -> Result<usize, Errno> {
    let mut part = part();
    let mut headers = headers(&mut part, address);
    // SAFETY: three headers, whose parts are only read.
    number(unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), COUNT, 0) } as isize)
}

fn sendmmsg(fd: i32) -> Result<usize, Errno> {
    send_three(fd, None)
}

fn sendmmsg_to(fd: i32) -> Result<usize, Errno> {
    send_three(fd, Some(&mut address().0))
}

const PATH: &str = "/tmp/receiver";
/// The size of a local address.
const ADDRESS_BYTES: libc::socklen_t = 110;
const _: () = assert!(size_of::<libc::sockaddr_un>() == ADDRESS_BYTES as usize);

/// The address of [`PATH`].
fn address() -> (libc::sockaddr_un, libc::socklen_t) {
    let mut address = libc::sockaddr_un { sun_family: 1, sun_path: [0; 108] };
    for (to, from) in address.sun_path.iter_mut().zip(PATH.bytes()) {
        *to = from.cast_signed();
    }
    (address, ADDRESS_BYTES)
}

/// Sends to a socket that has a name.
fn addressed(call: Call) -> Result<Doing, Errno> {
    vacate(PATH)?;
    let receiver = UnixDatagram::bind(PATH)?;
    receiver.set_nonblocking(true)?;
    let sender = UnixDatagram::unbound()?;
    doing(move |arm: Arm| told(arm.during(|| call(sender.as_raw_fd())), &receiver))
}

fn sendfile(kind: SockType) -> Result<Doing, Errno> {
    std::fs::write("/tmp/sent", b"x")?;
    let file = std::fs::File::open("/tmp/sent")?;
    let (sender, receiver) = pair(kind)?;
    doing(move |arm: Arm| {
        let mut offset = 0;
        let (to, from) = (sender.as_raw_fd(), file.as_raw_fd());
        // SAFETY: descriptors, and a number that lives across the call.
        let result = arm.during(|| number(unsafe { libc::sendfile(to, from, &raw mut offset, 1) }));
        told(result, &receiver)
    })
}

/// Moves a byte; nothing is waited for.
fn move_byte(from: i32, to: i32) -> Result<usize, Errno> {
    let none = std::ptr::null_mut();
    // SAFETY: descriptors and numbers.
    number(unsafe { libc::splice(from, none, to, none, 1, libc::SPLICE_F_NONBLOCK) })
}

fn splice(kind: SockType) -> Result<Doing, Errno> {
    let (sender, receiver) = pair(kind)?;
    doing(move |arm: Arm| {
        let (out, into) = nix::unistd::pipe()?;
        nix::unistd::write(&into, b"x")?;
        told(arm.during(|| move_byte(out.as_raw_fd(), sender.as_raw_fd())), &receiver)
    })
}

/// A request for a byte.
fn request(operation: u8, fd: &OwnedFd, byte: *const u8) -> Request {
    Request { operation, fd: fd.as_raw_fd(), address: byte.addr(), length: 1, ..Request::default() }
}

fn by_ring() -> Result<Doing, Errno> {
    let mut ring = Ring::new()?;
    let (sender, receiver) = pair(SockType::Datagram)?;
    doing(move |arm: Arm| {
        let result = arm.during(|| ring.request(request(SEND, &sender, b"x".as_ptr())));
        told(result.map(|number| number as usize), &receiver)
    })
}

fn read(fd: i32) -> Result<usize, Errno> {
    let mut byte = [0_u8; 1];
    // SAFETY: a buffer with its length.
    number(unsafe { libc::read(fd, byte.as_mut_ptr().cast(), 1) })
}

fn recv(fd: i32, flags: i32) -> Result<usize, Errno> {
    let mut byte = [0_u8; 1];
    // SAFETY: a buffer with its length.
    number(unsafe { libc::recv(fd, byte.as_mut_ptr().cast(), 1, flags) })
}

/// A part that is written to.
fn room(byte: &mut [u8; 1]) -> libc::iovec {
    libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 }
}

fn recvmsg(fd: i32) -> Result<usize, Errno> {
    let mut byte = [0_u8; 1];
    let mut part = room(&mut byte);
    let [mut header, ..] = headers(&mut part, None);
    // SAFETY: a header of one part with its length.
    number(unsafe { libc::recvmsg(fd, &raw mut header.msg_hdr, 0) })
}

fn recvmmsg(fd: i32) -> Result<usize, Errno> {
    let mut byte = [0_u8; 1];
    let mut part = room(&mut byte);
    let mut headers = headers(&mut part, None);
    let no_time = std::ptr::null_mut();
    // SAFETY: three headers of one part with its length, and no time.
    number(unsafe { libc::recvmmsg(fd, headers.as_mut_ptr(), COUNT, 0, no_time) } as isize)
}

/// Three messages wait at one of a pair of datagram sockets.
fn received(call: Call) -> Result<Doing, Errno> {
    let (sender, receiver) = pair(SockType::Datagram)?;
    doing(move |arm: Arm| {
        for _ in 0..THREE {
            send(sender.as_raw_fd()).step("send")?;
        }
        let result = arm.during(|| call(receiver.as_raw_fd()));
        let left = arrived(&receiver);
        match result {
            Err(errno) if left == THREE => Err(errno.into()),
            Err(errno) => Ok(format!("{errno}, and {left} of 3 are left")),
            Ok(number) => Ok(format!("gives {number}, {left} of 3 are left")),
        }
    })
}

fn splice_out(kind: SockType) -> Result<Doing, Errno> {
    let (sender, receiver) = pair(kind)?;
    doing(move |arm: Arm| {
        let (out, into) = nix::unistd::pipe()?;
        send(sender.as_raw_fd()).step("send")?;
        let result = arm.during(|| move_byte(receiver.as_raw_fd(), into.as_raw_fd()));
        drop(into);
        let in_pipe = arrived(&out);
        let left = arrived(&receiver);
        match result {
            Err(errno) if (in_pipe, left) == (0, 1) => Err(errno.into()),
            Err(errno) => Ok(format!("{errno}, and {in_pipe} in the pipe, {left} left")),
            Ok(number) => Ok(format!("gives {number}, {in_pipe} in the pipe, {left} left")),
        }
    })
}

fn receive_by_ring() -> Result<Doing, Errno> {
    let mut ring = Ring::new()?;
    let (sender, receiver) = pair(SockType::Datagram)?;
    doing(move |arm: Arm| {
        let mut byte = [0_u8; 1];
        send(sender.as_raw_fd()).step("send")?;
        let room = byte.as_mut_ptr().cast_const();
        let result = arm.during(|| ring.request(request(RECV, &receiver, room)));
        let left = arrived(&receiver);
        match result {
            Err(errno) if left == 1 => Err(errno.into()),
            Err(errno) => Ok(format!("{errno}, and {left} left")),
            Ok(number) => Ok(format!("gives {number}, {left} left")),
        }
    })
}
