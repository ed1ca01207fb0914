//! Several programs on one hook: who runs, what each sees, whose verdict counts.
//!
//! PID 1 keeps an inert program on the hooks of [`KEPT`], attached first and returning 0, because taking the last
//! program off a hook costs a grace period. `chain/alone` asks one of the questions on a hook without it.

mod again;
mod asleep;
mod beside;
mod orders;
mod places;
mod replaced;
mod tail;
mod twice;
mod verdicts;

pub(super) use replaced::{extension_ran, replaced_pair};

use crate::spec::{Probe, Source, source};

/// The hooks with an inert program.
pub const KEPT: &[&str] = &["task_getsid", "file_open", "file_set_fowner", "task_prctl"];

const PROGS: Source = source("7.3", "kernel/bpf/trampoline.c", "bpf_trampoline_get_progs");
const ADD: Source = source("7.3", "kernel/bpf/trampoline.c", "bpf_trampoline_add_prog");
const LINK_OLD: Source = source("5.10", "kernel/bpf/trampoline.c", "bpf_trampoline_link_prog");
const MOD_RET: Source = source("7.3", "arch/x86/net/bpf_jit_comp.c", "invoke_bpf_mod_ret");
const MOD_RET_OLD: Source = source("5.10", "arch/x86/net/bpf_jit_comp.c", "invoke_bpf_mod_ret");
const PREPARE: Source = source("7.3", "arch/x86/net/bpf_jit_comp.c", "__arch_prepare_bpf_trampoline");
const TYPES: Source = source("7.3", "kernel/bpf/trampoline.c", "bpf_attach_type_to_tramp");
const RANGE: Source = source("7.3", "kernel/bpf/bpf_lsm.c", "bpf_lsm_get_retval_range");
const TARGET: Source = source("7.3", "kernel/bpf/verifier.c", "bpf_check_attach_target");
const TAIL: Source = source("7.3", "kernel/bpf/core.c", "__bpf_prog_map_compatible");

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    let mut all = order_probes();
    all.extend(verdict_probes());
    all.extend(place_probes());
    all.extend(sleep_probes());
    all.extend(neighbour_probes());
    all.extend(tail_probes());
    all
}

fn order_probes() -> Vec<Probe> {
    let order = [PROGS, ADD, MOD_RET, MOD_RET_OLD];
    vec![
        Probe::new(
            "chain/one-program",
            "With one program on an int hook, what does user space see of the verdicts 0, -EPERM and -EACCES?",
            &order,
            |session| orders::table(session, 1),
        ),
        Probe::new(
            "chain/alone",
            "With one program on an int hook and nothing else there, what does user space see of its verdict?",
            &order,
            orders::alone,
        ),
        Probe::new(
            "chain/two-programs",
            "With two programs on one hook, which run, in which order, with which ret, and whose verdict counts?",
            &order,
            |session| orders::table(session, 2),
        ),
        Probe::new(
            "chain/three-programs",
            "With three programs on one hook, which run, with which ret, and whose verdict counts?",
            &order,
            |session| orders::table(session, 3),
        ),
        Probe::new(
            "chain/four-programs",
            "With four programs on one hook, which run, with which ret, and whose verdict counts?",
            &order,
            |session| orders::table(session, 4),
        ),
        Probe::new(
            "chain/detached-from-three",
            "After one of three programs on a hook is detached, do the others run as if it had not been there?",
            &[PROGS, source("7.3", "kernel/bpf/trampoline.c", "bpf_trampoline_remove_prog"), MOD_RET],
            orders::detached,
        ),
        Probe::new(
            "chain/detached-and-attached-again",
            "Where in the order does a program stand that was detached and attached again?",
            &[ADD, source("7.3", "kernel/bpf/syscall.c", "bpf_tracing_prog_attach")],
            orders::attached_again,
        ),
        Probe::new(
            "chain/sleepable-and-plain",
            "Does the order of programs on one hook, int or void, depend on whether they sleep?",
            &[PROGS, source("7.3", "kernel/bpf/trampoline.c", "bpf_trampoline_enter")],
            orders::sleepable_and_plain,
        ),
        Probe::new(
            "chain/void-two-programs",
            "With two or three programs on one void hook, do all run whatever they return, and in which order?",
            &[PROGS, TYPES, source("7.1", "arch/x86/net/bpf_jit_comp.c", "invoke_bpf")],
            orders::void,
        ),
        Probe::new(
            "chain/return-ret",
            "What does a program that returns ret where that is an errno, loaded as 64 bits and left as it is, make of a denial?",
            &order,
            orders::return_ret,
        ),
    ]
}

