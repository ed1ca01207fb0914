//! Asking the kernel things over netlink, and hearing whether it did them.

use super::files::owned;
use crate::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, NetlinkAddr, bind, recv, sendto};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// include/uapi/linux/netlink.h: NLM_F_REQUEST and NLM_F_ACK.
const REQUEST_AND_ACK: u16 = 5;
/// The same: NLM_F_REQUEST, NLM_F_CREATE.
const REQUEST: u16 = 1;
const CREATE: u16 = 0x400;
/// The same: NLMSG_ERROR, which also says that there was none.
const ERROR: u16 = 2;
const HEAD: usize = 16;
/// Stands for an answer that ends before its errno ([`super::stands_for`]).
pub(super) const GARBLED: Errno = Errno::from_raw(libc::EBADMSG);

/// What is sent together with others.
pub(super) struct Message {
    /// Its type.
    pub(super) kind: u16,
    /// What follows its head.
    pub(super) body: Vec<u8>,
}

impl Message {
    fn bytes(&self, flags: u16) -> Vec<u8> {
        let mut bytes = u32::try_from(HEAD + self.body.len()).unwrap_or(0).to_ne_bytes().to_vec();
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(&self.body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}

/// A socket of one protocol.
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    /// `protocol` is one of `NETLINK_*` of include/uapi/linux/netlink.h.
    pub(super) fn open(protocol: i32) -> Result<Self, Errno> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: takes three numbers.
        Errno::result(unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) })
            .map(|fd| Self(owned(fd.into())))
    }

    /// The same, hearing what is said to a group.
    pub(super) fn listening(protocol: i32, group: u32) -> Result<Self, Errno> {
        let socket = Self::open(protocol)?;
        bind(socket.0.as_raw_fd(), &NetlinkAddr::new(0, group))?;
        Ok(socket)
    }

    /// Drops what has been heard so far.
    pub(super) fn forget(&self) -> Result<(), Errno> {
        loop {
            match recv(self.0.as_raw_fd(), &mut [0; 8192], MsgFlags::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(nix::Error::EAGAIN) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Waits for a message of this kind and gives what follows its head; others are dropped. `None` when none has come.
    pub(super) fn hears(&self, kind: u16, patience: Duration) -> Result<Option<Vec<u8>>, Errno> {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            if poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
                return Ok(None);
            }
            let mut buffer = vec![0_u8; 8192];
            let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
            buffer.truncate(length);
            if u16_at(&buffer, 4) == kind {
                return Ok(Some(buffer.get(HEAD..).unwrap_or(&[]).to_vec()));
            }
        }
    }

    /// Sends a message and takes the kernel's answer, which is there when the sending returns.
    pub(super) fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> Result<Vec<u8>, Errno> {
        let message = Message { kind, body: body.to_vec() };
        self.send(&message.bytes(REQUEST_AND_ACK | flags))?;
        self.answer()
    }

    /// Sends messages as one, of which the kernel does all or none. What fails is answered; the last but one, after which
    /// only the end comes, is answered in any case.
    pub(super) fn ask_together(&self, messages: &[Message]) -> Result<(), Errno> {
        let acknowledged = messages.len().saturating_sub(2);
        let flags = |at| CREATE | if at == acknowledged { REQUEST_AND_ACK } else { REQUEST };
        let bytes: Vec<u8> =
            messages.iter().enumerate().flat_map(|(at, message)| message.bytes(flags(at))).collect();
        self.send(&bytes)?;
        self.answer().map(drop)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        sendto(self.0.as_raw_fd(), bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    fn answer(&self) -> Result<Vec<u8>, Errno> {
        let mut reply = Vec::new();
        loop {
            let mut buffer = vec![0_u8; 8192];
            let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
            let answer = buffer.get(..length).unwrap_or(&[]);
            if u16_at(answer, 4) != ERROR {
                reply = answer.get(HEAD..).unwrap_or(&[]).to_vec();
                continue; // the acknowledgement follows
            }
            let errno = answer.get(HEAD..HEAD + 4).and_then(|bytes| bytes.try_into().ok());
            let errno = errno.map_or(GARBLED.raw(), i32::from_ne_bytes);
            return if errno == 0 { Ok(reply) } else { Err(Errno::from_raw(errno)) };
        }
    }
}

/// An attribute: length, kind, content, padded to four bytes.
pub(super) fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(4 + content.len()).unwrap_or(0).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A family of generic netlink, by name.
pub(super) struct Generic {
    socket: Netlink,
    family: u16,
}

impl Generic {
    /// Finds the family.
    pub(super) fn open(name: &std::ffi::CStr) -> Result<Self, Errno> {
        let socket = Netlink::open(libc::NETLINK_GENERIC)?;
        // include/uapi/linux/genetlink.h: GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME.
        let mut body = vec![3, 1, 0, 0];
        body.extend(attribute(2, name.to_bytes_with_nul()));
        let reply = socket.ask(16, 0, &body)?;
        let mut rest = reply.get(4..).unwrap_or(&[]);
        while rest.len() >= 4 {
            let (length, kind) = (usize::from(u16_at(rest, 0)), u16_at(rest, 2));
            if kind == 1 {
                return Ok(Self { family: u16_at(rest, 4), socket }); // CTRL_ATTR_FAMILY_ID
            }
            rest = rest.get(length.max(4).next_multiple_of(4)..).unwrap_or(&[]);
        }
        Err(Errno::ENOENT)
    }

    /// Does a command of version `version` with these attributes.
    pub(super) fn command(&self, command: u8, version: u8, attributes: &[u8]) -> Result<(), Errno> {
        let mut body = vec![command, version, 0, 0];
        body.extend(attributes);
        self.socket.ask(self.family, 0, &body).map(drop)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|it| it.try_into().ok()).map_or(0, u16::from_ne_bytes)
}
