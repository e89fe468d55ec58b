//! Archives of the ancestor: flat shards of version 1 and 2 beside their sidecars, read as they are.
//!
//! There is no manifest, so a day is what a listing shows; its shards get serials in the order of their names. The
//! tombstones are those of the sidecars, by uid within the day; a sidecar that cannot be read is an error.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use desfmt::legacy::{
    BIG_FILES_PREFIX, BigFileHasher, LegacyEntry, LegacyFooter, LegacyHeader, LegacyIndex, LegacyName, LegacyNameError,
    Location, SIDECAR_LEN_MAX, Sidecar, check_compressed_len, decode_payload,
};
use desfmt::{Birth, Date, FormatError, ObjectKey, ShardId, Uid, v3};

use crate::archive::content::Details;
use crate::archive::entries::{Content, FileEntry, Located};
use crate::archive::error::ArchiveError;
use crate::archive::shard::Index;
use crate::archive::totals::Totals;
use crate::archive::{Archive, CacheKey, Cached, Day, DayShard, OpenShard};
use crate::store::{Depth, ObjectMeta, list_all};

/// How many objects one folder may hold.
pub(crate) const OBJECTS_MAX: usize = 20_000_000;

/// How many bytes at the end of a shard are read first: the footer, and most indexes.
const TAIL_BYTES: u64 = 64 << 10;

/// How many bytes of a big file are hashed at a time.
const HASH_BYTES: u64 = 8 << 20;

/// The loaded index of a shard of the ancestor.
#[derive(Debug)]
pub(crate) struct LegacyShard {
    index: LegacyIndex,
    date: Date,
}

/// A file of the ancestor.
#[derive(Debug, Clone)]
pub(crate) struct LegacyFile {
    ordinal: u32,
    location: Location,
    metadata: Option<String>,
}

impl LegacyFile {
    pub(crate) fn details(&self, shard: &OpenShard, file: &FileEntry) -> Details {
        let (codec, stored_len) = match self.location {
            Location::Inline { codec, stored_len, .. } => (codec.name().to_owned(), stored_len),
            Location::BigFile { len, .. } => ("none".to_owned(), len),
        };
        Details {
            key: shard.key.clone(),
            codec,
            stored_len,
            len: file.len,
            digest: None,
            created_at: file.created_at,
            metadata: self.metadata.clone(),
        }
    }
}

impl LegacyShard {
    pub(crate) fn find(&self, open: &Arc<OpenShard>, shard: &DayShard, uid: &str) -> Option<Located> {
        self.located(open, &self.index.find(uid)?, shard.serials.first().copied()?)
    }

    pub(crate) const fn index(&self) -> &LegacyIndex {
        &self.index
    }

    pub(crate) fn holds(&self, uid: &str) -> bool {
        self.index.find(uid).is_some()
    }

    pub(crate) fn find_prefixed(
        &self,
        open: &Arc<OpenShard>,
        shard: &DayShard,
        prefix: &str,
        is_wanted: &(dyn Fn(&Uid) -> bool + Sync),
    ) -> Option<Located> {
        (self.index.lower_bound(prefix)..self.index.len())
            .map_while(|place| self.index.entry(place).filter(|entry| entry.uid.starts_with(prefix)))
            .find(|entry| Uid::new(entry.uid).is_ok_and(|uid| is_wanted(&uid)))
            .and_then(|entry| self.located(open, &entry, shard.serials.first().copied()?))
    }

    pub(crate) fn by_ordinal(&self, open: &Arc<OpenShard>, birth: Birth) -> Option<Located> {
        self.located(open, &self.index.by_ordinal(birth.ordinal)?, birth.serial)
    }

    /// Hands out the entries from an ordinal on until told to stop.
    pub(crate) fn list(&self, open: &Arc<OpenShard>, from: Birth, take: &mut dyn FnMut(Located) -> bool) {
        let reachable = (from.ordinal..self.index.ordinals()).filter_map(|ordinal| self.index.by_ordinal(ordinal));
        for located in reachable.filter_map(|entry| self.located(open, &entry, from.serial)) {
            if !take(located) {
                return;
            }
        }
    }

    fn located(&self, open: &Arc<OpenShard>, entry: &LegacyEntry<'_>, serial: u32) -> Option<Located> {
        let created_at = entry.created_at().unwrap_or(self.date.start());
        let file = FileEntry {
            uid: Uid::new(entry.uid).ok()?,
            birth: Birth { serial, ordinal: entry.ordinal },
            len: entry.location.plain_len(),
            mtime: v3::Mtime { seconds: created_at.seconds(), nanos: 0 },
            created_at,
        };
        let metadata = entry.metadata.map(str::to_owned);
        let content = Content::Legacy(LegacyFile { ordinal: entry.ordinal, location: entry.location, metadata });
        Some(Located { shard: Arc::clone(open), file, content })
    }
}

