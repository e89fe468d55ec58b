//! One archive in several zones: a store over several stores.
//!
//! Shards are spread by their group: each range of groups has a home zone, which decides who creates a key, and copies. The
//! documents (identity, manifests, tombstones) have one home zone for the whole archive, which decides every commit and
//! every deletion, and copies in all other zones. Whatever a home holds is in the copies too, or a *debt* says that it is
//! not; debts are objects in the home of the documents. The protocol is in `docs/protocol.md`, the reasons in
//! `docs/decisions/0005-one-home-for-the-documents.md`.

mod compare;
mod conditions;
mod debts;
mod map;
mod open;
mod read;
#[cfg(test)]
mod tests;
mod trust;
mod write;

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use desfmt::legacy::{BIG_FILES_PREFIX, LegacyName};
use desfmt::{BucketBits, Date, ObjectKey, Timestamp, layout};

pub use compare::compare;
pub use conditions::ZoneConditions;
pub use debts::{Debt, Paid, debts, pay};
pub(crate) use map::ANCESTORS_BITS;
pub use map::{MapError, ZoneMap, ZoneRange};
pub use open::ZoneError;

use crate::clock::{Clock, Randomness};
use crate::error::{StoreError, StoreErrorKind};
use crate::store::{Depth, ETag, Fetched, ObjectMeta, ObjectStore, Page, Payload, Receipt};
use trust::Trust;

/// A zone: its name and its store, with everything that makes it patient around it.
#[derive(Debug, Clone)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// Its store.
    pub store: Arc<dyn ObjectStore>,
}

/// How zones stand in for each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneSettings {
    /// How long a read may take over all zones together.
    pub deadline: Duration,
    /// For how long copies of the documents serve while their home is away.
    pub max_staleness: Duration,
    /// How often the debts are asked for while documents are read.
    pub debts_every: Duration,
    /// How long writing a tombstone waits for a copy before that becomes a debt.
    pub copy_max: Duration,
}

impl Default for ZoneSettings {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(20),
            max_staleness: Duration::from_mins(15),
            debts_every: Duration::from_secs(30),
            copy_max: Duration::from_secs(2),
        }
    }
}

/// A store over the stores of all zones.
pub struct ZoneStore {
    zones: Vec<Zone>,
    map: ZoneMap,
    settings: ZoneSettings,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Randomness>,
    /// The identity of the archive, once it is known.
    identity: OnceLock<Identity>,
    trust: Trust,
    /// Zones that are known to hold this archive.
    joined: Mutex<HashSet<usize>>,
    /// Shards that may lie in their home without anybody having seen to the copies.
    unsettled: Mutex<HashSet<ObjectKey>>,
    asking: tokio::sync::Mutex<()>,
}

/// What is known of the archive.
#[derive(Debug, Clone)]
struct Identity {
    bits: BucketBits,
    bytes: Bytes,
}

/// What a key is, by where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class<'a> {
    /// A shard: in the zones of its range.
    Shard(&'a [usize]),
    /// A shard of the ancestor, or something beside it: there too, read only.
    Flat(&'a [usize]),
    /// Contents of the ancestor that any zone may hold.
    Anywhere,
    /// The identity: written once, in all zones.
    Identity,
    /// A document that is replaced: at home, then in all zones.
    Replaced(Date),
    /// A document that is written once: in all zones, at home last.
    Once(Date),
    /// Anything else: at home only.
    Home,
}

impl ZoneStore {
    fn class(&self, key: &str) -> Class<'_> {
        if key == layout::identity().as_str() {
            return Class::Identity;
        }
        let Some(Identity { bits, .. }) = self.identity.get() else {
            return self.class_of_ancestor(key, self.map.bits_of_ancestor());
        };
        if let Some(name) = layout::parse_shard(key, *bits) {
            return Class::Shard(self.map.zones(name.group.bucket, *bits));
        }
        if let Some(date) = layout::parse_manifest(key) {
            return Class::Replaced(date);
        }
        match layout::parse_tombstone(key, *bits) {
            Some(layout::TombstoneKey::Folded(group)) => return Class::Replaced(group.date),
            Some(layout::TombstoneKey::Record(group, ..) | layout::TombstoneKey::Batch(group, _)) => {
                return Class::Once(group.date);
            }
            None => {}
        }
        self.class_of_ancestor(key, *bits)
    }

    /// What a key is that is none of ours. An archive of the ancestor has no identity to tell its bits.
    fn class_of_ancestor(&self, key: &str, bits: BucketBits) -> Class<'_> {
        if let Ok(name) = LegacyName::parse(key, bits).or_else(|_| LegacyName::parse_sidecar(key, bits)) {
            return Class::Flat(self.map.zones(name.group.bucket, bits));
        }
        let is_big_file = key.strip_prefix(BIG_FILES_PREFIX).is_some_and(|rest| rest.starts_with('/'));
        if is_big_file { Class::Anywhere } else { Class::Home }
    }

    fn home(&self) -> usize {
        self.map.home()
    }

    fn store(&self, zone: usize) -> Option<&Arc<dyn ObjectStore>> {
        self.zones.get(zone).map(|zone| &zone.store)
    }

    fn name(&self, zone: usize) -> &str {
        self.zones.get(zone).map_or("?", |zone| &zone.name)
    }

    /// All zones but the home of the documents.
    fn copies(&self) -> impl Iterator<Item = usize> {
        let home = self.home();
        (0..self.zones.len()).filter(move |zone| *zone != home)
    }

    /// A zone that the map names and nobody has opened; the map is checked, so this is never seen.
    fn no_zone(operation: &'static str, key: &str) -> StoreError {
        StoreError::new(StoreErrorKind::Unsupported, operation, key)
    }
}

