//! What leaves the caches because it was deleted: the frames that hold a deleted file, and everything of a shard that is
//! no longer current.
//!
//! The cache on disk never takes in a frame that holds a deleted file, so that what was deleted is not found on this host
//! after its bytes have gone from the store.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

use desfmt::document::Manifest;
use desfmt::{Birth, Date, ShardId, v3};

use crate::archive::entries::{Content, Place};
use crate::archive::shard::Index;
use crate::archive::tombstones::TombstoneSet;
use crate::archive::{Archive, CacheKey, Cached, Day, DayShard, OpenShard};
use crate::disk_cache::DiskCache;

impl Archive {
    /// Forgets the frames that hold a file, after it was deleted here.
    pub(crate) async fn forget_file(&self, date: Date, birth: Birth) {
        let Ok(Some(Place { shard, len, content: Content::Stream { offset, .. } })) =
            self.locate_content(date, birth).await
        else {
            return;
        };
        self.forget_frames(&shard, &frames_between(offset, len).collect::<Vec<_>>());
    }

    /// Forgets the frames that hold files which were deleted here, several at once, in some buckets of a day. A later look
    /// at the day brings no news of them, since they are known. No request, unless something may be on disk of a day that is
    /// not in memory.
    pub(crate) async fn forget_deleted_here(&self, date: Date, buckets: &BTreeSet<u16>) {
        let day = match self.cache.get(&CacheKey::Day(date)) {
            Some(Cached::Day(day)) => Some(day),
            _ if self.options.disk_cache.is_none() => None,
            _ => self.day(date).await.unwrap_or_else(|error| {
                tracing::warn!(%date, %error, "what was deleted stays on the disk of this host until nobody has read it for a day");
                None
            }),
        };
        if let Some(day) = day {
            self.forget_deleted(&day, buckets).await;
        }
    }

    /// Forgets the frames that hold files of whose deletion a look at the day has just learned: `news` says in which
    /// buckets there are any.
    pub(crate) async fn forget_deleted(&self, day: &Day, news: &BTreeSet<u16>) {
        let mut unknown = HashSet::new();
        for shard in day.shards.iter().filter(|shard| news.contains(&shard.bucket)) {
            let Some(open) = self.open_without_request(shard).await else {
                unknown.insert(shard.id);
                continue;
            };
            match self.dead_frames(&open, &day.tombstones) {
                Some(frames) => self.forget_frames(&open, &frames),
                None => drop(unknown.insert(shard.id)),
            }
        }
        self.forget_shards(&unknown, DiskCache::forget_shard);
    }

    /// Forgets everything of the shards that a new manifest no longer lists.
    pub(crate) fn forget_replaced(&self, known: Option<&Day>, manifest: &Manifest) {
        let live: HashSet<ShardId> = manifest.shards.iter().map(|shard| shard.shard).collect();
        let known = known.into_iter().flat_map(|day| &day.shards).map(|shard| shard.id);
        let gone = known.chain(manifest.retired.iter().map(|retired| retired.shard));
        self.forget_shards(&gone.filter(|shard| !live.contains(shard)).collect(), DiskCache::retire_shard);
    }

    /// Forgets what is cached of the object that an operation found missing or replaced.
    pub(crate) fn forget_object(&self, date: Date, key: &str) {
        if let Some(Cached::Day(day)) = self.cache.get(&CacheKey::Day(date)) {
            let gone = day.shards.iter().filter(|shard| shard.key.as_str() == key).map(|shard| shard.id);
            self.forget_shards(&gone.collect(), DiskCache::forget_shard);
        }
    }

