//! A signature that a kernel can check: what is signed, by whom, and how the kernel comes to know the signer.
//!
//! `allowing.p7s` signs [`MESSAGE`] with a key that was thrown away, whose certificate is `signer.der` (RSA with 2048 bits,
//! SHA-256; `openssl smime -sign -binary -noattr -nocerts -md sha256 -outform DER`).

use crate::errno::Errno;
use crate::session::Ended;

/// What is signed: the instructions of a program of type LSM that allows, `r0 = 0; exit`.
pub(crate) const MESSAGE: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
/// The signer's certificate, which is no signature.
pub(crate) const SIGNER: &[u8] = include_bytes!("signer.der");
/// The signature, which does not contain the message.
pub(crate) const SIGNATURE: &[u8] = include_bytes!("allowing.p7s");

/// include/uapi/linux/keyctl.h: `KEY_SPEC_PROCESS_KEYRING`, the keyring that [`add`] adds to.
pub(crate) const OWN: i32 = -2;
/// The same: `KEY_SPEC_USER_KEYRING`, which does not have the signer.
pub(crate) const USERS: i32 = -4;

/// Puts the signer's certificate into the keyring of this process, which ends with it.
///
/// # Errors
/// [`Ended::CouldNotTell`] where the kernel takes none.
pub(crate) fn add() -> Result<(), Ended> {
    let (kind, name) = (c"asymmetric", c"conform");
    // SAFETY: strings with their ends, and a buffer with its length, all of which live across the call.
    let key = unsafe {
        libc::syscall(libc::SYS_add_key, kind.as_ptr(), name.as_ptr(), SIGNER.as_ptr(), SIGNER.len(), OWN)
    };
    Errno::result(key).map(drop).map_err(|errno| Ended::could_not("add the signer's certificate", errno))
}
