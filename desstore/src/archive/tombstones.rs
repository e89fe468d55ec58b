//! The tombstones of a day: a set that only grows, and the order of reading that cannot bring a file back.
//!
//! The listing is finished first; only then are the folded sets read that have changed, and of the new batches those that none
//! of them holds. A fold commits the folded set before it removes the records, so whatever is missing from the listing is
//! in a folded set read afterwards; and where a batch of the listing is gone when it is to be read, in the set as it is then.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{PoisonError, RwLock};

use desfmt::document::{self, DOCUMENT_LEN_MAX, Document, FoldedTombstones, TombstoneBatch};
use desfmt::layout::{self, TombstoneKey};
use desfmt::{BucketBits, Date, Group, ObjectKey, ShardId, UidHash, Uuid};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::archive::error::ArchiveError;
use crate::error::StoreErrorKind;
use crate::rules::{Rule, keeps};
use crate::store::{Depth, ETag, ObjectStore};

/// How many objects below a day's tombstones are read; a fold brings them down long before.
pub(crate) const LISTED_MAX: usize = 4_000_000;

/// How many documents are read side by side: a day can have one of each kind for every group.
const READS_AT_ONCE: usize = 16;

/// Everything deleted from a day, as far as known here.
#[derive(Debug, Default)]
pub(crate) struct TombstoneSet {
    known: RwLock<Known>,
    progress: tokio::sync::Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Known {
    uids: HashSet<UidHash>,
    shards: HashSet<ShardId>,
}

/// What has been read already and need not be read again.
#[derive(Debug, Default)]
struct Progress {
    batches: HashSet<Uuid>,
    folded: HashMap<Group, ETag>,
}

/// What one listing showed that has to be read.
#[derive(Default)]
struct Pending {
    batches: Vec<(ObjectKey, Group, Uuid)>,
    folded: HashMap<Group, ETag>,
    /// The buckets of what was not known before.
    news: BTreeSet<u16>,
}

impl TombstoneSet {
    /// True when the uid of this hash is deleted.
    pub(crate) fn holds(&self, uid: UidHash) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).uids.contains(&uid)
    }

    /// True when everything in this shard is deleted.
    pub(crate) fn holds_shard(&self, shard: ShardId) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).shards.contains(&shard)
    }

    /// True when nothing at all is deleted, so that no uid needs to be hashed.
    pub(crate) fn is_empty(&self) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.uids.is_empty() && known.shards.is_empty()
    }

    /// How many uids are deleted.
    pub(crate) fn len(&self) -> usize {
        self.known.read().unwrap_or_else(PoisonError::into_inner).uids.len()
    }

    /// Notes deletions.
    pub(crate) fn extend(&self, uids: impl IntoIterator<Item = UidHash>) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).uids.extend(uids);
    }

    /// Notes deletions of whole shards.
    pub(crate) fn extend_shards(&self, shards: impl IntoIterator<Item = ShardId>) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).shards.extend(shards);
    }

    /// Takes in what the store knows: one listing, and what that shows to be new. An error leaves the set as a valid
    /// part of the truth, and the next call reads again what was not read. Returns the buckets in which something was deleted
    /// that was not known to be.
    pub(crate) async fn refresh(
        &self,
        store: &dyn ObjectStore,
        date: Date,
        bits: BucketBits,
    ) -> Result<BTreeSet<u16>, ArchiveError> {
        let mut progress = self.progress.lock().await;
        let mut pending = self.list(store, date, bits, &progress).await?;
        if !keeps(Rule::LogBeforeFolded) {
            let folded = std::mem::take(&mut pending.folded);
            self.read_folded(store, &mut progress, folded, &mut pending).await?;
            pending = Pending { folded: HashMap::new(), ..self.list(store, date, bits, &progress).await? };
        }
        let folded = std::mem::take(&mut pending.folded);
        self.read_folded(store, &mut progress, folded, &mut pending).await?;
        let overtaken = self.read_batches(store, &mut progress, &mut pending).await?;
        // The folded set holds them now, whatever version of it was listed.
        self.read_folded(store, &mut progress, overtaken, &mut pending).await?;
        Ok(pending.news)
    }

    /// Reads the batches that no folded set is known to hold. Those that are gone were folded and removed since the
    /// listing: returns their groups.
    async fn read_batches(
        &self,
        store: &dyn ObjectStore,
        progress: &mut Progress,
        pending: &mut Pending,
    ) -> Result<HashMap<Group, ETag>, ArchiveError> {
        let mut wanted = std::mem::take(&mut pending.batches);
        wanted.retain(|(.., operation)| !progress.batches.contains(operation));
        let mut reads = stream::iter(wanted)
            .map(|(key, group, operation)| async move { (group, operation, read::<TombstoneBatch>(store, &key).await) })
            .buffered(READS_AT_ONCE);
        let mut overtaken = HashMap::new();
        while let Some((group, operation, found)) = reads.next().await {
            match found {
                Ok((batch, _)) => {
                    let is_news = self.take_in(
                        batch.tombstones.iter().map(|one| one.uid_hash),
                        batch.shards.iter().map(|one| one.shard),
                    );
                    pending.news.extend(is_news.then_some(group.bucket.number()));
                    progress.batches.insert(operation);
                }
                Err(ArchiveError::Store(error)) if error.kind == StoreErrorKind::NotFound => {
                    progress.folded.remove(&group);
                    overtaken.insert(group, ETag(String::new()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(overtaken)
    }

    /// Reads those folded sets that are not known in the version that was listed. The listed batches that they hold need not
    /// be read any more; what else they hold is nothing to be remembered.
    async fn read_folded(
        &self,
        store: &dyn ObjectStore,
        progress: &mut Progress,
        mut listed: HashMap<Group, ETag>,
        pending: &mut Pending,
    ) -> Result<(), ArchiveError> {
        let batches: HashSet<Uuid> = pending.batches.iter().map(|(.., operation)| *operation).collect();
        listed.retain(|group, etag| progress.folded.get(group) != Some(etag));
        let mut wanted: Vec<Group> = listed.into_keys().collect();
        wanted.sort_unstable();
        let mut reads = stream::iter(wanted)
            .map(|group| async move {
                let read = read::<FoldedTombstones>(store, &layout::folded_tombstones(&group)).await;
                read.map(|(folded, etag)| (group, folded, etag))
            })
            .buffered(READS_AT_ONCE);
        while let Some((group, folded, etag)) = reads.try_next().await? {
            let uids = folded.tombstones.iter().map(|one| one.uid_hash).chain(folded.erased.iter().copied());
            let is_news = self.take_in(uids, folded.shards.iter().map(|one| one.shard));
            pending.news.extend(is_news.then_some(group.bucket.number()));
            let held = folded.folded.iter().map(|batch| batch.operation);
            progress.batches.extend(held.filter(|operation| batches.contains(operation)));
            progress.folded.insert(group, etag);
        }
        Ok(())
    }

    async fn list(
        &self,
        store: &dyn ObjectStore,
        date: Date,
        bits: BucketBits,
        progress: &Progress,
    ) -> Result<Pending, ArchiveError> {
        let prefix = layout::tombstones_prefix(date);
        let mut pending = Pending::default();
        let mut token: Option<String> = None;
        let mut listed = 0_usize;
        loop {
            let page = store.list(&prefix, Depth::Recursive, token.as_deref()).await?;
            listed = listed.saturating_add(page.objects.len());
            if listed > LISTED_MAX {
                let detail = format!("more than {LISTED_MAX} tombstones are not folded; run des-tombstones fold");
                return Err(ArchiveError::inconsistent(&prefix, detail));
            }
            let mut uids: Vec<(u16, UidHash)> = Vec::new();
            for object in page.objects {
                match layout::parse_tombstone(object.key.as_str(), bits) {
                    Some(TombstoneKey::Record(group, _, uid)) => uids.push((group.bucket.number(), uid)),
                    Some(TombstoneKey::Batch(_, operation)) if progress.batches.contains(&operation) => {}
                    Some(TombstoneKey::Batch(group, operation)) => pending.batches.push((object.key, group, operation)),
                    Some(TombstoneKey::Folded(group)) => {
                        pending.folded.insert(group, object.etag);
                    }
                    None => {
                        let detail = "this is no tombstone; nothing else may lie here, move it away";
                        return Err(ArchiveError::inconsistent(&object.key, detail));
                    }
                }
            }
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            for (bucket, uid) in uids {
                if known.uids.insert(uid) {
                    pending.news.insert(bucket);
                }
            }
            drop(known);
            token = page.next;
            if token.is_none() {
                return Ok(pending);
            }
        }
    }

    /// True when some of it was not known before.
    fn take_in(&self, uids: impl Iterator<Item = UidHash>, shards: impl Iterator<Item = ShardId>) -> bool {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let before = (known.uids.len(), known.shards.len());
        known.uids.extend(uids);
        known.shards.extend(shards);
        before != (known.uids.len(), known.shards.len())
    }
}

async fn read<D: Document>(store: &dyn ObjectStore, key: &ObjectKey) -> Result<(D, ETag), ArchiveError> {
    let fetched = store.get(key, DOCUMENT_LEN_MAX).await?;
    let document = document::decode(&fetched.bytes).map_err(|error| ArchiveError::damaged(key, error))?;
    Ok((document, fetched.meta.etag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Deletion;
    use crate::fixture::{Fixture, day, uid};

    #[tokio::test]
    async fn of_what_a_folded_set_holds_only_listed_batches_are_remembered() {
        let fixture = Fixture::new().await;
        fixture.pack(&[("a", b"a"), ("b", b"b"), ("c", b"c"), ("d", b"d")]).await;
        let reader = fixture.reader().await;
        reader.delete(day(), &uid("a"), &Deletion::default()).await.unwrap();
        reader.delete(day(), &uid("b"), &Deletion::default()).await.unwrap();
        reader.delete_many(day(), &[uid("c"), uid("d")], &Deletion::default()).await.unwrap();
        fixture.writer.fold(day()).await.unwrap();
        let bits = fixture.writer.identity().bits();
        let batches = {
            let listed = TombstoneSet::default();
            let listed = listed.list(fixture.store.as_ref(), day(), bits, &Progress::default()).await.unwrap();
            listed.batches.len()
        };
        assert!(batches > 0);

        let set = TombstoneSet::default();
        fixture.store.take_calls();
        set.refresh(fixture.store.as_ref(), day(), bits).await.unwrap();

        assert_eq!(set.len(), 4);
        assert_eq!(set.progress.lock().await.batches.len(), batches);
        let reads = fixture.store.take_calls().iter().filter(|call| call.starts_with("get ")).count();
        assert_eq!(reads, set.progress.lock().await.folded.len(), "no batch was read");
    }
}
