//! Mounting: `mount(2)` with its many meanings, and the calls that took them apart.

use super::Subject;
use super::way::{Doing, Failed, Step, Way, doing};
use crate::errno::Errno;
use crate::spec::source;
use crate::triggers::files::{index, owned};
use crate::triggers::{Arm, syscall};
use libc::{EINVAL, ENOSYS};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

pub(super) const SUBJECT: Subject = Subject {
    name: "mounts",
    what: "mount a file system, bind a folder, or change a mount",
    hooks: &["sb_mount", "sb_alloc_security", "sb_set_mnt_opts", "sb_kern_mount", "sb_remount", "move_mount"],
    ways: &[
        Way::new("mount", || by_mount(new)),
        Way::new("mount-bind", || by_mount(bind)),
        Way::new("mount-move", move_old),
        Way::new("mount-change-propagation", change_propagation),
        Way::new("mount-remount", || read_only(remount)),
        Way::new("mount-remount-bind", || read_only(remount_bind)),
        Way::new("fsmount-without-a-place", || detached(made_of_context, "a descriptor of it")),
        Way::new("fsmount-and-move_mount", || placed(made_of_context)),
        Way::new("open_tree-clone-without-a-place", || detached(cloned, "a descriptor of it")),
        Way::new("open_tree-clone-and-move_mount", || placed(cloned)),
        Way::new("open_tree_attr-without-a-place", || detached(cloned_read_only, "a descriptor of it"))
            .lacking(&[ENOSYS]),
        Way::new("open_tree-into-a-namespace", || {
            detached(cloned_into_namespace, "a descriptor of a namespace that has it")
        })
        .lacking(&[EINVAL])
        .in_step("open_tree"),
        Way::new("move_mount-of-a-mount", move_new),
        Way::new("fspick-and-reconfigure", || read_only(reconfigure)),
        Way::new("mount_setattr", || read_only(set_attributes)).lacking(&[ENOSYS]),
    ],
    sources: &[
        source("7.3", "fs/namespace.c", "path_mount"),
        source("7.3", "fs/namespace.c", "do_new_mount_fc"),
        source("7.3", "fs/namespace.c", "vfs_move_mount"),
        source("7.3", "fs/namespace.c", "do_mount_setattr"),
        source("7.3", "fs/fsopen.c", "vfs_cmd_create"),
        source("7.3", "fs/super.c", "reconfigure_super"),
        source("5.11", "fs/namespace.c", "do_new_mount"),
    ],
};

/// Where a mount goes.
const PLACE: &str = "/tmp/place";
/// A folder with a file in it.
const FOLDER: &str = "/tmp/folder";
/// Where something is mounted that another one is made of.
const OTHER: &str = "/tmp/other";

/// include/uapi/linux/fcntl.h: AT_FDCWD, as an argument.
const HERE: usize = usize::MAX - 99;
/// include/uapi/linux/mount.h: FSCONFIG_SET_FLAG, FSCONFIG_CMD_CREATE, FSCONFIG_CMD_RECONFIGURE.
const SET_FLAG: usize = 0;
const CREATE: usize = 6;
const RECONFIGURE: usize = 7;
/// The same: OPEN_TREE_CLONE, OPEN_TREE_NAMESPACE.
const CLONE: usize = 1;
const NAMESPACE: usize = 2;
/// The same: MOVE_MOUNT_F_EMPTY_PATH.
const FROM_DESCRIPTOR: usize = 4;
/// The same: MOUNT_ATTR_RDONLY.
const READ_ONLY: u64 = 1;
/// arch/x86/entry/syscalls/syscall_64.tbl.
const SYS_OPEN_TREE_ATTR: libc::c_long = 467;

const NONE: Option<&str> = None;

fn folders() -> Result<(), Errno> {
    for path in [PLACE, FOLDER, OTHER] {
        fs::create_dir_all(path)?;
    }
    fs::write("/tmp/folder/file", b"x")?;
    Ok(())
}

/// Which device a path is on, which tells whether something is mounted there.
fn device(path: &str) -> Result<u64, Errno> {
    Ok(fs::metadata(path)?.dev())
}

fn unmount(path: &str) -> Result<(), Errno> {
    umount2(path, MntFlags::MNT_DETACH).map_err(Errno::from)
}

