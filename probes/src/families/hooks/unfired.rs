//! Why a hook does not fire: for each hook that no trigger reaches on some kernel of the matrix, what it would take.
//!
//! Each reason was checked against the kernels' source and configuration; where the source is named without a
//! version, it says the same in 6.12 and 7.3.

/// What it would take to make the kernel call `hook`, or why it never asks a BPF program; `None` where a trigger does,
/// or where nothing is known.
#[must_use]
pub fn reason(hook: &str) -> Option<&'static str> {
    REASONS.iter().find(|(hooks, _)| hooks.contains(&hook)).map(|(_, reason)| *reason)
}

const REASONS: &[(&[&str], &str)] = &[
    (
        &[
            "func_proto",
            "init",
            "find_cgroup_shim",
            "get_retval_range",
            "has_d_inode_locked",
            "hook_returns_errno",
            "is_sleepable_hook",
            "is_trusted",
            "verify_prog",
        ],
        "no hook: a function of kernel/bpf/bpf_lsm.c, security/bpf/hooks.c or include/linux/bpf_lsm.h that is named like one",
    ),
    (
        &["binder_set_context_mgr", "binder_transaction", "binder_transfer_binder", "binder_transfer_file"],
        "needs CONFIG_ANDROID_BINDERFS, which Debian's kernels lack and those built from source have (drivers/android/binder.c)",
    ),
    (
        &["ib_alloc_security", "ib_endport_manage_subnet", "ib_free_security", "ib_pkey_access"],
        "needs an InfiniBand device (drivers/infiniband/core/security.c)",
    ),
    (
        &["initramfs_populated"],
        "called once at boot, before user space is there (init/initramfs.c, do_populate_rootfs)",
    ),
    (
        &["inode_free_security_rcu"],
        "called after a grace period with a blob that bears no mark: a program cannot tell whose it was (6.12 \
         security/security.c, inode_free_by_rcu)",
    ),
    (
        &["fs_context_dup"],
        "called by NFS and, from 6.8 on, by btrfs at each mount (fs/nfs/nfs4super.c; 6.8 fs/btrfs/super.c, \
         btrfs_get_tree_subvol), which kernels built from source lack; Debian's have both as modules, and the packages of \
         some with them have left the archive",
    ),
    (
        &["fs_context_submount"],
        "up to 6.14 only network file systems and virtiofs mount that way (fs/fs_context.c, fs_context_for_submount), which \
         kernels built from source lack; later tracefs in debugfs does too (kernel/trace/trace.c, trace_automount)",
    ),
    (
        &["sb_clone_mnt_opts"],
        "called by NFS alone (fs/nfs/getroot.c, nfs_get_root), which kernels built from source lack; Debian's have it as \
         modules, and the packages of some with them have left the archive",
    ),
    (
        &["sb_mnt_opts_compat"],
        "called by NFS alone, and only where an option of a mount is some module's (fs/nfs/super.c, nfs_compare_super), as \
         of SELinux, which has no policy here, and of Smack, which Debian's kernels lack",
    ),
    (
        &["sb_add_mnt_opt"],
        "nothing calls security_add_mnt_opt (5.7 to 5.15 security/security.c), which would ask it",
    ),
    (
        &["sb_free_mnt_opts"],
        "called only if a module has kept options (security/security.c, security_free_mnt_opts), which a program cannot; \
         from 5.18 on SELinux, which has no policy here, keeps none (5.18 security/selinux/hooks.c, selinux_add_opt), and \
         Smack, which does, is in no lsm= of the suite",
    ),
    (
        &["inode_getsecctx"],
        "called by the NFS server alone (fs/nfsd/nfs4xdr.c, nfsd4_encode_fattr), which kernels built from source lack; \
         Debian's have it as a module, and the packages of some with it have left the archive",
    ),
    (
        &["inode_setsecctx", "inode_notifysecctx"],
        "called by NFS alone, its server and its client (fs/nfsd/vfs.c, fs/nfs/inode.c), where a module has labels: SELinux, \
         which has none without a policy, or Smack, which Debian's kernels lack. No program can say so, for 0 is not the \
         default of inode_getsecctx",
    ),
    (
        &["inode_invalidate_secctx"],
        "called by gfs2 and Ceph alone (fs/gfs2/glops.c, fs/ceph/super.h): needs their cluster",
    ),
    (
        &["ismaclabel"],
        "from 6.12 on no program may attach; before, only the clients of NFS and Ceph call it (fs/nfs/nfs4proc.c, \
         fs/ceph/xattr.c), which kernels built from source lack",
    ),
    (
        &["dentry_init_security"],
        "up to 5.16 it is called by NFS and Ceph alone (fs/nfs/nfs4proc.c, fs/ceph/xattr.c): needs a server that has labels",
    ),
    (
        &["inode_init_security"],
        "from 6.6 on called only where a module stores xattrs (security/security.c, security_inode_init_security), as SELinux, \
         Smack and, from 6.9 on, EVM do: not with the matrix's lsm= on 6.6 to 6.8. Where lsm= names selinux it is \
         (lsms/asked-middle)",
    ),
    (
        &["cred_getlsmprop", "cred_getsecid"],
        "IMA, without which Debian's 5.10 is built, asks up to 6.16 for the new credentials when a program is executed \
         (security/integrity/ima/ima_main.c, ima_bprm_check), by the newer of the two hooks where both are there; from 6.17 \
         on it asks for the task's own alone. Else cred_getsecid is called by binder (drivers/android/binder.c, \
         binder_transaction), which Debian's kernels lack",
    ),
    (
        &["path_chown", "socket_getpeersec_stream"],
        "up to 6.0 no program is accepted for a function with an argument that is a structure (5.19 kernel/bpf/btf.c, \
         btf_distill_func_proto): path_chown has two, kuid_t and kgid_t, and on 5.10 socket_getpeersec_stream has two, \
         sockptr_t",
    ),
    (
        &["kernel_act_as", "kernel_create_files_as"],
        "needs cachefiles, and the package with this kernel's modules has left Debian's archive. A kernel of 6.8 to 6.14 \
         that was built from sources without a file system that selects NETFS_SUPPORT (fs/netfs/Kconfig), which cannot be \
         asked for, lacks it too",
    ),
    (
        &[
            "inode_copy_up",
            "dentry_create_files_as",
            "backing_file_alloc",
            "backing_file_free",
            "mmap_backing_file",
            "sctp_assoc_request",
            "sctp_assoc_established",
            "sctp_bind_connect",
            "sctp_sk_clone",
            "tun_dev_create",
            "tun_dev_alloc_security",
            "tun_dev_attach",
            "tun_dev_open",
            "tun_dev_attach_queue",
            "bdev_alloc_security",
            "bdev_free_security",
            "bdev_setintegrity",
            "inode_setintegrity",
            "quota_on",
            "secmark_refcount_dec",
            "secmark_refcount_inc",
            "secmark_relabel_packet",
            "xfrm_policy_alloc_security",
            "xfrm_policy_clone_security",
            "xfrm_policy_delete_security",
            "xfrm_policy_free_security",
            "xfrm_policy_lookup",
            "xfrm_state_alloc",
            "xfrm_state_alloc_acquire",
            "xfrm_state_delete_security",
            "xfrm_state_free_security",
            "xfrm_state_pol_flow_match",
        ],
        "needs a module (overlay, sctp, tun, loop, dm-verity, nf_tables, ah4 or xfrm_user), and the package with \
         this kernel's modules has left Debian's archive",
    ),
    (
        &[
            "vm_enough_memory",
            "audit_rule_match",
            "file_alloc_security",
            "getprocattr",
            "inode_copy_up_xattr",
            "inode_getsecurity",
            "inode_listsecurity",
            "inode_need_killpriv",
            "key_getsecurity",
            "setprocattr",
            "xfrm_decode_session",
        ],
        "no program may attach to it there (kernel/bpf/bpf_lsm.c, bpf_lsm_disabled_hooks)",
    ),
];

#[cfg(test)]
mod tests {
    use super::{REASONS, reason};
    use std::collections::BTreeSet;

    #[test]
    fn a_hook_has_one_reason() {
        let mut seen = BTreeSet::new();
        for (hooks, why) in REASONS {
            for hook in *hooks {
                assert!(seen.insert(hook), "{hook} has two reasons");
                assert_eq!(reason(hook), Some(*why));
            }
        }
        assert_eq!(reason("file_open"), None);
    }
}
