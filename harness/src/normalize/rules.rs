//! The named rules, in the fixed order in which they are applied to one line of text.
//!
//! Each rule says what it replaces and why that text is volatile. [`TEXT`] works inside a line; the rules that
//! tell a verifier's trace from its messages are [`TRACE`], used by [`super::log`].

use regex::{Captures, Regex};
use std::borrow::Cow;
use std::sync::LazyLock;

/// Where a text comes from; a rule says in which of these it applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A message of the verifier.
    Verifier,
    /// A message of the kernel's log, or a sentence of the guest that may quote one.
    Message,
    /// A string among the facts that a case saw.
    Fact,
}

/// What a rule does with the text that its pattern finds.
#[derive(Clone, Copy)]
pub enum Act {
    /// Puts this in its place (`$1` is the first group).
    Replace(&'static str),
    /// Asks this function what to put in its place.
    Call(fn(&Captures<'_>) -> String),
    /// The whole line is trace: neither a reason nor part of one.
    Drop,
}

/// A rule that removes one kind of volatile text.
pub struct Rule {
    /// The rule's name.
    pub name: &'static str,
    /// Why this text does not belong into a snapshot.
    pub why: &'static str,
    /// Where the rule applies.
    pub scopes: &'static [Scope],
    /// The text it looks for.
    pub pattern: &'static str,
    /// What happens to it.
    pub act: Act,
}

const ALL: &[Scope] = &[Scope::Verifier, Scope::Message, Scope::Fact];
const VERIFIER: &[Scope] = &[Scope::Verifier];
const MESSAGE: &[Scope] = &[Scope::Message];
const SPOKEN: &[Scope] = &[Scope::Verifier, Scope::Message];

/// Rules inside a line, in the order of application.
pub const TEXT: &[Rule] = &[
    Rule {
        name: "timestamp",
        why: "the time since boot differs in every run",
        scopes: MESSAGE,
        pattern: r"^\s*(?:<\d+>)?\[\s*\d+\.\d+\]\s*(?:\[\s*[TC]\d+\]\s*)?",
        act: Act::Replace(""),
    },
    Rule {
        name: "pointer",
        why: "kernel addresses are randomised",
        scopes: ALL,
        pattern: r"(?i)\b(?:0x)?(?:ffff[89a-e][0-9a-f]{11}|ffffffff[89a-d][0-9a-f]{7})\b",
        act: Act::Call(pointer_or_mask),
    },
    Rule {
        name: "offset",
        why: "offsets into functions change with every build of the kernel",
        scopes: MESSAGE,
        pattern: r"\+0x[0-9a-f]+/0x[0-9a-f]+",
        act: Act::Replace("+<off>"),
    },
    Rule {
        name: "source-line",
        why: "line numbers of the kernel's source move with every point release",
        scopes: MESSAGE,
        pattern: r"\b([\w./-]+\.[chS]):\d+",
        act: Act::Replace("$1:<line>"),
    },
    Rule {
        name: "cpu",
        why: "which processor ran the probe is chance",
        scopes: MESSAGE,
        pattern: r"\b(CPU[:#]? ?|cpu[= ])\d+\b",
        act: Act::Replace("$1<cpu>"),
    },
    Rule {
        name: "pid",
        why: "process numbers depend on what ran before",
        scopes: MESSAGE,
        pattern: r"\b(PID: |pid[:= ]|tid[:= ]|UID: |tgid[:= ])\d+\b",
        act: Act::Replace("$1<pid>"),
    },
    Rule {
        name: "task",
        why: "the kernel names a task by command and process number",
        scopes: MESSAGE,
        pattern: r"(\[|\btask |\bCPU#<cpu>: )([\w.-]+)([/:])\d+\b",
        act: Act::Replace("$1$2$3<pid>"),
    },
    Rule {
        name: "lockdep-task",
        why: "lockdep names a task by command and process number",
        scopes: MESSAGE,
        pattern: r"^([\w.-]+)/\d+ (is trying|is holding|is leaving|just changed|is exiting)",
        act: Act::Replace("$1/<pid> $2"),
    },
    Rule {
        name: "duration",
        why: "how long something was stuck depends on the machine",
        scopes: MESSAGE,
        pattern: r"\b(for|than|t=|after) ?\d+ ?(s\b|seconds|jiffies|ms\b)",
        act: Act::Replace("$1 <time> $2"),
    },
    Rule {
        name: "btf-id",
        why: "BTF ids are positions in one build's type table",
        scopes: SPOKEN,
        pattern: r"(?i)\b(\w*btf(?:_obj)?[_ ]id|btf type id|type[_ ]id|func_id)( ?[=:]? ?)\d+\b",
        act: Act::Replace("$1$2<id>"),
    },
    Rule {
        name: "kfunc-id",
        why: "the number behind a kfunc's name is its BTF id (a helper's number has at most three digits and stays)",
        scopes: SPOKEN,
        pattern: r"\b([A-Za-z_]\w*)#\d{4,}\b",
        act: Act::Call(named_kfunc),
    },
    Rule {
        name: "object-id",
        why: "ids of references, objects and maps are handed out at run time",
        scopes: SPOKEN,
        pattern: r"\b((?:ref_obj_|ref_|obj_|map_u|map_|prog_|link_)?id|verifier identity)([= ])\d+\b",
        act: Act::Replace("$1$2<id>"),
    },
    Rule {
        name: "place-in-the-program",
        why: "where the call stands in the suite's own program, which has more or fewer instructions by what the kernel has",
        scopes: VERIFIER,
        pattern: r"\b(alloc_insn|acquired at insn_idx)=\d+\b",
        act: Act::Replace("$1=<n>"),
    },
    Rule {
        name: "fd",
        why: "file descriptors depend on what is open",
        scopes: SPOKEN,
        pattern: r"\b((?:\w+_)?fd)([= ])\d+\b",
        act: Act::Replace("$1$2<fd>"),
    },
    Rule {
        name: "member-offset",
        why: "where a member of a kernel's struct is depends on its configuration (lock debugging, layout randomisation)",
        scopes: VERIFIER,
        pattern: r"\b(access beyond struct \w+ at off |with moff |in struct \w+ with off |invalid variable offset: off=)\d+\b",
        act: Act::Replace("$1<off>"),
    },
    Rule {
        name: "member-of-null",
        why: "the same: a small address that is not 0 is where a member would be, were the struct at 0",
        scopes: MESSAGE,
        pattern: r"\b(NULL pointer dereference, address: )0{12}(?:0{0,3}[1-9a-f][0-9a-f]{0,3})\b",
        act: Act::Replace("$1<off>"),
    },
    Rule {
        name: "statistics-behind-a-message",
        why: "what the verification cost, on the line of a message that the kernel does not end (7.3 kernel/bpf/verifier.c, \
              `expected prog array map for tail call`)",
        scopes: VERIFIER,
        pattern: r"processed \d+ insns \(limit \d+\).*$",
        act: Act::Replace(""),
    },
];

/// Rules that recognise the lines of a verifier log which are trace.
pub const TRACE: &[Rule] = &[
    trace(
        "statistics",
        "what the verification cost differs between releases and runs",
        r"^(?:processed \d+ insns|verification time |stack depth (?:max )?[\d+]+$|subprog \d+ \(.*\) .*insns_total )",
    ),
    trace(
        "instruction",
        "instructions and states after them lead to the reason",
        r"^\s*(?:\d+\s+)?\d+:(?:\s|$)",
    ),
    trace(
        "state",
        "a register or stack dump is not a message",
        r"^\s*;?\s*(?:frame\d+:\s*)?(?:R\d+(?:_[rwDP]+)?=|fp-?\d+(?:_[rwDP]+)?=|refs=)",
    ),
    trace(
        "state-title",
        "titles over register dumps",
        r"^(?:caller|callee|cur state|old state|returning from callee|to caller at \d+):",
    ),
    trace("frame", "a frame without registers", r"^\s*frame\d+:"),
    trace("path", "where a branch was taken up again", r"^from \d+ to \d+"),
    trace("pruned", "a path that needed no second look", r"^(?:\d+: )?safe$"),
    trace("source", "lines of the program's source, as its line info has them", r"^\s*;"),
    trace(
        "precision",
        "how precision marks were traced back",
        r"^(?:mark_precise:|force_precise:|last_idx |regs=|parent (?:didn't|already|state)|propagating |frame ?\d+: propagating)",
    ),
    trace("function-start", "where a function begins", r"^func#\d+ @\d+"),
    trace(
        "function-note",
        "global functions that were validated or assumed valid",
        r"^(?:Validating .*func#\d+\.\.\.|Func#\d+ .*(?:is safe for any args|is global and assumed valid))",
    ),
    trace(
        "argument-note",
        "said of every context access that succeeds, so it is no reason for a refusal",
        r"^func '[^']*' arg\d+ has btf_id \d+ type ",
    ),
    trace(
        "liveness",
        "dumps of the liveness analysis at the second log level",
        r"^(?:Live regs before insn:|subprog#\d+|stack use/def |SCC (?:enter|exit|backedge)|arg JOIN |topo_order\[)",
    ),
    trace("frame-of-log", "markers that loaders put around a log", r"^-- (?:BEGIN|END) .*LOG --$"),
];

const fn trace(name: &'static str, why: &'static str, pattern: &'static str) -> Rule {
    Rule { name, why, scopes: VERIFIER, pattern, act: Act::Drop }
}

static TEXT_PATTERNS: LazyLock<Vec<Regex>> = LazyLock::new(|| compile(TEXT));
static TRACE_PATTERNS: LazyLock<Vec<Regex>> = LazyLock::new(|| compile(TRACE));

#[expect(
    clippy::expect_used,
    reason = "the patterns are constants above, and every test of this file compiles them all"
)]
fn compile(rules: &[Rule]) -> Vec<Regex> {
    rules.iter().map(|rule| Regex::new(rule.pattern).expect("a constant pattern")).collect()
}

/// `text` with every rule of the scope applied, without white space at its end.
#[must_use]
pub fn apply(scope: Scope, text: &str) -> String {
    let mut text = Cow::Borrowed(text.trim_end());
    for (rule, pattern) in TEXT.iter().zip(TEXT_PATTERNS.iter()) {
        if !rule.scopes.contains(&scope) {
            continue;
        }
        let replaced = match rule.act {
            Act::Replace(with) => pattern.replace_all(&text, with),
            Act::Call(with) => pattern.replace_all(&text, with),
            Act::Drop => pattern.replace_all(&text, ""),
        };
        if let Cow::Owned(replaced) = replaced {
            text = Cow::Owned(replaced);
        }
    }
    text.into_owned()
}

/// The name of the rule that takes this line of a verifier log for trace.
#[must_use]
pub fn trace_rule(line: &str) -> Option<&'static str> {
    TRACE
        .iter()
        .zip(TRACE_PATTERNS.iter())
        .find(|(_, pattern)| pattern.is_match(line))
        .map(|(rule, _)| rule.name)
}

