//! No attempt lasts for ever.

use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use desfmt::{ObjectKey, Timestamp};
use futures_util::future::{Either, select};

use super::layer::{Answer, Call, implement_by_run};
use crate::clock::Clock;
use crate::error::{StoreError, StoreErrorKind};
use crate::fault::Operation;
use crate::store::{Depth, ETag, Fetched, ObjectMeta, ObjectStore, Page, Payload, Receipt};

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
        let after = self.attempt_max.saturating_add(Duration::from_secs(call.bytes / BYTES_PER_SECOND_MIN));
        match select(pin!(attempt), self.clock.sleep(after)).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(((), _)) => {
                let error = StoreError::new(StoreErrorKind::Unavailable, call.operation.name(), call.key);
                Err(error.caused_by(TimedOut { after }))
            }
        }
    }
}

implement_by_run!(TimeoutStore);
