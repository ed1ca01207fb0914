//! Running probes: a process each, with a deadline, its cases passed on as they end.

use super::keeper::Keeper;
use super::kmsg::Kmsg;
use super::lingering::Lingering;
use super::listen::{Ears, End, Left, Noted, TICK_MS, listen, nonsense, pass_notes_on};
use super::said::Said;
use super::worker::{Order, Report, Worker};
use crate::channel::{ChannelError, Crumb, GuestEnd};
use crate::families;
use crate::protocol::{Message, Plan};
use crate::record::Outcome;
use crate::session::{self, Kernel, Session, Sink};
use crate::spec::{ANYBODYS, Probe};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a killed process may take to go; attached programs are detached on the way, a grace period each.
const REAP: Duration = Duration::from_secs(20);

/// What is said of a probe of which that is so.
const STILL_THERE: &str = "processes of a probe were killed and are still there";

/// Why a machine cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// The channel failed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// Something of a probe is left that the next would have to live with.
    #[error("{STILL_THERE} after {REAP:?}; the machine ends")]
    Left,
}

/// Runs every probe of the plan and returns how many end records were sent.
pub(super) fn run_all(
    channel: &mut GuestEnd,
    kernel: &mut Kernel,
    plan: &Plan,
    probes: &[Probe],
    kmsg: &mut Kmsg,
) -> Result<u64, RunError> {
    warn(channel, kmsg)?;
    let mut keeper = Keeper::default();
    let mut runner = Runner { plan, probes, lingering: Lingering::default(), nest: None };
    let mut records = 0;
    for (place, probe) in probes.iter().enumerate().filter(|(_, probe)| probe.machine == plan.machine) {
        channel.beat();
        channel.clear();
        let drops_aya = !probe.aya && kernel.has_aya();
        if drops_aya {
            runner.end_worker(channel)?;
            kernel.drop_aya();
        }
        let family = families::family(probe.family());
        let kept = family.map_or(&[][..], |family| family.kept);
        let keeps_others = !keeper.keeps(kept);
        if keeps_others {
            runner.end_worker(channel)?; // it has the links that go
            keeper.keep(kernel, kept);
        }
        if drops_aya || keeps_others {
            warn(channel, kmsg)?; // what is said from here on is the probe's
        }
        channel.send(&Message::Start { probe: probe.id.clone() })?;
        let started = Instant::now();
        let lingers = probe.lingers || family.is_some_and(|family| family.lingers);
        let (outcome, clean) = runner.run(channel, kernel, place, lingers)?;
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let cleared = if clean { Ok(()) } else { runner.clear_the_field(channel) };
        kernel.clear_dispatchers();
        let mut warnings = kmsg.drain();
        if cleared.is_err() {
            warnings.push(STILL_THERE.to_owned());
        }
        channel.send(&Message::End { probe: probe.id.clone(), outcome, warnings, micros })?;
        records += 1;
        cleared?;
    }
    warn(channel, kmsg)?;
    // The power-off cleans up: detaching here would cost a grace period per link, and the harness waits.
    std::mem::forget((keeper, runner.lingering));
    Ok(records)
}

/// Says what the kernel has warned of since the last probe, if anything.
fn warn(channel: &mut GuestEnd, kmsg: &mut Kmsg) -> Result<(), ChannelError> {
    let warnings = kmsg.drain();
    if warnings.is_empty() { Ok(()) } else { channel.send(&Message::Warned { warnings }) }
}

/// What it takes to run probes one after the other.
struct Runner<'a> {
    plan: &'a Plan,
    probes: &'a [Probe],
    lingering: Lingering,
    nest: Option<Nest>,
}

/// A worker, and PID 1's ends of the pipes that the probes' processes below it have.
pub(super) struct Nest {
    pub(super) worker: Worker,
    pub(super) ears: Ears,
    /// Of how many probes it knows that their links are kept.
    told: usize,
}

