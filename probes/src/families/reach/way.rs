//! A way for user space to do something, and the programs that watch it: one per hook, each with a count and a verdict of
//! its own in the results page.

use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{LsmProgram, PAGE, Running, deny};
use crate::results::{FREE, Results};
use crate::rules::judge_by;
use crate::session::{Attempt, Ended};
use crate::triggers::uring::Ring;
use crate::triggers::{Arm, not_ready, stands_for};

/// One way to do what a probe is about.
#[derive(Clone, Copy)]
pub(super) struct Way {
    /// The case's name.
    pub(super) name: &'static str,
    /// Makes it ready.
    ready: fn() -> Result<Doing, Errno>,
    /// What a kernel answers that has no such way, if some have not.
    lacking: &'static [i32],
    /// In which of several calls it does; empty for the one that the way is about.
    step: &'static str,
    /// What a kernel answers that is built without it, and the option without which it is.
    option: Option<(i32, &'static str)>,
    /// Whether each of several calls of one hook is denied alone, too.
    each_call: bool,
    /// Whether a worker of io_uring may do it.
    by_worker: bool,
}

/// A way that is ready: it can be done again and again, and puts back what it has changed, also when it fails. Programs act
/// for what stands inside [`Arm::during`].
pub(super) type Doing = Box<dyn FnMut(Arm) -> Result<String, Failed>>;

/// What user space saw of something that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// A system call did.
    Call {
        /// The errno.
        errno: Errno,
        /// Which of several calls gave it; empty if there is one.
        call: &'static str,
    },
    /// A child was ended by this, a signal as a rule.
    Ended(&'static str),
}

impl<T: Into<Errno>> From<T> for Failed {
    fn from(errno: T) -> Self {
        Self::Call { errno: errno.into(), call: "" }
    }
}

/// Says which of several calls failed.
pub(super) trait Step<T> {
    /// `call` is the one.
    fn step(self, call: &'static str) -> Result<T, Failed>;
}

impl<T, E: Into<Errno>> Step<T> for Result<T, E> {
    fn step(self, call: &'static str) -> Result<T, Failed> {
        self.map_err(|errno| Failed::Call { errno: errno.into(), call })
    }
}

impl Way {
    /// A way that every kernel has.
    pub(super) const fn new(name: &'static str, ready: fn() -> Result<Doing, Errno>) -> Self {
        Self { name, ready, lacking: &[], step: "", option: None, each_call: false, by_worker: false }
    }

    /// The same, where kernels that do not have it answer with one of these.
    pub(super) const fn lacking(mut self, errnos: &'static [i32]) -> Self {
        self.lacking = errnos;
        self
    }

    /// The same, where they do so in this of several calls.
    pub(super) const fn in_step(mut self, call: &'static str) -> Self {
        self.step = call;
        self
    }

    /// The same, where kernels that are built without `CONFIG_` and this option answer with this.
    pub(super) const fn of_option(mut self, errno: i32, option: &'static str) -> Self {
        self.option = Some((errno, option));
        self
    }

    /// The same, where a worker of io_uring may do it, for which programs act if it is a thread of this process.
    pub(super) const fn by_worker(mut self) -> Self {
        self.by_worker = true;
        self
    }

