//! A label in local storage, and programs that look for it, and may make it, in the hooks where they meet the object.

use super::kinds::{map_of, off};
use crate::asm::Asm;
use crate::bpf::{self, BPF_MAP_TYPE_INODE_STORAGE, BPF_MAP_TYPE_SK_STORAGE, BPF_MAP_TYPE_TASK_STORAGE};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, LsmProgram, PAGE, Running};
use crate::results::{FREE, RUNS, Results, TARGET};
use crate::session::{Attempt, Ended};
use crate::triggers::Arm;
use std::os::fd::{AsRawFd, OwnedFd};

/// The flags for the helper, what to store, whether there is a value, what stood in it, and the object's address.
const FLAGS: i32 = FREE;
const INPUT: i32 = FREE + 8;
const PRESENT: i32 = FREE + 16;
const VALUE: i32 = FREE + 24;
const OBJECT: i32 = FREE + 32;

/// A kind of storage.
#[derive(Clone, Copy)]
pub(super) struct Storage {
    map_type: u32,
    get: u32,
}

pub(super) const OF_TASKS: Storage =
    Storage { map_type: BPF_MAP_TYPE_TASK_STORAGE, get: helper::TASK_STORAGE_GET };
pub(super) const OF_INODES: Storage =
    Storage { map_type: BPF_MAP_TYPE_INODE_STORAGE, get: helper::INODE_STORAGE_GET };
pub(super) const OF_SOCKETS: Storage =
    Storage { map_type: BPF_MAP_TYPE_SK_STORAGE, get: helper::SK_STORAGE_GET };

/// Where a program finds the object.
#[derive(Clone, Copy)]
pub(super) enum Object {
    /// The argument with this number.
    Argument(i32),
    /// What a member of the argument with this number points to: number, record, member.
    Of(i32, &'static str, &'static str),
    /// The task that runs.
    Current,
}

/// Whose call a program acts on.
#[derive(Clone, Copy)]
pub(super) enum Whom {
    /// That of the process named.
    Caller,
    /// One about the object that lies at the address named, whoever makes it.
    Address,
    /// One about an object with the number named in this member: record, member, its size.
    Number(&'static str, &'static str, Size),
}

/// What a program does when it meets the object.
#[derive(Clone, Copy)]
pub(super) enum Op {
    /// Looks for the label.
    Look,
    /// Looks for it, makes it where there is none, and stores this in it.
    Make(u64),
    /// Looks for it, and where there is one stores this in it.
    Change(u64),
}

/// A map of labels.
pub(super) struct Labels {
    pub(super) map: OwnedFd,
    _btf: OwnedFd,
    storage: Storage,
}

impl Labels {
    pub(super) fn new(attempt: &mut Attempt<'_>, storage: Storage, flags: u32) -> Result<Self, Ended> {
        let (map, btf) = map_of(attempt, storage.map_type, flags)?;
        Ok(Self { map, _btf: btf, storage })
    }

    /// Has the kernel run a program on `hook`, which as yet acts for nobody.
    pub(super) fn looker(
        &self,
        attempt: &mut Attempt<'_>,
        hook: &str,
        object: Object,
        whom: Whom,
    ) -> Result<Looker, Ended> {
        let mut results = attempt.results()?;
        results.name_nobody();
        let ways = Ways::new(attempt, object, whom)?;
        let program = match whom {
            Whom::Caller => LsmProgram::framed(hook, &results, |asm| self.look(asm, &ways)),
            Whom::Address | Whom::Number(..) => LsmProgram::raw(hook, self.recognizing(&results, &ways)),
        };
        let running = attempt.run_lsm(&program)?;
        Ok(Looker { results, before: 0, _running: running })
    }

    /// A program that acts when the object is the one named, which stands in the place of a process.
    fn recognizing(&self, results: &Results, ways: &Ways) -> Asm {
        let mut asm = Asm::new();
        asm.mov_reg(CTX, Reg::R1).ld_map_value(PAGE, results, 0);
        ways.find(&mut asm, "pass");
        match ways.mark {
            Some((offset, size)) => asm.ldx(size, Reg::R2, Reg::R8, offset),
            None => asm.mov_reg(Reg::R2, Reg::R8),
        };
        asm.ldx(Size::DW, Reg::R1, PAGE, TARGET)
            .jne_reg(Reg::R2, Reg::R1, "pass")
            .mov_imm(Reg::R1, 1)
            .atomic_add(Size::DW, PAGE, RUNS, Reg::R1);
        self.look(&mut asm, ways);
        asm.label("pass").mov_imm(Reg::R0, 0).exit();
        asm
    }

