//! Whether the label of a listening socket is there on the sockets that come of it.

use super::label::{Labels, OF_SOCKETS, Object, Op, Whom};
use super::must;
use crate::bpf::BPF_F_CLONE;
use crate::errno::Errno;
use crate::insn::Size;
use crate::session::{Attempt, Ended, Session, Stop};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

/// The listener's label, and what it is changed to afterwards.
const STORED: u64 = 42;
const CHANGED: u64 = 43;
/// A connection on this machine is there at once; how long to wait for it on one that is busy.
const PATIENCE_MS: u16 = 10_000;

/// The hooks that a connection passes on the listener's side, in that order: what is looked at, and where it is.
const HOOKS: [(&str, &str, Object); 5] = [
    ("inet_conn_request", "the listener", Object::Argument(0)),
    ("sk_clone_security", "the new socket", Object::Argument(1)),
    ("inet_csk_clone", "the new socket", Object::Argument(0)),
    ("socket_accept", "the listener", Object::Of(0, "socket", "sk")),
    ("sock_graft", "the accepted socket", Object::Argument(0)),
];

/// All of them have the listener's port, and the other end has not.
const OF_ITS_PORT: Whom = Whom::Number("sock", "__sk_common.skc_num", Size::H);

pub(super) fn accepted(session: &mut Session<'_>) -> Result<(), Stop> {
    for (kind, flags) in [("plain-map", 0), ("clone-map", BPF_F_CLONE)] {
        session.case(&format!("{kind}-by-descriptor"), |attempt| by_descriptor(attempt, flags))?;
        for hook in HOOKS {
            session.case(&format!("{kind}-{}", hook.0), |attempt| in_hook(attempt, flags, hook))?;
        }
    }
    Ok(())
}

/// What user space reads of both, before and after it changes the listener's.
fn by_descriptor(attempt: &mut Attempt<'_>, flags: u32) -> Result<(), Ended> {
    let labels = Labels::new(attempt, OF_SOCKETS, flags)?;
    let listener = labelled(&labels)?;
    see(attempt, "the listener has", &labels, &listener);
    let port = port(&listener)?;
    let (client, accepted) = attempt.trigger(|| connect(&listener, port))?;
    see(attempt, "the accepted socket has", &labels, &accepted);
    see(attempt, "the connecting socket has", &labels, &client);
    must("change the listener's label", labels.write(&listener, CHANGED))?;
    see(attempt, "the listener has, once changed", &labels, &listener);
    see(attempt, "the accepted socket has then", &labels, &accepted);
    let (_client, second) = attempt.trigger(|| connect(&listener, port))?;
    see(attempt, "a socket that is accepted then has", &labels, &second);
    Ok(())
}

/// What a program finds in a hook and changes, and whose label it has changed by that.
fn in_hook(
    attempt: &mut Attempt<'_>,
    flags: u32,
    (hook, what, object): (&str, &str, Object),
) -> Result<(), Ended> {
    let labels = Labels::new(attempt, OF_SOCKETS, flags)?;
    let mut looker = labels.looker(attempt, hook, object, OF_ITS_PORT)?;
    looker.prepare(Op::Change(CHANGED));
    let listener = labelled(&labels)?;
    let port = port(&listener)?;
    let arm = looker.arm();
    let (_client, accepted) =
        attempt.trigger(|| arm.during_mark(port.into(), || connect(&listener, port)))?;
    attempt.ran(looker.runs() > 0);
    attempt.see(&format!("{what} has"), looker.word(STORED));
    see(attempt, "after the program has changed it, the listener has", &labels, &listener);
    see(attempt, "the accepted socket has then", &labels, &accepted);
    Ok(())
}

/// Notes what user space reads by a descriptor.
fn see(attempt: &mut Attempt<'_>, key: &str, labels: &Labels, socket: &impl AsRawFd) {
    let word = match labels.read(socket) {
        Ok(STORED) => "what was stored".to_owned(),
        Ok(CHANGED) => "what it was changed to".to_owned(),
        Ok(_) => "SOMETHING ELSE".to_owned(),
        Err(errno) => errno.name(),
    };
    attempt.see(key, word);
}

fn labelled(labels: &Labels) -> Result<TcpListener, Ended> {
    let listener = must("make a listener", TcpListener::bind("127.0.0.1:0").map_err(Errno::from))?;
    must("store a label", labels.write(&listener, STORED))?;
    Ok(listener)
}

fn port(listener: &TcpListener) -> Result<u16, Ended> {
    let address = must("learn the listener's address", listener.local_addr().map_err(Errno::from))?;
    Ok(address.port())
}

/// Both ends of a new connection.
fn connect(listener: &TcpListener, port: u16) -> Result<(TcpStream, TcpStream), Ended> {
    let client = must("connect", TcpStream::connect(("127.0.0.1", port)).map_err(Errno::from))?;
    let mut waits = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    if must("wait for the connection", poll(&mut waits, PollTimeout::from(PATIENCE_MS)).map_err(Errno::from))?
        == 0
    {
        return Err(Ended::could_not("accept", "no connection has come"));
    }
    let (accepted, _) = must("accept", listener.accept().map_err(Errno::from))?;
    Ok((client, accepted))
}
