//! No attempt lasts for ever.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};

use super::layer::{Answer, Call, implement_by_run};
use crate::clock::Clock;
use crate::error::{StoreError, StoreErrorKind};
use crate::store::ObjectStore;

/// Gives up on attempts that take too long. Whether a write took effect is unknown then.
#[derive(Debug)]
pub struct TimeoutStore {
    inner: Arc<dyn ObjectStore>,
    attempt_max: Duration,
    clock: Arc<dyn Clock>,
}

/// The reason why an attempt was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {after:?}")]
pub struct TimedOut {
    /// How long was waited.
    pub after: Duration,
}

/// What a transfer must move in a second, at the least.
const BYTES_PER_SECOND_MIN: u64 = 1 << 20;

/// How long an attempt may take that moves so many bytes: one rule, whoever keeps the time.
pub(crate) fn allowance(attempt_max: Duration, bytes: u64) -> Duration {
    attempt_max.saturating_add(Duration::from_secs(bytes / BYTES_PER_SECOND_MIN))
}

impl TimeoutStore {
    /// Waits for an attempt for `attempt_max`, and a second more for each MiB.
    pub fn new(inner: Arc<dyn ObjectStore>, attempt_max: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { inner, attempt_max, clock }
    }

    async fn run<T: Answer>(
        &self,
        call: Call<'_>,
        attempt: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let after = allowance(self.attempt_max, call.bytes);
        within(self.clock.as_ref(), after, (call.operation.name(), call.key), attempt).await
    }
}

/// Waits for the outcome of an operation on a key for at most so long.
pub(crate) async fn within<T: Send>(
    clock: &dyn Clock,
    after: Duration,
    (operation, key): (&'static str, &str),
    attempt: impl Future<Output = Result<T, StoreError>> + Send,
) -> Result<T, StoreError> {
    match select(pin!(attempt), clock.sleep(after)).await {
        Either::Left((outcome, _)) => outcome,
        Either::Right(((), _)) => {
            Err(StoreError::new(StoreErrorKind::Unavailable, operation, key).caused_by(TimedOut { after }))
        }
    }
}

implement_by_run!(TimeoutStore);
