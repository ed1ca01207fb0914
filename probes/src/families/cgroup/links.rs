//! Links to cgroups, and attachments without one.

use super::bench::{NOTHING, add, inside, link, program};
use crate::bpf::{self, BPF_F_ALLOW_MULTI, BPF_F_QUERY_EFFECTIVE, BPF_LSM_CGROUP, LinkTarget};
use crate::errno::Errno;
use crate::record::Phase;
use crate::rules::{Cgroup, SESSION, Site};
use crate::session::{Session, Stop};
use std::os::fd::{AsFd, AsRawFd};

pub(super) fn info(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("fields", |attempt| {
        let (cgroup, chain) = inside(attempt, SESSION)?;
        let program = attempt.load_lsm(&program(&SESSION, &chain, 0, NOTHING))?;
        let link = link(attempt, &program, &cgroup)?;
        let info = attempt.calls(Phase::Read, bpf::link_info(&link))?;
        attempt.see("type", bpf::name_in(bpf::LINK_TYPES, info.link_type).unwrap_or("unknown"));
        if let LinkTarget::Cgroup { cgroup_id, attach_type } = info.target {
            attempt.same("cgroup_id", cgroup_id, cgroup.id()?);
            attempt.see("attach_type", bpf::name_in(bpf::ATTACH_TYPES, attach_type).unwrap_or("unknown"));
        }
        let prog = attempt.calls(Phase::Read, bpf::prog_info(&program))?;
        attempt.holds("prog_id is the program's", info.prog_id == prog.id);
        Ok(())
    })
}

pub(super) fn detach(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("link-detach", |attempt| {
        let (cgroup, mut chain) = inside(attempt, SESSION)?;
        let program = attempt.load_lsm(&program(&SESSION, &chain, 0, NOTHING))?;
        let link = link(attempt, &program, &cgroup)?;
        let round = chain.round(attempt, &[0]);
        attempt.denial("before", &round.outcome, Errno::EPERM);
        let detached = bpf::link_detach(&link);
        attempt.outcome("BPF_LINK_DETACH", &detached);
        let round = chain.round(attempt, &[0]);
        attempt.outcome("after", &round.outcome);
        attempt.outcome("BPF_LINK_DETACH once more", &bpf::link_detach(&link));
        attempt.runs(chain.results.runs());
        Ok(())
    })
}

pub(super) fn update(session: &mut Session<'_>) -> Result<(), Stop> {
    let other_hook = Site { hook: "task_getpgid", ..SESSION };
    for (name, site) in [("same-hook", SESSION), ("other-hook-of-the-same-prototype", other_hook)] {
        session.case(name, |attempt| {
            let (cgroup, mut chain) = inside(attempt, SESSION)?;
            let old = attempt.load_lsm(&program(&SESSION, &chain, 0, NOTHING))?;
            let new = attempt.load_lsm(&program(&site, &chain, 1, NOTHING))?;
            let link = link(attempt, &old, &cgroup)?;
            let updated = bpf::link_update(&link, &new, None);
            attempt.outcome("BPF_LINK_UPDATE", &updated);
            let round = chain.round(attempt, &[0, 0]);
            attempt.see("after", round.words(&["the old one", "the new one"], false));
            round.note_grants(attempt, &[0, 0]);
            if updated.is_ok() {
                let wrong = bpf::link_update(&link, &old, Some(old.as_fd()));
                attempt.outcome("with BPF_F_REPLACE naming one that is not there", &wrong);
            }
            attempt.ran(chain.has_run());
            Ok(())
        })?;
    }
    Ok(())
}

pub(super) fn prog_detach(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("of-prog-attach", |attempt| {
        let (cgroup, mut chain) = inside(attempt, SESSION)?;
        let program = attempt.load_lsm(&program(&SESSION, &chain, 0, NOTHING))?;
        let target = cgroup.as_fd().as_raw_fd();
        let attached = bpf::prog_attach_raw(&program, target, BPF_LSM_CGROUP, BPF_F_ALLOW_MULTI, None);
        attempt.calls(Phase::Attach, attached)?;
        let round = chain.round(attempt, &[0]);
        attempt.denial("before", &round.outcome, Errno::EPERM);
        attempt.outcome("BPF_PROG_DETACH", &bpf::prog_detach_raw(&program, target, BPF_LSM_CGROUP));
        let round = chain.round(attempt, &[0]);
        attempt.outcome("after", &round.outcome);
        attempt.runs(chain.results.runs());
        Ok(())
    })?;
    session.case("of-a-link", |attempt| {
        let (cgroup, mut chain) = inside(attempt, SESSION)?;
        let program = attempt.load_lsm(&program(&SESSION, &chain, 0, NOTHING))?;
        let _link = link(attempt, &program, &cgroup)?;
        let target = cgroup.as_fd().as_raw_fd();
        attempt.outcome("BPF_PROG_DETACH", &bpf::prog_detach_raw(&program, target, BPF_LSM_CGROUP));
        let round = chain.round(attempt, &[0]);
        attempt.denial("after", &round.outcome, Errno::EPERM);
        attempt.runs(chain.results.runs());
        Ok(())
    })
}

pub(super) fn query(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("cgroup-and-child", |attempt| {
        let (cgroup, mut chain) = inside(attempt, SESSION)?;
        let child = Cgroup::new("inside/child")?;
        add(attempt, &mut chain, &SESSION, &cgroup, NOTHING)?;
        add(attempt, &mut chain, &SESSION, &child, NOTHING)?;
        attempt.at(Phase::Read);
        for (key, target, flags, room) in [
            ("the cgroup, no room for flags", &cgroup, 0, false),
            ("the cgroup", &cgroup, 0, true),
            ("the child", &child, 0, true),
            ("the child, effective, no room for flags", &child, BPF_F_QUERY_EFFECTIVE, false),
            ("the child, effective, room for flags", &child, BPF_F_QUERY_EFFECTIVE, true),
        ] {
            let listed = bpf::prog_query(target.as_fd().as_raw_fd(), BPF_LSM_CGROUP, flags, room);
            let text = match listed {
                Ok(listed) => format!("{} programs, flags {:?}", listed.programs.len(), listed.each),
                Err(errno) => errno.name(),
            };
            attempt.see(key, text);
        }
        Ok(())
    })
}

pub(super) fn closed(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("at-once", |attempt| {
        let (cgroup, mut chain) = inside(attempt, SESSION)?;
        add(attempt, &mut chain, &SESSION, &cgroup, NOTHING)?;
        let round = chain.round(attempt, &[0]);
        attempt.denial("with the link", &round.outcome, Errno::EPERM);
        chain.detach(0);
        let round = chain.round(attempt, &[0]);
        attempt.outcome("after it is closed", &round.outcome);
        attempt.runs(chain.results.runs());
        Ok(())
    })
}
