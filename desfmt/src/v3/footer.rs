//! The last bytes of a shard: its name, and where everything in it lies.
//!
//! ```text
//!   0  magic             [u8; 8]   "DES3FOOT"
//!   8  version           u32       3
//!  12  incompatible      u32       flags of which each must be known to the reader
//!  16  compatible        u32       flags that a reader may ignore
//!  20  archive           [u8; 16]  identity of the archive
//!  36  shard id          [u8; 16]  follows from archive and body digest
//!  52  body digest       [u8; 32]  BLAKE3 of everything before the footer
//!  84  date              u32       day number, 1 = 0001-01-01
//!  88  bucket            u16       below 2^bits
//!  90  bits              u8        0 to 16
//!  91  codec             u8        0 stored, 1 zstd, 2 lz4
//!  92  split             u32
//!  96  repack            u32
//! 100  entries           u32       0 to 2^22
//! 104  frames            u32       0 to 2^26
//! 108  index pages       u32       0 to 2^16; as many cold pages
//! 112  origins           u32       0 for a shard that was never repacked, at most 1,024
//! 116  dictionary crc    u32       CRC-32C of the dictionary section
//! 120  directory crc     u32       CRC-32C of the directory section
//! 124  plain len         u64       plain bytes of all frames
//! 132  content len       u64       plain bytes of all entries; shared ones count each time
//! 140  object len        u64       bytes of the whole shard, footer included
//! 148  cold offset       u64       where the cold pages begin and the frames end
//! 156  index offset      u64       where the index pages begin
//! 164  frame table       u64       where the pages of the frame table begin
//! 172  dictionary        u64       where the dictionary begins
//! 180  directory         u64       where the directory begins; it ends where the footer begins
//! 188  tail len          u64       bytes to load when opening, footer included
//! 196  reserved          [u8; 56]  zero
//! 252  crc               u32       CRC-32C of all before
//! ```

use std::ops::Range;

use super::codec::Codec;
use super::cursor::Cursor;
use super::header::{Features, HEADER_LEN, VERSION, checked_cursor};
use super::limits::{
    DIRECTORY_LEN_MAX, ENTRIES_MAX, FRAMES_MAX, INDEX_PAGES_MAX, ORIGINS_MAX, PAGE_FRAMES, TAIL_LEN_MAX,
};
use crate::FormatError;
use crate::ids::{ArchiveId, Digest, ShardId};
use crate::layout::ShardName;
use crate::routing::{Bucket, BucketBits, Group};
use crate::time::Date;
use crate::v3::to_u64;

/// Bytes of a footer.
pub const FOOTER_LEN: usize = 256;

const MAGIC: [u8; 8] = *b"DES3FOOT";
const RESERVED_LEN: usize = 56;
const WHAT: &str = "shard footer";

/// The last bytes of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// What a later version may have added.
    pub features: Features,
    /// The archive that the shard belongs to.
    pub archive: ArchiveId,
    /// Its identity.
    pub shard_id: ShardId,
    /// BLAKE3 of everything before the footer.
    pub body_digest: Digest,
    /// Its name.
    pub name: ShardName,
    /// What its frames are compressed with.
    pub codec: Codec,
    /// How many files it holds.
    pub entries: u32,
    /// How many frames.
    pub frames: u32,
    /// Plain bytes of all frames.
    pub plain_len: u64,
    /// Plain bytes of all entries; content that several share counts for each.
    pub content_len: u64,
    /// Bytes of the whole object.
    pub object_len: u64,
    /// Bytes that opening the shard takes, at the end of the object, this footer among them.
    pub tail_len: u64,
    pub(super) index_pages: u32,
    pub(super) origins: u32,
    pub(super) dictionary_crc: u32,
    pub(super) directory_crc: u32,
    pub(super) sections: Sections,
}

/// Where the parts of a shard begin; each ends where the next one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sections {
    pub(super) cold: u64,
    pub(super) index: u64,
    pub(super) frame_table: u64,
    pub(super) dictionary: u64,
    pub(super) directory: u64,
    pub(super) footer: u64,
}