/// A number such as `0xffffffff80000000` is a bound of a register, not an address.
fn pointer_or_mask(found: &Captures<'_>) -> String {
    let text = &found[0];
    if text.ends_with("0000000") { text.to_owned() } else { "<ptr>".to_owned() }
}

/// `unknown#9999` is no kfunc: the program asked for that number.
fn named_kfunc(found: &Captures<'_>) -> String {
    if &found[1] == "unknown" { found[0].to_owned() } else { format!("{}#<id>", &found[1]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::collections::BTreeSet;

    #[rstest]
    #[case::timestamp("timestamp", Scope::Message, "[    1.234567] BUG: x", "BUG: x")]
    #[case::timestamp_with_task("timestamp", Scope::Message, "<4>[   12.3][   T71] BUG: x", "BUG: x")]
    #[case::pointer("pointer", Scope::Fact, "at 0xffff888003a1b2c0", "at <ptr>")]
    #[case::pointer_text("pointer", Scope::Message, "RIP: ffffffff81a0b1c2", "RIP: <ptr>")]
    #[case::pointer_not_a_mask(
        "pointer",
        Scope::Verifier,
        "(0x0; 0xffffffff80000000)",
        "(0x0; 0xffffffff80000000)"
    )]
    #[case::pointer_not_all_ones(
        "pointer",
        Scope::Verifier,
        "(0x0; 0xffffffffffffffff)",
        "(0x0; 0xffffffffffffffff)"
    )]
    #[case::offset("offset", Scope::Message, "at bpf_check+0x1a/0x30", "at bpf_check+<off>")]
    #[case::source_line(
        "source-line",
        Scope::Message,
        "at kernel/bpf/core.c:117 f",
        "at kernel/bpf/core.c:<line> f"
    )]
    #[case::cpu("cpu", Scope::Message, "WARNING: CPU: 3 x", "WARNING: CPU: <cpu> x")]
    #[case::cpu_hash("cpu", Scope::Message, "on CPU#0 x", "on CPU#<cpu> x")]
    #[case::pid("pid", Scope::Message, "PID: 71 Comm: conform", "PID: <pid> Comm: conform")]
    #[case::task("task", Scope::Message, "CPU#0: conform/71", "CPU#<cpu>: conform/<pid>")]
    #[case::task_in_brackets("task", Scope::Message, "stuck! [kworker:71]", "stuck! [kworker:<pid>]")]
    #[case::hung_task(
        "task",
        Scope::Message,
        "INFO: task conform:71 blocked for more than 120 seconds.",
        "INFO: task conform:<pid> blocked for more than <time> seconds."
    )]
    #[case::lockdep(
        "lockdep-task",
        Scope::Message,
        "conform/71 is trying to acquire lock:",
        "conform/<pid> is trying to acquire lock:"
    )]
    #[case::duration(
        "duration",
        Scope::Message,
        "soft lockup, stuck for 22s!",
        "soft lockup, stuck for <time> s!"
    )]
    #[case::attach_btf_id(
        "btf-id",
        Scope::Verifier,
        "attach_btf_id 123 points to wrong type name bpf_lsm_init",
        "attach_btf_id <id> points to wrong type name bpf_lsm_init"
    )]
    #[case::type_id("btf-id", Scope::Verifier, "type_id=12 size=4", "type_id=<id> size=4")]
    #[case::kfunc(
        "kfunc-id",
        Scope::Verifier,
        "kfunc bpf_put_file#65708 needs",
        "kfunc bpf_put_file#<id> needs"
    )]
    #[case::helper_stays("kfunc-id", Scope::Verifier, "unknown func bpf_foo#211", "unknown func bpf_foo#211")]
    #[case::beyond_a_struct(
        "member-offset",
        Scope::Verifier,
        "access beyond struct file at off 176 size 8",
        "access beyond struct file at off <off> size 8"
    )]
    #[case::member(
        "member-offset",
        Scope::Verifier,
        "cannot access ptr member f_inode with moff 32 in struct file with off 36 size 8",
        "cannot access ptr member f_inode with moff <off> in struct file with off <off> size 8"
    )]
    #[case::variable_offset(
        "member-offset",
        Scope::Verifier,
        "R1 is ptr_file invalid variable offset: off=136, var_off=(0x0; 0xf)",
        "R1 is ptr_file invalid variable offset: off=<off>, var_off=(0x0; 0xf)"
    )]
    #[case::the_programs_own_offset_stays(
        "member-offset",
        Scope::Verifier,
        "invalid bpf_context access off=16 size=8",
        "invalid bpf_context access off=16 size=8"
    )]
    #[case::member_of_null(
        "member-of-null",
        Scope::Message,
        "BUG: kernel NULL pointer dereference, address: 0000000000000028",
        "BUG: kernel NULL pointer dereference, address: <off>"
    )]
    #[case::null_itself_stays(
        "member-of-null",
        Scope::Message,
        "BUG: kernel NULL pointer dereference, address: 0000000000000000",
        "BUG: kernel NULL pointer dereference, address: 0000000000000000"
    )]
    #[case::number_asked_for(
        "kfunc-id",
        Scope::Verifier,
        "invalid func unknown#9999",
        "invalid func unknown#9999"
    )]
    #[case::reference(
        "object-id",
        Scope::Verifier,
        "Unreleased reference id=2",
        "Unreleased reference id=<id>"
    )]
    #[case::place(
        "place-in-the-program",
        Scope::Verifier,
        "Unreleased reference alloc_insn=8",
        "Unreleased reference alloc_insn=<n>"
    )]
    #[case::place_of_another(
        "place-in-the-program",
        Scope::Verifier,
        "acquired at insn_idx=14",
        "acquired at insn_idx=<n>"
    )]
    #[case::map_uid(
        "object-id",
        Scope::Verifier,
        "timer pointer in R1 map_uid=3 x",
        "timer pointer in R1 map_uid=<id> x"
    )]
    #[case::fd(
        "fd",
        Scope::Verifier,
        "fd 5 is not pointing to valid bpf_map",
        "fd <fd> is not pointing to valid bpf_map"
    )]
    #[case::statistics(
        "statistics-behind-a-message",
        Scope::Verifier,
        "expected prog array map for tail callprocessed 12 insns (limit 1000000) max_states_per_insn 0 total_states 0",
        "expected prog array map for tail call"
    )]
    fn text_rules(#[case] rule: &str, #[case] scope: Scope, #[case] given: &str, #[case] expected: &str) {
        assert!(TEXT.iter().any(|known| known.name == rule), "no rule {rule}");
        assert_eq!(apply(scope, given), expected);
    }

    #[rstest]
    #[case(
        "statistics",
        "processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0"
    )]
    #[case("statistics", "verification time 132 usec")]
    #[case("statistics", "stack depth 16+0")]
    #[case("statistics", "stack depth max 0")]
    #[case("statistics", "subprog 0 (<unknown>) main insns_self 2 insns_total 2 stack 0")]
    #[case("instruction", "12: (85) call bpf_get_current_task#35 ; R0_w=scalar()")]
    #[case("instruction", "0: R1=ctx(off=0,imm=0) R10=fp0")]
    #[case("instruction", "  1   3: .1........ (85) call bpf_foo#1")]
    #[case("state", " R0=inv0 R1_w=inv1 R10=fp0 fp-8=mmmmmmmm")]
    #[case("state", "; R0_w=scalar() refs=2")]
    #[case("state-title", "caller:")]
    #[case("state-title", "old state:")]
    #[case("frame", " frame1: R1=fp0")]
    #[case("path", "from 3 to 7: R0_w=0 R10=fp0")]
    #[case("path", "from 5 to 8 (speculative execution): safe")]
    #[case("source", "; return bpf_foo(x); @ main.bpf.c:836")]
    #[case("precision", "mark_precise: frame0: last_idx 4 first_idx 0 subseq_idx -1")]
    #[case("precision", "regs=4 stack=0 before 7: (bf) r2 = r1")]
    #[case("precision", "parent didn't have regs=4 stack=0 marks")]
    #[case("function-start", "func#0 @0")]
    #[case("function-note", "Validating helper() func#1...")]
    #[case("function-note", "Func#1 ('helper') is safe for any args that match its prototype")]
    #[case("argument-note", "func 'bpf_lsm_file_open' arg0 has btf_id 3620 type STRUCT 'file'")]
    #[case("liveness", "Live regs before insn:")]
    #[case("frame-of-log", "-- BEGIN PROG LOAD LOG --")]
    fn trace_rules(#[case] rule: &str, #[case] line: &str) {
        let found = trace_rule(line);
        assert!(found.is_some(), "not taken for trace: {line}");
        // A frame's state is recognised by the more general rule first; what matters is that it is trace.
        assert!(found == Some(rule) || rule == "frame", "{line} was taken by {found:?}");
    }

    #[rstest]
    #[case("R1 type=scalar expected=fp")]
    #[case("R0 invalid mem access 'map_value_or_null'")]
    #[case("unknown func bpf_foo#211")]
    #[case("BPF program is too large. Processed 1000001 insn")]
    #[case("At program exit the register R0 has value (0x1; 0x0) should have been in (0x0; 0x0)")]
    #[case("func 'bpf_lsm_file_open' doesn't have 3-th argument")]
    #[case("Func#1 is recursive")]
    #[case("stack depth 600 exceeds interpreter stack depth limit")]
    #[case("frame pointer is read only")]
    #[case("same insn cannot be used with different pointers")]
    fn messages_are_no_trace(#[case] line: &str) {
        assert_eq!(trace_rule(line), None);
    }

    #[test]
    fn names_are_unique_and_reasons_given() {
        let names: BTreeSet<_> = TEXT.iter().chain(TRACE).map(|rule| rule.name).collect();
        assert_eq!(names.len(), TEXT.len() + TRACE.len());
        assert!(TEXT.iter().chain(TRACE).all(|rule| !rule.why.is_empty()));
    }

    #[test]
    fn applying_twice_changes_nothing_more() {
        for text in ["PID: 71 on CPU 3", "id=3 fd 4 type_id=5", "stuck for 22s!"] {
            let once = apply(Scope::Message, text);
            assert_eq!(apply(Scope::Message, &once), once);
        }
    }
}
