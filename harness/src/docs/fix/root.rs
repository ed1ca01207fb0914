//! Where a patch is to be applied, and what it calls the files.

use super::Data;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The top of the page's git checkout if all files are in it, else the deepest folder that they share.
///
/// # Errors
/// When one of the files is not there.
pub fn root(page: &Path, data: &[Data]) -> io::Result<PathBuf> {
    let mut paths = vec![page.canonicalize()?];
    for file in data {
        paths.push(file.path.canonicalize()?);
    }
    let shared = |folder: &&Path| paths.iter().all(|path| path.starts_with(folder));
    let folders = || paths[0].ancestors().skip(1);
    let top = folders().find(|folder| folder.join(".git").exists()).filter(shared);
    Ok(top.or_else(|| folders().find(shared)).unwrap_or(Path::new("/")).to_owned())
}

/// A path as a patch for `root` has it; one that is not there as it was given, without what leads to the root.
pub(super) fn in_patch(path: &Path, root: &Path) -> String {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let parts = full.strip_prefix(root).unwrap_or(&full).components().filter_map(|part| match part {
        Component::Normal(part) => Some(part.to_string_lossy().into_owned()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => None,
    });
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(git: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for sub in ["a/docs", "a/data", "b/data"] {
            std::fs::create_dir_all(folder.path().join(sub)).unwrap();
        }
        for file in ["a/docs/p.md", "a/data/kfuncs.yaml", "b/data/kfuncs.yaml"] {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        for sub in git {
            std::fs::create_dir(folder.path().join(sub).join(".git")).unwrap();
        }
        folder
    }

    #[rstest::rstest]
    #[case::checkout(&["a"], "a/data", "a", "docs/p.md")]
    #[case::checkout_further_up(&[""], "a/data", "", "a/docs/p.md")]
    #[case::no_checkout(&[], "a/data", "a", "docs/p.md")]
    #[case::data_elsewhere(&["a"], "b/data", "", "a/docs/p.md")]
    fn a_patch_is_for_the_checkout_or_for_what_the_files_share(
        #[case] git: &[&str],
        #[case] data: &str,
        #[case] expected: &str,
        #[case] name: &str,
    ) {
        let folder = tree(git);
        let at = folder.path().canonicalize().unwrap();
        let page = at.join("a/docs/../docs/p.md");
        let data = [Data { path: at.join(data).join("kfuncs.yaml"), text: String::new() }];
        let found = root(&page, &data).unwrap();
        assert_eq!(found, at.join(expected).components().collect::<PathBuf>());
        assert_eq!(in_patch(&page, &found), name);
    }
}
