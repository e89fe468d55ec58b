//! Deleting objects that are no longer needed: after the grace period, with fresh proof, and never without first standing
//! in a committed manifest as retired or condemned.
//!
//! A retired or condemned key never becomes live again, so whoever wakes up late with a decision to delete one can do no
//! harm, and whoever wakes up late with one to publish cannot.

mod big_files;
mod flat;
mod proof;
mod rollback;
mod shrink;
#[cfg(test)]
mod tests;

use std::time::Duration;

use desfmt::document::{CondemnedObject, Manifest};
use desfmt::{Date, ObjectKey, Timestamp, layout};

use crate::archive::ArchiveError;
use crate::deletions::Deletions;
use crate::error::StoreErrorKind;
use crate::inventory::{Inventory, ReadManifest, State};
use crate::publish::ArchiveWriter;
use crate::rules::{Rule, keeps};

pub(crate) use big_files::BigFileUse;
pub use proof::Unproven;

/// How far the clock of this host may be from that of the store.
pub const SKEW_MAX: Duration = Duration::from_mins(5);

/// What is to be deleted of a day.
#[derive(Debug, Clone)]
pub struct DayGarbage {
    /// The day.
    pub date: Date,
    /// Retired and condemned objects whose grace period is over, with their lengths.
    pub due: Vec<(ObjectKey, u64)>,
    /// Objects that no manifest knows and that are older than the grace period.
    pub orphans: Vec<(ObjectKey, u64)>,
    /// Objects that are gone, whose grace period is over and that still stand in the manifest.
    pub gone: Vec<ObjectKey>,
    /// Retired and condemned objects whose grace period is not over.
    pub waiting: u64,
    /// How many objects the day has.
    pub objects: u64,
    /// Live objects that are missing or have another length than they should.
    pub damaged: Vec<ObjectKey>,
    /// Whether any deletion has not been proven to be carried out.
    pub oldest: Option<Timestamp>,
}

/// What became of it.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    /// Objects deleted, with all older versions of them.
    pub purged: u64,
    /// Their bytes.
    pub purged_bytes: u64,
    /// Orphans condemned; they are deleted when their grace period is over.
    pub condemned: u64,
    /// Objects that the manifest has forgotten.
    pub forgotten: u64,
    /// Records of deletions that have shrunk to a hash: the bytes are proven gone.
    pub erased: u64,
    /// Objects that could not be proven to be needed no longer, and why.
    pub held_back: Vec<(ObjectKey, Unproven)>,
}

impl ArchiveWriter {
    /// Finds out what of a day can be deleted. Two readings of the manifest, one listing, the deletions. `None` for a day
    /// that does not exist; an error where objects are there and their manifest is not.
    pub async fn plan_gc(&self, date: Date, grace: Duration) -> Result<Option<DayGarbage>, ArchiveError> {
        let store = self.store.as_ref();
        let inventory = Inventory::take(store, self.bits(), date).await?;
        let Some(read) = &inventory.manifest else {
            if let Some(held) = inventory.objects.first() {
                let detail = format!("its manifest {} is missing; restore it", layout::manifest(date));
                return Err(ArchiveError::inconsistent(&held.key, detail));
            }
            return Ok(None);
        };
        let now = self.grace_time().await?;
        let mut garbage = DayGarbage {
            date,
            due: Vec::new(),
            orphans: Vec::new(),
            gone: Vec::new(),
            waiting: 0,
            objects: 0,
            damaged: Vec::new(),
            oldest: Deletions::read(store, self.bits(), date).await?.oldest(),
        };
        for held in &inventory.objects {
            let (len, modified) = held.meta.as_ref().map_or((0, now), |meta| (meta.len, meta.modified));
            garbage.objects = garbage.objects.saturating_add(u64::from(held.meta.is_some()));
            match held.state {
                State::Retired | State::Dropped | State::Condemned => {
                    if is_due(&read.manifest, &held.key, now, grace) {
                        garbage.due.push((held.key.clone(), len));
                    } else {
                        garbage.waiting = garbage.waiting.saturating_add(1);
                    }
                }
                State::Orphan if now.since(modified) >= grace => garbage.orphans.push((held.key.clone(), len)),
                // Within the grace period older versions of it may still be wanted back.
                State::Gone => {
                    if is_due(&read.manifest, &held.key, now, grace) {
                        garbage.gone.push(held.key.clone());
                    } else {
                        garbage.waiting = garbage.waiting.saturating_add(1);
                    }
                }
                State::Missing | State::Mismatched { .. } => garbage.damaged.push(held.key.clone()),
                State::Orphan | State::Current | State::Foreign => {}
            }
        }
        Ok(Some(garbage))
    }

