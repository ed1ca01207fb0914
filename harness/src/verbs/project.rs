//! Where the project is, what it knows, and what a selection on the command line means.

use crate::claims::Claims;
use crate::exit::{self, Failure};
use crate::facts::Version;
use crate::matrix::{Matrix, Row, Source, closest};
use crate::model::KernelRun;
use crate::report::list::ProbeInfo;
use crate::snapshot::{Ci, Known, Snapshot, Store};
use globset::{Glob, GlobSet, GlobSetBuilder};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The project's folder and the matrix in use.
#[derive(Clone, Debug)]
pub struct Project {
    /// The top of the project.
    pub root: PathBuf,
    /// The matrix file.
    pub matrix: PathBuf,
    /// The program `conform`, which is also the guard of every machine.
    pub program: PathBuf,
    /// Whether a run of it becomes the one that `accept` and `--resume` take when none is named.
    pub is_linked: bool,
}

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

impl Project {
    /// The project around the running program: what cargo says at run time, else what it said at build time.
    ///
    /// # Errors
    /// Bad input when that folder is gone.
    pub fn find(matrix: Option<PathBuf>) -> Result<Self, Failure> {
        let package =
            std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let package = Path::new(&package);
        let root = package.parent().unwrap_or(package);
        let root = root.canonicalize().map_err(|error| {
            Failure::new(
                exit::BAD_INPUT,
                anyhow::anyhow!("cannot find the project at {}: {error}", root.display()),
            )
        })?;
        let matrix = matrix.unwrap_or_else(|| root.join("matrix.yaml"));
        let program = std::env::current_exe().map_err(|error| Failure::new(exit::INFRASTRUCTURE, error))?;
        Ok(Self { root, matrix, program, is_linked: true })
    }

    /// Reads the matrix.
    ///
    /// # Errors
    /// Bad input, with file, line and remedy.
    pub fn matrix(&self) -> Result<Matrix, Failure> {
        Ok(Matrix::load(&self.matrix)?)
    }

    /// The names of the matrix's rows, in its order.
    ///
    /// # Errors
    /// As [`Self::matrix`].
    pub fn row_names(&self) -> Result<Vec<String>, Failure> {
        Ok(self.matrix()?.rows.into_iter().map(|row| row.name).collect())
    }

    /// The folder for everything that can be made again.
    #[must_use]
    pub fn work_folder(&self) -> PathBuf {
        self.root.join("target").join("conform")
    }

    /// The link to the last run's folder.
    #[must_use]
    pub fn last_run(&self) -> PathBuf {
        self.work_folder().join("last")
    }

    /// The link to the folder of the last run that has not come to its end.
    #[must_use]
    pub fn unfinished_run(&self) -> PathBuf {
        self.work_folder().join("unfinished")
    }

    /// The probes that no table names, as far as some kernel has brought them: they have snapshots.
    ///
    /// # Errors
    /// When the folder of snapshots cannot be read.
    pub fn dynamic_ids(&self) -> Result<Vec<String>, Failure> {
        Ok(dynamic_of(self.store().ids()?.iter().map(String::as_str)))
    }

    /// What the documentation says.
    ///
    /// # Errors
    /// Bad input, with file, line and remedy.
    pub fn claims(&self) -> Result<Claims, Failure> {
        Ok(Claims::load(&self.root.join("claims"))?)
    }

    /// The rows of the matrix that some snapshot knows, in its order, and all snapshots. Of a row that nobody has measured
    /// nothing is known.
    ///
    /// # Errors
    /// Bad input for a broken file; nothing selected where no row has been measured.
    pub fn measured(&self) -> Result<(Vec<String>, BTreeMap<String, Snapshot>), Failure> {
        self.measured_of(&[])
    }

