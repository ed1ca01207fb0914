//! Helpers of programs of a cgroup: the cgroup's own value, the call's errno, and options of the socket at hand.

use super::bench::{Bench, argument, keep, page, slot, stack};
use super::call::Arg::{Argument, Hash, Number, Page, Sk, Stack, Unknown, Untouched, Unwritten};
use super::callable::on_hooks_of_cgroups;
use super::{Row, of_cgroup, sockopts};
use crate::asm::Asm;
use crate::bpf::{self, BPF_LSM_CGROUP, BPF_MAP_TYPE_CGROUP_STORAGE, LinkSpec, MapSpec};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::LsmProgram;
use crate::record::Phase;
use crate::results::Results;
use crate::rules::{Cgroup, ROOT_CGROUP};
use crate::session::{Attempt, Ended};
use crate::spec::{Source, source};
use crate::triggers::Arm;
use std::ffi::CString;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

const LSM: Source = source("7.1", "kernel/bpf/bpf_lsm.c", "bpf_lsm_func_proto");
const COMMON: Source = source("7.1", "kernel/bpf/cgroup.c", "cgroup_common_func_proto");

pub(super) const ROWS: &[Row] = &[
    Row {
        helper: helper::GET_LOCAL_STORAGE,
        asks: "give the value of the program's cgroup, which user space finds by the cgroup's id",
        sources: &[COMMON, source("7.1", "kernel/bpf/cgroup.c", "bpf_get_local_storage")],
        cases: &[
            of_cgroup("canonical", local_storage),
            of_cgroup("misuse-map-of-another-type", |bench| bench.call(&[Hash, Number(0)])),
            of_cgroup("misuse-number-for-map", |bench| bench.call(&[Number(0), Number(0)])),
            of_cgroup("misuse-flags", |bench| {
                let (helper, map) = (bench.helper(), storage(bench)?);
                bench.load(|asm| {
                    asm.ld_map_fd(Reg::R1, &map).mov_imm(Reg::R2, 1).call(helper);
                })
            }),
        ],
    },
    Row {
        helper: helper::GET_RETVAL,
        asks: "give the errno that the call would return so far",
        sources: &[COMMON, source("7.1", "kernel/bpf/cgroup.c", "bpf_get_retval")],
        cases: &[of_cgroup("canonical", retval)],
    },
    Row {
        helper: helper::SET_RETVAL,
        asks: "set the errno that user space sees",
        sources: &[COMMON, source("7.1", "kernel/bpf/cgroup.c", "bpf_set_retval")],
        cases: &[
            of_cgroup("canonical", retval),
            of_cgroup("misuse-on-a-void-hook", |bench| bench.call_on(ACCEPTED, &[Number(0)])),
            of_cgroup("number-not-bounded", |bench| bench.call_on(CREATED, &[Unknown])),
        ],
    },
    Row {
        helper: helper::SETSOCKOPT,
        asks: "set an option of the hook's socket that user space reads back, on the hooks where that is safe",
        sources: &[
            LSM,
            source("7.1", "net/core/filter.c", "bpf_unlocked_sk_setsockopt"),
            source("7.3", "net/core/filter.c", "__bpf_setsockopt"),
        ],
        cases: &[
            of_cgroup("canonical", |bench| options(bench, &ON_A_NEW_SOCKET)),
            of_cgroup("on-a-locked-socket", |bench| options(bench, &ON_A_LOCKED_SOCKET)),
            of_cgroup("which-options", sockopts::options),
            of_cgroup("hooks", hooks),
            of_cgroup("misuse-number-for-socket", |bench| {
                bench.call_on(CREATED, &[Number(4096), Number(1), Number(12), Page, Number(4)])
            }),
            of_cgroup("misuse-size-beyond-the-stack", |bench| {
                bench.call_on(CREATED, &[Sk, Number(1), Number(12), Stack(4), Number(8)])
            }),
            of_cgroup("value-not-written", |bench| {
                bench.call_on(CREATED, &[Sk, Number(1), Number(12), Unwritten(4), Number(4)])
            }),
            of_cgroup("value-on-untouched-stack", |bench| {
                bench.call_on(CREATED, &[Sk, Number(1), Number(12), Untouched(4), Number(4)])
            }),
        ],
    },
    Row {
        helper: helper::GETSOCKOPT,
        asks: "give an option of the hook's socket that user space reads too, on the hooks where that is safe",
        sources: &[LSM, source("7.1", "net/core/filter.c", "bpf_unlocked_sk_getsockopt")],
        cases: &[
            of_cgroup("canonical", |bench| options(bench, &ON_A_NEW_SOCKET)),
            of_cgroup("on-a-locked-socket", |bench| options(bench, &ON_A_LOCKED_SOCKET)),
            of_cgroup("hooks", hooks),
            of_cgroup("misuse-socket-of-the-file", |bench| {
                bench.call_on(CREATED, &[Argument(0), Number(1), Number(12), Page, Number(4)])
            }),
            of_cgroup("misuse-size-beyond-the-stack", |bench| {
                bench.call_on(CREATED, &[Sk, Number(1), Number(12), Stack(4), Number(8)])
            }),
        ],
    },
];

