//! `conform explain PROBE`, one case of it, or a hook, helper or kfunc by name: its history, then of its probe the question,
//! the answer per range of kernels, the kernel source behind it, the program. A kfunc without a probe of its own has its case
//! of the inventory.
//!
//! The answers are the snapshot's, for which nothing boots. The program is the one of the last run that kept programs;
//! if none did, the newest kernel of the matrix is booted for it. The JSON is an object with the fields of [`Explained`].

use super::programs::{Program, kept_runs, programs};
use super::project::{Project, probe_globs};
use super::run::{Place, run_in};
use crate::cli::{AnswerFormat, ExplainOptions, Selection};
use crate::exit::{self, Failure};
use crate::export::{self, Compat};
use crate::facts::{self, Answers, Item, Said, Support, Version, guards};
use crate::matrix::closest;
use crate::normalize::{Normal, NormalCase};
use crate::progress::Progress;
use crate::report::list::{ProbeInfo, SourceInfo};
use crate::snapshot::{Snapshot, alike, kernel_phrase, render_body};
use probes::protocol::Machine;
use probes::record::Outcome;
use serde::Serialize;
use std::collections::BTreeMap;
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
    /// Where a name was given: the hook, helper or kfunc, by kind, each as `compat/` has it.
    items: Vec<History>,
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

/// What is known of a hook, helper or kfunc.
#[derive(Debug, Serialize)]
struct History {
    /// `hook`, `helper` or `kfunc`.
    kind: &'static str,
    /// Its name, a hook's without `bpf_lsm_`.
    name: String,
    /// Ranges, features and notes, with the fields of an item in `compat.schema.json`.
    #[serde(flatten)]
    compat: Compat,
}

/// The answers of one case.
#[derive(Debug, Serialize)]
struct CaseAnswers {
    /// The case.
    case: String,
    /// Its answers, in the order of their first kernel.
    answers: Vec<Answer<CaseAnswer>>,
}

/// What a kernel answered to a case.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum CaseAnswer {
    /// How the case ended, with the fields of a record.
    Ended(NormalCase),
    /// The probe ended in it.
    Crashed {
        /// The case.
        name: String,
        /// The phase that was under way.
        phase: String,
        /// `crashed`.
        end: &'static str,
        /// The kernel's words.
        what: String,
    },
}

