//! What user space does so that the kernel calls a hook: one small function per recipe, one file per kind of
//! system call.
//!
//! A [`Recipe`] makes everything ready and returns an [`Act`], which can be done again and again and leaves things as
//! it found them. Only what stands inside [`Arm::during`] counts as the trigger: programs act for nobody else.
//! What an act returns from the window, a descriptor say, is dropped after it.

pub mod audit;
pub mod binder;
pub mod cached;
pub mod cachefiles;
pub mod children;
pub mod compat;
pub mod creds;
pub mod devices;
pub mod exec;
pub mod ext4;
pub(crate) mod fault;
pub mod files;
pub mod fuse;
pub mod inodes;
pub mod ipc;
pub mod keys;
pub mod known;
pub mod labels;
pub mod mapper;
pub mod memory;
pub mod modules;
pub mod mounts;
pub mod names;
mod netlink;
pub mod nfs;
pub mod nftables;
pub mod overlay;
pub mod quota;
pub mod sockets;
pub mod system;
pub mod tasks;
pub mod token;
pub(crate) mod uhid;
pub mod uring;
pub mod verity;
pub mod xattrs;
pub mod xfrm;

use crate::errno::Errno;
use crate::patience::Patience;
use crate::results::{NOBODY, RUNS, Results, TARGET};
use crate::rules;
use crate::session::Ended;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Makes a trigger ready. Returns the errno of the preparation that failed.
pub type Recipe = fn() -> Result<Act, Errno>;
/// A trigger that is ready. Returns what the system call under test gave.
pub type Act = Box<dyn FnMut(Arm) -> Result<Seen, Errno>>;

/// What user space saw of a system call that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen(pub &'static str);

/// What was waited for has not come.
const LATE: Errno = Errno::from_raw(libc::ETIMEDOUT);
/// The errnos that an act makes itself, and what each stands for. A kernel could give all but the last, yet none was seen to
/// give one to a system call under test.
const STAND_INS: [(Errno, &str); 4] = [
    (LATE, "what was waited for has not come"),
    (children::DIED, "a child died, or left with what is no errno"),
    (netlink::GARBLED, "an answer over netlink ended before its errno"),
    (Errno::from_raw(0), "what failed left no errno"), // impl From<std::io::Error> for Errno
];

/// What an errno stands for that an act has made itself.
pub(crate) fn stands_for(errno: Errno) -> Option<&'static str> {
    STAND_INS.iter().find(|(known, _)| *known == errno).map(|&(_, what)| what)
}

/// How a case ends whose act could not be made ready.
pub(crate) fn not_ready(what: &str, errno: Errno) -> Ended {
    match stands_for(errno) {
        Some(why) => Ended::could_not(what, why),
        None => Ended::could_not(what, errno),
    }
}

/// The system call succeeded, and nothing more is to be said of it.
pub const OK: Seen = Seen("ok");

/// An act whose success says nothing beyond itself.
fn act<T>(mut body: impl FnMut(Arm) -> Result<T, Errno> + 'static) -> Result<Act, Errno> {
    Ok(Box::new(move |arm| body(arm).map(|_| OK)))
}

/// An act whose success can look in more than one way.
fn act_seen(body: impl FnMut(Arm) -> Result<Seen, Errno> + 'static) -> Result<Act, Errno> {
    Ok(Box::new(body))
}

/// An act that is ready as it is, for probes that make their own.
pub(crate) fn act_that(body: impl FnMut(Arm) -> Result<Seen, Errno> + 'static) -> Act {
    Box::new(body)
}

