//! No more requests than a zone can bear: a token bucket that slows down when the store says so, and so many requests at
//! once.
//!
//! The bucket is kept as the time at which it will have room again (the generic cell rate algorithm). A throttled request
//! halves the rate; it grows back by a tenth of the whole each second (additive increase, multiplicative decrease).

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::LimitSettings;
use super::layer::{Answer, Call, implement_by_run};
use crate::clock::Clock;
use crate::error::{StoreError, StoreErrorKind};
use crate::store::ObjectStore;

/// Lets requests wait their turn.
#[derive(Debug)]
pub struct RateLimitStore {
    inner: Arc<dyn ObjectStore>,
    settings: LimitSettings,
    clock: Arc<dyn Clock>,
    permits: Semaphore,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Requests a second at the moment.
    rate: f64,
    /// When the rate was last changed.
    changed: Duration,
    /// When the next request may be made if the bucket is empty; less by what it holds.
    next: Duration,
    /// Requests since `window`, to know how fast they come.
    seen: u32,
    window: Duration,
    /// How fast they came in the last window.
    observed: f64,
}

/// The rate never falls below this.
const PER_SECOND_MIN: f64 = 1.0;
/// Over how long requests are counted.
const WINDOW: Duration = Duration::from_secs(1);
/// What of the full rate comes back in a second.
const REGAINED_PER_SECOND: f64 = 0.1;
/// Throttled answers that come together count as one.
const SLOW_DOWN_EVERY: Duration = Duration::from_millis(200);

impl RateLimitStore {
    /// Begins with a full bucket.
    pub fn new(inner: Arc<dyn ObjectStore>, settings: LimitSettings, clock: Arc<dyn Clock>) -> Self {
        let now = clock.monotonic();
        let rate = f64::from(settings.per_second).max(PER_SECOND_MIN);
        let bucket = Bucket { rate, changed: now, next: Duration::ZERO, seen: 0, window: now, observed: rate };
        let permits = Semaphore::new(settings.in_flight_max.clamp(1, Semaphore::MAX_PERMITS));
        Self { inner, settings, clock, permits, bucket: Mutex::new(bucket) }
    }

    async fn run<T: Answer>(
        &self,
        call: Call<'_>,
        attempt: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let throttled = || StoreError::new(StoreErrorKind::Throttled, call.operation.name(), call.key);
        let wait = self.reserve().ok_or_else(throttled)?;
        if !wait.is_zero() {
            self.clock.sleep(wait).await;
        }
        let Ok(_permit) = self.permits.acquire().await else { return Err(throttled()) };
        let outcome = attempt.await;
        if outcome.as_ref().is_err_and(|error| error.kind == StoreErrorKind::Throttled) {
            self.slow_down();
        }
        outcome
    }

    /// Takes a place in the line, and says how long it is; nothing where it is too long.
    fn reserve(&self) -> Option<Duration> {
        let now = self.clock.monotonic();
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.grow(now, f64::from(self.settings.per_second).max(PER_SECOND_MIN));
        bucket.count(now);
        let each = Duration::from_secs_f64(1.0 / bucket.rate);
        let held = each.saturating_mul(self.settings.burst.saturating_sub(1));
        let turn = bucket.next.max(now.saturating_sub(held));
        let wait = turn.saturating_sub(now);
        if wait > self.settings.wait_max {
            return None;
        }
        bucket.next = turn.saturating_add(each);
        Some(wait)
    }

    fn slow_down(&self) {
        let now = self.clock.monotonic();
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(bucket.changed) < SLOW_DOWN_EVERY && bucket.rate < f64::from(self.settings.per_second) {
            return;
        }
        // The rate that was allowed says little where fewer requests came.
        let observed = bucket.observed.max(f64::from(bucket.seen));
        bucket.rate = (bucket.rate.min(observed) / 2.0).max(PER_SECOND_MIN);
        bucket.changed = now;
        // What was saved up is gone.
        bucket.next = bucket.next.max(now);
        tracing::debug!(rate = bucket.rate, "the store asks for fewer requests");
    }

    #[cfg(test)]
    pub(super) fn rate(&self) -> f64 {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner).rate
    }
}

impl Bucket {
    fn grow(&mut self, now: Duration, full: f64) {
        let since = now.saturating_sub(self.changed);
        if self.rate < full && since >= SLOW_DOWN_EVERY {
            self.rate = (self.rate + full * REGAINED_PER_SECOND * since.as_secs_f64()).min(full);
            self.changed = now;
        }
    }

    fn count(&mut self, now: Duration) {
        let since = now.saturating_sub(self.window);
        if since >= WINDOW {
            self.observed = f64::from(self.seen) / since.as_secs_f64();
            (self.seen, self.window) = (0, now);
        }
        self.seen = self.seen.saturating_add(1);
    }
}

implement_by_run!(RateLimitStore);
