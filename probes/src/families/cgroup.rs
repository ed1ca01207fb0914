//! `BPF_LSM_CGROUP` (6.0): programs that act for the tasks of a cgroup.
//!
//! PID 1 keeps an inert program of `BPF_LSM_MAC` on the hooks of [`KEPT`]; detaching the last one of a hook costs a
//! grace period. Kernels before 6.0 refuse the attach type at load.

mod bench;
mod flags;
mod limits;
mod links;
mod network;
mod targets;
mod tasks;
mod verdicts;

use crate::spec::{Probe, Source, source};

/// The hooks with an inert program.
pub const KEPT: &[&str] =
    &["task_getsid", "task_getpgid", "file_open", "file_set_fowner", "socket_bind", "socket_create"];

const RUN: Source = source("7.3", "kernel/bpf/cgroup.c", "bpf_prog_run_array_cg");
const RUN_EARLIER: Source = source("6.1", "kernel/bpf/cgroup.c", "bpf_prog_run_array_cg");
const CURRENT: Source = source("7.3", "kernel/bpf/cgroup.c", "__cgroup_bpf_run_lsm_current");
const EFFECTIVE: Source = source("7.3", "kernel/bpf/cgroup.c", "compute_effective_progs");
const ATTACH: Source = source("7.3", "kernel/bpf/cgroup.c", "__cgroup_bpf_attach");
const HIERARCHY: Source = source("7.3", "kernel/bpf/cgroup.c", "hierarchy_allows_attach");
const RANGE: Source = source("6.1", "kernel/bpf/verifier.c", "check_return_code");
const SHIM: Source = source("7.3", "kernel/bpf/trampoline.c", "bpf_trampoline_link_cgroup_shim");
const FIND: Source = source("7.3", "kernel/bpf/bpf_lsm.c", "bpf_lsm_find_cgroup_shim");
const RETVAL: Source = source("7.3", "kernel/bpf/cgroup.c", "bpf_set_retval");
const LINK: Source = source("7.3", "kernel/bpf/cgroup.c", "bpf_cgroup_link_lops");

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    let mut all = verdict_probes();
    all.extend(retval_probes());
    all.extend(flag_probes());
    all.extend(task_probes());
    all.extend(link_probes());
    all.extend(limit_probes());
    all
}

