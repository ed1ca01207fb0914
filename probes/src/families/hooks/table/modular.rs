//! Hooks for which the kernels at hand need a module: overlays, caches, SCTP, tunnels, loops and what is made of them,
//! packet labels, IPsec.
//!
//! Debian's packages of 6.19, 7.0 and 7.1 that hold modules have left the archive, so nothing here fires there.

use super::bare::{int, void};
use super::{Expect, Hook, Read};
use crate::triggers::{cachefiles, devices, known, mapper, nftables, overlay, quota, sockets, verity, xfrm};

const INET: u64 = libc::AF_INET.cast_unsigned() as u64;
const OF_SOCK: &str = "sock.__sk_common.skc_family";
/// include/uapi/linux/in.h: IPPROTO_ESP, IPPROTO_AH.
const ESP: u64 = 50;
const AH: u64 = 51;

pub(super) const HOOKS: &[Hook] = &[
    int("inode_copy_up", overlay::copy_up, "fs/overlayfs/copy_up.c", "ovl_prep_cu_creds")
        .with_files()
        .read_in("6.12"),
    int("inode_copy_up_xattr", overlay::copy_up_attribute, "fs/overlayfs/copy_up.c", "ovl_copy_xattr")
        .with_files()
        .read_in("6.1")
        .passing(-libc::EOPNOTSUPP)
        .text("name", "trusted.conform"),
    int("dentry_create_files_as", overlay::create, "fs/overlayfs/dir.c", "ovl_setup_cred_for_create")
        .with_files()
        .read_in("6.12")
        .text_at("name", "qstr.name", "created"),
    // 7.0, and 6.12 by a later addition.
    int("backing_file_alloc", overlay::open_and_read, "fs/file_table.c", "init_backing_file")
        .with_files()
        .read_in("7.3"),
    void("backing_file_free", overlay::close, "fs/file_table.c", "backing_file_free")
        .with_files()
        .read_in("7.3"),
    int("mmap_backing_file", overlay::map, "fs/backing-file.c", "backing_file_mmap")
        .with_files()
        .read_in("7.3")
        .known("user_file", super::OF_FILE, || known::inode("/tmp/merged/read")),
    int("sctp_assoc_request", sockets::ask_sctp, "net/sctp/sm_statefuns.c", "sctp_sf_do_5_1B_init")
        .object(1, "sk_buff.protocol"),
    int("sctp_assoc_established", sockets::ask_sctp, "net/sctp/sm_statefuns.c", "sctp_sf_do_5_1E_ca")
        .object(1, "sk_buff.protocol"),
    int("sctp_bind_connect", sockets::bind_more, "net/sctp/socket.c", "sctp_setsockopt_bindx")
        .number("optname", 100),
    void("sctp_sk_clone", sockets::connect_sctp, "net/sctp/socket.c", "sctp_copy_sock")
        .member("newsk", OF_SOCK, INET),
    int("tun_dev_create", devices::new_tunnel, "drivers/net/tun.c", "tun_set_iff"),
    int("tun_dev_alloc_security", devices::new_tunnel, "drivers/net/tun.c", "tun_net_init"),
    void("tun_dev_free_security", devices::end_tunnel, "drivers/net/tun.c", "tun_free_netdev").read_in("6.0"),
    int("tun_dev_attach", devices::second_queue, "drivers/net/tun.c", "tun_attach"),
    int("tun_dev_open", devices::second_queue, "drivers/net/tun.c", "tun_set_iff"),
    int("tun_dev_attach_queue", devices::queue_again, "drivers/net/tun.c", "tun_set_queue"),
    int("bdev_alloc_security", devices::new_loop, "block/bdev.c", "bdev_alloc_inode").with_files(),
    // Called for a device with which a module keeps something, as IPE alone does (7.3 security/ipe/ipe.c, ipe_blobs).
    void("bdev_free_security", devices::end_loop, "security/security.c", "security_bdev_free")
        .with_files()
        .beside_ipe()
        .object(0, "block_device.bd_dev"),
    int("bdev_setintegrity", mapper::begin_verity, "drivers/md/dm-verity-target.c", "verity_preresume")
        .with_files()
        .number("type", 1),
    // From 7.3 on it is told when the file is sealed already, and what it says is logged (fs/verity/signature.c,
    // fsverity_report_valid_sig).
    int("inode_setintegrity", verity::seal_signed, "fs/verity/signature.c", "fsverity_verify_signature")
        .with_files()
        .number("size", verity::SIGNATURE_SIZE),
    int(
        "kernel_create_files_as",
        cachefiles::bind,
        "fs/cachefiles/security.c",
        "cachefiles_determine_cache_security",
    )
    .with_files()
    .known("inode", "inode.i_ino", || known::inode(cachefiles::FOLDER)),
    int("kernel_act_as", cachefiles::bind_labelled, "fs/cachefiles/security.c", "cachefiles_get_security_ID")
        .with_files(),
    int("quota_on", quota::switch_on, "fs/quota/dquot.c", "dquot_quota_on").with_files().text_at(
        "dentry",
        super::NAME,
        "aquota.user",
    ),
    int(
        "secmark_relabel_packet",
        nftables::label_packets,
        "net/netfilter/nft_meta.c",
        "nft_secmark_compute_secid",
    ),
    void("secmark_refcount_inc", nftables::label_packets, "net/netfilter/nft_meta.c", "nft_secmark_obj_init"),
    void("secmark_refcount_dec", nftables::end, "net/netfilter/nft_meta.c", "nft_secmark_obj_destroy")
        .anyone(),
    int("xfrm_policy_alloc_security", xfrm::add_policy, "net/xfrm/xfrm_user.c", "copy_from_user_sec_ctx")
        .member("sec_ctx", "xfrm_user_sec_ctx.ctx_len", 8),
    // Called while a connection comes in, on whatever task's back.
    int("xfrm_policy_clone_security", xfrm::accept, "net/xfrm/xfrm_policy.c", "clone_policy").anyone(),
    // Up to 7.1 what is thrown away goes at once, from 7.2 on after a grace period, in whatever task that falls.
    void("xfrm_policy_free_security", xfrm::add_policy_again, "net/xfrm/xfrm_user.c", "xfrm_add_policy")
        .anyone()
        .uncounted(),
    int(
        "xfrm_policy_delete_security",
        xfrm::remove_policy,
        "net/xfrm/xfrm_policy.c",
        "xfrm_policy_bysel_ctx",
    ),
    int("xfrm_policy_lookup", xfrm::send_allowed, "net/xfrm/xfrm_policy.c", "xfrm_policy_match").uncounted(),
    int("xfrm_state_alloc_acquire", xfrm::send_encrypted, "net/xfrm/xfrm_state.c", "xfrm_state_find"),
    int("xfrm_state_alloc", xfrm::add_state, "net/xfrm/xfrm_user.c", "xfrm_state_construct").member(
        "sec_ctx",
        "xfrm_user_sec_ctx.ctx_len",
        8,
    ),
    // Its default is 1, a match. 0 leaves it at that, and all else that a program may return counts as 1: none can say
    // that there is no match.
    int("xfrm_state_pol_flow_match", xfrm::send_signed, "net/xfrm/xfrm_state.c", "xfrm_state_look_at")
        .values(&[1, -1])
        .member("x", "xfrm_state.id.proto", AH),
    int("xfrm_state_delete_security", xfrm::remove_state, "net/xfrm/xfrm_user.c", "xfrm_del_sa").member(
        "x",
        "xfrm_state.id.proto",
        ESP,
    ),
    void("xfrm_state_free_security", xfrm::end_state, "net/xfrm/xfrm_state.c", "___xfrm_state_destroy")
        .object(0, "xfrm_state.id.spi")
        .argument("x", Read::Member("xfrm_state.id.proto"), Expect::Is(ESP)),
];
