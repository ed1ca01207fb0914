//! Reading an argument in a program, and holding it against what user space knows.
//!
//! The program that counts also reads: attaching a second one costs a grace period on some kernels. It leaves what the
//! first call brought, and how many calls brought what user space expects, which it is told before the trigger.

use super::super::row::{Argument, Expect, Read};
use crate::asm::Asm;
use crate::btf::Btf;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, PAGE};
use crate::results::{FREE, RUNS, Results};
use crate::session::{Attempt, Ended};

/// Where the page holds what the first call brought: a number, or [`TEXT`] bytes of text.
const FIRST: i32 = FREE + 8;
/// How much of a text is kept, its end included.
const TEXT: i32 = 24;
/// Where the page says whether anything was read at all.
const READ: i32 = FIRST + TEXT;
/// Where the page holds what user space expects.
const EXPECTED: i32 = READ + 8;
/// How many calls brought it.
const AGREED: i32 = EXPECTED + 8;

/// One step from a record to a member: where it is and how wide.
pub(in super::super) struct Step {
    offset: u32,
    size: u32,
}

/// Finds the steps of a path in the kernel's BTF.
pub(in super::super) fn steps(btf: &Btf, path: &str) -> Result<Vec<Step>, Ended> {
    path.split(' ')
        .map(|step| {
            let (record, member) = step.split_once('.').unwrap_or((step, ""));
            let found = btf.member(record, member);
            let found = found.map_err(|error| Ended::Absent(format!("member {step}: {error}")))?;
            Ok(Step { offset: found.byte_offset, size: found.size })
        })
        .collect()
}

/// Of the paths in `paths` the one that begins at the record that a parameter points to, for a parameter that has been
/// something else in other versions; the first if there is none.
fn fitting<'a>(btf: &Btf, parameter: Option<u32>, paths: &'a str) -> &'a str {
    let record = parameter.and_then(|id| btf.pointee(id)).and_then(|id| btf.skip_modifiers(id));
    let record = record.and_then(|id| btf.name(id)).unwrap_or_default();
    let mut all = paths.split(" | ");
    let begins = |path: &&str| path.split('.').next() == Some(record);
    all.clone().find(begins).or_else(|| all.next()).unwrap_or(paths)
}

/// Loads what is at the end of a path from the argument in `slot` into R1, or goes to `out` where a pointer is null.
pub(in super::super) fn follow(asm: &mut Asm, slot: i16, steps: &[Step], out: &str) {
    asm.ldx(Size::DW, Reg::R1, CTX, slot * 8);
    for step in steps {
        let size = match step.size {
            1 => Size::B,
            2 => Size::H,
            4 => Size::W,
            _ => Size::DW,
        };
        // The verifier knows of some pointers that they may be null (6.12 kernel/bpf/verifier.c, check_ptr_to_btf_access).
        asm.jeq_imm(Reg::R1, 0, out).ldx(size, Reg::R1, Reg::R1, step.offset);
    }
}

/// Where an argument is and how to get to its content.
pub(super) struct Way {
    slot: i16,
    /// Width of the argument in bits. Older kernels leave what was in the register above it (5.10
    /// arch/x86/net/bpf_jit_comp.c, save_regs).
    bits: u32,
    steps: Vec<Step>,
    /// The members on the way, in the manner of C; none where the argument itself is read.
    members: Option<String>,
}

impl Argument {
    /// Finds the way in the kernel's BTF.
    ///
    /// # Errors
    /// [`Ended::Absent`] when the hook has no such parameter there, or a record no such member.
    pub(super) fn way(&self, btf: &Btf, hook: &str) -> Result<Way, Ended> {
        let prototype = btf.function(&format!("bpf_lsm_{hook}")).and_then(|id| btf.prototype(id));
        let params = prototype.map(|it| it.params).unwrap_or_default();
        let slot = params.iter().position(|(name, _)| self.is_called(name));
        let slot = slot.ok_or_else(|| Ended::Absent(format!("parameter {} of {hook}", self.name)))?;
        let kind = params.get(slot).map(|(_, id)| *id);
        let size = kind.and_then(|id| btf.size_of(id)).unwrap_or(8);
        let bits = (size * 8).min(32);
        let slot = i16::try_from(slot).unwrap_or(i16::MAX);
        let path = match self.read {
            Read::Int | Read::Text => None,
            Read::Member(path) | Read::Bits(path, _) | Read::TextAt(path) => Some(fitting(btf, kind, path)),
        };
        let steps = path.map_or_else(|| Ok(Vec::new()), |path| steps(btf, path))?;
        let members = path.map(|path| self.members(path));
        Ok(Way { slot, bits, steps, members })
    }

    /// The members of a path, and which bits of the last one count.
    fn members(&self, path: &str) -> String {
        let members = path.split(' ').map(|step| step.split_once('.').map_or(step, |(_, member)| member));
        let members = members.collect::<Vec<_>>().join("->");
        match self.read {
            Read::Bits(_, mask) => format!("{members} & {mask:#o}"),
            Read::Int | Read::Text | Read::Member(_) | Read::TextAt(_) => members,
        }
    }

    /// A suffix tells the verifier something: `file__nullable`.
    fn is_called(&self, name: &str) -> bool {
        name.split("__").next() == Some(self.name)
    }

