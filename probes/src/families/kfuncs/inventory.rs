//! Which kfuncs a kernel has, and which of these an LSM program may call: every function that the kernel's own BTF tags
//! as a kfunc, so that new ones appear by themselves, and every name that was one in any kernel of the suite, which is
//! all that there is where BTF has no such tags (6.1), and shows where a name ended.

use super::bare::{self, Answer, MAY, NEVER, SLEEPS};
use super::cases::ask_in_full;
use super::refusal;
use super::row::{Row, Sleep};
use crate::bpf::{BPF_F_SLEEPABLE, LoadError};
use crate::btf::Btf;
use crate::record::Phase;
use crate::session::{Attempt, Ended, Session, Stop};
use crate::spec::{Probe, source};
use std::collections::BTreeMap;

/// Every function that is tagged `bpf_kfunc` in a kernel of the suite, those that were kfuncs where there are no tags
/// (from the sources, where they are listed with `BTF_ID_FLAGS`), and those that documentation lists and no kernel of
/// the suite has. After the name comes the module that has it where that is not part of the kernel proper.
const NAMES: &str = include_str!("inventory.txt");
/// The tag. Kernels since 6.11 ask pahole for it (6.11 scripts/Makefile.btf, `decl_tag_kfuncs`, which that of 6.10 does not
/// name) if it is 1.26 or newer. That one is said not to write it, and 1.27 to be the first that does.
pub(super) const TAG: &str = "bpf_kfunc";
/// For each module of [`NAMES`] a function that it had before it had kfuncs: where the kernel's own BTF has that, the
/// module is built in, and what the BTF lacks the kernel lacks.
const MARKS: &[(&str, &str)] = &[
    ("fou", "fou_encap_hlen"),
    ("nf_conntrack", "nf_conntrack_find_get"),
    ("nf_flow_table", "flow_offload_lookup"),
    ("nf_nat", "nf_nat_setup_info"),
    ("tcp_bbr", "bbr_init"),
    ("tcp_dctcp", "dctcp_init"),
    ("xfrm_interface", "xfrmi_dev_init"),
];
/// What is refused whatever is passed, and not before the verifier has looked at it ([`bare::is_unconditional`]).
const REFUSED_LATE: &[&str] = &["bpf_dynptr_slice_rdwr", "bpf_refcount_acquire_impl"];

/// The probe. Of a row's program it makes use where a bare call does not come to what decides.
pub(super) fn probe(rows: &[Row]) -> Probe {
    let late = |row: &&Row| row.sleep == Sleep::Must || REFUSED_LATE.contains(&row.name);
    let rows: BTreeMap<&str, Row> = rows
        .iter()
        .filter(|row| row.variant.is_empty())
        .filter(late)
        .map(|row| (row.name, row.clone()))
        .collect();
    Probe::new(
        "kfuncs/inventory",
        "Which kfuncs are in the kernel, and which of these may an LSM program call, plain or sleepable?",
        &[
            source("6.12", "kernel/bpf/btf.c", "bpf_prog_type_to_kfunc_hook"),
            source("7.3", "kernel/bpf/verifier.c", "check_kfunc_call"),
        ],
        move |session| list(session, &rows),
    )
    .without_files()
}

/// A case for each name.
fn list(session: &mut Session<'_>, rows: &BTreeMap<&str, Row>) -> Result<(), Stop> {
    let names = names(session.kernel().btf().ok());
    for (name, module) in &names {
        session.case(name, |attempt| ask(attempt, (name, *module), rows.get(name.as_str())))?;
    }
    Ok(())
}

/// The names of the list and of the kernel's BTF, with the module that has it.
fn names(btf: Option<&Btf>) -> BTreeMap<String, Option<&'static str>> {
    let tagged = btf.map(|btf| btf.functions_tagged(TAG)).unwrap_or_default();
    let mut names: BTreeMap<_, _> = tagged.into_iter().map(|name| (name.to_owned(), None)).collect();
    names.extend(NAMES.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()))
    }));
    names
}

/// Notes whether each kind of program may call a kfunc that the kernel has.
fn ask(
    attempt: &mut Attempt<'_>,
    (name, module): (&str, Option<&str>),
    row: Option<&Row>,
) -> Result<(), Ended> {
    let btf = attempt.btf()?;
    let Some(id) = btf.function(name) else {
        let absent = absent(btf, name, module);
        let calls = module.is_none() || !knows_no_calls(attempt)?;
        return Err(if calls { absent } else { Ended::Absent("calls of kfuncs".to_owned()) });
    };
    let mut never = None;
    for (key, flags) in [("LSM programs", 0), ("sleepable LSM programs", BPF_F_SLEEPABLE)] {
        let mut answer = bare::ask(attempt, "file_open", id, flags)?;
        if let (MAY, Some(row)) = (answer.word, row)
            && let Some(late) = refused_late(attempt, row, flags)
        {
            answer = late;
        }
        attempt.see(key, answer.word);
        never = answer.refused.or(never);
    }
    if let Some(refused) = never {
        attempt.answer("why", &Err::<(), _>(refused));
    }
    Ok(())
}

