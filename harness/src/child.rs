//! Child processes that cannot outstay their welcome: a wall-clock deadline, a process group of their own that is
//! killed on drop, and a kernel-side promise that they die with the thread that started them.
//!
//! Everything a child writes goes to an optional log file and to a bounded tail that errors show. The promise to die
//! with the parent (`PR_SET_PDEATHSIG`) holds for the child itself, not for what it starts in turn, and it is bound
//! to the *thread* that called [`Command::spawn`]: that thread has to live as long as the child should. A child that
//! is dropped or overdue is first asked to end (`SIGTERM` to its group) and killed half a second later. What a child
//! starts in turn goes with this process too when it runs behind a guard ([`Command::guarded`]); what must not be broken
//! off is left to end by itself ([`Command::finishes`]).

mod error;
mod limit;

pub use error::ChildError;
pub(crate) use limit::write_no_more_than;

use crate::guard;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How much of the latest output is kept for errors.
const TAIL_BYTES: usize = 4096;
/// Standard output beyond this is only in the log file.
const STDOUT_BYTES: usize = 16 << 20;
/// How long the pipes may stay open after the child has ended (a grandchild may hold them).
const DRAIN: Duration = Duration::from_secs(2);

/// How long a child that is being stopped has to tidy up before it is killed.
const GRACE: Duration = Duration::from_millis(500);
/// The same for one that must not be broken off.
const FINISHING_GRACE: Duration = Duration::from_secs(10);
/// How long a guard ([`crate::guard`]) has to end what it has started: it tries for five seconds.
const GUARD_GRACE: Duration = Duration::from_secs(6);

/// How long what has been killed may take to be gone. A process in a system call that does not end, or one of another user
/// (behind sudo), may never be.
const GONE: Duration = Duration::from_secs(5);

/// Waits for a child that has been killed, at most [`GONE`].
pub(crate) fn reap(child: &mut std::process::Child) -> Option<ExitStatus> {
    let until = Instant::now() + GONE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
            // Nothing is left to wait for, or it is left alone.
            Ok(None) | Err(_) => return None,
        }
    }
}

/// A program to be started.
#[derive(Debug)]
pub struct Command {
    inner: std::process::Command,
    what: String,
    deadline: Duration,
    log: Option<PathBuf>,
    tail_bytes: usize,
    finishes: bool,
}

impl Command {
    /// A child that runs `program`, is called `what` in messages and is killed after `deadline`.
    pub fn new(program: impl AsRef<OsStr>, what: impl Into<String>, deadline: Duration) -> Self {
        let mut inner = std::process::Command::new(program);
        inner.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        Self { inner, what: what.into(), deadline, log: None, tail_bytes: TAIL_BYTES, finishes: false }
    }

    /// The same behind a guard, which `conform`, this program, is: whatever ends this process, nothing stays that
    /// `program` has started. A program that cannot be started leaves with [`guard::NOT_STARTED`].
    pub fn guarded(
        conform: &Path,
        program: impl AsRef<OsStr>,
        what: impl Into<String>,
        deadline: Duration,
    ) -> Self {
        Self::new(conform, what, deadline).with_stdin().args([guard::VERB, "--"]).arg(program)
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.inner.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.inner.args(args);
        self
    }

