//! `conform soak`: the same run again and again under changing conditions, and every record that was not the same, or not the
//! snapshot's.
//!
//! Conditions change so that eight runs go through all of them: machines restored or booted, with one processor or two,
//! on a host with nothing else to do or with a busy thread per processor. The order of the probes within their families
//! is another one in each run. A difference is reported, never hidden by running again, and so is a machine that was lost
//! between two probes.

mod base;
mod held;
mod kept;
mod round;
mod tally;

use super::folder::RunFolder;
use super::judge::row_for;
use super::project::Project;
use super::run::{Place, run_keeping};
use crate::cli::{AnswerFormat, MachineOptions, SoakOptions};
use crate::exit::{self, Failure};
use crate::interrupt;
use crate::model::KernelRun;
use crate::progress::Progress;
pub(super) use base::Base;
use comfy_table::{CellAlignment, Table, presets};
use held::Held;
use kept::Kept;
use round::Round;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tally::{Broken, Difference, Tally};

/// Version of the JSON document.
const SCHEMA: u32 = 3;

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Document {
    /// [`SCHEMA`].
    schema: u32,
    /// What the runs' orders come from; `--seed` gives the same again.
    seed: u64,
    /// The kernels, in the order of the first run.
    kernels: Vec<String>,
    /// The runs. The last may be broken off.
    runs: Vec<Round>,
    /// Why the soak ended before its last run did; null when it did not.
    ended: Option<String>,
    /// Records that were compared, of all runs together.
    records: usize,
    /// Those that were not the same in all runs.
    differences: Vec<Difference>,
    /// What the snapshots say of them.
    snapshots: Held,
    /// Kernels that could not be run to their end.
    failures: Vec<Broken>,
}

/// Runs, compares, reports.
pub(super) fn soak(project: &Project, options: &SoakOptions, progress: &Progress) -> Result<u8, Failure> {
    // Read before the first run: what many runs have seen is not to be lost over a snapshot that somebody edits meanwhile.
    let (matrix, snapshots) = (project.matrix()?, project.store().load_all()?);
    // One soak at a time, which goes on with the last one or begins with nothing of it. One that leaves what others go on
    // with as it is, as a test's, has a folder of its own.
    let path = project.work_folder().join(if project.is_linked { "soak" } else { "soak-unlinked" });
    let (folder, mut kept, tally) = if options.resume {
        let folder = RunFolder::take(&path)?;
        let kept = Kept::read(&folder.path)?;
        let tally = kept.tally(&folder.path)?;
        (folder, kept, tally)
    } else {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let seed = options.seed.unwrap_or(now.as_secs());
        (RunFolder::emptied(project, &path)?, Kept::new(seed, options), Tally::default())
    };
    let options = kept.options(options);
    let seed = kept.seed;
    progress.say(
        "soak",
        &format!("{} runs, {} of which are over, --seed {seed}", options.runs, kept.rounds.len()),
    );
    let base = Base::of(kept.base.clone());
    let so_far = (tally, kept.rounds.clone());
    let (tally, rounds, ended) = repeat(
        so_far,
        options.runs,
        seed,
        |planned, runs| round(project, &options, &folder, planned, &base, progress, runs),
        |rounds| kept.write(&folder.path, &base, rounds),
    );
    if let Some(failure) = &ended {
        progress.say("soak", &failure.to_string());
    }
    let held = Held::of(&tally, &snapshots, |kernel| row_for(&matrix, kernel, tally.release(kernel)))?;
    let (document, code) = judge(seed, tally, held, rounds, ended)?;
    if options.format == AnswerFormat::Json {
        let text = serde_json::to_string_pretty(&document)
            .map_err(|error| Failure::new(exit::INFRASTRUCTURE, error))?;
        super::print(&text);
    } else {
        super::print(&in_words(&document));
    }
    Ok(code)
}

