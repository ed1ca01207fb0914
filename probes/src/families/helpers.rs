//! Helpers: called as intended from an LSM program, the result checked against user space.
//!
//! For every helper the probe's first case, `callable`, says which programs may call it. Those looked at more closely
//! have a `Row`: what is asked of it, where its rules are in the kernel's source, and its cases, each a name
//! and one function that works on a `Bench`. The usual names are `canonical` (the helper's normal use, by a program
//! that may not sleep), `canonical-sleepable` (the same, by one that may), `from-rust` (an object compiled from Rust
//! and loaded with aya) and `misuse-..` (a call that the verifier is expected to refuse; its reason is the record).

mod bench;
mod call;
mod callable;
mod cgroup;
mod dynptr;
mod exec;
mod fields;
mod identity;
mod kernel_objects;
mod kptr;
mod kptr_stored;
mod lockdown;
mod maps;
mod memory;
mod null_owner;
mod packets;
mod path;
mod perf;
mod placement;
mod queues;
mod ringbuf;
mod signals;
mod sockets;
mod sockopts;
mod stacks;
mod storage;
mod task;
mod text;
mod time;
mod user_ringbuf;

use crate::helper;
use crate::session::{Ended, Session, Stop};
use crate::spec::{Probe, Source};
use bench::Bench;

/// What a case does.
type Body = fn(&mut Bench<'_, '_>) -> Result<(), Ended>;

/// A helper's row.
#[derive(Clone, Copy)]
struct Row {
    /// Its number.
    helper: u32,
    /// What is asked: the rest of a question that ends with "does it ..".
    asks: &'static str,
    /// Where the kernel's source answers.
    sources: &'static [Source],
    /// The cases, in order.
    cases: &'static [Case],
}

/// A case of a helper.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    kind: Kind,
    body: Body,
}

/// What kind of programs a case is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Made by hand, not allowed to sleep.
    Plain,
    /// Made by hand, allowed to sleep.
    Sleepable,
    /// Made by hand, of a cgroup.
    Cgroup,
    /// An object loaded with aya.
    Rust,
}

/// How the names of cases begin that are about a helper's normal use.
const CANONICAL: &str = "canonical";

/// The normal use, by a program that may not sleep.
const fn canonical(body: Body) -> Case {
    Case { name: CANONICAL, kind: Kind::Plain, body }
}

/// The normal use, by a program that may sleep.
const fn sleepable(body: Body) -> Case {
    Case { name: "canonical-sleepable", kind: Kind::Sleepable, body }
}

/// The normal use, in Rust.
const fn rust(body: Body) -> Case {
    Case { name: "from-rust", kind: Kind::Rust, body }
}

/// How the names of cases begin that are about a use that is to be refused.
const MISUSE: &str = "misuse-";

/// A use that is to be refused; the name begins with [`MISUSE`].
const fn misuse(name: &'static str, body: Body) -> Case {
    Case { name, kind: Kind::Plain, body }
}

/// The same, by a program that may sleep.
const fn slow_misuse(name: &'static str, body: Body) -> Case {
    Case { name, kind: Kind::Sleepable, body }
}

/// A case of programs of a cgroup.
const fn of_cgroup(name: &'static str, body: Body) -> Case {
    Case { name, kind: Kind::Cgroup, body }
}

/// Any other case.
const fn case(name: &'static str, body: Body) -> Case {
    Case { name, kind: Kind::Plain, body }
}

/// The hooks with an inert program, which calls those of the cases: the usual one, and those of sockets.
pub const KEPT: &[&str] = &["file_open", "socket_listen", "socket_post_create", "socket_bind"];

/// The `lsm=` of the machine for what depends on other LSMs; one of the family `lsms` has the same.
const WITHOUT_OTHERS: &str = "bpf";

/// What an event of a ring buffer says.
const WORDS: [i32; 2] = [0x0102_0304, 0x0506_0708];

/// Rows that take no file but the one that anybody may open.
const TABLES: &[&[Row]] = &[
    time::ROWS,
    memory::ROWS,
    maps::ROWS,
    ringbuf::ROWS,
    dynptr::ROWS,
    queues::ROWS,
    task::ROWS,
    stacks::ROWS,
    fields::ROWS,
    user_ringbuf::ROWS,
    text::ROWS,
    signals::ROWS,
    kptr::ROWS,
    perf::ROWS,
];

/// Rows that make files of their own, or mounts, or change what the file is.
const TABLES_WITH_FILES: &[&[Row]] = &[
    identity::ROWS,
    placement::ROWS,
    sockets::ROWS,
    storage::ROWS,
    path::ROWS,
    kernel_objects::ROWS,
    packets::ROWS,
    cgroup::ROWS,
];