fn verdict_probes() -> Vec<Probe> {
    vec![
        Probe::new(
            "cgroup/verdict",
            "What do 1 and 0 of a program of a cgroup mean to user space?",
            &[RUN, RUN_EARLIER, CURRENT],
            verdicts::one,
        ),
        Probe::new(
            "cgroup/verdict-range",
            "Which numbers may a program of a cgroup return on an int hook, and which on a void hook?",
            &[RANGE, source("7.3", "kernel/bpf/verifier.c", "check_return_code")],
            verdicts::range,
        ),
        Probe::new(
            "cgroup/two-programs",
            "With two programs on one cgroup, do both run, in which order, and must both grant?",
            &[RUN, RUN_EARLIER, EFFECTIVE],
            verdicts::two,
        ),
        Probe::new(
            "cgroup/ancestor-and-child",
            "With a program on a cgroup and one on its ancestor, do both run, in which order, and must both grant?",
            &[RUN, EFFECTIVE],
            verdicts::two_levels,
        ),
        Probe::new(
            "cgroup/three-levels",
            "With programs on three levels of cgroups, do all run, in which order, and must all grant?",
            &[RUN, EFFECTIVE],
            verdicts::three_levels,
        ),
        Probe::new(
            "cgroup/one-or-all",
            "Does one granting program suffice, or must every program of the task's cgroups grant?",
            &[RUN, RUN_EARLIER],
            verdicts::one_or_all,
        ),
        Probe::new(
            "cgroup/void-hook",
            "Does a program of a cgroup run on a void hook?",
            &[CURRENT, SHIM],
            verdicts::void,
        ),
        Probe::new(
            "cgroup/sleepable",
            "Can a program of a cgroup be sleepable?",
            &[source("7.3", "kernel/bpf/verifier.c", "can_be_sleepable")],
            verdicts::sleepable,
        ),
        Probe::new(
            "cgroup/mac-and-cgroup",
            "With a program of BPF_LSM_MAC and one of a cgroup on one hook, which runs first, and does one stop the other?",
            &[SHIM, source("7.3", "arch/x86/net/bpf_jit_comp.c", "invoke_bpf_mod_ret")],
            verdicts::mac_and_cgroup,
        ),
        Probe::new(
            "cgroup/yes-or-no",
            "On a hook that answers yes or no, where 1 of a program of BPF_LSM_MAC is yes, what do 0 and 1 of a program of a \
             cgroup mean?",
            &[
                RUN,
                source("6.14", "kernel/bpf/cgroup.c", "bpf_prog_run_array_cg"),
                source("7.3", "kernel/bpf/bpf_lsm.c", "bpf_lsm_hook_returns_errno"),
                source("7.3", "kernel/bpf/bpf_lsm.c", "bpf_lsm_get_retval_range"),
                source("7.3", "security/security.c", "security_inode_setxattr"),
            ],
            verdicts::yes_or_no,
        ),
        Probe::new(
            "cgroup/ret",
            "What does the slot ret hold for a program of a cgroup, the first and one after another?",
            &[CURRENT, source("7.3", "kernel/bpf/btf.c", "btf_ctx_access")],
            verdicts::ret,
        ),
        Probe::new(
            "cgroup/mac-and-cgroup-on-void-hook",
            "With a program of BPF_LSM_MAC and one of a cgroup on one void hook, do both run, and in which order?",
            &[SHIM],
            verdicts::mac_and_cgroup_void,
        ),
    ]
}

fn retval_probes() -> Vec<Probe> {
    let both = [RETVAL, source("7.3", "kernel/bpf/cgroup.c", "bpf_get_retval"), RUN];
    vec![
        Probe::new(
            "cgroup/set-retval",
            "Does user space see the errno that a program sets with bpf_set_retval, whether it then returns 1 or 0?",
            &both,
            verdicts::set_retval,
        ),
        Probe::new(
            "cgroup/get-retval",
            "What does bpf_get_retval give a program after another has denied or set an errno?",
            &both,
            verdicts::get_retval,
        ),
        Probe::new(
            "cgroup/set-retval-back",
            "Can a later program undo a denial with bpf_set_retval(0)?",
            &both,
            verdicts::undo,
        ),
        Probe::new(
            "cgroup/set-retval-odd",
            "What does user space see of a positive number, or one below -4095, set with bpf_set_retval?",
            &both,
            verdicts::odd_retval,
        ),
        Probe::new(
            "cgroup/set-retval-on-void-hook",
            "May a program of a cgroup call bpf_set_retval and bpf_get_retval on a void hook?",
            &[
                source("6.1", "kernel/bpf/verifier.c", "check_helper_call"),
                source("7.3", "kernel/bpf/cgroup.c", "cgroup_common_func_proto"),
            ],
            verdicts::retval_on_void,
        ),
        Probe::new(
            "cgroup/retval-in-mac-program",
            "May a program of BPF_LSM_MAC call bpf_set_retval or bpf_get_retval?",
            &[source("7.3", "kernel/bpf/bpf_lsm.c", "bpf_lsm_func_proto")],
            verdicts::retval_in_mac,
        ),
    ]
}

