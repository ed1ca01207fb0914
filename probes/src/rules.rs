//! What the families about rules share: a hook with its trigger, programs whose verdict is set from outside, rounds of
//! the trigger, and programs of other types on the same functions. Not a family itself.

use crate::asm::Asm;
use crate::bpf::{self, BPF_LSM_CGROUP, BPF_PROG_TYPE_TRACING, ProgSpec};
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{Attached, CTX, LsmProgram, PAGE, frame};
use crate::patience::Patience;
use crate::record::Phase;
use crate::results::{FREE, RUNS, Results};
use crate::session::{Attempt, Ended};
use crate::triggers::{Act, Arm, Recipe, Seen, exec, files, tasks};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

mod round;
pub(crate) mod signer;
mod state;

pub(crate) use round::Round;
pub(crate) use state::{BARE, UNPRIVILEGED_DISABLED, bare_is_held, without_trampoline};

/// Number of calls so far. Counted without an atomic operation, which before 5.12 would not give the number back:
/// programs act for one task, which is in one of them at a time.
const SEQUENCE: i32 = FREE;
/// The names of programs, by the order of attaching.
pub(crate) const NTH: [&str; 4] = ["first", "second", "third", "fourth"];

/// A hook and what makes the kernel call it.
#[derive(Clone, Copy)]
pub(crate) struct Site {
    /// The hook's name, without `bpf_lsm_`.
    pub(crate) hook: &'static str,
    /// Which slot of the context is `ret`; none for a void hook.
    pub(crate) ret: Option<i32>,
    /// The trigger.
    pub(crate) recipe: Recipe,
}

/// An int hook with one argument that nothing else calls, and where no verdict can harm: the value that
/// `security_task_getsid` returns is what getsid(2) returns (7.3 kernel/sys.c, getsid).
pub(crate) const SESSION: Site = Site { hook: "task_getsid", ret: Some(1), recipe: tasks::get_session };
/// An int hook that takes sleepable programs.
pub(crate) const OPEN: Site = Site { hook: "file_open", ret: Some(1), recipe: files::open };
/// The only hook that takes sleepable programs on every kernel that has them; [`OPEN`] does since 5.11 (5.10
/// kernel/bpf/verifier.c, btf_sleepable_lsm_hooks). A void one.
pub(crate) const EXEC: Site = Site { hook: "bprm_committed_creds", ret: None, recipe: exec::execve };
/// A void hook.
pub(crate) const VOID: Site = Site { hook: "file_set_fowner", ret: None, recipe: files::setown };

impl Site {
    /// The trigger, ready, and done once without anybody named.
    pub(crate) fn ready(&self) -> Result<Act, Ended> {
        let mut act = (self.recipe)().map_err(|errno| Ended::could_not("make the trigger ready", errno))?;
        act(Arm::idle()).map_err(|errno| Ended::could_not("do the trigger without a program", errno))?;
        Ok(act)
    }
}

/// The places in the results page of the program with this number.
#[derive(Clone, Copy)]
pub(crate) struct Place(i32);

impl Place {
    /// The program attached first is number 0.
    pub(crate) const fn nth(number: i32) -> Self {
        Self(FREE + 16 + number * 32)
    }

    const fn order(self) -> i32 {
        self.0
    }

    const fn ret(self) -> i32 {
        self.0 + 8
    }

    /// Where the verdict stands that the program is to return.
    pub(crate) const fn verdict(self) -> i32 {
        self.0 + 16
    }

    /// A value that the program leaves besides.
    pub(crate) const fn extra(self) -> i32 {
        self.0 + 24
    }
}

/// Notes at `place` when the program ran and what `ret` was.
pub(crate) fn note(asm: &mut Asm, place: Place, ret: Option<i32>) {
    asm.ldx(Size::DW, Reg::R1, PAGE, SEQUENCE)
        .add_imm(Reg::R1, 1)
        .stx(Size::DW, PAGE, SEQUENCE, Reg::R1)
        .stx(Size::DW, PAGE, place.order(), Reg::R1);
    if let Some(slot) = ret {
        asm.ldx(Size::DW, Reg::R1, CTX, 8 * slot).stx(Size::DW, PAGE, place.ret(), Reg::R1);
    }
}

/// Returns the verdict that stands at `place`; bounded, as the verifier demands of int hooks since 6.11.
pub(crate) fn judge(asm: &mut Asm, place: Place) {
    judge_by(asm, place.verdict());
}

