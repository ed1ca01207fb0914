//! Sockets: local ones, loopback and netlink.

use super::{Act, Arm, act, vacate};
use crate::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, NetlinkAddr, Shutdown, SockFlag, SockProtocol, SockType, SockaddrIn,
    bind, getpeername, getsockname, getsockopt, listen, recv, send, sendto, setsockopt, shutdown, socket,
    socketpair, sockopt,
};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    Ok(socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)?)
}

fn listener_at(path: &str) -> Result<UnixListener, Errno> {
    vacate(path)?;
    Ok(UnixListener::bind(path)?)
}

fn udp() -> Result<OwnedFd, Errno> {
    Ok(socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

/// `socket(2)` of a local one.
///
/// # Errors
/// None.
pub fn create() -> Result<Act, Errno> {
    act(|arm| {
        arm.during(|| {
            socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(Errno::from)
        })
    })
}

/// `close(2)` of a local socket.
///
/// # Errors
/// None.
pub fn close() -> Result<Act, Errno> {
    act(|arm: Arm| {
        let socket = UnixDatagram::unbound()?;
        arm.during(|| drop(socket));
        Ok(())
    })
}

/// `socketpair(2)`.
///
/// # Errors
/// None.
pub fn make_pair() -> Result<Act, Errno> {
    act(|arm| arm.during(pair))
}

/// `bind(2)` to any port of loopback.
///
/// # Errors
/// None.
pub fn bind_udp() -> Result<Act, Errno> {
    act(|arm| {
        let socket = udp()?;
        let any = SockaddrIn::new(127, 0, 0, 1, 0);
        arm.during(|| bind(socket.as_raw_fd(), &any).map_err(Errno::from))
    })
}

/// `connect(2)` of a datagram socket, which sends nothing.
///
/// # Errors
/// The errno of making the socket.
pub fn connect_udp() -> Result<Act, Errno> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    act(move |arm| arm.during(|| socket.connect("127.0.0.1:9").map_err(Errno::from)))
}

/// `listen(2)`.
///
/// # Errors
/// The errno of making the socket.
pub fn start_listening() -> Result<Act, Errno> {
    let listener = listener_at("/tmp/listening")?;
    let backlog = Backlog::new(1)?;
    act(move |arm| arm.during(|| listen(&listener, backlog).map_err(Errno::from)))
}

/// `accept(2)` of a connection that waits.
///
/// # Errors
/// The errno of making the socket.
pub fn accept() -> Result<Act, Errno> {
    let listener = listener_at("/tmp/accepting")?;
    act(move |arm: Arm| {
        let _client = UnixStream::connect("/tmp/accepting")?;
        let result = arm.during(|| listener.accept().map_err(Errno::from));
        if result.is_err() {
            listener.accept()?; // it still waits
        }
        result.map(drop)
    })
}

/// `connect(2)` of a local stream by name.
///
/// # Errors
/// The errno of making the socket.
pub fn connect_stream() -> Result<Act, Errno> {
    let listener = listener_at("/tmp/connected")?;
    act(move |arm: Arm| {
        let stream = arm.during(|| UnixStream::connect("/tmp/connected"))?;
        listener.accept()?;
        drop(stream);
        Ok(())
    })
}

/// `send(2)` of a datagram.
///
/// # Errors
/// The errno of making the sockets.
pub fn send_datagram() -> Result<Act, Errno> {
    let (one, other) = pair()?;
    act(move |arm: Arm| {
        arm.during(|| send(one.as_raw_fd(), b"x", MsgFlags::MSG_DONTWAIT))?;
        recv(other.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT).map_err(Errno::from)
    })
}

/// `recv(2)` of a datagram.
///
/// # Errors
/// The errno of making the sockets.
pub fn receive_datagram() -> Result<Act, Errno> {
    let (one, other) = pair()?;
    act(move |arm: Arm| {
        send(one.as_raw_fd(), b"x", MsgFlags::MSG_DONTWAIT)?;
        let receive = || recv(other.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT);
        let result = arm.during(receive);
        if result.is_err() {
            receive()?; // it is still there
        }
        result.map_err(Errno::from)
    })
}

/// `getsockname(2)`.
///
/// # Errors
/// The errno of making the socket.
pub fn own_name() -> Result<Act, Errno> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    act(move |arm| {
        arm.during(|| getsockname::<SockaddrIn>(socket.as_raw_fd()).map(drop).map_err(Errno::from))
    })
}

/// `getpeername(2)`.
///
/// # Errors
/// The errno of making the socket.
pub fn peer_name() -> Result<Act, Errno> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect("127.0.0.1:9")?;
    act(move |arm| {
        arm.during(|| getpeername::<SockaddrIn>(socket.as_raw_fd()).map(drop).map_err(Errno::from))
    })
}

/// `getsockopt(2)`.
///
/// # Errors
/// The errno of making the socket.
pub fn get_option() -> Result<Act, Errno> {
    let socket = udp()?;
    act(move |arm| arm.during(|| getsockopt(&socket, sockopt::SndBuf).map_err(Errno::from)))
}

/// `setsockopt(2)`.
///
/// # Errors
/// The errno of making the socket.
pub fn set_option() -> Result<Act, Errno> {
    let socket = udp()?;
    act(move |arm| arm.during(|| setsockopt(&socket, sockopt::SndBuf, &8192).map_err(Errno::from)))
}

/// `shutdown(2)`.
///
/// # Errors
/// None.
pub fn shut_down() -> Result<Act, Errno> {
    act(|arm| {
        let (one, _other) = pair()?;
        arm.during(|| shutdown(one.as_raw_fd(), Shutdown::Write).map_err(Errno::from))
    })
}

/// `sendto(2)` of a netlink message that asks for nothing (`NLMSG_NOOP`).
///
/// # Errors
/// The errno of making the socket.
pub fn send_netlink() -> Result<Act, Errno> {
    let protocol = SockProtocol::NetlinkRoute;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    let mut message = [0_u8; 16];
    message[0] = 16; // length
    message[4] = 1; // type
    act(move |arm| {
        let kernel = NetlinkAddr::new(0, 0);
        arm.during(|| sendto(socket.as_raw_fd(), &message, &kernel, MsgFlags::empty()).map_err(Errno::from))
    })
}
