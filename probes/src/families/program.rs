//! The program type itself: is it there, is the LSM that runs it there, and what happens without it.

mod ftrace;

use crate::asm::Asm;
use crate::bpf::{BPF_LSM_MAC, BPF_PROG_TYPE_LSM, BPF_PROG_TYPE_SOCKET_FILTER, ProgSpec};
use crate::errno::Errno;
use crate::insn::Reg;
use crate::lsm::{LsmProgram, deny};
use crate::rules::{ROOT_CGROUP, outcome_word};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::spec::{Probe, source};
use std::fs::File;

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    vec![
        Probe::new(
            "program/type",
            "Does the kernel know BPF_PROG_TYPE_LSM, and tell it from a type that does not exist?",
            &[
                source("5.7", "kernel/bpf/syscall.c", "bpf_prog_load_check_attach"),
                source("5.7", "kernel/bpf/verifier.c", "check_attach_btf_id"),
            ],
            program_type,
        ),
        Probe::new(
            "program/lsm-list",
            "Is bpf among the active LSMs, and in which order do they stand, when lsm= names it last?",
            &[
                source("5.7", "security/security.c", "ordered_lsm_init"),
                source("5.7", "security/bpf/hooks.c", "bpf_lsm_init"),
            ],
            lsm_list,
        ),
        Probe::new(
            "program/build",
            "Which of the options on which whole groups of kfuncs and hooks hang, and which no program shows, was the kernel built with?",
            &[
                source("7.3", "kernel/cgroup/cgroup.c", "cgroup_controllers_show"),
                source("7.3", "crypto/proc.c", "crypto_init_proc"),
                source("7.3", "io_uring/io_uring.c", "SYSCALL_DEFINE2(io_uring_setup, ..)"),
            ],
            build,
        ),
        Probe::new(
            "program/lsm-absent",
            "Can a program be loaded, attached and make a denial take effect when lsm= does not name bpf?",
            &[
                source("5.7", "security/security.c", "ordered_lsm_init"),
                source("5.7", "kernel/bpf/bpf_lsm.c", "bpf_lsm_verify_prog"),
            ],
            lsm_absent,
        )
        .with_lsm("yama"),
        // A machine with nobody else in it, which is what this order of LSMs is for: on 5.9 an attachment that is refused while
        // ftrace is off leaves the kernel so that a later one crashes it.
        Probe::new(
            "program/ftrace-switched-off",
            "Does writing 0 to kernel.ftrace_enabled switch LSM programs off, or keep them from being attached?",
            &[
                source("5.19", "kernel/trace/ftrace.c", "ftrace_enable_sysctl"),
                source("5.19", "kernel/trace/ftrace.c", "direct_ops"),
                source("6.0", "kernel/bpf/trampoline.c", "register_fentry"),
                source("7.3", "kernel/trace/ftrace.c", "ftrace_enable_sysctl"),
            ],
            ftrace::switched_off,
        )
        .with_lsm("yama,bpf"),
    ]
}

fn returning_zero() -> Asm {
    let mut asm = Asm::new();
    asm.mov_imm(Reg::R0, 0).exit();
    asm
}

fn program_type(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("load", |attempt| {
        attempt.load_lsm(&LsmProgram::raw("file_open", returning_zero()))?;
        Ok(())
    })?;
    session.case("type-that-does-not-exist", |attempt| {
        attempt.load(&ProgSpec {
            prog_type: 0xffff,
            expected_attach_type: BPF_LSM_MAC,
            attach_btf_id: attempt.hook("file_open")?,
            insns: finish(&returning_zero())?,
            ..ProgSpec::default()
        })?;
        Ok(())
    })?;
    // The same that other types take, a BTF id having no part in it.
    session.case("type-that-does-not-exist-without-attach-btf-id", |attempt| {
        let insns = finish(&returning_zero())?;
        let existing = ProgSpec { prog_type: BPF_PROG_TYPE_SOCKET_FILTER, insns, ..ProgSpec::default() };
        let control = attempt.ask(&existing, 0);
        attempt.answer("BPF_PROG_TYPE_SOCKET_FILTER instead", &control);
        attempt.load(&ProgSpec { prog_type: 0xffff, ..existing })?;
        Ok(())
    })?;
    session.case("without-attach-btf-id", |attempt| {
        attempt.load(&ProgSpec {
            prog_type: BPF_PROG_TYPE_LSM,
            expected_attach_type: BPF_LSM_MAC,
            insns: finish(&returning_zero())?,
            ..ProgSpec::default()
        })?;
        Ok(())
    })
}

