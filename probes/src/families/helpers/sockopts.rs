//! Which options bpf_setsockopt sets on a new socket, each compared with what setsockopt(2) does to another one.

use super::bench::{Bench, argument, keep, page, slot};
use super::cgroup::{CREATED, attach, keep_shim};
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::PAGE;
use crate::results::Results;
use crate::rules::Cgroup;
use crate::session::Ended;
use crate::triggers::Arm;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::{AsRawFd, OwnedFd};

/// An option: its name, level and number, and a value that no socket has by itself.
struct Of {
    name: &'static str,
    level: i32,
    number: i32,
    value: &'static [u8],
}

const fn of(name: &'static str, level: i32, number: i32, value: &'static [u8]) -> Of {
    Of { name, level, number, value }
}

const ON: &[u8] = &1_u32.to_le_bytes();
const OFF: &[u8] = &0_u32.to_le_bytes();
const SOME: &[u8] = &5_u32.to_le_bytes();
const MORE: &[u8] = &77_u32.to_le_bytes();
const MANY: &[u8] = &20_000_u32.to_le_bytes();

/// What the kernel's lists have (7.3 net/core/filter.c, `sol_socket_sockopt`, `sol_tcp_sockopt`, `sol_ip_sockopt`) but for
/// BPF's own, and some that they do not have.
const OPTIONS: &[Of] = &[
    of("SO_REUSEADDR", libc::SOL_SOCKET, libc::SO_REUSEADDR, ON),
    of("SO_SNDBUF", libc::SOL_SOCKET, libc::SO_SNDBUF, MANY),
    of("SO_RCVBUF", libc::SOL_SOCKET, libc::SO_RCVBUF, MANY),
    of("SO_KEEPALIVE", libc::SOL_SOCKET, libc::SO_KEEPALIVE, ON),
    of("SO_PRIORITY", libc::SOL_SOCKET, libc::SO_PRIORITY, SOME),
    of("SO_REUSEPORT", libc::SOL_SOCKET, libc::SO_REUSEPORT, ON),
    of("SO_RCVLOWAT", libc::SOL_SOCKET, libc::SO_RCVLOWAT, SOME),
    of("SO_MARK", libc::SOL_SOCKET, libc::SO_MARK, MORE),
    of("SO_MAX_PACING_RATE", libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, MANY),
    of("SO_BINDTODEVICE", libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"lo\0"),
    of("SO_BINDTOIFINDEX", libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, ON),
    of("SO_TXREHASH", libc::SOL_SOCKET, 74, OFF), // include/uapi/asm-generic/socket.h
    of("SO_BROADCAST", libc::SOL_SOCKET, libc::SO_BROADCAST, ON),
    of("SO_TIMESTAMP", libc::SOL_SOCKET, libc::SO_TIMESTAMP, ON),
    of("TCP_NODELAY", libc::SOL_TCP, libc::TCP_NODELAY, ON),
    of("TCP_MAXSEG", libc::SOL_TCP, libc::TCP_MAXSEG, &600_u32.to_le_bytes()),
    of("TCP_KEEPIDLE", libc::SOL_TCP, libc::TCP_KEEPIDLE, MORE),
    of("TCP_KEEPINTVL", libc::SOL_TCP, libc::TCP_KEEPINTVL, SOME),
    of("TCP_KEEPCNT", libc::SOL_TCP, libc::TCP_KEEPCNT, SOME),
    of("TCP_SYNCNT", libc::SOL_TCP, libc::TCP_SYNCNT, SOME),
    of("TCP_WINDOW_CLAMP", libc::SOL_TCP, libc::TCP_WINDOW_CLAMP, MANY),
    of("TCP_THIN_LINEAR_TIMEOUTS", libc::SOL_TCP, libc::TCP_THIN_LINEAR_TIMEOUTS, ON),
    of("TCP_USER_TIMEOUT", libc::SOL_TCP, libc::TCP_USER_TIMEOUT, MANY),
    of("TCP_NOTSENT_LOWAT", libc::SOL_TCP, libc::TCP_NOTSENT_LOWAT, MANY),
    of("TCP_SAVE_SYN", libc::SOL_TCP, libc::TCP_SAVE_SYN, ON),
    of("TCP_CONGESTION", libc::SOL_TCP, libc::TCP_CONGESTION, b"reno\0"),
    of("TCP_RTO_MAX_MS", libc::SOL_TCP, 44, MANY), // include/uapi/linux/tcp.h
    of("TCP_DEFER_ACCEPT", libc::SOL_TCP, libc::TCP_DEFER_ACCEPT, SOME),
    of("IP_TOS", libc::SOL_IP, libc::IP_TOS, &16_u32.to_le_bytes()),
    of("IP_TTL", libc::SOL_IP, libc::IP_TTL, MORE),
    of("IP_TRANSPARENT", libc::SOL_IP, libc::IP_TRANSPARENT, ON),
];

