//! Small archives for tests: files go in as pairs of uid and content, without the packer.
#![expect(clippy::clone_on_ref_ptr, reason = "`Arc::clone` does not turn an Arc of a store into an Arc of any store")]

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use desfmt::document::{self, DOCUMENT_LEN_MAX, Manifest, ManifestShard};
use desfmt::layout::{self, ShardName};
use desfmt::{BucketBits, Date, Group, ObjectKey, Timestamp, Uid, v3};

use crate::archive::{Archive, ReadOptions};
use crate::clock::{ManualClock, SeededRandom};
use crate::error::{StoreError, StoreErrorKind};
use crate::memory::MemoryStore;
use crate::publish::{ArchiveWriter, BuiltShard, Outcome, Swapped};
use crate::store::{Depth, ETag, Fetched, ObjectMeta, ObjectStore, Page, Payload, Receipt};

/// The day that most tests use.
pub(crate) fn day() -> Date {
    "20240115".parse().unwrap()
}

/// A uid.
pub(crate) fn uid(text: &str) -> Uid {
    Uid::new(text).unwrap()
}

/// An archive in memory, and what tests need to play with it.
pub(crate) struct Fixture {
    pub(crate) store: Arc<Observed>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) writer: ArchiveWriter,
    pub(crate) scratch: tempfile::TempDir,
}

impl Fixture {
    /// One with a single bucket a day.
    pub(crate) async fn new() -> Self {
        Self::with_bits(0).await
    }

    /// One with so many bits of a bucket number.
    pub(crate) async fn with_bits(bits: u8) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_705_300_000_000_000)));
        let inner = MemoryStore::new(clock.clone());
        let store = Arc::new(Observed {
            inner,
            calls: Mutex::default(),
            ranges: Mutex::default(),
            after_list: Mutex::default(),
            yields: AtomicBool::new(false),
            flips: AtomicUsize::new(0),
            range_len_max: AtomicU64::new(u64::MAX),
        });
        let writer = ArchiveWriter::create(
            store.clone(),
            BucketBits::new(bits).unwrap(),
            clock.clone(),
            Arc::new(SeededRandom::new(1)),
        );
        let writer = writer.await.unwrap();
        Self { store, clock, writer, scratch: tempfile::tempdir().unwrap() }
    }

    /// Another writer of the same archive.
    pub(crate) async fn writer(&self, seed: u64) -> ArchiveWriter {
        let store = self.store.clone();
        let clock = self.clock.clone();
        ArchiveWriter::open(store, clock, Arc::new(SeededRandom::new(seed))).await.unwrap().unwrap()
    }

    /// A mount, as it were.
    pub(crate) async fn reader(&self) -> Arc<Archive> {
        self.reader_with(ReadOptions::default()).await
    }

    /// A mount with options of its own.
    pub(crate) async fn reader_with(&self, options: ReadOptions) -> Arc<Archive> {
        let store = self.store.clone();
        let clock = self.clock.clone();
        Archive::open(store, options, clock, Arc::new(SeededRandom::new(2))).await.unwrap()
    }

    /// Builds a shard of files that were surveyed by a writer just now.
    pub(crate) async fn build(&self, writer: &ArchiveWriter, files: &[(&str, &[u8])]) -> BuiltShard {
        self.build_with(writer, files, v3::Codec::Zstd, None).await
    }

    /// The same with a codec and a dictionary.
    pub(crate) async fn build_with(
        &self,
        writer: &ArchiveWriter,
        files: &[(&str, &[u8])],
        codec: v3::Codec,
        dictionary: Option<&v3::Dictionary>,
    ) -> BuiltShard {
        build_in(self.scratch.path(), writer, files, (codec, dictionary)).await.unwrap()
    }

    /// The manifest of the day.
    pub(crate) async fn manifest(&self) -> Manifest {
        let fetched = self.store.get(&layout::manifest(day()), DOCUMENT_LEN_MAX).await.unwrap();
        document::decode(&fetched.bytes).unwrap()
    }

    /// Puts another shard in the place of the only one, with these files of it, each with the ordinal it was born with,
    /// and takes the old object away. Whether they are the same files is the caller's affair.
    pub(crate) async fn repack(&self, files: &[(&str, &[u8], u32)]) {
        let old = self.manifest().await.shards.remove(0);
        let (files, ordinals): (Vec<(&str, &[u8])>, Vec<u32>) =
            files.iter().map(|(name, content, ordinal)| ((*name, *content), *ordinal)).unzip();
        let parents = vec![v3::Parent { shard: old.shard, body_digest: blake3::hash(b"") }];
        let lineage = v3::Lineage { serials: old.serials.clone(), parents };
        let (mut bytes, body) = body(&self.writer, &files, (v3::Codec::Zstd, None), Some((lineage, &ordinals)));
        let repack = old.repack.checked_add(1).unwrap();
        let bits = self.writer.identity().bits();
        let name = ShardName { repack, ..old.name(day(), bits).unwrap() };
        bytes.extend_from_slice(&body.footer_bytes(&name));
        let new = ManifestShard {
            repack,
            key: layout::shard(&name),
            shard: body.shard_id(),
            len: body.object_len(),
            tail_len: body.tail_len(),
            blake3: blake3::hash(&bytes).to_string(),
            entries: body.entries(),
            plain_len: body.plain_len(),
            uid_min: None,
            uid_max: None,
            ..old.clone()
        };
        self.store.put(&new.key, Payload::Bytes(bytes.into())).await.unwrap();
        let swapped = self.writer.swap(day(), vec![(old.key.clone(), old.shard)], vec![new]).await.unwrap();
        assert_eq!(swapped, Swapped::Done);
        self.store.delete(&old.key).await.unwrap();
    }

    /// Publishes files as one shard.
    pub(crate) async fn pack(&self, files: &[(&str, &[u8])]) -> Outcome {
        let shard = self.build(&self.writer, files).await;
        self.writer.publish(&shard).await.unwrap()
    }
}

