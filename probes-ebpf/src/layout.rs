//! What a BPF program leaves in its map `RESULTS` (or sends through a ring buffer), as both sides see it.
//!
//! This file is compiled twice: into the BPF programs, and into the crate `probes`, which reads the maps. Every map
//! `RESULTS` is an array with one element, one of these structs. All fields are 64 bits wide or arrays of bytes, so
//! that no padding exists whose content would be left to chance.

/// Bytes that `bpf_get_current_comm` fills (`TASK_COMM_LEN`).
pub const COMM: usize = 16;
/// Bytes that `user_string` reads at most, the final zero included.
pub const STRING: usize = 64;

/// `mprotect_audit` and `mprotect_audit_checked`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MprotectAudit {
    /// Calls of the hook by the target.
    pub runs: u64,
    /// Of these, calls that the program answered with `-EPERM`.
    pub denials: u64,
    /// Of these, calls that a program before it had already answered.
    pub already_refused: u64,
    /// `vma->vm_start` of the last run.
    pub vm_start: u64,
    /// `vma->vm_end` of the last run.
    pub vm_end: u64,
    /// `vma->vm_mm->start_brk` of the last run.
    pub start_brk: u64,
    /// `vma->vm_mm->brk` of the last run.
    pub brk: u64,
    /// The hook's argument `reqprot` in the last run.
    pub reqprot: u64,
    /// The hook's argument `prot` in the last run.
    pub prot: u64,
}

/// `socket_create`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketCreate {
    /// Calls of the hook by the target, whatever the family.
    pub runs: u64,
    /// Of these, calls for the family in question, answered with the verdict.
    pub verdicts: u64,
    /// Of these, calls that a program before it had already answered.
    pub already_refused: u64,
    /// The hook's argument `family` in the last run, sign-extended.
    pub family: i64,
    /// The hook's argument `type` in the last run, sign-extended.
    pub kind: i64,
    /// The hook's argument `protocol` in the last run, sign-extended.
    pub protocol: i64,
    /// The hook's argument `kern` in the last run, sign-extended.
    pub kern: i64,
}

/// `task_identity`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskIdentity {
    /// Calls of the hook by the target.
    pub runs: u64,
    /// `bpf_get_current_pid_tgid()`.
    pub pid_tgid: u64,
    /// `bpf_get_current_uid_gid()`.
    pub uid_gid: u64,
    /// What `bpf_get_current_comm()` returned.
    pub comm_result: i64,
    /// What `bpf_get_current_comm()` filled in.
    pub comm: [u8; COMM],
    /// `bpf_ktime_get_ns()`.
    pub ktime: u64,
    /// `bpf_get_smp_processor_id()`.
    pub cpu: u64,
    /// `bpf_get_current_cgroup_id()`.
    pub cgroup: u64,
}

/// `ringbuf_events`: what it counts; what it sends is a [`RingbufEvent`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingbufEvents {
    /// Calls of the hook by the target.
    pub runs: u64,
    /// Of these, calls for which the ring buffer had room.
    pub sent: u64,
}

/// One event of `ringbuf_events`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingbufEvent {
    /// Which run sent it, from 1.
    pub run: u64,
    /// `bpf_get_current_pid_tgid()`.
    pub pid_tgid: u64,
    /// `bpf_ktime_get_ns()`.
    pub ktime: u64,
}

/// `user_string`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserString {
    /// Calls of the hook by the target.
    pub runs: u64,
    /// What `bpf_probe_read_user_str` returned in the last run: the length with the final zero, or a negative errno.
    pub length: i64,
    /// What it filled in.
    pub bytes: [u8; STRING],
}

/// `task_storage` and `inode_storage`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// Calls of the hook by the target.
    pub runs: u64,
    /// Of these, calls that got no storage.
    pub without: u64,
    /// The counter in the storage of the last run's task or inode, after that run added 1.
    pub count: u64,
}
