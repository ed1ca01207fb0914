//! Open files, mappings and what is known of files.

use super::{Hook, int, void};
use crate::triggers::{files, inodes, memory, names, xattrs};

pub(super) const HOOKS: &[Hook] = &[
    int("file_open", files::open, "fs/open.c", "do_dentry_open"),
    int("file_post_open", files::open, "fs/namei.c", "do_open"),
    // Not to be attached to since 6.12: kernel/bpf/bpf_lsm.c, bpf_lsm_disabled_hooks of later versions says which.
    int("file_alloc_security", files::open, "fs/file_table.c", "init_file"),
    int("file_permission", files::read, "fs/read_write.c", "rw_verify_area"),
    int("file_ioctl", files::ioctl, "fs/ioctl.c", "SYSCALL_DEFINE3(ioctl)"),
    int("file_lock", files::flock, "fs/locks.c", "SYSCALL_DEFINE2(flock)"),
    int("file_fcntl", files::getfl, "fs/fcntl.c", "SYSCALL_DEFINE3(fcntl)"),
    int("file_truncate", files::ftruncate, "fs/open.c", "do_ftruncate"),
    int("file_receive", files::pidfd_getfd, "fs/file.c", "receive_fd"),
    void("file_set_fowner", files::setown, "fs/fcntl.c", "__f_setown"),
    void("file_release", files::close, "fs/file_table.c", "__fput"),
    void("file_free_security", files::close, "fs/file_table.c", "file_free"),
    int("mmap_file", memory::mmap_file, "mm/util.c", "vm_mmap_pgoff"),
    int("mmap_addr", memory::mmap_anonymous, "mm/mmap.c", "__get_unmapped_area"),
    int("file_mprotect", memory::mprotect, "mm/mprotect.c", "do_mprotect_pkey"),
    int("inode_init_security_anon", memory::userfaultfd, "fs/anon_inodes.c", "anon_inode_make_secure_inode"),
    int("inode_getattr", inodes::stat, "fs/stat.c", "vfs_getattr"),
    int("inode_setattr", inodes::chmod, "fs/attr.c", "notify_change"),
    void("inode_post_setattr", inodes::chmod, "fs/attr.c", "notify_change"),
    // Each part of a path is asked about, with and without RCU.
    int("inode_permission", inodes::check_access, "fs/namei.c", "inode_permission").uncounted(),
    int("inode_file_getattr", files::getflags, "fs/file_attr.c", "vfs_fileattr_get").read_in("7.1"),
    int("path_chmod", inodes::chmod, "fs/open.c", "chmod_common"),
    int("path_chown", inodes::change_owner, "fs/open.c", "chown_common"),
    int("path_truncate", inodes::cut, "fs/open.c", "vfs_truncate"),
    int("path_notify", inodes::watch, "fs/notify/inotify/inotify_user.c", "inotify_find_inode"),
    int("path_chroot", inodes::chroot, "fs/open.c", "SYSCALL_DEFINE1(chroot)"),
    int("inode_setxattr", xattrs::setxattr, "fs/xattr.c", "__vfs_setxattr_locked"),
    void("inode_post_setxattr", xattrs::setxattr, "fs/xattr.c", "__vfs_setxattr_noperm"),
    int("inode_getxattr", xattrs::getxattr, "fs/xattr.c", "vfs_getxattr"),
    int("inode_listxattr", xattrs::listxattr, "fs/xattr.c", "vfs_listxattr"),
    int("inode_removexattr", xattrs::removexattr, "fs/xattr.c", "__vfs_removexattr_locked"),
    int("inode_set_acl", xattrs::set_acl, "fs/posix_acl.c", "vfs_set_acl"),
    int("inode_xattr_skipcap", xattrs::without_capability, "security/security.c", "security_inode_setxattr")
        .values(&[1, -1]),
    int("inode_alloc_security", names::create, "fs/inode.c", "inode_init_always_gfp"),
    void("inode_free_security", names::unlink, "fs/inode.c", "__destroy_inode"),
];
