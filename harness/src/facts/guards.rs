//! Which items a kernel's configuration can leave out: that one of them is missing says nothing about the version.
//!
//! An absence counts as "this version has it not" only for what is compiled whenever the bpf LSM is. Patterns are globs
//! over names; the option is the one whose `#ifdef` or Makefile line the definition stands behind.

use super::Kind;
use globset::Glob;
use std::sync::LazyLock;

/// What is there in every build though a pattern below is about names like it: `path_notify` stands outside of the
/// `#ifdef` of the other hooks about paths (7.3 include/linux/lsm_hook_defs.h).
const ALWAYS: &[(Kind, &str)] = &[(Kind::Hook, "path_notify")];

/// Kind, names, option; the first that fits counts. Read in the kernel's sources: 6.12, 6.18 and 7.3 for kfuncs (the file in
/// which each set is registered, and its Makefile), 6.12 and 7.3 `include/linux/lsm_hook_defs.h` for hooks; for helpers 6.17
/// `bpf_base_func_proto` and, of 5.15, 6.0 and 7.3, `bpf_lsm_func_proto`, `tracing_prog_func_proto` and
/// `cgroup_common_func_proto`. With `=y` what may also be a module, whose functions are not in the BTF of the kernel itself;
/// ` && ` joins what is needed together.
const GUARDS: &[(Kind, &str, &str)] = &[
    (Kind::Kfunc, "hid_bpf_*", "CONFIG_HID_BPF"),
    (Kind::Kfunc, "*scx_*", "CONFIG_SCHED_CLASS_EXT"),
    (Kind::Kfunc, "bpf_get_fsverity_digest", "CONFIG_FS_VERITY"),
    (Kind::Kfunc, "bpf_iter_dmabuf_*", "CONFIG_DMA_SHARED_BUFFER"),
    (Kind::Kfunc, "crash_kexec", "CONFIG_KEXEC_CORE, from 6.9 on CONFIG_CRASH_DUMP"),
    (Kind::Kfunc, "bpf_*_key", "CONFIG_KEYS"),
    (Kind::Kfunc, "bpf_key_put", "CONFIG_KEYS"),
    (Kind::Kfunc, "bpf_verify_pkcs7_signature", "CONFIG_SYSTEM_DATA_VERIFICATION"),
    (Kind::Kfunc, "*mem_cgroup*", "CONFIG_MEMCG"),
    (Kind::Kfunc, "*cgroup*", "CONFIG_CGROUPS"),
    (Kind::Kfunc, "bpf_iter_css*", "CONFIG_CGROUPS"),
    (Kind::Kfunc, "css_rstat_*", "CONFIG_CGROUPS"),
    (Kind::Kfunc, "bpf_ksock_*", "CONFIG_INET"),
    (Kind::Kfunc, "tcp_reno_*", "CONFIG_INET"),
    (Kind::Kfunc, "tcp_slow_start", "CONFIG_INET"),
    (Kind::Kfunc, "tcp_cong_avoid_ai", "CONFIG_INET"),
    (Kind::Kfunc, "bpf_qdisc_*", "CONFIG_NET_SCH_BPF"),
    (Kind::Kfunc, "bpf_kfree_skb", "CONFIG_NET_SCH_BPF"),
    (Kind::Kfunc, "bpf_skb_get_hash", "CONFIG_NET_SCH_BPF"),
    (Kind::Kfunc, "bpf_wakeup_sources_*", "CONFIG_PM_SLEEP"),
    (Kind::Kfunc, "bpf_crypto_*", "CONFIG_CRYPTO"),
    (Kind::Kfunc, "bpf_*sock*", "CONFIG_NET"),
    (Kind::Kfunc, "bpf_dynptr_from_skb", "CONFIG_NET"),
    (Kind::Kfunc, "bpf_kfunc_call_*", "CONFIG_NET"),
    (Kind::Kfunc, "bpf_modify_return_test*", "CONFIG_NET"),
    (Kind::Kfunc, "bpf_fentry_test*", "CONFIG_NET"),
    (Kind::Kfunc, "bpf_ct_set_nat_info", "CONFIG_NF_NAT=y"),
    (Kind::Kfunc, "bpf_ct_*", "CONFIG_NF_CONNTRACK=y"),
    (Kind::Kfunc, "bpf_skb_ct_*", "CONFIG_NF_CONNTRACK=y"),
    (Kind::Kfunc, "bpf_xdp_ct_*", "CONFIG_NF_CONNTRACK=y"),
    (Kind::Kfunc, "bpf_xdp_flow_lookup", "CONFIG_NF_FLOW_TABLE=y"),
    (Kind::Kfunc, "bpf_skb_*_fou_encap", "CONFIG_NET_FOU=y"),
    (Kind::Kfunc, "bpf_skb_*_xfrm_info", "CONFIG_XFRM_INTERFACE=y"),
    (Kind::Kfunc, "bbr_*", "CONFIG_TCP_CONG_BBR=y"),
    (Kind::Kfunc, "dctcp_*", "CONFIG_TCP_CONG_DCTCP=y"),
    (Kind::Hook, "path_*", "CONFIG_SECURITY_PATH"),
    (Kind::Hook, "socket_*", "CONFIG_SECURITY_NETWORK"),
    (Kind::Hook, "sk_*", "CONFIG_SECURITY_NETWORK"),
    (Kind::Hook, "sock_*", "CONFIG_SECURITY_NETWORK"),
    (Kind::Hook, "inet_*", "CONFIG_SECURITY_NETWORK"),
    (Kind::Hook, "unix_find", "CONFIG_SECURITY_NETWORK && CONFIG_SECURITY_PATH"),
    (Kind::Hook, "unix_*", "CONFIG_SECURITY_NETWORK"),
    (Kind::Hook, "secmark_*", "CONFIG_SECURITY_NETWORK"),
    (Kind::Hook, "req_classify_flow", "CONFIG_SECURITY_NETWORK"),
    (Kind::Hook, "tun_dev_*", "CONFIG_SECURITY_NETWORK"),
    (Kind::Hook, "sctp_*", "CONFIG_SECURITY_NETWORK"),
    (Kind::Hook, "mptcp_*", "CONFIG_SECURITY_NETWORK"),
    (Kind::Hook, "ib_*", "CONFIG_SECURITY_INFINIBAND"),
    (Kind::Hook, "xfrm_*", "CONFIG_SECURITY_NETWORK_XFRM"),
    (Kind::Hook, "key_*", "CONFIG_KEYS"),
    (Kind::Hook, "audit_*", "CONFIG_AUDIT"),
    (Kind::Hook, "perf_event_*", "CONFIG_PERF_EVENTS"),
    (Kind::Hook, "uring_*", "CONFIG_IO_URING"),
    (Kind::Hook, "post_notification", "CONFIG_WATCH_QUEUE"),
    (Kind::Hook, "watch_key", "CONFIG_KEY_NOTIFICATIONS"),
    (Kind::Helper, "bpf_cgrp_storage_*", "CONFIG_CGROUPS"),
    (Kind::Helper, "bpf_get_current_cgroup_id", "CONFIG_CGROUPS"),
    (Kind::Helper, "bpf_get_current_ancestor_cgroup_id", "CONFIG_CGROUPS"),
    (Kind::Helper, "bpf_get_cgroup_classid", "CONFIG_CGROUP_NET_CLASSID"),
    (Kind::Helper, "bpf_get_local_storage", "CONFIG_CGROUP_BPF"),
    (Kind::Helper, "bpf_get_retval", "CONFIG_CGROUP_BPF"),
    (Kind::Helper, "bpf_set_retval", "CONFIG_CGROUP_BPF"),
    (Kind::Helper, "bpf_sk_storage_*", "CONFIG_NET"),
    (Kind::Helper, "bpf_skc_to_*", "CONFIG_NET"),
    (Kind::Helper, "bpf_skb_output", "CONFIG_NET"),
    (Kind::Helper, "bpf_xdp_output", "CONFIG_NET"),
    (Kind::Helper, "bpf_xdp_get_buff_len", "CONFIG_NET"),
    (Kind::Helper, "bpf_sock_from_file", "CONFIG_NET"),
    (Kind::Helper, "bpf_get_socket_cookie", "CONFIG_NET"),
    (Kind::Helper, "bpf_getsockopt", "CONFIG_NET"),
    (Kind::Helper, "bpf_setsockopt", "CONFIG_NET"),
];

