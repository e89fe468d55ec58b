//! The first bytes of a shard: what it is and whose.
//!
//! ```text
//!  0  magic          [u8; 8]   "DES3SHRD"
//!  8  version        u32       3
//! 12  incompatible   u32       flags of which each must be known to the reader
//! 16  compatible     u32       flags that a reader may ignore
//! 20  archive        [u8; 16]  identity of the archive
//! 36  reserved       [u8; 24]  zero
//! 60  crc            u32       CRC-32C of all before
//! ```

use super::cursor::Cursor;
use crate::FormatError;
use crate::ids::ArchiveId;

/// Bytes of a header.
pub const HEADER_LEN: usize = 64;

const MAGIC: [u8; 8] = *b"DES3SHRD";
const RESERVED_LEN: usize = 24;

/// The version that is written.
pub(super) const VERSION: u32 = 3;

/// What a later version may have added to a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features {
    /// Flags of which each must be known to the reader. None is defined yet.
    pub incompatible: u32,
    /// Flags that a reader may ignore. None is defined yet.
    pub compatible: u32,
}

impl Features {
    /// True when fields and columns that this reader does not know may follow those that it does.
    pub(super) const fn extended(self) -> bool {
        self.compatible != 0
    }

    /// Refuses what this version cannot read.
    pub(super) fn check(self, what: &'static str, version: u32) -> Result<(), FormatError> {
        if version != VERSION {
            return Err(FormatError::too_new(what, format!("version {version}, this reader knows {VERSION}")));
        }
        if self.incompatible != 0 {
            return Err(FormatError::too_new(what, format!("incompatible features {:#x}", self.incompatible)));
        }
        Ok(())
    }
}

/// The first bytes of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What a later version may have added.
    pub features: Features,
    /// The archive that the shard belongs to.
    pub archive: ArchiveId,
}

impl Header {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.features.incompatible.to_le_bytes());
        bytes.extend(self.features.compatible.to_le_bytes());
        bytes.extend(self.archive.bytes());
        bytes.extend([0; RESERVED_LEN]);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// Reads a header.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        const WHAT: &str = "shard header";
        let mut cursor = checked_cursor(WHAT, MAGIC, HEADER_LEN, bytes)?;
        let version = cursor.u32()?;
        let features = Features { incompatible: cursor.u32()?, compatible: cursor.u32()? };
        features.check(WHAT, version)?;
        let archive = ArchiveId::from_bytes(cursor.array()?);
        let reserved: [u8; RESERVED_LEN] = cursor.array()?;
        if reserved.iter().any(|byte| *byte != 0) && !features.extended() {
            return Err(FormatError::damaged(WHAT, "reserved bytes that are not zero"));
        }
        Ok(Self { features, archive })
    }
}

/// The bytes after the magic of a block that ends with its checksum.
pub(super) fn checked_cursor<'a>(
    what: &'static str,
    magic: [u8; 8],
    len: usize,
    bytes: &'a [u8],
) -> Result<Cursor<'a>, FormatError> {
    if bytes.len() != len {
        return Err(FormatError::damaged(what, format!("{} bytes where {len} were expected", bytes.len())));
    }
    let Some((covered, crc)) = bytes.split_last_chunk() else {
        return Err(FormatError::damaged(what, "too short"));
    };
    let mut cursor = Cursor::new(what, covered);
    let found: [u8; 8] = cursor.array()?;
    if found != magic {
        return Err(FormatError::foreign(what, format!("it begins with {}", found.escape_ascii())));
    }
    if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
        return Err(FormatError::damaged(what, "its checksum is wrong"));
    }
    Ok(cursor)
}

const _: () = assert!(HEADER_LEN == MAGIC.len() + 3 * size_of::<u32>() + 16 + RESERVED_LEN + size_of::<u32>());

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: Header =
        Header { features: Features { incompatible: 0, compatible: 0 }, archive: ArchiveId::from_bytes([5; 16]) };

    #[test]
    fn a_header_reads_back_as_it_is_written() {
        assert_eq!(Header::decode(&HEADER.encode()), Ok(HEADER));
    }

    #[test]
    fn an_unknown_incompatible_feature_is_too_new_and_a_compatible_one_is_ignored() {
        let with = |features| Header::decode(&Header { features, ..HEADER }.encode());
        let refused = with(Features { incompatible: 1 << 31, compatible: 0 });
        assert!(matches!(refused, Err(FormatError::TooNew { .. })));
        let features = Features { incompatible: 0, compatible: 1 << 31 };
        assert_eq!(with(features), Ok(Header { features, ..HEADER }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_header_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(Header::decode(&bytes).is_err());
        }
    }
}
