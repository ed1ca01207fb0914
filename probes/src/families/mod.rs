//! Every probe, by family. A family is a module with a function `probes`; a probe is one entry in its table.

pub mod attach;
pub mod cgroup;
pub mod chain;
pub mod context;
pub mod example;
pub mod helpers;
pub mod hooks;
pub mod kfuncs;
pub mod load;
pub mod lsms;
pub mod maps;
pub mod pointer;
pub mod program;
mod rules;
pub mod selftest;
pub mod storage;

use crate::spec::Probe;

/// A family: the first part of its probes' ids, what it is about, and the probes.
pub struct Family {
    /// The first part of its probes' ids.
    pub name: &'static str,
    /// What it is about, in one line.
    pub about: &'static str,
    /// Its probes, in the order in which they run.
    pub probes: fn() -> Vec<Probe>,
    /// Hooks on which PID 1 keeps an inert program while the family runs. Taking the last program off a hook costs a
    /// grace period, over 100 ms on some kernels, and a family about something else than attaching need not pay it
    /// for every probe. What is kept returns 0 and is attached first.
    pub kept: &'static [&'static str],
    /// Whether PID 1 keeps the links of a probe's programs when its process ends, so that nobody waits for them to be
    /// detached; the power-off does that. Only for families whose programs act for nobody when their probe is over.
    pub lingers: bool,
}

/// The hooks that most helper and kfunc probes use.
const KEPT: &[&str] = &["file_open"];

impl Family {
    const fn new(name: &'static str, about: &'static str, probes: fn() -> Vec<Probe>) -> Self {
        Self { name, about, probes, kept: &[], lingers: false }
    }

    const fn keeping(mut self, hooks: &'static [&'static str]) -> Self {
        self.kept = hooks;
        self
    }

    const fn lingering(mut self) -> Self {
        self.lingers = true;
        self
    }
}

/// The families, in the order in which they run and are reported. The one that lingers comes last.
pub const FAMILIES: &[Family] = &[
    Family::new("program", "the program type itself and what it takes to have it", program::probes),
    Family::new("example", "the documented examples, as written", example::probes),
    Family::new("chain", "several programs on one hook", chain::probes).keeping(chain::KEPT),
    Family::new("attach", "the ways to attach, links, and how long they last", attach::probes)
        .keeping(attach::KEPT),
    Family::new("cgroup", "programs of a cgroup: BPF_LSM_CGROUP", cgroup::probes).keeping(cgroup::KEPT),
    Family::new("load", "what the kernel asks of a program before it takes it", load::probes),
    Family::new("pointer", "what may be done with pointers", pointer::probes),
    Family::new("maps", "every kind of map, from plain and sleepable programs", maps::probes)
        .keeping(maps::KEPT),
    Family::new("storage", "storage that belongs to a kernel object", storage::probes).keeping(storage::KEPT),
    Family::new("lsms", "bpf among other LSMs", lsms::probes).keeping(lsms::KEPT),
    Family::new("context", "the array of arguments that a program is given", context::probes),
    Family::new("helpers", "each helper: called for real, its result checked", helpers::probes).keeping(KEPT),
    Family::new("kfuncs", "each kfunc: called for real, its result checked", kfuncs::probes).keeping(KEPT),
    Family::new("hooks", "each hook: load, attach, fire, deny", hooks::probes).lingering(),
];

/// The family that runs only when it is asked for by name; see [`selftest`].
pub const HIDDEN: Family = Family::new("selftest", "probes that misbehave on purpose", selftest::probes);

/// Every probe of every family.
#[must_use]
pub fn all() -> Vec<Probe> {
    FAMILIES.iter().flat_map(|family| (family.probes)()).collect()
}

/// The family of that name.
#[must_use]
pub fn family(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|it| it.name == name)
}

/// Every probe that can be asked for: [`all`] and the hidden ones.
#[must_use]
pub fn all_with_hidden() -> Vec<Probe> {
    let mut probes = all();
    probes.extend((HIDDEN.probes)());
    probes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::family_of;
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_unique_and_name_their_family() {
        let mut seen = BTreeSet::new();
        for family in FAMILIES.iter().chain([&HIDDEN]) {
            for probe in (family.probes)() {
                assert_eq!(family_of(&probe.id), family.name, "{}", probe.id);
                assert!(
                    probe.id.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_-".contains(&b)),
                    "{}",
                    probe.id
                );
                assert_eq!(probe.id.split('/').count(), 2, "{}", probe.id);
                assert!(probe.question.ends_with('?'), "{}: {}", probe.id, probe.question);
                assert!(!probe.sources.is_empty(), "{} cites no kernel source", probe.id);
                assert!(seen.insert(probe.id.clone()), "{} is declared twice", probe.id);
            }
        }
    }
}
