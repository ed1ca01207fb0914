//! A hook's row: what makes the kernel call it, and what its verdict means.

use crate::errno::Errno;
use crate::spec::Source;
use crate::triggers::Recipe;

/// A hook's row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hook {
    /// Its name, without `bpf_lsm_`.
    pub(super) name: &'static str,
    /// What makes the kernel call it.
    pub(super) recipe: Recipe,
    /// How calls are counted.
    pub(super) calls: Calls,
    /// Whom a program recognizes as the trigger's doing.
    pub(super) whom: Whom,
    /// What denying it means.
    pub(super) verdict: Verdict,
    /// Where the kernel calls it.
    pub(super) source: Source,
}

/// How the calls that one trigger causes are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Calls {
    /// Their number is the kernel's and always the same.
    Counted,
    /// Their number depends on timing or memory; only whether there were any is recorded.
    Some,
}

/// How a program knows that a call belongs to the trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    /// The calling task is the target.
    Current,
    /// The target is the task that the hook's first argument points to, whoever calls.
    FirstArgument,
}

/// What a hook's return value can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// An int hook: each errno is tried, and user space should see it or what the kernel makes of it.
    Errnos(&'static [Errno]),
    /// An int hook whose value is no errno: each value is tried.
    Values(&'static [i32]),
    /// A void hook: nothing is denied, whatever a program returns.
    Nothing,
}
