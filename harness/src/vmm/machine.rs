//! One running virtual machine: started under guard, its console kept, ended for certain.

use super::folder::Folder;
use super::guard;
use super::launch::{BootFiles, Launcher, MachineSpec};
use super::qmp::{Qmp, QmpError};
use conform_boot::layout::WAITING;
use probes::channel::{ChannelError, HostEnd, Region};
use probes::protocol::{Message, Plan, REGION};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The most of a console that is looked at, in bytes from its end.
const CONSOLE_TAIL: usize = 256 << 10;

/// What can go wrong with a machine, apart from what its guest says.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A file of the machine could not be made.
    #[error("cannot prepare a virtual machine in {}: {source}", path.display())]
    Prepare {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The launcher could not be started.
    #[error("cannot start {}: {source}", program.display())]
    Start {
        /// What.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
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

/// A running machine. Dropping it kills it.
pub struct Machine {
    guard: Child,
    channel: HostEnd,
    console: PathBuf,
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
        let files =
            Folder::new().map_err(|source| MachineError::Prepare { path: std::env::temp_dir(), source })?;
        let prepare = |source| MachineError::Prepare { path: files.path().to_owned(), source };
        let paths = BootFiles::within(files.path());
        fs::create_dir(&paths.empty).map_err(prepare)?;
        let region_file =
            File::options().read(true).write(true).create_new(true).open(&paths.region).map_err(prepare)?;
        region_file.set_len(REGION as u64).map_err(prepare)?;
        let channel = HostEnd::new(Region::map(&region_file)?);
        let log = File::create(console)
            .map_err(|source| MachineError::Prepare { path: console.to_owned(), source })?;

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
        let errors = log.try_clone().map_err(start)?;
        let guard = command.stdin(Stdio::piped()).stdout(log).stderr(errors).spawn().map_err(start)?;
        Ok(Self {
            guard,
            channel,
            console: console.to_owned(),
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

    /// Whether the machine still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.guard.try_wait(), Ok(None))
    }

    /// Whether a machine that no longer runs was ended from outside: its QEMU, its launcher or its guard was killed, or
    /// QEMU failed. A guest that restarts or powers off ends QEMU with status 0.
    pub fn was_taken(&mut self) -> bool {
        matches!(self.guard.try_wait(), Ok(Some(status)) if !guard::ended_by_itself(status))
    }

    /// Lets a machine that is powering off go by itself for up to `patience`, then kills it.
    pub fn finish(mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.is_running() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }

    /// Kills the machine and waits until it is gone. Closing the pipe tells the guard, which kills what it started.
    pub fn kill(&mut self) {
        drop(self.guard.stdin.take());
        let deadline = Instant::now() + GUARD_PATIENCE;
        while self.is_running() {
            if Instant::now() > deadline {
                let _ = self.guard.kill();
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        if self.guard.wait().is_ok_and(|status| status.signal().is_some()) {
            guard::kill_adopted(self.files.path());
        }
    }

    /// The end of the console.
    #[must_use]
    pub fn console_tail(&self) -> String {
        console_tail(&self.console)
    }
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
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let length = file.metadata().map_or(0, |meta| meta.len());
        let _ = std::io::Seek::seek(
            &mut file,
            std::io::SeekFrom::Start(length.saturating_sub(CONSOLE_TAIL as u64)),
        );
        let _ = file.take(CONSOLE_TAIL as u64).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The kernel's first words about its own end in a console log, if there are any.
#[must_use]
pub fn first_alarm(console: &str) -> Option<String> {
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
        .find(|line| ALARMS.iter().any(|alarm| line.contains(alarm)))
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

    /// It neither powers off nor minds that its guard is told to end it; the guard does not either.
    #[test]
    fn a_machine_that_does_not_go_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let stubborn = folder.path().join("guard");
        fs::write(&stubborn, "#!/bin/sh\nexec sleep 1000\n").unwrap();
        fs::set_permissions(&stubborn, fs::Permissions::from_mode(0o700)).unwrap();
        let console = folder.path().join("console");
        let machine = Machine::launch(&console, &stubborn, |_| (PathBuf::from("qemu"), Vec::new())).unwrap();
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
