//! Who may call a helper: asked with a call and nothing else, in one program of each kind in which the kernel's answer
//! can differ.
//!
//! The kernel looks at the number, the kind of program, the licence and the helper's own condition before it looks at
//! arguments (6.12 kernel/bpf/verifier.c, `check_helper_call`), so of the refusals that a bare call meets few mean that
//! it may not be made. The answers of the program type are in 6.12 kernel/bpf/bpf_lsm.c, `bpf_lsm_func_proto`: they
//! depend on the attach type and on the hook.
//!
//! Two conditions on the program come after the arguments and show here all the same: `bpf_set_retval`'s, which is given
//! its argument, and `bpf_get_func_ip`'s, which takes the context alone, and that is there (`check_get_func_ip`). What
//! kinds of maps a program may use is no part of the question: a helper may be callable by programs that may sleep and
//! have no map that they can give it (`check_map_prog_compatibility`), which the row's `canonical-sleepable` shows.

use super::bench::Bench;
use crate::asm::Asm;
use crate::bpf::{self, BPF_F_SLEEPABLE, BPF_LSM_CGROUP, BPF_LSM_MAC, LoadError, ProgSpec};
use crate::errno::Errno;
use crate::helper::{self, HELPERS};
use crate::insn::Reg;
use crate::record::Phase;
use crate::session::{Attempt, Ended};
use crate::spec::{Probe, Source, source};
use crate::triggers::creds::without_capability;
use std::sync::atomic::{AtomicBool, Ordering};

/// What answers the question, whatever the helper.
pub(super) const SOURCES: &[Source] = &[
    source("6.12", "kernel/bpf/bpf_lsm.c", "bpf_lsm_func_proto"),
    source("6.12", "kernel/bpf/verifier.c", "check_helper_call"),
];

/// A kind of program.
pub(super) struct Caller {
    /// What it is called in records.
    name: &'static str,
    hook: &'static str,
    attach_type: u32,
    flags: u32,
    /// A capability that the loading process goes without.
    without: Option<Capability>,
}

/// A capability's number (include/uapi/linux/capability.h).
type Capability = u32;
const CAP_SYS_ADMIN: Capability = 21;

const fn mac(name: &'static str, hook: &'static str) -> Caller {
    Caller { name, hook, attach_type: BPF_LSM_MAC, flags: 0, without: None }
}

const fn cgroup(name: &'static str, hook: &'static str) -> Caller {
    Caller { attach_type: BPF_LSM_CGROUP, ..mac(name, hook) }
}

/// A program on a general hook, as most are.
pub(super) const GENERAL: Caller = mac("file_open", "file_open");

/// A hook that every kernel leaves out of the set of those whose programs may sleep (6.1 and 7.3 kernel/bpf/bpf_lsm.c,
/// `sleepable_lsm_hooks`); of those that are called with their socket locked `inet_conn_established` is in it in some.
const OF_NO_SLEEP: &str = "inet_csk_clone";

/// The kinds of programs: on a general hook, where IMA applies too; with a `linux_binprm`; on a socket before it is
/// locked, and after, which is also a void hook and outside the set of sleepable ones.
const CALLERS: &[Caller] = &[
    GENERAL,
    Caller { flags: BPF_F_SLEEPABLE, ..mac("file_open, sleepable", "file_open") },
    Caller { without: Some(CAP_SYS_ADMIN), ..mac("file_open, without CAP_SYS_ADMIN", "file_open") },
    mac("bprm_check_security", "bprm_check_security"),
    mac("socket_post_create", "socket_post_create"),
    mac("inet_csk_clone", OF_NO_SLEEP),
    cgroup("file_open, of a cgroup", "file_open"),
    cgroup("socket_post_create, of a cgroup", "socket_post_create"),
    cgroup("inet_csk_clone, of a cgroup", OF_NO_SLEEP),
    // There are such programs on some kernels only, as `cgroup/sleepable` shows.
    Caller { flags: BPF_F_SLEEPABLE, ..cgroup("file_open, of a cgroup, sleepable", "file_open") },
];

