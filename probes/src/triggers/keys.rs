//! Keys, in the process's own keyring.

use super::{Act, Arm, act, syscall};
use crate::errno::Errno;
use std::ffi::CString;

/// include/uapi/linux/keyctl.h: KEY_SPEC_PROCESS_KEYRING, as an argument.
const KEYRING: usize = usize::MAX - 1;
/// The same: KEYCTL_DESCRIBE.
const DESCRIBE: usize = 6;
/// The same: KEYCTL_UNLINK.
const UNLINK: usize = 9;

/// Adds a key that only leaves through [`unlink`]. Two keys of one name would be one key, changed.
fn add(number: u32) -> Result<usize, Errno> {
    let name = CString::new(format!("conform-{number}")).map_err(|_| Errno::EINVAL)?;
    let payload = b"secret";
    let args =
        [c"user".as_ptr().addr(), name.as_ptr().addr(), payload.as_ptr().addr(), payload.len(), KEYRING, 0];
    // SAFETY: two terminated strings, a slice with its length, a number.
    let serial = unsafe { syscall(libc::SYS_add_key, args) }?;
    Ok(usize::try_from(serial).unwrap_or(0))
}

fn unlink(key: usize) -> Result<(), Errno> {
    // SAFETY: takes three numbers.
    unsafe { syscall(libc::SYS_keyctl, [UNLINK, key, KEYRING, 0, 0, 0]) }.map(drop)
}

/// `add_key(2)`.
///
/// # Errors
/// The errno of the first key, which also makes the keyring.
pub fn add_key() -> Result<Act, Errno> {
    unlink(add(0)?)?;
    let mut number = 0;
    act(move |arm: Arm| {
        number += 1;
        unlink(arm.during(|| add(number))?)
    })
}

/// `keyctl(2)`, asking for a key's description.
///
/// # Errors
/// The errno of making the key.
pub fn describe() -> Result<Act, Errno> {
    let key = add(0)?;
    act(move |arm: Arm| {
        // SAFETY: takes numbers; a buffer of no length asks for the size needed.
        arm.during(|| unsafe { syscall(libc::SYS_keyctl, [DESCRIBE, key, 0, 0, 0, 0]) })
    })
}
