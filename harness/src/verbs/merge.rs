//! `conform merge`: run folders of several machines become one, and nothing may be missing of what they say they are.

use super::complete::{held_to_their_selection, lacking_shards};
use super::folder::RunFolder;
use super::judge::{compare_with_rows, exit_code, without_record};
use super::manifest::Manifest;
use super::project::{Project, ids_in, known, probe_infos};
use crate::cli::{Format, MergeOptions};
use crate::exit::{self, Failure};
use crate::matrix::Matrix;
use crate::model::KernelRun;
use crate::report::{Material, json, junit, runs, table};
use crate::snapshot::{Comparison, Known};
use std::path::PathBuf;

/// Joins, compares, reports.
pub(super) fn merge(project: &Project, options: &MergeOptions) -> Result<u8, Failure> {
    let matrix = project.matrix()?;
    let dynamic = project.dynamic_ids()?;
    let (manifest, joined) = gather(options, &matrix, &dynamic)?;
    if let Some(out) = &options.out {
        let out = RunFolder::make(project, Some(out))?;
        manifest.begin(&out.path)?;
        for run in &joined {
            runs::write(&out.path, run)?;
        }
    }
    let judged = held_to_their_selection(&manifest, &dynamic, joined)?;
    let comparison = compare_with_rows(project, &matrix, &judged)?;
    report(&matrix, &judged, &comparison, options.format)?;
    outcome(&manifest, &judged, &comparison)
}

/// All records.
fn gather(
    options: &MergeOptions,
    matrix: &Matrix,
    dynamic: &[String],
) -> Result<(Manifest, Vec<KernelRun>), Failure> {
    let (manifest, joined) = all_of(&options.folders)?;
    check_required(&options.require, &known(matrix, dynamic, &[]), &joined)?;
    Ok((manifest, joined))
}

fn outcome(manifest: &Manifest, joined: &[KernelRun], comparison: &Comparison) -> Result<u8, Failure> {
    let shards: Vec<String> = lacking_shards(manifest).iter().map(ToString::to_string).collect();
    if !shards.is_empty() {
        let why = anyhow::anyhow!(
            "no folder of shard {} is among these; join the folders of all shards",
            shards.join(", ")
        );
        return Err(Failure::new(exit::INFRASTRUCTURE, why));
    }
    Ok(exit_code(joined, comparison))
}

/// Refuses where a kernel of `require` has no records, or none of some probe, whatever was selected.
fn check_required(require: &[String], known: &Known, joined: &[KernelRun]) -> Result<(), Failure> {
    for name in require {
        if !joined.iter().any(|run| run.kernel == *name) {
            let why = anyhow::anyhow!("no records of {name} in any of the folders, and it is required");
            return Err(Failure::new(exit::INFRASTRUCTURE, why));
        }
    }
    // What the snapshots know of is asked on every kernel, and what a kernel brought is known from its own records.
    for run in joined.iter().filter(|run| require.contains(&run.kernel) && run.failure.is_none()) {
        let missing = without_record(run, known.questions.keys());
        if let [first, ..] = missing.as_slice() {
            let why = anyhow::anyhow!(
                "{} probes have no record of {}, such as {first}, and it is required; join the folders of all of them",
                missing.len(),
                run.kernel
            );
            return Err(Failure::new(exit::INFRASTRUCTURE, why));
        }
    }
    Ok(())
}

fn report(
    matrix: &Matrix,
    joined: &[KernelRun],
    comparison: &Comparison,
    format: Format,
) -> Result<(), Failure> {
    let names: Vec<String> = matrix.rows.iter().map(|row| row.name.clone()).collect();
    let probes = probe_infos(&ids_in(joined));
    let material = Material { runs: joined, comparison, matrix: &names, probes: &probes };
    let broken = |error: String| Failure::new(exit::INFRASTRUCTURE, anyhow::anyhow!(error));
    let look = table::Look::default();
    match format {
        Format::Table => super::print(&table::render(material, look)),
        Format::Markdown => super::print(&format!("```text\n{}```\n", table::render(material, look))),
        Format::Json => super::print(&json::render(material).map_err(|error| broken(error.to_string()))?),
        Format::Junit => super::print(&junit::render(material).map_err(|error| broken(error.to_string()))?),
    }
    Ok(())
}

