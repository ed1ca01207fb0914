//! Which cgroup counts on hooks that the kernel calls in a softirq for a socket that another cgroup has made, and sockets
//! that a cgroup may not have.
//!
//! Over loopback a packet is received in the softirq of whoever sends it, unless a thread of the kernel takes it over
//! (7.3 kernel/softirq.c, `__local_bh_enable_ip`). So a round counts in which a program of `BPF_LSM_MAC` on the same hook
//! has seen this process as the running task and this round's socket; any other is done again.

use super::bench::link;
use crate::asm::Asm;
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{Attached, CTX, LsmProgram, PAGE};
use crate::results::{FREE, Results};
use crate::rules::{Cgroup, cgroup_frame};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::triggers::Arm;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// A hook whose first argument is the socket that receives, or that is made of it, and what leads to it.
struct Received {
    case: &'static str,
    hook: &'static str,
    receive: Receive,
}

/// Sends to a receiver, and waits until it has come.
type Send = Box<dyn FnOnce() -> std::io::Result<()>>;
/// Makes a receiver, and returns its address and what sends to it.
type Receive = fn() -> std::io::Result<(SocketAddr, Send)>;

const HOOKS: [Received; 3] = [
    Received { case: "inet_conn_request", hook: "inet_conn_request", receive: connection },
    Received { case: "inet_csk_clone", hook: "inet_csk_clone", receive: connection },
    Received { case: "socket_sock_rcv_skb", hook: "socket_sock_rcv_skb", receive: datagram },
];

/// How long what is sent over loopback may take.
const ARRIVAL: Duration = Duration::from_secs(10);

fn connection() -> std::io::Result<(SocketAddr, Send)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let there = listener.local_addr()?;
    let connect = move || {
        let client = TcpStream::connect_timeout(&there, ARRIVAL)?;
        let accepted = listener.accept()?;
        drop((client, accepted));
        Ok(())
    };
    Ok((there, Box::new(connect)))
}

fn datagram() -> std::io::Result<(SocketAddr, Send)> {
    let receiver = UdpSocket::bind("127.0.0.1:0")?;
    receiver.set_read_timeout(Some(ARRIVAL))?;
    let there = receiver.local_addr()?;
    let send = move || {
        UdpSocket::bind("127.0.0.1:0")?.send_to(b"x", there)?;
        receiver.recv(&mut [0]).map(drop)
    };
    Ok((there, Box::new(send)))
}

/// Where the receiver's port stands, and behind it, for each program, whether it has run.
const PORT: i32 = FREE;
const fn ran(number: i32) -> i32 {
    FREE + 8 + 8 * number
}
/// The programs: those of the two cgroups, and the one that sees which task is the running one.
const ONE: i32 = 0;
const OTHER: i32 = 1;
const WITNESS: i32 = 2;

/// How often a round is done again that a thread of the kernel has taken over.
const TRIES: u32 = 100;

pub(super) fn softirq(session: &mut Session<'_>) -> Result<(), Stop> {
    HOOKS.iter().try_for_each(|received| session.case(received.case, |attempt| whose(attempt, received)))
}

