//! What is known of files: attributes, permissions, extended attributes, lists.

use super::{Expect, Hook, OF_DENTRY, OF_PATH, Read, int, void};
use crate::triggers::{files, inodes, known, xattrs};

/// Where the recipes in [`inodes`] and [`xattrs`] work.
const ATTRIBUTES: fn() -> Option<u64> = || known::inode("/tmp/attributes");
const EXTENDED: fn() -> Option<u64> = || known::inode("/tmp/extended");
const XATTR: &str = "trusted.conform";
const ACL: &str = "system.posix_acl_access";

pub(super) const HOOKS: &[Hook] = &[
    int("inode_getattr", inodes::stat, "fs/stat.c", "vfs_getattr").known("path", OF_PATH, ATTRIBUTES),
    int("inode_setattr", inodes::chmod, "fs/attr.c", "notify_change").known("dentry", OF_DENTRY, ATTRIBUTES),
    void("inode_post_setattr", inodes::chmod, "fs/attr.c", "notify_change")
        .known("dentry", OF_DENTRY, ATTRIBUTES),
    // Each part of a path is asked about, with and without RCU.
    int("inode_permission", inodes::check_access, "fs/namei.c", "inode_permission").uncounted().known(
        "inode",
        "inode.i_ino",
        ATTRIBUTES,
    ),
    int("inode_file_getattr", files::getflags, "fs/file_attr.c", "vfs_fileattr_get")
        .read_in("7.1")
        .known("dentry", OF_DENTRY, ATTRIBUTES),
    int("inode_file_setattr", files::setflags, "fs/file_attr.c", "vfs_fileattr_set")
        .read_in("7.1")
        .known("dentry", OF_DENTRY, ATTRIBUTES),
    int("path_chmod", inodes::chmod, "fs/open.c", "chmod_common").argument(
        "mode",
        Read::Int,
        Expect::Is(0o640),
    ),
    int("path_chown", inodes::change_owner, "fs/open.c", "chown_common").known("path", OF_PATH, ATTRIBUTES),
    int("path_truncate", inodes::cut, "fs/open.c", "vfs_truncate").known("path", OF_PATH, ATTRIBUTES),
    int("path_notify", inodes::watch, "fs/notify/inotify/inotify_user.c", "inotify_find_inode")
        .known("path", OF_PATH, ATTRIBUTES),
    int("path_chroot", inodes::chroot, "fs/open.c", "SYSCALL_DEFINE1(chroot)")
        .known("path", OF_PATH, || known::inode("/")),
    int("inode_setxattr", xattrs::setxattr, "fs/xattr.c", "__vfs_setxattr_locked").text("name", XATTR),
    void("inode_post_setxattr", xattrs::setxattr, "fs/xattr.c", "__vfs_setxattr_noperm").number("size", 5),
    int("inode_getxattr", xattrs::getxattr, "fs/xattr.c", "vfs_getxattr").text("name", XATTR),
    int("inode_listxattr", xattrs::listxattr, "fs/xattr.c", "vfs_listxattr")
        .known("dentry", OF_DENTRY, EXTENDED),
    int("inode_removexattr", xattrs::removexattr, "fs/xattr.c", "__vfs_removexattr_locked")
        .text("name", XATTR),
    void("inode_post_removexattr", xattrs::removexattr, "fs/xattr.c", "__vfs_removexattr_locked")
        .text("name", XATTR),
    int("inode_set_acl", xattrs::set_acl, "fs/posix_acl.c", "vfs_set_acl").text("acl_name", ACL),
    void("inode_post_set_acl", xattrs::set_acl, "fs/posix_acl.c", "vfs_set_acl").text("acl_name", ACL),
    int("inode_get_acl", xattrs::get_acl, "fs/posix_acl.c", "vfs_get_acl").text("acl_name", ACL),
    int("inode_remove_acl", xattrs::remove_acl, "fs/posix_acl.c", "vfs_remove_acl").text("acl_name", ACL),
    void("inode_post_remove_acl", xattrs::remove_acl, "fs/posix_acl.c", "vfs_remove_acl")
        .text("acl_name", ACL),
    // Attached to by no program from 6.12 on (kernel/bpf/bpf_lsm.c, bpf_lsm_disabled_hooks): this one and the next two.
    int("inode_need_killpriv", inodes::change_owner, "fs/attr.c", "notify_change").read_in("6.1"),
    int("inode_listsecurity", xattrs::list_unstored, "fs/xattr.c", "vfs_listxattr").read_in("6.1"),
    int("inode_getsecurity", xattrs::not_stored, "fs/xattr.c", "xattr_getsecurity")
        .read_in("6.1")
        .passing(EOPNOTSUPP)
        .text("name", "conform"),
    // A file system that stores no attributes: the name is offered to the modules instead.
    int("inode_setsecurity", xattrs::unstored, "fs/xattr.c", "__vfs_setxattr_noperm")
        .passing(EOPNOTSUPP)
        .text("name", "conform"),
    // Only for a file that has capabilities; without them a denial has nothing to be about.
    int("inode_killpriv", xattrs::strip_capabilities, "fs/attr.c", "setattr_prepare").known(
        "dentry",
        OF_DENTRY,
        || known::inode("/tmp/capable"),
    ),
    int("inode_xattr_skipcap", xattrs::without_capability, "security/security.c", "security_inode_setxattr")
        .values(&[1, -1])
        .text("name", "security.conform"),
];

/// What no module gives for a name that it does not know.
const EOPNOTSUPP: i32 = -libc::EOPNOTSUPP;
