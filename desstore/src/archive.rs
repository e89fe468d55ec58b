//! An archive as a reader sees it: days, files, their contents, and deletion.
//!
//! A file is found by arithmetic: its uid gives the group, the day's manifest the candidate shards, a shard's index the
//! entry, and one range read the content. Whatever is cached lies in one cache with one budget in bytes. With everything
//! cached, or on a local store, every future of this module completes at its first poll.

mod check;
mod content;
mod day;
mod delete;
mod entries;
mod error;
mod lease;
mod legacy;
mod list;
mod receipt;
mod records;
mod shard;
#[cfg(test)]
mod tests;
mod tombstones;
mod totals;

use std::sync::Arc;
use std::time::Duration;

use desfmt::document::{self, DOCUMENT_LEN_MAX, Identity};
use desfmt::{ArchiveId, BucketBits, Date, ShardId, Timestamp, UidHasher, layout, v3};

pub(crate) use check::in_words;
pub(crate) use check::prove::ProvenShard;
pub use check::{CheckEvent, CheckLevel, CheckOptions, Checked, Finding, FindingKind, Sample, Verdict};
pub use content::Details;
pub(crate) use delete::new_operation;
pub use delete::{Deleted, Deletion, Standing};
pub use entries::FileEntry;
pub use error::ArchiveError;
pub use lease::Lease;
pub use receipt::{ErasureReceipt, ErasureState, Holder, Role};
pub use records::DeletionRecord;
pub use totals::Totals;

use crate::cache::ByteCache;
use crate::clock::{Clock, Randomness};
use crate::error::StoreErrorKind;
use crate::store::{Depth, ETag, ObjectStore};

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
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { ttl: Duration::from_mins(1), memory_bytes: 256 << 20, store_is_near: false }
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
    days: day::DayBook,
    totals: totals::TotalsBook,
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
    Days(Arc<[Date]>, Duration),
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
        Self {
            uid_hasher: UidHasher::new(identity.archive),
            cache: ByteCache::new(options.memory_bytes),
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
        self.totals.forget();
    }

    /// All days that exist, ascending, as they were at most `ttl` ago. One listing.
    pub async fn days(&self) -> Result<Arc<[Date]>, ArchiveError> {
        let now = self.clock.monotonic();
        if let Some(Cached::Days(days, checked)) = self.cache.get(&CacheKey::Days)
            && now.saturating_sub(checked) < self.options.ttl
        {
            return Ok(days);
        }
        let days: Arc<[Date]> =
            if self.legacy { self.list_legacy_days().await? } else { self.list_days().await? }.into();
        let weight = days.len().saturating_mul(size_of::<Date>());
        self.cache.insert(CacheKey::Days, Cached::Days(Arc::clone(&days), now), weight);
        Ok(days)
    }

    async fn list_days(&self) -> Result<Vec<Date>, ArchiveError> {
        let objects = crate::store::list_all(self.store.as_ref(), layout::MANIFESTS, Depth::Direct, DAYS_MAX).await?;
        Ok(objects.iter().filter_map(|object| layout::parse_manifest(object.key.as_str())).collect())
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
