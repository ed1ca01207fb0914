//! Kfuncs: called as intended from an LSM program, the result checked against user space.

use crate::spec::Probe;

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    Vec::new()
}
