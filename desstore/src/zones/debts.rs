//! What zones are owed, and paying it.
//!
//! A debt is paid by bringing the zone to what the home holds now, whatever the debt was made for. A young one may be the
//! intent of a writer that is about to commit; it is left alone.

use std::path::Path;
use std::time::Duration;

use desfmt::document::{self, DOCUMENT_LEN_MAX, DebtTask, ZoneDebt};
use desfmt::{ObjectKey, Timestamp, layout};

use super::write::generation;
use super::{Class, ZoneStore};
use crate::archive::ArchiveError;
use crate::error::{StoreError, StoreErrorKind};
use crate::store::{Depth, ETag, ObjectStore, Payload, list_all};

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
    /// Where it is recorded.
    record: ObjectKey,
}

/// What paying came to.
#[derive(Debug, Clone, Default)]
pub struct Paid {
    /// Debts that are no more.
    pub paid: u64,
    /// Debts that were left alone since they are young: a writer may be at it.
    pub young: u64,
    /// Debts that could not be paid, and why.
    pub failed: Vec<(Debt, StoreError)>,
}

/// So old is no intent of a writer that is still at it.
const YOUNG: Duration = Duration::from_mins(10);

/// More are not listed at once; pay some, then list again.
const DEBTS_LISTED_MAX: usize = 1_000_000;

/// How much of a shard is copied at a time.
const COPIED_BYTES: u64 = 8 << 20;

