//! The kinds of storage, and the program that works on them: what it does is set from outside, round by round.

use super::ended;
use super::must;
use crate::asm::Asm;
use crate::bpf::{
    self, BPF_F_NO_PREALLOC, BPF_MAP_TYPE_CGRP_STORAGE, BPF_MAP_TYPE_INODE_STORAGE, BPF_MAP_TYPE_SK_STORAGE,
    BPF_MAP_TYPE_TASK_STORAGE, LoadError, MapSpec, btf_load,
};
use crate::btf_build::{BtfBuilder, SIGNED, UNSIGNED};
use crate::errno::Errno;
use crate::families::kfuncs::of_the_build;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, LsmProgram, PAGE, Running};
use crate::results::{FREE, Results};
use crate::rules::{Cgroup, let_cgroups_be_freed};
use crate::session::{Attempt, Ended};
use crate::spec::{Source, source};
use crate::triggers::Arm;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// What the program is to do, its input, whether it got a value, what it read or what the deletion gave, and the
/// owner's address.
const OP: i32 = FREE;
const INPUT: i32 = FREE + 8;
const PRESENT: i32 = FREE + 16;
const VALUE: i32 = FREE + 24;
const OWNER: i32 = FREE + 32;
pub(super) const FILE: &str = "/tmp/stored";
/// What even 5.10 lets sleep.
const SLEEPABLE: &str = "bprm_committed_creds";

/// What the program does in a round.
#[derive(Clone, Copy)]
pub(super) enum Op {
    /// Makes the value if there is none, reads it, and stores the input.
    Create = 1,
    /// Reads the value, if there is one.
    Get = 2,
    /// Deletes it.
    Delete = 4,
}