/// Everything that the folders have. What another run has left in one of them is no part of it.
fn all_of(folders: &[PathBuf]) -> Result<(Manifest, Vec<KernelRun>), Failure> {
    let (mut manifests, mut joined) = (Vec::new(), Vec::new());
    let mut places = Vec::new();
    for folder in folders {
        let manifest = Manifest::read(folder)?;
        let place = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        if places.contains(&place) {
            let why = anyhow::anyhow!("{} is named twice; name each folder once", folder.display());
            return Err(Failure::new(exit::BAD_INPUT, why));
        }
        places.push(place);
        let found = runs::read_all(folder)?;
        for run in found.into_iter().filter(|run| manifest.has(&run.kernel)) {
            join(&mut joined, run)?;
        }
        manifests.push((folder.clone(), manifest));
    }
    Ok((Manifest::joined(manifests)?, joined))
}

/// Adds a run: a further kernel, or further probes of one that is there. The same probe twice is refused.
fn join(joined: &mut Vec<KernelRun>, run: KernelRun) -> Result<(), Failure> {
    let Some(there) = joined.iter_mut().find(|other| other.kernel == run.kernel) else {
        joined.push(run);
        return Ok(());
    };
    is_the_same_kernel(there, &run)?;
    there.add_cost(&run);
    for record in run.records {
        if there.records.iter().any(|other| other.probe == record.probe) {
            let why = anyhow::anyhow!("{} on {} is in two of the folders", record.probe, run.kernel);
            return Err(Failure::new(exit::BAD_INPUT, why));
        }
        there.records.push(record);
    }
    there.failure = there.failure.take().or(run.failure);
    // Each by itself: what one part knows of the kernel the next ones are held against.
    if there.image.sha256.is_empty() {
        there.image = run.image;
    }
    there.facts = there.facts.take().or(run.facts);
    Ok(())
}

