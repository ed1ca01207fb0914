//! What a probe's function works with: a [`Session`], and in it one [`Attempt`] per case.
//!
//! An attempt keeps track of the phase, so that whatever ends it early (`?`) is recorded with the phase it ended in,
//! the errno and the verifier's log. A probe that just returns `Ok` from a case says: it came through.

use crate::bpf::{self, LoadError, Loaded, MapSpec, ProgSpec};
use crate::btf::Btf;
use crate::channel::Crumb;
use crate::errno::Errno;
use crate::insn::{self, Insn};
use crate::record::{Case, End, Phase, ProgramDump};
use crate::results::Results;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

mod kernel;
mod sink;

pub use kernel::Kernel;
pub use sink::Sink;

thread_local! {
    /// The descriptors of the links that [`Attempt::attach`] made in this process, since [`forget_links`].
    static LINKS: RefCell<Vec<RawFd>> = const { RefCell::new(Vec::new()) };
}

/// The descriptors of the links that this process has made; some may be closed again, or others by now.
pub(crate) fn links() -> Vec<RawFd> {
    LINKS.with_borrow(Clone::clone)
}

/// A process begins, in memory where others have made links before it.
pub(crate) fn forget_links() {
    LINKS.with_borrow_mut(Vec::clear);
}

/// Why a probe as a whole could not tell.
#[derive(Debug)]
pub struct Stop(pub String);

/// A probe's view of the kernel it runs on, and the place where its cases go.
pub struct Session<'a> {
    kernel: &'a Kernel,
    crumb: Crumb,
    detail: bool,
    sink: &'a mut Sink,
    held: &'a [String],
    names: BTreeSet<String>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        kernel: &'a Kernel,
        crumb: Crumb,
        detail: bool,
        sink: &'a mut Sink,
        held: &'a [String],
    ) -> Self {
        Self { kernel, crumb, detail, sink, held, names: BTreeSet::new() }
    }

    /// The ids of the probes of which PID 1 holds links, so that their programs are still attached; see
    /// [`crate::families::Family::lingers`].
    #[must_use]
    pub const fn held(&self) -> &'a [String] {
        self.held
    }

    /// The kernel.
    #[must_use]
    pub const fn kernel(&self) -> &'a Kernel {
        self.kernel
    }

    /// Writes bytes to PID 1 as they are; for the self-test that shows what comes of it.
    pub(crate) fn write_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        std::io::Write::write_all(self.sink.pipe(), bytes)
    }

    /// Runs one case and sends it on its way, however it ends.
    ///
    /// # Errors
    /// [`Stop`] when the name is used twice or the case cannot be sent.
    pub fn case(
        &mut self,
        name: &str,
        body: impl FnOnce(&mut Attempt<'_>) -> Result<(), Ended>,
    ) -> Result<(), Stop> {
        let said = self.run(name, body)?;
        self.sink.say(&said).map_err(|error| Stop(format!("cannot send the case {name}: {error}")))
    }

    fn run(
        &mut self,
        name: &str,
        body: impl FnOnce(&mut Attempt<'_>) -> Result<(), Ended>,
    ) -> Result<crate::guest::Said, Stop> {
        if !self.names.insert(name.to_owned()) {
            return Err(Stop(format!("the probe has two cases named {name}")));
        }
        let mut attempt = Attempt::new(self.kernel, name, self.crumb, self.detail);
        attempt.at(Phase::Open);
        let started = Instant::now();
        let ended = body(&mut attempt);
        let mut case = attempt.finish(ended);
        case.micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        Ok(crate::guest::Said::Case(Box::new(case)))
    }
}

/// Why a case ended before its body did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The kernel said no, in the phase that the attempt was in.
    Refused(Errno),
    /// What the case asks about is not in this kernel.
    Absent(String),
    /// The question could not be answered.
    CouldNotTell(String),
}

impl Ended {
    /// [`Ended::Absent`] of the helper with this number.
    #[must_use]
    pub fn no_helper(number: u32) -> Self {
        Self::Absent(format!("helper bpf_{}", crate::helper::name(number).unwrap_or("unknown")))
    }

    /// [`Ended::CouldNotTell`] with what was attempted and why it failed.
    pub fn could_not(what: &str, why: impl std::fmt::Display) -> Self {
        Self::CouldNotTell(format!("could not {what}: {why}"))
    }
}

