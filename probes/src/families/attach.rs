//! Attaching: the ways in, what a link knows and can do, and how long an attachment lasts.
//!
//! PID 1 keeps an inert program on the hooks of [`KEPT`]; detaching the last one of a hook costs a grace period.

mod denied;
mod links;
mod lives;
mod mounts;
mod statistics;
mod ways;

use crate::spec::{Probe, Source, source};

/// The hooks with an inert program.
pub const KEPT: &[&str] = &["task_getsid", "file_open", "bpf"];

const RAW: Source = source("7.3", "kernel/bpf/syscall.c", "bpf_raw_tp_link_attach");
const RAW_OLD: Source = source("5.10", "kernel/bpf/syscall.c", "bpf_raw_tracepoint_open");
const CREATE: Source = source("7.3", "kernel/bpf/syscall.c", "link_create");
const CREATE_OLD: Source = source("5.10", "kernel/bpf/syscall.c", "tracing_bpf_link_attach");
const TRACING: Source = source("7.3", "kernel/bpf/syscall.c", "bpf_tracing_prog_attach");
const PROG_ATTACH: Source = source("7.3", "kernel/bpf/syscall.c", "bpf_prog_attach");
const PROG_ATTACH_OLD: Source = source("5.10", "kernel/bpf/syscall.c", "attach_type_to_prog_type");
const CHECK: Source = source("7.3", "kernel/bpf/syscall.c", "bpf_prog_attach_check_attach_type");
const OPS: Source = source("7.3", "kernel/bpf/syscall.c", "bpf_tracing_link_lops");
const RELEASE: Source = source("7.3", "kernel/bpf/syscall.c", "bpf_link_release");
const UNPIN: Source = source("7.3", "kernel/bpf/inode.c", "bpf_destroy_inode");
const UNPIN_OLD: Source = source("6.9", "kernel/bpf/inode.c", "bpf_free_inode");
const HOOK: Source = source("7.3", "kernel/bpf/syscall.c", "__sys_bpf");

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    let mut all = way_probes();
    all.extend(target_probes());
    all.extend(link_probes());
    all.extend(life_probes());
    all.extend(denied_probes());
    all
}

fn way_probes() -> Vec<Probe> {
    vec![
        Probe::new(
            "attach/raw-tracepoint-open",
            "Does BPF_RAW_TRACEPOINT_OPEN without a name attach programs loaded as BPF_LSM_MAC and as BPF_LSM_CGROUP?",
            &[RAW, RAW_OLD, TRACING],
            ways::raw,
        ),
        Probe::new(
            "attach/raw-tracepoint-open-with-name",
            "Does BPF_RAW_TRACEPOINT_OPEN take an LSM program together with a name?",
            &[RAW, RAW_OLD],
            ways::raw_with_name,
        ),
        Probe::new(
            "attach/link-create",
            "With which attach types does BPF_LINK_CREATE attach a program loaded as BPF_LSM_MAC?",
            &[CREATE, CREATE_OLD, CHECK],
            ways::create_mac,
        ),
        Probe::new(
            "attach/link-create-of-cgroup-program",
            "With which attach types and targets does BPF_LINK_CREATE attach a program loaded as BPF_LSM_CGROUP?",
            &[CREATE, source("7.3", "kernel/bpf/cgroup.c", "cgroup_bpf_link_attach")],
            ways::create_cgroup,
        ),
        Probe::new(
            "attach/link-create-of-other-types",
            "Can an LSM program that was loaded with another expected_attach_type be attached at all?",
            &[source("7.3", "kernel/bpf/syscall.c", "bpf_prog_load_check_attach"), TRACING],
            ways::create_other,
        ),
        Probe::new(
            "attach/link-create-flags",
            "Does BPF_LINK_CREATE ignore or refuse flags with an LSM program?",
            &[CREATE, TRACING],
            ways::create_flags,
        ),
        Probe::new(
            "attach/prog-attach",
            "Does BPF_PROG_ATTACH take a program loaded as BPF_LSM_MAC, with any attach type and target?",
            &[PROG_ATTACH, PROG_ATTACH_OLD, CHECK],
            ways::prog_attach_mac,
        ),
        Probe::new(
            "attach/prog-attach-of-cgroup-program",
            "Does BPF_PROG_ATTACH take a program loaded as BPF_LSM_CGROUP, with any attach type and target?",
            &[PROG_ATTACH, source("7.3", "kernel/bpf/cgroup.c", "cgroup_bpf_prog_attach")],
            ways::prog_attach_cgroup,
        ),
        Probe::new(
            "attach/every-attach-type",
            "With which of all attach types does each way to attach take a program, by the type that it was loaded with?",
            &[RAW, CREATE, CREATE_OLD, PROG_ATTACH, PROG_ATTACH_OLD, CHECK],
            ways::every_type,
        ),
        Probe::new(
            "attach/without-capabilities",
            "Without capabilities, can a program be attached, with kernel.unprivileged_bpf_disabled at 0 and at 2?",
            &[CREATE, RAW, source("7.3", "kernel/bpf/syscall.c", "bpf_prog_get")],
            ways::without_capabilities,
        ),
    ]
}

