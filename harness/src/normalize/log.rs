//! The reason for a refusal, taken out of a verifier log of any release from 5.7 on.
//!
//! A log is trace (instructions, states, source lines) interrupted by messages. The reason is the last run of
//! messages: what the verifier said before it gave up. From 7.3 on a report with a headline, a paragraph and
//! source excerpts may follow or stand alone; where the plain message is there too it stays the
//! reason, so that the same refusal reads the same on all kernels.

use super::rules::{Scope, apply, trace_rule};

/// How many lines a reason has at most; the last ones are kept.
pub const MAX_REASON_LINES: usize = 4;

/// The first words of a report's headline.
const HEADLINE: &str = "Verification failed: ";

/// The verifier's last meaningful message, normalised; `None` when the log holds none.
#[must_use]
pub fn reason(log: &str) -> Option<String> {
    let (plain, report) = split_report(log);
    let mut lines = last_messages(&plain);
    if lines.is_empty() {
        lines = report.as_ref().map(Report::lines).unwrap_or_default();
    }
    let kept = lines.len().saturating_sub(MAX_REASON_LINES);
    let text = lines[kept..].iter().map(|line| apply(Scope::Verifier, line)).collect::<Vec<_>>().join("\n");
    (!text.is_empty()).then_some(text)
}

/// The last unbroken run of messages. Empty lines neither belong to it nor end it.
fn last_messages<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let mut found = Vec::new();
    for line in lines.iter().rev().filter(|line| !line.trim().is_empty()) {
        if trace_rule(line).is_none() {
            found.push(line.trim());
        } else if !found.is_empty() {
            break;
        }
    }
    found.reverse();
    found
}

/// A report as newer verifiers print it after `Verification failed: `.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    /// `<category>: <problem>`.
    headline: String,
    /// The paragraph under `Reason:`, its wrapped lines joined.
    paragraph: String,
}

impl Report {
    fn lines(&self) -> Vec<&str> {
        [self.headline.as_str(), self.paragraph.as_str()]
            .into_iter()
            .filter(|line| !line.is_empty())
            .collect()
    }
}

/// Takes a report out of a log: the lines outside of it, and the report.
///
/// Everything inside a report is a title at the margin that ends in a colon, or indented; the first other line
/// at the margin is the log's own again.
fn split_report(log: &str) -> (Vec<&str>, Option<Report>) {
    let mut plain = Vec::new();
    let mut report: Option<Report> = None;
    let mut inside = false;
    let mut in_reason = false;
    for line in log.lines() {
        if let Some(headline) = line.strip_prefix(HEADLINE) {
            report = Some(Report { headline: headline.trim().to_owned(), paragraph: String::new() });
            (inside, in_reason) = (true, false);
            continue;
        }
        let indented = line.is_empty() || line.starts_with(' ');
        if inside && (indented || is_title(line)) {
            if !indented {
                in_reason = line == "Reason:";
            } else if let (true, Some(report)) = (in_reason, report.as_mut()) {
                append_word_wise(&mut report.paragraph, line.trim());
            }
            continue;
        }
        inside = false;
        plain.push(line);
    }
    (plain, report)
}

fn is_title(line: &str) -> bool {
    line.strip_suffix(':').is_some_and(|title| {
        title.starts_with(|c: char| c.is_ascii_uppercase())
            && title.chars().all(|c| c.is_ascii_alphabetic() || c == ' ')
    })
}

