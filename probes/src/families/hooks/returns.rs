//! Which return values the verifier lets a program have.
//!
//! Since 6.11 it holds them against a range (7.1 kernel/bpf/bpf_lsm.c, `bpf_lsm_get_retval_range`: -4095 to 0, for a few
//! hooks 0 to 1, for void hooks none); before, it takes any number (6.0 kernel/bpf/verifier.c, `check_return_code`).

use super::prototype::Returns;
use super::survey::{Subject, finish};
use crate::asm::Asm;
use crate::bpf::LoadError;
use crate::helper;
use crate::insn::{Insn, Reg};
use crate::session::{Attempt, Ended};
use std::sync::atomic::{AtomicBool, Ordering};

/// What a program leaves in R0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// This number.
    Number(i64),
    /// A number of which the verifier knows nothing.
    Unknown,
}

/// The values asked about, by the name that they have in a record.
const VALUES: [(&str, Value); 9] = [
    ("0", Value::Number(0)),
    ("1", Value::Number(1)),
    ("2", Value::Number(2)),
    ("-1", Value::Number(-1)),
    ("-4095", Value::Number(-4095)),
    ("-4096", Value::Number(-4096)),
    ("13 (EACCES without its sign)", Value::Number(libc::EACCES as i64)),
    ("only high bits", Value::Number(1 << 32)),
    ("unknown", Value::Unknown),
];

/// Whether this kernel has refused a program with all values for a function that returns something. As long as it has not,
/// such a program is tried first; the probes of one worker share this, and it decides about no answer.
static PARTICULAR: AtomicBool = AtomicBool::new(false);

/// Whether a function that returns this seems to be made for the value. It decides only about which values are asked
/// together, never about an answer.
const fn is_usual(value: Value, returns: Returns) -> bool {
    match (value, returns) {
        (_, Returns::Nothing) => true,
        (Value::Unknown, Returns::Bool | Returns::Number) => false,
        // What is above the lower half is ignored where the range is held against 32 bits.
        (Value::Number(number), Returns::Number) => (number >= -4095 && number <= 0) || number == 1 << 32,
        (Value::Number(number), Returns::Bool) => number == 0 || number == 1,
    }
}

/// Asks about each value and notes the answer.
///
/// One program can have a branch for each of several values; a kernel that takes it takes them all. So all are asked about
/// together, or the usual ones where a kernel has been seen to be particular. A refusal says nothing of the values that
/// the verifier had not come to: then each is asked about alone.
pub(super) fn ask(attempt: &mut Attempt<'_>, subject: &Subject<'_>) -> Result<(), Ended> {
    let mut answers: [Option<Result<(), LoadError>>; VALUES.len()] = [const { None }; VALUES.len()];
    let all: Vec<usize> = (0..VALUES.len()).collect();
    let is_usual = |at: &usize| is_usual(VALUES[*at].1, subject.prototype.returns);
    let usual: Vec<usize> = all.iter().copied().filter(is_usual).collect();
    let first = if PARTICULAR.load(Ordering::Relaxed) { &usual } else { &all };
    if !ask_together(attempt, subject, first, &mut answers)? && first.len() > usual.len() {
        PARTICULAR.store(true, Ordering::Relaxed);
        ask_together(attempt, subject, &usual, &mut answers)?;
    }
    for (at, answer) in answers.into_iter().enumerate() {
        let answer = match answer {
            Some(answer) => answer,
            None => subject.ask(attempt, program(&[at])?, 1).map(drop),
        };
        attempt.answer(VALUES[at].0, &answer);
    }
    let mut nothing = Asm::new();
    nothing.exit();
    let answer = subject.ask(attempt, finish(&nothing)?, 1);
    attempt.answer("R0 not set", &answer);
    Ok(())
}

/// Sets the answers of these values if the kernel takes a program with all of them; whether it does.
fn ask_together(
    attempt: &mut Attempt<'_>,
    subject: &Subject<'_>,
    values: &[usize],
    answers: &mut [Option<Result<(), LoadError>>],
) -> Result<bool, Ended> {
    let taken = !values.is_empty() && subject.ask(attempt, program(values)?, 0).is_ok();
    if taken {
        for &at in values {
            answers[at] = Some(Ok(()));
        }
    }
    Ok(taken)
}

/// A program that ends with each of the values, as a number decides that the verifier does not know.
fn program(values: &[usize]) -> Result<Vec<Insn>, Ended> {
    let mut asm = Asm::new();
    asm.call(helper::GET_CURRENT_PID_TGID).mov_reg(Reg::R6, Reg::R0);
    let (last, others) = values.split_last().map_or((None, values), |(last, others)| (Some(last), others));
    for &at in others {
        asm.jeq_imm(Reg::R6, i32::try_from(at).unwrap_or(0), VALUES[at].0);
    }
    for &at in last.into_iter().chain(others) {
        asm.label(VALUES[at].0);
        match VALUES[at].1 {
            Value::Number(number) => asm.ld_imm64(Reg::R0, number.cast_unsigned()),
            Value::Unknown => asm.call(helper::GET_CURRENT_PID_TGID),
        };
        asm.exit();
    }
    finish(&asm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Returns::Number, &["0", "-1", "-4095", "only high bits"])]
    #[case(Returns::Bool, &["0", "1"])]
    fn usual_values(#[case] returns: Returns, #[case] expected: &[&str]) {
        let usual: Vec<&str> =
            VALUES.iter().filter(|(_, value)| is_usual(*value, returns)).map(|(name, _)| *name).collect();
        assert_eq!(usual, expected);
    }

    #[test]
    fn every_value_has_an_end_of_its_own() {
        let all: Vec<usize> = (0..VALUES.len()).collect();
        let exit = finish(Asm::new().exit()).unwrap();
        let ends = program(&all).unwrap().iter().filter(|insn| **insn == exit[0]).count();
        assert_eq!(ends, VALUES.len());
        assert_eq!(program(&[0]).unwrap().iter().filter(|insn| **insn == exit[0]).count(), 1);
    }
}
