//! What all runs of a soak have to stand on: a difference that an edit of the tree, another QEMU or another image makes is
//! none between runs.

use super::super::manifest::Manifest;
use crate::exit::{self, Failure};
use std::cell::RefCell;

/// What the last run stood on; nothing before the first.
#[derive(Debug, Default)]
pub(in crate::verbs) struct Base(RefCell<Option<Manifest>>);

impl Base {
    /// What the last run of a soak that goes on stood on, if there was one.
    pub(super) fn of(was: Option<Manifest>) -> Self {
        Self(RefCell::new(was))
    }

    /// What the last run stood on.
    pub(super) fn last(&self) -> Option<Manifest> {
        self.0.borrow().clone()
    }

    /// Takes note of what the next run stands on, which is made as for one processor.
    ///
    /// # Errors
    /// Infrastructure, with everything that is different now.
    pub(in crate::verbs) fn hold(&self, now: Manifest) -> Result<(), Failure> {
        let changes = self.0.borrow().as_ref().map(|was| was.changes(&now)).unwrap_or_default();
        if !changes.is_empty() {
            let why = anyhow::anyhow!(
                "what the runs stand on has changed since the last one, so this one is not compared: {}; leave that \
                 alone while a soak runs, and begin anew",
                changes.join("; ")
            );
            return Err(Failure::new(exit::INFRASTRUCTURE, why));
        }
        // The last one, not the first: it knows the image of a kernel that had none in the first.
        self.0.replace(Some(now));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_stands_on_something_else_is_not_begun() {
        let base = Base::default();
        base.hold(Manifest::made_up(&["6.1"])).unwrap();
        base.hold(Manifest::made_up(&["6.1"])).unwrap();
        let failure = base.hold(Manifest::made_up(&["6.1", "7.3"])).unwrap_err();
        assert_eq!(failure.code, exit::INFRASTRUCTURE);
        assert!(failure.to_string().contains("kernel 7.3 was not among those to run"), "{failure}");
        base.hold(Manifest::made_up(&["6.1"])).unwrap();
    }
}
