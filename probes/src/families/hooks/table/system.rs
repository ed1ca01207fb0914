//! The kernel itself: bpf(2), events, rings, the clock, the log, modules, lockdown.

use super::{Hook, int};
use crate::triggers::{files, memory, system};

pub(super) const HOOKS: &[Hook] = &[
    int("bpf", system::next_map, "kernel/bpf/syscall.c", "__sys_bpf"),
    int("bpf_map", system::new_map, "kernel/bpf/syscall.c", "bpf_map_new_fd"),
    int("bpf_map_create", system::new_map, "kernel/bpf/syscall.c", "map_create"),
    int("bpf_prog", system::new_program, "kernel/bpf/syscall.c", "bpf_prog_new_fd"),
    int("bpf_prog_load", system::new_program, "kernel/bpf/syscall.c", "bpf_prog_load"),
    int("perf_event_open", system::new_event, "kernel/events/core.c", "SYSCALL_DEFINE5(perf_event_open)"),
    int("perf_event_alloc", system::new_event, "kernel/events/core.c", "perf_event_alloc"),
    int("perf_event_read", system::read_event, "kernel/events/core.c", "perf_read"),
    int("perf_event_write", system::disable_event, "kernel/events/core.c", "perf_ioctl"),
    int("uring_sqpoll", system::polling_ring, "io_uring/sqpoll.c", "io_sq_offload_create"),
    int("uring_allowed", system::new_ring, "io_uring/io_uring.c", "io_uring_allowed").read_in("7.1"),
    int("settime", system::set_time, "kernel/time/time.c", "do_sys_settimeofday64"),
    int("syslog", system::log_size, "kernel/printk/printk.c", "check_syslog_permissions"),
    int("kernel_read_file", system::load_module, "fs/kernel_read_file.c", "kernel_read_file"),
    int("locked_down", files::kcore, "fs/proc/kcore.c", "open_kcore"),
    // Its value only says whether the task counts as privileged; to refuse is the accounting's business.
    int("vm_enough_memory", memory::mmap_anonymous, "security/security.c", "security_vm_enough_memory_mm")
        .values(&[-1, 1]),
];
