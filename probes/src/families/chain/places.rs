//! How many programs a hook takes, and what else takes a place.

use crate::asm::Asm;
use crate::bpf::{self, BPF_LSM_CGROUP, BPF_TRACE_FENTRY, BPF_TRACE_FEXIT, LinkSpec};
use crate::errno::Errno;
use crate::insn::Reg;
use crate::lsm::{LsmProgram, deny};
use crate::record::Phase;
use crate::rules::{attach_raw, tracing};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::triggers::{Arm, files};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

/// More programs than any kernel takes on one hook.
const MANY: usize = 48;
/// An int hook that no other probe on such a machine asks about. Each case has a hook of its own, and but for the last
/// leaves it full of programs that let everything pass, whose links PID 1 takes over.
const INT_HOOK: &str = "sb_pivotroot";
/// The same, a void one.
const VOID_HOOK: &str = "inet_csk_clone";
/// Another void one, for whoever takes the last place.
const TAKEN_VOID: &str = "sk_clone_security";
/// An int hook, which programs of a cgroup are taken for too, for whoever takes the last places. It is filled once, for
/// both cases, and emptied again: the kernel gives back later what a program of a cgroup takes of the hooks that cgroups
/// may have, so that `cgroup/limit-of-hooks` has to ask about this one as well.
const TAKEN: &str = "task_getioprio";

/// Attaches trivial programs until one is refused; gives those that are attached, and the refusal.
fn fill(attempt: &mut Attempt<'_>, hook: &str, most: usize) -> Result<(Vec<OwnedFd>, Option<Ended>), Ended> {
    let mut links = Vec::new();
    while links.len() < most {
        let program = attempt.load_lsm(&trivial(hook))?;
        match attempt.attach(&program) {
            Ok(link) => links.push(link),
            Err(ended) => return Ok((links, Some(ended))),
        }
    }
    Ok((links, None))
}

fn trivial(hook: &str) -> LsmProgram {
    let mut asm = Asm::new();
    asm.mov_imm(Reg::R0, 0).exit();
    LsmProgram::raw(hook, asm)
}

/// Who is asked on a hook with eight, a void hook, and an int hook. That comes last: 5.11, 5.12, 5.14, 5.16 and 5.17 count
/// nothing there, and go down by writing behind an array (5.17 kernel/bpf/trampoline.c, bpf_trampoline_get_progs).
pub(super) fn many_programs(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("first-of-eight-denies", first_of_eight)?;
    session.case("until-refused-on-a-void-hook", |attempt| until_refused(attempt, VOID_HOOK))?;
    session.case("until-refused", |attempt| until_refused(attempt, INT_HOOK))
}

fn until_refused(attempt: &mut Attempt<'_>, hook: &str) -> Result<(), Ended> {
    if let Some(limit) = limit(attempt)? {
        attempt.see("BPF_MAX_TRAMP_LINKS", limit);
    }
    let (links, refusal) = fill(attempt, hook, MANY)?;
    attempt.see("attached", links.len());
    let _ = counted(attempt, links.len(), refusal.as_ref())?;
    std::mem::forget(links);
    refusal.map_or(Ok(()), Err)
}

/// Whether the one too many was refused because places are counted; notes it where they are not. Up to 5.9 only fentry and
/// fexit programs are, and those of a void hook as such (5.9 kernel/bpf/trampoline.c, bpf_trampoline_link_prog): an int hook
/// takes as many as fit into the half page of the trampoline's code (5.9 kernel/bpf/trampoline.c, bpf_trampoline_update;
/// arch/x86/net/bpf_jit_comp.c, arch_prepare_bpf_trampoline). From 5.11 on the code has a page, and one program too many is
/// written past the end of the list of programs, over their number, which then goes into an allocation (5.11, the same):
/// what comes of that hangs on an address.
fn counted(attempt: &mut Attempt<'_>, attached: usize, refusal: Option<&Ended>) -> Result<bool, Ended> {
    let limit = limit(attempt)?.map_or(attached, |limit| usize::try_from(limit).unwrap_or(0));
    let word = match refusal {
        Some(Ended::Refused(Errno::E2BIG)) if attached == limit => return Ok(true),
        Some(Ended::Refused(Errno::EFAULT)) => {
            "LSM programs of this hook are not counted: the trampoline's code is full"
        }
        Some(_) => "LSM programs of this hook are not counted",
        None => "more than were asked for",
    };
    attempt.see("places", word);
    Ok(false)
}

/// A macro at first, an enumerator later; then the kernel says what it is built with.
fn limit(attempt: &Attempt<'_>) -> Result<Option<i64>, Ended> {
    Ok(attempt.btf()?.enum_value(None, "BPF_MAX_TRAMP_LINKS"))
}

