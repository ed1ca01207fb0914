//! Passing pointers to helpers and kfuncs.

use super::{ARGUMENT, HELPER, KFUNC, Look, Rule, TRUSTED, argument, plain, sleepable, walk};
use crate::asm::Asm;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::session::Ended;
use crate::spec::source;

/// Room on the stack for what a helper writes.
fn room(asm: &mut Asm, dst: Reg, bytes: i32) {
    for at in (0..bytes).step_by(8) {
        asm.st_imm(Size::DW, Reg::R10, at - bytes, 0);
    }
    asm.mov_reg(dst, Reg::R10).add_imm(dst, -bytes);
}

/// `bpf_d_path(R1, .., 64)`.
fn d_path(asm: &mut Asm, look: &Look<'_, '_>) -> Result<(), Ended> {
    room(asm, Reg::R2, 64);
    asm.mov_imm(Reg::R3, 64);
    look.call(asm, helper::D_PATH)
}

/// `bpf_sock_from_file(R1)`.
fn sock_from_file(asm: &mut Asm, look: &Look<'_, '_>) -> Result<(), Ended> {
    look.call(asm, helper::SOCK_FROM_FILE)
}

/// Passes a member of `struct linux_binprm` that is a file. `file` is among the members of trusted pointers that are
/// trusted themselves, the others are not (6.4 kernel/bpf/verifier.c, `BTF_TYPE_SAFE_TRUSTED`).
fn walked_file(asm: &mut Asm, look: &Look<'_, '_>, member: &str) -> Result<(), Ended> {
    argument(asm, Reg::R1, 0);
    walk(asm, Reg::R1, look.off("linux_binprm", member)?);
    sock_from_file(asm, look)
}

/// Gets the executable of the task in R1 with `bpf_get_task_exe_file`, and puts it where there is one.
fn exe_file(asm: &mut Asm, look: &Look<'_, '_>) -> Result<(), Ended> {
    asm.call_kfunc(look.kfunc("bpf_get_task_exe_file")?, 0).jeq_imm(Reg::R0, 0, "pass");
    asm.mov_reg(Reg::R1, Reg::R0).call_kfunc(look.kfunc("bpf_put_file")?, 0);
    Ok(())
}

/// Passes where `bpf_task_acquire` gave nothing, and where it may.
fn check_task(asm: &mut Asm, look: &Look<'_, '_>) -> Result<(), Ended> {
    if !look.0.btf()?.task_acquire_always_gives() {
        asm.jeq_imm(Reg::R0, 0, "pass");
    }
    Ok(())
}

