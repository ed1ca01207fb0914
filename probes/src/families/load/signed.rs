//! Programs with a signature: what the kernel says of right and wrong ones, and what an LSM program learns of them that
//! decides which programs may be loaded.
//!
//! What is signed are the instructions of [`super::names::allowing`].

use super::names::allowing;
use crate::bpf::{self, BPF_LSM_MAC, LoadError, Loaded, ProgSpec, Signature};
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{CTX, LsmProgram, PAGE};
use crate::results::{FREE, Results};
use crate::rules::outcome_word;
use crate::rules::signer::{self, OWN, SIGNATURE, SIGNER, USERS};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::triggers::Arm;

/// Of built-in keys, and with those that were added (6.18 include/linux/verification.h).
const BUILT_IN: i32 = 0;
const SECONDARY: i32 = 1;
/// No key has a negative number, and none of the special ones is this.
const NONE: i32 = -1000;

fn whole(bytes: &[u8], keyring: i32) -> Signature<'_> {
    Signature { bytes, size: u32::try_from(bytes.len()).unwrap_or(u32::MAX), keyring }
}

fn spec(attempt: &Attempt<'_>) -> Result<ProgSpec, Ended> {
    allowing(attempt.hook("file_open")?, BPF_LSM_MAC)
}

fn load(spec: &ProgSpec, signature: Option<Signature<'_>>) -> Result<Loaded, LoadError> {
    match signature {
        Some(signature) => bpf::prog_load_signed(spec, signature),
        None => bpf::prog_load_told(spec, 1),
    }
}

/// Ends the case where programs have no signature: any number in its place is E2BIG, whatever it says (6.17
/// kernel/bpf/syscall.c, `__sys_bpf`).
fn known(attempt: &Attempt<'_>) -> Result<(), Ended> {
    let found = attempt.btf()?.member("bpf_attr", "signature");
    found.map(drop).map_err(|error| Ended::Absent(error.to_string()))
}

/// Cases of one load each.
pub(super) fn loaded(session: &mut Session<'_>) -> Result<(), Stop> {
    let none = Signature { size: 0, ..whole(SIGNATURE, OWN) };
    for (name, signature) in [
        ("right", whole(SIGNATURE, OWN)),
        ("key-not-in-that-keyring", whole(SIGNATURE, USERS)),
        ("key-not-built-in", whole(SIGNATURE, BUILT_IN)),
        ("key-not-secondary", whole(SIGNATURE, SECONDARY)),
        ("no-such-keyring", whole(SIGNATURE, NONE)),
        ("a-certificate-for-a-signature", whole(SIGNER, OWN)),
        ("size-zero", none),
        ("address-zero", Signature { bytes: &[], size: 413, keyring: OWN }),
    ] {
        session.case(name, |attempt| {
            // The right one shows what a kernel says that knows none.
            if name != "right" {
                known(attempt)?;
            }
            signer::add()?;
            let answer = load(&spec(attempt)?, Some(signature));
            attempt.answered(answer).map(drop)
        })?;
    }
    session.case("of-another-program", |attempt| {
        known(attempt)?;
        signer::add()?;
        let mut spec = spec(attempt)?;
        if let Some(first) = spec.insns.first_mut() {
            first.imm = -1;
        }
        let answer = bpf::prog_load_signed(&spec, whole(SIGNATURE, OWN));
        attempt.answered(answer).map(drop)
    })?;
    // What is signed are the instructions.
    session.case("for-another-hook", |attempt| {
        known(attempt)?;
        signer::add()?;
        let spec = ProgSpec { attach_btf_id: attempt.hook("task_getsid")?, ..spec(attempt)? };
        let answer = bpf::prog_load_signed(&spec, whole(SIGNATURE, OWN));
        attempt.answered(answer).map(drop)
    })
}

/// Where the deciding program leaves what it read, in order; each is -1 where it read nothing.
const READ: [i32; 4] = [FREE, FREE + 8, FREE + 16, FREE + 24];