fn new() -> nix::Result<()> {
    mount(Some("conform"), PLACE, Some("tmpfs"), MsFlags::empty(), Some("size=64k"))
}

fn bind() -> nix::Result<()> {
    mount(Some(FOLDER), PLACE, NONE, MsFlags::MS_BIND, NONE)
}

/// What has come to be at [`PLACE`], which is empty by itself.
fn at_place() -> Result<String, Errno> {
    let bound = fs::exists("/tmp/place/file")?;
    let mounted = device(PLACE)? != device("/tmp")?;
    Ok(match (bound, mounted) {
        (true, _) => "the folder is there",
        (false, true) => "mounted",
        (false, false) => "nothing is mounted",
    }
    .to_owned())
}

/// `mount(2)` of something at [`PLACE`].
fn by_mount(call: fn() -> nix::Result<()>) -> Result<Doing, Errno> {
    folders()?;
    doing(move |arm: Arm| {
        arm.during(call)?;
        let seen = at_place()?;
        unmount(PLACE)?;
        Ok(seen)
    })
}

/// A tmpfs at [`OTHER`], which is moved.
fn moved(arm: Arm, call: impl FnOnce() -> Result<(), Errno>) -> Result<String, Failed> {
    mount(Some("conform"), OTHER, Some("tmpfs"), MsFlags::empty(), NONE).step("mount, to make ready")?;
    let result = arm.during(call);
    let seen = at_place();
    unmount(if result.is_ok() { PLACE } else { OTHER }).step("umount")?;
    result?;
    Ok(seen?)
}

fn move_old() -> Result<Doing, Errno> {
    folders()?;
    doing(|arm: Arm| {
        moved(arm, || mount(Some(OTHER), PLACE, NONE, MsFlags::MS_MOVE, NONE).map_err(Errno::from))
    })
}

fn move_new() -> Result<Doing, Errno> {
    folders()?;
    doing(|arm: Arm| {
        moved(arm, || {
            let args = [HERE, c"/tmp/other".as_ptr().addr(), HERE, c"/tmp/place".as_ptr().addr(), 0, 0];
            // SAFETY: terminated strings and numbers.
            unsafe { syscall(libc::SYS_move_mount, args) }.map(drop)
        })
    })
}

/// `mount(2)` that makes a mount share what is mounted below it.
fn change_propagation() -> Result<Doing, Errno> {
    folders()?;
    bind()?;
    doing(|arm: Arm| {
        let change = |flag| mount(NONE, PLACE, NONE, flag, NONE);
        arm.during(|| change(MsFlags::MS_SHARED))?;
        let list = fs::read_to_string("/proc/self/mountinfo")?;
        let line = list.lines().find(|line| line.contains(" /tmp/place "));
        let shared = line.is_some_and(|line| line.contains(" shared:"));
        change(MsFlags::MS_PRIVATE).step("mount, to put back")?;
        Ok(if shared { "shared" } else { "not shared" }.to_owned())
    })
}

/// A tmpfs at [`PLACE`] that is made read-only and writable again.
fn read_only(change: fn(bool) -> Result<(), Failed>) -> Result<Doing, Errno> {
    folders()?;
    new()?;
    doing(move |arm: Arm| {
        let result = arm.during(|| change(true));
        let seen = statvfs(PLACE)?.flags().contains(FsFlags::ST_RDONLY);
        if seen {
            change(false)?;
        }
        result?;
        Ok(if seen { "read-only" } else { "writable" }.to_owned())
    })
}

fn flags_of(set: bool) -> MsFlags {
    MsFlags::MS_REMOUNT | if set { MsFlags::MS_RDONLY } else { MsFlags::empty() }
}

fn remount(set: bool) -> Result<(), Failed> {
    Ok(mount(NONE, PLACE, NONE, flags_of(set), NONE)?)
}

fn remount_bind(set: bool) -> Result<(), Failed> {
    Ok(mount(NONE, PLACE, NONE, MsFlags::MS_BIND | flags_of(set), NONE)?)
}

