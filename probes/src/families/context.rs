//! What a program is given: the array of arguments, what is in each slot and which slots there are; and the current task.

mod current;
mod limits;
mod pointers;
mod slots;

use crate::asm::Asm;
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, LsmProgram, PAGE};
use crate::results::{FREE, Results};
use crate::session::{Attempt, Ended};
use crate::spec::{Probe, Source, source};
use crate::triggers::Arm;

/// The hooks with an inert program: taking the last one off costs a grace period.
pub const KEPT: &[&str] = &["file_open", "file_mprotect", "socket_create", "task_kill", "mmap_file"];

const ACCESS: Source = source("7.1", "kernel/bpf/btf.c", "btf_ctx_access");
const ACCESS_EARLIER: Source = source("5.9", "kernel/bpf/btf.c", "btf_ctx_access");

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    [slot_probes(), limit_probes(), pointer_probes(), current_probes()].into_iter().flatten().collect()
}

/// What the slots hold.
fn slot_probes() -> Vec<Probe> {
    let args = [ACCESS, ACCESS_EARLIER, source("7.1", "arch/x86/net/bpf_jit_comp.c", "save_args")];
    vec![
        Probe::new(
            "context/file_open",
            "Is the slot of file_open the file that is opened, and the slot after it ret?",
            &args,
            slots::file_open,
        ),
        Probe::new(
            "context/file_mprotect",
            "Are the slots of file_mprotect the mapping and the two protections, and the slot after them ret?",
            &args,
            slots::file_mprotect,
        ),
        Probe::new(
            "context/socket_create",
            "Are the slots of socket_create the four numbers, and the slot after them ret?",
            &args,
            slots::socket_create,
        ),
        Probe::new(
            "context/task_kill",
            "What are the slots of task_kill for kill(2): the task, which pointers, the signal?",
            &args,
            slots::task_kill,
        ),
        Probe::new(
            "context/task_kill-info",
            "Is the info of task_kill what kill(2) fills in, when a program follows it?",
            &[ACCESS, source("7.1", "kernel/signal.c", "prepare_kill_siginfo")],
            slots::task_kill_info,
        )
        .crashing(), // where it is null, following it brings the kernel down
    ]
}

/// Which slots there are, and what may be done with them.
fn limit_probes() -> Vec<Probe> {
    let access = [ACCESS, ACCESS_EARLIER];
    let range = [
        source("6.14", "kernel/bpf/verifier.c", "check_mem_access"),
        source("6.14", "kernel/bpf/verifier.c", "__mark_reg_s32_range"),
        source("7.1", "kernel/bpf/verifier.c", "check_mem_access"),
    ];
    vec![
        Probe::new(
            "context/slot-access",
            "Which reads and writes of the context's slots does the verifier refuse, and why, and may ret be returned that is loaded as 64 bits and left as it is?",
            &access,
            limits::slot_access,
        ),
        Probe::new(
            "context/written-argument",
            "When a program writes to an argument's slot, does the next program on the hook see what it wrote?",
            &[ACCESS, source("7.1", "kernel/bpf/bpf_lsm.c", "lsm_verifier_ops")],
            limits::written_argument,
        ),
        Probe::new(
            "context/ret-over-constant",
            "When ret is loaded into a register that held a number, does the verifier forget the number?",
            &range,
            limits::ret_over_constant,
        ),
        // The kernel may warn of it, once; the warning taints.
        Probe::new(
            "context/ret-over-impossible",
            "When ret is loaded into a register that held a number it cannot be, does the verifier notice, and what does it believe then?",
            &range,
            limits::ret_over_impossible,
        )
        .own_machine(),
    ]
}

