//! What the store holds of a day, held against what the day's manifest says.
//!
//! One listing between two readings of the manifest that must agree, so that an object which was published meanwhile is
//! not taken for an orphan, nor one that was removed for a loss.

use std::collections::HashMap;

use desfmt::document::{self, DOCUMENT_LEN_MAX, Manifest};
use desfmt::{BucketBits, Date, ObjectKey, ShardName, Timestamp, layout};

use crate::archive::ArchiveError;
use crate::error::StoreErrorKind;
use crate::rules::{Rule, keeps};
use crate::store::{Depth, ETag, ObjectMeta, ObjectStore, list_all};

/// How many objects of a day are looked at.
const DAY_OBJECTS_MAX: usize = 4_000_000;

/// How often a day that changes under our hands is read.
const ATTEMPTS_MAX: u32 = 5;

/// A manifest as it was read.
#[derive(Debug, Clone)]
pub struct ReadManifest {
    /// What it says; the times at which it retired objects are settled.
    pub manifest: Manifest,
    /// Its version.
    pub etag: ETag,
    /// When it was written, by the store's clock.
    pub written: Timestamp,
}

impl ReadManifest {
    /// Reads the manifest of a day; `None` where there is none. One request.
    pub async fn read(store: &dyn ObjectStore, date: Date) -> Result<Option<Self>, ArchiveError> {
        let key = layout::manifest(date);
        let fetched = match store.get(&key, DOCUMENT_LEN_MAX).await {
            Ok(fetched) => fetched,
            Err(error) if error.kind == StoreErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut manifest: Manifest =
            document::decode(&fetched.bytes).map_err(|error| ArchiveError::damaged(&key, error))?;
        if manifest.date != date {
            return Err(ArchiveError::inconsistent(&key, format!("it is the manifest of {}", manifest.date)));
        }
        let written = fetched.meta.modified;
        if keeps(Rule::TimesSettle) {
            manifest.settle_times(written);
        }
        Ok(Some(Self { manifest, etag: fetched.meta.etag, written }))
    }
}

/// What an object is to its day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is live.
    Current,
    /// It is live, but has another length than the manifest says.
    Mismatched {
        /// What the manifest says, in bytes.
        expected: u64,
    },
    /// It was live, and live shards hold what is left of it.
    Retired,
    /// It was live, and all in it is deleted: no live shard stems from it.
    Dropped,
    /// It must never become live.
    Condemned,
    /// The manifest does not know it: an upload under way, or what a crash has left.
    Orphan,
    /// It is no shard of this archive by its name.
    Foreign,
    /// The manifest lists it as live and it is not there.
    Missing,
    /// It is retired or condemned, and gone.
    Gone,
}

/// An object of a day, or what should be one.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its key.
    pub key: ObjectKey,
    /// Its name, where its key is that of a shard.
    pub name: Option<ShardName>,
    /// What it is to its day.
    pub state: State,
    /// What the store knows of it; none where it is not there.
    pub meta: Option<ObjectMeta>,
}

/// Everything that a store holds of a day.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// The day.
    pub date: Date,
    /// Its manifest; none where there is none, and then every object is an orphan.
    pub manifest: Option<ReadManifest>,
    /// All objects, by key.
    pub objects: Vec<Held>,
}

impl Inventory {
    /// Takes stock of a day: the manifest twice, one listing, and one request for each listed object that lies elsewhere.
    pub async fn take(store: &dyn ObjectStore, bits: BucketBits, date: Date) -> Result<Self, ArchiveError> {
        let mut before = ReadManifest::read(store, date).await?;
        for _ in 0..ATTEMPTS_MAX {
            let listed = listed(store, date, before.as_ref().map(|read| &read.manifest)).await?;
            let after = ReadManifest::read(store, date).await?;
            if before.as_ref().map(|read| &read.etag) == after.as_ref().map(|read| &read.etag) {
                let objects = compare(after.as_ref().map(|read| &read.manifest), listed, bits);
                return Ok(Self { date, manifest: after, objects });
            }
            before = after;
        }
        Err(ArchiveError::refused(format!("the day {date} has changed at every look; try again when less is written")))
    }

    /// The objects in a state.
    pub fn of(&self, state: State) -> impl Iterator<Item = &Held> {
        self.objects.iter().filter(move |held| held.state == state)
    }

    /// True when everything that is listed as live is there in its length.
    pub fn is_complete(&self) -> bool {
        !self.objects.iter().any(|held| matches!(held.state, State::Missing | State::Mismatched { .. }))
    }
}

