//! `conform run`: everything, from a selection to an exit code.

use super::environment::{Environment, images, jobs};
use super::folder::RunFolder;
use super::judge::{compare_with_rows, exit_code, note_what_is_lacking};
use super::manifest::{self, Manifest};
use super::newcomers;
use super::options::{Options, not_for_snapshots};
use super::project::{Project, ids_in, probe_globs, probe_infos};
use super::proposals::{accept, left_over, propose};
use super::resume::Resumed;
use super::soak::Base;
use super::subject::{Subject, subjects};
use super::teller::Teller;
use crate::cache::Cache;
use crate::cli::{Format, MachineOptions, RunOptions, Selection};
use crate::exit::{self, Failure};
use crate::interrupt;
use crate::matrix::{Matrix, Row, Source};
use crate::model::{FORMAT, ImageFacts, KernelRun};
use crate::progress::Progress;
use crate::provision::kernels::unbuilt;
use crate::report::{Material, json, junit, table};
use crate::run::schedule;
use crate::run::setup::{Job, Setup};
use crate::run::shard::Shard;
use crate::run::took::Took;
use crate::snapshot::{Ci, Comparison};
use nix::sys::signal::Signal;
use probes::protocol::Part;
use probes::record::Outcome;
use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

/// What is said when a signal ends a run that has no machine yet.
const BEFORE_MACHINES: &str = "nothing more is recorded and nothing is to be undone; what is said to be ready is kept, and the \
                               same command goes on from there";

/// A run that has come to its end.
pub struct Finished {
    /// The kernels, in the order of the selection.
    pub runs: Vec<KernelRun>,
    /// Where the raw records are; nobody else writes there until this is dropped.
    folder: RunFolder,
    /// Records that could not be written to the folder, one sentence each.
    pub not_kept: Vec<String>,
    /// Rows of the matrix that nobody named and that have no image here: their name, and why.
    pub not_run: Vec<(String, String)>,
    /// Wall-clock time.
    pub took: Duration,
}

/// Runs what is selected, compares, reports.
pub(super) fn run(project: &Project, options: &RunOptions, progress: &Progress) -> Result<u8, Failure> {
    if options.accept && Ci::from_env() == Ci::Yes {
        let why = anyhow::anyhow!("--accept is refused where CI is set: snapshots are accepted by people");
        return Err(Failure::new(exit::BAD_INPUT, why));
    }
    let matrix = project.matrix()?;
    let resumed =
        options.resume.as_ref().map(|folder| Resumed::open(project, folder.as_deref())).transpose()?;
    let options = resumed.as_ref().map_or_else(|| Ok(options.clone()), |it| it.options(options))?;
    if let Some(resumed) = &resumed {
        progress.say("resume", &resumed.in_words());
    }
    if options.accept
        && let Some(why) = not_for_snapshots(&options.machine)
    {
        let why = anyhow::anyhow!("--accept is refused with {why}: snapshots are of the usual machine");
        return Err(Failure::new(exit::BAD_INPUT, why));
    }
    let selection = Selection { shard: options.shard, ..options.selection.clone() };
    let place = resumed.as_ref().map_or(Place::New(options.run_dir.as_deref()), Place::Resumed);
    let finished = run_in(project, &selection, &options.machine, place, false, progress)?;
    interrupt::say_in_parting(format!(
        "all was run, and what was recorded is in {}; each snapshot is the old one or the new one",
        finished.folder.path.display()
    ));
    let mut comparison = compare_with_rows(project, &matrix, &finished.runs)?;
    report(project, &matrix, &finished, &comparison, options.format)?;
    if options.accept {
        accept(project, &matrix, &finished.runs, &finished.folder.path, progress)?;
        // Images have no snapshots, and what did not run or is stale is not accepted: that is still to be seen to.
        comparison = compare_with_rows(project, &matrix, &finished.runs)?;
        if !comparison.all_matched() {
            progress.say("accept", &left_over(&comparison));
        }
    } else if Ci::from_env() == Ci::No {
        // Also where all matches: an earlier run may have proposed something else.
        let compared = (&comparison, finished.folder.path.as_path());
        propose(project, &matrix, &finished.runs, compared, &options.machine, progress)?;
    }
    for sentence in &finished.not_kept {
        progress.say("records", sentence);
    }
    let code = exit_code(&finished.runs, &comparison);
    Ok(if finished.not_kept.is_empty() { code } else { exit::INFRASTRUCTURE })
}

