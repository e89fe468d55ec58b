//! Deletion of one file or many: tombstones that are durable before anything else happens.

use std::collections::BTreeMap;
use std::sync::Arc;

use desfmt::document::{self, Tombstone, TombstoneBatch};
use desfmt::{Date, Group, ObjectKey, Uid, Uuid, layout};
use futures_util::future;

use crate::archive::entries::settled;
use crate::archive::error::ArchiveError;
use crate::archive::tombstones::TombstoneSet;
use crate::archive::{Archive, Day};
use crate::clock::Randomness;
use crate::error::StoreErrorKind;
use crate::rules::{Rule, keeps};
use crate::store::Payload;

/// Who deletes, and why.
#[derive(Debug, Clone, Default)]
pub struct Deletion {
    /// Who asked, such as `uid 1000 on host`.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// The ticket that ordered it.
    pub ticket: Option<String>,
}

/// What a deletion found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// The file was visible and no longer is.
    Now,
    /// There was no such file to delete, or it was deleted before.
    NotFound,
}

/// What a file is to those who look for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It can be seen.
    Visible,
    /// It was deleted.
    Deleted,
    /// No live shard holds it, and no tombstone names it.
    Absent,
}

/// How many tombstones of a group are written at once.
pub(crate) const TOMBSTONES_PER_WRITE: usize = 1_000;

/// How many writes of tombstones are under way at once.
const WRITES_AT_ONCE: usize = 16;

impl Archive {
    /// Deletes a file: on return its tombstone is durable and it is no longer visible here. On an error of kind
    /// `Unavailable` that is unknown; asking again is safe. One write.
    ///
    /// Cancel safe: a tombstone that was written stays in force, whoever learns of it first.
    pub async fn delete(&self, date: Date, uid: &Uid, deletion: &Deletion) -> Result<Deleted, ArchiveError> {
        self.refuse_legacy()?;
        // Held until the deletion is noted: a look at the day that begins meanwhile shares this very set.
        let set = self.tombstone_set(date);
        let Some(file) = self.lookup(date, uid).await? else { return Ok(Deleted::NotFound) };
        let group = self.group_of(date, uid)?;
        let tombstone = self.tombstone(date, uid, self.new_operation(), deletion);
        self.write_tombstones(&group, std::slice::from_ref(&tombstone)).await?;
        set.extend([tombstone.uid_hash]);
        self.forget_file(date, file.birth).await;
        Ok(Deleted::Now)
    }

    /// Whether files of a day are visible, deleted, or not there: as it is now.
    pub async fn standings(&self, date: Date, uids: &[Uid]) -> Result<Vec<Standing>, ArchiveError> {
        let Some(day) = self.day_now(date).await? else { return Ok(vec![Standing::Absent; uids.len()]) };
        let mut standings = Vec::with_capacity(uids.len());
        for uid in uids {
            standings.push(settled!(self, date, self.standing(&day, date, uid))?);
        }
        Ok(standings)
    }

    async fn standing(&self, seen: &Day, date: Date, uid: &Uid) -> Result<Standing, ArchiveError> {
        if self.is_tombstoned(&seen.tombstones, uid.as_str()) {
            return Ok(Standing::Deleted);
        }
        let Some(day) = self.day(date).await? else { return Ok(Standing::Absent) };
        let group = self.group_of(date, uid)?;
        let mut standing = Standing::Absent;
        for shard in day.group(group.bucket.number()).iter().filter(|shard| shard.may_hold(uid.as_str())) {
            if self.find_in(shard, uid.as_str()).await?.is_some() {
                if !day.is_deleted(shard) {
                    return Ok(Standing::Visible);
                }
                standing = Standing::Deleted;
            }
        }
        Ok(standing)
    }

    /// Deletes files of one day, whether they are there or not: on return their tombstones are durable and none of them is
    /// visible here. One write for each thousand of a group. On an error some may be deleted and others not; asking again
    /// is safe. Returns how many writes that took.
    pub async fn delete_many(&self, date: Date, uids: &[Uid], deletion: &Deletion) -> Result<u64, ArchiveError> {
        self.refuse_legacy()?;
        let set = self.tombstone_set(date);
        let mut groups = BTreeMap::<Group, Vec<&Uid>>::new();
        for uid in uids {
            groups.entry(self.group_of(date, uid)?).or_default().push(uid);
        }
        let mut batches = Vec::new();
        for (group, uids) in groups {
            for chunk in uids.chunks(TOMBSTONES_PER_WRITE) {
                let operation = self.new_operation();
                let tombstones: Vec<_> =
                    chunk.iter().map(|uid| self.tombstone(date, uid, operation, deletion)).collect();
                batches.push((group, tombstones));
            }
        }
        let outcome = self.write_batches(&batches, &set).await;
        // Also where some writes failed: what the others have written is deleted.
        let buckets = batches.iter().map(|(group, _)| group.bucket.number()).collect();
        self.forget_deleted_here(date, &buckets).await;
        outcome?;
        Ok(u64::try_from(batches.len()).unwrap_or(u64::MAX))
    }

