//! Columns: all values of one kind in a page, each column encoded on its own in whatever way is smallest.
//!
//! ```text
//! bytes   0  as they are
//!         1  compressed    varint len, zstd frame
//!         2  one byte, repeated
//!         3  packed        count - 1 u8, the different bytes ascending, then each byte's rank in just enough bits
//!
//! ints    0  packed        base signed, width u8, then value - base in width bits each
//!         1  planes        base signed, planes u8, then the lowest byte of each value - base, the next higher, ...:
//!                          a byte column each
//!         2  differences   first value signed, then a column of the differences to the value before
//! ```
//!
//! How many values there are is known from elsewhere. A column without values takes no bytes.

use zstd::bulk::Compressor;

use super::bits;
use super::codec;
use super::cursor::{Cursor, put_signed, put_varint};
use crate::FormatError;
use crate::v3::BuildError;

const RAW: u8 = 0;
const COMPRESSED: u8 = 1;
const REPEATED: u8 = 2;
const PACKED: u8 = 3;

const INTS_PACKED: u8 = 0;
const INTS_PLANES: u8 = 1;
const INTS_DIFFERENCES: u8 = 2;

/// Columns are small and written once, read for ever; higher levels gain less than one byte in a hundred.
const LEVEL: i32 = 9;

/// A compressed column takes microseconds more to decode: it must save so many bytes.
const WORTH_LEN: usize = 24;

/// Encodes columns. Holds a compressor, which is costly to make.
pub(super) struct ColumnEncoder {
    compressor: Compressor<'static>,
}

impl ColumnEncoder {
    pub(super) fn new() -> Result<Self, BuildError> {
        Ok(Self { compressor: codec::compressor(LEVEL, None)? })
    }

    /// Appends a column of bytes.
    pub(super) fn bytes(&mut self, out: &mut Vec<u8>, values: &[u8]) -> Result<(), BuildError> {
        let Some((first, others)) = values.split_first() else {
            return Ok(());
        };
        if others.iter().all(|value| value == first) {
            out.extend([REPEATED, *first]);
            return Ok(());
        }
        let alphabet = Alphabet::of(values);
        let packed_len = alphabet.encoded_len(values.len());
        let compressed =
            self.compressor.compress(values).map_err(|error| BuildError::Compressor { detail: error.to_string() })?;
        if compressed.len().saturating_add(WORTH_LEN) <= packed_len.min(values.len()) {
            out.push(COMPRESSED);
            put_varint(out, u64::try_from(compressed.len()).unwrap_or(u64::MAX));
            out.extend(compressed);
        } else if packed_len < values.len() {
            out.push(PACKED);
            alphabet.encode(out, values);
        } else {
            out.push(RAW);
            out.extend_from_slice(values);
        }
        Ok(())
    }

    /// Appends a column of numbers.
    pub(super) fn ints(&mut self, out: &mut Vec<u8>, values: &[i64]) -> Result<(), BuildError> {
        let Some((first, others)) = values.split_first() else {
            return Ok(());
        };
        let plain = self.smaller_ints(values)?;
        if others.is_empty() || plain.len() <= CONSTANT_LEN_MAX {
            out.extend(plain);
            return Ok(());
        }
        let differences: Vec<i64> =
            values.iter().zip(others).map(|(before, value)| value.wrapping_sub(*before)).collect();
        let mut stepped = vec![INTS_DIFFERENCES];
        put_signed(&mut stepped, *first);
        stepped.extend(self.smaller_ints(&differences)?);
        out.extend(if stepped.len() < plain.len() { stepped } else { plain });
        Ok(())
    }

    /// The smaller of packed and planes.
    fn smaller_ints(&mut self, values: &[i64]) -> Result<Vec<u8>, BuildError> {
        let (base, width) = range_of(values);
        let above_base = || values.iter().map(move |value| value.wrapping_sub(base).cast_unsigned());

        let mut packed = vec![INTS_PACKED];
        put_signed(&mut packed, base);
        packed.push(u8::try_from(width).unwrap_or(u8::MAX));
        bits::pack(&mut packed, width, above_base());
        if width <= 1 && packed.len() <= 2 * CONSTANT_LEN_MAX {
            return Ok(packed);
        }

        let mut planes = vec![INTS_PLANES];
        put_signed(&mut planes, base);
        let count = width.div_ceil(8);
        planes.push(u8::try_from(count).unwrap_or(u8::MAX));
        for plane in 0..count {
            let plane: Vec<u8> = above_base().map(|value| byte_of(value, plane)).collect();
            self.bytes(&mut planes, &plane)?;
        }
        Ok(if planes.len() < packed.len() { planes } else { packed })
    }
}

/// A constant column takes at most so much: nothing else could be smaller.
const CONSTANT_LEN_MAX: usize = 12;

