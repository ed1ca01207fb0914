//! A program recognises a map of its own: it compares the argument of the hook bpf_map with the address of a map that its
//! instructions name, and keeps others from writing to that map.
//!
//! The address that an instruction loads is that of the kernel's `struct bpf_map` (5.10 kernel/bpf/verifier.c,
//! `resolve_pseudo_ldimm64`), which is what the hook is given.

use super::WALK;
use crate::bpf::{self, BPF_F_RDONLY, MapSpec};
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, LsmProgram, deny};
use crate::results::Results;
use crate::session::{Attempt, Ended, Session, Stop};
use crate::spec::{Probe, source};
use crate::triggers::Arm;
use std::os::fd::OwnedFd;

/// The probe.
pub(super) fn probe() -> Probe {
    Probe::new(
        "pointer/own-map",
        "Does a program on bpf_map recognise a map of its own by comparing pointers, so that it can keep that one, and no other, from being opened for writing by its id?",
        &[
            source("7.3", "kernel/bpf/syscall.c", "bpf_map_new_fd"),
            source("7.3", "kernel/bpf/verifier.c", "check_cond_jmp_op"),
            WALK,
        ],
        |session: &mut Session<'_>| -> Result<(), Stop> { session.case("one-of-two", one_of_two) },
    )
}

/// `FMODE_WRITE` (include/linux/fs.h).
const WRITE: i32 = 2;

fn one_of_two(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    let mut results = attempt.results()?;
    results.name_nobody();
    let (own, other) = (attempt.map(&MapSpec::array(8, 1))?, attempt.map(&MapSpec::array(8, 1))?);
    let id = |map: &OwnedFd| {
        let info = bpf::map_info(map).map_err(|errno| Ended::could_not("ask for the map's id", errno))?;
        Ok(info.id)
    };
    let ids = [("its own map", id(&own)?), ("another map", id(&other)?)];
    let program = LsmProgram::framed("bpf_map", &results, |asm| {
        asm.ldx(Size::DW, Reg::R1, CTX, 0).ld_map_fd(Reg::R2, &own).jne_reg(Reg::R1, Reg::R2, "pass");
        asm.ldx(Size::DW, Reg::R1, CTX, 8).and_imm(Reg::R1, WRITE).jeq_imm(Reg::R1, 0, "pass");
        asm.mov_imm(Reg::R0, deny(Errno::EACCES)).exit();
    });
    for (name, id) in ids {
        attempt.outcome(
            &format!("{name}, for reading and writing, without the program"),
            &open(&results, id, 0),
        );
    }
    let attached = attempt.attach_lsm(&program)?;
    for (name, id) in ids {
        let opened = attempt.trigger(|| open(&results, id, 0));
        let key = format!("{name}, for reading and writing");
        if id == ids[0].1 {
            attempt.denial(&key, &opened, Errno::EACCES);
        } else {
            attempt.outcome(&key, &opened);
        }
        attempt.outcome(&format!("{name}, for reading"), &open(&results, id, BPF_F_RDONLY));
    }
    let old = Arm::new(&results).during(|| bpf::map_update(&own, &[0; 4], &[1; 8], 0));
    attempt.outcome("its own map is written to through a descriptor from before", &old);
    drop(attached);
    attempt.ran(results.runs() > 0);
    Ok(())
}

/// Opens a map by its id, as the process that programs act for.
fn open(results: &Results, id: u32, flags: u32) -> Result<(), Errno> {
    Arm::new(results).during(|| bpf::map_get_fd_by_id_with(id, flags)).map(drop)
}
