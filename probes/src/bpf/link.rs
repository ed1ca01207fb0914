//! Attaching: raw tracepoints, links, and programs attached without a link.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::errno::Errno;

use super::{Attr, bpf, bpf_fd, consts, shim};

/// `struct { .. } raw_tracepoint`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct RawTracepointAttr {
    pub(super) name: u64,
    pub(super) prog_fd: u32,
    pub(super) pad: u32,
    pub(super) cookie: u64,
}

// SAFETY: integers in an order that leaves no padding (24 bytes, checked by a test).
unsafe impl Attr for RawTracepointAttr {}

/// `struct { .. } link_create`, with the part for tracing programs.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct LinkCreateAttr {
    pub(super) prog_fd: u32,
    pub(super) target_fd: u32,
    pub(super) attach_type: u32,
    pub(super) flags: u32,
    pub(super) target_btf_id: u32,
    pub(super) pad: u32,
    pub(super) cookie: u64,
}

// SAFETY: integers in an order that leaves no padding (32 bytes, checked by a test).
unsafe impl Attr for LinkCreateAttr {}

/// `struct { .. } link_update`, and with its first field alone `link_detach`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct LinkUpdateAttr {
    pub(super) link_fd: u32,
    pub(super) new_prog_fd: u32,
    pub(super) flags: u32,
    pub(super) old_prog_fd: u32,
}

// SAFETY: integers in an order that leaves no padding (16 bytes, checked by a test).
unsafe impl Attr for LinkUpdateAttr {}

/// `struct { .. }` of `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct PinAttr {
    pub(super) pathname: u64,
    pub(super) bpf_fd: u32,
    pub(super) file_flags: u32,
}

// SAFETY: integers in an order that leaves no padding (16 bytes, checked by a test).
unsafe impl Attr for PinAttr {}

/// What [`link_create`] is given besides the program. Fields that are left out are zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkSpec<'a> {
    /// The cgroup, program or network namespace to attach to; none for what the program itself names.
    pub target: Option<BorrowedFd<'a>>,
    /// `BPF_LSM_MAC`, `BPF_LSM_CGROUP`, ..
    pub attach_type: u32,
    /// `BPF_F_*` of `BPF_LINK_CREATE`.
    pub flags: u32,
    /// The function to attach to in the target program.
    pub target_btf_id: u32,
    /// What `bpf_get_attach_cookie` shall give (for tracing and LSM programs since 5.19).
    pub cookie: u64,
}

/// `BPF_RAW_TRACEPOINT_OPEN`: the way to attach an LSM program that every kernel has, with no name, for the program
/// names its hook. A cookie other than 0 is known since 6.10.
///
/// # Errors
/// What the kernel answers.
pub fn raw_tracepoint_open(prog: impl AsFd, name: Option<&CStr>, cookie: u64) -> Result<OwnedFd, Errno> {
    let name = name.map_or(0, |name| name.as_ptr().expose_provenance() as u64);
    let mut attr = RawTracepointAttr { name, prog_fd: number(&prog), pad: 0, cookie };
    // SAFETY: the name is a C string that outlives the call, and the command gives a new descriptor.
    unsafe { bpf_fd(consts::BPF_RAW_TRACEPOINT_OPEN, &mut attr) }
}

/// `BPF_LINK_CREATE` (for cgroups 5.7, for programs of type LSM that are not of a cgroup 5.19).
///
/// # Errors
/// What the kernel answers.
pub fn link_create(prog: impl AsFd, spec: &LinkSpec<'_>) -> Result<OwnedFd, Errno> {
    shim::let_a_release_finish(spec.attach_type);
    let mut attr = LinkCreateAttr {
        prog_fd: number(&prog),
        target_fd: spec.target.as_ref().map_or(0, number),
        attach_type: spec.attach_type,
        flags: spec.flags,
        target_btf_id: spec.target_btf_id,
        pad: 0,
        cookie: spec.cookie,
    };
    // SAFETY: the attribute holds no addresses for the attach types that name a function or a cgroup, and 0 for a
    // length where another type would read one at the place of the cookie; the command gives a new descriptor.
    unsafe { bpf_fd(consts::BPF_LINK_CREATE, &mut attr) }
}

/// `BPF_LINK_DETACH` (5.9): the link lives on without doing anything.
///
/// # Errors
/// What the kernel answers; `EOPNOTSUPP` for links of type tracing, which those of LSM programs are (seen on 5.10, 6.1 and 7.3).
pub fn link_detach(link: impl AsFd) -> Result<(), Errno> {
    let mut attr = LinkUpdateAttr { link_fd: number(&link), ..LinkUpdateAttr::default() };
    // SAFETY: the attribute holds no addresses.
    unsafe { bpf(consts::BPF_LINK_DETACH, &mut attr) }.map(drop)
}

/// `BPF_LINK_UPDATE`: another program for a link, if `old` is given only in the place of that one.
///
/// # Errors
/// What the kernel answers.
pub fn link_update(link: impl AsFd, new: impl AsFd, old: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let mut attr = LinkUpdateAttr {
        link_fd: number(&link),
        new_prog_fd: number(&new),
        flags: if old.is_some() { consts::BPF_F_REPLACE } else { 0 },
        old_prog_fd: old.as_ref().map_or(0, number),
    };
    // SAFETY: the attribute holds no addresses.
    unsafe { bpf(consts::BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

/// `BPF_OBJ_PIN`: gives a program, map or link a name in a BPF file system.
///
/// # Errors
/// What the kernel answers.
pub fn obj_pin(object: impl AsFd, path: &CStr) -> Result<(), Errno> {
    let pathname = path.as_ptr().expose_provenance() as u64;
    let mut attr = PinAttr { pathname, bpf_fd: number(&object), file_flags: 0 };
    // SAFETY: the path is a C string that outlives the call.
    unsafe { bpf(consts::BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// `BPF_OBJ_GET`: opens what is pinned, with `BPF_F_RDONLY`, `BPF_F_WRONLY` or 0.
///
/// # Errors
/// What the kernel answers.
pub fn obj_get(path: &CStr, flags: u32) -> Result<OwnedFd, Errno> {
    let mut attr =
        PinAttr { pathname: path.as_ptr().expose_provenance() as u64, bpf_fd: 0, file_flags: flags };
    // SAFETY: the path is a C string that outlives the call, and the command gives a new descriptor.
    unsafe { bpf_fd(consts::BPF_OBJ_GET, &mut attr) }
}

fn number(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().cast_unsigned()
}
