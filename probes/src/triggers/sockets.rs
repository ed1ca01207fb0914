//! Sockets: local ones, loopback and netlink.

use super::{Act, Arm, OK, Seen, act, act_seen, vacate};
use crate::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, NetlinkAddr, Shutdown, SockFlag, SockProtocol, SockType, SockaddrIn,
    bind, getpeername, getsockname, getsockopt, listen, recv, send, sendto, setsockopt, shutdown, socket,
    socketpair, sockopt,
};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
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

/// include/uapi/linux/in.h: IPPROTO_MPTCP.
const MPTCP: i32 = 262;
/// How long an answer over loopback may take once what was sent after it has arrived.
const ANSWER_MS: u16 = 10;
/// How long a datagram over loopback may take that nobody has a reason to drop.
const ARRIVES_MS: u16 = 5000;
/// Datagrams sent one after the other until the packets before them must be through: the longest handshake (SCTP's) has
/// four, and each is put behind the datagram that was under way when it was made.
const ROUNDS: usize = 5;

/// Whom a handshake is named by.
#[derive(Clone, Copy)]
enum Ends {
    /// The task that connects.
    Task,
    /// The listener's port.
    Listener,
    /// The same port, as the other end keeps it: in the order of the network.
    Client,
}

/// `connect(2)` of a stream over loopback.
///
/// # Errors
/// The errno of making the listener.
pub fn connect_tcp() -> Result<Act, Errno> {
    handshake(Ends::Task)
}

/// The same; what the kernel does with packets it may do in a task of its own, so the listener's port is named.
///
/// # Errors
/// The errno of making the listener.
pub fn ask_listener() -> Result<Act, Errno> {
    handshake(Ends::Listener)
}

/// The same, naming the port as the client's socket keeps it.
///
/// # Errors
/// The errno of making the listener.
pub fn answer_client() -> Result<Act, Errno> {
    handshake(Ends::Client)
}

fn handshake(ends: Ends) -> Result<Act, Errno> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    listener.set_nonblocking(true)?;
    act_seen(move |arm: Arm| {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let client = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
        let named = match ends {
            Ends::Task => std::process::id().into(),
            Ends::Listener => port.into(),
            Ends::Client => port.to_be().into(),
        };
        let there = SockaddrIn::new(127, 0, 0, 1, port);
        let connected = arm.during_mark(named, || {
            begun(nix::sys::socket::connect(client.as_raw_fd(), &there))?;
            Ok::<_, Errno>(ready(&client, PollFlags::POLLOUT)? && ready(&listener, PollFlags::POLLIN)?)
        })?;
        drop(listener.accept());
        Ok(if connected { Seen("connected") } else { Seen("no answer") })
    })
}

/// What `connect(2)` of a socket that does not block gave, unless it has failed.
fn begun(result: Result<(), nix::Error>) -> Result<(), Errno> {
    match result {
        Ok(()) | Err(nix::Error::EINPROGRESS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits for a socket as long as an answer can take. What is not there at once, because a thread of the kernel has to
/// give it, is waited for by sending something behind it: loopback keeps the order (7.3 net/core/dev.c, enqueue_to_backlog).
fn ready(socket: &impl AsFd, what: PollFlags) -> Result<bool, Errno> {
    let wait = |timeout: u16| poll(&mut [PollFd::new(socket.as_fd(), what)], PollTimeout::from(timeout));
    if wait(0)? > 0 {
        return Ok(true);
    }
    settle()?;
    Ok(wait(ANSWER_MS)? > 0)
}

/// Waits until loopback is through with what has been sent before.
fn settle() -> Result<(), Errno> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(socket.local_addr()?)?;
    for _ in 0..ROUNDS {
        socket.send(b"x")?;
        let mut here = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut here, PollTimeout::from(ARRIVES_MS))? == 0 {
            return Err(super::LATE);
        }
        socket.recv(&mut [0])?;
    }
    Ok(())
}

/// `send(2)` of a datagram over loopback, looking whether it arrives. Names the receiver's port.
///
/// # Errors
/// The errno of making the sockets.
pub fn send_udp() -> Result<Act, Errno> {
    let receiver = UdpSocket::bind("127.0.0.1:0")?;
    let sender = UdpSocket::bind("127.0.0.1:0")?;
    let there = receiver.local_addr()?;
    sender.connect(there)?;
    act_seen(move |arm: Arm| {
        let here = arm.during_mark(there.port().into(), || {
            let sent = sender.send(b"x");
            let here = ready(&receiver, PollFlags::POLLIN)?;
            sent?;
            Ok::<_, Errno>(here)
        })?;
        if !here {
            return Ok(Seen("ok, and nothing arrives"));
        }
        receiver.recv(&mut [0])?;
        Ok(Seen("ok, and it arrives"))
    })
}

/// `send(2)` of a datagram over loopback to a port where nobody listens, which the kernel answers.
///
/// # Errors
/// The errno of making the sockets.
pub fn send_to_nobody() -> Result<Act, Errno> {
    let sender = UdpSocket::bind("127.0.0.1:0")?;
    let nobody = UdpSocket::bind("127.0.0.1:0")?.local_addr()?; // closed again
    sender.connect(nobody)?;
    act_seen(move |arm: Arm| {
        let told = arm.during_mark(0, || {
            let sent = sender.send(b"x");
            let told = ready(&sender, PollFlags::POLLERR)?;
            sent?;
            Ok::<_, Errno>(told)
        })?;
        drop(sender.take_error()?);
        Ok(if told { Seen("ok, and nobody there") } else { Seen("ok, and no answer") })
    })
}

/// `getsockopt(2)`, asking for the label of the other end of a socket of which AppArmor, asked first, knows none: it
/// labels local ones (7.3 security/apparmor/lsm.c, sk_peer_get_label).
///
/// # Errors
/// The errno of making the sockets.
pub fn peer_label() -> Result<Act, Errno> {
    let one = udp()?;
    act_seen(move |arm: Arm| {
        let mut label = [0_u8; 64];
        let mut length: libc::socklen_t = 64;
        let (to, length) = (label.as_mut_ptr().cast(), &raw mut length);
        let result = arm.during(|| {
            // SAFETY: a buffer with its length.
            Errno::result(unsafe {
                libc::getsockopt(one.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERSEC, to, length)
            })
        });
        match result {
            Err(errno) if errno.raw() == libc::ENOPROTOOPT => Ok(Seen("ENOPROTOOPT: it has none")),
            other => other.map(|_| OK),
        }
    })
}

/// `bind(2)` of a multipath socket, which makes its first flow.
///
/// # Errors
/// None.
pub fn bind_mptcp() -> Result<Act, Errno> {
    act(|arm: Arm| {
        // SAFETY: takes three numbers.
        let fd = Errno::result(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, MPTCP) })?;
        // SAFETY: the kernel has just made this descriptor for us.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let any = SockaddrIn::new(127, 0, 0, 1, 0);
        arm.during(|| bind(socket.as_raw_fd(), &any).map_err(Errno::from))
    })
}

