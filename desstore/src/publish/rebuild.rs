//! A lost manifest made anew from the objects of its day: each shard says itself what it is, and what it replaces.
//!
//! Every object is read whole and proven first. What a proven shard replaces is retired, if all that it left out is
//! deleted; what holds nothing of its own is condemned. Whatever leaves a doubt about what was visible refuses the whole
//! thing, unless the one who asks has decided it. Nothing is ever overwritten.

mod choice;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use desfmt::document::{self, CondemnedObject, DOCUMENT_LEN_MAX, Manifest, ManifestShard, RetiredObject};
use desfmt::legacy::LegacyName;
use desfmt::{Birth, Date, ObjectKey, ShardName, layout};

use crate::archive::{ArchiveError, ProvenShard};
use crate::error::StoreErrorKind;
use crate::publish::ArchiveWriter;
use crate::store::{Depth, ObjectMeta, Payload, list_all};
use choice::{Chosen, Group};

/// How many objects a day may have.
const DAY_OBJECTS_MAX: usize = 4_000_000;

/// What the one who asks has decided.
#[derive(Debug, Clone, Copy, Default)]
pub struct RebuildOptions {
    /// Objects that are damaged are left out, with all files that only they hold.
    pub without_damaged: bool,
    /// Of two shards with different content for one uid the older split counts.
    pub oldest_wins: bool,
    /// Nothing is written.
    pub dry_run: bool,
}

/// A manifest that was made anew.
#[derive(Debug, Clone, Default)]
pub struct Rebuilt {
    /// Shards that are live.
    pub live: Vec<ObjectKey>,
    /// Files in them, those that are deleted included.
    pub files: u64,
    /// Objects that live ones replace.
    pub retired: Vec<ObjectKey>,
    /// Objects that hold nothing of their own.
    pub condemned: Vec<ObjectKey>,
    /// Objects that were left out since they are damaged, and why.
    pub damaged: Vec<(ObjectKey, String)>,
}

impl ArchiveWriter {
    /// Makes the lost manifest of a day anew. Reads every object of the day once.
    ///
    /// Inode numbers of files in shards that were never repacked change: which ones they had, only the manifest knew. They
    /// are numbers that the day has never used.
    pub async fn rebuild_manifest(&self, date: Date, options: RebuildOptions) -> Result<Rebuilt, ArchiveError> {
        let key = layout::manifest(date);
        match self.store.get(&key, DOCUMENT_LEN_MAX).await {
            Err(error) if error.kind == StoreErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
            Ok(fetched) => {
                let state = match document::decode::<Manifest>(&fetched.bytes) {
                    Ok(_) => "it is there and can be read; there is nothing to make anew".to_owned(),
                    Err(error) => format!("it is there and damaged ({error}); move it away first"),
                };
                return Err(ArchiveError::refused(format!("{key}: {state}")));
            }
        }
        if self.identity().is_adopted() {
            let flat = self.store.list(&LegacyName::day_prefix(date), Depth::Direct, None).await?;
            if let Some(object) = flat.objects.first() {
                let reason = "it is a shard of the ancestor; the manifest of a day with such shards must be restored";
                return Err(ArchiveError::refused(format!("{}: {reason}", object.key)));
            }
        }
        let prefix = layout::shards_prefix(date);
        let listed = list_all(self.store.as_ref(), &prefix, Depth::Recursive, DAY_OBJECTS_MAX).await?;
        if listed.is_empty() {
            return Err(ArchiveError::refused(format!("nothing lies below {prefix}: that day never was")));
        }
        let tombstones = self.archive.tombstone_set(date);
        tombstones.refresh(self.store.as_ref(), date, self.archive.bits()).await?;
        let mut rebuilt = Rebuilt::default();
        let mut chosen = Vec::new();
        for (_, objects) in self.by_bucket(&listed) {
            let mut group = Group::new(&tombstones, self.archive.uid_hasher(), options.oldest_wins);
            for (name, object) in objects {
                match self.archive.prove_object(&object.key).await {
                    Ok(proven) => group.add(proven),
                    Err(error @ (ArchiveError::Damaged { .. } | ArchiveError::Inconsistent { .. })) => {
                        group.add_damaged(name);
                        rebuilt.damaged.push((object.key.clone(), crate::archive::in_words(&error)));
                    }
                    Err(error) => return Err(error),
                }
            }
            let choice = group.choose().map_err(ArchiveError::refused)?;
            if let (Some(name), false) = (choice.lost.first(), options.without_damaged) {
                let count = choice.lost.len();
                let reason =
                    format!("{name} is damaged and may hold files that nothing else holds ({count} such objects)");
                return Err(ArchiveError::refused(format!("{reason}; restore it, or leave such objects out")));
            }
            chosen.push(choice);
        }
        let manifest = self.manifest_of(date, chosen, &listed, &mut rebuilt).await?;
        if !options.dry_run {
            let body = document::encode(&manifest).map_err(|error| ArchiveError::damaged(&key, error))?;
            self.store.put_if_absent(&key, Payload::Bytes(body.into())).await?;
            self.archive.forget_day(date).await;
        }
        Ok(rebuilt)
    }

