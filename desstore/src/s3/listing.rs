//! Listing. Pages follow each other by the server's token alone, never by a key: not every server orders keys by their
//! bytes.

use aws_sdk_s3::types::Object;
use desfmt::ObjectKey;

use super::S3Store;
use super::date::timestamp;
use super::failure::Failure;
use crate::error::StoreErrorKind;
use crate::store::{Depth, ETag, ObjectMeta, Page};

impl S3Store {
    pub(super) async fn list_page(&self, prefix: &str, depth: Depth, token: Option<&str>) -> Result<Page, Failure> {
        let root = &self.shared.location.prefix;
        let request = self.shared.client.list_objects_v2().bucket(self.bucket()).prefix(format!("{root}{prefix}"));
        let delimiter = match depth {
            Depth::Direct => Some("/".to_owned()),
            Depth::Recursive => None,
        };
        let sent = request.set_delimiter(delimiter).set_continuation_token(token.map(str::to_owned)).send().await;
        let answer = sent.map_err(|error| {
            let failure = Failure::of(&error, &self.asked("s3:ListBucket"));
            // A bucket that is not there is no empty listing.
            failure.taken_for(StoreErrorKind::NotFound, StoreErrorKind::Denied)
        })?;
        let next = match (answer.is_truncated(), answer.next_continuation_token()) {
            (Some(true), Some(next)) => Some(next.to_owned()),
            (Some(true), None) => return Err(Failure::rule(StoreErrorKind::Corrupt, "more is to come, but not how")),
            (Some(false) | None, _) => None,
        };
        let mut objects = Vec::with_capacity(answer.contents().len());
        for object in answer.contents() {
            let listed = object.key().and_then(|key| key.strip_prefix(root.as_str()));
            let Some(listed) = listed.filter(|key| key.starts_with(prefix)) else {
                return Err(Failure::rule(StoreErrorKind::Corrupt, "keys were listed that were not asked for"));
            };
            // Consoles mark directories by empty objects that end with a slash; these are no keys of ours.
            if let Ok(key) = ObjectKey::new(listed)
                && is_within(listed, prefix, depth)
            {
                objects.push(meta_of(key, object)?);
            }
        }
        Ok(Page { objects, next })
    }
}

fn is_within(key: &str, prefix: &str, depth: Depth) -> bool {
    match depth {
        Depth::Recursive => true,
        Depth::Direct => key.strip_prefix(prefix).is_some_and(|rest| !rest.contains('/')),
    }
}

fn meta_of(key: ObjectKey, object: &Object) -> Result<ObjectMeta, Failure> {
    let unfit =
        |what: &str| Failure::rule(StoreErrorKind::Corrupt, format!("the listing does not say the {what} of {key}"));
    let len = object.size().and_then(|len| u64::try_from(len).ok()).ok_or_else(|| unfit("length"))?;
    let etag = object.e_tag().ok_or_else(|| unfit("version"))?;
    let modified = object.last_modified().and_then(timestamp).ok_or_else(|| unfit("time"))?;
    Ok(ObjectMeta { len, etag: ETag(etag.to_owned()), modified, key })
}
