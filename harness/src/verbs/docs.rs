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
    let beside = options.out.with_added_extension("md");
    takes_nothings_place([&options.out, &beside], &page, &data)?;
    let found = fix::fix(&page, &check(&page, &evidence), &data, &evidence);
    let root = fix::root(&page.path, &data).map_err(|error| {
        let what = format!("cannot find the folder of {} and its data", page.path.display());
        Failure::new(exit::BAD_INPUT, anyhow::Error::new(error).context(what))
    })?;
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

/// Refuses to write over what is read, and into a folder that is not there, as one is whose name was mistyped.
fn takes_nothings_place(outs: [&Path; 2], page: &Page, data: &[Data]) -> Result<(), Failure> {
    let bad = |why: String| Failure::new(exit::BAD_INPUT, anyhow::anyhow!("{why}; give --out another file"));
    for out in outs {
        let folder = out.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(bad(format!("there is no folder {}", folder.display())));
        }
        let place = out.canonicalize().ok();
        let mut read = std::iter::once(&page.path).chain(data.iter().map(|data| &data.path));
        if place.is_some() && read.any(|path| path.canonicalize().ok() == place) {
            return Err(bad(format!("{} is read from, and would be written over", out.display())));
        }
    }
    Ok(())
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
    if paths.is_empty() {
        let why = anyhow::anyhow!(
            "no file of {} ends with .yaml; give the folder of the page's data",
            folder.display()
        );
        return Err(Failure::new(exit::BAD_INPUT, why));
    }
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
        let report = check(&Page::load(path)?, &evidence);
        // A page that was moved or renamed must not pass for one without a mistake.
        if report.findings.is_empty() {
            let why = anyhow::anyhow!(
                "nothing that claims/ knows is on {}; give the page on the program type",
                path.display()
            );
            return Err(Failure::new(exit::NOTHING_SELECTED, why));
        }
        reports.push(report);
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
