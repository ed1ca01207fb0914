//! The run folder: `<run>/<kernel>/kernel.json`, one [`KernelRun`] each, records as they came.

use crate::model::{FORMAT, KernelRun};
use crate::text;
use crate::whole::{self, Readers};
use probes::record::CASES_MAX;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The file of one kernel in a run folder.
pub const FILE: &str = "kernel.json";

/// What can go wrong with a run folder.
#[derive(Debug, thiserror::Error)]
pub enum RunsError {
    /// A file or folder cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file does not hold a run.
    #[error("{} is not a kernel's run: {source}; run the kernel again", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A file was written by another version of the suite.
    #[error("{} has format {found}, this version reads {FORMAT}; run the kernel again", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// A probe has more cases than any has.
    #[error("{} has more than {CASES_MAX} cases of {probe}; run the kernel again", path.display())]
    Cases {
        /// The file.
        path: PathBuf,
        /// The probe.
        probe: String,
    },
    /// A probe has two records, of which one would be taken for the other.
    #[error("{} has two records of {probe}; run the kernel again", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// The probe.
        probe: String,
    },
    /// A folder has another kernel's run, so that one kernel may have two.
    #[error("{} is the run of {kernel}, and its folder is not called so; remove that folder, or name it {kernel} if there is no other", path.display())]
    Elsewhere {
        /// The file.
        path: PathBuf,
        /// The kernel of which it is.
        kernel: String,
    },
    /// A kernel's name cannot name a folder.
    #[error("kernel name {name:?} cannot name a folder; give the kernel a row with a plain name")]
    BadKernel {
        /// The name.
        name: String,
    },
}

impl crate::exit::ExitCode for RunsError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Io { .. } => crate::exit::INFRASTRUCTURE,
            Self::Content { .. }
            | Self::Format { .. }
            | Self::Cases { .. }
            | Self::Twice { .. }
            | Self::Elsewhere { .. }
            | Self::BadKernel { .. } => crate::exit::BAD_INPUT,
        }
    }
}

/// The file of a kernel in the run folder `run`.
///
/// # Errors
/// [`RunsError::BadKernel`] for a name that is not one plain path component.
pub fn path(run: &Path, kernel: &str) -> Result<PathBuf, RunsError> {
    let plain = !kernel.is_empty() && !kernel.starts_with('.') && !kernel.contains(['/', '\\', '\0']);
    if plain {
        Ok(run.join(kernel).join(FILE))
    } else {
        Err(RunsError::BadKernel { name: kernel.to_owned() })
    }
}

/// Writes a kernel's run; a reader sees the old file or the new one, never a part.
///
/// # Errors
/// When the kernel's name cannot name a folder or the file cannot be written.
pub fn write(run: &Path, kernel: &KernelRun) -> Result<PathBuf, RunsError> {
    let path = path(run, &kernel.kernel)?;
    let io = |source| RunsError::Io { action: "write", path: path.clone(), source };
    let text = serde_json::to_string_pretty(kernel);
    let text = text.map_err(|source| RunsError::Content { path: path.clone(), source })?;
    let folder = path.parent().unwrap_or(run);
    std::fs::create_dir_all(folder).map_err(io)?;
    whole::write(&path, Readers::Owner, |file| file.write_all(text.as_bytes())).map_err(io)?;
    Ok(path)
}

/// Reads the run of `kernel` in the run folder `run`.
///
/// # Errors
/// As [`read`]; [`RunsError::Elsewhere`] for another kernel's, [`RunsError::BadKernel`] as [`path`].
pub fn read_of(run: &Path, kernel: &str) -> Result<KernelRun, RunsError> {
    let path = path(run, kernel)?;
    let found = read(&path)?;
    if found.kernel == kernel { Ok(found) } else { Err(RunsError::Elsewhere { path, kernel: found.kernel }) }
}