/// Refuses two parts of one kernel that are of two. A part without an image or without a machine says nothing of that, and
/// has failed.
fn is_the_same_kernel(one: &KernelRun, other: &KernelRun) -> Result<(), Failure> {
    let facts = |run: &KernelRun| run.facts.as_ref().map(|it| (it.release.clone(), it.version.clone()));
    let words = |(release, version): (String, String)| format!("{release} ({version})");
    let image = |run: &KernelRun| Some(run.image.sha256.clone()).filter(|sha256| !sha256.is_empty());
    let named =
        [("kernel", facts(one).map(words), facts(other).map(words)), ("image", image(one), image(other))];
    for (what, one_has, other_has) in named {
        if let (Some(was), Some(is)) = (one_has, other_has)
            && was != is
        {
            let why = anyhow::anyhow!(
                "the records of {} come from two kernels: the {what} is {was} in one folder and {is} in another; nothing \
                 was compared; run one of them again",
                one.kernel
            );
            return Err(Failure::new(exit::BAD_INPUT, why));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FORMAT;
    use crate::model::ImageFacts;
    use crate::verbs::judge::selected;
    use probes::record::{KernelFacts, Record};
    use rstest::rstest;
    use std::path::Path;

    fn part(probe: &str, release: &str, sha256: &str) -> KernelRun {
        KernelRun {
            kernel: "6.1".into(),
            image: ImageFacts { sha256: sha256.into(), ..ImageFacts::default() },
            facts: Some(KernelFacts { release: release.into(), ..KernelFacts::default() }),
            records: vec![Record::not_run(probe, "")],
            ..KernelRun::default()
        }
    }

    #[test]
    fn parts_of_one_kernel_are_joined() {
        let failed =
            KernelRun { kernel: "6.1".into(), failure: Some("no image".into()), ..KernelRun::default() };
        let mut joined = Vec::new();
        for run in [failed, part("a/b", "6.1.1", "00"), part("a/c", "6.1.1", "00")] {
            join(&mut joined, run).unwrap();
        }
        assert_eq!((joined.len(), joined[0].records.len()), (1, 2));
        assert_eq!(joined[0].image.sha256, "00");
    }

    #[rstest]
    #[case::release(part("a/c", "6.1.2", "00"), "the kernel is 6.1.1 () in one folder and 6.1.2 ()")]
    #[case::image(part("a/c", "6.1.1", "01"), "the image is 00 in one folder and 01")]
    #[case::probe_twice(part("a/b", "6.1.1", "00"), "a/b on 6.1 is in two of the folders")]
    fn parts_of_two_are_refused(#[case] second: KernelRun, #[case] words: &str) {
        let mut joined = vec![part("a/b", "6.1.1", "00")];
        let failure = join(&mut joined, second).unwrap_err();
        assert_eq!(failure.code, exit::BAD_INPUT);
        assert!(failure.to_string().contains(words), "{failure}");
    }

    /// What one part does not know, because it failed, hides nothing that another one says of its image.
    #[rstest]
    #[case::no_machine([KernelRun { facts: None, ..part("a/b", "6.1.1", "00") }, KernelRun::default()])]
    #[case::no_image([part("a/b", "6.1.1", ""), part("a/c", "6.1.1", "00")])]
    fn a_part_that_knows_less_hides_no_other_image(#[case] parts: [KernelRun; 2]) {
        let mut joined = Vec::new();
        for run in parts {
            join(&mut joined, KernelRun { kernel: "6.1".into(), ..run }).unwrap();
        }
        let failure = join(&mut joined, part("a/d", "6.1.1", "01")).unwrap_err();
        assert!(failure.to_string().contains("the image is 00 in one folder and 01 in another"), "{failure}");
    }

    /// What comes of run folders of a family on two kernels, from whose records `change` may take some.
    fn merged(
        shards: &[Option<&str>],
        change: &dyn Fn(&mut Vec<KernelRun>),
        require: &[&str],
    ) -> Result<u8, Failure> {
        const FAMILY: &str = "program/*";
        let top = tempfile::tempdir().unwrap();
        let matrix = "kernels:\n  - {name: k, path: vmlinuz, lsm: bpf}\n";
        let matrix = Matrix::parse(matrix, Path::new("matrix.yaml")).unwrap();
        let ids = selected(&[], &[FAMILY.to_owned()]).unwrap();
        let folders: Vec<PathBuf> = (0..shards.len()).map(|at| top.path().join(at.to_string())).collect();
        for ((at, folder), shard) in folders.iter().enumerate().zip(shards) {
            std::fs::create_dir(folder).unwrap();
            let shard = shard.map(|shard| shard.parse().unwrap());
            // One kernel each, or both where there is one folder.
            let kernels = if shards.len() == 1 { &["6.1", "7.3"][..] } else { &["6.1", "7.3"][at..=at] };
            Manifest::made_up(kernels).with(&[FAMILY], shard).begin(folder).unwrap();
            let mut runs: Vec<KernelRun> = kernels
                .iter()
                .map(|kernel| KernelRun {
                    format: FORMAT,
                    kernel: (*kernel).to_owned(),
                    records: ids.iter().map(|id| Record::not_run(id, "")).collect(),
                    ..KernelRun::default()
                })
                .collect();
            change(&mut runs);
            for run in runs {
                runs::write(folder, &run).unwrap();
            }
        }
        let require = require.iter().map(|&name| name.to_owned()).collect();
        let options = MergeOptions { folders, require, out: None, format: Format::Table };
        let (manifest, joined) = gather(&options, &matrix, &[])?;
        let judged = held_to_their_selection(&manifest, &[], joined)?;
        outcome(&manifest, &judged, &Comparison::default())
    }

    #[test]
    fn what_a_run_was_to_record_is_demanded() {
        let code = |shards: &[Option<&str>], change: &dyn Fn(&mut Vec<KernelRun>)| {
            merged(shards, change, &[]).unwrap_or_else(|failure| failure.code)
        };
        assert_eq!(code(&[None], &|_| ()), exit::OK);
        assert_eq!(code(&[None], &|runs| drop(runs.remove(0))), exit::INFRASTRUCTURE);
        assert_eq!(code(&[None], &|runs| drop(runs[1].records.remove(0))), exit::INFRASTRUCTURE);
        assert_eq!(code(&[Some("1/2"), Some("2/2")], &|_| ()), exit::OK);
        assert_eq!(code(&[Some("1/3"), Some("3/3")], &|_| ()), exit::INFRASTRUCTURE);
    }

    /// What is kept of the first step says nothing of what it lacks, which the second may bring.
    #[test]
    fn a_kernel_split_over_two_shards_is_joined_in_two_steps() {
        let top = tempfile::tempdir().unwrap();
        let ids = selected(&[], &["program/*".to_owned()]).unwrap();
        let folder = |shard: &str, ids: &[String]| {
            let folder = top.path().join(shard.replace('/', "-"));
            std::fs::create_dir(&folder).unwrap();
            Manifest::made_up(&["6.1"])
                .with(&["program/*"], Some(shard.parse().unwrap()))
                .begin(&folder)
                .unwrap();
            let records = ids.iter().map(|id| Record::not_run(id, "")).collect();
            let run = KernelRun { format: FORMAT, kernel: "6.1".into(), records, ..KernelRun::default() };
            runs::write(&folder, &run).unwrap();
            folder
        };
        let (first, second) = (folder("1/2", &ids[..2]), folder("2/2", &ids[2..]));
        let half = top.path().join("half");
        let (manifest, joined) = all_of(std::slice::from_ref(&first)).unwrap();
        std::fs::create_dir(&half).unwrap();
        manifest.begin(&half).unwrap();
        runs::write(&half, &joined[0]).unwrap();
        assert!(held_to_their_selection(&manifest, &[], joined).unwrap()[0].failure.is_some());
        let (manifest, joined) = all_of(&[half, second]).unwrap();
        let judged = held_to_their_selection(&manifest, &[], joined).unwrap();
        assert_eq!((judged[0].records.len(), &judged[0].failure), (ids.len(), &None));
    }

    #[test]
    fn a_shard_that_is_not_there_is_named() {
        let failure = merged(&[Some("1/3"), Some("3/3")], &|_| (), &[]).unwrap_err();
        assert!(failure.to_string().contains("no folder of shard 2/3 is among these"), "{failure}");
    }

    #[test]
    fn what_is_required_is_demanded_whatever_was_selected() {
        let failure = merged(&[None], &|_| (), &["6.1"]).unwrap_err();
        assert!(failure.to_string().contains("probes have no record of 6.1"), "{failure}");
        let failure = merged(&[None], &|_| (), &["6.12"]).unwrap_err();
        assert!(failure.to_string().contains("no records of 6.12 in any of the folders"), "{failure}");
    }

    #[test]
    fn a_folder_that_is_named_twice_is_refused() {
        let top = tempfile::tempdir().unwrap();
        Manifest::made_up(&["6.1"]).begin(top.path()).unwrap();
        let failure = all_of(&[top.path().to_owned(), top.path().join(".")]).unwrap_err();
        assert!(failure.to_string().contains("is named twice"), "{failure}");
    }

    /// The same from run folders, which say of their images nothing but what is in the records.
    #[test]
    fn folders_of_two_images_under_one_row_are_refused() {
        let top = tempfile::tempdir().unwrap();
        let folder = |name: &str, mut run: KernelRun| {
            let folder = top.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            run.format = FORMAT;
            Manifest::made_up(&["6.1"]).begin(&folder).unwrap();
            runs::write(&folder, &run).unwrap();
            folder
        };
        let one = folder("one", part("a/b", "6.1.1", "00"));
        let same = folder("same", part("a/c", "6.1.1", "00"));
        let other = folder("other", part("a/d", "6.1.1", "01"));
        assert_eq!(all_of(&[one.clone(), same.clone()]).unwrap().1[0].records.len(), 2);
        let failure = all_of(&[one, same, other]).unwrap_err();
        assert_eq!(failure.code, exit::BAD_INPUT);
        assert!(failure.to_string().contains("come from two kernels: the image is 00"), "{failure}");
    }
}
