//! The ways in: which call attaches a program that was loaded in which way.

use crate::asm::Asm;
use crate::bpf::{
    self, ATTACH_TYPES, BPF_CGROUP_INET_INGRESS, BPF_F_ALLOW_MULTI, BPF_F_REPLACE, BPF_LSM_CGROUP,
    BPF_LSM_MAC, BPF_MODIFY_RETURN, BPF_TRACE_FENTRY, BPF_TRACE_FEXIT, BPF_TRACE_FSESSION, BPF_TRACE_ITER,
    BPF_TRACE_RAW_TP, ProgSpec,
};
use crate::btf::Kind;
use crate::errno::Errno;
use crate::insn::Reg;
use crate::lsm::LsmProgram;
use crate::record::Phase;
use crate::rules::{
    BARE, Chain, Place, ROOT_CGROUP, SESSION, UNPRIVILEGED_DISABLED, bare_is_held, insns, note, outcome_word,
    without_trampoline,
};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::triggers::creds::with_only;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// A program on the usual hook, loaded with this attach type; it allows in the way of that type.
fn program(attempt: &mut Attempt<'_>, chain: &Chain, attach_type: u32) -> Result<OwnedFd, Ended> {
    attempt.load_lsm(&allowing(chain, attach_type))
}

fn allowing(chain: &Chain, attach_type: u32) -> LsmProgram {
    let verdict = i32::from(attach_type == BPF_LSM_CGROUP);
    let mut program = LsmProgram::framed(SESSION.hook, &chain.results, |asm| {
        note(asm, Place::nth(0), None);
        asm.mov_imm(Reg::R0, verdict).exit();
    });
    if attach_type == BPF_LSM_CGROUP {
        // What the frame ends with would be a denial.
        program.asm = of_cgroup(chain);
    }
    program.attach_type = attach_type;
    program
}

/// The same frame, for an attach type where 1 allows.
fn of_cgroup(chain: &Chain) -> Asm {
    crate::rules::cgroup_frame(&chain.results, |asm| note(asm, Place::nth(0), None))
}

/// One way to attach: ends the case there when it is refused, and otherwise says whether the program runs.
fn way<T>(
    session: &mut Session<'_>,
    name: &str,
    attach_type: u32,
    call: impl FnOnce(&OwnedFd) -> Result<T, Errno>,
) -> Result<(), Stop> {
    session.case(name, |attempt| {
        let mut chain = Chain::new(attempt, SESSION)?;
        let program = program(attempt, &chain, attach_type)?;
        let attached = attempt.calls(Phase::Attach, call(&program))?;
        let _round = chain.round(attempt, &[]);
        attempt.runs(chain.results.runs());
        drop(attached);
        Ok(())
    })
}

/// Without a name.
pub(super) fn raw(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, attach_type) in [("loaded-as-mac", BPF_LSM_MAC), ("loaded-as-cgroup", BPF_LSM_CGROUP)] {
        way(session, name, attach_type, |program| bpf::raw_tracepoint_open(program, None, 0))?;
    }
    Ok(())
}

/// With the name of the hook's function, and with one that is no tracepoint's.
pub(super) fn raw_with_name(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, tracepoint) in
        [("name-of-the-hook", c"bpf_lsm_task_getsid"), ("name-of-a-tracepoint", c"sys_enter")]
    {
        way(session, name, BPF_LSM_MAC, |program| bpf::raw_tracepoint_open(program, Some(tracepoint), 0))?;
    }
    Ok(())
}

/// A program of BPF_LSM_MAC with various attach types.
pub(super) fn create_mac(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, attach_type) in [
        ("as-mac", BPF_LSM_MAC),
        ("as-cgroup", BPF_LSM_CGROUP),
        ("as-fentry", BPF_TRACE_FENTRY),
        ("as-fmod_ret", BPF_MODIFY_RETURN),
        ("as-0", BPF_CGROUP_INET_INGRESS),
        ("as-unknown", 0xffff),
    ] {
        way(session, name, BPF_LSM_MAC, |program| bpf::link_create_raw(program, 0, attach_type, 0, 0))?;
    }
    let cgroup = root()?;
    way(session, "as-cgroup-with-a-cgroup", BPF_LSM_MAC, |program| {
        bpf::link_create_raw(program, cgroup.as_raw_fd(), BPF_LSM_CGROUP, 0, 0)
    })
}

