//! What a refusal says of the kfunc that a program is about: which kfunc it names, and whether it is the kernel's
//! build alone that refuses.

use super::bare::{CALL, is_unconditional};

/// What the verifier says of a kfunc that a program may not call where it does: the words before its name and those after
/// it. But for the last one it says so whatever is passed.
///
/// In turn: 6.12 kernel/bpf/verifier.c, `check_kfunc_call` (twice); `fetch_kfunc_meta` and `add_kfunc_call` there; 6.1
/// kernel/bpf/btf.c, `btf_check_func_arg_match`; 6.18 kernel/bpf/verifier.c, `check_kfunc_call`; 6.7 there,
/// `process_iter_arg`, of an iterator's next and destroy, once it has found one on the stack.
const FORBIDDEN: &[(&str, &str)] = &[
    ("calling kernel function ", " is not allowed"),
    ("program must be sleepable to call sleepable kfunc ", ""),
    ("cannot find address for kernel function ", ""),
    ("kernel function ", " is sleepable but the program is not"),
    ("kernel func ", " requires RCU critical section protection"),
    (MADE_OUTSIDE, ""),
];

/// 6.2 and 6.3 take RCU sections only where the kernel's BTF has the type tag `rcu`, which clang writes and gcc 12 does
/// not (6.2 kernel/bpf/verifier.c, `bpf_check` and `check_kfunc_call`).
const NO_RCU_TAG: &str = "no vmlinux btf rcu tag support for kfunc ";

/// What is said of an iterator that was made outside of an RCU section ([`FORBIDDEN`] has the functions). Up to 6.17
/// making it there is no fault by itself, and its use is (6.7 kernel/bpf/verifier.c, `mark_stack_slots_iter`, which notes
/// where it was made).
const MADE_OUTSIDE: &str = "expected an RCU CS when using ";

/// The headline of a report that newer verifiers write (7.3).
const REPORT: &str = "Verification failed: ";

/// Lines among the verifier's messages that are none.
const TRACE: &[&str] =
    &["processed ", "verification time ", "stack depth ", "from ", "regs=", "last_idx ", "mark_precise"];

/// The kfunc that the program may not call there, and the line that says so.
pub(super) fn forbidden(log: &str) -> Option<(&str, &str)> {
    log.lines().find_map(|line| {
        FORBIDDEN.iter().find_map(|(before, after)| {
            let name = line.trim().strip_prefix(before)?.strip_suffix(after)?;
            (!name.is_empty() && !name.contains(' ')).then_some((name, line.trim()))
        })
    })
}

/// Whether a refusal is about an iterator that was made outside of an RCU section, and `kfunc` is one of that kind of
/// iterator: what made it has been refused then, though the words name what used it.
pub(super) fn is_of_its_making(kfunc: &str, named: &str, said: &str) -> bool {
    let maker = |name: &'static str| {
        kfunc.strip_suffix("_new").and_then(|stem| named.strip_prefix(stem)) == Some(name)
    };
    said.starts_with(MADE_OUTSIDE) && (maker("_next") || maker("_destroy"))
}

/// The kfunc whose call the verifier refuses whatever is passed and whoever calls, as it came to that call last, and what
/// it says.
pub(super) fn refused_anyway(log: &str) -> Option<(&str, String)> {
    let mut calls = log.lines().filter_map(|line| line.split_once(CALL)?.1.split_once('#'));
    let (name, _) = calls.next_back().filter(|_| is_unconditional(log))?;
    Some((name, message(log)))
}

/// What the verifier says of a kfunc with implicit arguments whose full prototype, `.._impl`, is not in the kernel's BTF.
/// resolve_btfids writes it there, up to 7.2 only for functions that pahole has tagged as kfuncs (7.1 and 7.3
/// tools/bpf/resolve_btfids/main.c): those of a Debian build of 7.1 and of one of 7.2 lack it for another few each.
const NO_PROTOTYPE: (&str, &str) = ("cannot find function ", "_impl in BTF");

/// The line that says that the kernel's BTF lacks a kfunc's full prototype, which is the build's doing.
pub(super) fn lacks_prototype(log: &str) -> Option<&str> {
    let (before, after) = NO_PROTOTYPE;
    log.lines().map(str::trim).find(|line| line.starts_with(before) && line.ends_with(after))
}

/// Why it is the build of the kernel that refuses, where another build of the same version would not.
pub(in crate::families) fn of_the_build(log: &str) -> Option<String> {
    let said = log.lines().find(|line| line.contains(NO_RCU_TAG))?;
    Some(format!("the compiler of this kernel writes no type tag rcu into BTF: {}", said.trim()))
}

