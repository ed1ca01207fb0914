//! What the kernel's statistics of programs count.

use crate::bpf::{self, BPF_LSM_CGROUP, BPF_MAP_TYPE_PROG_ARRAY, LinkSpec, MapSpec};
use crate::errno::Errno;
use crate::families::chain::{extension_ran, replaced_pair};
use crate::helper;
use crate::insn::Reg;
use crate::lsm::{CTX, LsmProgram};
use crate::record::Phase;
use crate::rules::{Cgroup, Chain, EXEC, Place, SESSION, Site, cgroup_frame, member, note};
use crate::session::{Attempt, Ended, Session, Stop};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

const SYSCTL: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// How often the trigger is done in each round.
const TIMES: u64 = 3;

/// How the statistics are switched on; switched off again when it is dropped.
enum On {
    Off,
    Command(#[expect(dead_code, reason = "held")] OwnedFd),
    Sysctl,
}

impl On {
    fn sysctl() -> Result<Self, Errno> {
        fs::write(SYSCTL, "1")?;
        Ok(Self::Sysctl)
    }
}

impl Drop for On {
    fn drop(&mut self) {
        if matches!(self, Self::Sysctl) {
            let _ = fs::write(SYSCTL, "0");
        }
    }
}

/// The ways.
type Way = fn() -> Result<On, Errno>;
const WAYS: [(&str, Way); 3] = [
    ("off", || Ok(On::Off)),
    ("BPF_ENABLE_STATS", || bpf::enable_stats().map(On::Command)),
    ("kernel.bpf_stats_enabled", On::sysctl),
];

/// A program and what a record calls it.
type Watched<'a> = (&'a str, &'a OwnedFd);

/// Does the trigger with the statistics off and on, and notes what they count of each program.
fn count(attempt: &mut Attempt<'_>, chain: &mut Chain, watched: &[Watched<'_>]) -> Result<(), Ended> {
    let before = fs::read_to_string(SYSCTL).map_err(|error| Ended::could_not("read the sysctl", error))?;
    if before.trim() != "0" {
        return Err(Ended::CouldNotTell("somebody else has switched the statistics on".into()));
    }
    for (name, way) in WAYS {
        let before = infos(watched)?;
        let on = match way() {
            Ok(on) => on,
            // Of 5.8, with the enumeration of what it can count: as any unknown command on 5.7.
            Err(Errno::EINVAL) if attempt.btf()?.enum_value(None, "BPF_STATS_RUN_TIME").is_none() => {
                attempt.see(name, "no such command");
                continue;
            }
            Err(errno) => {
                attempt.see(name, errno.name());
                continue;
            }
        };
        for _ in 0..TIMES {
            chain.round(attempt, &[]);
        }
        drop(on);
        let after = infos(watched)?;
        for ((who, _), (before, after)) in watched.iter().zip(before.iter().zip(&after)) {
            let time = if after.1 > before.1 { "more than 0" } else { "0" };
            let counted = after.0.saturating_sub(before.0);
            attempt.see(&format!("{name}: {who}"), format!("run_cnt {counted}, run_time_ns {time}"));
        }
    }
    attempt.runs(chain.results.runs());
    Ok(())
}

/// The two counters of each program.
fn infos(watched: &[Watched<'_>]) -> Result<Vec<(u64, u64)>, Ended> {
    let one =
        |(_, program): &Watched<'_>| bpf::prog_info(program).map(|info| (info.run_cnt, info.run_time_ns));
    let all: Result<Vec<_>, Errno> = watched.iter().map(one).collect();
    all.map_err(|errno| Ended::could_not("read what is counted", errno))
}

pub(super) fn counted(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, site, sleepable) in
        [("plain", SESSION, false), ("plain-void", EXEC, false), ("sleepable-void", EXEC, true)]
    {
        session.case(name, |attempt| attached(attempt, site, sleepable))?;
    }
    session.case("of-a-cgroup", of_a_cgroup)?;
    session.case("called-by-tail-call", tail_call)?;
    session.case("a-function-of-it-replaced", |attempt| {
        let mut chain = Chain::new(attempt, SESSION)?;
        let (program, extension, _types) = replaced_pair(attempt, &chain)?;
        let _replaced = attempt.attach(&extension)?;
        let _link = attempt.attach(&program)?;
        let watched = [("the program", &program), ("what replaces its function", &extension)];
        count(attempt, &mut chain, &watched)?;
        attempt.see("the extension ran", extension_ran(&chain));
        Ok(())
    })
}

fn attached(attempt: &mut Attempt<'_>, site: Site, sleepable: bool) -> Result<(), Ended> {
    let mut chain = Chain::new(attempt, site)?;
    let program = member(&site, &chain.results, 0);
    let program = if sleepable { program.sleepable() } else { program };
    let program = attempt.load_lsm(&program)?;
    let _link = attempt.attach(&program)?;
    count(attempt, &mut chain, &[("the program", &program)])
}

fn of_a_cgroup(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    let mut chain = Chain::new(attempt, SESSION)?;
    let asm = cgroup_frame(&chain.results, |asm| note(asm, Place::nth(0), None));
    let mut program = LsmProgram::raw(SESSION.hook, asm);
    program.attach_type = BPF_LSM_CGROUP;
    let program = attempt.load_lsm(&program)?;
    let cgroup = Cgroup::new("counted")?;
    cgroup.enter()?;
    let spec = LinkSpec { target: Some(cgroup.as_fd()), attach_type: BPF_LSM_CGROUP, ..LinkSpec::default() };
    let link = attempt.calls(Phase::Attach, bpf::link_create(&program, &spec))?;
    let counted = count(attempt, &mut chain, &[("the program", &program)]);
    drop(link); // before its cgroup
    counted
}

fn tail_call(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    let mut chain = Chain::new(attempt, SESSION)?;
    let array = attempt.map(&MapSpec::new(BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 1).named("calls"))?;
    let caller = attempt.load_lsm(&LsmProgram::framed(SESSION.hook, &chain.results, |asm| {
        asm.mov_reg(Reg::R1, CTX)
            .ld_map_fd(Reg::R2, &array)
            .mov_imm(Reg::R3, 0)
            .call(helper::TAIL_CALL)
            .mov_imm(Reg::R0, -1)
            .exit();
    }))?;
    let called = attempt.load_lsm(&member(&SESSION, &chain.results, 0))?;
    let place = called.as_raw_fd().to_ne_bytes();
    attempt.calls(Phase::Trigger, bpf::map_update(&array, &[0; 4], &place, bpf::BPF_ANY))?;
    let _link = attempt.attach(&caller)?;
    count(attempt, &mut chain, &[("the caller", &caller), ("the one called", &called)])
}
