//! The bpf(2) system call: attributes laid out by hand, results as owned file descriptors and errno numbers.
//!
//! Libraries probe features, retry and rewrite; a conformance suite must know exactly what it submitted. So every
//! call here is one system call with the fields that were given, except where a function says otherwise. The layouts
//! are those of `union bpf_attr` in include/uapi/linux/bpf.h.
//!
//! Only the bytes up to the last field that is not zero are passed. A kernel takes a longer attribute of zeros just
//! as well (`bpf_check_uarg_tail_zero`, 5.7 kernel/bpf/syscall.c) but refuses with `E2BIG` what it does not know.
//!
//! Every file descriptor that the kernel gives is close-on-exec (`O_CLOEXEC` in `bpf_map_new_fd`,
//! `bpf_prog_new_fd`, `bpf_link_prime` and `btf_new_fd`).

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use crate::errno::Errno;

pub mod consts;
mod exclusive;
pub mod info;
pub mod link;
pub mod map;
pub mod prog;
pub mod query;
mod shim;
mod signed;
mod stream;
#[cfg(test)]
mod tests;

pub use consts::*;
pub use exclusive::*;
pub use info::*;
pub use link::*;
pub use map::*;
pub use prog::*;
pub use query::{
    BPF_F_QUERY_EFFECTIVE, enable_stats, iter_create, link_create_raw, prog_attach_raw, prog_detach_raw,
    prog_query, task_fd_query, token_create,
};
pub use signed::*;
pub use stream::{STDERR, STDOUT, stream_read};

/// `char map_name[BPF_OBJ_NAME_LEN]` and its like.
const NAME_LEN: usize = 16;

/// An attribute: one member of `union bpf_attr`, or the first part of one.
///
/// # Safety
/// The type is `repr(C)`, every bit pattern of it is valid, and it has no padding, so that all its bytes may be read
/// by the kernel and by [`used`] and written by the kernel.
unsafe trait Attr: Copy {}

/// The bytes of an attribute up to the last one that is not zero, in whole 32-bit words.
fn used<A: Attr>(attr: &A) -> usize {
    // SAFETY: `Attr` promises that there is no padding, so all bytes are initialized; the slice lives as long as
    // the attribute is borrowed.
    let bytes = unsafe { std::slice::from_raw_parts(std::ptr::from_ref(attr).cast::<u8>(), size_of::<A>()) };
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    used.next_multiple_of(4).min(bytes.len())
}

/// Runs a bpf(2) command on an attribute, which the kernel may write to.
///
/// # Safety
/// Every address in the attribute must be valid for the kernel's accesses of the length that the command implies.
unsafe fn bpf<A: Attr>(command: u32, attr: &mut A) -> Result<i32, Errno> {
    let size = used(attr);
    // SAFETY: the attribute is valid for reads of `size` bytes and, the kernel's own idea of it being no longer than
    // the fields that the command has, for the writes the kernel makes; the caller vouches for the addresses in it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size) };
    Errno::result(result).map(|value| i32::try_from(value).unwrap_or(i32::MAX))
}

/// Runs a command that gives a file descriptor.
///
/// # Safety
/// As [`bpf`], and the command must be one whose result is a new file descriptor.
unsafe fn bpf_fd<A: Attr>(command: u32, attr: &mut A) -> Result<OwnedFd, Errno> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor as an attribute's unsigned field holds it; none is 0.
fn fd_field(fd: Option<RawFd>) -> u32 {
    fd.unwrap_or(0).cast_unsigned()
}

/// The address of a slice as an attribute's field, 0 when it is empty.
fn address<T>(slice: &[T]) -> u64 {
    if slice.is_empty() { 0 } else { slice.as_ptr().expose_provenance() as u64 }
}

/// The address of a slice that the kernel writes to, 0 when it is empty.
fn address_mut<T>(slice: &mut [T]) -> u64 {
    if slice.is_empty() { 0 } else { slice.as_mut_ptr().expose_provenance() as u64 }
}

/// A length as an attribute's field.
fn length<T>(slice: &[T]) -> Result<u32, Errno> {
    u32::try_from(slice.len()).map_err(|_| Errno::E2BIG)
}

/// An object's name as the kernel takes it (`bpf_obj_name_cpy`): at most 15 letters, digits, `_` and `.`; whatever
/// else is in it becomes `_`, so that a name is never the reason of a refusal.
fn object_name(name: &str) -> [u8; NAME_LEN] {
    let mut field = [0; NAME_LEN];
    for (slot, byte) in field.iter_mut().take(NAME_LEN - 1).zip(name.bytes()) {
        *slot = if byte.is_ascii_alphanumeric() || byte == b'.' { byte } else { b'_' };
    }
    field
}

/// The text in a field that ends with a NUL.
fn field_text(field: &[u8]) -> String {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(field.get(..end).unwrap_or_default()).into_owned()
}
