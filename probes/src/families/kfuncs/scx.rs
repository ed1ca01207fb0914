//! The kfuncs of sched_ext that tracing programs, and with them LSM programs, may call (`CONFIG_SCHED_CLASS_EXT`). No
//! scheduler is loaded, so that most say just that; what would change one is loaded and not run. One probe for all of
//! them, with a case each: they are about schedulers, not about security.

use super::body::{BUFFER, Body, OUT, RESULT};
use super::cases::{Shared, misuse, run};
use super::own::Holds;
use super::row::{GOT, KEPT, Row, kfunc};
use crate::insn::{Reg, Size};
use crate::rules::stay_on;
use crate::session::{Session, Stop};
use crate::spec::{Probe, source};
use std::fs;

const EXT: &str = "kernel/sched/ext/ext.c";
/// Why some are not run.
const CHANGES: &str = "it acts on a scheduler, and none is loaded";
/// Where the iterator of a queue is on the stack: 6 words.
const ITER: i32 = -64;

/// The probe.
pub(super) fn probe() -> Probe {
    Probe::new(
        "kfuncs/scx",
        "Which of these kfuncs of sched_ext are loaded from an LSM program, and what do they give where no scheduler is loaded?",
        &[
            source("7.3", EXT, "scx_init"),
            source("7.3", "kernel/sched/ext/idle.c", "scx_idle_init"),
            source("7.3", "kernel/sched/ext/cid.c", "scx_cid_kfunc_init"),
        ],
        cases,
    )
    .without_files()
}

fn cases(session: &mut Session<'_>) -> Result<(), Stop> {
    // What is told of this task is told of the first processor.
    stay_on(0).map_err(|errno| Stop(format!("cannot stay on a processor: {errno}")))?;
    let (plain, arena) = (Shared::default(), Shared::default());
    for row in rows() {
        let shared = if row.holds == Holds::Arena { &arena } else { &plain };
        session.case(row.name, |attempt| run(attempt, Some(shared), &row, (0, None)))?;
        for wrong in &row.wrong {
            session.case(&format!("{}-{}", row.name, wrong.name), |attempt| {
                misuse(attempt, shared, &row, wrong)
            })?;
        }
    }
    Ok(())
}

/// What is called with the number 0, and gives what there is without a scheduler: an error, no CPU, or the performance of
/// one that nothing is known of (`SCX_CPUPERF_ONE`).
const SHOWN: &[&str] = &[
    "scx_bpf_cid_to_cpu",
    "scx_bpf_cidperf_cap",
    "scx_bpf_cidperf_cur",
    "scx_bpf_cpu_to_cid",
    "scx_bpf_cpuperf_cap",
    "scx_bpf_cpuperf_cur",
    "scx_bpf_nr_node_ids",
    "scx_bpf_test_and_clear_cpu_idle",
    "scx_bpf_this_cid",
];

/// The same, and what it gives differs each time.
const VOLATILE: &[&str] = &["scx_bpf_cpu_rq", "scx_bpf_now"];

/// What is called with numbers, and is not run.
const CHANGING: &[(&str, [i64; 3])] = &[
    ("scx_bpf_cidperf_set", [0, 1024, 0]),
    ("scx_bpf_cpuperf_set", [0, 1024, 0]),
    ("scx_bpf_destroy_dsq", [1, 0, 0]),
    ("scx_bpf_dsq_reenq", [1, 0, 0]),
    ("scx_bpf_kick_cid", [0, 0, 0]),
    ("scx_bpf_kick_cpu", [0, 0, 0]),
    ("scx_bpf_reenqueue_local___v2", [0; 3]),
];

/// What gives a pointer, which is NULL here.
const NOTHING: &[&str] = &[
    "scx_bpf_cid_curr",
    "scx_bpf_cpu_curr",
    "scx_bpf_dsq_peek",
    "scx_bpf_locked_rq",
    "scx_bpf_online_cmask",
    "scx_bpf_tid_to_task",
];

