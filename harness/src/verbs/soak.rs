//! `conform soak`: the same run again and again under changing conditions, and every record that was not the same.
//!
//! Conditions change so that eight runs go through all of them: machines restored or booted, with one processor or two,
//! on a host with nothing else to do or with a busy thread per processor. The order of the probes within their families
//! is another one in each run. A difference is reported, never hidden by running again, and so is a machine that was lost
//! between two probes.

mod tally;

use super::folder::RunFolder;
use super::project::Project;
use super::run::{Place, run_in};
use crate::cli::{Format, MachineOptions, SoakOptions};
use crate::exit::{self, Failure};
use crate::model::KernelRun;
use crate::progress::Progress;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tally::{Broken, Difference, Tally};

/// Version of the JSON document.
const SCHEMA: u32 = 1;

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Document {
    /// [`SCHEMA`].
    schema: u32,
    /// What the runs' orders come from; `--seed` gives the same again.
    seed: u64,
    /// The kernels, in the order of the first run.
    kernels: Vec<String>,
    /// The runs that came to their end.
    runs: Vec<Round>,
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
    /// Records.
    records: usize,
    /// Machines that were booted; a state that is not there or cannot be used makes one of a run without `--cold`.
    booted: u32,
    /// Machines that were restored.
    restored: u32,
    /// Boots that brought nothing and were repeated.
    boot_retries: u32,
    /// Probes that were asked again because their machine was ended from outside.
    asked_again: usize,
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
            records: 0,
            booted: 0,
            restored: 0,
            boot_retries: 0,
            asked_again: 0,
            lost_between: Vec::new(),
            seconds: 0.0,
        }
    }

    /// Counts what came of one kernel.
    fn add(&mut self, run: &KernelRun) {
        self.records += run.records.len();
        self.booted += run.boots.saturating_sub(run.restored);
        self.restored += run.restored;
        self.boot_retries += run.boot_retries;
        self.asked_again += run.asked_again.len();
        self.lost_between.extend(run.lost_between.iter().map(|lost| format!("{}: {lost}", run.kernel)));
    }
}

/// Runs, compares, reports.
pub(super) fn soak(project: &Project, options: &SoakOptions, progress: &Progress) -> Result<u8, Failure> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seed = options.seed.unwrap_or(now.as_secs());
    progress.say("soak", &format!("{} runs, --seed {seed}", options.runs));
    // One soak at a time, which begins with nothing of the last one's.
    let folder = RunFolder::emptied(project, &project.work_folder().join("soak"))?;
    let mut tally = Tally::default();
    let mut rounds = Vec::new();
    let mut interrupted = false;
    for number in 1..=options.runs {
        match round(project, options, &folder, Round::planned(number, seed), &mut tally, progress) {
            Ok(round) => rounds.push(round),
            // What was seen until then is worth reporting.
            Err(failure) if failure.code == exit::INTERRUPTED => {
                progress.say("soak", &failure.to_string());
                interrupted = true;
                break;
            }
            Err(failure) => return Err(failure),
        }
    }
    let differences = tally.differences()?;
    let same = differences.is_empty() && rounds.iter().all(|round: &Round| round.lost_between.is_empty());
    let code = match (interrupted, tally.failures.is_empty(), same) {
        (true, _, _) => exit::INTERRUPTED,
        (false, false, _) => exit::INFRASTRUCTURE,
        (false, true, false) => exit::MISMATCH,
        (false, true, true) => exit::OK,
    };
    let Tally { kernels, records, failures, .. } = tally;
    let document = Document { schema: SCHEMA, seed, kernels, runs: rounds, records, differences, failures };
    match options.format {
        Format::Table => super::print(&in_words(&document)),
        Format::Json => {
            let text = serde_json::to_string_pretty(&document)
                .map_err(|error| Failure::new(exit::INFRASTRUCTURE, error))?;
            super::print(&text);
        }
        Format::Junit | Format::Markdown => return Err(super::no_such_format("soak")),
    }
    Ok(code)
}

/// One run, taken into the tally.
fn round(
    project: &Project,
    options: &SoakOptions,
    folder: &RunFolder,
    mut round: Round,
    tally: &mut Tally,
    progress: &Progress,
) -> Result<Round, Failure> {
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
    progress.say("soak", &format!("run {}: {}", round.number, conditions(&round)));
    let folder = folder.path.join(round.number.to_string());
    let started = Instant::now();
    let _load = round.load.then(Load::start);
    let finished = run_in(project, &options.selection, &machine, Place::Apart(&folder), false, progress)?;
    round.seconds = started.elapsed().as_secs_f64();
    for run in &finished.runs {
        round.add(run);
        tally.add(round.number, run);
    }
    Ok(round)
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
            round.records.to_string(),
            round.boot_retries.to_string(),
            round.asked_again.to_string(),
            format!("{:.1}", round.seconds),
        ]);
    }
    for column in [0, 2, 3, 4, 6, 7, 8, 9, 10] {
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
        for lost in &round.lost_between {
            text += &format!("run {}: a machine was lost between probes: {lost}\n", round.number);
        }
    }
    for broken in &document.failures {
        text += &format!("{broken}\n");
    }
    text + &format!(
        "--seed {}: {} records of {} runs on {} compared; probes on a kernel whose record was not always the same: {}\n",
        document.seed,
        document.records,
        document.runs.len(),
        document.kernels.join(" "),
        document.differences.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Between;
    use std::collections::BTreeSet;

    /// What was planned is one thing, and what there was another.
    #[test]
    fn machines_are_counted_as_they_were() {
        let run = KernelRun {
            kernel: "6.1".to_owned(),
            boots: 5,
            restored: 2,
            boot_retries: 1,
            asked_again: vec!["a/b".into()],
            lost_between: vec![Between { after: Some("a/c".into()), what: "BUG".into() }],
            ..KernelRun::default()
        };
        let mut round = Round::planned(1, 7);
        round.add(&run);
        round.add(&run);
        assert!(!round.cold);
        assert_eq!((round.booted, round.restored, round.boot_retries, round.asked_again), (6, 4, 2, 2));
        let (seed, kernels) = (7, vec!["6.1".to_owned(), "7.3".to_owned()]);
        let (runs, differences, failures) = (vec![round], Vec::new(), Vec::new());
        let text =
            in_words(&Document { schema: SCHEMA, seed, kernels, runs, records: 0, differences, failures });
        assert!(text.contains("0 records of 1 runs on 6.1 7.3 compared"), "{text}");
        assert_eq!(
            text.matches("run 1: a machine was lost between probes: 6.1: after a/c: BUG").count(),
            2,
            "{text}"
        );
        let words: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words, ["1", "kept", "6", "4", "1", "as", "it", "is", "7", "0", "2", "2", "0.0"]);
    }

    #[test]
    fn eight_runs_go_through_all_conditions_in_eight_orders() {
        let rounds: Vec<Round> = (1..=8).map(|number| Round::planned(number, 7)).collect();
        let conditions: BTreeSet<_> = rounds.iter().map(|it| (it.cold, it.cpus, it.load)).collect();
        let orders: BTreeSet<_> = rounds.iter().map(|it| it.order).collect();
        assert_eq!((conditions.len(), orders.len()), (8, 8));
    }
}
