//! Inert programs that PID 1 keeps on hooks while some families run; [`crate::families::Family::kept`] says why.

use crate::asm::Asm;
use crate::bpf::{self, ProgSpec};
use crate::insn::Reg;
use crate::session::Kernel;
use std::os::fd::OwnedFd;

/// What is kept at the moment.
#[derive(Default)]
pub(super) struct Keeper {
    hooks: &'static [&'static str],
    links: Vec<(OwnedFd, OwnedFd)>,
}

impl Keeper {
    /// Keeps exactly `hooks` from now on. A hook that cannot be kept only costs time.
    pub(super) fn keep(&mut self, kernel: &Kernel, hooks: &'static [&'static str]) {
        if self.hooks == hooks {
            return;
        }
        self.links = hooks.iter().filter_map(|hook| attach(kernel, hook)).collect();
        self.hooks = hooks;
    }
}

fn attach(kernel: &Kernel, hook: &str) -> Option<(OwnedFd, OwnedFd)> {
    let id = kernel.btf().ok()?.function(&format!("bpf_lsm_{hook}"))?;
    let mut asm = Asm::new();
    asm.mov_imm(Reg::R0, 0).exit();
    let program = bpf::prog_load(&ProgSpec::lsm("kept", id, asm.finish().ok()?), 0).ok()?;
    let link = bpf::raw_tracepoint_open(&program, None, 0).ok()?;
    Some((program, link))
}
