//! Labels that LSMs give to tasks and sockets, as user space asks for them.

use super::{Act, Arm, OK, Seen, act_seen, audit};
use crate::errno::Errno;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

/// `recvmsg(2)` from a local socket that wants the sender's label.
///
/// # Errors
/// The errno of making the sockets.
pub fn receive_label() -> Result<Act, Errno> {
    let (one, other) = wanting_labels()?;
    act_seen(move |arm| {
        one.send(b"x")?;
        arm.during(|| label_of_message(&other))
    })
}

/// `send(2)` to such a socket: the kernel finds out what label the sender has when it sends, and tells the receiver.
///
/// # Errors
/// The errno of making the sockets.
pub fn send_labelled() -> Result<Act, Errno> {
    let (one, other) = wanting_labels()?;
    act_seen(move |arm| {
        arm.during(|| one.send(b"x"))?;
        label_of_message(&other)
    })
}

/// Two local sockets, the second of which wants to hear the label of who sends.
fn wanting_labels() -> Result<(UnixDatagram, UnixDatagram), Errno> {
    let (one, other) = UnixDatagram::pair()?;
    let (socket, on, length): (_, i32, _) = (other.as_raw_fd(), 1, 4);
    // SAFETY: a descriptor, numbers, and an integer with its length.
    Errno::result(unsafe {
        libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_PASSSEC, (&raw const on).cast(), length)
    })?;
    Ok((one, other))
}

/// Receives a message, which must be there, and whether a label came with it.
fn label_of_message(socket: &UnixDatagram) -> Result<Seen, Errno> {
    let (mut byte, mut control) = ([0_u8; 1], [0_u64; 32]);
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    // SAFETY: null pointers and zeros are a message header.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), size_of_val(&control));
    // SAFETY: the header names two buffers with their lengths, which live across the call.
    Errno::result(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) })?;
    Ok(if message.msg_controllen == 0 { UNLABELLED } else { Seen("ok, with a label") })
}

/// The outcome in which no label is to be seen; if it is the control's, nobody's verdict on labels can be seen either.
pub const UNLABELLED: Seen = Seen("ok, no label");

/// Of two things for which the kernel makes a name of a label's number, the one that shows it: [`receive_label`], if a
/// label comes, or what audit writes of a message, which up to 6.12 asks for the same name.
///
/// # Errors
/// The errno of making the sockets.
pub fn number_to_name() -> Result<Act, Errno> {
    let mut receive = receive_label()?;
    if receive(Arm::idle())? != UNLABELLED {
        return Ok(receive);
    }
    audit::labelled_message()
}

const CURRENT: &str = "/proc/self/attr/current";

/// `read(2)` of the process's own label.
///
/// # Errors
/// None.
pub fn read_attribute() -> Result<Act, Errno> {
    act_seen(|arm| {
        let mut file = File::open(CURRENT)?;
        or_invalid(arm.during(|| file.read(&mut [0; 64])).map(drop))
    })
}

/// `write(2)` of the process's own label, in words that AppArmor takes for the one that it has.
///
/// # Errors
/// None.
pub fn write_attribute() -> Result<Act, Errno> {
    act_seen(|arm| {
        let mut file = OpenOptions::new().write(true).open(CURRENT)?;
        or_invalid(arm.during(|| file.write(b"permprofile unconfined")).map(drop))
    })
}

/// EINVAL is what the kernel says if no LSM has the hook, and what bpf says, which is asked then and no other, without a
/// program (6.6 security/security.c, security_getprocattr): nothing that a program has done.
fn or_invalid(result: std::io::Result<()>) -> Result<Seen, Errno> {
    match result.map_err(Errno::from) {
        Err(errno) if errno.raw() == libc::EINVAL => Ok(Seen("EINVAL")),
        other => other.map(|()| OK),
    }
}
