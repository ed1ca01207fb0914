//! Following pointers, and reading and writing what they point to.

use super::{ACCESS, ACCESS_OLD, ARGUMENT, Rule, TRUSTED, WALK, argument, plain, sleepable, walk, with_page};
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, PAGE};
use crate::results::FREE;
use crate::spec::source;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "read-member",
        asks: "May a program read a member of its argument directly, of every width, and in part?",
        sources: &[ACCESS, ACCESS_OLD, WALK],
        cases: &[
            plain("a-number", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.ldx(Size::W, Reg::R1, Reg::R1, look.off("file", "f_flags")?);
                Ok(())
            }),
            plain("a-byte-of-a-number", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.ldx(Size::B, Reg::R1, Reg::R1, look.off("file", "f_flags")?);
                Ok(())
            }),
            plain("two-bytes-of-a-number", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.ldx(Size::H, Reg::R1, Reg::R1, look.off("file", "f_flags")?);
                Ok(())
            }),
            plain("a-number-of-eight-bytes", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.ldx(Size::DW, Reg::R1, Reg::R1, look.off("file", "f_pos")?);
                Ok(())
            }),
            plain("half-of-a-pointer", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.ldx(Size::W, Reg::R1, Reg::R1, look.off("file", "f_inode")?);
                Ok(())
            }),
            plain("across-two-members", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.ldx(Size::DW, Reg::R1, Reg::R1, look.off("file", "f_inode")? + 4);
                Ok(())
            }),
        ],
    },
    Rule {
        name: "walk",
        asks: "May a program walk from its argument through one, two and three pointers?",
        sources: &[WALK, ACCESS, ACCESS_OLD],
        cases: &[
            plain("one", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                walk(asm, Reg::R1, look.off("file", "f_inode")?);
                walk(asm, Reg::R1, look.off("inode", "i_ino")?);
                Ok(())
            }),
            plain("two", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                walk(asm, Reg::R1, look.off("file", "f_inode")?);
                walk(asm, Reg::R1, look.off("inode", "i_sb")?);
                walk(asm, Reg::R1, look.off("super_block", "s_magic")?);
                Ok(())
            }),
            plain("three", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                walk(asm, Reg::R1, look.off("file", "f_inode")?);
                walk(asm, Reg::R1, look.off("inode", "i_sb")?);
                walk(asm, Reg::R1, look.off("super_block", "s_type")?);
                asm.ldx(Size::W, Reg::R1, Reg::R1, look.off("file_system_type", "fs_flags")?);
                Ok(())
            }),
            // On a hook that may sleep since 5.10.
            sleepable("three-sleepable", "bprm_committed_creds", |asm, look| {
                argument(asm, Reg::R1, 0);
                walk(asm, Reg::R1, look.off("linux_binprm", "file")?);
                walk(asm, Reg::R1, look.off("file", "f_inode")?);
                walk(asm, Reg::R1, look.off("inode", "i_sb")?);
                walk(asm, Reg::R1, look.off("super_block", "s_magic")?);
                Ok(())
            }),
        ],
    },
    Rule {
        name: "embedded-structure",
        asks: "May a program read a member of a structure embedded in its argument, and walk on from there?",
        sources: &[WALK, TRUSTED],
        cases: &[
            plain("f_path-dentry", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                walk(asm, Reg::R1, look.off("file", "f_path.dentry")?);
                asm.ldx(Size::W, Reg::R1, Reg::R1, look.off("dentry", "d_flags")?);
                Ok(())
            }),
            plain("address-of-f_path-then-dentry", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.add_imm(Reg::R1, look.off("file", "f_path")?);
                walk(asm, Reg::R1, look.off("path", "dentry")?);
                asm.ldx(Size::W, Reg::R1, Reg::R1, look.off("dentry", "d_flags")?);
                Ok(())
            }),
            plain("uid-in-a-structure-of-one", "bprm_committed_creds", |asm, look| {
                argument(asm, Reg::R1, 0);
                walk(asm, Reg::R1, look.off("linux_binprm", "cred")?);
                asm.ldx(Size::W, Reg::R1, Reg::R1, look.off("cred", "uid.val")?);
                Ok(())
            }),
        ],
    },
    Rule {
        name: "union-member",
        asks: "May a program read a pointer out of a union, and follow it?",
        sources: &[WALK],
        cases: &[plain("inode-i_pipe", "file_open", |asm, look| {
            argument(asm, Reg::R1, 0);
            walk(asm, Reg::R1, look.off("file", "f_inode")?);
            walk(asm, Reg::R1, look.off("inode", "i_pipe")?);
            asm.ldx(Size::W, Reg::R1, Reg::R1, look.off("pipe_inode_info", "readers")?);
            Ok(())
        })],
    },
    Rule {
        name: "array-member",
        asks: "May a program read elements of an array in a structure, the last one, one behind it that is another member or behind the structure, and one by a number?",
        sources: &[WALK],
        cases: &[
            plain("first", "task_alloc", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.ldx(Size::B, Reg::R1, Reg::R1, look.off("task_struct", "comm")?);
                Ok(())
            }),
            plain("last", "task_alloc", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.ldx(Size::B, Reg::R1, Reg::R1, look.off("task_struct", "comm")? + 15);
                Ok(())
            }),
            plain("eight-at-once", "task_alloc", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.ldx(Size::DW, Reg::R1, Reg::R1, look.off("task_struct", "comm")?);
                Ok(())
            }),
            // An array of numbers follows.
            plain("behind-the-last", "sb_kern_mount", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.ldx(Size::B, Reg::R1, Reg::R1, look.off("super_block", "s_id")? + 32);
                Ok(())
            }),
            plain("behind-the-last-of-the-structure", "bprm_check_security", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.ldx(Size::B, Reg::R1, Reg::R1, look.off("linux_binprm", "buf")? + 256);
                Ok(())
            }),
            plain("by-a-number-in-bounds", "bprm_check_security", |asm, look| {
                asm.call(helper::GET_CURRENT_PID_TGID).and_imm(Reg::R0, 15);
                argument(asm, Reg::R1, 0);
                asm.add_reg(Reg::R1, Reg::R0);
                asm.ldx(Size::B, Reg::R1, Reg::R1, look.off("linux_binprm", "buf")?);
                Ok(())
            }),
        ],
    },
    Rule {
        name: "behind-the-end",
        asks: "May a program read behind the end, or before the beginning, of the structure that it is given?",
        sources: &[ACCESS, WALK],
        cases: &[
            plain("behind", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.ldx(Size::DW, Reg::R1, Reg::R1, look.size("file")?);
                Ok(())
            }),
            plain("before", "file_open", |asm, _| {
                argument(asm, Reg::R1, 0);
                asm.ldx(Size::DW, Reg::R1, Reg::R1, -8);
                Ok(())
            }),
        ],
    },
    Rule {
        name: "arithmetic",
        asks: "May a program add numbers, known and unknown, to its argument and read there?",
        sources: &[ACCESS, source("7.3", "kernel/bpf/verifier.c", "adjust_ptr_min_max_vals")],
        cases: &[
            plain("known", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.add_imm(Reg::R1, look.off("file", "f_flags")?).ldx(Size::W, Reg::R1, Reg::R1, 0);
                Ok(())
            }),
            plain("unknown-but-bounded", "file_open", |asm, _| {
                asm.call(helper::GET_PRANDOM_U32).and_imm(Reg::R0, 8);
                argument(asm, Reg::R1, 0);
                asm.add_reg(Reg::R1, Reg::R0).ldx(Size::W, Reg::R1, Reg::R1, 0);
                Ok(())
            }),
            plain("subtracting-two-pointers", "file_open", |asm, _| {
                argument(asm, Reg::R1, 0);
                argument(asm, Reg::R2, 0);
                asm.sub_reg(Reg::R1, Reg::R2);
                Ok(())
            }),
            plain("shifting-a-pointer", "file_open", |asm, _| {
                argument(asm, Reg::R1, 0);
                asm.rsh_imm(Reg::R1, 1);
                Ok(())
            }),
        ],
    },
    Rule {
        name: "write",
        asks: "May a program write to a member of its argument, at once or atomically, or of what it walked to?",
        sources: &[ACCESS, ACCESS_OLD],
        cases: &[
            plain("argument", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.st_imm(Size::W, Reg::R1, look.off("file", "f_flags")?, 0);
                Ok(())
            }),
            plain("walked-to", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                walk(asm, Reg::R1, look.off("file", "f_inode")?);
                asm.st_imm(Size::DW, Reg::R1, look.off("inode", "i_ino")?, 0);
                Ok(())
            }),
            plain("atomically", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.mov_imm(Reg::R2, 1);
                asm.atomic_add(Size::W, Reg::R1, look.off("file", "f_flags")?, Reg::R2);
                Ok(())
            }),
            plain("bprm-per_clear", "bprm_creds_for_exec", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.st_imm(Size::W, Reg::R1, look.off("linux_binprm", "per_clear")?, 0);
                Ok(())
            }),
        ],
    },
    Rule {
        name: "number-followed",
        asks: "May a program follow an argument that is a number, or a pointer to text or to void?",
        sources: &[ARGUMENT],
        cases: &[
            plain("a-number", "file_ioctl", |asm, _| {
                argument(asm, Reg::R1, 2);
                asm.ldx(Size::DW, Reg::R1, Reg::R1, 0);
                Ok(())
            }),
            plain("a-pointer-to-char", "sb_mount", |asm, _| {
                argument(asm, Reg::R1, 0);
                asm.ldx(Size::B, Reg::R1, Reg::R1, 0);
                Ok(())
            }),
            plain("a-pointer-to-void", "sb_mount", |asm, _| {
                argument(asm, Reg::R1, 4);
                asm.ldx(Size::B, Reg::R1, Reg::R1, 0);
                Ok(())
            }),
        ],
    },
    Rule {
        name: "current-task",
        asks: "May a program follow what bpf_get_current_task and bpf_get_current_task_btf give?",
        sources: &[source("7.3", "kernel/trace/bpf_trace.c", "bpf_get_current_task_btf_proto"), ACCESS],
        cases: &[
            plain("bpf_get_current_task", "file_open", |asm, look| {
                asm.call(helper::GET_CURRENT_TASK);
                asm.ldx(Size::W, Reg::R1, Reg::R0, look.off("task_struct", "tgid")?);
                Ok(())
            }),
            plain("bpf_get_current_task_btf", "file_open", |asm, look| {
                look.current(asm, Reg::R1)?;
                asm.ldx(Size::W, Reg::R1, Reg::R1, look.off("task_struct", "tgid")?);
                Ok(())
            }),
        ],
    },
    Rule {
        name: "compare-and-store",
        asks: "May a program compare its arguments with null and others, and store one in a map, the stack or its context?",
        sources: &[ARGUMENT, source("7.3", "kernel/bpf/verifier.c", "check_stack_write_fixed_off")],
        cases: &[
            plain("with-null", "file_open", |asm, _| {
                argument(asm, Reg::R1, 0);
                asm.jeq_imm(Reg::R1, 0, "pass");
                Ok(())
            }),
            plain("with-another", "task_alloc", |asm, look| {
                argument(asm, Reg::R1, 0);
                argument(asm, Reg::R2, 0);
                walk(asm, Reg::R2, look.off("task_struct", "real_parent")?);
                asm.jeq_reg(Reg::R1, Reg::R2, "pass");
                Ok(())
            }),
            plain("with-another-argument", "task_kill", |asm, _| {
                argument(asm, Reg::R1, 0);
                argument(asm, Reg::R2, 3);
                asm.jeq_reg(Reg::R1, Reg::R2, "pass");
                Ok(())
            }),
            with_page("in-a-map", "file_open", |asm, _| {
                argument(asm, Reg::R1, 0);
                asm.stx(Size::DW, PAGE, FREE, Reg::R1);
                Ok(())
            }),
            with_page("in-a-map-read-back-and-followed", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.stx(Size::DW, PAGE, FREE, Reg::R1).ldx(Size::DW, Reg::R2, PAGE, FREE);
                asm.ldx(Size::W, Reg::R2, Reg::R2, look.off("file", "f_flags")?);
                Ok(())
            }),
            plain("spilled-and-read-back", "file_open", |asm, look| {
                argument(asm, Reg::R1, 0);
                asm.stx(Size::DW, Reg::R10, -8, Reg::R1).ldx(Size::DW, Reg::R2, Reg::R10, -8);
                asm.ldx(Size::W, Reg::R2, Reg::R2, look.off("file", "f_flags")?);
                Ok(())
            }),
            plain("spilled-half", "file_open", |asm, _| {
                argument(asm, Reg::R1, 0);
                asm.stx(Size::W, Reg::R10, -8, Reg::R1);
                Ok(())
            }),
            plain("context-in-context", "file_open", |asm, _| {
                asm.stx(Size::DW, CTX, 0, CTX);
                Ok(())
            }),
        ],
    },
];
