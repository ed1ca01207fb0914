//! Items from made-up records: what an absence means, by whom, what is no hook, what could not be told.

use super::*;
use crate::facts::Known;
use crate::snapshot::made_up::{self, done, names, refused};
use rstest::rstest;
use serde_json::{Value, json};

fn seen(name: &str, seen: &Value) -> NormalCase {
    NormalCase { seen: seen.as_object().unwrap().clone(), ..done(name) }
}

fn absent(name: &str) -> NormalCase {
    NormalCase { end: End::Absent { what: format!("kfunc {name}") }, accepted: None, ..done(name) }
}

fn snapshot(probe: &str, kernels: Vec<(&str, Vec<NormalCase>)>) -> (String, Snapshot) {
    (probe.to_owned(), made_up::snapshot(probe, kernels))
}

fn words(item: &Item) -> Vec<String> {
    item.answers.0.iter().map(|(_, answer)| answer.words()).collect()
}

#[test]
fn an_absence_is_the_versions_where_its_option_is_known_to_be_on() {
    let yes = json!({"LSM programs": "may call it", "sleepable LSM programs": "may call it"});
    let kfunc = |name: &str, there: bool| if there { seen(name, &yes) } else { absent(name) };
    let row = |first, second| vec![kfunc("scx_bpf_now", first), kfunc("scx_bpf_cid_curr", second)];
    let rows = vec![("6.12", row(false, false)), ("6.16", row(true, false)), ("6.17", row(true, true))];
    let snapshots = BTreeMap::from([snapshot(INVENTORY, rows)]);
    let items = collect(&snapshots, &names(&["6.12", "6.16", "6.17"]));
    let of = |name: &str| &items[&(Kind::Kfunc, name.to_owned())];
    assert_eq!(words(of("scx_bpf_now"))[0], "not in this build, perhaps for want of CONFIG_SCHED_CLASS_EXT");
    assert_eq!(of("scx_bpf_now").answers.spans()[0].added.to_string(), "<=6.16");
    assert_eq!(of("scx_bpf_cid_curr").answers.spans()[0].added.to_string(), "6.17");
}

#[test]
fn a_helper_says_by_whom() {
    let by = |by: &str, plain, cgroup| {
        seen(
            "callable",
            &json!({"may be called by": by, "file_open": plain, "file_open, of a cgroup": cgroup}),
        )
    };
    let rows = vec![
        (
            "5.10",
            vec![
                by("no program", "no", "there is no such program, EINVAL"),
                refused("canonical", "unknown func"),
            ],
        ),
        ("6.1", vec![by("programs of a cgroup", "no", "yes"), done("canonical")]),
        ("6.12", vec![by("every program", "yes", "yes"), done("canonical")]),
    ];
    let snapshots = BTreeMap::from([snapshot("helpers/bpf_x", rows)]);
    let items = collect(&snapshots, &names(&["5.10", "6.1", "6.12"]));
    let item = &items[&(Kind::Helper, "bpf_x".to_owned())];
    assert_eq!(words(item), ["no: EINVAL: unknown func", "yes, by programs of a cgroup", "yes"]);
    let cgroup = item.features.iter().find(|feature| feature.name == "cgroup").unwrap();
    assert_eq!(cgroup.answers.spans()[0].added.to_string(), ">5.10 <=6.1");
}

#[test]
fn a_hook_is_one_that_some_kernel_calls_so() {
    let inventory = |hook: &str| seen("inventory", &json!({"hook": hook, "prototype": "int f(void)"}));
    let hook = snapshot(
        "hooks/a",
        vec![
            ("6.1", vec![inventory("yes"), done("attach")]),
            ("6.12", vec![inventory("disabled"), refused("attach", "disabled")]),
        ],
    );
    let other = snapshot("hooks/b", vec![("6.1", vec![inventory("no"), refused("attach", "no")])]);
    let items = collect(&BTreeMap::from([hook, other]), &names(&["6.1", "6.12"]));
    assert_eq!(items.len(), 1);
    let hook = &items[&(Kind::Hook, "a".to_owned())];
    assert_eq!(words(hook), ["yes".to_owned(), format!("no: {DISABLED}")]);
    assert_eq!(hook.prototype.as_deref(), Some("int f(void)"));
}

