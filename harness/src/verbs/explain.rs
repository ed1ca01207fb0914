//! `conform explain PROBE`, or of a hook, helper or kfunc by name: its history, then of its probe the question, the answer per range of kernels, the kernel source behind it, the program.
//!
//! The answers are the snapshot's, for which nothing boots. The program is the one of the last run that kept programs;
//! if none did, the newest kernel of the matrix is booted for it. The JSON is an object with the fields of [`Explained`].

use super::project::{Project, probe_globs};
use super::run::{Place, run_in};
use crate::cli::{AnswerFormat, ExplainOptions, Selection};
use crate::exit::{self, Failure};
use crate::facts::{self, Answers, Item, Span, Version};
use crate::model::KernelRun;
use crate::normalize::{Normal, NormalCase};
use crate::progress::Progress;
use crate::report::list::{ProbeInfo, SourceInfo};
use crate::report::runs;
use crate::snapshot::{Snapshot, kernel_phrase, render_body};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use probes::protocol::Machine;
use probes::record::{Outcome, ProgramDump};
use probes::{disasm, insn};
use serde::Serialize;
use std::fmt::Write as _;

/// Version of the JSON.
const SCHEMA: u32 = 1;

/// What is known of a probe.
#[derive(Debug, Serialize)]
struct Explained {
    /// [`SCHEMA`].
    schema: u32,
    /// The probe's id.
    probe: String,
    /// Its question.
    question: String,
    /// The virtual machine it needs: `"shared"`, `"own"`, or `{"lsm": {"order": ".."}}`.
    machine: Machine,
    /// The kernel source that the answers rest on.
    sources: Vec<SourceInfo>,
    /// The kernels that the snapshot knows, in its order; empty where there is no snapshot.
    kernels: Vec<String>,
    /// Those of them that were asked before the probe changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    measured_before_change: Vec<String>,
    /// How the probe ended, once per range.
    outcomes: Vec<Answer<Outcome>>,
    /// Its cases, each with one answer per range.
    cases: Vec<CaseAnswers>,
    /// The programs of the last run that kept them.
    programs: Vec<Program>,
}

/// The answers of one case.
#[derive(Debug, Serialize)]
struct CaseAnswers {
    /// The case.
    case: String,
    /// Its answers, in the order of their first kernel.
    answers: Vec<Answer<NormalCase>>,
}

/// What some kernels answered.
#[derive(Debug, PartialEq, Serialize)]
struct Answer<T> {
    /// The kernels.
    kernels: Vec<String>,
    /// The same as a phrase over the snapshot's kernels, such as `until 6.1`.
    range: String,
    /// What they answered; its fields are those of a record without what changes from run to run.
    answer: T,
}

/// A program as it was submitted.
#[derive(Debug, Serialize)]
pub(super) struct Program {
    /// The kernel it was made for: offsets and ids differ between kernels.
    pub(super) kernel: String,
    /// The case.
    pub(super) case: String,
    /// Its name.
    name: String,
    /// Its text.
    pub(super) text: String,
}

/// Prints what is known of a probe.
pub(super) fn explain(
    project: &Project,
    options: &ExplainOptions,
    progress: &Progress,
) -> Result<u8, Failure> {
    let dynamic = project.dynamic_ids()?;
    let items = items(project, &options.probe)?;
    let asked = items.first().map_or_else(|| options.probe.clone(), |item| item.probe.clone());
    let globs = probe_globs(std::slice::from_ref(&asked), &dynamic)?;
    let id = globs.into_iter().next().unwrap_or_default();
    let all = probes::families::all_with_hidden(dynamic.iter().map(String::as_str));
    let Some(probe) = all.iter().find(|probe| probe.id == id) else {
        let why = anyhow::anyhow!(
            "explain takes one probe, and {} names several; cargo conform list shows all",
            options.probe
        );
        return Err(Failure::new(exit::BAD_INPUT, why));
    };
    let snapshot = project.store().load(&id)?;
    let case = options.probe.split('/').nth(2);
    let mut found = programs(&kept_runs(project), &id, case);
    if found.is_empty() && !options.no_boot {
        boot_for_program(project, options, &id, progress);
        found = programs(&kept_runs(project), &id, case);
    }
    let programs = found;
    match options.format {
        AnswerFormat::Table => {
            let history: String = items.iter().map(history).collect();
            super::print(&(history + &in_words(&ProbeInfo::from(probe), snapshot.as_ref(), &programs)?));
        }
        AnswerFormat::Json => {
            let explained = explained(ProbeInfo::from(probe), snapshot.as_ref(), case, programs);
            let text = serde_json::to_string_pretty(&explained);
            super::print(&text.map_err(|error| Failure::new(exit::INFRASTRUCTURE, error))?);
        }
    }
    Ok(exit::OK)
}

