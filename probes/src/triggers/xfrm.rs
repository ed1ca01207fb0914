//! IPsec: policies and states, over netlink.

use super::netlink::{Netlink, attribute};
use super::{Act, Arm, OK, Seen, act, act_seen, modules};
use crate::errno::Errno;
use crate::patience::Patience;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// include/uapi/linux/xfrm.h: XFRM_MSG_NEWSA, DELSA, NEWPOLICY, DELPOLICY, ALLOCSPI, FLUSHSA.
const NEW_STATE: u16 = 0x10;
const DELETE_STATE: u16 = 0x11;
const NEW_POLICY: u16 = 0x13;
const DELETE_POLICY: u16 = 0x14;
const ALLOCATE_SPI: u16 = 0x16;
const FLUSH_STATES: u16 = 0x1c;
/// The same: XFRMA_ALG_AUTH, XFRMA_TMPL, XFRMA_SEC_CTX.
const AUTHENTICATION: u16 = 1;
const TEMPLATE: u16 = 5;
const LABEL: u16 = 8;
/// The address that policies and states here are about, of loopback but nobody's.
const THERE: [u8; 4] = [127, 9, 9, 9];
/// include/uapi/linux/in.h: IPPROTO_ESP, IPPROTO_AH.
const ESP: u8 = 50;
const AH: u8 = 51;
/// Whether IPsec leaves loopback alone, as it does by default.
const EXEMPT: &str = "/proc/sys/net/ipv4/conf/lo/disable_xfrm";

fn xfrm() -> Result<Netlink, Errno> {
    modules::load(&["xfrm_algo", "xfrm_user"])?;
    Netlink::open(libc::NETLINK_XFRM)
}

/// `struct xfrm_selector`: everything that goes to [`THERE`].
fn selector() -> Vec<u8> {
    let mut bytes = THERE.to_vec();
    bytes.resize(40, 0); // the rest of both addresses, and ports
    bytes.extend([2, 0, 32, 0, 0, 0, 0, 0]); // family, lengths of both prefixes, protocol
    bytes.resize(56, 0); // interface and user
    bytes
}

/// `struct xfrm_userpolicy_info` for packets that leave, without limits.
fn policy(attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = selector();
    bytes.extend([0xff; 32]); // four limits, two of them on bytes and packets: XFRM_INF
    bytes.extend([0; 64]); // the other four limits, four statistics
    bytes.extend([0; 8]); // priority and index
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]); // XFRM_POLICY_OUT, XFRM_POLICY_ALLOW
    bytes.extend(attributes.concat());
    bytes
}

/// `struct xfrm_userpolicy_id` of that policy.
fn policy_id() -> Vec<u8> {
    let mut bytes = selector();
    bytes.extend([0, 0, 0, 0, 1, 0, 0, 0]);
    bytes
}

/// `struct xfrm_user_sec_ctx` in its attribute: a label of a kind that nobody knows.
fn label() -> Vec<u8> {
    attribute(LABEL, &[16, 0, 8, 0, 1, 1, 8, 0, b'c', b'o', b'n', b'f', b'o', b'r', b'm', 0])
}

/// `struct xfrm_user_tmpl`: this protocol, by any state there is.
fn template(protocol: u8) -> Vec<u8> {
    let mut bytes = THERE.to_vec();
    bytes.resize(20, 0);
    bytes.extend([protocol, 0, 0, 0, 2, 0, 0, 0]); // with the family
    bytes.extend([0; 16]); // source
    bytes.extend([0; 8]); // request and mode: transport
    bytes.resize(52, 0);
    bytes.extend([0xff; 12]); // algorithms: all
    attribute(TEMPLATE, &bytes)
}

/// `sendto(2)` of a policy with a label.
///
/// # Errors
/// The errno of making the socket.
pub fn add_policy() -> Result<Act, Errno> {
    let xfrm = xfrm()?;
    let policy = policy(&[label()]);
    act(move |arm: Arm| {
        arm.during(|| xfrm.ask(NEW_POLICY, 0, &policy))?;
        xfrm.ask(DELETE_POLICY, 0, &policy_id())
    })
}

/// The same of a policy that is there already: what was made for it is thrown away, at once or some time after. So is what
/// was deleted before, by this act, by the same act for nobody or by another probe: that is waited for first.
///
/// # Errors
/// The errno of making the socket.
pub fn add_policy_again() -> Result<Act, Errno> {
    let xfrm = xfrm()?;
    let policy = policy(&[label()]);
    act_seen(move |arm: Arm| {
        xfrm.ask(NEW_POLICY, 0, &policy)?;
        if !arm.is_idle() {
            Arm::until_freed(); // (6.9 net/xfrm/xfrm_policy.c, xfrm_policy_destroy: by call_rcu)
        }
        let result = arm.freeing(0, || xfrm.ask(NEW_POLICY, 0, &policy));
        xfrm.ask(DELETE_POLICY, 0, &policy_id())?;
        match result {
            Err(Errno::EEXIST) => Ok(Seen("EEXIST")),
            Err(errno) => Err(errno),
            Ok(_) => Ok(Seen("ok, which cannot be")),
        }
    })
}