/// As [`judge`], with the verdict that stands at this offset of the page.
pub(crate) fn judge_by(asm: &mut Asm, verdict: i32) {
    asm.ldx(Size::DW, Reg::R0, PAGE, verdict)
        .jsgt_imm(Reg::R0, 0, "pass")
        .jslt_imm(Reg::R0, -4095, "pass")
        .exit();
}

/// A program that notes its run and returns the verdict that is set for it.
pub(crate) fn member(site: &Site, results: &Results, number: i32) -> LsmProgram {
    let place = Place::nth(number);
    LsmProgram::framed(site.hook, results, |asm| {
        note(asm, place, site.ret);
        if site.ret.is_some() {
            judge(asm, place);
        }
    })
}

/// A program that notes its run and returns this number, whatever it is.
pub(crate) fn saying(site: &Site, results: &Results, number: i32, verdict: u64) -> LsmProgram {
    LsmProgram::framed(site.hook, results, |asm| {
        note(asm, Place::nth(number), site.ret);
        asm.ld_imm64(Reg::R0, verdict).exit();
    })
}

/// A tracing program for the kernel function `function`, framed as an LSM program is.
pub(crate) fn tracing(
    attempt: &mut Attempt<'_>,
    function: &str,
    attach_type: u32,
    results: &Results,
    body: impl FnOnce(&mut Asm),
) -> Result<OwnedFd, Ended> {
    let id =
        attempt.btf()?.function(function).ok_or_else(|| Ended::Absent(format!("function {function}")))?;
    let asm = LsmProgram::framed(function, results, body).asm;
    attempt.load(&ProgSpec {
        expected_attach_type: attach_type,
        attach_btf_id: id,
        ..ProgSpec::new(BPF_PROG_TYPE_TRACING, function, insns(&asm)?)
    })
}

/// The instructions of a program.
pub(crate) fn insns(asm: &Asm) -> Result<Vec<crate::insn::Insn>, Ended> {
    asm.finish().map_err(|error| Ended::could_not("assemble the program", error))
}

/// Several programs on one hook, and its trigger.
pub(crate) struct Chain {
    /// The page.
    pub(crate) results: Results,
    /// The programs, by order of attaching; what is taken out is detached.
    pub(crate) attached: Vec<Option<Attached>>,
    /// The trigger.
    act: Act,
    site: Site,
}

impl Chain {
    /// A chain without programs.
    pub(crate) fn new(attempt: &mut Attempt<'_>, site: Site) -> Result<Self, Ended> {
        attempt.hook(site.hook)?;
        let mut results = attempt.results()?;
        results.name_nobody();
        let act = site.ready()?;
        Ok(Self { results, attached: Vec::new(), act, site })
    }

    /// A chain of `count` programs whose verdicts are set round by round.
    pub(crate) fn of(attempt: &mut Attempt<'_>, site: Site, count: i32) -> Result<Self, Ended> {
        let mut chain = Self::new(attempt, site)?;
        for _ in 0..count {
            chain.add(attempt, |program| program)?;
        }
        Ok(chain)
    }

    /// The number that the next program has.
    pub(crate) fn next(&self) -> i32 {
        i32::try_from(self.attached.len()).unwrap_or(0)
    }

    /// Attaches one more program, after `change`.
    pub(crate) fn add(
        &mut self,
        attempt: &mut Attempt<'_>,
        change: impl FnOnce(LsmProgram) -> LsmProgram,
    ) -> Result<(), Ended> {
        let program = change(member(&self.site, &self.results, self.next()));
        self.push(attempt, &program)
    }

    /// Attaches this program as the next one.
    pub(crate) fn push(&mut self, attempt: &mut Attempt<'_>, program: &LsmProgram) -> Result<(), Ended> {
        let attached = attempt.attach_lsm(program)?;
        self.attached.push(Some(attached));
        Ok(())
    }

    /// Attaches a program to the root of the cgroups that denies the hook, besides those of the chain.
    pub(crate) fn deny_in_root(&self, attempt: &mut Attempt<'_>) -> Result<Attached, Ended> {
        let asm = cgroup_frame(&self.results, |asm| {
            asm.mov_imm(Reg::R0, 0).exit();
        });
        let program = attempt.load_lsm(&LsmProgram::of_cgroup(self.site.hook, asm))?;
        let root = Cgroup::root()?;
        let link = bpf::link_create_raw(&program, root.as_fd().as_raw_fd(), BPF_LSM_CGROUP, 0, 0);
        let link = attempt.calls(Phase::Attach, link)?;
        Ok(Attached { program, link })
    }

