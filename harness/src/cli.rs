//! The command line: verbs and options, nothing else. What they do is in [`crate::verbs`].

mod format;

use crate::run::shard::Shard;
use crate::vmm::{AccelChoice, LauncherKind};
use clap::{Args, Parser, Subcommand};
pub use format::{AnswerFormat, DiffFormat, DocsFormat, Format};
use std::path::PathBuf;

const EXIT_CODES: &str = "\
Exit codes:
  0  everything matched
  1  a record differs from its snapshot, or a snapshot is missing or stale; of docs: a statement is contradicted;
     of soak: a record was not the same in all runs or not the snapshot's, or a machine was lost between two probes
  2  bad input: a wrong option, a wrong key in matrix.yaml, an unknown probe or kernel
  3  infrastructure: no QEMU, no download, no room, no machine that boots
  4  nothing was selected; of docs: nothing that claims/ knows is on the page
  5  a tool is missing and installing it needs a privilege; the command is printed
  6  interrupted by Ctrl-C, SIGTERM or SIGHUP while machines ran: what was recorded is kept, and run --resume or soak
     --resume goes on.
     Before the first machine, and in verbs that run none, the signal ends conform, as any other program, and what is
     worth telling is told

Settings (environment):
  CONFORM_CACHE   where kernels and tools are kept (default: the user's cache folder)
  CONFORM_QEMU    the qemu-system-x86_64 to use
  CI              when set, nothing is ever accepted";

const LIST_HELP: &str = "\
--coverage prints, per kernel, from the snapshots of the family hooks:
  functions       bpf_lsm_* functions in the kernel's BTF
  hooks           those that the kernel calls hooks, disabled ones included
  attachable      hooks that a program attaches to
  fired           attachable hooks whose trigger made a program run for the trigger's own task
  int_attachable  attachable hooks that return something
  denied          of these, hooks with a verdict that user space saw, as errno or other effect, after the same
                  act had succeeded without a denying program
With --format json: an array of objects with kernel and these fields.

--unfired prints, per kernel, the attachable hooks that did not fire, each with the reason, or \"no reason known\".
With --format json: an array of objects with kernel, hook and reason.

--undocumented prints the helpers and kfuncs that some LSM program may call, with the kernels, and that the
documentation's page (claims/lists*.yaml) does not list; --unsupported those that it lists and no kernel lets them
call, with the answers.
With --format json: an array of objects with kind, name, kernels, and for --unsupported answers.";

/// Conformance suite for BPF_PROG_TYPE_LSM: boots real kernels, runs probes in them, compares what they saw with the
/// snapshots.
#[derive(Debug, Parser)]
#[command(name = "conform", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    /// The matrix of kernels [default: matrix.yaml at the top of the project]
    #[arg(long, global = true, value_name = "FILE")]
    pub matrix: Option<PathBuf>,
    /// Leave what `accept` and `--resume` take by default as it is: what `bench` and the fault tests run is not meant
    #[arg(long, global = true, hide = true)]
    pub unlinked: bool,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Boot kernels, run probes, compare with the snapshots, print a table
    ///
    /// Without options: every kernel of the matrix, every probe. Finds or installs what it needs and, once that is
    /// done, works without a network.
    #[command(after_help = EXIT_CODES)]
    Run(RunOptions),
    /// List the probes with their questions, or how much of the hooks the records cover
    ///
    /// Works from the tables and the snapshots; boots nothing.
    #[command(after_help = LIST_HELP)]
    List(ListOptions),
    /// List or fetch the kernels of the matrix
    Kernels {
        /// What to do with them
        #[command(subcommand)]
        verb: KernelsVerb,
    },
    /// Run one probe and show its program as the kernel saw it, the verifier's log and the record, per kernel
    Show(ShowOptions),
    /// Explain one probe, or a hook, helper or kfunc by name, from its snapshot: question, answer per range of kernels, kernel source, and its program
    Explain(ExplainOptions),
    /// Say what changed from one kernel to another: rows of the matrix, run folders, or images on disk
    Diff(DiffOptions),
    /// Say what is found, what is missing, how to mend it, and which accelerator a real trial says works
    Doctor(DoctorOptions),
    /// Measure how long things take here: first record, one probe, each family, growth with kernels and probes
    ///
    /// Takes about two minutes on 2 cores without KVM, with --whole about fifteen. Nothing else should run meanwhile.
    Bench(BenchOptions),
    /// Run the same again and again, cold and warm, in other orders, under load, with 1 and 2 processors, and report every
    /// record that was not the same
    ///
    /// Exit code 1 when a record was not, 3 when a kernel could not be run to its end.
    Soak(SoakOptions),
    /// Accept what the last run saw as the snapshots (refused when CI is set)
    ///
    /// Refused too are records of another guest than today's or another image than the row's (where that one is in the cache),
    /// and those made with --lsm, --cpus, --bring or less than the usual --deadline or --patience. Images without a row have no snapshots. Exit code 4 when nothing of the selection
    /// can become one.
    Accept(AcceptOptions),
    /// Hold pages of documentation against the records
    Docs {
        /// What to do with them
        #[command(subcommand)]
        verb: DocsVerb,
    },
    /// Write compatibility data as JSON, with its JSON Schema, from the snapshots
    Export(ExportOptions),
    /// Write the static site: a matrix, a page per item and kernel, differences, claims
    Report(ReportOptions),
    /// Join run folders of several machines, compare them, and demand that nothing is missing
    ///
    /// What their runs were to record must be there: each shard, each of their kernels, each probe that they selected. Exit code
    /// 3 when something is not, after the report.
    Merge(MergeOptions),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Run a command so that nothing of it outlives the harness (used by the harness itself)
    #[command(hide = true, name = "guard")]
    Guard {
        /// A folder to remove at the end
        #[arg(long)]
        remove: Option<PathBuf>,
        /// The command
        #[arg(last = true)]
        command: Vec<String>,
    },
}