fn root() -> Result<File, Stop> {
    File::open(ROOT_CGROUP).map_err(|error| Stop(format!("cannot open the root cgroup: {error}")))
}

/// A program of BPF_LSM_CGROUP with various attach types and targets.
pub(super) fn create_cgroup(session: &mut Session<'_>) -> Result<(), Stop> {
    let cgroup = root()?;
    let folder = File::open("/tmp").map_err(|error| Stop(format!("cannot open /tmp: {error}")))?;
    let targets: [(&str, RawFd, u32); 5] = [
        ("as-cgroup-with-a-cgroup", cgroup.as_raw_fd(), BPF_LSM_CGROUP),
        ("as-cgroup-with-a-folder", folder.as_raw_fd(), BPF_LSM_CGROUP),
        ("as-cgroup-with-no-descriptor", -1, BPF_LSM_CGROUP),
        ("as-mac-with-a-cgroup", cgroup.as_raw_fd(), BPF_LSM_MAC),
        ("as-mac-without", 0, BPF_LSM_MAC),
    ];
    for (name, target, attach_type) in targets {
        way(session, name, BPF_LSM_CGROUP, |program| {
            bpf::link_create_raw(program, target, attach_type, 0, 0)
        })?;
    }
    Ok(())
}

/// Programs with attach types that the load does not refuse.
pub(super) fn create_other(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, attach_type) in [
        ("loaded-as-fentry", BPF_TRACE_FENTRY),
        ("loaded-as-fsession", BPF_TRACE_FSESSION),
        // PID 1's program has made the function a trampoline.
        ("loaded-as-fmod_ret-with-a-trampoline", BPF_MODIFY_RETURN),
        ("loaded-as-raw_tp-on-a-hook", BPF_TRACE_RAW_TP),
        ("loaded-as-0", 0),
    ] {
        session.case(name, |attempt| {
            let chain = Chain::new(attempt, SESSION)?;
            let program = program(attempt, &chain, attach_type)?;
            see_ways(attempt, &program, attach_type);
            Ok(())
        })?;
    }
    let held = bare_is_held(session);
    session.case("loaded-as-fmod_ret-without-a-trampoline", |attempt| {
        let program = without_trampoline(held, || attempt.load_lsm(&elsewhere(BARE, BPF_MODIFY_RETURN)))?;
        see_ways(attempt, &program, BPF_MODIFY_RETURN);
        Ok(())
    })?;
    session.case("loaded-as-raw_tp-on-a-tracepoint", |attempt| {
        let id = attempt.btf()?.find(Kind::Typedef, "btf_trace_sys_enter");
        other_target(attempt, id, "btf_trace_sys_enter", BPF_TRACE_RAW_TP)
    })?;
    session.case("loaded-as-iter-on-an-iterator", |attempt| {
        let id = attempt.btf()?.function("bpf_iter_task");
        other_target(attempt, id, "bpf_iter_task", BPF_TRACE_ITER)
    })
}

/// A program that allows.
fn elsewhere(hook: &str, attach_type: u32) -> LsmProgram {
    let mut asm = Asm::new();
    asm.mov_imm(Reg::R0, 0).exit();
    let mut program = LsmProgram::raw(hook, asm);
    program.attach_type = attach_type;
    program
}

/// A program that allows, for a type or function that is no hook's.
fn other_target(
    attempt: &mut Attempt<'_>,
    id: Option<u32>,
    name: &str,
    attach_type: u32,
) -> Result<(), Ended> {
    let spec = ProgSpec {
        expected_attach_type: attach_type,
        ..ProgSpec::lsm(
            "elsewhere",
            id.ok_or_else(|| Ended::Absent(name.to_owned()))?,
            insns(&elsewhere("", attach_type).asm)?,
        )
    };
    let program = attempt.load(&spec)?;
    see_ways(attempt, &program, attach_type);
    Ok(())
}