/// A hook for each new socket, which nobody else knows yet.
pub(super) const CREATED: &str = "socket_post_create";
/// A hook for each accepted connection, whose socket is locked; it returns nothing.
const ACCEPTED: &str = "sock_graft";

/// Hooks that are called for a socket, some with it locked.
const OF_SOCKETS: &[&str] = &[
    "socket_post_create",
    "socket_socketpair",
    "socket_bind",
    "socket_connect",
    "socket_listen",
    "socket_accept",
    "socket_sendmsg",
    "socket_recvmsg",
    "socket_getsockopt",
    "socket_setsockopt",
    "socket_shutdown",
    "socket_sock_rcv_skb",
    "sk_alloc_security",
    "sk_clone_security",
    "sk_free_security",
    "sock_graft",
    "inet_conn_request",
    "inet_csk_clone",
    "inet_conn_established",
];

/// Asks on which of them the helper may be called.
fn hooks(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let helper = bench.helper();
    on_hooks_of_cgroups(bench.attempt, helper, OF_SOCKETS)
}

/// Runs `body` in a program of a cgroup that this process is in, on `hook`, for what `act` does while armed. Also
/// returns the cgroup's id.
fn run<T>(
    bench: &mut Bench<'_, '_>,
    hook: &str,
    act: impl FnOnce(Arm) -> T,
    body: impl FnOnce(&mut Asm),
) -> Result<(Results, T, u64), Ended> {
    let (results, program) = bench.load_for(hook, body)?;
    keep_shim(bench.attempt, hook)?;
    let cgroup = Cgroup::new("helpers")?;
    cgroup.enter()?;
    let link = attach(bench.attempt, &program, &cgroup)?;
    let done = bench.attempt.trigger(|| act(Arm::new(&results)));
    bench.attempt.runs(results.runs());
    let id = cgroup.id()?;
    drop(link);
    Ok((results, done, id))
}

pub(super) fn attach(
    attempt: &mut Attempt<'_>,
    program: &OwnedFd,
    cgroup: &impl AsFd,
) -> Result<OwnedFd, Ended> {
    let spec = LinkSpec { target: Some(cgroup.as_fd()), attach_type: BPF_LSM_CGROUP, ..LinkSpec::default() };
    attempt.calls(Phase::Attach, bpf::link_create(program, &spec))
}

/// Leaves a program that allows on an empty cgroup, under a name in the BPF file system: while a hook has any program
/// of a cgroup, others come and go without a change to its trampoline, which is what takes time.
pub(super) fn keep_shim(attempt: &mut Attempt<'_>, hook: &str) -> Result<(), Ended> {
    let name = format!("/sys/fs/bpf/helpers-{hook}");
    if fs::exists(&name).unwrap_or(false) {
        return Ok(());
    }
    let pin = CString::new(name).map_err(|error| Ended::could_not("name the kept program", error))?;
    let folder = format!("{ROOT_CGROUP}/kept");
    fs::create_dir_all(&folder).map_err(|error| Ended::could_not("make a cgroup", error))?;
    let cgroup = File::open(&folder).map_err(|error| Ended::could_not("open a cgroup", error))?;
    let mut asm = Asm::new();
    asm.mov_imm(Reg::R0, 1).exit();
    let program = attempt.load_lsm(&LsmProgram::of_cgroup(hook, asm))?;
    let link = attach(attempt, &program, &cgroup)?;
    attempt.calls(Phase::Attach, bpf::obj_pin(&link, &pin))
}

/// Makes a socket.
fn create(arm: Arm) -> Result<OwnedFd, Errno> {
    Ok(arm.during(|| UdpSocket::bind("127.0.0.1:0"))?.into())
}

/// Accepts a connection.
fn accept(arm: Arm) -> Result<OwnedFd, Errno> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let _client = TcpStream::connect(listener.local_addr()?)?;
    Ok(arm.during(|| listener.accept())?.0.into())
}

/// A map of 64 bits for each cgroup and attach type (include/uapi/linux/bpf.h, `struct bpf_cgroup_storage_key`).
fn storage(bench: &mut Bench<'_, '_>) -> Result<OwnedFd, Ended> {
    bench.attempt.map(&MapSpec::new(BPF_MAP_TYPE_CGROUP_STORAGE, 16, 8, 0).named("storage"))
}

