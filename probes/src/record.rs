//! What a probe leaves behind: one [`Record`], made of [`Case`]s.
//!
//! These types travel from the guest to the harness as JSON (see [`crate::protocol`]) and are kept as they are in
//! the run folder. They hold what was seen, unshortened; shortening a verifier log to its reason and removing
//! volatile text is the harness's work (`harness::normalize`), inferring version ranges is the reports'.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How far a case came: the system call or the act that was under way when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Making ready: reading BTF, creating maps, parsing an object.
    Open,
    /// `BPF_PROG_LOAD`: the verifier speaks here.
    Load,
    /// `BPF_RAW_TRACEPOINT_OPEN`, `BPF_LINK_CREATE` or `BPF_PROG_ATTACH`.
    Attach,
    /// The system call that should make the kernel run the program.
    Trigger,
    /// Reading back what the program left, and comparing it with what user space knows.
    Read,
}

impl Phase {
    /// The phase's name as it stands in records and snapshots.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Load => "load",
            Self::Attach => "attach",
            Self::Trigger => "trigger",
            Self::Read => "read",
        }
    }
}

/// How a case ended. A closed set: whoever reads records matches it without a wildcard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "kebab-case")]
pub enum End {
    /// The case came through its last phase; what it saw is in [`Case::seen`].
    Done,
    /// The kernel said no in the phase named.
    Refused {
        /// The symbolic errno, such as `EACCES`.
        errno: String,
    },
    /// What the case asks about does not exist in this kernel's BTF (a kfunc, a hook, a type).
    Absent {
        /// What was looked for, such as `kfunc bpf_get_task_exe_file`.
        what: String,
    },
    /// The question could not be answered here. Never to be read as "no".
    CouldNotTell {
        /// Why, in a sentence fragment without volatile text.
        why: String,
    },
}

/// The most cases that one probe may have; the largest has a few hundred. Whoever reads records counts on it: cases are
/// looked up by name, which a flood of them would make slow without end.
pub const CASES_MAX: usize = 1 << 13;

/// One attempt inside a probe: its own program, its own ending.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// The variant part of the id `<family>/<name>/<variant>`; unique within its probe.
    pub name: String,
    /// The phase in which the case ended.
    pub phase: Phase,
    /// How it ended.
    #[serde(flatten)]
    pub end: End,
    /// Whether the kernel accepted every program that the case loaded; `None` when it loaded none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<bool>,
    /// Whether a program ran on behalf of the trigger; `None` when the case had no trigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired: Option<bool>,
    /// Whether user space saw the denial that a program asked for, or one of several; `None` when none was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<bool>,
    /// What was observed, in the order in which it was seen.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub seen: serde_json::Map<String, Value>,
    /// The verifier's log of the refused program (or of every program in a detailed run), unshortened.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log: String,
    /// The programs as they were submitted and as the kernel rewrote them; only in a detailed run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<ProgramDump>,
    /// How long the case took, in microseconds of the guest's monotonic clock; 0 when nothing has measured it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub micros: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A program as it was handed to the kernel and, where accepted, as the kernel keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramDump {
    /// The name given to the kernel.
    pub name: String,
    /// The submitted instructions, base64 of the 8-byte `struct bpf_insn`s.
    pub submitted: String,
    /// The translated instructions (`bpf_prog_info.xlated_prog_insns`), base64; empty when refused or not readable.
    pub translated: String,
}

/// How a probe as a whole ended. A closed set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The probe ran to its end and its cases say what it saw.
    Observed,
    /// The probe could not answer; never to be read as "no".
    CouldNotTell {
        /// Why.
        why: String,
    },
    /// The probe's process or its kernel died.
    Crashed {
        /// The kernel's first message about it, or the signal that ended the process.
        what: String,
        /// The case and phase that were under way, `<case>: <phase>`, as far as it was announced.
        during: String,
    },
    /// The probe did not end before its deadline.
    Hung {
        /// The case and phase that were under way.
        during: String,
    },
    /// The probe was not run.
    NotRun {
        /// Why.
        why: String,
    },
}

impl Outcome {
    /// The outcome's name as it stands in records and snapshots.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::CouldNotTell { .. } => "could-not-tell",
            Self::Crashed { .. } => "crashed",
            Self::Hung { .. } => "hung",
            Self::NotRun { .. } => "not-run",
        }
    }
}

/// Everything one probe found on one kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The probe's id, `<family>/<name>`.
    pub probe: String,
    /// How the probe ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The cases that ended, in order; also those before a crash.
    #[serde(default)]
    pub cases: Vec<Case>,
    /// Kernel warnings that appeared while the probe ran (WARN, BUG, lockdep, RCU stall, taint), first lines only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// How long the probe took in the guest, in microseconds of the guest's monotonic clock.
    #[serde(default)]
    pub micros: u64,
}

impl Record {
    /// A record of a probe that did not run.
    #[must_use]
    pub fn not_run(probe: &str, why: &str) -> Self {
        Self {
            probe: probe.to_owned(),
            outcome: Outcome::NotRun { why: why.to_owned() },
            cases: Vec::new(),
            warnings: Vec::new(),
            micros: 0,
        }
    }
}

/// What the guest knows about the kernel it runs on; sent once, before any probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelFacts {
    /// `uname -r`.
    pub release: String,
    /// `/proc/version`, one line.
    pub version: String,
    /// `/sys/kernel/security/lsm`, or empty when securityfs does not say.
    pub lsm: String,
    /// `/proc/cmdline`.
    pub cmdline: String,
    /// Size of `/sys/kernel/btf/vmlinux` in bytes; 0 when the kernel has none.
    pub btf_bytes: u64,
    /// `/proc/sys/kernel/tainted` at the start.
    pub tainted: u64,
    /// Number of processors online.
    pub cpus: u32,
    /// Set-up steps that failed in the guest, each with its reason (a file system that this kernel lacks, say).
    pub setup: Vec<String>,
}
