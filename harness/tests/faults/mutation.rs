//! What must come of a kernel, a record or a snapshot that is not what it says: a difference that is named, or a refusal.

use super::{NEW, OLD, conform, image_of, must_end, run, told};
use harness::snapshot::{Ci, Store, render};
use rstest::rstest;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;

/// A project of its own for `conform`: the matrix, and the snapshots of one probe.
struct Copy {
    folder: tempfile::TempDir,
}

const PROBE: &str = "example/file_mprotect";

impl Copy {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let copy = Self { folder };
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        std::fs::create_dir_all(copy.path("harness")).unwrap();
        std::fs::create_dir_all(copy.path("snapshots/example")).unwrap();
        for file in ["matrix.yaml", "snapshots/example/file_mprotect.snap"] {
            std::fs::copy(top.join(file), copy.path(file)).unwrap();
        }
        std::fs::create_dir_all(copy.path("kernels")).unwrap();
        for entry in std::fs::read_dir(top.join("kernels")).unwrap().flatten() {
            std::fs::copy(entry.path(), copy.path("kernels").join(entry.file_name())).unwrap();
        }
        copy
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Accepts a run folder, as a person would.
    fn accept(&self, run: &Path) -> Output {
        let mut command = conform();
        command.env("CARGO_MANIFEST_DIR", self.path("harness")).env_remove("CI");
        command.arg("accept").arg("--run-dir").arg(run).output().unwrap()
    }

    /// Joins a run folder, which compares it.
    fn compare(&self, run: &Path) -> Output {
        conform().env("CARGO_MANIFEST_DIR", self.path("harness")).arg("merge").arg(run).output().unwrap()
    }
}

/// The records of [`PROBE`] on a kernel, in a run folder.
fn recorded(kernel: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    must_end(&run(&["run", "--kernel", kernel, "--probe", PROBE, "--vmm", "qemu", "--run-dir", dir]), 0, &[]);
    folder
}

#[rstest]
fn bpf_left_out_of_lsm_is_a_named_difference(#[values(OLD, NEW)] kernel: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = conform();
    command.args(["run", "--kernel", kernel, "--probe", PROBE, "--vmm", "qemu"]);
    command.args(["--lsm", "landlock,lockdown,yama,integrity,apparmor", "--run-dir"]).arg(folder.path());
    let output = command.output().unwrap();
    must_end(
        &output,
        1,
        &[
            &format!("{PROBE} on {kernel}: differs from the snapshot"),
            "-result: done at read, accepted, fired, denied",
        ],
    );
}

/// A row and an image that is compared with it are two kernels, and a difference in either is one.
#[test]
fn an_image_and_its_row_are_compared_apart() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("mine");
    std::fs::copy(image_of(NEW), &image).unwrap();
    let kernels = format!("{},{NEW}", image.display());
    let records = folder.path().join("run");
    let mut command = conform();
    command.args(["run", "--kernel", &kernels, "--probe", PROBE, "--vmm", "qemu", "--format", "json"]);
    let output = command.arg("--run-dir").arg(&records).output().unwrap();
    must_end(&output, 0, &[]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> =
        document["kernels"].as_array().unwrap().iter().map(|it| it["kernel"].as_str().unwrap()).collect();
    assert_eq!(names, [NEW, "mine"]);
    for name in names {
        let file = records.join(name).join("kernel.json");
        let text = std::fs::read_to_string(&file).unwrap();
        let mut other: Value = serde_json::from_str(&text).unwrap();
        let cases = other["records"][0]["cases"].as_array_mut().unwrap();
        let case = cases.iter_mut().find(|case| case["denied"] == true).unwrap();
        case["denied"] = false.into();
        std::fs::write(&file, other.to_string()).unwrap();
        let output = conform().arg("merge").arg(&records).output().unwrap();
        must_end(&output, 1, &[&format!("{PROBE} on {name}: differs from the snapshot")]);
        std::fs::write(&file, text).unwrap();
    }
}

/// A row that is named after a version promises it, wherever its image comes from.
#[test]
fn another_kernel_under_a_rows_name_is_refused_before_any_comparison() {
    let folder = tempfile::tempdir().unwrap();
    let matrix = folder.path().join("matrix.yaml");
    let image = image_of(OLD);
    let text = format!("kernels:\n  - name: \"{NEW}\"\n    path: {}\n    lsm: bpf\n", image.display());
    std::fs::write(&matrix, text).unwrap();
    let (matrix, dir) = (matrix.to_str().unwrap(), folder.path().join("run"));
    let arguments =
        ["--matrix", matrix, "run", "--probe", PROBE, "--vmm", "qemu", "--run-dir", dir.to_str().unwrap()];
    let output = run(&arguments);
    must_end(&output, 3, &["wrong kernel: uname -r is 5.10.", &format!("the row {NEW} promises {NEW}.*")]);
    assert!(!told(&output).contains("differs"), "{}", told(&output));
}

#[test]
fn records_snapshots_and_names_that_were_changed_are_found_out() {
    let (folder, copy) = (recorded(NEW), Copy::new());
    must_end(&copy.compare(folder.path()), 0, &[]);
    let file = folder.path().join(NEW).join("kernel.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut document: Value = serde_json::from_str(&text).unwrap();
        change(&mut document);
        std::fs::write(&file, document.to_string()).unwrap();
        copy.compare(folder.path())
    };
    let differs = format!("{PROBE} on {NEW}: differs from the snapshot");

    let output = with(&|run| {
        let cases = run["records"][0]["cases"].as_array_mut().unwrap();
        let case = cases.iter_mut().find(|case| case["denied"] == true).unwrap();
        case["denied"] = false.into();
    });
    must_end(&output, 1, &[&differs, "-result: done at read, accepted, fired, denied"]);

    let output = with(&|run| run["facts"]["release"] = "5.10.0-32-cloud-amd64".into());
    must_end(&output, 2, &["wrong kernel", "5.10.0-32-cloud-amd64", "nothing was compared"]);
    let snapshot = || std::fs::read(copy.path("snapshots/example/file_mprotect.snap")).unwrap();
    let before = snapshot();
    must_end(&copy.accept(folder.path()), 2, &["wrong kernel", "5.10.0-32-cloud-amd64"]);
    with(&|run| run["image"]["sha256"] = "0".repeat(64).into());
    must_end(&copy.accept(folder.path()), 2, &[&format!("the records of {NEW} come from another image")]);
    assert_eq!(snapshot(), before);

    with(&|_| ());
    let store = Store::new(copy.path("snapshots"), Ci::No);
    let mut snapshot = store.load(PROBE).unwrap().unwrap();
    let old = snapshot.of(OLD).unwrap().clone();
    snapshot.observed.iter_mut().find(|(kernel, _)| kernel == NEW).unwrap().1 = old;
    std::fs::write(store.path(PROBE).unwrap(), render(&snapshot).unwrap()).unwrap();
    must_end(&copy.compare(folder.path()), 1, &[&differs]);
}