#[test]
fn what_could_not_be_told_is_no_no() {
    let unknown = NormalCase { end: End::CouldNotTell { why: "no tool".to_owned() }, ..done("callable") };
    let snapshots = BTreeMap::from([snapshot("helpers/bpf_x", vec![("6.1", vec![unknown])])]);
    let items = collect(&snapshots, &names(&["6.1"]));
    let item = &items[&(Kind::Helper, "bpf_x".to_owned())];
    assert_eq!(item.answers.kernels(Known::Unknown).collect::<Vec<_>>(), ["6.1"]);
    assert!(item.answers.spans().is_empty());
}

#[test]
fn a_flaw_of_a_build_ends_no_range() {
    let said = |said: &str| seen("bpf_x", &json!({"LSM programs": said, "sleepable LSM programs": said}));
    let flaw = "no program can: the kernel's BTF lacks its full prototype";
    let rows = vec![
        ("7.0", vec![said("may call it")]),
        ("7.1", vec![said(flaw)]),
        ("7.2", vec![said("may call it")]),
    ];
    let items = collect(&BTreeMap::from([snapshot(INVENTORY, rows)]), &names(&["7.0", "7.1", "7.2"]));
    let item = &items[&(Kind::Kfunc, "bpf_x".to_owned())];
    assert_eq!(words(item)[1], format!("not in this build: {flaw}"));
    assert_eq!(item.answers.spans().len(), 1);
}

#[test]
fn a_flavour_tells_what_its_versions_row_cannot_and_is_no_version_of_its_own() {
    let yes = json!({"LSM programs": "may call it", "sleepable LSM programs": "may call it"});
    let kfunc = |name: &str, there: bool| if there { seen(name, &yes) } else { absent(name) };
    let row = |hid, size| vec![kfunc("hid_bpf_get_data", hid), kfunc("bpf_dynptr_size", size)];
    let rows = vec![
        ("6.1", row(false, false)),
        ("6.1-fragments", row(false, false)),
        ("7.2", row(false, true)),
        ("7.3", row(false, true)),
        ("7.3-fragments", row(true, false)),
    ];
    let kernels: Vec<&str> = rows.iter().map(|(kernel, _)| *kernel).collect();
    let items = collect(&BTreeMap::from([snapshot(INVENTORY, rows.clone())]), &names(&kernels));
    let of = |name: &str| &items[&(Kind::Kfunc, name.to_owned())].answers;
    // 7.3's own build lacks it, the other build of the same sources has it; nothing is known of the others.
    let hid = of("hid_bpf_get_data");
    assert_eq!(hid.spans()[0].added.to_string(), "<=7.3");
    let said =
        "not in this build, perhaps for want of CONFIG_HID_BPF; yes on 7.3-fragments, of the same version";
    assert_eq!(hid.words_of("7.3").as_deref(), Some(said));
    assert_eq!(hid.words_of("7.2").as_deref(), Some("not in this build, perhaps for want of CONFIG_HID_BPF"));
    assert_eq!(hid.words_of("7.3-fragments").as_deref(), Some("yes"));
    // What a flavour lacks the version has not lost.
    let size = of("bpf_dynptr_size").spans();
    assert_eq!((size[0].added.to_string(), size[0].removed, size.len()), (">6.1 <=7.2".to_owned(), None, 1));
}

#[test]
fn a_normal_use_is_one_in_either_kind_of_program_and_only_where_it_came_true() {
    let called =
        || seen("callable", &json!({"may be called by": "programs that may sleep", "file_open": "no"}));
    let asleep = |seen_there: &Value| seen("canonical-sleepable", seen_there);
    let rows = vec![
        (
            "6.10",
            vec![
                called(),
                refused("canonical", "no sleep"),
                asleep(&json!({"read": "as user space knows it"})),
            ],
        ),
        ("6.11", vec![called(), refused("canonical", "no sleep"), asleep(&json!({"read": "DIFFERS"}))]),
        ("6.12", vec![called(), refused("canonical", "no sleep"), asleep(&json!({"returned": "-ENOENT"}))]),
        ("6.13", vec![called(), refused("canonical", "no sleep"), asleep(&json!({"result": "-ENODATA"}))]),
        ("6.14", vec![called(), refused("canonical", "no sleep"), asleep(&json!({"returned": "null"}))]),
        (
            "6.15",
            vec![called(), refused("canonical", "no sleep"), asleep(&json!({"its effect": "not looked at"}))],
        ),
        (
            "6.16",
            vec![called(), refused("canonical", "no sleep"), asleep(&json!({"the result is NULL": "yes"}))],
        ),
    ];
    let all = ["6.10", "6.11", "6.12", "6.13", "6.14", "6.15", "6.16"];
    let items = collect(&BTreeMap::from([snapshot("helpers/bpf_x", rows)]), &names(&all));
    let item = &items[&(Kind::Helper, "bpf_x".to_owned())];
    let normal = item.features.iter().find(|feature| feature.name == "normal use").unwrap();
    assert_eq!(normal.case, "canonical-sleepable");
    assert_eq!(
        normal.answers.of("6.10").map(Answer::words).as_deref(),
        Some("yes, by programs that may sleep")
    );
    for kernel in ["6.11", "6.12", "6.13", "6.14", "6.15", "6.16"] {
        assert_ne!(normal.answers.of(kernel).map(Answer::known), Some(Known::Yes), "{kernel}");
    }
}

