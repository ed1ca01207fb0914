//! The page that programs and user space share: one array map value, mapped into the probe's process.
//!
//! Reading it costs no system call, so a program that denies `bpf(2)` itself does not keep its own results from us
//! (array maps can be mapped since 5.5: kernel/bpf/arraymap.c, array_map_mmap).

use crate::bpf::{self, BPF_F_MMAPABLE, BPF_MAP_TYPE_ARRAY, MapSpec};
use crate::errno::Errno;
use memmap2::{MmapMut, MmapOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;

/// Number of 64-bit slots.
pub const SLOTS: usize = 512;
/// The page in bytes, as a map's attribute takes it.
const PAGE_BYTES: u32 = 4096;
const _: () = assert!(PAGE_BYTES as usize == SLOTS * 8);
/// Byte offset of the tgid that programs act for, or of [`NOBODY`].
pub const TARGET: i32 = 0;
/// What stands at [`TARGET`] when programs are to act for nobody. No tgid has this value; 0 would be the idle task's,
/// on whose back the kernel does some of its work.
pub const NOBODY: u64 = u64::MAX;
/// Byte offset of the count of runs on behalf of the target.
pub const RUNS: i32 = 8;
/// Byte offset of the first slot that is a program's own.
pub const FREE: i32 = 64;

/// The page.
pub struct Results {
    fd: OwnedFd,
    page: MmapMut,
}

impl Results {
    /// Creates the map and maps its value. The target is this process.
    ///
    /// # Errors
    /// The errno of the map's creation or mapping.
    pub fn new() -> Result<Self, Errno> {
        let fd = bpf::map_create(&MapSpec {
            map_type: BPF_MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: PAGE_BYTES,
            max_entries: 1,
            flags: BPF_F_MMAPABLE,
            name: "results".into(),
            ..MapSpec::default()
        })?;
        // SAFETY: the mapping is of a BPF map, which nobody truncates; programs change it, and every read below is
        // volatile.
        let page =
            unsafe { MmapOptions::new().len(SLOTS * 8).map_mut(fd.as_raw_fd()) }.map_err(Errno::from)?;
        let mut results = Self { fd, page };
        results.set(TARGET, u64::from(std::process::id()));
        Ok(results)
    }

    /// The slot at byte `offset`, which must be one of the page's.
    #[must_use]
    pub fn get(&self, offset: i32) -> u64 {
        let cell = self.page[index(offset)..].as_ptr().cast::<u64>();
        // SAFETY: `index` is inside the page and 8-byte aligned in a page-aligned mapping.
        unsafe { cell.read_volatile() }
    }

    /// Sets the slot at byte `offset`.
    pub fn set(&mut self, offset: i32, value: u64) {
        let cell = self.page[index(offset)..].as_mut_ptr().cast::<u64>();
        // SAFETY: as in `get`.
        unsafe { cell.write_volatile(value) };
    }

    /// Sets what begins at byte `offset`, which is that of a slot; the rest of its last slot becomes zero.
    pub fn set_bytes(&mut self, offset: i32, bytes: &[u8]) {
        for (slot, piece) in (0..).zip(bytes.chunks(8)) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            self.set(offset + 8 * slot, u64::from_le_bytes(word));
        }
    }

    /// Has programs act for nobody.
    pub fn name_nobody(&mut self) {
        self.set(TARGET, NOBODY);
    }

    /// The slot at byte `offset` as an atomic that is shared with programs and with forked children.
    #[must_use]
    pub fn cell(&self, offset: i32) -> *const AtomicU64 {
        self.page[index(offset)..].as_ptr().cast()
    }

    /// `length` bytes from byte `offset` on.
    #[must_use]
    pub fn bytes(&self, offset: i32, length: usize) -> Vec<u8> {
        let start = index(offset);
        (start..start + length)
            // SAFETY: the slice index is checked; volatile because a program may write meanwhile.
            .map(|at| unsafe { std::ptr::from_ref(&self.page[at]).read_volatile() })
            .collect()
    }

    /// How often a program counted itself for the target.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.get(RUNS)
    }
}

impl AsFd for Results {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Offsets are written by probes as the instruction field's type; a wrong one is a mistake in a probe and panics
/// there, in the probe's own process.
fn index(offset: i32) -> usize {
    let index = usize::try_from(offset).unwrap_or(usize::MAX);
    assert!(index.is_multiple_of(8) && index < SLOTS * 8, "no slot at byte {offset}");
    index
}
