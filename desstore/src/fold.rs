//! Folding: the many records of a group's deletions become one document, and only then go.
//!
//! The order is what makes it safe. A reader lists the log to its end and reads folded sets afterwards, so a record may go
//! only when the folded set that holds it has been there for longer than any listing takes: ten minutes, by the store's
//! clock. Nothing ever leaves the set; a record whose uid no object holds any more shrinks to a hash.

use std::collections::HashSet;
use std::time::Duration;

use desfmt::document::{self, FoldedBatch, FoldedTombstones, Tombstone, TombstoneBatch, WholeShard};
use desfmt::{Date, Group, ObjectKey, Timestamp, UidHash, Uuid, layout};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::archive::ArchiveError;
use crate::deletions::{GroupLog, TombstoneLog, fetch};
use crate::error::StoreErrorKind;
use crate::publish::ArchiveWriter;
use crate::rules::{Rule, keeps};
use crate::store::{ETag, Payload};

/// How long a folded set must have been there before what it took in is removed.
pub const FOLD_AGE_MIN: Duration = Duration::from_mins(10);

/// How often a folded set that others change is written.
const ATTEMPTS_MAX: u32 = 12;

/// How many records are read side by side.
const READS_MAX: usize = 16;

/// How many records one commit takes in, so that memory stays bounded.
const RECORDS_MAX: usize = 20_000;

/// What folding has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Folded {
    /// Records and batches taken into folded sets.
    pub taken_in: u64,
    /// Records and batches removed that had been taken in before.
    pub removed: u64,
    /// Groups whose set was written.
    pub sets_written: u64,
}

impl Folded {
    fn add(&mut self, other: Self) {
        self.taken_in = self.taken_in.saturating_add(other.taken_in);
        self.removed = self.removed.saturating_add(other.removed);
        self.sets_written = self.sets_written.saturating_add(other.sets_written);
    }
}

/// What one reading of the log has given for a group.
#[derive(Debug, Default)]
struct Gathered {
    operations: Vec<Uuid>,
    tombstones: Vec<Tombstone>,
    shards: Vec<WholeShard>,
}

/// A folded set as it was read.
struct ReadSet {
    set: FoldedTombstones,
    /// Its version and when it was written; none where there is none yet.
    version: Option<(ETag, Timestamp)>,
}

impl ArchiveWriter {
    /// Folds the deletions of a day. One listing; for each group with something new one request a record and one commit;
    /// one for each record that is removed. Any number may fold at once.
    pub async fn fold(&self, date: Date) -> Result<Folded, ArchiveError> {
        let log = TombstoneLog::list(self.store.as_ref(), self.identity().bits(), date).await?;
        let mut folded = Folded::default();
        for (group, entries) in &log.groups {
            folded.add(self.fold_group(group, entries).await?);
        }
        Ok(folded)
    }

    async fn fold_group(&self, group: &Group, log: &GroupLog) -> Result<Folded, ArchiveError> {
        let mut folded = Folded::default();
        let now = self.store.time().await?;
        let read = self.read_set(group).await?;
        folded.removed = self.remove_folded(&read, log, now).await?;
        let known: HashSet<Uuid> = read.set.folded.iter().map(|batch| batch.operation).collect();
        let records: Vec<_> = log.records.iter().filter(|record| !known.contains(&record.operation)).collect();
        for part in records.chunks(RECORDS_MAX) {
            let mut gathered = Gathered::default();
            let store = &self.store;
            let keys: Vec<(ObjectKey, Uuid)> = part.iter().map(|one| (one.key.clone(), one.operation)).collect();
            let mut reads = stream::iter(keys)
                .map(|(key, operation)| async move {
                    Ok::<_, ArchiveError>((operation, fetch::<Tombstone>(store.as_ref(), &key).await?))
                })
                .buffered(READS_MAX);
            while let Some((operation, found)) = reads.try_next().await? {
                // One that is gone was folded by somebody else.
                if let Some((tombstone, fetched)) = found {
                    gathered.operations.push(operation);
                    gathered.tombstones.push(no_later(tombstone, fetched.meta.modified));
                }
            }
            drop(reads);
            folded.add(self.commit_set(group, log, gathered).await?);
        }
        for batch in log.batches.iter().filter(|batch| !known.contains(&batch.operation)) {
            let Some((found, fetched)) = fetch::<TombstoneBatch>(self.store.as_ref(), &batch.key).await? else {
                continue;
            };
            let mut gathered = Gathered { operations: vec![batch.operation], ..Gathered::default() };
            if keeps(Rule::FoldReadsBatches) {
                let written = fetched.meta.modified;
                gathered.tombstones = found.tombstones.into_iter().map(|one| no_later(one, written)).collect();
                gathered.shards = found.shards;
            }
            folded.add(self.commit_set(group, log, gathered).await?);
        }
        Ok(folded)
    }

    /// Removes records that the set has held for long enough.
    async fn remove_folded(&self, read: &ReadSet, log: &GroupLog, now: Timestamp) -> Result<u64, ArchiveError> {
        let Some((_, written)) = &read.version else { return Ok(0) };
        let waits = keeps(Rule::FoldWaits);
        // Whoever wrote the set may have asked for the time long before.
        if waits && now.since(*written) < FOLD_AGE_MIN {
            return Ok(0);
        }
        let old_enough = |batch: &&FoldedBatch| !waits || now.since(batch.at) >= FOLD_AGE_MIN;
        let ready: HashSet<Uuid> = read.set.folded.iter().filter(old_enough).map(|batch| batch.operation).collect();
        let held: HashSet<UidHash> = hashes(&read.set).collect();
        let records = log.records.iter().filter(|one| ready.contains(&one.operation) && held.contains(&one.uid));
        let batches = log.batches.iter().filter(|one| ready.contains(&one.operation));
        let mut removed = 0_u64;
        for key in records.map(|one| &one.key).chain(batches.map(|one| &one.key)) {
            self.store.delete(key).await?;
            removed = removed.saturating_add(1);
        }
        Ok(removed)
    }