/// How an option ends that may also be a module, see [`GUARDS`].
const BUILT_IN: &str = "=y";

/// Whether that the kernel's inventory of kfuncs lacks one is its version's doing: what may be in a module is said to be
/// absent only where the module is built in, and else it could not tell (`probes::families::kfuncs`, `MARKS`).
#[must_use]
pub fn tells_of_its_version(kind: Kind, option: &str) -> bool {
    kind == Kind::Kfunc && option.ends_with(BUILT_IN)
}

/// What joins options of which each is needed.
const AND: &str = " && ";

/// The probe that asks for options by what no program shows, a case for each, which is called as the option is.
pub const WITNESS: &str = "program/build";

/// Whether a fact of such a case is that of a kernel with the option: what is there, and a system call that a kernel without
/// it does not know.
#[must_use]
pub fn witnesses(said: &serde_json::Value) -> bool {
    said == "yes" || said == "EFAULT"
}

/// Options that another one brings with it: what shows the first shows the second. `BPF_LSM` itself depends on
/// `BPF_EVENTS` and `BPF_SYSCALL` (kernel/bpf/Kconfig; 5.7 init/Kconfig), so that these excuse nothing.
/// `SYSTEM_DATA_VERIFICATION` selects `CRYPTO` (5.15, 6.0, 7.3 init/Kconfig).
const IMPLIED: &[(&str, &str)] = &[
    ("CONFIG_SECURITY_NETWORK", "CONFIG_NET"),
    ("CONFIG_SECURITY_NETWORK_XFRM", "CONFIG_NET"),
    ("CONFIG_INET", "CONFIG_NET"),
    ("CONFIG_SYSTEM_DATA_VERIFICATION", "CONFIG_CRYPTO"),
];

