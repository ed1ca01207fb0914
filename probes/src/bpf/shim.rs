//! The shim through which the kernel calls the programs of cgroups, and the time that its release takes.

use std::time::Duration;

use super::consts::BPF_LSM_CGROUP;

/// How long each of the two waits is. What is waited for needs a few microseconds as soon as a processor is free.
const WAIT: Duration = Duration::from_millis(1);

/// Before a program is attached to a cgroup: lets the kernel finish what an earlier detachment left to a worker.
///
/// All cgroups' programs on a hook share one shim in the trampoline. Since 6.5 the last one's detachment only queues
/// the shim's release (6.5 and 6.14 kernel/bpf/syscall.c, `bpf_link_put`), and an attachment that comes before the
/// worker finds the shim whose count is 0 and takes it (6.14 kernel/bpf/trampoline.c,
/// `bpf_trampoline_link_cgroup_shim`): the worker frees what is in use, and the next detachment queues what is queued
/// already. "kernel BUG at lib/list_debug.c" is what 6.16 said of it, in one run of `attach/every-attach-type` of a few
/// dozen (docs/trust.md). Which probe gets hit is chance, so that none may. A sleep lets the worker run, on one
/// processor as on two, and from its first step on it holds the trampoline's mutex; the second sleep is for a worker that
/// was put aside in between.
pub(super) fn let_a_release_finish(attach_type: u32) {
    if attach_type == BPF_LSM_CGROUP {
        std::thread::sleep(WAIT);
        std::thread::sleep(WAIT);
    }
}
