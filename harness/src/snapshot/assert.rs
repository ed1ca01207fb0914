//! The same comparison as an insta assertion, so that `cargo test` and `cargo insta test` behave as usual.

use super::{Ci, Snapshot, SnapshotError, Store, format};
use insta::Settings;
use std::path::Path;

/// Asserts that the file `<root>/<probe>.snap` holds this snapshot; on a difference insta writes the pending file
/// beside it (unless `CI` is set or `INSTA_UPDATE` says otherwise) and this panics with insta's diff.
///
/// `snapshot` is the whole file's content: [`super::merge()`] a partial run first.
///
/// # Errors
/// When the snapshot cannot be written as text.
///
/// # Panics
/// When the snapshot differs; this is an assertion.
pub fn assert_snapshot(root: &Path, snapshot: &Snapshot) -> Result<(), SnapshotError> {
    let body = format::render_body(snapshot)?;
    // insta takes a relative path from this source file's folder, which no caller means.
    let io = |source| SnapshotError::Io { action: "find", path: root.to_owned(), source };
    let root = std::path::absolute(root).map_err(io)?;
    let (folder, name) = match snapshot.probe.rsplit_once('/') {
        Some((folder, name)) => (root.join(folder), name),
        None => (root, snapshot.probe.as_str()),
    };
    let mut settings = Settings::clone_current();
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_description(snapshot.probe.clone());
    settings.bind(|| insta::assert_snapshot!(name, body));
    Ok(())
}

/// The same, but of a probe of which another kernel has proposed something: insta removes the pending file of what it agrees
/// with, and that is for who reviews it. Call it while nobody proposes.
///
/// # Errors
/// As [`assert_snapshot`]; when a pending file cannot be read.
///
/// # Panics
/// As [`assert_snapshot`].
pub fn assert_unless_proposed(root: &Path, snapshot: &Snapshot) -> Result<(), SnapshotError> {
    if Store::new(root, Ci::Yes).load_pending(&snapshot.probe)?.is_some() {
        return Ok(());
    }
    assert_snapshot(root, snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::made_up::{done, names, observed};
    use crate::snapshot::{Known, merge, parse, render};

    fn snapshot() -> Snapshot {
        let known = Known::new(&names(&["6.1"]), [("a/b", "Why?")]);
        merge(None, "a/b", &[("6.1".to_owned(), observed(vec![done("x")]))], &known)
    }

    /// Our files and insta's are the same, byte for byte, so either tool may accept what the other proposed.
    #[test]
    fn insta_reads_and_writes_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.snap");
        let text = render(&snapshot()).unwrap();
        std::fs::write(&path, &text).unwrap();
        let read = insta::Snapshot::from_file(&path).unwrap();
        assert_eq!(read.metadata().description(), Some("a/b"));
        assert_eq!(read.metadata().source(), Some(format::SOURCE));
        assert_eq!(read.as_text().unwrap().to_string() + "\n", format::render_body(&snapshot()).unwrap());
        let copy = folder.path().join("copy.snap");
        read.save(&copy).unwrap();
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), text);
        assert_eq!(parse(&copy, &text).unwrap(), snapshot());
    }

    #[test]
    fn an_equal_snapshot_passes() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("a/b.snap"), render(&snapshot()).unwrap()).unwrap();
        assert_snapshot(folder.path(), &snapshot()).unwrap();
    }

    #[test]
    fn what_another_kernel_has_proposed_stays() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        let (accepted, pending) = (folder.path().join("a/b.snap"), folder.path().join("a/b.snap.new"));
        for path in [&accepted, &pending] {
            std::fs::write(path, render(&snapshot()).unwrap()).unwrap();
        }
        assert_unless_proposed(folder.path(), &snapshot()).unwrap();
        assert!(pending.exists());
        std::fs::remove_file(&pending).unwrap();
        assert_unless_proposed(folder.path(), &snapshot()).unwrap();
    }

    #[test]
    fn another_snapshot_fails() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        let mut other = snapshot();
        other.observed[0].1.cases[0].fired = Some(false);
        std::fs::write(folder.path().join("a/b.snap"), render(&other).unwrap()).unwrap();
        let root = folder.path().to_owned();
        assert!(std::panic::catch_unwind(move || assert_snapshot(&root, &snapshot())).is_err());
    }
}
