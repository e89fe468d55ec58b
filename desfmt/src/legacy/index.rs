//! The index of a shard of version 1 or 2: which uid lies where.
//!
//! ```text
//! entry_count u32, then per entry, in the order written:
//!   name_len u16, uid (UTF-8)
//!   v2:  flags u8, bit 0 = big file
//!   inline:    offset u64, length u64, codec u8, stored_len u64, plain_len u64
//!   big file:  hash_len u16, hash (64 hexadecimal digits), len u64
//!   v2:  meta_len u32, meta (a JSON object)
//! ```
//!
//! The bytes are checked whole, once, and then kept as they are: per entry only where its record begins and its place
//! in the order of uids are added (8 bytes), and a lookup is a binary search.

use std::cmp::Ordering;
use std::mem::size_of;

use bytes::Bytes;

use super::big_file::BigFileHash;
use super::cursor::Cursor;
use super::envelope::{LegacyHeader, LegacyVersion};
use super::json;
use super::payload::LegacyCodec;
use crate::instant::parse_created_at;
use crate::{Birth, FormatError, Timestamp, Uid};

/// The longest index that is read, in bytes. At 60 bytes an entry this is a shard of 4,000,000 files.
pub const INDEX_LEN_MAX: u64 = 256 << 20;

const WHAT: &str = "shard index";

/// Where the content of an entry lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// In the shard itself.
    Inline {
        /// Where its stored bytes begin in the shard.
        offset: u64,
        /// How many there are.
        stored_len: u64,
        /// How they are compressed.
        codec: LegacyCodec,
        /// How long the content is.
        plain_len: u64,
    },
    /// In an object of its own beside the shard, as it is.
    BigFile {
        /// Its name and SHA-256.
        hash: BigFileHash,
        /// How long it is.
        len: u64,
    },
}

impl Location {
    /// How long the content is.
    pub const fn plain_len(&self) -> u64 {
        match self {
            Self::Inline { plain_len, .. } => *plain_len,
            Self::BigFile { len, .. } => *len,
        }
    }
}

/// One file of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LegacyEntry<'a> {
    /// Its uid, never empty.
    pub uid: &'a str,
    /// Its place in the order in which the shard was written, which never changes.
    pub ordinal: u32,
    /// Where its content lies.
    pub location: Location,
    /// A JSON object in the ancestor's dialect.
    pub metadata: Option<&'a str>,
}

impl LegacyEntry<'_> {
    /// What its metadata says of the time of its creation, if anything that can be read. A time without zone is UTC.
    pub fn created_at(&self) -> Option<Timestamp> {
        json::text_field(self.metadata?, "created_at")
            .and_then(|text| parse_created_at(&text).ok())
            .map(|instant| instant.or_utc())
    }
}

/// All files of a shard, by uid and by ordinal.
#[derive(Debug, Clone)]
pub struct LegacyIndex {
    bytes: Bytes,
    version: LegacyVersion,
    /// Where each record begins in `bytes`, by ordinal.
    records: Box<[u32]>,
    /// The ordinals of the entries that can be reached, in the order of their uids.
    by_uid: Box<[u32]>,
    skipped: u32,
    shadowed: u32,
}

impl LegacyIndex {
    /// Reads an index that begins at `index_offset` in its shard.
    ///
    /// Where a uid occurs twice the later entry counts, as for the ancestor. Entries with an empty uid cannot be
    /// reached by any name; they are counted ([`LegacyIndex::skipped`]).
    pub fn parse(version: LegacyVersion, bytes: Bytes, index_offset: u64) -> Result<Self, FormatError> {
        if u64::try_from(bytes.len()).is_ok_and(|len| len > INDEX_LEN_MAX) {
            let detail = format!("{} bytes, at most {INDEX_LEN_MAX} are read", bytes.len());
            return Err(FormatError::beyond_limits(WHAT, detail));
        }
        let mut cursor = Cursor(&bytes);
        let count = cursor.u32().ok_or_else(|| FormatError::damaged(WHAT, "it has no count"))?;
        check_count(count, version, cursor.0.len())?;
        let mut records = Vec::new();
        let mut by_uid = Vec::new();
        let mut skipped = 0_u32;
        for ordinal in 0..count {
            let at = bytes.len().saturating_sub(cursor.0.len());
            let record = Record::read(&mut cursor, version)
                .and_then(|record| record.check(index_offset).map(|()| record))
                .map_err(|reason| FormatError::damaged(WHAT, format!("entry {ordinal}: {reason}")))?;
            records.push(u32::try_from(at).unwrap_or(u32::MAX));
            if record.uid.is_empty() {
                skipped = skipped.saturating_add(1);
            } else {
                by_uid.push(ordinal);
            }
        }
        if !cursor.0.is_empty() {
            return Err(FormatError::damaged(WHAT, format!("{} bytes are left over", cursor.0.len())));
        }
        let mut index = Self { bytes, version, records: records.into(), by_uid: Box::default(), skipped, shadowed: 0 };
        let reachable = by_uid.len();
        by_uid.sort_unstable_by(|a, b| index.uid_bytes(*a).cmp(&index.uid_bytes(*b)).then(a.cmp(b)));
        by_uid.dedup_by(|later, kept| {
            let same = index.uid_bytes(*later) == index.uid_bytes(*kept);
            if same {
                *kept = *later;
            }
            same
        });
        index.shadowed = u32::try_from(reachable.saturating_sub(by_uid.len())).unwrap_or(u32::MAX);
        index.by_uid = by_uid.into();
        Ok(index)
    }

