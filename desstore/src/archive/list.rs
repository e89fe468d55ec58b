//! Directories: the visible entries of a day, in the order of their birth numbers.
//!
//! That order never changes: a repack keeps birth numbers and a new shard gets the next serial. So a position in it is a
//! cookie that stays good, and within a shard it is the order in which the contents lie.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use desfmt::{Birth, Date, bucket_of, v3};
use futures_util::future::join_all;

use crate::archive::entries::{FileEntry, Located, settled};
use crate::archive::error::ArchiveError;
use crate::archive::shard::Index;
use crate::archive::{Archive, CacheKey, Day, DayShard, OpenShard};

/// Shards that a listing of a store that is far opens together, and how many entries they may have in all: one after the other
/// they would cost a round trip each, and where one alone has that many its round trip does not count.
const SHARDS_TOGETHER_MAX: usize = 16;
const ENTRIES_TOGETHER_MAX: u64 = 20_000;

/// In an archive of so many days each one is asked for when all are listed.
const DAYS_ASKED_MAX: usize = 64;

impl Archive {
    /// The next visible entries of a day after a birth number, at most `count_max` of them; none at the end.
    pub async fn list(
        &self,
        date: Date,
        after: Option<Birth>,
        count_max: usize,
    ) -> Result<Vec<FileEntry>, ArchiveError> {
        settled!(self, date, self.list_once(date, after, count_max))
    }

    async fn list_once(
        &self,
        date: Date,
        after: Option<Birth>,
        count_max: usize,
    ) -> Result<Vec<FileEntry>, ArchiveError> {
        let Some(day) = self.day(date).await? else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        let mut from = after.map_or(Birth { serial: 0, ordinal: 0 }, next);
        while entries.len() < count_max {
            let at = day.serials.partition_point(|(serial, ..)| *serial < from.serial);
            let Some((serial, index, origin)) = day.serials.get(at) else { break };
            let ordinal = if *serial == from.serial { from.ordinal } else { 0 };
            if let Some(shard) = day.shards.get(*index).filter(|shard| !day.is_deleted(shard)) {
                let birth = Birth { serial: *serial, ordinal };
                if count_max > 1 {
                    self.open_together(&day, at).await;
                }
                self.list_serial(&day, shard, (*origin, birth), count_max, &mut entries).await?;
            }
            from = Birth { serial: serial.saturating_add(1), ordinal: 0 };
        }
        Ok(entries)
    }

    /// Opens the shards that a listing comes to from a place in the order of serials on, if the first of them is not open.
    async fn open_together(&self, day: &Day, at: usize) {
        let is_open = |shard: &DayShard| self.cache.contains(&CacheKey::Shard(shard.id));
        let mut shards: Vec<&DayShard> = Vec::new();
        let mut entries = 0_u64;
        for (_, index, _) in day.serials.get(at..).unwrap_or_default() {
            let Some(shard) = day.shards.get(*index) else { break };
            entries = entries.saturating_add(u64::from(shard.entries));
            let is_first = shards.is_empty();
            if self.options.store_is_near || is_first && is_open(shard) {
                return;
            }
            if !is_first && (entries > ENTRIES_TOGETHER_MAX || shards.len() >= SHARDS_TOGETHER_MAX) {
                break;
            }
            if !day.is_deleted(shard) && !is_open(shard) && shards.iter().all(|other| other.id != shard.id) {
                shards.push(shard);
            }
        }
        if shards.len() > 1 {
            // What does not open is opened once more when the listing comes to it, which then fails.
            drop(join_all(shards.into_iter().map(|shard| self.open_shard(shard))).await);
        }
    }

    /// True when nothing of the day is visible, or it does not exist.
    pub async fn day_is_empty(&self, date: Date) -> Result<bool, ArchiveError> {
        let Some(day) = self.day(date).await? else { return Ok(true) };
        if day.tombstones.is_empty() && day.shards.iter().any(|shard| shard.entries > 0) {
            return Ok(false);
        }
        let is_empty = self.list(date, None, 1).await?.is_empty();
        if is_empty {
            self.days.found_empty(date, &day);
        }
        Ok(is_empty)
    }