    /// The shards of a listing, by bucket. What is named otherwise is left alone.
    fn by_bucket<'l>(&self, listed: &'l [ObjectMeta]) -> BTreeMap<u16, Vec<(ShardName, &'l ObjectMeta)>> {
        let mut buckets = BTreeMap::<u16, Vec<_>>::new();
        for object in listed {
            if let Some(name) = layout::parse_shard(object.key.as_str(), self.archive.bits()) {
                buckets.entry(name.group.bucket.number()).or_default().push((name, object));
            }
        }
        buckets
    }

    async fn manifest_of(
        &self,
        date: Date,
        chosen: Vec<Chosen>,
        listed: &[ObjectMeta],
        rebuilt: &mut Rebuilt,
    ) -> Result<Manifest, ArchiveError> {
        let now = self.store.time().await?;
        // Higher than any that was counted one by one, so that no reader takes it for one that goes back in time.
        let generation = u64::try_from(now.seconds()).unwrap_or(1).max(1);
        let mut manifest = Manifest { generation, ..Manifest::empty(date) };
        for name in listed.iter().filter_map(|one| layout::parse_shard(one.key.as_str(), self.archive.bits())) {
            manifest.use_up(name.group.bucket.number(), name.split, name.repack);
        }
        let mut fresh = Vec::new();
        for choice in chosen {
            for proven in choice.live {
                rebuilt.live.push(proven.listed.key.clone());
                rebuilt.files = rebuilt.files.saturating_add(u64::from(proven.listed.entries));
                if proven.lineage.is_fresh() { fresh.push(proven) } else { manifest.shards.push(proven.listed) }
            }
            for proven in choice.retired {
                let ProvenShard { listed, lineage, .. } = proven;
                rebuilt.retired.push(listed.key.clone());
                let (key, shard) = (listed.key.clone(), listed.shard);
                let entry = (!lineage.is_fresh()).then(|| Box::new(listed));
                manifest.retired.push(RetiredObject { key, shard, generation, at: now, entry });
            }
            for (proven, reason) in choice.condemned {
                rebuilt.condemned.push(proven.listed.key.clone());
                manifest.condemned.push(CondemnedObject { key: proven.listed.key, reason, at: now });
            }
        }
        fresh.sort_by(|a, b| (a.written, &a.listed.key).cmp(&(b.written, &b.listed.key)));
        self.allot_serials(&mut manifest, fresh)?;
        manifest.shards.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(manifest)
    }

    /// Gives shards that do not know theirs serials which the day has never used: a host that still caches files of the
    /// lost ones by their numbers must not take one file for another.
    fn allot_serials(&self, manifest: &mut Manifest, fresh: Vec<ProvenShard>) -> Result<(), ArchiveError> {
        let count = u32::try_from(fresh.len()).unwrap_or(u32::MAX);
        let known = manifest.shards.iter().flat_map(|shard| &shard.serials).copied().max().unwrap_or(0);
        let least = known.max(count).max(Birth::SERIAL_MAX / 4).saturating_add(1);
        let room = (Birth::SERIAL_MAX / 4 * 3).saturating_sub(least).saturating_sub(count);
        if room == 0 {
            let reason = format!("the day {} has no {count} serials left; repack it", manifest.date);
            return Err(ArchiveError::refused(reason));
        }
        let skip =
            self.random.next().checked_rem(u64::from(room)).and_then(|skip| u32::try_from(skip).ok()).unwrap_or(0);
        let mut serial = least.saturating_add(skip);
        for proven in fresh {
            manifest.shards.push(ManifestShard { serials: vec![serial], ..proven.listed });
            serial = serial.saturating_add(1);
        }
        manifest.next_serial = if count > 0 { serial } else { known.saturating_add(1) };
        Ok(())
    }
}