impl CaseAnswer {
    fn of(name: &str, said: Said<'_>) -> Self {
        match said {
            Said::Case(case) => Self::Ended(case.clone()),
            Said::Crash { what, phase } => Self::Crashed {
                name: name.to_owned(),
                phase: phase.to_owned(),
                end: "crashed",
                what: what.to_owned(),
            },
        }
    }
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

/// What is asked for.
struct Asked {
    /// The hook, helper and kfunc of this name, where a name is given and no probe.
    items: Vec<Item>,
    /// The probe's id.
    probe: String,
    /// The one case, where not all are wanted.
    case: Option<String>,
}

/// Prints what is known of a probe.
pub(super) fn explain(
    project: &Project,
    options: &ExplainOptions,
    progress: &Progress,
) -> Result<u8, Failure> {
    let dynamic = project.dynamic_ids()?;
    let snapshots = project.store().load_all()?;
    let asked = asked(project, &options.probe, &snapshots)?;
    let globs = probe_globs(std::slice::from_ref(&asked.probe), &dynamic)?;
    let id = globs.into_iter().next().unwrap_or_default();
    let all = probes::families::all_with_hidden(dynamic.iter().map(String::as_str));
    let Some(probe) = all.iter().find(|probe| probe.id == id) else {
        let why = anyhow::anyhow!(
            "explain takes one probe, and {} names several; cargo conform list shows all",
            options.probe
        );
        return Err(Failure::new(exit::BAD_INPUT, why));
    };
    let case = asked.case.as_deref();
    let snapshot = snapshots.get(&id).map(|all| one_case(all, case)).transpose()?;
    let kept = || programs(&kept_runs(project), &id, case);
    let mut programs = kept();
    let mut interrupted = None;
    if programs.is_empty() && !options.no_boot {
        interrupted = boot_for_program(project, options, &id, progress);
        programs = kept();
    }
    match options.format {
        AnswerFormat::Table => {
            let history: String = asked.items.iter().map(history).collect();
            super::print(&(history + &in_words(&ProbeInfo::from(probe), snapshot.as_ref(), &programs)?));
        }
        AnswerFormat::Json => {
            let mut explained = explained(ProbeInfo::from(probe), snapshot.as_ref(), programs);
            explained.items = histories(project, &asked.items, &snapshots)?;
            let text = serde_json::to_string_pretty(&explained);
            super::print(&text.map_err(|error| Failure::new(exit::INFRASTRUCTURE, error))?);
        }
    }
    // What needs no machine has been told all the same.
    interrupted.map_or(Ok(exit::OK), Err)
}

/// A probe or a case by its id, or by a name the item's own probe; a kfunc that has none is a case of the inventory.
fn asked(project: &Project, given: &str, snapshots: &BTreeMap<String, Snapshot>) -> Result<Asked, Failure> {
    let items = if given.contains(['/', '*', '?', '[']) {
        Vec::new()
    } else {
        named(given, facts::collect(snapshots, &project.row_names()?))?
    };
    let (probe, case) = match items.first() {
        Some(item) if snapshots.contains_key(&item.own_probe()) => (item.own_probe(), None),
        Some(item) => (item.probe.clone(), Some(item.case.clone())),
        None => (given.to_owned(), given.splitn(3, '/').nth(2).map(str::to_owned)),
    };
    Ok(Asked { items, probe, case })
}

/// The hook, helper and kfunc of this name, which may be written as code has it.
fn named(given: &str, all: BTreeMap<(facts::Kind, String), Item>) -> Result<Vec<Item>, Failure> {
    let name = given.strip_prefix("bpf_lsm_").unwrap_or(given).trim_end_matches("()");
    let near = closest(name, all.values().map(|item| item.name.as_str())).map(str::to_owned);
    let found: Vec<Item> = all.into_values().filter(|item| item.name == name).collect();
    if found.is_empty() {
        let hint = near.map(|near| format!(", did you mean {near}?")).unwrap_or_default();
        let why = anyhow::anyhow!(
            "no hook, helper or kfunc is called {given}{hint}; cargo conform list shows all probes"
        );
        return Err(Failure::new(exit::BAD_INPUT, why));
    }
    Ok(found)
}

/// What the snapshot says of one case, or all of it.
fn one_case(snapshot: &Snapshot, case: Option<&str>) -> Result<Snapshot, Failure> {
    let Some(case) = case else { return Ok(snapshot.clone()) };
    if snapshot.order.iter().any(|known| known == case) {
        return Ok(snapshot.of_case(case));
    }
    let near = closest(case, snapshot.order.iter().map(String::as_str));
    let hint = near.map(|near| format!(", did you mean {near}?")).unwrap_or_default();
    let why = anyhow::anyhow!(
        "{} has no case {case}{hint}; cargo conform explain {} shows all",
        snapshot.probe,
        snapshot.probe
    );
    Err(Failure::new(exit::BAD_INPUT, why))
}

/// The items as the compatibility data has them.
fn histories(
    project: &Project,
    items: &[Item],
    snapshots: &BTreeMap<String, Snapshot>,
) -> Result<Vec<History>, Failure> {
    let rows = project.row_names()?;
    let history = |item: &Item| History {
        kind: item.kind.name(),
        name: item.name.clone(),
        compat: export::compat(snapshots, &rows, item),
    };
    Ok(items.iter().map(history).collect())
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
    if item.class() == Some("void") {
        text += "  denies: never, it returns nothing\n";
    }
    if let Some(option) = guards::guard(item.kind, &item.name) {
        let lacks = |answer: &facts::Answer| matches!(answer, facts::Answer::Absent { perhaps: Some(_) });
        let builds: Vec<&str> = item
            .answers
            .0
            .iter()
            .filter(|(_, answer)| lacks(answer))
            .map(|(kernel, _)| kernel.as_str())
            .collect();
        let here = if builds.is_empty() {
            String::new()
        } else {
            format!(", perhaps as these rows: {}", builds.join(" "))
        };
        let _ = writeln!(text, "  lacking: in a kernel of any version without {option}{here}");
    }
    text + "\n"
}

/// The ranges of each condition in words. One that another condition ends is not gone.
fn since(answers: &Answers) -> String {
    let ends: Vec<_> = answers.spans().iter().filter_map(|span| span.removed).collect();
    let words = |it: &Support<'_>| {
        let end = match it.span.removed {
            Some(removed) if ends.contains(&removed) => format!(", gone in {removed}"),
            Some(removed) => format!(", before {removed}"),
            None => String::new(),
        };
        let only = if it.condition.is_empty() { String::new() } else { format!(", {}", it.condition) };
        format!("since {}{end}{only}", it.span.added)
    };
    let said: Vec<String> = answers.support().iter().map(words).collect();
    if said.is_empty() { answers.never().to_owned() } else { said.join("; ") }
}

