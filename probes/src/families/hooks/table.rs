//! The hooks, one row each.

use super::{Calls, Hook, Verdict};
use crate::errno::Errno;
use crate::spec::source;
use crate::triggers::files;

const DENIALS: &[Errno] = &[Errno::EPERM, Errno::EACCES];

/// The rows.
pub(super) const HOOKS: &[Hook] = &[Hook {
    name: "file_open",
    recipe: files::open,
    calls: Calls::Counted,
    verdict: Verdict::Errnos(DENIALS),
    source: source("6.12", "fs/open.c", "do_dentry_open"),
}];
