//! Who is running: process, thread, user, name and task.

use super::bench::{Bench, FILE, keep, open_file, page, preset, slot, stack};
use super::call::Arg::{Number, Stack};
use super::placement::{inode, settle};
use super::{Row, canonical, case, misuse, rust};
use crate::asm::Asm;
use crate::aya_load::Global;
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::objects::TASK_IDENTITY;
use crate::objects::layout::{COMM, TaskIdentity};
use crate::session::{Attempt, Ended};
use crate::spec::source;
use crate::triggers::Arm;
use crate::triggers::creds::become_real;
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, pipe, setresgid, setresuid};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Barrier;

pub(super) const ROWS: &[Row] = &[
    Row {
        helper: helper::GET_CURRENT_PID_TGID,
        asks: "give the process in the upper half and the thread in the lower",
        sources: &[
            source("5.9", "kernel/bpf/helpers.c", "bpf_get_current_pid_tgid"),
            source("5.9", "kernel/trace/bpf_trace.c", "bpf_tracing_func_proto"),
        ],
        cases: &[canonical(pid_tgid), case("in-a-thread", pid_tgid_in_a_thread)],
    },
    Row {
        helper: helper::GET_NS_CURRENT_PID_TGID,
        asks: "give process and thread as a pid namespace numbers them",
        sources: &[source("5.9", "kernel/bpf/helpers.c", "bpf_get_ns_current_pid_tgid")],
        cases: &[
            canonical(ns_pid_tgid),
            case("in-a-new-namespace", ns_pid_tgid_inside),
            case("of-no-namespace", |bench| ns_refusal(bench, 1, 8)),
            case("size-wrong", |bench| ns_refusal(bench, 0, 16)),
            misuse("misuse-size-beyond-the-stack", |bench| {
                bench.call(&[Number(0), Number(0), Stack(4), Number(8)])
            }),
            misuse("misuse-number-for-destination", |bench| {
                bench.call(&[Number(0), Number(0), Number(4096), Number(8)])
            }),
        ],
    },
    Row {
        helper: helper::GET_CURRENT_UID_GID,
        asks: "give the real group in the upper half and the real user in the lower",
        sources: &[source("5.9", "kernel/bpf/helpers.c", "bpf_get_current_uid_gid")],
        cases: &[canonical(uid_gid), case("in-a-user-namespace", uid_gid_inside)],
    },
    Row {
        helper: helper::GET_CURRENT_COMM,
        asks: "fill in the thread's name, and only into memory of the stated size",
        sources: &[
            source("5.9", "kernel/bpf/helpers.c", "bpf_get_current_comm"),
            source("5.9", "kernel/bpf/verifier.c", "check_helper_mem_access"),
        ],
        cases: &[
            canonical(comm),
            rust(task_identity),
            misuse("misuse-size-zero", |bench| comm_with(bench, -16, 0)),
            misuse("misuse-size-beyond-the-stack", |bench| comm_with(bench, -8, 16)),
            misuse("misuse-number-for-pointer", |bench| {
                let helper = bench.helper();
                bench.load(|asm| {
                    asm.mov_imm(Reg::R1, 4096).mov_imm(Reg::R2, 16).call(helper);
                })
            }),
        ],
    },
    Row {
        helper: helper::GET_CURRENT_TASK,
        asks: "give the address of the task, as a number that cannot be followed",
        sources: &[source("5.9", "kernel/trace/bpf_trace.c", "bpf_get_current_task")],
        cases: &[
            canonical(current_task),
            misuse("misuse-followed", |bench| {
                let (helper, tgid) = (bench.helper(), bench.offset("task_struct", "tgid")?);
                bench.load(|asm| {
                    asm.call(helper).ldx(Size::W, Reg::R1, Reg::R0, tgid);
                })
            }),
        ],
    },
    Row {
        helper: helper::GET_CURRENT_TASK_BTF,
        asks: "give the task as a pointer that can be followed and not written through",
        sources: &[
            source("6.0", "kernel/trace/bpf_trace.c", "bpf_get_current_task_btf"),
            source("6.0", "kernel/bpf/verifier.c", "check_ptr_to_btf_access"),
        ],
        cases: &[
            canonical(current_task_btf),
            misuse("misuse-written-through", |bench| {
                let (helper, tgid) = (bench.helper(), bench.offset("task_struct", "tgid")?);
                bench.load(|asm| {
                    asm.call(helper).mov_imm(Reg::R1, 0).stx(Size::W, Reg::R0, tgid, Reg::R1);
                })
            }),
        ],
    },
];

