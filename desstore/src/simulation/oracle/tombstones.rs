//! Deletions: their union only grows, whatever is folded, removed or shrunk.

use std::collections::HashSet;

use bytes::Bytes;
use desfmt::document::{self, FoldedTombstones, Tombstone, TombstoneBatch};
use desfmt::layout::TombstoneKey;
use desfmt::{ObjectKey, Timestamp, UidHash};

use super::{By, Oracle};
use crate::fold::FOLD_AGE_MIN;

impl Oracle {
    pub(super) fn tombstone_written(
        &mut self,
        key: &ObjectKey,
        tombstone: &TombstoneKey,
        bytes: &Bytes,
        at: Timestamp,
        by: By,
    ) -> Result<(), String> {
        let broken = |error| format!("{key} was written and cannot be read: {error}");
        match tombstone {
            TombstoneKey::Record(_, _, uid) => {
                let record: Tombstone = document::decode(bytes).map_err(broken)?;
                if record.uid_hash != *uid || self.hash(record.uid.as_str()) != *uid {
                    return Err(format!("{key} is not about {}", record.uid));
                }
                self.records.insert(key.clone(), vec![*uid]);
            }
            TombstoneKey::Batch(..) => {
                let batch: TombstoneBatch = document::decode(bytes).map_err(broken)?;
                self.records.insert(key.clone(), batch.tombstones.iter().map(|one| one.uid_hash).collect());
            }
            TombstoneKey::Folded(_) => {
                let next: FoldedTombstones = document::decode(bytes).map_err(broken)?;
                self.folded_written(next, at, by)?;
            }
        }
        self.check_union()
    }

    pub(super) fn tombstone_removed(&mut self, key: &ObjectKey, at: Timestamp) -> Result<(), String> {
        let Some(uids) = self.records.remove(key) else { return Ok(()) };
        self.reached.records_removed += 1;
        self.check_union()?;
        let is_old = |uid: &UidHash| self.folded_since.get(uid).is_some_and(|since| at.since(*since) >= FOLD_AGE_MIN);
        if uids.iter().all(is_old) {
            return Ok(());
        }
        Err(format!(
            "T-2: {key} was removed before the folded set had held it for ten minutes: a listing may miss both"
        ))
    }

    fn folded_written(&mut self, next: FoldedTombstones, at: Timestamp, by: By) -> Result<(), String> {
        let generation = self.folded.as_ref().map_or(0, |set| set.generation);
        if next.generation != generation + 1 {
            return Err(format!("T-2: generation {} of the folded set followed {generation}", next.generation));
        }
        self.reached.folds += 1;
        let was_erased = |uid: &UidHash| self.folded.as_ref().is_some_and(|set| set.erased.contains(uid));
        let erased: HashSet<UidHash> = next.erased.iter().filter(|uid| !was_erased(uid)).copied().collect();
        for (key, held) in self.shards.iter().filter(|(_, held)| held.created < by.job_began) {
            let mut files = held.files.iter().flat_map(|files| files.iter());
            if let Some(file) = files.find(|file| erased.contains(&file.hash)) {
                return Err(format!("R11: {} is called erased, and {key} holds it", file.uid));
            }
        }
        self.reached.erased += u64::try_from(erased.len()).unwrap();
        let held: HashSet<UidHash> =
            next.tombstones.iter().map(|one| one.uid_hash).chain(next.erased.iter().copied()).collect();
        self.folded_since.retain(|uid, _| held.contains(uid));
        for uid in held {
            self.folded_since.entry(uid).or_insert(at);
        }
        self.folded = Some(next);
        Ok(())
    }

    /// The union of records and folded set has lost nothing.
    fn check_union(&mut self) -> Result<(), String> {
        let records = self.records.values().flatten();
        let union: HashSet<UidHash> = records.chain(self.folded_since.keys()).copied().collect();
        if let Some(lost) = self.deleted.iter().find(|uid| !union.contains(*uid)) {
            let uid = self.files.keys().find(|uid| self.hash(uid) == *lost);
            return Err(format!("T-2: the deletion of {uid:?} ({lost}) is lost"));
        }
        self.reached.deletions += u64::try_from(union.len() - self.deleted.len()).unwrap();
        self.deleted = union;
        Ok(())
    }
}