    /// The entry of a uid.
    pub fn find(&self, uid: &str) -> Option<LegacyEntry<'_>> {
        let found = self.by_uid.binary_search_by(|ordinal| self.compare(*ordinal, uid)).ok()?;
        self.entry(found)
    }

    /// How many entries have a uid before this one: where a walk from it begins.
    pub fn lower_bound(&self, uid: &str) -> usize {
        self.by_uid.partition_point(|ordinal| self.compare(*ordinal, uid) == Ordering::Less)
    }

    /// The entry at a place in the order of uids.
    pub fn entry(&self, place: usize) -> Option<LegacyEntry<'_>> {
        self.decode(*self.by_uid.get(place)?)
    }

    /// The entry that was written at this place, unless a later one has its uid.
    pub fn by_ordinal(&self, ordinal: u32) -> Option<LegacyEntry<'_>> {
        let entry = self.decode(ordinal)?;
        self.find(entry.uid).filter(|found| found.ordinal == ordinal)
    }

    /// All entries in the order of their uids.
    pub fn iter(&self) -> impl Iterator<Item = LegacyEntry<'_>> {
        self.by_uid.iter().filter_map(|ordinal| self.decode(*ordinal))
    }

    /// How many files can be reached.
    pub fn len(&self) -> usize {
        self.by_uid.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.by_uid.is_empty()
    }

    /// How many ordinals were given out: one more than the largest of any entry.
    pub fn ordinals(&self) -> u32 {
        u32::try_from(self.records.len()).unwrap_or(u32::MAX)
    }

    /// How many entries no name can reach, because their uid is empty.
    pub const fn skipped(&self) -> u32 {
        self.skipped
    }

    /// How many entries are hidden by a later one with the same uid.
    pub const fn shadowed(&self) -> u32 {
        self.shadowed
    }

    /// What it occupies in memory.
    pub fn memory_bytes(&self) -> usize {
        let ordinals = self.records.len().saturating_add(self.by_uid.len());
        ordinals.saturating_mul(size_of::<u32>()).saturating_add(self.bytes.len()).saturating_add(size_of::<Self>())
    }

    fn record_bytes(&self, ordinal: u32) -> Option<&[u8]> {
        let at = self.records.get(usize::try_from(ordinal).ok()?)?;
        self.bytes.get(usize::try_from(*at).ok()?..)
    }

    fn uid_bytes(&self, ordinal: u32) -> Option<&[u8]> {
        let mut cursor = Cursor(self.record_bytes(ordinal)?);
        let len = cursor.u16()?;
        cursor.take(usize::from(len))
    }

    fn compare(&self, ordinal: u32, uid: &str) -> Ordering {
        self.uid_bytes(ordinal).cmp(&Some(uid.as_bytes()))
    }

    fn decode(&self, ordinal: u32) -> Option<LegacyEntry<'_>> {
        let record = Record::read(&mut Cursor(self.record_bytes(ordinal)?), self.version).ok()?;
        let Record { uid, location, metadata } = record;
        Some(LegacyEntry { uid, ordinal, location, metadata })
    }
}

