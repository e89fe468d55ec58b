//! What a migration counts. The names are those of the ancestor, where it has one.

use packer::PackMetrics;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// The metrics of a migration.
#[derive(Debug, Clone)]
pub struct MigrationMetrics {
    /// Cycles, by how they ended.
    pub cycles: IntCounterVec,
    /// Files that were packed and proven.
    pub files: IntCounter,
    /// Their bytes.
    pub bytes: IntCounter,
    /// Shards that hold them.
    pub shards: IntCounter,
    /// The same as des-pack counts it.
    pub packing: PackMetrics,
    /// Files that could not be moved.
    pub files_failed: IntCounter,
    /// Files that a sweep found below the cutoff.
    pub late_files: IntCounter,
    /// Sources that were removed.
    pub sources_removed: IntCounter,
    /// How long a cycle took.
    pub duration: Histogram,
    /// About how many files wait.
    pub pending: IntGauge,
    /// Rows of the batch in hand.
    pub batch_size: IntGauge,
    /// Exceptions that nobody has acknowledged.
    pub exceptions: IntGauge,
    /// How far the cutoff lies behind now.
    pub lag: Gauge,
}

/// The buckets of the ancestor, and some for longer cycles.
const SECONDS: [f64; 10] = [1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1_800.0, 7_200.0, 28_800.0];

impl MigrationMetrics {
    /// Registers all of them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let cycles = Opts::new("des_migration_cycles_total", "Cycles of the migration, by how they ended");
        let cycles = IntCounterVec::new(cycles, &["status"])?;
        registry.register(Box::new(cycles.clone()))?;
        for status in ["success", "failure"] {
            cycles.with_label_values(&[status]).inc_by(0);
        }
        let duration = HistogramOpts::new("des_migration_duration_seconds", "How long a cycle took");
        let duration = Histogram::with_opts(duration.buckets(SECONDS.to_vec()))?;
        registry.register(Box::new(duration.clone()))?;
        let lag = Gauge::new("des_packer_lag_seconds", "How far the cutoff lies behind the present")?;
        registry.register(Box::new(lag.clone()))?;
        Ok(Self {
            packing: PackMetrics::register(registry)?,
            cycles,
            files: counter("des_migration_files_total", "Files that were packed and read back")?,
            bytes: counter("des_migration_bytes_total", "Bytes of the files that were packed and read back")?,
            shards: counter("des_migration_shards_total", "Shards that files were packed into and read back from")?,
            files_failed: counter("des_migration_files_failed_total", "Rows that became exceptions")?,
            late_files: counter("des_migration_late_files_total", "Files that a sweep found below the cutoff")?,
            sources_removed: counter("des_migration_sources_removed_total", "Sources that were removed")?,
            duration,
            pending: gauge("des_migration_pending_files", "About how many files wait to be moved")?,
            batch_size: gauge("des_migration_batch_size", "Rows of the batch in hand, or of the last one")?,
            exceptions: gauge("des_migration_exceptions", "Exceptions that nobody has acknowledged")?,
            lag,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_ancestor_are_kept() {
        let registry = Registry::new();
        MigrationMetrics::register(&registry).unwrap();
        let names: Vec<String> = registry.gather().iter().map(|family| family.name().to_owned()).collect();
        for name in [
            "des_migration_cycles_total",
            "des_migration_files_total",
            "des_migration_bytes_total",
            "des_migration_shards_total",
            "des_migration_exceptions",
            "des_migration_duration_seconds",
            "des_migration_pending_files",
            "des_migration_batch_size",
            "des_packer_lag_seconds",
        ] {
            assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
        }
    }
}
