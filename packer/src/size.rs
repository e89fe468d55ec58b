//! Sizes as people write and read them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes, written `4096`, `64K`, `64KiB`, `256M` or `1.5G`; units are powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a size such as 65536, 64K, 256M or 1GiB")]
pub struct SizeError {
    text: String,
}

const UNITS: [(&str, u32); 4] = [("K", 10), ("M", 20), ("G", 30), ("T", 40)];

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let error = || SizeError { text: text.to_owned() };
        let upper = text.trim().to_ascii_uppercase();
        let bare = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
        let (digits, shift) =
            UNITS.iter().find_map(|(unit, shift)| Some((bare.strip_suffix(unit)?, *shift))).unwrap_or((bare, 0));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_number(whole) || !is_number(fraction) || fraction.len() > 6 {
            return Err(error());
        }
        // Six decimal places in integers: exact for every size that anyone writes.
        let whole: u128 = whole.parse().map_err(|_| error())?;
        let millionths: u128 = format!("{fraction:0<6}").parse().map_err(|_| error())?;
        let bytes = whole
            .checked_mul(1_000_000)
            .and_then(|scaled| scaled.checked_add(millionths)?.checked_mul(1 << shift))
            .ok_or_else(error)?;
        u64::try_from(bytes / 1_000_000).map(Self).map_err(|_| error())
    }
}

/// `12 B`, `3.4 KiB`, `56.7 MiB`.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().rev().find(|(_, shift)| self.0 >> shift > 0);
        let Some((unit, shift)) = unit else {
            return write!(f, "{} B", self.0);
        };
        let tenths = (u128::from(self.0) * 10) >> shift;
        write!(f, "{}.{} {unit}iB", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4_096),
            ("4096B", 4_096),
            ("64K", 65_536),
            ("64k", 65_536),
            ("64KiB", 65_536),
            ("1.5G", 1_610_612_736),
            ("256MB", 268_435_456),
            ("1T", 1 << 40),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "K", "-1", "1e3", "1.5.5K", "99999999999T", "12Q", ".5K", "+5"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_with_one_decimal() {
        for (bytes, text) in [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (240 << 20, "240.0 MiB")] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }
}
