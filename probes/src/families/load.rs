//! Loading: licence, privilege, what a program names, what it returns, and what a sleepable one may not do.
//!
//! Few of the programs here are attached.

mod callbacks;
mod main_types;
mod may_goto;
mod names;
mod privilege;
mod ret;
mod shape;
mod signed;
mod sleepable;
mod token;

use crate::spec::{Probe, Source, source};

const LOAD: Source = source("7.3", "kernel/bpf/syscall.c", "bpf_prog_load");
const LOAD_OLD: Source = source("5.10", "kernel/bpf/syscall.c", "bpf_prog_load");
const CHECK: Source = source("7.3", "kernel/bpf/syscall.c", "bpf_prog_load_check_attach");
const TARGET: Source = source("7.3", "kernel/bpf/verifier.c", "bpf_check_attach_target");
const VERIFY: Source = source("7.3", "kernel/bpf/bpf_lsm.c", "bpf_lsm_verify_prog");
const RANGE: Source = source("7.3", "kernel/bpf/bpf_lsm.c", "bpf_lsm_get_retval_range");
const RANGE_OLD: Source = source("5.10", "kernel/bpf/verifier.c", "check_return_code");
const MAPS: Source = source("7.3", "kernel/bpf/verifier.c", "check_map_prog_compatibility");
const HELPER: Source = source("7.3", "kernel/bpf/verifier.c", "check_helper_call");
const CONVERT: Source = source("7.3", "kernel/bpf/verifier.c", "coerce_reg_to_size_sx");
const SHIFT: Source = source("7.3", "kernel/bpf/verifier.c", "__scalar64_min_max_lsh");
const SUBPROG: Source = source("7.3", "kernel/bpf/verifier.c", "check_func_call");

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    let mut all = name_probes();
    all.extend(privilege_probes());
    all.extend(verdict_probes());
    all.extend(shape_probes());
    all.extend(sleepable_probes());
    all.extend(signed_probes());
    all
}

fn signed_probes() -> Vec<Probe> {
    let check = [
        source("7.0", "kernel/bpf/syscall.c", "bpf_prog_verify_signature"),
        source("7.3", "kernel/bpf/verifier.c", "bpf_prog_verify_signature"),
    ];
    vec![
        Probe::new(
            "load/signature",
            "What does the kernel say of an LSM program's signature, right or wrong, and what does it cover?",
            &check,
            signed::loaded,
        ),
        Probe::new(
            "load/signature-seen-by-hook",
            "What does a program on bpf_prog_load learn of the signature of what is loaded, and when is it asked?",
            &[check[0], check[1], source("7.0", "kernel/bpf/syscall.c", "bpf_prog_load")],
            signed::decided,
        ),
    ]
}

fn name_probes() -> Vec<Probe> {
    vec![
        Probe::new(
            "load/licence",
            "Which licences may an LSM program have?",
            &[VERIFY, source("7.3", "include/linux/license.h", "license_is_gpl_compatible")],
            names::licence,
        ),
        Probe::new(
            "load/attach-btf-id",
            "What does the kernel say of an attach_btf_id that is 0, no function, out of range, or of a module's function?",
            &[CHECK, TARGET, VERIFY],
            names::attach_btf_id,
        ),
        Probe::new(
            "load/attach-btf-id-of-disabled-hook",
            "What does the kernel say of hooks that programs may not attach to?",
            &[VERIFY],
            names::disabled_hooks,
        ),
        Probe::new(
            "load/attach-btf-id-of-security-function",
            "May an LSM program name a security_ function or a hook of another LSM?",
            &[VERIFY],
            names::other_functions,
        ),
        Probe::new(
            "load/attach-btf-obj-fd",
            "May attach_btf_obj_fd be the BTF of the kernel, of a module, of a program, a map, or no descriptor?",
            &[LOAD, CHECK, TARGET, source("6.1", "kernel/bpf/verifier.c", "bpf_check_attach_target")],
            names::attach_btf_obj_fd,
        ),
        Probe::new(
            "load/expected-attach-type",
            "With which expected_attach_type does an LSM program load, for a hook or for what fits the type?",
            &[TARGET, CHECK],
            names::expected_attach_type,
        ),
        Probe::new(
            "load/flags",
            "Which flags of BPF_PROG_LOAD does an LSM program load with?",
            &[LOAD, LOAD_OLD],
            names::flags,
        ),
        Probe::new(
            "load/prog-ifindex",
            "May an LSM program be for a network device?",
            &[source("7.3", "kernel/bpf/offload.c", "bpf_prog_dev_bound_init"), LOAD_OLD],
            names::ifindex,
        ),
        Probe::new(
            "load/name",
            "Which names may a program have?",
            &[source("7.3", "kernel/bpf/syscall.c", "bpf_obj_name_cpy")],
            names::name,
        ),
    ]
}