/// The births of a repacked shard: what it was made from, and with which ordinal each of its files was born.
pub(crate) type Births<'a> = (v3::Lineage, &'a [u32]);

/// Builds a shard in a directory. All files belong to the group of the first.
pub(crate) async fn build_in(
    scratch: &std::path::Path,
    writer: &ArchiveWriter,
    files: &[(&str, &[u8])],
    (codec, dictionary): (v3::Codec, Option<&v3::Dictionary>),
) -> Result<BuiltShard, crate::archive::ArchiveError> {
    let first = files.first().map_or("any", |(name, _)| *name);
    let group = Group::of(day(), first, writer.identity().bits()).unwrap();
    let mut files = files.to_vec();
    files.sort_unstable();
    let uids: Arc<[Uid]> = files.iter().map(|(name, _)| uid(name)).collect();
    let survey = writer.survey(&group, &uids).await?;
    let (bytes, body) = body(writer, &files, (codec, dictionary), None);
    let path = scratch.join(format!("{}.tmp", body.shard_id()));
    std::fs::write(&path, bytes).unwrap();
    let plain_len = files.iter().map(|(_, content)| u64::try_from(content.len()).unwrap()).sum();
    Ok(BuiltShard { group, file: path, body, uids, plain_len, survey })
}

/// Builds the body of a shard: its bytes but for the footer, and what is known of it. The files come in the order of their
/// uids.
pub(crate) fn body(
    writer: &ArchiveWriter,
    files: &[(&str, &[u8])],
    (codec, dictionary): (v3::Codec, Option<&v3::Dictionary>),
    births: Option<Births<'_>>,
) -> (Vec<u8>, v3::Body) {
    let (lineage, ordinals) = births.unwrap_or_default();
    let settings = v3::BodySettings { archive: writer.identity().archive, codec };
    let encoder = v3::FrameEncoder::new(codec, 3, dictionary).unwrap();
    let mut body = v3::BodyWriter::new(settings, dictionary, lineage).unwrap();
    let mut cutter = v3::FrameCutter::new(v3::FrameSize::default());
    let (mut bytes, mut frames) = (body.header(), Vec::new());
    for (at, (name, content)) in files.iter().enumerate() {
        cutter.push(content, &mut frames).unwrap();
        let placement = cutter.end_file(&mut frames).unwrap();
        let entry = v3::NewEntry {
            uid: &uid(name),
            created_at: day().start(),
            mtime: v3::Mtime { seconds: day().start().seconds(), nanos: 0 },
            offset: placement.offset,
            len: placement.len,
            digest: blake3::hash(content),
            metadata: None,
            birth: ordinals.get(at).map(|ordinal| (0, *ordinal)),
        };
        body.push_entry(entry).unwrap();
    }
    cutter.finish(&mut frames).unwrap();
    for frame in frames {
        bytes.extend(body.push_frame(encoder.encode(&frame).unwrap()).unwrap());
    }
    let body = body.finish().unwrap();
    bytes.extend_from_slice(body.trailer());
    (bytes, body)
}

type Hook = Box<dyn FnOnce(&MemoryStore) + Send>;

/// A store that writes down what it is asked, and lets a test step in after a listing.
pub(crate) struct Observed {
    pub(crate) inner: MemoryStore,
    calls: Mutex<Vec<String>>,
    ranges: Mutex<Vec<Range<u64>>>,
    after_list: Mutex<Option<Hook>>,
    yields: AtomicBool,
    flips: AtomicUsize,
    range_len_max: AtomicU64,
}

