//! Virtual machines: which launcher, which accelerator, how one is started and made sure to end.

pub mod accel;
pub mod flags;
mod folder;
pub mod launch;
pub mod machine;
pub mod qmp;
mod said;
pub mod state;
pub mod warm;

pub use accel::{Accel, AccelChoice};
pub use launch::{Launcher, LauncherKind, MachineSpec};
pub use machine::{Machine, MachineError};