    /// The same, where it matters which of several calls of a hook is denied.
    pub(super) const fn call_by_call(mut self) -> Self {
        self.each_call = true;
        self
    }
}

/// Whether programs that act for this process act for io_uring's workers.
fn own_workers() -> Result<bool, Errno> {
    Ok(Ring::new()?.has_native_workers())
}

/// A way that is ready.
pub(super) fn doing(body: impl FnMut(Arm) -> Result<String, Failed> + 'static) -> Result<Doing, Errno> {
    Ok(Box::new(body))
}

/// A way of which nothing more is to be said when it succeeds.
pub(super) fn plain<T>(mut body: impl FnMut(Arm) -> Result<T, Failed> + 'static) -> Result<Doing, Errno> {
    doing(move |arm| body(arm).map(|_| "ok".to_owned()))
}

/// What user space saw.
type Outcome = Result<String, Failed>;

/// Nothing, if that is an answer.
///
/// # Errors
/// [`Ended::CouldNotTell`] for an errno that the way has made itself.
fn answered(outcome: &Outcome) -> Result<(), Ended> {
    let Err(Failed::Call { errno, .. }) = outcome else { return Ok(()) };
    match stands_for(*errno) {
        Some(why) => Err(Ended::CouldNotTell(format!("the way gave no answer: {why}"))),
        None => Ok(()),
    }
}

/// What user space saw, in words.
fn words(outcome: &Outcome) -> String {
    match outcome {
        Ok(seen) => seen.clone(),
        Err(Failed::Call { errno, call: "" }) => errno.name(),
        Err(Failed::Call { errno, call }) => format!("{errno} from {call}"),
        Err(Failed::Ended(signal)) => format!("the child is ended by {signal}"),
    }
}

/// Programs on several hooks.
pub(super) struct Watch {
    results: Results,
    /// The hooks that have a program.
    hooks: Vec<&'static str>,
    _running: Vec<Running>,
}

/// Where the number of the one call stands that is denied; 0 stands for all.
const CALL: i32 = FREE;

/// Where the count of hook number `nth` stands; its verdict is behind it.
fn place(nth: usize) -> i32 {
    FREE + 16 + 16 * i32::try_from(nth).unwrap_or(0)
}

fn verdict(nth: usize) -> i32 {
    place(nth) + 8
}

impl Watch {
    /// Attaches a program to each of the hooks that there are and that take one, and notes which do.
    pub(super) fn new(attempt: &mut Attempt<'_>, names: &[&'static str]) -> Result<Self, Ended> {
        let mut results = attempt.results()?;
        results.name_nobody();
        let (mut hooks, mut running) = (Vec::new(), Vec::new());
        for &name in names {
            if let Err(Ended::Absent(_)) = attempt.hook(name) {
                attempt.see(name, "no such hook");
                continue;
            }
            let nth = hooks.len();
            let program = LsmProgram::framed(name, &results, |asm| {
                asm.mov_imm(Reg::R1, 1)
                    .atomic_add(Size::DW, PAGE, place(nth), Reg::R1)
                    .ldx(Size::DW, Reg::R1, PAGE, place(nth))
                    .ldx(Size::DW, Reg::R2, PAGE, CALL)
                    .jeq_imm(Reg::R2, 0, "judge")
                    .jne_reg(Reg::R1, Reg::R2, "pass")
                    .label("judge");
                judge_by(asm, verdict(nth));
            });
            // A kernel may take no program on a hook that it has; the others are asked about all the same.
            let spec = attempt.spec(&program)?;
            let loaded = match attempt.ask(&spec, 1) {
                Ok(loaded) => loaded.fd,
                refused @ Err(_) => {
                    attempt.answer(name, &refused);
                    continue;
                }
            };
            attempt.loaded(true, "");
            let runs = attempt.run_loaded(&program, loaded)?;
            let how = match runs {
                Running::Attached { .. } => "attached",
                Running::Called { .. } => "called by the program that is attached",
            };
            attempt.see(name, how);
            running.push(runs);
            hooks.push(name);
        }
        Ok(Self { results, hooks, _running: running })
    }

