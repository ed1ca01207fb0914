//! Whether run folders that are joined have all that their runs were to record: each kernel that is in a `run.json`, each probe
//! that was selected, each shard.
//!
//! What no folder's run has brought is not looked for: a probe that only the kernels of one shard know, other shards have not
//! asked about.

use super::judge::{note_lack, selected};
use super::manifest::Manifest;
use super::project::probe_globs;
use crate::exit::Failure;
use crate::model::{FORMAT, KernelRun};
use crate::run::shard::Shard;
use std::collections::{BTreeMap, BTreeSet};

/// The runs as they are judged: each that lacks a record of what its folder's run was to ask says so, as a run does of itself,
/// and a kernel that was to run and has left nothing has failed. What is kept of a joined folder is without that, for
/// another folder may complete it. `dynamic` are the probes that only snapshots name.
///
/// # Errors
/// When what was selected is no selection of today's probes.
pub(super) fn held_to_their_selection(
    manifest: &Manifest,
    dynamic: &[String],
    mut joined: Vec<KernelRun>,
) -> Result<Vec<KernelRun>, Failure> {
    let mut wanted: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for part in manifest.parts() {
        let globs = probe_globs(&part.options.selection().probes, dynamic)?;
        let ids = selected(dynamic, &globs)?;
        for kernel in part.kernels() {
            wanted.entry(kernel).or_default().extend(ids.iter().cloned());
        }
    }
    for (kernel, ids) in wanted {
        match joined.iter_mut().find(|run| run.kernel == kernel) {
            Some(run) => drop(note_lack(run, ids.iter(), REMEDY)),
            None => joined.push(lost(kernel)),
        }
    }
    Ok(joined)
}

/// What helps where a folder lacks something.
const REMEDY: &str = "go on with its run (cargo conform run --resume FOLDER), or run it again";

/// The run of a kernel that is named in a folder's `run.json` and has no records in any.
fn lost(kernel: &str) -> KernelRun {
    let failure = format!("no folder has records of it, and a run was to make some; {REMEDY}");
    KernelRun { format: FORMAT, kernel: kernel.to_owned(), failure: Some(failure), ..KernelRun::default() }
}

/// The shards that belong to one that is there and are not.
pub(super) fn lacking_shards(manifest: &Manifest) -> BTreeSet<Shard> {
    let sharded = || {
        manifest.parts().iter().filter_map(|part| {
            let selection = part.options.selection();
            Some((part.options.shard?, selection.kernels, selection.probes))
        })
    };
    let mut lacking = BTreeSet::new();
    for (shard, kernels, probes) in sharded() {
        let of_one_run = |(other, its_kernels, its_probes): &(Shard, Vec<String>, Vec<String>),
                          one: Shard| {
            *other == one && *its_kernels == kernels && *its_probes == probes
        };
        let is_there = |one: Shard| sharded().any(|other| of_one_run(&other, one));
        lacking.extend(shard.all().filter(|one| !is_there(*one)));
    }
    lacking
}

#[cfg(test)]
mod tests {
    use super::*;
    use probes::record::Record;
    use rstest::rstest;
    use std::path::PathBuf;

    const FAMILY: &str = "program/*";

    fn part(kernels: &[&str], probe: &str, shard: Option<&str>) -> (PathBuf, Manifest) {
        let shard = shard.map(|shard| shard.parse().unwrap());
        ("part".into(), Manifest::made_up(kernels).with(&[probe], shard))
    }

    fn ids(family: &str) -> Vec<String> {
        selected(&[], &[family.to_owned()]).unwrap()
    }

    fn run(kernel: &str, ids: &[String]) -> KernelRun {
        let records = ids.iter().map(|id| Record::not_run(id, "")).collect();
        KernelRun { kernel: kernel.into(), records, ..KernelRun::default() }
    }

    #[test]
    fn each_kernel_has_what_its_own_run_has_selected() {
        let parts = vec![part(&["6.1", "6.12"], FAMILY, None), part(&["7.3"], "load/*", None)];
        // A folder that has been joined says what its parts were.
        let joined = Manifest::joined(parts).unwrap();
        let again = Manifest::joined(vec![("joined".into(), joined)]).unwrap();
        let (program, load) = (ids(FAMILY), ids("load/*"));
        let runs = vec![run("6.1", &program), run("6.12", &program[1..]), run("7.3", &load)];
        let runs = held_to_their_selection(&again, &[], runs).unwrap();
        let failures: Vec<bool> = runs.iter().map(|run| run.failure.is_some()).collect();
        assert_eq!(failures, [false, true, false]);
        assert!(runs[1].failure.as_ref().unwrap().contains(&program[0]), "{:?}", runs[1].failure);
    }

    #[rstest]
    #[case::none(&[None], &[])]
    #[case::all(&[Some("1/2"), Some("2/2")], &[])]
    #[case::one_of_three(&[Some("2/3")], &["1/3", "3/3"])]
    #[case::of_two_runs(&[Some("1/2"), Some("1/3"), Some("2/3")], &["2/2", "3/3"])]
    fn a_shard_that_is_in_no_folder_is_lacking(#[case] shards: &[Option<&str>], #[case] lacking: &[&str]) {
        let parts = shards.iter().map(|shard| part(&["6.1"], FAMILY, *shard)).collect();
        let joined = Manifest::joined(parts).unwrap();
        let found: Vec<String> = lacking_shards(&joined).iter().map(ToString::to_string).collect();
        assert_eq!(found, lacking);
    }

    /// Shards of two selections are of two runs.
    #[test]
    fn a_shard_of_another_selection_is_another() {
        let parts = vec![part(&["6.1"], FAMILY, Some("1/2")), part(&["6.1"], "load/*", Some("2/2"))];
        let joined = Manifest::joined(parts).unwrap();
        let found: Vec<String> = lacking_shards(&joined).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["1/2", "2/2"]);
    }
}