/// Adds 42 to the cgroup's value.
fn local_storage(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, map) = (bench.helper(), storage(bench)?);
    let mut found = Err(Errno::ENOENT);
    let act = |arm: Arm| {
        let made = create(arm);
        found = only_value(&map);
        made
    };
    let (results, made, id) = run(bench, CREATED, act, |asm| {
        asm.ld_map_fd(Reg::R1, &map).mov_imm(Reg::R2, 0).call(helper);
        asm.ldx(Size::DW, Reg::R1, Reg::R0, 0).add_imm(Reg::R1, 42).stx(Size::DW, Reg::R0, 0, Reg::R1);
        keep(asm, 0, Reg::R1);
    })?;
    made.map_err(|errno| Ended::could_not("make a socket", errno))?;
    bench.attempt.see("the program's value", results.get(slot(0)));
    bench.attempt.same("user space's value", Ok(results.get(slot(0))), found.map(|(_, value)| value));
    bench.attempt.holds("under the id of the cgroup", found.is_ok_and(|(of, _)| of == id));
    Ok(())
}

/// The cgroup and the value of the one element of the map.
fn only_value(map: &OwnedFd) -> Result<(u64, u64), Errno> {
    let (mut key, mut value) = ([0; 16], [0; 8]);
    bpf::map_next_key(map, None, &mut key)?;
    bpf::map_lookup(map, &key, &mut value)?;
    let id = key.first_chunk::<8>().map_or(0, |id| u64::from_ne_bytes(*id));
    Ok((id, u64::from_ne_bytes(value)))
}

/// Sets an errno that is not the usual one, and asks for it before and after.
fn retval(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (results, made, _) = run(bench, CREATED, create, |asm| {
        asm.call(helper::GET_RETVAL);
        keep(asm, 0, Reg::R0);
        asm.mov_imm(Reg::R1, -Errno::EBUSY.raw()).call(helper::SET_RETVAL);
        keep(asm, 1, Reg::R0);
        asm.call(helper::GET_RETVAL);
        keep(asm, 2, Reg::R0);
    })?;
    bench.returned("bpf_get_retval returned", results.get(slot(0)));
    bench.returned("bpf_set_retval returned", results.get(slot(1)));
    bench.returned("bpf_get_retval returned afterwards", results.get(slot(2)));
    bench.attempt.outcome("user space sees", &made);
    Ok(())
}

/// A hook on which options may be set: how it is called, and how a program on it finds the socket.
struct Place {
    hook: &'static str,
    act: fn(Arm) -> Result<OwnedFd, Errno>,
    through_socket: bool,
}

const ON_A_NEW_SOCKET: Place = Place { hook: CREATED, act: create, through_socket: true };
const ON_A_LOCKED_SOCKET: Place = Place { hook: ACCEPTED, act: accept, through_socket: false };

/// A priority that no socket has by itself.
const PRIORITY: i32 = 5;

/// Calls either helper for `SO_PRIORITY` and `SO_SNDBUF`, with a size that is wrong and for an option that there is
/// not.
fn options(bench: &mut Bench<'_, '_>, place: &Place) -> Result<(), Ended> {
    let (helper, sk) = (bench.helper(), bench.offset("socket", "sk")?);
    let setting = helper == helper::SETSOCKOPT;
    let option = if setting { libc::SO_PRIORITY } else { libc::SO_SNDBUF };
    let (results, made, _) = run(bench, place.hook, place.act, |asm| {
        argument(asm, Reg::R8, 0);
        if place.through_socket {
            asm.ldx(Size::DW, Reg::R8, Reg::R8, sk).jeq_imm(Reg::R8, 0, "pass");
        }
        asm.st_imm(Size::W, crate::lsm::PAGE, slot(1), PRIORITY);
        for (index, option, size) in [(0, option, 4), (2, option, 2), (3, 4095, 4)] {
            asm.mov_reg(Reg::R1, Reg::R8).mov_imm(Reg::R2, libc::SOL_SOCKET).mov_imm(Reg::R3, option);
            if index == 0 {
                page(asm, Reg::R4, 1);
            } else {
                asm.st_imm(Size::W, Reg::R10, -4, PRIORITY);
                stack(asm, Reg::R4, -4);
            }
            asm.mov_imm(Reg::R5, size).call(helper);
            keep(asm, index, Reg::R0);
        }
    })?;
    let made = made.map_err(|errno| Ended::could_not("make the socket", errno))?;
    bench.returned("returned", results.get(slot(0)));
    bench.attempt.same("the option", Ok(results.get(slot(1))), option_of(&made, option));
    bench.returned("returned for a size that is wrong", results.get(slot(2)));
    bench.returned("returned for an option that there is not", results.get(slot(3)));
    Ok(())
}

/// What user space reads of an option.
fn option_of(socket: &OwnedFd, option: i32) -> Result<u64, Errno> {
    let (mut value, mut length) = (0_u32, libc::socklen_t::try_from(size_of::<u32>()).unwrap_or(0));
    // SAFETY: the option is of 4 bytes, which is what the address and the length say.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    Errno::result(result).map(|_| u64::from(value))
}
