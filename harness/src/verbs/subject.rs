//! The kernels that a selection on the command line means, and the release that each of them promises.

use crate::exit::{self, Failure};
use crate::matrix::{Matrix, Row, Source};
use crate::model::KernelRun;
use crate::version::Version;
use std::path::{Path, PathBuf};

/// A kernel to be run: a row, or an image without one.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A row of the matrix.
    Row(Box<Row>),
    /// An image on disk; compared with the row of its series, or else the nearest.
    Image {
        /// Its name in records: the file's.
        name: String,
        /// The file.
        path: PathBuf,
    },
}

impl Subject {
    /// The name in records.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Row(row) => &row.name,
            Self::Image { name, .. } => name,
        }
    }

    /// The file of an image without a row.
    #[must_use]
    fn path(&self) -> Option<&Path> {
        match self {
            Self::Row(_) => None,
            Self::Image { path, .. } => Some(path),
        }
    }

    /// What `uname -r` must begin with; empty where nothing is promised.
    #[must_use]
    pub fn release_prefix(&self) -> String {
        let series = match self {
            Self::Row(row) => match &row.source {
                Source::Debian(debian) => Some(format!("{}.", debian.package.series)),
                Source::Upstream(version) => mainline_release(version),
                // The patch level may be another tree's; the minor version is checked before the build.
                Source::Archive(archive) => Some(format!("{}.", archive.series())),
                // A row that is named after a version promises it.
                Source::Path(_) => is_version(&row.name).then(|| format!("{}.", row.name)),
            },
            Self::Image { .. } => None,
        };
        series.unwrap_or_default()
    }
}

/// What `uname -r` of the mainline build of a version begins with: `6.14.5-` of `v6.14.5`. Where there may be candidates,
/// which have the same three numbers, it goes on with what tells them apart: `6.14.0-061400-` of `v6.14`,
/// `6.14.0-061400rc3-` of `v6.14-rc3`. So the builds call themselves that virtme-ng fetches.
fn mainline_release(version: &str) -> Option<String> {
    let bare = version.strip_prefix('v').unwrap_or(version);
    let (numbers, candidate) = bare.split_once('-').map_or((bare, None), |(head, rc)| (head, Some(rc)));
    let mut parts = numbers.split('.').map(str::parse::<u32>);
    let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
    let patch = parts.next().transpose().ok()?.unwrap_or(0);
    Some(if patch == 0 || candidate.is_some() {
        let candidate = candidate.unwrap_or_default();
        format!("{major}.{minor}.{patch}-{major:02}{minor:02}{patch:02}{candidate}-")
    } else {
        format!("{major}.{minor}.{patch}-")
    })
}

/// Whether a row's name is two numbers, such as `6.12`.
fn is_version(name: &str) -> bool {
    Version::parse(name).is_some_and(|version| version.to_string() == name)
}

/// Refuses records that stand under the name of a row and come from another kernel than it promises.
///
/// # Errors
/// Bad input, with both.
pub fn check_releases(matrix: &Matrix, runs: &[KernelRun]) -> Result<(), Failure> {
    for run in runs {
        let Some(row) = matrix.rows.iter().find(|row| row.name == run.kernel) else { continue };
        let promised = Subject::Row(Box::new(row.clone())).release_prefix();
        let Some(found) = run.facts.as_ref().map(|facts| &facts.release) else { continue };
        if !found.starts_with(&promised) {
            let why = anyhow::anyhow!(
                "wrong kernel: the records of {} come from {found}, and the row promises {promised}*; nothing was \
                 compared; run that kernel again",
                run.kernel
            );
            return Err(Failure::new(exit::BAD_INPUT, why));
        }
    }
    Ok(())
}

/// The kernels that a selection names; all rows when it names none.
///
/// # Errors
/// Bad input for a name that is neither a row nor a file, with the nearest row; for an image whose records would have the
/// name of a row or of another image.
pub fn subjects(matrix: &Matrix, selection: &[String]) -> Result<Vec<Subject>, Failure> {
    if selection.is_empty() {
        return Ok(matrix.rows.iter().map(|row| Subject::Row(Box::new(row.clone()))).collect());
    }
    let mut found: Vec<Subject> = Vec::new();
    for name in selection {
        let subject = subject(matrix, name)?;
        match found.iter().find(|other| other.name() == subject.name()) {
            None => found.push(subject),
            // The same one twice.
            Some(other) if other.path() == subject.path() => {}
            Some(other) => {
                let path = |subject: &Subject| subject.path().map(|path| path.display().to_string());
                let why = anyhow::anyhow!(
                    "{} and {} are both called {}, and so would be their records; give one of them another name",
                    path(other).unwrap_or_default(),
                    path(&subject).unwrap_or_default(),
                    subject.name()
                );
                return Err(Failure::new(exit::BAD_INPUT, why));
            }
        }
    }
    Ok(found)
}

