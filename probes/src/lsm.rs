//! LSM programs of the suite's usual shape: act for one task only, count, then do what the probe is about.

use crate::asm::Asm;
use crate::bpf::{self, BPF_F_SLEEPABLE, BPF_LSM_CGROUP, BPF_LSM_MAC, BPF_PROG_TYPE_LSM, ProgSpec};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::record::Phase;
use crate::results::{RUNS, Results, TARGET};
use crate::session::{Attempt, Ended};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

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

    /// The same for the programs of a cgroup, which allow with 1.
    #[must_use]
    pub fn of_cgroup(hook: &str, asm: Asm) -> Self {
        Self { attach_type: BPF_LSM_CGROUP, ..Self::raw(hook, asm) }
    }

    /// A program that does `body` when it runs for the task in the results page, after counting the run, and
    /// returns 0 otherwise. In the body [`CTX`] is the context and [`PAGE`] the results page; it may leave by itself
    /// (`exit`), jump to `pass`, or run to its end; the last two return 0.
    #[must_use]
    pub fn framed(hook: &str, results: &Results, body: impl FnOnce(&mut Asm)) -> Self {
        Self::raw(hook, frame(results, 0, body))
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

/// The code of [`LsmProgram::framed`], with another value than 0 for whomever it is not for.
pub fn frame(results: &Results, pass: i32, body: impl FnOnce(&mut Asm)) -> Asm {
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
    asm.label("pass").mov_imm(Reg::R0, pass).exit();
    asm
}

impl Attempt<'_> {
    /// Loads an LSM program.
    ///
    /// # Errors
    /// [`Ended::Absent`] when the kernel has no such hook, [`Ended::Refused`] in the phase `load`,
    /// [`Ended::CouldNotTell`] when the code cannot be assembled.
    pub fn load_lsm(&mut self, program: &LsmProgram) -> Result<OwnedFd, Ended> {
        let spec = self.spec(program)?;
        self.load(&spec)
    }

    /// Loads an LSM program that should be refused; see [`Attempt::load_in_doubt`].
    ///
    /// # Errors
    /// As [`Attempt::load_lsm`].
    pub fn load_lsm_in_doubt(&mut self, program: &LsmProgram) -> Result<OwnedFd, Ended> {
        let spec = self.spec(program)?;
        self.load_in_doubt(&spec)
    }

    /// What is asked of the kernel to load an LSM program.
    ///
    /// # Errors
    /// As [`Attempt::load_lsm`], without the refusal.
    pub(crate) fn spec(&self, program: &LsmProgram) -> Result<ProgSpec, Ended> {
        let insns = program.asm.finish().map_err(|error| Ended::could_not("assemble the program", error))?;
        Ok(ProgSpec {
            prog_type: BPF_PROG_TYPE_LSM,
            expected_attach_type: program.attach_type,
            attach_btf_id: self.hook(&program.hook)?,
            flags: program.flags,
            insns,
            name: program_name(&program.hook),
            ..program.extra.clone().unwrap_or_default()
        })
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

impl Attempt<'_> {
    /// Loads an LSM program and has the kernel run it: where PID 1 keeps a dispatcher on the hook
    /// ([`crate::families::Family::kept`]) by a tail call from it, else attached as by [`Attempt::attach_lsm`].
    ///
    /// To attach and to detach costs 10 to 20 ms each under TCG, because the kernel looks at every function that it
    /// could trace (6.12 kernel/trace/ftrace.c, `__ftrace_hash_rec_update`). A tail call is for programs about
    /// something else. Sleepable programs are attached: they may not use program arrays (6.12
    /// kernel/bpf/verifier.c, `check_map_prog_compatibility`).
    ///
    /// # Errors
    /// As [`Attempt::attach_lsm`].
    pub fn run_lsm(&mut self, program: &LsmProgram) -> Result<Running, Ended> {
        let loaded = self.load_lsm(program)?;
        self.run_loaded(program, loaded)
    }

    /// The same, for a program that has been loaded.
    ///
    /// # Errors
    /// As [`Attempt::attach`].
    pub(crate) fn run_loaded(&mut self, program: &LsmProgram, loaded: OwnedFd) -> Result<Running, Ended> {
        let slots = self.kernel().dispatcher(&program.hook);
        let plain = program.flags & BPF_F_SLEEPABLE == 0 && program.attach_type == BPF_LSM_MAC;
        if let Some(slots) = slots.filter(|_| plain) {
            let fd = loaded.as_raw_fd().to_le_bytes();
            // A kernel that does not take it there takes it on the hook.
            if bpf::map_update(&slots, &FIRST, &fd, 0).is_ok() {
                self.at(Phase::Attach);
                return Ok(Running::Called { program: loaded, slots });
            }
        }
        let link = self.attach(&loaded)?;
        Ok(Running::Attached { attached: Attached { program: loaded, link } })
    }
}

/// The slot of a dispatcher's program array.
const FIRST: [u8; 4] = [0; 4];

/// A program that the kernel runs until this is dropped.
pub enum Running {
    /// Attached to its hook.
    Attached {
        /// What holds it there.
        attached: Attached,
    },
    /// Called by the program that is.
    Called {
        /// The program.
        program: OwnedFd,
        /// Where the caller finds it.
        slots: OwnedFd,
    },
}

impl Running {
    /// The program.
    #[must_use]
    pub fn program(&self) -> BorrowedFd<'_> {
        match self {
            Self::Attached { attached } => attached.program.as_fd(),
            Self::Called { program, .. } => program.as_fd(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Self::Called { slots, .. } = self {
            // PID 1 empties the slot too, when the probe is over.
            let _ = bpf::map_delete(slots, &FIRST);
        }
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
