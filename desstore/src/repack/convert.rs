//! Shards of the ancestor become shards of the current version.
//!
//! Their files are compressed anew, those that are deleted left out. Each gets a new birth number: the ancestor wrote files in
//! the order in which it was given them, and a shard of the current version has ascending birth numbers in the order of
//! uids. What is open goes on being read from the old shard for as long as that is there.
//!
//! Of a uid that several flat shards of a group hold, the oldest split counts, and no name reaches the others: those are
//! left out, as long as the shards come in the order from the last split to the first.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use desfmt::document::{Manifest, ManifestShard};
use desfmt::legacy::{BIG_FILES_PREFIX, BigFileHash, BigFileHasher, LegacyEntry, Location};
use desfmt::v3::{BodySettings, BodyWriter, FrameCutter, FrameEncoder, Lineage, Mtime, NewEntry, PageNumber};
use desfmt::{ArchiveId, BucketBits, Date, Digest, ShardName, Timestamp, Uid, bucket_of, layout};

use crate::archive::{ArchiveError, DayShard, OpenShard};
use crate::deletions::Deletions;
use crate::inventory::ReadManifest;
use crate::publish::ArchiveWriter;
use crate::repack::body_file::{BodyFile, Trouble, refused};
use crate::repack::encode::FrameQueue;
use crate::repack::files::{Files, LiveFiles};
use crate::repack::flat::FlatShard;
use crate::repack::local::{LocalShard, SpoolFile};
use crate::repack::merge::Liveness;
use crate::repack::rebuild::{Rebuilt, RebuiltShard};
use crate::repack::verify::compare_contents;
use crate::repack::{Chosen, Done, RepackSettings, Repacked, blocking};

impl ArchiveWriter {
    /// Converts flat shards of a group, the last split first, each in a commit of its own.
    pub(super) async fn convert_all(
        &self,
        date: Date,
        shards: &[ManifestShard],
        deletions: &Arc<Deletions>,
        settings: &RepackSettings,
    ) -> Result<Repacked, ArchiveError> {
        let mut shards: Vec<&ManifestShard> = shards.iter().collect();
        shards.sort_unstable_by_key(|shard| std::cmp::Reverse(shard.split));
        let (mut sum, mut has_successor) = (Done::default(), false);
        for flat in shards {
            match self.convert(date, flat, flat, deletions, settings).await? {
                Repacked::Swapped(done) => {
                    sum.add(&done);
                    has_successor = true;
                }
                Repacked::Dropped(done) => sum.add(&done),
                // What came before stands.
                other @ (Repacked::Nothing | Repacked::Overtaken) => return Ok(other),
            }
        }
        Ok(if has_successor { Repacked::Swapped(sum) } else { Repacked::Dropped(sum) })
    }

    /// Makes a shard of a flat one, and lets it take the place of a live one: of the flat one itself, or of what was made of it
    /// before.
    pub(crate) async fn convert(
        &self,
        date: Date,
        flat: &ManifestShard,
        old: &ManifestShard,
        deletions: &Arc<Deletions>,
        settings: &RepackSettings,
    ) -> Result<Repacked, ArchiveError> {
        let old = std::slice::from_ref(old);
        let files_dropped = self.state_of(flat, deletions).await?.dead_entries;
        if files_dropped >= u64::from(flat.entries) {
            return self.install_nothing(date, old, Done { files_dropped, ..Done::default() }).await;
        }
        let Some(earlier) = self.earlier_flats(date, flat, deletions).await? else { return Ok(Repacked::Overtaken) };
        let mut shard = self.fetch_healed(flat, settings, &|file| FlatShard::open(file, &flat.key)).await?;
        let liveness = Liveness { deletions: Arc::clone(deletions), hasher: self.archive().uid_hasher().clone() };
        let live = live_places(&shard, flat, self.bits(), |uid| {
            liveness.is_live(flat.shard, uid) && !earlier.iter().any(|open| open.holds_flat(uid))
        })?;
        drop(earlier);
        let bytes_read = self.fetch_big_files(flat, &mut shard, &live, settings).await?.saturating_add(flat.len);
        let Some(name) = flat.name(date, self.bits()) else {
            return Err(ArchiveError::inconsistent(&flat.key, "its bucket is not one of this archive"));
        };
        let conversion = Conversion {
            archive: self.identity().archive,
            date,
            name: ShardName { repack: name.repack.saturating_add(1), ..name },
            shard,
            live,
            settings: settings.clone(),
            spool_name: self.fresh_name("new"),
        };
        match blocking(move || conversion.run()).await? {
            Rebuilt::Nothing => Ok(Repacked::Nothing),
            Rebuilt::Empty(done) => self.install_nothing(date, old, Done { bytes_read, ..done }).await,
            Rebuilt::Shard(shard, done) => self.install(date, old, *shard, Done { bytes_read, ..done }, settings).await,
        }
    }

