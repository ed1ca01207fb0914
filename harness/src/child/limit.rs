//! A limit on what a child writes.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Has no file grow beyond `bytes` by what the child or anything below it writes; they see an error.
pub(crate) fn write_no_more_than(command: &mut Command, bytes: u64) {
    // SAFETY: the closure runs between fork and exec and calls only `signal`, `getrlimit` and `setrlimit`, which are system
    // calls and no more; it allocates nothing (an error made from a raw errno owns no memory).
    unsafe {
        command.pre_exec(move || {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // Else it would end QEMU, say, whose core would be one more file.
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            if libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) == -1 {
                return Err(io::Error::last_os_error());
            }
            limit.rlim_max = limit.rlim_max.min(bytes);
            limit.rlim_cur = limit.rlim_max;
            if libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) == -1 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}