/// A count is believed only when its entries can be there and each can have a birth number.
fn check_count(count: u32, version: LegacyVersion, len: usize) -> Result<(), FormatError> {
    let entry_len_min = match version {
        LegacyVersion::V1 => 35,
        LegacyVersion::V2 => 40,
    };
    let len_min = usize::try_from(count).ok().and_then(|count| count.checked_mul(entry_len_min));
    if len_min.is_none_or(|len_min| len_min > len) {
        return Err(FormatError::damaged(WHAT, format!("{count} entries in {len} bytes")));
    }
    if count > Birth::ORDINAL_MAX.saturating_add(1) {
        let detail = format!("{count} entries, at most {} are read", Birth::ORDINAL_MAX.saturating_add(1));
        return Err(FormatError::beyond_limits(WHAT, detail));
    }
    Ok(())
}

/// An entry as it lies in the bytes.
struct Record<'a> {
    uid: &'a str,
    location: Location,
    metadata: Option<&'a str>,
}

impl<'a> Record<'a> {
    /// Takes an entry off the bytes. Checks what every later reading needs; the rest is [`Record::check`]'s.
    fn read(cursor: &mut Cursor<'a>, version: LegacyVersion) -> Result<Self, String> {
        let uid_len = cursor.u16().ok_or_else(cut)?;
        let uid = cursor.take(usize::from(uid_len)).ok_or_else(cut)?;
        let uid = str::from_utf8(uid).map_err(|error| format!("uid: {error}"))?;
        let (location, metadata) = match version {
            LegacyVersion::V1 => (Self::read_inline(cursor)?, None),
            LegacyVersion::V2 => {
                let flags = cursor.u8().ok_or_else(cut)?;
                let is_big_file = flags & 1 != 0; // the other bits mean nothing to the ancestor
                let location = if is_big_file { Self::read_big_file(cursor)? } else { Self::read_inline(cursor)? };
                (location, Self::read_metadata(cursor)?)
            }
        };
        Ok(Self { uid, location, metadata })
    }

    fn read_inline(cursor: &mut Cursor<'a>) -> Result<Location, String> {
        let offset = cursor.u64().ok_or_else(cut)?;
        let length = cursor.u64().ok_or_else(cut)?;
        let codec = cursor.u8().ok_or_else(cut)?;
        let stored_len = cursor.u64().ok_or_else(cut)?;
        let plain_len = cursor.u64().ok_or_else(cut)?;
        if length != stored_len {
            // The ancestor's two readers disagree on which of them counts, and its writers never let them differ.
            return Err(format!("length is {length} and the compressed size {stored_len}"));
        }
        let codec = LegacyCodec::from_number(codec).ok_or_else(|| format!("codec {codec} is unknown"))?;
        Ok(Location::Inline { offset, stored_len, codec, plain_len })
    }

    fn read_big_file(cursor: &mut Cursor<'a>) -> Result<Location, String> {
        let hash_len = cursor.u16().ok_or_else(cut)?;
        let hash = cursor.take(usize::from(hash_len)).ok_or_else(cut)?;
        let hash = BigFileHash::parse(hash).map_err(|error| error.to_string())?;
        let len = cursor.u64().ok_or_else(cut)?;
        Ok(Location::BigFile { hash, len })
    }

    fn read_metadata(cursor: &mut Cursor<'a>) -> Result<Option<&'a str>, String> {
        let len = cursor.u32().ok_or_else(cut)?;
        let text = usize::try_from(len).ok().and_then(|len| cursor.take(len)).ok_or_else(cut)?;
        let text = str::from_utf8(text).map_err(|error| format!("metadata: {error}"))?;
        Ok((!text.is_empty()).then_some(text))
    }

    /// Checks what only has to be checked once.
    fn check(&self, index_offset: u64) -> Result<(), String> {
        if let Location::Inline { offset, stored_len, codec, plain_len } = self.location {
            let data = u64::try_from(LegacyHeader::LEN).unwrap_or(u64::MAX)..=index_offset;
            if !data.contains(&offset) || offset.checked_add(stored_len).is_none_or(|end| end > index_offset) {
                return Err(format!("{stored_len} bytes at {offset} do not lie before the index at {index_offset}"));
            }
            if codec == LegacyCodec::Stored && stored_len != plain_len {
                return Err(format!("{stored_len} bytes are stored uncompressed for a file of {plain_len}"));
            }
        }
        match self.metadata {
            Some(text) if !json::is_object(text) => Err("the metadata is no JSON object".to_owned()),
            Some(_) | None => Ok(()),
        }
    }
}

fn cut() -> String {
    "it is cut off".to_owned()
}

const _: () = assert!(Uid::LEN_MAX == 65_535, "every length that name_len can hold is a uid's");

#[cfg(test)]
mod tests;
