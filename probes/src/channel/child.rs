//! What a probe's process has of the region: the breadcrumb page and the notes.

use conform_boot::layout::{CRUMB_BYTES, NOTES_BYTES, NOTES_HEAD};
use std::sync::atomic::{Ordering, fence};

/// Where the probe's process says what it is doing, so that a crash can be blamed on a case and a phase.
#[derive(Clone, Copy)]
pub struct Crumb {
    pub(super) page: *mut u8,
}

impl Crumb {
    /// A breadcrumb that nobody reads, for tests.
    #[must_use]
    pub fn nowhere() -> Self {
        Self { page: std::ptr::null_mut() }
    }

    /// Says what is under way.
    pub fn set(self, text: &str) {
        if self.page.is_null() {
            return;
        }
        let bytes = &text.as_bytes()[..text.len().min(CRUMB_BYTES - 4)];
        let length = u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes();
        // SAFETY: the page is mapped for as long as this process lives (the region is never unmapped), it has
        // CRUMB_BYTES bytes, and only this process writes to it.
        unsafe {
            std::ptr::write_volatile(self.page.cast::<[u8; 4]>(), [0; 4]);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.page.add(4), bytes.len());
            std::ptr::write_volatile(self.page.cast::<[u8; 4]>(), length);
        }
    }
}

/// Where the probe's process writes the cases that have ended, in the region and not in its own memory: they are safe
/// from a crash in the next one, and nobody need be woken for each.
#[derive(Clone, Copy)]
pub struct Notes {
    pub(super) area: *mut u8,
}

impl Notes {
    /// The most that fits, in bytes.
    pub const CAPACITY: usize = NOTES_BYTES - NOTES_HEAD;

    /// Notes that nobody reads and that have no room, for tests.
    #[must_use]
    pub const fn nowhere() -> Self {
        Self { area: std::ptr::null_mut() }
    }

    /// Adds `text`, if there is room for all of it.
    #[must_use]
    pub fn write(self, text: &[u8]) -> bool {
        if self.area.is_null() {
            return false;
        }
        // SAFETY: the area is mapped for as long as this process lives (the region is never unmapped) and has NOTES_BYTES
        // bytes. The process that writes here waits while PID 1 takes what is there.
        let length = unsafe { std::ptr::read_volatile(self.area.cast::<[u8; NOTES_HEAD]>()) };
        let length = u32::from_le_bytes(length) as usize;
        let Some(after) = length.checked_add(text.len()).filter(|&after| after <= Self::CAPACITY) else {
            return false;
        };
        let Ok(word) = u32::try_from(after) else { return false };
        // SAFETY: as above, and what is written ends within the area.
        unsafe {
            let to = self.area.add(NOTES_HEAD + length);
            std::ptr::copy_nonoverlapping(text.as_ptr(), to, text.len());
        }
        // A reader that sees the new length must see the text, also one that comes after a crash.
        fence(Ordering::Release);
        self.set_length(word);
        true
    }

    pub(super) fn clear(self) {
        if !self.area.is_null() {
            self.set_length(0);
        }
    }

    pub(super) fn set_length(self, length: u32) {
        // SAFETY: as in `write`.
        unsafe { std::ptr::write_volatile(self.area.cast::<[u8; NOTES_HEAD]>(), length.to_le_bytes()) };
    }
}
