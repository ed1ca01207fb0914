//! A program on every hook at once, and ordinary things done meanwhile.
//!
//! The programs return 0 for everybody. A trampoline that gets 0 from every program goes on to the function itself,
//! which gives the hook's default (6.12 arch/x86/net/bpf_jit_comp.c, `invoke_bpf_mod_ret`), also where that is not 0.

use super::prototype::{self, PREFIX};
use super::survey::program_returning;
use crate::bpf::{self, LoadError, ProgSpec};
use crate::errno::Errno;
use crate::record::Phase;
use crate::session::{Attempt, Ended, Session, Stop};
use crate::spec::{Probe, family_of, source};
use crate::triggers::{Arm, Recipe, exec, files, ipc, keys, memory, mounts, names, sockets, tasks};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

/// What is done while the programs are attached, by the name that it has in the record.
const ORDINARY: &[(&str, Recipe)] = &[
    ("open a file", files::open),
    ("read a file", files::read),
    ("make a directory", names::mkdir),
    ("rename", names::rename),
    ("map memory", memory::mmap_anonymous),
    ("fork", tasks::fork),
    ("execute", exec::execve),
    ("accept a connection", sockets::accept),
    ("send a datagram", sockets::send_datagram),
    ("mount", mounts::new_mount),
    ("use a semaphore", ipc::semop),
    ("add a key", keys::add_key),
];

/// The probe. It comes last on its machine: the programs of the other probes of this family are still attached then,
/// and it attaches only those that are missing, because attaching them all again would take seconds.
pub(super) fn probe() -> Probe {
    Probe::new(
        "hooks/all-together",
        "With a program on every hook at once, how many are attached, which refuse, and do ordinary things still work?",
        &[
            source("7.1", "kernel/bpf/bpf_lsm.c", "bpf_lsm_verify_prog"),
            source("6.12", "arch/x86/net/bpf_jit_comp.c", "invoke_bpf_mod_ret"),
        ],
        run,
    )
    .coming_last()
}

fn run(session: &mut Session<'_>) -> Result<(), Stop> {
    let held: BTreeSet<&str> = session
        .held()
        .iter()
        .filter(|id| family_of(id) == "hooks")
        .filter_map(|id| id.split_once('/').map(|(_, name)| name))
        .collect();
    let mut attached = Vec::new();
    session.case("attach", |attempt| attach_the_rest(attempt, &held, &mut attached))?;
    session.case("ordinary-things", |attempt| {
        for (key, recipe) in ORDINARY {
            let outcome = attempt.trigger(|| recipe().and_then(|mut act| act(Arm::idle())));
            attempt.see(key, outcome.map_or_else(Errno::name, |seen| seen.0.to_owned()));
        }
        Ok(())
    })?;
    std::mem::forget(attached); // to be detached by the power-off
    Ok(())
}

/// Attaches a program to each hook that has none yet, and notes how many have one and which refuse.
fn attach_the_rest(
    attempt: &mut Attempt<'_>,
    held: &BTreeSet<&str>,
    attached: &mut Vec<(OwnedFd, OwnedFd)>,
) -> Result<(), Ended> {
    let btf = attempt.btf()?;
    let names = prototype::names(btf);
    let mut refused = Refused::default();
    let mut loaded = Vec::new();
    for name in names.iter().filter(|name| !held.contains(name.as_str())) {
        let Some(id) = btf.function(&format!("{PREFIX}{name}")) else { continue };
        match attempt.ask(&ProgSpec::lsm(name, id, program_returning(0)?), 1) {
            Ok(program) => loaded.push((name.clone(), program.fd)),
            Err(error) => refused.add(name, &error),
        }
    }
    attempt.at(Phase::Attach);
    for (name, program, link) in attach_at_once(loaded) {
        match link {
            Ok(link) => attached.push((program, link)),
            Err(errno) => refused.to_attach.push(format!("{name}: {errno}")),
        }
    }
    let count = |list: &[String]| names.len().saturating_sub(list.len());
    let mut all: Vec<String> = Vec::new();
    for list in [&refused.disabled, &refused.no_hook, &refused.other, &refused.to_attach] {
        all.extend(list.iter().cloned());
    }
    attempt.see("functions", names.len());
    attempt.see("with a program", count(&all));
    attempt.see("disabled hooks", refused.disabled);
    attempt.see("no hooks", refused.no_hook);
    attempt.see("other refusals to load", refused.other);
    attempt.see("refusals to attach", refused.to_attach);
    attempt.at(Phase::Read); // whatever came last, a load or an attachment
    Ok(())
}

/// Attaches programs, in the order in which they come as far as can be seen: in several threads, because 5.7 waits for
/// every task of the machine each time (5.7 kernel/bpf/trampoline.c, `bpf_trampoline_update`), and those waits can be
/// shared.
fn attach_at_once(programs: Vec<(String, OwnedFd)>) -> Vec<(String, OwnedFd, Result<OwnedFd, Errno>)> {
    let share = programs.len().div_ceil(THREADS).max(1);
    let attach = |(name, program): (String, OwnedFd)| {
        let link = bpf::raw_tracepoint_open(&program, None, 0);
        (name, program, link)
    };
    let mut rest = programs.into_iter().peekable();
    std::thread::scope(|scope| {
        let mut workers = Vec::new();
        while rest.peek().is_some() {
            let part: Vec<_> = rest.by_ref().take(share).collect();
            workers.push(scope.spawn(move || part.into_iter().map(attach).collect::<Vec<_>>()));
        }
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    })
}

/// How many attach at once.
const THREADS: usize = 16;

/// The functions that got no program, by reason.
#[derive(Default)]
struct Refused {
    disabled: Vec<String>,
    no_hook: Vec<String>,
    other: Vec<String>,
    to_attach: Vec<String>,
}

impl Refused {
    fn add(&mut self, name: &str, error: &LoadError) {
        let list = if error.log.contains("points to disabled hook") {
            &mut self.disabled
        } else if error.log.contains("points to wrong type name") {
            &mut self.no_hook
        } else {
            &mut self.other
        };
        list.push(name.to_owned());
    }
}
