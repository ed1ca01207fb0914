//! The flags of attaching to a cgroup, and what they make of several programs.

use super::bench::{NOTHING, add, inside, program, rounds};
use crate::bpf::{
    self, BPF_F_AFTER, BPF_F_ALLOW_MULTI, BPF_F_ALLOW_OVERRIDE, BPF_F_BEFORE, BPF_F_ID, BPF_F_LINK,
    BPF_F_PREORDER, BPF_F_REPLACE, BPF_LSM_CGROUP,
};
use crate::errno::Errno;
use crate::lsm::Attached;
use crate::record::Phase;
use crate::rules::{Cgroup, Chain, NTH, SESSION, outcome_word};
use crate::session::{Attempt, Ended, Session, Stop};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Sets of flags, and their names.
const FLAGS: &[(&str, u32)] = &[
    ("none", 0),
    ("allow-override", BPF_F_ALLOW_OVERRIDE),
    ("allow-multi", BPF_F_ALLOW_MULTI),
    ("allow-override-and-multi", BPF_F_ALLOW_OVERRIDE | BPF_F_ALLOW_MULTI),
    ("replace-alone", BPF_F_REPLACE),
    ("allow-multi-and-preorder", BPF_F_ALLOW_MULTI | BPF_F_PREORDER),
    ("allow-multi-and-before", BPF_F_ALLOW_MULTI | BPF_F_BEFORE),
    ("allow-multi-and-after", BPF_F_ALLOW_MULTI | BPF_F_AFTER),
    ("unknown", 1 << 30),
];

/// The same for a link, whose program the kernel takes for one of several by itself (7.3 kernel/bpf/cgroup.c,
/// BPF_F_LINK_ATTACH_MASK).
const LINK_FLAGS: &[(&str, u32)] = &[
    ("none", 0),
    ("allow-override", BPF_F_ALLOW_OVERRIDE),
    ("allow-multi", BPF_F_ALLOW_MULTI),
    ("replace", BPF_F_REPLACE),
    ("preorder", BPF_F_PREORDER),
    ("before", BPF_F_BEFORE),
    ("after", BPF_F_AFTER),
    ("before-and-preorder", BPF_F_BEFORE | BPF_F_PREORDER),
    ("allow-multi-and-preorder", BPF_F_ALLOW_MULTI | BPF_F_PREORDER),
    ("allow-multi-and-before", BPF_F_ALLOW_MULTI | BPF_F_BEFORE),
    ("allow-multi-and-after", BPF_F_ALLOW_MULTI | BPF_F_AFTER),
    ("unknown", 1 << 30),
];

/// Loads the next program of the chain, without attaching it.
fn load(attempt: &mut Attempt<'_>, chain: &Chain, number: i32) -> Result<OwnedFd, Ended> {
    attempt.load_lsm(&program(&SESSION, chain, number, NOTHING))
}

/// BPF_PROG_ATTACH; what was attached is taken off when this is dropped.
struct Put<'a> {
    program: &'a OwnedFd,
    cgroup: &'a Cgroup,
}

fn put<'a>(
    program: &'a OwnedFd,
    cgroup: &'a Cgroup,
    flags: u32,
    other: Option<&OwnedFd>,
) -> Result<Put<'a>, Errno> {
    let target = cgroup.as_fd().as_raw_fd();
    bpf::prog_attach_raw(program, target, BPF_LSM_CGROUP, flags, other.map(AsRawFd::as_raw_fd))?;
    Ok(Put { program, cgroup })
}

impl Drop for Put<'_> {
    fn drop(&mut self) {
        let _ = bpf::prog_detach_raw(self.program, self.cgroup.as_fd().as_raw_fd(), BPF_LSM_CGROUP);
    }
}

pub(super) fn prog_attach(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("each", |attempt| {
        let (cgroup, chain) = inside(attempt, SESSION)?;
        let program = load(attempt, &chain, 0)?;
        attempt.at(Phase::Attach);
        for &(name, flags) in FLAGS {
            attempt.see(name, outcome_word(&put(&program, &cgroup, flags, None)));
        }
        Ok(())
    })
}

pub(super) fn link_create(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("each", |attempt| {
        let (cgroup, chain) = inside(attempt, SESSION)?;
        let program = load(attempt, &chain, 0)?;
        attempt.at(Phase::Attach);
        for &(name, flags) in LINK_FLAGS {
            attempt.see(name, outcome_word(&tie(&program, &cgroup, flags, 0)));
        }
        Ok(())
    })?;
    session.case("beside-another", link_beside)?;
    for (name, flag, anchor) in BESIDE {
        session.case(name, |attempt| order_of_links(attempt, flag | BPF_F_LINK, Some(anchor)))?;
    }
    session.case("before-all", |attempt| order_of_links(attempt, BPF_F_BEFORE, None))?;
    session.case("after-all", |attempt| order_of_links(attempt, BPF_F_AFTER, None))?;
    session.case("ancestor-with-preorder", |attempt| {
        let (cgroup, mut chain) = inside(attempt, SESSION)?;
        let child = Cgroup::new("inside/child")?;
        for (number, place, flags) in [(0, &cgroup, BPF_F_PREORDER), (1, &child, 0)] {
            let program = load(attempt, &chain, number)?;
            let link = attempt.calls(Phase::Attach, tie(&program, place, flags, 0))?;
            chain.attached.push(Some(Attached { program, link }));
        }
        child.enter()?;
        rounds(attempt, &mut chain, &["the ancestor's", "the child's"], &[vec![1, 1]]);
        Ok(())
    })
}