/// Runs until the last has come to its end, or one is broken off: what was seen until then is worth reporting, and what was
/// seen before. `run` makes one run, whose kernels' runs it puts into its second argument, whether the run comes to its end or
/// not; `note` is told of all runs after each.
fn repeat(
    (mut tally, mut rounds): (Tally, Vec<Round>),
    count: u32,
    seed: u64,
    mut run: impl FnMut(&Round, &mut Vec<KernelRun>) -> Result<(), Failure>,
    mut note: impl FnMut(&[Round]) -> Result<(), Failure>,
) -> (Tally, Vec<Round>, Option<Failure>) {
    // Before the first has come to its end there is nothing to report, and nothing is waited for.
    let mut graceful = (!rounds.is_empty()).then(interrupt::gracefully);
    let next = rounds.last().map_or(1, |round| round.number + 1);
    for number in next..=count {
        let mut round = Round::planned(number, seed);
        let mut kept = Vec::new();
        let started = Instant::now();
        let end = run(&round, &mut kept);
        round.seconds = started.elapsed().as_secs_f64();
        round.broken_off = end.is_err();
        for run in &kept {
            round.add(run);
            tally.add(number, run, round.broken_off);
        }
        let over = end.is_ok();
        if over || !kept.is_empty() {
            rounds.push(round);
        }
        if let Err(mut failure) = end.and_then(|()| note(&rounds)) {
            if interrupt::asked().is_some() {
                failure.code = exit::INTERRUPTED;
            }
            return (tally, rounds, Some(failure));
        }
        graceful.get_or_insert_with(interrupt::gracefully);
    }
    (tally, rounds, None)
}

/// What is printed, and the exit code. Of a soak that was ended before anything was recorded, why.
fn judge(
    seed: u64,
    tally: Tally,
    snapshots: Held,
    runs: Vec<Round>,
    ended: Option<Failure>,
) -> Result<(Document, u8), Failure> {
    let ended = match ended {
        Some(failure) if runs.is_empty() && failure.code != exit::INTERRUPTED => return Err(failure),
        ended => ended,
    };
    let differences = tally.differences()?;
    let same = differences.is_empty()
        && snapshots.none_differs()
        && runs.iter().all(|round| round.lost_between.is_empty());
    let code = match (&ended, tally.failures.is_empty(), same) {
        (Some(failure), _, _) => failure.code,
        (None, false, _) => exit::INFRASTRUCTURE,
        (None, true, false) => exit::MISMATCH,
        (None, true, true) => exit::OK,
    };
    let ended = ended.map(|failure| failure.to_string());
    let Tally { kernels, records, failures, .. } = tally;
    let schema = SCHEMA;
    Ok((Document { schema, seed, kernels, runs, ended, records, differences, snapshots, failures }, code))
}

/// One run. Its kernels' runs are in `kept`, also when it is interrupted.
fn round(
    project: &Project,
    options: &SoakOptions,
    folder: &RunFolder,
    round: &Round,
    base: &Base,
    progress: &Progress,
    kept: &mut Vec<KernelRun>,
) -> Result<(), Failure> {
    let machine = MachineOptions {
        cold: round.cold,
        cpus: round.cpus,
        apart: round.apart,
        shuffle: Some(round.order),
        ..kept::machine(&options.host)
    };
    progress.say("soak", &format!("run {}: {}", round.number, round.conditions()));
    let folder = folder.path.join(round.number.to_string());
    let _load = round.load.then(Load::start);
    let place = Place::Again(&folder, base);
    let finished = run_keeping(project, &options.selection, &machine, place, false, progress, kept)?;
    *kept = finished.runs;
    Ok(())
}

/// A busy thread per processor, until dropped.
struct Load {
    over: Arc<AtomicBool>,
}

