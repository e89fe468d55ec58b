//! What zones are owed, and paying it.
//!
//! A debt is paid by bringing the zone to what the home holds now, whatever the debt was made for. It is done with when the
//! write that it was left for is seen at home, or can not come any more. Until then it may be the intent of a writer that
//! is about to commit, and stays.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use desfmt::document::{self, DOCUMENT_LEN_MAX, DebtTask, Manifest, ManifestShard, ZoneDebt};
use desfmt::{ObjectKey, Timestamp, layout};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::write::generation;
use super::{Class, ZoneStore};
use crate::archive::ArchiveError;
use crate::error::{StoreError, StoreErrorKind};
use crate::store::{Depth, ObjectMeta, ObjectStore, Payload, list_all};

/// Something that a zone is owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debt {
    /// The zone.
    pub zone: String,
    /// The object.
    pub key: ObjectKey,
    /// What is to be done.
    pub task: DebtTask,
    /// Since when, by the clock of the home zone.
    pub since: Timestamp,
    /// The version of a replaced document that the zone was to get.
    generation: Option<u64>,
    /// Where it is recorded.
    record: ObjectKey,
}

/// What paying came to.
#[derive(Debug, Clone, Default)]
pub struct Paid {
    /// Debts that are no more.
    pub paid: u64,
    /// Debts that stay, since what they were left for is not there yet: a writer may be at it.
    pub young: u64,
    /// Debts that could not be paid, and why.
    pub failed: Vec<(Debt, StoreError)>,
}

/// What is known of the write that a debt was left for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// It is there, or never will be.
    Settled,
    /// It is not there: it comes soon or never.
    Open,
    /// It has to be decided by somebody what becomes of it.
    Undecided,
}

/// So old is no intent of a writer that is still at it.
pub(super) const YOUNG: Duration = Duration::from_mins(10);

/// More are not listed at once; pay some, then list again.
const DEBTS_LISTED_MAX: usize = 1_000_000;

/// How many debts are read, and how many are paid, at the same time.
const AT_ONCE: usize = 8;

/// How much of a shard is copied at a time.
const COPIED_BYTES: u64 = 8 << 20;

/// Lists all debts, oldest first. One listing, and a request for each debt.
pub async fn debts(store: &ZoneStore) -> Result<Vec<Debt>, ArchiveError> {
    let Some(home) = store.store(store.home()) else { return Ok(Vec::new()) };
    let listed = list_all(home.as_ref(), layout::DEBTS, Depth::Recursive, DEBTS_LISTED_MAX).await?;
    let read = stream::iter(listed).map(|object| read_debt(home.as_ref(), object)).buffer_unordered(AT_ONCE);
    let mut found: Vec<Debt> = read.try_filter_map(async |debt| Ok(debt)).try_collect().await?;
    found.sort_by(|a, b| (a.since, &a.record).cmp(&(b.since, &b.record)));
    Ok(found)
}

