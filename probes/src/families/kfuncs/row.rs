//! What is known of one kfunc: how it is called, what it gives, and which rules can be broken.

use super::body::{Body, OUT};
use super::own::{Holds, Own};
use crate::bpf::BPF_F_SLEEPABLE;
use crate::errno::Errno;
use crate::insn::Reg;
use crate::results::Results;
use crate::session::{Attempt, Ended};
use crate::spec::{ANYBODYS, Source, source};
use std::fs::{self, File};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

/// Code of a program, or a part of it.
pub(super) type Code = Arc<dyn Fn(&mut Body<'_>) + Send + Sync>;
/// Makes user space and the page ready.
pub(super) type Given = Arc<dyn Fn(&mut Results) -> Result<(), Ended> + Send + Sync>;
/// What user space looks at when the program has run.
pub(super) type Look = Box<dyn FnOnce(&mut Attempt<'_>)>;
/// What comes of putting something into the map that a row holds.
pub(super) type Filled = Result<Look, Ended>;
/// Puts into the map that a row holds what only another program can.
pub(super) type Fill = Arc<dyn Fn(&mut Attempt<'_>, &Own) -> Filled + Send + Sync>;
/// Compares what the program left with what user space knows.
pub(super) type Check = Arc<dyn Fn(&mut Attempt<'_>, &Results) + Send + Sync>;
/// Asks the kernel about the program that has run.
pub(super) type Inspection = Arc<dyn Fn(&mut Attempt<'_>, BorrowedFd<'_>) + Send + Sync>;

/// Holds a kfunc's result, once known not to be NULL, in [`Row::then`].
pub(super) const GOT: Reg = Reg::R8;
/// Holds whatever a row keeps across its call.
pub(super) const KEPT: Reg = Reg::R9;
/// The file that the usual trigger opens.
pub(super) const OPENED: &str = ANYBODYS;

/// What a kfunc returns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Returns {
    /// Nothing, or a number.
    Plain,
    /// A pointer that may be NULL (`KF_RET_NULL`).
    Nullable,
    /// A reference (`KF_ACQUIRE`), given back with the kfunc named. NULL must be checked if the flag is set.
    Owned(&'static str, bool),
    /// Nothing, and the call does not return: the program ends there, with this verdict.
    Never(Errno),
}

/// In which programs a kfunc is called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sleep {
    /// Sleepable or not makes no difference to it: both are loaded, and the one that may not sleep runs.
    Either,
    /// It does its work in another way where the program may sleep: both run.
    Both,
    /// The arguments rest on the RCU section that every non-sleepable program is.
    Never,
    /// `KF_SLEEPABLE`.
    Must,
    /// What makes its arguments is `KF_SLEEPABLE`; of itself it is not known.
    ForArguments,
}

impl Sleep {
    /// The flags of the programs whose kind makes no difference to what they show.
    pub(super) const fn flags(self) -> u32 {
        match self {
            Self::Must | Self::ForArguments | Self::Both => BPF_F_SLEEPABLE,
            Self::Either | Self::Never => 0,
        }
    }
}

/// In which machine a row's probe runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Machine {
    /// With the others.
    Shared,
    /// In one of its own.
    Own,
    /// In one of its own, which it may take down.
    Doomed,
}

/// A program that breaks a rule.
#[derive(Clone)]
pub(super) struct Wrong {
    pub(super) name: String,
    pub(super) flags: u32,
    pub(super) kind: WrongKind,
}

/// What is wrong with it.
#[derive(Clone)]
pub(super) enum WrongKind {
    /// A program of its own.
    Body(Code),
    /// The canonical program with code before its arguments are made and code right before the call.
    Spoilt(Code, Code),
    /// A program that should be sleepable and is not. The kernel hears of it from the call alone, before it looks at
    /// what is passed; this is for kernels that look later (6.1).
    NotSleepable(Code),
    /// The canonical program, or one of its own, as another program type: fentry on the hook's own function.
    Fentry(Option<Code>),
    /// The canonical program on another hook.
    On(&'static str),
    /// The canonical program, loaded without a capability (include/uapi/linux/capability.h).
    Without(u32),
}

/// Another way of calling it that is right.
#[derive(Clone)]
pub(super) struct Also {
    pub(super) name: &'static str,
    pub(super) spoil: Code,
    pub(super) expected: i64,
}

/// One kfunc.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) name: &'static str,
    /// What the probe's id has after the kfunc's name, for a second row of the same kfunc.
    pub(super) variant: &'static str,
    pub(super) machine: Machine,
    /// What the program has beside the results page.
    pub(super) holds: Holds,
    /// What the map has before the program runs.
    pub(super) fill: Option<Fill>,
    /// Why the canonical program is loaded and not run.
    pub(super) not_run: Option<&'static str>,
    /// User space has no source for the result, and the record shows it.
    pub(super) shown: bool,
    /// -1 is a number that it gives, and no errno.
    pub(super) minus_one: bool,
    /// Why the canonical call gives NULL.
    pub(super) null: Option<&'static str>,
    /// What the pointer that comes back must be moved by before it is what is given back: it points to a node in an
    /// object of the program's own.
    pub(super) node: i32,
    /// `KF_RELEASE`: the first argument is a reference, gone afterwards.
    pub(super) releases: bool,
    pub(super) sources: Vec<Source>,
    pub(super) hook: &'static str,
    pub(super) act: fn() -> Result<(), Errno>,
    pub(super) sleep: Sleep,
    /// The same call, with arguments that a program makes which does not sleep, where the usual ones take one that does.
    pub(super) awake: Option<Box<Self>>,
    /// Its arguments are protected by RCU only: a program that may sleep calls it in a section of its own.
    pub(super) section: bool,
    pub(super) returns: Returns,
    pub(super) given: Vec<Given>,
    pub(super) before: Code,
    pub(super) after: Option<Code>,
    pub(super) then: Code,
    pub(super) finally: Code,
    pub(super) expected: Option<Arc<dyn Fn() -> Option<i64> + Send + Sync>>,
    pub(super) checks: Vec<Check>,
    pub(super) inspections: Vec<Inspection>,
    pub(super) also: Vec<Also>,
    pub(super) wrong: Vec<Wrong>,
    /// Other programs that are right, as rows of their own, whose intended use is a case of this probe.
    pub(super) others: Vec<(&'static str, Row)>,
    /// Nothing but the misuses is asked: all else stands in another row of the same kfunc.
    pub(super) only_misuses: bool,
}

/// A kfunc that takes nothing and gives nothing, called on `file_open`, with the place of its definition and flags.
pub(super) fn kfunc(name: &'static str, version: &'static str, file: &'static str) -> Row {
    Row {
        name,
        variant: "",
        machine: Machine::Shared,
        holds: Holds::Nothing,
        fill: None,
        not_run: None,
        shown: false,
        minus_one: false,
        null: None,
        node: 0,
        releases: false,
        sources: vec![source(version, file, name)],
        hook: "file_open",
        act: open,
        sleep: Sleep::Either,
        awake: None,
        section: false,
        returns: Returns::Plain,
        given: vec![Arc::new(|_| {
            File::create(OPENED).map(drop).map_err(|error| Ended::could_not("create a file", error))
        })],
        before: nothing(),
        after: None,
        then: nothing(),
        finally: nothing(),
        expected: None,
        checks: Vec::new(),
        inspections: Vec::new(),
        also: Vec::new(),
        wrong: Vec::new(),
        others: Vec::new(),
        only_misuses: false,
    }
}

/// The usual trigger.
fn open() -> Result<(), Errno> {
    File::open(OPENED).map(drop).map_err(Errno::from)
}

/// No code.
pub(super) fn nothing() -> Code {
    Arc::new(|_| {})
}

impl Row {
    /// Makes the arguments, in the argument registers.
    pub(super) fn takes(mut self, code: impl Fn(&mut Body<'_>) + Send + Sync + 'static) -> Self {
        self.before = Arc::new(code);
        self
    }

    /// What comes right after the call, whatever came back: the result is kept in [`GOT`] meanwhile.
    pub(super) fn after(mut self, code: impl Fn(&mut Body<'_>) + Send + Sync + 'static) -> Self {
        self.after = Some(Arc::new(code));
        self
    }

    /// The program has this beside the results page.
    pub(super) fn holds(mut self, holds: Holds) -> Self {
        self.holds = holds;
        self
    }

    /// Before the program runs, this is done to what it holds, and what it gives is called when the program has run.
    pub(super) fn filled(
        mut self,
        fill: impl Fn(&mut Attempt<'_>, &Own) -> Filled + Send + Sync + 'static,
    ) -> Self {
        self.fill = Some(Arc::new(fill));
        self
    }

    /// The pointer that comes back is to a node, `offset` bytes into the object that is given back.
    pub(super) fn node_at(mut self, offset: i32) -> Self {
        self.node = offset;
        self
    }

    /// The canonical program is loaded and not run, for this reason.
    pub(super) fn not_run(mut self, why: &'static str) -> Self {
        self.not_run = Some(why);
        self
    }

    /// It works in another way where the program may sleep, so that the canonical program runs in both.
    pub(super) fn both(mut self) -> Self {
        self.sleep = Sleep::Both;
        self
    }

    /// What happens with the result, which is in [`GOT`], if it is not NULL and as long as it is owned.
    pub(super) fn then(mut self, code: impl Fn(&mut Body<'_>) + Send + Sync + 'static) -> Self {
        self.then = Arc::new(code);
        self
    }

    /// What gives back what [`Row::takes`] acquired, whatever came back. Also ends programs that break a rule, which
    /// must have no other fault.
    pub(super) fn finally(mut self, code: impl Fn(&mut Body<'_>) + Send + Sync + 'static) -> Self {
        self.finally = Arc::new(code);
        self
    }

    /// It returns a reference that may be NULL (`KF_ACQUIRE | KF_RET_NULL`).
    pub(super) fn owned(mut self, release: &'static str) -> Self {
        self.returns = Returns::Owned(release, true);
        self
    }

    /// It returns a reference that is never NULL (`KF_ACQUIRE` alone).
    pub(super) fn owned_never_null(mut self, release: &'static str) -> Self {
        self.returns = Returns::Owned(release, false);
        self
    }

    /// It returns a pointer that may be NULL and is not owned.
    pub(super) fn nullable(mut self) -> Self {
        self.returns = Returns::Nullable;
        self
    }

    /// It gives back the reference that is its first argument (`KF_RELEASE`).
    pub(super) fn releases(mut self) -> Self {
        self.releases = true;
        self
    }

    /// A second row of the same kfunc, told apart by this end of the probe's id.
    pub(super) fn variant(mut self, variant: &'static str) -> Self {
        self.variant = variant;
        self
    }

    /// Run in a machine of its own, because a misuse makes the kernel warn, which it does but once.
    pub(super) fn own_machine(mut self) -> Self {
        self.machine = Machine::Own;
        self
    }

    /// Run apart and last, because a misuse takes some kernels down.
    pub(super) fn crashing(mut self) -> Self {
        self.machine = Machine::Doomed;
        self
    }

    /// The canonical call gives NULL, for this reason.
    pub(super) fn gives_null(mut self, why: &'static str) -> Self {
        self.null = Some(why);
        self
    }

    /// It does not return, and the hook gives this errno.
    pub(super) fn never_returns(mut self, verdict: Errno) -> Self {
        self.returns = Returns::Never(verdict);
        self
    }

    /// It needs a sleepable program.
    pub(super) fn sleepable(mut self) -> Self {
        self.sleep = Sleep::Must;
        self
    }

    /// It needs a sleepable program, and `row` calls it with arguments that need none.
    pub(super) fn sleepable_but_for_its_arguments(mut self, row: Self) -> Self {
        self.awake = Some(Box::new(row));
        self.sleepable()
    }

    /// Its arguments come from kfuncs that need a sleepable program, whatever it needs itself.
    pub(super) fn sleepable_for_its_arguments(mut self) -> Self {
        self.sleep = Sleep::ForArguments;
        self
    }

    /// No hook that has its arguments may sleep.
    pub(super) fn never_sleeps(mut self) -> Self {
        self.sleep = Sleep::Never;
        self
    }

    /// It is called on this hook, which `act` triggers.
    pub(super) fn on(mut self, hook: &'static str, act: fn() -> Result<(), Errno>) -> Self {
        self.hook = hook;
        self.act = act;
        self
    }

    /// Makes user space ready, before anything is loaded.
    pub(super) fn given(
        mut self,
        given: impl Fn(&mut Results) -> Result<(), Ended> + Send + Sync + 'static,
    ) -> Self {
        self.given.push(Arc::new(given));
        self
    }

    /// It returns this number.
    pub(super) fn gives(self, expected: i64) -> Self {
        self.gives_as_known(move || Some(expected))
    }

    /// A -1 that it returns is a number, and not EPERM.
    pub(super) fn minus_one_is_a_number(mut self) -> Self {
        self.minus_one = true;
        self
    }

    /// It returns a number or an errno, which the record shows: which one is the kernel's business.
    pub(super) fn shows_result(mut self) -> Self {
        self.shown = true;
        self
    }

    /// It returns the number that user space finds elsewhere; `None` when it cannot find it.
    pub(super) fn gives_as_known(
        mut self,
        expected: impl Fn() -> Option<i64> + Send + Sync + 'static,
    ) -> Self {
        self.expected = Some(Arc::new(expected));
        self
    }

    /// The slot at `OUT` plus 8 times `slot`, written by [`Row::then`], is what user space knows as `key`.
    pub(super) fn leaves(
        self,
        key: &'static str,
        slot: i32,
        known: impl Fn() -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        self.checks(move |attempt, results| match known() {
            Some(known) => attempt.same(key, results.get(OUT + 8 * slot), known),
            None => attempt.see(key, "user space could not find out"),
        })
    }

    /// Compares by hand.
    pub(super) fn checks(
        mut self,
        check: impl Fn(&mut Attempt<'_>, &Results) + Send + Sync + 'static,
    ) -> Self {
        self.checks.push(Arc::new(check));
        self
    }

    /// Of what it does nothing is looked at but that the call comes back, which the record says.
    pub(super) fn effect_not_looked_at(self) -> Self {
        self.checks(|attempt, _| attempt.see("its effect", "not looked at"))
    }

    /// Asks the kernel about the program that has run.
    pub(super) fn inspects(
        mut self,
        inspection: impl Fn(&mut Attempt<'_>, BorrowedFd<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.inspections.push(Arc::new(inspection));
        self
    }

    /// Called with other arguments, which `code` changes right before the call, it returns `expected`.
    pub(super) fn also(
        mut self,
        name: &'static str,
        expected: i64,
        code: impl Fn(&mut Body<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.also.push(Also { name, spoil: Arc::new(code), expected });
        self
    }

    /// Run as another row has it, in the case `name` of this one's probe.
    pub(super) fn other(mut self, name: &'static str, row: Row) -> Self {
        self.others.push((name, row));
        self
    }

    /// Only the misuses that follow are asked about, for a second row that is there for them.
    pub(super) fn only_misuses(mut self) -> Self {
        self.only_misuses = true;
        self.wrong.clear();
        self
    }

    /// Cites another place in the kernel's source.
    pub(super) fn cites(mut self, source: Source) -> Self {
        self.sources.push(source);
        self
    }
}

/// The inode number of a path.
pub(super) fn inode(path: &str) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}
