//! `conform soak`: the same run again and again under changing conditions, and every record that was not the same.
//!
//! Conditions change so that eight runs go through all of them: machines restored or booted, with one processor or two,
//! on a host with nothing else to do or with a busy thread per processor. The order of the probes within their families
//! is another one in each run. A difference is reported, never hidden by running again, and so is a machine that was lost
//! between two probes.

mod base;
mod tally;

use super::folder::RunFolder;
use super::project::Project;
use super::run::{Place, run_keeping};
use crate::cli::{Format, MachineOptions, SoakOptions};
use crate::exit::{self, Failure};
use crate::interrupt;
use crate::model::KernelRun;
use crate::progress::Progress;
pub(super) use base::Base;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tally::{Broken, Difference, Tally};

/// Version of the JSON document.
const SCHEMA: u32 = 2;

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
    /// Kernels that could not be run to their end.
    failures: Vec<Broken>,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
struct Round {
    /// Counted from 1.
    number: u32,
    /// `--shuffle`.
    order: u64,
    /// `--cold`.
    cold: bool,
    /// `--cpus`.
    cpus: u32,
    /// Whether the host was kept busy.
    load: bool,
    /// Whether it was ended before all its kernels were. What they have recorded until then counts.
    broken_off: bool,
    /// Kernels that came to their end.
    complete: usize,
    /// Records.
    records: usize,
    /// Machines that were booted; a state that is not there or cannot be used makes one of a run without `--cold`.
    booted: u32,
    /// Machines that were restored.
    restored: u32,
    /// Boots that brought nothing and were repeated.
    boot_retries: u32,
    /// How they ended.
    boots_lost: Vec<String>,
    /// Probes that were asked again because their machine was ended from outside.
    asked_again: Vec<String>,
    /// Machines that were lost while no probe was under way: no record shows it.
    lost_between: Vec<String>,
    /// Wall-clock time.
    seconds: f64,
}

impl Round {
    /// The conditions of a run.
    fn planned(number: u32, seed: u64) -> Self {
        let at = number - 1;
        Self {
            number,
            order: seed.wrapping_add(u64::from(at)),
            cold: at % 2 == 1,
            cpus: 1 + at / 2 % 2,
            load: at / 4 % 2 == 1,
            broken_off: false,
            complete: 0,
            records: 0,
            booted: 0,
            restored: 0,
            boot_retries: 0,
            boots_lost: Vec::new(),
            asked_again: Vec::new(),
            lost_between: Vec::new(),
            seconds: 0.0,
        }
    }

    /// Counts what came of one kernel.
    fn add(&mut self, run: &KernelRun) {
        self.complete += usize::from(run.failure.is_none());
        self.records += tally::ran(run).count();
        self.booted += run.boots.saturating_sub(run.restored);
        self.restored += run.restored;
        self.boot_retries += run.boot_retries;
        let of_kernel = |what: &dyn std::fmt::Display| format!("{}: {what}", run.kernel);
        self.boots_lost.extend(run.boots_lost.iter().map(|what| of_kernel(what)));
        self.asked_again.extend(run.asked_again.iter().map(|probe| of_kernel(probe)));
        self.lost_between.extend(run.lost_between.iter().map(|lost| of_kernel(lost)));
    }
}

