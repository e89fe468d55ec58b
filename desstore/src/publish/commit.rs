//! The commit: one conditional replacement of the day's manifest, shared by all who wait for the same day.
//!
//! Whoever holds the day's lock commits everything that is queued by then, so that many small shards of a day cost few
//! replacements.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use desfmt::document::{self, CondemnedObject, DOCUMENT_LEN_MAX, Manifest, ManifestShard};
use desfmt::{Date, ObjectKey, Timestamp, layout};
use tokio::sync::oneshot;

use crate::archive::ArchiveError;
use crate::error::{StoreError, StoreErrorKind};
use crate::publish::change::{Change, Decision, NewShard};
use crate::publish::upload::Claim;
use crate::publish::{ATTEMPTS_MAX, ArchiveWriter, BuiltShard};
use crate::rules::{Rule, keeps};
use crate::store::Payload;

/// The first pause after a lost race; it doubles each time.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A change of a manifest that waits to be committed.
#[derive(Debug)]
struct Request {
    change: Change,
    reply: oneshot::Sender<Result<Decision, ArchiveError>>,
}

/// Who waits for which day.
#[derive(Debug, Default)]
pub(super) struct CommitQueues {
    days: Mutex<HashMap<Date, Arc<Queue>>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Vec<Request>>,
    committing: tokio::sync::Mutex<()>,
}

impl CommitQueues {
    fn day(&self, date: Date) -> Arc<Queue> {
        Arc::clone(self.days.lock().unwrap_or_else(PoisonError::into_inner).entry(date).or_default())
    }
}

impl ArchiveWriter {
    /// Commits a shard that was claimed and has read back well.
    pub(super) async fn commit(&self, shard: &BuiltShard, claim: &Claim) -> Result<Decision, ArchiveError> {
        let date = shard.group.date;
        let mut known = shard.survey.shards.clone();
        for _ in 0..ATTEMPTS_MAX {
            let new = NewShard { listed: added(shard, claim), known: known.clone(), uids: Arc::clone(&shard.uids) };
            match self.request(date, Change::Add(Box::new(new))).await? {
                Decision::Recompare => {}
                Decision::Deleted => {
                    self.condemn(date, claim, "some of its uids were deleted").await?;
                    return Ok(Decision::Overlap);
                }
                decided @ (Decision::Committed(_) | Decision::Terminal | Decision::Overlap | Decision::Stale) => {
                    return Ok(decided);
                }
            }
            if self.overlaps(shard, &mut known).await? {
                self.condemn(date, claim, "other shards hold some of its uids").await?;
                return Ok(Decision::Overlap);
            }
        }
        Err(lost_every_race(date))
    }

    /// Makes sure that an object never becomes current.
    pub(super) async fn condemn(&self, date: Date, claim: &Claim, reason: &str) -> Result<(), ArchiveError> {
        let condemned = CondemnedObject { key: claim.key.clone(), reason: reason.to_owned(), at: claim.uploaded };
        self.request(date, Change::Condemn(vec![condemned])).await.map(drop)
    }

    /// True when a live shard of the group that is not `known` holds a uid of this one. Adds what was compared.
    async fn overlaps(&self, shard: &BuiltShard, known: &mut Vec<ObjectKey>) -> Result<bool, ArchiveError> {
        let Some(day) = self.archive.day_now(shard.group.date).await? else { return Ok(false) };
        for other in day.group(shard.group.bucket.number()) {
            if known.contains(&other.key) {
                continue;
            }
            for uid in shard.uids.iter().filter(|uid| other.may_hold(uid.as_str())) {
                if self.archive.find_in(other, uid.as_str()).await?.is_some() {
                    return Ok(true);
                }
            }
            known.push(other.key.clone());
        }
        Ok(false)
    }

    /// Queues a change and sees it decided, by whoever commits next.
    pub(crate) async fn request(&self, date: Date, change: Change) -> Result<Decision, ArchiveError> {
        let queue = self.commits.day(date);
        let (reply, answer) = oneshot::channel();
        queue.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Request { change, reply });
        let committing = queue.committing.lock().await;
        let batch = std::mem::take(&mut *queue.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if !batch.is_empty() {
            self.commit_batch(date, batch).await;
        }
        drop(committing);
        answer.await.unwrap_or_else(|_| {
            let abandoned = StoreError::new(StoreErrorKind::Unavailable, "commit", layout::manifest(date));
            Err(abandoned.into())
        })
    }

    async fn commit_batch(&self, date: Date, batch: Vec<Request>) {
        let (changes, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|one| (one.change, one.reply)).unzip();
        let decided = self.replace_manifest(date, &changes).await;
        self.archive.forget_day(date).await;
        for (at, reply) in replies.into_iter().enumerate() {
            let answer = match &decided {
                Ok(decisions) => decisions.get(at).copied().ok_or_else(|| lost_every_race(date)),
                Err(error) => Err(error.clone()),
            };
            // Whoever asked may have gone; the commit stands all the same.
            drop(reply.send(answer));
        }
    }

