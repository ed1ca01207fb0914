//! bpf among other LSMs: who is asked first, whose denial stops whom, and what the mere presence of bpf changes.
//!
//! The order of `lsm=` is an axis: the suite's usual one has bpf last; the others cost a boot each.

mod apparmor;
mod ima;
mod neighbours;
mod presence;

use super::hooks;
use crate::spec::{Probe, Source, source};

/// bpf before all others, one of which keeps something with block devices.
pub(crate) const FIRST: &str = "bpf,landlock,lockdown,yama,apparmor,ipe";
/// bpf and nothing else; what is always there comes besides (`lsms/order-alone`).
const ALONE: &str = "bpf";
/// bpf not at all. What remains is what is always there, lockdown, capability and from 6.9 on ima and evm
/// (`lsms/order-absent`), and Yama, which has four hooks (7.3 security/yama/yama_lsm.c, yama_hooks), of which only task_prctl
/// is asked here: to an option that it does not know it says what everybody says.
const ABSENT: &str = "yama";
/// bpf between others, with an exclusive one that has no policy.
pub(crate) const MIDDLE: &str = "landlock,yama,bpf,selinux,tomoyo";

/// The hooks with an inert program: taking the last one off costs a grace period.
pub const KEPT: &[&str] = &["task_getsid", "file_open", "ptrace_access_check", "capable", "locked_down"];

const CALL: Source = source("7.3", "security/security.c", "call_int_hook");
const ORDER: Source = source("6.1", "security/security.c", "ordered_lsm_init");
const BPF: Source = source("7.3", "security/bpf/hooks.c", "bpf_lsm_init");

/// The machines: the suffix of a probe's name, what it says of the order, and the order.
const MACHINES: [(&str, &str, Option<&str>); 5] = [
    ("last", "bpf last in lsm=", None),
    ("first", "bpf first in lsm=", Some(FIRST)),
    ("alone", "bpf alone but for what is always there", Some(ALONE)),
    ("middle", "bpf between others", Some(MIDDLE)),
    ("absent", "bpf absent from lsm=", Some(ABSENT)),
];

fn on(mut probe: Probe, order: Option<&str>) -> Probe {
    if let Some(order) = order {
        probe = probe.with_lsm(order);
    }
    probe
}

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    let mut all = Vec::new();
    for (suffix, words, order) in MACHINES {
        all.extend(everywhere(suffix, words, order));
    }
    for (suffix, words, order) in MACHINES.into_iter().take(2) {
        all.extend(beside_others(suffix, words, order));
    }
    all.push(on(
        Probe::new(
            "lsms/selinux-middle",
            "With bpf before selinux, is a program asked where selinux denies, and whose errno does user space see?",
            &[CALL, source("7.1", "security/selinux/hooks.c", "selinux_inode_setxattr")],
            neighbours::selinux,
        ),
        Some(MIDDLE),
    ));
    all.push(Probe::new(
        "lsms/asked-last",
        "With bpf last in lsm=, is a program run on the hooks that the family hooks asks about with bpf first in it, and is its denial seen?",
        &[CALL, source("6.8", "security/security.c", "security_getprocattr")],
        |session| {
            // AppArmor ends the asking of the last one too; what that changes can be seen beside SELinux alone.
            let names = [hooks::asked_first(), vec!["socket_getpeersec_dgram"]].concat();
            hooks::ask_on_this_machine(session, &names)
        },
    ));
    all.push(Probe::new(
        "lsms/ima-policy-of-a-file",
        "Can a program on kernel_read_file keep IMA from reading a policy from the file that it is given the name of, and is it asked about rules that are written directly?",
        &[
            source("7.3", "security/integrity/ima/ima_fs.c", "ima_read_policy"),
            source("7.3", "fs/kernel_read_file.c", "kernel_read_file"),
        ],
        ima::policy,
    ));
    all.push(on(
        Probe::new(
            "lsms/asked-middle",
            "With bpf before selinux, is a program run on hooks that the kernel calls only where a module labels files?",
            &[source("6.6", "security/security.c", "security_inode_init_security")],
            |session| hooks::ask_on_this_machine(session, &["inode_init_security"]),
        ),
        Some(MIDDLE),
    ));
    all.push(on(
        Probe::new(
            "lsms/asked-alone",
            "With bpf alone but for what is always there, is a program run on hooks that the kernel calls only where another module keeps or labels something, as with credentials (cred_prepare: one that it always calls)?",
            &[
                source("7.3", "security/security.c", "security_cred_free"),
                source("7.3", "kernel/audit.c", "audit_log_subj_ctx"),
                source("6.9", "kernel/auditfilter.c", "audit_filter"),
            ],
            |session| hooks::ask_on_this_machine(session, BESIDE_OTHERS),
        ),
        Some(ALONE),
    ));
    all
}