fn verdict_probes() -> Vec<Probe> {
    let values = [MOD_RET, RANGE, source("6.1", "kernel/bpf/verifier.c", "check_return_code")];
    vec![
        Probe::new(
            "chain/high-bits-verdict",
            "Does a verdict whose low 32 bits are 0 and whose high bits are not stop the other programs, or deny?",
            &values,
            verdicts::high_bits,
        ),
        Probe::new(
            "chain/positive-verdict",
            "May a program on an int hook return a positive number, does it stop the others, what does user space see?",
            &values,
            verdicts::positive,
        ),
        Probe::new(
            "chain/verdict-of-32-bits",
            "Is a negative verdict that was made with 32-bit instructions, its high bits 0, a denial?",
            &values,
            verdicts::narrow,
        ),
        Probe::new(
            "chain/verdict-beyond-errno",
            "May a program return a number below -4095, and what does user space see of it?",
            &values,
            verdicts::beyond,
        ),
        Probe::new(
            "chain/every-errno",
            "Does every errno from 1 to 133 that a program returns reach user space as it is?",
            &[MOD_RET],
            verdicts::every_errno,
        ),
        Probe::new(
            "chain/default-not-zero",
            "On a hook whose default is not 0, does a program's 0 mean the default, and its errno a denial?",
            &[
                MOD_RET,
                source("7.3", "kernel/bpf/bpf_lsm.c", "LSM_HOOK"),
                source("7.3", "security/security.c", "security_task_prctl"),
            ],
            verdicts::default_not_zero,
        ),
        Probe::new(
            "chain/zero-for-default",
            "On hooks whose default is not 0, does a program that returns 0 change what user space sees?",
            &[
                MOD_RET,
                source("7.3", "include/linux/lsm_hook_defs.h", "fs_context_parse_param"),
                source("7.3", "kernel/bpf/bpf_lsm.c", "LSM_HOOK"),
            ],
            verdicts::zero_for_default,
        ),
        Probe::new(
            "chain/default-returned",
            "On a hook whose default is not 0, what does a program bring about that returns the default itself?",
            &[MOD_RET, source("7.3", "security/security.c", "security_task_prctl")],
            verdicts::default_returned,
        ),
    ]
}

fn place_probes() -> Vec<Probe> {
    let limit = [
        ADD,
        source("7.3", "include/linux/bpf.h", "BPF_MAX_TRAMP_LINKS"),
        source("5.10", "include/linux/bpf.h", "BPF_MAX_TRAMP_PROGS"),
    ];
    vec![
        Probe::new(
            "chain/same-program-twice",
            "Can one program be attached to its hook twice, or again after it was detached?",
            &[ADD, source("7.3", "kernel/bpf/syscall.c", "bpf_tracing_prog_attach"), LINK_OLD],
            twice::same_program,
        ),
        Probe::new(
            "chain/many-programs",
            "How many programs can be attached to one hook, and what does the one too many get?",
            &limit,
            places::many_programs,
        )
        .own_machine() // it fills hooks, which to empty again would take seconds
        .lingering(),
        Probe::new(
            "chain/takers-of-places",
            "Do fentry, fexit and programs of a cgroup take places of a hook's LSM programs, and do fentry and fexit give them back?",
            &[
                ADD,
                source("7.3", "kernel/bpf/trampoline.c", "bpf_trampoline_remove_prog"),
                source("7.3", "kernel/bpf/trampoline.c", "bpf_trampoline_link_cgroup_shim"),
            ],
            places::takers,
        )
        .own_machine()
        .lingering(),
    ]
}

/// The guard of older kernels, and who is still under it.
fn sleep_probes() -> Vec<Probe> {
    vec![
        Probe::new(
            "chain/asked-while-one-sleeps",
            "While a sleepable program sleeps for one task, does it run for another task of the same processor, and deny it?",
            &[
                source("6.0", "kernel/bpf/trampoline.c", "__bpf_prog_enter_sleepable"),
                source("5.11", "kernel/bpf/trampoline.c", "__bpf_prog_enter_sleepable"),
                source("6.2", "include/linux/bpf_verifier.h", "bpf_prog_check_recur"),
                source("7.3", "kernel/bpf/trampoline.c", "bpf_tramp_image_put"),
            ],
            asleep::asked,
        ),
        Probe::new(
            "chain/own-hook-again",
            "When a helper leads to the hook of the program that calls it, does the program run again within its run?",
            &[
                source("5.9", "kernel/trace/bpf_trace.c", "bpf_probe_read_kernel_common"),
                source("5.12", "kernel/bpf/trampoline.c", "__bpf_prog_enter"),
                source("6.2", "include/linux/bpf_verifier.h", "bpf_prog_check_recur"),
                source("7.3", "security/integrity/ima/ima_crypto.c", "ima_calc_file_hash"),
            ],
            again::own_hook,
        ),
    ]
}