    /// Deletes what was planned, each after a proof of its own. For each object its index and those of the live shards of
    /// its group are read.
    ///
    /// Cancel safe: each object is deleted or not; what the manifest says of it is corrected by the next run.
    pub async fn collect(&self, garbage: &DayGarbage, grace: Duration) -> Result<Collected, ArchiveError> {
        let mut collected = Collected::default();
        self.condemn_orphans(garbage, &mut collected).await?;
        let mut gone = Vec::new();
        for key in &garbage.gone {
            if self.purge_remains(garbage.date, key, grace).await? {
                gone.push(key.clone());
            }
        }
        if !keeps(Rule::ForgottenIsGone) {
            let keys: Vec<_> = garbage.due.iter().map(|(key, _)| key.clone()).collect();
            self.forget(garbage.date, &keys).await?;
        }
        for (key, len) in &garbage.due {
            match self.purge_proven(garbage.date, key, grace).await? {
                Ok(()) => {
                    collected.purged = collected.purged.saturating_add(1);
                    collected.purged_bytes = collected.purged_bytes.saturating_add(*len);
                    gone.push(key.clone());
                }
                Err(Unproven::NotDue) => {}
                Err(reason) => collected.held_back.push((key.clone(), reason)),
            }
        }
        collected.forgotten = self.forget_gone(garbage.date, gone).await?;
        collected.erased = self.shrink(garbage.date, grace).await?;
        Ok(collected)
    }

    /// The time that periods of grace are counted in. Refused where it and the clock of this host are far apart: one of
    /// them is wrong, and nothing is deleted until it is known which.
    async fn grace_time(&self) -> Result<Timestamp, ArchiveError> {
        let own = self.clock.now();
        if !keeps(Rule::GraceByStoreClock) {
            return Ok(own);
        }
        let time = self.store.time().await?;
        let skew = time.since(own).max(own.since(time));
        if skew > SKEW_MAX {
            let reason = format!(
                "the clocks of this host and of the store are {} s apart, so nothing is deleted; set the clock",
                skew.as_secs()
            );
            return Err(ArchiveError::refused(reason));
        }
        Ok(time)
    }

    /// Condemns orphans that hold nothing which is not elsewhere or deleted, and those that hold anything deleted.
    async fn condemn_orphans(&self, garbage: &DayGarbage, collected: &mut Collected) -> Result<(), ArchiveError> {
        let mut condemned = Vec::new();
        for (key, _) in &garbage.orphans {
            if !keeps(Rule::OrphanIsCondemned) {
                self.store.purge(key).await?;
                continue;
            }
            let Some(read) = ReadManifest::read(self.store.as_ref(), garbage.date).await? else { return Ok(()) };
            let proof = self.prove(&read.manifest, key).await?;
            let reason = match proof.outcome {
                Ok(()) => "nobody has published it, and all it holds is elsewhere or deleted",
                Err(_) if proof.has_dead => "nobody has published it, and it holds a deleted file",
                Err(Unproven::Unreadable(_)) => "nobody has published it, and it is no shard that can be read",
                Err(reason) => {
                    collected.held_back.push((key.clone(), reason));
                    continue;
                }
            };
            let at = self.store.time().await?;
            condemned.push(CondemnedObject { key: key.clone(), reason: reason.to_owned(), at });
        }
        if condemned.is_empty() {
            return Ok(());
        }
        let count = u64::try_from(condemned.len()).unwrap_or(u64::MAX);
        if self.condemn_objects(garbage.date, condemned).await? {
            collected.condemned = count;
        }
        Ok(())
    }

