//! What one trigger made the kernel do, in words, and which denials user space saw of it.

use crate::errno::Errno;
use crate::session::Attempt;
use crate::triggers::Seen;

/// include/linux/err.h, MAX_ERRNO.
const MAX_ERRNO: i32 = 4095;

/// What one trigger made the kernel do.
pub(crate) struct Round {
    /// Which programs ran, the earliest first, each with the `ret` that it saw.
    pub(crate) ran: Vec<(usize, i64)>,
    /// What user space saw.
    pub(crate) outcome: Result<Seen, Errno>,
}

impl Round {
    /// The round in words; `ret` only where the hook has one.
    pub(crate) fn words(&self, names: &[&str], with_ret: bool) -> String {
        self.words_with(names, |_| with_ret)
    }

    /// The same, with `ret` only of programs that have noted one.
    pub(crate) fn words_with(&self, names: &[&str], has_ret: impl Fn(usize) -> bool) -> String {
        let one = |&(number, ret): &(usize, i64)| {
            let name = names.get(number).copied().unwrap_or("another");
            if has_ret(number) { format!("{name} (ret {ret})") } else { name.to_owned() }
        };
        let ran: Vec<String> = self.ran.iter().map(one).collect();
        let ran = if ran.is_empty() { "none".to_owned() } else { ran.join(", ") };
        let seen = self.outcome.as_ref().map_or_else(|errno| errno.name(), |seen| seen.0.to_owned());
        format!("ran {ran}; user space sees {seen}")
    }

    /// Notes for each program that ran and denied whether user space saw its errno; `errno` tells by its number with which
    /// it did, if with any.
    pub(crate) fn note_denials(&self, attempt: &mut Attempt<'_>, errno: impl Fn(usize) -> Option<Errno>) {
        for errno in self.ran.iter().filter_map(|&(number, _)| errno(number)) {
            attempt.returned(&self.outcome, errno);
        }
    }

    /// The same, of programs that return these verdicts.
    pub(crate) fn note_verdicts(&self, attempt: &mut Attempt<'_>, verdicts: &[i32]) {
        self.note_denials(attempt, |number| {
            let verdict = verdicts.get(number).copied();
            verdict.filter(|verdict| (-MAX_ERRNO..0).contains(verdict)).map(Errno::from_raw)
        });
    }

    /// The same, of a cgroup's programs that return these: 0 denies, with EPERM.
    pub(crate) fn note_grants(&self, attempt: &mut Attempt<'_>, grants: &[i32]) {
        self.note_denials(attempt, |number| (grants.get(number) == Some(&0)).then_some(Errno::EPERM));
    }

    /// Whether the programs that ran are these, in this order.
    pub(crate) fn order_is(&self, numbers: &[usize]) -> bool {
        self.ran.iter().map(|&(number, _)| number).eq(numbers.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{NTH, verdict_word};

    #[test]
    fn a_round_in_words() {
        let round = Round { ran: vec![(1, 0), (0, -1)], outcome: Err(Errno::EPERM) };
        assert_eq!(round.words(&NTH, true), "ran second (ret 0), first (ret -1); user space sees EPERM");
        assert!(round.order_is(&[1, 0]) && !round.order_is(&[1]));
        assert_eq!(verdict_word(-13), "-EACCES");
    }
}
