//! Kfuncs about sockets and packets.

use super::body::{BUFFER, Body};
use super::dynptr::written_to;
use super::row::{Row, kfunc};
use crate::errno::Errno;
use crate::helper;
use crate::insn::Reg;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket,
};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Where the dynptr is on the stack.
const DYNPTR: i32 = -16;
/// What is sent.
const PAYLOAD: &[u8] = b"a message";
/// Bytes of the header of UDP, which stands before it.
const HEADER: usize = 8;

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    vec![packet()]
}

/// Sends a datagram to itself.
fn send_to_self() -> Result<(), Errno> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.connect(socket.local_addr()?)?;
    socket.send(PAYLOAD)?;
    let mut received = [0; 16];
    socket.recv(&mut received).map(drop).map_err(Errno::from)
}

fn packet_arguments(b: &mut Body<'_>) {
    b.context_argument(Reg::R1, 1);
    b.mov_imm(Reg::R2, 0);
    b.stack_address(Reg::R3, DYNPTR);
}

/// `R0 = what reading `bytes` from the beginning of the dynptr into the buffer gives`.
fn read(b: &mut Body<'_>, bytes: usize) {
    b.page_address(Reg::R1, BUFFER);
    b.mov_imm(Reg::R2, i64::try_from(bytes).unwrap_or_default());
    b.stack_address(Reg::R3, DYNPTR);
    b.mov_imm(Reg::R4, 0).mov_imm(Reg::R5, 0).call(helper::DYNPTR_READ);
}

/// A message of the kind that does nothing (include/uapi/linux/netlink.h, NLMSG_NOOP), with 8 bytes in it.
const MESSAGE: [u8; 24] =
    [24, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'c', b'o', b'n', b'f', b'o', b'r', b'm', 0];

/// Sends it to the kernel.
fn send_to_the_kernel() -> Result<(), Errno> {
    let protocol = SockProtocol::NetlinkRoute;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    sendto(socket.as_raw_fd(), &MESSAGE, &NetlinkAddr::new(0, 0), MsgFlags::empty())
        .map(drop)
        .map_err(Errno::from)
}

/// A packet where a program may sleep, which is when its sender hands it over.
fn sent() -> Row {
    kfunc("bpf_dynptr_from_skb", "7.3", "net/core/filter.c")
        .sleepable()
        .on("netlink_send", send_to_the_kernel)
        .takes(packet_arguments)
        .gives(0)
        .then(|b| read(b, MESSAGE.len()))
        .checks(|attempt, results| {
            attempt.same("message", results.bytes(BUFFER, MESSAGE.len()), MESSAGE.to_vec());
        })
}

/// A kfunc whose first argument is the dynptr of a packet, which an LSM program may only read.
pub(super) fn of_a_packet(row: Row) -> Row {
    row.never_sleeps().on("socket_sock_rcv_skb", send_to_self).takes(|b| {
        packet_arguments(b);
        b.kfunc("bpf_dynptr_from_skb");
        b.stack_address(Reg::R1, DYNPTR);
    })
}

/// The packet as the socket gets it, from the header of UDP on.
fn arriving() -> Row {
    kfunc("bpf_dynptr_from_skb", "7.3", "net/core/filter.c")
        .never_sleeps()
        .on("socket_sock_rcv_skb", send_to_self)
        .takes(packet_arguments)
        .gives(0)
}

fn packet() -> Row {
    arriving()
        .then(|b| read(b, HEADER + PAYLOAD.len()))
        .checks(|attempt, results| {
            let seen = results.bytes(BUFFER, HEADER + PAYLOAD.len());
            attempt.same("payload", seen[HEADER..].to_vec(), PAYLOAD.to_vec());
        })
        .not_null(Reg::R1)
        .spoilt("misuse-another-type", |b| b.context_argument(Reg::R1, 0))
        .other("canonical-written-to", written_to(arriving(), DYNPTR))
        .other("canonical-sleepable", sent())
}