    /// True when a listing of all days should show this one. Exact, unless asking would cost requests for many days: then a day
    /// counts as shown from which everything was deleted elsewhere and which nobody has looked at here since.
    pub async fn day_is_listed(&self, date: Date) -> Result<bool, ArchiveError> {
        let known = self.days_known().await?;
        if self.options.store_is_near || known.dates.len() <= DAYS_ASKED_MAX || self.knows_day(date) {
            return Ok(!self.day_is_empty(date).await?);
        }
        let tag = known.dates.binary_search(&date).ok().and_then(|at| known.tags.get(at));
        Ok(tag.is_none_or(|tag| !self.days.is_known_empty(date, tag)))
    }

    /// The earlier splits of a shard's group: in an archive of the ancestor a uid may be in several, and the first counts.
    async fn earlier_splits(&self, day: &Day, shard: &DayShard) -> Result<Vec<Arc<OpenShard>>, ArchiveError> {
        let mut earlier = Vec::new();
        for other in day.group(shard.bucket).iter().take_while(|other| other.key != shard.key) {
            earlier.push(self.open_shard(other).await?);
        }
        Ok(earlier)
    }

    /// True when a lookup of this uid comes to the shard's group. A name that is listed and belongs elsewhere would let a
    /// shard put its content under the name of another shard's file.
    fn is_of(&self, shard: &DayShard, uid: &str) -> bool {
        bucket_of(uid, self.bits()).is_ok_and(|bucket| bucket.number() == shard.bucket)
    }

    /// Appends the visible entries of one serial from an ordinal on.
    async fn list_serial(
        &self,
        day: &Day,
        shard: &DayShard,
        (origin, from): (u16, Birth),
        count_max: usize,
        entries: &mut Vec<FileEntry>,
    ) -> Result<(), ArchiveError> {
        let open = self.open_shard(shard).await?;
        open.is_listed.store(true, Ordering::Relaxed);
        let all_visible = day.tombstones.is_empty();
        let is_visible = |file: &FileEntry| all_visible || !self.is_tombstoned(&day.tombstones, file.uid.as_str());
        let index = match &open.index {
            Index::Paged(index) => index,
            Index::Legacy(legacy) => {
                let before = self.earlier_splits(day, shard).await?;
                let is_shadowed = |uid: &str| before.iter().any(|earlier| earlier.holds_flat(uid));
                legacy.list(&open, from, &mut |located: Located| {
                    let uid = located.file.uid.as_str();
                    if self.is_of(shard, uid) && is_visible(&located.file) && !is_shadowed(uid) {
                        entries.push(located.file);
                    }
                    entries.len() < count_max
                });
                return Ok(());
            }
        };
        let first = match index.page_of_birth(origin, from.ordinal) {
            Some(first) => first,
            None if index.lineage().is_fresh() => return Ok(()),
            // Before the first birth that is left of this origin.
            None => v3::PageNumber(0),
        };
        for number in first.0..index.index_pages() {
            let page = self.index_page_of_walk(&open, index, v3::PageNumber(number)).await?;
            for at in 0..page.len() {
                if entries.len() >= count_max {
                    return Ok(());
                }
                let Some((entry_origin, ordinal)) = page.birth(at) else { break };
                if entry_origin != origin || ordinal < from.ordinal {
                    continue;
                }
                let Some(entry) = page.entry(at) else { break };
                let file = Located::paged(&open, entry, from.serial).file;
                if !self.is_of(shard, file.uid.as_str()) {
                    let detail = format!("it holds {:?}, which belongs to another group", file.uid);
                    return Err(ArchiveError::inconsistent(&open.key, detail));
                }
                if is_visible(&file) {
                    entries.push(file);
                }
            }
        }
        Ok(())
    }
}

/// The birth number that follows.
const fn next(birth: Birth) -> Birth {
    Birth { serial: birth.serial, ordinal: birth.ordinal.saturating_add(1) }
}
