//! Which cgroup counts: the task's or the socket's, now or when it was made.

use super::bench::{NOTHING, add, inside, keep_shim, link, program};
use crate::bpf;
use crate::errno::Errno;
use crate::lsm::Attached;
use crate::rules::{Cgroup, Chain, SESSION, Site, until};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::triggers::{Act, Arm, OK, act_that, sockets};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use std::cell::RefCell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

const BIND: Site = Site { hook: "socket_bind", ret: Some(3), recipe: sockets::bind_udp };
const CREATE: Site = Site { hook: "socket_create", ret: Some(4), recipe: sockets::create };

/// Two cgroups side by side, each with a program on the site's hook that denies; this process is in neither.
struct Two {
    chain: Chain,
    one: Cgroup,
    other: Cgroup,
}

fn two(attempt: &mut Attempt<'_>, site: Site) -> Result<Two, Ended> {
    let mut chain = Chain::new(attempt, site)?;
    drop(attempt.load_lsm(&program(&site, &chain, 0, NOTHING))?);
    keep_shim(attempt, &site)?;
    let (one, other) = (Cgroup::new("one")?, Cgroup::new("other")?);
    add(attempt, &mut chain, &site, &one, NOTHING)?;
    add(attempt, &mut chain, &site, &other, NOTHING)?;
    Ok(Two { chain, one, other })
}

const NAMES: [&str; 2] = ["the program of one", "the program of the other"];

pub(super) fn outside(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("beside-and-in-the-root", |attempt| {
        let mut two = two(attempt, SESSION)?;
        let round = two.chain.round(attempt, &[0, 0]);
        attempt.see("in the root", round.words(&NAMES, false));
        round.note_grants(attempt, &[0, 0]);
        two.one.enter()?;
        let round = two.chain.round(attempt, &[1, 0]);
        attempt.see("in one, the other denies", round.words(&NAMES, false));
        round.note_grants(attempt, &[1, 0]);
        attempt.ran(two.chain.has_run());
        Ok(())
    })
}

pub(super) fn moved(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("from-one-to-the-other", |attempt| {
        let mut two = two(attempt, SESSION)?;
        two.one.enter()?;
        let round = two.chain.round(attempt, &[1, 0]);
        attempt.see("in one", round.words(&NAMES, false));
        round.note_grants(attempt, &[1, 0]);
        two.other.enter()?;
        let round = two.chain.round(attempt, &[1, 0]);
        attempt.see("in the other, which denies", round.words(&NAMES, false));
        round.note_grants(attempt, &[1, 0]);
        Cgroup::root()?.enter()?;
        let round = two.chain.round(attempt, &[1, 0]);
        attempt.see("in the root", round.words(&NAMES, false));
        round.note_grants(attempt, &[1, 0]);
        attempt.ran(two.chain.has_run());
        Ok(())
    })
}

/// A trigger that binds the socket that is in the cell, to a name of its own choice.
fn binding(cell: &Rc<RefCell<Option<OwnedFd>>>) -> Act {
    let cell = Rc::clone(cell);
    act_that(move |arm: Arm| {
        let socket = cell.borrow();
        let Some(socket) = socket.as_ref() else { return Ok(OK) };
        arm.during(|| bind(socket.as_raw_fd(), &UnixAddr::new_unnamed())).map_err(Errno::from)?;
        Ok(OK)
    })
}

fn unix_socket() -> Result<OwnedFd, Ended> {
    socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| Ended::could_not("make a socket", errno))
}

pub(super) fn socket_of_moved(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("made-in-one-bound-in-the-other", |attempt| {
        let mut two = two(attempt, BIND)?;
        let cell = Rc::new(RefCell::new(None));
        two.one.enter()?;
        *cell.borrow_mut() = Some(unix_socket()?);
        two.other.enter()?;
        let round = two.chain.round_of(attempt, &mut binding(&cell), &[0, 1]);
        attempt.see("one denies, the other allows", round.words(&NAMES, false));
        round.note_grants(attempt, &[0, 1]);
        two.one.enter()?;
        *cell.borrow_mut() = Some(unix_socket()?);
        two.other.enter()?;
        let round = two.chain.round_of(attempt, &mut binding(&cell), &[1, 0]);
        attempt.see("one allows, the other denies", round.words(&NAMES, false));
        round.note_grants(attempt, &[1, 0]);
        attempt.ran(two.chain.has_run());
        Ok(())
    })
}

pub(super) fn socket_handed_over(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("made-in-the-root-bound-in-one", |attempt| {
        let mut two = two(attempt, BIND)?;
        let cell = Rc::new(RefCell::new(Some(unix_socket()?)));
        two.one.enter()?;
        let round = two.chain.round_of(attempt, &mut binding(&cell), &[0, 0]);
        attempt.see("both deny", round.words(&NAMES, false));
        round.note_grants(attempt, &[0, 0]);
        attempt.ran(two.chain.has_run());
        attempt.denied(round.outcome == Err(Errno::EPERM));
        Ok(())
    })
}

pub(super) fn socket_create(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("in-one", |attempt| {
        let mut two = two(attempt, CREATE)?;
        two.one.enter()?;
        let round = two.chain.round(attempt, &[0, 1]);
        attempt.runs(two.chain.results.runs());
        attempt.see("one denies, the other allows", round.words(&NAMES, false));
        round.note_grants(attempt, &[0, 1]);
        Ok(())
    })
}

pub(super) fn child_made_later(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("child", |attempt| {
        let (cgroup, mut chain) = inside(attempt, SESSION)?;
        add(attempt, &mut chain, &SESSION, &cgroup, NOTHING)?;
        let child = Cgroup::new("inside/later")?;
        child.enter()?;
        let round = chain.round(attempt, &[0]);
        attempt.runs(chain.results.runs());
        attempt.denial("user space sees", &round.outcome, Errno::EPERM);
        Ok(())
    })
}

pub(super) fn root(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("in-a-child", |attempt| {
        let (_cgroup, mut chain) = inside(attempt, SESSION)?;
        add(attempt, &mut chain, &SESSION, &Cgroup::root()?, NOTHING)?;
        let round = chain.round(attempt, &[0]);
        attempt.runs(chain.results.runs());
        attempt.denial("user space sees", &round.outcome, Errno::EPERM);
        Ok(())
    })
}

pub(super) fn removed(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("with-a-live-link", |attempt| {
        let (cgroup, chain) = inside(attempt, SESSION)?;
        let program = attempt.load_lsm(&program(&SESSION, &chain, 0, NOTHING))?;
        let link = link(attempt, &program, &cgroup)?;
        Cgroup::root()?.enter()?;
        attempt.outcome("rmdir", &cgroup.remove());
        // A work queue of the kernel takes the programs off (7.3 kernel/bpf/cgroup.c, cgroup_bpf_release).
        let mut id = None;
        until(|| {
            id = bpf::link_info(&link).ok().map(|info| info.target);
            matches!(id, Some(bpf::LinkTarget::Cgroup { cgroup_id: 0, .. }))
        });
        let gone = matches!(id, Some(bpf::LinkTarget::Cgroup { cgroup_id: 0, .. }));
        let word = match id {
            _ if gone => "0",
            Some(_) => "as before",
            None => return Err(Ended::CouldNotTell("the link's information cannot be read".to_owned())),
        };
        attempt.see("the link's cgroup_id, in the end", word);
        attempt.outcome("BPF_LINK_DETACH of it", &bpf::link_detach(&link));
        attempt.outcome("BPF_LINK_UPDATE of it", &bpf::link_update(&link, &program, None));
        drop(Attached { program, link });
        Ok(())
    })
}