/// Receives in either of two cgroups what the other one sends, and notes whose program runs.
fn whose(attempt: &mut Attempt<'_>, received: &Received) -> Result<(), Ended> {
    attempt.hook(received.hook)?;
    let port = attempt.btf()?.member("sock", "__sk_common.skc_num");
    let port = port.map_err(|error| Ended::Absent(error.to_string()))?.byte_offset;
    let mut results = attempt.results()?;
    results.name_nobody();
    let of_cgroup = |number| {
        let asm = cgroup_frame(&results, |asm| note(asm, port, number));
        LsmProgram::of_cgroup(received.hook, asm)
    };
    // Whether the kernel has the type is the answer there.
    let programs = [attempt.load_lsm(&of_cgroup(ONE))?, attempt.load_lsm(&of_cgroup(OTHER))?];
    let witness = LsmProgram::framed(received.hook, &results, |asm| note(asm, port, WITNESS));
    let cgroups = [Cgroup::new("one")?, Cgroup::new("other")?];
    let mut attached = vec![attempt.attach_lsm(&witness)?];
    for (program, cgroup) in programs.into_iter().zip(&cgroups) {
        let link = link(attempt, &program, cgroup)?;
        attached.push(Attached { program, link });
    }
    let [one, other] = &cgroups;
    for (key, receiver, sender) in
        [("one receives, the other sends", one, other), ("the other receives, one sends", other, one)]
    {
        round(attempt, received, &mut results, [receiver, sender])?;
        let word = match (results.get(ran(ONE)) != 0, results.get(ran(OTHER)) != 0) {
            (true, true) => "both programs run",
            (true, false) => "the program of one runs",
            (false, true) => "the program of the other runs",
            (false, false) => "no program of a cgroup runs",
        };
        attempt.see(key, word);
    }
    drop(attached);
    attempt.ran(true);
    Ok(())
}

/// Notes a run for the socket of this round.
fn note(asm: &mut Asm, port: u32, number: i32) {
    asm.ldx(Size::DW, Reg::R1, CTX, 0).ldx(Size::H, Reg::R1, Reg::R1, port);
    asm.ldx(Size::DW, Reg::R2, PAGE, PORT).jne_reg(Reg::R1, Reg::R2, "pass");
    asm.st_imm(Size::DW, PAGE, ran(number), 1);
}

/// Has a socket made in the first cgroup receive what this process sends from the second, until the hook has been called
/// with this process as the running task.
fn round(
    attempt: &mut Attempt<'_>,
    received: &Received,
    results: &mut Results,
    [receiver, sender]: [&Cgroup; 2],
) -> Result<(), Ended> {
    for _ in 0..TRIES {
        receiver.enter()?;
        let ready = (received.receive)();
        let (there, send) = ready.map_err(|error| Ended::could_not("make a socket that receives", error))?;
        sender.enter()?;
        for number in [ONE, OTHER, WITNESS] {
            results.set(ran(number), 0);
        }
        results.set(PORT, there.port().into());
        let sent = attempt.trigger(|| Arm::new(results).during(send));
        sent.map_err(|error| Ended::could_not("send over loopback", error))?;
        if results.get(ran(WITNESS)) != 0 {
            return Ok(());
        }
    }
    let why =
        "the hook was called each time with a task of the kernel as the running one, never with the sender";
    Err(Ended::CouldNotTell(why.to_owned()))
}

/// `AF_UNIX`, as the hook's argument.
const UNIX: i32 = libc::AF_UNIX;

pub(super) fn no_local_sockets(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("denied-by-family", |attempt| {
        let hook = "sk_alloc_security";
        let mut results = attempt.results()?;
        results.name_nobody();
        let asm = cgroup_frame(&results, |asm| {
            asm.ldx(Size::DW, Reg::R1, CTX, 8).jne32_imm(Reg::R1, UNIX, "pass");
            asm.mov_imm(Reg::R0, 0).exit();
        });
        let program = attempt.load_lsm(&LsmProgram::of_cgroup(hook, asm))?;
        let cgroup = Cgroup::new("inside")?;
        let link = link(attempt, &program, &cgroup)?;
        let make = |results: &Results, family| -> Result<OwnedFd, Errno> {
            let made = || socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
            Arm::new(results).during(made).map_err(Errno::from)
        };
        let outside = attempt.trigger(|| make(&results, AddressFamily::Unix));
        attempt.outcome("outside of the cgroup, a local socket", &outside);
        cgroup.enter()?;
        let local = attempt.trigger(|| make(&results, AddressFamily::Unix));
        attempt.outcome("a local socket", &local);
        attempt.denied_as(&local.map(|_| ()), &(), Errno::EPERM);
        attempt.outcome("one of IPv4", &make(&results, AddressFamily::Inet));
        attempt.ran(results.runs() > 0);
        drop(Attached { program, link });
        Ok(())
    })
}