/// Lists all debts, oldest first. One listing, and a request for each debt.
pub async fn debts(store: &ZoneStore) -> Result<Vec<Debt>, ArchiveError> {
    let Some(home) = store.store(store.home()) else { return Ok(Vec::new()) };
    let listed = list_all(home.as_ref(), layout::DEBTS, Depth::Recursive, DEBTS_LISTED_MAX).await?;
    let mut found = Vec::new();
    for object in listed {
        if layout::parse_debt(object.key.as_str()).is_none() {
            let detail = "this is no debt of a zone; nothing else may lie here, move it away";
            return Err(ArchiveError::inconsistent(&object.key, detail));
        }
        let fetched = match home.get(&object.key, DOCUMENT_LEN_MAX).await {
            Ok(fetched) => fetched,
            // Paid meanwhile.
            Err(error) if error.kind == StoreErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        let ZoneDebt { zone, key, task, .. } =
            document::decode(&fetched.bytes).map_err(|error| ArchiveError::damaged(&object.key, error))?;
        found.push(Debt { zone, key, task, since: object.modified, record: object.key });
    }
    found.sort_by_key(|debt| debt.since);
    Ok(found)
}

/// Pays the debts of all zones that are there. Shards on their way are kept in a file in `spool`. May be cancelled and
/// repeated at any time.
pub async fn pay(store: &ZoneStore, spool: &Path) -> Result<Paid, ArchiveError> {
    let all = debts(store).await?;
    let now = store.time().await?;
    let mut paid = Paid::default();
    for debt in all {
        if now.since(debt.since) < YOUNG {
            paid.young = paid.young.saturating_add(1);
            continue;
        }
        match store.pay_one(&debt, spool).await {
            Ok(()) => {
                store.remove_in(store.home(), &debt.record, false).await?;
                paid.paid = paid.paid.saturating_add(1);
            }
            Err(error) => {
                tracing::warn!(zone = debt.zone, key = %debt.key, %error, "a debt is not paid");
                paid.failed.push((debt, error));
            }
        }
    }
    store.ask_debts().await;
    Ok(paid)
}

impl ZoneStore {
    async fn pay_one(&self, debt: &Debt, spool: &Path) -> Result<(), StoreError> {
        let Some(zone) = self.zones.iter().position(|zone| zone.name == debt.zone) else {
            // The zone was given up; nobody reads there.
            return Ok(());
        };
        match (self.class(debt.key.as_str()), debt.task) {
            (Class::Shard(zones), task) => {
                let home = zones.first().copied().unwrap_or_else(|| self.home());
                self.pay_object(zone, home, &debt.key, task, spool).await
            }
            (Class::Replaced(_), DebtTask::Copy) => {
                let Some(bytes) = self.get_at(self.home(), &debt.key).await? else { return Ok(()) };
                let own = generation(&debt.key, &bytes)
                    .map_err(|cause| StoreError::new(StoreErrorKind::Corrupt, "pay", &debt.key).caused_by(cause))?;
                self.copy_document(zone, &debt.key, &bytes, own).await
            }
            (Class::Once(_) | Class::Identity, DebtTask::Copy) => {
                let Some(bytes) = self.get_at(self.home(), &debt.key).await? else { return Ok(()) };
                match self.store(zone) {
                    Some(store) => store.put(&debt.key, Payload::Bytes(bytes)).await.map(drop),
                    None => Ok(()),
                }
            }
            (Class::Replaced(_) | Class::Once(_) | Class::Identity, DebtTask::Remove) => {
                self.pay_object(zone, self.home(), &debt.key, DebtTask::Remove, spool).await
            }
            (Class::Flat(_) | Class::Anywhere | Class::Home, _) => {
                Err(StoreError::new(StoreErrorKind::Unsupported, "pay", &debt.key))
            }
        }
    }

    async fn get_at(&self, zone: usize, key: &ObjectKey) -> Result<Option<bytes::Bytes>, StoreError> {
        let Some(store) = self.store(zone) else { return Ok(None) };
        match store.get(key, DOCUMENT_LEN_MAX).await {
            Ok(fetched) => Ok(Some(fetched.bytes)),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Brings a zone to what the home of a shard holds. What is not there at home is removed only where a debt says that it
    /// was to be removed: else the zone may hold the last copy of something lost.
    async fn pay_object(
        &self,
        zone: usize,
        home: usize,
        key: &ObjectKey,
        task: DebtTask,
        spool: &Path,
    ) -> Result<(), StoreError> {
        let Some(source) = self.store(home) else { return Ok(()) };
        let meta = match (source.head(key).await, task) {
            (Ok(meta), DebtTask::Copy) => meta,
            // Whoever wanted it removed has not got that far, and will be back.
            (Ok(_), DebtTask::Remove) => return Ok(()),
            (Err(error), DebtTask::Remove) if error.kind == StoreErrorKind::NotFound => {
                return self.remove_in(zone, key, true).await;
            }
            // Removed since.
            (Err(error), DebtTask::Copy) if error.kind == StoreErrorKind::NotFound => return Ok(()),
            (Err(error), _) => return Err(error),
        };
        let file = spool.join(format!("debt-{}-{}", self.name(zone), key.as_str().replace('/', "_")));
        let copied = async {
            download(source.as_ref(), key, (meta.len, &meta.etag), &file).await?;
            let payload = Payload::File(file.clone());
            let Some(store) = self.store(zone) else { return Ok(()) };
            match store.put_if_absent(key, payload.clone()).await {
                Err(error) if error.kind == StoreErrorKind::AlreadyExists => {
                    if self.is_same(zone, key, &payload).await? { Ok(()) } else { Err(error) }
                }
                outcome => outcome.map(drop),
            }
        };
        let outcome = copied.await;
        // What is left of it does no harm.
        drop(tokio::fs::remove_file(&file).await);
        outcome
    }
}

async fn download(
    source: &dyn ObjectStore,
    key: &ObjectKey,
    (len, etag): (u64, &ETag),
    file: &Path,
) -> Result<(), StoreError> {
    use tokio::io::AsyncWriteExt;

    let spoiled = |cause| StoreError::new(StoreErrorKind::Full, "spool", key).caused_by(cause);
    let mut out = tokio::fs::File::create(file).await.map_err(spoiled)?;
    let mut at = 0;
    while at < len {
        let end = at.saturating_add(COPIED_BYTES).min(len);
        let part = source.get_range(key, at..end, Some(etag)).await?;
        out.write_all(&part).await.map_err(spoiled)?;
        at = end;
    }
    out.flush().await.map_err(spoiled)
}
