//! Pieces of objects on a local disk, for stores that are far: what was fetched once need not be fetched again after a
//! restart, or when memory was too small for it.
//!
//! The cache is only ever a copy: whatever happens to it, reads go on. Pieces are appended to segments, the oldest of which
//! goes when room is needed, so that the quota holds at every moment. Each piece is proven when it is read: nothing that a
//! crash, a bad disk or a stranger has left there is served. One thread does all writing and forgetting; readers only look
//! into a table in memory and read the piece. The files are described in `docs/caching.md`, the choice against a library in
//! `docs/decisions/0006-cache-on-disk.md`.

mod keeper;
mod record;
mod segment;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use desfmt::ShardId;

use crate::clock::Clock;
use crate::store::ETag;
use keeper::{Job, Keeper};
use record::Record;
use segment::Directory;
use table::Table;

/// How a cache on disk is to be kept.
#[derive(Debug, Clone)]
pub struct DiskCacheOptions {
    /// Where. Made if it is not there; nothing else should lie in it.
    pub directory: PathBuf,
    /// What all of its files together may take, metadata among them.
    pub bytes_max: u64,
    /// What it leaves free on its file system.
    pub bytes_free_min: u64,
    /// What it may take in memory, for its table and for what waits to be written.
    pub memory_bytes: u64,
}

impl DiskCacheOptions {
    /// A cache that leaves a twentieth of its file system free, or 1 GiB if that is less.
    pub fn new(directory: &Path, bytes_max: u64, memory_bytes: u64) -> Self {
        let twentieth = make_private(directory).and_then(|()| Ok(rustix::fs::statvfs(directory)?));
        let twentieth = twentieth.map(|left| left.f_blocks.saturating_mul(left.f_frsize) / 20);
        let bytes_free_min = twentieth.unwrap_or(u64::MAX).min(1 << 30);
        Self { directory: directory.to_owned(), bytes_max, bytes_free_min, memory_bytes }
    }
}

/// The smallest quota that a cache can do something with.
pub const DISK_CACHE_BYTES_MIN: u64 = 16 << 20;

/// Pieces that nobody has read for so long are forgotten: a deleted file may be among them of whose deletion this host
/// has not heard.
const UNREAD_MAX: Duration = Duration::from_hours(24);

/// The part of its memory that is for bytes which wait to be written: one in so many. What comes on top is not kept.
const QUEUE_SHARE: u64 = 4;
const QUEUE_JOBS_MAX: usize = 4_096;

/// Memory that an entry of the table takes, roughly.
const ENTRY_BYTES: u64 = 96;

/// What a piece is, within its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Piece {
    /// A frame, by its number.
    Frame(u32),
    /// The tail, with the version of the object before it.
    Tail,
    /// Pages of the index, by where they begin in the object.
    Pages(u64),
}

impl Piece {
    /// The number that stands for it on disk.
    fn number(self) -> u64 {
        match self {
            Self::Frame(number) => u64::from(number),
            Self::Tail => 1 << 62,
            Self::Pages(start) => (1 << 63) | (start & ((1 << 62) - 1)),
        }
    }
}

/// What a cache on disk has done so far, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskCacheStats {
    /// Lookups that found a piece.
    pub hits: u64,
    /// Lookups that found none.
    pub misses: u64,
    /// Pieces written.
    pub written: u64,
    /// Pieces that were not written because the disk could not keep up.
    pub skipped: u64,
    /// Pieces dropped to make room.
    pub evicted_by_size: u64,
    /// Pieces dropped because nobody had read them for a day.
    pub evicted_by_age: u64,
    /// Pieces dropped because the disk had too little space left.
    pub evicted_by_pressure: u64,
    /// Pieces dropped because a file in them was deleted, or their object replaced.
    pub removed: u64,
    /// Pieces that did not prove themselves when they were read.
    pub damaged: u64,
    /// Operations on the disk that failed.
    pub failed: u64,
    /// Pieces held now.
    pub entries: u64,
    /// What the files take now.
    pub bytes: u64,
    /// What they may take.
    pub bytes_max: u64,
}

/// A cache on disk. Clones share it.
#[derive(Debug, Clone)]
pub struct DiskCache {
    shared: Arc<Shared>,
    /// Last, so that the thread ends when nobody can ask for anything any more.
    writer: Arc<Writer>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    bytes_max: u64,
    table: Mutex<Table>,
    queued_bytes: AtomicU64,
    queue_bytes_max: u64,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    written: AtomicU64,
    skipped: AtomicU64,
    evicted_by_size: AtomicU64,
    evicted_by_age: AtomicU64,
    evicted_by_pressure: AtomicU64,
    removed: AtomicU64,
    damaged: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
}