impl Load {
    fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self { over }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// The runs, one line each.
fn table(runs: &[Round]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "run",
        "machines",
        "booted",
        "restored",
        "processors",
        "memory",
        "host",
        "--shuffle",
        "kernels",
        "records",
        "boots repeated",
        "asked again",
        "seconds",
    ]);
    for round in runs {
        table.add_row([
            round.number.to_string(),
            if round.cold { "--cold" } else { "kept" }.to_owned(),
            round.booted.to_string(),
            round.restored.to_string(),
            round.cpus.to_string(),
            if round.apart { "--apart" } else { "shared" }.to_owned(),
            if round.load { "busy" } else { "as it is" }.to_owned(),
            round.order.to_string(),
            // Marked, and told below the table.
            format!("{}{}", round.complete, if round.broken_off { "*" } else { "" }),
            round.records.to_string(),
            round.boot_retries.to_string(),
            round.asked_again.len().to_string(),
            format!("{:.1}", round.seconds),
        ]);
    }
    for column in [0, 2, 3, 4, 7, 8, 9, 10, 11, 12] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn in_words(document: &Document) -> String {
    let table = table(&document.runs);
    let mut text = format!("{table}\n\n");
    for difference in &document.differences {
        text += &difference.in_words();
        text.push('\n');
    }
    for round in &document.runs {
        let number = round.number;
        for (list, what) in [
            (&round.lost_between, "a machine was lost between probes"),
            (&round.boots_lost, "a boot was repeated"),
            (&round.asked_again, "asked again"),
        ] {
            list.iter().for_each(|item| text += &format!("run {number}: {what}: {item}\n"));
        }
    }
    for broken in &document.failures {
        text += &format!("{broken}\n");
    }
    let broken_off = document.runs.iter().filter(|round| round.broken_off).count();
    for round in document.runs.iter().filter(|round| round.broken_off) {
        text +=
            &format!("* run {} was broken off; {} kernels came to their end\n", round.number, round.complete);
    }
    if let Some(why) = &document.ended {
        text += &format!("ended early: {why}\n");
    }
    text += &document.snapshots.in_words();
    let part = if broken_off > 0 { " and a part of another" } else { "" };
    text + &format!(
        "--seed {}: {} records of {} runs{part} on {} compared; probes on a kernel whose record was not always the same: {}\n",
        document.seed,
        document.records,
        document.runs.len() - broken_off,
        document.kernels.join(" "),
        document.differences.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AskedAgain, Between};
    use probes::record::{Outcome, Record};
    use std::collections::BTreeSet;

    /// What was planned is one thing, and what there was another.
    #[test]
    fn machines_are_counted_as_they_were() {
        let run = KernelRun {
            kernel: "6.1".to_owned(),
            boots: 5,
            restored: 2,
            boot_retries: 1,
            boots_lost: vec!["before hello".into()],
            asked_again: vec![AskedAgain { probe: "a/b".into(), why: "was ended from outside".into() }],
            lost_between: vec![Between { after: Some("a/c".into()), what: "BUG".into() }],
            ..KernelRun::default()
        };
        let mut round = Round::planned(1, 7);
        round.add(&run);
        round.add(&run);
        assert!(!round.cold);
        assert_eq!((round.booted, round.restored, round.boot_retries, round.asked_again.len()), (6, 4, 2, 2));
        let (seed, kernels) = (7, vec!["6.1".to_owned(), "7.3".to_owned()]);
        let mut tally = Tally::default();
        tally.kernels.extend(kernels);
        let text = in_words(&judge(seed, tally, Held::default(), vec![round], None).unwrap().0);
        assert!(text.contains("0 records of 1 runs on 6.1 7.3 compared"), "{text}");
        assert_eq!(
            text.matches("run 1: a machine was lost between probes: 6.1: after a/c: BUG").count(),
            2,
            "{text}"
        );
        assert!(text.contains("run 1: a boot was repeated: 6.1: before hello\n"), "{text}");
        assert!(
            text.contains("run 1: asked again: 6.1: a/b, whose machine was ended from outside\n"),
            "{text}"
        );
        let words: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            words,
            ["1", "kept", "6", "4", "1", "shared", "as", "it", "is", "7", "2", "0", "2", "2", "0.0"]
        );
    }

    fn ran(kernel: &str, why: &str, failure: Option<&str>) -> KernelRun {
        let outcome = Outcome::CouldNotTell { why: why.to_owned() };
        let records = vec![Record { outcome, ..Record::not_run("a/b", "") }, Record::not_run("a/c", "")];
        let records = if failure.is_some() { records } else { records[..1].to_vec() };
        let failure = failure.map(str::to_owned);
        KernelRun { kernel: kernel.into(), records, failure, ..KernelRun::default() }
    }

    /// Three runs, of which the last ends with this code and has these kernels.
    fn ending(code: u8, last: &[KernelRun]) -> (Document, u8) {
        let run = |round: &Round, kept: &mut Vec<KernelRun>| {
            if round.number < 3 {
                kept.push(ran("6.1", if round.number == 1 { "x" } else { "y" }, None));
                return Ok(());
            }
            kept.extend_from_slice(last);
            Err(Failure::new(code, anyhow::anyhow!("no more")))
        };
        let (tally, rounds, ended) = repeat(Default::default(), 5, 7, run, |_| Ok(()));
        judge(7, tally, Held::default(), rounds, ended).unwrap()
    }

    #[test]
    fn what_ends_a_soak_leaves_what_was_seen_before() {
        let (document, code) = ending(exit::NEEDS_PRIVILEGE, &[]);
        assert_eq!((code, document.runs.len(), document.records), (exit::NEEDS_PRIVILEGE, 2, 2));
        let text = in_words(&document);
        assert!(text.contains("a/b on 6.1: otherwise in 1 of 2 runs (2)"), "{text}");
        assert!(text.contains("\nended early: no more\n"), "{text}");
        assert!(text.contains("2 records of 2 runs on 6.1 compared"), "{text}");
    }

    #[test]
    fn a_run_that_was_broken_off_counts_as_far_as_it_came() {
        let last = [ran("6.1", "z", None), ran("7.3", "x", Some("interrupted by SIGTERM"))];
        let (document, code) = ending(exit::INTERRUPTED, &last);
        assert_eq!((code, document.runs.len(), document.records), (exit::INTERRUPTED, 3, 4));
        let text = in_words(&document);
        assert!(text.contains("a/b on 6.1: otherwise in 1 of 3 runs (3)"), "{text}");
        assert!(text.contains("* run 3 was broken off; 1 kernels came to their end"), "{text}");
        assert!(text.contains("run 3: 7.3 could not be run to its end: interrupted by SIGTERM"), "{text}");
        assert!(text.contains("4 records of 2 runs and a part of another on 6.1 7.3 compared"), "{text}");
    }

    #[test]
    fn what_keeps_the_first_run_from_beginning_is_an_error() {
        let failure = Failure::new(exit::NOTHING_SELECTED, anyhow::anyhow!("none"));
        let failure = judge(7, Tally::default(), Held::default(), Vec::new(), Some(failure)).unwrap_err();
        assert_eq!(failure.code, exit::NOTHING_SELECTED);
    }

    #[test]
    fn eight_runs_go_through_all_conditions_in_eight_orders() {
        let rounds: Vec<Round> = (1..=8).map(|number| Round::planned(number, 7)).collect();
        let conditions: BTreeSet<_> = rounds.iter().map(|it| (it.cold, it.cpus, it.load)).collect();
        let orders: BTreeSet<_> = rounds.iter().map(|it| it.order).collect();
        assert_eq!((conditions.len(), orders.len()), (8, 8));
        let rounds = (1..=24).map(|number| Round::planned(number, 7));
        let conditions: BTreeSet<_> = rounds.map(|it| (it.cold, it.cpus, it.load, it.apart)).collect();
        assert_eq!(conditions.len(), 16);
    }
}
