//! From a finished file to a live shard: a name that was never used, reading back, and one commit.

use desfmt::document::{CondemnedObject, Manifest, ManifestShard};
use desfmt::{Date, Group, ShardName, layout};

use crate::archive::ArchiveError;
use crate::inventory::ReadManifest;
use crate::publish::upload::{Claim, Finished};
use crate::publish::{ArchiveWriter, Swapped};
use crate::repack::rebuild::RebuiltShard;
use crate::repack::source::Pace;
use crate::repack::{Done, RepackSettings, Repacked, identities};
use crate::rules::{Rule, keeps};
use crate::store::{Depth, ObjectMeta, list_all};

/// How often a name, or a commit that others come before, is tried.
const ATTEMPTS_MAX: u32 = 12;

/// How many objects of a split are looked at.
const SPLIT_OBJECTS_MAX: usize = 1_000_000;

impl ArchiveWriter {
    /// Commits that nothing of some shards is left.
    pub(super) async fn install_nothing(
        &self,
        date: Date,
        old: &[ManifestShard],
        done: Done,
    ) -> Result<Repacked, ArchiveError> {
        Ok(match self.swap(date, identities(old), Vec::new()).await? {
            Swapped::Done => Repacked::Dropped(done),
            Swapped::Stale | Swapped::Taken => Repacked::Overtaken,
        })
    }

    /// Uploads a rebuilt shard, reads it back and swaps it in.
    pub(super) async fn install(
        &self,
        date: Date,
        old: &[ManifestShard],
        rebuilt: RebuiltShard,
        done: Done,
        settings: &RepackSettings,
    ) -> Result<Repacked, ArchiveError> {
        let finished = Finished { file: rebuilt.file.path(), body: &rebuilt.body };
        let mut pace = Pace::new(settings.rate, self.clock.as_ref());
        let len = rebuilt.body.object_len();
        let done = Done { bytes_written: len, ..done };
        for _ in 0..ATTEMPTS_MAX {
            let Some(name) = self.next_version(date, old, &rebuilt).await? else { return Ok(Repacked::Overtaken) };
            let claim = self.upload(finished, name, next_repack).await?;
            pace.passed(usize::try_from(len).unwrap_or(usize::MAX)).await;
            if !self.reads_back(finished, &claim).await? {
                tracing::error!(key = %claim.key, "the object read back is not what was uploaded; its name is given up");
                let reason = "it did not read back as it was uploaded".to_owned();
                let condemned = CondemnedObject { key: claim.key, reason, at: self.store.time().await? };
                self.condemn_objects(date, vec![condemned]).await?;
                continue;
            }
            pace.passed(usize::try_from(len).unwrap_or(usize::MAX)).await;
            match self.swap(date, identities(old), vec![listed(&rebuilt, &claim)]).await? {
                Swapped::Done => {
                    return Ok(Repacked::Swapped(Done { adopted: claim.adopted, ..done }));
                }
                // Left where it is: nobody but the garbage collection may tell whether it is needed.
                Swapped::Stale => {
                    if !keeps(Rule::LoserLeavesObject) {
                        self.store.delete(&claim.key).await?;
                    }
                    return Ok(Repacked::Overtaken);
                }
                Swapped::Taken => {}
            }
        }
        Err(ArchiveError::refused(format!("no name for the successor of {} could be won", rebuilt.name)))
    }

