//! Kfuncs about cgroups.

use super::body::{Body, IN};
use super::counted::second_of_two;
use super::row::{GOT, KEPT, Row, inode, kfunc};
use crate::insn::Reg;
use crate::results::Results;
use crate::session::Ended;
use crate::spec::source;
use nix::mount::{MsFlags, mount};
use std::fs;

const HELPERS: &str = "kernel/bpf/helpers.c";
/// The root of the default hierarchy, which every process is in that has not moved.
const ROOT: &str = "/sys/fs/cgroup";
/// A cgroup for one process, at level 1.
const OWN: &str = "/sys/fs/cgroup/kfuncs";

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    vec![from_id(), acquire(), release(), ancestor(), of_hierarchy()]
}

/// A cgroup's id is the inode number of its directory (6.12 include/linux/kernfs.h, kernfs_ino, on 64 bits).
pub(super) fn root_id() -> Option<u64> {
    inode(ROOT)
}

/// Makes a cgroup, unless a case before this one has.
pub(super) fn make(path: &str) -> Result<u64, Ended> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Ended::could_not("make a cgroup", error));
        }
        Ok(()) | Err(_) => {}
    }
    inode(path).ok_or_else(|| Ended::CouldNotTell("no cgroup".to_owned()))
}

pub(super) fn give_root_id(results: &mut Results) -> Result<(), Ended> {
    let id = root_id().ok_or_else(|| Ended::CouldNotTell("no cgroup file system".to_owned()))?;
    results.set(IN, id);
    Ok(())
}

/// A cgroup with nobody in it.
const EMPTY: &str = "/sys/fs/cgroup/kfuncs-empty";

pub(super) fn give_empty_id(results: &mut Results) -> Result<(), Ended> {
    results.set(IN, make(EMPTY)?);
    Ok(())
}

/// A cgroup with this process and nobody else in it. The process stays in it until it ends, and moves only once, which
/// costs a grace period.
pub(super) fn give_own_id(results: &mut Results) -> Result<(), Ended> {
    let cannot = |error: std::io::Error| Ended::could_not("enter a cgroup", error);
    let id = make(OWN)?;
    let place = fs::read_to_string("/proc/self/cgroup").map_err(cannot)?;
    if !place.lines().any(|line| line == "0::/kfuncs") {
        fs::write(format!("{OWN}/cgroup.procs"), "0").map_err(cannot)?;
    }
    results.set(IN, id);
    Ok(())
}

/// Leaves the id of the cgroup in [`GOT`], keeping it.
fn leave_id(b: &mut Body<'_>) {
    b.mov_reg(Reg::R1, GOT);
    b.follow(Reg::R1, "cgroup", "kn");
    b.follow(Reg::R1, "kernfs_node", "id");
    b.leave(0, Reg::R1);
}

fn from_id() -> Row {
    kfunc("bpf_cgroup_from_id", "6.12", HELPERS)
        .given(give_root_id)
        .takes(|b| b.input(Reg::R1, 0))
        .owned("bpf_cgroup_release")
        .then(leave_id)
        .leaves("cgroup id", 0, root_id)
        .other("canonical-of-no-cgroup", of_no_cgroup())
}

/// Ids are given one after the other, so that this one never is.
fn of_no_cgroup() -> Row {
    kfunc("bpf_cgroup_from_id", "6.12", HELPERS)
        .takes(|b| {
            b.ld_imm64(Reg::R1, u64::MAX >> 1);
        })
        .owned("bpf_cgroup_release")
        .gives_null("no cgroup has this id")
}

fn acquire() -> Row {
    kfunc("bpf_cgroup_acquire", "6.12", HELPERS)
        .takes(|b| b.current_cgroup(Reg::R1))
        .owned("bpf_cgroup_release")
        .then(leave_id)
        .leaves("cgroup id", 0, root_id)
        .rcu()
        .not_null(Reg::R1)
        .not_untrusted(Reg::R1, "cgroup")
}

/// Where a cgroup counts who holds it.
const REFCNT: (&str, &str) = ("cgroup", "self.refcnt");

/// `R0 = the cgroup` of which user space gave the id.
fn of_id(b: &mut Body<'_>) {
    b.input(Reg::R1, 0);
    b.kfunc("bpf_cgroup_from_id");
}

/// Of a cgroup that is looked up a second time the count goes up by one, and down again. Nobody is in it, so that nobody
/// else counts; the root is not counted at all (6.12 include/linux/cgroup_refcnt.h, CSS_NO_REF).
fn release() -> Row {
    let first = |b: &mut Body<'_>| {
        of_id(b);
        b.jeq_imm(Reg::R0, 0, "pass").mov_reg(KEPT, Reg::R0);
    };
    second_of_two(
        kfunc("bpf_cgroup_release", "6.12", HELPERS).given(give_empty_id),
        "bpf_cgroup_release",
        REFCNT,
        first,
        of_id,
    )
    .wrong("misuse-not-acquired", |b| {
        b.current_cgroup(Reg::R1);
        b.kfunc("bpf_cgroup_release");
    })
    .wrong("misuse-of-another-type", |b| {
        b.current(Reg::R1);
        b.acquire_task();
        b.mov_reg(Reg::R1, Reg::R0);
        b.kfunc("bpf_cgroup_release");
    })
}

