//! Equal reads that are under way at the same time are one request, and its failure is everybody's.
//!
//! Only reads of what never changes are shared: ranges of a named version, and tails of shards. A document read later must
//! not get the answer to a question asked earlier.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use desfmt::{ObjectKey, Timestamp, layout};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};

use super::metrics::ZoneMetrics;
use crate::error::StoreError;
use crate::store::{Depth, ETag, Fetched, ObjectMeta, ObjectStore, Page, Payload, Receipt};

/// Makes equal reads share one request.
pub struct SingleFlightStore {
    inner: Arc<dyn ObjectStore>,
    metrics: ZoneMetrics,
    ranges: Arc<Flights<RangeOf, Bytes>>,
    tails: Arc<Flights<TailOf, Fetched>>,
}

type RangeOf = (ObjectKey, Range<u64>, ETag);
type TailOf = (ObjectKey, u64);
type Answer<T> = Result<T, StoreError>;
type Flight<T> = Shared<BoxFuture<'static, Answer<T>>>;
type WeakFlight<T> = WeakShared<BoxFuture<'static, Answer<T>>>;

/// What is under way. As long as what is asked for at the moment, since a flight takes itself out when it ends or nobody
/// waits for it any more.
struct Flights<K, T> {
    under_way: Mutex<HashMap<K, (u64, WeakFlight<T>)>>,
    begun: std::sync::atomic::AtomicU64,
}

impl SingleFlightStore {
    /// Nothing is under way.
    pub fn new(inner: Arc<dyn ObjectStore>, metrics: ZoneMetrics) -> Self {
        Self { inner, metrics, ranges: Arc::new(Flights::new()), tails: Arc::new(Flights::new()) }
    }
}

impl<K: Hash + Eq + Clone + Send + 'static, T: Clone + Send + Sync + 'static> Flights<K, T> {
    fn new() -> Self {
        Self { under_way: Mutex::default(), begun: std::sync::atomic::AtomicU64::new(0) }
    }

    /// Joins what is under way, or sets off. True when it was under way already.
    fn join(self: &Arc<Self>, key: K, read: impl Future<Output = Answer<T>> + Send + 'static) -> (Flight<T>, bool) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = under_way.get(&key).and_then(|(_, flight)| flight.upgrade()) {
            return (flight, true);
        }
        let number = self.begun.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let landing = Landing { flights: Arc::clone(self), key: key.clone(), number };
        let flight = async move {
            let answer = read.await;
            drop(landing);
            answer
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            under_way.insert(key, (number, weak));
        }
        (flight, false)
    }
}

/// Takes a flight off the list, also when it is dropped half way.
struct Landing<K: Hash + Eq, T> {
    flights: Arc<Flights<K, T>>,
    key: K,
    number: u64,
}

impl<K: Hash + Eq, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        let mut under_way = self.flights.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if under_way.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            under_way.remove(&self.key);
        }
    }
}

impl fmt::Debug for SingleFlightStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlightStore").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for SingleFlightStore {
    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<Fetched, StoreError> {
        self.inner.get(key, len_max).await
    }

    async fn get_if_changed(&self, key: &ObjectKey, etag: &ETag, len_max: u64) -> Result<Option<Fetched>, StoreError> {
        self.inner.get_if_changed(key, etag, len_max).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        let Some(version) = etag else { return self.inner.get_range(key, range, etag).await };
        let (inner, asked) = (Arc::clone(&self.inner), (key.clone(), range.clone(), version.clone()));
        let (key, version) = (key.clone(), version.clone());
        let read = async move { inner.get_range(&key, range, Some(&version)).await };
        let (flight, is_shared) = self.ranges.join(asked, read);
        if is_shared {
            self.metrics.shared();
        }
        flight.await
    }

    async fn get_tail(&self, key: &ObjectKey, len: u64) -> Result<Fetched, StoreError> {
        if !key.as_str().starts_with(layout::SHARDS) {
            return self.inner.get_tail(key, len).await;
        }
        let (inner, key, asked) = (Arc::clone(&self.inner), key.clone(), (key.clone(), len));
        let (flight, is_shared) = self.tails.join(asked, async move { inner.get_tail(&key, len).await });
        if is_shared {
            self.metrics.shared();
        }
        flight.await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        self.inner.head(key).await
    }

    async fn put_if_absent(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        self.inner.put_if_absent(key, payload).await
    }

    async fn put_if_match(&self, key: &ObjectKey, etag: &ETag, payload: Payload) -> Result<Receipt, StoreError> {
        self.inner.put_if_match(key, etag, payload).await
    }

    async fn put(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        self.inner.put(key, payload).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    async fn purge(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.inner.purge(key).await
    }

    async fn time(&self) -> Result<Timestamp, StoreError> {
        self.inner.time().await
    }

    async fn list(&self, prefix: &str, depth: Depth, token: Option<&str>) -> Result<Page, StoreError> {
        self.inner.list(prefix, depth, token).await
    }
}
