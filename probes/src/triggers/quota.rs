//! Quotas, on an ext4 in a file.

use super::{Act, Arm, OK, Seen, act_seen, ext4, syscall};
use crate::errno::Errno;
use std::fs::File;

const PATH: &str = "/tmp/quota";

/// include/uapi/linux/quota.h: QCMD(Q_QUOTAON, USRQUOTA), and the number of no format.
const ON: usize = 0x8000_0200;
const NO_FORMAT: usize = 77;

/// `quotactl(2)` that switches quotas on. The kernel knows no format of that number, which it finds out last.
///
/// # Errors
/// The errno of making the file system.
pub fn switch_on() -> Result<Act, Errno> {
    let device = ext4::mounted("/tmp/quota.ext4", PATH, Some("usrquota"), ext4::PLAIN)?;
    File::create("/tmp/quota/aquota.user")?;
    act_seen(move |arm: Arm| {
        let (device, path) = (device.as_ptr().addr(), c"/tmp/quota/aquota.user".as_ptr().addr());
        // SAFETY: numbers, and two terminated strings.
        let result =
            arm.during(|| unsafe { syscall(libc::SYS_quotactl, [ON, device, NO_FORMAT, path, 0, 0]) });
        match result {
            Err(errno) if errno.raw() == libc::ESRCH => Ok(Seen("ESRCH: no such format")),
            other => other.map(|_| OK),
        }
    })
}
