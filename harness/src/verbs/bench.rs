//! `conform bench`: how long things take here, each figure from a run of this same program as a user would start it.
//!
//! Nothing asserts a time: the figures are for comparing two states of the project, or two machines. What is compared is
//! measured one after the other in the same call, and ratios are printed beside it.

mod compared;

use super::project::Project;
use crate::cache::Cache;
use crate::child;
use crate::cli::{AnswerFormat, BenchOptions};
use crate::exit::{self, Failure};
use crate::guard;
use crate::matrix::Source;
use crate::model::KernelRun;
use crate::progress::Progress;
use crate::report::runs;
use comfy_table::{CellAlignment, Table, presets};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use probes::spec::family_of;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Version of the JSON document.
const SCHEMA: u32 = 1;
/// How long one run may take; the whole matrix, cold, on a slow machine is the longest.
const DEADLINE: Duration = Duration::from_secs(3600);
/// How `conform` is called for all of them.
const HOW: [&str; 3] = ["run", "--vmm", "qemu"];
/// The probe that is run where one will do.
const ONE: &str = "program/type";
/// The probes that growth with the number of kernels is measured with.
const SOME: &str = "context/*";

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Document {
    /// [`SCHEMA`].
    schema: u32,
    /// The machine: processors, and what the first of them calls itself.
    processors: usize,
    processor: String,
    /// The kernels that were run: the packaged rows of the matrix.
    kernels: Vec<String>,
    /// In the order in which they were taken.
    figures: Vec<Figure>,
}

/// One figure.
#[derive(Debug, Serialize)]
struct Figure {
    /// Words with slashes, from the general to the special.
    name: String,
    /// Its value.
    value: f64,
    /// `s`, `MiB`, `KiB`, or `x` for a ratio.
    unit: &'static str,
}

/// What one run of the program took.
struct Took {
    wall: Duration,
    /// The most memory that a process below it had at once, in KiB; QEMU's, as long as nothing was compiled.
    peak_kib: i64,
    runs: Vec<KernelRun>,
    /// Bytes of raw records.
    bytes: u64,
}

struct Bench<'a> {
    project: &'a Project,
    /// In whose folder for what is under way the records are.
    cache: Cache,
    progress: &'a Progress,
    figures: Vec<Figure>,
}

/// Takes the figures and prints them.
pub(super) fn bench(project: &Project, options: &BenchOptions, progress: &Progress) -> Result<u8, Failure> {
    let rows = project.matrix()?.rows;
    let kernels: Vec<String> =
        rows.into_iter().filter(|row| matches!(row.source, Source::Debian(_))).map(|row| row.name).collect();
    let Some(newest) = kernels.last() else {
        return Err(Failure::new(
            exit::NOTHING_SELECTED,
            anyhow::anyhow!("the matrix has no packaged kernel"),
        ));
    };
    let mut bench = Bench { project, cache: Cache::from_env()?, progress, figures: Vec::new() };
    progress.say("bench", "getting ready: what is built or fetched now is not measured");
    bench.run_with(&["--kernel", &kernels.join(","), "--probe", ONE], Stdio::inherit())?;
    bench.first_record(newest)?;
    bench.one_probe(newest, &kernels)?;
    bench.families(newest)?;
    bench.growth_by_kernels(&kernels)?;
    bench.growth_by_probes(newest)?;
    bench.compared(newest)?;
    if options.whole {
        bench.whole(&kernels)?;
    }
    let document = Document {
        schema: SCHEMA,
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        processor: processor(),
        kernels,
        figures: bench.figures,
    };
    match options.format {
        AnswerFormat::Table => super::print(&table(&document)),
        AnswerFormat::Json => {
            let text = serde_json::to_string_pretty(&document)
                .map_err(|error| Failure::new(exit::INFRASTRUCTURE, error))?;
            super::print(&text);
        }
    }
    Ok(exit::OK)
}