    /// Sets an environment variable of the child.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(name, value);
        self
    }

    /// Removes an environment variable from the child.
    #[must_use]
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.inner.env_remove(name);
        self
    }

    /// Sets the child's working directory.
    #[must_use]
    pub fn current_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.inner.current_dir(dir);
        self
    }

    /// Connects the child's standard input, to be taken with [`Running::stdin`]; it is `/dev/null` otherwise.
    #[must_use]
    pub fn with_stdin(mut self) -> Self {
        self.inner.stdin(Stdio::piped());
        self
    }

    /// Writes all output to `path`, from its beginning.
    #[must_use]
    pub fn log(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self
    }

    /// Keeps the last `bytes` of what the child writes for errors; 4 KiB where nothing is said.
    #[must_use]
    pub fn tail(mut self, bytes: usize) -> Self {
        self.tail_bytes = bytes;
        self
    }

    /// Has the child come to its end also when this process is ended meanwhile, because it would leave behind what
    /// somebody has to mend, as a package manager does. It writes to `log` alone, from its beginning: a pipe that nobody
    /// reads any more would end it. Nothing is captured of its standard output.
    #[must_use]
    pub fn finishes(mut self, log: impl Into<PathBuf>) -> Self {
        self.finishes = true;
        self.log(log)
    }

    /// No file may grow beyond `bytes` by what the child writes, which sees an error.
    #[must_use]
    pub fn writes_no_more_than(mut self, bytes: u64) -> Self {
        write_no_more_than(&mut self.inner, bytes);
        self
    }

    /// Starts the child.
    ///
    /// # Errors
    /// [`ChildError::NotFound`], [`ChildError::Start`] or [`ChildError::Log`].
    pub fn spawn(mut self) -> Result<Running, ChildError> {
        let log = match &self.log {
            None => None,
            Some(path) => {
                Some(File::create(path).map_err(|source| ChildError::Log { path: path.clone(), source })?)
            }
        };
        match &log {
            Some(log) if self.finishes => {
                let own = || log.try_clone().map_err(|source| self.start_error(source));
                let (stdout, stderr) = (own()?, own()?);
                self.inner.stdout(stdout).stderr(stderr);
            }
            _ => die_with_parent(&mut self.inner),
        }
        let started = Instant::now();
        let mut child = self.inner.spawn().map_err(|source| self.start_error(source))?;
        let captured =
            Arc::new(Mutex::new(Captured { log, tail_bytes: self.tail_bytes, ..Captured::default() }));
        let (done, readers) = channel();
        if let Some(stdout) = child.stdout.take() {
            read_along(stdout, Arc::clone(&captured), true, done.clone());
        }
        if let Some(stderr) = child.stderr.take() {
            read_along(stderr, Arc::clone(&captured), false, done.clone());
        }
        Ok(Running {
            child,
            what: self.what,
            started,
            deadline: self.deadline,
            log: self.log,
            grace: if self.finishes { FINISHING_GRACE } else { GRACE },
            captured,
            readers,
            ended: None,
            left_alone: false,
        })
    }

    /// Runs the child to its end.
    ///
    /// # Errors
    /// Any [`ChildError`]; an exit status other than 0 is one.
    pub fn run(self) -> Result<Output, ChildError> {
        self.spawn()?.wait()
    }

    fn start_error(&self, source: io::Error) -> ChildError {
        let what = self.what.clone();
        let program = self.inner.get_program().to_string_lossy().into_owned();
        if source.kind() == io::ErrorKind::NotFound {
            return ChildError::NotFound { what, program };
        }
        ChildError::Start { what, program, source }
    }
}