/// Runs the probe on the newest kernel of the matrix (not on a further build of it), which leaves its programs in the
/// folder of `show`. A machine that cannot be had costs the program, not the answer. An interruption is given back: it is
/// how the verb ends, once it has told what it knows.
fn boot_for_program(
    project: &Project,
    options: &ExplainOptions,
    id: &str,
    progress: &Progress,
) -> Option<Failure> {
    let newest = project.matrix().ok().and_then(|matrix| {
        let mut names = matrix.rows.into_iter().rev().map(|row| row.name);
        names.find(|name| Version::of_flavour(name).is_none())
    });
    let selection =
        Selection { kernels: newest.into_iter().collect(), probes: vec![id.to_owned()], shard: None };
    let folder = project.work_folder().join("show");
    let failure =
        run_in(project, &selection, &options.machine, Place::Apart(&folder), true, progress).err()?;
    progress.say("program", &format!("it cannot be shown: {failure}"));
    (failure.code == exit::INTERRUPTED).then_some(failure)
}

fn explained(probe: ProbeInfo, snapshot: Option<&Snapshot>, programs: Vec<Program>) -> Explained {
    let mut explained = Explained {
        schema: SCHEMA,
        probe: probe.id,
        question: probe.question,
        items: Vec::new(),
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
        for name in &snapshot.order {
            let said = |normal: &Normal| Said::of(normal, name).map(|said| CaseAnswer::of(name, said));
            explained.cases.push(CaseAnswers { case: name.clone(), answers: ranges(snapshot, said) });
        }
    }
    explained
}

