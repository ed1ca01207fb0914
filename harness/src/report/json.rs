//! The report for programs. Field names are stable within a [`SCHEMA`]; new fields may be added.
//!
//! ```text
//! schema            number, the version of this format
//! ok                whether everything that was run matched its snapshot and nothing is stale
//! totals            counts over all kernels (see `Counts`)
//! kernels[]         one per kernel, in matrix order
//!   kernel          the row's name
//!   failure         why the kernel could not be run, or null
//!   facts           what the guest said of itself (`KernelFacts`), or null
//!   image           the image that was booted (`ImageFacts`)
//!   vmm, accel, qemu, boots, restored, boot_retries
//!   boots_lost[]    how the repeated boots ended
//!   asked_again[]   probes that were asked again (`probe`), because of what became of their machine (`why`)
//!   lost_between[]  after, what: machines that came up and were lost while no probe was under way, after which probe
//!                   (null: before the first) and how
//!   warned_between[] after, what: kernel warnings that came then
//!   timing          boot_ms, probes_ms, rest_ms
//!   counts          counts over the kernel's records
//!   records[]       one per probe, in the order of the run
//!     probe, family, micros
//!     outcome       observed | could-not-tell | crashed | hung | not-run, with why | what, during
//!     cases[]       name, phase, end (done | refused | absent | could-not-tell) with errno | what | why,
//!                   accepted, fired, denied, reason, seen; normalised as in the snapshots
//!     warnings[]    kernel warnings, normalised
//!     counts        counts over the record
//!     verdict       matched | different | missing | not-compared, or null
//!     detail        the diff of `different`, the reason of `not-compared`, or null
//! stale[]           probe, kernel (null for a whole file): what no longer exists but stands in a snapshot
//! ```

use super::Material;
use super::counts::Counts;
use crate::model::{AskedAgain, Between, ImageFacts, KernelRun, Timing};
use crate::normalize::{Normal, normalize};
use crate::snapshot::{Cell, Verdict};
use probes::record::{KernelFacts, Record};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the report's format.
pub const SCHEMA: u32 = 1;

/// The whole report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Whether everything that was run matched and nothing is stale.
    pub ok: bool,
    /// Counts over all kernels.
    pub totals: Counts,
    /// The kernels, in matrix order.
    pub kernels: Vec<KernelReport>,
    /// What stands in a snapshot but no longer exists.
    pub stale: Vec<StaleReport>,
}

/// One kernel's part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelReport {
    /// The row's name.
    pub kernel: String,
    /// Why the kernel could not be run.
    pub failure: Option<String>,
    /// What the guest said of itself.
    pub facts: Option<KernelFacts>,
    /// The image that was booted.
    pub image: ImageFacts,
    /// `virtme-ng` or `qemu`.
    pub vmm: String,
    /// `kvm` or `tcg`.
    pub accel: String,
    /// QEMU's version.
    pub qemu: String,
    /// Virtual machines started.
    pub boots: u32,
    /// Of them, restored from a saved state.
    pub restored: u32,
    /// Boots that were tried again.
    pub boot_retries: u32,
    /// How they ended, as far as it is known.
    #[serde(default)]
    pub boots_lost: Vec<String>,
    /// Probes that were asked again, because their machine was lost and the kernel was not at fault.
    #[serde(default)]
    pub asked_again: Vec<AskedAgain>,
    /// Machines lost while no probe was under way.
    #[serde(default)]
    pub lost_between: Vec<Between>,
    /// Kernel warnings that came then.
    #[serde(default)]
    pub warned_between: Vec<Between>,
    /// Where the time went.
    pub timing: Timing,
    /// Counts over the records.
    pub counts: Counts,
    /// The records, normalised.
    pub records: Vec<RecordReport>,
}

/// One probe's part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordReport {
    /// The probe's id.
    pub probe: String,
    /// Its family.
    pub family: String,
    /// How long it took in the guest, in microseconds.
    pub micros: u64,
    /// Outcome, cases and warnings as a snapshot holds them.
    #[serde(flatten)]
    pub normal: Normal,
    /// Counts over the cases.
    pub counts: Counts,
    /// The verdict's name.
    pub verdict: Option<String>,
    /// What the verdict carries.
    pub detail: Option<String>,
}

/// Something stale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleReport {
    /// The probe whose snapshot it is.
    pub probe: String,
    /// The kernel that no longer exists; `null` when it is the probe.
    pub kernel: Option<String>,
}