/// Verbs on kernels.
#[derive(Debug, Subcommand)]
pub enum KernelsVerb {
    /// List the rows: where each kernel comes from and whether it is in the cache
    List {
        /// How to print
        #[arg(long, value_enum, default_value_t = AnswerFormat::Table)]
        format: AnswerFormat,
    },
    /// Build the kernel of a row from its archive of sources, or from a source tree, with the project's fragments
    ///
    /// The image goes into the cache; a build of the same sources, fragments and tools is found there.
    Build {
        /// The row
        kernel: String,
        /// A tree of kernel sources of the row's version; it is read only, nothing is built inside
        #[arg(long, value_name = "DIR")]
        source: Option<PathBuf>,
        /// Compilers at once; as many as there are processors if left out
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
        jobs: Option<u16>,
        /// How to print
        #[arg(long, value_enum, default_value_t = AnswerFormat::Table)]
        format: AnswerFormat,
    },
    /// Fetch kernels into the cache
    ///
    /// Rows that are built from sources and are not built here are left out unless they are named.
    Fetch {
        /// Only these rows
        #[arg(long = "kernel", value_name = "NAME", value_delimiter = ',')]
        kernels: Vec<String>,
        /// How to print
        #[arg(long, value_enum, default_value_t = AnswerFormat::Table)]
        format: AnswerFormat,
    },
}

/// Verbs on documentation.
#[derive(Debug, Subcommand)]
pub enum DocsVerb {
    /// Give every statement and list entry of pages a verdict, with the kernels and probes that show it
    ///
    /// The statements are those of claims/; entries of generated lists are held against the records directly. Exit code 1
    /// when something is contradicted. Boots nothing.
    Check(DocsCheckOptions),
    /// Write a patch that corrects a page's lists and tags and the data behind them, and beside it the evidence
    ///
    /// Touches nothing without a record: what the records do not give, and all prose, is proposed in FILE.md. The page is
    /// edited only as its data give it then; without --yaml everything is proposed.
    Fix(DocsFixOptions),
}

/// Options of `docs fix`.
#[derive(Args, Clone, Debug)]
pub struct DocsFixOptions {
    /// The page; the patch is for the top of its git checkout, or for the folder that it shares with its data
    pub page: PathBuf,
    /// The folder with the data: files whose names end in helpers-functions.yaml, kfuncs.yaml, feature-versions.yaml
    #[arg(long, value_name = "DIR")]
    pub yaml: Option<PathBuf>,
    /// Where the patch goes; the evidence goes to FILE.md
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Options of `docs check`.
#[derive(Args, Clone, Debug)]
pub struct DocsCheckOptions {
    /// The pages, as they are in the documentation's repository
    #[arg(required = true, value_name = "PAGE")]
    pub pages: Vec<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t = DocsFormat::Table)]
    pub format: DocsFormat,
}

