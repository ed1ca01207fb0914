//! Mounting, in the probe's own mount namespace.

use super::children::in_child;
use super::files::{index, owned};
use super::{Act, Arm, OK, Seen, act, act_seen, syscall};
use crate::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::statfs;
use std::fs;
use std::os::fd::OwnedFd;

const PATH: &str = "/tmp/mounted";

fn mount_tmpfs(flags: MsFlags) -> Result<(), Errno> {
    mount(Some("conform"), PATH, Some("tmpfs"), flags, Some("size=64k")).map_err(Errno::from)
}

fn unmount() -> Result<(), Errno> {
    umount2(PATH, MntFlags::empty()).map_err(Errno::from)
}

/// `mount(2)` of a new tmpfs with one option.
///
/// # Errors
/// The errno of making the directory.
pub fn new_mount() -> Result<Act, Errno> {
    fs::create_dir_all(PATH)?;
    act(|arm: Arm| {
        arm.during(|| mount_tmpfs(MsFlags::empty()))?;
        unmount()
    })
}

/// The same, with an option that is SELinux's: what its files are to be labelled.
///
/// # Errors
/// The errno of making the directory.
pub fn labelled_mount() -> Result<Act, Errno> {
    fs::create_dir_all(PATH)?;
    act_seen(|arm: Arm| {
        let labelled =
            || mount(Some("conform"), PATH, Some("tmpfs"), MsFlags::empty(), Some("context=conform"));
        match arm.during(labelled) {
            Err(nix::Error::EINVAL) => Ok(Seen("EINVAL: there is no policy")),
            other => other.map_err(Errno::from).and_then(|()| unmount()).map(|()| OK),
        }
    })
}

/// `mount(2)` that changes a tmpfs.
///
/// # Errors
/// The errno of making the directory or mounting.
pub fn remount() -> Result<Act, Errno> {
    fs::create_dir_all(PATH)?;
    mount_tmpfs(MsFlags::empty())?;
    act(|arm: Arm| arm.during(|| mount_tmpfs(MsFlags::MS_REMOUNT)))
}

/// `umount(2)`, after which the file system ends.
///
/// # Errors
/// The errno of making the directory.
pub fn end_mount() -> Result<Act, Errno> {
    fs::create_dir_all(PATH)?;
    act(|arm: Arm| {
        mount_tmpfs(MsFlags::empty())?;
        let result = arm.during(unmount);
        if result.is_err() {
            unmount()?;
        }
        result
    })
}

/// `umount2(2)` of a mount that is to go when nobody uses it any more.
///
/// # Errors
/// The errno of making the directory.
pub fn detach_mount() -> Result<Act, Errno> {
    fs::create_dir_all(PATH)?;
    act(|arm: Arm| {
        mount_tmpfs(MsFlags::empty())?;
        let result = arm.during(|| umount2(PATH, MntFlags::MNT_DETACH).map_err(Errno::from));
        if result.is_err() {
            unmount()?;
        }
        result
    })
}

/// `statfs(2)`.
///
/// # Errors
/// None.
pub fn stat_fs() -> Result<Act, Errno> {
    act(|arm: Arm| arm.during(|| statfs("/tmp").map_err(Errno::from)))
}

/// include/uapi/linux/mount.h: FSCONFIG_CMD_CREATE.
const CREATE: usize = 6;
/// The same: MOVE_MOUNT_F_EMPTY_PATH.
const FROM_DESCRIPTOR: usize = 4;
/// include/uapi/linux/fcntl.h: AT_FDCWD, as an argument.
const HERE: usize = usize::MAX - 99;

/// include/uapi/linux/magic.h: DEVPTS_SUPER_MAGIC.
const DEVPTS: u64 = 0x1cd1;

/// The end of a super block, some time after `umount(2)`. Names the kind of file system: devpts, each mount of which has
/// a super block of its own, and of which nobody else ends one. For nobody it is a tmpfs: a super block that ends late
/// would be taken for the next one. (Their devices tell them apart no better: a number is given again before the super
/// block that had it has ended.)
///
/// # Errors
/// The errno of making the directory.
pub fn free_super_block() -> Result<Act, Errno> {
    fs::create_dir_all(PATH)?;
    act(|arm: Arm| {
        let kind = if arm.is_idle() { "tmpfs" } else { "devpts" };
        mount(None::<&str>, PATH, Some(kind), MsFlags::empty(), None::<&str>)?;
        arm.freeing(DEVPTS, unmount)
    })
}

