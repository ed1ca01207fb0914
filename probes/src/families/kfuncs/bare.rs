//! A program that does no more than call a kfunc, and what its refusal says: the kernel looks at who calls before it
//! looks at what is passed.

use super::own::{Holds, Own};
use super::refusal;
use crate::asm::Asm;
use crate::bpf::{
    self, BPF_F_SLEEPABLE, BPF_PROG_TYPE_TRACING, BPF_TRACE_FENTRY, LoadError, Loaded, ProgSpec,
};
use crate::errno::Errno;
use crate::insn::Reg;
use crate::record::Phase;
use crate::session::{Attempt, Ended};

/// What is said of a kfunc that is not for such programs.
pub(in crate::families) const NOT_ALLOWED: &str = "may NOT call it";
/// Of one that is.
pub(super) const MAY: &str = "may call it";
/// Of one that sleeps (`KF_SLEEPABLE`), for a program that may not.
pub(super) const SLEEPS: &str = "only a program that may sleep may call it";
/// Of one that is refused whoever calls it with whatever.
pub(super) const NEVER: &str = "no program may call it";
/// Of a name that is in BTF and not in the kernel. Since 7.0 `.._impl` may be no more than the full prototype of a kfunc with
/// implicit arguments (7.3 kernel/bpf/verifier.c, `find_kfunc_impl_proto`).
pub(super) const NO_ADDRESS: &str = "it has a prototype and no address";
/// Of a kernel without calls of kfuncs.
pub(super) const NO_CALLS: &str = "the kernel knows no calls of kfuncs";

/// What a refusal says that does not depend on what is passed. In turn: 7.3 kernel/bpf/verifier.c, `check_kfunc_call`, of
/// a kfunc that compilers put in the place of what is undefined; 6.11 kernel/bpf/btf.c, `get_kern_ctx_btf_id`, since what
/// an LSM program gets is an array of numbers; 6.11 kernel/bpf/verifier.c, `check_kfunc_call`, of `bpf_dynptr_slice_rdwr`
/// with any dynptr (`may_access_direct_pkt_data`); 6.4 there, `check_kfunc_args`, which has the kfunc and takes no call.
const UNCONDITIONAL: &[&str] = &[
    "unexpected __bpf_trap() due to uninitialized variable?",
    "kern ctx type id ",
    "the prog does not allow writes to packet data",
    "bpf_refcount_acquire calls are disabled for now",
];

/// The log shows the call once the verifier has come to it, where it first asks who makes it.
pub(super) const CALL: &str = "(85) call ";

/// Whether such a program may call a kfunc.
#[derive(Debug)]
pub(super) struct Answer {
    /// In words.
    pub(super) word: &'static str,
    /// The refusal behind [`NEVER`].
    pub(super) refused: Option<LoadError>,
}

impl From<&'static str> for Answer {
    fn from(word: &'static str) -> Self {
        Self { word, refused: None }
    }
}

/// As which kind of program a kfunc is called.
#[derive(Clone, Copy)]
pub(super) enum Caller {
    /// An LSM program with these flags.
    Lsm(u32),
    /// A tracing program on the function that the hook is.
    Fentry,
}

/// Loads a program that calls a kfunc and does nothing else.
pub(super) fn load(
    attempt: &mut Attempt<'_>,
    caller: Caller,
    hook: &str,
    kfunc: u32,
    own: Option<&Own>,
) -> Result<Result<Loaded, LoadError>, Ended> {
    let mut asm = Asm::new();
    if let Some(map) = own.and_then(|own| own.map.as_ref()) {
        asm.ld_map_fd(Reg::R2, map);
    }
    asm.call_kfunc(kfunc, 0).mov_imm(Reg::R0, 0).exit();
    let insns = asm.finish().map_err(|error| Ended::could_not("assemble the program", error))?;
    let lsm = ProgSpec::lsm("bare_call", attempt.hook(hook)?, insns);
    let spec = match caller {
        Caller::Lsm(flags) => ProgSpec { flags, ..lsm },
        Caller::Fentry => {
            ProgSpec { prog_type: BPF_PROG_TYPE_TRACING, expected_attach_type: BPF_TRACE_FENTRY, ..lsm }
        }
    };
    attempt.at(Phase::Load);
    Ok(bpf::prog_load_logged(&spec, 1))
}

/// Whether a kind of program may call a kfunc, in words.
///
/// # Errors
/// As [`ask`].
pub(in crate::families) fn bare_call(
    attempt: &mut Attempt<'_>,
    hook: &str,
    kfunc: u32,
    flags: u32,
) -> Result<&'static str, Ended> {
    ask(attempt, hook, kfunc, flags).map(|answer| answer.word)
}

