//! The kernel itself: bpf(2), events, rings, the clock, the log, modules, lockdown, audit.

use super::bare::{int, void};
use super::{Expect, Hook, Read};
use crate::errno::Errno;
use crate::triggers::{audit, creds, files, known, labels, memory, sockets, system, token, uring};

/// include/uapi/linux/bpf.h: BPF_MAP_TYPE_ARRAY, BPF_PROG_TYPE_SOCKET_FILTER.
const ARRAY: u64 = 2;
const SOCKET_FILTER: u64 = 1;
const MAP_TYPE: &str = "bpf_map.map_type";
const PROGRAM_TYPE: &str = "bpf_prog.type";
/// What no module gives for an attribute that it does not know.
const EOPNOTSUPP: i32 = -libc::EOPNOTSUPP;
/// include/uapi/linux/perf_event.h: PERF_COUNT_SW_DUMMY.
const DUMMY: u64 = 9;
const EVENT: &str = "perf_event.attr.config";

pub(super) const HOOKS: &[Hook] = &[
    int("bpf", system::next_map, "kernel/bpf/syscall.c", "__sys_bpf").number("cmd", 12),
    int("bpf_map", system::new_map, "kernel/bpf/syscall.c", "bpf_map_new_fd").member("map", MAP_TYPE, ARRAY),
    int("bpf_map_create", system::new_map, "kernel/bpf/syscall.c", "map_create")
        .member("map", MAP_TYPE, ARRAY),
    int("bpf_map_alloc_security", system::new_map, "kernel/bpf/syscall.c", "map_create")
        .read_in("6.1")
        .member("map", MAP_TYPE, ARRAY),
    // Maps and programs go in a work queue, the last reference long gone.
    void("bpf_map_free", system::free_map, "kernel/bpf/syscall.c", "bpf_map_free_deferred")
        .object(0, "bpf_map.max_entries")
        .member("map", MAP_TYPE, ARRAY),
    void("bpf_map_free_security", system::free_map, "kernel/bpf/syscall.c", "bpf_map_free_deferred")
        .read_in("6.1")
        .object(0, "bpf_map.max_entries")
        .member("map", MAP_TYPE, ARRAY),
    int("bpf_prog", system::new_program, "kernel/bpf/syscall.c", "bpf_prog_new_fd").member(
        "prog",
        PROGRAM_TYPE,
        SOCKET_FILTER,
    ),
    int("bpf_prog_load", system::new_program, "kernel/bpf/syscall.c", "bpf_prog_load").member(
        "prog",
        PROGRAM_TYPE,
        SOCKET_FILTER,
    ),
    int("bpf_prog_alloc_security", system::new_program, "kernel/bpf/syscall.c", "bpf_prog_load")
        .read_in("6.1"),
    void("bpf_prog_free", system::free_program, "kernel/bpf/syscall.c", "__bpf_prog_put_rcu")
        .object(0, "bpf_prog.len")
        .member("prog", PROGRAM_TYPE, SOCKET_FILTER),
    void("bpf_prog_free_security", system::free_program, "kernel/bpf/syscall.c", "__bpf_prog_put_rcu")
        .read_in("6.1")
        .object(0, "bpf_prog_aux.prog bpf_prog.len"),
    int("bpf_token_create", token::create, "kernel/bpf/token.c", "bpf_token_create").with_files().member(
        "token",
        "bpf_token.allowed_cmds",
        1,
    ),
    // Both say whether a token is good for something; EPERM comes from bpf(2) (6.9 kernel/bpf/syscall.c, bpf_btf_load,
    // map_create).
    int("bpf_token_cmd", token::load_types, "kernel/bpf/token.c", "bpf_token_allow_cmd")
        .answered_with(Errno::EPERM)
        .with_files()
        .argument("cmd", Read::Int, Expect::Is(token::BTF_LOAD as u64)),
    // CAP_BPF, of which the token is to stand in for the lack.
    int("bpf_token_capable", token::use_it, "kernel/bpf/token.c", "bpf_token_capable")
        .answered_with(Errno::EPERM)
        .with_files()
        .number("cap", 39),
    void("bpf_token_free", token::end, "kernel/bpf/token.c", "bpf_token_free")
        .with_files()
        .object(0, "bpf_token.allowed_cmds"),
    int("perf_event_open", system::new_event, "kernel/events/core.c", "SYSCALL_DEFINE5(perf_event_open)"),
    int("perf_event_alloc", system::new_event, "kernel/events/core.c", "perf_event_alloc")
        .member("event", EVENT, DUMMY),
    void("perf_event_free", system::close_event, "kernel/events/core.c", "_free_event")
        .read_in("6.1")
        .member("event", EVENT, DUMMY),
    int("perf_event_read", system::read_event, "kernel/events/core.c", "perf_read")
        .member("event", EVENT, DUMMY),
    int("perf_event_write", system::disable_event, "kernel/events/core.c", "perf_ioctl")
        .member("event", EVENT, DUMMY),
    int("uring_sqpoll", system::polling_ring, "io_uring/sqpoll.c", "io_sq_offload_create"),
    int("uring_allowed", system::new_ring, "io_uring/io_uring.c", "io_uring_allowed").read_in("7.1"),
    int("uring_override_creds", uring::with_credentials, "io_uring/io_uring.c", "io_init_req").member(
        "new",
        "cred.egid",
        creds::GROUP as u64,
    ),
    int("uring_cmd", uring::command, "io_uring/uring_cmd.c", "io_uring_cmd").known(
        "ioucmd",
        "io_uring_cmd.file file.f_inode inode.i_ino",
        || known::inode("/dev/null"),
    ),
    int("settime", system::set_time, "kernel/time/time.c", "do_sys_settimeofday64"),
    int("syslog", system::log_size, "kernel/printk/printk.c", "check_syslog_permissions").number("type", 10),
    // READING_MODULE and LOADING_MODULE are 2 (include/linux/kernel_read_file.h).
    int("kernel_read_file", system::load_module, "fs/kernel_read_file.c", "kernel_read_file")
        .with_files()
        .known("file", super::OF_FILE, || known::inode("/tmp/no-module")),
    int("kernel_post_read_file", system::load_module, "fs/kernel_read_file.c", "kernel_read_file")
        .with_files()
        .argument("size", Read::Int, Expect::Is(4096)),
    int("kernel_load_data", system::load_module_from_memory, "kernel/module/main.c", "copy_module_from_user")
        .number("contents", 1),
    int(
        "kernel_post_load_data",
        system::load_module_from_memory,
        "kernel/module/main.c",
        "copy_module_from_user",
    )
    .argument("size", Read::Int, Expect::Is(4096)),
    // The family stays unknown: the errno does not say whether a module was asked for.
    int("kernel_module_request", sockets::unknown_family, "kernel/module/kmod.c", "__request_module")
        .text("kmod_name", "net-pf-19"),
    int("locked_down", files::kcore, "fs/proc/kcore.c", "open_kcore"),
    int("getselfattr", system::own_attribute, "security/security.c", "security_getselfattr")
        .read_in("6.8")
        .passing(EOPNOTSUPP)
        .number("attr", 100),
    int("setselfattr", system::set_own_attribute, "security/security.c", "security_setselfattr")
        .passing(EOPNOTSUPP)
        .number("attr", 100),
    // Its value says whether the task may have what is reserved for the privileged. Without a program it is 0, no, up to
    // 6.5, but for late releases of 5.10 and 6.1, and 1 from 6.6 to 6.11 (include/linux/lsm_hook_defs.h). Other modules have
    // said yes. From 6.12 on no program may attach.
    int(
        "vm_enough_memory",
        memory::mmap_of_the_reserve,
        "security/security.c",
        "security_vm_enough_memory_mm",
    )
    .read_in("6.11")
    .values(&[-1, 1]),
    // AppArmor, asked first, knows the label.
    int("audit_rule_init", audit::add_rule, "kernel/auditfilter.c", "audit_data_to_entry")
        .text("rulestr", "unconfined"),
    // Its value says whether the rule is about the task: 1 that it is, an error that nobody knows, and then it is logged.
    int("audit_rule_match", audit::message_under_rule, "kernel/auditfilter.c", "audit_filter")
        .read_in("6.1")
        .values(&[1, -1])
        .number("field", 14),
    // Its value says whether the rule is about a label, so that a new policy may have changed its meaning, and from 6.11 on
    // it is 0 or 1. The hook is asked about each rule when SELinux forgets what it has decided.
    int("audit_rule_known", audit::look_at_rules_again, "kernel/auditfilter.c", "update_lsm_rule")
        .with_files()
        .read_in("5.9")
        .asked_before_selinux()
        .values(&[1, -1])
        .member("krule", "audit_krule.listnr", audit::OF_SYSTEM_CALLS as u64),
    // The rule itself goes after a grace period, which may end in the task that waits.
    void("audit_rule_free", audit::remove_rule, "kernel/auditfilter.c", "audit_free_lsm_field").uncounted(),
    // AppArmor's name for the sender's label, in audit's log alone: the sender is not told whether it is there. From 6.18 on
    // what the first module says counts, also that it has no name (security/security.c, security_lsmprop_to_secctx): with
    // bpf first there is none in any case.
    int("lsmprop_to_secctx", audit::labelled_message, "kernel/audit.c", "audit_log_task_context")
        .passing(EOPNOTSUPP)
        .mute_where(labels::UNLABELLED)
        .asked_first(),
    void("release_secctx", audit::message, "kernel/audit.c", "audit_log_task_context").uncounted(),
    void("ipc_getsecid", audit::change_segment, "kernel/auditsc.c", "__audit_ipc_obj").read_in("6.12"),
    void("ipc_getlsmprop", audit::change_segment, "kernel/auditsc.c", "__audit_ipc_obj"),
    void("inode_getsecid", audit::look_up, "kernel/auditsc.c", "audit_copy_inode")
        .with_files()
        .read_in("6.12")
        .uncounted(),
    void("inode_getlsmprop", audit::look_up, "kernel/auditsc.c", "audit_copy_inode").with_files().uncounted(),
];