impl Archive {
    /// The days that any flat name tells of, ascending.
    pub(crate) async fn list_legacy_days(&self) -> Result<Vec<Date>, ArchiveError> {
        let objects = list_all(self.store.as_ref(), "", Depth::Direct, OBJECTS_MAX).await?;
        let mut days = Vec::new();
        for object in &objects {
            if let Some(name) = self.legacy_name(object)? {
                days.push(name.group.date);
            }
        }
        days.sort_unstable();
        days.dedup();
        Ok(days)
    }

    pub(crate) async fn load_legacy_day(&self, date: Date, began: Duration) -> Result<Option<Arc<Day>>, ArchiveError> {
        let prefix = LegacyName::day_prefix(date);
        let objects = list_all(self.store.as_ref(), &prefix, Depth::Direct, OBJECTS_MAX).await?;
        let mut shards = Vec::new();
        for object in &objects {
            if let Some(name) = self.legacy_name(object)? {
                shards.push((name, object));
            }
        }
        if shards.is_empty() {
            return Ok(None);
        }
        shards.sort_unstable_by_key(|(name, _)| *name);
        let shards = shards
            .into_iter()
            .zip(1_u32..)
            .map(|((name, object), serial)| legacy_day_shard(&name, object, serial))
            .collect();
        let set = self.tombstone_set(date);
        for object in
            objects.iter().filter(|object| LegacyName::parse_sidecar(object.key.as_str(), self.bits()).is_ok())
        {
            let fetched = self.store.get(&object.key, SIDECAR_LEN_MAX).await?;
            let sidecar = Sidecar::parse(&fetched.bytes).map_err(|error| ArchiveError::damaged(&object.key, error))?;
            set.extend(sidecar.tombstones.iter().map(|one| self.uid_hasher.hash(&one.uid)));
        }
        Ok(Some(Arc::new(Day::new(shards, set, None, began))))
    }

    fn legacy_name(&self, object: &ObjectMeta) -> Result<Option<LegacyName>, ArchiveError> {
        match LegacyName::parse(object.key.as_str(), self.bits()) {
            Ok(name) => Ok(Some(name)),
            Err(LegacyNameError::Other) => Ok(None),
            Err(error @ LegacyNameError::OtherBits { .. }) => {
                Err(ArchiveError::refused(format!("{}: {error}; give the right one with n_bits", object.key)))
            }
        }
    }

    pub(crate) async fn open_legacy_shard(&self, shard: &DayShard) -> Result<(OpenShard, usize), ArchiveError> {
        let key = &shard.key;
        let damaged = |error: FormatError| ArchiveError::damaged(key, error);
        let cut = || damaged(FormatError::damaged("shard", format!("{} bytes are too few", shard.len)));
        let tail = self.store.get_tail(key, TAIL_BYTES).await?;
        let etag = tail.meta.etag;
        let (rest, footer) = tail.bytes.split_last_chunk().ok_or_else(cut)?;
        let range =
            LegacyFooter::decode(footer).and_then(|footer| footer.index_range(tail.meta.len)).map_err(damaged)?;
        let header_len = u64::try_from(LegacyHeader::LEN).unwrap_or(u64::MAX);
        let header = self.store.get_range(key, 0..header_len, Some(&etag)).await?;
        let header = LegacyHeader::decode(header.first_chunk().ok_or_else(cut)?).map_err(damaged)?;
        let index_len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let bytes = match rest.len().checked_sub(index_len) {
            Some(from) => tail.bytes.slice(from..rest.len()),
            None => self.store.get_range(key, range.clone(), Some(&etag)).await?,
        };
        let index = LegacyIndex::parse(header.version, bytes, range.start).map_err(damaged)?;
        let Some(date) = LegacyName::parse(key.as_str(), self.bits()).ok().map(|name| name.group.date) else {
            return Err(ArchiveError::inconsistent(key, "it is not named as a shard of the ancestor"));
        };
        let weight = index.memory_bytes();
        let index = Index::Legacy(LegacyShard { index, date });
        Ok((OpenShard::new(shard, etag, index), weight))
    }

