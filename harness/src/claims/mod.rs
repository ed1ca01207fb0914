//! What a page of documentation says, statement by statement, and which records decide it: the files of `claims/`.
//!
//! `claims/README.md` documents the files. `parse` reads them and refuses whatever is wrong with file and line;
//! [`mod@condition`] asks one kernel's records; [`mod@evaluate`] makes a truth per kernel of a statement. Where a statement stands
//! on a page, and the verdict on the page, is [`crate::docs`]'s part.

pub mod condition;
pub mod evaluate;
mod parse;

use crate::exit::{self, ExitCode};
use std::path::{Path, PathBuf};

pub use condition::{Condition, Truth};
pub use evaluate::{Evaluated, evaluate};

/// What can go wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum ClaimsError {
    /// A file or the folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file says something that is not allowed.
    #[error("{}:{line}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What, and how to put it right.
        message: String,
    },
}

impl ExitCode for ClaimsError {
    fn exit_code(&self) -> u8 {
        exit::BAD_INPUT
    }
}

/// A list of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum List {
    /// Helper functions.
    Helpers,
    /// Kernel functions.
    Kfuncs,
}

impl List {
    /// The list as one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Helpers => "helpers",
            Self::Kfuncs => "kfuncs",
        }
    }

    /// What its entries are.
    #[must_use]
    pub const fn kind(self) -> crate::facts::Kind {
        match self {
            Self::Helpers => crate::facts::Kind::Helper,
            Self::Kfuncs => crate::facts::Kind::Kfunc,
        }
    }
}

/// Where on a page a statement stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The heading above it.
    pub heading: String,
    /// A few words of it, in their order.
    pub words: Vec<String>,
}

/// How a statement is decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// True of a kernel that meets the condition.
    Holds(Condition),
    /// The version at a feature tag of the page: the first kernel that meets the condition.
    Tag {
        /// The tag's name.
        feature: String,
        /// The version that the claim knows at the tag.
        version: String,
        /// What a kernel with the feature is like.
        exists: Condition,
    },
    /// Nothing is callable that a list leaves out.
    Complete(List),
    /// By nothing, and why.
    Undecided(String),
}

/// A condition under which a statement that is true is not the whole truth.
#[derive(Clone, Debug, PartialEq)]
pub struct Unless {
    /// When.
    pub when: Condition,
    /// The restriction in words.
    pub then: String,
}

/// One statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Its id.
    pub id: String,
    /// What it states, in the project's words.
    pub says: String,
    /// Whether nobody wrote it and readers conclude it.
    pub inferred: bool,
    /// Where it stands.
    pub at: Place,
    /// The kernels of which it speaks, all if none is given.
    pub applies: Option<Condition>,
    /// How it is decided.
    pub decision: Decision,
    /// Its restriction.
    pub unless: Option<Unless>,
    /// Why it is not plainly true.
    pub because: Option<String>,
    /// What would be true instead.
    pub instead: Option<String>,
    /// Places in the kernel's source, `VERSION FILE SYMBOL`.
    pub source: Vec<String>,
}

impl Claim {
    /// Every condition of the claim.
    pub fn conditions(&self) -> impl Iterator<Item = &Condition> {
        let decision = match &self.decision {
            Decision::Holds(condition) | Decision::Tag { exists: condition, .. } => Some(condition),
            Decision::Complete(_) | Decision::Undecided(_) => None,
        };
        let unless = self.unless.as_ref().map(|unless| &unless.when);
        decision.into_iter().chain(self.applies.as_ref()).chain(unless)
    }
}

/// An entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The helper's or kfunc's name.
    pub name: String,
    /// The version at its tag, if it has one, such as `v6.0`.
    pub since: Option<String>,
    /// The version from which on it may not be called any more, if the page says so.
    pub until: Option<String>,
}

/// One file.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// Its name, without the folder.
    pub name: String,
    /// Its statements.
    pub claims: Vec<Claim>,
    /// Its lists.
    pub lists: Vec<(List, Vec<Entry>)>,
}

/// All files, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims {
    /// The files.
    pub files: Vec<File>,
}

impl Claims {
    /// Reads every `*.yaml` of a folder, by name.
    ///
    /// # Errors
    /// [`ClaimsError`], also for an id or an entry that is there twice.
    pub fn load(folder: &Path) -> Result<Self, ClaimsError> {
        let read = |source| ClaimsError::Read { path: folder.to_owned(), source };
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(read)? {
            let path = entry.map_err(read)?.path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                paths.push(path);
            }
        }
        // By stem, so that page.yaml comes before page-2026-07.yaml.
        paths.sort_by(|one, other| one.file_stem().cmp(&other.file_stem()));
        let mut texts = Vec::new();
        for path in paths {
            let text = crate::text::read(&path, crate::text::WRITTEN)
                .map_err(|source| ClaimsError::Read { path: path.clone(), source })?;
            texts.push((path, text));
        }
        parse::files(&texts)
    }

    /// Every statement.
    pub fn statements(&self) -> impl Iterator<Item = &Claim> {
        self.files.iter().flat_map(|file| &file.claims)
    }

    /// Every entry of a list.
    pub fn entries(&self, list: List) -> impl Iterator<Item = &Entry> {
        let lists = self.files.iter().flat_map(|file| &file.lists);
        lists.filter(move |(of, _)| *of == list).flat_map(|(_, entries)| entries)
    }
}

#[cfg(test)]
mod tests;
