//! Sockets: what a socket is, told from the kernel's general structure, and what user space calls it.

use super::bench::{Bench, argument, keep, look_up, preset, slot};
use super::call::Arg::{Argument, Inode};
use super::packets::Shared;
use super::{Row, canonical, case, misuse, sleepable};
use crate::asm::Asm;
use crate::bpf::{self, BPF_MAP_TYPE_XSKMAP, MapSpec};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::session::Ended;
use crate::spec::{Source, source};
use crate::triggers::Arm;
use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

const TRACING: Source = source("6.0", "kernel/trace/bpf_trace.c", "tracing_prog_func_proto");
const ARGUMENTS: Source = source("6.12", "kernel/bpf/verifier.c", "check_reg_type");

const fn is(
    helper: u32,
    asks: &'static str,
    sources: &'static [Source],
    cases: &'static [super::Case],
) -> Row {
    Row { helper, asks, sources, cases }
}

pub(super) const ROWS: &[Row] = &[
    is(
        helper::SKC_TO_TCP_SOCK,
        "give a TCP socket as one, and null for others",
        &[TRACING, source("6.0", "net/core/filter.c", "bpf_skc_to_tcp_sock"), ARGUMENTS],
        &[
            canonical(|bench| convert(bench, TCP)),
            sleepable(|bench| convert(bench, TCP)),
            case("tcp-over-ipv6", |bench| convert(bench, TCP6)),
            case("a-unix-socket", |bench| convert(bench, UNIX)),
            misuse("misuse-without-null-check", unchecked),
            misuse("misuse-number-for-socket", number),
        ],
    ),
    is(
        helper::SKC_TO_TCP6_SOCK,
        "give a TCP socket over IPv6 as one, and null for others",
        &[TRACING, source("6.0", "net/core/filter.c", "bpf_skc_to_tcp6_sock"), ARGUMENTS],
        &[
            canonical(|bench| convert(bench, TCP6)),
            sleepable(|bench| convert(bench, TCP6)),
            case("tcp-over-ipv4", |bench| convert(bench, TCP)),
            misuse("misuse-without-null-check", unchecked),
            misuse("misuse-number-for-socket", number),
        ],
    ),
    is(
        helper::SKC_TO_UDP6_SOCK,
        "give a UDP socket over IPv6 as one, and null for others",
        &[TRACING, source("6.0", "net/core/filter.c", "bpf_skc_to_udp6_sock"), ARGUMENTS],
        &[
            canonical(|bench| convert(bench, UDP6)),
            sleepable(|bench| convert(bench, UDP6)),
            case("tcp-over-ipv6", |bench| convert(bench, TCP6)),
            misuse("misuse-without-null-check", unchecked),
            misuse("misuse-number-for-socket", number),
        ],
    ),
    is(
        helper::SKC_TO_UNIX_SOCK,
        "give a socket of the family unix as one, and null for others",
        &[TRACING, source("6.0", "net/core/filter.c", "bpf_skc_to_unix_sock"), ARGUMENTS],
        &[
            canonical(|bench| convert(bench, UNIX)),
            sleepable(|bench| convert(bench, UNIX)),
            case("tcp-over-ipv4", |bench| convert(bench, TCP)),
            misuse("misuse-without-null-check", unchecked),
            misuse("misuse-number-for-socket", number),
        ],
    ),
    is(
        helper::SKC_TO_TCP_TIMEWAIT_SOCK,
        "give null for a socket that is not in TIME_WAIT",
        &[TRACING, source("6.0", "net/core/filter.c", "bpf_skc_to_tcp_timewait_sock"), ARGUMENTS],
        &[
            canonical(|bench| convert(bench, TCP)),
            misuse("misuse-without-null-check", unchecked),
            misuse("misuse-number-for-socket", number),
        ],
    ),
    is(
        helper::SKC_TO_TCP_REQUEST_SOCK,
        "give null for a socket that is no request",
        &[TRACING, source("6.0", "net/core/filter.c", "bpf_skc_to_tcp_request_sock"), ARGUMENTS],
        &[
            canonical(|bench| convert(bench, TCP)),
            misuse("misuse-without-null-check", unchecked),
            misuse("misuse-number-for-socket", number),
        ],
    ),
    is(
        helper::SKC_TO_MPTCP_SOCK,
        // It wants a socket as programs on sockets have them, not a pointer by BTF, which is all that a hook has. The
        // one such socket that an LSM program gets without having to release it is that of a map of AF_XDP's.
        "give null for a socket of AF_XDP, the only kind that it takes and that an LSM program can have",
        &[
            TRACING,
            source("6.12", "net/core/filter.c", "bpf_skc_to_mptcp_sock_proto"),
            source("7.1", "kernel/bpf/verifier.c", "mark_ptr_not_null_reg"),
            ARGUMENTS,
        ],
        &[
            // Programs that may sleep cannot have such a map, which says nothing of the helper; `callable` asks them.
            canonical(of_xdp),
            case("socket-of-a-hook", |bench| convert(bench, TCP)),
            misuse("misuse-number-for-socket", number),
            misuse("misuse-without-null-check", |bench| {
                let helper = bench.helper();
                let map = bench.attempt.map(&MapSpec::new(BPF_MAP_TYPE_XSKMAP, 4, 4, 1))?;
                bench.load(|asm| {
                    look_up(asm, &map);
                    asm.mov_reg(Reg::R1, Reg::R0).call(helper);
                })
            }),
        ],
    ),
    is(
        helper::GET_SOCKET_COOKIE,
        "give the number that SO_COOKIE gives",
        &[TRACING, source("6.0", "net/core/filter.c", "bpf_get_socket_ptr_cookie"), ARGUMENTS],
        &[
            canonical(cookie),
            sleepable(cookie),
            misuse("misuse-number-for-socket", number),
            misuse("misuse-file-for-socket", |bench| bench.call(&[Argument(0)])),
        ],
    ),
    is(
        helper::SOCK_FROM_FILE,
        "give the socket that a file is, and null for other files",
        &[TRACING, source("6.0", "net/socket.c", "sock_from_file"), ARGUMENTS],
        &[
            canonical(from_file),
            sleepable(from_file),
            misuse("misuse-inode-for-file", |bench| bench.call(&[Inode])),
            misuse("misuse-number-for-file", |bench| {
                let helper = bench.helper();
                bench.load_on(IOCTL, |asm| {
                    asm.mov_imm(Reg::R1, 4096).call(helper);
                })
            }),
        ],
    ),
];

