//! A program that denies bpf(2) itself, to the probe's own process alone.

use crate::asm::Asm;
use crate::bpf::{self, BPF_F_RDONLY, BPF_F_WRONLY, BPF_LSM_MAC, BPF_PROG_TYPE_LSM, MapSpec, ProgSpec};
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::{Attached, CTX, LsmProgram, PAGE, deny};
use crate::record::Phase;
use crate::results::{FREE, NOBODY, Results, TARGET};
use crate::rules::{insns, outcome_word, until};
use crate::session::{Attempt, Ended, Session, Stop};
use std::os::fd::OwnedFd;

/// A program on the hook `bpf` that denies every call of the task named in the page; nobody is named yet.
fn denier(attempt: &mut Attempt<'_>) -> Result<(Results, LsmProgram), Ended> {
    let mut results = attempt.results()?;
    results.name_nobody();
    let program = LsmProgram::returning("bpf", &results, deny(Errno::EPERM));
    Ok((results, program))
}

/// Names this process, so that the program denies, by writing to the page: no system call.
fn arm(results: &mut Results) {
    results.set(TARGET, u64::from(std::process::id()));
}

/// One call after the other while the program denies them.
pub(super) fn commands(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("while-denied", |attempt| {
        let (mut results, program) = denier(attempt)?;
        let Attached { program, link } = attempt.attach_lsm(&program)?;
        let map = attempt.map(&MapSpec::array(8, 1))?;
        let hook = attempt.hook("task_getsid")?;
        let mut asm = Asm::new();
        asm.mov_imm(Reg::R0, 0).exit();
        let code = insns(&asm)?;
        let spec = ProgSpec {
            expected_attach_type: BPF_LSM_MAC,
            attach_btf_id: hook,
            ..ProgSpec::new(BPF_PROG_TYPE_LSM, "other", code)
        };
        arm(&mut results);
        attempt.at(Phase::Trigger);
        let calls: Vec<(&str, Result<(), Errno>)> = vec![
            ("BPF_MAP_CREATE", bpf::map_create(&MapSpec::array(8, 1)).map(drop)),
            ("BPF_MAP_FREEZE", bpf::map_freeze(&map)),
            ("BPF_PROG_LOAD", bpf::prog_load(&spec, 0).map(drop).map_err(|refused| refused.errno)),
            ("BPF_RAW_TRACEPOINT_OPEN", bpf::raw_tracepoint_open(&program, None, 0).map(drop)),
            ("BPF_LINK_CREATE", bpf::link_create_raw(&program, 0, BPF_LSM_MAC, 0, 0).map(drop)),
            ("BPF_LINK_DETACH", bpf::link_detach(&link)),
            ("BPF_OBJ_GET_INFO_BY_FD", bpf::link_info(&link).map(drop)),
            ("BPF_PROG_GET_NEXT_ID", bpf::prog_next_id(0).map(drop)),
            ("BPF_PROG_QUERY", bpf::prog_query(0, BPF_LSM_MAC, 0, false).map(drop)),
            ("a command that does not exist", unknown_command()),
        ];
        results.set(TARGET, NOBODY);
        attempt.at(Phase::Read);
        attempt.runs(results.runs());
        for (name, outcome) in &calls {
            attempt.outcome(name, outcome);
        }
        attempt.denied(calls.iter().all(|(_, outcome)| *outcome == Err(Errno::EPERM)));
        attempt.outcome("BPF_MAP_FREEZE when nobody is named any more", &bpf::map_freeze(&map));
        Ok(())
    })
}

/// Command 0xffff with an attribute of zeros.
fn unknown_command() -> Result<(), Errno> {
    let attribute = [0_u64; 4];
    // SAFETY: the attribute is valid for reads of its length, and no kernel has this command.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, 0xffff, attribute.as_ptr(), 32) }).map(drop)
}

/// What a map is to be opened for, as `fmode_t` has it: FMODE_READ, FMODE_WRITE.
const WRITE: i32 = 2;
/// Where the program leaves it.
const MODE: i32 = FREE;
/// A name of the map.
const MAP: &std::ffi::CStr = c"/sys/fs/bpf/opened";

/// A program on the hook `bpf_map` that denies opening a map for writing.
fn write_denier(results: &Results) -> LsmProgram {
    LsmProgram::framed("bpf_map", results, |asm| {
        asm.ldx(Size::DW, Reg::R1, CTX, 8)
            .stx(Size::DW, PAGE, MODE, Reg::R1)
            .and_imm(Reg::R1, WRITE)
            .jeq_imm(Reg::R1, 0, "pass")
            .mov_imm(Reg::R0, deny(Errno::EPERM))
            .exit();
    })
}

