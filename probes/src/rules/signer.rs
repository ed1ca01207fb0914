//! A signature that a kernel can check: what is signed, by whom, and how the kernel comes to know the signer.
//!
//! `allowing.p7s` signs [`MESSAGE`] with a key that was thrown away, whose certificate is `signer.der` (RSA with 2048 bits,
//! SHA-256; `openssl smime -sign -binary -noattr -nocerts -md sha256 -outform DER`).

use crate::errno::Errno;
use crate::rules;
use crate::session::Ended;
use std::ffi::CStr;

/// What is signed: the instructions of a program of type LSM that allows, `r0 = 0; exit`.
pub(crate) const MESSAGE: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
/// The signer's certificate, which is no signature.
pub(crate) const SIGNER: &[u8] = include_bytes!("signer.der");
/// The signature, which does not contain the message.
pub(crate) const SIGNATURE: &[u8] = include_bytes!("allowing.p7s");

/// include/uapi/linux/keyctl.h: `KEY_SPEC_PROCESS_KEYRING`, the keyring that [`add`] adds to.
pub(crate) const OWN: i32 = -2;
/// The same: `KEY_SPEC_THREAD_KEYRING`, which a thread has none of at first.
pub(crate) const THREADS: i32 = -1;
/// The same: `KEY_SPEC_USER_KEYRING`, which does not have the signer.
pub(crate) const USERS: i32 = -4;

/// include/uapi/linux/keyctl.h: commands of `keyctl(2)`.
const GET_KEYRING_ID: libc::c_long = 0;
const REVOKE: libc::c_long = 3;
const SET_PERMISSIONS: libc::c_long = 5;
const DESCRIBE: libc::c_long = 6;
const SET_TIMEOUT: libc::c_long = 15;
/// Whoever possesses a keyring may do all with it but search it (include/linux/key.h, `KEY_POS_ALL` without
/// `KEY_POS_SEARCH`), and nobody else anything.
const ALL_BUT_SEARCH: libc::c_long = 0x3700_0000;

/// What becomes of a keyring before it is used.
#[derive(Clone, Copy)]
pub(crate) enum Fate {
    /// Nothing.
    Kept,
    /// Nobody may search it.
    Closed,
    /// It is revoked.
    Revoked,
    /// It has expired.
    Expired,
}

/// Puts the signer's certificate into the keyring of this process, which ends with it.
///
/// # Errors
/// [`Ended::CouldNotTell`] where the kernel takes none.
pub(crate) fn add() -> Result<(), Ended> {
    add_to(OWN.into()).map_err(|errno| Ended::could_not("add the signer's certificate", errno))
}

fn add_to(keyring: libc::c_long) -> Result<(), Errno> {
    add_key(c"asymmetric", SIGNER, keyring).map(drop)
}

fn add_key(kind: &CStr, content: &[u8], keyring: libc::c_long) -> Result<libc::c_long, Errno> {
    let (name, length) = (c"conform", content.len());
    let content = if content.is_empty() { std::ptr::null() } else { content.as_ptr() };
    // SAFETY: strings with their ends, and a buffer with its length or none, all of which live across the call.
    let key =
        unsafe { libc::syscall(libc::SYS_add_key, kind.as_ptr(), name.as_ptr(), content, length, keyring) };
    Errno::result(key)
}

/// `keyctl(2)` with two numbers.
fn keyctl(command: libc::c_long, first: libc::c_long, second: libc::c_long) -> Result<libc::c_long, Errno> {
    // SAFETY: numbers; where a command takes a buffer that is none, the kernel leaves it alone.
    Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, command, first, second, 0_i64, 0_i64) })
}

/// The serial number of one of the keyrings that have a negative number for each task, which is made if `create`.
///
/// # Errors
/// The kernel's, ENOKEY where there is no such keyring and none is to be made.
pub(crate) fn serial_of(special: i32, create: bool) -> Result<u64, Errno> {
    let serial = keyctl(GET_KEYRING_ID, special.into(), create.into())?;
    u64::try_from(serial).map_err(|_| Errno::EINVAL)
}

/// Makes a keyring with the signer's certificate, in that of this process, and gives its serial number.
///
/// # Errors
/// [`Ended::CouldNotTell`] where it cannot be made, or does not become what it shall.
pub(crate) fn keyring(fate: Fate) -> Result<u64, Ended> {
    let made = || {
        let ring = add_key(c"keyring", &[], OWN.into())?;
        add_to(ring)?;
        match fate {
            Fate::Kept => 0,
            Fate::Closed => keyctl(SET_PERMISSIONS, ring, ALL_BUT_SEARCH)?,
            Fate::Revoked => keyctl(REVOKE, ring, 0)?,
            Fate::Expired => {
                keyctl(SET_TIMEOUT, ring, 1)?;
                rules::until(|| is_expired(ring));
                if is_expired(ring) { 0 } else { return Err(Errno::from_raw(libc::ETIMEDOUT)) }
            }
        };
        u64::try_from(ring).map_err(|_| Errno::EINVAL)
    };
    made().map_err(|errno| Ended::could_not("make a keyring with the signer's certificate", errno))
}

/// Whether it is not described for having expired.
fn is_expired(ring: libc::c_long) -> bool {
    keyctl(DESCRIBE, ring, 0) == Err(Errno::from_raw(libc::EKEYEXPIRED))
}
