//! Open files and mappings.

use super::{Expect, Hook, OF_FILE, Read, int, void};
use crate::triggers::{compat, files, known, memory, names};

pub(super) const HOOKS: &[Hook] = &[
    int("file_open", files::open, "fs/open.c", "do_dentry_open")
        .known("file", OF_FILE, || known::inode("/tmp/opened")),
    int("file_post_open", files::open, "fs/namei.c", "do_open").number("mask", 4),
    // Not to be attached to from 6.19 on: kernel/bpf/bpf_lsm.c, bpf_lsm_disabled_hooks.
    int("file_alloc_security", files::open, "fs/file_table.c", "init_file"),
    int("file_permission", files::read, "fs/read_write.c", "rw_verify_area").number("mask", 4),
    int("file_ioctl", files::ioctl, "fs/ioctl.c", "SYSCALL_DEFINE3(ioctl)").number("cmd", FIOCLEX),
    int("file_ioctl_compat", compat::ioctl, "fs/ioctl.c", "COMPAT_SYSCALL_DEFINE3(ioctl)")
        .number("cmd", FIOCLEX),
    int("file_lock", files::flock, "fs/locks.c", "SYSCALL_DEFINE2(flock)").number("cmd", libc::F_WRLCK),
    int("file_fcntl", files::getfl, "fs/fcntl.c", "SYSCALL_DEFINE3(fcntl)").number("cmd", libc::F_GETFL),
    int("file_truncate", files::ftruncate, "fs/open.c", "do_ftruncate")
        .known("file", OF_FILE, || known::inode("/tmp/cut")),
    int("file_receive", files::pidfd_getfd, "fs/file.c", "receive_fd")
        .known("file", OF_FILE, || known::inode("/tmp/received")),
    // The signal is not delivered if it is denied: the kernel asks nobody who could be told.
    int("file_send_sigiotask", files::signal_io, "fs/fcntl.c", "sigio_perm").number("sig", libc::SIGUSR2),
    void("file_set_fowner", files::setown, "fs/fcntl.c", "__f_setown")
        .known("file", OF_FILE, || known::inode("/tmp/owned")),
    void("file_release", files::close, "fs/file_table.c", "__fput")
        .known("file", OF_FILE, || known::inode("/tmp/closed")),
    void("file_free_security", files::close, "fs/file_table.c", "file_free")
        .known("file", OF_FILE, || known::inode("/tmp/closed")),
    int("mmap_file", memory::mmap_file, "mm/util.c", "vm_mmap_pgoff").argument(
        "reqprot",
        Read::Int,
        Expect::Is(PROT_READ),
    ),
    int("mmap_addr", memory::mmap_anonymous, "mm/mmap.c", "__get_unmapped_area"),
    int("file_mprotect", memory::mprotect, "mm/mprotect.c", "do_mprotect_pkey").argument(
        "reqprot",
        Read::Int,
        Expect::Is(PROT_READ),
    ),
    int("inode_init_security_anon", memory::userfaultfd, "fs/anon_inodes.c", "anon_inode_make_secure_inode")
        .text_at("name", "qstr.name", "[userfaultfd]"),
    int("inode_alloc_security", names::create, "fs/inode.c", "inode_init_always_gfp"),
    void("inode_free_security", names::unlink, "fs/inode.c", "__destroy_inode"),
];

const FIOCLEX: i32 = 0x5451;
const PROT_READ: u64 = 1;
