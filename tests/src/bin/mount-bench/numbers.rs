//! Numbers that look random and are the same in every run.

/// `SplitMix64` (Steele et al. 2014).
#[derive(Debug)]
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to one less than `limit`, which is above 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// `count` different numbers below `limit`, in random order.
    pub(crate) fn distinct(&mut self, limit: u32, count: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..limit).collect();
        for at in (1..all.len()).rev() {
            let other = self.below(u64::try_from(at).unwrap_or(u64::MAX).saturating_add(1));
            all.swap(at, usize::try_from(other).unwrap_or(at));
        }
        all.truncate(count);
        all
    }
}
