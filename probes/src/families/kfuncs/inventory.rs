//! Which kfuncs a kernel has, and which of these an LSM program may call: every function that the kernel's own BTF tags
//! as a kfunc, so that new ones appear by themselves, and every name that was one in any kernel of the suite, which is
//! all that there is where BTF has no such tags (6.1), and shows where a name ended.

use super::cases::bare_call;
use crate::bpf::BPF_F_SLEEPABLE;
use crate::btf::Btf;
use crate::session::{Attempt, Ended, Session, Stop};
use crate::spec::{Probe, source};
use std::collections::BTreeSet;

/// Every function that is tagged `bpf_kfunc` in a kernel of the suite, those that were kfuncs before there were tags
/// (6.10; from the sources, where they are listed with `BTF_ID_FLAGS`), and those that documentation lists and no kernel of
/// the suite has.
const NAMES: &str = include_str!("inventory.txt");
/// The tag, which is in the kernel's BTF of every kernel since 6.10 (7.1 scripts/Makefile.btf, `decl_tag_kfuncs`).
const TAG: &str = "bpf_kfunc";

/// The probe.
pub(super) fn probe() -> Probe {
    Probe::new(
        "kfuncs/inventory",
        "Which kfuncs are in the kernel, and which of these may an LSM program call, plain or sleepable?",
        &[
            source("6.12", "kernel/bpf/btf.c", "bpf_prog_type_to_kfunc_hook"),
            source("7.3", "kernel/bpf/verifier.c", "check_kfunc_call"),
        ],
        list,
    )
    .without_files()
}

/// A case for each name.
fn list(session: &mut Session<'_>) -> Result<(), Stop> {
    let names = names(session.kernel().btf().ok());
    for name in &names {
        session.case(name, |attempt| ask(attempt, name))?;
    }
    Ok(())
}

/// The names of the list and of the kernel's BTF.
fn names(btf: Option<&Btf>) -> BTreeSet<String> {
    let listed = NAMES.split_whitespace();
    let tagged = btf.map(|btf| btf.functions_tagged(TAG)).unwrap_or_default();
    listed.chain(tagged).map(str::to_owned).collect()
}

/// Notes whether each kind of program may call a kfunc that the kernel has.
fn ask(attempt: &mut Attempt<'_>, name: &str) -> Result<(), Ended> {
    let id = attempt.kfunc(name)?;
    for (key, flags) in [("LSM programs", 0), ("sleepable LSM programs", BPF_F_SLEEPABLE)] {
        let answer = bare_call(attempt, "file_open", id, flags)?;
        attempt.see(key, answer);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf_build::{BtfBuilder, Linkage};

    #[test]
    fn a_kfunc_that_nobody_has_heard_of_is_asked_about() {
        let mut b = BtfBuilder::new();
        let proto = b.func_proto(0, &[]);
        let new = b.func("bpf_never_heard_of", proto, Linkage::Global);
        b.func("no_kfunc", proto, Linkage::Global);
        b.decl_tag(TAG, new, -1);
        let names = names(Some(&Btf::parse(b.finish()).unwrap()));
        assert!(names.contains("bpf_never_heard_of") && names.contains("bpf_task_acquire"));
        assert!(!names.contains("no_kfunc"));
    }
}