/// Whether the kernel calls no kfuncs (before 5.13), in whatever module; any function shows it.
fn knows_no_calls(attempt: &mut Attempt<'_>) -> Result<bool, Ended> {
    let any = attempt.hook("file_open")?;
    let answer = bare::ask(attempt, "file_open", any, 0)?;
    attempt.at(Phase::Open);
    Ok(answer.word == bare::NO_CALLS)
}

/// What it means that the kernel's BTF has no such function.
fn absent(btf: &Btf, name: &str, module: Option<&str>) -> Ended {
    let built_in = |module: &str| {
        MARKS.iter().any(|(marked, function)| *marked == module && btf.function(function).is_some())
    };
    match module {
        Some(module) if !built_in(module) => Ended::CouldNotTell(format!(
            "not in the BTF of vmlinux, and module {module}, which may have it, is not asked"
        )),
        Some(_) | None => Ended::Absent(format!("kfunc {name}")),
    }
}

/// What the kernel says of a row's program that it does not say of a bare call.
fn refused_late(attempt: &mut Attempt<'_>, row: &Row, flags: u32) -> Option<Answer> {
    // Where the arguments need a program that sleeps, what is said is said of them.
    let row = row.awake.as_deref().unwrap_or(row);
    late(row.name, ask_in_full(attempt, row, flags).ok()?.err()?)
}

fn late(name: &str, refused: LoadError) -> Option<Answer> {
    if bare::is_unconditional(&refused.log) {
        return Some(Answer { word: NEVER, refused: Some(refused) });
    }
    // 6.1 alone says that the program is not sleepable after it has looked at what is passed.
    let (named, said) = refusal::forbidden(&refused.log)?;
    (named == name && said.ends_with(" is sleepable but the program is not")).then(|| SLEEPS.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf_build::{BtfBuilder, Linkage};
    use crate::errno::Errno;

    fn btf(functions: &[&str], tagged: &[&str]) -> Btf {
        let mut b = BtfBuilder::new();
        let proto = b.func_proto(0, &[]);
        for name in functions {
            let id = b.func(name, proto, Linkage::Global);
            if tagged.contains(name) {
                b.decl_tag(TAG, id, -1);
            }
        }
        Btf::parse(b.finish()).unwrap()
    }

    #[test]
    fn a_kfunc_that_nobody_has_heard_of_is_asked_about() {
        let names = names(Some(&btf(&["bpf_never_heard_of", "no_kfunc"], &["bpf_never_heard_of"])));
        assert!(names.contains_key("bpf_never_heard_of") && names.contains_key("bpf_task_acquire"));
        assert!(!names.contains_key("no_kfunc"));
    }

    #[test]
    fn a_module_that_is_not_built_in_may_have_what_the_kernel_has_not() {
        let names = names(None);
        let marked = |module: &str| MARKS.iter().any(|(marked, _)| *marked == module);
        assert!(names.values().flatten().all(|module| marked(module)));
        let what = |functions: &[&str], name: &str| match absent(&btf(functions, &[]), name, names[name]) {
            Ended::Absent(what) | Ended::CouldNotTell(what) => what,
            Ended::Refused(_) => panic!("nothing was refused"),
        };
        assert!(what(&["f"], "bbr_main").contains("not in the BTF of vmlinux"));
        assert_eq!(what(&["bbr_init"], "bbr_main"), "kfunc bbr_main");
        assert_eq!(what(&["f"], "bpf_task_acquire"), "kfunc bpf_task_acquire");
    }

    #[test]
    fn what_is_said_last_is_heard() {
        let refused = |log: &str| LoadError { errno: Errno::EINVAL, log: log.to_owned() };
        let said = |log: &str| late("bpf_x", refused(log)).map(|answer| answer.word);
        assert_eq!(said("kernel function bpf_x is sleepable but the program is not\n"), Some(SLEEPS));
        assert_eq!(said("kernel function bpf_y is sleepable but the program is not\n"), None);
        assert_eq!(said("the prog does not allow writes to packet data\n"), Some(NEVER));
        assert_eq!(said("R1 must be referenced or trusted\n"), None);
    }
}
