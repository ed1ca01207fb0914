//! Kernels from sources: a configuration out of the project's fragments, a build outside of the tree, and an image in
//! the cache with everything that is known of how it came about.

mod download;
pub mod fragments;
mod traps;
pub mod tree;

pub use download::unpack;

use super::entry::{BuildFacts, Entry, EntryError, Meta};
use super::modules;
use super::tools::{self, ToolError};
use crate::cache::{Cache, CacheError, TempDir};
use crate::child::{ChildError, Command};
use crate::exit::{self, ExitCode, with_causes};
use crate::matrix::{Archive, Origin, Row};
use crate::progress::{Progress, Task};
use fragments::{FragmentError, Wishes};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use traps::Remedy;
use tree::{Tree, TreeError};

/// How long another run's build of the same kernel is waited for, and how long one may take.
const BUILD_DEADLINE: Duration = Duration::from_secs(3 * 3600);
/// How long making the configuration may take; the build's own tools are compiled for it.
const CONFIG_DEADLINE: Duration = Duration::from_secs(600);

/// What can go wrong with a build.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The row has no sources.
    #[error(
        "kernel {name} is not built from sources: its row has no `archive`; `conform kernels fetch` gets it"
    )]
    NotFromSources {
        /// The row.
        name: String,
    },
    /// The tree is of another version.
    #[error(
        "kernel {name} is to be built from {wanted}, and the tree is {found}; give the sources of {wanted}"
    )]
    OtherSeries {
        /// The row.
        name: String,
        /// What the row's archive is.
        wanted: String,
        /// What the tree is.
        found: String,
    },
    /// The configuration lacks what no build may lack.
    #[error(
        "kernel {name}: the configuration came out without {}, which the row promises; correct the fragments", missing.join(", ")
    )]
    Promises {
        /// The row.
        name: String,
        /// Option and value that it has.
        missing: Vec<String>,
    },
    /// The archive cannot be had.
    #[error(transparent)]
    Download(#[from] download::DownloadError),
    /// The fragments.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
    /// The tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A tool is missing.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// `make` failed.
    #[error("cannot build kernel {name}")]
    Make {
        /// The row.
        name: String,
        /// What it said.
        #[source]
        source: Box<ChildError>,
    },
    /// A file of the build's cannot be read or written.
    #[error("cannot {what} {}", path.display())]
    File {
        /// `read`, `write`, ..
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The image cannot be kept.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl ExitCode for BuildError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::NotFromSources { .. }
            | Self::OtherSeries { .. }
            | Self::Promises { .. }
            | Self::Fragment(_)
            | Self::Tree(_) => exit::BAD_INPUT,
            Self::Tool(tool) => tool.exit_code(),
            Self::Download(_) | Self::Make { .. } | Self::File { .. } | Self::Entry(_) | Self::Cache(_) => {
                exit::INFRASTRUCTURE
            }
        }
    }
}

/// What is to be built.
pub struct Order<'a> {
    /// The row; its source has to be an archive.
    pub row: &'a Row,
    /// A tree to build from instead of the archive.
    pub source: Option<&'a Path>,
    /// Compilers at once.
    pub jobs: usize,
    /// This program, which guards the compilers: none of them outlives it, whatever ends it.
    pub program: &'a Path,
    /// Where the image goes.
    pub cache: &'a Cache,
    /// Where it is said what goes on.
    pub progress: &'a Progress,
}

/// What came of it.
#[derive(Debug)]
pub struct Built {
    /// The image with its description.
    pub entry: Entry,
    /// Whether it was built now; else it was in the cache.
    pub fresh: bool,
}

/// Under which key the cache keeps a row's build.
pub(super) fn key(row: &Row) -> String {
    format!("built-{}", row.name)
}

/// How an entry begins to say that it was built from a tree that somebody gave, and not from the row's archive.
const TREE: &str = "a source tree, digest ";

/// Whether an entry still is what the row asks for: its fragments, and its archive, unless a tree was given instead.
pub(super) fn is_current(entry: &Entry, archive: &Archive) -> Result<bool, FragmentError> {
    let wishes = Wishes::read(&archive.fragments)?;
    Ok(entry.meta.built.as_ref().is_some_and(|facts| {
        let of_row = facts.origin == origin(archive) || facts.origin.starts_with(TREE);
        of_row && facts.fragments == wishes.digest()
    }))
}

