//! Members that the kernel vouches for. From 6.4 its lists say which members of a trusted pointer are trusted themselves,
//! or protected by RCU, and which of them can be null (6.4 kernel/bpf/verifier.c, `BTF_TYPE_SAFE_RCU` and the others).

use super::{ACCESS, Look, Rule, TRUSTED, argument, plain, sleepable, walk};
use crate::asm::Asm;
use crate::insn::{Reg, Size};
use crate::session::Ended;
use crate::spec::source;

/// Reads the task that is the parent of the one in R1.
fn read_parent(asm: &mut Asm, look: &Look<'_, '_>, check: bool) -> Result<(), Ended> {
    walk(asm, Reg::R1, look.off("task_struct", "real_parent")?);
    if check {
        asm.jeq_imm(Reg::R1, 0, "pass");
    }
    asm.ldx(Size::W, Reg::R1, Reg::R1, look.off("task_struct", "tgid")?);
    Ok(())
}

/// Reads the family of the socket that the member `sk` of R1 points to.
fn read_sk(asm: &mut Asm, look: &Look<'_, '_>, record: &str, check: bool) -> Result<(), Ended> {
    walk(asm, Reg::R1, look.off(record, "sk")?);
    if check {
        asm.jeq_imm(Reg::R1, 0, "pass");
    }
    asm.ldx(Size::H, Reg::R1, Reg::R1, look.off("sock", "__sk_common.skc_family")?);
    Ok(())
}

/// Acquires the parent of the current task, in an RCU section or outside of one.
fn acquire_parent(asm: &mut Asm, look: &Look<'_, '_>, in_section: bool) -> Result<(), Ended> {
    let (acquire, release) = (look.kfunc("bpf_task_acquire")?, look.kfunc("bpf_task_release")?);
    let section = if in_section {
        Some((look.kfunc("bpf_rcu_read_lock")?, look.kfunc("bpf_rcu_read_unlock")?))
    } else {
        None
    };
    if let Some((lock, _)) = section {
        asm.call_kfunc(lock, 0);
    }
    look.current(asm, Reg::R1)?;
    walk(asm, Reg::R1, look.off("task_struct", "real_parent")?);
    asm.call_kfunc(acquire, 0).mov_reg(Reg::R8, Reg::R0);
    if let Some((_, unlock)) = section {
        asm.call_kfunc(unlock, 0);
    }
    if !look.0.btf()?.task_acquire_always_gives() {
        asm.jeq_imm(Reg::R8, 0, "pass");
    }
    asm.mov_reg(Reg::R1, Reg::R8).call_kfunc(release, 0);
    Ok(())
}

/// The inode of the directory entry that is unlinked.
fn inode_of_entry(asm: &mut Asm, look: &Look<'_, '_>, check: bool) -> Result<(), Ended> {
    argument(asm, Reg::R1, 1);
    walk(asm, Reg::R1, look.off("dentry", "d_inode")?);
    if check {
        asm.jeq_imm(Reg::R1, 0, "pass");
    }
    asm.ldx(Size::DW, Reg::R1, Reg::R1, look.off("inode", "i_ino")?);
    Ok(())
}

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "rcu-member",
        asks: "May plain and sleepable programs follow members that RCU protects, task->real_parent and skb->sk, which can be null, and pass the former to bpf_task_acquire in an RCU section and outside?",
        sources: &[
            ACCESS,
            source("7.3", "kernel/bpf/verifier.c", "BTF_TYPE_SAFE_RCU"),
            source("7.3", "kernel/bpf/verifier.c", "BTF_TYPE_SAFE_RCU_OR_NULL"),
        ],
        cases: &[
            plain("plain-unchecked", "task_alloc", |asm, look| {
                argument(asm, Reg::R1, 0);
                read_parent(asm, look, false)
            }),
            plain("plain-checked", "task_alloc", |asm, look| {
                argument(asm, Reg::R1, 0);
                read_parent(asm, look, true)
            }),
            sleepable("sleepable-unchecked", "bprm_committed_creds", |asm, look| {
                look.current(asm, Reg::R1)?;
                read_parent(asm, look, false)
            }),
            plain("nullable-unchecked", "socket_sock_rcv_skb", |asm, look| {
                argument(asm, Reg::R1, 1);
                read_sk(asm, look, "sk_buff", false)
            }),
            plain("nullable-checked", "socket_sock_rcv_skb", |asm, look| {
                argument(asm, Reg::R1, 1);
                read_sk(asm, look, "sk_buff", true)
            }),
            plain("passed-on", "bprm_committed_creds", |asm, look| acquire_parent(asm, look, false)),
            sleepable("passed-on-by-sleepable", "bprm_committed_creds", |asm, look| {
                acquire_parent(asm, look, false)
            }),
            sleepable("passed-on-by-sleepable-in-a-section", "bprm_committed_creds", |asm, look| {
                acquire_parent(asm, look, true)
            }),
        ],
    },
    Rule {
        name: "nullable-trusted-member",
        asks: "May a program follow socket->sk and dentry->d_inode, which can be null, without a check?",
        sources: &[ACCESS, TRUSTED, source("7.3", "kernel/bpf/verifier.c", "BTF_TYPE_SAFE_TRUSTED_OR_NULL")],
        cases: &[
            plain("socket-sk-unchecked", "socket_bind", |asm, look| {
                argument(asm, Reg::R1, 0);
                read_sk(asm, look, "socket", false)
            }),
            plain("socket-sk-checked", "socket_bind", |asm, look| {
                argument(asm, Reg::R1, 0);
                read_sk(asm, look, "socket", true)
            }),
            plain("dentry-d_inode-unchecked", "inode_unlink", |asm, look| inode_of_entry(asm, look, false)),
            plain("dentry-d_inode-checked", "inode_unlink", |asm, look| inode_of_entry(asm, look, true)),
        ],
    },
];
