//! The kinds of storage, and the program that works on them: what it does is set from outside, round by round.

use super::{key_of, must};
use crate::asm::Asm;
use crate::bpf::{
    self, BPF_F_NO_PREALLOC, BPF_MAP_TYPE_CGRP_STORAGE, BPF_MAP_TYPE_INODE_STORAGE, BPF_MAP_TYPE_SK_STORAGE,
    BPF_MAP_TYPE_TASK_STORAGE, MapSpec, btf_load,
};
use crate::btf_build::{BtfBuilder, SIGNED, UNSIGNED};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, LsmProgram, PAGE, Running};
use crate::results::{FREE, Results};
use crate::rules::{Cgroup, let_cgroups_be_freed, start_child, until};
use crate::session::{Attempt, Ended};
use crate::spec::{Source, source};
use crate::triggers::Arm;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use nix::sys::wait::waitpid;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// What the program is to do, its input, whether it got a value, what it read or what the deletion gave.
const OP: i32 = FREE;
const INPUT: i32 = FREE + 8;
const PRESENT: i32 = FREE + 16;
const VALUE: i32 = FREE + 24;
const FILE: &str = "/tmp/stored";

/// What the program does in a round.
#[derive(Clone, Copy)]
pub(super) enum Op {
    /// Makes the value if there is none, and stores the input.
    Create = 1,
    /// Reads the value, if there is one.
    Get = 2,
    /// Deletes it.
    Delete = 4,
}

/// A kind of storage.
pub(super) struct Kind {
    /// The first part of the probes' names.
    pub(super) name: &'static str,
    /// Whose it is.
    pub(super) of: &'static str,
    pub(super) source: Source,
    map_type: u32,
    hook: &'static str,
    get: u32,
    delete: u32,
    /// Puts the owner into R8.
    owner: fn(&mut Asm, &Attempt<'_>) -> Result<(), Ended>,
    /// The object, and what makes the kernel call the hook for it.
    object: fn() -> Result<Object, Ended>,
    act: fn(&Object, Arm) -> Result<(), Errno>,
    /// Ends an object that has a value, and says what is left of it.
    pub(super) end: fn(&mut Attempt<'_>, &mut Bench) -> Result<(), Ended>,
}

/// An object that user space knows by a descriptor.
pub(super) struct Object {
    fd: OwnedFd,
    /// The cgroup that this process is in, for storage of cgroups.
    cgroup: Option<Cgroup>,
}

pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "inode",
        of: "an inode",
        source: source("7.3", "kernel/bpf/bpf_inode_storage.c", "bpf_fd_inode_storage_lookup_elem"),
        map_type: BPF_MAP_TYPE_INODE_STORAGE,
        hook: "file_open",
        get: helper::INODE_STORAGE_GET,
        delete: helper::INODE_STORAGE_DELETE,
        owner: |asm, attempt| {
            asm.ldx(Size::DW, Reg::R8, CTX, 0).ldx(
                Size::DW,
                Reg::R8,
                Reg::R8,
                off(attempt, "file", "f_inode")?,
            );
            Ok(())
        },
        object: || {
            std::fs::write(FILE, b"x").map_err(|error| Ended::could_not("make a file", error))?;
            let file = File::open(FILE).map_err(|error| Ended::could_not("open a file", error))?;
            Ok(Object { fd: file.into(), cgroup: None })
        },
        act: open,
        end: end_inode,
    },
    Kind {
        name: "task",
        of: "a task",
        source: source("7.3", "kernel/bpf/bpf_task_storage.c", "bpf_pid_task_storage_lookup_elem"),
        map_type: BPF_MAP_TYPE_TASK_STORAGE,
        hook: "file_open",
        get: helper::TASK_STORAGE_GET,
        delete: helper::TASK_STORAGE_DELETE,
        owner: |asm, _| {
            asm.call(helper::GET_CURRENT_TASK_BTF).mov_reg(Reg::R8, Reg::R0);
            Ok(())
        },
        object: || {
            std::fs::write(FILE, b"x").map_err(|error| Ended::could_not("make a file", error))?;
            Ok(Object { fd: must("open a pidfd", pidfd(std::process::id()))?, cgroup: None })
        },
        act: open,
        end: end_task,
    },
    Kind {
        name: "socket",
        of: "a socket",
        source: source("7.3", "net/core/bpf_sk_storage.c", "bpf_fd_sk_storage_lookup_elem"),
        map_type: BPF_MAP_TYPE_SK_STORAGE,
        hook: "socket_bind",
        get: helper::SK_STORAGE_GET,
        delete: helper::SK_STORAGE_DELETE,
        owner: |asm, attempt| {
            asm.ldx(Size::DW, Reg::R8, CTX, 0)
                .ldx(Size::DW, Reg::R8, Reg::R8, off(attempt, "socket", "sk")?)
                .jeq_imm(Reg::R8, 0, "pass");
            Ok(())
        },
        object: || Ok(Object { fd: unix_socket()?, cgroup: None }),
        act: |object, arm| {
            // The second time it is bound already; the hook comes first.
            let _ = arm.during(|| bind(object.fd.as_raw_fd(), &UnixAddr::new_unnamed()));
            Ok(())
        },
        end: end_socket,
    },
    Kind {
        name: "cgroup",
        of: "a cgroup",
        source: source("7.3", "kernel/bpf/bpf_cgrp_storage.c", "bpf_cgrp_storage_lookup_elem"),
        map_type: BPF_MAP_TYPE_CGRP_STORAGE,
        hook: "file_open",
        get: helper::CGRP_STORAGE_GET,
        delete: helper::CGRP_STORAGE_DELETE,
        owner: |asm, attempt| {
            asm.call(helper::GET_CURRENT_TASK_BTF)
                .ldx(Size::DW, Reg::R8, Reg::R0, off(attempt, "task_struct", "cgroups")?)
                .jeq_imm(Reg::R8, 0, "pass")
                .ldx(Size::DW, Reg::R8, Reg::R8, off(attempt, "css_set", "dfl_cgrp")?)
                .jeq_imm(Reg::R8, 0, "pass");
            Ok(())
        },
        object: || {
            std::fs::write(FILE, b"x").map_err(|error| Ended::could_not("make a file", error))?;
            let_cgroups_be_freed();
            let cgroup = Cgroup::new("stored")?;
            cgroup.enter()?;
            let fd = cgroup
                .as_fd()
                .try_clone_to_owned()
                .map_err(|error| Ended::could_not("open a cgroup", error))?;
            Ok(Object { fd, cgroup: Some(cgroup) })
        },
        act: open,
        end: end_cgroup,
    },
];

