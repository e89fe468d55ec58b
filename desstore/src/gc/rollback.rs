//! Bringing a retired shard back, under a new name: its old key is never live again, since somebody may be about to delete
//! it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use desfmt::document::{Manifest, ManifestShard, RetiredObject};
use desfmt::v3::FOOTER_LEN;
use desfmt::{Date, Digest, ObjectKey, ShardName, layout, v3};

use crate::archive::ArchiveError;
use crate::deletions::Deletions;
use crate::error::StoreErrorKind;
use crate::inventory::ReadManifest;
use crate::publish::{ArchiveWriter, Swapped, is_unsettled};
use crate::repack::{Done, RepackSettings, Repacked};
use crate::rules::{Rule, keeps};
use crate::store::Payload;

/// How often a name is tried.
const ATTEMPTS_MAX: u32 = 12;

/// How much is read back at a time.
const WINDOW_BYTES: u64 = 8 << 20;

impl ArchiveWriter {
    /// Undoes the repacking that retired an object: copies it, and all others that were retired for the same successor, to
    /// new names, and swaps them for that successor. What was deleted stays deleted.
    pub async fn roll_back(
        &self,
        date: Date,
        key: &ObjectKey,
        settings: &RepackSettings,
    ) -> Result<Repacked, ArchiveError> {
        let Some(read) = ReadManifest::read(self.store.as_ref(), date).await? else {
            return Err(ArchiveError::refused(format!("there is no day {date}")));
        };
        let manifest = &read.manifest;
        let retired = manifest.retired.iter().find(|object| object.key == *key);
        let Some(RetiredObject { generation, entry: Some(wanted), .. }) = retired else {
            let reason = format!("{key} is not retired, so it cannot be brought back");
            return Err(ArchiveError::refused(reason));
        };
        if layout::is_flat(key) {
            return self.convert_again(date, manifest, wanted, settings).await;
        }
        let shares = |a: &ManifestShard, b: &ManifestShard| a.serials.iter().any(|serial| b.serials.contains(serial));
        let successors: Vec<_> = manifest.shards.iter().filter(|shard| shares(shard, wanted)).collect();
        let peers: Vec<&ManifestShard> = manifest
            .retired
            .iter()
            .filter(|object| object.generation == *generation)
            .filter_map(|object| object.entry.as_deref())
            .filter(|entry| successors.iter().any(|shard| shares(shard, entry)))
            .collect();
        if successors.is_empty() {
            return Err(ArchiveError::refused(format!(
                "all that {key} held was deleted; nothing is to be brought back"
            )));
        }
        let covers = |serial: &u32| peers.iter().any(|peer| peer.serials.contains(serial));
        if !successors.iter().flat_map(|shard| &shard.serials).all(covers) {
            let reason = format!("what replaced {key} was merged with others since; roll that back first");
            return Err(ArchiveError::refused(reason));
        }
        let old = successors.iter().map(|shard| (shard.key.clone(), shard.shard)).collect();
        let mut new = Vec::with_capacity(peers.len());
        let mut done = Done::default();
        for peer in peers {
            let copy =
                if keeps(Rule::RollbackCopies) { self.copy_shard(date, peer, settings).await? } else { peer.clone() };
            done.bytes_read = done.bytes_read.saturating_add(peer.len);
            done.bytes_written = done.bytes_written.saturating_add(copy.len);
            done.files_kept = done.files_kept.saturating_add(u64::from(copy.entries));
            new.push(copy);
        }
        Ok(match self.swap(date, old, new).await? {
            Swapped::Done => Repacked::Swapped(done),
            Swapped::Stale | Swapped::Taken => Repacked::Overtaken,
        })
    }