impl std::fmt::Debug for Observed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observed")
    }
}

impl Observed {
    /// What was asked since the last time.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// Which ranges were read since the last time.
    pub(crate) fn take_ranges(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut *self.ranges.lock().unwrap())
    }

    /// Flips a bit in each of the next so many ranges that are read.
    pub(crate) fn flip_next_ranges(&self, count: usize) {
        self.flips.store(count, Ordering::Relaxed);
    }

    /// From now on longer ranges cannot be read.
    pub(crate) fn refuse_ranges_beyond(&self, len_max: u64) {
        self.range_len_max.store(len_max, Ordering::Relaxed);
    }

    /// Runs once, right after the next listing was answered.
    pub(crate) fn after_next_list(&self, hook: impl FnOnce(&MemoryStore) + Send + 'static) {
        *self.after_list.lock().unwrap() = Some(Box::new(hook));
    }

    /// From now on every call lets others go first, and once more before its answer arrives.
    pub(crate) fn let_others_in_between(&self) {
        self.yields.store(true, Ordering::Relaxed);
    }

    fn note(&self, call: &str, key: &(dyn std::fmt::Display + Sync)) {
        self.calls.lock().unwrap().push(format!("{call} {key}"));
    }

    async fn step_aside(&self) {
        if self.yields.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl ObjectStore for Observed {
    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<Fetched, StoreError> {
        self.note("get", key);
        self.step_aside().await;
        let answer = self.inner.get(key, len_max).await;
        self.step_aside().await;
        answer
    }

    async fn get_if_changed(&self, key: &ObjectKey, etag: &ETag, len_max: u64) -> Result<Option<Fetched>, StoreError> {
        self.note("get_if_changed", key);
        self.step_aside().await;
        let answer = self.inner.get_if_changed(key, etag, len_max).await;
        self.step_aside().await;
        answer
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        self.note("get_range", key);
        self.ranges.lock().unwrap().push(range.clone());
        self.step_aside().await;
        if range.end.saturating_sub(range.start) > self.range_len_max.load(Ordering::Relaxed) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "get_range", key));
        }
        let answer = self.inner.get_range(key, range, etag).await;
        self.step_aside().await;
        let is_flipped = |flips: usize| flips.checked_sub(1);
        if self.flips.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_flipped).is_ok() {
            let mut flipped = answer?.to_vec();
            let middle = flipped.len() / 2;
            flipped[middle] ^= 1;
            return Ok(flipped.into());
        }
        answer
    }

    async fn get_tail(&self, key: &ObjectKey, len: u64) -> Result<Fetched, StoreError> {
        self.note("get_tail", key);
        self.step_aside().await;
        let answer = self.inner.get_tail(key, len).await;
        self.step_aside().await;
        answer
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        self.note("head", key);
        self.step_aside().await;
        let answer = self.inner.head(key).await;
        self.step_aside().await;
        answer
    }

    async fn put_if_absent(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        self.note("put_if_absent", key);
        self.step_aside().await;
        let answer = self.inner.put_if_absent(key, payload).await;
        self.step_aside().await;
        answer
    }

    async fn put_if_match(&self, key: &ObjectKey, etag: &ETag, payload: Payload) -> Result<Receipt, StoreError> {
        self.note("put_if_match", key);
        self.step_aside().await;
        let answer = self.inner.put_if_match(key, etag, payload).await;
        self.step_aside().await;
        answer
    }

    async fn put(&self, key: &ObjectKey, payload: Payload) -> Result<Receipt, StoreError> {
        self.note("put", key);
        self.step_aside().await;
        let answer = self.inner.put(key, payload).await;
        self.step_aside().await;
        answer
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.note("delete", key);
        self.step_aside().await;
        let answer = self.inner.delete(key).await;
        self.step_aside().await;
        answer
    }

    async fn purge(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.note("purge", key);
        self.step_aside().await;
        let answer = self.inner.purge(key).await;
        self.step_aside().await;
        answer
    }

    async fn time(&self) -> Result<Timestamp, StoreError> {
        self.note("time", &"");
        self.inner.time().await
    }

    async fn list(&self, prefix: &str, depth: Depth, token: Option<&str>) -> Result<Page, StoreError> {
        self.note("list", &prefix);
        self.step_aside().await;
        let page = self.inner.list(prefix, depth, token).await;
        self.step_aside().await;
        if let Some(hook) = self.after_list.lock().unwrap().take() {
            hook(&self.inner);
        }
        page
    }
}
