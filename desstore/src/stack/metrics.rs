//! What goes over the wire, counted.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::layer::{Answer, Call, implement_by_run};
use crate::clock::Clock;
use crate::error::{StoreError, StoreErrorKind};
use crate::fault::Operation;
use crate::store::ObjectStore;

/// The metrics of all zones of one program.
#[derive(Debug, Clone)]
pub struct StackMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    bytes: IntCounterVec,
    range_calls: IntCounterVec,
    retries: IntCounterVec,
    shared: IntCounterVec,
    breaker: IntGaugeVec,
    zones: Arc<Mutex<Vec<(String, IntGauge)>>>,
}

/// The metrics of one zone.
#[derive(Debug, Clone)]
pub struct ZoneMetrics {
    all: StackMetrics,
    zone: Arc<str>,
}

/// What a breaker does, as its metric says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BreakerState {
    Closed = 0,
    Open = 1,
    HalfOpen = 2,
}

/// From a cached answer of a store in the same building to a multipart upload, in seconds.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

impl StackMetrics {
    /// Registers them all.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name, help, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let options = HistogramOpts::new("des_s3_request_seconds", "How long requests to a store took.");
        let seconds = HistogramVec::new(options.buckets(SECONDS.to_vec()), &["zone", "operation"])?;
        registry.register(Box::new(seconds.clone()))?;
        let breaker = Opts::new("des_circuit_breaker_state", "0 closed, 1 open, 2 half-open.");
        let breaker = IntGaugeVec::new(breaker, &["zone"])?;
        registry.register(Box::new(breaker.clone()))?;
        Ok(Self {
            requests: counter(
                "des_s3_requests_total",
                "Requests to a store, each attempt by itself.",
                &["zone", "operation", "outcome"],
            )?,
            seconds,
            bytes: counter("des_s3_bytes_total", "Content that was moved.", &["zone", "direction"])?,
            range_calls: counter("des_s3_range_calls_total", "Reads of a part of an object.", &["zone", "type"])?,
            retries: counter("des_s3_retries_total", "Attempts after the first.", &["zone", "operation"])?,
            shared: counter("des_s3_shared_reads_total", "Reads that shared the request of another.", &["zone"])?,
            breaker,
            zones: Arc::default(),
        })
    }

    /// Those that nobody looks at.
    #[expect(clippy::expect_used, clippy::missing_panics_doc, reason = "the names are fixed and differ")]
    pub fn unregistered() -> Self {
        Self::register(&Registry::new()).expect("the names are well formed")
    }

    /// The metrics of the zone of this name.
    pub fn zone(&self, name: &str) -> ZoneMetrics {
        let gauge = self.breaker.with_label_values(&[name]);
        let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        if !zones.iter().any(|(known, _)| known == name) {
            zones.push((name.to_owned(), gauge));
        }
        ZoneMetrics { all: self.clone(), zone: Arc::from(name) }
    }

    /// The zones that are left alone at the moment, and how many there are in all.
    pub fn zones_away(&self) -> (Vec<String>, usize) {
        let zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        let away = zones.iter().filter(|(_, gauge)| gauge.get() != 0).map(|(name, _)| name.clone());
        (away.collect(), zones.len())
    }
}

impl ZoneMetrics {
    /// The zone's name.
    pub fn zone(&self) -> &str {
        &self.zone
    }

    pub(super) fn retried(&self, operation: &str) {
        self.all.retries.with_label_values(&[&*self.zone, operation]).inc();
    }

    pub(super) fn shared(&self) {
        self.all.shared.with_label_values(&[&*self.zone]).inc();
    }

    pub(super) fn breaker_is(&self, state: BreakerState) {
        let value = match state {
            BreakerState::Closed => 0,
            BreakerState::Open => 1,
            BreakerState::HalfOpen => 2,
        };
        self.all.breaker.with_label_values(&[&*self.zone]).set(value);
    }
}

/// Counts each request that reaches the store itself.
#[derive(Debug)]
pub struct MetricsStore {
    inner: Arc<dyn ObjectStore>,
    metrics: ZoneMetrics,
    clock: Arc<dyn Clock>,
}

impl MetricsStore {
    /// Counts for a zone.
    pub fn new(inner: Arc<dyn ObjectStore>, metrics: ZoneMetrics, clock: Arc<dyn Clock>) -> Self {
        Self { inner, metrics, clock }
    }

    async fn run<T: Answer>(
        &self,
        call: Call<'_>,
        attempt: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let began = self.clock.monotonic();
        let outcome = attempt.await;
        let spent = self.clock.monotonic().saturating_sub(began);
        let (all, zone, operation) = (&self.metrics.all, &*self.metrics.zone, call.operation.name());
        all.seconds.with_label_values(&[zone, operation]).observe(spent.as_secs_f64());
        let name = outcome.as_ref().map_or_else(|error| outcome_name(error.kind), |_| "ok");
        all.requests.with_label_values(&[zone, operation, name]).inc();
        match call.operation {
            Operation::GetRange => all.range_calls.with_label_values(&[zone, "range"]).inc(),
            Operation::GetTail => all.range_calls.with_label_values(&[zone, "tail"]).inc(),
            Operation::Get
            | Operation::GetIfChanged
            | Operation::Head
            | Operation::PutIfAbsent
            | Operation::PutIfMatch
            | Operation::Put
            | Operation::Delete
            | Operation::Purge
            | Operation::Time
            | Operation::List => {}
        }
        if let Ok(answer) = &outcome {
            let is_write = call.operation.is_write();
            let (direction, bytes) = if is_write { ("written", call.bytes) } else { ("read", answer.bytes()) };
            all.bytes.with_label_values(&[zone, direction]).inc_by(bytes);
        }
        outcome
    }
}

/// A failure as a label.
pub(crate) const fn outcome_name(kind: StoreErrorKind) -> &'static str {
    match kind {
        StoreErrorKind::NotFound => "not_found",
        StoreErrorKind::AlreadyExists => "already_exists",
        StoreErrorKind::PreconditionFailed => "precondition_failed",
        StoreErrorKind::Denied => "denied",
        StoreErrorKind::Throttled => "throttled",
        StoreErrorKind::Unavailable => "unavailable",
        StoreErrorKind::Full => "full",
        StoreErrorKind::Corrupt => "corrupt",
        StoreErrorKind::Unsupported => "unsupported",
    }
}

implement_by_run!(MetricsStore);
