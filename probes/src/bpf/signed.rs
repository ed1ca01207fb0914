//! Loading a program with its signature (6.18).

use super::prog::{LoadAttr, asked_twice, load_attr, refused};
use super::{Attr, LoadError, Loaded, ProgSpec, address, address_mut, bpf_fd, consts, length};

/// A signature, and the keys that it is to be checked against.
#[derive(Clone, Copy, Debug)]
pub struct Signature<'a> {
    /// PKCS#7, in DER.
    pub bytes: &'a [u8],
    /// Its size as the kernel is told, in bytes.
    pub size: u32,
    /// A number of a keyring, or the small one of a keyring of the kernel's.
    pub keyring: i32,
}

/// The attribute of `BPF_PROG_LOAD`, of which a kernel that does not know the last three takes only zeros.
#[derive(Clone, Copy)]
#[repr(C)]
struct SignedAttr {
    load: LoadAttr,
    signature: u64,
    signature_size: u32,
    keyring_id: i32,
}

// SAFETY: integers in an order that leaves no padding: 152 bytes, then 16.
unsafe impl Attr for SignedAttr {}

/// Loads a signed program; the log is that of a refusal.
///
/// # Errors
/// [`LoadError`] with what the kernel answered and the log: `E2BIG` where programs cannot be signed (7.0
/// kernel/bpf/syscall.c, `bpf_check_uarg_tail_zero`).
pub fn prog_load_signed(spec: &ProgSpec, signature: Signature<'_>) -> Result<Loaded, LoadError> {
    let load = load_attr(spec).map_err(refused)?;
    asked_twice(1, |buffer, log_level| {
        // One by one: rustc 1.95 breaks off at `..load` in a closure.
        let mut load = load;
        load.log_level = log_level;
        load.log_size = length(buffer)?;
        load.log_buf = address_mut(buffer);
        let mut attr = SignedAttr {
            load,
            signature: address(signature.bytes),
            signature_size: signature.size,
            keyring_id: signature.keyring,
        };
        // SAFETY: the addresses are those of the specification's, the signature's and the log's slices, which outlive the
        // call, and the command gives a new descriptor. Of a signature the kernel copies what it is told or fails.
        unsafe { bpf_fd(consts::BPF_PROG_LOAD, &mut attr) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attribute_is_as_long_as_the_kernels() {
        assert_eq!(size_of::<SignedAttr>(), 168);
    }
}
