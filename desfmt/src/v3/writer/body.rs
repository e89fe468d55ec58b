//! A finished body, and what it becomes under a name.

use crate::ids::{ArchiveId, Digest, ShardId};
use crate::layout::ShardName;
use crate::v3::codec::Codec;
use crate::v3::footer::{FOOTER_LEN, Footer, Sections};
use crate::v3::header::Features;

/// A finished body, still without a name.
pub struct Body {
    pub(super) trailer: Vec<u8>,
    /// Has taken in the whole body.
    pub(super) hasher: blake3::Hasher,
    pub(super) facts: Facts,
}

/// What a footer says besides the name.
pub(super) struct Facts {
    pub(super) archive: ArchiveId,
    pub(super) shard_id: ShardId,
    pub(super) body_digest: Digest,
    pub(super) codec: Codec,
    pub(super) entries: u32,
    pub(super) frames: u32,
    pub(super) plain_len: u64,
    pub(super) content_len: u64,
    pub(super) object_len: u64,
    pub(super) tail_len: u64,
    pub(super) index_pages: u32,
    pub(super) origins: u32,
    pub(super) dictionary_crc: u32,
    pub(super) directory_crc: u32,
    pub(super) sections: Sections,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("shard_id", &self.facts.shard_id).finish_non_exhaustive()
    }
}

impl Body {
    /// The bytes to write after the last frame; the footer follows.
    pub fn trailer(&self) -> &[u8] {
        &self.trailer
    }

    /// Bytes of the body: header, frames and trailer.
    pub const fn len(&self) -> u64 {
        self.facts.sections.footer
    }

    /// Never: even a body without entries has a header.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// BLAKE3 of the body.
    pub const fn digest(&self) -> Digest {
        self.facts.body_digest
    }

    /// The shard's identity.
    pub const fn shard_id(&self) -> ShardId {
        self.facts.shard_id
    }

    /// How many files there are.
    pub const fn entries(&self) -> u32 {
        self.facts.entries
    }

    /// How many frames there are.
    pub const fn frames(&self) -> u32 {
        self.facts.frames
    }

    /// Plain bytes of all frames.
    pub const fn plain_len(&self) -> u64 {
        self.facts.plain_len
    }

    /// Plain bytes of all files; content that several share counts for each.
    pub const fn content_len(&self) -> u64 {
        self.facts.content_len
    }

    /// Bytes that opening the shard will take, the footer among them.
    pub const fn tail_len(&self) -> u64 {
        self.facts.tail_len
    }

    /// Bytes of the shard, footer included.
    pub const fn object_len(&self) -> u64 {
        self.facts.object_len
    }

    /// What the footer says of this body under a name.
    pub fn footer(&self, name: &ShardName) -> Footer {
        let facts = &self.facts;
        Footer {
            features: Features::default(),
            archive: facts.archive,
            shard_id: facts.shard_id,
            body_digest: facts.body_digest,
            name: *name,
            codec: facts.codec,
            entries: facts.entries,
            frames: facts.frames,
            plain_len: facts.plain_len,
            content_len: facts.content_len,
            object_len: facts.object_len,
            tail_len: facts.tail_len,
            index_pages: facts.index_pages,
            origins: facts.origins,
            dictionary_crc: facts.dictionary_crc,
            directory_crc: facts.directory_crc,
            sections: facts.sections,
        }
    }

    /// The bytes to write after the trailer.
    pub fn footer_bytes(&self, name: &ShardName) -> [u8; FOOTER_LEN] {
        self.footer(name).encode()
    }

    /// BLAKE3 of the whole object under a name, without reading it again.
    pub fn object_digest(&self, name: &ShardName) -> Digest {
        self.hasher.clone().update(&self.footer_bytes(name)).finalize()
    }
}
