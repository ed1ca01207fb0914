//! Storage that belongs to a task, an inode or a socket.

use super::bench::{Bench, FILE, argument, keep, open_file, slot, write_file};
use super::call::Arg::{Hash, Inode, Sk, Task};
use super::null_owner;
use super::{Row, canonical, case, misuse, rust, sleepable};
use crate::asm::Asm;
use crate::aya_load::Global;
use crate::bpf::{
    self, BPF_F_NO_PREALLOC, BPF_MAP_TYPE_CGRP_STORAGE, BPF_MAP_TYPE_INODE_STORAGE, BPF_MAP_TYPE_SK_STORAGE,
    BPF_MAP_TYPE_TASK_STORAGE, MapSpec, btf_load,
};
use crate::btf_build::{BtfBuilder, SIGNED, UNSIGNED};
use crate::errno::Errno;
use crate::families::kfuncs::of_the_build;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::objects::layout::Storage;
use crate::objects::{INODE_STORAGE, Object, TASK_STORAGE};
use crate::results::Results;
use crate::rules::let_cgroups_be_freed;
use crate::session::Ended;
use crate::spec::{Source, source};
use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

const LSM: Source = source("6.0", "kernel/bpf/bpf_lsm.c", "bpf_lsm_func_proto");
const TRACING: Source = source("6.0", "kernel/trace/bpf_trace.c", "bpf_tracing_func_proto");
const ARGUMENTS: Source = source("6.0", "kernel/bpf/verifier.c", "check_reg_type");
const SLEEPABLE: Source = source("6.0", "kernel/bpf/verifier.c", "check_map_prog_compatibility");

