//! The report for continuous integration: JUnit XML, a test suite per kernel, a test case per probe.
//!
//! | verdict | test case |
//! | --- | --- |
//! | matched | passed, whatever the outcome: a crash or "could not tell" that the snapshot holds is expected |
//! | different, missing | failure, with the diff |
//! | not compared | error: the infrastructure did not get as far as the probe |
//! | none | skipped: the run was not compared at all |
//!
//! What is stale fails in a suite named `snapshots`; a kernel that could not be run at all is an error of its own
//! even when it has no records.

use super::Material;
use crate::model::KernelRun;
use crate::snapshot::Verdict;
use crate::snapshot::compare::message;
use probes::record::Record;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use std::time::Duration;

/// The report as XML.
///
/// # Errors
/// When the XML cannot be written.
pub fn render(material: Material<'_>) -> Result<String, quick_junit::SerializeError> {
    let mut report = Report::new("bpf-lsm-conformance");
    for run in material.ordered_runs() {
        report.add_test_suite(kernel_suite(run, material));
    }
    if let Some(suite) = stale_suite(material) {
        report.add_test_suite(suite);
    }
    report.to_string()
}

fn kernel_suite(run: &KernelRun, material: Material<'_>) -> TestSuite {
    let verdicts = material.comparison.of_kernel(&run.kernel);
    let mut suite = TestSuite::new(&run.kernel);
    let timing = run.timing;
    suite.set_time(Duration::from_millis(timing.all_ms()));
    let release = run.facts.as_ref().map(|facts| facts.release.as_str());
    let properties = [
        ("release", release),
        ("package_version", Some(run.image.package_version.as_str())),
        ("accel", Some(run.accel.as_str())),
        ("vmm", Some(run.vmm.as_str())),
        ("substituted", run.image.substituted.as_deref()),
    ];
    for (name, value) in properties {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            suite.add_property((name, value));
        }
    }
    if let Some(failure) = &run.failure {
        suite.add_test_case(unsuccessful(
            "kernel",
            "kernel",
            NonSuccessKind::Error,
            "not-run",
            failure,
            failure,
        ));
    }
    for record in &run.records {
        let verdict = verdicts.get(record.probe.as_str()).copied();
        suite.add_test_case(probe_case(record, &run.kernel, verdict, material.matrix));
    }
    suite
}

fn probe_case(record: &Record, kernel: &str, verdict: Option<&Verdict>, rows: &[String]) -> TestCase {
    let family = probes::spec::family_of(&record.probe);
    let text = verdict
        .and_then(|verdict| message(&record.probe, &[kernel], verdict, rows, false))
        .unwrap_or_default();
    let bad = |kind, short: &str| {
        let name = verdict.map_or("", |verdict| verdict.name());
        unsuccessful(&record.probe, family, kind, name, short, &text)
    };
    let mut case = match verdict {
        Some(Verdict::Matched) => passed(&record.probe, family),
        Some(Verdict::Different { .. } | Verdict::Stale { .. }) => {
            bad(NonSuccessKind::Failure, "differs from the snapshot")
        }
        Some(Verdict::Missing) => bad(NonSuccessKind::Failure, "not in the snapshot yet"),
        Some(Verdict::NotCompared { why }) => bad(NonSuccessKind::Error, why),
        None => TestCase::new(&record.probe, TestCaseStatus::skipped()),
    };
    case.set_classname(family);
    case.set_time(Duration::from_micros(record.micros));
    if !record.warnings.is_empty() {
        case.set_system_err(record.warnings.join("\n"));
    }
    case
}

fn passed(name: &str, class: &str) -> TestCase {
    let mut case = TestCase::new(name, TestCaseStatus::success());
    case.set_classname(class);
    case
}

fn unsuccessful(
    name: &str,
    class: &str,
    kind: NonSuccessKind,
    ty: &str,
    short: &str,
    text: &str,
) -> TestCase {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(ty).set_message(short).set_description(text);
    let mut case = TestCase::new(name, status);
    case.set_classname(class);
    case
}

fn stale_suite(material: Material<'_>) -> Option<TestSuite> {
    let mut suite = TestSuite::new("snapshots");
    for cell in &material.comparison.cells {
        if let Verdict::Stale { .. } = cell.verdict {
            let text = cell.message(material.matrix, false).unwrap_or_default();
            let name = format!("{} {}", cell.probe, cell.kernel);
            suite.add_test_case(unsuccessful(
                name.trim_end(),
                "stale",
                NonSuccessKind::Failure,
                "stale",
                &text,
                &text,
            ));
        }
    }
    (!suite.test_cases.is_empty()).then_some(suite)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::made_up;
    use crate::snapshot::Comparison;
    use crate::snapshot::made_up::names;

    fn xml(comparison: &Comparison) -> String {
        let (runs, matrix, probes) = (made_up::runs(), names(&["5.10", "6.1"]), made_up::probes());
        render(Material { runs: &runs, comparison, matrix: &matrix, probes: &probes }).unwrap()
    }

    #[test]
    fn verdicts_become_results() {
        let xml = xml(&made_up::comparison());
        // 5.10: the kernel and its two probes; 6.1: one differs; the stale file.
        assert!(
            xml.contains(r#"<testsuite name="5.10" tests="3" disabled="0" errors="3" failures="0""#),
            "{xml}"
        );
        assert!(
            xml.contains(r#"<testsuite name="6.1" tests="2" disabled="0" errors="0" failures="1""#),
            "{xml}"
        );
        assert!(
            xml.contains(r#"<testsuite name="snapshots" tests="1" disabled="0" errors="0" failures="1""#),
            "{xml}"
        );
        assert!(xml.contains("+absent at open"), "{xml}");
        assert!(xml.contains("cargo conform accept --probe rules/return --kernel 6.1"), "{xml}");
        assert!(!xml.contains('\x1b'));
    }

    #[test]
    fn a_crash_that_the_snapshot_holds_passes() {
        let mut comparison = made_up::comparison();
        for cell in &mut comparison.cells {
            cell.verdict = Verdict::Matched;
        }
        let xml = xml(&comparison);
        assert!(
            xml.contains(r#"<testsuite name="6.1" tests="2" disabled="0" errors="0" failures="0""#),
            "{xml}"
        );
    }

    #[test]
    fn without_a_comparison_nothing_passes() {
        let xml = xml(&Comparison::default());
        assert!(
            xml.contains(r#"<testsuite name="6.1" tests="2" disabled="2" errors="0" failures="0""#),
            "{xml}"
        );
    }
}
