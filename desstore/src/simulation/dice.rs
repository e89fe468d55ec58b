//! Chance that a seed decides.

use crate::clock::{Randomness, SeededRandom};

/// Dice that are thrown in the same order each time.
#[derive(Debug)]
pub(super) struct Dice(SeededRandom);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(SeededRandom::new(seed))
    }

    /// A number below a limit; 0 where the limit is 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0.next().checked_rem(limit).unwrap_or(0)
    }

    /// A place in a list of this length.
    pub(super) fn place(&mut self, len: usize) -> usize {
        usize::try_from(self.below(u64::try_from(len).unwrap())).unwrap()
    }

    /// True so many times in a thousand.
    pub(super) fn permille(&mut self, permille: u64) -> bool {
        self.below(1_000) < permille
    }

    /// One of several, each as often as its weight says.
    pub(super) fn choose<T: Copy>(&mut self, choices: &[(u64, T)]) -> T {
        let mut rest = self.below(choices.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in choices {
            match rest.checked_sub(*weight) {
                Some(above) => rest = above,
                None => return *choice,
            }
        }
        choices[0].1
    }

    /// Dice of its own for somebody else.
    pub(super) fn split(&mut self) -> Self {
        Self::new(self.0.next())
    }

    /// Any number.
    pub(super) fn any(&mut self) -> u64 {
        self.0.next()
    }
}
