//! What a program may do with the pointers that it is given and those that it walks to. Little here is attached: the
//! verifier's answer is the record, but where what a program reads, or finds out by comparing, is another question
//! (`followed`, `unions`, `own_map`).

mod followed;
mod listed;
mod own_map;
mod passed;
mod unions;
mod walked;

use super::kfuncs::of_the_build;
use crate::asm::Asm;
use crate::helper;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, LsmProgram, PAGE};
use crate::session::{Attempt, Ended};
use crate::spec::{Probe, Source, source};

const ACCESS: Source = source("7.3", "kernel/bpf/verifier.c", "check_ptr_to_btf_access");
const ACCESS_OLD: Source = source("5.10", "kernel/bpf/verifier.c", "check_ptr_to_btf_access");
const WALK: Source = source("7.3", "kernel/bpf/btf.c", "btf_struct_access");
const ARGUMENT: Source = source("7.3", "kernel/bpf/btf.c", "btf_ctx_access");
const TRUSTED: Source = source("7.3", "kernel/bpf/verifier.c", "BTF_TYPE_SAFE_TRUSTED");
const HELPER: Source = source("7.3", "kernel/bpf/verifier.c", "check_reg_type");
const KFUNC: Source = source("7.3", "kernel/bpf/verifier.c", "process_kf_arg_ptr_to_btf_id");

/// A rule: a probe and its cases.
struct Rule {
    name: &'static str,
    asks: &'static str,
    sources: &'static [Source],
    cases: &'static [Case],
}

/// A program that only has to be judged.
struct Case {
    name: &'static str,
    hook: &'static str,
    sleepable: bool,
    /// Whether [`PAGE`] is the results page, the value of a map.
    page: bool,
    body: Body,
}

/// Writes the program after `R6 = context`; what it runs into returns 0, as does the label `pass`.
type Body = fn(&mut Asm, &Look<'_, '_>) -> Result<(), Ended>;

const fn plain(name: &'static str, hook: &'static str, body: Body) -> Case {
    Case { name, hook, sleepable: false, page: false, body }
}

/// A case with the results page.
const fn with_page(name: &'static str, hook: &'static str, body: Body) -> Case {
    Case { page: true, ..plain(name, hook, body) }
}

const fn sleepable(name: &'static str, hook: &'static str, body: Body) -> Case {
    Case { sleepable: true, ..plain(name, hook, body) }
}

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    let rules = walked::RULES.iter().chain(passed::RULES).chain(listed::RULES);
    let others = [followed::probe(), unions::probe(), unions::probe_of_pointers(), own_map::probe()];
    rules.map(probe).chain(others).collect()
}

fn probe(rule: &'static Rule) -> Probe {
    Probe::new(format!("pointer/{}", rule.name), rule.asks, rule.sources, |session| {
        for case in rule.cases {
            session.case(case.name, |attempt| judge(attempt, case))?;
        }
        Ok(())
    })
}

/// What the verifier says of a helper with a condition of its own, before it looks at what is passed (5.10
/// kernel/bpf/verifier.c, `check_helper_call`).
const NOT_HERE: &str = "helper call is not allowed in probe";

fn judge(attempt: &mut Attempt<'_>, case: &Case) -> Result<(), Ended> {
    let mut asm = Asm::new();
    asm.mov_reg(CTX, Reg::R1);
    let results = if case.page { Some(attempt.results()?) } else { None };
    if let Some(results) = &results {
        asm.ld_map_value(PAGE, results, 0);
    }
    (case.body)(&mut asm, &Look(attempt))?;
    asm.label("pass").mov_imm(Reg::R0, 0).exit();
    let program = LsmProgram::raw(case.hook, asm);
    let loaded = attempt.load_lsm(&if case.sleepable { program.sleepable() } else { program });
    match (loaded, of_the_build(attempt.load_log())) {
        (Err(Ended::Refused(_)), Some(why)) => Err(attempt.undecided(why)),
        (Err(Ended::Refused(_)), None) if attempt.load_log().lines().any(|line| line == NOT_HERE) => {
            Err(attempt.undecided(format!(
                "its helper may not be called on this hook, whatever it is given: {NOT_HERE}"
            )))
        }
        (loaded, _) => loaded.map(drop),
    }
}

/// What the running kernel's BTF says.
struct Look<'l, 'k>(&'l Attempt<'k>);

impl Look<'_, '_> {
    /// The offset of a member, which may be inside of embedded structures.
    fn off(&self, record: &str, path: &str) -> Result<i64, Ended> {
        let member = self.0.btf()?.member(record, path);
        member.map(|member| i64::from(member.byte_offset)).map_err(|error| Ended::Absent(error.to_string()))
    }

    /// The size of a structure.
    fn size(&self, record: &str) -> Result<i64, Ended> {
        let btf = self.0.btf()?;
        let size = btf.record(record).and_then(|id| btf.size_of(id));
        size.map(i64::from).ok_or_else(|| Ended::Absent(format!("struct {record}")))
    }

    /// Calls a helper, which is absent rather than refused where the kernel's list has none of that number.
    fn call(&self, asm: &mut Asm, number: u32) -> Result<(), Ended> {
        self.0.needs_helper(number)?;
        asm.call(number);
        Ok(())
    }

    /// `dst = the current task`, as a pointer that may be followed.
    fn current(&self, asm: &mut Asm, dst: Reg) -> Result<(), Ended> {
        self.call(asm, helper::GET_CURRENT_TASK_BTF)?;
        asm.mov_reg(dst, Reg::R0);
        Ok(())
    }

    /// The BTF id of a kfunc.
    fn kfunc(&self, name: &str) -> Result<u32, Ended> {
        self.0.kfunc(name)
    }
}

/// `dst = argument number n`.
fn argument(asm: &mut Asm, dst: Reg, n: i32) {
    asm.ldx(Size::DW, dst, CTX, 8 * n);
}

/// `reg = *(u64 *)(reg + off)`.
fn walk(asm: &mut Asm, reg: Reg, off: i64) {
    asm.ldx(Size::DW, reg, reg, off);
}