fn append_word_wise(paragraph: &mut String, line: &str) {
    if !paragraph.is_empty() && !line.is_empty() {
        paragraph.push(' ');
    }
    paragraph.push_str(line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const OLD: &str = "\
func#0 @0
0: R1=ctx(id=0,off=0,imm=0) R10=fp0
; int BPF_PROG(probe, struct file *file)
0: (79) r1 = *(u64 *)(r1 +0)
func 'bpf_lsm_file_open' arg0 has btf_id 123 type STRUCT 'file'
1: R1_w=ptr_file(id=0,off=0,imm=0) R10=fp0
1: (85) call bpf_map_lookup_elem#1
R1 type=ptr_ expected=map_ptr
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
";

    const NEW: &str = "\
0: R1=ctx() R10=fp0
0: (b7) r0 = 1                        ; R0=1
1: (95) exit
At program exit the register R0 has smin=1 smax=1 should have been in [-4095, 0]
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
";

    const LOOP: &str = "\
1: (05) goto pc-2
; while (1); @ x.c:3
infinite loop detected at insn 1
cur state: R1=ctx() R10=fp0
old state: R1=ctx() R10=fp0
verification time 70 usec
stack depth 0
processed 3 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 0
";

    const REPORT_AFTER: &str = "\
3: (79) r1 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'

Verification failed: Memory Safety: Invalid dereference

Reason:
  R0 is a nullable map value pointer, and this path did not
  check it.

At:
  insn 3
     | ^-- error: invalid dereference

Suggestion:
  Check the pointer for NULL.

processed 4 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
";

    /// As 7.3.4 wrote it, shortened in the middle.
    const REPORT_BETWEEN: &str = "\
4: (85) call bpf_ringbuf_reserve#131          ; refs=2
5: (b7) r0 = 0                        ; R0=0 refs=2
6: (95) exit
Unreleased reference id=2 alloc_insn=4

Verification failed: Resource Lifetime Safety: Unreleased resource

Reason:
  Owned resource (id=2) was acquired at instruction 4 and still needs to be released before this
  exit path.

At:
  insn 6
       | ^-- error: owned resource (id=2) still needs release
  Instruction context:
      5 | (b7) r0 = 0
  >>> 6 | (95) exit

Suggestion:
  Release or transfer ownership of the acquired resource on every path before the program exits.

BPF_EXIT instruction in main prog would lead to reference leak
processed 6 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
";

    const REPORT_ALONE: &str = "\
3: (85) call bpf_put_file#70123

Verification failed: Resource Lifetime Safety: Unreleased resource

Reason:
  Owned resource (id=3) was acquired at instruction 2 and still needs to be released before this
  exit path.

Causal path:
  insn 2
     | ^-- acquired: x

processed 4 insns (limit 1000000) max_states_per_insn 0
";

    #[rstest]
    #[case::empty("", None)]
    #[case::only_trace("0: (b7) r0 = 0\n1: (95) exit\nprocessed 2 insns (limit 1000000)\n", None)]
    #[case::type_of_an_argument(OLD, Some("R1 type=ptr_ expected=map_ptr"))]
    #[case::return_value(
        NEW,
        Some("At program exit the register R0 has smin=1 smax=1 should have been in [-4095, 0]")
    )]
    #[case::states_after_the_message(LOOP, Some("infinite loop detected at insn 1"))]
    #[case::no_statistics("bpf_lsm_foo is not sleepable\n", Some("bpf_lsm_foo is not sleepable"))]
    #[case::unknown_helper(
        "2: (85) call unknown#212\ninvalid func unknown#212\n",
        Some("invalid func unknown#212")
    )]
    #[case::report_after_the_message(REPORT_AFTER, Some("R0 invalid mem access 'map_value_or_null'"))]
    #[case::report_between_the_messages(
        REPORT_BETWEEN,
        Some(
            "Unreleased reference id=<id> alloc_insn=<n>\n\
             BPF_EXIT instruction in main prog would lead to reference leak"
        )
    )]
    #[case::report_alone(
        REPORT_ALONE,
        Some(
            "Resource Lifetime Safety: Unreleased resource\n\
             Owned resource (id=<id>) was acquired at instruction 2 and still needs to be released before this exit path."
        )
    )]
    #[case::two_lines(
        "5: (85) call bpf_cpumask_and#65708\ninvalid access to map value, value_size=4 off=8 size=4\n\
         R3 max value is outside of the allowed memory range\nprocessed 5 insns\n",
        Some(
            "invalid access to map value, value_size=4 off=8 size=4\n\
             R3 max value is outside of the allowed memory range"
        )
    )]
    #[case::only_the_last_run("first complaint\n1: (95) exit\nsecond complaint\n", Some("second complaint"))]
    #[case::many_lines("a\nb\nc\nd\ne\n", Some("b\nc\nd\ne"))]
    #[case::ids_go(
        "Unreleased reference id=2 alloc_insn=8\nprocessed 9 insns\n",
        Some("Unreleased reference id=<id> alloc_insn=<n>")
    )]
    #[case::windows_line_ends("R0 !read_ok\r\nprocessed 1 insns (limit 1)\r\n", Some("R0 !read_ok"))]
    fn reasons(#[case] log: &str, #[case] expected: Option<&str>) {
        assert_eq!(reason(log).as_deref(), expected);
    }
}