/// BPF_LINK_CREATE; `other` is the link or program that the flags refer to, by descriptor or id, whose field is that of
/// a BTF id with other programs.
fn tie(program: &OwnedFd, cgroup: &Cgroup, flags: u32, other: u32) -> Result<OwnedFd, Errno> {
    bpf::link_create_raw(program, cgroup.as_fd().as_raw_fd(), BPF_LSM_CGROUP, flags, other)
}

fn field(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// What a link may name as the one that it goes before or after.
fn link_beside(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    let (cgroup, chain) = inside(attempt, SESSION)?;
    let (first, second) = (load(attempt, &chain, 0)?, load(attempt, &chain, 1)?);
    let link = attempt.calls(Phase::Attach, tie(&first, &cgroup, 0, 0))?;
    let id = attempt.calls(Phase::Read, bpf::link_info(&link))?.id;
    attempt.at(Phase::Attach);
    for (name, flags, other) in [
        ("before-a-link", BPF_F_BEFORE | BPF_F_LINK, field(&link)),
        ("before-a-link-by-id", BPF_F_BEFORE | BPF_F_LINK | BPF_F_ID, id),
        ("before-a-link-with-preorder", BPF_F_BEFORE | BPF_F_LINK | BPF_F_PREORDER, field(&link)),
        ("before-a-program", BPF_F_BEFORE, field(&first)),
        ("before-and-after-a-link", BPF_F_BEFORE | BPF_F_AFTER | BPF_F_LINK, field(&link)),
        ("beside-a-link-neither-before-nor-after", BPF_F_LINK, field(&link)),
        ("before-and-after", BPF_F_BEFORE | BPF_F_AFTER, 0),
    ] {
        attempt.see(name, outcome_word(&tie(&second, &cgroup, flags, other)));
    }
    Ok(())
}

/// Places between two programs, by the one of them that is named: before the first and after the last are where a program
/// comes with the flag alone (7.3 kernel/bpf/cgroup.c, get_prog_list).
const BESIDE: [(&str, u32, usize); 2] =
    [("before-the-second", BPF_F_BEFORE, 1), ("after-the-first", BPF_F_AFTER, 0)];

/// Two links, and a third with these flags, beside the one with the number `anchor` if they refer to one.
fn order_of_links(attempt: &mut Attempt<'_>, flags: u32, anchor: Option<usize>) -> Result<(), Ended> {
    let (cgroup, mut chain) = inside(attempt, SESSION)?;
    for number in 0..3 {
        let program = load(attempt, &chain, number)?;
        let anchor = anchor.and_then(|anchor| chain.attached.get(anchor)?.as_ref());
        let (flags, other) = match number {
            2 => (flags, anchor.map_or(0, |anchor| field(&anchor.link))),
            _ => (0, 0),
        };
        let link = attempt.calls(Phase::Attach, tie(&program, &cgroup, flags, other))?;
        chain.attached.push(Some(Attached { program, link }));
    }
    rounds(attempt, &mut chain, &NTH, &[vec![1, 1, 1]]);
    Ok(())
}

/// The pairs of flags that mean anything to each other.
const KINDS: &[(&str, u32)] =
    &[("none", 0), ("override", BPF_F_ALLOW_OVERRIDE), ("multi", BPF_F_ALLOW_MULTI)];

pub(super) fn second(session: &mut Session<'_>) -> Result<(), Stop> {
    pairs(session, |cgroup| Ok((cgroup.again()?, false)))
}

pub(super) fn child(session: &mut Session<'_>) -> Result<(), Stop> {
    pairs(session, |_| Ok((Cgroup::new("inside/child")?, true)))
}

/// Attaches a program with each kind of flags, then another with each kind to the cgroup that `place` gives.
fn pairs(
    session: &mut Session<'_>,
    place: impl Fn(&Cgroup) -> Result<(Cgroup, bool), Ended>,
) -> Result<(), Stop> {
    for &(first_name, first_flags) in KINDS {
        session.case(&format!("after-{first_name}"), |attempt| {
            let (cgroup, mut chain) = inside(attempt, SESSION)?;
            let (first, second) = (load(attempt, &chain, 0)?, load(attempt, &chain, 1)?);
            let (target, entered) = place(&cgroup)?;
            if entered {
                target.enter()?;
            }
            for &(name, flags) in KINDS {
                let below = put(&first, &cgroup, first_flags, None);
                let above = put(&second, &target, flags, None);
                let attached = outcome_word(&above);
                let round = chain.round(attempt, &[1, 1]);
                let seen = round.words(&NTH, false);
                attempt.see(name, format!("the second gets {attached}; {seen}"));
                drop(above);
                drop(below);
            }
            attempt.ran(chain.has_run());
            Ok(())
        })?;
    }
    Ok(())
}

pub(super) fn replace(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("two-and-a-third", |attempt| {
        let (cgroup, mut chain) = inside(attempt, SESSION)?;
        let mut programs = Vec::new();
        for number in 0..3 {
            programs.push(load(attempt, &chain, number)?);
        }
        let first = put(&programs[0], &cgroup, BPF_F_ALLOW_MULTI, None);
        let _first = attempt.calls(Phase::Attach, first)?;
        let second = put(&programs[1], &cgroup, BPF_F_ALLOW_MULTI, None);
        let _second = attempt.calls(Phase::Attach, second)?;
        let round = chain.round(attempt, &[1, 1, 1]);
        attempt.see("before", round.words(&NTH, false));
        let third = put(&programs[2], &cgroup, BPF_F_ALLOW_MULTI | BPF_F_REPLACE, Some(&programs[0]));
        attempt.outcome("the third in the place of the first", &third);
        let round = chain.round(attempt, &[1, 1, 1]);
        attempt.see("after", round.words(&NTH, false));
        let gone = put(&programs[0], &cgroup, BPF_F_ALLOW_MULTI | BPF_F_REPLACE, Some(&programs[0]));
        attempt.outcome("in the place of one that is not there", &gone);
        attempt.ran(chain.has_run());
        Ok(())
    })
}

pub(super) fn preorder(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("ancestor-with-preorder", |attempt| {
        let (cgroup, mut chain) = inside(attempt, SESSION)?;
        let child = Cgroup::new("inside/child")?;
        let (first, second) = (load(attempt, &chain, 0)?, load(attempt, &chain, 1)?);
        let above = put(&first, &cgroup, BPF_F_ALLOW_MULTI | BPF_F_PREORDER, None);
        let _above = attempt.calls(Phase::Attach, above)?;
        let below = put(&second, &child, BPF_F_ALLOW_MULTI, None);
        let _below = attempt.calls(Phase::Attach, below)?;
        child.enter()?;
        rounds(attempt, &mut chain, &["the ancestor's", "the child's"], &[vec![1, 1]]);
        Ok(())
    })
}

pub(super) fn before_and_after(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, flag, anchor) in BESIDE {
        session.case(name, |attempt| {
            let (cgroup, mut chain) = inside(attempt, SESSION)?;
            let mut programs = Vec::new();
            for number in 0..3 {
                programs.push(load(attempt, &chain, number)?);
            }
            let first = put(&programs[0], &cgroup, BPF_F_ALLOW_MULTI, None);
            let _first = attempt.calls(Phase::Attach, first)?;
            let second = put(&programs[1], &cgroup, BPF_F_ALLOW_MULTI, None);
            let _second = attempt.calls(Phase::Attach, second)?;
            let third = put(&programs[2], &cgroup, BPF_F_ALLOW_MULTI | flag, programs.get(anchor));
            let _third = attempt.calls(Phase::Attach, third)?;
            rounds(attempt, &mut chain, &NTH, &[vec![1, 1, 1]]);
            Ok(())
        })?;
    }
    Ok(())
}

