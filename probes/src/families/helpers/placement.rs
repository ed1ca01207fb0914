//! Where the task runs: its cgroup, the class of that, its processor and memory node.

use super::bench::{Bench, FILE, keep, slot};
use super::{Row, canonical};
use crate::errno::Errno;
use crate::helper;
use crate::insn::Reg;
use crate::rules::stay_on;
use crate::session::Ended;
use crate::spec::source;
use crate::triggers::Arm;
use nix::mount::{MsFlags, mount, umount};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

pub(super) const ROWS: &[Row] = &[
    Row {
        helper: helper::GET_CURRENT_CGROUP_ID,
        asks: "give the number of the inode of the task's cgroup",
        sources: &[
            source("5.9", "kernel/bpf/helpers.c", "bpf_get_current_cgroup_id"),
            source("5.9", "include/linux/kernfs.h", "kernfs_ino"),
        ],
        cases: &[canonical(cgroup_id)],
    },
    Row {
        helper: helper::GET_CURRENT_ANCESTOR_CGROUP_ID,
        asks: "give the number of the inode of the cgroup above the task's at a level",
        sources: &[
            source("5.9", "kernel/bpf/helpers.c", "bpf_get_current_ancestor_cgroup_id"),
            source("6.0", "kernel/trace/bpf_trace.c", "bpf_tracing_func_proto"),
        ],
        cases: &[canonical(ancestor_cgroup_id)],
    },
    Row {
        helper: helper::GET_CGROUP_CLASSID,
        asks: "give the class of the task's cgroup of the controller net_cls",
        sources: &[
            source("7.1", "kernel/bpf/helpers.c", "bpf_base_func_proto"),
            source("7.1", "net/core/filter.c", "bpf_get_cgroup_classid_curr"),
        ],
        cases: &[canonical(class_id)],
    },
    Row {
        helper: helper::GET_SMP_PROCESSOR_ID,
        asks: "give the number of the processor that runs the task",
        sources: &[source("5.9", "kernel/trace/bpf_trace.c", "bpf_tracing_func_proto")],
        cases: &[canonical(|bench| {
            let user = settle(bench)?.0;
            let results = bench.call_on_open()?;
            bench.attempt.same("the processor", results.get(slot(0)), user);
            Ok(())
        })],
    },
    Row {
        helper: helper::GET_NUMA_NODE_ID,
        asks: "give the number of the memory node of the processor that runs the task",
        sources: &[source("5.9", "kernel/trace/bpf_trace.c", "bpf_tracing_func_proto")],
        cases: &[canonical(|bench| {
            let user = settle(bench)?.1;
            let results = bench.call_on_open()?;
            bench.attempt.same("the node", results.get(slot(0)), user);
            Ok(())
        })],
    },
];

pub(super) fn inode(path: &str) -> Result<u64, Ended> {
    fs::metadata(path).map(|found| found.ino()).map_err(|error| Ended::could_not("look at a cgroup", error))
}

/// A cgroup that this process is in for as long as the value lives.
struct Cgroup;

impl Cgroup {
    const ROOT: &str = "/sys/fs/cgroup";
    const OWN: &str = "/sys/fs/cgroup/conform";

    fn enter() -> Result<Self, Ended> {
        let why = |error: std::io::Error| Ended::could_not("enter a cgroup of our own", error);
        // What is left of a probe that died is as good as new.
        fs::create_dir_all(Self::OWN).map_err(why)?;
        fs::write(format!("{}/cgroup.procs", Self::OWN), "0").map_err(why)?;
        Ok(Self)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What cannot be removed stays: an empty cgroup disturbs nobody.
        let _moved = fs::write(format!("{}/cgroup.procs", Self::ROOT), "0");
        let _removed = fs::remove_dir(Self::OWN);
    }
}

fn cgroup_id(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let _inside = Cgroup::enter()?;
    let results = bench.call_on_open()?;
    bench.attempt.same("the cgroup", results.get(slot(0)), inode(Cgroup::OWN)?);
    Ok(())
}

fn ancestor_cgroup_id(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let helper = bench.helper();
    let _inside = Cgroup::enter()?;
    let results = bench.open(|asm| {
        for level in 0..3 {
            asm.mov_imm(Reg::R1, level).call(helper);
            keep(asm, level, Reg::R0);
        }
    })?;
    bench.attempt.same("level 0", results.get(slot(0)), inode(Cgroup::ROOT)?);
    bench.attempt.same("level 1", results.get(slot(1)), inode(Cgroup::OWN)?);
    bench.attempt.see("level 2, which is none", results.get(slot(2)));
    Ok(())
}

/// A class that user space gives a cgroup of the first hierarchy's kind.
const CLASS: u64 = 0x0010_0002;

/// Enters such a cgroup and opens the file there. The hierarchy goes with its last cgroup and mount.
fn open_in_class(arm: Arm) -> std::io::Result<()> {
    const ROOT: &str = "/tmp/net_cls";
    const OWN: &str = "/tmp/net_cls/conform";
    fs::create_dir_all(ROOT)?;
    mount(Some("net_cls"), ROOT, Some("cgroup"), MsFlags::empty(), Some("net_cls"))?;
    fs::create_dir_all(OWN)?;
    fs::write(format!("{OWN}/net_cls.classid"), CLASS.to_string())?;
    fs::write(format!("{OWN}/cgroup.procs"), "0")?;
    let opened = arm.during(|| File::open(FILE));
    fs::write(format!("{ROOT}/cgroup.procs"), "0")?;
    fs::remove_dir(OWN)?;
    umount(ROOT)?;
    opened.map(drop)
}

fn class_id(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let helper = bench.helper();
    let (results, opened) = bench.run("file_open", open_in_class, |asm| {
        asm.call(helper);
        keep(asm, 0, Reg::R0);
    })?;
    opened.map_err(|error| Ended::could_not("open the file in a cgroup with a class", error))?;
    bench.attempt.same("the class", results.get(slot(0)), CLASS);
    Ok(())
}

/// Keeps this thread on its last processor, so that it is not the one with the number 0 where there are more, and gives
/// the processor's number and that of its memory node.
pub(super) fn settle(bench: &Bench<'_, '_>) -> Result<(u64, u64), Ended> {
    let last = bench.attempt.kernel().facts().cpus.saturating_sub(1);
    stay_on(usize::try_from(last).unwrap_or(0))
        .map_err(|errno| Ended::could_not("stay on a processor", errno))?;
    place()
}

/// The processor and the memory node that this thread runs on.
pub(super) fn place() -> Result<(u64, u64), Ended> {
    let (mut cpu, mut node) = (0_u32, 0_u32);
    let unused = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: two places for numbers that live across the call, and null for what has no meaning since 2.6.24.
    let result = unsafe { libc::syscall(libc::SYS_getcpu, &raw mut cpu, &raw mut node, unused) };
    Errno::result(result).map_err(|errno| Ended::could_not("ask for the processor", errno))?;
    Ok((cpu.into(), node.into()))
}
