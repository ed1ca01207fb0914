//! `conform report`: the static site.

use super::programs;
use super::project::{Project, probe_infos};
use crate::cli::ReportOptions;
use crate::docs::check::Evidence;
use crate::exit::{self, Failure};
use crate::facts;
use crate::site::{self, Material, Program};
use crate::text;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

/// The file by which an earlier site is known, and what stands in it. It is written before anything else, so that a site
/// that was not finished is one too.
const OURS: &str = ".conform-site";
const MARK: &str = "cargo conform report writes this folder, and removes what it has written before\n";
/// The folders of a site.
const PARTS: [&str; 6] = ["hooks", "helpers", "kfuncs", "rules", "kernels", "differences"];

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
    begin(&options.out)?;
    for (name, page) in &files {
        super::export::write(&options.out, name, page)?;
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
    if is_empty || is_site(folder) {
        return Ok(());
    }
    let why = anyhow::anyhow!(
        "{} holds something that is no site of conform report; give a new or empty folder",
        folder.display()
    );
    Err(Failure::new(exit::BAD_INPUT, why))
}

/// Whether an earlier report has marked the folder.
fn is_site(folder: &Path) -> bool {
    text::read(&folder.join(OURS), text::WRITTEN).is_ok_and(|mark| mark == MARK)
}

/// Marks the folder, and removes the pages of an earlier site.
fn begin(folder: &Path) -> Result<(), Failure> {
    let is_earlier = is_site(folder);
    super::export::write(folder, OURS, MARK)?;
    for part in PARTS.iter().filter(|_| is_earlier).map(|part| folder.join(part)) {
        match std::fs::remove_dir_all(&part) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let why = anyhow::Error::new(error).context(format!(
                    "cannot remove the pages of the earlier site in {}; remove the folder",
                    part.display()
                ));
                return Err(Failure::new(exit::INFRASTRUCTURE, why));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// The programs that the last runs with programs have kept.
fn kept_programs(project: &Project) -> BTreeMap<String, Vec<Program>> {
    let kept = programs::kept_runs(project);
    let mut found: BTreeMap<String, Vec<Program>> = BTreeMap::new();
    for record in kept.iter().flat_map(|run| &run.records) {
        let programs: Vec<Program> = programs::programs(&kept, &record.probe, None)
            .into_iter()
            .map(|program| Program { kernel: program.kernel, case: program.case, text: program.text })
            .collect();
        if !programs.is_empty() {
            found.entry(record.probe.clone()).or_insert(programs);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_taken_by_its_mark_alone_and_then_as_soon_as_it_has_one() {
        let folder = tempfile::tempdir().unwrap();
        let (out, page) = (folder.path().join("site"), folder.path().join("site/hooks/old.html"));
        may_write(&out).unwrap();
        begin(&out).unwrap();
        std::fs::create_dir(out.join("hooks")).unwrap();
        std::fs::write(&page, "").unwrap();
        // Nothing but the mark and a page: an interrupted report.
        may_write(&out).unwrap();
        begin(&out).unwrap();
        assert!(!page.exists() && out.join(OURS).is_file());
    }

    /// Somebody else's folder may have a script of that name, and pages.
    #[test]
    fn a_foreign_folder_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("rules")).unwrap();
        for (name, text) in [("site.js", "x"), (OURS, "something else")] {
            std::fs::write(folder.path().join(name), text).unwrap();
            let failure = may_write(folder.path()).unwrap_err();
            assert_eq!(failure.code, exit::BAD_INPUT, "{name}");
        }
        assert!(folder.path().join("rules").is_dir());
    }

    #[test]
    fn pages_that_cannot_be_removed_end_the_report() {
        let folder = tempfile::tempdir().unwrap();
        begin(folder.path()).unwrap();
        std::fs::write(folder.path().join("hooks"), "a file in the place of a folder").unwrap();
        let failure = begin(folder.path()).unwrap_err();
        assert!(failure.to_string().contains("hooks"), "{failure}");
    }
}