/// Reads a file that has a kernel's run, whichever kernel's: [`read_of`] and [`read_all`] hold it against its folder.
///
/// # Errors
/// When the file cannot be read, has another format, or is no run.
pub fn read(path: &Path) -> Result<KernelRun, RunsError> {
    let text = text::read(path, text::RECORDED);
    let text = text.map_err(|source| RunsError::Io { action: "read", path: path.to_owned(), source })?;
    let content = |source| RunsError::Content { path: path.to_owned(), source };
    // The format is looked at first: of another one, nothing else may be understood.
    let value: serde_json::Value = serde_json::from_str(&text).map_err(content)?;
    if let Some(found) = value.get("format").and_then(serde_json::Value::as_u64)
        && found != u64::from(FORMAT)
    {
        return Err(RunsError::Format { path: path.to_owned(), found });
    }
    let run: KernelRun = serde_json::from_value(value).map_err(content)?;
    let mut seen = BTreeSet::new();
    for record in &run.records {
        let (path, probe) = (path.to_owned(), record.probe.clone());
        if record.cases.len() > CASES_MAX {
            return Err(RunsError::Cases { path, probe });
        }
        if !seen.insert(&record.probe) {
            return Err(RunsError::Twice { path, probe });
        }
    }
    Ok(run)
}

/// Reads all kernels of a run folder, by name.
///
/// # Errors
/// As [`read_of`]; folders without a run's file are passed over.
pub fn read_all(run: &Path) -> Result<Vec<KernelRun>, RunsError> {
    let io = |source| RunsError::Io { action: "read", path: run.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(run).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.path().join(FILE).is_file() {
            names.push(entry.file_name());
        }
    }
    names.sort();
    // A name that is not UTF-8 is no kernel's, and what stands for it here names no folder.
    names.iter().map(|name| read_of(run, &name.to_string_lossy())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::made_up;
    use rstest::rstest;

    #[test]
    fn runs_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut runs = made_up::runs();
        for run in &runs {
            write(folder.path(), run).unwrap();
        }
        std::fs::create_dir(folder.path().join("other")).unwrap();
        runs.sort_by(|one, other| one.kernel.cmp(&other.kernel));
        assert_eq!(read_all(folder.path()).unwrap(), runs);
        assert_eq!(std::fs::read_dir(folder.path().join("6.1")).unwrap().count(), 1);
    }

    #[rstest]
    #[case(r#"{"format": 99, "kernel": 3}"#, "format 99")]
    #[case(r#"{"format": 2}"#, "not a kernel's run")]
    #[case("{", "not a kernel's run")]
    fn other_files_are_refused(#[case] text: &str, #[case] says: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let problem = read(file.path()).unwrap_err().to_string();
        assert!(problem.contains(says), "{problem}");
    }

    #[test]
    fn a_flood_of_cases_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut run = made_up::runs().remove(0);
        let record = run.records.iter_mut().find(|record| !record.cases.is_empty()).unwrap();
        record.cases = vec![record.cases[0].clone(); CASES_MAX + 1];
        std::fs::write(file.path(), serde_json::to_string(&run).unwrap()).unwrap();
        assert!(matches!(read(file.path()), Err(RunsError::Cases { .. })));
    }

    #[test]
    fn two_records_of_one_probe_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut run = made_up::runs().remove(0);
        run.records.push(run.records[0].clone());
        std::fs::write(file.path(), serde_json::to_string(&run).unwrap()).unwrap();
        let problem = read(file.path()).unwrap_err().to_string();
        assert!(problem.contains(&format!("has two records of {}", run.records[0].probe)), "{problem}");
    }

    /// One of the two would be taken for the other, whichever the folder lists first.
    #[test]
    fn a_copy_of_a_kernels_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let run = made_up::runs().remove(0);
        let file = write(folder.path(), &run).unwrap();
        let copy = path(folder.path(), "0-copy").unwrap();
        std::fs::create_dir(copy.parent().unwrap()).unwrap();
        std::fs::copy(file, &copy).unwrap();
        for problem in [read_all(folder.path()).unwrap_err(), read_of(folder.path(), "0-copy").unwrap_err()] {
            let words = format!("{} is the run of {}, and its folder", copy.display(), run.kernel);
            assert!(problem.to_string().starts_with(&words), "{problem}");
        }
        assert_eq!(read_of(folder.path(), &run.kernel).unwrap(), run);
    }

    #[rstest]
    #[case("6.1", true)]
    #[case("vmlinuz-6.1 mine", true)]
    #[case("..", false)]
    #[case("a/b", false)]
    #[case("", false)]
    fn only_plain_names_name_folders(#[case] name: &str, #[case] good: bool) {
        assert_eq!(path(Path::new("run"), name).is_ok(), good);
    }
}