/// `sendto(2)` that deletes a policy.
///
/// # Errors
/// The errno of making the socket.
pub fn remove_policy() -> Result<Act, Errno> {
    let xfrm = xfrm()?;
    let policy = policy(&[label()]);
    act(move |arm: Arm| {
        xfrm.ask(NEW_POLICY, 0, &policy)?;
        let result = arm.during(|| xfrm.ask(DELETE_POLICY, 0, &policy_id()));
        if result.is_err() {
            xfrm.ask(DELETE_POLICY, 0, &policy_id())?;
        }
        result
    })
}

/// `send(2)` of a datagram that a policy is about. Somebody listens who could negotiate a state; else the kernel would
/// not begin one (6.14 net/xfrm/xfrm_state.c, km_is_alive). The states are there before, and gone after.
fn send_under(policy: Vec<u8>, states: Vec<Vec<u8>>) -> Result<Act, Errno> {
    let xfrm = xfrm()?;
    let listener = Netlink::listening(libc::NETLINK_XFRM, 1)?; // XFRMNLGRP_ACQUIRE
    act_seen(move |arm: Arm| {
        let _open = &listener;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        std::fs::write(EXEMPT, "0")?;
        for state in &states {
            xfrm.ask(NEW_STATE, 0, state)?;
        }
        xfrm.ask(NEW_POLICY, 0, &policy)?;
        let result = arm.during(|| socket.send_to(b"x", (Ipv4Addr::from(THERE), 9)));
        xfrm.ask(DELETE_POLICY, 0, &policy_id())?;
        xfrm.ask(FLUSH_STATES, 0, &[0xff, 0, 0, 0])?; // IPSEC_PROTO_ANY
        std::fs::write(EXEMPT, "1")?;
        match result.map_err(Errno::from) {
            Ok(_) => Ok(Seen("ok")),
            Err(errno) if errno.raw() == libc::ECONNREFUSED => Ok(Seen("ok, and nobody there")),
            Err(Errno::EAGAIN) => Ok(Seen("EAGAIN: no state yet")),
            Err(errno) if errno.raw() == libc::ESRCH => Ok(Seen("ESRCH: no state, and nobody to make one")),
            Err(errno) => Err(errno),
        }
    })
}

/// `send(2)` of a datagram that a policy is about and lets pass.
///
/// # Errors
/// The errno of making the socket.
pub fn send_allowed() -> Result<Act, Errno> {
    send_under(policy(&[]), Vec::new())
}

/// `send(2)` of a datagram that a policy wants encrypted, for which there is no state: the kernel begins one.
///
/// # Errors
/// The errno of making the socket.
pub fn send_encrypted() -> Result<Act, Errno> {
    send_under(policy(&[template(ESP)]), Vec::new())
}

/// `send(2)` of a datagram that a policy wants signed, and there is a state for it.
///
/// # Errors
/// The errno of loading the protocol or of making the socket.
pub fn send_signed() -> Result<Act, Errno> {
    modules::load(&["xfrm_algo", "ah4"])?;
    send_under(policy(&[template(AH)]), vec![signing(0x3000, &[])])
}

/// `struct xfrm_usersa_info`: a state for packets from here to [`THERE`], without limits.
fn state(spi: u32, protocol: u8) -> Vec<u8> {
    let mut bytes = vec![0; 56]; // a selector of nothing
    bytes.extend(THERE); // struct xfrm_id: address, number, protocol
    bytes.resize(72, 0);
    bytes.extend(spi.to_be_bytes());
    bytes.extend([protocol, 0, 0, 0]);
    bytes.extend(Ipv4Addr::LOCALHOST.octets());
    bytes.resize(96, 0);
    bytes.extend([0xff; 32]); // limits on bytes and packets: XFRM_INF
    bytes.resize(96 + 64 + 32 + 12, 0); // the other limits, use, statistics
    bytes.extend([0; 8]); // sequence and request
    bytes.extend([2, 0]); // family
    bytes.resize(224, 0); // mode, window, flags
    bytes
}

/// A complete state: that of AH with a key.
fn signing(spi: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut algorithm = b"hmac(sha256)".to_vec(); // struct xfrm_algo: name, bits of the key, the key
    algorithm.resize(64, 0);
    algorithm.extend(256_u32.to_ne_bytes());
    algorithm.extend([0x5a; 32]);
    let mut bytes = state(spi, AH);
    bytes.extend(attribute(AUTHENTICATION, &algorithm));
    bytes.extend(attributes.concat());
    bytes
}