    /// The live flat shards of the same group with earlier splits, opened. None where a later one is flat too and shows any
    /// file: it would show those that this one hides.
    async fn earlier_flats(
        &self,
        date: Date,
        flat: &ManifestShard,
        deletions: &Deletions,
    ) -> Result<Option<Vec<Arc<OpenShard>>>, ArchiveError> {
        let Some(read) = ReadManifest::read(self.store.as_ref(), date).await? else { return Ok(None) };
        let mine = |other: &&ManifestShard| other.bucket == flat.bucket && layout::is_flat(&other.key);
        for later in read.manifest.shards.iter().filter(mine).filter(|other| other.split > flat.split) {
            if self.state_of(later, deletions).await?.dead_entries < u64::from(later.entries) {
                return Ok(None);
            }
        }
        self.open_earlier_flats(&read.manifest, (flat.bucket, flat.split), deletions).await.map(Some)
    }

    /// The live flat shards of a group with earlier splits than one of them, opened: what they hold counts.
    pub(crate) async fn open_earlier_flats(
        &self,
        manifest: &Manifest,
        (bucket, split): (u16, u32),
        deletions: &Deletions,
    ) -> Result<Vec<Arc<OpenShard>>, ArchiveError> {
        let mut earlier = Vec::new();
        for other in &manifest.shards {
            let is_earlier = other.bucket == bucket && other.split < split && layout::is_flat(&other.key);
            if is_earlier && !deletions.holds_shard(other.shard) {
                earlier.push(self.archive().open_shard(&DayShard::of(other)).await?);
            }
        }
        Ok(earlier)
    }

    /// Fetches the big files of all files that stay, and proves them. Returns their bytes.
    async fn fetch_big_files(
        &self,
        flat: &ManifestShard,
        shard: &mut FlatShard,
        live: &[bool],
        settings: &RepackSettings,
    ) -> Result<u64, ArchiveError> {
        let stay = shard.index().iter().zip(live).filter(|(_, is_live)| **is_live);
        let wanted: HashSet<(BigFileHash, u64)> = stay.filter_map(|(entry, _)| big_file(&entry)).collect();
        let mut bytes_read = 0_u64;
        for (hash, len) in wanted {
            let key = hash.key(&flat.key, BIG_FILES_PREFIX);
            let key = key.map_err(|error| ArchiveError::inconsistent(&flat.key, error.to_string()))?;
            let mut hasher = BigFileHasher::new();
            let mut see = |bytes: &[u8]| hasher.update(bytes);
            let teller = format!("the index of {}", flat.key);
            let fetched = self.fetch_into_spool(self.store.as_ref(), (&key, len, &teller), settings, &mut see).await;
            let (place, _) = fetched?;
            hash.check(hasher.finish()).map_err(|error| ArchiveError::damaged(&key, error))?;
            shard.take_big_file(hash, place);
            bytes_read = bytes_read.saturating_add(len);
        }
        Ok(bytes_read)
    }
}

fn big_file(entry: &LegacyEntry<'_>) -> Option<(BigFileHash, u64)> {
    match entry.location {
        Location::BigFile { hash, len } => Some((hash, len)),
        Location::Inline { .. } => None,
    }
}