/// Whether the kernel has said that there are no programs of a kind. It says so of the attach type and of the hook, before
/// it looks at an instruction (5.10 kernel/bpf/syscall.c, `bpf_prog_load_check_attach`; kernel/bpf/verifier.c,
/// `bpf_check_attach_target`), so that it is asked but once for all helpers: each time takes 5.10 3 ms, to find the hook's
/// address.
static MISSING: [AtomicBool; CALLERS.len()] = [const { AtomicBool::new(false) }; CALLERS.len()];

/// The one hook that 5.10 has sleepable programs for, asked about where the general hook has none.
const SLEEPABLE_BEFORE_5_11: Caller =
    Caller { flags: BPF_F_SLEEPABLE, ..mac("bprm_committed_creds, sleepable", "bprm_committed_creds") };

/// A probe for each helper that has no row: who may call it, and no more.
pub(super) fn probes(has_row: impl Fn(u32) -> bool) -> Vec<Probe> {
    let others = HELPERS.iter().filter(|(number, _)| !has_row(*number));
    let mut probes: Vec<Probe> = others
        .map(|&(number, name)| {
            let question = format!("Which LSM programs may call bpf_{name}?");
            Probe::new(format!("helpers/bpf_{name}"), question, SOURCES, move |session| {
                session.case("callable", |attempt| callable(attempt, number))
            })
            .without_files()
        })
        .collect();
    probes.push(Probe::new(
        "helpers/beyond-the-known",
        "Which is the last helper number that the kernel knows?",
        SOURCES,
        |session| session.case("numbers", beyond),
    ));
    probes
}

/// What is said of bpf_set_retval on a hook that has nothing to set.
const ON_A_VOID_HOOK: &str = "BPF_LSM_CGROUP that attach to void LSM hooks can't modify return value!";

/// What the end of a misuse says: nothing, where the program was refused for calling the helper at all, where there are no
/// such programs, and where it was refused for calling another helper.
pub(super) fn judge_misuse(bench: &mut Bench<'_, '_>, ended: Result<(), Ended>) -> Result<(), Ended> {
    let Err(Ended::Refused(errno)) = ended else { return ended };
    let refused = LoadError { errno, log: bench.attempt.load_log().to_owned() };
    if refused.log.contains(ON_A_VOID_HOOK) {
        return Err(Ended::Refused(errno)); // that is a misuse
    }
    if let Some(line) = about_another(&refused.log, bench.helper()) {
        return Err(bench.attempt.undecided(format!("it is refused for another helper: {line}")));
    }
    match meaning(&refused, bench.helper()) {
        Ok(Answer::NotOfThisType | Answer::NotAllowed) => {
            Err(bench.attempt.undecided("the intended use is refused as well"))
        }
        // Without a log it may have been refused in another phase, for something else.
        Ok(_) | Err(_) => judge_kind(bench, Err(Ended::Refused(errno))),
    }
}

/// What the end of any other use says where the program was refused for calling another helper than the row's: what a call
/// of that one alone is refused with, if it may not be made, and else nothing.
pub(super) fn judge_use(bench: &mut Bench<'_, '_>, ended: Result<(), Ended>) -> Result<(), Ended> {
    let Err(Ended::Refused(_)) = ended else { return ended };
    let Some(line) = about_another(bench.attempt.load_log(), bench.helper()) else { return ended };
    let before = bench.attempt.load_log().len();
    let bare = bench.bare_call();
    if let Err(Ended::Refused(errno)) = bare {
        let log = bench.attempt.load_log().get(before..).unwrap_or_default().to_owned();
        match meaning(&LoadError { errno, log }, bench.helper()) {
            Ok(Answer::Callable) | Err(_) => {}
            Ok(_) => return bare,
        }
    }
    Err(bench.attempt.undecided(format!("it is refused for another helper: {line}")))
}