/// Ends an object and looks for its value.
type Leave = fn(&mut Attempt<'_>, &mut Bench) -> Result<(), Ended>;

/// A kind of storage.
pub(super) struct Kind {
    /// The first part of the probes' names.
    pub(super) name: &'static str,
    /// Whose it is.
    pub(super) of: &'static str,
    pub(super) source: Source,
    pub(super) map_type: u32,
    hook: &'static str,
    get: u32,
    delete: u32,
    /// Whether the owner is walked to by what RCU protects, which a sleepable program does in a section of its own
    /// (6.4 kernel/bpf/verifier.c, `check_ptr_to_btf_access`).
    pub(super) by_rcu: bool,
    /// Puts the owner into R8; `done` is where to go when there is none.
    owner: fn(&mut Asm, &Attempt<'_>) -> Result<(), Ended>,
    /// The object, and what makes the kernel call the hook for it.
    pub(super) object: fn() -> Result<Object, Ended>,
    pub(super) act: fn(&Object, Arm) -> Result<(), Errno>,
    /// Ends an object that has a value as far as a descriptor of it allows, and says what that leads to; the name of the
    /// case. Of an inode or a socket it ends nothing: both live as long as a descriptor of them.
    pub(super) left: (&'static str, Leave),
    /// Makes an object, has the program store a value for it, and ends it.
    pub(super) round: fn(&mut Attempt<'_>, &mut Bench) -> Result<Met, Ended>,
}

/// An object that user space knows by a descriptor.
pub(super) struct Object {
    pub(super) fd: OwnedFd,
    /// The cgroup that this process is in, for storage of cgroups.
    pub(super) cgroup: Option<Cgroup>,
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
        by_rcu: false,
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
        left: ("removed-and-still-open", ended::left_inode),
        round: ended::round_inode,
    },
    Kind {
        name: "task",
        of: "a task",
        source: source("7.3", "kernel/bpf/bpf_task_storage.c", "bpf_pid_task_storage_lookup_elem"),
        map_type: BPF_MAP_TYPE_TASK_STORAGE,
        hook: "file_open",
        get: helper::TASK_STORAGE_GET,
        delete: helper::TASK_STORAGE_DELETE,
        by_rcu: false,
        owner: |asm, _| {
            asm.call(helper::GET_CURRENT_TASK_BTF).mov_reg(Reg::R8, Reg::R0);
            Ok(())
        },
        object: || {
            std::fs::write(FILE, b"x").map_err(|error| Ended::could_not("make a file", error))?;
            Ok(Object { fd: must("open a pidfd", pidfd(std::process::id()))?, cgroup: None })
        },
        act: open,
        left: ("pidfd-of-an-ended-one", ended::left_task),
        round: ended::round_task,
    },
    Kind {
        name: "socket",
        of: "a socket",
        source: source("7.3", "net/core/bpf_sk_storage.c", "bpf_fd_sk_storage_lookup_elem"),
        map_type: BPF_MAP_TYPE_SK_STORAGE,
        hook: "socket_bind",
        get: helper::SK_STORAGE_GET,
        delete: helper::SK_STORAGE_DELETE,
        by_rcu: false,
        owner: |asm, attempt| {
            asm.ldx(Size::DW, Reg::R8, CTX, 0)
                .ldx(Size::DW, Reg::R8, Reg::R8, off(attempt, "socket", "sk")?)
                .jeq_imm(Reg::R8, 0, "done");
            Ok(())
        },
        object: || Ok(Object { fd: unix_socket()?, cgroup: None }),
        act: |object, arm| {
            // The second time it is bound already; the hook comes first.
            let _ = arm.during(|| bind(object.fd.as_raw_fd(), &UnixAddr::new_unnamed()));
            Ok(())
        },
        left: ("closed-and-open-by-another-descriptor", ended::left_socket),
        round: ended::round_socket,
    },
    Kind {
        name: "cgroup",
        of: "a cgroup",
        source: source("7.3", "kernel/bpf/bpf_cgrp_storage.c", "bpf_cgrp_storage_lookup_elem"),
        map_type: BPF_MAP_TYPE_CGRP_STORAGE,
        hook: "file_open",
        get: helper::CGRP_STORAGE_GET,
        delete: helper::CGRP_STORAGE_DELETE,
        by_rcu: true,
        owner: |asm, attempt| {
            asm.call(helper::GET_CURRENT_TASK_BTF)
                .ldx(Size::DW, Reg::R8, Reg::R0, off(attempt, "task_struct", "cgroups")?)
                .jeq_imm(Reg::R8, 0, "done")
                .ldx(Size::DW, Reg::R8, Reg::R8, off(attempt, "css_set", "dfl_cgrp")?)
                .jeq_imm(Reg::R8, 0, "done");
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
        left: ("removed-and-its-folder-still-open", ended::left_cgroup),
        round: ended::round_cgroup,
    },
];

pub(super) fn off(attempt: &Attempt<'_>, record: &str, member: &str) -> Result<i64, Ended> {
    let found = attempt.btf()?.member(record, member);
    found
        .map(|member| i64::from(member.byte_offset))
        .map_err(|error| Ended::could_not(&format!("find {record}.{member}"), error))
}

fn open(_: &Object, arm: Arm) -> Result<(), Errno> {
    arm.during(|| File::open(FILE)).map(drop).map_err(Errno::from)
}

pub(super) fn unix_socket() -> Result<OwnedFd, Ended> {
    must(
        "make a socket",
        socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map_err(Errno::from),
    )
}

pub(super) fn pidfd(pid: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes two numbers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) })
}

/// A map, an object, and the program, which the kernel runs.
pub(super) struct Bench {
    pub(super) map: OwnedFd,
    _running: Running,
    pub(super) results: Results,
    pub(super) object: Option<Object>,
    pub(super) kind: &'static Kind,
    /// Whether a sleepable program has an RCU section of its own.
    pub(super) in_section: bool,
    _btf: OwnedFd,
}

/// What a round left.
pub(super) struct Left {
    pub(super) present: bool,
    value: u64,
}

/// Of an object that the program met: where it was, and what stood in its value before the program stored one.
pub(super) struct Met {
    pub(super) address: u64,
    pub(super) before: u64,
}

impl Left {
    /// In words what the program read, where `stored` should be.
    pub(super) fn word(&self, stored: u64) -> &'static str {
        match self.present {
            true if self.value == stored => "what was stored",
            true => "SOMETHING ELSE",
            false => "nothing",
        }
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
        let section = if sleepable && kind.by_rcu { section(attempt, kind)? } else { None };
        let mut results = attempt.results()?;
        results.name_nobody();
        let (map, btf) = map(attempt, kind)?;
        let program = program(attempt, kind, &results, &map, section)?;
        let program = if sleepable { program.sleepable() } else { program };
        let running = attempt.run_lsm(&program)?;
        let object = Some((kind.object)()?);
        Ok(Self { map, _running: running, results, object, kind, in_section: section.is_some(), _btf: btf })
    }

    /// One round of the program.
    pub(super) fn run(&mut self, attempt: &mut Attempt<'_>, op: Op, input: u64) -> Result<Left, Ended> {
        self.prepare(op, input);
        let arm = Arm::new(&self.results);
        let object = self.object.as_ref().ok_or_else(|| Ended::could_not("do the trigger", "no object"))?;
        let outcome = attempt.trigger(|| (self.kind.act)(object, arm));
        must("do the trigger", outcome)?;
        Ok(self.left())
    }

    /// Says what the program is to do when it runs next.
    pub(super) fn prepare(&mut self, op: Op, input: u64) {
        self.results.set(OP, op as u64);
        self.results.set(INPUT, input);
        self.results.set(PRESENT, 0);
        self.results.set(VALUE, 0);
        self.results.set(OWNER, 0);
    }

    /// What the program has left.
    pub(super) fn left(&self) -> Left {
        Left { present: self.results.get(PRESENT) != 0, value: self.results.get(VALUE) }
    }

    /// Whom the program has just stored a value for.
    pub(super) fn met(&self) -> Result<Met, Ended> {
        match self.left() {
            Left { present: true, value } => Ok(Met { address: self.results.get(OWNER), before: value }),
            Left { present: false, .. } => Err(Ended::could_not("store a value", "the program got none")),
        }
    }

    pub(super) fn runs(&self) -> u64 {
        self.results.runs()
    }

    /// The object's descriptor as a key.
    pub(super) fn key(&self) -> [u8; 4] {
        let fd: RawFd = self.object.as_ref().map_or(-1, |object| object.fd.as_raw_fd());
        fd.to_ne_bytes()
    }

    /// The value as user space reads it.
    pub(super) fn read(&self) -> Result<u64, Errno> {
        self.read_of(&self.key())
    }

    /// The value of the object with this descriptor.
    pub(super) fn read_of(&self, key: &[u8; 4]) -> Result<u64, Errno> {
        let mut value = [0; 8];
        bpf::map_lookup(&self.map, key, &mut value)?;
        Ok(u64::from_ne_bytes(value))
    }

    /// Stores a value from user space.
    pub(super) fn write(&self, value: u64) -> Result<(), Errno> {
        bpf::map_update(&self.map, &self.key(), &value.to_ne_bytes(), bpf::BPF_ANY)
    }
}