/// What lends the mask of the idle CPUs, in which nobody keeps any without a scheduler.
const IDLE_MASKS: &[&str] = &[
    "scx_bpf_get_idle_cpumask",
    "scx_bpf_get_idle_cpumask_node",
    "scx_bpf_get_idle_smtmask",
    "scx_bpf_get_idle_smtmask_node",
];

/// What lends the mask of all CPUs, each of which is on.
const MASKS: &[&str] = &["scx_bpf_get_online_cpumask", "scx_bpf_get_possible_cpumask"];

/// What picks a CPU out of a mask: its arguments after the mask.
const PICKING: &[&str] = &[
    "scx_bpf_pick_any_cpu",
    "scx_bpf_pick_any_cpu_node",
    "scx_bpf_pick_idle_cpu",
    "scx_bpf_pick_idle_cpu_node",
];

/// What formats a text: how many arguments come before it.
const FORMATTING: &[(&str, i32)] = &[
    ("scx_bpf_dump_bstr", 0),
    ("scx_bpf_error_bstr", 0),
    ("scx_bpf_exit_bstr", 1),
    ("scx_bpf_sub_kill_bstr", 1),
];

/// What takes a task and numbers, and is not run.
const CHANGING_TASKS: &[&str] = &["scx_bpf_task_set_dsq_vtime", "scx_bpf_task_set_slice"];

/// What takes the arena that a scheduler shares with the kernel.
const OF_ARENAS: &[(&str, [i64; 2])] =
    &[("scx_bpf_sub_caps", [0; 2]), ("scx_bpf_sub_grant", [0; 2]), ("scx_bpf_sub_revoke", [0; 2])];

fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = SHOWN.iter().map(|name| number(name, [0; 3]).shows_result()).collect();
    rows.extend(VOLATILE.iter().map(|name| number(name, [0; 3])));
    rows.extend([cpus("scx_bpf_nr_cpu_ids"), cpus("scx_bpf_nr_cids"), cpus("scx_bpf_nr_online_cids")]);
    rows.extend(CHANGING.iter().map(|&(name, numbers)| number(name, numbers).not_run(CHANGES)));
    rows.extend(NOTHING.iter().map(|name| null(name)));
    rows.extend(IDLE_MASKS.iter().map(|name| {
        mask(name, "scx_bpf_put_idle_cpumask")
            .checks(|attempt, results| attempt.see("CPUs in it", results.get(OUT)))
    }));
    rows.extend(MASKS.iter().map(|name| {
        mask(name, "scx_bpf_put_cpumask").leaves("CPUs in it", 0, || u64::try_from(possible()?).ok())
    }));
    rows.extend(PICKING.iter().map(|name| pick(name)));
    rows.extend(FORMATTING.iter().map(|&(name, before)| format(name, before)));
    rows.extend(CHANGING_TASKS.iter().map(|name| of_task(name).not_run(CHANGES)));
    rows.push(of_task("scx_bpf_task_cid").shows_result());
    // The processor that this process stays on, and whether it runs.
    rows.extend([of_task("scx_bpf_task_cpu").gives(0), of_task("scx_bpf_task_running").gives(1)]);
    rows.extend(OF_ARENAS.iter().map(|&(name, numbers)| of_arena(name, numbers)));
    rows.extend([node(), topology(), events(), cgroup(), queued(), queue()]);
    rows.extend([select(), select_of_a_mask(), select_of_arguments()]);
    rows
}

fn row(name: &'static str) -> Row {
    kfunc(name, "7.3", EXT)
}

fn numbers(b: &mut Body<'_>, numbers: &[i64]) {
    for (register, &value) in [Reg::R1, Reg::R2, Reg::R3].into_iter().zip(numbers) {
        b.mov_imm(register, value);
    }
}

fn number(name: &'static str, arguments: [i64; 3]) -> Row {
    row(name).takes(move |b| numbers(b, &arguments))
}

/// The last possible CPU, plus one.
fn possible() -> Option<i64> {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible").ok()?;
    let last: i64 = text.trim().rsplit([',', '-']).next()?.parse().ok()?;
    Some(last + 1)
}

/// How many CPUs there are, all of which are on.
fn cpus(name: &'static str) -> Row {
    row(name).gives_as_known(possible)
}

