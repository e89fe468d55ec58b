//! Removing an object with all that a versioned bucket keeps of it.

use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use desfmt::ObjectKey;

use super::S3Store;
use super::failure::Failure;
use crate::error::StoreErrorKind;

/// What one request can remove.
const BATCH_LEN: usize = 1_000;

/// A key has never had more versions than this.
const PAGES_MAX: usize = 100;

impl S3Store {
    pub(super) async fn purge_versions(&self, key: &ObjectKey) -> Result<(), Failure> {
        let full = self.full_key(key);
        // First what is seen, so that it is gone whatever happens next.
        let sent = self.shared.client.delete_object().bucket(self.bucket()).key(&full).send().await;
        if let Err(error) = sent {
            let failure = Failure::of(&error, &self.asked("s3:DeleteObject"));
            if failure.kind != StoreErrorKind::NotFound {
                return Err(failure);
            }
        }
        for _ in 0..PAGES_MAX {
            let versions = match self.versions(&full).await {
                Ok(versions) => versions,
                // A server without versions keeps none.
                Err(failure) if failure.kind == StoreErrorKind::Unsupported => return Ok(()),
                Err(failure) => return Err(failure),
            };
            if versions.is_empty() {
                return Ok(());
            }
            self.remove(&full, versions).await?;
        }
        Err(Failure::rule(StoreErrorKind::Unavailable, "versions of it appear as fast as they are removed"))
    }

    /// The versions and delete markers of a key, a page of them.
    async fn versions(&self, full: &str) -> Result<Vec<String>, Failure> {
        let request = self.shared.client.list_object_versions().bucket(self.bucket()).prefix(full);
        let sent = request.send().await;
        let answer = sent.map_err(|error| Failure::of(&error, &self.asked("s3:ListBucketVersions")))?;
        let of_versions = answer.versions().iter().map(|one| (one.key(), one.version_id()));
        let of_markers = answer.delete_markers().iter().map(|one| (one.key(), one.version_id()));
        let found = of_versions.chain(of_markers).filter(|(key, _)| *key == Some(full));
        Ok(found.filter_map(|(_, version)| version.map(str::to_owned)).collect())
    }

    /// Removes versions together, or one by one where the server cannot do that.
    async fn remove(&self, full: &str, versions: Vec<String>) -> Result<(), Failure> {
        for batch in versions.chunks(BATCH_LEN) {
            if !self.remove_batch(full, batch).await? {
                for version in batch {
                    let request =
                        self.shared.client.delete_object().bucket(self.bucket()).key(full).version_id(version);
                    let sent = request.send().await;
                    sent.map_err(|error| Failure::of(&error, &self.asked("s3:DeleteObjectVersion")))?;
                }
            }
        }
        Ok(())
    }

    /// False where some are left.
    async fn remove_batch(&self, full: &str, versions: &[String]) -> Result<bool, Failure> {
        let unfit =
            |error: aws_sdk_s3::error::BuildError| Failure::rule(StoreErrorKind::Unsupported, error.to_string());
        let named = versions.iter().map(|version| ObjectIdentifier::builder().key(full).version_id(version).build());
        let named = named.collect::<Result<Vec<_>, _>>().map_err(unfit)?;
        let delete = Delete::builder().set_objects(Some(named)).quiet(true).build().map_err(unfit)?;
        match self.shared.client.delete_objects().bucket(self.bucket()).delete(delete).send().await {
            Ok(answer) => Ok(answer.errors().is_empty()),
            Err(error) => {
                let failure = Failure::of(&error, &self.asked("s3:DeleteObjectVersion"));
                if failure.kind.is_transient() || failure.kind == StoreErrorKind::Denied {
                    Err(failure)
                } else {
                    Ok(false)
                }
            }
        }
    }
}
