//! What passes between the harness and the guest, version [`PROTOCOL`].
//!
//! The channel is a region of memory that both sides map: on the host a private file, in the guest the second
//! memory bar of QEMU's `ivshmem-plain` PCI device. It needs no driver, no block device and no system call per
//! record, a kernel that dies cannot take back what was written, and a kernel message cannot get into it.
//!
//! [`conform_boot::layout`] says where what lies in it. The guest's first stage ([`conform_boot::stage`]) waits until the
//! harness has put the plan and the second stage into the region and says go; from then on the ring is the guest's.
//!
//! A frame is `u32` magic, `u32` length, `u32` CRC-32 of the payload, payload: JSON of one [`Message`]. The last
//! message is [`Message::Done`] with the number of records, so that a cut stream cannot look whole.
//! Whoever changes a message in a way that an older reader would misread raises [`PROTOCOL`].

pub use conform_boot::layout::REGION;

use crate::record::{Case, KernelFacts, Outcome};
use serde::{Deserialize, Serialize};

/// Version of the layout and of the messages.
pub const PROTOCOL: u32 = 4;
/// First four bytes of every frame.
pub const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"REC\x01");
/// Bytes before a frame's payload.
pub const FRAME_HEAD: usize = 12;
/// The most that one frame's payload may have, in bytes; a larger message is an error of the sender.
pub const FRAME_MAX: usize = 8 << 20;

/// What PID 1 says on the console before it ends the machine because it cannot go on, with the reason behind it: it may be
/// the channel that failed.
pub const GIVES_UP: &str = "conform-guest: cannot go on: ";

/// The first byte of a line that holds a case, among the notes of a probe's process and in its pipe; the case's JSON follows.
pub const CASE_LINE: u8 = b'c';

/// The case in a line, given without its end; `None` for any other line.
#[must_use]
pub fn case_in(line: &[u8]) -> Option<Case> {
    let (&CASE_LINE, case) = line.split_first()? else { return None };
    serde_json::from_slice(case).ok()
}

/// What the harness asks the guest to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Which probes, as globs over ids; an empty list means all.
    pub select: Vec<String>,
    /// Ids of probes that no table names and that some kernel has brought: they are asked here too
    /// ([`crate::families::all_with`]).
    #[serde(default)]
    pub known: Vec<String>,
    /// The part of them that is run here.
    #[serde(default)]
    pub part: Part,
    /// Ids not to be run: those that an earlier boot has already answered.
    pub done: Vec<String>,
    /// What kind of machine this is: only the probes that ask for such a one run.
    pub machine: Machine,
    /// Deadline of one probe, in milliseconds.
    pub probe_ms: u64,
    /// Keep the programs and the verifier's logs of accepted programs too.
    pub detail: bool,
    /// Run the probes of each family in another order, which this number decides.
    #[serde(default)]
    pub shuffle: Option<u64>,
    /// Have each probe start from memory that no other has used.
    #[serde(default)]
    pub apart: bool,
}

/// A part of the probes: those whose ids fall on `index` when all are dealt out to `of` parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Counted from 0.
    pub index: u32,
    /// How many parts there are.
    pub of: u32,
}

impl Default for Part {
    /// All of them.
    fn default() -> Self {
        Self { index: 0, of: 1 }
    }
}

impl Part {
    /// Whether a probe belongs to it. That depends on its id alone, so that all machines agree (FNV-1a, 64 bits).
    #[must_use]
    pub fn has(self, id: &str) -> bool {
        self.of <= 1 || hash(id.as_bytes()) % u64::from(self.of) == u64::from(self.index)
    }
}

/// FNV-1a, 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The place of a probe among those of its family in the order that `seed` decides.
#[must_use]
pub fn place(seed: u64, id: &str) -> u64 {
    // The seed comes last too: ids differ in their last bytes, which FNV alone mixes into few others.
    hash(&[&seed.to_le_bytes(), id.as_bytes(), &seed.to_be_bytes()].concat())
}

/// The virtual machine that a probe needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Machine {
    /// The kernel's usual one, shared with other probes.
    Shared,
    /// One apart from the shared ones, because the probe may wedge or crash the kernel or leaves it changed; a crash
    /// is an observation. Probes that ask for this follow one another until one takes the machine down.
    Own,
    /// One booted with another `lsm=`, shared with the probes that ask for the same.
    Lsm {
        /// The value of `lsm=`.
        order: String,
    },
}

/// A probe as the guest announces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// The probe's id.
    pub probe: String,
    /// The machine it asks for.
    pub machine: Machine,
}

/// What the guest tells the harness.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "kebab-case")]
pub enum Message {
    /// First: the guest is up.
    Hello {
        /// [`PROTOCOL`] of the guest.
        protocol: u32,
        /// What it found.
        facts: Box<KernelFacts>,
    },
    /// Second: every probe that the plan selects on this kernel, in the order in which they would run.
    Inventory {
        /// The probes.
        probes: Vec<Announced>,
    },
    /// A probe is about to start.
    Start {
        /// Its id.
        probe: String,
    },
    /// A case of the probe under way has ended.
    Case {
        /// Its probe's id.
        probe: String,
        /// The case.
        case: Box<Case>,
    },
    /// The probe under way has ended.
    End {
        /// Its id.
        probe: String,
        /// How.
        outcome: Outcome,
        /// Kernel warnings meanwhile.
        warnings: Vec<String>,
        /// Time taken, in microseconds.
        micros: u64,
    },
    /// Kernel warnings that appeared while no probe was under way: no record is theirs.
    Warned {
        /// The warnings.
        warnings: Vec<String>,
    },
    /// Last: nothing follows.
    Done {
        /// Number of [`Message::End`]s sent.
        records: u64,
    },
    /// The guest itself cannot go on. Before the inventory no other boot could; after it the probe under way, if any,
    /// is over, and nothing follows.
    Failed {
        /// Why.
        why: String,
    },
}
