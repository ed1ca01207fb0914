//! Every function that could be a hook: what it is, loading, attaching, firing and denying.
//!
//! The kernel says which there are: every `bpf_lsm_*` function of its BTF has a probe ([`names`]). For those with a row in the
//! table the suite knows a trigger: the recipe that makes the kernel call it, and what a denial is to be. The cases:
//!
//! - `inventory`: is it a hook, with which prototype and slots. If there is no such function, nothing else is asked.
//! - `load`, `load-sleepable`, `load-cgroup`: a program that does nothing, as each kind of LSM program.
//! - `returns`: what the verifier says to each value that a program may give.
//! - `context`: what it calls the arguments.
//! - `fire`, `deny-..`, `return-..`: the row's trigger, without and with a verdict.
//! - `attach`: does a program attach, that of `fire` where there is one.
//! - `argument`: is an argument of the hook what user space knows it to be.

mod arguments;
mod fire;
mod prototype;
mod returns;
mod row;
mod states;
mod survey;
mod table;
mod together;
pub mod unfired;

pub use prototype::names;
pub use survey::is_hook;

use crate::errno::Errno;
use crate::session::{Ended, Session, Stop};
use crate::spec::{Probe, Source, source};
use fire::{argument, denied, fire, ignored, returned};
use row::{Hook, Verdict};
use survey::Found;

/// Where the kernel decides what the cases without a trigger ask about.
const SOURCES: [Source; 5] = [
    source("7.1", "kernel/bpf/bpf_lsm.c", "bpf_lsm_verify_prog"),
    source("7.1", "kernel/bpf/verifier.c", "check_attach_btf_id"),
    source("7.1", "kernel/bpf/verifier.c", "return_retval_range"),
    source("6.0", "kernel/bpf/verifier.c", "check_return_code"),
    source("6.12", "kernel/bpf/btf.c", "btf_ctx_access"),
];

/// The probes whose names are known before a kernel is.
#[must_use]
pub fn probes() -> Vec<Probe> {
    table::hooks().map(with_trigger).chain([together::probe()]).collect()
}

/// The probe of a function that is in no row.
#[must_use]
pub fn dynamic_probe(name: &str) -> Option<Probe> {
    if !prototype::is_name(name) {
        return None;
    }
    let name = name.to_owned();
    let probe = Probe::new(
        format!("hooks/{name}"),
        format!(
            "Is bpf_lsm_{name} a hook, and which programs for it load, give which values, read what, attach?"
        ),
        &SOURCES,
        move |session| match survey::examine(session, &name)? {
            Some(found) => survey::attach(session, &name, &found, false),
            None => Ok(()),
        },
    );
    Some(probe.without_files())
}

fn with_trigger(hook: Hook) -> Probe {
    let end = match hook.verdict {
        Verdict::Errnos(_) => "and deny it",
        Verdict::Values(_) => "and decide it",
        Verdict::Nothing => "whatever they return",
    };
    let which = match hook.order {
        Some(order) => format!("On a machine whose lsm= names {}, which", order.words),
        None => "Which".to_owned(),
    };
    let mut sources = vec![hook.source];
    sources.extend(SOURCES);
    let probe = Probe::new(
        format!("hooks/{}", hook.name),
        format!(
            "{which} programs for bpf_lsm_{} load, give which values, read what, attach, run for its trigger, {end}?",
            hook.name
        ),
        &sources,
        move |session| match survey::examine(session, hook.name)? {
            Some(found) => trigger(session, hook, &found),
            None => Ok(()),
        },
    );
    let probe = if hook.files { probe } else { probe.without_files() };
    match hook.order {
        Some(order) => probe.with_lsm(order.lsm),
        None if hook.crashes => probe.crashing(),
        None => probe,
    }
}

/// The value of `lsm=` among the kernel's parameters.
fn lsm_parameter(parameters: &str) -> Option<String> {
    parameters.split_whitespace().find_map(|it| it.strip_prefix("lsm=")).map(str::to_owned)
}

/// For each of the rows, on whichever machine this is: is a program run for its trigger, and is its denial seen? A case
/// each, named as the hook.
pub(crate) fn ask_on_this_machine(session: &mut Session<'_>, names: &[&str]) -> Result<(), Stop> {
    for &name in names {
        session.case(name, |attempt| {
            let row = table::hooks().find(|row| row.name == name);
            let row = row.ok_or_else(|| Ended::CouldNotTell(format!("there is no row of {name}")))?;
            fire::once(attempt, row)
        })?;
    }
    Ok(())
}

/// The rows that are measured where bpf is first in `lsm=`, because it is.
pub(crate) fn asked_first() -> Vec<&'static str> {
    let first = |row: &Hook| row.order.is_some_and(|order| order.words == table::BPF_FIRST);
    table::hooks().filter(first).map(|row| row.name).collect()
}

/// The cases of a row.
fn trigger(session: &mut Session<'_>, hook: Hook, found: &Found) -> Result<(), Stop> {
    let mut ready = None;
    let order = hook.order.and_then(|_| lsm_parameter(&session.kernel().facts().cmdline));
    session.case("fire", |attempt| {
        if let Some(order) = order {
            attempt.see("lsm=", order);
        }
        fire(attempt, hook, &mut ready)
    })?;
    survey::attach(session, hook.name, found, ready.is_some())?;
    if let Some(it) = hook.argument {
        session.case("argument", |attempt| argument(attempt, hook, &it, &mut ready))?;
    }
    match hook.verdict {
        Verdict::Errnos(errnos) => {
            for &errno in errnos {
                let name = format!("deny-{errno}");
                session.case(&name, |attempt| denied(attempt, hook, &mut ready, errno))?;
            }
        }
        Verdict::Values(values) => {
            drop(ready.take()); // these have programs of their own
            for &value in values {
                session.case(&format!("return-{value}"), |attempt| returned(attempt, hook, value))?;
            }
        }
        Verdict::Nothing => {
            session.case("return-EPERM", |attempt| ignored(attempt, hook, &mut ready, Errno::EPERM))?;
        }
    }
    if let Some(ready) = ready {
        ready.leave();
    }
    Ok(())
}