fn privilege_probes() -> Vec<Probe> {
    let needed = [LOAD, LOAD_OLD, source("7.3", "kernel/bpf/syscall.c", "is_perfmon_prog_type")];
    let with = |name: &str, question: &str, keep: &'static [u32]| {
        let question = format!("{question}, with kernel.unprivileged_bpf_disabled at 0 and at 2?");
        Probe::new(format!("load/{name}"), question, &needed, move |session| privilege::with(session, keep))
    };
    vec![
        with("without-capabilities", "Without capabilities, does an LSM program load", &[]),
        with("with-cap-bpf", "Is CAP_BPF alone enough to load an LSM program", &[privilege::CAP_BPF]),
        with(
            "with-cap-perfmon",
            "Is CAP_PERFMON alone enough to load an LSM program",
            &[privilege::CAP_PERFMON],
        ),
        with(
            "with-cap-bpf-and-perfmon",
            "Are CAP_BPF and CAP_PERFMON together enough to load an LSM program",
            &[privilege::CAP_BPF, privilege::CAP_PERFMON],
        ),
        with(
            "with-cap-sys-admin",
            "Is CAP_SYS_ADMIN alone enough to load an LSM program",
            &[privilege::CAP_SYS_ADMIN],
        ),
        with(
            "with-cap-mac-admin",
            "Is CAP_MAC_ADMIN, with CAP_BPF, enough to load an LSM program",
            &[privilege::CAP_BPF, privilege::CAP_MAC_ADMIN],
        ),
        Probe::new(
            "load/in-user-namespace",
            "Can a process that has every capability, but in a user namespace, load an LSM program?",
            &[LOAD, source("7.3", "kernel/bpf/token.c", "bpf_token_capable")],
            privilege::in_user_namespace,
        )
        .with_own_memory(),
        Probe::new(
            "load/with-token",
            "Can a process that has every capability, but in a user namespace, load an LSM program with a BPF token, and attach it?",
            &[LOAD, source("7.3", "kernel/bpf/token.c", "bpf_token_create")],
            token::load,
        ),
        Probe::new(
            "load/memlock",
            "Does RLIMIT_MEMLOCK keep a process from loading an LSM program?",
            &[source("5.10", "kernel/bpf/syscall.c", "bpf_prog_charge_memlock"), LOAD],
            privilege::memlock,
        ),
        // Switches the compiler off for the whole machine, and on again.
        Probe::new(
            "load/without-jit",
            "Can an LSM program be loaded, attached and run while net.core.bpf_jit_enable is 0?",
            &[source("7.3", "kernel/bpf/core.c", "__bpf_prog_select_runtime")],
            privilege::without_jit,
        )
        .own_machine(),
    ]
}

fn verdict_probes() -> Vec<Probe> {
    vec![
        Probe::new(
            "load/return-range-int",
            "Which numbers may a program on an int hook return?",
            &[RANGE, RANGE_OLD],
            shape::range_int,
        ),
        Probe::new(
            "load/return-range-void",
            "Which numbers may a program on a void hook return, and may it leave R0 unset?",
            &[RANGE, RANGE_OLD],
            shape::range_void,
        ),
        Probe::new(
            "load/return-range-bool",
            "Which numbers may a program return on a hook that answers yes or no?",
            &[RANGE, source("7.3", "kernel/bpf/bpf_lsm.c", "bool_lsm_hooks")],
            shape::range_bool,
        ),
        Probe::new(
            "load/return-pointer",
            "May a program return a pointer, its context, or a value that it read from a map?",
            &[RANGE, RANGE_OLD],
            shape::pointers,
        ),
        Probe::new(
            "load/ret-as-int",
            "With which loads, conversions, tests and detours may a program return ret, what earlier programs returned?",
            &[source("7.3", "kernel/bpf/verifier.c", "check_mem_access"), RANGE, CONVERT, SHIFT],
            ret::handed_on,
        ),
        Probe::new(
            "load/return-an-int-of-a-map",
            "Clamped in which way may an int that a program reads from a map be its verdict?",
            &[RANGE, RANGE_OLD, SHIFT],
            ret::of_a_map,
        ),
    ]
}

