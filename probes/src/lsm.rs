//! LSM programs of the suite's usual shape: act for one task only, count, then do what the probe is about.

use crate::asm::Asm;
use crate::bpf::{BPF_F_SLEEPABLE, BPF_LSM_MAC, BPF_PROG_TYPE_LSM, ProgSpec};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::results::{RUNS, Results, TARGET};
use crate::session::{Attempt, Ended};
use std::os::fd::OwnedFd;

/// Holds the program's context in the body of a framed program.
pub const CTX: Reg = Reg::R6;
/// Holds the address of the results page in the body of a framed program.
pub const PAGE: Reg = Reg::R7;

/// A program for one hook.
#[derive(Clone)]
pub struct LsmProgram {
    /// The hook's name, without `bpf_lsm_`.
    pub hook: String,
    /// Flags for `BPF_PROG_LOAD`.
    pub flags: u32,
    /// Expected attach type.
    pub attach_type: u32,
    /// The code.
    pub asm: Asm,
    /// BTF of the program itself and what belongs to it, for programs that need it.
    pub extra: Option<ProgSpec>,
}

impl LsmProgram {
    /// A program with exactly this code.
    #[must_use]
    pub fn raw(hook: &str, asm: Asm) -> Self {
        Self { hook: hook.to_owned(), flags: 0, attach_type: BPF_LSM_MAC, asm, extra: None }
    }

    /// A program that does `body` when it runs for the task in the results page, after counting the run, and
    /// returns 0 otherwise. In the body [`CTX`] is the context and [`PAGE`] the results page; it may leave by itself
    /// (`exit`), jump to `pass`, or run to its end; the last two return 0.
    #[must_use]
    pub fn framed(hook: &str, results: &Results, body: impl FnOnce(&mut Asm)) -> Self {
        let mut asm = Asm::new();
        asm.mov_reg(CTX, Reg::R1)
            .call(helper::GET_CURRENT_PID_TGID)
            .rsh_imm(Reg::R0, 32)
            .ld_map_value(PAGE, results, 0)
            .ldx(Size::DW, Reg::R1, PAGE, TARGET)
            .jne_reg(Reg::R0, Reg::R1, "pass")
            .mov_imm(Reg::R1, 1)
            .atomic_add(Size::DW, PAGE, RUNS, Reg::R1);
        body(&mut asm);
        asm.label("pass").mov_imm(Reg::R0, 0).exit();
        Self::raw(hook, asm)
    }

    /// A framed program that counts and returns 0.
    #[must_use]
    pub fn counting(hook: &str, results: &Results) -> Self {
        Self::framed(hook, results, |_| {})
    }

    /// A framed program that counts and returns `verdict`.
    #[must_use]
    pub fn returning(hook: &str, results: &Results, verdict: i32) -> Self {
        Self::framed(hook, results, |asm| {
            asm.mov_imm(Reg::R0, verdict).exit();
        })
    }

    /// The same program, sleepable.
    #[must_use]
    pub fn sleepable(mut self) -> Self {
        self.flags |= BPF_F_SLEEPABLE;
        self
    }
}

impl Attempt<'_> {
    /// Loads an LSM program.
    ///
    /// # Errors
    /// [`Ended::Absent`] when the kernel has no such hook, [`Ended::Refused`] in the phase `load`,
    /// [`Ended::CouldNotTell`] when the code cannot be assembled.
    pub fn load_lsm(&mut self, program: &LsmProgram) -> Result<OwnedFd, Ended> {
        let insns = program.asm.finish().map_err(|error| Ended::could_not("assemble the program", error))?;
        let spec = ProgSpec {
            prog_type: BPF_PROG_TYPE_LSM,
            expected_attach_type: program.attach_type,
            attach_btf_id: self.hook(&program.hook)?,
            flags: program.flags,
            insns,
            name: program_name(&program.hook),
            ..program.extra.clone().unwrap_or_default()
        };
        self.load(&spec)
    }

    /// Loads and attaches an LSM program. Dropping the pair detaches it.
    ///
    /// # Errors
    /// As [`Attempt::load_lsm`] and [`Attempt::attach`].
    pub fn attach_lsm(&mut self, program: &LsmProgram) -> Result<Attached, Ended> {
        let program = self.load_lsm(program)?;
        let link = self.attach(&program)?;
        Ok(Attached { program, link })
    }
}

/// An attached program: its own descriptor and its link's.
pub struct Attached {
    /// The program.
    pub program: OwnedFd,
    /// The link; dropping it detaches.
    pub link: OwnedFd,
}

/// A verdict that denies.
#[must_use]
pub const fn deny(errno: Errno) -> i32 {
    -errno.raw()
}

/// At most 15 characters of what the kernel allows in a program's name.
fn program_name(hook: &str) -> String {
    hook.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(15).collect()
}
