//! Writes a shard of version 2 as the ancestor's writer does.
//!
//! The caller moves the bytes: the header, then the payloads in the order in which they are pushed here, then what
//! [`LegacyWriter::finish`] returns.

use std::collections::HashSet;

use super::big_file::BigFileHash;
use super::envelope::{LegacyFooter, LegacyHeader, LegacyVersion};
use super::index::INDEX_LEN_MAX;
use super::json;
use super::payload::LegacyCodec;
use crate::{Birth, FormatError, Uid};

const WHAT: &str = "shard of version 2";
const HEADER_LEN: u64 = 8;
const FOOTER_LEN: u64 = 12;
const _: () = assert!(LegacyHeader::LEN == 8 && LegacyFooter::LEN == 12);

/// The stored bytes of one file, as far as the index is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredPayload {
    /// How they are compressed.
    pub codec: LegacyCodec,
    /// How many bytes the caller writes.
    pub stored_len: u64,
    /// How long the content is.
    pub plain_len: u64,
}

/// Gathers the index of a shard while its payloads are written.
#[derive(Debug)]
pub struct LegacyWriter {
    position: u64,
    entries: Vec<u8>,
    uids: HashSet<Uid>,
}

impl LegacyWriter {
    /// What a shard begins with.
    pub const HEADER: [u8; LegacyHeader::LEN] = LegacyHeader { version: LegacyVersion::V2 }.encode();

    /// A shard that has its header and nothing else.
    pub fn new() -> Self {
        Self { position: HEADER_LEN, entries: Vec::new(), uids: HashSet::new() }
    }

    /// Where the next payload goes: the length of the shard so far.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// How many files it has.
    pub fn len(&self) -> usize {
        self.uids.len()
    }

    /// True when it has none.
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty()
    }

    /// How long the shard will be if nothing more is pushed.
    pub fn file_len(&self) -> u64 {
        self.position.saturating_add(self.index_len()).saturating_add(FOOTER_LEN)
    }

    /// Adds a file whose stored bytes are written at [`LegacyWriter::position`]. Returns where that is.
    pub fn push_inline(
        &mut self,
        uid: &Uid,
        payload: StoredPayload,
        metadata: Option<&str>,
    ) -> Result<u64, FormatError> {
        let StoredPayload { codec, stored_len, plain_len } = payload;
        if codec == LegacyCodec::Stored && stored_len != plain_len {
            let detail = format!("{uid:?}: {stored_len} bytes are stored uncompressed for a file of {plain_len}");
            return Err(FormatError::damaged(WHAT, detail));
        }
        let offset = self.position;
        let end = offset.checked_add(stored_len);
        let end = end.ok_or_else(|| FormatError::beyond_limits(WHAT, format!("{uid:?}: {stored_len} bytes")))?;
        let mut record = vec![0];
        record.extend_from_slice(&offset.to_le_bytes());
        record.extend_from_slice(&stored_len.to_le_bytes());
        record.push(codec.number());
        record.extend_from_slice(&stored_len.to_le_bytes());
        record.extend_from_slice(&plain_len.to_le_bytes());
        self.push(uid, &record, metadata)?;
        self.position = end;
        Ok(offset)
    }

    /// Adds a file whose content is written beside the shard, at [`BigFileHash::key`].
    pub fn push_big_file(
        &mut self,
        uid: &Uid,
        hash: &BigFileHash,
        len: u64,
        metadata: Option<&str>,
    ) -> Result<(), FormatError> {
        let hash = hash.to_string();
        let mut record = vec![1];
        record.extend_from_slice(&u16::try_from(hash.len()).unwrap_or(u16::MAX).to_le_bytes());
        record.extend_from_slice(hash.as_bytes());
        record.extend_from_slice(&len.to_le_bytes());
        self.push(uid, &record, metadata)
    }

    fn push(&mut self, uid: &Uid, record: &[u8], metadata: Option<&str>) -> Result<(), FormatError> {
        let metadata = match metadata {
            Some(text) if !json::is_object(text) => {
                return Err(FormatError::damaged(WHAT, format!("{uid:?}: the metadata is no JSON object")));
            }
            Some(text) => json::to_compact_ascii(text),
            None => String::new(),
        };
        let metadata_len = u32::try_from(metadata.len());
        let metadata_len = metadata_len.map_err(|_| FormatError::beyond_limits(WHAT, "metadata of 4 GiB"))?;
        let uid_len = u16::try_from(uid.as_str().len());
        let uid_len = uid_len.map_err(|_| FormatError::beyond_limits(WHAT, format!("{uid:?}")))?;
        if self.uids.len() > usize::try_from(Birth::ORDINAL_MAX).unwrap_or(usize::MAX) {
            let detail = format!("{} files, more cannot be read back", self.uids.len());
            return Err(FormatError::beyond_limits(WHAT, detail));
        }
        let added = uid.as_str().len().saturating_add(record.len()).saturating_add(metadata.len()).saturating_add(6);
        let index_len = self.index_len().saturating_add(u64::try_from(added).unwrap_or(u64::MAX));
        if index_len > INDEX_LEN_MAX {
            let detail = format!("an index of {index_len} bytes, more than {INDEX_LEN_MAX} cannot be read back");
            return Err(FormatError::beyond_limits(WHAT, detail));
        }
        if !self.uids.insert(uid.clone()) {
            return Err(FormatError::damaged(WHAT, format!("{uid:?} is in it already")));
        }
        self.entries.extend_from_slice(&uid_len.to_le_bytes());
        self.entries.extend_from_slice(uid.as_str().as_bytes());
        self.entries.extend_from_slice(record);
        self.entries.extend_from_slice(&metadata_len.to_le_bytes());
        self.entries.extend_from_slice(metadata.as_bytes());
        Ok(())
    }

    /// The index and the footer: what the caller writes after the last payload.
    pub fn finish(self) -> Vec<u8> {
        let index_len = self.index_len();
        let count = u32::try_from(self.uids.len()).unwrap_or(u32::MAX);
        let mut trailer = Vec::with_capacity(self.entries.len().saturating_add(16));
        trailer.extend_from_slice(&count.to_le_bytes());
        trailer.extend_from_slice(&self.entries);
        trailer.extend_from_slice(&LegacyFooter { index_len }.encode());
        trailer
    }

    fn index_len(&self) -> u64 {
        u64::try_from(self.entries.len()).unwrap_or(u64::MAX).saturating_add(4)
    }
}

impl Default for LegacyWriter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
