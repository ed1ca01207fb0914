//! Labels made in the hook that runs when an object is allocated, and looked for in the one that runs when it is freed.

use super::label::{Labels, Looker, OF_INODES, OF_SOCKETS, OF_TASKS, Object, Op, Whom, read_word};
use super::must;
use crate::errno::Errno;
use crate::insn::Size;
use crate::rules::{in_child, start_child};
use crate::session::{Attempt, Ended, Session, Stop};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use nix::sys::wait::waitpid;
use std::fs::{File, OpenOptions, remove_file};
use std::os::fd::{AsRawFd, OwnedFd};

/// What is stored, and what the parent has.
const STORED: u64 = 42;
const PARENTS: u64 = 7;
const FILE: &str = "/tmp/born";

const FIRST: Object = Object::Argument(0);
const OPENED: Object = Object::Of(0, "file", "f_inode");
const OF_SOCKET: Object = Object::Of(0, "socket", "sk");

fn open() -> Result<File, Errno> {
    File::open(FILE).map_err(Errno::from)
}

fn make_file() -> Result<File, Errno> {
    let new = OpenOptions::new().read(true).write(true).create_new(true).open(FILE);
    new.map_err(Errno::from)
}

fn unix() -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map_err(Errno::from)
}

/// Notes what `death` found in the object that it acted for, which is to be freed by now.
fn see_death(attempt: &mut Attempt<'_>, death: &Looker, what: &str) -> Result<(), Ended> {
    if death.runs() == 0 {
        return Err(Ended::could_not("see the object freed", "the program did not run"));
    }
    attempt.runs(death.runs());
    attempt.see(what, death.word(STORED));
    Ok(())
}

/// Labels of a child: made by its maker's call of `task_alloc`, or not, or before its end.
pub(super) fn task(session: &mut Session<'_>) -> Result<(), Stop> {
    // A map that ends is taken apart by a worker, with the values in it. A program that comes to the owner's last value
    // just then makes none (6.10 kernel/bpf/bpf_local_storage.c, bpf_local_storage_update: EAGAIN), and the parent is the
    // owner in several cases.
    let mut kept = Vec::new();
    for (name, op) in [("made-in-task_alloc", Op::Make(STORED)), ("not-made-in-task_alloc", Op::Look)] {
        session.case(name, |attempt| task_alloc(attempt, op, &mut kept))?;
    }
    session.case("without-a-program-on-task_alloc", |attempt| {
        must("make a file", std::fs::write(FILE, b"x").map_err(Errno::from))?;
        let labels = Labels::new(attempt, OF_TASKS, 0)?;
        let mut own = labels.looker(attempt, "file_open", Object::Current, Whom::Caller)?;
        inheriting(attempt, &mut own, |own| {
            let arm = own.arm();
            in_child(|| drop(arm.during(open)))
        })?;
        kept.push(labels);
        Ok(())
    })?;
    for (name, op) in [("looked-for-in-task_free", Op::Look), ("made-in-task_free", Op::Make(STORED))] {
        session.case(name, |attempt| task_free(attempt, op))?;
    }
    Ok(())
}

/// The parent has a label of its own; does `act`, in which a child runs the program of the hook that comes next, and notes
/// what both have.
fn inheriting(
    attempt: &mut Attempt<'_>,
    own: &mut Looker,
    act: impl FnOnce(&mut Looker) -> Result<(), Ended>,
) -> Result<(), Ended> {
    must("open the file", own.during(attempt, Op::Make(PARENTS), open))?;
    own.prepare(Op::Look);
    attempt.trigger(|| act(own))?;
    attempt.see("the child reads in a hook that it calls", own.word(STORED));
    must("open the file", own.during(attempt, Op::Look, open))?;
    attempt.see("the parent reads of its own label", own.word(PARENTS));
    Ok(())
}

fn task_alloc(attempt: &mut Attempt<'_>, op: Op, kept: &mut Vec<Labels>) -> Result<(), Ended> {
    must("make a file", std::fs::write(FILE, b"x").map_err(Errno::from))?;
    let labels = Labels::new(attempt, OF_TASKS, 0)?;
    let mut own = labels.looker(attempt, "file_open", Object::Current, Whom::Caller)?;
    let mut birth = labels.looker(attempt, "task_alloc", FIRST, Whom::Caller)?;
    birth.prepare(op);
    let arm = birth.arm();
    inheriting(attempt, &mut own, |own| {
        let its = own.arm();
        let child = arm.during(|| {
            start_child(|| {
                drop(its.during(open));
            })
        })?;
        waitpid(child, None).map(drop).map_err(|errno| Ended::could_not("wait for the child", errno))
    })?;
    attempt.runs(birth.runs());
    attempt.see("task_alloc finds", birth.word(STORED));
    kept.push(labels);
    Ok(())
}

fn task_free(attempt: &mut Attempt<'_>, op: Op) -> Result<(), Ended> {
    must("make a file", std::fs::write(FILE, b"x").map_err(Errno::from))?;
    let labels = Labels::new(attempt, OF_TASKS, 0)?;
    let mut own = labels.looker(attempt, "file_open", Object::Current, Whom::Caller)?;
    let tgid = Whom::Number("task_struct", "tgid", Size::W);
    let mut death = labels.looker(attempt, "task_free", FIRST, tgid)?;
    own.prepare(if matches!(op, Op::Look) { Op::Make(STORED) } else { Op::Look });
    death.prepare(op);
    let (its, arm) = (own.arm(), death.arm());
    attempt.trigger(|| {
        let child = start_child(|| drop(its.during(open)))?;
        // It is not freed before it is waited for.
        let ended = arm.freeing(child.as_raw().unsigned_abs().into(), || waitpid(child, None));
        ended.map(drop).map_err(|errno| Ended::could_not("wait for the child", errno))
    })?;
    attempt.see("the child's own hook finds", own.word(STORED));
    see_death(attempt, &death, "task_free finds")
}