/// Equal answers together, in the order of their first kernel.
fn ranges<T: PartialEq>(snapshot: &Snapshot, answer: impl Fn(&Normal) -> Option<T>) -> Vec<Answer<T>> {
    let all: Vec<String> = snapshot.kernels().map(str::to_owned).collect();
    let one = |(answer, places): (T, Vec<usize>)| Answer {
        kernels: places.iter().filter_map(|&place| all.get(place).cloned()).collect(),
        range: kernel_phrase(&all, &places),
        answer,
    };
    alike(snapshot.observed.iter().map(|(_, normal)| answer(normal))).into_iter().map(one).collect()
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
    use crate::verbs::programs::made_up::run_with_program;

    fn snapshot() -> Snapshot {
        let kernels = vec![
            ("5.10", vec![refused("one", "no")]),
            ("6.1", vec![done("one")]),
            ("6.12", vec![done("one"), refused("two", "never")]),
        ];
        made_up::snapshot("a/b", kernels)
    }

    #[test]
    fn answers_stand_per_range() {
        let explained = explained(probe(), Some(&snapshot()), Vec::new());
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
        let alone = one_case(&snapshot(), Some("two")).unwrap();
        let cases = explained(probe(), Some(&alone), Vec::new()).cases;
        assert_eq!(cases.iter().map(|case| case.case.as_str()).collect::<Vec<_>>(), ["two"]);
        let text = in_words(&probe(), Some(&alone), &[]).unwrap();
        assert!(text.contains("two:") && !text.contains("one:"), "{text}");
        let failure = one_case(&snapshot(), Some("twoo")).unwrap_err();
        assert_eq!(failure.code, exit::BAD_INPUT);
        assert!(failure.to_string().contains("a/b has no case twoo, did you mean two?"), "{failure}");
    }

    /// A crash ended the probe in its case, so that there is no record of the case.
    #[test]
    fn a_crash_is_an_answer_to_its_case() {
        let mut snapshot = snapshot();
        let outcome = Outcome::Crashed { what: "BUG".into(), during: "two: trigger".into() };
        snapshot.observed[1].1.outcome = outcome;
        let explained = serde_json::to_value(explained(probe(), Some(&snapshot), Vec::new())).unwrap();
        let answer = &explained["cases"][1]["answers"][0];
        assert_eq!((&answer["kernels"][0], &answer["answer"]["end"]), (&"6.1".into(), &"crashed".into()));
        assert_eq!(explained["cases"][1]["answers"][1]["answer"]["end"], "refused");
    }

    #[test]
    fn a_name_that_nothing_has_is_refused_with_the_nearest() {
        let project = Project::find(None).unwrap();
        let snapshots = project.store().load_all().unwrap();
        let all = || facts::collect(&snapshots, &project.row_names().unwrap());
        let failure = named("bpf_d_pth", all()).unwrap_err();
        assert_eq!(failure.code, exit::BAD_INPUT);
        assert!(failure.to_string().contains("called bpf_d_pth, did you mean bpf_d_path?"), "{failure}");
        assert_eq!(named("bpf_d_path()", all()).unwrap()[0].name, "bpf_d_path");
        let said = |name: &str| history(&named(name, all()).unwrap()[0]);
        assert!(said("inode_free_security").contains("denies: never, it returns nothing"));
        let lacking = "lacking: in a kernel of any version without CONFIG_WATCH_QUEUE, perhaps as these rows: \
                       5.7 5.10 6.1 6.12 6.16 6.17 6.18 6.19 7.0 7.1 7.2 7.3\n\n";
        assert!(said("post_notification").ends_with(lacking), "{}", said("post_notification"));
    }

    #[test]
    fn a_name_is_asked_for_with_its_history() {
        let project = Project::find(None).unwrap();
        let snapshots = project.store().load_all().unwrap();
        let of = |given: &str| asked(&project, given, &snapshots).unwrap();
        let kfunc = of("bbr_init");
        assert_eq!((kfunc.probe.as_str(), kfunc.case.as_deref()), ("kfuncs/inventory", Some("bbr_init")));
        let helper = of("bpf_loop");
        assert_eq!((helper.probe.as_str(), helper.case), ("helpers/bpf_loop", None));
        let history = serde_json::to_value(histories(&project, &helper.items, &snapshots).unwrap()).unwrap();
        assert_eq!((&history[0]["kind"], &history[0]["name"]), (&"helper".into(), &"bpf_loop".into()));
        assert_eq!(history[0]["support"][0]["version_added"], "5.17");
        assert!(history[0]["features"]["sleepable"]["support"].is_array());
        let case = of("hooks/file_open/attach");
        assert_eq!((case.items.len(), case.case.as_deref()), (0, Some("attach")));
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
        let value = serde_json::to_value(explained(probe(), Some(&snapshot()), programs)).unwrap();
        for name in [
            "schema", "probe", "question", "items", "machine", "sources", "kernels", "outcomes", "cases",
            "programs",
        ] {
            assert!(value.get(name).is_some(), "{name}: {value}");
        }
        assert_eq!(value["cases"][0]["answers"][1]["range"], "from 6.1");
        assert_eq!(value["programs"][0]["kernel"], "6.12");
    }
}
