//! A shard whose index is loaded, and the pages of it that are decoded when a lookup needs them.

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use desfmt::{FormatError, ObjectKey, ShardId, layout, v3};

use crate::archive::error::ArchiveError;
use crate::archive::legacy::LegacyShard;
use crate::archive::{Archive, CacheKey, Cached, DayShard};
use crate::disk_cache::Piece;
use crate::store::ETag;

/// Bytes of index pages that a listing fetches together, unless the budget of the caches is small, and bytes of pages of
/// a frame table: those of a shard of usual size.
const INDEX_PAGES_BYTES_MAX: u64 = 4 << 20;
const FRAME_PAGES_BYTES_MAX: u64 = 256 << 10;

/// A shard that can be searched.
#[derive(Debug)]
pub(crate) struct OpenShard {
    pub(crate) key: ObjectKey,
    pub(crate) id: ShardId,
    pub(crate) etag: ETag,
    pub(crate) index: Index,
    /// True once somebody has listed its entries.
    pub(crate) is_listed: AtomicBool,
    /// The frames that held deleted files when that was first asked, ascending.
    pub(crate) dead: OnceLock<Arc<[u32]>>,
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
    pub(crate) fn new(shard: &DayShard, etag: ETag, index: Index) -> Self {
        Self {
            key: shard.key.clone(),
            id: shard.id,
            etag,
            index,
            is_listed: AtomicBool::new(false),
            dead: OnceLock::new(),
        }
    }

