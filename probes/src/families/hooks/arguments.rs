//! What the verifier lets a program read of its context, and what it calls what is there.

use super::states;
use super::survey::{Subject, finish};
use crate::asm::Asm;
use crate::bpf::LoadError;
use crate::insn::{Insn, Reg, Size};
use crate::session::{Attempt, Ended};

/// The registers that one program reads slots into, by number.
const FIRST: u8 = 2;
const LAST: u8 = 9;

/// Reads every slot that the prototype promises, and the one after the last.
///
/// One program reads as many slots as it has registers for; where it is refused, each is read by a program of its own.
pub(super) fn ask(attempt: &mut Attempt<'_>, subject: &Subject<'_>) -> Result<(), Ended> {
    let slots = &subject.prototype.slots;
    let numbers: Vec<usize> = (0..slots.len()).collect();
    for together in numbers.chunks(usize::from(LAST - FIRST) + 1) {
        let read = subject.ask(attempt, program(together)?, 2);
        for (&slot, register) in together.iter().zip(usize::from(FIRST)..) {
            let key = format!("{slot} {}", slots[slot]);
            match &read {
                Ok(loaded) => attempt.see(&key, state(&loaded.log, register)),
                Err(_) => see_alone(attempt, subject, slot, &key)?,
            }
        }
    }
    let beyond = slots.len();
    match subject.ask(attempt, program(&[beyond])?, 1) {
        Ok(_) => attempt.see(&format!("{beyond}, the one after the last"), "may be read"),
        Err(refused) => attempt.answer(&format!("{beyond}, the one after the last"), &Err::<(), _>(refused)),
    }
    Ok(())
}

fn see_alone(attempt: &mut Attempt<'_>, subject: &Subject<'_>, slot: usize, key: &str) -> Result<(), Ended> {
    let read: Result<_, LoadError> = subject.ask(attempt, program(&[slot])?, 2);
    match read {
        Ok(loaded) => attempt.see(key, state(&loaded.log, usize::from(FIRST))),
        Err(refused) => attempt.answer(key, &Err::<(), _>(refused)),
    }
    Ok(())
}

fn state(log: &str, register: usize) -> String {
    states::of_register(log, register).unwrap_or_else(|| "the log does NOT say".to_owned())
}

/// Reads these slots into registers from [`FIRST`] on.
fn program(slots: &[usize]) -> Result<Vec<Insn>, Ended> {
    let mut asm = Asm::new();
    for (&slot, register) in
        slots.iter().zip([Reg::R2, Reg::R3, Reg::R4, Reg::R5, Reg::R6, Reg::R7, Reg::R8, Reg::R9])
    {
        asm.ldx(Size::DW, register, Reg::R1, i64::try_from(slot * 8).unwrap_or(i64::MAX));
    }
    asm.mov_imm(Reg::R0, 0).exit();
    finish(&asm)
}
