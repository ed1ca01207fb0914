//! Setting an option of a socket, and asking how much waits in it.

use super::Subject;
use super::way::{Doing, Step, Way, doing};
use crate::errno::Errno;
use crate::spec::source;
use crate::triggers::Arm;
use crate::triggers::uring::{COMMAND, Request, Ring};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

pub(super) const SETTING: Subject = Subject {
    name: "socket_setsockopt",
    what: "set an option of a socket",
    hooks: &["socket_setsockopt", "uring_cmd"],
    ways: &[
        Way::new("setsockopt", || {
            setting(|socket, value| {
                let size = libc::socklen_t::try_from(size_of_val(value)).map_err(|_| Errno::EOVERFLOW)?;
                let value = std::ptr::from_ref(value).cast();
                // SAFETY: a number with its size.
                Errno::result(unsafe {
                    libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MARK, value, size)
                })
                .map(drop)
            })
        }),
        Way::new("io_uring-setsockopt", || setting(set_by_ring)).lacking(NOT_THERE),
    ],
    sources: &[
        source("7.3", "net/socket.c", "do_sock_setsockopt"),
        source("7.3", "io_uring/cmd_net.c", "io_uring_cmd_setsockopt"),
        source("7.3", "io_uring/uring_cmd.c", "io_uring_cmd"),
    ],
};

pub(super) const ASKING: Subject = Subject {
    name: "file_ioctl",
    what: "ask how many bytes wait in a socket",
    hooks: &["file_ioctl", "uring_cmd", "socket_recvmsg"],
    ways: &[
        Way::new("ioctl", || {
            asking(|socket| {
                let mut bytes = 0_i32;
                // SAFETY: FIONREAD fills in a number.
                Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
                Ok(u32::try_from(bytes).unwrap_or(u32::MAX))
            })
        }),
        Way::new("recv-MSG_PEEK", || {
            asking(|socket| {
                let mut bytes = [0_u8; 8];
                let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
                // SAFETY: a buffer with its length.
                let read =
                    unsafe { libc::recv(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), flags) };
                Ok(u32::try_from(Errno::result(read)?).unwrap_or(u32::MAX))
            })
        }),
        Way::new("io_uring-SIOCINQ", || asking(ask_by_ring)).lacking(NOT_THERE),
    ],
    sources: &[
        source("7.3", "fs/ioctl.c", "SYSCALL_DEFINE3(ioctl)"),
        source("7.3", "io_uring/cmd_net.c", "io_uring_cmd_sock"),
    ],
};

/// What a kernel says of a command that it does not know: before 5.19 of the operation, then of the file, and of each
/// command by itself.
const NOT_THERE: &[i32] = &[libc::EINVAL, libc::EOPNOTSUPP];
/// include/uapi/linux/io_uring.h: SOCKET_URING_OP_SIOCINQ, SOCKET_URING_OP_SETSOCKOPT.
const SIOCINQ: usize = 0;
const SETSOCKOPT: usize = 3;

/// Sets SO_MARK, which every socket has, and looks at it, also where that fails.
fn setting(call: fn(&UdpSocket, &i32) -> Result<(), Errno>) -> Result<Doing, Errno> {
    let mut mark = 0;
    doing(move |arm: Arm| {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        mark += 1;
        let result = arm.during(|| call(&socket, &mark));
        let set = mark_of(&socket).step("getsockopt")? == mark;
        match result {
            Err(errno) if set => Ok(format!("{errno}, and it is set")),
            Err(errno) => Err(errno.into()),
            Ok(()) => Ok(if set { "it is set" } else { "it is not set" }.to_owned()),
        }
    })
}

fn mark_of(socket: &UdpSocket) -> Result<i32, Errno> {
    let (mut mark, mut size) = (0_i32, 4);
    let (value, size) = ((&raw mut mark).cast(), &raw mut size);
    // SAFETY: a number with its size.
    Errno::result(unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MARK, value, size)
    })?;
    Ok(mark)
}

fn set_by_ring(socket: &UdpSocket, mark: &i32) -> Result<(), Errno> {
    let (level, name) = (libc::SOL_SOCKET.unsigned_abs() as usize, libc::SO_MARK.unsigned_abs() as usize);
    let request = Request {
        operation: COMMAND,
        fd: socket.as_raw_fd(),
        offset: SETSOCKOPT,
        address: level | name << 32,
        file_index: 4, // the value's size
        third: std::ptr::from_ref(mark).addr(),
        ..Request::default()
    };
    Ring::new()?.request(request).map(drop)
}

/// Asks a socket in which a datagram of two bytes waits.
fn asking(call: fn(&UdpSocket) -> Result<u32, Errno>) -> Result<Doing, Errno> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    UdpSocket::bind("127.0.0.1:0")?.send_to(b"xx", socket.local_addr()?)?;
    socket.peek(&mut [0; 8])?;
    doing(move |arm: Arm| {
        let bytes = arm.during(|| call(&socket))?;
        Ok(format!("{bytes} bytes"))
    })
}

fn ask_by_ring(socket: &UdpSocket) -> Result<u32, Errno> {
    let request =
        Request { operation: COMMAND, fd: socket.as_raw_fd(), offset: SIOCINQ, ..Request::default() };
    Ring::new()?.request(request)
}
