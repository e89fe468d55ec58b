//! An archive as a reader sees it: days, files, their contents, and deletion.
//!
//! A file is found by arithmetic: its uid gives the group, the day's manifest the candidate shards, a shard's index the
//! entry, and one range read the content. Whatever is cached lies in one cache with one budget in bytes. With everything
//! cached, or on a local store, every future of this module completes at its first poll, but for one that waits for a frame
//! which is being decoded.

mod ahead;
mod check;
mod content;
mod day;
mod delete;
mod entries;
mod error;
mod forget;
mod frames;
mod lease;
mod legacy;
mod list;
mod metrics;
mod receipt;
mod records;
mod shard;
#[cfg(test)]
mod tests;
mod tombstones;
mod totals;
mod windows;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use desfmt::document::{self, DOCUMENT_LEN_MAX, Identity};
use desfmt::{ArchiveId, BucketBits, Date, FormatError, ObjectKey, ShardId, Timestamp, UidHasher, layout, v3};

pub use ahead::AheadStats;
pub(crate) use check::Tell;
pub(crate) use check::in_words;
pub(crate) use check::prove::ProvenShard;
pub(crate) use check::throttle::Throttle;
pub use check::{CheckEvent, CheckLevel, CheckOptions, Checked, Finding, FindingKind, Sample, Verdict};
pub use content::Details;
pub(crate) use delete::new_operation;
pub use delete::{Deleted, Deletion, Standing};
pub use entries::FileEntry;
pub use error::ArchiveError;
pub use lease::Lease;
pub use metrics::CacheMetrics;
pub use receipt::{ErasureReceipt, ErasureState, Holder, Role};
pub use records::DeletionRecord;
pub use totals::Totals;

use crate::archive::ahead::{Ahead, Share};
use crate::cache::{ByteCache, CacheStats};
use crate::clock::{Clock, Randomness};
use crate::disk_cache::{DiskCache, DiskCacheStats};
use crate::error::StoreErrorKind;
use crate::store::{Depth, ETag, ObjectMeta, ObjectStore};

pub(crate) use day::{Day, DayShard};
pub(crate) use delete::TOMBSTONES_PER_WRITE;
pub(crate) use legacy::legacy_day_shard;
pub(crate) use shard::{Index, OpenShard};
pub(crate) use tombstones::TombstoneSet;

/// How an archive is to be read.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// How old what is known of a day may be; a deletion elsewhere is seen after at most this time. Default 60 s.
    pub ttl: Duration,
    /// The budget of all caches together, in bytes. Default 256 MiB.
    pub memory_bytes: u64,
    /// Whether reading from the store costs no more than keeping what was read, as with a local directory. Small frames
    /// that are stored as they are are then not kept. Default false.
    pub store_is_near: bool,
    /// Where pieces of objects are kept beyond memory. What it needs of memory is not part of `memory_bytes`. Default none.
    pub disk_cache: Option<DiskCache>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { ttl: Duration::from_mins(1), memory_bytes: 256 << 20, store_is_near: false, disk_cache: None }
    }
}

/// An open archive. Share it by [`Arc`].
#[derive(Debug)]
pub struct Archive {
    store: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Randomness>,
    options: ReadOptions,
    identity: Identity,
    legacy: bool,
    uid_hasher: UidHasher,
    cache: ByteCache<CacheKey, Cached>,
    ahead: Ahead,
    damage_met: AtomicU64,
    days: day::DayBook,
    totals: totals::TotalsBook,
}

/// What the caches of an archive have done so far, and what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArchiveCacheStats {
    /// What is kept in memory: days, indexes, frames.
    pub memory: CacheStats,
    /// What is read ahead.
    pub ahead: AheadStats,
    /// What is kept on disk.
    pub disk: DiskCacheStats,
    /// Pieces of objects that did not prove themselves when they arrived, and were fetched once more.
    pub damage_met: u64,
}

