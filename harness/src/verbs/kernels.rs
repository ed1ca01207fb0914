//! `conform kernels list|fetch|build`: where the matrix's kernels come from, and whether they are here.

use super::environment::images;
use super::project::Project;
use super::run::set_aside;
use super::subject::{Subject, subjects};
use crate::cache::Cache;
use crate::cli::{AnswerFormat, KernelsVerb};
use crate::exit::{self, Failure};
use crate::interrupt;
use crate::matrix::{Row, Source};
use crate::progress::Progress;
use crate::provision::build::{BuildError, Order};
use crate::provision::kernels::{Status, status, unbuilt};
use comfy_table::{Table, presets};
use serde::Serialize;
use std::path::Path;

/// Version of the JSON that `kernels list` and `kernels fetch` print.
const SCHEMA: u32 = 1;

/// The JSON document.
#[derive(Serialize)]
struct Listing {
    /// [`SCHEMA`].
    schema: u32,
    /// The rows, in the matrix's order.
    kernels: Vec<RowReport>,
}

/// One row.
#[derive(Serialize)]
struct RowReport {
    /// The row's name.
    name: String,
    /// `debian`, `upstream`, `archive` or `path`.
    source: &'static str,
    /// What exactly: package and version (of an image or of sources), a mainline version, an address, a path.
    origin: String,
    /// Whether the image is a package that can be fetched.
    packaged: bool,
    /// Value of `lsm=`.
    lsm: String,
    /// How its image stands: an object whose `state` is `cached`, `local`, `absent`, `damaged` or `unavailable`.
    status: Status,
}

/// Lists or fetches.
pub(super) fn kernels(project: &Project, verb: &KernelsVerb, progress: &Progress) -> Result<u8, Failure> {
    let matrix = project.matrix()?;
    let cache = Cache::from_env()?;
    let (rows, format, code) = match verb {
        KernelsVerb::List { format } => (matrix.rows, *format, exit::OK),
        KernelsVerb::Build { kernel, source, jobs, format } => {
            interrupt::say_in_parting(
                "no kernel is in the cache that is not said to be; building again begins anew",
            );
            let row = build(project, kernel, source.as_deref(), *jobs, &cache, progress)?;
            (vec![row], *format, exit::OK)
        }
        KernelsVerb::Fetch { kernels, format } => {
            interrupt::say_in_parting(
                "the cache has what is said to be ready; fetching again gets the others",
            );
            let subjects = subjects(&matrix, kernels)?;
            let rows = subjects.iter().filter_map(|subject| match subject {
                Subject::Row(row) => Some(Row::clone(row)),
                Subject::Image { .. } => None,
            });
            let rows = rows.collect();
            (rows, *format, fetch(subjects, !kernels.is_empty(), &cache, progress))
        }
    };
    let kernels: Vec<RowReport> = rows.iter().map(|row| describe(row, &cache)).collect();
    match format {
        AnswerFormat::Table => super::print(&table(&kernels)),
        AnswerFormat::Json => {
            let text = serde_json::to_string_pretty(&Listing { schema: SCHEMA, kernels });
            super::print(&text.map_err(|error| Failure::new(exit::INFRASTRUCTURE, error))?);
        }
    }
    Ok(code)
}

/// Fetches what is to be fetched, and gives the exit code. Rows that are built from sources are left out, as a run leaves
/// them out, unless they are named.
fn fetch(mut subjects: Vec<Subject>, is_named: bool, cache: &Cache, progress: &Progress) -> u8 {
    if !is_named {
        for (kernel, why) in set_aside(&mut subjects, |row| unbuilt(row, cache)) {
            progress.say(&kernel, &format!("not fetched: {why}"));
        }
    }
    let mut code = exit::OK;
    for (subject, image) in subjects.iter().zip(images(&subjects, cache, progress, false)) {
        if let Err(failure) = image {
            progress.say(subject.name(), &failure.to_string());
            code = gravest(code, failure.code);
        }
    }
    code
}

