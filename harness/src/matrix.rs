//! `matrix.yaml`: which kernels there are, where each comes from, and under which `lsm=` order it boots.
//!
//! Whatever is wrong is refused with file, line, column and, where a name was probably mistyped, the name meant.

mod parse;
mod values;

use crate::exit::{self, ExitCode};
use crate::version::Version;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

pub use values::{PackageName, closest, series_of_package};

/// What can go wrong with `matrix.yaml`.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file says something that is not allowed.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What, and how to put it right.
        message: String,
    },
    /// A kernel was asked for that no row names.
    #[error("no kernel {name:?} in the matrix{}; it has {}", did_you_mean(suggestion.as_deref()), known.join(", "))]
    UnknownKernel {
        /// The name asked for.
        name: String,
        /// The name probably meant.
        suggestion: Option<String>,
        /// All names.
        known: Vec<String>,
    },
}

impl ExitCode for MatrixError {
    fn exit_code(&self) -> u8 {
        exit::BAD_INPUT
    }
}

/// The words that introduce a suggestion, or nothing.
fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!(", did you mean {name:?}?")).unwrap_or_default()
}

/// All rows, in the file's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// The rows; their names differ.
    pub rows: Vec<Row>,
}

/// One kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The row's name: letters, digits, `.`, `_`, `+` and `-`.
    pub name: String,
    /// Where the image comes from.
    pub source: Source,
    /// The SHA-256 of the image, where somebody has said it.
    pub sha256: Option<String>,
    /// The value of `lsm=` on the kernel's command line; `bpf` is in it.
    pub lsm: String,
    /// What the kernel's configuration has to say: `CONFIG_*` name to `y`, `m`, `n` or a value.
    pub config: BTreeMap<String, String>,
}

impl Row {
    /// The series of its source, such as `6.1`, where the row is named after another one: `6.2` or `6.2-word`. An image that
    /// is there says its own when it is up.
    #[must_use]
    pub fn other_series(&self) -> Option<String> {
        let named = Version::of_row(&self.name)?;
        let series = match &self.source {
            Source::Debian(debian) => debian.package.series.clone(),
            Source::Upstream(version) => minor(version.strip_prefix('v').unwrap_or(version)),
            Source::Archive(archive) => archive.series(),
            Source::Path(_) => return None,
        };
        (Version::parse(&series) != Some(named)).then_some(series)
    }
}

/// The minor version of a release: `5.7` of `5.7.14`; a candidate's (`6.15-rc3`) is the one that it is for.
fn minor(release: &str) -> String {
    release.split(['.', '-']).take(2).collect::<Vec<_>>().join(".")
}

/// Where a kernel image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A package of Debian's archive.
    Debian(Debian),
    /// A mainline version such as `v6.14`, fetched through virtme-ng.
    Upstream(String),
    /// Kernel sources to be built.
    Archive(Archive),
    /// An image that is already there.
    Path(PathBuf),
}

/// A Debian package, pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debian {
    /// The suites to look in, in this order.
    pub suites: Vec<String>,
    /// The package's name, which holds the series.
    pub package: PackageName,
    /// The package's version.
    pub version: String,
}

/// Kernel sources to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Where they are.
    pub origin: Origin,
    /// Configuration fragments, absolute or as resolved against the matrix's folder.
    pub fragments: Vec<PathBuf>,
    /// The release that the row's records are of, where that is not the archive's: another tree was built.
    pub measured: Option<String>,
}

/// Where kernel sources are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An archive.
    Tarball {
        /// Where it is.
        url: String,
        /// Its SHA-256, lower-case hexadecimal.
        sha256: String,
    },
    /// Debian's package of sources, with Debian's patches applied: what its binary packages are built from.
    Debian(Debian),
}

impl Archive {
    /// The release that the row's records are of, such as `5.15.100`.
    #[must_use]
    pub fn measured(&self) -> &str {
        self.measured.as_deref().unwrap_or_else(|| self.release())
    }

    /// The release that the archive's name or the package's version gives, such as `5.7.14`; the whole name when it
    /// gives none.
    #[must_use]
    pub fn release(&self) -> &str {
        match &self.origin {
            Origin::Tarball { url, .. } => {
                let name = url.rsplit('/').next().unwrap_or_default();
                let bare = name.strip_prefix("linux-").unwrap_or(name);
                bare.split_once(".tar").map_or(bare, |(release, _)| release)
            }
            Origin::Debian(debian) => debian.upstream(),
        }
    }

    /// The minor version of that release, such as `5.7`.
    #[must_use]
    pub fn series(&self) -> String {
        minor(self.release())
    }
}

impl Debian {
    /// The kernel's release in the version: without Debian's epoch, revision, and what is behind a `~`.
    #[must_use]
    pub fn upstream(&self) -> &str {
        let version = self.version.split_once(':').map_or(self.version.as_str(), |(_epoch, rest)| rest);
        let upstream = version.rsplit_once('-').map_or(version, |(upstream, _revision)| upstream);
        upstream.split_once('~').map_or(upstream, |(release, _)| release)
    }
}

impl fmt::Display for Origin {
    /// The address, or package and version.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tarball { url, .. } => f.write_str(url),
            Self::Debian(debian) => write!(f, "{} {}", debian.package.full, debian.version),
        }
    }
}

impl Matrix {
    /// Reads the file `path`.
    ///
    /// # Errors
    /// [`MatrixError::Read`] or [`MatrixError::Invalid`].
    pub fn load(path: &Path) -> Result<Self, MatrixError> {
        let text = crate::text::read(path, crate::text::WRITTEN)
            .map_err(|source| MatrixError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Reads `text` as if it were in the file `path`: messages name it, relative paths start from its folder.
    ///
    /// # Errors
    /// [`MatrixError::Invalid`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, MatrixError> {
        parse::matrix(text, path)
    }

    /// The row called `name`.
    ///
    /// # Errors
    /// [`MatrixError::UnknownKernel`], with the nearest name.
    pub fn row(&self, name: &str) -> Result<&Row, MatrixError> {
        self.rows.iter().find(|row| row.name == name).ok_or_else(|| {
            let known: Vec<_> = self.rows.iter().map(|row| row.name.clone()).collect();
            let suggestion = closest(name, known.iter().map(String::as_str)).map(str::to_owned);
            MatrixError::UnknownKernel { name: name.to_owned(), suggestion, known }
        })
    }
}

#[cfg(test)]
mod tests;