/// Makes everything ready, boots the kernels, and writes their records to the folder `folder`, which is emptied first: one
/// that the conformance tests use again and again, and whose records may be accepted.
///
/// # Errors
/// [`Failure`], when nothing can be run; a kernel that fails by itself is in the result.
pub fn prepare_and_run(
    project: &Project,
    selection: &Selection,
    options: &MachineOptions,
    folder: &Path,
    progress: &Progress,
) -> Result<Finished, Failure> {
    run_in(project, selection, options, Place::Test(folder), false, progress)
}

/// Where records go.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// A folder, or one named after the time: this becomes the last run, which `accept` takes.
    New(Option<&'a Path>),
    /// A folder that is emptied, of a run of a test.
    Test(&'a Path),
    /// A folder that is emptied, of a run that another verb makes for itself: nobody accepts or resumes it.
    Apart(&'a Path),
    /// The same, of one of several runs that are compared and have to stand on one base.
    Again(&'a Path, &'a Base),
    /// The folder of a run that goes on.
    Resumed(&'a Resumed),
}

/// Makes everything ready, boots the kernels, and writes their records to a folder as they come.
///
/// # Errors
/// As [`prepare_and_run`].
pub(super) fn run_in(
    project: &Project,
    selection: &Selection,
    options: &MachineOptions,
    place: Place<'_>,
    detail: bool,
    progress: &Progress,
) -> Result<Finished, Failure> {
    run_keeping(project, selection, options, place, detail, progress, &mut Vec::new())
}

/// The same; what an interrupted run has recorded is in `kept` then.
///
/// # Errors
/// As [`prepare_and_run`].
pub(super) fn run_keeping(
    project: &Project,
    selection: &Selection,
    options: &MachineOptions,
    place: Place<'_>,
    detail: bool,
    progress: &Progress,
    kept: &mut Vec<KernelRun>,
) -> Result<Finished, Failure> {
    let matrix = project.matrix()?;
    let mut subjects = subjects(&matrix, &selection.kernels)?;
    let dynamic = project.dynamic_ids()?;
    let globs = probe_globs(&selection.probes, &dynamic)?;
    if subjects.is_empty() {
        return Err(Failure::new(exit::NOTHING_SELECTED, anyhow::anyhow!("the matrix has no kernels")));
    }
    let started = Instant::now();
    // Until machines run, which come to an end of their own.
    let getting_ready = interrupt::in_parting(BEFORE_MACHINES);
    let mut environment = Environment::prepare(project, options, progress)?;
    environment.setup.select = globs;
    environment.setup.known = dynamic;
    environment.setup.detail = detail;
    let not_run = leave_out_unnamed(&mut subjects, selection, &environment.cache, progress);
    let folder = folder_at(project, place)?;
    let share = shares(subjects, selection.shard);
    if share.is_empty() {
        let why =
            anyhow::anyhow!("this shard has no kernel; ask for at most as many shards as there is work");
        return Err(Failure::new(exit::NOTHING_SELECTED, why));
    }
    let ready = get_ready(&mut environment, &matrix, &share, options, &folder, progress)?;
    let mut ready = begin(&environment, Options::of(selection, options), ready, place, &folder)?;
    drop(getting_ready);
    if matches!(place, Place::New(_) | Place::Resumed(_)) {
        folder.is_unfinished(project);
    }
    // What all probes took says nothing of how long a few of them take.
    let is_of_all = selection.probes.is_empty();
    let mut took = Took::read(project.work_folder().join("took.json"));
    ready.jobs.iter_mut().filter(|_| is_of_all).for_each(|job| job.expected = took.of(&job.kernel));
    let (runs, not_kept) = run_jobs(&environment, ready, options, &folder, progress, kept)?;
    if matches!(place, Place::New(_)) && is_of_all && selection.shard.is_none() {
        // Nothing but the order of the next run is worse without it.
        let _ = took.note(&runs);
    }
    if !environment.setup.select.is_empty() && nothing_ran(&runs) {
        let why = anyhow::anyhow!(
            "no probe matches {} on any of these kernels; cargo conform list shows all",
            selection.probes.join(", ")
        );
        return Err(Failure::new(exit::NOTHING_SELECTED, why));
    }
    if matches!(place, Place::New(_) | Place::Resumed(_)) {
        folder.becomes_last(project);
    }
    if runs.iter().all(|run| run.failure.is_none()) && not_kept.is_empty() {
        folder.is_finished(project);
    }
    Ok(Finished { runs, folder, not_kept, not_run, took: started.elapsed() })
}

/// Takes out the rows for which there is a reason, and gives them with it.
pub(super) fn set_aside(
    subjects: &mut Vec<Subject>,
    why: impl Fn(&Row) -> Option<String>,
) -> Vec<(String, String)> {
    let mut aside = Vec::new();
    subjects.retain(|subject| {
        let Subject::Row(row) = subject else { return true };
        let Some(why) = why(row) else { return true };
        aside.push((row.name.clone(), why));
        false
    });
    aside
}

/// Takes out the rows that nobody named and that are built from sources: those that have not been built here, because who
/// names none is not kept waiting for builds; or, where the work is shared, all of them, because all machines have to leave out
/// the same rows, whatever they have built. They are said, and nothing is said of them.
fn leave_out_unnamed(
    subjects: &mut Vec<Subject>,
    selection: &Selection,
    cache: &Cache,
    progress: &Progress,
) -> Vec<(String, String)> {
    let not_run = if !selection.kernels.is_empty() {
        Vec::new()
    } else if selection.shard.is_some() {
        set_aside(subjects, |row| {
            matches!(row.source, Source::Archive(_)).then(|| "built from sources, and not named".to_owned())
        })
    } else {
        set_aside(subjects, |row| unbuilt(row, cache))
    };
    for (kernel, why) in &not_run {
        progress.say(kernel, &format!("not run: {why}"));
    }
    not_run
}

/// The folder that is meant, ready to be written to.
fn folder_at(project: &Project, place: Place<'_>) -> Result<RunFolder, Failure> {
    match place {
        Place::New(asked) => RunFolder::make(project, asked),
        Place::Test(folder) | Place::Apart(folder) | Place::Again(folder, _) => {
            RunFolder::emptied(project, folder)
        }
        Place::Resumed(resumed) => RunFolder::take(&resumed.folder),
    }
}

/// The subjects of which this machine runs something, each with the part of the probes that it runs.
fn shares(subjects: Vec<Subject>, shard: Option<Shard>) -> Vec<(Subject, Part)> {
    let count = subjects.len();
    let part = |at| shard.map_or(Some(Part::default()), |shard| shard.part(at, count));
    subjects.into_iter().enumerate().filter_map(|(at, subject)| Some((subject, part(at)?))).collect()
}

/// What is run: a job per kernel that has an image, and the others, as failed.
struct Ready {
    jobs: Vec<Job>,
    failed: Vec<KernelRun>,
}

/// Fetches the images of the subjects and chooses the accelerator.
fn get_ready(
    environment: &mut Environment,
    matrix: &Matrix,
    subjects: &[(Subject, Part)],
    options: &MachineOptions,
    folder: &RunFolder,
    progress: &Progress,
) -> Result<Ready, Failure> {
    let mut ready = Vec::new();
    let mut failed = Vec::new();
    let all = images(
        subjects.iter().map(|(subject, _)| subject),
        &environment.cache,
        progress,
        options.host.offline,
    );
    for ((subject, part), image) in subjects.iter().zip(all) {
        match image {
            Ok(image) => ready.push((subject, image, *part)),
            Err(failure) => {
                progress.say(subject.name(), &format!("no image: {failure}"));
                failed.push(without_image(subject, &failure));
            }
        }
    }
    let default_lsm = matrix.rows.first().map_or("bpf", |row| row.lsm.as_str());
    let jobs = jobs(&ready, folder, options.lsm.as_deref(), default_lsm)?;
    if let Some(first) = jobs.first() {
        environment.choose_accel(options, first, progress);
    }
    Ok(Ready { jobs, failed })
}

/// Notes in the folder what the run stands on, or checks that it is what the run that goes on stood on.
fn begin(
    environment: &Environment,
    options: Options,
    mut ready: Ready,
    place: Place<'_>,
    folder: &RunFolder,
) -> Result<Ready, Failure> {
    let manifest = Manifest::of(options, &environment.setup, &ready.jobs, &ready.failed)?;
    match place {
        Place::New(_) | Place::Test(_) => manifest.begin(&folder.path)?,
        Place::Apart(_) => {}
        Place::Again(_, base) => {
            // How many processors a machine has differs on purpose.
            let setup = Setup { cpus: 1, ..environment.setup.clone() };
            base.hold(Manifest::of(manifest.options, &setup, &ready.jobs, &ready.failed)?)?;
        }
        Place::Resumed(resumed) => {
            resumed.go_on(&manifest, &mut ready.jobs)?;
            // A kernel may have an image that had none: the next who goes on is held to it.
            manifest.write(&folder.path)?;
        }
    }
    Ok(ready)
}

/// Boots the kernels and keeps their records in `folder`. Those without an image come last, as failed. The second
/// part says what could not be kept. After an interruption what there is, is in `kept`.
fn run_jobs(
    environment: &Environment,
    ready: Ready,
    options: &MachineOptions,
    folder: &RunFolder,
    progress: &Progress,
    kept: &mut Vec<KernelRun>,
) -> Result<(Vec<KernelRun>, Vec<String>), Failure> {
    let Ready { jobs, mut failed } = ready;
    // One more than there are processors: a machine that waits for a grace period uses none.
    let width =
        options.host.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from) + 1);
    let _graceful = interrupt::gracefully();
    let teller = Teller::new(progress, &folder.path);
    for run in jobs.iter().filter_map(|job| job.before.as_ref()) {
        let what = if run.failure.is_none() { "all of them" } else { "a part" };
        progress.say(&run.kernel, &format!("{} records were there, {what}", run.records.len()));
    }
    let write = |run: &KernelRun| {
        teller.over(&run.kernel);
        if teller.keep(run) {
            progress.say(&run.kernel, &in_short(run));
        }
    };
    let mut runs = schedule::run_all(&environment.setup, &jobs, width, &teller, &write);
    if interrupt::asked().is_none() {
        for at in newcomers::ask_the_others(&environment.setup, &jobs, &mut runs, width, &teller) {
            write(&runs[at]);
        }
    }
    let setup = &environment.setup;
    for at in note_what_is_lacking(&setup.known, &setup.select, &jobs, &mut runs)? {
        write(&runs[at]);
    }
    if let Some(signal) = interrupt::asked()
        && let Some(failure) = interrupted(signal, &jobs, &runs, folder)
    {
        *kept = runs;
        return Err(failure);
    }
    failed.iter().for_each(&write);
    runs.append(&mut failed);
    Ok((runs, teller.not_kept()))
}

/// What an interrupted run has to say; nothing when it was complete all the same.
fn interrupted(signal: Signal, jobs: &[Job], runs: &[KernelRun], folder: &RunFolder) -> Option<Failure> {
    let (mut complete, mut in_part, mut not_begun) = (Vec::new(), Vec::new(), Vec::new());
    for job in jobs {
        match runs.iter().find(|run| run.kernel == job.kernel) {
            Some(run) if run.failure.is_none() => complete.push(run.kernel.clone()),
            Some(run) => {
                let there = run.records.iter().filter(|it| !matches!(it.outcome, Outcome::NotRun { .. }));
                in_part.push(format!("{} ({} of {} records)", run.kernel, there.count(), run.records.len()));
            }
            None => not_begun.push(job.kernel.clone()),
        }
    }
    if complete.len() == jobs.len() {
        return None;
    }
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(" ") };
    let path = folder.path.display();
    let mut text = format!(
        "interrupted by {}; complete: {}; in part: {}; not begun: {}; what was recorded is in {path}",
        signal.as_str(),
        list(&complete),
        list(&in_part),
        list(&not_begun),
    );
    if folder.path.join(manifest::FILE).exists() {
        text += &format!("\nto go on: cargo conform run --resume {path}");
    }
    let why = anyhow::anyhow!(text);
    Some(Failure::new(exit::INTERRUPTED, why))
}

