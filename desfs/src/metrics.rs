//! What a mount counts, for Prometheus. The list with all labels is in `docs/metrics.md`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use desstore::observe::{Health, Registry};
use desstore::stack::StackMetrics;
use desstore::{ArchiveError, StoreErrorKind};
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts};

use crate::core::FsError;

/// The metrics of one mount.
#[derive(Debug, Clone)]
pub struct MountMetrics {
    retrieved: IntCounter,
    not_retrieved: IntCounter,
    seconds: Histogram,
    errors: IntCounterVec,
    requests: IntCounterVec,
    deleted: IntCounter,
    writes_dropped: IntCounter,
}

/// From a page in memory to the longest deadline, in seconds.
const SECONDS: [f64; 14] =
    [0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 30.0];

impl MountMetrics {
    /// Registers them all. `backend` is where the archive lies: `local`, `s3` or `multi_s3`, as the ancestor calls it.
    pub fn register(registry: &Registry, backend: &'static str) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let retrievals = counters("des_retrievals_total", "Reads of content.", &["backend", "status"])?;
        let options = HistogramOpts::new("des_retrieval_seconds", "How long reads of content took.");
        let seconds = HistogramVec::new(options.buckets(SECONDS.to_vec()), &["backend"])?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self {
            retrieved: retrievals.with_label_values(&[backend, "ok"]),
            not_retrieved: retrievals.with_label_values(&[backend, "error"]),
            seconds: seconds.with_label_values(&[backend]),
            errors: counters("des_retrieval_errors_total", "Requests not served, by why.", &["error_type"])?,
            requests: counters("des_mount_requests_total", "Requests that needed the archive.", &["operation"])?,
            deleted: counter("des_mount_files_deleted_total", "Files deleted through the mount.")?,
            writes_dropped: counter(
                "des_mount_writes_dropped_total",
                "Writes that reached the mount and were refused.",
            )?,
        })
    }

    /// Notes what became of a request.
    pub(crate) fn note<T>(&self, operation: &'static str, result: &Result<T, FsError>, spent: Duration) {
        self.requests.with_label_values(&[operation]).inc();
        let trouble = result.as_ref().err().and_then(error_type);
        if let Some(error_type) = trouble {
            self.errors.with_label_values(&[error_type]).inc();
        }
        if operation == "read" {
            self.seconds.observe(spent.as_secs_f64());
            if result.is_ok() { self.retrieved.inc() } else { self.not_retrieved.inc() }
        }
    }

    pub(crate) fn deleted(&self) {
        self.deleted.inc();
    }

    pub(crate) fn write_dropped(&self) {
        self.writes_dropped.inc();
    }
}

/// Trouble as a label; none for what is an answer.
fn error_type(error: &FsError) -> Option<&'static str> {
    match error {
        FsError::DeadlineExceeded => Some("deadline"),
        FsError::Archive(error) => Some(match error {
            ArchiveError::Store(error) => match error.kind {
                StoreErrorKind::NotFound | StoreErrorKind::AlreadyExists | StoreErrorKind::PreconditionFailed => {
                    "missing"
                }
                StoreErrorKind::Denied => "denied",
                StoreErrorKind::Throttled => "throttled",
                StoreErrorKind::Unavailable => "unavailable",
                StoreErrorKind::Full => "full",
                StoreErrorKind::Corrupt => "corrupt",
                StoreErrorKind::Unsupported => "unsupported",
            },
            ArchiveError::Damaged { .. } => "damaged",
            ArchiveError::Inconsistent { .. } => "inconsistent",
            ArchiveError::Gone { .. } => "gone",
            ArchiveError::ReadOnly { .. } | ArchiveError::Refused { .. } => "refused",
        }),
        FsError::NoEntry
        | FsError::NotADirectory
        | FsError::IsADirectory
        | FsError::NotEmpty
        | FsError::ReadOnly
        | FsError::NotPermitted
        | FsError::ProgramDenied
        | FsError::DeletionsUsedUp
        | FsError::NameTooLong
        | FsError::Stale
        | FsError::NoAttribute => None,
    }
}

/// Whether a mount serves, for `/ready`.
#[derive(Debug)]
pub struct MountHealth {
    stack: StackMetrics,
    mounted: AtomicBool,
}

impl MountHealth {
    /// Not mounted yet.
    pub fn new(stack: StackMetrics) -> Arc<Self> {
        Arc::new(Self { stack, mounted: AtomicBool::new(false) })
    }

    /// It is mounted now.
    pub fn mounted(&self) {
        self.mounted.store(true, Ordering::Relaxed);
    }
}

impl Health for MountHealth {
    fn ready(&self) -> Result<(), String> {
        if !self.mounted.load(Ordering::Relaxed) {
            return Err("not mounted yet".to_owned());
        }
        let (away, zones) = self.stack.zones_away();
        if zones > 0 && away.len() == zones {
            return Err(format!("the store does not answer: {}", away.join(", ")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use desstore::StoreError;

    use super::*;

    #[test]
    fn reads_are_counted_with_their_outcome_and_trouble_with_its_kind() {
        let registry = Registry::new();
        let metrics = MountMetrics::register(&registry, "local").unwrap();
        let unavailable = ArchiveError::Store(StoreError::new(StoreErrorKind::Unavailable, "get", "k"));

        metrics.note("read", &Ok(()), Duration::from_millis(3));
        metrics.note::<()>("read", &Err(FsError::Archive(unavailable)), Duration::from_secs(1));
        metrics.note::<()>("lookup", &Err(FsError::NoEntry), Duration::ZERO);
        metrics.deleted();
        metrics.write_dropped();

        assert_eq!((metrics.retrieved.get(), metrics.not_retrieved.get()), (1, 1));
        assert_eq!(metrics.seconds.get_sample_count(), 2);
        assert_eq!(metrics.errors.with_label_values(&["unavailable"]).get(), 1);
        assert_eq!(metrics.requests.with_label_values(&["lookup"]).get(), 1);
        assert_eq!((metrics.deleted.get(), metrics.writes_dropped.get()), (1, 1));
    }

    #[test]
    fn a_mount_is_ready_when_it_is_mounted_and_some_zone_answers() {
        let registry = Registry::new();
        let health = MountHealth::new(StackMetrics::register(&registry).unwrap());
        assert_eq!(health.ready(), Err("not mounted yet".to_owned()));

        health.mounted();

        assert_eq!(health.ready(), Ok(()));
    }
}
