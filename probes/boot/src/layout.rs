//! Where things lie in the region that the harness and the guest share, all integers little-endian.
//!
//! | offset | what |
//! | --- | --- |
//! | 0 | [`Header`]: magic, version, sizes, positions |
//! | [`CRUMB_OFFSET`] | the breadcrumb page: `u32` length and text `<case>: <phase>`, written by the probe under way |
//! | [`PLAN_OFFSET`] | the plan, JSON, written by the harness before it says go; once it is read, the notes: `u32` length and the cases that the probe under way has ended |
//! | [`RING_OFFSET`] | before go: the second stage's binary; after: the ring of frames from the guest |

/// First eight bytes of the region once the harness has said go.
pub const MAGIC: u64 = u64::from_le_bytes(*b"BLSMCONF");
/// Size of the region in bytes; a power of two, as a PCI bar must be.
pub const REGION: usize = 16 << 20;
/// Where the breadcrumb page starts.
pub const CRUMB_OFFSET: usize = 4096;
/// Size of the breadcrumb page.
pub const CRUMB_BYTES: usize = 4096;
/// Where the plan starts.
pub const PLAN_OFFSET: usize = 8192;
/// The most that a plan may have, in bytes.
pub const PLAN_MAX: usize = (1 << 20) - PLAN_OFFSET;
/// Where the notes start: where the plan was.
pub const NOTES_OFFSET: usize = PLAN_OFFSET;
/// Size of the notes, with their length in front.
pub const NOTES_BYTES: usize = PLAN_MAX;
/// Bytes of that length.
pub const NOTES_HEAD: usize = 4;
/// Where the ring starts, and before it the second stage's binary.
pub const RING_OFFSET: usize = 1 << 20;
/// Size of the ring in bytes.
pub const RING_BYTES: usize = REGION - RING_OFFSET;
/// Bytes of randomness that the harness gives a machine.
pub const SEED_BYTES: usize = 32;

/// [`Header::stage`] of a guest that waits for [`Header::go`].
pub const WAITING: u64 = 1;
/// [`Header::stage`] of a guest that has taken the second stage's binary out of the region.
pub const TAKEN: u64 = 2;

/// The first bytes of the region. Each field is written by one side only.
#[repr(C)]
#[derive(Debug)]
pub struct Header {
    /// [`MAGIC`]; harness.
    pub magic: u64,
    /// The protocol's version; harness.
    pub protocol: u32,
    /// Length of the plan in bytes; harness.
    pub plan_bytes: u32,
    /// Bytes that the guest has put into the ring since the start; guest.
    pub head: u64,
    /// Bytes that the harness has taken out of the ring since the start; harness.
    pub tail: u64,
    /// Raised by the guest whenever it turns its supervising loop; guest.
    pub heartbeat: u64,
    /// How far the first stage has come, [`WAITING`] or [`TAKEN`]; guest.
    pub stage: u64,
    /// Not zero when everything else is in place; harness, last.
    pub go: u64,
    /// Length of the second stage's binary in bytes; harness.
    pub guest_bytes: u64,
    /// The host's time of day in nanoseconds since 1970, because a restored machine's clock stands where it was saved.
    pub unix_nanos: u64,
    /// What a restored machine's random numbers are stirred with; without it every restore would repeat them.
    pub seed: [u8; SEED_BYTES],
}
