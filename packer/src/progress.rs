//! How far a run has come, for whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::metrics::PackMetrics;

/// Counters that a run moves and others read at any time.
#[derive(Debug, Default)]
pub struct Progress {
    rows_read: AtomicU64,
    files_total: AtomicU64,
    bytes_total: AtomicU64,
    files_done: AtomicU64,
    bytes_done: AtomicU64,
    shards_done: AtomicU64,
    metrics: Option<PackMetrics>,
}

/// What the counters say at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Rows of the input that were read so far.
    pub rows_read: u64,
    /// Files that are planned; 0 until the input was read.
    pub files_total: u64,
    /// Their declared lengths together.
    pub bytes_total: u64,
    /// Files that were dealt with, published or not.
    pub files_done: u64,
    /// Their declared lengths together.
    pub bytes_done: u64,
    /// Shards that were published.
    pub shards_done: u64,
}

impl Progress {
    /// One that counts for others too.
    pub fn counting(metrics: PackMetrics) -> Self {
        Self { metrics: Some(metrics), ..Self::default() }
    }

    /// What the counters say now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            rows_read: self.rows_read.load(Relaxed),
            files_total: self.files_total.load(Relaxed),
            bytes_total: self.bytes_total.load(Relaxed),
            files_done: self.files_done.load(Relaxed),
            bytes_done: self.bytes_done.load(Relaxed),
            shards_done: self.shards_done.load(Relaxed),
        }
    }

    pub(crate) fn row_read(&self) {
        self.rows_read.fetch_add(1, Relaxed);
    }

    pub(crate) fn planned(&self, files: u64, bytes: u64) {
        self.files_total.store(files, Relaxed);
        self.bytes_total.store(bytes, Relaxed);
    }

    pub(crate) fn done(&self, files: u64, bytes: u64) {
        self.files_done.fetch_add(files, Relaxed);
        self.bytes_done.fetch_add(bytes, Relaxed);
    }

    /// Takes back what has to be done once more.
    pub(crate) fn undone(&self, files: u64, bytes: u64) {
        self.files_done.fetch_sub(files, Relaxed);
        self.bytes_done.fetch_sub(bytes, Relaxed);
    }

    /// A shard of so many files and bytes was published, as an object of so many bytes.
    pub(crate) fn shard_done(&self, files: u64, plain: u64, stored: u64) {
        self.shards_done.fetch_add(1, Relaxed);
        if let Some(metrics) = &self.metrics {
            metrics.published(files, plain, stored);
        }
    }
}