fn flag_probes() -> Vec<Probe> {
    vec![
        Probe::new(
            "cgroup/prog-attach-flags",
            "Which flags does BPF_PROG_ATTACH take for a program of BPF_LSM_CGROUP?",
            &[source("7.3", "kernel/bpf/syscall.c", "bpf_prog_attach"), ATTACH],
            flags::prog_attach,
        ),
        Probe::new(
            "cgroup/link-create-flags",
            "Which flags does BPF_LINK_CREATE take for a program of BPF_LSM_CGROUP, and what order do they make?",
            &[
                source("7.3", "kernel/bpf/cgroup.c", "cgroup_bpf_link_attach"),
                source("7.3", "kernel/bpf/cgroup.c", "get_prog_list"),
            ],
            flags::link_create,
        ),
        Probe::new(
            "cgroup/second-program-by-flags",
            "After one program is attached with some flags, what does a second one on the same cgroup get, and who runs?",
            &[ATTACH, source("7.3", "kernel/bpf/cgroup.c", "find_attach_entry")],
            flags::second,
        ),
        Probe::new(
            "cgroup/child-by-flags",
            "After an ancestor's program is attached with some flags, what does one on the child get, and who runs?",
            &[HIERARCHY, EFFECTIVE],
            flags::child,
        ),
        Probe::new(
            "cgroup/replace",
            "Does BPF_F_REPLACE exchange one program for another, and what if the one named is not there?",
            &[ATTACH, source("7.3", "kernel/bpf/cgroup.c", "find_attach_entry")],
            flags::replace,
        ),
        Probe::new(
            "cgroup/preorder",
            "Does BPF_F_PREORDER make an ancestor's program run before the child's?",
            &[EFFECTIVE],
            flags::preorder,
        ),
        Probe::new(
            "cgroup/before-and-after",
            "Do BPF_F_BEFORE and BPF_F_AFTER place a program among those of its cgroup?",
            &[ATTACH],
            flags::before_and_after,
        ),
        Probe::new(
            "cgroup/same-program-twice",
            "Can one program be attached twice to one cgroup, or to two cgroups?",
            &[ATTACH, source("7.3", "kernel/bpf/cgroup.c", "find_attach_entry")],
            flags::twice,
        ),
    ]
}

fn task_probes() -> Vec<Probe> {
    vec![
        Probe::new(
            "cgroup/task-outside",
            "Does a program of a cgroup run for a task outside it?",
            &[CURRENT],
            tasks::outside,
        ),
        Probe::new(
            "cgroup/task-moved",
            "Does a task that moves between cgroups at once meet the programs of the one it is in?",
            &[CURRENT],
            tasks::moved,
        ),
        Probe::new(
            "cgroup/socket-of-moved-task",
            "When a task moves after making a socket, whose programs run at bind(2): the socket's cgroup's or the task's?",
            &[CURRENT, FIND],
            tasks::socket_of_moved,
        ),
        Probe::new(
            "cgroup/socket-handed-over",
            "When a task of another cgroup binds an inherited socket, whose programs run?",
            &[CURRENT, FIND],
            tasks::socket_handed_over,
        ),
        Probe::new(
            "cgroup/socket_create",
            "On socket_create, which has no socket yet, is the task's cgroup the one that counts?",
            &[CURRENT, FIND],
            tasks::socket_create,
        ),
        Probe::new(
            "cgroup/socket-in-softirq",
            "On hooks that are called for a received packet, in a softirq of the task that sends it, whose programs run: those of the cgroup that made the receiving socket or those of the running task's?",
            &[CURRENT, FIND, source("7.3", "kernel/softirq.c", "__local_bh_enable_ip")],
            network::softirq,
        ),
        Probe::new(
            "cgroup/no-local-sockets",
            "Does a program of a cgroup on sk_alloc_security keep the cgroup's tasks from making local sockets, and no others, and with which errno?",
            &[
                CURRENT,
                source("7.3", "net/core/sock.c", "sk_prot_alloc"),
                source("7.3", "net/unix/af_unix.c", "unix_create1"),
            ],
            network::no_local_sockets,
        ),
        Probe::new(
            "cgroup/child-made-later",
            "Do a cgroup's programs run for tasks of a child cgroup that is made afterwards?",
            &[EFFECTIVE, source("7.3", "kernel/bpf/cgroup.c", "cgroup_bpf_inherit")],
            tasks::child_made_later,
        ),
        Probe::new(
            "cgroup/root",
            "Does a program of the root cgroup run for a task anywhere?",
            &[CURRENT, EFFECTIVE],
            tasks::root,
        ),
        Probe::new(
            "cgroup/removed",
            "What becomes of a link whose cgroup is removed?",
            &[source("7.3", "kernel/bpf/cgroup.c", "cgroup_bpf_release"), LINK],
            tasks::removed,
        ),
    ]
}