    /// Detaches a program; the others keep their numbers.
    pub(crate) fn detach(&mut self, number: usize) {
        if let Some(slot) = self.attached.get_mut(number) {
            *slot = None;
        }
    }

    /// Sets the verdicts and does the trigger once.
    pub(crate) fn round(&mut self, attempt: &mut Attempt<'_>, verdicts: &[i32]) -> Round {
        self.set(verdicts);
        let arm = Arm::new(&self.results);
        let outcome = attempt.trigger(|| (self.act)(arm));
        self.read(outcome)
    }

    /// As [`Chain::round`], with another trigger.
    pub(crate) fn round_of(&mut self, attempt: &mut Attempt<'_>, act: &mut Act, verdicts: &[i32]) -> Round {
        self.set(verdicts);
        let arm = Arm::new(&self.results);
        let outcome = attempt.trigger(|| act(arm));
        self.read(outcome)
    }

    /// Sets the verdicts, for a trigger that the probe does itself.
    pub(crate) fn set_verdicts(&mut self, verdicts: &[i32]) {
        self.set(verdicts);
    }

    fn set(&mut self, verdicts: &[i32]) {
        for number in 0..8 {
            let place = Place::nth(number);
            self.results.set(place.order(), 0);
            self.results.set(place.ret(), 0);
        }
        for (number, &verdict) in (0..).zip(verdicts) {
            self.results.set(Place::nth(number).verdict(), i64::from(verdict).cast_unsigned());
        }
    }

    fn read(&self, outcome: Result<Seen, Errno>) -> Round {
        let mut ran: Vec<(u64, usize, i64)> = (0..8)
            .map(|number| {
                let place = Place::nth(number);
                let ret = self.results.get(place.ret()).cast_signed();
                (self.results.get(place.order()), usize::try_from(number).unwrap_or(0), ret)
            })
            .filter(|&(order, ..)| order != 0)
            .collect();
        ran.sort_unstable();
        Round { ran: ran.into_iter().map(|(_, number, ret)| (number, ret)).collect(), outcome }
    }

    /// Whether any program has run so far.
    pub(crate) fn has_run(&self) -> bool {
        self.results.get(RUNS) != 0
    }
}

/// `ok`, or the errno.
pub(crate) fn outcome_word<T>(outcome: &Result<T, Errno>) -> String {
    outcome.as_ref().map_or_else(|errno| errno.name(), |_| "ok".to_owned())
}

/// A verdict as a person writes it.
pub(crate) fn verdict_word(verdict: i32) -> String {
    if verdict < 0 { format!("-{}", Errno::from_raw(verdict)) } else { verdict.to_string() }
}

/// Attaches a program of any type that names its function, without a link's options.
pub(crate) fn attach_raw(program: &OwnedFd) -> Result<OwnedFd, Errno> {
    bpf::raw_tracepoint_open(program, None, 0)
}

/// Where the second hierarchy of cgroups is mounted in the guest.
pub(crate) const ROOT_CGROUP: &str = "/sys/fs/cgroup";

/// The frame of [`LsmProgram::framed`] for programs of a cgroup, which allow with 1.
pub(crate) fn cgroup_frame(results: &Results, body: impl FnOnce(&mut Asm)) -> Asm {
    frame(results, 1, body)
}

/// Tries again and again until `done`, at most five seconds: for what the kernel does after a grace period.
pub(crate) fn until(done: impl FnMut() -> bool) {
    Patience::new(Duration::from_secs(5)).until(done);
}

/// A cgroup below the root, with the processes that were put into it; removed when it is dropped.
pub(crate) struct Cgroup {
    path: PathBuf,
    folder: File,
}

impl Cgroup {
    /// Makes one with this path below the root.
    pub(crate) fn new(path: &str) -> Result<Self, Ended> {
        let path = Path::new(ROOT_CGROUP).join(path);
        remove_below(&path);
        fs::create_dir(&path).map_err(|error| Ended::could_not("make a cgroup", error))?;
        let folder = File::open(&path).map_err(|error| Ended::could_not("open a cgroup", error))?;
        Ok(Self { path, folder })
    }

    /// The root.
    pub(crate) fn root() -> Result<Self, Ended> {
        let path = PathBuf::from(ROOT_CGROUP);
        let folder = File::open(&path).map_err(|error| Ended::could_not("open the root cgroup", error))?;
        Ok(Self { path, folder })
    }

    /// Moves this process into it.
    pub(crate) fn enter(&self) -> Result<(), Ended> {
        fs::write(self.path.join("cgroup.procs"), "0")
            .map_err(|error| Ended::could_not("enter a cgroup", error))
    }