    /// The name to try first; none where an old shard is no longer live. That of the very same object, if an earlier run
    /// has uploaded it; else one beyond all that were ever used.
    async fn next_version(
        &self,
        date: Date,
        old: &[ManifestShard],
        rebuilt: &RebuiltShard,
    ) -> Result<Option<ShardName>, ArchiveError> {
        let Some(read) = ReadManifest::read(self.store.as_ref(), date).await? else {
            return Err(ArchiveError::inconsistent(&layout::manifest(date), "it was there and is gone; restore it"));
        };
        let manifest = &read.manifest;
        let is_live = |shard: &ManifestShard| {
            manifest.shards.iter().any(|live| live.key == shard.key && live.shard == shard.shard)
        };
        if keeps(Rule::SwapNeedsOld) && !old.iter().all(is_live) {
            return Ok(None);
        }
        let name = rebuilt.name;
        if !keeps(Rule::NamesAreFresh) {
            return Ok(Some(name));
        }
        let used = used_repack(manifest, &name);
        let mut highest = used.max(name.repack.saturating_sub(1));
        for (object, found) in self.versions(&name).await? {
            let may_be_ours = found.repack > used
                && object.len == rebuilt.body.object_len()
                && !manifest.is_terminal(&object.key)
                && !manifest.shards.iter().any(|live| live.key == object.key);
            let finished = Finished { file: rebuilt.file.path(), body: &rebuilt.body };
            if may_be_ours && self.is_ours(finished, &object.key).await? {
                return Ok(Some(found));
            }
            highest = highest.max(found.repack);
        }
        Ok(Some(ShardName { repack: highest.saturating_add(1), ..name }))
    }

    /// The highest repack number of a split that the manifest or the listing knows.
    pub(crate) async fn highest_repack(&self, date: Date, name: &ShardName) -> Result<u32, ArchiveError> {
        let read = ReadManifest::read(self.store.as_ref(), date).await?;
        let used = read.map_or(0, |read| used_repack(&read.manifest, name));
        Ok(self.versions(name).await?.iter().map(|(_, found)| found.repack).fold(used, u32::max))
    }

    /// All versions of a split that the store lists.
    async fn versions(&self, name: &ShardName) -> Result<Vec<(ObjectMeta, ShardName)>, ArchiveError> {
        let prefix = split_prefix(name.group, name.split);
        let listed = list_all(self.store.as_ref(), &prefix, Depth::Recursive, SPLIT_OBJECTS_MAX).await?;
        let versions = listed.into_iter().filter_map(|object| {
            let found = layout::parse_shard(object.key.as_str(), name.group.bits)?;
            (found.group == name.group && found.split == name.split).then_some((object, found))
        });
        Ok(versions.collect())
    }
}

/// The highest repack number of a split that was ever live, or condemned: the object may be deleted and its key must
/// not name another one.
fn used_repack(manifest: &Manifest, name: &ShardName) -> u32 {
    let numbers = manifest.numbers.get(&name.group.bucket.number());
    let used = numbers.and_then(|numbers| numbers.repack_max.get(&name.split)).copied().unwrap_or(0);
    let condemned = manifest.condemned.iter().filter_map(|object| {
        let found = layout::parse_shard(object.key.as_str(), name.group.bits)?;
        (found.group == name.group && found.split == name.split).then_some(found.repack)
    });
    condemned.fold(used, u32::max)
}

/// What the keys of all versions of a split begin with.
fn split_prefix(group: Group, split: u32) -> String {
    format!("{}{group}_{split:04}", layout::shards_prefix(group.date))
}

const fn next_repack(name: ShardName) -> ShardName {
    ShardName { repack: name.repack.saturating_add(1), ..name }
}

/// What the manifest will say of a rebuilt shard.
fn listed(rebuilt: &RebuiltShard, claim: &Claim) -> ManifestShard {
    ManifestShard {
        bucket: claim.name.group.bucket.number(),
        split: claim.name.split,
        repack: claim.name.repack,
        key: claim.key.clone(),
        shard: rebuilt.body.shard_id(),
        len: rebuilt.body.object_len(),
        tail_len: rebuilt.body.tail_len(),
        blake3: claim.blake3.to_hex().to_string(),
        entries: rebuilt.body.entries(),
        plain_len: rebuilt.plain_len,
        uid_min: rebuilt.uid_min.as_ref().and_then(|uid| ManifestShard::bound(uid.as_str())),
        uid_max: rebuilt.uid_max.as_ref().and_then(|uid| ManifestShard::bound(uid.as_str())),
        serials: rebuilt.serials.clone(),
    }
}