    /// Makes the shard of the current version once more that a shard of the ancestor was replaced by.
    async fn convert_again(
        &self,
        date: Date,
        manifest: &Manifest,
        flat: &ManifestShard,
        settings: &RepackSettings,
    ) -> Result<Repacked, ArchiveError> {
        let is_successor =
            |shard: &&ManifestShard| (shard.bucket, shard.split, shard.serials.len()) == (flat.bucket, flat.split, 1);
        let Some(successor) = manifest.shards.iter().find(is_successor) else {
            let reason =
                format!("all that {} held was deleted, or what replaced it was merged with others since", flat.key);
            return Err(ArchiveError::refused(reason));
        };
        let name = flat.name(date, self.bits());
        let name =
            name.ok_or_else(|| ArchiveError::inconsistent(&flat.key, "its bucket is not one of this archive"))?;
        let deletions = Arc::new(Deletions::read_group(self.store.as_ref(), &name.group).await?);
        self.convert(date, flat, successor, &deletions, settings).await
    }

    /// Copies an object to the next free name of its split, proves the copy, and says what the manifest is to say of it.
    async fn copy_shard(
        &self,
        date: Date,
        peer: &ManifestShard,
        settings: &RepackSettings,
    ) -> Result<ManifestShard, ArchiveError> {
        let name = peer.name(date, self.bits());
        let name =
            name.ok_or_else(|| ArchiveError::inconsistent(&peer.key, "its bucket is not one of this archive"))?;
        let (place, file) = self.fetch_object(peer, settings).await?;
        let damaged = |error| ArchiveError::damaged(&peer.key, error);
        let body_len = peer.len.saturating_sub(u64::try_from(FOOTER_LEN).unwrap_or(0));
        let mut footer = vec![0; FOOTER_LEN];
        file.read_exact_at(&mut footer, body_len).map_err(|error| place.error(error))?;
        let mut footer = v3::Footer::decode(&footer).map_err(damaged)?;
        for _ in 0..ATTEMPTS_MAX {
            let name = self.free_version(date, &name).await?;
            let key = layout::shard(&name);
            footer.name = name;
            place.write_at(&footer.encode(), body_len)?;
            match self.store.put_if_absent(&key, Payload::File(place.path().to_owned())).await {
                Ok(_) => {}
                // Ours or not, reading it back tells.
                Err(error) if is_unsettled(&error) => {}
                Err(error) => return Err(error.into()),
            }
            let expected = digest_of(&file, peer.len).map_err(|error| place.error(error))?;
            if self.digest_in_store(&key, peer.len).await? == Some(expected) {
                let blake3 = expected.to_hex().to_string();
                return Ok(ManifestShard { repack: name.repack, key, blake3, ..peer.clone() });
            }
        }
        Err(ArchiveError::refused(format!("no name for a copy of {} could be won", peer.key)))
    }

    /// A version of a split that was never used.
    async fn free_version(&self, date: Date, name: &ShardName) -> Result<ShardName, ArchiveError> {
        let highest = self.highest_repack(date, name).await?;
        Ok(ShardName { repack: highest.max(name.repack).saturating_add(1), ..*name })
    }

    /// BLAKE3 of an object of that length; none where there is no such one.
    async fn digest_in_store(&self, key: &ObjectKey, len: u64) -> Result<Option<Digest>, ArchiveError> {
        let meta = match self.store.head(key).await {
            Ok(meta) if meta.len == len => meta,
            Ok(_) => return Ok(None),
            Err(error) if error.kind == StoreErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        while at < len {
            let end = at.saturating_add(WINDOW_BYTES).min(len);
            hasher.update(&self.store.get_range(key, at..end, Some(&meta.etag)).await?);
            at = end;
        }
        Ok(Some(hasher.finalize()))
    }
}

fn digest_of(file: &File, len: u64) -> std::io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        let want = usize::try_from(len.saturating_sub(at)).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..want) else { break };
        file.read_exact_at(part, at)?;
        hasher.update(part);
        at = at.saturating_add(u64::try_from(want).unwrap_or(u64::MAX));
    }
    Ok(hasher.finalize())
}
