//! Which groups belong to which zones.
//!
//! Ranges are kept in parts of 65,536, the most buckets that a day can have, so that those given as buckets and those given
//! as fractions are compared alike. Together they must hold every group once.

use desfmt::{Bucket, BucketBits};

/// Groups that belong together: those whose bucket begins in `from..to`, in parts of 65,536.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneRange {
    /// Where it begins.
    pub from: u32,
    /// Where it ends.
    pub to: u32,
    /// The zones that hold its shards: its home first, then its copies in the order they are read.
    pub zones: Vec<usize>,
}

/// How groups are spread over zones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneMap {
    /// In order, without gap and overlap.
    ranges: Vec<ZoneRange>,
    /// The zone of the documents: identity, manifests, tombstones, debts.
    home: usize,
    bits: Option<BucketBits>,
}

/// Ranges that do not make a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// Groups without a zone.
    #[error("{missing} belongs to no zone")]
    Gap {
        /// Which.
        missing: String,
    },
    /// Groups with two homes.
    #[error("{shared} belongs to two ranges")]
    Overlap {
        /// Which.
        shared: String,
    },
    /// A range without groups.
    #[error("the range {range} is empty")]
    Empty {
        /// Which.
        range: String,
    },
}

/// What the ancestor uses unless told otherwise.
pub(crate) const ANCESTORS_BITS: u8 = 8;

/// All parts.
pub(super) const PARTS: u32 = 1 << 16;

impl ZoneMap {
    /// Checks that the ranges hold every group once. With `bits` they are spoken of as buckets.
    pub fn new(mut ranges: Vec<ZoneRange>, home: usize, bits: Option<BucketBits>) -> Result<Self, MapError> {
        let told = |from: u32, to: u32| tell(from, to, bits);
        if let Some(empty) = ranges.iter().find(|range| range.from >= range.to) {
            return Err(MapError::Empty { range: told(empty.from, empty.to) });
        }
        ranges.sort_by_key(|range| range.from);
        let mut end = 0;
        for range in &ranges {
            if range.from > end {
                return Err(MapError::Gap { missing: told(end, range.from) });
            }
            if range.from < end {
                return Err(MapError::Overlap { shared: told(range.from, end.min(range.to)) });
            }
            end = range.to;
        }
        if end < PARTS {
            return Err(MapError::Gap { missing: told(end, PARTS) });
        }
        Ok(Self { ranges, home, bits })
    }

    /// The zone of the documents.
    pub const fn home(&self) -> usize {
        self.home
    }

    /// The bits that the ranges were written for, where they were written as buckets.
    pub const fn bits(&self) -> Option<BucketBits> {
        self.bits
    }

    /// The bits of an archive of the ancestor, which does not record them.
    pub fn bits_of_ancestor(&self) -> BucketBits {
        self.bits.or_else(|| BucketBits::new(ANCESTORS_BITS)).unwrap_or_default()
    }

    /// The zones of a group, its home first.
    pub fn zones(&self, bucket: Bucket, bits: BucketBits) -> &[usize] {
        let part = u32::from(bucket.number()) << 16_u8.saturating_sub(bits.get());
        let range = self.ranges.iter().find(|range| (range.from..range.to).contains(&part));
        range.map_or(&[], |range| &range.zones)
    }

    /// The homes of all ranges, each once, that of the documents first.
    pub fn homes(&self) -> Vec<usize> {
        let mut homes = vec![self.home];
        for home in self.ranges.iter().filter_map(|range| range.zones.first()) {
            if !homes.contains(home) {
                homes.push(*home);
            }
        }
        homes
    }
}

fn tell(from: u32, to: u32, bits: Option<BucketBits>) -> String {
    let Some(bits) = bits else {
        let share = |part: u32| f64::from(part) / f64::from(PARTS);
        return format!("{} to {}", share(from), share(to));
    };
    let shift = 16_u8.saturating_sub(bits.get());
    let (first, last) = (from >> shift, to.saturating_sub(1) >> shift);
    let hex = |number| Bucket::new(number, bits).map_or_else(String::new, |bucket| bucket.hex(bits));
    if first == last {
        format!("bucket {first} ({})", hex(first))
    } else {
        format!("buckets {first} to {last} ({} to {})", hex(first), hex(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: u32, to: u32) -> ZoneRange {
        ZoneRange { from, to, zones: vec![0] }
    }

    fn refused(ranges: &[(u32, u32)], bits: Option<u8>) -> String {
        let ranges = ranges.iter().map(|(from, to)| range(*from, *to)).collect();
        ZoneMap::new(ranges, 0, bits.and_then(BucketBits::new)).unwrap_err().to_string()
    }

    #[test]
    fn gaps_and_overlaps_are_named() {
        assert_eq!(refused(&[(0, 0x8000)], Some(8)), "buckets 128 to 255 (80 to FF) belongs to no zone");
        assert_eq!(refused(&[(0, 0x8000), (0x8100, PARTS)], Some(8)), "bucket 128 (80) belongs to no zone");
        assert_eq!(refused(&[(0x100, PARTS)], Some(8)), "bucket 0 (00) belongs to no zone");
        assert_eq!(
            refused(&[(0, 0x9000), (0x8000, PARTS)], Some(8)),
            "buckets 128 to 143 (80 to 8F) belongs to two ranges"
        );
        assert_eq!(refused(&[(0x8000, PARTS)], None), "0 to 0.5 belongs to no zone");
        assert_eq!(refused(&[], None), "0 to 1 belongs to no zone");
        assert_eq!(refused(&[(5, 5), (0, PARTS)], None).split(" is ").last(), Some("empty"));
    }

    #[test]
    fn a_group_belongs_to_the_zones_of_its_range() {
        let ranges = vec![
            ZoneRange { from: 0x8000, to: PARTS, zones: vec![1, 0] },
            ZoneRange { from: 0, to: 0x8000, zones: vec![0] },
        ];
        let map = ZoneMap::new(ranges, 0, None).unwrap();
        for bits in [1, 4, 8, 16] {
            let bits = BucketBits::new(bits).unwrap();
            let half = bits.buckets() / 2;
            let zones = |number| map.zones(Bucket::new(number, bits).unwrap(), bits);
            assert_eq!((zones(0), zones(half - 1)), ([0].as_slice(), [0].as_slice()));
            assert_eq!((zones(half), zones(bits.buckets() - 1)), ([1, 0].as_slice(), [1, 0].as_slice()));
        }
        assert_eq!(map.homes(), [0, 1]);
    }
}