pub(super) fn twice(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("prog-attach-to-one-cgroup", |attempt| {
        let (cgroup, chain) = inside(attempt, SESSION)?;
        let program = load(attempt, &chain, 0)?;
        let once = put(&program, &cgroup, BPF_F_ALLOW_MULTI, None);
        let _once = attempt.calls(Phase::Attach, once)?;
        let again = put(&program, &cgroup, BPF_F_ALLOW_MULTI, None);
        attempt.calls(Phase::Attach, again).map(drop)
    })?;
    session.case("link-create-to-one-cgroup", |attempt| {
        let (cgroup, chain) = inside(attempt, SESSION)?;
        let program = load(attempt, &chain, 0)?;
        let _once = super::bench::link(attempt, &program, &cgroup)?;
        super::bench::link(attempt, &program, &cgroup).map(drop)
    })?;
    session.case("to-a-cgroup-and-its-child", |attempt| {
        let (cgroup, mut chain) = inside(attempt, SESSION)?;
        let child = Cgroup::new("inside/child")?;
        let program = load(attempt, &chain, 0)?;
        let _once = super::bench::link(attempt, &program, &cgroup)?;
        let _again = super::bench::link(attempt, &program, &child)?;
        child.enter()?;
        let _round = chain.round(attempt, &[1]);
        attempt.runs(chain.results.runs());
        Ok(())
    })?;
    session.case("a-link-and-prog-attach", |attempt| {
        let (cgroup, mut chain) = inside(attempt, SESSION)?;
        add(attempt, &mut chain, &SESSION, &cgroup, NOTHING)?;
        let other = load(attempt, &chain, 1)?;
        attempt.at(Phase::Attach);
        for &(name, flags) in KINDS {
            attempt.see(name, outcome_word(&put(&other, &cgroup, flags, None)));
        }
        Ok(())
    })
}