/// Makes the report.
#[must_use]
pub fn report(material: Material<'_>) -> Report {
    let kernels: Vec<KernelReport> = material
        .ordered_runs()
        .into_iter()
        .map(|run| kernel_report(run, &material.comparison.of_kernel(&run.kernel)))
        .collect();
    Report {
        schema: SCHEMA,
        ok: material.comparison.all_matched() && kernels.iter().all(|kernel| kernel.failure.is_none()),
        totals: kernels.iter().map(|kernel| kernel.counts).sum(),
        kernels,
        stale: material.comparison.cells.iter().filter_map(stale_report).collect(),
    }
}

/// The report as text.
///
/// # Errors
/// Never for these types; the error is serde's.
pub fn render(material: Material<'_>) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&report(material)).map(|text| text + "\n")
}

fn kernel_report(run: &KernelRun, verdicts: &BTreeMap<&str, &Verdict>) -> KernelReport {
    let records: Vec<RecordReport> = run
        .records
        .iter()
        .map(|record| record_report(record, verdicts.get(record.probe.as_str()).copied()))
        .collect();
    KernelReport {
        kernel: run.kernel.clone(),
        failure: run.failure.clone(),
        facts: run.facts.clone(),
        image: run.image.clone(),
        vmm: run.vmm.clone(),
        accel: run.accel.clone(),
        qemu: run.qemu.clone(),
        boots: run.boots,
        restored: run.restored,
        boot_retries: run.boot_retries,
        boots_lost: run.boots_lost.clone(),
        asked_again: run.asked_again.clone(),
        lost_between: run.lost_between.clone(),
        warned_between: run.warned_between.clone(),
        timing: run.timing,
        counts: records.iter().map(|record| record.counts).sum(),
        records,
    }
}

fn record_report(record: &Record, verdict: Option<&Verdict>) -> RecordReport {
    let detail = match verdict {
        Some(Verdict::Different { diff }) => Some(diff.clone()),
        Some(Verdict::NotCompared { why }) => Some(why.clone()),
        Some(Verdict::Matched | Verdict::Missing | Verdict::Stale { .. }) | None => None,
    };
    RecordReport {
        probe: record.probe.clone(),
        family: probes::spec::family_of(&record.probe).to_owned(),
        micros: record.micros,
        normal: normalize(record),
        counts: Counts::of(record, verdict),
        verdict: verdict.map(|verdict| verdict.name().to_owned()),
        detail,
    }
}

fn stale_report(cell: &Cell) -> Option<StaleReport> {
    match cell.verdict {
        Verdict::Stale { .. } => {
            let kernel = (!cell.kernel.is_empty()).then(|| cell.kernel.clone());
            Some(StaleReport { probe: cell.probe.clone(), kernel })
        }
        Verdict::Matched | Verdict::Different { .. } | Verdict::Missing | Verdict::NotCompared { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::made_up;
    use crate::snapshot::made_up::names;

    fn text() -> String {
        let (runs, comparison) = (made_up::runs(), made_up::comparison());
        let (matrix, probes) = (names(&["5.10", "6.1"]), made_up::probes());
        render(Material { runs: &runs, comparison: &comparison, matrix: &matrix, probes: &probes }).unwrap()
    }

    #[test]
    fn the_field_names_are_those_of_the_documentation() {
        let value: serde_json::Value = serde_json::from_str(&text()).unwrap();
        assert_eq!(value["schema"], 1);
        assert_eq!(value["ok"], false);
        assert_eq!(value["totals"]["accepted"], 1);
        let kernels = &value["kernels"];
        assert_eq!(kernels[0]["kernel"], "5.10");
        assert_eq!(kernels[0]["failure"], "no boot");
        assert_eq!(kernels[1]["timing"]["boot_ms"], 4200);
        let record = &kernels[1]["records"][1];
        assert_eq!(record["outcome"], "crashed");
        assert_eq!(record["what"], "BUG: x");
        assert_eq!(record["cases"][0]["end"], "absent");
        assert_eq!(record["verdict"], "different");
        assert!(record["detail"].as_str().unwrap().contains("+absent at open"));
        assert_eq!(value["stale"][0], serde_json::json!({"probe": "old/gone", "kernel": null}));
    }

    #[test]
    fn a_report_is_read_back() {
        let report: Report = serde_json::from_str(&text()).unwrap();
        assert_eq!(report.kernels.len(), 2);
        assert_eq!(serde_json::to_string_pretty(&report).unwrap() + "\n", text());
    }
}
