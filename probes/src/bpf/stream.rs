//! A program's streams of output and errors (6.17).

use std::os::fd::{AsFd, AsRawFd};

use crate::errno::Errno;

use super::{Attr, address_mut, bpf, length};

/// `BPF_STDOUT`.
pub const STDOUT: u32 = 1;
/// `BPF_STDERR`.
pub const STDERR: u32 = 2;
/// `BPF_PROG_STREAM_READ_BY_FD`.
const READ: u32 = 37;

/// `struct { .. } prog_stream_read`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct ReadAttr {
    buffer: u64,
    length: u32,
    stream: u32,
    program: u32,
    pad: u32,
}

// SAFETY: integers in an order that leaves no padding.
unsafe impl Attr for ReadAttr {}

/// What stands in a stream of a program, at most 4 KiB; it is taken out of it.
///
/// # Errors
/// What the kernel answers, `EINVAL` where it has no such command.
pub fn stream_read(program: impl AsFd, stream: u32) -> Result<String, Errno> {
    let mut text = vec![0_u8; 4096];
    let mut attr = ReadAttr {
        buffer: address_mut(&mut text),
        length: length(&text)?,
        stream,
        program: program.as_fd().as_raw_fd().cast_unsigned(),
        pad: 0,
    };
    // SAFETY: the buffer has the length that the attribute gives, and outlives the call.
    let read = unsafe { bpf(READ, &mut attr) }?;
    text.truncate(usize::try_from(read).unwrap_or(0));
    Ok(String::from_utf8_lossy(&text).into_owned())
}
