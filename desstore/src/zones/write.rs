//! Writing. In all of it one thing is kept: what a home zone holds is in the copies, or a debt says that it is not.
//!
//! Shards and the identity are created in their home first, which decides who has the key; then in the copies, and where that
//! fails a debt is left before the caller learns of its success. A document that is replaced gets its debts first, as an
//! intent, so that no moment is left in which the home is ahead unnoticed. A record that is written once goes to the copies
//! first and to its home last.

use std::collections::HashSet;
use std::sync::{MutexGuard, PoisonError};

use bytes::Bytes;
use desfmt::document::{
    self, DOCUMENT_LEN_MAX, DebtTask, FoldedTombstones, Identity as IdentityDocument, Manifest, ZoneDebt,
};
use desfmt::layout::{self, DebtScope};
use desfmt::{Date, FormatError, ObjectKey};
use futures_util::future::join_all;

use super::{Class, Identity, Zone, ZoneStore, tag, untag};
use crate::archive::new_operation;
use crate::error::{StoreError, StoreErrorKind};
use crate::stack::{part_of, payload_bytes};
use crate::store::{ETag, Payload, Receipt};

/// Under which condition an object is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Condition<'a> {
    Absent,
    Match(&'a ETag),
    None,
}

/// How often the copy of a document is written again because somebody else has written it meanwhile.
const COPY_ATTEMPTS_MAX: u32 = 5;

/// How many bytes at the end of a shard tell whether it is the same one: they hold the digest of all the rest.
const TAIL_BYTES: u64 = 4 << 10;

impl ZoneStore {
    pub(super) async fn write(
        &self,
        key: &ObjectKey,
        payload: Payload,
        condition: Condition<'_>,
    ) -> Result<Receipt, StoreError> {
        let home = self.home();
        match self.class(key.as_str()) {
            Class::Shard(zones) => {
                let (home, copies) = zones.split_first().ok_or_else(|| Self::no_zone("put", key.as_str()))?;
                self.create_everywhere(key, payload, condition, (*home, copies)).await
            }
            Class::Identity => {
                let bytes = content(key, payload).await?;
                self.check_bits(key, &bytes)?;
                let receipt = self.found(key, bytes.clone(), condition).await?;
                self.learn_identity(&bytes);
                Ok(receipt)
            }
            Class::Replaced(date) => self.replace(key, date, content(key, payload).await?, condition).await,
            Class::Once(date) => self.write_once(key, date, content(key, payload).await?, condition).await,
            Class::Home => self.put_in(home, key, payload, condition).await,
            Class::Flat(_) | Class::Anywhere => Err(StoreError::new(StoreErrorKind::Unsupported, "put", key)),
        }
    }

    /// Writes the identity. Nobody creates it a second time, so its debts are left before it is there.
    async fn found(&self, key: &ObjectKey, bytes: Bytes, condition: Condition<'_>) -> Result<Receipt, StoreError> {
        let copies: Vec<usize> = self.copies().collect();
        let mut intents = Vec::new();
        for zone in &copies {
            intents.push(self.owe(*zone, DebtScope::Identity, (key, DebtTask::Copy), None).await?);
        }
        let payload = Payload::Bytes(bytes);
        let outcome = self.create_everywhere(key, payload, condition, (self.home(), &copies)).await;
        if outcome.as_ref().err().is_none_or(|error| !error.kind.is_transient()) {
            for intent in &intents {
                self.settle(intent).await;
            }
        }
        outcome
    }

    /// Writes into one zone.
    async fn put_in(
        &self,
        zone: usize,
        key: &ObjectKey,
        payload: Payload,
        condition: Condition<'_>,
    ) -> Result<Receipt, StoreError> {
        let store = self.store(zone).ok_or_else(|| Self::no_zone("put", key.as_str()))?;
        let receipt = match condition {
            Condition::Absent => store.put_if_absent(key, payload).await,
            Condition::Match(etag) => match untag(zone, etag) {
                Some(etag) => store.put_if_match(key, &etag, payload).await,
                // A version that was read in another zone is not the one that is to be replaced here.
                None => Err(StoreError::new(StoreErrorKind::PreconditionFailed, "put_if_match", key)),
            },
            Condition::None => store.put(key, payload).await,
        }?;
        Ok(Receipt { etag: tag(zone, &receipt.etag), at: receipt.at })
    }