pub(super) const ROWS: &[Row] = &[
    Row {
        helper: helper::TASK_STORAGE_GET,
        asks: "give the task's own value, which user space finds through a pidfd",
        sources: &[
            TRACING,
            source("6.0", "kernel/bpf/bpf_task_storage.c", "bpf_task_storage_get"),
            SLEEPABLE,
        ],
        cases: &[
            canonical(|bench| get(bench, TASK)),
            sleepable(|bench| get(bench, TASK)),
            rust(|bench| from_rust(bench, &TASK_STORAGE)),
            case("owner-that-is-null", null_owner::task),
            misuse("misuse-without-null-check", |bench| unchecked(bench, TASK)),
            misuse("misuse-number-for-owner", |bench| no_owner(bench, TASK)),
        ],
    },
    Row {
        helper: helper::TASK_STORAGE_DELETE,
        asks: "delete the task's own value, and answer ENOENT when there is none",
        sources: &[
            TRACING,
            source("6.0", "kernel/bpf/bpf_task_storage.c", "bpf_task_storage_delete"),
            SLEEPABLE,
        ],
        cases: &[
            canonical(|bench| delete(bench, TASK)),
            sleepable(|bench| delete(bench, TASK)),
            case("owner-that-is-null", null_owner::task),
            misuse("misuse-number-for-owner", |bench| delete_from(bench, TASK, a_number)),
            misuse("misuse-file-for-owner", |bench| delete_from(bench, TASK, the_file)),
            misuse("misuse-map-of-another-type", |bench| bench.call(&[Hash, Task])),
        ],
    },
    Row {
        helper: helper::INODE_STORAGE_GET,
        asks: "give the inode's own value, which user space finds through a file",
        sources: &[LSM, source("6.0", "kernel/bpf/bpf_inode_storage.c", "bpf_inode_storage_get"), SLEEPABLE],
        cases: &[
            canonical(|bench| get(bench, INODE)),
            sleepable(|bench| get(bench, INODE)),
            rust(|bench| from_rust(bench, &INODE_STORAGE)),
            case("owner-that-is-null", null_owner::inode),
            misuse("misuse-without-null-check", |bench| unchecked(bench, INODE)),
            misuse("misuse-number-for-owner", |bench| no_owner(bench, INODE)),
            misuse("misuse-file-for-inode", |bench| {
                let (helper, map) = (bench.helper(), map(bench, INODE)?);
                bench.load(|asm| {
                    argument(asm, Reg::R2, 0);
                    create(asm, &map, helper);
                })
            }),
        ],
    },
    Row {
        helper: helper::INODE_STORAGE_DELETE,
        asks: "delete the inode's own value, and answer ENOENT when there is none",
        sources: &[
            LSM,
            source("6.0", "kernel/bpf/bpf_inode_storage.c", "bpf_inode_storage_delete"),
            SLEEPABLE,
        ],
        cases: &[
            canonical(|bench| delete(bench, INODE)),
            sleepable(|bench| delete(bench, INODE)),
            case("owner-that-is-null", null_owner::inode),
            misuse("misuse-number-for-owner", |bench| delete_from(bench, INODE, a_number)),
            misuse("misuse-file-for-inode", |bench| delete_from(bench, INODE, the_file)),
            misuse("misuse-map-of-another-type", |bench| bench.call(&[Hash, Inode])),
        ],
    },
    Row {
        helper: helper::SK_STORAGE_GET,
        asks: "give the socket's own value, which user space finds through the socket",
        sources: &[LSM, source("6.0", "net/core/bpf_sk_storage.c", "bpf_sk_storage_get"), ARGUMENTS],
        cases: &[
            canonical(|bench| get(bench, SOCKET)),
            sleepable(|bench| get(bench, SOCKET)),
            case("owner-without-null-check", sk_unchecked),
            misuse("misuse-without-null-check", |bench| unchecked(bench, SOCKET)),
            misuse("misuse-number-for-owner", |bench| no_owner(bench, SOCKET)),
        ],
    },
    Row {
        helper: helper::SK_STORAGE_DELETE,
        asks: "delete the socket's own value, and answer ENOENT when there is none",
        sources: &[LSM, source("6.0", "net/core/bpf_sk_storage.c", "bpf_sk_storage_delete"), SLEEPABLE],
        cases: &[
            canonical(|bench| delete(bench, SOCKET)),
            sleepable(|bench| delete(bench, SOCKET)),
            misuse("misuse-number-for-owner", |bench| delete_from(bench, SOCKET, a_number)),
            misuse("misuse-file-for-owner", |bench| delete_from(bench, SOCKET, the_file)),
            misuse("misuse-map-of-another-type", |bench| bench.call_on(SOCKET.hook, &[Hash, Sk])),
        ],
    },
    Row {
        helper: helper::CGRP_STORAGE_GET,
        asks: "give the cgroup's own value, which user space finds through the cgroup's folder",
        sources: &[
            source("6.12", "kernel/bpf/helpers.c", "bpf_base_func_proto"),
            source("6.12", "kernel/bpf/bpf_cgrp_storage.c", "bpf_cgrp_storage_get"),
        ],
        cases: &[
            canonical(|bench| get(bench, CGROUP)),
            // Outside of an RCU section, which a sleepable program is not by itself, the task's cgroup is not trusted.
            super::Case { name: "misuse-without-rcu-lock", ..sleepable(|bench| get(bench, CGROUP)) },
            super::Case {
                name: "canonical-sleepable-in-an-rcu-section",
                ..sleepable(|bench| get_in_a_section(bench, CGROUP))
            },
            misuse("misuse-without-null-check", |bench| unchecked(bench, CGROUP)),
            misuse("misuse-number-for-owner", |bench| no_owner(bench, CGROUP)),
        ],
    },
    Row {
        helper: helper::CGRP_STORAGE_DELETE,
        asks: "delete the cgroup's own value, and answer ENOENT when there is none",
        sources: &[
            source("6.12", "kernel/bpf/helpers.c", "bpf_base_func_proto"),
            source("6.12", "kernel/bpf/bpf_cgrp_storage.c", "bpf_cgrp_storage_delete"),
        ],
        cases: &[
            canonical(|bench| delete(bench, CGROUP)),
            misuse("misuse-number-for-owner", |bench| delete_from(bench, CGROUP, a_number)),
            misuse("misuse-task-for-owner", |bench| delete_from(bench, CGROUP, the_task)),
        ],
    },
];

/// A kind of storage.
#[derive(Clone, Copy)]
pub(super) struct Owner {
    map_type: u32,
    hook: &'static str,
    /// Puts the owner into R2 in a program on the hook; `pass` is where to go when there is none.
    into_r2: fn(&mut Asm, &[u32]),
    /// The members that lead to the owner, whose offsets `into_r2` is given.
    members: &'static [(&'static str, &'static str)],
    get: u32,
    delete: u32,
}