/// Which of a shard's files stay, in the order of uids. Refused where one belongs to another group: no name leads to it,
/// and it would be gone.
fn live_places(
    shard: &FlatShard,
    flat: &ManifestShard,
    bits: BucketBits,
    is_live: impl Fn(&str) -> bool,
) -> Result<Vec<bool>, ArchiveError> {
    let mut live = Vec::with_capacity(shard.index().len());
    for entry in shard.index().iter() {
        if !bucket_of(entry.uid, bits).is_ok_and(|bucket| bucket.number() == flat.bucket) {
            let detail = format!("it holds {:?}, which belongs to another group; run des-verify", entry.uid);
            return Err(ArchiveError::inconsistent(&flat.key, detail));
        }
        live.push(is_live(entry.uid));
    }
    if shard.index().skipped() > 0 {
        tracing::warn!(key = %flat.key, files = shard.index().skipped(), "files without a uid are not taken over");
    }
    Ok(live)
}

/// A flat shard and what is to become of it.
#[derive(Debug)]
struct Conversion {
    archive: ArchiveId,
    date: Date,
    name: ShardName,
    shard: FlatShard,
    /// Which files stay, in the order of uids.
    live: Vec<bool>,
    settings: RepackSettings,
    spool_name: String,
}

impl Files for Conversion {
    fn bytes(&self) -> u64 {
        self.stay().map(|entry| entry.location.plain_len()).fold(0, u64::saturating_add)
    }

    fn for_each(
        &mut self,
        want: &mut dyn FnMut(u64) -> u64,
        take: &mut dyn FnMut(Vec<u8>),
    ) -> Result<(), ArchiveError> {
        for entry in self.stay() {
            let len = want(entry.location.plain_len()).min(entry.location.plain_len());
            if len == 0 {
                continue;
            }
            let mut head = Vec::new();
            self.shard.each_part(&entry, len, &mut |part| {
                head.extend_from_slice(part);
                Ok(())
            })?;
            take(head);
        }
        Ok(())
    }
}

