//! Writing: small payloads by one request, large files in parts.
//!
//! Every upload carries an identity of its own as metadata. When the answer to a conditional write is lost, or says that
//! something is there already, the object is asked for it: our own earlier write is no conflict.

mod parts;

use aws_sdk_s3::operation::create_multipart_upload::builders::CreateMultipartUploadFluentBuilder;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ServerSideEncryption, StorageClass};
use bytes::Bytes;
use desfmt::{ObjectKey, layout};
use md5::{Digest, Md5};
use std::path::Path;

use super::S3Store;
use super::date::DateTap;
use super::failure::Failure;
use crate::error::StoreErrorKind;
use crate::location::Encryption;
use crate::store::{ETag, Payload, Receipt};

/// The metadata that tells one upload from another.
pub(super) const ID: &str = "des-id";

/// When a write may take effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    None,
    Absent,
    Version(ETag),
}

impl Condition {
    fn if_match(&self) -> Option<String> {
        match self {
            Self::Version(etag) => Some(etag.0.clone()),
            Self::None | Self::Absent => None,
        }
    }

    fn if_none_match(&self) -> Option<String> {
        (*self == Self::Absent).then(|| "*".to_owned())
    }
}

/// What both ways of writing tell the store about an object.
struct Dress {
    id: String,
    storage_class: Option<StorageClass>,
    encryption: Option<ServerSideEncryption>,
    key_id: Option<String>,
}

impl Dress {
    fn on_put(self, request: PutObjectFluentBuilder) -> PutObjectFluentBuilder {
        request
            .metadata(ID, self.id)
            .set_storage_class(self.storage_class)
            .set_server_side_encryption(self.encryption)
            .set_ssekms_key_id(self.key_id)
    }

    fn on_create(self, request: CreateMultipartUploadFluentBuilder) -> CreateMultipartUploadFluentBuilder {
        request
            .metadata(ID, self.id)
            .set_storage_class(self.storage_class)
            .set_server_side_encryption(self.encryption)
            .set_ssekms_key_id(self.key_id)
    }
}

impl S3Store {
    pub(super) async fn write(
        &self,
        key: &ObjectKey,
        payload: Payload,
        condition: &Condition,
    ) -> Result<Receipt, Failure> {
        let random = &self.shared.surroundings.random;
        let id = format!("{:016x}{:016x}", random.next(), random.next());
        let written = match payload {
            Payload::Bytes(bytes) => self.put_bytes(key, bytes, condition, &id).await,
            Payload::File(path) => {
                let len = file_len(&path)?;
                if len > self.shared.options.part_bytes {
                    self.put_parts(key, &path, len, condition, &id).await
                } else {
                    let bytes = read_file(&path, 0, len).await?;
                    self.put_bytes(key, bytes, condition, &id).await
                }
            }
        };
        match written {
            Err(failure)
                if *condition == Condition::Absent
                    && matches!(failure.kind, StoreErrorKind::PreconditionFailed | StoreErrorKind::Unavailable) =>
            {
                self.own(key, &id).await.ok_or(failure)
            }
            written => written,
        }
    }

    /// The receipt of an object that is the upload of this identity.
    async fn own(&self, key: &ObjectKey, id: &str) -> Option<Receipt> {
        let (meta, found) = self.head_object(key, None).await.ok()?;
        (found.as_deref() == Some(id)).then_some(Receipt { etag: meta.etag, at: meta.modified })
    }

    fn dress(&self, key: &ObjectKey, id: &str) -> Dress {
        let options = &self.shared.options;
        let is_shard = key.as_str().starts_with(layout::SHARDS);
        let (encryption, key_id) = match &options.encryption {
            None => (None, None),
            Some(Encryption::Store) => (Some(ServerSideEncryption::Aes256), None),
            Some(Encryption::Kms(key)) => (Some(ServerSideEncryption::AwsKms), key.clone()),
        };
        Dress {
            id: id.to_owned(),
            storage_class: options.storage_class.as_deref().filter(|_| is_shard).map(StorageClass::from),
            encryption,
            key_id,
        }
    }

    async fn put_bytes(
        &self,
        key: &ObjectKey,
        bytes: Bytes,
        condition: &Condition,
        id: &str,
    ) -> Result<Receipt, Failure> {
        let tap = DateTap::default();
        let request = self.shared.uploads.put_object().bucket(self.bucket()).key(self.full_key(key));
        let request = self
            .dress(key, id)
            .on_put(request)
            .content_md5(sum_of(&bytes))
            .set_if_match(condition.if_match())
            .set_if_none_match(condition.if_none_match())
            .body(ByteStream::from(bytes));
        let sent = request.customize().interceptor(tap.clone()).send().await;
        let answer = sent.map_err(|error| Failure::of(&error, &self.asked("s3:PutObject")))?;
        Ok(Receipt { etag: written_version(answer.e_tag())?, at: tap.time()? })
    }
}

/// The sum that every server known checks.
fn sum_of(bytes: &[u8]) -> String {
    aws_smithy_types::base64::encode(Md5::digest(bytes))
}

/// A write that was done and does not say as what is as good as a lost answer.
fn written_version(etag: Option<&str>) -> Result<ETag, Failure> {
    let etag = etag.filter(|etag| !etag.is_empty()).map(|etag| ETag(etag.to_owned()));
    etag.ok_or_else(|| Failure::rule(StoreErrorKind::Unavailable, "the answer has no ETag"))
}

fn file_len(path: &Path) -> Result<u64, Failure> {
    std::fs::metadata(path).map(|metadata| metadata.len()).map_err(|error| unreadable(path, &error))
}

/// A source that cannot be read is the caller's trouble, never a missing object.
fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::rule(StoreErrorKind::Unavailable, format!("{}: {error}", path.display()))
}

async fn read_file(path: &Path, from: u64, len: u64) -> Result<Bytes, Failure> {
    use std::os::unix::fs::FileExt;
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; usize::try_from(len).map_err(std::io::Error::other)?];
        std::fs::File::open(owned)?.read_exact_at(&mut bytes, from)?;
        Ok(Bytes::from(bytes))
    });
    let read = read.await.map_err(std::io::Error::other).and_then(|read: std::io::Result<Bytes>| read);
    read.map_err(|error| unreadable(path, &error))
}