/// `read(2)` of the list of mounts, with their options.
///
/// # Errors
/// None.
pub fn list_mounts() -> Result<Act, Errno> {
    act(|arm: Arm| arm.during(|| fs::read("/proc/self/mounts").map_err(Errno::from)))
}

/// A new tmpfs that is not mounted anywhere: fsopen(2), fsconfig(2), fsmount(2).
fn detached() -> Result<OwnedFd, Errno> {
    // SAFETY: a terminated string and numbers.
    let context = owned(unsafe { syscall(libc::SYS_fsopen, [c"tmpfs".as_ptr().addr(), 1, 0, 0, 0, 0]) }?);
    // SAFETY: numbers.
    unsafe { syscall(libc::SYS_fsconfig, [index(&context), CREATE, 0, 0, 0, 0]) }?;
    // SAFETY: numbers.
    unsafe { syscall(libc::SYS_fsmount, [index(&context), 1, 0, 0, 0, 0]) }.map(owned)
}

/// `move_mount(2)` of a mount that has no place yet.
///
/// # Errors
/// The errno of making the directory.
pub fn place_mount() -> Result<Act, Errno> {
    fs::create_dir_all(PATH)?;
    act(|arm: Arm| {
        let mount = detached()?;
        let target = c"/tmp/mounted".as_ptr().addr();
        let args = [index(&mount), c"".as_ptr().addr(), HERE, target, FROM_DESCRIPTOR, 0];
        // SAFETY: descriptors, terminated strings, numbers.
        arm.during(|| unsafe { syscall(libc::SYS_move_mount, args) })?;
        drop(mount); // it would be busy
        unmount()
    })
}

/// `pivot_root(2)` in a child's own mount namespace, below a directory that it has made its root: the root of the
/// initramfs cannot be exchanged.
///
/// # Errors
/// The errno of making the directory.
pub fn exchange_root() -> Result<Act, Errno> {
    fs::create_dir_all(PATH)?;
    act(|arm: Arm| {
        in_child(|| {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount_tmpfs(MsFlags::empty())?;
            nix::unistd::chroot(PATH)?;
            nix::unistd::chdir("/")?;
            fs::create_dir("/inner")?;
            mount(Some("conform"), "/inner", Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
            fs::create_dir("/inner/outer")?;
            arm.during(|| nix::unistd::pivot_root("/inner", "/inner/outer").map_err(Errno::from))
        })
    })
}

/// `quotactl(2)` that writes the quotas of every file system, of which there are none.
///
/// # Errors
/// None.
pub fn write_quotas() -> Result<Act, Errno> {
    act(|arm: Arm| {
        let command = 0x80_0001_usize << 8; // include/uapi/linux/quota.h: QCMD(Q_SYNC, USRQUOTA)
        // SAFETY: no device, no address.
        arm.during(|| unsafe { syscall(libc::SYS_quotactl, [command, 0, 0, 0, 0, 0]) })
    })
}

/// `stat(2)` below `tracing` in debugfs, where the kernel mounts tracefs when somebody looks.
///
/// # Errors
/// The errno of making the directory.
pub fn automount() -> Result<Act, Errno> {
    let place = "/tmp/debug";
    fs::create_dir_all(place)?;
    act(move |arm: Arm| {
        mount(Some("debugfs"), place, Some("debugfs"), MsFlags::empty(), None::<&str>)?;
        let result = arm.during(|| nix::sys::stat::stat("/tmp/debug/tracing/README"));
        umount2(place, MntFlags::MNT_DETACH)?;
        result.map_err(Errno::from)
    })
}

/// `fsconfig(2)` with an option that no file system knows.
///
/// # Errors
/// The errno of opening a context for a tmpfs.
pub fn unknown_option() -> Result<Act, Errno> {
    // SAFETY: a terminated string and a number.
    let context = owned(unsafe { syscall(libc::SYS_fsopen, [c"tmpfs".as_ptr().addr(), 1, 0, 0, 0, 0]) }?);
    act_seen(move |arm: Arm| {
        let (name, value) = (c"conform".as_ptr().addr(), c"value".as_ptr().addr());
        let args = [index(&context), SET_STRING, name, value, 0, 0];
        // SAFETY: a descriptor, numbers, and two terminated strings.
        match arm.during(|| unsafe { syscall(libc::SYS_fsconfig, args) }) {
            Err(errno) if errno.raw() == libc::EINVAL => Ok(Seen("EINVAL: nobody knows it")),
            other => other.map(|_| OK),
        }
    })
}

/// include/uapi/linux/mount.h: FSCONFIG_SET_STRING.
const SET_STRING: usize = 1;
