//! Shards: the same work for every machine that helps, without a word between them.
//!
//! Kernels are dealt out one after the other. Where there are more shards than kernels, each kernel's probes are split
//! into as many parts as it takes to give every shard something; which part a probe is of depends on its id alone.

use probes::protocol::Part;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// One of several shards: `I/N`, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shard {
    /// Counted from 0.
    index: usize,
    count: usize,
}

/// Why a text is no shard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no shard; give I/N with numbers from 1 to N, such as 2/3")]
pub struct ShardError(String);

impl FromStr for Shard {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.split_once('/').and_then(|(index, count)| {
            let (index, count): (usize, usize) = (index.parse().ok()?, count.parse().ok()?);
            (1..=count).contains(&index).then(|| Self { index: index - 1, count })
        });
        numbers.ok_or_else(|| ShardError(text.to_owned()))
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.count)
    }
}

impl Shard {
    /// All shards of the same work, itself among them.
    pub fn all(self) -> impl Iterator<Item = Self> {
        (0..self.count).map(move |index| Self { index, ..self })
    }

    /// The part of the kernel at place `kernel`, of `kernels`, that this shard runs, if any.
    #[must_use]
    pub fn part(self, kernel: usize, kernels: usize) -> Option<Part> {
        let parts = self.count.div_ceil(kernels.max(1));
        // The places of one kernel's parts are `kernels` apart and reach less than `count` further in all, so a shard never
        // gets two of them.
        let index = (0..parts).find(|part| (part * kernels + kernel) % self.count == self.index)?;
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Some(Part { index: number(index), of: number(parts) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(1, 1)]
    #[case(11, 1)]
    #[case(11, 3)]
    #[case(4, 6)]
    #[case(2, 7)]
    #[case(3, 3)]
    #[case(1, 5)]
    fn every_part_of_every_kernel_is_some_shards_and_no_shard_is_idle(
        #[case] kernels: usize,
        #[case] count: usize,
    ) {
        let mut dealt = Vec::new();
        for index in 1..=count {
            let shard: Shard = format!("{index}/{count}").parse().unwrap();
            let own: Vec<_> = (0..kernels).filter_map(|k| Some((k, shard.part(k, kernels)?))).collect();
            assert!(!own.is_empty(), "shard {index} of {count} has nothing to do");
            dealt.extend(own);
        }
        let parts = count.div_ceil(kernels);
        assert_eq!(dealt.len(), kernels * parts);
        for kernel in 0..kernels {
            for index in 0..parts {
                let wanted = Part { index: u32::try_from(index).unwrap(), of: u32::try_from(parts).unwrap() };
                assert_eq!(dealt.iter().filter(|it| **it == (kernel, wanted)).count(), 1);
            }
        }
    }

    #[test]
    fn a_shard_knows_the_others() {
        let shard: Shard = "2/3".parse().unwrap();
        assert_eq!(shard.all().map(|it| it.to_string()).collect::<Vec<_>>(), ["1/3", "2/3", "3/3"]);
    }

    #[rstest]
    #[case("")]
    #[case("1")]
    #[case("0/3")]
    #[case("4/3")]
    #[case("1/0")]
    #[case("-1/3")]
    #[case("1/3/5")]
    fn what_is_no_shard_is_refused(#[case] text: &str) {
        assert_eq!(text.parse::<Shard>(), Err(ShardError(text.to_owned())));
    }
}