/// The hook, helper or kfunc of this name, where a name is given and no probe.
fn items(project: &Project, asked: &str) -> Result<Vec<Item>, Failure> {
    if asked.contains(['/', '*', '?', '[']) {
        return Ok(Vec::new());
    }
    let snapshots = project.store().load_all()?;
    let kernels: Vec<String> = project.matrix()?.rows.into_iter().map(|row| row.name).collect();
    let name = asked.strip_prefix("bpf_lsm_").unwrap_or(asked);
    let found = facts::collect(&snapshots, &kernels);
    let mut found: Vec<Item> = found.into_values().filter(|item| item.name == name).collect();
    // A kfunc's own probe says more than its line in the inventory.
    for item in found.iter_mut().filter(|item| snapshots.contains_key(&format!("kfuncs/{}", item.name))) {
        if item.kind == facts::Kind::Kfunc {
            item.probe = format!("kfuncs/{}", item.name);
        }
    }
    Ok(found)
}

/// Since when an item is there, and its features.
fn history(item: &Item) -> String {
    let mut text = format!("{} {}\n", item.kind.name(), item.name);
    if let Some(prototype) = &item.prototype {
        let _ = writeln!(text, "  {prototype}");
    }
    let usable = if item.kind == facts::Kind::Hook { "can be attached to" } else { "may be called" };
    let features = item.features.iter().map(|feature| (feature.name, &feature.answers));
    for (name, answers) in std::iter::once((usable, &item.answers)).chain(features) {
        let _ = writeln!(text, "  {name}: {}", since(answers));
    }
    text + "\n"
}

/// The ranges of each condition in words. One that another condition ends is not gone.
fn since(answers: &Answers) -> String {
    let ends: Vec<_> = answers.spans().iter().filter_map(|span| span.removed).collect();
    let words = |condition: &str, span: &Span| {
        let end = match span.removed {
            Some(removed) if ends.contains(&removed) => format!(", gone in {removed}"),
            Some(removed) => format!(" until {removed}"),
            None => String::new(),
        };
        let only = if condition.is_empty() { String::new() } else { format!(", {condition}") };
        format!("since {}{end}{only}", span.added)
    };
    let said: Vec<String> = answers
        .by_condition()
        .iter()
        .flat_map(|(condition, spans)| spans.iter().map(|span| words(condition, span)))
        .collect();
    if said.is_empty() { answers.never().to_owned() } else { said.join("; ") }
}

/// Runs the probe on the newest kernel of the matrix (not on a further build of it), which leaves its programs in the folder of `show`. A machine that
/// cannot be had costs the program, not the answer.
fn boot_for_program(project: &Project, options: &ExplainOptions, id: &str, progress: &Progress) {
    let newest = project.matrix().ok().and_then(|matrix| {
        let mut names = matrix.rows.into_iter().rev().map(|row| row.name);
        names.find(|name| Version::of_flavour(name).is_none())
    });
    let selection =
        Selection { kernels: newest.into_iter().collect(), probes: vec![id.to_owned()], shard: None };
    let folder = project.work_folder().join("show");
    if let Err(error) = run_in(project, &selection, &options.machine, Place::Apart(&folder), true, progress) {
        progress.say("program", &format!("it cannot be shown: {error}"));
    }
}

