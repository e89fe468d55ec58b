//! The one seam to where bytes live. Local directories, memory and S3 implement it; retries, limits, faults and metrics
//! are wrappers of it.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use desfmt::{ObjectKey, Timestamp};

use crate::error::{StoreError, StoreErrorKind};

/// Names one version of an object's content; opaque.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ETag(pub String);

/// What a store knows of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its key.
    pub key: ObjectKey,
    /// Its length in bytes.
    pub len: u64,
    /// Its version.
    pub etag: ETag,
    /// When it was written, by the store's clock.
    pub modified: Timestamp,
}

/// The bytes of a whole object or of its tail.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// What the store knows of the object.
    pub meta: ObjectMeta,
    /// The bytes asked for.
    pub bytes: Bytes,
}

/// What is to be written.
#[derive(Debug, Clone)]
pub enum Payload {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A finished file on a local disk; a local store may link it instead of copying, so it must not change afterwards.
    File(PathBuf),
}

/// The proof of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The version written.
    pub etag: ETag,
    /// When, by the store's clock.
    pub at: Timestamp,
}

/// How deep a listing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Only keys without a further `/` after the prefix.
    Direct,
    /// All keys with the prefix.
    Recursive,
}

/// A page of a listing, and how to ask for the next.
#[derive(Debug, Clone)]
pub struct Page {
    /// Objects in no promised order.
    pub objects: Vec<ObjectMeta>,
    /// Hand this to [`ObjectStore::list`] for the next page; `None` at the end.
    pub next: Option<String>,
}

/// A flat, strongly consistent space of immutable or conditionally replaced objects.
///
/// Every operation either takes effect whole or not at all. An error of kind [`StoreErrorKind::Unavailable`] after a
/// write leaves open which. All methods are cancel safe in that sense.
#[async_trait]
pub trait ObjectStore: Send + Sync + fmt::Debug {
    /// Reads a whole object. One request. Meant for documents; fails with `Corrupt` above `len_max` bytes.
    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<Fetched, StoreError>;

    /// Reads a whole object unless it is still in version `etag`: `None` then. One request.
    async fn get_if_changed(&self, key: &ObjectKey, etag: &ETag, len_max: u64) -> Result<Option<Fetched>, StoreError>;

    /// Reads exactly `range`, never less; a range beyond the end is `Corrupt`. With `etag`, fails with
    /// `PreconditionFailed` where the object is another version. One request.
    async fn get_range(&self, key: &ObjectKey, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError>;

    /// Reads the last `len` bytes, or the whole object where it is shorter. One request.
    async fn get_tail(&self, key: &ObjectKey, len: u64) -> Result<Fetched, StoreError>;

    /// Asks for length and version. One request.
    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError>;

    /// Creates an object; `AlreadyExists` where there is one, whatever its content. Durable on return.
    async fn put_if_absent(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError>;

    /// Replaces an object that is still in version `etag`; else `PreconditionFailed`, also where it is gone. Durable
    /// on return.
    async fn put_if_match(&self, key: &ObjectKey, etag: &ETag, payload: Payload) -> Result<Receipt, StoreError>;

    /// Creates or replaces an object without any condition. Durable on return. Only for write-once records whose key and
    /// body are the same on every retry.
    async fn put(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError>;

    /// Removes an object; removing what is not there succeeds. Durable on return.
    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// Removes an object with all older versions of it that the store keeps; the same as [`ObjectStore::delete`] where it
    /// keeps none. Durable on return.
    async fn purge(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// The time by the store's own clock, in which periods of grace are counted. At most one request.
    async fn time(&self) -> Result<Timestamp, StoreError>;

    /// Lists one page of the keys that begin with `prefix`. `token` comes from the page before. One request.
    async fn list(&self, prefix: &str, depth: Depth, token: Option<&str>) -> Result<Page, StoreError>;
}

/// Lists all keys that begin with `prefix`, sorted by key. Fails with `Corrupt` above `count_max` keys.
pub async fn list_all(
    store: &dyn ObjectStore,
    prefix: &str,
    depth: Depth,
    count_max: usize,
) -> Result<Vec<ObjectMeta>, StoreError> {
    let mut objects = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let page = store.list(prefix, depth, token.as_deref()).await?;
        objects.extend(page.objects);
        if objects.len() > count_max || (page.next.is_some() && page.next == token) {
            return Err(StoreError::new(StoreErrorKind::Corrupt, "list", prefix));
        }
        token = page.next;
        if token.is_none() {
            objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            objects.dedup_by(|a, b| a.key == b.key);
            return Ok(objects);
        }
    }
}