/// What an entry says of its sources when they are the row's archive.
fn origin(archive: &Archive) -> String {
    match &archive.origin {
        Origin::Tarball { url, sha256 } => format!("{url} sha256:{sha256}"),
        package @ Origin::Debian(_) => format!("Debian's {package}"),
    }
}

/// The sentence that says that another release was built than the row's records are of.
pub(super) fn substituted(entry: &Entry, archive: &Archive) -> Option<String> {
    let built = &entry.meta.built.as_ref()?.release;
    (!is_release(built, archive.measured()))
        .then(|| format!("built from sources of {built}, where the snapshots are of {}", archive.measured()))
}

/// Whether a tree of release `found` is of release `wanted`, which may leave out a last `.0`.
fn is_release(found: &str, wanted: &str) -> bool {
    found == wanted || found == format!("{wanted}.0")
}

impl Order<'_> {
    /// Builds the kernel, unless the cache has one of the same sources, fragments and tools.
    ///
    /// # Errors
    /// [`BuildError`]; what `make` wrote is in the cache's `tools` folder.
    pub fn build(&self, archive: &Archive) -> Result<Built, BuildError> {
        let label = format!("build {}", self.row.name);
        let wishes = Wishes::read(&archive.fragments)?;
        let tools = self.tools()?;
        let _lock = self.cache.lock(&format!("kernel-{}", key(self.row)), self.progress, BUILD_DEADLINE)?;
        let unpacked;
        let (tree, origin) = match self.source {
            Some(path) => {
                let tree = Tree::open(path)?;
                let origin = format!("{TREE}{}", tree.digest()?);
                (tree, origin)
            }
            None => {
                let origin = origin(archive);
                if let Some(entry) = self.kept(&origin, &wishes, &tools) {
                    return Ok(Built { entry, fresh: false });
                }
                unpacked = download::sources(archive, self.cache, self.progress, &label)?;
                (Tree::open(unpacked.path())?, origin)
            }
        };
        self.check_series(archive, &tree)?;
        if self.source.is_some()
            && let Some(entry) = self.kept(&origin, &wishes, &tools)
        {
            return Ok(Built { entry, fresh: false });
        }
        let entry = self.make(&tree, origin, &wishes, tools, &label)?;
        Ok(Built { entry, fresh: true })
    }

    /// The cache's image, if it is whole and everything that went into it is the same now.
    fn kept(&self, origin: &str, wishes: &Wishes, tools: &[String]) -> Option<Entry> {
        let entry = match Entry::load(self.cache, &key(self.row)) {
            Ok(Some(entry)) => entry,
            Ok(None) => return None,
            Err(error) => {
                let text =
                    format!("what is in the cache is damaged, and built anew: {}", with_causes(&error));
                self.progress.say(&format!("build {}", self.row.name), &text);
                return None;
            }
        };
        let same = entry.meta.built.as_ref().is_some_and(|facts| {
            facts.origin == origin && facts.fragments == wishes.digest() && facts.tools == tools
        });
        same.then_some(entry)
    }

    /// A tree of another minor version would be recorded under the wrong name.
    fn check_series(&self, archive: &Archive, tree: &Tree) -> Result<(), BuildError> {
        let (wanted, series) = (archive.release(), archive.series());
        let (major, minor) = tree.release.series();
        if series != format!("{major}.{minor}") {
            let (name, found) = (self.row.name.clone(), tree.release.to_string());
            return Err(BuildError::OtherSeries { name, wanted: format!("linux {series}"), found });
        }
        let found = tree.release.to_string();
        if !is_release(&found, wanted) {
            let measured = archive.measured();
            let text = format!(
                "the tree is {found}, where the row's archive is {wanted}; the records in the snapshots are of {measured}"
            );
            self.progress.say(&format!("build {}", self.row.name), &text);
        }
        Ok(())
    }

    /// The compiler and pahole, as they call themselves, installed with everything else that a build needs.
    fn tools(&self) -> Result<Vec<String>, BuildError> {
        let found = tools::ensure_build_tools(self.cache, self.progress)?;
        Ok(found.into_iter().map(|tool| tool.version).collect())
    }

    fn make(
        &self,
        tree: &Tree,
        origin: String,
        wishes: &Wishes,
        tools: Vec<String>,
        label: &str,
    ) -> Result<Entry, BuildError> {
        let started = Instant::now();
        let out = self.cache.temp_dir()?;
        let remedies = traps::remedies(tree.release.series(), out.path())
            .map_err(|source| BuildError::File { what: "write into", path: out.path().to_owned(), source })?;
        for Remedy { variable, reason } in &remedies {
            self.progress.say(label, &format!("{variable}: {reason}"));
        }
        let make = Make { order: self, tree, out: out.path(), remedies: &remedies };
        let task = self.progress.task(label, &format!("configuring {}", tree.release));
        let config = make.configure(wishes)?;
        let not_taken = wishes.not_taken(&config);
        self.say_not_taken(label, wishes, &not_taken);
        self.keep_promises(&config)?;
        make.compile(&task)?;
        let modules = make.install_modules()?;
        let seconds = started.elapsed().as_secs();
        let facts = BuildFacts {
            release: tree.release.to_string(),
            origin,
            fragments: wishes.digest(),
            tools,
            variables: remedies
                .into_iter()
                .map(|remedy| remedy.variable)
                .filter(|variable| is_portable(variable))
                .collect(),
            not_taken,
            seconds,
        };
        let entry = self.publish(&out, modules.as_deref(), facts)?;
        task.done(&format!("ready: {} in {} min {} s", tree.release, seconds / 60, seconds % 60));
        Ok(entry)
    }

    fn say_not_taken(&self, label: &str, wishes: &Wishes, not_taken: &[String]) {
        let asked = wishes.len();
        let text = match not_taken {
            [] => format!("all {asked} options were taken"),
            some => format!("{} of {asked} options were not taken: {}", some.len(), some.join(" ")),
        };
        self.progress.say(label, &text);
    }

    /// A build takes long: what the row promises is looked at before.
    fn keep_promises(&self, config: &str) -> Result<(), BuildError> {
        let has = super::entry::parse_config(config);
        let broken =
            |(name, promised): &(&String, &String)| has.get(*name).map_or("n", String::as_str) != *promised;
        let missing: Vec<String> =
            self.row.config.iter().filter(broken).map(|(name, value)| format!("{name}={value}")).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(BuildError::Promises { name: self.row.name.clone(), missing })
    }

    fn publish(
        &self,
        out: &TempDir,
        installed: Option<&Path>,
        facts: BuildFacts,
    ) -> Result<Entry, BuildError> {
        let kept = self.cache.temp_dir()?;
        for (from, to) in [("arch/x86/boot/bzImage", "vmlinuz"), (".config", "config")] {
            let path = out.path().join(from);
            std::fs::copy(&path, kept.path().join(to)).map_err(|source| BuildError::File {
                what: "keep",
                path,
                source,
            })?;
        }
        if let Some(path) = installed {
            modules::pack_built(path, kept.path()).map_err(|source| BuildError::File {
                what: "keep the modules of",
                path: path.to_owned(),
                source,
            })?;
        }
        let config_origin = "the build's own".to_owned();
        let meta = Meta { config_origin, built: Some(facts), ..Meta::default() };
        Ok(Entry::publish(self.cache, &key(self.row), kept, meta)?)
    }
}