    /// Writes tombstones, several writes at a time, and notes those that are durable.
    pub(crate) async fn write_batches(
        &self,
        batches: &[(Group, Vec<Tombstone>)],
        set: &TombstoneSet,
    ) -> Result<(), ArchiveError> {
        for side_by_side in batches.chunks(WRITES_AT_ONCE) {
            let writes = side_by_side.iter().map(async |(group, tombstones)| {
                self.write_tombstones(group, tombstones).await?;
                set.extend(tombstones.iter().map(|tombstone| tombstone.uid_hash));
                Ok::<_, ArchiveError>(())
            });
            // All of them run to their ends: what one has written is noted although another fails.
            future::join_all(writes).await.into_iter().collect::<Result<(), _>>()?;
        }
        Ok(())
    }

    /// Writes the record of one deletion or a batch of several in one group, durably. The first one's operation names it.
    async fn write_tombstones(&self, group: &Group, tombstones: &[Tombstone]) -> Result<(), ArchiveError> {
        let (key, body) = match tombstones {
            [] => return Ok(()),
            [one] => {
                let key = layout::tombstone_record(group, one.operation, one.uid_hash);
                let body = document::encode(one).map_err(|error| ArchiveError::damaged(&key, error))?;
                (key, body)
            }
            [first, ..] => {
                let key = layout::tombstone_batch(group, first.operation);
                let batch = TombstoneBatch { date: group.date, tombstones: tombstones.to_vec(), shards: Vec::new() };
                let body = document::encode(&batch).map_err(|error| ArchiveError::damaged(&key, error))?;
                (key, body)
            }
        };
        self.write_once(&key, body).await
    }

    /// Creates an object under a key that is ours alone, since it holds a fresh operation.
    pub(crate) async fn write_once(&self, key: &ObjectKey, body: Vec<u8>) -> Result<(), ArchiveError> {
        match self.store.put_if_absent(key, Payload::Bytes(body.into())).await {
            Ok(_) => Ok(()),
            // An earlier attempt below this layer has written it.
            Err(error) if error.kind == StoreErrorKind::AlreadyExists => Ok(()),
            Err(error) if error.kind.is_transient() && !keeps(Rule::UnknownIsNoSuccess) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn tombstone(&self, date: Date, uid: &Uid, operation: Uuid, deletion: &Deletion) -> Tombstone {
        Tombstone {
            date,
            uid: uid.clone(),
            uid_hash: self.uid_hasher.hash(uid.as_str()),
            operation,
            actor: deletion.actor.clone(),
            reason: deletion.reason.clone(),
            ticket: deletion.ticket.clone(),
            at: self.clock.now(),
        }
    }

    /// The group that a uid belongs to.
    pub(crate) fn group_of(&self, date: Date, uid: &Uid) -> Result<Group, ArchiveError> {
        Group::of(date, uid.as_str(), self.bits()).map_err(|error| ArchiveError::refused(error.to_string()))
    }

    pub(crate) fn refuse_legacy(&self) -> Result<(), ArchiveError> {
        if !self.is_legacy() {
            return Ok(());
        }
        let reason = "archives of the ancestor are read only; turn it into a DES archive first (des-verify --adopt)";
        Err(ArchiveError::ReadOnly { reason: reason.to_owned() })
    }

    /// A new operation, ordered by time.
    pub(crate) fn new_operation(&self) -> Uuid {
        new_operation(self.clock.now(), self.random.as_ref())
    }

    /// True when a tombstone names the uid.
    pub(crate) fn is_tombstoned(&self, set: &Arc<TombstoneSet>, uid: &str) -> bool {
        !set.is_empty() && set.holds(self.uid_hasher.hash(uid))
    }
}

/// A `UUIDv7` (RFC 9562, 5.7).
pub(crate) fn new_operation(now: desfmt::Timestamp, random: &dyn Randomness) -> Uuid {
    let mut bytes = [0; 10];
    random.fill(&mut bytes);
    let millis = u64::try_from(now.micros().div_euclid(1_000)).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
}

#[cfg(test)]
mod tests;
