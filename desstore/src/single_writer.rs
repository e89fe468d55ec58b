//! For stores that do not honour conditions: the conditions are looked at before each write, which is right as long as
//! nobody else writes. The one who starts the program says that this is so.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use desfmt::{ObjectKey, Timestamp};
use tokio::sync::Mutex;

use crate::error::{StoreError, StoreErrorKind};
use crate::store::{Depth, ETag, Fetched, ObjectMeta, ObjectStore, Page, Payload, Receipt};

/// Keeps the promises of conditional writes among the writers of this process, and only among them.
#[derive(Debug)]
pub struct SingleWriterStore {
    inner: Arc<dyn ObjectStore>,
    /// One conditional write at a time.
    writing: Mutex<()>,
}

impl SingleWriterStore {
    /// Around a store that nobody else writes to.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, writing: Mutex::new(()) }
    }

    /// Makes sure that what was written is what is there now.
    async fn still_ours(&self, key: &ObjectKey, receipt: Receipt) -> Result<Receipt, StoreError> {
        let found = self.inner.head(key).await?;
        if found.etag == receipt.etag {
            return Ok(receipt);
        }
        tracing::error!(%key, "somebody else writes to this archive, in spite of --single-writer");
        Err(StoreError::new(StoreErrorKind::PreconditionFailed, "single writer", key))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for SingleWriterStore {
    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<Fetched, StoreError> {
        self.inner.get(key, len_max).await
    }

    async fn get_if_changed(&self, key: &ObjectKey, etag: &ETag, len_max: u64) -> Result<Option<Fetched>, StoreError> {
        self.inner.get_if_changed(key, etag, len_max).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        self.inner.get_range(key, range, etag).await
    }

    async fn get_tail(&self, key: &ObjectKey, len: u64) -> Result<Fetched, StoreError> {
        self.inner.get_tail(key, len).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        self.inner.head(key).await
    }

    async fn put_if_absent(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        let _alone = self.writing.lock().await;
        match self.inner.head(key).await {
            Ok(_) => Err(StoreError::new(StoreErrorKind::AlreadyExists, "put_if_absent", key)),
            Err(error) if error.kind == StoreErrorKind::NotFound => {
                let receipt = self.inner.put(key, payload).await?;
                self.still_ours(key, receipt).await
            }
            Err(error) => Err(error),
        }
    }

    async fn put_if_match(&self, key: &ObjectKey, etag: &ETag, payload: Payload) -> Result<Receipt, StoreError> {
        let _alone = self.writing.lock().await;
        let changed = || StoreError::new(StoreErrorKind::PreconditionFailed, "put_if_match", key);
        match self.inner.head(key).await {
            Ok(found) if found.etag == *etag => {
                let receipt = self.inner.put(key, payload).await?;
                self.still_ours(key, receipt).await
            }
            Ok(_) => Err(changed()),
            Err(error) if error.kind == StoreErrorKind::NotFound => Err(changed()),
            Err(error) => Err(error),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ManualClock, MemoryStore, SystemRandom, conformance, probe};

    fn store() -> Arc<dyn ObjectStore> {
        let inner = Arc::new(MemoryStore::new(Arc::new(ManualClock::new(Timestamp::from_micros(0)))));
        Arc::new(SingleWriterStore::new(inner))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn among_its_own_writers_it_keeps_all_promises() {
        let scratch = tempfile::tempdir().unwrap();

        conformance::run(store, scratch.path()).await.unwrap();

        assert_eq!(probe(store().as_ref(), &SystemRandom).await.unwrap(), crate::Conditions::Honoured);
    }

    #[tokio::test]
    async fn a_second_writer_is_noticed() {
        let inner: Arc<dyn ObjectStore> =
            Arc::new(MemoryStore::new(Arc::new(ManualClock::new(Timestamp::from_micros(0)))));
        let alone = SingleWriterStore::new(Arc::clone(&inner));
        let key = ObjectKey::new("manifest").unwrap();
        let receipt = alone.put_if_absent(&key, Payload::Bytes("mine".into())).await.unwrap();
        inner.put(&key, Payload::Bytes("theirs".into())).await.unwrap();

        let replaced = alone.put_if_match(&key, &receipt.etag, Payload::Bytes("mine again".into())).await;

        assert_eq!(replaced.unwrap_err().kind, StoreErrorKind::PreconditionFailed);
    }
}
