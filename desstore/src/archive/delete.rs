//! Deletion of one file: a tombstone that is durable before anything else happens.

use std::sync::Arc;

use desfmt::document::{self, Tombstone};
use desfmt::{Date, Group, Uid, Uuid, layout};

use crate::archive::Archive;
use crate::archive::error::ArchiveError;
use crate::clock::Randomness;
use crate::error::StoreErrorKind;
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

impl Archive {
    /// Deletes a file: on return its tombstone is durable and it is no longer visible here. On an error of kind
    /// `Unavailable` that is unknown; asking again is safe. One write.
    ///
    /// Cancel safe: a tombstone that was written stays in force, whoever learns of it first.
    pub async fn delete(&self, date: Date, uid: &Uid, deletion: &Deletion) -> Result<Deleted, ArchiveError> {
        if self.is_legacy() {
            let reason = "archives of the ancestor are read only; turn it into a DES archive first".to_owned();
            return Err(ArchiveError::ReadOnly { reason });
        }
        // Held until the deletion is noted: a look at the day that begins meanwhile shares this very set.
        let set = self.tombstone_set(date);
        if self.lookup(date, uid).await?.is_none() {
            return Ok(Deleted::NotFound);
        }
        let group =
            Group::of(date, uid.as_str(), self.bits()).map_err(|error| ArchiveError::refused(error.to_string()))?;
        let tombstone = Tombstone {
            date,
            uid: uid.clone(),
            uid_hash: self.uid_hasher.hash(uid.as_str()),
            operation: self.new_operation(),
            actor: deletion.actor.clone(),
            reason: deletion.reason.clone(),
            ticket: deletion.ticket.clone(),
            at: self.clock.now(),
        };
        let key = layout::tombstone_record(&group, tombstone.operation, tombstone.uid_hash);
        let body = document::encode(&tombstone).map_err(|error| ArchiveError::damaged(&key, error))?;
        match self.store.put_if_absent(&key, Payload::Bytes(body.into())).await {
            Ok(_) => {}
            // The key is ours alone: an earlier attempt below this layer has written it.
            Err(error) if error.kind == StoreErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
        set.extend([tombstone.uid_hash]);
        Ok(Deleted::Now)
    }

    /// A new operation, ordered by time.
    pub(crate) fn new_operation(&self) -> Uuid {
        new_operation(self.clock.now(), self.random.as_ref())
    }

    /// True when a tombstone names the uid.
    pub(crate) fn is_tombstoned(&self, set: &Arc<super::tombstones::TombstoneSet>, uid: &str) -> bool {
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