/// The hooks that fire on the suite's usual machine, or with bpf first, and not where bpf is alone, by asking all hooks there; and
/// one that does on both. Not those of packets' labels (`secmark_*`): without a module that knows a label there is no rule that labels,
/// and so no trigger.
const BESIDE_OTHERS: &[&str] =
    &["cred_free", "release_secctx", "lsmprop_to_secctx", "audit_rule_match", "cred_prepare"];

fn everywhere(suffix: &str, words: &str, order: Option<&'static str>) -> Vec<Probe> {
    vec![
        on(
            Probe::new(
                format!("lsms/order-{suffix}"),
                format!(
                    "With {words}, which LSMs do securityfs and lsm_list_modules(2) list, in which order?"
                ),
                &[ORDER, source("7.3", "security/lsm_syscalls.c", "lsm_list_modules"), BPF],
                presence::order,
            ),
            order,
        ),
        on(
            Probe::new(
                format!("lsms/fire-{suffix}"),
                format!("With {words}, do programs of both attach types load, attach, run and deny?"),
                &[BPF, CALL],
                presence::fire,
            ),
            order,
        ),
        on(
            Probe::new(
                format!("lsms/user-space-{suffix}"),
                format!(
                    "With {words} and no program attached but some that return 0 (the default of their hooks), what do calls answer that LSMs have a say in?"
                ),
                &[
                    BPF,
                    source("7.3", "security/security.c", "security_getprocattr"),
                    source("6.1", "security/security.c", "security_vm_enough_memory_mm"),
                ],
                presence::user_space,
            ),
            order,
        ),
    ]
}

fn beside_others(suffix: &str, words: &str, order: Option<&str>) -> Vec<Probe> {
    // Both come before whatever `lsm=` names: capability always (6.1 security/security.c, ordered_lsm_parse), lockdown as built
    // here (CONFIG_SECURITY_LOCKDOWN_LSM_EARLY). `lsms/order-first` has the order.
    let early = if suffix == "first" { "bpf first but for lockdown and capability" } else { words };
    let lockdown = on(
        Probe::new(
            format!("lsms/lockdown-{suffix}"),
            format!(
                "With {early}, is a program asked where lockdown denies, and whose errno does user space see?"
            ),
            &[CALL, source("7.3", "security/lockdown/lockdown.c", "lockdown_is_locked_down")],
            neighbours::lockdown,
        ),
        order,
    );
    // Lockdown cannot be taken back, and takes from those that follow, as modules without a signature.
    let lockdown = if order.is_none() { lockdown.own_machine() } else { lockdown.coming_last() };
    vec![
        on(
            Probe::new(
                format!("lsms/landlock-{suffix}"),
                format!(
                    "With {words}, is a program asked where landlock denies, and whose errno does user space see?"
                ),
                &[CALL, source("7.3", "security/landlock/fs.c", "hook_file_open")],
                neighbours::landlock,
            ),
            order,
        ),
        on(
            Probe::new(
                format!("lsms/apparmor-{suffix}"),
                format!(
                    "With {words}, is a program asked where apparmor denies, and whose errno does user space see?"
                ),
                &[CALL, source("7.1", "security/apparmor/lsm.c", "apparmor_file_open")],
                neighbours::apparmor,
            ),
            order,
        ),
        on(
            Probe::new(
                format!("lsms/yama-{suffix}"),
                format!(
                    "With {words}, is a program asked where yama denies, and whose errno does user space see?"
                ),
                &[CALL, source("7.3", "security/yama/yama_lsm.c", "yama_ptrace_access_check")],
                neighbours::yama,
            ),
            order,
        ),
        on(
            Probe::new(
                format!("lsms/capability-{suffix}"),
                format!("With {early}, is a program on capable asked where the capability is missing?"),
                &[CALL, source("7.3", "security/commoncap.c", "cap_capable")],
                neighbours::capability,
            ),
            order,
        ),
        lockdown,
    ]
}