/// Whether a variable says the same on another machine: paths into this one do not.
fn is_portable(variable: &str) -> bool {
    !variable.starts_with("PAHOLE=")
}

/// `make` for one tree and one folder of its products.
struct Make<'a> {
    order: &'a Order<'a>,
    tree: &'a Tree,
    out: &'a Path,
    remedies: &'a [Remedy],
}

impl Make<'_> {
    fn command(&self, what: &str, deadline: Duration) -> Command {
        let row = &self.order.row.name;
        Command::guarded(self.order.program, "make", format!("{what} kernel {row}"), deadline)
            .arg("-C")
            .arg(&self.tree.path)
            .arg(format!("O={}", self.out.display()))
            .arg(format!("-j{}", self.order.jobs))
            .args(self.remedies.iter().map(|remedy| &remedy.variable))
            .env("LC_ALL", "C.UTF-8")
            .env_remove("ARCH")
            .env_remove("MAKEFLAGS")
            .log(self.log(what))
    }

    fn log(&self, what: &str) -> PathBuf {
        self.order.cache.root().join("tools").join(format!("{what}-{}.log", self.order.row.name))
    }

    fn failed(&self, error: ChildError) -> BuildError {
        BuildError::Make { name: self.order.row.name.clone(), source: Box::new(error) }
    }

    /// Makes the configuration: everything off that the wishes do not ask for and nothing else needs.
    fn configure(&self, wishes: &Wishes) -> Result<String, BuildError> {
        let path = self.out.join("wishes.config");
        std::fs::write(&path, wishes.text()).map_err(|source| BuildError::File {
            what: "write",
            path: path.clone(),
            source,
        })?;
        self.command("configuring", CONFIG_DEADLINE)
            .arg("allnoconfig")
            .env("KCONFIG_ALLCONFIG", &path)
            .run()
            .map_err(|error| self.failed(error))?;
        let path = self.out.join(".config");
        std::fs::read_to_string(&path).map_err(|source| BuildError::File { what: "read", path, source })
    }

    fn compile(&self, task: &Task) -> Result<(), BuildError> {
        let command = self.command("building", BUILD_DEADLINE).args(["bzImage", "modules"]);
        let running = command.spawn().map_err(|error| self.failed(error))?;
        let mut lines = Lines::of(&self.log("building"));
        let end = running.wait_with(|| {
            if let Some((count, latest)) = lines.look() {
                task.message(&format!("compiling {}: {count} steps, {latest}", self.tree.release));
            }
        });
        end.map(drop).map_err(|error| self.failed(error))
    }

    /// Installs the modules, without their DWARF, into a folder of the build's own; `None` if nothing was built as one.
    fn install_modules(&self) -> Result<Option<PathBuf>, BuildError> {
        let path = self.out.join("installed");
        self.command("installing", CONFIG_DEADLINE)
            .arg("modules_install")
            .arg(format!("INSTALL_MOD_PATH={}", path.display()))
            .arg("INSTALL_MOD_STRIP=1")
            .arg("DEPMOD=true")
            .run()
            .map_err(|error| self.failed(error))?;
        Ok(path.exists().then_some(path))
    }
}

