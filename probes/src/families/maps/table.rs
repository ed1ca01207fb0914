//! One row per kind of map.

use super::{Gives, Needs, Row};
use crate::asm::Asm;
use crate::bpf::{
    BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_MAP_TYPE_ARENA, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_ARRAY_OF_MAPS,
    BPF_MAP_TYPE_BLOOM_FILTER, BPF_MAP_TYPE_CGROUP_ARRAY, BPF_MAP_TYPE_CGROUP_STORAGE, BPF_MAP_TYPE_CPUMAP,
    BPF_MAP_TYPE_DEVMAP, BPF_MAP_TYPE_DEVMAP_HASH, BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_HASH_OF_MAPS,
    BPF_MAP_TYPE_INSN_ARRAY, BPF_MAP_TYPE_LPM_TRIE, BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_LRU_PERCPU_HASH,
    BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE, BPF_MAP_TYPE_PERCPU_HASH,
    BPF_MAP_TYPE_PERF_EVENT_ARRAY, BPF_MAP_TYPE_PROG_ARRAY, BPF_MAP_TYPE_QUEUE,
    BPF_MAP_TYPE_REUSEPORT_SOCKARRAY, BPF_MAP_TYPE_RHASH, BPF_MAP_TYPE_RINGBUF, BPF_MAP_TYPE_SOCKHASH,
    BPF_MAP_TYPE_SOCKMAP, BPF_MAP_TYPE_STACK, BPF_MAP_TYPE_STACK_TRACE, BPF_MAP_TYPE_STRUCT_OPS,
    BPF_MAP_TYPE_USER_RINGBUF, BPF_MAP_TYPE_XSKMAP, MapSpec,
};
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::CTX;
use crate::session::{Attempt, Ended};
use std::os::fd::{AsRawFd, OwnedFd};

