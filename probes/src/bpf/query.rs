//! Commands with plain numbers for descriptors, so that wrong ones can be passed too; queries; tokens.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use crate::errno::Errno;

use super::{Attr, address_mut, bpf, bpf_fd, consts, length, shim};

/// An attribute that is nothing but numbers.
#[derive(Clone, Copy)]
#[repr(C)]
struct Words([u32; 16]);

// SAFETY: an array of integers has no padding.
unsafe impl Attr for Words {}

fn words(given: &[u32]) -> Words {
    let mut words = [0; 16];
    words.iter_mut().zip(given).for_each(|(to, from)| *to = *from);
    Words(words)
}

fn number(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().cast_unsigned()
}

/// `BPF_LINK_CREATE` with exactly these numbers in the first fields: program, target, attach type, flags, BTF id.
///
/// # Errors
/// What the kernel answers.
pub fn link_create_raw(
    prog: impl AsFd,
    target: RawFd,
    attach_type: u32,
    flags: u32,
    btf_id: u32,
) -> Result<OwnedFd, Errno> {
    shim::let_a_release_finish(attach_type);
    let mut attr = words(&[number(&prog), target.cast_unsigned(), attach_type, flags, btf_id]);
    // SAFETY: no addresses are in the attribute, and the command gives a new descriptor.
    unsafe { bpf_fd(consts::BPF_LINK_CREATE, &mut attr) }
}

/// `BPF_PROG_ATTACH` with exactly these numbers; `replace` is the program to be replaced, or the one that
/// `BPF_F_BEFORE` and `BPF_F_AFTER` refer to (`relative_fd` follows `replace_bpf_fd`).
///
/// # Errors
/// What the kernel answers.
pub fn prog_attach_raw(
    prog: impl AsFd,
    target: RawFd,
    attach_type: u32,
    flags: u32,
    replace: Option<RawFd>,
) -> Result<(), Errno> {
    shim::let_a_release_finish(attach_type);
    let replace = replace.map_or(0, RawFd::cast_unsigned);
    let relative = flags & (consts::BPF_F_BEFORE | consts::BPF_F_AFTER) != 0;
    let (replace, relative) = if relative { (0, replace) } else { (replace, 0) };
    let mut attr = words(&[target.cast_unsigned(), number(&prog), attach_type, flags, replace, relative]);
    // SAFETY: no addresses are in the attribute.
    unsafe { bpf(consts::BPF_PROG_ATTACH, &mut attr) }.map(drop)
}

/// `BPF_PROG_DETACH` with exactly these numbers.
///
/// # Errors
/// What the kernel answers.
pub fn prog_detach_raw(prog: impl AsFd, target: RawFd, attach_type: u32) -> Result<(), Errno> {
    let mut attr = words(&[target.cast_unsigned(), number(&prog), attach_type]);
    // SAFETY: no addresses are in the attribute.
    unsafe { bpf(consts::BPF_PROG_DETACH, &mut attr) }.map(drop)
}

/// `struct { .. } query`, as far as kernels write to it: for cgroups 6.17 to 7.0 write the revision whatever length
/// they were given (seen; later ones compare the length first, 7.3 kernel/bpf/cgroup.c, `__cgroup_bpf_query`).
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

// SAFETY: integers in an order that leaves no padding (64 bytes).
unsafe impl Attr for QueryAttr {}

/// `BPF_F_QUERY_EFFECTIVE`: what runs for a cgroup, its ancestors' programs among them.
pub const BPF_F_QUERY_EFFECTIVE: u32 = 1;

/// The programs attached to a target, by id, and the flags they are attached with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// The ids, in the kernel's order.
    pub programs: Vec<u32>,
    /// The flags of each program, where room was given for them.
    pub each: Vec<u32>,
}

/// `BPF_PROG_QUERY` for at most 64 programs; with room for the flags of each (6.0) or without.
///
/// # Errors
/// What the kernel answers.
pub fn prog_query(target: RawFd, attach_type: u32, query_flags: u32, room: bool) -> Result<Attached, Errno> {
    let mut programs = vec![0_u32; 64];
    let mut each = vec![0_u32; if room { programs.len() } else { 0 }];
    let mut attr = QueryAttr {
        target_fd: target.cast_unsigned(),
        attach_type,
        query_flags,
        prog_ids: address_mut(&mut programs),
        prog_cnt: length(&programs)?,
        prog_attach_flags: address_mut(&mut each),
        ..QueryAttr::default()
    };
    // SAFETY: the kernel writes at most `prog_cnt` ids and flags to the buffers, which outlive the call.
    unsafe { bpf(consts::BPF_PROG_QUERY, &mut attr) }?;
    programs.truncate(attr.prog_cnt as usize);
    each.truncate(attr.prog_cnt as usize);
    Ok(Attached { programs, each })
}

/// `struct { .. } task_fd_query`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct TaskFdAttr {
    pid: u32,
    fd: u32,
    flags: u32,
    buf_len: u32,
    buf: u64,
    prog_id: u32,
    fd_type: u32,
    probe_offset: u64,
    probe_addr: u64,
}

// SAFETY: integers in an order that leaves no padding (48 bytes).
unsafe impl Attr for TaskFdAttr {}

/// `BPF_TASK_FD_QUERY` of one of this process's descriptors: the id of the program behind it.
///
/// # Errors
/// What the kernel answers; `ENOTSUPP` for a descriptor that is no perf event or raw tracepoint.
pub fn task_fd_query(fd: impl AsFd) -> Result<u32, Errno> {
    let mut attr = TaskFdAttr { pid: std::process::id(), fd: number(&fd), ..TaskFdAttr::default() };
    // SAFETY: no address is in the attribute: the buffer's length is 0.
    unsafe { bpf(consts::BPF_TASK_FD_QUERY, &mut attr) }?;
    Ok(attr.prog_id)
}

/// `BPF_TOKEN_CREATE` (6.9): from the root of a BPF file system that was mounted to delegate.
///
/// # Errors
/// What the kernel answers.
pub fn token_create(bpffs: impl AsFd) -> Result<OwnedFd, Errno> {
    let mut attr = words(&[0, number(&bpffs)]);
    // SAFETY: no addresses are in the attribute, and the command gives a new descriptor.
    unsafe { bpf_fd(consts::BPF_TOKEN_CREATE, &mut attr) }
}

/// `BPF_ENABLE_STATS` (5.8) of how often and how long programs run, until the descriptor is closed.
///
/// # Errors
/// What the kernel answers.
pub fn enable_stats() -> Result<OwnedFd, Errno> {
    let mut attr = words(&[0]); // BPF_STATS_RUN_TIME
    // SAFETY: no addresses are in the attribute, and the command gives a new descriptor.
    unsafe { bpf_fd(consts::BPF_ENABLE_STATS, &mut attr) }
}

/// `BPF_ITER_CREATE` from a link.
///
/// # Errors
/// What the kernel answers.
pub fn iter_create(link: impl AsFd) -> Result<OwnedFd, Errno> {
    let mut attr = words(&[number(&link)]);
    // SAFETY: no addresses are in the attribute, and the command gives a new descriptor.
    unsafe { bpf_fd(consts::BPF_ITER_CREATE, &mut attr) }
}
