//! The end of a deletion: when no object of any kind holds a uid, its record shrinks to a hash, which stays for ever.

use std::collections::HashSet;
use std::time::Duration;

use desfmt::document::FoldedTombstones;
use desfmt::legacy::LegacyName;
use desfmt::{Date, Group, ObjectKey, UidHash, layout};

use crate::archive::{ArchiveError, Index};
use crate::deletions::{TombstoneLog, fetch};
use crate::inventory::{Held, Inventory, State};
use crate::object::ShardObject;
use crate::publish::ArchiveWriter;
use crate::rules::{Rule, keeps};

impl ArchiveWriter {
    /// Shrinks the records of a day whose uids no object holds any more. How many did. Where deletions of a group are not
    /// carried out, the index of each of its objects is read.
    pub async fn shrink(&self, date: Date, grace: Duration) -> Result<u64, ArchiveError> {
        let store = self.store.as_ref();
        let log = TombstoneLog::list(store, self.bits(), date).await?;
        let groups: Vec<Group> =
            log.groups.iter().filter(|(_, entries)| entries.has_folded).map(|(group, _)| *group).collect();
        let mut candidates = Vec::new();
        for group in groups {
            let found = fetch::<FoldedTombstones>(store, &layout::folded_tombstones(&group)).await?;
            let hashes: HashSet<UidHash> =
                found.iter().flat_map(|(set, _)| &set.tombstones).map(|one| one.uid_hash).collect();
            if !hashes.is_empty() {
                candidates.push((group, hashes));
            }
        }
        if candidates.is_empty() {
            return Ok(0);
        }
        let inventory = Inventory::take(store, self.bits(), date).await?;
        let mut shrunk = 0_u64;
        for (group, mut hashes) in candidates {
            if keeps(Rule::ShrinkProves) && !self.take_out_held(&inventory, &group, &mut hashes).await? {
                continue;
            }
            if hashes.is_empty() {
                continue;
            }
            // What the ancestor kept beside its shards has no uid: it must be needed by no shard at all.
            if self.identity().is_adopted() && !self.sweep_big_files(grace).await? {
                return Ok(shrunk);
            }
            let count = u64::try_from(hashes.len()).unwrap_or(u64::MAX);
            let written = self
                .change_set(&group, |set, _| {
                    let before = set.tombstones.len();
                    set.tombstones.retain(|one| !hashes.contains(&one.uid_hash));
                    if keeps(Rule::ShrinkLeavesHash) {
                        let known: HashSet<UidHash> = set.erased.iter().copied().collect();
                        set.erased.extend(hashes.iter().filter(|hash| !known.contains(hash)));
                        set.erased.sort_unstable();
                    }
                    set.tombstones.len() != before
                })
                .await?;
            shrunk = shrunk.saturating_add(if written { count } else { 0 });
        }
        Ok(shrunk)
    }

    /// Takes out the hashes of all uids that any object of the group holds. False where that cannot be told.
    async fn take_out_held(
        &self,
        inventory: &Inventory,
        group: &Group,
        hashes: &mut HashSet<UidHash>,
    ) -> Result<bool, ArchiveError> {
        for held in inventory.objects.iter().filter(|held| may_hold(held, *group)) {
            // Gone, but not proven to be gone with all its older versions: else the manifest would have forgotten it.
            let is_unproven = held.state == State::Gone;
            if is_unproven || held.state == State::Foreign {
                return Ok(false);
            }
            match self.take_out(&held.key, hashes).await {
                Ok(()) => {}
                // Unreadable: it may hold anything.
                Err(ArchiveError::Damaged { .. } | ArchiveError::Inconsistent { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
            if hashes.is_empty() {
                return Ok(true);
            }
        }
        Ok(true)
    }

    async fn take_out(&self, key: &ObjectKey, hashes: &mut HashSet<UidHash>) -> Result<(), ArchiveError> {
        let store = self.store.as_ref();
        if layout::is_flat(key) {
            return self.take_out_flat(key, hashes).await;
        }
        let object = ShardObject::open(store, key).await?;
        for page in object.pages() {
            for entry in object.index_page(store, page).await?.entries() {
                hashes.remove(&self.archive().uid_hasher().hash(entry.uid.as_str()));
            }
        }
        Ok(())
    }

    /// The same for a shard of the ancestor that was adopted.
    async fn take_out_flat(&self, key: &ObjectKey, hashes: &mut HashSet<UidHash>) -> Result<(), ArchiveError> {
        let (_, open) = self.archive().open_object(key).await?;
        if let Index::Legacy(shard) = &open.index {
            for entry in shard.index().iter() {
                hashes.remove(&self.archive().uid_hasher().hash(entry.uid));
            }
        }
        Ok(())
    }
}

/// True unless the object is lost or belongs to another group.
fn may_hold(held: &Held, group: Group) -> bool {
    let flat = || LegacyName::parse(held.key.as_str(), group.bits).ok().map(|name| name.group);
    let own = held.name.map(|name| name.group).or_else(flat);
    held.state != State::Missing && own.is_none_or(|own| own == group)
}
