//! What a program of a cgroup may say, and what becomes of it.

use super::bench::{Does, NOTHING, add, inside, keep_shim, link, program, rounds, usual_is_accepted};
use crate::errno::Errno;
use crate::helper;
use crate::insn::Reg;
use crate::lsm::{LsmProgram, deny};
use crate::rules::{
    Cgroup, Chain, NTH, OPEN, Place, SESSION, Site, VOID, cgroup_frame, judge, note, saying, sequences,
};
use crate::session::{Attempt, Ended, Session, Stop};
use crate::triggers::{tasks, xattrs};

const EPERM: i32 = deny(Errno::EPERM);
/// The usual kind of hook, where nothing keeps the cgroup's programs their place.
const ORDERED: Site = Site { hook: "task_getpgid", ret: Some(1), recipe: tasks::get_group };
const EACCES: i32 = deny(Errno::EACCES);

pub(super) fn one(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("int-hook", |attempt| {
        let (cgroup, mut chain) = inside(attempt, SESSION)?;
        add(attempt, &mut chain, &SESSION, &cgroup, NOTHING)?;
        let round = chain.round(attempt, &[0]);
        attempt.denial("0", &round.outcome, Errno::EPERM);
        let round = chain.round(attempt, &[1]);
        attempt.outcome("1", &round.outcome);
        attempt.runs(chain.results.runs());
        Ok(())
    })
}

pub(super) fn range(session: &mut Session<'_>) -> Result<(), Stop> {
    for (kind, site) in [("int", SESSION), ("void", VOID)] {
        for verdict in [0, 1, 2, -1, -4096] {
            session.case(&format!("{kind}-{verdict}"), |attempt| {
                let chain = Chain::new(attempt, site)?;
                if verdict != 1 && (verdict, kind) != (0, "int") {
                    usual_is_accepted(attempt, &site, &chain)?;
                }
                let asm = cgroup_frame(&chain.results, |asm| {
                    asm.mov_imm(Reg::R0, verdict).exit();
                });
                attempt.load_lsm(&LsmProgram::of_cgroup(site.hook, asm)).map(drop)
            })?;
        }
    }
    Ok(())
}

pub(super) fn two(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("one-cgroup", |attempt| {
        let (cgroup, mut chain) = inside(attempt, SESSION)?;
        for _ in 0..2 {
            add(attempt, &mut chain, &SESSION, &cgroup, NOTHING)?;
        }
        rounds(attempt, &mut chain, &NTH, &sequences(2, &[1, 0]));
        Ok(())
    })
}

/// Programs on `paths`, the last of which this process is in.
fn levels(attempt: &mut Attempt<'_>, paths: &[&str]) -> Result<(Vec<Cgroup>, Chain), Ended> {
    let mut chain = Chain::new(attempt, SESSION)?;
    drop(attempt.load_lsm(&program(&SESSION, &chain, 0, NOTHING))?);
    keep_shim(attempt, &SESSION)?;
    let mut cgroups = Vec::new();
    for path in paths {
        cgroups.push(Cgroup::new(path)?);
    }
    for cgroup in &cgroups {
        add(attempt, &mut chain, &SESSION, cgroup, NOTHING)?;
        cgroup.enter()?;
    }
    // Dropped from the first on, but a cgroup goes only after its children.
    cgroups.reverse();
    Ok((cgroups, chain))
}

pub(super) fn two_levels(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("ancestor-then-child", |attempt| {
        let (_cgroups, mut chain) = levels(attempt, &["outer", "outer/inner"])?;
        rounds(attempt, &mut chain, &["the ancestor's", "the child's"], &sequences(2, &[1, 0]));
        Ok(())
    })
}

pub(super) fn three_levels(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("from-the-top", |attempt| {
        let (_cgroups, mut chain) = levels(attempt, &["outer", "outer/middle", "outer/middle/inner"])?;
        rounds(attempt, &mut chain, &["the outer", "the middle", "the inner"], &sequences(3, &[1, 0]));
        Ok(())
    })
}