fn null(name: &'static str) -> Row {
    row(name)
        .takes(|b| numbers(b, &[1]))
        .then(|b| {
            b.mov_imm(Reg::R1, 1).jeq_imm(Reg::R0, 0, "is-null").mov_imm(Reg::R1, 0).label("is-null");
            b.leave(0, Reg::R1);
        })
        .leaves("NULL", 0, || Some(1))
}

/// A mask that is lent until `put`. How many are in it is left.
fn mask(name: &'static str, put: &'static str) -> Row {
    row(name)
        .takes(|b| numbers(b, &[0]))
        .owned_never_null(put)
        .then(|b| {
            b.mov_reg(Reg::R1, GOT);
            b.kfunc("bpf_cpumask_weight");
            b.mov32_reg(Reg::R0, Reg::R0);
            b.leave(0, Reg::R0);
        })
        .wrong("not-put", move |b| {
            numbers(b, &[0]);
            b.kfunc(name);
        })
}

/// Of an empty mask, where there is no scheduler: which of the two is missed differs.
fn pick(name: &'static str) -> Row {
    row(name)
        .takes(|b| {
            own_mask(b);
            b.mov_reg(Reg::R1, KEPT).mov_imm(Reg::R2, 0).mov_imm(Reg::R3, 0);
        })
        .shows_result()
        .finally(|b| b.release("bpf_cpumask_release", KEPT))
        .spoilt("null", |b| {
            b.mov_imm(Reg::R1, 0);
        })
}

fn format(name: &'static str, before: i32) -> Row {
    row(name)
        .takes(move |b| {
            b.st_imm(Size::DW, Reg::R10, -8, 0);
            let [text, data, size] =
                if before == 0 { [Reg::R1, Reg::R2, Reg::R3] } else { [Reg::R2, Reg::R3, Reg::R4] };
            b.mov_imm(Reg::R1, 0).mov_imm(size, 8);
            b.page_address(text, BUFFER);
            b.stack_address(data, -8);
        })
        .not_run(CHANGES)
}

fn of_task(name: &'static str) -> Row {
    row(name)
        .takes(|b| {
            b.current(Reg::R1);
            b.mov_imm(Reg::R2, 0);
        })
        .spoilt("null", |b| {
            b.mov_imm(Reg::R1, 0);
        })
}

fn of_arena(name: &'static str, arguments: [i64; 2]) -> Row {
    row(name)
        .holds(Holds::Arena)
        .takes(move |b| {
            b.held_map(Reg::R1);
            b.mov_imm(Reg::R2, 0).mov_imm(Reg::R3, 1).mov_imm(Reg::R4, -1).mov_imm(Reg::R5, 0);
            b.kfunc("bpf_arena_alloc_pages");
            b.mov_reg(Reg::R3, Reg::R0).mov_reg(Reg::R4, Reg::R0);
            numbers(b, &arguments);
        })
        .not_run(CHANGES)
}

/// The node of a CPU. Where there is no scheduler to ask, later kernels say `NUMA_NO_NODE` (7.3
/// kernel/sched/ext/idle.c, `scx_bpf_cpu_node`).
fn node() -> Row {
    row("scx_bpf_cpu_node").takes(|b| numbers(b, &[0])).checks(|attempt, results| {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the kfunc returns an int, what is above is not its own"
        )]
        let node = results.get(RESULT) as i32;
        attempt.see("result", i64::from(node));
    })
}

/// What selects a CPU for a task, for which only a scheduler's programs have a use.
fn select() -> Row {
    row("scx_bpf_select_cpu_dfl")
        .takes(|b| {
            b.current(Reg::R1);
            b.mov_imm(Reg::R2, 0).mov_imm(Reg::R3, 0);
            b.page_address(Reg::R4, OUT);
        })
        .shows_result()
        .spoilt("null", |b| {
            b.mov_imm(Reg::R1, 0);
        })
}

/// `KEPT = a mask` of the program's own.
fn own_mask(b: &mut Body<'_>) {
    b.kfunc("bpf_cpumask_create");
    b.jeq_imm(Reg::R0, 0, "pass").mov_reg(KEPT, Reg::R0);
}

