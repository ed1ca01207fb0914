//! What a probe's process says, until it has returned, died, or run out of time: PID 1 passes its cases on.

use super::runner::Nest;
use super::said::Heard;
use super::worker::Report;
use crate::channel::{ChannelError, GuestEnd};
use crate::patience::Patience;
use crate::protocol::FRAME_MAX;
use crate::record::Outcome;
use crate::spec::Probe;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, RawFd};
use std::time::Duration;

/// How often the supervisor looks up while it waits, which is also how often it beats.
pub(super) const TICK_MS: u16 = 100;
/// What may pass between two ticks in a machine that is busy; what is more, as on a host that gives it no processor, is not
/// counted as a probe's.
const STARVED: Duration = Duration::from_millis(4 * TICK_MS as u64);

/// How a probe's process ended, or was left.
pub(super) enum Left {
    /// It has returned, and waits to be let go.
    Returned { outcome: Outcome, links: Vec<RawFd>, pid: Pid },
    /// It has ended, with what it noted as its outcome.
    Ended { outcome: Outcome, report: Report },
    /// Anything else.
    Otherwise(Outcome),
}

/// PID 1's ends of a probe's pipes.
pub(super) struct Ears {
    /// What the process says.
    pub(super) reader: File,
    /// A byte here for each line that was taken.
    pub(super) take: File,
    /// What has been read of a line that is not complete yet.
    pending: Vec<u8>,
    /// How much of it, in bytes, is known to have no end of a line.
    searched: usize,
}

impl Ears {
    /// The ends of fresh pipes: what the process says, and its leave to go on.
    pub(super) const fn new(reader: File, take: File) -> Self {
        Self { reader, take, pending: Vec::new(), searched: 0 }
    }

    /// The next complete line, with its end.
    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.pending.iter().skip(self.searched).position(|&byte| byte == b'\n');
        let Some(end) = end.map(|at| self.searched + at) else {
            self.searched = self.pending.len();
            return None;
        };
        self.searched = 0;
        Some(self.pending.drain(..=end).collect())
    }

    /// Whether what is pending can be no line that anybody says: it would not fit into a frame.
    const fn is_too_long(&self) -> bool {
        self.pending.len() > FRAME_MAX
    }
}

/// What there is to hear next, when it is no line.
pub(super) enum End {
    /// The worker has reported, or gone.
    Reported(Option<Report>),
    /// What the process said through its pipe, or did not say in time.
    Left(Left),
}

/// Passes on the process's cases, up to whatever ends it.
pub(super) fn listen(
    channel: &mut GuestEnd,
    probe: &Probe,
    nest: &mut Nest,
    patience: Duration,
) -> Result<End, ChannelError> {
    let mut patience = Patience::of_looks(patience, STARVED);
    // Small: the pages that this process writes are copied anew after each fork.
    let mut buffer = [0_u8; 4 << 10];
    loop {
        channel.beat();
        if !patience.lasts() {
            let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            return Ok(End::Left(Left::Otherwise(Outcome::Hung { during: channel.read_crumb() })));
        }
        let mut fds = [
            PollFd::new(nest.ears.reader.as_fd(), PollFlags::POLLIN),
            PollFd::new(nest.worker.reports(), PollFlags::POLLIN),
        ];
        if matches!(poll(&mut fds, PollTimeout::from(TICK_MS)), Ok(0) | Err(Errno::EINTR)) {
            continue;
        }
        // What was said before the end comes first.
        if fds[0].any() != Some(true) {
            return Ok(End::Reported(nest.worker.report().ok()));
        }
        let length = match nest.ears.reader.read(&mut buffer) {
            Ok(0) => return Ok(End::Reported(None)),
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let why = format!("lost the probe's pipe: {error}");
                return Ok(End::Left(Left::Otherwise(Outcome::CouldNotTell { why })));
            }
        };
        nest.ears.pending.extend_from_slice(&buffer[..length]);
        if let Some(left) = pass_on(channel, probe, &mut nest.ears)? {
            return Ok(End::Left(left));
        }
    }
}

