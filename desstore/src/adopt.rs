//! An archive of the ancestor becomes one of DES where it lies: it gets an identity, manifests and tombstones. No shard is
//! copied or moved, and every file is found as before, under the same inode number.
//!
//! The identity comes last, so that until then everybody still sees the ancestor's archive. It is chosen first, in a
//! document of its own: a second run after a crash must hash uids with the same key as the first. Deletions are written
//! before the manifests that would show the files.

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use desfmt::document::{self, DOCUMENT_LEN_MAX, Identity, Manifest, ManifestShard, Tombstone};
use desfmt::legacy::{LegacyName, SIDECAR_LEN_MAX, Sidecar};
use desfmt::{ArchiveId, BucketBits, Date, Digest, Group, ObjectKey, ShardId, Uid, layout};

use crate::archive::{
    Archive, ArchiveError, CheckEvent, CheckLevel, CheckOptions, Finding, Index, ReadOptions, TOMBSTONES_PER_WRITE,
    Verdict, legacy_day_shard, read_identity,
};
use crate::clock::{Clock, Randomness};
use crate::error::StoreErrorKind;
use crate::store::{Depth, ObjectMeta, ObjectStore, Payload, list_all};

/// How many objects the flat folder may hold.
const OBJECTS_MAX: usize = 20_000_000;

/// How much of a shard is hashed at a time.
const HASH_BYTES: u64 = 8 << 20;

/// What adopting has done, or would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Adopted {
    /// Days, each with a manifest of its own now.
    pub days: u64,
    /// Shards in them.
    pub shards: u64,
    /// Files in those.
    pub files: u64,
    /// Their stored size, in bytes, but for big files.
    pub stored_bytes: u64,
    /// Deletions taken over from sidecars.
    pub tombstones: u64,
}

/// What lies in one day.
#[derive(Debug, Default)]
struct FlatDay {
    shards: Vec<(LegacyName, ObjectMeta)>,
    sidecars: Vec<ObjectMeta>,
}

/// Adopts an archive of the ancestor. Reads every shard once. Nobody else may write to it meanwhile, the ancestor least of
/// all; readers may go on.
///
/// May be repeated after any failure. Refused where a check finds anything wrong.
pub async fn adopt(
    store: &Arc<dyn ObjectStore>,
    bits: BucketBits,
    (clock, random): (&Arc<dyn Clock>, &Arc<dyn Randomness>),
    dry_run: bool,
) -> Result<Adopted, ArchiveError> {
    if let Some(identity) = read_identity(store.as_ref()).await? {
        return finish_earlier(store.as_ref(), &identity).await;
    }
    let options = || ReadOptions { memory_bytes: 64 << 20, ..ReadOptions::default() };
    let legacy = Archive::open_legacy(Arc::clone(store), bits, options(), Arc::clone(clock), Arc::clone(random));
    refuse_unsound(&legacy).await?;
    let days = flat_days(store.as_ref(), bits).await?;
    let identity = if dry_run {
        Identity::new(ArchiveId::from_bytes([0; 16]), bits, clock.now()).adopted()
    } else {
        choose_identity(store.as_ref(), bits, clock.as_ref(), random.as_ref()).await?
    };
    let archive =
        Archive::new(Arc::clone(store), options(), Arc::clone(clock), Arc::clone(random), (identity.clone(), false));
    let mut adopted = Adopted::default();
    for (date, day) in days {
        adopted.days = adopted.days.saturating_add(1);
        let tombstones = take_over_deletions(&archive, date, &day, dry_run).await?;
        adopted.tombstones = adopted.tombstones.saturating_add(tombstones);
        let manifest = manifest_of(&legacy, date, &day, dry_run).await?;
        for shard in &manifest.shards {
            adopted.shards = adopted.shards.saturating_add(1);
            adopted.files = adopted.files.saturating_add(u64::from(shard.entries));
            adopted.stored_bytes = adopted.stored_bytes.saturating_add(shard.len);
        }
        if !dry_run {
            write_manifest(store.as_ref(), manifest).await?;
        }
    }
    if !dry_run {
        create(store.as_ref(), &layout::identity(), &identity).await?;
        store.delete(&layout::adoption()).await?;
    }
    Ok(adopted)
}

