//! Who may load.

use super::names::allowing;
use crate::asm::Asm;
use crate::bpf::{BPF_LSM_MAC, ProgSpec};
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::deny;
use crate::rules::{Chain, SESSION, UNPRIVILEGED_DISABLED, insns, member};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::triggers::creds::with_only;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use std::fs;

/// include/uapi/linux/capability.h.
pub(super) const CAP_SYS_ADMIN: u32 = 21;
/// As above.
pub(super) const CAP_MAC_ADMIN: u32 = 33;
/// As above.
pub(super) const CAP_PERFMON: u32 = 38;
/// As above.
pub(super) const CAP_BPF: u32 = 39;

/// Loads with these capabilities and no others: a program that allows, and one that reads a member of its argument; while
/// bpf(2) is open to everybody and while not.
pub(super) fn with(session: &mut Session<'_>, keep: &[u32]) -> Result<(), Stop> {
    for value in UNPRIVILEGED_DISABLED {
        session.case(&format!("allowing-at-{}", value.0), |attempt| {
            keep.iter().try_for_each(|&capability| held(capability))?;
            let _set = value.set()?;
            with_only(keep, || load(attempt)).map_err(without)?
        })?;
        session.case(&format!("reading-a-member-at-{}", value.0), |attempt| {
            keep.iter().try_for_each(|&capability| held(capability))?;
            let _set = value.set()?;
            let spec = reading(attempt)?;
            with_only(keep, || attempt.load(&spec).map(drop)).map_err(without)?
        })?;
    }
    Ok(())
}

/// Whether the process has the capability: nobody does where the kernel knows none of that number.
fn held(capability: u32) -> Result<(), Ended> {
    const LAST: &str = "/proc/sys/kernel/cap_last_cap";
    let name = match capability {
        CAP_SYS_ADMIN => "CAP_SYS_ADMIN",
        CAP_MAC_ADMIN => "CAP_MAC_ADMIN",
        CAP_PERFMON => "CAP_PERFMON",
        CAP_BPF => "CAP_BPF",
        _ => "of another number",
    };
    let read = |path| {
        fs::read_to_string(path).map_err(|error| Ended::could_not("ask about the capabilities", error))
    };
    let last: Option<u32> = read(LAST)?.trim().parse().ok();
    let status = read("/proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    match last.zip(effective) {
        Some((last, _)) if capability > last => Err(Ended::Absent(format!("capability {name}"))),
        Some((_, bits)) if bits >> capability & 1 == 1 => Ok(()),
        Some(_) => Err(Ended::CouldNotTell(format!("the process does not have capability {name}"))),
        None => Err(Ended::could_not("ask about the capabilities", "the answer is no number")),
    }
}

fn without(errno: Errno) -> Ended {
    Ended::could_not("do without the other capabilities", errno)
}

/// A program that reads `file->f_flags`.
fn reading(attempt: &Attempt<'_>) -> Result<ProgSpec, Ended> {
    let id = attempt.hook("file_open")?;
    let member = attempt.btf()?.member("file", "f_flags");
    let offset = member.map_err(|error| Ended::could_not("find file.f_flags", error))?.byte_offset;
    let mut asm = Asm::new();
    asm.ldx(Size::DW, Reg::R1, Reg::R1, 0)
        .ldx(Size::W, Reg::R1, Reg::R1, i64::from(offset))
        .mov_imm(Reg::R0, 0)
        .exit();
    Ok(ProgSpec { insns: insns(&asm)?, ..allowing(id, BPF_LSM_MAC)? })
}

fn load(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    let id = attempt.hook("file_open")?;
    attempt.load(&allowing(id, BPF_LSM_MAC)?).map(drop)
}

pub(super) fn in_user_namespace(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("root-of-it", |attempt| {
        unshare(CloneFlags::CLONE_NEWUSER)
            .map_err(|errno| Ended::could_not("make a user namespace", errno))?;
        load(attempt)
    })
}

pub(super) fn memlock(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("limit-0-with-capabilities", |attempt| {
        setrlimit(Resource::RLIMIT_MEMLOCK, 0, 0)
            .map_err(|errno| Ended::could_not("lower RLIMIT_MEMLOCK", errno))?;
        load(attempt)
    })
}

pub(super) fn without_jit(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("interpreted", |attempt| {
        let mut chain = Chain::new(attempt, SESSION)?;
        let sysctl = "/proc/sys/net/core/bpf_jit_enable";
        fs::write(sysctl, "0").map_err(|error| Ended::could_not("switch the compiler off", error))?;
        let loaded = attempt.load_lsm(&member(&SESSION, &chain.results, 0));
        let attached = loaded.and_then(|program| attempt.attach(&program).map(|link| (program, link)));
        let asked = attached.map(|held| (held, chain.round(attempt, &[deny(Errno::EPERM)])));
        let restored = fs::write(sysctl, "1");
        let ((program, _link), round) = asked?;
        restored.map_err(|error| Ended::could_not("switch the compiler on again", error))?;
        let info = crate::bpf::prog_info(&program)
            .map_err(|errno| Ended::could_not("ask about the program", errno))?;
        attempt.see("compiled", info.jited_len != 0);
        attempt.runs(chain.results.runs());
        attempt.denial("user space sees", &round.outcome, Errno::EPERM);
        Ok(())
    })
}
