//! Taking over the links of a probe's programs, so that its end does not wait for their detachment;
//! [`crate::families::Family::lingers`] says when.

use nix::unistd::Pid;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The links that PID 1 holds.
#[derive(Default)]
pub(super) struct Lingering {
    links: Vec<OwnedFd>,
    /// The places, in the list of probes, of those that they came from.
    probes: Vec<usize>,
}

impl Lingering {
    /// Adds duplicates of those descriptors `fds` of the child `pid`, which still lives, that are BPF links; others may
    /// have got the number of a link that was closed. What cannot be taken is left to be detached, which only costs time.
    pub(super) fn take_from(&mut self, pid: Pid, fds: &[RawFd], probe: usize) {
        if fds.is_empty() {
            return;
        }
        let Some(process) = process(pid) else { return };
        let is_link = |fd: &&RawFd| {
            fs::read_link(format!("/proc/{pid}/fd/{fd}"))
                .is_ok_and(|target| is_link(&target.to_string_lossy()))
        };
        let duplicate = |fd: &RawFd| {
            let arguments = [i64::from(process.as_raw_fd()), i64::from(*fd), 0];
            descriptor(libc::SYS_pidfd_getfd, arguments)
        };
        let before = self.links.len();
        self.links.extend(fds.iter().filter(is_link).filter_map(duplicate));
        if self.links.len() > before {
            self.probes.push(probe);
        }
    }

    /// In a worker that has just been forked: closes the descriptors that it inherited, which stay open in PID 1, so
    /// that no link is held twice.
    pub(super) fn leave_to_the_parent(&mut self) {
        self.links.clear();
    }

    /// The places of the probes whose links are held.
    pub(super) fn probes(&self) -> &[usize] {
        &self.probes
    }
}

/// A descriptor of a process.
fn process(pid: Pid) -> Option<OwnedFd> {
    descriptor(libc::SYS_pidfd_open, [i64::from(pid.as_raw()), 0, 0])
}

/// Links are anonymous inodes named `bpf_link` (5.7 kernel/bpf/syscall.c, bpf_link_prime).
fn is_link(target: &str) -> bool {
    target.starts_with("anon_inode:") && target.contains("bpf") && target.contains("link")
}

/// A system call that gives a descriptor (both are there since 5.6).
fn descriptor(call: libc::c_long, [a, b, c]: [i64; 3]) -> Option<OwnedFd> {
    // SAFETY: both calls take plain numbers.
    let fd = unsafe { libc::syscall(call, a, b, c) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::is_link;

    #[test]
    fn links_are_told_from_programs_and_maps() {
        assert!(is_link("anon_inode:bpf_link"));
        assert!(
            !is_link("anon_inode:bpf-prog") && !is_link("anon_inode:bpf-map") && !is_link("/tmp/bpf_link")
        );
    }
}
