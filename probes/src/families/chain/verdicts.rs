//! Verdicts that are neither 0 nor a small errno, and hooks whose default is not 0.

use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{LsmProgram, PAGE, deny};
use crate::rules::{Chain, NTH, Place, Round, SESSION, Site, judge, note, saying};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::triggers::{Act, Arm, OK, Recipe, Seen, mounts, sockets, system, tasks, xattrs};
use nix::unistd::{Pid, getsid};

/// getsid(2), whose result is what the hook returned when that is not 0.
const NUMBER: Site = Site { hook: SESSION.hook, ret: SESSION.ret, recipe: session_number };
const PRCTL: Site = Site { hook: "task_prctl", ret: Some(5), recipe: tasks::prctl };

/// Numbers that programs return and user space may see.
const NUMBERS: &[(i64, &str)] = &[
    (1, "1"),
    (4096, "4096"),
    (-4096, "-4096"),
    (-100_000, "-100000"),
    (0, "0"),
    (2_147_483_647, "2147483647"),
];

fn session_number() -> Result<Act, Errno> {
    let own = getsid(None)?;
    Ok(Box::new(move |arm: Arm| {
        // libc and not nix, which folds the errnos that it has no name for into one. Only -1 is a failure.
        // SAFETY: getsid takes a number.
        let number = arm.during(|| i64::from(unsafe { libc::getsid(Pid::this().as_raw()) }));
        if number == -1 {
            return Err(Errno::last());
        }
        if number == i64::from(own.as_raw()) {
            return Ok(OK);
        }
        let known = NUMBERS.iter().find(|&&(known, _)| known == number);
        Ok(Seen(known.map_or("another number", |&(_, name)| name)))
    }))
}

/// A denier, and attached after it a program that returns `verdict`: whether that one stops the denier.
fn over_a_denier(attempt: &mut Attempt<'_>, verdict: u64) -> Result<(), Ended> {
    let mut chain = Chain::new(attempt, NUMBER)?;
    let odd = saying(&NUMBER, &chain.results, 1, verdict);
    // The odd one is loaded first: a refusal is the answer, and needs nothing attached.
    let odd = attempt.load_lsm(&odd)?;
    let denier = saying(&NUMBER, &chain.results, 0, i64::from(deny(Errno::EPERM)).cast_unsigned());
    chain.push(attempt, &denier)?;
    let _link = attempt.attach(&odd)?;
    let round = chain.round(attempt, &[]);
    see(attempt, &chain, &round, &["the denier, attached first", "the program with this verdict"]);
    let verdict = i32::try_from(verdict.cast_signed()).unwrap_or(0); // beyond 32 bits it is no errno
    round.note_verdicts(attempt, &[deny(Errno::EPERM), verdict]);
    chain.detach(0);
    let round = chain.round(attempt, &[]);
    attempt.see("without the denier", round.words(&["the denier", "the program"], true));
    Ok(())
}

fn see(attempt: &mut Attempt<'_>, chain: &Chain, round: &Round, names: &[&str]) {
    attempt.runs(chain.results.runs());
    attempt.see("round", round.words(names, true));
}

/// Constants whose low half is 0, and one whose half the verifier cannot know.
pub(super) fn high_bits(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, verdict) in
        [("bit-32", 1_u64 << 32), ("bit-63", 1 << 63), ("all-of-the-high-half", 0xffff_ffff_0000_0000)]
    {
        session.case(name, |attempt| over_a_denier(attempt, verdict))?;
    }
    session.case("unknown-to-the-verifier", |attempt| {
        let mut chain = Chain::new(attempt, NUMBER)?;
        let place = Place::nth(0);
        let program = LsmProgram::framed(NUMBER.hook, &chain.results, |asm| {
            note(asm, place, NUMBER.ret);
            asm.ldx(Size::DW, Reg::R0, PAGE, place.extra()).exit();
        });
        chain.results.set(place.extra(), 1 << 32);
        chain.push(attempt, &program)?;
        let round = chain.round(attempt, &[]);
        see(attempt, &chain, &round, &NTH);
        Ok(())
    })
}

