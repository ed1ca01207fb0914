//! What PID 1 does before everything else: file systems, the console, limits, loopback.

use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, setrlimit};
use std::fs;
use std::os::fd::AsRawFd;

/// Where, what, with which options. Order matters: a later one may lie in an earlier one.
const MOUNTS: &[(&str, &str, &str)] = &[
    ("/proc", "proc", ""),
    ("/sys", "sysfs", ""),
    ("/dev", "devtmpfs", ""),
    ("/sys/kernel/security", "securityfs", ""),
    ("/sys/kernel/tracing", "tracefs", ""),
    ("/sys/fs/bpf", "bpf", "mode=0700"),
    ("/sys/fs/cgroup", "cgroup2", ""),
    ("/dev/shm", "tmpfs", "mode=1777"),
    ("/tmp", "tmpfs", "mode=1777"),
];

/// Makes the machine ready for probes and returns what could not be done, each with its reason.
pub(crate) fn prepare() -> Vec<String> {
    let mut failed = Vec::new();
    for (target, kind, options) in MOUNTS {
        // The directory may exist already, and mounting says so if it does not.
        let _ = fs::create_dir_all(target);
        if let Err(errno) = mount(Some(*kind), *target, Some(*kind), MsFlags::empty(), Some(*options)) {
            failed.push(format!("mount {kind}: {errno}"));
        }
    }
    open_console();
    // Before 5.11 BPF memory counts against this limit (kernel/bpf/syscall.c, bpf_charge_memlock).
    if let Err(errno) = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY) {
        failed.push(format!("raise RLIMIT_MEMLOCK: {errno}"));
    }
    if let Err(error) = loopback_up() {
        failed.push(format!("bring up lo: {error}"));
    }
    failed
}

/// Gives PID 1 the serial console. Some launchers put the console on a device that the kernel has only as a module;
/// then descriptors 0 to 2 are closed and every write would fail.
fn open_console() {
    for path in ["/dev/ttyS0", "/dev/console"] {
        if let Ok(console) = fs::OpenOptions::new().read(true).write(true).open(path) {
            for fd in 0..=2 {
                // SAFETY: duplicating a descriptor that this function owns onto the standard ones.
                unsafe { libc::dup2(console.as_raw_fd(), fd) };
            }
            if console.as_raw_fd() <= 2 {
                std::mem::forget(console);
            }
            return;
        }
    }
}

fn loopback_up() -> std::io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all-zero is a valid ifreq, plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    // Both flags lie in the low 16 bits (include/uapi/linux/if.h).
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which lives across the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
