//! The flat names of an ancestor's archive: `YYYYMMDD_HH_NNNN.des` and, beside it, `YYYYMMDD_HH_NNNN.meta`.

use std::cmp::Ordering;
use std::fmt;

use crate::{Bucket, BucketBits, Date, Group};

/// The name of one shard of the ancestor: a split of a group.
///
/// Names are ordered as the ancestor tries them, by their text: where a uid is in several splits the first one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LegacyName {
    /// The group whose files it holds. Its day is that of the wall clock in the zone that `created_at` was given in.
    pub group: Group,
    /// Which split of the group, from 0.
    pub split: u32,
}

/// Why a text is not the name of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LegacyNameError {
    /// It is a name of something else.
    #[error("not the name of a shard")]
    Other,
    /// It is the name of a shard in an archive with another number of bits.
    #[error("the name of a shard in an archive with another n_bits than {}", .bits.get())]
    OtherBits {
        /// The number of bits that was tried.
        bits: BucketBits,
    },
}

impl LegacyName {
    /// Reads a file name such as `20240115_3F_0000.des`; only the spelling that the ancestor writes.
    pub fn parse(text: &str, bits: BucketBits) -> Result<Self, LegacyNameError> {
        Self::parse_stem(text.strip_suffix(".des").ok_or(LegacyNameError::Other)?, bits)
    }

    /// Reads the name of a sidecar: the shard that it speaks of.
    pub fn parse_sidecar(text: &str, bits: BucketBits) -> Result<Self, LegacyNameError> {
        Self::parse_stem(text.strip_suffix(".meta").ok_or(LegacyNameError::Other)?, bits)
    }

    fn parse_stem(stem: &str, bits: BucketBits) -> Result<Self, LegacyNameError> {
        let mut parts = stem.split('_');
        let (Some(date), Some(hex), Some(split), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(LegacyNameError::Other);
        };
        let date = parse_date(date).ok_or(LegacyNameError::Other)?;
        let split_number = split.parse::<u32>().ok().filter(|number| format!("{number:04}") == split);
        let split = split_number.ok_or(LegacyNameError::Other)?;
        let is_hex =
            (1..=4).contains(&hex.len()) && hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F'));
        match Bucket::parse_hex(hex, bits) {
            Some(bucket) => Ok(Self { group: Group { date, bucket, bits }, split }),
            None if is_hex => Err(LegacyNameError::OtherBits { bits }),
            None => Err(LegacyNameError::Other),
        }
    }

    /// What the names of all shards and sidecars of a group begin with.
    pub fn prefix(group: &Group) -> String {
        format!("{}_{}_", DateText(group.date), group.bucket.hex(group.bits))
    }

    /// What the names of all shards and sidecars of a day begin with.
    pub fn day_prefix(date: Date) -> String {
        format!("{}_", DateText(date))
    }

    /// The name of the sidecar, if the shard has one.
    pub fn sidecar(&self) -> String {
        format!("{}{:04}.meta", Self::prefix(&self.group), self.split)
    }

    fn split_text(&self) -> String {
        format!("{:04}", self.split)
    }
}

impl fmt::Display for LegacyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:04}.des", Self::prefix(&self.group), self.split)
    }
}

impl Ord for LegacyName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.group.cmp(&other.group).then_with(|| self.split_text().cmp(&other.split_text()))
    }
}

impl PartialOrd for LegacyName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A day as the ancestor writes it: a year below 1000 has no leading zeros.
struct DateText(Date);

impl fmt::Display for DateText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_string().trim_start_matches('0'))
    }
}

fn parse_date(text: &str) -> Option<Date> {
    let date = format!("{text:0>8}").parse::<Date>().ok()?;
    (DateText(date).to_string() == text).then_some(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(number: u8) -> BucketBits {
        BucketBits::new(number).unwrap()
    }

    #[test]
    fn a_name_reads_back_as_it_is_written() {
        for (n_bits, text) in [
            (8, "20240301_0A_0000.des"),
            (8, "20240301_FF_12345.des"),
            (4, "20240301_A_0001.des"),
            (5, "20240301_1F_0001.des"),
            (9, "20240301_1FF_0001.des"),
            (16, "20240301_00FF_0001.des"),
            (8, "9991231_00_0000.des"),
            (8, "10101_00_0000.des"),
        ] {
            let name = LegacyName::parse(text, bits(n_bits)).unwrap();
            assert_eq!(name.to_string(), text);
            assert_eq!(name.sidecar(), text.replace(".des", ".meta"));
            assert_eq!(LegacyName::parse_sidecar(&name.sidecar(), bits(n_bits)), Ok(name));
            assert!(text.starts_with(&LegacyName::prefix(&name.group)));
            assert!(text.starts_with(&LegacyName::day_prefix(name.group.date)));
        }
    }

    #[test]
    fn other_names_are_told_from_those_of_other_bits() {
        for text in ["20240301_0A0_0000.des", "20240301_A_0000.des", "20240301_100_0000.des"] {
            let found = LegacyName::parse(text, bits(8));
            assert_eq!(found, Err(LegacyNameError::OtherBits { bits: bits(8) }), "{text}");
        }
        for text in [
            "des.json",
            "20240301_0A_0000.meta",
            "20240301_0a_0000.des",
            "20240301_0A_000.des",
            "20240301_0A_00000.des",
            "20240301_0A_+000.des",
            "20240301_0A_0000_R001.des",
            "20240230_0A_0000.des",
            "0301_0A_0000.des",
            "00010101_0A_0000.des",
            "20240301_+A_0000.des",
            "20240301__0000.des",
            "_bigFiles",
        ] {
            assert_eq!(LegacyName::parse(text, bits(8)), Err(LegacyNameError::Other), "{text}");
        }
    }

    #[test]
    fn names_are_ordered_by_their_text() {
        let name = |split| LegacyName { split, ..LegacyName::parse("20240301_0A_0000.des", bits(8)).unwrap() };
        let mut names = [name(2_000), name(10_000), name(1), name(1_000)];
        names.sort();
        assert_eq!(names, [name(1), name(1_000), name(10_000), name(2_000)]);
    }
}