fn shape_probes() -> Vec<Probe> {
    vec![
        Probe::new(
            "load/test-run",
            "Does BPF_PROG_TEST_RUN run an LSM program?",
            &[source("7.3", "kernel/bpf/syscall.c", "bpf_prog_test_run")],
            shape::test_run,
        ),
        Probe::new(
            "load/static-subprogram",
            "Does the verifier know the range that a static function returns?",
            &[SUBPROG],
            shape::static_subprogram,
        ),
        Probe::new(
            "load/global-subprogram",
            "Does the verifier know the range that a global function returns, and may that be the verdict?",
            &[SUBPROG, source("7.3", "kernel/bpf/btf.c", "btf_prepare_func_args")],
            shape::global_subprogram,
        ),
        Probe::new(
            "load/global-subprogram-arguments",
            "Which arguments may a global function of an LSM program have, plain and with declaration tags?",
            &[source("7.3", "kernel/bpf/btf.c", "btf_prepare_func_args")],
            shape::global_arguments,
        ),
        Probe::new(
            "load/types-of-main",
            "What does the log say of the types that a program's BTF gives its main function, where it is accepted, and before the reason where it is refused for something else?",
            &[
                source("5.10", "kernel/bpf/btf.c", "btf_check_func_arg_match"),
                source("6.1", "kernel/bpf/verifier.c", "do_check_common"),
                source("6.1", "kernel/bpf/btf.c", "btf_check_subprog_arg_match"),
                source("7.3", "kernel/bpf/btf.c", "btf_prepare_func_args"),
            ],
            main_types::told,
        ),
        Probe::new(
            "load/without-own-btf",
            "Does an LSM program load without BTF of its own, also with subprograms and callbacks?",
            &[source("7.3", "kernel/bpf/check_btf.c", "bpf_prepare_btf_info")],
            shape::without_btf,
        ),
        Probe::new(
            "load/mistakes",
            "What does the verifier say of a program without exit, with unset registers, a loop, or dead code?",
            &[source("7.3", "kernel/bpf/verifier.c", "do_check")],
            shape::mistakes,
        ),
        Probe::new(
            "load/size",
            "How many instructions may an LSM program have?",
            &[LOAD, LOAD_OLD],
            shape::size,
        ),
        Probe::new(
            "load/stack",
            "How much stack may an LSM program use?",
            &[source("7.3", "kernel/bpf/verifier.c", "check_stack_access_within_bounds")],
            shape::stack,
        ),
        Probe::new(
            "load/may-goto",
            "May a program loop with may_goto, how does the kernel end a loop without end, and does the verdict after it count?",
            &[
                source("6.9", "kernel/bpf/verifier.c", "do_misc_fixups"),
                source("7.3", "kernel/bpf/fixups.c", "bpf_do_misc_fixups"),
                source("7.3", "kernel/bpf/core.c", "bpf_check_timed_may_goto"),
            ],
            may_goto::loops,
        ),
    ]
}

fn sleepable_probes() -> Vec<Probe> {
    vec![
        Probe::new(
            "load/sleepable-hook",
            "On which kind of hook may a program be sleepable, and what is said of the others?",
            &[source("7.3", "kernel/bpf/bpf_lsm.c", "sleepable_lsm_hooks"), TARGET],
            sleepable::hook,
        ),
        Probe::new(
            "load/sleepable-helper-in-plain",
            "May a plain program call a helper that sleeps, and a sleepable one?",
            &[HELPER],
            sleepable::helper_in_plain,
        ),
        Probe::new(
            "load/sleepable-spin-lock",
            "May a sleepable program use a spin lock, and call a helper that sleeps while it holds it?",
            &[source("7.3", "kernel/bpf/verifier.c", "process_spin_lock"), MAPS],
            sleepable::spin_lock,
        ),
        Probe::new(
            "load/sleepable-timer",
            "May a sleepable program use a timer?",
            &[HELPER, MAPS],
            sleepable::timer,
        ),
        Probe::new(
            "load/sleepable-tail-call",
            "May a sleepable program make a tail call?",
            &[MAPS, HELPER],
            sleepable::tail_call,
        ),
        Probe::new(
            "load/sleepable-rcu-section",
            "May a sleepable program open an RCU section, sleep in it, leave it open, or nest it?",
            &[source("7.3", "kernel/bpf/verifier.c", "check_kfunc_call")],
            sleepable::rcu,
        ),
        Probe::new(
            "load/callback-that-sleeps",
            "May a callback of a timer, work queue, task work, loop or map call a helper that sleeps?",
            &[
                source("6.14", "kernel/bpf/verifier.c", "push_async_cb"),
                source("6.14", "kernel/bpf/verifier.c", "in_sleepable"),
                source("7.3", "kernel/bpf/verifier.c", "is_async_cb_sleepable"),
                HELPER,
            ],
            callbacks::sleeping,
        ),
    ]
}