fn off(attempt: &Attempt<'_>, record: &str, member: &str) -> Result<i64, Ended> {
    let found = attempt.btf()?.member(record, member);
    found
        .map(|member| i64::from(member.byte_offset))
        .map_err(|error| Ended::could_not(&format!("find {record}.{member}"), error))
}

fn open(_: &Object, arm: Arm) -> Result<(), Errno> {
    arm.during(|| File::open(FILE)).map(drop).map_err(Errno::from)
}

fn unix_socket() -> Result<OwnedFd, Ended> {
    must(
        "make a socket",
        socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map_err(Errno::from),
    )
}

fn pidfd(pid: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes two numbers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) })
}

/// A map, an object, and the program, which the kernel runs.
pub(super) struct Bench {
    pub(super) map: OwnedFd,
    _running: Running,
    results: Results,
    object: Object,
    kind: &'static Kind,
    _btf: OwnedFd,
}

/// What a round left.
pub(super) struct Left {
    pub(super) present: bool,
    value: u64,
}

impl Left {
    /// The value that the program read.
    pub(super) fn value(&self) -> Result<u64, Errno> {
        if self.present { Ok(self.value) } else { Err(Errno::ENOENT) }
    }

    /// What the helper returned.
    pub(super) fn returned(&self) -> String {
        match i32::try_from(self.value.cast_signed()) {
            Ok(errno @ i32::MIN..0) => format!("-{}", Errno::from_raw(errno)),
            Ok(_) | Err(_) => self.value.to_string(),
        }
    }
}

impl Bench {
    pub(super) fn new(
        attempt: &mut Attempt<'_>,
        kind: &'static Kind,
        sleepable: bool,
    ) -> Result<Self, Ended> {
        let mut results = attempt.results()?;
        results.name_nobody();
        let mut types = BtfBuilder::new();
        let key = types.int("int", 4, SIGNED);
        let value = types.int("unsigned long long", 8, UNSIGNED);
        let btf = btf_load(&types.finish()).map_err(|error| Ended::could_not("load the map's BTF", error))?;
        let map = attempt.map(&MapSpec {
            flags: BPF_F_NO_PREALLOC,
            btf_fd: Some(btf.as_raw_fd()),
            btf_key_type_id: key,
            btf_value_type_id: value,
            ..MapSpec::new(kind.map_type, 4, 8, 0)
        })?;
        let program = program(attempt, kind, &results, &map)?;
        let program = if sleepable { program.sleepable() } else { program };
        let running = attempt.run_lsm(&program)?;
        let object = (kind.object)()?;
        Ok(Self { map, _running: running, results, object, kind, _btf: btf })
    }

    /// One round of the program.
    pub(super) fn run(&mut self, attempt: &mut Attempt<'_>, op: Op, input: u64) -> Result<Left, Ended> {
        self.results.set(OP, op as u64);
        self.results.set(INPUT, input);
        self.results.set(PRESENT, 0);
        self.results.set(VALUE, 0);
        let arm = Arm::new(&self.results);
        let outcome = attempt.trigger(|| (self.kind.act)(&self.object, arm));
        must("do the trigger", outcome)?;
        Ok(Left { present: self.results.get(PRESENT) != 0, value: self.results.get(VALUE) })
    }