/// Takes the complete lines that have been read; an outcome ends the probe.
fn pass_on(channel: &mut GuestEnd, probe: &Probe, ears: &mut Ears) -> Result<Option<Left>, ChannelError> {
    while let Some(line) = ears.line() {
        // The notes are older than any line.
        match pass_notes_on(channel, &probe.id)? {
            Noted::Cases => {}
            Noted::Returned(_) => return Ok(Some(Left::Otherwise(nonsense("more after its end")))),
            Noted::Nonsense(outcome) => return Ok(Some(Left::Otherwise(outcome))),
        }
        match Heard::read(&line) {
            Ok(Heard::Case(case)) => channel.send_case(&probe.id, case)?,
            Ok(Heard::Full) => {}
            Ok(Heard::Returned { outcome, links, pid }) => {
                return Ok(Some(Left::Returned { outcome, links, pid: Pid::from_raw(pid) }));
            }
            Err(error) => return Ok(Some(Left::Otherwise(nonsense(&error)))),
        }
        // A probe that has died meanwhile hears nothing, which its worker will say.
        let _ = ears.take.write_all(&[1]);
    }
    // PID 1's memory is the machine's: it does not wait for an end that may never come.
    let endless = || Left::Otherwise(nonsense(&format!("a line of more than {FRAME_MAX} bytes")));
    Ok(ears.is_too_long().then(endless))
}

/// What else was among the notes.
pub(super) enum Noted {
    /// Nothing.
    Cases,
    /// The end, as their last line.
    Returned(Outcome),
    /// What does not belong there, and what that makes of the probe.
    Nonsense(Outcome),
}

/// Passes on the cases among the notes, and forgets them then: those that the harness finds in both places it takes once.
pub(super) fn pass_notes_on(channel: &mut GuestEnd, probe: &str) -> Result<Noted, ChannelError> {
    let noted = send_notes(channel, probe)?;
    channel.forget_notes();
    Ok(noted)
}

fn send_notes(channel: &mut GuestEnd, probe: &str) -> Result<Noted, ChannelError> {
    let notes = channel.noted();
    let mut noted = Noted::Cases;
    for line in notes.split_inclusive(|&byte| byte == b'\n') {
        if let Noted::Returned(_) = noted {
            return Ok(Noted::Nonsense(nonsense("more after its end")));
        }
        match Heard::read(line) {
            Ok(Heard::Case(case)) => channel.send_case(probe, case)?,
            Ok(Heard::Returned { outcome, .. }) => noted = Noted::Returned(outcome),
            Ok(Heard::Full) => return Ok(Noted::Nonsense(nonsense("no case among its notes"))),
            Err(error) => return Ok(Noted::Nonsense(nonsense(&error))),
        }
    }
    Ok(noted)
}

pub(super) fn nonsense(error: &str) -> Outcome {
    Outcome::CouldNotTell { why: format!("the probe's process said nonsense: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::tests::pair;
    use crate::protocol::Message;

    #[test]
    fn lines_are_taken_whole_and_one_without_end_is_noticed() {
        let (reader, take) = nix::unistd::pipe().unwrap();
        let (reader, take) = (File::from(reader), File::from(take));
        let mut ears = Ears { reader, take, pending: b"a\nbc".to_vec(), searched: 0 };
        assert_eq!(ears.line().as_deref(), Some(&b"a\n"[..]));
        assert_eq!((ears.line(), ears.searched), (None, 2));
        ears.pending.extend_from_slice(b"d\n\n");
        assert_eq!(ears.line().as_deref(), Some(&b"bcd\n"[..]));
        assert_eq!(ears.line().as_deref(), Some(&b"\n"[..]));
        ears.pending.resize(FRAME_MAX, b'e');
        assert!(ears.line().is_none() && !ears.is_too_long());
        ears.pending.push(b'e');
        assert!(ears.line().is_none() && ears.is_too_long());
    }

    #[test]
    fn notes_that_could_not_be_passed_on_stay_for_the_harness() {
        let (mut host, mut guest, _file) = pair();
        guest.clear();
        guest.be_patient_for(Duration::from_millis(5));
        let line = |name: &str| format!("c{{\"name\":\"{name}\",\"phase\":\"load\",\"end\":\"done\"}}\n");
        assert!(["a", "b"].iter().all(|name| guest.notes().write(line(name).as_bytes())));
        // No room: nobody reads.
        let full = Message::Failed { why: "x".repeat(1 << 20) };
        while guest.send(&full).is_ok() {}
        while guest.send(&Message::Done { records: 0 }).is_ok() {}
        assert!(matches!(pass_notes_on(&mut guest, "f/p"), Err(ChannelError::Stalled(_))));
        let names: Vec<String> = host.noted().into_iter().map(|case| case.name).collect();
        assert_eq!(names, ["a", "b"]);
        while host.receive().unwrap().is_some() {}
        assert!(matches!(pass_notes_on(&mut guest, "f/p"), Ok(Noted::Cases)));
        assert!(host.noted().is_empty());
        assert_eq!(std::iter::from_fn(|| host.receive().unwrap()).count(), 2);
    }
}
