//! Reports of a run: for people ([`table`]), for programs ([`json`]), for continuous integration ([`junit`]).
//!
//! All three are made from the same [`Material`] and say nothing that is not in it. [`list`] shows the probes
//! themselves, [`runs`] keeps the run folder.

pub mod counts;
pub mod coverage;
pub mod documented;
pub mod json;
pub mod junit;
pub mod list;
pub mod news;
pub mod runs;
pub mod table;

use crate::model::KernelRun;
use crate::snapshot::Comparison;
use list::ProbeInfo;

/// So many of them, in words: `1 change`, `2 changes`.
#[must_use]
pub fn counted(count: usize, one: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {one}{end}")
}

/// Keeps a table from breaking what stands in this column, counted from 0: names that people copy and programs look for. To
/// be called when the rows are there.
pub(crate) fn keep_whole(table: &mut comfy_table::Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_constraint(comfy_table::ColumnConstraint::ContentWidth);
    }
}

/// What a report is made from.
#[derive(Clone, Copy, Debug)]
pub struct Material<'a> {
    /// The kernels that were to be run, in any order.
    pub runs: &'a [KernelRun],
    /// The verdicts on them.
    pub comparison: &'a Comparison,
    /// The names of the matrix's rows, in its order.
    pub matrix: &'a [String],
    /// The probes, in the order in which families are shown.
    pub probes: &'a [ProbeInfo],
}

impl<'a> Material<'a> {
    /// The runs in the matrix's order, then those without a row by name.
    #[must_use]
    pub fn ordered_runs(&self) -> Vec<&'a KernelRun> {
        let mut runs: Vec<&KernelRun> = self.runs.iter().collect();
        let place = |name: &str| self.matrix.iter().position(|row| row == name).unwrap_or(usize::MAX);
        runs.sort_by(|one, other| {
            (place(&one.kernel), &one.kernel).cmp(&(place(&other.kernel), &other.kernel))
        });
        runs
    }

    /// The families: in the order of the probes, then those that only a record names.
    #[must_use]
    pub fn families(&self) -> Vec<&'a str> {
        let of_probes = self.probes.iter().map(|probe| probe.family.as_str());
        let records = self.runs.iter().flat_map(|run| &run.records);
        let of_records = records.map(|record| probes::spec::family_of(&record.probe));
        let mut families = Vec::new();
        for family in of_probes.chain(of_records) {
            if !families.contains(&family) {
                families.push(family);
            }
        }
        families
    }
}

/// Made-up runs for the tests of the reports.
#[cfg(test)]
pub(crate) mod made_up {
    use super::*;
    use crate::model::{AskedAgain, ImageFacts, Timing};
    use crate::snapshot::{Cell, Stale, Verdict};
    use probes::record::{Case, End, Outcome, Phase, Record};

    /// A case with this ending and these flags.
    pub(crate) fn case(name: &str, phase: Phase, end: End, flags: [Option<bool>; 3]) -> Case {
        let [accepted, fired, denied] = flags;
        let (seen, programs, log) = (serde_json::Map::new(), Vec::new(), String::new());
        Case { name: name.to_owned(), phase, end, accepted, fired, denied, seen, log, programs, micros: 0 }
    }

    /// Two kernels: one ran and differs in one probe, the other could not be started.
    pub(crate) fn runs() -> Vec<KernelRun> {
        let ran = KernelRun {
            format: crate::model::FORMAT,
            kernel: "6.1".to_owned(),
            image: ImageFacts {
                substituted: Some("6.1.1 was gone, took 6.1.2".to_owned()),
                ..ImageFacts::default()
            },
            vmm: "qemu".to_owned(),
            accel: "tcg".to_owned(),
            boots: 2,
            boot_retries: 1,
            boots_lost: vec!["before hello: BUG".to_owned()],
            asked_again: vec![AskedAgain {
                probe: "hooks/attach".to_owned(),
                why: "was ended from outside".to_owned(),
            }],
            timing: Timing { boot_ms: 4200, probes_ms: 1500, rest_ms: 300 },
            records: records(),
            ..KernelRun::default()
        };
        let lost = KernelRun {
            format: crate::model::FORMAT,
            kernel: "5.10".to_owned(),
            records: vec![
                Record::not_run("hooks/attach", "no boot"),
                Record::not_run("rules/return", "no boot"),
            ],
            failure: Some("no boot".to_owned()),
            ..KernelRun::default()
        };
        vec![ran, lost]
    }

    fn records() -> Vec<Record> {
        let yes = Some(true);
        let refused = End::Refused { errno: "EINVAL".to_owned() };
        let absent = End::Absent { what: "kfunc x".to_owned() };
        let unknown = End::CouldNotTell { why: "no tool".to_owned() };
        vec![
            Record {
                outcome: Outcome::Observed,
                cases: vec![
                    case("a", Phase::Trigger, End::Done, [yes, yes, yes]),
                    case("b", Phase::Load, refused, [Some(false), None, None]),
                ],
                micros: 1_500_000,
                ..Record::not_run("hooks/attach", "")
            },
            Record {
                outcome: Outcome::Crashed { what: "BUG: x".to_owned(), during: "d: load".to_owned() },
                cases: vec![
                    case("c", Phase::Open, absent, [None; 3]),
                    case("d", Phase::Open, unknown, [None; 3]),
                ],
                ..Record::not_run("rules/return", "")
            },
        ]
    }

    /// The verdicts on [`runs`].
    pub(crate) fn comparison() -> Comparison {
        let cell =
            |probe: &str, kernel: &str, verdict| Cell { probe: probe.into(), kernel: kernel.into(), verdict };
        let lost = || Verdict::NotCompared { why: "no boot".to_owned() };
        let diff = "@@ case c\n-done at read\n+absent at open\n".to_owned();
        Comparison {
            cells: vec![
                cell("hooks/attach", "6.1", Verdict::Matched),
                cell("rules/return", "6.1", Verdict::Different { diff }),
                cell("hooks/attach", "5.10", lost()),
                cell("rules/return", "5.10", lost()),
                cell("old/gone", "", Verdict::Stale { what: Stale::Probe }),
            ],
        }
    }

    /// The probes of [`runs`].
    pub(crate) fn probes() -> Vec<ProbeInfo> {
        ["rules/return", "hooks/attach"]
            .map(|id| ProbeInfo { id: id.to_owned(), ..list::made_up() })
            .map(with_family)
            .into()
    }

    fn with_family(mut probe: ProbeInfo) -> ProbeInfo {
        probe.family = probes::spec::family_of(&probe.id).to_owned();
        probe
    }
}