/// Loads a program that only calls a kfunc, and says whether its kind of program may.
///
/// The kernel looks at the program type before the arguments, and from 6.2 on also at whether the program may sleep
/// (6.12 kernel/bpf/verifier.c, `check_kfunc_call`; on 6.1 that comes last, kernel/bpf/btf.c,
/// `btf_check_func_arg_match`, so that such a call does not hear of it). Any other refusal that such a call meets once the
/// verifier has come to it is about what is passed.
///
/// # Errors
/// [`Ended::CouldNotTell`] for a refusal that says nothing of it.
pub(super) fn ask(attempt: &mut Attempt<'_>, hook: &str, kfunc: u32, flags: u32) -> Result<Answer, Ended> {
    let Err(mut error) = load(attempt, Caller::Lsm(flags), hook, kfunc, None)? else { return Ok(MAY.into()) };
    // Of what takes addresses of an arena the program must have one, before it is asked who it is (7.3
    // kernel/bpf/verifier.c, gen_kfunc_arg_proto).
    if error.log.contains("requires a program with an associated arena") {
        let own = Own::make(attempt, Holds::Arena)?;
        match load(attempt, Caller::Lsm(flags), hook, kfunc, own.as_ref())? {
            Ok(_) => return Ok(MAY.into()),
            Err(again) => error = again,
        }
    }
    if let Some(why) = refusal::of_the_build(&error.log) {
        return Err(Ended::CouldNotTell(why));
    }
    if let Some(word) = word_of(&error.log) {
        let refused = (word == NEVER).then_some(error);
        return Ok(Answer { word, refused });
    }
    if error.log.is_empty() && flags & BPF_F_SLEEPABLE != 0 && knows_no_sleepable(attempt)? {
        Ok("there are no sleepable programs".into())
    } else if error.log.trim().is_empty() {
        Err(Ended::could_not("learn whether the call is allowed", error.errno))
    } else {
        Err(Ended::could_not("tell what the refusal is about", error.log.trim()))
    }
}

/// What the log of a refusal says of the call. What is asked first comes first.
fn word_of(log: &str) -> Option<&'static str> {
    let said = |text: &str| log.lines().any(|line| line.contains(text));
    let word = if said("calling kernel function ") && said(" is not allowed") {
        NOT_ALLOWED
    } else if said("cannot find address for kernel function ") {
        NO_ADDRESS
    } else if said("program must be sleepable to call sleepable kfunc ") {
        SLEEPS
    } else if said(" is not sleepable") {
        // Of the hook, which is asked about before anything of the program (5.10 kernel/bpf/verifier.c,
        // check_attach_btf_id).
        "no such program is for the hook that this asks with"
    } else if said("require device-bound program") {
        "no LSM program: only one that is bound to a device may call it, which none can be"
    } else if said("BPF_CALL uses reserved fields") {
        // Before 5.13 (5.10 kernel/bpf/verifier.c, do_check): the function is there, but no program can call it.
        NO_CALLS
    } else if is_unconditional(log) {
        NEVER
    } else if said(CALL) {
        MAY
    } else if said("does not have a valid func_proto") {
        // The other side of it: implicit arguments, and no `.._impl` (7.1 kernel/bpf/verifier.c, find_kfunc_impl_proto).
        "no program can: the kernel's BTF lacks its full prototype"
    } else if said(" must point to scalar, or struct with scalar") {
        // From 7.3 on a prototype is looked at when the program's calls are collected, who makes them after that (7.3
        // kernel/bpf/verifier.c, gen_kfunc_arg_proto).
        "no program can: one of its arguments is nothing that a program could give"
    } else {
        return None;
    };
    Some(word)
}

/// Whether what was passed has nothing to do with a refusal, nor has who called.
pub(super) fn is_unconditional(log: &str) -> bool {
    log.lines().any(|line| UNCONDITIONAL.iter().any(|text| line.contains(text)))
}

/// Whether the kernel refuses every program that wants to sleep before the verifier sees it, as kernels before 5.10 do
/// (5.9 kernel/bpf/syscall.c, `bpf_prog_load`: a flag that it does not know).
fn knows_no_sleepable(attempt: &Attempt<'_>) -> Result<bool, Ended> {
    let mut asm = Asm::new();
    asm.mov_imm(Reg::R0, 0).exit();
    let insns = asm.finish().map_err(|error| Ended::could_not("assemble the program", error))?;
    // A hook that is sleepable wherever any is (5.10 kernel/bpf/verifier.c, btf_sleepable_lsm_hooks).
    let spec = ProgSpec::lsm("sleeps", attempt.hook("bprm_committed_creds")?, insns).sleepable();
    Ok(
        matches!(bpf::prog_load_logged(&spec, 1), Err(error) if error.errno == Errno::EINVAL && error.log.is_empty()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("0: (85) call bpf_a#70000\nR1 must be referenced or trusted\n", Some(MAY))]
    #[case("0: (85) call bpf_a#70000\ncalling kernel function bpf_a is not allowed\n", Some(NOT_ALLOWED))]
    #[case(
        "0: (85) call bpf_a#70000\nprogram must be sleepable to call sleepable kfunc bpf_a\n",
        Some(SLEEPS)
    )]
    #[case(
        "0: (85) call __bpf_trap#70000\nunexpected __bpf_trap() due to uninitialized variable?\n",
        Some(NEVER)
    )]
    #[case("0: (85) call bpf_cast_to_kern_ctx#70000\nkern ctx type id 7 is not a struct\n", Some(NEVER))]
    #[case("something that nobody knows\n", None)]
    fn a_refusal_is_about_who_calls_or_about_what_is_passed(#[case] log: &str, #[case] word: Option<&str>) {
        assert_eq!(word_of(log), word);
    }
}