/// A map is opened by its id and by a name, for reading, for writing and for both.
pub(super) fn by_mode(session: &mut Session<'_>) -> Result<(), Stop> {
    let _ = std::fs::remove_file("/sys/fs/bpf/opened");
    session.case("map-opened", |attempt| {
        let mut results = attempt.results()?;
        results.name_nobody();
        let map = attempt.map(&MapSpec::array(8, 1))?;
        let id = attempt.calls(Phase::Open, bpf::map_info(&map))?.id;
        let program = write_denier(&results);
        let _attached = attempt.attach_lsm(&program)?;
        attempt.calls(Phase::Open, bpf::obj_pin(&map, MAP))?;
        for (words, flags) in
            [("for both", 0), ("with BPF_F_RDONLY", BPF_F_RDONLY), ("with BPF_F_WRONLY", BPF_F_WRONLY)]
        {
            type Open = fn(u32, u32) -> Result<OwnedFd, Errno>;
            let ways: [(&str, Open); 2] = [
                ("BPF_MAP_GET_FD_BY_ID", bpf::map_get_fd_by_id_with),
                ("BPF_OBJ_GET", |_, flags| bpf::obj_get(MAP, flags)),
            ];
            for (command, open) in ways {
                let control = open(id, flags).map(drop);
                results.set(MODE, 0);
                arm(&mut results);
                let opened = attempt.trigger(|| open(id, flags));
                results.set(TARGET, NOBODY);
                see_opened(attempt, &format!("{command} {words}"), (&control, &opened), results.get(MODE));
                if flags != BPF_F_RDONLY {
                    attempt.returned(&opened, Errno::EPERM);
                }
            }
        }
        arm(&mut results);
        let made = attempt.trigger(|| bpf::map_create(&MapSpec::array(8, 1)));
        results.set(TARGET, NOBODY);
        attempt.denial("BPF_MAP_CREATE", &made, Errno::EPERM);
        attempt.runs(results.runs());
        std::fs::remove_file("/sys/fs/bpf/opened")
            .map_err(|error| Ended::could_not("remove the map's name", error))
    })
}

/// Notes what opening a map gave, with nobody named and with the program, and what can be done with what was given.
fn see_opened(
    attempt: &mut Attempt<'_>,
    key: &str,
    (control, opened): (&Result<(), Errno>, &Result<OwnedFd, Errno>),
    mode: u64,
) {
    attempt.outcome(&format!("{key}, not denied"), control);
    let word = match opened {
        Err(errno) => errno.name(),
        Ok(map) => {
            let read = bpf::map_lookup(map, &[0; 4], &mut [0; 8]);
            let written = bpf::map_update(map, &[0; 4], &[1; 8], bpf::BPF_ANY);
            format!("ok; reading {}; writing {}", outcome_word(&read), outcome_word(&written))
        }
    };
    attempt.see(key, word);
    // Of the slot the lower half is the argument's (5.10: the upper one may hold anything).
    attempt.see(&format!("{key}, fmode"), mode & u64::from(u32::MAX));
}

/// The link is closed while the program denies.
pub(super) fn close(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("link-closed", |attempt| {
        let (mut results, program) = denier(attempt)?;
        let attached = attempt.attach_lsm(&program)?;
        arm(&mut results);
        attempt.at(Phase::Trigger);
        let denied = bpf::map_create(&MapSpec::array(8, 1));
        drop(attached);
        let after = bpf::map_create(&MapSpec::array(8, 1));
        attempt.at(Phase::Read);
        attempt.runs(results.runs());
        attempt.denial("bpf(2) before", &denied, Errno::EPERM);
        attempt.outcome("bpf(2) after the link is closed", &after);
        Ok(())
    })
}

/// The link is pinned, its descriptors are closed, and the name is removed while the program denies.
pub(super) fn unpin(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("name-removed", |attempt| {
        let (mut results, program) = denier(attempt)?;
        let attached = attempt.attach_lsm(&program)?;
        attempt.calls(Phase::Attach, bpf::obj_pin(&attached.link, c"/sys/fs/bpf/denier"))?;
        drop(attached);
        arm(&mut results);
        attempt.at(Phase::Trigger);
        let denied = bpf::map_create(&MapSpec::array(8, 1));
        let opened = bpf::obj_get(c"/sys/fs/bpf/denier", 0);
        let removed = std::fs::remove_file("/sys/fs/bpf/denier").map_err(Errno::from);
        // What frees the link comes later (`wait_for_its_end`).
        let mut after = Err(Errno::EPERM);
        until(|| {
            after = bpf::map_create(&MapSpec::array(8, 1));
            after.is_ok()
        });
        attempt.at(Phase::Read);
        attempt.ran(results.runs() > 0);
        attempt.denial("bpf(2) before", &denied, Errno::EPERM);
        attempt.outcome("BPF_OBJ_GET of the pinned link", &opened);
        attempt.outcome("unlink of its name", &removed);
        attempt.outcome("bpf(2) after that, in the end", &after);
        Ok(())
    })
}

/// The page names this process already when the program is attached.
pub(super) fn own_attachment(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("named-before-attaching", |attempt| {
        let (mut results, program) = denier(attempt)?;
        let program = attempt.load_lsm(&program)?;
        arm(&mut results);
        attempt.at(Phase::Attach);
        let link: Result<OwnedFd, Errno> = bpf::raw_tracepoint_open(&program, None, 0);
        let runs = results.runs();
        let second = bpf::map_create(&MapSpec::array(8, 1));
        results.set(TARGET, NOBODY);
        attempt.outcome("the call that attaches", &link);
        attempt.see("runs for that call", runs);
        attempt.runs(results.runs());
        attempt.denial("the next call", &second, Errno::EPERM);
        Ok(())
    })
}
