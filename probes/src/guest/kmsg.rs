//! The kernel's own warnings while a probe runs, read from `/dev/kmsg`.

use nix::mount::{MsFlags, mount, umount};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// What makes a kernel message a finding. Matched anywhere in the text.
const ALARMS: &[&str] = &[
    "WARNING:",
    "BUG:",
    "Oops:",
    "general protection fault",
    "UBSAN:",
    "INFO: possible",
    "INFO: rcu",
    "rcu: INFO",
    "INFO: task",
    "suspicious RCU usage",
    "soft lockup",
    "Unreferenced",
    "scheduling while atomic",
    "Kernel panic",
];

/// The most warnings that are given at once. What is more is counted.
const MOST: usize = 512;

/// What a probe is told whose messages the kernel has overwritten before they were read: there may be warnings among them.
const OVERWRITTEN: &str = "kernel messages were overwritten before they were read";

/// The kernel's message buffer, from now on.
pub(super) struct Kmsg {
    file: Option<File>,
    flags: Option<File>,
    tainted: u64,
}

impl Kmsg {
    /// Starts reading after what is there now.
    pub(super) fn open() -> Self {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").ok();
        let flags = File::open("/proc/sys/kernel/tainted").ok();
        let tainted = tainted(flags.as_ref());
        let mut kmsg = Self { file, flags, tainted };
        if let Some(file) = &mut kmsg.file {
            let _ = file.seek(SeekFrom::End(0));
        }
        kmsg
    }

    /// The warnings since the last call, first lines only, and a change of the taint flags. The kernel will give them
    /// again, also those that it gives once.
    pub(super) fn drain(&mut self) -> Vec<String> {
        let mut found = self.file.as_mut().map(alarms_in).unwrap_or_default();
        let now = tainted(self.flags.as_ref());
        if now != self.tainted {
            found.push(format!("tainted: {:#x} -> {now:#x}", self.tainted));
            self.tainted = now;
        }
        if !found.is_empty()
            && let Err(error) = forget_given_warnings()
        {
            eprintln!("conform-guest: the kernel will not give warnings again: {error}");
        }
        found
    }
}

/// The warnings among the messages that a file has, one for each read, until it has none.
fn alarms_in(messages: &mut impl Read) -> Vec<String> {
    let (mut found, mut more) = (Vec::new(), 0);
    let mut buffer = vec![0_u8; 8192];
    // Bounded: a flooded buffer must not hold the supervisor.
    for _ in 0..20_000 {
        let alarm = match messages.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => alarm(&String::from_utf8_lossy(buffer.get(..length).unwrap_or_default())),
            // EPIPE: older messages were overwritten; the next read goes on with what is left.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                let known = found.iter().any(|it| it == OVERWRITTEN);
                (!known).then(|| OVERWRITTEN.to_owned())
            }
            Err(_) => break,
        };
        match alarm {
            Some(alarm) if found.len() < MOST => found.push(alarm),
            Some(_) => more += 1,
            None => {}
        }
    }
    if more > 0 {
        found.push(format!("and {more} more"));
    }
    found
}

/// Has the kernel give those warnings again that it gives once and has given, so that a probe that causes one which
/// another has caused before it is told so too (5.7 kernel/panic.c, `clear_warn_once_set`). `debugfs` is mounted for no
/// longer than that takes: probes find the mounts that there always are.
///
/// # Errors
/// When a folder cannot be made, or `debugfs` be mounted or written to.
fn forget_given_warnings() -> std::io::Result<()> {
    const FOLDER: &str = "/run/debugfs";
    match std::fs::create_dir(FOLDER) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    mount(Some("debugfs"), FOLDER, Some("debugfs"), MsFlags::empty(), None::<&str>)?;
    let written = std::fs::write(format!("{FOLDER}/clear_warn_once"), "1");
    umount(FOLDER)?;
    written
}

/// The text of one `/dev/kmsg` record (`prio,seq,time,flags;text`) if it is a warning.
fn alarm(record: &str) -> Option<String> {
    let text = record.split_once(';')?.1.lines().next()?;
    ALARMS.iter().any(|mark| text.contains(mark)).then(|| text.to_owned())
}

/// `TAINT_WARN` (include/linux/panic.h): a WARN has appeared.
const TAINT_WARN: u64 = 1 << 9;

/// `TAINT_UNSIGNED_MODULE` (the same file): a module without a signature was loaded, as Debian's 5.10 has them.
const TAINT_UNSIGNED_MODULE: u64 = 1 << 13;

/// The kernel's taint flags, 0 when they cannot be read. Two are left out. The one that a WARN sets: the message itself
/// is recorded, while the flag changes only with the first one since the boot. The one for a module without a signature:
/// it would be noted beside whichever probe is the first that needs a module.
fn tainted(flags: Option<&File>) -> u64 {
    let mut text = [0; 24];
    flags
        .and_then(|flags| flags.read_at(&mut text, 0).ok())
        .and_then(|length| std::str::from_utf8(text.get(..length)?).ok()?.trim().parse::<u64>().ok())
        .unwrap_or(0)
        & !(TAINT_WARN | TAINT_UNSIGNED_MODULE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// What the reads of `/dev/kmsg` give, one after the other.
    struct Script(VecDeque<Result<&'static str, i32>>);

    impl Read for Script {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            match self.0.pop_front() {
                Some(Ok(text)) => text.as_bytes().read(into),
                Some(Err(errno)) => Err(std::io::Error::from_raw_os_error(errno)),
                None => Err(ErrorKind::WouldBlock.into()),
            }
        }
    }

    #[test]
    fn what_was_overwritten_is_said_and_a_flood_is_counted() {
        const WARNING: &str = "4,1,1,-;WARNING: x";
        let mut script =
            Script([Ok(WARNING), Err(libc::EPIPE), Ok("6,2,1,-;hello"), Err(libc::EPIPE)].into());
        assert_eq!(alarms_in(&mut script), ["WARNING: x", OVERWRITTEN]);
        let mut flood = Script(std::iter::repeat_n(Ok(WARNING), MOST + 3).collect());
        let found = alarms_in(&mut flood);
        assert_eq!((found.len(), found[MOST].as_str()), (MOST + 1, "and 3 more"));
    }

    #[test]
    fn a_warning_is_kept_and_ordinary_messages_are_not() {
        assert_eq!(
            alarm("4,512,1234567,-;WARNING: CPU: 0 PID: 77 at kernel/bpf/x.c:1 f+0x1/0x2\n SUBSYSTEM=cpu\n"),
            Some("WARNING: CPU: 0 PID: 77 at kernel/bpf/x.c:1 f+0x1/0x2".to_owned())
        );
        assert_eq!(alarm("6,513,1234568,-;random: crng init done\n"), None);
        assert_eq!(alarm("no separator"), None);
        let ubsan = "UBSAN: array-index-out-of-bounds in kernel/bpf/x.c:1:2";
        assert_eq!(alarm(&format!("3,514,1,-;{ubsan}\n")).as_deref(), Some(ubsan));
    }
}
