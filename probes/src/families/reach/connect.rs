//! Connecting a socket, and giving it an address.

use super::Subject;
use super::way::{Doing, Failed, Step, Way, doing};
use crate::errno::Errno;
use crate::spec::source;
use crate::triggers::files::owned;
use crate::triggers::uring::{Request, Ring};
use crate::triggers::{Arm, vacate};
use libc::{AF_INET, AF_UNIX, SOCK_DGRAM, SOCK_STREAM, c_int, sockaddr_in};
use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{SockaddrIn, getsockname, setsockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};

pub(super) const CONNECTING: Subject = Subject {
    name: "socket_connect",
    what: "reach another socket",
    hooks: &["socket_connect", "socket_sendmsg", "socket_socketpair"],
    ways: &[
        Way::new("connect-tcp", || tcp(connect)),
        Way::new("sendto-tcp-MSG_FASTOPEN", || tcp(fast_open)),
        Way::new("connect-udp", || udp(connect)),
        Way::new("sendto-udp", || udp(send_to)),
        Way::new("connect-local-stream", local_stream),
        Way::new("sendto-local-datagram", local_datagram),
        Way::new("socketpair", pair),
        Way::new("io_uring-connect", by_ring),
    ],
    sources: &[
        source("7.3", "net/socket.c", "__sys_connect_file"),
        source("7.3", "net/ipv4/tcp.c", "tcp_sendmsg_fastopen"),
        source("7.3", "net/ipv4/af_inet.c", "__inet_stream_connect"),
        source("7.3", "net/socket.c", "__sys_socketpair"),
        source("7.3", "io_uring/net.c", "io_connect"),
    ],
};

pub(super) const BINDING: Subject = Subject {
    name: "socket_bind",
    what: "have a port",
    hooks: &["socket_bind", "socket_listen", "socket_connect", "socket_sendmsg"],
    ways: &[
        Way::new("bind-tcp", || with_port(SOCK_STREAM, bind)),
        Way::new("bind-udp", || with_port(SOCK_DGRAM, bind)),
        Way::new("listen-tcp", || with_port(SOCK_STREAM, listen)),
        Way::new("connect-udp", || with_port(SOCK_DGRAM, |fd| connect(fd, &address(DISCARD)))),
        Way::new("sendto-udp", || with_port(SOCK_DGRAM, |fd| send_to(fd, &address(DISCARD)))),
        Way::new("io_uring-bind", bind_by_ring).lacking(&[libc::EINVAL]),
    ],
    sources: &[
        source("7.3", "net/socket.c", "__sys_bind_socket"),
        source("7.3", "net/ipv4/inet_connection_sock.c", "inet_csk_listen_start"),
        source("7.3", "net/ipv4/af_inet.c", "inet_send_prepare"),
        source("7.3", "net/ipv4/datagram.c", "__ip4_datagram_connect"),
        source("7.3", "io_uring/net.c", "io_bind"),
    ],
};

/// A port that nobody has here.
const DISCARD: u16 = 9;
/// include/uapi/linux/io_uring.h: IORING_OP_CONNECT, IORING_OP_BIND.
const CONNECT: u8 = 16;
const BIND: u8 = 56;
/// How long loopback may take, in seconds.
const PATIENCE: i64 = 5;
/// The size of an address.
const BYTES: libc::socklen_t = 16;
const _: () = assert!(size_of::<sockaddr_in>() == BYTES as usize);

/// A port of loopback.
fn address(port: u16) -> sockaddr_in {
    sockaddr_in {
        sin_family: 2,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    }
}

/// A socket that waits for nothing longer than it must.
fn socket(family: c_int, kind: c_int) -> Result<OwnedFd, Errno> {
    // SAFETY: takes three numbers.
    let fd = Errno::result(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) })?;
    let socket = owned(fd.into());
    patient(&socket)?;
    Ok(socket)
}

fn patient(socket: &impl AsFd) -> Result<(), Errno> {
    setsockopt(socket, SendTimeout, &TimeVal::seconds(PATIENCE))?;
    setsockopt(socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
    Ok(())
}

type Call = fn(c_int, &sockaddr_in) -> Result<(), Errno>;

fn connect(fd: c_int, there: &sockaddr_in) -> Result<(), Errno> {
    // SAFETY: an address with its length.
    Errno::result(unsafe { libc::connect(fd, std::ptr::from_ref(there).cast(), BYTES) }).map(drop)
}

fn send_with(fd: c_int, there: &sockaddr_in, flags: c_int) -> Result<(), Errno> {
    let there = std::ptr::from_ref(there).cast();
    // SAFETY: one byte, and an address with its length.
    Errno::result(unsafe { libc::sendto(fd, b"x".as_ptr().cast(), 1, flags, there, BYTES) }).map(drop)
}

fn send_to(fd: c_int, there: &sockaddr_in) -> Result<(), Errno> {
    send_with(fd, there, 0)
}

fn fast_open(fd: c_int, there: &sockaddr_in) -> Result<(), Errno> {
    send_with(fd, there, libc::MSG_FASTOPEN)
}

/// Connects to a listener.
fn tcp(call: Call) -> Result<Doing, Errno> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    patient(&listener)?;
    let there = address(listener.local_addr()?.port());
    doing(move |arm: Arm| {
        let client = socket(AF_INET, SOCK_STREAM)?;
        arm.during(|| call(client.as_raw_fd(), &there))?;
        listener.accept().step("accept")?;
        Ok("connected".to_owned())
    })
}

