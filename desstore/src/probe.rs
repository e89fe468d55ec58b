//! Whether a store honours conditional writes, found out by trying. Some servers accept the conditions and ignore them.

use bytes::Bytes;
use desfmt::ObjectKey;
use futures_util::future;

use crate::archive::ArchiveError;
use crate::clock::Randomness;
use crate::error::StoreErrorKind;
use crate::store::{Depth, ETag, ObjectStore, Payload, list_all};

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

/// Where probes write.
const PREFIX: &str = "probe/";

/// More keys than this were never left by probes.
const LEFT_MAX: usize = 10_000;

/// Tries conditional writes on fresh keys below `probe/` and removes them again. About 25 requests.
pub async fn probe(store: &dyn ObjectStore, random: &dyn Randomness) -> Result<Conditions, ArchiveError> {
    let key = |name: &str| {
        let text = format!("{PREFIX}{:016x}-{name}", random.next());
        ObjectKey::new(&text).map_err(|error| ArchiveError::refused(error.to_string()))
    };
    let (single, raced) = (key("single")?, key("raced")?);
    let found = try_conditions(store, &single, &raced).await;
    for key in [&single, &raced] {
        let gone = store.delete(key).await;
        // Where trying failed, that says what is wrong.
        if found.is_ok() {
            gone?;
        }
    }
    found
}

/// Why a store that does not honour conditions must not have several writers.
pub(crate) const UNCONDITIONAL: &str = "the store does not honour conditional writes, so writers could overwrite each other; \
                                        if nobody else writes to this archive, say --single-writer";

/// Makes sure that a store honours conditions, for whoever is about to write to it. About 25 requests.
pub async fn demand_conditions(store: &dyn ObjectStore, random: &dyn Randomness) -> Result<(), ArchiveError> {
    match probe(store, random).await? {
        Conditions::Honoured => Ok(()),
        Conditions::CreateOnly | Conditions::Ignored => Err(ArchiveError::refused(UNCONDITIONAL)),
    }
}

/// Removes the keys of all probes.
pub(crate) async fn clear_probes(store: &dyn ObjectStore) -> Result<(), ArchiveError> {
    for object in list_all(store, PREFIX, Depth::Recursive, LEFT_MAX).await? {
        store.delete(&object.key).await?;
    }
    Ok(())
}

async fn try_conditions(
    store: &dyn ObjectStore,
    single: &ObjectKey,
    raced: &ObjectKey,
) -> Result<Conditions, ArchiveError> {
    let first = store.put_if_absent(single, body(1)).await?;
    if !refused(store.put_if_absent(single, body(2)).await)? {
        return Ok(Conditions::Ignored);
    }
    // Side by side: there are servers that take a second for each writer that loses a race.
    let replacing = try_replacing(store, single, &first.etag);
    let (creators, replaced) = future::join(winners(store, raced, None), replacing).await;
    Ok(if creators? == 1 { replaced? } else { Conditions::Ignored })
}

/// Tries to replace a key that nobody else writes, and then a race for that.
async fn try_replacing(store: &dyn ObjectStore, single: &ObjectKey, first: &ETag) -> Result<Conditions, ArchiveError> {
    let stale = ETag("\"00000000000000000000000000000000\"".to_owned());
    if !refused(store.put_if_match(single, &stale, body(3)).await)? {
        return Ok(Conditions::CreateOnly);
    }
    let Ok(second) = store.put_if_match(single, first, body(4)).await else {
        return Ok(Conditions::CreateOnly);
    };
    let is_stale_refused = refused(store.put_if_match(single, first, body(5)).await)?;
    if !is_stale_refused || winners(store, single, Some(&second.etag)).await? != 1 {
        return Ok(Conditions::CreateOnly);
    }
    Ok(Conditions::Honoured)
}

/// What the writer of that number writes.
fn body(number: u8) -> Payload {
    Payload::Bytes(Bytes::copy_from_slice(&[number]))
}

/// How many of eight writers at once win a key, or the replacement of one version of it.
async fn winners(store: &dyn ObjectStore, key: &ObjectKey, etag: Option<&ETag>) -> Result<usize, ArchiveError> {
    let race = (10..10_u8.saturating_add(RACERS)).map(async |number| match etag {
        Some(etag) => store.put_if_match(key, etag, body(number)).await,
        None => store.put_if_absent(key, body(number)).await,
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use desfmt::{BucketBits, Timestamp};

    use super::*;
    use crate::{ArchiveWriter, Clock, ManualClock, MemoryStore, SeededRandom};

    #[tokio::test]
    async fn creating_an_archive_takes_away_what_a_dead_probe_left() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
        let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new(Arc::clone(&clock)));
        let left = ObjectKey::new("probe/0123456789abcdef-raced").unwrap();
        store.put_if_absent(&left, Payload::Bytes(Bytes::from_static(b"x"))).await.unwrap();

        let random = Arc::new(SeededRandom::new(1));
        ArchiveWriter::create(Arc::clone(&store), BucketBits::default(), clock, random).await.unwrap();

        let keys = list_all(store.as_ref(), "", Depth::Recursive, 10).await.unwrap();
        assert_eq!(keys.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["des.json"]);
    }
}
