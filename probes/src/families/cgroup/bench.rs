//! What the probes of this family work with: programs of a cgroup whose verdict is set from outside.

use crate::asm::Asm;
use crate::bpf::{self, BPF_LSM_CGROUP, LinkSpec};
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::{Attached, LsmProgram, PAGE};
use crate::record::Phase;
use crate::rules::{Cgroup, Chain, Place, ROOT_CGROUP, Site, cgroup_frame, note};
use crate::session::{Attempt, Ended};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

/// What a program does besides noting its run and returning its verdict.
#[derive(Clone, Copy, Default)]
pub(super) struct Does {
    /// Leaves what `bpf_get_retval` gives.
    pub(super) get: bool,
    /// Calls `bpf_set_retval` with this.
    pub(super) set: Option<i32>,
    /// Notes what its slot `ret` holds.
    pub(super) ret: bool,
}

/// Nothing.
pub(super) const NOTHING: Does = Does { get: false, set: None, ret: false };

/// A program of a cgroup on the site's hook.
pub(super) fn program(site: &Site, chain: &Chain, number: i32, does: Does) -> LsmProgram {
    let place = Place::nth(number);
    let asm = cgroup_frame(&chain.results, |asm| {
        note(asm, place, site.ret.filter(|_| does.ret));
        if does.get {
            asm.call(helper::GET_RETVAL).stx(Size::DW, PAGE, place.extra(), Reg::R0);
        }
        if let Some(errno) = does.set {
            asm.mov_imm(Reg::R1, errno).call(helper::SET_RETVAL);
        }
        if site.ret.is_some() {
            asm.ldx(Size::DW, Reg::R0, PAGE, place.verdict()).and_imm(Reg::R0, 1).exit();
        }
    });
    LsmProgram::of_cgroup(site.hook, asm)
}

/// Makes a link to a cgroup.
pub(super) fn link(attempt: &mut Attempt<'_>, program: &OwnedFd, cgroup: &Cgroup) -> Result<OwnedFd, Ended> {
    let spec = LinkSpec { target: Some(cgroup.as_fd()), attach_type: BPF_LSM_CGROUP, ..LinkSpec::default() };
    attempt.calls(Phase::Attach, bpf::link_create(program, &spec))
}

/// Loads a program as the next of the chain and links it to a cgroup.
pub(super) fn add(
    attempt: &mut Attempt<'_>,
    chain: &mut Chain,
    site: &Site,
    cgroup: &Cgroup,
    does: Does,
) -> Result<(), Ended> {
    let program = attempt.load_lsm(&program(site, chain, chain.next(), does))?;
    let link = link(attempt, &program, cgroup)?;
    chain.attached.push(Some(Attached { program, link }));
    Ok(())
}

/// A cgroup that this process is in, and a chain, which is dropped first: links go before their cgroup.
pub(super) fn inside(attempt: &mut Attempt<'_>, site: Site) -> Result<(Cgroup, Chain), Ended> {
    let chain = Chain::new(attempt, site)?;
    // Whether the kernel has the type is the answer there; without it nothing else is to be asked.
    drop(attempt.load_lsm(&program(&site, &chain, 0, NOTHING))?);
    keep_shim(attempt, &site)?;
    let cgroup = Cgroup::new("inside")?;
    cgroup.enter()?;
    Ok((cgroup, chain))
}

/// Ends a case that asks about a misuse where the usual program of this site is refused too.
pub(super) fn usual_is_accepted(attempt: &mut Attempt<'_>, site: &Site, chain: &Chain) -> Result<(), Ended> {
    let spec = attempt.spec(&program(site, chain, 0, NOTHING))?;
    match attempt.ask(&spec, 0) {
        Ok(_) => Ok(()),
        Err(_) => Err(attempt.undecided("the intended use is refused as well")),
    }
}

/// Leaves a program that allows on an empty cgroup, under a name in the BPF file system, for every later probe on this
/// machine: while a hook has any program of a cgroup, others come and go without a change to its trampoline, which is
/// what takes time. Hooks where the order of programs is asked about are left out.
pub(super) fn keep_shim(attempt: &mut Attempt<'_>, site: &Site) -> Result<(), Ended> {
    let kept = ["task_getsid", "socket_bind"];
    let path = format!("/sys/fs/bpf/kept-{}", site.hook);
    if !kept.contains(&site.hook) || std::fs::exists(&path).unwrap_or(false) {
        return Ok(());
    }
    let pin = CString::new(path).map_err(|error| Ended::could_not("name the kept program", error))?;
    let folder = format!("{ROOT_CGROUP}/kept");
    std::fs::create_dir_all(&folder).map_err(|error| Ended::could_not("make a cgroup", error))?;
    let cgroup = File::open(&folder).map_err(|error| Ended::could_not("open a cgroup", error))?;
    let mut asm = Asm::new();
    asm.mov_imm(Reg::R0, 1).exit();
    let spec = attempt.spec(&LsmProgram::of_cgroup(site.hook, asm))?;
    // What refuses this one refuses the case's own program, which is asked about.
    let Ok(program) = attempt.ask(&spec, 0) else { return Ok(()) };
    let spec = LinkSpec { target: Some(cgroup.as_fd()), attach_type: BPF_LSM_CGROUP, ..LinkSpec::default() };
    let link = bpf::link_create(&program.fd, &spec);
    let pinned = link.and_then(|link| bpf::obj_pin(&link, &pin));
    attempt.at(Phase::Open); // the case itself has not begun
    pinned.map_err(|errno| Ended::could_not("keep a program on a cgroup", errno))
}

/// Does a round for each of these verdicts, and notes them under names like `1, 0`.
pub(super) fn rounds(attempt: &mut Attempt<'_>, chain: &mut Chain, names: &[&str], all: &[Vec<i32>]) {
    for verdicts in all {
        let round = chain.round(attempt, verdicts);
        let key: Vec<String> = verdicts.iter().map(ToString::to_string).collect();
        attempt.see(&key.join(", "), round.words(names, false));
        round.note_grants(attempt, verdicts);
    }
    attempt.ran(chain.has_run());
}
