//! The options that decide what a run records: kept in its folder's `run.json`, held against those of a run that goes on, and
//! looked at before anything is accepted.

use crate::cli::{Cli, HostOptions, MachineOptions, RunOptions, Selection, Verb};
use crate::run::Deadlines;
use crate::run::shard::Shard;
use crate::vmm::{AccelChoice, LauncherKind};
use clap::Parser as _;
use serde::{Deserialize, Serialize};

/// The options that decide what is run and how, as they were given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Options {
    pub(super) kernel: Vec<String>,
    pub(super) probe: Vec<String>,
    pub(super) shard: Option<Shard>,
    pub(super) vmm: LauncherKind,
    pub(super) accel: AccelChoice,
    pub(super) deadline: Option<u64>,
    pub(super) patience: u32,
    pub(super) lsm: Option<String>,
    pub(super) cold: bool,
    pub(super) cpus: u32,
    pub(super) shuffle: Option<u64>,
    #[serde(default)]
    pub(super) apart: bool,
}

impl Options {
    pub(super) fn of(selection: &Selection, machine: &MachineOptions) -> Self {
        Self {
            kernel: selection.kernels.clone(),
            probe: selection.probes.clone(),
            shard: selection.shard,
            vmm: machine.host.vmm,
            accel: machine.host.accel,
            deadline: machine.deadline,
            patience: machine.patience,
            lsm: machine.lsm.clone(),
            cold: machine.cold,
            cpus: machine.cpus,
            shuffle: machine.shuffle,
            apart: machine.apart,
        }
    }

    /// What stands here when nothing is given: what `conform run` alone is taken for, which is always something.
    pub(super) fn none() -> Option<Self> {
        let Verb::Run(given) = Cli::try_parse_from(["conform", "run"]).ok()?.verb else { return None };
        Some(Self::given(&given))
    }

    /// Those of `run`, whose share is no part of its selection.
    pub(super) fn given(options: &RunOptions) -> Self {
        let selection = Selection { shard: options.shard, ..options.selection.clone() };
        Self::of(&selection, &options.machine)
    }

    /// Which kernels and probes.
    pub(super) fn selection(&self) -> Selection {
        Selection { kernels: self.kernel.clone(), probes: self.probe.clone(), shard: None }
    }

    /// What starts machines; how many at once, and whether there is a network, is as in `given`.
    pub(super) fn host(&self, given: &HostOptions) -> HostOptions {
        HostOptions { vmm: self.vmm, accel: self.accel, ..given.clone() }
    }

    /// These options in place of those of `options`.
    pub(super) fn in_place_of(self, options: &RunOptions) -> RunOptions {
        let selection = self.selection();
        let machine = MachineOptions {
            host: self.host(&options.machine.host),
            deadline: self.deadline,
            patience: self.patience,
            lsm: self.lsm,
            cold: self.cold,
            cpus: self.cpus,
            shuffle: self.shuffle,
            apart: self.apart,
            bring: options.machine.bring.clone(),
        };
        RunOptions { selection, machine, shard: self.shard, ..options.clone() }
    }
}

/// Why records of such a machine are not for snapshots, if they are not: these are of the usual one, which is given the usual
/// time. One that is given less may be told to hang.
pub(super) fn not_for_snapshots(options: &MachineOptions) -> Option<String> {
    unusual(&Options::of(&Selection::default(), options), options.bring.is_some())
}

/// The same of options that were kept; `brought` is whether there was an archive for `--bring`.
pub(super) fn unusual(options: &Options, brought: bool) -> Option<String> {
    let usual = Deadlines::usual().probe.as_secs();
    let deadline = options.deadline.filter(|&seconds| seconds < usual);
    let found = [
        options.lsm.as_ref().map(|lsm| format!("--lsm {lsm}")),
        (options.cpus != 1).then(|| format!("--cpus {}", options.cpus)),
        brought.then(|| "--bring".to_owned()),
        deadline.map(|seconds| format!("--deadline {seconds} (the usual is {usual})")),
        (options.patience < 100).then(|| format!("--patience {} (the usual is 100)", options.patience)),
    ];
    found.into_iter().flatten().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_is_what_clap_says() {
        let none = Options::none().unwrap();
        assert_eq!((none.cpus, none.vmm, none.cold), (1, LauncherKind::VirtmeNg, false));
    }
}