    /// When the oldest deletion of a day was made that is not proven to be carried out.
    pub async fn oldest_deletion(&self, date: Date) -> Result<Option<Timestamp>, ArchiveError> {
        Ok(Deletions::read(self.store.as_ref(), self.bits(), date).await?.oldest())
    }

    /// Deletes what is left of an object that is gone: whoever deleted it may have died before its older versions went too.
    /// False where it is there after all, or not due.
    async fn purge_remains(&self, date: Date, key: &ObjectKey, grace: Duration) -> Result<bool, ArchiveError> {
        let now = self.grace_time().await?;
        let Some(read) = ReadManifest::read(self.store.as_ref(), date).await? else {
            return Err(ArchiveError::inconsistent(&layout::manifest(date), "it was there and is gone; restore it"));
        };
        let is_live = read.manifest.shards.iter().any(|shard| shard.key == *key);
        if is_live || !is_due(&read.manifest, key, now, grace) {
            return Ok(false);
        }
        match self.store.head(key).await {
            Err(error) if error.kind == StoreErrorKind::NotFound => {}
            Ok(_) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        self.store.purge(key).await?;
        Ok(true)
    }

    /// Deletes one object: with a manifest read for it, and a proof made for it.
    async fn purge_proven(
        &self,
        date: Date,
        key: &ObjectKey,
        grace: Duration,
    ) -> Result<Result<(), Unproven>, ArchiveError> {
        let now = self.grace_time().await?;
        let Some(read) = ReadManifest::read(self.store.as_ref(), date).await? else {
            return Err(ArchiveError::inconsistent(&layout::manifest(date), "it was there and is gone; restore it"));
        };
        let is_live = read.manifest.shards.iter().any(|shard| shard.key == *key);
        if is_live || (keeps(Rule::ForgottenIsGone) && !is_due(&read.manifest, key, now, grace)) {
            return Ok(Err(Unproven::NotDue));
        }
        let proof = self.prove(&read.manifest, key).await?;
        let was_never_live = !read.manifest.retired.iter().any(|object| object.key == *key);
        match proof.outcome {
            Ok(()) => {}
            Err(Unproven::Unreadable(_)) if was_never_live => {}
            Err(reason) => return Ok(Err(reason)),
        }
        self.store.purge(key).await?;
        Ok(Ok(()))
    }

    /// Takes out of the manifest what is proven gone.
    async fn forget_gone(&self, date: Date, keys: Vec<ObjectKey>) -> Result<u64, ArchiveError> {
        let mut gone = Vec::new();
        for key in keys {
            match self.store.head(&key).await {
                Err(error) if error.kind == StoreErrorKind::NotFound => gone.push(key),
                // There once more, or still: an upload that woke up late. The next run deletes it.
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !gone.is_empty() {
            self.forget(date, &gone).await?;
        }
        Ok(u64::try_from(gone.len()).unwrap_or(u64::MAX))
    }
}

/// True when a key is retired or condemned and its grace period is over.
fn is_due(manifest: &Manifest, key: &ObjectKey, now: Timestamp, grace: Duration) -> bool {
    let grace = if keeps(Rule::GraceIsWaited) { grace } else { Duration::ZERO };
    let retired = manifest.retired.iter().filter(|object| object.key == *key).map(|object| object.at);
    let condemned = manifest.condemned.iter().filter(|object| object.key == *key).map(|object| object.at);
    retired.chain(condemned).max().is_some_and(|at| now.since(at) >= grace)
}