/// Which kernels and which probes.
#[derive(Args, Clone, Debug, Default)]
pub struct Selection {
    /// A row of the matrix, or the path of any bzImage or vmlinuz; repeatable, or separated by commas
    #[arg(long = "kernel", value_name = "NAME|PATH", value_delimiter = ',')]
    pub kernels: Vec<String>,
    /// Only probes whose id matches, such as `hooks/*` or `*/file_open`; repeatable
    #[arg(long = "probe", value_name = "GLOB", value_delimiter = ',')]
    pub probes: Vec<String>,
    /// The share of them that is this machine's; set by `run` alone.
    #[arg(skip)]
    pub shard: Option<Shard>,
}

/// What starts machines, and how many at once.
#[derive(Args, Clone, Debug)]
pub struct HostOptions {
    /// Machines at once [default: one more than there are processors]
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,
    /// Who starts the virtual machines
    #[arg(long, value_enum, default_value_t = LauncherKind::VirtmeNg)]
    pub vmm: LauncherKind,
    /// Hardware virtualization or QEMU's translator
    #[arg(long, value_enum, default_value_t = AccelChoice::Auto)]
    pub accel: AccelChoice,
    /// Use no network: what is not in the cache counts as missing
    #[arg(long)]
    pub offline: bool,
}

/// How machines are started.
#[derive(Args, Clone, Debug)]
pub struct MachineOptions {
    /// Where machines come from
    #[command(flatten)]
    pub host: HostOptions,
    /// Boot every machine instead of restoring it from the state that an earlier run has saved
    #[arg(long)]
    pub cold: bool,
    /// Seconds that one probe may take [default: 90]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub deadline: Option<u64>,
    /// How long to wait for a machine to come up and to say something, in percent of the usual: more on a slow host
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub patience: u32,
    /// Value of lsm= on the kernel's command line, instead of the row's
    #[arg(long, value_name = "ORDER")]
    pub lsm: Option<String>,
    /// Virtual processors of each machine; under TCG they take turns in one thread of the host
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub cpus: u32,
    /// Run the probes of each family in another order, the same for the same number
    #[arg(long, value_name = "SEED")]
    pub shuffle: Option<u64>,
    /// Have each probe start from memory that no other has used
    #[arg(long)]
    pub apart: bool,
    /// An archive (cpio, newc) that the guest unpacks besides its own: what `bench` compares with
    #[arg(long, value_name = "ARCHIVE", hide = true)]
    pub bring: Option<PathBuf>,
}

/// Options of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunOptions {
    /// What to run
    #[command(flatten)]
    pub selection: Selection,
    /// How
    #[command(flatten)]
    pub machine: MachineOptions,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Where the raw records go [default: target/conform/runs/TIME]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Only this machine's share of the kernels and probes, such as 2/3: the same for everybody who asks for it. Rows that
    /// are built from sources are left out unless named. `conform merge` joins the run folders
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
    /// Go on with a run that was interrupted [default: the last one]: what it has recorded is kept, with the options it was
    /// started with. Refused when the probes, the guest, a kernel or an option is another one now
    #[arg(long, value_name = "DIR", num_args = 0..=1, conflicts_with = "run_dir")]
    pub resume: Option<Option<PathBuf>>,
    /// Accept whatever differs, after printing it (refused when CI is set)
    #[arg(long)]
    pub accept: bool,
}

/// Options of `bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchOptions {
    /// Also the whole matrix of packaged kernels, cold and warm
    #[arg(long)]
    pub whole: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = AnswerFormat::Table)]
    pub format: AnswerFormat,
}

/// Options of `soak`.
#[derive(Args, Clone, Debug)]
pub struct SoakOptions {
    /// What to run
    #[command(flatten)]
    pub selection: Selection,
    /// How often; eight go through all conditions, 24 through all of them with `--apart` and without
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// What the orders of the probes come from [default: the time, which is printed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Go on with the last soak, as it was begun, until it has this many runs; refused when what they stand on has changed
    #[arg(long, conflicts_with_all = ["seed", "kernels", "probes"])]
    pub resume: bool,
    /// Where machines come from
    #[command(flatten)]
    pub host: HostOptions,
    /// How to print
    #[arg(long, value_enum, default_value_t = AnswerFormat::Table)]
    pub format: AnswerFormat,
}