    /// Which of these frames may be kept on disk; none where it cannot be said whether a deleted file is in them.
    pub(crate) fn frames_to_keep<'a>(
        &self,
        shard: &OpenShard,
        frames: impl IntoIterator<Item = &'a v3::FrameRef>,
    ) -> Vec<&'a v3::FrameRef> {
        let (Some(_), Index::Paged(index)) = (&self.options.disk_cache, &shard.index) else { return Vec::new() };
        let dead = if let Some(dead) = shard.dead.get() {
            Some(Arc::clone(dead))
        } else {
            // What is deleted from now on is forgotten when that becomes known.
            let date = index.footer().name.group.date;
            let Some(Cached::Day(day)) = self.cache.get(&CacheKey::Day(date)) else { return Vec::new() };
            self.dead_frames(shard, &day.tombstones).map(|dead| Arc::clone(shard.dead.get_or_init(|| dead.into())))
        };
        let Some(dead) = dead else { return Vec::new() };
        frames.into_iter().filter(|frame| dead.binary_search(&frame.number).is_err()).collect()
    }

    /// The frames of a shard that hold deleted files, ascending; `None` where that cannot be said without a request.
    fn dead_frames(&self, shard: &OpenShard, tombstones: &Arc<TombstoneSet>) -> Option<Vec<u32>> {
        let Index::Paged(index) = &shard.index else { return None };
        if tombstones.holds_shard(shard.id) {
            return None;
        }
        let mut frames = Vec::new();
        if tombstones.is_empty() {
            return Some(frames);
        }
        for number in (0..index.index_pages()).map(v3::PageNumber) {
            let page = match self.cache.get(&CacheKey::IndexPage(shard.id, number)) {
                Some(Cached::IndexPage(page)) => page,
                _ => Arc::new(index.decode_index_page(number, &index.resident_index_page(number)?).ok()?),
            };
            for at in 0..page.len() {
                let uid = page.entry_uid(at)?;
                if self.is_tombstoned(tombstones, uid) {
                    let entry = page.entry(at)?;
                    frames.extend(frames_between(entry.offset, entry.len));
                }
            }
        }
        frames.sort_unstable();
        frames.dedup();
        Some(frames)
    }

    /// A shard that is open, or whose tail is on this host.
    async fn open_without_request(&self, shard: &DayShard) -> Option<Arc<OpenShard>> {
        if let Some(Cached::Shard(open)) = self.cache.get(&CacheKey::Shard(shard.id)) {
            return Some(open);
        }
        let disk = self.options.disk_cache.as_ref()?;
        if disk.has_tail(shard.id) { self.open_shard(shard).await.ok() } else { None }
    }

    fn forget_frames(&self, shard: &OpenShard, frames: &[u32]) {
        for frame in frames {
            self.cache.remove(&CacheKey::Frame(shard.id, *frame));
        }
        self.ahead.forget(shard.id, frames);
        if let Some(disk) = &self.options.disk_cache {
            disk.forget(shard.id, frames.iter().copied());
            // Its dictionary may hold a part of what was deleted.
            if let Index::Paged(index) = &shard.index
                && !frames.is_empty()
                && index.dictionary().is_some()
            {
                disk.forget_tail(shard.id);
            }
        }
    }

    fn forget_shards(&self, shards: &HashSet<ShardId>, on_disk: fn(&DiskCache, ShardId)) {
        if shards.is_empty() {
            return;
        }
        self.cache.remove_if(|key, _| match key {
            CacheKey::Shard(shard)
            | CacheKey::IndexPage(shard, _)
            | CacheKey::FramePage(shard, _)
            | CacheKey::ColdPage(shard, _)
            | CacheKey::Frame(shard, _) => shards.contains(shard),
            CacheKey::Days | CacheKey::Day(_) | CacheKey::BigFile(_) => false,
        });
        for shard in shards {
            self.ahead.forget_shard(*shard);
            if let Some(disk) = &self.options.disk_cache {
                on_disk(disk, *shard);
            }
        }
    }
}

/// The frames that a range of a stream lies in.
fn frames_between(offset: u64, len: u64) -> Range<u32> {
    let frame = |address: u64| u32::try_from(address).unwrap_or(u32::MAX);
    let first = frame(offset >> v3::limits::SLOT_BITS);
    let end = offset.saturating_add(len).div_ceil(v3::limits::SLOT_LEN);
    if len == 0 { first..first } else { first..frame(end) }
}