/// Of two exit codes the one that says more of what is to be done: what no second try mends, then what takes a privilege.
fn gravest(one: u8, other: u8) -> u8 {
    let rank = |code| match code {
        exit::OK => 0,
        exit::INFRASTRUCTURE => 1,
        exit::NEEDS_PRIVILEGE => 2,
        _ => 3,
    };
    if rank(other) > rank(one) { other } else { one }
}

/// Builds one row's kernel and gives the row.
fn build(
    project: &Project,
    kernel: &str,
    source: Option<&Path>,
    jobs: Option<u16>,
    cache: &Cache,
    progress: &Progress,
) -> Result<Row, Failure> {
    let row = match subjects(&project.matrix()?, &[kernel.to_owned()])?.pop() {
        Some(Subject::Row(row)) => *row,
        _ => return Err(BuildError::NotFromSources { name: kernel.to_owned() }.into()),
    };
    let Source::Archive(archive) = &row.source else {
        return Err(BuildError::NotFromSources { name: row.name }.into());
    };
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let jobs = jobs.map_or(processors, usize::from);
    let program = project.program.as_path();
    let built = Order { row: &row, source, jobs, program, cache, progress }.build(archive)?;
    if !built.fresh {
        progress.say(&format!("build {}", row.name), "the cache has it: same sources, fragments and tools");
    }
    Ok(row)
}

fn describe(row: &Row, cache: &Cache) -> RowReport {
    let (source, origin) = match &row.source {
        Source::Debian(debian) => ("debian", format!("{} {}", debian.package.full, debian.version)),
        Source::Upstream(version) => ("upstream", version.clone()),
        Source::Archive(archive) => ("archive", archive.origin.to_string()),
        Source::Path(path) => ("path", path.display().to_string()),
    };
    RowReport {
        name: row.name.clone(),
        source,
        origin,
        packaged: matches!(row.source, Source::Debian(_)),
        lsm: row.lsm.clone(),
        status: status(row, cache),
    }
}

fn table(kernels: &[RowReport]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["kernel", "state", "from"]);
    for kernel in kernels {
        let (state, more) = match &kernel.status {
            Status::Cached { facts, .. } => ("cached", facts.substituted.clone()),
            Status::Local { .. } => ("local", None),
            Status::Absent { .. } => ("absent", None),
            Status::Damaged { why } => ("damaged", Some(why.clone())),
            Status::Refused { why } => ("refused", Some(why.clone())),
            Status::Unavailable { why } => ("unavailable", Some(why.clone())),
        };
        let origin = more.map_or_else(|| kernel.origin.clone(), |more| format!("{}\n{more}", kernel.origin));
        table.add_row([kernel.name.clone(), state.to_owned(), origin]);
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Matrix;

    /// A row that is not built, and one whose image is none; neither asks a network.
    const ROWS: &str = "kernels:\n\
        - {name: '5.9', lsm: bpf, archive: {url: 'https://h/linux-5.9.1.tar.xz', sha256: SUM}}\n\
        - {name: mine, lsm: bpf, path: /no/such/image}\n";

    #[test]
    fn rows_that_are_not_built_are_left_out_unless_they_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let matrix = Matrix::parse(&ROWS.replace("SUM", &"0".repeat(64)), Path::new("matrix.yaml")).unwrap();
        let fetched = |names: &[&str], is_named: bool| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            let (progress, lines) = Progress::collected();
            let code = fetch(subjects(&matrix, &names).unwrap(), is_named, &cache, &progress);
            (code, lines.lock().unwrap().join("\n"))
        };
        let (code, said) = fetched(&["5.9"], false);
        assert_eq!(code, exit::OK, "{said}");
        assert!(said.contains("not fetched: kernel 5.9 is not built here"), "{said}");
        assert_eq!(fetched(&["5.9"], true).0, exit::INFRASTRUCTURE);
        // Whatever comes last.
        assert_eq!(fetched(&["mine", "5.9"], true).0, exit::BAD_INPUT);
        assert_eq!(fetched(&["5.9", "mine"], true).0, exit::BAD_INPUT);
    }
}