fn target_probes() -> Vec<Probe> {
    vec![
        Probe::new(
            "attach/target-btf-id",
            "What do target_fd and target_btf_id do in BPF_LINK_CREATE of an LSM program, zero and not?",
            &[TRACING, CREATE],
            ways::target,
        ),
        Probe::new(
            "attach/claim-target-btf-id",
            "Must target_btf_id be populated with the hook's BTF id, as the documentation says?",
            &[TRACING, source("6.1", "kernel/bpf/syscall.c", "bpf_tracing_prog_attach")],
            ways::claim_btf_id,
        ),
        Probe::new(
            "attach/claim-links-only",
            "Are LSM programs attached exclusively via links, as the documentation says?",
            &[PROG_ATTACH, RAW],
            ways::claim_links,
        ),
        Probe::new(
            "attach/claim-mac-only",
            "Must the program be loaded with BPF_LSM_MAC to be attached, as the documentation says?",
            &[CREATE, source("6.1", "kernel/bpf/syscall.c", "link_create")],
            ways::claim_mac,
        ),
    ]
}

fn link_probes() -> Vec<Probe> {
    let cookie = [CREATE, source("7.3", "kernel/bpf/bpf_lsm.c", "bpf_get_attach_cookie")];
    let generic = [OPS, source("7.3", "kernel/bpf/syscall.c", "link_detach")];
    vec![
        Probe::new(
            "attach/cookie",
            "Does a program see the cookie that BPF_LINK_CREATE was given, and two programs each its own?",
            &cookie,
            links::cookies,
        ),
        Probe::new(
            "attach/cookie-of-raw-tracepoint-open",
            "Does a program see the cookie that BPF_RAW_TRACEPOINT_OPEN was given?",
            &[RAW, RAW_OLD],
            links::raw_cookie,
        ),
        Probe::new(
            "attach/link-info",
            "What does BPF_OBJ_GET_INFO_BY_FD say of a link of an LSM program?",
            &[source("7.3", "kernel/bpf/syscall.c", "bpf_tracing_link_fill_link_info")],
            links::info,
        ),
        Probe::new(
            "attach/link-fdinfo",
            "Which fields does /proc/self/fdinfo show of a link of an LSM program?",
            &[source("7.3", "kernel/bpf/syscall.c", "bpf_link_show_fdinfo")],
            links::fdinfo,
        ),
        Probe::new(
            "attach/link-update",
            "Can the program of a link be replaced by another of the same hook?",
            &[source("7.3", "kernel/bpf/syscall.c", "link_update"), OPS],
            links::update,
        ),
        Probe::new(
            "attach/link-detach",
            "Can a link be detached while its descriptor stays open?",
            &generic,
            links::detach,
        ),
        Probe::new(
            "attach/link-by-id",
            "Is a link found by its id, and does a second descriptor keep it when the first is closed?",
            &[source("7.3", "kernel/bpf/syscall.c", "bpf_link_get_fd_by_id"), RELEASE],
            links::by_id,
        ),
        Probe::new(
            "attach/prog-query",
            "Does BPF_PROG_QUERY list the programs attached as BPF_LSM_MAC?",
            &[source("7.3", "kernel/bpf/syscall.c", "bpf_prog_query")],
            links::query,
        ),
        Probe::new(
            "attach/prog-detach",
            "Does BPF_PROG_DETACH take a program attached as BPF_LSM_MAC off its hook?",
            &[source("7.3", "kernel/bpf/syscall.c", "bpf_prog_detach")],
            links::prog_detach,
        ),
        Probe::new(
            "attach/task-fd-query",
            "Does BPF_TASK_FD_QUERY say which program is behind a link of an LSM program?",
            &[source("7.3", "kernel/bpf/syscall.c", "bpf_task_fd_query")],
            links::task_fd_query,
        ),
        Probe::new(
            "attach/iter-create",
            "Does BPF_ITER_CREATE refuse a link of an LSM program?",
            &[source("7.3", "kernel/bpf/syscall.c", "bpf_iter_create")],
            links::iter_create,
        ),
        Probe::new(
            "attach/prog-info",
            "Does BPF_OBJ_GET_INFO_BY_FD of an LSM program say which hook it is for?",
            &[source("7.3", "kernel/bpf/syscall.c", "bpf_prog_get_info_by_fd")],
            links::prog_info,
        ),
        Probe::new(
            "attach/statistics",
            "With statistics switched on in either way, which programs do run_cnt and run_time_ns count?",
            &[
                source("7.3", "kernel/bpf/trampoline.c", "update_prog_stats"),
                source("5.10", "kernel/bpf/trampoline.c", "__bpf_prog_exit_sleepable"),
                source("7.3", "include/linux/filter.h", "__bpf_prog_run"),
                source("7.3", "kernel/bpf/syscall.c", "bpf_enable_stats"),
            ],
            statistics::counted,
        ),
    ]
}