fn own_pid() -> u64 {
    u64::from(std::process::id())
}

fn pid_tgid(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let results = bench.call_on_open()?;
    let pid = own_pid();
    bench.attempt.same("process and thread", results.get(slot(0)), pid << 32 | pid);
    Ok(())
}

/// The thread is there before the program acts for its process and does nothing but open the file meanwhile.
fn pid_tgid_in_a_thread(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let helper = bench.helper();
    let gate = Barrier::new(2);
    let (results, thread) = bench.run(
        "file_open",
        |arm| {
            std::thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    gate.wait();
                    let _opened = File::open(FILE);
                    gate.wait();
                    // SAFETY: gettid takes nothing and cannot fail.
                    unsafe { libc::gettid() }
                });
                arm.during(|| {
                    gate.wait();
                    gate.wait();
                });
                thread.join()
            })
        },
        |asm| {
            asm.call(helper);
            keep(asm, 0, Reg::R0);
        },
    )?;
    let thread = thread.map_err(|_| Ended::CouldNotTell("the thread panicked".into()))?;
    bench.attempt.holds("the thread is not the process", u64::from(thread.unsigned_abs()) != own_pid());
    let user = own_pid() << 32 | u64::from(thread.unsigned_abs());
    bench.attempt.same("process and thread", results.get(slot(0)), user);
    Ok(())
}

/// The pid namespace of a process: the device and the inode of its file.
fn namespace_of(process: &str) -> Result<(u64, u64), Ended> {
    fs::metadata(format!("/proc/{process}/ns/pid"))
        .map(|found| (kernel_dev(found.dev()), found.ino()))
        .map_err(|error| Ended::could_not("look at the pid namespace", error))
}

/// Asks about a namespace; the answer and what is filled in (`struct bpf_pidns_info` has the thread first) are in two
/// slots.
fn ask_about(asm: &mut Asm, (device, inode): (u64, u64), size: i32, index: i32) {
    preset(asm, index + 1);
    asm.ld_imm64(Reg::R1, device).ld_imm64(Reg::R2, inode);
    page(asm, Reg::R3, index + 1);
    asm.mov_imm(Reg::R4, size).call(helper::GET_NS_CURRENT_PID_TGID);
    keep(asm, index, Reg::R0);
}

/// For the namespace of this process.
fn ns_pid_tgid(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let namespace = namespace_of("self")?;
    let results = bench.open(|asm| ask_about(asm, namespace, 8, 0))?;
    bench.returned("returned", results.get(slot(0)));
    bench.attempt.same("process and thread", results.get(slot(1)), own_pid() << 32 | own_pid());
    Ok(())
}

/// For a namespace whose inode has a number that is `off` by some, or with another size than that of two numbers.
fn ns_refusal(bench: &mut Bench<'_, '_>, off: u64, size: i32) -> Result<(), Ended> {
    let (device, inode) = namespace_of("self")?;
    let results = bench.open(|asm| ask_about(asm, (device, inode + off), size, 0))?;
    bench.returned("returned", results.get(slot(0)));
    bench.attempt.see("the buffer afterwards", format!("{:016x}", results.get(slot(1))));
    Ok(())
}