    async fn read_set(&self, group: &Group) -> Result<ReadSet, ArchiveError> {
        let key = layout::folded_tombstones(group);
        let empty = || FoldedTombstones {
            date: group.date,
            generation: 0,
            transactions: Vec::new(),
            tombstones: Vec::new(),
            erased: Vec::new(),
            shards: Vec::new(),
            folded: Vec::new(),
        };
        Ok(match fetch::<FoldedTombstones>(self.store.as_ref(), &key).await? {
            Some((set, fetched)) => {
                if set.date != group.date {
                    return Err(ArchiveError::inconsistent(&key, format!("it is the set of {}", set.date)));
                }
                ReadSet { set, version: Some((fetched.meta.etag, fetched.meta.modified)) }
            }
            None => ReadSet { set: empty(), version: None },
        })
    }

    async fn commit_set(&self, group: &Group, log: &GroupLog, gathered: Gathered) -> Result<Folded, ArchiveError> {
        if gathered.operations.is_empty() {
            return Ok(Folded::default());
        }
        if !keeps(Rule::FoldCommitsFirst) {
            for record in &log.records {
                self.store.delete(&record.key).await?;
            }
        }
        let taken_in = u64::try_from(gathered.operations.len()).unwrap_or(u64::MAX);
        let logged: HashSet<Uuid> =
            log.records.iter().map(|one| one.operation).chain(log.batches.iter().map(|one| one.operation)).collect();
        let written = self
            .change_set(group, |set, now| {
                unite(set, &gathered, now);
                // What is no longer in the log need not be remembered.
                let is_done =
                    |batch: &FoldedBatch| now.since(batch.at) >= FOLD_AGE_MIN && !logged.contains(&batch.operation);
                set.folded.retain(|batch| !is_done(batch));
                true
            })
            .await?;
        Ok(Folded { taken_in, removed: 0, sets_written: u64::from(written) })
    }

    /// Replaces a folded set if it is unchanged, as often as others come before. `change` tells whether there is anything
    /// to write, and may be called again.
    pub(crate) async fn change_set(
        &self,
        group: &Group,
        change: impl Fn(&mut FoldedTombstones, Timestamp) -> bool + Sync,
    ) -> Result<bool, ArchiveError> {
        let key = layout::folded_tombstones(group);
        let transaction = self.archive.new_operation();
        for _ in 0..ATTEMPTS_MAX {
            let ReadSet { mut set, version } = self.read_set(group).await?;
            if set.transactions.contains(&transaction) {
                return Ok(true);
            }
            let now = self.store.time().await?;
            if !keeps(Rule::FoldUnites) {
                set.tombstones.clear();
            }
            if !change(&mut set, now) {
                return Ok(false);
            }
            set.generation = set.generation.saturating_add(1);
            set.transactions.push(transaction);
            let surplus = set.transactions.len().saturating_sub(document::TRANSACTIONS_KEPT);
            set.transactions.drain(..surplus);
            let body = document::encode(&set).map_err(|error| ArchiveError::damaged(&key, error))?;
            let payload = Payload::Bytes(body.into());
            let written = match &version {
                _ if !keeps(Rule::FoldCompares) => self.store.put(&key, payload).await,
                Some((etag, _)) => self.store.put_if_match(&key, etag, payload).await,
                None => self.store.put_if_absent(&key, payload).await,
            };
            match written {
                Ok(_) => return Ok(true),
                Err(error) if is_lost_or_unknown(error.kind) => self.pause().await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(ArchiveError::refused(format!("{key} was changed by others in all of {ATTEMPTS_MAX} attempts; try later")))
    }

    /// A short random wait after a lost race.
    async fn pause(&self) {
        let micros = self.random.next() % 200_000;
        self.clock.sleep(Duration::from_micros(micros)).await;
    }
}

/// A deletion that was not asked for after its record was written, whatever the clock of that host said: the time until
/// its bytes are gone counts from there.
fn no_later(tombstone: Tombstone, written: Timestamp) -> Tombstone {
    Tombstone { at: tombstone.at.min(written), ..tombstone }
}

const fn is_lost_or_unknown(kind: StoreErrorKind) -> bool {
    kind.is_transient() || matches!(kind, StoreErrorKind::PreconditionFailed | StoreErrorKind::AlreadyExists)
}

fn hashes(set: &FoldedTombstones) -> impl Iterator<Item = UidHash> {
    set.tombstones.iter().map(|one| one.uid_hash).chain(set.erased.iter().copied())
}

fn unite(set: &mut FoldedTombstones, gathered: &Gathered, now: Timestamp) {
    let mut held: HashSet<UidHash> = hashes(set).collect();
    for tombstone in &gathered.tombstones {
        if held.insert(tombstone.uid_hash) {
            set.tombstones.push(tombstone.clone());
        }
    }
    for shard in &gathered.shards {
        if !set.shards.iter().any(|held| held.shard == shard.shard) {
            set.shards.push(shard.clone());
        }
    }
    let known: HashSet<Uuid> = set.folded.iter().map(|batch| batch.operation).collect();
    let new = gathered.operations.iter().filter(|operation| !known.contains(operation));
    set.folded.extend(new.map(|operation| FoldedBatch { operation: *operation, at: now }));
}
