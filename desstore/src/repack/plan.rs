//! Which shards are repacked, and why. Pure: what is known of a day goes in, jobs come out.

use std::time::Duration;

use desfmt::document::ManifestShard;
use desfmt::v3::limits::ORIGINS_MAX;
use desfmt::{BucketBits, Date, ObjectKey, Timestamp, UidHash, layout};

use crate::archive::{ArchiveError, Index};
use crate::deletions::Deletions;
use crate::inventory::ReadManifest;
use crate::object::ShardObject;
use crate::publish::ArchiveWriter;

/// When a shard is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// The share of its plain bytes or files that is deleted, in percent.
    pub dead_percent: u8,
    /// How old its oldest deletion may become.
    pub age_max: Duration,
    /// How many live shards a group may have before the small ones are merged.
    pub group_shards_max: usize,
    /// How large a merged shard may become, in bytes as stored.
    pub merged_bytes_max: u64,
    /// Every shard is due: everything is compressed anew.
    pub all: bool,
    /// Every shard of the ancestor is due.
    pub convert: bool,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            dead_percent: 20,
            age_max: Duration::from_hours(12),
            group_shards_max: 4,
            merged_bytes_max: 256 << 20,
            all: false,
            convert: false,
        }
    }
}

/// Why a shard is repacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Too much of it is deleted.
    DeadShare,
    /// A deletion has waited for long enough.
    Age,
    /// Its group has too many shards.
    Merge,
    /// All of it is deleted.
    Empty,
    /// It is compressed anew, as asked for.
    Recompress,
    /// It is of the ancestor, and becomes one of the current version, as asked for.
    Convert,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::DeadShare => "dead-share",
            Self::Age => "age",
            Self::Merge => "merge",
            Self::Empty => "empty",
            Self::Recompress => "recompress",
            Self::Convert => "convert",
        })
    }
}

/// A live shard and what of it is deleted.
#[derive(Debug, Clone)]
pub struct ShardState {
    /// What the manifest says of it.
    pub listed: ManifestShard,
    /// How many of its files are deleted.
    pub dead_entries: u64,
    /// Their plain bytes.
    pub dead_bytes: u64,
    /// When the first of them was deleted.
    pub oldest: Option<Timestamp>,
}

/// Shards that give way to one or to none; those of the ancestor each to one of its own.
#[derive(Debug, Clone)]
pub struct Job {
    /// The old shards, all of one group.
    pub shards: Vec<ManifestShard>,
    /// Why the first of them is due.
    pub reason: Reason,
    /// Files that will be dropped.
    pub dead_entries: u64,
    /// Their plain bytes.
    pub dead_bytes: u64,
}

impl Job {
    /// Bytes that are read, but for reading back.
    pub fn bytes_read(&self) -> u64 {
        if self.reason == Reason::Empty { 0 } else { self.shards.iter().map(|shard| shard.len).sum() }
    }

    /// About how many bytes will be written: as much less as the share of plain bytes that is deleted.
    pub fn bytes_written(&self) -> u64 {
        let plain: u64 = self.shards.iter().map(|shard| shard.plain_len).sum();
        let live = u128::from(plain.saturating_sub(self.dead_bytes));
        let written = u128::from(self.bytes_read()).saturating_mul(live).checked_div(u128::from(plain.max(1)));
        u64::try_from(written.unwrap_or(0)).unwrap_or(u64::MAX)
    }

    /// About how many requests it takes: reading in windows of 4 MiB, one upload, reading back in windows of 8 MiB, and
    /// what surrounds them.
    pub fn requests(&self) -> u64 {
        if self.reason == Reason::Empty {
            return 4;
        }
        let reads: u64 = self.shards.iter().map(|shard| shard.len.div_ceil(4 << 20).saturating_add(1)).sum();
        reads.saturating_add(self.bytes_written().div_ceil(8 << 20)).saturating_add(10)
    }
}

/// What is to be done about a day.
#[derive(Debug, Clone)]
pub struct DayPlan {
    /// The day.
    pub date: Date,
    /// The jobs, which do not depend on each other.
    pub jobs: Vec<Job>,
    /// Live shards that are lost or damaged, so that it cannot be told what of them is deleted. They stay as they are.
    pub unknown: Vec<(ObjectKey, ArchiveError)>,
    /// When the oldest deletion was made that is not proven to be carried out.
    pub oldest: Option<Timestamp>,
}