/// `KEPT = the cgroup` of which user space gave the id, acquired.
pub(super) fn acquired(b: &mut Body<'_>) {
    of_id(b);
    b.jeq_imm(Reg::R0, 0, "pass").mov_reg(KEPT, Reg::R0);
}

/// A row of a program that may sleep, has no RCU section and holds its cgroup ([`acquired`]), of which `given` gives the
/// id: what is held is taken wherever a pointer that RCU protects is (6.12 kernel/bpf/verifier.c, `check_kfunc_args`:
/// `is_trusted_reg` or `is_rcu_reg`).
pub(super) fn of_an_acquired(row: Row, given: fn(&mut Results) -> Result<(), Ended>) -> Row {
    row.sleepable().given(given).finally(|b| b.release("bpf_cgroup_release", KEPT))
}

/// The ancestor at `level` of the process's cgroup, which is at level 1.
fn at_level(level: i32) -> Row {
    kfunc("bpf_cgroup_ancestor", "6.12", HELPERS)
        .given(give_own_id)
        .takes(move |b| {
            b.current_cgroup(Reg::R1);
            b.mov_imm(Reg::R2, level);
        })
        .owned("bpf_cgroup_release")
}

fn ancestor() -> Row {
    at_level(0)
        .then(leave_id)
        .leaves("id of the root", 0, root_id)
        .other(
            "canonical-at-its-own-level",
            at_level(1).then(leave_id).leaves("id of its own cgroup", 0, || inode(OWN)),
        )
        .other("canonical-beyond-its-level", at_level(2).gives_null("the cgroup is at a level above"))
        .other(
            "canonical-sleepable-of-an-acquired-cgroup",
            of_an_acquired(kfunc("bpf_cgroup_ancestor", "6.12", HELPERS), give_own_id)
                .takes(|b| {
                    acquired(b);
                    b.mov_reg(Reg::R1, KEPT).mov_imm(Reg::R2, 0);
                })
                .owned("bpf_cgroup_release")
                .then(leave_id)
                .leaves("id of the root", 0, root_id),
        )
        .rcu()
        .not_null(Reg::R1)
}

/// Where the probe mounts a hierarchy of the first version, which the machine has none of.
const V1: &str = "/tmp/v1";
/// Its name.
const V1_NAME: &str = "conform";

/// Mounts a hierarchy without controllers and gives its number.
fn give_hierarchy(results: &mut Results) -> Result<(), Ended> {
    let cannot = |why: &dyn std::fmt::Display| Ended::could_not("mount a cgroup v1 hierarchy", why);
    if fs::create_dir(V1).is_ok() {
        let options = format!("none,name={V1_NAME}");
        mount(Some("none"), V1, Some("cgroup"), MsFlags::empty(), Some(options.as_str()))
            .map_err(|errno| cannot(&errno))?;
    }
    let list = fs::read_to_string("/proc/self/cgroup").map_err(|error| cannot(&error))?;
    let name = format!(":name={V1_NAME}:");
    let number = list.lines().find(|line| line.contains(&name)).and_then(|line| line.split(':').next());
    let number = number.and_then(|text| text.parse().ok()).ok_or_else(|| cannot(&"it is not listed"))?;
    results.set(IN, number);
    Ok(())
}

fn of_hierarchy() -> Row {
    kfunc("bpf_task_get_cgroup1", "6.12", HELPERS)
        .given(give_hierarchy)
        .takes(|b| {
            b.current(Reg::R1);
            b.input(Reg::R2, 0);
        })
        .owned("bpf_cgroup_release")
        .then(leave_id)
        .leaves("cgroup id", 0, || inode(V1))
        .other("canonical-of-the-default-hierarchy", of_number(0).gives_null("it is of the second version"))
        .other("canonical-of-no-hierarchy", of_number(1 << 30).gives_null("no hierarchy has this number"))
        .not_null(Reg::R1)
        .cites(source("6.8", "kernel/cgroup/cgroup-v1.c", "task_get_cgroup1"))
}

/// The task's cgroup in the hierarchy of this number. The default one has 0 (`/proc/self/cgroup`), others have what is free
/// from 1 on.
fn of_number(number: i32) -> Row {
    kfunc("bpf_task_get_cgroup1", "6.12", HELPERS)
        .takes(move |b| {
            b.current(Reg::R1);
            b.mov_imm(Reg::R2, number);
        })
        .owned("bpf_cgroup_release")
}