/// A kind of socket: the hook that is called for it, and what user space does.
#[derive(Clone, Copy)]
struct Kind {
    hook: &'static str,
    act: fn(Arm) -> Result<OwnedFd, Errno>,
}

const TCP: Kind = Kind { hook: "socket_listen", act: |arm| listen(arm, "127.0.0.1:0") };
const TCP6: Kind = Kind { hook: "socket_listen", act: |arm| listen(arm, "[::1]:0") };
const UDP6: Kind =
    Kind { hook: "socket_bind", act: |arm| Ok(arm.during(|| UdpSocket::bind("[::1]:0"))?.into()) };
const UNIX: Kind = Kind {
    hook: "socket_listen",
    act: |arm| {
        let _old = std::fs::remove_file("/tmp/listener");
        Ok(arm.during(|| UnixListener::bind("/tmp/listener"))?.into())
    },
};
/// Converts a socket of AF_XDP, which is in a map.
fn of_xdp(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let helper = bench.helper();
    let map = bench.attempt.map(&MapSpec::new(BPF_MAP_TYPE_XSKMAP, 4, 4, 1))?;
    let shared = Shared::on_loopback()?;
    bpf::map_update(&map, &0_u32.to_ne_bytes(), &shared.socket.as_raw_fd().to_ne_bytes(), bpf::BPF_ANY)
        .map_err(|errno| Ended::could_not("store a socket", errno))?;
    let results = bench.open_or_execute(|asm| {
        look_up(asm, &map);
        asm.jeq_imm(Reg::R0, 0, "pass").mov_imm(Reg::R1, 1);
        keep(asm, 0, Reg::R1);
        preset(asm, 1);
        asm.mov_reg(Reg::R1, Reg::R0).call(helper);
        keep(asm, 1, Reg::R0);
    })?;
    bench.attempt.holds("the program found the socket", results.get(slot(0)) == 1);
    bench.attempt.holds("returned null", results.get(slot(1)) == 0);
    Ok(())
}

