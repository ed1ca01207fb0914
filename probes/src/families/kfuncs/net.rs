//! Kfuncs about sockets and packets.

use super::body::{BUFFER, Body};
use super::dynptr::written_to;
use super::own::{Holds, Value};
use super::row::{KEPT, Row, kfunc};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::spec::source;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket,
};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

const KSOCK: &str = "net/core/bpf_ksock.c";
/// Why what is about sockets of the kernel's own is not run.
const NONE: &str = "only a BPF_PROG_TYPE_SYSCALL program can make such a socket";
/// Where the dynptr is on the stack.
const DYNPTR: i32 = -16;
/// What is sent.
const PAYLOAD: &[u8] = b"a message";
/// Bytes of the header of UDP, which stands before it.
const HEADER: usize = 8;

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    vec![acquire(), release(), send(), packet()]
}

/// A kfunc about a socket that a map holds (7.3).
fn of_socket(name: &'static str) -> Row {
    kfunc(name, "7.3", KSOCK)
        .holds(Holds::Value(Value::Socket))
        .not_run(NONE)
        .not_on("socket_sendmsg")
        .cites(source("7.3", KSOCK, "bpf_ksock_kfunc_filter"))
}

/// `KEPT = the socket`, taken out of the map.
fn taken(b: &mut Body<'_>) {
    b.held(Reg::R1, 0);
    b.mov_imm(Reg::R2, 0).call(helper::KPTR_XCHG).jeq_imm(Reg::R0, 0, "pass").mov_reg(KEPT, Reg::R0);
}

fn acquire() -> Row {
    of_socket("bpf_ksock_acquire")
        .takes(|b| {
            b.held(Reg::R1, 0);
            b.ldx(Size::DW, Reg::R1, Reg::R1, 0);
            let there = b.fresh("there");
            b.jne_imm(Reg::R1, 0, &there).ja("pass").label(&there);
        })
        .owned("bpf_ksock_release")
        .rcu()
        .not_null(Reg::R1)
}

fn release() -> Row {
    of_socket("bpf_ksock_release")
        .releases()
        .takes(|b| {
            taken(b);
            b.mov_reg(Reg::R1, KEPT);
        })
        .wrong("misuse-of-another-type", |b| {
            b.current(Reg::R1);
            b.acquire_task();
            b.mov_reg(Reg::R1, Reg::R0);
            b.kfunc("bpf_ksock_release");
        })
}

fn send() -> Row {
    of_socket("bpf_ksock_send")
        .sleepable()
        .takes(|b| {
            taken(b);
            b.mov_reg(Reg::R1, KEPT);
            b.page_address(Reg::R2, BUFFER);
            b.mov_imm(Reg::R3, 8);
        })
        .finally(|b| b.release("bpf_ksock_release", KEPT))
        .not_null(Reg::R1)
        .spoilt("misuse-data-beyond-the-map", |b| {
            b.mov_imm(Reg::R3, 8192);
        })
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
