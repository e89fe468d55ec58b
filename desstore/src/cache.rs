//! Values in memory that together weigh at most so many bytes. Why this library: `docs/decisions/0001-cache-library.md`.

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, Options, OptionsBuilder, Weighter};

use crate::clock::Clock;

/// A concurrent cache bounded in bytes and, if wanted, in age.
///
/// A hit takes a shared lock of the part that the key belongs to, for as long as it takes to clone the value, so values are to
/// be cheap to clone ([`Arc`], [`bytes::Bytes`]). Nothing is locked while a value is being made. An entry that is heavier
/// than 0.7 of a part is not kept: 44 MiB, or 0.7 of the whole where that is smaller.
pub struct ByteCache<K, V> {
    cache: Cache<K, Held<V>, HeldWeight, DefaultHashBuilder, Evictions>,
    counters: Arc<Counters>,
    lifetime: Option<Lifetime>,
}

/// What a cache has done so far, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Lookups that found a value.
    pub hits: u64,
    /// Lookups that found none, or one that was too old.
    pub misses: u64,
    /// Values dropped to make room, or too heavy to be taken.
    pub evicted_by_size: u64,
    /// Values dropped because they were too old.
    pub evicted_by_age: u64,
    /// Values dropped because the machine or the cgroup was short of memory.
    pub evicted_by_pressure: u64,
    /// Values dropped because somebody said so.
    pub removed: u64,
    /// Values held now.
    pub entries: u64,
    /// What they weigh with what the cache itself needs for them, in bytes.
    pub bytes: u64,
    /// What they may weigh.
    pub bytes_max: u64,
}

#[derive(Clone)]
struct Held<V> {
    value: V,
    weight: u64,
    since: Duration,
}

struct Lifetime {
    max: Duration,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    evicted_by_size: AtomicU64,
    evicted_by_age: AtomicU64,
    evicted_by_pressure: AtomicU64,
    /// True while the cache is being made smaller.
    under_pressure: AtomicBool,
    removed: AtomicU64,
}

/// A part of the cache, with its own lock, is at least so large: a day with hundreds of thousands of deletions and the
/// largest files of the ancestor's shards are to fit in.
const PART_BYTES_MIN: u64 = 64 << 20;
const PARTS_MAX: u64 = 16;

/// What entries weigh on average, roughly. Too many parts for too few entries are avoided by it.
const ENTRY_BYTES_TYPICAL: u64 = 8 << 10;

/// The share that values used more than once may fill. What is left takes newcomers, so that what a scan reads ahead
/// survives until it is used.
const HOT_SHARE: f64 = 0.7;

/// How many keys of the recently evicted are remembered: none. One that comes back would count as used more than once, and
/// scans that repeat would fill the share of the newcomers.
const GHOST_SHARE: f64 = 0.0;

/// What the library needs for an entry beyond key and value: links, a slot of the table, and the allocator's
/// rounding.
const ENTRY_OVERHEAD: usize = 96;

impl<K: Hash + Eq, V: Clone> ByteCache<K, V> {
    /// An empty cache.
    pub fn new(bytes_max: u64) -> Self {
        let counters = Arc::new(Counters::default());
        let evictions = Evictions(Arc::clone(&counters));
        let cache = Cache::with_options(options(bytes_max), HeldWeight, DefaultHashBuilder::default(), evictions);
        Self { cache, counters, lifetime: None }
    }

