//! `conform report`: the static site.

use super::explain;
use super::project::{Project, probe_infos};
use crate::cli::ReportOptions;
use crate::docs::check::Evidence;
use crate::exit::{self, Failure};
use crate::facts;
use crate::site::{self, Material, Program};
use std::collections::BTreeMap;
use std::path::Path;

/// The file by which an earlier site is known.
const OURS: &str = "site.js";

/// Writes the site into the folder. Pages of an earlier site that are no more are removed.
pub(super) fn report(project: &Project, options: &ReportOptions) -> Result<u8, Failure> {
    may_write(&options.out)?;
    let (kernels, snapshots) = project.measured()?;
    let matrix = project.matrix()?;
    let claims = project.claims()?;
    let items = facts::collect(&snapshots, &kernels);
    let probes = probe_infos(&project.dynamic_ids()?);
    let programs = kept_programs(project);
    let evidence = Evidence { snapshots: &snapshots, kernels: &kernels, items: &items, claims: &claims };
    let material = Material { matrix: &matrix, evidence, probes: &probes, programs: &programs };
    let files = site::files(&material)?;
    if options.out.join(OURS).is_file() {
        for part in ["hooks", "helpers", "kfuncs", "rules", "kernels", "differences"] {
            let _ = std::fs::remove_dir_all(options.out.join(part));
        }
    }
    for (name, text) in &files {
        super::export::write(&options.out, name, text)?;
    }
    let bytes: usize = files.values().map(String::len).sum();
    super::print(&format!(
        "{} files, {} kB; open {}",
        files.len(),
        bytes / 1000,
        options.out.join("index.html").display()
    ));
    Ok(exit::OK)
}

/// A folder with something else in it is not written into.
fn may_write(folder: &Path) -> Result<(), Failure> {
    let is_empty = match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !folder.exists(),
    };
    if is_empty || folder.join(OURS).is_file() {
        return Ok(());
    }
    let why =
        anyhow::anyhow!("{} holds something that is no site; give a new or empty folder", folder.display());
    Err(Failure::new(exit::BAD_INPUT, why))
}

/// The programs that the last runs with programs have kept.
fn kept_programs(project: &Project) -> BTreeMap<String, Vec<Program>> {
    let kept = explain::kept_runs(project);
    let mut found: BTreeMap<String, Vec<Program>> = BTreeMap::new();
    for record in kept.iter().flat_map(|run| &run.records) {
        let programs: Vec<Program> = explain::programs(&kept, &record.probe, None)
            .into_iter()
            .map(|program| Program { kernel: program.kernel, case: program.case, text: program.text })
            .collect();
        if !programs.is_empty() {
            found.entry(record.probe.clone()).or_insert(programs);
        }
    }
    found
}