/// Helpers whose probes stay away from the shared machine: they give IMA a policy, which cannot be taken back and has
/// every later opening measured. Before 6.9 IMA keeps what it knows of a file with the LSM `integrity` and panics when
/// `lsm=` does not name that one (6.0 security/integrity/iint.c, integrity_inode_get); the matrix names it.
const APART: &[u32] = &[helper::IMA_INODE_HASH, helper::IMA_FILE_HASH];

/// Every row.
fn rows() -> impl Iterator<Item = &'static Row> {
    TABLES.iter().chain(TABLES_WITH_FILES).copied().flatten()
}

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    let mut probes: Vec<Probe> =
        TABLES.iter().copied().flatten().map(|&row| probe(row).without_files()).collect();
    probes.extend(TABLES_WITH_FILES.iter().copied().flatten().map(|&row| probe(row)));
    probes.push(kernel_objects::probe_without_ima());
    probes.push(lockdown::probe());
    probes.append(&mut callable::probes(|number| rows().any(|row| row.helper == number)));
    probes
}

fn probe(row: Row) -> Probe {
    let name = helper::name(row.helper).unwrap_or("unknown");
    let question = format!("Which LSM programs may call bpf_{name}, and does it {}?", row.asks);
    let sources = [row.sources, callable::SOURCES].concat();
    let probe =
        Probe::new(format!("helpers/bpf_{name}"), question, &sources, move |session| run(session, row));
    let probe = if row.cases.iter().any(|case| case.kind == Kind::Rust) { probe.uses_aya() } else { probe };
    if APART.contains(&row.helper) { probe.own_machine() } else { probe }
}

fn run(session: &mut Session<'_>, row: Row) -> Result<(), Stop> {
    session.case("callable", |attempt| callable::callable(attempt, row.helper))?;
    row.cases.iter().try_for_each(|case| {
        session.case(case.name, |attempt| {
            let mut bench = Bench::new(attempt, row.helper, case.kind);
            let is_canonical = case.name.starts_with(CANONICAL);
            match bench.known()? {
                true => {
                    let ended = (case.body)(&mut bench);
                    if case.name.starts_with(MISUSE) {
                        return callable::judge_misuse(&mut bench, ended);
                    }
                    let ended = callable::judge_use(&mut bench, ended);
                    if is_canonical { ended } else { callable::judge_kind(&mut bench, ended) }
                }
                // What the normal use of what is not there is told.
                false if is_canonical => bench.bare_call(),
                // Whatever else is done with it.
                false => Err(Ended::no_helper(row.helper)),
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What takes nothing, or a number that is right whatever it is.
    const NUMBERS_ONLY: &[u32] = &[
        helper::GET_CURRENT_PID_TGID,
        helper::GET_CURRENT_UID_GID,
        helper::GET_CURRENT_CGROUP_ID,
        helper::GET_CURRENT_ANCESTOR_CGROUP_ID,
        helper::GET_CGROUP_CLASSID,
        helper::GET_SMP_PROCESSOR_ID,
        helper::GET_NUMA_NODE_ID,
        helper::GET_CURRENT_TASK,
        helper::GET_CURRENT_TASK_BTF,
        helper::GET_PRANDOM_U32,
        helper::JIFFIES64,
        helper::KTIME_GET_NS,
        helper::KTIME_GET_BOOT_NS,
        helper::KTIME_GET_TAI_NS,
        helper::KTIME_GET_COARSE_NS,
        helper::SEND_SIGNAL,
        helper::SEND_SIGNAL_THREAD,
        helper::GET_RETVAL,
        helper::SET_RETVAL,
        helper::GET_FUNC_IP, // no program of this type may call it
    ];

    #[test]
    fn rows_have_two_misuses_where_anything_can_be_misused() {
        for row in rows() {
            let misuses = row.cases.iter().filter(|case| case.name.starts_with(MISUSE)).count();
            let name = helper::name(row.helper).unwrap();
            assert!(misuses >= 2 || NUMBERS_ONLY.contains(&row.helper), "{name} has {misuses}");
        }
    }

    #[test]
    fn rows_name_a_helper_and_begin_with_its_normal_use() {
        for row in rows() {
            let name = helper::name(row.helper).unwrap();
            assert_eq!(row.cases.first().map(|case| case.name), Some("canonical"), "{name}");
            for case in row.cases {
                assert_eq!(case.kind == Kind::Rust, case.name == "from-rust", "{name}/{}", case.name);
            }
        }
    }
}
