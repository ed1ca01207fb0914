//! As much of QEMU's monitor protocol as saving and restoring a machine takes.
//!
//! One JSON object per line; an answer has `return` or `error`, and events may come in between
//! (QEMU docs/interop/qmp-spec).

use crate::interrupt;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an answer may take. Commands only start things; none waits for a guest.
const ANSWER: Duration = Duration::from_secs(20);
/// How long a line may be: an answer has some hundred bytes.
const LINE_MAX: usize = 1 << 20;
/// How often something that is under way is asked about.
const POLL: Duration = Duration::from_millis(3);
/// How long a socket may be waited for before deadlines and signals are looked at again.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// What can go wrong with the monitor.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket failed.
    #[error("qemu's monitor cannot be reached: {0}")]
    Io(#[from] io::Error),
    /// What came was no answer.
    #[error("qemu's monitor said something else than an answer: {0}")]
    Nonsense(String),
    /// QEMU refused.
    #[error("qemu refused {command}: {why}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's words.
        why: String,
    },
    /// Something did not come to its end.
    #[error("qemu was not done with {what} after {after:?}; its state was {state}")]
    Late {
        /// What.
        what: &'static str,
        /// The limit.
        after: Duration,
        /// What QEMU said last.
        state: String,
    },
}

/// A connection to a machine's monitor.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
    /// How long an answer may take.
    patience: Duration,
    /// When all answers must have come, if there is such a time.
    deadline: Option<Instant>,
}

impl Qmp {
    /// Connects to `socket`, which QEMU makes while it starts, and leaves negotiation mode. All answers must come by
    /// `deadline`, until [`Qmp::has_time`]. `lives` says whether that QEMU is there.
    ///
    /// # Errors
    /// [`QmpError`], among them when there is no socket by `deadline`, and when a signal asks this program to stop.
    pub fn connect(
        socket: &Path,
        deadline: Instant,
        lives: &mut dyn FnMut() -> bool,
    ) -> Result<Self, QmpError> {
        Self::answering(connect(socket, deadline, lives)?, Some(deadline), ANSWER)
    }

    /// From now on only each answer by itself has a deadline.
    pub fn has_time(&mut self) {
        self.deadline = None;
    }

