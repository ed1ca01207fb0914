//! What becomes of machines that are lost, told by guests that are scripted.

use super::STARVED;
use super::scripted::{DEADLINES, Guest, run, run_with_a_pause, run_within};
use crate::model::{AskedAgain, Between, KernelRun};
use crate::run::setup::Deadlines;
use crate::vmm::machine::CONSOLE_MAX;
use probes::protocol::{GIVES_UP, Message};
use probes::record::{CASES_MAX, Outcome};
use rstest::rstest;
use std::time::Duration;

const TERMINATED: &str = "qemu-system-x86_64: terminating on signal 15 from pid 1 (init)";
const BUG: &str = "BUG: kernel NULL pointer dereference";

/// The probes of a run that came to its end, with their outcomes.
fn outcomes(run: &KernelRun) -> Vec<(&str, Outcome)> {
    assert_eq!(run.failure, None);
    run.records.iter().map(|record| (record.probe.as_str(), record.outcome.clone())).collect()
}

fn crashed(what: &str) -> Outcome {
    Outcome::Crashed { what: what.to_owned(), during: String::new() }
}

fn could_not(why: &str) -> Outcome {
    Outcome::CouldNotTell { why: why.to_owned() }
}

fn between(after: Option<&str>, what: &str) -> Between {
    Between { after: after.map(str::to_owned), what: what.to_owned() }
}

/// Boots with `f/b` left alone, and answers it.
fn the_rest(guest: &mut Guest) {
    guest.come_up(&["f/b"]);
    guest.run("f/b");
    guest.say(&Message::Done { records: 1 });
    guest.leave();
}

fn killed_by_the_kernel(guest: &mut Guest) {
    guest.print(&format!("[    1.0] {BUG}"));
    guest.leave();
}

fn given_up(guest: &mut Guest) {
    guest.say(&Message::Failed { why: "something is left".into() });
    guest.leave();
}

/// As when there is no room in the channel.
fn given_up_on_the_console(guest: &mut Guest) {
    guest.print(&format!("{GIVES_UP}something is left"));
    guest.leave();
}

fn ended_from_outside(guest: &mut Guest) {
    guest.qemu_says(TERMINATED);
    guest.leave();
}

/// As 6.19 did under QEMU 7.2.
fn failed_by_the_emulator(guest: &mut Guest) {
    guest.print("[    1.0] Oops: double fault: 0000 [#1] SMP NOPTI");
    guest.print("[    1.0] RIP: 0010:__kmalloc_cache_node_noprof+0x363/0x5c0");
    guest.print("[    1.0] RSP: 0018:ffffc90000657d90 EFLAGS: 05564a02");
    guest.leave();
}

fn flooding(guest: &mut Guest) {
    guest.flood(CONSOLE_MAX + 1);
}

const WITHOUT_A_WORD: &str = "the machine ended without a word";
const EMULATOR: &str = "was failed by its emulator: EFLAGS 05564a02, which no processor can have";
const FLOODED: &str = "the machine wrote more than 64 MiB to its console";

#[rstest]
#[case(killed_by_the_kernel, BUG)]
#[case(Guest::leave, WITHOUT_A_WORD)]
#[case(given_up, "something is left")]
#[case(given_up_on_the_console, "something is left")]
#[case(ended_from_outside, "the machine was ended from outside")]
#[case(
    failed_by_the_emulator,
    "the machine was failed by its emulator: EFLAGS 05564a02, which no processor can have"
)]
#[case(flooding, FLOODED)]
#[case(|_: &mut Guest| {}, "the machine neither ended nor said anything")]
fn a_machine_lost_between_probes_is_noted(#[case] lose: fn(&mut Guest), #[case] what: &str) {
    let (run, notes) = run(&[
        &|guest| {
            guest.come_up(&["f/a", "f/b"]);
            guest.run("f/a");
            lose(guest);
        },
        &the_rest,
    ]);
    assert_eq!(outcomes(&run), [("f/a", Outcome::Observed), ("f/b", Outcome::Observed)]);
    assert_eq!(run.lost_between, [between(Some("f/a"), what)]);
    assert_eq!(run.boot_retries, 0);
    let said = format!("lost a machine after f/a: {what}");
    assert!(notes.contains(&said), "{notes:?}");
}

