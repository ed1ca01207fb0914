//! Verdicts for people, for a page, and as annotations that GitHub shows on the lines of the page.

use super::check::{Finding, Report, Verdict};
use comfy_table::{ContentArrangement, Table, presets};
use std::fmt::Write as _;

/// Where a finding's probes are explained.
fn evidence(finding: &Finding) -> String {
    match finding.evidence.as_slice() {
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second}, {third} and {} more", rest.len())
        }
        few => few.join(", "),
    }
}

fn summary(report: &Report) -> String {
    let counted = |verdict: Verdict| format!("{} {}", report.count(verdict), verdict.name());
    let counts: Vec<String> = Verdict::ALL.iter().map(|verdict| counted(*verdict)).collect();
    format!("{}: {} statements: {}", report.page, report.findings.len(), counts.join(", "))
}

/// Confirmed entries of lists have one line together.
fn is_plain(finding: &Finding) -> bool {
    finding.verdict == Verdict::Confirmed && finding.id.contains('/')
}

/// The verdicts as a table of at most `width` columns.
#[must_use]
pub fn table(report: &Report, width: u16) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    table.set_header(["line", "verdict", "statement", "what the records say", "evidence"]);
    for finding in report.findings.iter().filter(|finding| !is_plain(finding)) {
        let line = finding.line.map_or_else(String::new, |line| line.to_string());
        let statement = if finding.id.contains('/') {
            finding.id.clone()
        } else {
            format!("{}: {}{}", finding.id, finding.says, if finding.inferred { " (inferred)" } else { "" })
        };
        table.add_row([
            line,
            finding.verdict.name().to_owned(),
            statement,
            finding.detail.clone(),
            evidence(finding),
        ]);
    }
    let mut text = format!("{}\n", table.trim_fmt());
    let plain: Vec<&str> = report
        .findings
        .iter()
        .filter(|finding| is_plain(finding))
        .map(|finding| finding.id.as_str())
        .collect();
    if !plain.is_empty() {
        let _ = writeln!(text, "\n{} more entries are confirmed: {}", plain.len(), plain.join(" "));
    }
    for line in &report.not_read {
        let _ = writeln!(text, "line {} is no entry of a list: {}", line.line, line.text);
    }
    for file in &report.passed_over {
        let _ = writeln!(text, "nothing of claims/{file} is on this page: it is about another state of it");
    }
    let _ = writeln!(text, "\n{}", summary(report));
    text
}

/// The verdicts as Markdown.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let mut text =
        format!("### {}\n\n| line | verdict | statement | what the records say | evidence |\n", report.page);
    text += "| ---: | --- | --- | --- | --- |\n";
    for finding in report.findings.iter().filter(|finding| !is_plain(finding)) {
        let line = finding.line.map_or_else(String::new, |line| line.to_string());
        let _ = writeln!(
            text,
            "| {line} | {} | {} | {} | {} |",
            finding.verdict.name(),
            cell(&finding.says),
            cell(&finding.detail),
            cell(&evidence(finding)),
        );
    }
    let _ = writeln!(text, "\n{}", summary(report));
    text
}

/// The verdicts as workflow commands; confirmed statements have none.
#[must_use]
pub fn github(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let level = match finding.verdict {
            Verdict::Confirmed => continue,
            Verdict::Contradicted => "error",
            Verdict::Conditional | Verdict::Gone => "warning",
            Verdict::WithinBounds | Verdict::Undecided => "notice",
        };
        let line = finding.line.unwrap_or(1);
        let title = property(&format!("{}: {}", finding.verdict.name(), finding.id));
        let message = data(&format!("{} {}. Evidence: {}", finding.says, finding.detail, evidence(finding)));
        let _ =
            writeln!(text, "::{level} file={},line={line},title={title}::{message}", property(&report.page));
    }
    let _ = writeln!(text, "{}", summary(report));
    text
}

/// What a workflow command's message must not hold as it is.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// What a workflow command's property must not hold as it is.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docs::check::Kernels;

    fn report() -> Report {
        let finding = |id: &str, verdict, line| Finding {
            id: id.to_owned(),
            says: "It | is.".to_owned(),
            inferred: false,
            line,
            verdict,
            detail: "100 %\nfalse".to_owned(),
            kernels: Kernels::default(),
            evidence: vec!["a/b/c".to_owned()],
            source: Vec::new(),
            instead: None,
        };
        Report {
            schema: 1,
            page: "docs/a,b.md".to_owned(),
            findings: vec![
                finding("one", Verdict::Contradicted, Some(3)),
                finding("helpers/bpf_x", Verdict::Confirmed, Some(4)),
                finding("two", Verdict::Gone, None),
            ],
            unlisted: Vec::new(),
            passed_over: vec!["x.yaml".to_owned()],
            not_read: Vec::new(),
        }
    }

    #[test]
    fn annotations_are_escaped_and_stand_on_their_line() {
        let text = github(&report());
        let first = text.lines().next().unwrap();
        assert_eq!(
            first,
            "::error file=docs/a%2Cb.md,line=3,title=contradicted%3A one::It | is. 100 %25%0Afalse. Evidence: a/b/c"
        );
        assert!(!text.contains("bpf_x"), "{text}");
    }

    #[test]
    fn every_finding_is_in_the_table() {
        let text = table(&report(), 110);
        for part in ["contradicted", "1 more entries are confirmed: helpers/bpf_x", "claims/x.yaml", "1 gone"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn markdown_cells_hold_no_bars() {
        assert!(markdown(&report()).contains("| 3 | contradicted | It \\| is. | 100 % false | a/b/c |"));
    }
}
