//! One running virtual machine: started under guard, its console kept, ended for certain.

use super::folder::{Folder, NoPlace};
use super::launch::{BootFiles, CHANNEL, Launcher, MachineSpec};
use super::qmp::{Qmp, QmpError};
use super::said::Said;
use crate::child;
use crate::guard;
use conform_boot::layout::WAITING;
use probes::channel::{ChannelError, HostEnd, Region};
use probes::protocol::{Message, Plan, REGION};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The most of a console that is looked at, in bytes from its end.
const CONSOLE_TAIL: usize = 256 << 10;
/// The most that a console may hold, in bytes: it is a file of the host's. All boots of a kernel take some hundred KiB.
pub const CONSOLE_MAX: u64 = 64 << 20;
/// The most that a file may hold which anything of a machine's writes, in bytes. Of the console it is a little more than it
/// may hold, so that one that was cut here is known for flooded; this ends it also while the harness cannot look.
const FILE_MAX: u64 = CONSOLE_MAX + 4096;
/// What QEMU says before it leaves with status 0 because somebody sent it SIGTERM, SIGINT or SIGHUP (QEMU 7.2
/// softmmu/runstate.c, `qemu_kill_report`).
const TERMINATING: &str = "terminating on signal";

/// What can go wrong with a machine, apart from what its guest says.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A file of the machine could not be made.
    #[error("cannot prepare a virtual machine in {}: {source}", path.display())]
    Prepare {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no room for its files.
    #[error(transparent)]
    NoPlace(#[from] NoPlace),
    /// The launcher could not be started.
    #[error("cannot start {}: {source}", program.display())]
    Start {
        /// What.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The channel failed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The monitor failed.
    #[error(transparent)]
    Monitor(#[from] QmpError),
}

/// How long a guard may take to end what it has started, once it is told to.
const GUARD_PATIENCE: Duration = Duration::from_secs(10);

/// How a machine that no longer runs has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its guest has restarted or powered off.
    Itself,
    /// From outside: its QEMU, its launcher or its guard was ended, or QEMU failed.
    Taken,
    /// It had written more to its console than the host keeps.
    Flooded,
}

/// A running machine. Dropping it kills it.
pub struct Machine {
    guard: Child,
    channel: HostEnd,
    console: PathBuf,
    /// The console again, to see how long it is and to add to it.
    log: File,
    /// What QEMU and its launcher say for themselves, which is not the guest's word.
    said: Said,
    flooded: bool,
    /// Holds the channel's file; removed with the machine.
    pub(super) files: Folder,
    /// Of a machine that stands still until [`Machine::go`].
    pub(super) monitor: Option<Qmp>,
    /// Whether it was restored, not booted.
    pub restored: bool,
    /// When the launcher was started.
    pub started: Instant,
}

impl Machine {
    /// Boots a machine, which then waits for [`Machine::go`]. Its console goes to the file `console`.
    ///
    /// # Errors
    /// [`MachineError`] when files, the launcher or the channel cannot be set up.
    pub fn boot(
        spec: &MachineSpec,
        launcher: &Launcher,
        console: &Path,
        guard_program: &Path,
    ) -> Result<Self, MachineError> {
        Self::launch(console, guard_program, |files| spec.command(launcher, &BootFiles::within(files)))
    }

    /// Starts, under guard, what `command` says for a private folder.
    pub(super) fn launch(
        console: &Path,
        guard_program: &Path,
        command: impl FnOnce(&Path) -> (PathBuf, Vec<OsString>),
    ) -> Result<Self, MachineError> {
        let (files, region) = Folder::with(CHANNEL, REGION as u64)?;
        let prepare = |source| MachineError::Prepare { path: files.path().to_owned(), source };
        let paths = BootFiles::within(files.path());
        fs::create_dir(&paths.empty).map_err(prepare)?;
        let channel = HostEnd::new(Region::map(&region)?);
        // Whoever writes to it adds to it.
        let log = File::create(console)
            .and_then(|_| File::options().append(true).open(console))
            .map_err(|source| MachineError::Prepare { path: console.to_owned(), source })?;
        let (said, err) = Said::new().map_err(prepare)?;

        // What a guard that is killed leaves behind comes to this process.
        guard::adopt_orphans();
        let (program, arguments) = command(files.path());
        let mut command = Command::new(guard_program);
        command.arg(guard::VERB).arg("--remove").arg(files.path()).arg("--").arg(&program).args(arguments);
        // vng calls its sibling virtme-run by name.
        if let Some(folder) = program.parent().filter(|folder| folder.is_absolute()) {
            command.env("PATH", path_with(folder));
        }
        let start = |source| MachineError::Start { program: program.clone(), source };
        child::write_no_more_than(&mut command, FILE_MAX);
        let out = log.try_clone().map_err(start)?;
        let guard = command.stdin(Stdio::piped()).stdout(out).stderr(err).spawn().map_err(start)?;
        Ok(Self {
            guard,
            channel,
            console: console.to_owned(),
            log,
            said,
            flooded: false,
            files,
            monitor: None,
            restored: false,
            started: Instant::now(),
        })
    }

    /// Whether the guest waits for [`Machine::go`].
    #[must_use]
    pub fn waits(&self) -> bool {
        self.channel.stage() == WAITING
    }

    /// Hands the guest its second stage and a plan, and sends it on.
    ///
    /// # Errors
    /// [`MachineError`], when they do not fit or the machine cannot be made to go on.
    pub fn go(&mut self, plan: &Plan, guest: &[u8]) -> Result<(), MachineError> {
        self.channel.go(plan, guest)?;
        if let Some(mut monitor) = self.monitor.take() {
            monitor.command("cont", serde_json::json!({}))?;
        }
        Ok(())
    }

    /// The next message, if one is there.
    ///
    /// # Errors
    /// [`ChannelError::Corrupt`].
    pub fn receive(&mut self) -> Result<Option<Message>, ChannelError> {
        self.channel.receive()
    }

    /// See [`HostEnd::heartbeat`].
    #[must_use]
    pub fn heartbeat(&self) -> u64 {
        self.channel.heartbeat()
    }

    /// See [`HostEnd::noted`].
    #[must_use]
    pub fn noted(&self) -> Vec<probes::record::Case> {
        self.channel.noted()
    }

    /// See [`HostEnd::crumb`].
    #[must_use]
    pub fn crumb(&self) -> String {
        self.channel.crumb()
    }

    /// Whether the machine still runs. One that floods the host is ended.
    pub fn is_running(&mut self) -> bool {
        if !self.flooded && self.console_length().max(self.said.length()) > CONSOLE_MAX {
            self.flooded = true;
            self.kill();
        }
        self.has_a_guard()
    }

    fn has_a_guard(&mut self) -> bool {
        matches!(self.guard.try_wait(), Ok(None))
    }

    /// Whether a process of the machine's is stopped, as by `kill -STOP` or a debugger.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        guard::is_stopped(self.files.path())
    }

    /// How a machine that no longer runs has ended. A guest that restarts or powers off ends QEMU with status 0, but so
    /// does a signal that asks QEMU to end.
    pub fn ending(&mut self) -> Ending {
        let by_itself = !matches!(self.guard.try_wait(), Ok(Some(status)) if !guard::ended_by_itself(status));
        match (self.flooded, by_itself && !self.said.text().contains(TERMINATING)) {
            (true, _) => Ending::Flooded,
            (false, true) => Ending::Itself,
            (false, false) => Ending::Taken,
        }
    }

    /// Lets a machine that is powering off go by itself for up to `patience`, then kills it.
    pub fn finish(mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.has_a_guard() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }

    /// Kills the machine and waits until it is gone. Closing the pipe tells the guard, which kills what it started. What
    /// QEMU has said for itself then stands at the console's end, for people.
    pub fn kill(&mut self) {
        let was_there = self.guard.stdin.take().is_some();
        let deadline = Instant::now() + GUARD_PATIENCE;
        while self.has_a_guard() {
            if Instant::now() > deadline {
                let _ = self.guard.kill();
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        if child::reap(&mut self.guard).is_none_or(|status| status.signal().is_some()) {
            guard::kill_adopted(self.files.path());
        }
        if was_there {
            // Nothing hangs on it.
            let _ = self.log.write_all(self.said.text().as_bytes());
        }
    }

    /// How much the console holds, in bytes.
    #[must_use]
    pub fn console_length(&self) -> u64 {
        length(&self.log)
    }

    /// What the console has held from byte `from` on, at most its end.
    #[must_use]
    pub fn console_since(&self, from: u64) -> String {
        console_between(&self.console, from, u64::MAX)
    }

    /// What it has held from byte `from` up to byte `to`, at most that part's end.
    #[must_use]
    pub fn console_between(&self, from: u64, to: u64) -> String {
        console_between(&self.console, from, to)
    }
}

/// A file's length in bytes, 0 when that cannot be told.
fn length(file: &File) -> u64 {
    file.metadata().map_or(0, |facts| facts.len())
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

fn path_with(folder: &Path) -> OsString {
    let mut path = folder.as_os_str().to_owned();
    if let Some(old) = std::env::var_os("PATH") {
        path.push(":");
        path.push(old);
    }
    path
}

/// The end of a console log, with what is not text replaced.
#[must_use]
pub fn console_tail(path: &Path) -> String {
    console_between(path, 0, u64::MAX)
}

/// The same, without what stands before byte `from` or from byte `to` on.
fn console_between(path: &Path, from: u64, to: u64) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let to = length(&file).min(to);
        let from = to.saturating_sub(CONSOLE_TAIL as u64).max(from);
        let _ = io::Seek::seek(&mut file, io::SeekFrom::Start(from));
        let _ = file.take(to.saturating_sub(from)).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The kernel's first words about its own end in a console log, if there are any.
#[must_use]
pub fn first_alarm(console: &str) -> Option<String> {
    alarms(console).next()
}

/// All its words that could be about its end, in their order.
pub fn alarms(console: &str) -> impl Iterator<Item = String> {
    const ALARMS: &[&str] = &[
        "BUG:",
        "Oops",
        "general protection fault",
        "Kernel panic",
        "kernel BUG at",
        // What a BUG() says where CONFIG_DEBUG_BUGVERBOSE is off, and what else the processor may refuse.
        "invalid opcode:",
        "divide error:",
        "stack guard page",
        "double fault",
    ];
    console
        .lines()
        .filter(|line| ALARMS.iter().any(|alarm| line.contains(alarm)))
        .map(|line| without_time(line).trim().to_owned())
}

/// A line of the console without the time that stands before it where CONFIG_PRINTK_TIME is on.
fn without_time(line: &str) -> &str {
    let timed = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    timed.map_or(line, |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A machine whose guard is a shell script.
    fn guarded_by(script: &str) -> (tempfile::TempDir, Machine) {
        let folder = tempfile::tempdir().unwrap();
        let guard = folder.path().join("guard");
        fs::write(&guard, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&guard, fs::Permissions::from_mode(0o700)).unwrap();
        let console = folder.path().join("console");
        let machine = Machine::launch(&console, &guard, |_| (PathBuf::from("qemu"), Vec::new())).unwrap();
        (folder, machine)
    }

    /// How a machine ends with such a guard, and its console then.
    fn ending_of(script: &str) -> (Ending, String) {
        let (_folder, mut machine) = guarded_by(script);
        while machine.is_running() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let ending = machine.ending();
        machine.kill();
        (ending, machine.console_since(0))
    }

    #[test]
    fn a_machine_that_was_ended_is_told_from_one_that_has_ended() {
        const SAID: &str = "qemu-system-x86_64: terminating on signal 15 from pid 1 (init)";
        assert_eq!(ending_of("echo hello"), (Ending::Itself, "hello\n".into()));
        assert_eq!(ending_of("exit 1"), (Ending::Taken, String::new()));
        let asked = ending_of(&format!("echo hello; echo '{SAID}' >&2"));
        assert_eq!(asked, (Ending::Taken, format!("hello\n{SAID}\n")));
        // What the guest says is not QEMU's word.
        assert_eq!(ending_of(&format!("echo '{SAID}'")).0, Ending::Itself);
    }

    #[test]
    fn a_console_that_is_flooded_ends_its_machine() {
        let (ending, console) = ending_of("head -c 70000000 /dev/zero; exec cat");
        assert_eq!((ending, console.len()), (Ending::Flooded, CONSOLE_TAIL));
    }

    #[test]
    fn what_qemu_says_is_limited_too_and_cannot_be_opened_anew() {
        assert_eq!(ending_of("head -c 70000000 /dev/zero >&2; exec cat").0, Ending::Flooded);
        // As virtme-ng does it for a console of the guest's.
        let (ending, console) = ending_of("(exec 3<>/proc/$$/fd/2) && echo opened; echo over");
        assert_eq!(ending, Ending::Itself);
        assert!(console.contains("over") && !console.contains("opened"), "{console}");
    }

    /// A harness that is stopped does not look at the console.
    #[test]
    fn a_console_is_cut_while_nobody_looks() {
        let (_folder, mut machine) = guarded_by("head -c 100000000 /dev/zero; exit 0");
        let deadline = Instant::now() + Duration::from_secs(20);
        while machine.has_a_guard() {
            assert!(Instant::now() < deadline, "it writes on");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(machine.console_length(), FILE_MAX);
        assert!(!machine.is_running());
        assert_eq!(machine.ending(), Ending::Flooded);
    }

    /// It neither powers off nor minds that its guard is told to end it; the guard does not either.
    #[test]
    fn a_machine_that_does_not_go_is_killed() {
        let (_folder, machine) = guarded_by("exec sleep 1000");
        let (guard, files) = (machine.guard.id(), machine.files.path().to_owned());
        machine.finish(Duration::from_millis(20));
        assert!(!Path::new(&format!("/proc/{guard}")).exists());
        assert!(!files.exists());
    }

    #[test]
    fn the_first_alarm_of_a_console_is_found_without_its_time() {
        let console = "SeaBIOS\n[    1.1] hello\n[    2.2] BUG: kernel NULL pointer dereference\n[    2.3] Kernel panic";
        assert_eq!(first_alarm(console).as_deref(), Some("BUG: kernel NULL pointer dereference"));
        for time in ["", "[    4.5] "] {
            let terse = format!("{time}invalid opcode: 0000 [#1] PREEMPT SMP NOPTI\n{time}Kernel panic");
            assert_eq!(first_alarm(&terse).as_deref(), Some("invalid opcode: 0000 [#1] PREEMPT SMP NOPTI"));
        }
        assert_eq!(first_alarm("all is well"), None);
    }
}