impl DayPlan {
    /// Plans for the live shards of a day.
    pub fn new(date: Date, shards: &[ShardState], thresholds: &Thresholds, now: Timestamp) -> Self {
        let mut due: Vec<(u16, Vec<&ShardState>, Reason)> = Vec::new();
        for shard in shards {
            match why(shard, thresholds, now) {
                Some(reason) if reason != Reason::Empty && is_flat(shard) => {}
                Some(reason) => due.push((shard.listed.bucket, vec![shard], reason)),
                None => {}
            }
        }
        due.extend(to_convert(shards, thresholds, now));
        for (bucket, small) in to_merge(shards, thresholds) {
            // A shard that is due anyway goes into the merge of its group.
            due.retain(|(_, shards, reason)| {
                *reason == Reason::Empty || !small.iter().any(|one| shards.iter().any(|two| is_same(one, two)))
            });
            due.push((bucket, small, Reason::Merge));
        }
        due.sort_by_key(|(bucket, ..)| *bucket);
        let jobs = due.into_iter().map(|(_, shards, reason)| Job {
            reason,
            dead_entries: shards.iter().map(|shard| shard.dead_entries).sum(),
            dead_bytes: shards.iter().map(|shard| shard.dead_bytes).sum(),
            shards: shards.into_iter().map(|shard| shard.listed.clone()).collect(),
        });
        Self {
            date,
            jobs: jobs.collect(),
            unknown: Vec::new(),
            oldest: shards.iter().filter_map(|shard| shard.oldest).min(),
        }
    }
}

fn is_flat(shard: &ShardState) -> bool {
    layout::is_flat(&shard.listed.key)
}

/// For each group the flat shards from the first one on that is due. Those after it come along: of a uid that several of
/// them hold the first counts, and a shard of the current version stands behind all that are flat.
fn to_convert<'a>(
    shards: &'a [ShardState],
    thresholds: &Thresholds,
    now: Timestamp,
) -> Vec<(u16, Vec<&'a ShardState>, Reason)> {
    let mut flat: Vec<_> = shards.iter().filter(|shard| is_flat(shard)).collect();
    flat.retain(|shard| why(shard, thresholds, now) != Some(Reason::Empty));
    flat.sort_unstable_by_key(|shard| (shard.listed.bucket, shard.listed.split));
    let groups = flat.chunk_by(|a, b| a.listed.bucket == b.listed.bucket);
    let jobs = groups.filter_map(|group| {
        let reasons = group.iter().map(|shard| why(shard, thresholds, now));
        let (from, reason) = reasons.enumerate().find_map(|(at, reason)| Some((at, reason?)))?;
        let due = group.get(from..)?;
        Some((due.first()?.listed.bucket, due.to_vec(), reason))
    });
    jobs.collect()
}

fn is_same(a: &ShardState, b: &ShardState) -> bool {
    a.listed.key == b.listed.key
}

fn why(shard: &ShardState, thresholds: &Thresholds, now: Timestamp) -> Option<Reason> {
    let listed = &shard.listed;
    if shard.dead_entries > 0 && shard.dead_entries >= u64::from(listed.entries) {
        return Some(Reason::Empty);
    }
    let is_over = |dead: u64, all: u64| {
        let (part, whole) = (u128::from(dead), u128::from(all));
        dead > 0 && part.saturating_mul(100) >= whole.saturating_mul(u128::from(thresholds.dead_percent))
    };
    if is_over(shard.dead_entries, u64::from(listed.entries)) || is_over(shard.dead_bytes, listed.plain_len) {
        return Some(Reason::DeadShare);
    }
    if shard.oldest.is_some_and(|oldest| now.since(oldest) >= thresholds.age_max) {
        return Some(Reason::Age);
    }
    if thresholds.convert && is_flat(shard) {
        return Some(Reason::Convert);
    }
    thresholds.all.then_some(Reason::Recompress)
}

