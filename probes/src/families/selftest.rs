//! Probes that misbehave on purpose, on the same route as all others: the suite shows with them that it can fail.
//!
//! The family is hidden: it runs only when it is asked for by name, and has no snapshots. `harness/tests/faults`
//! says what must come of each.

use crate::channel::{GuestEnd, Region};
use crate::errno::Errno;
use crate::protocol::Message;
use crate::record::Outcome;
use crate::rules::{ROOT_CGROUP, stay_on};
use crate::session::{Ended, Session, Stop};
use crate::spec::{Probe, source};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::{ForkResult, Uid, fork, getppid, setuid};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

/// How many processes the one that multiplies may become.
const PROCESSES: u64 = 300;
/// How often code is rewritten, which is twice for each: a breakpoint set, a breakpoint taken away.
const TURNS: u32 = 400;
/// A user without processes of its own.
const NOBODY: Uid = Uid::from_raw(65534);

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
        probe("spin", "Is a probe that uses the processor without end stopped at its deadline?", spin),
        probe("forks", "Is a probe whose processes multiply stopped, and every one of them?", multiply),
        probe("memory", "Does a probe that takes all memory lose its own process only?", take_all_memory),
        probe(
            "unkillable",
            "Is a process that heeds no signal left to its machine, and the next probe to another?",
            leave_frozen,
        ),
        probe("killed", "Is a probe whose process is killed told from one that hangs?", killed),
        probe(
            "reboot",
            "Is a machine that ends without a word blamed on the probe that ended it?",
            end_the_machine,
        ),
        probe("power-off", "Is a machine that powers off early blamed on the probe that did it?", power_off),
        probe("worker", "Is a probe told apart that kills the process it was made from?", kill_the_worker),
        probe("flood", "Does a flooded console leave records whole?", flood_the_console),
        probe("forge", "Does nonsense on the probe's own pipe stay its own?", forge),
        probe(
            "endless",
            "Does a line without end on the probe's own pipe stay its own?",
            say_a_line_without_end,
        ),
        probe("cut", "Is a stream that is cut blamed on the probe that cut it?", cut_the_stream),
        probe("lie", "Is a record in another probe's name refused, and blamed on the liar?", lie),
        probe("rust-panic", "Is a mistake in a probe's own code reported as such?", rust_panic),
        probe(
            "bpftool",
            "How does `bpftool feature probe` end here, if bpftool has been brought along?",
            bpftool,
        ),
        probe(
            "silent",
            "Is a machine given up that neither ends nor says anything, its PID 1 being frozen?",
            freeze,
        ),
        probe("reach", "Is anything of the host within a probe's reach?", reach),
        probe(
            "rewritten-code",
            "Does a second processor run the code that the first one has just rewritten?",
            rewrite_code,
        ),
        probe("varying", "Is a record told that is another with each number of processors?", vary),
        probe("after", "Is a probe after the misbehaving ones left alone?", well_behaved),
    ]
}

fn well_behaved(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("one", |attempt| {
        attempt.see("answer", 42);
        Ok(())
    })
}

/// What no record may hang on, for a soak to find.
fn vary(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("processors", |attempt| {
        let number = std::thread::available_parallelism()
            .map_err(|error| Ended::could_not("count the processors", error))?;
        attempt.see("number", number.get());
        Ok(())
    })
}

/// What a machine could reach the outside with: none of it is expected.
fn reach(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("outside", |attempt| {
        // What stands for a device, and not for something that the kernel makes up, names it.
        let (with, without) = by_device("/sys/class/net")?;
        attempt.see("network devices", with);
        attempt.see("made-up network devices", without);
        attempt.see("disks", by_device("/sys/block")?.0);
        let mounts = std::fs::read_to_string("/proc/mounts")
            .map_err(|error| Ended::could_not("read /proc/mounts", error))?;
        let kinds = mounts.lines().filter_map(|line| line.split(' ').nth(2));
        let shared: Vec<&str> =
            kinds.filter(|kind| ["9p", "virtiofs", "nfs", "nfs4", "cifs"].contains(kind)).collect();
        attempt.see("folders of the host", shared);
        Ok(())
    })
}

/// The entries of a folder of sysfs that have a device, and those that have none.
fn by_device(folder: &str) -> Result<(Vec<String>, Vec<String>), Ended> {
    let entries =
        std::fs::read_dir(folder).map_err(|error| Ended::could_not(&format!("read {folder}"), error))?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.partition(|name| Path::new(folder).join(name).join("device").exists()))
}