/// Whether every kernel was asked and none had anything to answer: a glob over probes that only kernels know.
fn nothing_ran(runs: &[KernelRun]) -> bool {
    runs.iter().all(|run| run.failure.is_none() && run.records.is_empty())
}

/// A run of a kernel that has no image: every probe is accounted for, none has run.
fn without_image(subject: &Subject, failure: &Failure) -> KernelRun {
    KernelRun {
        format: FORMAT,
        kernel: subject.name().to_owned(),
        image: ImageFacts::default(),
        failure: Some(failure.to_string()),
        ..KernelRun::default()
    }
}

fn in_short(run: &KernelRun) -> String {
    let seconds = |ms: u64| Duration::from_millis(ms).as_secs_f64();
    let retries =
        if run.boot_retries > 0 { format!(", {} boots repeated", run.boot_retries) } else { String::new() };
    format!(
        "{} records in {:.1} s (boot {:.1}, probes {:.1}{retries})",
        run.records.len(),
        seconds(run.timing.all_ms()),
        seconds(run.timing.boot_ms),
        seconds(run.timing.probes_ms),
    )
}

fn report(
    project: &Project,
    matrix: &Matrix,
    finished: &Finished,
    comparison: &Comparison,
    format: Format,
) -> Result<(), Failure> {
    let names: Vec<String> = matrix.rows.iter().map(|row| row.name.clone()).collect();
    let probes = probe_infos(&ids_in(&finished.runs));
    let material = Material { runs: &finished.runs, comparison, matrix: &names, probes: &probes };
    let broken = |error: String| Failure::new(exit::INFRASTRUCTURE, anyhow::anyhow!(error));
    match format {
        Format::Table | Format::Markdown => {
            let terminal = std::io::stdout().is_terminal();
            let width = usize::from(super::list::width());
            super::print(&table::render(
                material,
                table::Look { width, unicode: terminal, colour: terminal },
            ));
            if !finished.not_run.is_empty() {
                let names: Vec<&str> = finished.not_run.iter().map(|(name, _)| name.as_str()).collect();
                super::print(&format!(
                    "not run, because not built here (cargo conform kernels build ROW): {}",
                    names.join(" ")
                ));
            }
            let folder = finished.folder.path.strip_prefix(&project.root).unwrap_or(&finished.folder.path);
            super::print(&format!(
                "{:.1} s in all; raw records in {}",
                finished.took.as_secs_f64(),
                folder.display()
            ));
        }
        Format::Json => super::print(&json::render(material).map_err(|error| broken(error.to_string()))?),
        Format::Junit => super::print(&junit::render(material).map_err(|error| broken(error.to_string()))?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use probes::record::Record;

    #[test]
    fn a_kernel_that_failed_is_not_one_without_probes() {
        let empty = KernelRun::default();
        let failed = KernelRun { failure: Some("no boot".into()), ..KernelRun::default() };
        let ran = KernelRun { records: vec![Record::not_run("a/b", "")], ..KernelRun::default() };
        assert!(nothing_ran(&[empty.clone(), empty.clone()]));
        assert!(!nothing_ran(&[empty.clone(), failed]) && !nothing_ran(&[empty, ran]));
    }
}
