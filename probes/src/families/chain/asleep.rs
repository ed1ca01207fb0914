//! A program that sleeps for one task while another task of the same processor comes to its hook.

use crate::asm::Asm;
use crate::bpf;
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::{Attached, CTX, LsmProgram, PAGE, deny};
use crate::results::{FREE, NOBODY, RUNS, Results, TARGET};
use crate::rules::{OPEN, start_child, stay_on};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::spec::ANYBODYS;
use crate::triggers::children::Idle;
use crate::triggers::fault::{Held, readable};
use crate::triggers::{Act, Arm};
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Whom the program sleeps for, as [`TARGET`] is whom it denies at once.
const SLEEPER: i32 = FREE;
/// Runs for that task.
const SLEPT: i32 = FREE + 8;
/// What the program read from its page, and what the helper returned.
const READ: i32 = FREE + 16;
const COPIED: i32 = FREE + 24;
/// What stands there once the page is given.
const CONTENT: u64 = 4711;
/// How long anything here is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A task that is about to open a file, the program that will sleep for it, and another task: the probe's own.
struct Scene {
    held: Held,
    results: Results,
    act: Act,
    program: OwnedFd,
    link: Option<OwnedFd>,
}

impl Scene {
    /// Makes everything ready on one processor. The program gives the sleeper -EPERM, the other task `verdict`.
    fn new(attempt: &mut Attempt<'_>, verdict: i32) -> Result<Self, Ended> {
        attempt.hook(OPEN.hook)?;
        let mut results = attempt.results()?;
        results.name_nobody();
        results.set(SLEEPER, NOBODY);
        let act = OPEN.ready()?;
        stay_on(0).map_err(|errno| Ended::could_not("stay on a processor", errno))?;
        // The child comes first: it must not have the link, which is closed while it sleeps.
        let held = Held::new(|| {
            // SAFETY: a cell of a page that is mapped in the child too.
            let named = unsafe { &*results.cell(SLEEPER) };
            named.store(u64::from(std::process::id()), Ordering::SeqCst);
            let opened = File::open(ANYBODYS);
            named.store(NOBODY, Ordering::SeqCst);
            opened.map(drop).map_err(Errno::from)
        })
        .map_err(|errno| Ended::could_not("make a page whose faults wait", errno))?;
        let program = LsmProgram::raw(OPEN.hook, sleeping(&results, held.address(), verdict)).sleepable();
        let Attached { program, link } = attempt.attach_lsm(&program)?;
        Ok(Self { held, results, act, program, link: Some(link) })
    }

    /// The other task opens the file.
    fn open(&mut self) -> Result<(), Errno> {
        (self.act)(Arm::new(&self.results)).map(drop)
    }

    /// As [`Scene::open`], and whether the program ran for it.
    fn open_and_see(&mut self, attempt: &mut Attempt<'_>) -> (bool, Result<(), Errno>) {
        self.results.set(RUNS, 0);
        let opened = attempt.trigger(|| self.open());
        (self.results.get(RUNS) != 0, opened)
    }

    /// Has the first task open its file, until the program sleeps for it.
    fn fall_asleep(&mut self, attempt: &mut Attempt<'_>) -> Result<(), Ended> {
        let asleep = attempt.trigger(|| self.held.go(PATIENCE));
        attempt.ran(self.results.get(SLEPT) != 0);
        if asleep && self.results.get(SLEPT) == 1 {
            return Ok(());
        }
        Err(Ended::CouldNotTell("the program does not sleep".to_owned()))
    }

    /// Lets the program go on, and notes what became of what it slept for.
    fn wake(&mut self, attempt: &mut Attempt<'_>) -> Result<(), Ended> {
        self.held.release(CONTENT).map_err(|errno| Ended::could_not("give the page", errno))?;
        let outcome = self.held.outcome(PATIENCE);
        let outcome = outcome.ok_or_else(|| Ended::CouldNotTell("the sleeper does not go on".to_owned()))?;
        attempt.denial("the sleeper, once it goes on", &outcome, Errno::EPERM);
        let read = (self.results.get(COPIED), self.results.get(READ)) == (0, CONTENT);
        attempt.holds("the program has read its page then", read);
        Ok(())
    }

    /// How often the kernel says that it left the program out.
    fn missed(&self) -> Result<u64, Ended> {
        let info = bpf::prog_info(&self.program);
        info.map(|info| info.recursion_misses)
            .map_err(|errno| Ended::could_not("ask about the program", errno))
    }
}

/// Reads a word of user space for [`SLEEPER`] and denies it; gives [`TARGET`] this verdict at once.
fn sleeping(results: &Results, address: u64, verdict: i32) -> Asm {
    let mut asm = Asm::new();
    asm.mov_reg(CTX, Reg::R1)
        .call(helper::GET_CURRENT_PID_TGID)
        .rsh_imm(Reg::R0, 32)
        .ld_map_value(PAGE, results, 0)
        .mov_imm(Reg::R2, 1)
        .ldx(Size::DW, Reg::R1, PAGE, SLEEPER)
        .jeq_reg(Reg::R0, Reg::R1, "sleeper")
        .ldx(Size::DW, Reg::R1, PAGE, TARGET)
        .jne_reg(Reg::R0, Reg::R1, "pass")
        .atomic_add(Size::DW, PAGE, RUNS, Reg::R2)
        .mov_imm(Reg::R0, verdict)
        .exit();
    asm.label("sleeper")
        .atomic_add(Size::DW, PAGE, SLEPT, Reg::R2)
        .mov_reg(Reg::R1, PAGE)
        .add_imm(Reg::R1, READ)
        .mov_imm(Reg::R2, 8)
        .ld_imm64(Reg::R3, address)
        .call(helper::COPY_FROM_USER)
        .stx(Size::DW, PAGE, COPIED, Reg::R0)
        .mov_imm(Reg::R0, deny(Errno::EPERM))
        .exit();
    asm.label("pass").mov_imm(Reg::R0, 0).exit();
    asm
}

