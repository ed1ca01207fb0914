//! Kfuncs about sockets of the kernel's own, through which a program sends messages (7.3). LSM programs take them from a
//! map; only a program for system calls can make one and connect it, which each of these rows has done beforehand.

use super::body::{BUFFER, Body, IN, OUT};
use super::cases::errno_text;
use super::own::{Holds, LATER, Own, Value};
use super::row::{Filled, GOT, KEPT, Row, kfunc};
use crate::asm::Asm;
use crate::bpf::{self, BPF_F_SLEEPABLE, BPF_PROG_TYPE_SYSCALL, ProgSpec, TestRun};
use crate::btf::Btf;
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::results::Results;
use crate::rules;
use crate::session::{Attempt, Ended};
use crate::spec::source;
use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

const FILE: &str = "net/core/bpf_ksock.c";
/// What is sent.
const MESSAGE: [u8; 8] = *b"a packet";
/// `struct bpf_ksock_create_opts` (7.3 include/linux/bpf_ksock.h): family, type, protocol and a byte that is zero.
const OPTIONS: u32 = u32::from_ne_bytes([2, 2, 0, 0]); // AF_INET, SOCK_DGRAM
/// Bytes of it.
const OPTIONS_BYTES: i32 = 4;
/// Bytes of `union bpf_ksock_addr` (the same file), in which an address of IPv6 has room.
const ADDRESS_BYTES: i32 = 28;
/// Where the program that makes a socket has its options on the stack.
const OPTIONS_AT: i32 = -4;
/// Where it has room for an errno.
const ERRNO_AT: i32 = -8;
/// Where it has an address.
const ADDRESS_AT: i32 = -40;

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    vec![acquire(), release(), send()]
}

/// A kfunc about a socket that a map holds.
fn of_socket(name: &'static str) -> Row {
    kfunc(name, "7.3", FILE)
        .holds(Holds::Value(Value::Socket))
        .filled(connected(|_, _, _| ()))
        .not_on("socket_sendmsg")
        .cites(source("7.3", FILE, "bpf_ksock_kfunc_filter"))
        .cites(source("7.3", FILE, "bpf_ksock_create"))
}

