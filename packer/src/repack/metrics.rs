//! What des-repack counts.

use desfmt::Timestamp;
use desstore::repack::{Job, Repacked};
use prometheus::{Gauge, IntCounter, IntCounterVec, Opts, Registry};

use super::collect::GcReport;

/// The metrics of repacking. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RepackMetrics {
    jobs: IntCounterVec,
    saved: IntCounter,
    purged: IntCounter,
    held_back: Gauge,
    oldest: Gauge,
    last_run: Gauge,
}

impl RepackMetrics {
    /// Makes them known to a registry.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            jobs: IntCounterVec::new(
                Opts::new("des_repack_jobs_total", "Repack jobs by their outcome."),
                &["outcome"],
            )?,
            saved: IntCounter::new(
                "des_repack_space_saved_bytes",
                "How much smaller repacked shards are than those they replace.",
            )?,
            purged: IntCounter::new("des_gc_purged_objects_total", "Objects deleted after their grace period.")?,
            held_back: Gauge::new("des_gc_held_back_objects", "Objects whose deletion could not be proven safe.")?,
            oldest: Gauge::new(
                "des_erasure_oldest_seconds",
                "Age of the oldest deletion that is not proven to be carried out, over objects of every kind.",
            )?,
            last_run: Gauge::new("des_repack_last_run_timestamp_seconds", "When the last run ended, in Unix time.")?,
        };
        registry.register(Box::new(metrics.jobs.clone()))?;
        registry.register(Box::new(metrics.saved.clone()))?;
        registry.register(Box::new(metrics.purged.clone()))?;
        registry.register(Box::new(metrics.held_back.clone()))?;
        registry.register(Box::new(metrics.oldest.clone()))?;
        registry.register(Box::new(metrics.last_run.clone()))?;
        for outcome in ["swapped", "dropped", "nothing", "overtaken", "failed"] {
            drop(metrics.jobs.with_label_values(&[outcome]));
        }
        Ok(metrics)
    }

    pub(super) fn note_job(&self, job: &Job, repacked: &Repacked) {
        let (outcome, done) = match repacked {
            Repacked::Swapped(done) => ("swapped", Some(done)),
            Repacked::Dropped(done) => ("dropped", Some(done)),
            Repacked::Nothing => ("nothing", None),
            Repacked::Overtaken => ("overtaken", None),
        };
        self.jobs.with_label_values(&[outcome]).inc();
        if let Some(done) = done {
            let old: u64 = job.shards.iter().map(|shard| shard.len).sum();
            self.saved.inc_by(old.saturating_sub(done.bytes_written));
        }
    }

    pub(super) fn note_failure(&self) {
        self.jobs.with_label_values(&["failed"]).inc();
    }

    pub(super) fn note_gc(&self, report: &GcReport) {
        self.purged.inc_by(report.purged);
        #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a count of objects for people")]
        self.held_back.set(report.held_back.len() as f64);
    }

    /// Notes the age of the oldest deletion that is not carried out, and that a run has ended.
    pub fn note_oldest(&self, oldest: Option<i64>, now: Timestamp) {
        let age = oldest.map_or(0, |oldest| now.since(Timestamp::from_micros(oldest)).as_secs());
        #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "seconds fit into 53 bits")]
        self.oldest.set(age as f64);
        #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "seconds fit into 53 bits")]
        self.last_run.set(now.seconds() as f64);
    }
}