#[test]
fn a_machine_lost_before_its_first_probe_or_after_its_last_is_noted() {
    let (run, _) = run(&[
        &|guest| {
            guest.come_up(&["f/a"]);
            killed_by_the_kernel(guest);
        },
        &|guest| {
            guest.come_up(&["f/a"]);
            guest.run("f/a");
            killed_by_the_kernel(guest);
        },
    ]);
    assert_eq!(outcomes(&run), [("f/a", Outcome::Observed)]);
    assert_eq!(run.lost_between, [between(None, BUG), between(Some("f/a"), BUG)]);
    assert_eq!((run.boots, run.boot_retries), (2, 1));
    assert_eq!(run.boots_lost, [format!("before the first probe: {BUG}")]);
}

/// Its PID 1 should have ended the probe long ago.
#[test]
fn a_machine_that_lives_and_does_not_end_its_probe_is_given_up() {
    let started = std::time::Instant::now();
    let deadlines = Deadlines { probe: Duration::from_millis(300), ..DEADLINES };
    let lives = |guest: &mut Guest| {
        guest.come_up(&["f/a", "f/b"]);
        guest.start("f/a");
        guest.beat();
    };
    let (run, _) = run_within(deadlines, &[&lives, &lives, &the_rest]);
    let why = "lost twice: its machine lived and did not come to the probe's deadline, for want of a processor for it or \
               for its PID 1";
    assert_eq!(outcomes(&run), [("f/a", could_not(why)), ("f/b", Outcome::Observed)]);
    assert!(started.elapsed() >= (deadlines.probe * STARVED + deadlines.silence) * 2);
}

#[test]
fn a_machine_that_lives_and_says_no_hello_is_given_up() {
    let deadlines = Deadlines { hello: Duration::from_secs(1), ..DEADLINES };
    let (run, notes) = run_within(deadlines, &[&|guest| guest.beat()]);
    assert!(run.failure.unwrap().starts_with("no boot said hello"));
    assert_eq!(notes.iter().filter(|note| *note == "a boot brought nothing; trying again").count(), 2);
}

#[test]
fn boots_that_bring_no_record_are_given_up() {
    let silent = |guest: &mut Guest| {
        guest.come_up(&["f/a"]);
        guest.leave();
    };
    let (run, _) = run(&[&silent, &silent, &silent]);
    assert!(run.failure.unwrap().starts_with("no boot brought a record, 3 tried"));
    assert_eq!(run.lost_between.len(), 3);
}

#[rstest]
#[case(killed_by_the_kernel, crashed(BUG))]
#[case(Guest::leave, crashed(WITHOUT_A_WORD))]
#[case(given_up, could_not("something is left"))]
#[case(given_up_on_the_console, could_not("something is left"))]
#[case(flooding, could_not(FLOODED))]
#[case(|_: &mut Guest| {}, Outcome::Hung { during: String::new() })]
fn a_machine_lost_during_a_probe_is_its_record(#[case] lose: fn(&mut Guest), #[case] outcome: Outcome) {
    let (run, _) = run(&[
        &|guest| {
            guest.come_up(&["f/a", "f/b"]);
            guest.clear();
            guest.start("f/a");
            guest.case("f/a", "sent");
            // Passed on and not forgotten yet, and not passed on at all.
            guest.note("sent");
            guest.note("noted");
            lose(guest);
        },
        &the_rest,
    ]);
    assert_eq!(outcomes(&run), [("f/a", outcome), ("f/b", Outcome::Observed)]);
    let cases: Vec<&str> = run.records[0].cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(cases, ["sent", "noted"]);
    assert_eq!(run.lost_between, []);
}

