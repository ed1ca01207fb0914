//! `conform diff A B`: what changed from one kernel to another, the news first.
//!
//! A side is a row of the matrix (its snapshots; nothing boots), a run folder, one kernel of a run folder
//! (`FOLDER:KERNEL`), or an image on disk, which is booted and run. The JSON is an object with the fields of [`Diff`].

use super::project::{Project, glob_set, probe_globs};
use super::run::{Place, run_in};
use crate::cli::{DiffFormat, DiffOptions, Selection};
use crate::exit::{self, Failure};
use crate::model::KernelRun;
use crate::normalize::normalize;
use crate::progress::Progress;
use crate::report::news::{Change, Kind, Side, both, changes, one_sided};
use crate::report::{counted, runs};
use serde::Serialize;
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
    /// Probes of which only one gave a record: they are not compared.
    one_sided: Vec<String>,
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
    let side = Side::of_row(name, &project.store().load_all()?);
    if side.records.is_empty() {
        return Err(Failure::new(
            exit::NOTHING_SELECTED,
            anyhow::anyhow!(
                "{name} has no snapshots: it has not been measured yet; name another kernel, or run and accept it"
            ),
        ));
    }
    Ok(side)
}

fn of_run(run: KernelRun) -> Side {
    let records = run.records.iter().map(|record| (record.probe.clone(), normalize(record))).collect();
    Side { name: run.kernel, records, ..Side::default() }
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

fn pair(before: Side, after: Side, wanted: &dyn Fn(&str) -> bool) -> Pair {
    let is_wanted = |change: &Change| wanted(&change.probe);
    Pair {
        probes: both(&before, &after).filter(|probe| wanted(probe)).count(),
        one_sided: one_sided(&before, &after).into_iter().filter(|probe| wanted(probe)).collect(),
        changes: changes(&before, &after).into_iter().filter(is_wanted).collect(),
        before: before.name,
        after: after.name,
    }
}

fn in_words(diff: &Diff, markdown: bool) -> String {
    let mut text = String::new();
    let (one, two) = if markdown { ("# ", "## ") } else { ("", "") };
    for pair in &diff.pairs {
        let _ = writeln!(
            text,
            "{one}{} to {}: {} in {}",
            pair.before,
            pair.after,
            counted(pair.changes.len(), "change"),
            counted(pair.probes, "probe")
        );
        for group in pair.changes.chunk_by(|a, b| a.kind == b.kind) {
            let Some(first) = group.first() else { continue };
            let _ = writeln!(text, "\n{two}{} ({})\n", first.kind.heading(), group.len());
            for of_probe in group.chunk_by(|a, b| a.probe == b.probe) {
                lines(&mut text, of_probe, markdown);
            }
        }
        if !pair.one_sided.is_empty() {
            let left = counted(pair.one_sided.len(), "probe");
            let _ = writeln!(text, "\nnot compared, for only one side has a record: {left}");
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
    use crate::normalize::NormalCase;
    use crate::snapshot::made_up::{done, observed};
    use clap::Parser as _;
    use probes::record::End;
    use std::collections::BTreeMap;

    fn side(name: &str, probe: &str) -> Side {
        let records = BTreeMap::from([(probe.to_owned(), observed(Vec::new()))]);
        Side { name: name.into(), records, ..Side::default() }
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

    /// A run of one probe says nothing of the others.
    #[test]
    fn what_one_side_was_not_asked_is_counted_and_no_change() {
        let mut row = side("7.3", "a/b");
        row.records.extend(side("7.3", "a/c").records);
        row.records.extend(side("7.3", "a/d").records);
        let diff = paired(vec![row], vec![side("mine", "a/b")], &|probe| probe != "a/d");
        let text = in_words(&diff, true);
        assert!(text.starts_with("# 7.3 to mine: 0 changes in 1 probe\n"), "{text}");
        assert!(text.contains("only one side has a record: 1 probe\n"), "{text}");
        assert_eq!(diff.pairs[0].one_sided, ["a/c"]);
    }

    #[test]
    fn what_appeared_is_named_under_its_heading() {
        let with = |end: End| {
            let case = NormalCase { end, ..done("x") };
            Side { records: BTreeMap::from([("a/b".to_owned(), observed(vec![case]))]), ..side("k", "a/b") }
        };
        let absent = with(End::Absent { what: "function f".into() });
        let text = in_words(&paired(vec![absent], vec![with(End::Done)], &|_| true), true);
        assert!(text.starts_with("# k to k: 1 change in 1 probe\n"), "{text}");
        assert!(text.contains("## appeared (1)\n\n- a/b: x\n"), "{text}");
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        assert_eq!(short("a\n  b"), "a b");
        assert_eq!(short(&"é".repeat(SHOWN + 1)), format!("{}..", "é".repeat(SHOWN)));
    }
}