impl Runner<'_> {
    /// Runs one probe. Gives its outcome, and whether nothing is left of it.
    fn run(
        &mut self,
        channel: &mut GuestEnd,
        kernel: &Kernel,
        place: usize,
        lingers: bool,
    ) -> Result<(Outcome, bool), ChannelError> {
        if let Err(errno) = self.ensure_worker(channel, kernel) {
            return Ok((no_process(&errno.to_string()), false));
        }
        let Some(nest) = &mut self.nest else { return Ok((no_process("there is no worker"), false)) };
        let kept = self.lingering.probes().get(nest.told..).unwrap_or_default().to_vec();
        nest.told += kept.len();
        if let Err(error) = nest.worker.order(&Order { probe: place, lingers, kept }) {
            return Ok((no_process(&error.to_string()), false));
        }
        let patience = Duration::from_millis(self.plan.probe_ms);
        let (outcome, report) = match supervise(channel, &self.probes[place], nest, patience)? {
            Left::Returned { outcome, links, pid } => {
                if lingers {
                    self.lingering.take_from(pid, &links, place);
                }
                // Lets the process go.
                let _ = nest.ears.take.write_all(&[1]);
                (outcome, nest.report(channel, REAP))
            }
            Left::Ended { outcome, report } => (outcome, Some(report)),
            Left::Otherwise(outcome) => return Ok((outcome, false)),
        };
        let spent = nest.worker.is_spent() || self.plan.apart;
        let clean = report == Some(Report::Ended { status: 0, clean: true }) && !spent;
        let whole = !matches!(outcome, Outcome::Crashed { .. });
        Ok((outcome, clean && whole))
    }

    /// Makes a worker if there is none.
    fn ensure_worker(&mut self, channel: &mut GuestEnd, kernel: &Kernel) -> Result<(), Errno> {
        if self.nest.is_some() {
            return Ok(());
        }
        let (reader, writer) = nix::unistd::pipe()?;
        let (taken, take) = nix::unistd::pipe()?;
        let (plan, probes, lingering) = (self.plan, self.probes, &mut self.lingering);
        let (crumb, notes) = (channel.crumb(), channel.notes());
        let (said, heard) = (writer.as_raw_fd(), taken.as_raw_fd());
        let mut body = |order: &Order, kept: &[usize]| {
            session::forget_links();
            let held: Vec<String> = kept.iter().map(|&place| probes[place].id.clone()).collect();
            // SAFETY: the worker has both descriptors for as long as it lives, and this process its own copies, which
            // nothing else here owns.
            let (said, heard) = unsafe { (File::from_raw_fd(said), File::from_raw_fd(heard)) };
            let mut sink = Sink::new(said, heard, notes);
            let outcome = in_child(kernel, plan, &probes[order.probe], crumb, &mut sink, &held);
            let links = if order.lingers { session::links() } else { Vec::new() };
            let pid = nix::unistd::getpid().as_raw();
            i32::from(sink.say(&Said::Returned { outcome, links, pid }).is_err())
        };
        let own_memory = |place: usize| probes[place].own_memory || probes[place].aya;
        let ours = (reader.as_raw_fd(), take.as_raw_fd());
        let prepare = || {
            lingering.leave_to_the_parent();
            for fd in [ours.0, ours.1] {
                // So that PID 1 hears of the end of all who can speak. Its own ends stay open in PID 1.
                // SAFETY: close takes a number; the owner of the descriptor is in PID 1, and this copy of it is never
                // dropped.
                unsafe { libc::close(fd) };
            }
        };
        let worker = Worker::start(prepare, own_memory, &mut body)?;
        let ears = Ears::new(File::from(reader), File::from(take));
        self.nest = Some(Nest { worker, ears, told: 0 });
        Ok(())
    }

    /// Ends the worker, if there is one.
    fn end_worker(&mut self, channel: &GuestEnd) -> Result<(), RunError> {
        if self.nest.is_some() { self.clear_the_field(channel) } else { Ok(()) }
    }

    /// Kills and reaps every process but PID 1, so that nothing of one probe is left for the next.
    fn clear_the_field(&mut self, channel: &GuestEnd) -> Result<(), RunError> {
        self.nest = None;
        let deadline = Instant::now() + REAP;
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        let mut nap = Duration::from_micros(200);
        while Instant::now() < deadline {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Err(_) => return Ok(()),
                Ok(WaitStatus::StillAlive) => {
                    channel.beat();
                    std::thread::sleep(nap);
                    nap = (nap * 2).min(Duration::from_millis(20));
                }
                Ok(_) => {}
            }
        }
        Err(RunError::Left)
    }
}