/// fspick(2), and fsconfig(2) twice.
fn reconfigure(set: bool) -> Result<(), Failed> {
    let args = [HERE, c"/tmp/place".as_ptr().addr(), 0, 0, 0, 0];
    // SAFETY: a terminated string and numbers.
    let context = owned(unsafe { syscall(libc::SYS_fspick, args) }.step("fspick")?);
    let flag = if set { c"ro" } else { c"rw" };
    // SAFETY: a descriptor, a terminated string and numbers.
    unsafe { syscall(libc::SYS_fsconfig, [index(&context), SET_FLAG, flag.as_ptr().addr(), 0, 0, 0]) }
        .step("fsconfig of the flag")?;
    // SAFETY: a descriptor and numbers.
    unsafe { syscall(libc::SYS_fsconfig, [index(&context), RECONFIGURE, 0, 0, 0, 0]) }
        .step("fsconfig to reconfigure")?;
    Ok(())
}

/// `struct mount_attr`: what to set, what to clear, propagation, a user namespace.
fn attributes(set: bool) -> [u64; 4] {
    if set { [READ_ONLY, 0, 0, 0] } else { [0, READ_ONLY, 0, 0] }
}

fn set_attributes(set: bool) -> Result<(), Failed> {
    let attributes = attributes(set);
    let args = [HERE, c"/tmp/place".as_ptr().addr(), 0, attributes.as_ptr().addr(), 32, 0];
    // SAFETY: a terminated string, numbers, and a structure with its size.
    unsafe { syscall(libc::SYS_mount_setattr, args) }?;
    Ok(())
}

/// fsopen(2), fsconfig(2), fsmount(2): a new tmpfs that has no place.
fn made_of_context() -> Result<OwnedFd, Failed> {
    // SAFETY: a terminated string and numbers.
    let context = owned(
        unsafe { syscall(libc::SYS_fsopen, [c"tmpfs".as_ptr().addr(), 1, 0, 0, 0, 0]) }.step("fsopen")?,
    );
    // SAFETY: numbers.
    unsafe { syscall(libc::SYS_fsconfig, [index(&context), CREATE, 0, 0, 0, 0]) }
        .step("fsconfig to create")?;
    // SAFETY: numbers.
    Ok(owned(unsafe { syscall(libc::SYS_fsmount, [index(&context), 1, 0, 0, 0, 0]) }.step("fsmount")?))
}

fn open_tree(flags: usize) -> Result<OwnedFd, Failed> {
    let args = [HERE, c"/tmp/folder".as_ptr().addr(), flags, 0, 0, 0];
    // SAFETY: a terminated string and numbers.
    Ok(owned(unsafe { syscall(libc::SYS_open_tree, args) }.step("open_tree")?))
}

fn cloned() -> Result<OwnedFd, Failed> {
    open_tree(CLONE)
}

fn cloned_into_namespace() -> Result<OwnedFd, Failed> {
    open_tree(NAMESPACE)
}

/// open_tree_attr(2), which changes the mount that it makes.
fn cloned_read_only() -> Result<OwnedFd, Failed> {
    let attributes = attributes(true);
    let path = c"/tmp/folder".as_ptr().addr();
    // SAFETY: a terminated string, numbers, and a structure with its size.
    let tree = unsafe { syscall(SYS_OPEN_TREE_ATTR, [HERE, path, CLONE, attributes.as_ptr().addr(), 32, 0]) };
    Ok(owned(tree?))
}

/// A mount that nobody finds by a path.
fn detached(make: fn() -> Result<OwnedFd, Failed>, gives: &'static str) -> Result<Doing, Errno> {
    folders()?;
    doing(move |arm: Arm| arm.during(make).map(|_| gives.to_owned()))
}

/// The same, and move_mount(2).
fn placed(make: fn() -> Result<OwnedFd, Failed>) -> Result<Doing, Errno> {
    folders()?;
    doing(move |arm: Arm| {
        arm.during(|| {
            let mount = make()?;
            let target = c"/tmp/place".as_ptr().addr();
            let args = [index(&mount), c"".as_ptr().addr(), HERE, target, FROM_DESCRIPTOR, 0];
            // SAFETY: descriptors, terminated strings, numbers.
            unsafe { syscall(libc::SYS_move_mount, args) }.step("move_mount").map(drop)
        })?;
        let seen = at_place()?;
        unmount(PLACE)?;
        Ok(seen)
    })
}
