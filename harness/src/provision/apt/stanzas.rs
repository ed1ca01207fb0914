//! What `apt-cache show` prints of packages.

use crate::matrix::{PackageName, series_of_package};

/// A package that the lists know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The name, taken apart.
    pub package: PackageName,
    /// The version.
    pub version: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// SHA-256 of the file as the signed lists have it.
    pub sha256: String,
}

/// Reads the stanzas of `apt-cache show`; those that are no kernel packages or lack a field are left out.
#[must_use]
pub fn parse_stanzas(text: &str) -> Vec<Candidate> {
    text.split("\n\n")
        .filter_map(|stanza| {
            let field = |name: &str| {
                stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
            };
            Some(Candidate {
                package: series_of_package(field("Package")?)?,
                version: field("Version")?.to_owned(),
                size: field("Size")?.parse().ok()?,
                sha256: field("SHA256")?.to_ascii_lowercase(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_are_read_and_others_left_out() {
        let text = "Package: linux-image-6.12.1+deb13-cloud-amd64\nVersion: 6.12.1-1\nDescription: a\n Size: 1\nSize: 42\nSHA256: AB\n\n\
                    Package: linux-image-cloud-amd64\nVersion: 6.12.1-1\nSize: 1\nSHA256: cd\n";
        let found = parse_stanzas(text);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].size, found[0].sha256.as_str()), (42, "ab"));
    }
}
