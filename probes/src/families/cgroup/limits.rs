//! How many, and on which hooks.

use super::bench::{NOTHING, inside, link, program};
use crate::asm::Asm;
use crate::bpf::{self, BPF_LSM_CGROUP, BPF_LSM_MAC, BPF_PROG_TYPE_LSM, ProgSpec};
use crate::insn::Reg;
use crate::record::Phase;
use crate::rules::{Cgroup, Chain, SESSION, Site, insns, until};
use crate::session::{Ended, Session, Stop};

/// Hooks whose first argument is no socket: all act on the task's cgroup, as others do in effect (7.3 kernel/bpf/bpf_lsm.c,
/// `bpf_lsm_find_cgroup_shim`, compares a pointer's type with those of the structures).
const HOOKS: [&str; 13] = [
    "task_getsid",
    "task_getpgid",
    "task_setpgid",
    "task_getioprio",
    "task_setioprio",
    "task_setnice",
    "task_getscheduler",
    "task_setscheduler",
    "task_movememory",
    "task_prlimit",
    "ptrace_traceme",
    "capget",
    "syslog",
];

pub(super) fn programs(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("one-cgroup", |attempt| {
        let (cgroup, chain) = inside(attempt, SESSION)?;
        let mut links = Vec::new();
        for _ in 0..100 {
            let program = attempt.load_lsm(&program(&SESSION, &chain, 0, NOTHING))?;
            match link(attempt, &program, &cgroup) {
                Ok(link) => links.push(link),
                Err(refused) => {
                    attempt.see("attached", links.len());
                    return Err(refused);
                }
            }
        }
        attempt.see("attached", links.len());
        Ok(())
    })
}

pub(super) fn hooks(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("one-after-the-other", |attempt| {
        let (cgroup, chain) = inside(attempt, SESSION)?;
        let other = Cgroup::new("other")?;
        let site = |hook| Site { hook, ..SESSION };
        let mut links = Vec::new();
        let mut refusal = None;
        for hook in HOOKS {
            let program = attempt.load_lsm(&program(&site(hook), &chain, 0, NOTHING))?;
            match link(attempt, &program, &cgroup) {
                Ok(link) => links.push(link),
                Err(refused) => {
                    refusal = Some((program, refused));
                    break;
                }
            }
        }
        attempt.see("hooks", links.len());
        let Some((waiting, refused)) = refusal else { return Ok(()) };
        let second = attempt.load_lsm(&program(&SESSION, &chain, 0, NOTHING))?;
        attempt.outcome("a second program on one of them", &link_word(&second, &cgroup));
        attempt.outcome("one of them in another cgroup", &link_word(&second, &other));
        let mac = attempt.load_lsm(&crate::rules::member(&site(HOOKS[12]), &chain.results, 0))?;
        attempt
            .outcome("a program of BPF_LSM_MAC on one more hook", &bpf::raw_tracepoint_open(&mac, None, 0));
        drop(links.pop());
        // A place is given back when the last program's shim is freed, which is after a grace period (7.3
        // kernel/bpf/core.c, bpf_prog_free_deferred).
        let mut later = link_word(&waiting, &cgroup);
        until(|| {
            if later.is_err() {
                later = link_word(&waiting, &cgroup);
            }
            later.is_ok()
        });
        attempt.outcome("one more hook after one is given back, in the end", &later);
        attempt.at(Phase::Attach);
        Err(refused)
    })
}

fn link_word(
    program: &std::os::fd::OwnedFd,
    cgroup: &Cgroup,
) -> Result<std::os::fd::OwnedFd, crate::errno::Errno> {
    use std::os::fd::{AsFd, AsRawFd};
    bpf::link_create_raw(program, cgroup.as_fd().as_raw_fd(), BPF_LSM_CGROUP, 0, 0)
}

/// Loads `return 1`, `return 0` for every hook with both attach types, and lists where the answers differ.
pub(super) fn refused(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("every-hook", |attempt| {
        let chain = Chain::new(attempt, SESSION)?;
        drop(attempt.load_lsm(&program(&SESSION, &chain, 0, NOTHING))?);
        let btf = attempt.btf()?;
        let mut hooks: Vec<(u32, String)> = btf
            .functions()
            .filter_map(|(id, name)| Some((id, name.strip_prefix("bpf_lsm_")?.to_owned())))
            .collect();
        hooks.sort_unstable_by(|left, right| left.1.cmp(&right.1));
        let (mut mac_only, mut cgroup_only, mut both) = (Vec::new(), Vec::new(), 0_u32);
        for (id, name) in hooks {
            let mac = loads(id, BPF_LSM_MAC, 0)?;
            // Whether 1 or another number is right depends on the hook; both are refused where the type is.
            let cgroup = loads(id, BPF_LSM_CGROUP, 1)? || loads(id, BPF_LSM_CGROUP, 0)?;
            match (mac, cgroup) {
                (true, false) => mac_only.push(name),
                (false, true) => cgroup_only.push(name),
                (true, true) => both += 1,
                (false, false) => {}
            }
        }
        attempt.holds("most hooks take both", both > 100);
        attempt.see("BPF_LSM_MAC only", mac_only);
        attempt.see("BPF_LSM_CGROUP only", cgroup_only);
        Ok(())
    })
}

fn loads(id: u32, attach_type: u32, verdict: i32) -> Result<bool, Ended> {
    let mut asm = Asm::new();
    asm.mov_imm(Reg::R0, verdict).exit();
    let spec = ProgSpec {
        expected_attach_type: attach_type,
        attach_btf_id: id,
        ..ProgSpec::new(BPF_PROG_TYPE_LSM, "every", insns(&asm)?)
    };
    Ok(bpf::prog_load(&spec, 0).is_ok())
}
