//! What a probe is: an id, a question, the kernel source that makes the question worth asking, and a function.
//!
//! A probe is declared in one place, its family's table under [`crate::families`]; nothing else names it.

use crate::protocol::Machine;
use crate::session::{Session, Stop};

/// Kernel source that a probe's question or expectation rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The version the lines were read in, such as `6.12`.
    pub version: &'static str,
    /// Path in the kernel tree.
    pub file: &'static str,
    /// Function, macro or table in that file.
    pub symbol: &'static str,
}

/// Shorthand for a [`Source`].
#[must_use]
pub const fn source(version: &'static str, file: &'static str, symbol: &'static str) -> Source {
    Source { version, file, symbol }
}

/// The one file that a probe without a `/tmp` of its own may make and open. It stays for the next, and nobody changes what
/// it is.
pub const ANYBODYS: &str = "/tmp/opened";

/// The function of a probe. It reports through the [`Session`]; an `Err` means the probe could not tell.
pub type Run = Box<dyn Fn(&mut Session<'_>) -> Result<(), Stop> + Send + Sync>;

/// A probe: the unit that is announced, runs in its own process and leaves one record and one snapshot file.
pub struct Probe {
    /// `<family>/<name>`, in the field's terms, never named after a version or a bug.
    pub id: String,
    /// One sentence, a question.
    pub question: String,
    /// Where the kernel's source answers it.
    pub sources: Vec<Source>,
    /// The virtual machine it needs.
    pub machine: Machine,
    /// Whether it is known to take the machine down on some kernels. Such probes come after the others on their
    /// machine, so that as few boots as possible follow.
    pub crashes: bool,
    /// Whether it comes after all others on its machine (but for those that crash it), because it looks at what they
    /// have left.
    pub comes_last: bool,
    /// Whether it neither makes files nor mounts anything, so that it need not be kept from others in that.
    pub no_files: bool,
    /// Whether it loads objects with aya, which PID 1 makes ready once for all of them.
    pub aya: bool,
    /// Whether PID 1 keeps the links of its programs when its process ends, as for a family that
    /// [lingers](crate::families::Family::lingers).
    pub lingers: bool,
    /// Whether its process must not share its memory with another one.
    pub own_memory: bool,
    /// What it does.
    pub run: Run,
}

impl Probe {
    /// A probe that shares its virtual machine with others.
    pub fn new(
        id: impl Into<String>,
        question: impl Into<String>,
        sources: &[Source],
        run: impl Fn(&mut Session<'_>) -> Result<(), Stop> + Send + Sync + 'static,
    ) -> Self {
        Self {
            id: id.into(),
            question: question.into(),
            sources: sources.to_vec(),
            machine: Machine::Shared,
            crashes: false,
            comes_last: false,
            no_files: false,
            aya: false,
            lingers: false,
            own_memory: false,
            run: Box::new(run),
        }
    }

    /// The same probe, run in a virtual machine of its own, because it may wedge or crash the kernel.
    #[must_use]
    pub fn own_machine(mut self) -> Self {
        self.machine = Machine::Own;
        self
    }

    /// The same probe, after all others on its machine.
    #[must_use]
    pub const fn coming_last(mut self) -> Self {
        self.comes_last = true;
        self
    }

    /// The same probe, which makes no file but [`ANYBODYS`], and no mount: it has no `/tmp` of its own.
    #[must_use]
    pub const fn without_files(mut self) -> Self {
        self.no_files = true;
        self
    }

    /// The same probe, which loads objects with aya.
    #[must_use]
    pub const fn uses_aya(mut self) -> Self {
        self.aya = true;
        self
    }

    /// The same probe, whose programs may stay attached when it is over: they let everything pass, on hooks that no
    /// other probe on its machine asks about.
    #[must_use]
    pub const fn lingering(mut self) -> Self {
        self.lingers = true;
        self
    }

    /// The same probe, whose process has its memory for itself: the kernel refuses a user namespace of its own to one
    /// that shares it (7.3 kernel/fork.c, check_unshare_flags).
    #[must_use]
    pub const fn with_own_memory(mut self) -> Self {
        self.own_memory = true;
        self
    }

    /// The same probe, run apart and after the others there, because it takes some kernels down.
    #[must_use]
    pub fn crashing(mut self) -> Self {
        self.machine = Machine::Own;
        self.crashes = true;
        self
    }

    /// The same probe, run in a machine booted with `lsm=order`.
    #[must_use]
    pub fn with_lsm(mut self, order: &str) -> Self {
        self.machine = Machine::Lsm { order: order.to_owned() };
        self
    }

    /// The family part of the id.
    #[must_use]
    pub fn family(&self) -> &str {
        family_of(&self.id)
    }
}

/// The family part of a probe id: what stands before the first slash.
#[must_use]
pub fn family_of(id: &str) -> &str {
    id.split_once('/').map_or(id, |(family, _)| family)
}