/// A debt that was listed; none where it has been paid meanwhile.
async fn read_debt(home: &dyn ObjectStore, object: ObjectMeta) -> Result<Option<Debt>, ArchiveError> {
    if layout::parse_debt(object.key.as_str()).is_none() {
        let detail = "this is no debt of a zone; nothing else may lie here, move it away";
        return Err(ArchiveError::inconsistent(&object.key, detail));
    }
    let fetched = match home.get(&object.key, DOCUMENT_LEN_MAX).await {
        Ok(fetched) => fetched,
        Err(error) if error.kind == StoreErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let ZoneDebt { zone, key, task, generation, at: _ } =
        document::decode(&fetched.bytes).map_err(|error| ArchiveError::damaged(&object.key, error))?;
    Ok(Some(Debt { zone, key, task, since: object.modified, generation, record: object.key }))
}

/// Pays the debts of all zones that are there. Shards on their way are kept in files in `spool`. May be cancelled and
/// repeated at any time, and be done by several at once.
pub async fn pay(store: &ZoneStore, spool: &Path) -> Result<Paid, ArchiveError> {
    let all = debts(store).await?;
    if all.is_empty() {
        return Ok(Paid::default());
    }
    let now = store.time().await?;
    // Whoever did not answer once is not asked again for each debt.
    let away: Mutex<HashSet<String>> = Mutex::default();
    let away = || away.lock().unwrap_or_else(PoisonError::into_inner);
    let paying = stream::iter(all).map(async |debt| {
        if away().contains(&debt.zone) {
            let error = StoreError::new(StoreErrorKind::Unavailable, "pay", &debt.key);
            return (debt, Err(error));
        }
        let outcome = store.settle_debt(&debt, now.since(debt.since) < YOUNG, spool).await;
        if outcome.as_ref().is_err_and(|error| error.kind.is_transient()) {
            away().insert(debt.zone.clone());
        }
        (debt, outcome)
    });
    let mut paying = paying.buffer_unordered(AT_ONCE);
    let mut paid = Paid::default();
    while let Some((debt, outcome)) = paying.next().await {
        match outcome {
            Ok(true) => paid.paid = paid.paid.saturating_add(1),
            Ok(false) => paid.young = paid.young.saturating_add(1),
            Err(error) => {
                tracing::debug!(zone = debt.zone, key = %debt.key, %error, "a debt is not paid");
                paid.failed.push((debt, error));
            }
        }
    }
    store.ask_debts().await;
    Ok(paid)
}

impl ZoneStore {
    /// Pays a debt and takes its record away; false where it has to wait.
    async fn settle_debt(&self, debt: &Debt, is_young: bool, spool: &Path) -> Result<bool, StoreError> {
        let is_done = match self.pay_debt(debt, spool).await? {
            Cause::Settled => true,
            Cause::Open => !is_young,
            Cause::Undecided => false,
        };
        if is_done {
            self.remove_in(self.home(), &debt.record, false).await?;
        }
        Ok(is_done)
    }

    /// Brings the zone to what the home holds.
    async fn pay_debt(&self, debt: &Debt, spool: &Path) -> Result<Cause, StoreError> {
        let Some(zone) = self.zones.iter().position(|zone| zone.name == debt.zone) else {
            // The zone was given up; nobody reads there.
            return Ok(Cause::Settled);
        };
        match (self.class(debt.key.as_str()), debt.task) {
            (Class::Shard(zones), task) => {
                let home = zones.first().copied().unwrap_or_else(|| self.home());
                match task {
                    DebtTask::Copy => self.pay_shard((home, zone), &debt.key, spool).await,
                    DebtTask::Remove => self.pay_removal((home, zone), &debt.key).await,
                }
            }
            (Class::Replaced(_), DebtTask::Copy) => {
                let Some(bytes) = self.get_at(self.home(), &debt.key).await? else { return Ok(Cause::Open) };
                let own = generation(&debt.key, &bytes)
                    .map_err(|cause| StoreError::new(StoreErrorKind::Corrupt, "pay", &debt.key).caused_by(cause))?;
                self.copy_document(zone, &debt.key, &bytes, own).await?;
                // The write that it was left for replaces the generation before, or it fails.
                let is_there = debt.generation.is_some_and(|awaited| awaited <= own);
                Ok(if is_there { Cause::Settled } else { Cause::Open })
            }
            (Class::Once(_) | Class::Identity, DebtTask::Copy) => {
                let Some(bytes) = self.get_at(self.home(), &debt.key).await? else { return Ok(Cause::Open) };
                self.create_as_at((self.home(), zone), &debt.key, Payload::Bytes(bytes)).await?;
                Ok(Cause::Settled)
            }
            (Class::Replaced(_) | Class::Once(_) | Class::Identity, DebtTask::Remove) => {
                self.pay_removal((self.home(), zone), &debt.key).await
            }
            (Class::Flat(_) | Class::Anywhere | Class::Home, _) => {
                Err(StoreError::new(StoreErrorKind::Unsupported, "pay", &debt.key))
            }
        }
    }

    /// Reads a document in a zone; none where there is none.
    pub(super) async fn get_at(&self, zone: usize, key: &ObjectKey) -> Result<Option<Bytes>, StoreError> {
        let Some(store) = self.store(zone) else { return Ok(None) };
        match store.get(key, DOCUMENT_LEN_MAX).await {
            Ok(fetched) => Ok(Some(fetched.bytes)),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes in a zone what is gone at home. What is there still, whoever wanted it removed has not got that far.
    async fn pay_removal(&self, (home, zone): (usize, usize), key: &ObjectKey) -> Result<Cause, StoreError> {
        if !self.is_gone(home, key).await? {
            return Ok(Cause::Open);
        }
        self.remove_in(zone, key, true).await?;
        Ok(Cause::Settled)
    }

    async fn is_gone(&self, zone: usize, key: &ObjectKey) -> Result<bool, StoreError> {
        let store = self.store(zone).ok_or_else(|| Self::no_zone("head", key.as_str()))?;
        match store.head(key).await {
            Ok(_) => Ok(false),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Copies a shard that a manifest lists, proven by what the manifest says of it. One that is not listed nobody reads yet.
    async fn pay_shard(
        &self,
        (home, zone): (usize, usize),
        key: &ObjectKey,
        spool: &Path,
    ) -> Result<Cause, StoreError> {
        let manifest = self.manifest_of(key).await?;
        if manifest.as_ref().is_some_and(|manifest| manifest.is_terminal(key)) {
            return Ok(Cause::Settled);
        }
        let mut live = manifest.map(|manifest| manifest.shards).unwrap_or_default();
        live.retain(|shard| shard.key == *key);
        let Some(listed) = live.first() else {
            return Ok(if self.is_gone(home, key).await? { Cause::Open } else { Cause::Undecided });
        };
        let source = self.store(home).ok_or_else(|| Self::no_zone("pay", key.as_str()))?;
        // Somebody else may be at the same debt.
        let file = spool.join(format!("debt-{:016x}", self.random.next()));
        let copied = async {
            download(source.as_ref(), listed, &file).await?;
            self.create_as_at((home, zone), key, Payload::File(file.clone())).await
        };
        let outcome = copied.await;
        // What is left of it does no harm.
        drop(tokio::fs::remove_file(&file).await);
        outcome.map(|()| Cause::Settled)
    }

    /// The manifest that decides about a shard, as it is at home.
    async fn manifest_of(&self, key: &ObjectKey) -> Result<Option<Manifest>, StoreError> {
        let name = self.identity.get().and_then(|identity| layout::parse_shard(key.as_str(), identity.bits));
        let Some(name) = name else { return Ok(None) };
        let manifest = layout::manifest(name.group.date);
        let Some(bytes) = self.get_at(self.home(), &manifest).await? else { return Ok(None) };
        let damaged = |cause| StoreError::new(StoreErrorKind::Corrupt, "pay", &manifest).caused_by(cause);
        document::decode(&bytes).map(Some).map_err(damaged)
    }

    /// Creates in a zone what another holds, never over something else, and takes it back where it was removed there
    /// meanwhile.
    async fn create_as_at(
        &self,
        (home, zone): (usize, usize),
        key: &ObjectKey,
        payload: Payload,
    ) -> Result<(), StoreError> {
        let store = self.store(zone).ok_or_else(|| Self::no_zone("pay", key.as_str()))?;
        if let Err(error) = store.put_if_absent(key, payload.clone()).await {
            let is_there = error.kind == StoreErrorKind::AlreadyExists && self.is_same(zone, key, &payload).await?;
            return if is_there { Ok(()) } else { Err(error) };
        }
        if self.is_gone(home, key).await? { self.remove_in(zone, key, true).await } else { Ok(()) }
    }
}

/// Fetches a shard into a file. What is not what the manifest lists is `Corrupt`.
async fn download(source: &dyn ObjectStore, listed: &ManifestShard, file: &Path) -> Result<(), StoreError> {
    use tokio::io::AsyncWriteExt;

    let key = &listed.key;
    let spoiled = |cause| StoreError::new(StoreErrorKind::Full, "spool", key).caused_by(cause);
    let version = source.head(key).await?.etag;
    let mut out = tokio::fs::File::create(file).await.map_err(spoiled)?;
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    while at < listed.len {
        let end = at.saturating_add(COPIED_BYTES).min(listed.len);
        let part = source.get_range(key, at..end, Some(&version)).await?;
        hasher.update(&part);
        out.write_all(&part).await.map_err(spoiled)?;
        at = end;
    }
    out.flush().await.map_err(spoiled)?;
    if hasher.finalize().to_hex().as_str() == listed.blake3 {
        Ok(())
    } else {
        Err(StoreError::new(StoreErrorKind::Corrupt, "copy", key))
    }
}