fn subject(matrix: &Matrix, name: &str) -> Result<Subject, Failure> {
    let path = Path::new(name);
    match matrix.row(name) {
        Ok(row) => Ok(Subject::Row(Box::new(row.clone()))),
        Err(_) if path.is_file() => {
            let file = path.file_name().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
            // Snapshot files list kernels by name: no spaces, no commas.
            let name = file.replace([' ', ','], "_");
            if matrix.row(&name).is_ok() {
                let why = anyhow::anyhow!(
                    "the image {} is called as the row {name} of the matrix, and its records would be taken for that \
                     row's; give it another name",
                    path.display()
                );
                return Err(Failure::new(exit::BAD_INPUT, why));
            }
            let path = path.canonicalize().map_err(|error| Failure::new(exit::BAD_INPUT, error))?;
            Ok(Subject::Image { name, path })
        }
        Err(_) if name.contains('/') => {
            Err(Failure::new(exit::BAD_INPUT, anyhow::anyhow!("no kernel image at {name}; check the path")))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("6.12", true)]
    #[case("mine", false)]
    #[case("6.12-mine", false)]
    #[case("6.", false)]
    fn a_version_is_told_from_other_names(#[case] name: &str, #[case] version: bool) {
        assert_eq!(is_version(name), version);
    }

    /// The releases that a row takes, and those that it does not.
    #[rstest]
    #[case::first("upstream: v6.1", &["6.1.0-060100-generic"], &["6.12.0-061200-generic", "6.1.0-060100rc1-generic"])]
    #[case::stable("upstream: v6.1.5", &["6.1.5-060105-generic"], &["6.1.50-060150-generic", "6.1.0-060100-generic"])]
    #[case::candidate(
        "upstream: v6.15-rc1",
        &["6.15.0-061500rc1-generic"],
        &["6.15.0-061500rc12-generic", "6.15.0-061500-generic", "6.14.0-061400rc1-generic"]
    )]
    #[case::debian(
        "debian: {suite: bookworm, package: linux-image-6.1.0-32-cloud-amd64-unsigned, version: 6.1.129-1}",
        &["6.1.0-49-cloud-amd64"],
        &["6.12.94-cloud-amd64"]
    )]
    #[case::archive("archive: linux-5.7.14.tar.xz", &["5.7.14", "5.7.19"], &["5.70.1", "5.8.0"])]
    #[case::first_archive("archive: linux-5.16.tar.xz", &["5.16.0"], &["5.160.0", "5.1.6"])]
    #[case::candidates_archive("archive: linux-6.15-rc3.tar.gz", &["6.15.0-rc3"], &["6.14.0-rc3", "6.1.5"])]
    #[case::named("path: vmlinuz", &["6.1.0"], &["6.12.0"])]
    fn a_row_promises_a_release(#[case] source: &str, #[case] right: &[&str], #[case] wrong: &[&str]) {
        let source = source.strip_prefix("archive: ").map_or_else(
            || source.to_owned(),
            |name| format!("archive: {{url: 'https://a/{name}', sha256: '{}'}}", "0".repeat(64)),
        );
        // A path promises what its row is named after; the others may not be named after another version than their own.
        let name = if source.starts_with("path") { "6.1" } else { "a" };
        let text = format!("defaults: {{lsm: bpf}}\nkernels:\n  - {{name: '{name}', {source}}}\n");
        let matrix = Matrix::parse(&text, Path::new("matrix.yaml")).unwrap();
        let promised = Subject::Row(Box::new(matrix.rows[0].clone())).release_prefix();
        assert!(right.iter().all(|release| release.starts_with(&promised)), "{promised}");
        assert!(!wrong.iter().any(|release| release.starts_with(&promised)), "{promised}");
    }

    #[test]
    fn records_of_another_kernel_are_refused() {
        let text = "defaults: {lsm: bpf}\nkernels:\n  - {name: \"6.12\", path: vmlinuz}\n  - {name: mine, path: vmlinuz}\n";
        let matrix = Matrix::parse(text, Path::new("matrix.yaml")).unwrap();
        let run = |kernel: &str, release: &str| {
            let facts = probes::record::KernelFacts { release: release.to_owned(), ..Default::default() };
            [KernelRun { kernel: kernel.to_owned(), facts: Some(facts), ..KernelRun::default() }]
        };
        for good in [run("6.12", "6.12.94-cloud"), run("mine", "5.10.0"), run("other", "5.10.0")] {
            check_releases(&matrix, &good).unwrap();
        }
        let failure = check_releases(&matrix, &run("6.12", "6.1.0-49-cloud")).unwrap_err();
        assert!(failure.to_string().contains("6.1.0-49-cloud, and the row promises 6.12.*"), "{failure}");
    }

    #[test]
    fn images_that_would_have_one_name_in_records_are_refused() {
        let text = "kernels:\n  - {name: \"7.3\", path: vmlinuz, lsm: bpf}\n";
        let matrix = Matrix::parse(text, Path::new("matrix.yaml")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let image = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (old, new, row) = (image("old/bzImage"), image("new/bzImage"), image("builds/7.3"));
        assert_eq!(subjects(&matrix, &[old.clone(), old.clone(), "7.3".into()]).unwrap().len(), 2);
        for (given, words) in [(vec![old, new], "are both called bzImage"), (vec![row], "as the row 7.3")] {
            let failure = subjects(&matrix, &given).unwrap_err();
            assert_eq!(failure.code, exit::BAD_INPUT);
            assert!(failure.to_string().contains(words), "{failure}");
        }
    }
}