impl Conversion {
    /// The files that stay, in the order of uids.
    fn stay(&self) -> impl Iterator<Item = LegacyEntry<'_>> {
        self.shard.index().iter().zip(&self.live).filter(|(_, is_live)| **is_live).map(|(entry, _)| entry)
    }

    /// Builds and verifies. Blocks. Memory: some 100 bytes an entry besides the index, and a few MiB of frames.
    fn run(mut self) -> Result<Rebuilt, ArchiveError> {
        let files_kept = u64::try_from(self.stay().count()).unwrap_or(u64::MAX);
        let files = u64::try_from(self.live.len()).unwrap_or(u64::MAX);
        let done = Done { files_dropped: files.saturating_sub(files_kept), files_kept, ..Done::default() };
        if files_kept == 0 {
            return Ok(Rebuilt::Empty(done));
        }
        let chooser = Arc::clone(&self.settings.chooser);
        let chosen = chooser.choose(&mut LiveFiles(&mut self))?;
        let (rebuilt, digests) = self.build(&chosen)?;
        self.verify(&rebuilt, &digests)?;
        let frames_encoded = u64::from(rebuilt.body.frames());
        Ok(Rebuilt::Shard(Box::new(rebuilt), Done { frames_encoded, ..done }))
    }

    /// The new shard, and the digests of the old contents.
    fn build(&self, chosen: &Chosen) -> Result<(RebuiltShard, Vec<Digest>), ArchiveError> {
        let encoder = FrameEncoder::new(chosen.codec, chosen.level, chosen.dictionary.as_ref()).map_err(refused)?;
        let settings = BodySettings { archive: self.archive, codec: chosen.codec };
        let body = BodyWriter::new(settings, chosen.dictionary.as_ref(), Lineage::default()).map_err(refused)?;
        let mut out = BodyFile::begin(body, &self.settings.spool, &self.spool_name)?;
        let mut queue = FrameQueue::new(encoder, self.settings.threads);
        let (mut cutter, mut frames) = (FrameCutter::new(chosen.frame_size), Vec::new());
        let mut placed: HashMap<Digest, u64> = HashMap::new();
        let (mut digests, mut plain_len) = (Vec::new(), 0_u64);
        let (mut first, mut last) = (None, None);
        for entry in self.stay() {
            let len = entry.location.plain_len();
            let digest = self.digest_of(&entry)?;
            let offset = match placed.get(&digest) {
                Some(offset) => *offset,
                None if len == 0 => 0,
                None => {
                    self.shard.each_part(&entry, len, &mut |part| {
                        cutter.push(part, &mut frames).map_err(refused)?;
                        queue.push_plain(&mut frames).map_err(refused)?;
                        queue.take(false, &mut |frame| out.write_frame(frame)).map_err(Trouble::into_inner)
                    })?;
                    let placement = cutter.end_file(&mut frames).map_err(refused)?;
                    placed.insert(digest, placement.offset);
                    placement.offset
                }
            };
            let uid = self.uid_of(&entry)?;
            let (created_at, mtime) = times_of(&entry, self.date);
            let metadata = metadata_of(&entry);
            let metadata = metadata.as_deref();
            out.push(NewEntry { uid: &uid, created_at, mtime, offset, len, digest, metadata, birth: None })?;
            plain_len = plain_len.saturating_add(len);
            first.get_or_insert_with(|| uid.clone());
            last = Some(uid);
            digests.push(digest);
        }
        cutter.finish(&mut frames).map_err(refused)?;
        queue.push_plain(&mut frames).map_err(refused)?;
        queue.take(true, &mut |frame| out.write_frame(frame)).map_err(Trouble::into_inner)?;
        let (file, body): (SpoolFile, _) = out.finish(&self.name)?;
        // The manifest gives it a serial.
        let serials = Vec::new();
        let rebuilt = RebuiltShard { file, body, name: self.name, serials, plain_len, uid_min: first, uid_max: last };
        Ok((rebuilt, digests))
    }

    fn digest_of(&self, entry: &LegacyEntry<'_>) -> Result<Digest, ArchiveError> {
        let mut hasher = blake3::Hasher::new();
        self.shard.each_part(entry, entry.location.plain_len(), &mut |part| {
            hasher.update(part);
            Ok(())
        })?;
        Ok(hasher.finalize())
    }

    fn uid_of(&self, entry: &LegacyEntry<'_>) -> Result<Uid, ArchiveError> {
        Uid::new(entry.uid).map_err(|error| ArchiveError::refused(format!("{}: {:?}: {error}", self.name, entry.uid)))
    }

    /// Compares the new shard with the old one through the reader's code: every entry, every byte.
    fn verify(&self, rebuilt: &RebuiltShard, digests: &[Digest]) -> Result<(), ArchiveError> {
        let path = rebuilt.file.path();
        let file = std::fs::File::open(path).map_err(|error| rebuilt.file.error(error))?;
        let shard = LocalShard::open(file, path.display().to_string())?;
        let wrong = |detail: String| shard.inconsistent(format!("converted wrongly, so it is given up: {detail}"));
        let mut old = self.stay().zip(digests);
        for page in (0..shard.index().index_pages()).map(PageNumber) {
            let (entries, cold) = (shard.index_page(page)?, shard.cold_page(page)?);
            for (place, new) in entries.entries().enumerate() {
                let Some((entry, digest)) = old.next() else {
                    return Err(wrong(format!("{:?} came from nowhere", new.uid)));
                };
                let is_same = new.uid.as_str() == entry.uid
                    && new.len == entry.location.plain_len()
                    && (new.created_at, new.mtime) == times_of(&entry, self.date)
                    && cold.digest(place) == Some(*digest)
                    && cold.metadata(place) == metadata_of(&entry).as_deref();
                if !is_same {
                    return Err(wrong(format!("{:?} where {:?} was", new.uid, entry.uid)));
                }
            }
        }
        if let Some((entry, _)) = old.next() {
            return Err(wrong(format!("{:?} is missing", entry.uid)));
        }
        compare_contents(&shard, self.settings.threads.max(1))
    }
}

/// The times that a file of the ancestor is shown with.
fn times_of(entry: &LegacyEntry<'_>, date: Date) -> (Timestamp, Mtime) {
    let created_at = entry.created_at().unwrap_or(date.start());
    (created_at, Mtime { seconds: created_at.seconds(), nanos: 0 })
}

/// Its metadata as JSON. What is JSON to the ancestor alone, such as `NaN`, is kept as a text.
fn metadata_of<'a>(entry: &LegacyEntry<'a>) -> Option<Cow<'a, str>> {
    let text = entry.metadata?;
    let is_json = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok();
    Some(if is_json { Cow::Borrowed(text) } else { Cow::Owned(serde_json::json!({ "des.legacy": text }).to_string()) })
}
