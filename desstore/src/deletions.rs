//! All deletions of a day as they are now, with their age: what repacking and deleting objects is decided by.
//!
//! Read in the order that cannot miss one: first the listing to its end, then the batches, then the folded sets.

use std::collections::{BTreeMap, HashMap, HashSet};

use desfmt::document::{self, DOCUMENT_LEN_MAX, Document, FoldedTombstones, TombstoneBatch};
use desfmt::layout::{self, TombstoneKey};
use desfmt::{BucketBits, Date, Group, ObjectKey, ShardId, Timestamp, UidHash, Uuid};

use crate::archive::ArchiveError;
use crate::error::StoreErrorKind;
use crate::store::{Depth, Fetched, ObjectStore, list_all};

/// How many objects below a day's tombstones are read; a fold brings them down long before.
const LISTED_MAX: usize = 4_000_000;

/// The deletions of a day.
#[derive(Debug, Clone, Default)]
pub struct Deletions {
    /// When each uid was deleted.
    uids: HashMap<UidHash, Timestamp>,
    /// Uids whose bytes were proven gone.
    erased: HashSet<UidHash>,
    /// When each shard was deleted as a whole.
    shards: HashMap<ShardId, Timestamp>,
    /// The buckets in which any uid is deleted whose bytes may still be somewhere.
    buckets: HashSet<u16>,
}

impl Deletions {
    /// Reads the deletions of a day: one listing, one request for each batch and each folded set.
    pub async fn read(store: &dyn ObjectStore, bits: BucketBits, date: Date) -> Result<Self, ArchiveError> {
        Self::read_log(store, TombstoneLog::list(store, bits, date).await?).await
    }

    /// Reads the deletions of a group: one listing, one request for each batch and one for the folded set.
    pub async fn read_group(store: &dyn ObjectStore, group: &Group) -> Result<Self, ArchiveError> {
        Self::read_log(store, TombstoneLog::list_group(store, group).await?).await
    }

    /// Reads what a listing has shown, which was finished before.
    async fn read_log(store: &dyn ObjectStore, mut log: TombstoneLog) -> Result<Self, ArchiveError> {
        let mut read = Self::default();
        let mut vanished = HashSet::new();
        for (group, entries) in &log.groups {
            if !entries.records.is_empty() || !entries.batches.is_empty() {
                read.buckets.insert(group.bucket.number());
            }
            for record in &entries.records {
                read.note(record.uid, record.modified);
            }
            for batch in &entries.batches {
                match fetch::<TombstoneBatch>(store, &batch.key).await? {
                    Some((batch, fetched)) => {
                        batch.tombstones.iter().for_each(|one| read.note(one.uid_hash, fetched.meta.modified));
                        batch.shards.iter().for_each(|one| read.note_shard(one.shard, fetched.meta.modified));
                    }
                    None => drop(vanished.insert(*group)),
                }
            }
        }
        for group in vanished {
            log.groups.entry(group).or_default().has_folded = true;
        }
        read.read_folded(store, &log).await?;
        Ok(read)
    }

    async fn read_folded(&mut self, store: &dyn ObjectStore, log: &TombstoneLog) -> Result<(), ArchiveError> {
        for (group, _) in log.groups.iter().filter(|(_, entries)| entries.has_folded) {
            let key = layout::folded_tombstones(group);
            let Some((folded, _)) = fetch::<FoldedTombstones>(store, &key).await? else {
                return Err(ArchiveError::inconsistent(&key, "it was listed and is gone; restore it"));
            };
            if !folded.tombstones.is_empty() || !folded.shards.is_empty() {
                self.buckets.insert(group.bucket.number());
            }
            folded.tombstones.iter().for_each(|one| self.note(one.uid_hash, one.at));
            folded.shards.iter().for_each(|one| self.note_shard(one.shard, one.at));
            self.erased.extend(folded.erased);
        }
        Ok(())
    }

    fn note(&mut self, uid: UidHash, at: Timestamp) {
        let noted = self.uids.entry(uid).or_insert(at);
        *noted = at.min(*noted);
    }

    fn note_shard(&mut self, shard: ShardId, at: Timestamp) {
        let noted = self.shards.entry(shard).or_insert(at);
        *noted = at.min(*noted);
    }

    /// True when the uid of this hash is deleted.
    pub fn holds(&self, uid: UidHash) -> bool {
        self.uids.contains_key(&uid) || self.erased.contains(&uid)
    }