/// Asks the kernel to kill the child when the starting thread ends.
fn die_with_parent(command: &mut std::process::Command) {
    let parent = std::process::id();
    // SAFETY: the closure runs between fork and exec and calls only `prctl` and `getppid`, both async-signal-safe;
    // it allocates nothing (an error made from a raw errno owns no memory).
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the request was made; then nobody would ever send the signal.
            if u32::try_from(libc::getppid()) != Ok(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// What a child has written so far.
#[derive(Default)]
struct Captured {
    stdout: Vec<u8>,
    tail: VecDeque<u8>,
    tail_bytes: usize,
    log: Option<File>,
}

impl Captured {
    fn take_in(&mut self, bytes: &[u8], is_stdout: bool) {
        if is_stdout {
            let room = STDOUT_BYTES.saturating_sub(self.stdout.len());
            self.stdout.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        self.tail.extend(bytes);
        let excess = self.tail.len().saturating_sub(self.tail_bytes);
        self.tail.drain(..excess);
        if let Some(log) = &mut self.log {
            // A full disk shows itself where the result is written; the tail is kept either way.
            let _ = log.write_all(bytes);
        }
    }
}

/// Copies one of the child's streams into `captured` until it closes.
fn read_along(
    mut stream: impl Read + Send + 'static,
    captured: Arc<Mutex<Captured>>,
    is_stdout: bool,
    done: std::sync::mpsc::Sender<()>,
) {
    std::thread::spawn(move || {
        let mut buffer = [0; 16384];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            captured.lock().unwrap_or_else(PoisonError::into_inner).take_in(&buffer[..count], is_stdout);
        }
        // Nobody waits any more when the child was dropped.
        let _ = done.send(());
    });
}

/// How a child that ended well ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// Standard output, at most 16 MiB of it.
    pub stdout: String,
    /// The end of both streams, in order of arrival.
    pub tail: String,
    /// From start to end.
    pub elapsed: Duration,
}

/// A child under way; killed with its process group when dropped.
pub struct Running {
    child: std::process::Child,
    what: String,
    started: Instant,
    deadline: Duration,
    log: Option<PathBuf>,
    grace: Duration,
    captured: Arc<Mutex<Captured>>,
    readers: Receiver<()>,
    ended: Option<ExitStatus>,
    /// It could not be killed, and nobody waits for it any more.
    left_alone: bool,
}

impl Running {
    /// The child's process id, which is also its process group's.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child's standard input, once, if [`Command::with_stdin`] asked for it.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// The end of what the child has written so far.
    #[must_use]
    pub fn tail(&self) -> String {
        let captured = self.captured.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes: Vec<u8> = captured.tail.iter().copied().collect();
        if let (true, Some(log)) = (bytes.is_empty(), &self.log) {
            // As of a child that writes there itself; one whose log is gone has no tail.
            bytes = end_of(log).unwrap_or_default();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How the child ended, or `None` while it runs. The deadline is not looked at.
    ///
    /// # Errors
    /// [`ChildError::Wait`].
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, ChildError> {
        if self.ended.is_none() {
            let waited = self.child.try_wait();
            self.ended = waited.map_err(|source| ChildError::Wait { what: self.what.clone(), source })?;
        }
        Ok(self.ended)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// [`ChildError::Deadline`], [`ChildError::Failed`] or [`ChildError::Wait`].
    pub fn wait(self) -> Result<Output, ChildError> {
        self.wait_with(|| {})
    }

    /// Waits for the end and calls `tick` several times a second meanwhile.
    ///
    /// # Errors
    /// [`ChildError::Deadline`], [`ChildError::Failed`] or [`ChildError::Wait`].
    pub fn wait_with(mut self, mut tick: impl FnMut()) -> Result<Output, ChildError> {
        let mut pause = Duration::from_millis(2);
        let status = loop {
            if let Some(status) = self.try_wait()? {
                break status;
            }
            if self.started.elapsed() >= self.deadline {
                self.stop(self.grace);
                self.drain();
                let (what, tail, log) = (self.what.clone(), self.tail(), self.log.clone());
                return Err(ChildError::Deadline { what, deadline: self.deadline, tail, log });
            }
            tick();
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        };
        let elapsed = self.started.elapsed();
        self.drain();
        let tail = self.tail();
        if !status.success() {
            return Err(ChildError::Failed { what: self.what.clone(), status, tail, log: self.log.clone() });
        }
        let mut captured = self.captured.lock().unwrap_or_else(PoisonError::into_inner);
        let stdout = String::from_utf8_lossy(&std::mem::take(&mut captured.stdout)).into_owned();
        drop(captured);
        Ok(Output { stdout, tail, elapsed })
    }

    /// Asks the child's process group to end, and kills it when the child has not ended after `grace`.
    ///
    /// The grace lets apt note how far a download came, and QEMU close its files.
    pub fn stop(&mut self, grace: Duration) {
        if self.ended.is_some() || self.left_alone {
            return;
        }
        if let Some(pipe) = self.child.stdin.take() {
            drop(pipe); // which tells a guard to end what it has started
            self.give(GUARD_GRACE);
        }
        self.signal(libc::SIGTERM);
        self.give(grace);
        self.kill();
    }

    /// Gives the child time to end by itself.
    fn give(&self, grace: Duration) {
        let until = Instant::now() + grace;
        while Instant::now() < until && !self.is_zombie() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the child and whatever is left of its process group, and waits a little for the child. One that cannot be
    /// killed is left alone.
    pub fn kill(&mut self) {
        if self.ended.is_none() && !self.left_alone {
            self.signal(libc::SIGKILL);
            self.ended = reap(&mut self.child);
            self.left_alone = self.ended.is_none();
        }
    }

    /// Sends a signal to the process group of a child that has not been waited for.
    fn signal(&self, signal: libc::c_int) {
        if let Ok(group) = i32::try_from(self.child.id()) {
            // SAFETY: `killpg` takes plain numbers. The number is still the child's: callers see to it that the
            // child, the group's leader, has not been waited for.
            unsafe { libc::killpg(group, signal) };
        }
    }

    /// Whether the child has ended, without taking its exit status, so that its number stays its own.
    fn is_zombie(&self) -> bool {
        use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
        let Ok(pid) = i32::try_from(self.child.id()) else { return true };
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        !matches!(waitid(Id::Pid(nix::unistd::Pid::from_raw(pid)), flags), Ok(WaitStatus::StillAlive))
    }

    /// Waits a little for the last output.
    fn drain(&self) {
        let until = Instant::now() + DRAIN;
        for _stream in 0..2 {
            if self.readers.recv_timeout(until.saturating_duration_since(Instant::now())).is_err() {
                return;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.stop(self.grace);
        }
    }
}

/// The last [`TAIL_BYTES`] of a file.
fn end_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(end.saturating_sub(TAIL_BYTES as u64)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