type Use = fn(&mut Asm, &OwnedFd, &Attempt<'_>) -> Result<(), Ended>;

/// A map that is created with the sizes that most take.
const fn row(name: &'static str, kind: u32, spec: fn(&mut MapSpec)) -> Row {
    Row {
        name,
        kind,
        spec,
        needs: Needs::Nothing,
        using: look_up,
        call: "bpf_map_lookup_elem",
        gives: Gives::Pointer,
        empty: false,
    }
}

impl Row {
    /// A map that nothing is put into.
    const fn empty(mut self) -> Self {
        self.empty = true;
        self
    }

    const fn using(mut self, call: &'static str, using: Use, gives: Gives) -> Self {
        self.using = using;
        self.call = call;
        self.gives = gives;
        self
    }

    const fn needing(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }
}

const fn usual(_: &mut MapSpec) {}

/// A key of 16 bytes of zeros on the stack, of which the map takes as many as it has.
fn key(asm: &mut Asm, dst: Reg) {
    asm.st_imm(Size::DW, Reg::R10, -8, 0)
        .st_imm(Size::DW, Reg::R10, -16, 0)
        .mov_reg(dst, Reg::R10)
        .add_imm(dst, -16);
}

/// `bpf_map_lookup_elem`.
fn look_up(asm: &mut Asm, map: &OwnedFd, _: &Attempt<'_>) -> Result<(), Ended> {
    asm.ld_map_fd(Reg::R1, map);
    key(asm, Reg::R2);
    asm.call(helper::MAP_LOOKUP_ELEM);
    Ok(())
}

/// Looks a socket up, and releases it where there is one.
fn look_up_socket(asm: &mut Asm, map: &OwnedFd, attempt: &Attempt<'_>) -> Result<(), Ended> {
    look_up(asm, map, attempt)?;
    let without = format!("without-{}", map.as_raw_fd());
    asm.mov_imm(Reg::R8, 0)
        .jeq_imm(Reg::R0, 0, &without)
        .mov_reg(Reg::R1, Reg::R0)
        .call(helper::SK_RELEASE)
        .mov_imm(Reg::R8, 1)
        .label(&without)
        .mov_reg(Reg::R0, Reg::R8);
    Ok(())
}

/// The use of maps of sockets.
const SOCKET: &str = "bpf_map_lookup_elem and bpf_sk_release";

/// Stores 7 under key 0 in the map that R1 points to.
fn store(asm: &mut Asm) {
    key(asm, Reg::R2);
    asm.st_imm(Size::DW, Reg::R10, -24, 7)
        .mov_reg(Reg::R3, Reg::R10)
        .add_imm(Reg::R3, -24)
        .mov_imm(Reg::R4, 0)
        .call(helper::MAP_UPDATE_ELEM);
}

/// Stores 7 and looks it up again.
fn update_and_look_up(asm: &mut Asm, map: &OwnedFd, attempt: &Attempt<'_>) -> Result<(), Ended> {
    asm.ld_map_fd(Reg::R1, map);
    store(asm);
    look_up(asm, map, attempt)
}

/// Looks the inner map up, and stores 7 in that.
fn store_in_inner(asm: &mut Asm, map: &OwnedFd, attempt: &Attempt<'_>) -> Result<(), Ended> {
    look_up(asm, map, attempt)?;
    let without = format!("without-{}", map.as_raw_fd());
    asm.mov_reg(Reg::R8, Reg::R0).jeq_imm(Reg::R0, 0, &without).mov_reg(Reg::R1, Reg::R0);
    store(asm);
    asm.label(&without).mov_reg(Reg::R0, Reg::R8);
    Ok(())
}

/// Leaves the address of a 7 in `dst`.
fn seven(asm: &mut Asm, dst: Reg) {
    key(asm, dst);
    asm.st_imm(Size::DW, Reg::R10, -16, 7);
}

/// `helper(map, &value, 0)`.
fn push(asm: &mut Asm, map: &OwnedFd, _: &Attempt<'_>) -> Result<(), Ended> {
    asm.ld_map_fd(Reg::R1, map);
    seven(asm, Reg::R2);
    asm.mov_imm(Reg::R3, 0).call(helper::MAP_PUSH_ELEM);
    Ok(())
}

fn ringbuf_output(asm: &mut Asm, map: &OwnedFd, _: &Attempt<'_>) -> Result<(), Ended> {
    asm.ld_map_fd(Reg::R1, map);
    seven(asm, Reg::R2);
    asm.mov_imm(Reg::R3, 8).mov_imm(Reg::R4, 0).call(helper::RINGBUF_OUTPUT);
    Ok(())
}

fn tail_call(asm: &mut Asm, map: &OwnedFd, _: &Attempt<'_>) -> Result<(), Ended> {
    asm.mov_reg(Reg::R1, CTX).ld_map_fd(Reg::R2, map).mov_imm(Reg::R3, 0).call(helper::TAIL_CALL);
    asm.mov_imm(Reg::R0, 0);
    Ok(())
}

fn perf_event_output(asm: &mut Asm, map: &OwnedFd, _: &Attempt<'_>) -> Result<(), Ended> {
    asm.mov_reg(Reg::R1, CTX).ld_map_fd(Reg::R2, map).mov_imm(Reg::R3, 0);
    key(asm, Reg::R4);
    asm.mov_imm(Reg::R5, 8).call(helper::PERF_EVENT_OUTPUT);
    Ok(())
}

fn perf_event_read(asm: &mut Asm, map: &OwnedFd, _: &Attempt<'_>) -> Result<(), Ended> {
    asm.ld_map_fd(Reg::R1, map).mov_imm(Reg::R2, 0).call(helper::PERF_EVENT_READ);
    Ok(())
}

fn get_stackid(asm: &mut Asm, map: &OwnedFd, _: &Attempt<'_>) -> Result<(), Ended> {
    asm.mov_reg(Reg::R1, CTX).ld_map_fd(Reg::R2, map).mov_imm(Reg::R3, 0).call(helper::GET_STACKID);
    Ok(())
}

fn under_cgroup(asm: &mut Asm, map: &OwnedFd, _: &Attempt<'_>) -> Result<(), Ended> {
    asm.ld_map_fd(Reg::R1, map).mov_imm(Reg::R2, 0).call(helper::CURRENT_TASK_UNDER_CGROUP);
    Ok(())
}

fn local_storage(asm: &mut Asm, map: &OwnedFd, _: &Attempt<'_>) -> Result<(), Ended> {
    asm.ld_map_fd(Reg::R1, map).mov_imm(Reg::R2, 0).call(helper::GET_LOCAL_STORAGE);
    Ok(())
}

/// Only names the map.
fn name(asm: &mut Asm, map: &OwnedFd, _: &Attempt<'_>) -> Result<(), Ended> {
    asm.ld_map_fd(Reg::R1, map).mov_imm(Reg::R0, 0);
    Ok(())
}

/// The use that is none: the program has the map's descriptor in it.
pub(super) const NAMED: &str = "no more than its name";
/// The use after which there is something to be read.
pub(super) const STORED: &str = "update and lookup";
/// The use that only programs of a cgroup have (6.0 kernel/bpf/bpf_lsm.c, bpf_lsm_func_proto).
pub(super) const OF_CGROUP: &str = "bpf_get_local_storage";

pub(super) const ROWS: &[Row] = &[
    row("hash", BPF_MAP_TYPE_HASH, usual).using(STORED, update_and_look_up, Gives::Pointer),
    row("hash-without-preallocation", BPF_MAP_TYPE_HASH, |spec| spec.flags = BPF_F_NO_PREALLOC).using(
        STORED,
        update_and_look_up,
        Gives::Pointer,
    ),
    row("array", BPF_MAP_TYPE_ARRAY, usual).using(STORED, update_and_look_up, Gives::Pointer),
    row("percpu-hash", BPF_MAP_TYPE_PERCPU_HASH, usual).using(STORED, update_and_look_up, Gives::Pointer),
    row("percpu-array", BPF_MAP_TYPE_PERCPU_ARRAY, usual).using(STORED, update_and_look_up, Gives::Pointer),
    row("lru-hash", BPF_MAP_TYPE_LRU_HASH, usual).using(STORED, update_and_look_up, Gives::Pointer),
    row("lru-percpu-hash", BPF_MAP_TYPE_LRU_PERCPU_HASH, usual).using(
        STORED,
        update_and_look_up,
        Gives::Pointer,
    ),
    row("lpm-trie", BPF_MAP_TYPE_LPM_TRIE, |spec| {
        spec.key_size = 8;
        spec.flags = BPF_F_NO_PREALLOC;
    })
    .using(STORED, update_and_look_up, Gives::Pointer),
    row("rhash", BPF_MAP_TYPE_RHASH, |spec| spec.flags = BPF_F_NO_PREALLOC).using(
        STORED,
        update_and_look_up,
        Gives::Pointer,
    ),
    row("array-of-maps", BPF_MAP_TYPE_ARRAY_OF_MAPS, |spec| spec.value_size = 4).needing(Needs::Inner).using(
        "lookup, and update of the inner map",
        store_in_inner,
        Gives::Pointer,
    ),
    row("hash-of-maps", BPF_MAP_TYPE_HASH_OF_MAPS, |spec| spec.value_size = 4).needing(Needs::Inner).using(
        "lookup, and update of the inner map",
        store_in_inner,
        Gives::Pointer,
    ),
    row("queue", BPF_MAP_TYPE_QUEUE, |spec| spec.key_size = 0).using(
        "bpf_map_push_elem",
        push,
        Gives::Number,
    ),
    row("stack", BPF_MAP_TYPE_STACK, |spec| spec.key_size = 0).using(
        "bpf_map_push_elem",
        push,
        Gives::Number,
    ),
    // So large that it is next to certain to tell a number that is in it from another.
    row("bloom-filter", BPF_MAP_TYPE_BLOOM_FILTER, |spec| (spec.key_size, spec.max_entries) = (0, 4096))
        .using("bpf_map_push_elem", push, Gives::Number),
    row("ringbuf", BPF_MAP_TYPE_RINGBUF, |spec| {
        (spec.key_size, spec.value_size, spec.max_entries) = (0, 0, 4096);
    })
    .using("bpf_ringbuf_output", ringbuf_output, Gives::Number),
    row("user-ringbuf", BPF_MAP_TYPE_USER_RINGBUF, |spec| {
        (spec.key_size, spec.value_size, spec.max_entries) = (0, 0, 4096);
    })
    .using(NAMED, name, Gives::Nothing),
    row("prog-array", BPF_MAP_TYPE_PROG_ARRAY, |spec| spec.value_size = 4).using(
        "bpf_tail_call",
        tail_call,
        Gives::Nothing,
    ),
    row("perf-event-array", BPF_MAP_TYPE_PERF_EVENT_ARRAY, |spec| spec.value_size = 4)
        .using("bpf_perf_event_output", perf_event_output, Gives::Number)
        .empty(),
    row("perf-event-array-read", BPF_MAP_TYPE_PERF_EVENT_ARRAY, |spec| spec.value_size = 4)
        .using("bpf_perf_event_read", perf_event_read, Gives::Number)
        .empty(),
    row("stack-trace", BPF_MAP_TYPE_STACK_TRACE, |spec| spec.value_size = 127 * 8).using(
        "bpf_get_stackid",
        get_stackid,
        Gives::AnyNumber,
    ),
    row("cgroup-array", BPF_MAP_TYPE_CGROUP_ARRAY, |spec| spec.value_size = 4).needing(Needs::Cgroup).using(
        "bpf_current_task_under_cgroup",
        under_cgroup,
        Gives::Number,
    ),
    row("cgroup-storage", BPF_MAP_TYPE_CGROUP_STORAGE, |spec| {
        (spec.key_size, spec.max_entries) = (16, 0);
    })
    .using(OF_CGROUP, local_storage, Gives::Pointer),
    row("percpu-cgroup-storage", BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE, |spec| {
        (spec.key_size, spec.max_entries) = (16, 0);
    })
    .using(OF_CGROUP, local_storage, Gives::Pointer),
    row("sockmap", BPF_MAP_TYPE_SOCKMAP, |spec| spec.value_size = 4)
        .using(SOCKET, look_up_socket, Gives::Pointer)
        .empty(),
    row("sockmap-named", BPF_MAP_TYPE_SOCKMAP, |spec| spec.value_size = 4).using(NAMED, name, Gives::Nothing),
    row("sockhash", BPF_MAP_TYPE_SOCKHASH, |spec| spec.value_size = 4)
        .using(SOCKET, look_up_socket, Gives::Pointer)
        .empty(),
    row("reuseport-sockarray", BPF_MAP_TYPE_REUSEPORT_SOCKARRAY, usual).empty(),
    row("devmap", BPF_MAP_TYPE_DEVMAP, |spec| spec.value_size = 4).empty(),
    row("devmap-hash", BPF_MAP_TYPE_DEVMAP_HASH, |spec| spec.value_size = 4).empty(),
    row("cpumap", BPF_MAP_TYPE_CPUMAP, |spec| spec.value_size = 4).empty(),
    row("xskmap", BPF_MAP_TYPE_XSKMAP, |spec| spec.value_size = 4).empty(),
    row("struct-ops", BPF_MAP_TYPE_STRUCT_OPS, |spec| spec.max_entries = 1)
        .needing(Needs::KernelType("bpf_struct_ops_tcp_congestion_ops"))
        .using(NAMED, name, Gives::Nothing),
    row("arena", BPF_MAP_TYPE_ARENA, |spec| {
        (spec.key_size, spec.value_size, spec.max_entries) = (0, 0, 4);
        spec.flags = BPF_F_MMAPABLE;
        spec.map_extra = 0x1000_0000_0000;
    })
    .using(NAMED, name, Gives::Nothing),
    // Of the program that names it; its places, all 0, are those of the program's first instruction.
    row("insn-array", BPF_MAP_TYPE_INSN_ARRAY, |spec| spec.value_size = 16).needing(Needs::Frozen).using(
        NAMED,
        name,
        Gives::Nothing,
    ),
    row("hash-with-btf", BPF_MAP_TYPE_HASH, usual).needing(Needs::Btf).using(
        STORED,
        update_and_look_up,
        Gives::Pointer,
    ),
];
