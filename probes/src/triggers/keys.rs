//! Keys, in the process's own keyring.

use super::children::in_child;
use super::{Act, Arm, Seen, act, act_seen, syscall};
use crate::errno::Errno;
use std::ffi::CString;
use std::time::Duration;

/// include/uapi/linux/keyctl.h: KEY_SPEC_PROCESS_KEYRING, as an argument.
const KEYRING: usize = usize::MAX - 1;
/// The same: KEYCTL_JOIN_SESSION_KEYRING.
const JOIN_SESSION: usize = 1;
/// The same: KEYCTL_GET_SECURITY.
const GET_SECURITY: usize = 17;
/// How long a key may outlive its last link: a work queue sweeps it up.
const FREED: Duration = Duration::from_secs(5);
/// The same: KEYCTL_SESSION_TO_PARENT.
const SESSION_TO_PARENT: usize = 18;
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

/// Adds a certificate to one of the kernel's own keyrings, of which /proc/keys says the number.
pub(super) fn add_certificate(keyring: &str, certificate: &[u8]) -> Result<(), Errno> {
    let keys = std::fs::read_to_string("/proc/keys")?;
    let found = keys.lines().find(|line| line.contains(&format!(" keyring   {keyring}:")));
    let serial = found.and_then(|line| line.split(' ').next());
    let serial = serial.and_then(|hex| usize::from_str_radix(hex, 16).ok()).ok_or(Errno::ENOENT)?;
    let args = [
        c"asymmetric".as_ptr().addr(),
        c"conform".as_ptr().addr(),
        certificate.as_ptr().addr(),
        certificate.len(),
        serial,
        0,
    ];
    // SAFETY: two terminated strings, a slice with its length, a number.
    unsafe { syscall(libc::SYS_add_key, args) }.map(drop)
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

/// A child gives its session keyring to its parent.
fn give_to_parent() -> Result<(), Errno> {
    // SAFETY: takes a number.
    unsafe { syscall(libc::SYS_keyctl, [SESSION_TO_PARENT, 0, 0, 0, 0, 0]) }.map(drop)
}

fn new_session() -> Result<(), Errno> {
    // SAFETY: no name.
    unsafe { syscall(libc::SYS_keyctl, [JOIN_SESSION, 0, 0, 0, 0, 0]) }.map(drop)
}

/// `keyctl(2)` of a child that gives its parent a session keyring, for which it makes credentials from nothing.
///
/// # Errors
/// None.
pub fn session_to_parent() -> Result<Act, Errno> {
    act(|arm: Arm| {
        in_child(|| {
            new_session()?;
            arm.during(give_to_parent)
        })
    })
}

/// The same, the parent named: it takes the credentials over on its way back to user space.
///
/// # Errors
/// None.
pub fn session_from_child() -> Result<Act, Errno> {
    act(|arm: Arm| {
        arm.during(|| {
            in_child(|| {
                new_session()?;
                give_to_parent()
            })
        })
    })
}

/// `keyctl(2)`, asking for a key's label.
///
/// # Errors
/// The errno of making the key.
pub fn label() -> Result<Act, Errno> {
    let key = add(0)?;
    act_seen(move |arm: Arm| {
        // SAFETY: takes numbers; a buffer of no length asks for the size needed.
        match arm.during(|| unsafe { syscall(libc::SYS_keyctl, [GET_SECURITY, key, 0, 0, 0, 0]) }) {
            Ok(0..=1) => Ok(Seen("ok, it has none")),
            Ok(_) => Ok(Seen("ok, it has one")),
            Err(errno) => Err(errno),
        }
    })
}

/// The end of a key, some time after it is unlinked. Names its number.
///
/// # Errors
/// The errno of the first key, which also makes the keyring.
pub fn end() -> Result<Act, Errno> {
    unlink(add(0)?)?;
    let mut number = 0;
    act(move |arm: Arm| {
        number += 1;
        let key = add(number)?;
        arm.name_mark(key as u64);
        let result = unlink(key);
        arm.until_run(FREED);
        arm.name_nobody();
        result
    })
}
