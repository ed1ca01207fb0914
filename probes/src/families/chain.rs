//! Several programs on one hook: who runs, what each sees, whose verdict counts.

use crate::spec::Probe;

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    Vec::new()
}