#[test]
fn a_helper_whose_maps_are_not_for_programs_that_may_sleep_is_not_for_them() {
    let called =
        || seen("callable", &json!({"may be called by": "every program", "file_open, sleepable": "yes"}));
    let rows = vec![
        (
            "5.10",
            vec![
                called(),
                done("canonical"),
                refused("canonical-sleepable", "bpf_lsm_file_open is not sleepable"),
            ],
        ),
        (
            "6.1",
            vec![
                called(),
                done("canonical"),
                refused("canonical-sleepable", "Sleepable programs can only use .."),
            ],
        ),
    ];
    let items = collect(&BTreeMap::from([snapshot("helpers/bpf_x", rows)]), &names(&["5.10", "6.1"]));
    let item = &items[&(Kind::Helper, "bpf_x".to_owned())];
    let asleep = item.features.iter().find(|feature| feature.name == "sleepable").unwrap();
    let known: Vec<_> = asleep.answers.0.iter().map(|(_, answer)| answer.known()).collect();
    assert_eq!(known, [Known::Yes, Known::No]);
}

#[test]
fn what_else_is_absent_is_no_absence_of_the_item() {
    let lacks = |what: &str| NormalCase {
        end: End::Absent { what: what.to_owned() },
        accepted: None,
        ..done("callable")
    };
    let rows = vec![
        ("5.9", vec![lacks("helper bpf_x")]),
        ("5.10", vec![lacks("netdev_rx_queue has no member pool")]),
        ("5.11", vec![lacks("calls of kfuncs")]),
    ];
    let items = collect(&BTreeMap::from([snapshot("helpers/bpf_x", rows)]), &names(&["5.9", "5.10", "5.11"]));
    let item = &items[&(Kind::Helper, "bpf_x".to_owned())];
    let said = words(item);
    assert_eq!(said[0], "not in the kernel");
    assert!(said[1].starts_with("could not tell: netdev_rx_queue"), "{said:?}");
    assert_eq!(said[2], "no: this kernel has no calls of kfuncs");
}

fn feature<'a>(item: &'a Item, name: &str) -> &'a Answers {
    &item.features.iter().find(|feature| feature.name == name).unwrap().answers
}

/// A hook on one kernel: its inventory, `attach`, and the cases given.
fn hook_with(name: &str, cases: Vec<NormalCase>) -> Item {
    let inventory = seen("inventory", &json!({"hook": "yes", "prototype": "int f(void)", "slot of ret": 1}));
    let cases = [vec![inventory, done("attach")], cases].concat();
    let probe = format!("hooks/{name}");
    let mut items = collect(&BTreeMap::from([snapshot(&probe, vec![("6.1", cases)])]), &names(&["6.1"]));
    items.remove(&(Kind::Hook, name.to_owned())).unwrap()
}

#[rstest]
#[case::for_a_known_reason("dentry_init_security", "up to 5.16")]
#[case::for_no_known_reason("x", "its trigger made no program run")]
fn a_program_that_never_ran_denied_nothing_and_allowed_nothing(#[case] hook: &str, #[case] says: &str) {
    let silent = NormalCase { fired: Some(false), denied: Some(false), ..done("deny-EPERM") };
    let item = hook_with(hook, vec![silent]);
    let answer = feature(&item, "denies").of("6.1").unwrap();
    assert_eq!(answer.known(), Known::Unknown);
    assert!(answer.words().contains(says), "{}", answer.words());
}

