//! The guard: a process between the harness and a launcher that makes sure nothing outlives the harness.
//!
//! virtme-ng starts QEMU through a shell and two Python programs, so a parent-death signal set on the first of them
//! does not reach QEMU. The guard is this same binary, started as `conform guard -- COMMAND..`. It adopts orphans
//! of its descendants, and reads its standard input, a pipe whose other end only the harness holds: when the harness
//! dies, for whatever reason, `kill -9` included, the pipe closes and the guard kills every descendant it has. A signal
//! that asks the guard to end does the same.
//!
//! A guard that is itself killed with `kill -9` takes its command with it in two ways, both of them the kernel's. The
//! command has asked for `SIGKILL` when the guard goes. And it leads a session whose terminal the guard holds: when that
//! is hung up, `SIGHUP` goes to all that the command has started in its process group, as QEMU is by virtme-ng, and QEMU
//! ends on it. A harness that lives adopts whatever is left then, and kills it (`kill_adopted`).

use crate::interrupt::not_ignored;
use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use signal_hook::iterator::Signals;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The hidden verb under which the harness calls itself.
pub const VERB: &str = "guard";
/// Status with which the guard leaves when the command could not be started.
pub const NOT_STARTED: i32 = 127;

/// The name of a guard's process, so that who ends processes by the harness's name leaves the guards to their work.
const NAME: &std::ffi::CStr = c"conform-guard";

/// Runs `command` under guard and returns the status to leave with. `remove` is a folder of the machine's that goes
/// with it, so that a killed harness leaves no file behind either.
#[must_use]
pub fn run(command: &[String], remove: Option<PathBuf>) -> i32 {
    let Some((program, arguments)) = command.split_first() else {
        eprintln!("guard: no command given");
        return NOT_STARTED;
    };
    let _ = prctl::set_name(NAME);
    // A signal to the harness's group must not end the guard before it has cleaned up.
    let _ = nix::unistd::setsid();
    adopt_orphans();
    if let Err(error) = end_on_signals(remove.clone()) {
        eprintln!("guard: cannot listen to signals: {error}");
        return NOT_STARTED;
    }
    // Held until the guard ends. Without one, its own death is the only thing that a guard cannot pass on to all.
    let terminal = terminal().ok();
    let mut child = Command::new(program);
    child.args(arguments).stdin(Stdio::null());
    goes_with_the_guard(&mut child, terminal.as_ref().map(|(_, path)| path.clone()));
    let child = match child.spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("guard: cannot start {program}: {error}");
            return NOT_STARTED;
        }
    };
    let main = Pid::from_raw(child.id().cast_signed());
    let again = remove.clone();
    std::thread::spawn(move || {
        // Ends when the harness closes its end, on purpose or by dying.
        let mut byte = [0_u8; 1];
        while matches!(io::stdin().read(&mut byte), Ok(1..)) {}
        end(again.as_deref(), Signal::SIGKILL as i32)
    });
    let status = wait_for(main);
    kill_descendants(|_| true);
    clean_up(remove.as_deref());
    status
}

/// Makes this process the parent of what its descendants leave behind.
pub(super) fn adopt_orphans() {
    // Kernels have known it since 3.4.
    let _ = prctl::set_child_subreaper(true);
}

/// From now on a signal that asks to end is met by ending everything; one that is ignored stays so.
fn end_on_signals(remove: Option<PathBuf>) -> io::Result<()> {
    let asking = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
    let mut signals = Signals::new(not_ignored(&asking))?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            end(remove.as_deref(), signal);
        }
    })?;
    Ok(())
}

/// Ends everything and leaves.
fn end(remove: Option<&Path>, signal: i32) -> ! {
    kill_descendants(|_| true);
    clean_up(remove);
    std::process::exit(128 + signal)
}

/// A new terminal: this end of it, and the path of the other.
fn terminal() -> nix::Result<(PtyMaster, CString)> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let path = CString::new(ptsname_r(&master)?).map_err(|_| nix::errno::Errno::EINVAL)?;
    Ok((master, path))
}