pub(super) fn one_or_all(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("three-programs", |attempt| {
        let (cgroups, mut chain) = levels(attempt, &["outer", "outer/inner"])?;
        let inner = &cgroups[0];
        add(attempt, &mut chain, &SESSION, inner, NOTHING)?;
        let (mut one_suffices, mut all_must) = (true, true);
        for verdicts in sequences(3, &[1, 0]) {
            let granted = chain.round(attempt, &verdicts).outcome.is_ok();
            one_suffices &= granted == verdicts.contains(&1);
            all_must &= granted != verdicts.contains(&0);
        }
        attempt.ran(chain.has_run());
        attempt.denied(all_must || one_suffices);
        attempt.see("one granting program suffices", if one_suffices { "yes" } else { "no" });
        attempt.see("all must grant", if all_must { "yes" } else { "no" });
        Ok(())
    })
}

pub(super) fn void(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("returns-1", |attempt| {
        let (cgroup, mut chain) = inside(attempt, VOID)?;
        add(attempt, &mut chain, &VOID, &cgroup, NOTHING)?;
        let round = chain.round(attempt, &[]);
        attempt.runs(chain.results.runs());
        attempt.outcome("user space sees", &round.outcome);
        Ok(())
    })
}

pub(super) fn sleepable(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("on-a-hook-that-may-sleep", |attempt| {
        let chain = Chain::new(attempt, OPEN)?;
        let program = attempt.load_lsm(&program(&OPEN, &chain, 0, NOTHING).sleepable())?;
        let cgroup = Cgroup::new("inside")?;
        cgroup.enter()?;
        let mut chain = chain;
        let link = link(attempt, &program, &cgroup)?;
        let _round = chain.round(attempt, &[1]);
        attempt.runs(chain.results.runs());
        drop(link);
        Ok(())
    })
}

/// A program of BPF_LSM_MAC, 0 or -EPERM, and one of a cgroup, 1 or 0, in both orders of attaching.
pub(super) fn mac_and_cgroup(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, mac_first) in [("mac-attached-first", true), ("cgroup-attached-first", false)] {
        session.case(name, |attempt| {
            let (_cgroup, mut chain) = both(attempt, ORDERED, mac_first)?;
            let (mac, of_cgroup) = if mac_first { (0, 1) } else { (1, 0) };
            let mut names = ["the MAC program"; 2];
            names[of_cgroup] = "the cgroup's program";
            for (mac_says, cgroup_says) in [(0, 1), (0, 0), (EACCES, 1), (EACCES, 0)] {
                let mut verdicts = [0; 2];
                verdicts[mac] = mac_says;
                verdicts[of_cgroup] = cgroup_says;
                let round = chain.round(attempt, &verdicts);
                let mac_says = if mac_says == 0 { "0" } else { "-EACCES" };
                let key = format!("MAC {mac_says}, cgroup {cgroup_says}");
                attempt.see(&key, round.words(&names, false));
                round.note_denials(attempt, |number| match (number == mac, verdicts.get(number)) {
                    (true, Some(&EACCES)) => Some(Errno::EACCES),
                    (false, Some(0)) => Some(Errno::EPERM),
                    _ => None,
                });
            }
            attempt.ran(chain.has_run());
            Ok(())
        })?;
    }
    Ok(())
}

fn both(attempt: &mut Attempt<'_>, site: Site, mac_first: bool) -> Result<(Cgroup, Chain), Ended> {
    let (cgroup, mut chain) = inside(attempt, site)?;
    let mac = |attempt: &mut Attempt<'_>, chain: &mut Chain| {
        let place = Place::nth(chain.next());
        let program = LsmProgram::framed(site.hook, &chain.results, |asm| {
            note(asm, place, None);
            if site.ret.is_some() {
                judge(asm, place);
            }
        });
        chain.push(attempt, &program)
    };
    if mac_first {
        mac(attempt, &mut chain)?;
        add(attempt, &mut chain, &site, &cgroup, NOTHING)?;
    } else {
        add(attempt, &mut chain, &site, &cgroup, NOTHING)?;
        mac(attempt, &mut chain)?;
    }
    Ok((cgroup, chain))
}