impl Bench<'_> {
    fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        let name = name.into();
        self.progress.say("bench", &format!("{name}: {value:.2} {unit}"));
        self.figures.push(Figure { name, value, unit });
    }

    /// A figure that has been taken.
    fn value(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }

    /// Runs `conform run` with QEMU alone, which adds nothing of its own to what is measured, and without a network, which
    /// would.
    fn run(&self, arguments: &[&str]) -> Result<Took, Failure> {
        self.run_with(&[arguments, &["--offline"]].concat(), Stdio::null())
    }

    /// The same with whatever options; `said` is where it says what it does.
    fn run_with(&self, arguments: &[&str], said: Stdio) -> Result<Took, Failure> {
        let folder = self.cache.temp_dir()?;
        let program = &self.project.program;
        let mut command = guarded(program, program);
        // With CI set nothing is proposed as a snapshot.
        command.env("CI", "true").stderr(said);
        command.arg("--unlinked").arg("--matrix").arg(&self.project.matrix);
        command.args(HOW).args(["--format", "json", "--run-dir"]).arg(folder.path()).args(arguments);
        let started = Instant::now();
        let (status, peak_kib) = wait(command, DEADLINE)?;
        let wall = started.elapsed();
        // A record that differs is no matter of time.
        if status != i32::from(exit::OK) && status != i32::from(exit::MISMATCH) {
            let told = [&HOW[..], arguments].concat().join(" ");
            let why = anyhow::anyhow!("`cargo conform {told}` ended with {status}; run it to see why");
            return Err(Failure::new(exit::INFRASTRUCTURE, why));
        }
        let runs = runs::read_all(folder.path())?;
        Ok(Took { wall, peak_kib, bytes: bytes_below(folder.path()), runs })
    }

    fn first_record(&mut self, kernel: &str) -> Result<(), Failure> {
        let mut seconds = |name: &str, more: &[&str]| -> Result<f64, Failure> {
            let took = self.run(&[&["--kernel", kernel, "--probe", ONE], more].concat())?;
            let timing = took.runs.first().map(|run| run.timing).unwrap_or_default();
            let value = Duration::from_millis(timing.boot_ms + timing.probes_ms).as_secs_f64();
            self.figure(format!("first-record/{name}"), value, "s");
            Ok(value)
        };
        let (cold, warm) = (seconds("cold", &["--cold"])?, seconds("warm", &[])?);
        self.figure("first-record/cold-to-warm", cold / warm.max(0.001), "x");
        Ok(())
    }

    fn one_probe(&mut self, newest: &str, kernels: &[String]) -> Result<(), Failure> {
        let one = self.run(&["--kernel", newest, "--probe", ONE])?;
        self.figure("one-probe/one-kernel", one.wall.as_secs_f64(), "s");
        let all = self.run(&["--kernel", &kernels.join(","), "--probe", ONE])?;
        self.figure("one-probe/all-kernels", all.wall.as_secs_f64(), "s");
        Ok(())
    }

    /// All probes on one kernel, one machine at a time, and what each family had of it.
    fn families(&mut self, kernel: &str) -> Result<(), Failure> {
        let took = self.run(&["--kernel", kernel, "--jobs", "1"])?;
        let mut families: BTreeMap<&str, u64> = BTreeMap::new();
        for record in took.runs.iter().flat_map(|run| &run.records) {
            *families.entry(family_of(&record.probe)).or_default() += record.micros;
        }
        for (family, micros) in families {
            let value = Duration::from_micros(micros).as_secs_f64();
            self.figure(format!("kernel/family/{family}"), value, "s");
        }
        let boots = took.runs.iter().map(|run| run.timing.boot_ms).sum();
        self.figure("kernel/boots", Duration::from_millis(boots).as_secs_f64(), "s");
        self.figure("kernel/all", took.wall.as_secs_f64(), "s");
        #[expect(clippy::cast_precision_loss, reason = "figures of a few digits")]
        let (memory, stream) = (took.peak_kib as f64 / 1024.0, took.bytes as f64 / 1024.0);
        self.figure("kernel/memory", memory, "MiB");
        self.figure("kernel/records", stream, "KiB");
        Ok(())
    }

    fn growth_by_kernels(&mut self, kernels: &[String]) -> Result<(), Failure> {
        let mut counts: Vec<usize> =
            [1, 2, 4, 8].into_iter().filter(|&count| count < kernels.len()).collect();
        counts.push(kernels.len());
        for count in counts {
            // The newest, so that the slowest of them is always there.
            let some = kernels[kernels.len() - count..].join(",");
            let took = self.run(&["--kernel", &some, "--probe", SOME])?;
            self.figure(format!("growth/kernels/{count}"), took.wall.as_secs_f64(), "s");
        }
        Ok(())
    }

    /// A quarter, a half, all of the probes: shards are nested, because each quarter lies in a half.
    fn growth_by_probes(&mut self, kernel: &str) -> Result<(), Failure> {
        let mut before = None;
        for (times, shard) in [("1", "1/4"), ("2", "1/2"), ("4", "1/1")] {
            let took = self.run(&["--kernel", kernel, "--jobs", "1", "--shard", shard])?;
            let value = took.wall.as_secs_f64();
            self.figure(format!("growth/probes/{times}x"), value, "s");
            if let Some(before) = before.replace(value) {
                self.figure(format!("growth/probes/{times}x-to-half"), value / before, "x");
            }
        }
        Ok(())
    }

    fn whole(&mut self, kernels: &[String]) -> Result<(), Failure> {
        let all = kernels.join(",");
        let cold = self.run(&["--kernel", &all, "--cold"])?;
        self.figure("matrix/cold", cold.wall.as_secs_f64(), "s");
        let warm = self.run(&["--kernel", &all])?;
        self.figure("matrix/warm", warm.wall.as_secs_f64(), "s");
        Ok(())
    }
}

