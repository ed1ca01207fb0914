//! `conform show PROBE`: the program as it was submitted and as the kernel keeps it, the verifier's log, the record.

use super::project::Project;
use super::run::{Place, run_in};
use crate::cli::{AnswerFormat, Selection, ShowOptions};
use crate::exit::{self, Failure};
use crate::model::KernelRun;
use crate::normalize::normalize;
use crate::progress::Progress;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use probes::record::{Case, ProgramDump, Record};
use probes::{disasm, insn};
use serde::Serialize;
use std::fmt::Write as _;

/// Version of the JSON that `show` prints.
const SCHEMA: u32 = 1;

/// The JSON document.
#[derive(Serialize)]
struct Shown {
    /// [`SCHEMA`].
    schema: u32,
    /// The probe's id.
    probe: String,
    /// Its question.
    question: String,
    /// Per kernel, in the order of the selection.
    kernels: Vec<OnKernel>,
}

/// One kernel's part.
#[derive(Serialize)]
struct OnKernel {
    /// The row's name or the image's.
    kernel: String,
    /// `uname -r`, or null.
    release: Option<String>,
    /// Why there is no record, or null.
    failure: Option<String>,
    /// The raw record, with programs and logs.
    record: Option<Record>,
    /// For each program of each case, in order: its text as submitted, and as the kernel keeps it.
    programs: Vec<ProgramText>,
}

/// A program in words.
#[derive(Serialize)]
struct ProgramText {
    /// The case it belongs to.
    case: String,
    /// The program's name.
    name: String,
    /// As submitted.
    submitted: String,
    /// As the kernel keeps it; empty when refused.
    translated: String,
}

/// Runs the probe with programs and logs kept, and prints them.
pub(super) fn show(project: &Project, options: &ShowOptions, progress: &Progress) -> Result<u8, Failure> {
    let case = options.probe.split('/').nth(2).map(str::to_owned);
    let selection =
        Selection { kernels: options.kernels.clone(), probes: vec![options.probe.clone()], shard: None };
    let folder = project.work_folder().join("show");
    let finished = run_in(project, &selection, &options.machine, Place::Apart(&folder), true, progress)?;
    let Some(probe) =
        finished.runs.iter().flat_map(|run| &run.records).map(|record| record.probe.clone()).next()
    else {
        let why = finished
            .runs
            .into_iter()
            .find_map(|run| run.failure)
            .unwrap_or_else(|| "no kernel ran it".into());
        return Err(Failure::new(exit::INFRASTRUCTURE, anyhow::anyhow!(why)));
    };
    let all = probes::families::all_with(std::iter::once(probe.as_str()));
    let question = all.iter().find(|it| it.id == probe).map(|it| it.question.clone()).unwrap_or_default();
    let kernels = finished.runs.into_iter().flat_map(|run| on_kernel(run, case.as_deref())).collect();
    let shown = Shown { schema: SCHEMA, probe, question, kernels };
    match options.format {
        AnswerFormat::Table => super::print(&in_words(&shown)),
        AnswerFormat::Json => {
            let text = serde_json::to_string_pretty(&shown);
            super::print(&text.map_err(|error| Failure::new(exit::INFRASTRUCTURE, error))?);
        }
    }
    let failed = shown.kernels.iter().any(|kernel| kernel.failure.is_some());
    Ok(if failed { exit::INFRASTRUCTURE } else { exit::OK })
}

/// A kernel's part for every record of the run; a glob may have selected several probes.
fn on_kernel(run: KernelRun, case: Option<&str>) -> Vec<OnKernel> {
    let release = run.facts.map(|facts| facts.release);
    let part = |record: Option<Record>| OnKernel {
        kernel: run.kernel.clone(),
        release: release.clone(),
        failure: run.failure.clone(),
        programs: record.iter().flat_map(|record| &record.cases).flat_map(program_texts).collect(),
        record,
    };
    if run.records.is_empty() {
        return vec![part(None)];
    }
    let keep = |mut record: Record| {
        record.cases.retain(|it| case.is_none_or(|name| it.name == name));
        record
    };
    run.records.iter().cloned().map(keep).map(Some).map(part).collect()
}

fn program_texts(case: &Case) -> Vec<ProgramText> {
    let text = |code: &str| {
        BASE64.decode(code).map(|bytes| disasm::text(&insn::from_bytes(&bytes))).unwrap_or_default()
    };
    let one = |program: &ProgramDump| ProgramText {
        case: case.name.clone(),
        name: program.name.clone(),
        submitted: text(&program.submitted),
        translated: text(&program.translated),
    };
    case.programs.iter().map(one).collect()
}

fn in_words(shown: &Shown) -> String {
    let mut text = format!("{}\n{}\n", shown.probe, shown.question);
    for kernel in &shown.kernels {
        let release = kernel.release.as_deref().unwrap_or("not booted");
        let _ = writeln!(text, "\n== {} ({release})", kernel.kernel);
        if let Some(failure) = &kernel.failure {
            let _ = writeln!(text, "failed: {failure}");
        }
        let Some(record) = &kernel.record else { continue };
        let normal = normalize(record);
        let _ = writeln!(text, "{}: {}", record.probe, record.outcome.name());
        for (case, normal) in record.cases.iter().zip(&normal.cases) {
            let _ = writeln!(text, "\n-- {}", case.name);
            let _ = writeln!(text, "{}", serde_yaml::to_string(normal).unwrap_or_default().trim_end());
            for program in kernel.programs.iter().filter(|program| program.case == case.name) {
                let _ =
                    writeln!(text, "program {} as submitted:\n{}", program.name, indent(&program.submitted));
                if !program.translated.is_empty() {
                    let _ = writeln!(text, "as the kernel keeps it:\n{}", indent(&program.translated));
                }
            }
            if !case.log.is_empty() {
                let _ = writeln!(text, "log:\n{}", indent(&case.log));
            }
        }
        for warning in &record.warnings {
            let _ = writeln!(text, "kernel warning: {warning}");
        }
    }
    text
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