/// Has the child end when this thread does, and lead a session with the terminal at `path`.
fn goes_with_the_guard(child: &mut Command, path: Option<CString>) {
    let parent = std::process::id();
    // SAFETY: the closure runs between fork and exec and calls only `signal`, `setsid`, `open`, `prctl` and `getppid`, all
    // async-signal-safe; it allocates nothing (an error made from a raw errno owns no memory).
    unsafe {
        child.pre_exec(move || {
            // Under `nohup` it would be ignored by all that comes after.
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            if libc::setsid() == -1 || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
                return Err(io::Error::last_os_error());
            }
            if let Some(path) = &path {
                // A session's leader that opens a terminal has it from then on. Nobody reads or writes it; it stays open
                // because a terminal that nobody has open is not hung up.
                libc::open(path.as_ptr(), libc::O_RDWR);
            }
            // The guard may have died before the request was made; then nobody would ever send the signal.
            if u32::try_from(libc::getppid()) != Ok(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// Kills what this process has adopted from a guard that was killed: what names the machine's folder, and all below it.
pub(super) fn kill_adopted(folder: &Path) {
    kill_descendants(|pid| names(pid, folder));
}

/// Whether a process's command line names a folder.
fn names(pid: u32, folder: &Path) -> bool {
    let folder = folder.as_os_str().as_encoded_bytes();
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.windows(folder.len().max(1)).any(|part| part == folder)
}

/// Whether something that names the machine's folder is stopped, or traced and stopped.
pub(super) fn is_stopped(folder: &Path) -> bool {
    processes().any(|(pid, state, _)| ["T", "t"].contains(&state.as_str()) && names(pid, folder))
}

/// Whether a guard has ended because its command was done, and not because something was killed.
#[must_use]
pub(super) fn ended_by_itself(status: ExitStatus) -> bool {
    status.success()
}

fn clean_up(folder: Option<&Path>) {
    if let Some(folder) = folder {
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// Waits for `main`, reaping adopted orphans on the way.
fn wait_for(main: Pid) -> i32 {
    loop {
        match waitpid(Pid::from_raw(-1), None) {
            Ok(WaitStatus::Exited(pid, status)) if pid == main => return status,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == main => return 128 + signal as i32,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return NOT_STARTED,
        }
    }
}

/// How long what was killed may take to be gone: a process may be where the kernel ends none.
const KILLING: Duration = Duration::from_secs(5);

/// Kills everything below this process that `is_meant` until nothing of it is left, for a while.
fn kill_descendants(is_meant: impl Fn(u32) -> bool) {
    kill_all(KILLING, || descendants(std::process::id()).into_iter().filter(|&pid| is_meant(pid)).collect());
}

/// Kills `victims` until there are none, for up to `patience`.
fn kill_all(patience: Duration, victims: impl Fn() -> Vec<u32>) {
    let deadline = Instant::now() + patience;
    loop {
        let victims = victims();
        if victims.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in victims {
            let pid = Pid::from_raw(pid.cast_signed());
            let _ = kill(pid, Signal::SIGKILL);
            // An orphan that was adopted is this process's to reap; of another's child this knows nothing.
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// All processes, each with its state and its parent.
fn processes() -> impl Iterator<Item = (u32, String, u32)> {
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // The command's name stands in parentheses and may hold anything: what counts comes after the last one.
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        Some((pid, fields.next()?.to_owned(), fields.next()?.parse().ok()?))
    })
}

/// Every process whose chain of parents leads to `ancestor`, zombies left out.
fn descendants(ancestor: u32) -> Vec<u32> {
    let living = processes().filter(|(_, state, _)| state != "Z");
    let parents: BTreeMap<u32, u32> = living.map(|(pid, _, parent)| (pid, parent)).collect();
    let mut found = Vec::new();
    for &pid in parents.keys() {
        let mut at = pid;
        for _ in 0..64 {
            match parents.get(&at) {
                Some(&parent) if parent == ancestor => {
                    found.push(pid);
                    break;
                }
                Some(&parent) => at = parent,
                None => break,
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_killed_is_not_waited_for_for_ever() {
        let started = Instant::now();
        // No process has this number, which is above the kernel's limit, so killing it comes to nothing.
        kill_all(Duration::from_millis(20), || vec![i32::MAX.cast_unsigned()]);
        assert!(started.elapsed() < KILLING);
    }
}
