//! The snapshot files themselves: each can be read, is its probe's, and is written as the suite would write it.
//!
//! This file lies here because `cargo insta` looks for pending snapshots beside the targets of a package.

use harness::normalize::NormalCase;
use harness::snapshot::{Ci, Store, render};
use probes::record::End;
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn files_are_as_the_suite_writes_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshots");
    let store = Store::new(&root, Ci::Yes);
    for (probe, snapshot) in store.load_all().expect("every file is a snapshot") {
        let path = store.path(&probe).expect("the id of a file that was read");
        let text = std::fs::read_to_string(&path).expect("a file that was read before");
        let expected = render(&snapshot).expect("a snapshot that was read");
        assert!(text == expected, "{}: not as the suite writes it; accept {probe} again", path.display());
    }
}

#[test]
fn each_file_asks_the_question_of_its_probe() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshots");
    let snapshots = Store::new(&root, Ci::Yes).load_all().expect("every file is a snapshot");
    let probes = probes::families::all_with(snapshots.keys().map(String::as_str));
    let questions: BTreeMap<String, String> =
        probes.into_iter().map(|probe| (probe.id, probe.question)).collect();
    for (probe, snapshot) in &snapshots {
        assert_eq!(Some(&snapshot.question), questions.get(probe), "{probe}: accept it again");
    }
}

/// What a verifier says of a call that a program may not make, whatever its arguments; the case `callable` of the same
/// file must then know of programs that may not.
const MAY_NOT_CALL: [&str; 6] = [
    "invalid func ",
    "unknown func ",
    "program of this type cannot use helper ",
    "helper call is not allowed in probe",
    "helper call might sleep in a non-sleepable prog",
    "sleepable helper ",
];

/// What kernels say of programs that may sleep: of their hook, of the maps that they may use, and, until 6.5, of a lock in
/// one (6.4 kernel/bpf/verifier.c, `check_map_prog_compatibility`).
const MAY_NOT_SLEEP: [&str; 3] =
    [" is not sleepable", "Sleepable programs can only use ", "sleepable progs cannot use bpf_spin_lock yet"];

/// Where a kernel has the helper and nothing that it could be used on: what has a place in a map comes from a kfunc, and
/// for programs of type LSM these have no kfuncs at all (5.19 and 6.0 kernel/bpf/btf.c, `bpf_prog_type_to_kfunc_hook`);
/// what leads to an `xdp_buff` gives the structure that begins with one, which is not taken for it (5.9
/// kernel/bpf/verifier.c, `check_func_arg`).
const NOTHING_TO_USE_IT_ON: [(&str, &str); 4] = [
    ("5.8", "helpers/bpf_xdp_output"),
    ("5.9", "helpers/bpf_xdp_output"),
    ("5.19", "helpers/bpf_kptr_xchg"),
    ("6.0", "helpers/bpf_kptr_xchg"),
];

/// Why the normal use of a helper ended early, if that was for a reason of the probe's own making.
fn own_fault(callable: &NormalCase, case: &NormalCase) -> Option<String> {
    let End::Refused { errno } = &case.end else {
        return match &case.end {
            // What gcc does not write into BTF the programs of 6.2 and 6.3 cannot use, whatever they are.
            End::CouldNotTell { why }
                if why.starts_with("the compiler of this kernel writes no type tag") =>
            {
                None
            }
            End::CouldNotTell { why } => Some(why.clone()),
            End::Done | End::Absent { .. } | End::Refused { .. } => None,
        };
    };
    let reason = case.reason.as_deref().unwrap_or_default();
    let answers = || callable.seen.values().filter_map(|answer| answer.as_str());
    let absent = matches!(callable.end, End::Absent { .. });
    let of_the_kernel = if reason.is_empty() {
        // The attach type of a cgroup's programs is looked at before there is a log.
        answers().any(|answer| answer == "there is no such program, EINVAL")
    } else if MAY_NOT_CALL.iter().any(|text| reason.starts_with(text)) {
        absent || answers().any(|answer| answer.starts_with("no"))
    } else if reason.contains(" not supported for program type ") {
        answers().all(|answer| answer != "yes")
    } else {
        case.name == "canonical-sleepable" && MAY_NOT_SLEEP.iter().any(|text| reason.contains(text))
    };
    (!of_the_kernel).then(|| format!("refused with {errno}: {reason}"))
}

#[test]
fn no_normal_use_of_a_helper_is_refused_for_a_reason_of_the_probes_own_making() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshots");
    let snapshots = Store::new(&root, Ci::Yes).load_all().expect("every file is a snapshot");
    let (mut looked_at, mut faults) = (0, Vec::new());
    for (probe, snapshot) in snapshots.iter().filter(|(probe, _)| probe.starts_with("helpers/bpf_")) {
        // What was asked before the probe changed says nothing of the probe.
        let behind: Vec<&str> = snapshot.kernels_behind().collect();
        for kernel in snapshot.kernels().filter(|kernel| !behind.contains(kernel)) {
            let cases = snapshot.of(kernel).map(|normal| normal.cases.as_slice()).unwrap_or_default();
            let Some(callable) = cases.iter().find(|case| case.name == "callable") else { continue };
            for case in
                cases.iter().filter(|case| case.name.starts_with("canonical") || case.name == "from-rust")
            {
                looked_at += 1;
                let fault = own_fault(callable, case)
                    .filter(|_| !NOTHING_TO_USE_IT_ON.contains(&(kernel, probe.as_str())));
                faults.extend(fault.map(|why| format!("{probe} on {kernel}, {}: {why}", case.name)));
            }
            let may_call = callable.seen.values().any(|answer| answer == "yes");
            if may_call && !cases.iter().any(|case| case.name == "canonical") {
                faults.push(format!("{probe} on {kernel}: it may be called and has no normal use"));
            }
        }
    }
    assert!(looked_at > 1000, "only {looked_at} cases were looked at");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
