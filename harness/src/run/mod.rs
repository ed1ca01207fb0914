//! From kernels and probes to records: build the guest, pack it, boot, collect, blame, go on.

pub mod collect;
pub mod guest;
mod image;
pub mod initramfs;
mod order;
pub mod schedule;
pub mod setup;
pub mod shard;
mod start;
#[cfg(test)]
pub(crate) mod tests;
pub mod took;
pub mod trial;

pub use collect::run_kernel;
pub use setup::{Deadlines, Job, Setup};