    pub(super) fn runs(&self) -> u64 {
        self.results.runs()
    }

    /// The object's descriptor as a key.
    pub(super) fn key(&self) -> [u8; 4] {
        key_of(&self.object.fd)
    }

    /// The value as user space reads it.
    pub(super) fn read(&self) -> Result<u64, Errno> {
        self.read_of(&self.key())
    }

    fn read_of(&self, key: &[u8; 4]) -> Result<u64, Errno> {
        let mut value = [0; 8];
        bpf::map_lookup(&self.map, key, &mut value)?;
        Ok(u64::from_ne_bytes(value))
    }

    /// Stores a value from user space.
    pub(super) fn write(&self, value: u64) -> Result<(), Errno> {
        bpf::map_update(&self.map, &self.key(), &value.to_ne_bytes(), bpf::BPF_ANY)
    }
}

fn program(
    attempt: &Attempt<'_>,
    kind: &Kind,
    results: &Results,
    map: &OwnedFd,
) -> Result<LsmProgram, Ended> {
    let mut owner = Ok(());
    let program = LsmProgram::framed(kind.hook, results, |asm| {
        owner = (kind.owner)(asm, attempt);
        asm.ldx(Size::DW, Reg::R9, PAGE, OP)
            .jeq_imm(Reg::R9, Op::Delete as i32, "delete")
            .ld_map_fd(Reg::R1, map)
            .mov_reg(Reg::R2, Reg::R8)
            .mov_imm(Reg::R3, 0)
            .mov_reg(Reg::R4, Reg::R9)
            .and_imm(Reg::R4, 1) // BPF_LOCAL_STORAGE_GET_F_CREATE
            .call(kind.get)
            .jeq_imm(Reg::R0, 0, "pass")
            .st_imm(Size::DW, PAGE, PRESENT, 1)
            .ldx(Size::DW, Reg::R1, Reg::R0, 0)
            .stx(Size::DW, PAGE, VALUE, Reg::R1)
            .jne_imm(Reg::R9, Op::Create as i32, "pass")
            .ldx(Size::DW, Reg::R1, PAGE, INPUT)
            .stx(Size::DW, Reg::R0, 0, Reg::R1)
            .ja("pass")
            .label("delete")
            .ld_map_fd(Reg::R1, map)
            .mov_reg(Reg::R2, Reg::R8)
            .call(kind.delete)
            .stx(Size::DW, PAGE, VALUE, Reg::R0);
    });
    owner.map(|()| program)
}

fn see(attempt: &mut Attempt<'_>, key: &str, read: &Result<u64, Errno>) {
    attempt.see(key, read.as_ref().map_or_else(|errno| errno.name(), ToString::to_string));
}

/// The file is removed and closed, and made anew.
fn end_inode(attempt: &mut Attempt<'_>, bench: &mut Bench) -> Result<(), Ended> {
    must("store a value", bench.write(9))?;
    std::fs::remove_file(FILE).map_err(|error| Ended::could_not("remove the file", error))?;
    see(attempt, "removed and still open", &bench.read());
    bench.object = (bench.kind.object)()?;
    see(attempt, "a new file of that name", &bench.read());
    Ok(())
}

/// A child has a value; it ends and is waited for.
fn end_task(attempt: &mut Attempt<'_>, bench: &mut Bench) -> Result<(), Ended> {
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
    let mut read = bench.read_of(&key);
    until(|| {
        read = bench.read_of(&key);
        read.is_err()
    });
    see(attempt, "after it was waited for, in the end", &read);
    Ok(())
}

/// A socket is closed, and another made.
fn end_socket(attempt: &mut Attempt<'_>, bench: &mut Bench) -> Result<(), Ended> {
    must("store a value", bench.write(9))?;
    see(attempt, "while it is open", &bench.read());
    let twin = bench.object.fd.try_clone().map_err(|error| Ended::could_not("duplicate a socket", error))?;
    bench.object = Object { fd: unix_socket()?, cgroup: None };
    see(attempt, "by another descriptor of it", &bench.read_of(&key_of(&twin)));
    see(attempt, "of another socket", &bench.read());
    Ok(())
}

/// The cgroup is removed, and its folder stays open.
fn end_cgroup(attempt: &mut Attempt<'_>, bench: &mut Bench) -> Result<(), Ended> {
    must("store a value", bench.write(9))?;
    see(attempt, "while it is there", &bench.read());
    Cgroup::root()?.enter()?;
    if let Some(cgroup) = &bench.object.cgroup {
        attempt.outcome("rmdir", &cgroup.remove());
    }
    let mut read = bench.read();
    until(|| {
        read = bench.read();
        read.is_err()
    });
    see(attempt, "removed and its folder still open, in the end", &read);
    Ok(())
}