impl Footer {
    /// Its bytes.
    pub fn encode(&self) -> [u8; FOOTER_LEN] {
        let mut bytes = Vec::with_capacity(FOOTER_LEN);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.features.incompatible.to_le_bytes());
        bytes.extend(self.features.compatible.to_le_bytes());
        bytes.extend(self.archive.bytes());
        bytes.extend(self.shard_id.bytes());
        bytes.extend(self.body_digest.as_bytes());
        bytes.extend(self.name.group.date.number().to_le_bytes());
        bytes.extend(self.name.group.bucket.number().to_le_bytes());
        bytes.extend([self.name.group.bits.get(), self.codec.number()]);
        for number in [
            self.name.split,
            self.name.repack,
            self.entries,
            self.frames,
            self.index_pages,
            self.origins,
            self.dictionary_crc,
            self.directory_crc,
        ] {
            bytes.extend(number.to_le_bytes());
        }
        let Sections { cold, index, frame_table, dictionary, directory, footer: _ } = self.sections;
        let offsets = [cold, index, frame_table, dictionary, directory];
        for number in [self.plain_len, self.content_len, self.object_len].into_iter().chain(offsets) {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.tail_len.to_le_bytes());
        bytes.extend([0; RESERVED_LEN]);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());

        let mut footer = [0; FOOTER_LEN];
        for (place, byte) in footer.iter_mut().zip(bytes) {
            *place = byte;
        }
        footer
    }

    /// Reads a footer: the last [`FOOTER_LEN`] bytes of a shard.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = checked_cursor(WHAT, MAGIC, FOOTER_LEN, bytes)?;
        let version = cursor.u32()?;
        let features = Features { incompatible: cursor.u32()?, compatible: cursor.u32()? };
        features.check(WHAT, version)?;
        let archive = ArchiveId::from_bytes(cursor.array()?);
        let shard_id = ShardId::from_bytes(cursor.array()?);
        let body_digest = Digest::from_bytes(cursor.array()?);
        let group = decode_group(&mut cursor)?;
        let codec = Codec::from_number(cursor.u8()?)?;
        let name = ShardName { group, split: cursor.u32()?, repack: cursor.u32()? };
        let (entries, frames) = (cursor.u32()?, cursor.u32()?);
        let (index_pages, origins) = (cursor.u32()?, cursor.u32()?);
        let (dictionary_crc, directory_crc) = (cursor.u32()?, cursor.u32()?);
        let (plain_len, content_len, object_len) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
        let sections = Sections {
            cold: cursor.u64()?,
            index: cursor.u64()?,
            frame_table: cursor.u64()?,
            dictionary: cursor.u64()?,
            directory: cursor.u64()?,
            footer: object_len.checked_sub(to_u64(FOOTER_LEN)).ok_or_else(|| cursor.damaged("no room for a body"))?,
        };
        let tail_len = cursor.u64()?;
        let reserved: [u8; RESERVED_LEN] = cursor.array()?;
        if reserved.iter().any(|byte| *byte != 0) && !features.extended() {
            return Err(cursor.damaged("reserved bytes that are not zero"));
        }
        let footer = Self {
            features,
            archive,
            shard_id,
            body_digest,
            name,
            codec,
            entries,
            frames,
            plain_len,
            content_len,
            object_len,
            tail_len,
            index_pages,
            origins,
            dictionary_crc,
            directory_crc,
            sections,
        };
        footer.check_relations()?;
        Ok(footer)
    }

    fn check_relations(&self) -> Result<(), FormatError> {
        let counts = [
            ("entries", self.entries, ENTRIES_MAX),
            ("frames", self.frames, FRAMES_MAX),
            ("index pages", self.index_pages, INDEX_PAGES_MAX),
            ("origins", self.origins, ORIGINS_MAX),
        ];
        for (what, count, most) in counts {
            if count > most {
                return Err(FormatError::beyond_limits(WHAT, format!("{count} {what} where {most} are the most")));
            }
        }
        let sections = &self.sections;
        let borders = [
            to_u64(HEADER_LEN),
            sections.cold,
            sections.index,
            sections.frame_table,
            sections.dictionary,
            sections.directory,
            sections.footer,
        ];
        if !borders.is_sorted() {
            return Err(FormatError::damaged(WHAT, format!("sections out of order: {borders:?}")));
        }
        let directory_len = sections.footer.saturating_sub(sections.directory);
        if self.tail_len > TAIL_LEN_MAX || directory_len > DIRECTORY_LEN_MAX {
            let detail = format!("a tail of {} bytes, a directory of {directory_len}", self.tail_len);
            return Err(FormatError::beyond_limits(WHAT, detail));
        }
        let tail_start = self.object_len.checked_sub(self.tail_len);
        if tail_start != Some(sections.index) && tail_start != Some(sections.dictionary) {
            return Err(FormatError::damaged(WHAT, format!("a tail of {} bytes begins nowhere", self.tail_len)));
        }
        if self.shard_id != ShardId::of_body(self.archive, &self.body_digest) {
            return Err(FormatError::damaged(WHAT, "identity and digest do not belong together"));
        }
        Ok(())
    }

    /// How many pages the frame table has.
    pub(super) const fn frame_pages(&self) -> u32 {
        self.frames.div_ceil(PAGE_FRAMES)
    }

    /// Where the tail begins in the object.
    pub fn tail_range(&self) -> Range<u64> {
        self.object_len.saturating_sub(self.tail_len)..self.object_len
    }

    /// Where the frames lie in the object, one after the other without gaps.
    pub fn frames_range(&self) -> Range<u64> {
        to_u64(HEADER_LEN)..self.sections.cold
    }

    /// Bytes that the frames take as stored.
    pub fn stored_len(&self) -> u64 {
        self.sections.cold.saturating_sub(to_u64(HEADER_LEN))
    }
}

fn decode_group(cursor: &mut Cursor<'_>) -> Result<Group, FormatError> {
    let (date, bucket, bits) = (cursor.u32()?, cursor.u16()?, cursor.u8()?);
    let group = || {
        let bits = BucketBits::new(bits)?;
        Some(Group { date: Date::from_number(date)?, bucket: Bucket::new(u32::from(bucket), bits)?, bits })
    };
    group().ok_or_else(|| cursor.damaged(format!("no group has day {date}, bucket {bucket}, {bits} bits")))
}