/// What fires beside others and not alone does so under a condition; where it fires alone too, under none.
#[test]
fn a_hook_that_needs_company_says_so() {
    let fires = |fired| NormalCase { fired: Some(fired), ..done("fire") };
    let inventory = || seen("inventory", &json!({"hook": "yes", "prototype": "void f(void)"}));
    let rows = |kernel| (kernel, vec![inventory(), done("attach"), fires(true)]);
    let alone = |fired| vec![NormalCase { fired: Some(fired), ..done("cred_free") }];
    let snapshots = BTreeMap::from([
        snapshot("hooks/cred_free", vec![rows("6.1"), rows("6.2")]),
        snapshot("lsms/asked-alone", vec![("6.1", alone(false)), ("6.2", alone(true))]),
    ]);
    let items = collect(&snapshots, &names(&["6.1", "6.2"]));
    let fires = feature(&items[&(Kind::Hook, "cred_free".to_owned())], "fires");
    assert!(fires.of("6.1").unwrap().words().contains("not with bpf alone"));
    assert_eq!(fires.of("6.2").unwrap().words(), "yes");
}

/// No trigger was tried, and it is known why.
#[rstest]
#[case::attaches(done("attach"), "called once at boot")]
#[case::does_not_attach(refused("attach", "no"), "the probe has no such case there")]
fn a_hook_without_a_trigger_says_why_where_programs_attach(#[case] attach: NormalCase, #[case] says: &str) {
    let inventory = || seen("inventory", &json!({"hook": "yes", "prototype": "int f(void)"}));
    let rows = vec![("6.1", vec![inventory(), attach]), ("6.2", vec![inventory(), done("attach")])];
    let probe = "hooks/initramfs_populated";
    let items = collect(&BTreeMap::from([snapshot(probe, rows)]), &names(&["6.1", "6.2"]));
    let item = &items[&(Kind::Hook, "initramfs_populated".to_owned())];
    let answer = feature(item, "fires").of("6.1").unwrap();
    assert_eq!(answer.known(), Known::Unknown);
    assert!(answer.words().contains(says), "{}", answer.words());
}

/// What such a kernel says may be what the probe did before: no range begins or ends there.
#[test]
fn a_kernel_that_was_asked_before_the_probe_changed_bounds_nothing() {
    let absent = NormalCase {
        end: End::Absent { what: "helper bpf_x".to_owned() },
        accepted: None,
        ..done("callable")
    };
    let called = || seen("callable", &json!({"may be called by": "every program", "file_open": "yes"}));
    let rows =
        vec![("6.1", vec![absent]), ("6.2", vec![called()]), ("6.3", vec![called(), done("canonical")])];
    let (id, mut snapshot) = snapshot("helpers/bpf_x", rows);
    let of = |snapshot: Snapshot| {
        let items = collect(&BTreeMap::from([(id.clone(), snapshot)]), &names(&["6.1", "6.2", "6.3"]));
        items[&(Kind::Helper, "bpf_x".to_owned())].clone()
    };
    assert_eq!(of(snapshot.clone()).answers.spans()[0].added.to_string(), "6.2");
    snapshot.behind = BTreeSet::from(["6.1".to_owned(), "6.2".to_owned()]);
    let item = of(snapshot);
    assert_eq!(item.answers.spans()[0].added.to_string(), "<=6.3");
    assert_eq!(words(&item)[0], "could not tell: asked before the probe changed: not in the kernel");
}

/// That other programs could not be told of is no limit, and ends no range of every program.
#[test]
fn a_yes_that_leaves_others_open_bounds_no_condition() {
    let by = |asleep: &str| {
        seen("bpf_x", &json!({"LSM programs": "may call it", "sleepable LSM programs": asleep}))
    };
    let rows = vec![
        ("6.1", vec![by("may call it")]),
        ("6.2", vec![by("something new")]),
        ("6.3", vec![by("may call it")]),
        ("6.4", vec![by("may NOT call it")]),
    ];
    let kernels = names(&["6.1", "6.2", "6.3", "6.4"]);
    let items = collect(&BTreeMap::from([snapshot(INVENTORY, rows)]), &kernels);
    let answers = &items[&(Kind::Kfunc, "bpf_x".to_owned())].answers;
    let limits: Vec<Option<&str>> = answers.0.iter().map(|(_, answer)| answer.limit()).collect();
    assert_eq!(limits, [None, None, None, Some("by LSM programs only")]);
    let support = answers.support();
    let of = |condition: &str| support.iter().filter(|it| it.condition == condition).collect::<Vec<_>>();
    let plain = of("");
    assert_eq!((plain.len(), plain[0].rows.as_slice()), (1, names(&["6.1", "6.3"]).as_slice()));
    assert_eq!(plain[0].span.removed.map(|removed| removed.to_string()).as_deref(), Some("6.4"));
    let open = &of("by LSM programs, of others it could not be told")[0].span;
    assert_eq!((open.added.to_string(), open.removed), ("<=6.2".to_owned(), None));
}

