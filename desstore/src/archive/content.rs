//! The bytes of files, and all that is known of them.

use std::sync::Arc;

use bytes::Bytes;
use desfmt::{Birth, Date, Digest, ObjectKey, Timestamp, v3};

use crate::archive::entries::{Content, Located, Place, settled};
use crate::archive::error::ArchiveError;
use crate::archive::frames::StreamRead;
use crate::archive::shard::Index;
use crate::archive::{Archive, CacheKey, Cached, OpenShard};

/// What is known of a file beyond its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// The object that holds it.
    pub key: ObjectKey,
    /// The codec of its shard: `none`, `zstd` or `lz4`.
    pub codec: String,
    /// The stored size of the frames that hold it; they may hold others too.
    pub stored_len: u64,
    /// Its size in bytes.
    pub len: u64,
    /// BLAKE3 of its content; none for shards of the ancestor.
    pub digest: Option<Digest>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Its metadata, a JSON object.
    pub metadata: Option<String>,
}

impl Archive {
    /// Reads up to `size` bytes of a file from `offset`; fewer only at its end. With the index cached and the bytes in
    /// one frame, one request or none.
    ///
    /// A deleted file can be read as long as its bytes are there, so that what is open reads on.
    pub async fn read(&self, date: Date, birth: Birth, offset: u64, size: usize) -> Result<Bytes, ArchiveError> {
        let Some(place) = self.locate_content(date, birth).await? else { return Err(gone(date, birth)) };
        match self.read_place(&place, birth, offset, size).await {
            Err(error) if error.may_be_stale() => {
                let place = self.locate_again(date, birth, &place, &error).await?;
                self.read_place(&place, birth, offset, size).await.map_err(|error| error.unexplained(date))
            }
            other => other,
        }
    }

    /// Finds a file once more whose bytes were not where they had been: a repack may have put them elsewhere. As far as it
    /// can still be told, it must be the same content.
    async fn locate_again(
        &self,
        date: Date,
        birth: Birth,
        before: &Place,
        error: &ArchiveError,
    ) -> Result<Place, ArchiveError> {
        let digest_before = match &before.content {
            Content::Stream { position, .. } => self.known_digest(&before.shard, *position),
            Content::Legacy(_) => None,
        };
        self.look_again(date, error).await?;
        let place = self.locate_content(date, birth).await?.ok_or_else(|| gone(date, birth))?;
        if place.len != before.len {
            return Err(gone(date, birth));
        }
        if let (Some(digest_before), Content::Stream { position, .. }, Index::Paged(index)) =
            (digest_before, &place.content, &place.shard.index)
        {
            let (digest, _) = self.cold(&place.shard, index, *position).await?;
            if digest != digest_before {
                return Err(gone(date, birth));
            }
        }
        Ok(place)
    }

    async fn read_place(
        &self,
        Place { shard, len, content }: &Place,
        birth: Birth,
        offset: u64,
        size: usize,
    ) -> Result<Bytes, ArchiveError> {
        let size = len.saturating_sub(offset).min(u64::try_from(size).unwrap_or(u64::MAX));
        if size == 0 {
            return Ok(Bytes::new());
        }
        match (content, &shard.index) {
            (Content::Stream { offset: start, .. }, Index::Paged(index)) => {
                let read = StreamRead { birth, start: *start, len: *len, range: offset..offset.saturating_add(size) };
                self.read_stream(shard, index, &read).await
            }
            (Content::Legacy(file), _) => self.read_legacy(shard, file, offset, size).await,
            (Content::Stream { .. }, Index::Legacy(_)) => {
                Err(ArchiveError::inconsistent(&shard.key, "a stream range in a shard of the ancestor"))
            }
        }
    }

    /// Everything that is known of a file. Two requests when its attributes are cached.
    pub async fn details(&self, date: Date, birth: Birth) -> Result<Option<Details>, ArchiveError> {
        settled!(self, date, self.details_once(date, birth))
    }

    async fn details_once(&self, date: Date, birth: Birth) -> Result<Option<Details>, ArchiveError> {
        match self.locate(date, birth).await? {
            Some(located) => self.details_of(&located).await.map(Some),
            None => Ok(None),
        }
    }

    /// Everything that is known of an entry that was just found.
    pub(crate) async fn details_of(&self, located: &Located) -> Result<Details, ArchiveError> {
        let shard = &located.shard;
        let (offset, position, index) = match (&located.content, &shard.index) {
            (Content::Stream { offset, position }, Index::Paged(index)) => (*offset, *position, index),
            (Content::Legacy(file), _) => return Ok(file.details(shard, &located.file)),
            (Content::Stream { .. }, Index::Legacy(_)) => {
                return Err(ArchiveError::inconsistent(&shard.key, "a stream range in a shard of the ancestor"));
            }
        };
        let frames = self.frames_of(shard, index, offset..offset.saturating_add(located.file.len)).await?;
        let stored_len = frames.iter().map(|frame| frame.stored.end.saturating_sub(frame.stored.start)).sum();
        let (digest, metadata) = self.cold(shard, index, position).await?;
        Ok(Details {
            key: shard.key.clone(),
            codec: index.footer().codec.to_string(),
            stored_len,
            len: located.file.len,
            digest: Some(digest),
            created_at: located.file.created_at,
            metadata,
        })
    }

    /// The digest of the entry at a position, if it is at hand.
    fn known_digest(&self, shard: &OpenShard, position: u32) -> Option<Digest> {
        let Index::Paged(index) = &shard.index else { return None };
        let number = index.page_of_position(position)?;
        let Some(Cached::IndexPage(page)) = self.cache.get(&CacheKey::IndexPage(shard.id, number)) else { return None };
        let Some(Cached::ColdPage(cold)) = self.cache.get(&CacheKey::ColdPage(shard.id, number)) else { return None };
        cold.digest(usize::try_from(position.checked_sub(page.first_position())?).ok()?)
    }

    /// The digest and metadata of the entry at a position.
    pub(crate) async fn cold(
        &self,
        shard: &Arc<OpenShard>,
        index: &v3::ShardIndex,
        position: u32,
    ) -> Result<(Digest, Option<String>), ArchiveError> {
        let unlisted = || ArchiveError::inconsistent(&shard.key, format!("no page holds position {position}"));
        let number = index.page_of_position(position).ok_or_else(unlisted)?;
        let first = self.index_page(shard, index, number).await?.first_position();
        let page = self.cold_page(shard, index, number).await?;
        let at = usize::try_from(position.saturating_sub(first)).unwrap_or(usize::MAX);
        let digest = page.digest(at).ok_or_else(unlisted)?;
        Ok((digest, page.metadata(at).map(str::to_owned)))
    }
}

fn gone(date: Date, birth: Birth) -> ArchiveError {
    ArchiveError::Gone { object: format!("{date} {}/{}", birth.serial, birth.ordinal) }
}