/// In a process that is the first of its own namespace: for that one, and for its parent's.
fn ns_pid_tgid_inside(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let mut inside = Inside::new(libc::CLONE_NEWPID)
        .map_err(|errno| Ended::could_not("make a process in a pid namespace of its own", errno))?;
    let (child, pid) = (inside.child, u64::from(inside.child.as_raw().unsigned_abs()));
    let (own, parents) = (namespace_of(&child.to_string())?, namespace_of("self")?);
    let (results, opened) = bench.run(
        "file_open",
        |arm| inside.open(arm),
        |asm| {
            ask_about(asm, own, 8, 0);
            ask_about(asm, parents, 8, 2);
            asm.call(helper::GET_CURRENT_PID_TGID);
            keep(asm, 4, Reg::R0);
        },
    )?;
    opened.map_err(|errno| Ended::could_not("open the file in a pid namespace", errno))?;
    bench.returned("returned for its own", results.get(slot(0)));
    bench.attempt.same("process and thread there", results.get(slot(1)), 1 << 32 | 1);
    bench.attempt.same("those of bpf_get_current_pid_tgid", results.get(slot(4)), pid << 32 | pid);
    bench.returned("returned for its parent's", results.get(slot(2)));
    bench.attempt.see("the buffer afterwards", format!("{:016x}", results.get(slot(3))));
    Ok(())
}

/// A child in a namespace of its own, which waits.
struct Inside {
    child: Pid,
    go: Option<OwnedFd>,
}

impl Inside {
    /// With the flag of the namespace for clone(2).
    fn new(namespace: i32) -> Result<Self, Errno> {
        let (told, go) = pipe()?;
        let flags = namespace | libc::SIGCHLD;
        // SAFETY: five numbers that ask for what fork(2) does, in a process that has one thread.
        let child =
            Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, 0_u64, 0_u64, 0_u64, 0_u64) })?;
        if child == 0 {
            drop(go);
            if nix::unistd::read(&told, &mut [0]) == Ok(1) {
                // What is root in a user namespace has to become it; elsewhere it is.
                let _became =
                    setresgid(ROOT.1, ROOT.1, ROOT.1).and_then(|()| setresuid(ROOT.0, ROOT.0, ROOT.0));
                let _opened = File::open(FILE);
            }
            // SAFETY: takes a plain number and does not return.
            unsafe { libc::_exit(0) }
        }
        let child = Pid::from_raw(i32::try_from(child).map_err(|_| Errno::EOVERFLOW)?);
        Ok(Self { child, go: Some(go) })
    }

    /// Has it open the file, and waits for its end.
    fn open(&mut self, arm: Arm) -> Result<(), Errno> {
        let Some(go) = self.go.take() else { return Ok(()) };
        let (written, ended) = arm.during_process(self.child.as_raw().unsigned_abs(), || {
            let written = nix::unistd::write(&go, &[1]);
            drop(go);
            (written, waitpid(self.child, None))
        });
        written?;
        ended?;
        Ok(())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if self.go.take().is_some() {
            let _ended = waitpid(self.child, None); // it has read the end of the pipe
        }
    }
}

/// `dev_t` as the kernel has it inside (MINORBITS is 20).
fn kernel_dev(dev: u64) -> u64 {
    let (major, minor) = (libc::major(dev), libc::minor(dev));
    u64::from(major) << 20 | u64::from(minor)
}

/// Root of a namespace.
const ROOT: (Uid, Gid) = (Uid::from_raw(0), Gid::from_raw(0));
/// Ids that are neither 0 nor equal, so that nothing can be mixed up.
const UID: u32 = 4321;
const GID: u32 = 1234;

fn uid_gid(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let helper = bench.helper();
    let (results, became) = bench.run(
        "file_open",
        |arm| {
            become_real(UID, GID)?;
            let opened = open_file(arm);
            become_real(0, 0)?;
            opened
        },
        |asm| {
            asm.call(helper);
            keep(asm, 0, Reg::R0);
        },
    )?;
    became.map_err(|errno| Ended::could_not("open the file as another user", errno))?;
    bench.attempt.same("user and group", results.get(slot(0)), u64::from(GID) << 32 | u64::from(UID));
    Ok(())
}

