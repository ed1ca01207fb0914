//! Kfuncs about the memory of a cgroup (7.0).

use super::body::Body;
use super::row::{GOT, KEPT, Row, kfunc};
use crate::insn::Reg;

const MEMORY: &str = "mm/bpf_memcontrol.c";

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    vec![
        root(),
        of_cgroup(),
        put(),
        // The root is not accounted itself, and nothing has happened to any cgroup of this machine.
        number("bpf_mem_cgroup_memory_events", "MEMCG_OOM_KILL").gives(0).also("no-such-event", -1, |b| {
            b.mov_imm(Reg::R2, 1000);
        }),
        number("bpf_mem_cgroup_vm_events", "PGMAJFAULT").also("no-such-event", -1, |b| {
            b.mov_imm(Reg::R2, 100_000);
        }),
        number("bpf_mem_cgroup_page_state", "NR_FILE_DIRTY").also("no-such-counter", -1, |b| {
            b.mov_imm(Reg::R2, 100_000);
        }),
        number("bpf_mem_cgroup_usage", "MEMCG_OOM"),
        of_root(kfunc("bpf_mem_cgroup_flush_stats", "7.3", MEMORY).sleepable()),
    ]
}

/// `KEPT = the memory of the root cgroup`.
fn root_memory(b: &mut Body<'_>) {
    b.kfunc("bpf_get_root_mem_cgroup");
    b.jeq_imm(Reg::R0, 0, "pass").mov_reg(KEPT, Reg::R0);
}

/// A kfunc whose first argument is the memory of the root cgroup.
fn of_root(row: Row) -> Row {
    row.takes(|b| {
        root_memory(b);
        b.mov_reg(Reg::R1, KEPT);
    })
    .finally(|b| b.release("bpf_put_mem_cgroup", KEPT))
    .not_null(Reg::R1)
    .spoilt("misuse-another-type", |b| b.context_argument(Reg::R1, 0))
}

/// A kfunc that gives a number of a kind.
fn number(name: &'static str, kind: &'static str) -> Row {
    of_root(kfunc(name, "7.3", MEMORY)).takes(move |b| {
        root_memory(b);
        b.enumerator(Reg::R2, kind);
        b.mov_reg(Reg::R1, KEPT);
    })
}

/// Leaves the id of the cgroup of what is in [`GOT`].
fn leave_id(b: &mut Body<'_>) {
    b.mov_reg(Reg::R1, GOT);
    b.follow(Reg::R1, "mem_cgroup", "css.cgroup");
    b.follow(Reg::R1, "cgroup", "kn");
    b.follow(Reg::R1, "kernfs_node", "id");
    b.leave(0, Reg::R1);
}

fn root_id() -> Option<u64> {
    super::row::inode("/sys/fs/cgroup")
}

fn root() -> Row {
    kfunc("bpf_get_root_mem_cgroup", "7.3", MEMORY).owned("bpf_put_mem_cgroup").then(leave_id).leaves(
        "cgroup id",
        0,
        root_id,
    )
}

fn of_cgroup() -> Row {
    kfunc("bpf_get_mem_cgroup", "7.3", MEMORY)
        .takes(|b| {
            b.current_cgroup(Reg::R1);
            b.member_address(Reg::R1, "cgroup", "self");
        })
        .owned("bpf_put_mem_cgroup")
        .then(leave_id)
        .leaves("cgroup id", 0, root_id)
        .rcu()
        .not_null(Reg::R1)
}

fn put() -> Row {
    kfunc("bpf_put_mem_cgroup", "7.3", MEMORY)
        .releases()
        .takes(|b| {
            b.kfunc("bpf_get_root_mem_cgroup");
            b.jeq_imm(Reg::R0, 0, "pass").mov_reg(Reg::R1, Reg::R0);
        })
        .wrong("misuse-of-another-type", |b| {
            b.current(Reg::R1);
            b.acquire_task();
            b.mov_reg(Reg::R1, Reg::R0);
            b.kfunc("bpf_put_mem_cgroup");
        })
}
