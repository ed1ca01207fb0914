//! Packets: those of a hook's argument, and the buffers of XDP, which no hook has and a program can only walk to.

use super::bench::{Bench, argument, keep, page, slot};
use super::call::Arg::{Argument, Hash, Number, Page, Stack, Task};
use super::callable::{GENERAL, may_call};
use super::perf::{Buffer, HERE, is_sent};
use super::{Row, WORDS, canonical, case, misuse, sleepable};
use crate::asm::Asm;
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::PAGE;
use crate::patience::Patience;
use crate::results::Results;
use crate::session::Ended;
use crate::spec::{Source, source};
use crate::triggers::Arm;
use memmap2::MmapMut;
use nix::sys::socket::{MsgFlags, NetlinkAddr, sendto};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

const TRACING: Source = source("7.1", "kernel/trace/bpf_trace.c", "tracing_prog_func_proto");
const WALKED: Source = source("7.1", "kernel/bpf/verifier.c", "check_ptr_to_btf_access");

pub(super) const ROWS: &[Row] = &[
    Row {
        helper: helper::SKB_OUTPUT,
        asks: "send memory of the program and a part of the packet to the buffer of a perf event",
        sources: &[TRACING, source("7.1", "net/core/filter.c", "bpf_skb_event_output")],
        cases: &[
            canonical(skb_output),
            sleepable(skb_output),
            misuse("misuse-number-for-packet", |bench| {
                bench.call_on(SEND, &[Number(4096), Hash, Number(0), Page, Number(16)])
            }),
            misuse("misuse-socket-for-packet", |bench| {
                bench.call_on(SEND, &[Argument(0), Hash, Number(0), Page, Number(16)])
            }),
            misuse("misuse-map-of-another-type", |bench| {
                bench.call_on(SEND, &[Argument(1), Hash, Number(0), Page, Number(16)])
            }),
            misuse("misuse-size-beyond-the-stack", |bench| {
                bench.call_on(SEND, &[Argument(1), Hash, Number(0), Stack(16), Number(24)])
            }),
        ],
    },
    Row {
        helper: helper::XDP_OUTPUT,
        asks: "send memory of the program for a buffer of XDP, which no hook has and a program can only walk to",
        sources: &[TRACING, WALKED, source("7.1", "net/core/filter.c", "bpf_xdp_event_output")],
        cases: &[
            canonical(xdp_output),
            sleepable(xdp_output),
            case("hooks-with-the-argument", hooks_with_a_buffer),
            misuse("misuse-number-for-buffer", |bench| {
                bench.call(&[Number(4096), Hash, Number(0), Page, Number(16)])
            }),
            misuse("misuse-file-for-buffer", |bench| {
                bench.call(&[Argument(0), Hash, Number(0), Page, Number(16)])
            }),
        ],
    },
    Row {
        helper: helper::XDP_GET_BUFF_LEN,
        asks: "give the length of a buffer of XDP, which no hook has and a program can only walk to",
        sources: &[TRACING, WALKED, source("7.1", "net/core/filter.c", "bpf_xdp_get_buff_len_trace_proto")],
        cases: &[
            canonical(xdp_length),
            case("hooks-with-the-argument", hooks_with_a_buffer),
            misuse("misuse-number-for-buffer", |bench| bench.call(&[Number(4096)])),
            misuse("misuse-task-for-buffer", |bench| bench.call(&[Task])),
        ],
    },
];

/// A hook that is called by the sending process and is given the packet.
const SEND: &str = "netlink_send";
/// A message of the kind that does nothing (include/uapi/linux/netlink.h, NLMSG_NOOP), with 8 bytes in it.
const MESSAGE: [u8; 24] =
    [24, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'c', b'o', b'n', b'f', b'o', b'r', b'm', 0];

fn send(arm: Arm) -> Result<usize, Errno> {
    // SAFETY: takes three numbers.
    let fd = Errno::result(unsafe {
        libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE)
    })?;
    // SAFETY: the kernel has just made this descriptor for us.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let kernel = NetlinkAddr::new(0, 0);
    arm.during(|| sendto(socket.as_raw_fd(), &MESSAGE, &kernel, MsgFlags::empty())).map_err(Errno::from)
}

/// Puts the two words of an event into the page, from the slot `at` on.
fn put_words(asm: &mut Asm, at: i32) {
    for (index, word) in (at..).zip(WORDS) {
        asm.st_imm(Size::DW, PAGE, slot(index), word);
    }
}

