//! Reading and writing of the small numbers that pages and directories are made of. Nothing is read past the end.

use crate::FormatError;

/// Walks over bytes; every step is checked.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Cursor<'a> {
    /// Starts at the beginning of `bytes`; `what` names them in errors.
    pub(super) const fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, what }
    }

    /// An error about what is being read.
    pub(super) fn damaged(&self, detail: impl Into<String>) -> FormatError {
        FormatError::damaged(self.what, detail)
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.damaged(format!("{len} bytes expected where {} are left", self.rest.len())));
        };
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.damaged(format!("{N} bytes expected where {} are left", self.rest.len())));
        };
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    pub(super) fn u8(&mut self) -> Result<u8, FormatError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// Two bytes, little endian.
    pub(super) fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes, little endian.
    pub(super) fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little endian.
    pub(super) fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of 1 to 10 bytes, seven bits each, lowest first (LEB128).
    pub(super) fn varint(&mut self) -> Result<u64, FormatError> {
        let mut value = 0_u64;
        for shift in (0_u32..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            let shifted = bits << shift;
            if shifted >> shift != bits {
                break;
            }
            value |= shifted;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.damaged("a number longer than 64 bits"))
    }

    /// A length or count that must not exceed `max`.
    pub(super) fn varint_up_to(&mut self, max: usize) -> Result<usize, FormatError> {
        let value = self.varint()?;
        match usize::try_from(value) {
            Ok(value) if value <= max => Ok(value),
            Ok(_) | Err(_) => Err(FormatError::beyond_limits(self.what, format!("{value} where {max} is the most"))),
        }
    }

    /// A number with a sign: a varint whose lowest bit is the sign (zigzag).
    pub(super) fn signed(&mut self) -> Result<i64, FormatError> {
        let value = self.varint()?;
        let magnitude = (value >> 1).cast_signed();
        Ok(if value & 1 == 0 { magnitude } else { !magnitude })
    }

    /// The end of what this version knows. More may follow only where the shard says that a later version wrote it.
    pub(super) fn finish(self, extended: bool) -> Result<(), FormatError> {
        if self.rest.is_empty() || extended {
            Ok(())
        } else {
            Err(self.damaged(format!("{} bytes too many", self.rest.len())))
        }
    }
}

/// Appends what [`Cursor::varint`] reads.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Appends what [`Cursor::signed`] reads.
pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_read_back_as_they_are_written(unsigned: u64, signed: i64, small in 0_u64..600) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, unsigned);
            put_signed(&mut bytes, signed);
            put_varint(&mut bytes, small);

            let mut cursor = Cursor::new("test", &bytes);

            prop_assert_eq!(cursor.varint(), Ok(unsigned));
            prop_assert_eq!(cursor.signed(), Ok(signed));
            prop_assert_eq!(cursor.varint(), Ok(small));
            prop_assert!(cursor.finish(false).is_ok());
        }
    }

    #[test]
    fn a_number_longer_than_64_bits_is_refused() {
        let mut cursor = Cursor::new("test", &[0xff; 16]);
        assert!(cursor.varint().is_err());
    }
}
