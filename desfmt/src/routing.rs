//! Which group of a day a uid belongs to. Pure arithmetic, compatible with the ancestor for 4 to 16 bits.

use std::fmt;

use crate::digits::{Digit, classify};
use crate::time::Date;

/// How many bits of a uid's bucket number are used: an archive has `2^bits` groups a day. 0 to 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BucketBits(u8);

impl BucketBits {
    /// The most bits an archive can have.
    pub const MAX: u8 = 16;

    /// Takes a number of bits, 0 to 16.
    pub const fn new(bits: u8) -> Option<Self> {
        if bits <= Self::MAX { Some(Self(bits)) } else { None }
    }

    /// The number of bits.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// How many buckets there are.
    pub const fn buckets(self) -> u32 {
        1 << self.0
    }
}

/// The number of a bucket, below `2^bits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(u16);

impl Bucket {
    /// Takes a bucket's number if an archive of so many bits has it.
    pub fn new(number: u32, bits: BucketBits) -> Option<Self> {
        if number < bits.buckets() { u16::try_from(number).ok().map(Self) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The upper-case hexadecimal name, zero-padded to `max(1, bits / 4)` digits as the ancestor pads it.
    pub fn hex(self, bits: BucketBits) -> String {
        format!("{:0width$X}", self.0, width = usize::from(bits.get() / 4).max(1))
    }

    /// Reads a name made by [`Bucket::hex`]; any other spelling of the number is refused.
    pub fn parse_hex(text: &str, bits: BucketBits) -> Option<Self> {
        let bucket = Self::new(u32::from_str_radix(text, 16).ok()?, bits)?;
        (bucket.hex(bits) == text).then_some(bucket)
    }
}

/// The files of one day that share a bucket: the unit that is packed, deleted from and repacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    /// The day.
    pub date: Date,
    /// The bucket within the day.
    pub bucket: Bucket,
    /// The archive's number of bits, which the bucket's name depends on.
    pub bits: BucketBits,
}

impl Group {
    /// The group that a uid of a day belongs to.
    pub fn of(date: Date, uid: &str, bits: BucketBits) -> Result<Self, RoutingError> {
        Ok(Self { date, bucket: bucket_of(uid, bits)?, bits })
    }
}

/// `YYYYMMDD_HH`.
impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.date, self.bucket.hex(self.bits))
    }
}

/// A uid that the ancestor cannot route, and so neither can we.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoutingError {
    /// All its characters count as digits, but one of them has no value.
    #[error("the uid looks like a number, but {character:?} is a digit without a decimal value")]
    UnreadableDigit {
        /// The character.
        character: char,
    },
    /// A number longer than the ancestor's number type takes.
    #[error("the uid is a number of {count} digits; at most 4300 can be routed")]
    TooManyDigits {
        /// How many characters it has.
        count: usize,
    },
}

/// The longest number that the ancestor's interpreter converts, in digits.
const DIGITS_MAX: usize = 4_300;

/// The bucket of a uid: its value modulo `2^bits` where every character is a digit, else the CRC-32 (IEEE) of its UTF-8
/// bytes modulo `2^bits`.
pub fn bucket_of(uid: &str, bits: BucketBits) -> Result<Bucket, RoutingError> {
    let mask = bits.buckets().saturating_sub(1);
    let number = match numeric_value(uid)? {
        Some(low_bits) => low_bits & mask,
        None => crc32fast::hash(uid.as_bytes()) & mask,
    };
    Ok(Bucket(u16::try_from(number).unwrap_or(u16::MAX)))
}

/// The low 32 bits of a numeric uid, or `None` where some character is no digit.
fn numeric_value(uid: &str) -> Result<Option<u32>, RoutingError> {
    let mut value = 0_u32;
    let mut count = 0_usize;
    let mut unreadable = None;
    for character in uid.chars() {
        match classify(character) {
            // 2^32 is a multiple of every 2^bits, so wrapping keeps the bits that matter.
            Digit::Decimal(digit) => value = value.wrapping_mul(10).wrapping_add(u32::from(digit)),
            Digit::Unreadable => unreadable = unreadable.or(Some(character)),
            Digit::No => return Ok(None),
        }
        count = count.saturating_add(1);
    }
    match unreadable {
        Some(character) => Err(RoutingError::UnreadableDigit { character }),
        None if count > DIGITS_MAX => Err(RoutingError::TooManyDigits { count }),
        None if count == 0 => Ok(None),
        None => Ok(Some(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(number: u8) -> BucketBits {
        BucketBits::new(number).unwrap()
    }

    fn number(uid: &str, n_bits: u8) -> u16 {
        bucket_of(uid, bits(n_bits)).unwrap().number()
    }

    #[test]
    fn numeric_uids_route_by_value() {
        assert_eq!(number("007", 8), 7);
        assert_eq!(number("7", 8), 7);
        assert_eq!(number("18446744073709551616", 8), 0);
        assert_eq!(number("65537", 16), 1);
        assert_eq!(number("123456", 0), 0);
    }

    #[test]
    fn decimals_of_any_script_count() {
        for uid in ["\u{661}\u{662}\u{663}", "\u{ff11}\u{ff12}\u{ff13}", "1\u{968}3"] {
            assert_eq!(number(uid, 8), 123, "{uid}");
        }
    }

    #[test]
    fn other_uids_route_by_crc() {
        assert_eq!(number("\u{e9}", 8), 62);
        assert_eq!(number("e\u{301}", 8), 45);
        for uid in ["-5", "+5", " 12", "12\n", "1_000", "1.0", "\u{bd}", "\u{2167}", "\u{4e94}"] {
            assert_eq!(u32::from(number(uid, 16)), crc32fast::hash(uid.as_bytes()) & 0xffff, "{uid}");
        }
    }

    #[test]
    fn digits_without_a_value_cannot_be_routed() {
        for uid in ["\u{b2}", "\u{2460}", "1\u{b2}"] {
            assert!(matches!(bucket_of(uid, bits(8)), Err(RoutingError::UnreadableDigit { .. })), "{uid}");
        }
        assert!(bucket_of("\u{b2}x", bits(8)).is_ok());
        assert!(bucket_of(&"1".repeat(4_300), bits(8)).is_ok());
        assert_eq!(bucket_of(&"1".repeat(4_301), bits(8)), Err(RoutingError::TooManyDigits { count: 4_301 }));
    }

    #[test]
    fn bucket_names_are_padded_as_the_ancestor_pads_them() {
        for (n_bits, value, name) in [
            (0, 0, "0"),
            (4, 0, "0"),
            (5, 16, "10"),
            (7, 127, "7F"),
            (8, 0, "00"),
            (8, 16, "10"),
            (9, 511, "1FF"),
            (11, 16, "10"),
            (12, 16, "010"),
            (15, 32_767, "7FFF"),
            (16, 16, "0010"),
            (16, 65_535, "FFFF"),
        ] {
            let bucket = Bucket::new(value, bits(n_bits)).unwrap();
            assert_eq!(bucket.hex(bits(n_bits)), name);
            assert_eq!(Bucket::parse_hex(name, bits(n_bits)), Some(bucket));
        }
        assert_eq!(Bucket::parse_hex("0A", bits(4)), None);
        assert_eq!(Bucket::parse_hex("+A", bits(8)), None);
        assert_eq!(Bucket::parse_hex("aa", bits(8)), None);
        assert_eq!(Bucket::new(256, bits(8)), None);
    }
}