fn count(counter: &AtomicU64, count: usize) {
    counter.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds of monotonic time, counted from two days before it began, so that the age of what was there before can be
    /// told.
    fn now(&self) -> u32 {
        let since = self.clock.monotonic().saturating_add(UNREAD_MAX).saturating_add(UNREAD_MAX);
        u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
    }
}

impl DiskCache {
    /// Opens a cache, in constant time: what is in it is found out meanwhile. Fails where the directory cannot be used or
    /// another process uses it.
    pub fn open(options: &DiskCacheOptions, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let directory = Directory::open(&options.directory)?;
        let queue_bytes_max = options.memory_bytes / QUEUE_SHARE;
        let entries_max = (options.memory_bytes.saturating_sub(queue_bytes_max) / ENTRY_BYTES).max(1_024);
        let shared = Arc::new(Shared {
            clock,
            bytes_max: options.bytes_max,
            table: Mutex::new(Table::new(usize::try_from(entries_max).unwrap_or(usize::MAX))),
            queued_bytes: AtomicU64::new(0),
            queue_bytes_max,
            counters: Counters::default(),
        });
        let (jobs, to_do) = sync_channel(QUEUE_JOBS_MAX);
        let keeper = Keeper::new(directory, options, Arc::clone(&shared));
        let builder = std::thread::Builder::new().name("disk cache".to_owned());
        let thread = builder.spawn(move || keeper.run(&to_do))?;
        Ok(Self { shared, writer: Arc::new(Writer { jobs: Some(jobs), thread: Some(thread) }) })
    }

    /// The bytes of a piece. Reads from the disk on another thread.
    pub(crate) async fn get(&self, shard: ShardId, etag: &ETag, piece: Piece) -> Option<Bytes> {
        let version = version_of(etag);
        let (record, file) = self.find(shard, Some(version), piece)?;
        self.read(record, file).await
    }

    /// The tail of a shard, and the version of the object that it is of.
    pub(crate) async fn tail(&self, shard: ShardId) -> Option<(ETag, Bytes)> {
        let (record, file) = self.find(shard, None, Piece::Tail)?;
        let bytes = self.read(record, file).await?;
        let (len, rest) = bytes.split_first_chunk()?;
        let etag = rest.get(..usize::from(u16::from_le_bytes(*len)))?;
        let etag = ETag(String::from_utf8(etag.to_vec()).ok()?);
        let head = len.len().saturating_add(etag.0.len());
        (version_of(&etag) == record.version).then(|| (etag, bytes.slice(head..)))
    }

    /// True when the tail of a shard can be had without a request.
    pub(crate) fn has_tail(&self, shard: ShardId) -> bool {
        self.shared.table().find(shard, None, Piece::Tail.number(), None).is_some()
    }

    /// True when a piece is held.
    pub(crate) fn contains(&self, shard: ShardId, etag: &ETag, piece: Piece) -> bool {
        self.shared.table().find(shard, Some(version_of(etag)), piece.number(), None).is_some()
    }

    /// Keeps pieces of an object; they are written later, or not at all if the disk cannot keep up.
    pub(crate) fn put(&self, shard: ShardId, etag: &ETag, pieces: Vec<(Piece, Bytes)>) {
        let bytes = pieces.iter().map(|(_, bytes)| len_of(bytes)).fold(0, u64::saturating_add);
        let count_of_pieces = pieces.len();
        let queued = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let job = Job::Write { shard, version: version_of(etag), pieces, bytes };
        if queued.saturating_add(bytes) > self.shared.queue_bytes_max || !self.writer.send(job) {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            count(&self.shared.counters.skipped, count_of_pieces);
        }
    }

    /// Keeps the tail of a shard.
    pub(crate) fn put_tail(&self, shard: ShardId, etag: &ETag, tail: &Bytes) {
        let Ok(len) = u16::try_from(etag.0.len()) else { return };
        let mut bytes = len.to_le_bytes().to_vec();
        bytes.extend_from_slice(etag.0.as_bytes());
        bytes.extend_from_slice(tail);
        self.put(shard, etag, vec![(Piece::Tail, bytes.into())]);
    }