/// `sendto(2)` of a complete state with a label.
///
/// # Errors
/// The errno of loading the protocol or of making the socket.
pub fn add_state() -> Result<Act, Errno> {
    modules::load(&["xfrm_algo", "ah4"])?;
    let xfrm = xfrm()?;
    let state = signing(0x4000, &[label()]);
    act(move |arm: Arm| {
        arm.during(|| xfrm.ask(NEW_STATE, 0, &state))?;
        xfrm.ask(DELETE_STATE, 0, &state_id(0x4000, AH))
    })
}

/// `struct xfrm_userspi_info`: a state with this number to come, and nothing else known of it.
fn spi_wanted(spi: u32) -> Vec<u8> {
    let mut bytes = state(0, ESP);
    for bound in [spi, spi] {
        bytes.extend(bound.to_ne_bytes());
    }
    bytes
}

/// `struct xfrm_usersa_id` of that state.
fn state_id(spi: u32, protocol: u8) -> Vec<u8> {
    let mut bytes = THERE.to_vec();
    bytes.resize(16, 0);
    bytes.extend(spi.to_be_bytes());
    bytes.extend([2, 0, protocol, 0]);
    bytes
}

/// `sendto(2)` that deletes a state.
///
/// # Errors
/// The errno of making the socket.
pub fn remove_state() -> Result<Act, Errno> {
    let xfrm = xfrm()?;
    act(move |arm: Arm| {
        xfrm.ask(ALLOCATE_SPI, 0, &spi_wanted(0x1000))?;
        let result = arm.during(|| xfrm.ask(DELETE_STATE, 0, &state_id(0x1000, ESP)));
        if result.is_err() {
            xfrm.ask(DELETE_STATE, 0, &state_id(0x1000, ESP))?;
        }
        result
    })
}

/// The end of a state, some time after its deletion. Names its number, each time another.
///
/// # Errors
/// The errno of making the socket.
pub fn end_state() -> Result<Act, Errno> {
    let xfrm = xfrm()?;
    let mut spi = 0x2000_u32;
    act(move |arm: Arm| {
        spi += 1;
        xfrm.ask(ALLOCATE_SPI, 0, &spi_wanted(spi))?;
        let mark = u64::from(u32::from_ne_bytes(spi.to_be_bytes()));
        arm.freeing(mark, || xfrm.ask(DELETE_STATE, 0, &state_id(spi, ESP)))
    })
}

/// include/uapi/linux/in.h: IP_XFRM_POLICY.
const SOCKETS_OWN: i32 = 17;
/// How long a connection may take to come in or to be dropped. Over loopback that is soon after connect(2) has begun, but it
/// may be another processor that does it, after connect(2) has returned: the last packet of a handshake is the client's.
const COMES_IN: Duration = Duration::from_secs(5);

/// How many connections listeners have dropped so far: `ListenDrops` of /proc/net/netstat.
fn drops() -> Result<u64, Errno> {
    let text = std::fs::read_to_string("/proc/net/netstat")?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, numbers) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let found = names.split(' ').zip(numbers.split(' ')).find(|(name, _)| *name == "ListenDrops");
    found.and_then(|(_, number)| number.parse().ok()).ok_or(Errno::ENOENT)
}

/// A listener with a policy of its own, of which every socket that it accepts gets a copy.
fn listener() -> Result<TcpListener, Errno> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let policy = policy(&[]);
    let length = libc::socklen_t::try_from(policy.len()).unwrap_or(0);
    let (socket, value) = (listener.as_raw_fd(), policy.as_ptr().cast());
    // SAFETY: a descriptor, numbers, and a structure with its length.
    Errno::result(unsafe { libc::setsockopt(socket, libc::SOL_IP, SOCKETS_OWN, value, length) })?;
    Ok(listener)
}

/// A connection to such a listener, each time another: one that was not let in may come in later.
///
/// # Errors
/// The errno of making the listener or of giving it the policy.
pub fn accept() -> Result<Act, Errno> {
    drop(xfrm()?); // its module is what knows the form of a policy
    drop(listener()?);
    act_seen(move |arm: Arm| {
        let listener = listener()?;
        let address = listener.local_addr()?;
        let before = drops()?;
        let (_client, seen) = arm.during_mark(0, || {
            let client = TcpStream::connect(address)?;
            Ok::<_, Errno>((client, comes_in(&listener, before)?))
        })?;
        if seen == OK {
            listener.accept()?;
        }
        Ok(seen)
    })
}

/// Waits until the connection is there, or the listener has dropped more than `before`.
fn comes_in(listener: &TcpListener, before: u64) -> Result<Seen, Errno> {
    let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    let mut patience = Patience::new(COMES_IN);
    while patience.lasts() {
        if poll(&mut ready, PollTimeout::from(5_u16))? != 0 {
            return Ok(OK);
        }
        if drops()? != before {
            return Ok(Seen("the connection is dropped"));
        }
    }
    Err(super::LATE)
}
