//! Taking over the links of a probe's programs, so that its end does not wait for their detachment;
//! [`crate::families::Family::lingers`] says when.

use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Adds to `links` duplicates of every BPF link that process `pid`, a child that still lives, has opened. What cannot
/// be taken is left to be detached, which only costs time.
pub(super) fn take_links_of(pid: Pid, links: &mut Vec<OwnedFd>) {
    let folder = format!("/proc/{pid}/fd");
    // The child has inherited what was taken from others, under the same numbers.
    let inherited: BTreeSet<i64> = links.iter().map(|link| i64::from(link.as_raw_fd())).collect();
    let Some(process) = descriptor(libc::SYS_pidfd_open, [i64::from(pid.as_raw()), 0, 0]) else {
        return;
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let found = entries
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| is_link(&target.to_string_lossy())))
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i64>().ok())
        .filter(|fd| !inherited.contains(fd))
        .filter_map(|fd| descriptor(libc::SYS_pidfd_getfd, [i64::from(process.as_raw_fd()), fd, 0]));
    links.extend(found);
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
