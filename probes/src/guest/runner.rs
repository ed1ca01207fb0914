//! Running probes: a child process each, with a deadline, its cases passed on as they end.

use super::keeper::Keeper;
use super::kmsg::Kmsg;
use super::lingering::{self, Lingering};
use super::said::{Heard, Said};
use crate::channel::{ChannelError, Crumb, GuestEnd};
use crate::families;
use crate::protocol::{Message, Plan};
use crate::record::Outcome;
use crate::session::{self, Kernel, Session, Sink};
use crate::spec::Probe;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// How often the supervisor looks up while it waits, which is also how often it beats.
const TICK_MS: u16 = 100;
/// How long a killed process may take to go; attached programs are detached on the way, a grace period each.
const REAP: Duration = Duration::from_secs(20);

/// Runs every probe of the plan and returns how many end records were sent.
pub(super) fn run_all(
    channel: &mut GuestEnd,
    kernel: &mut Kernel,
    plan: &Plan,
    probes: &[Probe],
) -> Result<u64, ChannelError> {
    let mut kmsg = Kmsg::open();
    kmsg.drain();
    let mut keeper = Keeper::default();
    let mut lingering = Lingering::default();
    let mut records = 0;
    for probe in probes.iter().filter(|probe| probe.machine == plan.machine) {
        if !probe.aya {
            kernel.drop_aya();
        }
        let kernel = &*kernel;
        channel.beat();
        channel.clear();
        let family = families::family(probe.family());
        if keeper.keep(kernel, family.map_or(&[], |family| family.kept)) {
            kmsg.drain(); // what is said from here on is the probe's
        }
        channel.send(&Message::Start { probe: probe.id.clone() })?;
        let started = Instant::now();
        let links = (probe.lingers || family.is_some_and(|family| family.lingers)).then_some(&mut lingering);
        let (outcome, process) = run_one(channel, kernel, plan, probe, links)?;
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        clear_the_field(channel, process.as_ref());
        kernel.clear_dispatchers();
        let warnings = kmsg.drain();
        channel.send(&Message::End { probe: probe.id.clone(), outcome, warnings, micros })?;
        records += 1;
    }
    // The power-off cleans up: detaching here would cost a grace period per link, and the harness waits.
    std::mem::forget((keeper, lingering));
    Ok(records)
}

fn run_one(
    channel: &mut GuestEnd,
    kernel: &Kernel,
    plan: &Plan,
    probe: &Probe,
    links: Option<&mut Lingering>,
) -> Result<(Outcome, Option<OwnedFd>), ChannelError> {
    let cannot = |what: &str, errno: Errno| (Outcome::CouldNotTell { why: format!("{what}: {errno}") }, None);
    let pipes = nix::unistd::pipe().and_then(|said| Ok((said, nix::unistd::pipe()?)));
    let ((reader, writer), (taken, take)) = match pipes {
        Ok(pipes) => pipes,
        Err(errno) => return Ok(cannot("no pipes for the probe", errno)),
    };
    let (crumb, notes) = (channel.crumb(), channel.notes());
    // SAFETY: PID 1 has one thread, so the child may do anything a fresh process may.
    match unsafe { fork() } {
        Err(errno) => Ok(cannot("no process for the probe", errno)),
        Ok(ForkResult::Child) => {
            drop((reader, take));
            let held = links.map(Lingering::leave_to_the_parent).unwrap_or_default();
            let sink = Sink::new(File::from(writer), File::from(taken), notes);
            let outcome = in_child(kernel, plan, probe, crumb, sink, &held);
            // Leaves without destructors: descriptors close by themselves, and no exit handler of PID 1 may run.
            // SAFETY: _exit takes a plain number and does not return.
            unsafe { libc::_exit(outcome) }
        }
        Ok(ForkResult::Parent { child }) => {
            drop((writer, taken));
            let mut ears = Ears { reader: File::from(reader), take: File::from(take), pending: Vec::new() };
            let process = lingering::process(child);
            let patience = Duration::from_millis(plan.probe_ms);
            let (outcome, attached) = supervise(channel, probe, child, &mut ears, patience)?;
            if let (Some(links), Some(process)) = (links, &process) {
                links.take_from(child, process, &attached, &probe.id);
            }
            // Lets the child go, if it still waits.
            let _ = ears.take.write_all(&[1]);
            Ok((outcome, process))
        }
    }
}

/// The probe's process: its own session, its own mount namespace with an empty `/tmp` if it has to do with files.
fn in_child(
    kernel: &Kernel,
    plan: &Plan,
    probe: &Probe,
    crumb: Crumb,
    mut sink: Sink,
    held: &[String],
) -> i32 {
    let _ = nix::unistd::setsid();
    if !probe.no_files {
        let _ = unshare(CloneFlags::CLONE_NEWNS);
        private_tmp();
    }
    let result = {
        let mut session = Session::new(kernel, crumb, plan.detail, &mut sink, held);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (probe.run)(&mut session)))
    };
    let outcome = match result {
        Ok(Ok(())) => Outcome::Observed,
        Ok(Err(stop)) => Outcome::CouldNotTell { why: stop.0 },
        Err(panic) => Outcome::Crashed {
            what: format!("the probe panicked: {}", panic_text(panic.as_ref())),
            during: String::new(),
        },
    };
    i32::from(sink.say(&Said::Returned { outcome, links: session::links() }).is_err())
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

