//! Processes, credentials, capabilities, executing programs.

use super::bare::{int, void};
use super::{Expect, Hook, Read};
use crate::errno::Errno;
use crate::triggers::{audit, binder, creds, exec, files, known, labels, tasks};

/// From a task to its process.
const TGID: &str = "task_struct.tgid";
const PROGRAM: &str = "linux_binprm.filename";
const LEAVES: &str = "/tmp/leaves";
/// include/uapi/linux/capability.h: CAP_SYS_ADMIN.
const SYS_ADMIN: i32 = 21;
const GROUP: u64 = creds::GROUP as u64;

pub(super) const HOOKS: &[Hook] = &[
    int("bprm_creds_for_exec", exec::execve, "fs/exec.c", "bprm_execve")
        .with_files()
        .text_at("bprm", PROGRAM, LEAVES),
    // 5.7 alone: from 5.8 on the row above and bprm_creds_from_file share its work.
    int("bprm_set_creds", exec::execve, "fs/exec.c", "prepare_binprm")
        .with_files()
        .read_in("5.7")
        .text_at("bprm", PROGRAM, LEAVES),
    int("bprm_check_security", exec::execve, "fs/exec.c", "search_binary_handler")
        .with_files()
        .text_at("bprm", PROGRAM, LEAVES),
    int("bprm_creds_from_file", exec::execve, "fs/exec.c", "bprm_creds_from_file").with_files().known(
        "file",
        super::OF_FILE,
        || known::inode(LEAVES),
    ),
    void("bprm_committing_creds", exec::execve, "fs/exec.c", "begin_new_exec")
        .with_files()
        .text_at("bprm", PROGRAM, LEAVES),
    void("bprm_committed_creds", exec::execve, "fs/exec.c", "begin_new_exec")
        .with_files()
        .text_at("bprm", PROGRAM, LEAVES),
    int("getprocattr", labels::read_attribute, "fs/proc/base.c", "proc_pid_attr_read")
        .read_in("6.1")
        .passing(-libc::EINVAL)
        .asked_first()
        .text("name", "current"),
    int("setprocattr", labels::write_attribute, "fs/proc/base.c", "proc_pid_attr_write")
        .read_in("6.1")
        .passing(-libc::EINVAL)
        .asked_first()
        .text("name", "current"),
    int("cred_prepare", creds::capset, "kernel/cred.c", "prepare_creds").member("old", "cred.egid", GROUP),
    // Credentials go after a grace period, in whatever task that falls.
    void("cred_free", creds::end, "kernel/cred.c", "put_cred_rcu").object(0, "cred.uid").uncounted(),
    // Asked by the measuring of what is opened, whether anything is measured or not (security/integrity/ima), and where
    // that has changed to cred_getlsmprop by binder. It fails there: AppArmor has no number for credentials, so no name.
    void("cred_getsecid", binder::execute_and_send, "security/integrity/ima/ima_main.c", "ima_bprm_check")
        .with_files()
        .read_in("6.12")
        .partial_where(binder::WITHOUT_BINDER)
        .uncounted(),
    void("cred_getlsmprop", exec::execve, "security/integrity/ima/ima_main.c", "ima_bprm_check")
        .with_files()
        .uncounted(),
    void("task_getsecid_subj", files::open, "security/integrity/ima/ima_main.c", "ima_file_check")
        .with_files()
        .read_in("5.14")
        .uncounted(),
    void("current_getsecid_subj", files::open, "security/integrity/ima/ima_main.c", "ima_file_check")
        .with_files()
        .read_in("6.12")
        .uncounted(),
    void("current_getlsmprop_subj", files::open, "security/integrity/ima/ima_main.c", "ima_file_check")
        .with_files()
        .uncounted(),
    int("capget", creds::capget, "kernel/capability.c", "cap_get_target_pid").known(
        "target",
        TGID,
        known::pid,
    ),
    int("capset", creds::capset, "kernel/capability.c", "SYSCALL_DEFINE2(capset)").member(
        "new",
        "cred.egid",
        GROUP,
    ),
    // It says whether, and sethostname(2) says EPERM (7.3 kernel/sys.c, sethostname).
    int("capable", creds::privileged, "kernel/capability.c", "ns_capable_common")
        .answered_with(Errno::EPERM)
        .number("cap", SYS_ADMIN),
    int("task_fix_setuid", creds::setuid, "kernel/sys.c", "__sys_setresuid").member("new", "cred.uid", 1),
    int("task_fix_setgid", creds::setgid, "kernel/sys.c", "__sys_setresgid").member("new", "cred.gid", 1),
    int("task_fix_setgroups", creds::setgroups, "kernel/groups.c", "set_current_groups").member(
        "new",
        "cred.group_info group_info.ngroups",
        1,
    ),
    int("userns_create", creds::new_user_namespace, "kernel/user_namespace.c", "create_user_ns").member(
        "cred",
        "cred.egid",
        GROUP,
    ),
    int("task_alloc", tasks::fork, "kernel/fork.c", "copy_process"),
    // Called after a grace period, in whatever task that falls.
    void("task_free", tasks::end, "kernel/fork.c", "__put_task_struct").object(0, TGID),
    int("task_kill", tasks::kill, "kernel/signal.c", "check_kill_permission").known("p", TGID, known::pid),
    int("task_setnice", tasks::setpriority, "kernel/sys.c", "set_one_prio").number("nice", 1),
    int("task_setioprio", tasks::ioprio_set, "block/blk-ioc.c", "set_task_ioprio")
        .number("ioprio", (2 << 13) | 4),
    int("task_getioprio", tasks::ioprio_get, "block/ioprio.c", "get_task_ioprio").known(
        "p",
        TGID,
        known::pid,
    ),
    int("task_setscheduler", tasks::setaffinity, "kernel/sched/syscalls.c", "sched_setaffinity").known(
        "p",
        TGID,
        known::pid,
    ),
    int(
        "task_getscheduler",
        tasks::getscheduler,
        "kernel/sched/syscalls.c",
        "SYSCALL_DEFINE1(sched_getscheduler)",
    )
    .known("p", TGID, known::pid),
    int("task_setrlimit", tasks::set_limit, "kernel/sys.c", "do_prlimit").number("resource", 4),
    int("task_prlimit", tasks::limit_other, "kernel/sys.c", "check_prlimit_permission").number("flags", 1),
    int("task_getpgid", tasks::get_group, "kernel/sys.c", "do_getpgid").known("p", TGID, known::pid),
    int("task_setpgid", tasks::new_group, "kernel/sys.c", "SYSCALL_DEFINE2(setpgid)"),
    int("task_getsid", tasks::get_session, "kernel/sys.c", "SYSCALL_DEFINE1(getsid)").known(
        "p",
        TGID,
        known::pid,
    ),
    int("task_movememory", tasks::move_memory, "mm/migrate.c", "find_mm_struct"),
    void("task_to_inode", tasks::process_folder, "fs/proc/base.c", "proc_pid_make_inode").uncounted(),
    void("task_getsecid_obj", audit::trace, "kernel/auditsc.c", "__audit_ptrace").read_in("6.12"),
    void("task_getlsmprop_obj", audit::trace, "kernel/auditsc.c", "__audit_ptrace"),
    void("task_getsecid", audit::trace, "kernel/auditsc.c", "__audit_ptrace").read_in("5.10"),
    // An int hook that is not 0 without a program: -ENOSYS.
    int("task_prctl", tasks::prctl, "kernel/sys.c", "SYSCALL_DEFINE5(prctl)")
        .number("option", libc::PR_SET_NAME),
    int("ptrace_access_check", tasks::attach, "kernel/ptrace.c", "__ptrace_may_access").argument(
        "mode",
        Read::Int,
        Expect::Is(0x12),
    ),
    int("ptrace_traceme", tasks::traceme, "kernel/ptrace.c", "ptrace_traceme").known(
        "parent",
        TGID,
        known::pid,
    ),
];