/// `socket(2)` of a family that a module may bring. The kernel has a program of user space load it, which here only
/// leaves a sign of itself.
///
/// # Errors
/// The errno of writing the program or saying where it is.
pub fn unknown_family() -> Result<Act, Errno> {
    super::exec::write_loader("/conform-loader")?;
    std::fs::write("/proc/sys/kernel/modprobe", "/conform-loader")?;
    act_seen(|arm: Arm| {
        vacate("/asked")?;

        // SAFETY: takes three numbers.
        match arm.during(|| Errno::result(unsafe { libc::socket(FAMILY_OF_A_MODULE, libc::SOCK_RAW, 0) })) {
            Err(errno) if errno.raw() == libc::EAFNOSUPPORT => {
                let asked = std::fs::exists("/asked")?;
                Ok(if asked {
                    Seen("EAFNOSUPPORT, a module was asked for")
                } else {
                    Seen("EAFNOSUPPORT at once")
                })
            }
            other => other.map(|_| OK),
        }
    })
}

/// include/linux/socket.h: AF_ECONET, which left the kernel long ago.
const FAMILY_OF_A_MODULE: i32 = 19;

/// A listening socket of SCTP, with its address.
fn sctp_listener() -> Result<(OwnedFd, SockaddrIn), Errno> {
    let listener = super::devices::sctp()?;
    bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0))?;
    listen(&listener, Backlog::new(4)?)?;
    let address = getsockname(listener.as_raw_fd())?;
    Ok((listener, address))
}

/// `connect(2)` and `accept(2)` over SCTP on loopback.
///
/// # Errors
/// The errno of making the listener.
pub fn connect_sctp() -> Result<Act, Errno> {
    associate(std::process::id().into())
}

/// The same; what the kernel does with packets it may do in a task of its own, and nobody but this trigger speaks SCTP,
/// so packets of IPv4 are named.
///
/// # Errors
/// The errno of making the listener.
pub fn ask_sctp() -> Result<Act, Errno> {
    associate(ETH_P_IP.to_be().into())
}

/// include/uapi/linux/if_ether.h: ETH_P_IP.
const ETH_P_IP: u16 = 0x0800;

fn associate(named: u64) -> Result<Act, Errno> {
    let (listener, there) = sctp_listener()?;
    act_seen(move |arm: Arm| {
        let client = super::devices::sctp()?;
        let (result, answered, fd) = arm.during_mark(named, || {
            let result = nix::sys::socket::connect(client.as_raw_fd(), &there);
            let answered = ready(&client, PollFlags::POLLOUT)? && ready(&listener, PollFlags::POLLIN)?;
            // SAFETY: no address is asked for.
            let fd =
                unsafe { libc::accept(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()) };
            Ok::<_, Errno>((result, answered, fd))
        })?;
        if fd >= 0 {
            // SAFETY: the kernel has just made this descriptor for us.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        begun(result)?;
        Ok(if answered && fd >= 0 { Seen("connected") } else { Seen("no connection") })
    })
}

/// `setsockopt(2)` that binds a socket of SCTP to a further address.
///
/// # Errors
/// The errno of making the first socket.
pub fn bind_more() -> Result<Act, Errno> {
    drop(super::devices::sctp()?);
    act(|arm: Arm| {
        let socket = super::devices::sctp()?;
        let address = libc::sockaddr_in {
            sin_family: 2,
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
            sin_zero: [0; 8],
        };
        // include/uapi/linux/sctp.h: SOL_SCTP, SCTP_SOCKOPT_BINDX_ADD.
        arm.during(|| {
            // SAFETY: one address with its length.
            Errno::result(unsafe {
                libc::setsockopt(socket.as_raw_fd(), 132, 100, (&raw const address).cast(), 16)
            })
        })
    })
}
