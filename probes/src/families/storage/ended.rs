//! What becomes of a value when its owner ends.

use super::kinds::{Bench, FILE, Met, Object, Op, pidfd, unix_socket};
use super::{key_of, must};
use crate::bpf;
use crate::errno::Errno;
use crate::patience::Patience;
use crate::record::Phase;
use crate::rules::{Cgroup, in_child, let_cgroups_be_freed, start_child, until};
use crate::session::{Attempt, Ended};
use crate::triggers::Arm;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use std::collections::HashSet;
use std::fs::File;
use std::time::Duration;

/// What a program stores for each object.
const STORED: u64 = 42;
/// How long to make objects until one has the memory of another. All but cgroups take some ten; a cgroup takes grace
/// periods to be freed.
const PATIENCE: Duration = Duration::from_secs(15);

/// One object after the other is given a value and ended, until one lies where another has lain: then that other is freed for
/// certain. What is shown is that an object begins without a value, also in memory that had one. Whether the old value is freed
/// is not: no object leads to it any more, since a new one's pointer to its values is set to null when it is made (7.3
/// kernel/fork.c, `copy_process`; security/security.c, `lsm_inode_alloc`).
pub(super) fn until_memory_is_used_again(attempt: &mut Attempt<'_>, bench: &mut Bench) -> Result<(), Ended> {
    // The program finds what it stored while the object is there: without this it would tell nothing.
    bench.run(attempt, Op::Create, STORED)?;
    let again = bench.run(attempt, Op::Create, STORED)?;
    attempt.see("while the object is there, a program reads", again.word(STORED));
    let mut before = HashSet::new();
    let mut patience = Patience::new(PATIENCE);
    while patience.lasts() {
        let met = (bench.kind.round)(attempt, bench)?;
        if !before.insert(met.address) {
            let found = match met.before {
                0 => "a new value",
                STORED => "THE VALUE OF THE ONE BEFORE",
                _ => "SOMETHING ELSE",
            };
            attempt.ran(bench.runs() > 0);
            attempt.see("the next object in the same memory has", found);
            return Ok(());
        }
    }
    Err(Ended::could_not("make an object in the memory of another", "none lay where another had"))
}

/// Has the program store a value for the object that the bench has.
fn store(attempt: &mut Attempt<'_>, bench: &mut Bench) -> Result<Met, Ended> {
    bench.run(attempt, Op::Create, STORED)?;
    bench.met()
}

/// A new file, removed and closed. An inode is freed after a grace period.
pub(super) fn round_inode(attempt: &mut Attempt<'_>, bench: &mut Bench) -> Result<Met, Ended> {
    remove_file()?;
    bench.object = None;
    std::thread::sleep(Duration::from_millis(1));
    bench.object = Some((bench.kind.object)()?);
    store(attempt, bench)
}

/// A new socket, and the one before it closed.
pub(super) fn round_socket(attempt: &mut Attempt<'_>, bench: &mut Bench) -> Result<Met, Ended> {
    bench.object = None;
    bench.object = Some((bench.kind.object)()?);
    store(attempt, bench)
}

/// A child that opens the file, and is waited for. A task is freed after a grace period.
pub(super) fn round_task(attempt: &mut Attempt<'_>, bench: &mut Bench) -> Result<Met, Ended> {
    bench.prepare(Op::Create, STORED);
    let arm = Arm::new(&bench.results);
    attempt.trigger(|| in_child(|| drop(arm.during(|| File::open(FILE)))))?;
    std::thread::sleep(Duration::from_millis(1));
    bench.met()
}

/// A new cgroup with this process in it, and the one before it removed and freed.
pub(super) fn round_cgroup(attempt: &mut Attempt<'_>, bench: &mut Bench) -> Result<Met, Ended> {
    bench.object = None; // which leaves it and removes it
    bench.object = Some((bench.kind.object)()?); // which waits first
    store(attempt, bench)
}

fn remove_file() -> Result<(), Ended> {
    std::fs::remove_file(FILE).map_err(|error| Ended::could_not("remove the file", error))
}

fn see(attempt: &mut Attempt<'_>, key: &str, read: &Result<u64, Errno>) {
    attempt.at(Phase::Read);
    attempt.see(key, read.as_ref().map_or_else(|errno| errno.name(), ToString::to_string));
}

/// The file is removed, and stays open.
pub(super) fn left_inode(attempt: &mut Attempt<'_>, bench: &mut Bench) -> Result<(), Ended> {
    must("store a value", bench.write(9))?;
    see(attempt, "while it has a name", &bench.read());
    remove_file()?;
    see(attempt, "removed and still open", &bench.read());
    Ok(())
}

/// A child has a value; it ends and is waited for. Whether the value is there still is not said by this: the lookup goes
/// by a process id that no task has any more (5.11 kernel/bpf/bpf_task_storage.c, `bpf_pid_task_storage_lookup_elem`).
pub(super) fn left_task(attempt: &mut Attempt<'_>, bench: &mut Bench) -> Result<(), Ended> {
    let child = start_child(|| {
        loop {
            // SAFETY: pause takes nothing and touches no memory.
            unsafe { libc::pause() };
        }
    })?;
    let fd = must("open a pidfd", pidfd(child.as_raw().cast_unsigned()))?;
    let key = key_of(&fd);
    let stored = bpf::map_update(&bench.map, &key, &9_u64.to_ne_bytes(), bpf::BPF_ANY);
    see(attempt, "while it lives", &stored.and_then(|()| bench.read_of(&key)));
    must("end the child", kill(child, Signal::SIGKILL).map_err(Errno::from))?;
    must("wait for the child", waitpid(child, None).map_err(Errno::from))?;
    see(attempt, "after it was waited for", &bench.read_of(&key));
    Ok(())
}

/// One of a socket's two descriptors is closed.
pub(super) fn left_socket(attempt: &mut Attempt<'_>, bench: &mut Bench) -> Result<(), Ended> {
    must("store a value", bench.write(9))?;
    let object = bench.object.take().ok_or_else(|| Ended::could_not("close a socket", "there is none"))?;
    let twin = object.fd.try_clone().map_err(|error| Ended::could_not("duplicate a socket", error))?;
    see(attempt, "by another descriptor of it", &bench.read_of(&key_of(&twin)));
    drop(object);
    see(attempt, "by that one, when the first is closed", &bench.read_of(&key_of(&twin)));
    let other = unix_socket()?;
    see(attempt, "of another socket", &bench.read_of(&key_of(&other)));
    Ok(())
}

/// The cgroup is removed, and its folder stays open. Whether the value is there still is not said by this: the lookup
/// wants a cgroup that is online (6.2 kernel/bpf/bpf_cgrp_storage.c, `bpf_cgrp_storage_lookup_elem`;
/// kernel/cgroup/cgroup.c, `css_tryget_online_from_dir`).
pub(super) fn left_cgroup(attempt: &mut Attempt<'_>, bench: &mut Bench) -> Result<(), Ended> {
    must("store a value", bench.write(9))?;
    see(attempt, "while it is there", &bench.read());
    Cgroup::root()?.enter()?;
    if let Some(Object { cgroup: Some(cgroup), .. }) = &bench.object {
        attempt.outcome("rmdir", &cgroup.remove());
    }
    let mut read = bench.read();
    until(|| {
        read = bench.read();
        read.is_err()
    });
    see(attempt, "removed and its folder still open, in the end", &read);
    let_cgroups_be_freed();
    Ok(())
}