    /// Forgets frames of a shard for good: a file in them was deleted. They are not served from now on, taken off the disk
    /// soon, and not taken in again.
    pub(crate) fn forget(&self, shard: ShardId, frames: impl IntoIterator<Item = u32>) {
        let removed = self.shared.table().condemn(shard, frames.into_iter().map(u64::from));
        count(&self.shared.counters.removed, removed);
        self.writer.wake();
    }

    /// Forgets the tail of a shard, and does not take it in again.
    pub(crate) fn forget_tail(&self, shard: ShardId) {
        let removed = self.shared.table().condemn(shard, std::iter::once(Piece::Tail.number()));
        count(&self.shared.counters.removed, removed);
        self.writer.wake();
    }

    /// Forgets a piece that was not what it should be.
    pub(crate) fn discard(&self, shard: ShardId, etag: &ETag, piece: Piece) {
        let mut table = self.shared.table();
        if let Some((record, _)) = table.find(shard, Some(version_of(etag)), piece.number(), None) {
            table.remove(&record);
            self.shared.counters.damaged.fetch_add(1, Ordering::Relaxed);
        }
        drop(table);
        self.writer.wake();
    }

    /// Forgets everything of a shard for good: it is no longer current.
    pub(crate) fn retire_shard(&self, shard: ShardId) {
        let removed = self.shared.table().condemn_shard(shard);
        if removed > 0 {
            count(&self.shared.counters.removed, removed);
            self.writer.wake();
        }
    }

    /// Forgets everything of a shard: another version of its object may be there.
    pub(crate) fn forget_shard(&self, shard: ShardId) {
        let removed = self.shared.table().remove_shard(shard);
        if removed > 0 {
            count(&self.shared.counters.removed, removed);
            self.writer.wake();
        }
    }

    /// Forgets what nobody has read for a day, and tries again where the disk had failed. To be called now and then.
    pub fn tend(&self) {
        self.writer.send(Job::Tend);
    }

    /// What it has done so far, and what it holds.
    pub fn stats(&self) -> DiskCacheStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        DiskCacheStats {
            hits: read(&counters.hits),
            misses: read(&counters.misses),
            written: read(&counters.written),
            skipped: read(&counters.skipped),
            evicted_by_size: read(&counters.evicted_by_size),
            evicted_by_age: read(&counters.evicted_by_age),
            evicted_by_pressure: read(&counters.evicted_by_pressure),
            removed: read(&counters.removed),
            damaged: read(&counters.damaged),
            failed: read(&counters.failed),
            entries: u64::try_from(self.shared.table().len()).unwrap_or(u64::MAX),
            bytes: read(&counters.bytes),
            bytes_max: self.shared.bytes_max,
        }
    }

    /// Waits until everything that was asked for so far is done.
    #[cfg(test)]
    pub(crate) fn settle(&self) {
        let (done, is_done) = std::sync::mpsc::channel();
        self.writer.jobs.as_ref().unwrap().send(Job::Tell(done)).unwrap();
        is_done.recv().unwrap();
    }

    fn find(&self, shard: ShardId, version: Option<u64>, piece: Piece) -> Option<(Record, Arc<std::fs::File>)> {
        let found = self.shared.table().find(shard, version, piece.number(), Some(self.shared.now()));
        if found.is_none() {
            self.shared.counters.misses.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    async fn read(&self, record: Record, file: Arc<std::fs::File>) -> Option<Bytes> {
        let read = tokio::task::spawn_blocking(move || record.read_proven(&file)).await;
        let counters = &self.shared.counters;
        if let Ok(Ok(bytes)) = read {
            counters.hits.fetch_add(1, Ordering::Relaxed);
            return Some(bytes);
        }
        counters.misses.fetch_add(1, Ordering::Relaxed);
        counters.damaged.fetch_add(1, Ordering::Relaxed);
        self.shared.table().remove(&record);
        self.writer.wake();
        None
    }
}

/// The way to the thread that writes. Dropped, it lets the thread finish what it is at and waits for that.
struct Writer {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

impl Writer {
    /// False when there is too much to do.
    fn send(&self, job: Job) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok())
    }

    /// What is to be taken off the disk stands in the table; if there is too much to do the thread finds it all the same.
    fn wake(&self) {
        self.send(Job::Wake);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn version_of(etag: &ETag) -> u64 {
    let hash = blake3::hash(etag.0.as_bytes());
    hash.as_bytes().first_chunk().map_or(0, |head| u64::from_le_bytes(*head))
}

fn len_of(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Makes the directory of a cache, for its owner alone.
fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
