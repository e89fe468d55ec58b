//! What stands between an archive and a store that is far away: each concern a store around a store, put together in one
//! place.
//!
//! ```text
//! archive -> single flight -> retry -> breaker -> limit -> timeout -> metrics -> store
//! ```
//!
//! Retry is outside of the breaker, so that the breaker sees every attempt and opens soon; metrics are innermost, so that
//! they count what really goes over the wire. A local directory needs none of it.

mod breaker;
mod flight;
mod layer;
mod limit;
mod metrics;
mod retry;
#[cfg(test)]
mod tests;
mod timeout;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use layer::{part_of, payload_bytes};
pub(crate) use timeout::{allowance, within};

pub use breaker::{BreakerOpen, BreakerStore};
pub use flight::SingleFlightStore;
pub use limit::RateLimitStore;
pub use metrics::{MetricsStore, StackMetrics, ZoneMetrics};
pub use retry::RetryStore;
pub use timeout::{TimedOut, TimeoutStore};

use crate::clock::{Clock, Randomness};
use crate::location::{Location, StoreOptions, Surroundings};
use crate::store::ObjectStore;
use crate::values::{parse_duration, parse_timeout};

/// How patient the stack of one zone is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackSettings {
    /// When and how often an operation is tried again.
    pub retry: RetrySettings,
    /// When a zone is left alone.
    pub breaker: BreakerSettings,
    /// How many requests a zone gets.
    pub limit: LimitSettings,
    /// How long one attempt of an operation may take in all, and a second more for each MiB that it moves.
    pub attempt_max: Duration,
}

/// When and how often an operation is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySettings {
    /// Attempts in all; at least 1.
    pub attempts_max: u32,
    /// The first pause is a random part of this; each later one of twice as much.
    pub pause_base: Duration,
    /// No pause is a part of more.
    pub pause_max: Duration,
    /// All attempts and pauses together. An attempt is not begun after it.
    pub deadline: Duration,
    /// Whether an open breaker is waited for. Not so where another zone can be asked instead.
    pub is_patient: bool,
}

/// When a zone is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerSettings {
    /// So many failures in a row open it.
    pub failures_max: u32,
    /// So do three in a row if nothing has succeeded for this time.
    pub silence_max: Duration,
    /// How long it stays open at first; twice as long after each failed trial.
    pub recovery_min: Duration,
    /// It is never open for longer without a trial.
    pub recovery_max: Duration,
}

/// How many requests a zone gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitSettings {
    /// Requests a second; less for a while after the store has asked for less.
    pub per_second: u32,
    /// Requests that may be made at once after a pause.
    pub burst: u32,
    /// Requests under way at once.
    pub in_flight_max: usize,
    /// A request that would have to wait for longer is refused at once.
    pub wait_max: Duration,
}

impl Default for StackSettings {
    fn default() -> Self {
        Self {
            retry: RetrySettings {
                attempts_max: 5,
                pause_base: Duration::from_millis(100),
                pause_max: Duration::from_secs(20),
                deadline: Duration::from_secs(30),
                is_patient: true,
            },
            breaker: BreakerSettings {
                failures_max: 8,
                silence_max: Duration::from_secs(3),
                recovery_min: Duration::from_millis(500),
                recovery_max: Duration::from_secs(10),
            },
            limit: LimitSettings {
                per_second: 3_000,
                burst: 3_000,
                in_flight_max: 256,
                wait_max: Duration::from_secs(30),
            },
            attempt_max: Duration::from_secs(15),
        }
    }
}

impl StackSettings {
    /// Sets one of the options that [`crate::StoreOptions`] lists.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "retry_attempts" => self.retry.attempts_max = parse_count(value)?,
            "retry_base" => self.retry.pause_base = parse_duration(value)?,
            "retry_max" => self.retry.pause_max = parse_duration(value)?,
            "retry_deadline" => self.retry.deadline = parse_duration(value)?,
            "breaker_failures" => self.breaker.failures_max = parse_count(value)?,
            "breaker_recovery" => {
                self.breaker.recovery_max = parse_duration(value)?;
                self.breaker.recovery_min = self.breaker.recovery_min.min(self.breaker.recovery_max);
            }
            "attempt_timeout" => self.attempt_max = parse_timeout(value)?,
            "rate_limit" => {
                self.limit.per_second = parse_count(value)?;
                self.limit.burst = self.limit.per_second;
            }
            "in_flight" => self.limit.in_flight_max = usize::try_from(parse_count(value)?).unwrap_or(usize::MAX),
            other => debug_assert!(false, "{other} is listed as an option and not handled"),
        }
        Ok(())
    }

    /// The same for one of several zones: another one can be asked, so nobody waits long for this one.
    #[must_use]
    pub(crate) fn among_others(mut self) -> Self {
        self.retry.is_patient = false;
        self.retry.deadline = self.retry.deadline.min(ATTEMPT_AMONG_OTHERS_MAX.saturating_mul(2));
        self.attempt_max = self.attempt_max.min(ATTEMPT_AMONG_OTHERS_MAX);
        self
    }
}

/// How long one attempt may take where another zone can be asked.
const ATTEMPT_AMONG_OTHERS_MAX: Duration = Duration::from_secs(4);

fn parse_count(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| format!("{text:?} is not a number from 1 on"))
}

/// Puts the whole stack on top of a store.
pub fn build(
    raw: Arc<dyn ObjectStore>,
    settings: &StackSettings,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Randomness>,
    metrics: &ZoneMetrics,
) -> Arc<dyn ObjectStore> {
    let clock = || Arc::clone(clock);
    let counted = Arc::new(MetricsStore::new(raw, metrics.clone(), clock()));
    let timed = Arc::new(TimeoutStore::new(counted, settings.attempt_max, clock()));
    let limited = Arc::new(RateLimitStore::new(timed, settings.limit.clone(), clock()));
    let broken = Arc::new(BreakerStore::new(limited, settings.breaker.clone(), clock(), metrics.clone()));
    let retried = RetryStore::new(broken, settings.retry.clone(), clock(), Arc::clone(random), metrics.clone());
    Arc::new(SingleFlightStore::new(Arc::new(retried), metrics.clone()))
}

/// Puts around a raw store whatever a program is to have between itself and it. A local directory needs nothing.
pub(crate) fn around(
    raw: Arc<dyn ObjectStore>,
    location: &Location,
    options: &StoreOptions,
    surroundings: &Surroundings,
) -> Arc<dyn ObjectStore> {
    match location {
        Location::Local(_) | Location::Zones(_) => raw,
        Location::S3(place) => {
            let zone = surroundings.zone.as_deref().unwrap_or(&place.bucket);
            let metrics = surroundings.metrics.zone(zone);
            build(raw, &options.patience, &surroundings.clock, &surroundings.random, &metrics)
        }
    }
}