/// For each group with too many shards the smallest of them, as many as fit into one.
fn to_merge<'a>(shards: &'a [ShardState], thresholds: &Thresholds) -> Vec<(u16, Vec<&'a ShardState>)> {
    let mut buckets: Vec<u16> = shards.iter().map(|shard| shard.listed.bucket).collect();
    buckets.sort_unstable();
    buckets.dedup();
    let mut merges = Vec::new();
    for bucket in buckets {
        let mut group: Vec<_> = shards.iter().filter(|shard| shard.listed.bucket == bucket).collect();
        if group.len() <= thresholds.group_shards_max {
            continue;
        }
        group.retain(|shard| shard.dead_entries < u64::from(shard.listed.entries) && !is_flat(shard));
        group.sort_by_key(|shard| shard.listed.len);
        let (mut bytes, mut origins) = (0_u64, 0_usize);
        let fits = |shard: &&ShardState| {
            bytes = bytes.saturating_add(shard.listed.len);
            origins = origins.saturating_add(shard.listed.serials.len());
            bytes <= thresholds.merged_bytes_max && origins <= usize::try_from(ORIGINS_MAX).unwrap_or(usize::MAX)
        };
        let small: Vec<_> = group.into_iter().take_while(fits).collect();
        if small.len() > 1 {
            merges.push((bucket, small));
        }
    }
    merges
}

impl ArchiveWriter {
    /// Finds out what of each live shard of a day is deleted, and plans. For each shard of a group that has deletions its
    /// index is read; of all others nothing. A shard that is lost or damaged holds up no other. `None` for a day that does
    /// not exist.
    pub async fn plan_repack(&self, date: Date, thresholds: &Thresholds) -> Result<Option<DayPlan>, ArchiveError> {
        let store = self.store.as_ref();
        let Some(read) = ReadManifest::read(store, date).await? else { return Ok(None) };
        let deletions = Deletions::read(store, self.identity().bits(), date).await?;
        let mut states = Vec::with_capacity(read.manifest.shards.len());
        let mut unknown = Vec::new();
        for listed in &read.manifest.shards {
            match self.state_of(listed, &deletions).await {
                Ok(state) => states.push(state),
                Err(error) if error.is_damage() => unknown.push((listed.key.clone(), error)),
                Err(error) => return Err(error),
            }
        }
        let now = self.store.time().await?;
        // Also of what only retired shards and orphans hold.
        let oldest = deletions.oldest();
        Ok(Some(DayPlan { unknown, oldest, ..DayPlan::new(date, &states, thresholds, now) }))
    }

    /// What of a live shard is deleted. At most two requests, and one for each index page that is not part of its tail.
    pub(super) async fn state_of(
        &self,
        listed: &ManifestShard,
        deletions: &Deletions,
    ) -> Result<ShardState, ArchiveError> {
        let mut state = ShardState { listed: listed.clone(), dead_entries: 0, dead_bytes: 0, oldest: None };
        if let Some(since) = deletions.shard_since(listed.shard) {
            state.dead_entries = u64::from(listed.entries);
            state.dead_bytes = listed.plain_len;
            state.oldest = Some(since);
            return Ok(state);
        }
        if !deletions.touches(listed.bucket) {
            return Ok(state);
        }
        let store = self.store.as_ref();
        let hasher = self.archive().uid_hasher();
        let mut note = |uid: &str, len: u64| {
            let hash: UidHash = hasher.hash(uid);
            if let Some(since) = deletions.since(hash) {
                state.dead_entries = state.dead_entries.saturating_add(1);
                state.dead_bytes = state.dead_bytes.saturating_add(len);
                state.oldest = Some(state.oldest.map_or(since, |oldest| oldest.min(since)));
            }
        };
        if layout::is_flat(&listed.key) {
            let (_, open) = self.archive().open_object(&listed.key).await?;
            if let Index::Legacy(shard) = &open.index {
                shard.index().iter().for_each(|entry| note(entry.uid, entry.location.plain_len()));
            }
            return Ok(state);
        }
        let object = ShardObject::open(store, &listed.key).await?;
        for page in object.pages() {
            object.index_page(store, page).await?.entries().for_each(|entry| note(entry.uid.as_str(), entry.len));
        }
        Ok(state)
    }

    /// The bits of the archive.
    pub(crate) fn bits(&self) -> BucketBits {
        self.identity().bits()
    }
}