/// Runs, compares, reports.
pub(super) fn soak(project: &Project, options: &SoakOptions, progress: &Progress) -> Result<u8, Failure> {
    if matches!(options.format, Format::Junit | Format::Markdown) {
        return Err(super::no_such_format("soak"));
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seed = options.seed.unwrap_or(now.as_secs());
    progress.say("soak", &format!("{} runs, --seed {seed}", options.runs));
    // One soak at a time, which begins with nothing of the last one's.
    let folder = RunFolder::emptied(project, &project.work_folder().join("soak"))?;
    let base = Base::default();
    let (tally, rounds, ended) = repeat(options.runs, seed, |planned, kept| {
        round(project, options, &folder, planned, &base, progress, kept)
    });
    if let Some(failure) = &ended {
        progress.say("soak", &failure.to_string());
    }
    let (document, code) = judge(seed, tally, rounds, ended)?;
    if options.format == Format::Json {
        let text = serde_json::to_string_pretty(&document)
            .map_err(|error| Failure::new(exit::INFRASTRUCTURE, error))?;
        super::print(&text);
    } else {
        super::print(&in_words(&document));
    }
    Ok(code)
}

/// Runs until the last has come to its end, or one is broken off: what was seen until then is worth reporting. `run` makes
/// one run, whose kernels' runs it puts into its second argument, whether the run comes to its end or not.
fn repeat(
    count: u32,
    seed: u64,
    mut run: impl FnMut(&Round, &mut Vec<KernelRun>) -> Result<(), Failure>,
) -> (Tally, Vec<Round>, Option<Failure>) {
    let mut tally = Tally::default();
    let mut rounds = Vec::new();
    // Before the first has come to its end there is nothing to report, and nothing is waited for.
    let mut graceful = None;
    for number in 1..=count {
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
        if end.is_ok() || !kept.is_empty() {
            rounds.push(round);
        }
        if let Err(mut failure) = end {
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
    runs: Vec<Round>,
    ended: Option<Failure>,
) -> Result<(Document, u8), Failure> {
    let ended = match ended {
        Some(failure) if runs.is_empty() && failure.code != exit::INTERRUPTED => return Err(failure),
        ended => ended,
    };
    let differences = tally.differences()?;
    let same = differences.is_empty() && runs.iter().all(|round| round.lost_between.is_empty());
    let code = match (&ended, tally.failures.is_empty(), same) {
        (Some(failure), _, _) => failure.code,
        (None, false, _) => exit::INFRASTRUCTURE,
        (None, true, false) => exit::MISMATCH,
        (None, true, true) => exit::OK,
    };
    let ended = ended.map(|failure| failure.to_string());
    let Tally { kernels, records, failures, .. } = tally;
    Ok((Document { schema: SCHEMA, seed, kernels, runs, ended, records, differences, failures }, code))
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
        host: options.host.clone(),
        cold: round.cold,
        deadline: None,
        patience: 100,
        lsm: None,
        cpus: round.cpus,
        shuffle: Some(round.order),
        bring: None,
    };
    progress.say("soak", &format!("run {}: {}", round.number, conditions(round)));
    let folder = folder.path.join(round.number.to_string());
    let _load = round.load.then(Load::start);
    let place = Place::Again(&folder, base);
    let finished = run_keeping(project, &options.selection, &machine, place, false, progress, kept)?;
    *kept = finished.runs;
    Ok(())
}

fn conditions(round: &Round) -> String {
    format!(
        "{}, {} processor{}, {}, --shuffle {}",
        if round.cold { "to be booted" } else { "to be restored" },
        round.cpus,
        if round.cpus == 1 { "" } else { "s" },
        if round.load { "host busy" } else { "host as it is" },
        round.order
    )
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

fn in_words(document: &Document) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "run",
        "machines",
        "booted",
        "restored",
        "processors",
        "host",
        "--shuffle",
        "kernels",
        "records",
        "boots repeated",
        "asked again",
        "seconds",
    ]);
    for round in &document.runs {
        table.add_row([
            round.number.to_string(),
            if round.cold { "--cold" } else { "kept" }.to_owned(),
            round.booted.to_string(),
            round.restored.to_string(),
            round.cpus.to_string(),
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
    for column in [0, 2, 3, 4, 6, 7, 8, 9, 10, 11] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
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
            (&round.asked_again, "asked again, because its machine was ended from outside"),
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
    use crate::model::Between;
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
            asked_again: vec!["a/b".into()],
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
        let text = in_words(&judge(seed, tally, vec![round], None).unwrap().0);
        assert!(text.contains("0 records of 1 runs on 6.1 7.3 compared"), "{text}");
        assert_eq!(
            text.matches("run 1: a machine was lost between probes: 6.1: after a/c: BUG").count(),
            2,
            "{text}"
        );
        assert!(text.contains("run 1: a boot was repeated: 6.1: before hello\n"), "{text}");
        assert!(
            text.contains("run 1: asked again, because its machine was ended from outside: 6.1: a/b\n"),
            "{text}"
        );
        let words: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words, ["1", "kept", "6", "4", "1", "as", "it", "is", "7", "2", "0", "2", "2", "0.0"]);
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
        let (tally, rounds, ended) = repeat(5, 7, |round, kept| {
            if round.number < 3 {
                kept.push(ran("6.1", if round.number == 1 { "x" } else { "y" }, None));
                return Ok(());
            }
            kept.extend_from_slice(last);
            Err(Failure::new(code, anyhow::anyhow!("no more")))
        });
        judge(7, tally, rounds, ended).unwrap()
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
        let failure = judge(7, Tally::default(), Vec::new(), Some(failure)).unwrap_err();
        assert_eq!(failure.code, exit::NOTHING_SELECTED);
    }

    #[test]
    fn eight_runs_go_through_all_conditions_in_eight_orders() {
        let rounds: Vec<Round> = (1..=8).map(|number| Round::planned(number, 7)).collect();
        let conditions: BTreeSet<_> = rounds.iter().map(|it| (it.cold, it.cpus, it.load)).collect();
        let orders: BTreeSet<_> = rounds.iter().map(|it| it.order).collect();
        assert_eq!((conditions.len(), orders.len()), (8, 8));
    }
}
