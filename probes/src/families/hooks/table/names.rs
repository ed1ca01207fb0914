//! Names in directories.

use super::{Expect, Hook, NAME, Read, int, void};
use crate::triggers::{fuse, known, names};

pub(super) const HOOKS: &[Hook] = &[
    int("inode_create", names::create, "fs/namei.c", "may_o_create").text_at("dentry", NAME, "created"),
    int("inode_mkdir", names::mkdir, "fs/namei.c", "vfs_mkdir").text_at("dentry", NAME, "folder"),
    int("dentry_init_security", fuse::make_directory, "fs/fuse/dir.c", "get_security_context")
        .passing(-libc::EOPNOTSUPP)
        .partial_where(fuse::WITHOUT_CONTEXT)
        .text_at("name", "qstr.name", "made"),
    int("inode_rmdir", names::rmdir, "fs/namei.c", "vfs_rmdir").text_at("dentry", NAME, "folder"),
    int("inode_unlink", names::unlink, "fs/namei.c", "vfs_unlink").text_at("dentry", NAME, "unlinked"),
    int("inode_symlink", names::make_symlink, "fs/namei.c", "vfs_symlink").text("old_name", "elsewhere"),
    int("inode_link", names::link, "fs/namei.c", "vfs_link").text_at("new_dentry", NAME, "second"),
    int("inode_mknod", names::make_fifo, "fs/namei.c", "vfs_mknod").number("mode", FIFO),
    int("inode_rename", names::rename, "fs/namei.c", "vfs_rename").text_at("new_dentry", NAME, "new"),
    int("inode_readlink", names::readlink, "fs/stat.c", "do_readlinkat").text_at("dentry", NAME, "read-link"),
    int("inode_follow_link", names::follow, "fs/namei.c", "pick_link")
        .known("inode", "inode.i_ino", || known::inode_of_name("/tmp/followed")),
    // From 6.6 on its default is not 0 but -EOPNOTSUPP, which the kernel makes of a program's 0.
    int("inode_init_security", names::create, "mm/shmem.c", "shmem_mknod").text_at(
        "qstr",
        "qstr.name",
        "created",
    ),
    void("inode_post_create_tmpfile", names::tmpfile, "fs/namei.c", "vfs_tmpfile").argument(
        "inode",
        Read::Member("inode.i_mode"),
        Expect::Is(0o100_400),
    ),
    void("d_instantiate", names::mkdir, "fs/dcache.c", "d_instantiate").text_at("dentry", NAME, "folder"),
    int("path_mkdir", names::mkdir, "fs/namei.c", "do_mkdirat").text_at("dentry", NAME, "folder"),
    int("path_rmdir", names::rmdir, "fs/namei.c", "do_rmdir").text_at("dentry", NAME, "folder"),
    int("path_unlink", names::unlink, "fs/namei.c", "do_unlinkat").text_at("dentry", NAME, "unlinked"),
    int("path_symlink", names::make_symlink, "fs/namei.c", "do_symlinkat").text("old_name", "elsewhere"),
    int("path_link", names::link, "fs/namei.c", "do_linkat").text_at("old_dentry", NAME, "first"),
    int("path_mknod", names::make_fifo, "fs/namei.c", "do_mknodat").number("mode", FIFO),
    void("path_post_mknod", names::mknod_file, "fs/namei.c", "do_mknodat")
        .text_at("dentry", NAME, "ordinary"),
    int("path_rename", names::rename, "fs/namei.c", "do_renameat2").text_at("old_dentry", NAME, "old"),
    // One call for the directory and one for each of its files, of which there are as many as controllers bring.
    int("kernfs_init_security", names::mkdir_cgroup, "fs/kernfs/dir.c", "__kernfs_new_node").uncounted(),
];

/// What the recipe asks for: a fifo that its owner may read.
const FIFO: i32 = 0o010_400;