/// What each way to attach answers.
fn see_ways(attempt: &mut Attempt<'_>, program: &OwnedFd, attach_type: u32) {
    attempt.at(Phase::Attach);
    attempt.outcome("BPF_RAW_TRACEPOINT_OPEN", &bpf::raw_tracepoint_open(program, None, 0));
    attempt.outcome("BPF_LINK_CREATE with that type", &bpf::link_create_raw(program, 0, attach_type, 0, 0));
    attempt.outcome("BPF_LINK_CREATE with BPF_LSM_MAC", &bpf::link_create_raw(program, 0, BPF_LSM_MAC, 0, 0));
}

/// The flags field.
pub(super) fn create_flags(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, flags) in
        [("none", 0), ("allow-multi", BPF_F_ALLOW_MULTI), ("replace", BPF_F_REPLACE), ("unknown", 1 << 31)]
    {
        way(session, name, BPF_LSM_MAC, |program| bpf::link_create_raw(program, 0, BPF_LSM_MAC, flags, 0))?;
    }
    Ok(())
}

/// BPF_PROG_ATTACH of a program of BPF_LSM_MAC.
pub(super) fn prog_attach_mac(session: &mut Session<'_>) -> Result<(), Stop> {
    prog_attach(session, BPF_LSM_MAC)
}

/// BPF_PROG_ATTACH of a program of BPF_LSM_CGROUP.
pub(super) fn prog_attach_cgroup(session: &mut Session<'_>) -> Result<(), Stop> {
    prog_attach(session, BPF_LSM_CGROUP)
}

fn prog_attach(session: &mut Session<'_>, loaded: u32) -> Result<(), Stop> {
    let cgroup = root()?;
    for (name, target, attach_type) in [
        ("as-mac-without-target", 0, BPF_LSM_MAC),
        ("as-mac-to-a-cgroup", cgroup.as_raw_fd(), BPF_LSM_MAC),
        ("as-cgroup-without-target", -1, BPF_LSM_CGROUP),
        ("as-cgroup-to-a-cgroup", cgroup.as_raw_fd(), BPF_LSM_CGROUP),
    ] {
        way(session, name, loaded, |program| {
            bpf::prog_attach_raw(program, target, attach_type, BPF_F_ALLOW_MULTI, None)?;
            Ok(Detaching { program: program.as_raw_fd(), target, attach_type })
        })?;
    }
    Ok(())
}

/// Detaches a program that was attached without a link.
struct Detaching {
    program: RawFd,
    target: RawFd,
    attach_type: u32,
}

impl Drop for Detaching {
    fn drop(&mut self) {
        // SAFETY: the program's descriptor is open: the case that made this value owns it and drops this first.
        let program = unsafe { std::os::fd::BorrowedFd::borrow_raw(self.program) };
        let _ = bpf::prog_detach_raw(program, self.target, self.attach_type);
    }
}

/// The load is done with every capability, the attaching with none, while bpf(2) is open to everybody and while not.
pub(super) fn without_capabilities(session: &mut Session<'_>) -> Result<(), Stop> {
    for value in UNPRIVILEGED_DISABLED {
        session.case(&format!("after-the-load-at-{}", value.0), |attempt| {
            let chain = Chain::new(attempt, SESSION)?;
            let program = program(attempt, &chain, BPF_LSM_MAC)?;
            let _set = value.set()?;
            attempt.at(Phase::Attach);
            let answers = with_only(&[], || {
                let raw = bpf::raw_tracepoint_open(&program, None, 0).map(drop);
                (raw, bpf::link_create_raw(&program, 0, BPF_LSM_MAC, 0, 0).map(drop))
            });
            let (raw, link) = answers.map_err(|errno| Ended::could_not("do without capabilities", errno))?;
            attempt.outcome("BPF_RAW_TRACEPOINT_OPEN", &raw);
            attempt.outcome("BPF_LINK_CREATE", &link);
            Ok(())
        })?;
    }
    Ok(())
}

