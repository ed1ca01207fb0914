//! Pointers to objects of the kernel that a map holds.

use super::bench::{Bench, keep, slot, stack, value_in_r8};
use super::call::Arg::{Number, Task};
use super::{Row, canonical, case, kptr_stored, misuse, sleepable};
use crate::asm::Asm;
use crate::bpf::{BPF_MAP_TYPE_INODE_STORAGE, BPF_MAP_TYPE_TASK_STORAGE, MapSpec, btf_load};
use crate::btf_build::{BtfBuilder, SIGNED, UNSIGNED};
use crate::families::kfuncs::{NOT_ALLOWED, bare_call};
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
        source("6.0", "kernel/bpf/btf.c", "btf_parse_kptrs"),
        source("6.4", "kernel/bpf/syscall.c", "map_check_btf"),
    ],
    cases: &[
        canonical(exchange),
        sleepable(exchange),
        case("in-task-storage", |bench| kptr_stored::exchange(bench, BPF_MAP_TYPE_TASK_STORAGE)),
        case("in-inode-storage", |bench| kptr_stored::exchange(bench, BPF_MAP_TYPE_INODE_STORAGE)),
        misuse("misuse-old-object-kept", |bench| {
            with_object(bench, |asm, _| {
                put(asm);
            })
        }),
        misuse("misuse-object-not-acquired", |bench| {
            let ready = Ready::new(bench)?;
            bench.load(|asm| {
                ready.look_up(asm);
                ready.borrow(asm);
                put(asm);
            })
        }),
        misuse("misuse-object-used-afterwards", |bench| {
            with_object(bench, |asm, ready| {
                put(asm);
                ready.drop_old(asm);
                asm.ldx(Size::W, Reg::R1, Reg::R9, ready.member);
            })
        }),
        misuse("misuse-memory-for-pointer", |bench| {
            let object = Object::of(bench);
            bench.attempt.kfunc(object.acquire)?;
            let map = map(bench, object)?;
            bench.load(|asm| {
                value_in_r8(asm, &map);
                asm.mov_reg(Reg::R1, Reg::R8).add_imm(Reg::R1, MEMORY).mov_imm(Reg::R2, 0);
                asm.call(helper::KPTR_XCHG);
            })
        }),
        misuse("misuse-task-for-pointer", |bench| bench.call(&[Task, Number(0)])),
    ],
}];

/// A kind of object that a map may own, because the kernel knows how to release it.
#[derive(Clone, Copy)]
pub(super) struct Object {
    pub(super) record: &'static str,
    acquire: &'static str,
    release: &'static str,
    /// A number in it, and what user space knows it to be.
    member: &'static str,
    pub(super) number: fn() -> u64,
}

impl Object {
    /// The one that this kernel has.
    pub(super) fn of(bench: &Bench<'_, '_>) -> Self {
        if bench.attempt.kfunc(TASK.acquire).is_ok() { TASK } else { OF_TESTS }
    }
}

/// The running task.
const TASK: Object = Object {
    record: "task_struct",
    acquire: "bpf_task_acquire",
    release: "bpf_task_release",
    member: "tgid",
    number: || u64::from(std::process::id()),
};
/// An object that exists for tests like this one, and is all that kernels before 6.2 have (6.0 net/bpf/test_run.c,
/// `prog_test_struct`).
const OF_TESTS: Object = Object {
    record: "prog_test_ref_kfunc",
    acquire: "bpf_kfunc_call_test_acquire",
    release: "bpf_kfunc_call_test_release",
    member: "a",
    number: || 42,
};

/// An object of this kernel, a map for it, and what programs need to know.
pub(super) struct Ready {
    pub(super) object: Object,
    pub(super) map: OwnedFd,
    acquire: u32,
    pub(super) release: u32,
    pub(super) member: u32,
    next: Option<u32>,
    /// Whether acquiring never gives NULL ([`crate::btf::Btf::task_acquire_always_gives`]).
    always_gives: bool,
}

impl Ready {
    fn new(bench: &mut Bench<'_, '_>) -> Result<Self, Ended> {
        Self::like(bench, MapSpec::array(16, 1))
    }

    /// With a map of another type.
    pub(super) fn like(bench: &mut Bench<'_, '_>, like: MapSpec) -> Result<Self, Ended> {
        let object = Object::of(bench);
        let acquire = bench.attempt.kfunc(object.acquire)?;
        // 6.0 has the helper and lets LSM programs call no kfunc that would give them something to exchange.
        if object.record == OF_TESTS.record
            && bare_call(bench.attempt, "file_open", acquire, 0)? == NOT_ALLOWED
        {
            let what = format!(
                "only {} gives an object to exchange, and LSM programs may not call it",
                object.acquire
            );
            return Err(Ended::CouldNotTell(what));
        }
        Ok(Self {
            acquire,
            release: bench.attempt.kfunc(object.release)?,
            member: bench.offset(object.record, object.member)?,
            next: bench.offset(object.record, "next").ok(),
            map: map_like(bench, object, like)?,
            always_gives: object.record == TASK.record && bench.attempt.btf()?.task_acquire_always_gives(),
            object,
        })
    }

