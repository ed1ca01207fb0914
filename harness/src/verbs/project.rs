//! Where the project is, what it knows, and which probes a selection on the command line means.

use crate::claims::Claims;
use crate::exit::{self, Failure};
use crate::matrix::{Matrix, closest};
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