    async fn replace_manifest(&self, date: Date, changes: &[Change]) -> Result<Vec<Decision>, ArchiveError> {
        let key = layout::manifest(date);
        let transaction = self.archive.new_operation();
        let mut decisions: Vec<Decision> = Vec::new();
        let mut pause = PAUSE_MIN;
        for _ in 0..ATTEMPTS_MAX {
            let fetched = self.store.get(&key, DOCUMENT_LEN_MAX).await?;
            let mut manifest: Manifest =
                document::decode(&fetched.bytes).map_err(|error| ArchiveError::damaged(&key, error))?;
            if manifest.transactions.contains(&transaction) {
                return Ok(decisions);
            }
            if keeps(Rule::TimesSettle) {
                manifest.settle_times(fetched.meta.modified);
            }
            let now = self.time_for(changes).await?;
            let hold_deleted = self.hold_deleted(date, changes).await?;
            let decide = |(change, holds_deleted): (&Change, bool)| {
                if holds_deleted { Ok(Decision::Deleted) } else { change.apply(&mut manifest, now) }
            };
            decisions = changes.iter().zip(hold_deleted).map(decide).collect::<Result<_, _>>()?;
            if !decisions.iter().any(|decision| decision.is_committed()) {
                return Ok(decisions);
            }
            self.still_there(changes, &decisions).await?;
            manifest.generation = manifest.generation.saturating_add(1);
            manifest.note_transaction(transaction);
            let body = document::encode(&manifest).map_err(|error| ArchiveError::damaged(&key, error))?;
            let payload = Payload::Bytes(body.into());
            let replaced = if keeps(Rule::CommitCompares) {
                self.store.put_if_match(&key, &fetched.meta.etag, payload).await
            } else {
                self.store.put(&key, payload).await
            };
            match replaced {
                Ok(_) => return Ok(decisions),
                Err(error) if error.kind == StoreErrorKind::PreconditionFailed || error.kind.is_transient() => {
                    tracing::debug!(%key, %error, "commit again");
                }
                Err(error) => return Err(error.into()),
            }
            let jitter = self.random.next().checked_rem(micros(pause)).unwrap_or(0);
            self.clock.sleep(Duration::from_micros(jitter)).await;
            pause = pause.saturating_mul(2).min(PAUSE_MAX);
        }
        Err(lost_every_race(date))
    }

    /// The time by the store's clock, where a change notes it.
    async fn time_for(&self, changes: &[Change]) -> Result<Timestamp, ArchiveError> {
        if changes.iter().any(|change| matches!(change, Change::Swap { .. })) {
            return Ok(self.store.time().await?);
        }
        Ok(Timestamp::default())
    }

    /// Which of the changes would publish a uid that is deleted. A uid that was looked for and not found may have been
    /// published, deleted and dropped since, all by others, so that no live shard tells of it any more.
    ///
    /// To be asked after the manifest was read: what was published until then and deleted is found here, and what is
    /// published from then on makes the commit fail.
    async fn hold_deleted(&self, date: Date, changes: &[Change]) -> Result<Vec<bool>, ArchiveError> {
        let has_new = changes.iter().any(|change| matches!(change, Change::Add(_)));
        if !has_new || !keeps(Rule::CommitLooksForDeletions) {
            return Ok(vec![false; changes.len()]);
        }
        let set = self.archive.tombstone_set(date);
        set.refresh(self.store.as_ref(), date, self.archive.bits()).await?;
        let holds_deleted = |change: &Change| match change {
            Change::Add(new) => new.uids.iter().any(|uid| self.archive.is_tombstoned(&set, uid.as_str())),
            Change::Condemn(_) | Change::Swap { .. } | Change::Forget(_) => false,
        };
        Ok(changes.iter().map(holds_deleted).collect())
    }

    /// Looks once more that every object is there that the next manifest will list.
    async fn still_there(&self, changes: &[Change], decisions: &[Decision]) -> Result<(), ArchiveError> {
        for (change, _) in changes.iter().zip(decisions).filter(|(_, decision)| decision.is_committed()) {
            for shard in change.added() {
                let meta = self.store.head(&shard.key).await?;
                if meta.len != shard.len {
                    let detail = format!("it has {} bytes and was uploaded with {}", meta.len, shard.len);
                    return Err(ArchiveError::inconsistent(&shard.key, detail));
                }
            }
        }
        Ok(())
    }
}

/// What the manifest will say of a shard, but for its serial.
fn added(shard: &BuiltShard, claim: &Claim) -> ManifestShard {
    ManifestShard {
        bucket: shard.group.bucket.number(),
        split: claim.name.split,
        repack: claim.name.repack,
        key: claim.key.clone(),
        shard: shard.body.shard_id(),
        len: shard.body.object_len(),
        tail_len: shard.body.tail_len(),
        blake3: claim.blake3.to_hex().to_string(),
        entries: shard.body.entries(),
        plain_len: shard.plain_len,
        uid_min: shard.uids.first().and_then(|uid| ManifestShard::bound(uid.as_str())),
        uid_max: shard.uids.last().and_then(|uid| ManifestShard::bound(uid.as_str())),
        serials: Vec::new(),
    }
}

pub(super) fn lost_every_race(date: Date) -> ArchiveError {
    let key = layout::manifest(date);
    ArchiveError::refused(format!("{key} was changed by others in all of {ATTEMPTS_MAX} attempts; try again later"))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