fn finish(asm: &Asm) -> Result<Vec<crate::insn::Insn>, Ended> {
    asm.finish().map_err(|error| Ended::could_not("assemble the program", error))
}

/// Notes whether bpf is in the kernel's list of LSMs.
///
/// # Errors
/// [`Ended::CouldNotTell`] where there is no list.
pub(super) fn see_whether_active(attempt: &mut Attempt<'_>, list: &str) -> Result<(), Ended> {
    known_order(list)?;
    attempt.holds("bpf is active", list.split(',').any(|name| name == "bpf"));
    Ok(())
}

/// Nothing, where the kernel's list of LSMs could be read: there is always one in it.
///
/// # Errors
/// [`Ended::CouldNotTell`] else.
pub(super) fn known_order(list: &str) -> Result<(), Ended> {
    if list.is_empty() {
        return Err(Ended::CouldNotTell("/sys/kernel/security/lsm cannot be read".into()));
    }
    Ok(())
}

fn lsm_list(session: &mut Session<'_>) -> Result<(), Stop> {
    let list = session.kernel().facts().lsm.clone();
    session.case("order", |attempt| {
        see_whether_active(attempt, &list)?;
        // ima and evm are LSMs since 6.9 (security/integrity/ima/ima_main.c, DEFINE_LSM) and stand behind the ordered
        // ones, LSM_ORDER_LAST.
        attempt.see("order", list.as_str());
        Ok(())
    })
}

/// By what only a kernel with the option has: a controller, a file, a system call.
fn build(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("CONFIG_MEMCG", |attempt| {
        let path = format!("{ROOT_CGROUP}/cgroup.controllers");
        let controllers = std::fs::read_to_string(&path)
            .map_err(|error| Ended::could_not("read the list of controllers", error))?;
        attempt.holds(
            "memory is among the controllers",
            controllers.split_whitespace().any(|it| it == "memory"),
        );
        Ok(())
    })?;
    session.case("CONFIG_CRYPTO", |attempt| {
        let there =
            std::fs::exists("/proc/crypto").map_err(|error| Ended::could_not("look for a file", error))?;
        attempt.holds("/proc/crypto is there", there);
        Ok(())
    })?;
    session.case("CONFIG_IO_URING", |attempt| {
        // SAFETY: the call is given no parameters to read, so that it makes nothing.
        let asked =
            Errno::result(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null::<u8>()) });
        attempt.see("io_uring_setup(2) without parameters", outcome_word(&asked.map(drop)));
        Ok(())
    })
}

fn lsm_absent(session: &mut Session<'_>) -> Result<(), Stop> {
    let list = session.kernel().facts().lsm.clone();
    session.case("order", |attempt| see_whether_active(attempt, &list))?;
    session.case("deny", deny_an_open)
}

/// With bpf out of `lsm=` the hook functions exist and programs attach to them, but no LSM calls them.
fn deny_an_open(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    let results = attempt.results()?;
    let program = LsmProgram::returning("file_open", &results, deny(Errno::EPERM));
    let _attached = attempt.attach_lsm(&program)?;
    let opened = attempt.trigger(|| File::open("/proc/self/stat").map_err(Errno::from));
    attempt.runs(results.runs());
    attempt.denial("open", &opened, Errno::EPERM);
    Ok(())
}