/// A hook with a file that is open.
const IOCTL: &str = "file_ioctl";

fn listen(arm: Arm, address: &str) -> Result<OwnedFd, Errno> {
    Ok(arm.during(|| TcpListener::bind(address))?.into())
}

/// `R1 = socket->sk`, which may be null.
fn sock(asm: &mut Asm, sk: u32) {
    argument(asm, Reg::R1, 0);
    asm.ldx(Size::DW, Reg::R1, Reg::R1, sk).jeq_imm(Reg::R1, 0, "pass");
}

/// Converts a socket, and sees whether it is the same one or null.
fn convert(bench: &mut Bench<'_, '_>, kind: Kind) -> Result<(), Ended> {
    let (helper, sk) = (bench.helper(), bench.offset("socket", "sk")?);
    let (results, made) = bench.run(kind.hook, kind.act, |asm| {
        sock(asm, sk);
        keep(asm, 0, Reg::R1);
        preset(asm, 1);
        asm.call(helper);
        keep(asm, 1, Reg::R0);
    })?;
    let _made = made.map_err(|errno| Ended::could_not("make the socket", errno))?;
    let (given, got) = (results.get(slot(0)), results.get(slot(1)));
    bench.attempt.holds("the program had a socket", given != 0);
    if given == 0 {
        return Err(Ended::CouldNotTell("the hook's socket had no struct sock to be converted".into()));
    }
    let what = match got {
        0 => "null",
        _ if got == given => "the same socket",
        _ => "another address",
    };
    bench.attempt.see("returned", what);
    Ok(())
}

fn unchecked(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, sk) = (bench.helper(), bench.offset("socket", "sk")?);
    bench.load_on("socket_listen", |asm| {
        sock(asm, sk);
        asm.call(helper).ldx(Size::DW, Reg::R1, Reg::R0, 0);
    })
}

fn number(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let helper = bench.helper();
    bench.load_on("socket_listen", |asm| {
        asm.mov_imm(Reg::R1, 4096).call(helper);
    })
}

fn cookie(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, sk) = (bench.helper(), bench.offset("socket", "sk")?);
    let (results, made) = bench.run(TCP.hook, TCP.act, |asm| {
        sock(asm, sk);
        asm.call(helper);
        keep(asm, 0, Reg::R0);
    })?;
    let made = made.map_err(|errno| Ended::could_not("make the socket", errno))?;
    bench.attempt.same("the cookie", Ok(results.get(slot(0))), cookie_of(&made));
    Ok(())
}

fn cookie_of(socket: &OwnedFd) -> Result<u64, Errno> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or(0);
    // SAFETY: SO_COOKIE writes 8 bytes, which is what the address and the length say.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    Errno::result(result).map(|_| cookie)
}

/// ioctl(2) on a datagram socket, and on a file.
fn from_file(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, kind) = (bench.helper(), bench.offset("socket", "type")?);
    for (key, socket) in [("of a datagram socket", true), ("of a file", false)] {
        let (results, done) = bench.run(
            IOCTL,
            |arm| ask(arm, socket),
            |asm| {
                argument(asm, Reg::R1, 0);
                asm.call(helper);
                keep(asm, 0, Reg::R0);
                asm.jeq_imm(Reg::R0, 0, "pass").ldx(Size::H, Reg::R1, Reg::R0, kind);
                keep(asm, 1, Reg::R1);
            },
        )?;
        done.map_err(|errno| Ended::could_not("do the trigger", errno))?;
        if results.get(slot(0)) == 0 {
            bench.attempt.see(key, "null");
        } else {
            bench.attempt.see(key, format!("a socket of type {}", results.get(slot(1))));
        }
    }
    Ok(())
}

fn ask(arm: Arm, socket: bool) -> Result<(), Errno> {
    let fd: OwnedFd =
        if socket { UdpSocket::bind("127.0.0.1:0")?.into() } else { File::open("/proc/self/stat")?.into() };
    arm.during(|| {
        // SAFETY: FIOCLEX has no argument.
        Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIOCLEX) }).map(drop)
    })
}
