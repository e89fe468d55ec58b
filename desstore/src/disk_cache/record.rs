//! A record of the index of a segment: which piece lies where, and what proves it.
//!
//! ```text
//!  0  magic    [u8; 4]   b"DEc1"
//!  4  written  u32       seconds since 1970
//!  8  shard    [u8; 16]
//! 24  version  u64       hash of the ETag of the object
//! 32  piece    u64       which piece of the object
//! 40  offset   u32       where its bytes begin in the segment
//! 44  len      u32
//! 48  digest   u64       head of BLAKE3 of shard, version, piece and bytes
//! 56  check    u64       head of BLAKE3 of the bytes before
//! ```
//!
//! All numbers are little endian. A record of zeros is of a piece that was forgotten.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use desfmt::ShardId;

pub(super) const RECORD_LEN: usize = 64;

const MAGIC: [u8; 4] = *b"DEc1";

/// A piece on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) shard: ShardId,
    pub(super) version: u64,
    pub(super) piece: u64,
    pub(super) offset: u32,
    pub(super) len: u32,
    pub(super) written: u32,
    pub(super) digest: u64,
    /// Which segment, and the how-manieth record there; not part of what is written.
    pub(super) segment: u32,
    pub(super) number: u32,
}

impl Record {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(RECORD_LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.written.to_le_bytes());
        bytes.extend_from_slice(self.shard.bytes());
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&self.piece.to_le_bytes());
        bytes.extend_from_slice(&self.offset.to_le_bytes());
        bytes.extend_from_slice(&self.len.to_le_bytes());
        bytes.extend_from_slice(&self.digest.to_le_bytes());
        let check = head(&blake3::hash(&bytes));
        bytes.extend_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Reads a record; `None` for anything that is not one.
    pub(super) fn decode(bytes: &[u8; RECORD_LEN], segment: u32, number: u32) -> Option<Self> {
        let (covered, check) = bytes.split_last_chunk()?;
        if head(&blake3::hash(covered)) != u64::from_le_bytes(*check) {
            return None;
        }
        let (magic, rest) = covered.split_first_chunk()?;
        let (written, rest) = rest.split_first_chunk()?;
        let (shard, rest) = rest.split_first_chunk()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (piece, rest) = rest.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let (digest, _) = rest.split_first_chunk()?;
        (*magic == MAGIC).then(|| Self {
            shard: ShardId::from_bytes(*shard),
            version: u64::from_le_bytes(*version),
            piece: u64::from_le_bytes(*piece),
            offset: u32::from_le_bytes(*offset),
            len: u32::from_le_bytes(*len),
            written: u32::from_le_bytes(*written),
            digest: u64::from_le_bytes(*digest),
            segment,
            number,
        })
    }

    /// Where its bytes end in the segment.
    pub(super) fn end(&self) -> u64 {
        u64::from(self.offset).saturating_add(u64::from(self.len))
    }

    /// What proves bytes to be this piece.
    pub(super) fn digest_of(shard: ShardId, version: u64, piece: u64, bytes: &[u8]) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(shard.bytes());
        hasher.update(&version.to_le_bytes());
        hasher.update(&piece.to_le_bytes());
        hasher.update(bytes);
        head(&hasher.finalize())
    }

    /// Reads the piece and proves it.
    pub(super) fn read_proven(&self, data: &File) -> io::Result<Bytes> {
        let mut bytes = vec![0; usize::try_from(self.len).unwrap_or(usize::MAX)];
        data.read_exact_at(&mut bytes, u64::from(self.offset))?;
        if Self::digest_of(self.shard, self.version, self.piece, &bytes) == self.digest {
            Ok(bytes.into())
        } else {
            Err(io::Error::from(io::ErrorKind::InvalidData))
        }
    }
}

fn head(hash: &blake3::Hash) -> u64 {
    hash.as_bytes().first_chunk().map_or(0, |head| u64::from_le_bytes(*head))
}