/// How much of the packet is asked for: its upper half holds that in the flags. All of it, more than there is, and all
/// of it with a flag that there is not.
const PARTS: [(i32, u64); 3] =
    [(0, (MESSAGE.len() as u64) << 32), (1, (MESSAGE.len() as u64 + 1) << 32), (2, 1 << 60)];

fn skb_output(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, buffer) = (bench.helper(), Buffer::new()?);
    if bench.only_execution_sleeps()? {
        return bench.load_with_map(&buffer.map, Reg::R2, Reg::R1);
    }
    let (results, sent) = bench.run(SEND, send, |asm| {
        put_words(asm, 8);
        for (index, part) in PARTS {
            argument(asm, Reg::R1, 1);
            asm.ld_map_fd(Reg::R2, &buffer.map).ld_imm64(Reg::R3, HERE | part);
            page(asm, Reg::R4, 8);
            asm.mov_imm(Reg::R5, 16).call(helper);
            keep(asm, index, Reg::R0);
        }
    })?;
    sent.map_err(|errno| Ended::could_not("send a message", errno))?;
    bench.returned("returned", results.get(slot(0)));
    bench.returned("returned for more than the packet has", results.get(slot(1)));
    bench.returned("returned for a flag that there is not", results.get(slot(2)));
    let whole = [results.bytes(slot(8), 16), MESSAGE.to_vec()].concat();
    see_one(bench, &buffer, &whole);
    Ok(())
}

/// Notes that one event has come, and whether it is what was sent.
fn see_one(bench: &mut Bench<'_, '_>, buffer: &Buffer, sent: &[u8]) {
    let received = buffer.received();
    bench.attempt.see("events received", received.len());
    bench.attempt.holds("each is what was sent", received.iter().all(|sample| is_sent(sample, sent)));
}

/// The hooks that have an argument of the type that the helper takes.
fn hooks_with_a_buffer(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let btf = bench.attempt.btf()?;
    let is_buffer = |id: u32| {
        let pointee = btf.pointee(id).and_then(|id| btf.skip_modifiers(id));
        pointee.and_then(|id| btf.name(id)) == Some("xdp_buff")
    };
    let hooks = btf.functions().filter(|(_, name)| name.starts_with("bpf_lsm_"));
    let having: Vec<&str> = hooks
        .filter(|(id, _)| btf.prototype(*id).is_some_and(|it| it.params.iter().any(|it| is_buffer(it.1))))
        .map(|(_, name)| name)
        .collect();
    let having = if having.is_empty() { "none".to_owned() } else { having.join(", ") };
    bench.attempt.see("hooks that are given a struct xdp_buff", having);
    Ok(())
}

/// A hook with a socket, from which the way to a buffer begins.
const BIND: &str = "socket_bind";

/// Members, each with its structure, that lead from one to the next.
type Members = [(&'static str, &'static str)];

/// The members on the way from a socket to the first queue of the loopback device.
const TO_QUEUE: &Members =
    &[("socket", "sk"), ("sock_common", "skc_net"), ("net", "loopback_dev"), ("net_device", "_rx")];
/// From there to the first buffer of the memory that a socket of AF_XDP shares with it: since 5.10, and before
/// (5.9 include/linux/netdevice.h, `struct netdev_rx_queue`; include/net/xdp_sock.h, `struct xdp_umem`).
const TO_BUFFER: &Members = &[("netdev_rx_queue", "pool"), ("xsk_buff_pool", "heads")];
const TO_BUFFER_EARLIER: &Members =
    &[("netdev_rx_queue", "umem"), ("xdp_umem", "pool"), ("xsk_buff_pool", "heads")];

/// The offsets of the members on the way to a buffer.
fn way(bench: &Bench<'_, '_>) -> Result<Vec<u32>, Ended> {
    let offsets = |members: &Members| -> Result<Vec<u32>, Ended> {
        members.iter().map(|(record, member)| bench.offset(record, member)).collect()
    };
    let end = offsets(TO_BUFFER).or_else(|absent| offsets(TO_BUFFER_EARLIER).map_err(|_| absent))?;
    Ok([offsets(TO_QUEUE)?, end].concat())
}

