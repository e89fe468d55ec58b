//! A store in memory: the reference for what every other store must do, and the ground that tests stand on.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use desfmt::{ObjectKey, Timestamp};

use crate::clock::Clock;
use crate::error::{StoreError, StoreErrorKind};
use crate::store::{Depth, ETag, Fetched, ObjectMeta, ObjectStore, Page, Payload, Receipt};

/// Objects in memory behind one lock, so that every operation takes effect at one point in time.
pub struct MemoryStore {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    page_len: usize,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    versions: u64,
}

struct Object {
    key: ObjectKey,
    bytes: Bytes,
    etag: ETag,
    modified: Timestamp,
}

impl MemoryStore {
    /// As many keys as S3 lists at once.
    const PAGE_LEN: usize = 1_000;

    /// An empty store that takes the times of its objects from `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { state: Mutex::default(), clock, page_len: Self::PAGE_LEN }
    }

    /// The same with listings cut after `page_len` keys.
    #[must_use]
    pub fn with_page_len(mut self, page_len: NonZeroUsize) -> Self {
        self.page_len = page_len.get();
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an object where `allowed` agrees with what is there now.
    fn write(
        &self,
        operation: &'static str,
        key: &ObjectKey,
        payload: Payload,
        allowed: impl FnOnce(Option<&Object>) -> Result<(), StoreErrorKind> + Send,
    ) -> Result<Receipt, StoreError> {
        let bytes = read_payload(operation, key, payload)?;
        let mut state = self.state();
        allowed(state.objects.get(key.as_str())).map_err(|kind| StoreError::new(kind, operation, key))?;
        state.versions = state.versions.saturating_add(1);
        let (etag, at) = (ETag(format!("v{}", state.versions)), self.clock.now());
        let object = Object { key: key.clone(), bytes, etag: etag.clone(), modified: at };
        state.objects.insert(key.to_string(), object);
        Ok(Receipt { etag, at })
    }

    fn read<T>(
        &self,
        operation: &'static str,
        key: &ObjectKey,
        take: impl FnOnce(&Object) -> Result<T, StoreErrorKind> + Send,
    ) -> Result<T, StoreError> {
        let state = self.state();
        let found = state.objects.get(key.as_str()).ok_or(StoreErrorKind::NotFound);
        found.and_then(take).map_err(|kind| StoreError::new(kind, operation, key))
    }
}

impl Object {
    fn meta(&self) -> ObjectMeta {
        let len = u64::try_from(self.bytes.len()).unwrap_or(u64::MAX);
        ObjectMeta { key: self.key.clone(), len, etag: self.etag.clone(), modified: self.modified }
    }

    fn whole(&self, len_max: u64) -> Result<Fetched, StoreErrorKind> {
        let meta = self.meta();
        if meta.len > len_max {
            return Err(StoreErrorKind::Corrupt);
        }
        Ok(Fetched { meta, bytes: self.bytes.clone() })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for MemoryStore {
    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<Fetched, StoreError> {
        self.read("get", key, |object| object.whole(len_max))
    }

    async fn get_if_changed(&self, key: &ObjectKey, etag: &ETag, len_max: u64) -> Result<Option<Fetched>, StoreError> {
        self.read(
            "get_if_changed",
            key,
            |object| {
                if object.etag == *etag { Ok(None) } else { object.whole(len_max).map(Some) }
            },
        )
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        self.read("get_range", key, |object| {
            if etag.is_some_and(|etag| *etag != object.etag) {
                return Err(StoreErrorKind::PreconditionFailed);
            }
            let start = usize::try_from(range.start).map_err(|_| StoreErrorKind::Corrupt)?;
            let end = usize::try_from(range.end).map_err(|_| StoreErrorKind::Corrupt)?;
            if start > end || end > object.bytes.len() {
                return Err(StoreErrorKind::Corrupt);
            }
            Ok(object.bytes.slice(start..end))
        })
    }

    async fn get_tail(&self, key: &ObjectKey, len: u64) -> Result<Fetched, StoreError> {
        self.read("get_tail", key, |object| {
            let start = object.bytes.len().saturating_sub(usize::try_from(len).unwrap_or(usize::MAX));
            Ok(Fetched { meta: object.meta(), bytes: object.bytes.slice(start..) })
        })
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        self.read("head", key, |object| Ok(object.meta()))
    }

    async fn put_if_absent(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        self.write("put_if_absent", key, payload, |found| match found {
            Some(_) => Err(StoreErrorKind::AlreadyExists),
            None => Ok(()),
        })
    }

    async fn put_if_match(&self, key: &ObjectKey, etag: &ETag, payload: Payload) -> Result<Receipt, StoreError> {
        self.write("put_if_match", key, payload, |found| match found {
            Some(object) if object.etag == *etag => Ok(()),
            Some(_) | None => Err(StoreErrorKind::PreconditionFailed),
        })
    }

    async fn put(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        self.write("put", key, payload, |_| Ok(()))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.state().objects.remove(key.as_str());
        Ok(())
    }

    async fn purge(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.delete(key).await
    }

    async fn time(&self) -> Result<Timestamp, StoreError> {
        Ok(self.clock.now())
    }

    async fn list(&self, prefix: &str, depth: Depth, token: Option<&str>) -> Result<Page, StoreError> {
        let state = self.state();
        let start = token.map_or(Bound::Included(prefix), Bound::Excluded);
        let mut objects = Vec::new();
        for (key, object) in state.objects.range::<str, _>((start, Bound::Unbounded)) {
            let Some(rest) = key.strip_prefix(prefix) else { break };
            if depth == Depth::Direct && rest.contains('/') {
                continue;
            }
            if objects.len() == self.page_len {
                let next = objects.last().map(|last: &ObjectMeta| last.key.to_string());
                return Ok(Page { objects, next });
            }
            objects.push(object.meta());
        }
        Ok(Page { objects, next: None })
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let objects = self.state().objects.len();
        f.debug_struct("MemoryStore").field("objects", &objects).finish_non_exhaustive()
    }
}

fn read_payload(operation: &'static str, key: &ObjectKey, payload: Payload) -> Result<Bytes, StoreError> {
    match payload {
        Payload::Bytes(bytes) => Ok(bytes),
        Payload::File(path) => std::fs::read(path)
            .map(Bytes::from)
            .map_err(|cause| StoreError::new(StoreErrorKind::Unavailable, operation, key).caused_by(cause)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_store_in_memory_keeps_the_contract() {
        let scratch = tempfile::tempdir().unwrap();
        let make = || -> Arc<dyn ObjectStore> {
            let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
            Arc::new(MemoryStore::new(clock).with_page_len(NonZeroUsize::new(7).unwrap()))
        };

        crate::conformance::run(make, scratch.path()).await.unwrap();
    }

    #[tokio::test]
    async fn an_object_is_as_old_as_the_clock_says() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_000_000)));
        let store = MemoryStore::new(Arc::<ManualClock>::clone(&clock));
        let key = ObjectKey::new("a").unwrap();
        store.put(&key, Payload::Bytes(Bytes::new())).await.unwrap();

        clock.advance(std::time::Duration::from_secs(5));

        assert_eq!(store.head(&key).await.unwrap().modified, Timestamp::from_micros(1_000_000));
    }
}