/// Makes sure that a name is free: a recipe runs once for each case of its probe.
pub(crate) fn vacate(path: &str) -> Result<(), Errno> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A system call that no library at hand wraps.
///
/// # Safety
/// The arguments must be what the system call takes; pointers must be valid for what it does with them.
pub(crate) unsafe fn syscall(number: libc::c_long, args: [usize; 6]) -> Result<libc::c_long, Errno> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the caller's promise.
    Errno::result(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

/// How long the kernel may take to free what nobody holds any more: most of it goes after a grace period.
const FREED: Duration = Duration::from_secs(5);

/// Names the task that programs act for, for as long as the trigger lasts.
#[derive(Clone, Copy)]
pub struct Arm {
    target: *const AtomicU64,
    runs: *const AtomicU64,
}

impl Arm {
    /// For the control run: nobody is named.
    #[must_use]
    pub const fn idle() -> Self {
        Self { target: std::ptr::null(), runs: std::ptr::null() }
    }

    /// Names tasks in `results`, which must outlive every use.
    #[must_use]
    pub fn new(results: &Results) -> Self {
        Self { target: results.cell(TARGET), runs: results.cell(RUNS) }
    }

    /// Whether nobody is to be named.
    #[must_use]
    pub const fn is_idle(self) -> bool {
        self.target.is_null()
    }

    /// Does `act` with the calling process named as target. A child process that a recipe forks calls this itself;
    /// the page is shared with it.
    pub fn during<T>(self, act: impl FnOnce() -> T) -> T {
        self.during_process(std::process::id(), act)
    }

    /// Does `act` with process `pid` named.
    pub fn during_process<T>(self, pid: u32, act: impl FnOnce() -> T) -> T {
        self.during_mark(u64::from(pid), act)
    }

    /// Does `act` with an object named by a mark that it bears.
    pub fn during_mark<T>(self, mark: u64, act: impl FnOnce() -> T) -> T {
        self.store(mark);
        let result = act();
        self.name_nobody();
        result
    }

    /// Lets go of an object that bears `mark`, and waits until a program has run: the kernel frees it some time later.
    pub fn freeing<T>(self, mark: u64, let_go: impl FnOnce() -> T) -> T {
        self.during_mark(mark, || {
            let result = let_go();
            self.until_run(FREED);
            result
        })
    }

    /// Names process `pid`.
    pub fn name(self, pid: u32) {
        self.store(u64::from(pid));
    }

    /// Names nobody.
    pub fn name_nobody(self) {
        self.store(NOBODY);
    }

    fn store(self, target: u64) {
        // SAFETY: null, or a cell of a results page, which is mapped shared and outlives the trigger.
        if let Some(cell) = unsafe { self.target.as_ref() } {
            cell.store(target, Ordering::SeqCst);
        }
    }

    /// Waits, a little, until a program has run: for hooks that the kernel calls some time after the system call.
    pub fn until_run(self, patience: Duration) {
        Patience::new(patience).until(|| !self.waits());
    }

    /// As [`Arm::until_run`], for hooks that the kernel calls when it frees something a grace period later: no longer
    /// than two cgroups, the second made when the first is gone, take to be freed, and a little more.
    ///
    /// Each of these wants a grace period of its own that begins after the system call (5.7 lib/percpu-refcount.c,
    /// `__percpu_ref_switch_to_atomic`), so what was to be freed before is due by then. The little more is for another
    /// processor, which may be behind with it.
    pub fn until_run_or_freed(self, patience: Duration) {
        self.until_run_or(
            patience,
            || rules::let_a_cgroup_die().is_ok(),
            || rules::cgroups_die() == Some(false),
        );
    }

    /// Waits until what was let go of before is freed, as long as [`Arm::until_run_or_freed`] waits for a program that never
    /// runs: before a trigger of which the program cannot tell whose object it is given.
    fn until_freed() {
        let never = AtomicU64::new(0);
        Self { target: std::ptr::null(), runs: &raw const never }.until_run_or_freed(FREED);
    }

    /// Lets something die twice, the second when the first is `gone`, and no longer than `patience`; where nothing can be
    /// made to die, waits it out.
    fn until_run_or(self, patience: Duration, let_one_die: impl Fn() -> bool, gone: impl Fn() -> bool) {
        const BEHIND: Duration = Duration::from_millis(300);
        let mut patience = Patience::new(patience);
        for _ in 0..2 {
            if !self.waits() {
                return;
            }
            if !let_one_die() {
                return patience.until(|| !self.waits());
            }
            patience.until(|| !self.waits() || gone());
        }
        patience.at_most(BEHIND).until(|| !self.waits());
    }

    /// Whether there is a program to wait for that has not run.
    fn waits(self) -> bool {
        // SAFETY: as in `store`.
        unsafe { self.runs.as_ref() }.is_some_and(|runs| runs.load(Ordering::SeqCst) == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::time::Instant;

    const PATIENCE: Duration = Duration::from_millis(40);

    /// A program that has run so often, and when this began.
    fn arm(runs: &AtomicU64) -> (Arm, Instant) {
        (Arm { target: std::ptr::null(), runs }, Instant::now())
    }

    #[test]
    fn a_program_that_never_runs_is_waited_for_no_longer_than_the_patience() {
        let never = AtomicU64::new(0);
        let (arm, begin) = arm(&never);
        arm.until_run(PATIENCE);
        assert!(begin.elapsed() >= PATIENCE, "what is late must be seen");
        for (dies, gone) in [(false, false), (true, false)] {
            let begin = Instant::now();
            arm.until_run_or(PATIENCE, || dies, || gone);
            assert!(begin.elapsed() >= PATIENCE, "dies: {dies}, gone: {gone}");
        }
    }

    /// The second is made to die when the first is gone, and no third.
    #[test]
    fn two_that_died_are_waited_for() {
        let never = AtomicU64::new(0);
        let (made, asked) = (Cell::new(0), Cell::new(0));
        let let_one_die = || {
            assert_eq!(asked.get(), made.get() * 3, "the one before is gone");
            made.set(made.get() + 1);
            true
        };
        let gone = || {
            asked.set(asked.get() + 1);
            asked.get() % 3 == 0
        };
        arm(&never).0.until_run_or(Duration::from_secs(60), let_one_die, gone);
        assert_eq!((made.get(), asked.get()), (2, 6));
    }

    #[test]
    fn a_program_that_has_run_or_that_nobody_made_is_not_waited_for() {
        let once = AtomicU64::new(1);
        for arm in [arm(&once).0, Arm::idle()] {
            arm.until_run(Duration::from_secs(3600));
            arm.until_run_or(Duration::from_secs(3600), || unreachable!("nothing is to die"), || false);
        }
    }

    #[test]
    fn what_a_kernel_answers_stands_for_itself() {
        assert_eq!(stands_for(Errno::EPERM), None);
        assert!(stands_for(LATE).is_some() && stands_for(Errno::from_raw(0)).is_some());
    }

    #[test]
    fn a_program_that_runs_meanwhile_ends_the_wait() {
        let runs = AtomicU64::new(0);
        let gone = || {
            runs.store(1, Ordering::SeqCst);
            false
        };
        arm(&runs).0.until_run_or(Duration::from_secs(3600), || true, gone);
    }
}