/// Options of `list`.
#[derive(Args, Clone, Debug)]
pub struct ListOptions {
    /// Only probes whose id matches; repeatable
    #[arg(long = "probe", value_name = "GLOB", value_delimiter = ',')]
    pub probes: Vec<String>,
    /// Only this family
    #[arg(long)]
    pub family: Option<String>,
    /// Instead: per kernel how many hooks there are, attach, fire and deny, from the snapshots
    #[arg(long, conflicts_with_all = ["probes", "family", "unfired", "reasons"])]
    pub coverage: bool,
    /// Instead: per kernel the attachable hooks that did not fire, with the reason each, from the snapshots
    #[arg(long, conflicts_with_all = ["probes", "family", "reasons"])]
    pub unfired: bool,
    /// Instead: helpers and kfuncs that LSM programs may call and the documentation's page does not list
    #[arg(long, conflicts_with_all = ["probes", "family", "reasons", "coverage", "unfired", "unsupported"])]
    pub undocumented: bool,
    /// Instead: helpers and kfuncs that the documentation's page lists and no kernel of the matrix lets them call
    #[arg(long, conflicts_with_all = ["probes", "family", "reasons", "coverage", "unfired"])]
    pub unsupported: bool,
    /// With --coverage, --unfired, --undocumented, --unsupported or --reasons: only these rows of the matrix
    #[arg(long = "kernel", value_name = "NAME", value_delimiter = ',')]
    pub kernels: Vec<String>,
    /// Instead: what kernels said when they refused, with the probes and cases behind it, from the snapshots
    #[arg(long)]
    pub reasons: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = AnswerFormat::Table)]
    pub format: AnswerFormat,
}

/// Options of `show`.
#[derive(Args, Clone, Debug)]
pub struct ShowOptions {
    /// The probe's id, or a case's: `FAMILY/NAME[/VARIANT]`
    pub probe: String,
    /// Only these kernels
    #[arg(long = "kernel", value_name = "NAME|PATH", value_delimiter = ',')]
    pub kernels: Vec<String>,
    /// How
    #[command(flatten)]
    pub machine: MachineOptions,
    /// How to print
    #[arg(long, value_enum, default_value_t = AnswerFormat::Table)]
    pub format: AnswerFormat,
}

/// Options of `explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainOptions {
    /// The probe's id, or a case's: `FAMILY/NAME[/VARIANT]`; or the name of a hook, helper or kfunc
    pub probe: String,
    /// Boot nothing: the program is printed only if an earlier run has kept it
    #[arg(long)]
    pub no_boot: bool,
    /// How the newest kernel of the matrix is booted for its program, if no earlier run has kept that
    #[command(flatten)]
    pub machine: MachineOptions,
    /// How to print
    #[arg(long, value_enum, default_value_t = AnswerFormat::Table)]
    pub format: AnswerFormat,
}

/// Options of `diff`.
#[derive(Args, Clone, Debug)]
pub struct DiffOptions {
    /// A row of the matrix (its snapshots), a run folder or `FOLDER:KERNEL`, or an image, which is booted
    pub before: String,
    /// The same, for what it is held against
    pub after: String,
    /// Only probes whose id matches; repeatable
    #[arg(long = "probe", value_name = "GLOB", value_delimiter = ',')]
    pub probes: Vec<String>,
    /// How images are booted
    #[command(flatten)]
    pub machine: MachineOptions,
    /// How to print
    #[arg(long, value_enum, default_value_t = DiffFormat::Table)]
    pub format: DiffFormat,
}

/// Options of `doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorOptions {
    /// How to print
    #[arg(long, value_enum, default_value_t = AnswerFormat::Table)]
    pub format: AnswerFormat,
}

/// Options of `export`.
#[derive(Args, Clone, Debug)]
pub struct ExportOptions {
    /// The folder; the project's own is compat
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Options of `report`.
#[derive(Args, Clone, Debug)]
pub struct ReportOptions {
    /// The folder; it must be empty, new, or an earlier site
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Options of `accept`.
#[derive(Args, Clone, Debug)]
pub struct AcceptOptions {
    /// Only these kernels and probes
    #[command(flatten)]
    pub selection: Selection,
    /// The run whose records to accept [default: the last one]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// The probes were changed, and not the kernels: where a record is another now, mark the kernels of the snapshot that
    /// did not run as measured before, until they are
    #[arg(long, conflicts_with = "prune")]
    pub revised: bool,
    /// Instead: remove from the snapshots what no probe or kernel of the matrix stands behind any more
    #[arg(long)]
    pub prune: bool,
}

/// Options of `merge`.
#[derive(Args, Clone, Debug)]
pub struct MergeOptions {
    /// The run folders
    #[arg(required = true, value_name = "DIR")]
    pub folders: Vec<PathBuf>,
    /// Kernels of which records must be there, one of each probe, whatever was selected
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub require: Vec<String>,
    /// Where the joined run goes
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}
