//! Taking the bytes of deleted files out: shards give way to others that hold the same files without them.
//!
//! A plan says which shards and why. Each job then reads its shards once and proves them, builds their successor in a
//! local file, proves that it holds exactly what it should, uploads it under a new name, reads it back, and swaps old for
//! new in one commit of the manifest. The old ones are only retired; [`crate::gc`] deletes them when the grace period is
//! over. The steps and what is safe when any of them dies are in `docs/protocol.md`.

mod body_file;
mod convert;
mod encode;
mod files;
mod flat;
mod install;
pub(crate) mod local;
mod merge;
mod placing;
pub(crate) mod plan;
mod rebuild;
mod source;
#[cfg(test)]
mod tests;
mod verify;

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use desfmt::document::ManifestShard;
use desfmt::v3::{Codec, Dictionary, FrameSize};
use desfmt::{Bucket, Date, Group, ObjectKey, layout};

use crate::archive::ArchiveError;
use crate::deletions::Deletions;
use crate::local::LocalStore;
use crate::publish::ArchiveWriter;
use crate::store::ObjectStore;

pub use files::LiveFiles;
pub use plan::{DayPlan, Job, Reason, ShardState, Thresholds};

/// What a rebuilt shard is compressed with.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The codec.
    pub codec: Codec,
    /// How hard zstd tries.
    pub level: i32,
    /// A dictionary made of nothing but live files.
    pub dictionary: Option<Dictionary>,
    /// How much content is compressed together.
    pub frame_size: FrameSize,
}

/// Decides how a shard that is compressed anew is compressed.
pub trait Chooser: Send + Sync + std::fmt::Debug {
    /// Decides by the files that stay. Blocks.
    fn choose(&self, files: &mut LiveFiles<'_>) -> Result<Chosen, ArchiveError>;
}

/// How shards are rebuilt.
#[derive(Debug, Clone)]
pub struct RepackSettings {
    /// Where the old and the new shard lie while one is made of the other: twice the size of a shard, once where the old
    /// one is read from `directory`.
    pub spool: PathBuf,
    /// The directory that the store is, if it is one: shards are then read where they lie.
    pub directory: Option<LocalStore>,
    /// How many threads compress and compare.
    pub threads: usize,
    /// How much content is compressed together in frames that lose a file.
    pub frame_size: FrameSize,
    /// How hard zstd tries on frames that lose a file.
    pub level: i32,
    /// Compress everything anew, even where nothing is deleted.
    pub recompress: bool,
    /// Decides for what is compressed anew as a whole.
    pub chooser: Arc<dyn Chooser>,
    /// The most bytes a second that are read from and written to the store.
    pub rate: Option<NonZeroU64>,
    /// Other stores that hold copies, asked where an object is damaged.
    pub healers: Vec<Arc<dyn ObjectStore>>,
}

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repacked {
    /// The new shard is live.
    Swapped(Done),
    /// Nothing in the old shards was alive: they have no successor.
    Dropped(Done),
    /// There was nothing to do, any more.
    Nothing,
    /// Somebody else has changed the day first; the next run decides anew.
    Overtaken,
}

/// What a job has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done {
    /// Files taken out.
    pub files_dropped: u64,
    /// Files that stayed.
    pub files_kept: u64,
    /// Bytes read from the store, but for reading back.
    pub bytes_read: u64,
    /// Bytes written to the store; as many are read back.
    pub bytes_written: u64,
    /// Frames that were taken over as they were stored.
    pub frames_copied: u64,
    /// Frames that were compressed anew.
    pub frames_encoded: u64,
    /// True when an earlier run had already uploaded the very same object.
    pub adopted: bool,
}

impl Done {
    fn add(&mut self, other: &Self) {
        self.files_dropped = self.files_dropped.saturating_add(other.files_dropped);
        self.files_kept = self.files_kept.saturating_add(other.files_kept);
        self.bytes_read = self.bytes_read.saturating_add(other.bytes_read);
        self.bytes_written = self.bytes_written.saturating_add(other.bytes_written);
        self.frames_copied = self.frames_copied.saturating_add(other.frames_copied);
        self.frames_encoded = self.frames_encoded.saturating_add(other.frames_encoded);
        self.adopted |= other.adopted;
    }
}

impl ArchiveWriter {
    /// Does one job. Reads every old shard once, writes the new one once and reads it back once.
    ///
    /// On an error the old shards are as live as before, or the new one is; both are complete. Not to be cancelled between
    /// its first poll and its end: an object could be left that only a later run adopts.
    pub async fn repack(&self, date: Date, job: &Job, settings: &RepackSettings) -> Result<Repacked, ArchiveError> {
        // The deletions are read first: a file that is deleted from here on stays until the next run.
        let group = self.group_of(date, job)?;
        let deletions = Arc::new(Deletions::read_group(self.store.as_ref(), &group).await?);
        if job.shards.iter().all(|shard| deletions.holds_shard(shard.shard)) {
            let files_dropped = job.shards.iter().map(|shard| u64::from(shard.entries)).sum();
            return self.install_nothing(date, &job.shards, Done { files_dropped, ..Done::default() }).await;
        }
        if job.shards.iter().any(|shard| layout::is_flat(&shard.key)) {
            return self.convert_all(date, &job.shards, &deletions, settings).await;
        }
        let sources = self.fetch_sources(&job.shards, settings).await?;
        let bytes_read = job.shards.iter().map(|shard| shard.len).sum();
        let hasher = self.archive().uid_hasher().clone();
        let task = rebuild::Task {
            archive: self.identity().archive,
            bits: self.identity().bits(),
            date,
            sources,
            deletions,
            hasher,
            settings: settings.clone(),
            spool_name: self.fresh_name("new"),
        };
        match blocking(move || task.run()).await? {
            rebuild::Rebuilt::Nothing => Ok(Repacked::Nothing),
            rebuild::Rebuilt::Empty(done) => self.install_nothing(date, &job.shards, Done { bytes_read, ..done }).await,
            rebuild::Rebuilt::Shard(shard, done) => {
                self.install(date, &job.shards, *shard, Done { bytes_read, ..done }, settings).await
            }
        }
    }
}

impl ArchiveWriter {
    /// The one group of all shards of a job.
    fn group_of(&self, date: Date, job: &Job) -> Result<Group, ArchiveError> {
        let mut buckets: Vec<u16> = job.shards.iter().map(|shard| shard.bucket).collect();
        buckets.dedup();
        let bits = self.identity().bits();
        match buckets.as_slice() {
            [bucket] => Bucket::new(u32::from(*bucket), bits).map(|bucket| Group { date, bucket, bits }),
            _ => None,
        }
        .ok_or_else(|| ArchiveError::refused("a job needs shards of just one group of the archive"))
    }
}

/// The keys and identities of shards that are to go.
fn identities(shards: &[ManifestShard]) -> Vec<(ObjectKey, desfmt::ShardId)> {
    shards.iter().map(|shard| (shard.key.clone(), shard.shard)).collect()
}

/// Runs what computes for long where it holds up nobody else.
#[cfg(not(test))]
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(ArchiveError::refused(format!("a thread that was rebuilding a shard died: {error}")))
    })
}

/// The same on the spot, so that a seed decides the order of everything.
#[cfg(test)]
async fn blocking<T>(work: impl FnOnce() -> Result<T, ArchiveError>) -> Result<T, ArchiveError> {
    work()
}
