//! Deleting the big files of the ancestor that no shard of it names any more. They lie beside all its shards, and shards of
//! different days may share them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use desfmt::legacy::{BIG_FILES_PREFIX, BigFileHash, LegacyName, Location};
use desfmt::{ObjectKey, layout};
use futures_util::{StreamExt, stream};

use crate::archive::{ArchiveError, Index};
use crate::inventory::ReadManifest;
use crate::publish::ArchiveWriter;
use crate::store::{Depth, ObjectMeta, list_all};

/// How many objects one folder may hold.
const OBJECTS_MAX: usize = 20_000_000;

/// How many shards are opened at once.
const OPENED_AT_ONCE: usize = 16;

/// Which big files each shard of the ancestor names, as far as that is known: such shards never change.
#[derive(Debug, Default)]
pub(crate) struct BigFileUse {
    shards: HashMap<ObjectKey, Vec<BigFileHash>>,
}

impl ArchiveWriter {
    /// Deletes the big files that no shard names, if they are as old as the grace period. False where some stay, since they are
    /// younger or a shard cannot be asked. Lists big files and shards of the ancestor, reads all manifests, and opens each of
    /// the shards once in the life of this writer.
    pub(super) async fn sweep_big_files(&self, grace: Duration) -> Result<bool, ArchiveError> {
        let store = self.store.as_ref();
        let folder = format!("{BIG_FILES_PREFIX}/");
        let now = store.time().await?;
        let objects = list_all(store, &folder, Depth::Recursive, OBJECTS_MAX).await?;
        let big: HashMap<BigFileHash, ObjectMeta> = objects
            .into_iter()
            .filter_map(|object| {
                let hash = BigFileHash::parse(object.key.as_str().strip_prefix(&folder)?.as_bytes()).ok()?;
                Some((hash, object))
            })
            .collect();
        if big.is_empty() {
            return Ok(true);
        }
        let Some(used) = self.used_big_files().await? else { return Ok(false) };
        let mut is_done = true;
        for (_, object) in big.iter().filter(|(hash, _)| !used.contains(hash)) {
            if now.since(object.modified) < grace {
                is_done = false;
                continue;
            }
            tracing::info!(key = %object.key, "no shard of the ancestor names this big file any more");
            store.purge(&object.key).await?;
        }
        Ok(is_done)
    }

    /// All big files that any shard of the ancestor names; none where one cannot be asked.
    async fn used_big_files(&self) -> Result<Option<HashSet<BigFileHash>>, ArchiveError> {
        let bits = self.bits();
        let objects = list_all(self.store.as_ref(), "", Depth::Direct, OBJECTS_MAX).await?;
        let keys = objects.into_iter().map(|object| object.key);
        let there: HashSet<ObjectKey> = keys.filter(|key| LegacyName::parse(key.as_str(), bits).is_ok()).collect();
        if let Some(missing) = self.missing_flat(&there).await? {
            tracing::warn!(key = %missing, "live and missing; all big files are kept, since it may name some");
            return Ok(None);
        }
        let mut known = self.big_files.lock().await;
        known.shards.retain(|key, _| there.contains(key));
        let unknown: Vec<ObjectKey> = there.into_iter().filter(|key| !known.shards.contains_key(key)).collect();
        let mut opened = stream::iter(unknown)
            .map(|key| async move { (self.named_by(&key).await, key) })
            .buffer_unordered(OPENED_AT_ONCE);
        while let Some((named, key)) = opened.next().await {
            match named {
                Ok(named) => drop(known.shards.insert(key, named)),
                Err(error @ (ArchiveError::Damaged { .. } | ArchiveError::Inconsistent { .. })) => {
                    tracing::warn!(%key, %error, "unreadable; all big files are kept, since it may name some");
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        drop(opened);
        Ok(Some(known.shards.values().flatten().copied().collect()))
    }

    async fn named_by(&self, key: &ObjectKey) -> Result<Vec<BigFileHash>, ArchiveError> {
        let (_, open) = self.archive().open_object(key).await?;
        let Index::Legacy(shard) = &open.index else { return Ok(Vec::new()) };
        let named = shard.index().iter().filter_map(|entry| match entry.location {
            Location::BigFile { hash, .. } => Some(hash),
            Location::Inline { .. } => None,
        });
        Ok(named.collect())
    }

    /// A live shard of the ancestor that is not among those which are there.
    async fn missing_flat(&self, there: &HashSet<ObjectKey>) -> Result<Option<ObjectKey>, ArchiveError> {
        for date in self.archive().days().await?.iter().copied() {
            let Some(read) = ReadManifest::read(self.store.as_ref(), date).await? else { continue };
            let mut live = read.manifest.shards.into_iter().map(|shard| shard.key);
            if let Some(missing) = live.find(|key| layout::is_flat(key) && !there.contains(key)) {
                return Ok(Some(missing));
            }
        }
        Ok(None)
    }
}
