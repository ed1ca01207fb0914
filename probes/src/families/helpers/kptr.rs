//! Pointers to objects of the kernel that a map holds.

use super::bench::{Bench, keep, slot, stack};
use super::call::Arg::{Number, Page, Task};
use super::{Row, canonical, misuse, sleepable};
use crate::asm::Asm;
use crate::bpf::{MapSpec, btf_load};
use crate::btf_build::{BtfBuilder, SIGNED, UNSIGNED};
use crate::helper;
use crate::insn::{Reg, Size};
use crate::session::Ended;
use crate::spec::source;
use std::os::fd::{AsRawFd, OwnedFd};

pub(super) const ROWS: &[Row] = &[Row {
    helper: helper::KPTR_XCHG,
    asks: "put an object of the kernel into a map, and give what was there",
    sources: &[
        source("7.1", "kernel/bpf/helpers.c", "bpf_kptr_xchg"),
        source("7.1", "kernel/bpf/verifier.c", "map_kptr_match_type"),
        source("6.1", "kernel/bpf/btf.c", "btf_parse_kptrs"),
    ],
    cases: &[
        canonical(exchange),
        sleepable(exchange),
        misuse("misuse-old-object-kept", |bench| {
            with_object(bench, |asm, _| {
                put(asm);
            })
        }),
        misuse("misuse-object-not-acquired", |bench| {
            let map = map(bench)?;
            bench.load(|asm| {
                look_up(asm, &map);
                asm.call(helper::GET_CURRENT_TASK_BTF).mov_reg(Reg::R2, Reg::R0).mov_reg(Reg::R1, Reg::R8);
                asm.call(helper::KPTR_XCHG);
            })
        }),
        misuse("misuse-object-used-afterwards", |bench| {
            let tgid = bench.offset("task_struct", "tgid")?;
            with_object(bench, |asm, release| {
                put(asm);
                drop_old(asm, release);
                asm.ldx(Size::W, Reg::R1, Reg::R9, tgid);
            })
        }),
        misuse("misuse-memory-for-pointer", |bench| bench.call(&[Page, Number(0)])),
        misuse("misuse-task-for-pointer", |bench| bench.call(&[Task, Number(0)])),
    ],
}];

/// A map of one value: a pointer to a task that the map owns.
fn map(bench: &mut Bench<'_, '_>) -> Result<OwnedFd, Ended> {
    // 6.1 and 6.2 call the tag `kptr_ref`; `kptr` is there a pointer that is not owned.
    let tag = if bench.attempt.kernel().version() < (6, 4) { "kptr_ref" } else { "kptr" };
    let mut types = BtfBuilder::new();
    let (int, word) = (types.int("int", 4, SIGNED), types.int("u64", 8, UNSIGNED));
    let task = types.structure("task_struct", 8, &[("opaque", word, 0)]);
    let tagged = types.type_tag(tag, task);
    let pointer = types.ptr(tagged);
    let value = types.structure("value", 8, &[("task", pointer, 0)]);
    let btf = btf_load(&types.finish()).map_err(|error| Ended::could_not("load the map's BTF", error))?;
    bench.attempt.map(&MapSpec {
        btf_fd: Some(btf.as_raw_fd()),
        btf_key_type_id: int,
        btf_value_type_id: value,
        ..MapSpec::array(8, 1)
    })
}

/// Puts the address of the map's value into R8.
fn look_up(asm: &mut Asm, map: &OwnedFd) {
    asm.st_imm(Size::W, Reg::R10, -4, 0);
    stack(asm, Reg::R2, -4);
    asm.ld_map_fd(Reg::R1, map).call(helper::MAP_LOOKUP_ELEM);
    asm.jeq_imm(Reg::R0, 0, "pass").mov_reg(Reg::R8, Reg::R0);
}

/// Acquires the running task, whose address is then in R9.
fn acquire(asm: &mut Asm, acquire: u32) {
    asm.call(helper::GET_CURRENT_TASK_BTF).mov_reg(Reg::R1, Reg::R0).call_kfunc(acquire, 0);
    asm.jeq_imm(Reg::R0, 0, "pass").mov_reg(Reg::R9, Reg::R0);
}

/// Puts what is in R9 into the map; R0 is what was there.
fn put(asm: &mut Asm) {
    asm.mov_reg(Reg::R1, Reg::R8).mov_reg(Reg::R2, Reg::R9).call(helper::KPTR_XCHG);
}

/// Releases what is in R0, if anything is.
fn drop_old(asm: &mut Asm, release: u32) {
    asm.jeq_imm(Reg::R0, 0, "nothing").mov_reg(Reg::R1, Reg::R0).call_kfunc(release, 0).label("nothing");
}

/// Loads a program that has the value and an object and goes on with `then`, which is given the kfunc that releases.
fn with_object(bench: &mut Bench<'_, '_>, then: impl FnOnce(&mut Asm, u32)) -> Result<(), Ended> {
    let (map, get, release) =
        (map(bench)?, bench.attempt.kfunc("bpf_task_acquire")?, bench.attempt.kfunc("bpf_task_release")?);
    bench.load(|asm| {
        look_up(asm, &map);
        acquire(asm, get);
        then(asm, release);
    })
}

/// Puts the running task into the map and takes it out again.
fn exchange(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let (map, get, release) =
        (map(bench)?, bench.attempt.kfunc("bpf_task_acquire")?, bench.attempt.kfunc("bpf_task_release")?);
    let tgid = bench.offset("task_struct", "tgid")?;
    let results = bench.open(|asm| {
        look_up(asm, &map);
        acquire(asm, get);
        put(asm);
        keep(asm, 0, Reg::R0);
        drop_old(asm, release);
        asm.mov_reg(Reg::R1, Reg::R8).mov_imm(Reg::R2, 0).call(helper::KPTR_XCHG);
        asm.jeq_imm(Reg::R0, 0, "pass").mov_reg(Reg::R9, Reg::R0).ldx(Size::W, Reg::R1, Reg::R9, tgid);
        keep(asm, 1, Reg::R1);
        asm.mov_reg(Reg::R1, Reg::R9).call_kfunc(release, 0);
    })?;
    bench.attempt.holds("nothing was there before", results.get(slot(0)) == 0);
    bench.attempt.same("the process taken out", results.get(slot(1)), u64::from(std::process::id()));
    Ok(())
}