/// `target_fd` and `target_btf_id`.
pub(super) fn target(session: &mut Session<'_>) -> Result<(), Stop> {
    let id = session
        .kernel()
        .btf()
        .ok()
        .and_then(|btf| btf.function("bpf_lsm_task_getsid"))
        .ok_or_else(|| Stop("the kernel's BTF has no bpf_lsm_task_getsid".into()))?;
    let mac =
        |fd: RawFd, id: u32| move |program: &OwnedFd| bpf::link_create_raw(program, fd, BPF_LSM_MAC, 0, id);
    way(session, "fd-0-id-0", BPF_LSM_MAC, mac(0, 0))?;
    way(session, "fd-0-id-of-the-hook", BPF_LSM_MAC, mac(0, id))?;
    way(session, "fd-0-another-id", BPF_LSM_MAC, mac(0, 1))?;
    way(session, "fd-of-the-program-id-0", BPF_LSM_MAC, |program| {
        bpf::link_create_raw(program, program.as_raw_fd(), BPF_LSM_MAC, 0, 0)
    })?;
    way(session, "fd-of-the-program-id-of-the-hook", BPF_LSM_MAC, |program| {
        bpf::link_create_raw(program, program.as_raw_fd(), BPF_LSM_MAC, 0, id)
    })
}

/// "The target_btf_id parameter must be populated with the BTF ID of the LSM hook point."
pub(super) fn claim_btf_id(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("both-ways", |attempt| {
        let id = attempt.hook(SESSION.hook)?;
        let chain = Chain::new(attempt, SESSION)?;
        let program = program(attempt, &chain, BPF_LSM_MAC)?;
        attempt.at(Phase::Attach);
        let with = outcome_word(&bpf::link_create_raw(&program, 0, BPF_LSM_MAC, 0, id));
        let without = outcome_word(&bpf::link_create_raw(&program, 0, BPF_LSM_MAC, 0, 0));
        attempt.see("with the hook's id", with.as_str());
        attempt.see("with 0", without.as_str());
        let sentence = match (with.as_str(), without.as_str()) {
            ("ok", "ok") => "false: either will do",
            ("ok", _) => "true",
            (_, "ok") => "false",
            _ => "not to be asked: BPF_LINK_CREATE takes no such program in either way",
        };
        attempt.see("the documentation's sentence is", sentence);
        Ok(())
    })
}

/// "LSM programs are exclusively attached via bpf links."
pub(super) fn claim_links(session: &mut Session<'_>) -> Result<(), Stop> {
    let cgroup = root()?;
    session.case("without-a-link", |attempt| {
        let chain = Chain::new(attempt, SESSION)?;
        let program = program(attempt, &chain, BPF_LSM_CGROUP)?;
        let target = cgroup.as_raw_fd();
        attempt.at(Phase::Attach);
        let attached = bpf::prog_attach_raw(&program, target, BPF_LSM_CGROUP, BPF_F_ALLOW_MULTI, None);
        attempt.outcome("BPF_PROG_ATTACH to a cgroup", &attached);
        let _ = bpf::prog_detach_raw(&program, target, BPF_LSM_CGROUP);
        attempt.see("the documentation's sentence is", if attached.is_ok() { "false" } else { "true" });
        Ok(())
    })?;
    session.case("raw-tracepoint-open-gives-a-link", |attempt| {
        let chain = Chain::new(attempt, SESSION)?;
        let program = program(attempt, &chain, BPF_LSM_MAC)?;
        let link = attempt.attach(&program)?;
        let info = bpf::link_info(&link);
        attempt.outcome("BPF_OBJ_GET_INFO_BY_FD", &info);
        if let Ok(info) = info {
            attempt.see("link type", bpf::name_in(bpf::LINK_TYPES, info.link_type).unwrap_or("unknown"));
        }
        Ok(())
    })
}

/// "the program must be loaded with the BPF_LSM_MAC expected attach type"
pub(super) fn claim_mac(session: &mut Session<'_>) -> Result<(), Stop> {
    let cgroup = root()?;
    session.case("loaded-as-cgroup", |attempt| {
        let chain = Chain::new(attempt, SESSION)?;
        let program = program(attempt, &chain, BPF_LSM_CGROUP)?;
        let spec = bpf::LinkSpec {
            target: Some(cgroup.as_fd()),
            attach_type: BPF_LSM_CGROUP,
            ..bpf::LinkSpec::default()
        };
        let linked = bpf::link_create(&program, &spec);
        attempt.at(Phase::Attach);
        attempt.outcome("BPF_LINK_CREATE as BPF_LSM_CGROUP", &linked);
        attempt.see("the documentation's sentence is", if linked.is_ok() { "false" } else { "true" });
        Ok(())
    })
}