    /// A case: the way by itself, with programs that let it pass, and with each of the programs denying it in turn.
    pub(super) fn ask(&mut self, attempt: &mut Attempt<'_>, way: &Way) -> Result<(), Ended> {
        let mut doing = (way.ready)().map_err(|errno| not_ready("make the way ready", errno))?;
        let alone = attempt.trigger(|| doing(Arm::idle()));
        answered(&alone)?;
        attempt.see("by itself", words(&alone));
        if let Err(failed) = alone {
            if let (Failed::Call { errno, .. }, Some((without, option))) = (failed, way.option)
                && errno.raw() == without
            {
                return Err(Ended::CouldNotTell(format!("the kernel is built without CONFIG_{option}")));
            }
            let lacks = |errno: Errno| way.lacking.contains(&errno.raw());
            return if matches!(failed, Failed::Call { errno, call } if call == way.step && lacks(errno)) {
                attempt.see("that is", "what a kernel says that has no such way");
                Ok(())
            } else {
                Err(Ended::could_not("do it without a program", words(&alone)))
            };
        }
        if way.by_worker && !own_workers().map_err(|errno| Ended::could_not("make a ring", errno))? {
            let why = "a worker of io_uring is a thread of the kernel here, for which these programs do not act; \
                       context/current-of-io_uring has what others see";
            return Err(Ended::CouldNotTell(why.to_owned()));
        }
        let (passed, counts) = self.round(attempt, &mut doing, None, 0)?;
        if passed != alone {
            attempt.see("with programs that let it pass", words(&passed));
        }
        attempt.ran(counts.iter().any(|&count| count > 0));
        let mut best = Effect::None;
        for (nth, hook) in self.hooks.clone().into_iter().enumerate() {
            let (denied, again) = self.round(attempt, &mut doing, Some(nth), 0)?;
            let count = counts.get(nth).copied().unwrap_or(0);
            let called = count > 0 || again.get(nth).is_some_and(|&count| count > 0);
            let said = match (called, denied == alone) {
                (false, true) => "not called".to_owned(),
                (false, false) => format!("not called; when it is to deny: {}", words(&denied)),
                (true, _) => format!("calls {count}; when it denies: {}", words(&denied)),
            };
            attempt.see(hook, said);
            if called {
                best = best.max(Effect::of(&denied, &alone));
            }
            for call in (1..=count).filter(|_| way.each_call && count > 1) {
                let (denied, _) = self.round(attempt, &mut doing, Some(nth), call)?;
                attempt.see(&format!("{hook}, when it denies call {call} alone"), words(&denied));
            }
        }
        best.note(attempt);
        Ok(())
    }

    /// Does it once, with the program on hook number `denies` denying `call`. Gives what user space saw, and how often each of the
    /// hooks was called.
    ///
    /// # Errors
    /// As [`answered`].
    fn round(
        &mut self,
        attempt: &mut Attempt<'_>,
        doing: &mut Doing,
        denies: Option<usize>,
        call: u64,
    ) -> Result<(Outcome, Vec<u64>), Ended> {
        for nth in 0..self.hooks.len() {
            let value = if denies == Some(nth) { i64::from(deny(Errno::EPERM)) } else { 0 };
            self.results.set(place(nth), 0);
            self.results.set(verdict(nth), value.cast_unsigned());
        }
        self.results.set(CALL, call);
        let arm = Arm::new(&self.results);
        let outcome = attempt.trigger(|| doing(arm));
        self.results.name_nobody();
        let counts = (0..self.hooks.len()).map(|nth| self.results.get(place(nth))).collect();
        answered(&outcome)?;
        Ok((outcome, counts))
    }
}

/// What became of a denial, of several the one that shows most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    /// No program ran that denied.
    None,
    /// Nothing.
    Nothing,
    /// What the way has done is not what it does by itself.
    Alone,
    /// Another errno.
    Another,
    /// The program's errno.
    Errno,
}

impl Effect {
    fn of(denied: &Outcome, alone: &Outcome) -> Self {
        match denied {
            Err(Failed::Call { errno: Errno::EPERM, .. }) => Self::Errno,
            Err(Failed::Call { .. }) => Self::Another,
            Ok(_) | Err(Failed::Ended(_)) if denied != alone => Self::Alone,
            Ok(_) | Err(Failed::Ended(_)) => Self::Nothing,
        }
    }

    fn note(self, attempt: &mut Attempt<'_>) {
        let as_if: Result<u8, Errno> = match self {
            Self::None => return,
            Self::Nothing => Ok(0),
            Self::Alone => Ok(1),
            Self::Another => Err(Errno::EACCES),
            Self::Errno => Err(Errno::EPERM),
        };
        attempt.denied_as(&as_if, &0, Errno::EPERM);
    }
}