/// The lines of a growing log, at most one look per few seconds.
struct Lines {
    reader: Option<BufReader<std::fs::File>>,
    count: usize,
    looked: Instant,
}

impl Lines {
    const INTERVAL: Duration = Duration::from_secs(10);

    fn of(path: &Path) -> Self {
        let reader = std::fs::File::open(path).ok().map(BufReader::new);
        Self { reader, count: 0, looked: Instant::now() }
    }

    /// How many lines there are and the latest of them, if it is time to say so again.
    fn look(&mut self) -> Option<(usize, String)> {
        if self.looked.elapsed() < Self::INTERVAL {
            return None;
        }
        self.looked = Instant::now();
        let reader = self.reader.as_mut()?;
        let mut latest = String::new();
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            self.count += 1;
            latest = String::from_utf8_lossy(&line).trim().to_owned();
            line.clear();
        }
        (!latest.is_empty()).then_some((self.count, latest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is damaged is no reason not to build, and is said.
    #[test]
    fn a_build_that_was_damaged_in_the_cache_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let text = format!(
            "kernels: [{{name: '5.9', archive: {{url: 'https://h/linux-5.9.1.tar.xz', sha256: {}}}, lsm: bpf}}]",
            "0".repeat(64)
        );
        let matrix = crate::matrix::Matrix::parse(&text, Path::new("matrix.yaml")).unwrap();
        let (progress, lines) = Progress::collected();
        let (row, program) = (&matrix.rows[0], Path::new("conform"));
        let order = Order { row, source: None, jobs: 1, program, cache: &cache, progress: &progress };
        let (origin, wishes) = ("here", Wishes::default());
        let temp = cache.temp_dir().unwrap();
        std::fs::write(temp.path().join("vmlinuz"), crate::provision::image::fake_image(64)).unwrap();
        let facts = BuildFacts { origin: origin.into(), fragments: wishes.digest(), ..BuildFacts::default() };
        let meta = Meta { built: Some(facts), ..Meta::default() };
        let entry = Entry::publish(&cache, &key(row), temp, meta).unwrap();
        assert_eq!(order.kept(origin, &wishes, &[]), Some(entry.clone()));
        std::fs::write(entry.image(), "no image").unwrap();
        assert_eq!(order.kept(origin, &wishes, &[]), None);
        assert!(lines.lock().unwrap().join("").contains("is damaged, and built anew"));
    }
}