pub(super) fn mac_and_cgroup_void(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, mac_first, names) in [
        ("mac-attached-first", true, ["the MAC program", "the cgroup's program"]),
        ("cgroup-attached-first", false, ["the cgroup's program", "the MAC program"]),
    ] {
        session.case(name, |attempt| {
            let (_cgroup, mut chain) = both(attempt, VOID, mac_first)?;
            let round = chain.round(attempt, &[]);
            attempt.runs(chain.results.runs());
            attempt.see("round", round.words(&names, false));
            Ok(())
        })?;
    }
    Ok(())
}

pub(super) fn set_retval(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("EACCES", |attempt| {
        let (cgroup, mut chain) = inside(attempt, SESSION)?;
        add(attempt, &mut chain, &SESSION, &cgroup, Does { set: Some(EACCES), ..NOTHING })?;
        for (key, verdict) in [("returns 1", 1), ("returns 0", 0)] {
            let round = chain.round(attempt, &[verdict]);
            attempt.denial(&format!("set -EACCES, {key}"), &round.outcome, Errno::EACCES);
        }
        attempt.runs(chain.results.runs());
        Ok(())
    })
}

/// What the second program reads, by what the first did.
pub(super) fn get_retval(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, set) in [("first-sets-nothing", None), ("first-sets-EACCES", Some(EACCES))] {
        session.case(name, |attempt| {
            let (cgroup, mut chain) = inside(attempt, SESSION)?;
            add(attempt, &mut chain, &SESSION, &cgroup, Does { get: true, set, ..NOTHING })?;
            add(attempt, &mut chain, &SESSION, &cgroup, Does { get: true, ..NOTHING })?;
            for (key, verdict) in [("first returns 1", 1), ("first returns 0", 0)] {
                let round = chain.round(attempt, &[verdict, 1]);
                let read = |number| chain.results.get(Place::nth(number).extra()).cast_signed();
                let text = format!(
                    "the first reads {}, the second {}; {}",
                    read(0),
                    read(1),
                    round.words(&NTH, false)
                );
                attempt.see(key, text);
                let denies =
                    if set.is_some() { Some(Errno::EACCES) } else { (verdict == 0).then_some(Errno::EPERM) };
                round.note_denials(attempt, |number| denies.filter(|_| number == 0));
            }
            attempt.ran(chain.has_run());
            Ok(())
        })?;
    }
    Ok(())
}

pub(super) fn undo(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, set) in [("denied-with-0", None), ("denied-with-EACCES", Some(EACCES))] {
        session.case(name, |attempt| {
            let (cgroup, mut chain) = inside(attempt, SESSION)?;
            add(attempt, &mut chain, &SESSION, &cgroup, Does { set, ..NOTHING })?;
            add(attempt, &mut chain, &SESSION, &cgroup, Does { set: Some(0), ..NOTHING })?;
            let first = i32::from(set.is_some());
            for (key, second) in [("second sets 0 and returns 1", 1), ("second sets 0 and returns 0", 0)] {
                let round = chain.round(attempt, &[first, second]);
                attempt.see(key, round.words(&NTH, false));
                round.note_denials(attempt, |number| match number {
                    0 => Some(if set.is_some() { Errno::EACCES } else { Errno::EPERM }),
                    _ => (second == 0).then_some(Errno::EPERM),
                });
            }
            attempt.ran(chain.has_run());
            Ok(())
        })?;
    }
    Ok(())
}

pub(super) fn odd_retval(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, number) in [("one", 1), ("minus-4095", -4095), ("minus-4096", -4096)] {
        session.case(name, |attempt| {
            let (cgroup, mut chain) = inside(attempt, SESSION)?;
            add(attempt, &mut chain, &SESSION, &cgroup, Does { get: true, set: Some(number), ..NOTHING })?;
            add(attempt, &mut chain, &SESSION, &cgroup, Does { get: true, ..NOTHING })?;
            let _round = chain.round(attempt, &[1, 1]);
            attempt.runs(chain.results.runs());
            // SAFETY: getsid takes a number.
            let quiet = unsafe { libc::getsid(0) };
            crate::triggers::Arm::new(&chain.results).name(std::process::id());
            // SAFETY: as above.
            let found = unsafe { libc::getsid(libc::getpid()) };
            crate::triggers::Arm::new(&chain.results).name_nobody();
            let seen = match found {
                -1 => format!("errno {}", Errno::last().raw()),
                same if same == quiet => "its session".to_owned(),
                other => other.to_string(),
            };
            attempt.see("user space sees", seen);
            attempt.see("the second program reads", chain.results.get(Place::nth(1).extra()).cast_signed());
            Ok(())
        })?;
    }
    Ok(())
}

