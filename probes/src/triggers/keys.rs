//! Keys, in the process's own keyring, and pipes that tell of their changes.

use super::children::in_child;
use super::files::index;
use super::{Act, Arm, Seen, act, act_seen, syscall};
use crate::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

/// include/uapi/linux/keyctl.h: KEY_SPEC_PROCESS_KEYRING, as an argument.
const KEYRING: usize = usize::MAX - 1;
/// The same: KEYCTL_JOIN_SESSION_KEYRING.
const JOIN_SESSION: usize = 1;
/// The same: KEYCTL_GET_SECURITY.
const GET_SECURITY: usize = 17;
/// The same: KEYCTL_SESSION_TO_PARENT.
const SESSION_TO_PARENT: usize = 18;
/// The same: KEYCTL_DESCRIBE.
const DESCRIBE: usize = 6;
/// The same: KEYCTL_UNLINK.
const UNLINK: usize = 9;
/// The same: KEYCTL_UPDATE, KEYCTL_WATCH_KEY.
const UPDATE: usize = 2;
const WATCH: usize = 32;
/// include/uapi/linux/watch_queue.h: O_NOTIFICATION_PIPE, IOC_WATCH_QUEUE_SET_SIZE.
const OF_NOTES: OFlag = OFlag::O_EXCL;
const SET_SIZE: usize = 0x5760;
/// The same: WATCH_TYPE_KEY_NOTIFY with NOTIFY_KEY_UPDATED above it.
const UPDATED: u32 = 1 << 24 | 1;
/// The `info` of a note on a key: its size (`struct key_notification`), above it the watch's number.
pub const NOTE: u32 = WATCH_NUMBER << 8 | 16;
const WATCH_NUMBER: u32 = 0x42;

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
/// The errno of making the key, of [`super::creds::take_group`].
pub fn describe() -> Result<Act, Errno> {
    super::creds::take_group()?;
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
        arm.freeing(key as u64, || unlink(key))
    })
}

/// A pipe for notes of the kernel, with room for some.
fn pipe_of_notes() -> Result<(OwnedFd, OwnedFd), Errno> {
    let pipe = pipe2(OF_NOTES | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // SAFETY: takes a number.
    unsafe { syscall(libc::SYS_ioctl, [index(&pipe.0), SET_SIZE, 16, 0, 0, 0]) }?;
    Ok(pipe)
}

fn watch(key: usize, pipe: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: takes numbers.
    unsafe { syscall(libc::SYS_keyctl, [WATCH, key, index(pipe), WATCH_NUMBER as usize, 0, 0]) }.map(drop)
}

/// `keyctl(2)` that has a pipe told of what becomes of a key; it ends with the pipe.
///
/// # Errors
/// The errno of making the key, of making such a pipe.
pub fn watched() -> Result<Act, Errno> {
    let key = add(0)?;
    drop(pipe_of_notes()?);
    act(move |arm: Arm| {
        let (read, _write) = pipe_of_notes()?;
        arm.during(|| watch(key, &read))
    })
}

/// `keyctl(2)` that changes a key, of which a pipe is to be told.
///
/// # Errors
/// The errno of making the key, of making such a pipe, of watching.
pub fn change_watched() -> Result<Act, Errno> {
    let key = add(0)?;
    let (read, write) = pipe_of_notes()?;
    watch(key, &read)?;
    let mut read = File::from(read);
    act_seen(move |arm: Arm| {
        let _open = &write;
        let payload = b"changed";
        let args = [UPDATE, key, payload.as_ptr().addr(), payload.len(), 0, 0];
        // SAFETY: a slice with its length.
        arm.during(|| unsafe { syscall(libc::SYS_keyctl, args) })?;
        // `struct key_notification`: type, info, the key, and a number that means nothing here.
        let mut note = [[0; 4]; 4];
        let length = match read.read(note.as_flattened_mut()) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        let [kind, info, of, _] = note.map(u32::from_ne_bytes);
        Ok(match length {
            0 => Seen("no note comes"),
            16 if kind == UPDATED && info == NOTE && of as usize == key => Seen("the note comes"),
            _ => Seen("another note comes"),
        })
    })
}
