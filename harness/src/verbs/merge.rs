//! `conform merge`: run folders of several machines become one, and nothing may be missing.

use super::folder::RunFolder;
use super::judge::{compare_with_rows, exit_code, without_record};
use super::manifest::Manifest;
use super::project::{Project, ids_in, known, probe_infos};
use crate::cli::{Format, MergeOptions};
use crate::exit::{self, Failure};
use crate::model::KernelRun;
use crate::report::{Material, json, junit, runs, table};
use std::path::PathBuf;

/// Joins, compares, reports.
pub(super) fn merge(project: &Project, options: &MergeOptions) -> Result<u8, Failure> {
    let matrix = project.matrix()?;
    let (manifest, joined) = all_of(&options.folders)?;
    for name in &options.require {
        if !joined.iter().any(|run| run.kernel == *name) {
            let why = anyhow::anyhow!("no records of {name} in any of the folders, and it is required");
            return Err(Failure::new(exit::INFRASTRUCTURE, why));
        }
    }
    // What the snapshots know of is asked on every kernel, and what a kernel brought is known from its own records.
    let known = known(&matrix, &project.dynamic_ids()?, &[]);
    for run in joined.iter().filter(|run| options.require.contains(&run.kernel) && run.failure.is_none()) {
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
    if let Some(out) = &options.out {
        let out = RunFolder::make(project, Some(out))?;
        manifest.begin(&out.path)?;
        for run in &joined {
            runs::write(&out.path, run)?;
        }
    }
    let comparison = compare_with_rows(project, &matrix, &joined)?;
    let names: Vec<String> = matrix.rows.iter().map(|row| row.name.clone()).collect();
    let probes = probe_infos(&ids_in(&joined));
    let material = Material { runs: &joined, comparison: &comparison, matrix: &names, probes: &probes };
    let broken = |error: String| Failure::new(exit::INFRASTRUCTURE, anyhow::anyhow!(error));
    let look = table::Look::default();
    match options.format {
        Format::Table => super::print(&table::render(material, look)),
        Format::Markdown => super::print(&format!("```text\n{}```\n", table::render(material, look))),
        Format::Json => super::print(&json::render(material).map_err(|error| broken(error.to_string()))?),
        Format::Junit => super::print(&junit::render(material).map_err(|error| broken(error.to_string()))?),
    }
    Ok(exit_code(&joined, &comparison))
}

/// Everything that the folders have. What another run has left in one of them is no part of it.
fn all_of(folders: &[PathBuf]) -> Result<(Manifest, Vec<KernelRun>), Failure> {
    let (mut manifests, mut joined) = (Vec::new(), Vec::new());
    for folder in folders {
        let manifest = Manifest::read(folder)?;
        for run in runs::read_all(folder)?.into_iter().filter(|run| manifest.has(&run.kernel)) {
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
    use crate::model::ImageFacts;
    use probes::record::{KernelFacts, Record};
    use rstest::rstest;

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

    /// The same from run folders, which say of their images nothing but what is in the records.
    #[test]
    fn folders_of_two_images_under_one_row_are_refused() {
        let top = tempfile::tempdir().unwrap();
        let folder = |name: &str, mut run: KernelRun| {
            let folder = top.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            run.format = crate::model::FORMAT;
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