/// What the verifier said last, without instructions and figures, to be compared with that of another program.
pub(in crate::families) fn message(log: &str) -> String {
    let lines: Vec<&str> = log.lines().map(str::trim).collect();
    let begin = lines.iter().rposition(|line| is_instruction(line)).map_or(0, |last| last + 1);
    let is_message = |line: &&str| !line.is_empty() && !TRACE.iter().any(|trace| line.starts_with(trace));
    let said: Vec<&str> = lines[begin..].iter().copied().filter(is_message).collect();
    let plain = said.iter().position(|line| line.starts_with(REPORT)).filter(|at| *at > 0);
    said[..plain.unwrap_or(said.len())].join("\n")
}

/// Whether a line shows an instruction, `5: (85) call ..`.
fn is_instruction(line: &str) -> bool {
    line.split_once(": (").is_some_and(|(number, _)| number.chars().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(
        "3: (85) call a#1\ncalling kernel function bpf_a is not allowed\nprocessed 4 insns\n",
        Some("bpf_a")
    )]
    #[case("program must be sleepable to call sleepable kfunc bpf_b\n", Some("bpf_b"))]
    #[case("cannot find address for kernel function bpf_c_impl\n", Some("bpf_c_impl"))]
    #[case("kernel function bpf_d is sleepable but the program is not\n", Some("bpf_d"))]
    #[case("kernel func bpf_e requires RCU critical section protection\n", Some("bpf_e"))]
    #[case("expected an RCU CS when using bpf_iter_x_next\n", Some("bpf_iter_x_next"))]
    #[case("function calls are not allowed while holding a lock\n", None)]
    #[case("release kfunc bpf_f expects referenced PTR_TO_BTF_ID passed to R1\n", None)]
    #[case(
        "kernel function bpf_g args#0 expected pointer to STRUCT a but R1 has a pointer to STRUCT b\n",
        None
    )]
    fn names_the_kfunc_that_may_not_be_called(#[case] log: &str, #[case] expected: Option<&str>) {
        assert_eq!(forbidden(log).map(|(name, _)| name), expected);
    }

    #[rstest]
    #[case("bpf_iter_css_new", "bpf_iter_css_next", "expected an RCU CS when using bpf_iter_css_next", true)]
    #[case(
        "bpf_iter_css_new",
        "bpf_iter_css_destroy",
        "expected an RCU CS when using bpf_iter_css_destroy",
        true
    )]
    #[case(
        "bpf_iter_css_new",
        "bpf_iter_task_next",
        "expected an RCU CS when using bpf_iter_task_next",
        false
    )]
    #[case(
        "bpf_iter_css_next",
        "bpf_iter_css_destroy",
        "expected an RCU CS when using bpf_iter_css_destroy",
        false
    )]
    #[case(
        "bpf_iter_css_new",
        "bpf_iter_css_next",
        "calling kernel function bpf_iter_css_next is not allowed",
        false
    )]
    fn what_uses_an_iterator_speaks_for_what_made_it(
        #[case] kfunc: &str,
        #[case] named: &str,
        #[case] said: &str,
        #[case] expected: bool,
    ) {
        assert_eq!(is_of_its_making(kfunc, named, said), expected);
    }

    #[test]
    fn what_is_refused_anyway_is_the_call_that_was_come_to_last() {
        let log = "0: (85) call a#1\n1: (85) call b#2\nbpf_refcount_acquire calls are disabled for now\n";
        let said = "bpf_refcount_acquire calls are disabled for now".to_owned();
        assert_eq!(refused_anyway(log), Some(("b", said)));
        assert_eq!(refused_anyway("0: (85) call a#1\nR1 must be referenced or trusted\n"), None);
    }

    #[test]
    fn a_message_is_what_comes_after_the_last_instruction() {
        let log = "func#0 @0\n0: R1=ctx() R10=fp0\n0: (b7) r1 = 0\n1: (85) call bpf_x#70001\n\
                   R1 must be referenced or trusted\nprocessed 2 insns (limit 1000000)\n";
        assert_eq!(message(log), "R1 must be referenced or trusted");
        let reported = log.replace("processed", "Verification failed: Policy: x\n\nReason:\n  y\nprocessed");
        assert_eq!(message(&reported), "R1 must be referenced or trusted");
    }

    #[test]
    fn the_build_is_to_blame_for_a_missing_tag_alone() {
        assert!(of_the_build("no vmlinux btf rcu tag support for kfunc bpf_rcu_read_lock\n").is_some());
        assert_eq!(
            lacks_prototype("cannot find function a_impl in BTF\nx\n"),
            Some("cannot find function a_impl in BTF")
        );
        assert_eq!(lacks_prototype("cannot find function a in BTF\n"), None);
        assert!(of_the_build("nested rcu read lock (kernel function bpf_rcu_read_lock)\n").is_none());
    }
}