    pub(crate) async fn read_legacy(
        &self,
        shard: &OpenShard,
        file: &LegacyFile,
        offset: u64,
        size: u64,
    ) -> Result<Bytes, ArchiveError> {
        let range = |start: u64| start.saturating_add(offset)..start.saturating_add(offset).saturating_add(size);
        match file.location {
            Location::Inline { offset: start, codec: desfmt::legacy::LegacyCodec::Stored, .. } => {
                self.shard_bytes(shard, range(start)).await
            }
            Location::Inline { offset: start, stored_len, codec, plain_len } => {
                let cache_key = CacheKey::Frame(shard.id, file.ordinal);
                let plain = if let Some(Cached::Frame(plain)) = self.cache.get(&cache_key) {
                    plain
                } else {
                    check_compressed_len(stored_len).map_err(|error| shard.damaged(error))?;
                    let stored = self.shard_bytes(shard, start..start.saturating_add(stored_len)).await?;
                    let plain = decode_payload(codec, &stored, plain_len).map_err(|error| shard.damaged(error))?;
                    let plain = Bytes::from(plain);
                    self.cache.insert(cache_key, Cached::Frame(plain.clone()), plain.len());
                    plain
                };
                let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(plain.len());
                Ok(plain.slice(within(offset)..within(offset.saturating_add(size))))
            }
            Location::BigFile { hash, len } => {
                let key = hash
                    .key(&shard.key, BIG_FILES_PREFIX)
                    .map_err(|error| ArchiveError::inconsistent(&shard.key, error.to_string()))?;
                let meta = self.proven_big_file(&key, hash, len).await?;
                Ok(self.store.get_range(&key, range(0), Some(&meta)).await?)
            }
        }
    }

    /// Proves that a big file of a shard has its content.
    pub(crate) async fn prove_big_file(
        &self,
        shard: &ObjectKey,
        hash: desfmt::legacy::BigFileHash,
        len: u64,
    ) -> Result<(), ArchiveError> {
        let key =
            hash.key(shard, BIG_FILES_PREFIX).map_err(|error| ArchiveError::inconsistent(shard, error.to_string()))?;
        self.proven_big_file(&key, hash, len).await.map(drop)
    }

    /// The version of a big file that is proven to have its content; hashes the whole file once.
    async fn proven_big_file(
        &self,
        key: &ObjectKey,
        hash: desfmt::legacy::BigFileHash,
        len: u64,
    ) -> Result<crate::store::ETag, ArchiveError> {
        if let Some(Cached::BigFile(etag)) = self.cache.get(&CacheKey::BigFile(hash)) {
            return Ok(etag);
        }
        let meta = self.store.head(key).await?;
        if meta.len != len {
            let detail = format!("it has {} bytes, the index of its shard says {len}", meta.len);
            return Err(ArchiveError::inconsistent(key, detail));
        }
        let mut hasher = BigFileHasher::new();
        let mut at = 0;
        while at < len {
            let end = at.saturating_add(HASH_BYTES).min(len);
            hasher.update(&self.store.get_range(key, at..end, Some(&meta.etag)).await?);
            at = end;
        }
        hash.check(hasher.finish()).map_err(|error| ArchiveError::damaged(key, error))?;
        self.cache.insert(CacheKey::BigFile(hash), Cached::BigFile(meta.etag.clone()), 256);
        Ok(meta.etag)
    }

    /// Sums what the listing shows; how many files that is only the shards know.
    pub(crate) async fn sum_legacy(&self) -> Result<Totals, ArchiveError> {
        let mut totals = Totals::default();
        for date in self.list_legacy_days().await? {
            let Some(day) = self.day(date).await? else { continue };
            for shard in &day.shards {
                totals.stored_bytes = totals.stored_bytes.saturating_add(shard.len);
                if let Index::Legacy(legacy) = &self.open_shard(shard).await?.index {
                    totals.files = totals.files.saturating_add(u64::try_from(legacy.index.len()).unwrap_or(u64::MAX));
                    let sizes = legacy.index.iter().map(|entry| entry.location.plain_len());
                    totals.plain_bytes = totals.plain_bytes.saturating_add(sizes.fold(0, u64::saturating_add));
                }
            }
        }
        Ok(totals)
    }
}

/// A shard as a listing shows it.
pub(crate) fn legacy_day_shard(name: &LegacyName, object: &ObjectMeta, serial: u32) -> DayShard {
    DayShard {
        key: object.key.clone(),
        id: ShardId::of_legacy_object(object.key.as_str(), object.len, &object.etag.0),
        bucket: name.group.bucket.number(),
        len: object.len,
        tail_len: 0,
        entries: 0,
        uid_min: None,
        uid_max: None,
        serials: vec![serial],
    }
}
