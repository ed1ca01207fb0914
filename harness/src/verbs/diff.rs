//! `conform diff A B`: what changed from one kernel to another, the news first.
//!
//! A side is a row of the matrix (its snapshots; nothing boots), a run folder, one kernel of a run folder
//! (`FOLDER:KERNEL`), or an image on disk, which is booted and run. The JSON is an object with the fields of [`Diff`].

use super::project::{Project, glob_set, probe_globs};
use super::run::{Place, run_in};
use crate::cli::{DiffFormat, DiffOptions, Selection};
use crate::exit::{self, Failure};
use crate::model::KernelRun;
use crate::normalize::{Normal, normalize};
use crate::progress::Progress;
use crate::report::news::{Change, Kind, changes};
use crate::report::runs;
use crate::snapshot::was_seen;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// Version of the JSON.
const SCHEMA: u32 = 1;
/// How much of a message a line of text shows; the JSON has all of it.
const SHOWN: usize = 160;

/// One comparison of two kernels.
#[derive(Debug, Serialize)]
struct Pair {
    /// The first kernel.
    before: String,
    /// The second.
    after: String,
    /// How many probes both gave a record of.
    probes: usize,
    /// What changed.
    changes: Vec<Change>,
}

/// The JSON document.
#[derive(Debug, Serialize)]
struct Diff {
    /// [`SCHEMA`].
    schema: u32,
    /// One comparison; for two run folders one per kernel that both have.
    pairs: Vec<Pair>,
    /// Kernels that only one of two run folders has.
    unpaired: Vec<String>,
}

/// The records of one kernel, by probe.
struct Side {
    name: String,
    records: BTreeMap<String, Normal>,
    /// Probes that changed since they were asked.
    behind: BTreeSet<String>,
}

/// Prints what changed.
pub(super) fn diff(project: &Project, options: &DiffOptions, progress: &Progress) -> Result<u8, Failure> {
    let before = sides(project, &options.before, "before", options, progress)?;
    let after = sides(project, &options.after, "after", options, progress)?;
    let set = glob_set(&probe_globs(&options.probes, &project.dynamic_ids()?)?)?;
    let wanted = |probe: &str| options.probes.is_empty() || set.is_match(probe);
    let diff = paired(before, after, &wanted);
    if diff.pairs.iter().all(|pair| pair.probes == 0) {
        let why = anyhow::anyhow!("no probe has records of both; name kernels and probes that were run");
        return Err(Failure::new(exit::NOTHING_SELECTED, why));
    }
    match options.format {
        DiffFormat::Table => super::print(&in_words(&diff, false)),
        DiffFormat::Markdown => super::print(&in_words(&diff, true)),
        DiffFormat::Json => {
            let text = serde_json::to_string_pretty(&diff);
            super::print(&text.map_err(|error| Failure::new(exit::INFRASTRUCTURE, error))?);
        }
    }
    Ok(exit::OK)
}

/// The kernels that a word of the command line means.
fn sides(
    project: &Project,
    word: &str,
    which: &str,
    options: &DiffOptions,
    progress: &Progress,
) -> Result<Vec<Side>, Failure> {
    let matrix = project.matrix()?;
    if matrix.row(word).is_ok() {
        return Ok(vec![row(project, word)?]);
    }
    if Path::new(word).is_dir() {
        return runs::read_all(Path::new(word))?.into_iter().map(|run| whole(run).map(of_run)).collect();
    }
    if let Some((folder, kernel)) = word.rsplit_once(':')
        && Path::new(folder).is_dir()
    {
        let all = runs::read_all(Path::new(folder))?;
        let found = all.into_iter().find(|run| run.kernel == kernel);
        let missing = || bad(&format!("the run in {folder} has no kernel {kernel}"));
        return Ok(vec![of_run(whole(found.ok_or_else(missing)?)?)]);
    }
    if !Path::new(word).is_file() {
        return Err(bad(&format!(
            "{word} is no row of {}, no run folder and no kernel image; name one of these",
            project.matrix.display()
        )));
    }
    let selection = Selection { kernels: vec![word.to_owned()], probes: options.probes.clone(), shard: None };
    let folder = project.work_folder().join("diff").join(which);
    let finished = run_in(project, &selection, &options.machine, Place::Apart(&folder), false, progress)?;
    finished.runs.into_iter().map(|run| whole(run).map(of_run)).collect()
}

fn bad(why: &str) -> Failure {
    Failure::new(exit::BAD_INPUT, anyhow::anyhow!(why.to_owned()))
}

/// A kernel that did not come to its end is no side: what it did not say would look gone.
fn whole(run: KernelRun) -> Result<KernelRun, Failure> {
    match &run.failure {
        None => Ok(run),
        Some(why) => Err(Failure::new(
            exit::INFRASTRUCTURE,
            anyhow::anyhow!("{} cannot be compared: {why}", run.kernel),
        )),
    }
}

