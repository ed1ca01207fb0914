//! The programs that runs have kept: those of `show`, or of an earlier `explain`.

use super::project::Project;
use crate::model::KernelRun;
use crate::report::runs;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use probes::record::ProgramDump;
use probes::{disasm, insn};
use serde::Serialize;

/// A program as it was submitted.
#[derive(Debug, Serialize)]
pub(super) struct Program {
    /// The kernel it was made for: offsets and ids differ between kernels.
    pub(super) kernel: String,
    /// The case.
    pub(super) case: String,
    /// Its name.
    pub(super) name: String,
    /// Its text.
    pub(super) text: String,
}

/// The kernels of the last run that kept programs which came to their end: that of `show`, or of an earlier `explain`; in
/// the matrix's order, then images without a row. What cannot be read holds no program.
pub(super) fn kept_runs(project: &Project) -> Vec<KernelRun> {
    let mut kept = runs::read_all(&project.work_folder().join("show")).unwrap_or_default();
    kept.retain(|run| run.failure.is_none());
    in_order_of(&project.row_names().unwrap_or_default(), kept)
}

/// The runs in the order of the rows; folders are read in that of their names, in which 6.12 comes before 6.9.
fn in_order_of(rows: &[String], mut runs: Vec<KernelRun>) -> Vec<KernelRun> {
    runs.sort_by_key(|run| rows.iter().position(|row| *row == run.kernel).unwrap_or(usize::MAX));
    runs
}

/// The programs of a probe on the last kernel, in the order given, that has any of them.
pub(super) fn programs(kept: &[KernelRun], probe: &str, case: Option<&str>) -> Vec<Program> {
    let of_run = |run: &KernelRun| -> Vec<Program> {
        let records = run.records.iter().filter(|record| record.probe == probe);
        let cases = records
            .flat_map(|record| &record.cases)
            .filter(|found| case.is_none_or(|name| name == found.name));
        let text = |dump: &ProgramDump| {
            BASE64
                .decode(&dump.submitted)
                .map(|bytes| disasm::text(&insn::from_bytes(&bytes)))
                .unwrap_or_default()
        };
        let program = |case: &str, dump: &ProgramDump| Program {
            kernel: run.kernel.clone(),
            case: case.to_owned(),
            name: dump.name.clone(),
            text: text(dump),
        };
        cases.flat_map(|case| case.programs.iter().map(|dump| program(&case.name, dump))).collect()
    };
    kept.iter().rev().map(of_run).find(|programs| !programs.is_empty()).unwrap_or_default()
}

/// Made-up runs for the tests of who shows programs.
#[cfg(test)]
pub(super) mod made_up {
    use super::*;
    use probes::record::Record;

    /// A kernel's run that has kept the program of one case of the probe `a/b`.
    pub(in crate::verbs) fn run_with_program() -> KernelRun {
        let mut record = Record::not_run("a/b", "");
        let submitted = BASE64.encode(insn::to_bytes(&[insn::Insn::new(0x95, 0, 0, 0, 0)]));
        record.cases = vec![
            serde_json::from_value(serde_json::json!({
                "name": "one", "phase": "load", "end": "done",
                "programs": [{"name": "p", "submitted": submitted, "translated": ""}],
            }))
            .unwrap(),
        ];
        KernelRun { kernel: "6.12".to_owned(), records: vec![record], ..KernelRun::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::made_up::run_with_program;
    use super::*;
    use crate::snapshot::made_up::names;

    /// By number, not as text.
    #[test]
    fn the_newest_kernel_of_several_shows_its_program() {
        let of = |kernel: &str| KernelRun { kernel: kernel.to_owned(), ..run_with_program() };
        let kept = in_order_of(&names(&["6.9", "6.12"]), vec![of("6.12"), of("6.9")]);
        assert_eq!(programs(&kept, "a/b", None)[0].kernel, "6.12");
    }
}