pub(super) const TASK: Owner = Owner {
    map_type: BPF_MAP_TYPE_TASK_STORAGE,
    hook: "file_open",
    into_r2: |asm, _| {
        asm.call(helper::GET_CURRENT_TASK_BTF).mov_reg(Reg::R2, Reg::R0);
    },
    members: &[],
    get: helper::TASK_STORAGE_GET,
    delete: helper::TASK_STORAGE_DELETE,
};

pub(super) const INODE: Owner = Owner {
    map_type: BPF_MAP_TYPE_INODE_STORAGE,
    hook: "file_open",
    into_r2: |asm, offsets| {
        argument(asm, Reg::R2, 0);
        follow(asm, offsets);
    },
    members: &[("file", "f_inode")],
    get: helper::INODE_STORAGE_GET,
    delete: helper::INODE_STORAGE_DELETE,
};

const SOCKET: Owner = Owner {
    map_type: BPF_MAP_TYPE_SK_STORAGE,
    hook: "socket_post_create",
    into_r2: |asm, offsets| {
        argument(asm, Reg::R2, 0);
        follow(asm, offsets);
        asm.jeq_imm(Reg::R2, 0, "pass");
    },
    members: &[("socket", "sk")],
    get: helper::SK_STORAGE_GET,
    delete: helper::SK_STORAGE_DELETE,
};

const CGROUP: Owner = Owner {
    map_type: BPF_MAP_TYPE_CGRP_STORAGE,
    hook: "file_open",
    into_r2: |asm, offsets| {
        asm.call(helper::GET_CURRENT_TASK_BTF).mov_reg(Reg::R2, Reg::R0);
        follow(asm, offsets);
    },
    members: &[("task_struct", "cgroups"), ("css_set", "dfl_cgrp")],
    get: helper::CGRP_STORAGE_GET,
    delete: helper::CGRP_STORAGE_DELETE,
};

/// `R2 = R2->member`, for each member.
fn follow(asm: &mut Asm, offsets: &[u32]) {
    for &offset in offsets {
        asm.ldx(Size::DW, Reg::R2, Reg::R2, offset);
    }
}

fn offsets(bench: &Bench<'_, '_>, owner: Owner) -> Result<Vec<u32>, Ended> {
    owner.members.iter().map(|(record, member)| bench.offset(record, member)).collect()
}

/// A map of this storage, with 64 bits for each owner. Its types are compulsory
/// (6.0 kernel/bpf/bpf_local_storage.c, bpf_local_storage_map_alloc_check).
pub(super) fn map(bench: &mut Bench<'_, '_>, owner: Owner) -> Result<OwnedFd, Ended> {
    let mut types = BtfBuilder::new();
    let (key, value) = (types.int("int", 4, SIGNED), types.int("u64", 8, UNSIGNED));
    let btf = btf_load(&types.finish()).map_err(|error| Ended::could_not("load the map's BTF", error))?;
    if owner.map_type == BPF_MAP_TYPE_CGRP_STORAGE {
        let_cgroups_be_freed();
    }
    bench.attempt.map(&MapSpec {
        flags: BPF_F_NO_PREALLOC,
        btf_fd: Some(btf.as_raw_fd()),
        btf_key_type_id: key,
        btf_value_type_id: value,
        name: "storage".into(),
        ..MapSpec::new(owner.map_type, 4, 8, 0)
    })
}

/// Calls a helper for the owner in R2, to create what is not there.
pub(super) fn create(asm: &mut Asm, map: &OwnedFd, helper: u32) {
    const CREATE: i32 = 1; // BPF_LOCAL_STORAGE_GET_F_CREATE
    asm.ld_map_fd(Reg::R1, map).mov_imm(Reg::R3, 0).mov_imm(Reg::R4, CREATE).call(helper);
}

/// What user space does for the hook to be called, and the descriptor that leads to the owner.
fn act(owner: Owner, arm: crate::triggers::Arm) -> Result<OwnedFd, Errno> {
    if owner.map_type == BPF_MAP_TYPE_SK_STORAGE {
        return Ok(arm.during(|| UdpSocket::bind("127.0.0.1:0"))?.into());
    }
    let file = open_file(arm)?;
    match owner.map_type {
        BPF_MAP_TYPE_TASK_STORAGE => pidfd(),
        BPF_MAP_TYPE_CGRP_STORAGE => Ok(own_cgroup()?.into()),
        _ => Ok(file.into()),
    }
}