/// The first processor turns a static key of the scheduler on and off, for which the kernel puts breakpoints into its
/// code and takes them away (6.19 arch/x86/kernel/alternative.c, `smp_text_poke_batch_finish`), while the second goes
/// through that code. A processor that meets a breakpoint after it was taken away ends the machine with `Oops: int3`.
fn rewrite_code(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("schedstats", |attempt| {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let yielding = || {
                stay_on(1)?;
                while !over.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                Ok(())
            };
            let others = [scope.spawn(yielding), scope.spawn(yielding)];
            let turned = attempt.trigger(|| {
                stay_on(0)?;
                (0..TURNS).try_for_each(|turn| {
                    let value = if turn % 2 == 0 { "1" } else { "0" };
                    std::fs::write("/proc/sys/kernel/sched_schedstats", value)
                })
            });
            over.store(true, Ordering::Relaxed);
            let joined = others.into_iter().flat_map(ScopedJoinHandle::join);
            joined
                .chain([turned])
                .collect::<std::io::Result<()>>()
                .map_err(|error| Ended::could_not("rewrite the scheduler under a second processor", error))
        })?;
        attempt.holds("the machine goes on", true);
        Ok(())
    })
}

/// What `conform bench` compares the suite with; the record's time is what counts.
fn bpftool(session: &mut Session<'_>) -> Result<(), Stop> {
    session.case("feature-probe", |attempt| {
        let ended = attempt.trigger(|| {
            Command::new("/usr/sbin/bpftool").args(["feature", "probe"]).stdout(Stdio::null()).status()
        });
        let ended = ended.map_err(|error| Ended::could_not("run /usr/sbin/bpftool", error))?;
        attempt.holds("it ends well", ended.success());
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
    well_behaved(session)?;
    session.case("forever", |attempt| attempt.trigger(|| wait_to_be_ended()))
}

fn spin(session: &mut Session<'_>) -> Result<(), Stop> {
    well_behaved(session)?;
    session.case("forever", |attempt| {
        attempt.trigger(|| {
            loop {
                std::hint::spin_loop();
            }
        })
    })
}

/// Each process makes others until its user may have no more, and then goes on trying.
fn multiply(session: &mut Session<'_>) -> Result<(), Stop> {
    well_behaved(session)?;
    session.case("fork", |attempt| {
        // The limit does not hold for root (kernel/fork.c, copy_process). Without one, thousands of processes come to be,
        // and a machine without KVM takes half a minute to end them.
        let limited = setrlimit(Resource::RLIMIT_NPROC, PROCESSES, PROCESSES).and_then(|()| setuid(NOBODY));
        limited.map_err(|error| Ended::could_not("become a user with a limit", error))?;
        attempt.trigger(|| {
            loop {
                // SAFETY: whichever process this returns in only makes system calls from here on.
                let made = unsafe { libc::fork() };
                if made < 0 {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        })
    })
}

/// Takes memory, all of it at once in each step, until the kernel ends the process for it.
fn take_all_memory(session: &mut Session<'_>) -> Result<(), Stop> {
    well_behaved(session)?;
    session.case("fill", |attempt| {
        attempt.trigger(|| {
            loop {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
                let rights = libc::PROT_READ | libc::PROT_WRITE;
                // SAFETY: a new mapping at a place of the kernel's choice touches nothing that there is.
                unsafe { libc::mmap(std::ptr::null_mut(), 16 << 20, rights, flags, -1, 0) };
            }
        })
    })
}

/// The worker, from which the processes of probes are made, is PID 1's child and this process's parent.
fn kill_the_worker(session: &mut Session<'_>) -> Result<(), Stop> {
    well_behaved(session)?;
    session.case("kill", |attempt| {
        attempt
            .trigger(|| kill(getppid(), Signal::SIGKILL))
            .map_err(|errno| Ended::Refused(Errno::from(errno)))?;
        // The pipes of the two stay open for as long as this process lives.
        std::thread::sleep(Duration::from_millis(200));
        raise(Signal::SIGKILL).map_err(|errno| Ended::Refused(Errno::from(errno)))
    })
}

fn killed(session: &mut Session<'_>) -> Result<(), Stop> {
    well_behaved(session)?;
    session.case("kill", |attempt| {
        attempt.trigger(|| raise(Signal::SIGKILL)).map_err(|errno| Ended::Refused(Errno::from(errno)))
    })
}

fn end_the_machine(session: &mut Session<'_>) -> Result<(), Stop> {
    well_behaved(session)?;
    session.case("reboot", |attempt| {
        attempt
            .trigger(|| reboot(RebootMode::RB_AUTOBOOT).map(drop))
            .map_err(|errno| Ended::Refused(Errno::from(errno)))
    })
}

fn power_off(session: &mut Session<'_>) -> Result<(), Stop> {
    well_behaved(session)?;
    session.case("power-off", |attempt| {
        attempt
            .trigger(|| reboot(RebootMode::RB_POWER_OFF).map(drop))
            .map_err(|errno| Ended::Refused(Errno::from(errno)))
    })
}

/// Freezes PID 1: nobody is left to end this probe at its deadline, or to show that the machine lives.
fn freeze(session: &mut Session<'_>) -> Result<(), Stop> {
    well_behaved(session)?;
    session.case("forever", |attempt| {
        let frozen = Path::new(ROOT_CGROUP).join("frozen");
        let pid_1 = [("cgroup.procs", "1"), ("cgroup.freeze", "1")];
        std::fs::create_dir(&frozen)
            .and_then(|()| pid_1.iter().try_for_each(|(file, text)| std::fs::write(frozen.join(file), text)))
            .map_err(|error| Ended::could_not("freeze PID 1", error))?;
        attempt.trigger(|| wait_to_be_ended())
    })
}

/// Leaves a process in the first version's freezer, where SIGKILL waits for the thaw (5.10 kernel/freezer.c,
/// `__refrigerator`).
fn leave_frozen(session: &mut Session<'_>) -> Result<(), Stop> {
    well_behaved(session)?;
    session.case("freeze", |attempt| {
        let cannot = |error: std::io::Error| Ended::could_not("freeze a process", error);
        let hierarchy = Path::new("/tmp/freezer");
        let frozen = hierarchy.join("frozen");
        std::fs::create_dir(hierarchy).map_err(cannot)?;
        mount(Some("freezer"), hierarchy, Some("cgroup"), MsFlags::empty(), Some("freezer"))
            .map_err(|errno| cannot(errno.into()))?;
        std::fs::create_dir(&frozen).map_err(cannot)?;
        // SAFETY: the child only waits.
        let child = match unsafe { fork() }.map_err(|errno| cannot(errno.into()))? {
            ForkResult::Child => wait_to_be_ended(),
            ForkResult::Parent { child } => child,
        };
        attempt
            .trigger(|| {
                std::fs::write(frozen.join("cgroup.procs"), child.to_string())?;
                std::fs::write(frozen.join("freezer.state"), "FROZEN")
            })
            .map_err(cannot)
    })
}

fn flood_the_console(session: &mut Session<'_>) -> Result<(), Stop> {
    well_behaved(session)?;
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

/// PID 1 would need more memory for it than the machine has.
fn say_a_line_without_end(session: &mut Session<'_>) -> Result<(), Stop> {
    well_behaved(session)?;
    let piece = vec![b'c'; 64 << 10];
    loop {
        session.write_raw(&piece).map_err(|error| Stop(error.to_string()))?;
    }
}

/// The channel, which a probe has no business with: as root it can find it where PID 1 did.
fn channel() -> Result<GuestEnd, Stop> {
    let file = conform_boot::device::open_channel().map_err(Stop)?;
    let region = Region::map(&file).map_err(|error| Stop(error.to_string()))?;
    GuestEnd::new(region).map_err(|error| Stop(error.to_string()))
}

fn cut_the_stream(session: &mut Session<'_>) -> Result<(), Stop> {
    well_behaved(session)?;
    channel()?.cut();
    wait_to_be_ended()
}

fn lie(session: &mut Session<'_>) -> Result<(), Stop> {
    well_behaved(session)?;
    let probe = "selftest/after".to_owned();
    let end = Message::End { probe, outcome: Outcome::Observed, warnings: Vec::new(), micros: 0 };
    channel()?.send(&end).map_err(|error| Stop(error.to_string()))?;
    wait_to_be_ended()
}

/// For a probe that has nothing more to do or say: its deadline, the end of its machine or whoever reads what it has
/// spoilt ends it.
fn wait_to_be_ended() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[expect(clippy::panic, reason = "the probe's purpose")]
fn rust_panic(session: &mut Session<'_>) -> Result<(), Stop> {
    well_behaved(session)?;
    panic!("on purpose")
}
