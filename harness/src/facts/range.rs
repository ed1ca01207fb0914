//! From an answer per kernel to ranges of versions whose ends say how exactly they are known.

use super::Version;
use std::fmt;

/// What is known of one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is so there.
    Yes,
    /// It is not so there.
    No,
    /// Nobody could tell, or nobody has asked. Neither begins nor ends a range.
    Unknown,
}

/// Since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// This version has it and the one before it, measured too, has not.
    Exact(Version),
    /// The oldest measured version has it already.
    AtMost(Version),
    /// Not in the first, measured; in the second; nothing is known of those between.
    Between(Version, Version),
}

/// Until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// The first version without it, whose neighbour before, measured too, has it.
    Exact(Version),
    /// Still in the first; gone in the second; nothing is known of those between.
    Between(Version, Version),
}

impl Added {
    /// The first version that was measured to have it.
    #[must_use]
    pub const fn first(self) -> Version {
        match self {
            Self::Exact(version) | Self::AtMost(version) | Self::Between(_, version) => version,
        }
    }
}

impl fmt::Display for Added {
    /// `6.12`, `<=5.10` or `>6.1 <=6.12`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(version) => write!(f, "{version}"),
            Self::AtMost(version) => write!(f, "<={version}"),
            Self::Between(without, with) => write!(f, ">{without} <={with}"),
        }
    }
}

impl fmt::Display for Removed {
    /// `6.16` or `>6.12 <=6.16`: the first version without it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(version) => write!(f, "{version}"),
            Self::Between(with, without) => write!(f, ">{with} <={without}"),
        }
    }
}

/// Versions without a measured no between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Since when.
    pub added: Added,
    /// Until when; none where the newest that is known has it.
    pub removed: Option<Removed>,
    /// The versions that were measured to have it, ascending.
    pub kernels: Vec<Version>,
}

impl Span {
    /// The rows that show the range, of those that are `so`: a version's own, or, where that is not, the other builds of it.
    #[must_use]
    pub fn rows(&self, so: &[&str]) -> Vec<String> {
        let rows = |version: &Version| {
            let own = version.to_string();
            let builds = so.iter().filter(|row| Version::of_row(row) == Some(*version));
            let all: Vec<String> = builds.map(|row| (*row).to_owned()).collect();
            if all.contains(&own) { vec![own] } else { all }
        };
        self.kernels.iter().flat_map(rows).collect()
    }
}

/// The ranges in which it is so, ascending. The order of `states` does not matter.
#[must_use]
pub fn spans(states: &[(Version, Known)]) -> Vec<Span> {
    let mut known: Vec<_> = states.iter().copied().filter(|(_, state)| *state != Known::Unknown).collect();
    known.sort_by_key(|(version, _)| *version);
    let mut spans: Vec<Span> = Vec::new();
    let mut before: Option<(Version, Known)> = None;
    for (version, state) in known {
        match (before, state) {
            (Some((_, Known::Yes)), Known::Yes) => {
                if let Some(span) = spans.last_mut() {
                    span.kernels.push(version);
                }
            }
            (Some((last, Known::Yes)), _) => {
                let exact = version.follows(last);
                let end = if exact { Removed::Exact(version) } else { Removed::Between(last, version) };
                if let Some(span) = spans.last_mut() {
                    span.removed = Some(end);
                }
            }
            (None, Known::Yes) => spans.push(begun(Added::AtMost(version))),
            (Some((last, _)), Known::Yes) if version.follows(last) => {
                spans.push(begun(Added::Exact(version)));
            }
            (Some((last, _)), Known::Yes) => spans.push(begun(Added::Between(last, version))),
            (_, Known::No | Known::Unknown) => {}
        }
        before = Some((version, state));
    }
    spans
}

fn begun(added: Added) -> Span {
    Span { added, removed: None, kernels: vec![added.first()] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn states(text: &str) -> Vec<(Version, Known)> {
        let one = |word: &str| {
            let (version, state) = word.split_once('=').unwrap();
            let state = match state {
                "y" => Known::Yes,
                "n" => Known::No,
                _ => Known::Unknown,
            };
            (Version::parse(version).unwrap(), state)
        };
        text.split(' ').map(one).collect()
    }

    fn words(text: &str) -> Vec<String> {
        let word = |span: &Span| match span.removed {
            Some(removed) => format!("{}, until {removed}", span.added),
            None => span.added.to_string(),
        };
        spans(&states(text)).iter().map(word).collect()
    }

    #[rstest]
    #[case::oldest("5.10=y 6.1=y", &["<=5.10"])]
    #[case::gap("5.10=n 6.1=y", &[">5.10 <=6.1"])]
    #[case::neighbours("6.16=n 6.17=y 6.18=y", &["6.17"])]
    #[case::over_a_major("5.19=n 6.0=y", &["6.0"])]
    #[case::unknown_makes_inexact("6.16=n 6.17=? 6.18=y", &[">6.16 <=6.18"])]
    #[case::unknown_ends_nothing("6.16=y 6.17=? 6.18=y", &["<=6.16"])]
    #[case::gone("6.16=y 6.17=n", &["<=6.16, until 6.17"])]
    #[case::gone_in_a_gap("6.12=y 6.17=n", &["<=6.12, until >6.12 <=6.17"])]
    #[case::twice("6.16=n 6.17=y 6.18=n 6.19=n 7.0=y", &["6.17, until 6.18", "7.0"])]
    #[case::never("6.16=n 6.17=?", &[])]
    #[case::any_order("6.17=y 6.16=n", &["6.17"])]
    fn ends_are_as_exact_as_the_measurements(#[case] given: &str, #[case] expected: &[&str]) {
        assert_eq!(words(given), expected);
    }
}