pub(super) fn asked(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("the-same-program", |attempt| {
        let mut scene = Scene::new(attempt, deny(Errno::EACCES))?;
        control(attempt, &mut scene, "another task, before")?;
        scene.fall_asleep(attempt)?;
        let before = scene.missed()?;
        let (ran, opened) = scene.open_and_see(attempt);
        let after = scene.missed()?;
        attempt.see("while it sleeps, it runs for another task", ran);
        attempt.outcome("the other task", &opened);
        if ran {
            attempt.returned(&opened, Errno::EACCES);
        }
        // How often it is left out depends on who else opens files.
        attempt.see("the kernel counts that it was left out", after > before);
        scene.wake(attempt)?;
        control(attempt, &mut scene, "another task, afterwards")
    })?;
    session.case("a-plain-program-besides", plain_besides)?;
    session.case("its-link-closed-meanwhile", closed_meanwhile)
}

/// Nobody sleeps: the program runs, and denies.
fn control(attempt: &mut Attempt<'_>, scene: &mut Scene, key: &str) -> Result<(), Ended> {
    let (ran, opened) = scene.open_and_see(attempt);
    attempt.outcome(key, &opened);
    if ran && opened == Err(Errno::EACCES) {
        return Ok(());
    }
    Err(Ended::CouldNotTell("the program does not deny while nobody sleeps".to_owned()))
}

/// A plain program of the same hook, which runs after the one that sleeps and denies the other task in its place.
fn plain_besides(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    let mut plain_results = attempt.results()?;
    plain_results.name_nobody();
    let plain = LsmProgram::returning(OPEN.hook, &plain_results, deny(Errno::EACCES));
    let _plain = attempt.attach_lsm(&plain)?;
    let mut scene = Scene::new(attempt, 0)?;
    scene.fall_asleep(attempt)?;
    plain_results.set(TARGET, u64::from(std::process::id()));
    let (ran, opened) = scene.open_and_see(attempt);
    plain_results.name_nobody();
    attempt.see("the sleepable program runs for another task", ran);
    attempt.see("the plain program runs for it", plain_results.runs() != 0);
    attempt.denial("the other task", &opened, Errno::EACCES);
    scene.wake(attempt)
}

/// The program is detached while it sleeps.
fn closed_meanwhile(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    let mut scene = Scene::new(attempt, deny(Errno::EACCES))?;
    control(attempt, &mut scene, "another task, before")?;
    scene.fall_asleep(attempt)?;
    let closer = scene.link.take().map(Closer::new);
    let mut closer = closer.ok_or_else(|| Ended::CouldNotTell("there is no link".to_owned()))??;
    // Long enough for one that does not wait, however busy the machine.
    let at_once = attempt.trigger(|| closer.close(3 * PATIENCE));
    attempt.see("closing the link", if at_once { "does not wait for it" } else { "waits for it" });
    let (ran, opened) = scene.open_and_see(attempt);
    attempt.see("then it runs for another task", ran);
    attempt.outcome("the other task", &opened);
    scene.wake(attempt)?;
    if !at_once && !closer.has_closed(PATIENCE) {
        return Err(Ended::CouldNotTell("the link is not closed".to_owned()));
    }
    // From 5.12 to 6.0 one that sleeps runs for nobody else, attached or not (`the-same-program`): this is what tells.
    let (ran, opened) = scene.open_and_see(attempt);
    attempt.see("afterwards it runs for another task", ran);
    attempt.outcome("another task, afterwards", &opened);
    Ok(())
}

/// A child that has the only descriptor of a link, so that this process need not wait where closing it does.
struct Closer {
    _child: Idle,
    go: PipeWriter,
    closed: PipeReader,
}

impl Closer {
    fn new(link: OwnedFd) -> Result<Self, Ended> {
        let pipe = || std::io::pipe().map_err(|error| Ended::could_not("make a pipe", error));
        let ((mut ready, go), (closed, mut say)) = (pipe()?, pipe()?);
        // This process's own descriptor of the link goes with the closure.
        let child = start_child(move || {
            if ready.read_exact(&mut [0]).is_ok() {
                drop(link);
                let _ = say.write_all(&[0]);
            }
        })?;
        Ok(Self { _child: Idle::of(child), go, closed })
    }

    /// Has it close the link. Whether that is done in time.
    fn close(&mut self, patience: Duration) -> bool {
        self.go.write_all(&[0]).is_ok() && self.has_closed(patience)
    }

    /// Whether it has closed the link by then.
    fn has_closed(&self, patience: Duration) -> bool {
        readable(&self.closed, patience)
    }
}