    /// A monitor that must answer within `patience`.
    fn answering(
        stream: UnixStream,
        deadline: Option<Instant>,
        patience: Duration,
    ) -> Result<Self, QmpError> {
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(patience))?;
        let mut qmp = Self { stream: BufReader::new(stream), patience, deadline };
        qmp.line(qmp.late())?; // the greeting
        qmp.command("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Gives a command and returns what it returns.
    ///
    /// # Errors
    /// [`QmpError`].
    #[expect(clippy::needless_pass_by_value, reason = "arguments are written where they are used")]
    pub fn command(&mut self, name: &str, arguments: Value) -> Result<Value, QmpError> {
        let mut line = json!({ "execute": name, "arguments": arguments }).to_string();
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes())?;
        // Events in between do not make it later.
        let late = self.late();
        loop {
            let mut answer = self.line(late)?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                let why = error.get("desc").and_then(Value::as_str).unwrap_or_default().to_owned();
                return Err(QmpError::Refused { command: name.to_owned(), why });
            }
            if answer.get("event").is_none() {
                return Err(QmpError::Nonsense(answer.to_string()));
            }
        }
    }

    /// Asks `command` until the field `status` of its answer satisfies `done`, which may also refuse it.
    ///
    /// # Errors
    /// [`QmpError::Late`] after `deadline`, and what `done` says.
    pub fn until(
        &mut self,
        command: &'static str,
        deadline: Instant,
        done: impl Fn(&str) -> Result<bool, QmpError>,
    ) -> Result<(), QmpError> {
        let started = Instant::now();
        loop {
            interrupt::check()?;
            let answer = self.command(command, json!({}))?;
            let status = answer.get("status").and_then(Value::as_str).unwrap_or_default();
            if done(status)? {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(QmpError::Late {
                    what: command,
                    after: started.elapsed(),
                    state: status.to_owned(),
                });
            }
            std::thread::sleep(POLL);
        }
    }

    /// When an answer that is asked for now is late.
    fn late(&self) -> Instant {
        let late = Instant::now() + self.patience;
        self.deadline.map_or(late, |deadline| deadline.min(late))
    }

    fn line(&mut self, late: Instant) -> Result<Value, QmpError> {
        let mut line = Vec::new();
        // What has come of a line stays in `line`. A line that drips is late too.
        while !line.ends_with(b"\n") {
            interrupt::check()?;
            if Instant::now() > late {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            if line.len() > LINE_MAX {
                return Err(QmpError::Nonsense(format!("a line of more than {LINE_MAX} bytes")));
            }
            let come = match self.stream.fill_buf() {
                Ok([]) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(bytes) => match bytes.iter().position(|byte| *byte == b'\n') {
                    Some(end) => &bytes[..=end],
                    None => bytes,
                },
                Err(error) if is_pause(&error) || error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            line.extend_from_slice(come);
            let taken = come.len();
            self.stream.consume(taken);
        }
        serde_json::from_slice(&line).map_err(|error| {
            QmpError::Nonsense(format!("{error}: {}", String::from_utf8_lossy(&line).trim()))
        })
    }
}

/// Whether a socket with a timeout only says that it has passed.
pub(super) fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Connects to a socket that another process is about to make, for as long as it `lives`.
///
/// # Errors
/// The last attempt's, when `deadline` has passed; and when the process has ended, or a signal asks this one to.
pub fn connect(socket: &Path, deadline: Instant, lives: &mut dyn FnMut() -> bool) -> io::Result<UnixStream> {
    loop {
        interrupt::check()?;
        // Asked first: it may have made the socket and ended in between.
        let there = lives();
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) if !there => return Err(io::Error::other("qemu ended before it could be reached")),
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A monitor that gives the answers of a script, one per command.
    fn scripted(answers: &'static [&'static str]) -> (tempfile::TempDir, Qmp) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qmp");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"{\"QMP\": {}}\n").unwrap();
            let mut commands = BufReader::new(stream.try_clone().unwrap()).lines();
            for answer in ["{\"return\": {}}"].iter().chain(answers) {
                if commands.next().is_none() {
                    return;
                }
                writeln!(stream, "{answer}").unwrap();
            }
        });
        let qmp = Qmp::connect(&socket, Instant::now() + Duration::from_secs(5), &mut || true).unwrap();
        (folder, qmp)
    }

    #[test]
    fn events_are_passed_over() {
        let (_folder, mut qmp) = scripted(&["{\"event\": \"STOP\"}\n{\"return\": {\"status\": \"paused\"}}"]);
        assert_eq!(qmp.command("query-status", json!({})).unwrap()["status"], "paused");
    }

    #[test]
    fn a_refusal_names_the_command_and_the_reason() {
        let (_folder, mut qmp) = scripted(&["{\"error\": {\"desc\": \"no such thing\"}}"]);
        let error = qmp.command("migrate", json!({})).unwrap_err().to_string();
        assert_eq!(error, "qemu refused migrate: no such thing");
    }

    #[test]
    fn waiting_ends_at_the_deadline_and_says_what_was_seen() {
        const SAME: &str = "{\"return\": {\"status\": \"inmigrate\"}}";
        let (_folder, mut qmp) = scripted(&[SAME; 200]);
        let deadline = Instant::now() + Duration::from_millis(20);
        let error = qmp.until("query-status", deadline, |status| Ok(status == "paused")).unwrap_err();
        assert!(error.to_string().contains("inmigrate"), "{error}");
    }

    #[test]
    fn a_monitor_that_never_comes_and_one_that_never_answers_are_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qmp");
        let patience = Duration::from_millis(20);
        assert!(Qmp::connect(&socket, Instant::now() + patience, &mut || true).is_err());
        let started = Instant::now();
        let error = Qmp::connect(&socket, started + ANSWER, &mut || false).unwrap_err();
        assert!(error.to_string().contains("qemu ended before"), "{error}");
        let _silent = UnixListener::bind(&socket).unwrap();
        let silent = || UnixStream::connect(&socket).unwrap();
        assert!(Qmp::answering(silent(), None, patience).is_err());
        assert!(Qmp::answering(silent(), Some(Instant::now() + patience), ANSWER).is_err());
        assert!(started.elapsed() < ANSWER);
    }

    #[test]
    fn a_monitor_that_drips_or_says_something_else_all_the_time_is_given_up() {
        for said in [&b"."[..], b"{\"event\": \"x\"}\n"] {
            let (stream, mut other) = UnixStream::pair().unwrap();
            let talks = std::thread::spawn(move || {
                let begun = other.write_all(b"{\"QMP\": {}}\n");
                while begun.is_ok() && other.write_all(said).is_ok() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            let started = Instant::now();
            assert!(Qmp::answering(stream, None, Duration::from_millis(200)).is_err());
            assert!(started.elapsed() < ANSWER);
            talks.join().unwrap();
        }
    }

    #[test]
    fn a_machine_that_goes_is_an_error() {
        let (_folder, mut qmp) = scripted(&[]);
        assert!(qmp.command("query-status", json!({})).is_err());
    }
}