fn private_tmp() {
    use nix::mount::{MsFlags, mount};
    let none = None::<&str>;
    let _ = mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none);
    let _ = mount(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::empty(), Some("mode=1777"));
    let _ = std::env::set_current_dir("/tmp");
}

/// PID 1's ends of a probe's pipes.
struct Ears {
    reader: File,
    take: File,
    /// What has been read of a line that is not complete yet.
    pending: Vec<u8>,
}

/// Passes on what the child says until it has returned, died, or run out of time.
fn supervise(
    channel: &mut GuestEnd,
    probe: &Probe,
    child: Pid,
    ears: &mut Ears,
    patience: Duration,
) -> Result<(Outcome, Vec<RawFd>), ChannelError> {
    let heard = listen(channel, probe, child, ears, patience)?;
    // Whatever the end is, what was found before it counts.
    Ok(pass_notes_on(channel, probe)?.map_or(heard, |nonsense| (nonsense, Vec::new())))
}

fn listen(
    channel: &mut GuestEnd,
    probe: &Probe,
    child: Pid,
    ears: &mut Ears,
    patience: Duration,
) -> Result<(Outcome, Vec<RawFd>), ChannelError> {
    let deadline = Instant::now() + patience;
    // Small: the pages that this process writes are copied anew after each fork.
    let mut buffer = [0_u8; 4 << 10];
    loop {
        channel.beat();
        if Instant::now() >= deadline {
            let _ = kill(child, Signal::SIGKILL);
            return Ok((Outcome::Hung { during: channel.read_crumb() }, Vec::new()));
        }
        let mut fds = [PollFd::new(ears.reader.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(TICK_MS)) == Ok(0) {
            continue;
        }
        let length = match ears.reader.read(&mut buffer) {
            Ok(0) => return Ok((outcome_of_the_dead(channel, child), Vec::new())),
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let why = format!("lost the probe's pipe: {error}");
                return Ok((Outcome::CouldNotTell { why }, Vec::new()));
            }
        };
        ears.pending.extend_from_slice(&buffer[..length]);
        if let Some(end) = pass_on(channel, probe, ears)? {
            return Ok(end);
        }
    }
}

/// Takes the complete lines that have been read; an outcome ends the probe.
fn pass_on(
    channel: &mut GuestEnd,
    probe: &Probe,
    ears: &mut Ears,
) -> Result<Option<(Outcome, Vec<RawFd>)>, ChannelError> {
    while let Some(end) = ears.pending.iter().position(|&byte| byte == b'\n') {
        let line: Vec<u8> = ears.pending.drain(..=end).collect();
        // The notes are older than any line.
        if let Some(nonsense) = pass_notes_on(channel, probe)? {
            return Ok(Some((nonsense, Vec::new())));
        }
        match Heard::read(&line) {
            Ok(Heard::Case(case)) => channel.send_case(&probe.id, case)?,
            Ok(Heard::Full) => {}
            Ok(Heard::Returned { outcome, links }) => return Ok(Some((outcome, links))),
            Err(error) => return Ok(Some((nonsense(&error), Vec::new()))),
        }
        // A probe that has died meanwhile hears nothing, which its own pipe will say.
        let _ = ears.take.write_all(&[1]);
    }
    Ok(None)
}

/// Passes on the cases among the notes; an outcome when there is anything else.
fn pass_notes_on(channel: &mut GuestEnd, probe: &Probe) -> Result<Option<Outcome>, ChannelError> {
    let notes = channel.take_notes();
    for line in notes.split_inclusive(|&byte| byte == b'\n') {
        match Heard::read(line) {
            Ok(Heard::Case(case)) => channel.send_case(&probe.id, case)?,
            Ok(Heard::Full | Heard::Returned { .. }) => return Ok(Some(nonsense("no case among its notes"))),
            Err(error) => return Ok(Some(nonsense(&error))),
        }
    }
    Ok(None)
}

fn nonsense(error: &str) -> Outcome {
    Outcome::CouldNotTell { why: format!("the probe's process said nonsense: {error}") }
}

/// The child closed its pipe without having returned: it died.
fn outcome_of_the_dead(channel: &GuestEnd, child: Pid) -> Outcome {
    let what = match waitpid(child, None) {
        Ok(WaitStatus::Signaled(_, signal, _)) => format!("the probe's process was ended by {signal}"),
        Ok(WaitStatus::Exited(_, code)) => format!("the probe's process left with status {code}"),
        Ok(_) | Err(_) => "the probe's process vanished".to_owned(),
    };
    Outcome::Crashed { what, during: channel.read_crumb() }
}

/// Kills and reaps every process but PID 1, so that nothing of one probe is left for the next.
fn clear_the_field(channel: &GuestEnd, child: Option<&OwnedFd>) {
    let deadline = Instant::now() + REAP;
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    if let Some(child) = child {
        // Almost always it is the only one; a descriptor of a process can be read from when it has ended.
        let _ = poll(&mut [PollFd::new(child.as_fd(), PollFlags::POLLIN)], PollTimeout::from(TICK_MS));
    }
    let mut nap = Duration::from_micros(200);
    while Instant::now() < deadline {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Err(_) => return,
            Ok(WaitStatus::StillAlive) => {
                channel.beat();
                std::thread::sleep(nap);
                nap = (nap * 2).min(Duration::from_millis(20));
            }
            Ok(_) => {}
        }
    }
}
