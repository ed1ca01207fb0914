//! `conform export`: the compatibility data.

use super::project::{Project, probe_infos};
use crate::cli::ExportOptions;
use crate::exit::{self, Failure};
use crate::export::{self, Material};
use crate::facts;
use crate::whole::{self, Readers};
use anyhow::Context as _;
use std::io::Write as _;
use std::path::Path;

/// Writes the files into the folder.
pub(super) fn export(project: &Project, options: &ExportOptions) -> Result<u8, Failure> {
    let (kernels, snapshots) = project.measured()?;
    let matrix = project.matrix()?;
    let items = facts::collect(&snapshots, &kernels);
    let probes = probe_infos(&project.dynamic_ids()?);
    let material = Material {
        matrix: &matrix,
        kernels: &kernels,
        snapshots: &snapshots,
        items: &items,
        probes: &probes,
    };
    let files = export::files(&material).map_err(|error| Failure::new(exit::INFRASTRUCTURE, error))?;
    for (name, text) in &files {
        write(&options.out, name, text)?;
    }
    let bytes: usize = files.values().map(String::len).sum();
    super::print(&format!("{} files, {} kB, in {}", files.len(), bytes / 1000, options.out.display()));
    Ok(exit::OK)
}

/// Writes one file, whole, below a folder, which is made if it is not there.
pub(super) fn write(folder: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let path = folder.join(name);
    let parent = path.parent().unwrap_or(folder);
    std::fs::create_dir_all(parent)
        .and_then(|()| whole::write(&path, Readers::All, |file| file.write_all(text.as_bytes())))
        .with_context(|| format!("cannot write {}", path.display()))
        .map_err(|error| Failure::new(exit::INFRASTRUCTURE, error))
}