impl Nest {
    /// The worker's next report; none if there is none in time, or none will come.
    fn report(&mut self, channel: &GuestEnd, patience: Duration) -> Option<Report> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            channel.beat();
            let mut fds = [PollFd::new(self.worker.reports(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(TICK_MS)) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return self.worker.report().ok(),
                Err(_) => return None,
            }
        }
        None
    }
}

/// The probe's process: its own session, its own mount namespace with an empty `/tmp` if it has to do with files.
fn in_child(
    kernel: &Kernel,
    plan: &Plan,
    probe: &Probe,
    crumb: Crumb,
    sink: &mut Sink,
    held: &[String],
) -> Outcome {
    let _ = nix::unistd::setsid();
    if !probe.no_files {
        let _ = unshare(CloneFlags::CLONE_NEWNS);
        private_tmp();
    }
    let result = {
        let mut session = Session::new(kernel, crumb, plan.detail, sink, held);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (probe.run)(&mut session)))
    };
    if probe.no_files
        && let Some(left) = left_behind()
    {
        return Outcome::CouldNotTell {
            why: format!("it was said to make no files, and left {}", left.display()),
        };
    }
    match result {
        Ok(Ok(())) => Outcome::Observed,
        Ok(Err(stop)) => Outcome::CouldNotTell { why: stop.0 },
        Err(panic) => Outcome::Crashed {
            what: format!("the probe panicked: {}", panic_text(panic.as_ref())),
            during: String::new(),
        },
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

/// A file in the machine's `/tmp`, in which probes that make files have one of their own, but for [`ANYBODYS`].
fn left_behind() -> Option<PathBuf> {
    let files = std::fs::read_dir("/tmp").ok()?;
    files.filter_map(|entry| Some(entry.ok()?.path())).find(|path| path != Path::new(ANYBODYS))
}

fn private_tmp() {
    use nix::mount::{MsFlags, mount};
    let none = None::<&str>;
    let _ = mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none);
    let _ = mount(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::empty(), Some("mode=1777"));
    let _ = std::env::set_current_dir("/tmp");
}

/// Passes on what the probe's process says until it has returned, died, or run out of time.
fn supervise(
    channel: &mut GuestEnd,
    probe: &Probe,
    nest: &mut Nest,
    patience: Duration,
) -> Result<Left, ChannelError> {
    let end = listen(channel, probe, nest, patience)?;
    // Whatever the end is, what was found before it counts.
    let noted = pass_notes_on(channel, &probe.id)?;
    Ok(match (end, noted) {
        (_, Noted::Nonsense(outcome)) => Left::Otherwise(outcome),
        (End::Reported(Some(report @ Report::Ended { .. })), Noted::Returned(outcome)) => {
            Left::Ended { outcome, report }
        }
        (End::Reported(Some(Report::Failed(errno))), _) => Left::Otherwise(no_process(&errno.to_string())),
        (End::Reported(report), _) => Left::Otherwise(outcome_of_the_dead(channel, report)),
        (End::Left(Left::Returned { .. }), Noted::Returned(_)) => {
            Left::Otherwise(nonsense("it returned twice"))
        }
        (End::Left(left), _) => left,
    })
}

fn no_process(why: &str) -> Outcome {
    Outcome::CouldNotTell { why: format!("no process for the probe: {why}") }
}

/// The process has ended without having returned: it died.
fn outcome_of_the_dead(channel: &GuestEnd, report: Option<Report>) -> Outcome {
    let what = match report {
        Some(Report::Ended { status, .. }) if libc::WIFSIGNALED(status) => {
            match Signal::try_from(libc::WTERMSIG(status)) {
                Ok(signal) => format!("the probe's process was ended by {signal}"),
                Err(_) => format!("the probe's process was ended by signal {}", libc::WTERMSIG(status)),
            }
        }
        Some(Report::Ended { status, .. }) => {
            format!("the probe's process left with status {}", libc::WEXITSTATUS(status))
        }
        Some(Report::Failed(_)) | None => "the probe's process vanished".to_owned(),
    };
    Outcome::Crashed { what, during: channel.read_crumb() }
}
