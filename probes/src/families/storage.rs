//! Storage that belongs to an inode, a task, a socket or a cgroup: made by a program, seen from user space by the
//! object's descriptor, deleted by either, and gone with the object.

mod absent;
mod born;
mod ended;
mod inherited;
mod kinds;
mod label;
mod wrong;

use crate::bpf;
use crate::errno::Errno;
use crate::record::Phase;
use crate::session::{Attempt, Ended, Session, Stop};
use crate::spec::{Probe, Source, source};
use kinds::{Bench, KINDS, Kind, Op};
use std::os::fd::AsRawFd;

/// bpf not at all, on machines for one probe alone: lockdown is asked whether `lsm=` names it or not. Of these LSMs
/// landlock has a place in inodes; so have ima and evm, which are asked from 6.9 on whatever `lsm=` names.
const ABSENT: &str = "lockdown,yama";
/// The same beside an LSM that has a place in inodes.
const LANDLOCK: &str = "lockdown,landlock,yama";

/// The hooks with an inert program.
pub const KEPT: &[&str] = &["file_open", "socket_bind"];

const LOOKUP: Source = source("7.3", "kernel/bpf/bpf_local_storage.c", "bpf_local_storage_update");
const MAPS: Source = source("7.3", "kernel/bpf/verifier.c", "check_map_prog_compatibility");

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    let mut all: Vec<Probe> = KINDS.iter().flat_map(of_kind).collect();
    all.extend(label_probes());
    all.push(without_bpf("without-bpf-lsm", "bpf absent from lsm=", ABSENT));
    all.push(without_bpf(
        "without-bpf-lsm-beside-landlock",
        "bpf absent from lsm= and landlock there",
        LANDLOCK,
    ));
    all
}

fn without_bpf(name: &str, order: &str, lsm: &str) -> Probe {
    Probe::new(
        format!("storage/{name}"),
        format!(
            "With {order}, can user space make maps of storage, and store, read and delete a value by descriptor?"
        ),
        &[
            source("7.3", "kernel/bpf/bpf_inode_storage.c", "inode_storage_map_alloc"),
            source("7.0", "include/linux/bpf_lsm.h", "bpf_inode"),
            source("6.14", "security/security.c", "lsm_set_blob_sizes"),
            source("6.14", "security/security.c", "lsm_inode_alloc"),
        ],
        absent::by_descriptor,
    )
    .with_lsm(lsm)
}

fn label_probes() -> Vec<Probe> {
    let of_inodes = [
        source("7.3", "kernel/bpf/bpf_inode_storage.c", "bpf_inode_storage_get"),
        source("7.3", "security/bpf/hooks.c", "bpf_lsm_hooks"),
    ];
    let get = source("7.3", "net/core/bpf_sk_storage.c", "bpf_sk_storage_get");
    vec![
        Probe::new(
            "storage/task-at-birth-and-death",
            "Can a label be made for a new task in task_alloc, has a child without that its parent's, and is it there in task_free?",
            &[
                source("7.3", "kernel/fork.c", "copy_process"),
                source("7.3", "kernel/fork.c", "__put_task_struct"),
                source("7.3", "kernel/bpf/bpf_task_storage.c", "bpf_task_storage_get"),
            ],
            born::task,
        ),
        Probe::new(
            "storage/inode-at-birth-and-death",
            "Can a label be made for a new inode in inode_alloc_security, and is it there in inode_free_security?",
            &of_inodes,
            born::inode,
        ),
        Probe::new(
            "storage/inode-at-its-first-label",
            "With bpf before selinux, can a label be made for a new inode in inode_init_security?",
            &of_inodes,
            born::inode_with_labels,
        )
        .with_lsm(super::lsms::MIDDLE),
        Probe::new(
            "storage/socket-at-birth-and-death",
            "Can a label be made for a new socket in sk_alloc_security and in socket_post_create, and is it there in sk_free_security?",
            &[get, source("7.3", "net/core/sock.c", "__sk_destruct")],
            born::socket_of_unix,
        ),
        Probe::new(
            "storage/socket-inherited",
            "Is a listener's label there on the socket that it accepts, with and without BPF_F_CLONE, and from which hook on?",
            &[
                get,
                source("7.3", "net/core/bpf_sk_storage.c", "bpf_sk_storage_clone"),
                source("7.3", "net/core/sock.c", "sk_clone"),
                source("7.3", "net/core/sock.c", "sock_copy"),
            ],
            inherited::accepted,
        ),
    ]
}

/// A probe's function for one kind.
type Ask = fn(&mut Session<'_>, &'static Kind) -> Result<(), Stop>;

