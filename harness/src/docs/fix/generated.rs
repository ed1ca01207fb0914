//! What the documentation's generators make of the data: the entries of the lists of LSM programs, with their versions.
//!
//! A list is edited only where they write the same, so that generating it again keeps what was corrected and says nothing
//! else (tools/helper-ref-gen and tools/kfunc-gen in the documentation's repository).

use crate::claims::List;
use crate::docs::page::PageEntry;
use crate::facts::Version;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The entries of a list by name.
pub(super) type Generated = BTreeMap<String, Tags>;

/// A version of the kernel and the commit that an entry's tag links to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Release {
    /// Without `v`.
    pub(super) version: String,
    pub(super) commit: String,
}

impl Release {
    /// A version whose commit no record tells: its release's tag stands in, which names a commit too.
    pub(super) fn of(version: Version) -> Self {
        Self { version: version.to_string(), commit: format!("v{version}") }
    }

    /// As the generators write it. A number that is none, or a commit of more than a word, is written by nobody.
    fn text(&self) -> Option<String> {
        Version::parse(&self.version)?;
        let is_word = self.commit.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
        is_word.then(|| {
            format!(
                "[:octicons-tag-24: v{}](https://github.com/torvalds/linux/commit/{})",
                self.version, self.commit
            )
        })
    }
}

/// The versions of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tags {
    pub(super) since: Option<Release>,
    pub(super) until: Option<Release>,
}

impl Tags {
    /// What the list's generator writes behind an entry's link.
    pub(super) fn text(&self, list: List) -> Option<String> {
        let release = |release: &Option<Release>| match release {
            Some(release) => Some(format!(" {}", release.text()?)),
            None => Some(String::new()),
        };
        let (since, until) = (release(&self.since)?, release(&self.until)?);
        let dash = list == List::Kfuncs && (self.since.is_some() || self.until.is_some());
        Some(format!("{since}{}{until}", if dash { " - " } else { "" }))
    }

    /// The entry of a page with these versions.
    pub(super) fn entry(&self, name: &str) -> PageEntry {
        let version = |release: &Option<Release>| release.as_ref().map(|it| format!("v{}", it.version));
        PageEntry { since: version(&self.since), until: version(&self.until), ..PageEntry::bare(name) }
    }
}