/// A way to attach, given program and attach type, which is undone at once.
type Way = fn(&OwnedFd, u32, RawFd) -> Result<(), Errno>;

const WAYS: [(&str, Way); 6] = [
    ("BPF_RAW_TRACEPOINT_OPEN", |program, _, _| bpf::raw_tracepoint_open(program, None, 0).map(drop)),
    ("BPF_RAW_TRACEPOINT_OPEN with a name", |program, _, _| {
        bpf::raw_tracepoint_open(program, Some(c"bpf_lsm_task_getsid"), 0).map(drop)
    }),
    ("BPF_LINK_CREATE without a target", |program, attach_type, _| {
        bpf::link_create_raw(program, 0, attach_type, 0, 0).map(drop)
    }),
    ("BPF_LINK_CREATE to a cgroup", |program, attach_type, cgroup| {
        bpf::link_create_raw(program, cgroup, attach_type, 0, 0).map(drop)
    }),
    ("BPF_PROG_ATTACH without a target", |program, attach_type, _| {
        attach_and_detach(program, -1, attach_type)
    }),
    ("BPF_PROG_ATTACH to a cgroup", attach_to),
];

fn attach_to(program: &OwnedFd, attach_type: u32, cgroup: RawFd) -> Result<(), Errno> {
    attach_and_detach(program, cgroup, attach_type)
}

fn attach_and_detach(program: &OwnedFd, target: RawFd, attach_type: u32) -> Result<(), Errno> {
    bpf::prog_attach_raw(program, target, attach_type, BPF_F_ALLOW_MULTI, None)?;
    let _ = bpf::prog_detach_raw(program, target, attach_type);
    Ok(())
}

/// Every way in, with every attach type, of a program loaded with each type with which one loads.
pub(super) fn every_type(session: &mut Session<'_>) -> Result<(), Stop> {
    let cgroup = root()?;
    for (name, loaded) in [
        ("loaded-as-mac", BPF_LSM_MAC),
        ("loaded-as-cgroup", BPF_LSM_CGROUP),
        ("loaded-as-fentry", BPF_TRACE_FENTRY),
        ("loaded-as-fexit", BPF_TRACE_FEXIT),
        ("loaded-as-fsession", BPF_TRACE_FSESSION),
    ] {
        session.case(name, |attempt| {
            let chain = Chain::new(attempt, SESSION)?;
            let program = program(attempt, &chain, loaded)?;
            attempt.at(Phase::Attach);
            for (key, way) in WAYS {
                // The type is no part of the first call.
                let types = if key.starts_with("BPF_RAW") { &ATTACH_TYPES[..1] } else { ATTACH_TYPES };
                attempt.see(key, answers(types, |number| way(&program, number, cgroup.as_raw_fd())));
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Which answers there are, each with the types that get it; the most frequent errno is that of all others.
fn answers(types: &[(u32, &str)], ask: impl Fn(u32) -> Result<(), Errno>) -> String {
    let mut by_answer: Vec<(String, Vec<&str>)> = Vec::new();
    for &(number, name) in types {
        let answer = outcome_word(&ask(number));
        match by_answer.iter_mut().find(|(known, _)| *known == answer) {
            Some((_, names)) => names.push(name),
            None => by_answer.push((answer, vec![name])),
        }
    }
    if let [(answer, _)] = by_answer.as_slice() {
        return answer.clone();
    }
    by_answer.sort_by_key(|(_, names)| names.len());
    let last = by_answer.pop().map(|(answer, _)| format!("{answer} as any other"));
    let words = by_answer.iter().map(|(answer, names)| format!("{answer} as {}", names.join(", ")));
    words.chain(last).collect::<Vec<_>>().join("; ")
}