/// Acquires the task in R1 with `bpf_task_acquire` and releases it where that gave one.
fn acquire(asm: &mut Asm, look: &Look<'_, '_>) -> Result<(), Ended> {
    let (acquire, release) = (look.kfunc("bpf_task_acquire")?, look.kfunc("bpf_task_release")?);
    asm.call_kfunc(acquire, 0);
    check_task(asm, look)?;
    asm.mov_reg(Reg::R1, Reg::R0).call_kfunc(release, 0);
    Ok(())
}

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "embedded-to-helper",
        asks: "May a program pass the address of an embedded structure to a helper, and of the wrong one?",
        sources: &[HELPER, source("7.3", "kernel/trace/bpf_trace.c", "bpf_d_path_proto")],
        cases: &[
            plain("f_path", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.add_imm(Reg::R1, look.off("file", "f_path")?);
                d_path(asm, look)
            }),
            plain("the-file-itself", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                d_path(asm, look)
            }),
            plain("another-offset", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.add_imm(Reg::R1, look.off("file", "f_path")? + 8);
                d_path(asm, look)
            }),
            plain("path-argument", "inode_getattr", |asm, look| {
                argument(asm, Reg::R1, 0);
                d_path(asm, look)
            }),
        ],
    },
    Rule {
        name: "walked-to-helper",
        asks: "May a program pass to a helper that wants a file: its argument, members that kernels from 6.4 on list as trusted or do not, and what is none?",
        sources: &[HELPER, TRUSTED],
        cases: &[
            plain("argument-as-file", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                sock_from_file(asm, look)
            }),
            plain("listed-member", "bprm_committed_creds", |asm, look| walked_file(asm, look, "file")),
            sleepable("listed-member-sleepable", "bprm_committed_creds", |asm, look| {
                walked_file(asm, look, "file")
            }),
            plain("unlisted-member", "bprm_committed_creds", |asm, look| {
                walked_file(asm, look, "interpreter")
            }),
            sleepable("unlisted-member-sleepable", "bprm_committed_creds", |asm, look| {
                walked_file(asm, look, "interpreter")
            }),
            plain("number", "file_open", |asm, look| {
                asm.mov_imm(Reg::R1, 0);
                sock_from_file(asm, look)
            }),
            plain("stack", "file_open", |asm, look| {
                room(asm, Reg::R1, 8);
                sock_from_file(asm, look)
            }),
            plain("another-type", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                walk(asm, Reg::R1, look.off("file", "f_inode")?);
                sock_from_file(asm, look)
            }),
        ],
    },
    Rule {
        name: "trusted-to-kfunc",
        asks: "May a program pass its argument, and what it walked to, to bpf_task_acquire, which wants a trusted pointer until 6.3 and one that RCU protects from 6.4 on, and to bpf_get_task_exe_file, which wants a trusted one?",
        sources: &[
            KFUNC,
            TRUSTED,
            source("6.3", "kernel/bpf/helpers.c", "bpf_task_acquire"),
            source("6.4", "kernel/bpf/helpers.c", "bpf_task_acquire"),
            source("6.13", "fs/bpf_fs_kfuncs.c", "bpf_get_task_exe_file"),
        ],
        cases: &[
            plain("argument", "task_alloc", |asm, look| {
                argument(asm, Reg::R1, 0);
                acquire(asm, look)
            }),
            plain("bpf_get_current_task_btf", "file_open", |asm, look| {
                look.current(asm, Reg::R1)?;
                acquire(asm, look)
            }),
            plain("rcu-member-checked", "file_open", |asm, look| {
                look.current(asm, Reg::R1)?;
                walk(asm, Reg::R1, look.off("task_struct", "real_parent")?);
                asm.jeq_imm(Reg::R1, 0, "pass");
                acquire(asm, look)
            }),
            plain("walked-twice", "file_open", |asm, look| {
                look.current(asm, Reg::R1)?;
                walk(asm, Reg::R1, look.off("task_struct", "real_parent")?);
                asm.jeq_imm(Reg::R1, 0, "pass");
                walk(asm, Reg::R1, look.off("task_struct", "real_parent")?);
                asm.jeq_imm(Reg::R1, 0, "pass");
                acquire(asm, look)
            }),
            plain("last-wakee", "file_open", |asm, look| {
                look.current(asm, Reg::R1)?;
                walk(asm, Reg::R1, look.off("task_struct", "last_wakee")?);
                asm.jeq_imm(Reg::R1, 0, "pass");
                acquire(asm, look)
            }),
            sleepable("argument-sleepable", "task_alloc", |asm, look| {
                argument(asm, Reg::R1, 0);
                acquire(asm, look)
            }),
            plain("exe-file-of-argument", "task_alloc", |asm, look| {
                argument(asm, Reg::R1, 0);
                exe_file(asm, look)
            }),
            plain("exe-file-of-rcu-member-checked", "task_alloc", |asm, look| {
                argument(asm, Reg::R1, 0);
                walk(asm, Reg::R1, look.off("task_struct", "real_parent")?);
                asm.jeq_imm(Reg::R1, 0, "pass");
                exe_file(asm, look)
            }),
        ],
    },
    Rule {
        name: "untrusted-hook",
        asks: "On task_free and file_free_security, whose argument is being freed, may it be read, and passed to a helper or a kfunc?",
        sources: &[source("7.3", "kernel/bpf/bpf_lsm.c", "untrusted_lsm_hooks"), ARGUMENT],
        cases: &[
            plain("read", "task_free", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.ldx(Size::W, Reg::R1, Reg::R1, look.off("task_struct", "tgid")?);
                Ok(())
            }),
            plain("to-a-kfunc", "task_free", |asm, look| {
                argument(asm, Reg::R1, 0);
                acquire(asm, look)
            }),
            plain("file-read", "file_free_security", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.ldx(Size::W, Reg::R1, Reg::R1, look.off("file", "f_flags")?);
                Ok(())
            }),
            plain("file-to-a-helper", "file_free_security", |asm, look| {
                argument(asm, Reg::R1, 0);
                sock_from_file(asm, look)
            }),
            plain("file-to-a-kfunc", "file_free_security", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.add_imm(Reg::R1, look.off("file", "f_path")?);
                room(asm, Reg::R2, 64);
                asm.mov_imm(Reg::R3, 64).call_kfunc(look.kfunc("bpf_path_d_path")?, 0);
                Ok(())
            }),
        ],
    },
    Rule {
        name: "reference",
        asks: "Must an acquired object be checked for null, released once, and not used afterwards?",
        sources: &[source("7.3", "kernel/bpf/verifier.c", "check_reference_leak"), KFUNC],
        cases: &[
            plain("kept", "task_alloc", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.call_kfunc(look.kfunc("bpf_task_acquire")?, 0);
                Ok(())
            }),
            plain("not-checked", "task_alloc", |asm, look| {
                if look.0.btf()?.task_acquire_always_gives() {
                    return Err(Ended::Absent("a bpf_task_acquire that may give NULL".to_owned()));
                }
                argument(asm, Reg::R1, 0);
                asm.call_kfunc(look.kfunc("bpf_task_acquire")?, 0)
                    .mov_reg(Reg::R1, Reg::R0)
                    .call_kfunc(look.kfunc("bpf_task_release")?, 0);
                Ok(())
            }),
            plain("released-twice", "task_alloc", |asm, look| {
                let release = look.kfunc("bpf_task_release")?;
                argument(asm, Reg::R1, 0);
                asm.call_kfunc(look.kfunc("bpf_task_acquire")?, 0);
                check_task(asm, look)?;
                asm.mov_reg(Reg::R8, Reg::R0)
                    .mov_reg(Reg::R1, Reg::R8)
                    .call_kfunc(release, 0)
                    .mov_reg(Reg::R1, Reg::R8)
                    .call_kfunc(release, 0);
                Ok(())
            }),
            plain("argument-released", "task_alloc", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.call_kfunc(look.kfunc("bpf_task_release")?, 0);
                Ok(())
            }),
            plain("used-after-release", "task_alloc", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.call_kfunc(look.kfunc("bpf_task_acquire")?, 0);
                check_task(asm, look)?;
                asm.mov_reg(Reg::R8, Reg::R0)
                    .mov_reg(Reg::R1, Reg::R8)
                    .call_kfunc(look.kfunc("bpf_task_release")?, 0)
                    .ldx(Size::W, Reg::R1, Reg::R8, look.off("task_struct", "tgid")?);
                Ok(())
            }),
        ],
    },
    Rule {
        name: "memory-to-helper",
        asks: "Which memory may a program pass to a helper that writes: stack, its argument, a length of 0, too much?",
        sources: &[HELPER, source("7.3", "kernel/bpf/verifier.c", "check_mem_size_reg")],
        cases: &[
            plain("stack", "file_open", |asm, _| {
                room(asm, Reg::R1, 16);
                asm.mov_imm(Reg::R2, 16).call(helper::GET_CURRENT_COMM);
                Ok(())
            }),
            plain("stack-too-much", "file_open", |asm, _| {
                room(asm, Reg::R1, 16);
                asm.mov_imm(Reg::R2, 24).call(helper::GET_CURRENT_COMM);
                Ok(())
            }),
            plain("length-0", "file_open", |asm, _| {
                room(asm, Reg::R1, 16);
                asm.mov_imm(Reg::R2, 0).call(helper::GET_CURRENT_COMM);
                Ok(())
            }),
            plain("unknown-length", "file_open", |asm, _| {
                asm.call(helper::GET_PRANDOM_U32).mov_reg(Reg::R8, Reg::R0);
                room(asm, Reg::R1, 16);
                asm.mov_reg(Reg::R2, Reg::R8).call(helper::GET_CURRENT_COMM);
                Ok(())
            }),
            plain("its-argument", "file_open", |asm, _| {
                argument(asm, Reg::R1, 0);
                asm.mov_imm(Reg::R2, 16).call(helper::GET_CURRENT_COMM);
                Ok(())
            }),
        ],
    },
    Rule {
        name: "probe-read",
        asks: "May a program read any address with bpf_probe_read_kernel, a number as well as what it walked to?",
        sources: &[source("7.3", "kernel/trace/bpf_trace.c", "bpf_probe_read_kernel_proto")],
        cases: &[
            plain("argument", "file_open", |asm, _| {
                room(asm, Reg::R1, 8);
                asm.mov_imm(Reg::R2, 8);
                argument(asm, Reg::R3, 0);
                asm.call(helper::PROBE_READ_KERNEL);
                Ok(())
            }),
            plain("walked-to", "file_open", |asm, look| {
                room(asm, Reg::R1, 8);
                asm.mov_imm(Reg::R2, 8);
                argument(asm, Reg::R3, 0);
                walk(asm, Reg::R3, look.off("file", "f_inode")?);
                asm.call(helper::PROBE_READ_KERNEL);
                Ok(())
            }),
            plain("number", "file_open", |asm, _| {
                room(asm, Reg::R1, 8);
                asm.mov_imm(Reg::R2, 8).mov_imm(Reg::R3, 0).call(helper::PROBE_READ_KERNEL);
                Ok(())
            }),
        ],
    },
];