    /// As [`Self::measured`], of these rows alone if any is named, each once and in the matrix's order.
    ///
    /// # Errors
    /// As there, and bad input for a name that is no row.
    pub fn measured_of(
        &self,
        named: &[String],
    ) -> Result<(Vec<String>, BTreeMap<String, Snapshot>), Failure> {
        let matrix = self.matrix()?;
        for name in named {
            matrix.row(name)?;
        }
        let snapshots = self.store().load_all()?;
        let mut kernels: Vec<String> = matrix.rows.into_iter().map(|row| row.name).collect();
        kernels.retain(|kernel| named.is_empty() || named.contains(kernel));
        kernels.retain(|kernel| snapshots.values().any(|snapshot| snapshot.of(kernel).is_some()));
        if kernels.is_empty() {
            let which = if named.is_empty() { "no row of the matrix" } else { "none of these rows" };
            let why =
                anyhow::anyhow!("{which} has snapshots; cargo conform run makes records, accept keeps them");
            return Err(Failure::new(exit::NOTHING_SELECTED, why));
        }
        Ok((kernels, snapshots))
    }

    /// The snapshots.
    #[must_use]
    pub fn store(&self) -> Store {
        Store::new(self.root.join("snapshots"), Ci::from_env())
    }
}

/// Those of `ids` that no table names and a family makes.
#[must_use]
pub fn dynamic_of<'a>(ids: impl Iterator<Item = &'a str>) -> Vec<String> {
    let made = probes::families::all_with(ids);
    let declared: BTreeSet<String> = probes::families::all().into_iter().map(|probe| probe.id).collect();
    made.into_iter().map(|probe| probe.id).filter(|id| !declared.contains(id)).collect()
}

/// What the suite knows by name: kernels and probes, those that no table names from the snapshots (`dynamic`) and from
/// runs.
#[must_use]
pub fn known(matrix: &Matrix, dynamic: &[String], runs: &[KernelRun]) -> Known {
    let names: Vec<String> = matrix.rows.iter().map(|row| row.name.clone()).collect();
    let ids = dynamic.iter().chain(runs.iter().flat_map(|run| &run.records).map(|record| &record.probe));
    let probes = probes::families::all_with(ids.map(String::as_str));
    let mut known = Known::new(&names, probes.into_iter().map(|probe| (probe.id, probe.question)));
    let declared: BTreeSet<String> = probes::families::all().into_iter().map(|probe| probe.id).collect();
    known.dynamic = known.questions.keys().filter(|id| !declared.contains(*id)).cloned().collect();
    known
}

/// Every probe, without its function: those of the tables and those of `ids` that a family makes.
#[must_use]
pub fn probe_infos(ids: &[String]) -> Vec<ProbeInfo> {
    probes::families::all_with(ids.iter().map(String::as_str)).iter().map(ProbeInfo::from).collect()
}

