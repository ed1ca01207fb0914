//! The policy of IMA, which it reads from a file where it is given a file's name.
//!
//! What the file holds is no rule, so that IMA refuses it once it has read it and keeps the policy that it has: rules
//! are only added to a policy (7.3 security/integrity/ima/ima_policy.c, `ima_update_policy`), and without
//! CONFIG_IMA_WRITE_POLICY and CONFIG_IMA_READ_POLICY its file goes with the first one (7.3
//! security/integrity/ima/ima_fs.c, `ima_release_policy`): the probes of IMA's helpers, which write one, have machines of
//! their own.

use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, LsmProgram, PAGE, deny};
use crate::results::{FREE, Results};
use crate::session::{Ended, Session, Stop};
use crate::triggers::Arm;
use std::fs;

/// Where IMA takes a policy.
const POLICY: &str = "/sys/kernel/security/ima/policy";
/// The file that is named.
const FILE: &str = "/tmp/rules";
/// What is in it, and no rule.
const NO_RULE: &str = "no such rule\n";
/// An errno that IMA does not make itself.
const ASKED: Errno = Errno::EDQUOT;

pub(super) fn policy(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("denied-by-purpose", |attempt| {
        let policy = attempt.btf()?.enum_value(None, "READING_POLICY");
        let policy = policy.ok_or_else(|| Ended::Absent("READING_POLICY".to_owned()))?;
        if fs::metadata("/sys/kernel/security/ima").is_err() {
            return Err(Ended::Absent("IMA".to_owned()));
        }
        fs::metadata(POLICY).map_err(|error| Ended::could_not("find where IMA takes a policy", error))?;
        fs::write(FILE, NO_RULE).map_err(|error| Ended::could_not("write a file of rules", error))?;
        let mut results = attempt.results()?;
        results.name_nobody();
        let program = LsmProgram::framed("kernel_read_file", &results, |asm| {
            asm.ldx(Size::DW, Reg::R1, CTX, 8).stx(Size::W, PAGE, FREE, Reg::R1);
            asm.jne32_imm(Reg::R1, policy, "pass").mov_imm(Reg::R0, deny(ASKED)).exit();
        });
        let named = give(&results, &format!("{FILE}\n"));
        attempt.outcome("a file without a rule, without the program", &named);
        let attached = attempt.attach_lsm(&program)?;
        let named = attempt.trigger(|| give(&results, &format!("{FILE}\n")));
        attempt.runs(results.runs());
        attempt.denial("the same", &named, ASKED);
        attempt.holds("it is read for READING_POLICY", results.get(FREE) == policy.cast_unsigned());
        let before = results.runs();
        attempt.outcome("no rule, written directly", &give(&results, NO_RULE));
        attempt.see("runs for that", results.runs() - before);
        drop(attached);
        Ok(())
    })
}

/// Gives IMA a policy.
fn give(results: &Results, text: &str) -> Result<(), Errno> {
    Ok(Arm::new(results).during(|| fs::write(POLICY, text))?)
}