fn row(project: &Project, name: &str) -> Result<Side, Failure> {
    let snapshots = project.store().load_all()?;
    let of = |(probe, snapshot): (&String, &crate::snapshot::Snapshot)| {
        Some((probe.clone(), snapshot.of(name)?.clone()))
    };
    let is_behind = |(probe, snapshot): (&String, &crate::snapshot::Snapshot)| {
        snapshot.behind.contains(name).then(|| probe.clone())
    };
    let behind = snapshots.iter().filter_map(is_behind).collect();
    let records: BTreeMap<String, Normal> = snapshots.iter().filter_map(of).collect();
    if records.is_empty() {
        return Err(Failure::new(
            exit::NOTHING_SELECTED,
            anyhow::anyhow!(
                "{name} has no snapshots: it has not been measured yet; name another kernel, or run and accept it"
            ),
        ));
    }
    Ok(Side { name: name.to_owned(), records, behind })
}

fn of_run(run: KernelRun) -> Side {
    let normal = run.records.iter().map(|record| (record.probe.clone(), normalize(record)));
    let records = normal.filter(|(_, normal)| was_seen(normal)).collect();
    Side { name: run.kernel, records, behind: BTreeSet::new() }
}

/// One kernel against one, whatever their names; several against several by name.
fn paired(mut before: Vec<Side>, mut after: Vec<Side>, wanted: &dyn Fn(&str) -> bool) -> Diff {
    let mut pairs = Vec::new();
    let mut unpaired = Vec::new();
    if before.len() == 1 && after.len() == 1 {
        let both = before.pop().zip(after.pop());
        pairs.extend(both.map(|(one, other)| pair(one, other, wanted)));
        return Diff { schema: SCHEMA, pairs, unpaired };
    }
    for one in before {
        match after.iter().position(|other| other.name == one.name) {
            Some(at) => pairs.push(pair(one, after.remove(at), wanted)),
            None => unpaired.push(one.name),
        }
    }
    unpaired.extend(after.into_iter().map(|side| side.name));
    Diff { schema: SCHEMA, pairs, unpaired }
}

fn pair(mut before: Side, mut after: Side, wanted: &dyn Fn(&str) -> bool) -> Pair {
    before.records.retain(|probe, _| wanted(probe));
    after.records.retain(|probe, _| wanted(probe));
    Pair {
        probes: before.records.keys().filter(|probe| after.records.contains_key(*probe)).count(),
        changes: changes_told(&before, &after),
        before: before.name,
        after: after.name,
    }
}

/// The changes, those of probes that only one side was asked as they are now last: what differs may be the probe.
fn changes_told(before: &Side, after: &Side) -> Vec<Change> {
    let mut found = changes(&before.records, &after.records);
    for change in &mut found {
        if before.behind.contains(&change.probe) != after.behind.contains(&change.probe) {
            change.kind = Kind::Unknown;
        }
    }
    found.sort_by_key(|change| change.kind);
    found
}

fn in_words(diff: &Diff, markdown: bool) -> String {
    let mut text = String::new();
    let (one, two) = if markdown { ("# ", "## ") } else { ("", "") };
    for pair in &diff.pairs {
        let _ = writeln!(
            text,
            "{one}{} to {}: {} changes in {} probes",
            pair.before,
            pair.after,
            pair.changes.len(),
            pair.probes
        );
        for group in pair.changes.chunk_by(|a, b| a.kind == b.kind) {
            let Some(first) = group.first() else { continue };
            let _ = writeln!(text, "\n{two}{} ({})\n", first.kind.heading(), group.len());
            for of_probe in group.chunk_by(|a, b| a.probe == b.probe) {
                lines(&mut text, of_probe, markdown);
            }
        }
        text.push('\n');
    }
    if !diff.unpaired.is_empty() {
        let _ = writeln!(text, "only one side has: {}", diff.unpaired.join(" "));
    }
    text
}

/// The changes of one kind in one probe; what came or went is named, everything else told.
fn lines(text: &mut String, changes: &[Change], markdown: bool) {
    let Some(first) = changes.first() else { return };
    let bullet = if markdown { "- " } else { "  " };
    let cases: Vec<&str> =
        changes.iter().map(|change| change.case.as_str()).filter(|case| !case.is_empty()).collect();
    if matches!(first.kind, Kind::Appeared | Kind::Disappeared | Kind::Unknown) {
        let cases = if cases.is_empty() { String::new() } else { format!(": {}", cases.join(", ")) };
        let _ = writeln!(text, "{bullet}{}{cases}", first.probe);
        return;
    }
    for change in changes {
        let id = if change.case.is_empty() {
            change.probe.clone()
        } else {
            format!("{}/{}", change.probe, change.case)
        };
        let _ = writeln!(text, "{bullet}{id}");
        if change.before != change.after {
            let _ = writeln!(text, "  {bullet}{} -> {}", short(&change.before), short(&change.after));
        }
        for fact in &change.facts {
            let value = |value: &Option<String>| value.as_deref().map_or_else(|| "nothing".to_owned(), short);
            let _ =
                writeln!(text, "  {bullet}{}: {} -> {}", fact.name, value(&fact.before), value(&fact.after));
        }
    }
}

