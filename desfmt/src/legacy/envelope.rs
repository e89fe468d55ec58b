//! The two ends of a shard: what version it is, and where its index lies.
//!
//! ```text
//! 0             magic      [u8; 4]   b"DES2"
//! 4             version    u8        1 or 2
//! 5             reserved   [u8; 3]   zero
//!               payloads, then the index
//! file_len-12   magic      [u8; 4]   b"DESI"
//! file_len- 8   index_len  u64       little endian; the index ends where the footer begins
//! ```

use std::ops::Range;

use super::index::INDEX_LEN_MAX;
use crate::FormatError;

const HEADER_MAGIC: [u8; 4] = *b"DES2";
const FOOTER_MAGIC: [u8; 4] = *b"DESI";

/// Which of the ancestor's index layouts a shard has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegacyVersion {
    /// No metadata, no big files.
    V1,
    /// With metadata and big files.
    V2,
}

impl LegacyVersion {
    /// Its number in the header.
    pub const fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

/// The first bytes of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LegacyHeader {
    /// The layout of the index.
    pub version: LegacyVersion,
}

impl LegacyHeader {
    /// Its length in bytes; payloads begin here.
    pub const LEN: usize = 8;

    /// Reads a header.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, FormatError> {
        let [m0, m1, m2, m3, version, reserved @ ..] = *bytes;
        let magic = [m0, m1, m2, m3];
        if magic != HEADER_MAGIC {
            return Err(FormatError::foreign("shard of version 1 or 2", format!("it begins with {magic:02x?}")));
        }
        let version = match version {
            1 => LegacyVersion::V1,
            2 => LegacyVersion::V2,
            0 => return Err(FormatError::damaged("shard header", "version 0")),
            other => return Err(FormatError::too_new("shard of the ancestor", format!("version {other}"))),
        };
        if reserved != [0; 3] {
            return Err(FormatError::damaged("shard header", format!("reserved bytes are {reserved:02x?}")));
        }
        Ok(Self { version })
    }

    /// Writes a header.
    pub const fn encode(self) -> [u8; Self::LEN] {
        let [m0, m1, m2, m3] = HEADER_MAGIC;
        [m0, m1, m2, m3, self.version.number(), 0, 0, 0]
    }
}

/// The last bytes of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LegacyFooter {
    /// Length of the index in bytes.
    pub index_len: u64,
}

impl LegacyFooter {
    /// Its length in bytes.
    pub const LEN: usize = 12;

    /// Reads a footer.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, FormatError> {
        let [m0, m1, m2, m3, index_len @ ..] = *bytes;
        let magic = [m0, m1, m2, m3];
        if magic != FOOTER_MAGIC {
            // What a pack run leaves that died half way: payloads, and nothing that says where they are.
            return Err(FormatError::damaged("shard footer", format!("magic is {magic:02x?}")));
        }
        Ok(Self { index_len: u64::from_le_bytes(index_len) })
    }

    /// Writes a footer.
    pub fn encode(self) -> [u8; Self::LEN] {
        let [m0, m1, m2, m3] = FOOTER_MAGIC;
        let [l0, l1, l2, l3, l4, l5, l6, l7] = self.index_len.to_le_bytes();
        [m0, m1, m2, m3, l0, l1, l2, l3, l4, l5, l6, l7]
    }

    /// Where the index lies in a file of this length. The index is one that can be read into memory.
    pub fn index_range(self, file_len: u64) -> Result<Range<u64>, FormatError> {
        let end = file_len.checked_sub(12);
        match end.and_then(|end| Some((end.checked_sub(self.index_len)?, end))) {
            Some((start, end)) if start >= 8 => {
                if self.index_len > INDEX_LEN_MAX {
                    let detail = format!("{} bytes, at most {INDEX_LEN_MAX} are read", self.index_len);
                    return Err(FormatError::beyond_limits("shard index", detail));
                }
                Ok(start..end)
            }
            Some(_) | None => {
                let detail = format!("an index of {} bytes does not fit a file of {file_len}", self.index_len);
                Err(FormatError::damaged("shard footer", detail))
            }
        }
    }
}

const _: () = assert!(LegacyFooter::LEN == FOOTER_MAGIC.len() + size_of::<u64>());
const _: () = assert!(LegacyHeader::LEN == HEADER_MAGIC.len() + 4);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_of_another_kind_version_or_with_reserved_bytes_is_refused() {
        assert_eq!(LegacyHeader::decode(b"DES2\x01\0\0\0").unwrap().version, LegacyVersion::V1);
        assert_eq!(LegacyHeader::decode(b"DES2\x02\0\0\0").unwrap().encode(), *b"DES2\x02\0\0\0");
        assert!(matches!(LegacyHeader::decode(b"DES3\x02\0\0\0"), Err(FormatError::Foreign { .. })));
        assert!(matches!(LegacyHeader::decode(b"DES2\x03\0\0\0"), Err(FormatError::TooNew { .. })));
        assert!(matches!(LegacyHeader::decode(b"DES2\x00\0\0\0"), Err(FormatError::Damaged { .. })));
        assert!(matches!(LegacyHeader::decode(b"DES2\x02\0\x01\0"), Err(FormatError::Damaged { .. })));
    }

    #[test]
    fn an_index_lies_between_the_header_and_the_footer() {
        assert_eq!(LegacyFooter { index_len: 4 }.index_range(24), Ok(8..12));
        for (index_len, file_len) in [(5, 24), (4, 23), (u64::MAX, 4_096), (0, 11), (0, 0)] {
            let refused = LegacyFooter { index_len }.index_range(file_len);
            assert!(matches!(refused, Err(FormatError::Damaged { .. })), "{index_len} of {file_len}: {refused:?}");
        }
        let refused = LegacyFooter { index_len: INDEX_LEN_MAX + 1 }.index_range(u64::MAX);
        assert!(matches!(refused, Err(FormatError::BeyondLimits { .. })));
    }

    proptest! {
        #[test]
        fn a_footer_reads_back_as_it_is_written(index_len: u64) {
            let footer = LegacyFooter { index_len };
            prop_assert_eq!(LegacyFooter::decode(&footer.encode()), Ok(footer));
        }
    }
}
