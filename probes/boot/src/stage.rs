//! Waiting to be sent on: the machine is ready, and the harness may save it here or restore it to here.

use crate::layout::{Header, REGION, RING_BYTES, RING_OFFSET, TAKEN, WAITING};
use crate::{SETUP, device, mounts};
use memmap2::{MmapMut, MmapOptions};
use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Where the second stage is put. The kernel names the process after it, in warnings for instance: PID 1 stays `init`.
const GUEST: &str = "/run/init";
/// How often the guest looks for go.
const LOOK: Duration = Duration::from_millis(1);
/// How long it does. The harness kills a machine that it has no use for; this one has lost its harness, and all that
/// would have ended it. The time that a saved machine lies in its file does not count: its clock stands still.
const PATIENCE: Duration = Duration::from_secs(600);

/// Makes the machine ready, waits for go, and becomes the second stage.
///
/// # Errors
/// A sentence that says what is wrong; it does not return otherwise.
pub fn run() -> Result<(), String> {
    let failed = mounts::prepare();
    let file = device::open_channel()?;
    // SAFETY: the other side is expected to change the region; what is read of it is copied and checked first.
    let mut map = unsafe { MmapOptions::new().len(REGION).map_mut(&file) }
        .map_err(|error| format!("cannot map the channel: {error}"))?;
    let header: *mut Header = map.as_mut_ptr().cast();
    // SAFETY: taking the addresses of fields of a pointer into the mapping reads nothing.
    let (stage, go) = unsafe { (&raw mut (*header).stage, &raw mut (*header).go) };
    // SAFETY: both lie in the mapping, are 8-byte aligned, and are accessed as atomics only from here on.
    let (stage, go) = unsafe { (AtomicU64::from_ptr(stage), AtomicU64::from_ptr(go)) };
    stage.store(WAITING, Ordering::Release);
    wait_for(go, PATIENCE)?;
    // SAFETY: the harness wrote these fields before it said go, and nobody writes them again.
    let (bytes, nanos, seed) = unsafe { ((*header).guest_bytes, (*header).unix_nanos, (*header).seed) };
    set_clock(nanos);
    stir(&seed);
    take_guest(&map, bytes)?;
    stage.store(TAKEN, Ordering::Release);
    become_guest(&failed)
}

fn wait_for(go: &AtomicU64, patience: Duration) -> Result<(), String> {
    let started = Instant::now();
    while go.load(Ordering::Acquire) == 0 {
        if started.elapsed() > patience {
            return Err(format!("nobody has said go for {patience:?}: the harness is gone"));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Copies the second stage out of the region, so that the ring may have its place.
fn take_guest(map: &MmapMut, bytes: u64) -> Result<(), String> {
    let length = usize::try_from(bytes).ok().filter(|length| (1..=RING_BYTES).contains(length));
    let length = length.ok_or_else(|| format!("the harness offers a guest of {bytes} bytes"))?;
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o755).open(GUEST);
    let written = file.and_then(|mut file| file.write_all(&map[RING_OFFSET..RING_OFFSET + length]));
    written.map_err(|error| format!("cannot write {GUEST}: {error}"))
}

fn become_guest(failed: &[String]) -> Result<(), String> {
    let path = CString::new(GUEST).map_err(|error| error.to_string())?;
    let setup = CString::new(format!("{SETUP}={}", failed.join("\n"))).map_err(|error| error.to_string())?;
    match nix::unistd::execve(&path, &[&path], &[&setup]) {
        Ok(never) => match never {},
        Err(errno) => Err(format!("cannot run {GUEST}: {errno}")),
    }
}

/// A clock that cannot be set stays where it is: nothing that is recorded depends on the time of day.
fn set_clock(nanos: u64) {
    let since = Duration::from_nanos(nanos);
    let time = nix::sys::time::TimeSpec::from(since);
    let _ = nix::time::clock_settime(nix::time::ClockId::CLOCK_REALTIME, time);
}

/// Mixes `seed` into the kernel's random numbers and has them made anew (drivers/char/random.c, random_ioctl).
fn stir(seed: &[u8]) {
    const RNDRESEEDCRNG: libc::c_ulong = 0x5207;
    if let Ok(mut random) = fs::OpenOptions::new().write(true).open("/dev/urandom") {
        let _ = random.write_all(seed);
        // SAFETY: the command takes no argument.
        let _ = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&random), RNDRESEEDCRNG as _) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_nobody_sends_on_ends() {
        let why = wait_for(&AtomicU64::new(0), Duration::from_millis(20)).unwrap_err();
        assert!(why.contains("nobody has said go for 20ms"), "{why}");
        assert_eq!(wait_for(&AtomicU64::new(1), Duration::ZERO), Ok(()));
    }
}