/// 1, which some hooks give back as if it were a result, and a larger number.
pub(super) fn positive(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, verdict) in [("one", 1_u64), ("4096", 4096), ("largest", 0x7fff_ffff)] {
        session.case(name, |attempt| over_a_denier(attempt, verdict))?;
    }
    Ok(())
}

/// -EPERM with 32 bits, once as a constant and once computed.
pub(super) fn narrow(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("constant", |attempt| {
        let chain = Chain::new(attempt, NUMBER)?;
        let program = LsmProgram::framed(NUMBER.hook, &chain.results, |asm| {
            note(asm, Place::nth(0), NUMBER.ret);
            asm.mov32_imm(Reg::R0, deny(Errno::EPERM)).exit();
        });
        fire_narrow(attempt, chain, &program)
    })?;
    session.case("negated", |attempt| {
        let chain = Chain::new(attempt, NUMBER)?;
        let program = LsmProgram::framed(NUMBER.hook, &chain.results, |asm| {
            note(asm, Place::nth(0), NUMBER.ret);
            asm.mov_imm(Reg::R0, Errno::EPERM.raw()).neg32(Reg::R0).exit();
        });
        fire_narrow(attempt, chain, &program)
    })
}

fn fire_narrow(attempt: &mut Attempt<'_>, mut chain: Chain, program: &LsmProgram) -> Result<(), Ended> {
    chain.push(attempt, program)?;
    let round = chain.round(attempt, &[]);
    attempt.runs(chain.results.runs());
    attempt.denial("user space sees", &round.outcome, Errno::EPERM);
    Ok(())
}

/// Numbers that user space takes for a result, not for an errno.
pub(super) fn beyond(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, verdict) in [("minus-4095", -4095_i64), ("minus-4096", -4096), ("minus-100000", -100_000)] {
        session.case(name, |attempt| over_a_denier(attempt, verdict.cast_unsigned()))?;
    }
    Ok(())
}

/// Errnos as numbers from user space, and those that the kernel uses inside.
pub(super) fn every_errno(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("numbers", |attempt| {
        let mut chain = Chain::of(attempt, NUMBER, 1)?;
        let mut changed = Vec::new();
        for number in 1..=133 {
            let round = chain.round(attempt, &[-number]);
            if round.outcome != Err(Errno::from_raw(number)) {
                changed.push(number);
            }
        }
        attempt.ran(chain.has_run());
        attempt.denied(changed.is_empty());
        attempt.see("changed on the way", changed);
        Ok(())
    })?;
    session.case("numbers-of-the-kernel", |attempt| {
        let mut chain = Chain::of(attempt, NUMBER, 1)?;
        for number in [134, 511, 512, 513, 514, 515, 516, 517, 524, 530, 4094, 4095] {
            let round = chain.round(attempt, &[-number]);
            let seen = match &round.outcome {
                Ok(seen) => seen.0.to_owned(),
                Err(errno) => errno.raw().to_string(),
            };
            attempt.see(&number.to_string(), seen);
        }
        attempt.ran(chain.has_run());
        Ok(())
    })
}

/// `task_prctl`, whose default is -ENOSYS: "not mine", upon which the kernel goes on.
pub(super) fn default_not_zero(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("task_prctl", |attempt| {
        let mut chain = Chain::of(attempt, PRCTL, 2)?;
        for (key, verdicts) in [
            ("0, 0", [0, 0]),
            ("0, -EPERM", [0, deny(Errno::EPERM)]),
            ("-EPERM, 0", [deny(Errno::EPERM), 0]),
            ("-EACCES, -EPERM", [deny(Errno::EACCES), deny(Errno::EPERM)]),
        ] {
            let round = chain.round(attempt, &verdicts);
            attempt.see(key, round.words(&NTH, true));
            round.note_verdicts(attempt, &verdicts);
        }
        attempt.ran(chain.has_run());
        Ok(())
    })
}