/// What is cached, by what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CacheKey {
    Days,
    Day(Date),
    Shard(ShardId),
    IndexPage(ShardId, v3::PageNumber),
    FramePage(ShardId, v3::PageNumber),
    ColdPage(ShardId, v3::PageNumber),
    Frame(ShardId, u32),
    BigFile(desfmt::legacy::BigFileHash),
}

/// A cached value; each kind of key has one kind of value.
#[derive(Debug, Clone)]
pub(crate) enum Cached {
    Days(Arc<DayList>),
    Day(Arc<Day>),
    NoDay(Duration),
    Shard(Arc<OpenShard>),
    IndexPage(Arc<v3::IndexPage>),
    FramePage(Arc<v3::FramePage>),
    ColdPage(Arc<v3::ColdPage>),
    Frame(bytes::Bytes),
    /// The version whose content is proven.
    BigFile(ETag),
}

/// The days that exist.
#[derive(Debug)]
pub(crate) struct DayList {
    /// Ascending.
    pub(crate) dates: Arc<[Date]>,
    /// The version of the manifest of each; none in an archive of the ancestor.
    pub(crate) tags: Vec<ETag>,
    /// When they were listed.
    checked: Duration,
}

/// The most days that an archive can have.
const DAYS_MAX: usize = 4_000_000;

