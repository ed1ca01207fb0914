//! Kernel versions as far as ranges need them: the minor series, their order, and which is next to which.

use std::fmt;

/// The last minor of the major versions that are finished (the kernel's release tags).
const LAST_MINORS: &[(u16, u16)] = &[(3, 19), (4, 20), (5, 19), (6, 19)];

/// A series such as 6.12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    major: u16,
    minor: u16,
}

impl Version {
    /// Reads `6.12`, `v6.12` and `6.12.117`; nothing else, so that an image called `bzImage-6.1` is no version.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix('v').unwrap_or(text).split('.');
        let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let rest_is_numbers = parts.all(|part| part.parse::<u32>().is_ok());
        rest_is_numbers.then_some(Self { major, minor })
    }

    /// The version of which the row `name` is a further build, such as 6.1 of `6.1-fragments`: a version and a word. None
    /// for a version itself, and for a candidate such as `6.12-rc1`, which is of other sources.
    #[must_use]
    pub fn of_flavour(name: &str) -> Option<Self> {
        let (version, word) = name.split_once('-')?;
        let is_word = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphabetic());
        is_word.then(|| Self::parse(version)).flatten()
    }

    /// The version that the row `name` is a build of, by its plain name or as a flavour.
    #[must_use]
    pub fn of_row(name: &str) -> Option<Self> {
        Self::parse(name).or_else(|| Self::of_flavour(name))
    }

    /// Whether `self` is the minor version directly after `other`.
    #[must_use]
    pub fn follows(self, other: Self) -> bool {
        let last = LAST_MINORS.iter().find(|(major, _)| *major == other.major).map(|(_, minor)| *minor);
        if last == Some(other.minor) {
            self.major == other.major + 1 && self.minor == 0
        } else {
            self.major == other.major && self.minor == other.minor + 1
        }
    }
}

/// What each version says, of rows: the row called by the version speaks, unless a further build of the same sources
/// `tells_more`, which is given what stands so far and what that build says. Rows that are of no version take no part.
pub fn by_version<'a, T: Copy>(
    rows: impl Iterator<Item = (&'a str, T)> + Clone,
    tells_more: impl Fn(T, T) -> bool,
) -> Vec<(Version, T)> {
    let plain = |(row, said)| Some((Version::parse(row)?, said));
    let mut found: Vec<(Version, T)> = rows.clone().filter_map(plain).collect();
    for (row, said) in rows {
        let Some(version) = Version::of_flavour(row) else { continue };
        match found.iter_mut().find(|(of, _)| *of == version) {
            Some((_, known)) if tells_more(*known, said) => *known = said,
            Some(_) => {}
            None => found.push((version, said)),
        }
    }
    found
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("6.12", Some("6.12"))]
    #[case("v5.19", Some("5.19"))]
    #[case("6.12.117", Some("6.12"))]
    #[case("6", None)]
    #[case("bzImage-6.1", None)]
    #[case("6.12-rc1", None)]
    #[case("", None)]
    fn versions_are_read(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(Version::parse(text).map(|version| version.to_string()).as_deref(), expected);
    }

    #[rstest]
    #[case("6.1-fragments", Some("6.1"))]
    #[case("6.1", None)]
    #[case("6.12-rc1", None)]
    #[case("6.12-", None)]
    #[case("bzImage-6.1", None)]
    fn a_flavour_names_its_version(#[case] name: &str, #[case] expected: Option<&str>) {
        assert_eq!(Version::of_flavour(name).map(|version| version.to_string()).as_deref(), expected);
    }

    #[rstest]
    #[case("5.19", "6.0", true)]
    #[case("6.19", "7.0", true)]
    #[case("6.9", "6.10", true)]
    #[case("6.12", "6.16", false)]
    #[case("5.18", "6.0", false)]
    #[case("6.1", "6.1", false)]
    fn neighbours(#[case] before: &str, #[case] after: &str, #[case] next: bool) {
        let read = |text| Version::parse(text).unwrap();
        assert_eq!(read(after).follows(read(before)), next);
    }

    #[test]
    fn order_is_by_number() {
        assert!(Version::parse("6.9").unwrap() < Version::parse("6.10").unwrap());
    }
}