/// Puts a socket into the map that sends to another one, which `look` has afterwards.
fn connected(look: fn(&mut Attempt<'_>, &UdpSocket, u16)) -> impl Fn(&mut Attempt<'_>, &Own) -> Filled {
    move |attempt, own| {
        let receiver = UdpSocket::bind("127.0.0.1:0").and_then(|socket| {
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            Ok((socket.local_addr()?.port(), socket))
        });
        let (port, socket) =
            receiver.map_err(|error| Ended::could_not("make a socket that receives", error))?;
        fill(attempt, own, Some(port))?;
        if !listed(port) {
            return Err(Ended::CouldNotTell("user space does not see the socket".to_owned()));
        }
        Ok(Box::new(move |attempt| look(attempt, &socket, port)))
    }
}

/// Puts a socket into the map that is connected to nobody.
fn not_connected(attempt: &mut Attempt<'_>, own: &Own) -> Filled {
    fill(attempt, own, None)?;
    Ok(Box::new(|_| ()))
}

/// Runs a program for system calls that makes a socket, connects it to this port and leaves it in the map.
fn fill(attempt: &mut Attempt<'_>, own: &Own, port: Option<u16>) -> Result<(), Ended> {
    let Some(map) = &own.map else { return Err(Ended::CouldNotTell("the row holds no map".to_owned())) };
    let [create, connect, release] =
        ["bpf_ksock_create", "bpf_ksock_connect", "bpf_ksock_release"].map(|name| attempt.kfunc(name));
    let (create, connect, release) = (create?, connect?, release?);
    let mut asm = Asm::new();
    asm.st_imm(Size::W, Reg::R10, OPTIONS_AT, OPTIONS)
        .mov_reg(Reg::R1, Reg::R10)
        .add_imm(Reg::R1, OPTIONS_AT)
        .mov_imm(Reg::R2, OPTIONS_BYTES)
        .mov_reg(Reg::R3, Reg::R10)
        .add_imm(Reg::R3, ERRNO_AT)
        .call_kfunc(create, 0)
        .jne_imm(Reg::R0, 0, "made")
        .ldx(Size::W, Reg::R0, Reg::R10, ERRNO_AT)
        .exit()
        .label("made")
        .mov_reg(Reg::R6, Reg::R0);
    if let Some(port) = port {
        for offset in (0..ADDRESS_BYTES).step_by(4) {
            asm.st_imm(Size::W, Reg::R10, ADDRESS_AT + offset, 0);
        }
        // struct sockaddr_in: the family, the port, and 127.0.0.1, the latter two as on the wire.
        asm.st_imm(Size::H, Reg::R10, ADDRESS_AT, 2)
            .st_imm(Size::H, Reg::R10, ADDRESS_AT + 2, port.to_be())
            .st_imm(Size::W, Reg::R10, ADDRESS_AT + 4, i32::from_ne_bytes([127, 0, 0, 1]))
            .mov_reg(Reg::R1, Reg::R6)
            .mov_reg(Reg::R2, Reg::R10)
            .add_imm(Reg::R2, ADDRESS_AT)
            .mov_imm(Reg::R3, ADDRESS_BYTES)
            .call_kfunc(connect, 0)
            .mov_reg(Reg::R7, Reg::R0)
            .jeq_imm(Reg::R7, 0, "connected")
            .mov_reg(Reg::R1, Reg::R6)
            .call_kfunc(release, 0)
            .mov_reg(Reg::R0, Reg::R7)
            .exit()
            .label("connected");
    }
    asm.ld_map_value(Reg::R1, map, 0)
        .mov_reg(Reg::R2, Reg::R6)
        .call(helper::KPTR_XCHG)
        .jeq_imm(Reg::R0, 0, "kept")
        .mov_reg(Reg::R1, Reg::R0)
        .call_kfunc(release, 0)
        .label("kept")
        .mov_imm(Reg::R0, 0)
        .exit();
    let insns = asm.finish().map_err(|error| Ended::could_not("assemble the program", error))?;
    let spec = ProgSpec { flags: BPF_F_SLEEPABLE, ..ProgSpec::new(BPF_PROG_TYPE_SYSCALL, "makes", insns) };
    let program = bpf::prog_load(&spec, 1).map_err(|refused| {
        Ended::could_not("load the program that makes a socket", format!("{refused}: {}", refused.log))
    })?;
    let run = bpf::prog_test_run(&program, TestRun::default())
        .map_err(|errno| Ended::could_not("run the program that makes a socket", errno))?;
    match run.retval.cast_signed() {
        0 => Ok(()),
        errno => Err(Ended::could_not("make a socket", Errno::from_raw(-errno))),
    }
}

/// Whether there is a socket that is connected to this port of 127.0.0.1.
fn listed(port: u16) -> bool {
    let peer = format!("0100007F:{port:04X}");
    let sockets = fs::read_to_string("/proc/net/udp").unwrap_or_default();
    // Columns: a number, this end, the other end, ..
    sockets.lines().any(|line| line.split_whitespace().nth(2).is_some_and(|end| end == peer))
}

/// Whether the message has arrived.
fn arrives(attempt: &mut Attempt<'_>, receiver: &UdpSocket, _: u16) {
    let mut bytes = vec![0; 2 * MESSAGE.len()];
    match receiver.recv(&mut bytes) {
        Ok(length) => {
            bytes.truncate(length);
            attempt.same("what arrives", bytes, MESSAGE.to_vec());
        }
        Err(error) => attempt.see("what arrives", Errno::from(error).to_string()),
    }
}

/// How many of the messages have arrived; on the loopback they have when they are sent.
fn arrive(attempt: &mut Attempt<'_>, receiver: &UdpSocket, _: u16) {
    let mut messages = 0;
    let mut bytes = [0; 2 * MESSAGE.len()];
    if let Err(error) = receiver.set_nonblocking(true) {
        return attempt.see("messages that arrive", Errno::from(error).to_string());
    }
    while let Ok(length) = receiver.recv(&mut bytes) {
        messages += u32::from(bytes.get(..length) == Some(&MESSAGE[..]));
    }
    attempt.see("messages that arrive", messages);
}

/// Whether what sends to this port goes, which it does after a grace period.
fn goes(attempt: &mut Attempt<'_>, _: &UdpSocket, port: u16) {
    rules::until(|| !listed(port));
    attempt.holds("the socket is gone afterwards", !listed(port));
}

/// `KEPT = the socket`, taken out of the map.
fn taken(b: &mut Body<'_>) {
    b.held(Reg::R1, 0);
    b.mov_imm(Reg::R2, 0).call(helper::KPTR_XCHG).jeq_imm(Reg::R0, 0, "pass").mov_reg(KEPT, Reg::R0);
}

/// Leaves in a slot how often the socket in `of` is held.
fn leave_holders(b: &mut Body<'_>, slot: i32, of: Reg) {
    b.mov_reg(Reg::R2, of);
    b.follow(Reg::R2, "bpf_ksock", "usage.refs.counter");
    b.leave(slot, Reg::R2);
}

fn acquire() -> Row {
    of_socket("bpf_ksock_acquire")
        .takes(|b| {
            b.held(Reg::R1, 0);
            b.ldx(Size::DW, Reg::R1, Reg::R1, 0);
            let there = b.fresh("there");
            b.jne_imm(Reg::R1, 0, &there).ja("pass").label(&there);
            leave_holders(b, 0, Reg::R1);
        })
        .owned("bpf_ksock_release")
        .then(|b| leave_holders(b, 1, GOT))
        .leaves("holders before", 0, || Some(1))
        .leaves("holders afterwards", 1, || Some(2))
        .rcu()
        .not_null(Reg::R1)
}

/// The last reference ends the socket.
fn release() -> Row {
    of_socket("bpf_ksock_release")
        .filled(connected(goes))
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

/// A socket out of the map, a message of the page and its length.
fn sending() -> Row {
    of_socket("bpf_ksock_send")
        .sleepable()
        .given(|results| {
            results.set(IN, u64::from_ne_bytes(MESSAGE));
            Ok(())
        })
        .takes(|b| {
            b.input(Reg::R1, 0);
            b.stx(Size::DW, crate::lsm::PAGE, BUFFER, Reg::R1);
            taken(b);
            b.mov_reg(Reg::R1, KEPT);
            b.page_address(Reg::R2, BUFFER);
            b.mov_imm(Reg::R3, 8);
        })
        .finally(|b| b.release("bpf_ksock_release", KEPT))
}

/// Takes the socket out of the value that it is given, sends the message once more and leaves what that gives.
fn sends_again(asm: &mut Asm, results: &Results, btf: &Btf) {
    // What the kernel does not have the program itself has missed.
    let [send, release] =
        ["bpf_ksock_send", "bpf_ksock_release"].map(|name| btf.function(name).unwrap_or_default());
    asm.mov_reg(Reg::R1, Reg::R3)
        .mov_imm(Reg::R2, 0)
        .call(helper::KPTR_XCHG)
        .jeq_imm(Reg::R0, 0, "no-socket")
        .mov_reg(Reg::R6, Reg::R0)
        .mov_reg(Reg::R1, Reg::R0)
        .ld_map_value(Reg::R2, results, BUFFER.unsigned_abs())
        .mov_imm(Reg::R3, 8)
        .call_kfunc(send, 0)
        .mov_reg(Reg::R7, Reg::R0)
        .mov_reg(Reg::R1, Reg::R6)
        .call_kfunc(release, 0)
        .ld_map_value(Reg::R1, results, 0)
        .stx(Size::DW, Reg::R1, OUT + 8, Reg::R7)
        .st_imm(Size::DW, Reg::R1, OUT, 1)
        .ja("out")
        .label("no-socket")
        .ld_map_value(Reg::R1, results, 0)
        .st_imm(Size::DW, Reg::R1, OUT, 2)
        .label("out")
        .mov_imm(Reg::R0, 0)
        .exit();
}

/// Sends, puts the socket back into the map and has `start` see to it that it is sent once more later. A kernel thread has no
/// user's context to send in; the task itself, on its way back to user space, has.
fn sends_once_more(value: Value, start: fn(&mut Body<'_>)) -> Row {
    sending()
        .holds(Holds::Value(value))
        .filled(connected(arrive))
        .gives(8)
        .then(move |b| {
            b.held(Reg::R1, 0);
            b.mov_reg(Reg::R2, KEPT).call(helper::KPTR_XCHG);
            let empty = b.fresh("empty");
            b.jeq_imm(Reg::R0, 0, &empty);
            b.release("bpf_ksock_release", Reg::R0);
            b.label(&empty);
            start(b);
        })
        .finally(|_| ())
        .checks(|attempt, results| {
            rules::until(|| results.get(OUT) != 0);
            match results.get(OUT) {
                0 => attempt.see("the callback has the socket", "could not tell: it has not run"),
                1 => {
                    attempt.holds("the callback has the socket", true);
                    attempt.see("sending from the callback gives", errno_text(results.get(OUT + 8)));
                }
                _ => attempt.holds("the callback has the socket", false),
            }
        })
        .cites(source("7.3", FILE, "bpf_ksock_has_user_task_context"))
}

fn from_a_work_queue() -> Row {
    sends_once_more(Value::SocketAndWork, |b| {
        b.held(Reg::R1, LATER);
        b.held_map(Reg::R2);
        b.mov_imm(Reg::R3, 0);
        b.kfunc("bpf_wq_init");
        b.held(Reg::R1, LATER);
        b.function(Reg::R2, "sends-again", sends_again);
        b.mov_imm(Reg::R3, 0).mov_imm(Reg::R4, 0);
        b.first_kfunc(&["bpf_wq_set_callback", "bpf_wq_set_callback_impl"]);
        b.held(Reg::R1, LATER);
        b.mov_imm(Reg::R2, 0);
        b.kfunc("bpf_wq_start");
    })
}

fn from_a_task_s_work() -> Row {
    sends_once_more(Value::SocketAndTaskWork, |b| {
        b.current(Reg::R1);
        b.held(Reg::R2, LATER);
        b.held_map(Reg::R3);
        b.function(Reg::R4, "sends-again", sends_again);
        b.mov_imm(Reg::R5, 0);
        b.first_kfunc(&["bpf_task_work_schedule_signal", "bpf_task_work_schedule_signal_impl"]);
    })
}

fn send() -> Row {
    sending()
        .filled(connected(arrives))
        .gives(8)
        .other("canonical-sleepable-and-from-a-work-queue", from_a_work_queue())
        .other("canonical-sleepable-and-from-a-task-s-work", from_a_task_s_work())
        .other("canonical-sleepable-not-connected", sending().filled(not_connected).shows_result())
        .not_null(Reg::R1)
        .spoilt("misuse-data-beyond-the-map", |b| {
            b.mov_imm(Reg::R3, 8192);
        })
}
