//! The two ends of the shared region that [`crate::protocol`] describes.
//!
//! [`Region`] is the mapping, [`GuestEnd`] puts messages into the ring, [`HostEnd`] takes them out. Everything the
//! other side wrote is checked before it is believed: positions, lengths, checksums.

mod child;

pub use child::{Crumb, Notes};

use crate::protocol::{FRAME_HEAD, FRAME_MAGIC, FRAME_MAX, Message, PROTOCOL, Plan, case_in};
use crate::record::{CASES_MAX, Case};
use conform_boot::layout::{
    CRUMB_BYTES, CRUMB_OFFSET, Header, MAGIC, NOTES_BYTES, NOTES_HEAD, NOTES_OFFSET, PLAN_MAX, PLAN_OFFSET,
    REGION, RING_BYTES, RING_OFFSET, SEED_BYTES, WAITING,
};
use memmap2::{MmapMut, MmapOptions};
use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// What can go wrong on the channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The region could not be mapped.
    #[error("cannot map the channel: {0}")]
    Map(#[source] std::io::Error),
    /// The region does not begin as it must.
    #[error("the channel has the wrong magic or protocol {found}, this side speaks {PROTOCOL}")]
    Version {
        /// The protocol number found.
        found: u32,
    },
    /// The plan does not fit or does not parse.
    #[error("the plan is unusable: {0}")]
    Plan(String),
    /// The second stage does not fit.
    #[error("the guest binary has {0} bytes; 1 to {RING_BYTES} can be handed over")]
    Guest(usize),
    /// There are no random numbers for the guest.
    #[error("cannot read /dev/urandom: {0}")]
    Seed(#[source] std::io::Error),
    /// What stands in the ring is no frame.
    #[error("the guest's stream is corrupt at byte {at}: {what}")]
    Corrupt {
        /// Bytes since the start of the stream.
        at: u64,
        /// What is wrong there.
        what: String,
    },
    /// A message is larger than a frame may be.
    #[error("a message of {0} bytes is larger than a frame may be ({FRAME_MAX} bytes)")]
    TooLarge(usize),
    /// The harness did not make room in time.
    #[error("the harness did not read for {0:?}")]
    Stalled(Duration),
}

/// The mapped region.
pub struct Region {
    map: MmapMut,
}

impl Region {
    /// Maps `file`, which must have [`REGION`] bytes.
    ///
    /// # Errors
    /// [`ChannelError::Map`] with the system's reason.
    pub fn map(file: &File) -> Result<Self, ChannelError> {
        // SAFETY: both sides expect the other to change the region; nothing in it is handed out as a plain
        // reference to shared data, every access copies, and what was copied is checked.
        let map = unsafe { MmapOptions::new().len(REGION).map_mut(file) }.map_err(ChannelError::Map)?;
        Ok(Self { map })
    }

    fn header(&self) -> *mut Header {
        self.map.as_ptr().cast_mut().cast()
    }

    fn counter(&self, field: impl FnOnce(*mut Header) -> *mut u64) -> &AtomicU64 {
        // SAFETY: the pointer lies in the mapping, which is page-aligned and lives as long as `self`; the fields
        // are 8-byte aligned by `repr(C)` and only ever accessed as atomics.
        unsafe { AtomicU64::from_ptr(field(self.header())) }
    }

    fn head(&self) -> &AtomicU64 {
        // SAFETY: taking a field's address of a pointer into the mapping reads nothing.
        self.counter(|header| unsafe { &raw mut (*header).head })
    }

    fn tail(&self) -> &AtomicU64 {
        // SAFETY: as in `head`.
        self.counter(|header| unsafe { &raw mut (*header).tail })
    }

    fn heartbeat(&self) -> &AtomicU64 {
        // SAFETY: as in `head`.
        self.counter(|header| unsafe { &raw mut (*header).heartbeat })
    }

    fn stage(&self) -> &AtomicU64 {
        // SAFETY: as in `head`.
        self.counter(|header| unsafe { &raw mut (*header).stage })
    }

    fn go(&self) -> &AtomicU64 {
        // SAFETY: as in `head`.
        self.counter(|header| unsafe { &raw mut (*header).go })
    }

    /// What stands among the notes, as far as it can: the length is the probe's word.
    fn notes(&self) -> Vec<u8> {
        let area = &self.map[NOTES_OFFSET..NOTES_OFFSET + NOTES_BYTES];
        let (length, notes) = area.split_at(NOTES_HEAD);
        let length = length.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
        notes.get(..length).unwrap_or(notes).to_vec()
    }

    fn crumb(&self) -> String {
        let page = &self.map[CRUMB_OFFSET..CRUMB_OFFSET + CRUMB_BYTES];
        let length = u32::from_le_bytes([page[0], page[1], page[2], page[3]]) as usize;
        // Copied before it is looked at: the guest may write meanwhile.
        let text = page.get(4..4 + length).map(<[u8]>::to_vec).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Copies out of the ring at stream position `at`, wrapping.
    fn copy_out(&self, at: u64, into: &mut [u8]) {
        let ring = &self.map[RING_OFFSET..];
        let start = ring_index(at);
        let first = into.len().min(RING_BYTES - start);
        into[..first].copy_from_slice(&ring[start..start + first]);
        let rest = into.len() - first;
        into[first..].copy_from_slice(&ring[..rest]);
    }

    /// Copies into the ring at stream position `at`, wrapping.
    fn copy_in(&mut self, at: u64, from: &[u8]) {
        let ring = &mut self.map[RING_OFFSET..];
        let start = ring_index(at);
        let first = from.len().min(RING_BYTES - start);
        ring[start..start + first].copy_from_slice(&from[..first]);
        ring[..from.len() - first].copy_from_slice(&from[first..]);
    }

    /// Keeps the region out of child processes, but for the breadcrumb page and the notes.
    ///
    /// # Errors
    /// [`ChannelError::Map`] when the kernel refuses the advice.
    pub fn hide_from_children(&self) -> Result<(), ChannelError> {
        let base = self.map.as_ptr().cast_mut();
        for (offset, length) in [(0, CRUMB_OFFSET), (RING_OFFSET, REGION - RING_OFFSET)] {
            // SAFETY: the range lies inside the mapping; the advice changes only what fork copies.
            let result = unsafe { libc::madvise(base.add(offset).cast(), length, libc::MADV_DONTFORK) };
            if result != 0 {
                return Err(ChannelError::Map(std::io::Error::last_os_error()));
            }
        }
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the remainder is smaller than the ring")]
fn ring_index(at: u64) -> usize {
    (at % RING_BYTES as u64) as usize
}

fn seed() -> Result<[u8; SEED_BYTES], ChannelError> {
    let mut seed = [0; SEED_BYTES];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut seed)).map_err(ChannelError::Seed)?;
    Ok(seed)
}

/// The guest's end: reads the plan, writes messages.
pub struct GuestEnd {
    region: Region,
    /// How long room is waited for.
    patience: Duration,
}

impl GuestEnd {
    /// Takes the guest's end of `region`.
    ///
    /// # Errors
    /// [`ChannelError::Version`] when the harness speaks another protocol.
    pub fn new(region: Region) -> Result<Self, ChannelError> {
        // SAFETY: the header lies in the mapping; the harness wrote these fields before it started the guest.
        let (magic, found) = unsafe { ((*region.header()).magic, (*region.header()).protocol) };
        if magic != MAGIC || found != PROTOCOL {
            return Err(ChannelError::Version { found });
        }
        Ok(Self { region, patience: Duration::from_secs(30) })
    }

    /// The plan.
    ///
    /// # Errors
    /// [`ChannelError::Plan`] when it does not parse.
    pub fn plan(&self) -> Result<Plan, ChannelError> {
        // SAFETY: as in `new`.
        let length = unsafe { (*self.region.header()).plan_bytes } as usize;
        let text = self
            .region
            .map
            .get(PLAN_OFFSET..PLAN_OFFSET + length.min(PLAN_MAX))
            .ok_or_else(|| ChannelError::Plan("out of bounds".into()))?;
        serde_json::from_slice(text).map_err(|error| ChannelError::Plan(error.to_string()))
    }

    /// Puts one message into the ring, waiting up to 30 s for room.
    ///
    /// # Errors
    /// [`ChannelError::TooLarge`] or [`ChannelError::Stalled`].
    pub fn send(&mut self, message: &Message) -> Result<(), ChannelError> {
        let payload = serde_json::to_vec(message).map_err(|error| ChannelError::Plan(error.to_string()))?;
        self.put(&payload)
    }

    /// Puts a [`Message::Case`] into the ring, its case written already: a machine without KVM spends more on reading it
    /// and writing it again than on many a case.
    ///
    /// # Errors
    /// As [`GuestEnd::send`].
    pub fn send_case(&mut self, probe: &str, case: &[u8]) -> Result<(), ChannelError> {
        let probe = serde_json::to_vec(probe).map_err(|error| ChannelError::Plan(error.to_string()))?;
        self.put(&[br#"{"message":"case","probe":"#, &*probe, br#","case":"#, case, b"}"].concat())
    }

    fn put(&mut self, payload: &[u8]) -> Result<(), ChannelError> {
        if payload.len() > FRAME_MAX {
            return Err(ChannelError::TooLarge(payload.len()));
        }
        let whole = (FRAME_HEAD + payload.len()) as u64;
        let head = self.region.head().load(Ordering::Relaxed);
        let started = Instant::now();
        while head + whole - self.region.tail().load(Ordering::Acquire) > RING_BYTES as u64 {
            if started.elapsed() > self.patience {
                return Err(ChannelError::Stalled(self.patience));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let length = u32::try_from(payload.len()).map_err(|_| ChannelError::TooLarge(payload.len()))?;
        let mut frame_head = [0_u8; FRAME_HEAD];
        frame_head[..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        frame_head[4..8].copy_from_slice(&length.to_le_bytes());
        frame_head[8..].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
        self.region.copy_in(head, &frame_head);
        self.region.copy_in(head + FRAME_HEAD as u64, payload);
        self.region.head().store(head + whole, Ordering::Release);
        Ok(())
    }

    /// Takes back the last bytes that were sent, of a frame that the harness has not read or has; for the self-test that
    /// shows what comes of it.
    pub(crate) fn cut(&mut self) {
        self.region.head().fetch_sub(5, Ordering::Release);
    }

    /// From now on waits no longer than this for room.
    pub(crate) const fn be_patient_for(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Shows the harness that the guest is alive.
    pub fn beat(&self) {
        self.region.heartbeat().fetch_add(1, Ordering::Relaxed);
    }

    /// Empties the breadcrumb page and the notes before a probe starts.
    pub fn clear(&mut self) {
        self.crumb().set("");
        self.notes().clear();
    }

    /// What the probe's process has noted since [`GuestEnd::forget_notes`].
    #[must_use]
    pub fn noted(&self) -> Vec<u8> {
        self.region.notes()
    }

    /// Empties the notes, once they are passed on: until then the harness finds them there if the machine is lost.
    pub fn forget_notes(&mut self) {
        self.notes().clear();
    }

    /// The notes, for the probe's process, which inherits them.
    #[must_use]
    pub fn notes(&mut self) -> Notes {
        Notes { area: self.region.map[NOTES_OFFSET..].as_mut_ptr() }
    }

    /// What the probe's process said last.
    #[must_use]
    pub fn read_crumb(&self) -> String {
        self.region.crumb()
    }

    /// The breadcrumb page, for the probe's process, which inherits it and nothing else of the region.
    #[must_use]
    pub fn crumb(&mut self) -> Crumb {
        Crumb { page: self.region.map[CRUMB_OFFSET..].as_mut_ptr() }
    }

    /// See [`Region::hide_from_children`].
    ///
    /// # Errors
    /// As there.
    pub fn hide_from_children(&self) -> Result<(), ChannelError> {
        self.region.hide_from_children()
    }
}

/// The most that a guest may send, in bytes. All probes of a kernel take below 5 MB; what is more would be kept in memory.
pub const STREAM_MAX: u64 = 256 << 20;

/// The most messages that a guest may send. All probes of a kernel take below 20,000.
pub const MESSAGES_MAX: u32 = 1 << 18;

/// The harness's end: writes the plan, reads messages.
pub struct HostEnd {
    region: Region,
    /// Bytes taken out of the ring. The region's own number is for the guest, which could set it back.
    taken: u64,
    /// Messages taken out of it.
    messages: u32,
    /// Cases since a probe began.
    cases: usize,
}

impl HostEnd {
    /// Takes the harness's end of `region`, which is empty or being filled by a machine that is restored.
    #[must_use]
    pub const fn new(region: Region) -> Self {
        Self { region, taken: 0, messages: 0, cases: 0 }
    }

    /// How far the guest's first stage has come: 0, then [`conform_boot::layout::WAITING`] and
    /// [`conform_boot::layout::TAKEN`].
    #[must_use]
    pub fn stage(&self) -> u64 {
        self.region.stage().load(Ordering::Acquire)
    }

    /// Puts `plan` and the second stage's binary `guest` in place and says go. The machine must be waiting.
    ///
    /// # Errors
    /// [`ChannelError::Plan`] or [`ChannelError::Guest`] when one is too large.
    pub fn go(&mut self, plan: &Plan, guest: &[u8]) -> Result<(), ChannelError> {
        let text = serde_json::to_vec(plan).map_err(|error| ChannelError::Plan(error.to_string()))?;
        let plan_bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
        if text.len() > PLAN_MAX {
            return Err(ChannelError::Plan(format!("{} bytes, at most {PLAN_MAX} fit", text.len())));
        }
        if guest.is_empty() || guest.len() > RING_BYTES {
            return Err(ChannelError::Guest(guest.len()));
        }
        self.region.map[PLAN_OFFSET..PLAN_OFFSET + text.len()].copy_from_slice(&text);
        self.region.map[RING_OFFSET..RING_OFFSET + guest.len()].copy_from_slice(guest);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let header = Header {
            magic: MAGIC,
            protocol: PROTOCOL,
            plan_bytes,
            head: 0,
            tail: 0,
            heartbeat: 0,
            stage: WAITING,
            go: 0,
            guest_bytes: guest.len() as u64,
            unix_nanos: u64::try_from(since.as_nanos()).unwrap_or(0),
            seed: seed()?,
        };
        (self.taken, self.messages, self.cases) = (0, 0, 0);
        // SAFETY: the header lies in the mapping, and the guest only looks at `go` until that is set.
        unsafe { std::ptr::write(self.region.header(), header) };
        self.region.go().store(1, Ordering::Release);
        Ok(())
    }

    /// The next message, if one is there.
    ///
    /// # Errors
    /// [`ChannelError::Corrupt`] with the position; nothing can be read after that.
    pub fn receive(&mut self) -> Result<Option<Message>, ChannelError> {
        let tail = self.taken;
        let head = self.region.head().load(Ordering::Acquire);
        let corrupt = |what: String| ChannelError::Corrupt { at: tail, what };
        if head == tail {
            return Ok(None);
        }
        let too_much = || {
            let limits = format!("{STREAM_MAX} bytes, {MESSAGES_MAX} messages, {CASES_MAX} cases of a probe");
            Err(corrupt(format!("more than a guest may send ({limits})")))
        };
        if tail > STREAM_MAX || self.messages >= MESSAGES_MAX {
            return too_much();
        }
        let there = head.wrapping_sub(tail);
        if there > RING_BYTES as u64 || there < FRAME_HEAD as u64 {
            return Err(corrupt(format!("the guest claims {there} unread bytes")));
        }
        let mut frame_head = [0_u8; FRAME_HEAD];
        self.region.copy_out(tail, &mut frame_head);
        let word = |at: usize| {
            u32::from_le_bytes([frame_head[at], frame_head[at + 1], frame_head[at + 2], frame_head[at + 3]])
        };
        let length = word(4) as usize;
        if word(0) != FRAME_MAGIC || length > FRAME_MAX || (FRAME_HEAD + length) as u64 > there {
            return Err(corrupt(format!("no frame head (length {length}, {there} bytes there)")));
        }
        let mut payload = vec![0_u8; length];
        self.region.copy_out(tail + FRAME_HEAD as u64, &mut payload);
        if crc32fast::hash(&payload) != word(8) {
            return Err(corrupt("wrong checksum".into()));
        }
        let message = serde_json::from_slice(&payload).map_err(|error| corrupt(error.to_string()))?;
        if matches!(message, Message::Case { .. }) && self.cases >= CASES_MAX {
            return too_much();
        }
        self.taken = tail + (FRAME_HEAD + length) as u64;
        self.region.tail().store(self.taken, Ordering::Release);
        self.messages += 1;
        match &message {
            Message::Case { .. } => self.cases += 1,
            Message::Start { .. } | Message::End { .. } => self.cases = 0,
            Message::Hello { .. }
            | Message::Inventory { .. }
            | Message::Warned { .. }
            | Message::Done { .. }
            | Message::Failed { .. } => {}
        }
        Ok(Some(message))
    }

    /// A number that grows while the guest is alive.
    #[must_use]
    pub fn heartbeat(&self) -> u64 {
        self.region.heartbeat().load(Ordering::Relaxed)
    }

    /// What the probe under way said last, `<case>: <phase>`.
    #[must_use]
    pub fn crumb(&self) -> String {
        self.region.crumb()
    }

    /// What the probe under way had noted and PID 1 not taken when the machine was lost: the lines that are cases.
    #[must_use]
    pub fn noted(&self) -> Vec<Case> {
        self.region.notes().split(|&byte| byte == b'\n').filter_map(case_in).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
