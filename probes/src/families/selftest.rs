//! Probes that misbehave on purpose, on the same route as all others: the suite shows with them that it can fail.
//!
//! The family is hidden: it runs only when it is asked for by name, and has no snapshots. `harness/tests/faults.rs`
//! says what must come of each.

use crate::errno::Errno;
use crate::session::{Ended, Session, Stop};
use crate::spec::{Probe, source};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, raise};
use std::io::Write;
use std::time::Duration;

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    let probe = |name: &str, question: &str, run: fn(&mut Session<'_>) -> Result<(), Stop>| {
        Probe::new(
            format!("selftest/{name}"),
            question,
            &[source("6.12", "drivers/tty/sysrq.c", "sysrq_handle_crash")],
            run,
        )
    };
    vec![
        probe("before", "Is a probe before the misbehaving ones left alone?", well_behaved),
        probe("panic", "Is a kernel panic blamed on the probe that caused it?", panic_the_kernel),
        probe("hang", "Is a probe that never ends stopped at its deadline?", hang),
        probe("killed", "Is a probe whose process is killed told from one that hangs?", killed),
        probe(
            "reboot",
            "Is a machine that ends without a word blamed on the probe that ended it?",
            end_the_machine,
        ),
        probe("flood", "Does a flooded console leave records whole?", flood_the_console),
        probe("forge", "Does nonsense on the probe's own pipe stay its own?", forge),
        probe("rust-panic", "Is a mistake in a probe's own code reported as such?", rust_panic),
        probe("after", "Is a probe after the misbehaving ones left alone?", well_behaved),
    ]
}

fn well_behaved(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("one", |attempt| {
        attempt.see("answer", 42);
        Ok(())
    })
}

fn panic_the_kernel(session: &mut Session<'_>) -> Result<(), Stop> {
    well_behaved(session)?;
    session.case("crash", |attempt| {
        attempt
            .trigger(|| std::fs::write("/proc/sysrq-trigger", "c"))
            .map_err(|error| Ended::could_not("write /proc/sysrq-trigger", error))
    })
}

fn hang(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("forever", |attempt| {
        attempt.trigger(|| {
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        })
    })
}

fn killed(session: &mut Session<'_>) -> Result<(), Stop> {
    well_behaved(session)?;
    session.case("kill", |attempt| {
        attempt.trigger(|| raise(Signal::SIGKILL)).map_err(|errno| Ended::Refused(Errno::from(errno)))
    })
}

fn end_the_machine(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("reboot", |attempt| {
        attempt
            .trigger(|| reboot(RebootMode::RB_AUTOBOOT).map(drop))
            .map_err(|errno| Ended::Refused(Errno::from(errno)))
    })
}

fn flood_the_console(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("flood", |attempt| {
        let line = "{\"message\":\"end\",\"probe\":\"selftest/after\",\"outcome\":\"observed\"}\n";
        let written = attempt.trigger(|| {
            let mut console = std::fs::OpenOptions::new().write(true).open("/dev/ttyS0")?;
            (0..2000).try_for_each(|_| console.write_all(line.as_bytes()))
        });
        attempt.holds("the console took it", written.is_ok());
        Ok(())
    })
}

/// Writes to the descriptor that the probe's own pipe has: what PID 1 cannot read costs this probe alone.
fn forge(session: &mut Session<'_>) -> Result<(), Stop> {
    well_behaved(session)?;
    session.write_raw(b"{\"case\": \"not one\"}\n").map_err(|error| Stop(error.to_string()))
}

#[expect(clippy::panic, reason = "the probe's purpose")]
fn rust_panic(session: &mut Session<'_>) -> Result<(), Stop> {
    well_behaved(session)?;
    panic!("on purpose")
}