    /// Creates what never changes: at home, then in the copies. Where it is at home already, and the same, the copies are
    /// still seen to, so that whoever adopts an object creates it once more.
    async fn create_everywhere(
        &self,
        key: &ObjectKey,
        payload: Payload,
        condition: Condition<'_>,
        (home, copies): (usize, &[usize]),
    ) -> Result<Receipt, StoreError> {
        let outcome = self.put_in(home, key, payload.clone(), condition).await;
        let is_there = match &outcome {
            Ok(_) => true,
            Err(error) if error.kind == StoreErrorKind::AlreadyExists => self.is_same(home, key, &payload).await?,
            Err(error) => {
                if error.kind.is_transient() {
                    // It may be there, and be found and published without another write.
                    self.unsettled().insert(key.clone());
                }
                false
            }
        };
        if is_there {
            let scope = self.debt_scope(key.as_str());
            let written = join_all(copies.iter().map(|zone| self.create_copy(*zone, key, &payload))).await;
            for (zone, written) in copies.iter().zip(written) {
                if let Err(error) = written {
                    tracing::warn!(zone = self.name(*zone), %key, %error, "the zone is owed an object");
                    self.leave_debt(*zone, scope, key, DebtTask::Copy).await?;
                }
            }
            self.unsettled().remove(key);
        }
        outcome
    }

    fn unsettled(&self) -> MutexGuard<'_, HashSet<ObjectKey>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves debts for the shards that a manifest is about to list and whose copies nobody has seen to.
    async fn settle_listed(&self, bytes: &Bytes) -> Result<(), StoreError> {
        let unsettled: Vec<ObjectKey> = self.unsettled().iter().cloned().collect();
        if unsettled.is_empty() {
            return Ok(());
        }
        let Ok(manifest) = document::decode::<Manifest>(bytes) else { return Ok(()) };
        for key in unsettled {
            let Class::Shard([_, copies @ ..]) = self.class(key.as_str()) else { continue };
            if manifest.shards.iter().any(|shard| shard.key == key) {
                for zone in copies {
                    self.leave_debt(*zone, DebtScope::Shards, &key, DebtTask::Copy).await?;
                }
                self.unsettled().remove(&key);
            }
        }
        Ok(())
    }

