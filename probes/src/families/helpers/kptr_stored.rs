//! Pointers to objects of the kernel that a task's or an inode's storage holds from one run of a program to the next.

use super::bench::{Bench, argument, keep, open_file, slot, write_file};
use super::kptr::{Object, Ready, map_like, put};
use crate::asm::Asm;
use crate::bpf::{BPF_F_NO_PREALLOC, BPF_MAP_TYPE_TASK_STORAGE, MapSpec};
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::PAGE;
use crate::session::Ended;
use crate::triggers::Arm;

/// The slot that says what a run is to do: to put an object in, or, with 1, to take out what is there.
const TAKE: i32 = 0;
/// What an exchange has given, and the number of the object that was taken out.
const FOUND: i32 = 1;
const NUMBER: i32 = 2;

/// What stands there before: no address is this number.
const NOT_YET: u64 = 1;

/// Puts an object into the storage of this task, or of the file's inode, and takes it out in a later run.
pub(super) fn exchange(bench: &mut Bench<'_, '_>, map_type: u32) -> Result<(), Ended> {
    let like = MapSpec { flags: BPF_F_NO_PREALLOC, ..MapSpec::new(map_type, 4, 16, 0) };
    // Whether the kernel has such maps is asked before whether it has an object to exchange.
    let object = Object::of(bench);
    drop(map_like(bench, object, like.clone())?);
    let ready = Ready::like(bench, like)?;
    let inode = bench.offset("file", "f_inode")?;
    write_file()?;
    let mut results = bench.attach_for("file_open", |asm| {
        value_in_r8(asm, &ready, (map_type != BPF_MAP_TYPE_TASK_STORAGE).then_some(inode));
        asm.ldx(Size::DW, Reg::R1, PAGE, slot(TAKE)).jne_imm(Reg::R1, 0, "take");
        ready.acquire(asm);
        put(asm);
        keep(asm, FOUND, Reg::R0);
        ready.drop_old(asm);
        asm.ja("pass").label("take");
        asm.mov_reg(Reg::R1, Reg::R8).mov_imm(Reg::R2, 0).call(helper::KPTR_XCHG);
        keep(asm, FOUND, Reg::R0);
        asm.jeq_imm(Reg::R0, 0, "pass").mov_reg(Reg::R9, Reg::R0);
        asm.ldx(Size::W, Reg::R1, Reg::R9, ready.member);
        keep(asm, NUMBER, Reg::R1);
        asm.mov_reg(Reg::R1, Reg::R9).call_kfunc(ready.release, 0);
    })?;
    bench.attempt.see("the object is a", ready.object.record);
    for (when, take) in [("put in", 0), ("taken out in a second run", 1), ("taken out in a third", 1)] {
        results.set(slot(TAKE), take);
        results.set(slot(FOUND), NOT_YET);
        let opened = bench.attempt.trigger(|| open_file(Arm::new(&results)));
        opened.map_err(|errno| Ended::could_not("open the file", errno))?;
        let found = match results.get(slot(FOUND)) {
            0 => "nothing",
            NOT_YET => "no answer: the program did not come so far",
            _ => "an object",
        };
        bench.attempt.see(&format!("{when}: there was"), found);
    }
    bench.attempt.runs(results.runs());
    bench.attempt.same("its number when taken out", results.get(slot(NUMBER)), (ready.object.number)());
    Ok(())
}

/// Puts the address of the value of this task into R8, or that of the hook's inode, which is made where there is none.
fn value_in_r8(asm: &mut Asm, ready: &Ready, inode: Option<u32>) {
    let get = if let Some(inode) = inode {
        argument(asm, Reg::R2, 0);
        asm.ldx(Size::DW, Reg::R2, Reg::R2, inode);
        helper::INODE_STORAGE_GET
    } else {
        asm.call(helper::GET_CURRENT_TASK_BTF).mov_reg(Reg::R2, Reg::R0);
        helper::TASK_STORAGE_GET
    };
    asm.ld_map_fd(Reg::R1, &ready.map).mov_imm(Reg::R3, 0).mov_imm(Reg::R4, 1).call(get);
    asm.jeq_imm(Reg::R0, 0, "pass").mov_reg(Reg::R8, Reg::R0);
}
