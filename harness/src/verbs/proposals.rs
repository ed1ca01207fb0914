//! What a run leaves for the snapshots: proposals, or with `--accept` the snapshots themselves.

use super::manifest::not_for_snapshots;
use super::project::{Project, known};
use crate::cli::MachineOptions;
use crate::exit::Failure;
use crate::matrix::Matrix;
use crate::model::KernelRun;
use crate::progress::Progress;
use crate::snapshot::{Comparison, Known};

/// Those of the runs that may become snapshots, and what is known: only rows have snapshots, and not of the hidden family.
fn of_rows(
    project: &Project,
    matrix: &Matrix,
    runs: &[KernelRun],
) -> Result<(Vec<KernelRun>, Known), Failure> {
    let known = known(matrix, &project.dynamic_ids()?, runs);
    let mut rows: Vec<KernelRun> =
        runs.iter().filter(|run| known.matrix.contains(&run.kernel)).cloned().collect();
    for run in &mut rows {
        run.records.retain(|record| known.questions.contains_key(&record.probe));
    }
    Ok((rows, known))
}

/// Accepts what was recorded.
pub(super) fn accept(project: &Project, matrix: &Matrix, runs: &[KernelRun]) -> Result<(), Failure> {
    let (rows, known) = of_rows(project, matrix, runs)?;
    let changed = project.store().accept_runs(&rows, &known, false, |_, _| true)?;
    super::print(&format!("accepted: {} snapshot files changed", changed.len()));
    Ok(())
}

/// Writes what differs where `cargo insta review` finds it, unless it was recorded on another than the usual machine.
pub(super) fn propose(
    project: &Project,
    matrix: &Matrix,
    runs: &[KernelRun],
    options: &MachineOptions,
    progress: &Progress,
) -> Result<(), Failure> {
    if let Some(why) = not_for_snapshots(options) {
        progress.say("snapshots", &format!("nothing is proposed, because of {why}"));
        return Ok(());
    }
    let (rows, known) = of_rows(project, matrix, runs)?;
    project.store().propose(&rows, &known)?;
    Ok(())
}

/// What is still to be seen to after everything has been accepted.
pub(super) fn left_over(comparison: &Comparison) -> String {
    let names = ["different", "missing", "not-compared", "stale"];
    let count = |name: &str| comparison.cells.iter().filter(|cell| cell.verdict.name() == name).count();
    let parts: Vec<String> = names
        .iter()
        .filter(|name| count(name) > 0)
        .map(|name| format!("{} {}", count(name), name.replace('-', " ")))
        .collect();
    format!("not everything could be accepted, and is left: {}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Cell, Verdict};

    #[test]
    fn what_could_not_be_accepted_is_counted_by_its_verdict() {
        let cell = |verdict| Cell { probe: "a/b".into(), kernel: "bzImage".into(), verdict };
        let cells = vec![
            cell(Verdict::Matched),
            cell(Verdict::Different { diff: String::new() }),
            cell(Verdict::NotCompared { why: String::new() }),
        ];
        let text = left_over(&Comparison { cells });
        assert!(text.ends_with("is left: 1 different, 1 not compared"), "{text}");
    }
}