/// The option without which a kernel of any version lacks the item, or keeps LSM programs from a helper; none where it is
/// always there with the bpf LSM.
#[must_use]
pub fn guard(kind: Kind, name: &str) -> Option<&'static str> {
    static MATCHERS: LazyLock<Vec<(Kind, globset::GlobMatcher, &'static str)>> = LazyLock::new(|| {
        let matcher = |&(kind, pattern, option): &(Kind, &str, &'static str)| {
            Some((kind, Glob::new(pattern).ok()?.compile_matcher(), option))
        };
        GUARDS.iter().filter_map(matcher).collect()
    });
    if ALWAYS.contains(&(kind, name)) {
        return None;
    }
    let found = MATCHERS.iter().find(|(of, matcher, _)| *of == kind && matcher.is_match(name));
    found.map(|(.., option)| *option)
}

/// The option that may be why a kernel has nothing of this name. Never of a helper: its number is there in every build
/// (include/uapi/linux/bpf.h), and what a build leaves out is refused, not absent.
#[must_use]
pub fn leaves_out(kind: Kind, name: &str) -> Option<&'static str> {
    guard(kind, name).filter(|_| kind != Kind::Helper)
}

/// The single options of one in [`guard`]'s words.
pub fn each(option: &'static str) -> impl Iterator<Item = &'static str> {
    option.split(AND)
}

/// What is on as well where `option` is.
pub fn brought(option: &str) -> impl Iterator<Item = &'static str> {
    IMPLIED.iter().filter(move |(by, _)| *by == option).map(|(_, brought)| *brought)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Kind::Kfunc, "hid_bpf_get_data", Some("CONFIG_HID_BPF"))]
    #[case(Kind::Kfunc, "bpf_ct_set_nat_info", Some("CONFIG_NF_NAT=y"))]
    #[case(Kind::Kfunc, "bpf_ct_set_status", Some("CONFIG_NF_CONNTRACK=y"))]
    #[case(Kind::Kfunc, "bpf_iter_scx_dsq_new", Some("CONFIG_SCHED_CLASS_EXT"))]
    #[case(Kind::Kfunc, "bpf_dynptr_size", None)]
    #[case(Kind::Hook, "path_mkdir", Some("CONFIG_SECURITY_PATH"))]
    #[case(Kind::Hook, "file_open", None)]
    #[case(Kind::Hook, "watch_key", Some("CONFIG_KEY_NOTIFICATIONS"))]
    #[case(Kind::Hook, "bpf_map", None)]
    #[case(Kind::Helper, "path_mkdir", None)]
    #[case::beside_the_ifdef(Kind::Hook, "path_notify", None)]
    #[case(Kind::Hook, "unix_find", Some("CONFIG_SECURITY_NETWORK && CONFIG_SECURITY_PATH"))]
    #[case(Kind::Hook, "unix_may_send", Some("CONFIG_SECURITY_NETWORK"))]
    #[case(Kind::Kfunc, "bpf_ksock_send", Some("CONFIG_INET"))]
    #[case(Kind::Kfunc, "bpf_sock_destroy", Some("CONFIG_NET"))]
    #[case(Kind::Kfunc, "tcp_slow_start", Some("CONFIG_INET"))]
    #[case(Kind::Kfunc, "bpf_qdisc_skb_drop", Some("CONFIG_NET_SCH_BPF"))]
    #[case(Kind::Kfunc, "bpf_kfree_skb", Some("CONFIG_NET_SCH_BPF"))]
    #[case(Kind::Kfunc, "bpf_wakeup_sources_get_head", Some("CONFIG_PM_SLEEP"))]
    #[case(Kind::Kfunc, "bpf_crypto_encrypt", Some("CONFIG_CRYPTO"))]
    #[case(Kind::Helper, "bpf_sk_storage_get", Some("CONFIG_NET"))]
    #[case(Kind::Helper, "bpf_get_retval", Some("CONFIG_CGROUP_BPF"))]
    #[case(Kind::Helper, "bpf_get_current_cgroup_id", Some("CONFIG_CGROUPS"))]
    #[case(Kind::Helper, "bpf_loop", None)]
    fn names_have_guards(#[case] kind: Kind, #[case] name: &str, #[case] expected: Option<&str>) {
        assert_eq!(guard(kind, name), expected);
    }

    #[test]
    fn every_pattern_is_a_glob() {
        for (_, pattern, option) in GUARDS {
            assert!(
                Glob::new(pattern).is_ok() && each(option).all(|it| it.starts_with("CONFIG_")),
                "{pattern}"
            );
        }
    }
}
