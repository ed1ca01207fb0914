//! `conform docs`: a page of documentation against the records.

use super::project::Project;
use crate::cli::{DocsCheckOptions, DocsFixOptions, DocsFormat, DocsVerb};
use crate::docs::check::Evidence;
use crate::docs::fix::{self, Data};
use crate::docs::{Page, Report, Verdict, check, print};
use crate::exit::{self, Failure};
use crate::facts;
use std::path::Path;

/// Carries out one of its verbs.
pub(super) fn docs(project: &Project, verb: &DocsVerb) -> Result<u8, Failure> {
    match verb {
        DocsVerb::Check(options) => check_pages(project, options),
        DocsVerb::Fix(options) => fix_page(project, options),
    }
}

/// Writes the patch and the evidence.
fn fix_page(project: &Project, options: &DocsFixOptions) -> Result<u8, Failure> {
    let (kernels, snapshots) = project.measured()?;
    let claims = project.claims()?;
    let items = facts::collect(&snapshots, &kernels);
    let evidence = Evidence { snapshots: &snapshots, kernels: &kernels, items: &items, claims: &claims };
    let page = Page::load(&options.page)?;
    let data = options.yaml.as_deref().map(read_data).transpose()?.unwrap_or_default();
    let found = fix::fix(&page, &check(&page, &evidence), &data, &evidence);
    let root = fix::root(&page.path, &data).map_err(|error| {
        let what = format!("cannot find the folder of {} and its data", page.path.display());
        Failure::new(exit::BAD_INPUT, anyhow::Error::new(error).context(what))
    })?;
    let beside = options.out.with_added_extension("md");
    for (path, text) in [(&options.out, fix::patch(&found, &root)), (&beside, fix::evidence_text(&found))] {
        let folder = path.parent().unwrap_or(Path::new(""));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        super::export::write(folder, &name, &text)?;
    }
    super::print(&format!(
        "{} edits of {} files in {}, for git apply in {}; their evidence and {} proposals in {}",
        found.edits.len(),
        found.files.len(),
        options.out.display(),
        root.display(),
        found.proposals.len(),
        beside.display()
    ));
    Ok(exit::OK)
}

/// The YAML files of a folder, by name.
fn read_data(folder: &Path) -> Result<Vec<Data>, Failure> {
    let failure = |path: &Path, error: std::io::Error| {
        Failure::new(
            exit::BAD_INPUT,
            anyhow::Error::new(error).context(format!("cannot read {}", path.display())),
        )
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| failure(folder, error))? {
        paths.push(entry.map_err(|error| failure(folder, error))?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    let mut data = Vec::new();
    for path in paths {
        let text = crate::text::read(&path, crate::text::WRITTEN).map_err(|error| failure(&path, error))?;
        data.push(Data { path, text });
    }
    Ok(data)
}

fn check_pages(project: &Project, options: &DocsCheckOptions) -> Result<u8, Failure> {
    let (kernels, snapshots) = project.measured()?;
    let claims = project.claims()?;
    let items = facts::collect(&snapshots, &kernels);
    let evidence = Evidence { snapshots: &snapshots, kernels: &kernels, items: &items, claims: &claims };
    let mut reports: Vec<Report> = Vec::new();
    for path in &options.pages {
        reports.push(check(&Page::load(path)?, &evidence));
    }
    let text = match options.format {
        DocsFormat::Table => joined(&reports, |report| print::table(report, super::list::width())),
        DocsFormat::Markdown => joined(&reports, print::markdown),
        DocsFormat::Github => joined(&reports, print::github),
        DocsFormat::Json => serde_json::to_string_pretty(&reports)
            .map_err(|error| Failure::new(exit::INFRASTRUCTURE, error))?,
    };
    super::print(&text);
    let wrong = reports.iter().any(|report| report.count(Verdict::Contradicted) > 0);
    Ok(if wrong { exit::MISMATCH } else { exit::OK })
}

fn joined(reports: &[Report], print: impl Fn(&Report) -> String) -> String {
    reports.iter().map(print).collect::<Vec<_>>().join("\n")
}
