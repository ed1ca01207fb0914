//! One kernel: boot it, collect what the guest says, blame whoever was running when it is lost, boot again, go on.

mod blame;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tests;

use self::blame::Cause;
use super::image::Image;
use super::initramfs;
use super::order::Order;
use super::setup::{Job, Observer, Setup};
use super::start::{StartError, Starter};
use crate::interrupt;
use crate::model::{FORMAT, KernelRun};
use crate::vmm::MachineSpec;
use crate::vmm::machine::{self as vm, MachineError, console_tail, first_alarm};
use nix::sys::signal::Signal;
use probes::protocol::{Announced, Machine, Message, PROTOCOL, Plan};
use probes::record::{Case, KernelFacts, Record};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Boots that may be lost before hello, or between probes, one after the other.
const RETRIES: u32 = 2;
/// How often a run that is under way is handed to the observer.
const KEEP: Duration = Duration::from_secs(10);
/// Why such a run is not complete.
const UNDER_WAY: &str = "it was under way when this was written";
/// How often the channel is looked at.
const POLL: Duration = Duration::from_millis(3);
/// How many times as long as a probe has its machine may live with it: one that gets a quarter of a processor's time.
const STARVED: u32 = 4;
/// Longer than this between two looks, and the host, or this program, stood still: no machine is late for that.
const PAUSE: Duration = Duration::from_secs(2);

/// Why a kernel as a whole cannot be run.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("{0}")]
    Machine(#[from] MachineError),
    #[error(
        "no boot said hello, {boots} tried one after the other (on a slow host --patience waits longer); the console ends with:\n{tail}"
    )]
    NoHello { boots: u32, tail: String },
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("{0}")]
    Initramfs(#[from] initramfs::NotJoined),
    #[error("another kernel than before, {was} and now {is}: the image of {kernel} changed during the run")]
    OtherKernel { kernel: String, was: String, is: String },
    #[error("no boot brought a record, {boots} tried one after the other; the console ends with:\n{tail}")]
    NoRecord { boots: u32, tail: String },
    #[error("the guest cannot go on: {0}")]
    Guest(String),
    #[error(
        "wrong kernel: uname -r is {found}, the row {row} promises {expected}*; check the image or the row"
    )]
    WrongKernel { row: String, found: String, expected: String },
    #[error("interrupted by {}", .0.as_str())]
    Interrupted(Signal),
    #[error("the guest speaks protocol {0}, the harness {PROTOCOL}; build both from one tree")]
    Protocol(u32),
}

/// How one boot ended.
enum Boot {
    /// The guest said done.
    Done,
    /// The machine was lost, while a probe ran or not.
    Lost,
}

struct Collector<'a> {
    setup: &'a Setup,
    job: &'a Job,
    observer: &'a dyn Observer,
    run: KernelRun,
    inventory: Vec<Announced>,
    current: Option<Current>,
    /// Boots in a row that brought nothing.
    fruitless: u32,
    starter: Starter<'a>,
    boot: UnderWay,
    /// Records that were there before.
    had: usize,
    /// When the observer last saw all records, and how many those were.
    kept: (Instant, usize),
}

/// What is known of the boot that is under way.
#[derive(Debug, Default)]
struct UnderWay {
    greeted: bool,
    /// Whether the guest has said which probes it has.
    announced: bool,
    /// End messages, to be compared with the guest's own count.
    ended: u64,
    /// The probe of the last of them.
    last: Option<String>,
    /// How much the console held, in bytes, before the guest could say what it has said last.
    quiet_at: u64,
    /// The same, before the probe that is under way began, or the time between two of them.
    console_from: u64,
    /// What the kernel has warned of since before that, as the guest has told for an earlier probe or between two, and
    /// from where on it stands in the console.
    told: (u64, Vec<String>),
    /// How it was lost, if it was.
    lost: Option<String>,
}

struct Current {
    probe: String,
    since: Instant,
    cases: Vec<Case>,
}