/// A map of this kind, and the BTF of its types.
pub(super) fn map(attempt: &mut Attempt<'_>, kind: &Kind) -> Result<(OwnedFd, OwnedFd), Ended> {
    map_of(attempt, kind.map_type, 0)
}

/// A map of storage of a type, with flags besides the one that all have to have, and the BTF of its types.
pub(super) fn map_of(
    attempt: &mut Attempt<'_>,
    map_type: u32,
    flags: u32,
) -> Result<(OwnedFd, OwnedFd), Ended> {
    let mut types = BtfBuilder::new();
    let key = types.int("int", 4, SIGNED);
    let value = types.int("unsigned long long", 8, UNSIGNED);
    let btf = btf_load(&types.finish()).map_err(|error| Ended::could_not("load the map's BTF", error))?;
    let map = attempt.map(&MapSpec {
        flags: BPF_F_NO_PREALLOC | flags,
        btf_fd: Some(btf.as_raw_fd()),
        btf_key_type_id: key,
        btf_value_type_id: value,
        ..MapSpec::new(map_type, 4, 8, 0)
    })?;
    Ok((map, btf))
}

/// The kfuncs that begin and end an RCU section, if the kernel lets sleepable programs have one: 6.2 and 6.3 refuse it
/// when the kernel's BTF has no tags, as of a kernel built with gcc (6.3 kernel/bpf/verifier.c, `check_kfunc_call`).
fn section(attempt: &mut Attempt<'_>, kind: &Kind) -> Result<Option<(u32, u32)>, Ended> {
    let mut kfuncs = [0; 2];
    for (id, name) in kfuncs.iter_mut().zip(["bpf_rcu_read_lock", "bpf_rcu_read_unlock"]) {
        match attempt.kfunc(name) {
            Ok(found) => *id = found,
            Err(Ended::Absent(_)) => return Ok(None),
            Err(ended) => return Err(ended),
        }
    }
    let [lock, unlock] = kfuncs;
    let mut asm = Asm::new();
    asm.call_kfunc(lock, 0).call_kfunc(unlock, 0).mov_imm(Reg::R0, 0).exit();
    let spec = attempt.spec(&LsmProgram::raw(kind.hook, asm).sleepable())?;
    match attempt.ask(&spec, 1) {
        Ok(_) => Ok(Some((lock, unlock))),
        Err(refused) if of_the_build(&refused.log).is_some() => Ok(None),
        Err(refused) => {
            Err(Ended::could_not("ask whether a sleepable program may have an RCU section", refused))
        }
    }
}