    async fn create_copy(&self, zone: usize, key: &ObjectKey, payload: &Payload) -> Result<(), StoreError> {
        match self.put_in(zone, key, payload.clone(), Condition::Absent).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind == StoreErrorKind::AlreadyExists => {
                if self.is_same(zone, key, payload).await? {
                    Ok(())
                } else {
                    Err(error)
                }
            }
            Err(error) => Err(error),
        }
    }

    /// True when the object in a zone has the length and the end of a payload.
    pub(super) async fn is_same(&self, zone: usize, key: &ObjectKey, payload: &Payload) -> Result<bool, StoreError> {
        let store = self.store(zone).ok_or_else(|| Self::no_zone("get_tail", key.as_str()))?;
        let len = payload_bytes(payload);
        let found = store.get_tail(key, TAIL_BYTES).await?;
        if found.meta.len != len {
            return Ok(false);
        }
        let own = part_of(payload, len.saturating_sub(TAIL_BYTES)..len).await;
        Ok(found.bytes == own.map_err(|cause| unreadable(key, cause))?)
    }

    /// Replaces a document: intents, home, copies, and the intents go where the copies are done.
    async fn replace(
        &self,
        key: &ObjectKey,
        date: Date,
        bytes: Bytes,
        condition: Condition<'_>,
    ) -> Result<Receipt, StoreError> {
        let generation = generation(key, &bytes).map_err(|cause| damaged(key, cause))?;
        self.settle_listed(&bytes).await?;
        let mut intents = Vec::new();
        for zone in self.copies() {
            let intent = self.owe(zone, DebtScope::Day(date), (key, DebtTask::Copy), Some(generation)).await?;
            intents.push((zone, intent));
        }
        let outcome = self.put_in(self.home(), key, Payload::Bytes(bytes.clone()), condition).await;
        match &outcome {
            Ok(_) => {
                for (zone, intent) in intents {
                    match self.copy_document(zone, key, &bytes, generation).await {
                        Ok(()) => self.settle(&intent).await,
                        Err(error) => {
                            tracing::warn!(zone = self.name(zone), %key, %error, "the zone is owed a document");
                            self.trust.note(zone, DebtScope::Day(date));
                        }
                    }
                }
            }
            // Certainly not done.
            Err(error) if !error.kind.is_transient() => {
                for (_, intent) in intents {
                    self.settle(&intent).await;
                }
            }
            // Who knows; a debt that is none is found out when it is paid.
            Err(_) => {}
        }
        outcome
    }

    /// Brings the copy of a document to a generation, unless it is further.
    pub(super) async fn copy_document(
        &self,
        zone: usize,
        key: &ObjectKey,
        bytes: &Bytes,
        own: u64,
    ) -> Result<(), StoreError> {
        let store = self.store(zone).ok_or_else(|| Self::no_zone("put", key.as_str()))?;
        let mut last = Self::no_zone("put", key.as_str());
        for _ in 0..COPY_ATTEMPTS_MAX {
            let payload = Payload::Bytes(bytes.clone());
            let written = match store.get(key, DOCUMENT_LEN_MAX).await {
                // One that cannot be understood is no good as a copy.
                Ok(found) if generation(key, &found.bytes).is_ok_and(|there| there >= own) => return Ok(()),
                Ok(found) => store.put_if_match(key, &found.meta.etag, payload).await,
                Err(error) if error.kind == StoreErrorKind::NotFound => store.put_if_absent(key, payload).await,
                Err(error) => return Err(error),
            };
            match written {
                Ok(_) => return Ok(()),
                Err(error)
                    if matches!(error.kind, StoreErrorKind::AlreadyExists | StoreErrorKind::PreconditionFailed) =>
                {
                    last = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Writes a record once: into the copies, then at home.
    async fn write_once(
        &self,
        key: &ObjectKey,
        date: Date,
        bytes: Bytes,
        condition: Condition<'_>,
    ) -> Result<Receipt, StoreError> {
        for zone in self.copies() {
            let copy = self.put_in(zone, key, Payload::Bytes(bytes.clone()), Condition::None);
            if let Err(error) = self.within(self.settings.copy_max, "put", key.as_str(), copy).await {
                tracing::warn!(zone = self.name(zone), %key, %error, "the zone is owed a deletion");
                self.leave_debt(zone, DebtScope::Day(date), key, DebtTask::Copy).await?;
            }
        }
        self.put_in(self.home(), key, Payload::Bytes(bytes), condition).await
    }

    /// Removes an object: in the copies, then at home, so that who finds it gone at home finds it nowhere.
    pub(super) async fn remove(&self, key: &ObjectKey, with_versions: bool) -> Result<(), StoreError> {
        let all: Vec<usize>;
        let (home, copies) = match self.class(key.as_str()) {
            Class::Shard(zones) => {
                let (home, copies) = zones.split_first().ok_or_else(|| Self::no_zone("delete", key.as_str()))?;
                (*home, copies)
            }
            Class::Identity | Class::Replaced(_) | Class::Once(_) => {
                all = self.copies().collect();
                (self.home(), all.as_slice())
            }
            Class::Home => (self.home(), [].as_slice()),
            Class::Flat(_) | Class::Anywhere => {
                return Err(StoreError::new(StoreErrorKind::Unsupported, "delete", key));
            }
        };
        for zone in copies {
            if let Err(error) = self.remove_in(*zone, key, with_versions).await {
                tracing::warn!(zone = self.name(*zone), %key, %error, "the zone still holds what was removed");
                self.leave_debt(*zone, self.debt_scope(key.as_str()), key, DebtTask::Remove).await?;
            }
        }
        self.remove_in(home, key, with_versions).await
    }

    pub(super) async fn remove_in(&self, zone: usize, key: &ObjectKey, with_versions: bool) -> Result<(), StoreError> {
        let store = self.store(zone).ok_or_else(|| Self::no_zone("delete", key.as_str()))?;
        if with_versions { store.purge(key).await } else { store.delete(key).await }
    }

    fn debt_scope(&self, key: &str) -> DebtScope {
        match self.class(key) {
            Class::Replaced(date) | Class::Once(date) => DebtScope::Day(date),
            Class::Identity => DebtScope::Identity,
            Class::Shard(_) | Class::Flat(_) | Class::Anywhere | Class::Home => DebtScope::Shards,
        }
    }

    /// Leaves a debt that is one, and does not trust the copy from now on.
    async fn leave_debt(
        &self,
        zone: usize,
        scope: DebtScope,
        key: &ObjectKey,
        task: DebtTask,
    ) -> Result<(), StoreError> {
        self.trust.note(zone, scope);
        self.owe(zone, scope, (key, task), None).await.map(drop)
    }

    /// Leaves a debt, in the home of the documents; for a document that is replaced with the generation it gets. Its key.
    pub(super) async fn owe(
        &self,
        zone: usize,
        scope: DebtScope,
        (key, task): (&ObjectKey, DebtTask),
        generation: Option<u64>,
    ) -> Result<ObjectKey, StoreError> {
        let Some(Zone { name, .. }) = self.zones.get(zone) else { return Err(Self::no_zone("put", key.as_str())) };
        let operation = new_operation(self.clock.now(), self.random.as_ref());
        let debt_key = layout::debt(name, scope, operation);
        let debt = ZoneDebt { zone: name.clone(), key: key.clone(), task, generation, at: self.clock.now() };
        let body = document::encode(&debt).map_err(|cause| damaged(key, cause))?;
        self.put_in(self.home(), &debt_key, Payload::Bytes(body.into()), Condition::None).await?;
        Ok(debt_key)
    }

    /// Takes a debt away. One that stays is found to be none when it is paid.
    async fn settle(&self, debt: &ObjectKey) {
        if let Err(error) = self.remove_in(self.home(), debt, false).await {
            tracing::debug!(%debt, %error, "a debt that is none stays");
        }
    }

    pub(super) fn learn_identity(&self, bytes: &Bytes) {
        if let Ok(identity) = document::decode::<IdentityDocument>(bytes) {
            // Whoever was first has said the same.
            drop(self.identity.set(Identity { bits: identity.bits(), bytes: bytes.clone() }));
        }
    }

    /// The ranges may have been written for another number of buckets.
    fn check_bits(&self, key: &ObjectKey, bytes: &Bytes) -> Result<(), StoreError> {
        let identity: IdentityDocument = document::decode(bytes).map_err(|cause| damaged(key, cause))?;
        match self.map.bits() {
            Some(bits) if bits != identity.bits() => {
                let cause = super::ZoneError::OtherBits { configured: bits.get(), found: identity.bits().get() };
                Err(StoreError::new(StoreErrorKind::Unsupported, "put_if_absent", key).caused_by(cause))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// The number of a document's version.
pub(super) fn generation(key: &ObjectKey, bytes: &[u8]) -> Result<u64, FormatError> {
    if layout::parse_manifest(key.as_str()).is_some() {
        document::decode::<Manifest>(bytes).map(|manifest| manifest.generation)
    } else {
        document::decode::<FoldedTombstones>(bytes).map(|folded| folded.generation)
    }
}

async fn content(key: &ObjectKey, payload: Payload) -> Result<Bytes, StoreError> {
    let len = payload_bytes(&payload);
    part_of(&payload, 0..len).await.map_err(|cause| unreadable(key, cause))
}

fn unreadable(key: &ObjectKey, cause: std::io::Error) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "put", key).caused_by(cause)
}

fn damaged(key: &ObjectKey, cause: FormatError) -> StoreError {
    StoreError::new(StoreErrorKind::Unsupported, "put", key).caused_by(cause)
}
