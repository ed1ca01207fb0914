//! Changing known inputs at random, with a seed: the same seed and corpus give the same inputs.

/// No input is made longer than this, in bytes.
const LONGEST: usize = 64 << 10;
/// Numbers at which readers go wrong.
const NUMBERS: [u64; 10] = [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 40, u64::MAX];
/// Pieces of text at which readers go wrong.
const PIECES: [&str; 20] = [
    "\n",
    "---\n",
    ": ",
    "- ",
    "&a ",
    "*a",
    "[",
    "{",
    "\"",
    "'",
    "#",
    "\0",
    "\u{e9}",
    "\u{130}",
    "../",
    "/",
    " at ",
    "99999999999999999999",
    "-1",
    "| ",
];

/// Makes one input after another.
pub(crate) struct Mutator {
    random: fastrand::Rng,
    corpus: Vec<Vec<u8>>,
}

impl Mutator {
    /// From a corpus, which may be empty.
    pub(crate) fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), corpus }
    }

    /// The next input: a kept one with one to eight changes.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let mut input = self.any();
        for _ in 0..self.random.usize(1..=8) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn any(&mut self) -> Vec<u8> {
        self.random.choice(&self.corpus).cloned().unwrap_or_default()
    }

    /// A part of an input, as bounds.
    fn part(&mut self, length: usize, longest: usize) -> (usize, usize) {
        let start = self.random.usize(..=length);
        let end = (start + self.random.usize(..=longest)).min(length);
        (start, end)
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.random.usize(..=input.len());
        match self.random.u8(..9) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.random.u8(..8);
                }
            }
            1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = self.random.u8(..);
                }
            }
            2 => {
                let (start, end) = self.part(input.len(), 64);
                drop(input.drain(start..end));
            }
            3 => {
                let piece = self.random_piece();
                drop(input.splice(at..at, piece));
            }
            4 => self.number(input, at),
            5 => self.repeat(input, at),
            6 => {
                let other = self.any();
                let (start, end) = self.part(other.len(), 512);
                drop(input.splice(at..at, other[start..end].iter().copied()));
            }
            7 => input.truncate(at),
            _ => {
                // The head of this one, the tail of another.
                let other = self.any();
                let from = self.random.usize(..=other.len());
                input.truncate(at);
                input.extend(&other[from..]);
            }
        }
    }

    fn random_piece(&mut self) -> Vec<u8> {
        self.random.choice(PIECES).unwrap_or_default().as_bytes().to_vec()
    }

    /// Puts a number over what stands at a place, in one of the widths that binary formats have, or inserts its digits.
    fn number(&mut self, input: &mut [u8], at: usize) {
        let number = self.random.choice(NUMBERS).unwrap_or_default().to_le_bytes();
        let width = self.random.choice([1, 2, 4, 8]).unwrap_or(1);
        for (to, from) in input.iter_mut().skip(at).zip(&number[..width]) {
            *to = *from;
        }
    }

    /// Repeats a part, up to many times: what is linear in one is not always so in a thousand.
    fn repeat(&mut self, input: &mut Vec<u8>, at: usize) {
        let (start, end) = self.part(input.len(), 64);
        let part = input[start..end].to_vec();
        let times = 1 << self.random.u32(..10);
        let room = LONGEST.saturating_sub(input.len()) / part.len().max(1);
        let at = at.min(input.len());
        drop(input.splice(at..at, part.repeat(times.min(room))));
    }
}