/// The cgroup of this process.
fn own_cgroup() -> Result<File, Errno> {
    let list = std::fs::read_to_string("/proc/self/cgroup")?;
    let path = list.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    Ok(File::open(format!("/sys/fs/cgroup{path}"))?)
}

/// This process.
fn pidfd() -> Result<OwnedFd, Errno> {
    // SAFETY: plain numbers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).map_err(|_| Errno::EOVERFLOW)?) })
}

/// What user space finds for an owner.
fn stored(map: impl AsFd, owner: impl AsFd) -> Result<u64, Errno> {
    let mut value = [0; 8];
    bpf::map_lookup(map, &owner.as_fd().as_raw_fd().to_ne_bytes(), &mut value)?;
    Ok(u64::from_ne_bytes(value))
}

/// Adds 40 to a new value and 2 to the same, found without asking for a new one.
fn get(bench: &mut Bench<'_, '_>, owner: Owner) -> Result<(), Ended> {
    let (map, offsets) = (map(bench, owner)?, offsets(bench, owner)?);
    if bench.only_execution_sleeps()? {
        return bench.load_with_map(&map, Reg::R1, Reg::R2);
    }
    let (results, fd) =
        bench.run(owner.hook, |arm| act(owner, arm), |asm| get_twice(asm, owner, &map, &offsets))?;
    same_value(bench, &results, &map, fd)
}

/// As [`get`], in an RCU section, which makes the owner one that a program that may sleep can pass on.
fn get_in_a_section(bench: &mut Bench<'_, '_>, owner: Owner) -> Result<(), Ended> {
    let (map, offsets) = (map(bench, owner)?, offsets(bench, owner)?);
    let kfunc = |bench: &Bench<'_, '_>, name| {
        let lacks =
            |_| Ended::CouldNotTell(format!("asking takes kfunc {name}, which this kernel does not have"));
        bench.attempt.kfunc(name).map_err(lacks)
    };
    let (begin, end) = (kfunc(bench, "bpf_rcu_read_lock")?, kfunc(bench, "bpf_rcu_read_unlock")?);
    let ran = bench.run(
        owner.hook,
        |arm| act(owner, arm),
        |asm| {
            asm.call_kfunc(begin, 0).label("section");
            get_twice(asm, owner, &map, &offsets);
            asm.land("section", "pass", "end of the section").call_kfunc(end, 0);
        },
    );
    let (results, fd) = match (ran, of_the_build(bench.attempt.load_log())) {
        (Err(Ended::Refused(_)), Some(why)) => return Err(bench.attempt.undecided(why)),
        (ran, _) => ran?,
    };
    same_value(bench, &results, &map, fd)
}

/// Gets the owner's value, which is made the first time, and adds to it; and again.
fn get_twice(asm: &mut Asm, owner: Owner, map: &OwnedFd, offsets: &[u32]) {
    for (index, more) in [(0, 40), (1, 2)] {
        (owner.into_r2)(asm, offsets);
        if index == 0 {
            create(asm, map, owner.get);
        } else {
            asm.ld_map_fd(Reg::R1, map).mov_imm(Reg::R3, 0).mov_imm(Reg::R4, 0).call(owner.get);
        }
        asm.jeq_imm(Reg::R0, 0, "pass").ldx(Size::DW, Reg::R1, Reg::R0, 0).add_imm(Reg::R1, more);
        asm.stx(Size::DW, Reg::R0, 0, Reg::R1);
        keep(asm, index, Reg::R1);
    }
}

/// Notes the value that the program has left, and whether it is the one that user space finds.
fn same_value(
    bench: &mut Bench<'_, '_>,
    results: &Results,
    map: &OwnedFd,
    fd: Result<OwnedFd, Errno>,
) -> Result<(), Ended> {
    let fd = fd.map_err(|errno| Ended::could_not("make the owner", errno))?;
    bench.attempt.see("the program's value", results.get(slot(1)));
    bench.attempt.same("user space's value", Ok(results.get(slot(1))), stored(map, &fd));
    Ok(())
}