/// A program on `bpf_prog_load` that leaves what it finds of the signature, and denies programs that have none.
fn decider(attempt: &Attempt<'_>, results: &Results) -> Result<(LsmProgram, bool), Ended> {
    let btf = attempt.btf()?;
    let at = |record: &str, path: &str| btf.member(record, path).map(|member| member.byte_offset);
    let known = |path| at("bpf_attr", path).map_err(|error| Ended::Absent(error.to_string()));
    let (address, size, keyring) = (known("signature")?, known("signature_size")?, known("keyring_id")?);
    // A byte; there since 7.2.
    let verdict = at("bpf_prog", "aux").ok().zip(at("bpf_prog_aux", "sig.verdict").ok());
    let program = LsmProgram::framed("bpf_prog_load", results, |asm| {
        for place in READ {
            asm.st_imm(Size::DW, PAGE, place, -1);
        }
        asm.ldx(Size::DW, Reg::R8, CTX, 8);
        for (place, offset, width) in
            [(READ[0], address, Size::DW), (READ[1], size, Size::W), (READ[2], keyring, Size::W)]
        {
            asm.ldx(width, Reg::R1, Reg::R8, offset).stx(Size::DW, PAGE, place, Reg::R1);
        }
        if let Some((aux, verdict)) = verdict {
            asm.ldx(Size::DW, Reg::R1, CTX, 0).ldx(Size::DW, Reg::R1, Reg::R1, aux);
            asm.ldx(Size::B, Reg::R1, Reg::R1, verdict).stx(Size::DW, PAGE, READ[3], Reg::R1);
        }
        asm.ldx(Size::DW, Reg::R1, PAGE, READ[0]).jne_imm(Reg::R1, 0, "pass");
        asm.mov_imm(Reg::R0, crate::lsm::deny(Errno::EACCES)).exit();
    });
    Ok((program, verdict.is_some()))
}

/// What a program on `bpf_prog_load` reads of programs with and without a signature.
pub(super) fn decided(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, signature) in [
        ("without-signature", None),
        ("signed", Some(whole(SIGNATURE, OWN))),
        ("signed-wrongly", Some(whole(SIGNER, OWN))),
    ] {
        session.case(name, |attempt| decide(attempt, signature))?;
    }
    Ok(())
}

fn decide(attempt: &mut Attempt<'_>, signature: Option<Signature<'_>>) -> Result<(), Ended> {
    attempt.hook("bpf_prog_load")?;
    signer::add()?;
    let mut results = attempt.results()?;
    results.name_nobody();
    let (program, tells) = decider(attempt, &results)?;
    let _attached = attempt.attach_lsm(&program)?;
    let (arm, spec) = (Arm::new(&results), spec(attempt)?);
    let answer = attempt.trigger(|| arm.during(|| load(&spec, signature)));
    let answer = answer.map_err(|refused| refused.errno);
    let runs = results.runs();
    attempt.ran(runs > 0);
    attempt.see("BPF_PROG_LOAD", outcome_word(&answer));
    if runs > 0 {
        let read = READ.map(|place| results.get(place));
        let expected = signature.map_or(0, |signature| u64::from(signature.size));
        attempt.see("attr->signature", if read[0] == 0 { "null" } else { "an address" });
        attempt.same("attr->signature_size", read[1], expected);
        let keyring = signature.map_or(0, |signature| signature.keyring);
        attempt.same("attr->keyring_id", read[2], u64::from(keyring.cast_unsigned()));
        if tells {
            attempt.see("prog->aux->sig.verdict", read[3]);
        }
        if signature.is_none() {
            attempt.returned(&answer, Errno::EACCES);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insn::to_bytes;
    use crate::rules::signer::MESSAGE;

    #[test]
    fn what_is_signed_is_what_is_loaded() {
        let spec = allowing(1, BPF_LSM_MAC).ok().map(|spec| to_bytes(&spec.insns));
        assert_eq!(spec, Some(MESSAGE.to_vec()));
    }
}
