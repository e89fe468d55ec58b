//! A zone that does not answer is left alone for a while, so that nobody waits for it.
//!
//! Closed, requests go through. After so many failures in a row it opens: requests fail at once. When the recovery time is
//! over one request goes through as a trial; it closes the breaker, or keeps it open for twice as long.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::BreakerSettings;
use super::layer::{Answer, Call, implement_by_run};
use super::metrics::{BreakerState, ZoneMetrics};
use crate::clock::Clock;
use crate::error::{StoreError, StoreErrorKind};
use crate::store::ObjectStore;

/// Fails at once while a zone is away.
#[derive(Debug)]
pub struct BreakerStore {
    inner: Arc<dyn ObjectStore>,
    settings: BreakerSettings,
    clock: Arc<dyn Clock>,
    metrics: ZoneMetrics,
    state: Mutex<State>,
}

/// The reason why a request was not made at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it has failed too often lately and is left alone for a while")]
pub struct BreakerOpen;

impl BreakerOpen {
    /// True for an operation that was never begun because the zone is left alone.
    pub fn refused(error: &StoreError) -> bool {
        error.cause().and_then(|cause| cause.downcast_ref::<Self>()).is_some()
    }
}

#[derive(Debug)]
struct State {
    failures: u32,
    /// When the first of them was noticed.
    failing_since: Duration,
    recovery: Duration,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    Open {
        until: Duration,
    },
    /// A trial is under way.
    HalfOpen,
}

/// With so many failures in a row silence is enough to open.
const FAILURES_IN_SILENCE: u32 = 3;

impl BreakerStore {
    /// Begins closed.
    pub fn new(
        inner: Arc<dyn ObjectStore>,
        settings: BreakerSettings,
        clock: Arc<dyn Clock>,
        metrics: ZoneMetrics,
    ) -> Self {
        let state =
            State { failures: 0, failing_since: Duration::ZERO, recovery: settings.recovery_min, phase: Phase::Closed };
        metrics.breaker_is(BreakerState::Closed);
        Self { inner, settings, clock, metrics, state: Mutex::new(state) }
    }

    async fn run<T: Answer>(
        &self,
        call: Call<'_>,
        attempt: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let mut admitted = self.admit().ok_or_else(|| {
            StoreError::new(StoreErrorKind::Unavailable, call.operation.name(), call.key).caused_by(BreakerOpen)
        })?;
        let outcome = attempt.await;
        // Any other answer, also a refusal, shows that somebody is there.
        admitted.failed = Some(outcome.as_ref().is_err_and(|error| error.kind == StoreErrorKind::Unavailable));
        drop(admitted);
        outcome
    }

    fn admit(&self) -> Option<Admitted<'_>> {
        let now = self.clock.monotonic();
        let mut state = self.state();
        let is_trial = match state.phase {
            Phase::Closed => false,
            Phase::Open { until } if now >= until => {
                state.phase = Phase::HalfOpen;
                self.metrics.breaker_is(BreakerState::HalfOpen);
                true
            }
            Phase::Open { .. } | Phase::HalfOpen => return None,
        };
        Some(Admitted { breaker: self, is_trial, failed: None })
    }

    fn settle(&self, is_trial: bool, failed: Option<bool>) {
        let now = self.clock.monotonic();
        let mut state = self.state();
        match (is_trial, failed) {
            (false, None) => {}
            // Nobody waited for the answer: the next request is the trial.
            (true, None) => self.open(&mut state, now, Duration::ZERO),
            (true, Some(true)) => {
                state.recovery = state.recovery.saturating_mul(2).min(self.settings.recovery_max);
                let recovery = state.recovery;
                self.open(&mut state, now, recovery);
            }
            (true, Some(false)) => {
                (state.phase, state.failures) = (Phase::Closed, 0);
                self.metrics.breaker_is(BreakerState::Closed);
                tracing::info!(zone = self.metrics.zone(), "the zone is back");
            }
            // What was begun before it opened says nothing new.
            (false, Some(_)) if state.phase != Phase::Closed => {}
            (false, Some(false)) => state.failures = 0,
            (false, Some(true)) => {
                if state.failures == 0 {
                    state.failing_since = now;
                }
                state.failures = state.failures.saturating_add(1);
                let is_silent = state.failures >= FAILURES_IN_SILENCE
                    && now.saturating_sub(state.failing_since) >= self.settings.silence_max;
                if is_silent || state.failures >= self.settings.failures_max {
                    tracing::warn!(zone = self.metrics.zone(), failures = state.failures, "the zone is left alone");
                    state.recovery = self.settings.recovery_min;
                    let recovery = state.recovery;
                    self.open(&mut state, now, recovery);
                }
            }
        }
    }

    fn open(&self, state: &mut State, now: Duration, recovery: Duration) {
        state.phase = Phase::Open { until: now.saturating_add(recovery) };
        self.metrics.breaker_is(BreakerState::Open);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that goes through. Settled when dropped, so that one that is cancelled does not stay the trial for ever.
struct Admitted<'a> {
    breaker: &'a BreakerStore,
    is_trial: bool,
    failed: Option<bool>,
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.breaker.settle(self.is_trial, self.failed);
    }
}

implement_by_run!(BreakerStore);