/// Labels of a file's inode.
pub(super) fn inode(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("made-in-inode_alloc_security", |attempt| inode_birth(attempt, "inode_alloc_security"))?;
    for (name, op) in
        [("looked-for-in-inode_free_security", Op::Look), ("made-in-inode_free_security", Op::Make(STORED))]
    {
        session.case(name, |attempt| inode_free(attempt, op))?;
    }
    Ok(())
}

/// The same of the hook that gives an inode its first label, where an LSM that labels files is active.
pub(super) fn inode_with_labels(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("made-in-inode_init_security", |attempt| inode_birth(attempt, "inode_init_security"))
}

/// A new file, opened by the call that makes it.
fn inode_birth(attempt: &mut Attempt<'_>, hook: &str) -> Result<(), Ended> {
    let _ = remove_file(FILE);
    let labels = Labels::new(attempt, OF_INODES, 0)?;
    let mut own = labels.looker(attempt, "file_open", OPENED, Whom::Caller)?;
    let mut birth = labels.looker(attempt, hook, FIRST, Whom::Caller)?;
    own.prepare(Op::Look);
    birth.prepare(Op::Make(STORED));
    let (first, then) = (birth.arm(), own.arm());
    let file = attempt.trigger(|| first.during(|| then.during(make_file)));
    let file = must("make a file", file)?;
    attempt.runs(birth.runs());
    attempt.see(&format!("{hook} finds"), birth.word(STORED));
    attempt.see("file_open finds", own.word(STORED));
    attempt.see("user space reads", read_word(&labels.read(&file), STORED));
    must("remove the file", remove_file(FILE).map_err(Errno::from))
}

/// A file that is removed and closed.
fn inode_free(attempt: &mut Attempt<'_>, op: Op) -> Result<(), Ended> {
    let _ = remove_file(FILE);
    let labels = Labels::new(attempt, OF_INODES, 0)?;
    let mut own = labels.looker(attempt, "file_open", OPENED, Whom::Caller)?;
    let mut death = labels.looker(attempt, "inode_free_security", FIRST, Whom::Address)?;
    let before = if matches!(op, Op::Look) { Op::Make(STORED) } else { Op::Look };
    let file = must("make a file", own.during(attempt, before, make_file))?;
    attempt.see("file_open finds", own.word(STORED));
    death.prepare(op);
    let arm = death.arm();
    let let_go = || {
        drop(file);
        remove_file(FILE)
    };
    attempt
        .trigger(|| arm.freeing(own.address(), let_go))
        .map_err(|error| Ended::could_not("remove the file", error))?;
    see_death(attempt, &death, "inode_free_security finds")
}

/// Labels of a socket.
pub(super) fn socket_of_unix(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("made-in-sk_alloc_security", |attempt| socket_birth(attempt, "sk_alloc_security", FIRST))?;
    session.case("made-in-socket_post_create", |attempt| {
        socket_birth(attempt, "socket_post_create", OF_SOCKET)
    })?;
    session.case("looked-for-in-sk_free_security", |attempt| socket_free(attempt, Op::Look, false))?;
    session
        .case("looked-for-before-and-in-sk_free_security", |attempt| socket_free(attempt, Op::Look, true))?;
    session.case("made-in-sk_free_security", |attempt| socket_free(attempt, Op::Make(STORED), false))
}

fn bind_it(socket: &OwnedFd) {
    // What comes of it is not asked: the hook comes first, also when it is bound already.
    let _ = bind(socket.as_raw_fd(), &UnixAddr::new_unnamed());
}

/// A new socket, then bound.
fn socket_birth(attempt: &mut Attempt<'_>, hook: &str, object: Object) -> Result<(), Ended> {
    let labels = Labels::new(attempt, OF_SOCKETS, 0)?;
    let mut own = labels.looker(attempt, "socket_bind", OF_SOCKET, Whom::Caller)?;
    let mut birth = labels.looker(attempt, hook, object, Whom::Caller)?;
    let made = must("make a socket", birth.during(attempt, Op::Make(STORED), unix))?;
    own.during(attempt, Op::Look, || bind_it(&made));
    attempt.runs(birth.runs());
    attempt.see(&format!("{hook} finds"), birth.word(STORED));
    attempt.see("socket_bind finds", own.word(STORED));
    attempt.see("user space reads", read_word(&labels.read(&made), STORED));
    Ok(())
}

/// A socket that is closed.
fn socket_free(attempt: &mut Attempt<'_>, op: Op, looked_for: bool) -> Result<(), Ended> {
    let labels = Labels::new(attempt, OF_SOCKETS, 0)?;
    let mut own = labels.looker(attempt, "socket_bind", OF_SOCKET, Whom::Caller)?;
    let mut death = labels.looker(attempt, "sk_free_security", FIRST, Whom::Address)?;
    let made = must("make a socket", unix())?;
    let before = if matches!(op, Op::Look) { Op::Make(STORED) } else { Op::Look };
    own.during(attempt, before, || bind_it(&made));
    attempt.see("socket_bind finds", own.word(STORED));
    if looked_for {
        own.during(attempt, Op::Look, || bind_it(&made));
        attempt.see("socket_bind finds, the second time", own.word(STORED));
    }
    death.prepare(op);
    let arm = death.arm();
    attempt.trigger(|| arm.freeing(own.address(), || drop(made)));
    see_death(attempt, &death, "sk_free_security finds")
}