/// `program` behind a guard, `conform` itself, which ends it and all that it has started when this process is gone.
fn guarded(guard: &Path, program: &Path) -> Command {
    let mut command = Command::new(guard);
    command.args([guard::VERB, "--"]).arg(program);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Waits for a child behind a guard; gives its exit code (-1 for one that a signal ended) and the peak of memory below it,
/// in KiB. At the deadline the guard is told to end all of it.
fn wait(mut command: Command, deadline: Duration) -> Result<(i32, i64), Failure> {
    let failed = |error: std::io::Error| Failure::new(exit::INFRASTRUCTURE, error);
    let mut child = command.spawn().map_err(failed)?;
    let pid = i32::try_from(child.id()).unwrap_or(-1);
    let end = Instant::now() + deadline;
    loop {
        let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
        // SAFETY: both places live across the call, and an rusage of zeros is one.
        let (waited, usage) = unsafe {
            (libc::wait4(pid, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()), usage.assume_init())
        };
        if waited == pid {
            let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 };
            return Ok((code, usage.ru_maxrss));
        }
        if waited < 0 && Errno::last() != Errno::EINTR {
            return Err(failed(std::io::Error::last_os_error()));
        }
        if Instant::now() >= end {
            drop(child.stdin.take());
            // The same by a word, should somebody else hold the pipe.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            let _ = child::reap(&mut child);
            let why = anyhow::anyhow!("a run took more than {} s; run it to see why", deadline.as_secs());
            return Err(Failure::new(exit::INFRASTRUCTURE, why));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The size of every file with records below a run folder.
fn bytes_below(folder: &Path) -> u64 {
    let kernels = std::fs::read_dir(folder).into_iter().flatten().flatten();
    kernels.filter_map(|kernel| Some(std::fs::metadata(kernel.path().join(runs::FILE)).ok()?.len())).sum()
}

/// What the first processor calls itself.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, name)| name).to_owned()
}

fn table(document: &Document) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["figure", "value", "unit"]);
    for figure in &document.figures {
        table.add_row([&figure.name, &format!("{:.2}", figure.value), figure.unit]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n{} processors: {}\n", document.processors, document.processor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// What stands for the guard ends its command when its standard input does, or it is asked to.
    const GUARD: &str =
        "#!/bin/sh\nshift 2\n\"$@\" & trap \"kill $!; exit\" EXIT TERM\nread _ < /dev/stdin\n";

    /// Else "getting ready" would get nothing, and what failed would be called by another name.
    #[test]
    fn what_is_measured_uses_no_network_and_what_gets_ready_may() {
        let folder = tempfile::tempdir().unwrap();
        let (program, note) = (folder.path().join("conform"), folder.path().join("said"));
        std::fs::write(&program, format!("#!/bin/sh\necho \"$CI $@\" > {}\nexit 3\n", note.display()))
            .unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let project = Project { program, is_linked: true, ..Project::find(None).unwrap() };
        let cache = Cache::open(&folder.path().join("cache")).unwrap();
        let bench = Bench { project: &project, cache, progress: &Progress::silent(), figures: Vec::new() };
        let said = || std::fs::read_to_string(&note).unwrap();
        let failure = bench.run(&["--kernel", "k"]).err().unwrap().to_string();
        assert!(
            failure.contains("`cargo conform run --vmm qemu --kernel k --offline` ended with 3"),
            "{failure}"
        );
        assert!(said().starts_with("true ") && said().contains("--unlinked") && said().contains("--offline"));
        bench.run_with(&["--kernel", "k"], Stdio::null()).err().unwrap();
        assert!(!said().contains("--offline"), "{}", said());
        assert_eq!(std::fs::read_dir(bench.cache.root().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_run_that_does_not_end_is_ended_behind_its_guard() {
        let folder = tempfile::tempdir().unwrap();
        let (guard, program) = (folder.path().join("guard"), folder.path().join("program"));
        let note = folder.path().join("pid");
        let script = format!("#!/bin/sh\necho $$ > {}\nexec sleep 600\n", note.display());
        for (path, text) in [(&guard, GUARD), (&program, &script)] {
            std::fs::write(path, text).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
        }
        let failure = wait(guarded(&guard, &program), Duration::from_secs(4)).unwrap_err();
        assert!(failure.to_string().contains("took more than 4 s"), "{failure}");
        let pid = std::fs::read_to_string(&note).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        // Other tests have made this process adopt orphans, which nobody waits for.
        let gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        let until = Instant::now() + Duration::from_secs(10);
        while !gone() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(gone(), "process {pid} goes on");
    }
}