/// In a process that is root in a user namespace, and in the first one is not.
fn uid_gid_inside(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let helper = bench.helper();
    let mut inside = Inside::new(libc::CLONE_NEWUSER)
        .map_err(|errno| Ended::could_not("make a process in a user namespace of its own", errno))?;
    let of_child = |what| format!("/proc/{}/{what}", inside.child);
    for (map, id) in [("gid_map", GID), ("uid_map", UID)] {
        fs::write(of_child(map), format!("0 {id} 1"))
            .map_err(|error| Ended::could_not("map the ids of a namespace", error))?;
    }
    let (results, opened) = bench.run(
        "file_open",
        |arm| inside.open(arm),
        |asm| {
            preset(asm, 0);
            asm.call(helper);
            keep(asm, 0, Reg::R0);
        },
    )?;
    opened.map_err(|errno| Ended::could_not("open the file in a user namespace", errno))?;
    let (found, outside) = (results.get(slot(0)), u64::from(GID) << 32 | u64::from(UID));
    bench.attempt.see(
        "user and group",
        match found {
            0 => "as in the namespace: root",
            outside_of_it if outside_of_it == outside => "as in the first namespace",
            _ => "NEITHER as in the namespace nor as outside of it",
        },
    );
    Ok(())
}

/// A name of full length, the NUL included.
const NAME: &[u8; COMM] = b"conformance-lsm\0";

fn set_name() -> Result<(), Ended> {
    // SAFETY: the name ends with a NUL and lives longer than the call.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_NAME, NAME.as_ptr()) })
        .map(drop)
        .map_err(|errno| Ended::could_not("set the thread's name", errno))
}

fn comm(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let helper = bench.helper();
    set_name()?;
    let results = bench.open(|asm| {
        page(asm, Reg::R1, 1);
        asm.mov_imm(Reg::R2, 16).call(helper);
        keep(asm, 0, Reg::R0);
    })?;
    bench.returned("returned", results.get(slot(0)));
    bench.attempt.same("the name", results.bytes(slot(1), COMM), NAME.to_vec());
    Ok(())
}

/// Loads a call with a buffer on the stack.
fn comm_with(bench: &mut Bench<'_, '_>, at: i32, size: i32) -> Result<(), Ended> {
    let helper = bench.helper();
    bench.load(|asm| {
        stack(asm, Reg::R1, at);
        asm.mov_imm(Reg::R2, size).call(helper);
    })
}

/// What the object notes is this helper's and those of the other rows here.
fn task_identity(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    set_name()?;
    let cpu = settle(bench)?.0;
    super::bench::write_file()?;
    let object = bench.attempt.attach_object(&TASK_IDENTITY, &[Global::target()])?;
    // 0, the usual ids, is what the results hold before.
    let became = bench.attempt.trigger(|| {
        become_real(UID, GID)?;
        let _opened = File::open(FILE);
        become_real(0, 0)
    });
    became.map_err(|errno| Ended::could_not("open the file as another user", errno))?;
    let seen: TaskIdentity = object.results()?;
    let cgroup = inode("/sys/fs/cgroup")?;
    let attempt: &mut Attempt<'_> = bench.attempt;
    attempt.runs(seen.runs);
    attempt.see("bpf_get_current_comm returned", seen.comm_result);
    attempt.same("the name", seen.comm, *NAME);
    attempt.same("process and thread", seen.pid_tgid, own_pid() << 32 | own_pid());
    attempt.same("user and group", seen.uid_gid, u64::from(GID) << 32 | u64::from(UID));
    attempt.same("the processor", seen.cpu, cpu);
    attempt.same("the cgroup", seen.cgroup, cgroup);
    Ok(())
}

fn current_task(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, tgid) = (bench.helper(), bench.offset("task_struct", "tgid")?);
    let results = bench.open(|asm| {
        asm.call(helper).mov_reg(Reg::R3, Reg::R0).add_imm(Reg::R3, tgid);
        page(asm, Reg::R1, 0);
        asm.mov_imm(Reg::R2, 4).call(helper::PROBE_READ_KERNEL);
    })?;
    bench.attempt.same("the process read from that address", results.get(slot(0)), own_pid());
    Ok(())
}

fn current_task_btf(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, tgid) = (bench.helper(), bench.offset("task_struct", "tgid")?);
    let results = bench.open(|asm| {
        asm.call(helper).ldx(Size::W, Reg::R1, Reg::R0, tgid);
        keep(asm, 0, Reg::R1);
    })?;
    bench.attempt.same("the process read through the pointer", results.get(slot(0)), own_pid());
    Ok(())
}