/// The probes that runs have records of.
#[must_use]
pub fn ids_in(runs: &[KernelRun]) -> Vec<String> {
    runs.iter().flat_map(|run| &run.records).map(|record| record.probe.clone()).collect()
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

/// The globs over probe ids that a selection means. A case's id selects its probe.
///
/// # Errors
/// Bad input for a malformed glob or an unknown name; nothing selected for a glob without a match. A glob over a
/// family that kernels add to can match what only they know, so it passes.
pub fn probe_globs(selection: &[String], dynamic: &[String]) -> Result<Vec<String>, Failure> {
    let all = probes::families::all_with_hidden(dynamic.iter().map(String::as_str));
    let ids: Vec<String> = all.into_iter().map(|probe| probe.id).collect();
    let mut globs = Vec::new();
    for wanted in selection {
        let probe = probe_part(wanted);
        let matcher = Glob::new(&probe)
            .map_err(|error| Failure::new(exit::BAD_INPUT, anyhow::anyhow!("--probe {wanted}: {error}")))?
            .compile_matcher();
        let is_glob = probe.contains(['*', '?', '[', '{']);
        if ids.iter().any(|id| matcher.is_match(id)) || (is_glob && is_of_dynamic_family(&probe)) {
            globs.push(probe);
        } else if is_glob {
            let why = anyhow::anyhow!("no probe matches {wanted}; cargo conform list shows all");
            return Err(Failure::new(exit::NOTHING_SELECTED, why));
        } else {
            let hint = closest(&probe, ids.iter().map(String::as_str))
                .map(|near| format!(", did you mean {near}?"))
                .unwrap_or_default();
            let new = if is_of_dynamic_family(&probe) {
                format!("; if a kernel that has never been run has it, ask with a glob, such as {probe}*")
            } else {
                String::new()
            };
            let why = anyhow::anyhow!("no probe {wanted}{hint}; cargo conform list shows all{new}");
            return Err(Failure::new(exit::BAD_INPUT, why));
        }
    }
    Ok(globs)
}

/// Whether a pattern names a family to which kernels add probes.
fn is_of_dynamic_family(pattern: &str) -> bool {
    let family = probes::families::family(probes::spec::family_of(pattern));
    family.is_some_and(|family| family.dynamic.is_some())
}

/// `<family>/<name>` of `<family>/<name>/<variant>`, and of a family alone everything in it.
fn probe_part(id: &str) -> String {
    let mut parts = id.split('/');
    match (parts.next(), parts.next()) {
        (Some(family), Some(name)) => format!("{family}/{name}"),
        (Some(family), None) if !family.contains('*') => format!("{family}/*"),
        _ => id.to_owned(),
    }
}

/// One matcher for several globs over probe ids.
///
/// # Errors
/// Bad input for a malformed glob.
pub fn glob_set(patterns: &[String]) -> Result<GlobSet, Failure> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(Glob::new(pattern).map_err(|error| Failure::new(exit::BAD_INPUT, error))?);
    }
    set.build().map_err(|error| Failure::new(exit::BAD_INPUT, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::case_id("hooks/file_open/fire", "hooks/file_open")]
    #[case::probe("hooks/file_open", "hooks/file_open")]
    #[case::family("hooks", "hooks/*")]
    #[case::any("*", "*")]
    #[case::glob("*/file_open", "*/file_open")]
    fn what_a_name_selects(#[case] given: &str, #[case] glob: &str) {
        assert_eq!(probe_part(given), glob);
    }

    #[test]
    fn rows_are_in_the_matrixs_order_and_each_once() {
        let project = Project::find(None).unwrap();
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            project.measured_of(&names).map(|(kernels, _)| kernels)
        };
        assert_eq!(of(&["7.3", "6.1", "7.3"]).unwrap(), ["6.1", "7.3"]);
        assert_eq!(of(&[]).unwrap(), project.measured().unwrap().0);
        let failure = of(&["6.1", "6.999"]).unwrap_err();
        assert_eq!(failure.code, exit::BAD_INPUT);
    }

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

    #[rstest]
    #[case("hooks/brand_new*")]
    #[case("hooks/seen_once")]
    fn names_that_only_kernels_know(#[case] given: &str) {
        let dynamic = ["hooks/seen_once".to_owned()];
        assert_eq!(probe_globs(&[given.to_owned()], &dynamic).unwrap(), [given]);
    }

    #[rstest]
    #[case::misspelt("program/typ", exit::BAD_INPUT, "did you mean program/type?")]
    #[case::empty_glob("nothing/*", exit::NOTHING_SELECTED, "no probe matches")]
    #[case::broken_glob("program/[", exit::BAD_INPUT, "--probe")]
    #[case::misspelt_hook("hooks/file_opne", exit::BAD_INPUT, "did you mean hooks/file_open?")]
    #[case::unknown_hook("hooks/qqqqqqqqqqq", exit::BAD_INPUT, "such as hooks/qqqqqqqqqqq*")]
    fn wrong_names_are_told_apart(#[case] given: &str, #[case] code: u8, #[case] words: &str) {
        let failure = probe_globs(&[given.to_owned()], &[]).unwrap_err();
        assert_eq!(failure.code, code);
        assert!(failure.to_string().contains(words), "{failure}");
    }
}