fn life_probes() -> Vec<Probe> {
    let pin = [source("7.3", "kernel/bpf/inode.c", "bpf_obj_do_pin"), RELEASE];
    vec![
        Probe::new(
            "attach/program-closed",
            "Does a link keep its program running when the program's descriptor is closed?",
            &[RELEASE],
            lives::program_closed,
        ),
        Probe::new(
            "attach/link-closed",
            "Does a program stop running as soon as its link's only descriptor is closed?",
            &[RELEASE, source("7.3", "kernel/bpf/syscall.c", "bpf_tracing_link_release")],
            lives::link_closed,
        ),
        Probe::new(
            "attach/link-of-dead-process",
            "Does a program run on after the process that attached it has ended?",
            &[RELEASE],
            lives::dead_process,
        ),
        Probe::new(
            "attach/link-inherited",
            "Does a program run on as long as a child has inherited the link?",
            &[RELEASE],
            lives::inherited,
        ),
        Probe::new(
            "attach/pin",
            "Does a pinned link outlive its descriptors, and end with its name?",
            &pin,
            lives::pinned,
        ),
        Probe::new(
            "attach/pin-outlives-process",
            "Does a pinned link outlive the process that made it?",
            &pin,
            lives::pinned_by_the_dead,
        ),
        Probe::new(
            "attach/pin-opened-again",
            "Is what is opened by a pinned link's name the same link, which outlives the name?",
            &[source("7.3", "kernel/bpf/inode.c", "bpf_obj_do_get"), RELEASE],
            lives::opened_again,
        ),
        Probe::new(
            "attach/pinned-program",
            "Is a program that is pinned attached by that, and can it be attached once it is opened by its name?",
            &pin,
            lives::pinned_program,
        ),
        Probe::new(
            "attach/pin-elsewhere",
            "Can a link be pinned on a file system other than bpf?",
            &pin,
            lives::pinned_elsewhere,
        ),
        Probe::new(
            "attach/pin-and-unmount",
            "Does a pinned link last when its file system is unmounted, detached, bound elsewhere, or goes with its mount namespace?",
            &[source("7.3", "kernel/bpf/inode.c", "bpf_kill_super"), UNPIN, UNPIN_OLD, RELEASE],
            mounts::unmounted,
        ),
        Probe::new(
            "attach/pin-of-another-user",
            "May a user without capabilities open or remove the name of a pinned link?",
            &[
                source("7.3", "kernel/bpf/inode.c", "bpf_obj_do_get"),
                source("7.3", "kernel/bpf/inode.c", "bpf_mkobj_ops"),
                HOOK,
                source("5.18", "kernel/bpf/syscall.c", "__sys_bpf"),
            ],
            mounts::others,
        ),
    ]
}

fn denied_probes() -> Vec<Probe> {
    vec![
        Probe::new(
            "attach/deny-bpf",
            "Which commands of bpf(2) does a program on the hook bpf deny?",
            &[HOOK, source("7.3", "security/security.c", "security_bpf")],
            denied::commands,
        ),
        Probe::new(
            "attach/deny-bpf-and-close",
            "Can a program that denies bpf(2) be removed by closing its link?",
            &[HOOK, RELEASE],
            denied::close,
        ),
        Probe::new(
            "attach/deny-bpf-and-unpin",
            "Can a program that denies bpf(2) and is pinned be removed by removing its name?",
            &[HOOK, UNPIN, UNPIN_OLD],
            denied::unpin,
        ),
        Probe::new(
            "attach/deny-by-map-mode",
            "Does a program on the hook bpf_map that denies writing alone leave a map to be opened for reading?",
            &[
                source("7.3", "kernel/bpf/syscall.c", "bpf_map_new_fd"),
                source("7.3", "kernel/bpf/syscall.c", "bpf_map_get_fd_by_id"),
                source("7.3", "kernel/bpf/inode.c", "bpf_obj_get_user"),
            ],
            denied::by_mode,
        ),
        Probe::new(
            "attach/deny-own-attachment",
            "Is the program that denies bpf(2) asked about the call that attaches it?",
            &[HOOK, TRACING],
            denied::own_attachment,
        ),
    ]
}