    /// Appends the reading to a program that is about to count a call; it leaves R0 to R5 as it likes.
    pub(super) fn read(&self, asm: &mut Asm, way: &Way) {
        follow(asm, way.slot, &way.steps, "unread");
        match self.read {
            Read::Text | Read::TextAt(_) => return Self::read_text(asm),
            Read::Int => {
                let unused = 64 - way.bits;
                asm.lsh_imm(Reg::R1, unused).rsh_imm(Reg::R1, unused);
            }
            Read::Bits(_, mask) => {
                asm.mov32_imm(Reg::R2, mask).and_reg(Reg::R1, Reg::R2);
            }
            Read::Member(_) => {}
        }
        asm.mov_imm(Reg::R3, 1)
            .ldx(Size::DW, Reg::R2, PAGE, EXPECTED)
            .jne_reg(Reg::R1, Reg::R2, "disagreed")
            .atomic_add(Size::DW, PAGE, AGREED, Reg::R3)
            .label("disagreed")
            .ldx(Size::DW, Reg::R2, PAGE, RUNS)
            .jne_imm(Reg::R2, 0, "unread")
            .stx(Size::DW, PAGE, FIRST, Reg::R1)
            .stx(Size::DW, PAGE, READ, Reg::R3)
            .label("unread");
    }

    fn read_text(asm: &mut Asm) {
        asm.ldx(Size::DW, Reg::R2, PAGE, RUNS)
            .jne_imm(Reg::R2, 0, "unread")
            .mov_reg(Reg::R3, Reg::R1)
            .mov_imm(Reg::R2, TEXT)
            .mov_reg(Reg::R1, PAGE)
            .add_imm(Reg::R1, FIRST)
            .call(helper::PROBE_READ_KERNEL_STR)
            .jslt_imm(Reg::R0, 0, "unread")
            .mov_imm(Reg::R3, 1)
            .stx(Size::DW, PAGE, READ, Reg::R3)
            .label("unread");
    }

    /// Tells the program what is expected, before the trigger.
    pub(super) fn expect(&self, results: &mut Results) -> Result<(), Ended> {
        for cell in [FIRST, FIRST + 8, FIRST + 16, READ, AGREED] {
            results.set(cell, 0);
        }
        let expected = match self.expect {
            Expect::Is(number) => number,
            Expect::Text(_) => 0,
            Expect::Known(find) => find()
                .ok_or_else(|| Ended::CouldNotTell(format!("user space cannot find out {}", self.name)))?,
        };
        results.set(EXPECTED, expected);
        Ok(())
    }

    /// Notes what the program read.
    pub(super) fn report(&self, attempt: &mut Attempt<'_>, way: &Way, results: &Results) {
        attempt.see("argument", self.name);
        if let Some(members) = &way.members {
            attempt.see("of it", members.as_str());
        }
        if results.get(READ) == 0 {
            attempt.see("read", false);
            return;
        }
        match self.expect {
            Expect::Text(text) => {
                let bytes = results.bytes(FIRST, usize::try_from(TEXT).unwrap_or(0));
                let read = String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or(&[]));
                attempt.same("what the program read", &*read, text);
                attempt.see("value", read.into_owned());
            }
            Expect::Is(number) => {
                self.agree(attempt, results, number);
                attempt.see("value", format!("{:#x}", results.get(FIRST)));
            }
            Expect::Known(_) => self.agree(attempt, results, results.get(EXPECTED)),
        }
    }

    /// A hook may be called more than once for one trigger; one of its calls must be about what user space means.
    fn agree(&self, attempt: &mut Attempt<'_>, results: &Results, expected: u64) {
        let first = results.get(FIRST);
        let read = if results.get(AGREED) > 0 { expected } else { first };
        attempt.same("what the program read", read, expected);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::row::{Argument, Expect, Read};
    use crate::btf::Btf;
    use crate::btf_build::{BtfBuilder, Linkage, SIGNED, UNSIGNED};
    use rstest::rstest;

    /// A hook whose parameter `from` is a task, as up to 5.15, or credentials.
    fn kernel(of_task: bool) -> Btf {
        let mut b = BtfBuilder::new();
        let int = b.int("int", 4, SIGNED);
        let uint = b.int("unsigned int", 4, UNSIGNED);
        let cred = b.structure("cred", 32, &[("uid", uint, 4), ("egid", uint, 24)]);
        let cred = b.constant(cred);
        let cred = b.ptr(cred);
        let task = b.structure("task_struct", 64, &[("cred", cred, 40)]);
        let task = b.ptr(task);
        let proto = b.func_proto(int, &[("to", task), ("from", if of_task { task } else { cred })]);
        b.func("bpf_lsm_send", proto, Linkage::Static);
        Btf::parse(b.finish()).unwrap()
    }

    #[rstest]
    #[case::task(true, &[(40, 8), (24, 4)], "cred->egid")]
    #[case::credentials(false, &[(24, 4)], "egid")]
    fn of_several_ways_the_one_from_the_parameters_record(
        #[case] of_task: bool,
        #[case] expected: &[(u32, u32)],
        #[case] members: &str,
    ) {
        let read = Read::Member("cred.egid | task_struct.cred cred.egid");
        let argument = Argument { name: "from", read, expect: Expect::Is(77) };
        let way = argument.way(&kernel(of_task), "send").unwrap_or_else(|_| panic!("there is one"));
        assert_eq!(way.slot, 1);
        let steps: Vec<_> = way.steps.iter().map(|step| (step.offset, step.size)).collect();
        assert_eq!(steps, expected);
        assert_eq!(way.members.as_deref(), Some(members));
    }
}
