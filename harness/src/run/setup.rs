//! What a run is given: deadlines, what all kernels share, what one kernel's part is, and whom it tells.

use crate::model::{ImageFacts, KernelRun};
use crate::vmm::Launcher;
use crate::vmm::accel::Accel;
use crate::vmm::state::Store;
use probes::protocol::Part;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long things may take. All of them bound a wait; none is part of an observation.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From starting the launcher to waiting for the plan, and from there to hello.
    pub hello: Duration,
    /// One probe, as the guest enforces it.
    pub probe: Duration,
    /// Beyond the guest's own deadline, or without a heartbeat, until the machine is given up.
    pub silence: Duration,
    /// For a machine that is done to power off.
    pub power_off: Duration,
}

impl Deadlines {
    /// Wide enough for a machine under TCG that is busy with other things. KVM has the same: within another machine it can be
    /// as slow, and what is too late there must not be another record.
    #[must_use]
    pub const fn usual() -> Self {
        Self {
            hello: Duration::from_secs(90),
            // Attaching to a hook takes 5.7 up to a second (5.7 kernel/bpf/trampoline.c, bpf_trampoline_update, waits for
            // every task), and a probe may attach 38 times.
            probe: Duration::from_secs(90),
            silence: Duration::from_secs(40),
            power_off: Duration::from_secs(5),
        }
    }

    /// These, with so many hundredths of what is waited for from outside: all but a probe's own time.
    #[must_use]
    pub fn percent(self, percent: u32) -> Self {
        let [hello, silence, power_off] =
            [self.hello, self.silence, self.power_off].map(|it| it * percent / 100);
        Self { hello, silence, power_off, ..self }
    }
}

/// What all kernels of a run share.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Who starts machines.
    pub launcher: Launcher,
    /// The accelerator.
    pub accel: Accel,
    /// First line of QEMU's version.
    pub qemu_version: String,
    /// First line of virtme-ng's, where it starts the machines.
    pub vng_version: Option<String>,
    /// The guest's first stage, packed.
    pub initramfs: PathBuf,
    /// The guest's second stage.
    pub guest: Arc<[u8]>,
    /// Where booted machines are kept; `None` to boot each time.
    pub states: Option<Store>,
    /// This program, to be run as guard.
    pub guard: PathBuf,
    /// Deadlines.
    pub deadlines: Deadlines,
    /// Globs over probe ids; empty for all.
    pub select: Vec<String>,
    /// Ids of probes that no table names and that some kernel has brought ([`probes::protocol::Plan::known`]).
    pub known: Vec<String>,
    /// Keep programs and logs.
    pub detail: bool,
    /// Memory of a machine in MiB.
    pub memory_mib: u32,
    /// Virtual processors of a machine.
    pub cpus: u32,
    /// Another order of the probes ([`probes::protocol::Plan::shuffle`]).
    pub shuffle: Option<u64>,
    /// Whether no probe finds memory that another has used ([`probes::protocol::Plan::apart`]).
    pub apart: bool,
    /// An archive that is unpacked after the others.
    pub bring: Option<PathBuf>,
}

/// One kernel to run.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name in records.
    pub kernel: String,
    /// Its image.
    pub image: ImageFacts,
    /// Value of `lsm=`.
    pub lsm: String,
    /// What `uname -r` must begin with; a kernel that says otherwise is the wrong one. Empty: anything.
    pub release_prefix: String,
    /// Where console logs go.
    pub folder: PathBuf,
    /// The part of the probes that is run.
    pub part: Part,
    /// What all probes took on this kernel in an earlier run, if that is known.
    pub expected: Option<Duration>,
    /// What an earlier run, which was interrupted, has of this kernel: all of it, or with [`KernelRun::failure`] a part,
    /// which is completed.
    pub before: Option<KernelRun>,
}

/// What a run tells while it goes on.
pub trait Observer: Sync {
    /// Something happened to a kernel, in a few words.
    fn note(&self, kernel: &str, text: &str);
    /// `done` of `total` probes have ended.
    fn progress(&self, kernel: &str, done: usize, total: usize);
    /// What there is of a kernel's run so far: called now and then, so that little is lost with this program.
    fn so_far(&self, _run: &KernelRun) {}
}