fn delete(bench: &mut Bench<'_, '_>, owner: Owner) -> Result<(), Ended> {
    let (map, offsets) = (map(bench, owner)?, offsets(bench, owner)?);
    if bench.only_execution_sleeps()? {
        return bench.load_with_map(&map, Reg::R1, Reg::R2);
    }
    let (results, fd) = bench.run(
        owner.hook,
        |arm| act(owner, arm),
        |asm| {
            (owner.into_r2)(asm, &offsets);
            create(asm, &map, owner.get);
            for index in 0..2 {
                (owner.into_r2)(asm, &offsets);
                asm.ld_map_fd(Reg::R1, &map).call(owner.delete);
                keep(asm, index, Reg::R0);
            }
        },
    )?;
    let fd = fd.map_err(|errno| Ended::could_not("make the owner", errno))?;
    bench.returned("returned", results.get(slot(0)));
    bench.returned("returned the second time", results.get(slot(1)));
    bench.found("user space finds", stored(&map, &fd));
    Ok(())
}

/// Loads a program that uses the value without asking whether there is one.
fn unchecked(bench: &mut Bench<'_, '_>, owner: Owner) -> Result<(), Ended> {
    let (map, offsets) = (map(bench, owner)?, offsets(bench, owner)?);
    bench.load_on(owner.hook, |asm| {
        (owner.into_r2)(asm, &offsets);
        create(asm, &map, owner.get);
        asm.ldx(Size::DW, Reg::R1, Reg::R0, 0);
    })
}

/// Loads a program that gives a number for the owner.
fn no_owner(bench: &mut Bench<'_, '_>, owner: Owner) -> Result<(), Ended> {
    let map = map(bench, owner)?;
    bench.load_on(owner.hook, |asm| {
        asm.mov_imm(Reg::R2, 4096);
        create(asm, &map, owner.get);
    })
}

/// Loads a program on `file_open` that deletes the value of what `owner` has put into R2, which is none.
fn delete_from(bench: &mut Bench<'_, '_>, of: Owner, owner: fn(&mut Asm)) -> Result<(), Ended> {
    let (helper, map) = (bench.helper(), map(bench, of)?);
    bench.load(|asm| {
        owner(asm);
        asm.ld_map_fd(Reg::R1, &map).call(helper);
    })
}

fn a_number(asm: &mut Asm) {
    asm.mov_imm(Reg::R2, 4096);
}

fn the_file(asm: &mut Asm) {
    argument(asm, Reg::R2, 0);
}

fn the_task(asm: &mut Asm) {
    asm.call(helper::GET_CURRENT_TASK_BTF).mov_reg(Reg::R2, Reg::R0);
}

/// Loads a program that gives `socket->sk` without asking whether it is null.
fn sk_unchecked(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (map, offsets) = (map(bench, SOCKET)?, offsets(bench, SOCKET)?);
    bench.load_on(SOCKET.hook, |asm| {
        argument(asm, Reg::R2, 0);
        follow(asm, &offsets);
        create(asm, &map, SOCKET.get);
    })
}

fn from_rust(bench: &mut Bench<'_, '_>, object: &'static Object) -> Result<(), Ended> {
    const OPENINGS: u64 = 3;
    write_file()?;
    let inode = bench.offset("file", "f_inode")?;
    let mut globals = vec![Global::target()];
    if object.name == INODE_STORAGE.name {
        globals.push(Global::u32("FILE_F_INODE", inode));
    }
    // Before the program is attached: both are openings to it, that of a pidfd since pidfs (6.14
    // fs/pidfs.c, pidfs_alloc_file).
    let owner =
        if globals.len() > 1 { File::open(FILE).map(OwnedFd::from).map_err(Errno::from) } else { pidfd() };
    let owner = owner.map_err(|errno| Ended::could_not("open the owner", errno))?;
    let object = bench.attempt.attach_object(object, &globals)?;
    bench.attempt.trigger(|| (0..OPENINGS).for_each(|_| drop(File::open(FILE))));
    let seen: Storage = object.results()?;
    bench.attempt.runs(seen.runs);
    bench.attempt.see("without storage", seen.without);
    bench.attempt.see("the program's value", seen.count);
    bench.attempt.same("user space's value", Ok(seen.count), stored(object.storage("COUNTERS")?, &owner));
    Ok(())
}