/// Tidies up after an attempt that died when everything else was done.
async fn finish_earlier(store: &dyn ObjectStore, identity: &Identity) -> Result<Adopted, ArchiveError> {
    let (marker, refused) = (layout::adoption(), "there is a des.json: this is an archive of DES already");
    match store.get(&marker, DOCUMENT_LEN_MAX).await {
        Ok(fetched) if document::decode::<Identity>(&fetched.bytes).is_ok_and(|found| found == *identity) => {
            store.delete(&marker).await?;
            Ok(Adopted::default())
        }
        Ok(_) => Err(ArchiveError::refused(refused)),
        Err(error) if error.kind == StoreErrorKind::NotFound => Err(ArchiveError::refused(refused)),
        Err(error) => Err(error.into()),
    }
}

/// What is not sound is not adopted: a manifest that lists it would be wrong from the beginning.
async fn refuse_unsound(legacy: &Archive) -> Result<(), ArchiveError> {
    let mut first: Option<Finding> = None;
    let options = CheckOptions { level: CheckLevel::Index, ..CheckOptions::default() };
    let mut tell = |event: CheckEvent<'_>| {
        if let CheckEvent::Found(finding) = event
            && finding.verdict != Verdict::Harmless
        {
            first.get_or_insert_with(|| finding.clone());
        }
    };
    let checked = legacy.verify(&options, &mut tell).await;
    match first {
        None => Ok(()),
        Some(Finding { object, problem, .. }) => {
            let count = checked.wrong.saturating_add(checked.unchecked);
            let reason = format!("{object}: {problem} ({count} findings in all; des-verify shows them)");
            Err(ArchiveError::refused(reason))
        }
    }
}

async fn flat_days(store: &dyn ObjectStore, bits: BucketBits) -> Result<BTreeMap<Date, FlatDay>, ArchiveError> {
    let mut days = BTreeMap::<Date, FlatDay>::new();
    for object in list_all(store, "", Depth::Direct, OBJECTS_MAX).await? {
        let key = object.key.as_str();
        if let Ok(name) = LegacyName::parse(key, bits) {
            days.entry(name.group.date).or_default().shards.push((name, object));
        } else if let Ok(name) = LegacyName::parse_sidecar(key, bits) {
            days.entry(name.group.date).or_default().sidecars.push(object);
        }
    }
    for day in days.values_mut() {
        day.shards.sort_by_key(|(name, _)| *name);
    }
    // A day is there by its shards; deletions from others are kept all the same.
    days.retain(|_, day| !day.shards.is_empty() || !day.sidecars.is_empty());
    Ok(days)
}

/// The identity that the archive will have: the one of an earlier attempt, if there was one.
async fn choose_identity(
    store: &dyn ObjectStore,
    bits: BucketBits,
    clock: &dyn Clock,
    random: &dyn Randomness,
) -> Result<Identity, ArchiveError> {
    let mut id = [0; 16];
    random.fill(&mut id);
    let wanted = Identity::new(ArchiveId::from_bytes(id), bits, clock.now()).adopted();
    create(store, &layout::adoption(), &wanted).await?;
    let fetched = store.get(&layout::adoption(), DOCUMENT_LEN_MAX).await?;
    let identity: Identity =
        document::decode(&fetched.bytes).map_err(|error| ArchiveError::damaged(&layout::adoption(), error))?;
    if identity.bits() != bits {
        let reason = format!(
            "an earlier attempt was made with n_bits={}; give that, or remove {} first",
            identity.bits().get(),
            layout::adoption()
        );
        return Err(ArchiveError::refused(reason));
    }
    Ok(identity)
}