#[rstest]
#[case(ended_from_outside, "was ended from outside")]
#[case(failed_by_the_emulator, EMULATOR)]
fn a_probe_that_loses_its_machine_not_by_the_kernel_is_asked_again_and_then_could_not_tell(
    #[case] lose: fn(&mut Guest),
    #[case] why: &str,
) {
    let lost = |guest: &mut Guest| {
        guest.come_up(&["f/a", "f/b"]);
        guest.start("f/a");
        lose(guest);
    };
    let (run, notes) = run(&[&lost, &lost, &the_rest]);
    let twice = could_not(&format!("lost twice, and the kernel is not at fault: its machine {why}"));
    assert_eq!(outcomes(&run), [("f/a", twice), ("f/b", Outcome::Observed)]);
    let said = format!("the machine {why}, during f/a, which is run again");
    assert_eq!(notes.iter().filter(|note| **note == said).count(), 1);
    assert_eq!(run.boots_lost, [said]);
    assert_eq!(run.asked_again, [AskedAgain { probe: "f/a".into(), why: why.into() }]);
}

/// The record is that of the second machine; that there was another is told all the same.
#[test]
fn a_probe_that_an_emulator_failed_once_has_the_record_of_the_next_machine() {
    let (run, _) = run(&[
        &|guest| {
            guest.come_up(&["f/a", "f/b"]);
            guest.start("f/a");
            failed_by_the_emulator(guest);
        },
        &|guest| {
            guest.come_up(&["f/a", "f/b"]);
            guest.run("f/a");
            guest.run("f/b");
            guest.say(&Message::Done { records: 2 });
            guest.leave();
        },
    ]);
    assert_eq!(outcomes(&run), [("f/a", Outcome::Observed), ("f/b", Outcome::Observed)]);
    assert_eq!(run.asked_again, [AskedAgain { probe: "f/a".into(), why: EMULATOR.into() }]);
}

/// What ends no machine is not what ended a later one's.
#[test]
fn an_alarm_is_of_the_probe_that_was_under_way() {
    let (run, _) = run(&[&|guest| {
        guest.come_up(&["f/a", "f/b"]);
        guest.start("f/a");
        guest.print("BUG: scheduling while atomic: init/1/0x00000002");
        guest.end("f/a");
        guest.is_read();
        guest.start("f/b");
        guest.print("[    2.0] Oops: 0000 [#1]");
        guest.leave();
    }]);
    assert_eq!(outcomes(&run), [("f/a", Outcome::Observed), ("f/b", crashed("Oops: 0000 [#1]"))]);
}

#[test]
fn warnings_between_probes_are_noted() {
    let warned = |what: &str| Message::Warned { warnings: vec![what.to_owned()] };
    let (run, _) = run(&[&|guest| {
        guest.come_up(&["f/a"]);
        guest.say(&warned("WARNING: x"));
        guest.run("f/a");
        guest.say(&warned("WARNING: y"));
        guest.say(&Message::Done { records: 1 });
        guest.leave();
    }]);
    assert_eq!(outcomes(&run), [("f/a", Outcome::Observed)]);
    assert_eq!(run.warned_between, [between(None, "WARNING: x"), between(Some("f/a"), "WARNING: y")]);
    assert_eq!(run.records[0].warnings, [""; 0]);
}

/// As when the host is suspended: the guest could not be heard.
#[test]
fn while_the_harness_stands_still_no_machine_is_late() {
    let pause = 2 * super::PAUSE;
    let (run, _) = run_with_a_pause(
        pause,
        &[&|guest| {
            guest.greet();
            std::thread::sleep(pause + Duration::from_millis(500));
            guest.announce(&["f/a"]);
            guest.run("f/a");
            guest.say(&Message::Done { records: 1 });
            guest.leave();
        }],
    );
    assert_eq!(outcomes(&run), [("f/a", Outcome::Observed)]);
    assert_eq!(run.boots, 1);
}

/// A run with more could not be read any more.
#[test]
fn a_probe_has_no_more_cases_than_it_may() {
    let (run, _) = run(&[
        &|guest| {
            guest.come_up(&["f/a", "f/b"]);
            guest.clear();
            guest.start("f/a");
            (0..CASES_MAX).for_each(|at| guest.case("f/a", &at.to_string()));
            guest.note("noted");
            guest.leave();
        },
        &the_rest,
    ]);
    let record = &run.records[0];
    assert_eq!((record.cases.len(), record.cases[0].name.as_str()), (CASES_MAX, "0"));
    assert_eq!(record.warnings, ["1 more cases had ended, more than a probe may have"]);
}
