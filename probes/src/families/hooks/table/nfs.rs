//! Hooks that NFS alone makes the kernel call, its client in the trigger's process or its server in a thread of the kernel.
//!
//! The modules of Debian's kernels are there as those of `modular` are.

use super::{Hook, int};
use crate::triggers::nfs;

pub(super) const HOOKS: &[Hook] = &[
    int("fs_context_dup", nfs::mounting, "fs/nfs/nfs4super.c", "do_nfs4_mount").read_in("7.3").text_at(
        "fc",
        "fs_context.fs_type file_system_type.name",
        "nfs4",
    ),
    int("sb_clone_mnt_opts", nfs::crossing, "fs/nfs/getroot.c", "nfs_get_root").read_in("7.3").member(
        "oldsb",
        "super_block.s_magic",
        nfs::NFS,
    ),
    // How often the server is asked for what it supports is the client's business.
    int("inode_getsecctx", nfs::served, "fs/nfsd/nfs4xdr.c", "nfsd4_encode_fattr4")
        .read_in("7.3")
        .passing(-libc::EOPNOTSUPP)
        .object(0, "inode.i_ino")
        .uncounted()
        .mute_where(nfs::WITHOUT_LABELS),
    // From 6.12 on no program may attach.
    int("ismaclabel", nfs::labelling, "fs/nfs/nfs4proc.c", "nfs4_xattr_set_nfs4_label")
        .read_in("7.3")
        .values(&[1])
        .text("name", "conform")
        .mute_where(nfs::NO_LABEL),
];