/// Runs `body` with such a buffer in R8, which has never held a packet.
fn with_buffer(bench: &mut Bench<'_, '_>, body: impl FnOnce(&mut Asm)) -> Result<Results, Ended> {
    let way = match way(bench) {
        // Where the call is refused whatever it is given, that is the answer.
        Err(absent) if !may_call(bench.attempt, &GENERAL, bench.helper())? => {
            bench.bare_call()?;
            return Err(absent);
        }
        way => way?,
    };
    let shared = Shared::on_loopback()?;
    let bind = |arm: Arm| arm.during(|| UdpSocket::bind("127.0.0.1:0")).map_err(Errno::from);
    let (results, bound) = bench.run(BIND, bind, |asm| {
        argument(asm, Reg::R8, 0);
        for offset in way {
            asm.ldx(Size::DW, Reg::R8, Reg::R8, offset).jeq_imm(Reg::R8, 0, "pass");
        }
        body(asm);
        asm.mov_imm(Reg::R1, 1);
        keep(asm, 7, Reg::R1);
    })?;
    drop(shared);
    bound.map_err(|errno| Ended::could_not("bind a socket", errno))?;
    bench.attempt.holds("the program found a buffer", results.get(slot(7)) == 1);
    Ok(results)
}

fn xdp_length(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let helper = bench.helper();
    let results = with_buffer(bench, |asm| {
        asm.mov_reg(Reg::R1, Reg::R8).call(helper);
        keep(asm, 0, Reg::R0);
    })?;
    bench.returned("returned for a buffer without a packet", results.get(slot(0)));
    Ok(())
}

fn xdp_output(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, buffer) = (bench.helper(), Buffer::new()?);
    if bench.only_execution_sleeps()? {
        return bench.load_with_map(&buffer.map, Reg::R2, Reg::R1);
    }
    let results = with_buffer(bench, |asm| {
        put_words(asm, 8);
        for (index, part) in [(0, 0), (1, 1 << 32), (2, 1 << 60)] {
            asm.mov_reg(Reg::R1, Reg::R8).ld_map_fd(Reg::R2, &buffer.map).ld_imm64(Reg::R3, HERE | part);
            page(asm, Reg::R4, 8);
            asm.mov_imm(Reg::R5, 16).call(helper);
            keep(asm, index, Reg::R0);
        }
    })?;
    bench.returned("returned for a buffer without a packet", results.get(slot(0)));
    bench.returned("returned for more than the buffer has", results.get(slot(1)));
    bench.returned("returned for a flag that there is not", results.get(slot(2)));
    let words = results.bytes(slot(8), 16);
    see_one(bench, &buffer, &words);
    Ok(())
}

/// A socket of AF_XDP and the memory that it shares with the kernel.
pub(super) struct Shared {
    /// The socket.
    pub(super) socket: OwnedFd,
    _memory: MmapMut,
}

impl Shared {
    /// Bound to the first queue of the loopback device, so that packets would be copied to it. The queue of an earlier
    /// case's socket becomes free some time after that was closed (7.1 net/xdp/xsk_buff_pool.c, `xp_put_pool`).
    pub(super) fn on_loopback() -> Result<Self, Ended> {
        let mut patience = Patience::new(Duration::from_secs(5));
        loop {
            match Self::bound() {
                Err(Errno::EBUSY) if patience.lasts() => std::thread::sleep(Duration::from_millis(2)),
                done => {
                    let what = "bind a socket of AF_XDP to the loopback device";
                    return done.map_err(|errno| Ended::could_not(what, errno));
                }
            }
        }
    }

    fn bound() -> Result<Self, Errno> {
        let memory = MmapMut::map_anon(4096)?;
        // SAFETY: takes three numbers.
        let fd =
            Errno::result(unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: the kernel has just made this descriptor for us.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // `struct xdp_umem_reg`: address, length, and size of a chunk with no room at its head.
        let region = [memory.as_ptr().expose_provenance() as u64, 4096, 2048];
        set(&socket, libc::XDP_UMEM_REG, &region)?;
        for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING] {
            set(&socket, ring, &[2_u32])?;
        }
        // `struct sockaddr_xdp`: family and flags, the loopback device, its first queue, no other socket's memory.
        let family = u32::try_from(libc::AF_XDP).unwrap_or(0);
        let address = [family | u32::from(libc::XDP_COPY) << 16, 1, 0, 0];
        // SAFETY: the address has the length that is said and lives across the call.
        Errno::result(unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr().cast(), 16) })?;
        Ok(Self { socket, _memory: memory })
    }
}

/// setsockopt(2) of AF_XDP.
fn set<T>(socket: &OwnedFd, option: i32, value: &[T]) -> Result<(), Errno> {
    let length = libc::socklen_t::try_from(size_of_val(value)).unwrap_or(0);
    // SAFETY: the value has the length that is said and lives across the call; what it points to is memory that the
    // socket's owner keeps.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_XDP, option, value.as_ptr().cast(), length) };
    Errno::result(result).map(drop)
}