/// The kernels of the last run that kept programs which came to their end: that of `show`, or of an earlier `explain`.
/// What cannot be read holds no program.
pub(super) fn kept_runs(project: &Project) -> Vec<KernelRun> {
    let mut kept = runs::read_all(&project.work_folder().join("show")).unwrap_or_default();
    kept.retain(|run| run.failure.is_none());
    kept
}

/// The programs of a probe on the last kernel that has any of them.
pub(super) fn programs(kept: &[KernelRun], probe: &str, case: Option<&str>) -> Vec<Program> {
    let of_run = |run: &KernelRun| -> Vec<Program> {
        let records = run.records.iter().filter(|record| record.probe == probe);
        let cases = records
            .flat_map(|record| &record.cases)
            .filter(|found| case.is_none_or(|name| name == found.name));
        let text = |dump: &ProgramDump| {
            BASE64
                .decode(&dump.submitted)
                .map(|bytes| disasm::text(&insn::from_bytes(&bytes)))
                .unwrap_or_default()
        };
        let program = |case: &str, dump: &ProgramDump| Program {
            kernel: run.kernel.clone(),
            case: case.to_owned(),
            name: dump.name.clone(),
            text: text(dump),
        };
        cases.flat_map(|case| case.programs.iter().map(|dump| program(&case.name, dump))).collect()
    };
    kept.iter().rev().map(of_run).find(|programs| !programs.is_empty()).unwrap_or_default()
}

fn explained(
    probe: ProbeInfo,
    snapshot: Option<&Snapshot>,
    only: Option<&str>,
    programs: Vec<Program>,
) -> Explained {
    let mut explained = Explained {
        schema: SCHEMA,
        probe: probe.id,
        question: probe.question,
        machine: probe.machine,
        sources: probe.sources,
        kernels: Vec::new(),
        measured_before_change: Vec::new(),
        outcomes: Vec::new(),
        cases: Vec::new(),
        programs,
    };
    if let Some(snapshot) = snapshot {
        explained.kernels = snapshot.kernels().map(str::to_owned).collect();
        explained.measured_before_change = snapshot.kernels_behind().map(str::to_owned).collect();
        explained.outcomes = ranges(snapshot, |normal| Some(normal.outcome.clone()));
        for name in snapshot.order.iter().filter(|name| only.is_none_or(|only| only == name.as_str())) {
            let answers =
                ranges(snapshot, |normal| normal.cases.iter().find(|case| case.name == *name).cloned());
            explained.cases.push(CaseAnswers { case: name.clone(), answers });
        }
    }
    explained
}

/// Equal answers together, in the order of their first kernel.
fn ranges<T: PartialEq>(snapshot: &Snapshot, answer: impl Fn(&Normal) -> Option<T>) -> Vec<Answer<T>> {
    let all: Vec<String> = snapshot.kernels().map(str::to_owned).collect();
    let mut groups: Vec<(T, Vec<usize>)> = Vec::new();
    for (place, (_, normal)) in snapshot.observed.iter().enumerate() {
        let Some(answer) = answer(normal) else { continue };
        match groups.iter_mut().find(|(known, _)| *known == answer) {
            Some((_, places)) => places.push(place),
            None => groups.push((answer, vec![place])),
        }
    }
    let one = |(answer, places): (T, Vec<usize>)| Answer {
        kernels: places.iter().filter_map(|&place| all.get(place).cloned()).collect(),
        range: kernel_phrase(&all, &places),
        answer,
    };
    groups.into_iter().map(one).collect()
}

