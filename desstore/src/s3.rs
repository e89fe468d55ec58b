//! A store in a bucket, on any server that speaks S3. The only place that knows the AWS SDK.
//!
//! One attempt is one request: the SDK's own retries are off, so that whoever counts, limits and repeats requests sees each
//! of them. Only the parts of a large upload are repeated here, because the upload would begin anew otherwise.
//!
//! No answer is believed before it is looked at: a range must be the range that was asked for, a body as long as announced,
//! a version the one that was named. `docs/s3.md` tells what servers are known to get wrong.

mod client;
mod credentials;
mod date;
mod failure;
mod listing;
mod purge;
mod read;
mod upload;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use bytes::Bytes;
use desfmt::{ObjectKey, Timestamp};

use crate::error::{StoreError, StoreErrorKind};
use crate::location::{ConnectError, S3Location, StoreOptions, Surroundings};
use crate::store::{Depth, ETag, Fetched, ObjectMeta, ObjectStore, Page, Payload, Receipt};

use self::failure::{Asked, Failure};
use self::upload::Condition;

/// The objects below a prefix of a bucket.
#[derive(Debug, Clone)]
pub struct S3Store {
    shared: Arc<Shared>,
}

#[derive(Debug, Clone)]
struct Shared {
    location: S3Location,
    options: StoreOptions,
    surroundings: Surroundings,
    /// For reads and small requests: an answer begins soon or never.
    client: Client,
    /// For uploads, whose answers begin when the body has arrived.
    uploads: Client,
    /// Where the requests go, in words.
    server: String,
}

impl S3Store {
    /// Makes ready to send requests; sends none to the bucket. Credentials are looked up when the first one is sent.
    pub async fn connect(
        location: &S3Location,
        options: &StoreOptions,
        surroundings: &Surroundings,
    ) -> Result<Self, ConnectError> {
        let client::Clients { client, uploads } = client::connect(location, options, &surroundings.clock).await?;
        let mut server = options.endpoint.clone().unwrap_or_else(|| "AWS".to_owned());
        if options.path_style == Some(false) {
            // The name that cannot be found, or that a certificate is not for, is not the one that was typed.
            server = format!("{server} with the bucket in the name of the host (path_style=no)");
        }
        let (location, options, surroundings) = (location.clone(), options.clone(), surroundings.clone());
        Ok(Self { shared: Arc::new(Shared { location, options, surroundings, client, uploads, server }) })
    }

    /// The objects below a directory of this place, over the same connections.
    #[must_use]
    pub fn below(&self, directory: &str) -> Self {
        let mut shared = Shared::clone(&self.shared);
        shared.location.prefix.push_str(directory.trim_matches('/'));
        shared.location.prefix.push('/');
        Self { shared: Arc::new(shared) }
    }

    /// The whole name of an object in the bucket.
    fn full_key(&self, key: &ObjectKey) -> String {
        format!("{}{key}", self.shared.location.prefix)
    }

    fn bucket(&self) -> &str {
        &self.shared.location.bucket
    }

    /// What a failure is about.
    fn asked<'a>(&'a self, permission: &'static str) -> Asked<'a> {
        Asked { permission, bucket: self.bucket(), server: &self.shared.server }
    }

    async fn head_object(&self, key: &ObjectKey, etag: Option<&ETag>) -> Result<(ObjectMeta, Option<String>), Failure> {
        let request = self.shared.client.head_object().bucket(self.bucket()).key(self.full_key(key));
        let answer = request
            .set_if_match(etag.map(|etag| etag.0.clone()))
            .send()
            .await
            .map_err(|error| Failure::of(&error, &self.asked("s3:GetObject")))?;
        let id = answer.metadata().and_then(|metadata| metadata.get(upload::ID)).cloned();
        let facts = read::Facts {
            len: answer.content_length(),
            etag: answer.e_tag(),
            modified: answer.last_modified(),
            range: None,
        };
        let meta = facts.meta(key)?;
        read::demand_version(&meta, etag)?;
        Ok((meta, id))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for S3Store {
    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<Fetched, StoreError> {
        self.read_whole(key, len_max).await.map_err(|failure| failure.during("get", key))
    }

    async fn get_if_changed(&self, key: &ObjectKey, etag: &ETag, len_max: u64) -> Result<Option<Fetched>, StoreError> {
        self.read_changed(key, etag, len_max).await.map_err(|failure| failure.during("get_if_changed", key))
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        self.read_range(key, range, etag).await.map_err(|failure| failure.during("get_range", key))
    }

    async fn get_tail(&self, key: &ObjectKey, len: u64) -> Result<Fetched, StoreError> {
        self.read_tail(key, len).await.map_err(|failure| failure.during("get_tail", key))
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        let answer = self.head_object(key, None).await;
        answer.map(|(meta, _)| meta).map_err(|failure| failure.during("head", key))
    }

    async fn put_if_absent(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        let written = self.write(key, payload, &Condition::Absent).await;
        let told =
            |failure: Failure| failure.taken_for(StoreErrorKind::PreconditionFailed, StoreErrorKind::AlreadyExists);
        written.map_err(|failure| told(failure).during("put_if_absent", key))
    }

    async fn put_if_match(&self, key: &ObjectKey, etag: &ETag, payload: Payload) -> Result<Receipt, StoreError> {
        let written = self.write(key, payload, &Condition::Version(etag.clone())).await;
        // What is gone has changed.
        let told = |failure: Failure| failure.taken_for(StoreErrorKind::NotFound, StoreErrorKind::PreconditionFailed);
        written.map_err(|failure| told(failure).during("put_if_match", key))
    }

    async fn put(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        self.write(key, payload, &Condition::None).await.map_err(|failure| failure.during("put", key))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let request = self.shared.client.delete_object().bucket(self.bucket()).key(self.full_key(key));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let failure = Failure::of(&error, &self.asked("s3:DeleteObject"));
                if failure.kind == StoreErrorKind::NotFound { Ok(()) } else { Err(failure.during("delete", key)) }
            }
        }
    }

    async fn purge(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.purge_versions(key).await.map_err(|failure| failure.during("purge", key))
    }

    async fn time(&self) -> Result<Timestamp, StoreError> {
        let tap = date::DateTap::default();
        let request = self.shared.client.head_bucket().bucket(self.bucket());
        let sent = request.customize().interceptor(tap.clone()).send().await;
        let told = match sent {
            Ok(_) => tap.time(),
            // The answer is dated even where the bucket may not be looked at.
            Err(error) => tap.time().map_err(|_| Failure::of(&error, &self.asked("s3:ListBucket"))),
        };
        told.map_err(|failure| failure.during("time", &self.shared.location))
    }

    async fn list(&self, prefix: &str, depth: Depth, token: Option<&str>) -> Result<Page, StoreError> {
        self.list_page(prefix, depth, token).await.map_err(|failure| failure.during("list", &prefix))
    }
}