/// What the store lists below the day, and what the manifest lists elsewhere.
async fn listed(
    store: &dyn ObjectStore,
    date: Date,
    manifest: Option<&Manifest>,
) -> Result<HashMap<ObjectKey, ObjectMeta>, ArchiveError> {
    let prefix = layout::shards_prefix(date);
    let objects = list_all(store, &prefix, Depth::Recursive, DAY_OBJECTS_MAX).await?;
    let mut listed: HashMap<_, _> = objects.into_iter().map(|meta| (meta.key.clone(), meta)).collect();
    let Some(manifest) = manifest else { return Ok(listed) };
    // Shards that were adopted where they lay.
    for key in known_keys(manifest).filter(|key| !key.as_str().starts_with(&prefix)) {
        match store.head(key).await {
            Ok(meta) => drop(listed.insert(key.clone(), meta)),
            Err(error) if error.kind == StoreErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(listed)
}

fn known_keys(manifest: &Manifest) -> impl Iterator<Item = &ObjectKey> {
    let live = manifest.shards.iter().map(|shard| &shard.key);
    let retired = manifest.retired.iter().map(|object| &object.key);
    live.chain(retired).chain(manifest.condemned.iter().map(|object| &object.key))
}

fn compare(manifest: Option<&Manifest>, mut listed: HashMap<ObjectKey, ObjectMeta>, bits: BucketBits) -> Vec<Held> {
    let mut objects = Vec::with_capacity(listed.len());
    let mut hold = |key: &ObjectKey, state: State, meta: Option<ObjectMeta>| {
        let name = layout::parse_shard(key.as_str(), bits);
        objects.push(Held { key: key.clone(), name, state, meta });
    };
    if let Some(manifest) = manifest {
        for shard in &manifest.shards {
            let meta = listed.remove(&shard.key);
            let state = match &meta {
                None => State::Missing,
                Some(meta) if meta.len != shard.len => State::Mismatched { expected: shard.len },
                Some(_) => State::Current,
            };
            hold(&shard.key, state, meta);
        }
        let is_live = |serial: &u32| manifest.shards.iter().any(|shard| shard.serials.contains(serial));
        for object in &manifest.retired {
            let is_dropped = object.entry.as_ref().is_some_and(|entry| !entry.serials.iter().any(is_live));
            let state = if is_dropped { State::Dropped } else { State::Retired };
            let meta = listed.remove(&object.key);
            hold(&object.key, if meta.is_some() { state } else { State::Gone }, meta);
        }
        for object in manifest.condemned.iter().filter(|object| !manifest.retired.iter().any(|o| o.key == object.key)) {
            let meta = listed.remove(&object.key);
            hold(&object.key, if meta.is_some() { State::Condemned } else { State::Gone }, meta);
        }
    }
    for (key, meta) in listed {
        let is_shard = layout::parse_shard(key.as_str(), bits).is_some();
        hold(&key, if is_shard { State::Orphan } else { State::Foreign }, Some(meta));
    }
    objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    objects
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::fixture::{Fixture, day};
    use crate::publish::change::{Change, Decision};
    use crate::store::Payload;

    async fn states(fixture: &Fixture) -> Vec<(String, State)> {
        let bits = fixture.writer.identity().bits();
        let inventory = Inventory::take(fixture.store.as_ref(), bits, day()).await.unwrap();
        let name = |key: &ObjectKey| key.as_str().rsplit('/').next().unwrap().to_owned();
        inventory.objects.iter().map(|held| (name(&held.key), held.state)).collect()
    }

    #[tokio::test]
    async fn every_object_of_a_day_is_told_by_what_the_manifest_says() {
        let fixture = Fixture::new().await;
        for number in 0..4 {
            fixture.pack(&[(&format!("uid-{number}"), b"content")]).await;
        }
        let read = ReadManifest::read(fixture.store.as_ref(), day()).await.unwrap().unwrap();
        let key = |index: usize| read.manifest.shards[index].key.clone();
        let gone = Change::Swap { old: vec![(key(0), read.manifest.shards[0].shard)], new: Vec::new() };
        assert_eq!(fixture.writer.request(day(), gone).await.unwrap(), Decision::Committed(0));
        fixture.store.delete(&key(1)).await.unwrap();
        fixture.store.put(&key(2), Payload::Bytes(Bytes::from_static(b"short"))).await.unwrap();
        for other in ["20240115_0_0009.des", "20240115_0_0008.txt"] {
            let key = ObjectKey::new(&format!("{}{other}", layout::shards_prefix(day()))).unwrap();
            fixture.store.put(&key, Payload::Bytes(Bytes::from_static(b"x"))).await.unwrap();
        }

        let expected = |index: usize| State::Mismatched { expected: read.manifest.shards[index].len };
        let states = states(&fixture).await;

        let found: Vec<_> = states.iter().map(|(_, state)| *state).collect();
        let wanted = [State::Dropped, State::Missing, expected(2), State::Current, State::Foreign, State::Orphan];
        assert_eq!(found, wanted, "{states:?}");
    }

    #[tokio::test]
    async fn what_is_published_during_the_listing_is_no_orphan() {
        let fixture = Fixture::new().await;
        fixture.pack(&[("a", b"first")]).await;
        let manifest = layout::manifest(day());
        let before = fixture.store.inner.get(&manifest, DOCUMENT_LEN_MAX).await.unwrap().bytes;
        fixture.pack(&[("b", b"second")]).await;
        let after = fixture.store.inner.get(&manifest, DOCUMENT_LEN_MAX).await.unwrap().bytes;
        fixture.store.inner.put(&manifest, Payload::Bytes(before)).await.unwrap();

        fixture.store.after_next_list(move |store| {
            let put = store.put(&manifest, Payload::Bytes(after));
            futures_util::FutureExt::now_or_never(put).unwrap().unwrap();
        });
        let states = states(&fixture).await;

        assert!(states.iter().all(|(_, state)| *state == State::Current), "{states:?}");
    }
}
