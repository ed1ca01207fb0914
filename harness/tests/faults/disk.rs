//! What must come of a disk that is full: it is named, what was written before is whole, nothing half-written is left, and
//! the run goes on, at once and with `--resume`. And of memory that has no room for a machine.

use super::interruption::listen;
use super::{NEW, OLD, conform, image_of, must_end, told};
use harness::model::KernelRun;
use harness::snapshot::{Ci, Known, Store};
use probes::record::{Outcome, Record};
use rstest::rstest;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const PAGE: usize = 4096;

/// A file system of a given size. A user namespace makes it possible without root, and it goes with the process that
/// holds that namespace; where there may be none, these tests fail.
struct SmallDisk {
    holder: Child,
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn new(pages: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // It ends with this process, whose end of the pipe is then closed.
        let script =
            format!("mount -t tmpfs -o size={} small \"$0\" && echo ready && exec cat", pages * PAGE);
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start unshare, of util-linux: {error}"));
        let mut said = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(
            said, "ready\n",
            "no tmpfs could be mounted: these tests need root, or user namespaces for everybody"
        );
        Self { holder, folder }
    }

    /// Where it is for those in the namespace.
    fn inside(&self) -> &Path {
        self.folder.path()
    }

    /// Where it is for this process.
    fn outside(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.inside().strip_prefix("/").unwrap())
    }

    fn ballast(&self) -> PathBuf {
        self.outside().join("ballast")
    }

    /// Leaves no room but for so many pages.
    fn fill(&self, but: usize) {
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).unwrap();
        let problem = loop {
            if let Err(problem) = ballast.write_all(&[0; PAGE]) {
                break problem;
            }
        };
        assert_eq!(problem.kind(), ErrorKind::StorageFull);
        ballast.set_len(ballast.metadata().unwrap().len() - (but * PAGE) as u64).unwrap();
    }

    fn make_room(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    /// `conform`, where it sees this disk.
    fn conform(&self, arguments: &[&str]) -> Command {
        let conform = conform();
        let mut command = Command::new("nsenter");
        command.args([
            "--user",
            "--mount",
            "--preserve-credentials",
            "--target",
            &self.holder.id().to_string(),
        ]);
        command.arg(conform.get_program()).args(arguments);
        command.envs(conform.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// All files, from the top of the disk, but for the ballast.
    fn files(&self) -> BTreeSet<String> {
        let top = self.outside();
        let (mut found, mut folders) = (BTreeSet::new(), vec![top.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(path);
                } else if path != self.ballast() {
                    found.insert(path.strip_prefix(&top).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        found
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The outcomes that a run tells, by kernel.
fn outcomes(output: &Output) -> Vec<(String, Vec<String>)> {
    let document: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", told(output)));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of_kernel = |run: &Value| {
        let records = run["records"].as_array().unwrap();
        (text(&run["kernel"]), records.iter().map(|record| text(&record["outcome"])).collect())
    };
    document["kernels"].as_array().unwrap().iter().map(of_kernel).collect()
}

/// The files of a run of these kernels, without the consoles'.
fn must_have(disk: &SmallDisk, kernels: &[&str]) {
    let is_console = |name: &String| name.contains("/console-") && name.ends_with(".log");
    let found: BTreeSet<String> = disk.files().into_iter().filter(|name| !is_console(name)).collect();
    let records = kernels.iter().map(|kernel| format!("run/{kernel}/kernel.json"));
    assert_eq!(found, records.chain(["run/run.json".to_owned()]).collect());
    for kernel in kernels {
        let text = std::fs::read(disk.outside().join(format!("run/{kernel}/kernel.json"))).unwrap();
        let run: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(run["records"].as_array().unwrap().len(), 3, "{run:#}");
    }
}

/// The disk is full from when the first or the second of two kernels is up, and has room again when the run is resumed.
#[rstest]
fn a_full_disk_is_named_and_the_run_goes_on(#[values(OLD, NEW)] full_at: &str) {
    for kernel in [OLD, NEW] {
        image_of(kernel);
    }
    let disk = SmallDisk::new(4096);
    let folder = disk.inside().join("run").to_str().unwrap().to_owned();
    let (kernels, probes) = (format!("{OLD},{NEW}"), "selftest/before,selftest/hang,selftest/after");
    let arguments = ["run", "--kernel", &kernels, "--probe", probes, "--deadline", "4", "--vmm", "qemu"];
    let how = ["--jobs", "1", "--format", "json", "--run-dir", &folder];
    let mut harness = disk.conform(&[&arguments[..], &how].concat()).spawn().unwrap();
    // The newest comes first. The probe that hangs takes longer than to fill the disk.
    let said = listen(&mut harness, &format!("[{full_at}] up:"), |_| disk.fill(0));
    let full = harness.wait_with_output().unwrap();
    assert_eq!(full.status.code(), Some(3), "{said}");
    let named = format!("the records of {full_at} could not be kept: cannot write");
    assert!(said.contains(&named) && said.contains("No space left on device"), "{said}");
    // All has been run and told all the same.
    let expected = ["observed", "hung", "observed"].map(str::to_owned).to_vec();
    let expected = [OLD, NEW].map(|kernel| (kernel.to_owned(), expected.clone()));
    assert_eq!(outcomes(&full), expected, "{said}");
    must_have(&disk, if full_at == OLD { &[NEW] } else { &[] });

    disk.make_room();
    let resumed = disk.conform(&["run", "--format", "json", "--resume", &folder]).output().unwrap();
    // No probe of `selftest` has a snapshot.
    must_end(&resumed, 1, &[]);
    let kept = format!("[{NEW}] 3 records were there, all of them");
    assert_eq!(told(&resumed).contains(&kept), full_at == OLD, "{}", told(&resumed));
    assert_eq!(outcomes(&resumed), expected);
    must_have(&disk, &[OLD, NEW]);
}

/// No room for the file that says what the run stands on: no machine is started for it.
#[test]
fn a_disk_that_is_full_from_the_beginning_is_named() {
    image_of(NEW);
    let disk = SmallDisk::new(1);
    disk.fill(0);
    let folder = disk.inside().join("run").to_str().unwrap().to_owned();
    let arguments =
        ["run", "--kernel", NEW, "--probe", "program/type", "--vmm", "qemu", "--run-dir", &folder];
    let output = disk.conform(&arguments).output().unwrap();
    must_end(&output, 3, &["cannot write", "run.json", "No space left on device"]);
    assert!(!told(&output).contains("up:"), "{}", told(&output));
    assert_eq!(disk.files(), BTreeSet::new());
}

/// Two probes' records, of about so many pages each.
fn records(word: &str, pages: [usize; 2]) -> KernelRun {
    let record = |(probe, pages): (&str, usize)| {
        let why = format!("{word} ").repeat((pages * PAGE - 1000) / (word.len() + 1));
        Record { outcome: Outcome::CouldNotTell { why }, ..Record::not_run(probe, "") }
    };
    let records = ["a/b", "a/c"].into_iter().zip(pages).map(record).collect();
    KernelRun { kernel: "6.1".into(), records, ..KernelRun::default() }
}

/// Whatever room there is: each file is the old one or the new one, whole, and there is no other.
#[test]
fn snapshots_on_a_full_disk_are_whole_the_old_or_the_new() {
    let disk = SmallDisk::new(64);
    let store = Store::new(disk.outside().join("snapshots"), Ci::No);
    let known = Known::new(&["6.1".to_owned()], [("a/b", "Why?"), ("a/c", "Why?")]);
    let (old, new) = (records("old", [1, 1]), records("new", [2, 4]));
    let accept = |run: &KernelRun| store.accept_runs(std::slice::from_ref(run), &known, false, |_, _| true);
    let texts = || ["a/b", "a/c"].map(|id| std::fs::read_to_string(store.path(id).unwrap()).unwrap());
    let [old_texts, new_texts] = [&old, &new].map(|run| {
        accept(run).unwrap();
        texts()
    });
    let mut seen = BTreeSet::new();
    for room in 0..8 {
        accept(&old).unwrap();
        assert_eq!(texts(), old_texts);
        disk.fill(room);
        let accepted = accept(&new);
        let found = texts();
        let is_new = [0, 1].map(|at| {
            assert!(found[at] == old_texts[at] || found[at] == new_texts[at], "{room} pages: {}", found[at]);
            found[at] == new_texts[at]
        });
        assert_eq!(disk.files(), ["snapshots/a/b.snap", "snapshots/a/c.snap"].map(str::to_owned).into());
        match accepted {
            Ok(changed) => assert_eq!((changed.len(), is_new), (2, [true, true])),
            Err(error) => {
                let text = format!("{:#}", anyhow::Error::from(error));
                let file = if is_new[0] { "a/c.snap" } else { "a/b.snap" };
                for word in ["cannot write", file, "No space left on device"] {
                    assert!(text.contains(word), "{word:?} is not in: {text}");
                }
            }
        }
        seen.insert(is_new);
        disk.make_room();
    }
    // None of them, one of them, both.
    assert_eq!(seen, [[false, false], [true, false], [true, true]].into());
}

/// The cache is on the disk and has the kernel, its pages counted; what else there is room for is left in `but` pages.
fn cache_with(kernel: &str, but: usize) -> SmallDisk {
    let image = image_of(kernel);
    let entry = image.parent().unwrap();
    let files: Vec<PathBuf> = std::fs::read_dir(entry).unwrap().flatten().map(|it| it.path()).collect();
    let pages = |path: &PathBuf| usize::try_from(path.metadata().unwrap().len()).unwrap().div_ceil(PAGE);
    let disk = SmallDisk::new(files.iter().map(pages).sum::<usize>() + but + 64);
    let copy = disk.outside().join("kernels").join(entry.file_name().unwrap());
    std::fs::create_dir_all(&copy).unwrap();
    for file in files {
        std::fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
    }
    disk.fill(but);
    disk
}

/// No room for a booted machine, or for a part of one: it is not kept, and the run is what it would have been.
#[rstest]
fn a_cache_on_a_full_disk_costs_no_record(#[values(0, 500, 2500)] pages: usize) {
    let disk = cache_with(OLD, pages);
    let before = disk.files();
    let folder = tempfile::tempdir().unwrap();
    let output = disk
        .conform(&["run", "--kernel", OLD, "--probe", "program/type", "--vmm", "qemu", "--run-dir"])
        .arg(folder.path())
        .env("CONFORM_CACHE", disk.inside())
        .output()
        .unwrap();
    must_end(&output, 0, &["cannot keep the booted machine", "No space left on device", "1 matched"]);
    let made: Vec<String> = disk.files().difference(&before).cloned().collect();
    assert!(made.iter().all(|file| file.starts_with("locks/")), "{made:?}");
}

#[test]
fn a_kernel_that_a_full_cache_has_no_room_for_is_named_with_the_remedy() {
    let disk = SmallDisk::new(16);
    disk.fill(0);
    let fetch = ["kernels", "fetch", "--kernel", OLD];
    let output = disk.conform(&fetch).env("CONFORM_CACHE", disk.inside()).output().unwrap();
    let words =
        [&format!("cannot fetch kernel {OLD}"), "is full: make room, or set CONFORM_CACHE", "No space left"];
    must_end(&output, 3, &words);
    assert!(!disk.files().iter().any(|file| file.starts_with("kernels/")), "{:?}", disk.files());
}

/// A run of one probe where `/dev/shm` and the folder for temporary files have so much, in namespaces of its own.
fn with_little_room(in_memory: &str, temporary: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o size={in_memory} little /dev/shm && mkdir {0}/tmp && mount -t tmpfs -o size={temporary} little {0}/tmp \
         && exec env TMPDIR={0}/tmp {1} --unlinked run --kernel {NEW} --probe program/type --vmm qemu --run-dir {0}/run",
        folder.path().display(),
        env!("CARGO_BIN_EXE_conform"),
    );
    Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .env("CI", "true")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// As in a container, whose `/dev/shm` has 64 MiB if nobody says otherwise. A page of the channel that is not there ends
/// whoever touches it with SIGBUS.
#[test]
fn a_machine_that_does_not_fit_into_memory_is_put_elsewhere() {
    must_end(&with_little_room("8m", "64m"), 0, &["1 matched"]);
}

#[test]
fn no_room_for_a_machine_is_named_with_the_places_and_the_remedy() {
    let output = with_little_room("8m", "12m");
    must_end(
        &output,
        3,
        &["takes 16 MiB: /dev/shm: No space left on device", "/tmp: No space left", "--shm-size"],
    );
}

/// The records behind an answer are kept, and a script is not to take half of one for all of it.
#[test]
fn an_answer_that_cannot_be_written_is_an_error() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let output = conform().args(["list", "--coverage"]).stdout(full()).output().unwrap();
    must_end(&output, 3, &["cannot write all of the answer to standard output: No space left"]);
    // Who reads no further has what it wants.
    let mut child = conform().args(["list", "--coverage"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