    /// Puts the address of the map's value into R8.
    fn look_up(&self, asm: &mut Asm) {
        value_in_r8(asm, &self.map);
    }

    /// Acquires the object, whose address is then in R9.
    pub(super) fn acquire(&self, asm: &mut Asm) {
        if self.object.record == TASK.record {
            asm.call(helper::GET_CURRENT_TASK_BTF).mov_reg(Reg::R1, Reg::R0);
        } else {
            asm.st_imm(Size::DW, Reg::R10, -16, 0);
            stack(asm, Reg::R1, -16);
        }
        asm.call_kfunc(self.acquire, 0);
        if !self.always_gives {
            asm.jeq_imm(Reg::R0, 0, "pass");
        }
        asm.mov_reg(Reg::R9, Reg::R0);
    }

    /// Points R9 at such an object without owning it.
    fn borrow(&self, asm: &mut Asm) {
        if let Some(next) = self.next.filter(|_| self.object.record != TASK.record) {
            self.acquire(asm);
            asm.ldx(Size::DW, Reg::R9, Reg::R9, next);
        } else {
            asm.call(helper::GET_CURRENT_TASK_BTF).mov_reg(Reg::R9, Reg::R0);
        }
    }

    /// Releases what is in R0, if anything is.
    pub(super) fn drop_old(&self, asm: &mut Asm) {
        asm.jeq_imm(Reg::R0, 0, "nothing").mov_reg(Reg::R1, Reg::R0);
        asm.call_kfunc(self.release, 0).label("nothing");
    }
}

/// Where in the map's value there is memory that is no pointer.
const MEMORY: u32 = 8;

/// A map of one value: a pointer to an object that the map owns, and a number.
fn map(bench: &mut Bench<'_, '_>, object: Object) -> Result<OwnedFd, Ended> {
    map_like(bench, object, MapSpec::array(16, 1))
}

/// A map of such values.
pub(super) fn map_like(bench: &mut Bench<'_, '_>, object: Object, like: MapSpec) -> Result<OwnedFd, Ended> {
    // Up to 6.3 `kptr` is a pointer that is not owned.
    let tag = if bench.attempt.kernel().version() < (6, 4) { "kptr_ref" } else { "kptr" };
    let mut types = BtfBuilder::new();
    let (int, word) = (types.int("int", 4, SIGNED), types.int("u64", 8, UNSIGNED));
    let record = types.structure(object.record, 8, &[("opaque", word, 0)]);
    let tagged = types.type_tag(tag, record);
    let pointer = types.ptr(tagged);
    let value = types.structure("value", 16, &[("object", pointer, 0), ("number", word, MEMORY)]);
    let btf = btf_load(&types.finish()).map_err(|error| Ended::could_not("load the map's BTF", error))?;
    bench.attempt.map(&MapSpec {
        btf_fd: Some(btf.as_raw_fd()),
        btf_key_type_id: int,
        btf_value_type_id: value,
        ..like
    })
}

/// Puts what is in R9 into the map; R0 is what was there.
pub(super) fn put(asm: &mut Asm) {
    asm.mov_reg(Reg::R1, Reg::R8).mov_reg(Reg::R2, Reg::R9).call(helper::KPTR_XCHG);
}

/// Loads a program that has the value and an object and goes on with `then`.
fn with_object(bench: &mut Bench<'_, '_>, then: impl FnOnce(&mut Asm, &Ready)) -> Result<(), Ended> {
    let ready = Ready::new(bench)?;
    bench.load(|asm| {
        ready.look_up(asm);
        ready.acquire(asm);
        then(asm, &ready);
    })
}

/// Puts an object into the map and takes it out again.
fn exchange(bench: &mut Bench<'_, '_>) -> Result<(), Ended> {
    let ready = Ready::new(bench)?;
    let results = bench.open(|asm| {
        ready.look_up(asm);
        ready.acquire(asm);
        put(asm);
        keep(asm, 0, Reg::R0);
        ready.drop_old(asm);
        asm.mov_reg(Reg::R1, Reg::R8).mov_imm(Reg::R2, 0).call(helper::KPTR_XCHG);
        asm.jeq_imm(Reg::R0, 0, "pass").mov_reg(Reg::R9, Reg::R0).ldx(
            Size::W,
            Reg::R1,
            Reg::R9,
            ready.member,
        );
        keep(asm, 1, Reg::R1);
        asm.mov_reg(Reg::R1, Reg::R9).call_kfunc(ready.release, 0);
    })?;
    bench.attempt.holds("nothing was there before", results.get(slot(0)) == 0);
    bench.attempt.see("the object is a", ready.object.record);
    bench.attempt.same("its number when taken out", results.get(slot(1)), (ready.object.number)());
    Ok(())
}