/// A value on one line.
fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}..", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn side(name: &str, probe: &str) -> Side {
        let normal =
            Normal { outcome: probes::record::Outcome::Observed, cases: Vec::new(), warnings: Vec::new() };
        Side {
            name: name.into(),
            records: BTreeMap::from([(probe.to_owned(), normal)]),
            behind: BTreeSet::new(),
        }
    }

    #[test]
    fn one_kernel_is_held_against_one_and_several_by_name() {
        let all = |_: &str| true;
        let diff = paired(vec![side("6.0", "a/b")], vec![side("6.2", "a/b")], &all);
        assert_eq!((diff.pairs.len(), diff.pairs[0].probes), (1, 1));
        let two = || vec![side("6.0", "a/b"), side("6.1", "a/b")];
        let diff = paired(two(), vec![side("6.1", "a/b"), side("6.2", "a/b")], &all);
        assert_eq!(diff.pairs.len(), 1);
        assert_eq!(diff.unpaired, ["6.0", "6.2"]);
    }

    #[test]
    fn what_a_changed_probe_says_is_no_change_of_the_kernel() {
        let crashed = |name| {
            let mut side = side(name, "a/b");
            let what = "BUG".to_owned();
            let outcome = probes::record::Outcome::Crashed { what, during: "c: load".to_owned() };
            side.records.get_mut("a/b").unwrap().outcome = outcome;
            side
        };
        let kinds = |before: &Side, after: &Side| -> Vec<Kind> {
            changes_told(before, after).iter().map(|change| change.kind).collect()
        };
        let behind = |mut side: Side| {
            side.behind = BTreeSet::from(["a/b".to_owned()]);
            side
        };
        assert_eq!(kinds(&side("6.0", "a/b"), &crashed("6.1")), [Kind::Outcome]);
        assert_eq!(kinds(&side("6.0", "a/b"), &behind(crashed("6.1"))), [Kind::Unknown]);
        assert_eq!(kinds(&behind(side("6.0", "a/b")), &behind(crashed("6.1"))), [Kind::Outcome]);
    }

    /// What such a kernel did not say is not gone.
    #[test]
    fn a_kernel_that_did_not_come_to_its_end_is_no_side() {
        let options = |text: &str| {
            let words = ["conform", "diff", text, "7.3"];
            let crate::cli::Verb::Diff(options) = crate::cli::Cli::parse_from(words).verb else { panic!() };
            options
        };
        let folder = tempfile::tempdir().unwrap();
        let failed = KernelRun {
            format: crate::model::FORMAT,
            kernel: "6.1".into(),
            failure: Some("interrupted".into()),
            ..KernelRun::default()
        };
        let whole = KernelRun { kernel: "6.2".into(), failure: None, ..failed.clone() };
        for run in [&failed, &whole] {
            runs::write(folder.path(), run).unwrap();
        }
        let project = Project::find(None).unwrap();
        let path = folder.path().display();
        let of = |word: &str| sides(&project, word, "before", &options(word), &Progress::silent());
        assert_eq!(of(&format!("{path}:6.2")).unwrap().len(), 1);
        for word in [path.to_string(), format!("{path}:6.1")] {
            let failure = of(&word).map(|sides| sides.len()).unwrap_err();
            assert_eq!(failure.code, exit::INFRASTRUCTURE);
            assert!(failure.to_string().contains("6.1 cannot be compared: interrupted"), "{failure}");
        }
    }

    #[test]
    fn what_appeared_is_named_under_its_heading() {
        let all = |_: &str| true;
        let diff = paired(vec![side("6.0", "a/b")], vec![side("6.2", "a/c")], &all);
        let text = in_words(&diff, true);
        assert!(text.starts_with("# 6.0 to 6.2: 2 changes in 0 probes\n"), "{text}");
        assert!(text.contains("## appeared (1)\n\n- a/c\n"), "{text}");
        assert!(text.contains("## disappeared (1)\n\n- a/b\n"), "{text}");
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        assert_eq!(short("a\n  b"), "a b");
        assert_eq!(short(&"é".repeat(SHOWN + 1)), format!("{}..", "é".repeat(SHOWN)));
    }
}
