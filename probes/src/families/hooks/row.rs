//! A hook's row: what makes the kernel call it, and what its verdict means.

use crate::errno::Errno;
use crate::spec::Source;
use crate::triggers::{Recipe, Seen};

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
    /// What a program returns that decides nothing: the hook's own default.
    pub(super) pass: i32,
    /// What denying it means.
    pub(super) verdict: Verdict,
    /// The argument whose content is checked against what user space knows.
    pub(super) argument: Option<Argument>,
    /// Where the kernel calls it.
    pub(super) source: Source,
    /// The machine that it takes, if not the usual one.
    pub(super) order: Option<Order>,
    /// What the control sees where no verdict could be seen.
    pub(super) mute: Option<Seen>,
    /// What the control sees where the trigger is only a part of the usual one, so that no call says nothing.
    pub(super) partial: Option<Seen>,
    /// The errno that the kernel answers every denial with, if it takes no more than yes or no from the hook.
    pub(super) own: Option<Errno>,
    /// Whether denying it takes the kernel down.
    pub(super) crashes: bool,
    /// Whether the trigger has to do with files in `/tmp` or with mounts, for which the probe gets a folder of its own.
    pub(super) files: bool,
}

/// A machine with another `lsm=` than the usual one, where bpf is last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// The value of `lsm=`.
    pub(super) lsm: &'static str,
    /// What of it matters, as a question says it.
    pub(super) words: &'static str,
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
    /// Nothing else in the machine makes the kernel call the hook while the trigger lasts: what an act before it has left to be
    /// freed, the recipe waits for.
    Anyone,
    /// The object that an argument points to bears the mark that the trigger has named, whoever calls.
    Object {
        /// The argument.
        slot: i16,
        /// The way to the mark, as in [`Read::Member`].
        path: &'static str,
    },
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

/// An argument of which user space knows what it must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Argument {
    /// The parameter's name, by which its place in the context is found: places differ between kernels.
    pub(super) name: &'static str,
    /// How a program reads it.
    pub(super) read: Read,
    /// What it must be.
    pub(super) expect: Expect,
}

/// How a program reads an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// The slot's lower 32 bits.
    Int,
    /// A member, along pointers: `dentry.d_inode inode.i_ino`, each step a record and a path of members in it. Several
    /// ways, parted by ` | `, where the parameter is not the same record in all versions.
    Member(&'static str),
    /// A member as [`Read::Member`], of which these bits count.
    Bits(&'static str, u32),
    /// The text that the slot points to.
    Text,
    /// The text that a member points to.
    TextAt(&'static str),
}

/// What an argument must be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expect {
    /// Always this number, which the record shows.
    Is(u64),
    /// This text.
    Text(&'static str),
    /// A number that user space finds out before the trigger and that the record does not show: it is volatile.
    Known(fn() -> Option<u64>),
}
