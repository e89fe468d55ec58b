//! The store around a store: what all calls have in common, so that a concern is written once and not twelve times.

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytes::Bytes;
use desfmt::{ObjectKey, Timestamp};

use crate::fault::Operation;
use crate::store::{Fetched, ObjectMeta, Page, Payload, Receipt};

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) operation: Operation,
    /// The key, or the prefix of a listing; empty for the time.
    pub(super) key: &'a str,
    /// Content that is to be moved, as far as known beforehand.
    pub(super) bytes: u64,
}

impl<'a> Call<'a> {
    /// A call on an object.
    pub(super) fn on(operation: Operation, key: &'a ObjectKey, bytes: u64) -> Self {
        Self { operation, key: key.as_str(), bytes }
    }
}

/// How much a payload moves; 0 where that cannot be told.
pub(crate) fn payload_bytes(payload: &Payload) -> u64 {
    match payload {
        Payload::Bytes(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        Payload::File(path) => std::fs::metadata(path).map_or(0, |meta| meta.len()),
    }
}

/// A part of a payload; short where the payload is.
pub(crate) async fn part_of(payload: &Payload, range: Range<u64>) -> std::io::Result<Bytes> {
    match payload {
        Payload::Bytes(bytes) => {
            let start = usize::try_from(range.start).unwrap_or(usize::MAX);
            let end = usize::try_from(range.end).unwrap_or(usize::MAX);
            Ok(bytes.get(start..end).map_or_else(Bytes::new, |part| bytes.slice_ref(part)))
        }
        Payload::File(path) => {
            let path = path.clone();
            tokio::task::spawn_blocking(move || read_part(path, range)).await.map_err(std::io::Error::other)?
        }
    }
}

fn read_part(path: PathBuf, range: Range<u64>) -> std::io::Result<Bytes> {
    let mut part = vec![0; usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0)];
    std::fs::File::open(path)?.read_exact_at(&mut part, range.start)?;
    Ok(part.into())
}

/// An answer, by how much content came with it.
pub(super) trait Answer: Send {
    fn bytes(&self) -> u64 {
        0
    }
}

impl Answer for () {}
impl Answer for ObjectMeta {}
impl Answer for Receipt {}
impl Answer for Page {}
impl Answer for Timestamp {}

impl Answer for Bytes {
    fn bytes(&self) -> u64 {
        u64::try_from(self.len()).unwrap_or(u64::MAX)
    }
}

impl Answer for Fetched {
    fn bytes(&self) -> u64 {
        self.bytes.bytes()
    }
}

impl Answer for Option<Fetched> {
    fn bytes(&self) -> u64 {
        self.as_ref().map_or(0, Answer::bytes)
    }
}

/// Implements `ObjectStore` for a type with an `inner` store by its `run`, which gets each call and what makes it.
macro_rules! implement_by_run {
    ($store:ty) => {
        const _: () = {
            use std::ops::Range;

            use bytes::Bytes;
            use desfmt::{ObjectKey, Timestamp};

            use crate::error::StoreError;
            use crate::fault::Operation;
            use crate::stack::layer::{Call, payload_bytes};
            use crate::store::{Depth, ETag, Fetched, ObjectMeta, ObjectStore, Page, Payload, Receipt};

            #[async_trait::async_trait]
            #[deny(clippy::missing_trait_methods)]
            impl ObjectStore for $store {
                async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<Fetched, StoreError> {
                    self.run(Call::on(Operation::Get, key, 0), self.inner.get(key, len_max)).await
                }

                async fn get_if_changed(
                    &self,
                    key: &ObjectKey,
                    etag: &ETag,
                    len_max: u64,
                ) -> Result<Option<Fetched>, StoreError> {
                    let call = Call::on(Operation::GetIfChanged, key, 0);
                    self.run(call, self.inner.get_if_changed(key, etag, len_max)).await
                }

                async fn get_range(
                    &self,
                    key: &ObjectKey,
                    range: Range<u64>,
                    etag: Option<&ETag>,
                ) -> Result<Bytes, StoreError> {
                    let call = Call::on(Operation::GetRange, key, range.end.saturating_sub(range.start));
                    self.run(call, self.inner.get_range(key, range, etag)).await
                }

                async fn get_tail(&self, key: &ObjectKey, len: u64) -> Result<Fetched, StoreError> {
                    self.run(Call::on(Operation::GetTail, key, len), self.inner.get_tail(key, len)).await
                }

                async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
                    self.run(Call::on(Operation::Head, key, 0), self.inner.head(key)).await
                }

                async fn put_if_absent(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
                    let call = Call::on(Operation::PutIfAbsent, key, payload_bytes(&payload));
                    self.run(call, self.inner.put_if_absent(key, payload)).await
                }

                async fn put_if_match(
                    &self,
                    key: &ObjectKey,
                    etag: &ETag,
                    payload: Payload,
                ) -> Result<Receipt, StoreError> {
                    let call = Call::on(Operation::PutIfMatch, key, payload_bytes(&payload));
                    self.run(call, self.inner.put_if_match(key, etag, payload)).await
                }

                async fn put(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
                    let call = Call::on(Operation::Put, key, payload_bytes(&payload));
                    self.run(call, self.inner.put(key, payload)).await
                }

                async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
                    self.run(Call::on(Operation::Delete, key, 0), self.inner.delete(key)).await
                }

                async fn purge(&self, key: &ObjectKey) -> Result<(), StoreError> {
                    self.run(Call::on(Operation::Purge, key, 0), self.inner.purge(key)).await
                }

                async fn time(&self) -> Result<Timestamp, StoreError> {
                    self.run(Call { operation: Operation::Time, key: "", bytes: 0 }, self.inner.time()).await
                }

                async fn list(&self, prefix: &str, depth: Depth, token: Option<&str>) -> Result<Page, StoreError> {
                    let call = Call { operation: Operation::List, key: prefix, bytes: 0 };
                    self.run(call, self.inner.list(prefix, depth, token)).await
                }
            }
        };
    };
}
pub(super) use implement_by_run;