/// Pointers that can be null.
fn pointer_probes() -> Vec<Probe> {
    let nullness = [
        source("7.1", "kernel/bpf/verifier.c", "BTF_TYPE_SAFE_TRUSTED_OR_NULL"),
        source("7.1", "kernel/bpf/verifier.c", "reg_not_null"),
        source("7.1", "kernel/bpf/bpf_lsm_proto.c", "bpf_lsm_mmap_file"),
    ];
    vec![
        Probe::new(
            "context/nullable-member",
            "May vma->vm_mm, which can be null, be followed without a check, and what does it lead to?",
            &nullness,
            pointers::nullable_member,
        ),
        Probe::new(
            "context/null-argument-checked",
            "Does a program's own check find an argument that is null?",
            &nullness,
            pointers::null_argument_checked,
        ),
        // A load through a trusted pointer has no entry in the exception table: null is a fault of the kernel.
        Probe::new(
            "context/null-cred-followed",
            "May the cred of task_kill be followed without a check, and what happens when it is null?",
            &nullness,
            pointers::null_cred_followed,
        )
        .crashing(),
        Probe::new(
            "context/null-file-followed",
            "May the file of mmap_file be followed without a check, and what happens when it is null?",
            &nullness,
            pointers::null_file_followed,
        )
        .crashing(),
    ]
}

/// On whose behalf, and in which task, a hook is called.
fn current_probes() -> Vec<Probe> {
    let of_io_uring = Probe::new(
        "context/current-of-io_uring",
        "Which task is current in file_open and file_permission when io_uring opens or reads a file of tmpfs for a process?",
        &[
            // Updates of 5.10 have the io_uring of 5.15.
            source("5.11", "fs/io-wq.c", "create_io_worker"),
            source("5.11", "fs/io_uring.c", "io_sq_thread"),
            source("7.1", "io_uring/io-wq.c", "create_io_worker"),
            source("7.1", "io_uring/sqpoll.c", "io_sq_thread"),
            // Of tmpfs no read is promised not to wait, of ext4, xfs and btrfs it is: the task that asked may do it.
            source("7.3", "io_uring/rw.c", "io_file_supports_nowait"),
        ],
        current::of_io_uring,
    );
    let of_nfs = Probe::new(
        "context/current-of-nfs",
        "Which task is current in file_open and file_permission when a client of the kernel's own NFS server opens or reads?",
        &[
            source("7.3", "fs/nfsd/auth.c", "nfsd_setuser"),
            source("7.3", "fs/nfsd/vfs.c", "__nfsd_open"),
            source("7.3", "fs/read_write.c", "rw_verify_area"),
        ],
        current::of_nfs,
    );
    vec![of_io_uring, of_nfs]
}

/// The `n`th value that a program of [`look`] leaves.
const fn value(n: i32) -> i32 {
    FREE + 8 * n
}

/// Offset of slot `n` of the context.
const fn slot(n: i32) -> i32 {
    8 * n
}

/// Loads slot `n` and leaves it as value `n`. An int has only its lower half in a slot: what is above it is whatever
/// the register or the stack held.
fn keep(asm: &mut Asm, size: Size, n: i32) {
    asm.ldx(size, Reg::R1, CTX, slot(n)).stx(Size::DW, PAGE, value(n), Reg::R1);
}

/// Byte offset of a member in the running kernel.
fn offset(attempt: &Attempt<'_>, record: &str, path: &str) -> Result<i64, Ended> {
    let member = attempt.btf()?.member(record, path);
    member
        .map(|member| i64::from(member.byte_offset))
        .map_err(|error| Ended::could_not(&format!("find {record}.{path}"), error))
}

/// Attaches a program that does `body` for what happens inside the window of `act`, does it, and returns the page.
fn look(
    attempt: &mut Attempt<'_>,
    hook: &str,
    body: impl FnOnce(&mut Asm),
    act: impl FnOnce(Arm) -> Result<(), Errno>,
) -> Result<Results, Ended> {
    let mut results = attempt.results()?;
    results.name_nobody();
    let attached = attempt.attach_lsm(&LsmProgram::framed(hook, &results, body))?;
    let outcome = attempt.trigger(|| act(Arm::new(&results)));
    attempt.runs(results.runs());
    drop(attached);
    outcome.map_err(|errno| Ended::could_not("do the trigger", errno))?;
    Ok(results)
}
