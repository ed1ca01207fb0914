//! System calls as a 32-bit process makes them: `int 0x80` takes the numbers and structures of i386.

use super::{Act, act};
use crate::errno::Errno;
use std::arch::asm;
use std::fs::File;
use std::os::fd::AsRawFd;

/// arch/x86/entry/syscalls/syscall_32.tbl: ioctl.
const IOCTL: i64 = 54;

/// A system call of i386 with three numbers.
fn call(number: i64, [a, b, c]: [u32; 3]) -> Result<i64, Errno> {
    let result: i64;
    // SAFETY: the entry for 32-bit calls keeps every register but rax and, before 4.17, r8 to r11; rbx is the
    // compiler's own and is put back. The arguments are plain numbers.
    unsafe {
        asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) u64::from(a) => _,
            inlateout("rax") number => result,
            in("rcx") u64::from(b),
            in("rdx") u64::from(c),
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    #[expect(clippy::cast_possible_truncation, reason = "an errno is returned in 32 bits")]
    let small = result as i32;
    if (-4095..0).contains(&small) { Err(Errno::from_raw(small)) } else { Ok(result) }
}

/// `ioctl(2)` of a 32-bit process, one that every file has.
///
/// # Errors
/// The errno of making the file.
pub fn ioctl() -> Result<Act, Errno> {
    let file = File::create("/tmp/compat")?;
    let fd = u32::try_from(file.as_raw_fd()).unwrap_or(u32::MAX);
    act(move |arm| {
        let _open = &file;
        arm.during(|| call(IOCTL, [fd, 0x5451, 0])) // FIOCLEX
    })
}