    /// The same, with values forgotten once they are as old as `age_max`.
    #[must_use]
    pub fn with_lifetime(mut self, age_max: Duration, clock: Arc<dyn Clock>) -> Self {
        self.lifetime = Some(Lifetime { max: age_max, clock });
        self
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<V> {
        let found = self.cache.get(key);
        if let Some(held) = found {
            if !self.is_old(&held) {
                self.counters.hits.fetch_add(1, Ordering::Relaxed);
                return Some(held.value);
            }
            if self.cache.remove_if(key, |held| self.is_old(held)).is_some() {
                self.counters.evicted_by_age.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// True when a value is held for the key, however old it is. Counts as no lookup.
    pub fn contains(&self, key: &K) -> bool {
        self.cache.contains_key(key)
    }

    /// Keeps a value that weighs `weight` bytes beyond its own size and that of its key.
    pub fn insert(&self, key: K, value: V, weight: usize) {
        let overhead = ENTRY_OVERHEAD.saturating_add(size_of::<K>()).saturating_add(size_of::<Held<V>>());
        let weight = u64::try_from(weight.saturating_add(overhead)).unwrap_or(u64::MAX);
        // The library adds weights up; no entry needs to weigh more than any memory.
        let weight = weight.min(u64::from(u32::MAX).saturating_mul(1 << 16));
        let since = self.lifetime.as_ref().map_or(Duration::ZERO, |lifetime| lifetime.clock.monotonic());
        self.cache.insert(key, Held { value, weight, since });
    }

    /// Forgets a key and gives its last value.
    pub fn remove(&self, key: &K) -> Option<V> {
        let (_, held) = self.cache.remove(key)?;
        self.counters.removed.fetch_add(1, Ordering::Relaxed);
        Some(held.value)
    }

    /// Forgets all entries that `is_condemned` picks. Looks at every entry, one part of the cache after the other.
    pub fn remove_if(&self, is_condemned: impl Fn(&K, &V) -> bool) {
        let removed = Cell::new(0_u64);
        self.cache.retain(|key, held| {
            let is_condemned = is_condemned(key, &held.value);
            removed.set(removed.get().saturating_add(u64::from(is_condemned)));
            !is_condemned
        });
        self.counters.removed.fetch_add(removed.get(), Ordering::Relaxed);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.remove_if(|_, _| true);
    }

    /// Changes what it may hold. What is too much goes at once, and counts as dropped under pressure.
    pub fn set_bytes_max(&self, bytes_max: u64) {
        self.counters.under_pressure.store(true, Ordering::Relaxed);
        self.cache.set_capacity(bytes_max);
        self.counters.under_pressure.store(false, Ordering::Relaxed);
    }

    /// What it has done so far, and what it holds.
    pub fn stats(&self) -> CacheStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheStats {
            hits: read(&self.counters.hits),
            misses: read(&self.counters.misses),
            evicted_by_size: read(&self.counters.evicted_by_size),
            evicted_by_age: read(&self.counters.evicted_by_age),
            evicted_by_pressure: read(&self.counters.evicted_by_pressure),
            removed: read(&self.counters.removed),
            entries: u64::try_from(self.cache.len()).unwrap_or(u64::MAX),
            bytes: self.cache.weight(),
            bytes_max: self.cache.capacity(),
        }
    }

    fn is_old(&self, held: &Held<V>) -> bool {
        let age_reached = |lifetime: &Lifetime| lifetime.clock.monotonic().saturating_sub(held.since) >= lifetime.max;
        self.lifetime.as_ref().is_some_and(age_reached)
    }
}

impl<K, V> fmt::Debug for ByteCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteCache").field("counters", &self.counters).finish_non_exhaustive()
    }
}

fn options(bytes_max: u64) -> Options {
    let parts = bytes_max.checked_div(PART_BYTES_MIN).unwrap_or(0).clamp(1, PARTS_MAX);
    let entries = bytes_max.checked_div(ENTRY_BYTES_TYPICAL).unwrap_or(0).max(1);
    let options = OptionsBuilder::new()
        .weight_capacity(bytes_max)
        .estimated_items_capacity(usize::try_from(entries).unwrap_or(usize::MAX))
        .shards(usize::try_from(power_of_two_up_to(parts)).unwrap_or(1))
        .hot_allocation(HOT_SHARE)
        .ghost_allocation(GHOST_SHARE)
        .build();
    #[expect(clippy::expect_used, reason = "it fails only when one of the two capacities is not set")]
    options.expect("both capacities are set")
}

/// The largest power of two that is not above `number`; 1 for 0.
const fn power_of_two_up_to(number: u64) -> u64 {
    match number.checked_ilog2() {
        Some(exponent) => 1 << exponent,
        None => 1,
    }
}

#[derive(Debug, Clone)]
struct HeldWeight;

impl<K, V> Weighter<K, Held<V>> for HeldWeight {
    fn weight(&self, _: &K, held: &Held<V>) -> u64 {
        held.weight
    }
}

/// Counts what the library drops, and drops it when no lock is held any more.
#[derive(Debug, Clone)]
struct Evictions(Arc<Counters>);

impl<K, V> Lifecycle<K, Held<V>> for Evictions {
    type RequestState = Vec<Held<V>>;

    fn on_evict(&self, dropped: &mut Self::RequestState, _: K, held: Held<V>) {
        let is_under_pressure = self.0.under_pressure.load(Ordering::Relaxed);
        let counter = if is_under_pressure { &self.0.evicted_by_pressure } else { &self.0.evicted_by_size };
        counter.fetch_add(1, Ordering::Relaxed);
        dropped.push(held);
    }
}
