//! Random numbers that are the same in every run.

/// A sequence (`SplitMix64`) that its seed decides.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    /// Small numbers, large ones, and those at the edges.
    pub(crate) fn number(&mut self) -> u64 {
        let any = self.next();
        match any % 8 {
            0 => 0,
            1 => u64::MAX >> (any >> 8 & 63),
            2 => 1 << (any >> 8 & 63),
            3 => (1_u64 << (any >> 8 & 63)).wrapping_sub(1),
            4 | 5 => any >> 8 & 0xff,
            6 => any >> 8 & 0xff_ffff,
            _ => any,
        }
    }

    /// Changes some bytes: overwrites, inserts, removes, repeats.
    pub(crate) fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            if bytes.is_empty() {
                bytes.push(self.next().to_le_bytes()[0]);
                continue;
            }
            let place = self.below(bytes.len());
            match self.below(12) {
                0..=3 => bytes[place] = self.next().to_le_bytes()[0],
                4 | 5 => bytes[place] ^= 1 << self.below(8),
                6 => bytes.insert(place, self.next().to_le_bytes()[0]),
                7 => drop(bytes.remove(place)),
                8 => {
                    let end = (place + 1 + self.below(16)).min(bytes.len());
                    drop(bytes.drain(place..end));
                }
                9 => {
                    let end = (place + 1 + self.below(64)).min(bytes.len());
                    let copied = bytes[place..end].to_vec();
                    let to = self.below(bytes.len() - copied.len() + 1);
                    bytes[to..to + copied.len()].copy_from_slice(&copied);
                }
                10 => bytes.truncate(place),
                _ => {
                    let value = self.number().to_le_bytes();
                    let end = (place + 8).min(bytes.len());
                    bytes[place..end].copy_from_slice(&value[..end - place]);
                }
            }
        }
    }
}
