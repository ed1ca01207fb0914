//! Names in directories, and mounts.

use super::{Hook, int, void};
use crate::triggers::{mounts, names};

pub(super) const HOOKS: &[Hook] = &[
    int("inode_create", names::create, "fs/namei.c", "may_o_create"),
    int("inode_mkdir", names::mkdir, "fs/namei.c", "vfs_mkdir"),
    int("inode_rmdir", names::rmdir, "fs/namei.c", "vfs_rmdir"),
    int("inode_unlink", names::unlink, "fs/namei.c", "vfs_unlink"),
    int("inode_symlink", names::make_symlink, "fs/namei.c", "vfs_symlink"),
    int("inode_link", names::link, "fs/namei.c", "vfs_link"),
    int("inode_mknod", names::make_fifo, "fs/namei.c", "vfs_mknod"),
    int("inode_rename", names::rename, "fs/namei.c", "vfs_rename"),
    int("inode_readlink", names::readlink, "fs/stat.c", "do_readlinkat"),
    int("inode_follow_link", names::follow, "fs/namei.c", "pick_link"),
    // An int hook that is not 0 without a program: -EOPNOTSUPP.
    int("inode_init_security", names::create, "mm/shmem.c", "shmem_mknod"),
    void("inode_post_create_tmpfile", names::tmpfile, "fs/namei.c", "vfs_tmpfile"),
    void("d_instantiate", names::mkdir, "fs/dcache.c", "d_instantiate"),
    int("path_mkdir", names::mkdir, "fs/namei.c", "do_mkdirat"),
    int("path_rmdir", names::rmdir, "fs/namei.c", "do_rmdir"),
    int("path_unlink", names::unlink, "fs/namei.c", "do_unlinkat"),
    int("path_symlink", names::make_symlink, "fs/namei.c", "do_symlinkat"),
    int("path_link", names::link, "fs/namei.c", "do_linkat"),
    int("path_mknod", names::make_fifo, "fs/namei.c", "do_mknodat"),
    void("path_post_mknod", names::mknod_file, "fs/namei.c", "do_mknodat"),
    int("path_rename", names::rename, "fs/namei.c", "do_renameat2"),
    // One call for the directory and one for each of its files, of which there are as many as controllers bring.
    int("kernfs_init_security", names::mkdir_cgroup, "fs/kernfs/dir.c", "__kernfs_new_node").uncounted(),
    int("sb_alloc_security", mounts::new_mount, "fs/super.c", "alloc_super"),
    int("sb_set_mnt_opts", mounts::new_mount, "fs/super.c", "vfs_get_tree"),
    int("sb_kern_mount", mounts::new_mount, "fs/namespace.c", "do_new_mount_fc"),
    int("sb_mount", mounts::new_mount, "fs/namespace.c", "path_mount"),
    int("sb_remount", mounts::remount, "fs/super.c", "reconfigure_super"),
    int("sb_umount", mounts::end_mount, "fs/namespace.c", "do_umount"),
    void("sb_delete", mounts::end_mount, "fs/super.c", "generic_shutdown_super"),
    int("sb_statfs", mounts::stat_fs, "fs/statfs.c", "statfs_by_dentry"),
    // An int hook that is not 0 without a program: -ENOPARAM.
    int("fs_context_parse_param", mounts::new_mount, "fs/fs_context.c", "vfs_parse_fs_param"),
];
