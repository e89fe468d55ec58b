//! The records of deletions: who asked for what, when and why. For people and programs that ask; a lookup needs only the
//! set of hashes.
//!
//! Read in the order that cannot miss one: the listing to its end, then records and batches, then the folded sets.

use std::collections::{BTreeSet, HashSet};

use desfmt::document::{DOCUMENT_LEN_MAX, FoldedTombstones, Tombstone, TombstoneBatch, WholeShard};
use desfmt::layout::{self, TombstoneKey};
use desfmt::{Date, Group, ObjectKey, UidHash, Uuid, document};
use futures_util::future;

use crate::archive::Archive;
use crate::archive::error::ArchiveError;
use crate::archive::tombstones::LISTED_MAX;
use crate::error::StoreErrorKind;
use crate::store::{Depth, list_all};

/// How many records are read at once.
const READS_AT_ONCE: usize = 32;

/// One thing that was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeletionRecord {
    /// A file.
    File {
        /// The record.
        tombstone: Tombstone,
        /// True when it is in the folded set of its group.
        folded: bool,
    },
    /// Everything in a shard.
    Shard {
        /// The day.
        date: Date,
        /// The record.
        record: WholeShard,
        /// True when it is in the folded set of its group.
        folded: bool,
    },
    /// A file whose bytes are proven gone, and of which only a hash is left.
    Erased {
        /// The day.
        date: Date,
        /// The hash of its uid.
        uid_hash: UidHash,
    },
}

/// Where records go.
pub(crate) type TakeRecord<'a> = &'a mut (dyn FnMut(DeletionRecord) + Send);

/// What a listing of a day's tombstones showed.
#[derive(Default)]
struct Listed {
    records: Vec<(ObjectKey, Uuid)>,
    batches: Vec<(ObjectKey, Group, Uuid)>,
    folded: BTreeSet<Group>,
}

/// Hands out each record once, though it may be found in two places.
struct Sieve<'a> {
    take: TakeRecord<'a>,
    seen: HashSet<(Uuid, [u8; 16])>,
}

impl Sieve<'_> {
    fn file(&mut self, tombstone: Tombstone, folded: bool) {
        if self.seen.insert((tombstone.operation, *tombstone.uid_hash.bytes())) {
            (self.take)(DeletionRecord::File { tombstone, folded });
        }
    }

    fn shard(&mut self, date: Date, record: WholeShard, folded: bool) {
        if self.seen.insert((record.operation, *record.shard.bytes())) {
            (self.take)(DeletionRecord::Shard { date, record, folded });
        }
    }
}

impl Archive {
    /// The days that anything was deleted from, or asked to be, ascending. One listing of all tombstones.
    pub async fn days_with_deletions(&self) -> Result<Vec<Date>, ArchiveError> {
        let mut days = BTreeSet::new();
        let mut token: Option<String> = None;
        loop {
            let page = self.store.list(layout::TOMBSTONES, Depth::Recursive, token.as_deref()).await?;
            for object in &page.objects {
                days.insert(self.tombstone_key(&object.key)?.group().date);
            }
            token = page.next;
            if token.is_none() {
                return Ok(days.into_iter().collect());
            }
        }
    }

    /// Hands out every record of the deletions from a day. One request for each record that is not folded.
    pub async fn deletions(&self, date: Date, take: TakeRecord<'_>) -> Result<(), ArchiveError> {
        let mut listed = Listed::default();
        for object in
            list_all(self.store.as_ref(), &layout::tombstones_prefix(date), Depth::Recursive, LISTED_MAX).await?
        {
            match self.tombstone_key(&object.key)? {
                TombstoneKey::Record(_, operation, _) => listed.records.push((object.key, operation)),
                TombstoneKey::Batch(group, operation) => listed.batches.push((object.key, group, operation)),
                TombstoneKey::Folded(group) => drop(listed.folded.insert(group)),
            }
        }
        self.leave_out_folded(&mut listed).await?;
        let mut sieve = Sieve { take, seen: HashSet::new() };
        for keys in listed.records.chunks(READS_AT_ONCE) {
            let read = future::try_join_all(keys.iter().map(|(key, _)| self.record_document::<Tombstone>(key))).await?;
            for ((key, _), found) in keys.iter().zip(read) {
                match found {
                    Some(tombstone) => sieve.file(tombstone, false),
                    None => drop(listed.folded.insert(self.tombstone_key(key)?.group())),
                }
            }
        }
        for (key, group, _) in &listed.batches {
            match self.record_document::<TombstoneBatch>(key).await? {
                Some(batch) => {
                    batch.tombstones.into_iter().for_each(|one| sieve.file(one, false));
                    batch.shards.into_iter().for_each(|one| sieve.shard(date, one, false));
                }
                None => drop(listed.folded.insert(*group)),
            }
        }
        for group in &listed.folded {
            let key = layout::folded_tombstones(group);
            let Some(folded) = self.record_document::<FoldedTombstones>(&key).await? else {
                return Err(ArchiveError::inconsistent(&key, "records were folded into it, and it is not there"));
            };
            folded.tombstones.into_iter().for_each(|one| sieve.file(one, true));
            folded.shards.into_iter().for_each(|one| sieve.shard(date, one, true));
            folded.erased.into_iter().for_each(|uid_hash| (sieve.take)(DeletionRecord::Erased { date, uid_hash }));
        }
        Ok(())
    }

    /// Leaves out what is in a folded set already and only waits to be removed: it is told from there.
    async fn leave_out_folded(&self, listed: &mut Listed) -> Result<(), ArchiveError> {
        let mut operations = HashSet::new();
        for group in &listed.folded {
            let folded = self.record_document::<FoldedTombstones>(&layout::folded_tombstones(group)).await?;
            operations.extend(folded.into_iter().flat_map(|set| set.folded).map(|one| one.operation));
        }
        listed.records.retain(|(_, operation)| !operations.contains(operation));
        listed.batches.retain(|(.., operation)| !operations.contains(operation));
        Ok(())
    }

    fn tombstone_key(&self, key: &ObjectKey) -> Result<TombstoneKey, ArchiveError> {
        let detail = "this is no tombstone; nothing else may lie here, move it away";
        layout::parse_tombstone(key.as_str(), self.bits()).ok_or_else(|| ArchiveError::inconsistent(key, detail))
    }

    /// A document that was listed; `None` when it has been folded and removed since.
    async fn record_document<D: document::Document>(&self, key: &ObjectKey) -> Result<Option<D>, ArchiveError> {
        match self.store.get(key, DOCUMENT_LEN_MAX).await {
            Ok(fetched) => {
                document::decode(&fetched.bytes).map(Some).map_err(|error| ArchiveError::damaged(key, error))
            }
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