    /// True when everything in this shard is deleted.
    pub fn holds_shard(&self, shard: ShardId) -> bool {
        self.shards.contains_key(&shard)
    }

    /// When a uid was deleted. The oldest of all times for one that was thought erased and has come back in some object.
    pub fn since(&self, uid: UidHash) -> Option<Timestamp> {
        let erased = || self.erased.contains(&uid).then_some(Timestamp::from_micros(0));
        self.uids.get(&uid).copied().or_else(erased)
    }

    /// When a shard was deleted as a whole.
    pub fn shard_since(&self, shard: ShardId) -> Option<Timestamp> {
        self.shards.get(&shard).copied()
    }

    /// True when any uid of a bucket is deleted whose bytes may still be somewhere.
    pub fn touches(&self, bucket: u16) -> bool {
        self.buckets.contains(&bucket)
    }

    /// When the oldest deletion was made that is not proven to be carried out.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.uids.values().chain(self.shards.values()).min().copied()
    }

    /// True when nothing is deleted.
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.erased.is_empty() && self.shards.is_empty()
    }

    /// How many uids are deleted whose bytes may still be somewhere.
    pub fn len(&self) -> usize {
        self.uids.len()
    }
}

/// What lies below the tombstones of a day.
#[derive(Debug, Default)]
pub(crate) struct TombstoneLog {
    pub(crate) groups: BTreeMap<Group, GroupLog>,
}

/// What lies there of one group.
#[derive(Debug, Default)]
pub(crate) struct GroupLog {
    pub(crate) records: Vec<LoggedRecord>,
    pub(crate) batches: Vec<LoggedBatch>,
    pub(crate) has_folded: bool,
}

/// A record in the log.
#[derive(Debug, Clone)]
pub(crate) struct LoggedRecord {
    pub(crate) key: ObjectKey,
    pub(crate) operation: Uuid,
    pub(crate) uid: UidHash,
    pub(crate) modified: Timestamp,
}

/// A batch in the log.
#[derive(Debug, Clone)]
pub(crate) struct LoggedBatch {
    pub(crate) key: ObjectKey,
    pub(crate) operation: Uuid,
}

impl TombstoneLog {
    /// Lists a day to the end.
    pub(crate) async fn list(store: &dyn ObjectStore, bits: BucketBits, date: Date) -> Result<Self, ArchiveError> {
        Self::list_prefix(store, bits, &layout::tombstones_prefix(date)).await
    }

    /// Lists a group to the end.
    async fn list_group(store: &dyn ObjectStore, group: &Group) -> Result<Self, ArchiveError> {
        let mut log = Self::list_prefix(store, group.bits, &layout::group_tombstones_prefix(group)).await?;
        log.groups.retain(|listed, _| listed == group);
        Ok(log)
    }

    async fn list_prefix(store: &dyn ObjectStore, bits: BucketBits, prefix: &str) -> Result<Self, ArchiveError> {
        let mut log = Self::default();
        let listed = list_all(store, prefix, Depth::Recursive, LISTED_MAX).await?;
        for object in listed {
            let (key, modified) = (object.key, object.modified);
            match layout::parse_tombstone(key.as_str(), bits) {
                Some(TombstoneKey::Folded(group)) => log.groups.entry(group).or_default().has_folded = true,
                Some(TombstoneKey::Record(group, operation, uid)) => {
                    let record = LoggedRecord { key, operation, uid, modified };
                    log.groups.entry(group).or_default().records.push(record);
                }
                Some(TombstoneKey::Batch(group, operation)) => {
                    log.groups.entry(group).or_default().batches.push(LoggedBatch { key, operation });
                }
                None => {
                    let detail = "this is no tombstone; nothing else may lie here, move it away";
                    return Err(ArchiveError::inconsistent(&key, detail));
                }
            }
        }
        Ok(log)
    }
}

/// Reads a document; `None` where there is none.
pub(crate) async fn fetch<D: Document>(
    store: &dyn ObjectStore,
    key: &ObjectKey,
) -> Result<Option<(D, Fetched)>, ArchiveError> {
    match store.get(key, DOCUMENT_LEN_MAX).await {
        Ok(fetched) => {
            let document = document::decode(&fetched.bytes).map_err(|error| ArchiveError::damaged(key, error))?;
            Ok(Some((document, fetched)))
        }
        Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
