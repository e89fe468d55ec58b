//! Removing a source that is an object in a bucket.

use std::path::Path;

use packer::{BucketError, Buckets};

use super::files::digest_of;
use super::{Fate, Held};
use crate::error::MigrateError;
use crate::migrator::blocking;

/// Removes a source that the archive holds as it is, and that is the same version still.
pub(super) async fn remove(
    buckets: &Buckets,
    source: &Path,
    held: &Held,
    remove_deleted: bool,
) -> Result<Fate, MigrateError> {
    let compared = match held.demand(remove_deleted) {
        Err(fate) => return Ok(if is_gone(buckets, source).await { Fate::Gone } else { fate }),
        Ok(None) => buckets.look(source).await,
        Ok(Some((digest, len))) => match buckets.fetch(source, len).await {
            Ok(fetched) => match blocking(move || digest_of(&fetched.file)).await? {
                Ok(found) if fetched.meta.len == len && found == digest => Ok(fetched.meta),
                Ok(_) => return Ok(Fate::other_content()),
                Err(error) => return Ok(Fate::changed(format!("the source cannot be read: {error}"))),
            },
            Err(error) => Err(error),
        },
    };
    let compared = match compared {
        Ok(meta) => meta,
        Err(BucketError::Missing) => return Ok(Fate::Gone),
        Err(error) => return Ok(Fate::changed(error.to_string())),
    };
    Ok(match buckets.look(source).await {
        Ok(now) if now.etag == compared.etag && now.modified == compared.modified => {
            match buckets.remove(source).await {
                Ok(()) => Fate::Removed { bytes: compared.len, directory: None },
                Err(error) => Fate::changed(format!("the source cannot be removed: {error}")),
            }
        }
        Ok(_) => Fate::changed("the source changed while it was compared; it stays"),
        Err(BucketError::Missing) => Fate::Gone,
        Err(error) => Fate::changed(error.to_string()),
    })
}

async fn is_gone(buckets: &Buckets, source: &Path) -> bool {
    matches!(buckets.look(source).await, Err(BucketError::Missing))
}