/// What the end of a use says that is neither the normal one nor a misuse: nothing, where the kernel has no programs of the
/// kind that the case is about, or has no LSM program call the helper.
pub(super) fn judge_kind(bench: &mut Bench<'_, '_>, ended: Result<(), Ended>) -> Result<(), Ended> {
    let Err(Ended::Refused(errno)) = ended else { return ended };
    let refused = LoadError { errno, log: bench.attempt.load_log().to_owned() };
    let says_nothing = match meaning(&refused, bench.helper()) {
        Ok(Answer::NoSuchProgram(_)) => bench.kind_is_missing(),
        Ok(Answer::NotOfThisType | Answer::NotAllowed) => callable_by_none(bench),
        Ok(_) | Err(_) => false,
    };
    if says_nothing {
        return Err(bench.attempt.undecided("the intended use is refused as well"));
    }
    Err(Ended::Refused(errno))
}

/// The line of the log that says of another helper than this that the program may not call it.
fn about_another(log: &str, number: u32) -> Option<String> {
    let line =
        log.lines().map(str::trim).find(|line| MAY_NOT_CALL.iter().any(|text| line.starts_with(text)))?;
    (!line.ends_with(&format!("#{number}"))).then(|| line.to_owned())
}

/// How the lines begin that name a helper that the program may not call, which ends the verifier's work.
const MAY_NOT_CALL: [&str; 3] = [NOT_THERE, NOT_OF_THIS_TYPE[0], NOT_OF_THIS_TYPE[1]];
const NOT_THERE: &str = "invalid func ";
/// In turn: until 6.9 and from 6.10 (6.12 kernel/bpf/verifier.c, `check_helper_call`).
const NOT_OF_THIS_TYPE: [&str; 2] = ["unknown func ", "program of this type cannot use helper "];

/// Whether the kernel has no programs of a cgroup.
pub(super) fn none_of_a_cgroup(attempt: &Attempt<'_>, number: u32) -> bool {
    matches!(ask(attempt, &cgroup(GENERAL.name, GENERAL.hook), number), Ok(Answer::NoSuchProgram(_)))
}

/// Whether the kernel has no programs that may sleep, on the hook that has them everywhere if any has.
pub(super) fn none_sleeps(attempt: &Attempt<'_>, number: u32) -> bool {
    matches!(ask(attempt, &SLEEPABLE_BEFORE_5_11, number), Ok(Answer::NoSuchProgram(_)))
}

/// Whether no LSM program of any kind may call the helper.
fn callable_by_none(bench: &Bench<'_, '_>) -> bool {
    let mut callers = CALLERS.iter().chain([&SLEEPABLE_BEFORE_5_11]);
    let may = |answer: Answer| matches!(answer, Answer::Callable);
    callers.all(|caller| ask(bench.attempt, caller, bench.helper()).is_ok_and(|answer| !may(answer)))
}

/// Asks for every kind of program.
pub(super) fn callable(attempt: &mut Attempt<'_>, number: u32) -> Result<(), Ended> {
    attempt.at(Phase::Load);
    let mut answers = Vec::new();
    for (caller, missing) in CALLERS.iter().zip(&MISSING) {
        let answer = match missing.load(Ordering::Relaxed) {
            false => ask(attempt, caller, number)?,
            true => Answer::NoSuchProgram(Errno::EINVAL),
        };
        if matches!(answer, Answer::NoSuchProgram(Errno::EINVAL)) {
            missing.store(true, Ordering::Relaxed);
        }
        // Such a number is unknown to every program: it is looked at before anything else.
        if matches!(answer, Answer::NoSuchHelper) {
            return Err(Ended::no_helper(number));
        }
        let none_sleeps = matches!(answer, Answer::NoSuchProgram(_))
            && caller.flags & BPF_F_SLEEPABLE != 0
            && caller.attach_type == BPF_LSM_MAC;
        answers.push((caller, answer));
        if none_sleeps {
            answers.push((&SLEEPABLE_BEFORE_5_11, ask(attempt, &SLEEPABLE_BEFORE_5_11, number)?));
        }
    }
    attempt.see("may be called by", condition(&answers));
    for (caller, answer) in &answers {
        attempt.see(caller.name, answer.text());
    }
    Ok(())
}