/// Runs the selected probes on one kernel. Whatever happens, the result holds a record for every probe known.
#[must_use]
pub fn run_kernel(setup: &Setup, job: &Job, observer: &dyn Observer) -> KernelRun {
    let started = Instant::now();
    // Of a run that was interrupted, its records and what they took are kept.
    let before = KernelRun { failure: None, ..job.before.clone().unwrap_or_default() };
    let had = before.records.len();
    let run = KernelRun {
        format: FORMAT,
        kernel: job.kernel.clone(),
        image: job.image.clone(),
        vmm: setup.launcher.kind.name().into(),
        accel: setup.accel.name().into(),
        qemu: setup.qemu_version.clone(),
        ..before
    };
    let timing = run.timing;
    let mut collector = Collector {
        setup,
        job,
        observer,
        run,
        inventory: Vec::new(),
        current: None,
        fruitless: 0,
        starter: Starter { setup, job, observer, image: Image::of(&job.image), given_up: false },
        boot: UnderWay::default(),
        had,
        kept: (started, had),
    };
    if let Err(lost) = collector.everything() {
        collector.run.failure = Some(lost.to_string());
        observer.note(&job.kernel, &format!("failed: {lost}"));
    }
    collector.account_for_the_rest();
    let mut run = collector.run;
    let whole = millis(started.elapsed());
    let machines = run.timing.boot_ms - timing.boot_ms + run.timing.probes_ms - timing.probes_ms;
    run.timing.rest_ms += whole.saturating_sub(machines);
    run
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Collector<'_> {
    fn everything(&mut self) -> Result<(), Lost> {
        // The first boot brings the inventory, which says what other machines are needed.
        let shared = self.plan(self.setup.select.clone(), Machine::Shared);
        self.until_done(shared)?;
        let orders: BTreeSet<Machine> = self
            .inventory
            .iter()
            .map(|probe| &probe.machine)
            .filter(|it| matches!(it, Machine::Lsm { .. }))
            .cloned()
            .collect();
        for machine in orders {
            self.until_done(self.plan(self.asking_for(&machine), machine))?;
        }
        let own = self.asking_for(&Machine::Own);
        if !own.is_empty() {
            self.until_done(self.plan(own, Machine::Own))?;
        }
        Ok(())
    }

    /// The probes that the inventory has for a machine. To be given names saves the guest from making all the others.
    fn asking_for(&self, machine: &Machine) -> Vec<String> {
        let probes = self.inventory.iter().filter(|probe| probe.machine == *machine);
        probes.map(|probe| probe.probe.clone()).collect()
    }

    fn plan(&self, select: Vec<String>, machine: Machine) -> Plan {
        Plan {
            protocol: PROTOCOL,
            select,
            known: self.setup.known.clone(),
            part: self.job.part,
            done: Vec::new(),
            machine,
            probe_ms: millis(self.setup.deadlines.probe),
            detail: self.setup.detail,
            shuffle: self.setup.shuffle,
            apart: self.setup.apart,
        }
    }

    /// Boots until the plan is carried out. Each boot answers at least one probe, or counts as fruitless.
    fn until_done(&mut self, mut plan: Plan) -> Result<(), Lost> {
        self.fruitless = 0;
        loop {
            go_on()?;
            plan.done = self.run.records.iter().map(|record| record.probe.clone()).collect();
            let before = self.run.records.len();
            match self.boot(&plan)? {
                Boot::Done => return Ok(()),
                Boot::Lost if self.run.records.len() > before => {
                    self.fruitless = 0;
                    if self.nothing_left(&plan.machine) {
                        return Ok(()); // the machine was lost with its last probe: no boot would bring more
                    }
                }
                Boot::Lost => {
                    self.fruitless += 1;
                    self.run.boot_retries += 1;
                    self.run.boots_lost.extend(self.boot.lost.take());
                    if self.fruitless > RETRIES {
                        let tail = last_lines(&console_tail(&self.console_path()), 12);
                        let boots = self.fruitless;
                        let greeted = self.boot.greeted;
                        return Err(if greeted {
                            Lost::NoRecord { boots, tail }
                        } else {
                            Lost::NoHello { boots, tail }
                        });
                    }
                    self.observer.note(&self.job.kernel, "a boot brought nothing; trying again");
                }
            }
        }
    }

    /// Whether every probe that asks for such a machine has a record.
    fn nothing_left(&self, machine: &Machine) -> bool {
        let answered: BTreeSet<&str> = self.run.records.iter().map(|record| record.probe.as_str()).collect();
        let mut asked = self.inventory.iter().filter(|it| it.machine == *machine);
        !self.inventory.is_empty() && asked.all(|it| answered.contains(it.probe.as_str()))
    }

    fn console_path(&self) -> PathBuf {
        self.job.folder.join(format!("console-{}.log", self.run.boots))
    }

    fn spec(&self, plan: &Plan) -> Result<MachineSpec, Lost> {
        let lsm = match &plan.machine {
            Machine::Lsm { order } => order.clone(),
            Machine::Shared | Machine::Own => self.job.lsm.clone(),
        };
        Ok(MachineSpec {
            image: self.job.image.path.clone(),
            initramfs: initramfs::of_kernel(self.setup, self.job)?,
            lsm,
            append: Vec::new(),
            memory_mib: self.setup.memory_mib,
            cpus: self.setup.cpus,
            accel: self.setup.accel,
        })
    }

    fn boot(&mut self, plan: &Plan) -> Result<Boot, Lost> {
        self.run.boots += 1;
        self.boot = UnderWay::default();
        let setup = self.setup;
        let started = Instant::now();
        let spec = self.spec(plan)?;
        let Some(mut machine) = self.starter.start(&spec, &self.console_path())? else {
            self.run.timing.boot_ms += millis(started.elapsed());
            go_on()?;
            let tail = console_tail(&self.console_path());
            let last = first_alarm(&tail).unwrap_or_else(|| last_lines(tail.trim_end(), 1));
            self.boot.lost = Some(format!("before hello; the console ends with: {last}"));
            return Ok(Boot::Lost);
        };
        self.run.restored += u32::from(machine.restored);
        // As when its QEMU is ended meanwhile; another machine may go on.
        if let Err(error) = machine.go(plan, &setup.guest) {
            self.run.timing.boot_ms += millis(started.elapsed());
            self.boot.lost = Some(format!("before hello: it could not be sent on: {error}"));
            return Ok(Boot::Lost);
        }
        let mut hello_at = None;
        let end = self.listen(&mut machine, &mut hello_at);
        let now = Instant::now();
        let hello = hello_at.unwrap_or(now);
        self.run.timing.boot_ms += millis(hello.duration_since(started));
        self.run.timing.probes_ms += millis(now.duration_since(hello));
        if matches!(end, Ok(Boot::Done)) {
            machine.finish(setup.deadlines.power_off);
        } else {
            machine.kill();
        }
        end
    }

    /// Takes messages until the guest is done, the machine is gone, or a deadline has passed.
    fn listen(&mut self, machine: &mut vm::Machine, hello_at: &mut Option<Instant>) -> Result<Boot, Lost> {
        let mut gone_on_at = Instant::now();
        let (mut alive_at, mut looked_at) = (gone_on_at, gone_on_at);
        let mut heartbeat = machine.heartbeat();
        let mut order = Order::default();
        loop {
            go_on()?;
            let pause = looked_at.elapsed();
            looked_at += pause;
            if pause > PAUSE {
                (gone_on_at, alive_at) = (gone_on_at + pause, alive_at + pause);
                self.current.iter_mut().for_each(|current| current.since += pause);
            }
            // Asked before the channel is read, so that a last message of a machine that has gone is not lost, and that
            // what the console holds is older than any message still to come.
            let (running, console) = (machine.is_running(), machine.console_length());
            match machine.receive() {
                Ok(Some(message)) => {
                    alive_at = Instant::now();
                    let wrong = order.follow(&message).err().map(Cause::Stream);
                    if let Some(cause) = wrong.or_else(|| self.gave_up(&message)) {
                        self.blame(machine, cause);
                        return Ok(Boot::Lost);
                    }
                    if matches!(message, Message::Hello { .. }) {
                        *hello_at = Some(alive_at);
                    }
                    if let Some(end) = self.take(message)? {
                        return Ok(end);
                    }
                    continue;
                }
                Ok(None) => self.boot.quiet_at = console,
                Err(error) => {
                    self.blame(machine, Cause::Stream(error.to_string()));
                    return Ok(Boot::Lost);
                }
            }
            if !running {
                let ending = machine.ending();
                self.blame(machine, Cause::Ended(ending));
                return Ok(Boot::Lost);
            }
            let beat = machine.heartbeat();
            if beat != heartbeat {
                heartbeat = beat;
                alive_at = Instant::now();
            }
            if let Some(cause) = self.out_of_time(gone_on_at, *hello_at, alive_at) {
                let cause = if machine.is_stopped() { Cause::Stopped } else { cause };
                self.blame(machine, cause);
                return Ok(Boot::Lost);
            }
            // While a probe takes long, too.
            self.keep();
            std::thread::sleep(POLL);
        }
    }

    /// Whether a guest says that it cannot go on. What it cannot do before it knows its probes, no other boot could.
    fn gave_up(&self, message: &Message) -> Option<Cause> {
        if let Message::Failed { why } = message
            && self.boot.announced
        {
            return Some(Cause::GaveUp(why.clone()));
        }
        None
    }

    /// Which of the deadlines has passed, if one has. PID 1 ends a probe that hangs, by a clock that a machine without a
    /// processor does not advance (`probes::patience`).
    fn out_of_time(&self, started: Instant, hello_at: Option<Instant>, alive_at: Instant) -> Option<Cause> {
        let deadlines = &self.setup.deadlines;
        let silent = match hello_at {
            None => started.elapsed() > deadlines.hello,
            Some(_) => alive_at.elapsed() > deadlines.silence,
        };
        let at_most = deadlines.probe * STARVED + deadlines.silence;
        let overdue = self.current.as_ref().is_some_and(|current| current.since.elapsed() > at_most);
        if silent { Some(Cause::Silent) } else { overdue.then_some(Cause::Overdue) }
    }

    fn take(&mut self, message: Message) -> Result<Option<Boot>, Lost> {
        match message {
            Message::Hello { protocol, facts } => {
                self.is_the_same(&facts)?;
                self.hello(protocol, *facts)?;
            }
            Message::Inventory { probes } => {
                self.boot.announced = true;
                if self.inventory.is_empty() {
                    self.inventory = probes;
                }
                self.progress();
            }
            Message::Start { probe } => {
                self.boot.console_from = self.boot.quiet_at;
                self.current = Some(Current { probe, since: Instant::now(), cases: Vec::new() });
            }
            // `Order` has seen to it that this and the end are of the probe under way.
            Message::Case { case, .. } => {
                if let Some(current) = &mut self.current {
                    current.cases.push(*case);
                }
            }
            Message::End { probe, outcome, warnings, micros } => {
                let cases = self.current.take().map(|current| current.cases).unwrap_or_default();
                self.boot.last = Some(probe.clone());
                self.boot.told = (self.boot.console_from, warnings.clone());
                self.boot.console_from = self.boot.quiet_at;
                self.run.records.push(Record { probe, outcome, cases, warnings, micros });
                self.boot.ended += 1;
                self.progress();
            }
            Message::Warned { warnings } => self.note_warnings(warnings),
            Message::Done { records } if records == self.boot.ended => return Ok(Some(Boot::Done)),
            Message::Done { records } => {
                return Err(Lost::Guest(format!("it counts {records} records, {} arrived", self.boot.ended)));
            }
            Message::Failed { why } => return Err(Lost::Guest(why)),
        }
        Ok(None)
    }

    fn hello(&mut self, protocol: u32, facts: KernelFacts) -> Result<(), Lost> {
        if protocol != PROTOCOL {
            return Err(Lost::Protocol(protocol));
        }
        self.boot.greeted = true;
        if !facts.release.starts_with(&self.job.release_prefix) {
            return Err(Lost::WrongKernel {
                row: self.job.kernel.clone(),
                found: facts.release,
                expected: self.job.release_prefix.clone(),
            });
        }
        if self.run.facts.is_none() {
            self.observer.note(&self.job.kernel, &format!("up: {}", facts.release));
            self.run.facts = Some(facts);
        }
        Ok(())
    }

    /// All records of a run are one kernel's, and a resumed run's also.
    fn is_the_same(&self, now: &KernelFacts) -> Result<(), Lost> {
        let Some(first) = &self.run.facts else { return Ok(()) };
        let words = |facts: &KernelFacts| {
            format!("{} ({}, {} bytes of BTF)", facts.release, facts.version, facts.btf_bytes)
        };
        let (was, is) = (words(first), words(now));
        if was == is {
            return Ok(());
        }
        Err(Lost::OtherKernel { kernel: self.job.kernel.clone(), was, is })
    }

    fn progress(&mut self) {
        let total = self.had + self.inventory.len();
        self.observer.progress(&self.job.kernel, self.run.records.len(), total);
        self.keep();
    }

    /// Has the records kept that there are, if it is time and there are more than were kept.
    fn keep(&mut self) {
        let (at, count) = self.kept;
        if at.elapsed() > KEEP && self.run.records.len() > count {
            self.kept = (Instant::now(), self.run.records.len());
            self.observer.so_far(&KernelRun { failure: Some(UNDER_WAY.into()), ..self.run.clone() });
        }
    }

    /// Nothing is skipped silently: a probe of the inventory without a record gets one that says so.
    fn account_for_the_rest(&mut self) {
        let why = self.run.failure.clone().unwrap_or_else(|| "the guest did not run it".into());
        for announced in &self.inventory {
            if !self.run.records.iter().any(|record| record.probe == announced.probe) {
                self.run.records.push(Record::not_run(&announced.probe, &why));
            }
        }
    }
}

/// An error once somebody has asked this program to stop.
fn go_on() -> Result<(), Lost> {
    interrupt::asked().map_or(Ok(()), |signal| Err(Lost::Interrupted(signal)))
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
