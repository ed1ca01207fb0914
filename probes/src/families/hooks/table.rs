//! The hooks, one row each, in one file per kind of thing that they guard.
//!
//! Sources are where the kernel calls the hook for the trigger of the row, in the oldest tree at hand that does.

mod files;
mod ipc;
mod names;
mod sockets;
mod system;
mod tasks;

use super::row::{Calls, Hook, Verdict, Whom};
use crate::errno::Errno;
use crate::spec::source;
use crate::triggers::Recipe;

const DENIALS: &[Errno] = &[Errno::EPERM, Errno::EACCES];
/// Where the sources were read, if a row says nothing else.
const READ_IN: &str = "6.14";

/// Every row.
pub(super) fn hooks() -> impl Iterator<Item = Hook> {
    [files::HOOKS, names::HOOKS, tasks::HOOKS, sockets::HOOKS, ipc::HOOKS, system::HOOKS]
        .into_iter()
        .flatten()
        .copied()
}

/// A hook that can deny.
const fn int(name: &'static str, recipe: Recipe, file: &'static str, symbol: &'static str) -> Hook {
    Hook {
        name,
        recipe,
        calls: Calls::Counted,
        whom: Whom::Current,
        verdict: Verdict::Errnos(DENIALS),
        source: source(READ_IN, file, symbol),
    }
}

/// A hook that is told, not asked.
const fn void(name: &'static str, recipe: Recipe, file: &'static str, symbol: &'static str) -> Hook {
    Hook { verdict: Verdict::Nothing, ..int(name, recipe, file, symbol) }
}

impl Hook {
    /// The same row, its calls not counted.
    const fn uncounted(self) -> Self {
        Self { calls: Calls::Some, ..self }
    }

    /// The same row, its program looking at the first argument instead of the calling task.
    const fn first_argument(self) -> Self {
        Self { whom: Whom::FirstArgument, ..self }
    }

    /// The same row, with values instead of errnos.
    const fn values(self, values: &'static [i32]) -> Self {
        Self { verdict: Verdict::Values(values), ..self }
    }

    /// The same row, its source read in another version.
    const fn read_in(self, version: &'static str) -> Self {
        Self { source: source(version, self.source.file, self.source.symbol), ..self }
    }
}