fn in_words(probe: &ProbeInfo, snapshot: Option<&Snapshot>, programs: &[Program]) -> Result<String, Failure> {
    let mut text = match snapshot {
        Some(snapshot) => render_body(snapshot)?,
        None => format!("probe: {}\nquestion: {}\n\nno snapshot yet\n", probe.id, probe.question),
    };
    match &probe.machine {
        Machine::Shared => {}
        Machine::Own => text += "\nmachine: one apart from the shared one\n",
        Machine::Lsm { order } => {
            let _ = writeln!(text, "\nmachine: booted with lsm={order}");
        }
    }
    text += "\nsource:\n";
    for source in &probe.sources {
        let _ = writeln!(text, "  {} {} {}", source.version, source.file, source.symbol);
    }
    if programs.is_empty() {
        let _ = writeln!(
            text,
            "\nprogram: no run has kept it; cargo conform show {} boots and prints it",
            probe.id
        );
    }
    for program in programs {
        let _ = writeln!(
            text,
            "\nprogram {} of the case {}, for {}:",
            program.name, program.case, program.kernel
        );
        for line in program.text.lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::list::made_up as probe;
    use crate::snapshot::made_up::{self, done, refused};
    use probes::record::Record;

    fn snapshot() -> Snapshot {
        let kernels = vec![
            ("5.10", vec![refused("one", "no")]),
            ("6.1", vec![done("one")]),
            ("6.12", vec![done("one"), refused("two", "never")]),
        ];
        made_up::snapshot("a/b", kernels)
    }

    fn run_with_program() -> KernelRun {
        let mut record = Record::not_run("a/b", "");
        let submitted = BASE64.encode(insn::to_bytes(&[insn::Insn::new(0x95, 0, 0, 0, 0)]));
        record.cases = vec![
            serde_json::from_value(serde_json::json!({
                "name": "one", "phase": "load", "end": "done",
                "programs": [{"name": "p", "submitted": submitted, "translated": ""}],
            }))
            .unwrap(),
        ];
        KernelRun { kernel: "6.12".to_owned(), records: vec![record], ..KernelRun::default() }
    }

    #[test]
    fn answers_stand_per_range() {
        let explained = explained(probe(), Some(&snapshot()), None, Vec::new());
        let ranges: Vec<Vec<&str>> = explained
            .cases
            .iter()
            .map(|case| case.answers.iter().map(|answer| answer.range.as_str()).collect())
            .collect();
        assert_eq!(ranges, [vec!["only 5.10", "from 6.1"], vec!["from 6.12"]]);
        assert_eq!(explained.outcomes.len(), 1);
    }

    #[test]
    fn a_case_can_be_asked_for_alone() {
        let explained = explained(probe(), Some(&snapshot()), Some("two"), Vec::new());
        assert_eq!(explained.cases.iter().map(|case| case.case.as_str()).collect::<Vec<_>>(), ["two"]);
    }

    #[test]
    fn the_program_of_a_kept_run_is_shown() {
        let programs = programs(&[run_with_program()], "a/b", None);
        let text = in_words(&probe(), Some(&snapshot()), &programs).unwrap();
        assert!(text.contains("program p of the case one, for 6.12:"), "{text}");
        assert!(text.contains("exit"), "{text}");
        for part in ["question: Why?", "only 5.10:", "6.12 kernel/bpf/bpf_lsm.c f", "one apart"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn without_snapshot_and_program_it_says_what_to_do() {
        let text = in_words(&probe(), None, &[]).unwrap();
        assert!(text.contains("no snapshot yet") && text.contains("cargo conform show a/b"), "{text}");
    }

    #[test]
    fn the_json_has_its_documented_names() {
        let programs = programs(&[run_with_program()], "a/b", Some("one"));
        let value = serde_json::to_value(explained(probe(), Some(&snapshot()), None, programs)).unwrap();
        for name in
            ["schema", "probe", "question", "machine", "sources", "kernels", "outcomes", "cases", "programs"]
        {
            assert!(value.get(name).is_some(), "{name}: {value}");
        }
        assert_eq!(value["cases"][0]["answers"][1]["range"], "from 6.1");
        assert_eq!(value["programs"][0]["kernel"], "6.12");
    }
}
