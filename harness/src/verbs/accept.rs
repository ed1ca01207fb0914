//! `conform accept`: the one explicit step by which records become snapshots. Never in CI.

use super::project::{Project, check_releases, glob_set, known, probe_globs, subjects};
use crate::cli::AcceptOptions;
use crate::exit::{self, Failure};
use crate::report::runs;

/// Accepts what a run saw.
pub(super) fn accept(project: &Project, options: &AcceptOptions) -> Result<u8, Failure> {
    let matrix = project.matrix()?;
    let store = project.store();
    let dynamic = project.dynamic_ids()?;
    // A stale file's probe is unknown by definition, so its name is not looked up.
    let patterns = if options.prune {
        options.selection.probes.clone()
    } else {
        probe_globs(&options.selection.probes, &dynamic)?
    };
    let set = glob_set(&patterns)?;
    let wanted = |probe: &str| patterns.is_empty() || set.is_match(probe);

    let changed = if options.prune {
        store.prune(&known(&matrix, &dynamic, &[]), wanted)?
    } else {
        let kernels: Vec<String> =
            subjects(&matrix, &options.selection.kernels)?.iter().map(|it| it.name().to_owned()).collect();
        let folder = options.run_dir.clone().unwrap_or_else(|| project.last_run());
        let runs = runs::read_all(&folder)?;
        check_releases(&matrix, &runs)?;
        store.accept_runs(&runs, &known(&matrix, &dynamic, &runs), |probe, kernel| {
            wanted(probe) && kernels.iter().any(|it| it == kernel)
        })?
    };
    for probe in &changed {
        super::print(&format!("accepted {probe}"));
    }
    super::print(&format!("{} snapshot files changed", changed.len()));
    Ok(exit::OK)
}
