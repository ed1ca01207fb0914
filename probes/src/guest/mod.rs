//! PID 1 of every virtual machine, from the moment that the harness says go ([`conform_boot`] comes before).
//!
//! Contract with the harness ([`crate::protocol`] has the details):
//! 1. Find the channel and the plan, say hello with what is known of the kernel.
//! 2. Announce the inventory: every probe that the plan selects.
//! 3. For each: announce it, run it in a process of its own with a deadline, send its cases as they end, and one
//!    end record with the kernel warnings that appeared meanwhile.
//! 4. Say done with the count, and restart the machine, which ends it.
//!
//! What the kernel warns of between two probes is said by itself. Whatever fails is said, and on the console too: there
//! may be no channel, or no room in it.

mod keeper;
mod kmsg;
mod lingering;
mod listen;
mod runner;
mod said;
mod worker;

pub(crate) use said::Said;

use crate::channel::{GuestEnd, Region};
use crate::families;
use crate::protocol::{self, Announced, GIVES_UP, Message, PROTOCOL, Plan};
use crate::session::Kernel;
use crate::spec::Probe;
use globset::{Glob, GlobSet, GlobSetBuilder};
use std::collections::BTreeSet;
use std::time::Duration;

/// Runs PID 1 to its end. Does not return: it restarts the machine.
pub fn main() -> ! {
    // What the first stage could not make ready.
    let setup = std::env::var(conform_boot::SETUP).unwrap_or_default();
    let setup = setup.lines().map(str::to_owned).collect();
    if let Err(why) = serve(setup) {
        // The harness finds this line in the console log of a machine that said no more than that.
        eprintln!("{GIVES_UP}{why}");
    }
    conform_boot::power_off()
}

fn serve(setup: Vec<String>) -> Result<(), String> {
    let file = conform_boot::device::open_channel()?;
    let region = Region::map(&file).map_err(|error| error.to_string())?;
    let mut channel = GuestEnd::new(region).map_err(|error| error.to_string())?;
    channel.hide_from_children().map_err(|error| error.to_string())?;
    let answered = answer(&mut channel, setup);
    if let Err(why) = &answered {
        // It may be that there is no room, which has been waited for; the console has it too.
        channel.be_patient_for(Duration::from_secs(1));
        let _ = channel.send(&Message::Failed { why: why.clone() });
    }
    answered
}

/// Answers the plan in the channel.
///
/// # Errors
/// Why it cannot go on.
fn answer(channel: &mut GuestEnd, setup: Vec<String>) -> Result<(), String> {
    // What aya makes the kernel say is heard too.
    let mut kmsg = kmsg::Kmsg::open();
    let plan = channel.plan().map_err(|error| error.to_string())?;
    let mut kernel = Kernel::read(setup);
    let facts = Box::new(kernel.facts().clone());
    let say =
        |channel: &mut GuestEnd, message: &Message| channel.send(message).map_err(|error| error.to_string());
    say(channel, &Message::Hello { protocol: PROTOCOL, facts })?;

    let probes = selected(&plan, &kernel)?;
    let announced = probes
        .iter()
        .map(|probe| Announced { probe: probe.id.clone(), machine: probe.machine.clone() })
        .collect();
    say(channel, &Message::Inventory { probes: announced })?;
    if probes.iter().any(|probe| probe.aya && probe.machine == plan.machine) {
        // A failure is not ours to report: each probe that needs aya says so in its cases.
        let _warmed = kernel.aya();
    }
    let records = runner::run_all(channel, &mut kernel, &plan, &probes, &mut kmsg);
    say(channel, &Message::Done { records: records.map_err(|error| error.to_string())? })
}

/// The probes that the plan asks for, in the order of their declaration, those that use aya before the others: those of
/// the tables, those that the harness knows from other kernels, and those that this kernel's BTF brings.
fn selected(plan: &Plan, kernel: &Kernel) -> Result<Vec<Probe>, String> {
    let globs = globs(&plan.select)?;
    let done: BTreeSet<&str> = plan.done.iter().map(String::as_str).collect();
    // Without BTF each probe says so itself.
    let brought = kernel.btf().map(families::ids_in).unwrap_or_default();
    let ids = plan.known.iter().chain(&brought).map(String::as_str);
    let named: Option<BTreeSet<&str>> =
        plan.select.iter().map(|glob| families::family_of_glob(glob)).collect();
    let named = named.filter(|families| !families.is_empty());
    let mut probes = families::all_of(|family| named.as_ref().is_none_or(|it| it.contains(family)), ids);
    // A hidden probe runs only when its family is named, so that `*` does not mean it; and first, because what it does to
    // others is its question.
    if plan.select.iter().any(|glob| glob.starts_with(families::HIDDEN.name)) {
        probes.splice(..0, (families::HIDDEN.probes)());
    }
    probes.retain(|probe| plan.part.has(&probe.id) && !done.contains(probe.id.as_str()));
    if !plan.select.is_empty() {
        probes.retain(|probe| globs.is_match(&probe.id));
    }
    if let Some(seed) = plan.shuffle {
        // Families keep their order: what they keep on hooks is changed once for each.
        let family = |probe: &Probe| families::FAMILIES.iter().position(|it| it.name == probe.family());
        probes.sort_by_cached_key(|probe| (family(probe), protocol::place(seed, &probe.id)));
    }
    // Stable: otherwise as declared.
    probes.sort_by_key(|probe| (probe.crashes, probe.comes_last, !probe.aya));
    Ok(probes)
}

fn globs(patterns: &[String]) -> Result<GlobSet, String> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(Glob::new(pattern).map_err(|error| error.to_string())?);
    }
    set.build().map_err(|error| error.to_string())
}
