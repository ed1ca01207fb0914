//! Which programs run, in which order, with which `ret`, and whose verdict user space sees.

use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{Attached, CTX, LsmProgram, deny};
use crate::rules::{
    Chain, EXEC, NTH, OPEN, Place, Round, SESSION, Site, VOID, note, saying, sequences, verdict_word,
};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::triggers::tasks;

/// What programs return.
const CHOICES: [i32; 3] = [0, deny(Errno::EPERM), deny(Errno::EACCES)];

/// Every order of verdicts of `count` programs. A fact's name is the verdicts in the order of attaching.
pub(super) fn table(session: &mut Session<'_>, count: i32) -> Result<(), Stop> {
    session.case("every-order-of-verdicts", |attempt| {
        let mut chain = Chain::of(attempt, SESSION, count)?;
        let all: Vec<usize> = (0..chain.attached.len()).collect();
        see_rounds(attempt, &mut chain, &all)
    })
}

/// Does a round for every order of verdicts of the programs in `alive`, and says whether one rule explains them all.
fn see_rounds(attempt: &mut Attempt<'_>, chain: &mut Chain, alive: &[usize]) -> Result<(), Ended> {
    let mut as_expected = true;
    let mut denied = true;
    for choice in sequences(alive.len(), &CHOICES) {
        let mut verdicts = vec![0; chain.attached.len()];
        for (&number, &verdict) in alive.iter().zip(&choice) {
            verdicts[number] = verdict;
        }
        let round = chain.round(attempt, &verdicts);
        let names: Vec<String> = choice.iter().map(|&verdict| verdict_word(verdict)).collect();
        attempt.see(&names.join(", "), round.words(&NTH, true));
        let (order, verdict) = last_first(alive, &verdicts);
        as_expected &= round.order_is(&order);
        denied &= round.outcome.as_ref().err().map(|errno| deny(*errno)) == verdict;
    }
    if alive.len() > 1 {
        attempt.holds("the one attached last runs first, and a denial stops the others", as_expected);
    }
    attempt.holds("user space sees the first denial of that order, if there is one", denied);
    attempt.ran(chain.has_run());
    attempt.denied(denied);
    Ok(())
}

/// Who runs and which verdict counts, if the one attached last runs first and a denial stops the others.
fn last_first(alive: &[usize], verdicts: &[i32]) -> (Vec<usize>, Option<i32>) {
    let mut order = Vec::new();
    for &number in alive.iter().rev() {
        order.push(number);
        if verdicts[number] != 0 {
            return (order, Some(verdicts[number]));
        }
    }
    (order, None)
}

/// One program on a hook where PID 1 keeps none.
pub(super) fn alone(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("every-verdict", |attempt| {
        let site = Site { hook: "task_getpgid", ret: Some(1), recipe: tasks::get_group };
        let mut chain = Chain::of(attempt, site, 1)?;
        see_rounds(attempt, &mut chain, &[0])
    })
}

/// Three programs, of which one is taken out.
pub(super) fn detached(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, out) in [("the-first", 0), ("the-middle-one", 1), ("the-last", 2)] {
        session.case(name, |attempt| {
            let mut chain = Chain::of(attempt, SESSION, 3)?;
            chain.detach(out);
            let left: Vec<usize> = (0..3).filter(|&number| number != out).collect();
            see_rounds(attempt, &mut chain, &left)
        })?;
    }
    Ok(())
}

/// Two programs, of which the first is detached and attached again.
pub(super) fn attached_again(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("the-first-of-two", |attempt| {
        let mut chain = Chain::of(attempt, SESSION, 2)?;
        let before = chain.round(attempt, &[0, 0]);
        attempt.see("before", before.words(&NTH, true));
        attempt.ran(chain.has_run());
        if let Some(Attached { program, link }) = chain.attached[0].take() {
            drop(link);
            let link = attempt.attach(&program)?;
            chain.attached[0] = Some(Attached { program, link });
        }
        for (key, verdicts) in [
            ("after, both 0", [0, 0]),
            ("after, first -EPERM, second -EACCES", [deny(Errno::EPERM), deny(Errno::EACCES)]),
        ] {
            let round = chain.round(attempt, &verdicts);
            attempt.see(key, round.words(&NTH, true));
            round.note_verdicts(attempt, &verdicts);
        }
        Ok(())
    })
}

