//! What becomes of a kernel that no machine may be started for. Nothing here boots.

use super::run_kernel;
use super::setup::{Deadlines, Job, Observer, Setup};
use crate::model::ImageFacts;
use crate::provision::sha256_file;
use crate::vmm::accel::Accel;
use crate::vmm::{Launcher, LauncherKind};
use probes::protocol::Part;
use std::path::Path;

struct Quiet;

impl Observer for Quiet {
    fn note(&self, _: &str, _: &str) {}
    fn progress(&self, _: &str, _: usize, _: usize) {}
}

/// A run in `folder`, whose machines would be started by a program that is not there.
pub(crate) fn setup(folder: &Path) -> Setup {
    let initramfs = folder.join("initramfs.cpio");
    std::fs::write(&initramfs, b"").unwrap();
    Setup {
        launcher: Launcher { kind: LauncherKind::Qemu, vng: None, qemu: folder.join("no-qemu") },
        accel: Accel::Tcg,
        qemu_version: String::new(),
        vng_version: None,
        initramfs,
        guest: Vec::new().into(),
        states: None,
        guard: folder.join("no-guard"),
        deadlines: Deadlines::usual(),
        select: Vec::new(),
        known: Vec::new(),
        detail: false,
        memory_mib: 1,
        cpus: 1,
        shuffle: None,
        apart: false,
        bring: None,
    }
}

/// A kernel with an image of its own in a folder of its own.
pub(crate) fn job(folder: &Path) -> Job {
    let image = folder.join("vmlinuz");
    std::fs::write(&image, "an image").unwrap();
    Job {
        kernel: "k".into(),
        image: ImageFacts { sha256: sha256_file(&image).unwrap(), path: image, ..ImageFacts::default() },
        lsm: "bpf".into(),
        release_prefix: String::new(),
        folder: folder.to_owned(),
        part: Part::default(),
        expected: None,
        before: None,
    }
}

fn failure(setup: &Setup, job: &Job) -> String {
    run_kernel(setup, job, &Quiet).failure.unwrap()
}

#[test]
fn an_image_that_was_exchanged_starts_no_machine() {
    let folder = tempfile::tempdir().unwrap();
    let (setup, job) = (setup(folder.path()), job(folder.path()));
    let why = failure(&setup, &job);
    assert!(why.starts_with("cannot start"), "as it was, it is started: {why}");
    std::fs::write(&job.image.path, "another one").unwrap();
    let why = failure(&setup, &job);
    assert!(why.contains("vmlinuz changed during the run"), "{why}");
    std::fs::remove_file(&job.image.path).unwrap();
    let why = failure(&setup, &job);
    assert!(why.contains("vmlinuz is gone"), "{why}");
}

/// Without its modules a kernel would lack what it has.
#[test]
fn modules_that_cannot_be_joined_start_no_machine() {
    let folder = tempfile::tempdir().unwrap();
    let (setup, job) = (setup(folder.path()), job(folder.path()));
    std::fs::write(folder.path().join("modules.cpio"), "no archive").unwrap();
    assert_eq!(crate::provision::modules::beside(&job.image.path), Some(folder.path().join("modules.cpio")));
    let why = failure(&setup, &job);
    assert!(why.contains("the initramfs cannot be joined with") && why.contains("modules.cpio"), "{why}");
}