fn neighbour_probes() -> Vec<Probe> {
    let modify = [TARGET, source("7.3", "kernel/bpf/verifier.c", "check_attach_modify_return"), MOD_RET];
    let extension = [
        TARGET,
        source("7.3", "kernel/bpf/trampoline.c", "__bpf_trampoline_link_prog"),
        source("5.10", "kernel/bpf/verifier.c", "bpf_check_attach_target"),
    ];
    vec![
        Probe::new(
            "chain/fmod_ret-on-security-function",
            "With fmod_ret on security_task_getsid beside an LSM program, which runs first and whose verdict counts?",
            &modify,
            beside::fmod_ret_on_security,
        ),
        Probe::new(
            "chain/fentry-on-hook",
            "Can fentry be attached to a bpf_lsm_ function, and when does it run beside LSM programs?",
            &[TARGET, PREPARE],
            beside::fentry_on_hook,
        ),
        Probe::new(
            "chain/fexit-on-hook",
            "Can fexit be attached to a bpf_lsm_ function, and which return value does it see of a denial?",
            &[TARGET, PREPARE],
            beside::fexit_on_hook,
        ),
        Probe::new(
            "chain/fmod_ret-on-hook",
            "Can fmod_ret be attached to a bpf_lsm_ function, with or without a trampoline, and does it run?",
            &[TARGET, MOD_RET, source("5.7", "kernel/bpf/verifier.c", "check_attach_btf_id")],
            beside::fmod_ret_on_hook,
        ),
        Probe::new(
            "chain/fexit-on-void-hook",
            "On a void hook, where LSM programs are fexit programs, in which order do both kinds run?",
            &[TYPES, PREPARE],
            beside::fexit_on_void_hook,
        ),
        Probe::new(
            "chain/freplace-of-program",
            "Can an extension replace an LSM program, with the usual prototype, its context tagged, or no argument, or a global function of it?",
            &extension,
            replaced::freplace,
        ),
        Probe::new(
            "chain/freplace-while-attached",
            "Can an extension replace a function of an LSM program that is attached, and is its verdict the one used?",
            &extension,
            replaced::freplace_attached,
        ),
        Probe::new(
            "chain/fentry-on-program",
            "Can fentry and fexit be attached to an LSM program, and does fexit see its verdict?",
            &[TARGET, source("5.10", "kernel/bpf/verifier.c", "check_return_code")],
            replaced::fentry_on_program,
        )
        // 5.10 takes the tracer for an LSM program, and follows the prototype that it does not have.
        .crashing(),
        Probe::new(
            "chain/lsm-program-on-program",
            "Can an LSM program name another LSM program as what it attaches to?",
            &[source("7.3", "kernel/bpf/syscall.c", "bpf_prog_load_check_attach"), TARGET],
            replaced::lsm_on_program,
        ),
    ]
}

fn tail_probes() -> Vec<Probe> {
    let tails = [TAIL, source("6.1", "kernel/bpf/core.c", "bpf_prog_map_compatible")];
    vec![
        Probe::new(
            "chain/tail-call-same-hook",
            "Can a program tail-call another of its hook, and whose verdict counts?",
            &tails,
            tail::same_hook,
        ),
        Probe::new(
            "chain/tail-call-other-hook",
            "Can a program tail-call one of another hook, of the same prototype or of another, and may that one be put into its array?",
            &[TAIL, source("5.10", "kernel/bpf/core.c", "bpf_prog_array_compatible")],
            tail::other_hook,
        ),
        Probe::new(
            "chain/tail-call-sleepable",
            "Can sleepable and plain programs of one void hook be in one program array, and tail-call each other?",
            &tails,
            tail::sleepable,
        ),
        Probe::new(
            "chain/tail-call-missing",
            "Does a tail call to an empty place of the array fall through to the next instruction?",
            &[source("7.3", "arch/x86/net/bpf_jit_comp.c", "emit_bpf_tail_call_indirect")],
            tail::missing,
        ),
        Probe::new(
            "chain/tail-call-then-attach",
            "Can a program that is in a program array be attached as well, and does it then run in both ways?",
            &tails,
            tail::attached_too,
        ),
    ]
}