fn of_kind(kind: &'static Kind) -> Vec<Probe> {
    let asks: [(&str, &str, Ask); 6] = [
        (
            "map-made-wrongly",
            "what is said of a map without BTF, with other flags, with elements, or with a key or value of another size",
            wrong::maps,
        ),
        (
            "create",
            "can a plain and a sleepable program make a value that user space reads by descriptor",
            create,
        ),
        ("write-from-user-space", "does a program see the value that user space stores by descriptor", write),
        (
            "delete-by-program",
            "is a value that a program deletes gone for user space, and ENOENT the second time",
            delete,
        ),
        ("delete-from-user-space", "is a value that user space deletes gone for the program", delete_by_user),
        (
            "freed",
            "does a descriptor of an object that was ended, as far as a descriptor allows, lead to its value, and does the next object in the same memory begin without one",
            freed,
        ),
    ];
    asks.into_iter()
        .map(|(name, asks, ask)| {
            Probe::new(
                format!("storage/{}-{name}", kind.name),
                format!("With storage of {}, {asks}?", kind.of),
                &[kind.source, LOOKUP, MAPS],
                move |session| ask(session, kind),
            )
        })
        .collect()
}

fn create(session: &mut Session<'_>, kind: &'static Kind) -> Result<(), Stop> {
    // A map that ends is taken apart by a worker, with the values in it. A program that comes to the owner's last value
    // just then makes none (6.10 kernel/bpf/bpf_local_storage.c, bpf_local_storage_update: EAGAIN).
    let mut maps = Vec::new();
    for (name, sleepable) in [("plain", false), ("sleepable", true)] {
        session.case(name, |attempt| {
            if sleepable && kinds::never_sleeps(attempt, kind)? {
                return kinds::name_the_map(attempt, kind);
            }
            let mut bench = Bench::new(attempt, kind, sleepable)?;
            if sleepable && kind.by_rcu {
                attempt.see("in an RCU section of its own", bench.in_section);
            }
            attempt.outcome("user space reads before", &bench.read());
            let made = bench.run(attempt, Op::Create, 42)?;
            attempt.runs(bench.runs());
            attempt.see("the program gets a value", made.present);
            see_read(attempt, "user space reads", &bench.read(), 42);
            maps.push(bench.map);
            Ok(())
        })?;
    }
    Ok(())
}

fn see_read(attempt: &mut Attempt<'_>, key: &str, read: &Result<u64, Errno>, expected: u64) {
    let word = match read {
        Ok(value) if *value == expected => "what was stored".to_owned(),
        Ok(_) => "SOMETHING ELSE".to_owned(),
        Err(errno) => errno.name(),
    };
    attempt.see(key, word);
}

fn write(session: &mut Session<'_>, kind: &'static Kind) -> Result<(), Stop> {
    session.case("stored-then-read-by-the-program", |attempt| {
        let mut bench = Bench::new(attempt, kind, false)?;
        let before = bench.run(attempt, Op::Get, 0)?;
        attempt.see("the program gets a value before", before.present);
        attempt.calls(Phase::Trigger, bench.write(77))?;
        let after = bench.run(attempt, Op::Get, 0)?;
        attempt.runs(bench.runs());
        attempt.see("the program reads", after.word(77));
        let again = bpf::map_update(&bench.map, &bench.key(), &1_u64.to_ne_bytes(), bpf::BPF_NOEXIST);
        attempt.outcome("BPF_NOEXIST from user space", &again);
        Ok(())
    })
}

fn delete(session: &mut Session<'_>, kind: &'static Kind) -> Result<(), Stop> {
    session.case("deleted-twice", |attempt| {
        let mut bench = Bench::new(attempt, kind, false)?;
        let _made = bench.run(attempt, Op::Create, 42)?;
        let first = bench.run(attempt, Op::Delete, 0)?;
        attempt.outcome("user space reads afterwards", &bench.read());
        let second = bench.run(attempt, Op::Delete, 0)?;
        attempt.runs(bench.runs());
        attempt.see("the first deletion gives", first.returned());
        attempt.see("the second deletion gives", second.returned());
        Ok(())
    })
}

fn delete_by_user(session: &mut Session<'_>, kind: &'static Kind) -> Result<(), Stop> {
    session.case("deleted-then-asked-for", |attempt| {
        let mut bench = Bench::new(attempt, kind, false)?;
        let _made = bench.run(attempt, Op::Create, 42)?;
        attempt.outcome("BPF_MAP_DELETE_ELEM", &bpf::map_delete(&bench.map, &bench.key()));
        attempt.outcome("BPF_MAP_DELETE_ELEM again", &bpf::map_delete(&bench.map, &bench.key()));
        let after = bench.run(attempt, Op::Get, 0)?;
        attempt.runs(bench.runs());
        attempt.see("the program gets a value afterwards", after.present);
        Ok(())
    })
}

fn freed(session: &mut Session<'_>, kind: &'static Kind) -> Result<(), Stop> {
    let (name, left) = kind.left;
    session.case(name, |attempt| {
        let mut bench = Bench::new(attempt, kind, false)?;
        left(attempt, &mut bench)
    })?;
    session.case("another-in-its-memory", |attempt| {
        let mut bench = Bench::new(attempt, kind, false)?;
        ended::until_memory_is_used_again(attempt, &mut bench)
    })
}

/// Ends the case unless a descriptor can be had.
fn must<T>(what: &str, result: Result<T, Errno>) -> Result<T, Ended> {
    result.map_err(|errno| Ended::could_not(what, errno))
}

/// A descriptor as a key of the map.
fn key_of(fd: &impl AsRawFd) -> [u8; 4] {
    fd.as_raw_fd().to_ne_bytes()
}