/// A sleepable and a plain program on a hook that takes both, in both orders of attaching, and three mixed.
pub(super) fn sleepable_and_plain(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, mix) in [
        ("plain-then-sleepable", &[false, true][..]),
        ("sleepable-then-plain", &[true, false]),
        ("plain-sleepable-plain", &[false, true, false]),
    ] {
        session.case(name, |attempt| {
            let mut chain = Chain::new(attempt, OPEN)?;
            for &sleepable in mix {
                chain.add(attempt, |program| if sleepable { program.sleepable() } else { program })?;
            }
            let all: Vec<usize> = (0..mix.len()).collect();
            see_rounds(attempt, &mut chain, &all)
        })?;
    }
    session.case("void-hook-plain-sleepable-plain", |attempt| {
        let mut chain = Chain::new(attempt, EXEC)?;
        for sleepable in [false, true, false] {
            chain.add(attempt, |program| if sleepable { program.sleepable() } else { program })?;
        }
        let round = chain.round(attempt, &[]);
        attempt.runs(chain.results.runs());
        attempt.see("round", round.words(&NTH, false));
        Ok(())
    })
}

/// Programs on a void hook; nothing that they return is a denial.
pub(super) fn void(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, verdict) in [("both-0", 0), ("both-EPERM", deny(Errno::EPERM)), ("both-1", 1)] {
        session.case(name, |attempt| {
            let mut chain = of_void(attempt, 2, verdict)?;
            let round = chain.round(attempt, &[]);
            attempt.runs(chain.results.runs());
            see_plain(attempt, &round);
            Ok(())
        })?;
    }
    session.case("three-and-without-the-middle-one", |attempt| {
        let mut chain = of_void(attempt, 3, 0)?;
        let round = chain.round(attempt, &[]);
        attempt.see("three", round.words(&NTH, false));
        chain.detach(1);
        let round = chain.round(attempt, &[]);
        attempt.see("without the second", round.words(&NTH, false));
        attempt.runs(chain.results.runs());
        Ok(())
    })
}

/// So many programs on a void hook that all return `verdict`.
fn of_void(attempt: &mut Attempt<'_>, count: i32, verdict: i32) -> Result<Chain, Ended> {
    let mut chain = Chain::new(attempt, VOID)?;
    for number in 0..count {
        let program = saying(&VOID, &chain.results, number, i64::from(verdict).cast_unsigned());
        chain.push(attempt, &program)?;
    }
    Ok(chain)
}

fn see_plain(attempt: &mut Attempt<'_>, round: &Round) {
    let names: Vec<&str> =
        round.ran.iter().map(|&(number, _)| NTH.get(number).copied().unwrap_or("another")).collect();
    attempt.see("programs run, in order", names.join(", "));
    attempt.outcome("user space sees", &round.outcome);
}

/// The documented first lines, `if (ret != 0) return ret;`, before and after a program that denies.
pub(super) fn return_ret(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, denier_first) in [("denier-attached-first", true), ("denier-attached-last", false)] {
        session.case(name, |attempt| {
            let mut chain = Chain::new(attempt, SESSION)?;
            for number in 0..2 {
                let denies = (number == 0) == denier_first;
                let program =
                    if denies { denier(&chain, number) } else { passing_on(&chain, Place::nth(number)) };
                chain.push(attempt, &program)?;
            }
            let round = chain.round(attempt, &[]);
            attempt.runs(chain.results.runs());
            let names =
                if denier_first { ["the denier", "the example"] } else { ["the example", "the denier"] };
            attempt.see("round", round.words(&names, true));
            attempt.denial("user space sees", &round.outcome, Errno::EPERM);
            Ok(())
        })?;
    }
    Ok(())
}

fn denier(chain: &Chain, number: i32) -> LsmProgram {
    saying(&SESSION, &chain.results, number, i64::from(deny(Errno::EPERM)).cast_unsigned())
}

fn passing_on(chain: &Chain, place: Place) -> LsmProgram {
    LsmProgram::framed(SESSION.hook, &chain.results, |asm| {
        note(asm, place, SESSION.ret);
        asm.ldx(Size::DW, Reg::R0, CTX, 8)
            .jeq_imm(Reg::R0, 0, "pass")
            .jsgt_imm(Reg::R0, 0, "pass")
            .jslt_imm(Reg::R0, -4095, "pass")
            .exit();
    })
}