/// What the answers have in common, for a reader in a hurry. Kinds of programs that there are not do not count, nor those
/// that the process may not load, whatever they call: it says who may call the helper.
fn condition(answers: &[(&Caller, Answer)]) -> &'static str {
    let none = |answer: &Answer| matches!(answer, Answer::NoSuchProgram(_) | Answer::NotForThisProcess(_));
    let there = || answers.iter().filter(|(_, answer)| !none(answer));
    let may = |answer: &Answer| matches!(answer, Answer::Callable);
    let exactly = |who: fn(&Caller) -> bool| there().all(|(caller, answer)| may(answer) == who(caller));
    let is_plain = |caller: &Caller| caller.without.is_none();
    if exactly(|_| true) {
        "every program"
    } else if exactly(|_| false) {
        "no program"
    } else if exactly(is_plain) {
        "every program that was loaded with CAP_SYS_ADMIN"
    } else if exactly(|caller| caller.flags & BPF_F_SLEEPABLE != 0) {
        "programs that may sleep"
    } else if exactly(|caller| caller.attach_type == BPF_LSM_CGROUP) {
        "programs of a cgroup"
    } else if exactly(|caller| caller.attach_type != BPF_LSM_CGROUP) {
        "programs of BPF_LSM_MAC"
    } else if exactly(|caller| caller.hook != OF_NO_SLEEP) {
        "programs on hooks where others may sleep"
    } else if there().all(|(caller, answer)| !may(answer) || caller.attach_type == BPF_LSM_CGROUP) {
        "programs of a cgroup, on some hooks"
    } else {
        "some programs, as follows"
    }
}

/// Goes up from the first number until the kernel knows no more. The bound is far beyond any kernel.
fn beyond(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    let Some(caller) = CALLERS.first() else { return Ok(()) };
    attempt.at(Phase::Load);
    // Numbers are never taken back, so those that a known kernel has are passed over in strides.
    let mut number = 1;
    for stride in [64, 8, 1] {
        while number < 4096 && !matches!(ask(attempt, caller, number + stride)?, Answer::NoSuchHelper) {
            number += stride;
        }
    }
    attempt.see("the last number that the kernel knows", number);
    let name = helper::name(number);
    attempt
        .see("it is", name.map_or_else(|| "unknown to this suite".to_owned(), |name| format!("bpf_{name}")));
    Ok(())
}