/// A case under way.
pub struct Attempt<'a> {
    kernel: &'a Kernel,
    crumb: Crumb,
    detail: bool,
    case: Case,
}

impl<'a> Attempt<'a> {
    fn new(kernel: &'a Kernel, name: &str, crumb: Crumb, detail: bool) -> Self {
        let case = Case {
            name: name.to_owned(),
            phase: Phase::Open,
            end: End::Done,
            accepted: None,
            fired: None,
            denied: None,
            seen: serde_json::Map::new(),
            log: String::new(),
            programs: Vec::new(),
            micros: 0,
        };
        Self { kernel, crumb, detail, case }
    }

    fn finish(mut self, ended: Result<(), Ended>) -> Case {
        self.case.end = match ended {
            Ok(()) => End::Done,
            Err(Ended::Refused(errno)) => End::Refused { errno: errno.name() },
            Err(Ended::Absent(what)) => End::Absent { what },
            Err(Ended::CouldNotTell(why)) => End::CouldNotTell { why },
        };
        self.case
    }

    /// The kernel.
    #[must_use]
    pub const fn kernel(&self) -> &'a Kernel {
        self.kernel
    }

    /// Whether this is a detailed run, with the verifier's log of accepted programs.
    #[must_use]
    pub const fn detail(&self) -> bool {
        self.detail
    }

    /// The kernel's BTF. See [`Kernel::btf`].
    ///
    /// # Errors
    /// As there.
    pub fn btf(&self) -> Result<&'a Btf, Ended> {
        self.kernel.btf()
    }

    /// Whether there is a helper, by the kernel's own list of them; without a list there may be.
    ///
    /// # Errors
    /// [`Ended::Absent`], where the list has none of that number.
    pub fn needs_helper(&self, number: u32) -> Result<(), Ended> {
        match self.btf()?.lists_helper(number) {
            Some(false) => Err(Ended::no_helper(number)),
            Some(true) | None => Ok(()),
        }
    }

    /// Enters a phase. What ends the case from now on is recorded with it, and a crash is blamed on it.
    pub fn at(&mut self, phase: Phase) {
        self.case.phase = phase;
        self.crumb.set(&format!("{}: {}", self.case.name, phase.name()));
    }

    /// The BTF id of the function that a hook's programs attach to.
    ///
    /// # Errors
    /// [`Ended::Absent`] when the kernel has no such hook.
    pub fn hook(&self, hook: &str) -> Result<u32, Ended> {
        self.btf()?.function(&format!("bpf_lsm_{hook}")).ok_or_else(|| Ended::Absent(format!("hook {hook}")))
    }

    /// The BTF id of a kfunc of the kernel proper.
    ///
    /// # Errors
    /// [`Ended::Absent`] when the kernel's BTF has no function of that name.
    pub fn kfunc(&self, name: &str) -> Result<u32, Ended> {
        self.btf()?.function(name).ok_or_else(|| Ended::Absent(format!("kfunc {name}")))
    }

    /// Creates a map.
    ///
    /// # Errors
    /// [`Ended::Refused`] in the phase `open`.
    pub fn map(&mut self, spec: &MapSpec) -> Result<OwnedFd, Ended> {
        self.at(Phase::Open);
        bpf::map_create(spec).map_err(Ended::Refused)
    }

    /// Creates the page that programs and user space share. See [`Results`].
    ///
    /// # Errors
    /// [`Ended::Refused`] in the phase `open`.
    pub fn results(&mut self) -> Result<Results, Ended> {
        self.at(Phase::Open);
        Results::new().map_err(Ended::Refused)
    }

    /// Loads a program.
    ///
    /// # Errors
    /// [`Ended::Refused`] in the phase `load`; the verifier's log goes into the case.
    pub fn load(&mut self, spec: &ProgSpec) -> Result<OwnedFd, Ended> {
        self.load_as(spec, |spec| bpf::prog_load_told(spec, 1))
    }

    /// Loads a program that should be refused. As [`Attempt::load`], but the log is asked for at once, which spares
    /// such a program its second load.
    ///
    /// # Errors
    /// As there.
    pub fn load_in_doubt(&mut self, spec: &ProgSpec) -> Result<OwnedFd, Ended> {
        let load = |spec: &_| {
            // Of a program that is accepted no log is kept, as everywhere.
            bpf::prog_load_logged(spec, 1).map(|loaded| Loaded { log: String::new(), ..loaded })
        };
        self.load_as(spec, load)
    }

    fn load_as(
        &mut self,
        spec: &ProgSpec,
        load: impl FnOnce(&ProgSpec) -> Result<Loaded, LoadError>,
    ) -> Result<OwnedFd, Ended> {
        self.at(Phase::Load);
        let result = if self.detail { bpf::prog_load_logged(spec, 2) } else { load(spec) };
        let (outcome, log) = match result {
            Ok(Loaded { fd, log, refused_first }) => {
                if let Some(errno) = refused_first {
                    self.see("refused first with", errno.name());
                }
                (Ok(fd), log)
            }
            Err(LoadError { errno, log }) => (Err(errno), log),
        };
        self.case.log.push_str(&log);
        self.case.accepted = Some(self.case.accepted.unwrap_or(true) && outcome.is_ok());
        if self.detail {
            self.dump(spec, outcome.as_ref().ok());
        }
        outcome.map_err(Ended::Refused)
    }

    /// Loads a program as one of several that a case asks about. Only the caller notes how it ended:
    /// [`Attempt::answer`] as a fact, [`Attempt::answered`] as the end of the case.
    ///
    /// With `log_level` 0 the kernel is asked for no log, which is cheapest.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn ask(&mut self, spec: &ProgSpec, log_level: u32) -> Result<Loaded, LoadError> {
        self.at(Phase::Load);
        let answer = if log_level == 0 && !self.detail {
            bpf::prog_load_told(spec, 0)
        } else {
            bpf::prog_load_logged(spec, if self.detail { 2 } else { log_level })
        };
        if self.detail {
            self.dump(spec, answer.as_ref().ok().map(|loaded| &loaded.fd));
        }
        answer
    }

    /// Notes as a fact what came of [`Attempt::ask`]: `accepted`, or errno and log, of which the harness keeps the
    /// reason.
    pub fn answer<T>(&mut self, key: &str, answer: &Result<T, LoadError>) {
        match answer {
            Ok(_) => self.see(key, "accepted"),
            Err(refused) => {
                self.see(key, serde_json::json!({"errno": refused.errno.name(), "log": refused.log}));
            }
        }
    }

    /// Takes what came of [`Attempt::ask`] for the load of this case.
    ///
    /// # Errors
    /// [`Ended::Refused`] in the phase `load`; the verifier's log goes into the case.
    pub fn answered(&mut self, answer: Result<Loaded, LoadError>) -> Result<Loaded, Ended> {
        self.at(Phase::Load);
        match answer {
            Ok(loaded) => {
                self.loaded(true, if self.detail { &loaded.log } else { "" });
                Ok(loaded)
            }
            Err(refused) => {
                self.loaded(false, &refused.log);
                Err(Ended::Refused(refused.errno))
            }
        }
    }

    /// Notes that a loader other than ours (aya) loaded a program, or was refused with `log`.
    pub fn loaded(&mut self, accepted: bool, log: &str) {
        self.case.log.push_str(log);
        self.case.accepted = Some(self.case.accepted.unwrap_or(true) && accepted);
    }

    fn dump(&mut self, spec: &ProgSpec, loaded: Option<&OwnedFd>) {
        let encode = |insns: &[Insn]| BASE64.encode(insn::to_bytes(insns));
        let translated = loaded
            .and_then(|fd| bpf::prog_info(fd).ok())
            .map(|info| encode(&info.xlated))
            .unwrap_or_default();
        let submitted = encode(&spec.insns);
        self.case.programs.push(ProgramDump { name: spec.name.clone(), submitted, translated });
    }

    /// What the verifier has said of this case's programs; nothing once another phase than the load has begun.
    #[must_use]
    pub fn load_log(&self) -> &str {
        if self.case.phase == Phase::Load { &self.case.log } else { "" }
    }

    /// Ends the case for a refusal that is no answer to what it asks: neither yes nor no.
    pub fn undecided(&mut self, why: impl Into<String>) -> Ended {
        self.case.accepted = None;
        Ended::CouldNotTell(why.into())
    }

    /// Attaches a BPF_LSM_MAC program the way every kernel since 5.7 knows: `BPF_RAW_TRACEPOINT_OPEN` without a name
    /// (v5.7 kernel/bpf/syscall.c, bpf_raw_tracepoint_open). The link ends with the returned descriptor.
    ///
    /// # Errors
    /// [`Ended::Refused`] in the phase `attach`.
    pub fn attach(&mut self, program: &OwnedFd) -> Result<OwnedFd, Ended> {
        self.at(Phase::Attach);
        let link = bpf::raw_tracepoint_open(program, None, 0).map_err(Ended::Refused)?;
        LINKS.with_borrow_mut(|links| links.push(link.as_raw_fd()));
        Ok(link)
    }

    /// Does what should make the kernel run the program, and returns what came of it.
    pub fn trigger<T>(&mut self, act: impl FnOnce() -> T) -> T {
        self.at(Phase::Trigger);
        let result = act();
        self.at(Phase::Read);
        result
    }

    /// Notes something observed.
    pub fn see(&mut self, key: &str, value: impl Into<Value>) {
        self.case.seen.insert(key.to_owned(), value.into());
    }

    /// Notes whether what the program found is what user space knows. The two values themselves are volatile as a
    /// rule (a pid, a time); when they differ they go into the raw log, where a reader finds them.
    pub fn same<T: PartialEq + std::fmt::Debug>(&mut self, key: &str, program: T, user: T) {
        let verdict =
            if program == user { "as user space knows it" } else { "DIFFERS from what user space knows" };
        if program != user {
            self.case.log.push_str(&format!("{key}: the program saw {program:?}, user space {user:?}\n"));
        }
        self.see(key, verdict);
    }

    /// Notes a condition that must hold, as `yes` or `NO`.
    pub fn holds(&mut self, key: &str, holds: bool) {
        self.see(key, if holds { "yes" } else { "NO" });
    }

    /// Notes that the program ran `count` times on behalf of the trigger.
    pub fn runs(&mut self, count: u64) {
        self.case.fired = Some(self.case.fired.unwrap_or(false) || count > 0);
        self.see("runs", count);
    }

    /// Notes, without the count, whether the program ran at all: for triggers whose number of calls is not ours to
    /// decide.
    pub fn ran(&mut self, ran: bool) {
        self.case.fired = Some(self.case.fired.unwrap_or(false) || ran);
        self.see("ran", ran);
    }

    /// Notes what user space saw of a system call, `ok` or the errno.
    pub fn outcome<T>(&mut self, key: &str, result: &Result<T, Errno>) {
        self.see(key, result.as_ref().map_or_else(|errno| errno.name(), |_| "ok".to_owned()));
    }

    /// Notes what user space saw of a system call that a program was to deny with `asked`.
    pub fn denial<T>(&mut self, key: &str, result: &Result<T, Errno>, asked: Errno) {
        self.returned(result, asked);
        self.outcome(key, result);
    }

    /// As [`Attempt::denial`], where a fact says in more words what user space saw: a program has returned `asked`.
    pub fn returned<T>(&mut self, result: &Result<T, Errno>, asked: Errno) {
        let denied = result.as_ref().err() == Some(&asked);
        self.case.denied = Some(self.case.denied.unwrap_or(false) || denied);
    }

    /// Notes whether a program that was to deny with `asked` changed what user space saw of a system call that gives
    /// `control` by itself: with the errno asked for, with another, or with none and a lasting effect.
    pub fn denied_as<T: PartialEq>(&mut self, result: &Result<T, Errno>, control: &T, asked: Errno) {
        let (denied, how) = match result {
            Err(errno) if *errno == asked => (true, None),
            Err(_) => (true, Some("another errno")),
            Ok(seen) if seen != control => (true, Some("its effect alone")),
            Ok(_) => (false, None),
        };
        self.case.denied = Some(self.case.denied.unwrap_or(false) || denied);
        if let Some(how) = how {
            self.see("denied as", how);
        }
    }

    /// Notes whether user space saw the denials that programs asked for, where the facts say it in more detail.
    pub fn denied(&mut self, denied: bool) {
        self.case.denied = Some(self.case.denied.unwrap_or(true) && denied);
    }

    /// Ends the case in another phase than the one under way: for calls made outside [`Attempt`]'s own methods.
    ///
    /// # Errors
    /// [`Ended::Refused`] with the errno of `result`, in `phase`.
    pub fn calls<T>(&mut self, phase: Phase, result: Result<T, Errno>) -> Result<T, Ended> {
        self.at(phase);
        result.map_err(Ended::Refused)
    }
}
