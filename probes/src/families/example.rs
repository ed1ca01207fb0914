//! The documented examples, as a reader of the documentation would write them.

use crate::spec::Probe;

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    Vec::new()
}
