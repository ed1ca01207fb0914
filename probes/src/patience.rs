//! Waiting for what the kernel does some time after a system call, in a machine that may stand still meanwhile.

use std::time::{Duration, Instant};

/// What a look around counts for at most. Whoever stops the machine, or its host, takes no more than this of a patience:
/// what the kernel was to do meanwhile has been held up too.
const LOOK: Duration = Duration::from_millis(50);

/// How long to wait yet, of which only the time is used up in which this machine ran.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    left: Duration,
    looked: Instant,
    look: Duration,
}

impl Patience {
    /// As long as this from now on.
    pub(crate) fn new(patience: Duration) -> Self {
        Self::of_looks(patience, LOOK)
    }

    /// The same, for who does not look so often: what passes between two looks counts for `look` at most.
    pub(crate) fn of_looks(patience: Duration, look: Duration) -> Self {
        Self { left: patience, looked: Instant::now(), look }
    }

    /// Whether any is left. Has to be asked again and again: what passes between two calls counts for a look at most.
    pub(crate) fn lasts(&mut self) -> bool {
        self.passed(Instant::now());
        !self.left.is_zero()
    }

    /// As long as it lasts, looks again and again, a millisecond apart, until `done`.
    pub(crate) fn until(&mut self, mut done: impl FnMut() -> bool) {
        while !done() && self.lasts() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// How much is left; no more than `limit`.
    pub(crate) fn at_most(self, limit: Duration) -> Self {
        Self { left: self.left.min(limit), ..self }
    }

    fn passed(&mut self, now: Instant) {
        self.left = self.left.saturating_sub(now.saturating_duration_since(self.looked).min(self.look));
        self.looked = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_comes_is_not_waited_for_for_ever() {
        let mut asked = 0;
        Patience::new(Duration::from_millis(20)).until(|| {
            asked += 1;
            false
        });
        assert!(asked > 1);
    }

    #[test]
    fn a_machine_that_stood_still_has_not_waited() {
        let mut patience = Patience::new(Duration::from_millis(120));
        let begin = patience.looked;
        for (hours, left) in [(1, 70), (2, 20), (3, 0)] {
            patience.passed(begin + Duration::from_secs(3600 * hours));
            assert_eq!(patience.left, Duration::from_millis(left));
        }
        assert!(!patience.lasts());
    }
}
