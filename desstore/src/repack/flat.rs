//! A shard of the ancestor in a local file, and the big files that it names.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use desfmt::legacy::{
    BigFileHash, LegacyCodec, LegacyEntry, LegacyFooter, LegacyHeader, LegacyIndex, Location, check_compressed_len,
    decode_payload,
};
use desfmt::{FormatError, ObjectKey};

use crate::archive::ArchiveError;
use crate::repack::local::{SpoolFile, read_at, spool_error};

/// How much of a content that is stored as it is is read at a time.
const PART_BYTES: u64 = 1 << 20;

/// A shard of version 1 or 2.
#[derive(Debug)]
pub(super) struct FlatShard {
    key: ObjectKey,
    file: File,
    index: LegacyIndex,
    /// The big files that were fetched.
    big: HashMap<BigFileHash, SpoolFile>,
}

impl FlatShard {
    /// Opens a file that holds a whole shard.
    pub(super) fn open(file: File, key: &ObjectKey) -> Result<Self, ArchiveError> {
        let name = key.as_str();
        let damaged = |error: FormatError| ArchiveError::damaged(key, error);
        let len = file.metadata().map_err(|error| spool_error(Path::new(name), error))?.len();
        let cut = || damaged(FormatError::damaged("shard", format!("{len} bytes are too few")));
        let wide = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        let (header_len, footer_len) = (wide(LegacyHeader::LEN), wide(LegacyFooter::LEN));
        if len < header_len.saturating_add(footer_len) {
            return Err(cut());
        }
        let header = read_at(&file, 0..header_len, name)?;
        let header = LegacyHeader::decode(header.first_chunk().ok_or_else(cut)?).map_err(damaged)?;
        let footer = read_at(&file, len.saturating_sub(footer_len)..len, name)?;
        let footer = LegacyFooter::decode(footer.first_chunk().ok_or_else(cut)?);
        let range = footer.and_then(|footer| footer.index_range(len)).map_err(damaged)?;
        let start = range.start;
        let index = Bytes::from(read_at(&file, range, name)?);
        let index = LegacyIndex::parse(header.version, index, start).map_err(damaged)?;
        Ok(Self { key: key.clone(), file, index, big: HashMap::new() })
    }

    pub(super) const fn index(&self) -> &LegacyIndex {
        &self.index
    }

    /// Takes a big file that is proven to be of its name.
    pub(super) fn take_big_file(&mut self, hash: BigFileHash, file: SpoolFile) {
        self.big.insert(hash, file);
    }

    /// Hands out the first bytes of a content, at most `len` of them, in parts.
    pub(super) fn each_part(
        &self,
        entry: &LegacyEntry<'_>,
        len: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let len = len.min(entry.location.plain_len());
        match entry.location {
            Location::Inline { offset, codec: LegacyCodec::Stored, .. } => {
                each_part_of(&self.file, offset, len, self.key.as_str(), take)
            }
            Location::Inline { offset, stored_len, codec, plain_len } => {
                check_compressed_len(stored_len).map_err(|error| self.damaged(error))?;
                let stored = read_at(&self.file, offset..offset.saturating_add(stored_len), self.key.as_str())?;
                let plain = decode_payload(codec, &stored, plain_len).map_err(|error| self.damaged(error))?;
                take(plain.get(..usize::try_from(len).unwrap_or(usize::MAX)).unwrap_or(&plain))
            }
            Location::BigFile { hash, .. } => {
                let missing = || ArchiveError::inconsistent(&self.key, format!("big file {hash} was not fetched"));
                let place = self.big.get(&hash).ok_or_else(missing)?;
                let file = File::open(place.path()).map_err(|error| place.error(error))?;
                each_part_of(&file, 0, len, &place.path().to_string_lossy(), take)
            }
        }
    }

    fn damaged(&self, error: FormatError) -> ArchiveError {
        ArchiveError::damaged(&self.key, error)
    }
}

fn each_part_of(
    file: &File,
    offset: u64,
    len: u64,
    name: &str,
    take: &mut dyn FnMut(&[u8]) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    let end = offset.saturating_add(len);
    let mut at = offset;
    while at < end {
        let to = at.saturating_add(PART_BYTES).min(end);
        take(&read_at(file, at..to, name)?)?;
        at = to;
    }
    Ok(())
}
