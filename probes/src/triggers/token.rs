//! BPF tokens: a bpffs instance delegates what a process in a user namespace of its own may do.

use super::children::{reap, spawn};
use super::files::{index, owned};
use super::{Act, Arm, act, syscall};
use crate::btf_build::{BtfBuilder, SIGNED};
use crate::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, pipe, read, write};
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

/// include/uapi/linux/bpf.h: BPF_MAP_CREATE, BPF_BTF_LOAD, BPF_TOKEN_CREATE.
const MAP_CREATE: usize = 0;
/// The same.
pub const BTF_LOAD: usize = 18;
const TOKEN_CREATE: usize = 36;
/// The same: BPF_F_TOKEN_FD.
const WITH_TOKEN: u32 = 1 << 16;
/// include/uapi/linux/mount.h: FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE.
const SET: usize = 1;
const CREATE: usize = 6;

/// `bpf(2)` that makes a token.
///
/// # Errors
/// None.
pub fn create() -> Result<Act, Errno> {
    act(|arm: Arm| with_bpffs(1, |bpffs| arm.during(|| token(bpffs)).map(drop)))
}

/// `bpf(2)` that makes a map by right of a token.
///
/// # Errors
/// None.
pub fn use_it() -> Result<Act, Errno> {
    act(|arm: Arm| {
        with_bpffs(1, |bpffs| {
            let token = token(bpffs)?;
            arm.during(|| map_with(&token)).map(drop)
        })
    })
}

/// `bpf(2)` that loads BTF by right of a token.
///
/// # Errors
/// None.
pub fn load_types() -> Result<Act, Errno> {
    let mut types = BtfBuilder::new();
    types.int("int", 4, SIGNED);
    let types = types.finish();
    act(move |arm: Arm| {
        with_bpffs(1 << BTF_LOAD, |bpffs| {
            let token = token(bpffs)?;
            arm.during(|| types_with(&token, &types)).map(drop)
        })
    })
}

/// The end of a token, some time after it is closed. Names what it allows, each time something more.
///
/// # Errors
/// None.
pub fn end() -> Result<Act, Errno> {
    let mut number = 0_u64;
    act(move |arm: Arm| {
        number += 1;
        let commands = 1 | number << 40;
        arm.freeing(commands, || with_bpffs(commands, |bpffs| token(bpffs).map(drop)))
    })
}

/// Does `body` in a child that is root in a user namespace of its own and there has a bpffs which delegates
/// `commands`. Only this process, outside, may say what is delegated; so it takes the child's context and does.
fn with_bpffs(commands: u64, body: impl FnOnce(&OwnedFd) -> Result<(), Errno>) -> Result<(), Errno> {
    let (from_child, to_parent) = pipe()?;
    let (from_parent, to_child) = pipe()?;
    let child = spawn(move || {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
        // SAFETY: a terminated string and numbers.
        let context = owned(unsafe { syscall(libc::SYS_fsopen, [c"bpf".as_ptr().addr(), 0, 0, 0, 0, 0]) }?);
        write(&to_parent, &index(&context).to_ne_bytes())?;
        read(&from_parent, &mut [0])?;
        // SAFETY: numbers.
        let mount = owned(unsafe { syscall(libc::SYS_fsmount, [index(&context), 0, 0, 0, 0, 0]) }?);
        // A token wants a descriptor that is more than a path (6.12 kernel/bpf/token.c, bpf_token_create).
        let bpffs = openat(&mount, ".", OFlag::O_DIRECTORY | OFlag::O_RDONLY, Mode::empty())?;
        body(&bpffs)
    })?;
    let mut number = [0; 8];
    let delegated = read(&from_child, &mut number)
        .map_err(Errno::from)
        .and_then(|_| delegate(child, usize::from_ne_bytes(number), commands));
    write(&to_child, b"x")?;
    reap(child)?;
    delegated
}

fn delegate(child: Pid, context: usize, commands: u64) -> Result<(), Errno> {
    let pid = usize::try_from(child.as_raw()).unwrap_or(0);
    // SAFETY: numbers.
    let pidfd = owned(unsafe { syscall(libc::SYS_pidfd_open, [pid, 0, 0, 0, 0, 0]) }?);
    // SAFETY: numbers.
    let context = owned(unsafe { syscall(libc::SYS_pidfd_getfd, [index(&pidfd), context, 0, 0, 0, 0]) }?);
    let commands = CString::new(format!("{commands:#x}")).map_err(|_| Errno::EINVAL)?;
    let options: [(&CStr, &CStr); 2] = [(c"delegate_cmds", &commands), (c"delegate_maps", c"any")];
    for (key, value) in options {
        let args = [index(&context), SET, key.as_ptr().addr(), value.as_ptr().addr(), 0, 0];
        // SAFETY: two terminated strings and numbers.
        unsafe { syscall(libc::SYS_fsconfig, args) }?;
    }
    // SAFETY: numbers.
    unsafe { syscall(libc::SYS_fsconfig, [index(&context), CREATE, 0, 0, 0, 0]) }.map(drop)
}

fn token(bpffs: &OwnedFd) -> Result<OwnedFd, Errno> {
    let attr = [0_u32, u32::try_from(index(bpffs)).unwrap_or(u32::MAX)];
    // SAFETY: an attribute of 8 bytes.
    unsafe { syscall(libc::SYS_bpf, [TOKEN_CREATE, attr.as_ptr().addr(), 8, 0, 0, 0]) }.map(owned)
}

/// btf_size is the first number after two addresses, btf_flags and btf_token_fd are the last.
fn types_with(token: &OwnedFd, types: &[u8]) -> Result<OwnedFd, Errno> {
    let mut attr = [0_u64; 5];
    attr[0] = types.as_ptr().addr() as u64;
    attr[2] = types.len() as u64;
    attr[4] = u64::from(WITH_TOKEN) | (index(token) as u64) << 32;
    // SAFETY: an attribute of 40 bytes, which names a slice with its length.
    unsafe { syscall(libc::SYS_bpf, [BTF_LOAD, attr.as_ptr().addr(), 40, 0, 0, 0]) }.map(owned)
}

/// An array of one element; map_token_fd is the last member of the attribute.
fn map_with(token: &OwnedFd) -> Result<OwnedFd, Errno> {
    let mut attr = [0_u32; 20];
    attr[..5].copy_from_slice(&[2, 4, 8, 1, WITH_TOKEN]);
    attr[19] = u32::try_from(index(token)).unwrap_or(u32::MAX);
    // SAFETY: an attribute of 80 bytes.
    unsafe { syscall(libc::SYS_bpf, [MAP_CREATE, attr.as_ptr().addr(), 80, 0, 0, 0]) }.map(owned)
}
