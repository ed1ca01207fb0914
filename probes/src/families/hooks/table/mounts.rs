//! File systems and mounts.

use super::{Expect, Hook, OF_DENTRY, OF_PATH, Read, int, void};
use crate::triggers::{known, mounts, nfs};

/// include/uapi/linux/magic.h: TMPFS_MAGIC.
const TMPFS: u64 = 0x0102_1994;
const MAGIC: &str = "super_block.s_magic";

pub(super) const HOOKS: &[Hook] = &[
    int("sb_alloc_security", mounts::new_mount, "fs/super.c", "alloc_super"),
    // A super block goes in a work queue, a grace period after the last reference.
    void("sb_free_security", mounts::free_super_block, "fs/super.c", "destroy_super_work")
        .object(0, MAGIC)
        .member("sb", "super_block.s_blocksize", 1024),
    int("sb_set_mnt_opts", mounts::new_mount, "fs/super.c", "vfs_get_tree").member("sb", MAGIC, TMPFS),
    int("sb_kern_mount", mounts::new_mount, "fs/namespace.c", "do_new_mount_fc").member("sb", MAGIC, TMPFS),
    int("sb_mount", mounts::new_mount, "fs/namespace.c", "path_mount").text("type", "tmpfs"),
    int("sb_remount", mounts::remount, "fs/super.c", "reconfigure_super").member("sb", MAGIC, TMPFS),
    int("sb_umount", mounts::detach_mount, "fs/namespace.c", "do_umount").number("flags", libc::MNT_DETACH),
    void("sb_delete", mounts::end_mount, "fs/super.c", "generic_shutdown_super").member("sb", MAGIC, TMPFS),
    int("sb_statfs", mounts::stat_fs, "fs/statfs.c", "statfs_by_dentry")
        .known("dentry", OF_DENTRY, || known::inode("/tmp")),
    // Once for each mount.
    int("sb_show_options", mounts::list_mounts, "fs/proc_namespace.c", "show_sb_opts")
        .uncounted()
        .member("sb", MAGIC, TMPFS),
    int("sb_eat_lsm_opts", mounts::new_mount, "fs/fs_context.c", "vfs_parse_monolithic_sep")
        .text("orig", "size=64k"),
    // Up to 5.17 SELinux keeps its options without a policy too; the mount fails for want of one, and they go with its
    // context.
    void("sb_free_mnt_opts", mounts::labelled_mount, "fs/fs_context.c", "put_fs_context")
        .read_in("5.17")
        .asked_before_selinux(),
    int("sb_pivotroot", mounts::exchange_root, "fs/namespace.c", "SYSCALL_DEFINE2(pivot_root)"),
    int("move_mount", mounts::place_mount, "fs/namespace.c", "SYSCALL_DEFINE5(move_mount)").known(
        "to_path",
        OF_PATH,
        || known::inode("/tmp/mounted"),
    ),
    // An int hook that is not 0 without a program: -ENOPARAM.
    int("fs_context_parse_param", mounts::new_mount, "fs/fs_context.c", "vfs_parse_fs_param").text_at(
        "param",
        "fs_parameter.key",
        "source",
    ),
    // Of what mounts by itself, only tracefs in debugfs needs no module; it does so in another way before 6.15.
    int("fs_context_submount", nfs::crossing_or_automount, "fs/fs_context.c", "fs_context_for_submount")
        .read_in("7.3")
        .known("reference", MAGIC, nfs::crossed)
        .partial_where(nfs::WITHOUT_NFS),
    int("quotactl", mounts::write_quotas, "fs/quota/quota.c", "quota_sync_all").argument(
        "cmds",
        Read::Int,
        Expect::Is(0x80_0001),
    ),
];
