//! A shard whose index is loaded, and the pages of it that are decoded when a lookup needs them.

use std::sync::Arc;

use bytes::Bytes;
use desfmt::{FormatError, ObjectKey, ShardId, layout, v3};

use crate::archive::error::ArchiveError;
use crate::archive::legacy::LegacyShard;
use crate::archive::{Archive, CacheKey, Cached, DayShard};
use crate::store::ETag;

/// A shard that can be searched.
#[derive(Debug)]
pub(crate) struct OpenShard {
    pub(crate) key: ObjectKey,
    pub(crate) id: ShardId,
    pub(crate) etag: ETag,
    pub(crate) index: Index,
}

/// The two families of formats.
#[derive(Debug)]
pub(crate) enum Index {
    /// Pages that are decoded one by one.
    Paged(Box<v3::ShardIndex>),
    /// The whole index of a shard of the ancestor.
    Legacy(LegacyShard),
}

impl OpenShard {
    /// Names damage that was found in this shard.
    pub(crate) fn damaged(&self, error: FormatError) -> ArchiveError {
        ArchiveError::damaged(&self.key, error)
    }
}

impl Archive {
    /// Opens a shard: one request, or none when it is cached.
    pub(crate) async fn open_shard(&self, shard: &DayShard) -> Result<Arc<OpenShard>, ArchiveError> {
        if let Some(Cached::Shard(open)) = self.cache.get(&CacheKey::Shard(shard.id)) {
            return Ok(open);
        }
        let (open, weight) = if layout::is_flat(&shard.key) {
            self.open_legacy_shard(shard).await?
        } else {
            self.open_paged_shard(shard).await?
        };
        let open = Arc::new(open);
        self.cache.insert(CacheKey::Shard(shard.id), Cached::Shard(Arc::clone(&open)), weight);
        Ok(open)
    }

    pub(crate) async fn open_paged_shard(&self, shard: &DayShard) -> Result<(OpenShard, usize), ArchiveError> {
        let key = &shard.key;
        let tail_len_max = v3::limits::TAIL_LEN_MAX;
        if shard.tail_len > tail_len_max {
            // Before anything of that length is asked for.
            let detail = format!("a tail of {} bytes, at most {tail_len_max} are read", shard.tail_len);
            return Err(ArchiveError::damaged(key, FormatError::beyond_limits("manifest", detail)));
        }
        let fetched = self.store.get_tail(key, shard.tail_len).await?;
        if fetched.meta.len != shard.len {
            let detail = format!("it has {} bytes, the manifest says {}", fetched.meta.len, shard.len);
            return Err(ArchiveError::inconsistent(key, detail));
        }
        let index =
            v3::ShardIndex::open(fetched.bytes, shard.len).map_err(|error| ArchiveError::damaged(key, error))?;
        let footer = index.footer();
        if footer.shard_id != shard.id || footer.archive != self.identity.archive {
            let detail =
                format!("it is shard {} of archive {}, not what the manifest lists", footer.shard_id, footer.archive);
            return Err(ArchiveError::inconsistent(key, detail));
        }
        let weight = index.memory_bytes();
        let open =
            OpenShard { key: key.clone(), id: shard.id, etag: fetched.meta.etag, index: Index::Paged(Box::new(index)) };
        Ok((open, weight))
    }

    /// A decoded page of an index: from the cache, from the loaded tail, or by one request.
    pub(crate) async fn index_page(
        &self,
        shard: &OpenShard,
        index: &v3::ShardIndex,
        page: v3::PageNumber,
    ) -> Result<Arc<v3::IndexPage>, ArchiveError> {
        let cache_key = CacheKey::IndexPage(shard.id, page);
        if let Some(Cached::IndexPage(decoded)) = self.cache.get(&cache_key) {
            return Ok(decoded);
        }
        let bytes = match index.resident_index_page(page) {
            Some(bytes) => bytes,
            None => self.page_bytes(shard, index.index_page_range(page)).await?,
        };
        let decoded = Arc::new(index.decode_index_page(page, &bytes).map_err(|error| shard.damaged(error))?);
        self.cache.insert(cache_key, Cached::IndexPage(Arc::clone(&decoded)), decoded.memory_bytes());
        Ok(decoded)
    }

    /// A decoded page of a frame table: from the cache, from the loaded tail, or by one request.
    pub(crate) async fn frame_page(
        &self,
        shard: &OpenShard,
        index: &v3::ShardIndex,
        page: v3::PageNumber,
    ) -> Result<Arc<v3::FramePage>, ArchiveError> {
        let cache_key = CacheKey::FramePage(shard.id, page);
        if let Some(Cached::FramePage(decoded)) = self.cache.get(&cache_key) {
            return Ok(decoded);
        }
        let bytes = match index.resident_frame_page(page) {
            Some(bytes) => bytes,
            None => self.page_bytes(shard, index.frame_page_range(page)).await?,
        };
        let decoded = Arc::new(index.decode_frame_page(page, &bytes).map_err(|error| shard.damaged(error))?);
        self.cache.insert(cache_key, Cached::FramePage(Arc::clone(&decoded)), decoded.memory_bytes());
        Ok(decoded)
    }

    /// A decoded cold page, which holds digests and metadata: from the cache or by one request.
    pub(crate) async fn cold_page(
        &self,
        shard: &OpenShard,
        index: &v3::ShardIndex,
        page: v3::PageNumber,
    ) -> Result<Arc<v3::ColdPage>, ArchiveError> {
        let cache_key = CacheKey::ColdPage(shard.id, page);
        if let Some(Cached::ColdPage(decoded)) = self.cache.get(&cache_key) {
            return Ok(decoded);
        }
        let bytes = self.page_bytes(shard, index.cold_page_range(page)).await?;
        let decoded = Arc::new(index.decode_cold_page(page, &bytes).map_err(|error| shard.damaged(error))?);
        self.cache.insert(cache_key, Cached::ColdPage(Arc::clone(&decoded)), decoded.memory_bytes());
        Ok(decoded)
    }

    async fn page_bytes(&self, shard: &OpenShard, range: Option<std::ops::Range<u64>>) -> Result<Bytes, ArchiveError> {
        let Some(range) = range else {
            return Err(ArchiveError::inconsistent(&shard.key, "a page was looked for that it does not have"));
        };
        self.shard_bytes(shard, range).await
    }

    /// Reads a range of the version of the shard that is open.
    pub(crate) async fn shard_bytes(
        &self,
        shard: &OpenShard,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes, ArchiveError> {
        Ok(self.store.get_range(&shard.key, range, Some(&shard.etag)).await?)
    }
}
