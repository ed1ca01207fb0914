//! Compatibility data, `compat/`: what the records say of hooks, helpers, kfuncs and rules, as JSON for other programs.
//!
//! The files are in the manner of browser-compat-data: a support statement has `version_added` (exact, or a bound) and
//! `version_removed`, with conditions, notes in the kernel's words, and the case behind it. `compat.schema.json` is their
//! JSON Schema and documents every field. The same snapshots give the same bytes.

mod items;
mod rules;

pub use items::{Compat, compat};

use crate::facts::{Item, Kind, Span, Version};
use crate::matrix::{Archive, Matrix, Origin, Source};
use crate::report::list::ProbeInfo;
use crate::snapshot::Snapshot;
use serde::Serialize;
use std::collections::BTreeMap;

/// Version of the files' layout.
pub const SCHEMA: u32 = 1;
/// The JSON Schema of every file.
pub const JSON_SCHEMA: &str = include_str!("compat.schema.json");
/// The schema's file.
pub const SCHEMA_FILE: &str = "compat.schema.json";

/// What the files are made from.
#[derive(Clone, Copy, Debug)]
pub struct Material<'a> {
    /// The matrix, for what each kernel is.
    pub matrix: &'a Matrix,
    /// The measured rows, in the matrix's order.
    pub kernels: &'a [String],
    /// The records.
    pub snapshots: &'a BTreeMap<String, Snapshot>,
    /// What the records say of items.
    pub items: &'a BTreeMap<(Kind, String), Item>,
    /// The probes, for their sources.
    pub probes: &'a [ProbeInfo],
}

/// A measured kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Kernel {
    name: String,
    build: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<String>,
}

/// A range of versions in which something is so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Range {
    version_added: String,
    version_removed: Option<String>,
    kernels: Vec<String>,
}

impl Range {
    fn of(span: &Span, rows: Vec<String>) -> Self {
        Self {
            version_added: span.added.to_string(),
            version_removed: span.removed.map(|removed| removed.to_string()),
            kernels: rows,
        }
    }
}

/// Every file, by name: the data and the schema.
///
/// # Errors
/// Never for these types; the error is serde's.
pub fn files(material: &Material<'_>) -> Result<BTreeMap<String, String>, serde_json::Error> {
    let mut files = BTreeMap::from([(SCHEMA_FILE.to_owned(), JSON_SCHEMA.to_owned())]);
    for kind in [Kind::Hook, Kind::Helper, Kind::Kfunc] {
        let text = text(kind.name(), material, &items::of_kind(material, kind))?;
        files.insert(format!("{}s.json", kind.name()), text);
    }
    files.insert("rules.json".to_owned(), text("rule", material, &rules::all(material))?);
    Ok(files)
}

/// A file's text: an item a line, so that a change of one is a change of one line.
fn text<T: Serialize>(
    kind: &str,
    material: &Material<'_>,
    items: &BTreeMap<String, T>,
) -> Result<String, serde_json::Error> {
    let kernels = serde_json::to_string(&kernels(material))?;
    let mut text = format!("{{\"schema\":{SCHEMA},\"kind\":\"{kind}\",\"kernels\":{kernels},\"items\":{{");
    for (place, (name, item)) in items.iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        let (name, item) = (serde_json::to_string(name)?, serde_json::to_string(item)?);
        text += &format!("{comma}\n{name}:{item}");
    }
    Ok(text + "\n}}\n")
}

/// The measured kernels, what each is a build of, and of which release.
fn kernels(material: &Material<'_>) -> Vec<Kernel> {
    let kernel = |name: &String| {
        let source = material.matrix.rows.iter().find(|row| row.name == *name).map(|row| &row.source);
        Kernel { name: name.clone(), build: build(source), release: source.and_then(release) }
    };
    material.kernels.iter().map(kernel).collect()
}

/// What was booted, in words.
pub(crate) fn build(source: Option<&Source>) -> String {
    match source {
        Some(Source::Debian(debian)) => format!("{} {}", debian.package.full, debian.version),
        Some(Source::Upstream(version)) => format!("mainline build {version}"),
        Some(Source::Archive(Archive { origin: package @ Origin::Debian(_), .. })) => {
            format!("{package} with the project's fragments")
        }
        Some(Source::Archive(archive)) => {
            format!("linux-{} with the project's fragments", archive.measured())
        }
        Some(Source::Path(_)) | None => "an image of its own".to_owned(),
    }
}

/// The release as the kernel itself says it: the first of a series, which is published as 6.9, is 6.9.0. None where
/// the row's source does not tell.
fn release(source: &Source) -> Option<String> {
    let text = match source {
        // Debian writes a candidate as 7.4~rc3, which `upstream` does not tell from 7.4.
        Source::Debian(debian) | Source::Archive(Archive { origin: Origin::Debian(debian), .. })
            if debian.version.contains("~rc") =>
        {
            return None;
        }
        Source::Debian(debian) => debian.upstream(),
        Source::Upstream(version) => version.trim_start_matches('v'),
        Source::Archive(archive) => archive.measured(),
        Source::Path(_) => return None,
    };
    let (numbers, candidate) = text.split_at(text.find('-').unwrap_or(text.len()));
    Version::parse(numbers)?;
    let first = if numbers.matches('.').count() == 1 { ".0" } else { "" };
    Some(format!("{numbers}{first}{candidate}"))
}

#[cfg(test)]
mod tests;