/// The smallest value and how many bits the distance to the largest takes.
fn range_of(values: &[i64]) -> (i64, u32) {
    let base = values.iter().copied().min().unwrap_or(0);
    let most = values.iter().copied().max().unwrap_or(0);
    (base, bits::width(most.wrapping_sub(base).cast_unsigned()))
}

fn byte_of(value: u64, plane: u32) -> u8 {
    value.checked_shr(plane.saturating_mul(8)).unwrap_or(0).to_le_bytes()[0]
}

/// The different bytes of a column, ascending.
struct Alphabet {
    letters: Vec<u8>,
    width: u32,
}

impl Alphabet {
    fn of(values: &[u8]) -> Self {
        let mut seen = [false; 256];
        for value in values {
            if let Some(seen) = seen.get_mut(usize::from(*value)) {
                *seen = true;
            }
        }
        let letters: Vec<u8> = (0..=u8::MAX).zip(seen).filter_map(|(letter, seen)| seen.then_some(letter)).collect();
        let width = bits::width(u64::try_from(letters.len().saturating_sub(1)).unwrap_or(u64::MAX));
        Self { letters, width }
    }

    fn encoded_len(&self, count: usize) -> usize {
        bits::packed_len(count, self.width).saturating_add(self.letters.len()).saturating_add(1)
    }

    fn encode(&self, out: &mut Vec<u8>, values: &[u8]) {
        out.push(u8::try_from(self.letters.len().saturating_sub(1)).unwrap_or(u8::MAX));
        out.extend_from_slice(&self.letters);
        let rank = |value: &u8| u64::try_from(self.letters.partition_point(|letter| letter < value)).unwrap_or(0);
        bits::pack(out, self.width, values.iter().map(rank));
    }
}

/// Reads a column of `count` bytes. The caller has checked that `count` is within its limit.
pub(super) fn decode_bytes(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<u8>, FormatError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    match cursor.u8()? {
        RAW => Ok(cursor.take(count)?.to_vec()),
        COMPRESSED => {
            let len = cursor.varint_up_to(count)?;
            let compressed = cursor.take(len)?;
            codec::decompress_zstd(compressed, count, None).map_err(|detail| cursor.damaged(detail))
        }
        REPEATED => Ok(vec![cursor.u8()?; count]),
        PACKED => decode_packed(cursor, count),
        tag => Err(cursor.damaged(format!("a byte column of the unknown kind {tag}"))),
    }
}

