//! The first stage of the guest and the layout of the region that it shares with the harness.
//!
//! A machine is saved while this stage waits, so nothing here may depend on the probes: the second stage, the crate
//! `probes` as the binary `conform-guest`, arrives through the region when the harness says go. Every byte of this
//! crate is part of the key of a saved state; an edit here costs one cold boot per kernel, an edit there none.

pub mod device;
pub mod layout;
mod mounts;
mod power;
pub mod stage;

pub use power::power_off;

/// The environment variable in which the second stage is told what could not be made ready, one sentence a line.
pub const SETUP: &str = "CONFORM_SETUP";
