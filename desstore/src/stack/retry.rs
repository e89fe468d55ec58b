//! What failed for a moment is tried again; what may have been done is found out.
//!
//! Pauses are a random part of a time that doubles. Where the store says how long it wants to be left alone, that comes on
//! top, so that those who were told the same do not come back together; where there is no time for it, the failure is the
//! answer.
//!
//! A write whose answer was lost may have taken effect. When a later attempt then finds the object there, or changed, the
//! object is read and compared: equal content is our own write. Documents hold the number of their transaction and objects
//! their name, so equal content of somebody else is the same thing.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use desfmt::{ObjectKey, Timestamp};

use super::RetrySettings;
use super::breaker::BreakerOpen;
use super::layer::{part_of, payload_bytes};
use super::metrics::ZoneMetrics;
use crate::clock::{Clock, Randomness};
use crate::error::{StoreError, StoreErrorKind};
use crate::fault::Operation;
use crate::store::{Depth, ETag, Fetched, ObjectMeta, ObjectStore, Page, Payload, Receipt};

/// Tries again what may succeed later.
#[derive(Debug)]
pub struct RetryStore {
    inner: Arc<dyn ObjectStore>,
    settings: RetrySettings,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Randomness>,
    metrics: ZoneMetrics,
}

/// How much is compared at a time.
const COMPARED_BYTES: u64 = 8 << 20;

/// While an open breaker is waited for, at most this long at a time.
const BREAKER_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The attempts of one operation.
struct Attempts<'a> {
    store: &'a RetryStore,
    operation: Operation,
    began: Duration,
    made: u32,
    refused: u32,
    /// An earlier attempt may have taken effect.
    is_ambiguous: bool,
}

impl RetryStore {
    /// Tries as often as the settings say.
    pub fn new(
        inner: Arc<dyn ObjectStore>,
        settings: RetrySettings,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Randomness>,
        metrics: ZoneMetrics,
    ) -> Self {
        Self { inner, settings, clock, random, metrics }
    }

    fn attempts(&self, operation: Operation) -> Attempts<'_> {
        let began = self.clock.monotonic();
        Attempts { store: self, operation, began, made: 0, refused: 0, is_ambiguous: false }
    }

    async fn repeat<T: Send, F>(&self, operation: Operation, attempt: impl Fn() -> F + Send) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let mut attempts = self.attempts(operation);
        loop {
            match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(error) => attempts.pause(error).await?,
            }
        }
    }

    /// Writes under a condition; `lost` is what the store says when the condition does not hold.
    async fn write<F>(
        &self,
        (operation, lost): (Operation, StoreErrorKind),
        key: &ObjectKey,
        payload: &Payload,
        attempt: impl Fn(Payload) -> F + Send,
    ) -> Result<Receipt, StoreError>
    where
        F: Future<Output = Result<Receipt, StoreError>> + Send,
    {
        let mut attempts = self.attempts(operation);
        loop {
            let error = match attempt(payload.clone()).await {
                Ok(receipt) => return Ok(receipt),
                Err(error) => error,
            };
            if error.kind == lost && attempts.is_ambiguous {
                return self.recognise(key, payload).await?.ok_or(error);
            }
            if let Err(error) = attempts.pause(error).await {
                // The last answer was lost as well: what is there decides, if it can be read.
                return match self.recognise(key, payload).await {
                    Ok(Some(receipt)) if attempts.is_ambiguous => Ok(receipt),
                    Ok(_) | Err(_) => Err(error),
                };
            }
        }
    }

    /// The receipt of an object whose content is that of the payload.
    async fn recognise(&self, key: &ObjectKey, payload: &Payload) -> Result<Option<Receipt>, StoreError> {
        let meta = match self.head(key).await {
            Ok(meta) => meta,
            Err(error) if error.kind == StoreErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if meta.len != payload_bytes(payload) {
            return Ok(None);
        }
        let mut at = 0;
        while at < meta.len {
            let end = at.saturating_add(COMPARED_BYTES).min(meta.len);
            let found = self.get_range(key, at..end, Some(&meta.etag)).await?;
            if found != part_of(payload, at..end).await.map_err(|cause| unreadable(key, cause))? {
                return Ok(None);
            }
            at = end;
        }
        Ok(Some(Receipt { etag: meta.etag, at: meta.modified }))
    }
}

