//! Whether a store honours conditional writes, found out by trying. Some servers accept the conditions and ignore them.

use bytes::Bytes;
use desfmt::ObjectKey;
use futures_util::future;

use crate::archive::ArchiveError;
use crate::clock::Randomness;
use crate::error::StoreErrorKind;
use crate::store::{ETag, ObjectStore, Payload};

/// What a store makes of conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditions {
    /// Create-if-absent and replace-if-match work, also in a race.
    Honoured,
    /// Only create-if-absent works.
    CreateOnly,
    /// Neither can be relied on.
    Ignored,
}

/// How many writers race for one key.
const RACERS: u8 = 8;

/// Tries conditional writes on fresh keys below `probe/` and removes them again. About 25 requests.
pub async fn probe(store: &dyn ObjectStore, random: &dyn Randomness) -> Result<Conditions, ArchiveError> {
    let key = |name: &str| {
        let text = format!("probe/{:016x}-{name}", random.next());
        ObjectKey::new(&text).map_err(|error| ArchiveError::refused(error.to_string()))
    };
    let (single, raced) = (key("single")?, key("raced")?);
    let found = try_conditions(store, &single, &raced).await;
    for key in [&single, &raced] {
        store.delete(key).await?;
    }
    found
}

async fn try_conditions(
    store: &dyn ObjectStore,
    single: &ObjectKey,
    raced: &ObjectKey,
) -> Result<Conditions, ArchiveError> {
    let body = |number: u8| Payload::Bytes(Bytes::copy_from_slice(&[number]));
    let first = store.put_if_absent(single, body(1)).await?;
    if !refused(store.put_if_absent(single, body(2)).await)? || winners(store, raced, None).await? != 1 {
        return Ok(Conditions::Ignored);
    }
    let stale = ETag("\"00000000000000000000000000000000\"".to_owned());
    if !refused(store.put_if_match(single, &stale, body(3)).await)? {
        return Ok(Conditions::CreateOnly);
    }
    let Ok(second) = store.put_if_match(single, &first.etag, body(4)).await else {
        return Ok(Conditions::CreateOnly);
    };
    let is_stale_refused = refused(store.put_if_match(single, &first.etag, body(5)).await)?;
    if !is_stale_refused || winners(store, single, Some(&second.etag)).await? != 1 {
        return Ok(Conditions::CreateOnly);
    }
    Ok(Conditions::Honoured)
}

/// How many of eight writers at once win a key, or the replacement of one version of it.
async fn winners(store: &dyn ObjectStore, key: &ObjectKey, etag: Option<&ETag>) -> Result<usize, ArchiveError> {
    let race = (10..10_u8.saturating_add(RACERS)).map(async |number| {
        let payload = Payload::Bytes(Bytes::copy_from_slice(&[number]));
        match etag {
            Some(etag) => store.put_if_match(key, etag, payload).await,
            None => store.put_if_absent(key, payload).await,
        }
    });
    let mut winners = 0_usize;
    for outcome in future::join_all(race).await {
        winners = winners.saturating_add(usize::from(!refused(outcome)?));
    }
    Ok(winners)
}

/// True when a condition was refused, false when the write was done.
fn refused<T>(outcome: Result<T, crate::StoreError>) -> Result<bool, ArchiveError> {
    match outcome {
        Ok(_) => Ok(false),
        Err(error) => match error.kind {
            StoreErrorKind::AlreadyExists | StoreErrorKind::PreconditionFailed => Ok(true),
            StoreErrorKind::NotFound
            | StoreErrorKind::Denied
            | StoreErrorKind::Throttled
            | StoreErrorKind::Unavailable
            | StoreErrorKind::Full
            | StoreErrorKind::Corrupt
            | StoreErrorKind::Unsupported => Err(error.into()),
        },
    }
}
