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
pub mod reach;
pub mod selftest;
pub mod storage;

use crate::btf::Btf;
use crate::spec::{Probe, family_of};
use std::collections::BTreeSet;

/// A family: the first part of its probes' ids, what it is about, and the probes.
pub struct Family {
    /// The first part of its probes' ids.
    pub name: &'static str,
    /// What it is about, in one line.
    pub about: &'static str,
    /// Its probes, in the order in which they run.
    pub probes: fn() -> Vec<Probe>,
    /// Hooks on which PID 1 keeps a program while the family runs, which returns 0, is attached first, and calls what
    /// a probe hands it ([`crate::session::Attempt::run_lsm`]). To attach a program takes 10 ms under TCG, and to take
    /// the last one off a hook costs a grace period, over 100 ms on some kernels: a family about something else than
    /// attaching need not pay that for every program.
    pub kept: &'static [&'static str],
    /// Whether PID 1 keeps the links of a probe's programs when its process ends, so that nobody waits for them to be
    /// detached; the power-off does that. Only for families whose programs act for nobody when their probe is over.
    pub lingers: bool,
    /// For a family whose probes are not all known before a kernel has said what it has.
    pub dynamic: Option<Dynamic>,
}

/// How a family gets probes that no table names.
#[derive(Clone, Copy)]
pub struct Dynamic {
    /// The names that a kernel's BTF brings.
    pub names: fn(&Btf) -> Vec<String>,
    /// The probe of that name, which asks the same on every kernel, also on one that has nothing of the name; `None`
    /// for what can be no name.
    pub probe: fn(&str) -> Option<Probe>,
}

/// The hook that most kfunc probes use.
const KEPT: &[&str] = &["file_open"];

impl Family {
    const fn new(name: &'static str, about: &'static str, probes: fn() -> Vec<Probe>) -> Self {
        Self { name, about, probes, kept: &[], lingers: false, dynamic: None }
    }

    const fn keeping(mut self, hooks: &'static [&'static str]) -> Self {
        self.kept = hooks;
        self
    }

    const fn dynamic(mut self, names: fn(&Btf) -> Vec<String>, probe: fn(&str) -> Option<Probe>) -> Self {
        self.dynamic = Some(Dynamic { names, probe });
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
    Family::new("example", "the documented examples, as written", example::probes).keeping(example::KEPT),
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
    Family::new("context", "the array of arguments that a program is given", context::probes)
        .keeping(context::KEPT),
    Family::new("helpers", "each helper: called for real, its result checked", helpers::probes)
        .keeping(helpers::KEPT),
    Family::new("kfuncs", "each kfunc: called for real, its result checked", kfuncs::probes).keeping(KEPT),
    Family::new("reach", "which system calls lead to a hook, and which go round it", reach::probes)
        .keeping(reach::KEPT),
    Family::new("hooks", "each hook function: what it is, load, attach, fire, deny", hooks::probes)
        .dynamic(hooks::names, hooks::dynamic_probe)
        .lingering(),
];

/// The family that runs only when it is asked for by name; see [`selftest`].
pub const HIDDEN: Family = Family::new("selftest", "probes that misbehave on purpose", selftest::probes);

/// Every probe that a table names, of every family. [`all_with`] knows more.
#[must_use]
pub fn all() -> Vec<Probe> {
    all_with(std::iter::empty())
}

/// Every probe that a table names, and those of `ids` that a dynamic family makes.
///
/// Ids that mean nothing to any family are left out.
pub fn all_with<'a>(ids: impl Iterator<Item = &'a str>) -> Vec<Probe> {
    all_of(|_| true, ids)
}

/// As [`all_with`], of the families whose name is `wanted`: to make the others' would take a slow machine a tenth of a
/// second.
pub fn all_of<'a>(wanted: impl Fn(&str) -> bool, ids: impl Iterator<Item = &'a str>) -> Vec<Probe> {
    let ids: BTreeSet<&str> = ids.collect();
    let of_family = |family: &Family| {
        let mut probes = (family.probes)();
        if let Some(dynamic) = family.dynamic {
            let declared: BTreeSet<&str> = probes.iter().map(|probe| probe.id.as_str()).collect();
            let new = ids.iter().filter(|id| family_of(id) == family.name && !declared.contains(*id));
            let made: Vec<Probe> = new.filter_map(|id| (dynamic.probe)(id.split_once('/')?.1)).collect();
            probes.extend(made);
        }
        probes
    };
    FAMILIES.iter().filter(|family| wanted(family.name)).flat_map(of_family).collect()
}

/// The ids that a kernel's BTF brings to the dynamic families.
#[must_use]
pub fn ids_in(btf: &Btf) -> Vec<String> {
    let of_family = |family: &Family| {
        let names = family.dynamic.map(|dynamic| (dynamic.names)(btf)).unwrap_or_default();
        names.into_iter().map(|name| format!("{}/{name}", family.name)).collect::<Vec<_>>()
    };
    FAMILIES.iter().flat_map(of_family).collect()
}

/// The family of that name.
#[must_use]
pub fn family(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|it| it.name == name)
}

/// The family of which every id that matches a glob is; `None` if there may be several.
#[must_use]
pub fn family_of_glob(glob: &str) -> Option<&str> {
    let (family, _) = glob.split_once('/')?;
    family.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)).then_some(family)
}

/// Every probe that can be asked for: [`all_with`] and the hidden ones.
pub fn all_with_hidden<'a>(ids: impl Iterator<Item = &'a str>) -> Vec<Probe> {
    let mut probes = all_with(ids);
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
    #[test]
    fn a_glob_names_a_family_or_several() {
        assert_eq!(family_of_glob("hooks/file_*"), Some("hooks"));
        assert_eq!(family_of_glob("*/file_open"), None);
        assert_eq!(family_of_glob("{hooks,chain}/x"), None);
        assert_eq!(family_of_glob("*"), None);
        let some = all_of(|family| family == "program", std::iter::once("hooks/never_heard_of"));
        assert!(!some.is_empty() && some.iter().all(|probe| probe.family() == "program"));
    }

    #[test]
    fn kernels_add_probes_to_a_dynamic_family_only() {
        let ids = ["hooks/never_heard_of", "hooks/file_open", "hooks/a.b", "chain/new", "nonsense"];
        let with: Vec<String> = all_with(ids.into_iter()).into_iter().map(|probe| probe.id).collect();
        let without: BTreeSet<String> = all().into_iter().map(|probe| probe.id).collect();
        let added: Vec<&String> = with.iter().filter(|id| !without.contains(*id)).collect();
        assert_eq!(added, ["hooks/never_heard_of"]);
        assert_eq!(with.len(), without.len() + 1);
    }
}
