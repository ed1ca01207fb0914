//! What a run knows: one [`KernelRun`] per kernel, holding the records as they came and how they were made.
//!
//! This is also the format of a run folder's `kernel.json`; [`FORMAT`] changes when a reader would have to.

use probes::record::{KernelFacts, Record};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Version of the run folder's format.
pub const FORMAT: u32 = 2;

/// Where a kernel image came from, as exactly as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// Path of the image that was booted.
    pub path: PathBuf,
    /// SHA-256 of the image, lower-case hexadecimal.
    pub sha256: String,
    /// Package name, or empty when the image is no package's.
    #[serde(default)]
    pub package: String,
    /// Package version, or empty.
    #[serde(default)]
    pub package_version: String,
    /// Set when the pinned version was gone and another of its series was taken: the sentence that says so.
    #[serde(default)]
    pub substituted: Option<String>,
    /// `CONFIG_*` facts read from the package's config file, name to value (`y`, `m`, `n`, a string); empty when unknown.
    #[serde(default)]
    pub config: std::collections::BTreeMap<String, String>,
}

/// Where the wall-clock time of one kernel went, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// From starting a machine to the guest's hello, all boots and restores together.
    pub boot_ms: u64,
    /// From hello to the last record.
    pub probes_ms: u64,
    /// Everything else: preparing, waiting for a lost machine, powering off.
    pub rest_ms: u64,
}

impl Timing {
    /// All of it, in milliseconds.
    #[must_use]
    pub const fn all_ms(&self) -> u64 {
        self.boot_ms + self.probes_ms + self.rest_ms
    }
}

/// What happened while no probe was under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Between {
    /// The probe that had ended last in that boot; `None` before the first.
    pub after: Option<String>,
    /// The kernel's words, or ours.
    pub what: String,
}

impl std::fmt::Display for Between {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.after {
            Some(probe) => write!(f, "after {probe}: {}", self.what),
            None => write!(f, "before the first probe: {}", self.what),
        }
    }
}

/// A probe that was asked once more, because its machine was lost and its kernel was not at fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedAgain {
    /// The probe.
    pub probe: String,
    /// What became of the machine: "was ended from outside".
    pub why: String,
}

impl std::fmt::Display for AskedAgain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, whose machine {}", self.probe, self.why)
    }
}

/// One kernel's part of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KernelRun {
    /// Format version, [`FORMAT`].
    pub format: u32,
    /// The row's name, or the file name of an image without a row.
    pub kernel: String,
    /// The image.
    pub image: ImageFacts,
    /// What the guest said of itself; `None` when no boot came as far as hello.
    pub facts: Option<KernelFacts>,
    /// `virtme-ng` or `qemu`.
    pub vmm: String,
    /// `kvm` or `tcg`, as actually used.
    pub accel: String,
    /// First line of `qemu-system-x86_64 --version`.
    pub qemu: String,
    /// Virtual machines started, retries included.
    pub boots: u32,
    /// How many of them were restored from a saved state instead of booted.
    #[serde(default)]
    pub restored: u32,
    /// Boots that brought no record and were tried again, most of them before hello.
    pub boot_retries: u32,
    /// How each of them ended, as far as it is known.
    #[serde(default)]
    pub boots_lost: Vec<String>,
    /// Probes that were asked again.
    #[serde(default)]
    pub asked_again: Vec<AskedAgain>,
    /// Machines that came up and were lost while no probe was under way: no record is theirs.
    #[serde(default)]
    pub lost_between: Vec<Between>,
    /// Kernel warnings that came while no probe was under way.
    #[serde(default)]
    pub warned_between: Vec<Between>,
    /// Where the time went.
    pub timing: Timing,
    /// The records, in the order in which the guest sent them; probes that did not run are among them as such.
    pub records: Vec<Record>,
    /// Why the kernel as a whole could not be run (no image, no boot); its records are then all `not-run`.
    pub failure: Option<String>,
}

impl KernelRun {
    /// Adds what `part`, another run of the same kernel, took and lost. Its records and its failure are the caller's.
    pub fn add_cost(&mut self, part: &Self) {
        self.boots += part.boots;
        self.restored += part.restored;
        self.boot_retries += part.boot_retries;
        self.boots_lost.extend_from_slice(&part.boots_lost);
        self.asked_again.extend_from_slice(&part.asked_again);
        self.lost_between.extend_from_slice(&part.lost_between);
        self.warned_between.extend_from_slice(&part.warned_between);
        self.timing.boot_ms += part.timing.boot_ms;
        self.timing.probes_ms += part.timing.probes_ms;
        self.timing.rest_ms += part.timing.rest_ms;
    }
}
