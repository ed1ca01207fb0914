//! Storage of an owner that is a null pointer: the verifier takes members that can be null for an owner without a check, and
//! the helpers answer at run time (7.3 kernel/bpf/bpf_inode_storage.c, `bpf_inode_storage_get`). Sockets' are asked about in
//! `storage`, where newer kernels want a check.

use super::bench::{Bench, argument, keep, slot};
use super::storage::{INODE, TASK, create, map};
use crate::asm::Asm;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::results::Results;
use crate::session::Ended;
use crate::triggers::Arm;
use std::fs;
use std::os::fd::OwnedFd;

/// Where a program keeps its results.
const FIRST: i32 = 0;
const SECOND: i32 = 1;

/// A result that is not there, for a program that did not come so far.
const NOTHING: u64 = 1 << 62;
/// What is kept of a value: that there is one. Of none it is 0.
const A_VALUE: u64 = 1;

/// The slot of the owner itself whose result is at `place`.
const fn pointer(place: i32) -> i32 {
    place + 2
}

/// Uses the owner in R2, which `owner` puts there, and keeps it and the result: asks for its value, to be made, or deletes
/// it after that.
fn using(asm: &mut Asm, map: &OwnedFd, helper: u32, place: i32, owner: impl Fn(&mut Asm)) {
    let (get, deletes) = match helper {
        helper::TASK_STORAGE_DELETE => (helper::TASK_STORAGE_GET, true),
        helper::INODE_STORAGE_DELETE => (helper::INODE_STORAGE_GET, true),
        get => (get, false),
    };
    owner(asm);
    keep(asm, pointer(place), Reg::R2);
    create(asm, map, get);
    if deletes {
        owner(asm);
        asm.ld_map_fd(Reg::R1, map).call(helper);
        return keep(asm, place, Reg::R0);
    }
    let none = format!("none {place}");
    asm.mov_imm(Reg::R1, 0).jeq_imm(Reg::R0, 0, &none).mov_imm(Reg::R1, 1).label(&none);
    keep(asm, place, Reg::R1);
}

/// The inode of the name that rename(2) gives a file, `new_dentry->d_inode`: null where there was no such file.
pub(super) fn inode(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    const NAMES: [&str; 2] = ["/tmp/old-name", "/tmp/new-name"];
    let (helper, map) = (bench.helper(), map(bench, INODE)?);
    let member = bench.offset("dentry", "d_inode")?;
    let mut results = bench.attach_for("inode_rename", |asm| {
        using(asm, &map, helper, FIRST, |asm| {
            argument(asm, Reg::R2, 3);
            asm.ldx(Size::DW, Reg::R2, Reg::R2, member);
        });
    })?;
    let could_not = |error: std::io::Error| Ended::could_not("rename a file", error);
    let _old = fs::remove_file(NAMES[1]);
    for key in ["the inode of a new name", "the inode of a name that was there"] {
        fs::write(NAMES[0], "").map_err(could_not)?;
        results.set(slot(FIRST), NOTHING);
        results.set(slot(pointer(FIRST)), NOTHING);
        let renamed = bench.attempt.trigger(|| Arm::new(&results).during(|| fs::rename(NAMES[0], NAMES[1])));
        renamed.map_err(could_not)?;
        note(bench, key, &results, FIRST);
    }
    bench.attempt.runs(results.runs());
    Ok(())
}

/// The task that waits for a lock of the current one and has the highest priority, `current->pi_top_task`, which there is
/// none of.
pub(super) fn task(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (helper, map) = (bench.helper(), map(bench, TASK)?);
    let member = bench.offset("task_struct", "pi_top_task")?;
    let current = |asm: &mut Asm| {
        asm.call(helper::GET_CURRENT_TASK_BTF).mov_reg(Reg::R2, Reg::R0);
    };
    let results: Results = bench.open(|asm| {
        asm.ld_imm64(Reg::R1, NOTHING);
        keep(asm, FIRST, Reg::R1);
        keep(asm, SECOND, Reg::R1);
        keep(asm, pointer(FIRST), Reg::R1);
        keep(asm, pointer(SECOND), Reg::R1);
        using(asm, &map, helper, FIRST, |asm| {
            current(asm);
            asm.ldx(Size::DW, Reg::R2, Reg::R2, member);
        });
        using(asm, &map, helper, SECOND, current);
    })?;
    note(bench, "current->pi_top_task", &results, FIRST);
    note(bench, "current", &results, SECOND);
    Ok(())
}

/// Notes whether an owner was null, and what the helper gave for it.
fn note(bench: &mut Bench<'_, '_>, owner: &str, results: &Results, place: i32) {
    let key = format!("for {owner}");
    let deletes = [helper::TASK_STORAGE_DELETE, helper::INODE_STORAGE_DELETE].contains(&bench.helper());
    let is_null = results.get(slot(pointer(place))) == 0;
    bench.attempt.see(&format!("{owner} is null"), is_null);
    match results.get(slot(place)) {
        NOTHING => bench.attempt.see(&key, "the program did not come so far"),
        result if deletes => bench.returned(&key, result),
        A_VALUE => bench.attempt.see(&key, "a value"),
        _ => bench.attempt.see(&key, "NULL"),
    }
}
