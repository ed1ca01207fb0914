//! A call written as the list of what it is given: what most refused calls differ in.

use super::bench::{Bench, argument, keep, page, slot, stack};
use crate::asm::Asm;
use crate::bpf::{BPF_MAP_TYPE_HASH, MapSpec};
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, PAGE};
use crate::session::Ended;
use std::os::fd::OwnedFd;

/// What stands in an argument's register.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Arg {
    /// The program's context.
    Context,
    /// The context's second word.
    MovedContext,
    /// A number that the verifier knows.
    Number(i32),
    /// A number of which the verifier knows nothing.
    Unknown,
    /// The hook's argument with this index.
    Argument(i32),
    /// The inode of the file that is the hook's first argument.
    Inode,
    /// The `struct sock` of the `struct socket` that is the hook's first argument.
    Sk,
    /// The running task (5.11).
    Task,
    /// The results page from its second slot on, 4 KiB less 72 bytes.
    Page,
    /// This many bytes of the stack up to its end, written.
    Stack(i32),
    /// The same, never written, below which the program has written to the stack.
    ///
    /// What lies higher than what a program has written is stack that it has as well (7.3 kernel/bpf/verifier.c,
    /// `grow_stack_state`), and until 6.5 a read of other stack was refused for that alone (6.5 there,
    /// `check_stack_range_initialized`, `allocated_stack`).
    Unwritten(i32),
    /// The same, of a program that has not written to the stack at all.
    Untouched(i32),
    /// A hash map of four elements with keys of 4 and values of 8 bytes.
    Hash,
}

const REGISTERS: [Reg; 5] = [Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5];

/// What the arguments need besides.
struct Given {
    map: Option<OwnedFd>,
    inode: u32,
    sk: u32,
}

impl Given {
    fn new(bench: &mut Bench<'_, '_>, args: &[Arg]) -> Result<Self, Ended> {
        let map = match args.contains(&Arg::Hash) {
            true => Some(bench.attempt.map(&MapSpec::new(BPF_MAP_TYPE_HASH, 4, 8, 4))?),
            false => None,
        };
        Ok(Self { map, inode: bench.offset("file", "f_inode")?, sk: bench.offset("socket", "sk")? })
    }

    /// Calls `helper`: what needs other registers first, then the argument registers in order.
    fn call(&self, asm: &mut Asm, helper: u32, args: &[Arg]) {
        for arg in args {
            match *arg {
                Arg::Task => {
                    asm.call(helper::GET_CURRENT_TASK_BTF).mov_reg(Reg::R8, Reg::R0);
                }
                Arg::Sk => {
                    argument(asm, Reg::R8, 0);
                    asm.ldx(Size::DW, Reg::R8, Reg::R8, self.sk).jeq_imm(Reg::R8, 0, "pass");
                }
                Arg::Stack(bytes) => (1..=bytes / 4).for_each(|word| {
                    asm.st_imm(Size::W, Reg::R10, -4 * word, 0);
                }),
                Arg::Unwritten(bytes) => {
                    // The next slot of 8 bytes below.
                    asm.st_imm(Size::DW, Reg::R10, -8 * ((bytes + 7) / 8 + 1), 0);
                }
                Arg::Context
                | Arg::MovedContext
                | Arg::Number(_)
                | Arg::Unknown
                | Arg::Argument(_)
                | Arg::Inode
                | Arg::Page
                | Arg::Untouched(_)
                | Arg::Hash => {}
            }
        }
        for (&arg, reg) in args.iter().zip(REGISTERS) {
            self.place(asm, reg, arg);
        }
        asm.call(helper);
    }

    fn place(&self, asm: &mut Asm, reg: Reg, arg: Arg) {
        match arg {
            Arg::Context => drop(asm.mov_reg(reg, CTX)),
            Arg::MovedContext => drop(asm.mov_reg(reg, CTX).add_imm(reg, 8)),
            Arg::Number(number) => drop(asm.mov_imm(reg, number)),
            Arg::Unknown => drop(asm.ldx(Size::DW, reg, PAGE, slot(0))),
            Arg::Argument(index) => argument(asm, reg, index),
            Arg::Inode => {
                argument(asm, reg, 0);
                asm.ldx(Size::DW, reg, reg, self.inode);
            }
            Arg::Sk | Arg::Task => drop(asm.mov_reg(reg, Reg::R8)),
            Arg::Page => page(asm, reg, 1),
            Arg::Stack(bytes) | Arg::Unwritten(bytes) | Arg::Untouched(bytes) => stack(asm, reg, -bytes),
            Arg::Hash => {
                if let Some(map) = &self.map {
                    asm.ld_map_fd(reg, map);
                }
            }
        }
    }
}

impl Bench<'_, '_> {
    /// Loads a program on `file_open` that calls the helper with these arguments, which should be refused.
    pub(super) fn call(&mut self, args: &[Arg]) -> Result<(), Ended> {
        self.call_on("file_open", args)
    }

    /// As [`Bench::call`], on another hook.
    pub(super) fn call_on(&mut self, hook: &str, args: &[Arg]) -> Result<(), Ended> {
        let (helper, given) = (self.helper(), Given::new(self, args)?);
        self.load_on(hook, |asm| given.call(asm, helper, args))
    }

    /// Runs such a program, and notes what the helper returns.
    pub(super) fn answer(&mut self, args: &[Arg]) -> Result<(), Ended> {
        let (helper, given) = (self.helper(), Given::new(self, args)?);
        let results = self.open(|asm| {
            given.call(asm, helper, args);
            keep(asm, 0, Reg::R0);
        })?;
        self.returned("returned", results.get(slot(0)));
        Ok(())
    }
}