pub(super) fn retval_on_void(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, does) in [
        ("bpf_set_retval", Does { set: Some(EPERM), ..NOTHING }),
        ("bpf_get_retval", Does { get: true, ..NOTHING }),
    ] {
        session.case(name, |attempt| {
            let chain = Chain::new(attempt, VOID)?;
            usual_is_accepted(attempt, &VOID, &chain)?;
            attempt.load_lsm(&program(&VOID, &chain, 0, does)).map(drop)
        })?;
    }
    Ok(())
}

pub(super) fn retval_in_mac(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, number) in [("bpf_set_retval", helper::SET_RETVAL), ("bpf_get_retval", helper::GET_RETVAL)] {
        session.case(name, |attempt| {
            attempt.needs_helper(number)?;
            let results = attempt.results()?;
            let program = LsmProgram::framed(SESSION.hook, &results, |asm| {
                asm.mov_imm(Reg::R1, 0).call(number);
            });
            attempt.load_lsm(&program).map(drop)
        })?;
    }
    Ok(())
}

/// What `ret` holds in the first and the second program, by what the first did.
pub(super) fn ret(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, set) in [("first-sets-nothing", None), ("first-sets-EACCES", Some(EACCES))] {
        session.case(name, |attempt| {
            let (cgroup, mut chain) = inside(attempt, SESSION)?;
            add(attempt, &mut chain, &SESSION, &cgroup, Does { set, ret: true, ..NOTHING })?;
            add(attempt, &mut chain, &SESSION, &cgroup, Does { ret: true, ..NOTHING })?;
            for (key, verdict) in [("first returns 1", 1), ("first returns 0", 0)] {
                let round = chain.round(attempt, &[verdict, 1]);
                attempt.see(key, round.words(&NTH, true));
            }
            attempt.ran(chain.has_run());
            Ok(())
        })?;
    }
    Ok(())
}

/// A hook that answers yes or no: whether an attribute needs no capability.
const YES_OR_NO: Site =
    Site { hook: "inode_xattr_skipcap", ret: Some(1), recipe: xattrs::without_capability };

/// What the answers of a program of a cgroup do there, beside those of one of BPF_LSM_MAC.
pub(super) fn yes_or_no(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("mac-program", |attempt| {
        let mut ran = 0;
        for verdict in [0, 1] {
            let mut chain = Chain::new(attempt, YES_OR_NO)?;
            let program = saying(&YES_OR_NO, &chain.results, 0, verdict);
            chain.push(attempt, &program)?;
            let round = chain.round(attempt, &[]);
            attempt.see(&format!("returns {verdict}"), round.words(&["it"], false));
            ran += chain.results.runs();
        }
        attempt.runs(ran);
        Ok(())
    })?;
    for (name, set) in [
        ("program-of-a-cgroup", None),
        ("program-of-a-cgroup-that-sets-1", Some(1)),
        ("program-of-a-cgroup-that-sets-EACCES", Some(EACCES)),
    ] {
        session.case(name, |attempt| {
            let (cgroup, mut chain) = inside(attempt, YES_OR_NO)?;
            add(attempt, &mut chain, &YES_OR_NO, &cgroup, Does { set, ..NOTHING })?;
            for verdict in [0, 1] {
                let round = chain.round(attempt, &[verdict]);
                attempt.see(&format!("returns {verdict}"), round.words(&["it"], false));
            }
            attempt.runs(chain.results.runs());
            Ok(())
        })?;
    }
    Ok(())
}