    /// True where this is a shard of the ancestor that holds an entry of a uid.
    pub(crate) fn holds_flat(&self, uid: &str) -> bool {
        matches!(&self.index, Index::Legacy(legacy) if legacy.holds(uid))
    }

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
        let (etag, index) = match self.stored_index(shard).await {
            Some(found) => found,
            None => match self.fetch_index(shard).await? {
                (etag, Ok(index)) => (etag, index),
                (_, Err(error)) => {
                    self.fetched_again(key, &error);
                    let (etag, index) = self.fetch_index(shard).await?;
                    (etag, index.map_err(|error| ArchiveError::damaged(key, error))?)
                }
            },
        };
        let footer = index.footer();
        if footer.shard_id != shard.id || footer.archive != self.identity.archive {
            let detail =
                format!("it is shard {} of archive {}, not what the manifest lists", footer.shard_id, footer.archive);
            return Err(ArchiveError::inconsistent(key, detail));
        }
        let weight = index.memory_bytes();
        Ok((OpenShard::new(shard, etag, Index::Paged(Box::new(index))), weight))
    }

    /// Fetches the tail of a shard and opens it. One request.
    async fn fetch_index(&self, shard: &DayShard) -> Result<(ETag, Result<v3::ShardIndex, FormatError>), ArchiveError> {
        let fetched = self.store.get_tail(&shard.key, shard.tail_len).await?;
        if fetched.meta.len != shard.len {
            let detail = format!("it has {} bytes, the manifest says {}", fetched.meta.len, shard.len);
            return Err(ArchiveError::inconsistent(&shard.key, detail));
        }
        let etag = fetched.meta.etag;
        let index = v3::ShardIndex::open(fetched.bytes.clone(), shard.len);
        if let (Ok(_), Some(disk)) = (&index, &self.options.disk_cache) {
            disk.put_tail(shard.id, &etag, &fetched.bytes);
        }
        Ok((etag, index))
    }

    /// Opens a shard by the tail that is kept on disk, if there is one and it is good.
    async fn stored_index(&self, shard: &DayShard) -> Option<(ETag, v3::ShardIndex)> {
        let (etag, tail) = self.options.disk_cache.as_ref()?.tail(shard.id).await?;
        let index = v3::ShardIndex::open(tail, shard.len).ok()?;
        Some((etag, index))
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
        let place = (index.index_page_range(page), index.resident_index_page(page));
        let decoded = self.page(shard, place, |bytes| index.decode_index_page(page, bytes)).await?;
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
        let resident = index.resident_frame_page(page);
        if resident.is_none()
            && self.fetch_frame_pages(shard, index, page).await
            && let Some(Cached::FramePage(decoded)) = self.cache.get(&cache_key)
        {
            return Ok(decoded);
        }
        let place = (index.frame_page_range(page), resident);
        let decoded = self.page(shard, place, |bytes| index.decode_frame_page(page, bytes)).await?;
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
        let place = (index.cold_page_range(page), None);
        let decoded = self.page(shard, place, |bytes| index.decode_cold_page(page, bytes)).await?;
        self.cache.insert(cache_key, Cached::ColdPage(Arc::clone(&decoded)), decoded.memory_bytes());
        Ok(decoded)
    }

    /// Decodes a page of the loaded tail, or fetches it. One that is damaged is fetched once more.
    async fn page<P>(
        &self,
        shard: &OpenShard,
        (range, resident): (Option<Range<u64>>, Option<Bytes>),
        decode: impl Fn(&[u8]) -> Result<P, FormatError>,
    ) -> Result<Arc<P>, ArchiveError> {
        let Some(range) = range else {
            return Err(ArchiveError::inconsistent(&shard.key, "a page was looked for that it does not have"));
        };
        if let Some(bytes) = &resident
            && let Ok(page) = decode(bytes)
        {
            return Ok(Arc::new(page));
        }
        let piece = Piece::Pages(range.start);
        let disk = self.options.disk_cache.as_ref().filter(|_| resident.is_none());
        if let Some(disk) = disk
            && let Some(bytes) = disk.get(shard.id, &shard.etag, piece).await
            && let Ok(page) = decode(&bytes)
        {
            return Ok(Arc::new(page));
        }
        let mut bytes = self.shard_bytes(shard, range.clone()).await?;
        let page = match decode(&bytes) {
            Ok(page) => page,
            Err(error) => {
                self.fetched_again(&shard.key, &error);
                bytes = self.shard_bytes(shard, range).await?;
                decode(&bytes).map_err(|error| shard.damaged(error))?
            }
        };
        if let Some(disk) = disk {
            disk.put(shard.id, &shard.etag, vec![(piece, bytes)]);
        }
        Ok(Arc::new(page))
    }

    /// A decoded page of an index for who goes on to those that follow: from a store that is far they come together.
    pub(crate) async fn index_page_of_walk(
        &self,
        shard: &OpenShard,
        index: &v3::ShardIndex,
        page: v3::PageNumber,
    ) -> Result<Arc<v3::IndexPage>, ArchiveError> {
        let is_at_hand = self.options.store_is_near
            || index.resident_index_page(page).is_some()
            || self.cache.contains(&CacheKey::IndexPage(shard.id, page));
        if !is_at_hand {
            self.fetch_index_pages(shard, index, page).await;
        }
        self.index_page(shard, index, page).await
    }

    /// Fetches an index page and those that follow by one request, and with the last of them the table of frames, which
    /// lies behind it. What goes wrong is left to who needs the page.
    async fn fetch_index_pages(&self, shard: &OpenShard, index: &v3::ShardIndex, first: v3::PageNumber) {
        let pages = (first.0..index.index_pages()).map(v3::PageNumber);
        let pages: Vec<_> = pages.filter_map(|page| Some((page, index.index_page_range(page)?))).collect();
        let Some((_, Range { start, .. })) = pages.first().cloned() else { return };
        let fits = |range: &Range<u64>| range.end.saturating_sub(start) <= self.pages_bytes_max();
        let pages: Vec<_> = pages.into_iter().take_while(|(_, range)| fits(range)).collect();
        let Some((last, Range { end, .. })) = pages.last().cloned() else { return };
        let table = (0..index.frame_pages()).map(v3::PageNumber).filter_map(|page| index.frame_page_range(page)).last();
        let is_last = last.0.saturating_add(1) == index.index_pages();
        let table = table.filter(|table| is_last && fits(table));
        let end = table.as_ref().map_or(end, |table| table.end);
        let Ok(bytes) = self.shard_bytes(shard, start..end).await else { return };
        for (page, range) in pages {
            if let Ok(decoded) = index.decode_index_page(page, &part(&bytes, start, &range)) {
                let weight = decoded.memory_bytes();
                self.cache.insert(CacheKey::IndexPage(shard.id, page), Cached::IndexPage(Arc::new(decoded)), weight);
            }
        }
        if table.is_some() {
            self.keep_frame_pages(shard, index, (v3::PageNumber(0), start), &bytes);
        }
    }

    /// Fetches a page of a frame table and those that follow by one request, if the store is far. True when it has done
    /// so; what goes wrong is left to who needs the page.
    async fn fetch_frame_pages(&self, shard: &OpenShard, index: &v3::ShardIndex, first: v3::PageNumber) -> bool {
        let Some(Range { start, .. }) = index.frame_page_range(first) else { return false };
        let pages = (first.0..index.frame_pages()).map(v3::PageNumber);
        let ends = pages.filter_map(|page| index.frame_page_range(page)).map(|range| range.end);
        let end = ends.take_while(|end| end.saturating_sub(start) <= FRAME_PAGES_BYTES_MAX).last();
        let Some(end) = end.filter(|_| !self.options.store_is_near) else { return false };
        let Ok(bytes) = self.shard_bytes(shard, start..end).await else { return false };
        self.keep_frame_pages(shard, index, (first, start), &bytes);
        true
    }

    /// Keeps the pages of a frame table, from `first` on, that lie in bytes which begin at `start` in the object.
    fn keep_frame_pages(
        &self,
        shard: &OpenShard,
        index: &v3::ShardIndex,
        (first, start): (v3::PageNumber, u64),
        bytes: &Bytes,
    ) {
        for page in (first.0..index.frame_pages()).map(v3::PageNumber) {
            let Some(range) = index.frame_page_range(page) else { return };
            if let Ok(decoded) = index.decode_frame_page(page, &part(bytes, start, &range)) {
                let weight = decoded.memory_bytes();
                self.cache.insert(CacheKey::FramePage(shard.id, page), Cached::FramePage(Arc::new(decoded)), weight);
            }
        }
    }

    /// How many bytes of index pages are fetched together.
    fn pages_bytes_max(&self) -> u64 {
        (self.options.memory_bytes / 64).min(INDEX_PAGES_BYTES_MAX)
    }

    /// Reads a range of the version of the shard that is open.
    pub(crate) async fn shard_bytes(&self, shard: &OpenShard, range: Range<u64>) -> Result<Bytes, ArchiveError> {
        Ok(self.store.get_range(&shard.key, range, Some(&shard.etag)).await?)
    }
}

/// A range of the object, out of bytes that begin at `start` there.
pub(crate) fn part(bytes: &Bytes, start: u64, range: &Range<u64>) -> Bytes {
    let at = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(at(range.start)..at(range.end).max(at(range.start)))
}
