//! What packing counts, for Prometheus. The list with all labels is in `docs/metrics.md`.

use desstore::observe::Registry;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter};

/// The metrics of one packing program.
#[derive(Debug, Clone)]
pub struct PackMetrics {
    ratio: Gauge,
    plain: IntCounter,
    stored: IntCounter,
    saved: IntCounter,
    sizes: Histogram,
    files: IntCounter,
}

/// From 64 KiB to 1 GiB.
const SIZES: [f64; 8] =
    [65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0, 67_108_864.0, 268_435_456.0, 1_073_741_824.0];

impl PackMetrics {
    /// Registers them all.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let ratio = Gauge::new("des_compression_ratio", "Content packed so far by what it takes in shards.")?;
        registry.register(Box::new(ratio.clone()))?;
        let options = HistogramOpts::new("des_shard_size_bytes", "Sizes of the shards published.");
        let sizes = Histogram::with_opts(options.buckets(SIZES.to_vec()))?;
        registry.register(Box::new(sizes.clone()))?;
        Ok(Self {
            ratio,
            plain: counter("des_shard_plain_bytes_total", "Content of the files published.")?,
            stored: counter("des_shard_stored_bytes_total", "What it takes in shards.")?,
            saved: counter("des_bytes_saved_total", "What it takes less in shards.")?,
            sizes,
            files: counter("des_shard_files_total", "Files published.")?,
        })
    }

    /// Notes a shard that was published.
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a ratio of sizes needs no more digits")]
    pub(crate) fn published(&self, files: u64, plain: u64, stored: u64) {
        self.files.inc_by(files);
        self.plain.inc_by(plain);
        self.stored.inc_by(stored);
        self.saved.inc_by(plain.saturating_sub(stored));
        self.sizes.observe(stored as f64);
        self.ratio.set(self.plain.get() as f64 / self.stored.get().max(1) as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_shard_moves_every_metric() {
        let registry = Registry::new();
        let metrics = PackMetrics::register(&registry).unwrap();

        metrics.published(10, 4_000, 1_000);
        metrics.published(1, 500, 500);

        assert_eq!((metrics.files.get(), metrics.saved.get(), metrics.sizes.get_sample_count()), (11, 3_000, 2));
        assert!((metrics.ratio.get() - 3.0).abs() < 1e-9);
    }
}