#[rstest]
#[case::the_first(Some(true), Some(false), Known::Yes)]
#[case::the_second(Some(false), Some(true), Known::Yes)]
#[case::neither(Some(false), Some(false), Known::No)]
#[case::one_does_not_say(Some(false), None, Known::Unknown)]
fn a_hook_denies_where_any_errno_does(
    #[case] first: Option<bool>,
    #[case] second: Option<bool>,
    #[case] expected: Known,
) {
    let with = |name: &str, denied| NormalCase { denied, ..done(name) };
    let item = hook_with("x", vec![with("deny-EPERM", first), with("deny-EACCES", second)]);
    assert_eq!(feature(&item, "denies").of("6.1").map(Answer::known), Some(expected));
}

#[rstest]
#[case::one_value("ok", "ENOMEM", Known::Yes)]
#[case::no_value("ok", "ok", Known::Unknown)]
fn a_value_that_is_no_errno_decides_and_does_not_deny(
    #[case] sees: &str,
    #[case] control: &str,
    #[case] expected: Known,
) {
    let refused = refused("return--1", "R0 has smin=-1");
    let other = seen("return-1", &json!({"user space sees": sees, "not the target": control}));
    let item = hook_with("x", vec![refused, other]);
    assert_eq!(feature(&item, "decides").of("6.1").map(Answer::known), Some(expected));
    assert!(item.features.iter().all(|feature| feature.name != "denies"));
}

#[rstest]
#[case::it_says_why(json!({"not run": "it starts another kernel"}), None)]
#[case::it_was_only_loaded(json!({}), None)]
#[case::nothing_ran(json!({}), Some(false))]
fn what_was_not_run_is_no_normal_use(#[case] facts: Value, #[case] fired: Option<bool>) {
    let inventory = snapshot(
        INVENTORY,
        vec![("6.1", vec![seen("crash_kexec", &json!({"LSM programs": "may call it"}))])],
    );
    let canonical = NormalCase { fired, ..seen("canonical", &facts) };
    let asleep = NormalCase { fired: None, ..done("canonical-sleepable") };
    let own = snapshot("kfuncs/crash_kexec", vec![("6.1", vec![canonical, asleep])]);
    let items = collect(&BTreeMap::from([inventory, own]), &names(&["6.1"]));
    let item = &items[&(Kind::Kfunc, "crash_kexec".to_owned())];
    assert_eq!(feature(item, "normal use").of("6.1").map(Answer::known), Some(Known::Unknown));
}

#[rstest]
#[case("may NOT call it", "may NOT call it", Known::No, "no: may NOT call it")]
#[case("may NOT call it", "x", Known::Unknown, "could not tell: x")]
#[case("x", "may NOT call it", Known::Unknown, "could not tell: x")]
#[case("may call it", "may NOT call it", Known::Yes, "yes, by LSM programs only")]
#[case("may call it", "x", Known::Yes, "yes, by LSM programs, of others it could not be told")]
fn a_kfunc_is_closed_to_programs_only_if_both_kinds_have_told(
    #[case] plain: &str,
    #[case] asleep: &str,
    #[case] known: Known,
    #[case] says: &str,
) {
    let both = json!({"LSM programs": plain, "sleepable LSM programs": asleep});
    let inventory = snapshot(INVENTORY, vec![("6.1", vec![seen("bpf_x", &both)])]);
    let items = collect(&BTreeMap::from([inventory]), &names(&["6.1"]));
    let item = &items[&(Kind::Kfunc, "bpf_x".to_owned())];
    assert_eq!(
        (item.answers.of("6.1").map(Answer::known), words(item)),
        (Some(known), vec![says.to_owned()])
    );
}

