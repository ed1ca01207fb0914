//! `conform docs`: a page of documentation against the records.

use super::project::Project;
use crate::cli::{DocsCheckOptions, DocsFormat, DocsVerb};
use crate::docs::check::Evidence;
use crate::docs::{Page, Report, Verdict, check, print};
use crate::exit::{self, Failure};
use crate::facts;

/// Carries out one of its verbs.
pub(super) fn docs(project: &Project, verb: &DocsVerb) -> Result<u8, Failure> {
    match verb {
        DocsVerb::Check(options) => check_pages(project, options),
    }
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