/// The same hook: a program that returns -ENOSYS, attached after one that denies.
pub(super) fn default_returned(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("task_prctl", |attempt| {
        let mut chain = Chain::of(attempt, PRCTL, 2)?;
        let round = chain.round(attempt, &[deny(Errno::EPERM), deny(Errno::ENOSYS)]);
        attempt.runs(chain.results.runs());
        attempt.see("-EPERM, -ENOSYS", round.words(&NTH, true));
        attempt.see(
            "the denial of the one attached first",
            if round.outcome.is_ok() { "does not take effect" } else { "takes effect" },
        );
        Ok(())
    })
}

/// A hook whose default is not 0: its trigger, and the default.
struct Defaulting {
    hook: &'static str,
    recipe: Recipe,
    default: (i32, &'static str),
}

/// What the kernel answers for itself when no LSM has an opinion, and could not if one said 0.
const DEFAULTING: [Defaulting; 5] = [
    // include/linux/errno.h, ENOPARAM.
    Defaulting {
        hook: "fs_context_parse_param",
        recipe: mounts::unknown_option,
        default: (-519, "-ENOPARAM"),
    },
    Defaulting {
        hook: "inode_setsecurity",
        recipe: xattrs::unstored,
        default: (-libc::EOPNOTSUPP, "-EOPNOTSUPP"),
    },
    Defaulting {
        hook: "inode_getsecurity",
        recipe: xattrs::not_stored,
        default: (-libc::EOPNOTSUPP, "-EOPNOTSUPP"),
    },
    Defaulting {
        hook: "setselfattr",
        recipe: system::set_own_attribute,
        default: (-libc::EOPNOTSUPP, "-EOPNOTSUPP"),
    },
    Defaulting {
        hook: "socket_getpeersec_stream",
        recipe: sockets::peer_label,
        default: (-libc::ENOPROTOOPT, "-ENOPROTOOPT"),
    },
];

/// One program, which returns 0, the default, and a denial.
pub(super) fn zero_for_default(session: &mut Session<'_>) -> Result<(), Stop> {
    for Defaulting { hook, recipe, default: (number, name) } in DEFAULTING {
        session.case(hook, |attempt| {
            // Where `ret` stands depends on the kernel, and is not asked.
            let site = Site { hook, ret: None, recipe };
            let mut chain = Chain::new(attempt, site)?;
            let before = chain.round(attempt, &[]);
            let place = Place::nth(0);
            let program = LsmProgram::framed(hook, &chain.results, |asm| {
                note(asm, place, None);
                judge(asm, place);
            });
            chain.push(attempt, &program)?;
            attempt.see("no program", seen(&before));
            for (key, verdict) in [("0", 0), (name, number)] {
                let round = chain.round(attempt, &[verdict]);
                attempt.see(key, round_word(&round));
            }
            let denied = chain.round(attempt, &[deny(Errno::EPERM)]);
            attempt.see("-EPERM", round_word(&denied));
            let zero = chain.round(attempt, &[0]);
            if !chain.has_run() {
                // Another LSM has answered, and bpf comes after it (6.7 security/security.c,
                // security_socket_getpeersec_stream): no verdict of the program's says anything.
                let why = "the program does not run; an LSM before bpf may have answered";
                return Err(Ended::CouldNotTell(why.to_owned()));
            }
            denied.note_verdicts(attempt, &[deny(Errno::EPERM)]);
            attempt.ran(true);
            attempt.holds("0 is as if there were no program", zero.outcome == before.outcome);
            Ok(())
        })?;
    }
    Ok(())
}

fn seen(round: &Round) -> String {
    round.outcome.as_ref().map_or_else(|errno| errno.name(), |seen| seen.0.to_owned())
}

fn round_word(round: &Round) -> String {
    if round.ran.is_empty() { format!("it is not asked; {}", seen(round)) } else { seen(round) }
}