/// Where the option to be set stands: level, number, length and value, and what the helper has returned.
const LEVEL: i32 = 0;
const NUMBER: i32 = 1;
const LENGTH: i32 = 2;
const VALUE: i32 = 3;
const RETURNED: i32 = 5;

/// What stands there before.
const NOT_YET: u64 = 1 << 62;

/// The most bytes of a value.
const ROOM: i32 = 16;

/// Sets each option on a socket of TCP of its own, in `socket_post_create`.
pub(super) fn options(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, sk) = (bench.helper(), bench.offset("socket", "sk")?);
    let (mut results, program) = bench.load_for(CREATED, |asm| {
        argument(asm, Reg::R1, 0);
        asm.ldx(Size::DW, Reg::R1, Reg::R1, sk).jeq_imm(Reg::R1, 0, "pass");
        asm.ldx(Size::DW, Reg::R2, PAGE, slot(LEVEL)).ldx(Size::DW, Reg::R3, PAGE, slot(NUMBER));
        asm.ldx(Size::DW, Reg::R5, PAGE, slot(LENGTH));
        asm.jlt_imm(Reg::R5, 1, "pass").jgt_imm(Reg::R5, ROOM, "pass");
        page(asm, Reg::R4, VALUE);
        asm.call(helper);
        keep(asm, RETURNED, Reg::R0);
    })?;
    keep_shim(bench.attempt, CREATED)?;
    let cgroup = Cgroup::new("options")?;
    cgroup.enter()?;
    let link = attach(bench.attempt, &program, &cgroup)?;
    let found: Result<Vec<_>, Errno> =
        bench.attempt.trigger(|| OPTIONS.iter().map(|of| Ok((of.name, set(of, &mut results)?))).collect());
    drop(link);
    let found = found.map_err(|errno| Ended::could_not("make or read a socket", errno))?;
    bench.attempt.ran(results.runs() > 0);
    for (name, word) in found {
        match word {
            Word::Says(word) => bench.attempt.see(name, word),
            Word::Returned(value, by_user) => {
                bench.returned(name, value);
                if let Some(errno) = by_user {
                    bench.attempt.see(&format!("{name}, by setsockopt(2)"), errno.name());
                }
            }
        }
    }
    Ok(())
}

/// What came of an option.
enum Word {
    Says(String),
    /// What the helper gives, and what setsockopt(2) does if that fails too.
    Returned(u64, Option<Errno>),
}

/// Makes a socket on which the program sets the option, and compares it with one on which user space does.
fn set(of: &Of, results: &mut Results) -> Result<Word, Errno> {
    let other = tcp()?;
    let untouched = read(&other, of)?;
    let by_user = write(&other, of);
    let expected = read(&other, of)?;
    results.set(slot(LEVEL), u64::from(of.level.cast_unsigned()));
    results.set(slot(NUMBER), u64::from(of.number.cast_unsigned()));
    results.set(slot(LENGTH), of.value.len() as u64);
    results.set_bytes(slot(VALUE), &[0; ROOM as usize]);
    results.set_bytes(slot(VALUE), of.value);
    results.set(slot(RETURNED), NOT_YET);
    let made = Arm::new(results).during(tcp)?;
    let there = read(&made, of)?;
    Ok(match (results.get(slot(RETURNED)), by_user) {
        (NOT_YET, _) => Word::Says("the program did not come so far".to_owned()),
        (0, Err(errno)) => Word::Says(format!("0, where setsockopt(2) gives {}", errno.name())),
        (0, Ok(())) if there == expected && there != untouched => Word::Says("set".to_owned()),
        (0, Ok(())) if there == expected => Word::Says("0, and user space could not tell".to_owned()),
        (0, Ok(())) => Word::Says("0, and user space does NOT read it".to_owned()),
        (value, by_user) => Word::Returned(value, by_user.err()),
    })
}

fn tcp() -> Result<OwnedFd, Errno> {
    Ok(socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

/// What getsockopt(2) gives; nothing where there is no such option.
fn read(socket: &OwnedFd, of: &Of) -> Result<Vec<u8>, Errno> {
    let mut value = [0_u8; ROOM as usize];
    let mut length = libc::socklen_t::try_from(value.len()).unwrap_or(0);
    // SAFETY: the kernel writes no more than the length, which is that of the buffer.
    let result = unsafe {
        let value = (&raw mut value).cast();
        libc::getsockopt(socket.as_raw_fd(), of.level, of.number, value, &raw mut length)
    };
    match Errno::result(result) {
        Ok(_) => Ok(value.iter().copied().take(usize::try_from(length).unwrap_or(0)).collect()),
        Err(errno) if errno.raw() == libc::ENOPROTOOPT => Ok(Vec::new()),
        Err(errno) => Err(errno),
    }
}

fn write(socket: &OwnedFd, of: &Of) -> Result<(), Errno> {
    let length = libc::socklen_t::try_from(of.value.len()).unwrap_or(0);
    // SAFETY: the kernel reads no more than the length, which is the value's.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), of.level, of.number, of.value.as_ptr().cast(), length)
    };
    Errno::result(result).map(drop)
}
