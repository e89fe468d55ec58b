//! Retention: everything in the shards of a day is deleted at once, by one record a shard.
//!
//! The records come first; from then on nothing of these shards is visible. Then the manifest is replaced by one in which
//! they are retired, as a repack would that has nothing left to write. A repack that was under way meanwhile, and would bring
//! the files back in a shard that no record names, then finds its parents gone; and one that was faster is found here, and
//! its shard is recorded too, before anything is reported as done.

use std::collections::{BTreeMap, BTreeSet};

use desfmt::document::{self, TombstoneBatch, WholeShard};
use desfmt::{Bucket, Date, Group, ShardId, layout};

use crate::archive::{ArchiveError, Day, DayShard, Deletion, Index};
use crate::publish::commit::lost_every_race;
use crate::publish::{ATTEMPTS_MAX, ArchiveWriter};

/// How many shards one record names.
const SHARDS_PER_WRITE: usize = 1_000;

/// A day that retention would delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpiringDay {
    /// The day.
    pub date: Date,
    /// Its live shards.
    pub shards: u64,
    /// The files in them, those deleted before included.
    pub files: u64,
    /// Their stored size, in bytes.
    pub stored_bytes: u64,
}

impl ArchiveWriter {
    /// The days before a day that hold live shards, ascending. One listing, and two requests for each day before.
    pub async fn expiring(&self, before: Date) -> Result<Vec<ExpiringDay>, ArchiveError> {
        let mut expiring = Vec::new();
        for date in self.archive.days().await?.iter().copied().filter(|date| *date < before) {
            let Some(day) = self.archive.day(date).await? else { continue };
            let mut found = ExpiringDay { date, shards: 0, files: 0, stored_bytes: 0 };
            for shard in &day.shards {
                found.shards = found.shards.saturating_add(1);
                found.files = found.files.saturating_add(u64::from(shard.entries));
                found.stored_bytes = found.stored_bytes.saturating_add(shard.len);
            }
            if found.shards > 0 {
                expiring.push(found);
            }
        }
        Ok(expiring)
    }

    /// Deletes everything in the live shards of a day: on return that is durable, nothing of it is visible here, and the
    /// manifest lists none of them any more. Returns how many shards that were.
    ///
    /// On an error some may be deleted and others not; asking again is safe.
    pub async fn expire(&self, date: Date, deletion: &Deletion) -> Result<u64, ArchiveError> {
        let mut recorded = BTreeSet::new();
        for _ in 0..ATTEMPTS_MAX {
            let day = self.archive.day_now(date).await?;
            let Some(day) = day.filter(|day| !day.shards.is_empty()) else {
                return Ok(u64::try_from(recorded.len()).unwrap_or(u64::MAX));
            };
            let fresh: Vec<_> = day.shards.iter().filter(|shard| !recorded.contains(&shard.id)).collect();
            self.record_whole(&day, date, &fresh, deletion).await?;
            recorded.extend(fresh.iter().map(|shard| shard.id));
            // Where others have published or repacked meanwhile, the next round sees it.
            let old = day.shards.iter().map(|shard| (shard.key.clone(), shard.id)).collect();
            self.swap(date, old, Vec::new()).await?;
        }
        Err(lost_every_race(date))
    }

    /// Writes the records that shards are deleted whole. Each names the shard and those that it was made from, so that an
    /// older copy of the archive shows none of their files either.
    async fn record_whole(
        &self,
        day: &Day,
        date: Date,
        shards: &[&DayShard],
        deletion: &Deletion,
    ) -> Result<(), ArchiveError> {
        let mut groups = BTreeMap::<u16, BTreeSet<ShardId>>::new();
        for shard in shards {
            let ids = groups.entry(shard.bucket).or_default();
            ids.insert(shard.id);
            if let Index::Paged(index) = &self.archive.open_shard(shard).await?.index {
                ids.extend(index.lineage().parents.iter().map(|parent| parent.shard));
            }
        }
        let bits = self.archive.bits();
        for (bucket, ids) in groups {
            let Some(bucket) = Bucket::new(u32::from(bucket), bits) else {
                let detail = format!("bucket {bucket} is beyond the {} bits of the archive", bits.get());
                return Err(ArchiveError::inconsistent(&layout::manifest(date), detail));
            };
            let ids: Vec<_> = ids.into_iter().collect();
            for chunk in ids.chunks(SHARDS_PER_WRITE) {
                let operation = self.archive.new_operation();
                let key = layout::tombstone_batch(&Group { date, bucket, bits }, operation);
                let record = |shard: &ShardId| WholeShard {
                    shard: *shard,
                    operation,
                    actor: deletion.actor.clone(),
                    reason: deletion.reason.clone(),
                    at: self.clock.now(),
                };
                let batch = TombstoneBatch { date, tombstones: Vec::new(), shards: chunk.iter().map(record).collect() };
                let body = document::encode(&batch).map_err(|error| ArchiveError::damaged(&key, error))?;
                self.archive.write_once(&key, body).await?;
                day.tombstones.extend_shards(chunk.iter().copied());
            }
        }
        Ok(())
    }
}