    fn look(&self, asm: &mut Asm, ways: &Ways) {
        if ways.mark_is_the_callers {
            ways.find(asm, "pass");
        }
        asm.stx(Size::DW, PAGE, OBJECT, Reg::R8)
            .ld_map_fd(Reg::R1, &self.map)
            .mov_reg(Reg::R2, Reg::R8)
            .mov_imm(Reg::R3, 0)
            .ldx(Size::DW, Reg::R4, PAGE, FLAGS)
            .call(self.storage.get)
            .jeq_imm(Reg::R0, 0, "pass")
            .st_imm(Size::DW, PAGE, PRESENT, 1)
            .ldx(Size::DW, Reg::R1, Reg::R0, 0)
            .stx(Size::DW, PAGE, VALUE, Reg::R1)
            .ldx(Size::DW, Reg::R1, PAGE, INPUT)
            .jeq_imm(Reg::R1, 0, "pass")
            .stx(Size::DW, Reg::R0, 0, Reg::R1);
    }

    /// The label as user space reads it by a descriptor of the object.
    pub(super) fn read(&self, fd: &impl AsRawFd) -> Result<u64, Errno> {
        let mut value = [0; 8];
        bpf::map_lookup(&self.map, &super::key_of(fd), &mut value)?;
        Ok(u64::from_ne_bytes(value))
    }

    /// Stores a label by a descriptor of the object.
    pub(super) fn write(&self, fd: &impl AsRawFd, value: u64) -> Result<(), Errno> {
        bpf::map_update(&self.map, &super::key_of(fd), &value.to_ne_bytes(), bpf::BPF_ANY)
    }
}

/// How the code of a program comes to the object and to what it is recognized by, with this kernel's offsets.
struct Ways {
    object: Object,
    member: i64,
    mark: Option<(i64, Size)>,
    mark_is_the_callers: bool,
}

impl Ways {
    fn new(attempt: &Attempt<'_>, object: Object, whom: Whom) -> Result<Self, Ended> {
        let member = match object {
            Object::Of(_, record, member) => off(attempt, record, member)?,
            Object::Argument(_) | Object::Current => 0,
        };
        let mark = match whom {
            Whom::Number(record, member, size) => Some((off(attempt, record, member)?, size)),
            Whom::Caller | Whom::Address => None,
        };
        Ok(Self { object, member, mark, mark_is_the_callers: matches!(whom, Whom::Caller) })
    }

    /// Puts the object into R8, or goes to `none`.
    fn find(&self, asm: &mut Asm, none: &str) {
        match self.object {
            Object::Argument(number) => asm.ldx(Size::DW, Reg::R8, CTX, 8 * number),
            Object::Of(number, ..) => asm
                .ldx(Size::DW, Reg::R8, CTX, 8 * number)
                .ldx(Size::DW, Reg::R8, Reg::R8, self.member)
                .jeq_imm(Reg::R8, 0, none),
            Object::Current => asm.call(helper::GET_CURRENT_TASK_BTF).mov_reg(Reg::R8, Reg::R0),
        };
    }
}

/// A program that the kernel runs.
pub(super) struct Looker {
    results: Results,
    /// How often it had run when it was last told what to do.
    before: u64,
    _running: Running,
}

impl Looker {
    /// Says what it is to do, and forgets what it has seen.
    pub(super) fn prepare(&mut self, op: Op) {
        let (flags, input) = match op {
            Op::Look => (0, 0),
            Op::Make(input) => (1, input), // BPF_LOCAL_STORAGE_GET_F_CREATE
            Op::Change(input) => (0, input),
        };
        for (slot, value) in [(FLAGS, flags), (INPUT, input), (PRESENT, 0), (VALUE, 0), (OBJECT, 0)] {
            self.results.set(slot, value);
        }
        self.before = self.runs();
    }

    /// Names whom it acts for.
    pub(super) fn arm(&self) -> Arm {
        Arm::new(&self.results)
    }

    /// Does `act` with the calling process named, after [`Looker::prepare`].
    pub(super) fn during<T>(&mut self, attempt: &mut Attempt<'_>, op: Op, act: impl FnOnce() -> T) -> T {
        self.prepare(op);
        let arm = self.arm();
        attempt.trigger(|| arm.during(act))
    }

    /// What stood in the label when it met the object; `None` where there was none, nor could be made.
    pub(super) fn saw(&self) -> Option<u64> {
        (self.results.get(PRESENT) != 0).then(|| self.results.get(VALUE))
    }

    /// In words, where `stored` should be; of what has been since [`Looker::prepare`].
    pub(super) fn word(&self, stored: u64) -> &'static str {
        if self.runs() == self.before { "NOT CALLED" } else { word(self.saw(), stored) }
    }

    /// The address of the object that it has met last.
    pub(super) fn address(&self) -> u64 {
        self.results.get(OBJECT)
    }

    pub(super) fn runs(&self) -> u64 {
        self.results.runs()
    }
}

/// What was read, in words; 0 is what a new label has in it.
pub(super) fn word(saw: Option<u64>, stored: u64) -> &'static str {
    match saw {
        None => "no label",
        Some(0) => "a new label",
        Some(value) if value == stored => "what was stored",
        Some(_) => "SOMETHING ELSE",
    }
}

/// What user space read by a descriptor, in words.
pub(super) fn read_word(read: &Result<u64, Errno>, stored: u64) -> String {
    match read {
        Ok(value) => word(Some(*value), stored).to_owned(),
        Err(errno) => errno.name(),
    }
}
