//! Processes, credentials, capabilities, executing programs.

use super::{Hook, int, void};
use crate::triggers::{creds, exec, tasks};

pub(super) const HOOKS: &[Hook] = &[
    int("bprm_creds_for_exec", exec::execve, "fs/exec.c", "bprm_execve"),
    int("bprm_check_security", exec::execve, "fs/exec.c", "search_binary_handler"),
    int("bprm_creds_from_file", exec::execve, "fs/exec.c", "bprm_creds_from_file"),
    void("bprm_committing_creds", exec::execve, "fs/exec.c", "begin_new_exec"),
    void("bprm_committed_creds", exec::execve, "fs/exec.c", "begin_new_exec"),
    int("cred_prepare", creds::capset, "kernel/cred.c", "prepare_creds"),
    int("capget", creds::capget, "kernel/capability.c", "cap_get_target_pid"),
    int("capset", creds::capset, "kernel/capability.c", "SYSCALL_DEFINE2(capset)"),
    int("capable", creds::privileged, "kernel/capability.c", "ns_capable_common"),
    int("task_fix_setuid", creds::setuid, "kernel/sys.c", "__sys_setresuid"),
    int("userns_create", creds::new_user_namespace, "kernel/user_namespace.c", "create_user_ns"),
    int("task_alloc", tasks::fork, "kernel/fork.c", "copy_process"),
    // Called after a grace period, in whatever task that falls.
    void("task_free", tasks::end, "kernel/fork.c", "__put_task_struct").first_argument(),
    int("task_kill", tasks::kill, "kernel/signal.c", "check_kill_permission"),
    int("task_setnice", tasks::setpriority, "kernel/sys.c", "set_one_prio"),
    int("task_setioprio", tasks::ioprio_set, "block/blk-ioc.c", "set_task_ioprio"),
    int("task_setscheduler", tasks::setaffinity, "kernel/sched/syscalls.c", "sched_setaffinity"),
    int(
        "task_getscheduler",
        tasks::getscheduler,
        "kernel/sched/syscalls.c",
        "SYSCALL_DEFINE1(sched_getscheduler)",
    ),
    int("task_setrlimit", tasks::set_limit, "kernel/sys.c", "do_prlimit"),
    int("task_getpgid", tasks::get_group, "kernel/sys.c", "do_getpgid"),
    int("task_getsid", tasks::get_session, "kernel/sys.c", "SYSCALL_DEFINE1(getsid)"),
    // An int hook that is not 0 without a program: -ENOSYS.
    int("task_prctl", tasks::prctl, "kernel/sys.c", "SYSCALL_DEFINE5(prctl)"),
    int("ptrace_access_check", tasks::attach, "kernel/ptrace.c", "__ptrace_may_access"),
    int("ptrace_traceme", tasks::traceme, "kernel/ptrace.c", "ptrace_traceme"),
];
