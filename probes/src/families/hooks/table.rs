//! The hooks, one row each, in one file per kind of thing that they guard.
//!
//! Sources are where the kernel calls the hook for the trigger of the row, in the oldest tree at hand that does.

mod built;
mod files;
mod inodes;
mod ipc;
mod modular;
mod mounts;
mod names;
mod nfs;
mod sockets;
mod system;
mod tasks;

use super::row::{Argument, Calls, Expect, Hook, Order, Read, Verdict, Whom};
use crate::errno::Errno;
use crate::families::lsms::{FIRST, MIDDLE};
use crate::spec::source;
use crate::triggers::{Recipe, Seen};

/// Why a row is measured where bpf is first, in words.
pub(super) const BPF_FIRST: &str = "bpf first";
const DENIALS: &[Errno] = &[Errno::EPERM, Errno::EACCES];
/// Where the sources were read, if a row says nothing else.
const READ_IN: &str = "6.14";

/// From an argument to the number of an inode.
const OF_FILE: &str = "file.f_inode inode.i_ino";
const OF_DENTRY: &str = "dentry.d_inode inode.i_ino";
const OF_PATH: &str = "path.dentry dentry.d_inode inode.i_ino";
/// From an argument to the last part of a name.
const NAME: &str = "dentry.d_name.name";

/// Every row.
pub(super) fn hooks() -> impl Iterator<Item = Hook> {
    [
        files::HOOKS,
        inodes::HOOKS,
        names::HOOKS,
        mounts::HOOKS,
        tasks::HOOKS,
        sockets::HOOKS,
        ipc::HOOKS,
        system::HOOKS,
        modular::HOOKS,
        nfs::HOOKS,
        built::HOOKS,
    ]
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
        pass: 0,
        argument: None,
        verdict: Verdict::Errnos(DENIALS),
        source: source(READ_IN, file, symbol),
        order: None,
        mute: None,
        partial: None,
        own: None,
        crashes: false,
        files: true,
    }
}

/// A hook that is told, not asked.
const fn void(name: &'static str, recipe: Recipe, file: &'static str, symbol: &'static str) -> Hook {
    Hook { verdict: Verdict::Nothing, ..int(name, recipe, file, symbol) }
}

/// Rows whose trigger has nothing to do with files: a folder of a probe's own costs a mount namespace.
mod bare {
    use super::{Hook, Recipe};

    /// As [`super::int`].
    pub(super) const fn int(
        name: &'static str,
        recipe: Recipe,
        file: &'static str,
        symbol: &'static str,
    ) -> Hook {
        Hook { files: false, ..super::int(name, recipe, file, symbol) }
    }

    /// As [`super::void`].
    pub(super) const fn void(
        name: &'static str,
        recipe: Recipe,
        file: &'static str,
        symbol: &'static str,
    ) -> Hook {
        Hook { files: false, ..super::void(name, recipe, file, symbol) }
    }
}

impl Hook {
    /// The same row, with a folder of its own for the trigger's files.
    const fn with_files(self) -> Self {
        Self { files: true, ..self }
    }

    /// The same row, its calls not counted.
    const fn uncounted(self) -> Self {
        Self { calls: Calls::Some, ..self }
    }

    /// The same row, its program looking at a mark of the object in `slot` instead of the calling task: what the
    /// kernel does later or elsewhere. The recipe names the mark.
    const fn object(self, slot: i16, path: &'static str) -> Self {
        Self { whom: Whom::Object { slot, path }, ..self }
    }

    /// The same row, its program acting for whoever calls: of a hook that only the trigger makes the kernel call, later
    /// and with an object that bears no mark. The recipe names the mark 0.
    const fn anyone(self) -> Self {
        Self { whom: Whom::Anyone, ..self }
    }

    /// The same row, its program returning the hook's default, which is not 0 on any kernel where the trigger makes the
    /// program run. Returning 0 amounts to the same: the default is then asked for (6.12 arch/x86/net/bpf_jit_comp.c,
    /// invoke_bpf_mod_ret). It is the only way for a hook whose default once was 0: up to 6.7 what is not 0 ends the asking
    /// (5.9 security/security.c, call_int_hook).
    const fn passing(self, pass: i32) -> Self {
        Self { pass, ..self }
    }

    /// The same row, on a machine where bpf is asked before AppArmor, which would end the asking.
    const fn asked_first(self) -> Self {
        Self { order: Some(Order { lsm: FIRST, words: BPF_FIRST }), ..self }
    }

    /// The same row, on a machine where IPE is: the one that has bpf first. Where bpf stands does not matter.
    const fn beside_ipe(self) -> Self {
        Self { order: Some(Order { lsm: FIRST, words: "ipe" }), ..self }
    }

    /// The same row, on a machine where bpf is asked before SELinux.
    const fn asked_before_selinux(self) -> Self {
        Self { order: Some(Order { lsm: MIDDLE, words: "bpf before selinux" }), ..self }
    }

    /// The same row, whose verdict cannot be seen where the control sees this.
    const fn mute_where(self, seen: Seen) -> Self {
        Self { mute: Some(seen), ..self }
    }

    /// The same row, where the trigger of a kernel on which the control sees this is a part of the usual one.
    const fn partial_where(self, seen: Seen) -> Self {
        Self { partial: Some(seen), ..self }
    }

    /// The same row, of a hook whose denial the kernel answers with this errno, whatever a program returned.
    const fn answered_with(self, own: Errno) -> Self {
        Self { own: Some(own), ..self }
    }

    /// The same row, of a hook whose denial takes the kernel down: one errno is tried, in a machine of its own.
    const fn crashing(self) -> Self {
        Self { crashes: true, verdict: Verdict::Errnos(&[Errno::EPERM]), ..self }
    }

    /// The same row, with an argument whose content is checked.
    const fn argument(self, name: &'static str, read: Read, expect: Expect) -> Self {
        Self { argument: Some(Argument { name, read, expect }), ..self }
    }

    /// The same row, with a number whose content is checked.
    const fn number(self, name: &'static str, number: i32) -> Self {
        self.argument(name, Read::Int, Expect::Is(number.cast_unsigned() as u64))
    }

    /// The same row, with a member that must be a certain number.
    const fn member(self, name: &'static str, path: &'static str, number: u64) -> Self {
        self.argument(name, Read::Member(path), Expect::Is(number))
    }

    /// The same row, with a member that user space finds out.
    const fn known(self, name: &'static str, path: &'static str, find: fn() -> Option<u64>) -> Self {
        self.argument(name, Read::Member(path), Expect::Known(find))
    }

    /// The same row, with a text that a member points to.
    const fn text_at(self, name: &'static str, path: &'static str, text: &'static str) -> Self {
        self.argument(name, Read::TextAt(path), Expect::Text(text))
    }

    /// The same row, with a text that the argument points to.
    const fn text(self, name: &'static str, text: &'static str) -> Self {
        self.argument(name, Read::Text, Expect::Text(text))
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