impl Attempts<'_> {
    /// Waits until the next attempt may be made, or hands the error back where there is to be none.
    async fn pause(&mut self, error: StoreError) -> Result<(), StoreError> {
        let settings = &self.store.settings;
        let is_refused = BreakerOpen::refused(&error);
        if is_refused {
            if !settings.is_patient {
                return Err(error);
            }
            self.refused = self.refused.saturating_add(1);
        } else {
            self.made = self.made.saturating_add(1);
            self.is_ambiguous |= matches!(error.kind, StoreErrorKind::Unavailable | StoreErrorKind::Corrupt);
        }
        if !error.kind.is_transient() || self.made >= settings.attempts_max {
            return Err(error);
        }
        let asked = error.retry_after();
        let pause = self.jitter(if is_refused { self.refused } else { self.made }, is_refused).saturating_add(asked);
        let spent = self.store.clock.monotonic().saturating_sub(self.began);
        if spent.saturating_add(pause) >= settings.deadline {
            return Err(error);
        }
        tracing::debug!(%error, attempt = self.made, ?pause, "once more");
        self.store.clock.sleep(pause).await;
        if !is_refused {
            self.store.metrics.retried(self.operation.name());
        }
        Ok(())
    }

    /// A random part of a time that doubles with each attempt.
    fn jitter(&self, attempt: u32, is_refused: bool) -> Duration {
        let settings = &self.store.settings;
        let pause_max = if is_refused { settings.pause_max.min(BREAKER_PAUSE_MAX) } else { settings.pause_max };
        let doubled = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        let most = settings.pause_base.saturating_mul(doubled).min(pause_max);
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.store.random.next().checked_rem(micros.saturating_add(1)).unwrap_or(0))
    }
}

fn unreadable(key: &ObjectKey, cause: std::io::Error) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "compare", key).caused_by(cause)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for RetryStore {
    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<Fetched, StoreError> {
        self.repeat(Operation::Get, || self.inner.get(key, len_max)).await
    }

    async fn get_if_changed(&self, key: &ObjectKey, etag: &ETag, len_max: u64) -> Result<Option<Fetched>, StoreError> {
        self.repeat(Operation::GetIfChanged, || self.inner.get_if_changed(key, etag, len_max)).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        self.repeat(Operation::GetRange, || self.inner.get_range(key, range.clone(), etag)).await
    }

    async fn get_tail(&self, key: &ObjectKey, len: u64) -> Result<Fetched, StoreError> {
        self.repeat(Operation::GetTail, || self.inner.get_tail(key, len)).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        self.repeat(Operation::Head, || self.inner.head(key)).await
    }

    async fn put_if_absent(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        let what = (Operation::PutIfAbsent, StoreErrorKind::AlreadyExists);
        self.write(what, key, &payload, |payload| self.inner.put_if_absent(key, payload)).await
    }

    async fn put_if_match(&self, key: &ObjectKey, etag: &ETag, payload: Payload) -> Result<Receipt, StoreError> {
        let what = (Operation::PutIfMatch, StoreErrorKind::PreconditionFailed);
        self.write(what, key, &payload, |payload| self.inner.put_if_match(key, etag, payload)).await
    }

    async fn put(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        self.repeat(Operation::Put, || self.inner.put(key, payload.clone())).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.repeat(Operation::Delete, || self.inner.delete(key)).await
    }

    async fn purge(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.repeat(Operation::Purge, || self.inner.purge(key)).await
    }

    async fn time(&self) -> Result<Timestamp, StoreError> {
        self.repeat(Operation::Time, || self.inner.time()).await
    }

    async fn list(&self, prefix: &str, depth: Depth, token: Option<&str>) -> Result<Page, StoreError> {
        self.repeat(Operation::List, || self.inner.list(prefix, depth, token)).await
    }
}