/// The one that denies runs last: the seven that were attached after it run and allow.
fn first_of_eight(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    let mut results = attempt.results()?;
    results.name_nobody();
    let mut act = files::open().map_err(|errno| Ended::could_not("make the trigger ready", errno))?;
    let hook = "file_open";
    let mut attached =
        vec![attempt.attach_lsm(&LsmProgram::returning(hook, &results, deny(Errno::EPERM)))?];
    for _ in 0..7 {
        attached.push(attempt.attach_lsm(&LsmProgram::counting(hook, &results))?);
    }
    let outcome = attempt.trigger(|| act(Arm::new(&results)));
    attempt.runs(results.runs());
    attempt.denial("user space sees", &outcome, Errno::EPERM);
    Ok(())
}

/// Fills a hook but for one place, and sees who takes that one; then with one place more for programs of a cgroup. The
/// void hook comes first, for kernels that filling the other brings down.
pub(super) fn takers(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("one-place-left-on-a-void-hook", |attempt| {
        std::mem::forget(one_place_left(attempt, TAKEN_VOID)?);
        Ok(())
    })?;
    let mut links = Vec::new();
    session.case("one-place-left", |attempt| {
        links = one_place_left(attempt, TAKEN)?;
        Ok(())
    })?;
    session.case("two-left-programs-of-a-cgroup", |attempt| {
        drop(links.pop()); // one is left from the case before
        let (first, second) = (of_root_cgroup(attempt)?, of_root_cgroup(attempt)?);
        let spare = attempt.load_lsm(&trivial(TAKEN))?;
        let again = attempt.load_lsm(&trivial(TAKEN))?;
        attempt.at(Phase::Attach);
        let _both = (first.attach()?, second.attach()?);
        let one = attach_raw(&spare);
        attempt.outcome("an LSM program beside two programs of a cgroup", &one);
        attempt.outcome("one more", &attach_raw(&again));
        Ok(())
    })
}

/// Asks who takes the last place, if there are places; gives the links of those that have the others.
fn one_place_left(attempt: &mut Attempt<'_>, hook: &str) -> Result<Vec<OwnedFd>, Ended> {
    let results = attempt.results()?;
    let (mut links, refusal) = fill(attempt, hook, MANY)?;
    if !counted(attempt, links.len(), refusal.as_ref())? {
        if let Some(Ended::Refused(errno)) = refusal {
            attempt.see("an LSM program too many", errno.name());
        }
        return Ok(links);
    }
    drop(links.pop());
    let function = format!("bpf_lsm_{hook}");
    for (name, attach_type) in [("fentry", BPF_TRACE_FENTRY), ("fexit", BPF_TRACE_FEXIT)] {
        let program = tracing(attempt, &function, attach_type, &results, |_| {})?;
        attempt.at(Phase::Attach);
        let taken = attach_raw(&program);
        attempt.outcome(name, &taken);
        see_another(attempt, hook, &format!("an LSM program beside the {name}"))?;
    }
    see_another(attempt, hook, "an LSM program in the place given back")?;
    Ok(links)
}

/// Whether one more LSM program is taken. A new one each time: until 5.12 one that was attached once is never taken
/// again (`chain/same-program-twice`), full or not.
fn see_another(attempt: &mut Attempt<'_>, hook: &str, key: &str) -> Result<(), Ended> {
    let spare = attempt.load_lsm(&trivial(hook))?;
    attempt.at(Phase::Attach);
    attempt.outcome(key, &attach_raw(&spare));
    Ok(())
}

/// A program of the root cgroup.
struct OfCgroup {
    program: OwnedFd,
    cgroup: File,
}

fn of_root_cgroup(attempt: &mut Attempt<'_>) -> Result<OfCgroup, Ended> {
    let cgroup =
        File::open("/sys/fs/cgroup").map_err(|error| Ended::could_not("open the root cgroup", error))?;
    let mut asm = Asm::new();
    asm.mov_imm(Reg::R0, 1).exit();
    Ok(OfCgroup { program: attempt.load_lsm(&LsmProgram::of_cgroup(TAKEN, asm))?, cgroup })
}

impl OfCgroup {
    fn attach(&self) -> Result<OwnedFd, Ended> {
        let spec = LinkSpec {
            target: Some(self.cgroup.as_fd()),
            attach_type: BPF_LSM_CGROUP,
            ..LinkSpec::default()
        };
        bpf::link_create(&self.program, &spec).map_err(Ended::Refused)
    }
}
