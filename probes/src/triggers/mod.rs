//! What user space does so that the kernel calls a hook: one small function per recipe, one file per kind of
//! system call.
//!
//! A [`Recipe`] makes everything ready and returns an [`Act`], which can be done again and again and leaves things as
//! it found them. Only what stands inside [`Arm::during`] counts as the trigger: programs act for nobody else.

pub mod files;

use crate::errno::Errno;
use crate::results::{Results, TARGET};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes a trigger ready. Returns the errno of the preparation that failed.
pub type Recipe = fn() -> Result<Act, Errno>;
/// A trigger that is ready. Returns what the system call under test gave.
pub type Act = Box<dyn FnMut(Arm) -> Result<(), Errno>>;

/// Names the task that programs act for, for as long as the trigger lasts.
#[derive(Clone, Copy)]
pub struct Arm {
    target: *const AtomicU64,
}

impl Arm {
    /// For the control run: nobody is named.
    #[must_use]
    pub const fn idle() -> Self {
        Self { target: std::ptr::null() }
    }

    /// Names tasks in `results`, which must outlive every use.
    #[must_use]
    pub fn new(results: &Results) -> Self {
        Self { target: results.cell(TARGET) }
    }

    /// Does `act` with the calling process named as target. A child process that a recipe forks calls this itself;
    /// the page is shared with it.
    pub fn during<T>(self, act: impl FnOnce() -> T) -> T {
        self.name(std::process::id());
        let result = act();
        self.name(0);
        result
    }

    /// Names process `pid`, 0 for nobody.
    pub fn name(self, pid: u32) {
        // SAFETY: null, or a cell of a results page, which is mapped shared and outlives the trigger.
        if let Some(cell) = unsafe { self.target.as_ref() } {
            cell.store(u64::from(pid), Ordering::SeqCst);
        }
    }
}