fn decode_packed(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<u8>, FormatError> {
    let last_rank = cursor.u8()?;
    let letters = cursor.take(usize::from(last_rank).saturating_add(1))?;
    let width = bits::width(u64::from(last_rank));
    let packed = cursor.take(bits::packed_len(count, width))?;
    // Ranks without a letter stand out by a higher bit, so that one look at the end finds any.
    let mut table = [NO_LETTER; 256];
    for (place, letter) in table.iter_mut().zip(letters) {
        *place = u16::from(*letter);
    }
    // A width that is known when this is compiled halves the time of a lookup.
    let unpack = match width {
        0 | 1 => unpack_letters::<1>,
        2 => unpack_letters::<2>,
        3 => unpack_letters::<3>,
        4 => unpack_letters::<4>,
        5 => unpack_letters::<5>,
        6 => unpack_letters::<6>,
        7 => unpack_letters::<7>,
        _ => unpack_letters::<8>,
    };
    let (values, seen) = unpack(packed, count, &table);
    if seen & NO_LETTER != 0 {
        return Err(cursor.damaged("a rank beyond the end of its alphabet"));
    }
    Ok(values)
}

const NO_LETTER: u16 = 1 << 8;

/// Eight ranks fill `WIDTH` bytes exactly, so they are taken eight at a time.
#[expect(clippy::indexing_slicing, reason = "a table of 256 places is indexed by a byte")]
fn unpack_letters<const WIDTH: usize>(packed: &[u8], count: usize, table: &[u16; 256]) -> (Vec<u8>, u16) {
    let mask = u8::MAX >> 8_usize.saturating_sub(WIDTH);
    let mut values = vec![0; count.next_multiple_of(8)];
    let (groups, _) = values.as_chunks_mut::<8>();
    let mut seen = 0;
    for (number, group) in groups.iter_mut().enumerate() {
        let word = bits::load(packed, number.wrapping_mul(WIDTH));
        for (place, letter) in group.iter_mut().enumerate() {
            let rank = (word >> place.wrapping_mul(WIDTH)).to_le_bytes()[0] & mask;
            let found = table[usize::from(rank)];
            seen |= found;
            *letter = found.to_le_bytes()[0];
        }
    }
    values.truncate(count);
    (values, seen)
}

/// Reads a column of `count` numbers. The caller has checked that `count` is within its limit.
pub(super) fn decode_ints(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<i64>, FormatError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    match cursor.u8()? {
        INTS_DIFFERENCES => {
            let mut value = cursor.signed()?;
            let tag = cursor.u8()?;
            let differences = decode_plain_ints(cursor, tag, count.saturating_sub(1))?;
            let mut values = Vec::with_capacity(count);
            values.push(value);
            values.extend(differences.into_iter().map(|difference| {
                value = value.wrapping_add(difference);
                value
            }));
            Ok(values)
        }
        tag => decode_plain_ints(cursor, tag, count),
    }
}

fn decode_plain_ints(cursor: &mut Cursor<'_>, tag: u8, count: usize) -> Result<Vec<i64>, FormatError> {
    let base = cursor.signed()?;
    match (tag, cursor.u8()?) {
        (INTS_PACKED, width @ 0..=64) => {
            let width = u32::from(width);
            if width == 0 {
                return Ok(vec![base; count]);
            }
            let packed = cursor.take(bits::packed_len(count, width))?;
            let mut values = Vec::with_capacity(count);
            bits::unpack(packed, width, count, |value| values.push(base.wrapping_add(value.cast_signed())));
            Ok(values)
        }
        (INTS_PLANES, planes @ 1..=8) => {
            let mut values = vec![0_u64; count];
            for plane in 0..u32::from(planes) {
                let shift = plane.saturating_mul(8);
                for (value, byte) in values.iter_mut().zip(decode_bytes(cursor, count)?) {
                    *value |= u64::from(byte).checked_shl(shift).unwrap_or(0);
                }
            }
            Ok(values.into_iter().map(|value| base.wrapping_add(value.cast_signed())).collect())
        }
        (tag, detail) => Err(cursor.damaged(format!("a number column of the unknown kind {tag}, {detail}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn encoded(encode: impl FnOnce(&mut ColumnEncoder, &mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut ColumnEncoder::new().unwrap(), &mut out);
        out
    }

    fn ints_round_trip(values: &[i64]) -> Vec<u8> {
        let bytes = encoded(|encoder, out| encoder.ints(out, values).unwrap());
        let mut cursor = Cursor::new("test", &bytes);
        assert_eq!(decode_ints(&mut cursor, values.len()).unwrap(), values);
        cursor.finish(false).unwrap();
        bytes
    }

    fn bytes_round_trip(values: &[u8]) -> Vec<u8> {
        let bytes = encoded(|encoder, out| encoder.bytes(out, values).unwrap());
        let mut cursor = Cursor::new("test", &bytes);
        assert_eq!(decode_bytes(&mut cursor, values.len()).unwrap(), values);
        cursor.finish(false).unwrap();
        bytes
    }

    proptest! {
        #[test]
        fn any_numbers_read_back(values in vec(any::<i64>(), 0..200)) {
            ints_round_trip(&values);
        }

        #[test]
        fn small_numbers_read_back(values in vec(-3_i64..40_000, 0..200)) {
            ints_round_trip(&values);
        }

        #[test]
        fn any_bytes_read_back(values in vec(any::<u8>(), 0..2_000)) {
            bytes_round_trip(&values);
        }

        #[test]
        fn bytes_of_few_letters_read_back(values in vec(b'a'..b'x', 0..2_000), letters in 1_u8..24) {
            let values: Vec<u8> = values.into_iter().map(|value| value % letters).collect();
            bytes_round_trip(&values);
        }

        #[test]
        fn no_bytes_make_a_column_panic(bytes in vec(any::<u8>(), 0..300), count in 0_usize..5_000) {
            drop(decode_ints(&mut Cursor::new("test", &bytes), count));
            drop(decode_bytes(&mut Cursor::new("test", &bytes), count));
        }
    }

    #[test]
    fn a_constant_column_takes_a_few_bytes() {
        assert_eq!(ints_round_trip(&[7; 500]).len(), 3);
        assert_eq!(bytes_round_trip(&[7; 500]).len(), 2);
        assert_eq!(ints_round_trip(&(1_000..1_500).collect::<Vec<_>>()).len(), 6);
        assert_eq!(ints_round_trip(&[]).len(), 0);
    }

    #[test]
    fn hexadecimal_digits_take_half_a_byte_each() {
        let digits: Vec<u8> = (0_u64..1_000)
            .flat_map(|seed| format!("{:016x}", (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_bytes())
            .collect();
        assert!(bytes_round_trip(&digits).len() <= digits.len() / 2 + 20);
    }

    #[test]
    fn one_large_number_does_not_widen_all() {
        let mut values = vec![100_i64; 512];
        values[77] = 1 << 40;
        assert!(ints_round_trip(&values).len() < 200);
    }
}