/// Notes on which of these hooks a program of a cgroup may call the helper.
pub(super) fn on_hooks_of_cgroups(
    attempt: &mut Attempt<'_>,
    number: u32,
    hooks: &[&'static str],
) -> Result<(), Ended> {
    attempt.at(Phase::Load);
    for hook in hooks {
        let answer = match ask(attempt, &cgroup(hook, hook), number) {
            Err(Ended::Absent(_)) => "there is no such hook".to_owned(),
            Ok(Answer::NoSuchProgram(errno)) => return Err(Ended::Refused(errno)),
            answer => answer?.text(),
        };
        attempt.see(hook, answer);
    }
    Ok(())
}

/// Whether such a program may call the helper.
pub(super) fn may_call(attempt: &Attempt<'_>, caller: &Caller, number: u32) -> Result<bool, Ended> {
    Ok(matches!(ask(attempt, caller, number)?, Answer::Callable))
}

enum Answer {
    NoSuchHelper,
    Callable,
    NotOfThisType,
    NotAllowed,
    NotSleepable,
    NoSuchProgram(Errno),
    /// There are such programs, and the process lacks the right to load one.
    NotForThisProcess(Errno),
}

impl Answer {
    /// As records say it.
    fn text(&self) -> String {
        match self {
            Self::NoSuchHelper => "there is no such helper".to_owned(),
            Self::Callable => "yes".to_owned(),
            Self::NotOfThisType => "no".to_owned(),
            Self::NotAllowed => "no, the helper has a condition of its own".to_owned(),
            Self::NotSleepable => "no, it can sleep and the program may not".to_owned(),
            Self::NoSuchProgram(errno) => format!("there is no such program, {errno}"),
            Self::NotForThisProcess(errno) => format!("there is none that the process may load, {errno}"),
        }
    }
}

fn ask(attempt: &Attempt<'_>, caller: &Caller, number: u32) -> Result<Answer, Ended> {
    let mut asm = Asm::new();
    if number == helper::SET_RETVAL {
        // 7.3 looks at its argument before it looks at the hook (kernel/bpf/verifier.c, check_helper_call).
        asm.mov_imm(Reg::R1, 0);
    }
    // A cgroup's program on a void hook must return 1 (6.1 kernel/bpf/verifier.c, check_return_code).
    asm.call(number).mov_imm(Reg::R0, i32::from(caller.attach_type == BPF_LSM_CGROUP)).exit();
    let insns = asm.finish().map_err(|error| Ended::could_not("assemble the program", error))?;
    let spec = ProgSpec {
        flags: caller.flags,
        expected_attach_type: caller.attach_type,
        ..ProgSpec::lsm("bare_call", attempt.hook(caller.hook)?, insns)
    };
    let load = || bpf::prog_load_logged(&spec, 1);
    let loaded = match caller.without {
        Some(capability) => without_capability(capability, load)
            .map_err(|errno| Ended::could_not("drop a capability", errno))?,
        None => load(),
    };
    match loaded {
        Ok(_) => Ok(Answer::Callable),
        Err(error) => match (meaning(&error, number)?, caller.without) {
            // Until 5.7 it is CAP_SYS_ADMIN that lets a process load (5.7 kernel/bpf/syscall.c, `bpf_prog_load`).
            (Answer::NoSuchProgram(Errno::EPERM), Some(_)) => Ok(Answer::NotForThisProcess(Errno::EPERM)),
            (answer, _) => Ok(answer),
        },
    }
}

/// What a refusal of a bare call says about the call.
fn meaning(error: &LoadError, number: u32) -> Result<Answer, Ended> {
    let says = |text: &str| error.log.lines().any(|line| line.starts_with(text));
    let of_this = |line: &str| line.trim_end().ends_with(&format!("#{number}"));
    let names_it = |text: &str| error.log.lines().any(|line| line.starts_with(text) && of_this(line));
    if names_it(NOT_THERE) {
        Ok(Answer::NoSuchHelper)
    } else if NOT_OF_THIS_TYPE.into_iter().any(names_it) {
        Ok(Answer::NotOfThisType)
    } else if says("helper call is not allowed in probe")
        || says("func ") && error.log.contains(" not supported for program type ")
        || says(ON_A_VOID_HOOK)
    {
        Ok(Answer::NotAllowed)
    } else if says("helper call might sleep in a non-sleepable prog") || says("sleepable helper ") {
        Ok(Answer::NotSleepable)
    } else if error.log.lines().any(about_arguments) {
        Ok(Answer::Callable)
    } else if is_of_the_kind(error) {
        Ok(Answer::NoSuchProgram(error.errno))
    } else {
        Err(Ended::could_not("tell what the refusal is about", error.log.trim()))
    }
}

/// Whether a refusal is of the kind of program, before the verifier came to its instructions.
pub(super) fn is_of_the_kind(error: &LoadError) -> bool {
    error.log.lines().all(is_statistics) || error.log.lines().any(of_a_kind_that_never_sleeps)
}

/// Whether a line of the log says that there are no sleepable programs of this attach type or on this hook (6.12 and 7.3
/// kernel/bpf/verifier.c, `check_attach_btf_id`, `can_be_sleepable`).
fn of_a_kind_that_never_sleeps(line: &str) -> bool {
    [" is not sleepable", " programs can be sleepable", "Program of this type cannot be sleepable"]
        .into_iter()
        .any(|end| line.ends_with(end))
}

/// Whether a line of the log says nothing, or only how much work there was.
fn is_statistics(line: &str) -> bool {
    line.trim().is_empty() || line.starts_with("processed ")
}

/// Whether a line of the log is about what is in the argument registers, which comes after the question of who may
/// call. The program sets none of them but R1, its context.
fn about_arguments(line: &str) -> bool {
    let mut chars = line.chars();
    // States of registers, which the log shows on the way, have `=` there.
    chars.next() == Some('R')
        && chars.next().is_some_and(|c| ('1'..='5').contains(&c))
        && chars.next() == Some(' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn answers_are_summed_up() {
        let all = |may: fn(&Caller) -> bool| {
            let answer = |caller| if may(caller) { Answer::Callable } else { Answer::NotOfThisType };
            condition(&CALLERS.iter().map(|caller| (caller, answer(caller))).collect::<Vec<_>>())
        };
        assert_eq!(all(|_| true), "every program");
        assert_eq!(all(|_| false), "no program");
        assert_eq!(
            all(|caller| caller.without.is_none()),
            "every program that was loaded with CAP_SYS_ADMIN"
        );
        assert_eq!(all(|caller| caller.flags != 0), "programs that may sleep");
        assert_eq!(all(|caller| caller.attach_type == BPF_LSM_CGROUP), "programs of a cgroup");
        assert_eq!(all(|caller| caller.attach_type == BPF_LSM_MAC), "programs of BPF_LSM_MAC");
        assert_eq!(all(|caller| caller.hook != OF_NO_SLEEP), "programs on hooks where others may sleep");
        assert_eq!(all(|caller| caller.hook == OF_NO_SLEEP), "some programs, as follows");
        let none = (&SLEEPABLE_BEFORE_5_11, Answer::NoSuchProgram(Errno::EINVAL));
        assert_eq!(condition(&[(&GENERAL, Answer::Callable), none]), "every program");
    }

    #[test]
    fn a_refusal_may_be_about_another_helper() {
        let log = "0: (85) call bpf_x#7\nunknown func bpf_x#7\nprocessed 1 insns\n";
        assert_eq!(about_another(log, 7), None);
        assert_eq!(about_another(log, 8).as_deref(), Some("unknown func bpf_x#7"));
        assert_eq!(about_another("0: (85) call bpf_x#7\nR1 type=ctx expected=map_ptr\n", 8), None);
        assert_eq!(about_another("invalid func unknown#17\n", 7).as_deref(), Some("invalid func unknown#17"));
    }

    #[rstest]
    #[case("invalid func unknown#212\n", Some("none"))]
    #[case("unknown func bpf_x#7\n", Some("type"))]
    #[case(
        "0: R1=ctx() R10=fp0\n0: (85) call bpf_x#7\nprogram of this type cannot use helper bpf_x#7\n",
        Some("type")
    )]
    #[case("helper call is not allowed in probe\n", Some("condition"))]
    #[case("helper call might sleep in a non-sleepable prog\n", Some("sleep"))]
    #[case(
        "0: R1=ctx(off=0,imm=0) R10=fp0\n0: (85) call bpf_x#7\nR1 type=ctx expected=map_ptr\n",
        Some("callable")
    )]
    #[case("0: (85) call bpf_x#7\nR2 !read_ok\n", Some("callable"))]
    #[case("func bpf_x#7 not supported for program type 29\n", Some("condition"))]
    #[case("bpf_lsm_file_open is not sleepable\n", Some("no program"))]
    #[case(
        "Only fentry/fexit/fmod_ret, lsm, iter, uprobe, and struct_ops programs can be sleepable\nprocessed 0 insns\n",
        Some("no program")
    )]
    #[case("Program of this type cannot be sleepable\n", Some("no program"))]
    #[case("processed 0 insns (limit 1000000)\n", Some("no program"))]
    #[case("", Some("no program"))]
    #[case("something new\n", None)]
    fn refusals_are_told_apart(#[case] log: &str, #[case] expected: Option<&str>) {
        let number = if log.contains("#212") { 212 } else { 7 };
        let answer = meaning(&LoadError { errno: Errno::EINVAL, log: log.to_owned() }, number);
        let word = answer.ok().map(|answer| match answer {
            Answer::NoSuchHelper => "none",
            Answer::Callable => "callable",
            Answer::NotOfThisType => "type",
            Answer::NotAllowed => "condition",
            Answer::NotSleepable => "sleep",
            Answer::NoSuchProgram(_) => "no program",
            Answer::NotForThisProcess(_) => "process",
        });
        assert_eq!(word, expected);
    }
}
