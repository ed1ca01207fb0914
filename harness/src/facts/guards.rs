//! Which items a kernel's configuration can leave out: that one of them is missing says nothing about the version.
//!
//! An absence counts as "this version has it not" only for what is compiled whenever the bpf LSM is. Patterns are globs
//! over names; the option is the one whose `#ifdef` or Makefile line the definition stands behind.

use super::Kind;
use globset::Glob;
use std::sync::LazyLock;

/// Kind, names, option. Read in the kernel's sources: 6.12 and 6.18 for kfuncs (the file in which each set is
/// registered, and its Makefile), 6.12 `include/linux/lsm_hook_defs.h` for hooks, 6.17 `bpf_base_func_proto` for helpers.
/// With `=y` what may also be a module, whose functions are not in the BTF of the kernel itself.
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
    (Kind::Kfunc, "bpf_*sock*", "CONFIG_NET"),
    (Kind::Kfunc, "bpf_dynptr_from_skb", "CONFIG_NET"),
    (Kind::Kfunc, "bpf_kfunc_call_*", "CONFIG_NET"),
    (Kind::Kfunc, "bpf_modify_return_test*", "CONFIG_NET"),
    (Kind::Kfunc, "bpf_fentry_test*", "CONFIG_NET"),
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
    (Kind::Helper, "bpf_get_cgroup_classid", "CONFIG_CGROUP_NET_CLASSID"),
];

/// Options that another one brings with it: what shows the first shows the second. `BPF_LSM` itself depends on
/// `BPF_EVENTS` and `BPF_SYSCALL` (kernel/bpf/Kconfig; 5.7 init/Kconfig), so that these excuse nothing.
pub const IMPLIED: &[(&str, &str)] =
    &[("CONFIG_SECURITY_NETWORK", "CONFIG_NET"), ("CONFIG_SECURITY_NETWORK_XFRM", "CONFIG_NET")];

/// The option without which a kernel of any version lacks the item; none where it is always there with the bpf LSM.
#[must_use]
pub fn guard(kind: Kind, name: &str) -> Option<&'static str> {
    static MATCHERS: LazyLock<Vec<(Kind, globset::GlobMatcher, &'static str)>> = LazyLock::new(|| {
        let matcher = |&(kind, pattern, option): &(Kind, &str, &'static str)| {
            Some((kind, Glob::new(pattern).ok()?.compile_matcher(), option))
        };
        GUARDS.iter().filter_map(matcher).collect()
    });
    let found = MATCHERS.iter().find(|(of, matcher, _)| *of == kind && matcher.is_match(name));
    found.map(|(.., option)| *option)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Kind::Kfunc, "hid_bpf_get_data", Some("CONFIG_HID_BPF"))]
    #[case(Kind::Kfunc, "bpf_iter_scx_dsq_new", Some("CONFIG_SCHED_CLASS_EXT"))]
    #[case(Kind::Kfunc, "bpf_dynptr_size", None)]
    #[case(Kind::Hook, "path_mkdir", Some("CONFIG_SECURITY_PATH"))]
    #[case(Kind::Hook, "file_open", None)]
    #[case(Kind::Hook, "watch_key", Some("CONFIG_KEY_NOTIFICATIONS"))]
    #[case(Kind::Hook, "bpf_map", None)]
    #[case(Kind::Helper, "path_mkdir", None)]
    fn names_have_guards(#[case] kind: Kind, #[case] name: &str, #[case] expected: Option<&str>) {
        assert_eq!(guard(kind, name), expected);
    }

    #[test]
    fn every_pattern_is_a_glob() {
        for (_, pattern, option) in GUARDS {
            assert!(Glob::new(pattern).is_ok() && option.starts_with("CONFIG_"), "{pattern}");
        }
    }
}
