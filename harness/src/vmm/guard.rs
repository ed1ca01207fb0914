//! The guard: a process between the harness and a launcher that makes sure nothing outlives the harness.
//!
//! virtme-ng starts QEMU through a shell and two Python programs, so a parent-death signal set on the first of them
//! does not reach QEMU. The guard is this same binary, started as `conform guard -- COMMAND..`. It adopts orphans
//! of its descendants, and reads its standard input, a pipe whose other end only the harness holds: when the harness
//! dies, for whatever reason, `kill -9` included, the pipe closes and the guard kills every descendant it has.

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The hidden verb under which the harness calls itself.
pub const VERB: &str = "guard";
/// Status with which the guard leaves when the command could not be started.
pub const NOT_STARTED: i32 = 127;

/// Runs `command` under guard and returns the status to leave with. `remove` is a folder of the machine's that goes
/// with it, so that a killed harness leaves no file behind either.
#[must_use]
pub fn run(command: &[String], remove: Option<PathBuf>) -> i32 {
    let Some((program, arguments)) = command.split_first() else {
        eprintln!("guard: no command given");
        return NOT_STARTED;
    };
    // A signal to the harness's group must not end the guard before it has cleaned up.
    let _ = nix::unistd::setsid();
    let _ = prctl::set_child_subreaper(true);
    let child = match Command::new(program).args(arguments).stdin(Stdio::null()).process_group(0).spawn() {
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
        while matches!(std::io::stdin().read(&mut byte), Ok(1..)) {}
        kill_descendants();
        clean_up(again.as_deref());
        std::process::exit(128 + Signal::SIGKILL as i32);
    });
    let status = wait_for(main);
    kill_descendants();
    clean_up(remove.as_deref());
    status
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

/// Kills everything below this process until nothing is left, for up to five seconds.
fn kill_descendants() {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let victims = descendants(std::process::id());
        if victims.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in victims {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        while matches!(waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
        {
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Every process whose chain of parents leads to `ancestor`, zombies left out.
fn descendants(ancestor: u32) -> Vec<u32> {
    let mut parents = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The command's name stands in parentheses and may hold anything: what counts comes after the last one.
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let mut fields = rest.split(' ');
        if let (Some(state), Some(parent)) =
            (fields.next(), fields.next().and_then(|text| text.parse::<u32>().ok()))
            && state != "Z"
        {
            parents.insert(pid, parent);
        }
    }
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