fn link_probes() -> Vec<Probe> {
    vec![
        Probe::new(
            "cgroup/link-info",
            "What does BPF_OBJ_GET_INFO_BY_FD say of a link to a cgroup?",
            &[source("7.3", "kernel/bpf/cgroup.c", "bpf_cgroup_link_fill_link_info")],
            links::info,
        ),
        Probe::new(
            "cgroup/link-detach",
            "Does BPF_LINK_DETACH take a program off its cgroup while the link stays open?",
            &[LINK],
            links::detach,
        ),
        Probe::new(
            "cgroup/link-update",
            "Can the program of a link to a cgroup be replaced, by one of the same hook and by one of another?",
            &[source("7.3", "kernel/bpf/cgroup.c", "__cgroup_bpf_replace")],
            links::update,
        ),
        Probe::new(
            "cgroup/prog-detach",
            "Does BPF_PROG_DETACH take off what BPF_PROG_ATTACH attached, and what a link did?",
            &[source("7.3", "kernel/bpf/cgroup.c", "__cgroup_bpf_detach")],
            links::prog_detach,
        ),
        Probe::new(
            "cgroup/target",
            "What does the kernel say where a program is to be attached to what is no cgroup of version 2, or none any more?",
            &[
                source("7.3", "kernel/bpf/cgroup.c", "cgroup_bpf_prog_attach"),
                source("7.3", "kernel/cgroup/cgroup.c", "cgroup_get_from_fd"),
                source("7.3", "kernel/cgroup/cgroup.c", "css_tryget_online_from_dir"),
            ],
            targets::all,
        ),
        Probe::new(
            "cgroup/prog-query",
            "What does BPF_PROG_QUERY with BPF_LSM_CGROUP list of a cgroup and of its child?",
            &[source("7.3", "kernel/bpf/cgroup.c", "__cgroup_bpf_query")],
            links::query,
        ),
        Probe::new(
            "cgroup/link-closed",
            "Does a program stop running as soon as its link to a cgroup is closed?",
            &[LINK],
            links::closed,
        ),
    ]
}

fn limit_probes() -> Vec<Probe> {
    vec![
        Probe::new(
            "cgroup/limit-of-programs",
            "How many programs can be attached to one cgroup on one hook?",
            &[ATTACH, source("7.3", "kernel/bpf/cgroup.c", "prog_list_length")],
            limits::programs,
        ),
        // Takes all the places that the kernel has.
        Probe::new(
            "cgroup/limit-of-hooks",
            "On how many different hooks can programs of cgroups be at once, and what is counted?",
            &[
                source("7.3", "kernel/bpf/cgroup.c", "bpf_cgroup_atype_find"),
                source("7.3", "include/linux/bpf-cgroup-defs.h", "CGROUP_LSM_NUM"),
            ],
            limits::hooks,
        )
        .own_machine(),
        Probe::new(
            "cgroup/hooks-refused",
            "Which hooks take a program of BPF_LSM_MAC and refuse one of BPF_LSM_CGROUP, or the other way round?",
            &[
                source("7.3", "kernel/bpf/bpf_lsm.c", "bpf_lsm_verify_prog"),
                source("6.12", "kernel/bpf/bpf_lsm.c", "bpf_lsm_verify_prog"),
            ],
            limits::refused,
        ),
    ]
}
