//! One run of a soak: its conditions, and what it counted.

use super::tally;
use crate::model::KernelRun;
use serde::{Deserialize, Serialize};

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Round {
    /// Counted from 1.
    pub(super) number: u32,
    /// `--shuffle`.
    pub(super) order: u64,
    /// `--cold`.
    pub(super) cold: bool,
    /// `--cpus`.
    pub(super) cpus: u32,
    /// `--apart`.
    #[serde(default)]
    pub(super) apart: bool,
    /// Whether the host was kept busy.
    pub(super) load: bool,
    /// Whether it was ended before all its kernels were. What they have recorded until then counts.
    pub(super) broken_off: bool,
    /// Kernels that came to their end.
    pub(super) complete: usize,
    /// Records.
    pub(super) records: usize,
    /// Machines that were booted; a state that is not there or cannot be used makes one of a run without `--cold`.
    pub(super) booted: u32,
    /// Machines that were restored.
    pub(super) restored: u32,
    /// Boots that brought nothing and were repeated.
    pub(super) boot_retries: u32,
    /// How they ended.
    pub(super) boots_lost: Vec<String>,
    /// Probes that were asked again, and what had become of their machines.
    pub(super) asked_again: Vec<String>,
    /// Machines that were lost while no probe was under way: no record shows it.
    pub(super) lost_between: Vec<String>,
    /// Wall-clock time.
    pub(super) seconds: f64,
}

impl Round {
    /// The conditions of a run.
    pub(super) fn planned(number: u32, seed: u64) -> Self {
        let at = number - 1;
        Self {
            number,
            order: seed.wrapping_add(u64::from(at)),
            cold: at % 2 == 1,
            cpus: 1 + at / 2 % 2,
            // Of three and not of two, so that it meets all the others.
            apart: at % 3 == 1,
            load: at / 4 % 2 == 1,
            broken_off: false,
            complete: 0,
            records: 0,
            booted: 0,
            restored: 0,
            boot_retries: 0,
            boots_lost: Vec::new(),
            asked_again: Vec::new(),
            lost_between: Vec::new(),
            seconds: 0.0,
        }
    }

    /// Counts what came of one kernel.
    pub(super) fn add(&mut self, run: &KernelRun) {
        self.complete += usize::from(run.failure.is_none());
        self.records += tally::ran(run).count();
        self.booted += run.boots.saturating_sub(run.restored);
        self.restored += run.restored;
        self.boot_retries += run.boot_retries;
        let of_kernel = |what: &dyn std::fmt::Display| format!("{}: {what}", run.kernel);
        self.boots_lost.extend(run.boots_lost.iter().map(|what| of_kernel(what)));
        self.asked_again.extend(run.asked_again.iter().map(|again| of_kernel(again)));
        self.lost_between.extend(run.lost_between.iter().map(|lost| of_kernel(lost)));
    }
    /// Its conditions in words.
    pub(super) fn conditions(&self) -> String {
        format!(
            "{}, {} processor{}, {}{}, --shuffle {}",
            if self.cold { "to be booted" } else { "to be restored" },
            self.cpus,
            if self.cpus == 1 { "" } else { "s" },
            if self.load { "host busy" } else { "host as it is" },
            if self.apart { ", each probe in memory of its own" } else { "" },
            self.order
        )
    }
}