/// Creates a document unless it is there.
async fn create(store: &dyn ObjectStore, key: &ObjectKey, identity: &Identity) -> Result<(), ArchiveError> {
    let body = document::encode(identity).map_err(|error| ArchiveError::damaged(key, error))?;
    match store.put_if_absent(key, Payload::Bytes(body.into())).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind == StoreErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes the deletions of a day's sidecars as tombstones, but for those that an earlier attempt has written. They hold for
/// a uid within the day, whichever shard the sidecar is of.
async fn take_over_deletions(archive: &Archive, date: Date, day: &FlatDay, dry_run: bool) -> Result<u64, ArchiveError> {
    let set = archive.tombstone_set(date);
    if !dry_run {
        set.refresh(archive.store().as_ref(), date, archive.bits()).await?;
    }
    let mut groups = BTreeMap::<Group, BTreeMap<Uid, Tombstone>>::new();
    let mut count = 0_u64;
    for object in &day.sidecars {
        let fetched = archive.store().get(&object.key, SIDECAR_LEN_MAX).await?;
        let sidecar = Sidecar::parse(&fetched.bytes).map_err(|error| ArchiveError::damaged(&object.key, error))?;
        for deleted in sidecar.tombstones {
            // What is no uid names no file.
            let Ok(uid) = Uid::new(&deleted.uid) else { continue };
            let tombstone = Tombstone {
                date,
                uid: uid.clone(),
                uid_hash: archive.uid_hasher().hash(uid.as_str()),
                operation: archive.new_operation(),
                actor: deleted.deleted_by,
                reason: deleted.reason,
                ticket: deleted.ticket,
                at: deleted.deleted_at,
            };
            count = count.saturating_add(1);
            if !set.holds(tombstone.uid_hash) {
                groups.entry(archive.group_of(date, &uid)?).or_default().insert(uid, tombstone);
            }
        }
    }
    let mut batches = Vec::new();
    for (group, tombstones) in groups {
        let tombstones: Vec<_> = tombstones.into_values().collect();
        for chunk in tombstones.chunks(TOMBSTONES_PER_WRITE) {
            let operation = archive.new_operation();
            let named = chunk.iter().map(|one| Tombstone { operation, ..one.clone() });
            batches.push((group, named.collect()));
        }
    }
    if !dry_run {
        archive.write_batches(&batches, &set).await?;
    }
    Ok(count)
}

/// What a manifest says of a day's shards where they lie. Serials are those that a mount of the ancestor's archive shows.
async fn manifest_of(legacy: &Archive, date: Date, day: &FlatDay, dry_run: bool) -> Result<Manifest, ArchiveError> {
    let mut manifest = Manifest::empty(date);
    for ((name, object), serial) in day.shards.iter().zip(1_u32..) {
        let (open, _) = legacy.open_legacy_shard(&legacy_day_shard(name, object, serial)).await?;
        let Index::Legacy(shard) = &open.index else { continue };
        let index = shard.index();
        let bound = |place: usize| index.entry(place).and_then(|entry| ManifestShard::bound(entry.uid));
        let digest = if dry_run { Digest::from_bytes([0; 32]) } else { hash(legacy, &open.key, object).await? };
        let digest = digest.to_hex().to_string();
        let bucket = name.group.bucket.number();
        manifest.shards.push(ManifestShard {
            bucket,
            split: name.split,
            repack: 0,
            key: open.key.clone(),
            shard: ShardId::of_legacy_object(open.key.as_str(), object.len, &digest),
            len: object.len,
            tail_len: 0,
            blake3: digest,
            entries: u32::try_from(index.len()).unwrap_or(u32::MAX),
            plain_len: index.iter().map(|entry| entry.location.plain_len()).fold(0, u64::saturating_add),
            uid_min: bound(0),
            uid_max: index.len().checked_sub(1).and_then(bound),
            serials: vec![serial],
        });
        manifest.use_up(bucket, name.split, 0);
        manifest.next_serial = serial.saturating_add(1);
    }
    Ok(manifest)
}

async fn hash(legacy: &Archive, key: &ObjectKey, object: &ObjectMeta) -> Result<Digest, ArchiveError> {
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    while at < object.len {
        let end = at.saturating_add(HASH_BYTES).min(object.len);
        hasher.update(&legacy.store().get_range(key, at..end, Some(&object.etag)).await?);
        at = end;
    }
    Ok(hasher.finalize())
}

/// Creates a manifest, or replaces one of an earlier attempt: nobody reads them before there is an identity.
async fn write_manifest(store: &dyn ObjectStore, mut manifest: Manifest) -> Result<(), ArchiveError> {
    let key = layout::manifest(manifest.date);
    let encode = |manifest: &Manifest| document::encode(manifest).map_err(|error| ArchiveError::damaged(&key, error));
    let body = encode(&manifest)?;
    match store.put_if_absent(&key, Payload::Bytes(body.into())).await {
        Ok(_) => return Ok(()),
        Err(error) if error.kind == StoreErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.into()),
    }
    let fetched = store.get(&key, DOCUMENT_LEN_MAX).await?;
    let found: Manifest = document::decode(&fetched.bytes).map_err(|error| ArchiveError::damaged(&key, error))?;
    if found.shards == manifest.shards {
        return Ok(());
    }
    manifest.generation = found.generation.saturating_add(1);
    let body = encode(&manifest)?;
    store.put_if_match(&key, &fetched.meta.etag, Payload::Bytes(body.into())).await?;
    Ok(())
}