/// Whether a kernel that has sleepable programs has none on this kind's hook: 5.10 does on one that leads to no object.
pub(super) fn never_sleeps(attempt: &mut Attempt<'_>, kind: &Kind) -> Result<bool, Ended> {
    let mut sleeps = |hook| {
        let mut asm = Asm::new();
        asm.mov_imm(Reg::R0, 0).exit();
        let spec = attempt.spec(&LsmProgram::raw(hook, asm).sleepable())?;
        match attempt.ask(&spec, 0) {
            Ok(_) => Ok(true),
            // The hook is none that may sleep, or the kernel does not know the flag (5.9 kernel/bpf/syscall.c, bpf_prog_load).
            Err(LoadError { errno: Errno::EINVAL, .. }) => Ok(false),
            Err(refused) => Err(Ended::could_not("ask whether programs of a hook may sleep", refused)),
        }
    };
    Ok(!sleeps(kind.hook)? && sleeps(SLEEPABLE)?)
}

/// Loads a sleepable program that does no more than name the map, where none can do more.
pub(super) fn name_the_map(attempt: &mut Attempt<'_>, kind: &Kind) -> Result<(), Ended> {
    let (map, _btf) = map(attempt, kind)?;
    let mut asm = Asm::new();
    asm.ld_map_fd(Reg::R1, &map).mov_imm(Reg::R0, 0).exit();
    attempt.load_lsm(&LsmProgram::raw(SLEEPABLE, asm).sleepable())?;
    Err(Ended::could_not("come to an object", "no hook that may sleep leads to one"))
}

/// What the program does is told in the page; in a `section` of RCU where that is its own to begin and end.
fn program(
    attempt: &Attempt<'_>,
    kind: &Kind,
    results: &Results,
    map: &OwnedFd,
    section: Option<(u32, u32)>,
) -> Result<LsmProgram, Ended> {
    let mut owner = Ok(());
    let program = LsmProgram::framed(kind.hook, results, |asm| {
        if let Some((lock, _)) = section {
            asm.call_kfunc(lock, 0);
        }
        owner = (kind.owner)(asm, attempt);
        asm.stx(Size::DW, PAGE, OWNER, Reg::R8)
            .ldx(Size::DW, Reg::R9, PAGE, OP)
            .jeq_imm(Reg::R9, Op::Delete as i32, "delete")
            .ld_map_fd(Reg::R1, map)
            .mov_reg(Reg::R2, Reg::R8)
            .mov_imm(Reg::R3, 0)
            .mov_reg(Reg::R4, Reg::R9)
            .and_imm(Reg::R4, 1) // BPF_LOCAL_STORAGE_GET_F_CREATE
            .call(kind.get)
            .jeq_imm(Reg::R0, 0, "done")
            .st_imm(Size::DW, PAGE, PRESENT, 1)
            .ldx(Size::DW, Reg::R1, Reg::R0, 0)
            .stx(Size::DW, PAGE, VALUE, Reg::R1)
            .jne_imm(Reg::R9, Op::Create as i32, "done")
            .ldx(Size::DW, Reg::R1, PAGE, INPUT)
            .stx(Size::DW, Reg::R0, 0, Reg::R1)
            .ja("done")
            .label("delete")
            .ld_map_fd(Reg::R1, map)
            .mov_reg(Reg::R2, Reg::R8)
            .call(kind.delete)
            .stx(Size::DW, PAGE, VALUE, Reg::R0)
            .label("done");
        if let Some((_, unlock)) = section {
            asm.call_kfunc(unlock, 0);
        }
    });
    owner.map(|()| program)
}