/// Sends a byte to a socket that is there, or makes ready to.
fn udp(call: Call) -> Result<Doing, Errno> {
    let receiver = UdpSocket::bind("127.0.0.1:0")?;
    patient(&receiver)?;
    let there = address(receiver.local_addr()?.port());
    doing(move |arm: Arm| {
        let client = socket(AF_INET, SOCK_DGRAM)?;
        arm.during(|| call(client.as_raw_fd(), &there))?;
        if nix::sys::socket::getpeername::<SockaddrIn>(client.as_raw_fd()).is_ok() {
            return Ok("connected".to_owned());
        }
        receiver.recv(&mut [0]).step("recv")?;
        Ok("it arrives".to_owned())
    })
}

fn local_stream() -> Result<Doing, Errno> {
    let path = "/tmp/listener";
    vacate(path)?;
    let listener = UnixListener::bind(path)?;
    doing(move |arm: Arm| {
        let mut client = arm.during(|| std::os::unix::net::UnixStream::connect(path))?;
        drop(listener.accept().step("accept")?);
        let end = client.read(&mut [0]).step("read")?;
        Ok(if end == 0 { "connected" } else { "connected to another" }.to_owned())
    })
}

fn local_datagram() -> Result<Doing, Errno> {
    let path = "/tmp/receiver";
    vacate(path)?;
    let receiver = UnixDatagram::bind(path)?;
    patient(&receiver)?;
    let sender = UnixDatagram::unbound()?;
    doing(move |arm: Arm| {
        arm.during(|| sender.send_to(b"x", path))?;
        receiver.recv(&mut [0]).step("recv")?;
        Ok("it arrives".to_owned())
    })
}

fn pair() -> Result<Doing, Errno> {
    doing(|arm: Arm| {
        let mut pair = [0; 2];
        arm.during(|| {
            // SAFETY: two numbers to fill in.
            Errno::result(unsafe { libc::socketpair(AF_UNIX, SOCK_STREAM, 0, pair.as_mut_ptr()) })
        })?;
        drop(pair.map(|fd| owned(fd.into())));
        Ok("connected".to_owned())
    })
}

/// A request about an address.
fn request(operation: u8, fd: c_int, address: &sockaddr_in) -> Request {
    let address = std::ptr::from_ref(address).addr();
    Request { operation, fd, address, offset: BYTES as usize, ..Request::default() }
}

/// A datagram socket, of which connecting waits for nothing.
fn by_ring() -> Result<Doing, Errno> {
    let mut ring = Ring::new()?;
    doing(move |arm: Arm| {
        let client = socket(AF_INET, SOCK_DGRAM)?;
        let there = address(DISCARD);
        arm.during(|| ring.request(request(CONNECT, client.as_raw_fd(), &there)))?;
        nix::sys::socket::getpeername::<SockaddrIn>(client.as_raw_fd()).step("getpeername")?;
        Ok("connected".to_owned())
    })
}

fn bind(fd: c_int) -> Result<(), Errno> {
    let any = address(0);
    // SAFETY: an address with its length.
    Errno::result(unsafe { libc::bind(fd, (&raw const any).cast(), BYTES) }).map(drop)
}

fn listen(fd: c_int) -> Result<(), Errno> {
    // SAFETY: takes two numbers.
    Errno::result(unsafe { libc::listen(fd, 1) }).map(drop)
}

/// Whether a socket has a port.
fn port(socket: &OwnedFd) -> Result<String, Failed> {
    let address: SockaddrIn = getsockname(socket.as_raw_fd()).step("getsockname")?;
    Ok(if address.port() == 0 { "no port" } else { "a port" }.to_owned())
}

fn with_port(kind: c_int, call: fn(c_int) -> Result<(), Errno>) -> Result<Doing, Errno> {
    doing(move |arm: Arm| {
        let socket = socket(AF_INET, kind)?;
        let result = arm.during(|| call(socket.as_raw_fd()));
        let port = port(&socket)?;
        match result {
            Err(errno) if port == "a port" => Ok(format!("{errno}, and a port")),
            Err(errno) => Err(errno.into()),
            Ok(()) => Ok(port),
        }
    })
}

fn bind_by_ring() -> Result<Doing, Errno> {
    let mut ring = Ring::new()?;
    doing(move |arm: Arm| {
        let socket = socket(AF_INET, SOCK_DGRAM)?;
        let any = address(0);
        arm.during(|| ring.request(request(BIND, socket.as_raw_fd(), &any)))?;
        port(&socket)
    })
}
