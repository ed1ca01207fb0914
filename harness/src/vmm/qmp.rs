//! As much of QEMU's monitor protocol as saving and restoring a machine takes.
//!
//! One JSON object per line; an answer has `return` or `error`, and events may come in between
//! (QEMU docs/interop/qmp-spec).

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an answer may take. Commands only start things; none waits for a guest.
const ANSWER: Duration = Duration::from_secs(20);
/// How often something that is under way is asked about.
const POLL: Duration = Duration::from_millis(3);

/// What can go wrong with the monitor.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket failed.
    #[error("qemu's monitor cannot be reached: {0}")]
    Io(#[from] std::io::Error),
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
}

impl Qmp {
    /// Connects to `socket`, which QEMU makes while it starts, and leaves negotiation mode.
    ///
    /// # Errors
    /// [`QmpError`], among them when there is no socket by `deadline`.
    pub fn connect(socket: &Path, deadline: Instant) -> Result<Self, QmpError> {
        Self::answering(socket, deadline, ANSWER)
    }

    /// The same with a monitor that must answer within `patience`.
    fn answering(socket: &Path, deadline: Instant, patience: Duration) -> Result<Self, QmpError> {
        let stream = connect(socket, deadline)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut qmp = Self { stream: BufReader::new(stream) };
        qmp.line()?; // the greeting
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
        loop {
            let mut answer = self.line()?;
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

    fn line(&mut self) -> Result<Value, QmpError> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        serde_json::from_str(&line).map_err(|error| QmpError::Nonsense(format!("{error}: {}", line.trim())))
    }
}

/// Connects to a socket that another process is about to make.
///
/// # Errors
/// The last attempt's, when `deadline` has passed.
pub fn connect(socket: &Path, deadline: Instant) -> std::io::Result<UnixStream> {
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > deadline => return Err(error),
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
        let qmp = Qmp::connect(&socket, Instant::now() + Duration::from_secs(5)).unwrap();
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
        assert!(Qmp::answering(&socket, Instant::now() + patience, ANSWER).is_err());
        let _silent = UnixListener::bind(&socket).unwrap();
        let started = Instant::now();
        assert!(Qmp::answering(&socket, Instant::now() + ANSWER, patience).is_err());
        assert!(started.elapsed() < ANSWER);
    }

    #[test]
    fn a_machine_that_goes_is_an_error() {
        let (_folder, mut qmp) = scripted(&[]);
        assert!(qmp.command("query-status", json!({})).is_err());
    }
}