/// A kernel may have the function and know no calls of any, or have neither.
#[test]
fn kernels_without_calls_of_kfuncs_are_known_by_either_answer() {
    let said = "the kernel knows no calls of kfuncs";
    let there = seen("bpf_x", &json!({"LSM programs": said, "sleepable LSM programs": said}));
    let gone = NormalCase { end: End::Absent { what: NO_KFUNCS.to_owned() }, ..done("bpf_x") };
    let refused = seen(
        "bpf_x",
        &json!({"LSM programs": "may NOT call it", "sleepable LSM programs": "may NOT call it"}),
    );
    let rows = vec![("5.11", vec![there]), ("5.12", vec![gone]), ("5.14", vec![refused])];
    let items = collect(&BTreeMap::from([snapshot(INVENTORY, rows)]), &names(&["5.11", "5.12", "5.14"]));
    let answers = &items[&(Kind::Kfunc, "bpf_x".to_owned())].answers.0;
    let without = |answer: &Answer| matches!(answer, Answer::No { why } if is_without_kfuncs(why));
    assert_eq!(answers.iter().map(|(_, answer)| without(answer)).collect::<Vec<_>>(), [true, true, false]);
}

/// Helpers are numbered whatever the configuration: a number that a kernel does not know is the version's.
#[test]
fn an_option_leaves_out_no_helpers_number() {
    let absent = NormalCase {
        end: End::Absent { what: "helper bpf_cgrp_storage_get".to_owned() },
        accepted: None,
        ..done("callable")
    };
    let rows = vec![("6.1", vec![absent]), ("6.2", vec![seen("callable", &json!({"file_open": "yes"}))])];
    let items =
        collect(&BTreeMap::from([snapshot("helpers/bpf_cgrp_storage_get", rows)]), &names(&["6.1", "6.2"]));
    let item = &items[&(Kind::Helper, "bpf_cgrp_storage_get".to_owned())];
    assert_eq!(words(item)[0], "not in the kernel");
    assert_eq!(item.answers.spans()[0].added.to_string(), "6.2");
}

/// A kernel that was asked for the option itself needs no other item to show that it has it.
#[rstest]
#[case::is_on("EFAULT", "not in the kernel")]
#[case::is_off("ENOSYS", "not in this build, perhaps for want of CONFIG_IO_URING")]
fn an_absence_behind_an_option_that_was_asked_for(#[case] call: &str, #[case] says: &str) {
    let lacks = NormalCase {
        end: End::Absent { what: "function bpf_lsm_uring_cmd".to_owned() },
        accepted: None,
        ..done("inventory")
    };
    let is_there =
        vec![seen("inventory", &json!({"hook": "yes", "prototype": "int f(void)"})), done("attach")];
    let asked = seen("CONFIG_IO_URING", &json!({"io_uring_setup(2) without parameters": call}));
    let snapshots = BTreeMap::from([
        snapshot("hooks/uring_cmd", vec![("5.19", vec![lacks]), ("6.0", is_there)]),
        snapshot("program/build", vec![("5.19", vec![asked])]),
    ]);
    let items = collect(&snapshots, &names(&["5.19", "6.0"]));
    assert_eq!(words(&items[&(Kind::Hook, "uring_cmd".to_owned())])[0], says);
}

/// A hook behind two options is the version's to lack only where both are known to be on.
#[rstest]
#[case(&["socket_bind", "path_mkdir"], "not in the kernel")]
#[case(&["socket_bind"], "not in this build, perhaps for want of CONFIG_SECURITY_NETWORK && CONFIG_SECURITY_PATH")]
fn an_absence_behind_two_options(#[case] there: &[&str], #[case] says: &str) {
    let inventory = || seen("inventory", &json!({"hook": "yes", "prototype": "int f(void)"}));
    let is_there = || vec![inventory(), done("attach")];
    let lacks = NormalCase {
        end: End::Absent { what: "function bpf_lsm_unix_find".to_owned() },
        accepted: None,
        ..done("inventory")
    };
    let mut snapshots: BTreeMap<String, Snapshot> = there
        .iter()
        .map(|hook| snapshot(&format!("hooks/{hook}"), vec![("7.2", is_there()), ("7.3", is_there())]))
        .collect();
    snapshots.extend([snapshot("hooks/unix_find", vec![("7.2", vec![lacks]), ("7.3", is_there())])]);
    let items = collect(&snapshots, &names(&["7.2", "7.3"]));
    assert_eq!(words(&items[&(Kind::Hook, "unix_find".to_owned())])[0], says);
}
