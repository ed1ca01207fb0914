//! Programs that PID 1 keeps on hooks while some families run; [`crate::families::Family::kept`] says why.
//!
//! Each is a dispatcher: it calls what a probe puts into its program array, by tail call, and returns 0 while nothing is
//! there. A kernel that does not take a dispatcher gets an inert program instead, and probes attach for themselves.

use crate::asm::Asm;
use crate::bpf::{self, BPF_MAP_TYPE_PROG_ARRAY, MapSpec, ProgSpec};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::results::{FREE, Results};
use crate::session::Kernel;
use std::os::fd::{AsFd, OwnedFd};

/// What is kept at the moment.
#[derive(Default)]
pub(super) struct Keeper {
    hooks: &'static [&'static str],
    links: Vec<OwnedFd>,
}

impl Keeper {
    /// Whether exactly `hooks` are kept.
    pub(super) fn keeps(&self, hooks: &'static [&'static str]) -> bool {
        self.hooks == hooks
    }

    /// Keeps exactly `hooks` from now on. A hook that cannot be kept only costs time.
    pub(super) fn keep(&mut self, kernel: &Kernel, hooks: &'static [&'static str]) {
        kernel.forget_dispatchers();
        self.links = hooks.iter().filter_map(|hook| attach(kernel, hook)).collect();
        self.hooks = hooks;
    }
}

fn attach(kernel: &Kernel, hook: &str) -> Option<OwnedFd> {
    let id = kernel.btf().ok()?.function(&format!("bpf_lsm_{hook}"))?;
    if let Ok((link, slots)) = dispatcher(id) {
        kernel.remember_dispatcher(hook, slots);
        return Some(link);
    }
    let mut asm = Asm::new();
    asm.mov_imm(Reg::R0, 0).exit();
    let program = bpf::prog_load(&ProgSpec::lsm("kept", id, asm.finish().ok()?), 0).ok()?;
    bpf::raw_tracepoint_open(&program, None, 0).ok()
}

/// A program that calls what stands in the first slot of a program array, attached, and the array.
fn dispatcher(hook: u32) -> Result<(OwnedFd, OwnedFd), Errno> {
    let slots = bpf::map_create(&MapSpec::new(BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 1))?;
    // The slot's number comes from a map, so that the verifier does not know it: for a known one the kernel patches
    // the call at each change of the slot and waits for a grace period (5.10 kernel/bpf/arraymap.c,
    // prog_array_map_poke_run).
    let page = Results::new()?;
    let mut asm = Asm::new();
    asm.ld_map_value(Reg::R3, &page, 0)
        .ldx(Size::W, Reg::R3, Reg::R3, FREE)
        .ld_map_fd(Reg::R2, &slots)
        .call(helper::TAIL_CALL)
        .mov_imm(Reg::R0, 0)
        .exit();
    let insns = asm.finish().map_err(|_| Errno::EINVAL)?;
    let program =
        bpf::prog_load(&ProgSpec::lsm("dispatcher", hook, insns), 0).map_err(|error| error.errno)?;
    let link = bpf::raw_tracepoint_open(program.as_fd(), None, 0)?;
    Ok((link, slots))
}