impl Archive {
    /// Opens an archive. Fails with [`ArchiveError::Refused`] where there is none.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        options: ReadOptions,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Randomness>,
    ) -> Result<Arc<Self>, ArchiveError> {
        let found = Self::open_existing(store, options, clock, random).await?;
        found.ok_or_else(|| ArchiveError::refused("there is no des.json, so this is no archive of DES"))
    }

    /// Opens an archive if there is one. One request.
    pub async fn open_existing(
        store: Arc<dyn ObjectStore>,
        options: ReadOptions,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Randomness>,
    ) -> Result<Option<Arc<Self>>, ArchiveError> {
        let identity = read_identity(store.as_ref()).await?;
        Ok(identity.map(|identity| Arc::new(Self::new(store, options, clock, random, (identity, false)))))
    }

    /// Opens a flat archive of the ancestor, read-only. It does not say how many bits it was packed with.
    pub fn open_legacy(
        store: Arc<dyn ObjectStore>,
        bits: BucketBits,
        options: ReadOptions,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Randomness>,
    ) -> Arc<Self> {
        let identity = Identity::new(ArchiveId::from_bytes([0; 16]), bits, Timestamp::default());
        Arc::new(Self::new(store, options, clock, random, (identity, true)))
    }

    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        options: ReadOptions,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Randomness>,
        (identity, legacy): (Identity, bool),
    ) -> Self {
        let ahead = Share::of(options.memory_bytes, options.store_is_near);
        Self {
            uid_hasher: UidHasher::new(identity.archive),
            cache: ByteCache::new(options.memory_bytes.saturating_sub(ahead.bytes())),
            ahead: Ahead::new(ahead, Arc::clone(&clock)),
            damage_met: AtomicU64::new(0),
            days: day::DayBook::new(),
            totals: totals::TotalsBook::default(),
            store,
            clock,
            random,
            options,
            identity,
            legacy,
        }
    }

    pub(crate) const fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Its identity.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What turns uids into what tombstones know of them.
    pub(crate) const fn uid_hasher(&self) -> &UidHasher {
        &self.uid_hasher
    }

    /// How many bits of a bucket number it uses.
    pub fn bits(&self) -> BucketBits {
        self.identity.bits()
    }

    /// True for a flat archive of the ancestor.
    pub const fn is_legacy(&self) -> bool {
        self.legacy
    }

    /// Forgets everything that is cached. That a manifest was seen in a newer version is not forgotten.
    pub fn drop_caches(&self) {
        self.cache.clear();
        self.ahead.clear();
        self.totals.forget();
    }

    /// What its caches have done so far, and what they hold.
    pub fn cache_stats(&self) -> ArchiveCacheStats {
        ArchiveCacheStats {
            memory: self.cache.stats(),
            ahead: self.ahead.stats(),
            disk: self.options.disk_cache.as_ref().map(DiskCache::stats).unwrap_or_default(),
            damage_met: self.damage_met.load(Ordering::Relaxed),
        }
    }

    /// The budget of all caches together as it was at first.
    pub const fn memory_bytes(&self) -> u64 {
        self.options.memory_bytes
    }

    /// Changes the budget of all caches together, as [`ReadOptions::memory_bytes`] says it at first. What is too much goes at
    /// once.
    pub fn set_memory_bytes(&self, memory_bytes: u64) {
        let ahead = Share::of(memory_bytes, self.options.store_is_near);
        self.ahead.set_share(ahead);
        self.cache.set_bytes_max(memory_bytes.saturating_sub(ahead.bytes()));
    }

    /// Gives up what readers have left behind. To be called now and then.
    pub fn tend(&self) {
        self.ahead.tend();
        if let Some(disk) = &self.options.disk_cache {
            disk.tend();
        }
    }

    /// Notes bytes that were not what they should be and are fetched once more.
    pub(crate) fn fetched_again(&self, key: &ObjectKey, error: &FormatError) {
        self.damage_met.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%key, %error, "damaged on its way or in the store; fetched once more");
    }

    /// All days that exist, ascending, as they were at most `ttl` ago. One listing.
    pub async fn days(&self) -> Result<Arc<[Date]>, ArchiveError> {
        Ok(Arc::clone(&self.days_known().await?.dates))
    }

    pub(crate) async fn days_known(&self) -> Result<Arc<DayList>, ArchiveError> {
        let now = self.clock.monotonic();
        if let Some(Cached::Days(days)) = self.cache.get(&CacheKey::Days)
            && now.saturating_sub(days.checked) < self.options.ttl
        {
            return Ok(days);
        }
        let (dates, tags) =
            if self.legacy { (self.list_legacy_days().await?, Vec::new()) } else { self.list_days().await? };
        let weight = dates.len().saturating_mul(size_of::<Date>()).saturating_add(tags.len().saturating_mul(64));
        let days = Arc::new(DayList { dates: dates.into(), tags, checked: now });
        self.cache.insert(CacheKey::Days, Cached::Days(Arc::clone(&days)), weight);
        Ok(days)
    }

    async fn list_days(&self) -> Result<(Vec<Date>, Vec<ETag>), ArchiveError> {
        let objects = crate::store::list_all(self.store.as_ref(), layout::MANIFESTS, Depth::Direct, DAYS_MAX).await?;
        let day = |object: ObjectMeta| Some((layout::parse_manifest(object.key.as_str())?, object.etag));
        Ok(objects.into_iter().filter_map(day).unzip())
    }

    /// How many files the live shards of a day hold, those that are deleted included.
    pub async fn files_of(&self, date: Date) -> Result<u64, ArchiveError> {
        let day = self.day(date).await?;
        let count = |day: &Day| day.shards.iter().map(|shard| u64::from(shard.entries)).fold(0, u64::saturating_add);
        Ok(day.map_or(0, |day| count(&day)))
    }

    /// True when the day exists.
    pub async fn day_exists(&self, date: Date) -> Result<bool, ArchiveError> {
        Ok(self.day(date).await?.is_some())
    }
}

/// Reads the identity of the archive in a store, if there is one.
pub(crate) async fn read_identity(store: &dyn ObjectStore) -> Result<Option<Identity>, ArchiveError> {
    let key = layout::identity();
    match store.get(&key, DOCUMENT_LEN_MAX).await {
        Ok(fetched) => document::decode(&fetched.bytes).map(Some).map_err(|error| ArchiveError::damaged(&key, error)),
        Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