    /// The same cgroup once more, which is not removed by this.
    pub(crate) fn again(&self) -> Result<Self, Ended> {
        let folder = self.folder.try_clone().map_err(|error| Ended::could_not("open a cgroup", error))?;
        Ok(Self { path: PathBuf::from(ROOT_CGROUP), folder })
    }

    /// Its id: the inode number of its folder.
    pub(crate) fn id(&self) -> Result<u64, Ended> {
        use std::os::unix::fs::MetadataExt;
        let facts = self.folder.metadata().map_err(|error| Ended::could_not("stat a cgroup", error))?;
        Ok(facts.ino())
    }

    /// Removes it now.
    pub(crate) fn remove(&self) -> Result<(), Errno> {
        fs::remove_dir(&self.path).map_err(Errno::from)
    }
}

/// Removes what a probe that died has left of a cgroup and its children.
fn remove_below(path: &Path) {
    let children = fs::read_dir(path).into_iter().flatten().flatten();
    for child in children.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_below(&child.path());
    }
    let _ = fs::remove_dir(path);
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.path != Path::new(ROOT_CGROUP) {
            let _ = fs::write(Path::new(ROOT_CGROUP).join("cgroup.procs"), "0");
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Keeps the calling thread on one processor, counted from 0.
pub(crate) fn stay_on(processor: usize) -> nix::Result<()> {
    let mut one = CpuSet::new();
    one.set(processor)?;
    sched_setaffinity(Pid::from_raw(0), &one)
}

/// Waits until the cgroups that were removed are freed. A worker frees them, some grace periods later, and takes their
/// storage apart with the processor's `bpf_cgrp_storage_busy` raised: a program that the same processor runs just then
/// gets no value (6.3 kernel/cgroup/cgroup.c, `css_free_rwork_fn`; kernel/bpf/bpf_cgrp_storage.c,
/// `bpf_cgrp_storage_trylock`; seen once in 37,000 records).
pub(crate) fn let_cgroups_be_freed() {
    until(|| cgroups_die() != Some(true));
    // From here the worker has one grace period to wait for; then it comes before a process with next to no share of the
    // processor.
    let idle = libc::sched_param { sched_priority: 0 };
    // SAFETY: plain numbers, and a structure that outlives the calls. What a kernel refuses is left as it is.
    unsafe {
        libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0);
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const idle);
        libc::sched_yield();
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const idle);
    }
}

/// Whether cgroups that were removed are still to be freed, if the kernel tells.
pub(crate) fn cgroups_die() -> Option<bool> {
    let stat = fs::read_to_string(Path::new(ROOT_CGROUP).join("cgroup.stat")).ok()?;
    stat.lines().find_map(|line| line.strip_prefix("nr_dying_descendants ")).map(|number| number != "0")
}

/// Makes a cgroup and removes it, so that there is one to be freed.
pub(crate) fn let_a_cgroup_die() -> std::io::Result<()> {
    let path = Path::new(ROOT_CGROUP).join("freed");
    fs::create_dir(&path)?;
    fs::remove_dir(&path)
}

/// Does `body` in a child process, and waits for its end. The child must not attach what is to last, nor panic.
pub(crate) fn in_child(body: impl FnOnce()) -> Result<(), Ended> {
    let child = start_child(body)?;
    waitpid(child, None).map(drop).map_err(|errno| Ended::could_not("wait for the child", errno))
}

/// Starts a child process that does `body` and ends.
pub(crate) fn start_child(body: impl FnOnce()) -> Result<Pid, Ended> {
    // SAFETY: a probe's process has one thread, so its child may do anything a fresh process may.
    match unsafe { fork() }.map_err(|errno| Ended::could_not("start a child", errno))? {
        ForkResult::Child => {
            body();
            // SAFETY: _exit takes a plain number and does not return.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => Ok(child),
    }
}

/// Every sequence of `length` verdicts out of `choices`.
pub(crate) fn sequences(length: usize, choices: &[i32]) -> Vec<Vec<i32>> {
    let mut all = vec![Vec::new()];
    for _ in 0..length {
        all = all
            .into_iter()
            .flat_map(|head: Vec<i32>| {
                choices.iter().map(move |&next| head.iter().copied().chain([next]).collect())
            })
            .collect();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_all_there_in_order() {
        assert_eq!(sequences(2, &[0, -1]), [[0, 0], [0, -1], [-1, 0], [-1, -1]]);
        assert_eq!(sequences(4, &[0, -1, -13]).len(), 81);
    }
}