/// Versions are those of a zone, so a version says of which.
fn tag(zone: usize, etag: &ETag) -> ETag {
    ETag(format!("{zone}/{}", etag.0))
}

/// The version as the zone itself knows it; nothing where it is another zone's.
fn untag(zone: usize, etag: &ETag) -> Option<ETag> {
    let (of, own) = etag.0.split_once('/')?;
    (of.parse() == Ok(zone)).then(|| ETag(own.to_owned()))
}

fn tagged(zone: usize, mut meta: ObjectMeta) -> ObjectMeta {
    meta.etag = tag(zone, &meta.etag);
    meta
}

fn tagged_fetch(zone: usize, fetched: Fetched) -> Fetched {
    Fetched { meta: tagged(zone, fetched.meta), bytes: fetched.bytes }
}

impl fmt::Debug for ZoneStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZoneStore").field("zones", &self.zones).field("map", &self.map).finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for ZoneStore {
    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<Fetched, StoreError> {
        let (zone, fetched) = self.read("get", key, |store| async move { store.get(key, len_max).await }).await?;
        if matches!(self.class(key.as_str()), Class::Identity) {
            self.learn_identity(&fetched.bytes);
        }
        Ok(tagged_fetch(zone, fetched))
    }

    async fn get_if_changed(&self, key: &ObjectKey, etag: &ETag, len_max: u64) -> Result<Option<Fetched>, StoreError> {
        let call = |zone, store: Arc<dyn ObjectStore>| async move {
            match untag(zone, etag) {
                Some(etag) => store.get_if_changed(key, &etag, len_max).await,
                // Another zone's version says nothing about this one's.
                None => store.get(key, len_max).await.map(Some),
            }
        };
        let (zone, fetched) = self.read_in("get_if_changed", key, call).await?;
        Ok(fetched.map(|fetched| tagged_fetch(zone, fetched)))
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        let is_immutable = matches!(self.class(key.as_str()), Class::Shard(_) | Class::Flat(_) | Class::Anywhere);
        let call = |zone, store: Arc<dyn ObjectStore>| {
            let range = range.clone();
            async move {
                match etag.map(|etag| untag(zone, etag)) {
                    Some(Some(etag)) => store.get_range(key, range, Some(&etag)).await,
                    // What is read is proven by its digest, whichever zone it comes from.
                    Some(None) if is_immutable => store.get_range(key, range, None).await,
                    Some(None) => Err(StoreError::new(StoreErrorKind::PreconditionFailed, "get_range", key)),
                    None => store.get_range(key, range, None).await,
                }
            }
        };
        self.read_in("get_range", key, call).await.map(|(_, bytes)| bytes)
    }

    async fn get_tail(&self, key: &ObjectKey, len: u64) -> Result<Fetched, StoreError> {
        let (zone, fetched) = self.read("get_tail", key, |store| async move { store.get_tail(key, len).await }).await?;
        Ok(tagged_fetch(zone, fetched))
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        let (zone, meta) = self.read("head", key, |store| async move { store.head(key).await }).await?;
        Ok(tagged(zone, meta))
    }

    async fn put_if_absent(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        self.write(key, payload, write::Condition::Absent).await
    }

    async fn put_if_match(&self, key: &ObjectKey, etag: &ETag, payload: Payload) -> Result<Receipt, StoreError> {
        self.write(key, payload, write::Condition::Match(etag)).await
    }

    async fn put(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        self.write(key, payload, write::Condition::None).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.remove(key, false).await
    }

    async fn purge(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.remove(key, true).await
    }

    async fn time(&self) -> Result<Timestamp, StoreError> {
        match self.store(self.home()) {
            Some(store) => store.time().await,
            None => Err(Self::no_zone("time", "")),
        }
    }

    async fn list(&self, prefix: &str, depth: Depth, token: Option<&str>) -> Result<Page, StoreError> {
        self.list_zones(prefix, depth, token).await
    }
}
