//! One running virtual machine: started under guard, its console kept, ended for certain.

use super::guard;
use super::launch::{BootFiles, Launcher, MachineSpec};
use probes::channel::{ChannelError, HostEnd, Region};
use probes::protocol::{Message, Plan, REGION};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

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
}

/// A running machine. Dropping it kills it.
pub struct Machine {
    guard: Child,
    channel: HostEnd,
    console: PathBuf,
    /// Holds the channel's file; removed with the machine.
    _files: TempDir,
    /// When the launcher was started.
    pub started: Instant,
}

impl Machine {
    /// Starts a machine that will carry out `plan`. Its console goes to the file `console`.
    ///
    /// # Errors
    /// [`MachineError`] when files, the launcher or the channel cannot be set up.
    pub fn start(
        spec: &MachineSpec,
        launcher: &Launcher,
        plan: &Plan,
        console: &Path,
        guard_program: &Path,
    ) -> Result<Self, MachineError> {
        let files = private_folder()?;
        let prepare = |source| MachineError::Prepare { path: files.path().to_owned(), source };
        let region_path = files.path().join("channel");
        let empty = files.path().join("empty");
        fs::create_dir(&empty).map_err(prepare)?;
        let region_file =
            File::options().read(true).write(true).create_new(true).open(&region_path).map_err(prepare)?;
        region_file.set_len(REGION as u64).map_err(prepare)?;
        let channel = HostEnd::new(Region::map(&region_file)?, plan)?;
        let log = File::create(console)
            .map_err(|source| MachineError::Prepare { path: console.to_owned(), source })?;

        let (program, arguments) = spec.command(launcher, &BootFiles { region: &region_path, empty: &empty });
        let mut command = Command::new(guard_program);
        command.arg(guard::VERB).arg("--remove").arg(files.path()).arg("--").arg(&program).args(arguments);
        if let Some(folder) = launcher.vng.as_deref().and_then(Path::parent) {
            command.env("PATH", path_with(folder)); // vng calls its sibling virtme-run by name
        }
        let start = |source| MachineError::Start { program: program.clone(), source };
        let errors = log.try_clone().map_err(start)?;
        let guard = command.stdin(Stdio::piped()).stdout(log).stderr(errors).spawn().map_err(start)?;
        Ok(Self { guard, channel, console: console.to_owned(), _files: files, started: Instant::now() })
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

    /// See [`HostEnd::crumb`].
    #[must_use]
    pub fn crumb(&self) -> String {
        self.channel.crumb()
    }

    /// Whether the machine still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.guard.try_wait(), Ok(None))
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
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.is_running() {
            if Instant::now() > deadline {
                let _ = self.guard.kill();
                let _ = self.guard.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
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

/// A folder only this user can enter: in memory where there is such a place, because the channel is.
fn private_folder() -> Result<TempDir, MachineError> {
    let in_memory = Path::new("/dev/shm");
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("conform-");
        builder
    };
    builder()
        .tempdir_in(in_memory)
        .or_else(|_| builder().tempdir())
        .map_err(|source| MachineError::Prepare { path: std::env::temp_dir(), source })
}

fn path_with(folder: &Path) -> std::ffi::OsString {
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
        "stack guard page",
        "double fault",
    ];
    console
        .lines()
        .find(|line| ALARMS.iter().any(|alarm| line.contains(alarm)))
        .map(|line| line.split_once("] ").map_or(line, |(_, text)| text).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::first_alarm;

    #[test]
    fn the_first_alarm_of_a_console_is_found_without_its_time() {
        let console = "SeaBIOS\n[    1.1] hello\n[    2.2] BUG: kernel NULL pointer dereference\n[    2.3] Kernel panic";
        assert_eq!(first_alarm(console).as_deref(), Some("BUG: kernel NULL pointer dereference"));
        assert_eq!(first_alarm("all is well"), None);
    }
}