fn select_of_a_mask() -> Row {
    row("scx_bpf_select_cpu_and")
        .takes(|b| {
            own_mask(b);
            b.current(Reg::R1);
            b.mov_imm(Reg::R2, 0).mov_imm(Reg::R3, 0).mov_reg(Reg::R4, KEPT).mov_imm(Reg::R5, 0);
        })
        .shows_result()
        .finally(|b| b.release("bpf_cpumask_release", KEPT))
        .spoilt("null", |b| {
            b.mov_imm(Reg::R1, 0);
        })
}

/// The same, with the numbers in a structure of 3 words (7.3 kernel/sched/ext/idle.c, `scx_bpf_select_cpu_and_args`).
fn select_of_arguments() -> Row {
    row("__scx_bpf_select_cpu_and")
        .takes(|b| {
            own_mask(b);
            b.current(Reg::R1);
            b.mov_reg(Reg::R2, KEPT);
            b.page_address(Reg::R3, BUFFER);
        })
        .shows_result()
        .finally(|b| b.release("bpf_cpumask_release", KEPT))
        .spoilt("null", |b| {
            b.mov_imm(Reg::R1, 0);
        })
}

/// Of a CPU's number nothing is known, which is -1 in every field, of which the first two are asked for.
fn topology() -> Row {
    row("scx_bpf_cid_topo")
        .takes(|b| {
            b.mov_imm(Reg::R1, 0);
            b.page_address(Reg::R2, OUT);
            b.mov_imm(Reg::R3, 8);
        })
        .checks(|attempt, results| {
            let known = results.get(OUT);
            let [cpu, cid] = [known & u64::from(u32::MAX), known >> 32];
            let unknown = u64::from(u32::MAX);
            attempt.see("the fields are -1", cpu == unknown && cid == unknown);
        })
}

fn events() -> Row {
    row("scx_bpf_events")
        .given(|results| {
            results.set(OUT, u64::MAX);
            Ok(())
        })
        .takes(|b| {
            b.page_address(Reg::R1, OUT);
            b.mov_imm(Reg::R2, 8);
        })
        .checks(|attempt, results| attempt.see("the first count", results.get(OUT)))
}

/// The root, where there is no scheduler to ask.
fn cgroup() -> Row {
    row("scx_bpf_task_cgroup")
        .takes(|b| b.current(Reg::R1))
        .owned_never_null("bpf_cgroup_release")
        .then(|b| {
            b.mov_reg(Reg::R1, GOT);
            b.follow(Reg::R1, "cgroup", "kn");
            b.follow(Reg::R1, "kernfs_node", "id");
            b.leave(0, Reg::R1);
        })
        .leaves("the root's cgroup id", 0, || super::row::inode("/sys/fs/cgroup"))
}

/// How long a queue is. What is missing is the queue, or where there may be several schedulers the scheduler (6.13
/// kernel/sched/ext.c and 7.3, `scx_bpf_dsq_nr_queued`).
fn queued() -> Row {
    row("scx_bpf_dsq_nr_queued").takes(|b| numbers(b, &[0])).shows_result()
}

/// The three kfuncs of the iterator over a queue; as for [`queued`].
fn queue() -> Row {
    row("bpf_iter_scx_dsq_new")
        .takes(|b| {
            b.stack_address(Reg::R1, ITER);
            b.mov_imm(Reg::R2, 1).mov_imm(Reg::R3, 0);
        })
        .shows_result()
        .finally(|b| {
            b.stack_address(Reg::R1, ITER);
            b.kfunc("bpf_iter_scx_dsq_next");
            b.stack_address(Reg::R1, ITER);
            b.kfunc("bpf_iter_scx_dsq_destroy");
        })
        .wrong("not-destroyed", |b| {
            b.stack_address(Reg::R1, ITER);
            b.mov_imm(Reg::R2, 1).mov_imm(Reg::R3, 0);
            b.kfunc("bpf_iter_scx_dsq_new");
        })
}
