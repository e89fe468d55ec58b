//! What the caches of an archive have done and hold, for Prometheus. The list with all labels is in `docs/metrics.md`.
//!
//! The caches count by themselves. Their figures are taken over whenever somebody asks for the metrics, so counting costs
//! readers nothing beyond what it costs them anyway.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::{Archive, ArchiveCacheStats};

/// One figure of the caches.
type Figure = fn(&ArchiveCacheStats) -> u64;

/// Name, help and figure of a metric.
type Metric = (&'static str, &'static str, Figure);

/// Name and help of a metric, and its figure for each reason.
type ByReason = (&'static str, &'static str, [(&'static str, Figure); 4]);

const GAUGES: [Metric; 4] = [
    ("des_cache_memory_bytes", "What the caches in memory hold.", |stats| {
        stats.memory.bytes.saturating_add(stats.ahead.bytes)
    }),
    ("des_cache_memory_limit_bytes", "What they may hold.", |stats| {
        stats.memory.bytes_max.saturating_add(stats.ahead.bytes_max)
    }),
    ("des_disk_cache_bytes", "What the cache on disk takes.", |stats| stats.disk.bytes),
    ("des_disk_cache_limit_bytes", "What it may take.", |stats| stats.disk.bytes_max),
];

const COUNTERS: [Metric; 12] = [
    ("des_cache_hit_total", "Lookups that found something in memory.", |stats| stats.memory.hits),
    ("des_cache_miss_total", "Lookups that found nothing in memory.", |stats| stats.memory.misses),
    ("des_disk_cache_hit_total", "Lookups that found a piece on disk.", |stats| stats.disk.hits),
    ("des_disk_cache_miss_total", "Lookups that found none on disk.", |stats| stats.disk.misses),
    ("des_disk_cache_written_total", "Pieces written to the cache on disk.", |stats| stats.disk.written),
    ("des_disk_cache_skipped_total", "Pieces that the disk was too slow for.", |stats| stats.disk.skipped),
    ("des_disk_cache_damaged_total", "Pieces on disk that did not prove themselves.", |stats| stats.disk.damaged),
    ("des_disk_cache_failed_total", "Operations on the disk that failed.", |stats| stats.disk.failed),
    ("des_read_ahead_windows_total", "Windows that were read ahead.", |stats| stats.ahead.windows),
    ("des_read_ahead_bytes_total", "Stored bytes of them.", |stats| stats.ahead.window_bytes),
    ("des_read_ahead_frames_total", "Frames that were there before they were wanted.", |stats| {
        stats.ahead.frames_served.saturating_add(stats.ahead.frames_decoded)
    }),
    ("des_shard_corruption_total", "Pieces of objects that did not prove themselves.", |stats| stats.damage_met),
];

const EVICTIONS: [ByReason; 2] = [
    (
        "des_cache_eviction_total",
        "What was dropped from memory, by why.",
        [
            ("size", |stats| stats.memory.evicted_by_size),
            ("age", |stats| stats.memory.evicted_by_age),
            ("pressure", |stats| stats.memory.evicted_by_pressure),
            ("removed", |stats| stats.memory.removed),
        ],
    ),
    (
        "des_disk_cache_eviction_total",
        "Pieces dropped from the cache on disk, by why.",
        [
            ("size", |stats| stats.disk.evicted_by_size),
            ("age", |stats| stats.disk.evicted_by_age),
            ("pressure", |stats| stats.disk.evicted_by_pressure),
            ("removed", |stats| stats.disk.removed),
        ],
    ),
];

/// The metrics of the caches of one archive.
pub struct CacheMetrics {
    /// Not held: whoever looks at metrics keeps no archive open.
    archive: Weak<Archive>,
    gauges: Vec<(IntGauge, Figure)>,
    counters: Vec<(IntCounter, Figure)>,
    families: Vec<Box<dyn Collector>>,
    /// Held while figures are taken over, so that none is counted twice.
    turn: Mutex<()>,
}

impl CacheMetrics {
    /// Registers them all. A registry takes those of one archive.
    pub fn register(registry: &Registry, archive: &Arc<Archive>) -> Result<(), prometheus::Error> {
        let mut metrics = Self {
            archive: Arc::downgrade(archive),
            gauges: Vec::new(),
            counters: Vec::new(),
            families: Vec::new(),
            turn: Mutex::default(),
        };
        for (name, help, figure) in GAUGES {
            let gauge = IntGauge::new(name, help)?;
            metrics.families.push(Box::new(gauge.clone()));
            metrics.gauges.push((gauge, figure));
        }
        for (name, help, figure) in COUNTERS {
            let counter = IntCounter::new(name, help)?;
            metrics.families.push(Box::new(counter.clone()));
            metrics.counters.push((counter, figure));
        }
        for (name, help, reasons) in EVICTIONS {
            let counters = IntCounterVec::new(Opts::new(name, help), &["reason"])?;
            for (reason, figure) in reasons {
                metrics.counters.push((counters.with_label_values(&[reason]), figure));
            }
            metrics.families.push(Box::new(counters));
        }
        registry.register(Box::new(metrics))
    }

    fn take_over(&self, stats: &ArchiveCacheStats) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        for (gauge, figure) in &self.gauges {
            gauge.set(i64::try_from(figure(stats)).unwrap_or(i64::MAX));
        }
        for (counter, figure) in &self.counters {
            counter.inc_by(figure(stats).saturating_sub(counter.get()));
        }
    }
}

impl Collector for CacheMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.families.iter().flat_map(|family| family.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Some(archive) = self.archive.upgrade() {
            self.take_over(&archive.cache_stats());
        }
        self.families.iter().flat_map(|family| family.collect()).collect()
    }
}

impl fmt::Debug for CacheMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheMetrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use desfmt::document::Identity;
    use desfmt::{ArchiveId, BucketBits, Timestamp};

    use super::*;
    use crate::archive::{CacheKey, Cached, ReadOptions};
    use crate::clock::{ManualClock, SeededRandom};
    use crate::memory::MemoryStore;

    fn archive() -> Arc<Archive> {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
        let identity = Identity::new(ArchiveId::from_bytes([7; 16]), BucketBits::new(4).unwrap(), Timestamp::default());
        let store = Arc::new(MemoryStore::new(Arc::<ManualClock>::clone(&clock)));
        let options = ReadOptions::default();
        Arc::new(Archive::new(store, options, clock, Arc::new(SeededRandom::new(1)), (identity, false)))
    }

    fn value(registry: &Registry, line: &str) -> u64 {
        let text = String::from_utf8(crate::observe::encode(registry).unwrap()).unwrap();
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {line} in\n{text}")).parse().unwrap()
    }

    #[test]
    fn what_the_caches_counted_is_told_however_often_it_is_asked_for() {
        let (registry, archive) = (Registry::new(), archive());
        CacheMetrics::register(&registry, &archive).unwrap();
        assert_eq!(value(&registry, "des_cache_miss_total"), 0);

        assert!(archive.cache.get(&CacheKey::Days).is_none());
        archive.cache.insert(CacheKey::Days, Cached::NoDay(std::time::Duration::ZERO), 1_000);
        assert!(archive.cache.get(&CacheKey::Days).is_some());

        for _ in 0..2 {
            assert_eq!((value(&registry, "des_cache_hit_total"), value(&registry, "des_cache_miss_total")), (1, 1));
            assert!(value(&registry, "des_cache_memory_bytes") > 1_000);
        }
        assert!(value(&registry, "des_cache_memory_limit_bytes") <= 256 << 20);
        archive.drop_caches();
        assert_eq!(value(&registry, r#"des_cache_eviction_total{reason="removed"}"#), 1);
        assert_eq!(value(&registry, "des_cache_memory_bytes"), 0);
    }

    #[test]
    fn an_archive_that_is_closed_is_not_kept_by_its_metrics() {
        let (registry, archive) = (Registry::new(), archive());
        CacheMetrics::register(&registry, &archive).unwrap();
        let weak = Arc::downgrade(&archive);
        drop(archive);

        assert!(weak.upgrade().is_none());
        assert_eq!(value(&registry, "des_cache_hit_total"), 0);
    }
}
